//! Warming: once the edge has a purge, documents it touched that viewers ask for are fetched by the edge ahead of them, so
//! that the first viewer after an edit gets a hit. Nothing is pushed: the edge is told what to look up, and how new it
//! must be.
//!
//! What viewers ask for is known here without asking anybody: an edge comes back for a document that is in use, and says
//! when it does so ahead of viewers, which is no sign of use. Of each
//! document the least time between two warmings is [`AGAIN_MS`], since KV takes one write a second of a key; what came
//! earlier waits for its turn.
use crate::edges::{Call, CallError, Client};
use crate::error::StoreError;
use crate::keys::Keys;
use crate::store::Store;
use kv_schemas::claims::Scope;
use kv_schemas::key_class::KeyClass;
use kv_schemas::surrogate_key::KeyHash;
use kv_schemas::viewer::Dimensions;
use kv_schemas::warm::{DOCUMENTS_MAX, Outcome, WarmAnswer, WarmDocument, WarmRequest};
use kv_schemas::{AsOf, Seq};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Documents that are remembered.
const REMEMBERED_MAX: usize = 20_000;
/// Who was asked for last before this is forgotten first, and is not warmed.
const IN_USE_MS: u64 = 15 * 60 * 1_000;
const AGAIN_MS: u64 = 1_000;
/// How often at most room is looked for, since all of them are looked through.
const ROOM_MS: u64 = 1_000;
/// How many make room at once, where none is forgotten by itself.
const ROOM: usize = REMEMBERED_MAX / 16;
/// What comes back in a second of the documents a purge may have warmed: with one edit after another only what is wanted most
/// is, and neither this service nor KV, whose writes are paid for, has more to do than so.
const BACK_PER_S: f64 = 2.0;
/// How often it is looked whether the edge has more purges.
const LOOK: Duration = Duration::from_millis(100);
const PURGES: u32 = 256;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum WarmError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// What became of the documents of a call that failed so.
fn outcome_of_failure(error: &CallError) -> &'static str {
    match error {
        CallError::Refused { status: 429, .. } => "rate-limited",
        CallError::Refused { .. } | CallError::Form(_) => "refused",
        CallError::Unreachable(_) => "unreachable",
        CallError::NoEdge | CallError::Unwritten(_) | CallError::Key(_) => "not-sent",
    }
}

/// What became of a document of a call that was answered.
fn outcome_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Stored => "written",
        Outcome::Fresh => "not-needed",
        Outcome::NotStored => "not-storable",
        Outcome::Failed => "origin-failed",
    }
}

fn count(outcome: &'static str, documents: usize) {
    metrics::counter!("origin_warmed_total", "outcome" => outcome).increment(u64::try_from(documents).unwrap_or(0));
}

struct Known {
    document: WarmDocument,
    keys: Vec<KeyHash>,
    asked: u64,
    asked_ms: u64,
    warmed_ms: u64,
    is_due: bool,
}

/// Documents that edges asked this process for.
#[derive(Default)]
pub struct InUse {
    known: Mutex<HashMap<String, Known>>,
    /// When room was looked for last.
    room_ms: AtomicU64,
}

impl InUse {
    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `key`: the document and whom it is for.
    pub fn note(&self, key: &str, target: &str, viewer: &Dimensions, keys: Vec<KeyHash>) {
        let now_ms = crate::now_ms();
        let mut known = self.known();
        if let Some(known) = known.get_mut(key) {
            known.asked = known.asked.saturating_add(1);
            (known.asked_ms, known.keys) = (now_ms, keys);
            return;
        }
        if known.len() >= REMEMBERED_MAX && self.room_ms.load(Relaxed).saturating_add(ROOM_MS) <= now_ms {
            self.room_ms.store(now_ms, Relaxed);
            make_room(&mut known, now_ms);
        }
        if known.len() < REMEMBERED_MAX {
            let document = WarmDocument {
                target: target.into(),
                region: Some(viewer.region),
                locale: Some(viewer.locale.clone()),
                maturity: Some(viewer.maturity),
                plan: Some(viewer.plan),
            };
            let new = Known { document, keys, asked: 1, asked_ms: now_ms, warmed_ms: 0, is_due: false };
            known.insert(key.into(), new);
        }
    }

    /// It may have other keys now; that nobody asked for it stays as it is.
    pub fn fetched_ahead(&self, key: &str, keys: Vec<KeyHash>) {
        if let Some(known) = self.known().get_mut(key) {
            known.keys = keys;
        }
    }

    /// These keys were purged; `None`: all were.
    fn purged(&self, keys: Option<&HashSet<KeyHash>>) {
        for known in self.known().values_mut() {
            known.is_due |= keys.is_none_or(|keys| known.keys.iter().any(|key| keys.contains(key)));
        }
    }

