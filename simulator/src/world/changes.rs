//! What changes: writes and purges on their way to the journal, replicas, and everything that breaks.
use super::*;

/// What a write through an edge changes.
fn url_of(doc: usize) -> Commit {
    Commit { url: Some(doc), ..Commit::default() }
}

impl World {
    /// A write or a purge by hand.
    pub(super) fn change(&mut self) {
        self.stats.purges += 1;
        let keys: Vec<usize> = (0..self.random.usize(1..4)).map(|_| self.random.usize(0..KEYS)).collect();
        let all = self.chance(4);
        let keys = if all { Vec::new() } else { keys };
        let mode = if self.chance(30) { PurgeMode::Hard } else { PurgeMode::Soft };
        let is_write = !all && self.chance(70);
        let percent = if self.is_shaky { 90 } else { 50 };
        if self.owner == LogOwner::Journal && is_write && self.chance(percent) {
            return self.write_through();
        }
        let commit = self.database.commit(Commit { keys, all, mode, ..Commit::default() }, is_write);
        self.note(|world| format!("commit {}: {commit:?}", world.database.head()));
        match self.owner {
            LogOwner::Origin if self.forked.contains(&self.database.log_id()) => {}
            LogOwner::Origin => self.history.push(&self.database.log_id(), self.database.head(), commit),
            LogOwner::Journal => self.unsent.push(commit),
        }
    }

    /// A write through an edge begins.
    fn write_through(&mut self) {
        let (place, doc) = (self.random.usize(0..self.isolates.len()), self.random.usize(0..DOC_KEYS.len()));
        self.announcements += 1;
        let through = Through { id: self.announcements, doc, due_ms: None, commit: None };
        let id = self.isolates[place].id;
        self.note(|_| format!("isolate {id}: write {} to document {doc} begins", through.id));
        self.tasks.push(Task { isolate: id, work: Work::Announce(through) });
    }

    /// The journal is told of it, if it can be reached; origin is asked in any case.
    pub(super) fn announce(&mut self, mut through: Through) -> Option<Work> {
        if self.journal_up && !self.fails(5) {
            let due_ms = self.now_ms + WRITE_MS;
            let keys = url_of(through.doc).surrogate_keys();
            let purge = PurgeRequest { keys, all: false, mode: PurgeMode::Hard, reason: None };
            self.journal.announce(through.id, due_ms, purge, self.now_ms);
            through.due_ms = Some(due_ms);
        }
        Some(Work::Origin(through))
    }

    /// Origin does it, or refuses it, or is too slow for the edge. What is not done by the time it is due was not waited for so
    /// long.
    pub(super) fn write_at_origin(&mut self, mut through: Through) -> Option<Work> {
        if self.fails(10) || through.due_ms.is_some_and(|due_ms| self.now_ms >= due_ms) {
            return Some(Work::Purge(through, WriteEnd::Refused));
        }
        if self.fails(10) {
            self.late.push(through.clone());
            return Some(Work::Purge(through, WriteEnd::Unknown));
        }
        through.commit = Some(self.commit_through(&through));
        Some(Work::Purge(through, WriteEnd::Done))
    }

    fn commit_through(&mut self, through: &Through) -> Commit {
        let commit = self.database.commit(url_of(through.doc), true);
        self.note(|_| format!("origin does write {}: {commit:?}", through.id));
        if self.is_promised(through) {
            self.unpurged.insert(through.id, commit.clone());
        }
        commit
    }

    /// Whether it is purged whatever happens: the journal was told of it, and has its storage still.
    fn is_promised(&self, through: &Through) -> bool {
        through.due_ms.is_some() && through.id > self.forgotten
    }

    /// Nobody purges it any more but the journal, if that was told. What it was not told of is not closed (ARCHITECTURE.md):
    /// somebody has to purge by hand.
    pub(super) fn leave(&mut self, through: Through) {
        if !self.is_promised(&through) {
            self.unsent.extend(through.commit);
        }
    }

