//! How long a purge takes to the last location that refuses the old copy, and what a storm of purges does to hits.
use crate::http::{client, send_to};
use crate::races::version_of;
use crate::stack::{Shape, Stack, metrics};
use crate::statistics::nearest_rank;
use crate::wanted::Wanted;
use reqwest::Method;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Nearest-rank percentiles in milliseconds.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Percentiles {
    pub p50: u64,
    pub p95: u64,
    pub p99: u64,
    pub max: u64,
}

fn percentiles(mut values: Vec<u64>) -> Percentiles {
    values.sort_unstable();
    let [p50, p95, p99, max] = [50, 95, 99, 100].map(|percent| nearest_rank(&values, percent));
    Percentiles { p50, p95, p99, max }
}

impl Percentiles {
    /// At the leases there is a word on: 100 ms, and a second, which is the default.
    pub fn wanted(&self, lease_ms: u64) -> Option<Wanted> {
        let limit_ms = limit_ms(lease_ms)?;
        Some(Wanted::below(format!("p99 with a lease of {lease_ms} ms"), limit_ms, self.p99 as f64))
    }
}

/// What is wanted of the 99th percentile, with a lease of which anything is.
pub fn limit_ms(lease_ms: u64) -> Option<f64> {
    [(100, 250.0), (1_000, 1_200.0)].into_iter().find(|(of_ms, _)| *of_ms == lease_ms).map(|(_, limit_ms)| limit_ms)
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {} ms, p95 {} ms, p99 {} ms, max {} ms", self.p50, self.p95, self.p99, self.max)
    }
}

fn title(version: u64) -> Value {
    json!({"name": format!("v{version}")})
}

/// From the acknowledgement of a hard-purging write to the moment from which on the last of `edges` locations, each
/// asked every few milliseconds, shows the new page.
pub async fn run(edges: usize, lease_ms: u64, rounds: u64) -> Percentiles {
    let catalogue = json!({"type": "title", "id": "t0", "name": "v0"}).to_string();
    let stack = Stack::of(Shape { edges, lease_ms, catalogue, ..Shape::default() }).await;
    let stop = Arc::new(AtomicBool::new(false));
    // Which version each location shows since when; old ones after new ones would show as a step back.
    let (seen, shown): (Vec<_>, Vec<_>) = (0..edges).map(|_| watch::channel((0u64, Instant::now()))).unzip();
    let pollers: Vec<_> = seen
        .into_iter()
        .enumerate()
        .map(|(edge, seen)| {
            let (url, stop) = (format!("{}/v1/titles/t0", stack.fleet.url(edge)), Arc::clone(&stop));
            tokio::spawn(async move {
                let client = client();
                while !stop.load(Ordering::Relaxed) {
                    if let Some(got) = send_to(client.get(&url)).await {
                        let version = version_of(&got.body).unwrap_or(0);
                        let changed = |(last, _): &(u64, Instant)| *last != version;
                        let at = Instant::now();
                        seen.send_if_modified(|state| {
                            let is_new = changed(state);
                            if is_new {
                                assert!(version > state.0, "a location went back from {} to {version}", state.0);
                                *state = (version, at);
                            }
                            is_new
                        });
                    }
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
            })
        })
        .collect();
    let mut lags = Vec::new();
    for version in 1..=rounds {
        // Not in step with anybody's lease.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(20..lease_ms + 50))).await;
        let written = stack.admin(Method::PATCH, "/admin/v1/titles/t0?purge=hard", Some(title(version))).await;
        assert_eq!(written.status, 200, "{written:?}");
        let began = Instant::now();
        let mut last = Duration::ZERO;
        for shown in &shown {
            let mut shown = shown.clone();
            let (_, at) = *shown.wait_for(|(seen, _)| *seen >= version).await.expect("a poller failed");
            last = last.max(at.saturating_duration_since(began));
        }
        lags.push(u64::try_from(last.as_millis()).unwrap_or(u64::MAX));
    }
    stop.store(true, Ordering::Relaxed);
    for poller in pollers {
        poller.await.expect("a poller failed");
    }
    percentiles(lags)
}

/// What a storm of purges did.
#[derive(Debug, serde::Serialize)]
pub struct Storm {
    pub keys: u64,
    pub took_ms: u64,
    pub requests: u64,
    pub hits: u64,
    pub errors: u64,
    /// Requests that went to origin, of those above.
    pub forwarded: u64,
    pub view_keys: u64,
    pub head: u64,
    /// From the last purge's acknowledgement to its receipt.
    pub applied_ms: u64,
    pub latency_ms: Percentiles,
}

impl Storm {
    pub fn wanted(&self) -> [Wanted; 2] {
        [Wanted::none("errors", self.errors), Wanted::at_least("hits meanwhile", 1.0, self.hits as f64)]
    }
}

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |part: u64| 100.0 * part as f64 / self.requests.max(1) as f64;
        writeln!(f, "keys purged           {} in {:.1} s", self.keys, self.took_ms as f64 / 1000.0)?;
        writeln!(
            f,
            "requests meanwhile    {}, {:.2} % hits, {:.2} % to origin, {} errors",
            self.requests,
            share(self.hits),
            share(self.forwarded),
            self.errors
        )?;
        writeln!(f, "latency of requests   {}", self.latency_ms)?;
        writeln!(
            f,
            "keys in the view      {} (of content at most 65536; what is older raised the floor)",
            self.view_keys
        )?;
        write!(f, "purge {} applied       {} ms after it was acknowledged", self.head, self.applied_ms)
    }
}

