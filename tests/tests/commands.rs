//! The commands that README begins with, as a person has them: started by cargo, tried with the very lines they print, and
//! ended with Ctrl-C. A suite of its own, since a command that finds a Worker out of date builds it anew.
use e2e::http::{get, send};
use e2e::upstream::Upstream;
use e2e::{eventually, free_port};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The first start may compile the origin.
const START_MAX: Duration = Duration::from_secs(1_800);
const END_MAX: Duration = Duration::from_secs(60);
/// What each ends its greeting with.
const GREETED: &str = "Ctrl-C stops everything.";

fn xtask(arguments: &[String]) -> Command {
    let mut command = xtask::cargo();
    command.arg("xtask").args(arguments).current_dir(xtask::root()).stdin(Stdio::null());
    command
}

/// A command that goes on until it is told to end.
struct Running {
    child: Child,
    printed: String,
    _folder: TempDir,
}

impl Running {
    /// Returns when it has said what to try.
    fn start(arguments: &[String]) -> Self {
        let folder = tempfile::tempdir().expect("no folder");
        let log = folder.path().join("printed");
        let file = std::fs::File::create(&log).expect("no file");
        let copy = file.try_clone().expect("no file");
        let mut command = xtask(arguments);
        // As in a terminal: Ctrl-C reaches this group and nobody else.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.stdout(file).stderr(copy).spawn().expect("cannot start cargo");
        let mut running = Self { child, printed: String::new(), _folder: folder };
        let began = Instant::now();
        while !running.printed.contains(GREETED) {
            let ended = running.child.try_wait().expect("cannot wait");
            running.printed = std::fs::read_to_string(&log).expect("no output");
            assert!(ended.is_none() && began.elapsed() < START_MAX, "it does not start: {}", running.printed);
            std::thread::sleep(Duration::from_millis(100));
        }
        running
    }

    /// What stands after a label, to the end of its line.
    fn said(&self, label: &str) -> &str {
        let line = self.printed.lines().find_map(|line| line.trim_start().strip_prefix(label));
        line.map(str::trim).unwrap_or_else(|| panic!("no '{label}' in {}", self.printed))
    }

    /// The lines to try, as a shell would read them.
    fn lines_to_try(&self) -> Vec<String> {
        let joined = self.printed.replace("\\\n", " ");
        joined.lines().map(str::trim).filter(|line| line.starts_with("curl ")).map(String::from).collect()
    }

