//! The lookup: one request's way through memory, the location's cache, KV and origin, as a state machine.
//!
//! [`Lookup::step`] yields what is to be done next; the caller does it and feeds the result back. The machine holds
//! no reference to the engine between steps, performs nothing, and every path ends in an [`Answer`] with a phase.
use crate::conditional::{is_not_modified, update_stored, validators};
use crate::directives::RequestDirectives;
use crate::engine::{Engine, LogOwner, StorePlan};
use crate::entry::{Entry, surrogate_keys};
use crate::fields::Fields;
use crate::fills::{Claim, Ticket};
use crate::phase::{CacheStatus, Phase, Reason};
use crate::policy::{ResponseHead, check_storable, fields_to_store};
use crate::vary::{selecting_fields, variant_key};
use crate::view::{Cause, Knowledge, Verdict};
use kv_schemas::header::SURROGATE_AS_OF;
use kv_schemas::{AsOf, KeyHash};
use std::sync::Arc;

/// A GET or HEAD that may be answered from the cache.
#[derive(Clone, Debug)]
pub struct Request {
    /// The cache key: normalised, bounded, and made of nothing a stranger could fragment or poison it with.
    pub key: String,
    pub is_head: bool,
    pub fields: Fields,
    /// What the client may demand of the cache; empty where clients have no say.
    pub directives: RequestDirectives,
    /// The answer must be at least this new.
    pub min_as_of: Option<AsOf>,
}

/// A tier outside the isolate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Memory,
    Colo,
    Kv,
}

impl Tier {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Colo => "colo",
            Self::Kv => "kv",
        }
    }
}

/// What the caller is to do next.
#[derive(Debug)]
pub enum Step<B> {
    /// Ask the journal, tell the engine the outcome, then feed [`Event::Synced`].
    Sync,
    /// Sleep, then feed [`Event::Waited`].
    Wait {
        ms: u64,
    },
    /// Read an entry from a tier (never `Memory`), then feed [`Event::Read`].
    Read {
        tier: Tier,
        key: String,
    },
    /// Ask origin, then feed [`Event::Origin`] or [`Event::OriginFailed`].
    Fetch(Fetch),
    Answer(Box<Answer<B>>),
}

/// How origin is to be asked: the client's request with these changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Validators of what is stored; the client's own are not sent.
    pub validators: Vec<(String, String)>,
    pub min_as_of: Option<AsOf>,
}

#[derive(Debug)]
pub enum Event<B> {
    Start,
    Synced,
    Waited,
    Read(Option<Entry<B>>),
    Origin(ResponseHead),
    OriginFailed,
}

/// What is to be done after the answer has gone out.
#[derive(Debug)]
pub struct Behind<B> {
    /// Drive this lookup to its end.
    pub refresh: Option<Lookup<B>>,
    /// The sync is claimed: ask the journal.
    pub sync: bool,
    /// Write the answered entry to these tiers.
    pub write: Vec<Tier>,
    /// What KV held, if it was read: a writer compares before it overwrites.
    pub seen_in_kv: Option<Arc<Entry<B>>>,
}

impl<B> Default for Behind<B> {
    fn default() -> Self {
        Self { refresh: None, sync: false, write: Vec::new(), seen_in_kv: None }
    }
}

#[derive(Debug)]
pub enum Answer<B> {
    /// A stored answer.
    Stored { entry: Arc<Entry<B>>, not_modified: bool, age_ms: u64, status: CacheStatus, behind: Behind<B> },
    /// Origin's answer, whose body the caller still holds; with a plan it is stored on the way.
    Forwarded {
        head: ResponseHead,
        not_modified: bool,
        status: CacheStatus,
        store: Option<Box<StorePlan>>,
        behind: Behind<B>,
    },
    /// No answer could be had.
    Failed { http_status: u16, slug: &'static str, title: &'static str, status: CacheStatus, behind: Behind<B> },
}

