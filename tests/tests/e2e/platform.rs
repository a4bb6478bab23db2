//! What is otherwise on the platform than where its runtime runs by itself.
use e2e::api::{Api, SHARED};
use e2e::http::{ask, get, send};
use e2e::stack::{LEASE_OVER, Proxy, ProxyShape};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const HTML: (&str, &str) = ("content-type", "text/html");

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_the_platforms_about_an_origin_it_cannot_reach_is_not_origins_answer() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[("cache-control", "max-age=1, stale-if-error=60")], "page");
    proxy.get("/a").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for status in [520, 521, 522, 523, 524, 525, 526, 527, 530] {
        proxy.upstream.script("/a", status, &[HTML], "<h1>error code</h1>");
        let stale = proxy.get("/a").await;
        assert!(stale.body == "page" && stale.cache().contains("stale-error"), "{status}: {stale:?}");
        proxy.upstream.script("/b", status, &[HTML], "<h1>error code</h1>");
        let failed = proxy.get("/b").await;
        let expected = if matches!(status, 522 | 524) { (504, "origin-timeout") } else { (502, "origin-unreachable") };
        assert_eq!((failed.status, failed.problem().as_str()), expected, "{status}: {failed:?}");
    }
    proxy.upstream.script("/c", 529, &[], "the site is overloaded");
    assert_eq!(proxy.get("/c").await.status, 529, "an origin's own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_the_platform_cannot_reach_is_left_alone_and_what_is_cached_is_served() {
    let api = Api::start().await;
    api.answer("/v1/genres", &SHARED, "genres", "[]");
    api.get("/v1/genres", &[]).await;
    let mut problems = Vec::new();
    for n in 0..3 {
        let path = format!("/v1/titles/t{n}");
        api.upstream.script(&path, 521, &[HTML], "<h1>error code</h1>");
        problems.push(api.get(&path, &[]).await.problem());
    }
    assert_eq!((problems[0].as_str(), problems[2].as_str()), ("origin-unreachable", "service-unavailable"));
    assert!(api.get("/v1/genres", &[]).await.is_hit());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_somebody_in_front_of_origin_gives_up_is_purged_and_once_more_later() {
    for status in [502, 504, 520, 524] {
        let proxy = Proxy::of(ProxyShape {
            isolates: &[1, 1],
            vars: &[("ORIGIN_TIMEOUT_MS", "1000")],
            ..ProxyShape::default()
        })
        .await;
        let fresh = [("cache-control", "max-age=3600")];
        let other = proxy.fleet.url(1) + "/a";
        proxy.upstream.answer("/a", &fresh, "old");
        e2e::eventually("the page is held", || async { get(&other).await.is_hit().then_some(()) }).await;
        proxy.upstream.script("/a", status, &[HTML], "<h1>error</h1>");
        let got = send(ask(Method::PUT, proxy.url("/a")).body("x")).await;
        assert!(matches!(got.status, 502 | 504), "{got:?}");
        proxy.upstream.answer("/a", &fresh, "old");
        tokio::time::sleep(LEASE_OVER).await;
        let asked = proxy.upstream.count("/a");
        e2e::eventually("read anew, before origin does it", || async { get(&other).await.is_hit().then_some(()) })
            .await;
        assert!(proxy.upstream.count("/a") > asked, "{status}: nothing was purged");
        proxy.upstream.answer("/a", &fresh, "new");
        e2e::eventually("the new page", || async { (get(&other).await.body == "new").then_some(()) }).await;
    }
}

async fn batch(api: &Api, paths: &[String]) -> Value {
    let requests: Vec<_> = paths.iter().map(|path| json!({"path": path})).collect();
    let request = ask(Method::POST, api.url("/v1/batch")).body(json!({"requests": requests}).to_string());
    send(request).await.json()
}

/// The platform lets a request wait for six answers at once, and what goes beyond them waits with its time running.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_four_members_wait_at_once_and_what_memory_has_waits_for_none_of_them() {
    let api = Api::of(1, &[("BATCH_TIMEOUT_MS", "2000")]).await;
    api.answer("/v1/genres", &SHARED, "genres", "[]");
    api.get("/v1/genres", &[]).await;
    let mut paths: Vec<String> = (0..10).map(|n| format!("/v1/titles/t{n}")).collect();
    for path in &paths {
        api.answer(path, &SHARED, "t", "{}");
    }
    let asked = |api: &Api| api.upstream.asked().iter().filter(|asked| asked.target.contains("/t")).count();
    api.upstream.hold(true);
    paths.push("/v1/genres".into());
    let (got, waiting) = tokio::join!(batch(&api, &paths), async {
        e2e::eventually("some are asked for", || async { (asked(&api) >= 4).then_some(()) }).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        asked(&api)
    });
    assert_eq!(waiting, 4);
    let statuses: Vec<_> = got["responses"].as_array().expect("no answers").iter().map(|one| &one["status"]).collect();
    assert_eq!(statuses, [504, 504, 504, 504, 504, 504, 504, 504, 504, 504, 200], "{got}");
    api.upstream.hold(false);
    e2e::eventually("all of them in turn", || async {
        let got = batch(&api, &paths).await;
        let answers = got["responses"].as_array().expect("no answers");
        answers.iter().all(|one| one["status"] == 200).then_some(())
    })
    .await;
}

