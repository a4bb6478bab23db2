//! The service over its real router and a real SQLite file: what must hold between a write and its purge.
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use kv_schemas::claims::StaffRole;
use kv_schemas::{PurgeAck, PurgeBatch, PurgeMode};
use origin::http::{App, Role, router};
use origin::keys;
use origin::purge::Dispatcher;
use origin::store::{LoggedPurge, Store};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tower::ServiceExt;

struct Service {
    dir: TempDir,
    app: App,
    router: axum::Router,
}

impl Service {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        keys::generate(&dir.path().join("keys")).unwrap();
        let keys = Arc::new(keys::load(&dir.path().join("keys")).unwrap());
        let store = Store::open(&dir.path().join("db.sqlite")).await.unwrap();
        let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder().handle();
        let app = App { store, keys, metrics };
        let router = router(app.clone(), &[Role::Client, Role::Admin]);
        Self { dir, app, router }
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> Response {
        let token = self.app.keys.admin_token("test", StaffRole::Admin, 60).unwrap();
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        let request = request.header("content-type", "application/json");
        // PUT creates here, and there is nothing to match yet.
        let request = if method == "PUT" { request } else { request.header("if-match", "*") };
        self.router.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap()
    }

    /// Runs SQL beside the service, as a fault would.
    async fn sql(&self, statement: &'static str) {
        let options = SqliteConnectOptions::new().filename(self.dir.path().join("db.sqlite"));
        let mut connection = options.connect().await.unwrap();
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_write_whose_purge_cannot_be_logged_never_was() {
    let service = Service::start().await;
    assert_eq!(service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await.status(), StatusCode::CREATED);
    let before = service.app.store.snapshot().await.unwrap().as_of;
    service.sql("CREATE TRIGGER refuse BEFORE INSERT ON purge_log BEGIN SELECT RAISE(ABORT, 'full'); END").await;
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
    service.sql("CREATE TRIGGER refuse BEFORE INSERT ON title BEGIN SELECT RAISE(ABORT, 'full'); END").await;
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

/// An edge that keeps what it is sent and can be told to fail.
#[derive(Clone, Default)]
struct FakeJournal {
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

    fn take(&self, batch: &PurgeBatch) -> Result<axum::Json<PurgeAck>, StatusCode> {
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let mut next = self.next_seq.lock().unwrap();
        *next = (*next).max(1);
        let new: Vec<u64> = batch.purges.iter().map(|p| p.seq).filter(|seq| *seq >= *next).collect();
        if batch.first_seq <= *next {
            *next += new.len() as u64;
            self.taken.lock().unwrap().extend(&new);
        }
        Ok(axum::Json(PurgeAck { log_id: batch.log_id.clone(), next_seq: *next, accepted: new.len() as u32 }))
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
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let dispatcher = Dispatcher::new(service.app.store.clone(), service.app.keys.clone(), vec![url]).unwrap();
    tokio::spawn(dispatcher.run(stopped));
    eventually("what was lost", || journal.taken.lock().unwrap().len() == 605).await;
    assert_eq!(*journal.taken.lock().unwrap(), (1..=605).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_edge_that_knows_more_than_the_database_gives_the_log_a_new_identity() {
    let service = Service::start().await;
    log(&service.app.store, 3).await;
    let before = service.app.store.snapshot().await.unwrap().as_of;
    let journal = FakeJournal::default();
    *journal.next_seq.lock().unwrap() = 10;
    let url = journal.start().await;
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let dispatcher = Dispatcher::new(service.app.store.clone(), service.app.keys.clone(), vec![url]).unwrap();
    tokio::spawn(dispatcher.run(stopped));
    for _ in 0..500 {
        if service.app.store.snapshot().await.unwrap().as_of.log_id != before.log_id {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the log kept its identity");
}
