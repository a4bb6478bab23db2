//! What an answer costs, side by side with Workers written by hand and with the caches people run: the server on one
//! processor, the load on the other, in rounds that take turns, so that a machine whose speed drifts wrongs nobody. Ratios
//! are taken within each round; they hold, absolute figures do not. The peers' set-up is in `tests/peers`.
use crate::api::{Api, SHARED};
use crate::free_port;
use crate::hits_peers::{Peer, start_peers};
use crate::stack::Proxy;
use serde::Serialize;
use std::io::Write as _;
use std::process::Command;

/// One thing that is measured.
pub struct Target {
    pub name: &'static str,
    pub url: String,
    pub headers: Vec<String>,
    /// Each request is for another page, of which none is asked for twice: so many in a round.
    pub pages: Option<usize>,
    rates: Vec<f64>,
}

impl Target {
    pub fn new(name: &'static str, url: impl Into<String>) -> Self {
        Self { name, url: url.into(), headers: Vec::new(), pages: None, rates: Vec::new() }
    }

    fn with(mut self, header: &str) -> Self {
        self.headers.push(header.into());
        self
    }

    fn of_pages(mut self, pages: usize) -> Self {
        self.pages = Some(pages);
        self
    }
}

#[derive(Debug, Serialize)]
pub struct Row {
    pub name: &'static str,
    /// Median over the rounds.
    pub requests_per_s: f64,
    /// Medians of the ratios within each round.
    pub to_js_empty: f64,
    pub to_js_memory: f64,
    pub to_js_kv: f64,
}

/// A ratio that is wanted, and what it was.
#[derive(Debug, Serialize)]
pub struct Wanted {
    pub what: &'static str,
    pub ratio: f64,
    pub at_least: f64,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub rows: Vec<Row>,
    pub wanted: Vec<Wanted>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:<24}{:>12}{:>10}{:>10}{:>10}", "", "requests/s", "js empty", "js memory", "js kv")?;
        for row in &self.rows {
            let (empty, memory, kv) = (row.to_js_empty, row.to_js_memory, row.to_js_kv);
            writeln!(f, "{:<24}{:>12.0}{empty:>10.2}{memory:>10.2}{kv:>10.2}", row.name, row.requests_per_s)?;
        }
        for Wanted { what, ratio, at_least } in &self.wanted {
            let word = if ratio >= at_least { "reached" } else { "NOT reached" };
            writeln!(f, "{what}: {ratio:.2}, wanted {at_least:.2}: {word}")?;
        }
        Ok(())
    }
}

const EMPTY: &str = "js empty";
const MEMORY: &str = "js memory";
const KV: &str = "js kv";
/// Pages that are asked for once: in a round, and in all.
const PAGES_IN_A_ROUND: usize = 4_000;

/// 9.8 kB of JSON, as a home page has.
fn page() -> String {
    let items: Vec<_> =
        (0..100).map(|n| serde_json::json!({"id": format!("title-{n}"), "name": "x".repeat(62)})).collect();
    serde_json::json!({"items": items}).to_string()
}

fn load(target: &Target, round: usize, seconds: u64) -> Result<f64, String> {
    let mut script = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    let mut more: Vec<std::ffi::OsString> = Vec::new();
    if let Some(pages) = target.pages {
        let first = round * pages;
        let path = target.url.splitn(4, '/').nth(3).unwrap_or_default();
        let lua = format!(
            "local n = {first}\nrequest = function()\n  n = n + 1\n  return wrk.format(nil, \"/{path}\" .. n)\nend\n"
        );
        script.write_all(lua.as_bytes()).map_err(|error| error.to_string())?;
        more.extend(["-s".into(), script.path().into()]);
    }
    let (done, rate) = run_wrk(target.name, &target.url, &target.headers, &more, seconds)?;
    if let Some(pages) = target.pages.filter(|pages| done > *pages) {
        return Err(format!("{}: {done} requests, and only {pages} pages were prepared for a round", target.name));
    }
    Ok(rate)
}

/// `wrk` for some seconds on processor 1; requests a second.
pub(crate) fn wrk(name: &str, url: &str, headers: &[String], seconds: u64) -> Result<f64, String> {
    run_wrk(name, url, headers, &[], seconds).map(|(_, rate)| rate)
}

