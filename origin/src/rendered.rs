//! Documents that were rendered once are answered again, from memory and, with Redis, from what other processes rendered:
//! the edge asks again after every soft purge and from every location, and most of what it asks for has not changed.
//!
//! It is fenced by the log like every other tier: each answer's surrogate keys stand against the purges of the very
//! snapshot the request would have been read in, by the engine's own rule. So an old document can lie in Redis for as long
//! as it likes; it is never answered. What is answered is as new as that snapshot and says so.
use crate::error::StoreError;
use crate::store::{DERIVED_FORM, Snapshot};
use axum::body::Bytes;
use kv_schemas::entry::EntryHead;
use kv_schemas::header::SURROGATE_AS_OF;
use kv_schemas::journal::{DeltaPurge, Floor, JournalClock, JournalDelta, JournalQuery};
use kv_schemas::{AsOf, PerClass, Purge};
use redis::AsyncCommands;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use surrogate_cache::engine::{Config, Engine};
use surrogate_cache::entry::{Entry, Stamp, surrogate_keys};
use surrogate_cache::fields::Fields;
use surrogate_cache::policy::{ResponseHead, Rules};
use surrogate_cache::view::Verdict;

/// Purges read at once.
const PURGES: u32 = 1_000;
const ENTRIES_MAX: usize = 100_000;
/// Larger documents are rendered each time.
const BODY_BYTES_MAX: u64 = 1024 * 1024;
const REDIS_TIMEOUT: Duration = Duration::from_millis(100);
/// After a failure Redis is left alone for so long.
const REDIS_PAUSE_MS: u64 = 1_000;

/// How documents lie in Redis. To be raised where a release names them otherwise, or keeps other fields with them, so that what
/// one stored would be a wrong answer of the other's; where documents themselves have another form, [`DERIVED_FORM`] is raised.
const RENDERED_FORM: u32 = 3;

/// Where a document stands in Redis: a release that gives documents another form shares none with the one before.
fn redis_key(key: &str) -> String {
    format!("nextream:rendered:{RENDERED_FORM}:{DERIVED_FORM}:{key}")
}

pub type Document = Arc<Entry<Bytes>>;

pub struct Rendered {
    held: Mutex<Held>,
    memory_bytes_max: u64,
    shared: Option<Shared>,
}

struct Held {
    engine: Engine<Bytes>,
    /// Snapshots of this many losses are followed.
    losses: u64,
    /// When everything was forgotten last.
    forgot_ms: u64,
}

impl Held {
    /// Keeps what was begun after everything was forgotten: what was under way then may be of what was lost.
    fn keep(&mut self, entry: &Document, began_ms: u64) -> Option<()> {
        (began_ms > self.forgot_ms).then(|| self.engine.keep(Arc::clone(entry)))
    }
}

fn engine(memory_bytes_max: u64) -> Engine<Bytes> {
    Engine::new(Config {
        memory_bytes_max,
        memory_entries_max: ENTRIES_MAX,
        body_bytes_max: BODY_BYTES_MAX,
        ..Config::default()
    })
}

struct Shared {
    connection: ConnectionManager,
    paused_until_ms: AtomicU64,
}

impl Rendered {
    /// `redis`: what several processes share; without it each has its own memory.
    pub async fn new(memory_bytes_max: u64, redis: Option<&str>) -> Result<Self, redis::RedisError> {
        let shared = match redis {
            None => None,
            Some(url) => {
                let config = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(REDIS_TIMEOUT))
                    .set_response_timeout(Some(REDIS_TIMEOUT))
                    .set_number_of_retries(1);
                // Not connected yet: Redis may come and go.
                let connection = ConnectionManager::new_lazy_with_config(redis::Client::open(url)?, config)?;
                Some(Shared { connection, paused_until_ms: AtomicU64::new(0) })
            }
        };
        let held = Held { engine: engine(memory_bytes_max), losses: 0, forgot_ms: 0 };
        Ok(Self { held: Mutex::new(held), memory_bytes_max, shared })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything when commits were lost: their numbers are given again, and what was rendered of them would pass for
    /// newer. Whether this snapshot is of what was not lost.
    fn has_lost_nothing(&self, losses: u64) -> bool {
        let mut held = self.held();
        if losses > held.losses {
            *held = Held { engine: engine(self.memory_bytes_max), losses, forgot_ms: crate::now_ms() };
        }
        losses == held.losses
    }

