//! One request from the outside: routed, answered, counted. Every answer leaves with a phase in `Cache-Status`, every
//! error as problem+json.
use crate::drive::{self, Call, Outcome};
use crate::isolate::{self, IsolateError, now_ms};
use crate::origin_fetch::{OriginRequest, VIA};
use crate::purge_intake::TOKEN_LIFETIME_S_MAX;
use crate::respond::{self, Shape};
use crate::route::{self, Route};
use crate::settings::Mode;
use crate::{colo_cache, journal_client, js, kv, ops};
use kv_schemas::claims::{EdgeClaims, Scope};
use kv_schemas::{AsOf, Problem};
use std::rc::Rc;
use surrogate_cache::directives::RequestDirectives;
use surrogate_cache::engine::Stored;
use surrogate_cache::fields::remove_hop_by_hop;
use surrogate_cache::phase::CacheStatus;
use surrogate_cache::{Answer, Fields, Lookup, Phase, Reason, Request};
use wasm_bindgen::{JsCast, JsValue};
use worker::{Context, Env, console_error};

/// Request fields the API's shared documents may depend on. What is not here reaches neither key nor origin, so it
/// can neither split nor poison an entry.
const FIELDS_OF_SHARED: [&str; 6] =
    ["if-none-match", "if-modified-since", "min-as-of", "traceparent", "tracestate", "x-request-id"];

pub async fn handle(request: web_sys::Request, env: Env, context: Context) -> worker::Result<web_sys::Response> {
    let settings = match isolate::start(&env) {
        Ok(settings) => settings,
        Err(error) => {
            let text = match error {
                IsolateError::Settings(text) => text,
                IsolateError::Busy => "the isolate is busy".into(),
            };
            console_error!("settings: {text}");
            let problem = Problem::new(500, "misconfigured", "The edge is not configured; its log says why");
            return Ok(respond::problem(&problem, None)?);
        }
    };
    let location = journal_client::location(&request, settings.location.as_deref());
    let call = Call { request, env, context: Rc::new(context), settings, location: location.into() };
    let url = call.request.url();
    let target = route::target_of(&url);
    match route::classify(call.settings.mode, &call.request.method(), target) {
        Route::Edge(path) => match ops::handle(&call, &path).await {
            Ok(response) => Ok(response),
            Err(problem) => Ok(respond::problem(&problem, None)?),
        },
        Route::Cached { target } => Ok(cached(&call, &target).await?),
        Route::Pass { target } => Ok(pass(&call, &target, Reason::Route).await?),
        Route::NotFound => {
            let problem = Problem::new(404, "not-found", "There is nothing at this path");
            Ok(fail(&problem, Reason::Route)?)
        }
        Route::TooLong => {
            let problem = Problem::new(414, "uri-too-long", "Path and query are longer than this edge serves");
            Ok(fail(&problem, Reason::Route)?)
        }
    }
}

fn fail(problem: &Problem, reason: Reason) -> Result<web_sys::Response, JsValue> {
    isolate::count(Phase::Failed);
    let status = CacheStatus { reason: Some(reason), ..CacheStatus::new(Phase::Failed) };
    respond::problem(problem, Some(&status))
}

/// A GET or HEAD that may be answered from the cache.
async fn cached(call: &Call, target: &str) -> Result<web_sys::Response, JsValue> {
    let all = js::fields(&call.request.headers());
    // Preconditions that guard writes, and parts of documents, are origin's business.
    let is_partial = ["range", "if-range", "if-match", "if-unmodified-since"].iter().any(|name| all.has(name));
    if call.settings.mode == Mode::Proxy && is_partial {
        return pass(call, target, Reason::Range).await;
    }
    let debug = match all.get("edge-debug") {
        None => false,
        Some(token) => match authorize_debug(call, token) {
            Ok(_) => true,
            Err(problem) => return fail(&problem, Reason::RequestDirective),
        },
    };
    let is_head = call.request.method() == "HEAD";
    let (request, origin) = match prepare(call, target, all, is_head) {
        Ok(prepared) => prepared,
        Err(problem) => return fail(&problem, Reason::RequestDirective),
    };
    let key = request.key.clone();
    let Some(outcome) = drive::answer(call, &origin, Lookup::new(request)).await else {
        let problem = Problem::new(500, "edge-failed", "The edge could not serve this request");
        return fail(&problem, Reason::OriginFailed);
    };
    respond_to(call, &origin, outcome, &key, Shape { is_head, debug, ..Shape::default() })
}

fn authorize_debug(call: &Call, token: &str) -> Result<EdgeClaims, Problem> {
    let expect = tokens::Expect {
        issuer: kv_schemas::claims::ISSUER,
        audience: kv_schemas::claims::AUDIENCE_EDGE,
        lifetime_s_max: TOKEN_LIFETIME_S_MAX,
    };
    let claims: Result<EdgeClaims, _> = call.settings.keys.verify(token, expect, now_ms() / 1000);
    let refused = |_| Problem::new(401, "token-refused", "Edge-Debug carries a token that was refused");
    let claims = claims.map_err(refused)?;
    if claims.scope == Scope::Debug { Ok(claims) } else { Err(Problem::new(403, "token-scope", "Not a debug token")) }
}

