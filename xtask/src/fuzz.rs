//! `cargo xtask fuzz`: every parser that reads what strangers send, under libFuzzer, for a while each.
use crate::ui::{say, step, tail};
use crate::{Doing, Result, root, said, setup, target};
use clap::Args;
use std::process::Command;

const CARGO_FUZZ: &str = "0.13.2";

#[derive(Args)]
pub struct Fuzz {
    /// Seconds for each target.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// One target alone.
    #[arg(long)]
    target: Option<String>,
}

fn targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz/targets");
    let mut names = Vec::new();
    for file in std::fs::read_dir(&folder).doing(format!("cannot read {}", folder.display()))? {
        let path = file.doing("cannot read the fuzz targets")?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

impl Fuzz {
    pub fn for_seconds(seconds: u64) -> Self {
        Self { seconds, target: None }
    }

    pub fn run(self) -> Result<()> {
        setup::cargo_tool("cargo-fuzz", CARGO_FUZZ)?;
        setup::cpp()?;
        let all = targets()?;
        let chosen: Vec<&String> =
            all.iter().filter(|name| self.target.as_ref().is_none_or(|target| target == *name)).collect();
        if chosen.is_empty() {
            return said(format!("there is no such target; there are {}", all.join(", ")));
        }
        let log = setup::logs().join("fuzz-build.log");
        step("building the fuzz targets", &log, cargo_fuzz("build").args(["--fuzz-dir", "fuzz"]))?;
        for name in chosen {
            fuzz(name, self.seconds)?;
        }
        Ok(())
    }
}

/// Without a sanitizer the stable compiler will do, and there is no unsafe code to watch; overflow checks are on.
fn cargo_fuzz(what: &str) -> Command {
    let mut cargo = crate::cargo();
    cargo.args(["fuzz", what, "-s", "none"]).env("CARGO_TARGET_DIR", target().join("fuzz")).current_dir(root());
    cargo
}

fn fuzz(name: &str, seconds: u64) -> Result<()> {
    let log = setup::logs().join(format!("fuzz-{name}.log"));
    let mut run = cargo_fuzz("run");
    run.args(["--fuzz-dir", "fuzz", name, "--"]);
    run.arg(format!("-max_total_time={seconds}")).arg("-rss_limit_mb=2000");
    step(&format!("fuzzing {name} for {seconds} s"), &log, &mut run)?;
    // It ends well, too, if there was nothing it could run.
    match tail(&log, 5).into_iter().rfind(|line| runs(line).is_some_and(|runs| runs > 0)) {
        Some(line) => say(format!("    {line}")),
        None => return said(format!("fuzzing {name} ran nothing: see {}", log.display())),
    }
    Ok(())
}

/// Of libFuzzer's last line, `Done 1234 runs in 5 second(s)`.
fn runs(line: &str) -> Option<u64> {
    line.strip_prefix("Done ")?.split_once(" runs in ")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_off_the_line_that_says_how_many_there_were() {
        assert_eq!(runs("Done 1234 runs in 5 second(s)"), Some(1234));
        assert_eq!(runs("Done 0 runs in 6 second(s)"), Some(0));
        assert_eq!(runs("#2\tINITED cov: 3 ft: 4"), None);
    }
}
