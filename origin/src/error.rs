//! Errors of the service, and the one place where they become problem+json. What a client sees and what the log says
//! are two texts: internals never leave.
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
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("database migration: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A row that this release did not write so.
    #[error("stored data is not readable: {0}")]
    Stored(String),
    #[error("no randomness from the system")]
    Random,
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Whether trying again may help: the writer is busy, the pool is exhausted.
fn is_passing(error: &StoreError) -> bool {
    match error {
        StoreError::Database(sqlx::Error::PoolTimedOut) => true,
        // SQLITE_BUSY and SQLITE_LOCKED in their plain and extended forms.
        StoreError::Database(sqlx::Error::Database(error)) => {
            error.code().and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| matches!(code & 0xff, 5 | 6))
        }
        _ => false,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = match self {
            Self::Refused(problem) => problem,
            Self::Store(error) if is_passing(&error) => {
                tracing::warn!(%error, "the store is busy");
                Problem::new(503, "busy", "The service is busy; try again in a moment")
            }
            Self::Store(error) => {
                tracing::error!(%error, "the store failed");
                Problem::new(500, "internal", "The service failed; the fault is on its side")
            }
        };
        problem_response(&problem)
    }
}

pub fn problem_response(problem: &Problem) -> Response {
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
