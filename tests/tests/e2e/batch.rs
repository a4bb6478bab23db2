//! `POST /v1/batch`: many reads in one request, each as if it had come by itself.
use e2e::api::{Api, SHARED};
use e2e::gate::Mode;
use e2e::http::{Got, ask, get, send};
use e2e::stack::{Shape, Stack};
use reqwest::Method;
use serde_json::{Value, json};

async fn post(stack: &Stack, body: impl ToString) -> Got {
    send(ask(Method::POST, stack.url("/v1/batch")).header("content-type", "application/json").body(body.to_string()))
        .await
}

fn of_paths(paths: &[&str]) -> Value {
    json!({ "requests": paths.iter().map(|path| json!({ "path": path })).collect::<Vec<_>>() })
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_answered_in_order_each_with_status_fields_and_body_of_its_own() {
    let stack = Stack::start().await;
    let home = stack.get("/v1/home").await;
    let paths = ["/v1/home", "/v1/titles/none", "/v1/titles/heat?fields=id", "/v1/home?fields=", "/v1/unknown"];
    let got = post(&stack, of_paths(&paths)).await;
    assert_eq!((got.status, got.header("cache-control")), (200, Some("no-store")), "{got:?}");
    assert!(got.cache().contains("bypass"), "{got:?}");
    let got = got.json();
    let statuses: Vec<_> = got["responses"].as_array().unwrap().iter().map(|answer| answer["status"].clone()).collect();
    assert_eq!(statuses, [200, 404, 200, 400, 404]);
    let first = &got["responses"][0];
    assert_eq!(first["body"], home.json());
    assert!(first["headers"]["cache-status"].as_str().unwrap().contains("detail=\"hit"), "{first}");
    assert_eq!(first["headers"]["etag"].as_str().map(|tag| tag.trim_start_matches("W/")), home.header("etag"));
    assert_eq!(first["headers"]["surrogate-key"], Value::Null);
    assert_eq!(got["responses"][1]["body"]["type"], "urn:nextream:problem:not-found");
    assert_eq!(got["responses"][2]["body"], json!({"id": "heat"}));
    let tag = &first["headers"]["etag"];
    let again = post(&stack, json!({"requests": [{"path": "/v1/home", "if_none_match": tag}]})).await.json();
    assert_eq!((&again["responses"][0]["status"], &again["responses"][0]["body"]), (&json!(304), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_are_taken_packed_and_what_a_batch_fills_is_cached() {
    let stack = Stack::start().await;
    let paths: Vec<String> = (1..=20).map(|n| format!("/v1/home?fields=rails.id&limit={n}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let request = ask(Method::POST, stack.url("/v1/batch")).header("accept-encoding", "gzip");
    let response = request.body(of_paths(&paths).to_string()).send().await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let mut unpacked = String::new();
    let packed = response.bytes().await.unwrap();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).unwrap();
    let answers: Value = serde_json::from_str(&unpacked).unwrap();
    let statuses: Vec<_> = answers["responses"].as_array().unwrap().iter().map(|answer| &answer["status"]).collect();
    assert_eq!(statuses, [200; 20], "{answers}");
    assert!(stack.get("/v1/home").await.is_hit());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_hangs_has_its_own_end_and_holds_no_other() {
    let stack = Stack::of(Shape {
        origin_timeout_ms: 60_000,
        vars: vec![("BATCH_TIMEOUT_MS".into(), "400".into())],
        ..Shape::default()
    })
    .await;
    stack.get("/v1/home").await;
    stack.to_origin.set(Mode::Hold);
    let got = post(&stack, of_paths(&["/v1/titles/heat", "/v1/home", "/v1/titles/up"])).await.json();
    let statuses: Vec<_> = got["responses"].as_array().unwrap().iter().map(|answer| answer["status"].clone()).collect();
    assert_eq!(statuses, [504, 200, 504], "{got}");
    assert_eq!(got["responses"][0]["body"]["type"], "urn:nextream:problem:member-timeout");
    stack.to_origin.set(Mode::Open);
    e2e::eventually("what it waited for is stored", || async {
        get(stack.url("/v1/titles/heat")).await.is_hit().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_waits_lends_its_phase_to_no_other_answer() {
    let api = Api::start().await;
    api.answer("/v1/home", &SHARED, "home", "{}");
    api.get("/v1/home", &[]).await;
    let timed = || api.metric("edge_answer_seconds_count{phase=\"hit\"}");
    let before = timed().await;
    api.answer("/v1/genres", &SHARED, "genres", "{}");
    api.upstream.hold(true);
    let url = api.url("/v1/batch");
    let batch = tokio::spawn(async move {
        let body = of_paths(&["/v1/home", "/v1/genres"]).to_string();
        send(ask(Method::POST, url).header("content-type", "application/json").body(body)).await
    });
    e2e::eventually("the slow one is asked for", || async { (api.upstream.count("/v1/genres") > 0).then_some(()) })
        .await;
    for _ in 0..3 {
        assert_eq!(get(api.url("/__edge/health")).await.status, 200);
    }
    api.upstream.hold(false);
    let statuses: Vec<_> =
        batch.await.unwrap().json()["responses"].as_array().unwrap().iter().map(|one| one["status"].clone()).collect();
    assert_eq!(statuses, [200, 200]);
    assert_eq!(timed().await, before, "the batch is one answer, which is no hit, and health has no phase");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_answers_together_have_a_length() {
    let api = Api::start().await;
    let long = json!({"items": "x".repeat(1_900_000)}).to_string();
    api.answer("/v1/home", &SHARED, "home", &long);
    let body = of_paths(&["/v1/home"; 6]).to_string();
    let got = send(ask(Method::POST, api.url("/v1/batch")).header("content-type", "application/json").body(body)).await;
    let got = got.json();
    let answers = got["responses"].as_array().unwrap();
    let (whole, failed): (Vec<&Value>, Vec<&Value>) = answers.iter().partition(|answer| answer["status"] == 200);
    assert_eq!((whole.len(), failed.len()), (4, 2), "whichever come first have the room");
    for answer in failed {
        assert_eq!(
            (&answer["status"], &answer["body"]["type"]),
            (&json!(502), &json!("urn:nextream:problem:member-failed"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_batch_is_refused_whole_and_asks_nobody() {
    let stack = Stack::start().await;
    let before = stack.to_origin.asked() + stack.to_admin.asked();
    for (body, slug) in [
        ("".to_string(), "json-invalid"),
        ("[]".into(), "json-invalid"),
        (r#"{"requests":[{"path":"/v1/home","method":"DELETE"}]}"#.into(), "json-invalid"),
        (of_paths(&[]).to_string(), "batch-invalid"),
        (of_paths(&["/v1/home"; 21]).to_string(), "batch-invalid"),
        (of_paths(&["/admin/v1/titles"]).to_string(), "batch-invalid"),
        (of_paths(&["/v1/batch"]).to_string(), "batch-invalid"),
        (of_paths(&["/v1/batch?x"]).to_string(), "batch-invalid"),
        (of_paths(&["https://elsewhere/v1/home"]).to_string(), "batch-invalid"),
        (of_paths(&["/v1/home#a"]).to_string(), "batch-invalid"),
        (of_paths(&["/v1/ home"]).to_string(), "batch-invalid"),
        (r#"{"requests":[{"path":"/v1/home","if_none_match":"\"a\u0000\""}]}"#.into(), "batch-invalid"),
        (r#"{"requests":[{"path":"/v1/home","min_as_of":"a:1\r\nx: y"}]}"#.into(), "batch-invalid"),
        (r#"{"requests":[{"path":"/v1/home","if_none_match":"\"ä\""}]}"#.into(), "batch-invalid"),
    ] {
        let got = post(&stack, &body).await;
        assert_eq!((got.status, got.problem().as_str()), (400, slug), "{body}");
    }
    let fault = post(&stack, of_paths(&["/v1/home", "/x"])).await.json();
    assert_eq!(fault["errors"][0]["at"], "/requests/1/path");
    let long = post(&stack, "x".repeat(70_000)).await;
    assert_eq!((long.status, long.problem().as_str()), (413, "body-too-large"));
    let read = stack.get("/v1/batch").await;
    assert_eq!((read.status, read.problem().as_str(), read.header("allow")), (405, "method-not-allowed", Some("POST")));
    // A path that the platform would read as another one.
    for trick in ["/v1/../admin/v1/titles", "/v1/./home", "/v1/%2e%2e/admin/v1/titles", "/v1/x/../../admin/v1/purges"] {
        let got = post(&stack, of_paths(&[trick])).await.json();
        assert!(matches!(got["responses"][0]["status"].as_u64(), Some(400 | 404)), "{trick}: {got}");
    }
    assert_eq!(stack.to_origin.asked() + stack.to_admin.asked(), before);
}
