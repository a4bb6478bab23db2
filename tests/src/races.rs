//! Races over real processes: writers and purges at full speed, readers at every location, origin's answers late at
//! random, and `kill -9` of everything now and then. Each title carries its version; whoever reads checks that it is no
//! older than what the purges' bound allows.
//!
//! What an answer owes is known without comparing clocks: a watcher notes how far the journal has come, by this
//! process's clock. A purge it saw accepted more than one bound before a request was sent must show in the answer.
use crate::http::{client, send_to};
use crate::stack::{Shape, Stack, TOKEN_S, edge_claims, sign};
use crate::statistics::nearest_rank;
use crate::wanted::Wanted;
use kv_schemas::AsOf;
use kv_schemas::claims::Scope;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub struct Options {
    pub writes: u64,
    pub edges: usize,
    pub titles: usize,
    pub writers: usize,
    pub readers: usize,
    pub lease_ms: u64,
    /// Kill and cut, or not.
    pub faults: bool,
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { writes: 10_000, edges: 4, titles: 60, writers: 12, readers: 48, lease_ms: 200, faults: true, seed: 1 }
    }
}

/// What happened.
#[derive(Debug, Default)]
pub struct Report {
    pub writes: u64,
    /// Writes without an answer, of which nobody knows at once whether they happened.
    pub unsure: u64,
    pub purges: u64,
    pub reads: BTreeMap<String, u64>,
    /// Of those, the ones that owed a write: any other could have shown whatever it liked.
    pub owing: BTreeMap<String, u64>,
    pub demands: u64,
    pub kills: u64,
    pub cuts: u64,
    pub violations: Vec<String>,
    pub head: u64,
    pub elapsed: Duration,
    pub write_ms: [u64; 3],
}

impl Report {
    /// What has to have happened, or nothing was proven.
    pub fn wanted(&self, options: &Options) -> Vec<Wanted> {
        let once = |what, count: u64| Wanted::at_least(what, 1.0, count as f64);
        let owing = |phase| self.owing.get(phase).copied().unwrap_or(0);
        let faults = options.faults.then(|| [once("kill -9", self.kills), once("connections cut, held", self.cuts)]);
        let always = [
            Wanted::none("violations", self.violations.len() as u64),
            Wanted::at_least("writes acknowledged", options.writes as f64, self.writes as f64),
            Wanted::at_least("hits that owed a write", options.writes as f64 / 10.0, owing("hit") as f64),
            // A run of some hundred writes may have none.
            Wanted::at_least("stale answers that owed a write", (options.writes / 1_000) as f64, owing("stale") as f64),
            once("reads with a demanded state", self.demands),
            once("purges by hand", self.purges),
        ];
        always.into_iter().chain(faults.into_iter().flatten()).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reads: u64 = self.reads.values().sum();
        writeln!(f, "writes acknowledged   {} (and {} without an answer)", self.writes, self.unsure)?;
        writeln!(f, "purges by hand        {}", self.purges)?;
        writeln!(f, "purge log's head      {}, all of it in the journal", self.head)?;
        writeln!(f, "reads checked         {reads}, {} with a demanded state", self.demands)?;
        for (phase, count) in &self.reads {
            let owing = self.owing.get(phase).copied().unwrap_or(0);
            writeln!(f, "    {phase:<18}{count}, {owing} of them owed a write")?;
        }
        writeln!(f, "kill -9               {}", self.kills)?;
        writeln!(f, "connections cut, held {}", self.cuts)?;
        let [p50, p95, p99] = self.write_ms;
        writeln!(f, "write latency         p50 {p50} ms, p95 {p95} ms, p99 {p99} ms")?;
        writeln!(f, "took                  {:.1} s", self.elapsed.as_secs_f64())?;
        write!(f, "violations            {}", self.violations.len())?;
        self.violations.iter().take(20).try_for_each(|violation| write!(f, "\n    {violation}"))
    }
}

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Write {
    seq: u64,
    version: u64,
    hard: bool,
    acked: Instant,
}

#[derive(Default)]
struct Known {
    /// Per title, in order of version.
    writes: Vec<Vec<Write>>,
    /// How far the journal had come, and when that was heard.
    heads: Vec<(Instant, u64)>,
    /// When the journal was killed or could not be asked last.
    journal_away: Option<Instant>,
    report: Report,
    write_ms: Vec<u64>,
}

struct World {
    options: Options,
    bound: Duration,
    edges: Vec<String>,
    origin: String,
    admin_token: String,
    edge_token: String,
    known: Mutex<Known>,
    written: AtomicU64,
    stop: AtomicBool,
    random: Mutex<fastrand::Rng>,
}

