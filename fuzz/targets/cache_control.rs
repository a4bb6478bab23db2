//! Cache-Control, Surrogate-Control and request directives: any value is read, and what forbids is never lost.
#![no_main]
use libfuzzer_sys::fuzz_target;
use surrogate_cache::Fields;
use surrogate_cache::directives::{DELTA_S_MAX, RequestDirectives, ResponseDirectives};

fuzz_target!(|value: &str| {
    let read = ResponseDirectives::from_cache_control(value);
    for seconds in [read.max_age_s, read.s_maxage_s, read.stale_while_revalidate_s, read.stale_if_error_s] {
        assert!(seconds.is_none_or(|seconds| seconds <= DELTA_S_MAX));
    }
    // A member before anything else is read whatever follows.
    let forbidding = ResponseDirectives::from_cache_control(&format!("no-store, private, {value}"));
    assert!(forbidding.no_store && forbidding.private);
    let _ = ResponseDirectives::from_surrogate_control(value);
    let fields: Fields =
        [("cache-control", value), ("pragma", value), ("surrogate-control", value)].into_iter().collect();
    let _ = RequestDirectives::of(&fields);
    let _ = ResponseDirectives::of(&fields);
});
