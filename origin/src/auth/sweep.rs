//! Takes away sessions and invitations whose time is over, now and then. They open nothing any more; this is for room, and
//! because what is not needed should not be kept.
use crate::store::Store;
use std::time::Duration;
use tokio::sync::watch;

const PAUSE: Duration = Duration::from_secs(3600);

/// Runs until `stop` turns true.
pub async fn run(store: Store, mut stop: watch::Receiver<bool>) {
    loop {
        match once(&store).await {
            Ok(0) => {}
            Ok(sessions) => tracing::info!(sessions, "sessions that were over were taken away"),
            Err(error) => tracing::warn!(%error, "sessions that are over could not be taken away"),
        }
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Once; says how many sessions went.
pub async fn once(store: &Store) -> Result<u64, crate::error::StoreError> {
    let now_ms = i64::try_from(crate::now_ms()).unwrap_or(i64::MAX);
    let mut write = store.write().await?;
    let sessions = write.drop_ended_sessions(now_ms).await?;
    write.commit().await?;
    Ok(sessions)
}
