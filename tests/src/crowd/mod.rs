//! Load as people make it, with the real parts: ten thousand connections held open to the edge, each a viewer who thinks
//! between two requests, most of them strangers, some logged in, while editors edit and purge. It is a test of the truth as
//! well: what viewers are shown of edited titles is compared with what has landed.
//!
//! Arrivals are open: when a request is due does not depend on answers, and its latency counts from then. The generator runs
//! on the machine it loads, so its own lateness is measured and reported.
mod editors;
mod households;
mod line;
mod plot;
mod report;
mod scenario;
mod tally;
mod truth;
mod viewer;

pub use report::Figures;

use crate::http::ask;
use crate::stack::{Shape, Stack};
use editors::{EDITORS, Editor};
use kv_schemas::header::{PREFETCH, SEC_PURPOSE};
use line::{Line, Open};
use reqwest::Method;
use scenario::{Catalogue, Place, Wish};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tally::Tally;
use tokio::sync::watch;
use tokio::task::JoinSet;
use truth::{Truth, version_of};
use viewer::{Viewer, request};
use xtask::fleet::PLATFORM_FIELD;
use xtask::origin::Database;

/// As deployed: what is known of purges is used so long without asking, and is never older than the bound.
const LEASE_MS: u64 = 1_000;
/// As deployed: so many documents of a purge are fetched ahead of viewers.
const WARM: u16 = 50;
const BOUND: Duration = Duration::from_millis(LEASE_MS + LEASE_MS / 2);
/// Of a hundred viewers, so many are logged in; and so many connections a household has.
const LOGGED_IN: usize = 10;
const HOUSEHOLD: usize = 4;
/// workerd hangs up on a connection that is idle for 15 s, and a thought lasts up to one and a half times the mean.
const THINK_S_MAX: f64 = 9.0;
/// Connections opened in a second.
const OPENED_PER_S: f64 = 500.0;
/// Readers who fill the caches before anything is counted.
const CRAWLERS: usize = 16;
/// Links that are followed one after another while caches are filled.
const LINKS_MAX: u32 = 4;
/// The origin has worked out all that follows from its catalogue if it says nothing new for so long, and it must in time.
const SETTLED: Duration = Duration::from_secs(4);
const SETTLING_MAX: Duration = Duration::from_secs(300);
/// After everybody is there, before anything is counted.
const SETTLING: Duration = Duration::from_secs(10);
/// workerd has two for each connection it holds; and what is needed besides.
const FILES_EACH: u64 = 2;
const SPARE_FILES: u64 = 2_000;
/// A step of the ramp, and how much more each asks.
const RAMP_STEP_S: u64 = 10;
const RAMP_FACTOR: f64 = 1.3;
const RAMP_P95_MS: f64 = 250.0;

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Viewers, each with a connection that is held open.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(8..=25_000))]
    connections: u32,
    /// How long is counted; 60 is the soak.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Locations, each a process: workerd has two files open for each connection, and a process may often have 20,000.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    edges: u32,
    /// Viewers' requests a second, together.
    #[arg(long, default_value_t = 1_500.0)]
    rate: f64,
    /// Editors' writes a second, together: six a minute.
    #[arg(long, default_value_t = 0.1)]
    edits: f64,
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    titles: u64,
    /// The same seed, the same catalogue, viewers and editors.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Locations are warm when they are measured: how long caches are filled beforehand, at most.
    #[arg(long, default_value_t = 180)]
    fill_s: u64,
    /// In place of one measurement: more and more requests a second, until it is too much.
    #[arg(long)]
    ramp: bool,
}

/// What viewers and editors share.
pub struct World {
    seed: u64,
    /// Of the locations, between which viewers are divided.
    ports: Vec<u16>,
    /// Where editors work and people log in.
    edge_url: String,
    admin_token: String,
    catalogue: Catalogue,
    open: Open,
    tally: Tally,
    truth: Truth,
    edits_per_s: f64,
    connections: f64,
    /// Requests a second, as bits.
    rate: AtomicU64,
    stop: watch::Sender<bool>,
    not_opened: Mutex<Vec<String>>,
}

impl World {
    /// The mean time between two wishes of one viewer.
    fn think_s(&self) -> f64 {
        self.connections / f64::from_bits(self.rate.load(Ordering::Relaxed))
    }

