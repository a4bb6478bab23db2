//! A gate on the way between two processes: it lets through, holds answers back, breaks them off, spoils them, or cuts
//! every connection.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Open,
    /// Requests pass, answers wait.
    Hold,
    /// Connections end, and new ones are closed at once.
    Cut,
    /// So many bytes of each answer pass, then no more come.
    StallAfter(usize),
    /// So many bytes of each answer pass, then its connection ends.
    CutAfter(usize),
    /// So many bytes of each answer pass, then one at a time, for as long as there are any: never quiet, never done.
    TrickleAfter(usize),
    /// Answers are no HTTP any more.
    Garble,
}

/// From one byte to the next of what trickles.
const TRICKLE: Duration = Duration::from_millis(20);

pub struct Gate {
    address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    /// Each part of an answer is late by up to so much, at random.
    delay_ms_max: Arc<AtomicU64>,
    /// Pieces of requests that were let through: at least one for each request.
    asked: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Gate {
    /// A gate in front of a loopback port.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("cannot listen");
        let address = listener.local_addr().expect("no address");
        let (mode, _) = watch::channel(Mode::Open);
        let mode = Arc::new(mode);
        let sender = Arc::clone(&mode);
        let delay_ms_max = Arc::new(AtomicU64::new(0));
        let delay = Arc::clone(&delay_ms_max);
        let asked = Arc::new(AtomicU64::new(0));
        let asked_ = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mode = sender.subscribe();
                let is_cut = *mode.borrow() == Mode::Cut;
                if is_cut {
                    // It was tried, and is counted: who is left alone is not even tried.
                    asked_.fetch_add(1, Ordering::Relaxed);
                } else {
                    tokio::spawn(carry(client, port, mode, Arc::clone(&delay), Arc::clone(&asked_)));
                }
            }
        });
        Self { address, mode, delay_ms_max, asked, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set_delay_ms_max(&self, ms: u64) {
        self.delay_ms_max.store(ms, Ordering::Relaxed);
    }

    /// How much was asked so far: it stands still while nobody asks.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
        self.mode.send_replace(Mode::Cut);
    }
}

async fn carry(
    client: TcpStream,
    port: u16,
    mode: watch::Receiver<Mode>,
    delay_ms_max: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut answers = mode.clone();
    let mut cut = mode;
    // Bytes of the answer to what was asked last.
    let answered = AtomicUsize::new(0);
    let requests = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            asked.fetch_add(1, Ordering::Relaxed);
            answered.store(0, Ordering::Relaxed);
            if to_server.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
        let _ = to_server.shutdown().await;
        std::future::pending::<()>().await;
    };
    let answers = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            let delay_ms = delay_ms_max.load(Ordering::Relaxed);
            if delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=delay_ms))).await;
            }
            if answers.wait_for(|mode| *mode != Mode::Hold).await.is_err() {
                return;
            }
            let now = *answers.borrow();
            let before = answered.fetch_add(read, Ordering::Relaxed);
            let passed = match now {
                Mode::StallAfter(bytes) | Mode::CutAfter(bytes) | Mode::TrickleAfter(bytes) => {
                    read.min(bytes.saturating_sub(before))
                }
                _ => read,
            };
            if now == Mode::Garble {
                buffer[..read].iter_mut().for_each(|byte| *byte ^= 0x55);
            }
            if to_client.write_all(&buffer[..passed]).await.is_err() {
                return;
            }
            match now {
                Mode::TrickleAfter(_) => {
                    for (at, byte) in buffer[passed..read].iter().enumerate() {
                        tokio::time::sleep(TRICKLE).await;
                        let is_over = *answers.borrow() != now;
                        let next = if is_over { &buffer[passed + at..read] } else { std::slice::from_ref(byte) };
                        if to_client.write_all(next).await.is_err() {
                            return;
                        }
                        if is_over {
                            break;
                        }
                    }
                }
                Mode::CutAfter(_) if passed < read => return,
                Mode::StallAfter(_) if passed < read => {
                    let _ = answers.wait_for(|mode| *mode != now).await;
                    return;
                }
                _ => {}
            }
        }
    };
    tokio::select! {
        () = requests => {}
        () = answers => {}
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}
