//! Measurements over real processes, each a subcommand: `cargo xtask races` and `cargo xtask bench <subcommand>` start it.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use e2e::wanted::Wanted;
use e2e::{costs, crowd, hits, isolation, origin_load, propagation, races, start, warmed};
use std::error::Error;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "measure", about = "Measurements over real processes")]
struct Cli {
    #[command(subcommand)]
    what: What,
    /// Fails if a figure is not what is wanted of it, on a machine that does nothing else.
    #[arg(long, global = true)]
    check: bool,
}

#[derive(Subcommand)]
enum What {
    /// Writers, purges, readers and faults at once; every answer checked.
    Races {
        #[arg(long, default_value_t = 10_000)]
        writes: u64,
        #[arg(long, default_value_t = 4)]
        edges: usize,
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(50..=10_000))]
        lease_ms: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Kill and cut nothing.
        #[arg(long)]
        no_faults: bool,
    },
    /// What a hit costs, beside Workers written by hand. Needs two processors and `taskset`.
    Hits(hits::Options),
    /// The origin by itself, with a large catalogue, under viewers' reads and editors' writes at once.
    Origin(origin_load::Options),
    /// Ten thousand viewers with a connection each, and editors meanwhile; a page with plots is written.
    Load(crowd::Options),
    /// From a write to the last location that shows it.
    Propagation {
        #[arg(long, default_value_t = 8)]
        edges: usize,
        #[arg(long, default_values_t = [100, 1_000])]
        lease_ms: Vec<u64>,
        #[arg(long, default_value_t = 100)]
        rounds: u64,
    },
    /// What a process's start and an isolate's first request cost.
    Start {
        #[arg(long, default_value_t = 15)]
        rounds: usize,
        /// A folder with another build of the edge's Worker, to measure in the same rounds.
        #[arg(long)]
        beside: Option<std::path::PathBuf>,
    },
    /// What log and limits cost a hit. Needs two processors and `taskset`.
    Costs {
        #[arg(long, default_value_t = 20)]
        rounds: usize,
    },
    /// What a flood on the admin service does to viewers' reads, with services of their own and in one process.
    Isolation {
        #[arg(long, default_value_t = 4)]
        seconds: u64,
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Purges of very many keys while pages are read.
    Storm {
        #[arg(long, default_value_t = 100_000)]
        keys: u64,
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Pages that are read.
        #[arg(long, default_value_t = 200)]
        titles: usize,
    },
    /// What the first viewers after an edit get, without warming and with it.
    Warm {
        /// Titles that are edited, one after another.
        #[arg(long, default_value_t = 40)]
        titles: usize,
        #[arg(long, default_value_t = 3)]
        edges: usize,
        /// Documents of one purge that are fetched ahead.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
        warm: u16,
    },
}

impl What {
    /// The name of a measurement with figures that nothing is wanted of.
    fn wants_nothing(&self) -> Option<&'static str> {
        match self {
            Self::Propagation { lease_ms, .. } => {
                let is_judged = |lease_ms: &u64| propagation::limit_ms(*lease_ms).is_some();
                (!lease_ms.iter().all(is_judged)).then_some("propagation with such a lease")
            }
            Self::Start { .. } => Some("start"),
            Self::Costs { .. } => Some("costs"),
            Self::Warm { .. } => Some("warm"),
            _ => None,
        }
    }
}

/// Puts a figure into the report, beside those of other measurements.
fn report(name: &str, value: &impl serde::Serialize) {
    let path = xtask::target().join("bench/report.json");
    let mut all: serde_json::Value =
        std::fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    all[name] = serde_json::to_value(value).unwrap_or_default();
    let folder = path.parent().map(std::fs::create_dir_all);
    let written = folder.is_some_and(|made| made.is_ok()) && std::fs::write(&path, format!("{all:#}\n")).is_ok();
    println!("{}", if written { "report: target/bench/report.json" } else { "the report could not be written" });
}

