//! What a start costs: a location's process until its first answer, and how much longer an isolate's first request takes than
//! later ones. Beside the least a Worker can be in the same runtime, in rounds that take turns.
use crate::api::{Api, SHARED};
use crate::free_port;
use crate::statistics::median;
use serde::Serialize;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};
use xtask::fleet::Script;

/// Medians over the rounds.
#[derive(Debug, Serialize)]
pub struct Row {
    pub name: &'static str,
    /// From the start of the process to the end of its first answer.
    pub first_answer_ms: f64,
    /// The first request of the isolate, once it can be reached.
    pub first_request_ms: f64,
    /// The same request afterwards.
    pub later_ms: f64,
    /// What the first took longer.
    pub added_ms: f64,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, first_answer_ms, first_request_ms, later_ms, added_ms } = self;
        write!(
            f,
            "{name:<40} first answer {first_answer_ms:>6.1} ms after the process, first request {first_request_ms:>5.1} ms, \
             later ones {later_ms:>5.2} ms, added {added_ms:>5.1} ms"
        )
    }
}

struct Kind {
    name: &'static str,
    port: u16,
    request: String,
    /// First answer, first request, later ones.
    times: Vec<[f64; 3]>,
}

const LATER: usize = 15;

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// Sends a request and reads its whole answer, which says its length.
fn exchange(stream: &mut TcpStream, request: &str) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = Vec::new();
    let mut piece = [0; 64 * 1024];
    loop {
        let read = stream.read(&mut piece).map_err(text)?;
        answer.extend_from_slice(&piece[..read]);
        let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
        if let Some(end) = head {
            let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            if !head.starts_with("http/1.1 200") {
                return Err(head);
            }
            if length.is_some_and(|length| answer.len() >= end + 4 + length) {
                return Ok(());
            }
        }
        if read == 0 {
            return Err("the answer broke off, or says no length".into());
        }
    }
}

impl Kind {
    fn new(name: &'static str, port: u16, path: &str, field: &str) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n{field}\r\n");
        Self { name, port, request, times: Vec::new() }
    }

    /// Asks a process that was started at `began`.
    fn ask(&mut self, began: Instant) -> Result<(), String> {
        let mut stream = loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(stream) => break stream,
                Err(error) if ms(began) > 10_000.0 => return Err(format!("{}: {error}", self.name)),
                Err(_) => std::thread::sleep(Duration::from_micros(200)),
            }
        };
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let sent = Instant::now();
        exchange(&mut stream, &self.request)?;
        let (first_answer, first) = (ms(began), ms(sent));
        let mut later = Vec::new();
        for _ in 0..LATER {
            let sent = Instant::now();
            exchange(&mut stream, &self.request)?;
            later.push(ms(sent));
        }
        self.times.push([first_answer, first, median(later)]);
        Ok(())
    }

    fn row(&self) -> Row {
        let of = |value: fn(&[f64; 3]) -> f64| median(self.times.iter().map(value).collect());
        Row {
            name: self.name,
            first_answer_ms: of(|times| times[0]),
            first_request_ms: of(|times| times[1]),
            later_ms: of(|times| times[2]),
            added_ms: of(|times| times[1] - times[2]),
        }
    }
}

const PAGE: &str = "/v1/titles/heat-1995";

/// A location whose cache has the page.
async fn location() -> Api {
    let api = Api::of(1, &[("LEASE_MS", "1000")]).await;
    api.publish(&[&api.key]);
    api.answer(PAGE, &SHARED, "title:heat-1995", &"x".repeat(9_800));
    let token = api.token("ada");
    for _ in 0..2 {
        api.get(PAGE, &[]).await;
        api.get_as(&token, PAGE).await;
    }
    // Written behind the answers.
    tokio::time::sleep(Duration::from_millis(500)).await;
    api
}

fn edge_kinds(api: &Api, [stranger, viewer]: [&'static str; 2]) -> [Kind; 2] {
    let port = api.url("").rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_default();
    let bearer = format!("Authorization: Bearer {}\r\n", api.token("ada"));
    [Kind::new(stranger, port, PAGE, ""), Kind::new(viewer, port, PAGE, &bearer)]
}

/// `beside`: a folder with another build of the edge's Worker (`index.js`, `index_bg.wasm`), measured in the same rounds.
pub async fn run(rounds: usize, beside: Option<&Path>) -> Result<Vec<Row>, String> {
    let mut locations = Vec::new();
    let api = location().await;
    let kinds = edge_kinds(&api, ["a page of the location's cache", "the same, for a viewer"]);
    locations.push((api, kinds));
    if let Some(build) = beside {
        let api = location().await;
        for (from, to) in [("index.js", "edge.js"), ("index_bg.wasm", "edge.wasm")] {
            let (from, to) = (build.join(from), api.fleet.state().join("bundle").join(to));
            std::fs::copy(&from, to).map_err(|error| format!("{}: {error}", from.display()))?;
        }
        let kinds = edge_kinds(&api, ["the other build, a page", "the other build, for a viewer"]);
        locations.push((api, kinds));
    }
    let mut empty = Kind::new("a Worker that says ok", free_port(), "/", "");
    let work = tokio::task::spawn_blocking(move || {
        let text = |error: xtask::Error| error.to_string();
        for _ in 0..rounds {
            let began = Instant::now();
            let peer = locations[0].0.fleet.spawn_peer(
                "peer-empty",
                empty.port,
                Script::Text(include_str!("../peers/empty.js")),
            );
            let peer = peer.map_err(text)?;
            empty.ask(began)?;
            drop(peer);
            for (api, kinds) in &mut locations {
                for kind in kinds {
                    api.fleet.kill_edge(0);
                    let began = Instant::now();
                    api.fleet.spawn_edge(0).map_err(text)?;
                    kind.ask(began)?;
                }
            }
        }
        let kinds = std::iter::once(&empty).chain(locations.iter().flat_map(|(_, kinds)| kinds));
        Ok(kinds.map(Kind::row).collect())
    });
    work.await.map_err(|error| error.to_string())?
}
