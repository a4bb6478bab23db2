//! For operators: liveness, readiness, metrics. Not routed by the edge.
use super::{ApiResult, App};
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// The database answers.
async fn ready(State(app): State<App>) -> ApiResult {
    let as_of = app.store.snapshot().await?.as_of;
    Ok(format!("ready {as_of}\n").into_response())
}

async fn metrics(State(app): State<App>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.render())
}
