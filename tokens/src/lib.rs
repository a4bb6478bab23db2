//! ES256 tokens (RFC 7519, RFC 7518 section 3.4): signed by origin, verified by origin and at the edge.
//!
//! The algorithm belongs to the key: a token that names another one is refused before its signature is looked at.
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

use base64ct::{Base64UrlUnpadded, Encoding};
use chrono::{DateTime, Utc};
use jwt_compact::alg::{Es256, SecretBytes};
use jwt_compact::jwk::JsonWebKey;
use jwt_compact::{Algorithm, AlgorithmExt, Claims, Header, UntrustedToken};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

type PrivateKey = <Es256 as Algorithm>::SigningKey;
type PublicKey = <Es256 as Algorithm>::VerifyingKey;

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
    #[error("the token's claims are not of the form expected here")]
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

/// A private key with its name.
pub struct SigningKey {
    kid: String,
    key: PrivateKey,
}

/// Public keys by name, as a JWK Set (RFC 7517 section 5) gives them.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<(String, PublicKey)>,
}

/// A JWK (RFC 7517) as this system writes and reads it: EC, P-256 (RFC 7518 section 6.2). A form of our own, since the
/// library's knows every kind of key, which would be a tenth of the Worker.
#[derive(Serialize, Deserialize)]
struct Jwk {
    kid: String,
    kty: String,
    crv: String,
    x: String,
    y: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d: Option<String>,
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

impl Jwk {
    fn new(kid: &str, jwk: &JsonWebKey<'_>) -> Result<Self, KeyError> {
        let JsonWebKey::EllipticCurve { curve, x, y, secret } = jwk else {
            return Err(KeyError::Jwk("not an elliptic curve key".into()));
        };
        Ok(Self {
            kid: kid.into(),
            kty: "EC".into(),
            crv: curve.to_string(),
            x: Base64UrlUnpadded::encode_string(x),
            y: Base64UrlUnpadded::encode_string(y),
            d: secret.as_ref().map(|secret| Base64UrlUnpadded::encode_string(secret)),
            usage: Some("sig".into()),
            alg: Some("ES256".into()),
        })
    }

    /// The library's form, its coordinates decoded.
    fn key(&self) -> Result<JsonWebKey<'static>, KeyError> {
        if self.kty != "EC" || self.alg.as_deref().is_some_and(|alg| alg != "ES256") {
            return Err(KeyError::Jwk(format!("{} is not an EC key for ES256", self.kid)));
        }
        let decode = |text: &str| {
            Base64UrlUnpadded::decode_vec(text).map_err(|_| KeyError::Jwk(format!("{} is not base64url", self.kid)))
        };
        let secret = self.d.as_deref().map(decode).transpose()?;
        Ok(JsonWebKey::EllipticCurve {
            curve: Cow::Owned(self.crv.clone()),
            x: Cow::Owned(decode(&self.x)?),
            y: Cow::Owned(decode(&self.y)?),
            secret: secret.map(SecretBytes::owned),
        })
    }
}

fn form(error: impl std::fmt::Display) -> KeyError {
    KeyError::Jwk(error.to_string())
}

impl SigningKey {
    /// A key from 32 random bytes; `None` for the few values that are no P-256 scalar (draw again).
    pub fn from_random(kid: impl Into<String>, bytes: &[u8; 32]) -> Option<Self> {
        let key = <PrivateKey as jwt_compact::alg::SigningKey<Es256>>::from_slice(bytes).ok()?;
        Some(Self { kid: kid.into(), key })
    }

    /// Reads a private JWK. Keep the text secret.
    pub fn from_jwk(json: &str) -> Result<Self, KeyError> {
        let jwk: Jwk = serde_json::from_slice(json.as_bytes()).map_err(form)?;
        let key = PrivateKey::try_from(&jwk.key()?).map_err(form)?;
        Ok(Self { kid: jwk.kid, key })
    }

