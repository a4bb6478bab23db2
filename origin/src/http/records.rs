//! What editors do with any kind of thing: list, create, read, write, patch, delete, restore. The kinds differ in
//! [`crate::edits::Edited`] alone.
use super::admin::{json_body, private_json, purge_mode};
use super::answers::as_of_field;
use super::client::number_of;
use super::conditional::{names, said_of, version_etag};
use super::error::ApiError;
use super::extract::{Whole, path_of};
use super::guard::Staff;
use super::idempotency::{Claim, InFlight};
use super::query::{Query, id_cursor};
use super::{ApiResult, App};
use crate::catalog::model::{Record, SeasonInput, season_id, sort_name};
use crate::catalog::validate::{self, check_id, merge_patch};
use crate::edits::{Edited, Edits, Wanted};
use crate::store::Write;
use axum::extract::{Extension, FromRequestParts, OriginalUri, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kv_schemas::claims::StaffRole;
use kv_schemas::problem::Fault;
use kv_schemas::{AsOf, Problem, PurgeMode};
use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;
use std::marker::PhantomData;

/// The id in the path of a kind of thing.
pub struct Id<I>(pub String, PhantomData<I>);

/// Where a kind of thing stands in paths.
pub trait Routed: Edited {
    fn id_of(segments: &HashMap<String, String>) -> Result<String, Problem> {
        let id = segments.get("id").map(String::as_str).unwrap_or_default();
        check_id(id)
            .map(|()| id.to_string())
            .map_err(|message| Problem::new(400, "id-invalid", "The id is not valid").fault("id", message))
    }
}

impl Routed for crate::catalog::model::TitleInput {}
impl Routed for crate::catalog::model::PersonInput {}
impl Routed for crate::catalog::model::GenreInput {}
impl Routed for crate::catalog::model::RailInput {}
impl Routed for crate::catalog::model::CollectionInput {}
impl Routed for SeasonInput {
    fn id_of(segments: &HashMap<String, String>) -> Result<String, Problem> {
        let series = crate::catalog::model::TitleInput::id_of(segments)?;
        let number = segments.get("number").and_then(|text| number_of(text));
        let number = number.ok_or_else(|| {
            Problem::new(400, "id-invalid", "The id is not valid").fault("number", "must be a number from 0 to 10000")
        })?;
        Ok(season_id(&series, number))
    }
}

impl<I: Routed, S: Send + Sync> FromRequestParts<S> for Id<I> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = path_of(parts, state).await?;
        Ok(Self(I::id_of(&path)?, PhantomData))
    }
}

fn absent<I: Edited>() -> ApiError {
    Problem::new(404, "not-found", format!("There is no {} of this id", I::WHAT)).into()
}

fn deleted<I: Edited>() -> ApiError {
    Problem::new(409, "deleted", format!("The {} of this id is deleted", I::WHAT))
        .detail("restore it (POST …/restore), or take another id")
        .into()
}

