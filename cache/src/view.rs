//! What one isolate knows of the purge log: for each key the youngest soft and hard purge, and floors below which
//! the details are forgotten. The freshness rule lives here, in [`JournalView::judge`].
//!
//! The view is bounded. What does not fit raises a floor, so forgetting can only purge too much.
use kv_schemas::journal::{JournalDelta, JournalQuery};
use kv_schemas::{AsOf, KeyHash, LogId, PurgeMode, Seq};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Keys are hashes already.
#[derive(Default, Clone, Copy)]
pub struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Last {
    soft: Seq,
    hard: Seq,
}

/// What the log says about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No purge is younger than it.
    Clear,
    /// It may be answered as stale at most.
    Soft(Cause),
    /// It must not be answered.
    Hard(Cause),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Purged,
    Floor,
    OtherLog,
    NoAsOf,
    /// The view has never heard of any log.
    NoLog,
}

/// How far the view's knowledge can be relied on now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// Confirmed within the lease: ask nobody.
    Leased,
    /// Past the lease, within the bound: use it, and sync behind.
    Aging,
    /// Past the bound, or never confirmed: sync first; unreachable, nothing counts as fresh.
    Unknown,
}

/// What [`JournalView::apply`] made of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The view is now as the journal was when the question went out.
    Complete,
    /// There is more to ask for.
    Partial,
    /// The answer does not continue this view (a later one was applied before it): nothing changed.
    Ignored,
}

/// Compact copy of the purge log.
#[derive(Clone, Debug)]
pub struct JournalView {
    log_id: Option<LogId>,
    applied: Seq,
    floor_soft: Seq,
    floor_hard: Seq,
    keys: HashMap<KeyHash, Last, BuildHasherDefault<Identity>>,
    keys_max: usize,
    confirmed_ms: Option<u64>,
}

impl JournalView {
    pub fn new(keys_max: usize) -> Self {
        Self {
            log_id: None,
            applied: 0,
            floor_soft: 0,
            floor_hard: 0,
            keys: HashMap::default(),
            keys_max: keys_max.max(4),
            confirmed_ms: None,
        }
    }

    /// The freshness rule. `keys` are the entry's surrogate keys.
    ///
    /// No clocks are compared: the state the entry was read at stands against positions in the same log.
    pub fn judge(&self, as_of: Option<&AsOf>, keys: &[KeyHash]) -> Verdict {
        let Some(log_id) = &self.log_id else { return Verdict::Soft(Cause::NoLog) };
        let Some(as_of) = as_of else {
            // Read before this isolate knew of any log: every hard purge it knows of may be younger.
            let is_hard = |key| self.keys.get(key).is_some_and(|last: &Last| last.hard > 0);
            return match keys.iter().any(is_hard) {
                true => Verdict::Hard(Cause::Purged),
                false if self.floor_hard > 0 => Verdict::Hard(Cause::Floor),
                false => Verdict::Soft(Cause::NoAsOf),
            };
        };
        if as_of.log_id != *log_id {
            // A restored or replaced database: nothing is known of what its predecessor purged since.
            return Verdict::Hard(Cause::OtherLog);
        }
        if as_of.seq < self.floor_hard {
            return Verdict::Hard(Cause::Floor);
        }
        let mut soft = as_of.seq < self.floor_soft;
        let by_floor = soft;
        for last in keys.iter().filter_map(|key| self.keys.get(key)) {
            if last.hard > as_of.seq {
                return Verdict::Hard(Cause::Purged);
            }
            soft |= last.soft > as_of.seq;
        }
        match (soft, by_floor) {
            (false, _) => Verdict::Clear,
            (true, true) => Verdict::Soft(Cause::Floor),
            (true, false) => Verdict::Soft(Cause::Purged),
        }
    }

    /// The youngest purge known of these keys: what a refill has to be newer than.
    pub fn youngest_purge(&self, keys: &[KeyHash]) -> Seq {
        let floors = self.floor_soft.max(self.floor_hard);
        keys.iter().filter_map(|key| self.keys.get(key)).fold(floors, |max, last| max.max(last.soft).max(last.hard))
    }

    /// The newest state this view contains: what an answer without `Surrogate-As-Of` is stamped with when its
    /// request is sent.
    pub fn newest(&self) -> Option<AsOf> {
        self.log_id.clone().map(|log_id| AsOf::new(log_id, self.applied))
    }