impl<B> Answer<B> {
    pub fn status(&self) -> &CacheStatus {
        match self {
            Self::Stored { status, .. } | Self::Forwarded { status, .. } | Self::Failed { status, .. } => status,
        }
    }

    pub fn behind(&mut self) -> &mut Behind<B> {
        match self {
            Self::Stored { behind, .. } | Self::Forwarded { behind, .. } | Self::Failed { behind, .. } => behind,
        }
    }
}

/// What may be done with an entry now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Fresh,
    Stale {
        reason: Reason,
        /// May be answered at once while it is refreshed.
        at_once: bool,
        /// May be answered if origin fails.
        on_error: bool,
    },
    /// Must not be answered; `validate` tells whether origin may be asked to confirm it.
    Dead {
        reason: Reason,
        validate: bool,
    },
}

#[derive(Debug)]
struct Candidate<B> {
    entry: Arc<Entry<B>>,
    on_error: bool,
    validate: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Sync,
    /// Another request syncs.
    AwaitSync,
    /// Another request fills.
    AwaitFill,
    Read(Tier),
    Fetch,
    Done,
}

/// One request on its way.
#[derive(Debug)]
pub struct Lookup<B> {
    request: Request,
    /// A refresh behind an answer: it never answers stale, and nobody reads what it answers.
    is_refresh: bool,
    state: State,
    best: Option<Candidate<B>>,
    reason: Reason,
    read_key: String,
    ticket: Option<Ticket>,
    waited_ms: u64,
    waited_for_fill: bool,
    collapsed: bool,
    /// When this request came; what was learnt later is as new as it can ask for, however long it then took.
    arrived_ms: Option<u64>,
    seen_in_kv: Option<Arc<Entry<B>>>,
    /// State of the view when origin was asked.
    sent_at: Option<AsOf>,
    sent_validators: bool,
    asked_again: bool,
}

/// Sleeps of a waiting request: short first, since most fills are.
const WAIT_MS: [u64; 6] = [2, 4, 8, 12, 20, 25];

impl<B: Clone> Lookup<B> {
    pub fn new(request: Request) -> Self {
        Self {
            read_key: request.key.clone(),
            request,
            is_refresh: false,
            state: State::Start,
            best: None,
            reason: Reason::NotStored,
            ticket: None,
            waited_ms: 0,
            waited_for_fill: false,
            collapsed: false,
            arrived_ms: None,
            seen_in_kv: None,
            sent_at: None,
            sent_validators: false,
            asked_again: false,
        }
    }

    /// A refresh of an entry before anybody asks for it. `None` if it is being filled already.
    pub fn ahead(engine: &mut Engine<B>, entry: &Arc<Entry<B>>, now_ms: u64) -> Option<Self> {
        let request = Request {
            key: entry.key.clone(),
            is_head: false,
            fields: Fields::new(),
            directives: RequestDirectives::default(),
            min_as_of: None,
        };
        match engine.fills.claim(&request.key, now_ms, engine.config.fill_hold_ms) {
            Claim::Granted(ticket) => Some(Self::new(request).refresh(entry, ticket, Reason::PurgedSoft)),
            Claim::Taken | Claim::Passing => None,
        }
    }

    fn refresh(&self, entry: &Arc<Entry<B>>, ticket: Ticket, reason: Reason) -> Self {
        let mut refresh = Self::new(Request { is_head: false, ..self.request.clone() });
        refresh.is_refresh = true;
        refresh.ticket = Some(ticket);
        refresh.reason = reason;
        refresh.read_key = entry.key.clone();
        refresh.best = Some(Candidate { entry: Arc::clone(entry), on_error: true, validate: true });
        refresh
    }

    pub fn key(&self) -> &str {
        &self.request.key
    }

