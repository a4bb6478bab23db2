//! A Redis of our own on a free loopback port, out of the system's package, for tests.
use crate::keeper::Keeper;
use crate::{Doing, Result, said};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(20);

pub struct Redis {
    port: u16,
    keeper: Keeper,
    _folder: TempDir,
}

impl Redis {
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir().doing("no temporary folder")?;
        let port = crate::process::free_port()?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data).doing("no temporary folder")?;
        let mut server = Command::new("redis-server");
        server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
        let keeper = Keeper::start(server.arg(&data), &folder.path().join("redis.log"), &data)?;
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > START_TIMEOUT {
                return said("redis-server does not start; is it there? `cargo xtask setup` installs it");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { port, keeper, _folder: folder })
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// As a fault would.
    pub fn stop(&mut self) {
        self.keeper.stop();
    }
}
