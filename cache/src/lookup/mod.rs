//! The lookup: one request's way through memory, the location's cache, KV and origin, as a state machine.
//!
//! [`Lookup::step`] yields what is to be done next; the caller does it and feeds the result back. The machine holds
//! no reference to the engine between steps, performs nothing, and every path ends in an [`Answer`] with a phase.
//! `steps` is what it speaks, `assess` judges entries, `origin` deals with origin's answers.
mod assess;
mod origin;
mod steps;

pub use origin::plan_written;
pub use steps::{Answer, Behind, Event, Failure, Fetch, Request, Show, Step, Tier};

use crate::conditional::{is_not_modified, range_counts};
use crate::directives::RequestDirectives;
use crate::encoding;
use crate::engine::{CatchUp, Engine, Waits};
use crate::entry::{Entry, part_key, viewer_of};
use crate::fields::Fields;
use crate::fills::{Claim, Ticket};
use crate::phase::{CacheStatus, Phase, Reason};
use crate::policy::{ResponseHead, Rules, check_storable};
use crate::range::{self, ByteRange};
use crate::vary::{variant_key, wanted_language_key};
use crate::view::Knowledge;
pub(crate) use assess::{Demands, Use, assess};
use kv_schemas::AsOf;
use std::sync::Arc;

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
    /// KV is read before the location's cache.
    ReadAhead,
    Fetch,
    Join,
    Done,
}

/// Whether origin is asked once more, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    No,
    /// What came was older than a hard purge, or than what the client demands.
    Hard,
    /// What came was older than a soft purge.
    Soft,
    /// Nothing younger than that could be had.
    Anyhow,
}

/// One request on its way.
#[derive(Debug)]
pub struct Lookup<B> {
    request: Request,
    /// The one range that is wanted, if it is one the cache can cut.
    range: Option<ByteRange>,
    /// A refresh behind an answer: it never answers stale, and nobody reads what it answers.
    is_refresh: bool,
    state: State,
    best: Option<Candidate<B>>,
    reason: Reason,
    read_key: String,
    ticket: Option<Ticket>,
    waits: Waits,
    waited_for_fill: bool,
    collapsed: bool,
    /// When this request came; what was learnt later is as new as it can ask for, however long it then took.
    arrived_ms: Option<u64>,
    seen_in_kv: Option<Arc<Entry<B>>>,
    /// The location's cache was looked into.
    asked_colo: bool,
    /// What KV had under a key, if it was read ahead and was no answer by itself.
    read_ahead: Option<(String, Option<Entry<B>>)>,
    /// Found in a tier while the view passed its bound.
    unjudged: Option<(Tier, Arc<Entry<B>>)>,
    /// State of the view when origin was asked.
    sent_at: Option<AsOf>,
    /// The event of that.
    asked: u64,
    sent_validators: bool,
    again: Again,
    /// The beginning of the wanted answer, if that is all that is held.
    beginning: Option<Arc<Entry<B>>>,
    /// Origin's answer with the rest of it.
    rest: Option<ResponseHead>,
    /// The body is packed and goes out unpacked: where the client's range lies in it nobody knows before it is whole.
    whole_only: bool,
}

/// Whether the client has this answer already, by its validators. RFC 9110 section 13.2.1: they count where the answer
/// without them would be a success.
pub fn is_known_to<B>(request: &Fields, entry: &Entry<B>) -> bool {
    entry.head.status == 200 && is_not_modified(request, &entry.head)
}

impl<B: Clone + Default> Lookup<B> {
    pub fn new(request: Request) -> Self {
        // RFC 9110 section 14.2: "A server MUST ignore a Range header field received with a request method that is
        // unrecognized or for which range handling is not defined": GET alone.
        let range = request.fields.get("range").filter(|_| !request.is_head).and_then(range::parse);
        Self {
            read_key: request.key.clone(),
            request,
            range,
            is_refresh: false,
            state: State::Start,
            best: None,
            reason: Reason::NotStored,
            ticket: None,
            waits: Waits::default(),
            waited_for_fill: false,
            collapsed: false,
            arrived_ms: None,
            seen_in_kv: None,
            asked_colo: false,
            read_ahead: None,
            unjudged: None,
            sent_at: None,
            asked: 0,
            sent_validators: false,
            again: Again::No,
            beginning: None,
            rest: None,
            whole_only: false,
        }
    }

