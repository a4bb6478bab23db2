//! Recommendations: a job that finds, for each title that changed and for those near it, the titles most like it, and
//! purges the pages of those whose list is another now, in the transaction that writes it.
use crate::catalog::keys;
use crate::error::StoreError;
use crate::store::{LoggedPurge, Store};
use kv_schemas::{PurgeMode, SurrogateKey};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;

/// Titles of one transaction: the writer is not held for long.
const BATCH: u32 = 8;
const PAUSE: Duration = Duration::from_millis(20);
const SLEEP: Duration = Duration::from_secs(2);

/// Runs until `stop` turns true.
pub async fn run(store: Store, mut stop: watch::Receiver<bool>) {
    loop {
        let pause = match turn(&store).await {
            Ok(true) => PAUSE,
            Ok(false) => SLEEP,
            Err(error) => {
                tracing::warn!(%error, "recommendations could not be worked out; trying again");
                SLEEP
            }
        };
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Does a part of what is due. Whether there was anything.
pub async fn turn(store: &Store) -> Result<bool, StoreError> {
    if !store.snapshot().await?.is_similar_due().await? {
        return Ok(false);
    }
    let mut write = store.write().await?;
    let due = write.take_similar_due(BATCH).await?;
    let mut near: BTreeSet<String> = due.iter().cloned().collect();
    for id in &due {
        let (kept, keepers) = write.similar_both_ways(id).await?;
        near.extend(kept.into_iter().chain(keepers));
        if let Some(title) = write.title(id).await? {
            near.extend(write.find_similar(&title).await?);
        }
    }
    let mut changed: Vec<SurrogateKey> = Vec::new();
    for id in near {
        let Some(title) = write.title(&id).await? else { continue };
        let found = write.find_similar(&title).await?;
        if write.similar_both_ways(&id).await?.0 != found {
            write.put_similar(&id, &found).await?;
            changed.extend(keys::similar(&id));
        }
    }
    if !changed.is_empty() {
        let purge = LoggedPurge {
            keys: &changed,
            mode: PurgeMode::Soft,
            reason: Some("recommendations"),
            actor: Some("similar"),
        };
        write.purge(purge).await?;
    }
    write.commit().await?;
    Ok(true)
}
