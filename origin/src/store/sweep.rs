//! Taking away what is kept no longer: a bounded part of one kind at a time. Were it all of a kind at once, or all kinds in one
//! transaction, then what has gathered while nobody swept could take longer than a statement may, and would never go.
use super::Write;
use crate::error::StoreError;
use sqlx::Row;

/// What is kept for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiring {
    Sessions,
    Invitations,
    /// Kept for whoever asks with the same `Idempotency-Key`.
    Answers,
    Purges,
    Audit,
}

impl Write {
    /// Takes away at most so many rows, those whose time is over longest: what ended until this moment, or, of the two logs and of
    /// answers, what is as old. Says how many went. Nothing is purged for sessions: tokens of theirs have expired long before.
    pub async fn sweep(&mut self, what: Expiring, until_ms: i64, limit: u32) -> Result<u64, StoreError> {
        let statement = match what {
            Expiring::Sessions => {
                "DELETE FROM session WHERE id IN
                  (SELECT id FROM session WHERE idle_end_ms <= $1 ORDER BY idle_end_ms LIMIT $2)"
            }
            Expiring::Invitations => {
                "DELETE FROM invitation WHERE hash IN
                  (SELECT hash FROM invitation WHERE end_ms <= $1 ORDER BY end_ms LIMIT $2)"
            }
            Expiring::Answers => {
                "DELETE FROM idempotency WHERE (actor, key) IN
                  (SELECT actor, key FROM idempotency WHERE created_ms <= $1 ORDER BY created_ms LIMIT $2)"
            }
            Expiring::Purges => return self.drop_oldest(&PURGES, until_ms, limit).await,
            Expiring::Audit => return self.drop_oldest(&AUDIT, until_ms, limit).await,
        };
        let done = sqlx::query(statement).bind(until_ms).bind(i64::from(limit)).execute(&mut *self.tx).await?;
        Ok(done.rows_affected())
    }

    async fn drop_oldest(&mut self, log: &Log, until_ms: i64, limit: u32) -> Result<u64, StoreError> {
        let row =
            sqlx::query(log.youngest_of_old).bind(i64::from(limit)).bind(until_ms).fetch_one(&mut *self.tx).await?;
        let Some(seq) = row.try_get::<Option<i64>, _>(0)? else { return Ok(0) };
        Ok(sqlx::query(log.drop_until).bind(seq).execute(&mut *self.tx).await?.rows_affected())
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
      WHERE committed_at_ms <= $2 AND seq < (SELECT seq FROM log_head)",
    drop_until: "DELETE FROM purge_log WHERE seq <= $1",
};
const AUDIT: Log = Log {
    youngest_of_old: "SELECT max(seq) FROM (SELECT seq, at_ms FROM audit ORDER BY seq, n LIMIT $1) oldest
      WHERE at_ms <= $2",
    drop_until: "DELETE FROM audit WHERE seq <= $1",
};
