//! What the end-to-end tests stand on: real origins and edges in folders of their own, an upstream that does what it
//! is told, and gates that hold or cut connections between them.
#![forbid(unsafe_code)]

pub mod gate;
pub mod http;
pub mod stack;
pub mod upstream;

/// A port nobody has right now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("no free port");
    listener.local_addr().expect("no address").port()
}

/// Asks again and again until the answer is what is waited for, or fails after `limit`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let limit = std::time::Duration::from_secs(15);
    let began = std::time::Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
