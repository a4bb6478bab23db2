//! The edge's processes on this machine: one global, one for each location. Each can be killed and started again by
//! itself, with the state it had.
use crate::process::{Process, await_answer, tied};
use crate::workerd::{self, Platform, Vars};
use crate::{Doing, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The request field for [`Options::platform_field`], where there is one.
pub const PLATFORM_FIELD: &str = "test-platform";

/// What the edges are to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder for configurations, sockets, logs and data; made if it is not there.
    pub state: PathBuf,
    /// For each location a port for each of its isolates: those of one location share its cache, no memory.
    pub ports: Vec<Vec<u16>>,
    pub mode: Mode,
    pub origin_url: String,
    /// JWK Set of the keys that sign tokens.
    pub token_keys: String,
    pub lease_ms: Option<u64>,
    /// Further variables of the Worker, or other values of those it has.
    pub vars: Vars,
    /// Request field in which a test says what the platform knows of a request (`request.cf`, as JSON), such as its country;
    /// without one the platform knows nothing.
    pub platform_field: Option<String>,
    /// Where the platform's counters of requests are (`host:port`), for a test that looks at them; otherwise they are Miniflare's.
    pub counters: Option<String>,
    /// Whether the processes must die even if this program is killed. Needs this program to be `xtask`.
    pub tied: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nextream's API in front of its origin, which numbers the purges.
    Gateway,
    /// Any origin; the journal numbers the purges.
    Proxy,
}