    /// Takes over what was purged up to this snapshot. The view never goes back: a replica behind it is behind.
    async fn follow(&self, snapshot: &mut Snapshot) -> Result<(), StoreError> {
        loop {
            let asked = self.held().engine.view.query("origin");
            let head = snapshot.as_of.clone();
            let continues = asked.log_id.as_ref() == Some(&head.log_id);
            if continues && asked.since >= head.seq {
                return Ok(());
            }
            let now_ms = crate::now_ms();
            let purges = if continues { snapshot.purges_after(asked.since, PURGES).await? } else { Vec::new() };
            // Of another log, or at the beginning, nothing is known of what came before; nor of what is kept no longer.
            let follows = purges.first().is_some_and(|first| first.seq == asked.since.saturating_add(1));
            let floor = match continues && follows {
                true => Floor::default(),
                false => Floor { soft: head.seq, hard: head.seq },
            };
            let until = purges.last().map_or(head.seq, |last| last.seq);
            let delta = JournalDelta {
                log_id: head.log_id,
                clock: JournalClock { epoch: 0, at_ms: now_ms },
                head: head.seq,
                floors: PerClass::new(|_| floor),
                until,
                purges: purges.iter().map(delta_of).collect(),
            };
            if self.take(&asked, &delta, snapshot.losses, now_ms) {
                return Ok(());
            }
        }
    }

    /// Takes over what was read for `asked`, unless another request changed the view meanwhile: its clock may be ahead, and
    /// the view would leave this out. Whether the view knows everything up to the delta's head now.
    fn take(&self, asked: &JournalQuery, delta: &JournalDelta, losses: u64, now_ms: u64) -> bool {
        let mut held = self.held();
        if held.losses != losses {
            // Of what was lost meanwhile.
            return true;
        }
        let engine = &mut held.engine;
        let knows = |engine: &Engine<Bytes>| {
            engine.view.newest().is_some_and(|newest| newest.log_id == delta.log_id && newest.seq >= delta.head)
        };
        let at = engine.view.query("origin");
        if !knows(engine) && (&at.log_id, at.since) == (&asked.log_id, asked.since) {
            engine.sync_succeeded(asked, delta, now_ms, now_ms);
        }
        knows(engine)
    }

    /// The document of this key, if one is as good as what would be rendered from this snapshot now, and the state it may
    /// be said to have been read at.
    pub async fn find(&self, key: &str, snapshot: &mut Snapshot) -> Result<Option<(Document, AsOf)>, StoreError> {
        if !self.has_lost_nothing(snapshot.losses) {
            return Ok(None);
        }
        self.follow(snapshot).await?;
        let own = self.held().engine.recall(key);
        if let Some(state) = own.as_ref().and_then(|entry| self.state_of(entry, &snapshot.as_of)) {
            return Ok(own.map(|entry| (entry, state)));
        }
        // What others rendered of commits that were lost lies there for as long as the log has no new identity.
        if snapshot.lacks {
            return Ok(None);
        }
        let Some(entry) = self.shared_entry(key).await else { return Ok(None) };
        let entry = Arc::new(entry);
        let Some(state) = self.state_of(&entry, &snapshot.as_of) else { return Ok(None) };
        self.held().engine.keep(Arc::clone(&entry));
        Ok(Some((entry, state)))
    }

    /// Fresh and not purged up to `head`: then it is what `head` has. One that was read later than `head` is newer still.
    fn state_of(&self, entry: &Entry<Bytes>, head: &AsOf) -> Option<AsOf> {
        let as_of = entry.as_of.as_ref()?;
        let verdict = self.held().engine.view.judge(Some(as_of), &entry.keys);
        let is_fresh = entry.policy.is_fresh(crate::now_ms()) && as_of.log_id == head.log_id;
        let state = if as_of.seq > head.seq { as_of } else { head };
        (verdict == Verdict::Clear && is_fresh).then(|| state.clone())
    }

