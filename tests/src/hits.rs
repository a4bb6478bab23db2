//! What a hit costs, side by side with Workers written by hand: the server on one processor, the load on the other, in
//! rounds that take turns, so that a machine whose speed drifts wrongs nobody. Ratios hold, absolute figures do not.
use crate::api::{Api, SHARED};
use crate::free_port;
use crate::stack::Proxy;
use serde::Serialize;
use std::process::Command;
use xtask::process::Process;

/// One thing that is measured.
struct Target {
    name: &'static str,
    url: String,
    headers: Vec<String>,
    rates: Vec<f64>,
}

#[derive(Debug, Serialize)]
pub struct Row {
    pub name: &'static str,
    /// Median over the rounds.
    pub requests_per_s: f64,
    /// To the hand-written Worker that answers from its memory, in the same run.
    pub to_js_memory: f64,
}

const BASE: &str = "js memory";

/// 9.8 kB of JSON, as a home page has.
fn page() -> String {
    let items: Vec<_> =
        (0..100).map(|n| serde_json::json!({"id": format!("title-{n}"), "name": "x".repeat(62)})).collect();
    serde_json::json!({"items": items}).to_string()
}

/// `wrk` for some seconds on processor 1.
fn load(target: &Target, seconds: u64) -> Result<f64, String> {
    wrk(target.name, &target.url, &target.headers, seconds)
}

/// Requests a second.
pub(crate) fn wrk(name: &str, url: &str, headers: &[String], seconds: u64) -> Result<f64, String> {
    let mut wrk = Command::new("taskset");
    wrk.args(["-c", "1", "wrk", "-t1", "-c32", &format!("-d{seconds}s")]);
    for header in headers {
        wrk.args(["-H", header]);
    }
    let output = wrk.arg(url).output().map_err(|error| format!("taskset and wrk are needed: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("Non-2xx") || text.contains("Socket errors") || !output.status.success() {
        return Err(format!("{name}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    }
    let rate = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")?.trim().parse().ok());
    rate.ok_or_else(|| format!("wrk said no rate: {text}"))
}

/// Measures for `rounds` rounds of `seconds` for each.
pub async fn run(rounds: usize, seconds: u64) -> Result<Vec<Row>, String> {
    let proxy = Proxy::start().await;
    let body = page();
    for keys in [1, 20, 100] {
        let list = (0..keys).map(|n| format!("key-{n}")).collect::<Vec<_>>().join(" ");
        let fields = [
            ("content-type", "application/json"),
            ("cache-control", "max-age=3600"),
            ("etag", "\"a-page\""),
            ("surrogate-key", list.as_str()),
        ];
        proxy.upstream.answer(&format!("/keys-{keys}"), &fields, &body);
    }
    let script = |text: &str| text.replace("ORIGIN_PORT", &proxy.upstream.port.to_string());
    let mut peers: Vec<Process> = Vec::new();
    let mut targets = Vec::new();
    let mut target = |name, url, headers: &[&str]| {
        targets.push(Target {
            name,
            url,
            headers: headers.iter().map(ToString::to_string).collect(),
            rates: Vec::new(),
        });
    };
    for (name, file, text, path) in [
        ("js empty", "peer-empty", include_str!("../peers/empty.js"), "/"),
        (BASE, "peer-memory", include_str!("../peers/memory.js"), "/keys-20"),
        ("js kv", "peer-kv", include_str!("../peers/kv.js"), "/keys-20"),
    ] {
        let port = free_port();
        let peer = proxy.fleet.start_peer(file, port, &script(text)).map_err(|error| error.to_string())?;
        peer.pin(0).map_err(|error| error.to_string())?;
        peers.push(peer);
        target(name, format!("http://127.0.0.1:{port}{path}"), &[]);
    }
    proxy.fleet.pin_edge(0, 0).map_err(|error| error.to_string())?;
    let edge = |path: &str| proxy.url(path);
    // One document of the API, to a stranger and to who bears a token.
    let api = Api::start().await;
    api.fleet.pin_edge(0, 0).map_err(|error| error.to_string())?;
    let list = (0..20).map(|n| format!("key-{n}")).collect::<Vec<_>>().join(" ");
    api.answer("/v1/home", &SHARED, &list, &body);
    let bearer = format!("authorization: Bearer {}", api.token("ada"));
    target("gateway memory, a stranger", api.url("/v1/home"), &[]);
    target("gateway memory, a viewer", api.url("/v1/home"), &[&bearer]);
    target("edge memory, 1 key", edge("/keys-1"), &[]);
    target("edge memory, 20 keys", edge("/keys-20"), &[]);
    target("edge memory, 100 keys", edge("/keys-100"), &[]);
    for one in &targets {
        for _ in 0..3 {
            crate::http::get(&one.url).await;
        }
    }
    let targets = tokio::task::spawn_blocking(move || -> Result<Vec<Target>, String> {
        for _ in 0..rounds {
            for one in &mut targets {
                one.rates.push(load(one, seconds)?);
            }
        }
        Ok(targets)
    });
    let mut targets = targets.await.map_err(|error| error.to_string())??;
    let mut median = |target: &mut Target| {
        target.rates.sort_by(f64::total_cmp);
        target.rates[target.rates.len() / 2]
    };
    let medians: Vec<f64> = targets.iter_mut().map(&mut median).collect();
    let base = targets.iter().position(|target| target.name == BASE).map_or(1.0, |place| medians[place]);
    let row =
        |(target, rate): (&Target, f64)| Row { name: target.name, requests_per_s: rate, to_js_memory: rate / base };
    Ok(targets.iter().zip(medians).map(row).collect())
}
