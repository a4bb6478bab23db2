//! Words of errors, in two places that must agree: the code that says them, and the table of `docs/api.md`. Clients are
//! promised that the words stay as they are, so each must be known to be one.
use crate::texts::{cells, quoted, read, sources};
use std::collections::BTreeMap;

/// Status and word.
type Problem = (u16, String);
/// Of each, who says it, in the order of the alphabet.
type Problems = BTreeMap<Problem, Vec<&'static str>>;

const EDGE: &str = "edge";
/// The edge below `/__edge/`, and the journal behind it.
const PAGES: &str = "`/__edge/`";
const ORIGIN: &str = "origin";

const FOLDERS: [(&str, &str); 8] = [
    ("edge/src", EDGE),
    ("cache/src", EDGE),
    ("gateway-rules/src", EDGE),
    ("platform/src", EDGE),
    ("tokens/src", EDGE),
    ("journal/src", PAGES),
    ("kv-schemas/src", PAGES),
    ("origin/src", ORIGIN),
];
/// Files of the edge that answer below `/__edge/` alone.
const OF_PAGES: [&str; 3] = ["ops.rs", "purge_intake.rs", "warm.rs"];

/// What does not stand behind its status in the code: the file and the text by which it is known there.
const BY_ANOTHER_WAY: [(&str, &str, u16, &str, &str); 10] = [
    ("edge/src/identity.rs", "\"token-expired\"", 401, "token-expired", EDGE),
    ("edge/src/identity.rs", "\"token-refused\"", 401, "token-refused", EDGE),
    ("kv-schemas/src/purge.rs", "SLUG: &str = \"log-unannounced\"", 409, "log-unannounced", PAGES),
    ("origin/src/edits.rs", "WHAT: &'static str = \"title\"", 422, "invalid-title", ORIGIN),
    ("origin/src/edits.rs", "kept!(\"person\"", 422, "invalid-person", ORIGIN),
    ("origin/src/edits.rs", "kept!(\"genre\"", 422, "invalid-genre", ORIGIN),
    ("origin/src/edits.rs", "kept!(\"collection\"", 422, "invalid-collection", ORIGIN),
    ("origin/src/edits.rs", "kept!(\"rail\"", 422, "invalid-rail", ORIGIN),
    ("origin/src/edits.rs", "kept!(\"season\"", 422, "invalid-season", ORIGIN),
    ("origin/src/http/bulk.rs", "WHAT: &str = \"bulk\"", 422, "invalid-bulk", ORIGIN),
];
/// Where a problem is made of a status or a word that is handed there.
const HANDED: [&str; 6] = [
    "edge/src/gateway.rs",
    "edge/src/identity.rs",
    "edge/src/respond.rs",
    "kv-schemas/src/purge.rs",
    "origin/src/catalog/validate.rs",
    "origin/src/http/error.rs",
];

/// `404, "not-found"` at the beginning, with white space between.
fn pair(text: &str) -> Option<Problem> {
    let status = text.get(..3)?.parse().ok().filter(|status| (400..600).contains(status))?;
    let word = text[3..].strip_prefix(',')?.trim_start().strip_prefix('"')?.split('"').next()?;
    let is_word = word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    is_word.then(|| (status, word.to_string()))
}

/// Every pair that stands in a source.
fn pairs(source: &str) -> Vec<Problem> {
    let begins = |at: &usize| !source[..*at].ends_with(|c: char| c.is_ascii_alphanumeric() || "_.".contains(c));
    source.match_indices(['4', '5']).map(|(at, _)| at).filter(begins).filter_map(|at| pair(&source[at..])).collect()
}

fn said() -> Problems {
    let mut problems = Problems::new();
    let mut add = |problem: Problem, who: &'static str| {
        let known = problems.entry(problem).or_default();
        if !known.contains(&who) {
            known.push(who);
        }
        known.sort_unstable();
    };
    for (folder, who) in FOLDERS {
        for (path, source) in sources(folder) {
            let is_of_pages = who == EDGE && OF_PAGES.iter().any(|file| path.ends_with(&format!("/{file}")));
            for problem in pairs(&source) {
                add(problem, if is_of_pages { PAGES } else { who });
            }
            for call in source.split("Problem::new(").skip(1) {
                let is_handed = HANDED.contains(&path.as_str());
                assert!(pair(call.trim_start()).is_some() || is_handed, "{path}: no status and word: {:.60}", call);
            }
        }
    }
    for (path, text, status, word, who) in BY_ANOTHER_WAY {
        assert!(read(path).contains(text), "{path} has no {text}: is {word} said any more?");
        add((status, word.into()), who);
    }
    problems
}

/// Rows of the table: status, words, who says them, and when.
fn documented(markdown: &str) -> Problems {
    let mut problems = Problems::new();
    for row in markdown.lines() {
        let [status, words, who, says] = cells(row)[..] else { continue };
        let Ok(status) = status.parse::<u16>() else { continue };
        assert!(!says.is_empty(), "{row}");
        for word in quoted(words) {
            let whom = [EDGE, ORIGIN, PAGES].into_iter().filter(|one| who.split(", ").any(|name| name == *one));
            let mut whom: Vec<&str> = whom.collect();
            assert_eq!(whom.len(), who.split(", ").count(), "{row}");
            whom.sort_unstable();
            assert_eq!(problems.insert((status, word.into()), whom), None, "twice: {status} {word}");
        }
    }
    problems
}

#[test]
fn every_word_of_an_error_stands_in_the_table_and_no_other() {
    let (said, table) = (said(), documented(&read("docs/api.md")));
    for (problem, whom) in &said {
        assert_eq!(table.get(problem), Some(whom), "{problem:?}, as the code says it, in docs/api.md");
    }
    let gone: Vec<_> = table.keys().filter(|problem| !said.contains_key(*problem)).collect();
    assert!(gone.is_empty(), "nobody says {gone:?}");
    assert!(said.len() > 70, "so few are found: {said:?}");
}

#[test]
fn pairs_are_found_where_they_stand_and_nothing_else_is() {
    let found =
        pairs("f(404, \"not-found\"); (503,\n   \"busy\", \"The\") 1404, \"no\" x.500, \"no\" (500, \"The service\")");
    assert_eq!(found, [(404, "not-found".to_string()), (503, "busy".to_string())]);
}
