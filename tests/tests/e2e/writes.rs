//! Writes through an edge that numbers its purges: what becomes of the purge if nobody is left to send it.
use crate::journal::{now_ms, storage};
use e2e::http::{ask, get, send};
use e2e::stack::{Proxy, ProxyShape};
use reqwest::Method;
use sqlx::Connection;
use std::time::Duration;

const FRESH: (&str, &str) = ("cache-control", "max-age=3600");
/// What origin has for an answer; five seconds more, and the journal takes a write of which it heard nothing for done.
const TIMEOUT: [(&str, &str); 1] = [("ORIGIN_TIMEOUT_MS", "1000")];
const OVERDUE: Duration = Duration::from_secs(6);

/// A page that both locations hold.
async fn with_a_page(vars: &[(&str, &str)]) -> Proxy {
    let proxy = Proxy::of(ProxyShape { isolates: &[1, 1], vars, ..ProxyShape::default() }).await;
    proxy.upstream.answer("/a", &[FRESH], "old");
    for location in 0..2 {
        let page = proxy.fleet.url(location) + "/a";
        e2e::eventually("the page is held", || async { get(page.clone()).await.is_hit().then_some(()) }).await;
    }
    proxy
}

async fn purges(proxy: &Proxy, location: usize) -> u64 {
    let health = get(proxy.fleet.url(location) + "/__edge/health").await.json();
    health["purge_view"]["applied_seq"].as_u64().expect("no view")
}

