//! Availability windows: at its time a title appears or goes, in one transaction with the purge of every page that shows
//! it. Pages are fresh no longer than until that moment anyway ([`crate::catalog::documents`]); the purge makes it exact
//! for lists it joins and for copies that are served stale.
use crate::catalog::model::{Record, Shown};
use crate::edits::{Edited, Edits};
use crate::error::StoreError;
use crate::moment;
use crate::store::{Store, Write};
use kv_schemas::AsOf;
use std::time::Duration;
use tokio::sync::watch;

/// Titles changed in one transaction.
const BATCH: u32 = 200;
/// The longest sleep: clocks are set.
const SLEEP_MAX: Duration = Duration::from_secs(5);

/// Runs until `stop` turns true.
pub async fn run(store: Store, mut stop: watch::Receiver<bool>) {
    loop {
        let looked = look(&store).await;
        let rest = async {
            match looked {
                // A write may bring an earlier moment.
                Ok((head, pause)) => store.await_news(&store.changed, &head, pause).await,
                Err(error) => {
                    metrics::counter!("origin_job_failures_total", "task" => "schedule").increment(1);
                    tracing::warn!(%error, "the schedule could not be kept; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        };
        tokio::select! {
            _ = stop.changed() => return,
            () = rest => {}
        }
    }
}

/// Does what is due. The state of the log before that, and how long there is nothing to do while it stays so.
async fn look(store: &Store) -> Result<(AsOf, Duration), StoreError> {
    let head = store.head().await?;
    let left_ms = turn(store).await?.map(|at_ms| u64::try_from(at_ms.saturating_sub(moment())).unwrap_or(0));
    Ok((head, left_ms.map_or(SLEEP_MAX, |ms| Duration::from_millis(ms).min(SLEEP_MAX))))
}

/// Does what is due, and says when there is something to do next.
pub async fn turn(store: &Store) -> Result<Option<i64>, StoreError> {
    loop {
        let now_ms = moment();
        let mut snapshot = store.snapshot().await?;
        let is_due = snapshot.is_change_due(now_ms).await?;
        let next_ms = snapshot.next_change_ms(now_ms).await?;
        drop(snapshot);
        if !is_due {
            return Ok(next_ms);
        }
        let mut write = store.write().await?;
        // One moment for all of it, taken now that others have done writing: what passes later is due at the next look.
        let now_ms = moment();
        // Appearing purges softly and going hard: two purges, so that what comes does not fall with what goes.
        let (mut appearing, mut going) = (Edits::at("schedule", now_ms), Edits::at("schedule", now_ms));
        for before in write.due_titles(now_ms, BATCH).await? {
            let shown = before.input.shown_at(now_ms);
            let after = Record { input: before.input.due_at(now_ms), ..moved(&before, shown, now_ms) };
            turn_one(&mut write, (&mut appearing, &mut going), &before, after).await?;
        }
        for before in write.due_rails(now_ms, BATCH).await? {
            let shown = Shown::everywhere(before.input.shown_at(now_ms));
            let after = moved(&before, shown, now_ms);
            turn_one(&mut write, (&mut appearing, &mut going), &before, after).await?;
        }
        appearing.log(&mut write, "appears").await?;
        going.log(&mut write, "goes").await?;
        write.commit().await?;
    }
}

fn moved<I: Clone>(before: &Record<I>, shown: Shown, now_ms: i64) -> Record<I> {
    let version = before.version.saturating_add(1);
    Record { version, visible: shown.anywhere(), shown, updated_at_ms: now_ms, ..before.clone() }
}

async fn turn_one<I: Edited>(
    write: &mut Write,
    (appearing, going): (&mut Edits<'_>, &mut Edits<'_>),
    before: &Record<I>,
    mut after: Record<I>,
) -> Result<(), StoreError> {
    if before.shown.narrows_to(&after.shown) {
        return going.put(write, "go", Some(before), &mut after, None).await;
    }
    if before.shown.changes_to(&after.shown) {
        return appearing.put(write, "appear", Some(before), &mut after, None).await;
    }
    // Its time has passed without a difference, but for what comes back with it: a genre that was deleted meanwhile, say.
    let now_ms = after.updated_at_ms;
    appearing.concerns(I::put(write, &mut after, now_ms).await?);
    Ok(())
}
