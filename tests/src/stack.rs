//! Whole systems in folders of their own: the edge as a proxy before an upstream, and the edge before the real origin.
use crate::free_port;
use crate::gate::Gate;
use crate::http::{Got, ask, send};
use crate::upstream::Upstream;
use kv_schemas::claims::{AUDIENCE_EDGE, EdgeClaims, ISSUER, Scope};
use kv_schemas::edge_secret::{EdgeSecret, VIEWER_SEAL};
use kv_schemas::viewer::FIELDS;
use kv_schemas::{AsOf, Fields};
use reqwest::Method;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokens::SigningKey;
use xtask::fleet::{Fleet, Mode, Options};
use xtask::origin::Database;
use xtask::process::Process;

/// Short, so that tests need not wait for it.
pub const LEASE_MS: u64 = 100;
/// After this, every view has been confirmed anew: lease and half a lease, and a little.
pub const LEASE_OVER: std::time::Duration = std::time::Duration::from_millis(200);

pub fn now_s() -> u64 {
    xtask::proxy::now_s()
}

/// Claims of a token for the edge.
pub fn edge_claims(scope: Scope, body_sha256: Option<String>) -> EdgeClaims {
    EdgeClaims { iss: ISSUER.into(), aud: AUDIENCE_EDGE.into(), scope, body_sha256 }
}

pub fn sign<C: Serialize>(key: &SigningKey, claims: C, lifetime_s: u64) -> String {
    key.sign(claims, now_s(), lifetime_s).expect("cannot sign")
}

/// What the isolate at this URL counts.
pub async fn metrics(edge: &str, key: &SigningKey) -> Got {
    let token = sign(key, edge_claims(Scope::Metrics, None), 60);
    send(ask(Method::GET, format!("{edge}/__edge/metrics")).bearer_auth(token)).await
}

/// From its next start on a process (`edge-1`, `global`) has this value of a variable, or none.
pub fn set_var(fleet: &Fleet, process: &str, name: &str, value: Option<&str>) {
    let file = fleet.state().join(format!("{process}.capnp"));
    let config = std::fs::read_to_string(&file).expect("no configuration");
    // Each variable has a line, and each Worker of ours is told who numbers the purges.
    let is_of = |line: &str, name: &str| line.trim_start().starts_with(&format!("( name = {name:?}, text = "));
    assert!(config.lines().any(|line| is_of(line, "PURGE_LOG")), "{config}");
    let mut lines = Vec::new();
    for line in config.lines() {
        if is_of(line, "PURGE_LOG") {
            lines.extend(value.map(|value| format!("( name = {name:?}, text = {value:?} ),")));
        }
        if !is_of(line, name) {
            lines.push(line.into());
        }
    }
    std::fs::write(&file, lines.join("\n")).expect("cannot write");
}

/// The edge as a generic proxy, its journal numbering the purges.
pub struct Proxy {
    pub fleet: Fleet,
    pub upstream: Upstream,
    pub gate: Gate,
    pub key: SigningKey,
    /// Good for purges and receipts.
    pub token: String,
    _state: TempDir,
}

/// What stands before what, as a proxy.
#[derive(Clone, Copy, Debug)]
pub struct ProxyShape<'a> {
    /// Isolates of each location.
    pub isolates: &'a [usize],
    /// Further variables of the Worker.
    pub vars: &'a [(&'a str, &'a str)],
    /// The part of origin's site it stands before.
    pub base: &'a str,
    /// Origin's, if it is not the upstream, which is idle then.
    pub port: Option<u16>,
    pub lease_ms: u64,
    /// KV and the Cache API keep their data in memory, where the system has such a folder: it is not the disk that is to be
    /// measured.
    pub quiet: bool,
}

impl Default for ProxyShape<'_> {
    fn default() -> Self {
        Self { isolates: &[1], vars: &[], base: "", port: None, lease_ms: LEASE_MS, quiet: false }
    }
}

impl Proxy {
    pub async fn start() -> Self {
        Self::of(ProxyShape::default()).await
    }

    pub async fn with_edges(edges: usize) -> Self {
        Self::of(ProxyShape { isolates: &vec![1; edges], ..ProxyShape::default() }).await
    }