    /// The same request, of which it is known what KV has: it is not read again.
    pub fn with_kv(mut self, found: Option<Entry<B>>) -> Self {
        self.read_ahead = Some((self.request.key.clone(), found));
        self
    }

    /// A refresh of an entry ([`Engine::softly_purged`]) before anybody asks for it. `None` if it is being filled already, or
    /// memory has something newer by now.
    pub fn ahead(engine: &mut Engine<B>, entry: &Arc<Entry<B>>, now_ms: u64) -> Option<Self> {
        let request = Request {
            key: entry.key.clone(),
            is_head: false,
            fields: Fields::new(),
            directives: RequestDirectives::default(),
            min_as_of: None,
        };
        if !engine.memory.peek(&entry.key).is_some_and(|held| Arc::ptr_eq(held, entry)) {
            return None;
        }
        match engine.fills.claim(&request.key, now_ms, engine.config.fill_hold_ms) {
            Claim::Granted(ticket) => Some(Self::new(request).refresh(entry, ticket, Reason::PurgedSoft)),
            Claim::Taken | Claim::Passing => None,
        }
    }

    fn refresh(&self, entry: &Arc<Entry<B>>, ticket: Ticket, reason: Reason) -> Self {
        // What this client demands of the cache says nothing about what others are to get.
        let directives = RequestDirectives::default();
        let mut refresh = Self::new(Request { is_head: false, directives, ..self.request.of_the_whole() });
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
            (State::Start, Event::Start) if self.is_refresh => self.read(engine, Tier::Colo, now_ms),
            (State::Start, Event::Start) => self.begin(engine, now_ms),
            (State::Sync, Event::Synced) => match self.unjudged.take() {
                Some((tier, entry)) => self.judged(engine, tier, entry, now_ms),
                None => self.recall(engine, now_ms),
            },
            // However long the wait was, the view must be as current as at the start.
            (State::AwaitSync | State::AwaitFill, Event::Waited) => match self.unjudged.take() {
                Some((tier, entry)) => self.judge(engine, tier, entry, now_ms),
                None => self.begin(engine, now_ms),
            },
            (State::Read(tier), Event::Read(found)) => self.found(engine, tier, found, now_ms),
            (State::ReadAhead, Event::Read(found)) => self.found_ahead(engine, found, now_ms),
            (State::Fetch, Event::Origin(head)) => self.origin_answered(engine, head, now_ms),
            (State::Fetch, Event::OriginFailed) => self.origin_failed(engine, now_ms),
            (State::Join, Event::Joined(body)) => self.joined(engine, body, now_ms),
            // An event that does not fit the state is the caller's mistake; it must not take the isolate down.
            _ => self.fail(engine, Failure::OutOfOrder, now_ms),
        }
    }

    /// The request is given up: whoever waits for its fill need not.
    pub fn cancel(&mut self, engine: &mut Engine<B>) {
        if let Some(ticket) = self.ticket.take() {
            engine.fills.release(&ticket);
        }
    }

    fn begin(&mut self, engine: &mut Engine<B>, now_ms: u64) -> Step<B> {
        match self.catch_up(engine, now_ms) {
            Some(step) => step,
            None => self.recall(engine, now_ms),
        }
    }

    /// What brings the view up to what this request needs, if it is behind and that can be tried.
    fn catch_up(&mut self, engine: &mut Engine<B>, now_ms: u64) -> Option<Step<B>> {
        let is_ahead = self.is_ahead_of(engine);
        match engine.catch_up((self.arrived_ms, is_ahead), &mut self.waits, now_ms) {
            CatchUp::Ended => None,
            CatchUp::Sync => {
                self.state = State::Sync;
                Some(Step::Sync { shared: !is_ahead })
            }
            CatchUp::Wait { ms } => {
                self.state = State::AwaitSync;
                Some(Step::Wait { ms })
            }
        }
    }

    fn await_fill(&mut self, engine: &mut Engine<B>, now_ms: u64) -> Step<B> {
        self.waited_for_fill = true;
        self.state = State::AwaitFill;
        Step::Wait { ms: self.waits.next_ms(&mut engine.turns, now_ms) }
    }

    /// The memory tier, and what follows from it.
    fn recall(&mut self, engine: &mut Engine<B>, now_ms: u64) -> Step<B> {
        self.read_key.clone_from(&self.request.key);
        let mut held = engine.recall(&self.request.key);
        if let Some(marker) = held.take_if(|entry| entry.is_marker()) {
            self.read_key = variant_key(&self.request.key, &marker.varies_on, &self.request.fields);
            held = engine.recall(&self.read_key).or_else(|| self.in_wanted_language(engine, &marker, now_ms));
            self.note(if held.is_some() { Reason::NotStored } else { Reason::OtherVariant });
        }
        if let Some(entry) = held {
            self.collapsed = self.waited_for_fill;
            if let Some(answer) = self.consider(engine, Tier::Memory, entry, now_ms) {
                return answer;
            }
        }
        if let Some(answer) = self.recall_part(engine, now_ms) {
            return answer;
        }
        if let Some((key, found)) = self.read_ahead.take_if(|(read, _)| *read == self.read_key) {
            if found.as_ref().is_some_and(|entry| self.is_answer(engine, entry, now_ms)) {
                return self.found(engine, Tier::Kv, found, now_ms);
            }
            self.read_ahead = Some((key, found));
        }
        if self.request.directives.only_if_cached || self.is_alone() {
            return self.read(engine, Tier::Colo, now_ms);
        }
        self.claim(engine, Tier::Colo, now_ms)
    }

    /// Whether what another request fetches is of no use to this one, nor what this one fetches to others: waiting would
    /// only delay it, and make a queue of all that are like it.
    fn is_alone(&self) -> bool {
        let wanted = &self.request.directives;
        // A request with credentials gets an answer of its own. A demanded state or a range is not what others wait for.
        let is_special = self.request.is_head
            || self.request.min_as_of.is_some()
            || ["authorization", "range"].iter().any(|name| self.request.fields.has(name));
        // RFC 9111 section 5.2.1: origin's word for this very request, or an answer that is not stored.
        let wants_own = wanted.no_cache || wanted.no_store || wanted.max_age_s == Some(0);
        // Section 5.2.2.4: with no-cache the answer "MUST NOT be used to satisfy any other request without forwarding it
        // for validation", and what is stale from the first moment is no better.
        let is_never_fresh =
            |entry: &Entry<B>| entry.policy.no_cache || !entry.policy.is_fresh(entry.head.response_time_ms);
        is_special || wants_own || self.best.as_ref().is_some_and(|best| is_never_fresh(&best.entry))
    }

    /// Goes on reading with the mark of the wanted key, waits for whoever has it, or does without. Where variants are
    /// known the key is that of the variant: requests wait for their like alone.
    fn claim(&mut self, engine: &mut Engine<B>, tier: Tier, now_ms: u64) -> Step<B> {
        match engine.fills.claim(&self.read_key, now_ms, engine.config.fill_hold_ms) {
            Claim::Granted(ticket) => {
                self.ticket = Some(ticket);
                self.read(engine, tier, now_ms)
            }
            Claim::Taken if self.waits.waited_ms < engine.config.fill_wait_ms => self.await_fill(engine, now_ms),
            Claim::Taken => self.ask_origin(engine, now_ms),
            Claim::Passing => {
                self.note(Reason::Uncacheable);
                self.ask_origin(engine, now_ms)
            }
        }
    }

    /// The answer in the one language the request wants most, if it is fresh: otherwise the request's own variant is
    /// what there is to revalidate.
    fn in_wanted_language(&self, engine: &Engine<B>, marker: &Entry<B>, now_ms: u64) -> Option<Arc<Entry<B>>> {
        let key = wanted_language_key(&self.request.key, &marker.varies_on, &self.request.fields)?;
        engine.recall(&key).filter(|entry| self.assess(engine, entry, now_ms) == Use::Fresh)
    }

    /// Looks for a part in memory: it answers a range that lies within it, and is the beginning of a whole.
    fn recall_part(&mut self, engine: &mut Engine<B>, now_ms: u64) -> Option<Step<B>> {
        if self.best.is_some() || self.request.is_head {
            return None;
        }
        let entry = engine.recall(&part_key(&self.request.key))?;
        if self.assess(engine, &entry, now_ms) != Use::Fresh {
            return None;
        }
        let part = entry.part()?;
        self.note(Reason::Part);
        if self.range.is_some() && !self.takes_as_stored(&entry.head.fields) {
            self.whole_only = true;
            return None;
        }
        // RFC 9110 section 13.2.2: the client's validators come first, then its range. Without the range it would be a 200.
        let show = match self.range {
            Some(_) if is_not_modified(&self.request.fields, &entry.head) => Some(Show::NotModified),
            Some(range) if range_counts(&self.request.fields, &entry.head) => {
                Some(Show::Range(range::cut_part(range, part, entry.body_bytes)?))
            }
            _ => None,
        };
        if let Some(show) = show {
            let behind = self.behind(engine, now_ms);
            let status = CacheStatus { tier: Some(Tier::Memory.as_str()), ..CacheStatus::new(Phase::Hit) };
            return Some(self.answer_shown(entry, show, status, behind, now_ms));
        }
        // RFC 9111 section 3.3: "unless the response has been made complete" it answers nothing else.
        let is_beginning = part.first == 0 && part.complete.is_some_and(|complete| complete > entry.body_bytes);
        self.beginning = Some(entry).filter(|_| is_beginning && !self.request.fields.has("range"));
        None
    }

    fn note(&mut self, reason: Reason) {
        self.reason = reason;
    }

    fn read(&mut self, engine: &mut Engine<B>, tier: Tier, now_ms: u64) -> Step<B> {
        if viewer_of(&self.request.key).is_some() {
            // No tier outside the isolate may hold what is a viewer's own, nor say that it does.
            return self.found(engine, Tier::Kv, None, now_ms);
        }
        let key = self.read_key.clone();
        match tier {
            Tier::Colo if self.read_ahead.is_none() && !engine.odds.asks_colo_first(engine.config.colo_in_vain_max) => {
                self.state = State::ReadAhead;
                return Step::Read { tier: Tier::Kv, key };
            }
            Tier::Kv => {
                if let Some((_, found)) = self.read_ahead.take_if(|(read, _)| *read == key) {
                    return self.found(engine, tier, found, now_ms);
                }
            }
            Tier::Memory | Tier::Colo => {}
        }
        self.state = State::Read(tier);
        Step::Read { tier, key }
    }

    /// Whether what a tier had needs nothing more to be an answer.
    fn is_answer(&self, engine: &Engine<B>, entry: &Entry<B>, now_ms: u64) -> bool {
        entry.key == self.read_key && !entry.is_marker() && self.assess(engine, entry, now_ms) == Use::Fresh
    }

    /// What KV had, read before the location's cache: a fresh answer is one. Anything else waits until that was asked, too,
    /// since the location may have what KV does not show yet.
    fn found_ahead(&mut self, engine: &mut Engine<B>, found: Option<Entry<B>>, now_ms: u64) -> Step<B> {
        if found.as_ref().is_some_and(|entry| self.is_answer(engine, entry, now_ms)) {
            return self.found(engine, Tier::Kv, found, now_ms);
        }
        let key = self.read_key.clone();
        self.read_ahead = Some((key.clone(), found));
        self.state = State::Read(Tier::Colo);
        Step::Read { tier: Tier::Colo, key }
    }

    fn found(&mut self, engine: &mut Engine<B>, tier: Tier, found: Option<Entry<B>>, now_ms: u64) -> Step<B> {
        // Two keys may share a hash, and bytes may be anybody's: only an entry that names this key is one.
        let found = found.filter(|entry| entry.key == self.read_key);
        let at_primary = self.read_key == self.request.key;
        if tier == Tier::Colo {
            self.asked_colo = true;
            engine.odds.colo_had(found.is_some());
        }
        if let Some(marker) = found.as_ref().filter(|entry| entry.is_marker()) {
            if at_primary {
                self.read_key = variant_key(&self.request.key, &marker.varies_on, &self.request.fields);
                engine.keep(Arc::new(marker.clone()));
                self.note(Reason::OtherVariant);
                // Whoever waits for the URL's mark learns of its variants now. A refresh keeps its own.
                return match self.ticket.take_if(|_| !self.is_refresh) {
                    Some(ticket) => {
                        engine.fills.release(&ticket);
                        self.claim(engine, tier, now_ms)
                    }
                    None => self.read(engine, tier, now_ms),
                };
            }
        } else if let Some(entry) = found {
            return self.judge(engine, tier, Arc::new(entry), now_ms);
        }
        self.not_found(engine, tier, now_ms)
    }

    /// A copy out of a tier. The view may have passed its bound while that was read: asking the journal takes less than asking
    /// origin to confirm what it may well have.
    fn judge(&mut self, engine: &mut Engine<B>, tier: Tier, entry: Arc<Entry<B>>, now_ms: u64) -> Step<B> {
        if !self.is_refresh
            && let Some(step) = self.catch_up(engine, now_ms)
        {
            self.unjudged = Some((tier, entry));
            return step;
        }
        self.judged(engine, tier, entry, now_ms)
    }

    fn judged(&mut self, engine: &mut Engine<B>, tier: Tier, entry: Arc<Entry<B>>, now_ms: u64) -> Step<B> {
        if tier == Tier::Kv {
            self.seen_in_kv = Some(Arc::clone(&entry));
        }
        match self.consider(engine, tier, entry, now_ms) {
            Some(answer) => answer,
            None => self.not_found(engine, tier, now_ms),
        }
    }

    /// Goes on to the next tier, and after the last one to origin.
    fn not_found(&mut self, engine: &mut Engine<B>, tier: Tier, now_ms: u64) -> Step<B> {
        if tier == Tier::Colo {
            return self.read(engine, Tier::Kv, now_ms);
        }
        if self.request.directives.only_if_cached {
            // RFC 9111 section 5.2.1.7: "either respond using a stored response [...] or respond with a 504 (Gateway
            // Timeout) status code."
            return self.fail(engine, Failure::OnlyIfCached, now_ms);
        }
        self.ask_origin(engine, now_ms)
    }

    /// Origin, unless nothing it could answer now is what the client demands.
    fn ask_origin(&mut self, engine: &mut Engine<B>, now_ms: u64) -> Step<B> {
        if self.is_out_of_reach(engine) {
            self.note(Reason::OriginBehind);
            return self.fail(engine, Failure::Behind, now_ms);
        }
        self.fetch(engine)
    }

    /// Looks at an entry from a tier: an answer, or a candidate for later.
    fn consider(&mut self, engine: &mut Engine<B>, tier: Tier, entry: Arc<Entry<B>>, now_ms: u64) -> Option<Step<B>> {
        let usable = self.assess(engine, &entry, now_ms);
        match usable {
            _ if tier == Tier::Memory => {}
            Use::Fresh => engine.keep_fresh(Arc::clone(&entry)),
            Use::Stale { .. } => engine.keep(Arc::clone(&entry)),
            Use::Dead { .. } => {}
        }
        let (reason, at_once, on_error, validate) = match usable {
            Use::Fresh => {
                self.give_back(engine);
                let mut behind = self.behind(engine, now_ms);
                // Where the location's cache is not asked, nobody would find it there.
                if tier == Tier::Kv && self.asked_colo {
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
        // Where origin's last answer could not be stored nobody would refresh it, and it would be shown for as long as its
        // window lasts in place of what origin says now.
        let is_superseded = engine.fills.is_passing(&self.read_key, now_ms);
        let is_refreshed = || engine.fills.is_filling(&self.read_key, now_ms) || self.may_refresh(&entry);
        if at_once && !self.is_refresh && !is_superseded && is_refreshed() {
            let mut behind = self.behind(engine, now_ms);
            let ticket = self.ticket.take().or_else(|| {
                match engine.fills.claim(&self.read_key, now_ms, engine.config.fill_hold_ms) {
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

    /// Whether what origin answers to a request like this one can take the stored answer's place. If it cannot, and nobody's who
    /// asks can, what is stale would be shown to the end of its window.
    fn may_refresh(&self, entry: &Entry<B>) -> bool {
        let is_storable = check_storable(&self.request.fields, false, &entry.head, Rules::default());
        !self.request.directives.no_store && is_storable != Err(Reason::Authorization)
    }

    fn give_back(&mut self, engine: &mut Engine<B>) {
        if let Some(ticket) = self.ticket.take() {
            engine.fills.release(&ticket);
        }
    }

    /// What follows the answer. Past the lease that is a sync, if none is under way.
    fn behind(&mut self, engine: &mut Engine<B>, now_ms: u64) -> Behind<B> {
        let sync = engine.knowledge(now_ms) != Knowledge::Leased && engine.claim_sync(now_ms);
        Behind { sync, seen_in_kv: self.seen_in_kv.take(), ..Behind::default() }
    }

    fn answer_stored(&mut self, entry: Arc<Entry<B>>, status: CacheStatus, behind: Behind<B>, now_ms: u64) -> Step<B> {
        let show = self.shown(&entry);
        self.answer_shown(entry, show, status, behind, now_ms)
    }

    /// Whether the body goes to the client byte for byte. Its ranges speak of the body as it is sent: unpacked on the way,
    /// its places are not known.
    fn takes_as_stored(&self, fields: &Fields) -> bool {
        !encoding::is_packed(fields) || encoding::takes_packed(&self.request.fields)
    }

    /// RFC 9110 section 13.2.2: the client's validators come first, then its range.
    fn shown(&self, entry: &Entry<B>) -> Show {
        if is_known_to(&self.request.fields, entry) {
            return Show::NotModified;
        }
        if entry.head.status != 200 {
            return Show::Whole;
        }
        let as_stored = self.takes_as_stored(&entry.head.fields);
        match self.range.filter(|_| as_stored && range_counts(&self.request.fields, &entry.head)) {
            Some(range) => Show::Range(range::cut_whole(range, entry.body_bytes)),
            None => Show::Whole,
        }
    }

    fn answer_shown(
        &mut self,
        entry: Arc<Entry<B>>,
        show: Show,
        status: CacheStatus,
        behind: Behind<B>,
        now_ms: u64,
    ) -> Step<B> {
        self.state = State::Done;
        let status = CacheStatus { ttl_s: Some(entry.policy.ttl_s(now_ms)), collapsed: self.collapsed, ..status };
        let age_ms = entry.policy.age_ms(now_ms);
        Step::Answer(Box::new(Answer::Stored { entry, show, age_ms, status, behind }))
    }

    fn fail(&mut self, engine: &mut Engine<B>, failure: Failure, now_ms: u64) -> Step<B> {
        self.give_back(engine);
        self.state = State::Done;
        let status = CacheStatus { reason: Some(self.reason), ..CacheStatus::new(Phase::Failed) };
        let behind = self.behind(engine, now_ms);
        Step::Answer(Box::new(Answer::Failed { failure, status, behind }))
    }
}