    fn set_rate(&self, rate: f64) {
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    fn could_not_open(&self, opening: Instant, error: String) {
        self.tally.failed(opening, error.clone());
        self.not_opened.lock().expect("poisoned").push(error);
    }
}

/// Nothing to report after a ramp.
pub async fn run(options: &Options) -> xtask::Result<Option<Figures>> {
    let connections = usize::try_from(options.connections).unwrap_or(usize::MAX);
    let think_s = f64::from(options.connections) / options.rate;
    if think_s > THINK_S_MAX {
        return xtask::said(format!(
            "with {connections} connections and {} requests/s a viewer thinks for {think_s:.1} s; workerd hangs up on who is idle \
             for 15 s, so give --rate at least {:.0}",
            options.rate,
            f64::from(options.connections) / THINK_S_MAX
        ));
    }
    let of_one_edge = u64::from(options.connections.div_ceil(options.edges)) * FILES_EACH;
    xtask::process::allow_open_files(of_one_edge.max(u64::from(options.connections)) + SPARE_FILES)?;
    let folder = tempfile::tempdir().map_err(|error| xtask::Error::Said(format!("no folder: {error}")))?;
    let database = Database::sqlite(folder.path());
    let (titles, seed) = (options.titles.to_string(), options.seed.to_string());
    let amounts = ["generate", "--titles", &titles, "--rails", "40", "--users", "0", "--seed", &seed];
    println!("{}", xtask::origin::run(&[&amounts, database.arguments().as_slice()].concat())?);
    let vars = [("REGIONS", scenario::REGIONS), ("LOCALES", scenario::LOCALES), ("ACCESS_LOG", "sampled:100")];
    let edges = usize::try_from(options.edges).unwrap_or(1);
    let stack = Stack::of(Shape {
        edges,
        lease_ms: LEASE_MS,
        warm: WARM,
        catalogue: String::new(),
        vars: vars.map(|(name, value)| (name.into(), value.into())).into(),
        database: Some(database),
        platform_field: Some(PLATFORM_FIELD.into()),
        ..Shape::default()
    })
    .await;
    let edge_url = stack.fleet.url(0);
    let port_of = |url: String| url.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_default();
    let ports: Vec<u16> = (0..edges).map(|edge| port_of(stack.fleet.url(edge))).collect();
    let world = Arc::new(World {
        seed: options.seed,
        ports,
        edge_url: edge_url.clone(),
        admin_token: stack.admin_token.clone(),
        catalogue: Catalogue::new(options.titles),
        open: Open::default(),
        tally: Tally::default(),
        truth: Truth::new(BOUND),
        edits_per_s: options.edits,
        connections: f64::from(options.connections),
        rate: AtomicU64::new(options.rate.to_bits()),
        stop: watch::channel(false).0,
        not_opened: Mutex::default(),
    });
    let began = Instant::now();
    settled(&stack).await?;
    let filled = fill(&world, Duration::from_secs(options.fill_s)).await?;
    println!("{filled} documents are in the caches, in {} s", began.elapsed().as_secs());
    let households = households::start(&edge_url, connections * LOGGED_IN / 100 / HOUSEHOLD).await;
    let households = households.map_err(xtask::Error::Said)?;
    println!("{} households are logged in", households.len());
    let mut people = JoinSet::new();
    let opening = Instant::now();
    let many = households.len() * HOUSEHOLD;
    for n in 0..connections {
        // Who is logged in comes among the others.
        let nth = n.checked_mul(many).map_or(0, |all| all / connections);
        let is_next = nth < (n + 1) * many / connections;
        let token = households.get(nth / HOUSEHOLD).filter(|_| is_next).cloned();
        people.spawn(Viewer::new(&world, n, token).live());
        let due = opening + Duration::from_secs_f64(n as f64 / OPENED_PER_S);
        tokio::time::sleep_until(due.into()).await;
    }
    for n in 0..EDITORS {
        people.spawn(Editor::new(&world, n).work());
    }
    tokio::time::sleep(SETTLING).await;
    if let Some(error) = world.not_opened.lock().expect("poisoned").first() {
        return xtask::said(format!("not all connections could be opened: {error}"));
    }
    let open = world.open.count();
    println!("{open} connections are open");
    if open < connections {
        return xtask::said("the edge does not hold them all; its log says why");
    }
    let seconds = Duration::from_secs_f64(options.minutes * 60.0);
    let mut measured = None;
    if options.ramp {
        ramp(&world, &stack).await;
    } else {
        world.tally.begin();
        let machine = Machine::now();
        watch_over(&world, &stack, seconds).await;
        measured = Some((machine.busy(), world.tally.end()));
    }
    world.stop.send_replace(true);
    people.join_all().await;
    let Some((busy, seen)) = measured else { return Ok(None) };
    let lost = lost(&world).await;
    drop(stack);
    let figures = Figures::of(options, &seen, seconds, busy, filled, lost);
    figures.write(&seen, seconds)?;
    Ok(Some(figures))
}

/// Once a second: how many connections are open, and how much origin was asked.
async fn watch_over(world: &World, stack: &Stack, whole: Duration) {
    let began = Instant::now();
    let first = Asked::now(stack).await;
    let mut asked = first.count();
    let mut at = began;
    while began.elapsed() < whole {
        at += Duration::from_secs(1);
        tokio::time::sleep_until(at.into()).await;
        let now = Asked::now(stack).await.count();
        world.tally.sample(world.open.count(), now.saturating_sub(asked));
        asked = now;
    }
    let Asked { mut routes, warmed } = Asked::now(stack).await;
    for (route, count) in &mut routes {
        *count = count.saturating_sub(first.routes.get(route).copied().unwrap_or(0));
    }
    world.tally.asked(routes, warmed.saturating_sub(first.warmed));
}

/// What origin was asked since it began.
struct Asked {
    /// Requests of the client API, whoever made them.
    routes: BTreeMap<String, u64>,
    /// Documents that were fetched ahead of viewers; they are among those.
    warmed: u64,
}

impl Asked {
    async fn now(stack: &Stack) -> Self {
        let mut asked = Self { routes: BTreeMap::new(), warmed: 0 };
        for (route, count) in stack.origin_counts("origin_requests_total", "route").await {
            if route.starts_with("/v1/") {
                *asked.routes.entry(route).or_default() += count;
            }
        }
        let warmed = stack.origin_counts("origin_warmed_total", "outcome").await.into_iter();
        let fetched =
            warmed.filter(|(outcome, _)| ["written", "not-storable", "origin-failed"].contains(&outcome.as_str()));
        asked.warmed = fetched.map(|(_, count)| count).sum();
        asked
    }

