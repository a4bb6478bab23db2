//! The world: what there is, and one step of it.
mod changes;
mod receipts;
mod requests;
mod settle;
mod syncs;

use crate::check::{History, Served};
use crate::journal::{Journal, Took};
use crate::origin::{Commit, Database, WriteId, key};
use crate::{DOC_KEYS, KEYS, Options, Stats, Violation};
use kv_schemas::journal::{JournalDelta, JournalQuery, SharedSync};
use kv_schemas::receipt::PurgeState;
use kv_schemas::surrogate_key::SurrogateKey;
use kv_schemas::{AsOf, LogId, PurgeBatch, PurgeMode, PurgeRequest, Seq};
use receipts::{Account, Claim, name_of};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use surrogate_cache::announced::{WriteEnd, WriteId as Announcement};
use surrogate_cache::directives::RequestDirectives;
use surrogate_cache::engine::StorePlan;
use surrogate_cache::lookup::{Behind, Failure, Fetch, Tier};
use surrogate_cache::policy::ResponseHead;
use surrogate_cache::view::Applied;
use surrogate_cache::{Answer, Config, Engine, Entry, Event, Fields, LogOwner, Lookup, Phase, Reason, Request, Step};

/// What a document held when it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Body {
    doc: usize,
    content: WriteId,
    /// Of a document that varied when it was read, for whom it is.
    variant: Option<Variant>,
}

/// What requests for a document differ by; 0: they do not say.
type Variant = usize;
const VARIANTS: usize = 3;
const SELECTING: &str = "x-variant";

/// Some documents vary always, one at times, as its editors please.
fn varies(doc: usize, content: WriteId) -> bool {
    doc == 4 || (doc == 2 && content % 2 == 1)
}

/// Short times, so that a run of some hundred steps sees leases, bounds and lifetimes end.
const CONFIG_LEASE_MS: u64 = 100;
const CONFIG_BOUND_MS: u64 = 150;
/// How long a journal waits for the end of a write.
const WRITE_MS: u64 = 2_000;
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
    /// Its clock minus the true one; it is set forward and back at times.
    offset_ms: i64,
    /// When it asked origin: by its clock, in true time.
    origin_asked_ms: HashMap<u64, u64>,
    /// True time of the last question to the journal that brought the view up to date.
    journal_asked_ms: Option<u64>,
    /// Whether it heard a part of the journal's last answer, and not yet the rest.
    hears_parts: bool,
    /// Whether it knows of purges that the journal, which was put back since, does not.
    has_heard_of_lost: bool,
    /// The slot of each document, by which plain hits are found without a lookup.
    slots: HashMap<usize, u32>,
    /// The newest write to each document that went through it and was answered.
    written: HashMap<usize, WriteId>,
}

impl Isolate {
    fn clock(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.offset_ms)
    }
}

/// When a question went out.
#[derive(Clone, Copy)]
struct Moment {
    true_ms: u64,
    /// By the clock of who asked.
    clock_ms: u64,
}

/// A question to the journal, and its answer, if one comes.
type AskedJournal = (JournalQuery, Moment, Option<JournalDelta>);

/// A lookup's place between two steps.
enum At {
    /// KV is to be read before anything else.
    KvFirst,
    FoundFirst(Option<Entry<Body>>),
    /// To be performed.
    Step(Step<Body>),
    /// The journal's answer is on its way.
    Synced(JournalQuery, Moment, Option<JournalDelta>),
    Found(Option<Entry<Body>>),
    Answered(ResponseHead, Body),
}

/// A request under way.
struct Asked {
    lookup: Box<Lookup<Body>>,
    doc: usize,
    variant: Variant,
    arrived_ms: u64,
    demanded: Option<AsOf>,
    /// What a receipt had said of its location by then.
    claimed: Option<Claim>,
    /// What origin read for it, and the log the isolate knew when it asked.
    read: Option<Body>,
    sent_log: Option<LogId>,
    /// How much the isolate knew when it first asked origin.
    knew: Option<Box<Knew>>,
    /// Origin failed at least once.
    is_failing: bool,
    /// The newest write of it through this isolate that had been answered by then.
    written: WriteId,
    /// A refresh, which nobody waits for.
    is_behind: bool,
}

/// What an isolate knows of purges.
struct Knew {
    as_of: AsOf,
    /// Of the last answer of the journal a part alone.
    hears_parts: bool,
}

