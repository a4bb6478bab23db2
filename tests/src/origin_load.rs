//! The origin by itself under mixed load: viewers' reads and editors' writes at a fixed rate, whether it keeps up or not.
//! Latencies count from the moment a request was due, so a stall shows in all that came during it.
use crate::free_port;
use crate::http::ask;
use reqwest::Method;
use serde::Serialize;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
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
    pub engine: String,
    pub titles: u64,
    pub users: u64,
    pub rate: u32,
    pub reads: Latencies,
    pub writes: Latencies,
    pub by_page: Vec<(String, Latencies)>,
    pub errors: usize,
    pub first_error: Option<String>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} titles, {} users, {} requests/s, {} errors",
            self.engine, self.titles, self.users, self.rate, self.errors
        )?;
        if let Some(error) = &self.first_error {
            writeln!(f, "  such as {error}")?;
        }
        let all = [("client".to_string(), &self.reads), ("admin writes".to_string(), &self.writes)];
        let pages = self.by_page.iter().map(|(page, latencies)| (format!("  {page}"), latencies));
        for (name, l) in all.into_iter().chain(pages) {
            let Latencies { count, p50, p95, p99, max } = l;
            writeln!(f, "  {name:<22}{count:>7}  p50 {p50:>7.1}  p95 {p95:>7.1}  p99 {p99:>7.1}  max {max:>7.1} ms")?;
        }
        Ok(())
    }
}

fn latencies(mut ms: Vec<f64>) -> Latencies {
    ms.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = ms.len().saturating_sub(1);
        ms.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
    };
    Latencies { count: ms.len(), p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) }
}

pub async fn run(options: &Options) -> xtask::Result<Vec<Figures>> {
    let mut all = Vec::new();
    for engine in &options.engine {
        let state = tempfile::tempdir().expect("no folder");
        let servers = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(Postgres::start(Durable::Yes)?),
        };
        let database = match &servers {
            None => Database::sqlite(state.path()),
            Some(servers) => Database::postgres(&servers.database("nextream")?, &[]),
        };
        xtask::origin::keys(state.path())?;
        let began = Instant::now();
        let amounts = [options.titles, options.rails, options.users].map(|amount| amount.to_string());
        let [titles, rails, users] = &amounts;
        let amounts = ["generate", "--titles", titles, "--rails", rails, "--users", users];
        let made = xtask::origin::run(&[&amounts, database.arguments().as_slice()].concat())?;
        println!("{engine:?}: {made}, in {} s", began.elapsed().as_secs());
        let port = free_port();
        let _origin = xtask::origin::serve_on(&database, state.path(), port, &[], false)?;
        let token = xtask::origin::admin_token(state.path(), "admin", 3600)?;
        all.push(load(options, *engine, port, token).await);
    }
    Ok(all)
}

/// What the next request asks for: the page's name, method, path and body.
fn next_request(options: &Options, random: &mut fastrand::Rng, n: u64) -> (&'static str, Method, String, String) {
    let popular = |random: &mut fastrand::Rng, bound: u64| {
        let one = random.u64(0..bound.max(1));
        random.u64(0..=one)
    };
    if random.u32(0..100) < options.writes {
        let path = format!("/admin/v1/titles/title-{}", popular(random, options.titles));
        return ("write", Method::PATCH, path, format!(r#"{{"synopsis":"Edited {n}."}}"#));
    }
    let genres = ["drama", "comedy", "crime", "science-fiction", "war"];
    let genre = genres[random.usize(0..genres.len())];
    let (page, path) = match random.u32(0..100) {
        0..30 => ("home", "/v1/home".to_string()),
        30..45 => ("catalog", "/v1/catalog".to_string()),
        45..55 => ("catalog of a genre", format!("/v1/catalog?genre={genre}")),
        55..60 => ("catalog by rating", format!("/v1/catalog?genre={genre}&sort=-rating&limit=50")),
        60..63 => ("search", format!("/v1/search?q=river%20{}", popular(random, options.titles))),
        63..65 => ("genres", "/v1/genres".to_string()),
        _ => ("title", format!("/v1/titles/title-{}", popular(random, options.titles))),
    };
    (page, Method::GET, path, String::new())
}

type Measured = Arc<Mutex<Vec<(&'static str, f64, Option<String>)>>>;

async fn load(options: &Options, engine: Engine, port: u16, token: String) -> Figures {
    let measured: Measured = Arc::default();
    let mut random = fastrand::Rng::with_seed(1);
    // The first seconds fill caches and are not counted.
    for (seconds, counts) in [(3, false), (options.seconds, true)] {
        let began = Instant::now();
        let count = seconds * u64::from(options.rate);
        let mut running = tokio::task::JoinSet::new();
        for n in 0..count {
            let due = began + Duration::from_secs_f64(n as f64 / f64::from(options.rate));
            tokio::time::sleep_until(due.into()).await;
            let (page, method, path, body) = next_request(options, &mut random, n);
            let is_write = method == Method::PATCH;
            let mut request = ask(method, format!("http://127.0.0.1:{port}{path}"));
            if is_write {
                request = request.bearer_auth(&token).header("if-match", "*");
                request = request.header("content-type", "application/merge-patch+json").body(body);
            }
            let measured = Arc::clone(&measured);
            running.spawn(async move {
                let error = match request.send().await {
                    Err(error) => Some(error.to_string()),
                    Ok(answer) => {
                        let status = answer.status();
                        let whole = answer.bytes().await;
                        (!status.is_success() || whole.is_err()).then(|| format!("{status} of {path}"))
                    }
                };
                if counts {
                    let ms = due.elapsed().as_secs_f64() * 1000.0;
                    measured.lock().expect("a request panicked").push((page, ms, error));
                }
            });
        }
        running.join_all().await;
    }
    let measured = std::mem::take(&mut *measured.lock().expect("a request panicked"));
    let of = |wanted: &dyn Fn(&str) -> bool| {
        latencies(measured.iter().filter(|(page, _, _)| wanted(page)).map(|(_, ms, _)| *ms).collect())
    };
    let mut pages: Vec<&str> = measured.iter().map(|(page, _, _)| *page).filter(|page| *page != "write").collect();
    pages.sort_unstable();
    pages.dedup();
    let errors: Vec<&String> = measured.iter().filter_map(|(_, _, error)| error.as_ref()).collect();
    Figures {
        engine: format!("{engine:?}").to_lowercase(),
        titles: options.titles,
        users: options.users,
        rate: options.rate,
        reads: of(&|page| page != "write"),
        writes: of(&|page| page == "write"),
        by_page: pages.iter().map(|page| (page.to_string(), of(&|other| other == *page))).collect(),
        errors: errors.len(),
        first_error: errors.first().map(|error| error.to_string()),
    }
}