    /// The journal's storage is gone, or of some time before.
    fn forget_writes(&mut self) {
        self.forgotten = self.announcements;
        self.unsent.extend(self.unpurged.drain().map(|(_, commit)| commit));
    }

    /// Origin ends what the edge has given up, and the journal looks for writes that are overdue.
    pub(super) fn look_after_writes(&mut self) {
        let now_ms = self.now_ms;
        self.late.retain(|through| through.due_ms.is_none_or(|due_ms| now_ms < due_ms));
        if !self.late.is_empty() && self.random.bool() {
            let index = self.random.usize(0..self.late.len());
            let mut through = self.late.swap_remove(index);
            through.commit = Some(self.commit_through(&through));
            return self.leave(through);
        }
        self.purge_overdue();
    }

    /// As the object does when it is woken.
    pub(super) fn purge_overdue(&mut self) {
        for (id, purge) in self.journal.overdue(self.now_ms) {
            self.stats.overdue += 1;
            let changed = (0..DOC_KEYS.len()).map(url_of).find(|commit| commit.surrogate_keys() == purge.keys);
            let Some(commit) = self.unpurged.remove(&id).or(changed) else { continue };
            self.number(commit);
            self.journal.end(id);
        }
    }

    /// What it changed is purged, and known to be where it went through before the writer has the answer.
    pub(super) fn purge_written(&mut self, place: usize, through: Through, end: WriteEnd) -> Option<Work> {
        let reaches = self.journal_up && !self.fails(5);
        if !end.purges() {
            if reaches {
                self.journal.end(through.id);
            }
            return None;
        }
        let commit = through.commit.clone().unwrap_or_else(|| url_of(through.doc));
        let state = reaches.then(|| self.number(commit.clone())).flatten();
        if state.is_some() {
            self.unpurged.remove(&through.id);
            if end.is_last() {
                self.journal.end(through.id);
            }
        }
        // What was taken may go unheard, and is taken twice then.
        let Some(state) = state.filter(|_| !self.fails(5)) else {
            let isolate = &mut self.isolates[place];
            isolate.engine.forget_target(&format!("/{}", through.doc));
            self.colo[isolate.location].remove(&format!("GET /{}", through.doc));
            self.kv.remove(&format!("GET /{}", through.doc));
            // It is tried again behind the answer, for as long as there is somebody to do it.
            match self.random.bool() {
                true => self.leave(through),
                false => self.unsent.push(commit),
            }
            return None;
        };
        let hashes: Vec<_> = commit.surrogate_keys().iter().map(SurrogateKey::hash).collect();
        let isolate = &mut self.isolates[place];
        isolate.engine.learn_written(&state, &hashes);
        (end == WriteEnd::Done).then_some(Work::Written(commit, None))
    }

    pub(super) fn written(&mut self, place: usize, commit: Commit, asked: Option<AskedJournal>) -> Option<Work> {
        let Some((query, sent, delta)) = asked else {
            let asked = self.ask_journal(place);
            return Some(Work::Written(commit, Some(asked)));
        };
        if self.hear_journal(place, &query, sent, delta) {
            return Some(Work::Written(commit, None));
        }
        let (doc, write) = (commit.url?, commit.write?);
        self.stats.written += 1;
        let isolate = &mut self.isolates[place];
        let newest = isolate.written.entry(doc).or_default();
        *newest = write.max(*newest);
        let id = isolate.id;
        self.note(|_| format!("isolate {id}: write {write} to document {doc} is answered"));
        None
    }

    /// Purges on their way to the journal.
    pub(super) fn deliver(&mut self) {
        if self.owner == LogOwner::Journal {
            return self.send_own();
        }
        if !self.batches.is_empty() && self.chance(50) {
            // Any batch that is under way, not the oldest.
            let index = self.random.usize(0..self.batches.len());
            let Some(batch) = self.batches.get(index).cloned() else { return };
            if !self.chance(10) {
                self.batches.remove(index);
            }
            if self.journal_up && !self.fails(5) {
                self.take_batch(&batch);
            }
            return;
        }
        let head = self.database.head();
        let mut first_seq = self.next_seq.unwrap_or(head + 1).clamp(1, head + 1);
        if self.fails(5) {
            // A second dispatcher, or one that came back with an old belief.
            first_seq = self.random.u64(1..=head + 1);
        }
        let count = self.random.usize(1..5);
        let batch = self.next_batch(first_seq, count);
        self.batches.push_back(batch);
    }

