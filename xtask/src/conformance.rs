//! `cargo xtask conformance`: the public suite http-cache-tests against the edge, twice: as it is by default, and with
//! the two rules on that RFC 9111 leaves to the cache. `tests/conformance/known.md` names every test that may fail.
use crate::fleet::{Fleet, Mode, Options};
use crate::process::{Process, await_answer, free_port};
use crate::proxy::{new_key, vars};
use crate::ui::{say, tail};
use crate::{Doing, Error, Result, root, said, setup};
use clap::Args;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[derive(Args, Default)]
pub struct Conformance {
    /// A checkout of the suite (github.com/http-tests/cache-tests, after `npm install` there); without it, the released
    /// version is installed from npm.
    #[arg(long)]
    suite: Option<PathBuf>,
}

/// What the suite says of one test.
#[derive(Clone, Debug, Deserialize)]
struct Outcome {
    id: String,
    group: String,
    kind: Kind,
    passed: bool,
    why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Required,
    Optimal,
    /// A question about behaviour; no answer to it is wrong.
    Check,
}

/// The tests that may fail, by what they fail with.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    /// Whatever the settings.
    always: BTreeSet<String>,
    /// As the edge is by default; with both rules on they pass.
    by_default: BTreeSet<String>,
    /// Of both, those that the released version does not have.
    unreleased: BTreeSet<String>,
}

/// How a reason begins of tests that the released version does not have.
const UNRELEASED: &str = "not in the released version; ";

/// Required tests that there are: of the version from npm, and of the current one, as README says. With fewer the suite was not
/// run as a whole.
const REQUIRED_RELEASED: usize = 165;
const REQUIRED_CURRENT: usize = 160;

/// Reads the lists of `known.md`: `- \`id\`, \`id\`: reason`, those of the section "Settings" apart.
fn known(text: &str) -> Result<Known> {
    let mut known = Known::default();
    let mut is_settings = false;
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            is_settings = title.starts_with("Settings");
        }
        let Some(item) = line.strip_prefix("- `") else { continue };
        let Some((ids, reason)) = item.split_once("`: ") else {
            return said(format!("known.md: an entry without a reason: {line}"));
        };
        if reason.trim().len() < 10 {
            return said(format!("known.md: a reason that says nothing: {line}"));
        }
        let ids = || ids.split("`, `").map(String::from);
        let into = if is_settings { &mut known.by_default } else { &mut known.always };
        into.extend(ids());
        if reason.starts_with(UNRELEASED) {
            known.unreleased.extend(ids());
        }
    }
    Ok(known)
}

fn suite_file(suite: &Path, name: &str) -> PathBuf {
    let new = suite.join("test-engine").join(name);
    if new.exists() { new } else { suite.join(name) }
}

fn run_suite(suite: &Path, base: &str, ids: &[&str]) -> Result<Vec<Outcome>> {
    let log = setup::logs().join("conformance.log");
    let mut node = setup::node_command("node");
    node.arg("--no-warnings").arg(root().join("tests/conformance/run.mjs")).arg(suite).arg(base).args(ids);
    let output = node.output().doing("cannot start node")?;
    std::fs::write(&log, &output.stderr).doing("cannot write a log")?;
    if !output.status.success() {
        for line in tail(&log, 15) {
            eprintln!("    | {line}");
        }
        return said("the suite itself failed");
    }
    serde_json::from_slice(&output.stdout).map_err(|error| Error::Said(format!("the suite's report: {error}")))
}

