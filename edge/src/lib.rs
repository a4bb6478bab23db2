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

mod access;
mod batch;
mod colo_cache;
mod content;
mod cut;
mod drive;
mod entry_bytes;
mod exposition;
mod gateway;
mod held;
mod hits;
mod identity;
mod invalidate;
mod isolate;
mod journal_client;
mod js;
mod kv;
mod limits;
mod ops;
mod origin_fetch;
mod pass;
mod private;
mod purge_intake;
mod query;
mod respond;
mod route;
mod settings;
mod signatures;
mod upstream;
mod viewer;
mod warm;
mod web;

use wasm_bindgen::prelude::*;
use worker::{Context, Env};

/// Called by `entry.js` for each request that `hits` has no ready answer for, with the number of the lookup it has begun for
/// it, if any. Plain `wasm-bindgen` instead of the crate's
/// `event` macro, whose error page alone brings its whole request and response types along.
#[wasm_bindgen]
pub async fn fetch(
    request: web_sys::Request,
    env: Env,
    context: worker::worker_sys::Context,
    begun: Option<u32>,
) -> Result<web_sys::Response, JsValue> {
    gateway::handle(request, env, Context::new(context), begun).await
}
