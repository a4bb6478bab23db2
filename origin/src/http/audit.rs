//! Who changed what: the audit log, youngest first, by filter and cursor. What was done to accounts is for admins alone.
use super::admin::private_json;
use super::guard::Staff;
use super::query::{Query, cursor, place};
use super::{ApiResult, App};
use crate::store::{AuditFilter, AuditPlace, Entry, OF_PEOPLE};
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use kv_schemas::SEQ_MAX;
use kv_schemas::claims::StaffRole;
use serde::Serialize;

/// Lists ordered by number, and those that time orders: a cursor is good for its own.
const LIST: &str = "audit";
const LIST_BY_TIME: &str = "audit by time";
pub const KINDS: [&str; 8] = ["title", "season", "person", "genre", "rail", "collection", "user", "staff"];

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
    let mut filter = AuditFilter {
        kind: query.take("kind", &format!("one of {}", KINDS.join(", ")), kind),
        id: query.take("id", "1 to 200 characters", word),
        actor: query.take("actor", "1 to 200 characters", word),
        impersonal: staff.0.role < StaffRole::Admin,
        from_ms: query.take("from", expected, moment),
        until_ms: query.take("until", expected, moment),
        before: None,
    };
    let by_time = filter.is_by_time();
    let (limit, before) = query.page(|text| place_of(by_time, text).filter(|place| place.seq <= SEQ_MAX));
    query.end()?;
    if filter.kind.as_deref().is_some_and(|kind| OF_PEOPLE.contains(&kind)) {
        staff.at_least(StaffRole::Admin)?;
    }
    filter.before = before;
    let (items, next) = app.store.snapshot().await?.audit(&filter, limit).await?;
    let next_cursor = next.map(|AuditPlace { at_ms, seq, n }| match by_time {
        true => cursor(LIST_BY_TIME, &(at_ms, seq, n)),
        false => cursor(LIST, &(seq, n)),
    });
    Ok(private_json(StatusCode::OK, &Listed { items, next_cursor }))
}

fn place_of(by_time: bool, text: &str) -> Option<AuditPlace> {
    if by_time {
        return place::<(i64, u64, i64)>(LIST_BY_TIME, text).map(|(at_ms, seq, n)| AuditPlace { at_ms, seq, n });
    }
    place::<(u64, i64)>(LIST, text).map(|(seq, n)| AuditPlace { at_ms: i64::MAX, seq, n })
}
