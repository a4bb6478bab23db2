//! `cargo xtask dev`: the whole system on this machine, with a real catalogue, until Ctrl-C.
use crate::fleet::{Fleet, Mode, Options};
use crate::process::check_port;
use crate::ui::say;
use crate::{Doing, Result, origin, root, said, setup};
use clap::Args;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

#[derive(Args)]
pub struct Dev {
    /// Port of the first edge; further ones count up.
    #[arg(long, default_value_t = 8787)]
    edge_port: u16,
    #[arg(long, default_value_t = 8080)]
    origin_port: u16,
    /// Folder for databases, keys and logs; kept between starts.
    #[arg(long, default_value = ".dev")]
    state: PathBuf,
    /// Locations: each is a process of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    edges: u16,
    /// How long an edge relies on what it knows of purges, in milliseconds.
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    lease_ms: Option<u64>,
}

/// Turns true at Ctrl-C, SIGTERM or SIGHUP.
pub fn stop_flag() -> Result<(Arc<AtomicBool>, mpsc::Receiver<()>)> {
    let stop = Arc::new(AtomicBool::new(false));
    let (send, receive) = mpsc::channel();
    let flag = Arc::clone(&stop);
    let handler = move || {
        flag.store(true, Ordering::SeqCst);
        let _ = send.send(());
    };
    match ctrlc::set_handler(handler) {
        Ok(()) => Ok((stop, receive)),
        Err(error) => said(format!("cannot listen for Ctrl-C: {error}")),
    }
}

/// Ports counting up from the first.
pub fn ports(first: u16, count: u16) -> Result<Vec<u16>> {
    match first.checked_add(count.saturating_sub(1)) {
        Some(last) if first > 0 => Ok((first..=last).collect()),
        _ => said(format!("{count} ports do not fit from {first} on; choose a lower first port")),
    }
}

/// The state folder, made if it is not there, and held by this process alone.
pub fn lock_state(state: &Path) -> Result<(PathBuf, File)> {
    std::fs::create_dir_all(state).doing(format!("cannot make {}", state.display()))?;
    let state = state.canonicalize().doing(format!("cannot find {}", state.display()))?;
    let file = File::create(state.join("lock")).doing(format!("cannot write in {}", state.display()))?;
    match file.try_lock() {
        Ok(()) => Ok((state, file)),
        Err(_) => said(format!(
            "{} is in use by another run; stop that, or choose another folder with --state",
            state.display()
        )),
    }
}

impl Dev {
    pub fn run(self) -> Result<()> {
        let ports = ports(self.edge_port, self.edges)?;
        if ports.contains(&self.origin_port) {
            return said("the origin's port is among the edges'; choose another with --origin-port");
        }
        check_port(self.origin_port, "--origin-port")?;
        for port in &ports {
            check_port(*port, "--edge-port")?;
        }
        let (state, _lock) = lock_state(&self.state)?;
        say("setting up");
        setup::all()?;
        crate::wasm::build_all()?;
        setup::build_origin()?;
        let (stop, stopped) = stop_flag()?;

        let token_keys = origin::keys(&state)?;
        say("importing the sample catalogue");
        let summary = origin::import(&state, &root().join("node_modules/vega-datasets/data/movies.json"))?;
        summary.lines().for_each(|line| say(format!("  {line}")));

        say("starting");
        let origin_url = format!("http://127.0.0.1:{}", self.origin_port);
        let mut fleet = Fleet::start(Options {
            state: state.clone(),
            ports: ports.into_iter().map(|port| vec![port]).collect(),
            mode: Mode::Gateway,
            origin_url: origin_url.clone(),
            token_keys,
            lease_ms: self.lease_ms,
            vars: Vec::new(),
            tied: true,
        })?;
        let edges: Vec<String> = (0..fleet.len()).map(|index| fleet.url(index)).collect();
        let mut service = origin::serve(&state, self.origin_port, &edges, true)?;
        let token = origin::admin_token(&state, "admin", 24 * 3600)?;
        say(greeting(&edges, &origin_url, &token, &state));
        while !stop.load(Ordering::SeqCst) {
            let _ = stopped.recv_timeout(Duration::from_millis(300));
            if !stop.load(Ordering::SeqCst) {
                fleet.check()?;
                service.check()?;
            }
        }
        say("\nstopping");
        drop(service);
        drop(fleet);
        Ok(())
    }
}

fn greeting(edges: &[String], origin: &str, token: &str, state: &Path) -> String {
    let edge = edges.first().cloned().unwrap_or_default();
    let urls: Vec<String> = edges.iter().map(|url| format!("  edge     {url}\n")).collect();
    format!(
        r#"
{urls}  origin   {origin}
  state    {state} (databases, keys, logs)

An admin token, good for a day:

  export TOKEN={token}

Worth trying, in this order:

  curl -i {edge}/v1/home          # twice: the second is a hit, see Cache-Status

  curl -i -X PATCH {edge}/admin/v1/titles/inception-2010 -H "Authorization: Bearer $TOKEN" \
    -H "Content-Type: application/merge-patch+json" -H "If-Match: *" -d '{{"name":"Inception (edited)"}}'
                                  # then look at /v1/home again

  curl -i -X POST {edge}/admin/v1/purges -H "Authorization: Bearer $TOKEN" \
    -H "Content-Type: application/json" -d '{{"keys":["home"],"mode":"hard","reason":"trying it"}}'

Ctrl-C stops everything."#,
        urls = urls.concat(),
        state = state.display(),
    )
}