/// A Worker to compare with.
#[derive(Clone, Copy, Debug)]
pub enum Script<'a> {
    /// JavaScript.
    Text(&'a str),
    /// A folder with `index.js` and the Wasm it imports, `index_bg.wasm`.
    Built(&'a Path),
}

pub struct Fleet {
    options: Options,
    global: Option<Process>,
    edges: Vec<Option<Process>>,
}

impl Fleet {
    /// Writes the configurations and starts everything.
    pub fn start(options: Options) -> Result<Self> {
        let state = &options.state;
        for folder in ["kv", "journal"]
            .map(String::from)
            .into_iter()
            .chain((0..options.ports.len()).flat_map(|index| [cache_folder(index), format!("limits-{}", name(index))]))
        {
            let folder = state.join(folder);
            std::fs::create_dir_all(&folder).doing(format!("cannot make {}", folder.display()))?;
        }
        workerd::bundle(state)?;
        write(&state.join("global.capnp"), &workerd::global_config(&vars(&options, None)))?;
        for (index, ports) in options.ports.iter().enumerate() {
            let name = name(index);
            let platform = Platform { field: options.platform_field.as_deref(), counters: options.counters.as_deref() };
            let config = workerd::edge_config(&name, ports, &vars(&options, Some(&name)), platform);
            write(&state.join(format!("{name}.capnp")), &config)?;
        }
        let edges = options.ports.iter().map(|_| None).collect();
        let mut fleet = Self { options, global: None, edges };
        fleet.start_global()?;
        for index in 0..fleet.edges.len() {
            fleet.start_edge(index)?;
        }
        Ok(fleet)
    }

    fn run(&self, name: &str) -> Result<Process> {
        let program = workerd::program()?;
        let mut command = if self.options.tied { tied(&program)? } else { Command::new(program) };
        // Says which sockets it has got, on standard output and so in its log.
        command
            .args(["serve", "--experimental", "--control-fd=1", &format!("{name}.capnp")])
            .current_dir(&self.options.state);
        Process::start(name, &self.options.state.join(format!("{name}.log")), &mut command)
    }

    pub fn start_global(&mut self) -> Result<()> {
        let sockets = ["kv.sock", "journal.sock"].map(|name| self.options.state.join(name));
        // A killed process leaves its sockets behind.
        for socket in &sockets {
            let _ = std::fs::remove_file(socket);
        }
        let mut process = self.run("global")?;
        let began = std::time::Instant::now();
        while !sockets.iter().all(|socket| std::os::unix::net::UnixStream::connect(socket).is_ok()) {
            process.check()?;
            if began.elapsed().as_secs() > 30 {
                return crate::said("the process that owns KV and journal did not open its sockets within 30 seconds");
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        self.global = Some(process);
        Ok(())
    }

    pub fn start_edge(&mut self, index: usize) -> Result<()> {
        self.spawn_edge(index)?;
        let Some(process) = self.edges[index].as_mut() else { return Ok(()) };
        for (isolate, port) in self.options.ports[index].iter().enumerate() {
            // An answer alone may be that of another edge, which has the port.
            process.await_words(&format!(r#"{{"event":"listen","socket":"edge-{isolate}""#))?;
            await_answer("the edge", *port, "/__edge/health", &mut [process])?;
        }
        Ok(())
    }

    /// Starts a location without waiting for it.
    pub fn spawn_edge(&mut self, index: usize) -> Result<()> {
        self.edges[index] = Some(self.run(&name(index))?);
        Ok(())
    }

    /// `kill -9` of the process that owns KV and the purge journal.
    pub fn kill_global(&mut self) {
        if let Some(mut process) = self.global.take() {
            process.kill();
        }
    }

    /// KV and the purge journal hang, or go on.
    pub fn suspend_global(&self, is_suspended: bool) {
        if let Some(process) = &self.global {
            process.suspend(is_suspended);
        }
    }

    /// `kill -9` of one location.
    pub fn kill_edge(&mut self, index: usize) {
        if let Some(mut process) = self.edges[index].take() {
            process.kill();
        }
    }

    /// Keeps one location's process on one processor.
    pub fn pin_edge(&self, index: usize, processor: usize) -> Result<()> {
        self.edges[index].as_ref().map_or(Ok(()), |process| process.pin(processor))
    }

    /// The system's number of one location's process; 0 if it does not run.
    pub fn edge_id(&self, index: usize) -> u32 {
        self.edges[index].as_ref().map_or(0, Process::id)
    }

    /// Starts another Worker beside the edges, for comparison, with their KV.
    pub fn start_peer(&self, name: &str, port: u16, script: Script<'_>) -> Result<Process> {
        let mut process = self.spawn_peer(name, port, script)?;
        await_answer(name, port, "/", &mut [&mut process])?;
        Ok(process)
    }

    /// The same without waiting for it.
    pub fn spawn_peer(&self, name: &str, port: u16, script: Script<'_>) -> Result<Process> {
        let state = &self.options.state;
        let cache = state.join(format!("cache-{name}"));
        std::fs::create_dir_all(&cache).doing(format!("cannot make {}", cache.display()))?;
        let bundle = state.join("bundle");
        let script_file = bundle.join(format!("{name}.js"));
        match script {
            Script::Text(text) => write(&script_file, text)?,
            Script::Built(folder) => {
                for (from, to) in [("index.js", script_file), ("index_bg.wasm", bundle.join(format!("{name}.wasm")))] {
                    let from = folder.join(from);
                    std::fs::copy(&from, to).doing(format!("cannot copy {}", from.display()))?;
                }
            }
        }
        let has_wasm = matches!(script, Script::Built(_));
        write(&state.join(format!("{name}.capnp")), &workerd::peer_config(name, port, has_wasm))?;
        self.run(name)
    }

    /// Says which process has ended, if one has.
    pub fn check(&mut self) -> Result<()> {
        self.global.iter_mut().chain(self.edges.iter_mut().flatten()).try_for_each(Process::check)
    }

    /// A location's URL, where its first isolate answers.
    pub fn url(&self, index: usize) -> String {
        self.isolate_url(index, 0)
    }

    pub fn isolate_url(&self, index: usize, isolate: usize) -> String {
        format!("http://127.0.0.1:{}", self.options.ports[index][isolate])
    }

    pub fn len(&self) -> usize {
        self.edges.len()
    }

    pub fn is_empty(&self) -> bool {
        self.edges.is_empty()
    }

    pub fn state(&self) -> &Path {
        &self.options.state
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Locations first: they would only complain about a global that is gone.
        self.edges.clear();
        self.global = None;
    }
}

fn name(index: usize) -> String {
    format!("edge-{}", index + 1)
}

fn cache_folder(index: usize) -> String {
    format!("cache-{}", name(index))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).doing(format!("cannot write {}", path.display()))
}

fn vars(options: &Options, location: Option<&str>) -> Vars {
    let (mode, log) = match options.mode {
        Mode::Gateway => ("gateway", "origin"),
        Mode::Proxy => ("proxy", "journal"),
    };
    let mut vars: Vars = [
        ("MODE", mode.to_string()),
        ("PURGE_LOG", log.to_string()),
        ("ORIGIN_URL", options.origin_url.clone()),
        ("TOKEN_KEYS", options.token_keys.clone()),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .to_vec();
    vars.extend(options.lease_ms.map(|ms| ("LEASE_MS".to_string(), ms.to_string())));
    vars.extend(location.map(|name| ("LOCATION".to_string(), format!("local-{}", name.trim_start_matches("edge-")))));
    vars.retain(|(name, _)| !options.vars.iter().any(|(other, _)| other == name));
    vars.extend(options.vars.clone());
    vars
}