/// The platform ends all requests of an isolate that needs more than 128 MB.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_before_others_could_read_it_is_not_written_to_kv() {
    let api = Api::start().await;
    api.answer("/v1/home", &SHARED, "home", "{}");
    let short = [SHARED[0], SHARED[1], ("cdn-cache-control", "max-age=60")];
    api.answer("/v1/titles/none", &short, "title:none", "{}");
    for path in ["/v1/titles/none", "/v1/home"] {
        api.get(path, &[]).await;
        assert!(api.get(path, &[]).await.is_hit(), "{path}");
    }
    e2e::kv::await_pages(&api.fleet, &["/v1/home"]).await;
    let keys = e2e::kv::keys(&api.fleet).await;
    assert!(!keys.iter().any(|key| key.ends_with("/v1/titles/none")), "{keys:?}");
}

/// Each of them is looked for among the others.
#[tokio::test(flavor = "multi_thread")]
async fn of_header_fields_there_may_be_so_many() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[("cache-control", "max-age=60")], "page");
    let names: Vec<String> = (0..300).map(|n| format!("x-{n}")).collect();
    let with = |method: Method, path: &str, count: usize| {
        let request = ask(method, proxy.url(path));
        send(names.iter().take(count).fold(request, |request, name| request.header(name.as_str(), "y")))
    };
    // This origin takes a hundred.
    assert_eq!(with(Method::GET, "/a", 80).await.status, 200);
    for method in [Method::GET, Method::POST] {
        let refused = with(method, "/other", 300).await;
        assert_eq!((refused.status, refused.problem().as_str()), (431, "fields-too-large"), "{refused:?}");
    }
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "y")).collect();
    proxy.upstream.answer("/b", &many, "page");
    let failed = proxy.get("/b").await;
    assert_eq!((failed.status, failed.problem().as_str()), (502, "origin-unreachable"), "{failed:?}");
    // And so does this client.
    proxy.upstream.answer("/c", &many[..80], "page");
    assert_eq!(proxy.get("/c").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_under_way_are_bounded_for_all_clients_together() {
    let api = Api::start().await;
    api.answer("/v1/me/watch-list", &[], "", "{}");
    let token = api.token("ada");
    let head = format!(
        "PUT /v1/me/watch-list HTTP/1.1\r\nhost: edge\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-length: 1000000\r\n\r\n"
    );
    let part = "x".repeat(990_000);
    let mut slow = Vec::new();
    for _ in 0..26 {
        let (url, text) = (api.fleet.url(0), format!("{head}{part}"));
        slow.push(tokio::spawn(async move { e2e::raw::ask(&url, &[&text], Duration::ZERO).await }));
    }
    // There is room for twelve, whose ends do not come; the others are refused.
    e2e::eventually("all have come", || async {
        let refused = slow.iter().filter(|one| one.is_finished()).count();
        (refused == 14 && api.metric("edge_held_bytes").await >= 12 * 990_000).then_some(())
    })
    .await;
    let whole = || send(ask(Method::PUT, api.url("/v1/me/watch-list")).bearer_auth(&token).body("x".repeat(1_000_000)));
    let refused = whole().await;
    assert_eq!((refused.status, refused.problem().as_str()), (503, "overloaded"), "{refused:?}");
    let small = send(ask(Method::PUT, api.url("/v1/me/watch-list")).bearer_auth(&token).body("x".repeat(10_000))).await;
    assert_eq!(small.status, 200, "{small:?}");
    let many: Vec<String> = (0..4_000).map(|n| format!("a-key-of-some-length-that-nothing-has-{n}")).collect();
    let keys: Vec<_> = many.chunks(1_000).map(|keys| json!({"keys": keys, "mode": "hard"})).collect();
    let taken = api.purge_at_once(&keys).await;
    assert_eq!(taken.status, 200, "a purge waits for no stranger: {taken:?}");
    for one in slow {
        one.abort();
        let _ = one.await;
    }
    e2e::eventually("there is room again", || async { (whole().await.status == 200).then_some(()) }).await;
    e2e::eventually("nothing is held", || async { (api.metric("edge_held_bytes").await == 0).then_some(()) }).await;
}
