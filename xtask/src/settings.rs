//! What operators can set, in two places that must agree: the code that reads it, and the tables of `docs/operating.md`, which
//! promise to have every setting. Defaults are compared where both places say them.
use crate::texts::{cells, enclosed, literal, quoted, read, sources};
use std::collections::{BTreeMap, BTreeSet};

const DOCUMENT: &str = "docs/operating.md";
/// Where the Workers read what is set for them. What is in the last two is the journal's as well.
const OF_WORKERS: [&str; 3] = ["edge/src", "journal/src", "platform/src"];
const OF_THE_JOURNAL: [&str; 2] = ["journal/src", "platform/src"];
/// For tests alone: operators are not told.
const TEST_PANICS: &str = "TEST_PANICS";
/// Calls that read a variable by its name; the last reads what is bound besides.
const READERS: [&str; 4] = ["text", "number", "switch", "binding"];

/// Where options of `origin serve` stand: the file, and the type that has them.
const OF_SERVE: [(&str, &str); 3] = [
    ("origin/src/main.rs", "Serve"),
    ("origin/src/store/settings.rs", "Settings"),
    ("origin/src/sweep.rs", "Retention"),
];
/// No option: whoever writes the log reads it itself.
const RUST_LOG: (&str, &str) = ("RUST_LOG", "try_from_default_env().unwrap_or_else(|_| \"info\".into())");

/// What a variable is unless it is set, as far as the place where it is read says it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Default {
    Required,
    Is(String),
    /// It is said elsewhere, or nothing is.
    Unsaid,
}

impl Default {
    /// Whether the table's cell says so.
    fn agrees(&self, cell: &str) -> bool {
        match self {
            Self::Required => cell == "required",
            Self::Is(value) => cell.trim_matches('`') == value,
            Self::Unsaid => cell != "required",
        }
    }
}

/// A number as tables have it.
fn number(text: &str) -> Option<String> {
    let digits = text.trim().trim_end_matches(',').replace('_', "");
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
}

/// Every variable that a source reads, by what reads it: `text("NAME")`, `number(text, "NAME", 1)` and their like.
fn read_by_workers(source: &str) -> Vec<(&str, String, Default)> {
    let mut all = Vec::new();
    for (at, _) in source.match_indices('(') {
        let reader = source[..at].rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
        if !READERS.contains(&reader) {
            continue;
        }
        let call = enclosed(&source[at + 1..]);
        let is_env = |argument: &str| ["env", "&env", "&call.env", "text"].contains(&argument.trim());
        let rest = match call.split_once(',').filter(|(first, _)| is_env(first)) {
            Some((_, rest)) => rest,
            None if reader == "text" && call.starts_with('"') => call,
            None => continue,
        };
        let Some(name) = literal(rest) else {
            let handed = rest.split(',').next().unwrap().trim();
            assert_eq!(handed, "name", "a variable's name is to stand where it is read: {call}");
            continue;
        };
        let behind = &source[at + 1 + call.len()..];
        let default = match rest.split_once("\",") {
            _ if behind.starts_with(").ok_or(") => Default::Required,
            _ if reader == "switch" => Default::Is("off".into()),
            Some((_, default)) => number(default).map_or(Default::Unsaid, Default::Is),
            None => Default::Unsaid,
        };
        all.push((reader, name.to_string(), default));
    }
    all
}

/// The same of all files of these folders: variables, and what else is bound.
fn of_workers(folders: &[&str]) -> (BTreeMap<String, Default>, BTreeSet<String>) {
    let (mut variables, mut bound) = (BTreeMap::new(), BTreeSet::new());
    for (_, source) in folders.iter().flat_map(|folder| sources(folder)) {
        for (reader, name, default) in read_by_workers(&source) {
            if reader == "binding" {
                bound.insert(name);
            } else {
                let known = variables.entry(name.clone()).or_insert_with(|| default.clone());
                assert_eq!(*known, default, "{name} has one default");
            }
        }
    }
    (variables, bound)
}

/// What stands below a heading of the document.
fn section(heading: &str) -> String {
    let document = read(DOCUMENT);
    let text = document.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no heading {heading}"));
    text.split("\n## ").next().unwrap().to_string()
}

/// Rows of a table: what stands between backticks in their first cell, and the second.
fn table(markdown: &str) -> Vec<(Vec<String>, String)> {
    let rows = markdown.lines().filter(|line| line.starts_with("| `"));
    let row = |row: &str| {
        let [names, default, meaning] = cells(row)[..] else { panic!("three cells: {row}") };
        assert!(!meaning.is_empty(), "{row}");
        (quoted(names).map(String::from).collect(), default.to_string())
    };
    rows.map(row).collect()
}