async fn eventually_new(page: &str) {
    e2e::eventually("the new page", || async { (get(page).await.body == "new").then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_edge_dies_before_the_purge_is_purged_all_the_same() {
    let mut proxy = with_a_page(&TIMEOUT).await;
    let before = proxy.upstream.count("/a");
    proxy.upstream.hold(true);
    let page = proxy.url("/a");
    let writing = tokio::spawn(async move { ask(Method::POST, page).body("x").send().await });
    e2e::eventually("origin has it", || async { (proxy.upstream.count("/a") > before).then_some(()) }).await;
    proxy.fleet.kill_edge(0);
    assert!(writing.await.expect("it panicked").is_err(), "the writer was answered");
    proxy.upstream.answer("/a", &[FRESH], "new");
    proxy.upstream.hold(false);
    let other = proxy.fleet.url(1) + "/a";
    assert_eq!(get(&other).await.body, "old", "nobody has said anything yet");
    eventually_new(&other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_origin_does_after_the_edge_has_given_it_up_is_purged_once_more() {
    let proxy = with_a_page(&TIMEOUT).await;
    proxy.upstream.hold(true);
    let got = send(ask(Method::PUT, proxy.url("/a")).body("x")).await;
    assert_eq!(got.status, 504, "{got:?}");
    proxy.upstream.hold(false);
    let other = proxy.fleet.url(1) + "/a";
    let asked = proxy.upstream.count("/a");
    e2e::eventually("it was purged at once", || async {
        get(&other).await;
        (proxy.upstream.count("/a") > asked).then_some(())
    })
    .await;
    let got = get(&other).await;
    assert!(got.is_hit() && got.body == "old", "read anew before origin did the write: {got:?}");
    proxy.upstream.answer("/a", &[FRESH], "new");
    eventually_new(&other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_has_ended_is_purged_once_and_one_that_was_refused_not_at_all() {
    let proxy = with_a_page(&TIMEOUT).await;
    let before = purges(&proxy, 0).await;
    assert_eq!(send(ask(Method::PUT, proxy.url("/a")).body("x")).await.status, 200);
    let purged =
        e2e::eventually("it is purged", || async { Some(purges(&proxy, 0).await).filter(|purged| *purged > before) })
            .await;
    proxy.upstream.script("/b", 403, &[], "no");
    assert_eq!(send(ask(Method::PUT, proxy.url("/b")).body("x")).await.status, 403);
    tokio::time::sleep(OVERDUE + Duration::from_secs(1)).await;
    get(proxy.url("/a")).await;
    tokio::time::sleep(e2e::stack::LEASE_OVER).await;
    get(proxy.url("/a")).await;
    assert_eq!(purges(&proxy, 0).await, purged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_slow_to_send_does_not_have_its_write_purged_before_it_is_done() {
    let mut proxy = with_a_page(&TIMEOUT).await;
    let url = proxy.fleet.url(0);
    let before = purges(&proxy, 0).await;
    let head = "POST /a HTTP/1.1\r\nhost: edge\r\nconnection: close\r\ncontent-length: 10\r\n\r\n".to_string();
    let writing = tokio::spawn(async move {
        let pieces: Vec<&str> = std::iter::once(head.as_str()).chain(["x"; 9]).collect();
        e2e::raw::ask(&url, &pieces, Duration::from_secs(1)).await
    });
    tokio::time::sleep(OVERDUE + Duration::from_secs(2)).await;
    get(proxy.url("/b")).await;
    tokio::time::sleep(e2e::stack::LEASE_OVER).await;
    get(proxy.url("/b")).await;
    assert_eq!(purges(&proxy, 0).await, before, "it is under way still");
    proxy.fleet.kill_edge(0);
    let _ = writing.await;
    proxy.upstream.answer("/a", &[FRESH], "new");
    eventually_new(&(proxy.fleet.url(1) + "/a")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_while_the_journal_is_away_for_long_is_purged_when_it_is_back() {
    let mut proxy = with_a_page(&TIMEOUT).await;
    proxy.fleet.kill_global();
    assert_eq!(send(ask(Method::PUT, proxy.url("/a")).body("x")).await.status, 200);
    assert_eq!(proxy.metric("edge_purges_owed").await, 1);
    // Longer than it is tried again behind the answer: 15 s, and each attempt takes its time.
    tokio::time::sleep(Duration::from_secs(24)).await;
    proxy.fleet.start_global().expect("no journal");
    let other = proxy.fleet.url(1) + "/a";
    e2e::eventually("the view is current", || async { get(&other).await.is_hit().then_some(()) }).await;
    proxy.upstream.answer("/a", &[FRESH], "new");
    // The isolate that owes it asks the journal with its next request.
    e2e::eventually("the new page", || async {
        get(proxy.url("/b")).await;
        (get(&other).await.body == "new").then_some(())
    })
    .await;
    assert_eq!(proxy.metric("edge_purges_owed").await, 0);
}

/// As a release leaves it that is rolled back, if it knew of more than keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_noted_in_a_form_the_journal_does_not_know_purges_everything_when_it_is_due_and_stops_nothing_until_then()
 {
    let mut proxy = with_a_page(&TIMEOUT).await;
    proxy.fleet.kill_global();
    let mut storage = storage(proxy.fleet.state()).await;
    let note = r#"{"keys":["url:/b"],"prefixes":["/"],"mode":"hard"}"#;
    let insert = sqlx::query("INSERT INTO announced (id, due_ms, purge) VALUES (7, ?, ?)");
    insert.bind(now_ms() as i64 + 6_000).bind(note.as_bytes()).execute(&mut storage).await.unwrap();
    storage.close().await.unwrap();
    proxy.fleet.start_global().expect("no journal");
    proxy.upstream.answer("/a", &[FRESH], "new");
    let page = proxy.url("/a");
    e2e::eventually("the view is current", || async { get(&page).await.is_hit().then_some(()) }).await;
    assert_eq!(get(&page).await.body, "old", "it is not due yet");
    let taken = proxy.purge(r#"{"keys":["of-nothing"]}"#).await;
    assert_eq!(taken.status, 200, "{taken:?}");
    // A page alone says little: whatever cannot be confirmed for a moment is asked for anew.
    let numbered = taken.json()["seq"].as_u64().expect("no number");
    e2e::eventually("everything is purged", || async {
        get(&page).await;
        (purges(&proxy, 0).await > numbered).then_some(())
    })
    .await;
    eventually_new(&page).await;
    proxy.fleet.kill_global();
    let mut storage = self::storage(proxy.fleet.state()).await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM announced").fetch_one(&mut storage).await.unwrap();
    let purges = "SELECT reason FROM purge WHERE whole = 1 AND mode = 'hard'";
    let reasons: Vec<String> = sqlx::query_scalar(purges).fetch_all(&mut storage).await.unwrap();
    assert_eq!((left, reasons.len()), (0, 1), "{reasons:?}");
    assert!(reasons[0].contains("cannot read"), "{reasons:?}");
}