// Starting a process blocks its thread.
#[tokio::main(worker_threads = 8)]
async fn main() -> ExitCode {
    let Cli { what, check } = Cli::parse();
    if check && let Some(name) = what.wants_nothing() {
        eprintln!("error: nothing is wanted of what `{name}` measures, so --check has nothing to check");
        return ExitCode::FAILURE;
    }
    let measured = match measure(what).await {
        Ok(measured) => measured,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    if check && measured.wanted.is_empty() {
        eprintln!("error: nothing was measured that anything is wanted of, so --check has nothing to check");
        return ExitCode::FAILURE;
    }
    let missed: Vec<&Wanted> = measured.wanted.iter().filter(|wanted| !wanted.is_met).collect();
    missed.iter().for_each(|wanted| println!("{wanted}"));
    if measured.holds && (missed.is_empty() || !check) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What came of a measurement.
struct Measured {
    /// Whether what is no question of time was as it must be.
    holds: bool,
    wanted: Vec<Wanted>,
}

impl Measured {
    fn of(wanted: impl IntoIterator<Item = Wanted>) -> Self {
        Self { holds: true, wanted: wanted.into_iter().collect() }
    }

    fn must(self, holds: bool) -> Self {
        Self { holds, ..self }
    }

    /// None of what is wanted is a question of time.
    fn all_must(self) -> Self {
        let holds = self.wanted.iter().all(|wanted| wanted.is_met);
        self.must(holds)
    }
}

/// Measures, shows and reports.
async fn measure(what: What) -> Result<Measured, Box<dyn Error>> {
    match what {
        What::Races { writes, edges, lease_ms, seed, no_faults } => {
            let options = races::Options { writes, edges, lease_ms, seed, faults: !no_faults, ..Default::default() };
            let report = races::run(options.clone()).await;
            println!("{report}");
            Ok(Measured::of(report.wanted(&options)).all_must())
        }
        What::Hits(options) => {
            let measured = hits::run(&options).await?;
            println!("{measured}");
            report("hits", &measured);
            Ok(Measured::of(measured.wanted()))
        }
        What::Origin(options) => {
            let all = origin_load::run(&options).await?;
            all.iter().for_each(|figures| println!("{figures}"));
            println!("{}", origin_load::table(&all));
            for figures in &all {
                report(&format!("origin_{:?}", figures.engine).to_lowercase(), figures);
            }
            let holds = all.iter().all(|figures| figures.errors == 0);
            Ok(Measured::of(all.iter().flat_map(origin_load::Figures::wanted)).must(holds))
        }
        What::Load(options) => {
            let Some(figures) = crowd::run(&options).await? else { return Ok(Measured::of([])) };
            println!("{figures}");
            println!("report: target/bench/load/report.md");
            report("load", &figures);
            let holds = figures.is_true();
            Ok(Measured::of(figures.wanted).must(holds))
        }
        What::Propagation { edges, lease_ms, rounds } => {
            let mut wanted = Vec::new();
            for lease_ms in lease_ms {
                let lag = propagation::run(edges, lease_ms, rounds).await;
                println!("write to last of {edges} locations, lease {lease_ms} ms, {rounds} writes: {lag}");
                report(&format!("propagation_lease_{lease_ms}_ms"), &lag);
                wanted.extend(lag.wanted(lease_ms));
            }
            Ok(Measured::of(wanted))
        }
        What::Start { rounds, beside } => {
            let rows = start::run(rounds, beside.as_deref()).await?;
            rows.iter().for_each(|row| println!("{row}"));
            report("start", &rows);
            Ok(Measured::of([]))
        }
        What::Costs { rounds } => {
            let rows = costs::run(rounds).await?;
            for row in &rows {
                println!("{:<24}{:>12.0}{:>10.2}", row.name, row.requests_per_s, row.to_bare);
            }
            report("costs", &rows);
            Ok(Measured::of([]))
        }
        What::Isolation { seconds, rounds } => {
            let rows = isolation::run(std::time::Duration::from_secs(seconds), rounds).await;
            println!("{:<34}{:>12}{:>12}{:>8}{:>12}", "", "p95 calm", "p95 flood", "ratio", "flood/s");
            for row in &rows {
                let (calm, flood) = (row.calm_p95_ms, row.flood_p95_ms);
                println!("{:<34}{calm:>9.2} ms{flood:>9.2} ms{:>8.2}{:>12.0}", row.name, row.ratio, row.flood_per_s);
            }
            report("isolation", &rows);
            Ok(Measured::of(isolation::wanted(&rows)))
        }
        What::Storm { keys, seconds, titles } => {
            let storm = propagation::storm(keys, seconds, titles).await;
            println!("{storm}");
            report("storm", &storm);
            Ok(Measured::of(storm.wanted()).all_must())
        }
        What::Warm { titles, edges, warm } => {
            let rows = warmed::run(warm, titles, edges).await;
            rows.iter().for_each(|row| println!("{row}"));
            report("warm", &rows);
            Ok(Measured::of([]))
        }
    }
}