impl Asked {
    fn of(lookup: Box<Lookup<Body>>, (doc, variant): (usize, Variant), arrived_ms: u64) -> Self {
        Self {
            lookup,
            doc,
            variant,
            arrived_ms,
            demanded: None,
            claimed: None,
            read: None,
            sent_log: None,
            knew: None,
            is_failing: false,
            written: 0,
            is_behind: false,
        }
    }
}

/// A write through the edge.
#[derive(Clone)]
struct Through {
    id: Announcement,
    doc: usize,
    /// When the journal expects it to have ended, if it was announced.
    due_ms: Option<u64>,
    /// What origin did.
    commit: Option<Commit>,
}

enum Work {
    Lookup(Asked, At),
    /// The journal is to be asked, whatever neighbours were told.
    Ask,
    /// A sync behind an answer.
    Sync(Option<AskedJournal>),
    /// A write through the edge: the journal is to be told of it, then origin does it, then what it changed is purged.
    Announce(Through),
    Origin(Through),
    Purge(Through, WriteEnd),
    /// It is; the isolate asks the journal before the writer has the answer.
    Written(Commit, Option<AskedJournal>),
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
    account: Account,
    /// Batches on their way; they may arrive in any order, twice, or not at all.
    batches: VecDeque<PurgeBatch>,
    next_seq: Option<Seq>,
    /// What the journal wants to see in an announcement; 0: nothing.
    challenge: u64,
    /// Logs whose numbers were used twice: nothing can be said of their states until they are replaced.
    forked: Vec<LogId>,
    /// What isolates of each location share, and when it was told, in true time.
    shared: Vec<Option<(SharedSync, u64)>>,
    /// Purges of a journal that numbers itself, not sent yet: the writer does that after the write.
    unsent: Vec<Commit>,
    /// Writes through edges so far.
    announcements: Announcement,
    /// What origin does after the edge has given it up, and until when it may.
    late: Vec<Through>,
    /// What was written through edges and is not purged yet: of these the journal was told, and its storage was not touched since.
    unpurged: HashMap<Announcement, Commit>,
    /// Up to here the journal's storage may not know of writes.
    forgotten: Announcement,
    isolates: Vec<Isolate>,
    isolate_ids: u32,
    colo: Vec<HashMap<String, Entry<Body>>>,
    kv: HashMap<String, (Entry<Body>, u64)>,
    /// What each location believes of KV, and until when.
    kv_seen: Vec<HashMap<String, (Option<Entry<Body>>, u64)>>,
    tasks: Vec<Task>,
    stats: Stats,
    /// What a client was shown last.
    last: Option<Body>,
    is_traced: bool,
    trace: VecDeque<String>,
    fault: Option<String>,
    calm: bool,
    /// Much happens within one bound: there, what isolates of a location know differs.
    is_dense: bool,
    /// The journal is often not heard, and its disk often copied and put back.
    is_shaky: bool,
    /// The journal's storage was put back.
    is_put_back: bool,
}

impl World {
    /// `is_traced`: whether what happens is noted down, which takes longer than letting it happen.
    pub fn new(options: &Options, is_traced: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(options.seed);
        let owner = if random.bool() { LogOwner::Origin } else { LogOwner::Journal };
        let is_dense = random.u32(0..4) == 0;
        let is_shaky = random.u32(0..4) == 0;
        let replicas = if owner == LogOwner::Origin { random.usize(0..3) } else { 0 };
        let mut world = Self {
            options: options.clone(),
            owner,
            now_ms: 1_700_000_000_000,
            database: Database::new(replicas),
            journal: Journal::new(owner == LogOwner::Journal, CONFIG_BOUND_MS),
            journal_up: true,
            history: History::default(),
            account: Account::new(options.seed, options.locations),
            batches: VecDeque::new(),
            next_seq: None,
            challenge: 0,
            forked: Vec::new(),
            shared: vec![None; options.locations],
            unsent: Vec::new(),
            announcements: 0,
            late: Vec::new(),
            unpurged: HashMap::new(),
            forgotten: 0,
            isolates: Vec::new(),
            isolate_ids: 0,
            colo: vec![HashMap::new(); options.locations],
            kv: HashMap::new(),
            kv_seen: vec![HashMap::new(); options.locations],
            tasks: Vec::new(),
            stats: Stats::default(),
            last: None,
            is_traced,
            trace: VecDeque::new(),
            fault: None,
            calm: false,
            is_dense,
            is_shaky,
            is_put_back: false,
            random,
        };
        world.history.begin(world.database.log_id(), Vec::new());
        for location in 0..options.locations {
            world.spawn(location);
            if is_dense {
                world.spawn(location);
            }
        }
        world
    }