    /// In front of another origin.
    pub async fn before_port(port: u16) -> Self {
        Self::of(ProxyShape { port: Some(port), ..ProxyShape::default() }).await
    }

    pub async fn of(shape: ProxyShape<'_>) -> Self {
        let ProxyShape { isolates, vars, base, port, lease_ms, quiet } = shape;
        let in_memory = if quiet { tempfile::tempdir_in("/dev/shm").ok() } else { None };
        let state = in_memory.unwrap_or_else(|| tempfile::tempdir().expect("no folder"));
        let upstream = Upstream::start().await;
        let port = port.unwrap_or(upstream.port);
        let gate = Gate::before(port).await;
        let key = xtask::proxy::new_key("test").expect("no key");
        let options = Options {
            state: state.path().into(),
            ports: isolates.iter().map(|count| (0..*count).map(|_| free_port()).collect()).collect(),
            mode: Mode::Proxy,
            origin_url: format!("{}{base}", gate.url()),
            token_keys: key.public_jwks().expect("no key"),
            lease_ms: Some(lease_ms),
            vars: [("ORIGIN_TIMEOUT_MS", "5000"), ("TEST_PANICS", "on")]
                .iter()
                .filter(|(name, _)| !vars.iter().any(|(other, _)| other == name))
                .chain(vars)
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            platform_field: None,
            counters: None,
            tied: false,
        };
        let fleet = Fleet::start(options).unwrap_or_else(|error| panic!("{error}"));
        let token = xtask::proxy::purge_token(&key, now_s()).expect("no token");
        Self { fleet, upstream, gate, key, token, _state: state }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.fleet.url(0))
    }

    pub async fn get(&self, path: &str) -> Got {
        crate::http::get(self.url(path)).await
    }

    /// Asks for a purge and returns the answer.
    pub async fn purge(&self, body: &str) -> Got {
        let request = ask(Method::POST, self.url("/__edge/purges")).bearer_auth(&self.token);
        send(request.body(body.to_string())).await
    }

    /// A figure of the first location's isolate.
    pub async fn metric(&self, name: &str) -> u64 {
        let got = metrics(&self.fleet.url(0), &self.key).await;
        got.figure(name).unwrap_or_else(|| panic!("no {name}: {got:?}"))
    }

    /// Purges, and waits until every view knows.
    pub async fn purged(&self, body: &str) {
        let got = self.purge(body).await;
        assert_eq!(got.status, 200, "{got:?}");
        tokio::time::sleep(LEASE_OVER).await;
    }
}

/// Whether a receipt says that the journal has the purge. Who asks late finds that it is applied by now.
pub fn is_accepted(receipt: &serde_json::Value) -> bool {
    receipt["state"] == "accepted" || receipt["state"] == "applied"
}

/// A small catalogue.
pub const CATALOGUE: &str = r#"{"type":"title","id":"heat","name":"Heat","year":1995,"genres":["Crime"],"people":[{"name":"Michael Mann","role":"director"}]}
{"type":"title","id":"ronin","name":"Ronin","year":1998,"genres":["Crime","Action"]}
{"type":"title","id":"up","name":"Up","year":2009,"genres":["Animation"]}
{"type":"title","id":"draft","name":"Draft","published":false}
{"type":"rail","id":"top","title":"Top","position":1,"items":["heat","up"]}
"#;

/// How large a system is.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Locations.
    pub edges: usize,
    /// Isolates at each.
    pub isolates: usize,
    pub lease_ms: u64,
    pub origin_timeout_ms: u64,
    /// NDJSON.
    pub catalogue: String,
    /// Further variables of the Worker.
    pub vars: Vec<(String, String)>,
    /// SQLite in the state folder when not given.
    pub database: Option<Database>,
    /// Documents of one purge that origin has fetched ahead of viewers.
    pub warm: u16,
    /// Request field that becomes `request.cf`.
    pub platform_field: Option<String>,
    /// Where the platform's counters of requests are, if not in the location's process.
    pub counters: Option<String>,
    /// Further settings of the origin.
    pub origin_settings: Vec<(&'static str, String)>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            edges: 1,
            isolates: 1,
            lease_ms: LEASE_MS,
            origin_timeout_ms: 5_000,
            catalogue: CATALOGUE.into(),
            vars: Vec::new(),
            database: None,
            warm: 0,
            platform_field: None,
            counters: None,
            origin_settings: Vec::new(),
        }
    }
}

