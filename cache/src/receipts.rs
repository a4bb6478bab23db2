//! Who has which purge: the journal's account of what each location said it has applied. It costs no request: a location
//! says so whenever it asks for what is new.
//!
//! One isolate of a location speaks for all of it, since they share what they learn. What another isolate there may
//! still believe ends with the view's bound, so a purge counts as applied no earlier than one bound after it was
//! accepted.
use kv_schemas::receipt::{LocationReceipt, LocationState, Percentiles, PurgeState};
use kv_schemas::{LogId, Seq};
use std::collections::VecDeque;

/// Locations that are told apart. The platform has some 330.
pub const LOCATIONS_MAX: usize = 1_024;
/// Steps remembered of each location, for lags.
const STEPS_MAX: usize = 128;
/// A location that has said nothing for so many bounds is silent.
const SILENT_AFTER_BOUNDS: u64 = 3;

/// A location's name on disk is renewed at most this often.
const NOTED_MS: u64 = 3_600_000;

#[derive(Debug, Default)]
struct Location {
    name: String,
    applied: Seq,
    heard_ms: Option<u64>,
    noted_ms: Option<u64>,
    /// When it said how much, oldest first.
    steps: VecDeque<(Seq, u64)>,
}

impl Location {
    /// Whether it was heard from of late.
    fn is_live(&self, bound_ms: u64, now_ms: u64) -> bool {
        let silent_ms = bound_ms.saturating_mul(SILENT_AFTER_BOUNDS);
        self.heard_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) <= silent_ms)
    }
}

/// What the journal was told. Times are its own clock's.
#[derive(Debug, Default)]
pub struct Receipts {
    log_id: Option<LogId>,
    bound_ms: u64,
    /// In order of name. A few hundred: a sorted list is smaller than a map, and as good.
    locations: Vec<Location>,
}

impl Receipts {
    pub fn new(bound_ms: u64) -> Self {
        Self { bound_ms, ..Self::default() }
    }

    fn entry(&mut self, name: &str) -> Option<&mut Location> {
        let place = match self.locations.binary_search_by(|location| location.name.as_str().cmp(name)) {
            Ok(place) => place,
            Err(_) if self.locations.len() >= LOCATIONS_MAX => return None,
            Err(place) => {
                self.locations.insert(place, Location { name: name.into(), ..Location::default() });
                place
            }
        };
        self.locations.get_mut(place)
    }

    /// A location known from before the object started: silent until it speaks.
    pub fn remember(&mut self, location: &str) {
        let _ = self.entry(location);
    }

    /// Another log is held: of that nobody has anything yet.
    pub fn begin(&mut self, log_id: &LogId) {
        self.log_id = Some(log_id.clone());
        for location in &mut self.locations {
            location.applied = 0;
            location.steps.clear();
        }
    }

    /// A location asks and so says what it has of the log `asked`; the journal's own is `log_id`. Whether its name is to
    /// be noted on disk, for [`Self::remember`].
    pub fn heard(&mut self, location: &str, asked: Option<&LogId>, applied: Seq, log_id: &LogId, now_ms: u64) -> bool {
        if self.log_id.as_ref() != Some(log_id) {
            self.begin(log_id);
        }
        // A new isolate knows no log yet, and says nothing of the location's others; neither does one that is behind.
        let applied = if asked == Some(log_id) { applied } else { 0 };
        let Some(place) = self.entry(location) else { return false };
        place.heard_ms = Some(now_ms);
        if applied > place.applied {
            place.applied = applied;
            if place.steps.len() >= STEPS_MAX {
                place.steps.pop_front();
            }
            place.steps.push_back((applied, now_ms));
        }
        let is_due = place.noted_ms.is_none_or(|at_ms| now_ms.saturating_sub(at_ms) >= NOTED_MS);
        if is_due {
            place.noted_ms = Some(now_ms);
        }
        is_due
    }