    /// Goes on with what happened. `now_ms` is this isolate's clock.
    pub fn step(&mut self, engine: &mut Engine<B>, event: Event<B>, now_ms: u64) -> Step<B> {
        self.arrived_ms.get_or_insert(now_ms);
        match (self.state, event) {
            (State::Start, Event::Start) if self.is_refresh => self.read(Tier::Colo),
            (State::Start, Event::Start) => self.begin(engine, now_ms),
            (State::Sync, Event::Synced) => self.recall(engine, now_ms),
            // However long the wait was, the view must be as current as at the start.
            (State::AwaitSync | State::AwaitFill, Event::Waited) => self.begin(engine, now_ms),
            (State::Read(tier), Event::Read(found)) => self.found(engine, tier, found, now_ms),
            (State::Fetch, Event::Origin(head)) => self.origin_answered(engine, head, now_ms),
            (State::Fetch, Event::OriginFailed) => self.origin_failed(engine, now_ms),
            // An event that does not fit the state is the caller's mistake; it must not take the isolate down.
            _ => self.fail(engine, 500, "lookup-out-of-order", "The lookup was driven out of order", now_ms),
        }
    }

    /// The request is given up: whoever waits for its fill need not.
    pub fn cancel(&mut self, engine: &mut Engine<B>) {
        if let Some(ticket) = self.ticket.take() {
            engine.fills.release(&self.request.key, ticket);
        }
    }

    fn begin(&mut self, engine: &mut Engine<B>, now_ms: u64) -> Step<B> {
        if self.is_ahead_of(engine) || !self.knows(engine, now_ms) {
            if engine.claim_sync(now_ms) {
                self.state = State::Sync;
                return Step::Sync;
            }
            if engine.is_syncing(now_ms) && self.waited_ms < engine.config.sync_timeout_ms {
                return self.wait(State::AwaitSync);
            }
        }
        self.recall(engine, now_ms)
    }

    /// Whether the view can be relied on for this request: it is within its bound, or was confirmed by a question
    /// that was asked after the request came. A slow answer of the journal makes it no worse.
    fn knows(&self, engine: &Engine<B>, now_ms: u64) -> bool {
        engine.knowledge(now_ms) != Knowledge::Unknown || self.came_before(engine.view.confirmed_ms())
    }

    fn came_before(&self, then_ms: Option<u64>) -> bool {
        matches!((self.arrived_ms, then_ms), (Some(arrived_ms), Some(then_ms)) if arrived_ms <= then_ms)
    }

    /// Whether the client demands a state this view has not heard of. Where answers are stamped with the view's own
    /// state, only a sync can bring one that satisfies it.
    fn is_ahead_of(&self, engine: &Engine<B>) -> bool {
        let Some(min) = self.request.min_as_of.as_ref() else { return false };
        engine.config.log_owner == LogOwner::Journal && !engine.view.newest().is_some_and(|newest| newest.covers(min))
    }

    fn wait(&mut self, state: State) -> Step<B> {
        let step = usize::try_from(self.waited_ms / 8).unwrap_or(usize::MAX).min(WAIT_MS.len().saturating_sub(1));
        let ms = WAIT_MS.get(step).copied().unwrap_or(25);
        self.waited_ms = self.waited_ms.saturating_add(ms);
        self.waited_for_fill |= state == State::AwaitFill;
        self.state = state;
        Step::Wait { ms }
    }

    /// The memory tier, and what follows from it.
    fn recall(&mut self, engine: &mut Engine<B>, now_ms: u64) -> Step<B> {
        self.read_key.clone_from(&self.request.key);
        let mut held = engine.recall(&self.request.key);
        if let Some(marker) = held.take_if(|entry| entry.is_marker()) {
            self.read_key = variant_key(&self.request.key, &marker.varies_on, &self.request.fields);
            held = engine.recall(&self.read_key);
            self.note(if held.is_some() { Reason::NotStored } else { Reason::OtherVariant });
        }
        if let Some(entry) = held {
            self.collapsed = self.waited_for_fill;
            if let Some(answer) = self.consider(engine, Tier::Memory, entry, now_ms) {
                return answer;
            }
        }
        if self.request.directives.only_if_cached {
            return self.read(Tier::Colo);
        }
        // A request with credentials gets an answer of its own: waiting for another's would only delay it. A
        // demanded state is not what others wait for either.
        let alone =
            self.request.is_head || self.request.min_as_of.is_some() || self.request.fields.has("authorization");
        if alone {
            return self.read(Tier::Colo);
        }
        match engine.fills.claim(&self.request.key, now_ms, engine.config.fill_hold_ms) {
            Claim::Granted(ticket) => {
                self.ticket = Some(ticket);
                self.read(Tier::Colo)
            }
            Claim::Taken if self.waited_ms < engine.config.fill_wait_ms => self.wait(State::AwaitFill),
            Claim::Taken => self.fetch(engine),
            Claim::Passing => {
                self.note(Reason::Uncacheable);
                self.fetch(engine)
            }
        }
    }

