//! The origin by itself under mixed load: viewers' reads and editors' writes at a fixed rate, whether it keeps up or not.
//! Latencies count from the moment a request was due, so a stall shows in all that came during it.
use crate::free_port;
use crate::http::{Got, ask, send_to};
use crate::statistics::nearest_rank;
use crate::wanted::Wanted;
use fastrand::Rng;
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use xtask::origin::Database;
use xtask::postgres::{Durable, Postgres};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
pub enum Engine {
    Sqlite,
    Postgres,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Engine::Sqlite, Engine::Postgres])]
    engine: Vec<Engine>,
    /// Requests a second, reads and writes together.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Of a hundred requests, so many are writes.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    writes: u32,
    #[arg(long, default_value_t = 100_000)]
    titles: u64,
    #[arg(long, default_value_t = 1_000)]
    rails: u64,
    #[arg(long, default_value_t = 1_000_000)]
    users: u64,
    /// Keeps what was generated here, and takes it from here the next time.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// Milliseconds.
#[derive(Debug, Default, Serialize)]
pub struct Latencies {
    pub count: usize,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

#[derive(Debug, Serialize)]
pub struct Figures {
    pub engine: Engine,
    pub titles: u64,
    pub users: u64,
    pub rate: u32,
    pub reads: Latencies,
    pub writes: Latencies,
    pub by_kind: Vec<(&'static str, Latencies)>,
    pub errors: usize,
    pub first_error: Option<String>,
    /// Statements the origin found slow, and how often.
    pub slow_statements: Vec<(String, usize)>,
}

const READS_P95_MS_MAX: f64 = 25.0;
const WRITES_P95_MS_MAX: f64 = 50.0;

impl Figures {
    pub fn wanted(&self) -> [Wanted; 3] {
        let what = |what| format!("{:?}: {what}", self.engine);
        [
            Wanted::none(what("errors"), self.errors as u64),
            Wanted::below(what("client p95, ms"), READS_P95_MS_MAX, self.reads.p95),
            Wanted::below(what("admin writes' p95, ms"), WRITES_P95_MS_MAX, self.writes.p95),
        ]
    }
}

/// Engines side by side.
pub fn table(all: &[Figures]) -> String {
    let mut text = format!("{:<26}", "milliseconds");
    for figures in all {
        text += &format!("{:>34}", format!("{:?}: count  p50  p95  p99  max", figures.engine));
    }
    let mut rows: Vec<&str> = vec!["client", "admin writes"];
    rows.extend(all.iter().flat_map(|figures| figures.by_kind.iter().map(|(kind, _)| *kind)));
    let mut seen = std::collections::HashSet::new();
    for row in rows.into_iter().filter(|row| seen.insert(*row)) {
        text += &format!("\n{row:<26}");
        for figures in all {
            let found = figures.by_kind.iter().find(|(kind, _)| *kind == row).map(|(_, latencies)| latencies);
            let latencies = match row {
                "client" => Some(&figures.reads),
                "admin writes" => Some(&figures.writes),
                _ => found,
            };
            let cell = latencies.map_or_else(String::new, |Latencies { count, p50, p95, p99, max }| {
                format!("{count} {p50:>6.1} {p95:>6.1} {p99:>6.1} {max:>6.0}")
            });
            text += &format!("{cell:>34}");
        }
    }
    text
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { engine, titles, users, rate, errors, .. } = self;
        write!(f, "{engine:?}: {titles} titles, {users} users, {rate} requests/s, {errors} errors")?;
        if let Some(error) = &self.first_error {
            write!(f, "\n  such as {error}")?;
        }
        for (statement, count) in &self.slow_statements {
            write!(f, "\n  slow, {count} times: {statement}")?;
        }
        Ok(())
    }
}

fn latencies(mut ms: Vec<f64>) -> Latencies {
    ms.sort_by(f64::total_cmp);
    let [p50, p95, p99, max] = [50, 95, 99, 100].map(|percent| nearest_rank(&ms, percent));
    Latencies { count: ms.len(), p50, p95, p99, max }
}

/// A database with a catalogue, and what has to stay as long as it is used.
struct Made {
    database: Database,
    state: PathBuf,
    _servers: Option<Postgres>,
    _temporary: Option<TempDir>,
}

fn failed(what: &str, error: &std::io::Error) -> xtask::Error {
    xtask::Error::Said(format!("{what}: {error}"))
}

/// Generates the catalogue, unless the folder has it from before.
fn make(options: &Options, engine: Engine) -> xtask::Result<Made> {
    let temporary = match options.data {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(|error| failed("no folder", &error))?),
    };
    let top = options.data.as_deref().or(temporary.as_ref().map(TempDir::path)).unwrap_or(Path::new("."));
    let state = top.join(format!("{engine:?}").to_lowercase());
    std::fs::create_dir_all(&state).map_err(|error| failed("no folder", &error))?;
    let Options { titles, rails, users, .. } = options;
    let done = state.join(format!("generated-{titles}-{rails}-{users}"));
    let servers = match engine {
        Engine::Sqlite => None,
        Engine::Postgres => Some(Postgres::start_in(&state.join("server"), Durable::Yes)?),
    };
    let database = match &servers {
        None => Database::sqlite(&state),
        Some(servers) => {
            // There from before, whole or half made: generating goes on where it ended.
            let url = servers.database("nextream").unwrap_or_else(|_| servers.url("nextream"));
            Database::postgres(&url, &[])
        }
    };
    xtask::origin::keys(&state)?;
    if !done.is_file() {
        let began = Instant::now();
        let [titles, rails, users] = [titles, rails, users].map(ToString::to_string);
        let amounts = ["generate", "--titles", &titles, "--rails", &rails, "--users", &users];
        let made = xtask::origin::run(&[&amounts, database.arguments().as_slice()].concat())?;
        println!("{engine:?}: {made}, in {} s", began.elapsed().as_secs());
        std::fs::write(&done, made).map_err(|error| failed("what was generated cannot be noted", &error))?;
    }
    Ok(Made { database, state, _servers: servers, _temporary: temporary })
}

