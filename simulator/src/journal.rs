//! The journal object: the decisions about batches and receipts are the engine's own ([`decide`], [`Receipts`]); its table is
//! a vector here.
use kv_schemas::journal::{DeltaPurge, Floor, JournalClock, JournalDelta, JournalQuery};
use kv_schemas::receipt::{EdgeReceipt, JournalSummary};
use kv_schemas::{KeyClass, LogId, PerClass, PurgeAck, PurgeBatch, PurgeMode, Seq};
use std::collections::{BTreeSet, HashMap};
use surrogate_cache::intake::{Intake, JournalHead, decide};
use surrogate_cache::receipts::Receipts;

/// Small, so that floors, pages and cold starts all happen.
const PURGES_KEPT: PerClass<usize> = PerClass { content: 24, session: 12, viewer: 6 };
const COLD: PerClass<usize> = PerClass { content: 8, session: 4, viewer: 1 };
const PAGE: usize = 4;

struct Row {
    purge: DeltaPurge,
    /// By the journal's clock of then.
    accepted_at_ms: u64,
}

struct State {
    held: JournalHead,
    floors: PerClass<Floor>,
    rows: Vec<Row>,
}

pub struct Journal {
    state: Option<State>,
    bound_ms: u64,
    receipts: Receipts,
    /// Names of locations on disk.
    locations: BTreeSet<String>,
    retired: Vec<LogId>,
    lost: u32,
    challenge: Option<u64>,
    /// Challenges made so far: each is another.
    challenges: u64,
    /// Its clock minus the true one, and which start of the object this is.
    offset_ms: i64,
    epoch: u64,
    /// True times at which purges were accepted.
    accepted: HashMap<(LogId, Seq), u64>,
    /// And at which logs were taken up.
    taken_up: HashMap<LogId, u64>,
}

impl State {
    /// The purges of a class but for the youngest few.
    fn all_but_youngest(&self, class: KeyClass, count: usize) -> Vec<DeltaPurge> {
        let of_class = |purge: &&DeltaPurge| KeyClass::kept_with(KeyClass::bits_of(purge.all, &purge.keys)) == class;
        self.rows.iter().rev().map(|row| &row.purge).filter(of_class).skip(count).cloned().collect()
    }
}

/// A purge that is not told in detail raises the floor of every class it touches.
fn raise(floors: &mut PerClass<Floor>, purge: &DeltaPurge) {
    let to = match purge.mode {
        PurgeMode::Soft => Floor { soft: purge.seq, hard: 0 },
        PurgeMode::Hard => Floor::hard(purge.seq),
    };
    for class in KeyClass::ALL {
        if KeyClass::bits_of(purge.all, &purge.keys) & class.bit() != 0 {
            floors.get_mut(class).raise(to);
        }
    }
}

/// What became of a batch.
pub enum Took {
    Ack(PurgeAck),
    /// The log is to be announced with this challenge.
    Unannounced(u64),
    Retired,
    Forked,
}

impl Journal {
    pub fn new(bound_ms: u64) -> Self {
        Self {
            state: None,
            bound_ms,
            receipts: Receipts::new(bound_ms),
            locations: BTreeSet::new(),
            retired: Vec::new(),
            lost: 0,
            challenge: None,
            challenges: 0,
            offset_ms: 0,
            epoch: 0,
            accepted: HashMap::new(),
            taken_up: HashMap::new(),
        }
    }

