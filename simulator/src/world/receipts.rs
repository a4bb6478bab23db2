//! What receipts say, and whether it is true.
use super::*;
use kv_schemas::receipt::{LocationReceipt, LocationState};
use surrogate_cache::view::Knowledge;

/// A state every isolate of a location is said to have. Later logs are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    log: usize,
    pub seq: Seq,
}

/// A state that an isolate of a location was the first there to have, and when, in true time.
struct Had {
    log: usize,
    seq: Seq,
    at_ms: u64,
}

/// What the model knows of who has what, and what receipts have claimed.
pub(super) struct Account {
    /// Of its own: what happens is the same whether or not somebody asks for receipts.
    random: fastrand::Rng,
    /// In the order in which the journal took them up.
    logs: Vec<LogId>,
    /// By location.
    had: Vec<Vec<Had>>,
    claims: Vec<Option<Claim>>,
    /// What this start of the journal has said of all.
    said: Option<Claim>,
    /// When this start of the journal last heard of a location, in true time.
    heard: Vec<Option<u64>>,
}

pub(super) fn name_of(location: usize) -> String {
    format!("l{location}")
}

fn location_of(name: &str) -> Option<usize> {
    name.strip_prefix('l')?.parse().ok()
}

impl Account {
    pub fn new(seed: u64, locations: usize) -> Self {
        Self {
            random: fastrand::Rng::with_seed(!seed),
            logs: Vec::new(),
            had: (0..locations).map(|_| Vec::new()).collect(),
            claims: vec![None; locations],
            said: None,
            heard: vec![None; locations],
        }
    }

    /// A log the journal holds now.
    fn log(&mut self, log_id: &LogId) -> usize {
        self.logs.iter().position(|known| known == log_id).unwrap_or_else(|| {
            self.logs.push(log_id.clone());
            self.logs.len() - 1
        })
    }

    fn most(&self, location: usize, log: usize) -> Seq {
        self.had[location].iter().rev().find(|had| had.log == log).map_or(0, |had| had.seq)
    }

    /// An isolate of a location is at a state.
    pub fn has(&mut self, location: usize, state: Option<&AsOf>, at_ms: u64) {
        let Some(AsOf { log_id, seq }) = state else { return };
        let (log, seq) = (self.log(log_id), *seq);
        if seq > self.most(location, log) {
            self.had[location].push(Had { log, seq, at_ms });
        }
    }

    pub fn heard(&mut self, location: usize, log_id: &LogId, now_ms: u64) {
        self.log(log_id);
        self.heard[location] = Some(now_ms);
    }

    /// The journal is started anew, and remembers names alone.
    pub fn forget_heard(&mut self) {
        self.heard.fill(None);
        self.said = None;
    }

    /// What was said of what came after is void.
    pub fn forget_after(&mut self, kept: &AsOf) {
        let log = self.log(&kept.log_id);
        for claim in self.claims.iter_mut().flatten().filter(|claim| claim.log == log) {
            claim.seq = claim.seq.min(kept.seq);
        }
    }

    fn is_live(&self, location: usize, now_ms: u64) -> bool {
        self.heard[location].is_some_and(|at_ms| now_ms - at_ms <= 3 * CONFIG_BOUND_MS)
    }

    pub fn claimed(&self, location: usize) -> Option<Claim> {
        self.claims[location]
    }
}

impl World {
    /// Somebody looks at times how far a purge has come: most often one of the youngest, or one to come.
    pub(super) fn ask_for_receipts(&mut self) {
        if !self.journal_up || self.account.random.u32(0..4) > 0 {
            return;
        }
        let back = self.account.random.usize(0..10);
        if back == 0 {
            self.ask_for_summary();
            return;
        }
        let mut numbers = self.numbers();
        numbers.push(self.journal.head() + 1);
        let last = numbers.len() - 1;
        let place =
            if back == 1 { self.account.random.usize(0..=last) } else { (last + 3).saturating_sub(back).min(last) };
        self.ask_for_receipt(numbers[place]);
    }

    /// Of the purges the journal has.
    pub(super) fn numbers(&self) -> Vec<Seq> {
        match (self.owner, self.journal.log_id()) {
            (LogOwner::Journal, Some(log_id)) => self.history.numbers(log_id),
            _ => (1..=self.journal.head()).collect(),
        }
    }

    pub(super) fn ask_for_receipt(&mut self, seq: Seq) -> Option<PurgeState> {
        let receipt = self.journal.receipt(seq, self.now_ms)?;
        self.stats.receipts += 1;
        let is_there = seq <= self.journal.head();
        if is_there != (receipt.state > PurgeState::Pending) {
            self.blame(format!("purge {seq} is {:?}, and the journal at {}", receipt.state, self.journal.head()));
        }
        if receipt.state == PurgeState::Applied {
            self.stats.applied += 1;
            self.note(|_| format!("the receipt of {}:{seq} says that all have it", receipt.log_id));
        }
        let applied = Some(seq).filter(|_| receipt.state == PurgeState::Applied);
        self.audit(&receipt.log_id, applied, seq, &receipt.locations);
        Some(receipt.state)
    }