    fn note(&mut self, reason: Reason) {
        self.reason = reason;
    }

    fn read(&mut self, tier: Tier) -> Step<B> {
        self.state = State::Read(tier);
        Step::Read { tier, key: self.read_key.clone() }
    }

    fn found(&mut self, engine: &mut Engine<B>, tier: Tier, found: Option<Entry<B>>, now_ms: u64) -> Step<B> {
        // Two keys may share a hash, and bytes may be anybody's: only an entry that names this key is one.
        let found = found.filter(|entry| entry.key == self.read_key);
        let at_primary = self.read_key == self.request.key;
        if let Some(marker) = found.as_ref().filter(|entry| entry.is_marker()) {
            if at_primary {
                self.read_key = variant_key(&self.request.key, &marker.varies_on, &self.request.fields);
                engine.keep(Arc::new(marker.clone()));
                self.note(Reason::OtherVariant);
                return self.read(tier);
            }
        } else if let Some(entry) = found {
            let entry = Arc::new(entry);
            if tier == Tier::Kv {
                self.seen_in_kv = Some(Arc::clone(&entry));
            }
            if let Some(answer) = self.consider(engine, tier, entry, now_ms) {
                return answer;
            }
        }
        if tier == Tier::Colo {
            return self.read(Tier::Kv);
        }
        if self.request.directives.only_if_cached {
            // RFC 9111 section 5.2.1.7: "either respond using a stored response [...] or respond with a 504 (Gateway
            // Timeout) status code."
            return self.fail(
                engine,
                504,
                "only-if-cached",
                "Nothing usable is stored and only-if-cached was asked",
                now_ms,
            );
        }
        self.fetch(engine)
    }

    /// Looks at an entry from a tier: an answer, or a candidate for later.
    fn consider(&mut self, engine: &mut Engine<B>, tier: Tier, entry: Arc<Entry<B>>, now_ms: u64) -> Option<Step<B>> {
        let usable = self.assess(engine, &entry, now_ms);
        if tier != Tier::Memory && !matches!(usable, Use::Dead { .. }) {
            engine.keep(Arc::clone(&entry));
        }
        let (reason, at_once, on_error, validate) = match usable {
            Use::Fresh => {
                self.give_back(engine);
                let mut behind = self.behind(engine, now_ms);
                if tier == Tier::Kv {
                    behind.write.push(Tier::Colo);
                }
                let status = CacheStatus { tier: Some(tier.as_str()), ..CacheStatus::new(Phase::Hit) };
                return Some(self.answer_stored(entry, status, behind, now_ms));
            }
            Use::Stale { reason, at_once, on_error } => (reason, at_once, on_error, true),
            Use::Dead { reason, validate } => (reason, false, false, validate),
        };
        self.note(reason);
        let better = self.best.as_ref().is_none_or(|best| entry.is_newer_than(&best.entry));
        if at_once && !self.is_refresh {
            let mut behind = self.behind(engine, now_ms);
            let ticket = self.ticket.take().or_else(|| {
                match engine.fills.claim(&self.request.key, now_ms, engine.config.fill_hold_ms) {
                    Claim::Granted(ticket) => Some(ticket),
                    Claim::Taken | Claim::Passing => None,
                }
            });
            behind.refresh = ticket.map(|ticket| self.refresh(&entry, ticket, reason));
            let status =
                CacheStatus { tier: Some(tier.as_str()), reason: Some(reason), ..CacheStatus::new(Phase::Stale) };
            return Some(self.answer_stored(entry, status, behind, now_ms));
        }
        if better {
            self.best = Some(Candidate { entry, on_error, validate });
        }
        None
    }

