//! Two releases on one database: what becomes of processes that run while a newer one changes it under them.
mod common;

use axum::http::StatusCode;
use common::people::{People, Tokens};
use common::{Database, Service, until};
use origin::error::{StoreError, Versioned};
use origin::store::{Engine, Store};
use serde_json::json;
use sqlx::{Connection, Executor};
use std::path::Path;

/// Asks for some of everything, by statements that each connection has prepared from the second time on.
async fn use_all(people: &People, ada: Tokens, round: usize) -> Tokens {
    let admin = people.admin_token();
    let name = format!("{round}");
    for (kind, body) in [
        ("titles", json!({"name": name, "genres": ["Crime"], "people": [{"name": "Al Pacino", "role": "actor"}]})),
        ("genres", json!({"name": name})),
        ("people", json!({"name": name})),
        ("rails", json!({"title": name, "position": 1, "items": ["heat"]})),
        ("collections", json!({"name": name, "items": ["heat"]})),
    ] {
        let fields: &[(&str, &str)] = if round == 0 { &[] } else { &[("if-match", "*")] };
        let put = people.call_with("PUT", &format!("/admin/v1/{kind}/heat"), &admin, Some(body), fields).await;
        assert!(put.status.is_success(), "{kind}: {put:?}");
    }
    for path in ["titles", "genres", "people", "rails", "collections", "audit", "purges", "users", "staff"] {
        let got = people.get(&format!("/admin/v1/{path}"), &admin).await;
        assert_eq!(got.status, StatusCode::OK, "{path}: {got:?}");
    }
    let listed = people.call("PUT", "/v1/me/watch-list/heat", &ada.access, None).await;
    assert!(listed.status.is_success(), "{listed:?}");
    let title = people.get("/v1/titles/heat", "").await;
    assert_eq!(title.json()["name"], name);
    for path in
        ["home", "catalog", "genres", "people/heat", "search?q=heat", "me", "me/watch-list", "me/continue-watching"]
    {
        let token = if path.starts_with("me") { &ada.access } else { "" };
        let got = people.get(&format!("/v1/{path}"), token).await;
        assert_eq!(got.status, StatusCode::OK, "{path}: {got:?}");
    }
    people.refresh(&ada.refresh).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_runs_goes_on_while_a_newer_release_adds_columns() {
    let mut database = Database::fresh();
    // All go by the same statements, then.
    (database.settings.readers, database.settings.writers) = (1, 1);
    let people = People(Service::over(database).await);
    let mut ada = people.viewer("ada@example.org").await;
    for round in 0..3 {
        ada = use_all(&people, ada, round).await;
    }
    for table in [
        "title",
        "title_window",
        "listing",
        "title_text",
        "person",
        "credit",
        "genre",
        "rail",
        "rail_place",
        "collection",
        "season",
        "episode",
        "account",
        "session",
        "refresh_token",
        "invitation",
        "watch_item",
        "progress",
        "purge_log",
        "log_head",
        "audit",
        "idempotency",
        "delivery",
        "derived",
    ] {
        let add = format!("ALTER TABLE {table} ADD COLUMN of_tomorrow BIGINT NOT NULL DEFAULT 0");
        people.database.sql(&add, &add).await;
    }
    for round in 3..6 {
        ada = use_all(&people, ada, round).await;
    }
}

/// PostgreSQL refuses a prepared one from the moment on at which its table has another column.
#[test]
fn no_statement_asks_for_all_columns() {
    fn look(folder: &Path) -> usize {
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files += look(&path);
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for (at, line) in lines.enumerate() {
                let words: Vec<&str> = line.split([' ', '"', ',']).collect();
                let of_all =
                    words.windows(2).any(|two| ["SELECT", "DISTINCT", "RETURNING"].contains(&two[0]) && two[1] == "*");
                let of_table = words.iter().any(|word| word.strip_suffix(".*").is_some_and(|table| !table.is_empty()));
                assert!(!of_all && !of_table, "{} {at}: {line}", path.display());
            }
        }
        files
    }
    assert!(look(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store")) > 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_derives_in_an_older_form_writes_nothing_more_once_there_is_a_newer_one() {
    let people = People::start().await;
    people.titles(&["heat"]).await;
    let newer = "UPDATE derived SET form = form + 1";
    people.database.sql(newer, newer).await;
    let refused = people.call("PUT", "/admin/v1/titles/up", &people.admin_token(), Some(json!({"name": "Up"}))).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "busy"));
    assert_eq!(people.database.count("title").await, 1);
    assert_eq!(people.get("/v1/titles/heat", "").await.status, StatusCode::OK, "reads go on");
    let error = Store::connect(&people.database.settings).await.err().unwrap();
    assert!(matches!(error, StoreError::Newer { what: Versioned::Derived, .. }), "{error}");
    assert!(error.to_string().contains("newer release (form of what is derived"), "{error}");
}

/// A write that waits behind what a newer release derives has asked before that was done.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_waited_for_a_newer_release_is_refused_too() {
    let people = People::start().await;
    if people.app.store.engine() == Engine::Sqlite {
        return; // There a write reads nothing before it is the one writer.
    }
    let url = people.database.settings.database_url.clone().unwrap();
    let mut newer = sqlx::AnyConnection::connect(&url).await.unwrap();
    newer.execute("BEGIN; SELECT seq FROM log_head FOR UPDATE").await.unwrap();
    let store = people.app.store.clone();
    let waiting = tokio::spawn(async move { store.write().await.err() });
    let waits = || async { (people.database.count("pg_locks WHERE NOT granted").await > 0).then_some(()) };
    until("the write waits", waits).await;
    newer.execute("UPDATE derived SET form = form + 1; COMMIT").await.unwrap();
    let refused = waiting.await.unwrap();
    assert!(matches!(refused, Some(StoreError::Newer { .. })), "{refused:?}");
}
