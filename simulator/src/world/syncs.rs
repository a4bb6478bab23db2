//! What isolates learn of purges: from the journal, from each other, late, or never.
use super::*;

impl World {
    /// A question to the journal: asked now, answered now or never, heard of later.
    pub(super) fn ask_journal(&mut self, place: usize) -> AskedJournal {
        let isolate = &self.isolates[place];
        let (location, id) = (isolate.location, isolate.id);
        let query = isolate.engine.view.query(&name_of(location));
        let sent = Moment { true_ms: self.now_ms, clock_ms: isolate.clock(self.now_ms) };
        let is_heard = self.journal_up && !self.fails(if self.is_shaky { 35 } else { 5 });
        let delta = if is_heard { self.journal.sync(&query, self.now_ms) } else { None };
        if let Some(delta) = &delta {
            self.account.heard(location, &delta.log_id, self.now_ms);
        }
        self.note(|_| match &delta {
            None => format!("isolate {id}: asks the journal from {}, in vain", query.since),
            Some(delta) => format!("isolate {id}: asks the journal from {}, which is at {}", query.since, delta.head),
        });
        (query, sent, delta)
    }

    /// The journal's answer arrives. Whether there is more to ask for.
    pub(super) fn hear_journal(
        &mut self,
        place: usize,
        query: &JournalQuery,
        sent: Moment,
        delta: Option<JournalDelta>,
    ) -> bool {
        let isolate = &mut self.isolates[place];
        let clock = isolate.clock(self.now_ms);
        let Some(delta) = delta else {
            isolate.engine.sync_failed(clock);
            return false;
        };
        let before = isolate.engine.view.log_id().cloned();
        let applied = isolate.engine.sync_succeeded(query, &delta, sent.clock_ms, clock);
        isolate.has_heard_of_lost &= isolate.engine.view.log_id() == before.as_ref();
        match applied {
            Applied::Partial => isolate.hears_parts = true,
            Applied::Complete => isolate.hears_parts = false,
            Applied::Ignored => {}
        }
        if applied == Applied::Complete {
            isolate.journal_asked_ms = isolate.journal_asked_ms.max(Some(sent.true_ms));
            // What the others of the location are told may be lost, or overwrite something newer.
            self.shared[isolate.location] =
                Some((SharedSync { asked: query.clone(), delta, asking_ms: 0 }, sent.true_ms));
        }
        let (id, log) = (isolate.id, isolate.engine.view.newest());
        self.account.has(isolate.location, log.as_ref(), self.now_ms);
        self.note(|_| format!("isolate {id}: hears the journal ({applied:?}), is at {log:?}"));
        applied == Applied::Partial
    }

    /// Looks for what the journal told another isolate of this location.
    pub(super) fn take_shared(&mut self, place: usize) -> bool {
        let isolate = &mut self.isolates[place];
        let Some((shared, told_ms)) = self.shared[isolate.location].clone() else { return false };
        if self.random.u32(0..100) < 10 || !isolate.engine.sync_shared(&shared, isolate.clock(self.now_ms)) {
            return false;
        }
        isolate.journal_asked_ms = isolate.journal_asked_ms.max(Some(told_ms));
        let (id, log) = (isolate.id, isolate.engine.view.newest());
        let is_newer = isolate.engine.view.confirmed_ms() > Some(isolate.clock(told_ms));
        self.account.has(isolate.location, log.as_ref(), self.now_ms);
        if is_newer {
            self.blame(format!("isolate {id}: what its neighbour was told at {told_ms} counts as told later"));
        }
        self.stats.shared += 1;
        self.note(|_| format!("isolate {id}: learns of its neighbour, is at {log:?}"));
        true
    }

    /// Whether another isolate of the location says that it is asking right now. If not, this one says that it is.
    fn leave_to_neighbour(&mut self, place: usize) -> bool {
        let isolate = &mut self.isolates[place];
        let clock = isolate.clock(self.now_ms);
        let Some((shared, told_ms)) = self.shared[isolate.location].clone() else { return false };
        if isolate.engine.sync_left_to_neighbour(&shared, clock) {
            let id = isolate.id;
            self.stats.left += 1;
            self.note(|_| format!("isolate {id}: leaves asking to its neighbour"));
            return true;
        }
        if let Some(journal_now) = isolate.engine.view.journal_now(clock) {
            self.shared[isolate.location] = Some((SharedSync { asking_ms: journal_now.at_ms, ..shared }, told_ms));
        }
        false
    }

    pub(super) fn advance_sync(&mut self, place: usize, asked: Option<AskedJournal>) -> Option<Work> {
        let Some((query, sent, delta)) = asked else {
            if self.take_shared(place) || self.leave_to_neighbour(place) {
                return None;
            }
            return Some(Work::Sync(Some(self.ask_journal(place))));
        };
        let known = self.isolates[place].engine.view.applied();
        if self.hear_journal(place, &query, sent, delta) {
            return Some(Work::Sync(None));
        }
        let now_ms = self.now_ms;
        let isolate = &mut self.isolates[place];
        if self.owner == LogOwner::Origin && isolate.engine.view.applied() != known {
            let clock = isolate.clock(now_ms);
            let entries = isolate.engine.softly_purged(4);
            let ahead: Vec<_> =
                entries.iter().filter_map(|entry| Lookup::ahead(&mut isolate.engine, entry, clock)).collect();
            let id = isolate.id;
            for lookup in ahead {
                self.begin_refresh(id, lookup, 0);
            }
        }
        None
    }
}
