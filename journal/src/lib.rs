//! The Worker of the purge journal. It has no route: edges reach its Durable Object by a binding with `script_name`.
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

mod journal_do;
