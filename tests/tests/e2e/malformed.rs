//! Malformed input at every endpoint: a problem+json 4xx, and nothing changed.
use e2e::http::{ask, send};
use e2e::stack::Stack;
use kv_schemas::claims::{AUDIENCE_ADMIN, AUDIENCE_EDGE, AdminClaims, ISSUER, StaffRole};
use reqwest::Method;
use serde_json::{Value, json};

const JSON: &str = "application/json";

#[tokio::test(flavor = "multi_thread")]
async fn malformed_reads_are_refused_at_the_edge_and_at_origin_alike() {
    let stack = Stack::start().await;
    for (path, status) in [
        ("/v1/catalog?limit=0", 400),
        ("/v1/catalog?limit=101", 400),
        ("/v1/catalog?limit=x", 400),
        ("/v1/catalog?limit=1&limit=2", 400),
        ("/v1/catalog?cursor=nonsense", 400),
        ("/v1/catalog?genre=%20", 400),
        ("/v1/catalog?genre=nope", 404),
        ("/v1/titles/NO", 404),
        ("/v1/titles/a/b", 404),
        ("/v1/nothing", 404),
    ] {
        for url in [stack.url(path), stack.origin_url(path)] {
            let got = e2e::http::get(&url).await;
            assert_eq!(got.status, status, "{url}: {got:?}");
            got.problem();
        }
    }
    // Escapes in a path lead nowhere at the edge, whatever they stand for.
    let escaped = "/v1/titles/no%ff";
    assert_eq!(stack.get(escaped).await.status, 404);
    assert_eq!(e2e::http::get(stack.origin_url(escaped)).await.status, 400);
    for bad in ["", "x", "log:", "log:-1", "log:01", "UP:1", "log:99999999999999999"] {
        for url in [stack.url("/v1/home"), stack.origin_url("/v1/home")] {
            let got = send(ask(Method::GET, &url).header("min-as-of", bad)).await;
            assert_eq!((got.status, got.problem().as_str()), (400, "min-as-of-invalid"), "{url} {bad:?}");
        }
    }
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let got = send(ask(method, stack.url("/v1/home"))).await;
        assert_eq!((got.status, got.problem().as_str()), (405, "method-not-allowed"));
    }
    let long = stack.get(&format!("/v1/home?{}", "a".repeat(9000))).await;
    assert_eq!((long.status, long.problem().as_str()), (414, "uri-too-long"));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_writes_are_refused_with_every_fault_and_change_nothing() {
    let stack = Stack::start().await;
    let before = stack.as_of().await;
    let faults = json!({"name": "", "year": 1, "rating": 11, "genres": "x", "surprise": 1});
    let too_long = "x".repeat(300 * 1024);
    let cases: Vec<(Method, &str, &str, String, u16, &str)> = vec![
        (Method::POST, "/admin/v1/titles", JSON, faults.to_string(), 422, "invalid-title"),
        (Method::POST, "/admin/v1/titles", JSON, "[]".into(), 422, "invalid-title"),
        (Method::POST, "/admin/v1/titles", JSON, "{".into(), 400, "json-invalid"),
        (Method::POST, "/admin/v1/titles", JSON, String::new(), 400, "json-invalid"),
        (Method::POST, "/admin/v1/titles", JSON, too_long, 413, "body-too-large"),
        (Method::POST, "/admin/v1/titles", "text/plain", "{}".into(), 415, "media-type"),
        (Method::POST, "/admin/v1/titles", JSON, json!({"id": "A B", "name": "x"}).to_string(), 400, "id-invalid"),
        (Method::POST, "/admin/v1/titles", JSON, json!({"name": "???"}).to_string(), 422, "invalid-title"),
        (Method::POST, "/admin/v1/titles", JSON, json!({"id": "heat", "name": "x"}).to_string(), 409, "exists"),
        (Method::PUT, "/admin/v1/titles/heat", JSON, faults.to_string(), 422, "invalid-title"),
        (Method::PUT, "/admin/v1/titles/heat", JSON, json!({"id": "x", "name": "x"}).to_string(), 422, "invalid-title"),
        (Method::PUT, "/admin/v1/titles/UP", JSON, "{}".into(), 400, "id-invalid"),
        (Method::PATCH, "/admin/v1/titles/heat", JSON, faults.to_string(), 422, "invalid-title"),
        (Method::PATCH, "/admin/v1/titles/heat", JSON, "[1]".into(), 400, "json-invalid"),
        (Method::PATCH, "/admin/v1/titles/heat", "application/xml", "{}".into(), 415, "media-type"),
        (Method::PATCH, "/admin/v1/titles/heat?purge=firm", JSON, "{}".into(), 400, "query-invalid"),
        (Method::PATCH, "/admin/v1/titles/heat?purge=soft&purge=hard", JSON, "{}".into(), 400, "query-invalid"),
        (Method::PATCH, "/admin/v1/titles/nope", JSON, "{}".into(), 404, "not-found"),
        (Method::DELETE, "/admin/v1/titles/nope", JSON, String::new(), 404, "not-found"),
        (Method::POST, "/admin/v1/purges", JSON, "{}".into(), 422, "purge-invalid"),
        (Method::POST, "/admin/v1/purges", JSON, json!({"keys": ["a b"]}).to_string(), 422, "purge-invalid"),
        (Method::POST, "/admin/v1/purges", JSON, json!({"keys": ["a"], "all": true}).to_string(), 422, "purge-invalid"),
        (
            Method::POST,
            "/admin/v1/purges",
            JSON,
            json!({"keys": ["a"], "mode": "firm"}).to_string(),
            422,
            "purge-invalid",
        ),
        (Method::GET, "/admin/v1/purges?limit=0", JSON, String::new(), 400, "query-invalid"),
        (Method::GET, "/admin/v1/purges?cursor=x", JSON, String::new(), 400, "query-invalid"),
        (Method::GET, "/admin/v1/purges/x", JSON, String::new(), 400, "seq-invalid"),
        (Method::GET, "/admin/v1/purges/999999", JSON, String::new(), 404, "not-found"),
        (Method::GET, "/admin/v1/titles?limit=x", JSON, String::new(), 400, "query-invalid"),
        (Method::GET, "/admin/v1/titles?cursor=A", JSON, String::new(), 400, "query-invalid"),
        (Method::PUT, "/admin/v1/titles", JSON, "{}".into(), 405, "method-not-allowed"),
        (Method::GET, "/admin/v1/nothing", JSON, String::new(), 404, "not-found"),
    ];
    for (method, path, media_type, body, status, slug) in cases {
        let request = ask(method.clone(), stack.url(path)).bearer_auth(&stack.admin_token).header("if-match", "*");
        let got = send(request.header("content-type", media_type).body(body)).await;
        assert_eq!((got.status, got.problem().as_str()), (status, slug), "{method} {path}: {got:?}");
        if slug == "invalid-title" {
            assert!(got.json()["errors"].as_array().is_some_and(|errors| !errors.is_empty()), "{got:?}");
        }
    }
    assert_eq!(stack.as_of().await, before, "nothing was changed");
    assert_eq!(stack.admin(Method::GET, "/admin/v1/titles/heat", None).await.json()["version"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_say_which_state_they_are_for() {
    let stack = Stack::start().await;
    let patch = |if_match: Option<&'static str>| {
        let request = ask(Method::PATCH, stack.url("/admin/v1/titles/heat")).bearer_auth(&stack.admin_token);
        let request = match if_match {
            Some(tag) => request.header("if-match", tag),
            None => request,
        };
        send(request.header("content-type", JSON).body(json!({"year": 1996}).to_string()))
    };
    let missing = patch(None).await;
    assert_eq!((missing.status, missing.problem().as_str()), (428, "if-match-missing"));
    assert!(missing.body.contains("\\\"v1\\\""), "it says what to send: {missing:?}");
    assert_eq!(patch(Some("\"v9\"")).await.problem(), "changed");
    assert_eq!(patch(Some("W/\"v1\"")).await.problem(), "changed");
    let done = patch(Some("\"v1\"")).await;
    assert_eq!((done.status, done.header("etag")), (200, Some("\"v2\"")), "{done:?}");
    let before = stack.as_of().await;
    let same = patch(Some("\"v2\"")).await;
    assert_eq!((same.status, same.header("etag")), (200, Some("\"v2\"")));
    assert_eq!(stack.as_of().await, before, "a write that changes nothing purges nothing");
    assert_eq!(patch(Some("\"v1\"")).await.status, 412);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_wants_a_token_of_the_right_kind_and_role() {
    let stack = Stack::start().await;
    let token = |audience: &str, role: StaffRole, lifetime_s: u64| {
        let claims =
            AdminClaims { iss: ISSUER.into(), aud: audience.into(), sub: "test".into(), role, sid: None, as_of: None };
        stack.key.sign(claims, e2e::stack::now_s(), lifetime_s).unwrap()
    };
    let call = |method: Method, path: &'static str, token: Option<String>, body: Value| {
        let request = ask(method, stack.url(path)).header("content-type", JSON).header("if-match", "*");
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        send(request.body(body.to_string()))
    };
    let (read, write, purge) = ("/admin/v1/titles", "/admin/v1/titles/heat", "/admin/v1/purges");
    let (viewer, editor) = (token(AUDIENCE_ADMIN, StaffRole::Viewer, 60), token(AUDIENCE_ADMIN, StaffRole::Editor, 60));
    let none = call(Method::GET, read, None, json!({})).await;
    assert_eq!((none.status, none.problem().as_str()), (401, "token-missing"));
    assert_eq!(none.header("www-authenticate"), Some("Bearer"));
    for bad in [
        "nonsense".to_string(),
        token(AUDIENCE_EDGE, StaffRole::Admin, 60),
        token(AUDIENCE_ADMIN, StaffRole::Admin, 31 * 24 * 3600),
    ] {
        assert_eq!(call(Method::GET, read, Some(bad), json!({})).await.problem(), "token-refused");
    }
    assert_eq!(call(Method::GET, read, Some(viewer.clone()), json!({})).await.status, 200);
    assert_eq!(call(Method::PATCH, write, Some(viewer.clone()), json!({"year": 1990})).await.problem(), "role");
    assert_eq!(call(Method::POST, purge, Some(viewer), json!({"keys": ["a"]})).await.problem(), "role");
    assert_eq!(call(Method::POST, purge, Some(editor.clone()), json!({"all": true})).await.problem(), "role");
    assert_eq!(call(Method::POST, purge, Some(editor.clone()), json!({"keys": ["a"]})).await.status, 202);
    let written = call(Method::PATCH, write, Some(editor), json!({"year": 1990})).await;
    assert_eq!((written.status, written.header("cache-control")), (200, Some("no-store, no-transform")));
}