    /// As the dispatcher makes it: what it was last asked to answer stands in it.
    pub(super) fn next_batch(&self, first_seq: Seq, count: usize) -> PurgeBatch {
        PurgeBatch { challenge: self.challenge, ..self.database.batch(first_seq, count) }
    }

    pub(super) fn take_batch(&mut self, batch: &PurgeBatch) {
        let took = self.journal.batch(batch, self.now_ms);
        self.note(|world| {
            format!("the journal takes {} from {}: at {}", batch.log_id, batch.first_seq, world.journal.head())
        });
        if matches!(took, Took::Ack(_)) {
            self.taken_by_an_isolate();
        }
        // The dispatcher hears of it, or not.
        if self.fails(10) || batch.log_id != self.database.log_id() {
            return;
        }
        let ack = match took {
            Took::Retired => return,
            Took::Unannounced(challenge) => {
                self.challenge = challenge;
                self.next_seq = None;
                return;
            }
            Took::Ack(ack) if ack.next_seq <= self.database.head() + 1 => ack,
            Took::Ack(_) | Took::Forked => {
                self.database.replace_log();
                self.history.begin(self.database.log_id(), self.database.commits.clone());
                self.next_seq = None;
                let log_id = self.database.log_id();
                return self.note(|_| format!("the log becomes {log_id}: its history is not the one the edge knows"));
            }
        };
        self.challenge = 0;
        self.next_seq = Some(ack.next_seq);
    }

    pub(super) fn send_own(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        let index = self.random.usize(0..self.unsent.len());
        let commit = self.unsent.swap_remove(index);
        if self.append(commit.clone()).is_none() {
            return self.unsent.push(commit);
        }
        self.taken_by_an_isolate();
    }

    /// The journal takes a purge, if it can be reached.
    fn append(&mut self, commit: Commit) -> Option<AsOf> {
        if !self.journal_up || self.fails(5) {
            return None;
        }
        self.number(commit)
    }

    /// The journal numbers a purge.
    fn number(&mut self, commit: Commit) -> Option<AsOf> {
        self.journal.own_log(self.now_ms);
        let log_id = self.journal.log_id().cloned()?;
        let hashes = commit.surrogate_keys().iter().map(SurrogateKey::hash).collect();
        let seq = self.journal.append(hashes, commit.all, commit.mode, self.now_ms);
        self.note(|_| format!("the journal numbers a purge {seq}: {commit:?}"));
        self.history.push(&log_id, seq, commit);
        Some(AsOf::new(log_id, seq))
    }

    /// Purges reach the journal by an isolate, which asks at once what it made of them.
    fn taken_by_an_isolate(&mut self) {
        let place = self.random.usize(0..self.isolates.len());
        self.tasks.push(Task { isolate: self.isolates[place].id, work: Work::Ask });
    }

    pub(super) fn replicate(&mut self) {
        if self.database.replicas.is_empty() {
            return self.pass_time();
        }
        let head = self.database.head();
        let index = self.random.usize(0..self.database.replicas.len());
        let at = self.database.replicas[index];
        self.database.replicas[index] = self.random.u64(at..=head);
    }

    /// What happens to the journal's storage.
    pub(super) fn shake(&mut self) {
        self.stats.faults += 1;
        match self.owner {
            LogOwner::Journal => self.copy_or_put_back(),
            LogOwner::Origin => self.lose_journal(),
        }
    }