    pub fn run(mut self) -> Result<Stats, Box<Violation>> {
        for step in 0..self.options.steps {
            self.step();
            self.ask_for_receipts();
            self.stats.steps += 1;
            self.verdict(step)?;
        }
        self.settle();
        self.verdict(self.options.steps)?;
        Ok(self.stats)
    }

    fn verdict(&mut self, step: usize) -> Result<(), Box<Violation>> {
        for isolate in &self.isolates {
            let content_max = isolate.engine.config.view_keys_max;
            let others_max = (content_max / 4).max(1);
            if isolate.engine.view.keys_len() > content_max + 2 * others_max {
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
        if !self.is_traced {
            return;
        }
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
            view_keys_max: if self.chance(50) { 2 } else { 64 },
            memory_entries_max: 32,
            fill_wait_ms: 300,
            fill_hold_ms: 1_000,
            colo_in_vain_max: if self.isolate_ids.is_multiple_of(4) { 2 } else { 64 },
            ..Config::default()
        };
        let offset_ms = self.random.i64(-600_000..600_000);
        let isolate = Isolate {
            id: self.isolate_ids,
            location,
            engine: Engine::new(config),
            offset_ms,
            origin_asked_ms: HashMap::new(),
            journal_asked_ms: None,
            hears_parts: false,
            has_heard_of_lost: false,
            slots: HashMap::new(),
            written: HashMap::new(),
        };
        self.note(|_| format!("isolate {} begins at location {location}, its clock {offset_ms} ms off", isolate.id));
        self.isolates.push(isolate);
        self.isolate_ids
    }

    fn step(&mut self) {
        if self.is_shaky && self.chance(8) {
            return self.shake();
        }
        match self.random.u32(0..100) {
            0..12 => self.pass_time(),
            12..30 => self.request(),
            30..80 => self.work(),
            80..88 => self.change(),
            88..95 => self.deliver(),
            95..97 => self.replicate(),
            97 if self.owner == LogOwner::Journal => self.look_after_writes(),
            _ => self.disturb(),
        }
    }

    fn pass_time(&mut self) {
        self.now_ms += match self.random.u32(0..20) {
            0 if !self.is_dense => self.random.u64(1_000..90_000),
            0..5 if !self.is_dense => self.random.u64(100..1_000),
            0 => self.random.u64(100..1_000),
            _ if self.is_dense => self.random.u64(1..20),
            _ => self.random.u64(1..60),
        };
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
            self.lost_with(task.work);
            return self.note(|_| format!("isolate {}: something under way is cancelled", task.isolate));
        }
        self.advance(index);
    }

    /// Something under way ends with its request or its isolate. Of a write origin knows, and goes on with it.
    fn lost_with(&mut self, work: Work) {
        match work {
            Work::Origin(through) if self.chance(50) => self.late.push(through),
            Work::Purge(through, WriteEnd::Done) => self.leave(through),
            _ => {}
        }
    }

    fn advance(&mut self, index: usize) {
        let Task { isolate: id, work } = self.tasks.swap_remove(index);
        let Some(place) = self.isolates.iter().position(|isolate| isolate.id == id) else {
            return self.lost_with(work);
        };
        let next = match work {
            Work::Lookup(asked, at) => self.advance_lookup(place, asked, at),
            Work::Ask => {
                let clock = self.isolates[place].clock(self.now_ms);
                let is_claimed = self.isolates[place].engine.claim_sync(clock);
                is_claimed.then(|| Work::Sync(Some(self.ask_journal(place))))
            }
            Work::Sync(asked) => self.advance_sync(place, asked),
            Work::Announce(through) => self.announce(through),
            Work::Origin(through) => self.write_at_origin(through),
            Work::Purge(through, end) => self.purge_written(place, through, end),
            Work::Written(commit, asked) => self.written(place, commit, asked),
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
}

fn doc_of(key: &str) -> usize {
    key.trim_start_matches("GET /").parse().unwrap_or(0)
}
