//! The service over its real router and a real database: what must hold between a write and its purge.
mod common;

use axum::http::StatusCode;
use common::program::origin_over;
use common::{Database, Log, Service, text, until};
use futures_util::FutureExt;
use kv_schemas::{LogId, PurgeAck, PurgeBatch, PurgeMode};
use origin::edges::Edges;
use origin::http::{App, Role, router};
use origin::purge::{Dispatcher, NOTE_PAUSE};
use origin::schedule;
use origin::store::{Expiring, LoggedPurge, Store};
use origin::sweep::{self, Retention, Swept};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_write_whose_purge_cannot_be_logged_never_was() {
    let service = Service::start().await;
    assert_eq!(service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await.status(), StatusCode::CREATED);
    let before = service.app.store.snapshot().await.unwrap().as_of;
    service.database.refuse_inserts("purge_log").await;
    for (method, path, body) in [
        ("PATCH", "/admin/v1/titles/heat", r#"{"name":"Heat II"}"#),
        ("DELETE", "/admin/v1/titles/heat", ""),
        ("POST", "/admin/v1/titles", r#"{"name":"Up"}"#),
    ] {
        let response = service.call(method, path, body).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = text(response).await;
        assert!(body.contains("\"internal\"") || body.contains("problem:internal"), "{body}");
        assert!(!body.contains("full") && !body.contains("purge_log"), "internals leave: {body}");
    }
    let mut snapshot = service.app.store.snapshot().await.unwrap();
    assert_eq!(snapshot.as_of, before);
    assert_eq!(snapshot.title("heat").await.unwrap().unwrap().input.name, "Heat");
    assert!(snapshot.title("up").await.unwrap().is_none());
}

#[tokio::test]
async fn a_purge_is_never_logged_without_its_write() {
    let service = Service::start().await;
    service.database.refuse_inserts("title").await;
    let before = service.app.store.snapshot().await.unwrap().as_of;
    let response = service.call("POST", "/admin/v1/titles", r#"{"name":"Up"}"#).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(service.app.store.snapshot().await.unwrap().as_of, before);
}

#[tokio::test]
async fn reads_say_the_state_they_were_read_at_and_never_a_later_one() {
    let service = Service::start().await;
    service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat 0"}"#).await;
    let writer = async {
        for n in 1..30 {
            service.call("PATCH", "/admin/v1/titles/heat", &format!("{{\"name\":\"Heat {n}\"}}")).await;
        }
    };
    let reader = async {
        for _ in 0..60 {
            let response = service.call("GET", "/v1/titles/heat", "").await;
            let as_of = response.headers()["surrogate-as-of"].to_str().unwrap().to_string();
            let seq: u64 = as_of.rsplit(':').next().unwrap().parse().unwrap();
            let body = text(response).await;
            // Purge 1 created "Heat 0", purge n + 1 made "Heat n".
            assert!(body.contains(&format!("\"Heat {}\"", seq - 1)), "{as_of}: {body}");
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(writer, reader);
}

#[tokio::test]
async fn concurrent_writes_get_gapless_numbers_in_order_of_commit() {
    let service = Arc::new(Service::start().await);
    let writers = (0..20).map(|n| {
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            let path = format!("/admin/v1/titles/t{n}");
            assert_eq!(service.call("PUT", &path, r#"{"name":"T"}"#).await.status(), StatusCode::CREATED);
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let purges = service.app.store.snapshot().await.unwrap().purges_after(0, 100).await.unwrap();
    let seqs: Vec<u64> = purges.iter().map(|purge| purge.seq).collect();
    assert_eq!(seqs, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_title_appears_and_goes_at_its_time_each_with_its_purge() {
    let service = Service::start().await;
    let moment = |ms: i64| jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
    let now = jiff::Timestamp::now().as_millisecond();
    let window = format!(
        r#"{{"name":"Heat","genres":["Crime"],"available_from":"{}","available_until":"{}"}}"#,
        moment(now + 3_000),
        moment(now + 6_000)
    );
    let written = service.call("PUT", "/admin/v1/titles/heat", &window).await;
    assert_eq!(written.status(), StatusCode::CREATED);
    assert!(text(written).await.contains("\"visible\":false"));
    let early = service.call("GET", "/v1/titles/heat", "").await;
    assert_eq!(early.status(), StatusCode::NOT_FOUND);
    let fresh_s = |response: &axum::response::Response| -> u64 {
        let policy = response.headers()["cdn-cache-control"].to_str().unwrap();
        let age = policy.strip_prefix("max-age=").and_then(|age| age.parse().ok());
        age.unwrap_or_else(|| panic!("more than max-age: {policy}"))
    };
    assert!(fresh_s(&early) < 3, "fresh until it appears, in whole seconds");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let schedule = tokio::spawn(schedule::run(service.app.store.clone(), stopped));
    let until = |status: StatusCode| {
        let service = &service;
        async move {
            for _ in 0..2_000 {
                let response = service.call("GET", "/v1/titles/heat", "").await;
                if response.status() == status {
                    return response;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            panic!("never {status}");
        }
    };
    let shown = until(StatusCode::OK).await;
    assert!(jiff::Timestamp::now().as_millisecond() >= now + 3_000, "not before its time");
    assert!(fresh_s(&shown) < 3, "it outlives its window in no way, not even as stale");
    until(StatusCode::NOT_FOUND).await;
    assert!(jiff::Timestamp::now().as_millisecond() >= now + 6_000, "not before its time");
    // The second purge may be a moment behind: whoever reads goes by the time itself.
    let mut purges = Vec::new();
    for _ in 0..500 {
        purges = service.app.store.snapshot().await.unwrap().purges_after(1, 10).await.unwrap();
        if purges.len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let brief: Vec<_> = purges.iter().map(|p| (p.mode, p.reason.as_deref(), p.actor.as_deref())).collect();
    assert_eq!(
        brief,
        [(PurgeMode::Soft, Some("appears"), Some("schedule")), (PurgeMode::Hard, Some("goes"), Some("schedule"))]
    );
    let keys = |purge: &kv_schemas::Purge| purge.keys.iter().map(|key| key.to_string()).collect::<Vec<_>>().join(" ");
    let of = |list: &str| {
        format!(
            "{list}:by-added {list}:by-name {list}:by-name:202 {list}:by-rating {list}:by-rating:0 {list}:by-year \
             {list}:by-year:0"
        )
    };
    let [all, crime] = ["catalog", "genre:crime"].map(of);
    assert_eq!(
        keys(&purges[0]),
        format!("card:heat {all} crowd:d4 {crime} genres search-far search:hea title:heat unseen:heat")
    );
    stop.send(true).unwrap();
    schedule.await.unwrap();
}

#[tokio::test]
async fn a_title_whose_time_is_over_is_not_seen_even_if_no_schedule_runs() {
    let service = Service::start().await;
    let soon = jiff::Timestamp::from_millisecond(jiff::Timestamp::now().as_millisecond() + 3_000).unwrap();
    let body = format!(r#"{{"name":"Heat","genres":["Crime"],"available_until":"{soon}"}}"#);
    service.call("PUT", "/admin/v1/titles/heat", &body).await;
    for page in ["/v1/titles/heat", "/v1/catalog", "/v1/catalog?genre=crime"] {
        assert!(text(service.call("GET", page, "").await).await.contains("Heat"), "{page}");
    }
    tokio::time::sleep(Duration::from_millis(3_020)).await;
    for page in ["/v1/titles/heat", "/v1/catalog", "/v1/catalog?genre=crime"] {
        assert!(!text(service.call("GET", page, "").await).await.contains("Heat"), "{page}");
    }
}

// On one thread: what is spawned does not run before the client has left.
#[tokio::test]
async fn a_commit_goes_on_and_its_purge_is_told_though_whoever_asked_for_it_has_gone() {
    let service = Service::start().await;
    let store = service.app.store.clone();
    let mut write = store.write().await.unwrap();
    let purge = LoggedPurge { keys: &[], mode: PurgeMode::Soft, reason: None, actor: None };
    let seq = write.purge(purge).await.unwrap();
    // The client leaves, or its time is over, in the middle of the commit.
    assert!(write.commit().now_or_never().is_none());
    for told in [&store.committed, &store.changed] {
        tokio::time::timeout(Duration::from_secs(5), told.notified()).await.expect("the dispatcher is not told");
    }
    assert_eq!(store.snapshot().await.unwrap().as_of.seq, seq);
}

#[tokio::test]
async fn the_log_is_listed_by_filter_and_cursor() {
    let service = Service::start().await;
    for n in 1..=5 {
        let mode = if n % 2 == 0 { "soft" } else { "hard" };
        let body = format!(r#"{{"keys":["k{n}","every_one","a%\""],"mode":"{mode}","reason":"r{n}"}}"#);
        assert_eq!(service.call("POST", "/admin/v1/purges", &body).await.status(), StatusCode::ACCEPTED);
    }
    let seqs = |query: &str| {
        let path = format!("/admin/v1/purges?{query}");
        let service = &service;
        async move {
            let body: serde_json::Value =
                serde_json::from_str(&text(service.call("GET", &path, "").await).await).unwrap();
            let seqs: Vec<u64> = body["items"].as_array().unwrap().iter().map(|p| p["seq"].as_u64().unwrap()).collect();
            (seqs, body["next_cursor"].as_str().map(String::from))
        }
    };
    assert_eq!(seqs("").await, (vec![5, 4, 3, 2, 1], None));
    assert_eq!(seqs("limit=2").await, (vec![5, 4], Some("4".into())));
    assert_eq!(seqs("limit=2&cursor=4").await, (vec![3, 2], Some("2".into())));
    assert_eq!(seqs("key=k3").await.0, [3]);
    assert_eq!(seqs("key=every_one").await.0.len(), 5);
    assert_eq!(seqs("key=everyXone").await.0, [0u64; 0], "no wildcard");
    assert_eq!(seqs("key=Every_one").await.0, [0u64; 0], "capitals make other keys");
    assert_eq!(seqs("key=a%25%22").await.0.len(), 5);
    assert_eq!(seqs("key=k").await.0, [0u64; 0], "whole keys");
    assert_eq!(seqs("mode=soft").await.0, [4, 2]);
    assert_eq!(seqs("actor=test&mode=hard").await.0, [5, 3, 1]);
    assert_eq!(seqs("actor=nobody").await.0, [0u64; 0]);
    assert_eq!(seqs("state=pending").await.0.len(), 5);
    assert_eq!(seqs("state=accepted").await.0, [0u64; 0]);
    assert_eq!(seqs("until=1990-01-01T00:00:00Z").await.0, [0u64; 0]);
    let bad = service.call("GET", "/admin/v1/purges?mode=firm&state=gone&key=a%20b&from=yesterday&limit=0", "").await;
    assert_eq!(bad.status(), StatusCode::BAD_REQUEST);
    let body: serde_json::Value = serde_json::from_str(&text(bad).await).unwrap();
    let mut at: Vec<_> = body["errors"].as_array().unwrap().iter().map(|fault| fault["at"].as_str().unwrap()).collect();
    at.sort_unstable();
    assert_eq!(at, ["from", "key", "limit", "mode", "state"]);
}

#[tokio::test]
async fn a_filtered_list_looks_at_a_bounded_part_and_goes_on_by_cursor() {
    let service = Service::start().await;
    service.call("POST", "/admin/v1/purges", r#"{"keys":["rare"]}"#).await;
    let fill = "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 10101)
         INSERT INTO purge_log (seq, keys, everything, mode, committed_at_ms) SELECT i, '[\"k\"]', 0, 'soft', 0 FROM n;
         UPDATE log_head SET seq = 10101";
    service.database.sql(fill, fill).await;
    let mut path = "/admin/v1/purges?key=rare".to_string();
    let mut pages = 0;
    loop {
        let body: serde_json::Value = serde_json::from_str(&text(service.call("GET", &path, "").await).await).unwrap();
        pages += 1;
        if body["items"][0]["seq"] == 1 {
            break;
        }
        path = format!("/admin/v1/purges?key=rare&cursor={}", body["next_cursor"].as_str().expect("there is more"));
    }
    assert_eq!(pages, 2);
}

#[tokio::test]
async fn whatever_a_purge_says_of_itself_it_can_be_delivered() {
    let service = Service::start().await;
    let note = "é".repeat(400);
    let mut write = service.app.store.write().await.unwrap();
    let purge = LoggedPurge { keys: &[], mode: PurgeMode::Soft, reason: Some(&note), actor: Some(&note) };
    write.purge(purge).await.unwrap();
    write.commit().await.unwrap();
    let pulled = async || {
        let mut snapshot = service.app.store.snapshot().await.unwrap();
        let purges = snapshot.purges_after(0, 10).await.unwrap();
        let log_id = snapshot.as_of.log_id.clone();
        let batch = PurgeBatch { log_id, replaces: Vec::new(), first_seq: 1, after_mark: 0, challenge: 0, purges };
        PurgeBatch::read(&serde_json::to_vec(&batch).unwrap())
    };
    let logged = pulled().await.unwrap().purges.remove(0);
    assert_eq!(logged.actor.as_deref(), Some("é".repeat(250).as_str()), "cut, between characters");
    assert_eq!(logged.reason, logged.actor);
    // What an earlier release has committed stands in the way of all that comes after it.
    let earlier = format!("UPDATE purge_log SET actor = '{note}', reason = '{note}'");
    service.database.sql(&earlier, &earlier).await;
    assert_eq!(pulled().await.unwrap().purges, [logged]);
}

#[tokio::test]
async fn a_receipt_says_when_the_edge_cannot_be_asked_and_waits_no_longer_than_told() {
    let service = Service::start().await;
    service.call("POST", "/admin/v1/purges", r#"{"keys":["a"]}"#).await;
    let began = std::time::Instant::now();
    let waited = service.call("GET", "/admin/v1/purges/1?wait=applied&timeout_ms=300", "").await;
    let body: serde_json::Value = serde_json::from_str(&text(waited).await).unwrap();
    assert_eq!(
        (body["state"].as_str(), body["edge_unknown"].as_str()),
        (Some("pending"), Some("no edge is configured"))
    );
    assert!(began.elapsed().as_millis() >= 300);
    for bad in ["wait=gone", "wait=pending", "timeout_ms=9001", "timeout_ms=x"] {
        let response = service.call("GET", &format!("/admin/v1/purges/1?{bad}"), "").await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(service.call("GET", "/admin/v1/purges/2", "").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn who_waits_for_a_receipt_takes_no_place_of_those_who_read() {
    let limits = ["admin-read=1/0/0", "admin-wait=1/0/0"].map(|limit| limit.parse().unwrap());
    let service = Arc::new(Service::shaped(Database::fresh(), &[Role::Admin], &limits).await);
    service.call("POST", "/admin/v1/purges", r#"{"keys":["a"]}"#).await;
    let waiter = Arc::clone(&service);
    let waits = tokio::spawn(async move {
        waiter.call("GET", "/admin/v1/purges/1?wait=applied&timeout_ms=2000", "").await.status()
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    for path in ["/admin/v1/titles", "/admin/v1/purges/1"] {
        assert_eq!(service.call("GET", path, "").await.status(), StatusCode::OK, "{path}");
    }
    let refused = service.call("GET", "/admin/v1/purges/1?wait=applied&timeout_ms=0", "").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "there is one place for who waits");
    assert_eq!(waits.await.unwrap(), StatusCode::OK);
}

/// The service with an edge that says this of every purge.
async fn with_edge_that_says(service: Service, says: Arc<Mutex<serde_json::Value>>) -> Service {
    let edge = axum::Router::new().fallback(move || async move { axum::Json(says.lock().unwrap().clone()) });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, edge).await });
    let edges = Arc::new(Edges::new(Arc::clone(&service.app.keys), &[url]).unwrap());
    let router = router(App { edges, ..service.app.clone() }, &[Role::Admin]);
    Service { router, ..service }
}

#[tokio::test]
async fn a_purge_by_hand_can_be_waited_for_and_is_202_if_it_has_not_come_so_far() {
    let limits = ["admin-write=1/0/0", "admin-wait=1/0/0"].map(|limit| limit.parse().unwrap());
    let service = Service::shaped(Database::fresh(), &[Role::Admin], &limits).await;
    let told = Arc::new(Mutex::new(serde_json::Value::Null));
    let service = Arc::new(with_edge_that_says(service, Arc::clone(&told)).await);
    let log_id = service.app.store.snapshot().await.unwrap().as_of.log_id.to_string();
    let says = |seq: u64, state: &str| {
        *told.lock().unwrap() = serde_json::json!({
            "log_id": log_id, "head": seq, "seq": seq, "state": state, "applied_seq": 0, "locations": [], "laggards": [],
        });
    };
    let purge = async |query: &str| {
        let got = service.call("POST", &format!("/admin/v1/purges?{query}"), r#"{"keys":["a"]}"#).await;
        let field = |name: &str| got.headers().get(name).map(|value| value.to_str().unwrap().to_string());
        let (status, location, as_of) = (got.status().as_u16(), field("location"), field("surrogate-as-of"));
        let body: serde_json::Value = serde_json::from_str(&text(got).await).unwrap();
        if status < 300 {
            let seq = body["seq"].as_u64().unwrap();
            assert_eq!(location, Some(format!("/admin/v1/purges/{seq}")), "{body}");
            assert_eq!(as_of, Some(format!("{log_id}:{seq}")), "{body}");
        }
        (status, body)
    };
    let is = |(status, body): (u16, serde_json::Value), expected: u16, seq: u64, state: Option<&str>| {
        assert_eq!((status, body["seq"].as_u64(), body["state"].as_str()), (expected, Some(seq), state), "{body}");
        assert_eq!(body["as_of"].is_string(), state.is_none(), "{body}: a receipt, or what is told without");
    };
    says(1, "applied");
    is(purge("wait=applied").await, 200, 1, Some("applied"));
    says(2, "applied");
    is(purge("wait=accepted").await, 200, 2, Some("applied"));
    says(3, "accepted");
    is(purge("wait=applied&timeout_ms=100").await, 202, 3, Some("accepted"));
    is(purge("timeout_ms=100").await, 202, 4, None);
    for bad in
        ["wait=gone", "wait=pending", "wait=applied&timeout_ms=9001", "timeout_ms=x", "dry_run=true&wait=applied"]
    {
        assert_eq!(purge(bad).await.0, 400, "{bad}");
    }
    assert_eq!(service.database.count("purge_log").await, 4, "what is refused purges nothing");
    // The one place of those who wait is taken: the purge is made, and said to be.
    let waits = {
        let service = Arc::clone(&service);
        let path = "/admin/v1/purges/4?wait=applied&timeout_ms=9000";
        // Whoever asks below may have the place at that moment.
        tokio::spawn(async move { while service.call("GET", path, "").await.status() != StatusCode::OK {} })
    };
    let is_taken = async || {
        let got = service.call("GET", "/admin/v1/purges/3?wait=accepted&timeout_ms=0", "").await;
        got.status() == StatusCode::SERVICE_UNAVAILABLE
    };
    while !is_taken().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    is(purge("wait=applied").await, 202, 5, None);
    waits.abort();
    let _ = waits.await;
    // Who waits leaves the one place of those who write to others.
    says(5, "accepted");
    let waiter = Arc::clone(&service);
    let waits = tokio::spawn(async move {
        waiter.call("POST", "/admin/v1/purges?wait=applied&timeout_ms=9000", r#"{"keys":["a"]}"#).await.status()
    });
    while service.database.count("purge_log").await < 6 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let other = loop {
        let got = purge("").await;
        if got.0 != 503 {
            break got;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    is(other, 202, 7, None);
    says(7, "applied");
    assert_eq!(waits.await.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn a_wait_ends_in_time_though_edges_do_not_answer() {
    let service = Service::start().await;
    service.call("POST", "/admin/v1/purges", r#"{"keys":["a"]}"#).await;
    // Connections are taken, and nobody says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let edges = Arc::new(Edges::new(Arc::clone(&service.app.keys), &[url.clone(), url]).unwrap());
    let router = router(App { edges, ..service.app.clone() }, &[Role::Admin]);
    let service = Service { router, ..service };
    // One that waits until the edge answers never ends.
    let waited = service.call("GET", "/admin/v1/purges/1?wait=applied&timeout_ms=300", "").await;
    assert_eq!(waited.status(), StatusCode::OK);
    let body: serde_json::Value = serde_json::from_str(&text(waited).await).unwrap();
    assert_eq!(body["edge_unknown"], "the edge did not answer in time");
}

/// A database that was put back without a word has numbered other purges since: what the journal says of the old ones is not
/// theirs, though log and numbers are the same.
#[tokio::test]
async fn what_the_edge_says_of_another_history_of_the_log_is_not_taken_for_this_one() {
    let service = Service::start().await;
    service.call("POST", "/admin/v1/purges", r#"{"keys":["a"]}"#).await;
    let mut snapshot = service.app.store.snapshot().await.unwrap();
    let (log_id, mark) = (snapshot.as_of.log_id.clone(), snapshot.mark_of(1).await.unwrap());
    drop(snapshot);
    let told = Arc::new(Mutex::new(serde_json::Value::Null));
    let says = Arc::clone(&told);
    let service = with_edge_that_says(service, says).await;
    let stranger = "0123456789abcdef0123456789abcdef";
    // Of edges before marks were told, nothing is known but the log.
    for (log, head, mark, is_this) in [
        (log_id.as_str(), 1, Some(mark), true),
        (log_id.as_str(), 1, Some(mark ^ 1), false),
        (log_id.as_str(), 2, Some(mark), false),
        (stranger, 1, Some(mark), false),
        (log_id.as_str(), 1, None, true),
    ] {
        let mut says = serde_json::json!({
            "log_id": log, "head": head, "seq": 1, "state": "applied", "applied_seq": 1, "locations": [], "laggards": [],
        });
        if let Some(mark) = mark {
            says["mark"] = mark.into();
        }
        *told.lock().unwrap() = says;
        let expected = if is_this { "applied" } else { "pending" };
        let one: serde_json::Value =
            serde_json::from_str(&text(service.call("GET", "/admin/v1/purges/1", "").await).await).unwrap();
        assert_eq!(
            (one["state"].as_str(), one["edge"].is_object()),
            (Some(expected), is_this),
            "{head} {mark:?}: {one}"
        );
        let list: serde_json::Value =
            serde_json::from_str(&text(service.call("GET", "/admin/v1/purges", "").await).await).unwrap();
        assert_eq!(list["items"][0]["state"], expected, "{head} {mark:?}: {list}");
    }
}

/// An edge that keeps what it is sent and can be told to fail.
#[derive(Clone, Default)]
struct FakeJournal {
    /// Says that it holds another history of the log.
    forked: Arc<Mutex<bool>>,
    /// A log it holds to be replaced by another.
    retired: Arc<Mutex<Option<LogId>>>,
    refused: Arc<Mutex<u32>>,
    taken: Arc<Mutex<Vec<u64>>>,
    failures: Arc<Mutex<u32>>,
    next_seq: Arc<Mutex<u64>>,
}

impl FakeJournal {
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let journal = self.clone();
        let take = move |body: axum::Json<PurgeBatch>| async move { journal.take(&body) };
        let router = axum::Router::new().route("/__edge/purges", axum::routing::post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn take(&self, batch: &PurgeBatch) -> Result<axum::Json<PurgeAck>, (StatusCode, String)> {
        if std::mem::take(&mut *self.forked.lock().unwrap()) {
            let problem = kv_schemas::Problem::new(409, "log-forked", "The log has used numbers twice");
            return Err((StatusCode::CONFLICT, problem.to_json()));
        }
        if self.retired.lock().unwrap().as_ref() == Some(&batch.log_id) {
            *self.refused.lock().unwrap() += 1;
            let problem = kv_schemas::Problem::new(409, "log-retired", "This purge log was replaced by another");
            return Err((StatusCode::CONFLICT, problem.to_json()));
        }
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err((StatusCode::INTERNAL_SERVER_ERROR, String::new()));
        }
        let mut next = self.next_seq.lock().unwrap();
        *next = (*next).max(1);
        let new: Vec<u64> = batch.purges.iter().map(|p| p.seq).filter(|seq| *seq >= *next).collect();
        if batch.first_seq <= *next {
            *next += new.len() as u64;
            self.taken.lock().unwrap().extend(&new);
        }
        Ok(axum::Json(PurgeAck {
            log_id: batch.log_id.clone(),
            seq: None,
            next_seq: *next,
            accepted: new.len() as u32,
        }))
    }
}

async fn log(store: &Store, count: u64) {
    for _ in 0..count {
        let mut write = store.write().await.unwrap();
        write.purge(LoggedPurge { keys: &[], mode: PurgeMode::Soft, reason: None, actor: None }).await.unwrap();
        write.commit().await.unwrap();
    }
}

async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 5 seconds");
}

#[tokio::test]
async fn delivery_is_in_order_survives_failures_and_goes_on_where_the_journal_needs_it() {
    let service = Service::start().await;
    let journal = FakeJournal::default();
    let url = journal.start().await;
    log(&service.app.store, 600).await;
    *journal.failures.lock().unwrap() = 3;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let dispatcher = Dispatcher::new(service.app.store.clone(), service.app.keys.clone(), vec![url.clone()]).unwrap();
    let running = tokio::spawn(dispatcher.run(stopped));
    eventually("600 purges", || journal.taken.lock().unwrap().len() == 600).await;
    log(&service.app.store, 5).await;
    eventually("5 more", || journal.taken.lock().unwrap().len() == 605).await;
    stop.send(true).unwrap();
    running.await.unwrap();
    // The journal lost what it had since 590; a new dispatcher sends that again, and only that.
    *journal.next_seq.lock().unwrap() = 590;
    journal.taken.lock().unwrap().retain(|seq| *seq < 590);
    let _stop = deliver(&service, url);
    eventually("what was lost", || journal.taken.lock().unwrap().len() == 605).await;
    assert_eq!(*journal.taken.lock().unwrap(), (1..=605).collect::<Vec<_>>());
}

/// A note takes the writer, which an import may hold for long, and the disk.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_noted_of_deliveries_holds_up_none_and_is_noted_later() {
    let service = Service::start().await;
    let (journal, other) = (FakeJournal::default(), FakeJournal::default());
    let edges = vec![journal.start().await, other.start().await];
    service.database.refuse_inserts("delivery").await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let dispatcher = Dispatcher::new(service.app.store.clone(), service.app.keys.clone(), edges).unwrap();
    let running = tokio::spawn(dispatcher.run(stopped));
    for count in 1..=3 {
        log(&service.app.store, 1).await;
        eventually("one more", || journal.taken.lock().unwrap().len() == count).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(*other.next_seq.lock().unwrap(), 0, "the first edge has not failed");
    service.database.accept_inserts("delivery").await;
    let mut noted = 0;
    for _ in 0..500 {
        noted = service.app.store.snapshot().await.unwrap().delivered().await.unwrap();
        if noted == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(noted, 3);
    // The last is noted in any case.
    log(&service.app.store, 1).await;
    eventually("the last", || journal.taken.lock().unwrap().len() == 4).await;
    stop.send(true).unwrap();
    running.await.unwrap();
    assert_eq!(service.app.store.snapshot().await.unwrap().delivered().await.unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_noted_a_few_times_a_second_however_many_there_are() {
    let service = Service::start().await;
    let journal = FakeJournal::default();
    let url = journal.start().await;
    let counted = "CREATE TABLE noted (one BIGINT); CREATE TRIGGER counted AFTER UPDATE ON delivery";
    let sqlite = format!("{counted} BEGIN INSERT INTO noted VALUES (1); END");
    let postgres = format!(
        "CREATE FUNCTION count_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO noted VALUES (1);
         RETURN NEW; END $$; {counted} FOR EACH ROW EXECUTE FUNCTION count_note()"
    );
    service.database.sql(&sqlite, &postgres).await;
    let began = Instant::now();
    let _stop = deliver(&service, url);
    for count in 1..=50 {
        log(&service.app.store, 1).await;
        eventually("one more", || journal.taken.lock().unwrap().len() == count).await;
    }
    let delivered = async || service.app.store.snapshot().await.unwrap().delivered().await.unwrap();
    until("the last is noted", || async { (delivered().await == 50).then_some(()) }).await;
    let noted = service.database.count("noted").await;
    // The first at once.
    let noted_max = 1 + began.elapsed().as_millis() / NOTE_PAUSE.as_millis();
    assert!(noted >= 1 && u128::try_from(noted).unwrap() <= noted_max, "{noted} of {noted_max}");
}

/// Roles are processes of their own, and only one of them delivers.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_commits_is_delivered_soon() {
    let service = Service::start().await;
    let journal = FakeJournal::default();
    let url = journal.start().await;
    let _stop = deliver(&service, url);
    let other = Store::connect(&service.database.settings).await.unwrap();
    log(&other, 1).await;
    eventually("the first", || journal.taken.lock().unwrap().len() == 1).await;
    let began = std::time::Instant::now();
    for count in 2..=7 {
        log(&other, 1).await;
        eventually("one more", || journal.taken.lock().unwrap().len() == count).await;
    }
    assert!(began.elapsed() < Duration::from_secs(3), "six took {:?}", began.elapsed());
}

/// Everything there is becomes so old that it is kept no longer.
async fn sweep_old(service: &Service) -> Swept {
    let old =
        "UPDATE purge_log SET committed_at_ms = 0; UPDATE audit SET at_ms = 0; UPDATE idempotency SET created_ms = 0";
    service.database.sql(old, old).await;
    let kept = Retention { keep_purges_days: 30, keep_audit_days: 365 };
    sweep::once(&service.app.store, kept).await
}

/// So many sessions, with two refresh tokens each, invitations and kept answers whose time is over, of one account.
async fn let_gather(service: &Service, count: u32) {
    let gather = format!(
        "INSERT INTO account (id, kind, email, password_hash, name, role, plan, maturity, banned, progress_logged_ms,
           created_ms, updated_ms) VALUES ('ada', 'viewer', 'ada@example.org', '', '', '', 'basic', 18, 0, 0, 0, 0);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO session (id, account_id, device, created_ms, used_ms, idle_end_ms, end_ms, generation)
           SELECT CAST(i AS TEXT), 'ada', '', 0, 0, i, i, 1 FROM n;
         INSERT INTO refresh_token (hash, session_id, generation) SELECT id || 'a', id, 0 FROM session;
         INSERT INTO refresh_token (hash, session_id, generation) SELECT id || 'b', id, 1 FROM session;
         INSERT INTO invitation (hash, account_id, end_ms) SELECT id, 'ada', idle_end_ms FROM session;
         INSERT INTO idempotency (actor, key, digest, answer, created_ms) SELECT 'ada', id, '', '', idle_end_ms FROM session"
    );
    service.database.sql(&gather, &gather).await;
}

const FOR_EVER: Retention = Retention { keep_purges_days: 0, keep_audit_days: 0 };

#[tokio::test(flavor = "multi_thread")]
async fn what_has_gathered_goes_in_parts_of_a_bounded_size_the_oldest_first() {
    let service = Service::start().await;
    let store = &service.app.store;
    let count = 5_300;
    let_gather(&service, count).await;
    for (what, table, of) in [
        (Expiring::Sessions, "session", "idle_end_ms"),
        (Expiring::Invitations, "invitation", "end_ms"),
        (Expiring::Answers, "idempotency", "created_ms"),
    ] {
        let mut write = store.write().await.unwrap();
        assert_eq!(write.sweep(what, 250, 100).await.unwrap(), 100, "{what:?}");
        write.commit().await.unwrap();
        assert_eq!(service.database.count(&format!("{table} WHERE {of} <= 100")).await, 0, "{what:?}");
        let mut write = store.write().await.unwrap();
        assert_eq!(write.sweep(what, 150, 100).await.unwrap(), 50, "{what:?}");
        write.commit().await.unwrap();
        assert_eq!(service.database.count(table).await, i64::from(count) - 150, "{what:?}");
    }
    let left = u64::from(count) - 150;
    let swept = sweep::once(store, FOR_EVER).await;
    assert_eq!(swept, Swept { sessions: left, invitations: left, answers: left, purges: 0, audit: 0 });
    assert_eq!(service.database.count("refresh_token").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_away_keeps_nothing_else_from_going() {
    let service = Service::start().await;
    let_gather(&service, 3).await;
    service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await;
    service.call("PUT", "/admin/v1/titles/up", r#"{"name":"Up"}"#).await;
    let sqlite = "CREATE TRIGGER refuse BEFORE DELETE ON session BEGIN SELECT RAISE(ABORT, 'it stays'); END";
    let postgres =
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'it stays'; END $$;
         CREATE TRIGGER refuse BEFORE DELETE ON session FOR EACH ROW EXECUTE FUNCTION refuse()";
    service.database.sql(sqlite, postgres).await;
    let swept = sweep_old(&service).await;
    assert_eq!(swept, Swept { sessions: 0, invitations: 3, answers: 3, purges: 1, audit: 2 });
    assert_eq!(service.database.count("session").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_kept_so_long_and_no_longer_and_nothing_that_was_purged_comes_back() {
    let service = Service::start().await;
    let keyed = [("idempotency-key", "k")];
    let create = || service.ask("POST", "/admin/v1/titles", r#"{"id":"heat","name":"Heat"}"#, &keyed);
    assert_eq!(create().await.status(), StatusCode::CREATED);
    assert!(text(service.call("GET", "/v1/titles/heat", "").await).await.contains("Heat"));
    service.call("PATCH", "/admin/v1/titles/heat", r#"{"name":"Ronin"}"#).await;
    let last = service.call("PUT", "/admin/v1/titles/up", r#"{"name":"Up"}"#).await;
    let last = last.headers()["surrogate-as-of"].clone();
    assert_eq!(sweep::once(&service.app.store, FOR_EVER).await, Swept::default());
    let young = Retention { keep_purges_days: 1, keep_audit_days: 1 };
    assert_eq!(sweep::once(&service.app.store, young).await, Swept::default(), "nothing is a day old");
    let swept = sweep_old(&service).await;
    assert_eq!((swept.purges, swept.audit, swept.answers), (2, 3, 1), "the youngest purge is the log's state");
    assert_eq!(service.call("GET", "/admin/v1/purges/2", "").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(service.call("GET", "/admin/v1/purges/3", "").await.status(), StatusCode::OK);
    let listed = text(service.call("GET", "/admin/v1/purges?key=none", "").await).await;
    assert_eq!(listed, r#"{"items":[],"next_cursor":null}"#, "nothing lies below");
    // What was rendered before the purge that is gone now.
    let shown = service.call("GET", "/v1/titles/heat", "").await;
    assert_eq!(shown.headers()["surrogate-as-of"], last);
    assert!(text(shown).await.contains("Ronin"));
    assert_eq!(create().await.status(), StatusCode::CONFLICT, "its key is free again, its id is not");
}

#[tokio::test]
async fn an_edge_that_needs_purges_that_are_kept_no_longer_is_given_a_new_log() {
    let service = Service::start().await;
    log(&service.app.store, 5).await;
    let before = service.app.store.snapshot().await.unwrap().as_of;
    assert_eq!(sweep_old(&service).await.purges, 4);
    let journal = FakeJournal::default();
    *journal.next_seq.lock().unwrap() = 3;
    let url = journal.start().await;
    let _stop = deliver(&service, url);
    for _ in 0..500 {
        if service.app.store.snapshot().await.unwrap().as_of.log_id != before.log_id {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the log is what it was");
}

#[tokio::test]
async fn an_edge_that_knows_more_or_otherwise_than_the_database_gives_the_log_a_new_identity() {
    for (next_seq, forked) in [(10, false), (4, true)] {
        let service = Service::start().await;
        log(&service.app.store, 3).await;
        let before = service.app.store.snapshot().await.unwrap().as_of;
        let journal = FakeJournal::default();
        *journal.next_seq.lock().unwrap() = next_seq;
        *journal.forked.lock().unwrap() = forked;
        let url = journal.start().await;
        let _stop = deliver(&service, url);
        let mut replaced = Vec::new();
        for _ in 0..500 {
            let mut snapshot = service.app.store.snapshot().await.unwrap();
            replaced = snapshot.replaced_logs().await.unwrap();
            if snapshot.as_of.log_id != before.log_id {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(replaced.last(), Some(&before.log_id), "the new log says which it replaces");
    }
}

/// Has its purges delivered to this journal, until what is given back is dropped.
fn deliver(service: &Service, url: String) -> tokio::sync::watch::Sender<bool> {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let dispatcher = Dispatcher::new(service.app.store.clone(), service.app.keys.clone(), vec![url]).unwrap();
    tokio::spawn(dispatcher.run(stopped));
    stop
}

/// The same copy of a database was put back twice: the first time its log was replaced, and the journal knows.
#[tokio::test]
async fn a_log_that_was_replaced_is_said_to_be_once_and_given_a_new_identity_by_a_person_alone() {
    let logged = Log::default();
    // On one thread: what is spawned logs here too.
    let _guard = logged.start();
    let service = Service::start().await;
    log(&service.app.store, 3).await;
    let before = service.app.store.snapshot().await.unwrap().as_of;
    let journal = FakeJournal::default();
    *journal.retired.lock().unwrap() = Some(before.log_id.clone());
    let url = journal.start().await;
    // The edge cannot be reached at first, which is said by itself.
    *journal.failures.lock().unwrap() = 1;
    let _stop = deliver(&service, url);
    for _ in 0..500 {
        if *journal.refused.lock().unwrap() >= 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let said = logged.text();
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.len() == 1 && errors[0].contains("origin log renew"), "{said}");
    assert_eq!(service.app.store.snapshot().await.unwrap().as_of, before, "nobody has said so");
    let renewed = origin_over(&service.database, &["log", "renew"]);
    assert!(renewed.status.success(), "{renewed:?}");
    let mut snapshot = service.app.store.snapshot().await.unwrap();
    assert_eq!(
        String::from_utf8(renewed.stdout).unwrap().trim(),
        format!("the purge log goes on as {}", snapshot.as_of)
    );
    assert_eq!(snapshot.replaced_logs().await.unwrap(), [before.log_id]);
    drop(snapshot);
    eventually("what was not delivered", || *journal.taken.lock().unwrap() == [1, 2, 3]).await;
}

/// Nobody but this process has seen what was lost: a failover to a replica that had not got it, or a copy of the database put
/// back before the edge was told.
#[tokio::test]
async fn a_database_that_lost_purges_which_the_journal_never_had_gets_a_new_log() {
    let lost = "DELETE FROM purge_log WHERE seq > 3; UPDATE log_head SET seq = 3";
    let used_again = "UPDATE purge_log SET mark = mark - 1 WHERE seq = 5";
    for put_back in [lost, used_again] {
        let service = Service::start().await;
        log(&service.app.store, 5).await;
        let before = service.app.store.snapshot().await.unwrap().as_of;
        let journal = FakeJournal::default();
        *journal.failures.lock().unwrap() = 1_000_000;
        let url = journal.start().await;
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        // Another process' view of the database: what this one sees besides does not count.
        let store = Store::connect(&service.database.settings).await.unwrap();
        let dispatcher = Dispatcher::new(store, service.app.keys.clone(), vec![url]).unwrap();
        tokio::spawn(dispatcher.run(stopped));
        eventually("the first try", || *journal.failures.lock().unwrap() < 1_000_000).await;
        assert_eq!(service.app.store.snapshot().await.unwrap().as_of, before);
        service.database.sql(put_back, put_back).await;
        let mut after = before.clone();
        for _ in 0..600 {
            after = service.app.store.snapshot().await.unwrap().as_of;
            if after.log_id != before.log_id {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_ne!(after.log_id, before.log_id, "{put_back}");
    }
}
