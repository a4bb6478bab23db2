//! Load in a closed loop: so many connections, each with one request under way, for a part of a second. Short turns can be
//! taken with others many times over, so that a machine whose speed drifts wrongs nobody. Runs on a thread of its own on
//! processor 1; what is measured has processor 0.
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONNECTIONS: usize = 32;
/// Before it is counted: the processor's caches have the server in them again.
const WARM_UP: Duration = Duration::from_millis(50);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Load {
    /// Host and port.
    pub authority: String,
    pub target: String,
    pub fields: Vec<String>,
    /// A number is added to the target, another one each time.
    pub numbered: bool,
}

impl Load {
    pub fn new(url: &str) -> Self {
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        Self { authority: authority.into(), target: format!("/{path}"), fields: Vec::new(), numbered: false }
    }

    fn request(&self, number: Option<usize>) -> String {
        let number = number.map(|number| number.to_string()).unwrap_or_default();
        let fields: String = self.fields.iter().map(|field| format!("{field}\r\n")).collect();
        format!("GET {}{number} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", self.target, self.authority)
    }
}

/// What a stint came to.
#[derive(Clone, Copy, Debug)]
pub struct Stint {
    pub requests_per_s: f64,
    /// Processor time of the server's process for each request; 0 where that is not known.
    pub cpu_us: f64,
}

/// Numbers not used so far, up to a last one.
struct Numbers {
    next: AtomicUsize,
    end: usize,
}

impl Numbers {
    fn of(numbers: std::ops::Range<usize>) -> Arc<Self> {
        Arc::new(Self { next: AtomicUsize::new(numbers.start), end: numbers.end })
    }
}

/// One stint: warm-up, then what is counted for `length`; less if the numbers come to their end. `process`: whose
/// processor time is taken.
pub fn stint(load: &Load, numbers: std::ops::Range<usize>, length: Duration, process: u32) -> Result<Stint, String> {
    pump(async {
        let mut side = Side::connect(load, numbers).await?;
        side.turn(WARM_UP).await?;
        let cpu_from = cpu_ns(process);
        let (requests, took) = side.turn(length).await?;
        let cpu_us = cpu_ns(process).saturating_sub(cpu_from) as f64 / 1000.0 / requests;
        Ok(Stint { requests_per_s: requests / took.as_secs_f64(), cpu_us })
    })
}

/// Two that take turns, `length` each, so many times: the ratios of their requests a second, turn by turn.
pub fn duel(
    ours: (&Load, std::ops::Range<usize>),
    theirs: (&Load, std::ops::Range<usize>),
    turns: usize,
    length: Duration,
) -> Result<Vec<f64>, String> {
    pump(async {
        let mut sides = [Side::connect(ours.0, ours.1).await?, Side::connect(theirs.0, theirs.1).await?];
        for side in &mut sides {
            side.turn(WARM_UP).await?;
        }
        let mut ratios = Vec::with_capacity(turns);
        for turn in 0..turns {
            let mut rates = [0.0; 2];
            // Who begins changes: what drifts one way within a turn favours nobody.
            for one in if turn % 2 == 0 { [0, 1] } else { [1, 0] } {
                let (requests, took) = sides[one].turn(length).await?;
                rates[one] = requests / took.as_secs_f64();
            }
            ratios.push(rates[0] / rates[1]);
        }
        Ok(ratios)
    })
}

/// Runs on a thread of its own, on processor 1.
fn pump<T: Send>(work: impl Future<Output = Result<T, String>> + Send) -> Result<T, String> {
    let pumped = std::thread::scope(|scope| {
        let pumping = scope.spawn(|| -> Result<T, String> {
            let mut one = nix::sched::CpuSet::new();
            let pinned = one.set(1).and_then(|()| nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &one));
            pinned.map_err(|error| format!("two processors are needed: {error}"))?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| error.to_string())?.block_on(work)
        });
        pumping.join().map_err(|_| "the pump broke".to_string())
    });
    pumped?
}

/// The connections to one server.
struct Side {
    load: Arc<Load>,
    numbers: Arc<Numbers>,
    connections: Vec<Connection>,
}

