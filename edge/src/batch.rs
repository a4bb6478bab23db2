//! `POST /v1/batch`: up to twenty reads in one request. Each member goes through the gateway as if it had come by itself,
//! with the same limits, checks and caches, and is answered by itself: its status, its fields, its body. A member that is
//! slow has its own bound and then its own 504; what it was waiting for goes on to be stored.
use crate::drive::Call;
use crate::held::Share;
use crate::identity::EDGE_DEBUG;
use crate::js::Patience;
use crate::respond::{self, fail, refuse};
use crate::{content, cut, gateway, isolate, js, route};
use kv_schemas::Problem;
use kv_schemas::header::{MIN_AS_OF, PROBLEM_JSON};
use serde::Deserialize;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;
use surrogate_cache::{Reason, encoding};
use wasm_bindgen::JsValue;
use worker::Delay;

pub const PATH: &str = "/v1/batch";

const MEMBERS_MAX: usize = 20;
const CONTENT_BYTES_MAX: u64 = 64 * 1024;
/// A member's longest body, unpacked.
const BODY_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// All answers together: Wasm's memory grows by them, and never shrinks.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// A member has a timeout of its own.
const BODY_PATIENCE: Patience = Patience { idle_ms: 15_000, total_ms: 15_000 };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    requests: Vec<Member>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    /// Path and query of a read below `/v1/`.
    path: String,
    if_none_match: Option<String>,
    min_as_of: Option<String>,
}

/// Fields that speak of the batch's own content, or would make a member's answer another than it is by itself.
const OF_THE_BATCH: [&str; 10] = [
    "content-type",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "if-none-match",
    "if-modified-since",
    "if-match",
    "if-unmodified-since",
    "range",
    EDGE_DEBUG,
];

/// Fields of a member's answer that say nothing inside a batch.
const LEFT_OUT: [&str; 4] = ["content-length", "content-encoding", "transfer-encoding", "vary"];

pub async fn handle(call: &Call) -> Result<web_sys::Response, JsValue> {
    if call.request.method() != "POST" {
        return refuse(405, "method-not-allowed", "A batch is a POST", Reason::Method);
    }
    let members = match read(call).await {
        Ok(members) => members,
        Err(problem) => return fail(&problem, Reason::Invalid),
    };
    let due_ms = isolate::now_ms().saturating_add(call.settings.batch_timeout_ms);
    let room = Rc::new(Cell::new(BYTES_MAX));
    let answers: Vec<Pin<Box<dyn Future<Output = Vec<u8>>>>> = members
        .into_iter()
        .map(|member| {
            let (call, room) = (call.clone(), Rc::clone(&room));
            Box::pin(async move { fitting(bounded(&call, &member, due_ms).await, &room) })
                as Pin<Box<dyn Future<Output = _>>>
        })
        .collect();
    let mut body = b"{\"responses\":[".to_vec();
    for (index, answer) in all(answers).await.into_iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&answer);
    }
    body.extend_from_slice(b"]}");
    let headers = respond::bypassed()?;
    headers.set("content-type", "application/json")?;
    let takes_packed = encoding::takes_packed(&js::fields(&call.request.headers()));
    cut::send(&body, &headers, takes_packed, false)
}

/// The members, all of them or a problem that names each fault.
async fn read(call: &Call) -> Result<Vec<Member>, Problem> {
    let Some(body) = call.request.body() else { return Err(Problem::new(400, "json-invalid", "The body is not JSON")) };
    let bytes = content::read(&body, CONTENT_BYTES_MAX, content::PATIENCE, Share::Uploads).await?.bytes.to_vec();
    let batch: Batch = serde_json::from_slice(&bytes).map_err(|error| {
        Problem::new(400, "json-invalid", "The body is not a batch: {\"requests\":[{\"path\":\"/v1/…\"}]}")
            .detail(error.to_string())
    })?;
    let mut problem = Problem::new(400, "batch-invalid", "The batch has faults");
    if batch.requests.is_empty() || batch.requests.len() > MEMBERS_MAX {
        problem = problem.fault("/requests", format!("must be 1 to {MEMBERS_MAX} requests"));
    }
    for (index, member) in batch.requests.iter().take(MEMBERS_MAX).enumerate() {
        if let Some(what) = fault(&member.path) {
            problem = problem.fault(format!("/requests/{index}/path"), what);
        }
        for (name, value) in [("if_none_match", &member.if_none_match), ("min_as_of", &member.min_as_of)] {
            // What can stand in a field, and means the same to whoever reads it.
            if value.as_ref().is_some_and(|value| !value.bytes().all(|byte| (0x20..0x7f).contains(&byte))) {
                problem = problem.fault(format!("/requests/{index}/{name}"), "must be printable ASCII");
            }
        }
    }
    if problem.errors.is_empty() { Ok(batch.requests) } else { Err(problem) }
}

fn fault(path: &str) -> Option<&'static str> {
    let name = path.split('?').next().unwrap_or(path);
    if !path.starts_with("/v1/") {
        return Some("must begin with /v1/");
    }
    if name == PATH || name.starts_with("/v1/batch/") {
        return Some("a batch holds no batch");
    }
    if path.len() > route::TARGET_BYTES_MAX {
        return Some("is longer than is served");
    }
    if !path.bytes().all(|byte| (0x21..0x7f).contains(&byte)) || path.contains(['#', '\\']) {
        return Some("must be path and query, percent-encoded");
    }
    None
}

