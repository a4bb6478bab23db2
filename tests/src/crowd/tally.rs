//! What was seen, second by second. Latencies go to the second in which a request was due, so a stall shows in all that should
//! have come during it.
use super::line::Way;
use super::scenario::Page;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// In microseconds, to a minute, with two digits that count.
pub type Times = Histogram<u64>;

pub fn times() -> Times {
    Histogram::new_with_bounds(1, 60_000_000, 2).expect("bounds are in order")
}

pub fn record(times: &mut Times, took: Duration) {
    times.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
}

pub fn ms(times: &Times, quantile: f64) -> f64 {
    if times.is_empty() { 0.0 } else { times.value_at_quantile(quantile) as f64 / 1000.0 }
}

/// Examples kept of each kind of failure, and of violations.
const EXAMPLES: usize = 20;

#[derive(Debug)]
pub struct Second {
    pub latencies: Times,
    pub writes: Times,
    /// As [`Way::ALL`].
    pub ways: [u64; 4],
    pub errors: u64,
    /// Connections, at its end.
    pub open: usize,
    /// Requests of the client API that reached origin, whoever made them.
    pub origin: u64,
}

impl Second {
    fn new() -> Self {
        Self { latencies: times(), writes: times(), ways: [0; 4], errors: 0, open: 0, origin: 0 }
    }
}

#[derive(Debug)]
pub struct Seen {
    pub seconds: Vec<Second>,
    pub pages: BTreeMap<Page, Times>,
    /// As [`Way::ALL`].
    pub ways: BTreeMap<Page, [u64; 4]>,
    /// What the edge says of answers that were no hits.
    pub details: BTreeMap<(Page, String), u64>,
    /// Requests of the client API that reached origin, by route.
    pub asked: BTreeMap<String, u64>,
    /// Those of them that warmed documents.
    pub warmed: u64,
    pub all: Times,
    pub writes: BTreeMap<&'static str, Times>,
    /// From an edit's answer to its purge's receipt: it is in the edge's journal.
    pub landing: Times,
    /// How late the generator itself was, with nothing under way on the connection.
    pub lateness: Times,
    pub not_modified: u64,
    pub bytes: u64,
    pub reopened: u64,
    pub errors: BTreeMap<String, u64>,
    pub compared: u64,
    pub violations: Vec<String>,
    pub violation_count: u64,
}

impl Seen {
    fn new() -> Self {
        Self {
            seconds: Vec::new(),
            pages: BTreeMap::new(),
            ways: BTreeMap::new(),
            details: BTreeMap::new(),
            asked: BTreeMap::new(),
            warmed: 0,
            all: times(),
            writes: BTreeMap::new(),
            landing: times(),
            lateness: times(),
            not_modified: 0,
            bytes: 0,
            reopened: 0,
            errors: BTreeMap::new(),
            compared: 0,
            violations: Vec::new(),
            violation_count: 0,
        }
    }

    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    fn at(&mut self, second: usize) -> &mut Second {
        while self.seconds.len() <= second {
            self.seconds.push(Second::new());
        }
        &mut self.seconds[second]
    }
}

/// One answer to a viewer.
#[derive(Debug)]
pub struct Took<'a> {
    pub page: Page,
    pub due: Instant,
    pub way: Way,
    pub detail: &'a str,
    pub not_modified: bool,
    pub bytes: usize,
}

/// Counts from a moment on; what was due before is not counted.
pub struct Tally {
    state: Mutex<(Option<Instant>, Seen)>,
}

impl Default for Tally {
    fn default() -> Self {
        Self { state: Mutex::new((None, Seen::new())) }
    }
}

impl Tally {
    fn state(&self) -> MutexGuard<'_, (Option<Instant>, Seen)> {
        self.state.lock().expect("poisoned")
    }

    /// Forgets everything and counts from now on.
    pub fn begin(&self) {
        *self.state() = (Some(Instant::now()), Seen::new());
    }

    pub fn end(&self) -> Seen {
        std::mem::replace(&mut *self.state(), (None, Seen::new())).1
    }

    pub fn is_counting(&self) -> bool {
        self.state().0.is_some()
    }

    fn count(&self, due: Instant, count: impl FnOnce(&mut Seen, usize)) {
        let (began, seen) = &mut *self.state();
        let Some(since) = began.and_then(|began| due.checked_duration_since(began)) else { return };
        count(seen, usize::try_from(since.as_secs()).unwrap_or(0));
    }

    pub fn took(&self, took: &Took<'_>) {
        let latency = took.due.elapsed();
        self.count(took.due, |seen, at| {
            record(&mut seen.all, latency);
            record(seen.pages.entry(took.page).or_insert_with(times), latency);
            seen.not_modified += u64::from(took.not_modified);
            seen.bytes += took.bytes as u64;
            let way = Way::ALL.iter().position(|way| *way == took.way).unwrap_or_default();
            seen.ways.entry(took.page).or_default()[way] += 1;
            if took.way != Way::Hit {
                *seen.details.entry((took.page, took.detail.into())).or_default() += 1;
            }
            let second = seen.at(at);
            record(&mut second.latencies, latency);
            second.ways[way] += 1;
        });
    }

    pub fn late(&self, due: Instant, late: Duration) {
        self.count(due, |seen, _| record(&mut seen.lateness, late));
    }

    pub fn wrote(&self, what: &'static str, due: Instant) {
        let latency = due.elapsed();
        self.count(due, |seen, at| {
            record(seen.writes.entry(what).or_insert_with(times), latency);
            record(&mut seen.at(at).writes, latency);
        });
    }

    pub fn landed(&self, acknowledged: Instant) {
        let took = acknowledged.elapsed();
        self.count(acknowledged, |seen, _| record(&mut seen.landing, took));
    }

    pub fn failed(&self, due: Instant, what: String) {
        self.count(due, |seen, at| {
            seen.at(at).errors += 1;
            let known = seen.errors.len() < EXAMPLES || seen.errors.contains_key(&what);
            *seen.errors.entry(if known { what } else { "others".into() }).or_default() += 1;
        });
    }

    pub fn reopened(&self) {
        self.count(Instant::now(), |seen, _| seen.reopened += 1);
    }

    pub fn checked(&self, (compared, wrong): (u64, Vec<String>)) {
        self.count(Instant::now(), |seen, _| {
            seen.compared += compared;
            seen.violation_count += wrong.len() as u64;
            let room = EXAMPLES.saturating_sub(seen.violations.len());
            seen.violations.extend(wrong.into_iter().take(room));
        });
    }

    /// What origin was asked meanwhile.
    pub fn asked(&self, asked: BTreeMap<String, u64>, warmed: u64) {
        self.count(Instant::now(), |seen, _| (seen.asked, seen.warmed) = (asked, warmed));
    }

    /// At the end of a second.
    pub fn sample(&self, open: usize, origin: u64) {
        self.count(Instant::now(), |seen, at| {
            let second = seen.at(at);
            second.open = open;
            second.origin += origin;
        });
    }
}
