//! The world: what there is, and one step of it.
use crate::check::{History, Served};
use crate::journal::{Journal, Took};
use crate::origin::{Commit, Database, WriteId, key};
use crate::{DOC_KEYS, KEYS, Options, Stats, Violation};
use kv_schemas::journal::{JournalDelta, JournalQuery, SharedSync};
use kv_schemas::{AsOf, LogId, PurgeBatch, PurgeMode, Seq};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use surrogate_cache::directives::RequestDirectives;
use surrogate_cache::engine::StorePlan;
use surrogate_cache::lookup::{Behind, Fetch, Tier};
use surrogate_cache::policy::ResponseHead;
use surrogate_cache::view::Applied;
use surrogate_cache::{Answer, Config, Engine, Entry, Event, Fields, LogOwner, Lookup, Phase, Reason, Request, Step};

/// What a document held when it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Body {
    doc: usize,
    content: WriteId,
}

/// Short times, so that a run of some hundred steps sees leases, bounds and lifetimes end.
const CONFIG_LEASE_MS: u64 = 100;
const CONFIG_BOUND_MS: u64 = 150;
const KV_LAG_MS: u64 = 60_000;
const TRACE_MAX: usize = 48;
const POLICIES: [&str; 4] = [
    "max-age=60, stale-while-revalidate=30, stale-if-error=300",
    "max-age=2, stale-while-revalidate=10, stale-if-error=60",
    "max-age=60, must-revalidate",
    "max-age=1, stale-if-error=60",
];

struct Isolate {
    id: u32,
    location: usize,
    engine: Engine<Body>,
    /// Its clock minus the true one.
    offset_ms: i64,
    /// True time of the last question to the journal that brought the view up to date.
    journal_asked_ms: Option<u64>,
}

impl Isolate {
    fn clock(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.offset_ms)
    }
}

/// A lookup's place between two steps.
enum At {
    /// To be performed.
    Step(Step<Body>),
    /// The journal's answer is on its way.
    Synced(JournalQuery, u64, Option<JournalDelta>),
    Found(Option<Entry<Body>>),
    Answered(ResponseHead, Body),
}

/// A request under way.
struct Asked {
    lookup: Box<Lookup<Body>>,
    doc: usize,
    arrived_ms: u64,
    demanded: Option<AsOf>,
    /// What origin read for it.
    read: Option<Body>,
}

enum Work {
    Lookup(Asked, At),
    /// A sync behind an answer.
    Sync(Option<(JournalQuery, u64, Option<JournalDelta>)>),
    /// A body that is still coming.
    Fill(Box<StorePlan>, Body),
    Write(Arc<Entry<Body>>, Tier),
}

struct Task {
    isolate: u32,
    work: Work,
}

pub struct World {
    options: Options,
    random: fastrand::Rng,
    owner: LogOwner,
    now_ms: u64,
    database: Database,
    journal: Journal,
    journal_up: bool,
    history: History,
    /// Batches on their way; they may arrive in any order, twice, or not at all.
    batches: VecDeque<PurgeBatch>,
    next_seq: Option<Seq>,
    /// Logs whose numbers were used twice: nothing can be said of their states until they are replaced.
    forked: Vec<LogId>,
    /// What isolates of each location share, and when it was told, in true time.
    shared: Vec<Option<(SharedSync, u64)>>,
    /// Purges of a journal that numbers itself, not sent yet: the writer does that after the write.
    unsent: Vec<Commit>,
    isolates: Vec<Isolate>,
    isolate_ids: u32,
    colo: Vec<HashMap<String, Entry<Body>>>,
    kv: HashMap<String, (Entry<Body>, u64)>,
    /// What each location believes of KV, and until when.
    kv_seen: Vec<HashMap<String, (Option<Entry<Body>>, u64)>>,
    tasks: Vec<Task>,
    stats: Stats,
    trace: VecDeque<String>,
    fault: Option<String>,
    calm: bool,
}

