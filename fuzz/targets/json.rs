//! What a client or a token says in JSON: read as the library reads it, or refused; and tokens and keys made of it.
#![no_main]
use kv_schemas::json;
use kv_schemas::{PurgeBatch, PurgeRequest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    // Lists for structs, which the library takes too, are refused.
    if let Ok(request) = json::from_slice::<PurgeRequest>(text) {
        assert_eq!(Some(request), serde_json::from_slice(text).ok());
    }
    if let Ok(batch) = json::from_slice::<PurgeBatch>(text) {
        assert_eq!(Some(batch), serde_json::from_slice(text).ok());
    }
    if json::from_slice::<serde::de::IgnoredAny>(text).is_ok() {
        assert!(serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok());
    }
    if let Ok(text) = std::str::from_utf8(text) {
        let _ = tokens::Unverified::read(text);
        let _ = tokens::public_points(text);
    }
});
