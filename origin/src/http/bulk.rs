//! Many edits of titles in one write: all of them, or none. Every fault of every item is named before anything is written.
use super::admin::{json_body, purge_mode};
use super::answers::as_of_field;
use super::conditional::{names, said_of, version_etag};
use super::error::ApiError;
use super::extract::Whole;
use super::guard::Staff;
use super::idempotency::InFlight;
use super::query::Query;
use super::records::patched;
use super::{ApiResult, App};
use crate::catalog::model::{Record, TitleInput};
use crate::catalog::validate;
use crate::edits::{Edited, Edits, Wanted};
use crate::error::StoreError;
use crate::store::Write;
use axum::body::Bytes;
use axum::extract::{Extension, OriginalUri, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use kv_schemas::claims::StaffRole;
use kv_schemas::problem::Fault;
use kv_schemas::{Problem, PurgeMode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use utoipa::ToSchema;

pub const ITEMS_MAX: usize = 200;
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What such a request is called, in refusals and in the purge log.
const WHAT: &str = "bulk";

/// Edits of many titles.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Bulk {
    /// 1 to 200, each of another title.
    #[schema(min_items = 1, max_items = 200)]
    items: Vec<BulkItem>,
}

/// Exactly one of `patch`, `delete` and `restore`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkItem {
    id: String,
    /// The ETag the edit is made for; whatever is there when not given.
    #[serde(default)]
    if_match: Option<String>,
    /// JSON Merge Patch (RFC 7396).
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    patch: Option<Value>,
    #[serde(default)]
    delete: bool,
    #[serde(default)]
    restore: bool,
}

/// What became of them, in their order.
#[derive(Serialize, ToSchema)]
pub struct BulkDone {
    items: Vec<BulkResult>,
}

#[derive(Serialize, ToSchema)]
pub struct BulkResult {
    id: String,
    /// `edit`, `delete`, `restore` or `none`.
    action: &'static str,
    version: i64,
}

/// A fault of what a patch makes, as one of the whole body.
fn in_patch(at: &str, fault: Fault) -> Fault {
    Fault { at: format!("{at}/patch{}", fault.at), message: fault.message }
}

fn wanted(
    item: &BulkItem,
    before: Option<&Record<TitleInput>>,
    at: &str,
) -> Result<(&'static str, Wanted<TitleInput>), Vec<Fault>> {
    let fault = |at: String, message: &str| Err(vec![Fault { at, message: message.into() }]);
    if u8::from(item.patch.is_some()).saturating_add(item.delete.into()).saturating_add(item.restore.into()) != 1 {
        return fault(at.into(), "must have one of patch, delete and restore");
    }
    let Some(before) = before.filter(|record| item.restore == record.deleted_at_ms.is_some()) else {
        let what = if item.restore { "is not the id of a deleted title" } else { "is not the id of a title" };
        return fault(format!("{at}/id"), what);
    };
    if let Some(list) = &item.if_match
        && !names(list, &version_etag(before.version), false)
    {
        let message = format!("{}the title's ETag is {}", said_of(list), version_etag(before.version));
        return fault(format!("{at}/if_match"), &message);
    }
    match &item.patch {
        None if item.delete => Ok(("delete", Wanted::Gone)),
        None => Ok(("restore", Wanted::Back)),
        Some(patch) if !patch.is_object() => fault(format!("{at}/patch"), "must be a JSON object (RFC 7396)"),
        Some(patch) => {
            let named =
                |problem: Problem| problem.errors.into_iter().map(|fault| in_patch(at, fault)).collect::<Vec<_>>();
            Ok(("edit", Wanted::Be(patched(before, patch).map_err(named)?)))
        }
    }
}

/// The edits a body asks for.
fn read(headers: &HeaderMap, body: Result<Bytes, Problem>) -> Result<Vec<BulkItem>, Problem> {
    let refuse = |at: &str, message| validate::refused(WHAT, vec![Fault { at: at.into(), message }]);
    let value = json_body(headers, body, &["application/json"])?;
    let bulk: Bulk = serde_json::from_value(value).map_err(|error| refuse("", error.to_string()))?;
    match bulk.items.len() {
        1..=ITEMS_MAX => Ok(bulk.items),
        _ => Err(refuse("/items", format!("must be 1 to {ITEMS_MAX} edits"))),
    }
}

/// An edit that can be made.
struct Planned {
    id: String,
    action: &'static str,
    before: Option<Record<TitleInput>>,
    wanted: Wanted<TitleInput>,
}

/// Holds the edits against what is there, all of them, whatever is wrong with one.
async fn check(write: &mut Write, items: &[BulkItem]) -> Result<Vec<Planned>, ApiError> {
    let mut faults = Vec::new();
    let mut planned = Vec::with_capacity(items.len());
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let at = format!("/items/{index}");
        if !seen.insert(&item.id) {
            faults.push(Fault { at: format!("{at}/id"), message: "is the id of an item before it".into() });
            continue;
        }
        let before = write.title(&item.id).await?;
        let (action, wanted) = match wanted(item, before.as_ref(), &at) {
            Ok(wanted) => wanted,
            Err(found) => {
                faults.extend(found);
                continue;
            }
        };
        if let Wanted::Be(input) = &wanted {
            let was = before.as_ref().map(|before| &before.input);
            let found = TitleInput::check(write, &item.id, was, input).await?;
            faults.extend(found.into_iter().map(|fault| in_patch(&at, fault)));
        }
        planned.push(Planned { id: item.id.clone(), action, before, wanted });
    }
    if faults.is_empty() { Ok(planned) } else { Err(validate::refused(WHAT, faults).into()) }
}

/// Makes the edits, in one purge.
async fn make(
    write: &mut Write,
    actor: &str,
    planned: Vec<Planned>,
    mode: Option<PurgeMode>,
) -> Result<BulkDone, StoreError> {
    let mut edits = Edits::by(actor);
    let mut items = Vec::with_capacity(planned.len());
    for Planned { id, action, before, wanted } in planned {
        let Some(mut after) = edits.after(&id, before.as_ref(), wanted) else { continue };
        let is_same = before.as_ref().is_some_and(|before| before.version == after.version);
        if !is_same {
            edits.put(write, action, before.as_ref(), &mut after, mode).await?;
        }
        let action = if is_same { "none" } else { action };
        items.push(BulkResult { id, action, version: after.version });
    }
    edits.log(write, WHAT).await?;
    Ok(BulkDone { items })
}

pub async fn titles(
    State(app): State<App>,
    Extension(in_flight): Extension<InFlight>,
    staff: Staff,
    query: Query,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Whole(body): Whole<BODY_BYTES_MAX>,
) -> ApiResult {
    staff.at_least(StaffRole::Editor)?;
    let mode = purge_mode(query)?;
    let claim = match &body {
        Ok(bytes) => in_flight.claim(&headers, &staff.0.sub, &uri.to_string(), bytes)?,
        Err(_) => None,
    };
    let items = read(&headers, body)?;
    let mut write = app.store.write().await?;
    if let Some(claim) = &claim
        && let Some(answered) = claim.answered(&mut write).await?
    {
        return Ok(answered);
    }
    let planned = check(&mut write, &items).await?;
    let done = make(&mut write, &staff.0.sub, planned, mode).await?;
    let body = serde_json::to_string(&done).map_err(|error| ApiError::Failed(error.to_string()))?;
    let fields = HeaderMap::from_iter([
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        as_of_field(&write.as_of()),
    ]);
    if let Some(claim) = &claim {
        claim.keep(&mut write, StatusCode::OK, &fields, &body).await?;
    }
    write.commit().await?;
    Ok((fields, body).into_response())
}
