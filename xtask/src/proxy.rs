//! `cargo xtask edge`: the edge alone, as a caching reverse proxy in front of any HTTP origin, until Ctrl-C.
use crate::dev::{lock_state, ports, stop_flag};
use crate::fleet::{Fleet, Mode, Options};
use crate::process::check_port;
use crate::ui::say;
use crate::workerd::Vars;
use crate::{Doing, Error, Result, said, setup};
use clap::Args;
use kv_schemas::claims::{AUDIENCE_EDGE, EdgeClaims, ISSUER, Scope};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokens::SigningKey;

#[derive(Args)]
pub struct Edge {
    /// The origin, such as http://127.0.0.1:9000
    #[arg(long)]
    upstream: String,
    /// Port of the first edge; further ones count up.
    #[arg(long)]
    port: u16,
    /// Locations: each is a process of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    edges: u16,
    /// How long an edge relies on what it knows of purges, in milliseconds.
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    lease_ms: Option<u64>,
    /// Guess a lifetime from Last-Modified where an answer gives none (RFC 9111 section 4.2.2).
    #[arg(long)]
    heuristic_freshness: bool,
    /// Store answers that set cookies, if nothing else forbids it (RFC 9111 section 7.3).
    #[arg(long)]
    store_set_cookie: bool,
    /// Folder to keep entries and purges in; without it they are gone at the end.
    #[arg(long)]
    state: Option<PathBuf>,
}

const TOKEN_LIFETIME_S: u64 = 30 * 24 * 3600;

/// A key for this run.
pub fn new_key(kid: &str) -> Result<SigningKey> {
    for _ in 0..8 {
        let mut bytes = [0; 32];
        if getrandom::fill(&mut bytes).is_err() {
            break;
        }
        if let Some(key) = SigningKey::from_random(kid, &bytes) {
            return Ok(key);
        }
    }
    said("the system gave no randomness for a key")
}

pub fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A token for purges by hand.
pub fn purge_token(key: &SigningKey, now_s: u64) -> Result<String> {
    let claims =
        EdgeClaims { iss: ISSUER.into(), aud: AUDIENCE_EDGE.into(), scope: Scope::PurgeRequest, body_sha256: None };
    key.sign(claims, now_s, TOKEN_LIFETIME_S).map_err(|error| Error::Said(format!("cannot sign a token: {error}")))
}

/// The Worker's switches, as it reads them.
pub fn vars(heuristic_freshness: bool, store_set_cookie: bool) -> Vars {
    let switches = [("HEURISTIC_FRESHNESS", heuristic_freshness), ("STORE_SET_COOKIE", store_set_cookie)];
    switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name.to_string(), "on".to_string())).collect()
}

impl Edge {
    pub fn run(self) -> Result<()> {
        let upstream = self.upstream.trim_end_matches('/').to_string();
        if !upstream.starts_with("http://") && !upstream.starts_with("https://") {
            return said("--upstream must begin with http:// or https://");
        }
        let ports = ports(self.port, self.edges)?;
        for port in &ports {
            check_port(*port, "--port")?;
        }
        // Held to the end: dropped, a temporary folder is removed.
        let temporary = tempfile::tempdir().doing("cannot make a temporary folder")?;
        let (state, _lock) = lock_state(self.state.as_deref().unwrap_or(temporary.path()))?;
        say("setting up");
        setup::all()?;
        crate::wasm::build_all()?;
        let (stop, stopped) = stop_flag()?;
        let key = new_key("edge-alone")?;
        let public = key.public_jwks().map_err(|error| Error::Said(error.to_string()))?;
        say("starting");
        let mut fleet = Fleet::start(Options {
            state,
            ports: ports.into_iter().map(|port| vec![port]).collect(),
            mode: Mode::Proxy,
            origin_url: upstream,
            token_keys: public,
            lease_ms: self.lease_ms,
            vars: vars(self.heuristic_freshness, self.store_set_cookie),
            platform_field: None,
            counters: None,
            tied: true,
        })?;
        let token = purge_token(&key, now_s())?;
        for index in 0..fleet.len() {
            say(format!("edge: {}", fleet.url(index)));
        }
        let intake = format!("{}/__edge/purges", fleet.url(0));
        say(format!("purge intake: {intake}"));
        say(format!("token: {token}"));
        say(format!(
            "\n  curl -X POST {intake} -H \"Authorization: Bearer {token}\" -d '{{\"keys\":[\"a-key\"],\"mode\":\"soft\"}}'\n\nCtrl-C stops everything."
        ));
        while !stop.load(Ordering::SeqCst) {
            let _ = stopped.recv_timeout(Duration::from_millis(300));
            if !stop.load(Ordering::SeqCst) {
                fleet.check()?;
            }
        }
        say("\nstopping");
        Ok(())
    }
}
