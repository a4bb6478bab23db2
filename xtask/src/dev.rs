//! `cargo xtask dev`: the whole system on this machine, with a real catalogue, until Ctrl-C.
use crate::fleet::{Fleet, Mode, Options, PLATFORM_FIELD};
use crate::origin::{self, Database};
use crate::process::{Process, check_port};
use crate::ui::say;
use crate::{Doing, Result, root, said, setup};
use clap::Args;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Wide enough to try things, and there so that a limit can be seen.
const LIMITS: &str = "admin=600/60 auth=600/60 refresh=1200/60 batch=600/60 search=600/60";
/// So that translations and rights of a country can be tried.
const LOCALES: &str = "en,de,fr";
const REGIONS: &str = "DE,FR,GB,US";

#[derive(Args)]
pub struct Dev {
    /// Port of the first edge; further ones count up.
    #[arg(long, default_value_t = 8787)]
    edge_port: u16,
    #[arg(long, default_value_t = 8080)]
    origin_port: u16,
    /// Folder for databases, keys and logs; kept between starts. `.dev` at the top of the checkout when not given.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Locations: each is a process of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    edges: u16,
    /// How long an edge relies on what it knows of purges, in milliseconds.
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    lease_ms: Option<u64>,
    /// Client, admin (with jobs) and auth as processes of their own, on ports counted up from the origin's.
    #[arg(long)]
    split: bool,
}

/// The origin's processes: their roles, and the paths that are theirs; the first has every other.
const SPLIT: [(&str, &str); 3] = [("client", ""), ("admin,jobs", "/admin"), ("auth", "/auth /.well-known")];
/// The same where there is one.
const WHOLE: [(&str, &str); 1] = [("client,admin,auth,jobs", "")];