    /// The private JWK. Keep it secret.
    pub fn to_jwk(&self) -> Result<String, KeyError> {
        serde_json::to_string(&Jwk::new(&self.kid, &JsonWebKey::from(&self.key))?).map_err(form)
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half as a JWK Set of one key.
    pub fn public_jwks(&self) -> Result<String, KeyError> {
        let jwk = JsonWebKey::from(&self.key).to_verifying_key();
        serde_json::to_string(&Jwks { keys: vec![Jwk::new(&self.kid, &jwk)?] }).map_err(form)
    }

    /// Signs `claims`, valid from `now_s` for `lifetime_s` seconds.
    pub fn sign<C: Serialize>(&self, claims: C, now_s: u64, lifetime_s: u64) -> Result<String, TokenError> {
        let mut claims = Claims::new(claims);
        claims.issued_at = Some(time(now_s)?);
        claims.expiration = Some(time(now_s.saturating_add(lifetime_s))?);
        let header = Header::empty().with_key_id(self.kid.as_str());
        Es256.token(&header, &claims, &self.key).map_err(|_| TokenError::Claims)
    }
}

fn time(seconds: u64) -> Result<DateTime<Utc>, TokenError> {
    let seconds = i64::try_from(seconds).map_err(|_| TokenError::Claims)?;
    DateTime::from_timestamp(seconds, 0).ok_or(TokenError::Claims)
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

impl KeySet {
    /// Reads a JWK Set. Keys of another type or without `kid` refuse the whole set: a key that is skipped silently
    /// would be found missing in the night.
    pub fn from_jwks(json: &str) -> Result<Self, KeyError> {
        let set: Jwks = serde_json::from_slice(json.as_bytes()).map_err(form)?;
        let mut keys = Vec::with_capacity(set.keys.len());
        for jwk in set.keys {
            let key = PublicKey::try_from(&jwk.key()?).map_err(form)?;
            keys.push((jwk.kid, key));
        }
        Ok(Self { keys })
    }

    /// Verifies signature, times, issuer and audience, in that order, and returns the claims.
    pub fn verify<C>(&self, token: &str, expect: Expect<'_>, now_s: u64) -> Result<C, TokenError>
    where
        C: DeserializeOwned + Addressed,
    {
        self.verify_until(token, expect, now_s).map(|(claims, _)| claims)
    }

    /// The same for who remembers the outcome: with the second from which on the token is refused as expired.
    pub fn verify_until<C>(&self, token: &str, expect: Expect<'_>, now_s: u64) -> Result<(C, u64), TokenError>
    where
        C: DeserializeOwned + Addressed,
    {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let token = UntrustedToken::new(token).map_err(|_| TokenError::Malformed)?;
        if token.algorithm() != "ES256" {
            return Err(TokenError::Algorithm);
        }
        let kid = token.header().key_id.as_deref().ok_or(TokenError::UnknownKey)?;
        let (_, key) = self.keys.iter().find(|(name, _)| name == kid).ok_or(TokenError::UnknownKey)?;
        let token = Es256.validator::<C>(key).validate(&token).map_err(|error| match error {
            jwt_compact::ValidationError::MalformedClaims(_) => TokenError::Claims,
            _ => TokenError::Signature,
        })?;
        let (_, claims) = token.into_parts();
        let ends_s = check_times(&claims, expect.lifetime_s_max, now_s)?;
        if claims.custom.issuer() != expect.issuer || claims.custom.audience() != expect.audience {
            return Err(TokenError::Audience);
        }
        Ok((claims.custom, ends_s))
    }
}

/// The second from which on the token is refused.
fn check_times<C>(claims: &Claims<C>, lifetime_s_max: u64, now_s: u64) -> Result<u64, TokenError> {
    let seconds = |time: &DateTime<Utc>| u64::try_from(time.timestamp()).unwrap_or(0);
    let expires_s = claims.expiration.as_ref().map(seconds).ok_or(TokenError::Expired)?;
    let issued_s = claims.issued_at.as_ref().map(seconds).ok_or(TokenError::Claims)?;
    let starts_s = claims.not_before.as_ref().map_or(issued_s, seconds).max(issued_s);
    let ends_s = expires_s.saturating_add(LEEWAY_S);
    if now_s >= ends_s {
        return Err(TokenError::Expired);
    }
    if now_s.saturating_add(LEEWAY_S) < starts_s {
        return Err(TokenError::NotYet);
    }
    if expires_s.saturating_sub(issued_s) > lifetime_s_max {
        return Err(TokenError::TooLong);
    }
    Ok(ends_s)
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

#[cfg(test)]
mod tests {
    use super::*;
    use kv_schemas::claims::{AUDIENCE_ADMIN, AUDIENCE_EDGE, AdminClaims, ISSUER, StaffRole};

    const NOW_S: u64 = 1_700_000_000;
    const EXPECT: Expect<'static> = Expect { issuer: ISSUER, audience: AUDIENCE_ADMIN, lifetime_s_max: 600 };

    fn key(name: &str) -> SigningKey {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).unwrap();
        SigningKey::from_random(name, &bytes).unwrap()
    }

    fn claims() -> AdminClaims {
        AdminClaims {
            iss: ISSUER.into(),
            aud: AUDIENCE_ADMIN.into(),
            sub: "ada".into(),
            role: StaffRole::Editor,
            sid: None,
            as_of: None,
        }
    }

    fn verify(key: &SigningKey, token: &str, now_s: u64) -> Result<AdminClaims, TokenError> {
        KeySet::from_jwks(&key.public_jwks().unwrap()).unwrap().verify(token, EXPECT, now_s)
    }

    #[test]
    fn a_signed_token_verifies_until_it_expires() {
        let key = key("k");
        let token = key.sign(claims(), NOW_S, 60).unwrap();
        assert_eq!(verify(&key, &token, NOW_S), Ok(claims()));
        assert_eq!(verify(&key, &token, NOW_S + 64), Ok(claims()));
        assert_eq!(verify(&key, &token, NOW_S + 65), Err(TokenError::Expired));
        assert_eq!(verify(&key, &token, NOW_S - 6), Err(TokenError::NotYet));
        let keys = KeySet::from_jwks(&key.public_jwks().unwrap()).unwrap();
        let (_, ends_s) = keys.verify_until::<AdminClaims>(&token, EXPECT, NOW_S).unwrap();
        assert_eq!(ends_s, NOW_S + 65);
    }

    #[test]
    fn keys_survive_their_text() {
        let key = key("k");
        let again = SigningKey::from_jwk(&key.to_jwk().unwrap()).unwrap();
        assert_eq!(verify(&key, &again.sign(claims(), NOW_S, 60).unwrap(), NOW_S), Ok(claims()));
        assert!(!key.public_jwks().unwrap().contains("\"d\""), "the public half must not carry the private one");
    }

    #[test]
    fn a_key_of_the_same_name_is_not_the_same_key() {
        let token = key("k").sign(claims(), NOW_S, 60).unwrap();
        assert_eq!(verify(&key("k"), &token, NOW_S), Err(TokenError::Signature));
        assert_eq!(verify(&key("other"), &token, NOW_S), Err(TokenError::UnknownKey));
    }

    #[test]
    fn audience_issuer_and_lifetime_are_checked() {
        let key = key("k");
        let for_edge = AdminClaims { aud: AUDIENCE_EDGE.into(), ..claims() };
        let by_other = AdminClaims { iss: "other".into(), ..claims() };
        for wrong in [for_edge, by_other] {
            assert_eq!(verify(&key, &key.sign(wrong, NOW_S, 60).unwrap(), NOW_S), Err(TokenError::Audience));
        }
        assert_eq!(verify(&key, &key.sign(claims(), NOW_S, 601).unwrap(), NOW_S), Err(TokenError::TooLong));
    }

    #[test]
    fn other_algorithms_and_shapes_are_refused() {
        let key = key("k");
        let token = key.sign(claims(), NOW_S, 60).unwrap();
        let body = token.split_once('.').unwrap().1;
        // {"alg":"none","kid":"k"} and {"alg":"HS256","kid":"k"}
        for header in ["eyJhbGciOiJub25lIiwia2lkIjoiayJ9", "eyJhbGciOiJIUzI1NiIsImtpZCI6ImsifQ"] {
            assert_eq!(verify(&key, &format!("{header}.{body}"), NOW_S), Err(TokenError::Algorithm));
        }
        for bad in ["", ".", "..", "a.b.c", &"x".repeat(5000), &token[..token.len() - 2]] {
            assert!(verify(&key, bad, NOW_S).is_err(), "{bad:?}");
        }
        let (rest, signature) = token.rsplit_once('.').unwrap();
        assert!(verify(&key, &format!("{rest}A.{signature}"), NOW_S).is_err());
    }
}
