//! Calls to the edge: the one client for all of them, and the questions how far purges have come and what one would touch.
//! Those read only; purges go through the log.
use crate::keys::{KeyError, Keys};
use axum::body::Bytes;
use kv_schemas::claims::{Scope, body_digest};
use kv_schemas::receipt::{DryRun, EdgeReceipt, JournalSummary};
use kv_schemas::{PurgeRequest, Seq};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const RECEIPT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a dry run waits for all edges together.
const DRY_RUN_TIMEOUT: Duration = Duration::from_secs(5);
const TOKEN_LIFETIME_S: u64 = 60;
/// What is kept of a refusal, in characters.
const REFUSAL_CHARS_MAX: usize = 500;

/// Why a call of the edge has no answer, said for the log.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("no edge is configured")]
    NoEdge,
    #[error("the edge could not be reached: {}", with_causes(.0))]
    Unreachable(#[from] reqwest::Error),
    #[error("the edge answered {status}: {body}")]
    Refused { status: u16, body: String },
    #[error("the edge's answer is not of the expected form: {0}")]
    Form(serde_json::Error),
    #[error("the call of the edge cannot be written as JSON: {0}")]
    Unwritten(serde_json::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl CallError {
    /// The same for staff: neither addresses nor what the edge said.
    pub fn said(&self) -> String {
        match self {
            Self::NoEdge => self.to_string(),
            Self::Unreachable(_) => "the edge could not be reached".into(),
            Self::Refused { status, .. } => format!("the edge answered {status}"),
            Self::Form(_) => "the edge's answer could not be read".into(),
            Self::Unwritten(_) | Self::Key(_) => "the edge could not be asked".into(),
        }
    }
}

/// An error and what it came from: reqwest's own text ends before the cause.
fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause: &&dyn Error| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What an edge is asked, as any of them can be.
pub struct Call {
    path: String,
    scope: Scope,
    body: Option<Bytes>,
}

impl Call {
    pub fn get(path: impl Into<String>, scope: Scope) -> Self {
        Self { path: path.into(), scope, body: None }
    }

    pub fn post(path: impl Into<String>, scope: Scope, body: &impl Serialize) -> Result<Self, CallError> {
        let body = serde_json::to_vec(body).map_err(CallError::Unwritten)?;
        Ok(Self { path: path.into(), scope, body: Some(body.into()) })
    }
}

/// Calls edges by their base URLs, each call with a token of its own, which names the body it was made for.
pub struct Client {
    keys: Arc<Keys>,
    http: reqwest::Client,
    edges: Vec<String>,
}

/// Who says nothing of the kind is taken for a bot by what stands in front of Workers.
const AGENT: &str = concat!("nextream-origin/", env!("CARGO_PKG_VERSION"));

impl Client {
    /// `timeout`: of one call, from its beginning to the last byte of its answer.
    pub fn new(keys: Arc<Keys>, edges: &[String], timeout: Duration) -> reqwest::Result<Self> {
        // Somebody may have chosen a provider before; either will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(timeout).no_proxy().user_agent(AGENT).build()?;
        let edges = edges.iter().map(|url| url.trim_end_matches('/').to_string()).collect();
        Ok(Self { keys, http, edges })
    }

    pub fn edges(&self) -> &[String] {
        &self.edges
    }

    /// Calls one edge. Anything but 200 is a refusal.
    pub async fn call<T: DeserializeOwned>(&self, edge: &str, call: &Call) -> Result<T, CallError> {
        let url = format!("{edge}{}", call.path);
        let digest = call.body.as_deref().map(body_digest);
        let token = self.keys.edge_token(call.scope, digest, TOKEN_LIFETIME_S)?;
        let request = match &call.body {
            None => self.http.get(url),
            Some(body) => {
                let json = HeaderValue::from_static("application/json");
                self.http.post(url).header(CONTENT_TYPE, json).body(body.clone())
            }
        };
        let response = request.bearer_auth(token).send().await?;
        let status = response.status().as_u16();
        let body = response.bytes().await?;
        if status != 200 {
            let body = String::from_utf8_lossy(&body).chars().take(REFUSAL_CHARS_MAX).collect();
            return Err(CallError::Refused { status, body });
        }
        serde_json::from_slice(&body).map_err(CallError::Form)
    }

    /// Calls one edge after the other until one answers. The error is the last one's.
    pub async fn call_any<T: DeserializeOwned>(&self, call: &Call) -> Result<T, CallError> {
        let mut failed = CallError::NoEdge;
        for edge in &self.edges {
            match self.call(edge, call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    tracing::debug!(%error, edge, "an edge is passed over");
                    failed = error;
                }
            }
        }
        Err(failed)
    }
}

/// Edges, each of which leads to the same journal.
pub struct Edges {
    client: Client,
    /// The last question had no answer.
    is_silent: AtomicBool,
}

impl Edges {
    pub fn new(keys: Arc<Keys>, urls: &[String]) -> reqwest::Result<Self> {
        Ok(Self { client: Client::new(keys, urls, RECEIPT_TIMEOUT)?, is_silent: AtomicBool::new(false) })
    }

    async fn ask<T: DeserializeOwned>(&self, path: String) -> Result<T, CallError> {
        let answer = self.client.call_any(&Call::get(path, Scope::PurgeReceipt)).await;
        match &answer {
            Ok(_) => self.is_silent.store(false, Relaxed),
            // Said when the service started.
            Err(CallError::NoEdge) => {}
            // Once: whoever waits for a receipt asks many times a second.
            Err(error) if !self.is_silent.swap(true, Relaxed) => {
                tracing::warn!(%error, "questions about purges are not answered");
            }
            Err(error) => tracing::debug!(%error, "questions about purges are not answered"),
        }
        answer
    }

    pub async fn receipt(&self, seq: Seq) -> Result<EdgeReceipt, CallError> {
        self.ask(format!("/__edge/purges/{seq}")).await
    }

    pub async fn summary(&self) -> Result<JournalSummary, CallError> {
        self.ask("/__edge/purges".into()).await
    }

    /// What each edge knows of what a purge would touch; those that do not answer in time are left out.
    pub async fn dry_run(&self, request: &PurgeRequest) -> Vec<DryRun> {
        let mut known = Vec::new();
        let call = match Call::post("/__edge/purges/dry-run", Scope::PurgeReceipt, request) {
            Ok(call) => call,
            Err(error) => {
                tracing::error!(%error, "a dry run was not asked for");
                return known;
            }
        };
        let deadline = tokio::time::Instant::now() + DRY_RUN_TIMEOUT;
        for edge in self.client.edges() {
            match tokio::time::timeout_at(deadline, self.client.call(edge, &call)).await {
                Ok(Ok(answer)) => known.push(answer),
                Ok(Err(error)) => tracing::warn!(%error, edge, "a dry run was not answered"),
                Err(_) => tracing::warn!(edge, "a dry run was not answered: there was no time left"),
            }
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderMap, StatusCode};
    use serde_json::{Value, json};

    /// An edge that gives this answer, and `null` instead to who comes without a token.
    async fn edge(status: StatusCode, body: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let answer = move |headers: HeaderMap| async move {
            let is_told =
                headers.get("authorization").is_some_and(|value| value.to_str().unwrap().starts_with("Bearer "));
            (status, if is_told { body } else { "null" })
        };
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        url
    }

    /// One that was there and is no more.
    async fn gone() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    async fn call(edges: &[String]) -> Result<Value, CallError> {
        let dir = tempfile::tempdir().unwrap();
        crate::keys::generate(dir.path()).unwrap();
        let client = Client::new(Arc::new(crate::keys::load(dir.path()).unwrap()), edges, RECEIPT_TIMEOUT).unwrap();
        client.call_any(&Call::post("/__edge/warm", Scope::Warm, &json!({}))?).await
    }

    #[tokio::test]
    async fn the_first_edge_that_answers_is_taken() {
        let busy = edge(StatusCode::SERVICE_UNAVAILABLE, "busy").await;
        let well = edge(StatusCode::OK, r#"{"a":1}"#).await;
        let other = edge(StatusCode::OK, r#"{"a":2}"#).await;
        assert_eq!(call(&[gone().await, busy, well, other]).await.unwrap(), json!({"a": 1}));
        assert!(matches!(call(&[]).await, Err(CallError::NoEdge)));
    }

    #[tokio::test]
    async fn the_log_learns_what_a_call_failed_of_and_staff_only_that_it_did() {
        let unreachable = call(&[gone().await]).await.unwrap_err();
        assert!(unreachable.to_string().contains("refused"), "{unreachable}");
        assert_eq!(unreachable.said(), "the edge could not be reached");
        let refused = call(&[edge(StatusCode::FORBIDDEN, "not you").await]).await.unwrap_err();
        assert_eq!(refused.to_string(), "the edge answered 403: not you");
        assert_eq!(refused.said(), "the edge answered 403");
        let strange = call(&[edge(StatusCode::OK, "hello").await]).await.unwrap_err();
        assert!(strange.to_string().contains("line 1 column 1"), "{strange}");
        assert_eq!(strange.said(), "the edge's answer could not be read");
    }
}