    pub(super) fn disturb(&mut self) {
        self.stats.faults += 1;
        match self.random.u32(0..20) {
            0..6 => {
                self.journal_up = !self.journal_up;
                self.note(|world| format!("the journal is {}", if world.journal_up { "back" } else { "unreachable" }));
            }
            6..13 => {
                let index = self.random.usize(0..self.isolates.len());
                let gone = self.isolates.swap_remove(index);
                self.note(|_| format!("isolate {} is gone", gone.id));
                self.spawn(gone.location);
            }
            13..17 => {
                let location = self.random.usize(0..self.options.locations);
                if self.isolates.len() < self.options.locations * 3 {
                    self.spawn(location);
                } else {
                    self.colo[location].clear();
                    self.note(|_| format!("location {location} forgets its entries"));
                }
            }
            17 if self.chance(50) => {
                let offset_ms = self.random.i64(-600_000..600_000);
                self.journal.restart(offset_ms, self.now_ms);
                self.account.forget_heard();
                self.note(|_| format!("the journal starts anew, its clock {offset_ms} ms off"));
            }
            17 => self.lose_journal(),
            18 if self.owner == LogOwner::Journal => self.copy_or_put_back(),
            18 => {
                let to = self.random.u64(0..=self.database.head());
                let log_id = self.database.log_id();
                let edge_knows_more = self.journal.log_id() == Some(&log_id) && self.journal.head() > to;
                self.database.put_back(to);
                self.next_seq = None;
                if edge_knows_more {
                    // A copied file that says nothing: the edge has to notice.
                    self.forked.push(log_id);
                    return self.note(|_| format!("the database is put back to {to}"));
                }
                // Restored as the manual says.
                self.database.replace_log();
                self.history.begin(self.database.log_id(), self.database.commits.clone());
                self.note(|world| format!("the database is restored to {to}: {}", world.database.log_id()));
            }
            19 => self.set_a_clock(),
            _ => self.pass_time(),
        }
    }

    fn lose_journal(&mut self) {
        if self.forked.contains(&self.database.log_id()) {
            // Both at once leave nobody who knows.
            return self.pass_time();
        }
        self.journal.lose();
        self.forget_writes();
        self.account.forget_heard();
        if self.owner == LogOwner::Journal {
            self.journal.own_log(self.now_ms);
        }
        self.note(|_| "the journal loses its storage".into());
    }

    /// A journal that numbers itself: its disk is copied, or the copy put back. If nobody has heard of what was lost, whoever
    /// did that has to purge everything.
    fn copy_or_put_back(&mut self) {
        if self.random.bool() {
            return self.journal.make_copy();
        }
        let later_ms = self.random.u64(0..10_000);
        let Some(kept) = self.journal.put_back(later_ms, self.now_ms) else { return };
        self.note(|_| format!("the journal's storage is put back to {kept}"));
        self.history.forget_after(&kept.log_id, kept.seq);
        self.account.forget_heard();
        self.account.forget_after(&kept);
        self.is_put_back = true;
        self.forget_writes();
        for isolate in &mut self.isolates {
            let newest = isolate.engine.view.newest();
            isolate.has_heard_of_lost |=
                newest.is_some_and(|newest| newest.log_id == kept.log_id && newest.seq > kept.seq);
        }
    }

    /// An isolate's clock is set forward or back, by more than knowledge of purges lasts: by less, it is stretched by as much.
    fn set_a_clock(&mut self) {
        let place = self.random.usize(0..self.isolates.len());
        let by_ms = self.random.i64(2_000..3_600_000) * if self.random.bool() { 1 } else { -1 };
        let isolate = &mut self.isolates[place];
        let clock = isolate.clock(self.now_ms).saturating_add_signed(by_ms);
        // Into the very moment at which the journal was asked before: nobody could notice.
        let age_ms = isolate.engine.view.confirmed_ms().and_then(|confirmed_ms| clock.checked_sub(confirmed_ms));
        if age_ms.is_some_and(|age_ms| age_ms <= CONFIG_BOUND_MS) {
            return;
        }
        isolate.offset_ms += by_ms;
        let id = isolate.id;
        self.note(|_| format!("isolate {id}: its clock is set by {by_ms} ms"));
        // Somebody asks before the clock has come to that moment again.
        self.ask(place, (0, 0), Fields::new(), None);
    }
}
