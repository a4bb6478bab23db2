//! Runs seeds and says what happened; ends with 1 at the first violation, whose trace it prints.
#![forbid(unsafe_code)]

use clap::Parser;
use simulator::{Options, Stats, run};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "simulate", about = "The cache engine in a world of lost messages, lagging tiers and skewed clocks")]
struct Cli {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, counted up from the first.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Locations; not given: one to four, by the seed.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    locations: Option<u16>,
    /// Steps of each seed, before everything is put right and looked at.
    #[arg(long, default_value_t = simulator::STEPS)]
    steps: usize,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut total = Stats::default();
    for seed in cli.seed..cli.seed.saturating_add(cli.seeds) {
        let locations = cli.locations.map_or_else(|| simulator::locations_of(seed), usize::from);
        match run(&Options { seed, locations, steps: cli.steps }) {
            Ok(stats) => total.add(&stats),
            Err(violation) => {
                println!("{violation}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{} seeds, no violation: {total:?}", cli.seeds);
    ExitCode::SUCCESS
}
