//! HTTP dates: what a well-kept strict reader reads, this one reads alike.
#![no_main]
use libfuzzer_sys::fuzz_target;
use std::time::UNIX_EPOCH;
use surrogate_cache::date::parse_date_ms;

/// Tuesday, 24 November 2026.
const NOW_MS: u64 = 1_795_478_400_000;

fuzz_target!(|value: &str| {
    let read = parse_date_ms(value, NOW_MS);
    let _ = parse_date_ms(value, u64::MAX);
    let _ = parse_date_ms(value, 0);
    let is_two_digit_year = value.contains('-');
    if let (false, Ok(strict)) = (is_two_digit_year, httpdate::parse_http_date(value)) {
        let strict_ms = strict.duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        assert_eq!(read.map(u128::from), Some(strict_ms), "{value:?}");
    }
});