impl World {
    pub fn new(options: &Options) -> Self {
        let mut random = fastrand::Rng::with_seed(options.seed);
        let owner = if random.bool() { LogOwner::Origin } else { LogOwner::Journal };
        let replicas = if owner == LogOwner::Origin { random.usize(0..3) } else { 0 };
        let mut world = Self {
            options: options.clone(),
            owner,
            now_ms: 1_700_000_000_000,
            database: Database::new(replicas),
            journal: Journal::default(),
            journal_up: true,
            history: History::default(),
            batches: VecDeque::new(),
            next_seq: None,
            forked: Vec::new(),
            shared: vec![None; options.locations],
            unsent: Vec::new(),
            isolates: Vec::new(),
            isolate_ids: 0,
            colo: vec![HashMap::new(); options.locations],
            kv: HashMap::new(),
            kv_seen: vec![HashMap::new(); options.locations],
            tasks: Vec::new(),
            stats: Stats::default(),
            trace: VecDeque::new(),
            fault: None,
            calm: false,
            random,
        };
        world.history.begin(world.database.log_id(), Vec::new());
        for location in 0..options.locations {
            world.spawn(location);
        }
        world
    }

    pub fn run(mut self) -> Result<Stats, Box<Violation>> {
        for step in 0..self.options.steps {
            self.step();
            self.stats.steps += 1;
            self.verdict(step)?;
        }
        self.settle();
        self.verdict(self.options.steps)?;
        Ok(self.stats)
    }

    fn verdict(&mut self, step: usize) -> Result<(), Box<Violation>> {
        for isolate in &self.isolates {
            if isolate.engine.view.keys_len() > isolate.engine.config.view_keys_max {
                self.fault.get_or_insert(format!("isolate {}: the view outgrew its bound", isolate.id));
            }
        }
        match self.fault.take() {
            None => Ok(()),
            Some(what) => Err(Box::new(Violation {
                seed: self.options.seed,
                locations: self.options.locations,
                steps: self.options.steps,
                step,
                what,
                trace: self.trace.drain(..).collect(),
            })),
        }
    }

    fn note(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.trace.len() == TRACE_MAX {
            self.trace.pop_front();
        }
        let line = format!("{:>7} ms  {}", self.now_ms - 1_700_000_000_000, text(self));
        self.trace.push_back(line);
    }

    /// The first fault is the one to look at.
    fn blame(&mut self, fault: impl Into<String>) {
        self.fault.get_or_insert_with(|| fault.into());
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.u32(0..100) < percent
    }

    /// Whether something on a network goes wrong now.
    fn fails(&mut self, percent: u32) -> bool {
        let fails = !self.calm && self.chance(percent);
        self.stats.faults += u64::from(fails);
        fails
    }

    fn spawn(&mut self, location: usize) -> u32 {
        self.isolate_ids += 1;
        let config = Config {
            log_owner: self.owner,
            lease_ms: CONFIG_LEASE_MS,
            bound_ms: CONFIG_BOUND_MS,
            soft_window_ms_max: if self.owner == LogOwner::Origin { CONFIG_BOUND_MS } else { u64::MAX },
            sync_timeout_ms: 200,
            view_keys_max: if self.chance(50) { 4 } else { 64 },
            memory_entries_max: 32,
            fill_wait_ms: 300,
            fill_hold_ms: 1_000,
            ..Config::default()
        };
        let offset_ms = self.random.i64(-600_000..600_000);
        let isolate =
            Isolate { id: self.isolate_ids, location, engine: Engine::new(config), offset_ms, journal_asked_ms: None };
        self.note(|_| format!("isolate {} begins at location {location}, its clock {offset_ms} ms off", isolate.id));
        self.isolates.push(isolate);
        self.isolate_ids
    }

    fn step(&mut self) {
        match self.random.u32(0..100) {
            0..12 => self.pass_time(),
            12..30 => self.request(),
            30..80 => self.work(),
            80..88 => self.change(),
            88..95 => self.deliver(),
            95..97 => self.replicate(),
            _ => self.disturb(),
        }
    }

    fn pass_time(&mut self) {
        self.now_ms += match self.random.u32(0..20) {
            0 => self.random.u64(1_000..90_000),
            1..5 => self.random.u64(100..1_000),
            _ => self.random.u64(1..60),
        };
    }

    fn request(&mut self) {
        let isolate = self.random.usize(0..self.isolates.len());
        let doc = self.random.usize(0..DOC_KEYS.len());
        let mut demanded = None;
        let mut fields = Fields::new();
        match self.random.u32(0..20) {
            0 | 1 if self.owner == LogOwner::Origin && self.database.head() > 0 => {
                let seq = self.random.u64(1..=self.database.head());
                demanded = Some(AsOf::new(self.database.log_id(), seq));
            }
            2 => fields.push("cache-control", "no-cache"),
            3 => fields.push("cache-control", "max-stale"),
            _ => {}
        }
        self.ask(isolate, doc, fields, demanded);
    }

