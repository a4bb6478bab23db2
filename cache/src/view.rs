//! What one isolate knows of the purge log: for each key the youngest soft and hard purge, and floors below which
//! the details are forgotten. The freshness rule lives here, in [`JournalView::judge`].
//!
//! The view is bounded, for each class of keys by itself. What does not fit raises the floor of its class, so forgetting
//! can only purge too much.
use crate::purged::{Last, Table};
use kv_schemas::journal::{Floor, JournalClock, JournalDelta, JournalQuery};
use kv_schemas::{AsOf, KeyClass, KeyHash, LogId, PerClass, PurgeMode, Seq};
use std::collections::VecDeque;

/// Up to where the log was learnt at once, and since when it was not known: the purges in between are younger than that.
#[derive(Clone, Copy, Debug)]
struct Step {
    applied: Seq,
    since_ms: u64,
}

/// Steps that are remembered; purges before them count as old.
const STEPS_MAX: usize = 128;

/// What this isolate's clock said when the journal's said something: by it the journal's later times are told here.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    journal: JournalClock,
    sent_ms: u64,
}

/// Clocks drift apart; an anchor is good for so long.
const ANCHOR_MS_MAX: u64 = 60_000;

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

/// What the log says about a token, which is judged like an answer read when it was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing it stands for has been revoked since.
    Clean,
    Revoked,
    /// That cannot be told here: origin has to say.
    Unknown,
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

/// The rule, of a state against floors and the youngest purges of keys.
fn weigh<'a>(as_of: Seq, floors: impl Iterator<Item = &'a Last>, lasts: impl Iterator<Item = &'a Last>) -> Verdict {
    let (mut by_floor, mut by_key) = (false, false);
    for floor in floors {
        if as_of < floor.hard {
            return Verdict::Hard(Cause::Floor);
        }
        by_floor |= as_of < floor.soft;
    }
    for last in lasts {
        if last.hard > as_of {
            return Verdict::Hard(Cause::Purged);
        }
        by_key |= last.soft > as_of;
    }
    match (by_key, by_floor) {
        (false, false) => Verdict::Clear,
        (_, true) => Verdict::Soft(Cause::Floor),
        (true, false) => Verdict::Soft(Cause::Purged),
    }
}

/// Few writes go through an isolate between the journal's taking up a log and the isolate's hearing of it.
const TO_LEARN_MAX: usize = 64;

/// Compact copy of the purge log.
#[derive(Clone, Debug)]
pub struct JournalView {
    log_id: Option<LogId>,
    applied: Seq,
    /// The youngest purge that was learnt ahead of the journal.
    learnt: Seq,
    /// What is to be learnt of logs that this view does not hold, oldest first.
    to_learn: VecDeque<(AsOf, KeyHash)>,
    tables: PerClass<Table>,
    confirmed_ms: Option<u64>,
    steps: VecDeque<Step>,
    anchor: Option<Anchor>,
    /// Counts what was learnt: while it stays, every verdict does.
    version: u64,
}

impl JournalView {
    /// Remembers so many keys of content, and a quarter as many of each other class.
    pub fn new(keys_max: usize) -> Self {
        let tables = PerClass::new(|class| match class {
            KeyClass::Content => Table::new(keys_max),
            KeyClass::Session | KeyClass::Viewer => Table::new(keys_max / 4),
        });
        Self {
            log_id: None,
            applied: 0,
            learnt: 0,
            to_learn: VecDeque::new(),
            tables,
            confirmed_ms: None,
            steps: VecDeque::new(),
            anchor: None,
            version: 0,
        }
    }

    /// Changes with everything [`Self::judge`] looks at: log, floors, purges.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The freshness rule. `keys` are the entry's surrogate keys.
    ///
    /// No clocks are compared: the state the entry was read at stands against positions in the same log.
    pub fn judge(&self, as_of: Option<&AsOf>, keys: &[KeyHash]) -> Verdict {
        let Some(log_id) = &self.log_id else { return Verdict::Soft(Cause::NoLog) };
        let Some(as_of) = as_of else {
            // Read before this isolate knew of any log: every hard purge it knows of may be younger.
            let is_hard = |key: &KeyHash| self.last(*key).is_some_and(|last| last.hard > 0);
            return match keys.iter().any(is_hard) {
                true => Verdict::Hard(Cause::Purged),
                false if self.floors(keys).any(|floor| floor.hard > 0) => Verdict::Hard(Cause::Floor),
                false => Verdict::Soft(Cause::NoAsOf),
            };
        };
        if as_of.log_id != *log_id {
            // A restored or replaced database: nothing is known of what its predecessor purged since.
            return Verdict::Hard(Cause::OtherLog);
        }
        if KeyClass::are_content(keys) {
            let content = &self.tables.content;
            return weigh(as_of.seq, [content.floor()].into_iter(), keys.iter().filter_map(|key| content.last(*key)));
        }
        weigh(as_of.seq, self.floors(keys), keys.iter().filter_map(|key| self.last(*key)))
    }

