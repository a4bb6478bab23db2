//! Where errors become problem+json, the one place for it. What a client sees and what the log says are two texts:
//! internals never leave.
use super::access_log::note_reason;
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
        let problem = match self {
            Self::Refused(problem) => problem,
            Self::TooOften(policy, wait) => return too_often(policy, wait),
            Self::Store(error) => {
                let problem = problem_of(&error);
                let kind = problem.kind.as_str();
                match problem.status {
                    500 => tracing::error!(%error, kind, "the store failed"),
                    _ => tracing::warn!(%error, kind, "the store cannot serve"),
                }
                problem
            }
            Self::Failed(error) => {
                tracing::error!(error, "the service failed");
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