    fn give_back(&mut self, engine: &mut Engine<B>) {
        if let Some(ticket) = self.ticket.take() {
            engine.fills.release(&self.request.key, ticket);
        }
    }

    /// Whether an entry may be answered now, and how.
    fn assess(&self, engine: &Engine<B>, entry: &Entry<B>, now_ms: u64) -> Use {
        let bound_ms = engine.config.bound_ms;
        let of_request_time = |ms: u64| now_ms.checked_sub(ms).is_some_and(|age_ms| age_ms <= bound_ms);
        let confirmed =
            entry.origin_confirmed_ms.is_some_and(of_request_time) || self.came_before(entry.origin_confirmed_ms);
        let known = self.knows(engine, now_ms);
        let wanted = &self.request.directives;
        let policy = &entry.policy;

        let purged = match engine.view.judge(entry.as_of.as_ref(), &entry.keys) {
            Verdict::Hard(Cause::OtherLog) => return Use::Dead { reason: Reason::OtherLog, validate: false },
            Verdict::Hard(Cause::Floor) => return Use::Dead { reason: Reason::BelowFloor, validate: false },
            Verdict::Hard(_) => return Use::Dead { reason: Reason::PurgedHard, validate: false },
            Verdict::Clear => None,
            // Origin itself confirmed it to this isolate within the bound: that is as good as the journal's word.
            Verdict::Soft(Cause::NoAsOf | Cause::NoLog) if confirmed => None,
            Verdict::Soft(Cause::NoAsOf) => Some(Reason::NoAsOf),
            Verdict::Soft(Cause::NoLog) => Some(Reason::JournalUnreachable),
            Verdict::Soft(Cause::Floor) => Some(Reason::BelowFloor),
            Verdict::Soft(_) => Some(Reason::PurgedSoft),
        };
        if let Some(min) = &self.request.min_as_of
            && !entry.as_of.as_ref().is_some_and(|as_of| as_of.covers(min))
        {
            return Use::Dead { reason: Reason::MinAsOf, validate: true };
        }

        let age_ms = policy.age_ms(now_ms);
        let seconds = |s: u64| s.saturating_mul(1000);
        // RFC 9111 section 5.2.1: what the client demands on top.
        let refused = wanted.no_cache
            || wanted.max_age_s.is_some_and(|max| age_ms > seconds(max))
            || wanted.min_fresh_s.is_some_and(|min| policy.lifetime_ms < age_ms.saturating_add(seconds(min)));
        let expired = !policy.is_fresh(now_ms);
        let unproven = !known && !confirmed;

        let reason = match (purged, unproven) {
            (Some(reason), _) => Some(reason),
            (None, true) => Some(Reason::JournalUnreachable),
            (None, false) if policy.no_cache => Some(Reason::MustValidate),
            (None, false) if expired => Some(Reason::Expired),
            (None, false) if refused => Some(Reason::RequestDirective),
            (None, false) => None,
        };
        let Some(reason) = reason else { return Use::Fresh };

        let staleness_ms = policy.staleness_ms(now_ms);
        let within = |window_ms: u64| window_ms > 0 && staleness_ms <= window_ms;
        let max_stale = wanted.max_stale_s.is_some_and(|max| purged.is_none() && staleness_ms <= seconds(max));
        // RFC 5861 section 3 and RFC 9111 section 4.2.4. With the purge state unknown, a stale answer is for errors
        // only: origin is asked first.
        let at_once =
            !policy.forbids_stale && !refused && !unproven && (within(policy.stale_while_revalidate_ms) || max_stale);
        let on_error_ms = policy.stale_if_error_ms.max(seconds(wanted.stale_if_error_s.unwrap_or(0)));
        let on_error = !policy.forbids_stale && within(on_error_ms);
        Use::Stale { reason, at_once, on_error }
    }

