//! The service's HTTP side: which role serves what, and what holds for every answer.
pub mod access_log;
mod accounts;
mod admin;
mod answers;
mod attempt;
mod audit;
pub mod auth;
mod bulk;
mod client;
mod conditional;
mod docs;
pub mod error;
mod extract;
mod guard;
mod idempotency;
pub mod jwks;
pub mod limits;
mod me;
mod ops;
mod packed;
mod purges;
mod query;
mod records;
mod rendered;
pub mod shed;
mod spec;
mod viewer;

use crate::auth::Auth;
use crate::edges::Edges;
use crate::keys::Keys;
use crate::rendered::Rendered;
use crate::store::Store;
use crate::warm::InUse;
use axum::Router;
use axum::response::Response;
use error::{ApiError, problem_response};
use kv_schemas::Problem;
use kv_schemas::purge::BATCH_BYTES_MAX;
use metrics_exporter_prometheus::PrometheusHandle;
use shed::{Door, Gates, Work};
use std::sync::Arc;
use std::time::Duration;

/// Longest time a request may take here.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest body of an admin's request, in bytes.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// What a process of this service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Viewers' reads, and their lists and progress.
    Client,
    /// Editors' reads and writes.
    Admin,
    /// Accounts, sessions, and the keys that verify tokens.
    Auth,
    /// Delivery of purges, windows of availability that open and close, similar titles, and taking away what is older than is
    /// kept.
    Jobs,
}

#[derive(Clone)]
pub struct App {
    pub store: Store,
    pub keys: Arc<Keys>,
    pub edges: Arc<Edges>,
    pub metrics: PrometheusHandle,
    pub auth: Arc<Auth>,
    pub gates: Arc<Gates>,
    /// `None`: every document is rendered each time.
    pub rendered: Option<Arc<Rendered>>,
    /// What edges ask for, where documents are warmed; needs `rendered`.
    pub in_use: Option<Arc<InUse>>,
}

pub fn router(app: App, roles: &[Role]) -> Router {
    let behind = |routes: Router<App>, (read, write): (Work, Work), body_bytes_max: usize| {
        let door = Door { gates: Arc::clone(&app.gates), read, write, body_bytes_max };
        routes.route_layer(axum::middleware::from_fn_with_state(door, shed::shed))
    };
    let mut described = spec::Api::new();
    // Not behind a gate: a service that is full must still be able to say so.
    let mut router = described.describe(ops::api());
    if roles.contains(&Role::Client) {
        let shared = axum::middleware::from_fn_with_state(app.clone(), rendered::serve);
        let routes = described.describe(client::api()).route_layer(shared).merge(described.describe(me::api()));
        let routes = routes.route_layer(axum::middleware::from_fn_with_state(app.clone(), viewer::believe));
        router = router.merge(behind(routes, (Work::ClientRead, Work::ClientWrite), me::BODY_BYTES_MAX));
    }
    if roles.contains(&Role::Admin) {
        let routes = described.describe(admin::api().merge(purges::api()).merge(accounts::api()));
        router = router.merge(behind(routes, (Work::AdminRead, Work::AdminWrite), BATCH_BYTES_MAX));
    }
    if roles.contains(&Role::Auth) {
        // With log-ins shed, tokens there are go on being verified.
        router = router.merge(described.describe(jwks::api()));
        router = router.merge(behind(described.describe(auth::api()), (Work::Auth, Work::Auth), auth::BODY_BYTES_MAX));
    }
    router
        .merge(docs::routes(described.end()))
        .fallback(|| async { problem_response(&Problem::new(404, "not-found", "There is nothing at this path")) })
        .method_not_allowed_fallback(|| async {
            problem_response(&Problem::new(405, "method-not-allowed", "This path does not take this method"))
        })
        .layer(axum::middleware::from_fn(access_log::observe))
        .with_state(app)
}

type ApiResult = Result<Response, ApiError>;
