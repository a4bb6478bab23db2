//! Which keys are being filled right now, and which proved uncacheable a moment ago.
//!
//! In a Worker a request must not await work another one started, so nothing is shared here but marks: whoever finds
//! one waits on its own timer and looks again. A mark outlives its owner by a bounded time only, since a request can
//! be cancelled at any await.
use std::collections::HashMap;

/// Marks of one isolate.
#[derive(Clone, Debug)]
pub struct Fills {
    marks: HashMap<String, Mark>,
    tickets: u64,
    /// At so many marks the ended ones are swept.
    sweep_at: usize,
}

impl Default for Fills {
    fn default() -> Self {
        Self { marks: HashMap::new(), tickets: 0, sweep_at: SWEEP_AT }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Filling {
        number: u64,
        until_ms: u64,
    },
    /// Requests for this key go to origin at once, without waiting for each other.
    Passing {
        until_ms: u64,
    },
}

/// Proof of having made a mark; only its holder clears it. It knows the key it stands under: what a request is looking for
/// may get another one on the way, when the URL turns out to have variants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    key: String,
    number: u64,
}

/// What a request that wants to fill finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It fills; the others wait.
    Granted(Ticket),
    /// Another request fills.
    Taken,
    /// The key proved uncacheable: go on alone.
    Passing,
}

/// The first sweep; each waits until there are twice as many marks as were left by the one before.
const SWEEP_AT: usize = 1_024;
/// So many keys are filled at once, and whoever wants another goes on alone.
const MARKS_MAX: usize = 16_384;

impl Fills {
    pub fn claim(&mut self, key: &str, now_ms: u64, hold_ms: u64) -> Claim {
        match self.marks.get(key) {
            Some(Mark::Filling { until_ms, .. }) if now_ms < *until_ms => return Claim::Taken,
            Some(Mark::Passing { until_ms }) if now_ms < *until_ms => return Claim::Passing,
            _ => {}
        }
        if self.marks.len() >= self.sweep_at {
            self.marks.retain(|_, mark| match mark {
                Mark::Filling { until_ms, .. } | Mark::Passing { until_ms } => now_ms < *until_ms,
            });
            self.sweep_at = self.marks.len().saturating_mul(2).clamp(SWEEP_AT, MARKS_MAX);
            if self.marks.len() >= MARKS_MAX {
                return Claim::Passing;
            }
        }
        self.tickets = self.tickets.wrapping_add(1);
        let ticket = Ticket { key: key.into(), number: self.tickets };
        let mark = Mark::Filling { number: ticket.number, until_ms: now_ms.saturating_add(hold_ms) };
        self.marks.insert(ticket.key.clone(), mark);
        Claim::Granted(ticket)
    }

    fn holds(&self, ticket: &Ticket) -> bool {
        matches!(self.marks.get(&ticket.key), Some(Mark::Filling { number, .. }) if *number == ticket.number)
    }

    /// The fill ended, well or not.
    pub fn release(&mut self, ticket: &Ticket) {
        if self.holds(ticket) {
            self.marks.remove(&ticket.key);
        }
    }

    /// The fill ended with an answer that cannot be stored: for a while nobody waits for this key.
    pub fn pass(&mut self, ticket: &Ticket, until_ms: u64) {
        if self.holds(ticket) {
            self.marks.insert(ticket.key.clone(), Mark::Passing { until_ms });
        }
    }

    pub fn is_filling(&self, key: &str, now_ms: u64) -> bool {
        matches!(self.marks.get(key), Some(Mark::Filling { until_ms, .. }) if now_ms < *until_ms)
    }

    pub fn len(&self) -> usize {
        self.marks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fills_the_others_wait_until_it_ends_or_is_overdue() {
        let mut fills = Fills::default();
        let Claim::Granted(first) = fills.claim("k", 0, 100) else { panic!("not granted") };
        assert_eq!(fills.claim("k", 50, 100), Claim::Taken);
        let Claim::Granted(second) = fills.claim("k", 100, 100) else { panic!("overdue, not granted") };
        fills.release(&first);
        assert!(fills.is_filling("k", 150), "a mark is cleared by its holder only");
        fills.release(&second);
        assert!(fills.is_empty());
    }

    #[test]
    fn marks_are_bounded_and_swept_when_they_end() {
        let mut fills = Fills::default();
        for n in 0..MARKS_MAX {
            assert!(matches!(fills.claim(&n.to_string(), 0, 100), Claim::Granted(_)), "{n}");
        }
        assert_eq!(fills.claim("one more", 50, 100), Claim::Passing);
        assert_eq!(fills.len(), MARKS_MAX);
        assert!(matches!(fills.claim("one more", 100, 100), Claim::Granted(_)));
        assert_eq!(fills.len(), 1);
    }

    #[test]
    fn an_uncacheable_key_makes_nobody_wait() {
        let mut fills = Fills::default();
        let Claim::Granted(ticket) = fills.claim("k", 0, 100) else { panic!("not granted") };
        fills.pass(&ticket, 500);
        assert_eq!(fills.claim("k", 499, 100), Claim::Passing);
        assert!(matches!(fills.claim("k", 500, 100), Claim::Granted(_)));
    }
}
