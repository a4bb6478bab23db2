//! A small world that drives the lookup machine: a clock, one location's cache, KV, an origin and a journal, each a
//! variable.
#![allow(dead_code, reason = "each test file uses its part")]
pub mod traffic;

use kv_schemas::journal::{DeltaPurge, JournalClock, JournalDelta};
use kv_schemas::surrogate_key::hash;
use kv_schemas::{LogId, PurgeMode, Seq};
use std::collections::HashMap;
use surrogate_cache::directives::RequestDirectives;
use surrogate_cache::engine::Stored;
use surrogate_cache::lookup::{Fetch, Show, Tier};
use surrogate_cache::policy::ResponseHead;
use surrogate_cache::range::Cut;
use surrogate_cache::{Answer, Config, Engine, Entry, Event, Fields, LogOwner, Lookup, Phase, Reason, Request, Step};

pub type Body = &'static str;
/// Status, fields, body.
pub type Scripted = (u16, Vec<(String, String)>, Body);

pub const FRESH: &[(&str, &str)] =
    &[("cache-control", "max-age=60, stale-while-revalidate=30, stale-if-error=300"), ("surrogate-key", "a b")];

pub struct World {
    pub engine: Engine<Body>,
    pub now_ms: u64,
    pub colo: HashMap<String, Entry<Body>>,
    pub kv: HashMap<String, Entry<Body>>,
    /// Purges the journal holds; `None`: it cannot be reached.
    pub journal: Option<Vec<DeltaPurge>>,
    pub log: &'static str,
    /// What origin answers next; `None`: it cannot be reached.
    pub origin: Option<Scripted>,
    /// The body of the answer that was last sent, whatever origin would say now.
    pub sent: Body,
    pub fetches: Vec<Fetch>,
    pub syncs: usize,
}

/// How a lookup ended.
#[derive(Debug, PartialEq)]
pub struct Got {
    pub phase: Phase,
    pub reason: Option<Reason>,
    pub body: Option<Body>,
    pub status: u16,
    pub not_modified: bool,
}

/// What the journal answers, at this time by its clock, of a log without purges.
pub fn nothing_new(log: &str, at_ms: u64) -> JournalDelta {
    JournalDelta {
        log_id: LogId::new(log).unwrap(),
        clock: JournalClock { epoch: 1, at_ms },
        head: 0,
        floors: kv_schemas::PerClass::default(),
        until: 0,
        purges: Vec::new(),
    }
}

impl World {
    pub fn new(owner: LogOwner) -> Self {
        let config =
            Config { log_owner: owner, lease_ms: 1000, bound_ms: 1500, soft_window_ms_max: 1500, ..Config::default() };
        Self {
            engine: Engine::new(config),
            now_ms: 1_700_000_000_000,
            colo: HashMap::new(),
            kv: HashMap::new(),
            journal: Some(Vec::new()),
            log: "log",
            origin: None,
            sent: "",
            fetches: Vec::new(),
            syncs: 0,
        }
    }

    pub fn serve(&mut self, body: Body, seq: Seq, fields: &[(&str, &str)]) {
        let mut fields: Vec<_> = fields.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        fields.push(("surrogate-as-of".into(), format!("{}:{seq}", self.log)));
        self.origin = Some((200, fields, body));
    }

    pub fn origin_status(&mut self, status: u16) {
        self.origin = Some((status, vec![("surrogate-as-of".into(), format!("{}:99", self.log))], "error"));
    }

    pub fn purge(&mut self, seq: Seq, mode: PurgeMode, keys: &[&str]) {
        let keys: Vec<_> = keys.iter().map(|key| hash(key)).collect();
        let all = keys.is_empty();
        self.journal.as_mut().unwrap().push(DeltaPurge { seq, mode, all, keys });
    }

    pub fn sync(&mut self) {
        self.syncs += 1;
        let asked = self.engine.view.query("here");
        let Some(purges) = &self.journal else { return self.engine.sync_failed(self.now_ms) };
        let head = purges.iter().map(|purge| purge.seq).max().unwrap_or(0);
        let purges = purges.iter().filter(|purge| purge.seq > asked.since).cloned().collect();
        let delta = JournalDelta { head, until: head, purges, ..nothing_new(self.log, 0) };
        self.engine.sync_succeeded(&asked, &delta, self.now_ms, self.now_ms);
    }

    pub fn start(&mut self, request: Request) -> (Lookup<Body>, Step<Body>) {
        let mut lookup = Lookup::new(request);
        let step = lookup.step(&mut self.engine, Event::Start, self.now_ms);
        (lookup, step)
    }

    /// Performs steps up to the fetch or the answer.
    pub fn until_fetch(&mut self, lookup: &mut Lookup<Body>, mut step: Step<Body>) -> Step<Body> {
        loop {
            let event = match step {
                Step::Sync { .. } => {
                    self.sync();
                    Event::Synced
                }
                Step::Wait { ms } => {
                    self.now_ms += ms;
                    Event::Waited
                }
                Step::Read { tier, key } => {
                    let tier = if tier == Tier::Kv { &self.kv } else { &self.colo };
                    Event::Read(tier.get(&key).cloned())
                }
                step => return step,
            };
            step = lookup.step(&mut self.engine, event, self.now_ms);
        }
    }

