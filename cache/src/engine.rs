//! The state of one isolate: journal view, memory tier, fill marks. Plain data; whoever holds it must not hold it
//! across an await.
use crate::entry::{Entry, LocalTime, Stamp, target_of, viewer_of};
use crate::fills::{Fills, Ticket};
use crate::hits::Slots;
use crate::memory::Memory;
use crate::phase::Reason;
use crate::policy::{ResponseHead, Rules};
use crate::view::{Applied, Cause, JournalView, Knowledge, Standing, Verdict};
use kv_schemas::journal::{JournalClock, JournalDelta, JournalQuery, SharedSync};
use kv_schemas::{AsOf, KeyHash};
use std::sync::Arc;

/// Who numbers the purges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOwner {
    /// Origin: its answers say which state they were read at.
    Origin,
    /// The journal itself, in front of an origin that knows nothing of purges: an answer is stamped with the newest
    /// state known when its request was sent.
    Journal,
}

/// Limits and times of one isolate. Milliseconds and bytes.
#[derive(Clone, Debug)]
pub struct Config {
    pub log_owner: LogOwner,
    /// How long the view is used without asking anybody.
    pub lease_ms: u64,
    /// How old the view may be before nothing counts as fresh by it.
    pub bound_ms: u64,
    /// How long after a soft purge the old copy may be answered at once, on top of its own stale-while-revalidate.
    pub soft_window_ms_max: u64,
    /// How long one sync may take before another request tries.
    pub sync_timeout_ms: u64,
    /// Purged keys of content that are remembered; of sessions' and of viewers' keys a quarter as many each.
    pub view_keys_max: usize,
    /// Of what all share.
    pub memory_bytes_max: u64,
    /// Of what is one viewer's own, on top.
    pub memory_own_bytes_max: u64,
    /// Of what all share; an entry weighs at least its share of `memory_bytes_max` by it, a viewer's own too.
    pub memory_entries_max: usize,
    pub body_bytes_max: u64,
    /// How long a request waits for another one's fill before it goes to origin itself.
    pub fill_wait_ms: u64,
    /// How long a fill may hold its mark.
    pub fill_hold_ms: u64,
    /// How long a key that proved uncacheable makes nobody wait, if nothing is stored under it before.
    pub pass_ms: u64,
    /// After so many looks in vain into the location's cache KV is read before it.
    pub colo_in_vain_max: u32,
    /// No tier keeps anything longer.
    pub retention_ms_max: u64,
    pub rules: Rules,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_owner: LogOwner::Origin,
            lease_ms: 1_000,
            bound_ms: 1_500,
            soft_window_ms_max: u64::MAX,
            sync_timeout_ms: 1_000,
            view_keys_max: 65_536,
            memory_bytes_max: 32 * 1024 * 1024,
            memory_own_bytes_max: 8 * 1024 * 1024,
            memory_entries_max: 20_000,
            body_bytes_max: 8 * 1024 * 1024,
            fill_wait_ms: 5_000,
            fill_hold_ms: 15_000,
            pass_ms: 60_000,
            colo_in_vain_max: 64,
            retention_ms_max: 7 * 24 * 3600 * 1000,
            rules: Rules::default(),
        }
    }
}

/// At most one sync runs at a time, and after a failed one there is a pause.
#[derive(Clone, Copy, Debug, Default)]
struct SyncGate {
    running_until_ms: Option<u64>,
    pause_until_ms: Option<u64>,
}

/// Whether it is worth a request's while to look into the location's cache before KV. Where there is little traffic, or pages
/// are many, that has nothing, and each look and each write into it is work for nobody.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Odds {
    /// Looks without a find since the last one.
    in_vain: u32,
    passed: u32,
}

/// Of the requests that pass the location's cache by, each so manieth asks it all the same, and leaves there what KV had: so
/// that it is noticed when asking pays again.
const ASKS_EVERY: u32 = 256;

