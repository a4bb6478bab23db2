//! Range and Content-Range: no cut leaves the body, whatever is asked and claimed.
#![no_main]
use libfuzzer_sys::fuzz_target;
use surrogate_cache::range::{ContentRange, Cut, cut_part, cut_whole, parse};

fuzz_target!(|input: (&str, &str, u64)| {
    let (range, content_range, bytes) = input;
    let part = ContentRange::parse(content_range);
    let Some(range) = parse(range) else { return };
    let cuts = [Some(cut_whole(range, bytes)), part.and_then(|part| cut_part(range, part, bytes))];
    for cut in cuts.into_iter().flatten() {
        if let Cut::Bytes { offset, length, content_range } = cut {
            assert!(length > 0 && offset.checked_add(length).is_some_and(|end| end <= bytes));
            assert!(ContentRange::parse(&content_range).is_some(), "{content_range}");
        }
    }
});
