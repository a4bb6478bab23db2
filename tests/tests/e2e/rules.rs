//! RFC 9110 and 9111 over real processes: ranges, invalidation everywhere, coalescing of expired and purged keys.
use e2e::http::{Got, ask, get, send};
use e2e::stack::{LEASE_OVER, Proxy};
use reqwest::Method;

const FRESH: (&str, &str) = ("cache-control", "max-age=600");

async fn range(proxy: &Proxy, path: &str, range: &str) -> Got {
    send(ask(Method::GET, proxy.url(path)).header("range", range)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_cut_from_what_is_stored() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/digits", &[FRESH, ("etag", "\"a\"")], "0123456789");
    proxy.get("/digits").await;
    let got = range(&proxy, "/digits", "bytes=2-4").await;
    assert_eq!((got.status, got.body.as_str()), (206, "234"));
    assert_eq!((got.header("content-range"), got.header("content-length")), (Some("bytes 2-4/10"), Some("3")));
    assert!(got.is_hit() && got.header("etag") == Some("\"a\""), "{got:?}");
    let none = range(&proxy, "/digits", "bytes=10-").await;
    assert_eq!((none.status, none.header("content-range")), (416, Some("bytes */10")));
    assert_eq!(range(&proxy, "/digits", "bytes=0-1,3-4").await.body, "0123456789");
    assert_eq!(proxy.upstream.count("/digits"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beginning_that_was_asked_for_is_made_whole_with_the_rest() {
    let proxy = Proxy::start().await;
    let part = |range| [FRESH, ("etag", "\"a\""), ("content-range", range), ("content-type", "text/plain")];
    proxy.upstream.script("/long", 206, &part("bytes 0-4/10"), "01234");
    assert_eq!(range(&proxy, "/long", "bytes=0-4").await.body, "01234");
    proxy.upstream.script("/long", 206, &part("bytes 5-9/10"), "56789");
    tokio::time::sleep(LEASE_OVER).await;
    let whole = proxy.get("/long").await;
    assert_eq!((whole.status, whole.body.as_str()), (200, "0123456789"), "{whole:?}");
    let asked = proxy.upstream.last();
    assert_eq!((asked.headers["range"].as_str(), asked.headers["if-range"].as_str()), ("bytes=5-", "\"a\""));
    assert!(proxy.get("/long").await.is_hit());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_makes_its_urls_invalid_at_every_location() {
    let proxy = Proxy::with_edges(2).await;
    for path in ["/list", "/item", "/new", "/other"] {
        proxy.upstream.answer(path, &[FRESH], "old");
        for edge in 0..2 {
            get(format!("{}{path}", proxy.fleet.url(edge))).await;
        }
    }
    let named = [("location", "/new"), ("content-location", "http://elsewhere.example/other")];
    proxy.upstream.script("/list", 201, &named, "made");
    send(ask(Method::POST, proxy.url("/list")).body("x")).await;
    for path in ["/list", "/item", "/new", "/other"] {
        proxy.upstream.answer(path, &[FRESH], "new");
    }
    assert_eq!(proxy.get("/new").await.body, "new", "known to the writer's location at once");
    tokio::time::sleep(LEASE_OVER).await;
    for (path, body) in [("/list", "new"), ("/new", "new"), ("/item", "old"), ("/other", "old")] {
        assert_eq!(get(format!("{}{path}", proxy.fleet.url(1))).await.body, body, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_makes_nothing_invalid() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[FRESH], "1");
    proxy.get("/a").await;
    for status in [400, 404, 500, 503] {
        proxy.upstream.script("/a", status, &[], "no");
        send(ask(Method::PUT, proxy.url("/a")).body("x")).await;
        assert!(proxy.get("/a").await.is_hit(), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_under_way_across_a_write_does_not_bring_the_old_answer_back() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/doc", &[FRESH], "old");
    proxy.upstream.hold(true);
    let filling = tokio::spawn(get(proxy.url("/doc")));
    e2e::eventually("the fill reaches origin", || async { (proxy.upstream.count("/doc") == 1).then_some(()) }).await;
    proxy.upstream.answer("/doc", &[FRESH], "new");
    let writing = tokio::spawn(send(ask(Method::PUT, proxy.url("/doc")).body("x")));
    e2e::eventually("the write reaches origin", || async { (proxy.upstream.count("/doc") == 2).then_some(()) }).await;
    proxy.upstream.hold(false);
    filling.await.unwrap();
    writing.await.unwrap();
    assert_eq!(proxy.get("/doc").await.body, "new");
    assert_eq!(proxy.get("/doc").await.body, "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_a_post_is_used_for_gets_if_it_says_that_it_may() {
    let proxy = Proxy::start().await;
    // With the journal's first purge numbers leap, and nobody knows whether others lie in between.
    proxy.upstream.answer("/first", &[], "result");
    send(ask(Method::POST, proxy.url("/first")).body("x")).await;
    proxy.upstream.answer("/form", &[FRESH, ("content-location", "/form")], "result");
    let written = send(ask(Method::POST, proxy.url("/form")).body("x")).await;
    assert!(written.cache().contains("; stored"), "{written:?}");
    let got = proxy.get("/form").await;
    assert!(got.is_hit() && got.body == "result", "{got:?}");
    assert_eq!(proxy.upstream.count("/form"), 1, "asked for by the POST alone");
    for fields in [&[FRESH][..], &[FRESH, ("content-location", "/other")], &[("content-location", "/none")]] {
        proxy.upstream.answer("/none", fields, "result");
        send(ask(Method::POST, proxy.url("/none")).body("x")).await;
        tokio::time::sleep(LEASE_OVER).await;
        assert!(!proxy.get("/none").await.is_hit(), "{fields:?}");
        proxy.purged(r#"{"all":true}"#).await;
    }
}

/// Five hundred at once; how often origin was asked for it.
async fn rush(proxy: &Proxy, path: &'static str, body: &'static str) -> usize {
    let before = proxy.upstream.count(path);
    proxy.upstream.hold(true);
    let asking: Vec<_> = (0..500).map(|_| tokio::spawn(get(proxy.url(path)))).collect();
    e2e::eventually("origin is asked", || async { (proxy.upstream.count(path) > before).then_some(()) }).await;
    tokio::time::sleep(LEASE_OVER).await;
    proxy.upstream.hold(false);
    for answer in asking {
        let got = answer.await.unwrap();
        assert_eq!(got.body, body, "{got:?}");
    }
    proxy.upstream.count(path) - before
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_requests_for_an_expired_or_purged_key_cause_one_origin_request() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/expired", &[("cache-control", "max-age=1")], "v1");
    proxy.upstream.answer("/soft", &[FRESH, ("surrogate-key", "k")], "v1");
    proxy.upstream.answer("/hard", &[FRESH, ("surrogate-key", "k")], "v1");
    for path in ["/expired", "/soft", "/hard"] {
        proxy.get(path).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    proxy.upstream.answer("/expired", &[FRESH], "v2");
    assert_eq!(rush(&proxy, "/expired", "v2").await, 1, "expired");
    proxy.upstream.answer("/soft", &[FRESH, ("surrogate-key", "k")], "v2");
    proxy.purged(r#"{"keys":["k"],"mode":"soft"}"#).await;
    assert_eq!(rush(&proxy, "/soft", "v2").await, 1, "softly purged");
    proxy.upstream.answer("/hard", &[FRESH, ("surrogate-key", "k")], "v2");
    proxy.purged(r#"{"keys":["k"],"mode":"hard"}"#).await;
    assert_eq!(rush(&proxy, "/hard", "v2").await, 1, "hard purged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_no_one_defined_is_a_failure_of_origin() {
    let raw = e2e::raw::Raw::start().await;
    let proxy = Proxy::before_port(raw.port).await;
    raw.script("/odd", vec![e2e::raw::head("HTTP/1.1 999 What\ncontent-length: 0")]);
    let got = proxy.get("/odd").await;
    assert_eq!((got.status, got.problem().as_str()), (502, "origin-unreachable"));
}
