//! Sources and documents as texts, for tests that compare what the one does with what the other promises.
use crate::root;
use std::path::Path;

/// A file of the checkout.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Each file of Rust below a folder, by its path, in the order of the alphabet.
fn files(folder: &str, into: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            files(&path, into);
        } else if Path::new(&path).extension().is_some_and(|extension| extension == "rs") {
            into.push((path.clone(), read(&path)));
        }
    }
}

/// Each file of Rust below a folder, by its path, with its tests.
pub fn with_tests(folder: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    files(folder, &mut all);
    all
}

/// The same without what is only for tests.
pub fn sources(folder: &str) -> Vec<(String, String)> {
    let without_tests = |text: &str| text.split("#[cfg(test)]\nmod ").next().unwrap().to_string();
    with_tests(folder).into_iter().map(|(path, text)| (path, without_tests(&text))).collect()
}

/// What stands between backticks, in order.
pub fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What stands between double quotes at the beginning.
pub fn literal(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix('"')?.split('"').next()
}

/// Up to the bracket that closes what was opened before.
pub fn enclosed(text: &str) -> &str {
    let mut depth = 0_i32;
    let end = text.find(|c| {
        depth += i32::from("([{".contains(c)) - i32::from(")]}".contains(c));
        depth < 0
    });
    &text[..end.unwrap_or(text.len())]
}

/// Cells of a row of a table, without the white space around them.
pub fn cells(row: &str) -> Vec<&str> {
    row.trim().trim_start_matches('|').trim_end_matches('|').split('|').map(str::trim).collect()
}
