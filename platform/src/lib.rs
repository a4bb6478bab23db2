//! What both Workers ask the platform for, each typed once: bindings, the clock, randomness, and the settings that mean
//! the same to both. `recovery.js` beside it is what both entries do after a trap.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]

use wasm_bindgen::prelude::*;
use worker::Env;

#[wasm_bindgen]
extern "C" {
    /// `crypto.randomUUID()`.
    #[wasm_bindgen(js_namespace = crypto, js_name = randomUUID)]
    pub fn random_uuid() -> String;
}

/// A random number below 2^53: enough to tell starts apart and to spread waits, no secret.
pub fn random() -> u64 {
    // Above 0 and below 2^53, where a double is exact.
    (js_sys::Math::random() * 9_007_199_254_740_991.0) as u64
}

/// This isolate's clock, milliseconds since 1970. In production it stands still while the CPU works.
pub fn now_ms() -> u64 {
    // A whole number of milliseconds, far below 2^53.
    js_sys::Date::now() as u64
}

/// What the operator bound under a name: a text, a namespace.
pub fn binding(env: &Env, name: &str) -> Option<JsValue> {
    js_sys::Reflect::get(env.as_ref(), &JsValue::from_str(name)).ok().filter(|value| !value.is_undefined())
}

/// A variable, if it says anything. The readers below take this as a function, so that tests can do without the platform.
pub fn text(env: &Env, name: &str) -> Option<String> {
    let value = binding(env, name)?.as_string()?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_string())
}

pub fn number(text: &impl Fn(&str) -> Option<String>, name: &str, default: u64) -> Result<u64, String> {
    match text(name) {
        None => Ok(default),
        Some(value) => value.parse().map_err(|_| format!("{name} must be a whole number, not '{value}'")),
    }
}

/// Who numbers the purges: whether the journal itself does, or origin.
pub fn journal_numbers(text: &impl Fn(&str) -> Option<String>) -> Result<bool, String> {
    match text("PURGE_LOG").as_deref() {
        Some("origin") | None => Ok(false),
        Some("journal") => Ok(true),
        Some(other) => Err(format!("PURGE_LOG must be origin or journal, not '{other}'")),
    }
}

/// How long what is known of purges is used without asking, and how old it may be at most.
pub fn lease_and_bound_ms(text: &impl Fn(&str) -> Option<String>, default_lease_ms: u64) -> Result<(u64, u64), String> {
    let lease_ms = number(text, "LEASE_MS", default_lease_ms)?;
    // Past the lease a request syncs behind its answer; half a lease more, and it waits for the sync instead.
    let bound_ms = number(text, "BOUND_MS", lease_ms.saturating_add(lease_ms / 2))?;
    if bound_ms < lease_ms {
        return Err(format!("BOUND_MS ({bound_ms}) must not be below LEASE_MS ({lease_ms})"));
    }
    Ok((lease_ms, bound_ms))
}

/// Path and query of an absolute URL, without its fragment.
pub fn target_of(url: &str) -> &str {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let target = after_scheme
        .bytes()
        .position(|b| matches!(b, b'/' | b'?'))
        .and_then(|at| after_scheme.get(at..))
        .unwrap_or("/");
    target.split('#').next().unwrap_or(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the journal reads.
    fn read(name: &str, value: &str) -> Result<(bool, (u64, u64)), String> {
        let text = |asked: &str| (asked == name).then(|| value.to_string());
        Ok((journal_numbers(&text)?, lease_and_bound_ms(&text, 1_000)?))
    }

    #[test]
    fn a_setting_that_cannot_be_right_is_named() {
        for (name, bad) in [
            ("PURGE_LOG", "edge"),
            ("PURGE_LOG", "Journal"),
            ("LEASE_MS", "1s"),
            ("LEASE_MS", "-1"),
            ("LEASE_MS", "0.5"),
            ("LEASE_MS", "18446744073709551616"),
            ("BOUND_MS", "soon"),
            ("BOUND_MS", "999"),
        ] {
            let said = read(name, bad).expect_err(bad);
            assert!(said.starts_with(name) && said.contains(bad), "{name}: {said}");
        }
        for (name, value, read_as) in [
            ("OTHER", "?", (false, (1_000, 1_500))),
            ("PURGE_LOG", "journal", (true, (1_000, 1_500))),
            ("LEASE_MS", "200", (false, (200, 300))),
            ("BOUND_MS", "1000", (false, (1_000, 1_000))),
        ] {
            assert_eq!(read(name, value), Ok(read_as), "{name}");
        }
    }

    #[test]
    fn the_target_is_what_follows_the_authority() {
        for (url, target) in
            [("http://h:1/a?b#c", "/a?b"), ("http://h", "/"), ("http://h?x=/y", "?x=/y"), ("https://h/a://b", "/a://b")]
        {
            assert_eq!(target_of(url), target);
        }
    }
}
