//! What a start makes of the database it finds: one of an older release, one that another process is at work on.
mod common;

use common::Database;
use common::program::{origin, origin_over};
use futures_util::future::join_all;
use origin::error::{StoreError, Versioned};
use origin::store::{Engine, Store};
use std::time::{Duration, Instant};

/// 500 texts of 140 words each, known to searches but for some, and what is derived as an older release left it.
async fn fill_richly(database: &Database, unknown: &str) {
    // Their titles play no part.
    let sqlite = "PRAGMA foreign_keys = OFF;
        WITH RECURSIVE text (t) AS (SELECT 1 UNION ALL SELECT t + 1 FROM text WHERE t < 500),
          place (p) AS (SELECT 1 UNION ALL SELECT p + 1 FROM place WHERE p < 140)
        INSERT INTO search_word (form, word) SELECT 'w' || (1000 * t + p), 'w' || (1000 * t + p) FROM text, place;
        INSERT INTO title_text (n, title_id, words)
          SELECT CAST(substr(word, 2) AS INTEGER) / 1000, CAST(substr(word, 2) AS INTEGER) / 1000, group_concat(word, ' ')
            FROM search_word GROUP BY 1;";
    let postgres = "ALTER TABLE title_text DROP CONSTRAINT title_text_title_id_fkey;
        INSERT INTO search_word (form, word)
          SELECT 'w' || (1000 * t + p), 'w' || (1000 * t + p) FROM generate_series(1, 500) t, generate_series(1, 140) p;
        INSERT INTO title_text (n, title_id, words)
          SELECT substr(word, 2)::bigint / 1000, substr(word, 2)::bigint / 1000, string_agg(word, ' ')
            FROM search_word GROUP BY 1, 2;";
    let both = format!("DELETE FROM search_word WHERE word {unknown}; UPDATE derived SET form = 2");
    database.sql(&format!("{sqlite} {both}"), &format!("{postgres} {both}")).await;
}

#[tokio::test]
async fn texts_of_any_number_of_words_are_made_anew_for_a_new_release() {
    let database = Database::fresh();
    Store::connect(&database.settings).await.unwrap().close().await;
    fill_richly(&database, "= 'w500140'").await;
    assert_eq!(database.count("search_word WHERE word = 'w500140'").await, 0);
    Store::connect(&database.settings).await.unwrap().close().await;
    assert!(database.count("search_word WHERE word = 'w500140'").await > 1);
}

/// A database as schema 71 had it.
async fn older() -> Database {
    let database = Database::fresh();
    Store::connect(&database.settings).await.unwrap().close().await;
    let older = "DROP INDEX person_deleted; DROP INDEX collection_deleted; DROP INDEX season_deleted;
        DROP INDEX audit_by_time; DROP INDEX audit_by_id; DROP INDEX audit_by_kind;
        DELETE FROM _sqlx_migrations WHERE version >= 72";
    database.sql(older, older).await;
    database
}

