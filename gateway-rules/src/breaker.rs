//! A circuit breaker for one upstream, as one isolate sees it. Closed, it lets everything through and counts; when the
//! upstream fails too often it opens, and whoever asks is refused at once instead of waiting for a timeout; after a
//! pause one request is let through as a probe, whose outcome closes it or doubles the pause.
//!
//! It knows no clock and draws no lots: the same calls with the same times always end in the same state.

/// Outcomes are counted in so many slices of time, the oldest of which is forgotten first.
const SLICES: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How far back outcomes count: ten slices.
    pub slice_ms: u64,
    /// Fewer outcomes than this in the window say nothing.
    pub outcomes_min: u32,
    /// Opens when so many of a hundred failed.
    pub failed_percent: u32,
    /// Opens after so many failures in a row, however long they took: an upstream that hangs brings few outcomes.
    pub failed_in_a_row: u32,
    /// The first pause, and the longest it doubles to.
    pub pause_ms: u64,
    pub pause_ms_max: u64,
    /// A probe that says nothing for so long was lost with whoever made it.
    pub probe_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            slice_ms: 1_000,
            outcomes_min: 10,
            failed_percent: 50,
            failed_in_a_row: 3,
            pause_ms: 1_000,
            pause_ms_max: 30_000,
            probe_ms: 15_000,
        }
    }
}

/// Leave to ask the upstream. Its outcome is told to [`Breaker::end`]; one that is lost does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    generation: u64,
}

/// The upstream is left alone; it may be asked again after so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub retry_after_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    Open,
    /// A probe is under way.
    HalfOpen,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slice {
    number: u64,
    failed: u32,
    all: u32,
}

#[derive(Clone, Copy, Debug)]
struct Opened {
    until_ms: u64,
    pause_ms: u64,
    probe_since_ms: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Breaker {
    config: Config,
    slices: [Slice; SLICES],
    in_a_row: u32,
    opened: Option<Opened>,
    /// Counts up whenever the state changes: outcomes of requests from before say nothing about now.
    generation: u64,
    pub times_opened: u64,
}

impl Breaker {
    pub fn new(config: Config) -> Self {
        Self { config, slices: [Slice::default(); SLICES], in_a_row: 0, opened: None, generation: 0, times_opened: 0 }
    }

    pub fn state(&self) -> State {
        match self.opened {
            None => State::Closed,
            Some(Opened { probe_since_ms: None, .. }) => State::Open,
            Some(_) => State::HalfOpen,
        }
    }

    /// Whether the upstream may be asked now.
    pub fn begin(&mut self, now_ms: u64) -> Result<Pass, Refused> {
        let probe_ms = self.config.probe_ms;
        if let Some(opened) = &mut self.opened {
            // What lies further ahead than it could was noted before the clock was set back.
            let is_lost = |since_ms| since_ms > now_ms || now_ms.saturating_sub(since_ms) >= probe_ms;
            if opened.probe_since_ms.is_some_and(is_lost) {
                opened.probe_since_ms = None;
            }
            if opened.probe_since_ms.is_some() {
                return Err(Refused { retry_after_ms: opened.pause_ms });
            }
            let left_ms = opened.until_ms.saturating_sub(now_ms);
            if (1..=opened.pause_ms).contains(&left_ms) {
                return Err(Refused { retry_after_ms: left_ms });
            }
            opened.probe_since_ms = Some(now_ms);
            self.generation = self.generation.saturating_add(1);
        }
        Ok(Pass { generation: self.generation })
    }

    /// What became of a request.
    pub fn end(&mut self, pass: Pass, succeeded: bool, now_ms: u64) {
        if pass.generation != self.generation {
            return;
        }
        match (self.opened, succeeded) {
            (Some(_), true) => self.close(),
            (Some(opened), false) => {
                let pause_ms = opened.pause_ms.saturating_mul(2).min(self.config.pause_ms_max);
                self.open(pause_ms, now_ms);
            }
            (None, _) => {
                self.count(succeeded, now_ms);
                if self.is_failing(now_ms) {
                    self.times_opened = self.times_opened.saturating_add(1);
                    self.open(self.config.pause_ms, now_ms);
                }
            }
        }
    }

