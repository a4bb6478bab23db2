//! Who may use the admin API: a bearer token signed by this service, with a role.
use super::App;
use crate::error::ApiError;
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use kv_schemas::Problem;
use kv_schemas::claims::{AUDIENCE_ADMIN, AdminClaims, ISSUER, StaffRole};
use tokens::Expect;

/// No admin token may live longer.
pub const TOKEN_LIFETIME_S_MAX: u64 = 30 * 24 * 3600;

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

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, token) = header.split_once(' ').unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Problem::new(401, "token-missing", "Send Authorization: Bearer with an admin token").into());
        }
        let expect = Expect { issuer: ISSUER, audience: AUDIENCE_ADMIN, lifetime_s_max: TOKEN_LIFETIME_S_MAX };
        let claims = app.keys.public.verify(token.trim(), expect, crate::now_ms() / 1000);
        let claims = claims
            .map_err(|error| Problem::new(401, "token-refused", "The token was refused").detail(error.to_string()))?;
        Ok(Self(claims))
    }
}