    fn ask(&mut self, isolate: usize, doc: usize, fields: Fields, demanded: Option<AsOf>) {
        self.stats.requests += 1;
        let isolate = &mut self.isolates[isolate];
        let request = Request {
            key: format!("GET /{doc}"),
            is_head: false,
            directives: RequestDirectives::of(&fields),
            fields,
            min_as_of: demanded.clone(),
        };
        let mut lookup = Box::new(Lookup::new(request));
        let clock = isolate.clock(self.now_ms);
        let first = lookup.step(&mut isolate.engine, Event::Start, clock);
        let id = isolate.id;
        let asked = Asked { lookup, doc, arrived_ms: self.now_ms, demanded, read: None };
        self.note(|_| format!("isolate {id}: a request for document {doc}"));
        self.proceed(id, asked, first);
    }

    /// One step of one thing that is under way.
    fn work(&mut self) {
        if self.tasks.is_empty() {
            return self.request();
        }
        let index = self.random.usize(0..self.tasks.len());
        if self.fails(1) {
            // A request may end at any await, and says nothing.
            let task = self.tasks.swap_remove(index);
            return self.note(|_| format!("isolate {}: something under way is cancelled", task.isolate));
        }
        self.advance(index);
    }

    fn advance(&mut self, index: usize) {
        let Task { isolate: id, work } = self.tasks.swap_remove(index);
        let Some(place) = self.isolates.iter().position(|isolate| isolate.id == id) else { return };
        let next = match work {
            Work::Lookup(asked, at) => self.advance_lookup(place, asked, at),
            Work::Sync(asked) => self.advance_sync(place, asked),
            Work::Fill(plan, body) => {
                self.fill(place, *plan, body);
                None
            }
            Work::Write(entry, tier) => {
                self.write(place, &entry, tier);
                None
            }
        };
        if let Some(work) = next {
            self.tasks.push(Task { isolate: id, work });
        }
    }

    /// A question to the journal: asked now, answered now or never, heard of later.
    fn ask_journal(&mut self, place: usize) -> (JournalQuery, u64, Option<JournalDelta>) {
        let isolate = &self.isolates[place];
        let (query, id) = (isolate.engine.view.query("here"), isolate.id);
        let delta = if self.journal_up && !self.fails(5) { self.journal.sync(&query, self.now_ms) } else { None };
        self.note(|_| match &delta {
            None => format!("isolate {id}: asks the journal from {}, in vain", query.since),
            Some(delta) => format!("isolate {id}: asks the journal from {}, which is at {}", query.since, delta.head),
        });
        (query, self.now_ms, delta)
    }

    /// The journal's answer arrives. Whether there is more to ask for.
    fn hear_journal(&mut self, place: usize, query: &JournalQuery, sent_ms: u64, delta: Option<JournalDelta>) -> bool {
        let isolate = &mut self.isolates[place];
        let clock = isolate.clock(self.now_ms);
        let Some(delta) = delta else {
            isolate.engine.sync_failed(clock);
            return false;
        };
        let applied = isolate.engine.sync_succeeded(query, &delta, isolate.clock(sent_ms));
        if applied == Applied::Complete {
            isolate.journal_asked_ms = isolate.journal_asked_ms.max(Some(sent_ms));
            // What the others of the location are told may be lost, or overwrite something newer.
            self.shared[isolate.location] = Some((SharedSync { asked: query.clone(), delta, asking_ms: 0 }, sent_ms));
        }
        let (id, log) = (isolate.id, isolate.engine.view.newest());
        self.note(|_| format!("isolate {id}: hears the journal ({applied:?}), is at {log:?}"));
        applied == Applied::Partial
    }

    /// Looks for what the journal told another isolate of this location.
    fn take_shared(&mut self, place: usize) -> bool {
        let isolate = &mut self.isolates[place];
        let Some((shared, told_ms)) = self.shared[isolate.location].clone() else { return false };
        if self.random.u32(0..100) < 10 || !isolate.engine.sync_shared(&shared, isolate.clock(self.now_ms)) {
            return false;
        }
        isolate.journal_asked_ms = isolate.journal_asked_ms.max(Some(told_ms));
        let (id, log) = (isolate.id, isolate.engine.view.newest());
        self.stats.shared += 1;
        self.note(|_| format!("isolate {id}: learns of its neighbour, is at {log:?}"));
        true
    }