    /// Nobody can tell what became of it: if it was to probe, another may.
    pub fn forget(&mut self, pass: Pass) {
        if let Some(opened) = self.opened.as_mut().filter(|_| pass.generation == self.generation) {
            opened.probe_since_ms = None;
        }
    }

    fn open(&mut self, pause_ms: u64, now_ms: u64) {
        self.opened = Some(Opened { until_ms: now_ms.saturating_add(pause_ms), pause_ms, probe_since_ms: None });
        self.generation = self.generation.saturating_add(1);
    }

    fn close(&mut self) {
        self.opened = None;
        self.in_a_row = 0;
        self.slices = [Slice::default(); SLICES];
        self.generation = self.generation.saturating_add(1);
    }

    fn slice_number(&self, now_ms: u64) -> u64 {
        now_ms.checked_div(self.config.slice_ms).unwrap_or(0)
    }

    fn count(&mut self, succeeded: bool, now_ms: u64) {
        self.in_a_row = if succeeded { 0 } else { self.in_a_row.saturating_add(1) };
        let number = self.slice_number(now_ms);
        let place = number.checked_rem(SLICES as u64).and_then(|place| usize::try_from(place).ok()).unwrap_or(0);
        let Some(slice) = self.slices.get_mut(place) else { return };
        if slice.number != number {
            *slice = Slice { number, ..Slice::default() };
        }
        slice.all = slice.all.saturating_add(1);
        slice.failed = slice.failed.saturating_add(u32::from(!succeeded));
    }

