//! What the end-to-end tests stand on: real origins and edges in folders of their own, an upstream that does what it
//! is told, and gates that hold or cut connections between them.
#![forbid(unsafe_code)]

pub mod api;
pub mod costs;
pub mod crowd;
pub mod gate;
pub mod hits;
pub mod hits_peers;
pub mod http;
pub mod isolation;
pub mod kv;
pub mod origin_load;
pub mod propagation;
pub mod pump;
pub mod races;
pub mod raw;
pub mod stack;
pub mod start;
pub mod statistics;
pub mod upstream;
pub mod wanted;
pub mod warmed;

/// A port nobody has right now.
pub fn free_port() -> u16 {
    xtask::process::free_port().unwrap_or_else(|error| panic!("{error}"))
}

/// Asks again and again until the answer is what is waited for, or fails after `limit`, be it in the middle of asking.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let limit = std::time::Duration::from_secs(15);
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| panic!("{what}: not within {limit:?}"))
}
