//! Taking away what is kept no longer.
use super::Write;
use super::audit::KEPT_MS;
use crate::error::StoreError;
use sqlx::Row;

/// How many rows went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub sessions: u64,
    /// Kept for whoever asks with the same `Idempotency-Key`.
    pub answers: u64,
    pub purges: u64,
    pub audit: u64,
}

impl Swept {
    #[must_use]
    pub fn and(self, more: Self) -> Self {
        Self {
            sessions: self.sessions.saturating_add(more.sessions),
            answers: self.answers.saturating_add(more.answers),
            purges: self.purges.saturating_add(more.purges),
            audit: self.audit.saturating_add(more.audit),
        }
    }
}

impl Write {
    /// One part of it: at most so many rows of each log. `purges_before`, `audit_before`: what is older goes; `None`: nothing.
    pub async fn sweep(
        &mut self,
        now_ms: i64,
        purges_before: Option<i64>,
        audit_before: Option<i64>,
        limit: u32,
    ) -> Result<Swept, StoreError> {
        Ok(Swept {
            sessions: self.drop_ended_sessions(now_ms).await?,
            answers: self
                .drop_rows("DELETE FROM idempotency WHERE created_ms <= $1", now_ms.saturating_sub(KEPT_MS))
                .await?,
            purges: self.drop_oldest(&PURGES, purges_before, limit).await?,
            audit: self.drop_oldest(&AUDIT, audit_before, limit).await?,
        })
    }

    async fn drop_rows(&mut self, statement: &'static str, until: i64) -> Result<u64, StoreError> {
        Ok(sqlx::query(statement).bind(until).execute(&mut *self.tx).await?.rows_affected())
    }

    async fn drop_oldest(&mut self, log: &Log, before_ms: Option<i64>, limit: u32) -> Result<u64, StoreError> {
        let Some(before_ms) = before_ms else { return Ok(0) };
        let row =
            sqlx::query(log.youngest_of_old).bind(i64::from(limit)).bind(before_ms).fetch_one(&mut *self.tx).await?;
        match row.try_get::<Option<i64>, _>(0)? {
            Some(seq) => self.drop_rows(log.drop_until, seq).await,
            None => Ok(0),
        }
    }
}

/// A table that is written at its end only, so what is oldest stands at its beginning.
struct Log {
    youngest_of_old: &'static str,
    drop_until: &'static str,
}

/// The youngest stays: its number and mark are the log's state.
const PURGES: Log = Log {
    youngest_of_old: "SELECT max(seq) FROM (SELECT seq, committed_at_ms FROM purge_log ORDER BY seq LIMIT $1) oldest
      WHERE committed_at_ms < $2 AND seq < (SELECT seq FROM log_head)",
    drop_until: "DELETE FROM purge_log WHERE seq <= $1",
};
const AUDIT: Log = Log {
    youngest_of_old: "SELECT max(seq) FROM (SELECT seq, at_ms FROM audit ORDER BY seq, n LIMIT $1) oldest
      WHERE at_ms < $2",
    drop_until: "DELETE FROM audit WHERE seq <= $1",
};
