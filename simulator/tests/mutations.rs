//! The proof that the simulator can fail: copies of the engine, each with one mistake others have made or we might, are
//! built and run until a seed finds the mistake. A mistake that no longer fits the source is an error too.
use std::path::{Path, PathBuf};
use std::process::Command;

struct Mutation {
    name: &'static str,
    /// File, what stands there once, and what stands there instead.
    edits: &'static [(&'static str, &'static str, &'static str)],
}

const MUTATIONS: [Mutation; 41] = [
    Mutation {
        name: "a clock that is set back goes unnoticed, and what lies ahead of it counts as learnt just now",
        edits: &[
            (
                "cache/src/engine.rs",
                "(arrived_ms..=now_ms).contains(&learnt_ms)",
                "now_ms > 0 && arrived_ms <= learnt_ms",
            ),
            ("cache/src/engine.rs", "        if is_back {\n", "        if false && is_back {\n"),
        ],
    },
    Mutation {
        name: "an answer is stamped when it is stored, not when its request was sent",
        edits: &[("cache/src/lookup/origin.rs", "_ => Ok(self.sent_at.clone()),", "_ => Ok(engine.view.newest()),")],
    },
    Mutation {
        name: "what comes to an isolate that holds nothing is shown, however old it is to its knowledge of soft purges",
        edits: &[("cache/src/lookup/origin.rs", "let softly = self.again == Again::No", "let softly = false")],
    },
    Mutation {
        name: "purges are compared when an answer is stored, not when it is served",
        edits: &[
            (
                "cache/src/lookup/assess.rs",
                "let verdict = engine.view.judge(entry.as_of.as_ref(), &entry.keys);",
                "let known = engine.view.log_id().is_some();
        let verdict = if known { Verdict::Clear } else { Verdict::Soft(Cause::NoLog) };",
            ),
            (
                "cache/src/engine.rs",
                "    pub fn keep(&mut self, entry: Arc<Entry<B>>) {\n",
                "    pub fn keep(&mut self, entry: Arc<Entry<B>>) {\n        if self.view.judge(entry.as_of.as_ref(), &entry.keys) != Verdict::Clear {\n            return;\n        }\n",
            ),
        ],
    },
    Mutation {
        name: "what is known of purges never grows too old (fail open)",
        edits: &[("cache/src/view.rs", "            _ => Knowledge::Unknown,", "            _ => Knowledge::Aging,")],
    },
    Mutation {
        name: "what does not fit into the view is forgotten",
        edits: &[(
            "cache/src/purged.rs",
            "            floor.take(last.soft, PurgeMode::Soft);\n            floor.take(last.soft_before, PurgeMode::Soft);\n            floor.take(last.hard, PurgeMode::Hard);\n",
            "            let _ = &floor;\n",
        )],
    },
    Mutation {
        name: "the floor of content counts for entries of every class",
        edits: &[(
            "cache/src/view.rs",
            "let others = others.map(|class| self.tables.get(class).floor());",
            "let others = others.map(|_| self.tables.content.floor());",
        )],
    },
    Mutation {
        name: "what is told as a floor of another class than content is not taken over",
        edits: &[("cache/src/view.rs", "for class in KeyClass::ALL {", "for class in [KeyClass::Content] {")],
    },
    Mutation {
        name: "a forgotten hard purge counts as a soft one",
        edits: &[(
            "cache/src/purged.rs",
            "floor.take(last.hard, PurgeMode::Hard);",
            "floor.take(last.hard, PurgeMode::Soft);",
        )],
    },
    Mutation {
        name: "another log's states are compared with this one's",
        edits: &[(
            "cache/src/view.rs",
            "        if as_of.log_id != *log_id {",
            "        if as_of.log_id != *log_id && as_of.seq == u64::MAX {",
        )],
    },
    Mutation {
        name: "the state origin names is not believed",
        edits: &[(
            "cache/src/lookup/origin.rs",
            "(LogOwner::Origin, Some(text)) =>",
            "(LogOwner::Origin, Some(text)) if text.is_empty() =>",
        )],
    },
    Mutation {
        name: "the journal takes a batch that leaves a gap",
        edits: &[
            (
                "cache/src/intake.rs",
                "    if before_first > held.head {",
                "    if before_first > held.head.saturating_mul(1_000) {",
            ),
            // Marks would notice it too.
            ("cache/src/intake.rs", "mark != 0 && held.mark != 0", "mark != 0 && held.mark == u64::MAX"),
        ],
    },
    Mutation {
        name: "the journal takes up a log from wherever its sender believes it to be",
        edits: &[("cache/src/intake.rs", "batch.purges.is_empty() && challenge", "challenge.is_none() || challenge")],
    },
    Mutation {
        name: "an announcement that was long under way is believed",
        edits: &[(
            "cache/src/intake.rs",
            "batch.purges.is_empty() && challenge.is_some_and(|challenge| challenge == batch.challenge)",
            "batch.purges.is_empty()",
        )],
    },
    Mutation {
        name: "a slot remembers that its entry was not purged, whatever the view has learnt since",
        edits: &[(
            "cache/src/hits.rs",
            "slot.cleared_at == Some(version);",
            "slot.cleared_at.is_some() || version == 0;",
        )],
    },
    Mutation {
        name: "a history that used numbers twice passes for the same",
        edits: &[("cache/src/intake.rs", "mark != 0 && held.mark != 0", "mark != 0 && held.mark == u64::MAX")],
    },
    Mutation {
        name: "what a neighbour was told counts as told now",
        edits: &[("cache/src/engine.rs", "&shared.delta, told_ms)", "&shared.delta, now_ms)")],
    },
    Mutation {
        name: "a purge is as old as the moment it was heard of",
        edits: &[(
            "cache/src/view.rs",
            "since_ms: known_ms.unwrap_or(0)",
            "since_ms: sent_ms.max(known_ms.unwrap_or(0))",
        )],
    },
    Mutation {
        name: "a part of the journal's answer counts as all of it",
        edits: &[(
            "cache/src/view.rs",
            "        if delta.until < delta.head {",
            "        if delta.until > delta.head {",
        )],
    },
    Mutation {
        name: "an answer without a state is as good as one with",
        edits: &[(
            "cache/src/view.rs",
            "            // Read before this isolate knew of any log:",
            "            if keys.len() < usize::MAX {\n                return Verdict::Clear;\n            }\n            //",
        )],
    },
    Mutation {
        name: "what a client demands is not looked at",
        edits: &[(
            "cache/src/lookup/assess.rs",
            "if let Some(min) = demands.min_as_of\n",
            "if let Some(min) = demands.min_as_of.filter(|_| known && !known)\n",
        )],
    },
    Mutation {
        name: "a receipt says that a purge is applied as soon as one isolate of each location has it",
        edits: &[(
            "cache/src/receipts.rs",
            "let is_settled = is_accepted && self.is_settled(seq, now_ms);",
            "let is_settled = is_accepted && seq < Seq::MAX;",
        )],
    },
    Mutation {
        name: "a purge settles with the one before",
        edits: &[(
            "cache/src/receipts.rs",
            "recent.map(|accepted| accepted.seq).max(held)",
            "recent.map(|accepted| accepted.seq.saturating_add(1)).max(held)",
        )],
    },
    Mutation {
        name: "what was applied is taken back when somebody comes who has not said so",
        edits: &[("cache/src/receipts.rs", " && seq.max(1) > self.said;", " && seq > 0;")],
    },
    Mutation {
        name: "what the journal answers a location counts as what that has",
        edits: &[("cache/src/receipts.rs", "{ query.since } else { 0 }", "{ held.head } else { 0 }")],
    },
    Mutation {
        name: "what a location has of another log counts",
        edits: &[(
            "cache/src/receipts.rs",
            "if query.log_id.as_ref() == Some(&held.log_id) { query.since } else { 0 }",
            "query.since",
        )],
    },
    Mutation {
        name: "of another log locations have what they had of the one before",
        edits: &[("cache/src/receipts.rs", "            location.applied = 0;\n", "")],
    },
    Mutation {
        name: "what the journal's object found when it started never settles",
        edits: &[(
            "cache/src/receipts.rs",
            "Some(self.held_to).filter(|_| self.held_from_ms < before_ms)",
            "Some(self.held_to).filter(|_| before_ms == 0)",
        )],
    },
    Mutation {
        name: "a lag is the difference of two machines' clocks",
        edits: &[("cache/src/receipts.rs", "noted_ms.filter(|_| seq > self.held_to)", "noted_ms")],
    },
    Mutation {
        name: "what the journal's object found when it started settles at once",
        edits: &[(
            "cache/src/receipts.rs",
            "Some(self.held_to).filter(|_| self.held_from_ms < before_ms)",
            "Some(self.held_to).filter(|_| before_ms < u64::MAX)",
        )],
    },
    Mutation {
        name: "a location that is late is not waited for",
        edits: &[("cache/src/receipts.rs", " && !any(LocationState::Pending) {", " {")],
    },
    Mutation {
        name: "a location that has fallen silent is waited for",
        edits: &[(
            "cache/src/receipts.rs",
            "self.heard_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) <= silent_ms)",
            "self.heard_ms.is_some() && silent_ms > 0",
        )],
    },
    Mutation {
        name: "a journal that was put back numbers on from what it has",
        edits: &[("cache/src/intake.rs", "start_ms.unwrap_or(0).min(SEQ_MAX)", "start_ms.unwrap_or(0).min(0)")],
    },
    Mutation {
        name: "who has heard of purges that were lost is not noticed",
        edits: &[(
            "cache/src/intake.rs",
            "self.after < seq && seq < self.first",
            "self.after < seq && seq < self.after",
        )],
    },
    Mutation {
        name: "a write through the edge is known where it went through by the next sync alone",
        edits: &[(
            "cache/src/engine.rs",
            "let noted = keys.iter().filter(|key| self.view.learn(state, **key)).count();",
            "let noted = if state.seq > 0 { keys.len() } else { 0 };",
        )],
    },
    Mutation {
        name: "a log of the journal's own begins as if nothing had been purged before",
        edits: &[("cache/src/intake.rs", "first: now_ms.clamp(1, SEQ_MAX)", "first: now_ms.min(0)")],
    },
    Mutation {
        name: "variants of one length are one",
        edits: &[("cache/src/vary.rs", "\\n{name}:{}:{value}", "\\n{name}:{}:")],
    },
    Mutation {
        name: "an answer that was on its way goes out past a hard purge",
        edits: &[(
            "cache/src/lookup/origin.rs",
            "            Verdict::Hard(Cause::Purged | Cause::Floor) => true,\n",
            "            Verdict::Hard(Cause::Purged | Cause::Floor) => false,\n",
        )],
    },
    Mutation {
        name: "an answer that was on its way goes out past the beginning of a log",
        edits: &[(
            "cache/src/lookup/origin.rs",
            "Verdict::Hard(Cause::OtherLog) => engine.config.log_owner == LogOwner::Journal,",
            "Verdict::Hard(Cause::OtherLog) => false,",
        )],
    },
    Mutation {
        name: "a write whose isolate ends before its purge is purged by nobody",
        edits: &[("cache/src/announced.rs", "|write| write.due_ms <= now_ms", "|write| write.due_ms == now_ms * 2")],
    },
    Mutation {
        name: "a write that was not answered counts as over once it is purged",
        edits: &[(
            "cache/src/announced.rs",
            "        self != Self::Unknown\n",
            "        self != Self::Refused || true\n",
        )],
    },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy(&item.path(), &target);
        } else {
            std::fs::copy(item.path(), target).unwrap();
        }
    }
}