pub async fn run(options: &Options) -> xtask::Result<Vec<Figures>> {
    let mut all = Vec::new();
    for engine in &options.engine {
        let made = make(options, *engine)?;
        let port = free_port();
        let log = made.state.join("origin.log");
        let _ = std::fs::remove_file(&log);
        let origin = xtask::origin::serve_on(&made.database, &made.state, port, &[], false)?;
        let token = xtask::origin::admin_token(&made.state, "admin", 3600)?;
        let mut figures = load(options, *engine, port, token).await;
        drop(origin);
        figures.slow_statements = slow_statements(&log);
        all.push(figures);
    }
    Ok(all)
}

/// Those the origin has logged, most often first.
fn slow_statements(log: &Path) -> Vec<(String, usize)> {
    let mut counts = std::collections::HashMap::new();
    for line in std::fs::read_to_string(log).unwrap_or_default().lines() {
        if let Some((_, rest)) = line.split_once("a slow statement") {
            let words: Vec<&str> = rest.split_whitespace().skip_while(|word| !word.contains("statement")).collect();
            *counts.entry(words.join(" ").chars().take(200).collect::<String>()).or_default() += 1;
        }
    }
    let mut all: Vec<(String, usize)> = counts.into_iter().collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    all
}

const GENRES: [&str; 6] = ["drama", "comedy", "crime", "science-fiction", "war", "family"];
const TYPED: [&str; 6] = ["river", "golden city", "the silent", "empyre", "ada adler", "montain 12"];
/// No word of these is one letter away from one that there is.
const MISSPELT: [&str; 3] = ["strengar highvey", "kimgdon orcharrdd", "elektrik mashien"];
/// Links that answers gave, of each kind at most so many.
const LINKS_MAX: usize = 500;

/// What answers led to.
#[derive(Default)]
struct Links {
    people: Vec<String>,
    cursors: Vec<String>,
}

/// A request that is due.
struct Due {
    kind: &'static str,
    is_write: bool,
    method: Method,
    path: String,
    body: Option<Value>,
}

impl Due {
    fn get(kind: &'static str, path: impl Into<String>) -> Self {
        Self { kind, is_write: false, method: Method::GET, path: path.into(), body: None }
    }

    fn write(kind: &'static str, method: Method, path: impl Into<String>, body: Value) -> Self {
        Self { kind, is_write: true, method, path: path.into(), body: Some(body) }
    }
}

/// Small numbers much more often than large ones, as people choose.
fn popular(random: &mut Rng, bound: u64) -> u64 {
    let one = random.u64(0..bound.max(1));
    random.u64(0..=one)
}

fn any<'a, T: ?Sized>(random: &mut Rng, all: &[&'a T]) -> &'a T {
    all[random.usize(0..all.len())]
}

