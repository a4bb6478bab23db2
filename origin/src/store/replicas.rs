//! PostgreSQL's streaming replicas: viewers read from them in turn. One that is away, or further behind than it may be, is
//! passed over until it is back; none can make an answer look newer than it is, since each answer's state is read in
//! the replica's own snapshot.
use super::lost::Seen;
use super::settings::{Engine, Settings, place_of};
use super::tx::Watch;
use super::{Snapshot, seq_of};
use crate::error::StoreError;
use kv_schemas::{AsOf, LogId, Seq};
use sqlx::{AnyPool, Row};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often replicas are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long one may take to answer a look, or to give a connection to a request, before it counts as away.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Known {
    /// The youngest state seen there.
    as_of: Option<AsOf>,
    /// It could not be reached.
    is_away: bool,
    /// What the primary had when the replica was first seen behind it, and when that was.
    behind: Option<(AsOf, Instant)>,
}

struct Replica {
    name: String,
    pool: AnyPool,
    /// The one connection it is looked at by, so that a look does not wait for viewers: one that is busy is not away.
    looks: AnyPool,
    known: Mutex<Known>,
}

pub(super) struct Replicas {
    all: Vec<Arc<Replica>>,
    next: AtomicUsize,
    lag_max: Duration,
}

impl Replica {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw(&self, as_of: &AsOf) {
        let mut known = self.known();
        if !known.as_of.as_ref().is_some_and(|old| old.log_id == as_of.log_id && old.seq > as_of.seq) {
            known.as_of = Some(as_of.clone());
        }
    }

    fn went_away(&self, error: &dyn std::fmt::Display) {
        let mut known = self.known();
        if !known.is_away {
            tracing::warn!(replica = self.name, %error, "a replica is away; it is passed over until it is back");
        }
        known.is_away = true;
        self.tell(false);
    }

    /// Whether viewers have all its connections.
    fn is_busy(&self) -> bool {
        self.pool.size() >= self.pool.options().get_max_connections() && self.pool.num_idle() == 0
    }

    /// Whether it is asked.
    fn tell(&self, is_in_use: bool) {
        metrics::gauge!("origin_replica_in_use", "replica" => self.name.clone()).set(f64::from(is_in_use));
    }

    fn serves(&self, min: Option<&AsOf>, lag_max: Duration) -> bool {
        let known = self.known();
        let is_late = known.behind.as_ref().is_some_and(|(_, since)| since.elapsed() > lag_max);
        let has_it = match (min, &known.as_of) {
            (Some(min), Some(as_of)) => as_of.covers(min),
            (Some(_), None) => false,
            (None, as_of) => as_of.is_some(),
        };
        has_it && !known.is_away && !is_late
    }

    async fn look(&self, primary: Option<&AsOf>, lag_max: Duration) {
        let head = match tokio::time::timeout(PATIENCE, head(&self.looks)).await {
            Ok(Ok(head)) => head,
            Ok(Err(error)) => return self.went_away(&error),
            Err(_) => return self.went_away(&"no answer in time"),
        };
        self.saw(&head);
        let mut known = self.known();
        if known.is_away {
            tracing::info!(replica = self.name, "a replica is back");
        }
        known.is_away = false;
        let was_late = known.behind.as_ref().is_some_and(|(_, since)| since.elapsed() > lag_max);
        if known.behind.as_ref().is_some_and(|(target, _)| head.covers(target)) {
            known.behind = None;
        }
        match primary {
            Some(primary) if known.behind.is_none() && !head.covers(primary) => {
                known.behind = Some((primary.clone(), Instant::now()));
            }
            // Nobody can be asked instead, and what an answer was read at is said with it.
            None => known.behind = None,
            Some(_) => {}
        }
        let is_late = known.behind.as_ref().is_some_and(|(_, since)| since.elapsed() > lag_max);
        drop(known);
        self.tell(!is_late);
        metrics::gauge!("origin_replica_seq", "replica" => self.name.clone()).set(head.seq as f64);
        if is_late && !was_late {
            tracing::warn!(replica = self.name, at = %head, "a replica is too far behind; it is passed over");
        }
    }
}

pub(super) async fn head(pool: &AnyPool) -> Result<AsOf, StoreError> {
    let row = sqlx::query("SELECT log_id, seq FROM log_head").fetch_one(pool).await?;
    let log_id = LogId::new(row.try_get::<String, _>(0)?).map_err(|e| StoreError::Stored(e.to_string()))?;
    let seq: Seq = seq_of(row.try_get(1)?);
    Ok(AsOf::new(log_id, seq))
}

impl Replicas {
    pub fn none() -> Self {
        Self { all: Vec::new(), next: AtomicUsize::new(0), lag_max: Duration::ZERO }
    }

    /// Looks at them from now on, until the store is dropped. One that cannot be reached now may come later.
    pub fn start(settings: &Settings, primary_url: &str, seen: Arc<Seen>) -> Result<Arc<Self>, StoreError> {
        let replica = |url: &String| {
            let (pool, looks) = (super::pool(settings, url, settings.readers)?, super::pool(settings, url, 1)?);
            Ok(Arc::new(Replica { name: place_of(url), pool, looks, known: Mutex::default() }))
        };
        let all = settings.replica_urls.iter().map(replica).collect::<Result<_, StoreError>>()?;
        let primary = super::pool(settings, primary_url, 1)?;
        let lag_max = Duration::from_millis(settings.replica_lag_ms);
        let replicas = Arc::new(Self { all, next: AtomicUsize::new(0), lag_max });
        let watched = Arc::downgrade(&replicas);
        tokio::spawn(async move {
            while let Some(replicas) = watched.upgrade() {
                let before = seen.before();
                let primary = tokio::time::timeout(PATIENCE, head(&primary)).await;
                let primary = primary.ok().and_then(Result::ok);
                if let Some(now) = &primary {
                    seen.saw(&before, now);
                }
                for replica in &replicas.all {
                    replica.look(primary.as_ref(), replicas.lag_max).await;
                }
                drop(replicas);
                tokio::time::sleep(LOOK).await;
            }
        });
        Ok(replicas)
    }

    /// A snapshot of a replica that has `min`, the next one in turn; `None` if the primary has to be asked.
    pub async fn snapshot(&self, min: Option<&AsOf>, watch: &Arc<Watch>) -> Option<Snapshot> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for at in 0..self.all.len() {
            let at = first.wrapping_add(at).checked_rem(self.all.len()).unwrap_or(0);
            let replica = self.all.get(at).filter(|replica| replica.serves(min, self.lag_max));
            let Some(replica) = replica else { continue };
            match tokio::time::timeout(PATIENCE, Snapshot::begin(Engine::Postgres, &replica.pool, watch)).await {
                Ok(Ok(snapshot)) => {
                    replica.saw(&snapshot.as_of);
                    // Replaced behind its address by an older one, say.
                    if min.is_none_or(|min| snapshot.as_of.covers(min)) {
                        return Some(snapshot);
                    }
                }
                Ok(Err(error)) => replica.went_away(&error),
                // Whether it answers at all, the next look says.
                Err(_) if replica.is_busy() => {}
                Err(_) => replica.went_away(&"no connection in time"),
            }
        }
        None
    }

    pub async fn close(&self) {
        for replica in &self.all {
            replica.pool.close().await;
            replica.looks.close().await;
        }
    }
}
