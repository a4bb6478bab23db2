//! The admin API: editors write here. Each write commits its purge and its note in the audit log in its transaction, and
//! answers with the state it made (`Surrogate-As-Of`), which a reader can demand (`Min-As-Of`).
use super::extract::document;
use super::idempotency::InFlight;
use super::query::{PAGE_MAX, Query};
use super::records::{self, Routed};
use super::spec::{Api, Op, integer, one_of, pattern, text};
use super::{audit, bulk};
use crate::catalog::model::{CollectionInput, GenreInput, PersonInput, RailInput, SeasonInput, TitleInput};
use crate::store::Entry;
use axum::Extension;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post, put};
use kv_schemas::{Problem, PurgeMode};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod;

const STATE: [(u16, &str); 4] = [
    (400, "The request is malformed"),
    (404, "There is none of this id"),
    (412, "It is not in the state the request was made for"),
    (428, "If-Match is missing"),
];
const PURGES: [&str; 2] = ["soft", "hard"];

fn op(what: &str, summary: &str) -> Op {
    Op::new(what, summary).staff()
}

fn write_op(op: Op) -> Op {
    op.field("If-Match", text(), "The ETag of the state the write is for, or *")
        .query("purge", one_of(&PURGES), "How pages are purged; as the change needs when not given")
        .problems(&STATE)
}

/// One thing of a kind: everything but listing and creating.
fn one<I: Routed + ToSchema>(what: &str, path: &str, id: impl Fn(Op) -> Op) -> Api {
    let media = ["application/json"];
    let got = |op: Op| id(op).answer::<I>(200, "As it is now");
    let conflict = [(409, "It is in use, deleted, or not deleted")];
    Api::new()
        .add(
            HttpMethod::Get,
            path,
            get(records::read::<I>),
            got(op(what, "Read")).problems(&[(400, "The id is not valid"), (404, "There is none of this id")]),
        )
        .add(
            HttpMethod::Put,
            path,
            put(records::put::<I>),
            write_op(got(op(what, "Write whole, or create")))
                .body::<I>(&media)
                .answer::<I>(201, "Created")
                .problems(&conflict),
        )
        .add(HttpMethod::Patch, path, patch(records::patch::<I>), write_op(got(op(what, "Change"))).patch_body())
        .add(
            HttpMethod::Delete,
            path,
            delete(records::delete::<I>),
            write_op(id(op(what, "Delete; it can be restored"))).empty(204, "Deleted").problems(&conflict),
        )
        .add(
            HttpMethod::Post,
            &format!("{path}/restore"),
            post(records::restore::<I>),
            got(op(what, "Restore what was deleted"))
                .field("If-Match", text(), "")
                .problems(&STATE)
                .problems(&conflict),
        )
}

/// A kind whose things have ids of their own.
fn kind<I: Routed + ToSchema>(what: &str, path: &str) -> Api {
    let listed = op(what, "List by id")
        .query("limit", integer(1, i64::from(PAGE_MAX)), "50 when not given")
        .query("cursor", text(), "`next_cursor` of this list")
        .query("deleted", one_of(&["true", "false"]), "true: what is deleted, and nothing else")
        .page::<I>("By id")
        .problems(&[(400, "The query has faults, each named")]);
    let created = op(what, "Create")
        .says("With an `Idempotency-Key`, asking again within a day is answered as the first time.")
        .field("Idempotency-Key", pattern("^[!-~]{1,255}$"), "")
        .body::<I>(&["application/json"])
        .answer::<I>(201, "Created")
        .problems(&[(409, "There is one of this id, or this Idempotency-Key is under way")]);
    Api::new()
        .add(HttpMethod::Get, path, get(records::list::<I>), listed)
        .add(HttpMethod::Post, path, post(records::create::<I>), created)
        .merge(one::<I>(what, &format!("{path}/{{id}}"), Op::id))
}

pub fn api() -> Api {
    let bulk_op = op("titles", "Change many: all of them, or none")
        .says("Every fault of every item is named, and then nothing is changed.")
        .field("Idempotency-Key", pattern("^[!-~]{1,255}$"), "")
        .query("purge", one_of(&PURGES), "How pages are purged")
        .body::<bulk::Bulk>(&["application/json"])
        .answer::<bulk::BulkDone>(200, "All done")
        .problems(&[(409, "This Idempotency-Key is under way")]);
    let audit_op = op("audit", "Who changed what, youngest first")
        .says("What was done to accounts (`user`, `staff`) is shown to admins alone.")
        .query("kind", one_of(&audit::KINDS), "")
        .query("id", text(), "")
        .query("actor", text(), "")
        .query("from", text(), "RFC 3339, inclusive")
        .query("until", text(), "RFC 3339, exclusive")
        .query("limit", integer(1, i64::from(PAGE_MAX)), "50 when not given")
        .query("cursor", text(), "`next_cursor` of this list")
        .page::<Entry>("Changes")
        .problems(&[(400, "The query has faults, each named")]);
    let season = |op: Op| op.id().path("number", integer(0, 10_000));
    let seasons = "/admin/v1/series/{id}/seasons";
    let seasons_op = op("seasons", "All seasons of a series").id().page::<SeasonInput>("By number");
    let mut api = Api::new()
        .add(HttpMethod::Post, "/admin/v1/titles/bulk", post(bulk::titles), bulk_op)
        .merge(kind::<TitleInput>("titles", "/admin/v1/titles"))
        .add(HttpMethod::Get, seasons, get(records::list_seasons), seasons_op.problems(&[(400, "The id is not valid")]))
        .merge(one::<SeasonInput>("seasons", &format!("{seasons}/{{number}}"), season))
        .merge(kind::<PersonInput>("people", "/admin/v1/people"))
        .merge(kind::<GenreInput>("genres", "/admin/v1/genres"))
        .merge(kind::<RailInput>("rails", "/admin/v1/rails"))
        .merge(kind::<CollectionInput>("collections", "/admin/v1/collections"))
        .add(HttpMethod::Get, "/admin/v1/audit", get(audit::list), audit_op);
    api.router = api.router.layer(Extension(InFlight::default()));
    api
}

/// The body as JSON, in one of the media types the call takes.
pub(super) fn json_body(headers: &HeaderMap, body: Result<Bytes, Problem>, types: &[&str]) -> Result<Value, Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !types.contains(&given.as_str()) {
        return Err(Problem::new(415, "media-type", "The body's media type is not taken here")
            .detail(format!("send Content-Type: {}", types.join(" or "))));
    }
    document(&body?)
}

pub(super) fn mode_of(text: &str) -> Option<PurgeMode> {
    [PurgeMode::Soft, PurgeMode::Hard].into_iter().find(|mode| mode.as_str() == text)
}

/// How a write wants its purge.
pub(super) fn purge_mode(mut query: Query) -> Result<Option<PurgeMode>, Problem> {
    let mode = query.take("purge", "soft or hard", mode_of);
    query.end().map(|()| mode)
}

pub(super) fn private_json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (status, no_store, axum::Json(value)).into_response()
}
