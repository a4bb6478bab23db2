//! What the edge is measured beside: Workers written by hand in the same runtime with the same bindings, and nginx and
//! Varnish where they are installed. Each is pinned to the processor the edge has.
use crate::hits::Target;
use crate::stack::Proxy;
use std::path::Path;
use std::process::Command;
use xtask::process::Process;

/// A process that ends with its bench.
pub type Peer = Process;

const NGINX: &str = "/usr/sbin/nginx";
const VARNISH: &str = "/usr/sbin/varnishd";

const MEMORY: &str = include_str!("../peers/memory.js");

pub fn start_peers(proxy: &Proxy, port: impl Fn() -> u16) -> Result<(Vec<Target>, Vec<Peer>), String> {
    let text = |error: xtask::Error| error.to_string();
    let origin = proxy.upstream.port.to_string();
    let mut targets = Vec::new();
    let mut peers = Vec::new();
    for (file, script) in [
        ("peer-empty", include_str!("../peers/empty.js")),
        ("peer-memory", MEMORY),
        ("peer-memory-fields", MEMORY),
        ("peer-memory-log", MEMORY),
        ("peer-kv", include_str!("../peers/kv.js")),
        ("peer-cache-api", include_str!("../peers/cache-api.js")),
    ] {
        let port = port();
        let mut script = script.replace("ORIGIN_PORT", &origin);
        if file == "peer-memory-fields" || file == "peer-memory-log" {
            script = script.replace("READS_FIELDS = false", "READS_FIELDS = true");
        }
        if file == "peer-memory-log" {
            script = script.replace("LOGS = false", "LOGS = true");
        }
        let peer = proxy.fleet.start_peer(file, port, &script).map_err(text)?;
        peer.pin(0).map_err(text)?;
        peers.push(peer);
        let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
        match file {
            "peer-empty" => targets.push(Target::new("js empty", url("/"))),
            "peer-memory" => targets.push(Target::new("js memory", url("/keys-20"))),
            "peer-memory-fields" => targets.push(Target::new("js memory, same fields", url("/keys-20"))),
            "peer-memory-log" => targets.push(Target::new("js memory, fields + log", url("/keys-20"))),
            "peer-kv" => {
                targets.push(Target::new("js kv", url("/keys-20")));
                let mut pages = Target::new("js kv, pages", url("/page?n="));
                pages.pages = Some(4_000);
                targets.push(pages);
            }
            _ => targets.push(Target::new("js caches.default", url("/keys-20"))),
        }
    }
    let folder = proxy.fleet.state().join("peers");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    if Path::new(NGINX).is_file() {
        let port = port();
        let config = include_str!("../peers/nginx.conf").replace("ORIGIN_PORT", &origin);
        let config = config.replace("PORT", &port.to_string()).replace("FOLDER", &folder.to_string_lossy());
        std::fs::write(folder.join("nginx.conf"), config).map_err(|error| error.to_string())?;
        let mut nginx = Command::new(NGINX);
        nginx.arg("-c").arg(folder.join("nginx.conf")).arg("-p").arg(&folder);
        peers.push(run("nginx", &folder, &mut nginx, port)?);
        targets.push(Target::new("nginx proxy_cache", format!("http://127.0.0.1:{port}/keys-20")));
    }
    if Path::new(VARNISH).is_file() {
        let port = port();
        let mut varnish = Command::new(VARNISH);
        varnish.args(["-F", "-a", &format!("127.0.0.1:{port}"), "-b", &format!("127.0.0.1:{origin}")]);
        varnish.args(["-s", "malloc,64m", "-n"]).arg(folder.join("varnish"));
        peers.push(run("varnish", &folder, &mut varnish, port)?);
        targets.push(Target::new("varnish", format!("http://127.0.0.1:{port}/keys-20")));
    }
    Ok((targets, peers))
}

fn run(name: &str, folder: &Path, command: &mut Command, port: u16) -> Result<Peer, String> {
    let text = |error: xtask::Error| error.to_string();
    // Its children stay on the processor it is started on.
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", "0"]).arg(command.get_program()).args(command.get_args());
    let mut peer = Process::start(name, &folder.join(format!("{name}.log")), &mut pinned).map_err(text)?;
    xtask::process::await_answer(name, port, "/keys-20", &mut [&mut peer]).map_err(text)?;
    Ok(peer)
}