    fn advance_sync(&mut self, place: usize, asked: Option<(JournalQuery, u64, Option<JournalDelta>)>) -> Option<Work> {
        let Some((query, sent_ms, delta)) = asked else {
            if self.take_shared(place) {
                return None;
            }
            return Some(Work::Sync(Some(self.ask_journal(place))));
        };
        let known = self.isolates[place].engine.view.applied();
        if self.hear_journal(place, &query, sent_ms, delta) {
            return Some(Work::Sync(None));
        }
        let now_ms = self.now_ms;
        let isolate = &mut self.isolates[place];
        if self.owner == LogOwner::Origin && isolate.engine.view.applied() != known {
            let clock = isolate.clock(now_ms);
            let entries = isolate.engine.softly_purged(100, 4);
            let ahead: Vec<_> =
                entries.iter().filter_map(|entry| Lookup::ahead(&mut isolate.engine, entry, clock)).collect();
            let id = isolate.id;
            for lookup in ahead {
                self.begin_refresh(id, lookup);
            }
        }
        None
    }

    fn begin_refresh(&mut self, id: u32, mut lookup: Lookup<Body>) {
        let Some(isolate) = self.isolates.iter_mut().find(|isolate| isolate.id == id) else { return };
        let clock = isolate.clock(self.now_ms);
        let doc = doc_of(lookup.key());
        let first = lookup.step(&mut isolate.engine, Event::Start, clock);
        let asked = Asked { lookup: Box::new(lookup), doc, arrived_ms: self.now_ms, demanded: None, read: None };
        self.proceed(id, asked, first);
    }

    /// What follows from a lookup's step: an answer leaves at once, anything else takes its time.
    fn proceed(&mut self, id: u32, asked: Asked, step: Step<Body>) {
        match step {
            Step::Answer(answer) => self.answered(id, *answer, &asked),
            step => self.tasks.push(Task { isolate: id, work: Work::Lookup(asked, At::Step(step)) }),
        }
    }

    fn advance_lookup(&mut self, place: usize, mut asked: Asked, at: At) -> Option<Work> {
        let event = match at {
            At::Step(Step::Answer(_)) => return None,
            At::Step(Step::Sync { shared: true }) if self.take_shared(place) => Event::Synced,
            At::Step(Step::Sync { .. }) => {
                let (query, sent_ms, delta) = self.ask_journal(place);
                return Some(Work::Lookup(asked, At::Synced(query, sent_ms, delta)));
            }
            At::Step(Step::Wait { ms }) => {
                // A timer never fires early.
                self.now_ms += ms;
                Event::Waited
            }
            At::Step(Step::Read { tier, key }) => {
                let found = if self.fails(2) { None } else { self.look(place, tier, &key) };
                return Some(Work::Lookup(asked, At::Found(found)));
            }
            At::Step(Step::Fetch(fetch)) => match self.fetch(place, asked.doc, &fetch) {
                None => Event::OriginFailed,
                Some((head, body)) => return Some(Work::Lookup(asked, At::Answered(head, body))),
            },
            At::Step(Step::Join { .. }) => Event::Joined(None),
            At::Synced(query, sent_ms, delta) => {
                if self.hear_journal(place, &query, sent_ms, delta) {
                    let (query, sent_ms, delta) = self.ask_journal(place);
                    return Some(Work::Lookup(asked, At::Synced(query, sent_ms, delta)));
                }
                Event::Synced
            }
            At::Found(found) => Event::Read(found),
            At::Answered(_, _) if self.fails(3) => Event::OriginFailed,
            At::Answered(mut head, body) => {
                asked.read = Some(body);
                head.response_time_ms = self.isolates[place].clock(self.now_ms);
                Event::Origin(head)
            }
        };
        let isolate = &mut self.isolates[place];
        let (id, clock) = (isolate.id, isolate.clock(self.now_ms));
        let step = asked.lookup.step(&mut isolate.engine, event, clock);
        self.proceed(id, asked, step);
        None
    }

