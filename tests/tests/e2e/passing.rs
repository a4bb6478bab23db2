//! What passes the edge on its way to origin and back: contents, fields, and writes with what they make invalid.
use e2e::gate::Mode;
use e2e::http::{Got, ask, get, send};
use e2e::raw::{Raw, body, head};
use e2e::stack::{LEASE_OVER, Proxy, ProxyShape, Stack, edge_claims, sign};
use kv_schemas::claims::Scope;
use reqwest::Method;
use std::time::Duration;

const FRESH: (&str, &str) = ("cache-control", "max-age=600");
const AT_ONCE: Duration = Duration::ZERO;

/// A request of these lines, on a connection that then ends.
fn lines(first: &str, fields: &str) -> String {
    format!("{first} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n{fields}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_may_take_longer_than_origin_may_take_to_answer_it() {
    let proxy = Proxy::of(ProxyShape { vars: &[("BODY_TIMEOUT_MS", "1000")], ..ProxyShape::default() }).await;
    proxy.upstream.answer("/upload", &[], "taken");
    // Origin has five seconds to answer, and one more to end it; the upload alone takes seven.
    let pause = Duration::from_secs(1);
    let declared = lines("POST /upload?declared", "content-length: 7\r\n");
    let declared: Vec<&str> = [declared.as_str()].into_iter().chain(["a"; 7]).collect();
    let chunked = lines("POST /upload?chunked", "transfer-encoding: chunked\r\n");
    let chunked: Vec<&str> = [chunked.as_str()].into_iter().chain(["1\r\na\r\n"; 7]).chain(["0\r\n\r\n"]).collect();
    let edge = proxy.fleet.url(0);
    let answers = tokio::join!(e2e::raw::ask(&edge, &declared, pause), e2e::raw::ask(&edge, &chunked, pause));
    for answer in [answers.0, answers.1] {
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("taken"), "{answer}");
    }
    assert_eq!(proxy.upstream.count("/upload"), 2);
    assert_eq!(&proxy.upstream.last().body[..], b"aaaaaaa");
}

