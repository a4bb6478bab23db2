//! The edge as the API's gateway in front of an upstream that does what it is told: what reaches origin can be seen, and a
//! purge log is kept by hand.
use crate::free_port;
use crate::http::{Got, ask, send};
use crate::stack::{LEASE_MS, LEASE_OVER, edge_claims, metrics, now_s, sign};
use crate::upstream::{Asked, Upstream};
use kv_schemas::claims::{AUDIENCE_VIEWER, ISSUER, Scope, ViewerClaims, body_digest};
use kv_schemas::viewer::{Maturity, Plan};
use reqwest::Method;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use tokens::SigningKey;
use xtask::fleet::{Fleet, Mode, Options, PLATFORM_FIELD};

pub const LOG: &str = "a-log";

pub struct Api {
    pub fleet: Fleet,
    pub upstream: Upstream,
    /// In the edge's settings.
    pub key: SigningKey,
    seq: AtomicU64,
    _state: TempDir,
}

/// How a shared document is answered, besides its surrogate keys and state.
pub const SHARED: [(&str, &str); 3] = [
    ("content-type", "application/json"),
    ("cache-control", "public, max-age=0, must-revalidate"),
    ("cdn-cache-control", "max-age=300, stale-while-revalidate=600, stale-if-error=86400"),
];

/// How what is a viewer's own is answered.
pub const OWN: [(&str, &str); 3] =
    [("content-type", "application/json"), ("cache-control", "private, no-cache"), ("cdn-cache-control", "max-age=30")];

impl Api {
    pub async fn start() -> Self {
        Self::of(1, &[]).await
    }