/// How many requests were answered, and how many a second.
fn run_wrk(
    name: &str,
    url: &str,
    headers: &[String],
    more: &[std::ffi::OsString],
    seconds: u64,
) -> Result<(usize, f64), String> {
    let mut wrk = Command::new("taskset");
    wrk.args(["-c", "1", "wrk", "-t1", "-c32", &format!("-d{seconds}s")]).args(more);
    for header in headers {
        wrk.args(["-H", header]);
    }
    let output = wrk.arg(url).output().map_err(|error| format!("taskset and wrk are needed: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("Non-2xx") || text.contains("Socket errors") || !output.status.success() {
        return Err(format!("{name}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    }
    let done = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    let rate = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")?.trim().parse().ok());
    done.zip(rate).ok_or_else(|| format!("wrk said no rate: {text}"))
}

/// Asks for pages once each, some at a time.
async fn ask_for_all(url: &str, pages: usize) {
    let next = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(1));
    let askers = (0..32).map(|_| {
        let (next, url) = (std::sync::Arc::clone(&next), url.to_string());
        tokio::spawn(async move {
            let client = crate::http::client();
            loop {
                let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if n > pages {
                    return;
                }
                if let Ok(answer) = client.get(format!("{url}{n}")).send().await {
                    let _ = answer.bytes().await;
                }
            }
        })
    });
    for asker in askers.collect::<Vec<_>>() {
        let _ = asker.await;
    }
}

/// Measures for `rounds` rounds of `seconds` for each.
pub async fn run(rounds: usize, seconds: u64) -> Result<Report, String> {
    // Three locations: one that is warm, one whose second isolate finds what the first has left in their cache, and one
    // that finds its pages in KV.
    let proxy = Proxy::with_isolates(&[1, 2, 1]).await;
    let body = page();
    let fields = |keys: usize| {
        let list = (0..keys).map(|n| format!("key-{n}")).collect::<Vec<_>>().join(" ");
        [
            ("content-type", "application/json".to_string()),
            ("cache-control", "max-age=3600".to_string()),
            ("etag", "\"a-page\"".to_string()),
            ("surrogate-key", list),
        ]
    };
    let scripted = |path: &str, keys: usize| {
        let fields = fields(keys);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        proxy.upstream.answer(path, &fields, &body);
    };
    // Viewers meet the gateway of the API; other tiers are reached more easily through a proxy for any origin. No peer but
    // one writes a log; what it costs stands in rows of their own.
    let gateway = Api::of(1, &[("LEASE_MS", "1000"), ("ACCESS_LOG", "off")]).await;
    let logging = Api::of(1, &[("LEASE_MS", "1000"), ("ACCESS_LOG", "all")]).await;
    for api in [&gateway, &logging] {
        api.fleet.pin_edge(0, 0).map_err(|error| error.to_string())?;
    }
    let policy: Vec<_> = SHARED.into_iter().chain([("etag", "\"a-page\"")]).collect();
    for keys in [1, 20, 100] {
        scripted(&format!("/keys-{keys}"), keys);
        let list = (0..keys).map(|n| format!("key-{n}")).collect::<Vec<_>>().join(" ");
        for api in [&gateway, &logging] {
            api.answer(&format!("/v1/titles/keys-{keys}"), &policy, &list, &body);
        }
    }
    let bearer = format!("authorization: Bearer {}", gateway.token("ada"));
    // What the peers are asked for until they answer.
    scripted("/", 20);
    scripted("/page", 20);
    scripted("/miss", 20);
    let (mut targets, peers): (Vec<Target>, Vec<Peer>) = start_peers(&proxy, free_port)?;
    let edge =
        |location: usize, isolate: usize, path: &str| format!("{}{path}", proxy.fleet.isolate_url(location, isolate));
    for location in 0..3 {
        proxy.fleet.pin_edge(location, 0).map_err(|error| error.to_string())?;
    }
    // What is no date says nothing, and sends a request through the whole gateway.
    let long_way = "if-modified-since: never";
    targets.extend([
        Target::new("edge memory, 1 key", gateway.url("/v1/titles/keys-1")),
        Target::new("edge memory, 20 keys", gateway.url("/v1/titles/keys-20")),
        Target::new("edge memory, 100 keys", gateway.url("/v1/titles/keys-100")),
        Target::new("edge memory, 304", gateway.url("/v1/titles/keys-20")).with("if-none-match: \"a-page\""),
        Target::new("edge memory, a viewer", gateway.url("/v1/titles/keys-20")).with(&bearer),
        Target::new("edge memory, fields=", gateway.url("/v1/titles/keys-20?fields=items.id")),
        Target::new("edge memory, with a log", logging.url("/v1/titles/keys-20")),
        Target::new("edge memory, long way", gateway.url("/v1/titles/keys-20")).with(long_way),
        Target::new("edge memory, any origin", edge(0, 0, "/keys-20")),
        Target::new("edge colo", edge(1, 1, "/page?n=")).of_pages(PAGES_IN_A_ROUND),
        Target::new("edge kv", edge(2, 0, "/page?n=")).of_pages(PAGES_IN_A_ROUND),
        Target::new("edge miss", edge(0, 0, "/miss?n=")).of_pages(10 * PAGES_IN_A_ROUND),
    ]);
    for one in targets.iter().filter(|one| one.pages.is_none()) {
        for _ in 0..3 {
            let request = crate::http::ask(reqwest::Method::GET, &one.url);
            let fields = one.headers.iter().filter_map(|header| header.split_once(": "));
            crate::http::send(fields.fold(request, |request, (name, value)| request.header(name, value))).await;
        }
    }
    println!("preparing pages for colo and KV …");
    let pages = PAGES_IN_A_ROUND * rounds;
    // Written to KV and to this location's cache: the second isolate finds them there, the third location in KV.
    ask_for_all(&edge(1, 0, "/page?n="), pages).await;
    if let Some(kv) = targets.iter().find(|one| one.name == KV && one.pages.is_some()) {
        ask_for_all(&kv.url, pages).await;
    }
    let targets = tokio::task::spawn_blocking(move || -> Result<Vec<Target>, String> {
        for round in 0..rounds {
            for one in &mut targets {
                // The pages of a round would not last longer.
                let seconds = if one.pages.is_some() { 1 } else { seconds };
                one.rates.push(load(one, round, seconds)?);
            }
        }
        Ok(targets)
    });
    let targets = targets.await.map_err(|error| error.to_string())??;
    drop((peers, gateway, logging, proxy));
    Ok(report(&targets))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn report(targets: &[Target]) -> Report {
    let rates =
        |name: &str| targets.iter().find(|one| one.name == name).map(|one| one.rates.clone()).unwrap_or_default();
    let ratio = |ours: &[f64], theirs: &[f64]| median(ours.iter().zip(theirs).map(|(a, b)| a / b).collect());
    let (empty, memory, kv) = (rates(EMPTY), rates(MEMORY), rates(KV));
    let rows = targets.iter().map(|one| Row {
        name: one.name,
        requests_per_s: median(one.rates.clone()),
        to_js_empty: ratio(&one.rates, &empty),
        to_js_memory: ratio(&one.rates, &memory),
        to_js_kv: ratio(&one.rates, &kv),
    });
    let of = |ours: &str, theirs: &str| ratio(&rates(ours), &rates(theirs));
    let wanted = [
        ("memory hit to js memory", of("edge memory, 20 keys", MEMORY), 0.95),
        ("memory hit to js memory, same fields", of("edge memory, 20 keys", "js memory, same fields"), 0.95),
        ("logged hit to js memory, fields + log", of("edge memory, with a log", "js memory, fields + log"), 0.95),
        ("memory hit to js kv", of("edge memory, 20 keys", KV), 2.0),
        ("100 keys to 1 key", of("edge memory, 100 keys", "edge memory, 1 key"), 1.0 / 1.05),
        ("a viewer's hit to a stranger's", of("edge memory, a viewer", "edge memory, 20 keys"), 1.0 / 1.3),
        ("kv hit to js kv", of("edge kv", "js kv, pages"), 1.0),
    ];
    let wanted = wanted.map(|(what, ratio, at_least)| Wanted { what, ratio, at_least });
    Report { rows: rows.collect(), wanted: wanted.into() }
}
