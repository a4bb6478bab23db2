//! PostgreSQL of our own: a primary and a streaming replica in a temporary folder, out of the system's server programs,
//! for tests and measurements. The server refuses to run as root, so then it runs as a user who may do nothing else.
use crate::keeper::Keeper;
use crate::ui::tail;
use crate::{Doing, Result, said};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const USER: &str = "nextream";
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The folder of the server's programs: Debian's, of the newest version, else where a search for programs finds them.
pub fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin): &(u32, PathBuf)| bin.join("postgres").is_file())
        .collect();
    found.sort();
    let has_server =
        |bin: &PathBuf| ["postgres", "initdb", "pg_basebackup"].iter().all(|name| bin.join(name).is_file());
    let searched = || std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).find(has_server);
    found.pop().map(|(_, bin)| bin).or_else(searched)
}

/// A primary, and what was started beside it.
pub struct Postgres {
    primary: Server,
    replicas: Vec<Server>,
    bin: PathBuf,
    folder: PathBuf,
    /// Removed in the end, if the folder is nobody's.
    _temporary: Option<TempDir>,
}

/// One server process.
pub struct Server {
    pub port: u16,
    data: PathBuf,
    log: PathBuf,
    keeper: Keeper,
}

/// Whether a commit waits for the disk: for measurements it does, tests need not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    Yes,
    No,
}

/// Runs a program as the user the server runs as.
fn as_server(program: &Path) -> Result<Command> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(Command::new(program));
    }
    let user = server_user()?;
    let mut command = Command::new("setpriv");
    let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
    command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups", "--"]).arg(program);
    // Its home and ours are not each other's business.
    command.env("HOME", "/").current_dir("/");
    Ok(command)
}

fn server_user() -> Result<nix::unistd::User> {
    for name in ["postgres", "nobody"] {
        if let Ok(Some(user)) = nix::unistd::User::from_name(name) {
            return Ok(user);
        }
    }
    said("PostgreSQL does not run as root, and there is neither a user postgres nor nobody to run it as")
}

