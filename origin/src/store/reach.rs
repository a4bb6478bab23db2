//! Whether PostgreSQL can be reached, where a pool gave no connection in time: it tries again for as long as its server refuses,
//! and says the same in the end as when all its connections are in use.
use super::{Engine, Store};
use crate::error::StoreError;
use sqlx::{AnyPool, ConnectOptions, Connection};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long a server may take to greet.
const PATIENCE: Duration = Duration::from_secs(1);
/// Requests that wait in vain do so by the hundred: what one was told so lately holds for the next, and a server that is busy is
/// not asked for a connection by each.
const TOLD: Duration = Duration::from_millis(250);

/// When it was tried last, and what stood in the way.
#[derive(Default)]
pub(super) struct Reach(Mutex<Option<(Instant, Option<String>)>>);

impl Reach {
    /// Why there is no connection to be had, if it is not that others have them all.
    async fn fault(&self, pool: &AnyPool) -> Option<String> {
        let mut told = self.0.lock().await;
        if let Some((_, fault)) = told.as_ref().filter(|(at, _)| at.elapsed() < TOLD) {
            return fault.clone();
        }
        let connect = async {
            let connection = pool.connect_options().connect().await?;
            // Whether the server hears of it is nothing to who waits.
            connection.close_hard().await
        };
        let fault = match tokio::time::timeout(PATIENCE, connect).await {
            Ok(Err(error)) if crate::error::is_lost(&error) => Some(error.to_string()),
            Ok(_) => None,
            Err(_) => Some("no greeting in time".into()),
        };
        *told = Some((Instant::now(), fault.clone()));
        fault
    }
}

impl Store {
    /// What came of asking the primary for a connection, with its cause if the server is away.
    pub(super) async fn told<T>(&self, begun: Result<T, StoreError>) -> Result<T, StoreError> {
        let is_unclear = matches!(begun, Err(StoreError::Database(sqlx::Error::PoolTimedOut)));
        if self.engine == Engine::Postgres
            && is_unclear
            && let Some(fault) = self.reach.fault(&self.readers).await
        {
            return Err(StoreError::Database(sqlx::Error::Io(std::io::Error::other(fault))));
        }
        begun
    }
}