    /// Where each location stands with a purge. `accepted_ms`: when it was accepted, if that is still known. It was no later than
    /// `settles_from_ms`: one bound after that no isolate of a location that has it can be without it.
    pub fn locations(
        &self,
        seq: Seq,
        accepted_ms: Option<u64>,
        settles_from_ms: u64,
        now_ms: u64,
    ) -> Vec<LocationReceipt> {
        let settled = now_ms.checked_sub(settles_from_ms).is_some_and(|ago_ms| ago_ms >= self.bound_ms);
        let receipt = |location: &Location| {
            let state = match location.is_live(self.bound_ms, now_ms) {
                false => LocationState::Silent,
                true if location.applied >= seq && settled => LocationState::Applied,
                true => LocationState::Pending,
            };
            let first = location.steps.partition_point(|(applied, _)| *applied < seq);
            // The oldest step remembered may stand for earlier ones.
            let is_exact = first > 0 || location.steps.len() < STEPS_MAX;
            let said_ms = location.steps.get(first).filter(|_| is_exact).map(|(_, at_ms)| *at_ms);
            let lag_ms = said_ms.zip(accepted_ms).map(|(said_ms, at_ms)| said_ms.saturating_sub(at_ms));
            LocationReceipt {
                location: location.name.clone(),
                state,
                applied_seq: location.applied,
                heard_ms_ago: location.heard_ms.map(|at_ms| now_ms.saturating_sub(at_ms)),
                lag_ms,
            }
        };
        self.locations.iter().map(receipt).collect()
    }

    /// The highest `seq` that every location heard from of late has; 0 if there is none.
    pub fn applied_everywhere(&self, now_ms: u64) -> Seq {
        let live = self.locations.iter().filter(|location| location.is_live(self.bound_ms, now_ms));
        live.map(|location| location.applied).min().unwrap_or(0)
    }
}

/// The state of a purge the journal has accepted.
pub fn state_of(locations: &[LocationReceipt]) -> PurgeState {
    let any = |state| locations.iter().any(|location| location.state == state);
    if any(LocationState::Applied) && !any(LocationState::Pending) { PurgeState::Applied } else { PurgeState::Accepted }
}

