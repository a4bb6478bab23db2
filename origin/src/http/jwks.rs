//! The public keys that verify this service's tokens (RFC 7517), as a document the edge keeps like any other.
use super::answers::{as_of_field, newest_snapshot};
use super::conditional::{client_has, etag_of};
use super::spec::{Api, Op, text};
use super::{ApiResult, App};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use kv_schemas::header::{CDN_CACHE_CONTROL, SURROGATE_KEY};
use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder};

/// What a rotation purges.
pub const KEY: &str = "jwks";
/// How long the document is fresh. A new key signs later than that after it was published, so that even a cache that heard
/// of no purge has it by then.
pub const MAX_AGE_S: u64 = 300;

pub fn api() -> Api {
    let op = Op::new("accounts", "The public keys that verify this service's tokens (RFC 7517)")
        .field("Min-As-Of", text(), "The answer must be at least this new")
        .answer_as(200, "A JWK Set", MEDIA, ObjectBuilder::new().property("keys", ArrayBuilder::new()).into())
        .empty(304, "The client has it already")
        .problems(&[(400, "The request has faults, each named")]);
    Api::new().add(HttpMethod::Get, "/.well-known/jwks.json", get(jwks), op)
}

const MEDIA: &str = "application/jwk-set+json";

async fn jwks(State(app): State<App>, headers: HeaderMap) -> ApiResult {
    // In this order: a rotation writes the keys, then logs its purge, so whoever sees the purge sees the keys.
    let as_of = newest_snapshot(&app, &headers).await?.as_of;
    let body = app.keys.jwks();
    let field = |value: &str| HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""));
    let etag = etag_of(body.as_bytes());
    let fields = [
        (header::CACHE_CONTROL, field(&format!("public, max-age={MAX_AGE_S}"))),
        (
            HeaderName::from_static(CDN_CACHE_CONTROL),
            field(&format!("max-age={MAX_AGE_S}, stale-while-revalidate=60, stale-if-error=86400")),
        ),
        (HeaderName::from_static(SURROGATE_KEY), HeaderValue::from_static(KEY)),
        as_of_field(&as_of),
        (header::ETAG, field(&etag)),
    ];
    if client_has(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, fields).into_response());
    }
    let media = [(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA))];
    Ok((fields, media, body).into_response())
}
