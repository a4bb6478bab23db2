//! The purge log: a transactional outbox. A row is written in the transaction of the write that causes it, and gets
//! its `seq` there, so that order of `seq` is order of commit.
use super::titles::json;
use super::{Engine, Row as DbRow, Snapshot, Sql, Store, Write, int_of, seq_of};
use crate::error::StoreError;
use kv_schemas::key_class::PERSONAL;
use kv_schemas::purge::{NOTE_BYTES_MAX, REPLACED_LOGS_MAX};
use kv_schemas::{AsOf, LogId, Purge, PurgeMode, SEQ_MAX, Seq, SurrogateKey};
use sqlx::Row;

/// What the caller of a purge brings; the log adds `seq` and time.
pub struct LoggedPurge<'a> {
    /// Empty: everything.
    pub keys: &'a [SurrogateKey],
    pub mode: PurgeMode,
    pub reason: Option<&'a str>,
    pub actor: Option<&'a str>,
}

/// Whether a purge names a person.
pub fn is_personal(keys: &[SurrogateKey]) -> bool {
    keys.iter().any(|key| PERSONAL.iter().any(|begins| key.as_str().starts_with(begins)))
}

/// A condition about where a text stands in the JSON list of a row's keys, up to the text. `LIKE` takes capitals for small letters in
/// one engine and not in the other; keys are other keys then.
fn place_in_keys(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => " AND instr(keys, ",
        Engine::Postgres => " AND strpos(keys, ",
    }
}

/// Rows one page of a filtered list looks at, at the most.
pub const SCAN_MAX: Seq = 10_000;

/// Which purges are wanted.
#[derive(Debug, Default)]
pub struct PurgeFilter {
    /// Only those numbered below.
    pub before: Seq,
    /// Only those numbered from here on.
    pub from_seq: Seq,
    pub key: Option<SurrogateKey>,
    pub mode: Option<PurgeMode>,
    pub actor: Option<String>,
    /// None that name a person.
    pub impersonal: bool,
    /// Committed from, and before, in milliseconds since 1970.
    pub from_ms: Option<u64>,
    pub until_ms: Option<u64>,
}

impl PurgeFilter {
    /// The lowest number a page looks at.
    pub fn first(&self) -> Seq {
        self.before.saturating_sub(SCAN_MAX).max(self.from_seq)
    }
}

/// As much of a reason, or of an actor's name, as the journal takes. One that is longer would make it refuse the batch, and all
/// that come after.
fn note(text: &str) -> &str {
    text.get(..text.floor_char_boundary(NOTE_BYTES_MAX)).unwrap_or_default()
}

/// A statement about rows of the log, with what [`purge_of`] reads of each.
macro_rules! select_purges {
    ($which:literal) => {
        concat!(
            "SELECT seq, keys, everything, mode, reason, actor, committed_at_ms, mark FROM purge_log WHERE ",
            $which
        )
    };
}

fn purge_of(row: &DbRow) -> Result<Purge, StoreError> {
    let keys: String = row.try_get("keys")?;
    let mode: String = row.try_get("mode")?;
    Ok(Purge {
        seq: seq_of(row.try_get("seq")?),
        keys: serde_json::from_str(&keys).map_err(|e| StoreError::Stored(e.to_string()))?,
        all: row.try_get::<i64, _>("everything")? != 0,
        mode: if mode == PurgeMode::Soft.as_str() { PurgeMode::Soft } else { PurgeMode::Hard },
        // Earlier releases kept them at any length.
        reason: row.try_get::<Option<String>, _>("reason")?.map(|text| note(&text).into()),
        actor: row.try_get::<Option<String>, _>("actor")?.map(|text| note(&text).into()),
        committed_at_ms: seq_of(row.try_get("committed_at_ms")?),
        mark: seq_of(row.try_get("mark")?),
    })
}

/// A random number from 1 to 2^53 - 1.
fn new_mark() -> Result<u64, StoreError> {
    let mut bits = [0; 8];
    getrandom::fill(&mut bits).map_err(|_| StoreError::Random)?;
    Ok((u64::from_be_bytes(bits) & SEQ_MAX).max(1))
}

