//! What a person sees: one line a step, with the time it has taken while it runs.
use crate::{Doing, Result, said};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub fn say(text: impl AsRef<str>) {
    println!("{}", text.as_ref());
}

fn seconds(elapsed: Duration) -> String {
    let s = elapsed.as_secs();
    if s >= 60 { format!("{}m{:02}s", s / 60, s % 60) } else { format!("{}.{}s", s, elapsed.subsec_millis() / 100) }
}

/// Runs a command whose output goes to a log. On a terminal the line counts the seconds; elsewhere it speaks up now
/// and then, so that a long step does not look like a hang. On failure the end of the log is shown.
pub fn step(what: &str, log: &Path, command: &mut Command) -> Result<()> {
    if let Some(dir) = log.parent() {
        std::fs::create_dir_all(dir).doing(format!("cannot make {}", dir.display()))?;
    }
    let file = File::create(log).doing(format!("cannot write {}", log.display()))?;
    let copy = file.try_clone().doing("cannot write a log")?;
    let name = command.get_program().to_string_lossy().to_string();
    let began = Instant::now();
    let mut out = std::io::stdout();
    let terminal = out.is_terminal();
    print!("  {what} …{}", if terminal { "" } else { "\n" });
    let _ = out.flush();
    let child = command.stdin(Stdio::null()).stdout(file).stderr(copy).spawn();
    let mut child = child.doing(format!("{what}: cannot start {name}; is it installed and on PATH?"))?;
    let mut spoken = began;
    let status = loop {
        if let Some(status) = child.try_wait().doing(format!("{what}: cannot wait for {name}"))? {
            break status;
        }
        if terminal {
            print!("\r  {what} … {}", seconds(began.elapsed()));
            let _ = out.flush();
        } else if spoken.elapsed() > Duration::from_secs(30) {
            spoken = Instant::now();
            println!("  {what} … {}", seconds(began.elapsed()));
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let mark = if status.success() { "done" } else { "FAILED" };
    println!("{}  {what}: {mark} in {}", if terminal { "\r" } else { "" }, seconds(began.elapsed()));
    if status.success() {
        return Ok(());
    }
    let end = tail(log, 25);
    for line in &end {
        eprintln!("    | {line}");
    }
    let mend = if end.iter().any(|line| speaks_of_network(line)) {
        "there seems to be no network; connect and start again"
    } else {
        "the lines above say why"
    };
    said(format!("{what} failed: {mend} (whole output: {})", log.display()))
}

/// What cargo, npm and rustup say when they cannot reach anything.
fn speaks_of_network(line: &str) -> bool {
    const SIGNS: [&str; 8] = [
        "could not resolve",
        "couldn't resolve",
        "name resolution",
        "enotfound",
        "eai_again",
        "failed to connect",
        "network",
        "error trying to connect",
    ];
    let line = line.to_lowercase();
    SIGNS.iter().any(|sign| line.contains(sign))
}

/// The last lines of a file.
pub fn tail(log: &Path, lines: usize) -> Vec<String> {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| line.to_string()).collect()
}
