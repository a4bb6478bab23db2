//! The program itself, as processes that end with their test.
#![allow(dead_code)]
use super::Database;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Far more than a busy machine needs.
pub const TIMEOUT: Duration = Duration::from_secs(30);
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_origin");

/// The program, with nothing of the settings of whoever runs the tests.
pub fn command() -> Command {
    without_settings(PROGRAM)
}

/// The same for another program that runs it.
pub fn without_settings(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let is_setting = |name: &str| {
            name.starts_with("ORIGIN_") || ["DATABASE_URL", "REPLICA_URLS", "REDIS_URL", "RUST_LOG"].contains(&name)
        };
        if name.to_str().is_some_and(is_setting) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it to its end.
pub fn origin(arguments: &[&str]) -> Output {
    command().args(arguments).output().unwrap()
}

/// The same over this database.
pub fn origin_over(database: &Database, arguments: &[&str]) -> Output {
    let mut command = command();
    command.args(arguments);
    match &database.settings.database_url {
        Some(url) => command.args(["--database-url", url]),
        None => command.arg("--database").arg(database.settings.place()),
    };
    command.output().unwrap()
}

/// A service, which is killed where its test fails.
pub struct Served {
    child: Child,
    /// Host and port.
    pub address: String,
}

impl Served {
    /// With keys and a database of its own in this folder.
    pub fn start(dir: &Path, more: &[&str]) -> Self {
        let (keys, database) = (dir.join("keys"), dir.join("db.sqlite"));
        assert!(origin(&["keygen", "--keys", keys.to_str().unwrap()]).status.success());
        let mut command = command();
        command.args(["serve", "--listen", "127.0.0.1:0"]).arg("--keys").arg(keys).arg("--database").arg(database);
        let child = command.args(more).stderr(Stdio::piped()).spawn().unwrap();
        let mut served = Self { child, address: String::new() };
        let log = BufReader::new(served.child.stderr.take().unwrap());
        let (say, said) = mpsc::channel();
        // It goes on logging, whoever listens.
        std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(|line| _ = say.send(line)));
        let began = Instant::now();
        while served.address.is_empty() {
            let line = said.recv_timeout(TIMEOUT.saturating_sub(began.elapsed())).expect("it listens");
            served.address = line.split("listening on http://").nth(1).unwrap_or_default().trim().to_string();
        }
        served
    }

    /// As whoever runs it tells it to stop.
    pub fn stop(&self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, so long at most.
    pub fn end(&mut self, within: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < within, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