impl Odds {
    /// Whether this request passes the location's cache by; counted if it does.
    pub fn passes_colo_by(&mut self, in_vain_max: u32) -> bool {
        let next = self.passed.saturating_add(1);
        let passes = self.in_vain >= in_vain_max && next < ASKS_EVERY;
        self.passed = if passes { next } else { self.passed };
        passes
    }

    pub fn asks_colo_first(&mut self, in_vain_max: u32) -> bool {
        if self.passes_colo_by(in_vain_max) {
            return false;
        }
        self.passed = 0;
        true
    }

    pub fn colo_had(&mut self, something: bool) {
        self.in_vain = if something { 0 } else { self.in_vain.saturating_add(1) };
    }
}

/// When those who wait look again. Each on a timer of its own, thousands would look so often that nobody came to what they
/// wait for; so there are only so many turns, and who comes when they are taken gets a later one.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// How many were given out, if there had always been as many as there can be.
    given: u64,
}

/// An answer takes an isolate some 100 µs, and so would their answers not come sooner if all looked at once.
const TURNS_PER_MS: u64 = 8;
/// Nobody has to wait longer for a turn.
const TURN_MS_MAX: u64 = 1_000;

impl Turns {
    /// For how long to sleep, if there were nobody else: `alone_ms`.
    pub fn sleep_ms(&mut self, alone_ms: u64, now_ms: u64) -> u64 {
        let now = now_ms.saturating_mul(TURNS_PER_MS);
        let last = now.saturating_add(TURN_MS_MAX.saturating_mul(TURNS_PER_MS));
        // A clock that went back leaves turns that lie far ahead.
        let from = if self.given > last { now } else { self.given.max(now) };
        self.given = from.saturating_add(1).min(last);
        (self.given / TURNS_PER_MS).saturating_sub(now_ms).max(alone_ms)
    }
}

/// How long one request has waited, in sleeps that get longer: most of what is waited for takes little.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waits {
    pub(crate) waited_ms: u64,
}

const SLEEPS_MS: [u64; 6] = [2, 4, 8, 12, 20, 25];

impl Waits {
    /// For how long to sleep now.
    pub(crate) fn next_ms(&mut self, turns: &mut Turns, now_ms: u64) -> u64 {
        let step = usize::try_from(self.waited_ms / 8).unwrap_or(usize::MAX).min(SLEEPS_MS.len().saturating_sub(1));
        let ms = turns.sleep_ms(SLEEPS_MS.get(step).copied().unwrap_or(25), now_ms);
        self.waited_ms = self.waited_ms.saturating_add(ms);
        ms
    }

    fn exactly(&mut self, ms: u64) -> u64 {
        self.waited_ms = self.waited_ms.saturating_add(ms);
        ms
    }
}

/// What brings the view up to what a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatchUp {
    /// It is, or nothing can be done about it now.
    Ended,
    /// To sync; see [`Engine::claim_sync`].
    Sync,
    /// Another request syncs: to sleep and ask again.
    Wait { ms: u64 },
}

/// Whether something was learnt after a request came: then it is as new as the request can ask for, however long it took. What
/// lies ahead of the clock was learnt before that went back, and may be of any age.
pub(crate) fn came_before(arrived_ms: Option<u64>, learnt_ms: Option<u64>, now_ms: u64) -> bool {
    let (Some(arrived_ms), Some(learnt_ms)) = (arrived_ms, learnt_ms) else { return false };
    (arrived_ms..=now_ms).contains(&learnt_ms)
}

/// What a fill needs to become an entry once its body is complete.
#[derive(Clone, Debug)]
pub struct StorePlan {
    /// Its key is the request's, that of the variant, or that of the part.
    pub(crate) stamp: Stamp,
    /// Key of the URL, where the marker of its variants is kept.
    pub(crate) primary: String,
    pub(crate) head: ResponseHead,
    pub(crate) varies_on: Vec<String>,
    /// Memory keeps the entry under this key as well.
    pub(crate) language_key: Option<String>,
    pub(crate) ticket: Option<Ticket>,
    /// The event of asking origin.
    pub(crate) asked: u64,
    pub body_bytes_max: u64,
}

impl StorePlan {
    /// Hashes of the surrogate keys.
    pub fn keys(&self) -> &[KeyHash] {
        &self.stamp.keys
    }
}