impl World {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("poisoned")
    }

    fn below(&self, limit: usize) -> usize {
        self.random.lock().expect("poisoned").usize(0..limit)
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn violation(&self, text: String) {
        self.known().report.violations.push(text);
    }

    /// The head the journal had surely reached one bound before `at`.
    fn settled_head(&self, known: &Known, at: Instant) -> u64 {
        let Some(limit) = at.checked_sub(self.bound) else { return 0 };
        let place = known.heads.partition_point(|(heard, _)| *heard <= limit);
        place.checked_sub(1).map_or(0, |place| known.heads[place].1)
    }

    /// Checks one answer about a title.
    fn check(&self, title: usize, cache: &str, version: u64, sent: Instant) {
        let phase = cache.split("detail=\"").nth(1).and_then(|rest| rest.split([' ', '"']).next()).unwrap_or("none");
        let mut known = self.known();
        *known.report.reads.entry(phase.to_string()).or_default() += 1;
        let head = self.settled_head(&known, sent);
        let newest = |is_owed: &dyn Fn(&Write) -> bool| {
            known.writes[title].iter().filter(|write| is_owed(write)).map(|write| write.version).max().unwrap_or(0)
        };
        let owed = match phase {
            // From the cache: what was purged more than a bound ago must show, softly or not.
            "hit" | "stale" => newest(&|write| write.seq <= head),
            // From origin, asked for this very request.
            "miss" | "expired" | "revalidated" | "bypass" => newest(&|write| write.acked <= sent),
            // Origin failed: hard purges must show, unless the journal could not be asked either.
            "stale-error" if known.journal_away.is_none_or(|at| at + 3 * self.bound < sent) => {
                newest(&|write| write.hard && write.seq <= head)
            }
            "stale-error" => 0,
            _ => {
                known.report.violations.push(format!("title {title}: answered in a way nobody knows: {cache}"));
                return;
            }
        };
        if owed > 0 {
            *known.report.owing.entry(phase.to_string()).or_default() += 1;
        }
        if version < owed {
            let text = format!("title {title}: version {version} where {owed} is owed (head {head}): {cache}");
            known.report.violations.push(text);
        }
    }
}

/// The version a title's page or record carries.
pub(crate) fn version_of(body: &str) -> Option<u64> {
    let value: Value = serde_json::from_str(body).ok()?;
    value["name"].as_str()?.strip_prefix('v')?.parse().ok()
}

fn catalogue(titles: usize) -> String {
    let rows = (0..titles).map(|n| json!({"type": "title", "id": format!("t{n}"), "name": "v0"}).to_string() + "\n");
    rows.collect()
}

/// Runs it to its end.
pub async fn run(options: Options) -> Report {
    let shape = Shape {
        edges: options.edges,
        lease_ms: options.lease_ms,
        origin_timeout_ms: 1_000,
        catalogue: catalogue(options.titles),
        ..Shape::default()
    };
    let stack = Stack::of(shape).await;
    let world = Arc::new(World {
        bound: Duration::from_millis(options.lease_ms + options.lease_ms / 2),
        edges: (0..options.edges).map(|edge| stack.fleet.url(edge)).collect(),
        origin: stack.origin_url(""),
        admin_token: stack.admin_token.clone(),
        edge_token: sign(&stack.key, edge_claims(Scope::PurgeReceipt, None), TOKEN_S),
        known: Mutex::new(Known { writes: vec![Vec::new(); options.titles], ..Known::default() }),
        written: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        random: Mutex::new(fastrand::Rng::with_seed(options.seed)),
        options,
    });
    let began = Instant::now();
    let watcher = tokio::spawn(watch(Arc::clone(&world)));
    let writers: Vec<_> = (0..world.options.writers).map(|n| tokio::spawn(write(Arc::clone(&world), n))).collect();
    let purger = tokio::spawn(purge(Arc::clone(&world)));
    let readers: Vec<_> = (0..world.options.readers).map(|_| tokio::spawn(read(Arc::clone(&world)))).collect();
    let chaos = tokio::spawn(disturb(Arc::clone(&world), stack));
    for writer in writers {
        writer.await.expect("a writer failed");
    }
    world.stop.store(true, Ordering::Relaxed);
    let stack = chaos.await.expect("the faults failed");
    purger.await.expect("the purger failed");
    for reader in readers {
        reader.await.expect("a reader failed");
    }
    watcher.await.expect("the watcher failed");
    settle(&world, &stack).await;
    let mut known = world.known();
    known.write_ms.sort_unstable();
    let write_ms = [50, 95, 99].map(|percent| nearest_rank(&known.write_ms, percent));
    let mut report = std::mem::take(&mut known.report);
    report.elapsed = began.elapsed();
    report.write_ms = write_ms;
    report
}