    /// A read of a tier. KV answers from what the location saw of it within the last minute, absence included.
    fn look(&mut self, place: usize, tier: Tier, key: &str) -> Option<Entry<Body>> {
        let location = self.isolates[place].location;
        if tier != Tier::Kv {
            return self.colo[location].get(key).cloned();
        }
        if let Some((seen, until_ms)) = self.kv_seen[location].get(key)
            && self.now_ms < *until_ms
        {
            return seen.clone();
        }
        let now = self.kv.get(key).map(|(entry, _)| entry.clone());
        self.kv_seen[location].insert(key.to_string(), (now.clone(), self.now_ms + KV_LAG_MS));
        now
    }

    fn write(&mut self, place: usize, entry: &Arc<Entry<Body>>, tier: Tier) {
        if self.fails(3) {
            return;
        }
        // What another isolate reads has no confirmation by that isolate's clock.
        let stored = Entry { origin_confirmed_ms: None, ..(**entry).clone() };
        let location = self.isolates[place].location;
        if tier != Tier::Kv {
            self.colo[location].insert(stored.key.clone(), stored);
            return;
        }
        let too_soon = self.kv.get(&stored.key).is_some_and(|(_, at_ms)| self.now_ms < at_ms + 1_000);
        if !too_soon {
            self.kv.insert(stored.key.clone(), (stored, self.now_ms));
        }
    }

    /// Origin reads now; its answer arrives later.
    fn fetch(&mut self, place: usize, doc: usize, fetch: &Fetch) -> Option<(ResponseHead, Body)> {
        if self.fails(6) {
            return None;
        }
        let seq = self.database.read_at(&mut self.random, fetch.min_as_of.as_ref());
        let (id, clock) = (self.isolates[place].id, self.isolates[place].clock(self.now_ms));
        let mut fields = Fields::new();
        let head = |status, fields| ResponseHead { status, fields, request_time_ms: clock, response_time_ms: clock };
        let Some(seq) = seq.filter(|_| !self.calm || fetch.min_as_of.is_none() || seq.is_some()) else {
            return Some((head(503, fields), Body { doc, content: 0 }));
        };
        let content = self.database.content(doc, seq);
        let body = Body { doc, content };
        self.note(|_| format!("isolate {id}: origin reads document {doc} as of {seq}: write {content}"));
        let etag = format!("\"{doc}-{content}\"");
        fields.push("cache-control", POLICIES[doc % POLICIES.len()]);
        fields.push("etag", etag.clone());
        let keys: Vec<String> = DOC_KEYS[doc].iter().map(|index| key(*index).to_string()).collect();
        fields.push("surrogate-key", keys.join(" "));
        if self.owner == LogOwner::Origin {
            fields.push("surrogate-as-of", AsOf::new(self.database.log_id(), seq).to_string());
        }
        let unchanged = fetch.fields.iter().any(|(name, value)| name == "if-none-match" && *value == etag);
        Some((head(if unchanged { 304 } else { 200 }, fields), body))
    }

    fn answered(&mut self, id: u32, mut answer: Answer<Body>, asked: &Asked) {
        let Some(place) = self.isolates.iter().position(|isolate| isolate.id == id) else { return };
        let (doc, arrived_ms, demanded) = (asked.doc, asked.arrived_ms, asked.demanded.as_ref());
        let behind = std::mem::take(answer.behind());
        let status = answer.status().clone();
        let mut written = None;
        match answer {
            Answer::Failed { slug, .. } => {
                self.stats.failed += 1;
                self.note(|_| format!("isolate {id}: document {doc} failed: {slug}"));
            }
            Answer::Stored { entry, .. } => {
                match status.phase {
                    Phase::Hit => self.stats.hits += 1,
                    Phase::Stale | Phase::StaleError => self.stats.stale += 1,
                    _ => self.stats.forwarded += 1,
                }
                // What origin confirmed a moment ago is origin's answer, as a forwarded one is.
                self.check(place, &entry, asked, status.phase);
                self.note(|_| {
                    format!(
                        "isolate {id}: document {doc} answered: {} {:?}, {:?}",
                        status.phase.as_str(),
                        status.reason,
                        entry.body
                    )
                });
                written = Some(entry);
            }
            Answer::Forwarded { store, .. } => {
                self.stats.forwarded += 1;
                let Some(body) = asked.read else {
                    self.blame("an answer of origin's without one");
                    return;
                };
                self.note(|_| format!("isolate {id}: document {doc} forwarded: {:?} {body:?}", status.reason));
                if let Some(min) = demanded {
                    let served = Served {
                        doc,
                        content: body.content,
                        as_of: None,
                        view: None,
                        arrived_ms,
                        now_ms: self.now_ms,
                        journal_asked_ms: None,
                        origin_asked_ms: None,
                        bound_ms: CONFIG_BOUND_MS,
                        purged_at_ms: None,
                        is_fresh: false,
                        is_stale: false,
                        is_stored: false,
                        demanded: Some(min)
                            .filter(|min| min.log_id == self.database.log_id() && !self.forked.contains(&min.log_id)),
                    };
                    let fault = self.history.fault(&served);
                    fault.into_iter().for_each(|fault| self.blame(fault));
                }
                if let Some(plan) = store {
                    self.tasks.push(Task { isolate: id, work: Work::Fill(plan, body) });
                }
            }
        }
        self.behind(id, behind, written);
    }

