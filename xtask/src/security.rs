//! Tests that `docs/security.md` names for what attackers try: each is to be there. A test that was given another name, or taken
//! away, leaves a promise that nobody keeps.
use crate::root;
use crate::texts::{cells, quoted, read, with_tests};

/// Where tests of rows stand that name no place, by section.
const SECTIONS: [(&str, Place); 3] = [
    ("At the edge: who sees what", Place::EndToEnd),
    ("At the edge: cuts, batches, limits, services", Place::EndToEnd),
    ("At origin: accounts, sessions, roles", Place::Origin),
];
/// Folders of the crates that a row names.
const CRATES: [(&str, &str); 4] =
    [("edge", "edge"), ("origin", "origin"), ("surrogate-cache", "cache"), ("gateway_rules", "gateway-rules")];
const END_TO_END: &str = "tests/tests/e2e";
const ATTACKS: &str = "attacks.rs";

#[derive(Clone, Copy)]
enum Place {
    /// `module::test`, or a crate before it.
    EndToEnd,
    /// `test`, and its file in brackets behind it.
    Origin,
}

/// One of these files is to have the test; where none is named, tests at all.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    files: Vec<String>,
    test: Option<String>,
}

/// Paths of a crate's file, or of all in a folder of it, that are there.
fn files_of(folder: &str, path: &str) -> Vec<String> {
    let candidates = [format!("{folder}/{path}"), format!("{folder}/tests/{path}"), format!("{folder}/src/{path}")];
    let there = candidates.into_iter().filter(|path| root().join(path).exists());
    let below = |path: String| match path.strip_suffix('/') {
        Some(folder) => with_tests(folder).into_iter().map(|(path, _)| path).collect(),
        None => vec![path],
    };
    there.flat_map(below).collect()
}

fn folder_of(name: &str) -> &'static str {
    let known = CRATES.iter().find(|(of, _)| *of == name);
    known.map(|(_, folder)| *folder).unwrap_or_else(|| panic!("no crate {name} is known"))
}

/// Of a row of the edge: `module::test`, `crate: file: test`, `crate: file`, `crate: module::`, `gateway_rules::module::test`.
fn named_at_the_edge(cell: &str) -> Vec<Named> {
    let mut all = Vec::new();
    let mut before = "";
    for (at, part) in cell.split('`').enumerate() {
        if at % 2 == 0 {
            before = part;
            continue;
        }
        let words: Vec<&str> = part.split(": ").collect();
        let (folder, path, test) = match words[..] {
            _ if before.ends_with("fuzz target ") => ("fuzz/targets", format!("{part}.rs"), None),
            [name, path, test] => (folder_of(name), path.to_string(), Some(test)),
            [name, path] => {
                (folder_of(name), path.strip_suffix("::").map_or(path.into(), |path| format!("{path}.rs")), None)
            }
            _ => match part.split("::").collect::<Vec<_>>()[..] {
                ["gateway_rules", module] => (folder_of("gateway_rules"), format!("{module}.rs"), None),
                ["gateway_rules", module, test] => (folder_of("gateway_rules"), format!("{module}.rs"), Some(test)),
                [module, test] => (END_TO_END, format!("{module}.rs"), Some(test)),
                _ => panic!("no test is named so: {part}"),
            },
        };
        all.push(Named { files: files_of(folder, &path), test: test.map(String::from) });
    }
    all
}

/// Of a row of origin: names, and in brackets behind them their file; none is [`ATTACKS`].
fn named_at_origin(cell: &str) -> Vec<Named> {
    let mut all = Vec::new();
    // Each part begins with names and, but for the last, ends with their file.
    let mut rest = cell;
    while !rest.is_empty() {
        let (names, path, behind) = match rest.split_once('(') {
            Some((names, behind)) => {
                let (path, behind) = behind.split_once(')').unwrap_or_else(|| panic!("no bracket closes: {cell}"));
                (names, path, behind)
            }
            None => (rest, ATTACKS, ""),
        };
        let files = match path.strip_prefix("e2e/") {
            Some(path) => files_of(END_TO_END, path),
            None => files_of("origin", path),
        };
        all.extend(quoted(names).map(|test| Named { files: files.clone(), test: Some(test.into()) }));
        rest = behind;
    }
    all
}

