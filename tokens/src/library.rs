//! Signing, and verifying where the platform does not: jwt-compact, which nothing else here knows.
use crate::unverified::{Jwk, Jwks, Unverified};
use crate::{Addressed, Expect, KeyError, TokenError};
use base64ct::{Base64UrlUnpadded, Encoding};
use chrono::{DateTime, Utc};
use jwt_compact::alg::{Es256, SecretBytes};
use jwt_compact::jwk::JsonWebKey;
use jwt_compact::{Algorithm, AlgorithmExt, AlgorithmSignature, Claims, Header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;

type PrivateKey = <Es256 as Algorithm>::SigningKey;
type PublicKey = <Es256 as Algorithm>::VerifyingKey;
type Signature = <Es256 as Algorithm>::Signature;

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
        self.check()?;
        let secret = self.d.as_deref().map(|secret| self.decode(secret)).transpose()?;
        Ok(JsonWebKey::EllipticCurve {
            curve: Cow::Owned(self.crv.clone()),
            x: Cow::Owned(self.decode(&self.x)?),
            y: Cow::Owned(self.decode(&self.y)?),
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
    pub fn from_jwk(text: &str) -> Result<Self, KeyError> {
        let jwk: Jwk = serde_json::from_slice(text.as_bytes()).map_err(form)?;
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

impl KeySet {
    /// Reads a JWK Set. Keys of another type or without `kid` refuse the whole set: a key that is skipped silently
    /// would be found missing in the night.
    pub fn from_jwks(text: &str) -> Result<Self, KeyError> {
        let set: Jwks = serde_json::from_slice(text.as_bytes()).map_err(form)?;
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
    fn verify_until<C>(&self, token: &str, expect: Expect<'_>, now_s: u64) -> Result<(C, u64), TokenError>
    where
        C: DeserializeOwned + Addressed,
    {
        let token = Unverified::read(token)?;
        let (_, key) = self.keys.iter().find(|(name, _)| name == token.kid()).ok_or(TokenError::UnknownKey)?;
        let signature = Signature::try_from_slice(token.signature());
        let is_signed = signature.is_ok_and(|signature| Es256.verify_signature(&signature, key, token.signed()));
        token.accept(is_signed, expect, now_s)
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

    /// Keys lie on disks, and tokens under way, from one release to the next; and edge and origin are not renewed together. Point
    /// and signature were computed by another program from RFC 6979 and the curve's equation.
    #[test]
    fn keys_and_tokens_are_written_as_they_always_were() {
        const PUBLIC: &str = r#""kid":"k","kty":"EC","crv":"P-256","x":"UVw9brnjlrkE0_7Kf1T9zQzB6Ze_N13KUVrQpsO0A18","y":"RTa-OlDzGPv5pUdZAqIhUCvvDVfgjFOyzApW8X2fk1Q""#;
        const SIGNED: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.eyJleHAiOjE3MDAwMDAwNjAsImlhdCI6MTcwMDAwMDAwMCwiaXNzIjoibmV4dHJlYW0tb3JpZ2luIiwiYXVkIjoibmV4dHJlYW0tYWRtaW4iLCJzdWIiOiJhZGEiLCJyb2xlIjoiZWRpdG9yIn0";
        const SIGNATURE: &str =
            "D1jF3w6cRv1P56UFlgU1K19HriiZVySWsLxo2CP_YZ-IujL1SdNBe5Ik9r478fqkokCDbEqvkyDWDIzDh_2YQQ";
        /// The same with n - s in place of s, which is as good (SEC 1 section 4.1.6).
        const OTHER_SIGNATURE: &str =
            "D1jF3w6cRv1P56UFlgU1K19HriiZVySWsLxo2CP_YZ93Rc0Jtiy-hW3bCUHEDgVbGqZ3QVxoC2QdrT3_dGWNEA";
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(1..).for_each(|(byte, n)| *byte = n);
        let key = SigningKey::from_random("k", &bytes).unwrap();
        let secret = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA";
        assert_eq!(key.to_jwk().unwrap(), format!(r#"{{{PUBLIC},"d":"{secret}","use":"sig","alg":"ES256"}}"#));
        assert_eq!(key.public_jwks().unwrap(), format!(r#"{{"keys":[{{{PUBLIC},"use":"sig","alg":"ES256"}}]}}"#));
        assert_eq!(key.sign(claims(), NOW_S, 60).unwrap(), format!("{SIGNED}.{SIGNATURE}"));
        for signature in [SIGNATURE, OTHER_SIGNATURE] {
            assert_eq!(verify(&key, &format!("{SIGNED}.{signature}"), NOW_S), Ok(claims()));
        }
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

    /// The library's own reading of a token.
    fn by_library(key: &SigningKey, token: &str) -> Option<AdminClaims> {
        let token = jwt_compact::UntrustedToken::new(token).ok().filter(|token| token.algorithm() == "ES256")?;
        token.header().key_id.as_deref().filter(|kid| *kid == key.kid)?;
        let public = *key.key.verifying_key();
        let token = Es256.validator::<AdminClaims>(&public).validate(&token).ok()?;
        Some(token.claims().custom.clone())
    }

    #[test]
    fn a_damaged_token_is_judged_as_the_library_judges_it() {
        let key = key("k");
        let token = key.sign(claims(), NOW_S, 60).unwrap();
        assert_eq!(by_library(&key, &token), Some(claims()));
        for place in 0..token.len() {
            for byte in [b'A', b'.', b'=', b'-', b'z', b'0'] {
                let mut bad = token.clone().into_bytes();
                bad[place] = byte;
                let bad = String::from_utf8(bad).unwrap();
                assert_eq!(verify(&key, &bad, NOW_S).ok(), by_library(&key, &bad), "{bad}");
                let short = &token[..place];
                assert_eq!(verify(&key, short, NOW_S).ok(), by_library(&key, short), "{short}");
            }
        }
    }

    #[test]
    fn the_platform_gets_the_point_the_library_has() {
        let key = key("k");
        let points = crate::public_points(&key.public_jwks().unwrap()).unwrap();
        let sec1 = key.key.verifying_key().to_encoded_point(false);
        assert_eq!(points, [crate::PublicPoint { kid: "k".into(), point: sec1.as_bytes().try_into().unwrap() }]);
        for (from, to) in [
            ("\"EC\"", "\"RSA\""),
            ("P-256", "P-384"),
            ("ES256", "ES384"),
            ("\"kid\"", "\"kit\""),
            ("\"x\":\"", "\"x\":\"AAAA"),
        ] {
            let other = key.public_jwks().unwrap().replace(from, to);
            assert!(crate::public_points(&other).is_err() && KeySet::from_jwks(&other).is_err(), "{other}");
        }
    }
}