    fn behind(&mut self, id: u32, behind: Behind<Body>, written: Option<Arc<Entry<Body>>>) {
        if behind.sync {
            self.tasks.push(Task { isolate: id, work: Work::Sync(None) });
        }
        if let Some(entry) = written {
            for tier in behind.write {
                self.tasks.push(Task { isolate: id, work: Work::Write(Arc::clone(&entry), tier) });
            }
        }
        if let Some(refresh) = behind.refresh {
            self.begin_refresh(id, refresh);
        }
    }

    fn check(&mut self, place: usize, entry: &Entry<Body>, asked: &Asked, phase: Phase) {
        let isolate = &self.isolates[place];
        let true_time = |clock: u64| clock.saturating_add_signed(-isolate.offset_ms);
        let view = &isolate.engine.view;
        let logs = [view.log_id(), entry.as_of.as_ref().map(|as_of| &as_of.log_id)];
        if logs.into_iter().flatten().any(|log_id| self.forked.contains(log_id)) {
            return;
        }
        let origin_asked_ms = entry.origin_confirmed_ms.map(true_time);
        let least_ms = asked.arrived_ms.min(self.now_ms.saturating_sub(CONFIG_BOUND_MS));
        // Where the journal numbers, soft purges leave the old copy to stale-while-revalidate. And what a lagging replica
        // confirmed a moment ago is its word against nobody's.
        let is_bounded = self.owner == LogOwner::Origin && origin_asked_ms.is_none_or(|at_ms| at_ms < least_ms);
        let as_of = entry.as_of.as_ref().filter(|_| is_bounded);
        let unseen = as_of.and_then(|as_of| Some((&as_of.log_id, self.history.oldest_after(as_of, asked.doc)?)));
        let doc = asked.doc;
        let served = Served {
            doc,
            content: entry.body.content,
            as_of: entry.as_of.as_ref(),
            view: view.log_id().map(|log_id| (log_id, view.applied())),
            arrived_ms: asked.arrived_ms,
            now_ms: self.now_ms,
            journal_asked_ms: isolate.journal_asked_ms,
            origin_asked_ms,
            bound_ms: CONFIG_BOUND_MS,
            purged_at_ms: unseen.and_then(|(log_id, seq)| self.journal.accepted_ms(log_id, seq)),
            // What origin confirmed a moment ago is origin's answer, as a forwarded one is.
            is_fresh: phase == Phase::Hit,
            is_stale: phase == Phase::Stale,
            is_stored: true,
            demanded: asked.demanded.as_ref(),
        };
        if entry.body.doc != doc {
            self.blame(format!("document {doc} was answered with document {}", entry.body.doc));
        } else if let Some(fault) = self.history.fault(&served) {
            self.blame(format!("isolate {}: {fault}", isolate.id));
        }
    }

    /// A body has come to its end, or breaks off.
    fn fill(&mut self, place: usize, plan: StorePlan, body: Body) {
        let breaks = self.fails(4);
        let isolate = &mut self.isolates[place];
        let (id, clock) = (isolate.id, isolate.clock(self.now_ms));
        if breaks {
            return isolate.engine.abandon(&plan, Reason::OriginFailed, clock);
        }
        let stored = isolate.engine.complete(plan, body, 100);
        let entries: Vec<_> = stored.for_tiers().cloned().collect();
        self.note(|_| format!("isolate {id}: stores {body:?} as of {:?}", stored.entry.as_of));
        for entry in entries {
            for tier in [Tier::Colo, Tier::Kv] {
                self.tasks.push(Task { isolate: id, work: Work::Write(Arc::clone(&entry), tier) });
            }
        }
    }

