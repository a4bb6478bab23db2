//! To origin and back: any method, any body. A write that succeeds makes what is stored at its URLs invalid, here and at
//! every location, by a purge of those URLs (`invalidate`); so a fill that was under way cannot bring the old answer back.
use crate::drive::{self, Call, Outcome};
use crate::identity::{EDGE_DEBUG, EDGE_REGION};
use crate::invalidate::{self, Write, same_site};
use crate::js::CallError;
use crate::origin_fetch::{self, OriginRequest, VIA};
use crate::private::{self, Own};
use crate::respond::{Shape, fail, refuse};
use crate::settings::Mode;
use crate::upstream::Content;
use crate::{access, content, gateway, identity, isolate, journal_client, js, limits, viewer};
use kv_schemas::AsOf;
use kv_schemas::edge_secret::EDGE_CLIENT;
use kv_schemas::header::SURROGATE_AS_OF;
use surrogate_cache::directives::RequestDirectives;
use surrogate_cache::engine::StorePlan;
use surrogate_cache::entry::key_of;
use surrogate_cache::fields::remove_hop_by_hop;
use surrogate_cache::lookup::{Behind, plan_written};
use surrogate_cache::phase::CacheStatus;
use surrogate_cache::policy::ResponseHead;
use surrogate_cache::{Answer, Fields, Phase, Reason, Request, encoding};
use wasm_bindgen::prelude::*;

/// `own`: whose it is, if it is a viewer's own.
pub async fn pass(call: &Call, target: &str, reason: Reason, own: Option<&Own>) -> Result<web_sys::Response, JsValue> {
    let method = call.request.method();
    let is_read = matches!(method.as_str(), "GET" | "HEAD");
    if is_read && call.request.body().is_some() && call.request.headers().get("content-length")?.is_none() {
        // `fetch` drops the content of a GET if its length is not declared.
        return refuse(411, "length-required", "The content of a GET needs a Content-Length", reason);
    }
    if let Some(refusal) = limits::fields_refused(call, &js::fields(&call.request.headers())) {
        return refusal;
    }
    let origin = OriginRequest::of(call, target, method == "HEAD", Fields::new());
    let reason = if is_read { reason } else { Reason::Method };
    // What a client sends slowly or not at all is no fault of a service, and costs it nothing.
    let taken = match call.settings.mode {
        Mode::Gateway => content::take(call, origin.service).await,
        Mode::Proxy => Ok(None),
    };
    let taken = match taken {
        Ok(taken) => taken,
        Err(problem) => return fail(&problem, reason),
    };
    let shape = if own.is_some() { private::SHAPE } else { Shape { as_of: true, ..Shape::default() } };
    let about = own.map(|own| own.about.clone()).unwrap_or_default();
    let writer = own.filter(|_| !is_read).and_then(|own| own.viewer.clone());
    let exchange = exchange(call.clone(), method, origin.clone(), target.to_string(), taken, (reason, about));
    let work = async move {
        let outcome = exchange.await;
        if let Some(writer) = writer {
            // Done, or perhaps done: what was read before is not what this viewer is to see next.
            let as_of = outcome.as_ref().and_then(|outcome| outcome.answer.fields().get(SURROGATE_AS_OF)?.parse().ok());
            identity::forget_viewer(&writer.claims.sub, as_of.as_ref());
        }
        outcome
    };
    // What a write has changed must be purged even if its client leaves.
    let outcome = drive::to_its_end(call, Box::pin(work)).await;
    gateway::respond_to(call, &origin, outcome, "", shape)
}

/// Fields by which some origins take a request for another one: for another method, path or site.
pub fn makes_another_request(name: &str) -> bool {
    const OTHERS: [&str; 5] = ["forwarded", "x-original-url", "x-rewrite-url", "x-original-host", "x-host"];
    // What comes from the platform, whatever a client has said: its address, and whether it came by TLS.
    const OF_PLATFORM: [&str; 2] = ["for", "proto"];
    OTHERS.contains(&name)
        || is_method(name)
        || name.strip_prefix("x-forwarded-").is_some_and(|what| !OF_PLATFORM.contains(&what))
}

fn is_method(name: &str) -> bool {
    matches!(name, "x-http-method" | "x-http-method-override" | "x-method-override")
}

/// What a client of the API may not tell origin: what the edge alone says, and what makes of one request another.
fn is_forged(name: &str) -> bool {
    matches!(name, EDGE_REGION | EDGE_CLIENT)
        || name.starts_with("x-forwarded-")
        || makes_another_request(name)
        || viewer::is_ours(name)
}

