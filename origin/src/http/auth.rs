//! The auth service: register, log in, refresh, log out, change a password; for viewers below `/auth`, for staff below
//! `/auth/staff`, which know nothing of each other.
//!
//! Who has no account and who mistypes the password are answered alike, with the same work done. Every end of a session is
//! a hard purge of `session:<sid>` or `user:<sub>` in the transaction that ends it.
use super::access_log::note_actor;
use super::admin::private_json;
use super::answers::as_of_field;
use super::attempt::{Attempt, address};
use super::error::ApiError;
use super::extract::{Segment, Whole, read_json};
use super::guard::{ViewerToken, bearer, in_session, revoked};
use super::spec::{Api, Op, text};
use super::{ApiResult, App};
use crate::auth::accounts::{NAME_CHARS_MAX, check_name};
use crate::auth::{self, SESSIONS_MAX, accounts, email, password, secret};
use crate::keys::EXPECT_ADMIN;
use crate::moment;
use crate::store::accounts::{Account, Kind, Session};
use crate::store::{LoggedPurge, Write};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use kv_schemas::claims::AdminClaims;
use kv_schemas::key_class::{session_key, user_key};
use kv_schemas::viewer::{Locale, Plan};
use kv_schemas::{AsOf, Problem, PurgeMode, SurrogateKey};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod;

/// Largest body these calls take, in bytes.
pub const BODY_BYTES_MAX: usize = 8 * 1024;
const DEVICE_CHARS_MAX: usize = 80;
/// Longest refresh token or invitation that is looked at.
const SECRET_BYTES_MAX: usize = 64;

type Body = Whole<BODY_BYTES_MAX>;

const JSON: [&str; 1] = ["application/json"];
pub(super) const TOO_OFTEN: (u16, &str) = (429, "Too many attempts; `Retry-After` says how long to wait");

/// What viewers and staff have alike.
fn of_kind(kind: Kind) -> Api {
    let (below, whose) = match kind {
        Kind::Viewer => ("/auth", "a viewer"),
        Kind::Staff => ("/auth/staff", "a member of staff"),
    };
    let op = |summary: &str| Op::new("accounts", &summary.replace("{}", whose));
    let in_session = |op: Op| match kind {
        Kind::Viewer => op.signed_in(),
        Kind::Staff => op.staff(),
    };
    let login_op = op("Log in as {}")
        .body::<Login>(&JSON)
        .answer::<Tokens>(200, "A session's first tokens")
        .problems(&[(401, "The address or the password is wrong"), (403, "The account is closed"), TOO_OFTEN]);
    let refresh_op = op("The next tokens of {}")
        .says("A refresh token works once. One that is sent again ends its session: two have it, and nobody can tell who stole it.")
        .body::<Refresh>(&JSON)
        .answer::<Tokens>(200, "The session's tokens from now on")
        .problems(&[(401, "The refresh token is not valid (any more)")]);
    let logout_op = op("Log {} out of one device")
        .body::<Refresh>(&JSON)
        .empty(204, "The session is over, if there was one")
        .problems(&[(401, "This cannot be a refresh token")]);
    let everywhere_op = in_session(op("Log {} out of all devices")).empty(204, "All sessions are over");
    let password_op = in_session(op("Change the password of {}"))
        .says("Other devices are logged out; this one refreshes its tokens.")
        .body::<ChangePassword>(&JSON)
        .empty(204, "Changed")
        .problems(&[(401, "The token or the password is refused"), (409, "It was changed meanwhile"), TOO_OFTEN]);
    let accept_op = op("Choose a password, by an invitation to {}")
        .body::<Accept>(&JSON)
        .empty(204, "The password is what was sent; log in")
        .problems(&[(401, "The invitation is not valid (any more)")]);
    let path = |name: &str| format!("{below}/{name}");
    Api::new()
        .add(
            HttpMethod::Post,
            &path("login"),
            post(move |app, headers, body| login(kind, app, headers, body)),
            login_op,
        )
        .add(
            HttpMethod::Post,
            &path("refresh"),
            post(move |app, headers, body| refresh(kind, app, headers, body)),
            refresh_op,
        )
        .add(
            HttpMethod::Post,
            &path("logout"),
            post(move |app, headers, body| logout(kind, app, headers, body)),
            logout_op,
        )
        .add(
            HttpMethod::Post,
            &path("logout-everywhere"),
            post(move |app, headers| logout_everywhere(kind, app, headers)),
            everywhere_op,
        )
        .add(
            HttpMethod::Post,
            &path("password"),
            post(move |app, headers, body| change_password(kind, app, headers, body)),
            password_op,
        )
        .add(
            HttpMethod::Post,
            &path("accept"),
            post(move |app, headers, body| accept(kind, app, headers, body)),
            accept_op,
        )
}

