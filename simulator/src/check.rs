//! What must hold, in the model's own terms: it knows every write, every purge and when each was heard of, and asks
//! neither the view's maps nor the engine's clocks.
use crate::DOC_KEYS;
use crate::origin::{Commit, WriteId};
use kv_schemas::{AsOf, LogId, PurgeMode, Seq};
use std::collections::BTreeMap;

/// Every log there was, with its purges in order of their numbers.
#[derive(Default)]
pub struct History {
    logs: BTreeMap<LogId, Vec<(Seq, Commit)>>,
}

/// An answer as the model sees it.
pub struct Served<'a> {
    pub doc: usize,
    pub content: WriteId,
    pub as_of: Option<&'a AsOf>,
    /// The log and the seq the isolate's view says it has applied.
    pub view: Option<(&'a LogId, Seq)>,
    /// It has heard a part of the journal's answer, and waits for the rest.
    pub hears_parts: bool,
    /// True times: of the request, of now, of the last question to the journal that was answered, and of the last time
    /// origin gave or confirmed the answer to this isolate.
    pub arrived_ms: u64,
    pub now_ms: u64,
    pub journal_asked_ms: Option<u64>,
    pub origin_asked_ms: Option<u64>,
    pub bound_ms: u64,
    /// When the oldest purge that the answer has not seen was accepted by the journal.
    pub purged_at_ms: Option<u64>,
    pub is_fresh: bool,
    /// Answered at once, to be refreshed behind.
    pub is_stale: bool,
    pub is_stored: bool,
    pub demanded: Option<&'a AsOf>,
    /// The newest write of it through this isolate that was answered before the request came.
    pub written: WriteId,
}

impl History {
    /// A log of a database: its purges are numbered from 1 on.
    pub fn begin(&mut self, log_id: LogId, commits: Vec<Commit>) {
        self.logs.insert(log_id, (1..).zip(commits).collect());
    }

    pub fn push(&mut self, log_id: &LogId, seq: Seq, commit: Commit) {
        self.logs.entry(log_id.clone()).or_default().push((seq, commit));
    }

    /// What came after is lost, and nobody can be asked to know of it.
    pub fn forget_after(&mut self, log_id: &LogId, seq: Seq) {
        if let Some(commits) = self.logs.get_mut(log_id) {
            commits.retain(|(number, _)| *number <= seq);
        }
    }

    fn of_log(&self, log_id: &LogId) -> &[(Seq, Commit)] {
        self.logs.get(log_id).map_or(&[], Vec::as_slice)
    }

    pub fn numbers(&self, log_id: &LogId) -> Vec<Seq> {
        self.of_log(log_id).iter().map(|(seq, _)| *seq).collect()
    }

    /// The youngest purge of a document up to a state, and the newest write among them.
    pub fn youngest(&self, log_id: &LogId, until: Seq, doc: usize, hard: bool) -> (Seq, WriteId) {
        self.youngest_told(log_id, until, doc, hard, false)
    }

    /// Of who has heard a part of the journal's answer up to there: it leaves out what a later hard purge of the same keys has made
    /// superfluous, and that may be in the rest.
    pub fn youngest_told(
        &self,
        log_id: &LogId,
        until: Seq,
        doc: usize,
        hard: bool,
        hears_parts: bool,
    ) -> (Seq, WriteId) {
        let all = self.of_log(log_id);
        let told = all.iter().take_while(|(seq, _)| *seq <= until);
        let is_left_out = |commit: &Commit| {
            let mut rest = all.iter().skip_while(|(seq, _)| *seq <= until);
            let is_same = |later: &Commit| {
                later.mode == PurgeMode::Hard
                    && (&later.keys, later.url, later.all) == (&commit.keys, commit.url, commit.all)
            };
            hears_parts && commit.mode == PurgeMode::Hard && rest.any(|(_, later)| is_same(later))
        };
        let touching = told.filter(|(_, commit)| {
            commit.touches(doc) && (!hard || commit.mode == PurgeMode::Hard) && !is_left_out(commit)
        });
        touching.fold((0, 0), |(_, write), (seq, commit)| (*seq, commit.write.unwrap_or(write).max(write)))
    }

    /// The oldest purge of a document after a state.
    pub fn oldest_after(&self, as_of: &AsOf, doc: usize) -> Option<Seq> {
        let mut after = self.of_log(&as_of.log_id).iter().filter(|(seq, _)| *seq > as_of.seq);
        after.find(|(_, commit)| commit.touches(doc)).map(|(seq, _)| *seq)
    }