async fn exchange(
    call: Call,
    method: String,
    origin: OriginRequest,
    target: String,
    taken: Option<js::Whole>,
    (reason, about): (Reason, String),
) -> Option<Outcome> {
    let url = origin.url.clone();
    let (copy, content) = match &taken {
        Some(content) => {
            let init = web_sys::RequestInit::new();
            init.set_method(&method);
            init.set_headers(&call.request.headers());
            let is_read = matches!(method.as_str(), "GET" | "HEAD");
            if !is_read {
                init.set_body(&content.bytes);
            }
            let copy = web_sys::Request::new_with_str_and_init(&url, &init).ok()?;
            if is_read {
                // RFC 9110 section 9.3.1: it has no generally defined semantics, and no service here defines any.
                copy.headers().delete("content-length").ok()?;
            }
            (copy, if is_read { Content::None } else { Content::Taken })
        }
        None => {
            // `new Request(url, request)` takes method, fields and the unread body along.
            let init: &web_sys::RequestInit = call.request.unchecked_ref();
            let content = if call.request.body().is_some() { Content::Streamed } else { Content::None };
            (web_sys::Request::new_with_str_and_init(&url, init).ok()?, content)
        }
    };
    let headers = copy.headers();
    // A token for this edge is for nobody else to see.
    let fields = js::fields(&headers);
    let is_proxy = call.settings.mode == Mode::Proxy;
    let is_safe = invalidate::is_safe(&method);
    // A method that was read as safe stays safe: of a write that a field makes of it, nobody would purge what it changes.
    let is_told = |name: &str| if is_proxy { !(is_safe && is_method(name)) } else { !is_forged(name) };
    js::strip(&headers, &fields, &|name| name != EDGE_DEBUG && is_told(name)).ok()?;
    if let Some(client) = edge_client(&call, &fields) {
        headers.set(EDGE_CLIENT, &client).ok()?;
    }
    let told: Fields = viewer::fields_of(&about).collect();
    for (name, value) in told.iter() {
        headers.set(name, value).ok()?;
    }
    origin_fetch::seal_viewer(&call.settings, &headers, &told).ok()?;
    headers.append("via", VIA).ok()?;
    if let Some(context) = &origin.trace {
        access::tell_origin(&headers, context).ok()?;
    }
    let write = Write::announce(&call, &origin, &method, &target).await;
    let sent = isolate::with(|isolate| Some((isolate.engine.view.newest()?, isolate.engine.next_event()))).flatten();
    let asked = origin_fetch::exchange(&call.settings, origin.service, &copy, content);
    let (answer, landed) = match write {
        Some(write) => {
            let answer = write.see_through(&call, asked).await;
            let landed = write.ended(&call, &answer).await;
            (answer, landed)
        }
        None => (asked.await, None),
    };
    let mut status = CacheStatus { reason: Some(reason), ..CacheStatus::new(Phase::Bypass) };
    let retry_after_s = answer.as_ref().err().and_then(CallError::retry_after_s);
    let (answer, response) = match answer {
        Ok((head, response)) => {
            let store = match (method.as_str(), sent, landed) {
                ("POST", Some(sent), Some(landed)) => {
                    plan_post(&call, &url, &target, fields, &head, sent, landed).await
                }
                _ => None,
            };
            status.fwd_status = Some(head.status);
            status.stored = store.is_some().then_some(Ok(()));
            let behind = Behind::default();
            (Answer::Forwarded { head, not_modified: false, status, store, behind }, Some(response))
        }
        Err(error) => {
            worker::console_warn!("{}: {}", origin.named(&call), error.text());
            let status = CacheStatus { reason: Some(Reason::OriginFailed), ..CacheStatus::new(Phase::Failed) };
            let behind = Behind::default();
            (Answer::Failed { failure: error.failure(), status, behind }, None)
        }
    };
    Some(Outcome { answer, response, retry_after_s })
}

/// Where the request comes from, as the platform says, for an origin that can tell that it is this edge that says so. What a
/// client sends in that field is replaced; without a secret nobody believes it.
fn edge_client(call: &Call, fields: &Fields) -> Option<String> {
    let secret = call.settings.edge_secret.as_ref()?;
    secret.seal_client(fields.get("cf-connecting-ip").unwrap_or("unknown"), isolate::now_ms() / 1000)
}

/// Whether and how the answer to a POST is stored for later GETs: if it is the new content of its own URL, and nothing
/// else purged it meanwhile.
async fn plan_post(
    call: &Call,
    url: &str,
    target: &str,
    mut fields: Fields,
    head: &ResponseHead,
    (sent_at, asked): (AsOf, u64),
    landed: AsOf,
) -> Option<Box<StorePlan>> {
    let of_itself = same_site(call, url, head.fields.get("content-location")?)? == target;
    let storable_coding = !head.fields.has("content-encoding") || encoding::is_packed(&head.fields);
    // Fields that are not in the key may have made another page of it.
    let is_plain = !fields.iter().any(|(name, _)| makes_another_request(name));
    if !of_itself || !storable_coding || !is_plain {
        return None;
    }
    remove_hop_by_hop(&mut fields);
    let directives = RequestDirectives::of(&fields);
    let request = Request { key: key_of(target), is_head: false, fields, directives, min_as_of: None };
    let planned = isolate::with(|isolate| plan_written(&isolate.engine, &request, head, landed.clone(), asked));
    let plan = planned?.ok()?;
    let alone = journal_client::is_only_purge(&call.env, &sent_at, &landed, plan.keys()).await;
    alone.then(|| Box::new(plan))
}
