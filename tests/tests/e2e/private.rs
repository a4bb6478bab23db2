//! What is a viewer's own: nobody else gets it, at any tier, by any trick.
use e2e::api::{Api, OWN, SHARED};
use e2e::http::{Got, get};
use e2e::stack::sign;
use e2e::{eventually, kv};
use kv_schemas::claims::ViewerClaims;
use reqwest::Method;

const SECRET: &str = "ada's own";

/// Everything else that might get at it: other viewers, strangers, whoever says to be Ada, at this location and another.
async fn nobody_else_gets(api: &Api, path: &str) {
    let (ada, bob) = (api.token("ada"), format!("Bearer {}", api.token("bob")));
    let stored = api.get_as(&ada, path).await;
    assert_eq!((stored.status, stored.body.as_str()), (200, SECRET), "{stored:?}");
    let again = api.get_as(&ada, path).await;
    assert!(again.is_hit() && again.cache().contains("memory") && again.body == SECRET, "{again:?}");
    for answer in [&stored, &again] {
        assert_eq!(answer.header("cache-control"), Some("private, no-cache"), "{answer:?}");
        assert_eq!(answer.header("cdn-cache-control"), None);
    }
    // From here on origin says something else, so that the secret could come from a cache alone.
    let fields: Vec<_> = OWN.into_iter().chain([("etag", "\"bob\"")]).collect();
    api.answer(path, &fields, "viewer:bob", "another's");
    let asked = api.upstream.count(path);
    let claims = ViewerClaims { sid: "ada-tv".into(), ..api.claims("ada") };
    let other_session = format!("Bearer {}", sign(&api.key, claims, 600));
    let expired = format!("Bearer {}", api.expired_token("ada"));
    let stranger = format!("Bearer {}", sign(&xtask::proxy::new_key("settings").unwrap(), api.claims("ada"), 600));
    let tricks: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("a stranger", vec![]),
        ("another viewer", vec![("authorization", &bob)]),
        ("another session of hers", vec![("authorization", &other_session)]),
        ("her expired token", vec![("authorization", &expired)]),
        ("her token, forged", vec![("authorization", &stranger)]),
        ("fields that name her", vec![("x-user-id", "ada"), ("viewer-id", "ada"), ("cookie", "session=ada-phone")]),
        ("her name beside another's token", vec![("authorization", &bob), ("x-forwarded-user", "ada")]),
        ("fields of ours", vec![("authorization", &bob), ("viewer", "ada"), ("viewer-plan", "basic")]),
        ("another URL", vec![("x-original-url", path), ("x-rewrite-url", path)]),
        ("only what is cached", vec![("cache-control", "only-if-cached"), ("authorization", &bob)]),
        ("however stale", vec![("cache-control", "max-stale"), ("authorization", &bob)]),
        ("what she has", vec![("if-none-match", "\"ada\""), ("authorization", &bob)]),
        ("a part", vec![("range", "bytes=0-3"), ("authorization", &bob)]),
    ];
    let mut others: Vec<(String, Got)> = Vec::new();
    for (who, fields) in &tricks {
        for method in [Method::GET, Method::HEAD] {
            others.push((format!("{who} by {method}"), api.call(method, path, fields).await));
        }
    }
    for odd in ["x.css", ".css", "/", "%2Fx", ";x.css", "?x=1", "?cb=ada", "#x", "/..%2fme", "%0a", "/../me/x"] {
        others.push((format!("{path}{odd}"), api.get(&format!("{path}{odd}"), &[("authorization", &bob)]).await));
        others.push((format!("{path}{odd}, nobody"), api.get(&format!("{path}{odd}"), &[]).await));
    }
    for (who, got) in &others {
        assert!(!got.body.contains(SECRET), "{who}: {got:?}");
        assert!(got.status != 304 && !got.body.starts_with("ada'"), "{who}: {got:?}");
    }
    assert!(api.upstream.count(path) > asked, "bob was answered by origin");
    // The other location has the same KV; it has never heard of Ada's answer.
    let elsewhere = format!("{}{path}", api.fleet.url(1));
    let there = e2e::http::send(e2e::http::ask(Method::GET, &elsewhere).bearer_auth(&ada)).await;
    assert!(there.body == "another's" && !there.is_hit(), "{there:?}");
    assert_eq!(get(&elsewhere).await.status, 401);
    assert_eq!(api.get_as(&ada, path).await.body, SECRET, "she still has it");
}

