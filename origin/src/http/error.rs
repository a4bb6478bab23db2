//! Where errors become problem+json, the one place for it. What a client sees and what the log says are two texts:
//! internals never leave.
use super::access_log::{note_reason, noted_id};
use super::limits::too_often;
use crate::auth::accounts::InviteError;
use crate::auth::password::HashError;
use crate::auth::secret::NoRandomness;
use crate::auth::throttle::{Throttle, Wait};
use crate::error::{Failure, StoreError};
use crate::keys::KeyError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kv_schemas::Problem;
use kv_schemas::header::PROBLEM_JSON;

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The client's fault, said as the client is to read it.
    #[error("{}", .0.title)]
    Refused(Problem),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody guesses too fast.
    #[error("too many attempts under {}", .0.name)]
    TooOften(Throttle, Wait),
    /// The service's fault, said for the log.
    #[error("{0}")]
    Failed(String),
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<NoRandomness> for ApiError {
    fn from(error: NoRandomness) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<InviteError> for ApiError {
    fn from(error: InviteError) -> Self {
        match error {
            InviteError::Store(error) => error.into(),
            error => Self::Failed(error.to_string()),
        }
    }
}

impl From<HashError> for ApiError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Busy => Self::Refused(Problem::new(503, "busy", "The service is busy; try again in a moment")),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// What a failure of the store means to a client.
fn problem_of(error: &StoreError) -> Problem {
    let unchanged = |status, slug, title: &str| Problem::new(status, slug, title).detail("nothing was changed");
    match error.failure() {
        Failure::Undecided => Problem::new(503, "undecided", "The database was lost while it was storing the change")
            .detail("the change may have been made; read it again before trying again"),
        Failure::Busy => unchanged(503, "busy", "The service is busy; try again in a moment"),
        Failure::Lost => {
            let title = "The service cannot reach its database; try again in a moment";
            unchanged(503, "database-unreachable", title)
        }
        Failure::Full => unchanged(507, "storage-full", "The service has no room left to store anything"),
        Failure::Other => internal(),
    }
}

fn internal() -> Problem {
    Problem::new(500, "internal", "The service failed; the fault is on its side")
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let request_id = noted_id();
        let problem = match self {
            Self::Refused(problem) => problem,
            Self::TooOften(policy, wait) => return too_often(policy, wait),
            Self::Store(error) => {
                let problem = problem_of(&error);
                let kind = problem.kind.as_str();
                match problem.status {
                    500 => tracing::error!(%error, kind, request_id, "the store failed"),
                    _ => tracing::warn!(%error, kind, request_id, "the store cannot serve"),
                }
                problem
            }
            Self::Failed(error) => {
                tracing::error!(error, request_id, "the service failed");
                internal()
            }
        };
        problem_response(&problem)
    }
}

pub fn problem_response(problem: &Problem) -> Response {
    note_reason(problem.slug());
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, problem.to_json()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match problem.status {
        401 => _ = headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
        503 => _ = headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1")),
        _ => {}
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use tower::ServiceExt;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Whoever has a line of the access log finds the cause by it, and the other way round.
    #[tokio::test]
    async fn the_cause_of_a_failure_is_logged_under_the_id_of_its_request() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let failed = || async { Err::<(), _>(ApiError::Failed("no randomness".into())) };
        let unreadable = || async { Err::<(), _>(ApiError::Store(StoreError::Stored("a row".into()))) };
        let lost = || async { Err::<(), _>(ApiError::Store(StoreError::Database(sqlx::Error::WorkerCrashed))) };
        let router = axum::Router::new().route("/a", get(failed)).route("/b", get(unreadable)).route("/c", get(lost));
        let router = router.layer(axum::middleware::from_fn(super::super::access_log::observe));
        let causes =
            [("/a", 500, "the service failed"), ("/b", 500, "the store failed"), ("/c", 503, "the store cannot serve")];
        for (path, status, cause) in causes {
            let request = axum::extract::Request::get(path).header("x-request-id", format!("id-of-{}", &path[1..]));
            let answer = router.clone().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
            assert_eq!(answer.status(), status);
            let id = answer.headers()["x-request-id"].to_str().unwrap();
            let text = String::from_utf8(std::mem::take(&mut *log.0.lock().unwrap())).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            let said: Vec<_> = lines
                .filter(|line| line["fields"]["request_id"] == id)
                .map(|line| line["fields"]["message"].as_str().unwrap().to_string())
                .collect();
            assert_eq!(said, [cause, "request"], "{path}: {text}");
        }
    }
}
