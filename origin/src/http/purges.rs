//! Purges by hand, and what became of every purge: the log with filters, and receipts that tell whether it has landed at
//! every location.
use super::admin::{json_body, mode_of, private_json};
use super::answers::{self, as_of_field};
use super::error::ApiError;
use super::extract::{Segment, Whole};
use super::guard::Staff;
use super::query::{PAGE_MAX, Query, whole};
use super::shed::{Place, Work};
use super::spec::{Api, Op, integer, one_of, text};
use super::{ApiResult, App, jwks};
use crate::store::{LoggedPurge, PurgeFilter, is_personal};
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use jiff::Timestamp;
use kv_schemas::as_of::parse_seq;
use kv_schemas::claims::StaffRole;
use kv_schemas::problem::Fault;
use kv_schemas::purge::BATCH_BYTES_MAX;
use kv_schemas::receipt::{DryRun, EdgeReceipt, LocationReceipt, LocationState, Percentiles, PurgeState};
use kv_schemas::surrogate_key::KEYS_PER_PURGE_MAX;
use kv_schemas::{AsOf, Problem, Purge, PurgeMode, PurgeRequest, SEQ_MAX, Seq, SurrogateKey};
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod;

/// The longest wait for a purge; the edge gives a request to origin ten seconds.
const WAIT_MS_MAX: u64 = 9_000;
const WAIT_MS_DEFAULT: u64 = 5_000;
/// How soon the edge is asked again meanwhile: often at first, since most purges land within a lease.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(40);
const ASK_AGAIN_MAX: Duration = Duration::from_millis(250);
/// How long the edge has for its answer when the time of whoever waits is as good as over; with the longest wait, within the
/// time a request may take.
const ASK_MIN: Duration = Duration::from_millis(500);
/// How long a list waits for what edges say, which it can do without.
const SUMMARY_TIMEOUT: Duration = Duration::from_secs(3);

pub fn api() -> Api {
    let op = |summary: &str| Op::new("purges", summary).staff();
    let moment = "RFC 3339";
    let listed = op("The purge log, youngest first")
        .says("What names a person (`user:`, `viewer:`, `session:`) is shown to admins alone.")
        .query("limit", integer(1, i64::from(PAGE_MAX)), "50 when not given")
        .query("cursor", text(), "`next_cursor` of this list")
        .query("key", text(), "With this surrogate key")
        .query("mode", one_of(&MODES), "")
        .query("actor", text(), "")
        .query("state", one_of(&STATES), "")
        .query("from", text(), moment)
        .query("until", text(), moment)
        .page::<Receipt>("Purges")
        .problems(&[(400, "The query has faults, each named")]);
    let waits = |op: Op| {
        op.query("wait", one_of(&["accepted", "applied"]), "Answered as soon as it has come so far").query(
            "timeout_ms",
            integer(0, 9_000),
            "At the latest after so long; 5,000 when not given",
        )
    };
    let create_op = waits(op("Purge by hand"))
        .says("`all`, and keys of people, tokens and accounts, need the role admin.")
        .query("dry_run", one_of(&["true", "false"]), "true: nothing is purged, and nothing waited for")
        .body::<ByHand>(&["application/json"])
        .answer::<PurgeEnded>(
            200,
            "With `dry_run`: what would be touched, as far as anybody knows. With `wait`: it has come so far",
        )
        .answer::<PurgeBegun>(
            202,
            "Logged; `Location` is its receipt. With `wait`: how far it came, if that could be waited for",
        );
    let read_op = waits(op("A purge's receipt").path("seq", text()))
        .answer::<Receipt>(200, "How far it has come")
        .problems(&[(400, "The request has faults, each named"), (404, "There is no such purge (any more)")]);
    Api::new()
        .add(HttpMethod::Get, "/admin/v1/purges", get(list), listed)
        .add(HttpMethod::Post, "/admin/v1/purges", post(create), create_op)
        .add(HttpMethod::Get, "/admin/v1/purges/{seq}", get(read), read_op)
}