    fn fetch(&mut self, engine: &mut Engine<B>) -> Step<B> {
        self.state = State::Fetch;
        self.sent_at = engine.view.newest();
        let candidate = self.best.as_ref().filter(|best| best.validate && !self.request.is_head);
        let validators = candidate.map(|best| validators(&best.entry.head.fields)).unwrap_or_default();
        self.sent_validators = !validators.is_empty();
        let known = self.best.as_ref().map_or(&[][..], |best| &best.entry.keys);
        Step::Fetch(Fetch { validators, min_as_of: self.demand(engine, known) })
    }

    /// What origin must at least have seen: the purges that made this fetch necessary, and what the client demands.
    fn demand(&self, engine: &Engine<B>, keys: &[KeyHash]) -> Option<AsOf> {
        if engine.config.log_owner == LogOwner::Journal {
            return self.request.min_as_of.clone();
        }
        let purge = engine.view.at(engine.view.youngest_purge(keys)).filter(|as_of| as_of.seq > 0);
        match (&self.request.min_as_of, purge) {
            (Some(client), Some(purge)) if client.log_id == purge.log_id && client.seq < purge.seq => Some(purge),
            (Some(client), _) => Some(client.clone()),
            (None, purge) => purge.filter(|_| !keys.is_empty() || self.asked_again),
        }
    }

    fn origin_answered(&mut self, engine: &mut Engine<B>, head: ResponseHead, now_ms: u64) -> Step<B> {
        if matches!(head.status, 500 | 502 | 503 | 504)
            && let Some(answer) = self.stale_on_error(engine, Some(head.status), now_ms)
        {
            return answer;
        }
        if head.status == 304 {
            let candidate = self.best.take().filter(|_| self.sent_validators);
            let Some(candidate) = candidate else {
                // Nothing was asked conditionally, so there is nothing a 304 could speak of.
                return self.fail(
                    engine,
                    502,
                    "origin-invalid",
                    "Origin answered 304 to an unconditional request",
                    now_ms,
                );
            };
            return self.revalidated(engine, &candidate.entry, head, now_ms);
        }
        let keys = surrogate_keys(&head.fields);
        let as_of = self.as_of(engine, &head.fields);
        if let Some(step) = self.check_state(engine, as_of.as_ref().ok(), keys.as_deref().unwrap_or(&[]), now_ms) {
            return step;
        }
        self.forward(engine, head, keys.ok(), as_of, now_ms)
    }

    /// The state an answer was read at; `Err` if it says so in a form that cannot be read.
    fn as_of(&self, engine: &Engine<B>, fields: &Fields) -> Result<Option<AsOf>, Reason> {
        match (engine.config.log_owner, fields.get(SURROGATE_AS_OF)) {
            (LogOwner::Origin, Some(text)) => text.parse().map(Some).map_err(|_| Reason::BadSurrogate),
            _ => Ok(self.sent_at.clone()),
        }
    }

    /// Refuses an answer that is older than a hard purge of its keys or than what the client demands. Origin is
    /// asked once more, with the state it must have seen; then it is a failure.
    fn check_state(
        &mut self,
        engine: &mut Engine<B>,
        as_of: Option<&Option<AsOf>>,
        keys: &[KeyHash],
        now_ms: u64,
    ) -> Option<Step<B>> {
        let as_of = as_of.and_then(Option::as_ref);
        let verdict = engine.view.judge(as_of, keys);
        let purged = matches!(verdict, Verdict::Hard(Cause::Purged | Cause::Floor));
        let demanded = self.request.min_as_of.as_ref();
        let behind = demanded.is_some_and(|min| !as_of.is_some_and(|as_of| as_of.covers(min)));
        if !purged && !behind {
            return None;
        }
        if self.asked_again {
            self.note(Reason::OriginBehind);
            return Some(self.fail(
                engine,
                503,
                "origin-behind",
                "Origin has not reached the demanded state yet",
                now_ms,
            ));
        }
        self.asked_again = true;
        self.best = None;
        self.sent_validators = false;
        self.sent_at = engine.view.newest();
        let min_as_of = self.demand(engine, keys);
        Some(Step::Fetch(Fetch { validators: Vec::new(), min_as_of }))
    }