/// How long the tokens of those who measure are good, in seconds: an hour's soak begins minutes after they are made.
pub const TOKEN_S: u64 = 24 * 3600;

/// The real thing: origin, dispatcher, edges, with gates on both ways between them.
pub struct Stack {
    pub fleet: Fleet,
    origin: Option<Process>,
    pub origin_port: u16,
    /// Edge to origin, as the service for viewers.
    pub to_origin: Gate,
    /// Edge to origin, as the services under `/admin` and `/auth`.
    pub to_admin: Gate,
    /// Dispatcher to the edge's purge intake.
    pub to_edge: Gate,
    pub admin_token: String,
    pub key: SigningKey,
    /// What edge and origin share.
    pub edge_secret: EdgeSecret,
    store: Database,
    state: TempDir,
}

impl Stack {
    pub async fn start() -> Self {
        Self::with_edges(1).await
    }

    pub async fn with_edges(edges: usize) -> Self {
        Self::of(Shape { edges, ..Shape::default() }).await
    }

    pub async fn of(shape: Shape) -> Self {
        let state = tempfile::tempdir().expect("no folder");
        let token_keys = xtask::origin::keys(state.path()).unwrap_or_else(|error| panic!("{error}"));
        let secret = xtask::origin::edge_secret(state.path()).unwrap_or_else(|error| panic!("{error}"));
        let edge_secret = EdgeSecret::new(&secret).expect("too short");
        let file = state.path().join("catalogue.ndjson");
        std::fs::write(&file, shape.catalogue).expect("cannot write");
        let database = shape.database.unwrap_or_else(|| Database::sqlite(state.path()));
        xtask::origin::import_into(&database, &file).unwrap_or_else(|error| panic!("{error}"));
        let origin_port = free_port();
        let to_origin = Gate::before(origin_port).await;
        let to_admin = Gate::before(origin_port).await;
        let ports: Vec<Vec<u16>> =
            (0..shape.edges).map(|_| (0..shape.isolates).map(|_| free_port()).collect()).collect();
        let to_edge = Gate::before(ports[0][0]).await;
        let options = Options {
            state: state.path().into(),
            ports,
            mode: Mode::Gateway,
            origin_url: to_origin.url(),
            token_keys,
            lease_ms: Some(shape.lease_ms),
            vars: [
                ("ORIGIN_TIMEOUT_MS".to_string(), shape.origin_timeout_ms.to_string()),
                ("SERVICES".to_string(), format!("/admin {url}; /auth {url}", url = to_admin.url())),
                ("EDGE_SECRET".to_string(), secret),
            ]
            .into_iter()
            .filter(|(name, _)| !shape.vars.iter().any(|(other, _)| other == name))
            .chain(shape.vars.iter().cloned())
            .collect(),
            platform_field: shape.platform_field,
            counters: shape.counters,
            tied: false,
        };
        let fleet = Fleet::start(options).unwrap_or_else(|error| panic!("{error}"));
        let admin_token = xtask::origin::admin_token(state.path(), "admin", TOKEN_S).expect("no token");
        let jwk = std::fs::read_to_string(state.path().join("keys/signing-key.jwk")).expect("no key");
        let key = SigningKey::from_jwk(&jwk).expect("no key");
        let store =
            shape.origin_settings.into_iter().fold(database, |store, (option, value)| store.with(option, value));
        let mut stack = Self {
            fleet,
            origin: None,
            origin_port,
            to_origin,
            to_admin,
            to_edge,
            admin_token,
            key,
            edge_secret,
            store: store.with("--warm", shape.warm),
            state,
        };
        stack.start_origin();
        stack.journal_knows_the_log().await;
        stack
    }