/// A workspace of the engine and the simulator alone.
fn workspace(into: &Path) {
    let _ = std::fs::remove_dir_all(into);
    for folder in ["cache", "kv-schemas", "simulator"] {
        copy(&root().join(folder), &into.join(folder));
    }
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (before, members) = manifest.split_once("members = [").unwrap();
    let (_, after) = members.split_once(']').unwrap();
    let manifest = format!(r#"{before}members = ["cache", "kv-schemas", "simulator"]{after}"#);
    std::fs::write(into.join("Cargo.toml"), manifest).unwrap();
    std::fs::copy(root().join("Cargo.lock"), into.join("Cargo.lock")).unwrap();
}

/// Builds the workspace, runs seeds until one fails, and returns what was printed with whether it went well. What ends in
/// another way, by a panic say, has found no violation of any rule: that is an error, as it is if nothing can be built.
fn simulate(workspace: &Path, target: &Path) -> (bool, String) {
    let cargo = |arguments: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(arguments).args(["--quiet", "--offline", "--package", "simulator"]);
        // A mutation leaves names unused.
        cargo.env("CARGO_TARGET_DIR", target).env("RUSTFLAGS", "--cap-lints allow").current_dir(workspace);
        cargo.output().unwrap()
    };
    let built = cargo(&["build"]);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    // More locations, more that is under way at once: a second look for what takes three faults together.
    let run = |arguments: &[&str]| {
        let mut simulator = Command::new(target.join("debug/simulator"));
        let ran = simulator.args(arguments).output().unwrap();
        let [printed, errors] = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        match ran.status.code() {
            Some(0) => (true, printed),
            Some(1) => (false, printed),
            _ => panic!("the simulator ended with {}: {printed}{errors}", ran.status),
        }
    };
    let (is_clean, printed) = run(&["--seeds", "15000"]);
    if is_clean { run(&["--seeds", "40000", "--locations", "4"]) } else { (is_clean, printed) }
}

#[test]
fn every_mistake_in_the_rule_is_found_by_some_seed() {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mutations");
    let copy = target.join("workspace");
    workspace(&copy);
    let (is_clean, printed) = simulate(&copy, &target);
    assert!(is_clean, "without a mutation: {printed}");
    let mut missed = Vec::new();
    for mutation in &MUTATIONS {
        for (file, from, to) in mutation.edits {
            let text = std::fs::read_to_string(copy.join(file)).unwrap();
            assert_eq!(text.matches(from).count(), 1, "{}: {file} does not have once: {from}", mutation.name);
            std::fs::write(copy.join(file), text.replace(from, to)).unwrap();
        }
        let (is_clean, printed) = simulate(&copy, &target);
        println!("{}: {}", mutation.name, printed.lines().next().unwrap_or_default());
        if is_clean {
            missed.push(mutation.name);
        }
        for (file, _, _) in mutation.edits {
            std::fs::copy(root().join(file), copy.join(file)).unwrap();
        }
    }
    assert!(missed.is_empty(), "no seed found: {missed:?}");
}
