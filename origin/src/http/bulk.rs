//! Many edits of titles in one write: all of them, or none. Every fault of every item is named before anything is written.
use super::admin::{json_body, private_json, purge_mode};
use super::answers::as_of_field;
use super::conditional::names;
use super::conditional::version_etag;
use super::extract::Whole;
use super::guard::Staff;
use super::idempotency::InFlight;
use super::query::Query;
use super::records::patched;
use super::{ApiResult, App};
use crate::catalog::model::{Record, TitleInput};
use crate::catalog::validate;
use crate::edits::{Edited, Edits, Wanted};
use axum::extract::{Extension, OriginalUri, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use kv_schemas::claims::StaffRole;
use kv_schemas::problem::Fault;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use utoipa::ToSchema;

pub const ITEMS_MAX: usize = 200;
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

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
        return fault(format!("{at}/if_match"), &format!("the title's ETag is {}", version_etag(before.version)));
    }
    match &item.patch {
        None if item.delete => Ok(("delete", Wanted::Gone)),
        None => Ok(("restore", Wanted::Back)),
        Some(patch) if !patch.is_object() => fault(format!("{at}/patch"), "must be a JSON object (RFC 7396)"),
        Some(patch) => {
            let named = |fault: Fault| Fault { at: format!("{at}/patch{}", fault.at), message: fault.message };
            let input =
                patched(before, patch).map_err(|problem| problem.errors.into_iter().map(named).collect::<Vec<_>>())?;
            Ok(("edit", Wanted::Be(input)))
        }
    }
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
    let value = json_body(&headers, body, &["application/json"])?;
    let refuse = |faults| validate::refused("bulk", faults);
    let bulk: Bulk = serde_json::from_value(value)
        .map_err(|error| refuse(vec![Fault { at: String::new(), message: error.to_string() }]))?;
    if !(1..=ITEMS_MAX).contains(&bulk.items.len()) {
        let message = format!("must be 1 to {ITEMS_MAX} edits");
        return Err(refuse(vec![Fault { at: "/items".into(), message }]).into());
    }
    let mut write = app.store.write().await?;
    if let Some(claim) = &claim
        && let Some(answered) = claim.answered(&mut write).await?
    {
        return Ok(answered);
    }
    let mut faults = Vec::new();
    let mut changes = Vec::with_capacity(bulk.items.len());
    let mut seen = BTreeSet::new();
    for (index, item) in bulk.items.iter().enumerate() {
        let at = format!("/items/{index}");
        if !seen.insert(&item.id) {
            faults.push(Fault { at: format!("{at}/id"), message: "is the id of an item before it".into() });
            continue;
        }
        let before = write.title(&item.id).await?;
        match wanted(item, before.as_ref(), &at) {
            Err(found) => faults.extend(found),
            Ok((action, wanted)) => {
                if let Wanted::Be(input) = &wanted {
                    let found =
                        TitleInput::check(&mut write, &item.id, before.as_ref().map(|b| &b.input), input).await?;
                    let named = |fault: Fault| Fault { at: format!("{at}/patch{}", fault.at), message: fault.message };
                    faults.extend(found.into_iter().map(named));
                }
                changes.push((action, item.id.clone(), before, wanted));
            }
        }
    }
    if !faults.is_empty() {
        return Err(refuse(faults).into());
    }
    let mut edits = Edits::by(&staff.0.sub);
    let mut items = Vec::with_capacity(changes.len());
    for (action, id, before, wanted) in changes {
        let Some(mut after) = edits.after(&id, before.as_ref(), wanted) else { continue };
        let is_same = before.as_ref().is_some_and(|before| before.version == after.version);
        if !is_same {
            edits.put(&mut write, action, before.as_ref(), &mut after, mode).await?;
        }
        let action = if is_same { "none" } else { action };
        items.push(BulkResult { id, action, version: after.version });
    }
    edits.log(&mut write, "bulk").await?;
    let mut response = private_json(StatusCode::OK, &BulkDone { items });
    response.headers_mut().extend([as_of_field(&write.as_of())]);
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&body).into_owned();
    if let Some(claim) = &claim {
        claim.keep(&mut write, parts.status, &parts.headers, &text).await?;
    }
    write.commit().await?;
    Ok((parts.status, parts.headers, text).into_response())
}
