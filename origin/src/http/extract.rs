//! Extractors whose refusals are problem+json like every other error here.
use super::error::ApiError;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use kv_schemas::Problem;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// A body that is too large is read on for so many bytes and dropped, so that the refusal reaches a client that is
/// still sending; answered in the middle, it would see a broken connection instead.
const DRAINED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long a body may take, in all.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The whole body of at most `MAX` bytes, or why there is none.
pub struct Whole<const MAX: usize = { super::BODY_BYTES_MAX }>(pub Result<Bytes, Problem>);

impl<S: Send + Sync, const MAX: usize> FromRequest<S> for Whole<MAX> {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(gather(request.into_body(), MAX, |_| Ok(())).await))
    }
}

/// Reads a body to its end. `take` is asked for room for all that has been read so far, with each piece of it.
async fn gather(
    mut body: Body,
    bytes_max: usize,
    mut take: impl FnMut(usize) -> Result<(), Problem>,
) -> Result<Bytes, Problem> {
    let mut whole = Vec::new();
    let mut read = 0usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(400, "body-broken", "The body ended before its end"))?;
        let data = frame.into_data().unwrap_or_default();
        read = read.saturating_add(data.len());
        if read <= bytes_max {
            take(read)?;
            whole.extend_from_slice(&data);
        } else if read > DRAINED_BYTES_MAX {
            break;
        }
    }
    if read <= bytes_max {
        return Ok(whole.into());
    }
    Err(Problem::new(413, "body-too-large", "The body is larger than one call may be")
        .detail(format!("at most {bytes_max} bytes")))
}

/// The request with its body in memory, or why it does not get there: whoever sends slowly waits here, and takes nobody's
/// place meanwhile.
pub async fn received(
    request: Request,
    bytes_max: usize,
    take: impl FnMut(usize) -> Result<(), Problem>,
) -> Result<Request, Problem> {
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(BODY_TIMEOUT, gather(body, bytes_max, take)).await {
        Ok(body) => Ok(Request::from_parts(parts, Body::from(body?))),
        Err(_) => Err(Problem::new(408, "request-timeout", "The body did not come in time")
            .detail(format!("{} s from its head to its end", BODY_TIMEOUT.as_secs()))),
    }
}

/// What neither a database nor anything a viewer reads has a use for: PostgreSQL keeps no such text, and SQLite ends it there.
pub(super) const NUL_MESSAGE: &str = "must not contain U+0000";

/// Where in a JSON document, member names included, a U+0000 stands, as a JSON Pointer.
fn nul_in(value: &Value) -> Option<String> {
    let below = |step: &str, found: String| format!("/{}{found}", step.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(list) => {
            list.iter().enumerate().find_map(|(at, value)| Some(below(&at.to_string(), nul_in(value)?)))
        }
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            let found = if name.contains('\0') { Some(String::new()) } else { nul_in(value) };
            Some(below(name, found?))
        }),
        _ => None,
    }
}

/// A body's document, without a U+0000 in it.
pub fn document(bytes: &[u8]) -> Result<Value, Problem> {
    let value = serde_json::from_slice(bytes)
        .map_err(|error| Problem::new(400, "json-invalid", "The body is not JSON").detail(error.to_string()))?;
    match nul_in(&value) {
        None => Ok(value),
        Some(at) => Err(Problem::new(400, "body-invalid", "The body has faults").fault(at, NUL_MESSAGE)),
    }
}

/// The body as JSON of one form. Members it does not know are refused if the form says so, and those given twice always.
pub fn read_json<T: DeserializeOwned>(headers: &HeaderMap, body: Result<Bytes, Problem>) -> Result<T, Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = given.split(';').next().unwrap_or_default().trim();
    if !given.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(415, "media-type", "The body's media type is not taken here")
            .detail("send Content-Type: application/json"));
    }
    let body = body?;
    let read = serde_json::from_slice(&body).map_err(|error| {
        Problem::new(400, "json-invalid", "The body is not of this call's form").detail(error.to_string())
    })?;
    document(&body).map(|_| read)
}

/// What a path's parameters say.
pub async fn path_of<T: DeserializeOwned + Send>(parts: &mut Parts, state: &(impl Send + Sync)) -> Result<T, Problem> {
    let path = Path::<T>::from_request_parts(parts, state).await.map_err(|rejection| {
        Problem::new(400, "path-invalid", "The path is not valid").detail(rejection.body_text())
    })?;
    Ok(path.0)
}

/// Several parameters of a path, whose forms their reader sees to.
pub struct Segments<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Self(path_of(parts, state).await?))
    }
}

/// The one parameter of a path.
pub struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path: String = path_of(parts, state).await?;
        if path.contains('\0') {
            return Err(Problem::new(400, "path-invalid", "The path is not valid").detail(NUL_MESSAGE).into());
        }
        Ok(Self(path))
    }
}