    pub(super) fn ask_for_summary(&mut self) -> Option<Seq> {
        let summary = self.journal.summary(self.now_ms)?;
        self.audit(&summary.log_id, Some(summary.applied_seq), summary.head, &summary.locations);
        Some(summary.applied_seq)
    }

    /// `applied`: what all are said to have. `locations`: where each is said to stand with `seq`.
    fn audit(&mut self, log_id: &LogId, applied: Option<Seq>, seq: Seq, locations: &[LocationReceipt]) {
        let (log, now_ms) = (self.account.log(log_id), self.now_ms);
        for there in locations {
            let Some(location) = location_of(&there.location) else { return self.blame("nobody's location") };
            let most = self.account.most(location, log);
            if there.applied_seq > most {
                let said = there.applied_seq;
                self.blame(format!(
                    "location {location} is said to have {log_id}:{said}, and nobody there had more than {most}"
                ));
            }
            let is_live = self.account.is_live(location, now_ms);
            let waits = is_live && self.account.said < Some(Claim { log, seq });
            if (there.state == LocationState::Silent && waits) || (there.state == LocationState::Pending && !is_live) {
                self.blame(format!(
                    "location {location}, last heard at {:?}, is {:?}",
                    self.account.heard[location], there.state
                ));
            }
            if there.state == LocationState::Applied {
                let held_ms = self.journal.held_ms(log_id, seq);
                if now_ms <= held_ms + CONFIG_BOUND_MS {
                    self.blame(format!("{log_id}:{seq}, accepted at {held_ms}, is said to be applied at {now_ms}"));
                }
                self.claim(location, Claim { log, seq });
            }
            let first = self.account.had[location].iter().find(|had| had.log == log && had.seq >= seq);
            let accepted_ms = self.journal.accepted_ms(log_id, seq);
            let least_ms = first.zip(accepted_ms).map(|(had, accepted_ms)| had.at_ms.saturating_sub(accepted_ms));
            if there.lag_ms.is_some_and(|lag_ms| least_ms.is_none_or(|least_ms| lag_ms < least_ms)) {
                let said = there.lag_ms;
                self.blame(format!(
                    "location {location} is said to have had {log_id}:{seq} after {said:?}, it was {least_ms:?}"
                ));
            }
        }
        let said = self.account.said.filter(|said| said.log == log && said.seq > 0);
        if said.is_some_and(|said| said.seq >= seq && applied < Some(seq)) {
            self.blame(format!("{log_id}:{seq} was applied, and is not any more: {said:?}, {applied:?}"));
        }
        let Some(applied) = applied.filter(|applied| *applied > 0) else { return };
        let is_new = said < Some(Claim { log, seq: applied });
        self.account.said = self.account.said.max(Some(Claim { log, seq: applied }));
        for location in 0..self.options.locations {
            let most = self.account.most(location, log);
            if is_new && self.account.is_live(location, now_ms) && most < applied {
                self.blame(format!("all are said to have {log_id}:{applied}, and location {location} has {most}"));
            }
            // Who is silent, too: it is without the purge and answers nobody by what it knows.
            self.claim(location, Claim { log, seq: applied });
        }
    }

    /// All isolates of a location are said to have a state: whoever has not must know that it knows nothing.
    fn claim(&mut self, location: usize, claim: Claim) {
        if self.account.claims[location] >= Some(claim) {
            return;
        }
        self.account.claims[location] = Some(claim);
        let relies = self.isolates.iter().find(|isolate| {
            let view = &isolate.engine.view;
            let log = self.account.logs.iter().position(|log_id| view.log_id() == Some(log_id));
            let has = log.map(|log| Claim { log, seq: view.applied() });
            isolate.location == location
                && has < Some(claim)
                && isolate.engine.knowledge(isolate.clock(self.now_ms)) != Knowledge::Unknown
        });
        if let Some(isolate) = relies {
            let (id, at, log_id) = (isolate.id, isolate.engine.view.newest(), &self.account.logs[claim.log]);
            self.blame(format!(
                "all of location {location} have {log_id}:{}, it is said: isolate {id} relies on {at:?}",
                claim.seq
            ));
        }
    }

    /// How an answer belies what a receipt had said when the request came.
    pub(super) fn belies(&self, claim: Claim, served: &Served<'_>) -> Option<String> {
        let log_of = |as_of: &AsOf| self.account.logs.iter().position(|log_id| *log_id == as_of.log_id);
        let is_of_earlier_log = served.as_of.and_then(log_of).is_some_and(|log| log < claim.log);
        // Where the journal numbers, soft purges leave the old copy to stale-while-revalidate.
        let allows_stale = self.owner == LogOwner::Journal;
        let log_id = &self.account.logs[claim.log];
        let accepted_ms = self.journal.held_ms(log_id, claim.seq);
        self.history.belies(log_id, claim.seq, accepted_ms, is_of_earlier_log, allows_stale, served)
    }
}
