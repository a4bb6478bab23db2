//! What other processes have written: who waits for the log to move on hears of this process' commits at once, and looks for
//! those of others.
use super::{Store, replicas};
use crate::error::StoreError;
use kv_schemas::AsOf;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(100);

impl Store {
    /// The state of the primary's log, by one statement.
    pub async fn head(&self) -> Result<AsOf, StoreError> {
        replicas::head(&self.readers).await
    }

    /// Waits until the log is not at this state any more, `told` tells, or the time is over. What stands in the way of looking is
    /// for the caller to find, who looks next.
    pub async fn await_news(&self, told: &Notify, from: &AsOf, longest: Duration) {
        let end = Instant::now() + longest;
        loop {
            let look = end.min(Instant::now() + LOOK);
            tokio::select! {
                () = told.notified() => return,
                () = tokio::time::sleep_until(look) => {}
            }
            if look == end || self.head().await.ok().as_ref() != Some(from) {
                return;
            }
        }
    }
}
