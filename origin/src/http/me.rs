//! What belongs to one viewer: profile, watch-list, progress. Whose it is comes from the verified token and from nowhere
//! else; no path, query or body names an account.
//!
//! Reads may be kept for that viewer alone. They carry the key `viewer:<sub>`, which writes purge, hard, and the keys of the
//! titles that are on a list, shown or not. Progress comes too often for a purge each time: until it has settled, what is
//! read may be kept for half a minute.
use super::answers::{as_of_field, cache_fields, newest_snapshot, text};
use super::attempt::Attempt;
use super::auth::{TOO_OFTEN, body_faults, changed_meanwhile, done, revoke};
use super::conditional::{client_has, etag_of};
use super::error::ApiError;
use super::extract::{Segment, Whole, read_json};
use super::guard::ViewerToken;
use super::spec::{self, Api, Op};
use super::{ApiResult, App, viewer};
use crate::auth::accounts::check_name;
use crate::auth::password::PASSWORD_BYTES_MAX;
use crate::catalog::documents::{Item, Kind, Schedule, item};
use crate::catalog::keys;
use crate::catalog::model::Title;
use crate::catalog::validate::check_id;
use crate::error::StoreError;
use crate::moment;
use crate::store::accounts::{Account, moment as rfc_3339};
use crate::store::viewing::{Kept, OwnList, Progress};
use crate::store::{Eye, Snapshot, Write};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, put};
use kv_schemas::key_class::{user_key, viewer_key};
use kv_schemas::viewer::{Locale, Maturity, Plan};
use kv_schemas::{AsOf, Problem, SurrogateKey};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod;

/// Largest body these calls take, in bytes.
pub const BODY_BYTES_MAX: usize = 4 * 1024;
/// Titles continue-watching shows.
const CONTINUE_MAX: u32 = 50;
/// Longest time a title may claim to last, in seconds.
const DURATION_S_MAX: i64 = 48 * 3600;
/// What was watched for less has not been begun.
const BEGUN_S: i64 = 30;
/// Progress alone purges a viewer's documents this often at most.
const PROGRESS_PURGE_MS: i64 = 30_000;
/// How long after such a purge progress may come that purges nothing, writes under way at its end included.
const PROGRESS_SETTLES_MS: i64 = 2 * PROGRESS_PURGE_MS;

pub fn api() -> Api {
    let json = ["application/json"];
    let op = |summary: &str| Op::new("viewer", summary).signed_in();
    let newest = |summary: &str| {
        op(summary)
            .field("Min-As-Of", spec::text(), "The answer must be at least this new")
            .problems(&[(400, "The request has faults, each named")])
    };
    let reads = |summary: &str| newest(summary).empty(304, "The client has it already");
    let listed = |summary: &str| reads(summary).viewer(&["Viewer-Region", "Viewer-Locale"]);
    let title = |op: Op| {
        op.path("title_id", spec::text()).problems(&[
            (400, "The request has faults, each named"),
            (404, "There is no such title, or not for this viewer"),
        ])
    };
    Api::new()
        .add(HttpMethod::Get, "/v1/me", get(profile), reads("The profile").answer::<Profile<'_>>(200, "The profile"))
        .add(
            HttpMethod::Patch,
            "/v1/me",
            patch(change_profile),
            op("Change the profile")
                .says(
                    "A change of locale or of the age limit ends access tokens, not sessions: refresh. To raise the age limit needs the \
                     password.",
                )
                .body::<ProfileChange>(&json)
                .answer::<Profile<'_>>(200, "The profile from now on")
                .problems(&[
                    (401, "The token or the password is refused"),
                    (409, "The password was changed meanwhile"),
                    TOO_OFTEN,
                ]),
        )
        .add(HttpMethod::Delete, "/v1/me", delete(delete_me), op("Delete the account").empty(204, "All of it is gone"))
        .add(
            HttpMethod::Get,
            "/v1/me/watch-list",
            get(watch_list),
            listed("The watch-list").answer::<WatchList<'_>>(200, "Last added first"),
        )
        .add(
            HttpMethod::Put,
            "/v1/me/watch-list/{title_id}",
            put(watch),
            title(op("Put a title on the watch-list")).empty(204, "It is there"),
        )
        .add(
            HttpMethod::Delete,
            "/v1/me/watch-list/{title_id}",
            delete(unwatch),
            title(op("Take a title off the watch-list")).empty(204, "It is not there"),
        )
        .add(
            HttpMethod::Get,
            "/v1/me/continue-watching",
            get(continue_watching),
            listed("What was begun and not finished").answer::<ContinueWatching<'_>>(200, "Last watched first"),
        )
        .add(
            HttpMethod::Put,
            "/v1/me/progress/{title_id}",
            put(progress),
            title(op("Say how far a title was watched")).body::<ProgressBody>(&json).empty(204, "Noted"),
        )
        .add(
            HttpMethod::Get,
            "/v1/me/progress/{title_id}",
            get(progress_in),
            newest("How far a title was watched")
                .path("title_id", spec::text())
                .answer::<Watching<'_>>(200, "By what was said last")
                .problems(&[(404, "Nothing is kept of this title")]),
        )
        .add(
            HttpMethod::Delete,
            "/v1/me/progress/{title_id}",
            delete(forget_progress),
            op("Forget how far a title was watched")
                .says("It leaves continue-watching.")
                .path("title_id", spec::text())
                .empty(204, "Nothing is kept of it")
                .problems(&[(400, "The path is malformed")]),
        )
}

/// When an own document was read, and what of its titles ends or purges it.
#[derive(Default)]
struct About<'a> {
    now_ms: i64,
    schedule: Schedule,
    shown: Vec<&'a str>,
    hidden: &'a [String],
}

