//! The short way for hits in memory: nothing may be answered on it in another way than by the whole gateway.
use e2e::http::{Got, ask, send, send_to};
use e2e::kv;
use e2e::stack::{Proxy, ProxyShape};
use flate2::Compression;
use flate2::write::GzEncoder;
use kv_schemas::entry::EntryHead;
use kv_schemas::store_key::kv_key;
use reqwest::Method;
use std::io::Write;
use std::time::Duration;

const FRESH: (&str, &str) = ("cache-control", "max-age=600");
/// Says nothing, as it is no date, and is guarded: the request goes the long way.
const LONG_WAY: (&str, &str) = ("if-modified-since", "never");

async fn get(proxy: &Proxy, method: &Method, path: &str, fields: &[(&str, &str)]) -> Got {
    let request = ask(method.clone(), proxy.url(path));
    send(fields.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

/// Asks until the short way is taken: past the lease of the view, which is short here, the long one is.
async fn takes_the_short_way(proxy: &Proxy, path: &str) -> u64 {
    e2e::eventually("the short way is taken", || async {
        let before = proxy.metric("edge_ready_hits_total").await;
        let got = proxy.get(path).await;
        assert!(got.is_hit(), "{got:?}");
        let after = proxy.metric("edge_ready_hits_total").await;
        (after > before).then_some(after)
    })
    .await
}

/// Both ways within one second of the answer's age and lifetime, the first of them the short one if there is one.
async fn both_ways(
    proxy: &Proxy,
    method: &Method,
    path: &str,
    fields: &[(&str, &str)],
    has_short_way: bool,
) -> (Got, Got) {
    let long: Vec<_> = fields.iter().copied().chain([LONG_WAY]).collect();
    let ask = async |fields: &[(&str, &str)]| {
        let mut got = get(proxy, method, path, fields).await;
        // How long origin took is another each time.
        got.headers.retain(|(name, _)| name != "server-timing");
        got
    };
    e2e::eventually(&format!("both ways of {method} {path} {fields:?}"), || async {
        let before = proxy.metric("edge_ready_hits_total").await;
        let short = ask(fields).await;
        let is_short = proxy.metric("edge_ready_hits_total").await > before;
        let (long, again) = (ask(&long).await, ask(fields).await);
        (short.headers == again.headers && (is_short || !has_short_way)).then_some((short, long))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_hit_is_field_by_field_what_the_whole_gateway_answers() {
    let proxy = Proxy::start().await;
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(b"packed and packed and packed").unwrap();
    let packed = packed.finish().unwrap();
    let etag = ("etag", "\"a\"");
    proxy.upstream.answer("/plain", &[FRESH, etag, ("content-type", "text/plain"), ("surrogate-key", "k")], "plain");
    proxy.upstream.answer("/untagged", &[FRESH, ("x-a", "1"), ("x-a", "2"), ("x-odd", "\"\\ \u{e9}")], "untagged");
    proxy.upstream.answer("/cdn", &[("cdn-cache-control", "max-age=60"), ("cache-control", "private"), etag], "cdn");
    proxy.upstream.answer("/empty", &[FRESH, etag], "");
    proxy.upstream.answer("/vary", &[FRESH, ("vary", "x-kind"), etag], "vary");
    proxy.upstream.answer("/vary-coding", &[FRESH, ("vary", "accept-encoding"), etag], "vary");
    proxy.upstream.answer("/no-cache", &[("cache-control", "no-cache"), etag], "no-cache");
    proxy.upstream.script("/nothing", 204, &[FRESH, etag], "");
    proxy.upstream.script("/lost", 404, &[FRESH, etag], "lost");
    proxy.upstream.script("/moved", 301, &[FRESH, ("location", "/plain")], "");
    proxy.upstream.bytes("/packed", 200, &[FRESH, etag, ("content-encoding", "gzip")], &packed);
    let requests: [&[(&str, &str)]; 17] = [
        &[],
        &[("accept-encoding", "gzip")],
        &[("accept-encoding", "")],
        &[("accept-encoding", "identity, gzip;q=0")],
        &[("if-none-match", "\"a\"")],
        &[("if-none-match", "W/\"a\", \"b\""), ("accept-encoding", "gzip")],
        &[("if-none-match", "\"b\"")],
        &[("if-none-match", "*")],
        &[("range", "bytes=1-2")],
        &[("range", "bytes=900-"), ("if-range", "\"a\"")],
        &[("authorization", "Bearer x")],
        &[("cookie", "a=b")],
        &[("cache-control", "max-age=100")],
        &[("x-kind", "1")],
        &[("connection", "x-kind"), ("x-kind", "1")],
        &[("if-match", "\"b\"")],
        &[("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")],
    ];
    let guarded = ["range", "authorization", "cache-control", "if-match"];
    for path in [
        "/plain",
        "/untagged",
        "/cdn",
        "/empty",
        "/vary",
        "/vary-coding",
        "/no-cache",
        "/nothing",
        "/lost",
        "/moved",
        "/packed",
    ] {
        for method in [Method::GET, Method::HEAD] {
            for fields in requests {
                for _ in 0..2 {
                    get(&proxy, &method, path, fields).await;
                }
                let has_short_way = method == Method::GET
                    && !["/vary", "/no-cache"].contains(&path)
                    && (path != "/packed" || fields.contains(&("accept-encoding", "gzip")))
                    && !fields.iter().any(|(name, _)| guarded.contains(name));
                let (short, long) = both_ways(&proxy, &method, path, fields, has_short_way).await;
                assert_eq!(short.status, long.status, "{method} {path} {fields:?}: {short:?} {long:?}");
                assert_eq!(short.headers, long.headers, "{method} {path} {fields:?}");
                assert_eq!(short.body, long.body, "{method} {path} {fields:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_plain_hit_goes_the_long_way() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[FRESH, ("etag", "\"a\"")], "one");
    proxy.get("/a").await;
    let before = takes_the_short_way(&proxy, "/a").await;
    for (name, value) in [
        ("range", "bytes=0-0"),
        ("authorization", "Bearer x"),
        ("cache-control", "no-cache"),
        ("pragma", "no-cache"),
        ("min-as-of", "log:1"),
        ("edge-debug", "x"),
        ("if-match", "*"),
        ("if-unmodified-since", "x"),
    ] {
        get(&proxy, &Method::GET, "/a", &[(name, value)]).await;
    }
    get(&proxy, &Method::HEAD, "/a", &[]).await;
    send(ask(Method::GET, proxy.url("/a")).body("content")).await;
    assert_eq!(proxy.metric("edge_ready_hits_total").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_answer_goes_with_its_purge_and_its_second() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[FRESH, ("surrogate-key", "k"), ("etag", "\"1\"")], "one");
    for _ in 0..3 {
        proxy.get("/a").await;
    }
    let young = proxy.get("/a").await;
    e2e::eventually("it ages", || async {
        let got = proxy.get("/a").await;
        assert!(got.is_hit() && got.body == "one", "{got:?}");
        (got.header("age") != young.header("age") && got.cache() != young.cache()).then_some(())
    })
    .await;
    proxy.upstream.answer("/a", &[FRESH, ("surrogate-key", "k"), ("etag", "\"2\"")], "two");
    let purged = proxy.purge(r#"{"keys":["k"],"mode":"soft"}"#).await;
    assert_eq!(purged.status, 200, "{purged:?}");
    e2e::eventually("it is made anew", || async {
        let got = proxy.get("/a").await;
        let fields = (got.header("etag"), got.body.as_str());
        assert!(matches!(fields, (Some("\"1\""), "one") | (Some("\"2\""), "two")), "{got:?}");
        (got.is_hit() && got.body == "two").then_some(())
    })
    .await;
    proxy.purged(r#"{"keys":["k"]}"#).await;
    assert!(!proxy.get("/a").await.is_hit());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_panic_the_next_request_is_answered_and_hits_come_back() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[FRESH], "one");
    for round in 0..3 {
        for path in ["/a", "/a?other"] {
            proxy.get(path).await;
        }
        takes_the_short_way(&proxy, "/a").await;
        let lost = send_to(ask(Method::GET, proxy.url("/__edge/panic"))).await;
        assert!(lost.is_none_or(|got| got.status == 500), "round {round}");
        // The slots of the old instance are nobody's now: another path gets the first of the new ones.
        for _ in 0..3 {
            for path in ["/a?other", "/a"] {
                let got = proxy.get(path).await;
                assert_eq!((got.status, got.body.as_str()), (200, "one"), "round {round}: {got:?}");
            }
        }
        takes_the_short_way(&proxy, "/a").await;
    }
}

/// So many of each kind, from 0 on.
const IN_KV: usize = 24;

/// Pages that another location has left in KV, and a first location that has learnt to look there first.
async fn with_pages_in_kv(proxy: Proxy) -> Proxy {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(b"packed and packed and packed").unwrap();
    let packed = packed.finish().unwrap();
    let etag = ("etag", "\"a\"");
    let mut paths = Vec::new();
    for n in 0..IN_KV {
        proxy.upstream.answer(&format!("/plain-{n}"), &[FRESH, etag, ("surrogate-key", "k")], "plain");
        proxy.upstream.answer(&format!("/vary-{n}"), &[FRESH, etag, ("vary", "x-kind")], "vary");
        proxy.upstream.bytes(&format!("/packed-{n}"), 200, &[FRESH, etag, ("content-encoding", "gzip")], &packed);
        for kind in ["plain", "vary", "packed"] {
            let path = format!("/{kind}-{n}");
            e2e::http::get(format!("{}{path}", proxy.fleet.url(1))).await;
            paths.push(path);
        }
    }
    proxy.upstream.answer("/none", &[("cache-control", "no-store")], "none");
    for n in 0..70 {
        proxy.get(&format!("/none?{n}")).await;
    }
    kv::await_pages(&proxy.fleet, &paths.iter().map(String::as_str).collect::<Vec<_>>()).await;
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_out_of_kv_is_field_by_field_what_the_whole_gateway_answers() {
    let proxy = with_pages_in_kv(Proxy::with_edges(2).await).await;
    let requests: [&[(&str, &str)]; 4] = [
        &[("accept-encoding", "gzip")],
        &[("accept-encoding", "identity")],
        &[("if-none-match", "\"a\""), ("accept-encoding", "gzip")],
        &[("if-none-match", "\"b\""), ("x-kind", "1")],
    ];
    for path in ["plain", "vary", "packed"] {
        // Each is out of KV once.
        let mut pages = (0..IN_KV).map(|n| format!("/{path}-{n}"));
        let mut next = || pages.next().unwrap_or_else(|| panic!("/{path}-*: no short way was taken"));
        for fields in requests {
            let long: Vec<_> = fields.iter().copied().chain([LONG_WAY]).collect();
            let long = get(&proxy, &Method::GET, &next(), &long).await;
            // What varies on a field has none, nor what is to be unpacked.
            let has_short_way = path == "plain" || (path == "packed" && fields.contains(&("accept-encoding", "gzip")));
            // Past the lease of the view, which is short here, the long way is taken.
            let short = loop {
                let before = proxy.metric("edge_ready_hits_total").await;
                let got = get(&proxy, &Method::GET, &next(), fields).await;
                if !has_short_way || proxy.metric("edge_ready_hits_total").await > before {
                    break got;
                }
            };
            // Which tier is looked into first, and the second it is: what is left is the same.
            let told = |got: &Got| {
                let mut fields = got.headers.clone();
                fields.retain(|(name, _)| !matches!(name.as_str(), "age" | "cache-status" | "date" | "server-timing"));
                (got.status, fields, got.body.clone())
            };
            assert_eq!(told(&short), told(&long), "{path} {fields:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kv_has_is_judged_and_what_it_has_not_is_fetched_once() {
    let proxy = with_pages_in_kv(Proxy::with_edges(2).await).await;
    let got = proxy.get("/plain-0").await;
    assert!(got.is_hit() && got.cache().contains("kv"), "{got:?}");
    proxy.upstream.answer("/plain-1", &[FRESH, ("surrogate-key", "k")], "new");
    proxy.purged(r#"{"keys":["k"]}"#).await;
    let got = proxy.get("/plain-1").await;
    assert!(!got.is_hit() && got.body == "new", "{got:?}");
    proxy.upstream.answer("/absent", &[FRESH], "absent");
    let before = proxy.upstream.count("/absent");
    let asked: Vec<_> = (0..8).map(|_| tokio::spawn(e2e::http::get(proxy.url("/absent")))).collect();
    for one in asked {
        let got = one.await.unwrap();
        assert_eq!((got.status, got.body.as_str()), (200, "absent"));
    }
    assert_eq!(proxy.upstream.count("/absent"), before + 1);
}

/// Bytes that no edge has written cost the page they stand for, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn what_kv_has_that_is_no_header_field_does_not_end_the_instance() {
    let proxy = with_pages_in_kv(Proxy::with_edges(2).await).await;
    let stored = kv::stored(&proxy.fleet, &kv_key("GET /plain-0")).await.unwrap();
    let (mut head, body) = EntryHead::split(&stored).unwrap();
    head.key = "GET /broken".into();
    head.fields.push("no field", "x");
    let bytes = [head.encode().unwrap().as_slice(), body].concat();
    kv::store(&proxy.fleet, &kv_key(&head.key), bytes).await;
    proxy.get("/plain-1").await;
    for _ in 0..3 {
        assert_eq!(proxy.get("/broken").await.status, 500);
    }
    let kept = proxy.get("/plain-1").await;
    assert!(kept.cache().contains("hit memory"), "{kept:?}");
    assert_eq!(proxy.upstream.count("/broken"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn kv_that_hangs_is_given_up_by_all_who_read_it() {
    const PAGES: usize = 8;
    let proxy = with_pages_in_kv(
        Proxy::of(ProxyShape { isolates: &[1, 1], lease_ms: 1_000, quiet: true, ..ProxyShape::default() }).await,
    )
    .await;
    // Whoever comes just after the view was brought up to date is within its lease.
    let confirmed = || async {
        let health = proxy.get("/__edge/health").await.json();
        health["purge_view"]["confirmed_age_ms"].as_u64()
    };
    e2e::eventually("the view is fresh", || async {
        proxy.get("/none").await;
        confirmed().await.is_some_and(|ms| ms < 100).then_some(())
    })
    .await;
    proxy.fleet.suspend_global(true);
    let asked: Vec<_> = (0..PAGES).map(|n| tokio::spawn(e2e::http::get(proxy.url(&format!("/plain-{n}"))))).collect();
    let mut got = Vec::new();
    for one in asked {
        let one = tokio::time::timeout(std::time::Duration::from_secs(60), one);
        got.push(one.await.expect("it waits for KV").unwrap());
    }
    proxy.fleet.suspend_global(false);
    // From origin, long before KV answers again: it does not while they wait.
    assert!(got.iter().all(|got| (got.status, got.body.as_str()) == (200, "plain") && !got.is_hit()), "{got:?}");
    let asked = (0..PAGES).map(|n| proxy.upstream.count(&format!("/plain-{n}"))).collect::<Vec<_>>();
    assert_eq!(asked, [2; PAGES], "once before, by the other location");
}

/// On every way an answer can take: what clients waited for counts as waited for, and what they did not wait for, too.
#[tokio::test(flavor = "multi_thread")]
async fn how_long_clients_waited_is_counted_on_every_way() {
    let proxy = Proxy::of(ProxyShape { lease_ms: 1_000, quiet: true, ..ProxyShape::default() }).await;
    proxy.upstream.answer("/a", &[FRESH], "page");
    let count = |phase: &str| format!("edge_answer_seconds_count{{phase=\"{phase}\"}}");
    let quick = |phase: &str| format!("edge_answer_seconds_bucket{{phase=\"{phase}\",le=\"0.25\"}}");
    proxy.upstream.hold(true);
    let (_, got) = tokio::join!(
        async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            proxy.upstream.hold(false);
        },
        proxy.get("/a")
    );
    assert_eq!((got.status, got.is_hit()), (200, false), "{got:?}");
    let of_misses = (proxy.metric(&count("miss")).await, proxy.metric(&quick("miss")).await);
    assert_eq!(of_misses, (1, 0), "it took 400 ms at the least");
    takes_the_short_way(&proxy, "/a").await;
    let before = proxy.metric(&count("hit")).await;
    for _ in 0..20 {
        assert!(proxy.get("/a").await.is_hit());
        assert!(get(&proxy, &Method::GET, "/a", &[LONG_WAY]).await.is_hit());
    }
    let hits = proxy.metric(&count("hit")).await;
    assert_eq!(hits, before + 40, "the short way and the long way");
    assert_eq!(proxy.metric("edge_answers_total{phase=\"hit\"}").await, hits, "each answer has its duration");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_again_is_counted_and_falls_with_its_purge() {
    // With a lease so long that a purge could be overlooked.
    let proxy = Proxy::of(ProxyShape { lease_ms: 1_000, quiet: true, ..ProxyShape::default() }).await;
    for round in 0..6 {
        let body = format!("page {round}");
        proxy.upstream.answer("/a", &[FRESH, ("surrogate-key", "k")], &body);
        let hits = "edge_answers_total{phase=\"hit\"}";
        let purged = proxy.purge(r#"{"keys":["k"]}"#).await.as_of().expect("no state").seq;
        e2e::eventually("the isolate knows of the purge", || async {
            let health = proxy.get("/__edge/health").await.json();
            (health["purge_view"]["applied_seq"].as_u64() >= Some(purged)).then_some(())
        })
        .await;
        assert_eq!(proxy.get("/a").await.body, body, "purged, and yet the old one was given");
        takes_the_short_way(&proxy, "/a").await;
        let before = proxy.metric(hits).await;
        for _ in 0..20 {
            assert_eq!(proxy.get("/a").await.body, body);
        }
        assert_eq!(proxy.metric(hits).await, before + 20);
    }
}