/// An option of `origin serve`, as clap is told of it.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    option: String,
    variable: String,
    default: Default,
}

/// The options of a type that clap reads, and the types of those it has besides.
fn options_of(source: &str, of: &str) -> (Vec<Setting>, Vec<String>) {
    let declared = source.split(&format!("struct {of} {{")).nth(1).unwrap_or_else(|| panic!("there is no {of}"));
    let (mut options, mut others) = (Vec::new(), Vec::new());
    for (kind, attribute) in enclosed(declared).split("#[").skip(1).filter_map(|text| text.split_once('(')) {
        let told = enclosed(attribute);
        let field = attribute[told.len()..].trim_start_matches([')', ']']).trim_start();
        let (name, rest) = field.split_once(':').unwrap();
        let ty = rest.trim_start().split(",\n").next().unwrap();
        if kind == "command" {
            others.push(ty.to_string());
        }
        if kind != "arg" || told == "skip" {
            continue;
        }
        let said = |what: &str| told.split(&format!("{what} = ")).nth(1);
        let name = name.trim_start_matches("pub ").replace('_', "-");
        let variable = said("env").and_then(literal).unwrap_or_else(|| panic!("--{name} has no variable: {told}"));
        assert!(told.starts_with("long,"), "--{name} is named as its field: {told}");
        let default = match (said("default_value_t"), said("default_value").and_then(literal)) {
            (Some(value), _) => Default::Is(number(value.split([',', ')']).next().unwrap()).unwrap()),
            (_, Some(value)) => Default::Is(value.into()),
            _ if ty == "bool" => Default::Is("off".into()),
            _ if ty.starts_with("Option<") || ty.starts_with("Vec<") => Default::Unsaid,
            _ => Default::Required,
        };
        options.push(Setting { option: format!("--{name}"), variable: variable.into(), default });
    }
    (options, others)
}

#[test]
fn every_setting_of_the_worker_stands_in_the_table_and_no_other() {
    let section = section("Settings of the Worker");
    let (mut code, bound) = of_workers(&OF_WORKERS);
    assert!(code.remove(TEST_PANICS).is_some(), "nobody reads {TEST_PANICS}");
    let mut rows = BTreeMap::new();
    for (names, default) in table(&section) {
        for name in names {
            assert_eq!(rows.insert(name.clone(), default.clone()), None, "twice: {name}");
        }
    }
    for (name, default) in &code {
        let cell = rows.get(name).unwrap_or_else(|| panic!("{name} does not stand in {DOCUMENT}"));
        assert!(default.agrees(cell), "{name} is {default:?} in the code, and {cell:?} in {DOCUMENT}");
    }
    let gone: Vec<_> = rows.keys().filter(|name| !code.contains_key(*name)).collect();
    assert!(gone.is_empty(), "nobody reads {gone:?}");
    assert!(code.len() > 20, "so few are found: {code:?}");

    let text = section.split_whitespace().collect::<Vec<_>>().join(" ");
    let sentence = |begin: &str| -> BTreeSet<String> {
        let behind = text.split(begin).nth(1).unwrap_or_else(|| panic!("{DOCUMENT} says no {begin:?}"));
        quoted(behind.split(". ").next().unwrap()).map(String::from).collect()
    };
    let limits = read("gateway-rules/src/limits.rs");
    let limits = limits.split("Some(\"LIMIT_").skip(1).map(|text| format!("LIMIT_{}", text.split('"').next().unwrap()));
    let bound: BTreeSet<String> = bound.into_iter().chain(limits).collect();
    assert_eq!(sentence("Bindings: "), bound, "what is bound, in {DOCUMENT}");
    let of_the_journal: BTreeSet<String> = of_workers(&OF_THE_JOURNAL).0.into_keys().collect();
    assert_eq!(sentence("The journal reads "), of_the_journal, "what the journal reads, in {DOCUMENT}");
}