pub fn api() -> Api {
    let register_op = Op::new("accounts", "Make a viewer's account")
        .says("Answered alike whether or not there was one of this address: who registers logs in next.")
        .body::<Register>(&JSON)
        .answer::<Accepted>(202, "Taken")
        .problems(&[TOO_OFTEN]);
    let sessions_op = Op::new("accounts", "The viewer's devices").signed_in().answer::<Devices>(200, "Last used first");
    let end_op = Op::new("accounts", "Log one of the viewer's devices out")
        .signed_in()
        .path("id", text())
        .empty(204, "Its session is over")
        .problems(&[(400, "The path is malformed"), (404, "The viewer has no device of this id")]);
    Api::new()
        .add(HttpMethod::Post, "/auth/register", post(register), register_op)
        .add(HttpMethod::Get, "/auth/sessions", get(sessions), sessions_op)
        .add(HttpMethod::Delete, "/auth/sessions/{id}", delete(end_session), end_op)
        .merge(of_kind(Kind::Viewer))
        .merge(of_kind(Kind::Staff))
}

/// An answer without content, with the state a write made.
pub(super) fn done(as_of: &AsOf) -> Response {
    let fields = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store")), as_of_field(as_of)];
    (StatusCode::NO_CONTENT, fields).into_response()
}

/// Ends tokens everywhere: one hard purge.
pub(super) async fn revoke(
    write: &mut Write,
    keys: &[String],
    reason: &'static str,
    actor: &str,
) -> Result<(), ApiError> {
    let keys: Result<Vec<_>, _> = keys.iter().map(SurrogateKey::new).collect();
    // Made of our own ids; should one be no key, nothing may be committed.
    let keys = keys.map_err(|error| ApiError::Failed(error.to_string()))?;
    write.purge(LoggedPurge { keys: &keys, mode: PurgeMode::Hard, reason: Some(reason), actor: Some(actor) }).await?;
    Ok(())
}

pub(super) fn body_faults() -> Problem {
    Problem::new(400, "body-invalid", "The body has faults")
}

