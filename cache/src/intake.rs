//! What the purge journal does with a batch: strictly in order, idempotent by `seq`, and another log purges all. And how it
//! numbers purges itself, where origin has no log.
//!
//! The journal's storage belongs to the caller; this is the decision alone.
use kv_schemas::{LogId, PurgeBatch, SEQ_MAX, Seq};

/// What the journal holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalHead {
    pub log_id: LogId,
    /// Highest `seq` held.
    pub head: Seq,
    /// The mark of that purge; 0: it has none.
    pub mark: u64,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// Append the purges from this index on; they follow the head without a gap. At `purges.len()`: nothing is new.
    Append { from_index: usize },
    /// The batch begins after the next `seq` that is needed: take nothing, answer with what is needed.
    Gap,
    /// Another log (or the first), announced: forget all, hold `head` as the hard floor. The log held so far and those the
    /// batch says it replaces are retired; the challenge is spent.
    Adopt { head: Seq },
    /// A log that is not held, and no announcement that answers the challenge: take nothing, answer with the challenge.
    ///
    /// Everything this journal may have acknowledged of the log before it lost it was committed before the challenge was
    /// made. So an announcement of the log's end that carries the challenge lies after all of it, and nothing less is
    /// believed: not the beginning of the log from a dispatcher that thinks the journal is there, nor a late message.
    Unannounced,
    /// The batch continues another history of this log: its database was put back and has used numbers again. The log
    /// needs a new identity.
    Forked,
    /// The batch comes from a log that was replaced: refuse it, or a forgotten origin could purge the living one.
    Retired,
}

/// Numbers that a journal which numbers purges itself left out when it started: of those after `after` and before `first` its
/// storage knows nothing.
///
/// Storage that is put back has forgotten its youngest purges, and isolates and stored pages that are of those states would be
/// taken for later than the purges that come next. So each start numbers on from its clock, in milliseconds: as long as there is
/// less than a purge a millisecond, and the clock is not set back by more than the start took, no number is given twice. And who
/// has a state that was left out has heard of purges that were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub after: Seq,
    pub first: Seq,
}

impl LeftOut {
    /// Before the next purge, if `head` is the youngest there is. `noted`: the highest [`Self::first`] so far. `start_ms`: the time, if
    /// it is the first purge of a start or of a log.
    pub fn before_next(head: Seq, noted: Seq, start_ms: Option<u64>) -> Self {
        let first = start_ms.unwrap_or(0).min(SEQ_MAX).max(noted).max(head.saturating_add(1));
        Self { after: head, first }
    }

    /// Before a log of its own, whose head [`Self::first`] is: as everything up to a head, what was read before it counts as hard
    /// purged. That nothing is said of it makes no difference then: it may have been purged in the log before.
    pub fn before_log(now_ms: u64) -> Self {
        Self { after: 0, first: now_ms.clamp(1, SEQ_MAX) }
    }

    /// Whether there is nothing to note.
    pub fn is_empty(&self) -> bool {
        self.first <= self.after.saturating_add(1)
    }

    pub fn has(&self, seq: Seq) -> bool {
        self.after < seq && seq < self.first
    }
}

