//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header) on creates: the answer is kept in the transaction that
//! creates, with a digest of the request, so a client that did not hear it may ask again and is told the same. Only what
//! was done is kept; a refusal has changed nothing and comes out the same again.
use super::error::ApiError;
use crate::store::{KeptAnswer, Write};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use base64ct::{Base64UrlUnpadded, Encoding};
use kv_schemas::Problem;
use kv_schemas::header::SURROGATE_AS_OF;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

const KEY_CHARS_MAX: usize = 255;
/// Says that an answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Requests of this process that carry a key and are not done.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Mutex<HashSet<(String, String)>>>);

/// One request with a key. While it lives, another with the same key is refused.
pub struct Claim {
    actor: String,
    key: String,
    digest: String,
    in_flight: InFlight,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.in_flight.0.lock().unwrap_or_else(PoisonError::into_inner);
        claims.remove(&(self.actor.clone(), self.key.clone()));
    }
}

/// The key a request carries: a string as in RFC 8941, or plain.
fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let key = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    if key.is_empty() || key.len() > KEY_CHARS_MAX || !key.bytes().all(|b| b.is_ascii_graphic()) {
        let problem = Problem::new(400, "idempotency-key-invalid", "The Idempotency-Key is not valid");
        let says = format!("must be 1 to {KEY_CHARS_MAX} visible ASCII characters");
        return Err(problem.fault("Idempotency-Key", says));
    }
    Ok(Some(key.to_string()))
}

impl InFlight {
    /// `None`: the request carries no key.
    pub fn claim(
        &self,
        headers: &HeaderMap,
        actor: &str,
        target: &str,
        body: &Bytes,
    ) -> Result<Option<Claim>, Problem> {
        let Some(key) = key_of(headers)? else { return Ok(None) };
        let mut digest = Sha256::new();
        digest.update(target.as_bytes());
        digest.update([0]);
        digest.update(body);
        let digest = Base64UrlUnpadded::encode_string(&digest.finalize());
        let is_new = {
            let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            claims.insert((actor.to_string(), key.clone()))
        };
        if !is_new {
            return Err(Problem::new(409, "idempotency-in-flight", "A request with this Idempotency-Key is under way"));
        }
        Ok(Some(Claim { actor: actor.to_string(), key, digest, in_flight: self.clone() }))
    }
}

impl Claim {
    /// What was answered before, if it was.
    pub async fn answered(&self, write: &mut Write) -> Result<Option<Response<Body>>, ApiError> {
        let Some((digest, kept)) = write.kept_answer(&self.actor, &self.key).await? else { return Ok(None) };
        if digest != self.digest {
            let problem =
                Problem::new(422, "idempotency-key-reused", "This Idempotency-Key stands for another request");
            return Err(problem.detail("send another key with another request").into());
        }
        let mut response = Response::new(Body::from(kept.body));
        *response.status_mut() = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK);
        for (name, value) in kept.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
                response.headers_mut().insert(name, value);
            }
        }
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(Some(response))
    }

    /// Keeps an answer, in the write that makes it true.
    pub async fn keep(
        &self,
        write: &mut Write,
        status: StatusCode,
        headers: &HeaderMap,
        body: &str,
    ) -> Result<(), ApiError> {
        let wanted = [header::CONTENT_TYPE, header::CACHE_CONTROL, header::ETAG, header::LOCATION];
        let wanted = wanted.into_iter().chain([HeaderName::from_static(SURROGATE_AS_OF)]);
        let value = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(String::from);
        let headers = wanted.filter_map(|name| Some((name.to_string(), value(&name)?))).collect();
        let answer = KeptAnswer { status: status.as_u16(), headers, body: body.to_string() };
        write.keep_answer(&self.actor, &self.key, &self.digest, &answer).await?;
        Ok(())
    }
}
