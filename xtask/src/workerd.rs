//! The runtime's configuration. The shape is always the platform's: one process for what is global (KV and the purge
//! journal), and one for each location, with a memory and a cache of its own. Unix sockets lie between them.
//!
//! KV and the Cache API are Miniflare's own workers, run by workerd itself: no Node and no wrangler stand in the way.
use crate::counters;
use crate::setup::node_bin;
use crate::{Doing, Result, root, said};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The same as in wrangler.toml.
const COMPATIBILITY_DATE: &str = "2026-11-01";

/// Variables of the Worker.
pub type Vars = Vec<(String, String)>;

/// The runtime's program.
pub fn program() -> Result<PathBuf> {
    let system = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "linux-64",
        ("linux", "aarch64") => "linux-arm64",
        ("macos", "x86_64") => "darwin-64",
        ("macos", "aarch64") => "darwin-arm64",
        (os, arch) => return said(format!("workerd is not made for {os} on {arch}")),
    };
    let program = root().join(format!("node_modules/@cloudflare/workerd-{system}/bin/workerd"));
    if program.is_file() { Ok(program) } else { said("workerd is not installed; run `cargo xtask setup`") }
}

/// Copies everything a configuration embeds beside it: capnp reads no absolute paths, and a running system should not
/// change when the Worker is built again.
pub fn bundle(dir: &Path) -> Result<()> {
    let into = dir.join("bundle");
    std::fs::create_dir_all(&into).doing(format!("cannot make {}", into.display()))?;
    let miniflare = root().join("node_modules/miniflare/dist/src/workers");
    let [edge, journal] = ["edge/build", "journal/build"].map(|build| root().join(build));
    let own = root().join("xtask/workers");
    for (from, name) in [
        (edge.join("index.js"), "edge.js"),
        (edge.join("index_bg.wasm"), "edge.wasm"),
        (journal.join("index.js"), "journal.js"),
        (journal.join("index_bg.wasm"), "journal.wasm"),
        (own.join("journal-network.js"), "journal-network.js"),
        (own.join("journal-proxy.js"), "journal-proxy.js"),
        (miniflare.join("shared/index.worker.js"), "shared.js"),
        (miniflare.join("shared/zod.worker.js"), "zod.js"),
        (miniflare.join("shared/object-entry.worker.js"), "object-entry.js"),
        (miniflare.join("kv/namespace.worker.js"), "kv-namespace.js"),
        (miniflare.join("cache/cache.worker.js"), "cache.js"),
        (miniflare.join("cache/cache-entry.worker.js"), "cache-entry.js"),
        (miniflare.join("ratelimit/ratelimit.worker.js"), "ratelimit.js"),
        (miniflare.join("ratelimit/ratelimit-object.worker.js"), "limits.js"),
    ] {
        if !from.is_file() {
            let is_built = from.starts_with(&edge) || from.starts_with(&journal);
            let mend = if is_built { "cargo xtask build-edge" } else { "cargo xtask setup" };
            return said(format!("{} is missing; run `{mend}` (tools: {})", from.display(), node_bin().display()));
        }
        std::fs::copy(&from, into.join(name)).doing(format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// A capnp text literal.
fn text(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn bindings(vars: &Vars) -> String {
    vars.iter().fold(String::new(), |mut all, (name, value)| {
        let _ = writeln!(all, "      ( name = {}, text = {} ),", text(name), text(value));
        all
    })
}

/// Miniflare's workers import from these modules.
const EXTENSIONS: &str = r#"  extensions = [ ( modules = [
    ( name = "miniflare:shared", esModule = embed "bundle/shared.js" ),
    ( name = "miniflare:zod", esModule = embed "bundle/zod.js" ),
    ( name = "cloudflare-internal:ratelimit:module", esModule = embed "bundle/ratelimit.js", internal = true ),
  ] ) ],"#;

/// One of Miniflare's storage objects, its data in the folder behind the service `disk`.
fn object(name: &str, class: &str, file: &str, disk: &str) -> String {
    format!(
        r#"    ( name = "{name}", worker = (
      modules = [ ( name = "{file}", esModule = embed "bundle/{file}" ) ],
      compatibilityDate = "2023-07-24", compatibilityFlags = [ "nodejs_compat", "experimental" ],
      durableObjectNamespaces = [ ( className = "{class}", uniqueKey = "miniflare-{class}", enableSql = true ) ],
      durableObjectStorage = ( localDisk = "{disk}" ),
      bindings = [ ( name = "MINIFLARE_BLOBS", service = "{disk}" ) ] ) ),
"#
    )
}

