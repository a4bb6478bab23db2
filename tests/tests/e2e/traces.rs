//! Ids and the access log: one line a request, in the edge's own words.
use e2e::api::{Api, SHARED};
use e2e::eventually;
use e2e::http::{Got, ask, send};
use e2e::stack::{Proxy, Shape, Stack};
use reqwest::Method;
use serde_json::Value;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn get(stack: &Stack, path: &str, fields: &[(&str, &str)]) -> Got {
    let request = ask(Method::GET, stack.url(path));
    send(fields.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

fn log(stack: &Stack) -> String {
    std::fs::read_to_string(stack.state().join("edge-1.log")).unwrap()
}

fn lines_of<'a>(log: &'a str, request_id: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains("\"log\":\"access\"") && line.contains(request_id)).collect()
}

/// The log's line with this request id.
async fn line(stack: &Stack, request_id: &str) -> Value {
    eventually("the line", || async {
        let log = log(stack);
        let line = *lines_of(&log, request_id).first()?;
        let json = &line[line.find('{')?..=line.rfind('}')?];
        serde_json::from_str::<Value>(json).ok()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_has_one_line_with_how_it_was_answered_and_its_id_goes_to_the_client() {
    let mut stack = Stack::start().await;
    let mut ids = Vec::new();
    for (path, route, status, phase, reason) in [
        ("/v1/titles/heat", "/v1/titles/*", 200, "miss", Some("not-stored")),
        ("/v1/titles/heat", "/v1/titles/*", 200, "hit", None),
        ("/v1/titles/heat", "/v1/titles/*", 200, "hit", None),
        ("/v1/titles/heat?fields=id", "/v1/titles/*", 200, "hit", None),
        ("/auth/nothing?password=secret", "/auth/*", 404, "bypass", Some("route")),
        ("/nothing/here", "*", 404, "failed", Some("route")),
    ] {
        let got = stack.get(path).await;
        let id = got.header("x-request-id").unwrap_or_else(|| panic!("{got:?}")).to_string();
        assert_eq!(id.len(), 16);
        ids.push(id.clone());
        let line = line(&stack, &id).await;
        assert_eq!(
            (&line["route"], &line["status"], &line["phase"], &line["method"]),
            (&route.into(), &status.into(), &phase.into(), &"GET".into()),
            "{line}"
        );
        assert_eq!(line.get("reason").and_then(Value::as_str), reason, "{path}: {line}");
        assert!(line["duration_ms"].is_u64() && line["trace_id"].as_str().is_some_and(|id| id.len() == 32), "{line}");
        if phase == "hit" {
            assert_eq!(line["tier"], "memory", "{line}");
        }
    }
    let purged = serde_json::json!({"keys": ["title:heat"], "mode": "hard"});
    stack.applied(&stack.admin(Method::POST, "/admin/v1/purges", Some(purged)).await).await;
    let got = stack.get("/v1/titles/heat").await;
    let purged = line(&stack, got.header("x-request-id").unwrap()).await;
    assert_eq!((&purged["phase"], &purged["reason"]), (&"expired".into(), &"purged-hard".into()), "{purged}");
    // What origin's failure is logged with has none either.
    stack.kill_origin();
    let got = stack.get("/v1/titles/none").await;
    let failed = line(&stack, got.header("x-request-id").unwrap()).await;
    assert_eq!((&failed["phase"], &failed["reason"]), (&"failed".into(), &"origin-failed".into()), "{failed}");
    for path in
        ["/v1/search?q=secret", "/auth/login?password=secret", "/v1/titles/secret", "/auth/secret", "/v1/me/secret"]
    {
        let got = get(&stack, path, &[]).await;
        let id = got.header("x-request-id").unwrap_or_else(|| panic!("{got:?}")).to_string();
        line(&stack, &id).await;
        ids.push(id);
    }
    let log = log(&stack);
    for id in ids {
        assert_eq!(lines_of(&log, &id).len(), 1, "{id}: {log}");
    }
    assert!(log.contains("service default, /v1/titles/*: "), "the failure is there: {log}");
    assert!(!log.contains("secret"), "no client's word in the log: {log}");
}

/// An alert sends whoever gets it here to find the route.
#[tokio::test(flavor = "multi_thread")]
async fn why_an_answer_was_not_stored_is_in_its_line() {
    let upstream = e2e::upstream::Upstream::start().await;
    let vars = vec![("SERVICES".into(), format!("/v1/people http://127.0.0.1:{}", upstream.port))];
    let stack = Stack::of(Shape { vars, ..Shape::default() }).await;
    let unstored = async |path: &str| {
        let got = stack.get(path).await;
        let line = line(&stack, got.header("x-request-id").unwrap_or_else(|| panic!("{got:?}"))).await;
        (line["route"].as_str().map(String::from), line.get("unstored").cloned())
    };
    let as_of = stack.as_of().await.to_string();
    let long = "k".repeat(1_025);
    let fields = [("cdn-cache-control", "max-age=60"), ("surrogate-key", long.as_str()), ("surrogate-as-of", &as_of)];
    upstream.answer("/v1/people/ada", &fields, "{}");
    for _ in 0..2 {
        assert_eq!(unstored("/v1/people/ada").await, (Some("/v1/people/*".into()), Some("bad-surrogate".into())));
    }
    // What is stored, and what comes out of the cache, has no such member.
    for _ in 0..2 {
        assert_eq!(unstored("/v1/titles/heat").await, (Some("/v1/titles/*".into()), None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_trace_goes_on_and_its_other_words_do_not_get_into_the_log() {
    let stack = Stack::start().await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    for path in ["/v1/titles/heat", "/v1/titles/heat", "/admin/v1/titles"] {
        let got = get(&stack, path, &[("traceparent", &parent), ("x-request-id", "mine")]).await;
        let id = got.header("x-request-id").unwrap();
        assert_ne!(id, "mine");
        assert_eq!(line(&stack, id).await["trace_id"], TRACE, "{path}");
    }
    let forged = get(&stack, "/v1/titles/up", &[("traceparent", "00-evil\",\"phase\":\"hit")]).await;
    let line = line(&stack, forged.header("x-request-id").unwrap()).await;
    assert_eq!(line["phase"], "miss", "{line}");
    let log = log(&stack);
    assert!(!log.contains("evil") && !log.contains("\"mine\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn origin_is_told_the_trace_with_our_span_as_its_parent() {
    let stack = Stack::start().await;
    let upstream = e2e::upstream::Upstream::start().await;
    drop(stack);
    let stack = Stack::of(Shape {
        vars: vec![("SERVICES".into(), format!("/media http://127.0.0.1:{}", upstream.port))],
        ..Shape::default()
    })
    .await;
    upstream.answer("/media/a", &[("cache-control", "no-store")], "a");
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let fields = [("traceparent", parent.as_str()), ("tracestate", "a=1"), ("x-request-id", "mine")];
    let got = get(&stack, "/media/a", &fields).await;
    let (asked, id) = (upstream.last(), got.header("x-request-id").unwrap().to_string());
    assert_eq!(asked.headers["traceparent"], format!("00-{TRACE}-{id}-01"));
    assert_eq!((asked.headers["x-request-id"].as_str(), asked.headers["tracestate"].as_str()), (id.as_str(), "a=1"));
    let got = get(&stack, "/media/a", &[("traceparent", "garbage"), ("tracestate", "a=1")]).await;
    let (asked, id) = (upstream.last(), got.header("x-request-id").unwrap().to_string());
    assert!(asked.headers["traceparent"].contains(&format!("-{id}-00")), "{asked:?}");
    assert_eq!(asked.headers.get("tracestate"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_passes_traces_on_as_they_are() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[("cache-control", "no-store")], "a");
    let got = send(ask(Method::GET, proxy.url("/a")).header("x-request-id", "mine").header("traceparent", "any")).await;
    assert_eq!(got.header("x-request-id"), None);
    let asked = proxy.upstream.last();
    assert_eq!((asked.headers["x-request-id"].as_str(), asked.headers["traceparent"].as_str()), ("mine", "any"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_answered_with_the_id_of_another() {
    for log in ["off", "errors", "sampled:1000000", "all"] {
        let api = Api::of(1, &[("ACCESS_LOG", log)]).await;
        let of_origin = |path: &str| {
            let fields = SHARED.into_iter().chain([("x-request-id", "of-who-asked-first")]).collect::<Vec<_>>();
            api.answer(path, &fields, "home", r#"{"a":1}"#);
        };
        of_origin("/v1/home");
        let debug = api.debug_token();
        let mut ids = Vec::new();
        // Missed, found, and found by the short way, which is not taken past the lease of the view; out of KV after memory has
        // lost it is the same code.
        let id_of = async |fields: &[(&str, &str)]| {
            let got = api.get("/v1/home", fields).await;
            assert_eq!(got.status, 200, "{got:?}");
            got.header("x-request-id").map(String::from)
        };
        for fields in [&[][..], &[], &[("edge-debug", debug.as_str())]] {
            ids.extend(id_of(fields).await);
        }
        let mut tries = 0..100;
        while api.metric("edge_ready_hits_total").await == 0 {
            assert!(tries.next().is_some(), "{log}: no short way was taken");
            for _ in 0..4 {
                ids.extend(id_of(&[]).await);
            }
        }
        let members = r#"{"requests":[{"path":"/v1/home"},{"path":"/v1/home?fields=a"}]}"#;
        let batch = send(ask(Method::POST, api.url("/v1/batch")).body(members)).await;
        for member in batch.json()["responses"].as_array().unwrap() {
            assert_eq!(member["status"], 200, "{batch:?}");
            ids.extend(member["headers"]["x-request-id"].as_str().map(String::from));
        }
        ids.extend(batch.header("x-request-id").map(String::from));
        assert!(!ids.iter().any(|id| id == "of-who-asked-first"), "{log}: {ids:?}");
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "{log}: an id twice: {ids:?}");
    }
}
