//! Who is speaking: bearer tokens signed by this service, one audience for staff and one for viewers, and the sessions they
//! were issued for. A token of one is nothing to the other.
use super::App;
use super::access_log::note_actor;
use super::error::ApiError;
use crate::keys::{EXPECT_ADMIN, EXPECT_VIEWER};
use crate::moment;
use crate::store::accounts::{Account, Kind};
use crate::store::{Snapshot, Write};
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use kv_schemas::Problem;
use kv_schemas::claims::{AdminClaims, StaffRole, ViewerClaims};
use serde::de::DeserializeOwned;
use tokens::{Addressed, Expect};

/// The claims of the request's one bearer token.
pub fn bearer<C: DeserializeOwned + Addressed>(
    app: &App,
    headers: &HeaderMap,
    expect: Expect<'_>,
) -> Result<C, ApiError> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let field = fields.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, token) = field.split_once(' ').unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Problem::new(401, "token-missing", "Send Authorization: Bearer with a token").into());
    }
    if fields.next().is_some() {
        // Two readers could take two of them for true.
        return Err(Problem::new(401, "token-refused", "The token was refused")
            .detail("Authorization must be given once")
            .into());
    }
    let claims = app.keys.verify(token.trim(), expect);
    Ok(claims.map_err(|error| Problem::new(401, "token-refused", "The token was refused").detail(error.to_string()))?)
}

/// The session a token was issued for is over, or its account is.
pub fn revoked() -> ApiError {
    Problem::new(401, "token-revoked", "The session is over; log in again").into()
}

/// A verified member of staff.
pub struct Staff(pub AdminClaims);

impl Staff {
    /// Refuses whoever has a lower role.
    pub fn at_least(&self, role: StaffRole) -> Result<(), ApiError> {
        if self.0.role >= role {
            return Ok(());
        }
        let needed = format!("{role:?}").to_lowercase();
        Err(Problem::new(403, "role", "Your role does not allow this")
            .detail(format!("needs the role {needed}"))
            .into())
    }
}

impl FromRequestParts<App> for Staff {
    type Rejection = ApiError;

    /// A token with a session counts as long as that does, with the role its account has now; one made at the command line
    /// counts by itself.
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let mut claims: AdminClaims = bearer(app, &parts.headers, EXPECT_ADMIN)?;
        if let Some(sid) = &claims.sid {
            let mut snapshot = app.store.snapshot().await?;
            let account = snapshot.account_in_session(Kind::Staff, &claims.sub, sid, moment()).await?;
            claims.role = account.and_then(|account| account.role).ok_or_else(revoked)?;
        }
        note_actor(&claims.sub);
        Ok(Self(claims))
    }
}

/// A viewer's verified token. Whether its session still is, the database says: ask for the account.
pub struct ViewerToken(pub ViewerClaims);

impl ViewerToken {
    pub fn verify(app: &App, headers: &HeaderMap) -> Result<Self, ApiError> {
        let claims: ViewerClaims = bearer(app, headers, EXPECT_VIEWER)?;
        note_actor(&claims.sub);
        Ok(Self(claims))
    }

    pub async fn account(&self, snapshot: &mut Snapshot) -> Result<Account, ApiError> {
        let account = snapshot.account_in_session(Kind::Viewer, &self.0.sub, &self.0.sid, moment()).await?;
        account.ok_or_else(revoked)
    }

    pub async fn account_to_write(&self, write: &mut Write) -> Result<Account, ApiError> {
        let account = write.account_in_session(Kind::Viewer, &self.0.sub, &self.0.sid, moment()).await?;
        account.ok_or_else(revoked)
    }

    /// The account, in a write.
    pub async fn to_write(&self, app: &App) -> Result<(Write, Account), ApiError> {
        in_session(app, Kind::Viewer, &self.0.sub, &self.0.sid).await
    }
}

/// The account of a session, in a write. Looked for in a snapshot before: a session that is over takes nobody's turn at the writer.
pub async fn in_session(app: &App, kind: Kind, sub: &str, sid: &str) -> Result<(Write, Account), ApiError> {
    if app.store.snapshot().await?.account_in_session(kind, sub, sid, moment()).await?.is_none() {
        return Err(revoked());
    }
    let mut write = app.store.write().await?;
    let account = write.account_in_session(kind, sub, sid, moment()).await?;
    Ok((write, account.ok_or_else(revoked)?))
}

impl FromRequestParts<App> for ViewerToken {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        Self::verify(app, &parts.headers)
    }
}