const MODES: [&str; 2] = ["soft", "hard"];
const STATES: [&str; 3] = ["pending", "accepted", "applied"];

/// A purge that is asked for: `keys`, or `all`.
#[derive(ToSchema)]
#[schema(as = PurgeRequest)]
#[allow(dead_code, reason = "the description of kv_schemas::PurgeRequest")]
struct ByHand {
    #[schema(max_items = 1000)]
    keys: Option<Vec<String>>,
    all: Option<bool>,
    /// `hard` when not given.
    mode: Option<String>,
    reason: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Created {
    seq: Seq,
    #[schema(value_type = String)]
    as_of: AsOf,
}

#[derive(Serialize, ToSchema)]
struct Preview {
    dry_run: bool,
    /// Surrogate keys named; 0 with `all`.
    keys: usize,
    all: bool,
    #[schema(value_type = String)]
    mode: PurgeMode,
    /// What the asked isolates hold in memory.
    #[schema(value_type = Vec<TouchedAs>)]
    memory: Vec<DryRun>,
    /// Tiers that cannot be listed by key.
    unknown: [&'static str; 2],
}

/// An answer behind which nothing comes.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, clippy::large_enum_variant, reason = "the description of what is answered")]
enum PurgeEnded {
    DryRun(Preview),
    Reached(Receipt),
}

/// An answer to a purge that goes on.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, clippy::large_enum_variant, reason = "the description of what is answered")]
enum PurgeBegun {
    Logged(Created),
    Reached(Receipt),
}

/// What one isolate knows of what a purge would touch.
#[derive(ToSchema)]
#[schema(as = DryRun)]
#[allow(dead_code, reason = "the description of kv_schemas::receipt::DryRun")]
struct TouchedAs {
    location: String,
    /// Entries in its memory that the purge would touch.
    touched: u64,
    /// Entries in its memory.
    held: u64,
}

/// Whether purging these ends tokens or costs all viewers something: what verifies tokens, and what is viewers' own.
fn is_guarded(keys: &[SurrogateKey]) -> bool {
    let guarded = ["url:/.well-known/", "url:/v1/me", "url:/auth/", "url:/admin/"];
    let is_guarded =
        |key: &SurrogateKey| key.as_str() == jwks::KEY || guarded.iter().any(|begins| key.as_str().starts_with(begins));
    is_personal(keys) || keys.iter().any(is_guarded)
}

fn state_of(text: &str) -> Option<PurgeState> {
    [PurgeState::Pending, PurgeState::Accepted, PurgeState::Applied].into_iter().find(|state| state.as_str() == text)
}

/// How far a purge is to have come, and how long that is waited for.
#[derive(Clone, Copy)]
struct Wish {
    state: PurgeState,
    limit: Duration,
}

fn wish(query: &mut Query) -> Option<Wish> {
    let wait = |text: &str| state_of(text).filter(|state| *state != PurgeState::Pending);
    let state = query.take("wait", "accepted or applied", wait);
    let timeout = |text: &str| whole(text).filter(|ms| *ms <= WAIT_MS_MAX);
    let timeout_ms = query.take("timeout_ms", "a whole number of milliseconds from 0 to 9000", timeout);
    let limit = Duration::from_millis(timeout_ms.unwrap_or(WAIT_MS_DEFAULT));
    state.map(|state| Wish { state, limit })
}

async fn create(
    State(app): State<App>,
    Extension(place): Extension<Place>,
    staff: Staff,
    mut query: Query,
    headers: HeaderMap,
    Whole(body): Whole<BATCH_BYTES_MAX>,
) -> ApiResult {
    staff.at_least(StaffRole::Editor)?;
    let dry_run = query.take("dry_run", "true or false", |text| text.parse().ok()).unwrap_or(false);
    let wish = wish(&mut query);
    if dry_run && wish.is_some() {
        query.fault("wait", "must not stand with dry_run: there is nothing to wait for");
    }
    query.end()?;
    let value = json_body(&headers, body, &["application/json"])?;
    let invalid = |detail: String| Problem::new(422, "purge-invalid", "The purge is not valid").detail(detail);
    let faults = faults_of_keys(&value);
    if !faults.is_empty() {
        return Err(Problem { errors: faults, ..Problem::new(422, "purge-invalid", "The purge is not valid") }.into());
    }
    let request: PurgeRequest = serde_json::from_value(value).map_err(|error| invalid(error.to_string()))?;
    request.check().map_err(|error| invalid(error.to_string()))?;
    if request.all || is_guarded(&request.keys) {
        staff.at_least(StaffRole::Admin)?;
    }
    if dry_run {
        return preview(&app, &request).await;
    }
    let mut write = app.store.write().await?;
    let purge = LoggedPurge {
        keys: &request.keys,
        mode: request.mode,
        reason: request.reason.as_deref(),
        actor: Some(&staff.0.sub),
    };
    let seq = write.purge(purge).await?;
    let as_of = write.commit().await?;
    // It is made: whatever keeps it from being waited for is no failure of it.
    let receipt = match wish {
        None => None,
        Some(wish) => {
            let last = place.came() + wish.limit + ASK_MIN;
            tokio::time::timeout_at(last.into(), waited(&app, &staff, seq, &place, wish))
                .await
                .ok()
                .and_then(Result::ok)
        }
    };
    let mut response = match (receipt, wish) {
        (Some(receipt), Some(wish)) => {
            let is_reached = receipt.state >= wish.state;
            private_json(if is_reached { StatusCode::OK } else { StatusCode::ACCEPTED }, &receipt)
        }
        _ => private_json(StatusCode::ACCEPTED, &Created { seq, as_of: as_of.clone() }),
    };
    let location = (header::LOCATION, answers::text(&format!("/admin/v1/purges/{seq}")));
    response.headers_mut().extend([as_of_field(&as_of), location]);
    Ok(response.into_response())
}

/// Every key that is none, by its place.
fn faults_of_keys(purge: &serde_json::Value) -> Vec<Fault> {
    let keys = purge.get("keys").and_then(serde_json::Value::as_array).map_or(&[][..], Vec::as_slice);
    // More than a purge may have are refused for their number, and not each by itself.
    let keys = keys.get(..KEYS_PER_PURGE_MAX).unwrap_or(keys);
    let fault = |(n, key): (usize, &serde_json::Value)| {
        let error = SurrogateKey::new(key.as_str()?).err()?;
        Some(Fault { at: format!("/keys/{n}"), message: error.to_string() })
    };
    keys.iter().enumerate().filter_map(fault).collect()
}

/// What a purge would touch, as far as anybody knows; nothing is purged.
async fn preview(app: &App, request: &PurgeRequest) -> ApiResult {
    let memory = app.edges.dry_run(request).await;
    let PurgeRequest { keys, all, mode, .. } = request;
    let preview = Preview { dry_run: true, keys: keys.len(), all: *all, mode: *mode, memory, unknown: ["colo", "kv"] };
    Ok(private_json(StatusCode::OK, &preview))
}

/// A purge with how far it has come.
#[derive(Serialize, ToSchema)]
struct Receipt {
    #[serde(flatten)]
    #[schema(value_type = LoggedAs)]
    purge: Purge,
    /// `pending`, `accepted` or `applied`.
    #[schema(value_type = String)]
    state: PurgeState,
    #[serde(skip_serializing_if = "Option::is_none")]
    edge: Option<EdgeState>,
    /// Why the edge's side is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    edge_unknown: Option<String>,
}

/// A row of the purge log.
#[derive(ToSchema)]
#[schema(as = Purge)]
#[allow(dead_code, reason = "the description of kv_schemas::Purge")]
struct LoggedAs {
    seq: Seq,
    keys: Option<Vec<String>>,
    all: Option<bool>,
    mode: String,
    reason: Option<String>,
    actor: Option<String>,
    committed_at_ms: u64,
}

/// The edge's side of a receipt.
#[derive(Serialize, ToSchema)]
struct EdgeState {
    accepted_at_ms: Option<u64>,
    #[schema(value_type = Vec<LocatedAs>)]
    locations: Vec<LocationReceipt>,
    /// Over the locations that have it; null while there is none.
    #[schema(value_type = Option<LagsAs>)]
    lag_ms: Option<Percentiles>,
    /// Locations that are pending.
    laggards: Vec<String>,
    silent: Vec<String>,
}

/// Where one location stands with a purge.
#[derive(ToSchema)]
#[schema(as = LocationReceipt)]
#[allow(dead_code, reason = "the description of kv_schemas::receipt::LocationReceipt")]
struct LocatedAs {
    location: String,
    /// `pending`, `applied` or `silent`.
    state: String,
    /// The highest purge it said it has; 0 if it has not said.
    applied_seq: Seq,
    /// Since it was last heard from; absent if that was before the journal started.
    heard_ms_ago: Option<u64>,
    /// From the journal's acceptance to this location's word that it has the purge.
    lag_ms: Option<u64>,
}

/// Percentiles, in milliseconds.
#[derive(ToSchema)]
#[schema(as = Percentiles)]
#[allow(dead_code, reason = "the description of kv_schemas::receipt::Percentiles")]
struct LagsAs {
    p50: u64,
    p95: u64,
    p99: u64,
}

fn edge_state(receipt: EdgeReceipt) -> EdgeState {
    let EdgeReceipt { accepted_at_ms, locations, lag_ms, laggards, .. } = receipt;
    let silent = locations.iter().filter(|one| one.state == LocationState::Silent);
    let silent = silent.map(|one| one.location.clone()).collect();
    EdgeState { accepted_at_ms, locations, lag_ms, laggards, silent }
}

/// The mark is between this service and the edge.
fn shown(purge: Purge) -> Purge {
    Purge { mark: 0, ..purge }
}

fn delivered_state(seq: Seq, delivered: Seq) -> PurgeState {
    if seq <= delivered { PurgeState::Accepted } else { PurgeState::Pending }
}

async fn list(State(app): State<App>, staff: Staff, mut query: Query) -> ApiResult {
    #[derive(Serialize)]
    struct Purges {
        items: Vec<Receipt>,
        next_cursor: Option<String>,
    }
    staff.at_least(StaffRole::Viewer)?;
    let (limit, before) = query.page(|text| parse_seq(text).ok());
    let before = before.unwrap_or(SEQ_MAX);
    let ms = |text: &str| text.parse::<Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
    let moment = "a date and time with an offset (RFC 3339)";
    let key = query.take("key", "a surrogate key", |text| SurrogateKey::new(text).ok());
    let mode = query.take("mode", "soft or hard", mode_of);
    let state = query.take("state", "pending, accepted or applied", state_of);
    let actor = query.take("actor", "a name", |text| Some(text.to_string()));
    let from_ms = query.take("from", moment, ms);
    let until_ms = query.take("until", moment, ms);
    query.end()?;

    // Asked before a connection is taken: edges may take their time.
    let summary = tokio::time::timeout(SUMMARY_TIMEOUT, app.edges.summary()).await.ok().and_then(Result::ok);
    let mut snapshot = app.store.snapshot().await?;
    let delivered = snapshot.delivered().await?;
    let applied = match summary {
        Some(held) if snapshot.has_told((&held.log_id, held.head, held.mark)).await? => held.applied_seq,
        Some(_) | None => 0,
    };
    let delivered = delivered.max(applied);
    let impersonal = staff.0.role < StaffRole::Admin;
    let from_seq = snapshot.oldest_purge().await?;
    let mut filter = PurgeFilter { before, from_seq, key, mode, actor, impersonal, from_ms, until_ms };
    // States lie in the log one after the other.
    match state {
        None => {}
        Some(PurgeState::Applied) => filter.before = before.min(applied.saturating_add(1)),
        Some(PurgeState::Accepted) => {
            filter.before = before.min(delivered.saturating_add(1));
            filter.from_seq = from_seq.max(applied.saturating_add(1));
        }
        Some(PurgeState::Pending) => filter.from_seq = from_seq.max(delivered.saturating_add(1)),
    }
    filter.before = filter.before.min(snapshot.as_of.seq.saturating_add(1));
    let items = snapshot.purges_matching(&filter, limit).await?;
    let is_full = u32::try_from(items.len()).is_ok_and(|count| count == limit);
    // A page that is not full has looked at its window; the next one goes on below it.
    let next = if is_full { items.last().map_or(0, |last| last.seq) } else { filter.first() };
    let next_cursor = (next > filter.from_seq.max(1)).then(|| next.to_string());
    let receipt = |purge: Purge| {
        let state = if purge.seq <= applied { PurgeState::Applied } else { delivered_state(purge.seq, delivered) };
        Receipt { purge: shown(purge), state, edge: None, edge_unknown: None }
    };
    Ok(private_json(StatusCode::OK, &Purges { items: items.into_iter().map(receipt).collect(), next_cursor }))
}

/// A receipt; with `wait`, as soon as the purge has come so far, or when the time is over.
async fn read(
    State(app): State<App>,
    Extension(place): Extension<Place>,
    staff: Staff,
    Segment(seq): Segment,
    mut query: Query,
) -> ApiResult {
    staff.at_least(StaffRole::Viewer)?;
    let seq = parse_seq(&seq).map_err(|error| {
        Problem::new(400, "seq-invalid", "The purge's number is not valid").fault("seq", error.to_string())
    })?;
    let wish = wish(&mut query);
    query.end()?;
    let receipt = match wish {
        None => receipt(&app, &staff, seq, Duration::from_millis(WAIT_MS_MAX)).await?,
        Some(wish) => waited(&app, &staff, seq, &place, wish).await?,
    };
    Ok(private_json(StatusCode::OK, &receipt))
}

/// The receipt as soon as the purge has come so far, or when the time since the request came is over.
async fn waited(app: &App, staff: &Staff, seq: Seq, place: &Place, wish: Wish) -> Result<Receipt, ApiError> {
    // For seconds, most of them asleep: those who only look something up must not stand behind.
    place.move_to(Work::AdminWait).await?;
    let left = || wish.limit.saturating_sub(place.came().elapsed());
    let mut pause = ASK_AGAIN_MIN;
    loop {
        let receipt = receipt(app, staff, seq, left().max(ASK_MIN)).await?;
        if receipt.state >= wish.state || left().is_zero() {
            return Ok(receipt);
        }
        tokio::time::sleep(pause.min(left())).await;
        pause = pause.mul_f32(1.2).min(ASK_AGAIN_MAX);
    }
}

/// `edge_limit`: how long the edge is waited for.
async fn receipt(app: &App, staff: &Staff, seq: Seq, edge_limit: Duration) -> Result<Receipt, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let delivered = snapshot.delivered().await?;
    let found = snapshot.purges_after(seq.saturating_sub(1), 1).await?.into_iter().find(|purge| purge.seq == seq);
    drop(snapshot);
    // What names a person is for admins; to others it is as if it were not there.
    let found = found.filter(|purge| staff.0.role >= StaffRole::Admin || !is_personal(&purge.keys));
    let purge = found.map(shown).ok_or_else(|| Problem::new(404, "not-found", "There is no purge of this number"))?;
    let by_log = delivered_state(seq, delivered);
    let without = |why: String| Receipt { purge: purge.clone(), state: by_log, edge: None, edge_unknown: Some(why) };
    Ok(match tokio::time::timeout(edge_limit, app.edges.receipt(seq)).await {
        Ok(Ok(edge)) if app.store.snapshot().await?.has_told((&edge.log_id, edge.head, edge.mark)).await? => {
            Receipt { purge, state: edge.state.max(by_log), edge: Some(edge_state(edge)), edge_unknown: None }
        }
        Ok(Ok(_)) => without("the edge does not hold this log yet".into()),
        Ok(Err(error)) => without(error.said()),
        Err(_) => without("the edge did not answer in time".into()),
    })
}