#[tokio::test(flavor = "multi_thread")]
async fn content_reaches_origin_byte_for_byte_whatever_it_is_said_to_be() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/upload", &[], "taken");
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    for coding in [None, Some("gzip"), Some("br")] {
        let request = ask(Method::PUT, proxy.url("/upload")).body(bytes.clone());
        let request = match coding {
            Some(coding) => request.header("content-encoding", coding),
            None => request,
        };
        assert_eq!(send(request).await.status, 200, "{coding:?}");
        let asked = proxy.upstream.last();
        assert_eq!(asked.headers.get("content-encoding").map(String::as_str), coding);
        assert_eq!(asked.headers.get("content-length").map(String::as_str), Some("3000000"), "{coding:?}");
        assert!(asked.body == bytes, "{coding:?}: other bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_wait_for_the_content_does_not_wait_at_the_edge() {
    let raw = Raw::start().await;
    let proxy = Proxy::before_port(raw.port).await;
    raw.script(
        "/full",
        vec![head("HTTP/1.1 507 Insufficient Storage\ncontent-length: 2"), body("no"), e2e::raw::Act::Wait],
    );
    let mut pieces = vec![lines("POST /full", "content-length: 100\r\n")];
    pieces.extend(["a".repeat(10), "a".repeat(10)]);
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let edge = proxy.fleet.url(0);
    let asking = e2e::raw::ask(&edge, &pieces, Duration::from_millis(100));
    let answer = tokio::time::timeout(Duration::from_secs(4), asking).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 507"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_got_no_answer_makes_its_url_invalid_all_the_same() {
    let proxy = Proxy::with_edges(2).await;
    for path in ["/slow", "/cut"] {
        proxy.upstream.answer(path, &[FRESH], "old");
        for edge in 0..2 {
            get(format!("{}{path}", proxy.fleet.url(edge))).await;
        }
    }
    for (path, status) in [("/slow", 504), ("/cut", 502)] {
        // Origin does what it is asked to, and nobody hears of it.
        let before = proxy.upstream.count(path);
        proxy.upstream.hold(true);
        let url = proxy.url(path);
        let writing = tokio::spawn(async move { send(ask(Method::PUT, url).body("x")).await });
        e2e::eventually("the write reaches origin", || async { (proxy.upstream.count(path) > before).then_some(()) })
            .await;
        proxy.upstream.answer(path, &[FRESH], "new");
        if path == "/cut" {
            proxy.gate.set(Mode::Cut);
        }
        assert_eq!(writing.await.unwrap().status, status, "{path}");
        proxy.gate.set(Mode::Open);
        proxy.upstream.hold(false);
        assert_eq!(proxy.get(path).await.body, "new", "{path}, where it was written");
        tokio::time::sleep(LEASE_OVER).await;
        assert_eq!(get(format!("{}{path}", proxy.fleet.url(1))).await.body, "new", "{path}, elsewhere");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_content_breaks_off_reaches_origin_as_such_and_makes_nothing_invalid() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[FRESH], "old");
    proxy.upstream.answer("/b", &[], "written");
    proxy.get("/a").await;
    let logged = || async {
        let summary = ask(Method::GET, proxy.url("/__edge/purges")).bearer_auth(&proxy.token);
        send(summary).await.json()["head"].as_u64().unwrap_or_default()
    };
    // A whole write numbers a purge: so would this one.
    send(ask(Method::PUT, proxy.url("/b")).body("x")).await;
    let before = logged().await;
    assert!(before > 0);
    for framing in ["content-length: 100\r\n", "transfer-encoding: chunked\r\n"] {
        let edge = proxy.fleet.url(0);
        let (head, piece) = (lines("PUT /a", framing), if framing.starts_with('c') { "x" } else { "1\r\nx\r\n" });
        let (begun, asked) = (proxy.gate.asked(), proxy.upstream.count("/a"));
        let writing = tokio::spawn(async move { e2e::raw::ask(&edge, &[&head, piece], AT_ONCE).await });
        e2e::eventually("the write is on its way", || async { (proxy.gate.asked() > begun).then_some(()) }).await;
        // The piece of its content follows.
        tokio::time::sleep(LEASE_OVER).await;
        assert_eq!(proxy.upstream.count("/a"), asked, "{framing}: origin took a part for all of it");
        writing.abort();
        let _ = writing.await;
        e2e::eventually("origin sees it break off", || async { (proxy.upstream.count("/a") > asked).then_some(()) })
            .await;
        // It would be purged by now.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(proxy.upstream.last().body.is_empty(), "{framing}: origin took a part for all of it");
        assert_eq!(logged().await, before, "{framing}");
        let got = proxy.get("/a").await;
        assert!(got.is_hit(), "{framing}: {got:?}");
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_write_while_the_journal_is_away_reaches_variants_parts_and_locations_when_it_is_back() {
    let mut proxy = Proxy::with_edges(2).await;
    let vary = [FRESH, ("vary", "accept-language")];
    let part = [FRESH, ("etag", "\"1\""), ("content-range", "bytes 0-2/9")];
    let in_language =
        |edge: String, language: &'static str| send(ask(Method::GET, edge + "/v").header("accept-language", language));
    let beginning = |edge: String| send(ask(Method::GET, edge + "/p").header("range", "bytes=0-2"));
    let edges = [proxy.fleet.url(0), proxy.fleet.url(1)];
    proxy.upstream.answer("/v", &vary, "old");
    proxy.upstream.script("/p", 206, &part, "old");
    for edge in &edges {
        for language in ["de", "en", "de", "en"] {
            in_language(edge.clone(), language).await;
        }
        beginning(edge.clone()).await;
    }
    tokio::time::sleep(LEASE_OVER).await;
    proxy.fleet.kill_global();
    proxy.upstream.answer("/v", &vary, "written");
    proxy.upstream.script("/p", 200, &[], "written");
    for path in ["/v", "/p"] {
        assert_eq!(send(ask(Method::PUT, proxy.url(path)).body("x")).await.status, 200);
    }
    proxy.upstream.answer("/v", &vary, "new");
    proxy.upstream.script("/p", 206, &part, "new");
    proxy.fleet.start_global().unwrap();
    assert_eq!(
        beginning(edges[0].clone()).await.body,
        "new",
        "forgotten where it was written, with or without journal"
    );
    for edge in &edges {
        for language in ["de", "en"] {
            e2e::eventually("the new variant", || async {
                (in_language(edge.clone(), language).await.body == "new").then_some(())
            })
            .await;
        }
        e2e::eventually("the new part", || async { (beginning(edge.clone()).await.body == "new").then_some(()) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_with_content_is_not_answered_from_the_cache_and_its_content_reaches_origin() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/search", &[FRESH], "all");
    proxy.get("/search").await;
    assert!(proxy.get("/search").await.is_hit());
    for query in ["one", "two"] {
        let got = send(ask(Method::GET, proxy.url("/search")).body(query)).await;
        assert!(got.status == 200 && !got.is_hit() && !got.cache().contains("; stored"), "{got:?}");
        let asked = proxy.upstream.last();
        assert_eq!((asked.method.as_str(), &asked.body[..]), ("GET", query.as_bytes()));
    }
    let none = send(ask(Method::GET, proxy.url("/search")).header("content-length", "0")).await;
    assert!(none.is_hit(), "a content of no bytes is none: {none:?}");
    // The platform drops the content of a GET whose length is not declared: the client is told.
    let chunked = lines("GET /search", "transfer-encoding: chunked\r\n") + "3\r\none\r\n0\r\n\r\n";
    let before = proxy.upstream.count("/search");
    let answer = e2e::raw::ask(&proxy.fleet.url(0), &[&chunked], AT_ONCE).await;
    assert!(answer.starts_with("HTTP/1.1 411") && answer.contains("problem:length-required"), "{answer}");
    assert_eq!(proxy.upstream.count("/search"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_of_one_connection_or_to_the_edge_alone_goes_no_further_towards_origin() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[FRESH], "a");
    let token = sign(&proxy.key, edge_claims(Scope::Debug, None), 60);
    let fields = format!(
        "connection: x-hop, keep-alive\r\nx-hop: 1\r\nx-end: 1\r\nproxy-authorization: Basic eA==\r\nte: trailers\r\nedge-debug: {token}\r\n"
    );
    for first in ["GET /a", "POST /a", "PUT /a"] {
        let answer = e2e::raw::ask(&proxy.fleet.url(0), &[&lines(first, &fields)], AT_ONCE).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let asked = proxy.upstream.last().headers;
        assert_eq!(asked.get("x-end").map(String::as_str), Some("1"), "{first}: {asked:?}");
        for name in ["x-hop", "proxy-authorization", "te", "keep-alive", "edge-debug"] {
            assert_eq!(asked.get(name), None, "{first}: {asked:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_of_one_connection_goes_no_further_towards_the_client() {
    let raw = Raw::start().await;
    let proxy = Proxy::before_port(raw.port).await;
    let answer = head(
        "HTTP/1.1 200 OK\nconnection: x-hop\nx-hop: 1\nproxy-authenticate: Basic\nx-end: 1\nx-end: 2\nset-cookie: a=1\nset-cookie: b=2\ncontent-length: 2",
    );
    raw.script("/a", vec![answer, body("ok")]);
    for method in [Method::GET, Method::POST] {
        let got = send(ask(method.clone(), proxy.url("/a"))).await;
        assert_eq!((got.status, got.body.as_str()), (200, "ok"));
        for name in ["x-hop", "proxy-authenticate"] {
            assert_eq!(got.header(name), None, "{method}: {got:?}");
        }
        let all = |name: &str| -> Vec<&str> {
            got.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
        };
        assert_eq!(all("set-cookie"), ["a=1", "b=2"], "{method}");
        assert_eq!(all("x-end").join(", "), "1, 2", "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_date_gets_the_time_it_came_at() {
    let raw = Raw::start().await;
    let proxy = Proxy::before_port(raw.port).await;
    raw.script("/a", vec![head("HTTP/1.1 200 OK\ncache-control: max-age=600\ncontent-length: 2"), body("ok")]);
    raw.script(
        "/dated",
        vec![head("HTTP/1.1 200 OK\ndate: Tue, 15 Nov 1994 08:12:31 GMT\ncontent-length: 2"), body("ok")],
    );
    let written = send(ask(Method::POST, proxy.url("/a"))).await;
    let miss = proxy.get("/a").await;
    let hit = e2e::eventually("a hit", || async { Some(proxy.get("/a").await).filter(Got::is_hit) }).await;
    for got in [&written, &miss, &hit] {
        let date = got.header("date").unwrap_or_else(|| panic!("no date: {got:?}"));
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    }
    assert_eq!(miss.header("date"), hit.header("date"), "when it came, not when it is shown");
    for method in [Method::GET, Method::POST] {
        let dated = send(ask(method, proxy.url("/dated"))).await;
        assert_eq!(dated.header("date"), Some("Tue, 15 Nov 1994 08:12:31 GMT"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_origin_took_is_said_where_it_was_asked_and_nowhere_else() {
    const HELD: Duration = Duration::from_millis(150);
    let proxy = Proxy::start().await;
    let own = ("server-timing", "db;dur=5");
    proxy.upstream.answer("/a", &[("cache-control", "max-age=600"), ("etag", "\"a\"")], "a");
    proxy.upstream.answer("/own", &[FRESH, own], "own");
    // Of fields that stand more than once, each.
    let timings = |got: &Got| -> Vec<String> {
        let all = got.headers.iter().filter(|(name, _)| name == "server-timing");
        all.flat_map(|(_, value)| value.split(", ").map(String::from).collect::<Vec<_>>()).collect()
    };
    let origin_ms = |got: &Got| -> u128 {
        let all = timings(got);
        let ms = all.iter().find_map(|one| one.strip_prefix("origin;dur="));
        ms.and_then(|ms| ms.parse().ok()).unwrap_or_else(|| panic!("no time: {got:?}"))
    };
    for method in [Method::GET, Method::POST] {
        let asked = proxy.upstream.count("/a");
        proxy.upstream.hold(true);
        let began = std::time::Instant::now();
        let asking = tokio::spawn(send(ask(method.clone(), proxy.url("/a"))));
        e2e::eventually("it is asked", || async { (proxy.upstream.count("/a") > asked).then_some(()) }).await;
        tokio::time::sleep(HELD).await;
        proxy.upstream.hold(false);
        let got = asking.await.unwrap();
        let (said_ms, at_most_ms) = (origin_ms(&got), began.elapsed().as_millis());
        // The clock of the platform has milliseconds.
        assert!((HELD.as_millis() - 2..=at_most_ms + 2).contains(&said_ms), "{method}: {said_ms} ms of {at_most_ms}");
        assert_eq!(timings(&got).len(), 1, "{method}: {got:?}");
    }
    // The POST has made its URL invalid.
    proxy.get("/a").await;
    let hit = e2e::eventually("a hit", || async { Some(proxy.get("/a").await).filter(Got::is_hit) }).await;
    assert_eq!(timings(&hit), [""; 0], "nobody was asked: {hit:?}");
    proxy.upstream.answer("/b", &[("cache-control", "max-age=0"), ("etag", "\"b\"")], "b");
    let confirmed = e2e::eventually("a confirmed copy", || async {
        Some(proxy.get("/b").await).filter(|got| got.cache().contains("revalidated"))
    })
    .await;
    assert_eq!(timings(&confirmed), [""; 0], "out of the cache: {confirmed:?}");
    // Origin's own is a field like any other.
    assert_eq!(timings(&proxy.get("/own").await)[0], own.1);
    let hit = e2e::eventually("a hit", || async { Some(proxy.get("/own").await).filter(Got::is_hit) }).await;
    assert_eq!(timings(&hit), [own.1], "{hit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn below_a_base_path_the_urls_a_write_names_are_those_clients_ask_for() {
    let proxy = Proxy::of(ProxyShape { base: "/base", ..ProxyShape::default() }).await;
    for path in ["/list", "/new", "/item", "/base/new", "/outside"] {
        proxy.upstream.answer(&format!("/base{path}"), &[FRESH], "old");
        assert_eq!(proxy.get(path).await.body, "old");
        assert!(proxy.get(path).await.is_hit());
    }
    let named = format!("{}/base/item#top", proxy.gate.url());
    proxy.upstream.script("/base/list", 201, &[("location", "/base/new"), ("content-location", &named)], "made");
    send(ask(Method::POST, proxy.url("/list")).body("x")).await;
    proxy.upstream.script("/base/list", 201, &[("location", "/outside")], "made");
    send(ask(Method::POST, proxy.url("/list")).body("x")).await;
    for (path, is_hit) in [("/list", false), ("/new", false), ("/item", false), ("/base/new", true), ("/outside", true)]
    {
        assert_eq!(proxy.get(path).await.is_hit(), is_hit, "{path}");
    }
    // Origin may know the site by the edge's name.
    let named = proxy.url("/new");
    proxy.get("/new").await;
    proxy.upstream.script("/base/list", 201, &[("location", &named)], "made");
    send(ask(Method::POST, proxy.url("/list")).body("x")).await;
    assert!(!proxy.get("/new").await.is_hit());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_client_asks_whether_to_send_its_content_has_origins_own_answer() {
    let expects = "expect: 100-continue\r\ncontent-type: application/json\r\n";
    let asking = async |edge: String, first: &str, content: &str, fields: &str| {
        let head = lines(first, &format!("{expects}{fields}content-length: {}\r\n", content.len()));
        // The content comes without word from the edge after a while, as RFC 9110 section 10.1.1 has it; and is too long to
        // reach origin with the head, so that origin would ask for it.
        e2e::raw::ask(&edge, &[&head, content], Duration::from_millis(300)).await
    };
    let last = |answer: &str| answer.replace("HTTP/1.1 100 Continue\r\n\r\n", "");
    let stack = Stack::start().await;
    let fields = format!("authorization: Bearer {}\r\nif-match: *\r\n", stack.admin_token);
    let path = "PATCH /admin/v1/titles/heat";
    let content = format!(r#"{{"name":"Heat II"{}}}"#, " ".repeat(200_000));
    let answer = last(&asking(stack.fleet.url(0), path, &content, &fields).await);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("Heat II"), "{answer}");
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[], "written");
    for first in ["POST /a", "PUT /a"] {
        let answer = last(&asking(proxy.fleet.url(0), first, &content, "").await);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("written"), "{first}: {answer}");
        let asked = proxy.upstream.last();
        assert!(asked.body == content.as_bytes(), "{first}: other bytes");
        assert_eq!(asked.headers.get("expect"), None, "{first}");
    }
}
