//! Measurements over real processes, each a subcommand: `cargo xtask races`, `cargo xtask bench propagation` and
//! `cargo xtask bench storm` start it.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use e2e::races;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "measure", about = "Measurements over real processes")]
struct Cli {
    #[command(subcommand)]
    what: What,
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
}

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().what {
        What::Races { writes, edges, lease_ms, seed, no_faults } => {
            let options = races::Options { writes, edges, lease_ms, seed, faults: !no_faults, ..Default::default() };
            let report = races::run(options).await;
            println!("{report}");
            if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}