/// The Cache API of one location, its data in the folder behind the service `cache-disk`.
fn cache_services() -> String {
    format!(
        r#"{object}    ( name = "cache", worker = (
      modules = [ ( name = "cache-entry.js", esModule = embed "bundle/cache-entry.js" ) ],
      compatibilityDate = "2023-07-24", compatibilityFlags = [ "nodejs_compat", "experimental" ],
      bindings = [ ( name = "MINIFLARE_OBJECT", durableObjectNamespace = ( className = "CacheObject", serviceName = "cache-object" ) ) ] ) ),
"#,
        object = object("cache-object", "CacheObject", "cache.js", "cache-disk"),
    )
}

/// The modules of one of our Workers.
fn modules(worker: &str) -> String {
    format!(
        r#"modules = [
        ( name = "index.js", esModule = embed "bundle/{worker}.js" ),
        ( name = "./index_bg.wasm", wasm = embed "bundle/{worker}.wasm" ) ]"#
    )
}

/// KV and the purge journal.
pub fn global_config(vars: &Vars) -> String {
    format!(
        r#"using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    ( name = "kv-disk", disk = ( path = "kv", writable = true ) ),
    ( name = "journal-disk", disk = ( path = "journal", writable = true ) ),
{kv}    ( name = "kv", worker = (
      modules = [ ( name = "object-entry.js", esModule = embed "bundle/object-entry.js" ) ],
      compatibilityDate = "2023-07-24", compatibilityFlags = [ "nodejs_compat", "experimental" ],
      bindings = [
        ( name = "MINIFLARE_NAMESPACE", text = "cache" ),
        ( name = "MINIFLARE_OBJECT", durableObjectNamespace = ( className = "KVNamespaceObject", serviceName = "kv-object" ) ) ] ) ),
    ( name = "journal-object", worker = (
      {modules},
      compatibilityDate = "{COMPATIBILITY_DATE}",
      durableObjectNamespaces = [ ( className = "PurgeJournal", uniqueKey = "purge-journal", enableSql = true ) ],
      durableObjectStorage = ( localDisk = "journal-disk" ),
      bindings = [
{vars}      ] ) ),
    ( name = "journal", worker = (
      modules = [ ( name = "journal-network.js", esModule = embed "bundle/journal-network.js" ) ],
      compatibilityDate = "{COMPATIBILITY_DATE}",
      bindings = [ ( name = "JOURNAL", durableObjectNamespace = ( className = "PurgeJournal", serviceName = "journal-object" ) ) ] ) ),
  ],
  sockets = [
    ( name = "kv", address = "unix:kv.sock", http = (), service = "kv" ),
    ( name = "journal", address = "unix:journal.sock", http = (), service = "journal" ),
  ],
{EXTENSIONS}
);
"#,
        kv = object("kv-object", "KVNamespaceObject", "kv-namespace.js", "kv-disk"),
        modules = modules("journal"),
        vars = bindings(vars),
    )
}

/// The edge's Worker, once more.
fn isolate(index: usize, vars: &Vars) -> String {
    format!(
        r#"    ( name = "edge-{index}", worker = (
      {modules},
      compatibilityDate = "{COMPATIBILITY_DATE}",
      cacheApiOutbound = "cache",
      bindings = [
        ( name = "CACHE_KV", kvNamespace = "kv" ),
        ( name = "JOURNAL", durableObjectNamespace = ( className = "PurgeJournal", serviceName = "journal-proxy" ) ),
{counters}{vars}      ] ) ),
"#,
        modules = modules("edge"),
        counters = counters::bindings(vars),
        vars = bindings(vars)
    )
}

/// What stands for parts of the platform that a machine does not have.
#[derive(Clone, Copy, Debug)]
pub struct Platform<'a> {
    /// The request field that becomes `request.cf`.
    pub field: Option<&'a str>,
    /// Where requests are counted, if not in the location's own process.
    pub counters: Option<&'a str>,
}