#[test]
fn every_setting_of_the_origin_stands_in_the_table_and_no_other() {
    let mut rows = BTreeMap::new();
    for (names, default) in table(&section("Settings of the origin")) {
        assert_eq!(rows.insert(names.clone(), default), None, "twice: {names:?}");
    }
    let main = read(OF_SERVE[0].0);
    assert!(main.contains(RUST_LOG.1), "the log is read from the environment");
    assert_eq!(rows.remove(&[RUST_LOG.0.to_string()][..]).as_deref(), Some("`info`"));
    let (mut code, mut types) = (Vec::new(), BTreeSet::from(["Serve".to_string()]));
    for (file, of) in OF_SERVE {
        let (options, others) = options_of(&read(file), of);
        code.extend(options);
        types.extend(others);
    }
    assert_eq!(types, BTreeSet::from(OF_SERVE.map(|(_, of)| of.to_string())), "what `serve` takes stands in these");
    for Setting { option, variable, default } in &code {
        let cell = rows.remove(&[option.clone(), variable.clone()][..]);
        let cell = cell.unwrap_or_else(|| panic!("`{option}`, `{variable}` do not stand in {DOCUMENT}"));
        assert!(default.agrees(&cell), "{option} is {default:?} in the code, and {cell:?} in {DOCUMENT}");
    }
    assert!(rows.is_empty(), "nobody reads {:?}", rows.keys());
    assert!(code.len() > 20, "so few are found: {code:?}");
    for (file, source) in sources("origin/src") {
        assert!(!source.contains("env::var"), "{file}: what is set is an option, with a variable");
    }
}

/// The gates' bounds are in no attribute of clap's: they stand in the table, and in what `--help` says.
#[test]
fn bounds_of_the_gates_are_what_is_said_of_them() {
    let gates = read("origin/src/http/shed.rs");
    let of_each = |begin: &str, form: &str| -> Vec<(String, String)> {
        let body = gates.split(begin).nth(1).and_then(|text| text.split("\n    }\n").next()).unwrap();
        let arms = body.split("Self::").skip(1).filter_map(|arm| arm.split_once(&format!(" => {form}")));
        arms.map(|(work, value)| (work.to_string(), enclosed(value).replace([',', '"', '\n'], " "))).collect()
    };
    let names = of_each("fn as_str(", "\"");
    let bounds: BTreeMap<String, String> = of_each("fn default_bounds(", "Bounds::new(").into_iter().collect();
    let limit = |(work, name): &(String, String)| {
        let numbers: Vec<String> = bounds[work].split_whitespace().filter_map(number).collect();
        format!("{}={}", name.trim(), numbers.join("/"))
    };
    let limits: Vec<String> = names.iter().map(limit).collect();
    assert!(limits.len() > 5 && limits.len() == bounds.len(), "{limits:?}");
    let rows = table(&section("Settings of the origin"));
    let (_, default) = rows.iter().find(|(names, _)| names[0] == "--limit").unwrap();
    assert_eq!(default.trim_matches('`'), limits.join(","), "--limit in {DOCUMENT}");
    let help = read(OF_SERVE[0].0);
    limits.iter().for_each(|limit| assert!(help.contains(limit), "`--help` says nothing of {limit}"));
}

#[test]
fn reads_and_options_are_taken_apart() {
    let source = "let a = text(env, \"A\").ok_or(\"no\")?; number(\n    &env,\n    \"B\",\n    1_000,\n)?; switch(env, \"C\")
        number(env, \"D\", default.d)?; js::binding(&call.env, \"E\"); text(env, name); row.text(1); into_text(env, \"F\")";
    let one = |reader, name: &str, default| (reader, name.to_string(), default);
    let is = |value: &str| Default::Is(value.into());
    let expected = [
        one("text", "A", Default::Required),
        one("number", "B", is("1000")),
        one("switch", "C", is("off")),
        one("number", "D", Default::Unsaid),
        one("binding", "E", Default::Unsaid),
    ];
    assert_eq!(read_by_workers(source), expected);

    let source = "struct A {\n    /// Says (so).\n    #[arg(long, env = \"A_B\", default_value_t = 5_000, value_parser = f().range(1..=2))]
        pub a_b: u64,\n    #[command(flatten)]\n    c: C,\n    #[arg(long, env = \"D\", default_value = \"d,e\")]\n    d: Vec<D>,
        #[arg(skip)]\n    e: u8,\n    #[arg(long, env = \"F\")]\n    f: bool,\n    #[arg(long, env = \"G\")]\n    g: PathBuf,\n}\nstruct H {";
    let one =
        |option: &str, variable: &str, default| Setting { option: option.into(), variable: variable.into(), default };
    let options = vec![
        one("--a-b", "A_B", is("5000")),
        one("--d", "D", is("d,e")),
        one("--f", "F", is("off")),
        one("--g", "G", Default::Required),
    ];
    assert_eq!(options_of(source, "A"), (options, vec!["C".to_string()]));
}