/// What was stored, for the tiers below.
#[derive(Clone, Debug)]
pub struct Stored<B> {
    pub entry: Arc<Entry<B>>,
    /// Tells tiers which request fields select; to be written before the entry.
    pub marker: Option<Arc<Entry<B>>>,
}

impl<B> Stored<B> {
    /// What is to be written to the tiers below, in this order. Parts and what is a viewer's own stay in memory, and so
    /// does what was read at a state nobody knows: it is good only for the isolate that origin gave it to.
    pub fn for_tiers(&self) -> impl Iterator<Item = &Arc<Entry<B>>> {
        let entries = self.marker.iter().chain([&self.entry]);
        entries.filter(|entry| entry.head.status != 206 && entry.as_of.is_some() && viewer_of(&entry.key).is_none())
    }
}

pub struct Engine<B> {
    pub config: Config,
    pub view: JournalView,
    pub fills: Fills,
    pub(crate) memory: Memory<B>,
    pub(crate) slots: Slots<B>,
    pub(crate) odds: Odds,
    pub(crate) turns: Turns,
    sync: SyncGate,
    /// How many there were.
    events: u64,
    /// At which times noted before were last found to count no more.
    times_forgotten: u64,
    /// The latest it has said since.
    latest_ms: u64,
}

/// Slots that are looked at when purges were learnt of.
const SCAN_MAX: usize = 2_000;

impl<B: Clone + Default> Engine<B> {
    pub fn new(config: Config) -> Self {
        Self {
            view: JournalView::new(config.view_keys_max),
            fills: Fills::default(),
            memory: Memory::new(config.memory_entries_max, config.memory_bytes_max, config.memory_own_bytes_max),
            slots: Slots::default(),
            odds: Odds::default(),
            turns: Turns::default(),
            sync: SyncGate::default(),
            events: 0,
            times_forgotten: 0,
            latest_ms: 0,
            config,
        }
    }

    /// Numbers what happens now, among what has to be told apart by what came first: a question to origin, a viewer's write, a clock
    /// that was set back.
    pub fn next_event(&mut self) -> u64 {
        self.events = self.events.saturating_add(1);
        self.events
    }

    /// When that was, if this isolate's clock still is what it was then.
    pub(crate) fn by_this_clock(&self, at: LocalTime) -> Option<u64> {
        (at.event > self.times_forgotten).then_some(at.at_ms)
    }

    pub fn knowledge(&self, now_ms: u64) -> Knowledge {
        self.view.knowledge(now_ms, self.config.lease_ms, self.config.bound_ms)
    }

    /// Whether the view can be relied on for a request that came at `arrived_ms`: it is within its bound, or was confirmed by a
    /// question that was asked after the request came. A slow answer of the journal makes it no worse.
    pub fn knows_for(&self, arrived_ms: Option<u64>, now_ms: u64) -> bool {
        self.knowledge(now_ms) != Knowledge::Unknown || came_before(arrived_ms, self.view.confirmed_ms(), now_ms)
    }

    /// The state that origin's answer to a question asked now is of, if it says of none. A journal that numbers purges itself has
    /// had all up to the youngest heard of; how far origin's own log has come only its answers say, and the journal.
    pub(crate) fn asked_at(&self) -> Option<AsOf> {
        match self.config.log_owner {
            LogOwner::Journal => self.view.newest_heard_of(),
            LogOwner::Origin => self.view.newest(),
        }
    }

    /// What the journal and origin have confirmed so far does not count any more: the next request asks.
    fn forget_times(&mut self) {
        self.times_forgotten = self.next_event();
        self.view.forget_times();
    }

    /// A purge of a write that went through this isolate has come to that state of the journal's log: nothing from before the write is
    /// answered again as fresh, whether or not the sync that follows succeeds.
    pub fn learn_written(&mut self, state: &AsOf, keys: &[KeyHash]) {
        let noted = keys.iter().filter(|key| self.view.learn(state, **key)).count();
        if noted < keys.len() {
            // The journal holds another log than this view, which knows of no purge in it.
            self.forget_times();
        }
    }

