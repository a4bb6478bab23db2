//! Tokens, keys and purges as strangers send them: read or refused.
#![no_main]
use kv_schemas::{PurgeBatch, PurgeRequest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let _ = PurgeRequest::read(text);
    let _ = PurgeBatch::read(text);
    if let Ok(text) = std::str::from_utf8(text) {
        let _ = tokens::Unverified::read(text);
        let _ = tokens::public_points(text);
    }
});