/// The Worker's table of services, `SERVICES`, for origin's processes on these ports.
fn services(processes: &[(&str, &str)], ports: &[u16]) -> String {
    let rows = processes.iter().zip(ports).flat_map(|((_, prefixes), port)| {
        prefixes.split_whitespace().map(move |prefix| format!("{prefix} http://127.0.0.1:{port}"))
    });
    rows.collect::<Vec<_>>().join("; ")
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
    /// Wherever it is started from: it holds the private keys, and git knows to leave it out there alone.
    fn state(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| root().join(".dev"))
    }

    /// Ports of the edges, and of so many processes of the origin.
    fn ports(&self, processes: usize) -> Result<(Vec<u16>, Vec<u16>)> {
        let edges = ports(self.edge_port, self.edges)?;
        let origin = ports(self.origin_port, u16::try_from(processes).unwrap_or(u16::MAX))?;
        match edges.iter().any(|port| origin.contains(port)) {
            true => said("the origin's port is among the edges'; choose another with --origin-port"),
            false => Ok((edges, origin)),
        }
    }

    pub fn run(self) -> Result<()> {
        let processes: &[(&str, &str)] = if self.split { &SPLIT } else { &WHOLE };
        let (ports, origin_ports) = self.ports(processes.len())?;
        for port in &origin_ports {
            check_port(*port, "--origin-port")?;
        }
        for port in &ports {
            check_port(*port, "--edge-port")?;
        }
        let (state, _lock) = lock_state(&self.state())?;
        say("setting up");
        setup::all()?;
        crate::wasm::build_all()?;
        setup::build_origin()?;
        let (stop, stopped) = stop_flag()?;

        let token_keys = origin::keys(&state)?;
        let secret = origin::edge_secret(&state)?;
        // What was edited or deleted here stays so.
        say("importing what is new in the sample catalogue");
        let summary = origin::import_new(&state, &root().join("node_modules/vega-datasets/data/movies.json"))?;
        summary.lines().for_each(|line| say(format!("  {line}")));

        say("starting");
        let origin_url = format!("http://127.0.0.1:{}", self.origin_port);
        let services = services(processes, &origin_ports);
        let mut fleet = Fleet::start(Options {
            state: state.clone(),
            ports: ports.into_iter().map(|port| vec![port]).collect(),
            mode: Mode::Gateway,
            origin_url: origin_url.clone(),
            token_keys,
            lease_ms: self.lease_ms,
            vars: [
                ("LIMITS", LIMITS),
                ("SERVICES", &services),
                ("REGIONS", REGIONS),
                ("LOCALES", LOCALES),
                ("EDGE_SECRET", &secret),
                ("WEB_ORIGINS", "*"),
            ]
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
            platform_field: Some(PLATFORM_FIELD.into()),
            counters: None,
            tied: true,
        })?;
        let edges: Vec<String> = (0..fleet.len()).map(|index| fleet.url(index)).collect();
        let mut origins = Vec::new();
        for ((roles, _), port) in processes.iter().zip(&origin_ports) {
            let database = Database::sqlite(&state).with_roles(roles);
            origins.push(origin::serve_on(&database, &state, *port, &edges, true)?);
        }
        let token = origin::admin_token(&state, "admin", 24 * 3600)?;
        say(greeting(&edges, &origin_url, &token, &state));
        while !stop.load(Ordering::SeqCst) {
            let _ = stopped.recv_timeout(Duration::from_millis(300));
            if !stop.load(Ordering::SeqCst) {
                fleet.check()?;
                origins.iter_mut().try_for_each(Process::check)?;
            }
        }
        say("\nstopping");
        drop(origins);
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches};
    use gateway_rules::services::{Services, Terms};

    fn dev(arguments: &[&str]) -> Dev {
        let matches = Dev::augment_args(Command::new("dev")).get_matches_from([&["dev"], arguments].concat());
        Dev::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn each_path_goes_to_the_process_of_the_role_that_serves_it() {
        let terms = Terms { timeout_ms: 1, body_timeout_ms: 2, request_bytes_max: 3 };
        let url_of = |services: &Services, path: &str| services.get(services.of(path)).unwrap().url.clone();
        let split = Services::read(&services(&SPLIT, &[8080, 8081, 8082]), "http://127.0.0.1:8080", terms).unwrap();
        for (path, port) in [
            ("/v1/home", 8080),
            ("/adminx", 8080),
            ("/admin/v1/titles", 8081),
            ("/auth/login", 8082),
            ("/.well-known/jwks.json", 8082),
        ] {
            assert_eq!(url_of(&split, path), format!("http://127.0.0.1:{port}"), "{path}");
        }
        assert_eq!(services(&WHOLE, &[8080]), "");
        let mut roles: Vec<&str> = SPLIT.iter().flat_map(|(roles, _)| roles.split(',')).collect();
        let mut whole: Vec<&str> = WHOLE[0].0.split(',').collect();
        roles.sort_unstable();
        whole.sort_unstable();
        assert_eq!(roles, whole, "each role is in one process");
    }

    #[test]
    fn ports_count_up_from_the_first_and_none_is_there_twice() {
        let ports = |arguments: &[&str], processes| dev(arguments).ports(processes);
        assert_eq!(ports(&[], 1).unwrap(), (vec![8787], vec![8080]));
        assert_eq!(ports(&["--edges", "3"], 3).unwrap(), (vec![8787, 8788, 8789], vec![8080, 8081, 8082]));
        let last = ["--edge-port", "65533", "--edges", "3"];
        assert_eq!(ports(&last, 1).unwrap().0, [65_533, 65_534, 65_535]);
        for (arguments, processes, said) in [
            (&["--edge-port", "65534", "--edges", "3"][..], 1, "3 ports do not fit from 65534 on"),
            (&["--origin-port", "65535"], 3, "3 ports do not fit from 65535 on"),
            (&["--edge-port", "0"], 1, "do not fit from 0 on"),
            (&["--edge-port", "8080"], 1, "the origin's port is among the edges'"),
            (&["--edge-port", "8078", "--edges", "3"], 1, "the origin's port is among the edges'"),
            (&["--edge-port", "8082"], 3, "the origin's port is among the edges'"),
        ] {
            let error = ports(arguments, processes).unwrap_err().to_string();
            assert!(error.contains(said), "{arguments:?}: {error}");
        }
        assert!(ports(&["--edge-port", "8083"], 3).is_ok());
    }

    #[test]
    fn the_state_is_kept_where_git_does_not_look_wherever_it_is_started_from() {
        let state = |arguments: &[&str]| dev(arguments).state();
        assert_eq!(state(&[]), root().join(".dev"));
        let left_out = std::fs::read_to_string(root().join(".gitignore")).unwrap();
        assert!(left_out.lines().any(|line| line == "/.dev"));
        assert_eq!(state(&["--state", "here"]), Path::new("here"), "as it is said");
    }
}
