//! Takes away what is kept no longer, now and then: sessions and invitations whose time is over, which open nothing any more;
//! answers to creates that may not be asked for again; and, older than the operator wants them, rows of the purge log and of
//! the audit log. Nothing here is told to anybody: what goes has no say any more, or, in the purge log, whoever still needs
//! it finds it gone and takes everything for purged.
use crate::error::StoreError;
use crate::store::{Store, Swept};
use std::time::Duration;
use tokio::sync::watch;

const PAUSE: Duration = Duration::from_secs(3600);
/// Rows of one transaction: others write meanwhile.
const BATCH: u32 = 5_000;
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

/// Runs until `stop` turns true.
pub async fn run(store: Store, retention: Retention, mut stop: watch::Receiver<bool>) {
    loop {
        match once(&store, retention).await {
            Ok(swept) if swept == Swept::default() => {}
            Ok(Swept { sessions, answers, purges, audit }) => {
                tracing::info!(sessions, answers, purges, audit, "what is kept no longer was taken away");
            }
            Err(error) => tracing::warn!(%error, "what is kept no longer could not be taken away"),
        }
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Once; says how much went.
pub async fn once(store: &Store, retention: Retention) -> Result<Swept, StoreError> {
    let now_ms = crate::moment();
    let before = |days: u16| (days > 0).then(|| now_ms.saturating_sub(i64::from(days).saturating_mul(DAY_MS)));
    let (purges, audit) = (before(retention.keep_purges_days), before(retention.keep_audit_days));
    let mut all = Swept::default();
    loop {
        let mut write = store.write().await?;
        let swept = write.sweep(now_ms, purges, audit, BATCH).await?;
        write.commit().await?;
        if swept == Swept::default() {
            return Ok(all);
        }
        all = all.and(swept);
    }
}
