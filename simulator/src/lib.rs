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
        sum(&mut self.steps, other.steps);
        sum(&mut self.requests, other.requests);
        sum(&mut self.hits, other.hits);
        sum(&mut self.short, other.short);
        sum(&mut self.kv_first, other.kv_first);
        sum(&mut self.stale, other.stale);
        sum(&mut self.forwarded, other.forwarded);
        sum(&mut self.failed, other.failed);
        sum(&mut self.shared, other.shared);
        sum(&mut self.left, other.left);
        sum(&mut self.written, other.written);
        sum(&mut self.overdue, other.overdue);
        sum(&mut self.purges, other.purges);
        sum(&mut self.receipts, other.receipts);
        sum(&mut self.applied, other.applied);
        sum(&mut self.faults, other.faults);
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
    run(false).or_else(|_| run(true))
}
