//! Conditional requests: whether a client's validators match what is stored (RFC 9110 section 13).
use crate::date::parse_date_ms;
use crate::fields::Fields;
use crate::policy::ResponseHead;

/// RFC 9110 section 8.8.3.2: weak comparison looks at the opaque tags alone.
fn weakly_equal(a: &str, b: &str) -> bool {
    fn opaque(tag: &str) -> &str {
        tag.strip_prefix("W/").unwrap_or(tag)
    }
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

/// RFC 9110 section 8.8.3.2: strong comparison wants both tags strong and equal.
pub fn strongly_equal(a: &str, b: &str) -> bool {
    let is_strong = |tag: &str| tag.starts_with('"') && tag.ends_with('"') && tag.len() > 1;
    is_strong(a.trim()) && a.trim() == b.trim()
}

/// RFC 9110 section 13.1.5: whether a `Range` counts for this answer. Without `If-Range` it does; with one it must
/// match strongly, or else the whole is wanted.
pub fn range_counts(request: &Fields, stored: &ResponseHead) -> bool {
    let Some(validator) = request.joined("if-range") else { return true };
    if validator.contains('"') {
        return stored.fields.get("etag").is_some_and(|etag| strongly_equal(&validator, etag));
    }
    // "A valid HTTP-date [...] exact match"; a date that may have seen two changes in its second is weak (section
    // 8.8.2.2), which a minute between it and Date rules out.
    let is_same = stored.fields.get("last-modified").is_some_and(|modified| modified.trim() == validator.trim());
    match (stored.date_ms("last-modified"), stored.date_ms("date")) {
        (Some(modified_ms), Some(date_ms)) => is_same && date_ms >= modified_ms.saturating_add(60_000),
        _ => false,
    }
}

/// Whether a GET or HEAD with these fields is answered 304 by this 200.
pub fn is_not_modified(request: &Fields, stored: &ResponseHead) -> bool {
    // Section 13.1.3: "A recipient MUST ignore If-Modified-Since if the request contains an If-None-Match header
    // field".
    if let Some(list) = request.joined("if-none-match") {
        if list.trim() == "*" {
            return true;
        }
        let Some(etag) = stored.fields.get("etag") else { return false };
        return entity_tags(&list).into_iter().any(|tag| weakly_equal(tag, etag.trim()));
    }
    // "A recipient MUST ignore the If-Modified-Since header field if the received field value is not a valid
    // HTTP-date, the field value has more than one member".
    let since = request.joined("if-modified-since");
    let Some(since_ms) = since.and_then(|since| parse_date_ms(&since, stored.response_time_ms)) else { return false };
    // RFC 9111 section 4.3.2: Last-Modified, else Date, else when it was received, "earlier or equal to the
    // conditional timestamp".
    let modified_ms = match stored.fields.get("last-modified") {
        Some(_) => stored.date_ms("last-modified"),
        None => Some(stored.date_ms("date").unwrap_or(stored.response_time_ms)),
    };
    modified_ms.is_some_and(|modified_ms| modified_ms <= since_ms)
}

/// Fields that make a request conditional or partial: the cache sends its own.
pub const CONDITIONAL: [&str; 6] =
    ["if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "if-range", "range"];

/// RFC 9111 section 4.3.5: whether the answer to a HEAD speaks of the stored body. Lengths alone prove nothing here: a
/// purge must not be undone by an answer that names no validator.
pub fn head_speaks_of(head: &Fields, stored: &Fields, body_bytes: u64) -> bool {
    let same = |name: &str| head.get(name).map(|value| stored.get(name) == Some(value));
    let validators = [same("etag"), same("last-modified")];
    let length = head.get("content-length").is_none_or(|length| length.trim().parse() == Ok(body_bytes));
    length && validators.contains(&Some(true)) && !validators.contains(&Some(false))
}

/// RFC 9111 section 4.3.1: the validators a stored answer brings into the request that revalidates it.
pub fn validators(stored: &Fields) -> Vec<(String, String)> {
    let pair = |from: &str, to: &str| stored.get(from).map(|value| (to.to_string(), value.to_string()));
    pair("etag", "if-none-match").into_iter().chain(pair("last-modified", "if-modified-since")).collect()
}

/// RFC 9111 section 4.3.4: a 304 with a strong validator speaks of the stored answers that have it, and if "none of the
/// initial set contains at least one of the same strong validators, then the cache MUST NOT use the new response to
/// update any stored responses". Weak ones only have to "correspond": the tags weakly, or where only the 304 has one, the
/// dates of the last change.
pub fn not_modified_speaks_of(not_modified: &Fields, stored: &Fields) -> bool {
    let Some(etag) = not_modified.get("etag") else { return true };
    match stored.get("etag") {
        Some(stored) if strongly_equal(etag, etag) => strongly_equal(stored, etag),
        Some(stored) => weakly_equal(stored.trim(), etag.trim()),
        None => {
            let modified = |fields: &Fields| fields.get("last-modified").map(|date| date.trim().to_string());
            let is_same = modified(stored).is_some_and(|date| modified(not_modified) == Some(date));
            is_same && !strongly_equal(etag, etag)
        }
    }
}

/// RFC 9111 section 3.2: a 304's fields replace the stored ones, but for those "necessary to ensure integrity of the
/// stored response": its bytes are kept in the coding and of the length they came in.
///
/// Section 4.2.3: "A response's age is the time that has passed since it was generated by, or successfully validated with,
/// the origin server." What the stored answer said of its age ended with that; without a date of the new answer's own,
/// the time it came at counts.
pub fn update_stored(stored: &Fields, not_modified: &Fields) -> Fields {
    const OF_THE_BODY: [&str; 4] = ["content-encoding", "content-range", "content-length", "transfer-encoding"];
    const OF_ITS_AGE: [&str; 2] = ["age", "date"];
    let update = crate::policy::fields_to_store(not_modified);
    let mut merged = stored.clone();
    merged.retain(|name| OF_THE_BODY.contains(&name) || !(update.has(name) || OF_ITS_AGE.contains(&name)));
    for (name, value) in update.iter().filter(|(name, _)| !OF_THE_BODY.contains(name)) {
        merged.push(name, value);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(fields: &[(&str, &str)]) -> ResponseHead {
        let then_ms = 784_111_777_000;
        let fields = fields.iter().copied().collect();
        ResponseHead { status: 200, fields, request_time_ms: then_ms, response_time_ms: then_ms }
    }

    fn matches(request: &[(&str, &str)], stored: &[(&str, &str)]) -> bool {
        is_not_modified(&request.iter().copied().collect(), &head(stored))
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
        assert!(matches(&[since], &[]), "received at that very time");
        assert!(matches(&[since], &[("date", "Sun, 06 Nov 1994 08:49:37 GMT")]));
        assert!(!matches(&[since], &[("date", "Sun, 06 Nov 1994 08:49:38 GMT")]));
        assert!(!matches(&[since], &[("last-modified", "some day")]));
    }

    #[test]
    fn a_range_counts_only_if_the_clients_part_is_of_the_same_body() {
        let counts = |if_range: &str, stored: &[(&str, &str)]| {
            range_counts(&[("if-range", if_range)].into_iter().collect(), &head(stored))
        };
        assert!(range_counts(&Fields::new(), &head(&[])));
        assert!(counts("\"a\"", &[("etag", "\"a\"")]));
        assert!(!counts("\"b\"", &[("etag", "\"a\"")]) && !counts("\"a\"", &[]));
        assert!(!counts("W/\"a\"", &[("etag", "W/\"a\"")]), "weak tags say nothing of bytes");
        let (modified, minute) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:50:37 GMT");
        assert!(counts(modified, &[("last-modified", modified), ("date", minute)]));
        assert!(!counts(modified, &[("last-modified", modified), ("date", modified)]), "weak within the minute");
        assert!(!counts(modified, &[("last-modified", modified)]) && !counts(modified, &[("date", minute)]));
    }

    #[test]
    fn a_head_speaks_of_the_body_only_with_a_validator() {
        let speaks = |head: &[(&str, &str)]| {
            let stored = [("etag", "\"a\""), ("last-modified", "x")].into_iter().collect();
            head_speaks_of(&head.iter().copied().collect(), &stored, 3)
        };
        assert!(speaks(&[("etag", "\"a\""), ("content-length", "3")]) && speaks(&[("last-modified", "x")]));
        for other in
            [&[("etag", "\"b\"")][..], &[("etag", "\"a\""), ("content-length", "4")], &[], &[("content-length", "3")]]
        {
            assert!(!speaks(other), "{other:?}");
        }
        assert!(!speaks(&[("etag", "\"a\""), ("last-modified", "y")]));
    }

    #[test]
    fn a_304_with_another_tag_speaks_of_another_answer() {
        let speaks = |etag: &str| {
            let stored = [("etag", "\"a\"")].into_iter().collect();
            not_modified_speaks_of(&[("etag", etag)].into_iter().collect(), &stored)
        };
        assert!(speaks("\"a\"") && speaks("W/\"a\"") && !speaks("\"b\""));
        assert!(!speaks("W/\"b\""), "a weak tag has to match as well, weakly");
        assert!(not_modified_speaks_of(&Fields::new(), &Fields::new()));
        assert!(!not_modified_speaks_of(&[("etag", "\"b\"")].into_iter().collect(), &Fields::new()));
        let modified = |tag, modified| [("etag", tag), ("last-modified", modified)].into_iter().collect();
        let stored = [("last-modified", "x")].into_iter().collect();
        assert!(not_modified_speaks_of(&modified("W/\"b\"", "x"), &stored), "the one weak validator both have");
        assert!(!not_modified_speaks_of(&modified("W/\"b\"", "y"), &stored));
    }

    #[test]
    fn a_304_updates_all_but_what_describes_the_body() {
        let stored: Fields =
            [("etag", "\"a\""), ("content-encoding", "gzip"), ("x", "1"), ("y", "1")].into_iter().collect();
        let update: Fields =
            [("etag", "\"a\""), ("content-encoding", "br"), ("x", "2"), ("connection", "z"), ("z", "9")]
                .into_iter()
                .collect();
        let merged = update_stored(&stored, &update);
        assert_eq!(
            (merged.get("content-encoding"), merged.get("x"), merged.get("y"), merged.get("z")),
            (Some("gzip"), Some("2"), Some("1"), None)
        );
    }

    proptest! {
        #[test]
        fn the_tags_of_a_list_are_those_it_was_made_of(
            tags in prop::collection::vec("(W/)?\"[!#-~\u{80}-\u{ff}]{0,6}\"", 0..6),
            commas in prop::collection::vec("[ \t]{0,2},[ ,\t]{0,2}", 6),
        ) {
            let list: String = tags.iter().zip(&commas).map(|(tag, comma)| format!("{tag}{comma}")).collect();
            prop_assert_eq!(entity_tags(&list), tags, "{:?}", list);
        }

        /// A tag that is read is one that was sent, whole; nothing behind a fault is.
        #[test]
        fn no_tag_comes_out_of_any_list_that_is_not_in_it(any in ".{0,100}", likely in "[W/\"a, ]{0,20}") {
            for list in [any, likely] {
                let mut rest = list.as_str();
                for tag in entity_tags(&list) {
                    let (before, after) = rest.split_once(tag).unwrap();
                    prop_assert!(before.chars().all(|c| " \t,".contains(c)), "{:?}", list);
                    let opaque = tag.strip_prefix("W/").unwrap_or(tag);
                    prop_assert!(opaque.len() >= 2 && opaque.starts_with('"') && opaque.ends_with('"'), "{:?}", list);
                    prop_assert_eq!(opaque.matches('"').count(), 2, "{:?}", list);
                    rest = after;
                }
            }
        }
    }
}