impl Conformance {
    pub fn run(self) -> Result<()> {
        setup::all()?;
        crate::wasm::build_all()?;
        let folder = root().join("tests/conformance");
        let suite = match &self.suite {
            Some(suite) => suite.canonicalize().doing(format!("cannot find {}", suite.display()))?,
            None => {
                setup::npm_install(&folder, "installing the suite")?;
                folder.join("node_modules/http-cache-tests")
            }
        };
        let text = std::fs::read_to_string(folder.join("known.md")).doing("cannot read known.md")?;
        let known = known(&text)?;
        let temporary = tempfile::tempdir().doing("cannot make a temporary folder")?;
        let server_port = free_port()?;
        let mut command = setup::node_command("node");
        command.arg(suite_file(&suite, "server/server.mjs")).current_dir(&suite);
        command.env("npm_config_protocol", "http").env("npm_config_port", server_port.to_string());
        command.env("npm_config_pidfile", temporary.path().join("pid"));
        let mut server = Process::start("the suite's origin", &temporary.path().join("server.log"), &mut command)?;
        await_answer("the suite's origin", server_port, "/", &mut [&mut server])?;
        let mut faults = Vec::new();
        for (title, on) in [("default settings", false), ("with heuristic freshness and stored cookies", true)] {
            let state = temporary.path().join(if on { "on" } else { "off" });
            let fleet = Fleet::start(Options {
                state,
                ports: vec![vec![free_port()?]],
                mode: Mode::Proxy,
                origin_url: format!("http://127.0.0.1:{server_port}"),
                token_keys: new_key("conformance")?.public_jwks().map_err(|error| Error::Said(error.to_string()))?,
                lease_ms: None,
                vars: vars(on, on),
                platform_field: None,
                counters: None,
                tied: true,
            })?;
            let mut outcomes = run_suite(&suite, &fleet.url(0), &[])?;
            again(&suite, &fleet.url(0), &mut outcomes, &known, on)?;
            print(title, &outcomes);
            let mut found = judge(&outcomes, &known, on);
            if self.suite.is_some() {
                // The lists are for the released version; another one may have mended what they name.
                found.retain(|(_, fault)| *fault == Fault::Fails);
            }
            let found = found.into_iter().map(|(text, _)| text);
            faults.extend(
                found.chain(missing(&outcomes, &known, self.suite.is_none())).map(|text| format!("{title}: {text}")),
            );
        }
        if faults.is_empty() {
            say("\nevery failing test is in tests/conformance/known.md with its reason");
            return Ok(());
        }
        for fault in &faults {
            eprintln!("  {fault}");
        }
        said("conformance is not as tests/conformance/known.md has it")
    }
}

/// The suite's own clock is the machine's: what failed on a busy one, and is not known to fail, is run by itself, and has
/// passed if it passes each time. A fault that shows every other time does not get through.
const FURTHER_TRIES: usize = 2;

