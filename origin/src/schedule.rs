//! Availability windows: at its time a title appears or goes, in one transaction with the purge of every page that shows
//! it. Pages are fresh no longer than until that moment anyway ([`crate::catalog::documents`]); the purge makes it exact
//! for lists it joins and for copies that are served stale.
use crate::catalog::keys;
use crate::catalog::model::Title;
use crate::error::StoreError;
use crate::store::{LoggedPurge, Store};
use kv_schemas::PurgeMode;
use std::time::Duration;
use tokio::sync::watch;

/// Titles changed in one transaction.
const BATCH: u32 = 200;
/// The longest sleep: clocks are set, and other processes write too.
const SLEEP_MAX: Duration = Duration::from_secs(5);

/// Runs until `stop` turns true.
pub async fn run(store: Store, mut stop: watch::Receiver<bool>) {
    loop {
        let pause = match turn(&store).await {
            Ok(next_ms) => {
                let left_ms = next_ms.map(|at_ms| u64::try_from(at_ms.saturating_sub(now())).unwrap_or(0));
                left_ms.map_or(SLEEP_MAX, |ms| Duration::from_millis(ms).min(SLEEP_MAX))
            }
            Err(error) => {
                tracing::warn!(%error, "the schedule could not be kept; trying again");
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(pause) => {}
            // A write may bring an earlier moment.
            () = store.changed.notified() => {}
        }
    }
}

fn now() -> i64 {
    i64::try_from(crate::now_ms()).unwrap_or(i64::MAX)
}

/// Does what is due, and says when there is something to do next.
pub async fn turn(store: &Store) -> Result<Option<i64>, StoreError> {
    loop {
        let now_ms = now();
        let mut snapshot = store.snapshot().await?;
        let is_due = snapshot.is_title_due(now_ms).await?;
        let next_ms = snapshot.next_change_ms(now_ms).await?;
        drop(snapshot);
        if !is_due {
            return Ok(next_ms);
        }
        let mut write = store.write().await?;
        for before in write.due_titles(now_ms, BATCH).await? {
            let version = before.version.saturating_add(1);
            let visible = before.input.visible_at(now_ms);
            let after = Title { version, visible, updated_at_ms: now_ms, ..before.clone() };
            write.put_title(&after, now_ms).await?;
            if before.visible == visible {
                continue;
            }
            let rails = write.rails_of(&before.id).await?;
            let keys = keys::of_change(Some(&before), Some(&after), &rails);
            // What viewers must not see any more is purged hard.
            let (mode, reason) = if visible { (PurgeMode::Soft, "appears") } else { (PurgeMode::Hard, "goes") };
            write.purge(LoggedPurge { keys: &keys, mode, reason: Some(reason), actor: Some("schedule") }).await?;
        }
        write.commit().await?;
    }
}
