//! Accounts as admins see and change them: viewers (plan, ban, log-out, end) and staff (role, ban, invitations). For the role
//! `admin` alone, since these are people's data. Passwords are nobody's but their owner's: an admin can invite, not set.
//!
//! What ends or changes what somebody may do is a hard purge of `user:<sub>` in its transaction, so tokens that say otherwise
//! are over as soon as a purge lands. Whatever is done here is noted in the audit log, in that transaction too.
use super::admin::private_json;
use super::answers::as_of_field;
use super::auth::{body_faults, done, end_everywhere, revoke};
use super::error::ApiError;
use super::extract::{Segment, Whole, read_json};
use super::guard::Staff;
use super::query::{PAGE_MAX, Query, id_cursor};
use super::spec::{Api, Op, integer, text};
use super::{ApiResult, App, me};
use crate::auth::accounts::{Invitation, check_name};
use crate::auth::{INVITATION_MS, accounts, email};
use crate::moment;
use crate::store::accounts::{Account, Accounts, Kind, moment as rfc_3339, role_text};
use crate::store::{Change, Write};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{delete, get, patch, post};
use kv_schemas::claims::StaffRole;
use kv_schemas::key_class::{user_key, viewer_key};
use kv_schemas::viewer::{Locale, Maturity, Plan};
use kv_schemas::{AsOf, Problem};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod;

const BODY_BYTES_MAX: usize = 4 * 1024;

type Body = Whole<BODY_BYTES_MAX>;

const JSON: [&str; 1] = ["application/json"];

/// A call about one account.
fn one(op: Op) -> Op {
    op.path("id", text()).problems(&[(400, "The path is malformed"), (404, "There is no account of this id")])
}

/// What viewers and staff have alike.
fn of_kind(kind: Kind) -> Api {
    let (path, tag) = match kind {
        Kind::Viewer => ("/admin/v1/users", "users"),
        Kind::Staff => ("/admin/v1/staff", "staff"),
    };
    let op = |summary: &str| Op::new(tag, summary).staff();
    let listed = op("List by id")
        .query("limit", integer(1, i64::from(PAGE_MAX)), "50 when not given")
        .query("cursor", text(), "`next_cursor` of this list")
        .query("email", text(), "The one of this address")
        .page::<View<'_>>("By id")
        .problems(&[(400, "The query has faults, each named")]);
    let invited = one(op("Invite to choose a (new) password"))
        .says("The answer has the one-time token; an earlier one is void. Who takes it up is logged out everywhere first.")
        .answer::<Invited<'_>>(201, "The account, and its invitation");
    Api::new()
        .add(HttpMethod::Get, path, get(move |app, staff, query| list(kind, app, staff, query)), listed)
        .add(
            HttpMethod::Get,
            &format!("{path}/{{id}}"),
            get(move |app, staff, id| read(kind, app, staff, id)),
            one(op("Read")).answer::<View<'_>>(200, "As it is now"),
        )
        .add(
            HttpMethod::Post,
            &format!("{path}/{{id}}/invitation"),
            post(move |app, staff, id| invite_again(kind, app, staff, id)),
            invited,
        )
}

pub fn api() -> Api {
    let change = |tag: &str| {
        Op::new(tag, "Change")
            .staff()
            .path("id", text())
            .problems(&[(404, "There is no account of this id")])
            .answer::<View<'_>>(200, "As it is now")
    };
    let invite_op = Op::new("staff", "Invite somebody new")
        .staff()
        .body::<Invite>(&JSON)
        .answer::<Invited<'_>>(201, "The account, and its one-time invitation")
        .problems(&[(409, "There is a member of staff with this e-mail address")]);
    Api::new()
        .add(
            HttpMethod::Patch,
            "/admin/v1/users/{id}",
            patch(change_user),
            change("users").says("Who is banned is out at once, everywhere.").body::<UserChange>(&JSON),
        )
        .add(
            HttpMethod::Patch,
            "/admin/v1/staff/{id}",
            patch(change_staff),
            change("staff").body::<StaffChange>(&JSON).problems(&[(409, "Nobody would be left who can change this")]),
        )
        .add(
            HttpMethod::Delete,
            "/admin/v1/users/{id}",
            delete(delete_user),
            one(Op::new("users", "Delete").staff())
                .says("As the viewer's own `DELETE /v1/me`.")
                .empty(204, "All of it is gone"),
        )
        .add(
            HttpMethod::Post,
            "/admin/v1/users/{id}/logout-everywhere",
            post(log_out_user),
            one(Op::new("users", "Log out of all devices").staff())
                .says("As the viewer's own `POST /auth/logout-everywhere`.")
                .empty(204, "All sessions are over"),
        )
        .add(HttpMethod::Post, "/admin/v1/staff", post(invite), invite_op)
        .merge(of_kind(Kind::Viewer))
        .merge(of_kind(Kind::Staff))
}