    /// The state `seq` of this view's log.
    pub fn at(&self, seq: Seq) -> Option<AsOf> {
        self.log_id.clone().map(|log_id| AsOf::new(log_id, seq))
    }

    pub fn knowledge(&self, now_ms: u64, lease_ms: u64, bound_ms: u64) -> Knowledge {
        let Some(confirmed_ms) = self.confirmed_ms else { return Knowledge::Unknown };
        // A clock that went back would stretch the lease: then nothing is known about its age.
        let Some(age_ms) = now_ms.checked_sub(confirmed_ms) else { return Knowledge::Unknown };
        match age_ms {
            age if age <= lease_ms => Knowledge::Leased,
            age if age <= bound_ms => Knowledge::Aging,
            _ => Knowledge::Unknown,
        }
    }

    /// What to ask the journal.
    pub fn query(&self, location: &str) -> JournalQuery {
        JournalQuery { log_id: self.log_id.clone(), since: self.applied, location: location.into() }
    }

    /// Takes over the journal's answer to `asked`, which went out at `sent_ms` by this isolate's clock.
    pub fn apply(&mut self, asked: &JournalQuery, delta: &JournalDelta, sent_ms: u64) -> Applied {
        if self.confirmed_ms.is_some_and(|confirmed_ms| sent_ms < confirmed_ms && self.applied > asked.since) {
            return Applied::Ignored;
        }
        let continues = self.log_id.as_ref() == Some(&delta.log_id) && asked.log_id.as_ref() == Some(&delta.log_id);
        if !continues {
            if self.log_id != asked.log_id {
                return Applied::Ignored;
            }
            // Another log: purge everything. Entries of the old one are refused by their log id, what the new one
            // did before the journal heard of it by its floors.
            self.reset(delta);
        } else if delta.head < self.applied {
            // The journal went back in time. What this view knows beyond it cannot be told from what will be
            // numbered anew: everything read up to here is purged.
            let known = self.applied;
            self.reset(delta);
            self.floor_hard = self.floor_hard.max(known);
        } else if asked.since > self.applied {
            return Applied::Ignored;
        }
        self.floor_soft = self.floor_soft.max(delta.floor_soft);
        self.floor_hard = self.floor_hard.max(delta.floor_hard);
        for purge in &delta.purges {
            self.take(purge.seq, purge.mode, purge.all, purge.keys.iter().copied());
        }
        self.applied = self.applied.max(delta.until);
        if delta.until < delta.head {
            return Applied::Partial;
        }
        self.confirmed_ms = Some(self.confirmed_ms.map_or(sent_ms, |earlier| earlier.max(sent_ms)));
        if self.confirmed_ms.is_some_and(|confirmed_ms| confirmed_ms > sent_ms) {
            // The clock went back between two syncs; the later question counts.
            self.confirmed_ms = Some(sent_ms);
        }
        Applied::Complete
    }

    fn reset(&mut self, delta: &JournalDelta) {
        self.log_id = Some(delta.log_id.clone());
        self.applied = 0;
        self.floor_soft = 0;
        self.floor_hard = 0;
        self.keys.clear();
        self.confirmed_ms = None;
    }

    fn take(&mut self, seq: Seq, mode: PurgeMode, all: bool, keys: impl Iterator<Item = KeyHash>) {
        if all {
            match mode {
                PurgeMode::Soft => self.floor_soft = self.floor_soft.max(seq),
                PurgeMode::Hard => self.floor_hard = self.floor_hard.max(seq),
            }
        }
        for key in keys {
            let last = self.keys.entry(key).or_default();
            match mode {
                PurgeMode::Soft => last.soft = last.soft.max(seq),
                PurgeMode::Hard => last.hard = last.hard.max(seq),
            }
            if self.keys.len() > self.keys_max {
                self.forget_oldest();
            }
        }
    }

