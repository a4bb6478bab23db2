//! Viewers who are logged in: accounts made and sessions begun before anything is counted, the way anybody does it. The
//! connections of a household share its session, and its tokens are refreshed in time.
use crate::http::{Got, ask, send_to};
use reqwest::Method;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::sync::watch;

/// An access token lives ten minutes.
const REFRESH_EACH: Duration = Duration::from_secs(480);
/// The address of the first one.
const HOMES: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PASSWORD: &str = "correct horse battery";
/// Log-ins under way at once: each costs a password hash.
const AT_ONCE: usize = 4;

/// A household's question: each has an address of its own, since what one address may register is limited.
async fn post(n: usize, url: &str, body: &Value) -> Option<Got> {
    let address = Ipv4Addr::from_bits(HOMES.to_bits().saturating_add(u32::try_from(n).unwrap_or_default()));
    let request = ask(Method::POST, url).header("cf-connecting-ip", address.to_string());
    send_to(request.header("content-type", "application/json").body(body.to_string())).await
}

fn tokens(got: &Got) -> Option<(String, String)> {
    let text = |name: &str| got.json()[name].as_str().map(String::from);
    Some((text("access_token")?, text("refresh_token")?))
}

async fn log_in(edge_url: &str, n: usize) -> Option<(String, String)> {
    let email = format!("household-{n}@example.org");
    let account = json!({"email": email, "password": PASSWORD, "name": "A household"});
    let registered = post(n, &format!("{edge_url}/auth/register"), &account).await?;
    if registered.status != 202 {
        return None;
    }
    let session = json!({"email": email, "password": PASSWORD, "device": "television"});
    tokens(&post(n, &format!("{edge_url}/auth/login"), &session).await?)
}

/// Logs in so many households. Each gets a place where its token of the moment stands, kept up to date as long as it is read.
pub async fn start(edge_url: &str, count: usize) -> Result<Vec<watch::Receiver<String>>, String> {
    let mut all = Vec::new();
    let mut left = 0..count;
    let mut running = tokio::task::JoinSet::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(n) = left.next()
        {
            let edge_url = edge_url.to_string();
            running.spawn(async move { (n, log_in(&edge_url, n).await) });
        }
        let Some(done) = running.join_next().await else { return Ok(all) };
        let (n, tokens) = done.map_err(|error| error.to_string())?;
        let (access, refresh) = tokens.ok_or_else(|| format!("household {n} could not log in"))?;
        let (teller, told) = watch::channel(access);
        tokio::spawn(keep(n, edge_url.to_string(), teller, refresh));
        all.push(told);
    }
}

async fn keep(n: usize, edge_url: String, teller: watch::Sender<String>, mut refresh: String) {
    loop {
        tokio::select! {
            () = teller.closed() => return,
            () = tokio::time::sleep(REFRESH_EACH) => {}
        }
        let body = json!({"refresh_token": refresh});
        let refreshed = post(n, &format!("{edge_url}/auth/refresh"), &body).await;
        // One that fails shows in the viewers' answers: 401.
        let Some((access, next)) = refreshed.as_ref().and_then(tokens) else { return };
        teller.send_replace(access);
        refresh = next;
    }
}
