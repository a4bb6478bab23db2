//! The gate on what the hit path costs: instructions, counted by Callgrind, which hardly differ from run to run where times
//! do. `microbench/instructions.json` holds what was counted when somebody last looked; more than the tolerance above it
//! is a regression, more than that below it a figure to be written anew: as long as it is not, what was won can be lost again
//! without a word.
use crate::ui::say;
use crate::{Doing, Result, root, said, setup, target};
use clap::Args;
use std::collections::BTreeMap;
use std::process::Command;

/// Another machine has another `memcpy`, another compiler inlines differently.
const TOLERANCE_PERCENT: u64 = 10;

#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Instructions {
    /// Takes what is counted now as the figures to compare with.
    #[arg(long)]
    write: bool,
}

/// Instructions of one run of each case.
type Figures = BTreeMap<String, u64>;

impl Instructions {
    pub fn run(self) -> Result<()> {
        setup::valgrind()?;
        let mut cargo = crate::cargo();
        cargo.args(["build", "--release", "--package", "microbench"]).current_dir(root());
        crate::ui::step("building the micro-benchmarks", &setup::logs().join("microbench.log"), &mut cargo)?;
        let counted = count_all()?;
        let file = root().join("microbench/instructions.json");
        if self.write {
            let text = serde_json::to_string_pretty(&counted).unwrap_or_default();
            return std::fs::write(&file, format!("{text}\n")).doing(format!("cannot write {}", file.display()));
        }
        let text = std::fs::read_to_string(&file).doing(format!("cannot read {}", file.display()))?;
        let known: Figures = match serde_json::from_str(&text) {
            Ok(known) => known,
            Err(error) => return said(format!("{}: {error}", file.display())),
        };
        compare(&known, &counted)
    }
}

fn count_all() -> Result<Figures> {
    let program = target().join("release/microbench");
    let names = Command::new(&program).output().doing("cannot list the micro-benchmarks")?;
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    // Independent of each other: as many at once as there are processors.
    let names: Vec<&str> = names.lines().collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let figures = std::sync::Mutex::new(Ok(Figures::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let one = count(&program, name);
                    let mut all = figures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    match (one, all.as_mut()) {
                        (Ok(instructions), Ok(all)) => drop(all.insert((*name).into(), instructions)),
                        (Err(error), Ok(_)) => *all = Err(error),
                        (_, Err(_)) => {}
                    }
                }
            });
        }
    });
    figures.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn count(program: &std::path::Path, name: &str) -> Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*microbench*counted*"]);
    let output = valgrind.arg(program).arg(name).output().doing("cannot start valgrind")?;
    let said_by = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (text, errors) = (said_by(&output.stdout), said_by(&output.stderr));
    let runs = text.split_whitespace().next().and_then(|runs| runs.parse::<u64>().ok());
    let total = errors.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse::<u64>().ok());
    match (runs, total) {
        (Some(runs), Some(total)) if runs > 0 && total > 0 && output.status.success() => Ok(total / runs),
        _ => said(format!("Callgrind counted nothing of {name:?}: {text}{errors}")),
    }
}

fn compare(known: &Figures, counted: &Figures) -> Result<()> {
    let mut wrong = Vec::new();
    for (name, now) in counted {
        let before = known.get(name).copied();
        let change = before.map(|before| 100 * now / before.max(1));
        let note = change.map_or("new".into(), |percent| format!("{percent} %"));
        say(format!("  {name:<40} {now:>9} instructions  {note}"));
        match change {
            Some(percent) if percent > 100 + TOLERANCE_PERCENT => wrong.push(format!("{name}: {percent} % of before")),
            Some(percent) if percent + TOLERANCE_PERCENT < 100 => {
                wrong.push(format!("{name}: {percent} % of before, which is to be written down"));
            }
            Some(_) => {}
            None => wrong.push(format!("{name}: no figure to compare with")),
        }
    }
    wrong.extend(known.keys().filter(|name| !counted.contains_key(*name)).map(|name| format!("{name}: not there")));
    if wrong.is_empty() {
        return Ok(());
    }
    said(format!("{}; if that is meant, write it down: `cargo xtask instructions --write`", wrong.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_tolerance_or_another_set_of_cases_is_an_error() {
        let of = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, n)| (name.to_string(), *n)).collect::<Figures>();
        assert!(compare(&of(&[("a", 100)]), &of(&[("a", 110)])).is_ok());
        assert!(compare(&of(&[("a", 100)]), &of(&[("a", 90)])).is_ok());
        assert!(compare(&of(&[("a", 100)]), &of(&[("a", 89)])).is_err(), "it could grow by as much again");
        assert!(compare(&of(&[("a", 100)]), &of(&[("a", 111)])).is_err());
        assert!(compare(&of(&[]), &of(&[("a", 1)])).is_err());
        assert!(compare(&of(&[("a", 1)]), &of(&[])).is_err());
    }
}
