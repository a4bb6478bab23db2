//! Pre-warming: documents fetched ahead of viewers by whoever signs for it, and stored where viewers find them.
use e2e::api::{Api, SHARED};
use e2e::eventually;
use e2e::http::{Got, ask, get, send};
use e2e::stack::{LEASE_OVER, Shape, Stack, edge_claims, sign};
use kv_schemas::claims::{Scope, body_digest};
use reqwest::Method;
use serde_json::{Value, json};

async fn post(api: &Api, body: &str, scope: Scope, digest: Option<String>, lifetime_s: u64) -> Got {
    let token = sign(&api.key, edge_claims(scope, digest), lifetime_s);
    send(ask(Method::POST, api.url("/__edge/warm")).bearer_auth(token).body(body.to_string())).await
}

async fn warm(api: &Api, documents: Value) -> Got {
    let body = json!({"min_as_of": api.state(), "documents": documents}).to_string();
    post(api, &body, Scope::Warm, Some(body_digest(body.as_bytes())), 60).await
}

fn outcomes(got: &Got) -> Vec<(String, u64)> {
    assert_eq!(got.status, 200, "{got:?}");
    let of = |one: &Value| (one["outcome"].as_str().unwrap().to_string(), one["status"].as_u64().unwrap());
    got.json()["documents"].as_array().unwrap().iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_warmed_is_a_hit_for_the_first_viewer_here_and_elsewhere() {
    let api = Api::of(2, &[]).await;
    api.answer("/v1/home", &SHARED, "home", "page");
    let german = json!({"target": "/v1/home", "region": "DE", "locale": "de", "maturity": 13, "plan": "basic"});
    let warmed = warm(&api, json!([{"target": "/v1/home"}, german])).await;
    assert_eq!(outcomes(&warmed), [("stored".to_string(), 200), ("stored".to_string(), 200)], "{warmed:?}");
    let asked = api.upstream.count("/v1/home");
    assert_eq!(asked, 2);
    assert_eq!(api.upstream.last().headers["sec-purpose"], "prefetch", "origin is told that no viewer asks");
    assert!(api.get("/v1/home", &[]).await.is_hit());
    let (debug, bearer) = (api.debug_token(), format!("Bearer {}", api.token("ada")));
    let fields = [("edge-debug", debug.as_str()), ("edge-region", "DE"), ("authorization", &bearer)];
    assert!(api.get("/v1/home?locale=de", &fields).await.is_hit());
    // Another location finds it in KV.
    let there = get(format!("{}/v1/home", api.fleet.url(1))).await;
    assert!(there.is_hit() && there.cache().contains("kv"), "{there:?}");
    assert_eq!(api.upstream.count("/v1/home"), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_browser_fetches_ahead_is_not_in_use_yet() {
    let api = Api::start().await;
    for (path, purpose) in [("/v1/titles/a", Some("prefetch")), ("/v1/titles/b", None)] {
        api.answer(path, &SHARED, "k", "page");
        let fields: Vec<_> = purpose.map(|purpose| ("sec-purpose", purpose)).into_iter().collect();
        assert_eq!(api.get(path, &fields).await.status, 200);
        assert_eq!(api.upstream.last().headers.get("sec-purpose").map(String::as_str), purpose);
        assert!(api.get(path, &[]).await.is_hit(), "to the caches it is a page as any");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_enough_is_left_and_what_a_purge_has_outdated_is_fetched() {
    let api = Api::start().await;
    api.answer("/v1/home", &SHARED, "home", "old");
    let documents = json!([{"target": "/v1/home"}]);
    assert_eq!(outcomes(&warm(&api, documents.clone()).await)[0].0, "stored");
    assert_eq!(outcomes(&warm(&api, documents.clone()).await)[0].0, "fresh");
    api.purge("soft", &["home"]).await;
    api.answer("/v1/home", &SHARED, "home", "new");
    let again = outcomes(&warm(&api, documents).await)[0].0.clone();
    assert!(again == "stored" || again == "fresh", "{again}");
    assert_eq!(api.get("/v1/home", &[]).await.body, "new", "the next viewer has the new page");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_or_had_is_said_and_the_rest_is_done() {
    let api = Api::start().await;
    api.answer("/v1/genres", &SHARED, "genres", "page");
    let private = [("cache-control", "private")];
    api.answer("/v1/titles/own", &private, "t", "own");
    api.upstream.script("/v1/titles/down", 503, &[], "down");
    // Of a state before the demanded one.
    api.answer("/v1/titles/late", &SHARED, "t", "late");
    api.purge("soft", &["x"]).await;
    let targets = ["/v1/genres", "/v1/titles/own", "/v1/titles/down", "/v1/titles/late"];
    api.answer("/v1/genres", &SHARED, "genres", "page");
    api.answer("/v1/titles/own", &private, "t", "own");
    let documents: Vec<_> = targets.iter().map(|target| json!({"target": target})).collect();
    let got = warm(&api, json!(documents)).await;
    let results = outcomes(&got);
    assert_eq!(results[0], ("stored".into(), 200), "{got:?}");
    assert_eq!(results[1], ("not-stored".into(), 200), "{got:?}");
    assert!(results[2].0 != "stored" && results[2].1 == 503, "{got:?}");
    assert!(results[3].0 != "stored" && results[3].1 == 503, "{got:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_documents_are_warmed_in_one_call() {
    let api = Api::start().await;
    let targets: Vec<_> = (0..50).map(|n| format!("/v1/titles/t{n}")).collect();
    targets.iter().for_each(|target| api.answer(target, &SHARED, "t", "page"));
    let documents: Vec<_> = targets.iter().map(|target| json!({"target": target})).collect();
    let results = outcomes(&warm(&api, json!(documents)).await);
    assert!(results.len() == 50 && results.iter().all(|(outcome, _)| outcome == "stored"), "{results:?}");
    for target in &targets {
        eventually(target, || async { api.get(target, &[]).await.is_hit().then_some(()) }).await;
        assert_eq!(api.upstream.count(target), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_signs_for_this_very_body_may_warm_and_only_shared_documents() {
    let api = Api::start().await;
    api.answer("/v1/home", &SHARED, "home", "page");
    let body = json!({"min_as_of": api.state(), "documents": [{"target": "/v1/home"}]}).to_string();
    let digest = Some(body_digest(body.as_bytes()));
    for (what, scope, digest, lifetime_s, slug) in [
        ("no digest", Scope::Warm, None, 60, "token-digest"),
        ("another body's", Scope::Warm, Some(body_digest(b"{}")), 60, "token-digest"),
        ("another scope", Scope::PurgeBatch, digest.clone(), 60, "token-scope"),
        ("a debug token", Scope::Debug, digest.clone(), 60, "token-scope"),
        ("a long life", Scope::Warm, digest.clone(), 3_600, "token-refused"),
    ] {
        assert_eq!(post(&api, &body, scope, digest, lifetime_s).await.problem(), slug, "{what}");
    }
    let bare = send(ask(Method::POST, api.url("/__edge/warm")).body(body)).await;
    assert_eq!(bare.problem(), "token-missing");
    assert_eq!(api.get("/__edge/warm", &[]).await.problem(), "method-not-allowed");
    for documents in [
        json!([]),
        json!([{"target": "/v1/me"}]),
        json!([{"target": "/v1/home"}, {"target": "/admin/v1/titles"}]),
        json!([{"target": "/auth/login"}]),
        json!([{"target": "//v1/home"}]),
        json!([{"target": "/__edge/health"}]),
        json!([{"target": "http://evil.example/v1/home"}]),
        json!([{"target": "/v1/home?fields=rails"}]),
        json!([{"target": "/v1/home", "maturity": 12}]),
        json!([{"target": "/v1/home", "region": "de"}]),
        json!([{"target": "/v1/home", "body": "evil"}]),
        json!(vec![json!({"target": "/v1/home"}); 51]),
    ] {
        let got = warm(&api, documents.clone()).await;
        assert_eq!((got.status, got.problem().as_str()), (400, "warm-invalid"), "{documents}: {got:?}");
    }
    let huge = warm(&api, json!([{"target": format!("/v1/home?x={}", "x".repeat(70_000))}])).await;
    assert_eq!(huge.problem(), "body-too-large");
    assert_eq!(api.upstream.count("/v1/home"), 0, "nothing was fetched");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_edit_the_first_viewer_everywhere_gets_a_hit_that_shows_it() {
    // Where purges and warmed documents come in, where viewers have read, and where none has been. Nobody reads where
    // purges come in: what is held there would be refreshed by the edge itself.
    let (intake, held, unvisited) = (0, 1, 2);
    let stack = Stack::of(Shape { edges: 3, warm: 50, ..Shape::default() }).await;
    let pages = ["/v1/titles/heat", "/v1/home"];
    let at = |edge: usize, page: &str| get(format!("{}{page}", stack.fleet.url(edge)));
    for page in pages {
        eventually("a hit", || async { at(held, page).await.is_hit().then_some(()) }).await;
    }
    let edit = Some(json!({"name": "Heat II"}));
    let written = stack.admin(Method::PATCH, "/admin/v1/titles/heat", edit).await;
    assert_eq!(written.status, 200, "{written:?}");
    eventually("both are warmed", || async { (stack.warmed().await >= 2).then_some(()) }).await;
    tokio::time::sleep(LEASE_OVER).await;
    for edge in [unvisited, held, intake] {
        for page in pages {
            let got = at(edge, page).await;
            assert!(got.is_hit() && got.body.contains("Heat II"), "{page} at {edge}: {got:?}");
        }
    }
}
