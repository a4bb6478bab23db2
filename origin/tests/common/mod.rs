//! A service over its real router and a real database of its own. Which engine: SQLite, or PostgreSQL with
//! `ORIGIN_TEST_ENGINE=postgres`; `cargo xtask test` runs the same suites on both.
#![allow(dead_code)]
pub mod door;
pub mod people;
pub mod program;

use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use http_body_util::BodyExt;
use kv_schemas::claims::StaffRole;
use kv_schemas::edge_secret::{EdgeSecret, VIEWER_SEAL};
use origin::auth::Auth;
use origin::auth::password::{Cost, Hasher};
use origin::edges::Edges;
use origin::http::shed::{Gates, Limit};
use origin::http::{App, Role, router};
use origin::keys;
use origin::rendered::Rendered;
use origin::store::{Engine, Settings, Store};
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tempfile::TempDir;
use tower::ServiceExt;
use xtask::postgres::{Durable, Postgres};

/// What the service shares with an edge.
pub const EDGE_SECRET: &str = "a secret that edge and origin share";

pub fn engine() -> Engine {
    match std::env::var("ORIGIN_TEST_ENGINE").as_deref() {
        Ok("postgres") => Engine::Postgres,
        Ok("sqlite") | Err(_) => Engine::Sqlite,
        Ok(other) => panic!("ORIGIN_TEST_ENGINE must be sqlite or postgres, not {other}"),
    }
}

/// One server for all tests of a binary; each has a database of its own there.
fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(Durable::No).unwrap_or_else(|error| panic!("{error}")))
}

/// An empty database.
pub struct Database {
    pub dir: TempDir,
    pub settings: Settings,
    pub name: String,
    /// Where the service shares what it rendered.
    pub redis: Option<String>,
}

impl Database {
    pub fn fresh() -> Self {
        Self::fresh_on(engine())
    }

    pub fn fresh_on(engine: Engine) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let settings = match engine {
            Engine::Sqlite => Settings::sqlite(&dir.path().join("db.sqlite")),
            Engine::Postgres => Settings::postgres(&server().database(&name).unwrap(), &[]),
        };
        Self { dir, settings, name, redis: None }
    }

    /// The same database for another process.
    pub fn again(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, settings: self.settings.clone(), name: self.name.clone(), redis: self.redis.clone() }
    }

    /// Runs SQL beside the service, as a fault would: each engine's own.
    pub async fn sql(&self, sqlite: &str, postgres: &str) {
        match self.settings.engine() {
            Engine::Sqlite => {
                sqlx::any::install_default_drivers();
                let url = format!("sqlite://{}", self.settings.place());
                let pool = sqlx::AnyPool::connect(&url).await.unwrap();
                sqlx::raw_sql(sqlx::AssertSqlSafe(sqlite)).execute(&pool).await.unwrap();
                pool.close().await;
            }
            Engine::Postgres => _ = server().sql(&self.name, postgres).unwrap(),
        }
    }

    /// Every insert into this table fails from now on.
    pub async fn refuse_inserts(&self, table: &str) {
        let sqlite = format!("CREATE TRIGGER refuse BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'full'); END");
        let postgres = format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'full'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()"
        );
        self.sql(&sqlite, &postgres).await;
    }

    /// Undoes that.
    pub async fn accept_inserts(&self, table: &str) {
        self.sql("DROP TRIGGER refuse", &format!("DROP TRIGGER refuse ON {table}; DROP FUNCTION refuse")).await;
    }

    /// Rows of a table.
    pub async fn count(&self, table: &str) -> i64 {
        sqlx::any::install_default_drivers();
        let file = format!("sqlite://{}", self.dir.path().join("db.sqlite").display());
        let pool = sqlx::AnyPool::connect(self.settings.database_url.as_deref().unwrap_or(&file)).await.unwrap();
        let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        let count = sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap();
        pool.close().await;
        count
    }

    /// Ends every connection of the service in the middle of what it does. PostgreSQL's.
    pub fn cut_connections(&self) {
        server().cut_connections(&self.name).unwrap();
    }
}

pub struct Service {
    pub database: Database,
    pub app: App,
    pub router: axum::Router,
}

impl Service {
    pub async fn start() -> Self {
        Self::over(Database::fresh()).await
    }

    pub async fn over(database: Database) -> Self {
        Self::shaped(database, &[Role::Client, Role::Admin, Role::Auth], &[]).await
    }

    /// With these roles and limits.
    pub async fn shaped(database: Database, roles: &[Role], limits: &[Limit]) -> Self {
        keys::generate(&database.dir.path().join("keys")).unwrap();
        let keys = Arc::new(keys::load(&database.dir.path().join("keys")).unwrap());
        let store = Store::connect(&database.settings).await.unwrap();
        let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder().handle();
        let edges = Arc::new(Edges::new(Arc::clone(&keys), &[]).unwrap());
        let secret = EdgeSecret::new(EDGE_SECRET).unwrap();
        let auth = Arc::new(Auth::new(Hasher::new(Cost::TRIFLING, 2).unwrap(), vec![secret]));
        let gates = Arc::new(Gates::new(limits));
        let rendered = Rendered::new(16 * 1024 * 1024, database.redis.as_deref()).await.unwrap();
        let app = App {
            store,
            keys,
            edges,
            metrics,
            auth,
            gates,
            rendered: Some(Arc::new(rendered)),
            in_use: Some(Arc::default()),
        };
        let router = router(app.clone(), roles);
        Self { database, app, router }
    }

    pub async fn call(&self, method: &str, path: &str, body: &str) -> Response {
        self.ask(method, path, body, &[]).await
    }

    pub async fn ask(&self, method: &str, path: &str, body: &str, fields: &[(&str, &str)]) -> Response {
        let token = self.app.keys.admin_token("test", StaffRole::Admin, 60).unwrap();
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        let request = request.header("content-type", "application/json");
        // PUT creates here, and there is nothing to match yet.
        let mut request = if method == "PUT" { request } else { request.header("if-match", "*") };
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.answer(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// As the edge asks: with proof of what is said of a viewer, unless there is some already.
    pub async fn answer(&self, mut request: Request<Body>) -> Response {
        let headers = request.headers();
        let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let secret = EdgeSecret::new(EDGE_SECRET).unwrap();
        if let (None, Some(seal)) = (said(VIEWER_SEAL), secret.seal_viewer(said, origin::now_ms() / 1000)) {
            request.headers_mut().insert(VIEWER_SEAL, seal.parse().unwrap());
        }
        self.router.clone().oneshot(request).await.unwrap()
    }
}

/// Looks again and again, for long enough even on a busy machine.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    for _ in 0..3_000 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 30 seconds");
}

pub async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// What was logged, as lines of JSON.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Of this thread, from here on: tests of one thread see their own alone.
    pub fn start(&self) -> tracing::subscriber::DefaultGuard {
        let (log, levels) = (self.clone(), tracing::Level::WARN);
        let subscriber =
            tracing_subscriber::fmt().json().with_max_level(levels).with_writer(move || log.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    /// The fields of each line with this message.
    pub fn said(&self, message: &str) -> Vec<serde_json::Value> {
        let text = self.text();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["fields"].take());
        lines.filter(|fields| fields["message"] == message).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}