// Registering.

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Register {
    #[schema(format = "email", max_length = 254)]
    email: String,
    #[schema(min_length = 10, max_length = 256)]
    password: String,
    name: Option<String>,
    locale: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Accepted {
    status: &'static str,
}

/// Makes a viewer's account, and says the same if there was one: who registers logs in next.
async fn register(State(app): State<App>, headers: HeaderMap, Whole(body): Body) -> ApiResult {
    let request: Register = read_json(&headers, body)?;
    let mut problem = body_faults();
    let email = email::normalise(&request.email).unwrap_or_else(|message| {
        problem.errors.push(fault("/email", message));
        String::new()
    });
    if let Err(message) = password::check(&request.password, &email) {
        problem.errors.push(fault("/password", message));
    }
    let name = request.name.as_deref().map(check_name).transpose().unwrap_or_else(|message| {
        problem.errors.push(fault("/name", message));
        None
    });
    let locale = request.locale.as_deref().map(str::parse::<Locale>).transpose().unwrap_or_else(|error| {
        problem.errors.push(fault("/locale", error));
        None
    });
    if !problem.errors.is_empty() {
        return Err(problem.into());
    }
    let counts = address(&app, &headers).map(|address| (auth::THROTTLE_REGISTER, address));
    let attempt = Attempt::begin(&app, counts.into_iter().collect())?;
    let registered = async {
        let password_hash = app.auth.hasher.hash(request.password).await?;
        let now_ms = moment();
        let name =
            name.unwrap_or_else(|| email.split('@').next().unwrap_or_default().chars().take(NAME_CHARS_MAX).collect());
        let account = Account {
            name,
            locale,
            plan: Plan::Basic,
            ..accounts::new_account(Kind::Viewer, email, password_hash, now_ms)?
        };
        let mut write = app.store.write().await?;
        if !write.add_account(&account).await?
            && let Some(existing) = write.account_by_email(Kind::Viewer, &account.email).await?
        {
            // As much work for the database as a new one.
            write.touch_account(&existing.id).await?;
        }
        write.commit().await?;
        Ok::<_, ApiError>(())
    };
    attempt.decided(registered).await?;
    Ok(private_json(StatusCode::ACCEPTED, &Accepted { status: "accepted" }))
}

fn fault(at: &str, message: impl ToString) -> kv_schemas::problem::Fault {
    kv_schemas::problem::Fault { at: at.into(), message: message.to_string() }
}

// Logging in, and staying so.

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Login {
    #[schema(format = "email", max_length = 254)]
    email: String,
    password: String,
    /// What the list of devices calls this one.
    device: Option<String>,
}

/// After RFC 6749 section 5.1.
#[derive(Serialize, ToSchema)]
struct Tokens {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    refresh_token: String,
    refresh_expires_in: i64,
    session: String,
}

fn tokens(access_token: String, refresh_token: String, session: &Session, now_ms: i64) -> Response {
    let tokens = Tokens {
        access_token,
        token_type: "Bearer",
        expires_in: auth::ACCESS_LIFETIME_S,
        refresh_token,
        refresh_expires_in: session.idle_end_ms.saturating_sub(now_ms) / 1000,
        session: session.id.clone(),
    };
    private_json(StatusCode::OK, &tokens)
}

async fn login(kind: Kind, State(app): State<App>, headers: HeaderMap, Whole(body): Body) -> ApiResult {
    let request: Login = read_json(&headers, body)?;
    let email = email::normalise(&request.email).map_err(|message| body_faults().fault("/email", message))?;
    if request.password.len() > password::PASSWORD_BYTES_MAX {
        return Err(body_faults().fault("/password", "has at most 256 bytes").into());
    }
    let device: String = request.device.unwrap_or_default();
    let device: String = device.chars().filter(|c| !c.is_control()).take(DEVICE_CHARS_MAX).collect();
    let attempt = Attempt::guess(&app, kind, &email, &headers)?;
    let verified = async {
        let found = app.store.snapshot().await?.account_by_email(kind, &email).await?;
        let stored = found.as_ref().map(|account| account.password_hash.as_str());
        let fits = app.auth.hasher.verify(request.password.clone(), stored).await?;
        Ok::<_, ApiError>((found, fits))
    };
    let (attempt, (found, fits)) = attempt.decided(verified).await?;
    let Some(account) = found.filter(|_| fits) else {
        return Ok(attempt.refuse());
    };
    attempt.succeed();
    note_actor(&account.id);
    if account.banned {
        return Err(banned());
    }
    let rehashed = match app.auth.hasher.is_outdated(&account.password_hash) {
        true => app.auth.hasher.hash(request.password).await.ok(),
        false => None,
    };
    let now_ms = moment();
    let mut write = app.store.write().await?;
    // What was verified may have changed while the hash was made.
    let still = write.account(kind, &account.id).await?;
    let Some(mut account) = still.filter(|still| still.password_hash == account.password_hash && !still.banned) else {
        return Err(Problem::new(401, "credentials", "The e-mail address or the password is wrong").into());
    };
    if let Some(hash) = rehashed {
        account.password_hash = hash;
        write.put_account(&account).await?;
    }
    make_room(&mut write, &account, now_ms).await?;
    let session = auth::new_session(&account, device, now_ms)?;
    let refresh_token = secret::new_secret()?;
    write.add_session(&session, &secret::hash(&refresh_token)).await?;
    let access_token = auth::access_token(&app.keys, &account, &session.id, write.as_of())?;
    write.commit().await?;
    Ok(tokens(access_token, refresh_token, &session, now_ms))
}

/// What was verified is the password no more.
pub(super) fn changed_meanwhile() -> ApiError {
    Problem::new(409, "changed-meanwhile", "The password was changed meanwhile").into()
}

fn banned() -> ApiError {
    Problem::new(403, "account-banned", "This account is closed").into()
}

/// Ends the sessions used longest ago, so that a new one fits.
async fn make_room(write: &mut Write, account: &Account, now_ms: i64) -> Result<(), ApiError> {
    let sessions = write.sessions(&account.id).await?;
    for session in sessions.iter().skip(SESSIONS_MAX.saturating_sub(1)) {
        write.end_session(&session.id).await?;
        if session.is_alive(now_ms) {
            revoke(write, &[session_key(&session.id)], "too many devices", &account.id).await?;
        }
    }
    Ok(())
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Refresh {
    refresh_token: String,
}

/// One answer for every reason: unknown, spent, over, the other kind's.
fn refresh_refused() -> ApiError {
    Problem::new(401, "refresh-refused", "The refresh token is not valid (any more); log in again").into()
}

fn read_secret(headers: &HeaderMap, body: Result<axum::body::Bytes, Problem>) -> Result<String, ApiError> {
    let request: Refresh = read_json(headers, body)?;
    if request.refresh_token.len() > SECRET_BYTES_MAX {
        return Err(refresh_refused());
    }
    Ok(secret::hash(&request.refresh_token))
}

/// The account and session of a refresh token, in a write (which runs beside no other); and whether the token is the living
/// one.
async fn of_refresh_token(
    app: &App,
    kind: Kind,
    hash: &str,
) -> Result<Option<(Write, Account, Session, bool)>, ApiError> {
    // Made-up ones do not reach the writer.
    if !app.store.snapshot().await?.has_refresh_token(hash).await? {
        return Ok(None);
    }
    let mut write = app.store.write().await?;
    let Some((session, lives)) = write.refresh_token(hash).await? else { return Ok(None) };
    let account = write.account(kind, &session.account_id).await?;
    Ok(account.map(|account| (write, account, session, lives)))
}

async fn refresh(kind: Kind, State(app): State<App>, headers: HeaderMap, Whole(body): Body) -> ApiResult {
    let hash = read_secret(&headers, body)?;
    let Some((mut write, account, session, lives)) = of_refresh_token(&app, kind, &hash).await? else {
        return Err(refresh_refused());
    };
    note_actor(&account.id);
    let now_ms = moment();
    if !lives {
        // Two hold this family, and nobody can tell which is the thief.
        write.end_session(&session.id).await?;
        revoke(&mut write, &[session_key(&session.id)], "refresh token reused", &account.id).await?;
        write.commit().await?;
        metrics::counter!("origin_refresh_reused_total").increment(1);
        tracing::warn!(
            session = session.id,
            account = account.id,
            "a spent refresh token was sent; its session is over"
        );
        return Err(refresh_refused());
    }
    if account.banned || !session.is_alive(now_ms) {
        return Err(refresh_refused());
    }
    let session = auth::refreshed(&session, kind, now_ms);
    let refresh_token = secret::new_secret()?;
    write.refreshed(&session, &secret::hash(&refresh_token)).await?;
    let access_token = auth::access_token(&app.keys, &account, &session.id, write.as_of())?;
    write.commit().await?;
    Ok(tokens(access_token, refresh_token, &session, now_ms))
}

// Leaving.

/// Ends the session of a refresh token. A token that is unknown is as good as logged out.
async fn logout(kind: Kind, State(app): State<App>, headers: HeaderMap, Whole(body): Body) -> ApiResult {
    let hash = read_secret(&headers, body)?;
    let Some((mut write, account, session, _)) = of_refresh_token(&app, kind, &hash).await? else {
        return Ok(done(&app.store.snapshot().await?.as_of));
    };
    write.end_session(&session.id).await?;
    revoke(&mut write, &[session_key(&session.id)], "logged out", &account.id).await?;
    Ok(done(&write.commit().await?))
}

/// Who a bearer token says it is of, and in which session.
fn session_of(app: &App, kind: Kind, headers: &HeaderMap) -> Result<(String, String), ApiError> {
    match kind {
        Kind::Viewer => {
            let ViewerToken(claims) = ViewerToken::verify(app, headers)?;
            Ok((claims.sub, claims.sid))
        }
        Kind::Staff => {
            let claims: AdminClaims = bearer(app, headers, EXPECT_ADMIN)?;
            note_actor(&claims.sub);
            let sid = claims.sid.ok_or_else(|| {
                Problem::new(403, "no-session", "This token was made at the command line and has no session")
            })?;
            Ok((claims.sub, sid))
        }
    }
}

async fn logout_everywhere(kind: Kind, State(app): State<App>, headers: HeaderMap) -> ApiResult {
    let (sub, sid) = session_of(&app, kind, &headers)?;
    let (mut write, account) = in_session(&app, kind, &sub, &sid).await?;
    end_everywhere(&mut write, &account.id, &account.id).await?;
    Ok(done(&write.commit().await?))
}

/// Ends all sessions of an account, and its tokens.
pub(super) async fn end_everywhere(write: &mut Write, account_id: &str, actor: &str) -> Result<(), ApiError> {
    write.end_sessions(account_id, None).await?;
    revoke(write, &[user_key(account_id)], "logged out everywhere", actor).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangePassword {
    current_password: String,
    #[schema(min_length = 10, max_length = 256)]
    new_password: String,
}

/// Other devices are logged out. This one's session stays; its access token is over like all others: refresh.
async fn change_password(kind: Kind, State(app): State<App>, headers: HeaderMap, Whole(body): Body) -> ApiResult {
    let request: ChangePassword = read_json(&headers, body)?;
    let (sub, sid) = session_of(&app, kind, &headers)?;
    // The writer is not held while a password is hashed.
    let found = app.store.snapshot().await?.account_in_session(kind, &sub, &sid, moment()).await?;
    let account = found.ok_or_else(revoked)?;
    if let Err(message) = password::check(&request.new_password, &account.email) {
        return Err(body_faults().fault("/new_password", message).into());
    }
    if request.current_password.len() > password::PASSWORD_BYTES_MAX {
        return Err(body_faults().fault("/current_password", "has at most 256 bytes").into());
    }
    let attempt = Attempt::guess(&app, kind, &account.email, &headers)?;
    let verified = app.auth.hasher.verify(request.current_password, Some(&account.password_hash));
    let (attempt, fits) = attempt.decided(verified).await?;
    if !fits {
        return Ok(attempt.refuse());
    }
    attempt.succeed();
    let password_hash = app.auth.hasher.hash(request.new_password).await?;
    let (mut write, now) = in_session(&app, kind, &sub, &sid).await?;
    if now.password_hash != account.password_hash {
        return Err(changed_meanwhile());
    }
    write.put_account(&Account { password_hash, updated_ms: moment(), ..now }).await?;
    // Whoever else was given one would choose another.
    write.withdraw_invitation(&account.id).await?;
    write.end_sessions(&account.id, Some(&sid)).await?;
    revoke(&mut write, &[user_key(&account.id)], "password changed", &account.id).await?;
    Ok(done(&write.commit().await?))
}

#[derive(Serialize, ToSchema)]
struct Devices {
    items: Vec<Device>,
}

#[derive(Serialize, ToSchema)]
struct Device {
    #[serde(flatten)]
    session: Session,
    current: bool,
}

/// The viewer's devices.
async fn sessions(State(app): State<App>, viewer: ViewerToken) -> ApiResult {
    let mut snapshot = app.store.snapshot().await?;
    let account = viewer.account(&mut snapshot).await?;
    let sessions = snapshot.sessions(&account.id, moment()).await?;
    let current = viewer.0.sid;
    let items = sessions.into_iter().map(|session| Device { current: session.id == current, session }).collect();
    Ok(private_json(StatusCode::OK, &Devices { items }))
}

/// Logs one of the viewer's devices out.
async fn end_session(State(app): State<App>, viewer: ViewerToken, Segment(id): Segment) -> ApiResult {
    let (mut write, account) = viewer.to_write(&app).await?;
    let session = write.session(&id).await?.filter(|session| session.account_id == account.id);
    let Some(session) = session else {
        return Err(Problem::new(404, "not-found", "There is no device of this id").into());
    };
    write.end_session(&session.id).await?;
    revoke(&mut write, &[session_key(&session.id)], "logged out", &account.id).await?;
    Ok(done(&write.commit().await?))
}

// Choosing a password: a new member of staff, a viewer who was taken over without one, whoever has forgotten it.

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Accept {
    invitation: String,
    #[schema(min_length = 10, max_length = 256)]
    password: String,
}

/// Takes an invitation up by choosing a password.
async fn accept(kind: Kind, State(app): State<App>, headers: HeaderMap, Whole(body): Body) -> ApiResult {
    let request: Accept = read_json(&headers, body)?;
    let refused = || Problem::new(401, "invitation-refused", "The invitation is not valid (any more)");
    if request.invitation.len() > SECRET_BYTES_MAX {
        return Err(refused().into());
    }
    let hash = secret::hash(&request.invitation);
    let Some(account) = app.store.snapshot().await?.invited(kind, &hash, moment()).await? else {
        return Err(refused().into());
    };
    if let Err(message) = password::check(&request.password, &account.email) {
        return Err(body_faults().fault("/password", message).into());
    }
    let password_hash = app.auth.hasher.hash(request.password).await?;
    let mut write = app.store.write().await?;
    let taken = write.take_invitation(kind, &hash, moment()).await?;
    let account = taken.ok_or_else(refused)?;
    write.put_account(&Account { password_hash, updated_ms: moment(), ..account.clone() }).await?;
    // Whoever knew an earlier password is out.
    write.end_sessions(&account.id, None).await?;
    revoke(&mut write, &[user_key(&account.id)], "invitation taken up", &account.id).await?;
    Ok(done(&write.commit().await?))
}