/// An account as an admin sees it.
#[derive(Serialize, ToSchema)]
#[schema(as = Account)]
struct View<'a> {
    id: &'a str,
    email: &'a str,
    name: &'a str,
    /// Of staff: `viewer`, `editor` or `admin`.
    #[serde(skip_serializing_if = "str::is_empty")]
    #[schema(value_type = Option<String>)]
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    plan: Option<Plan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u8>)]
    maturity: Option<Maturity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    locale: Option<&'a Locale>,
    banned: bool,
    /// Invited, and no password chosen yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(value_type = Option<bool>)]
    invited: bool,
    #[serde(serialize_with = "rfc_3339")]
    #[schema(value_type = String, format = DateTime)]
    created_at: i64,
    #[serde(serialize_with = "rfc_3339")]
    #[schema(value_type = String, format = DateTime)]
    updated_at: i64,
}

fn view(account: &Account) -> View<'_> {
    let is_viewer = account.kind == Kind::Viewer;
    View {
        id: &account.id,
        email: &account.email,
        name: &account.name,
        role: role_text(account.role),
        plan: is_viewer.then_some(account.plan),
        maturity: is_viewer.then_some(account.maturity),
        locale: account.locale.as_ref(),
        banned: account.banned,
        invited: account.password_hash.is_empty(),
        created_at: account.created_ms,
        updated_at: account.updated_ms,
    }
}

async fn list(kind: Kind, State(app): State<App>, staff: Staff, mut query: Query) -> ApiResult {
    #[derive(Serialize)]
    struct Page<'a> {
        items: Vec<View<'a>>,
        next_cursor: Option<&'a str>,
    }
    staff.at_least(StaffRole::Admin)?;
    let (limit, after) = query.page(id_cursor);
    // Who is no address has no account: an empty list, as for an address without one.
    let email = query.take("email", "an e-mail address", |text| Some(email::normalise(text).unwrap_or_default()));
    query.end()?;
    let page = Accounts { kind, after: after.as_deref().unwrap_or_default(), email: email.as_deref(), limit };
    let found = app.store.snapshot().await?.accounts(page).await?;
    let is_full = u32::try_from(found.len()).is_ok_and(|count| count == limit);
    let next_cursor = found.last().filter(|_| is_full).map(|last| last.id.as_str());
    Ok(private_json(StatusCode::OK, &Page { items: found.iter().map(view).collect(), next_cursor }))
}

fn absent() -> ApiError {
    Problem::new(404, "not-found", "There is no account of this id").into()
}

async fn read(kind: Kind, State(app): State<App>, staff: Staff, Segment(id): Segment) -> ApiResult {
    staff.at_least(StaffRole::Admin)?;
    let account = app.store.snapshot().await?.account(kind, &id).await?.ok_or_else(absent)?;
    Ok(private_json(StatusCode::OK, &view(&account)))
}

