//! A PostgreSQL primary and a streaming replica: who reads where, and what a lagging or dead replica does to answers.
mod common;

use axum::http::StatusCode;
use common::{Database, Service, text};
use origin::store::{Settings, Store};
use std::sync::Arc;
use std::time::Duration;
use xtask::postgres::{Durable, Postgres};

struct Pair {
    servers: Postgres,
    service: Service,
}

impl Pair {
    async fn start() -> Self {
        let mut servers = Postgres::start(Durable::No).unwrap();
        let url = servers.database("nextream").unwrap();
        servers.add_replica().unwrap();
        let settings =
            Settings { replica_lag_ms: 1_000, ..Settings::postgres(&url, &[servers.replica_url(0, "nextream")]) };
        // The schema is made on the primary and reaches the replica by itself.
        Store::connect(&Settings::postgres(&url, &[])).await.unwrap().close().await;
        servers.await_replica(0).unwrap();
        let service = Service::over(Database { settings, ..Database::fresh() }).await;
        let pair = Self { servers, service };
        pair.write("Heat").await;
        pair.servers.await_replica(0).unwrap();
        pair.until("the replica serves", || async { pair.reads_replica().await.then_some(()) }).await;
        pair
    }

    async fn write(&self, name: &str) -> String {
        let body = format!(r#"{{"name":"{name}"}}"#);
        let written = self.service.ask("PUT", "/admin/v1/titles/heat", &body, &[("if-match", "*")]).await;
        let written = match written.status() {
            StatusCode::PRECONDITION_FAILED => self.service.call("PUT", "/admin/v1/titles/heat", &body).await,
            _ => written,
        };
        assert!(written.status().is_success(), "{written:?}");
        written.headers()["surrogate-as-of"].to_str().unwrap().to_string()
    }

    /// The title's page as viewers get it: status, state, body.
    async fn read(&self, min_as_of: Option<&str>) -> (StatusCode, String, String) {
        let fields: Vec<_> = min_as_of.map(|min| ("min-as-of", min)).into_iter().collect();
        let response = self.service.ask("GET", "/v1/titles/heat", "", &fields).await;
        let as_of = response.headers().get("surrogate-as-of").map(|v| v.to_str().unwrap().to_string());
        (response.status(), as_of.unwrap_or_default(), text(response).await)
    }

    /// Whether a viewer's read is a replica's: only one in recovery says so.
    async fn reads_replica(&self) -> bool {
        self.service.app.store.client_snapshot(None).await.unwrap().is_replica().await.unwrap()
    }

    async fn until<T, F: Future<Output = Option<T>>>(&self, what: &str, mut look: impl FnMut() -> F) -> T {
        for _ in 0..1_000 {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: not within 10 seconds");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_replica_tells_the_truth_about_its_state_and_is_passed_over_for_who_demands_more() {
    let pair = Pair::start().await;
    // Not late yet by its bound: its old page, labelled with its old state. On a machine so slow that it is, once more.
    let mut tries = 0..10;
    let written = loop {
        assert!(tries.next().is_some(), "it is passed over each time");
        pair.servers.pause_replay(0).unwrap();
        let old = pair.read(None).await;
        let written = pair.write("Heat II").await;
        let lagging = pair.read(None).await;
        if lagging.1 != written {
            assert_eq!((lagging.1.as_str(), lagging.2.contains("Heat II")), (old.1.as_str(), false));
            break written;
        }
        pair.write("Heat").await;
        pair.servers.resume_replay(0).unwrap();
        pair.servers.await_replica(0).unwrap();
        pair.until("it serves again", || async { pair.reads_replica().await.then_some(()) }).await;
    };
    let demanded = pair.read(Some(&written)).await;
    assert_eq!((demanded.0, demanded.1.as_str()), (StatusCode::OK, written.as_str()));
    assert!(demanded.2.contains("Heat II"), "{demanded:?}");
    // Late by its bound: nobody is sent there any more.
    pair.until("the late replica is passed over", || async { (!pair.reads_replica().await).then_some(()) }).await;
    assert_eq!(pair.read(None).await.1, written);
    pair.servers.resume_replay(0).unwrap();
    pair.until("it serves again", || async { pair.reads_replica().await.then_some(()) }).await;
    assert_eq!(pair.read(None).await.1, written);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_is_passed_over_and_no_viewer_notices() {
    let mut pair = Pair::start().await;
    let written = pair.write("Heat II").await;
    pair.servers.stop_replica(0);
    for _ in 0..20 {
        let read = pair.read(None).await;
        assert_eq!((read.0, read.1.as_str()), (StatusCode::OK, written.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn editors_read_and_write_on_the_primary() {
    let pair = Pair::start().await;
    pair.servers.pause_replay(0).unwrap();
    pair.write("Heat II").await;
    let seen = text(pair.service.call("GET", "/admin/v1/titles/heat", "").await).await;
    assert!(seen.contains("Heat II"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_together_migrate_once_and_agree_on_the_log() {
    let servers = Arc::new(Postgres::start(Durable::No).unwrap());
    let url = servers.database("nextream").unwrap();
    let starts = (0..6).map(|_| {
        let settings = Settings::postgres(&url, &[]);
        tokio::spawn(async move { Store::connect(&settings).await.unwrap().snapshot().await.unwrap().as_of })
    });
    let mut states = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        states.push(start.await.unwrap().to_string());
    }
    states.dedup();
    assert_eq!(states.len(), 1, "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_orders_text_by_a_language_is_refused_with_the_mend() {
    let servers = Postgres::start(Durable::No).unwrap();
    servers
        .sql(
            "postgres",
            "CREATE DATABASE german TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'",
        )
        .unwrap();
    let refused = Store::connect(&Settings::postgres(&servers.url("german"), &[])).await.err().unwrap().to_string();
    assert!(refused.contains("C.UTF-8"), "{refused}");
}
