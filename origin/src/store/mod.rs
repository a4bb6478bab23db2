//! The store: SQLite in one file. Readers see snapshots, one writer at a time commits; a write and its purge are one
//! transaction, and what a reader is told of its state (`as_of`) comes from the very snapshot it reads.
//!
//! SQL stands in this folder alone, with `$n` placeholders and types that PostgreSQL knows too.
mod purges;
mod rails;
mod titles;

pub use purges::{LoggedPurge, PurgeFilter};
pub use titles::Page;

use crate::error::StoreError;
use kv_schemas::{AsOf, LogId, Seq};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, Sqlite, Transaction};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

const READERS: u32 = 8;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

#[derive(Clone)]
pub struct Store {
    readers: SqlitePool,
    /// One connection: SQLite has one writer, and waiting for it here is fairer than in SQLite's busy loop.
    writer: SqlitePool,
    /// Told after each commit that carries a purge: one for the dispatcher, one for the schedule.
    pub committed: Arc<Notify>,
    pub changed: Arc<Notify>,
}

/// One consistent view of the database.
pub struct Snapshot {
    tx: Transaction<'static, Sqlite>,
    /// The youngest purge this view contains.
    pub as_of: AsOf,
}

/// A write under way. Dropped without [`Write::commit`], it never was.
pub struct Write {
    tx: Transaction<'static, Sqlite>,
    log_id: LogId,
    head: Seq,
    purged: bool,
    told: [Arc<Notify>; 2],
}

fn seq_of(value: i64) -> Seq {
    Seq::try_from(value).unwrap_or(0)
}

fn int_of(seq: Seq) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

async fn log_head(tx: &mut Transaction<'static, Sqlite>) -> Result<AsOf, StoreError> {
    let row = sqlx::query("SELECT log_id, seq FROM log_head").fetch_one(&mut **tx).await?;
    let log_id = LogId::new(row.try_get::<String, _>(0)?).map_err(|e| StoreError::Stored(e.to_string()))?;
    Ok(AsOf::new(log_id, seq_of(row.try_get(1)?)))
}

fn new_log_id() -> Result<LogId, StoreError> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|_| StoreError::Random)?;
    Ok(LogId::from_random(u128::from_be_bytes(bits)))
}

impl Store {
    /// Opens the database, makes it when it is not there, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A write that was acknowledged survives the power cord.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .optimize_on_close(true, None);
        let writer = SqlitePoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
        let writer = writer.connect_with(options.clone()).await?;
        MIGRATIONS.run(&writer).await?;
        let readers = SqlitePoolOptions::new().max_connections(READERS).acquire_timeout(ACQUIRE_TIMEOUT);
        let readers = readers.connect_with(options.read_only(true)).await?;
        let store = Self { readers, writer, committed: Arc::default(), changed: Arc::default() };
        store.ensure_log().await?;
        Ok(store)
    }

    async fn ensure_log(&self) -> Result<(), StoreError> {
        let log_id = new_log_id()?;
        sqlx::query("INSERT INTO log_head (one, log_id, seq) VALUES (1, $1, 0) ON CONFLICT (one) DO NOTHING")
            .bind(log_id.as_str())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut tx = self.readers.begin().await?;
        // The first read pins the snapshot; everything after sees this state and no other.
        let as_of = log_head(&mut tx).await?;
        Ok(Snapshot { tx, as_of })
    }

    pub async fn write(&self) -> Result<Write, StoreError> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let head = log_head(&mut tx).await?;
        let told = [Arc::clone(&self.committed), Arc::clone(&self.changed)];
        Ok(Write { tx, log_id: head.log_id, head: head.seq, purged: false, told })
    }

    /// Gives the log a new identity, which purges everything everywhere. For a database that went back in time: its
    /// numbers have been used before.
    pub async fn replace_log(&self) -> Result<AsOf, StoreError> {
        let mut write = self.write().await?;
        sqlx::query(
            "INSERT INTO replaced_log (log_id, replaced_at_ms) VALUES ($1, $2)
               ON CONFLICT (log_id) DO UPDATE SET replaced_at_ms = excluded.replaced_at_ms",
        )
        .bind(write.log_id.as_str())
        .bind(int_of(crate::now_ms()))
        .execute(&mut *write.tx)
        .await?;
        write.log_id = new_log_id()?;
        sqlx::query("UPDATE log_head SET log_id = $1").bind(write.log_id.as_str()).execute(&mut *write.tx).await?;
        write.purged = true;
        write.commit().await
    }

    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

impl Write {
    /// The state this write will have made, if it is committed now.
    pub fn as_of(&self) -> AsOf {
        AsOf::new(self.log_id.clone(), self.head)
    }

    pub async fn commit(self) -> Result<AsOf, StoreError> {
        let as_of = self.as_of();
        self.tx.commit().await?;
        if self.purged {
            self.told.iter().for_each(|told| told.notify_one());
        }
        Ok(as_of)
    }
}