/// Whether a source has a test of this name.
fn has_test(source: &str, name: &str) -> bool {
    source.match_indices(&format!("fn {name}(")).any(|(at, _)| {
        let above = source[..at].rsplit_once('\n').map_or("", |(above, _)| above);
        let attributes = above.lines().rev().map(str::trim).take_while(|line| line.starts_with("#["));
        let attributes: Vec<&str> = attributes.collect();
        attributes.iter().any(|line| line.contains("test")) && !attributes.iter().any(|line| line.contains("ignore"))
    })
}

/// Rows of a section's table: their last cells.
fn tests_of(markdown: &str, heading: &str) -> Vec<String> {
    let text = markdown.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no heading {heading}"));
    let rows = text.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with('|')).skip(2);
    let test = |row: &str| {
        let [_, _, test] = cells(row)[..] else { panic!("three cells: {row}") };
        test.to_string()
    };
    rows.map(test).collect()
}

#[test]
fn every_test_that_is_named_for_an_attack_is_there() {
    let markdown = read("docs/security.md");
    let mut count = 0;
    for (heading, place) in SECTIONS {
        for cell in tests_of(&markdown, heading) {
            let named = match place {
                Place::EndToEnd => named_at_the_edge(&cell),
                Place::Origin => named_at_origin(&cell),
            };
            assert!(!named.is_empty(), "no test is named: {cell}");
            for Named { files, test } in named {
                assert!(!files.is_empty(), "there is no such file: {cell}");
                let sources: Vec<String> = files.iter().map(|path| read(path)).collect();
                match test {
                    Some(test) => {
                        let is_there = sources.iter().any(|source| has_test(source, &test));
                        assert!(is_there, "{files:?} has no test {test}, which docs/security.md names");
                    }
                    None => assert!(
                        sources.iter().any(|source| source.contains("#[test]") || source.contains("fuzz_target!(")),
                        "{files:?} has no test at all: {cell}"
                    ),
                }
                count += 1;
            }
        }
    }
    assert_eq!(SECTIONS.len(), markdown.matches("| test |").count(), "every table is looked at");
    assert!(count > 120, "so few are found: {count}");
}

#[test]
fn names_are_taken_apart_and_tests_are_told_from_other_functions() {
    let named = |files: &[&str], test: Option<&str>| Named {
        files: files.iter().map(|path| path.to_string()).collect(),
        test: test.map(String::from),
    };
    let cell =
        "`limits::a_b`; also: `origin: rendered.rs: c`, `edge: query::`, `gateway_rules::fields`, fuzz target `cuts`";
    let expected = [
        named(&["tests/tests/e2e/limits.rs"], Some("a_b")),
        named(&["origin/tests/rendered.rs", "origin/src/rendered.rs"], Some("c")),
        named(&["edge/src/query.rs"], None),
        named(&["gateway-rules/src/fields.rs"], None),
        named(&["fuzz/targets/cuts.rs"], None),
    ];
    assert_eq!(named_at_the_edge(cell), expected);
    let cell = "`a`, `b` (roles.rs), `c` (e2e/accounts.rs), `d`";
    let expected = [
        named(&["origin/tests/roles.rs"], Some("a")),
        named(&["origin/tests/roles.rs"], Some("b")),
        named(&["tests/tests/e2e/accounts.rs"], Some("c")),
        named(&["origin/tests/attacks.rs"], Some("d")),
    ];
    assert_eq!(named_at_origin(cell), expected);
    let source = "#[test]\nfn a() {}\n#[tokio::test(x)]\n#[cfg(unix)]\nasync fn b() {}\n#[test]\n#[ignore]\nfn c() {}\n\nfn d() {}\n";
    assert_eq!(["a", "b", "c", "d", "e"].map(|name| has_test(source, name)), [true, true, false, false, false]);
}
