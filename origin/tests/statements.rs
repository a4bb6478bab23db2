//! Statements that take too long: which are logged, with what, and which are ended.
mod common;

use axum::http::StatusCode;
use common::{Database, Log, Service, engine, text};
use origin::store::Engine;
use std::time::{Duration, Instant};

const SLOW: &str = "a slow statement";
const PLAN: &str = "the plan of a slow statement";

/// Whether a line is about the one by which a title is found.
fn finds(said: &serde_json::Value) -> bool {
    said["statement"]
        .as_str()
        .is_some_and(|sql| sql.starts_with("SELECT title.id, ") && sql.ends_with(" FROM title WHERE id = $1"))
}

/// A service for which so much is slow, and what it logs of a write and two reads.
async fn logged(slow_statement_ms: u64) -> Log {
    let mut database = Database::fresh();
    database.settings.slow_statement_ms = slow_statement_ms;
    let log = Log::default();
    let _guard = log.start();
    let service = Service::over(database).await;
    let written = service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"The words of a client"}"#).await;
    assert_eq!(written.status(), StatusCode::CREATED);
    for _ in 0..2 {
        assert_eq!(service.call("GET", "/admin/v1/titles/heat", "").await.status(), StatusCode::OK);
    }
    // Plans are looked up beside requests, one after the other.
    let began = Instant::now();
    while slow_statement_ms == 0 && !log.said(PLAN).iter().any(finds) && began.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        service.call("GET", "/admin/v1/titles/heat", "").await;
    }
    log
}

#[tokio::test]
async fn a_slow_statement_is_logged_with_its_plan_and_without_what_a_client_sent() {
    let log = logged(0).await;
    let slow: Vec<_> = log.said(SLOW).into_iter().filter(finds).collect();
    assert!(slow.len() >= 2 && slow[0]["took_ms"].is_u64(), "{slow:?}");
    let plans: Vec<_> = log.said(PLAN).into_iter().filter(finds).collect();
    assert_eq!(plans.len(), 1, "once a minute: {plans:?}");
    let plan = plans[0]["plan"].as_str().unwrap();
    let by =
        if engine() == Engine::Sqlite { "SEARCH title USING INDEX" } else { "Index Scan using title_pkey on title" };
    // Of an empty table PostgreSQL may think otherwise.
    assert!(plan.contains(by) || plan.contains("Scan on title"), "{plan}");
    let all = log.text();
    assert!(!all.contains("The words of a client"), "{all}");
}

#[tokio::test]
async fn a_statement_that_is_quick_enough_is_not_logged() {
    let log = logged(60_000).await;
    assert_eq!((log.said(SLOW), log.said(PLAN)), (Vec::new(), Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_runs_too_long_is_ended_and_nothing_of_its_write_stays() {
    if engine() == Engine::Sqlite {
        return; // The limit is PostgreSQL's: SQLite has nothing to sleep in.
    }
    let mut database = Database::fresh();
    database.settings.statement_ms = 300;
    let service = Service::over(database).await;
    let slow =
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(30); RETURN NEW; END $$;
        CREATE TRIGGER slow BEFORE INSERT ON title FOR EACH ROW EXECUTE FUNCTION slow()";
    service.database.sql("", slow).await;
    let began = Instant::now();
    let refused = service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await;
    assert!((300..8_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(
        (refused.status(), refused.headers()["retry-after"].to_str().unwrap()),
        (StatusCode::SERVICE_UNAVAILABLE, "1")
    );
    let problem: serde_json::Value = serde_json::from_str(&text(refused).await).unwrap();
    assert_eq!(problem["type"], "urn:nextream:problem:busy");
    assert_eq!((service.database.count("title").await, service.database.count("purge_log").await), (0, 0));
    service.database.sql("", "DROP TRIGGER slow ON title; DROP FUNCTION slow").await;
    let written = service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await;
    assert_eq!(written.status(), StatusCode::CREATED, "the writer is free again");
}