async fn system(path: &str) -> Api {
    let api = Api::of(2, &[]).await;
    let fields: Vec<_> = OWN.into_iter().chain([("etag", "\"ada\"")]).collect();
    api.answer(path, &fields, "viewer:ada", SECRET);
    api
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_a_viewers_account() {
    let api = system("/v1/me").await;
    nobody_else_gets(&api, "/v1/me").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_what_a_viewer_goes_on_watching() {
    let api = system("/v1/me/continue-watching").await;
    nobody_else_gets(&api, "/v1/me/continue-watching").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_a_viewers_watch_list() {
    let api = system("/v1/me/watch-list").await;
    nobody_else_gets(&api, "/v1/me/watch-list").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_location_has_kept_nothing_that_was_a_viewers_own() {
    let mut api = system("/v1/me").await;
    api.answer("/v1/home", &SHARED, "home", "shared");
    let ada = api.token("ada");
    assert_eq!(api.get_as(&ada, "/v1/me").await.body, SECRET);
    api.get("/v1/home", &[]).await;
    eventually("the shared page in a tier", || async {
        let there = get(format!("{}/v1/home", api.fleet.url(1))).await;
        there.is_hit().then_some(())
    })
    .await;
    // Written in the order in which they were fetched.
    for key in kv::keys(&api.fleet).await {
        assert!(!key.contains("viewer="), "{key}");
        let stored = kv::stored(&api.fleet, &key).await.unwrap_or_default();
        assert!(!String::from_utf8_lossy(&stored).contains(SECRET), "{key}");
    }
    api.fleet.kill_edge(0);
    api.fleet.start_edge(0).unwrap_or_else(|error| panic!("{error}"));
    api.upstream.script("/v1/me", 503, &[], "down");
    assert!(api.get("/v1/home", &[]).await.is_hit(), "what is shared has survived");
    let own = api.get_as(&ada, "/v1/me").await;
    assert_eq!((own.status, own.body.as_str()), (503, "down"), "what was her own has not");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_the_viewer_and_a_write_of_hers_make_origin_be_asked_again() {
    let api = system("/v1/me/watch-list").await;
    let (path, ada) = ("/v1/me/watch-list", api.token("ada"));
    api.get_as(&ada, path).await;
    assert!(api.get_as(&ada, path).await.is_hit());
    api.purge("hard", &["viewer:ada"]).await;
    api.answer(path, &OWN, "viewer:ada", "after the purge");
    assert_eq!(api.get_as(&ada, path).await.body, "after the purge");
    // A write through the edge shows at once, with no purge heard of yet.
    let state = api.state();
    api.upstream.script("/v1/me/watch-list/heat", 204, &[("surrogate-as-of", &state)], "");
    api.answer(path, &OWN, "viewer:ada", "after the write");
    let bearer = format!("Bearer {ada}");
    let written = api.call(Method::PUT, "/v1/me/watch-list/heat", &[("authorization", &bearer)]).await;
    assert_eq!((written.status, written.header("surrogate-as-of")), (204, Some(state.as_str())), "{written:?}");
    assert_eq!(api.get_as(&ada, path).await.body, "after the write");
    // Another viewer's does not touch hers.
    let bob = format!("Bearer {}", api.token("bob"));
    api.call(Method::PUT, "/v1/me/watch-list/heat", &[("authorization", &bob)]).await;
    assert!(api.get_as(&ada, path).await.is_hit());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_under_way_during_her_write_is_not_what_she_sees_after_it() {
    let api = system("/v1/me").await;
    let ada = api.token("ada");
    let bearer = format!("Bearer {ada}");
    api.answer("/v1/me", &OWN, "viewer:ada", "before");
    api.upstream.hold(true);
    let (url, token) = (api.url("/v1/me"), ada.clone());
    let slow = tokio::spawn(async move { e2e::http::send(e2e::http::ask(Method::GET, url).bearer_auth(token)).await });
    eventually("the read at origin", || async { (api.upstream.count("/v1/me") > 0).then_some(()) }).await;
    // The write commits as the log's next row; its answer is made, and both come back together.
    let state = format!("{}:7", e2e::api::LOG);
    api.upstream.script("/v1/me", 200, &[("surrogate-as-of", &state)], "written");
    let (url, token) = (api.url("/v1/me"), ada.clone());
    let write =
        tokio::spawn(async move { e2e::http::send(e2e::http::ask(Method::PATCH, url).bearer_auth(token)).await });
    eventually("the write at origin", || async { (api.upstream.count("/v1/me") > 1).then_some(()) }).await;
    api.upstream.hold(false);
    assert_eq!(write.await.unwrap().status, 200);
    let _ = slow.await.unwrap();
    let fields: Vec<_> = OWN.into_iter().chain([("surrogate-as-of", state.as_str())]).collect();
    api.upstream.script("/v1/me", 200, &fields, "after");
    let read = api.get("/v1/me", &[("authorization", &bearer)]).await;
    assert_eq!(read.body, "after", "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_cannot_be_told_whether_a_token_stands_origin_is_asked_each_time() {
    let api = system("/v1/me").await;
    api.answer("/v1/home", &SHARED, "home", "{}");
    let elsewhere = ViewerClaims { as_of: "another-log:3".parse().unwrap(), ..api.claims("ada") };
    let token = sign(&api.key, elsewhere, 600);
    for n in 1..=3 {
        let got = api.get_as(&token, "/v1/me").await;
        assert!(got.status == 200 && got.cache().contains("bypass"), "{got:?}");
        assert_eq!(api.upstream.count("/v1/me"), n);
        assert_eq!(got.header("cache-control"), Some("private, no-cache"));
    }
    api.get_as(&token, "/v1/home").await;
    assert!(api.get_as(&token, "/v1/home").await.is_hit(), "what is public goes on being served");
    // Below the floor of an everything purge, too.
    let before = api.token("bob");
    api.purge("hard", &[]).await;
    for _ in 0..2 {
        assert!(api.get_as(&before, "/v1/me").await.cache().contains("bypass"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn however_much_viewers_write_pages_and_revocations_are_remembered() {
    let api = Api::of(2, &[]).await;
    api.answer("/v1/home", &SHARED, "home", "{}");
    let (bob, carl) = (api.token("bob"), api.token("carl"));
    let fields: Vec<_> = OWN.into_iter().chain([("etag", "\"ada\"")]).collect();
    let ada = api.token("ada");
    api.answer("/v1/me", &fields, "viewer:ada", SECRET);
    api.get_as(&ada, "/v1/me").await;
    assert!(api.get_as(&ada, "/v1/me").await.is_hit());
    assert_eq!(api.get("/v1/home", &[]).await.status, 200);
    api.purge("hard", &["session:bob-phone"]).await;
    // More than the journal keeps of them, and than a view does.
    api.purge_each((0..20_000).map(|n| format!("viewer:{n}"))).await;
    api.answer("/v1/me", &fields, "viewer:ada viewer:carl", SECRET);
    let asked = api.upstream.count("/v1/home");
    assert!(api.get("/v1/home", &[]).await.is_hit(), "here");
    // Whoever begins now is told of all of it at once.
    let elsewhere = |path: &str| e2e::http::ask(Method::GET, format!("{}{path}", api.fleet.url(1)));
    let there = e2e::http::send(elsewhere("/v1/home")).await;
    assert!(there.is_hit() && there.cache().contains("kv"), "{there:?}");
    assert_eq!(api.upstream.count("/v1/home"), asked);
    let refused = e2e::http::send(elsewhere("/v1/me").bearer_auth(&bob)).await;
    assert_eq!(refused.problem(), "token-revoked", "{refused:?}");
    for expected in [false, true] {
        let own = e2e::http::send(elsewhere("/v1/me").bearer_auth(&carl)).await;
        assert_eq!((own.status, own.is_hit()), (200, expected), "{own:?}");
    }
    // A viewer whose purges may have been forgotten is asked about anew.
    let hers = api.get_as(&ada, "/v1/me").await;
    assert!(!hers.is_hit() && hers.body == SECRET, "{hers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_journal_away_nothing_private_is_answered_from_memory() {
    let mut api = system("/v1/me").await;
    let ada = api.token("ada");
    api.get_as(&ada, "/v1/me").await;
    assert!(api.get_as(&ada, "/v1/me").await.is_hit());
    api.fleet.kill_global();
    eventually("the bound to pass", || async {
        api.get_as(&ada, "/v1/me").await.cache().contains("bypass").then_some(())
    })
    .await;
    assert_eq!(api.get_as(&ada, "/v1/me").await.body, SECRET, "origin says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_nowhere_private_says_so_and_sets_no_cookie_for_others() {
    let api = system("/v1/me").await;
    let ada = api.token("ada");
    // An origin that forgets the edge's policy: private, so not even memory keeps it.
    api.answer("/v1/me", &[("cache-control", "private, max-age=60")], "viewer:ada", SECRET);
    for _ in 0..2 {
        let got = api.get_as(&ada, "/v1/me").await;
        assert!(got.body == SECRET && got.cache().contains("unstored:private"), "{got:?}");
    }
    let fields: Vec<_> = OWN.into_iter().chain([("set-cookie", "a=b")]).collect();
    api.answer("/v1/me", &fields, "viewer:ada", SECRET);
    for _ in 0..2 {
        assert!(api.get_as(&ada, "/v1/me").await.cache().contains("unstored:set-cookie"));
    }
}
