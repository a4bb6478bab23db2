//! The store, on SQLite in one file or on PostgreSQL with replicas. Readers see snapshots, one writer at a time commits; a
//! write and its purge are one transaction, and what a reader is told of its state (`as_of`) comes from the very snapshot
//! it reads.
//!
//! SQL stands in this folder alone, once for both engines: `$n` placeholders; BIGINT, DOUBLE PRECISION and TEXT; truth
//! values 0 and 1; sums and averages cast to one of the three. Where engines differ, [`Engine`] tells which it is.
pub mod accounts;
mod audit;
pub mod backup;
mod bulk;
mod derived;
mod lists;
mod lost;
mod migrations;
mod news;
mod purges;
mod reach;
mod records;
mod replicas;
mod search;
mod settings;
mod similar;
mod sql;
mod sweep;
mod titles;
mod tx;
pub mod viewing;

pub use audit::{AuditFilter, AuditPlace, Change, Entry, KEPT_MS as KEPT_ANSWER_MS, KeptAnswer, OF_PEOPLE};
pub(crate) use derived::FORM as DERIVED_FORM;
pub use lists::{After, Page, RAILS_MAX};
pub use purges::{LoggedPurge, PurgeFilter, is_personal};
pub use records::Kept;
pub use search::{Found, Rank, words_of};
pub use settings::{Engine, Settings};
pub use similar::{Due, Known};
pub use sql::Sql;
pub use sweep::Expiring;
pub use titles::{Eye, Made};
pub use tx::Tx;

/// A row of either engine.
pub type Row = sqlx::any::AnyRow;
/// What statements run on.
type Conn = Timed;

use crate::error::{StoreError, is_lost};
use kv_schemas::{AsOf, LogId, Seq};
use lost::{Before, Seen};
use reach::Reach;
use replicas::Replicas;
use settings::{Access, Opening};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, ConnectOptions, Connection, Executor, Row as _};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tx::{Timed, Watch};

/// The longest wait SQLite can be told, 24 days.
const SQLITE_WAIT_MS_MAX: u64 = 2_147_483_647;
/// How long closing may take: statistics are brought up to date, connections end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct Store {
    engine: Engine,
    readers: AnyPool,
    /// In SQLite one connection: it has one writer, and waiting for it here is fairer than in SQLite's busy loop.
    writer: AnyPool,
    replicas: Arc<Replicas>,
    watch: Arc<Watch>,
    seen: Arc<Seen>,
    reach: Arc<Reach>,
    /// Told after each commit that carries a purge: one for the dispatcher, one for the schedule.
    pub committed: Arc<Notify>,
    pub changed: Arc<Notify>,
}

/// One consistent view of the database.
pub struct Snapshot {
    tx: Tx,
    engine: Engine,
    /// The youngest purge this view contains.
    pub as_of: AsOf,
    /// How many losses of commits this is after, as far as was known when it was begun.
    pub losses: u64,
    /// Some of this log were, and it has no new identity yet: numbers of it say nothing of what is newer.
    pub lacks: bool,
}

/// A write under way. Dropped without [`Write::commit`], it never was.
pub struct Write {
    tx: Tx,
    log_id: LogId,
    head: Seq,
    purged: bool,
    told: [Arc<Notify>; 2],
    seen: Arc<Seen>,
    losses: u64,
}

fn seq_of(value: i64) -> Seq {
    Seq::try_from(value).unwrap_or(0)
}

fn int_of(seq: Seq) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn head_of(row: &Row) -> Result<AsOf, StoreError> {
    let log_id = LogId::new(row.try_get::<String, _>(0)?).map_err(|e| StoreError::Stored(e.to_string()))?;
    Ok(AsOf::new(log_id, seq_of(row.try_get(1)?)))
}

fn new_log_id() -> Result<LogId, StoreError> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|_| StoreError::Random)?;
    Ok(LogId::from_random(u128::from_be_bytes(bits)))
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Requests and jobs: how long they wait is bounded.
    Serve,
    /// Bringing the database up to date. Another process may be at it for minutes, and then this one waits.
    Start,
}

impl Purpose {
    /// How long a statement waits for others, and how long it runs, in ms; each engine's own word for as long as it takes.
    fn bounds(self, engine: Engine, settings: &Settings) -> (u64, u64) {
        match (self, engine) {
            (Self::Serve, _) => (settings.wait_ms, settings.statement_ms),
            (Self::Start, Engine::Sqlite) => (SQLITE_WAIT_MS_MAX, 0),
            (Self::Start, Engine::Postgres) => (0, 0),
        }
    }
}

