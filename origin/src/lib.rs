//! The origin: admins write here, viewers' edges read here, and every write commits its purge in the same transaction.
//!
//! `http` speaks, `auth` knows who somebody is, `catalog` what a title is, `store` keeps it, `purge` tells the edge and `edges` asks it,
//! `schedule` opens and closes availability windows, `import` fills the catalogue,
//! `generate` makes a large one. `upkeep` keeps metrics small.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub mod auth;
pub mod catalog;
pub mod edges;
pub mod edits;
pub mod error;
pub mod export;
pub mod generate;
pub mod http;
pub mod import;
pub mod keys;
pub mod purge;
pub mod rendered;
pub mod schedule;
pub mod similar;
pub mod store;
pub mod sweep;
pub mod upkeep;
pub mod warm;

/// Milliseconds since 1970 by this machine's clock.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The same, as moments stand in the database.
pub fn moment() -> i64 {
    i64::try_from(now_ms()).unwrap_or(i64::MAX)
}
