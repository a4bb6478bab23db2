//! CDN-Cache-Control: a Structured Field dictionary or nothing.
#![no_main]
use libfuzzer_sys::fuzz_target;
use surrogate_cache::directives::ResponseDirectives;

fuzz_target!(|value: &str| {
    if let Some(read) = ResponseDirectives::from_targeted(value) {
        // Whatever is a dictionary is one with another member behind it (RFC 9651 section 3.2).
        let more = ResponseDirectives::from_targeted(&format!("{value}, zz-not-a-directive=?0"));
        assert_eq!(more, Some(read));
        // And none with a comma at its end.
        assert_eq!(ResponseDirectives::from_targeted(&format!("{value},")), None);
    }
});
