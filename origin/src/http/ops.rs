//! For operators: liveness, readiness, metrics. Not routed by the edge.
use super::spec::{Api, Op, text};
use super::{ApiResult, App};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use utoipa::openapi::path::HttpMethod;

pub fn api() -> Api {
    let op = |summary: &str| Op::new("operators", summary);
    let plain = "text/plain; charset=utf-8";
    Api::new()
        .add(
            HttpMethod::Get,
            "/healthz",
            get(|| async { "ok\n" }),
            op("The process answers").answer_as(200, "It does", plain, text()),
        )
        .add(
            HttpMethod::Get,
            "/readyz",
            get(ready),
            op("The database answers").answer_as(200, "The state it is at", plain, text()),
        )
        .add(
            HttpMethod::Get,
            "/metrics",
            get(metrics),
            op("Metrics").answer_as(200, "Prometheus's text format", METRICS, text()),
        )
}

const METRICS: &str = "text/plain; version=0.0.4";

/// The database answers.
async fn ready(State(app): State<App>) -> ApiResult {
    let as_of = app.store.snapshot().await?.as_of;
    Ok(format!("ready {as_of}\n").into_response())
}

async fn metrics(State(app): State<App>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS)], app.metrics.render())
}