    /// Notices that the clock was set back: what was confirmed before is of unknown age, and must not count again when its time
    /// comes once more. By less than a lease it may go unnoticed, and what is known lasts longer by as much.
    fn look_at_clock(&mut self, now_ms: u64) {
        let is_back = now_ms.saturating_add(self.config.lease_ms) < self.latest_ms
            || self.view.confirmed_ms().is_some_and(|confirmed_ms| now_ms < confirmed_ms);
        if is_back {
            self.forget_times();
        }
        self.latest_ms = if is_back { now_ms } else { self.latest_ms.max(now_ms) };
    }

    /// For a request that needs a view it can rely on, or (`wants_newer`) a newer one in any case.
    pub fn catch_up(
        &mut self,
        (arrived_ms, wants_newer): (Option<u64>, bool),
        waits: &mut Waits,
        now_ms: u64,
    ) -> CatchUp {
        self.look_at_clock(now_ms);
        let confirmed_ms = self.view.confirmed_ms();
        // What was asked after the request came is as new as asking can make it; in the same millisecond, perhaps before.
        let came_ms = arrived_ms.map(|arrived_ms| arrived_ms.saturating_add(1));
        let wants_newer = wants_newer && !came_before(came_ms, confirmed_ms, now_ms);
        // Who demands states that nobody has would else have the journal asked without a pause, by every isolate.
        let pause_ms = (self.config.lease_ms / 8)
            .saturating_sub(confirmed_ms.map_or(u64::MAX, |confirmed_ms| now_ms.saturating_sub(confirmed_ms)));
        if !wants_newer && self.knows_for(arrived_ms, now_ms) {
            CatchUp::Ended
        } else if wants_newer && pause_ms > 0 && waits.waited_ms < self.config.sync_timeout_ms {
            CatchUp::Wait { ms: waits.exactly(pause_ms) }
        } else if self.claim_sync(now_ms) {
            CatchUp::Sync
        } else if (wants_newer || self.is_syncing(now_ms)) && waits.waited_ms < self.config.sync_timeout_ms {
            // What the journal said a moment ago, or a neighbour is asking, is not what is demanded.
            CatchUp::Wait { ms: waits.next_ms(&mut self.turns, now_ms) }
        } else {
            CatchUp::Ended
        }
    }

    /// Whether a request of this key, without demands of its own, is to read KV before anything else ([`Self::hit_in_kv`]): the
    /// view is within its lease, memory has nothing, nobody fetches the page, and the location's cache seldom has one.
    pub fn reads_kv_first(&mut self, key: &str, now_ms: u64) -> bool {
        self.knowledge(now_ms) == Knowledge::Leased
            && !self.has(key)
            && viewer_of(key).is_none()
            && !self.fills.is_filling(key, now_ms)
            && !self.fills.is_passing(key, now_ms)
            && self.odds.passes_colo_by(self.config.colo_in_vain_max)
    }

    /// How a token stands, issued at `as_of` and revoked by a hard purge of one of these keys, for a request that came at
    /// `arrived_ms`.
    pub fn standing(&self, as_of: &AsOf, keys: &[KeyHash], arrived_ms: u64, now_ms: u64) -> Standing {
        self.view.standing(as_of, keys, self.knows_for(Some(arrived_ms), now_ms))
    }

    /// Whether this caller is to sync now. If so it must end with [`Self::sync_succeeded`] or [`Self::sync_failed`].
    pub fn claim_sync(&mut self, now_ms: u64) -> bool {
        let ahead = |until_ms: Option<u64>, longest_ms: u64| {
            // A mark that lies further ahead than one could have been set was made by a clock that went back.
            until_ms.is_some_and(|until| now_ms < until && until <= now_ms.saturating_add(longest_ms))
        };
        if ahead(self.sync.running_until_ms, self.config.sync_timeout_ms)
            || ahead(self.sync.pause_until_ms, self.config.lease_ms)
        {
            return false;
        }
        self.sync.running_until_ms = Some(now_ms.saturating_add(self.config.sync_timeout_ms));
        true
    }