/// `n`: no other write has it, in this run or an earlier one on the same data.
fn next_write(options: &Options, random: &mut Rng, n: u64) -> Due {
    let title = format!("title-{}", popular(random, options.titles));
    let path = format!("/admin/v1/titles/{title}");
    match random.u32(0..100) {
        0..50 => Due::write("edit of a text", Method::PATCH, path, json!({"synopsis": format!("Edited {n}.")})),
        50..70 => {
            let rating = f64::from(random.u32(10..100)) / 10.0;
            Due::write("edit of a rating", Method::PATCH, path, json!({"rating": rating, "genres": ["Drama", "War"]}))
        }
        70..85 => {
            let people =
                json!([{"name": "Ada Adler 1", "role": "director"}, {"name": format!("New {n}"), "role": "actor"}]);
            let record = json!({"name": format!("Made {n}"), "year": 2026, "genres": ["Crime"], "people": people});
            Due::write("create", Method::POST, "/admin/v1/titles", record)
        }
        85..90 => {
            let edit = |at: u64| {
                let id = format!("title-{}", (n % options.titles * 20 + at) % options.titles);
                json!({"id": id, "patch": {"synopsis": format!("Edited {n}.")}})
            };
            let edits: Vec<Value> = (0..20).map(edit).collect();
            Due::write("20 edits at once", Method::POST, "/admin/v1/titles/bulk", json!({"items": edits}))
        }
        90..95 => {
            let rail = random.u64(0..options.rails.max(1));
            Due::write(
                "edit of a rail",
                Method::PATCH,
                format!("/admin/v1/rails/rail-{rail}"),
                json!({"title": format!("Rail {n}")}),
            )
        }
        _ => {
            let series = popular(random, options.titles / 10) * 10 + 9;
            let path = format!("/admin/v1/series/title-{series}/seasons/1");
            Due::write("edit of a season", Method::PATCH, path, json!({"name": format!("Season {n}")}))
        }
    }
}

fn next_read(options: &Options, random: &mut Rng, links: &Links) -> Due {
    let title = format!("title-{}", popular(random, options.titles));
    let series = popular(random, options.titles / 10) * 10 + 9;
    let genre = any(random, &GENRES);
    match random.u32(0..1000) {
        0..250 => Due::get("home", "/v1/home"),
        250..330 => Due::get("catalogue", "/v1/catalog"),
        330..400 => Due::get("catalogue of a genre", format!("/v1/catalog?genre={genre}")),
        400..440 => {
            let sort = any(random, &["-rating", "-year", "-added", "year"]);
            Due::get("catalogue sorted", format!("/v1/catalog?genre={genre}&sort={sort}&limit=100"))
        }
        440..470 => {
            let filter = any(random, &["kind=series", "year=1995", "kind=film&year=2001", "kind=series&year=1970"]);
            Due::get("catalogue filtered", format!("/v1/catalog?{filter}&sort=-rating"))
        }
        470..510 if !links.cursors.is_empty() => {
            Due::get("catalogue, next part", links.cursors[random.usize(0..links.cursors.len())].clone())
        }
        510..555 => {
            let typed = any(random, &TYPED).replace(' ', "%20");
            Due::get("search", format!("/v1/search?q={typed}"))
        }
        555..560 => {
            let typed = any(random, &MISSPELT).replace(' ', "%20");
            Due::get("search misspelt", format!("/v1/search?q={typed}"))
        }
        560..600 => Due::get("search for one", format!("/v1/search?q=river%20{}", popular(random, options.titles))),
        600..640 => Due::get("similar", format!("/v1/titles/{title}/similar")),
        640..680 => Due::get("series", format!("/v1/series/title-{series}")),
        680..720 => Due::get("season", format!("/v1/series/title-{series}/seasons/1")),
        720..760 if !links.people.is_empty() => {
            Due::get("person", format!("/v1/people/{}", links.people[random.usize(0..links.people.len())]))
        }
        760..780 => {
            let n = popular(random, options.titles / 100);
            Due::get("collection", format!("/v1/collections/collection-{n}"))
        }
        780..800 => Due::get("genres", "/v1/genres"),
        _ => Due::get("title", format!("/v1/titles/{title}")),
    }
}