    pub fn answer_fetch(&mut self, lookup: &mut Lookup<Body>, fetch: Fetch) -> Step<Body> {
        self.fetches.push(fetch);
        self.sent = self.origin.as_ref().map_or("", |(_, _, body)| body);
        let event = match &self.origin {
            None => Event::OriginFailed,
            Some((status, fields, _)) => Event::Origin(ResponseHead {
                status: *status,
                fields: fields.iter().cloned().collect(),
                request_time_ms: self.now_ms,
                response_time_ms: self.now_ms,
            }),
        };
        lookup.step(&mut self.engine, event, self.now_ms)
    }

    pub fn finish(&mut self, lookup: &mut Lookup<Body>, mut step: Step<Body>) -> Got {
        loop {
            step = match self.until_fetch(lookup, step) {
                Step::Fetch(fetch) => self.answer_fetch(lookup, fetch),
                Step::Join { stored, rest_bytes_max } => {
                    let rest = Some(self.sent).filter(|rest| rest.len() as u64 <= rest_bytes_max);
                    let joined = rest.map(|rest| -> Body { format!("{}{rest}", stored.body).leak() });
                    let event = Event::Joined(joined.map(|body| (body, body.len() as u64)));
                    lookup.step(&mut self.engine, event, self.now_ms)
                }
                Step::Answer(answer) => return self.take(*answer),
                other => panic!("unexpected {other:?}"),
            };
        }
    }

    /// Does what stands behind an answer, too.
    pub fn take(&mut self, mut answer: Answer<Body>) -> Got {
        let behind = std::mem::take(answer.behind());
        let status = answer.status().clone();
        let got = |body, http, not_modified| Got {
            phase: status.phase,
            reason: status.reason,
            body,
            status: http,
            not_modified,
        };
        let result = match answer {
            Answer::Stored { entry, show, .. } => {
                let stored = Stored { entry: entry.clone(), marker: None };
                for (tier, entry) in behind.write.iter().flat_map(|tier| stored.for_tiers().map(move |e| (tier, e))) {
                    let tier = if *tier == Tier::Kv { &mut self.kv } else { &mut self.colo };
                    tier.insert(entry.key.clone(), (**entry).clone());
                }
                match show {
                    Show::Whole => got(Some(entry.body), entry.head.status, false),
                    Show::NotModified => got(Some(entry.body), entry.head.status, true),
                    Show::Range(Cut::Bytes { offset, length, .. }) => {
                        let (offset, length) = (offset as usize, length as usize);
                        got(Some(&entry.body[offset..offset + length]), 206, false)
                    }
                    Show::Range(Cut::Unsatisfiable { .. }) => got(None, 416, false),
                }
            }
            Answer::Forwarded { head, not_modified, store, .. } => {
                let body = self.sent;
                if let Some(plan) = store {
                    let stored = self.engine.complete(*plan, body, body.len() as u64);
                    for entry in stored.for_tiers() {
                        let mut bytes = (**entry).clone();
                        bytes.origin_confirmed = None;
                        self.colo.insert(entry.key.clone(), bytes.clone());
                        self.kv.insert(entry.key.clone(), bytes);
                    }
                }
                got(Some(body), head.status, not_modified)
            }
            Answer::Failed { failure, .. } => got(None, failure.problem().0, false),
        };
        if behind.sync {
            self.sync();
        }
        if let Some(mut refresh) = behind.refresh {
            let step = refresh.step(&mut self.engine, Event::Start, self.now_ms);
            self.finish(&mut refresh, step);
        }
        result
    }

    pub fn ask(&mut self, request: Request) -> Got {
        let (mut lookup, step) = self.start(request);
        self.finish(&mut lookup, step)
    }

    pub fn get(&mut self) -> Got {
        self.ask(request(&[]))
    }

    /// A new isolate at the same location.
    pub fn new_isolate(&mut self) {
        self.engine = Engine::new(self.engine.config.clone());
    }
}

pub fn request(fields: &[(&str, &str)]) -> Request {
    let fields: Fields = fields.iter().copied().collect();
    Request {
        key: "GET /x".into(),
        is_head: false,
        directives: RequestDirectives::of(&fields),
        min_as_of: fields.get("min-as-of").map(|text| text.parse().unwrap()),
        fields,
    }
}

pub fn got(phase: Phase, body: Body) -> (Phase, Option<Body>) {
    (phase, Some(body))
}

pub fn brief(got: Got) -> (Phase, Option<Body>) {
    (got.phase, got.body)
}

/// A world whose isolate holds "v1" read at seq 0.
pub fn warm() -> World {
    let mut world = World::new(LogOwner::Origin);
    world.serve("v1", 0, FRESH);
    assert_eq!(brief(world.get()), got(Phase::Miss, "v1"));
    world
}