    /// RFC 9111 section 4.3.4: origin confirmed what is stored, and its state moves forward without a body.
    fn revalidated(
        &mut self,
        engine: &mut Engine<B>,
        old: &Arc<Entry<B>>,
        update: ResponseHead,
        now_ms: u64,
    ) -> Step<B> {
        let as_of = self.as_of(engine, &update.fields);
        let fields = update_stored(&old.head.fields, &update.fields);
        let keys = surrogate_keys(&fields).unwrap_or_default();
        if let Some(step) = self.check_state(engine, as_of.as_ref().ok(), &keys, now_ms) {
            return step;
        }
        let head = ResponseHead { status: old.head.status, fields, ..update };
        let storable = check_storable(&self.request.fields, self.request.directives.no_store, &head);
        let stored = storable.and_then(|()| as_of.as_ref().map(|_| ()).map_err(|reason| *reason));
        let confirmed_ms = head.request_time_ms;
        let mut entry = Entry::new(old.key.clone(), head, as_of.ok().flatten(), keys, old.body.clone(), old.body_bytes);
        entry.origin_confirmed_ms = Some(confirmed_ms);
        let entry = Arc::new(entry);
        let mut behind = self.behind(engine, now_ms);
        if stored.is_ok() {
            engine.keep(Arc::clone(&entry));
            behind.write = vec![Tier::Colo, Tier::Kv];
        }
        self.give_back(engine);
        let status = CacheStatus {
            reason: Some(self.reason),
            fwd_status: Some(304),
            stored: Some(stored),
            ..CacheStatus::new(Phase::Revalidated)
        };
        self.answer_stored(entry, status, behind, now_ms)
    }

    /// What follows the answer. Past the lease that is a sync, if none is under way.
    fn behind(&mut self, engine: &mut Engine<B>, now_ms: u64) -> Behind<B> {
        let sync = engine.knowledge(now_ms) != Knowledge::Leased && engine.claim_sync(now_ms);
        Behind { sync, seen_in_kv: self.seen_in_kv.take(), ..Behind::default() }
    }

    fn forward(
        &mut self,
        engine: &mut Engine<B>,
        head: ResponseHead,
        keys: Option<Vec<KeyHash>>,
        as_of: Result<Option<AsOf>, Reason>,
        now_ms: u64,
    ) -> Step<B> {
        let phase = match self.reason {
            Reason::Uncacheable => Phase::Bypass,
            Reason::NotStored | Reason::OtherVariant => Phase::Miss,
            _ => Phase::Expired,
        };
        let planned = self.plan(engine, &head, keys, as_of);
        let status = CacheStatus {
            reason: Some(self.reason),
            fwd_status: Some(head.status),
            stored: Some(planned.as_ref().map(|_| ()).map_err(|reason| *reason)),
            collapsed: self.collapsed,
            ..CacheStatus::new(phase)
        };
        let store = match planned {
            Ok(plan) => Some(Box::new(plan)),
            Err(_) => {
                self.end_unstored(engine, head.status, now_ms);
                None
            }
        };
        self.state = State::Done;
        let not_modified = head.status == 200 && is_not_modified(&self.request.fields, &head.fields);
        Step::Answer(Box::new(Answer::Forwarded {
            head,
            not_modified,
            status,
            store,
            behind: self.behind(engine, now_ms),
        }))
    }

