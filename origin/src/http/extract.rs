//! Extractors whose refusals are problem+json like every other error here.
use crate::error::ApiError;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use kv_schemas::Problem;
use serde::de::DeserializeOwned;

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