/// What every connection is told once.
async fn prepare(purpose: Purpose, settings: &Settings, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let engine = settings.engine();
    let (wait_ms, statement_ms) = purpose.bounds(engine, settings);
    let statement = match engine {
        // FULL: a write that was acknowledged survives the power cord. The journal mode is the file's own.
        Engine::Sqlite => format!(
            "PRAGMA busy_timeout = {}; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -16384; PRAGMA max_page_count = {}",
            wait_ms,
            // SQLite's own limit.
            settings.pages_max.unwrap_or(4_294_967_294)
        ),
        Engine::Postgres => format!(
            "SET lock_timeout = {}; SET statement_timeout = {}; SET idle_in_transaction_session_timeout = {}",
            wait_ms,
            statement_ms,
            // A request ends before; what is left over is a process that hangs, and it holds the log.
            settings.statement_ms.saturating_mul(2)
        ),
    };
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await?;
    Ok(())
}

/// Statements are timed and logged by the store's own transactions.
fn options(url: &str) -> Result<AnyConnectOptions, StoreError> {
    Ok(url.parse::<AnyConnectOptions>()?.disable_statement_logging())
}

/// The first connection, made without a pool: one tries until its time is over, and has forgotten then why it did not succeed.
async fn first(settings: &Settings, url: &str) -> Result<AnyConnection, StoreError> {
    let options = options(url)?;
    let connected = tokio::time::timeout(settings.wait(), AnyConnection::connect_with(&options)).await;
    let late = |_| sqlx::Error::Io(ErrorKind::TimedOut.into());
    let mut connection = connected.map_err(late)??;
    prepare(Purpose::Start, settings, &mut connection).await?;
    Ok(connection)
}

/// Whether somebody has made this database ours. A file is looked into for the first time by this.
async fn is_ours(engine: Engine, connection: &mut AnyConnection) -> Result<bool, StoreError> {
    let log = match engine {
        Engine::Sqlite => "SELECT count(*) FROM sqlite_schema WHERE name = 'log_head'",
        Engine::Postgres => "SELECT count(to_regclass('log_head'))",
    };
    Ok(sqlx::query_scalar::<_, i64>(log).fetch_one(connection).await? > 0)
}

/// A pool of at most `count` connections, none of which is made yet.
fn pool(settings: &Settings, url: &str, count: u32) -> Result<AnyPool, StoreError> {
    pool_for(Purpose::Serve, settings, url, count)
}

fn pool_for(purpose: Purpose, settings: &Settings, url: &str, count: u32) -> Result<AnyPool, StoreError> {
    let engine = settings.engine();
    let options = options(url)?;
    let prepared = settings.clone();
    let pool = match purpose {
        Purpose::Serve => AnyPoolOptions::new(),
        // Whoever brings the database up to date holds a lock on its connection for as long as that takes.
        Purpose::Start => AnyPoolOptions::new().max_lifetime(None).idle_timeout(None),
    };
    let pool = pool
        .max_connections(count)
        .acquire_timeout(settings.wait())
        // A file does not hang up; a server does.
        .test_before_acquire(engine == Engine::Postgres)
        // With a full or failing disk SQLite ends a transaction by itself, which the driver does not notice: it would begin no
        // other on this connection, and there is one writer.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .after_connect(move |connection, _| {
            let settings = prepared.clone();
            Box::pin(async move { prepare(purpose, &settings, connection).await })
        });
    Ok(pool.connect_lazy_with(options))
}

