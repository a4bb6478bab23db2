//! Every byte that crosses between origin, edge and KV.
//!
//! This crate is the only place that defines stored or exchanged bytes. Origin and edge both depend on it and
//! both are tested against the golden files in `golden/`; the JSON Schemas in `schema/` describe the same shapes to
//! other languages. It does no I/O, reads no clock, and never panics on hostile input.
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

pub mod as_of;
pub mod claims;
pub mod edge_secret;
pub mod entry;
pub mod fields;
pub mod header;
pub mod journal;
pub mod key_class;
pub mod problem;
pub mod purge;
pub mod receipt;
pub mod store_key;
pub mod surrogate_key;
pub mod viewer;
pub mod warm;
mod wire;

pub use as_of::{AsOf, LogId, SEQ_MAX, Seq};
pub use fields::Fields;
pub use key_class::{KeyClass, PerClass};
pub use problem::Problem;
pub use purge::{Purge, PurgeAck, PurgeBatch, PurgeMode, PurgeRequest, Unannounced};
pub use surrogate_key::{KeyHash, SurrogateKey};
