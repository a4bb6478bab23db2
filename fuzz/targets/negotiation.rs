//! Vary, Accept-Language and Accept-Encoding: two requests share a variant only if they may.
#![no_main]
use libfuzzer_sys::fuzz_target;
use surrogate_cache::Fields;
use surrogate_cache::encoding::{is_packed, takes_packed};
use surrogate_cache::vary::{content_language_key, selecting_fields, variant_key, wanted_language_key};

fuzz_target!(|input: (&str, &str, &str)| {
    let (vary, one, other) = input;
    let response: Fields = [("vary", vary), ("content-language", one), ("content-encoding", one)].into_iter().collect();
    let request = |value: &str| -> Fields {
        [("accept-language", value), ("x", value), ("accept-encoding", value)].into_iter().collect()
    };
    let _ = (takes_packed(&request(one)), is_packed(&response));
    let Some(varies_on) = selecting_fields(&response) else { return };
    assert!(varies_on.is_sorted());
    let key = |value: &str| variant_key("k", &varies_on, &request(value));
    // A field whose values carry no other meaning selects by value, but for white space around members.
    let plain = |value: &str| value.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    if varies_on == ["x"] {
        assert_eq!(key(one) == key(other), plain(one) == plain(other));
    }
    if let Some(wanted) = wanted_language_key("k", &varies_on, &request(one)) {
        assert_ne!(wanted, key(one), "an alias is never a variant's own key");
    }
    let _ = content_language_key("k", &varies_on, &request(other), &response);
});
