//! Who asks too often is told so, by class of routes and by client, and costs no service anything.
use e2e::api::{Api, SHARED};
use e2e::http::{Got, ask, send};
use e2e::stack::{Shape, Stack};
use e2e::upstream::Upstream;
use reqwest::Method;
use serde_json::json;
use std::time::{Duration, Instant};

async fn stack(limits: &str) -> Stack {
    Stack::of(Shape { isolates: 2, vars: vec![("LIMITS".into(), limits.into())], ..Shape::default() }).await
}

async fn as_client(stack: &Stack, isolate: usize, method: Method, path: &str, address: &str) -> Got {
    let url = format!("{}{path}", stack.fleet.isolate_url(0, isolate));
    send(ask(method, url).header("cf-connecting-ip", address).header("content-length", "0")).await
}

fn is_refused(got: &Got, class: &str) {
    assert_eq!((got.status, got.problem().as_str()), (429, "rate-limited"), "{got:?}");
    let wait_s: u64 = got.header("retry-after").expect("Retry-After").parse().unwrap();
    assert!((1..=60).contains(&wait_s), "{got:?}");
    assert_eq!(got.header("ratelimit"), Some(format!("\"{class}\";r=0;t={wait_s}").as_str()));
    assert!(got.header("ratelimit-policy").unwrap().starts_with(&format!("\"{class}\";q=")), "{got:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_class_has_its_own_allowance_and_each_client_too() {
    let stack = stack("admin=2/60 auth=3/60 reads=5/60").await;
    for (path, class, quota) in
        [("/admin/v1/titles", "admin", 2), ("/auth/login", "auth", 3), ("/v1/genres", "reads", 5)]
    {
        for client in ["192.0.2.1", "192.0.2.2"] {
            for n in 0..quota {
                let got = as_client(&stack, 0, Method::GET, path, client).await;
                assert_ne!(got.status, 429, "{path} {n}: {got:?}");
                assert_eq!(got.header("ratelimit"), None, "what is left nobody knows");
            }
            is_refused(&as_client(&stack, 0, Method::GET, path, client).await, class);
        }
    }
    // A household is one client.
    for n in 0..2 {
        as_client(&stack, 0, Method::GET, "/admin/v1/titles", &format!("2001:db8:1:2::{n}")).await;
    }
    is_refused(&as_client(&stack, 0, Method::GET, "/admin/v1/titles", "2001:db8:1:2:ffff::1").await, "admin");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_log_ins_are_used_up_sessions_are_refreshed_and_ended_within_a_limit_of_their_own() {
    let stack = stack("auth=3/60 refresh=3/60").await;
    let post = async |path: &str, body: serde_json::Value| {
        let request = ask(Method::POST, format!("{}{path}", stack.fleet.isolate_url(0, 0)));
        let request = request.header("cf-connecting-ip", "192.0.2.1").header("content-type", "application/json");
        send(request.body(body.to_string())).await
    };
    let account = json!({"email": "ada@example.org", "password": "correct horse"});
    post("/auth/register", account.clone()).await;
    let session = post("/auth/login", account.clone()).await;
    assert_eq!(session.header("ratelimit-policy"), Some("\"auth\";q=3;w=60"), "{session:?}");
    let until_refused = async |path: &str, class: &str, body: serde_json::Value| {
        let what = format!("{path} is refused");
        let refusal = e2e::eventually(&what, || async {
            let got = post(path, body.clone()).await;
            (got.status == 429).then_some(got)
        });
        is_refused(&refusal.await, class);
    };
    until_refused("/auth/login", "auth", account).await;
    let session = post("/auth/refresh", json!({"refresh_token": session.json()["refresh_token"]})).await;
    assert_eq!(
        (session.status, session.header("ratelimit-policy")),
        (200, Some("\"refresh\";q=3;w=60")),
        "{session:?}"
    );
    let token = json!({"refresh_token": session.json()["refresh_token"]});
    assert_eq!(post("/auth/logout", token.clone()).await.status, 204);
    for path in ["/auth/refresh", "/auth/logout", "/auth/staff/refresh", "/auth/staff/logout"] {
        until_refused(path, "refresh", token.clone()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_counts_what_the_isolates_of_a_location_cannot_see_of_each_other() {
    let stack = stack("admin=6/60 search=6/60").await;
    // The platform's windows begin with the minute; one that ends meanwhile would count anew.
    let second = e2e::stack::now_s() % 60;
    if second > 50 {
        tokio::time::sleep(Duration::from_secs(61 - second)).await;
    }
    let mut refused = 0;
    for n in 0..12 {
        let got = as_client(&stack, n % 2, Method::GET, "/admin/v1/titles", "192.0.2.9").await;
        refused += u32::from(got.status == 429);
        if got.status != 429 {
            assert_eq!(got.header("ratelimit-policy"), Some("\"admin\";q=6;w=60"), "{got:?}");
        }
    }
    assert_eq!(refused, 6, "six for each isolate by itself, six for both together");
}

/// A location whose counter can be looked at, and answers this.
async fn with_counter(limits: &str, success: bool) -> (Stack, Upstream) {
    let counter = Upstream::start().await;
    counter.answer(COUNTED, &[("content-type", "application/json")], &format!("{{\"success\":{success}}}"));
    let counters = Some(format!("127.0.0.1:{}", counter.port));
    let vars = vec![("LIMITS".into(), limits.into())];
    (Stack::of(Shape { vars, counters, ..Shape::default() }).await, counter)
}

/// Where the platform's binding asks.
const COUNTED: &str = "/limit";

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_asks_no_service_and_no_counter() {
    let (stack, counter) = with_counter("admin=1/60", true).await;
    as_client(&stack, 0, Method::GET, "/admin/v1/titles", "192.0.2.1").await;
    let before = stack.to_admin.asked();
    assert_eq!(counter.count(COUNTED), 1, "who is not refused is counted by the platform, too");
    let asked: serde_json::Value = serde_json::from_slice(&counter.last().body).unwrap();
    assert_eq!((&asked["key"], &asked["limit"]), (&"192.0.2.1".into(), &1.into()), "{asked}");
    for _ in 0..20 {
        is_refused(&as_client(&stack, 0, Method::POST, "/admin/v1/titles", "192.0.2.1").await, "admin");
    }
    assert_eq!(stack.to_admin.asked(), before);
    assert_eq!(counter.count(COUNTED), 1);
    as_client(&stack, 0, Method::GET, "/admin/v1/titles", "192.0.2.2").await;
    assert_eq!(counter.count(COUNTED), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_platforms_counter_refuses_asks_no_service() {
    let (stack, counter) = with_counter("admin=5/60", false).await;
    let before = stack.to_admin.asked();
    is_refused(&as_client(&stack, 0, Method::GET, "/admin/v1/titles", "192.0.2.1").await, "admin");
    assert_eq!((stack.to_admin.asked(), counter.count(COUNTED)), (before, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_that_is_away_stops_nobody_and_holds_nobody_up_for_long() {
    const COUNTER: Duration = Duration::from_millis(250);
    let (stack, counter) = with_counter("admin=100/60", false).await;
    // It never answers while this lasts, so each of these was given up.
    counter.hold(true);
    let mut quickest = Duration::MAX;
    for n in 1..=8 {
        let began = Instant::now();
        let got = as_client(&stack, 0, Method::GET, "/admin/v1/titles", "192.0.2.1");
        let got = tokio::time::timeout(Duration::from_secs(60), got).await.expect("it waits for the counter");
        quickest = quickest.min(began.elapsed());
        assert_eq!((got.status, got.problem().as_str()), (401, "token-missing"), "the service says so: {got:?}");
        assert_eq!(counter.count(COUNTED), n);
    }
    // It was waited for; and a busy machine may be late now and then, not each time.
    assert!((COUNTER - Duration::from_millis(10)..4 * COUNTER).contains(&quickest), "{quickest:?}");
    counter.hold(false);
    is_refused(&as_client(&stack, 0, Method::GET, "/admin/v1/titles", "192.0.2.1").await, "admin");
    counter.script(COUNTED, 500, &[], "broken");
    drop(counter);
    let got = as_client(&stack, 0, Method::GET, "/admin/v1/titles", "192.0.2.1").await;
    assert_eq!(got.problem(), "token-missing", "nobody is there to count: {got:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_counted_by_its_members_too() {
    let stack = stack("reads=3/60").await;
    let member = r#"{"path":"/v1/genres"}"#;
    let body = format!("{{\"requests\":[{}]}}", [member; 5].join(","));
    let got = send(ask(Method::POST, stack.url("/v1/batch")).header("cf-connecting-ip", "192.0.2.1").body(body)).await;
    let statuses: Vec<_> =
        got.json()["responses"].as_array().unwrap().iter().map(|answer| answer["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 2, "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_are_counted_on_the_short_way_as_well() {
    let stack = stack("reads=60/3600").await;
    let mut statuses = Vec::new();
    // A minute for each: none is given back meanwhile.
    for _ in 0..70 {
        statuses.push(as_client(&stack, 0, Method::GET, "/v1/home", "192.0.2.1").await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 60, "{statuses:?}");
    is_refused(&as_client(&stack, 0, Method::GET, "/v1/home", "192.0.2.1").await, "reads");
    assert_eq!(as_client(&stack, 0, Method::GET, "/v1/home", "192.0.2.2").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_longer_than_a_service_reads_are_refused() {
    let stack = Stack::start().await;
    let before = stack.to_origin.asked() + stack.to_admin.asked();
    for path in ["/v1/me", "/admin/v1/titles", "/v1/nothing"] {
        let got = send(ask(Method::GET, stack.url(path)).header("x-long", "a".repeat(17_000))).await;
        assert_eq!((got.status, got.problem().as_str()), (431, "fields-too-large"), "{path}");
    }
    assert_eq!(stack.to_origin.asked() + stack.to_admin.asked(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_shared_documents_long_fields_change_nothing_whichever_way_they_are_answered() {
    let api = Api::start().await;
    let long = "a".repeat(17_000);
    let trace = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let state = format!("a={long}");
    let (tag, month) = (format!("\"{long}\""), ("if-modified-since", "never"));
    for fields in [
        &[("x-long", long.as_str())][..],
        &[trace, ("tracestate", &state)],
        &[("sec-purpose", &long)],
        &[("if-none-match", &tag)],
        &[("if-none-match", &tag), month],
        &[("x-long", &long), month],
    ] {
        api.purge("hard", &["home"]).await;
        api.answer("/v1/home", &SHARED, "home", r#"{"a":1}"#);
        // Nothing is stored; then it is; then it is answered the short way, if nothing is guarded.
        for round in 0..4 {
            for path in ["/v1/home", "/v1/home?fields=a"] {
                let got = api.get(path, fields).await;
                assert_eq!(got.status, 200, "{round}, {path}, {}: {got:?}", fields[0].0);
            }
        }
        let told = api.upstream.last().headers;
        assert!(told.values().all(|value| value.len() < 1_000), "{told:?}");
    }
}