/// Notes how far the journal has come.
async fn watch(world: Arc<World>) {
    let client = client();
    let mut log_id = String::new();
    while !world.is_over() {
        let edge = &world.edges[world.below(world.edges.len())];
        let asked = client.get(format!("{edge}/__edge/purges")).bearer_auth(&world.edge_token);
        let answer = send_to(asked.timeout(Duration::from_millis(500))).await;
        match answer.filter(|got| got.status == 200).map(|got| got.json()) {
            Some(summary) => {
                let held = summary["log_id"].as_str().unwrap_or_default().to_string();
                if !log_id.is_empty() && held != log_id {
                    world.violation(format!("the journal's log became {held}, it was {log_id}"));
                }
                log_id = held;
                let head = summary["head"].as_u64().unwrap_or(0);
                let mut known = world.known();
                if known.heads.last().is_some_and(|(_, last)| head < *last) {
                    known.report.violations.push(format!("the journal went back to {head}"));
                }
                known.heads.push((Instant::now(), head));
            }
            None => world.known().journal_away = Some(Instant::now()),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Edits its own titles, one version after the other.
async fn write(world: Arc<World>, writer: usize) {
    let client = client();
    let own: Vec<usize> = (0..world.options.titles).filter(|title| title % world.options.writers == writer).collect();
    let mut versions = vec![0; world.options.titles];
    while world.written.fetch_add(1, Ordering::Relaxed) < world.options.writes {
        let title = own[world.below(own.len())];
        let version = versions[title] + 1;
        versions[title] = version;
        let hard = world.below(4) == 0;
        let mode = if hard { "hard" } else { "soft" };
        let began = Instant::now();
        let request = client
            .patch(format!("{}/admin/v1/titles/t{title}?purge={mode}", world.origin))
            .bearer_auth(&world.admin_token)
            .header("if-match", "*")
            .header("content-type", "application/merge-patch+json")
            .timeout(Duration::from_secs(15))
            .body(json!({"name": format!("v{version}")}).to_string());
        let answer = send_to(request).await.filter(|got| got.status == 200);
        match answer.and_then(|got| got.as_of()) {
            Some(AsOf { seq, .. }) => {
                let mut known = world.known();
                known.report.writes += 1;
                known.write_ms.push(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
                known.writes[title].push(Write { seq, version, hard, acked: Instant::now() });
            }
            None => {
                world.known().report.unsure += 1;
                // The write may have happened or not, and must not count twice.
                world.written.fetch_sub(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Purges by hand.
async fn purge(world: Arc<World>) {
    let client = client();
    while !world.is_over() {
        let title = world.below(world.options.titles);
        let body = match world.below(40) {
            0 => json!({"all": true, "mode": "soft"}),
            n => json!({"keys": [format!("title:t{title}"), "home"], "mode": if n % 3 == 0 { "hard" } else { "soft" }}),
        };
        let request = client.post(format!("{}/admin/v1/purges", world.origin)).bearer_auth(&world.admin_token);
        let request = request.header("content-type", "application/json").timeout(Duration::from_secs(15));
        if send_to(request.body(body.to_string())).await.is_some_and(|got| got.status == 202) {
            world.known().report.purges += 1;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Reads any title at any location, now and then demanding the newest acknowledged state.
async fn read(world: Arc<World>) {
    let client = client();
    while !world.is_over() {
        let title = world.below(world.options.titles);
        let edge = &world.edges[world.below(world.edges.len())];
        let mut request = client.get(format!("{edge}/v1/titles/t{title}")).timeout(Duration::from_secs(15));
        let demanded = if world.below(20) == 0 { world.known().writes[title].last().copied() } else { None };
        if let Some(write) = demanded {
            let Some(log_id) = log_id(&client, &world).await else { continue };
            request = request.header("min-as-of", format!("{log_id}:{}", write.seq));
        }
        let sent = Instant::now();
        let Some(got) = send_to(request).await else { continue };
        let (Some(version), 200) = (version_of(&got.body), got.status) else {
            *world.known().report.reads.entry(format!("status {}", got.status)).or_default() += 1;
            if got.status == 500 {
                world.violation(format!("the edge failed: {got:?}"));
            }
            continue;
        };
        if let Some(write) = demanded {
            world.known().report.demands += 1;
            if version < write.version {
                world.violation(format!(
                    "title {title}: version {version}, {} was demanded: {}",
                    write.version,
                    got.cache()
                ));
            }
        }
        world.check(title, got.cache(), version, sent);
    }
}

async fn log_id(client: &Client, world: &World) -> Option<String> {
    let ready = send_to(client.get(format!("{}/readyz", world.origin)).timeout(Duration::from_secs(1))).await?;
    Some(ready.body.trim().trim_start_matches("ready ").split(':').next()?.to_string())
}

/// Kills, cuts and delays, until the writers are done; then puts everything right.
async fn disturb(world: Arc<World>, mut stack: Stack) -> Stack {
    use crate::gate::Mode;
    stack.to_origin.set_delay_ms_max(100);
    while !world.is_over() && world.options.faults {
        let pause = 400 + world.below(900) as u64;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let away = Duration::from_millis(50 + world.below(600) as u64);
        let what = world.below(10);
        {
            let mut known = world.known();
            match what {
                0..6 => known.report.kills += 1,
                _ => known.report.cuts += 1,
            }
        }
        match what {
            0 | 1 => {
                stack.kill_origin();
                tokio::time::sleep(away).await;
                stack.start_origin();
            }
            2 | 3 => {
                let edge = world.below(world.edges.len());
                stack.fleet.kill_edge(edge);
                tokio::time::sleep(away).await;
                stack.fleet.start_edge(edge).unwrap_or_else(|error| panic!("{error}"));
            }
            4 | 5 => {
                stack.fleet.kill_global();
                world.known().journal_away = Some(Instant::now());
                tokio::time::sleep(away).await;
                stack.fleet.start_global().unwrap_or_else(|error| panic!("{error}"));
                world.known().journal_away = Some(Instant::now());
            }
            n => {
                let gate = if n % 2 == 0 { &stack.to_origin } else { &stack.to_edge };
                gate.set(if n < 8 { Mode::Hold } else { Mode::Cut });
                tokio::time::sleep(away).await;
                gate.set(Mode::Open);
            }
        }
    }
    stack.to_origin.set_delay_ms_max(0);
    stack
}

/// Nothing that was acknowledged is lost: every purge is in the journal, every write in the database, and one bound
/// later every location shows the newest version at the first look.
async fn settle(world: &World, stack: &Stack) {
    let client = client();
    let as_of = stack.as_of().await;
    let head = as_of.seq;
    world.known().report.head = head;
    crate::eventually("every purge is in the journal", || async {
        let asked = client.get(format!("{}/__edge/purges", world.edges[0])).bearer_auth(&world.edge_token);
        let summary = send_to(asked).await?.json();
        (summary["head"].as_u64() == Some(head)).then_some(())
    })
    .await;
    let writes = world.known().writes.clone();
    let mut seqs: Vec<u64> = writes.iter().flatten().map(|write| write.seq).collect();
    seqs.sort_unstable();
    let count = seqs.len();
    seqs.dedup();
    if seqs.len() != count || seqs.last().is_some_and(|last| *last > head) {
        world.violation("two writes were given one seq, or one beyond the head".into());
    }
    // A location that could not reach origin a moment ago gives it a pause of a second or more, and answers what it may
    // meanwhile; what is promised is promised from the first request that gets through. Nobody has what was never asked for.
    let mut strange = 0..;
    for edge in &world.edges {
        crate::eventually("every location reaches origin again", || {
            let page = format!("{edge}/v1/titles/strange-{}", strange.next().unwrap_or(0));
            let asked = client.get(page).header("min-as-of", as_of.to_string());
            async { send_to(asked).await.filter(|got| got.status == 404).map(|_| ()) }
        })
        .await;
    }
    tokio::time::sleep(world.bound + Duration::from_millis(50)).await;
    for (title, writes) in writes.iter().enumerate() {
        let record = stack.admin(Method::GET, &format!("/admin/v1/titles/t{title}"), None).await;
        let stored = version_of(&record.body).unwrap_or(0);
        let acked = writes.last().map_or(0, |write| write.version);
        if stored < acked {
            world.violation(format!("title {title}: version {acked} was acknowledged and is lost; {stored} is stored"));
        }
        for edge in &world.edges {
            let got = send_to(client.get(format!("{edge}/v1/titles/t{title}"))).await.expect("no answer");
            if version_of(&got.body) != Some(stored) {
                world.violation(format!("title {title} at {edge} is not version {stored}: {got:?}"));
            }
        }
    }
}