impl<'a> About<'a> {
    async fn list<T>(list: &'a OwnList<T>, snapshot: &mut Snapshot, now_ms: i64) -> Result<Self, StoreError> {
        let next_change_ms = snapshot.next_change_ms(now_ms).await?;
        Ok(Self {
            now_ms,
            schedule: Schedule::of(next_change_ms, list.shown.iter().map(|kept| kept.card.gone_ms)),
            shown: list.shown.iter().map(|kept| kept.card.id.as_str()).collect(),
            hidden: &list.hidden,
        })
    }

    /// From this moment on it may be another without a purge.
    fn changes_at(mut self, at_ms: i64) -> Self {
        self.schedule.next_change_ms = Some(self.schedule.next_change_ms.map_or(at_ms, |next_ms| next_ms.min(at_ms)));
        self
    }
}

/// A document for this viewer alone.
fn private<T: Serialize>(
    value: &T,
    sub: &str,
    about: About<'_>,
    as_of: &AsOf,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let body = serde_json::to_string(value).map_err(|error| ApiError::Failed(error.to_string()))?;
    let own = SurrogateKey::new(viewer_key(sub)).map_err(|error| ApiError::Failed(error.to_string()))?;
    let About { now_ms, schedule, shown, hidden } = about;
    let keys = keys::of_page([Some(own)], shown, hidden.iter().map(String::as_str));
    let etag = etag_of(body.as_bytes());
    let fields = cache_fields(Kind::Own, &keys, schedule, now_ms, as_of);
    let own_fields = [(header::VARY, HeaderValue::from_static("authorization")), (header::ETAG, text(&etag))];
    if client_has(headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, fields, own_fields).into_response());
    }
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((fields, own_fields, json, body).into_response())
}

/// What is kept nowhere, with its state.
fn unstored<T: Serialize>(value: &T, as_of: &AsOf) -> Response {
    let fields = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store")), as_of_field(as_of)];
    (fields, axum::Json(value)).into_response()
}

#[derive(Serialize, ToSchema)]
struct Profile<'a> {
    id: &'a str,
    email: &'a str,
    name: &'a str,
    #[schema(value_type = Option<String>)]
    locale: Option<&'a Locale>,
    /// Years: 0, 7, 13, 16 or 18.
    #[schema(value_type = u8)]
    maturity: Maturity,
    /// `basic`, `standard` or `premium`.
    #[schema(value_type = String)]
    plan: Plan,
    #[serde(serialize_with = "rfc_3339")]
    #[schema(value_type = String, format = DateTime)]
    created_at: i64,
}

fn profile_of(account: &Account) -> Profile<'_> {
    Profile {
        id: &account.id,
        email: &account.email,
        name: &account.name,
        locale: account.locale.as_ref(),
        maturity: account.maturity,
        plan: account.plan,
        created_at: account.created_ms,
    }
}

async fn profile(State(app): State<App>, viewer: ViewerToken, headers: HeaderMap) -> ApiResult {
    let mut snapshot = newest_snapshot(&app, &headers).await?;
    let account = viewer.account(&mut snapshot).await?;
    private(&profile_of(&account), &account.id, About::default(), &snapshot.as_of, &headers)
}

