//! Whether commits were lost that this process has seen: a failover to a replica that had not got them, a copy of the database
//! put back. Their numbers are given again, and what is kept of them anywhere looks newer than what has them now.
//!
//! The primary alone counts, since replicas lag; and a snapshot is held against what was seen before it was begun, since those
//! of a moment ago are read side by side with later ones.
use kv_schemas::{AsOf, LogId};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What was seen of the primary's log.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    youngest: Option<AsOf>,
    losses: u64,
    /// The log that was found to have lost something, until the primary has another.
    lacking: Option<LogId>,
}

impl Seen {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be asked before the primary is.
    pub fn before(&self) -> Before {
        let known = self.known();
        Before { youngest: known.youngest.clone(), losses: known.losses }
    }

    /// The primary is at `now`. Up to how many losses that tells of.
    pub fn saw(&self, before: &Before, now: &AsOf) -> u64 {
        let mut known = self.known();
        if known.lacking.as_ref().is_some_and(|log_id| *log_id != now.log_id) {
            known.lacking = None;
            tell(false);
        }
        if let Some(before) = before.youngest.as_ref().filter(|old| old.log_id == now.log_id && old.seq > now.seq) {
            // Whoever asked at the same time has found it as well.
            if known.youngest.as_ref().is_some_and(|old| old.log_id == now.log_id && old.seq > now.seq) {
                known.losses = known.losses.saturating_add(1);
                tracing::error!(
                    %before, %now,
                    "the database has lost commits: if no process of the role jobs says that the log has a new identity, give it one with `origin log renew`"
                );
                known.youngest = Some(now.clone());
            }
            known.lacking = Some(now.log_id.clone());
            tell(true);
            return known.losses;
        }
        if before.losses < known.losses {
            // It may be what is lost.
            return before.losses;
        }
        let is_older = known.youngest.as_ref().is_some_and(|old| old.log_id == now.log_id && old.seq >= now.seq);
        if !is_older {
            known.youngest = Some(now.clone());
        }
        before.losses
    }

    /// The log that something was found to be lost from, if it has no new identity yet.
    pub fn lacking(&self) -> Option<LogId> {
        self.known().lacking.clone()
    }
}

/// For whoever watches: until the log has a new identity, somebody may have to give it one.
fn tell(lacks: bool) {
    metrics::gauge!("origin_log_lacks_commits").set(f64::from(lacks));
}

/// What had been seen when the primary was asked.
#[derive(Debug)]
pub(super) struct Before {
    pub youngest: Option<AsOf>,
    pub losses: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_below_what_was_seen_before_it_was_asked_has_lost_something_and_none_else() {
        let seen = Seen::default();
        let at = |text: &str| text.parse::<AsOf>().unwrap();
        let log_id = |text: &str| Some(at(text).log_id);
        let youngest = || seen.before().youngest;
        assert_eq!(seen.saw(&seen.before(), &at("a:5")), 0);
        let before = seen.before();
        seen.saw(&before, &at("a:7"));
        // Begun before that, and looked at after it.
        assert_eq!(seen.saw(&before, &at("a:6")), 0);
        assert_eq!((youngest(), seen.lacking()), (Some(at("a:7")), None));
        let before = seen.before();
        for _ in 0..2 {
            assert_eq!(seen.saw(&before, &at("a:4")), 1, "two have found one loss");
        }
        assert_eq!((youngest(), seen.lacking()), (Some(at("a:4")), log_id("a:0")));
        assert_eq!(seen.saw(&seen.before(), &at("a:5")), 1, "numbers are used again");
        // What was begun before anybody had found it may be of what is lost.
        assert_eq!((seen.saw(&before, &at("a:7")), youngest()), (0, Some(at("a:5"))));
        assert_eq!(seen.saw(&seen.before(), &at("a:3")), 2);
        assert_eq!(seen.lacking(), log_id("a:0"));
        assert_eq!(seen.saw(&seen.before(), &at("b:3")), 2);
        assert_eq!(seen.lacking(), None, "a log of a new identity lacks nothing");
    }
}