fn run(what: &str, command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().doing(format!("cannot start {what}"))?;
    if !output.status.success() {
        return said(format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

impl Postgres {
    /// A fresh primary.
    pub fn start(durable: Durable) -> Result<Self> {
        let folder = tempfile::tempdir().doing("no temporary folder")?;
        let (bin, data) = Self::prepare(folder.path(), durable)?;
        let primary = Server::start(&bin, data.clone(), folder.path().join("primary.log"), &data)?;
        Ok(Self { primary, replicas: Vec::new(), bin, folder: folder.path().into(), _temporary: Some(folder) })
    }

    /// A primary whose data stays in a folder, and is there again the next time.
    pub fn start_in(folder: &Path, durable: Durable) -> Result<Self> {
        std::fs::create_dir_all(folder).doing(format!("cannot make {}", folder.display()))?;
        let data = folder.join("primary");
        let (bin, data) = match (data.is_dir(), programs()) {
            (true, Some(bin)) => (bin, data),
            _ => Self::prepare(folder, durable)?,
        };
        let primary = Server::start(&bin, data, folder.join("primary.log"), &folder.join("nothing"))?;
        Ok(Self { primary, replicas: Vec::new(), bin, folder: folder.into(), _temporary: None })
    }

    /// Makes the files of a primary.
    fn prepare(folder: &Path, durable: Durable) -> Result<(PathBuf, PathBuf)> {
        let Some(bin) = programs() else {
            return said("PostgreSQL's server programs are not in /usr/lib/postgresql; run `cargo xtask setup`");
        };
        if nix::unistd::geteuid().is_root() {
            let user = server_user()?;
            std::os::unix::fs::chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                .doing("cannot give a folder to the server's user")?;
        }
        let data = folder.join("primary");
        let mut initdb = as_server(&bin.join("initdb"))?;
        initdb.args(["--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"]);
        run("initdb", initdb.arg("--pgdata").arg(&data))?;
        let fsync = if durable == Durable::Yes { "on" } else { "off" };
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nwal_level = replica\nhot_standby = on\n\
             max_connections = 200\nshared_buffers = 128MB\nfsync = {fsync}\nmax_wal_senders = 4\n"
        );
        // The folder is the server user's alone, and root's.
        let mut config = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf"));
        let config = config.as_mut().map_err(|error| std::io::Error::new(error.kind(), error.to_string()));
        config.doing("cannot set PostgreSQL up")?.write_all(settings.as_bytes()).doing("cannot set PostgreSQL up")?;
        Ok((bin, data))
    }

    /// Adds a streaming replica and returns its place among them.
    pub fn add_replica(&mut self) -> Result<usize> {
        let at = self.replicas.len();
        let data = self.folder.join(format!("replica-{at}"));
        let port = self.primary.port.to_string();
        let mut copy = as_server(&self.bin.join("pg_basebackup"))?;
        copy.args(["--host", "127.0.0.1", "--port", &port, "--username", USER, "--write-recovery-conf"]);
        copy.args(["--wal-method", "stream", "--checkpoint", "fast", "--no-sync"]);
        run("pg_basebackup", copy.arg("--pgdata").arg(&data))?;
        let log = self.folder.join(format!("replica-{at}.log"));
        self.replicas.push(Server::start(&self.bin, data.clone(), log, &data)?);
        Ok(at)
    }

    /// Makes an empty database and returns its address.
    pub fn database(&self, name: &str) -> Result<String> {
        self.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"))?;
        Ok(self.url(name))
    }

    pub fn url(&self, database: &str) -> String {
        self.primary.url(database)
    }

    pub fn port(&self) -> u16 {
        self.primary.port
    }

    pub fn replica_port(&self, at: usize) -> u16 {
        self.replicas.get(at).map_or(0, |replica| replica.port)
    }

    pub fn replica_url(&self, at: usize, database: &str) -> String {
        self.replicas.get(at).map(|replica| replica.url(database)).unwrap_or_default()
    }

    /// Runs SQL on the primary, as its superuser.
    pub fn sql(&self, database: &str, statement: &str) -> Result<String> {
        self.primary.sql(&self.bin, database, statement)
    }

    pub fn replica_sql(&self, at: usize, database: &str, statement: &str) -> Result<String> {
        match self.replicas.get(at) {
            Some(replica) => replica.sql(&self.bin, database, statement),
            None => said("there is no such replica"),
        }
    }

    /// The replica receives what the primary commits and shows none of it, until replay is resumed.
    pub fn pause_replay(&self, at: usize) -> Result<()> {
        self.replica_sql(at, "postgres", "SELECT pg_wal_replay_pause()").map(|_| ())
    }

    pub fn resume_replay(&self, at: usize) -> Result<()> {
        self.replica_sql(at, "postgres", "SELECT pg_wal_replay_resume()").map(|_| ())
    }

    /// Waits until a replica shows what the primary has committed.
    pub fn await_replica(&self, at: usize) -> Result<()> {
        let target = self.sql("postgres", "SELECT pg_current_wal_lsn()")?;
        let began = Instant::now();
        let reached = format!("SELECT pg_last_wal_replay_lsn() >= '{target}'");
        while self.replica_sql(at, "postgres", &reached)? != "t" {
            if began.elapsed() > START_TIMEOUT {
                return said("the replica does not catch up");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The replica receives nothing of what the primary commits from now on.
    pub fn cut_replica(&self, at: usize) -> Result<()> {
        self.replica_sql(at, "postgres", "ALTER SYSTEM SET primary_conninfo = ''")?;
        self.replica_sql(at, "postgres", "SELECT pg_reload_conf()")?;
        let began = Instant::now();
        while self.replica_sql(at, "postgres", "SELECT count(*) FROM pg_stat_wal_receiver")? != "0" {
            if began.elapsed() > START_TIMEOUT {
                return said("the replica goes on receiving");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends the primary as the loss of its machine would.
    pub fn kill_primary(&mut self) -> Result<()> {
        let file = self.primary.data.join("postmaster.pid");
        let text = std::fs::read_to_string(&file).doing(format!("cannot read {}", file.display()))?;
        let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
        let Some(pid) = pid else { return said(format!("{} names no process", file.display())) };
        kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(std::io::Error::from).doing("cannot kill PostgreSQL")?;
        self.primary.keeper.stop();
        Ok(())
    }

    /// A replica becomes a primary of its own, with what it has received.
    pub fn promote(&self, at: usize) -> Result<()> {
        match self.replica_sql(at, "postgres", "SELECT pg_promote()")?.as_str() {
            "t" => Ok(()),
            _ => said("the replica is not promoted in time"),
        }
    }

    /// Stops a replica at once, as a fault would.
    pub fn stop_replica(&mut self, at: usize) {
        if let Some(replica) = self.replicas.get_mut(at) {
            replica.keeper.stop();
        }
    }

    /// Ends every other connection to a database in the middle of whatever it does.
    pub fn cut_connections(&self, database: &str) -> Result<()> {
        let cut = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        );
        self.sql("postgres", &cut).map(|_| ())
    }
}

impl Server {
    /// `leaves` is removed in the end.
    fn start(bin: &Path, data: PathBuf, log: PathBuf, leaves: &Path) -> Result<Self> {
        let port = crate::process::free_port()?;
        let mut command = as_server(&bin.join("postgres"))?;
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        let keeper = Keeper::start(&command, &log, leaves)?;
        let server = Self { port, data, log, keeper };
        server.await_ready(bin)?;
        Ok(server)
    }

    fn await_ready(&self, bin: &Path) -> Result<()> {
        let began = Instant::now();
        loop {
            let Err(error) = self.sql(bin, "postgres", "SELECT 1") else { return Ok(()) };
            if began.elapsed() > START_TIMEOUT {
                for line in tail(&self.log, 15) {
                    eprintln!("    | {line}");
                }
                return said(format!("PostgreSQL in {} does not start: {error}", self.data.display()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    fn sql(&self, bin: &Path, database: &str, statement: &str) -> Result<String> {
        let mut psql = Command::new(bin.join("psql"));
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "-v", "ON_ERROR_STOP=1"]);
        run("psql", psql.args(["--dbname", &self.url(database), "--command", statement]))
    }
}
