//! Writes on their way through the edge: what they change is purged even if nobody is left to say how they ended.
//!
//! Where the journal numbers the purges, no database holds a write and its purge in one transaction. So the journal is told of
//! a write before origin is, and afterwards how it ended. A write of which it was not told that by the time it is due counts
//! as done: its isolate may have ended, or origin may have done late what the edge waits for no longer.
//!
//! The journal's storage belongs to the caller, and so does whatever wakes it.
use kv_schemas::{Problem, PurgeMode, PurgeRequest};

/// Why there is a purge that nobody asked for.
const UNTOLD: &str = "a write through the edge, of which nobody told the end";
const UNREADABLE: &str =
    "a write through the edge, noted by another version of the journal in a form that this one cannot read";

/// How a write ended, as far as the edge knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteEnd {
    /// Origin has answered that it is done.
    Done,
    /// Nothing was changed: origin has refused it, or was not asked, or not to the end.
    Refused,
    /// No answer came. It may be done, and it may yet be done.
    Unknown,
}

impl WriteEnd {
    /// Whether what the write was to change is to be purged now.
    pub fn purges(self) -> bool {
        self != Self::Refused
    }

    /// Whether nothing more can come of it.
    pub fn is_last(self) -> bool {
        self != Self::Unknown
    }
}

/// Names a write: random, below 2^53. Whoever announces it chooses it, so that all about it may be said twice.
pub type WriteId = u64;

/// Writes that are purged in one go for being overdue.
pub const OVERDUE_MAX: usize = 200;

#[derive(Clone, Debug)]
struct Write {
    id: WriteId,
    due_ms: u64,
    purge: PurgeRequest,
}

/// Writes of which it is not known how they ended: those of the last seconds.
#[derive(Clone, Debug, Default)]
pub struct Announced {
    writes: Vec<Write>,
}

impl Announced {
    /// A write is under way, and will have ended by `due_ms`; said once more, it takes until then. `purge`: what it changes.
    pub fn begin(&mut self, id: WriteId, due_ms: u64, purge: PurgeRequest) {
        self.end(id);
        self.writes.push(Write { id, due_ms, purge: PurgeRequest { reason: Some(UNTOLD.into()), ..purge } });
    }

    /// A write of which storage has a note. Why this version cannot read it, if it cannot: a later one that was rolled back may have
    /// made it, or an earlier one that took more. Then it may have changed anything, and to refuse it would be to refuse for ever all
    /// that is asked of a journal that has it.
    pub fn recall(&mut self, id: WriteId, due_ms: u64, note: &[u8]) -> Option<Problem> {
        let fault = match PurgeRequest::read(note) {
            Ok(purge) => {
                self.begin(id, due_ms, purge);
                return None;
            }
            Err(fault) => fault,
        };
        let reason = Some(UNREADABLE.into());
        let purge = PurgeRequest { keys: Vec::new(), all: true, mode: PurgeMode::Hard, reason };
        self.end(id);
        self.writes.push(Write { id, due_ms, purge });
        Some(fault)
    }

    /// It has ended, and what it changed is purged.
    pub fn end(&mut self, id: WriteId) {
        self.writes.retain(|write| write.id != id);
    }

    /// When to look for what is overdue.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.writes.iter().map(|write| write.due_ms).min()
    }

    /// Writes that count as done now, and the purges of what they changed: so many as are done at once, so that after an outage others
    /// are heard in between. They stay until they are ended.
    pub fn overdue(&self, now_ms: u64) -> Vec<(WriteId, PurgeRequest)> {
        let overdue = self.writes.iter().filter(|write| write.due_ms <= now_ms);
        overdue.take(OVERDUE_MAX).map(|write| (write.id, write.purge.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_schemas::surrogate_key::url_key;

    fn purge(target: &str) -> PurgeRequest {
        PurgeRequest { keys: vec![url_key(target)], all: false, mode: PurgeMode::Hard, reason: None }
    }

    fn untold(target: &str) -> PurgeRequest {
        PurgeRequest { reason: Some(UNTOLD.into()), ..purge(target) }
    }

    #[test]
    fn a_write_is_overdue_until_it_is_ended_and_another_word_of_it_puts_that_off() {
        let mut announced = Announced::default();
        assert_eq!((announced.next_due_ms(), announced.overdue(u64::MAX)), (None, vec![]));
        announced.begin(1, 100, purge("/a"));
        announced.begin(2, 80, purge("/b"));
        assert_eq!((announced.next_due_ms(), announced.overdue(79)), (Some(80), vec![]));
        assert_eq!(announced.overdue(80), [(2, untold("/b"))]);
        assert_eq!(announced.overdue(100), [(1, untold("/a")), (2, untold("/b"))], "nothing is forgotten by looking");
        announced.begin(2, 180, purge("/b"));
        assert_eq!((announced.next_due_ms(), announced.overdue(100)), (Some(100), vec![(1, untold("/a"))]));
        announced.end(1);
        announced.end(1);
        assert_eq!((announced.next_due_ms(), announced.overdue(179)), (Some(180), vec![]));
    }

    #[test]
    fn of_very_many_overdue_writes_some_are_purged_at_a_time_and_the_rest_is_due_at_once() {
        let mut announced = Announced::default();
        let count = OVERDUE_MAX as u64 * 2 + 1;
        (0..count).for_each(|id| announced.begin(id, 100, purge("/a")));
        let mut purged = Vec::new();
        while announced.next_due_ms() == Some(100) {
            let overdue = announced.overdue(100);
            assert!((1..=OVERDUE_MAX).contains(&overdue.len()), "{}", overdue.len());
            for (id, _) in overdue {
                announced.end(id);
                purged.push(id);
            }
        }
        assert_eq!(purged, (0..count).collect::<Vec<_>>());
    }

    #[test]
    fn a_write_noted_in_a_form_this_version_does_not_know_counts_as_one_of_everything_until_it_is_ended() {
        let mut announced = Announced::default();
        assert_eq!(announced.recall(1, 100, br#"{"keys":["url:/a"],"mode":"hard","reason":"PUT"}"#), None);
        assert_eq!(announced.overdue(100), [(1, untold("/a"))]);
        let everything =
            PurgeRequest { keys: vec![], all: true, mode: PurgeMode::Hard, reason: Some(UNREADABLE.into()) };
        for note in [&br#"{"keys":["url:/a"],"prefixes":["/b"]}"#[..], br#"{"keys":["url:no-path"]}"#, b"", b"\xff"] {
            assert!(announced.recall(1, 100, note).is_some(), "{note:?}");
            assert_eq!(announced.overdue(99), []);
            assert_eq!(announced.overdue(100), [(1, everything.clone())], "{note:?}");
        }
        announced.end(1);
        assert_eq!((announced.next_due_ms(), announced.overdue(100)), (None, vec![]));
    }

    #[test]
    fn only_a_write_that_was_refused_purges_nothing_and_only_one_without_an_answer_may_come_to_more() {
        let table = [(WriteEnd::Done, true, true), (WriteEnd::Refused, false, true), (WriteEnd::Unknown, true, false)];
        for (end, purges, is_last) in table {
            assert_eq!((end.purges(), end.is_last()), (purges, is_last), "{end:?}");
        }
    }
}