/// `challenge`: the one that stands, if any.
pub fn decide(held: Option<&JournalHead>, is_retired: bool, challenge: Option<u64>, batch: &PurgeBatch) -> Intake {
    let before_first = batch.first_seq.saturating_sub(1);
    let Some(held) = held.filter(|held| held.log_id == batch.log_id) else {
        let is_announced = batch.purges.is_empty() && challenge.is_some_and(|challenge| challenge == batch.challenge);
        return match (is_retired, is_announced) {
            (true, _) => Intake::Retired,
            (false, true) => Intake::Adopt { head: before_first },
            (false, false) => Intake::Unannounced,
        };
    };
    if before_first > held.head {
        return Intake::Gap;
    }
    let known = usize::try_from(held.head.saturating_sub(before_first)).unwrap_or(usize::MAX);
    // The batch's word on the youngest purge held, if it speaks of it.
    let mark = match known.checked_sub(1) {
        None => Some(batch.after_mark),
        Some(index) => batch.purges.get(index).map(|purge| purge.mark),
    };
    if mark.is_some_and(|mark| mark != held.mark && mark != 0 && held.mark != 0) {
        return Intake::Forked;
    }
    Intake::Append { from_index: known.min(batch.purges.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_schemas::{Purge, PurgeMode, SurrogateKey};

    fn batch(log: &str, first_seq: Seq, count: u64) -> PurgeBatch {
        let purges = (first_seq..first_seq + count)
            .map(|seq| Purge {
                seq,
                keys: vec![SurrogateKey::new("k").unwrap()],
                all: false,
                mode: PurgeMode::Soft,
                reason: None,
                actor: None,
                committed_at_ms: 0,
                mark: 1_000 + seq,
            })
            .collect();
        PurgeBatch {
            log_id: LogId::new(log).unwrap(),
            replaces: Vec::new(),
            first_seq,
            after_mark: 999 + first_seq,
            challenge: 0,
            purges,
        }
    }

    fn held(head: Seq) -> Option<JournalHead> {
        Some(JournalHead { log_id: LogId::new("log").unwrap(), head, mark: 1_000 + head })
    }

    #[test]
    fn batches_are_taken_in_order_once() {
        let table = [
            (batch("log", 6, 2), Intake::Append { from_index: 0 }),
            (batch("log", 4, 4), Intake::Append { from_index: 2 }),
            (batch("log", 1, 5), Intake::Append { from_index: 5 }),
            (batch("log", 1, 2), Intake::Append { from_index: 2 }),
            (batch("log", 6, 0), Intake::Append { from_index: 0 }),
            (batch("log", 7, 1), Intake::Gap),
            (batch("log", 7, 0), Intake::Gap),
        ];
        for (batch, expected) in table {
            assert_eq!(
                decide(held(5).as_ref(), false, None, &batch),
                expected,
                "{} {}",
                batch.first_seq,
                batch.purges.len()
            );
        }
    }

    #[test]
    fn a_log_of_its_own_begins_with_a_head_that_nobody_was_given_before() {
        for (now_ms, first) in [(1_000, 1_000), (0, 1), (u64::MAX, SEQ_MAX)] {
            let begin = LeftOut::before_log(now_ms);
            assert_eq!(begin.first, first, "{now_ms}");
            assert!(!begin.has(first), "who has come to the beginning has lost nothing");
            assert!(first == 1 || begin.has(first - 1));
            let next = LeftOut::before_next(first, begin.first, Some(now_ms));
            assert!(next.first > first || first == SEQ_MAX, "{next:?}");
        }
    }

    #[test]
    fn a_start_leaves_out_the_numbers_an_earlier_one_may_have_given() {
        const NOW: u64 = 1_800_000_000_000;
        for (head, noted, start_ms, first) in [
            (0, 0, Some(NOW), NOW),
            (NOW, NOW, Some(NOW + 60_000), NOW + 60_000),
            (NOW, NOW, None, NOW + 1),
            // A purge a millisecond and more, or a clock that was set back: at least what is there is not used again.
            (NOW, NOW, Some(NOW), NOW + 1),
            (NOW, NOW, Some(5), NOW + 1),
            // A log that was begun a moment ago, by a clock that has been set back since, or in a start that took purges before.
            (0, NOW, Some(NOW - 1), NOW),
            (0, NOW, None, NOW),
            (5, 0, Some(u64::MAX), SEQ_MAX),
            (SEQ_MAX, SEQ_MAX, Some(u64::MAX), SEQ_MAX + 1),
        ] {
            let left_out = LeftOut::before_next(head, noted, start_ms);
            assert_eq!(left_out, LeftOut { after: head, first }, "{head} {noted} {start_ms:?}");
            assert!(!left_out.has(head) && !left_out.has(first));
            assert_eq!(left_out.has(head + 1), !left_out.is_empty(), "{head} {noted} {start_ms:?}");
        }
    }

    #[test]
    fn a_history_that_used_the_numbers_again_is_noticed() {
        let other = JournalHead { mark: 7, ..held(5).unwrap() };
        for (batch, expected) in [
            (batch("log", 6, 1), Intake::Forked),
            (batch("log", 6, 0), Intake::Forked),
            (batch("log", 4, 2), Intake::Forked),
            (batch("log", 4, 4), Intake::Forked),
            // It says nothing of purge 5; the next one will.
            (batch("log", 1, 2), Intake::Append { from_index: 2 }),
            (batch("log", 7, 1), Intake::Gap),
        ] {
            assert_eq!(
                decide(Some(&other), false, None, &batch),
                expected,
                "{} {}",
                batch.first_seq,
                batch.purges.len()
            );
        }
        let unmarked = JournalHead { mark: 0, ..other };
        assert_eq!(decide(Some(&unmarked), false, None, &batch("log", 6, 1)), Intake::Append { from_index: 0 });
    }

    #[test]
    fn the_first_and_every_new_log_is_adopted_at_its_announced_end_alone() {
        let announced = |log, challenge| PurgeBatch { challenge, ..batch(log, 500, 0) };
        assert_eq!(decide(None, false, Some(7), &announced("log", 7)), Intake::Adopt { head: 499 });
        assert_eq!(decide(held(5).as_ref(), false, Some(7), &announced("new", 7)), Intake::Adopt { head: 499 });
        assert_eq!(decide(held(5).as_ref(), true, Some(7), &announced("old", 7)), Intake::Retired);
        for (what, challenge, batch) in [
            ("no challenge stands", None, announced("log", 7)),
            ("no challenge stands, none is answered", None, announced("log", 0)),
            ("another's answer", Some(7), announced("log", 8)),
            ("no answer", Some(7), announced("log", 0)),
            ("purges, from wherever their sender thought", Some(7), PurgeBatch { challenge: 7, ..batch("log", 1, 2) }),
        ] {
            assert_eq!(decide(None, false, challenge, &batch), Intake::Unannounced, "{what}");
        }
    }
}
