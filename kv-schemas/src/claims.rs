//! What the tokens of this system say, besides `exp` and `iat`, which the JWT library keeps.
//!
//! All are ES256 (RFC 7518 section 3.4) with a `kid`. The algorithm belongs to the key, never to the token.
use crate::AsOf;
use crate::viewer::{Locale, Maturity, Plan};
use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// `iss` of every token origin signs.
pub const ISSUER: &str = "nextream-origin";
/// `aud` of tokens for `/__edge/*`.
pub const AUDIENCE_EDGE: &str = "nextream-edge";
/// `aud` of tokens for `/admin/*`.
pub const AUDIENCE_ADMIN: &str = "nextream-admin";

/// `aud` of viewers' access tokens.
pub const AUDIENCE_VIEWER: &str = "nextream-viewer";
/// Longest life of a viewer's access token that a verifier accepts, in seconds.
pub const VIEWER_LIFETIME_S_MAX: u64 = 15 * 60;

/// What a token for `/__edge/*` allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// One purge batch: `body_sha256` is required and the life is short.
    PurgeBatch,
    /// Purges by hand at an edge that keeps its own log.
    PurgeRequest,
    /// Reading how far purges have come.
    PurgeReceipt,
    /// Seeing `Surrogate-*` and the cache key on answers, and choosing the region.
    Debug,
    /// Reading metrics.
    Metrics,
    /// Having documents fetched ahead of viewers: `body_sha256` is required and the life is short.
    Warm,
}

impl Scope {
    /// Longest life of such a token that a verifier accepts, in seconds: one that is signed for one call is good for five minutes,
    /// a person's for a month.
    pub fn lifetime_s_max(self) -> u64 {
        match self {
            Self::PurgeBatch | Self::Warm => 300,
            Self::PurgeRequest | Self::PurgeReceipt | Self::Debug | Self::Metrics => 31 * 24 * 3600,
        }
    }
}

/// Claims of a token for `/__edge/*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeClaims {
    pub iss: String,
    pub aud: String,
    pub scope: Scope,
    /// SHA-256 of the request body, base64url without padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_sha256: Option<String>,
}

/// Staff roles, each including those above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StaffRole {
    Viewer,
    Editor,
    Admin,
}

/// Claims of a token for `/admin/*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminClaims {
    pub iss: String,
    pub aud: String,
    /// Who acts; stands in the purge log as `actor`.
    pub sub: String,
    pub role: StaffRole,
    /// The session it was issued for, and the purge log's state at that moment, as in [`ViewerClaims`]. Tokens made at
    /// the command line have none and live until they expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<AsOf>,
}

/// Claims of a viewer's access token.
///
/// Revoking is purging: a token is judged like a stored answer with the keys `user:<sub>` and `session:<sid>`, read at
/// `as_of`. A hard purge of one of them that is younger revokes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewerClaims {
    pub iss: String,
    pub aud: String,
    /// The user's id.
    pub sub: String,
    /// The session's id.
    pub sid: String,
    pub as_of: AsOf,
    pub plan: Plan,
    /// The highest age class this viewer may see.
    pub maturity: Maturity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<Locale>,
}

/// The digest `body_sha256` carries.
pub fn body_digest(body: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(&Sha256::digest(body))
}