/// What a viewer may change; anything else in the body is refused, not ignored.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ProfileChange {
    name: Option<String>,
    /// A primary language tag; `null` takes the choice back.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    locale: Option<Option<String>>,
    /// Years: 0, 7, 13, 16 or 18. To raise it needs the password.
    maturity: Option<u8>,
    /// Looked at only where the age limit is raised: a child has the device, and with it a token, but not the password.
    #[schema(max_length = 256)]
    password: Option<String>,
}

/// Tells `null` from a member that is not there.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn needs_password(problem: Problem) -> Problem {
    problem.fault("/password", "is needed to raise the age limit")
}

async fn change_profile(
    State(app): State<App>,
    viewer: ViewerToken,
    headers: HeaderMap,
    Whole(body): Whole<BODY_BYTES_MAX>,
) -> ApiResult {
    let change: ProfileChange = read_json(&headers, body)?;
    let mut problem = body_faults();
    let name = change.name.as_deref().map(check_name).transpose().unwrap_or_else(|message| {
        problem = problem.clone().fault("/name", message);
        None
    });
    let locale = change.locale.map(|locale| locale.map(|locale| locale.parse::<Locale>()).transpose()).transpose();
    let locale = locale.unwrap_or_else(|error| {
        problem = problem.clone().fault("/locale", error.to_string());
        None
    });
    let maturity = change.maturity.map(Maturity::try_from).transpose().unwrap_or_else(|error| {
        problem = problem.clone().fault("/maturity", error.to_string());
        None
    });
    let raised = match maturity {
        None => None,
        Some(years) => {
            let account = viewer.account(&mut app.store.snapshot().await?).await?;
            (years > account.maturity).then_some(account)
        }
    };
    if raised.is_some() {
        problem = match &change.password {
            None => needs_password(problem),
            Some(password) if password.len() > PASSWORD_BYTES_MAX => {
                problem.fault("/password", "has at most 256 bytes")
            }
            Some(_) => problem,
        };
    }
    if !problem.errors.is_empty() {
        return Err(problem.into());
    }
    // The writer is not held while a password is hashed.
    if let Some(account) = &raised {
        let attempt = Attempt::guess(&app, account.kind, &account.email, &headers)?;
        let password = change.password.unwrap_or_default();
        let verified = app.auth.hasher.verify(password, Some(&account.password_hash));
        let (attempt, fits) = attempt.decided(verified).await?;
        if !fits {
            return Ok(attempt.refuse());
        }
        attempt.succeed();
    }
    let (mut write, before) = viewer.to_write(&app).await?;
    if maturity.is_some_and(|years| years > before.maturity) {
        match &raised {
            // Lowered since it was looked at.
            None => return Err(needs_password(body_faults()).into()),
            Some(account) if account.password_hash != before.password_hash => return Err(changed_meanwhile()),
            Some(_) => {}
        }
    }
    let after = Account {
        name: name.unwrap_or_else(|| before.name.clone()),
        locale: locale.unwrap_or_else(|| before.locale.clone()),
        maturity: maturity.unwrap_or(before.maturity),
        updated_ms: moment(),
        ..before.clone()
    };
    write.put_account(&after).await?;
    let mut purged = vec![viewer_key(&after.id)];
    if (after.maturity, &after.locale) != (before.maturity, &before.locale) {
        // Access tokens say these, so they are over; sessions are not, and the next refresh says the new ones.
        purged.push(user_key(&after.id));
    }
    revoke(&mut write, &purged, "profile changed", &after.id).await?;
    let as_of = write.commit().await?;
    Ok(unstored(&profile_of(&after), &as_of))
}

async fn delete_me(State(app): State<App>, viewer: ViewerToken) -> ApiResult {
    let (mut write, account) = viewer.to_write(&app).await?;
    delete_account(&mut write, &account.id, &account.id).await?;
    Ok(done(&write.commit().await?))
}

/// Everything that is kept of a viewer goes, at once.
pub(super) async fn delete_account(write: &mut Write, id: &str, actor: &str) -> Result<(), ApiError> {
    write.delete_account(id).await?;
    revoke(write, &[user_key(id), viewer_key(id)], "account deleted", actor).await
}

#[derive(Serialize, ToSchema)]
struct WatchList<'a> {
    items: Vec<Watched<'a>>,
}

#[derive(Serialize, ToSchema)]
struct Watched<'a> {
    #[serde(flatten)]
    title: Item<'a>,
    #[serde(serialize_with = "rfc_3339")]
    #[schema(value_type = String, format = DateTime)]
    added_at: i64,
}

