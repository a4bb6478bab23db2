//! Entity tags: the client API's are digests of the body, the admin API's are versions (RFC 9110 section 8.8, 13.1).
use axum::http::{HeaderMap, header};
use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

/// A strong entity tag for these bytes.
pub fn etag_of(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    format!("\"{}\"", Base64UrlUnpadded::encode_string(digest.get(..15).unwrap_or(&digest)))
}

/// The tag of a version of a title.
pub fn version_etag(version: i64) -> String {
    format!("\"v{version}\"")
}

/// Whether a list of tags, or `*`, names this one. `weak`: compare by weak comparison.
pub fn names(list: &str, etag: &str, weak: bool) -> bool {
    list.trim() == "*"
        || list.split(',').map(str::trim).any(|tag| tag == etag || (weak && tag.strip_prefix("W/") == Some(etag)))
}

/// Whether `If-None-Match` says that the client has this already.
pub fn client_has(headers: &HeaderMap, etag: &str) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok()).any(|list| names(list, etag, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_as_rfc_9110_wants() {
        assert!(names("\"a\", \"b\"", "\"b\"", false) && names("*", "\"b\"", false));
        assert!(names("W/\"b\"", "\"b\"", true) && !names("W/\"b\"", "\"b\"", false));
        assert!(!names("b", "\"b\"", true));
        assert_ne!(etag_of(b"a"), etag_of(b"b"));
    }
}
