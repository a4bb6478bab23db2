//! Names of the header fields this system defines or leans on, in lower case as HTTP/2 writes them.

/// Origin to edge on cacheable answers, and admin write to client: the state that was read or written.
pub const SURROGATE_AS_OF: &str = "surrogate-as-of";
/// Client to edge and edge to origin: the answer must be at least this new.
pub const MIN_AS_OF: &str = "min-as-of";
/// Origin to edge: space-separated keys the answer can be purged by.
pub const SURROGATE_KEY: &str = "surrogate-key";
/// The same, comma-separated, as other networks write it.
pub const CACHE_TAG: &str = "cache-tag";
/// The edge's policy as networks wrote it before RFC 9213; never passed on.
pub const SURROGATE_CONTROL: &str = "surrogate-control";
/// RFC 9213: the edge's own policy.
pub const CDN_CACHE_CONTROL: &str = "cdn-cache-control";
/// RFC 9211: how this answer was made.
pub const CACHE_STATUS: &str = "cache-status";
/// Fetch standard, section "Sec-Purpose": the edge, or a browser, asks ahead of viewers.
pub const SEC_PURPOSE: &str = "sec-purpose";
pub const PREFETCH: &str = "prefetch";

/// Content type of RFC 9457 errors.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Whether a response field is meant for caches of ours alone and must not reach a client.
pub fn is_internal(name: &str) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    is(SURROGATE_AS_OF) || is(SURROGATE_KEY) || is(CACHE_TAG) || is(SURROGATE_CONTROL) || is(CDN_CACHE_CONTROL)
}
