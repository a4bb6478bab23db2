//! `surrogate-cache`: a shared HTTP cache (RFC 9111) whose purges cannot be raced.
//!
//! The engine decides everything and does nothing: no clock, no I/O, no runtime. `now` and whatever was read are
//! arguments; what is to be done next comes back as a [`lookup::Step`]. One rule stands above all others: an entry
//! is fresh only while no purge of any of its keys is younger than the state the entry was read at
//! ([`view::JournalView::judge`]). It compares positions in one log and no clocks, so neither the order nor the
//! repetition of deliveries matters, and an answer in flight across a purge cannot come back as fresh.
//!
#![doc = include_str!("../README.md")]
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

pub mod announced;
pub mod conditional;
pub mod date;
pub mod directives;
pub mod encoding;
pub mod engine;
pub mod entry;
pub mod fields;
pub mod fills;
pub mod hits;
pub mod intake;
pub mod lookup;
mod memory;
pub mod phase;
pub mod policy;
mod purged;
pub mod range;
pub mod receipts;
mod targeted;
pub mod vary;
pub mod view;

pub use engine::{Config, Engine, LogOwner};
pub use entry::Entry;
pub use fields::Fields;
pub use lookup::{Answer, Event, Lookup, Request, Step};
pub use phase::{Phase, Reason};
pub use policy::Rules;
pub use view::JournalView;