/// The request as the engine sees it, and as origin will.
fn prepare(call: &Call, target: &str, all: Fields, is_head: bool) -> Result<(Request, OriginRequest), Problem> {
    let min_as_of = match all.joined("min-as-of") {
        None => None,
        Some(text) => Some(text.parse::<AsOf>().map_err(|error| {
            Problem::new(400, "min-as-of-invalid", "Min-As-Of is not of the form a write answers with")
                .fault("Min-As-Of", error.to_string())
        })?),
    };
    let mut fields = all;
    let directives = match call.settings.mode {
        Mode::Proxy => {
            remove_hop_by_hop(&mut fields);
            RequestDirectives::of(&fields)
        }
        Mode::Gateway => {
            fields.retain(|name| FIELDS_OF_SHARED.contains(&name));
            // Viewers have no say over the cache: `no-cache` from many of them is how an origin is brought down.
            RequestDirectives::default()
        }
    };
    let origin = OriginRequest {
        url: format!("{}{target}", call.settings.origin_url),
        is_head,
        fields: fields.clone(),
        timeout_ms: call.settings.origin_timeout_ms,
    };
    let request = Request { key: format!("GET {target}"), is_head, fields, directives, min_as_of };
    Ok((request, origin))
}

fn respond_to(
    call: &Call,
    origin: &OriginRequest,
    outcome: Outcome,
    key: &str,
    shape: Shape,
) -> Result<web_sys::Response, JsValue> {
    let Outcome { answer, response } = outcome;
    isolate::count(answer.status().phase);
    match answer {
        Answer::Stored { entry, not_modified, age_ms, status, behind } => {
            let shape = Shape { not_modified, ..shape };
            let answer = respond::stored(&entry, age_ms, &status, &shape)?;
            let stored = (!behind.write.is_empty()).then(|| Rc::new(Stored { entry, marker: None }));
            drive::do_behind(call, origin, behind, stored);
            Ok(answer)
        }
        Answer::Forwarded { head, not_modified, status, store, behind } => {
            let Some(response) = response else {
                return fail(&Problem::new(500, "edge-failed", "Origin's answer was lost"), Reason::OriginFailed);
            };
            let shape = Shape { not_modified, ..shape };
            let wanted = !shape.is_head && !not_modified;
            let body = drive::split_for_store(call, origin, &response, store, wanted, behind);
            let origin_ms = head.response_time_ms.saturating_sub(head.request_time_ms);
            respond::forwarded(&response, body.as_ref().map(AsRef::as_ref), &status, &shape, key, origin_ms)
        }
        Answer::Failed { http_status, slug, title, status, behind } => {
            drive::do_behind(call, origin, behind, None);
            respond::problem(&Problem::new(http_status, slug, title), Some(&status))
        }
    }
}

/// To origin and back: any method, any body, never stored.
async fn pass(call: &Call, target: &str, reason: Reason) -> Result<web_sys::Response, JsValue> {
    let method = call.request.method();
    let reason = if matches!(method.as_str(), "GET" | "HEAD") { reason } else { Reason::Method };
    let mut status = CacheStatus { reason: Some(reason), ..CacheStatus::new(Phase::Bypass) };
    let url = format!("{}{target}", call.settings.origin_url);
    // `new Request(url, request)` takes method, fields and the unread body along.
    let init: &web_sys::RequestInit = call.request.unchecked_ref();
    let copy = web_sys::Request::new_with_str_and_init(&url, init)?;
    copy.headers().append("via", VIA)?;
    let sent_ms = now_ms();
    let response = match js::send(&copy, call.settings.origin_timeout_ms).await {
        Ok(response) => response,
        Err(error) => {
            worker::console_warn!("origin {url}: {}", error.text());
            let (code, slug) = match error {
                js::CallError::Timeout => (504, "origin-timeout"),
                js::CallError::Refused(_) => (502, "origin-unreachable"),
            };
            return fail(&Problem::new(code, slug, "The origin did not answer"), Reason::OriginFailed);
        }
    };
    status.fwd_status = Some(response.status());
    isolate::count(Phase::Bypass);
    if !is_safe(&method) && response.status() < 400 {
        invalidate(call, target);
    }
    let shape = Shape { is_head: method == "HEAD", as_of: true, ..Shape::default() };
    let origin_ms = now_ms().saturating_sub(sent_ms);
    respond::forwarded(&response, response.body().as_ref().map(AsRef::as_ref), &status, &shape, "", origin_ms)
}

/// RFC 9110 section 9.2.1.
fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

/// RFC 9111 section 4.4: "A cache MUST invalidate the target URI when it receives a non-error status code in response
/// to an unsafe request method". Here, in this isolate, its location and KV; elsewhere entries live out their time,
/// unless origin purges.
fn invalidate(call: &Call, target: &str) {
    let key = format!("GET {target}");
    isolate::with(|isolate| isolate.engine.forget(&key));
    let env = call.env.clone();
    call.context.wait_until(async move {
        colo_cache::delete(&key).await;
        kv::delete(&env, &key).await;
    });
}