fn changed(account: &Account, as_of: &AsOf) -> Response {
    let mut response = private_json(StatusCode::OK, &view(account));
    response.headers_mut().extend([as_of_field(as_of)]);
    response
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UserChange {
    banned: Option<bool>,
    /// `basic`, `standard` or `premium`.
    #[schema(value_type = Option<String>)]
    plan: Option<Plan>,
}

async fn change_user(
    State(app): State<App>,
    staff: Staff,
    Segment(id): Segment,
    headers: HeaderMap,
    Whole(body): Body,
) -> ApiResult {
    staff.at_least(StaffRole::Admin)?;
    let change: UserChange = read_json(&headers, body)?;
    if change.plan == Some(Plan::None) {
        return Err(body_faults().fault("/plan", "must be basic, standard or premium").into());
    }
    let mut write = app.store.write().await?;
    let before = write.account(Kind::Viewer, &id).await?.ok_or_else(absent)?;
    let after = Account {
        banned: change.banned.unwrap_or(before.banned),
        plan: change.plan.unwrap_or(before.plan),
        updated_ms: moment(),
        ..before.clone()
    };
    put(&mut write, &before, &after, &staff).await?;
    Ok(changed(&after, &write.commit().await?))
}

/// Writes an account, ends its sessions and takes its invitation back if it is banned, and ends its tokens if they say what is no longer so.
async fn put(write: &mut Write, before: &Account, after: &Account, staff: &Staff) -> Result<(), ApiError> {
    write.put_account(after).await?;
    let is_banned_now = after.banned && !before.banned;
    if is_banned_now {
        write.end_sessions(&after.id, None).await?;
        write.withdraw_invitation(&after.id).await?;
    }
    let said = |account: &Account| (account.role, account.plan, account.maturity);
    let ban = (after.banned != before.banned).then_some(if after.banned { "ban" } else { "unban" });
    let actions = [ban, (said(after) != said(before)).then_some("edit")];
    let actions: Vec<_> = actions.into_iter().flatten().collect();
    if actions.is_empty() {
        return Ok(());
    }
    let reason = if is_banned_now { "banned" } else { "account changed" };
    revoke(write, &[user_key(&after.id), viewer_key(&after.id)], reason, &staff.0.sub).await?;
    note(write, staff, &actions, Some(before), Some(after)).await
}

/// What the audit log has of an account: neither name nor address, which would outlive it there.
#[derive(Serialize)]
struct Noted {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<StaffRole>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Plan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maturity: Option<Maturity>,
    banned: bool,
}

fn noted(account: &Account) -> Option<serde_json::Value> {
    let View { plan, maturity, banned, .. } = view(account);
    serde_json::to_value(Noted { role: account.role, plan, maturity, banned }).ok()
}

/// Notes what was done to an account, after the purge of the write.
async fn note(
    write: &mut Write,
    staff: &Staff,
    actions: &[&str],
    before: Option<&Account>,
    after: Option<&Account>,
) -> Result<(), ApiError> {
    let Some(account) = after.or(before) else { return Ok(()) };
    let kind = match account.kind {
        Kind::Viewer => "user",
        Kind::Staff => "staff",
    };
    for (n, action) in actions.iter().enumerate() {
        let (before, after) = (before.and_then(noted), after.and_then(noted));
        write.audit(n, &Change { actor: &staff.0.sub, action, kind, id: &account.id, before, after }).await?;
    }
    Ok(())
}

async fn delete_user(State(app): State<App>, staff: Staff, Segment(id): Segment) -> ApiResult {
    staff.at_least(StaffRole::Admin)?;
    let mut write = app.store.write().await?;
    let account = write.account(Kind::Viewer, &id).await?.ok_or_else(absent)?;
    me::delete_account(&mut write, &account.id, &staff.0.sub).await?;
    note(&mut write, &staff, &["delete"], Some(&account), None).await?;
    Ok(done(&write.commit().await?))
}

async fn log_out_user(State(app): State<App>, staff: Staff, Segment(id): Segment) -> ApiResult {
    staff.at_least(StaffRole::Admin)?;
    let mut write = app.store.write().await?;
    let account = write.account(Kind::Viewer, &id).await?.ok_or_else(absent)?;
    end_everywhere(&mut write, &account.id, &staff.0.sub).await?;
    note(&mut write, &staff, &["logout"], Some(&account), Some(&account)).await?;
    Ok(done(&write.commit().await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StaffChange {
    banned: Option<bool>,
    /// `viewer`, `editor` or `admin`.
    #[schema(value_type = Option<String>)]
    role: Option<StaffRole>,
}

async fn change_staff(
    State(app): State<App>,
    staff: Staff,
    Segment(id): Segment,
    headers: HeaderMap,
    Whole(body): Body,
) -> ApiResult {
    staff.at_least(StaffRole::Admin)?;
    let change: StaffChange = read_json(&headers, body)?;
    let mut write = app.store.write().await?;
    let before = write.account(Kind::Staff, &id).await?.ok_or_else(absent)?;
    let had_admins = write.admins().await? > 0;
    let after = Account {
        banned: change.banned.unwrap_or(before.banned),
        role: change.role.or(before.role),
        updated_ms: moment(),
        ..before.clone()
    };
    put(&mut write, &before, &after, &staff).await?;
    if had_admins && write.admins().await? == 0 {
        return Err(Problem::new(409, "last-admin", "Somebody has to remain who can change this")
            .detail("make another admin first")
            .into());
    }
    Ok(changed(&after, &write.commit().await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Invite {
    email: String,
    /// `viewer`, `editor` or `admin`.
    #[schema(value_type = String)]
    role: StaffRole,
    name: Option<String>,
}

/// An account, and the one-time token with which its owner chooses a password (`POST /auth/accept`, `/auth/staff/accept`).
#[derive(Serialize, ToSchema)]
struct Invited<'a> {
    #[serde(flatten)]
    account: View<'a>,
    invitation: String,
    #[serde(serialize_with = "rfc_3339")]
    #[schema(value_type = String, format = DateTime)]
    invitation_ends_at: i64,
}

async fn invite(State(app): State<App>, staff: Staff, headers: HeaderMap, Whole(body): Body) -> ApiResult {
    staff.at_least(StaffRole::Admin)?;
    let request: Invite = read_json(&headers, body)?;
    let email = email::normalise(&request.email).map_err(|message| body_faults().fault("/email", message))?;
    let name = request.name.as_deref().map(check_name).transpose();
    let name = name.map_err(|message| body_faults().fault("/name", message))?.unwrap_or_else(|| email.clone());
    let new = accounts::new_account(Kind::Staff, email, String::new(), moment())?;
    let account = Account { name, role: Some(request.role), ..new };
    let mut write = app.store.write().await?;
    if !write.add_account(&account).await? {
        return Err(Problem::new(409, "exists", "There is a member of staff with this e-mail address").into());
    }
    let answer = invitation(&mut write, &staff, None, &account).await?;
    write.commit().await?;
    tracing::info!(
        account = account.id,
        by = staff.0.sub,
        role = role_text(account.role),
        "a member of staff was invited"
    );
    Ok(private_json(StatusCode::CREATED, &answer))
}

/// `before`: the account, if it was there.
async fn invitation<'a>(
    write: &mut Write,
    staff: &Staff,
    before: Option<&Account>,
    account: &'a Account,
) -> Result<Invited<'a>, ApiError> {
    let Invitation { invitation, ends_at, .. } = accounts::invitation(write, account, INVITATION_MS).await?;
    // Nobody's document has changed; but a note has the number of its write, and a write has one by its purge.
    revoke(write, &[viewer_key(&account.id)], "invited", &staff.0.sub).await?;
    note(write, staff, &["invite"], before, Some(account)).await?;
    Ok(Invited { account: view(account), invitation, invitation_ends_at: ends_at })
}

/// For whoever lost the first one, or the password. An earlier invitation is void.
async fn invite_again(kind: Kind, State(app): State<App>, staff: Staff, Segment(id): Segment) -> ApiResult {
    staff.at_least(StaffRole::Admin)?;
    let mut write = app.store.write().await?;
    let account = write.account(kind, &id).await?.filter(|account| !account.banned).ok_or_else(absent)?;
    let answer = invitation(&mut write, &staff, Some(&account), &account).await?;
    write.commit().await?;
    tracing::info!(account = account.id, by = staff.0.sub, kind = kind.as_str(), "an account was invited again");
    Ok(private_json(StatusCode::CREATED, &answer))
}
