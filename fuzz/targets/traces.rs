//! `traceparent`, the table of services and the table of limits: what is sent on is always well-formed.
#![no_main]
use gateway_rules::limits::{Limits, client};
use gateway_rules::services::{Services, Terms};
use gateway_rules::trace::{Context, Ids};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut ids = Ids::seeded(1);
    let sent = Context::of(Some(text), &mut ids);
    let again = Context::of(Some(&sent.traceparent()), &mut ids);
    assert!(again.continued && again.trace_id() == sent.trace_id());
    let _ = Limits::read(text);
    assert!(text.starts_with(client(text)));
    let terms = Terms { timeout_ms: 1, body_timeout_ms: 1, request_bytes_max: 1 };
    if let Ok(services) = Services::read(text, "http://a", terms) {
        assert!(services.get(services.of(text)).is_some());
    }
});