/// `If-Match` and `If-None-Match` of a write, against what is there.
pub(super) fn check_preconditions<I: Edited>(headers: &HeaderMap, current: Option<&Record<I>>) -> Result<(), Problem> {
    let value = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
    let etag = current.map(|record| version_etag(record.version));
    let changed = || {
        let title = format!("The {} is not in the state the request was made for", I::WHAT);
        let problem = Problem::new(412, "changed", title);
        let bare = value(header::IF_MATCH).map_or_else(String::new, said_of);
        match &etag {
            Some(etag) => problem.detail(format!("{bare}its ETag is {etag}")),
            None => problem.detail(format!("{bare}it does not exist")),
        }
    };
    if let Some(list) = value(header::IF_NONE_MATCH)
        && etag.as_deref().is_some_and(|etag| names(list, etag, true))
    {
        return Err(changed());
    }
    match (value(header::IF_MATCH), &etag) {
        (Some(list), Some(etag)) if names(list, etag, false) => Ok(()),
        (Some(_), _) => Err(changed()),
        (None, None) => Ok(()),
        (None, Some(etag)) => Err(Problem::new(428, "if-match-missing", "Say which state this write is for")
            .detail(format!("send If-Match: {etag}, or If-Match: * to write whatever is there"))),
    }
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn fields<I: Edited>(as_of: &AsOf, record: Option<&Record<I>>, location: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // Packed on the way the tag would be made weak, and no write could be conditional on it: RFC 9110 section 13.1.1.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.extend([as_of_field(as_of)]);
    if let Some(record) = record {
        insert(&mut headers, header::ETAG, &version_etag(record.version));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(location) = location {
        insert(&mut headers, header::LOCATION, location);
    }
    headers
}

fn answer<I: Edited>(status: StatusCode, as_of: &AsOf, record: Option<&Record<I>>) -> Response {
    let body = record.and_then(|record| serde_json::to_string(record).ok()).unwrap_or_default();
    (status, fields(as_of, record, None), body).into_response()
}

/// How a create is answered, and kept if it carries a key.
struct Created {
    claim: Option<Claim>,
    location: String,
}

/// Writes what is wanted, with its purge and its note; nothing at all if nothing changes.
async fn change<I: Edited>(
    mut write: Write,
    staff: &Staff,
    (id, before): (&str, Option<Record<I>>),
    wanted: Wanted<I>,
    mode: Option<PurgeMode>,
    created: Option<Created>,
) -> ApiResult {
    let was = before.as_ref().map(|before| &before.input);
    let to_be = match &wanted {
        Wanted::Be(input) => Some(input),
        // The rest of the catalogue has gone on meanwhile.
        Wanted::Back => was,
        Wanted::Gone => None,
    };
    if let Some(input) = to_be {
        let faults = I::check(&mut write, id, was, input).await?;
        if !faults.is_empty() {
            return Err(validate::refused(I::WHAT, faults).into());
        }
    }
    let (status, action) = match (&before, &wanted) {
        (None, _) => (StatusCode::CREATED, "create"),
        (_, Wanted::Gone) => (StatusCode::NO_CONTENT, "delete"),
        (_, Wanted::Back) => (StatusCode::OK, "restore"),
        _ => (StatusCode::OK, "edit"),
    };
    let mut edits = Edits::by(&staff.0.sub);
    let mut after = edits.after(id, before.as_ref(), wanted).ok_or_else(absent::<I>)?;
    if before.as_ref().is_some_and(|before| before.version == after.version) {
        let as_of = write.as_of();
        return Ok(answer(StatusCode::OK, &as_of, Some(&after)));
    }
    edits.put(&mut write, action, before.as_ref(), &mut after, mode).await?;
    edits.log(&mut write, action).await?;
    let shown = (status != StatusCode::NO_CONTENT).then_some(&after);
    let body = shown.and_then(|record| serde_json::to_string(record).ok()).unwrap_or_default();
    let location = created.as_ref().map(|created| created.location.as_str());
    let headers = fields(&write.as_of(), shown, location);
    if let Some(claim) = created.as_ref().and_then(|created| created.claim.as_ref()) {
        claim.keep(&mut write, status, &headers, &body).await?;
    }
    write.commit().await?;
    Ok((status, headers, body).into_response())
}

/// A whole thing from a body, whose `id`, if it has one, must be the path's.
pub(super) fn read_input<I: Edited>(value: &Value, id: &str) -> Result<I, Problem> {
    let result = I::read(value);
    let renamed = value.get("id").is_some_and(|given| given.as_str() != Some(id));
    match result {
        Ok(input) if !renamed => Ok(input),
        result => {
            let mut problem = validate::refused(I::WHAT, result.err().unwrap_or_default());
            if renamed {
                problem = problem.fault("/id", "cannot be changed");
            }
            Err(problem)
        }
    }
}

/// A thing as it is after a merge patch. The short form of a state replaces the long one, and with a name goes what was made of it.
pub(super) fn patched<I: Edited>(before: &Record<I>, patch: &Value) -> Result<I, Problem> {
    let mut value = serde_json::to_value(&before.input).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        let is_new = |field: &str, of: &str| patch.get(field).is_some() && patch.get(of).is_none();
        if is_new("published", "state") {
            object.remove("state");
        }
        let text = |field: &str| object.get(field).and_then(Value::as_str);
        let is_made = text("name").zip(text("sort_name")).is_some_and(|(name, sort)| sort == sort_name(name));
        if is_new("name", "sort_name") && is_made {
            object.remove("sort_name");
        }
    }
    merge_patch(&mut value, patch);
    read_input(&value, &before.id)
}

/// Whether this member of staff may write, and how the write wants its purge.
fn editing(staff: &Staff, query: Query) -> Result<Option<PurgeMode>, ApiError> {
    staff.at_least(StaffRole::Editor)?;
    Ok(purge_mode(query)?)
}

/// A write, and the thing it is for in the state the client names. `gone`: one that is deleted will do.
async fn matched<I: Edited>(
    app: &App,
    id: &str,
    headers: &HeaderMap,
    gone: bool,
) -> Result<(Write, Record<I>), ApiError> {
    let mut write = app.store.write().await?;
    let found = I::find(&mut write, id).await?.filter(|record| gone || record.deleted_at_ms.is_none());
    let record = found.ok_or_else(absent::<I>)?;
    check_preconditions(headers, Some(&record))?;
    Ok((write, record))
}

pub async fn create<I: Routed>(
    State(app): State<App>,
    Extension(in_flight): Extension<InFlight>,
    staff: Staff,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Whole(body): Whole,
) -> ApiResult {
    staff.at_least(StaffRole::Editor)?;
    let claim = match &body {
        Ok(bytes) => in_flight.claim(&headers, &staff.0.sub, &uri.to_string(), bytes)?,
        Err(_) => None,
    };
    let value = json_body(&headers, body, &["application/json"])?;
    let input = I::read(&value).map_err(|faults| validate::refused(I::WHAT, faults))?;
    let given = value.get("id").filter(|id| !id.is_null());
    let id = given.map_or_else(|| input.suggested_id(), |id| id.as_str().unwrap_or_default().to_string());
    match (check_id(&id), given) {
        (Ok(()), _) => {}
        (Err(message), Some(_)) => {
            return Err(Problem::new(400, "id-invalid", "The id is not valid").fault("/id", message).into());
        }
        // A name without a letter or digit that could stand in an id.
        (Err(_), None) => {
            let fault = Fault { at: "/id".into(), message: "cannot be made of its name; send one".into() };
            return Err(validate::refused(I::WHAT, vec![fault]).into());
        }
    }
    let mut write = app.store.write().await?;
    if let Some(claim) = &claim
        && let Some(answered) = claim.answered(&mut write).await?
    {
        return Ok(answered);
    }
    match I::find(&mut write, &id).await? {
        None => {}
        Some(record) if record.deleted_at_ms.is_some() => return Err(deleted::<I>()),
        Some(_) => {
            let problem = Problem::new(409, "exists", format!("There is a {} of this id already", I::WHAT));
            return Err(problem.detail(format!("id {id}; send another id, or PUT to change it")).into());
        }
    }
    let created = Created { claim, location: format!("{}/{id}", uri.path()) };
    change(write, &staff, (&id, None), Wanted::Be(input), None, Some(created)).await
}

pub async fn read<I: Routed>(State(app): State<App>, staff: Staff, Id(id, _): Id<I>) -> ApiResult {
    staff.at_least(StaffRole::Viewer)?;
    let mut snapshot = app.store.snapshot().await?;
    let record = I::look(&mut snapshot, &id).await?.filter(|record| record.deleted_at_ms.is_none());
    let record = record.ok_or_else(absent::<I>)?;
    Ok(answer(StatusCode::OK, &snapshot.as_of, Some(&record)))
}

pub async fn put<I: Routed>(
    State(app): State<App>,
    staff: Staff,
    Id(id, _): Id<I>,
    query: Query,
    headers: HeaderMap,
    Whole(body): Whole,
) -> ApiResult {
    let mode = editing(&staff, query)?;
    let value = json_body(&headers, body, &["application/json"])?;
    let input = read_input::<I>(&value, &id)?;
    let mut write = app.store.write().await?;
    let before = I::find(&mut write, &id).await?;
    if before.as_ref().is_some_and(|record| record.deleted_at_ms.is_some()) {
        return Err(deleted::<I>());
    }
    check_preconditions(&headers, before.as_ref())?;
    change(write, &staff, (&id, before), Wanted::Be(input), mode, None).await
}

pub async fn patch<I: Routed>(
    State(app): State<App>,
    staff: Staff,
    Id(id, _): Id<I>,
    query: Query,
    headers: HeaderMap,
    Whole(body): Whole,
) -> ApiResult {
    let mode = editing(&staff, query)?;
    let patch = json_body(&headers, body, &["application/merge-patch+json", "application/json"])?;
    if !patch.is_object() {
        return Err(Problem::new(400, "json-invalid", "A patch is a JSON object (RFC 7396)").into());
    }
    let (write, before) = matched::<I>(&app, &id, &headers, false).await?;
    let input = patched(&before, &patch)?;
    change(write, &staff, (&id, Some(before)), Wanted::Be(input), mode, None).await
}

pub async fn delete<I: Routed>(
    State(app): State<App>,
    staff: Staff,
    Id(id, _): Id<I>,
    query: Query,
    headers: HeaderMap,
) -> ApiResult {
    let mode = editing(&staff, query)?;
    let (mut write, before) = matched::<I>(&app, &id, &headers, false).await?;
    if let Some(why) = I::is_used(&mut write, &id).await? {
        let title = format!("The {} is in use and cannot be deleted", I::WHAT);
        return Err(Problem::new(409, "in-use", title).detail(why).into());
    }
    change(write, &staff, (&id, Some(before)), Wanted::Gone, mode, None).await
}

pub async fn restore<I: Routed>(
    State(app): State<App>,
    staff: Staff,
    Id(id, _): Id<I>,
    headers: HeaderMap,
) -> ApiResult {
    staff.at_least(StaffRole::Editor)?;
    let (write, before) = matched::<I>(&app, &id, &headers, true).await?;
    if before.deleted_at_ms.is_none() {
        return Err(Problem::new(409, "not-deleted", format!("The {} of this id is not deleted", I::WHAT)).into());
    }
    change(write, &staff, (&id, Some(before)), Wanted::Back, None, None).await
}

#[derive(Serialize)]
struct Listed<I> {
    items: Vec<Record<I>>,
    next_cursor: Option<String>,
}

pub async fn list<I: Routed>(State(app): State<App>, staff: Staff, mut query: Query) -> ApiResult {
    staff.at_least(StaffRole::Viewer)?;
    let (limit, after) = query.page(id_cursor);
    let deleted = query.take("deleted", "true or false", |text| text.parse().ok()).unwrap_or(false);
    query.end()?;
    let after = after.unwrap_or_default();
    let items = I::page(&mut app.store.snapshot().await?, &after, limit, deleted).await?;
    let is_full = u32::try_from(items.len()).is_ok_and(|count| count == limit);
    let next_cursor = items.last().filter(|_| is_full).map(|last| last.id.clone());
    Ok(private_json(StatusCode::OK, &Listed { items, next_cursor }))
}

/// The seasons of a series, all of them.
pub async fn list_seasons(
    State(app): State<App>,
    staff: Staff,
    Id(id, _): Id<crate::catalog::model::TitleInput>,
) -> ApiResult {
    staff.at_least(StaffRole::Viewer)?;
    let seasons = app.store.snapshot().await?.seasons(&id).await?;
    let items = seasons.into_iter().map(|(_, season)| season).collect();
    Ok(private_json(StatusCode::OK, &Listed { items, next_cursor: None }))
}
