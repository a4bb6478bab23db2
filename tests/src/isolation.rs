//! A flood on one of the origin's services, and what viewers' reads notice of it. Each service is a process of its own, as
//! it would be on a machine of its own: what serves viewers is kept on processor 0, the rest and the flood's edge on 1, so
//! that the processors are not what is measured. Everything is purged before each reading, and each title read once, so that each
//! read asks the service.
use crate::free_port;
use crate::http::{ask, client, send};
use crate::stack::LEASE_MS;
use crate::statistics::{median, nearest_rank};
use crate::wanted::Wanted;
use reqwest::Method;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use xtask::fleet::{Fleet, Mode, Options};
use xtask::origin::Database;
use xtask::process::Process;

/// More than are read at a time.
const TITLES: usize = 12_000;
const SPLIT: &str = "services of their own";
const READERS: usize = 2;
const FLOOD: usize = 32;

#[derive(Debug, Serialize)]
pub struct Row {
    pub name: &'static str,
    /// Medians over the rounds.
    pub calm_p95_ms: f64,
    pub flood_p95_ms: f64,
    pub ratio: f64,
    pub flood_per_s: f64,
}

struct System {
    fleet: Fleet,
    token: String,
    _origins: Vec<Process>,
    _state: tempfile::TempDir,
}

async fn start(split: bool, limits: &str) -> System {
    let state = tempfile::tempdir().expect("no folder");
    let path = state.path();
    let token_keys = xtask::origin::keys(path).expect("no keys");
    let rows = (0..TITLES).map(|n| format!("{{\"type\":\"title\",\"id\":\"t{n}\",\"name\":\"Title {n}\"}}\n"));
    let file = path.join("catalogue.ndjson");
    std::fs::write(&file, rows.collect::<String>()).expect("cannot write");
    xtask::origin::import(path, &file).expect("cannot import");
    let (client_port, admin_port) = (free_port(), free_port());
    let services = if split { format!("/admin http://127.0.0.1:{admin_port}") } else { String::new() };
    let fleet = Fleet::start(Options {
        state: path.into(),
        ports: vec![vec![free_port()], vec![free_port()]],
        mode: Mode::Gateway,
        origin_url: format!("http://127.0.0.1:{client_port}"),
        token_keys,
        lease_ms: Some(10 * LEASE_MS),
        vars: [("SERVICES", services.as_str()), ("LIMITS", limits), ("ACCESS_LOG", "off")]
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .to_vec(),
        platform_field: None,
        counters: None,
        tied: false,
    })
    .expect("no edge");
    let urls = [fleet.url(0), fleet.url(1)];
    let mut origins = Vec::new();
    let mut serve = |roles: &str, port, processor| {
        // Nothing is fetched ahead of those who read.
        let database = Database::sqlite(path).with_roles(roles).with("--warm", 0);
        let process = xtask::origin::serve_on(&database, path, port, &urls, false).expect("no origin");
        process.pin(processor).expect("taskset is needed");
        origins.push(process);
    };
    if split {
        serve("client", client_port, 0);
        serve("admin,auth,jobs", admin_port, 1);
    } else {
        serve("client,admin,auth,jobs", client_port, 0);
    }
    (0..2).for_each(|index| fleet.pin_edge(index, index).expect("taskset is needed"));
    let token = xtask::origin::admin_token(path, "admin", 3600).expect("no token");
    System { fleet, token, _origins: origins, _state: state }
}

/// Nothing is fresh any more, at the edge that is read from or in the service.
async fn purge_all(system: &System) {
    let edge = system.fleet.url(1);
    let body = r#"{"all":true,"mode":"hard"}"#;
    let purge =
        ask(Method::POST, format!("{edge}/admin/v1/purges")).header("content-type", "application/json").body(body);
    let purged = send(purge.bearer_auth(&system.token)).await;
    let receipt = purged.header("location").unwrap_or_else(|| panic!("a purge was refused: {purged:?}"));
    let landed = ask(Method::GET, format!("{edge}{receipt}?wait=applied&timeout_ms=9000")).bearer_auth(&system.token);
    let landed = send(landed).await;
    assert_eq!(landed.json()["state"], "applied", "{landed:?}");
}

/// The 95th percentile of reads, in milliseconds.
async fn reads(system: &System, how_long: Duration) -> f64 {
    let mut readers = Vec::new();
    for reader in 0..READERS {
        let (client, edge) = (client(), system.fleet.url(0));
        let began = Instant::now();
        readers.push(tokio::spawn(async move {
            let mut times = Vec::new();
            for n in (0..TITLES).skip(reader).step_by(READERS) {
                if began.elapsed() >= how_long {
                    return times;
                }
                let url = format!("{edge}/v1/titles/t{n}");
                let asked = Instant::now();
                let got = client.get(url).send().await.expect("a viewer got no answer");
                times.push(asked.elapsed().as_secs_f64() * 1_000.0);
                let status =
                    got.headers().get("cache-status").and_then(|value| value.to_str().ok()).unwrap_or_default();
                assert!(got.status() == 200 && !status.contains("hit"), "{} {status}", got.status());
            }
            panic!("{TITLES} titles are too few");
        }));
    }
    let mut times = Vec::new();
    for reader in readers {
        times.extend(reader.await.expect("a reader ended"));
    }
    times.sort_by(f64::total_cmp);
    nearest_rank(&times, 95)
}

/// Keeps asking for lists of titles; counts answers of any kind.
fn flood(system: &System, stop: &Arc<AtomicBool>, count: &Arc<AtomicU64>) -> Vec<tokio::task::JoinHandle<()>> {
    let url = format!("{}/admin/v1/titles?limit=200", system.fleet.url(1));
    (0..FLOOD)
        .map(|_| {
            let (client, stop, count) = (client(), Arc::clone(stop), Arc::clone(count));
            let request = client.get(&url).bearer_auth(&system.token).header("cf-connecting-ip", "192.0.2.1");
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let Some(request) = request.try_clone() else { return };
                    if let Ok(got) = request.send().await {
                        let _ = got.bytes().await;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect()
}

/// Services are processes of their own so that a flood on one is not noticed at another.
const RATIO_MAX: f64 = 2.0;

pub fn wanted(rows: &[Row]) -> Vec<Wanted> {
    let own = rows.iter().filter(|row| row.name == SPLIT);
    own.map(|row| Wanted::below("p95 in a flood to p95 without", RATIO_MAX, row.ratio)).collect()
}

pub async fn run(how_long: Duration, rounds: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, split, limits) in
        [(SPLIT, true, ""), ("services of their own, limited", true, "admin=60/60"), ("one process", false, "")]
    {
        let system = start(split, limits).await;
        let warm = ask(Method::GET, format!("{}/v1/genres", system.fleet.url(0))).send().await;
        assert!(warm.is_ok());
        reads(&system, Duration::from_secs(1)).await;
        let (mut calm, mut flooded, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            purge_all(&system).await;
            calm.push(reads(&system, how_long).await);
            purge_all(&system).await;
            let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let tasks = flood(&system, &stop, &count);
            flooded.push(reads(&system, how_long).await);
            rates.push(count.load(Ordering::Relaxed) as f64 / how_long.as_secs_f64());
            stop.store(true, Ordering::Relaxed);
            for task in tasks {
                let _ = task.await;
            }
        }
        let (calm_p95_ms, flood_p95_ms) = (median(calm), median(flooded));
        let (ratio, flood_per_s) = (flood_p95_ms / calm_p95_ms, median(rates));
        rows.push(Row { name, calm_p95_ms, flood_p95_ms, ratio, flood_per_s });
    }
    rows
}