    /// Keeps a rendered answer: its fields, its body, and when it was begun.
    pub async fn keep(&self, key: &str, mut fields: Fields, body: Bytes, began_ms: u64) -> Option<()> {
        let as_of: AsOf = fields.get(SURROGATE_AS_OF)?.parse().ok()?;
        fields.remove(SURROGATE_AS_OF);
        let body_bytes = u64::try_from(body.len()).ok().filter(|bytes| *bytes <= BODY_BYTES_MAX)?;
        let keys = surrogate_keys(key, &fields).ok()?;
        let head = ResponseHead { status: 200, fields, request_time_ms: began_ms, response_time_ms: crate::now_ms() };
        let stamp = Stamp { key: key.into(), as_of: Some(as_of), keys };
        let entry = Arc::new(Entry::new(stamp, head, Rules::default(), body, body_bytes));
        let lifetime_s = entry.policy.lifetime_ms / 1_000;
        if lifetime_s == 0 {
            return None;
        }
        self.held().keep(&entry, began_ms)?;
        self.share(&entry, lifetime_s).await;
        Some(())
    }

    async fn shared_entry(&self, key: &str) -> Option<Entry<Bytes>> {
        let shared = self.shared.as_ref().filter(|shared| !shared.is_paused())?;
        let mut connection = shared.connection.clone();
        match connection.get::<_, Option<Vec<u8>>>(redis_key(key)).await {
            Ok(bytes) => {
                let bytes = bytes?;
                let (head, body) = EntryHead::split(&bytes).ok()?;
                let entry = Entry::from_stored(head, Rules::default(), Bytes::copy_from_slice(body))?;
                (entry.key == key).then_some(entry)
            }
            Err(error) => {
                shared.pause(&error);
                None
            }
        }
    }

    async fn share(&self, entry: &Entry<Bytes>, lifetime_s: u64) {
        let Some(shared) = self.shared.as_ref().filter(|shared| !shared.is_paused()) else { return };
        let Ok(mut bytes) = entry.to_stored().encode() else { return };
        bytes.extend_from_slice(&entry.body);
        let mut connection = shared.connection.clone();
        let key = redis_key(&entry.key);
        if let Err(error) = connection.set_ex::<_, _, ()>(key, bytes, lifetime_s).await {
            shared.pause(&error);
        }
    }
}

impl Shared {
    fn is_paused(&self) -> bool {
        crate::now_ms() < self.paused_until_ms.load(Ordering::Relaxed)
    }

    fn pause(&self, error: &redis::RedisError) {
        metrics::counter!("origin_rendered_redis_failures_total").increment(1);
        tracing::warn!(%error, "Redis is away; documents are rendered here meanwhile");
        self.paused_until_ms.store(crate::now_ms().saturating_add(REDIS_PAUSE_MS), Ordering::Relaxed);
    }
}

fn delta_of(purge: &Purge) -> DeltaPurge {
    let keys = purge.keys.iter().map(kv_schemas::SurrogateKey::hash).collect();
    DeltaPurge { seq: purge.seq, mode: purge.mode, all: purge.all, keys }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_another_request_took_over_first_leaves_no_purge_out() {
        let rendered = Rendered::new(1_000, None).await.unwrap();
        let log_id = "a:0".parse::<AsOf>().unwrap().log_id;
        let told = |head: u64, after: u64, floor: u64| JournalDelta {
            log_id: log_id.clone(),
            clock: JournalClock { epoch: 0, at_ms: 0 },
            head,
            floors: PerClass::new(|_| Floor { soft: floor, hard: floor }),
            until: head,
            purges: (after + 1..=head)
                .map(|seq| DeltaPurge { seq, mode: kv_schemas::PurgeMode::Soft, all: true, keys: Vec::new() })
                .collect(),
        };
        let query = || rendered.held().engine.view.query("origin");
        let newest = || rendered.held().engine.view.newest().map(|newest| newest.seq);
        assert!(rendered.take(&query(), &told(1, 1, 1), 0, 10));
        let (one, two) = (query(), query());
        assert!(rendered.take(&one, &told(2, 1, 0), 0, 100));
        assert!(!rendered.take(&two, &told(3, 1, 0), 0, 90), "it must be asked again");
        assert!(rendered.take(&query(), &told(3, 2, 0), 0, 90));
        assert_eq!(newest(), Some(3));
        assert!(rendered.take(&one, &told(2, 1, 0), 0, 110), "an older snapshot is covered");
        assert_eq!(newest(), Some(3), "and does not take the view back");
    }
}
