//! Which keys are being filled right now, and which proved uncacheable a moment ago.
//!
//! In a Worker a request must not await work another one started, so nothing is shared here but marks: whoever finds
//! one waits on its own timer and looks again. A mark outlives its owner by a bounded time only, since a request can
//! be cancelled at any await.
use std::collections::HashMap;

/// Marks of one isolate.
#[derive(Clone, Debug)]
pub struct Fills {
    filling: HashMap<String, Mark>,
    /// Keys whose requests go to origin at once, without waiting for each other.
    passing: HashMap<String, Mark>,
    tickets: u64,
    /// At so many fills the overdue ones are swept.
    sweep_at: usize,
}

impl Default for Fills {
    fn default() -> Self {
        Self { filling: HashMap::new(), passing: HashMap::new(), tickets: 0, sweep_at: SWEEP_AT }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    number: u64,
    from_ms: u64,
    until_ms: u64,
}

impl Mark {
    /// One that begins later than now was made before the clock went back: nobody is to wait until that time comes again.
    fn holds(&self, now_ms: u64) -> bool {
        (self.from_ms..self.until_ms).contains(&now_ms)
    }
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

/// The first sweep; each waits until there are twice as many fills as were left by the one before.
const SWEEP_AT: usize = 1_024;
/// So many keys are filled at once, and whoever wants another goes on alone.
const FILLING_MAX: usize = 16_384;
/// So many keys are known to be uncacheable. These marks last, their keys may be 8 KiB long, and strangers choose them.
const PASSING_MAX: usize = 1_024;

impl Fills {
    pub fn claim(&mut self, key: &str, now_ms: u64, hold_ms: u64) -> Claim {
        if self.is_filling(key, now_ms) {
            return Claim::Taken;
        }
        if self.is_passing(key, now_ms) {
            return Claim::Passing;
        }
        if self.filling.len() >= self.sweep_at {
            self.filling.retain(|_, mark| mark.holds(now_ms));
            self.sweep_at = self.filling.len().saturating_mul(2).clamp(SWEEP_AT, FILLING_MAX);
            if self.filling.len() >= FILLING_MAX {
                return Claim::Passing;
            }
        }
        self.tickets = self.tickets.wrapping_add(1);
        let ticket = Ticket { key: key.into(), number: self.tickets };
        let until_ms = now_ms.saturating_add(hold_ms);
        let mark = Mark { number: ticket.number, from_ms: now_ms, until_ms };
        self.filling.insert(ticket.key.clone(), mark);
        Claim::Granted(ticket)
    }

    fn holds(&self, ticket: &Ticket) -> bool {
        self.filling.get(&ticket.key).is_some_and(|mark| mark.number == ticket.number)
    }

    /// The fill ended, well or not.
    pub fn release(&mut self, ticket: &Ticket) {
        if self.holds(ticket) {
            self.filling.remove(&ticket.key);
        }
    }

    /// The fill ended with an answer that cannot be stored: for a while nobody waits for this key.
    pub fn pass(&mut self, ticket: &Ticket, now_ms: u64, pass_ms: u64) {
        if !self.holds(ticket) {
            return;
        }
        self.filling.remove(&ticket.key);
        if self.passing.len() >= PASSING_MAX {
            self.passing.retain(|_, mark| mark.holds(now_ms));
        }
        if self.passing.len() >= PASSING_MAX {
            // Forgotten, a key makes its requests wait for one of them to learn it again.
            self.passing.clear();
        }
        let until_ms = now_ms.saturating_add(pass_ms);
        self.passing.insert(ticket.key.clone(), Mark { number: ticket.number, from_ms: now_ms, until_ms });
    }

    /// An answer for the key was stored: from now on its requests have something to wait for.
    pub fn stored(&mut self, key: &str) {
        self.passing.remove(key);
    }

    pub fn is_filling(&self, key: &str, now_ms: u64) -> bool {
        self.filling.get(key).is_some_and(|mark| mark.holds(now_ms))
    }

    pub fn is_passing(&self, key: &str, now_ms: u64) -> bool {
        self.passing.get(key).is_some_and(|mark| mark.holds(now_ms))
    }

    /// Marks of both kinds.
    pub fn len(&self) -> usize {
        self.filling.len().saturating_add(self.passing.len())
    }

    pub fn is_empty(&self) -> bool {
        self.filling.is_empty() && self.passing.is_empty()
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
        for n in 0..FILLING_MAX {
            assert!(matches!(fills.claim(&n.to_string(), 0, 100), Claim::Granted(_)), "{n}");
        }
        assert_eq!(fills.claim("one more", 50, 100), Claim::Passing);
        assert_eq!(fills.len(), FILLING_MAX);
        assert!(matches!(fills.claim("one more", 100, 100), Claim::Granted(_)));
        assert_eq!(fills.len(), 1);
    }

    #[test]
    fn what_proved_uncacheable_takes_no_room_from_what_is_being_filled() {
        let mut fills = Fills::default();
        for n in 0..=FILLING_MAX {
            let Claim::Granted(ticket) = fills.claim(&n.to_string(), 0, 100) else { panic!("{n}") };
            fills.pass(&ticket, 0, 60_000);
            assert!(fills.is_passing(&n.to_string(), 50) && fills.len() <= PASSING_MAX, "{n}");
        }
    }

    #[test]
    fn an_uncacheable_key_makes_nobody_wait() {
        let mut fills = Fills::default();
        let Claim::Granted(ticket) = fills.claim("k", 0, 100) else { panic!("not granted") };
        fills.pass(&ticket, 0, 500);
        assert_eq!(fills.claim("k", 499, 100), Claim::Passing);
        assert!(matches!(fills.claim("k", 500, 100), Claim::Granted(_)));
    }

    #[test]
    fn no_mark_outlives_a_clock_that_is_set_back() {
        let mut fills = Fills::default();
        let Claim::Granted(ticket) = fills.claim("uncacheable", 1_000_000, 100) else { panic!("not granted") };
        fills.pass(&ticket, 1_000_000, 500);
        assert!(matches!(fills.claim("filling", 1_000_000, 100), Claim::Granted(_)));
        for key in ["uncacheable", "filling"] {
            assert!(matches!(fills.claim(key, 1_000, 100), Claim::Granted(_)), "{key}");
        }
    }

    #[test]
    fn an_answer_that_was_stored_is_waited_for_again() {
        let mut fills = Fills::default();
        let Claim::Granted(ticket) = fills.claim("k", 0, 100) else { panic!("not granted") };
        fills.pass(&ticket, 0, 500);
        fills.stored("k");
        assert!(matches!(fills.claim("k", 1, 100), Claim::Granted(_)));
    }
}
