//! The admin API: editors write here. Each write commits its purge in its transaction and answers with the state it
//! made (`Surrogate-As-Of`), which a reader can demand (`Min-As-Of`).
use super::conditional::{names, version_etag};
use super::extract::{Params, Segment, Whole};
use super::guard::Staff;
use super::{ApiResult, App};
use crate::catalog::keys;
use crate::catalog::model::{Title, TitleInput, slug};
use crate::catalog::validate::{self, check_id, merge_patch};
use crate::error::ApiError;
use crate::now_ms;
use crate::store::{LoggedPurge, Write};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kv_schemas::claims::StaffRole;
use kv_schemas::header::SURROGATE_AS_OF;
use kv_schemas::{AsOf, Problem, PurgeMode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 200;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/admin/v1/titles", get(list_titles).post(create_title))
        .route("/admin/v1/titles/{id}", get(read_title).put(put_title).patch(patch_title).delete(delete_title))
}

/// The body as JSON, in one of the media types the call takes.
pub(super) fn json_body(headers: &HeaderMap, body: Result<Bytes, Problem>, types: &[&str]) -> Result<Value, Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !types.contains(&given.as_str()) {
        return Err(Problem::new(415, "media-type", "The body's media type is not taken here")
            .detail(format!("send Content-Type: {}", types.join(" or "))));
    }
    let bytes = body?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(400, "json-invalid", "The body is not JSON").detail(error.to_string()))
}

