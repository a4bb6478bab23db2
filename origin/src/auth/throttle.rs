//! How often somebody may guess: a count of failures for each account and each address, a wait that doubles, and bounded
//! memory. Counts are this process's own, and gone with it.
//!
//! An attempt counts before its outcome is known, so that a thousand sent at once are not a thousand free guesses; a good
//! one, and one that came to no guess, takes its count and its wait back.
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Names kept in each of two generations; what is not seen for a whole generation is forgotten.
const NAMES_MAX: usize = 50_000;
/// Failures so long ago are forgotten.
pub const FORGET_MS: u64 = 3600 * 1000;

/// One policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// As `RateLimit-Policy` names it.
    pub name: &'static str,
    /// Failures without a wait.
    pub free: u32,
    /// The longest wait between two attempts, in seconds. It bounds what a stranger can do to somebody else's account.
    pub wait_s_max: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    failures: u32,
    last_ms: u64,
    /// No attempt before this.
    until_ms: u64,
    /// Whose moments the two are.
    attempt: u64,
}

/// An attempt under way, with what it was begun upon.
#[must_use]
#[derive(Debug)]
pub struct Ticket {
    attempt: u64,
    before: Count,
}

/// Wait so long, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(pub u64);

impl Throttle {
    pub const fn new(name: &'static str, free: u32, wait_s_max: u64) -> Self {
        Self { name, free, wait_s_max }
    }

    /// The wait after so many failures: 1, 2, 4… seconds.
    fn wait_ms(self, failures: u32) -> u64 {
        match failures.checked_sub(self.free) {
            None => 0,
            Some(over) => 1u64.checked_shl(over.min(32)).unwrap_or(u64::MAX).min(self.wait_s_max).saturating_mul(1000),
        }
    }
}

#[derive(Default)]
struct Generations {
    young: HashMap<String, Count>,
    old: HashMap<String, Count>,
    /// Attempts that were begun.
    attempts: u64,
}

impl Generations {
    fn count(&mut self, name: &str) -> &mut Count {
        if self.young.len() >= NAMES_MAX && !self.young.contains_key(name) {
            self.old = std::mem::take(&mut self.young);
        }
        let old = &mut self.old;
        self.young.entry(name.to_string()).or_insert_with_key(|name| old.remove(name).unwrap_or_default())
    }
}

/// The counts of all policies.
#[derive(Default)]
pub struct Throttles {
    names: Mutex<Generations>,
}

impl Throttles {
    /// With a number that no attempt has had.
    fn with<T>(&self, throttle: Throttle, name: &str, then: impl FnOnce(&mut Count, u64) -> T) -> T {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.attempts = names.attempts.wrapping_add(1);
        let attempt = names.attempts;
        then(names.count(&format!("{} {name}", throttle.name)), attempt)
    }

    /// Begins an attempt, or says how long to wait first. An attempt refused here does not lengthen the wait.
    pub fn begin(&self, throttle: Throttle, name: &str, now_ms: u64) -> Result<Ticket, Wait> {
        self.with(throttle, name, |count, attempt| {
            if now_ms.saturating_sub(count.last_ms) > FORGET_MS {
                *count = Count::default();
            }
            if count.until_ms > now_ms {
                return Err(Wait(count.until_ms.saturating_sub(now_ms).div_ceil(1000)));
            }
            let before = *count;
            let failures = before.failures.saturating_add(1);
            let until_ms = now_ms.saturating_add(throttle.wait_ms(failures));
            *count = Count { failures, last_ms: now_ms, until_ms, attempt };
            Ok(Ticket { attempt, before })
        })
    }

    /// The attempt was good: everything before it is forgotten, too.
    pub fn forget(&self, throttle: Throttle, name: &str) {
        self.with(throttle, name, |count, _| *count = Count::default());
    }

    /// The attempt was no failure: its own count goes, and its wait if no other has begun since; what failed before stays.
    pub fn take_back(&self, throttle: Throttle, name: &str, ticket: Ticket) {
        self.with(throttle, name, |count, _| {
            // By one: others that were under way when this one began may have been taken back.
            let failures = count.failures.saturating_sub(1);
            *count = Count { failures, ..if count.attempt == ticket.attempt { ticket.before } else { *count } };
        });
    }

