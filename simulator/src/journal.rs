//! The journal object: the decision about batches is the engine's own ([`decide`]); its table is a vector here.
use kv_schemas::journal::{DeltaPurge, Floor, JournalClock, JournalDelta, JournalQuery};
use kv_schemas::{KeyClass, LogId, PerClass, PurgeAck, PurgeBatch, PurgeMode, Seq};
use std::collections::HashMap;
use surrogate_cache::intake::{Intake, JournalHead, decide};

/// Small, so that floors, pages and cold starts all happen.
const PURGES_KEPT: PerClass<usize> = PerClass { content: 24, session: 12, viewer: 6 };
const COLD: PerClass<usize> = PerClass { content: 8, session: 4, viewer: 1 };
const PAGE: usize = 4;

#[derive(Clone)]
struct State {
    log_id: LogId,
    head: Seq,
    floors: PerClass<Floor>,
    mark: u64,
    purges: Vec<DeltaPurge>,
}

#[derive(Default)]
pub struct Journal {
    state: Option<State>,
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
}

impl State {
    /// The purges of a class but for the youngest few.
    fn all_but_youngest(&self, class: KeyClass, count: usize) -> Vec<DeltaPurge> {
        let of_class = |purge: &&DeltaPurge| KeyClass::kept_with(KeyClass::bits_of(purge.all, &purge.keys)) == class;
        self.purges.iter().rev().filter(of_class).skip(count).cloned().collect()
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
    pub fn log_id(&self) -> Option<&LogId> {
        self.state.as_ref().map(|state| &state.log_id)
    }

    pub fn head(&self) -> Seq {
        self.state.as_ref().map_or(0, |state| state.head)
    }

    /// Its storage is gone.
    pub fn lose(&mut self) {
        self.state = None;
        self.challenge = None;
        self.retired.clear();
        self.lost += 1;
    }

    /// The object is started anew, maybe on another machine.
    pub fn restart(&mut self, offset_ms: i64) {
        self.offset_ms = offset_ms;
        self.epoch += 1;
    }

    /// When a purge was accepted, in true time.
    pub fn accepted_ms(&self, log_id: &LogId, seq: Seq) -> Option<u64> {
        self.accepted.get(&(log_id.clone(), seq)).copied()
    }

    pub fn batch(&mut self, batch: &PurgeBatch, now_ms: u64) -> Took {
        let head = |state: &State| JournalHead { log_id: state.log_id.clone(), head: state.head, mark: state.mark };
        let held = self.state.as_ref().map(head);
        let from_index = match decide(held.as_ref(), self.retired.contains(&batch.log_id), self.challenge, batch) {
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
                self.retired.extend(self.state.take().map(|state| state.log_id));
                self.retired.extend(batch.replaces.iter().cloned());
                self.begin(batch.log_id.clone(), head);
                self.challenge = None;
                if let Some(state) = &mut self.state {
                    state.mark = batch.after_mark;
                }
                0
            }
        };
        let new = batch.purges.get(from_index..).unwrap_or(&[]);
        for purge in new {
            let keys = purge.keys.iter().map(|key| key.hash()).collect();
            self.insert(DeltaPurge { seq: purge.seq, mode: purge.mode, all: purge.all, keys }, purge.mark, now_ms);
        }
        let (log_id, next_seq) = (self.log_id().cloned().expect("it was adopted"), self.head() + 1);
        Took::Ack(PurgeAck { log_id, next_seq, accepted: new.len() as u32 })
    }

    fn begin(&mut self, log_id: LogId, head: Seq) {
        let floors = PerClass::new(|_| Floor::hard(head));
        self.state = Some(State { log_id, head, floors, mark: 0, purges: Vec::new() });
    }

    /// A journal that numbers its purges itself begins a log when it is first asked.
    pub fn own_log(&mut self) {
        if self.state.is_none() {
            self.begin(LogId::new(format!("own-{}", self.lost)).expect("a legal id"), 0);
        }
    }

    pub fn append(&mut self, keys: Vec<u64>, all: bool, mode: PurgeMode, now_ms: u64) -> Seq {
        self.own_log();
        let seq = self.head() + 1;
        self.insert(DeltaPurge { seq, mode, all, keys }, 0, now_ms);
        seq
    }

    fn insert(&mut self, purge: DeltaPurge, mark: u64, now_ms: u64) {
        let Some(state) = &mut self.state else { return };
        self.accepted.insert((state.log_id.clone(), purge.seq), now_ms);
        state.head = purge.seq;
        state.mark = mark;
        state.purges.push(purge);
        for class in KeyClass::ALL {
            for old in state.all_but_youngest(class, *PURGES_KEPT.get(class)) {
                state.purges.retain(|purge| purge.seq != old.seq);
                raise(&mut state.floors, &old);
            }
        }
    }

    /// What an isolate lacks. `None`: no log has been announced yet.
    pub fn sync(&self, query: &JournalQuery, now_ms: u64) -> Option<JournalDelta> {
        let clock = JournalClock { epoch: self.epoch, at_ms: now_ms.saturating_add_signed(self.offset_ms) };
        let state = self.state.as_ref()?;
        let continues = query.log_id.as_ref() == Some(&state.log_id) && query.since <= state.head;
        let since = if continues { query.since } else { 0 };
        let mut floors = state.floors;
        let mut rest: Vec<&DeltaPurge> = state.purges.iter().filter(|purge| purge.seq > since).collect();
        if !continues {
            for old in KeyClass::ALL.iter().flat_map(|class| state.all_but_youngest(*class, *COLD.get(*class))) {
                rest.retain(|purge| purge.seq != old.seq);
                raise(&mut floors, &old);
            }
        }
        let purges: Vec<DeltaPurge> = rest.iter().take(PAGE).map(|purge| (*purge).clone()).collect();
        let until = if rest.len() <= PAGE { state.head } else { purges.last().map_or(since, |purge| purge.seq) };
        Some(JournalDelta { log_id: state.log_id.clone(), clock, head: state.head, floors, until, purges })
    }
}
