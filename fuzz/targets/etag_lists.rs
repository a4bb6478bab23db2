//! Entity tags, their comparison, and conditional requests.
#![no_main]
use libfuzzer_sys::fuzz_target;
use surrogate_cache::Fields;
use surrogate_cache::conditional::{entity_tags, head_speaks_of, is_not_modified, range_counts, strongly_equal};
use surrogate_cache::policy::ResponseHead;

fuzz_target!(|input: (&str, &str, &str)| {
    let (list, etag, date) = input;
    for tag in entity_tags(list) {
        assert!(list.contains(tag) && tag.ends_with('"'));
        // A tag that was read is found again by whoever sends it alone.
        assert_eq!(entity_tags(tag), [tag]);
    }
    let fields: Fields = [("etag", etag), ("last-modified", date), ("date", date)].into_iter().collect();
    let head = ResponseHead { status: 200, fields, request_time_ms: 0, response_time_ms: 1_795_478_400_000 };
    let request: Fields =
        [("if-none-match", list), ("if-modified-since", date), ("if-range", list)].into_iter().collect();
    let _ = is_not_modified(&request, &head);
    let _ = range_counts(&request, &head);
    let _ = head_speaks_of(&request, &head.fields, 3);
    assert_eq!(strongly_equal(list, etag), strongly_equal(etag, list));
});
