//! A token before its signature was looked at, for whoever verifies that: origin with the library (`KeySet`), the edge
//! with the platform's own cryptography. Everything else about a token is judged here, so that both judge it alike.
use crate::{Addressed, Expect, KeyError, LEEWAY_S, TOKEN_BYTES_MAX, TokenError};
use base64ct::{Base64UrlUnpadded, Encoding};
use chrono::{DateTime, Utc};
use jwt_compact::{Claims, UntrustedToken};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A compact JWS (RFC 7515 section 7.1) that names ES256 and a key.
#[derive(Debug)]
pub struct Unverified<'a> {
    token: UntrustedToken<'a>,
    kid: String,
    signed: &'a str,
}

impl<'a> Unverified<'a> {
    pub fn read(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (signed, _) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let token = UntrustedToken::new(token).map_err(|_| TokenError::Malformed)?;
        if token.algorithm() != "ES256" {
            return Err(TokenError::Algorithm);
        }
        let kid = token.header().key_id.clone().ok_or(TokenError::UnknownKey)?;
        Ok(Self { token, kid, signed })
    }

    /// The name of the key it is to be verified with.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// What is signed.
    pub fn signed(&self) -> &[u8] {
        self.signed.as_bytes()
    }

    /// RFC 7518 section 3.4: R and S, 32 bytes each, if it is one at all.
    pub fn signature(&self) -> &[u8] {
        self.token.signature_bytes()
    }

    /// What the claims say, whoever wrote them: good for nothing but to choose by which terms they are judged.
    pub fn claims<C: DeserializeOwned>(&self) -> Option<C> {
        self.token.deserialize_claims_unchecked::<C>().ok().map(|claims| claims.custom)
    }

    /// The claims, if the signature is good and they are of the form and for the use expected; with the second from which
    /// on the token is refused as expired.
    pub fn accept<C>(&self, is_signed: bool, expect: Expect<'_>, now_s: u64) -> Result<(C, u64), TokenError>
    where
        C: DeserializeOwned + Addressed,
    {
        if !is_signed {
            return Err(TokenError::Signature);
        }
        let claims = self.token.deserialize_claims_unchecked::<C>().map_err(|_| TokenError::Claims)?;
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

/// A JWK (RFC 7517) as this system writes and reads it: EC, P-256 (RFC 7518 section 6.2). A form of our own, since the
/// library's knows every kind of key.
#[derive(Serialize, Deserialize)]
pub(crate) struct Jwk {
    pub kid: String,
    pub kty: String,
    pub crv: String,
    pub x: String,
    pub y: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub d: Option<String>,
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Jwks {
    pub keys: Vec<Jwk>,
}

impl Jwk {
    pub fn decode(&self, text: &str) -> Result<Vec<u8>, KeyError> {
        Base64UrlUnpadded::decode_vec(text).map_err(|_| KeyError::Jwk(format!("{} is not base64url", self.kid)))
    }

    pub fn check(&self) -> Result<(), KeyError> {
        let is_ours = self.kty == "EC" && self.crv == "P-256" && self.alg.as_deref().is_none_or(|alg| alg == "ES256");
        if is_ours { Ok(()) } else { Err(KeyError::Jwk(format!("{} is not an EC key for ES256", self.kid))) }
    }
}

/// A public key by name, as a point (SEC 1 section 2.3.3: uncompressed). Whether it lies on the curve is for whoever
/// verifies with it to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicPoint {
    pub kid: String,
    pub point: [u8; 65],
}

/// Reads a JWK Set (RFC 7517 section 5). Keys of another type or without `kid` refuse the whole set: a key that is skipped
/// silently would be found missing in the night.
pub fn public_points(jwks: &str) -> Result<Vec<PublicPoint>, KeyError> {
    let set: Jwks = serde_json::from_slice(jwks.as_bytes()).map_err(|error| KeyError::Jwk(error.to_string()))?;
    let point = |jwk: &Jwk| {
        jwk.check()?;
        let wrong = |_| KeyError::Jwk(format!("{} is no point of P-256", jwk.kid));
        let (x, y) = (jwk.decode(&jwk.x)?, jwk.decode(&jwk.y)?);
        // Each has its whole length (RFC 7518 section 6.2.1.2); together with no other length of both.
        let point = [&[4], <&[u8; 32]>::try_from(x.as_slice()).map_err(wrong)?.as_slice(), &y].concat();
        Ok(PublicPoint { kid: jwk.kid.clone(), point: point.as_slice().try_into().map_err(wrong)? })
    };
    set.keys.iter().map(point).collect()
}