    fn clock(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.offset_ms)
    }

    pub fn log_id(&self) -> Option<&LogId> {
        self.state.as_ref().map(|state| &state.held.log_id)
    }

    pub fn head(&self) -> Seq {
        self.state.as_ref().map_or(0, |state| state.held.head)
    }

    /// Its storage is gone.
    pub fn lose(&mut self) {
        self.state = None;
        self.receipts = Receipts::new(self.bound_ms);
        self.locations.clear();
        self.challenge = None;
        self.retired.clear();
        self.lost += 1;
    }

    /// The object is started anew, maybe on another machine.
    pub fn restart(&mut self, offset_ms: i64, now_ms: u64) {
        self.offset_ms = offset_ms;
        self.epoch += 1;
        self.receipts = Receipts::new(self.bound_ms);
        self.locations.iter().for_each(|name| self.receipts.remember(name));
        if let Some(state) = &self.state {
            self.receipts.begin(&state.held, self.clock(now_ms));
        }
    }

    /// When a purge was accepted, in true time.
    pub fn accepted_ms(&self, log_id: &LogId, seq: Seq) -> Option<u64> {
        self.accepted.get(&(log_id.clone(), seq)).copied()
    }

    /// Since when a purge has been held, in true time, if only as part of all that was before.
    pub fn held_ms(&self, log_id: &LogId, seq: Seq) -> u64 {
        self.accepted_ms(log_id, seq).or_else(|| self.taken_up.get(log_id).copied()).unwrap_or(0)
    }

    pub fn batch(&mut self, batch: &PurgeBatch, now_ms: u64) -> Took {
        let held = self.state.as_ref().map(|state| &state.held);
        let from_index = match decide(held, self.retired.contains(&batch.log_id), self.challenge, batch) {
            Intake::Unannounced => {
                let challenge = self.challenge.unwrap_or_else(|| {
                    self.challenges += 1;
                    self.challenges
                });
                self.challenge = Some(challenge);
                return Took::Unannounced(challenge);
            }
            Intake::Retired => return Took::Retired,
            Intake::Forked => return Took::Forked,
            Intake::Gap => batch.purges.len(),
            Intake::Append { from_index } => from_index,
            Intake::Adopt { head } => {
                self.retired.extend(self.state.take().map(|state| state.held.log_id));
                self.retired.extend(batch.replaces.iter().cloned());
                self.hold(JournalHead { log_id: batch.log_id.clone(), head, mark: batch.after_mark }, now_ms);
                self.challenge = None;
                0
            }
        };
        let new = batch.purges.get(from_index..).unwrap_or(&[]);
        for purge in new {
            let keys = purge.keys.iter().map(|key| key.hash()).collect();
            self.insert(DeltaPurge { seq: purge.seq, mode: purge.mode, all: purge.all, keys }, purge.mark, now_ms);
        }
        let (log_id, next_seq) = (self.log_id().cloned().expect("it was adopted"), self.head() + 1);
        Took::Ack(PurgeAck { log_id, seq: None, next_seq, accepted: new.len() as u32 })
    }

    fn hold(&mut self, held: JournalHead, now_ms: u64) {
        self.receipts.begin(&held, self.clock(now_ms));
        self.taken_up.insert(held.log_id.clone(), now_ms);
        let floors = PerClass::new(|_| Floor::hard(held.head));
        self.state = Some(State { held, floors, rows: Vec::new() });
    }

    /// A journal that numbers its purges itself begins a log when it is first asked.
    pub fn own_log(&mut self, now_ms: u64) {
        if self.state.is_none() {
            let log_id = LogId::new(format!("own-{}", self.lost)).expect("a legal id");
            self.hold(JournalHead { log_id, head: 0, mark: 0 }, now_ms);
        }
    }

    pub fn append(&mut self, keys: Vec<u64>, all: bool, mode: PurgeMode, now_ms: u64) -> Seq {
        self.own_log(now_ms);
        let seq = self.head() + 1;
        self.insert(DeltaPurge { seq, mode, all, keys }, 0, now_ms);
        seq
    }

    fn insert(&mut self, purge: DeltaPurge, mark: u64, now_ms: u64) {
        let accepted_at_ms = self.clock(now_ms);
        let Some(state) = &mut self.state else { return };
        self.receipts.accept(purge.seq, accepted_at_ms);
        self.accepted.insert((state.held.log_id.clone(), purge.seq), now_ms);
        state.held.head = purge.seq;
        state.held.mark = mark;
        if purge.mode == PurgeMode::Hard {
            state.rows.retain(|row| row.purge.mode != PurgeMode::Hard || row.purge.keys != purge.keys);
        }
        state.rows.push(Row { purge, accepted_at_ms });
        for class in KeyClass::ALL {
            for old in state.all_but_youngest(class, *PURGES_KEPT.get(class)) {
                state.rows.retain(|row| row.purge.seq != old.seq);
                raise(&mut state.floors, &old);
            }
        }
    }

    /// What an isolate lacks. `None`: no log has been announced yet.
    pub fn sync(&mut self, query: &JournalQuery, now_ms: u64) -> Option<JournalDelta> {
        let clock = JournalClock { epoch: self.epoch, at_ms: self.clock(now_ms) };
        let state = self.state.as_ref()?;
        if self.receipts.hear(query, &state.held, clock.at_ms) {
            self.locations.insert(query.location.clone());
        }
        let continues = query.log_id.as_ref() == Some(&state.held.log_id) && query.since <= state.held.head;
        let since = if continues { query.since } else { 0 };
        let mut floors = state.floors;
        let mut rest: Vec<&DeltaPurge> =
            state.rows.iter().map(|row| &row.purge).filter(|purge| purge.seq > since).collect();
        if !continues {
            for old in KeyClass::ALL.iter().flat_map(|class| state.all_but_youngest(*class, *COLD.get(*class))) {
                rest.retain(|purge| purge.seq != old.seq);
                raise(&mut floors, &old);
            }
        }
        let purges: Vec<DeltaPurge> = rest.iter().take(PAGE).map(|purge| (*purge).clone()).collect();
        let JournalHead { log_id, head, .. } = state.held.clone();
        let until = if rest.len() <= PAGE { head } else { purges.last().map_or(since, |purge| purge.seq) };
        Some(JournalDelta { log_id, clock, head, floors, until, purges })
    }

    /// `None`: no log has been announced yet.
    pub fn receipt(&mut self, seq: Seq, now_ms: u64) -> Option<EdgeReceipt> {
        let clock_ms = self.clock(now_ms);
        let state = self.state.as_ref()?;
        let row = state.rows.iter().find(|row| row.purge.seq == seq);
        Some(self.receipts.receipt(seq, state.held.clone(), row.map(|row| row.accepted_at_ms), clock_ms))
    }

    pub fn summary(&mut self, now_ms: u64) -> Option<JournalSummary> {
        let clock_ms = self.clock(now_ms);
        Some(self.receipts.summary(self.state.as_ref()?.held.clone(), clock_ms))
    }
}
