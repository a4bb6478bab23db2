//! What passes the edge on its way to origin and back: contents, fields, and writes with what they make invalid.
use e2e::stack::{LEASE_OVER, Proxy};
use std::time::Duration;

const FRESH: (&str, &str) = ("cache-control", "max-age=600");
const AT_ONCE: Duration = Duration::ZERO;

/// A request of these lines, on a connection that then ends.
fn lines(first: &str, fields: &str) -> String {
    format!("{first} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n{fields}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_leaves_does_not_keep_its_write_from_being_seen() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[FRESH], "old");
    proxy.get("/a").await;
    proxy.upstream.hold(true);
    let edge = proxy.fleet.url(0);
    let request = lines("PUT /a", "content-length: 1\r\n") + "x";
    let writing = tokio::spawn(async move { e2e::raw::ask(&edge, &[&request], AT_ONCE).await });
    e2e::eventually("the write reaches origin", || async { (proxy.upstream.count("/a") == 2).then_some(()) }).await;
    writing.abort();
    let _ = writing.await;
    tokio::time::sleep(LEASE_OVER).await;
    proxy.upstream.answer("/a", &[FRESH], "new");
    proxy.upstream.hold(false);
    e2e::eventually("what was written", || async { (proxy.get("/a").await.body == "new").then_some(()) }).await;
}
