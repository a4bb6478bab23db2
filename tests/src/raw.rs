//! An origin below HTTP: it sends the very bytes it is told, waits where it is told, and hangs up when it is told.
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Longer than any connection stays open whose end is waited for.
const OPEN_MAX: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
pub enum Act {
    Send(Vec<u8>),
    /// Until [`Raw::go_on`].
    Wait,
    /// Ends the connection in the middle of whatever was sent.
    HangUp,
}

/// The head of an answer, and what follows.
pub fn head(text: &str) -> Act {
    Act::Send(format!("{}\r\n\r\n", text.replace('\n', "\r\n")).into_bytes())
}

pub fn body(text: &str) -> Act {
    Act::Send(text.as_bytes().to_vec())
}

type Scripts = Arc<Mutex<HashMap<String, Vec<Act>>>>;

pub struct Raw {
    pub port: u16,
    scripts: Scripts,
    asked: Arc<Mutex<Vec<String>>>,
    go: Arc<watch::Sender<bool>>,
    task: tokio::task::JoinHandle<()>,
}

impl Raw {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("cannot listen");
        let port = listener.local_addr().expect("no address").port();
        let (scripts, asked) = (Scripts::default(), Arc::<Mutex<Vec<String>>>::default());
        let go = Arc::new(watch::channel(false).0);
        let (scripts_, asked_, go_) = (Arc::clone(&scripts), Arc::clone(&asked), Arc::clone(&go));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&scripts_), Arc::clone(&asked_), go_.subscribe()));
            }
        });
        Self { port, scripts, asked, go, task }
    }

    /// From now on, `path` is answered so, on a connection that then ends.
    pub fn script(&self, path: &str, acts: Vec<Act>) {
        self.scripts.lock().expect("poisoned").insert(path.into(), acts);
    }

    pub fn go_on(&self, go: bool) {
        self.go.send_replace(go);
    }

    pub fn count(&self, path: &str) -> usize {
        self.asked.lock().expect("poisoned").iter().filter(|asked| *asked == path).count()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends a request as it is given, with a pause after each piece, and reads until the connection ends. Dropped before,
/// it resets the connection: the server notices a client that leaves.
pub async fn ask(url: &str, pieces: &[&str], pause: Duration) -> String {
    let mut stream = connect(url).await;
    for piece in pieces {
        // Refused before all is sent: the answer says why.
        let _ = stream.write_all(piece.as_bytes()).await;
        tokio::time::sleep(pause).await;
    }
    String::from_utf8_lossy(&rest(&mut stream).await).into_owned()
}

/// Sends a request as it is given, counting the bytes, and reads whatever comes. Dropped, it resets the connection.
pub async fn ask_counting(url: &str, text: &str, sent: &AtomicU64) {
    let mut stream = connect(url).await;
    for piece in text.as_bytes().chunks(64 * 1024) {
        if stream.write_all(piece).await.is_err() {
            break;
        }
        sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    rest(&mut stream).await;
}

/// Sends a request's beginning and then a byte after each pause; the connection stays open until it is dropped.
pub async fn send_slowly(url: &str, head: &str, bytes: usize, pause: Duration) -> TcpStream {
    let mut stream = connect(url).await;
    stream.set_nodelay(true).expect("cannot send at once");
    stream.write_all(head.as_bytes()).await.expect("cannot send");
    for _ in 0..bytes {
        tokio::time::sleep(pause).await;
        stream.write_all(b"x").await.expect("cannot send");
    }
    stream
}

/// Bytes that were sent to a loopback port and that its process has not read yet: they lie with one of the two sockets.
#[cfg(target_os = "linux")]
pub fn unread(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("no table of connections");
    let port = format!(":{port:04X}");
    let of = |line: &str| {
        let mut columns = line.split_whitespace().skip(1);
        let (own, other, queues) = (columns.next()?, columns.next()?, columns.nth(1)?);
        let (to_send, to_read) = queues.split_once(':')?;
        let queue = match (own.ends_with(&port), other.ends_with(&port)) {
            (true, _) => to_read,
            (_, true) => to_send,
            _ => return None,
        };
        u64::from_str_radix(queue, 16).ok()
    };
    table.lines().skip(1).filter_map(of).sum()
}

/// Sends a part of a request, says that no more comes, and waits until the server has given it up.
pub async fn break_off(url: &str, part: &str) {
    let mut stream = connect(url).await;
    stream.write_all(part.as_bytes()).await.expect("cannot send");
    stream.shutdown().await.expect("cannot end");
    rest(&mut stream).await;
}

/// Everything that comes in answer to these bytes within `limit`, on a connection that the server may keep open for more.
pub async fn ask_within(url: &str, text: &str, limit: Duration) -> String {
    let mut stream = connect(url).await;
    let _ = stream.write_all(text.as_bytes()).await;
    let mut answer = Vec::new();
    let reading = async { while matches!(stream.read_buf(&mut answer).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(limit, reading).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Everything until the connection ends, however it does.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let ended = tokio::time::timeout(OPEN_MAX, stream.read_to_end(&mut all)).await.is_ok();
    assert!(ended, "still open after {OPEN_MAX:?}: {}", String::from_utf8_lossy(&all));
    all
}

async fn connect(url: &str) -> TcpStream {
    let authority = url.trim_start_matches("http://");
    let stream = TcpStream::connect(authority).await.expect("cannot connect");
    let _ = stream.set_zero_linger();
    stream
}

async fn serve(mut stream: TcpStream, scripts: Scripts, asked: Arc<Mutex<Vec<String>>>, mut go: watch::Receiver<bool>) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(read @ 1..) => request.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&request);
    let path = text.split(' ').nth(1).unwrap_or_default().to_string();
    asked.lock().expect("poisoned").push(path.clone());
    let acts = scripts.lock().expect("poisoned").get(&path).cloned().unwrap_or_default();
    for act in acts {
        let sent = match act {
            Act::Send(bytes) => stream.write_all(&bytes).await.and(stream.flush().await),
            Act::Wait => {
                let _ = go.wait_for(|go| *go).await;
                Ok(())
            }
            Act::HangUp => {
                // A reset, so that nobody can take it for a proper end.
                let _ = stream.set_zero_linger();
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}
