//! Errors of the service, and the one place where they become problem+json. What a client sees and what the log says
//! are two texts: internals never leave.
use crate::auth::accounts::InviteError;
use crate::auth::password::HashError;
use crate::auth::secret::NoRandomness;
use crate::auth::throttle::{Throttle, Wait};
use crate::http::access_log::note_reason;
use crate::http::limits::too_often;
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

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("database migration: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error(
        "the database orders text by {0}; it must be by code point: CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8' \
         LOCALE 'C.UTF-8'"
    )]
    Collation(String),
    /// The connection was lost while a commit was under way: it may have been made.
    #[error("the connection was lost during a commit: {0}")]
    Undecided(sqlx::Error),
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
    let busy = || Problem::new(503, "busy", "The service is busy; try again in a moment").detail("nothing was changed");
    let lost = || {
        Problem::new(503, "database-unreachable", "The service cannot reach its database; try again in a moment")
            .detail("nothing was changed")
    };
    let full = || {
        Problem::new(507, "storage-full", "The service has no room left to store anything")
            .detail("nothing was changed")
    };
    match error {
        StoreError::Undecided(_) => {
            Problem::new(503, "undecided", "The database was lost while it was storing the change")
                .detail("the change may have been made; read it again before trying again")
        }
        StoreError::Database(sqlx::Error::PoolTimedOut) => busy(),
        StoreError::Database(error) if is_lost(error) => lost(),
        StoreError::Database(sqlx::Error::Database(error)) => match error.code().as_deref().map(class_of) {
            Some(Class::Busy) => busy(),
            Some(Class::Full) => full(),
            _ => internal(),
        },
        _ => internal(),
    }
}

/// Whether the database, not the statement, is what failed.
pub fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| matches!(class_of(&code), Class::Lost)),
        _ => false,
    }
}

fn internal() -> Problem {
    Problem::new(500, "internal", "The service failed; the fault is on its side")
}

enum Class {
    Busy,
    Lost,
    Full,
    Other,
}

/// PostgreSQL's codes have five characters, SQLite's are numbers below 10,000 with the plain code in the low byte.
fn class_of(code: &str) -> Class {
    match (code.len(), code) {
        // lock_not_available, query_canceled (a statement's time is over), serialization_failure (a replica's conflict
        // with what it replays), deadlock_detected, too_many_connections.
        (5, "55P03" | "57014" | "40001" | "40P01" | "53300") => Class::Busy,
        // admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped; read_only_sql_transaction: a primary that
        // was demoted.
        (5, "57P01" | "57P02" | "57P03" | "57P04" | "25006") => Class::Lost,
        (5, code) if code.starts_with("08") => Class::Lost,
        (5, "53100") => Class::Full,
        (5, _) => Class::Other,
        _ => match code.parse::<u32>().map(|code| code & 0xff) {
            // SQLITE_BUSY, SQLITE_LOCKED.
            Ok(5 | 6) => Class::Busy,
            // SQLITE_FULL.
            Ok(13) => Class::Full,
            _ => Class::Other,
        },
    }
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