async fn watch_list(State(app): State<App>, viewer: ViewerToken, headers: HeaderMap) -> ApiResult {
    let mut snapshot = newest_snapshot(&app, &headers).await?;
    let account = viewer.account(&mut snapshot).await?;
    let eye = eye_of(&headers, &account);
    let list = snapshot.watch_list(&account.id, eye).await?;
    let about = About::list(&list, &mut snapshot, eye.now_ms).await?;
    let locale = locale_of(&headers, &account);
    let items = list.shown.iter().map(|kept| Watched { title: item(&kept.card, &locale), added_at: kept.about });
    private(&WatchList { items: items.collect() }, &account.id, about, &snapshot.as_of, &headers)
}

#[derive(Serialize, ToSchema)]
struct ContinueWatching<'a> {
    items: Vec<Begun<'a>>,
}

#[derive(Serialize, ToSchema)]
struct Begun<'a> {
    #[serde(flatten)]
    title: Item<'a>,
    #[serde(flatten)]
    progress: Watching<'a>,
}

/// How far a title was watched, and when that was said.
#[derive(Serialize, ToSchema)]
struct Watching<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    episode_id: Option<&'a str>,
    position_s: i64,
    duration_s: i64,
    #[serde(serialize_with = "rfc_3339")]
    #[schema(value_type = String, format = DateTime)]
    updated_at: i64,
}

fn watching(progress: &Progress) -> Watching<'_> {
    Watching {
        episode_id: progress.episode_id.as_deref(),
        position_s: progress.position_s,
        duration_s: progress.duration_s,
        updated_at: progress.updated_ms,
    }
}

async fn continue_watching(State(app): State<App>, viewer: ViewerToken, headers: HeaderMap) -> ApiResult {
    let mut snapshot = newest_snapshot(&app, &headers).await?;
    let account = viewer.account(&mut snapshot).await?;
    let eye = eye_of(&headers, &account);
    let list = snapshot.continue_watching(&account.id, CONTINUE_MAX, eye).await?;
    let mut about = About::list(&list, &mut snapshot, eye.now_ms).await?;
    if eye.now_ms < account.progress_logged_ms.saturating_add(PROGRESS_SETTLES_MS) {
        about = about.changes_at(eye.now_ms.saturating_add(PROGRESS_PURGE_MS));
    }
    let locale = locale_of(&headers, &account);
    let items = list
        .shown
        .iter()
        .map(|Kept { card, about: progress }| Begun { title: item(card, &locale), progress: watching(progress) });
    private(&ContinueWatching { items: items.collect() }, &account.id, about, &snapshot.as_of, &headers)
}

fn absent() -> ApiError {
    Problem::new(404, "not-found", "There is no title of this id").into()
}

/// The language of what she reads: that of the account, else what the edge says that the request wants.
fn locale_of(headers: &HeaderMap, account: &Account) -> Locale {
    account.locale.clone().unwrap_or_else(|| viewer::said(headers).locale)
}

/// Which titles this viewer sees: where she is, as the edge says, and what the account may see now.
fn eye_of(headers: &HeaderMap, account: &Account) -> Eye {
    Eye { region: viewer::said(headers).region, maturity: i64::from(account.maturity.years()), now_ms: moment() }
}

/// Refuses a title that this viewer does not see.
fn check_seen(title: Option<&Title>, headers: &HeaderMap, account: &Account) -> Result<(), ApiError> {
    let eye = eye_of(headers, account);
    let is_seen = |title: &&Title| {
        let shown = title.shown.is_in(eye.region) && title.input.shown_at(eye.now_ms).is_in(eye.region);
        shown && i64::from(title.input.age().years()) <= eye.maturity
    };
    title.filter(is_seen).map(|_| ()).ok_or_else(absent)
}

/// The account, in a write, and that this viewer sees the title. Looked at in a snapshot before: what is refused takes nobody's turn
/// at the writer.
async fn about(
    app: &App,
    viewer: &ViewerToken,
    headers: &HeaderMap,
    title_id: &str,
) -> Result<(Write, Account), ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let account = viewer.account(&mut snapshot).await?;
    check_seen(snapshot.title(title_id).await?.as_ref(), headers, &account)?;
    drop(snapshot);
    let mut write = app.store.write().await?;
    let account = viewer.account_to_write(&mut write).await?;
    check_seen(write.title(title_id).await?.as_ref(), headers, &account)?;
    Ok((write, account))
}