impl Side {
    async fn connect(load: &Load, numbers: std::ops::Range<usize>) -> Result<Self, String> {
        let mut connections = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(&load.authority).await;
            let stream = stream.map_err(|error| format!("{}: {error}", load.authority))?;
            let _ = stream.set_nodelay(true);
            connections.push(Connection { stream, buffer: vec![0; 64 * 1024] });
        }
        Ok(Self { load: Arc::new(load.clone()), numbers: Numbers::of(numbers), connections })
    }

    /// Asks on all connections until the time is over, and waits for what is under way then. How many were answered, and
    /// how long that took.
    async fn turn(&mut self, length: Duration) -> Result<(f64, Duration), String> {
        let began = Instant::now();
        let asked = self.connections.drain(..).map(|mut connection| {
            let (load, numbers) = (Arc::clone(&self.load), Arc::clone(&self.numbers));
            tokio::spawn(async move {
                let answered = connection.ask(&load, &numbers, began + length).await?;
                Ok::<_, String>((connection, answered))
            })
        });
        let mut all = 0;
        let mut connections = Vec::with_capacity(CONNECTIONS);
        for one in asked.collect::<Vec<_>>() {
            let done = one.await.map_err(|error| error.to_string())?;
            let (connection, answered) =
                done.map_err(|fault| format!("{}{}: {fault}", self.load.authority, self.load.target))?;
            connections.push(connection);
            all += answered;
        }
        self.connections = connections;
        match all {
            0 => Err(format!("{}{}: no answer in {length:?}", self.load.authority, self.load.target)),
            _ => Ok((all as f64, began.elapsed())),
        }
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn ask(&mut self, load: &Load, numbers: &Numbers, until: Instant) -> Result<usize, String> {
        let plain = load.request(None);
        let mut answered = 0;
        while Instant::now() < until {
            let sent = match load.numbered {
                true => {
                    let number = numbers.next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        break;
                    }
                    self.stream.write_all(load.request(Some(number)).as_bytes()).await
                }
                false => self.stream.write_all(plain.as_bytes()).await,
            };
            sent.map_err(|error| error.to_string())?;
            read_answer(&mut self.stream, &mut self.buffer).await?;
            answered += 1;
        }
        Ok(answered)
    }
}

/// Reads one answer to its end, and nothing that follows: nothing was asked for yet.
async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<(), String> {
    let mut held = 0;
    let mut rest: Option<Rest> = None;
    loop {
        if held == buffer.len() {
            buffer.resize(held * 2, 0);
        }
        let read = stream.read(&mut buffer[held..]).await.map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("the connection ended within an answer".into());
        }
        held += read;
        if rest.is_none() {
            let head = &buffer[..held];
            let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            rest = Some(Rest::of(&head[..end], end + 4)?);
        }
        if rest.as_mut().is_some_and(|rest| rest.is_over(&buffer[..held])) {
            return Ok(());
        }
    }
}

/// Where an answer ends.
enum Rest {
    At(usize),
    /// In chunks, of which the next begins here.
    Chunked(usize),
}

impl Rest {
    fn of(head: &[u8], body: usize) -> Result<Self, String> {
        let head = std::str::from_utf8(head).map_err(|error| error.to_string())?;
        let status = head.get(9..12).unwrap_or_default();
        if status == "304" || status == "204" {
            return Ok(Self::At(body));
        }
        if !status.starts_with('2') {
            return Err(head.into());
        }
        let of = |name: &str| {
            head.lines().find_map(|line| {
                let (field, value) = line.split_once(':')?;
                field.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        match of("content-length").and_then(|length| length.parse::<usize>().ok()) {
            Some(length) => Ok(Self::At(body + length)),
            None if of("transfer-encoding").is_some() => Ok(Self::Chunked(body)),
            None => Err(format!("an answer without length: {head}")),
        }
    }

    fn is_over(&mut self, held: &[u8]) -> bool {
        match self {
            Self::At(end) => held.len() >= *end,
            Self::Chunked(at) => loop {
                let rest = held.get(*at..).unwrap_or_default();
                let Some(line) = rest.windows(2).position(|two| two == b"\r\n") else { return false };
                let size =
                    std::str::from_utf8(&rest[..line]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
                let next = *at + line + 2 + size.unwrap_or(0) + 2;
                if size.unwrap_or(0) == 0 {
                    return held.len() >= next;
                }
                *at = next;
            },
        }
    }
}

/// Processor time a process and its threads have had, in nanoseconds; 0 where the system does not say.
pub fn cpu_ns(process: u32) -> u64 {
    let threads = std::fs::read_dir(Path::new("/proc").join(process.to_string()).join("task"));
    let of_thread = |thread: std::fs::DirEntry| {
        let said = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        said.split(' ').next()?.parse::<u64>().ok()
    };
    threads.map_or(0, |threads| threads.flatten().filter_map(of_thread).sum())
}

/// Waits until a process has done what it does behind its answers.
pub fn await_calm(process: u32) {
    const LOOK: Duration = Duration::from_millis(20);
    for _ in 0..100 {
        let before = cpu_ns(process);
        std::thread::sleep(LOOK);
        if u128::from(cpu_ns(process).saturating_sub(before)) * 20 < LOOK.as_nanos() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_head_says() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        let mut rest = Rest::of(&whole[..34], 38).unwrap();
        assert!(!rest.is_over(&whole[..40]) && rest.is_over(whole));
        let mut rest = Rest::of(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3", 10).unwrap();
        assert!(rest.is_over(&[0; 10]));
        assert!(Rest::of(b"HTTP/1.1 500 No\r\nContent-Length: 3", 10).is_err());
        let chunks = b"4\r\n0\r\n\r\r\n1\r\nx\r\n0\r\n\r\n";
        for end in 0..chunks.len() {
            assert!(!Rest::Chunked(0).is_over(&chunks[..end]), "{end}");
        }
        assert!(Rest::Chunked(0).is_over(chunks));
    }
}
