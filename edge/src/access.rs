//! Ids of requests, and one line of the access log for each: JSON, through the platform's console. The ids are the edge's
//! own; of what a client sends only a well-formed `traceparent` is taken over.
use crate::drive::Call;
use crate::isolate::{self, Body, now_ms};
use crate::respond::{is_null_body, push_json};
use crate::{js, settings::Mode};
use gateway_rules::access::{Wish, route};
use gateway_rules::trace::{Context, Ids};
use std::cell::Cell;
use std::fmt::Write as _;
use surrogate_cache::entry::target_of;
use surrogate_cache::phase::CacheStatus;
use surrogate_cache::{Entry, Phase};
use wasm_bindgen::prelude::*;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
pub const REQUEST_ID: &str = "x-request-id";

thread_local! {
    static IDS: Cell<Option<Ids>> = const { Cell::new(None) };
}

fn with_ids<T>(work: impl FnOnce(&mut Ids) -> T) -> T {
    // Two draws: each has 53 bits.
    let mut ids = IDS.take().unwrap_or_else(|| Ids::seeded(js::random() ^ (js::random() << 32)));
    let made = work(&mut ids);
    IDS.set(Some(ids));
    made
}

/// The place of a request in its trace.
pub fn context(request: &web_sys::Request) -> Context {
    let sent = request.headers().get(TRACEPARENT).ok().flatten();
    with_ids(|ids| Context::of(sent.as_deref(), ids))
}

/// What origin is told: our span, whose child its own is. A client's `tracestate` goes on with its trace alone.
pub fn tell_origin(headers: &web_sys::Headers, context: &Context) -> Result<(), JsValue> {
    headers.set(TRACEPARENT, &context.traceparent())?;
    headers.set(REQUEST_ID, &context.request_id())?;
    if !context.continued {
        headers.delete(TRACESTATE)?;
    }
    Ok(())
}

/// Ends a request: its id goes to the client, how long it took is counted, and its line goes into the log.
pub fn end(call: &Call, target: &str, began_ms: u64, answer: &web_sys::Response) -> Result<(), JsValue> {
    let last = isolate::take_last();
    if call.settings.mode == Mode::Gateway {
        answer.headers().set(REQUEST_ID, &call.trace.request_id())?;
    }
    let phase = last.as_ref().map(|last| last.phase);
    let duration_ms = now_ms().saturating_sub(began_ms);
    if let Some(phase) = phase {
        isolate::with(|isolate| isolate.observe(phase, duration_ms));
    }
    let failed = answer.status() >= 500 || matches!(phase, Some(Phase::Failed | Phase::StaleError));
    if !call.settings.access_log.picks(failed, with_ids(Ids::draw)) {
        return Ok(());
    }
    write(&call.request.method(), target, answer, duration_ms, last.as_ref(), &call.trace)
}

/// Whether hits get lines, all of them or some.
pub fn logs_hits(wish: Wish) -> bool {
    !matches!(wish, Wish::Off | Wish::Errors)
}

/// Ids for so many hits at once: a crossing and a text for each would cost more than the ids do.
const HITS_WITH_IDS: usize = 64;

/// For each of the next hits that are answered the short way the ids of its trace and of its request, one after another, made
/// for its line alone; blanks for a hit that gets none. Each hit's are 48 characters.
#[wasm_bindgen]
pub fn ids_of_hits() -> String {
    let wish = isolate::with(|isolate| isolate.settings.access_log).unwrap_or(Wish::Off);
    let mut all = String::with_capacity(48_usize.saturating_mul(HITS_WITH_IDS));
    for _ in 0..HITS_WITH_IDS {
        if wish.picks(false, with_ids(Ids::draw)) {
            let context = with_ids(|ids| Context::of(None, ids));
            all.push_str(&context.trace_id());
            all.push_str(&context.request_id());
        } else {
            all.push_str("                                                ");
        }
    }
    all
}

/// The beginning of its line, by the key of its entry.
pub fn line_of_hit(entry: &Entry<Body>, status: u16, tier: Option<&'static str>, duration_ms: u64) -> String {
    let told = CacheStatus { tier, ..CacheStatus::new(Phase::Hit) };
    let bytes = if is_null_body(status) { 0 } else { entry.body_bytes };
    line("GET", target_of(&entry.key), (status, Some(bytes)), duration_ms, Some(&told))
}

fn write(
    method: &str,
    target: &str,
    answer: &web_sys::Response,
    duration_ms: u64,
    last: Option<&CacheStatus>,
    trace: &Context,
) -> Result<(), JsValue> {
    let bytes = answer.headers().get("content-length")?.and_then(|bytes| bytes.parse().ok());
    let mut line = line(method, target, (answer.status(), bytes), duration_ms, last);
    let _ = write!(line, "{}\",\"request_id\":\"{}\"}}", trace.trace_id(), trace.request_id());
    worker::console_log!("{line}");
    Ok(())
}

/// A line of the log up to the id of its trace.
fn line(
    method: &str,
    target: &str,
    (status, bytes): (u16, Option<u64>),
    duration_ms: u64,
    last: Option<&CacheStatus>,
) -> String {
    let mut line = String::with_capacity(320);
    line.push_str("{\"log\":\"access\",\"method\":");
    push_json(&mut line, method);
    line.push_str(",\"route\":");
    push_json(&mut line, &route(target));
    let _ = write!(line, ",\"status\":{status},\"duration_ms\":{duration_ms}");
    if let Some(last) = last {
        let _ = write!(line, ",\"phase\":\"{}\"", last.phase.as_str());
        if let Some(reason) = last.reason {
            let _ = write!(line, ",\"reason\":\"{}\"", reason.as_str());
        }
        if let Some(tier) = last.tier {
            let _ = write!(line, ",\"tier\":\"{tier}\"");
        }
        if let Some(Err(why)) = last.stored {
            let _ = write!(line, ",\"unstored\":\"{}\"", why.as_str());
        }
    }
    if let Some(bytes) = bytes {
        let _ = write!(line, ",\"bytes\":{bytes}");
    }
    line.push_str(",\"trace_id\":\"");
    line
}