fn written(status: StatusCode, as_of: &AsOf, title: Option<&Title>) -> Response {
    let mut response = match title {
        Some(title) => (status, axum::Json(title)).into_response(),
        None => status.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(&as_of.to_string()) {
        headers.insert(SURROGATE_AS_OF, value);
    }
    if let Some(Ok(etag)) = title.map(|title| HeaderValue::from_str(&version_etag(title.version))) {
        headers.insert(header::ETAG, etag);
    }
    response
}

fn check_title_id(id: &str) -> Result<(), Problem> {
    check_id(id).map_err(|message| Problem::new(400, "id-invalid", "The title's id is not valid").fault("id", message))
}

fn absent() -> ApiError {
    Problem::new(404, "not-found", "There is no title of this id").into()
}

/// How a write wants its purge.
#[derive(Deserialize)]
struct WriteQuery {
    purge: Option<String>,
}

impl WriteQuery {
    fn mode(&self) -> Result<Option<PurgeMode>, Problem> {
        match self.purge.as_deref() {
            None => Ok(None),
            Some("soft") => Ok(Some(PurgeMode::Soft)),
            Some("hard") => Ok(Some(PurgeMode::Hard)),
            Some(_) => {
                Err(Problem::new(400, "query-invalid", "The query has faults").fault("purge", "must be soft or hard"))
            }
        }
    }
}

/// Edits purge softly: the next viewer is answered at once, the one after sees the new page. What viewers must not
/// see any more is purged hard.
fn mode_of(before: Option<&Title>, after: Option<&Title>) -> PurgeMode {
    let (Some(before), after) = (before, after) else { return PurgeMode::Soft };
    let withdrawn = before.visible && !after.is_some_and(|after| after.visible);
    let rerated = after.is_some_and(|after| after.input.maturity != before.input.maturity);
    if withdrawn || rerated { PurgeMode::Hard } else { PurgeMode::Soft }
}

/// `If-Match` and `If-None-Match` of a write, against what is there.
fn check_preconditions(headers: &HeaderMap, current: Option<&Title>) -> Result<(), Problem> {
    let value = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let etag = current.map(|title| version_etag(title.version));
    let changed = || {
        let problem = Problem::new(412, "changed", "The title is not in the state the request was made for");
        match &etag {
            Some(etag) => problem.detail(format!("its ETag is {etag}")),
            None => problem.detail("it does not exist"),
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

/// Writes what `after` says, with its purge; nothing at all if nothing changes.
async fn change(
    mut write: Write,
    staff: &Staff,
    before: Option<Title>,
    id: &str,
    after: Option<TitleInput>,
    mode: Option<PurgeMode>,
) -> ApiResult {
    let unchanged = before.as_ref().map(|title| &title.input) == after.as_ref();
    if unchanged {
        let as_of = write.as_of();
        return Ok(written(StatusCode::OK, &as_of, before.as_ref()));
    }
    let now = i64::try_from(now_ms()).unwrap_or(i64::MAX);
    let after = after.map(|input| Title {
        id: id.to_string(),
        version: before.as_ref().map_or(1, |title| title.version.saturating_add(1)),
        visible: input.visible_at(now),
        input,
        created_at_ms: before.as_ref().map_or(now, |title| title.created_at_ms),
        updated_at_ms: now,
    });
    let rails = write.rails_of(id).await?;
    let keys = keys::of_change(before.as_ref(), after.as_ref(), &rails);
    let (status, reason) = match (&before, &after) {
        (None, _) => (StatusCode::CREATED, "create"),
        (_, None) => (StatusCode::NO_CONTENT, "delete"),
        _ => (StatusCode::OK, "edit"),
    };
    match &after {
        Some(title) => write.put_title(title, now).await?,
        None => write.delete_title(id).await?,
    }
    let mode = mode.unwrap_or_else(|| mode_of(before.as_ref(), after.as_ref()));
    let purge = LoggedPurge { keys: &keys, mode, reason: Some(reason), actor: Some(&staff.0.sub) };
    write.purge(purge).await?;
    let as_of = write.commit().await?;
    Ok(written(status, &as_of, after.as_ref()))
}

async fn read_title(State(app): State<App>, staff: Staff, Segment(id): Segment) -> ApiResult {
    staff.at_least(StaffRole::Viewer)?;
    check_title_id(&id)?;
    let mut snapshot = app.store.snapshot().await?;
    let title = snapshot.title(&id).await?.ok_or_else(absent)?;
    Ok(written(StatusCode::OK, &snapshot.as_of, Some(&title)))
}

async fn create_title(State(app): State<App>, staff: Staff, headers: HeaderMap, Whole(body): Whole) -> ApiResult {
    staff.at_least(StaffRole::Editor)?;
    let value = json_body(&headers, body, &["application/json"])?;
    let input = validate::title(&value).map_err(validate::refused)?;
    let id = match value.get("id").filter(|id| !id.is_null()) {
        None => {
            let year = input.year.map_or_else(String::new, |year| format!("-{year}"));
            format!("{}{year}", slug(&input.name)).trim_matches('-').to_string()
        }
        Some(id) => id.as_str().unwrap_or_default().to_string(),
    };
    check_title_id(&id)?;
    let mut write = app.store.write().await?;
    if write.title(&id).await?.is_some() {
        let problem = Problem::new(409, "exists", "There is a title of this id already");
        return Err(problem.detail(format!("id {id}; send another id, or PUT to change it")).into());
    }
    let mut response = change(write, &staff, None, &id, Some(input), None).await?;
    if let Ok(location) = HeaderValue::from_str(&format!("/admin/v1/titles/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn put_title(
    State(app): State<App>,
    staff: Staff,
    Segment(id): Segment,
    Params(query): Params<WriteQuery>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> ApiResult {
    staff.at_least(StaffRole::Editor)?;
    check_title_id(&id)?;
    let mode = query.mode()?;
    let value = json_body(&headers, body, &["application/json"])?;
    let input = read_input(&value, &id)?;
    let mut write = app.store.write().await?;
    let before = write.title(&id).await?;
    check_preconditions(&headers, before.as_ref())?;
    change(write, &staff, before, &id, Some(input), mode).await
}

/// A whole title from a body, whose `id`, if it has one, must be the path's.
fn read_input(value: &Value, id: &str) -> Result<TitleInput, Problem> {
    let result = validate::title(value);
    let renamed = value.get("id").is_some_and(|given| given.as_str() != Some(id));
    match result {
        Ok(input) if !renamed => Ok(input),
        result => {
            let mut problem = validate::refused(result.err().unwrap_or_default());
            if renamed {
                problem = problem.fault("/id", "cannot be changed");
            }
            Err(problem)
        }
    }
}

async fn patch_title(
    State(app): State<App>,
    staff: Staff,
    Segment(id): Segment,
    Params(query): Params<WriteQuery>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> ApiResult {
    staff.at_least(StaffRole::Editor)?;
    check_title_id(&id)?;
    let mode = query.mode()?;
    let patch = json_body(&headers, body, &["application/merge-patch+json", "application/json"])?;
    if !patch.is_object() {
        return Err(Problem::new(400, "json-invalid", "A patch is a JSON object (RFC 7396)").into());
    }
    let mut write = app.store.write().await?;
    let before = write.title(&id).await?.ok_or_else(absent)?;
    check_preconditions(&headers, Some(&before))?;
    let mut value = serde_json::to_value(&before.input).unwrap_or_default();
    merge_patch(&mut value, &patch);
    let input = read_input(&value, &id)?;
    change(write, &staff, Some(before), &id, Some(input), mode).await
}

async fn delete_title(
    State(app): State<App>,
    staff: Staff,
    Segment(id): Segment,
    Params(query): Params<WriteQuery>,
    headers: HeaderMap,
) -> ApiResult {
    staff.at_least(StaffRole::Editor)?;
    check_title_id(&id)?;
    let mode = query.mode()?;
    let mut write = app.store.write().await?;
    let before = write.title(&id).await?.ok_or_else(absent)?;
    check_preconditions(&headers, Some(&before))?;
    change(write, &staff, Some(before), &id, None, mode).await
}

#[derive(Deserialize)]
struct ListQuery {
    limit: Option<String>,
    cursor: Option<String>,
}

impl ListQuery {
    fn limit(&self) -> Result<u32, Problem> {
        let Some(text) = &self.limit else { return Ok(LIMIT_DEFAULT) };
        let limit = text.parse::<u32>().ok().filter(|n| (1..=LIMIT_MAX).contains(n));
        limit.ok_or_else(|| {
            Problem::new(400, "query-invalid", "The query has faults")
                .fault("limit", format!("must be a whole number from 1 to {LIMIT_MAX}"))
        })
    }
}

pub(super) fn bad_cursor() -> Problem {
    Problem::new(400, "query-invalid", "The query has faults").fault("cursor", "must be a next_cursor of this list")
}

pub(super) fn private_json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (status, no_store, axum::Json(value)).into_response()
}

async fn list_titles(State(app): State<App>, staff: Staff, Params(query): Params<ListQuery>) -> ApiResult {
    #[derive(Serialize)]
    struct Titles {
        items: Vec<Title>,
        next_cursor: Option<String>,
    }
    staff.at_least(StaffRole::Viewer)?;
    let limit = query.limit()?;
    let after = query.cursor.unwrap_or_default();
    if !after.is_empty() && check_id(&after).is_err() {
        return Err(bad_cursor().into());
    }
    let items = app.store.snapshot().await?.all_titles(&after, limit).await?;
    let is_full = u32::try_from(items.len()).is_ok_and(|count| count == limit);
    let next_cursor = items.last().filter(|_| is_full).map(|last| last.id.clone());
    Ok(private_json(StatusCode::OK, &Titles { items, next_cursor }))
}