    fn is_syncing(&self, now_ms: u64) -> bool {
        self.sync.running_until_ms.is_some_and(|until_ms| now_ms < until_ms)
    }

    /// The claim holds for another question: where there is much to be told, the journal is asked several times.
    pub fn sync_goes_on(&mut self, now_ms: u64) {
        self.sync.running_until_ms = Some(now_ms.saturating_add(self.config.sync_timeout_ms));
    }

    /// Takes over the journal's answer to a question of `sent_ms`. [`Applied::Partial`]: ask on ([`Self::sync_goes_on`]).
    pub fn sync_succeeded(&mut self, asked: &JournalQuery, delta: &JournalDelta, sent_ms: u64, now_ms: u64) -> Applied {
        let applied = self.view.apply(asked, delta, sent_ms);
        self.view.set_anchor(delta.clock, sent_ms);
        // It was asked before the clock was set back: what it tells is known, and since when is not.
        self.look_at_clock(now_ms);
        if applied != Applied::Partial {
            self.sync = SyncGate::default();
        }
        applied
    }

    /// Takes over what the journal told another isolate of this location, if it is within the lease and newer than what
    /// is known. Whether it was; then the sync has ended.
    pub fn sync_shared(&mut self, shared: &SharedSync, now_ms: u64) -> bool {
        let is_new = |told_ms: &u64| {
            now_ms.saturating_sub(*told_ms) <= self.config.lease_ms
                && self.view.confirmed_ms().is_none_or(|confirmed_ms| confirmed_ms < *told_ms)
        };
        let Some(told_ms) = self.view.told_at(shared.delta.clock, now_ms).filter(is_new) else { return false };
        if self.view.apply(&shared.asked, &shared.delta, told_ms) != Applied::Complete {
            return false;
        }
        self.sync = SyncGate::default();
        true
    }

    /// Whether another isolate of this location is asking the journal right now, so that this one need not. Only while
    /// what is known still holds: the sync has ended then, and is due again in a moment.
    pub fn sync_left_to_neighbour(&mut self, shared: &SharedSync, now_ms: u64) -> bool {
        let moment_ms = self.config.lease_ms / 8;
        let asking = JournalClock { at_ms: shared.asking_ms, ..shared.delta.clock };
        // Both clocks are estimates; only an isolate's own lease decides what may be relied on.
        let is_asking = self
            .view
            .journal_now(now_ms)
            .is_some_and(|journal| journal.epoch == asking.epoch && journal.at_ms.abs_diff(asking.at_ms) <= moment_ms);
        if !is_asking || self.knowledge(now_ms.saturating_add(moment_ms)) == Knowledge::Unknown {
            return false;
        }
        self.sync.running_until_ms = None;
        self.sync.pause_until_ms = Some(now_ms.saturating_add(moment_ms / 2));
        true
    }

    /// The journal did not answer: pause, so that an outage costs one attempt a lease and not one a request.
    pub fn sync_failed(&mut self, now_ms: u64) {
        self.sync.running_until_ms = None;
        self.sync.pause_until_ms = Some(now_ms.saturating_add(self.config.lease_ms));
    }

    pub fn recall(&self, key: &str) -> Option<Arc<Entry<B>>> {
        self.memory.get(key).cloned()
    }

    /// Keeps an entry in memory unless a newer one is there.
    pub fn keep(&mut self, entry: Arc<Entry<B>>) {
        let superseded = self.memory.peek(&entry.key).is_some_and(|held| !entry.is_newer_than(held));
        if !superseded {
            self.memory.insert(entry);
        }
    }

    /// Keeps an entry that may be answered as fresh now, in place of one that may not, unless that is of a later state:
    /// times alone must not hold it off, since they are another clock's.
    pub fn keep_fresh(&mut self, entry: Arc<Entry<B>>) {
        if !self.memory.peek(&entry.key).is_some_and(|held| held.is_of_later_state_than(&entry)) {
            self.memory.insert(entry);
        }
    }

    pub fn forget(&mut self, key: &str) {
        self.memory.remove(key);
    }

