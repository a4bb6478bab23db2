//! The command line of the project: `cargo xtask COMMAND`.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use xtask::{Doing, Result, api, conformance, dev, fuzz, instructions, proxy, run_cargo, setup, test, ui::say, wasm};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts origin and edge with a real sample catalogue, and says what to try.
    Dev(dev::Dev),
    /// Starts the edge alone, as a caching reverse proxy in front of any HTTP origin.
    Edge(proxy::Edge),
    /// Runs the public HTTP caching suite against the edge.
    Conformance(conformance::Conformance),
    /// Runs schemathesis against a real origin, by the description of its API.
    Api(api::Api),
    /// Counts the instructions of the hit path's parts, and compares with `microbench/instructions.json`.
    Instructions(instructions::Instructions),
    /// Fuzzes every parser that reads what strangers send.
    Fuzz(fuzz::Fuzz),
    /// Runs the engine in a deterministic world of faults: `--seed S --seeds N --locations N --steps N`.
    Simulate {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Writers, purges, readers and `kill -9` at once over real processes; every answer is checked.
    Races {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measures, to the terminal and to `target/bench/report.json`: `hits` (if nothing is named), `load`, `origin`,
    /// `propagation`, `storm`, `warm`, `isolation`, `costs` or `start`, each with its own `--help`. With `--check` a figure that is
    /// not what is wanted of it is a failure.
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs everything that CI runs.
    Test(test::Test),
    /// Installs what this machine lacks.
    Setup,
    /// Compiles the Workers and says how large they are. Wrangler calls this.
    BuildEdge,
    /// Becomes another program that dies with its parent. For the commands above.
    #[command(hide = true)]
    Tied {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Dev(dev) => dev.run(),
        Command::Edge(edge) => edge.run(),
        Command::Conformance(conformance) => conformance.run(),
        Command::Api(api) => api.run(),
        Command::Instructions(instructions) => instructions.run(),
        Command::Fuzz(fuzz) => fuzz.run(),
        Command::Simulate { arguments } => program("simulator", "dev", &[], &arguments),
        Command::Races { arguments } => measure("dev", &["races"], &arguments),
        Command::Bench { arguments } => {
            // Hits are what everything else is for.
            let named = arguments.first().filter(|first| *first != "--check").map(String::as_str);
            let (what, first) = named.map_or(("hits", &["hits"][..]), |named| (named, &[]));
            // A generator of load must not eat what it measures.
            let profile = if ["load", "hits", "costs"].contains(&what) { "release" } else { "dev" };
            measure(profile, first, &arguments)
        }
        Command::Test(test) => test.run(),
        Command::Setup => setup::all(),
        Command::BuildEdge => {
            if std::env::var_os("EDGE_IS_BUILT").is_some() {
                return Ok(());
            }
            setup::all()?;
            for (package, size) in wasm::build_all()? {
                say(format!("{package}: {} bytes of Wasm, gzipped {}", size.raw, size.gzipped));
            }
            Ok(())
        }
        Command::Tied { command } => tied(&command),
    }
}

/// Runs one of the workspace's programs.
fn program(package: &str, profile: &str, first: &[&str], arguments: &[String]) -> Result<()> {
    let mut all = vec!["run", "--quiet", "--package", package, "--profile", profile, "--"];
    all.extend(first);
    all.extend(arguments.iter().map(String::as_str));
    run_cargo(&all, &[], "it did not end well")
}

/// Runs a measurement over real processes, which are built first.
fn measure(profile: &str, first: &[&str], arguments: &[String]) -> Result<()> {
    setup::all()?;
    wasm::build_all()?;
    setup::build_origin()?;
    program("e2e", profile, first, arguments)
}

/// Asks the kernel to end this process with its parent, then becomes the command; the wish survives the change.
fn tied(command: &[String]) -> Result<()> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .map_err(std::io::Error::from)
        .doing("cannot tie a process to this one")?;
    let (program, arguments) = command.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let error = std::os::unix::process::CommandExt::exec(std::process::Command::new(program).args(arguments));
    Err(error).doing(format!("cannot start {program}"))
}
