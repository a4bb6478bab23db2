//! Which database the store uses and within which bounds: what the command line and the environment say.
use crate::error::StoreError;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The two engines the store speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// What becomes of a database as it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// Made when it is not there, brought up to date when it is of an older release.
    Serve,
    /// Brought up to date; it must be there.
    Migrate,
    /// Made when it is not there; one that is there must be of this release.
    Fill,
    /// There, and of this release.
    Use,
}

impl Opening {
    pub fn makes(self) -> bool {
        matches!(self, Self::Serve | Self::Fill)
    }

    pub fn upgrades(self) -> bool {
        matches!(self, Self::Serve | Self::Migrate)
    }

    pub fn access(self) -> Access {
        if self.makes() { Access::Make } else { Access::Write }
    }
}

/// What a connection may do with a SQLite file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    /// One that is there.
    Write,
    /// One that is made when it is not there.
    Make,
}

impl Access {
    fn mode(self) -> &'static str {
        match self {
            Self::Read => "ro",
            Self::Write => "rw",
            Self::Make => "rwc",
        }
    }
}

/// Where the database is, and the store's bounds.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// SQLite file. `serve`, `import`, `generate` and `restore` make it when it is not there.
    #[arg(long, env = "ORIGIN_DATABASE", required_unless_present = "database_url", conflicts_with = "database_url")]
    pub database: Option<PathBuf>,
    /// PostgreSQL primary: postgres://user:password@host:port/database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Streaming replicas of it, for viewers' reads.
    #[arg(long, env = "REPLICA_URLS", value_delimiter = ',', hide_env_values = true, requires = "database_url")]
    pub replica_urls: Vec<String>,
    /// Connections for reads, to each database; where there are replicas, one more to each looks whether it is there.
    #[arg(long, env = "ORIGIN_READERS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub readers: u32,
    /// Connections for writes; SQLite has one.
    #[arg(long, env = "ORIGIN_WRITERS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub writers: u32,
    /// How long a request waits for a connection, or for the writer before it.
    #[arg(long, env = "ORIGIN_WAIT_MS", default_value_t = 5_000)]
    pub wait_ms: u64,
    /// How long one statement may run (PostgreSQL).
    #[arg(long, env = "ORIGIN_STATEMENT_MS", default_value_t = 10_000)]
    pub statement_ms: u64,
    /// From when on a statement is logged, with its plan.
    #[arg(long, env = "ORIGIN_SLOW_STATEMENT_MS", default_value_t = 250)]
    pub slow_statement_ms: u64,
    /// A replica that is further behind than this is passed over.
    #[arg(long, env = "ORIGIN_REPLICA_LAG_MS", default_value_t = 5_000)]
    pub replica_lag_ms: u64,
    /// SQLite grows to so many pages and no further, for tests that fill it.
    #[arg(skip)]
    pub pages_max: Option<u32>,
    /// Remembers every statement that was run, for tests that look at plans.
    #[arg(skip)]
    pub remember_statements: bool,
}

impl Settings {
    fn bounds() -> Self {
        Self {
            database: None,
            database_url: None,
            replica_urls: Vec::new(),
            readers: 8,
            writers: 4,
            wait_ms: 5_000,
            statement_ms: 10_000,
            slow_statement_ms: 250,
            replica_lag_ms: 5_000,
            pages_max: None,
            remember_statements: false,
        }
    }

    /// SQLite in this file, with the default bounds.
    pub fn sqlite(path: &Path) -> Self {
        Self { database: Some(path.into()), ..Self::bounds() }
    }

    /// PostgreSQL at this address, with the default bounds.
    pub fn postgres(url: &str, replica_urls: &[String]) -> Self {
        Self { database_url: Some(url.into()), replica_urls: replica_urls.into(), ..Self::bounds() }
    }

    pub fn engine(&self) -> Engine {
        if self.database_url.is_some() { Engine::Postgres } else { Engine::Sqlite }
    }

    /// What an error message may say about where the database is: never a password.
    pub fn place(&self) -> String {
        match (&self.database_url, &self.database) {
            (Some(url), _) => place_of(url),
            (None, Some(path)) => path.display().to_string(),
            (None, None) => "nowhere".into(),
        }
    }

    /// SQLite's file.
    pub(super) fn file(&self) -> Option<&Path> {
        self.database.as_deref().filter(|_| self.database_url.is_none())
    }

    pub(super) fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }

    /// The address the driver takes.
    pub(super) fn primary_url(&self, access: Access) -> Result<String, StoreError> {
        if let Some(url) = &self.database_url {
            return Ok(url.clone());
        }
        let path = self.database.as_deref().unwrap_or(Path::new("origin.sqlite"));
        let wrong = |error| StoreError::Path(path.into(), error);
        let absolute = std::path::absolute(path).map_err(wrong)?;
        let file = reqwest::Url::from_file_path(absolute).map_err(|()| wrong(ErrorKind::InvalidFilename.into()))?;
        Ok(format!("sqlite://{}?mode={}", file.path(), access.mode()))
    }
}

/// What may be said of a database's URL: where it is. A password may stand in its query, too, and an `@` in a password.
pub(super) fn place_of(url: &str) -> String {
    let Ok(url) = reqwest::Url::parse(url) else { return "a database whose URL cannot be read".into() };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let mut place = format!("{}{port}{}", url.host_str().unwrap_or_default(), url.path());
    // The folder of a socket, say.
    for (name, value) in url.query_pairs().filter(|(name, _)| ["host", "hostaddr", "port"].contains(&name.as_ref())) {
        place.push_str(&format!(" {name}={value}"));
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_databases_place_has_no_password() {
        for (url, place) in [
            ("postgres://ada:secret@db1:5433/nextream", "db1:5433/nextream"),
            ("postgres://db1/nextream?user=ada&password=secret", "db1/nextream"),
            ("postgres://ada@db1/nextream?password=s%40cret@secret&sslmode=require", "db1/nextream"),
            ("postgres://ada@db1/nextream?password=x@secret", "db1/nextream"),
            ("postgres:///nextream?host=/run/postgresql&password=secret", "/nextream host=/run/postgresql"),
            ("postgres://ada:sec?ret@db1/nextream", "a database whose URL cannot be read"),
        ] {
            assert_eq!(place_of(url), place);
        }
    }

    #[test]
    fn a_path_that_cannot_be_used_is_named_as_the_cause() {
        let error = Settings::sqlite(Path::new("")).primary_url(Access::Make).unwrap_err();
        assert!(matches!(&error, StoreError::Path(path, _) if path == Path::new("")), "{error}");
        assert!(
            Settings::sqlite(Path::new("a b?.sqlite"))
                .primary_url(Access::Make)
                .unwrap()
                .ends_with("a%20b%3F.sqlite?mode=rwc")
        );
    }
}