    /// A write or a purge by hand.
    fn change(&mut self) {
        self.stats.purges += 1;
        let keys: Vec<usize> = (0..self.random.usize(1..4)).map(|_| self.random.usize(0..KEYS)).collect();
        let all = self.chance(4);
        let keys = if all { Vec::new() } else { keys };
        let mode = if self.chance(30) { PurgeMode::Hard } else { PurgeMode::Soft };
        let is_write = !all && self.chance(70);
        let write = self.database.commit(keys.clone(), all, mode, is_write);
        let commit = Commit { keys, all, mode, write, mark: 0 };
        self.note(|world| format!("commit {}: {commit:?}", world.database.head()));
        match self.owner {
            LogOwner::Origin if self.forked.contains(&self.database.log_id()) => {}
            LogOwner::Origin => self.history.push(&self.database.log_id(), commit),
            LogOwner::Journal => self.unsent.push(commit),
        }
    }

    /// Purges on their way to the journal.
    fn deliver(&mut self) {
        if self.owner == LogOwner::Journal {
            return self.send_own();
        }
        if !self.batches.is_empty() && self.chance(50) {
            // Any batch that is under way, not the oldest.
            let index = self.random.usize(0..self.batches.len());
            let Some(batch) = self.batches.get(index).cloned() else { return };
            if !self.chance(10) {
                self.batches.remove(index);
            }
            if self.journal_up && !self.fails(5) {
                self.take_batch(&batch);
            }
            return;
        }
        let head = self.database.head();
        let mut first_seq = self.next_seq.unwrap_or(head + 1).clamp(1, head + 1);
        if self.fails(5) {
            // A second dispatcher, or one that came back with an old belief.
            first_seq = self.random.u64(1..=head + 1);
        }
        let count = self.random.usize(1..5);
        self.batches.push_back(self.database.batch(first_seq, count));
    }

    fn take_batch(&mut self, batch: &PurgeBatch) {
        let took = self.journal.batch(batch, self.now_ms);
        self.note(|world| {
            format!("the journal takes {} from {}: at {}", batch.log_id, batch.first_seq, world.journal.head())
        });
        // The dispatcher hears of it, or not.
        if self.fails(10) || batch.log_id != self.database.log_id() {
            return;
        }
        let ack = match took {
            Took::Retired => return,
            Took::Ack(ack) if ack.next_seq <= self.database.head() + 1 => ack,
            Took::Ack(_) | Took::Forked => {
                self.database.replace_log();
                self.history.begin(self.database.log_id(), self.database.commits.clone());
                self.next_seq = None;
                let log_id = self.database.log_id();
                return self.note(|_| format!("the log becomes {log_id}: its history is not the one the edge knows"));
            }
        };
        self.next_seq = Some(ack.next_seq);
    }

    fn send_own(&mut self) {
        if self.unsent.is_empty() || !self.journal_up || self.fails(5) {
            return;
        }
        let index = self.random.usize(0..self.unsent.len());
        let commit = self.unsent.swap_remove(index);
        self.journal.own_log();
        let Some(log_id) = self.journal.log_id().cloned() else { return };
        let hashes = commit.keys.iter().map(|index| key(*index).hash()).collect();
        let seq = self.journal.append(hashes, commit.all, commit.mode, self.now_ms);
        self.note(|_| format!("the journal numbers a purge {seq}: {commit:?}"));
        self.history.push(&log_id, commit);
    }

    fn replicate(&mut self) {
        if self.database.replicas.is_empty() {
            return self.pass_time();
        }
        let head = self.database.head();
        let index = self.random.usize(0..self.database.replicas.len());
        let at = self.database.replicas[index];
        self.database.replicas[index] = self.random.u64(at..=head);
    }

