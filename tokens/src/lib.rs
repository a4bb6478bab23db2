//! ES256 tokens (RFC 7519, RFC 7518 section 3.4): signed by origin, verified by origin and at the edge.
//!
//! The algorithm belongs to the key: a token that names another one is refused before its signature is looked at. What a token
//! says is read and judged in `unverified`, for both; signatures are made and verified by the library (`library`, a
//! feature, which the edge leaves out: there the platform verifies them).
//! `now` is always an argument, in seconds since 1970, since the edge must not ask the system for it. What the claims
//! mean is defined in `kv_schemas::claims`; whether they fit is the caller's to check, by [`Expect`].
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]

#[cfg(feature = "library")]
mod library;
mod unverified;

#[cfg(feature = "library")]
pub use library::{KeySet, SigningKey};
pub use unverified::{PublicPoint, Unverified, public_points};

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// How far the clocks of signer and verifier may lie apart, in seconds.
pub const LEEWAY_S: u64 = 5;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is not a well-formed JWT")]
    Malformed,
    #[error("the token's key is not known here")]
    UnknownKey,
    #[error("the token's algorithm is not ES256")]
    Algorithm,
    #[error("the token's signature does not verify")]
    Signature,
    #[error("the token's claims are not those of a token for this use")]
    Claims,
    #[error("the token was issued by or for somebody else")]
    Audience,
    #[error("the token has expired, or says no time of expiry")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token would live longer than this use allows")]
    TooLong,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("not a JSON Web Key of type EC, curve P-256, with a kid: {0}")]
    Jwk(String),
}

/// What a verifier demands of a token besides a good signature.
#[derive(Clone, Copy, Debug)]
pub struct Expect<'a> {
    pub issuer: &'a str,
    pub audience: &'a str,
    /// Longest time between issue and expiry, in seconds.
    pub lifetime_s_max: u64,
}

/// Claims whose issuer and audience can be compared.
pub trait Addressed {
    fn issuer(&self) -> &str;
    fn audience(&self) -> &str;
}

impl Addressed for kv_schemas::claims::EdgeClaims {
    fn issuer(&self) -> &str {
        &self.iss
    }
    fn audience(&self) -> &str {
        &self.aud
    }
}

impl Addressed for kv_schemas::claims::ViewerClaims {
    fn issuer(&self) -> &str {
        &self.iss
    }
    fn audience(&self) -> &str {
        &self.aud
    }
}

impl Addressed for kv_schemas::claims::AdminClaims {
    fn issuer(&self) -> &str {
        &self.iss
    }
    fn audience(&self) -> &str {
        &self.aud
    }
}
