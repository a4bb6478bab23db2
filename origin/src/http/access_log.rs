//! One line in the log for each request, and the names a request goes by: its id and its place in a trace (W3C Trace Context),
//! both taken from the edge where they are well-formed, made here where not.
//!
//! Never logged: queries, bodies, fields of the request, tokens.
use super::REQUEST_TIMEOUT;
use super::error::problem_response;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use kv_schemas::Problem;
use std::cell::RefCell;
use std::time::Instant;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const REQUEST_ID_BYTES_MAX: usize = 64;
/// Methods that are logged and counted by name: those of this API, and those that are asked for by accident.
const COUNTED: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What the line says that only the inside of a request knows, and what other lines of the request are to say, too.
#[derive(Default)]
struct Note {
    id: String,
    actor: Option<String>,
    reason: Option<String>,
}

tokio::task_local! {
    static NOTE: RefCell<Note>;
}

/// Says who asks, once that is verified.
pub fn note_actor(actor: &str) {
    let _ = NOTE.try_with(|note| note.borrow_mut().actor = Some(actor.into()));
}

/// Says why the answer is not what was asked for.
pub fn note_reason(reason: &str) {
    let _ = NOTE.try_with(|note| note.borrow_mut().reason = Some(reason.into()));
}

/// What the request under way goes by: a line with a cause is found by it.
pub fn noted_id() -> Option<String> {
    NOTE.try_with(|note| note.borrow().id.clone()).ok()
}

/// A place in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trace {
    trace_id: String,
    parent_id: Option<String>,
    span_id: String,
}

fn random_hex<const N: usize>() -> String {
    let mut bits = [0u8; N];
    // Without randomness there is a name that says so, and the request is answered all the same.
    let _ = getrandom::fill(&mut bits);
    bits.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut fields = headers.get_all(name).iter();
    let field = fields.next().filter(|_| fields.next().is_none())?;
    field.to_str().ok()
}

impl Trace {
    /// W3C Trace Context, section 3.2.2. Of a later version, what this one defines.
    fn of(headers: &HeaderMap) -> Self {
        let span_id = random_hex::<8>();
        let new = |span_id| Self { trace_id: random_hex::<16>(), parent_id: None, span_id };
        let Some(text) = only(headers, &TRACEPARENT) else { return new(span_id) };
        let mut parts = text.split('-');
        let (Some(version), Some(trace_id), Some(parent_id), Some(flags)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return new(span_id);
        };
        let more = parts.next().is_some();
        let legal_version = is_hex(version, 2) && version != "ff" && (version != "00" || !more);
        let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
        let legal_ids = is_hex(trace_id, 32) && !is_zero(trace_id) && is_hex(parent_id, 16) && !is_zero(parent_id);
        if !legal_version || !legal_ids || !is_hex(flags, 2) {
            return new(span_id);
        }
        Self { trace_id: trace_id.into(), parent_id: Some(parent_id.into()), span_id }
    }
}

fn request_id(headers: &HeaderMap) -> String {
    let legal = |id: &&str| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    only(headers, &REQUEST_ID).filter(legal).map_or_else(random_hex::<16>, String::from)
}

/// What is said of a request whose time is over. A commit that has begun goes on without it.
fn too_long(reads: bool) -> Problem {
    match reads {
        true => Problem::new(503, "timeout", "The request took too long and was given up"),
        false => Problem::new(503, "undecided", "The request took too long; what it asked for may have been done")
            .detail("read what it was to change before trying again; a create or a bulk edit with an Idempotency-Key is safe to repeat"),
    }
}

/// Times, counts and logs each request, and ends those that take too long.
pub async fn observe(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("none".to_string(), |path| path.as_str().to_string());
    // Whoever invents methods gets no word into the log, and makes no series.
    let method = COUNTED.into_iter().find(|known| *known == request.method().as_str()).unwrap_or("other");
    let reads = request.method().is_safe();
    let trace = Trace::of(request.headers());
    let note = Note { id: request_id(request.headers()), ..Note::default() };
    let (mut response, note) = NOTE
        .scope(RefCell::new(note), async move {
            let response = match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
                Ok(response) => response,
                Err(_) => problem_response(&too_long(reads)),
            };
            (response, NOTE.with(RefCell::take))
        })
        .await;
    if let Ok(value) = HeaderValue::from_str(&note.id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let took = began.elapsed();
    let status = response.status().as_u16();
    tracing::info!(
        target: "access",
        method,
        route,
        status,
        reason = note.reason,
        actor = note.actor,
        duration_ms = took.as_secs_f64() * 1000.0,
        request_id = note.id,
        trace_id = trace.trace_id,
        parent_id = trace.parent_id,
        span_id = trace.span_id,
        "request"
    );
    let status = status.to_string();
    metrics::counter!("origin_requests_total", "route" => route.clone(), "method" => method, "status" => status)
        .increment(1);
    metrics::histogram!("origin_request_seconds", "route" => route, "method" => method).record(took.as_secs_f64());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_trace_is_gone_on_with_if_it_is_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::of(&headers("traceparent", &[good]));
        assert_eq!(trace.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.parent_id.as_deref(), Some("00f067aa0ba902b7"));
        assert!(is_hex(&trace.span_id, 16));
        let later = Trace::of(&headers("traceparent", &[&format!("{}-more", good.replacen("00", "cc", 1))]));
        assert_eq!(later.trace_id, trace.trace_id, "of a later version, what is known");
        for bad in [
            "",
            "00",
            &format!("{good}-more"),
            &good.replacen("00", "ff", 1),
            &good.to_uppercase(),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            let made = Trace::of(&headers("traceparent", &[bad]));
            assert!(made.parent_id.is_none() && is_hex(&made.trace_id, 32), "{bad}");
        }
        assert!(Trace::of(&headers("traceparent", &[good, good])).parent_id.is_none(), "two are none");
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_write_that_took_too_long_it_is_said_that_it_may_have_been_done() {
        use axum::routing::any;
        use http_body_util::BodyExt;
        use tower::ServiceExt;
        let never = any(|| async { std::future::pending::<()>().await });
        let router = axum::Router::new().route("/", never).layer(axum::middleware::from_fn(observe));
        for (method, kind) in [("GET", "timeout"), ("HEAD", "timeout"), ("POST", "undecided"), ("DELETE", "undecided")]
        {
            let request = Request::builder().method(method).uri("/").body(axum::body::Body::empty()).unwrap();
            let answer = router.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), 503);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(body.contains(&format!("problem:{kind}\"")) || method == "HEAD", "{method}: {body}");
        }
    }

    #[test]
    fn an_id_is_taken_if_it_can_stand_in_a_log() {
        assert_eq!(request_id(&headers("x-request-id", &["a-B_9"])), "a-B_9");
        for bad in ["", "a b", "a\"b", "a;b", &"a".repeat(65)] {
            assert!(is_hex(&request_id(&headers("x-request-id", &[bad])), 32), "{bad:?}");
        }
    }
}
