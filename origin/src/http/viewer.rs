//! What the edge says of a request's viewer, and whether it was the edge that said it.
use super::App;
use super::error::problem_response;
use crate::auth::Unproven;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use kv_schemas::Problem;
use kv_schemas::viewer::Dimensions;

/// A field's first value, if it is a text.
pub fn field<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whom the answer is for.
pub fn said(headers: &HeaderMap) -> Dimensions {
    Dimensions::from_fields(|name| field(headers, name))
}

/// The layer before all of viewers' routes: with a secret, what is said of a viewer without proof is answered by no document.
/// It is a failure of the service, not of the viewer: where edge and origin have different secrets, or clocks, the edge is to
/// go on with what it holds, and not to hand out a refusal in its place.
pub async fn believe(State(app): State<App>, request: Request, next: Next) -> Response {
    if app.auth.is_viewer_proven(|name| field(request.headers(), name)) {
        return next.run(request).await;
    }
    metrics::counter!("origin_viewers_unproven_total").increment(1);
    if app.auth.unproven == Unproven::Counted {
        return next.run(request).await;
    }
    let problem =
        Problem::new(503, "viewer-unproven", "What is said of the viewer is not the word of an edge known here");
    problem_response(&problem.detail("edge and origin need the same secret, and clocks less than an hour apart"))
}