    /// Entries in memory that a soft purge made stale, of pages that were asked for again ([`Self::slot`]), without variants and what
    /// is a viewer's own: what is worth refreshing before the next viewer comes. At most `limit`, first those that have had a
    /// slot for the longest.
    pub fn softly_purged(&self, limit: usize) -> Vec<Arc<Entry<B>>> {
        let is_purged = |entry: &&Arc<Entry<B>>| {
            let verdict = self.view.judge(entry.as_of.as_ref(), &entry.keys);
            let is_shared = !entry.key.contains('\n') && viewer_of(&entry.key).is_none();
            verdict == Verdict::Soft(Cause::Purged) && !entry.is_marker() && is_shared
        };
        let held = self.slots.keys().take(SCAN_MAX).filter_map(|key| self.memory.peek(key));
        let mut entries: Vec<Arc<Entry<B>>> = Vec::new();
        for entry in held.filter(is_purged) {
            if entries.len() >= limit {
                break;
            }
            // Clients that take gzip and those that do not have slots of their own.
            if entries.iter().all(|other| !Arc::ptr_eq(other, entry)) {
                entries.push(Arc::clone(entry));
            }
        }
        entries
    }

    /// How many entries in memory a purge would touch: of these keys, sorted, or all.
    pub fn touched_by(&self, keys: &[KeyHash], all: bool) -> usize {
        let is_touched = |entry: &Arc<Entry<B>>| all || entry.keys.iter().any(|key| keys.binary_search(key).is_ok());
        self.memory.entries().filter(|entry| !entry.is_marker() && is_touched(entry)).count()
    }

    pub fn memory_len(&self) -> usize {
        self.memory.len()
    }

    /// Bytes in memory of what all share, and of viewers' own.
    pub fn memory_bytes(&self) -> (u64, u64) {
        self.memory.weights()
    }

    /// The body of a fill is complete, or the one that is held was confirmed: the entry goes to memory, and comes back for
    /// the tiers below.
    pub fn complete(&mut self, plan: StorePlan, body: B, body_bytes: u64) -> Stored<B> {
        let confirmed = LocalTime { event: plan.asked, at_ms: plan.head.request_time_ms };
        let mut entry = Entry::new(plan.stamp, plan.head, self.config.rules, body, body_bytes);
        entry.origin_confirmed = Some(confirmed);
        if let Some(key) = plan.language_key {
            self.keep(Arc::new(Entry { key, ..entry.clone() }));
        }
        let marker = (!plan.varies_on.is_empty()).then(|| {
            let (key, varies_on) = (plan.primary.clone(), plan.varies_on);
            Arc::new(Entry { key, varies_on, body: B::default(), body_bytes: 0, ..entry.clone() })
        });
        if let Some(ticket) = &plan.ticket {
            self.fills.release(ticket);
        }
        // Of the URL, too: who does not know the variants yet waits there. A part says nothing of the whole.
        if entry.head.status != 206 {
            self.fills.stored(&plan.primary);
            self.fills.stored(&entry.key);
        }
        let entry = Arc::new(entry);
        for new in marker.iter().chain([&entry]) {
            self.keep(Arc::clone(new));
        }
        Stored { entry, marker }
    }

    /// The body broke off or grew over the limit: nothing is stored.
    pub fn abandon(&mut self, plan: &StorePlan, why: Reason, now_ms: u64) {
        let Some(ticket) = &plan.ticket else { return };
        if why == Reason::TooLarge {
            self.fills.pass(ticket, now_ms, self.config.pass_ms);
        } else {
            self.fills.release(ticket);
        }
    }

    /// A viewer has written: forgets all that is that viewer's own, what origin was asked for before included.
    pub fn forget_viewer(&mut self, viewer: &str) {
        let event = self.next_event();
        self.memory.forget_viewer(viewer, event);
    }

    /// Forgets all that memory holds of a path with its query: the answer, its variants, its part.
    pub fn forget_target(&mut self, target: &str) {
        self.memory.retain(|key| target_of(key) != target);
    }
}
