//! Who changed what: the audit log, youngest first, by filter and cursor.
use super::admin::private_json;
use super::guard::Staff;
use super::query::{Query, cursor, place};
use super::{ApiResult, App};
use crate::store::{AuditFilter, Entry};
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use kv_schemas::SEQ_MAX;
use kv_schemas::claims::StaffRole;
use serde::Serialize;

const LIST: &str = "audit";
pub const KINDS: [&str; 6] = ["title", "season", "person", "genre", "rail", "collection"];

#[derive(Serialize)]
struct Listed {
    items: Vec<Entry>,
    next_cursor: Option<String>,
}

pub async fn list(State(app): State<App>, staff: Staff, mut query: Query) -> ApiResult {
    staff.at_least(StaffRole::Editor)?;
    let word = |text: &str| (!text.is_empty() && text.len() <= 200).then(|| text.to_string());
    let kind = |text: &str| KINDS.contains(&text).then(|| text.to_string());
    let moment = |text: &str| text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond);
    let expected = "a date and time with an offset (RFC 3339)";
    let (limit, before) = query.page(|text| place::<(u64, i64)>(LIST, text).filter(|(seq, _)| *seq <= SEQ_MAX));
    let filter = AuditFilter {
        kind: query.take("kind", &format!("one of {}", KINDS.join(", ")), kind),
        id: query.take("id", "1 to 200 characters", word),
        actor: query.take("actor", "1 to 200 characters", word),
        from_ms: query.take("from", expected, moment),
        until_ms: query.take("until", expected, moment),
        before,
    };
    query.end()?;
    let items = app.store.snapshot().await?.audit(&filter, limit).await?;
    let is_full = u32::try_from(items.len()).is_ok_and(|count| count == limit);
    let next_cursor = items.last().filter(|_| is_full).map(|last| cursor(LIST, &(last.seq, last.n)));
    Ok(private_json(StatusCode::OK, &Listed { items, next_cursor }))
}