    fn last(&self, key: KeyHash) -> Option<&Last> {
        self.tables.get(KeyClass::of(key)).last(key)
    }

    /// The floors that concern an entry with these keys: that of content always, since every entry has its URL's key.
    fn floors<'a>(&'a self, keys: &'a [KeyHash]) -> impl Iterator<Item = &'a Last> {
        let others = keys.iter().map(|key| KeyClass::of(*key)).filter(|class| *class != KeyClass::Content);
        let others = others.map(|class| self.tables.get(class).floor());
        [self.tables.content.floor()].into_iter().chain(others)
    }

    /// How a token stands that was issued at `as_of` and is revoked by a hard purge of one of these keys. `is_current`:
    /// whether the view can be relied on now.
    ///
    /// Soft purges revoke nothing. What is known to be revoked stays so, however old the knowledge is.
    pub fn standing(&self, as_of: &AsOf, keys: &[KeyHash], is_current: bool) -> Standing {
        if self.log_id.as_ref() != Some(&as_of.log_id) {
            return Standing::Unknown;
        }
        if keys.iter().filter_map(|key| self.last(*key)).any(|last| last.hard > as_of.seq) {
            return Standing::Revoked;
        }
        let mut tables = keys.iter().map(|key| self.tables.get(KeyClass::of(*key)));
        let is_told = tables.all(|table| as_of.seq >= table.floor().hard);
        if is_current && is_told { Standing::Clean } else { Standing::Unknown }
    }

    /// Takes note of a hard purge ahead of the journal: origin itself has said that its log has come to `as_of` by a write
    /// that concerns this key. To know of a purge early is never wrong, and to know of one too many only fetches anew. Of another
    /// log than this view's it is kept until that is heard of: `false`.
    pub fn learn(&mut self, as_of: &AsOf, key: KeyHash) -> bool {
        if self.log_id.as_ref() != Some(&as_of.log_id) {
            if self.to_learn.len() >= TO_LEARN_MAX {
                self.to_learn.pop_front();
            }
            self.to_learn.push_back((as_of.clone(), key));
            return false;
        }
        self.version = self.version.wrapping_add(1);
        self.learnt = self.learnt.max(as_of.seq);
        self.take(as_of.seq, PurgeMode::Hard, false, [key].into_iter());
        true
    }

    /// The youngest purge known of these keys: what a refill has to be newer than.
    pub fn youngest_purge(&self, keys: &[KeyHash]) -> Seq {
        self.lasts(keys).fold(0, |max, last| max.max(last.soft).max(last.hard))
    }

    fn lasts<'a>(&'a self, keys: &'a [KeyHash]) -> impl Iterator<Item = &'a Last> {
        keys.iter().filter_map(|key| self.last(*key)).chain(self.floors(keys))
    }

    /// How long ago an entry read at `as_of` was softly purged, at the most: its purges are younger than the time the
    /// journal was last asked before they were learnt. `None`: no soft purge of it is known.
    pub fn purged_ms_ago(&self, as_of: Seq, keys: &[KeyHash], now_ms: u64) -> Option<u64> {
        let oldest = self.lasts(keys).filter_map(|last| last.unseen(as_of)).min()?;
        let first = self.steps.partition_point(|step| step.applied < oldest);
        let is_remembered = first > 0 || (self.steps.len() < STEPS_MAX && oldest > 0);
        let step = self.steps.get(first).filter(|_| is_remembered);
        // Asked at a time that is still to come: the clock has gone back since, nobody knows how far.
        Some(step.and_then(|step| now_ms.checked_sub(step.since_ms)).unwrap_or(u64::MAX))
    }

