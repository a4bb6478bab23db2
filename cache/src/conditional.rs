//! Conditional requests: whether a client's validators match what is stored (RFC 9110 section 13).
use crate::fields::Fields;
use crate::policy::parse_date_ms;

/// RFC 9110 section 8.8.3.2: weak comparison looks at the opaque tags alone.
fn weakly_equal(a: &str, b: &str) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_string();
    opaque(a) == opaque(b)
}

/// Entity tags of a list; a comma inside the quotes belongs to the tag.
pub fn entity_tags(list: &str) -> Vec<&str> {
    let mut tags = Vec::new();
    let mut rest = list;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let weak = if rest.starts_with("W/") { 2 } else { 0 };
        let Some(quoted) = rest.get(weak..).filter(|tag| tag.starts_with('"')) else { break };
        let Some(close) = quoted.get(1..).and_then(|inner| inner.find('"')) else { break };
        let end = weak.saturating_add(close).saturating_add(2);
        let Some((tag, after)) = rest.split_at_checked(end) else { break };
        tags.push(tag);
        rest = after;
    }
    tags
}

/// Whether a GET or HEAD with these fields is answered 304 by a stored 200.
pub fn is_not_modified(request: &Fields, stored: &Fields) -> bool {
    // Section 13.1.3: "A recipient MUST ignore If-Modified-Since if the request contains an If-None-Match header
    // field".
    if let Some(list) = request.joined("if-none-match") {
        if list.trim() == "*" {
            return true;
        }
        let Some(etag) = stored.get("etag") else { return false };
        return entity_tags(&list).into_iter().any(|tag| weakly_equal(tag, etag.trim()));
    }
    // "A recipient MUST ignore the If-Modified-Since header field if the received field value is not a valid
    // HTTP-date, the field value has more than one member".
    let since = request.joined("if-modified-since").and_then(|value| parse_date_ms(&value));
    let modified = stored.get("last-modified").or(stored.get("date")).and_then(parse_date_ms);
    matches!((since, modified), (Some(since), Some(modified)) if modified <= since)
}

/// Fields that make a request conditional or partial: the cache sends its own.
pub const CONDITIONAL: [&str; 6] =
    ["if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "if-range", "range"];

/// RFC 9111 section 4.3.1: the validators a stored answer brings into the request that revalidates it.
pub fn validators(stored: &Fields) -> Vec<(String, String)> {
    let pair = |from: &str, to: &str| stored.get(from).map(|value| (to.to_string(), value.to_string()));
    pair("etag", "if-none-match").into_iter().chain(pair("last-modified", "if-modified-since")).collect()
}

/// RFC 9111 section 3.2: a 304's fields replace the stored ones, but for those that describe the stored body.
pub fn update_stored(stored: &Fields, not_modified: &Fields) -> Fields {
    const OF_THE_BODY: [&str; 5] =
        ["content-encoding", "content-type", "content-range", "content-length", "transfer-encoding"];
    let update = crate::policy::fields_to_store(not_modified);
    let mut merged = stored.clone();
    merged.retain(|name| OF_THE_BODY.contains(&name) || !update.has(name));
    for (name, value) in update.iter().filter(|(name, _)| !OF_THE_BODY.contains(name)) {
        merged.push(name, value);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(request: &[(&str, &str)], stored: &[(&str, &str)]) -> bool {
        is_not_modified(&request.iter().copied().collect(), &stored.iter().copied().collect())
    }

    #[test]
    fn if_none_match_compares_weakly_and_reads_lists() {
        let stored = [("etag", "\"a,b\"")];
        for hit in ["\"a,b\"", "W/\"a,b\"", "\"x\", \"a,b\"", "\"x\",W/\"a,b\"", "*"] {
            assert!(matches(&[("if-none-match", hit)], &stored), "{hit:?}");
        }
        for miss in ["\"a\"", "a,b", "", "\"a,b", "W/", "\"x\" \"y\""] {
            assert!(!matches(&[("if-none-match", miss)], &stored), "{miss:?}");
        }
        assert!(!matches(&[("if-none-match", "\"a\"")], &[]));
    }

    #[test]
    fn if_modified_since_counts_only_alone_and_only_as_a_date() {
        let stored = [("etag", "\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")];
        let since = ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(matches(&[since], &stored));
        assert!(!matches(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")], &stored));
        assert!(!matches(&[("if-modified-since", "yesterday")], &stored));
        assert!(!matches(&[since, ("if-none-match", "\"b\"")], &stored));
    }

    #[test]
    fn a_304_updates_all_but_what_describes_the_body() {
        let stored: Fields =
            [("etag", "\"a\""), ("content-type", "text/plain"), ("x", "1"), ("y", "1")].into_iter().collect();
        let update: Fields =
            [("etag", "\"a\""), ("content-type", "text/html"), ("x", "2"), ("connection", "z"), ("z", "9")]
                .into_iter()
                .collect();
        let merged = update_stored(&stored, &update);
        assert_eq!(
            (merged.get("content-type"), merged.get("x"), merged.get("y"), merged.get("z")),
            (Some("text/plain"), Some("2"), Some("1"), None)
        );
    }

    proptest! {
        #[test]
        fn any_list_is_read_without_panic(list in ".{0,100}") {
            entity_tags(&list);
        }
    }
}