    pub async fn of(edges: usize, vars: &[(&str, &str)]) -> Self {
        let upstream = Upstream::start().await;
        let state = tempfile::tempdir().expect("no folder");
        let key = xtask::proxy::new_key("settings").expect("no key");
        let mut all = vec![("ORIGIN_TIMEOUT_MS", "5000"), ("REGIONS", "DE,FR"), ("LOCALES", "en,de,fr")];
        all.extend(vars);
        let options = Options {
            state: state.path().into(),
            ports: (0..edges).map(|_| vec![free_port()]).collect(),
            mode: Mode::Gateway,
            origin_url: format!("http://127.0.0.1:{}", upstream.port),
            token_keys: key.public_jwks().expect("no key"),
            lease_ms: Some(LEASE_MS),
            vars: all.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            platform_field: Some(PLATFORM_FIELD.into()),
            counters: None,
            tied: false,
        };
        let fleet = Fleet::start(options).unwrap_or_else(|error| panic!("{error}"));
        let api = Self { fleet, upstream, key, seq: AtomicU64::new(0), _state: state };
        api.purge("hard", &["nothing"]).await;
        api
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.fleet.url(0))
    }

    /// The log's newest state.
    pub fn state(&self) -> String {
        format!("{LOG}:{}", self.seq.load(Ordering::Relaxed))
    }

    /// From now on, a path is answered so, as read at the newest state.
    pub fn answer(&self, path: &str, policy: &[(&str, &str)], keys: &str, body: &str) {
        let state = self.state();
        let fields = [("surrogate-key", keys), ("surrogate-as-of", &state)];
        let fields: Vec<_> = policy.iter().copied().chain(fields).filter(|(_, value)| !value.is_empty()).collect();
        self.upstream.answer(path, &fields, body);
    }

    /// The public halves of these keys are what origin publishes.
    pub fn publish(&self, keys: &[&SigningKey]) {
        let sets = keys.iter().map(|key| -> serde_json::Value {
            serde_json::from_str(&key.public_jwks().expect("no key")).expect("no JSON")
        });
        let keys: Vec<_> = sets.flat_map(|set| set["keys"].as_array().cloned().unwrap_or_default()).collect();
        self.answer("/.well-known/jwks.json", &SHARED, "jwks", &json!({"keys": keys}).to_string());
    }

    /// Logs a purge, delivers it, and waits until every view knows.
    pub async fn purge(&self, mode: &str, keys: &[&str]) {
        let purge = if keys.is_empty() { json!({"all": true}) } else { json!({"keys": keys}) };
        self.deliver(mode, purge).await;
        tokio::time::sleep(LEASE_OVER).await;
    }

    /// Logs hard purges by one key each, delivers them a thousand at a time, and waits until every view knows.
    pub async fn purge_each(&self, keys: impl Iterator<Item = String>) {
        for some in keys.map(|key| json!({"keys": [key], "mode": "hard"})).collect::<Vec<_>>().chunks(1_000) {
            let taken = self.purge_at_once(some).await;
            assert_eq!(taken.status, 200, "{taken:?}");
        }
        tokio::time::sleep(LEASE_OVER).await;
    }

    /// Logs purges (`{"keys", "mode"}`) and delivers them in one batch. If it is not taken, they were never logged.
    pub async fn purge_at_once(&self, purges: &[serde_json::Value]) -> Got {
        let first = self.seq.load(Ordering::Relaxed) + 1;
        let numbered = purges.iter().zip(first..).map(|(purge, seq)| {
            let mut purge = purge.clone();
            (purge["seq"], purge["committed_at_ms"]) = (json!(seq), json!(0));
            purge
        });
        let numbered: Vec<_> = numbered.collect();
        let got = self.send_batch(&json!({"log_id": LOG, "first_seq": first, "purges": numbered})).await;
        if got.status == 200 {
            self.seq.fetch_add(purges.len() as u64, Ordering::Relaxed);
        }
        got
    }

    async fn deliver(&self, mode: &str, mut purge: serde_json::Value) {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        (purge["seq"], purge["mode"], purge["committed_at_ms"]) = (json!(seq), json!(mode), json!(0));
        let mut batch = json!({"log_id": LOG, "first_seq": seq, "purges": [purge]});
        let mut taken = self.send_batch(&batch).await;
        if taken.status == 409 {
            // The journal takes up a log from an announcement alone.
            let challenge = taken.json()["challenge"].clone();
            let announced = json!({"log_id": LOG, "first_seq": seq, "challenge": challenge, "purges": []});
            assert_eq!(self.send_batch(&announced).await.status, 200);
            batch["challenge"] = json!(0);
            taken = self.send_batch(&batch).await;
        }
        assert_eq!(taken.status, 200, "{taken:?}");
    }

    /// What the edge says of one purge.
    pub async fn receipt(&self, seq: u64) -> serde_json::Value {
        let token = sign(&self.key, edge_claims(Scope::PurgeReceipt, None), 60);
        send(ask(Method::GET, self.url(&format!("/__edge/purges/{seq}"))).bearer_auth(token)).await.json()
    }

    pub async fn send_batch(&self, batch: &serde_json::Value) -> Got {
        let body = batch.to_string();
        let token = sign(&self.key, edge_claims(Scope::PurgeBatch, Some(body_digest(body.as_bytes()))), 60);
        send(ask(Method::POST, self.url("/__edge/purges")).bearer_auth(token).body(body)).await
    }

    pub fn claims(&self, sub: &str) -> ViewerClaims {
        ViewerClaims {
            iss: ISSUER.into(),
            aud: AUDIENCE_VIEWER.into(),
            sub: sub.into(),
            sid: format!("{sub}-phone"),
            as_of: self.state().parse().expect("no state"),
            plan: Plan::Basic,
            maturity: Maturity::From13,
            locale: None,
        }
    }

    /// A viewer's token, as issued now.
    pub fn token(&self, sub: &str) -> String {
        sign(&self.key, self.claims(sub), 600)
    }

    pub async fn get(&self, path: &str, fields: &[(&str, &str)]) -> Got {
        self.call(Method::GET, path, fields).await
    }

    pub async fn call(&self, method: Method, path: &str, fields: &[(&str, &str)]) -> Got {
        let request = ask(method, self.url(path));
        send(fields.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    pub async fn get_as(&self, token: &str, path: &str) -> Got {
        self.get(path, &[("authorization", &format!("Bearer {token}"))]).await
    }

    /// What origin was last told about the viewer.
    pub fn told(&self) -> String {
        let Asked { headers, .. } = self.upstream.last();
        let of = |name: &str| headers.get(&format!("viewer-{name}")).map_or("-", String::as_str).to_string();
        ["region", "locale", "maturity", "plan"].map(of).join(" ")
    }

    /// A counter of the edge's.
    pub async fn metric(&self, name: &str) -> u64 {
        metrics(&self.fleet.url(0), &self.key).await.figure(name).unwrap_or_default()
    }

    pub fn debug_token(&self) -> String {
        sign(&self.key, edge_claims(Scope::Debug, None), 60)
    }

    /// A token that ended before now.
    pub fn expired_token(&self, sub: &str) -> String {
        self.key.sign(self.claims(sub), now_s() - 900, 600).expect("cannot sign")
    }
}
