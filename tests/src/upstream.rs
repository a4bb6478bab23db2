//! An origin that does what it is told: answers by path, counts what it was asked, and can hold answers open.
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;

/// Every path that has no script of its own.
pub const ANY: &str = "*";

/// What to answer at a path.
#[derive(Clone, Debug)]
pub struct Script {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub target: String,
    pub headers: HashMap<String, String>,
    pub body: Bytes,
}

#[derive(Default)]
struct Inner {
    scripts: HashMap<String, Script>,
    asked: Vec<Asked>,
}

#[derive(Clone)]
struct Shared {
    inner: Arc<Mutex<Inner>>,
    held: Arc<watch::Sender<bool>>,
}

pub struct Upstream {
    pub port: u16,
    shared: Shared,
    task: tokio::task::JoinHandle<()>,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("cannot listen");
        let port = listener.local_addr().expect("no address").port();
        let shared = Shared { inner: Arc::default(), held: Arc::new(watch::channel(false).0) };
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { port, shared, task }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().expect("poisoned")
    }

    /// From now on, `path` is answered so.
    pub fn answer(&self, path: &str, headers: &[(&str, &str)], body: &str) {
        self.script(path, 200, headers, body);
    }

    pub fn script(&self, path: &str, status: u16, headers: &[(&str, &str)], body: &str) {
        self.bytes(path, status, headers, body.as_bytes());
    }

    pub fn bytes(&self, path: &str, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        self.inner().scripts.insert(path.into(), Script { status, headers, body: Bytes::copy_from_slice(body) });
    }

    /// How often a path (without query) was asked for.
    pub fn count(&self, path: &str) -> usize {
        let inner = self.inner();
        inner.asked.iter().filter(|asked| asked.target.split('?').next() == Some(path)).count()
    }

    pub fn last(&self) -> Asked {
        self.inner().asked.last().cloned().expect("nothing was asked")
    }

    /// Everything that was asked, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.inner().asked.clone()
    }

    /// Answers are made, but kept back until this is undone.
    pub fn hold(&self, held: bool) {
        self.shared.held.send_replace(held);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let asked = Asked {
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().map_or_else(String::new, |target| target.to_string()),
        headers: parts.headers.iter().map(|(name, value)| (name.as_str().to_string(), text(value))).collect(),
        body,
    };
    let script = {
        let mut inner = shared.inner.lock().expect("poisoned");
        inner.asked.push(asked);
        inner.scripts.get(parts.uri.path()).or_else(|| inner.scripts.get(ANY)).cloned()
    };
    // The answer is decided before it is held, as a database read before a purge would be.
    let mut held = shared.held.subscribe();
    let _ = held.wait_for(|held| !held).await;
    let Some(Script { status, headers, body }) = script else {
        return Response::builder().status(404).body(Body::from("no script")).expect("a response");
    };
    let etag = headers.iter().find(|(name, _)| name == "etag").map(|(_, value)| value.as_str());
    let unchanged = etag.is_some() && parts.headers.get("if-none-match").and_then(|v| v.to_str().ok()) == etag;
    let mut response = Response::builder().status(if unchanged { 304 } else { status });
    for (name, value) in &headers {
        response = response.header(name, value);
    }
    response.body(if unchanged { Body::empty() } else { Body::from(body) }).expect("a response")
}
