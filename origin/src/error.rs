//! Errors of the store, and what the engines' own codes mean.
use std::path::PathBuf;

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
    /// No file, or one without a single table of ours.
    #[error("there is no database at {0}; `serve`, `import`, `generate` and `restore` make one")]
    Absent(String),
    /// What it lacks is for `serve` and `migrate` alone to give: after that the release before cannot read it.
    #[error(
        "it is of an older release ({what} {found}, this program's is {own}). Back it up with the program of that release; then \
         `origin migrate`, or a start of `origin serve`, brings it up to date"
    )]
    Older { what: Versioned, found: i64, own: i64 },
    #[error(
        "it is of a newer release ({what} {found}, this program's is {own}). Use the program of that release; the way back is to \
         restore a backup that this one made"
    )]
    Newer { what: Versioned, found: i64, own: i64 },
    /// The connection was lost while a commit was under way: it may have been made.
    #[error("the connection was lost during a commit: {0}")]
    Undecided(sqlx::Error),
    /// A row that this release did not write so.
    #[error("stored data is not readable: {0}")]
    Stored(String),
    #[error("{0} cannot be the path of a database: {1}")]
    Path(PathBuf, std::io::Error),
    #[error("no randomness from the system")]
    Random,
}

/// What of a database a release can be too old or too new for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versioned {
    /// Its tables: the number of the youngest migration.
    Schema,
    /// What is derived of titles and rails.
    Derived,
}

impl std::fmt::Display for Versioned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Schema => "schema",
            Self::Derived => "form of what is derived",
        })
    }
}

/// What a failure of the store comes to, whichever engine it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A commit was made, or was not.
    Undecided,
    /// Another try may succeed in a moment.
    Busy,
    /// The database cannot be reached.
    Lost,
    /// There is no room left.
    Full,
    Other,
}

impl StoreError {
    pub fn failure(&self) -> Failure {
        match self {
            Self::Undecided(_) => Failure::Undecided,
            // A release takes the place of this one: a process of it can do what this one may not.
            Self::Newer { .. } => Failure::Busy,
            Self::Database(sqlx::Error::PoolTimedOut) => Failure::Busy,
            Self::Database(error) if is_lost(error) => Failure::Lost,
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().map_or(Failure::Other, |code| failure_of(&code))
            }
            _ => Failure::Other,
        }
    }
}

/// Whether the database, not the statement, is what failed.
pub fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| failure_of(&code) == Failure::Lost),
        _ => false,
    }
}

/// PostgreSQL's codes have five characters, SQLite's are numbers below 10,000 with the plain code in the low byte.
fn failure_of(code: &str) -> Failure {
    match (code.len(), code) {
        // lock_not_available, query_canceled (a statement's time is over), serialization_failure (a replica's conflict
        // with what it replays), deadlock_detected, too_many_connections.
        (5, "55P03" | "57014" | "40001" | "40P01" | "53300") => Failure::Busy,
        // admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped; read_only_sql_transaction: a primary that
        // was demoted.
        (5, "57P01" | "57P02" | "57P03" | "57P04" | "25006") => Failure::Lost,
        (5, code) if code.starts_with("08") => Failure::Lost,
        (5, "53100") => Failure::Full,
        (5, _) => Failure::Other,
        _ => match code.parse::<u32>().map(|code| code & 0xff) {
            // SQLITE_BUSY, SQLITE_LOCKED.
            Ok(5 | 6) => Failure::Busy,
            // SQLITE_FULL.
            Ok(13) => Failure::Full,
            _ => Failure::Other,
        },
    }
}