    fn count(&self) -> u64 {
        self.routes.values().sum()
    }
}

/// Until nothing new is in the purge log for a while: recommendations are worked out after the catalogue has come.
async fn settled(stack: &Stack) -> xtask::Result<()> {
    let newest = async || -> xtask::Result<serde_json::Value> {
        let purges = ask(Method::GET, stack.origin_url("/admin/v1/purges?limit=1")).bearer_auth(&stack.admin_token);
        let got = crate::http::send(purges).await;
        match &got.json()["items"][0]["seq"] {
            serde_json::Value::Null => xtask::said(format!("the purge log could not be read: {got:?}")),
            seq => Ok(seq.clone()),
        }
    };
    let began = Instant::now();
    let (mut known, mut since) = (newest().await?, Instant::now());
    while since.elapsed() < SETTLED {
        if began.elapsed() > SETTLING_MAX {
            return xtask::said("the origin goes on and on purging by itself");
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = newest().await?;
        if now != known {
            (known, since) = (now, Instant::now());
        }
    }
    Ok(())
}

/// What is still to be read, and what was.
#[derive(Default)]
struct Crawl {
    left: VecDeque<(Wish, Place, u32)>,
    met: HashSet<(String, Place)>,
    under_way: usize,
    read: usize,
}

impl Crawl {
    fn add(&mut self, wish: Wish, place: Place, links: u32) {
        if links <= LINKS_MAX && self.met.insert((wish.target.clone(), place)) {
            self.left.push_back((wish, place, links));
        }
    }
}

/// No viewer asks yet: origin is not to take all there is for what is wanted, and warm it.
const CRAWLER: [(&str, &str); 1] = [(SEC_PURPOSE, PREFETCH)];

/// Reads every page once from every place, the most wanted first and what they lead to after them, within a time. One
/// location does; the others have them from KV when they are asked. Returns how many.
async fn fill(world: &Arc<World>, time: Duration) -> xtask::Result<usize> {
    let mut crawl = Crawl::default();
    for page in world.catalogue.pages() {
        scenario::places().for_each(|place| crawl.add(page.clone(), place, 0));
    }
    let crawl = Arc::new(Mutex::new(crawl));
    let port = world.ports.first().copied().unwrap_or_default();
    let began = Instant::now();
    let mut crawlers = JoinSet::new();
    for _ in 0..CRAWLERS {
        let crawl = Arc::clone(&crawl);
        crawlers.spawn(async move {
            let mut line = Line::open(port, &Open::default()).await?;
            while began.elapsed() < time {
                let next = {
                    let mut crawl = crawl.lock().expect("poisoned");
                    let next = crawl.left.pop_front();
                    crawl.under_way += usize::from(next.is_some());
                    if next.is_none() && crawl.under_way == 0 {
                        break;
                    }
                    next
                };
                let Some((wish, place, links)) = next else {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                };
                let answer = line.ask(request(&wish, place, &CRAWLER)).await.map_err(|error| error.to_string())?;
                if answer.status != 200 {
                    return Err(format!("{}: status {}", wish.target, answer.status));
                }
                let linked = scenario::links(&wish, || answer.json());
                let mut crawl = crawl.lock().expect("poisoned");
                (crawl.under_way, crawl.read) = (crawl.under_way - 1, crawl.read + 1);
                linked.into_iter().for_each(|wish| crawl.add(wish, place, links + 1));
            }
            Ok(())
        });
    }
    for end in crawlers.join_all().await {
        end.map_err(|error| xtask::Error::Said(format!("caches could not be filled: {error}")))?;
    }
    let read = crawl.lock().expect("poisoned").read;
    Ok(read)
}

/// More and more, until the latency is too high or something fails.
async fn ramp(world: &Arc<World>, stack: &Stack) {
    println!("{:>12}{:>12}{:>12}{:>12}{:>12}{:>10}", "requests/s", "done/s", "p50 ms", "p95 ms", "late p95", "errors");
    loop {
        world.tally.begin();
        let machine = Machine::now();
        watch_over(world, stack, Duration::from_secs(RAMP_STEP_S)).await;
        let busy = machine.busy();
        let seen = world.tally.end();
        let (rate, done) = (world.connections / world.think_s(), seen.all.len() as f64 / RAMP_STEP_S as f64);
        let (p50, p95, late) = (tally::ms(&seen.all, 0.5), tally::ms(&seen.all, 0.95), tally::ms(&seen.lateness, 0.95));
        let errors = seen.error_count();
        println!("{rate:>12.0}{done:>12.0}{p50:>12.1}{p95:>12.1}{late:>12.1}{errors:>10}   {busy}");
        if p95 > RAMP_P95_MS || errors > 0 || done < rate * 0.8 {
            for (error, count) in &seen.errors {
                println!("  {count} times {error}");
            }
            return;
        }
        world.set_rate(rate * RAMP_FACTOR);
        // Thoughts that have begun end first.
        tokio::time::sleep(Duration::from_secs_f64(world.think_s() * 1.5)).await;
    }
}

/// What was acknowledged and is not shown in the end, a bound after the last word.
async fn lost(world: &World) -> Vec<String> {
    tokio::time::sleep(BOUND).await;
    let mut lost = Vec::new();
    for (title, words, version) in world.truth.newest() {
        let member = if words == truth::Words::Name { "name" } else { "synopsis" };
        for port in &world.ports {
            let got =
                crate::http::send(ask(Method::GET, format!("http://127.0.0.1:{port}/v1/titles/title-{title}"))).await;
            let shown = got.json()[member].as_str().map_or(0, version_of);
            if shown != version {
                lost.push(format!(
                    "title-{title}: {member} is of version {shown} in the end, and {version} was acknowledged"
                ));
            }
        }
    }
    lost
}

/// How busy the machine was, and this program of it.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Busy {
    /// Of all processors.
    pub machine_percent: f64,
    /// Of all processors: the generator's own part.
    pub generator_percent: f64,
}

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "machine {:.0} % busy, generator {:.0} % of it all", self.machine_percent, self.generator_percent)
    }
}

struct Machine {
    busy: u64,
    all: u64,
    own: u64,
}

impl Machine {
    /// As `/proc` has it; nothing elsewhere.
    fn now() -> Self {
        let numbers = |text: String, skip: usize| -> Vec<u64> {
            text.split_whitespace().skip(skip).filter_map(|word| word.parse().ok()).collect()
        };
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let machine = numbers(read("/proc/stat").lines().next().unwrap_or_default().into(), 1);
        let own = read("/proc/self/stat").rsplit(") ").next().unwrap_or_default().to_string();
        let own = numbers(own, 1);
        let idle: u64 = machine.iter().skip(3).take(2).sum();
        let all = machine.iter().take(8).sum();
        Self { busy: u64::saturating_sub(all, idle), all, own: own.iter().skip(10).take(2).sum() }
    }

    /// Since then.
    fn busy(&self) -> Busy {
        let now = Self::now();
        let all = now.all.saturating_sub(self.all).max(1) as f64;
        let percent = |now: u64, then: u64| 100.0 * now.saturating_sub(then) as f64 / all;
        Busy { machine_percent: percent(now.busy, self.busy), generator_percent: percent(now.own, self.own) }
    }
}
