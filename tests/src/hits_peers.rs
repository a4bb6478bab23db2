//! What the edge is measured beside: Workers written by hand in the same runtime with the same bindings, a Worker of the
//! `worker` crate, and nginx and Varnish where they are installed. Each is pinned to the processor the edge has.
use crate::api::Api;
use crate::free_port;
use crate::hits::Target;
use crate::stack::Proxy;
use std::path::Path;
use std::process::Command;
use xtask::fleet::Script;
use xtask::process::Process;

pub struct Peers {
    pub targets: Vec<Target>,
    /// End with the bench.
    pub processes: Vec<Process>,
}

const NGINX: &str = "/usr/sbin/nginx";
const VARNISH: &str = "/usr/sbin/varnishd";

fn text(error: xtask::Error) -> String {
    error.to_string()
}

/// The hand-written Worker, with the switches at its top.
fn memory(reads_fields: bool, logs: bool) -> String {
    let switch = |script: String, name: &str, is_on: bool| {
        script.replace(&format!("{name} = false"), &format!("{name} = {is_on}"))
    };
    let script = include_str!("../peers/memory.js").to_string();
    switch(switch(script, "READS_FIELDS", reads_fields), "LOGS", logs)
}

/// Those that answer from memory have the API's pages, as the gateway has; the others those of any origin.
pub async fn start_peers(proxy: &Proxy, api: &Api, page: &str, not_modified: &str) -> Result<Peers, String> {
    let (any, of_api) = (proxy.upstream.port.to_string(), api.upstream.port.to_string());
    let mut all = Peers { targets: Vec::new(), processes: Vec::new() };
    let mut worker = |name: &'static str, setup: &'static str, origin: &str, script: Script<'_>, path: &str| {
        let port = free_port();
        let file = name.replace([' ', ',', '+', '.'], "-");
        let peer = match script {
            Script::Text(text) => {
                let text = text.replace("ORIGIN_PORT", origin);
                proxy.fleet.start_peer(&file, port, Script::Text(&text))
            }
            built => proxy.fleet.start_peer(&file, port, built),
        };
        let peer = peer.map_err(text)?;
        peer.pin(0).map_err(text)?;
        let target = Target::new(name, setup, format!("http://127.0.0.1:{port}{path}"), peer.id());
        all.processes.push(peer);
        Ok::<Target, String>(target)
    };
    let again = |one: &Target, name, setup, path: &str| {
        Target::new(name, setup, format!("http://{}{path}", one.load.authority), one.process)
    };
    let kv = include_str!("../peers/kv.js");
    let cache_api = include_str!("../peers/cache-api.js");
    let built = xtask::wasm::build_peer("tests/peers/constant").map_err(text)?;
    let mut targets = Vec::new();
    targets.push(worker(
        "js empty",
        "tests/peers/empty.js: new Response(\"ok\")",
        &any,
        Script::Text(include_str!("../peers/empty.js")),
        "/",
    )?);
    targets.push(worker(
        "workers-rs constant",
        "tests/peers/constant: Response::ok(\"ok\"), built by worker-build --release",
        &any,
        Script::Built(&built),
        "/",
    )?);
    let plain = worker(
        "js memory",
        "tests/peers/memory.js: a Map by URL; a Map look-up for each surrogate key, the edge's fields, If-None-Match",
        &of_api,
        Script::Text(&memory(false, false)),
        page,
    )?;
    let conditional = again(&plain, "js memory, 304", "the same, with If-None-Match", page).with(not_modified);
    targets.push(plain);
    targets.push(worker(
        "js memory, same fields",
        "the same with READS_FIELDS: keeps apart who asks, from where, in which language",
        &of_api,
        Script::Text(&memory(true, false)),
        page,
    )?);
    targets.push(conditional);
    targets.push(worker(
        "js memory, fields + log",
        "the same with LOGS: ids, and the edge's line of the access log",
        &of_api,
        Script::Text(&memory(true, true)),
        page,
    )?);
    let held = worker("js kv", "tests/peers/kv.js: one page in KV, streamed", &any, Script::Text(kv), "/keys-20")?;
    let many = again(&held, "js kv, pages", "the same, each page asked for once", "/page?n=").of_pages();
    targets.extend([held, many]);
    let kept = worker(
        "js kv, same work, pages",
        "tests/peers/kv-kept.js: pages from KV kept in memory, keys looked up, a time limit, the edge's fields",
        &any,
        Script::Text(include_str!("../peers/kv-kept.js")),
        "/page?n=",
    )?;
    targets.push(kept.of_pages());
    let held = worker(
        "js caches.default",
        "tests/peers/cache-api.js: the Cache API before the origin",
        &any,
        Script::Text(cache_api),
        "/keys-20",
    )?;
    let many = again(&held, "js caches.default, pages", "the same, each page asked for once", "/page?n=").of_pages();
    targets.extend([held, many]);
    all.targets = targets;
    caches(&mut all, proxy, &any)?;
    Ok(all)
}

/// Debian's `nginx` and `varnish`.
fn caches(all: &mut Peers, proxy: &Proxy, origin: &str) -> Result<(), String> {
    let folder = proxy.fleet.state().join("peers");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let url = |port: u16| format!("http://127.0.0.1:{port}/keys-20");
    if Path::new(NGINX).is_file() {
        let port = free_port();
        let config = include_str!("../peers/nginx.conf").replace("ORIGIN_PORT", origin);
        let config = config.replace("PORT", &port.to_string()).replace("FOLDER", &folder.to_string_lossy());
        std::fs::write(folder.join("nginx.conf"), config).map_err(|error| error.to_string())?;
        let mut nginx = Command::new(NGINX);
        nginx.arg("-c").arg(folder.join("nginx.conf")).arg("-p").arg(&folder);
        let nginx = run("nginx", &folder, &mut nginx, port)?;
        let setup = "tests/peers/nginx.conf: one process, proxy_cache, no log";
        all.targets.push(Target::new("nginx proxy_cache", setup, url(port), nginx.id()));
        all.processes.push(nginx);
    } else {
        println!("nginx is not installed (apt-get install nginx-core): no row");
    }
    if Path::new(VARNISH).is_file() {
        let port = free_port();
        let mut varnish = Command::new(VARNISH);
        varnish.args(["-F", "-a", &format!("127.0.0.1:{port}"), "-b", &format!("127.0.0.1:{origin}")]);
        varnish.args(["-s", "malloc,64m", "-n"]).arg(folder.join("varnish"));
        let varnish = run("varnish", &folder, &mut varnish, port)?;
        // Its child is what answers.
        let child = children(varnish.id()).first().copied().unwrap_or_else(|| varnish.id());
        let setup = "varnishd -F -s malloc,64m, its built-in VCL";
        all.targets.push(Target::new("varnish", setup, url(port), child));
        all.processes.push(varnish);
    } else {
        println!("Varnish is not installed (apt-get install varnish): no row");
    }
    Ok(())
}

fn children(process: u32) -> Vec<u32> {
    let said = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    said.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

fn run(name: &str, folder: &Path, command: &mut Command, port: u16) -> Result<Process, String> {
    // Its children stay on the processor it is started on.
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", "0"]).arg(command.get_program()).args(command.get_args());
    let mut peer = Process::start(name, &folder.join(format!("{name}.log")), &mut pinned).map_err(text)?;
    xtask::process::await_answer(name, port, "/keys-20", &mut [&mut peer]).map_err(text)?;
    Ok(peer)
}