    pub fn start_origin(&mut self) {
        let edges = [self.to_edge.url()];
        let origin = xtask::origin::serve_on(&self.store, self.state.path(), self.origin_port, &edges, false);
        self.origin = Some(origin.unwrap_or_else(|error| panic!("{error}")));
    }

    /// `kill -9`.
    pub fn kill_origin(&mut self) {
        if let Some(mut origin) = self.origin.take() {
            origin.kill();
        }
    }

    pub fn database(&self) -> PathBuf {
        self.state.path().join("origin.sqlite")
    }

    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// Settles a write: its `seq`, and the receipt once it is applied everywhere, while viewers keep every edge awake.
    pub async fn applied(&self, written: &Got) -> serde_json::Value {
        let seq = written.as_of().expect("no state").seq;
        let path = format!("/admin/v1/purges/{seq}?wait=applied&timeout_ms=50");
        crate::eventually("applied everywhere", || async {
            for edge in 0..self.fleet.len() {
                let _ = ask(Method::GET, format!("{}/v1/genres", self.fleet.url(edge))).send().await;
            }
            let receipt = self.admin(Method::GET, &path, None).await.json();
            (receipt["state"] == "applied").then_some(receipt)
        })
        .await
    }

    async fn journal_knows_the_log(&self) {
        crate::eventually("the journal learns of the log", || async {
            crate::http::get(self.url("/v1/genres")).await;
            let health = crate::http::get(self.url("/__edge/health")).await;
            health.json()["purge_view"]["log_id"].is_string().then_some(())
        })
        .await;
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.fleet.url(0))
    }

    pub fn origin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.origin_port)
    }

    pub async fn get(&self, path: &str) -> Got {
        crate::http::get(self.url(path)).await
    }

    /// Asks a client service at this port as the edge does for such a viewer: the values of `Viewer-*`, in their order.
    pub async fn ask_as_edge(&self, port: u16, path: &str, told: [&str; 4]) -> Got {
        let told: Fields = FIELDS.into_iter().zip(told).collect();
        let seal = self.edge_secret.seal_viewer(|name| told.get(name), now_s()).expect("no seal");
        let request = ask(Method::GET, format!("http://127.0.0.1:{port}{path}")).header(VIEWER_SEAL, seal);
        send(told.iter().fold(request, |request, (name, value)| request.header(name, value))).await
    }

    /// A call of the admin API, at origin.
    pub async fn admin(&self, method: Method, path: &str, body: Option<serde_json::Value>) -> Got {
        let request = ask(method, self.origin_url(path)).bearer_auth(&self.admin_token).header("if-match", "*");
        send(match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            None => request,
        })
        .await
    }

    /// A counter of origin's: its values, each with that one of its labels.
    pub async fn origin_counts(&self, counter: &str, label: &str) -> Vec<(String, u64)> {
        let metrics = crate::http::get(self.origin_url("/metrics")).await.body;
        let (series, label) = (format!("{counter}{{"), format!("{label}=\""));
        let lines = metrics.lines().filter_map(|line| line.strip_prefix(&series)?.rsplit_once(' '));
        let counts = lines.filter_map(|(labels, count)| {
            let value = labels.split(&label).nth(1)?.split('"').next()?;
            Some((value.to_string(), count.parse().ok()?))
        });
        counts.collect()
    }

    /// How often origin was asked for a route, by its own count.
    pub async fn origin_count(&self, route: &str) -> u64 {
        let counts = self.origin_counts("origin_requests_total", "route").await;
        counts.iter().filter(|(of, _)| of == route).map(|(_, count)| count).sum()
    }

    /// Documents that origin had the edge look up ahead of viewers, by its own count.
    pub async fn warmed(&self) -> u64 {
        self.origin_counts("origin_warmed_total", "outcome").await.iter().map(|(_, count)| count).sum()
    }

    /// The purge log's head as origin has it.
    pub async fn as_of(&self) -> AsOf {
        let ready = crate::http::get(self.origin_url("/readyz")).await;
        let state = ready.body.trim().strip_prefix("ready ").and_then(|state| state.parse().ok());
        state.unwrap_or_else(|| panic!("origin is not ready: {ready:?}"))
    }
}
