//! A deterministic world around the real engine. What happens to a fleet of edges happens here in an order one seed decides:
//! requests begin and are cancelled, messages are lost, late and repeated, tiers lag, clocks differ by minutes and are set
//! forward and back, isolates come and go, the journal is unreachable, loses its storage or has it put back, the database is
//! restored, writes go through the edge.
//!
//! Not here: parts.
//!
//! Real are the lookup machine, the journal view and the engine around them (`surrogate_cache`), and the journal's
//! decisions about batches and receipts. A model are the things around: origin and its replicas, the journal's table, colo
//! caches, KV. After each answer [`check`] compares it with what the model knows to be true, and with what receipts had said
//! when the request came.
mod check;
mod journal;
mod origin;
mod world;

use std::fmt;
pub use surrogate_cache::LogOwner;

/// Surrogate keys there are, and those of each document.
pub(crate) const KEYS: usize = 8;
pub(crate) const DOC_KEYS: [&[usize]; 6] = [&[0, 1], &[1, 2], &[2, 3, 4], &[5], &[5, 6], &[0, 6, 7]];

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub locations: usize,
    pub steps: usize,
}

/// What happened in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub steps: u64,
    pub requests: u64,
    pub hits: u64,
    /// Those of them that took the short way, by their slot.
    pub short: u64,
    /// Those of them that read KV before anything else.
    pub kv_first: u64,
    pub stale: u64,
    pub forwarded: u64,
    pub failed: u64,
    /// Syncs that another isolate's answer made unnecessary.
    pub shared: u64,
    /// Those that were left to another isolate that was asking.
    pub left: u64,
    /// Writes through an edge that were answered, and those of which the journal was not told the end in time.
    pub written: u64,
    pub overdue: u64,
    pub purges: u64,
    /// Receipts that were asked for, and those of them that said a purge is everywhere.
    pub receipts: u64,
    pub applied: u64,
    pub faults: u64,
}

impl Stats {
    pub fn add(&mut self, other: &Stats) {
        let sum = |a: &mut u64, b: u64| *a += b;
        // Each by its name: what is counted anew is added, too, or this does not compile.
        let Stats {
            steps,
            requests,
            hits,
            short,
            kv_first,
            stale,
            forwarded,
            failed,
            shared,
            left,
            written,
            overdue,
            purges,
            receipts,
            applied,
            faults,
        } = *other;
        sum(&mut self.steps, steps);
        sum(&mut self.requests, requests);
        sum(&mut self.hits, hits);
        sum(&mut self.short, short);
        sum(&mut self.kv_first, kv_first);
        sum(&mut self.stale, stale);
        sum(&mut self.forwarded, forwarded);
        sum(&mut self.failed, failed);
        sum(&mut self.shared, shared);
        sum(&mut self.left, left);
        sum(&mut self.written, written);
        sum(&mut self.overdue, overdue);
        sum(&mut self.purges, purges);
        sum(&mut self.receipts, receipts);
        sum(&mut self.applied, applied);
        sum(&mut self.faults, faults);
    }
}

/// An invariant that did not hold, and how it came to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub seed: u64,
    pub locations: usize,
    pub steps: usize,
    pub step: usize,
    pub what: String,
    pub trace: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, step {}: {}", self.seed, self.step, self.what)?;
        for line in &self.trace {
            writeln!(f, "    {line}")?;
        }
        write!(
            f,
            "again: cargo xtask simulate --seed {} --locations {} --steps {}",
            self.seed, self.locations, self.steps
        )
    }
}

/// Steps of a seed when nobody says otherwise.
pub const STEPS: usize = 120;

/// Locations of a seed when nobody says otherwise.
pub fn locations_of(seed: u64) -> usize {
    1 + (seed % 4) as usize
}

/// Runs one seed to its end. A violation is run once more, for its trace.
pub fn run(options: &Options) -> Result<Stats, Box<Violation>> {
    let run = |is_traced| world::World::new(options, is_traced).run();
    run(false).map_err(|violation| traced(violation, run(true)))
}

/// The same violation with its trace. One that did not come again is one all the same: something in this process decides besides
/// the seed.
fn traced(mut violation: Box<Violation>, again: Result<Stats, Box<Violation>>) -> Box<Violation> {
    let other = match again {
        Err(same) if (same.step, &same.what) == (violation.step, &violation.what) => return same,
        Err(other) => format!("step {}: {}", other.step, other.what),
        Ok(_) => "no violation".into(),
    };
    violation.what.push_str(&format!(" (not repeated; the second run found {other})"));
    violation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_that_does_not_come_again_is_one_all_the_same() {
        let violation = |step: usize, what: &str, trace: &[&str]| {
            let trace = trace.iter().map(|line| line.to_string()).collect();
            Box::new(Violation { seed: 1, locations: 1, steps: 9, step, what: what.into(), trace })
        };
        let first = || violation(3, "too old", &[]);
        let same = violation(3, "too old", &["step 1"]);
        assert_eq!(traced(first(), Err(same.clone())), same, "with its trace");
        let gone = traced(first(), Ok(Stats::default()));
        assert_eq!(*gone, *violation(3, "too old (not repeated; the second run found no violation)", &[]));
        let other = traced(first(), Err(violation(4, "lost", &["step 1"])));
        assert_eq!(*other, *violation(3, "too old (not repeated; the second run found step 4: lost)", &[]));
    }
}