    /// Nothing comes of the fill. A failing origin is not the same as an uncacheable answer: only for the latter
    /// others need not wait.
    fn end_unstored(&mut self, engine: &mut Engine<B>, status: u16, now_ms: u64) {
        let Some(ticket) = self.ticket.take() else { return };
        if status >= 500 {
            engine.fills.release(&self.request.key, ticket);
        } else {
            engine.fills.pass(&self.request.key, ticket, now_ms.saturating_add(engine.config.pass_ms));
        }
    }

    fn plan(
        &mut self,
        engine: &Engine<B>,
        head: &ResponseHead,
        keys: Option<Vec<KeyHash>>,
        as_of: Result<Option<AsOf>, Reason>,
    ) -> Result<StorePlan, Reason> {
        if self.request.is_head {
            return Err(Reason::Method);
        }
        check_storable(&self.request.fields, self.request.directives.no_store, head)?;
        let keys = keys.ok_or(Reason::BadSurrogate)?;
        let as_of = as_of?;
        let varies_on = selecting_fields(&head.fields).ok_or(Reason::Vary)?;
        let length = head.fields.get("content-length").and_then(|length| length.parse::<u64>().ok());
        if length.is_some_and(|bytes| bytes > engine.config.body_bytes_max) {
            return Err(Reason::TooLarge);
        }
        let key = variant_key(&self.request.key, &varies_on, &self.request.fields);
        let head = ResponseHead { fields: fields_to_store(&head.fields), ..head.clone() };
        Ok(StorePlan {
            key,
            primary: self.request.key.clone(),
            head,
            as_of,
            keys,
            varies_on,
            ticket: self.ticket.take(),
            body_bytes_max: engine.config.body_bytes_max,
        })
    }

    fn origin_failed(&mut self, engine: &mut Engine<B>, now_ms: u64) -> Step<B> {
        if let Some(answer) = self.stale_on_error(engine, None, now_ms) {
            return answer;
        }
        self.note(Reason::OriginFailed);
        self.fail(engine, 502, "origin-unreachable", "The origin did not answer", now_ms)
    }

    /// RFC 5861 section 4: what is stored, if origin fails and the window allows it.
    fn stale_on_error(&mut self, engine: &mut Engine<B>, status: Option<u16>, now_ms: u64) -> Option<Step<B>> {
        let candidate = self.best.as_ref().filter(|best| best.on_error)?;
        let entry = Arc::clone(&candidate.entry);
        // A purge may have been learnt of while origin was asked.
        let Use::Stale { reason, on_error: true, .. } = self.assess(engine, &entry, now_ms) else { return None };
        self.give_back(engine);
        let status = CacheStatus { reason: Some(reason), fwd_status: status, ..CacheStatus::new(Phase::StaleError) };
        let behind = self.behind(engine, now_ms);
        Some(self.answer_stored(entry, status, behind, now_ms))
    }

    fn answer_stored(&mut self, entry: Arc<Entry<B>>, status: CacheStatus, behind: Behind<B>, now_ms: u64) -> Step<B> {
        self.state = State::Done;
        let not_modified = entry.head.status == 200 && is_not_modified(&self.request.fields, &entry.head.fields);
        let status = CacheStatus { ttl_s: Some(entry.policy.ttl_s(now_ms)), collapsed: self.collapsed, ..status };
        let age_ms = entry.policy.age_ms(now_ms);
        Step::Answer(Box::new(Answer::Stored { entry, not_modified, age_ms, status, behind }))
    }

    fn fail(
        &mut self,
        engine: &mut Engine<B>,
        http_status: u16,
        slug: &'static str,
        title: &'static str,
        now_ms: u64,
    ) -> Step<B> {
        self.give_back(engine);
        self.state = State::Done;
        let status = CacheStatus { reason: Some(self.reason), ..CacheStatus::new(Phase::Failed) };
        let behind = self.behind(engine, now_ms);
        Step::Answer(Box::new(Answer::Failed { http_status, slug, title, status, behind }))
    }
}
