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

/// What a refusal says first of a list in which not all are tags: without its quotes one looks as if it matched.
pub fn said_of(list: &str) -> String {
    unquoted(list).map_or_else(String::new, |tag| format!("{tag} is no entity tag, which stands in quotes; "))
}

fn unquoted(list: &str) -> Option<&str> {
    let is_tag = |tag: &&str| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        *tag == *"*" || tag.len() > 1 && tag.starts_with('"') && tag.ends_with('"')
    };
    list.split(',').map(str::trim).find(|tag| !tag.is_empty() && !is_tag(tag))
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
        assert_eq!(unquoted("\"a\", W/\"b\""), None);
        assert_eq!(
            [unquoted("*"), unquoted(""), unquoted("\"a\", v1"), unquoted("\"")],
            [None, None, Some("v1"), Some("\"")]
        );
        assert_ne!(etag_of(b"a"), etag_of(b"b"));
    }
}
