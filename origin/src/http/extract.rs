//! Extractors whose refusals are problem+json like every other error here.
use crate::error::ApiError;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use kv_schemas::Problem;
use serde::de::DeserializeOwned;

/// A body that is too large is read on for so many bytes and dropped, so that the refusal reaches a client that is
/// still sending; answered in the middle, it would see a broken connection instead.
const DRAINED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The whole body of at most `MAX` bytes, or why there is none.
pub struct Whole<const MAX: usize = { super::BODY_BYTES_MAX }>(pub Result<Bytes, Problem>);

impl<S: Send + Sync, const MAX: usize> FromRequest<S> for Whole<MAX> {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Self::Rejection> {
        let mut body = request.into_body();
        let mut whole = Vec::new();
        let mut read = 0usize;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Ok(Self(Err(Problem::new(400, "body-broken", "The body ended before its end"))));
            };
            let data = frame.into_data().unwrap_or_default();
            read = read.saturating_add(data.len());
            if read <= MAX {
                whole.extend_from_slice(&data);
            } else if read > DRAINED_BYTES_MAX {
                break;
            }
        }
        if read <= MAX {
            return Ok(Self(Ok(whole.into())));
        }
        Ok(Self(Err(Problem::new(413, "body-too-large", "The body is larger than one call may be")
            .detail(format!("at most {MAX} bytes")))))
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
    serde_json::from_slice(&body?).map_err(|error| {
        Problem::new(400, "json-invalid", "The body is not of this call's form").detail(error.to_string())
    })
}

/// Query parameters.
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, state).await.map_err(|rejection| {
            Problem::new(400, "query-invalid", "The query has faults").detail(rejection.body_text())
        })?;
        Ok(Self(query.0))
    }
}

/// The one parameter of a path.
pub struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await.map_err(|rejection| {
            Problem::new(400, "path-invalid", "The path is not valid").detail(rejection.body_text())
        })?;
        Ok(Self(path.0))
    }
}