/// An answer, if there is room for it beside those that came before.
fn fitting(answer: Vec<u8>, room: &Cell<usize>) -> Vec<u8> {
    match room.get().checked_sub(answer.len()) {
        Some(left) => {
            room.set(left);
            answer
        }
        None => of_problem(&Problem::new(502, "member-failed", "The batch's answers are too long together")),
    }
}

/// One member's answer as a JSON object, within its bound. Whose turn comes late has a moment for what is cached: others may have
/// waited for a service all the time.
async fn bounded(call: &Call, member: &Member, due_ms: u64) -> Vec<u8> {
    let answer = Box::pin(answer(call, member));
    let left_ms = due_ms.saturating_sub(isolate::now_ms()).max(call.settings.batch_timeout_ms / 10);
    let bound = Delay::from(Duration::from_millis(left_ms));
    match futures_util::future::select(answer, bound).await {
        futures_util::future::Either::Left((Some(answer), _)) => answer,
        futures_util::future::Either::Left((None, _)) => {
            of_problem(&Problem::new(502, "member-failed", "This member's answer could not be read"))
        }
        futures_util::future::Either::Right(_) => {
            of_problem(&Problem::new(504, "member-timeout", "This member took longer than one may"))
        }
    }
}

async fn answer(call: &Call, member: &Member) -> Option<Vec<u8>> {
    let url = call.request.url();
    let target = route::target_of(&url);
    let base = url.strip_suffix(target).unwrap_or(&url);
    let init = web_sys::RequestInit::new();
    let headers = web_sys::Headers::new_with_headers(&call.request.headers()).ok()?;
    OF_THE_BATCH.iter().try_for_each(|name| headers.delete(name)).ok()?;
    headers.set("accept-encoding", "identity").ok()?;
    for (name, value) in [("if-none-match", &member.if_none_match), (MIN_AS_OF, &member.min_as_of)] {
        if let Some(value) = value {
            headers.set(name, value).ok()?;
        }
    }
    init.set_headers(&headers);
    // Where the client is stands beside its request, not in its fields.
    if let Some(place) = js::place(&call.request) {
        js_sys::Reflect::set(&init, &"cf".into(), &place).ok()?;
    }
    let request = web_sys::Request::new_with_str_and_init(&format!("{base}{}", member.path), &init).ok()?;
    // What the platform makes of a path must still be what was looked at.
    if route::target_of(&request.url()) != member.path {
        return Some(of_problem(&Problem::new(400, "path-invalid", "The path is not written as it is meant")));
    }
    let call = Call { request, ..call.clone() };
    let response = gateway::respond(&call, &member.path).await;
    // Nobody's but the batch's is logged and timed, least of all as that of an answer which ends while others are waited for.
    isolate::take_last();
    let response = response.ok()?;
    described(&response).await
}

/// A response as a JSON object: JSON stays JSON, anything else becomes a string.
async fn described(response: &web_sys::Response) -> Option<Vec<u8>> {
    let fields = js::fields(&response.headers());
    let mut text = format!("{{\"status\":{},\"headers\":{{", response.status());
    let mut names: Vec<&str> = Vec::new();
    for (name, value) in fields.iter() {
        if LEFT_OUT.contains(&name) || names.contains(&name) {
            continue;
        }
        if !names.is_empty() {
            text.push(',');
        }
        names.push(name);
        respond::push_json(&mut text, name);
        text.push(':');
        respond::push_json(&mut text, value);
    }
    text.push_str("},\"body\":");
    let mut whole = text.into_bytes();
    let is_json = fields.get("content-type").is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or(kind).trim();
        kind == "application/json" || kind.ends_with("+json")
    });
    match response.body() {
        None => whole.extend_from_slice(b"null"),
        Some(_) if is_json => whole.extend_from_slice(&cut::cut(response, None, BODY_BYTES_MAX).await.ok()??),
        Some(body) => {
            let bytes = js::read_all(&body, BODY_BYTES_MAX, BODY_PATIENCE, Share::Exempt).await.ok()?.bytes.to_vec();
            let mut text = String::new();
            respond::push_json(&mut text, &String::from_utf8_lossy(&bytes));
            whole.extend_from_slice(text.as_bytes());
        }
    }
    whole.push(b'}');
    Some(whole)
}

fn of_problem(problem: &Problem) -> Vec<u8> {
    let kind = PROBLEM_JSON;
    let (status, body) = (problem.status, problem.to_json());
    format!("{{\"status\":{status},\"headers\":{{\"content-type\":\"{kind}\"}},\"body\":{body}}}").into_bytes()
}

/// So many members wait at once. The platform lets a request have six connections on which no answer has begun; what goes beyond them
/// waits, and each call's time runs meanwhile, as if a service were slow.
const WAITING_MAX: usize = 4;

/// All of them, some at once; their results in order.
async fn all<T>(futures: Vec<Pin<Box<dyn Future<Output = T>>>>) -> Vec<T> {
    use std::task::Poll;
    let mut pending: Vec<_> = futures.into_iter().map(Some).collect();
    let mut done: Vec<Option<T>> = pending.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        let mut waiting: usize = 0;
        for (future, result) in pending.iter_mut().zip(done.iter_mut()) {
            let Some(running) = future else { continue };
            if waiting == WAITING_MAX {
                break;
            }
            match running.as_mut().poll(context) {
                Poll::Ready(value) => {
                    *result = Some(value);
                    *future = None;
                }
                Poll::Pending => waiting = waiting.saturating_add(1),
            }
        }
        match pending.iter().all(Option::is_none) {
            true => Poll::Ready(done.iter_mut().filter_map(Option::take).collect()),
            false => Poll::Pending,
        }
    })
    .await
}