impl Write {
    /// Adds a purge to this write.
    pub async fn purge(&mut self, purge: LoggedPurge<'_>) -> Result<Seq, StoreError> {
        let seq = self.head.saturating_add(1);
        sqlx::query(
            "INSERT INTO purge_log (seq, keys, everything, mode, reason, actor, committed_at_ms, mark)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(int_of(seq))
        .bind(json(&purge.keys)?)
        .bind(i64::from(purge.keys.is_empty()))
        .bind(purge.mode.as_str())
        .bind(purge.reason.map(note))
        .bind(purge.actor.map(note))
        .bind(crate::moment())
        .bind(int_of(new_mark()?))
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
        let rows = sqlx::query(select_purges!("seq > $1 ORDER BY seq LIMIT $2"))
            .bind(int_of(since))
            .bind(i64::from(limit))
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(purge_of).collect()
    }

    /// The oldest purge that is still kept; 0 if there is none.
    pub async fn oldest_purge(&mut self) -> Result<Seq, StoreError> {
        let row = sqlx::query("SELECT min(seq) FROM purge_log").fetch_one(&mut *self.tx).await?;
        Ok(row.try_get::<Option<i64>, _>(0)?.map_or(0, seq_of))
    }

    /// The mark of one purge; 0 if there is none.
    pub async fn mark_of(&mut self, seq: Seq) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT mark FROM purge_log WHERE seq = $1")
            .bind(int_of(seq))
            .fetch_optional(&mut *self.tx)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.map_or(0, seq_of))
    }

    /// Whether a journal that holds so much has it from this log. The same number with another mark is of a history that this
    /// database does not have (any more): it was put back, and has numbered other purges since. This has to be as young as
    /// what the journal says, or younger.
    pub async fn has_told(&mut self, (log_id, head, mark): (&LogId, Seq, u64)) -> Result<bool, StoreError> {
        if *log_id != self.as_of.log_id || head > self.as_of.seq {
            return Ok(false);
        }
        // Purges of earlier releases have none, and what is older than is kept has none any more.
        Ok(mark == 0 || [0, mark].contains(&self.mark_of(head).await?))
    }

    /// The log youngest first, as far as it fits the filter. Looks at no more than [`SCAN_MAX`] rows.
    pub async fn purges_matching(&mut self, filter: &PurgeFilter, limit: u32) -> Result<Vec<Purge>, StoreError> {
        let mut query = Sql::new(select_purges!("seq < "));
        query.bind(int_of(filter.before)).push(" AND seq >= ").bind(int_of(filter.first()));
        if let Some(mode) = filter.mode {
            query.push(" AND mode = ").bind(mode.as_str());
        }
        if let Some(actor) = &filter.actor {
            query.push(" AND actor = ").bind(actor);
        }
        if filter.impersonal {
            // Keys stand in a JSON list, each after a quote.
            for begins in PERSONAL {
                query.push(place_in_keys(self.engine)).bind(format!("\"{begins}")).push(") = 0");
            }
        }
        if let Some(key) = &filter.key {
            // Quoted, and escaped as JSON does it.
            query.push(place_in_keys(self.engine)).bind(json(key)?).push(") > 0");
        }
        if let Some(from_ms) = filter.from_ms {
            query.push(" AND committed_at_ms >= ").bind(int_of(from_ms));
        }
        if let Some(until_ms) = filter.until_ms {
            query.push(" AND committed_at_ms < ").bind(int_of(until_ms));
        }
        query.push(" ORDER BY seq DESC LIMIT ").bind(i64::from(limit));
        query.build()?.fetch_all(&mut *self.tx).await?.iter().map(purge_of).collect()
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
            |row: &DbRow| LogId::new(row.try_get::<String, _>(0)?).map_err(|e| StoreError::Stored(e.to_string()));
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
    /// Notes what the journal confirmed, unless the log has another identity by now.
    pub async fn set_delivered(&self, as_of: &AsOf) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO delivery (one, log_id, seq, at_ms) SELECT 1, log_id, $2, $3 FROM log_head WHERE log_id = $1
              ON CONFLICT (one) DO UPDATE SET log_id = excluded.log_id, seq = excluded.seq, at_ms = excluded.at_ms",
        )
        .bind(as_of.log_id.as_str())
        .bind(int_of(as_of.seq))
        .bind(crate::moment())
        .execute(&self.writer)
        .await?;
        Ok(())
    }
}
