//! The API's description, and a page to browse it: Swagger UI, served from this binary.
use super::App;
use axum::Router;
use axum::http::header;
use axum::routing::get;
use utoipa::openapi::OpenApi;

/// `/openapi.json` and `/docs/`.
pub fn routes(described: OpenApi) -> Router<App> {
    let text = described.to_json().unwrap_or_default();
    let json = move || async move { ([(header::CONTENT_TYPE, "application/json")], text) };
    Router::new().route("/openapi.json", get(json))
}
