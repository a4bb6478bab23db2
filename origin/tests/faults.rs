//! A full disk, a locked database, a connection lost in mid-transaction: a clear error, no half write, no purge without
//! its write and no write without its purge.
mod common;

use axum::http::StatusCode;
use common::door::Door;
use common::{Database, Service, engine, text};
use kv_schemas::PurgeMode;
use origin::store::{Engine, LoggedPurge, Settings};
use sqlx::{Connection, Executor};
use xtask::postgres::{Durable, Postgres};

/// What must not have changed: every title's name and the log.
async fn contents(service: &Service) -> String {
    let mut snapshot = service.app.store.snapshot().await.unwrap();
    let purges = snapshot.purges_after(0, 10_000).await.unwrap();
    let titles = text(service.call("GET", "/admin/v1/titles?limit=200", "").await).await;
    format!("{} {} {titles}", snapshot.as_of, purges.len())
}

async fn problem(response: axum::response::Response) -> (StatusCode, String) {
    let status = response.status();
    let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    (status, body["type"].as_str().unwrap_or_default().rsplit(':').next().unwrap_or_default().to_string())
}

/// A connection beside the service's.
async fn other(service: &Service) -> sqlx::AnyConnection {
    sqlx::any::install_default_drivers();
    let url = match &service.database.settings.database_url {
        Some(url) => url.clone(),
        None => format!("sqlite://{}", service.database.dir.path().join("db.sqlite").display()),
    };
    sqlx::AnyConnection::connect(&url).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_the_write_and_keeps_what_is_there() {
    let mut database = Database::fresh();
    database.settings.pages_max = Some(120);
    let service = Service::over(database).await;
    let long = "x".repeat(4_000);
    let body = |n: u32| format!(r#"{{"name":"T{n}","synopsis":"{long}"}}"#);
    let mut refused = None;
    for n in 0..200 {
        if n == 20 && engine() == Engine::Postgres {
            // A server's disk cannot be filled here; this is what it says then.
            let full = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
                CREATE TRIGGER refuse BEFORE INSERT ON purge_log FOR EACH ROW EXECUTE FUNCTION refuse()";
            service.database.sql("", full).await;
        }
        let before = contents(&service).await;
        let written = service.call("PUT", &format!("/admin/v1/titles/t{n}"), &body(n)).await;
        if written.status() != StatusCode::CREATED {
            refused = Some(written);
            assert_eq!(contents(&service).await, before);
            break;
        }
    }
    assert_eq!(problem(refused.expect("never full")).await, (StatusCode::INSUFFICIENT_STORAGE, "storage-full".into()));
    assert_eq!(service.call("GET", "/v1/titles/t0", "").await.status(), StatusCode::OK, "reads go on");
    service.database.sql("DELETE FROM audit", "DROP TRIGGER refuse ON purge_log; DROP FUNCTION refuse").await;
    let written = service.call("PUT", "/admin/v1/titles/again", r#"{"name":"Again"}"#).await;
    assert_eq!(written.status(), StatusCode::CREATED, "there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_is_said_to_be_busy_and_takes_the_write_once_it_is_free() {
    let mut database = Database::fresh();
    database.settings.wait_ms = 300;
    let service = Service::over(database).await;
    service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await;
    let before = contents(&service).await;
    let mut other = other(&service).await;
    let lock = match engine() {
        Engine::Sqlite => "BEGIN IMMEDIATE",
        Engine::Postgres => "BEGIN; SELECT seq FROM log_head FOR UPDATE",
    };
    other.execute(sqlx::raw_sql(lock)).await.unwrap();
    let refused = service.call("PATCH", "/admin/v1/titles/heat", r#"{"name":"Heat II"}"#).await;
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(problem(refused).await, (StatusCode::SERVICE_UNAVAILABLE, "busy".into()));
    assert_eq!(contents(&service).await, before);
    assert_eq!(service.call("GET", "/v1/titles/heat", "").await.status(), StatusCode::OK, "reads go on");
    other.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
    let written = service.call("PATCH", "/admin/v1/titles/heat", r#"{"name":"Heat II"}"#).await;
    assert_eq!(written.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_at_any_step_of_a_write_leaves_nothing_of_it() {
    if engine() == Engine::Sqlite {
        return; // Its database is in this process; tests with kill -9 stand elsewhere.
    }
    let service = Service::start().await;
    service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await;
    let purge = LoggedPurge { keys: &[], mode: PurgeMode::Soft, reason: None, actor: None };
    for step in 0..4 {
        let before = contents(&service).await;
        let mut write = service.app.store.write().await.unwrap();
        let mut title = write.title("heat").await.unwrap().unwrap();
        title.input.name = format!("Heat {step}");
        let mut failed = false;
        for now in 0..4 {
            if now == step {
                service.database.cut_connections();
            }
            failed = match now {
                0 => write.put_title(&mut title, 0).await.is_err(),
                1 => write.purge(LoggedPurge { ..purge }).await.is_err(),
                2 => write.is_person_used("heat").await.is_err(),
                _ => break,
            };
            if failed {
                break;
            }
        }
        assert!(failed || write.commit().await.is_err(), "step {step}");
        assert_eq!(contents(&service).await, before, "step {step}");
    }
    // The pool mends itself, and the log has no gap.
    let written = service.call("PATCH", "/admin/v1/titles/heat", r#"{"name":"Heat II"}"#).await;
    assert_eq!(written.status(), StatusCode::OK);
    let purges = service.app.store.snapshot().await.unwrap().purges_after(0, 10).await.unwrap();
    assert_eq!(purges.iter().map(|purge| purge.seq).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editor_whose_write_loses_its_database_is_told_so() {
    if engine() == Engine::Sqlite {
        return;
    }
    let service = std::sync::Arc::new(Service::start().await);
    service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await;
    let before = contents(&service).await;
    let mut other = other(&service).await;
    other.execute(sqlx::raw_sql("BEGIN; SELECT seq FROM log_head FOR UPDATE")).await.unwrap();
    let writer = std::sync::Arc::clone(&service);
    let write =
        tokio::spawn(async move { writer.call("PATCH", "/admin/v1/titles/heat", r#"{"name":"Heat II"}"#).await });
    // In the middle of its transaction, as the server sees it.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let mut looks = 0;
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut other).await.unwrap() == 0 {
        looks += 1;
        assert!(looks < 2_000, "the write never waited");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        // Within a transaction the server shows the same picture until it is told to look anew.
        other.execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
    }
    service.database.cut_connections();
    let refused = problem(write.await.unwrap()).await;
    assert_eq!(refused, (StatusCode::SERVICE_UNAVAILABLE, "database-unreachable".into()));
    assert_eq!(contents(&service).await, before);
}

/// A pool says the same of both.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_told_from_one_whose_connections_are_all_in_use() {
    if engine() == Engine::Sqlite {
        return;
    }
    let mut server = Postgres::start(Durable::No).unwrap();
    let url = server.database("nextream").unwrap();
    let settings = Settings { wait_ms: 300, readers: 1, writers: 1, ..Settings::postgres(&url, &[]) };
    let service = Service::over(Database { settings, ..Database::fresh_on(Engine::Sqlite) }).await;
    let read = async || problem(service.call("GET", "/v1/titles/heat", "").await).await;
    let write = async || problem(service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await).await;
    let held = (service.app.store.snapshot().await.unwrap(), service.app.store.write().await.unwrap());
    let busy = (StatusCode::SERVICE_UNAVAILABLE, "busy".to_string());
    assert_eq!((read().await, write().await), (busy.clone(), busy));
    drop(held);
    server.kill_primary().unwrap();
    let away = (StatusCode::SERVICE_UNAVAILABLE, "database-unreachable".to_string());
    for _ in 0..3 {
        assert_eq!((read().await, write().await), (away.clone(), away.clone()));
    }
}

/// In the middle of a commit nobody but the database knows what becomes of it. With SQLite it is in this process.
#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_database_is_lost_while_it_is_stored_may_have_been_done_and_is_safe_to_repeat() {
    if engine() == Engine::Sqlite {
        return;
    }
    let mut database = Database::fresh();
    let url = database.settings.database_url.clone().unwrap();
    let port = url.rsplit(':').next().and_then(|rest| rest.split('/').next()).unwrap().to_string();
    let door = Door::before(port.parse().unwrap()).await;
    database.settings.database_url = Some(url.replace(&format!(":{port}/"), &format!(":{}/", door.port)));
    let service = Service::over(database).await;
    let create = |name: &str| {
        let (body, service) = (format!(r#"{{"name":"{name}"}}"#), &service);
        let key = name.to_string();
        async move { service.ask("POST", "/admin/v1/titles", &body, &[("idempotency-key", &key)]).await }
    };
    let undecided = (StatusCode::SERVICE_UNAVAILABLE, "undecided".to_string());
    // Its connection ends after the last statement and before the commit is made.
    let gone = "CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER gone AFTER INSERT ON purge_log DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION gone()";
    service.database.sql("", gone).await;
    let before = contents(&service).await;
    assert_eq!(problem(create("heat").await).await, undecided);
    assert_eq!(contents(&service).await, before);
    service.database.sql("", "DROP TRIGGER gone ON purge_log; DROP FUNCTION gone").await;
    let again = create("heat").await;
    assert_eq!((again.status(), again.headers().get("idempotency-replayed")), (StatusCode::CREATED, None));
    // It ends after that, and before anybody hears of it.
    door.lose_answer_to("COMMIT");
    assert_eq!(problem(create("ronin").await).await, undecided);
    let after = contents(&service).await;
    assert!(after.contains("ronin"), "{after}");
    let again = create("ronin").await;
    assert_eq!(
        (again.status(), &again.headers()["idempotency-replayed"]),
        (StatusCode::CREATED, &"true".parse().unwrap())
    );
    assert_eq!(contents(&service).await, after, "it is not done twice");
    let purges = service.app.store.snapshot().await.unwrap().purges_after(0, 10).await.unwrap();
    assert_eq!(purges.iter().map(|purge| purge.seq).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_reached_is_named_without_its_password() {
    let settings = Settings::postgres("postgres://ada:secret@127.0.0.1:1/nextream", &[]);
    let error = origin::store::Store::connect(&Settings { wait_ms: 500, ..settings.clone() }).await.err().unwrap();
    assert!(!format!("{} {error}", settings.place()).contains("secret"));
    assert_eq!(settings.place(), "127.0.0.1:1/nextream");
}