#[tokio::test]
async fn a_database_of_the_release_before_gets_its_indexes_over_what_it_holds() {
    let database = older().await;
    let rows = "INSERT INTO audit (seq, n, at_ms, actor, action, kind, target_id) VALUES (1, 0, 1, 'ed', 'edit', 'title', 'heat');
        INSERT INTO person (id, name, version, body, created_ms, updated_ms, deleted_ms) VALUES ('a', 'A', 1, '{}', 0, 0, 1)";
    database.sql(rows, rows).await;
    Store::connect(&database.settings).await.unwrap().close().await;
    let (sqlite, postgres) = ("sqlite_master WHERE type = 'index' AND name", "pg_indexes WHERE indexname");
    let indexes = if database.settings.engine() == Engine::Sqlite { sqlite } else { postgres };
    for index in
        ["person_deleted", "collection_deleted", "season_deleted", "audit_by_time", "audit_by_id", "audit_by_kind"]
    {
        assert_eq!(database.count(&format!("{indexes} = '{index}'")).await, 1, "{index}");
    }
    assert_eq!((database.count("audit").await, database.count("person").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_together_wait_for_the_one_that_brings_the_database_up_to_date() {
    let mut database = Database::fresh();
    Store::connect(&database.settings).await.unwrap().close().await;
    // Work for a second or two.
    fill_richly(&database, "LIKE 'w10___'").await;
    database.settings.wait_ms = 250;
    let began = Instant::now();
    for started in join_all((0..3).map(|_| Store::connect(&database.settings))).await {
        started.unwrap().close().await;
    }
    assert!(began.elapsed() > Duration::from_millis(database.settings.wait_ms), "too little work for a test");
    assert_eq!(database.count("purge_log").await, 1, "one of them did it");
}

#[tokio::test]
async fn a_database_that_must_be_there_is_not_made_and_of_another_kind_not_made_ours() {
    let database = Database::fresh();
    let refused = async || Store::connect_existing(&database.settings).await.err().unwrap();
    assert!(matches!(refused().await, StoreError::Absent(_)));
    let tables = match database.settings.engine() {
        Engine::Sqlite => {
            assert!(!database.dir.path().join("db.sqlite").exists());
            std::fs::write(database.settings.place(), "").unwrap();
            "sqlite_schema WHERE type = 'table'"
        }
        Engine::Postgres => "pg_tables WHERE schemaname = 'public'",
    };
    // Somebody else's.
    let other = "CREATE TABLE other (a BIGINT)";
    database.sql(other, other).await;
    assert!(matches!(refused().await, StoreError::Absent(_)));
    assert_eq!(database.count(tables).await, 1);
    Store::connect(&database.settings).await.unwrap().close().await;
    Store::connect_existing(&database.settings).await.unwrap().close().await;
}

#[tokio::test]
async fn no_command_but_migrate_brings_a_database_up_to_date_that_others_may_serve() {
    let database = older().await;
    let at = |name: &str| database.dir.path().join(name).to_str().unwrap().to_string();
    let (keys, backup, catalogue) = (at("keys"), at("nextream.backup"), at("catalogue.ndjson"));
    std::fs::write(&catalogue, "{\"type\":\"title\",\"id\":\"heat\",\"name\":\"Heat\"}\n").unwrap();
    assert!(origin(&["keygen", "--keys", &keys]).status.success());
    let published = || std::fs::read_to_string(at("keys/public.jwks.json")).unwrap();
    let before = published();
    std::fs::write(&backup, "not looked into\n").unwrap();
    let to = at("other.backup");
    let commands: [&[&str]; 9] = [
        &["backup", "--to", &to],
        &["export"],
        &["users", "invite", "--without-password"],
        &["keys", "rotate", "--keys", &keys],
        &["log", "renew"],
        &["staff", "create", "--email", "root@example.org"],
        &["import", &catalogue],
        &["generate", "--titles", "1", "--rails", "1", "--users", "1"],
        &["restore", "--from", &backup],
    ];
    for arguments in commands {
        let output = origin_over(&database, arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(said.contains("schema 71") && said.contains("Back it up") && said.contains("origin migrate"), "{said}");
        assert_eq!(database.count("_sqlx_migrations WHERE version >= 72").await, 0, "{arguments:?}");
    }
    assert!(published() == before && !std::path::Path::new(&to).exists());
    let migrated = origin_over(&database, &["migrate"]);
    assert!(migrated.status.success(), "{migrated:?}");
    assert_eq!(database.count("_sqlx_migrations WHERE version >= 72").await, 1);
    for arguments in commands.into_iter().take(8) {
        let output = origin_over(&database, arguments);
        let is_asked_for_a_password = arguments[0] == "staff";
        assert!(output.status.success() || is_asked_for_a_password, "{arguments:?}: {output:?}");
    }
}

#[tokio::test]
async fn what_is_derived_in_an_older_form_is_left_alone_by_who_does_not_serve() {
    let database = Database::fresh();
    Store::connect(&database.settings).await.unwrap().close().await;
    database.sql("UPDATE derived SET form = 2", "UPDATE derived SET form = 2").await;
    let error = Store::connect_existing(&database.settings).await.err().unwrap();
    assert!(matches!(error, StoreError::Older { what: Versioned::Derived, found: 2, .. }), "{error}");
    assert!(Store::connect_to_fill(&database.settings).await.is_err());
    assert_eq!(database.count("derived WHERE form = 2").await, 1);
    Store::migrate(&database.settings).await.unwrap().close().await;
    Store::connect_existing(&database.settings).await.unwrap().close().await;
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_refused_by_whoever_opens_it() {
    let database = Database::fresh();
    Store::connect(&database.settings).await.unwrap().close().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        SELECT 9999, description, success, checksum, execution_time FROM _sqlx_migrations WHERE version = 1";
    database.sql(newer, newer).await;
    for error in [
        Store::connect(&database.settings).await.err().unwrap(),
        Store::migrate(&database.settings).await.err().unwrap(),
        Store::connect_to_fill(&database.settings).await.err().unwrap(),
        Store::connect_existing(&database.settings).await.err().unwrap(),
    ] {
        assert!(matches!(error, StoreError::Newer { what: Versioned::Schema, found: 9999, .. }), "{error:?}");
        assert!(error.to_string().contains("newer release (schema 9999, this program's is "), "{error}");
    }
}