    fn interrupt(&mut self) -> ExitStatus {
        let group = Pid::from_raw(-i32::try_from(self.child.id()).expect("no number"));
        kill(group, Signal::SIGINT).expect("cannot send SIGINT");
        within(END_MAX, &mut self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its own processes end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn within(limit: Duration, child: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("cannot wait") {
            return status;
        }
        if began.elapsed() > limit {
            // What it started ends with it.
            let _ = child.kill();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The commands of processes whose parent this is, and theirs, by number.
fn below(parent: u32) -> Vec<(u32, String)> {
    let listed = Command::new("ps").args(["-A", "-o", "pid=,ppid=,args="]).output().expect("cannot start ps");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut all = Vec::new();
    let mut parents = vec![parent];
    while let Some(parent) = parents.pop() {
        for line in listed.lines() {
            let mut words = line.split_whitespace();
            let number = |word: Option<&str>| word.and_then(|word| word.parse::<u32>().ok());
            let (pid, of) = (number(words.next()), number(words.next()));
            if let Some(pid) = pid.filter(|_| of == Some(parent)) {
                parents.push(pid);
                all.push((pid, words.collect::<Vec<_>>().join(" ")));
            }
        }
    }
    all
}

fn is_there((pid, args): &(u32, String)) -> bool {
    let listed = Command::new("ps").args(["-o", "args=", "-p", &pid.to_string()]).output().expect("cannot start ps");
    String::from_utf8_lossy(&listed.stdout).split_whitespace().collect::<Vec<_>>().join(" ") == *args
}

/// Sends SIGINT, and sees that nothing is left: no process, and nobody at the ports.
fn ends_and_leaves_nothing(mut running: Running, ports: &[u16], processes: usize) {
    let children = below(running.child.id());
    assert_eq!(children.len(), processes, "{children:?}");
    let status = running.interrupt();
    assert!(status.success(), "{status}");
    let left: Vec<_> = children.iter().filter(|child| is_there(child)).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    for port in ports {
        assert!(TcpListener::bind(("127.0.0.1", *port)).is_ok(), "somebody has port {port}");
    }
}

/// A start that must not succeed: what it says.
fn refused(arguments: &[String]) -> String {
    let mut child = xtask(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("cannot start cargo");
    let status = within(END_MAX, &mut child);
    let Output { stderr, .. } = child.wait_with_output().expect("no output");
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

/// Runs a line as a person would; head and body of the answer, or what curl complains of.
fn run(line: &str, token: &str) -> String {
    let shell = Command::new("sh").args(["-c", line]).env("TOKEN", token).output().expect("cannot start sh");
    assert!(shell.status.success(), "{line}: {shell:?}");
    String::from_utf8_lossy(&shell.stdout).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_says_what_to_try_and_ends_with_all_that_it_started() {
    let state = tempfile::tempdir().expect("no folder");
    let [edge, origin, other, another] = [free_port(), free_port(), free_port(), free_port()];
    let [edge_, origin_, other_, another_] = [edge, origin, other, another].map(|port| port.to_string());
    let start = |state: &TempDir, edge: &str, origin: &str| {
        ["dev", "--state", text(state.path()), "--edge-port", edge, "--origin-port", origin].map(String::from)
    };
    let running = Running::start(&start(&state, &edge_, &origin_));
    let url = running.said("edge ").to_string();
    assert_eq!(url, format!("http://127.0.0.1:{edge}"));
    assert_eq!(running.said("origin "), format!("http://127.0.0.1:{origin}"));
    let token = running.said("export TOKEN=").to_string();
    let lines = running.lines_to_try();
    let [home, edit, purge] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(run(home, &token).starts_with("HTTP/1.1 200"), "{home}");
    let hit = run(home, &token);
    assert!(hit.to_lowercase().contains("cache-status: nextream-edge; hit"), "{hit}");
    let edited = run(edit, &token);
    assert!(edited.starts_with("HTTP/1.1 200"), "{edit}: {edited}");
    eventually("the edit", || async { get(format!("{url}/v1/home")).await.body.contains("(edited)").then_some(()) })
        .await;
    let purged = run(purge, &token);
    assert!(purged.starts_with("HTTP/1.1 202"), "{purge}: {purged}");

    let empty = tempfile::tempdir().expect("no folder");
    for (state, edge, origin, words) in [
        (&state, &other_, &another_, ["is in use by another run", "--state"]),
        (&empty, &edge_, &another_, [edge_.as_str(), "--edge-port"]),
        (&empty, &other_, &origin_, [origin_.as_str(), "--origin-port"]),
    ] {
        let said = refused(&start(state, edge, origin));
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    assert_eq!(get(format!("{url}/__edge/health")).await.status, 200, "the first goes on");
    ends_and_leaves_nothing(running, &[edge, origin], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_stands_before_any_origin_and_ends_with_all_that_it_started() {
    let upstream = Upstream::start().await;
    let fields = [("cache-control", "max-age=600"), ("surrogate-key", "a-key")];
    upstream.answer("/a", &fields, "one");
    let (state, empty) = (tempfile::tempdir().expect("no folder"), tempfile::tempdir().expect("no folder"));
    let [port, other] = [free_port(), free_port()];
    let [port_, other_] = [port, other].map(|port| port.to_string());
    let upstream_url = format!("http://127.0.0.1:{}", upstream.port);
    let start = |state: &TempDir, port: &str| {
        ["edge", "--upstream", &upstream_url, "--state", text(state.path()), "--port", port].map(String::from)
    };
    let running = Running::start(&start(&state, &port_));
    let url = running.said("edge:").to_string();
    assert_eq!(url, format!("http://127.0.0.1:{port}"));
    assert_eq!(get(format!("{url}/a")).await.body, "one");
    eventually("a hit", || async { get(format!("{url}/a")).await.is_hit().then_some(()) }).await;
    upstream.answer("/a", &fields, "two");
    let lines = running.lines_to_try();
    let [purge] = lines.as_slice() else { panic!("{lines:?}") };
    let taken = run(purge, "");
    let taken: serde_json::Value = serde_json::from_str(&taken).expect("no JSON");
    assert_eq!(taken["accepted"], 1, "{taken}");
    let seq = taken["next_seq"].as_u64().expect("no number") - 1;
    eventually("the new page", || async { (get(format!("{url}/a")).await.body == "two").then_some(()) }).await;
    // Intake and token as they stand by themselves.
    let summary = e2e::http::ask(reqwest::Method::GET, running.said("purge intake:"));
    assert_eq!(send(summary.bearer_auth(running.said("token:"))).await.json()["head"], seq);

    for (state, port, words) in
        [(&state, &other_, ["is in use by another run", "--state"]), (&empty, &port_, [port_.as_str(), "--port"])]
    {
        let said = refused(&start(state, port));
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    assert!(get(format!("{url}/a")).await.is_hit(), "the first goes on");
    ends_and_leaves_nothing(running, &[port], 2);
}