    /// What is to be warmed now, most wanted first.
    fn due(&self, now_ms: u64, count_max: usize) -> Vec<WarmDocument> {
        let mut known = self.known();
        let is_now = |known: &&mut Known| {
            known.is_due
                && known.warmed_ms.saturating_add(AGAIN_MS) <= now_ms
                && known.asked_ms.saturating_add(IN_USE_MS) > now_ms
        };
        let mut due: Vec<&mut Known> = known.values_mut().filter(is_now).collect();
        due.sort_unstable_by_key(|known| std::cmp::Reverse(known.asked));
        // What there is no time for now is left to its viewers.
        for known in due.iter_mut().skip(count_max) {
            known.is_due = false;
        }
        count("left-to-viewers", due.len().saturating_sub(count_max));
        due.truncate(count_max);
        for known in &mut due {
            (known.is_due, known.warmed_ms) = (false, now_ms);
        }
        due.iter().map(|known| known.document.clone()).collect()
    }
}

/// Forgets what nobody asks for any more, and if that is little, what was asked for longest ago.
fn make_room(known: &mut HashMap<String, Known>, now_ms: u64) {
    known.retain(|_, known| known.asked_ms.saturating_add(IN_USE_MS) > now_ms);
    let mut left = known.len().saturating_sub(REMEMBERED_MAX - ROOM);
    let Some(last) = left.checked_sub(1) else { return };
    let mut asked: Vec<u64> = known.values().map(|known| known.asked_ms).collect();
    let (_, oldest_ms, _) = asked.select_nth_unstable(last);
    let oldest_ms = *oldest_ms;
    known.retain(|_, known| {
        let goes = left > 0 && known.asked_ms <= oldest_ms;
        left = left.saturating_sub(usize::from(goes));
        !goes
    });
}

pub struct Warmer {
    store: Store,
    in_use: Arc<InUse>,
    client: Client,
    budget: Budget,
    /// The youngest purge that was seen through.
    seen: Option<AsOf>,
}

/// How many documents may be warmed now.
struct Budget {
    left: f64,
    max: f64,
    since: Instant,
}

impl Budget {
    fn new(max: usize) -> Self {
        let max = max as f64;
        Self { left: max, max, since: Instant::now() }
    }

    fn left(&mut self, now: Instant) -> usize {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.left = (self.left + passed * BACK_PER_S).min(self.max);
        self.since = now;
        self.left as usize
    }

    fn spend(&mut self, count: usize) {
        self.left -= count as f64;
    }
}

impl Warmer {
    pub fn new(
        store: Store,
        keys: Arc<Keys>,
        in_use: Arc<InUse>,
        edges: &[String],
        count_max: usize,
    ) -> reqwest::Result<Self> {
        let client = Client::new(keys, edges, CALL_TIMEOUT)?;
        Ok(Self { store, in_use, client, budget: Budget::new(count_max), seen: None })
    }