    /// The newest state this view contains: what an answer without `Surrogate-As-Of` is stamped with when its
    /// request is sent.
    pub fn newest(&self) -> Option<AsOf> {
        self.log_id.clone().map(|log_id| AsOf::new(log_id, self.applied))
    }

    /// The newest state that has been heard of: beyond [`Self::newest`], this view does not contain all purges up to it.
    pub fn newest_heard_of(&self) -> Option<AsOf> {
        self.log_id.clone().map(|log_id| AsOf::new(log_id, self.applied.max(self.learnt)))
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

    /// The clock was set back: nobody knows any more how old this view is, how long ago its purges were learnt, and what the
    /// journal's clock said when this one said something.
    pub fn forget_times(&mut self) {
        self.confirmed_ms = None;
        self.anchor = None;
        self.steps.iter_mut().for_each(|step| step.since_ms = 0);
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
        // What is learnt now is younger than what was asked last; of another log nothing is known.
        let (before, mut known_ms) = (self.applied, self.confirmed_ms);
        let continues = self.log_id.as_ref() == Some(&delta.log_id) && asked.log_id.as_ref() == Some(&delta.log_id);
        if !continues {
            if self.log_id != asked.log_id {
                return Applied::Ignored;
            }
            // Another log: purge everything. Entries of the old one are refused by their log id, what the new one
            // did before the journal heard of it by its floors.
            self.reset(delta);
            known_ms = None;
        } else if delta.head < asked.since {
            // The journal went back in time. What was known beyond it cannot be told from what will be numbered anew:
            // everything read up to there is purged.
            let known = self.applied.max(asked.since);
            self.reset(delta);
            known_ms = None;
            self.tables.iter_mut().for_each(|table| {
                table.raise(Floor::hard(known));
            });
        } else if asked.since > self.applied || delta.head < self.applied {
            // This view was reset since it asked, or has learnt more from a later answer that came sooner.
            return Applied::Ignored;
        }
        // The journal names its floors each time.
        let mut is_news = !delta.purges.is_empty();
        for class in KeyClass::ALL {
            is_news |= self.tables.get_mut(class).raise(*delta.floors.get(class));
        }
        if is_news {
            self.version = self.version.wrapping_add(1);
        }
        for purge in &delta.purges {
            self.take(purge.seq, purge.mode, purge.all, purge.keys.iter().copied());
        }
        self.applied = self.applied.max(delta.until);
        if self.applied != before {
            if self.steps.len() >= STEPS_MAX {
                self.steps.pop_front();
            }
            self.steps.push_back(Step { applied: self.applied, since_ms: known_ms.unwrap_or(0) });
        }
        if delta.until < delta.head {
            return Applied::Partial;
        }
        // A clock that went back between two questions: the later question counts.
        self.confirmed_ms = Some(sent_ms);
        Applied::Complete
    }

    /// The journal itself answered a question of `sent_ms`.
    pub fn set_anchor(&mut self, journal: JournalClock, sent_ms: u64) {
        self.anchor = Some(Anchor { journal, sent_ms });
    }

    /// When, by this isolate's clock, the journal was at that time of its own; at the earliest. `None` if that cannot be
    /// told: another start of the object, or too long since this isolate last asked it.
    ///
    /// No two machines' clocks are compared: the journal's time is taken from the journal's, this isolate's from its own.
    pub fn told_at(&self, journal: JournalClock, now_ms: u64) -> Option<u64> {
        let anchor = self.anchor.filter(|anchor| {
            let age_ms = now_ms.checked_sub(anchor.sent_ms);
            anchor.journal.epoch == journal.epoch && age_ms.is_some_and(|age_ms| age_ms <= ANCHOR_MS_MAX)
        })?;
        let later_ms = journal.at_ms.checked_sub(anchor.journal.at_ms)?;
        anchor.sent_ms.checked_add(later_ms).filter(|at_ms| *at_ms <= now_ms)
    }

    /// What the journal's clock says now, about.
    pub fn journal_now(&self, now_ms: u64) -> Option<JournalClock> {
        let Anchor { journal, sent_ms } = self.anchor?;
        Some(JournalClock { at_ms: journal.at_ms.saturating_add(now_ms.checked_sub(sent_ms)?), ..journal })
    }

    fn reset(&mut self, delta: &JournalDelta) {
        self.version = self.version.wrapping_add(1);
        self.log_id = Some(delta.log_id.clone());
        (self.applied, self.learnt) = (0, 0);
        self.tables.iter_mut().for_each(Table::clear);
        self.confirmed_ms = None;
        self.steps.clear();
        for (as_of, key) in std::mem::take(&mut self.to_learn) {
            if as_of.log_id == delta.log_id {
                self.learn(&as_of, key);
            }
        }
    }

    fn take(&mut self, seq: Seq, mode: PurgeMode, all: bool, keys: impl Iterator<Item = KeyHash>) {
        if all {
            self.tables.iter_mut().for_each(|table| table.take_all(seq, mode));
        }
        for key in keys {
            self.tables.get_mut(KeyClass::of(key)).take(seq, mode, key);
        }
    }

    pub fn log_id(&self) -> Option<&LogId> {
        self.log_id.as_ref()
    }

    pub fn applied(&self) -> Seq {
        self.applied
    }

    /// Keys remembered in detail.
    pub fn keys_len(&self) -> usize {
        self.tables.iter().map(|table| table.len()).sum()
    }

    pub fn confirmed_ms(&self) -> Option<u64> {
        self.confirmed_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_schemas::journal::DeltaPurge;
    use kv_schemas::surrogate_key::hash;

    fn purge(seq: Seq, mode: PurgeMode, keys: &[u64]) -> DeltaPurge {
        DeltaPurge { seq, mode, all: keys.is_empty(), keys: keys.to_vec() }
    }

    fn delta(log: &str, head: Seq, purges: Vec<DeltaPurge>) -> JournalDelta {
        let log_id = LogId::new(log).unwrap();
        let clock = JournalClock { epoch: 1, at_ms: 0 };
        JournalDelta { log_id, clock, head, floors: PerClass::default(), until: head, purges }
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
    fn a_token_is_revoked_by_a_younger_hard_purge_of_one_of_its_keys_alone() {
        let view = view(vec![purge(1, Hard, &[1]), purge(2, Soft, &[2]), purge(3, Hard, &[3])]);
        let standing = |as_of: &str, keys: &[u64], is_current| view.standing(&as_of.parse().unwrap(), keys, is_current);
        for (as_of, keys, is_current, expected) in [
            ("log:0", &[1, 9], true, Standing::Revoked),
            ("log:0", &[9, 1], false, Standing::Revoked),
            ("log:1", &[1, 9], true, Standing::Clean),
            ("log:0", &[2, 9], true, Standing::Clean),
            ("log:3", &[1, 3], true, Standing::Clean),
            // Issued at a state this view has not heard of yet.
            ("log:7", &[1, 3], true, Standing::Clean),
            ("log:7", &[1, 3], false, Standing::Unknown),
            ("other:7", &[9, 8], true, Standing::Unknown),
            ("other:0", &[1, 1], true, Standing::Unknown),
        ] {
            assert_eq!(standing(as_of, keys, is_current), expected, "{as_of} {keys:?} {is_current}");
        }
    }

    #[test]
    fn where_purges_are_forgotten_nobody_can_say_that_a_token_stands() {
        let everything = view(vec![purge(5, Hard, &[])]);
        let before = everything.standing(&"log:4".parse().unwrap(), &[1, 2], true);
        let after = everything.standing(&"log:5".parse().unwrap(), &[1, 2], true);
        assert_eq!((before, after), (Standing::Unknown, Standing::Clean));
        let soft = view(vec![purge(5, Soft, &[])]);
        assert_eq!(soft.standing(&"log:4".parse().unwrap(), &[1, 2], true), Standing::Clean);
        let empty = JournalView::new(10);
        assert_eq!(empty.standing(&"log:4".parse().unwrap(), &[1, 2], true), Standing::Unknown);
    }

    #[test]
    fn what_a_write_says_of_its_log_purges_before_the_journal_does() {
        let mut view = view(vec![purge(3, Soft, &[9])]);
        view.learn(&"other:8".parse().unwrap(), 1);
        assert_eq!(judge(&view, "log:3", &[1]), Verdict::Clear, "another log's word is nothing");
        view.learn(&"log:8".parse().unwrap(), 1);
        assert_eq!(judge(&view, "log:7", &[1]), Verdict::Hard(Cause::Purged));
        assert_eq!((judge(&view, "log:8", &[1]), judge(&view, "log:3", &[2])), (Verdict::Clear, Verdict::Clear));
        assert_eq!(view.newest_heard_of(), Some("log:8".parse().unwrap()));
        assert_eq!(view.applied(), 3, "what is asked of the journal stays what it was");
    }

    #[test]
    fn what_a_write_says_of_a_log_to_come_is_learnt_with_that_log_alone() {
        let mut view = JournalView::new(10);
        for (state, key) in [("log:8", 1), ("other:9", 2)] {
            assert!(!view.learn(&state.parse().unwrap(), key), "{state}");
        }
        assert_eq!(synced(&mut view, &delta("log", 5, Vec::new()), 1000), Applied::Complete);
        assert_eq!(judge(&view, "log:5", &[1]), Verdict::Hard(Cause::Purged));
        assert_eq!(judge(&view, "log:5", &[2]), Verdict::Clear);
        assert_eq!(view.judge(None, &[1]), Verdict::Hard(Cause::Purged), "what was read before any log was known");
        assert_eq!(view.newest_heard_of(), Some("log:8".parse().unwrap()));
        // Once: of what comes after, the journal speaks.
        assert_eq!(synced(&mut view, &delta("third", 5, Vec::new()), 2000), Applied::Complete);
        assert_eq!(synced(&mut view, &delta("log", 5, Vec::new()), 3000), Applied::Complete);
        assert_eq!(judge(&view, "log:5", &[1]), Verdict::Clear);
    }

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
    fn floors_that_are_known_change_nothing_that_was_judged() {
        let mut view = view(vec![purge(5, Hard, &[1])]);
        let floors = PerClass::new(|_| Floor::hard(2));
        let told = JournalDelta { floors, ..delta("log", 5, Vec::new()) };
        let version = view.version();
        assert_eq!(synced(&mut view, &told, 2000), Applied::Complete);
        let raised = view.version();
        assert_ne!(version, raised, "what is judged by them");
        assert_eq!(synced(&mut view, &told, 3000), Applied::Complete);
        assert_eq!(view.version(), raised, "told again");
        let told = JournalDelta { purges: vec![purge(6, Soft, &[1])], head: 6, until: 6, ..told };
        assert_eq!(synced(&mut view, &told, 4000), Applied::Complete);
        assert_ne!(view.version(), raised);
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
        let floors = PerClass::new(|_| Floor::hard(3));
        let fresh = JournalDelta { floors, ..delta("new", 4, vec![purge(4, Soft, &[2])]) };
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
    fn an_older_answer_that_comes_late_is_not_a_journal_that_went_back() {
        let mut view = view(vec![purge(7, Soft, &[1])]);
        let (first, second) = (view.query("here"), view.query("here"));
        // Both left at once; what was answered later came sooner.
        assert_eq!(view.apply(&second, &delta("log", 9, vec![purge(9, Soft, &[2])]), 2000), Applied::Complete);
        assert_eq!(view.apply(&first, &delta("log", 8, vec![]), 2000), Applied::Ignored);
        assert_eq!(view.applied(), 9);
        assert_eq!(judge(&view, "log:8", &[1]), Verdict::Clear);
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
    fn each_class_of_keys_is_forgotten_by_itself() {
        let [page, viewer, session] = ["title:heat", "viewer:u1", "session:s1"].map(hash);
        let mut purges = vec![purge(1, Hard, &[viewer]), purge(2, Hard, &[session]), purge(3, Soft, &[page])];
        // More viewers than a quarter of 100.
        purges.extend((4..=103).map(|seq| purge(seq, Hard, &[hash(&format!("viewer:{seq}"))])));
        let mut view = JournalView::new(100);
        synced(&mut view, &delta("log", 103, purges), 1_000);
        assert!(view.keys_len() <= 2 + 25);
        assert_eq!(judge(&view, "log:2", &[page]), Verdict::Soft(Cause::Purged));
        assert_eq!(judge(&view, "log:3", &[page]), Verdict::Clear, "no viewer's purge concerns a page");
        assert_eq!(judge(&view, "log:3", &[page, viewer]), Verdict::Hard(Cause::Floor));
        let stands = |as_of: &str| view.standing(&as_of.parse().unwrap(), &[session], true);
        assert_eq!([stands("log:1"), stands("log:2")], [Standing::Revoked, Standing::Clean]);
        assert_eq!(view.purged_ms_ago(3, &[page], 1_010), None);

        let floors = PerClass { viewer: Floor::hard(200), session: Floor::hard(150), ..PerClass::default() };
        synced(&mut view, &JournalDelta { floors, ..delta("log", 200, vec![]) }, 2_000);
        assert_eq!(judge(&view, "log:3", &[page]), Verdict::Clear);
        assert_eq!(judge(&view, "log:199", &[page, hash("viewer:new")]), Verdict::Hard(Cause::Floor));
        assert_eq!(judge(&view, "log:200", &[page, hash("viewer:new")]), Verdict::Clear);
        let stands = |as_of: &str| view.standing(&as_of.parse().unwrap(), &[session], true);
        assert_eq!([stands("log:149"), stands("log:150")], [Standing::Unknown, Standing::Clean]);
        synced(&mut view, &delta("log", 201, vec![purge(201, Hard, &[])]), 3_000);
        assert_eq!(judge(&view, "log:200", &[hash("viewer:new")]), Verdict::Hard(Cause::Floor), "all is all");
    }

    #[test]
    fn a_purge_is_as_old_as_the_last_question_before_it() {
        let mut view = JournalView::new(100);
        synced(&mut view, &delta("log", 3, vec![purge(3, Soft, &[1])]), 1_000);
        assert_eq!(view.purged_ms_ago(2, &[1], 1_010), Some(1_010), "since the beginning of time");
        assert_eq!(view.purged_ms_ago(3, &[1], 1_010), None);
        synced(&mut view, &delta("log", 4, vec![purge(4, Soft, &[1])]), 2_000);
        assert_eq!(view.purged_ms_ago(3, &[1], 2_010), Some(1_010), "it may have come right after 1,000");
        assert_eq!(view.purged_ms_ago(2, &[1], 2_010), Some(u64::MAX), "an entry that missed two was stale before");
        synced(&mut view, &delta("log", 5, vec![purge(5, Soft, &[])]), 3_000);
        assert_eq!(view.purged_ms_ago(4, &[9], 3_010), Some(1_010));
        assert_eq!(view.purged_ms_ago(3, &[1], 3_010), Some(2_010), "the oldest it has not seen");
        for n in 0..200 {
            synced(&mut view, &delta("log", 6 + n, vec![purge(6 + n, Soft, &[2])]), 4_000 + n);
        }
        assert_eq!(view.purged_ms_ago(4, &[9], 4_200), Some(u64::MAX), "forgotten is old");
        assert_eq!(view.purged_ms_ago(204, &[2], 4_200), Some(2));
    }

    #[test]
    fn a_floor_is_as_old_as_the_oldest_purge_it_stands_for() {
        let mut view = JournalView::new(2);
        synced(&mut view, &delta("log", 3, vec![purge(3, Soft, &[9])]), 1_000);
        synced(&mut view, &delta("log", 4, vec![purge(4, Soft, &[1])]), 2_000);
        synced(&mut view, &delta("log", 5, vec![purge(5, Soft, &[2]), purge(5, Soft, &[3])]), 9_000);
        assert_eq!(judge(&view, "log:2", &[9]), Verdict::Soft(Cause::Floor), "forgotten");
        assert_eq!(view.purged_ms_ago(2, &[9], 9_010), Some(u64::MAX), "purge 4 is not the one it missed");
        assert_eq!(view.purged_ms_ago(3, &[1], 9_010), Some(8_010), "and here it is");
    }

    #[test]
    fn another_isolates_answer_is_dated_by_the_journals_own_clock() {
        let clock = |epoch, at_ms| JournalClock { epoch, at_ms };
        let mut view = JournalView::new(4);
        assert_eq!(view.told_at(clock(1, 500), 10_000), None);
        view.set_anchor(clock(1, 500), 10_000);
        assert_eq!(view.told_at(clock(1, 900), 10_450), Some(10_400));
        assert_eq!(view.told_at(clock(1, 900), 10_300), None, "a time to come");
        assert_eq!(view.told_at(clock(1, 400), 10_450), None, "before this isolate asked");
        assert_eq!(view.told_at(clock(2, 900), 10_450), None, "another start of the journal");
        assert_eq!(view.told_at(clock(1, 60_500), 70_000), Some(70_000));
        assert_eq!(view.told_at(clock(1, 60_500), 70_001), None, "clocks drift");
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
