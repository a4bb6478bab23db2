//! The purge log: a transactional outbox. A row is written in the transaction of the write that causes it, and gets
//! its `seq` there, so that order of `seq` is order of commit.
use super::titles::json;
use super::{Snapshot, Store, Write, int_of, seq_of};
use crate::error::StoreError;
use kv_schemas::purge::REPLACED_LOGS_MAX;
use kv_schemas::{AsOf, LogId, Purge, PurgeMode, Seq, SurrogateKey};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// What the caller of a purge brings; the log adds `seq` and time.
pub struct LoggedPurge<'a> {
    /// Empty: everything.
    pub keys: &'a [SurrogateKey],
    pub mode: PurgeMode,
    pub reason: Option<&'a str>,
    pub actor: Option<&'a str>,
}

fn purge_of(row: &SqliteRow) -> Result<Purge, StoreError> {
    let keys: String = row.try_get("keys")?;
    let mode: String = row.try_get("mode")?;
    Ok(Purge {
        seq: seq_of(row.try_get("seq")?),
        keys: serde_json::from_str(&keys).map_err(|e| StoreError::Stored(e.to_string()))?,
        all: row.try_get::<i64, _>("everything")? != 0,
        mode: if mode == PurgeMode::Soft.as_str() { PurgeMode::Soft } else { PurgeMode::Hard },
        reason: row.try_get("reason")?,
        actor: row.try_get("actor")?,
        committed_at_ms: u64::try_from(row.try_get::<i64, _>("committed_at_ms")?).unwrap_or(0),
    })
}

impl Write {
    /// Adds a purge to this write.
    pub async fn purge(&mut self, purge: LoggedPurge<'_>) -> Result<Seq, StoreError> {
        let seq = self.head.saturating_add(1);
        sqlx::query(
            "INSERT INTO purge_log (seq, keys, everything, mode, reason, actor, committed_at_ms)
              VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(int_of(seq))
        .bind(json(&purge.keys)?)
        .bind(i64::from(purge.keys.is_empty()))
        .bind(purge.mode.as_str())
        .bind(purge.reason)
        .bind(purge.actor)
        .bind(int_of(crate::now_ms()))
        .execute(&mut *self.tx)
        .await?;
        sqlx::query("UPDATE log_head SET seq = $1").bind(int_of(seq)).execute(&mut *self.tx).await?;
        self.head = seq;
        self.purged = true;
        Ok(seq)
    }
}

impl Snapshot {
    /// The log after `since`, in order.
    pub async fn purges_after(&mut self, since: Seq, limit: u32) -> Result<Vec<Purge>, StoreError> {
        let rows = sqlx::query("SELECT * FROM purge_log WHERE seq > $1 ORDER BY seq LIMIT $2")
            .bind(int_of(since))
            .bind(i64::from(limit))
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(purge_of).collect()
    }

    /// The log before `before`, youngest first.
    pub async fn purges_before(&mut self, before: Seq, limit: u32) -> Result<Vec<Purge>, StoreError> {
        let rows = sqlx::query("SELECT * FROM purge_log WHERE seq < $1 ORDER BY seq DESC LIMIT $2")
            .bind(int_of(before))
            .bind(i64::from(limit))
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(purge_of).collect()
    }

    /// Identities this log had before, youngest first.
    pub async fn replaced_logs(&mut self) -> Result<Vec<LogId>, StoreError> {
        let rows =
            sqlx::query("SELECT log_id FROM replaced_log WHERE log_id <> $1 ORDER BY replaced_at_ms DESC LIMIT $2")
                .bind(self.as_of.log_id.as_str())
                .bind(i64::try_from(REPLACED_LOGS_MAX).unwrap_or(0))
                .fetch_all(&mut *self.tx)
                .await?;
        let read =
            |row: &SqliteRow| LogId::new(row.try_get::<String, _>(0)?).map_err(|e| StoreError::Stored(e.to_string()));
        rows.iter().map(read).collect()
    }

    /// The highest `seq` the edge's journal has confirmed of this log.
    pub async fn delivered(&mut self) -> Result<Seq, StoreError> {
        let row = sqlx::query("SELECT seq FROM delivery WHERE log_id = $1")
            .bind(self.as_of.log_id.as_str())
            .fetch_optional(&mut *self.tx)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.map_or(0, seq_of))
    }
}

impl Store {
    /// Notes what the journal confirmed.
    pub async fn set_delivered(&self, as_of: &AsOf) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO delivery (one, log_id, seq, at_ms) VALUES (1, $1, $2, $3)
              ON CONFLICT (one) DO UPDATE SET log_id = excluded.log_id, seq = excluded.seq, at_ms = excluded.at_ms",
        )
        .bind(as_of.log_id.as_str())
        .bind(int_of(as_of.seq))
        .bind(int_of(crate::now_ms()))
        .execute(&self.writer)
        .await?;
        Ok(())
    }
}
