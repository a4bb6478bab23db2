//! The Worker: event handlers only. What they do lies in the modules, one for each thing of the platform.
//!
//! Invariants: no static holds a future, a lock or an I/O object; no request awaits what another one started; nothing
//! here panics on input, since a panic ends every request in flight in the isolate.
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

mod colo_cache;
mod drive;
mod entry_bytes;
mod gateway;
mod isolate;
mod journal_client;
mod journal_do;
mod js;
mod kv;
mod ops;
mod origin_fetch;
mod purge_intake;
mod respond;
mod route;
mod settings;

use worker::{Context, Env, event};

#[event(fetch)]
async fn fetch(request: web_sys::Request, env: Env, context: Context) -> worker::Result<web_sys::Response> {
    gateway::handle(request, env, context).await
}
