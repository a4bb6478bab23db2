//! What lies in KV, past any edge.
use reqwest::Client;
use std::path::Path;
use xtask::fleet::Fleet;

fn client(state: &Path) -> Client {
    Client::builder().unix_socket(state.join("kv.sock")).build().expect("no client")
}

/// The URL of a key.
fn at(key: &str) -> String {
    let escaped: String = key.bytes().map(|b| format!("%{b:02X}")).collect();
    format!("http://kv/{escaped}?urlencoded=true")
}

/// Every key there is.
pub async fn keys(fleet: &Fleet) -> Vec<String> {
    let answer = client(fleet.state()).get("http://kv/?key_count_limit=1000").send().await.expect("no answer of KV");
    let list: serde_json::Value = answer.json().await.expect("no list");
    assert_eq!(list["list_complete"], true, "more keys than are listed at once");
    let keys = list["keys"].as_array().into_iter().flatten();
    keys.filter_map(|key| key["name"].as_str().map(String::from)).collect()
}

/// What is stored under a key, if anything is.
pub async fn stored(fleet: &Fleet, key: &str) -> Option<Vec<u8>> {
    let answer = client(fleet.state()).get(at(key)).send().await.expect("no answer of KV");
    if !answer.status().is_success() {
        return None;
    }
    Some(answer.bytes().await.expect("no whole answer of KV").to_vec())
}

/// What is stored under the one key that ends so.
pub async fn ending_in(fleet: &Fleet, end: &str) -> Option<Vec<u8>> {
    let found: Vec<String> = keys(fleet).await.into_iter().filter(|key| key.ends_with(end)).collect();
    assert!(found.len() < 2, "stored once: {found:?}");
    stored(fleet, found.first()?).await
}

/// Waits until pages of these paths are stored: they are written behind the answers.
pub async fn await_pages(fleet: &Fleet, paths: &[&str]) {
    crate::eventually("the pages in KV", || async {
        let keys = keys(fleet).await;
        paths.iter().all(|path| keys.iter().any(|key| key.ends_with(&format!(" {path}")))).then_some(())
    })
    .await;
}

pub async fn store(fleet: &Fleet, key: &str, bytes: Vec<u8>) {
    let answer = client(fleet.state()).put(at(key)).body(bytes).send().await.expect("no answer of KV");
    assert!(answer.status().is_success(), "{answer:?}");
}
