//! Who has which purge: the journal's account of what each location said it has applied. It costs no request: a location
//! says so whenever it asks for what is new.
//!
//! One isolate of a location speaks for all of it, since they share what they learn. What another isolate there may
//! still believe ends with the view's bound, so a purge counts as applied no earlier than one bound after it was
//! accepted.
//!
//! What has once been said to be applied stays so: whoever comes back, or comes for the first time, knows nothing from before
//! that he may rely on. Of purges a later one may take the place, of a URL that is written all the time each second, so when each
//! was accepted is remembered here and not in the journal's rows.
use crate::intake::JournalHead;
use kv_schemas::journal::JournalQuery;
use kv_schemas::receipt::{EdgeReceipt, JournalSummary, LocationReceipt, LocationState, Percentiles, PurgeState};
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

/// Clocks say whole milliseconds: the journal may take for a bound what is up to one less, and a view outlast its own by as much.
const ROUNDING_MS: u64 = 1;

/// Purges of which it is remembered when they were accepted. Of more, every other one is forgotten: it counts as accepted when the
/// next was.
const RECENT_MAX: usize = 4_096;

/// When a purge was accepted, by this object's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Accepted {
    seq: Seq,
    at_ms: u64,
}

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
    /// What this object held when it began to hold the log, and when that was. It was accepted no later, and the times of its
    /// rows are another machine's: nobody knows how far that clock is from this one.
    held_to: Seq,
    held_from_ms: u64,
    bound_ms: u64,
    /// Oldest first: those that may not have settled yet, and the youngest that has.
    recent: VecDeque<Accepted>,
    /// Up to here purges were said to be applied.
    said: Seq,
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

    /// The object holds a log from now on: it has started, or taken up another one. Nobody has said yet what he has of it.
    pub fn begin(&mut self, held: &JournalHead, now_ms: u64) {
        self.log_id = Some(held.log_id.clone());
        self.held_to = held.head;
        self.held_from_ms = now_ms;
        self.recent.clear();
        self.said = 0;
        for location in &mut self.locations {
            location.applied = 0;
            location.steps.clear();
        }
    }

    /// A location asks and so says what it has. Whether its name is to be noted on disk, for [`Self::remember`].
    pub fn hear(&mut self, query: &JournalQuery, held: &JournalHead, now_ms: u64) -> bool {
        // An isolate that asks about a single purge belongs to no account.
        if query.location.is_empty() {
            return false;
        }
        if self.log_id.as_ref() != Some(&held.log_id) {
            self.begin(held, now_ms);
        }
        // A new isolate knows no log yet, and says nothing of the location's others; neither does one that is behind.
        let applied = if query.log_id.as_ref() == Some(&held.log_id) { query.since } else { 0 };
        let Some(place) = self.entry(&query.location) else { return false };
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

    /// A purge is accepted; they come in order.
    pub fn accept(&mut self, seq: Seq, now_ms: u64) {
        let before_ms = self.settled_before_ms(now_ms);
        while self.recent.get(1).is_some_and(|next| next.at_ms < before_ms) {
            self.recent.pop_front();
        }
        if self.recent.len() >= RECENT_MAX {
            let mut is_kept = false;
            self.recent.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        self.recent.push_back(Accepted { seq, at_ms: now_ms });
    }

    /// Up to where purges were accepted so long ago that no isolate can be without them.
    fn settled(&self, now_ms: u64) -> Option<Seq> {
        let before_ms = self.settled_before_ms(now_ms);
        let held = Some(self.held_to).filter(|_| self.held_from_ms < before_ms);
        let recent = self.recent.iter().rev().find(|accepted| accepted.at_ms < before_ms);
        recent.map(|accepted| accepted.seq).max(held)
    }

    /// What was said to be applied has settled, though the clock may have been set back since.
    fn is_settled(&self, seq: Seq, now_ms: u64) -> bool {
        (1..=self.said).contains(&seq) || Some(seq) <= self.settled(now_ms)
    }

    /// How far a purge has come. `noted_ms`: when it was accepted, by the clock of the object that did, if its row is still there.
    pub fn receipt(&mut self, seq: Seq, held: JournalHead, noted_ms: Option<u64>, now_ms: u64) -> EdgeReceipt {
        // No two clocks are compared.
        let here = self.recent.iter().rev().find(|accepted| accepted.seq == seq).map(|accepted| accepted.at_ms);
        let lag_from_ms = here.or(noted_ms.filter(|_| seq > self.held_to));
        let is_accepted = seq <= held.head;
        let is_settled = is_accepted && self.is_settled(seq, now_ms);
        let locations = self.locations(seq, lag_from_ms, is_settled, now_ms);
        let state = if is_accepted { state_of(&locations) } else { PurgeState::Pending };
        if state == PurgeState::Applied {
            self.said = self.said.max(seq);
        }
        let laggards = locations.iter().filter(|one| one.state == LocationState::Pending);
        let laggards = laggards.map(|one| one.location.clone()).collect();
        let (accepted_at_ms, lag_ms) = (noted_ms.or(here), percentiles(&locations));
        let JournalHead { log_id, head, mark } = held;
        EdgeReceipt { log_id, head, mark, seq, state, accepted_at_ms, locations, lag_ms, laggards }
    }

    /// Where the journal and the locations stand.
    pub fn summary(&mut self, held: JournalHead, now_ms: u64) -> JournalSummary {
        let settled = self.settled(now_ms);
        self.said = self.said.max(self.applied_everywhere(now_ms).min(settled.unwrap_or(0)));
        let locations = self.locations(held.head, None, self.is_settled(held.head, now_ms), now_ms);
        let JournalHead { log_id, head, mark } = held;
        JournalSummary { log_id, head, mark, applied_seq: self.said, locations }
    }

    /// What was accepted before that, by this object's clock, no isolate can be without any more: a view is good up to the very
    /// end of its bound.
    fn settled_before_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.bound_ms.saturating_add(ROUNDING_MS))
    }

    /// Where each location stands with a purge. `lag_from_ms`: when it was accepted, if that is known by this object's clock.
    fn locations(&self, seq: Seq, lag_from_ms: Option<u64>, is_settled: bool, now_ms: u64) -> Vec<LocationReceipt> {
        let receipt = |location: &Location| {
            // What all were said to have nobody is waited for any more.
            let waits = location.is_live(self.bound_ms, now_ms) && seq.max(1) > self.said;
            let state = match location.applied >= seq && is_settled {
                true => LocationState::Applied,
                false if waits => LocationState::Pending,
                false => LocationState::Silent,
            };
            let first = location.steps.partition_point(|(applied, _)| *applied < seq);
            // The oldest step remembered may stand for earlier ones.
            let is_exact = first > 0 || location.steps.len() < STEPS_MAX;
            let said_ms = location.steps.get(first).filter(|_| is_exact).map(|(_, at_ms)| *at_ms);
            let lag_ms = said_ms.zip(lag_from_ms).map(|(said_ms, at_ms)| said_ms.saturating_sub(at_ms));
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

    /// The highest `seq` that every location heard from of late has; or any, if none was.
    fn applied_everywhere(&self, now_ms: u64) -> Seq {
        let live = self.locations.iter().filter(|location| location.is_live(self.bound_ms, now_ms));
        let of_all = || self.locations.iter().map(|location| location.applied).max();
        live.map(|location| location.applied).min().or_else(of_all).unwrap_or(0)
    }
}

/// The state of a purge the journal has accepted.
fn state_of(locations: &[LocationReceipt]) -> PurgeState {
    let any = |state| locations.iter().any(|location| location.state == state);
    if any(LocationState::Applied) && !any(LocationState::Pending) { PurgeState::Applied } else { PurgeState::Accepted }
}

/// Percentiles of the lags, by nearest rank; `None` without any.
fn percentiles(locations: &[LocationReceipt]) -> Option<Percentiles> {
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
    use crate::view::{JournalView, Knowledge};
    use LocationState::{Applied, Pending, Silent};
    use kv_schemas::PerClass;
    use kv_schemas::journal::{JournalClock, JournalDelta};

    fn log(name: &str) -> LogId {
        LogId::new(name).unwrap()
    }

    fn held(name: &str, head: Seq) -> JournalHead {
        JournalHead { log_id: log(name), head, mark: 0 }
    }

    /// Of a journal that has held an empty log `l` for long.
    fn receipts(bound_ms: u64) -> Receipts {
        let mut receipts = Receipts::new(bound_ms);
        receipts.begin(&held("l", 0), 0);
        receipts
    }

    /// A location says what it has of the log `l`.
    fn say(receipts: &mut Receipts, location: &str, since: Seq, now_ms: u64) -> bool {
        let query = JournalQuery { log_id: Some(log("l")), since, location: location.into() };
        receipts.hear(&query, &held("l", 9_999), now_ms)
    }

    fn receipt(receipts: &mut Receipts, seq: Seq, now_ms: u64) -> EdgeReceipt {
        receipts.receipt(seq, held("l", 9_999), None, now_ms)
    }

    fn states(receipt: &EdgeReceipt) -> Vec<LocationState> {
        receipt.locations.iter().map(|one| one.state).collect()
    }

    fn applied_seq(receipts: &mut Receipts, now_ms: u64) -> Seq {
        applied_seq_of(receipts, 9, now_ms)
    }

    fn applied_seq_of(receipts: &mut Receipts, head: Seq, now_ms: u64) -> Seq {
        receipts.summary(held("l", head), now_ms).applied_seq
    }

    #[test]
    fn a_purge_is_applied_when_every_live_location_said_so_and_a_bound_has_passed() {
        let mut receipts = receipts(150);
        say(&mut receipts, "a", 4, 1_000);
        say(&mut receipts, "b", 4, 1_000);
        receipts.accept(5, 1_000);
        say(&mut receipts, "a", 5, 1_050);
        let there = receipt(&mut receipts, 5, 1_060);
        assert_eq!((states(&there), there.state), (vec![Pending, Pending], PurgeState::Accepted));
        assert_eq!(there.laggards, ["a", "b"]);
        let there = receipt(&mut receipts, 5, 1_160);
        assert_eq!((states(&there), there.state), (vec![Applied, Pending], PurgeState::Accepted));
        let lags: Vec<_> = there.locations.iter().map(|one| one.lag_ms).collect();
        assert_eq!((lags, there.laggards), (vec![Some(50), None], vec!["b".to_string()]));
        say(&mut receipts, "b", 6, 1_200);
        let there = receipt(&mut receipts, 5, 1_200);
        assert_eq!((there.state, there.accepted_at_ms), (PurgeState::Applied, Some(1_000)));
        assert_eq!(there.lag_ms, Some(Percentiles { p50: 50, p95: 200, p99: 200 }));
        assert_eq!(applied_seq(&mut receipts, 1_200), 5);
        let there = receipts.receipt(6, held("l", 5), None, 1_200);
        assert_eq!((states(&there), there.state), (vec![Pending; 2], PurgeState::Pending), "whatever they had before");
    }

    #[test]
    fn a_purge_that_may_not_have_settled_is_pending_wherever_it_is() {
        // The last is of a clock that was set back since.
        for (at_ms, expected) in [(898, Applied), (899, Pending), (1_000, Pending), (1_001, Pending)] {
            let mut receipts = receipts(100);
            receipts.accept(7, at_ms);
            say(&mut receipts, "a", 9, 1_000);
            // Of 5 it is not known but that it came before.
            let states = [5, 7].map(|seq| states(&receipt(&mut receipts, seq, 1_000))[0]);
            assert_eq!(states, [expected; 2], "{at_ms}");
        }
    }

    #[test]
    fn who_says_the_same_again_has_it_since_the_first_time() {
        let mut receipts = receipts(100);
        receipts.accept(5, 990);
        for again in 0..=STEPS_MAX as u64 {
            say(&mut receipts, "a", 5, 1_000 + again);
        }
        assert_eq!(receipt(&mut receipts, 5, 5_000).locations[0].lag_ms, Some(10));
    }

    #[test]
    fn what_settles_in_this_very_millisecond_takes_nothing_from_what_has_settled() {
        let mut receipts = receipts(100);
        receipts.accept(1, 10);
        receipts.accept(2, 1_000);
        let now_ms = 1_000 + 100 + ROUNDING_MS;
        say(&mut receipts, "a", 9, now_ms);
        receipts.accept(3, now_ms);
        assert_eq!([1, 2].map(|seq| states(&receipt(&mut receipts, seq, now_ms))[0]), [Applied, Pending]);
    }

    #[test]
    fn of_more_purges_than_are_remembered_some_settle_in_their_time() {
        let mut receipts = receipts(100_000);
        let count = RECENT_MAX as u64 + 1;
        (1..=count).for_each(|seq| receipts.accept(seq, 200_000 + seq));
        let half_ms = 200_000 + count / 2;
        let now_ms = half_ms + 100_000 + ROUNDING_MS + 2;
        say(&mut receipts, "a", count, now_ms);
        // A neighbour of the one in the middle is remembered, at the least.
        let settled = applied_seq_of(&mut receipts, count, now_ms);
        assert!((count / 2 - 2..=count / 2 + 1).contains(&settled), "{settled} of {count}");
    }

    #[test]
    fn of_a_url_written_all_the_time_each_purge_settles_in_its_time() {
        let mut receipts = receipts(100);
        for seq in 1..=100 {
            let now_ms = 1_000 + 20 * seq;
            receipts.accept(seq, now_ms);
            say(&mut receipts, "a", seq, now_ms + 5);
            let applied = applied_seq(&mut receipts, now_ms + 5);
            assert!(seq < 7 || applied >= seq - 5, "{applied} of {seq}");
            assert!(receipts.recent.len() < 9, "{}", receipts.recent.len());
        }
        let there = receipt(&mut receipts, 99, 3_100);
        assert_eq!((there.accepted_at_ms, there.lag_ms.map(|lag| lag.p50)), (Some(2_980), Some(5)));
    }

    #[test]
    fn of_more_purges_than_are_remembered_none_settles_too_early_and_none_never() {
        let mut receipts = receipts(100);
        for seq in 1..=100_000 {
            receipts.accept(seq, 1_000 + seq / 1_000);
        }
        assert!(receipts.recent.len() <= RECENT_MAX);
        for now_ms in 1_000_u64..1_300 {
            // Accepted in the millisecond before the last that counts.
            let most = (now_ms.saturating_sub(1_101)) * 1_000;
            assert!(receipts.settled(now_ms) < Some(most.max(1)), "{now_ms}: {:?}", receipts.settled(now_ms));
        }
        assert!(receipts.settled(1_202) >= Some(99_000));
    }

    /// The clock of the machine on which the object was before may be behind or ahead, for as long as it likes.
    #[test]
    fn what_was_held_at_the_start_settles_from_the_start() {
        for noted_ms in [1, 50_000] {
            let mut receipts = Receipts::new(100);
            receipts.begin(&held("l", 9), 1_000);
            receipts.accept(10, 1_010);
            receipts.accept(11, 1_030);
            say(&mut receipts, "a", 11, 1_040);
            let there = receipts.receipt(9, held("l", 11), Some(noted_ms), 1_050);
            assert_eq!((there.accepted_at_ms, there.locations[0].lag_ms), (Some(noted_ms), None), "no two clocks");
            assert_eq!(receipts.receipt(10, held("l", 11), Some(1_010), 1_050).locations[0].lag_ms, Some(30));
            let mut state = |seq, now_ms| states(&receipts.receipt(seq, held("l", 11), Some(noted_ms), now_ms))[0];
            assert_eq!([1_101, 1_102].map(|now_ms| state(5, now_ms)), [Pending, Applied], "{noted_ms}");
            assert_eq!([1_111, 1_112].map(|now_ms| state(10, now_ms)), [Pending, Applied], "{noted_ms}");
        }
        let mut receipts = Receipts::new(100);
        receipts.begin(&held("l", 9), 1_000);
        receipts.accept(10, 1_010);
        receipts.accept(11, 1_030);
        say(&mut receipts, "a", 11, 1_040);
        let applied = [1_101, 1_102, 1_112, 1_132].map(|now_ms| applied_seq(&mut receipts, now_ms));
        assert_eq!(applied, [0, 9, 10, 11]);
    }

    #[test]
    fn what_was_applied_stays_so() {
        let mut receipts = receipts(100);
        receipts.accept(5, 1_000);
        say(&mut receipts, "a", 5, 1_050);
        assert_eq!(receipt(&mut receipts, 5, 1_102).state, PurgeState::Applied);
        // Nobody is there any more; then a location comes that is new, and one that was away.
        let there = receipt(&mut receipts, 5, 90_000);
        assert_eq!((states(&there), there.state), (vec![Applied], PurgeState::Applied));
        say(&mut receipts, "b", 0, 90_000);
        let there = receipt(&mut receipts, 5, 90_010);
        assert_eq!(
            (states(&there), there.state),
            (vec![Applied, Silent], PurgeState::Applied),
            "it has said nothing of it"
        );
        assert!(there.laggards.is_empty());
        assert_eq!(applied_seq(&mut receipts, 90_010), 5);
        assert_eq!(receipt(&mut receipts, 5, 10).state, PurgeState::Applied, "by a clock that was set back");
        receipts.accept(6, 90_020);
        assert_eq!(receipt(&mut receipts, 6, 90_200).laggards, ["a", "b"].map(String::from)[1..].to_vec());
    }

    #[test]
    fn no_purge_is_applied_while_a_view_from_before_it_may_be_relied_on() {
        let mut receipts = receipts(150);
        let mut view = JournalView::new(9);
        let (query, clock) = (view.query("a"), JournalClock { epoch: 1, at_ms: 1_000 });
        let floors = PerClass::default();
        let delta = JournalDelta { log_id: log("l"), clock, head: 4, floors, until: 4, purges: Vec::new() };
        view.apply(&query, &delta, 1_000);
        // Purge 5 is accepted within the same millisecond, and a neighbour has it.
        receipts.accept(5, 1_000);
        say(&mut receipts, "a", 5, 1_010);
        let relied_on = |now_ms| view.knowledge(now_ms, 100, 150) != Knowledge::Unknown;
        let mut applied = |now_ms| states(&receipt(&mut receipts, 5, now_ms)) == [Applied];
        assert!((1_010..1_300).all(|now_ms| !(relied_on(now_ms) && applied(now_ms))));
        assert!(relied_on(1_150) && applied(1_152));
    }

    #[test]
    fn of_another_log_nobody_has_anything() {
        let mut receipts = receipts(100);
        receipts.accept(9, 800);
        say(&mut receipts, "a", 9, 1_000);
        assert_eq!(states(&receipts.receipt(5, held("l", 9), None, 1_000)), [Applied]);
        receipts.begin(&held("other", 9), 1_000);
        let there = receipts.receipt(5, held("other", 9), None, 1_000);
        assert_eq!((states(&there), there.locations[0].applied_seq), (vec![Pending], 0));
        assert_eq!(applied_seq(&mut receipts, 1_000), 0);
        // Whoever says what it has of that log may have a neighbour that has yet to hear of it.
        let query = JournalQuery { log_id: Some(log("other")), since: 9, location: "a".into() };
        receipts.hear(&query, &held("other", 9), 1_010);
        let mut at = |now_ms| {
            let applied = receipts.summary(held("other", 9), now_ms).applied_seq;
            (states(&receipts.receipt(5, held("other", 9), None, now_ms))[0], applied)
        };
        assert_eq!([at(1_010), at(1_099), at(1_102)], [(Pending, 0), (Pending, 0), (Applied, 9)]);
    }

    #[test]
    fn a_location_not_heard_from_is_silent_and_not_applied() {
        let mut receipts = receipts(100);
        receipts.remember("c");
        receipts.accept(9, 1_000);
        say(&mut receipts, "a", 9, 1_000);
        say(&mut receipts, "b", 2, 1_000);
        say(&mut receipts, "a", 9, 1_301);
        let there = receipt(&mut receipts, 5, 1_301);
        assert_eq!((states(&there), there.state), (vec![Applied, Silent, Silent], PurgeState::Applied));
        receipts.accept(10, 1_400);
        let there = receipt(&mut receipts, 10, 9_000);
        assert_eq!((states(&there), there.state), (vec![Silent; 3], PurgeState::Accepted), "nobody is there");
    }

    #[test]
    fn another_log_starts_the_account_anew_and_new_isolates_change_nothing() {
        let mut receipts = receipts(100);
        receipts.accept(2, 10);
        receipts.accept(9, 10);
        say(&mut receipts, "a", 9, 1_000);
        receipts.hear(&JournalQuery { log_id: None, since: 0, location: "a".into() }, &held("l", 9), 1_010);
        let behind = JournalQuery { log_id: Some(log("old")), since: 70, location: "a".into() };
        receipts.hear(&behind, &held("l", 9), 1_010);
        let alone = JournalQuery { log_id: Some(log("l")), since: 3, location: String::new() };
        assert!(!receipts.hear(&alone, &held("l", 9), 1_010));
        assert_eq!(applied_seq(&mut receipts, 1_010), 9);
        let query = JournalQuery { log_id: Some(log("new")), since: 2, location: "a".into() };
        receipts.hear(&query, &held("new", 2), 1_020);
        assert_eq!([1_020, 1_200].map(|now_ms| applied_seq(&mut receipts, now_ms)), [0, 2]);
    }

    #[test]
    fn a_name_is_noted_when_it_is_new_and_once_an_hour() {
        let mut receipts = receipts(100);
        let noted = [1_000, 2_000, 3_601_000].map(|now_ms| say(&mut receipts, "a", 0, now_ms));
        assert_eq!(noted, [true, false, true]);
    }

    #[test]
    fn the_account_is_bounded_and_forgotten_steps_give_no_lag() {
        let mut many = receipts(100);
        for n in 0..2_000 {
            say(&mut many, &format!("l-{n}"), 1, 1_000);
        }
        assert_eq!(receipt(&mut many, 1, 1_000).locations.len(), LOCATIONS_MAX);
        let mut receipts = receipts(100);
        for seq in 1..=1_000 {
            say(&mut receipts, "a", seq, 1_000 + seq);
        }
        let mut lag_ms = |seq| receipts.receipt(seq, held("l", 9_999), Some(1_000), 2_000).locations[0].lag_ms;
        assert_eq!([1, 990].map(&mut lag_ms), [None, Some(990)]);
    }
}