fn again(suite: &Path, base: &str, outcomes: &mut [Outcome], known: &Known, on: bool) -> Result<()> {
    let unknown =
        |outcome: &&mut Outcome| !outcome.passed && outcome.kind != Kind::Check && !known.may_fail(&outcome.id, on);
    let mut failed: Vec<&mut Outcome> = outcomes.iter_mut().filter(unknown).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = failed.iter().map(|outcome| outcome.id.clone()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut tries = Vec::new();
    for _ in 0..FURTHER_TRIES {
        tries.push(run_suite(suite, base, &ids)?);
    }
    for first in &mut failed {
        let passes = tries.iter().filter(|one| has_passed(one, &first.id)).count();
        say(format!("  {}: passed {passes} of {FURTHER_TRIES} further tries ({})", first.id, first.why));
        first.passed = passes == FURTHER_TRIES;
    }
    Ok(())
}

fn has_passed(outcomes: &[Outcome], id: &str) -> bool {
    outcomes.iter().any(|outcome| outcome.id == id && outcome.passed)
}

impl Known {
    fn may_fail(&self, id: &str, on: bool) -> bool {
        self.always.contains(id) || (!on && self.by_default.contains(id))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Fails,
    Passes,
}

fn judge(outcomes: &[Outcome], known: &Known, on: bool) -> Vec<(String, Fault)> {
    let gated = outcomes.iter().filter(|outcome| outcome.kind != Kind::Check);
    gated
        .filter_map(|outcome| match (outcome.passed, known.may_fail(&outcome.id, on)) {
            (false, false) => Some((format!("{} fails: {}", outcome.id, outcome.why), Fault::Fails)),
            (true, true) => Some((format!("{} passes; take it out of known.md", outcome.id), Fault::Passes)),
            _ => None,
        })
        .collect()
}

/// What a whole run has no outcome of: a report that is cut short has no failures either.
fn missing(outcomes: &[Outcome], known: &Known, is_released: bool) -> Vec<String> {
    let required = outcomes.iter().filter(|outcome| outcome.kind == Kind::Required).count();
    let least = if is_released { REQUIRED_RELEASED } else { REQUIRED_CURRENT };
    let too_few = (required < least).then(|| format!("{required} required tests, where there are {least}"));
    let ids: BTreeSet<&String> = outcomes.iter().map(|outcome| &outcome.id).collect();
    let named =
        known.always.iter().chain(&known.by_default).filter(|id| is_released && !known.unreleased.contains(*id));
    let lost = named.filter(|id| !ids.contains(id)).map(|id| format!("{id}, which known.md names, was not run"));
    too_few.into_iter().chain(lost).collect()
}

fn print(title: &str, outcomes: &[Outcome]) {
    let mut groups: BTreeMap<&str, BTreeMap<Kind, (usize, usize)>> = BTreeMap::new();
    let mut totals: BTreeMap<Kind, (usize, usize)> = BTreeMap::new();
    for outcome in outcomes {
        for counts in [groups.entry(&outcome.group).or_default(), &mut totals] {
            let (passed, all) = counts.entry(outcome.kind).or_default();
            *passed += usize::from(outcome.passed);
            *all += 1;
        }
    }
    let row = |name: &str, counts: &BTreeMap<Kind, (usize, usize)>| {
        let cell = |kind| counts.get(&kind).map_or_else(String::new, |(passed, all)| format!("{passed}/{all}"));
        say(format!("  {name:<20}{:>10}{:>10}{:>10}", cell(Kind::Required), cell(Kind::Optimal), cell(Kind::Check)));
    };
    say(format!("\n{title}\n  {:<20}{:>10}{:>10}{:>10}", "", "required", "optimal", "check"));
    for (group, counts) in &groups {
        row(group, counts);
    }
    row("all", &totals);
    for outcome in outcomes.iter().filter(|outcome| !outcome.passed && outcome.kind != Kind::Check) {
        say(format!("  fails: {} ({})", outcome.id, outcome.why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_with_their_reasons() {
        let text =
            "# x\n## Platform\n- `a`, `b`: the platform answers 501\n## Settings\n- `c`: off by default, see above\n";
        let read = known(text).unwrap();
        assert_eq!(read.always.iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(read.by_default.iter().collect::<Vec<_>>(), ["c"]);
        assert!(known("- `a`").is_err() && known("- `a`: no").is_err());
        let unreleased =
            known("- `d`: not in the released version; the platform answers 501\n- `e`: the same reason\n").unwrap();
        assert_eq!(
            (unreleased.always.len(), unreleased.unreleased.into_iter().collect::<Vec<_>>()),
            (2, vec!["d".into()])
        );
    }

    #[test]
    fn what_is_not_listed_may_not_fail_and_what_is_may_not_pass() {
        let known = Known {
            always: ["a".to_string()].into_iter().collect(),
            by_default: ["b".to_string()].into_iter().collect(),
            unreleased: BTreeSet::new(),
        };
        let outcome =
            |id: &str, kind, passed| Outcome { id: id.into(), group: "g".into(), kind, passed, why: "w".into() };
        let count = |id, kind, passed, on| judge(&[outcome(id, kind, passed)], &known, on).len();
        assert_eq!(count("a", Kind::Required, false, true) + count("b", Kind::Optimal, false, false), 0);
        assert_eq!(count("b", Kind::Optimal, false, true), 1);
        assert_eq!(count("a", Kind::Required, true, false), 1);
        assert_eq!(count("c", Kind::Required, false, false), 1);
        assert_eq!(count("c", Kind::Check, false, false), 0);
    }
    #[test]
    fn a_report_that_is_empty_or_cut_short_is_no_run_of_the_suite() {
        let set = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let known = Known { always: set(&["a", "new"]), by_default: set(&["b"]), unreleased: set(&["new"]) };
        let outcome =
            |id: String| Outcome { id, group: "g".into(), kind: Kind::Required, passed: true, why: String::new() };
        let of = |ids: &[&str], others: usize| -> Vec<Outcome> {
            let ids = ids.iter().map(ToString::to_string);
            ids.chain((0..others).map(|n| format!("other-{n}"))).map(outcome).collect()
        };
        assert_eq!(missing(&of(&["a", "b"], REQUIRED_RELEASED - 2), &known, true), Vec::<String>::new());
        assert_eq!(missing(&of(&["a", "b"], REQUIRED_RELEASED - 3), &known, true).len(), 1);
        assert_eq!(missing(&of(&["a"], REQUIRED_RELEASED), &known, true), ["b, which known.md names, was not run"]);
        assert_eq!(missing(&[], &known, true).len(), 3);
        // Another version has other tests.
        assert_eq!(missing(&of(&[], REQUIRED_CURRENT), &known, false), Vec::<String>::new());
        assert_eq!(missing(&[], &known, false).len(), 1);
    }

    #[test]
    fn as_many_required_tests_are_wanted_of_the_current_suite_as_readme_says_there_are() {
        let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
        assert!(readme.contains(&format!("of {REQUIRED_CURRENT} required")));
    }
}