impl Store {
    /// SQLite in this file, with the default bounds.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::connect(&Settings::sqlite(path)).await
    }

    /// Opens the database, makes it when it is not there, and brings it up to date: for who serves it.
    pub async fn connect(settings: &Settings) -> Result<Self, StoreError> {
        Self::connect_to(settings, Opening::Serve).await
    }

    /// Brings a database up to date that is there.
    pub async fn migrate(settings: &Settings) -> Result<Self, StoreError> {
        Self::connect_to(settings, Opening::Migrate).await
    }

    /// Opens the database, and makes it when it is not there: for who fills it. One that is there has to be of this release.
    pub async fn connect_to_fill(settings: &Settings) -> Result<Self, StoreError> {
        Self::connect_to(settings, Opening::Fill).await
    }

    /// The same for a database that must be there: one whose name is misspelt has nothing in it that could be used, and would
    /// take what is meant for another. It must be of this release, too, for processes of another may be at work on it: they
    /// could not go on, and a backup taken so could not be restored by the release it is to lead back to.
    pub async fn connect_existing(settings: &Settings) -> Result<Self, StoreError> {
        Self::connect_to(settings, Opening::Use).await
    }

    async fn connect_to(settings: &Settings, opening: Opening) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let engine = settings.engine();
        let url = settings.primary_url(opening.access())?;
        let absent = || StoreError::Absent(settings.place());
        if !opening.makes() && settings.file().is_some_and(|file| file.try_exists().is_ok_and(|there| !there)) {
            return Err(absent());
        }
        let mut first = first(settings, &url).await?;
        let is_there = is_ours(engine, &mut first).await?;
        if !is_there && !opening.makes() {
            return Err(absent());
        }
        if is_there && !opening.upgrades() {
            migrations::check(engine, &mut first).await?;
            derived::check(&mut first).await?;
        }
        first.close().await?;
        let writer = pool(settings, &url, if engine == Engine::Sqlite { 1 } else { settings.writers })?;
        let readers = pool(settings, &settings.primary_url(Access::Read)?, settings.readers)?;
        let threshold = Duration::from_millis(settings.slow_statement_ms);
        let watch = Watch::start(engine, readers.clone(), threshold, settings.remember_statements);
        let seen = Arc::<Seen>::default();
        let replicas = match settings.replica_urls.is_empty() {
            true => Arc::new(Replicas::none()),
            false => Replicas::start(settings, &url, Arc::clone(&seen))?,
        };
        let (reach, committed, changed) = Default::default();
        let store = Self { engine, readers, writer, replicas, watch, seen, reach, committed, changed };
        if is_there && !opening.upgrades() {
            return Ok(store);
        }
        let starter = Self { writer: pool_for(Purpose::Start, settings, &url, 1)?, ..store.clone() };
        let mut started = std::pin::pin!(starter.bring_up_to_date(settings));
        match tokio::time::timeout(settings.wait(), &mut started).await {
            Ok(started) => started?,
            Err(_) => {
                tracing::info!("the database is being brought up to date, here or by another process");
                started.await?;
            }
        }
        Ok(store)
    }

    /// Schema, log, and what is derived, on a connection that waits for other processes at the same for as long as they take.
    async fn bring_up_to_date(&self, settings: &Settings) -> Result<(), StoreError> {
        if self.engine == Engine::Sqlite {
            sqlx::raw_sql("PRAGMA journal_mode = WAL").execute(&self.writer).await?;
        }
        migrations::run(settings, &self.writer).await?;
        ensure_log(&self.writer).await?;
        self.derive().await?;
        // With it goes the lock that lets others start.
        self.writer.close().await;
        Ok(())
    }

    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The newest state: what editors and jobs read.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let before = self.seen.before();
        let mut snapshot = self.told(Snapshot::begin(self.engine, &self.readers, &self.watch).await).await?;
        snapshot.losses = self.seen.saw(&before, &snapshot.as_of);
        snapshot.lacks = self.seen.lacking().as_ref() == Some(&snapshot.as_of.log_id);
        Ok(snapshot)
    }

    /// What viewers read: a replica's state where there are replicas, and the primary's when none of them has `min`, or when some
    /// may have what the primary has lost.
    /// Whether the primary itself has it is for the caller to see.
    pub async fn client_snapshot(&self, min: Option<&AsOf>) -> Result<Snapshot, StoreError> {
        let losses = self.seen.before().losses;
        let replica = match self.seen.lacking() {
            Some(_) => None,
            None => self.replicas.snapshot(min, &self.watch).await,
        };
        match replica {
            Some(snapshot) => Ok(Snapshot { losses, ..snapshot }),
            None => self.snapshot().await,
        }
    }

    /// Refused where a newer release has given another form to what is derived: what this one derives would be taken for it, and
    /// nobody would look at it again.
    pub async fn write(&self) -> Result<Write, StoreError> {
        // The lock on the head of the log is PostgreSQL's single writer: whoever has it numbers the next purges, and keeps
        // it until its commit is visible. So order of numbers is order of commit, without a gap. Both rows are locked: whoever
        // waited for the lock reads of a locked row what stands there now, and of any other what stood there before.
        let (begin, head) = match self.engine {
            Engine::Sqlite => ("BEGIN IMMEDIATE", "SELECT log_id, seq, form FROM log_head, derived"),
            Engine::Postgres => ("BEGIN", "SELECT log_id, seq, form FROM log_head, derived FOR UPDATE"),
        };
        let before = self.seen.before();
        let begun = self.writer.begin_with(begin).await.map_err(StoreError::from);
        let mut tx = Timed::begun(self.told(begun).await?, &self.watch);
        let row = sqlx::query(head).fetch_one(&mut *tx).await?;
        derived::check_not_newer(row.try_get(2)?)?;
        let head = head_of(&row)?;
        let losses = self.seen.saw(&before, &head);
        let seen = Arc::clone(&self.seen);
        let told = [Arc::clone(&self.committed), Arc::clone(&self.changed)];
        Ok(Write { tx, log_id: head.log_id, head: head.seq, purged: false, told, seen, losses })
    }

    /// Every statement that was run so far, if the settings said so.
    pub fn statements(&self) -> Vec<String> {
        self.watch.statements()
    }

    /// How the engine would run a statement; nothing is run.
    pub async fn explain(&self, sql: &str) -> Result<String, StoreError> {
        Ok(tx::explain(self.engine, &self.readers, sql).await?)
    }

    /// Gives the log a new identity, which purges everything everywhere. For a database that went back in time: its
    /// numbers have been used before.
    pub async fn replace_log(&self) -> Result<AsOf, StoreError> {
        let mut write = self.write().await?;
        write.rename_log().await?;
        write.commit().await
    }

    /// The same, unless another process has done it meanwhile: then it is not done twice.
    pub async fn replace_log_of(&self, old: &LogId) -> Result<Option<AsOf>, StoreError> {
        let mut write = self.write().await?;
        if write.log_id != *old {
            return Ok(None);
        }
        write.rename_log().await?;
        write.commit().await.map(Some)
    }

    pub async fn close(&self) {
        let close = async {
            if self.engine == Engine::Sqlite {
                // What the planner knows of the tables is brought up to date, where much has changed.
                let _ = sqlx::raw_sql("PRAGMA optimize").execute(&self.writer).await;
            }
            self.replicas.close().await;
            self.readers.close().await;
            self.writer.close().await;
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, close).await;
    }
}