    /// Runs until `stop` turns true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            if let Err(error) = self.turn().await {
                metrics::counter!("origin_warm_failures_total").increment(1);
                tracing::warn!(%error, "documents are not warmed");
            }
            tokio::select! {
                _ = stop.changed() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Marks what purges touched that the edge has by now. The state what is due is to have, if anything may be fetched now.
    async fn look(&mut self) -> Result<Option<AsOf>, StoreError> {
        let mut snapshot = self.store.snapshot().await?;
        let accepted: Seq = snapshot.delivered().await?;
        let head = snapshot.as_of.clone();
        let seen = match &self.seen {
            Some(seen) if seen.log_id == head.log_id => seen.seq,
            // Of a new log the journal takes the end first: before, what is fetched would be of a log the edge does not know.
            Some(_) if accepted == 0 && head.seq > 0 => return Ok(None),
            other => {
                // Another identity purges everything. What is fetched from now on has all purges there are, so their numbers,
                // which go back to the first, are not walked through.
                if other.is_some() {
                    self.in_use.purged(None);
                }
                self.seen = Some(head.clone());
                head.seq
            }
        };
        if accepted > seen {
            let purges = snapshot.purges_after(seen, PURGES).await?;
            let purges: Vec<_> = purges.into_iter().filter(|purge| purge.seq <= accepted).collect();
            let all = purges.iter().any(|purge| purge.all);
            // What many are shown has no key of a viewer's or a session's, and most purges have no others: for those not
            // every document is looked at, while requests wait to be noted.
            let keys = purges.iter().flat_map(|purge| &purge.keys).map(|key| key.hash());
            let keys: HashSet<_> = keys.filter(|key| KeyClass::of(*key) == KeyClass::Content).collect();
            if all || !keys.is_empty() {
                self.in_use.purged(if all { None } else { Some(&keys) });
            }
            self.seen = Some(AsOf::new(head.log_id, purges.last().map_or(accepted, |last| last.seq)));
        }
        Ok(self.seen.clone())
    }

    async fn turn(&mut self) -> Result<(), WarmError> {
        let Some(min_as_of) = self.look().await? else { return Ok(()) };
        let due = self.in_use.due(crate::now_ms(), self.budget.left(Instant::now()));
        self.budget.spend(due.len());
        let mut failed = None;
        for documents in due.chunks(DOCUMENTS_MAX) {
            let request = WarmRequest { min_as_of: min_as_of.clone(), documents: documents.to_vec() };
            let answer = match self.send(&request).await {
                Ok(answer) => answer,
                // The others are due as well.
                Err(error) => {
                    count(outcome_of_failure(&error), documents.len());
                    failed = Some(error);
                    continue;
                }
            };
            for one in &answer.documents {
                count(outcome_of(one.outcome), 1);
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// To the first edge that can be reached; KV is for all of them.
    async fn send(&self, request: &WarmRequest) -> Result<WarmAnswer, CallError> {
        self.client.call_any(&Call::post("/__edge/warm", Scope::Warm, request)?).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_purge_may_warm_all_at_once_and_many_only_what_comes_back() {
        let mut budget = Budget::new(50);
        let at = |s: f64| budget.since + Duration::from_secs_f64(s);
        let [now, soon, later] = [at(0.0), at(3.0), at(3_600.0)];
        assert_eq!(budget.left(now), 50);
        budget.spend(50);
        assert_eq!(budget.left(now), 0);
        assert_eq!(budget.left(soon), 6);
        assert_eq!(budget.left(later), 50);
    }

    #[test]
    fn what_was_asked_for_longest_ago_makes_room_for_what_is_new_and_room_is_looked_for_once_a_second() {
        let in_use = InUse::default();
        let viewer = Dimensions::default();
        let note = |key: &str| in_use.note(key, key, &viewer, vec![1]);
        let is_known = |key: &str| in_use.known().contains_key(key);
        for n in 0..REMEMBERED_MAX {
            note(&n.to_string());
        }
        // All young, the first of them the oldest.
        let now_ms = crate::now_ms();
        for (key, known) in in_use.known().iter_mut() {
            known.asked_ms = now_ms - 60_000 + key.parse::<u64>().unwrap();
        }
        note("new");
        assert!(is_known("new") && in_use.known().len() == REMEMBERED_MAX - ROOM + 1);
        for n in 0..REMEMBERED_MAX {
            assert_eq!(is_known(&n.to_string()), n >= ROOM, "{n}");
        }
        for n in 0..ROOM {
            note(&format!("more {n}"));
        }
        let looked_ms = in_use.room_ms.load(Relaxed);
        assert_eq!(in_use.known().len(), REMEMBERED_MAX);
        note("too many in this second");
        if crate::now_ms() < looked_ms + ROOM_MS {
            assert!(!is_known("too many in this second"));
        }
        in_use.room_ms.store(0, Relaxed);
        note("the next second");
        assert!(is_known("the next second"));
    }

    #[test]
    fn what_is_wanted_most_is_warmed_first_and_nothing_twice_within_a_second() {
        let in_use = InUse::default();
        let viewer = Dimensions::default();
        for (target, keys, times) in [("/a", vec![1, 2], 1), ("/b", vec![2], 3), ("/c", vec![3], 9)] {
            for _ in 0..times {
                in_use.note(target, target, &viewer, keys.clone());
            }
        }
        let targets = |due: Vec<WarmDocument>| due.into_iter().map(|one| one.target).collect::<Vec<_>>().join(" ");
        let now_ms = crate::now_ms();
        assert_eq!(targets(in_use.due(now_ms, 10)), "", "nothing was purged");
        in_use.purged(Some(&HashSet::from([2])));
        assert_eq!(targets(in_use.due(now_ms, 10)), "/b /a");
        in_use.purged(None);
        assert_eq!(targets(in_use.due(now_ms, 10)), "/c");
        assert_eq!(targets(in_use.due(now_ms + AGAIN_MS, 1)), "/b", "its turn; the other is left to its viewers");
        assert_eq!(targets(in_use.due(now_ms + 3 * AGAIN_MS, 10)), "");
        for target in ["/a", "/d"] {
            in_use.fetched_ahead(target, vec![4]);
        }
        in_use.purged(Some(&HashSet::from([4])));
        assert_eq!(
            targets(in_use.due(now_ms + 6 * AGAIN_MS, 10)),
            "/a",
            "by its new key; the other is in nobody's use"
        );
        in_use.purged(None);
        assert_eq!(targets(in_use.due(now_ms + IN_USE_MS + 10_000, 10)), "", "nobody asks for them any more");
    }
}