    /// Attempts that are left without a wait.
    pub fn left(&self, throttle: Throttle, name: &str) -> u32 {
        self.with(throttle, name, |count, _| throttle.free.saturating_sub(count.failures))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let names = self.names.lock().unwrap();
        names.young.len() + names.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Throttle = Throttle::new("p", 3, 60);

    #[test]
    fn waits_double_up_to_a_bound_and_are_forgotten() {
        let throttles = Throttles::default();
        let mut now_ms = 1_000_000;
        let mut waits = Vec::new();
        for _ in 0..12 {
            while let Err(Wait(wait_s)) = throttles.begin(POLICY, "ada", now_ms) {
                waits.push(wait_s);
                // An attempt refused changes nothing.
                assert_eq!(throttles.begin(POLICY, "ada", now_ms).err(), Some(Wait(wait_s)));
                now_ms += wait_s * 1000;
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(throttles.begin(POLICY, "eve", now_ms).is_ok(), "others are not held up");
        now_ms += FORGET_MS + 61_000;
        assert!(throttles.begin(POLICY, "ada", now_ms).is_ok());
        assert_eq!(throttles.left(POLICY, "ada"), 2);
    }

    #[test]
    fn attempts_sent_at_once_all_count() {
        let throttles = Throttles::default();
        let let_through = (0..100).filter(|_| throttles.begin(POLICY, "ada", 5).is_ok()).count();
        assert_eq!(let_through, 3);
    }

    #[test]
    fn a_good_attempt_takes_its_count_back() {
        let throttles = Throttles::default();
        for _ in 0..50 {
            let _guess = throttles.begin(POLICY, "ada", 5).unwrap();
            throttles.forget(POLICY, "ada");
            let own = throttles.begin(POLICY, "192.0.2.1", 5).unwrap();
            throttles.take_back(POLICY, "192.0.2.1", own);
        }
        let _guess = throttles.begin(POLICY, "192.0.2.1", 5).unwrap();
        let own = throttles.begin(POLICY, "192.0.2.1", 5).unwrap();
        throttles.take_back(POLICY, "192.0.2.1", own);
        assert_eq!(
            throttles.left(POLICY, "192.0.2.1"),
            2,
            "one account of one's own does not wash off guesses at others'"
        );
    }

    /// So many wrong ones, each as soon as it may be. The moment of the next.
    fn guessed(throttles: &Throttles, count: usize) -> u64 {
        let mut now_ms = 1_000_000;
        for _ in 0..count {
            while let Err(Wait(wait_s)) = throttles.begin(POLICY, "192.0.2.1", now_ms) {
                now_ms += wait_s * 1000;
            }
        }
        now_ms + 60_000
    }

    #[test]
    fn past_what_is_free_a_good_attempt_leaves_no_wait_and_the_next_wrong_one_the_whole() {
        let throttles = Throttles::default();
        let now_ms = guessed(&throttles, 10);
        for _ in 0..3 {
            let own = throttles.begin(POLICY, "192.0.2.1", now_ms).unwrap();
            throttles.take_back(POLICY, "192.0.2.1", own);
        }
        let _guess = throttles.begin(POLICY, "192.0.2.1", now_ms).unwrap();
        assert_eq!(throttles.begin(POLICY, "192.0.2.1", now_ms).err(), Some(Wait(60)));
    }

    #[test]
    fn what_is_taken_back_late_leaves_the_wait_of_a_wrong_one_begun_since() {
        let throttles = Throttles::default();
        let now_ms = guessed(&throttles, 3);
        let slow = throttles.begin(POLICY, "192.0.2.1", now_ms).unwrap();
        let later_ms = now_ms + 2_000;
        let _guess = throttles.begin(POLICY, "192.0.2.1", later_ms).unwrap();
        throttles.take_back(POLICY, "192.0.2.1", slow);
        assert_eq!(throttles.begin(POLICY, "192.0.2.1", later_ms).err(), Some(Wait(4)));
        let _guess = throttles.begin(POLICY, "192.0.2.1", later_ms + 4_000).unwrap();
        assert_eq!(throttles.begin(POLICY, "192.0.2.1", later_ms + 4_000).err(), Some(Wait(4)), "one count less");
    }

    #[test]
    fn of_several_under_way_together_nothing_is_left_when_all_are_taken_back() {
        for order in [[0, 1], [1, 0]] {
            let throttles = Throttles::default();
            let mut both = [5, 6].map(|now_ms| throttles.begin(POLICY, "ada", now_ms).ok());
            for one in order {
                throttles.take_back(POLICY, "ada", both[one].take().unwrap());
            }
            assert_eq!(throttles.left(POLICY, "ada"), 3, "{order:?}");
        }
    }

    #[test]
    fn failures_are_forgotten_by_their_own_time_however_many_good_ones_come_since() {
        let throttles = Throttles::default();
        let mut now_ms = guessed(&throttles, 10);
        for _ in 0..7 {
            now_ms += FORGET_MS / 6;
            let own = throttles.begin(POLICY, "192.0.2.1", now_ms).unwrap();
            throttles.take_back(POLICY, "192.0.2.1", own);
        }
        assert_eq!(throttles.left(POLICY, "192.0.2.1"), 3);
    }

    #[test]
    fn memory_is_bounded_and_who_goes_on_guessing_is_not_forgotten() {
        let throttles = Throttles::default();
        for _ in 0..3 {
            let _guess = throttles.begin(POLICY, "ada", 5).unwrap();
        }
        for n in 0..NAMES_MAX * 3 {
            let _ = throttles.begin(POLICY, &n.to_string(), 5);
            if n % 10_000 == 0 {
                assert!(throttles.begin(POLICY, "ada", 5).is_err(), "at {n}");
            }
        }
        assert!(throttles.len() <= 2 * NAMES_MAX);
    }
}
