//! Asking the edge how far purges have come, and what one would touch. Reads only; purges go through the log.
use crate::keys::{KeyError, Keys};
use kv_schemas::claims::Scope;
use kv_schemas::receipt::{DryRun, EdgeReceipt, JournalSummary};
use kv_schemas::{PurgeRequest, Seq};
use reqwest::Method;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

const CALL_TIMEOUT: Duration = Duration::from_secs(2);
const TOKEN_LIFETIME_S: u64 = 60;

#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    #[error("no edge is configured")]
    None,
    #[error("the edge could not be reached")]
    Unreachable(#[from] reqwest::Error),
    #[error("the edge answered {0}")]
    Refused(u16),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Base URLs of edges, each of which leads to the same journal.
pub struct Edges {
    keys: Arc<Keys>,
    client: reqwest::Client,
    urls: Vec<String>,
}

impl Edges {
    pub fn new(keys: Arc<Keys>, urls: &[String]) -> reqwest::Result<Self> {
        // Somebody may have chosen a provider before; either will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(CALL_TIMEOUT).no_proxy().build()?;
        let urls = urls.iter().map(|url| url.trim_end_matches('/').to_string()).collect();
        Ok(Self { keys, client, urls })
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, url: String, body: String) -> Result<T, EdgeError> {
        let token = self.keys.edge_token(Scope::PurgeReceipt, None, TOKEN_LIFETIME_S)?;
        let response = self.client.request(method, url).bearer_auth(token).body(body).send().await?;
        match response.status().as_u16() {
            200 => Ok(response.json().await?),
            status => Err(EdgeError::Refused(status)),
        }
    }

    /// The first edge that answers.
    async fn any<T: DeserializeOwned>(&self, path: &str) -> Result<T, EdgeError> {
        let mut error = EdgeError::None;
        for url in &self.urls {
            match self.call(Method::GET, format!("{url}{path}"), String::new()).await {
                Ok(answer) => return Ok(answer),
                Err(other) => error = other,
            }
        }
        Err(error)
    }

    pub async fn receipt(&self, seq: Seq) -> Result<EdgeReceipt, EdgeError> {
        self.any(&format!("/__edge/purges/{seq}")).await
    }

    pub async fn summary(&self) -> Result<JournalSummary, EdgeError> {
        self.any("/__edge/purges").await
    }

    /// What each edge knows of what a purge would touch; those that do not answer are left out.
    pub async fn dry_run(&self, request: &PurgeRequest) -> Vec<DryRun> {
        let mut known = Vec::new();
        let body = serde_json::to_string(request).unwrap_or_default();
        for url in &self.urls {
            match self.call(Method::POST, format!("{url}/__edge/purges/dry-run"), body.clone()).await {
                Ok(answer) => known.push(answer),
                Err(error) => tracing::warn!(%error, url, "a dry run was not answered"),
            }
        }
        known
    }
}
