//! `cargo xtask test`: everything CI runs, step by step.
use crate::api::Api;
use crate::conformance::Conformance;
use crate::fuzz::Fuzz;
use crate::instructions::Instructions;
use crate::ui::{say, step};
use crate::{Result, root, run_cargo, said, setup, wasm};
use clap::{Args, ValueEnum};
use std::time::Instant;

/// The Workers' sizes over the wire may not grow beyond these, gzipped.
fn gzipped_bytes_max(package: &str) -> usize {
    if package == "edge" { 254 * 1000 } else { 86_500 }
}

#[derive(Args)]
pub struct Test {
    /// One step alone.
    #[arg(long, value_enum)]
    only: Option<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Formatting and lints, natively and for the Worker's target.
    Lint,
    /// Each crate's own tests.
    Unit,
    /// The Worker, its size, and what wrangler makes of it.
    Build,
    /// The real processes.
    EndToEnd,
    /// Ten thousand writes against readers and faults.
    Races,
    /// Some hundred viewers and some editors for a few seconds; `cargo xtask bench load` is the long form.
    Load,
    /// Requests made of what the API says of itself.
    Api,
    /// The public HTTP caching suite.
    Conformance,
    /// Instructions of the hit path's parts.
    Instructions,
    /// A moment of fuzzing for each parser; `cargo xtask fuzz` is the long form.
    Fuzz,
}

const STEPS: [Step; 10] = [
    Step::Lint,
    Step::Build,
    Step::Unit,
    Step::EndToEnd,
    Step::Races,
    Step::Load,
    Step::Api,
    Step::Conformance,
    Step::Instructions,
    Step::Fuzz,
];

const FUZZ_S: u64 = 5;

/// How fast is not asked here: no errors, nothing older than the bound, nothing lost.
const LOAD: [&str; 13] = [
    "load",
    "--connections",
    "300",
    "--minutes",
    "0.25",
    "--rate",
    "150",
    "--titles",
    "200",
    "--fill-s",
    "20",
    "--edits",
    "2",
];

impl Test {
    pub fn run(self) -> Result<()> {
        let began = Instant::now();
        say("setting up");
        setup::all()?;
        setup::components()?;
        for one in STEPS {
            if self.only.is_none_or(|only| only == one) {
                say(format!("\n{one:?}").to_lowercase());
                match one {
                    Step::Lint => lint()?,
                    Step::Unit => {
                        setup::databases()?;
                        tests(&["--workspace", "--exclude", "e2e"])?;
                        on_postgres()?;
                    }
                    Step::Build => build()?,
                    Step::EndToEnd => end_to_end()?,
                    Step::Races => cargo_run("e2e", &["races"])?,
                    Step::Load => cargo_run("e2e", &LOAD)?,
                    Step::Api => Api::default().run()?,
                    Step::Conformance => Conformance::default().run()?,
                    Step::Instructions => Instructions::default().run()?,
                    Step::Fuzz => Fuzz::for_seconds(FUZZ_S).run()?,
                }
            }
        }
        let only = self.only.and_then(|only| only.to_possible_value());
        let passed = only.map_or("all steps".into(), |only| format!("{} alone", only.get_name()));
        say(format!("\n{passed} passed in {} s", began.elapsed().as_secs()));
        Ok(())
    }
}

/// Its output goes to a log.
fn cargo(what: &str, arguments: &[&str]) -> Result<()> {
    let name: String = what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let mut cargo = crate::cargo();
    step(what, &setup::logs().join(format!("{name}.log")), cargo.args(arguments).current_dir(root()))
}

/// A program of the workspace that starts the Workers and the origin; its figures are shown.
fn cargo_run(package: &str, arguments: &[&str]) -> Result<()> {
    wasm::build_all()?;
    setup::build_origin()?;
    run_cargo(&[&["run", "--quiet", "-p", package, "--"], arguments].concat(), &[], "it found violations")
}

fn lint() -> Result<()> {
    cargo("checking the format", &["fmt", "--all", "--check"])?;
    // A workspace of its own.
    cargo("checking the format of fuzz", &["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"])?;
    cargo("clippy, natively", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    let wasm = ["clippy", "-p", "edge", "-p", "journal", "--target", "wasm32-unknown-unknown", "--", "-D", "warnings"];
    cargo("clippy, for the Workers", &wasm)
}

/// cargo's own output is shown: its closing lines are the result.
fn tests(arguments: &[&str]) -> Result<()> {
    run_cargo(&[&["test"], arguments].concat(), &[], "tests failed")
}

/// The origin's suites once more, each test with a database of its own on a PostgreSQL that they start.
fn on_postgres() -> Result<()> {
    say("  the origin's tests on PostgreSQL");
    let engine = [("ORIGIN_TEST_ENGINE", "postgres")];
    run_cargo(&["test", "-p", "origin", "--test", "*"], &engine, "tests failed on PostgreSQL")
}

fn build() -> Result<()> {
    for (package, wasm::Size { raw, gzipped }) in wasm::build_all()? {
        say(format!("  {package}: {raw} bytes of Wasm, gzipped {gzipped}"));
        let most = gzipped_bytes_max(package);
        if gzipped > most {
            return said(format!("the Wasm of {package} has {gzipped} bytes gzipped; at most {most} are allowed"));
        }
    }
    for (worker, config) in [("journal", "journal/wrangler.toml"), ("edge", "wrangler.toml")] {
        for environment in ["", "staging", "production"] {
            let mut wrangler = setup::node_command("wrangler");
            // The Workers were built a moment ago; wrangler's own build step would do it again six times.
            wrangler.args(["deploy", "--dry-run", "--config", config, "--env", environment]).env("EDGE_IS_BUILT", "1");
            let name = if environment.is_empty() { "dev" } else { environment };
            step(
                &format!("wrangler's dry run of {worker} for {name}"),
                &setup::logs().join(format!("wrangler-{worker}-{name}.log")),
                &mut wrangler,
            )?;
        }
    }
    Ok(())
}

fn end_to_end() -> Result<()> {
    setup::databases()?;
    wasm::build_all()?;
    setup::build_origin()?;
    tests(&["-p", "e2e"])
}