/// What an answer leads to.
fn note(links: &Mutex<Links>, due: &Due, got: &Got) {
    let mut links = links.lock().expect("a request panicked");
    let put = |all: &mut Vec<String>, link: String| {
        if all.len() < LINKS_MAX {
            all.push(link);
        }
    };
    if due.kind == "title" && links.people.len() < LINKS_MAX {
        let document = got.json();
        for id in document["people"].as_array().into_iter().flatten().filter_map(|person| person["id"].as_str()) {
            put(&mut links.people, id.to_string());
        }
    }
    if due.kind.starts_with("catalogue")
        && links.cursors.len() < LINKS_MAX
        && let Some(cursor) = got.json()["next_cursor"].as_str()
    {
        let first = due.path.split("cursor=").next().unwrap_or_default().trim_end_matches(['?', '&']);
        let mark = if first.contains('?') { '&' } else { '?' };
        put(&mut links.cursors, format!("{first}{mark}cursor={cursor}"));
    }
}

type Measured = Arc<Mutex<Vec<(&'static str, bool, f64, Option<String>)>>>;

/// Viewers of several regions and languages: documents are rendered for each.
const VIEWERS: [[(&str, &str); 2]; 3] = [
    [("viewer-region", "DE"), ("viewer-locale", "de")],
    [("viewer-region", "FR"), ("viewer-locale", "fr")],
    [("viewer-region", "GB"), ("viewer-locale", "en")],
];

async fn load(options: &Options, engine: Engine, port: u16, token: String) -> Figures {
    let measured: Measured = Arc::default();
    let links: Arc<Mutex<Links>> = Arc::default();
    let mut random = Rng::with_seed(1);
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut writes = u64::try_from(since_1970.as_millis()).unwrap_or(0) * 1_000;
    // The first seconds fill caches and are not counted.
    for (seconds, counts) in [(3, false), (options.seconds, true)] {
        let began = Instant::now();
        let count = seconds * u64::from(options.rate);
        let mut running = tokio::task::JoinSet::new();
        for n in 0..count {
            let at = began + Duration::from_secs_f64(n as f64 / f64::from(options.rate));
            tokio::time::sleep_until(at.into()).await;
            let due = match random.u32(0..100) < options.writes {
                true => {
                    writes += 1;
                    next_write(options, &mut random, writes)
                }
                false => next_read(options, &mut random, &links.lock().expect("a request panicked")),
            };
            let mut request = ask(due.method.clone(), format!("http://127.0.0.1:{port}{}", due.path));
            if due.is_write {
                request = request.bearer_auth(&token).header("if-match", "*");
                let is_patch = due.method == Method::PATCH;
                let merge = if is_patch { "application/merge-patch+json" } else { "application/json" };
                request = request.header("content-type", merge);
            } else {
                // As edges ask.
                request = request.header("accept-encoding", "gzip");
                for (name, value) in VIEWERS[random.usize(0..VIEWERS.len())] {
                    request = request.header(name, value);
                }
            }
            if let Some(body) = &due.body {
                request = request.body(body.to_string());
            }
            let (measured, links) = (Arc::clone(&measured), Arc::clone(&links));
            running.spawn(async move {
                let error = match send_to(request).await {
                    None => Some(format!("no answer to {}", due.path)),
                    Some(got) if (200..300).contains(&got.status) => {
                        note(&links, &due, &got);
                        None
                    }
                    Some(got) => Some(format!("{} of {}: {}", got.status, due.path, got.body)),
                };
                if counts {
                    let ms = at.elapsed().as_secs_f64() * 1000.0;
                    measured.lock().expect("a request panicked").push((due.kind, due.is_write, ms, error));
                }
            });
        }
        running.join_all().await;
    }
    let measured = std::mem::take(&mut *measured.lock().expect("a request panicked"));
    let of = |wanted: &dyn Fn(&str, bool) -> bool| {
        let wanted = measured.iter().filter(|(kind, is_write, ..)| wanted(kind, *is_write));
        latencies(wanted.map(|(_, _, ms, _)| *ms).collect())
    };
    let mut kinds: Vec<(bool, &'static str)> = measured.iter().map(|(kind, write, ..)| (*write, *kind)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let errors: Vec<&String> = measured.iter().filter_map(|(_, _, _, error)| error.as_ref()).collect();
    Figures {
        engine,
        titles: options.titles,
        users: options.users,
        rate: options.rate,
        reads: of(&|_, is_write| !is_write),
        writes: of(&|_, is_write| is_write),
        by_kind: kinds.iter().map(|(_, kind)| (*kind, of(&|other, _| other == *kind))).collect(),
        errors: errors.len(),
        first_error: errors.first().map(|error| error.to_string()),
        slow_statements: Vec::new(),
    }
}
