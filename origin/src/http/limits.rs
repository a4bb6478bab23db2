//! What a client is told of limits: 429 with `Retry-After`, and the fields of draft-ietf-httpapi-ratelimit-headers.
use super::error::problem_response;
use crate::auth::throttle::{FORGET_MS, Throttle, Wait};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use kv_schemas::Problem;

/// Too many attempts under a policy.
pub fn too_often(policy: Throttle, Wait(wait_s): Wait) -> Response {
    let problem = Problem::new(429, "too-many-attempts", "Too many attempts; wait before the next one")
        .detail(format!("try again in {wait_s} s"));
    let mut response = problem_response(&problem);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&wait_s.to_string()) {
        headers.insert(header::RETRY_AFTER, value);
    }
    limit_fields(headers, policy, 0, Some(wait_s));
    response
}

/// What holds, what is left, and when there is more.
pub fn limit_fields(headers: &mut HeaderMap, policy: Throttle, left: u32, reset_s: Option<u64>) {
    let reset = reset_s.map(|reset_s| format!(";t={reset_s}")).unwrap_or_default();
    for (name, value) in [
        ("ratelimit-policy", format!("\"{}\";q={};w={}", policy.name, policy.free, FORGET_MS / 1000)),
        ("ratelimit", format!("\"{}\";r={left}{reset}", policy.name)),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}