/// One location; each port is an isolate of its own.
pub fn edge_config(name: &str, ports: &[u16], vars: &Vars, platform: Platform<'_>) -> String {
    let http = platform.field.map_or_else(String::new, |field| format!("cfBlobHeader = {}", text(field)));
    let mut isolates = String::new();
    let mut sockets = String::new();
    for (index, port) in ports.iter().enumerate() {
        isolates.push_str(&isolate(index, vars));
        let _ = writeln!(
            sockets,
            r#"    ( name = "edge-{index}", address = "127.0.0.1:{port}", http = ({http}), service = "edge-{index}" ),"#
        );
    }
    format!(
        r#"using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    ( name = "internet", network = ( allow = [ "public", "private" ] ) ),
    ( name = "kv", external = ( address = "unix:kv.sock", http = () ) ),
    ( name = "journal-owner", external = ( address = "unix:journal.sock", http = () ) ),
    ( name = "cache-disk", disk = ( path = "cache-{name}", writable = true ) ),
{cache}    ( name = "journal-proxy", worker = (
      modules = [ ( name = "journal-proxy.js", esModule = embed "bundle/journal-proxy.js" ) ],
      compatibilityDate = "{COMPATIBILITY_DATE}",
      durableObjectNamespaces = [ ( className = "PurgeJournal", uniqueKey = "purge-journal-proxy" ) ],
      durableObjectStorage = ( inMemory = void ),
      bindings = [ ( name = "OWNER", service = "journal-owner" ) ] ) ),
{counters}{isolates}  ],
  sockets = [
{sockets}  ],
{EXTENSIONS}
);
"#,
        counters = counters::services(
            vars,
            &format!("limits-{name}"),
            &object("limits-object", "RateLimiterObject", "limits.js", "limits-disk"),
            platform.counters
        ),
        cache = cache_services(),
    )
}

/// Another Worker, with KV and a Cache API of its own.
pub fn peer_config(name: &str, port: u16, has_wasm: bool) -> String {
    let wasm = match has_wasm {
        true => format!(r#", ( name = "./index_bg.wasm", wasm = embed "bundle/{name}.wasm" )"#),
        false => String::new(),
    };
    format!(
        r#"using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    ( name = "internet", network = ( allow = [ "public", "private" ] ) ),
    ( name = "kv", external = ( address = "unix:kv.sock", http = () ) ),
    ( name = "cache-disk", disk = ( path = "cache-{name}", writable = true ) ),
{cache}    ( name = "peer", worker = (
      modules = [ ( name = "{name}.js", esModule = embed "bundle/{name}.js" ){wasm} ],
      compatibilityDate = "{COMPATIBILITY_DATE}",
      cacheApiOutbound = "cache",
      bindings = [ ( name = "CACHE_KV", kvNamespace = "kv" ) ] ) ),
  ],
  sockets = [ ( name = "peer", address = "127.0.0.1:{port}", http = (), service = "peer" ) ],
{EXTENSIONS}
);
"#,
        cache = cache_services(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values a configuration gives a name, in its environments' order: dev, staging, production.
    fn values(config: &str, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(root().join(config)).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='));
        lines.map(|value| value.trim().trim_matches('"').to_string()).collect()
    }

    /// Who numbers the purges and how long knowledge of them is good is said to both Workers.
    #[test]
    fn the_journals_worker_is_told_what_the_edges_is() {
        let (edge, journal) = ("wrangler.toml", "journal/wrangler.toml");
        for (name, times) in [("PURGE_LOG", 3), ("LEASE_MS", 3), ("BOUND_MS", 0)] {
            assert_eq!(values(edge, name).len(), times, "{name}");
            assert_eq!(values(edge, name), values(journal, name), "{name}");
        }
        for config in [edge, journal] {
            assert_eq!(values(config, "compatibility_date"), [COMPATIBILITY_DATE], "{config}");
        }
        let named = |suffix| format!("{}{suffix}", values(journal, "name")[0]);
        assert_eq!(values(edge, "script_name"), ["", "-staging", "-production"].map(named));
    }

    /// An environment that has neither is deployed, and nothing reaches it.
    #[test]
    fn each_environment_can_be_reached() {
        assert_eq!(
            values("wrangler.toml", "workers_dev"),
            ["true", "false"],
            "dev and staging, which inherits it; production"
        );
        let routes = values("wrangler.toml", "routes");
        assert!(routes.len() == 1 && routes[0].contains("custom_domain = true"), "{routes:?}");
    }

    /// Each environment is a Worker of its own: what is set without naming one is set for none that viewers reach.
    #[test]
    fn documented_commands_for_workers_name_their_environment() {
        let text = std::fs::read_to_string(root().join("docs/operating.md")).unwrap();
        let commands: Vec<_> = text.split("npx wrangler ").skip(1).map(|rest| rest.split(['`', '\n']).next()).collect();
        assert!(commands.len() > 3, "{commands:?}");
        for command in commands.into_iter().flatten() {
            assert!(command.contains("--env production"), "{command}");
        }
    }
}