    /// Forgets the older half of the keys and raises the floors to what was forgotten: softly for soft purges,
    /// hard for hard ones, since a hard purge must never come back as stale.
    fn forget_oldest(&mut self) {
        let mut seqs: Vec<Seq> = self.keys.values().map(|last| last.soft.max(last.hard)).collect();
        seqs.sort_unstable();
        let limit = seqs.get(seqs.len() / 2).copied().unwrap_or(0);
        let (mut soft, mut hard) = (self.floor_soft, self.floor_hard);
        self.keys.retain(|_, last| {
            if last.soft.max(last.hard) > limit {
                return true;
            }
            soft = soft.max(last.soft);
            hard = hard.max(last.hard);
            false
        });
        (self.floor_soft, self.floor_hard) = (soft, hard);
    }

    pub fn log_id(&self) -> Option<&LogId> {
        self.log_id.as_ref()
    }

    pub fn applied(&self) -> Seq {
        self.applied
    }

    /// Keys remembered in detail.
    pub fn keys_len(&self) -> usize {
        self.keys.len()
    }

    pub fn confirmed_ms(&self) -> Option<u64> {
        self.confirmed_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_schemas::journal::DeltaPurge;

    fn purge(seq: Seq, mode: PurgeMode, keys: &[u64]) -> DeltaPurge {
        DeltaPurge { seq, mode, all: keys.is_empty(), keys: keys.to_vec() }
    }

    fn delta(log: &str, head: Seq, purges: Vec<DeltaPurge>) -> JournalDelta {
        let log_id = LogId::new(log).unwrap();
        JournalDelta { log_id, head, floor_soft: 0, floor_hard: 0, until: head, purges }
    }

    fn synced(view: &mut JournalView, delta: &JournalDelta, now_ms: u64) -> Applied {
        let asked = view.query("here");
        view.apply(&asked, delta, now_ms)
    }

    fn view(purges: Vec<DeltaPurge>) -> JournalView {
        let mut view = JournalView::new(100);
        let head = purges.iter().map(|purge| purge.seq).max().unwrap_or(0);
        assert_eq!(synced(&mut view, &delta("log", head, purges), 1000), Applied::Complete);
        view
    }

    fn judge(view: &JournalView, as_of: &str, keys: &[u64]) -> Verdict {
        view.judge(Some(&as_of.parse().unwrap()), keys)
    }

    use PurgeMode::{Hard, Soft};

    #[test]
    fn an_entry_is_clear_when_no_purge_of_its_keys_is_younger() {
        let view = view(vec![purge(1, Soft, &[1]), purge(2, Hard, &[2]), purge(3, Soft, &[2])]);
        assert_eq!(judge(&view, "log:0", &[9]), Verdict::Clear);
        assert_eq!(judge(&view, "log:0", &[1]), Verdict::Soft(Cause::Purged));
        assert_eq!(judge(&view, "log:1", &[1]), Verdict::Clear);
        assert_eq!(judge(&view, "log:0", &[1, 2]), Verdict::Hard(Cause::Purged));
        assert_eq!(judge(&view, "log:2", &[2]), Verdict::Soft(Cause::Purged));
        assert_eq!(judge(&view, "log:3", &[1, 2]), Verdict::Clear);
        assert_eq!(judge(&view, "log:99", &[1, 2]), Verdict::Clear);
    }

    #[test]
    fn purging_all_raises_the_floor() {
        let soft = view(vec![purge(5, Soft, &[])]);
        assert_eq!(judge(&soft, "log:4", &[]), Verdict::Soft(Cause::Floor));
        assert_eq!(judge(&soft, "log:5", &[]), Verdict::Clear);
        let hard = view(vec![purge(5, Hard, &[])]);
        assert_eq!(judge(&hard, "log:4", &[]), Verdict::Hard(Cause::Floor));
    }

    #[test]
    fn another_log_purges_everything_and_no_state_at_all_is_never_fresh() {
        let view = view(vec![]);
        assert_eq!(judge(&view, "old:99", &[]), Verdict::Hard(Cause::OtherLog));
        assert_eq!(view.judge(None, &[]), Verdict::Soft(Cause::NoAsOf));
        assert_eq!(JournalView::new(9).judge(None, &[]), Verdict::Soft(Cause::NoLog));
    }

    #[test]
    fn what_has_no_state_falls_to_every_hard_purge() {
        let purged = view(vec![purge(1, Soft, &[1]), purge(2, Hard, &[2])]);
        assert_eq!(purged.judge(None, &[1]), Verdict::Soft(Cause::NoAsOf));
        assert_eq!(purged.judge(None, &[1, 2]), Verdict::Hard(Cause::Purged));
        assert_eq!(view(vec![purge(1, Hard, &[])]).judge(None, &[1]), Verdict::Hard(Cause::Floor));
    }

    #[test]
    fn order_and_repetition_of_purges_do_not_matter() {
        let mut purges = vec![purge(1, Soft, &[1]), purge(2, Hard, &[1]), purge(3, Soft, &[1])];
        let forward = view(purges.clone());
        purges.reverse();
        purges.extend(purges.clone());
        let backward = view(purges);
        for seq in 0..4 {
            let as_of = format!("log:{seq}");
            assert_eq!(judge(&forward, &as_of, &[1]), judge(&backward, &as_of, &[1]));
        }
    }

    #[test]
    fn a_late_answer_to_an_old_question_changes_nothing() {
        let mut view = view(vec![purge(1, Soft, &[1])]);
        let old_question = JournalQuery { log_id: None, since: 0, location: "here".into() };
        assert_eq!(view.apply(&old_question, &delta("log", 0, vec![]), 500), Applied::Ignored);
        assert_eq!(view.applied(), 1);
    }

    #[test]
    fn a_new_log_drops_all_that_was_known() {
        let mut view = view(vec![purge(7, Hard, &[1])]);
        let fresh = JournalDelta { floor_hard: 3, ..delta("new", 4, vec![purge(4, Soft, &[2])]) };
        assert_eq!(synced(&mut view, &fresh, 2000), Applied::Complete);
        assert_eq!(judge(&view, "log:7", &[]), Verdict::Hard(Cause::OtherLog));
        assert_eq!(judge(&view, "new:2", &[]), Verdict::Hard(Cause::Floor));
        assert_eq!(judge(&view, "new:3", &[1]), Verdict::Clear);
        assert_eq!(judge(&view, "new:3", &[2]), Verdict::Soft(Cause::Purged));
    }

    #[test]
    fn a_journal_that_went_back_in_time_purges_what_was_read_before() {
        let mut view = view(vec![purge(7, Soft, &[1])]);
        assert_eq!(synced(&mut view, &delta("log", 3, vec![purge(3, Soft, &[2])]), 2000), Applied::Complete);
        assert_eq!(judge(&view, "log:6", &[]), Verdict::Hard(Cause::Floor));
        assert_eq!(view.applied(), 3);
    }

    #[test]
    fn overflow_raises_floors_and_forgets_nothing_silently() {
        let mut view = JournalView::new(10);
        let mut purges: Vec<_> = (1..=40).map(|n| purge(n, Soft, &[n])).collect();
        purges.insert(0, purge(1, Hard, &[1000]));
        synced(&mut view, &delta("log", 40, purges), 1000);
        assert!(view.keys_len() <= 10);
        for n in 1..=40 {
            assert_ne!(judge(&view, &format!("log:{}", n - 1), &[n]), Verdict::Clear, "{n}");
        }
        assert!(matches!(judge(&view, "log:0", &[1000]), Verdict::Hard(_)), "a hard purge stays hard");
        assert_eq!(judge(&view, "log:1", &[1000]), Verdict::Soft(Cause::Floor), "and only below it");
        assert_eq!(judge(&view, "log:40", &[1, 40]), Verdict::Clear);
    }

    #[test]
    fn knowledge_ages_from_lease_over_bound_to_unknown() {
        let view = view(vec![]);
        let at = |now_ms| view.knowledge(now_ms, 100, 150);
        assert_eq!([at(1000), at(1100), at(1101), at(1150), at(1151)].map(|k| k as u8), [0, 0, 1, 1, 2]);
        assert_eq!(at(999), Knowledge::Unknown, "the clock went back");
        assert_eq!(JournalView::new(9).knowledge(0, 100, 150), Knowledge::Unknown);
    }

    #[test]
    fn a_partial_answer_confirms_nothing() {
        let mut view = JournalView::new(9);
        let part = JournalDelta { until: 2, ..delta("log", 5, vec![purge(2, Soft, &[1])]) };
        assert_eq!(synced(&mut view, &part, 1000), Applied::Partial);
        assert_eq!(view.knowledge(1000, 100, 150), Knowledge::Unknown);
        assert_eq!(view.query("here").since, 2);
    }
}
