//! The service's HTTP side: which role serves what, and what holds for every answer.
mod admin;
pub mod auth;
mod client;
mod conditional;
mod extract;
mod guard;
pub mod jwks;
pub mod limits;
mod me;
mod ops;
mod purges;

use crate::auth::Auth;
use crate::edges::Edges;
use crate::error::{ApiError, problem_response};
use crate::keys::Keys;
use crate::store::Store;
use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use kv_schemas::Problem;
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time a request may take here.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest body of an admin's request, in bytes.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// What a process of this service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Viewers' reads.
    Client,
    /// Editors' reads and writes.
    Admin,
    /// Accounts, sessions, and the keys that verify tokens.
    Auth,
    /// Delivery of purges.
    Jobs,
}

#[derive(Clone)]
pub struct App {
    pub store: Store,
    pub keys: Arc<Keys>,
    pub edges: Arc<Edges>,
    pub metrics: PrometheusHandle,
    pub auth: Arc<Auth>,
}

pub fn router(app: App, roles: &[Role]) -> Router {
    let mut router = ops::routes();
    if roles.contains(&Role::Client) {
        router = router.merge(client::routes()).merge(me::routes());
    }
    if roles.contains(&Role::Admin) {
        router = router.merge(admin::routes()).merge(purges::routes());
    }
    if roles.contains(&Role::Auth) {
        router = router.merge(auth::routes()).merge(jwks::routes());
    }
    router
        .fallback(|| async { problem_response(&Problem::new(404, "not-found", "There is nothing at this path")) })
        .method_not_allowed_fallback(|| async {
            problem_response(&Problem::new(405, "method-not-allowed", "This path does not take this method"))
        })
        .layer(axum::middleware::from_fn(observe))
        .with_state(app)
}

/// Counts and times each request, and ends those that take too long.
async fn observe(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none".to_string(), |path| path.as_str().to_string());
    let method = request.method().as_str().to_string();
    let began = Instant::now();
    let response = match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => problem_response(&Problem::new(503, "timeout", "The request took too long and was given up")),
    };
    let status = response.status().as_u16().to_string();
    metrics::counter!("origin_requests_total", "route" => route.clone(), "method" => method, "status" => status)
        .increment(1);
    metrics::histogram!("origin_request_seconds", "route" => route).record(began.elapsed().as_secs_f64());
    response
}

type ApiResult = Result<Response, ApiError>;
