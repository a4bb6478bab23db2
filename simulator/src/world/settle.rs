//! The end: everything works again, and must become right.
use super::*;

impl World {
    /// Everything works again: every purge arrives everywhere, and every page shows what origin holds.
    pub(super) fn settle(&mut self) {
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
        if self.is_put_back && !self.isolates.iter().any(|isolate| isolate.has_heard_of_lost) {
            self.unsent.push(Commit { all: true, ..Commit::default() });
        }
        for _ in 0..1_000 {
            match self.owner {
                LogOwner::Journal if self.unsent.is_empty() => break,
                LogOwner::Journal => self.send_own(),
                LogOwner::Origin => {
                    let end = self.database.head() + 1;
                    let first_seq = self.next_seq.unwrap_or(end).clamp(1, end);
                    self.take_batch(&self.next_batch(first_seq, 5));
                    // Like the dispatcher, which asks once more when all is delivered.
                    let is_there = self.journal.log_id() == Some(&self.database.log_id());
                    if first_seq == end && self.next_seq == Some(end) && is_there {
                        break;
                    }
                }
            }
        }
        // What origin has not done by now it does no more, and what nobody has told the end of is due.
        self.now_ms += 10_000;
        self.purge_overdue();
        if let Some(id) = self.unpurged.keys().next() {
            return self.blame(format!("write {id} through an edge is purged by nobody"));
        }
        // Who has heard of purges that the journal does not have any more says so first: that begins a new log, of which all hear.
        for place in (0..self.isolates.len()).chain(0..self.isolates.len()) {
            while {
                let (query, sent, delta) = self.ask_journal(place);
                self.hear_journal(place, &query, sent, delta)
            } {}
        }
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
        self.settle_receipts();
    }

    /// Every location has every purge and says so: after a bound, every receipt does.
    fn settle_receipts(&mut self) {
        let Some(log_id) = self.journal.log_id().cloned() else { return };
        for place in 0..self.isolates.len() {
            let (query, sent, delta) = self.ask_journal(place);
            self.hear_journal(place, &query, sent, delta);
        }
        // And what clocks cut off.
        self.now_ms += CONFIG_BOUND_MS + 2;
        for seq in self.numbers() {
            let state = self.ask_for_receipt(seq);
            if state != Some(PurgeState::Applied) {
                return self.blame(format!("the receipt of {log_id}:{seq} says {state:?} for good"));
            }
        }
        let applied = self.ask_for_summary();
        if applied != Some(self.journal.head()) {
            self.blame(format!(
                "of {log_id} {applied:?} is applied for good, and the journal at {}",
                self.journal.head()
            ));
        }
    }

    pub(super) fn settle_page(&mut self, isolate: usize, doc: usize) {
        let wanted = self.database.content(doc, self.database.head());
        for variant in 0..VARIANTS {
            // The first look may be stale for once; the refresh behind it is the second.
            for _ in 0..3 {
                self.last = None;
                self.ask(isolate, (doc, variant), Fields::new(), None);
                self.finish_tasks();
            }
            let shown = self.last.map(|body| body.content);
            if shown != Some(wanted) {
                let id = self.isolates[isolate].id;
                return self.blame(format!(
                    "isolate {id}: document {doc} shows write {shown:?} for good; origin holds {wanted}"
                ));
            }
        }
    }

    pub(super) fn finish_tasks(&mut self) {
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
