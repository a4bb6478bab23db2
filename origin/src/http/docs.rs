//! The API's description, and a page to browse it: Swagger UI, whole in this binary; it loads nothing from elsewhere.
use super::error::ApiError;
use super::extract::Segment;
use super::{ApiResult, App};
use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use kv_schemas::Problem;
use std::sync::Arc;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, serve};

/// Nothing from elsewhere, and nobody's frame. Swagger UI writes styles and pictures of its own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// `/openapi.json` and `/docs/`.
pub fn routes(described: OpenApi) -> Router<App> {
    let text = described.to_json().unwrap_or_default();
    let json = move || async move { ([(header::CONTENT_TYPE, "application/json")], text) };
    // No field for other descriptions; groups are closed, and found by typing; a request is tried with one click less.
    let config =
        Config::from("/openapi.json").validator_url("none").use_base_layout().doc_expansion("none").filter(true);
    let config = config.try_it_out_enabled(true).display_request_duration(true).default_models_expand_depth(0);
    let config = Arc::new(config);
    let page = move |path: String| {
        let config = Arc::clone(&config);
        async move { file(&path, config) }
    };
    let index = page.clone();
    Router::new()
        .route("/openapi.json", get(json))
        .route("/docs", get(|| async { Redirect::permanent("/docs/") }))
        .route("/docs/", get(move || index(String::new())))
        .route("/docs/{*path}", get(move |Segment(path): Segment| page(path)))
}

fn file(path: &str, config: Arc<Config<'static>>) -> ApiResult {
    match serve(path, config) {
        Ok(Some(file)) => {
            let fields = [
                (header::CONTENT_TYPE, HeaderValue::from_str(&file.content_type)),
                (header::CONTENT_SECURITY_POLICY, Ok(HeaderValue::from_static(POLICY))),
                (header::X_CONTENT_TYPE_OPTIONS, Ok(HeaderValue::from_static("nosniff"))),
            ];
            let fields = fields.map(|(name, value)| (name, value.unwrap_or(HeaderValue::from_static(""))));
            Ok((fields, file.bytes.into_owned()).into_response())
        }
        Ok(None) => Err(Problem::new(404, "not-found", "There is nothing at this path").into()),
        Err(error) => Err(ApiError::Failed(error.to_string())),
    }
}
