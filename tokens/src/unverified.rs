//! A token before its signature was looked at, for whoever verifies that: origin with the library (`KeySet`), the edge
//! with the platform's own cryptography. Everything else about a token is judged here, so that both judge it alike.
use crate::{Addressed, Expect, KeyError, LEEWAY_S, TOKEN_BYTES_MAX, TokenError};
use base64ct::{Base64UrlUnpadded, Encoding};
use kv_schemas::json;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A compact JWS (RFC 7515 section 7.1) that names ES256 and a key.
#[derive(Debug)]
pub struct Unverified<'a> {
    kid: String,
    signed: &'a str,
    signature: Vec<u8>,
    claims: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    cty: Option<String>,
}

/// RFC 7519 section 4.1, as this system writes them: whole seconds.
#[derive(Deserialize)]
struct Times {
    exp: Option<u64>,
    iat: Option<u64>,
    nbf: Option<u64>,
}

impl<'a> Unverified<'a> {
    pub fn read(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let decode = |part| Base64UrlUnpadded::decode_vec(part).map_err(|_| TokenError::Malformed);
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header: Header = json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed)?;
        let (claims, signature) = (decode(claims)?, decode(signature)?);
        if header.cty.is_some_and(|content| !content.eq_ignore_ascii_case("json")) {
            return Err(TokenError::Malformed);
        }
        if header.alg != "ES256" {
            return Err(TokenError::Algorithm);
        }
        let kid = header.kid.ok_or(TokenError::UnknownKey)?;
        Ok(Self { kid, signed, signature, claims })
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
        &self.signature
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
        let times = json::from_slice::<Times>(&self.claims).map_err(|_| TokenError::Claims)?;
        let claims = json::from_slice::<C>(&self.claims).map_err(|_| TokenError::Claims)?;
        let ends_s = times.check(expect.lifetime_s_max, now_s)?;
        if claims.issuer() != expect.issuer || claims.audience() != expect.audience {
            return Err(TokenError::Audience);
        }
        Ok((claims, ends_s))
    }
}

impl Times {
    /// The second from which on the token is refused.
    fn check(&self, lifetime_s_max: u64, now_s: u64) -> Result<u64, TokenError> {
        let expires_s = self.exp.ok_or(TokenError::Expired)?;
        let issued_s = self.iat.ok_or(TokenError::Claims)?;
        let starts_s = self.nbf.unwrap_or(issued_s).max(issued_s);
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
    let set: Jwks = json::from_slice(jwks.as_bytes()).map_err(|error| KeyError::Jwk(error.to_string()))?;
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
