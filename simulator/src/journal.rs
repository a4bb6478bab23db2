//! The journal object: the decision about batches is the engine's own ([`decide`]); its table is a vector here.
use kv_schemas::journal::{DeltaPurge, JournalDelta, JournalQuery};
use kv_schemas::{LogId, PurgeAck, PurgeBatch, PurgeMode, Seq};
use surrogate_cache::intake::{Intake, JournalHead, decide};

/// Small, so that floors, pages and cold starts all happen.
const PURGES_KEPT: usize = 24;
const PAGE: usize = 4;
const COLD: Seq = 8;

#[derive(Clone)]
struct State {
    log_id: LogId,
    head: Seq,
    floor_soft: Seq,
    floor_hard: Seq,
    purges: Vec<DeltaPurge>,
}

#[derive(Default)]
pub struct Journal {
    state: Option<State>,
    retired: Vec<LogId>,
    lost: u32,
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
        self.retired.clear();
        self.lost += 1;
    }

    pub fn batch(&mut self, batch: &PurgeBatch) -> Option<PurgeAck> {
        let held = self.state.as_ref().map(|state| JournalHead { log_id: state.log_id.clone(), head: state.head });
        let from_index = match decide(held.as_ref(), self.retired.contains(&batch.log_id), batch) {
            Intake::Retired => return None,
            Intake::Gap => batch.purges.len(),
            Intake::Append { from_index } => from_index,
            Intake::Adopt { head } => {
                self.retired.extend(self.state.take().map(|state| state.log_id));
                self.retired.extend(batch.replaces.iter().cloned());
                self.begin(batch.log_id.clone(), head);
                0
            }
        };
        let new = batch.purges.get(from_index..).unwrap_or(&[]);
        for purge in new {
            let keys = purge.keys.iter().map(|key| key.hash()).collect();
            self.insert(DeltaPurge { seq: purge.seq, mode: purge.mode, all: purge.all, keys });
        }
        let state = self.state.as_ref()?;
        Some(PurgeAck { log_id: state.log_id.clone(), next_seq: state.head + 1, accepted: new.len() as u32 })
    }

    fn begin(&mut self, log_id: LogId, head: Seq) {
        self.state = Some(State { log_id, head, floor_soft: 0, floor_hard: head, purges: Vec::new() });
    }

    /// A journal that numbers its purges itself begins a log when it is first asked.
    pub fn own_log(&mut self) {
        if self.state.is_none() {
            self.begin(LogId::new(format!("own-{}", self.lost)).expect("a legal id"), 0);
        }
    }

    pub fn append(&mut self, keys: Vec<u64>, all: bool, mode: PurgeMode) -> Seq {
        self.own_log();
        let seq = self.head() + 1;
        self.insert(DeltaPurge { seq, mode, all, keys });
        seq
    }

    fn insert(&mut self, purge: DeltaPurge) {
        let Some(state) = &mut self.state else { return };
        state.head = purge.seq;
        state.purges.push(purge);
        while state.purges.len() > PURGES_KEPT {
            let old = state.purges.remove(0);
            let floor = if old.mode == PurgeMode::Soft { &mut state.floor_soft } else { &mut state.floor_hard };
            *floor = (*floor).max(old.seq);
        }
    }

    /// What an isolate lacks. `None`: no log has been announced yet.
    pub fn sync(&self, query: &JournalQuery) -> Option<JournalDelta> {
        let state = self.state.as_ref()?;
        let continues = query.log_id.as_ref() == Some(&state.log_id) && query.since <= state.head;
        let since = if continues { query.since } else { state.head.saturating_sub(COLD) };
        let (mut floor_soft, mut floor_hard) = (state.floor_soft, state.floor_hard);
        if !continues {
            for purge in state.purges.iter().filter(|purge| purge.seq <= since) {
                let floor = if purge.mode == PurgeMode::Soft { &mut floor_soft } else { &mut floor_hard };
                *floor = (*floor).max(purge.seq);
            }
        }
        let rest: Vec<&DeltaPurge> = state.purges.iter().filter(|purge| purge.seq > since).collect();
        let purges: Vec<DeltaPurge> = rest.iter().take(PAGE).map(|purge| (*purge).clone()).collect();
        let until = if rest.len() <= PAGE { state.head } else { purges.last().map_or(since, |purge| purge.seq) };
        Some(JournalDelta { log_id: state.log_id.clone(), head: state.head, floor_soft, floor_hard, until, purges })
    }
}