    fn disturb(&mut self) {
        self.stats.faults += 1;
        match self.random.u32(0..20) {
            0..6 => {
                self.journal_up = !self.journal_up;
                self.note(|world| format!("the journal is {}", if world.journal_up { "back" } else { "unreachable" }));
            }
            6..13 => {
                let index = self.random.usize(0..self.isolates.len());
                let gone = self.isolates.swap_remove(index);
                self.note(|_| format!("isolate {} is gone", gone.id));
                self.spawn(gone.location);
            }
            13..17 => {
                let location = self.random.usize(0..self.options.locations);
                if self.isolates.len() < self.options.locations * 3 {
                    self.spawn(location);
                } else {
                    self.colo[location].clear();
                    self.note(|_| format!("location {location} forgets its entries"));
                }
            }
            17 if self.chance(50) => {
                let offset_ms = self.random.i64(-600_000..600_000);
                self.journal.restart(offset_ms);
                self.note(|_| format!("the journal starts anew, its clock {offset_ms} ms off"));
            }
            // Both at once leave nobody who knows.
            17 if !self.forked.contains(&self.database.log_id()) => {
                self.journal.lose();
                // A journal that holds nothing believes the first batch it gets: a late one is a second fault at once, and
                // tokens let none be later than a minute.
                self.batches.clear();
                if self.owner == LogOwner::Journal {
                    self.journal.own_log();
                }
                self.note(|_| "the journal loses its storage".into());
            }
            18 if self.owner == LogOwner::Origin => {
                let to = self.random.u64(0..=self.database.head());
                let log_id = self.database.log_id();
                let edge_knows_more = self.journal.log_id() == Some(&log_id) && self.journal.head() > to;
                self.database.put_back(to);
                self.next_seq = None;
                if edge_knows_more {
                    // A copied file that says nothing: the edge has to notice.
                    self.forked.push(log_id);
                    return self.note(|_| format!("the database is put back to {to}"));
                }
                // Restored as the manual says.
                self.database.replace_log();
                self.history.begin(self.database.log_id(), self.database.commits.clone());
                self.note(|world| format!("the database is restored to {to}: {}", world.database.log_id()));
            }
            _ => self.pass_time(),
        }
    }

    /// Everything works again: every purge arrives everywhere, and every page shows what origin holds.
    fn settle(&mut self) {
        self.calm = true;
        self.journal_up = true;
        self.note(|_| "everything works again".into());
        self.finish_tasks();
        if self.fault.is_some() {
            return;
        }
        let head = self.database.head();
        self.database.replicas.fill(head);
        self.batches.clear();
        for _ in 0..1_000 {
            match self.owner {
                LogOwner::Journal if self.unsent.is_empty() => break,
                LogOwner::Journal => self.send_own(),
                LogOwner::Origin => {
                    let end = self.database.head() + 1;
                    let first_seq = self.next_seq.unwrap_or(end).clamp(1, end);
                    self.take_batch(&self.database.batch(first_seq, 5));
                    // Like the dispatcher, which asks once more when all is delivered.
                    let is_there = self.journal.log_id() == Some(&self.database.log_id());
                    if first_seq == end && self.next_seq == Some(end) && is_there {
                        break;
                    }
                }
            }
        }
        self.now_ms += 10_000;
        for isolate in 0..self.isolates.len() {
            for doc in 0..DOC_KEYS.len() {
                self.settle_page(isolate, doc);
                if self.fault.is_some() {
                    return;
                }
            }
            let view = &self.isolates[isolate].engine.view;
            let log_id = self.journal.log_id();
            if log_id.is_some() && (view.log_id() != log_id || view.applied() != self.journal.head()) {
                let (at, id) = (view.newest(), self.isolates[isolate].id);
                return self.blame(format!("isolate {id} is at {at:?} and the journal at {}", self.journal.head()));
            }
        }
    }

    fn settle_page(&mut self, isolate: usize, doc: usize) {
        // The first look may be stale for once; the refresh behind it is the second.
        for _ in 0..3 {
            self.ask(isolate, doc, Fields::new(), None);
            self.finish_tasks();
        }
        let engine = &self.isolates[isolate].engine;
        let wanted = self.database.content(doc, self.database.head());
        let held = engine.recall(&format!("GET /{doc}")).map(|entry| entry.body.content);
        if held != Some(wanted) {
            let id = self.isolates[isolate].id;
            self.blame(format!("isolate {id}: document {doc} shows write {held:?} for good; origin holds {wanted}"));
        }
    }

    fn finish_tasks(&mut self) {
        for _ in 0..20_000 {
            if self.tasks.is_empty() || self.fault.is_some() {
                return;
            }
            let index = self.random.usize(0..self.tasks.len());
            self.advance(index);
        }
        self.blame("what is under way does not come to an end");
    }
}

fn doc_of(key: &str) -> usize {
    key.trim_start_matches("GET /").parse().unwrap_or(0)
}