/// Percentiles of the lags, by nearest rank; `None` without any.
pub fn percentiles(locations: &[LocationReceipt]) -> Option<Percentiles> {
    let mut lags: Vec<u64> = locations.iter().filter_map(|location| location.lag_ms).collect();
    lags.sort_unstable();
    let rank = |percent: usize| {
        let place = lags.len().saturating_mul(percent).div_ceil(100).saturating_sub(1);
        lags.get(place).copied()
    };
    Some(Percentiles { p50: rank(50)?, p95: rank(95)?, p99: rank(99)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> LogId {
        LogId::new(name).unwrap()
    }

    fn states(receipts: &Receipts, seq: Seq, now_ms: u64) -> Vec<(String, LocationState, Option<u64>)> {
        let locations = receipts.locations(seq, Some(1_000), 1_000, now_ms);
        locations.into_iter().map(|one| (one.location, one.state, one.lag_ms)).collect()
    }

    #[test]
    fn a_purge_is_applied_when_every_live_location_said_so_and_a_bound_has_passed() {
        let mut receipts = Receipts::new(150);
        receipts.heard("a", Some(&log("l")), 4, &log("l"), 1_000);
        receipts.heard("b", Some(&log("l")), 4, &log("l"), 1_000);
        receipts.heard("a", Some(&log("l")), 5, &log("l"), 1_050);
        let (a, b) = ("a".to_string(), "b".to_string());
        use LocationState::{Applied, Pending};
        assert_eq!(states(&receipts, 5, 1_060), [(a.clone(), Pending, Some(50)), (b.clone(), Pending, None)]);
        assert_eq!(states(&receipts, 5, 1_150), [(a.clone(), Applied, Some(50)), (b.clone(), Pending, None)]);
        assert_eq!(state_of(&receipts.locations(5, Some(1_000), 1_000, 1_150)), PurgeState::Accepted);
        receipts.heard("b", Some(&log("l")), 6, &log("l"), 1_200);
        let locations = receipts.locations(5, Some(1_000), 1_000, 1_200);
        assert_eq!(state_of(&locations), PurgeState::Applied);
        assert_eq!(percentiles(&locations), Some(Percentiles { p50: 50, p95: 200, p99: 200 }));
        assert_eq!(receipts.applied_everywhere(1_200), 5);
    }

    #[test]
    fn a_purge_that_may_not_have_settled_is_pending_wherever_it_is() {
        let mut receipts = Receipts::new(100);
        receipts.heard("a", Some(&log("l")), 9, &log("l"), 1_000);
        use LocationState::{Applied, Pending};
        // When it was accepted may be unknown; when it was no later may be of another clock, and ahead.
        for (settles_from_ms, state) in [(900, Applied), (901, Pending), (1_000, Pending), (1_001, Pending)] {
            assert_eq!(receipts.locations(5, None, settles_from_ms, 1_000)[0].state, state, "{settles_from_ms}");
        }
    }

    #[test]
    fn of_another_log_nobody_has_anything() {
        let mut receipts = Receipts::new(100);
        receipts.heard("a", Some(&log("l")), 9, &log("l"), 1_000);
        assert_eq!(receipts.locations(5, Some(900), 900, 1_000)[0].state, LocationState::Applied);
        receipts.begin(&log("other"));
        let there = receipts.locations(5, Some(900), 900, 1_000);
        assert_eq!((there[0].state, there[0].applied_seq), (LocationState::Pending, 0));
        assert_eq!(receipts.applied_everywhere(1_000), 0);
    }

    #[test]
    fn a_location_not_heard_from_is_silent_and_not_applied() {
        let mut receipts = Receipts::new(100);
        receipts.remember("c");
        receipts.heard("a", Some(&log("l")), 9, &log("l"), 1_000);
        receipts.heard("b", Some(&log("l")), 2, &log("l"), 1_000);
        receipts.heard("a", Some(&log("l")), 9, &log("l"), 1_301);
        let locations = receipts.locations(5, Some(1_000), 1_000, 1_301);
        let states: Vec<_> = locations.iter().map(|one| one.state).collect();
        assert_eq!(states, [LocationState::Applied, LocationState::Silent, LocationState::Silent]);
        assert_eq!(state_of(&locations), PurgeState::Applied);
        assert_eq!(
            state_of(&receipts.locations(5, Some(1_000), 1_000, 9_000)),
            PurgeState::Accepted,
            "nobody is there"
        );
        assert_eq!(receipts.applied_everywhere(9_000), 0);
    }

    #[test]
    fn another_log_starts_the_account_anew_and_new_isolates_change_nothing() {
        let mut receipts = Receipts::new(100);
        receipts.heard("a", Some(&log("l")), 9, &log("l"), 1_000);
        receipts.heard("a", None, 0, &log("l"), 1_010);
        receipts.heard("a", Some(&log("old")), 70, &log("l"), 1_010);
        assert_eq!(receipts.applied_everywhere(1_010), 9);
        receipts.heard("a", Some(&log("new")), 2, &log("new"), 1_020);
        assert_eq!(receipts.applied_everywhere(1_020), 2);
    }

    #[test]
    fn a_name_is_noted_when_it_is_new_and_once_an_hour() {
        let mut receipts = Receipts::new(100);
        let mut heard = |now_ms| receipts.heard("a", None, 0, &log("l"), now_ms);
        assert_eq!([heard(1_000), heard(2_000), heard(3_601_000)], [true, false, true]);
    }

    #[test]
    fn the_account_is_bounded_and_forgotten_steps_give_no_lag() {
        let mut receipts = Receipts::new(100);
        for n in 0..2_000 {
            receipts.heard(&format!("l-{n}"), Some(&log("l")), 1, &log("l"), 1_000);
        }
        assert_eq!(receipts.locations(1, None, 0, 1_000).len(), LOCATIONS_MAX);
        let mut receipts = Receipts::new(100);
        for seq in 1..=1_000 {
            receipts.heard("a", Some(&log("l")), seq, &log("l"), 1_000 + seq);
        }
        assert_eq!(receipts.locations(1, Some(1_000), 1_000, 2_000)[0].lag_ms, None);
        assert_eq!(receipts.locations(990, Some(1_000), 1_000, 2_000)[0].lag_ms, Some(990));
    }
}