async fn ensure_log(writer: &AnyPool) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO log_head (one, log_id, seq) VALUES (1, $1, 0) ON CONFLICT (one) DO NOTHING")
        .bind(new_log_id()?.as_str())
        .execute(writer)
        .await?;
    Ok(())
}

impl Snapshot {
    async fn begin(engine: Engine, pool: &AnyPool, watch: &Arc<Watch>) -> Result<Self, StoreError> {
        let begin = match engine {
            Engine::Sqlite => "BEGIN",
            Engine::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        };
        let mut tx = Timed::begun(pool.begin_with(begin).await?, watch);
        // The first read pins the snapshot; everything after sees this state and no other.
        let as_of = head_of(&sqlx::query("SELECT log_id, seq FROM log_head").fetch_one(&mut *tx).await?)?;
        Ok(Self { tx, engine, as_of, losses: 0, lacks: false })
    }

    /// Whether this is a replica's state. For tests: nothing that is answered may depend on it.
    pub async fn is_replica(&mut self) -> Result<bool, StoreError> {
        if self.engine == Engine::Sqlite {
            return Ok(false);
        }
        Ok(sqlx::query("SELECT pg_is_in_recovery()").fetch_one(&mut *self.tx).await?.try_get(0)?)
    }
}

impl Write {
    /// The state this write will have made, if it is committed now.
    pub fn as_of(&self) -> AsOf {
        AsOf::new(self.log_id.clone(), self.head)
    }

    /// Sees the commit through and tells of its purge, even if whoever asked for it is gone meanwhile: a client that leaves, or
    /// a request whose time is over, must not leave the two half done.
    pub async fn commit(self) -> Result<AsOf, StoreError> {
        match tokio::spawn(self.finish()).await {
            Ok(done) => done,
            // It panicked, or the process ends.
            Err(_) => Err(StoreError::Undecided(sqlx::Error::WorkerCrashed)),
        }
    }

    async fn finish(self) -> Result<AsOf, StoreError> {
        let as_of = self.as_of();
        let done = self.tx.commit().await;
        // With the connection lost in the middle the write may have been made; then its purge was too.
        if self.purged {
            self.told.iter().for_each(|told| told.notify_one());
        }
        match done {
            Ok(()) => {
                self.seen.saw(&Before { youngest: None, losses: self.losses }, &as_of);
                Ok(as_of)
            }
            Err(error) if is_lost(&error) => Err(StoreError::Undecided(error)),
            Err(error) => Err(error.into()),
        }
    }
}
