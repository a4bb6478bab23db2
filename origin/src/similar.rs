//! Recommendations: a job that finds, for each title that changed, the titles most like it, marks those near it to be looked
//! at next, and purges the pages of those whose list is another now, in the transaction that writes it.
use crate::catalog::keys;
use crate::error::StoreError;
use crate::store::{Due, Known, LoggedPurge, Store};
use kv_schemas::{PurgeMode, SurrogateKey};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Titles of one transaction. Only what was found is written in it: the writer is not held while the catalogue is read.
const BATCH: u32 = 32;
/// Of those that keep an edited title as like themselves so many are marked in one transaction. More than [`BATCH`], so that they
/// become more than are worked off meanwhile, and an end is come to.
const KEEPERS: u32 = 500;
/// Rests so much longer than it works, since viewers and editors come first.
const REST: u32 = 3;
const PAUSE_MIN: Duration = Duration::from_millis(20);
const SLEEP: Duration = Duration::from_secs(2);

/// Runs until `stop` turns true.
pub async fn run(store: Store, mut stop: watch::Receiver<bool>) {
    loop {
        let began = Instant::now();
        let pause = match turn(&store).await {
            Ok(true) => began.elapsed().saturating_mul(REST).max(PAUSE_MIN),
            Ok(false) => SLEEP,
            Err(error) => {
                metrics::counter!("origin_job_failures_total", "task" => "similar").increment(1);
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
    let Some(found) = find(store).await? else { return Ok(false) };
    found.keep(store).await?;
    Ok(true)
}

/// What was found for a part of what is due, and is not written yet.
pub struct Found {
    due: Vec<Due>,
    near: BTreeSet<String>,
    changed: Vec<(String, Vec<String>)>,
}

/// Looks at a part of what is due, in a snapshot.
pub async fn find(store: &Store) -> Result<Option<Found>, StoreError> {
    let mut snapshot = store.snapshot().await?;
    let due = snapshot.similar_due(BATCH).await?;
    if due.is_empty() {
        return Ok(None);
    }
    let mut known = Known::new();
    let mut near = BTreeSet::new();
    let mut changed = Vec::new();
    for one in &due {
        let Some(title) = snapshot.title(&one.id).await? else { continue };
        let (kept, found) = (snapshot.similar(&one.id).await?, snapshot.find_similar(&title, &mut known).await?);
        if !one.is_near() {
            near.extend(found.iter().chain(&kept).cloned());
        }
        if kept != found {
            changed.push((one.id.clone(), found));
        }
    }
    Ok(Some(Found { due, near, changed }))
}

impl Found {
    /// Writes what was found for titles that nobody has marked since, or seen to: what was found for the others may be of a state
    /// before an edit that another process has worked out meanwhile, and would stay.
    ///
    /// What was edited meanwhile stays due, and with it all that is near: so what is written may be of an older state, and is
    /// made good.
    pub async fn keep(mut self, store: &Store) -> Result<(), StoreError> {
        let mut write = store.write().await?;
        self.due = write.still_due(self.due).await?;
        let is_due: BTreeSet<&str> = self.due.iter().map(|one| one.id.as_str()).collect();
        self.changed.retain(|(id, _)| is_due.contains(id.as_str()));
        // By what was kept before: who keeps a title that comes into a list now was compared with it as it is.
        let mut done = Vec::with_capacity(self.due.len());
        for one in &self.due {
            // One that others keep stays due until they all are.
            if one.is_near() || write.mark_keepers(&one.id, KEEPERS).await? {
                done.push(one);
            }
        }
        write.mark_near(&self.near).await?;
        for (id, found) in &self.changed {
            write.put_similar(id, found).await?;
        }
        // Last: what was looked at is not marked for what was looked at with it.
        for one in done {
            write.unmark_similar(&one.id).await?;
        }
        let keys: Vec<SurrogateKey> = self.changed.iter().filter_map(|(id, _)| keys::similar(id)).collect();
        if !keys.is_empty() {
            let reason = Some("recommendations");
            write.purge(LoggedPurge { keys: &keys, mode: PurgeMode::Soft, reason, actor: Some("similar") }).await?;
        }
        write.commit().await?;
        Ok(())
    }
}
