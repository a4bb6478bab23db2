//! Takes away what is kept no longer, now and then: sessions and invitations whose time is over, which open nothing any more;
//! answers to creates that may not be asked for again; and, older than the operator wants them, rows of the purge log and of
//! the audit log. Nothing here is told to anybody: what goes has no say any more, or, in the purge log, whoever still needs
//! it finds it gone and takes everything for purged.
use crate::error::StoreError;
use crate::store::{Expiring, KEPT_ANSWER_MS, Store};
use std::time::Duration;
use tokio::sync::watch;

const PAUSE: Duration = Duration::from_secs(3600);
/// Rows of one transaction: others write meanwhile.
const BATCH: u32 = 5_000;
/// Sessions of one: dozens of refresh tokens can go with each.
const SESSIONS: u32 = 500;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// How long it is kept what somebody may still want to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Retention {
    /// Days a purge and its receipt can be looked up; 0: for ever. The youngest purge is always kept.
    #[arg(long, env = "ORIGIN_KEEP_PURGES_DAYS", default_value_t = 30)]
    pub keep_purges_days: u16,
    /// Days an entry of the audit log can be looked up; 0: for ever.
    #[arg(long, env = "ORIGIN_KEEP_AUDIT_DAYS", default_value_t = 365)]
    pub keep_audit_days: u16,
}

/// How many rows went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub sessions: u64,
    pub invitations: u64,
    pub answers: u64,
    pub purges: u64,
    pub audit: u64,
}

/// Runs until `stop` turns true.
pub async fn run(store: Store, retention: Retention, mut stop: watch::Receiver<bool>) {
    loop {
        let swept = once(&store, retention).await;
        if swept != Swept::default() {
            let Swept { sessions, invitations, answers, purges, audit } = swept;
            tracing::info!(sessions, invitations, answers, purges, audit, "what is kept no longer was taken away");
        }
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Once; says how much went. What cannot be taken away is logged, and keeps nothing else from going.
pub async fn once(store: &Store, retention: Retention) -> Swept {
    let now_ms = crate::moment();
    let before = |days: u16| (days > 0).then(|| now_ms.saturating_sub(i64::from(days).saturating_mul(DAY_MS)));
    Swept {
        sessions: all(store, Expiring::Sessions, Some(now_ms), SESSIONS).await,
        invitations: all(store, Expiring::Invitations, Some(now_ms), BATCH).await,
        answers: all(store, Expiring::Answers, Some(now_ms.saturating_sub(KEPT_ANSWER_MS)), BATCH).await,
        purges: all(store, Expiring::Purges, before(retention.keep_purges_days), BATCH).await,
        audit: all(store, Expiring::Audit, before(retention.keep_audit_days), BATCH).await,
    }
}

/// Everything of one kind, in transactions of at most so many rows. `until_ms`: nothing goes without.
async fn all(store: &Store, what: Expiring, until_ms: Option<i64>, batch: u32) -> u64 {
    let Some(until_ms) = until_ms else { return 0 };
    let mut count: u64 = 0;
    loop {
        match part(store, what, until_ms, batch).await {
            Ok(0) => return count,
            Ok(more) => count = count.saturating_add(more),
            Err(error) => {
                metrics::counter!("origin_job_failures_total", "task" => "sweep").increment(1);
                tracing::warn!(%error, ?what, count, "what is kept no longer could not be taken away");
                return count;
            }
        }
    }
}

async fn part(store: &Store, what: Expiring, until_ms: i64, batch: u32) -> Result<u64, StoreError> {
    let mut write = store.write().await?;
    let count = write.sweep(what, until_ms, batch).await?;
    write.commit().await?;
    Ok(count)
}