/// Purges `keys` keys softly, a thousand a call, over `seconds`, while `titles` pages are read.
pub async fn storm(keys: u64, seconds: u64, titles: usize) -> Storm {
    let rows = (0..titles)
        .map(|n| json!({"type": "title", "id": format!("t{n}"), "name": format!("v{n}")}).to_string() + "\n");
    let stack = Stack::of(Shape { lease_ms: 1_000, catalogue: rows.collect(), ..Shape::default() }).await;
    for n in 0..titles {
        stack.get(&format!("/v1/titles/t{n}")).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let counts: Arc<[AtomicU64; 4]> = Arc::default();
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (base, stop, counts) = (stack.url("/v1/titles/t"), Arc::clone(&stop), Arc::clone(&counts));
            tokio::spawn(async move {
                let client = client();
                let mut took = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let got = send_to(client.get(format!("{base}{}", fastrand::usize(0..titles)))).await;
                    took.push(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
                    let [requests, hits, forwarded, errors] = &*counts;
                    requests.fetch_add(1, Ordering::Relaxed);
                    match got.filter(|got| got.status == 200) {
                        None => errors.fetch_add(1, Ordering::Relaxed),
                        Some(got) if got.cache().contains("; hit") => hits.fetch_add(1, Ordering::Relaxed),
                        Some(_) => forwarded.fetch_add(1, Ordering::Relaxed),
                    };
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                took
            })
        })
        .collect();
    let began = Instant::now();
    let calls = keys.div_ceil(1_000);
    let mut last = None;
    for call in 0..calls {
        let named: Vec<String> = (0..1_000.min(keys - call * 1_000)).map(|n| format!("storm:{call}:{n}")).collect();
        let body = json!({"keys": named, "mode": "soft", "reason": "storm"});
        let purged = stack.admin(Method::POST, "/admin/v1/purges", Some(body)).await;
        assert_eq!(purged.status, 202, "{purged:?}");
        last = Some(purged);
        let due = Duration::from_millis(seconds * 1_000 * (call + 1) / calls);
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
    }
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let last = last.expect("no purge");
    let acked = Instant::now();
    let receipt = stack.applied(&last).await;
    let applied_ms = u64::try_from(acked.elapsed().as_millis()).unwrap_or(u64::MAX);
    stop.store(true, Ordering::Relaxed);
    let mut took = Vec::new();
    for reader in readers {
        took.extend(reader.await.expect("a reader failed"));
    }
    let view_keys = metrics(&stack.fleet.url(0), &stack.key).await.figure("edge_view_keys").unwrap_or(0);
    let [requests, hits, forwarded, errors] = &*counts;
    let value = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Storm {
        keys,
        took_ms,
        requests: value(requests),
        hits: value(hits),
        errors: value(errors),
        forwarded: value(forwarded),
        view_keys,
        head: receipt["seq"].as_u64().unwrap_or(0),
        applied_ms,
        latency_ms: percentiles(took),
    }
}
