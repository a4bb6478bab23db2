//! Who somebody is: accounts, passwords, sessions and their tokens, and how often one may guess. Knows no HTTP and no SQL.
//!
//! Nothing here may tell an account that exists from one that does not: the same work is done for both.
pub mod accounts;
pub mod email;
pub mod password;
pub mod secret;
pub mod throttle;

use crate::keys::{KeyError, Keys, admin_claims};
use crate::store::accounts::{Account, Kind, Session};
use kv_schemas::AsOf;
use kv_schemas::claims::{AUDIENCE_VIEWER, AdminClaims, ISSUER, StaffRole, ViewerClaims};
use kv_schemas::edge_secret::EdgeSecret;
use password::Hasher;
use std::net::IpAddr;
use throttle::{Throttle, Throttles};

/// Life of an access token, in seconds: how long at most a claim outlives its change where the edge cannot be told.
pub const ACCESS_LIFETIME_S: u64 = 10 * 60;
/// A session that is not refreshed for so long is over.
pub const IDLE_MS_MAX: i64 = 30 * 24 * 3600 * 1000;
/// Staff log in again after a day away.
pub const STAFF_IDLE_MS_MAX: i64 = 24 * 3600 * 1000;
/// No session outlives this, however often it is refreshed.
pub const SESSION_MS_MAX: i64 = 365 * 24 * 3600 * 1000;
pub const STAFF_SESSION_MS_MAX: i64 = 30 * 24 * 3600 * 1000;
/// Devices of one account; the one used longest ago makes room.
pub const SESSIONS_MAX: usize = 20;
/// How long an invitation may be taken up.
pub const INVITATION_MS: i64 = 3 * 24 * 3600 * 1000;

/// What the auth service keeps in memory.
pub struct Auth {
    pub hasher: Hasher,
    pub throttles: Throttles,
    /// Shared with the edge, which proves with it what it says of a request. Any of them is believed: while one takes the
    /// place of another, edges have the one or the other. None: everybody who reaches this service is believed.
    pub edge_secrets: Vec<EdgeSecret>,
    /// What becomes of requests that say something of their viewer without proof. Without a secret there is none.
    pub unproven: Unproven,
}

/// Whether what is said of a viewer is believed without the edge's proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Unproven {
    /// No.
    #[default]
    Refused,
    /// Yes, and counted: until every edge has the secret, and says so.
    Counted,
}

impl Auth {
    pub fn new(hasher: Hasher, edge_secrets: Vec<EdgeSecret>) -> Self {
        Self { hasher, throttles: Throttles::default(), edge_secrets, unproven: Unproven::default() }
    }

    /// Where a request comes from, as a name to count attempts under. The edge says so and can show that it is the edge;
    /// nobody else is believed, so all who come past it are one. Nothing without a secret: the connection's other end is an
    /// edge for all viewers alike, and counting those together would lock everybody out.
    pub fn origin_of(&self, field: Option<&str>) -> Option<String> {
        if self.edge_secrets.is_empty() {
            return None;
        }
        let now_s = crate::now_ms() / 1000;
        let address =
            field.and_then(|field| self.edge_secrets.iter().find_map(|secret| secret.open_client(field, now_s)));
        Some(address.map_or_else(|| "past the edge".into(), address_key))
    }

    /// Whether what a request's fields say of its viewer is an edge's word. Without a secret nobody can tell, and everything is.
    pub fn is_viewer_proven<'a>(&self, field: impl Fn(&str) -> Option<&'a str> + Copy) -> bool {
        let now_s = crate::now_ms() / 1000;
        self.edge_secrets.is_empty() || self.edge_secrets.iter().any(|secret| secret.proves_viewer(field, now_s))
    }
}

/// A session's beginning for an account, at a moment.
pub fn new_session(account: &Account, device: String, now_ms: i64) -> Result<Session, secret::NoRandomness> {
    let (idle_ms, whole_ms) = lifetimes(account.kind);
    let end_ms = now_ms.saturating_add(whole_ms);
    Ok(Session {
        id: secret::new_id()?,
        account_id: account.id.clone(),
        device,
        created_ms: now_ms,
        used_ms: now_ms,
        idle_end_ms: now_ms.saturating_add(idle_ms).min(end_ms),
        end_ms,
        generation: 1,
    })
}

/// The session after a refresh.
pub fn refreshed(session: &Session, kind: Kind, now_ms: i64) -> Session {
    Session {
        used_ms: now_ms,
        idle_end_ms: now_ms.saturating_add(lifetimes(kind).0).min(session.end_ms),
        generation: session.generation.saturating_add(1),
        ..session.clone()
    }
}

fn lifetimes(kind: Kind) -> (i64, i64) {
    match kind {
        Kind::Viewer => (IDLE_MS_MAX, SESSION_MS_MAX),
        Kind::Staff => (STAFF_IDLE_MS_MAX, STAFF_SESSION_MS_MAX),
    }
}

/// An access token for a session, saying what was true at `as_of`.
pub fn access_token(keys: &Keys, account: &Account, sid: &str, as_of: AsOf) -> Result<String, KeyError> {
    match account.kind {
        Kind::Viewer => {
            let claims = ViewerClaims {
                iss: ISSUER.into(),
                aud: AUDIENCE_VIEWER.into(),
                sub: account.id.clone(),
                sid: sid.into(),
                as_of,
                plan: account.plan,
                maturity: account.maturity,
                locale: account.locale.clone(),
            };
            keys.sign(claims, ACCESS_LIFETIME_S)
        }
        Kind::Staff => {
            let role = account.role.unwrap_or(StaffRole::Viewer);
            let claims = AdminClaims { sid: Some(sid.into()), as_of: Some(as_of), ..admin_claims(&account.id, role) };
            keys.sign(claims, ACCESS_LIFETIME_S)
        }
    }
}

/// Which throttle an attempt counts for.
pub fn account_key(kind: Kind, email: &str) -> String {
    format!("{}:{email}", kind.as_str())
}

/// The part of an address that one subscriber has: IPv6 hosts pick among 2^64 of them.
fn address_key(address: IpAddr) -> String {
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.to_string(),
            None => {
                let [a, b, c, d, ..] = v6.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        },
        IpAddr::V4(v4) => v4.to_string(),
    }
}

/// Guesses at one account, from wherever they come. The wait is short, since a stranger can cause it.
pub const THROTTLE_ACCOUNT: Throttle = Throttle::new("login-account", 5, 60);
/// Guesses from one address, at whatever accounts.
pub const THROTTLE_ADDRESS: Throttle = Throttle::new("login-address", 30, 900);
/// Accounts made from one address.
pub const THROTTLE_REGISTER: Throttle = Throttle::new("register-address", 20, 900);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_subscriber_has_one_key_and_a_mapped_address_is_an_ipv4_one() {
        let key = |text: &str| address_key(text.parse().unwrap());
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), key("2001:db8:1:2::1"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    }
}