async fn watch(State(app): State<App>, viewer: ViewerToken, Segment(id): Segment, headers: HeaderMap) -> ApiResult {
    check_id(&id).map_err(|_| absent())?;
    let (mut write, account) = about(&app, &viewer, &headers, &id).await?;
    if write.watch(&account.id, &id, moment()).await? {
        revoke(&mut write, &[viewer_key(&account.id)], "watch-list", &account.id).await?;
    }
    Ok(done(&write.commit().await?))
}

async fn unwatch(State(app): State<App>, viewer: ViewerToken, Segment(id): Segment) -> ApiResult {
    let (mut write, account) = viewer.to_write(&app).await?;
    if write.unwatch(&account.id, &id).await? {
        revoke(&mut write, &[viewer_key(&account.id)], "watch-list", &account.id).await?;
    }
    Ok(done(&write.commit().await?))
}

/// How far a title was watched.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ProgressBody {
    position_s: i64,
    duration_s: i64,
    episode_id: Option<String>,
}

/// Begun, and not as good as finished.
fn is_watching(position_s: i64, duration_s: i64) -> bool {
    position_s >= BEGUN_S.min(duration_s / 20) && position_s < duration_s.saturating_sub(duration_s / 20)
}

async fn progress(
    State(app): State<App>,
    viewer: ViewerToken,
    Segment(id): Segment,
    headers: HeaderMap,
    Whole(body): Whole<BODY_BYTES_MAX>,
) -> ApiResult {
    check_id(&id).map_err(|_| absent())?;
    let body: ProgressBody = read_json(&headers, body)?;
    let mut problem = body_faults();
    if !(1..=DURATION_S_MAX).contains(&body.duration_s) {
        problem = problem.fault("/duration_s", format!("must be from 1 to {DURATION_S_MAX}"));
    }
    if !(0..=body.duration_s).contains(&body.position_s) {
        problem = problem.fault("/position_s", "must be from 0 to duration_s");
    }
    if body.episode_id.as_deref().is_some_and(|episode| check_id(episode).is_err()) {
        problem = problem.fault("/episode_id", "must be an episode's id");
    }
    if !problem.errors.is_empty() {
        return Err(problem.into());
    }
    let (mut write, account) = about(&app, &viewer, &headers, &id).await?;
    let now_ms = moment();
    let watching = is_watching(body.position_s, body.duration_s);
    let was = write.is_watching(&account.id, &id).await?;
    let progress = Progress {
        title_id: id,
        episode_id: body.episode_id,
        position_s: body.position_s,
        duration_s: body.duration_s,
        watching,
        updated_ms: now_ms,
    };
    let left = write.put_progress(&account.id, &progress).await?;
    let is_due = now_ms.saturating_sub(account.progress_logged_ms) >= PROGRESS_PURGE_MS;
    if left || was != watching || (watching && is_due) {
        write.progress_logged(&account.id, now_ms).await?;
        revoke(&mut write, &[viewer_key(&account.id)], "progress", &account.id).await?;
    }
    Ok(done(&write.commit().await?))
}

/// Not for any cache: a player asks once, when it begins, and what is watched says so every few seconds.
async fn progress_in(
    State(app): State<App>,
    viewer: ViewerToken,
    Segment(id): Segment,
    headers: HeaderMap,
) -> ApiResult {
    let mut snapshot = newest_snapshot(&app, &headers).await?;
    let account = viewer.account(&mut snapshot).await?;
    let absent = || Problem::new(404, "not-found", "Nothing is kept of this title");
    let progress = snapshot.progress(&account.id, &id).await?.ok_or_else(absent)?;
    Ok(unstored(&watching(&progress), &snapshot.as_of))
}

async fn forget_progress(State(app): State<App>, viewer: ViewerToken, Segment(id): Segment) -> ApiResult {
    let (mut write, account) = viewer.to_write(&app).await?;
    let was = write.is_watching(&account.id, &id).await?;
    write.forget_progress(&account.id, &id).await?;
    if was {
        revoke(&mut write, &[viewer_key(&account.id)], "progress", &account.id).await?;
    }
    Ok(done(&write.commit().await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_being_watched_from_its_first_half_minute_to_its_last_twentieth() {
        let of_two_hours = |position_s| is_watching(position_s, 7_200);
        assert_eq!([0, 29, 30, 6_839, 6_840, 7_200].map(of_two_hours), [false, false, true, true, false, false]);
        assert!(is_watching(5, 100), "short ones are begun sooner");
    }
}
