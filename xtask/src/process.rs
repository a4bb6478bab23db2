//! A process this program started: its output in a log, stopped politely or killed, and gone when we are.
use crate::ui::tail;
use crate::{Doing, Result, said};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A port nobody has right now, below those the system gives to outgoing connections: one of these could take it
/// before the process it is meant for does.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 11_000;
    const COUNT: u32 = 20_000;
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + start.wrapping_add(step) % COUNT).unwrap_or_default();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    said("no free port was found")
}

/// How long a process may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(30);

pub struct Process {
    name: String,
    log: PathBuf,
    /// Where in the log its own lines begin, in bytes.
    log_begins: u64,
    child: Child,
}

impl Process {
    /// Starts a command. Its output is appended to `log`.
    pub fn start(name: &str, log: &Path, command: &mut Command) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.doing(format!("cannot write {}", log.display()))?;
        let log_begins = file.metadata().doing(format!("cannot read {}", log.display()))?.len();
        let copy = file.try_clone().doing("cannot write a log")?;
        // A group of its own: Ctrl-C in the terminal reaches this program, which then stops the others in order.
        std::os::unix::process::CommandExt::process_group(command, 0);
        let child = command.stdin(Stdio::null()).stdout(file).stderr(copy).spawn();
        let program = command.get_program().to_string_lossy().to_string();
        let child = child.doing(format!("cannot start {name} ({program})"))?;
        Ok(Self { name: name.into(), log: log.into(), log_begins, child })
    }

    /// Keeps it on one processor, so that what is measured and what measures do not take turns.
    pub fn pin(&self, processor: usize) -> Result<()> {
        let pinned =
            Command::new("taskset").args(["-apc", &processor.to_string(), &self.child.id().to_string()]).output();
        match pinned.doing("cannot start taskset (util-linux)")?.status.success() {
            true => Ok(()),
            false => said(format!("{} cannot be kept on processor {processor}", self.name)),
        }
    }

    /// What the system knows it by.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has ended; then with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait().doing("cannot look after a process")? {
            None => Ok(()),
            Some(status) => {
                for line in tail(&self.log, 15) {
                    eprintln!("    | {line}");
                }
                said(format!("{} ended by itself ({status}); its log is {}", self.name, self.log.display()))
            }
        }
    }

    /// Whether it has said this since it was started.
    fn has_said(&self, words: &str) -> Result<bool> {
        let mut said = Vec::new();
        let read = File::open(&self.log).and_then(|mut log| {
            log.seek(SeekFrom::Start(self.log_begins))?;
            log.read_to_end(&mut said)
        });
        read.doing(format!("cannot read {}", self.log.display()))?;
        Ok(said.windows(words.len()).any(|some| some == words.as_bytes()))
    }

    /// Waits until it has said this, or has ended, or a limit is reached.
    pub fn await_words(&mut self, words: &str) -> Result<()> {
        let began = Instant::now();
        while !self.has_said(words)? {
            self.check()?;
            if began.elapsed() > START_TIMEOUT {
                return said(format!(
                    "{} did not say {words} within 30 seconds; its log is {}",
                    self.name,
                    self.log.display()
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Has it do nothing, or go on: it is there, and answers nobody.
    pub fn suspend(&self, is_suspended: bool) {
        let _ = kill(self.pid(), if is_suspended { Signal::SIGSTOP } else { Signal::SIGCONT });
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop, and kills it if it has not after two seconds.
    pub fn stop(&mut self) {
        let _ = kill(self.pid(), Signal::SIGTERM);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A command that dies with this program even if this program is killed: it runs through `xtask tied`, which asks the
/// kernel for that and then becomes the command.
pub fn tied(program: &Path) -> Result<Command> {
    let me = std::env::current_exe().doing("cannot find this program's own file")?;
    let mut command = Command::new(me);
    command.arg("tied").arg(program);
    Ok(command)
}

/// Whether something answers HTTP with 200 at this URL of a loopback port.
pub fn answers(port: u16, path: &str) -> bool {
    use std::io::{Read, Write};
    let ask = || -> std::io::Result<String> {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")?;
        let mut answer = [0; 16];
        stream.read_exact(&mut answer[..12])?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// Waits until `port` answers, or one of `processes` has ended, or a limit is reached.
pub fn await_answer(what: &str, port: u16, path: &str, processes: &mut [&mut Process]) -> Result<()> {
    let began = Instant::now();
    while !answers(port, path) {
        for process in processes.iter_mut() {
            process.check()?;
        }
        if began.elapsed() > START_TIMEOUT {
            return said(format!("{what} did not answer at http://127.0.0.1:{port}{path} within 30 seconds"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Lets this process, and those it starts from now on, have so many files and connections open.
pub fn allow_open_files(wanted: u64) -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let limit = || getrlimit(Resource::RLIMIT_NOFILE).map_err(std::io::Error::from).doing("cannot ask for limits");
    let (soft, hard) = limit()?;
    if soft >= wanted {
        return Ok(());
    }
    // Only root may raise the hard one.
    match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)) {
        Ok(()) => Ok(()),
        Err(error) => said(format!(
            "{wanted} open files are needed and {hard} are allowed ({error}); raise it with `ulimit -Hn {wanted}` as root, or \
             in /etc/security/limits.conf, or take fewer connections"
        )),
    }
}

/// Refuses a port that somebody else has.
pub fn check_port(port: u16, option: &str) -> Result<()> {
    match std::net::TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Ok(()),
        Err(error) => {
            said(format!("port {port} cannot be used ({error}); stop what has it, or choose another with {option}"))
        }
    }
}
