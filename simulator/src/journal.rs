//! The journal object: the decisions about batches, receipts and writes under way are the engine's own ([`decide`], [`Receipts`],
//! [`Announced`]); its table is a vector here.
use kv_schemas::journal::{DeltaPurge, Floor, JournalClock, JournalDelta, JournalQuery};
use kv_schemas::receipt::{EdgeReceipt, JournalSummary};
use kv_schemas::{AsOf, KeyClass, LogId, PerClass, PurgeAck, PurgeBatch, PurgeMode, PurgeRequest, Seq};
use std::collections::{BTreeSet, HashMap};
use surrogate_cache::announced::{Announced, WriteId};
use surrogate_cache::intake::{Intake, JournalHead, LeftOut, decide};
use surrogate_cache::receipts::Receipts;

/// Small, so that floors, pages and cold starts all happen.
const PURGES_KEPT: PerClass<usize> = PerClass { content: 24, session: 12, viewer: 6 };
const COLD: PerClass<usize> = PerClass { content: 8, session: 4, viewer: 1 };
const PAGE: usize = 4;

#[derive(Clone)]
struct Row {
    purge: DeltaPurge,
    /// By the journal's clock of then.
    accepted_at_ms: u64,
}

/// What is on disk.
#[derive(Clone)]
struct State {
    held: JournalHead,
    floors: PerClass<Floor>,
    rows: Vec<Row>,
    /// Numbers that starts of a journal that numbers itself left out.
    left_out: Vec<LeftOut>,
    /// Writes under way. The platform wakes the object for them: by true time, whatever its clock.
    announced: Announced,
}

pub struct Journal {
    numbers_itself: bool,
    state: Option<State>,
    /// A copy of the disk, from some time before.
    copy: Option<State>,
    /// How many purges this start of the object took.
    taken: u64,
    /// Logs of its own so far, and the highest number given in any.
    own_logs: u32,
    highest: Seq,
    bound_ms: u64,
    receipts: Receipts,
    /// Names of locations on disk.
    locations: BTreeSet<String>,
    retired: Vec<LogId>,
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
    pub fn new(numbers_itself: bool, bound_ms: u64) -> Self {
        Self {
            numbers_itself,
            state: None,
            copy: None,
            taken: 0,
            own_logs: 0,
            highest: 0,
            bound_ms,
            receipts: Receipts::new(bound_ms),
            locations: BTreeSet::new(),
            retired: Vec::new(),
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
        self.taken = 0;
    }

    pub fn make_copy(&mut self) {
        self.copy.clone_from(&self.state);
    }

    /// The copy takes the disk's place, if it is of the same log, and the object is started anew, by a clock that is not behind what it was:
    /// numbers are taken from it. Up to where nothing is lost.
    pub fn put_back(&mut self, later_ms: u64, now_ms: u64) -> Option<AsOf> {
        let copy = self.copy.as_ref().filter(|copy| Some(&copy.held.log_id) == self.log_id())?.clone();
        let JournalHead { log_id, head, .. } = copy.held.clone();
        self.accepted.retain(|(log, seq), _| *log != log_id || *seq <= head);
        self.state = Some(copy);
        let clock_ms = self.clock(now_ms).max(self.highest + 1) + later_ms;
        self.restart(clock_ms as i64 - now_ms as i64, now_ms);
        Some(AsOf::new(log_id, head))
    }

    /// The object is started anew, maybe on another machine.
    pub fn restart(&mut self, offset_ms: i64, now_ms: u64) {
        self.offset_ms = offset_ms;
        self.epoch += 1;
        self.taken = 0;
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
        let announced = self.state.take().map(|state| state.announced).unwrap_or_default();
        self.state = Some(State { held, floors, rows: Vec::new(), left_out: Vec::new(), announced });
    }

    /// A journal that numbers its purges itself begins a log when it is first asked.
    pub fn own_log(&mut self, now_ms: u64) {
        if self.state.is_none() {
            self.begin_own(now_ms);
        }
    }

    fn begin_own(&mut self, now_ms: u64) {
        let log_id = LogId::new(format!("own-{}", self.own_logs)).expect("a legal id");
        self.own_logs += 1;
        let begin = LeftOut::before_log(self.clock(now_ms));
        self.hold(JournalHead { log_id, head: begin.first, mark: 0 }, now_ms);
        self.taken = 0;
        if let Some(state) = &mut self.state {
            state.left_out.push(begin);
        }
    }

    /// Whether who has come so far has heard of purges that are not on disk.
    fn has_lost(&self, seq: Seq) -> bool {
        let Some(state) = self.state.as_ref().filter(|_| self.numbers_itself) else { return false };
        seq > state.held.head || state.left_out.iter().any(|left_out| left_out.has(seq))
    }

    pub fn append(&mut self, keys: Vec<u64>, all: bool, mode: PurgeMode, now_ms: u64) -> Seq {
        self.own_log(now_ms);
        let start_ms = (self.taken == 0).then(|| self.clock(now_ms));
        let head = self.head();
        let Some(state) = &mut self.state else { return 0 };
        let noted = state.left_out.iter().map(|left_out| left_out.first).max().unwrap_or(0);
        let left_out = LeftOut::before_next(head, noted, start_ms);
        if !left_out.is_empty() {
            state.left_out.push(left_out);
        }
        let seq = left_out.first;
        self.highest = self.highest.max(seq);
        self.insert(DeltaPurge { seq, mode, all, keys }, 0, now_ms);
        seq
    }

    /// A write is under way through an edge.
    pub fn announce(&mut self, write: WriteId, due_ms: u64, purge: PurgeRequest, now_ms: u64) {
        self.own_log(now_ms);
        if let Some(state) = &mut self.state {
            state.announced.begin(write, due_ms, purge);
        }
    }

    pub fn end(&mut self, write: WriteId) {
        if let Some(state) = &mut self.state {
            state.announced.end(write);
        }
    }

    pub fn overdue(&self, now_ms: u64) -> Vec<(WriteId, PurgeRequest)> {
        self.state.as_ref().map(|state| state.announced.overdue(now_ms)).unwrap_or_default()
    }

    fn insert(&mut self, purge: DeltaPurge, mark: u64, now_ms: u64) {
        let accepted_at_ms = self.clock(now_ms);
        let Some(state) = &mut self.state else { return };
        self.receipts.accept(purge.seq, accepted_at_ms);
        self.taken += 1;
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
        if query.log_id.is_some() && query.log_id.as_ref() == self.log_id() && self.has_lost(query.since) {
            // Nobody knows what the lost ones were: another log purges everything.
            self.begin_own(now_ms);
        }
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

    /// `None`: no log has been announced yet, or this journal, which numbers its purges, has none of that number.
    pub fn receipt(&mut self, seq: Seq, now_ms: u64) -> Option<EdgeReceipt> {
        let clock_ms = self.clock(now_ms);
        if self.has_lost(seq) {
            return None;
        }
        let state = self.state.as_ref()?;
        let row = state.rows.iter().find(|row| row.purge.seq == seq);
        Some(self.receipts.receipt(seq, state.held.clone(), row.map(|row| row.accepted_at_ms), clock_ms))
    }

    pub fn summary(&mut self, now_ms: u64) -> Option<JournalSummary> {
        let clock_ms = self.clock(now_ms);
        Some(self.receipts.summary(self.state.as_ref()?.held.clone(), clock_ms))
    }
}