    fn is_failing(&self, now_ms: u64) -> bool {
        if self.in_a_row >= self.config.failed_in_a_row {
            return true;
        }
        let newest = self.slice_number(now_ms);
        let oldest = newest.saturating_sub((SLICES as u64).saturating_sub(1));
        let in_window = self.slices.iter().filter(|slice| (oldest..=newest).contains(&slice.number));
        let (failed, all) = in_window.fold((0u64, 0u64), |(failed, all), slice| {
            (failed.saturating_add(slice.failed.into()), all.saturating_add(slice.all.into()))
        });
        all >= u64::from(self.config.outcomes_min)
            && failed.saturating_mul(100) >= all.saturating_mul(self.config.failed_percent.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn breaker() -> Breaker {
        Breaker::new(Config::default())
    }

    fn outcome(breaker: &mut Breaker, succeeded: bool, now_ms: u64) {
        let pass = breaker.begin(now_ms).expect("closed");
        breaker.end(pass, succeeded, now_ms);
    }

    #[test]
    fn three_failures_in_a_row_open_it_however_long_they_took() {
        let mut breaker = breaker();
        for at_ms in [0, 100_000, 200_000] {
            outcome(&mut breaker, false, at_ms);
        }
        assert_eq!(breaker.state(), State::Open);
        assert_eq!(breaker.begin(200_400), Err(Refused { retry_after_ms: 600 }));
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nobody_out() {
        for is_probing in [false, true] {
            let mut breaker = breaker();
            for at_ms in [1_000_000, 1_000_001, 1_000_002] {
                outcome(&mut breaker, false, at_ms);
            }
            assert!(breaker.begin(1_000_002).is_err());
            if is_probing {
                breaker.begin(1_001_002).expect("the pause is over");
                assert!(breaker.begin(1_001_003).is_err(), "one is under way");
            }
            assert!(breaker.begin(500_000).is_ok(), "{is_probing}");
        }
    }

    #[test]
    fn every_second_failing_opens_it_once_there_are_enough() {
        let mut breaker = breaker();
        for n in 0..9 {
            outcome(&mut breaker, n % 2 == 0, n * 100);
        }
        assert_eq!(breaker.state(), State::Closed, "nine say nothing");
        outcome(&mut breaker, false, 900);
        assert_eq!(breaker.state(), State::Open);
    }

    #[test]
    fn failures_that_left_the_window_count_no_more() {
        let mut breaker = breaker();
        for n in 0..40 {
            outcome(&mut breaker, n % 2 == 0, n * 2_500);
        }
        assert_eq!(breaker.state(), State::Closed, "four in ten seconds");
    }

    #[test]
    fn one_probe_at_a_time_and_each_failed_one_doubles_the_pause() {
        let mut breaker = breaker();
        (0..3).for_each(|_| outcome(&mut breaker, false, 0));
        let mut now_ms = 0;
        for pause_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            assert!(breaker.begin(now_ms + pause_ms - 1).is_err());
            now_ms += pause_ms;
            let probe = breaker.begin(now_ms).expect("a probe");
            assert_eq!(breaker.state(), State::HalfOpen);
            assert_eq!(breaker.begin(now_ms), Err(Refused { retry_after_ms: pause_ms }), "one at a time");
            breaker.end(probe, false, now_ms);
        }
        let probe = breaker.begin(now_ms + 30_000).expect("a probe");
        breaker.end(probe, true, now_ms + 30_000);
        assert_eq!((breaker.state(), breaker.times_opened), (State::Closed, 1));
        outcome(&mut breaker, false, now_ms + 30_001);
        assert_eq!(breaker.state(), State::Closed, "what was before counts no more");
    }

    #[test]
    fn outcomes_of_requests_from_before_it_opened_say_nothing() {
        let mut breaker = breaker();
        let late = breaker.begin(0).expect("closed");
        (0..3).for_each(|_| outcome(&mut breaker, false, 0));
        breaker.end(late, true, 10);
        assert_eq!(breaker.state(), State::Open);
        let probe = breaker.begin(1_000).expect("a probe");
        breaker.end(late, false, 1_001);
        assert_eq!(breaker.state(), State::HalfOpen, "only the probe decides");
        breaker.end(probe, true, 1_002);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn of_whom_nobody_can_tell_what_became_says_nothing_and_holds_no_probe() {
        let mut breaker = breaker();
        for _ in 0..40 {
            let pass = breaker.begin(0).expect("closed");
            breaker.forget(pass);
        }
        (0..2).for_each(|_| outcome(&mut breaker, false, 0));
        assert_eq!(breaker.state(), State::Closed);
        let late = breaker.begin(0).expect("closed");
        outcome(&mut breaker, false, 0);
        let probe = breaker.begin(1_000).expect("a probe");
        breaker.forget(late);
        assert!(breaker.begin(1_000).is_err(), "one at a time");
        breaker.forget(probe);
        let next = breaker.begin(1_001).expect("another");
        breaker.end(next, true, 1_002);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn a_lost_probe_is_made_again() {
        let mut breaker = breaker();
        (0..3).for_each(|_| outcome(&mut breaker, false, 0));
        breaker.begin(1_000).expect("a probe");
        assert!(breaker.begin(15_999).is_err());
        breaker.begin(16_000).expect("another");
    }

    proptest! {
        #[test]
        fn it_never_refuses_for_longer_than_the_longest_pause_and_never_lets_two_probes_out(
            events in prop::collection::vec((0u64..5_000, any::<bool>(), any::<bool>()), 1..200)
        ) {
            let config = Config::default();
            let mut breaker = Breaker::new(config);
            let mut now_ms = 0;
            let mut passes: Vec<Pass> = Vec::new();
            for (wait_ms, answers, succeeds) in events {
                now_ms += wait_ms;
                let was = breaker.state();
                match breaker.begin(now_ms) {
                    Err(refused) => {
                        prop_assert!(refused.retry_after_ms <= config.pause_ms_max);
                        prop_assert_ne!(was, State::Closed);
                    }
                    Ok(pass) => {
                        prop_assert!(was != State::HalfOpen || passes.iter().all(|other| *other != pass));
                        passes.push(pass);
                    }
                }
                if answers && let Some(pass) = passes.pop() {
                    breaker.end(pass, succeeds, now_ms);
                }
            }
        }
    }
}
