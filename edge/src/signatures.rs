//! Public keys, and the signatures of tokens as the platform verifies them: its own cryptography is some forty times as fast
//! as any in Wasm, and no byte of the download. What else makes a token good is judged by `tokens::Unverified`.
use js_sys::{Array, JSON, Promise, Uint8Array};
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use tokens::{Addressed, Expect, KeyError, PublicPoint, TokenError, Unverified, public_points};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(catch, js_namespace = ["crypto", "subtle"], js_name = importKey)]
    fn import_key(
        format: &str,
        key: &Uint8Array,
        algorithm: &JsValue,
        extractable: bool,
        usages: &Array,
    ) -> Result<Promise, JsValue>;
    #[wasm_bindgen(catch, js_namespace = ["crypto", "subtle"], js_name = verify)]
    fn verify(
        algorithm: &JsValue,
        key: &JsValue,
        signature: &Uint8Array,
        signed: &Uint8Array,
    ) -> Result<Promise, JsValue>;
}

/// RFC 7518 section 3.4, in the platform's words.
const ES256: &str = r#"{"name":"ECDSA","namedCurve":"P-256","hash":"SHA-256"}"#;

#[derive(Debug)]
struct Key {
    public: PublicPoint,
    /// The platform's form of it, once it was asked for: plain data, good for every request.
    imported: RefCell<Option<JsValue>>,
}

/// Public keys by name.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
}

impl Key {
    /// An error if it is no point of the curve.
    async fn import(&self) -> Result<JsValue, JsValue> {
        let known = self.imported.try_borrow().ok().and_then(|imported| imported.clone());
        if let Some(known) = known {
            return Ok(known);
        }
        let point = Uint8Array::from(self.public.point.as_slice());
        let usages = Array::of1(&JsValue::from_str("verify"));
        let imported = JsFuture::from(import_key("raw", &point, &JSON::parse(ES256)?, false, &usages)?).await?;
        if let Ok(mut place) = self.imported.try_borrow_mut() {
            *place = Some(imported.clone());
        }
        Ok(imported)
    }

    async fn has_signed(&self, token: &Unverified<'_>) -> Result<bool, JsValue> {
        let key = self.import().await?;
        let (signature, signed) = (Uint8Array::from(token.signature()), Uint8Array::from(token.signed()));
        let verdict = JsFuture::from(verify(&JSON::parse(ES256)?, &key, &signature, &signed)?).await?;
        Ok(verdict.is_truthy())
    }
}

impl KeySet {
    /// Reads a JWK Set.
    pub fn from_jwks(text: &str) -> Result<Self, KeyError> {
        let keys = public_points(text)?.into_iter();
        Ok(Self { keys: keys.map(|public| Key { public, imported: RefCell::new(None) }).collect() })
    }

    /// Has the platform look at all of them: one that is none refuses the whole set.
    pub async fn checked(self) -> Result<Self, KeyError> {
        for key in &self.keys {
            let wrong = |_| KeyError::Jwk(format!("{} is no point of P-256", key.public.kid));
            key.import().await.map_err(wrong)?;
        }
        Ok(self)
    }

    pub fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.public.kid == kid)
    }

    /// Signature, times, issuer and audience, in that order; the claims, and from which second on the token is refused.
    pub async fn verify<C>(
        &self,
        token: &Unverified<'_>,
        expect: Expect<'_>,
        now_s: u64,
    ) -> Result<(C, u64), TokenError>
    where
        C: DeserializeOwned + Addressed,
    {
        let key = self.keys.iter().find(|key| key.public.kid == token.kid()).ok_or(TokenError::UnknownKey)?;
        // What the platform cannot verify is not signed.
        let is_signed = key.has_signed(token).await == Ok(true);
        token.accept(is_signed, expect, now_s)
    }
}