    /// What is wrong with an answer.
    pub fn fault(&self, served: &Served<'_>) -> Option<String> {
        let doc = served.doc;
        let what = || {
            format!("document {doc} (keys {:?}) with write {}, as of {:?}", DOC_KEYS[doc], served.content, served.as_of)
        };
        if let (true, Some((log_id, applied))) = (served.is_stored, served.view) {
            let as_of = served.as_of.filter(|as_of| as_of.log_id == *log_id).map(|as_of| as_of.seq);
            // What origin confirmed for this very request may be of a log this isolate has yet to hear of.
            let confirmed = served.origin_asked_ms.is_some_and(|at| at >= served.arrived_ms);
            if let Some(other) = served.as_of.filter(|as_of| as_of.log_id != *log_id && !confirmed) {
                return Some(format!("{} was served although the view is of log {log_id} ({other})", what()));
            }
            let (hard, _) = self.youngest_told(log_id, applied, doc, true, served.hears_parts);
            if as_of.is_some_and(|as_of| as_of < hard) {
                return Some(format!("{} was served although its view contains the hard purge {hard}", what()));
            }
            let (any, write) = self.youngest_told(log_id, applied, doc, false, served.hears_parts);
            if served.is_fresh && as_of.is_some_and(|as_of| as_of < any) {
                return Some(format!("{} was served as fresh although its view contains purge {any}", what()));
            }
            // The stamp may lie; the content does not.
            if served.is_fresh && served.content < write && !confirmed {
                return Some(format!(
                    "{} was served as fresh although its view contains the purge of write {write}",
                    what()
                ));
            }
        }
        if served.is_fresh && served.is_stored {
            let known_ms = served.journal_asked_ms.max(served.origin_asked_ms);
            let least_ms = served.arrived_ms.min(served.now_ms.saturating_sub(served.bound_ms));
            if known_ms.is_none_or(|known_ms| known_ms < least_ms) {
                return Some(format!(
                    "{} was served as fresh with knowledge of {known_ms:?}, at {} for a request of {}, bound {} ms",
                    what(),
                    served.now_ms,
                    served.arrived_ms,
                    served.bound_ms
                ));
            }
        }
        // However an entry is answered without asking: a purge it has not seen is younger than the bound.
        if let Some(at_ms) = served.purged_at_ms
            && (served.is_fresh || served.is_stale)
            && at_ms < served.arrived_ms.min(served.now_ms.saturating_sub(served.bound_ms))
        {
            return Some(format!(
                "{} was answered at {} to a request of {}, purged at {at_ms}, bound {} ms",
                what(),
                served.now_ms,
                served.arrived_ms,
                served.bound_ms
            ));
        }
        if (served.is_fresh || served.is_stale || !served.is_stored) && served.content < served.written {
            return Some(format!(
                "{} was answered after its write {} had been, by the same isolate",
                what(),
                served.written
            ));
        }
        if let Some(min) = served.demanded {
            let (_, write) = self.youngest(&min.log_id, min.seq, doc, false);
            if served.content < write {
                return Some(format!("{} was served to a request that demands {min} (write {write})", what()));
            }
        }
        None
    }

    /// How an answer belies a receipt that had said, before the request came, that everybody has a purge.
    pub fn belies(
        &self,
        log_id: &LogId,
        seq: Seq,
        accepted_ms: u64,
        is_of_earlier_log: bool,
        allows_stale: bool,
        served: &Served<'_>,
    ) -> Option<String> {
        // What a replica confirmed since is its word; and if origin fails, what is stored is better than nothing.
        let is_confirmed = served.origin_asked_ms.is_some_and(|at_ms| at_ms >= accepted_ms);
        if !(served.is_fresh || served.is_stale) || is_confirmed {
            return None;
        }
        let fault = |what: &str| {
            let Served { doc, content, as_of, now_ms, .. } = served;
            let said = format!("document {doc} with write {content}, as of {as_of:?}, was answered at {now_ms}");
            Some(format!("{said} after a receipt had said that all have {log_id}:{seq}: {what}"))
        };
        if is_of_earlier_log {
            return fault("it is of an earlier log");
        }
        let as_of = served.as_of.filter(|as_of| as_of.log_id == *log_id);
        if as_of.is_some_and(|as_of| as_of.seq >= seq) || as_of.is_none() && served.as_of.is_some() {
            return None;
        }
        let (purge, _) = self.youngest(log_id, seq, served.doc, allows_stale && served.is_stale);
        if as_of.is_some_and(|as_of| as_of.seq < purge) {
            return fault(&format!("purge {purge} is younger"));
        }
        let (_, write) = self.youngest(log_id, seq, served.doc, false);
        if served.is_fresh && served.content < write { fault(&format!("write {write} is younger")) } else { None }
    }
}
