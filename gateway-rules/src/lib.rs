//! What the gateway decides beside caching: which service a path belongs to, when an upstream is left alone, how often a
//! request is tried again, how often a client may ask, what is cut out of a document, what is traced and logged, which web apps
//! may read answers. Like the cache engine it does nothing itself: no clock, no I/O, no platform; `now` is an
//! argument, and everything read is plain text and numbers.
#![forbid(unsafe_code)]
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

pub mod access;
pub mod breaker;
pub mod cut;
pub mod fields;
pub mod limits;
pub mod percent;
pub mod retry;
pub mod services;
pub mod trace;
pub mod wanted;
pub mod web;
