//! The store's transactions: sqlx's, for either engine, with every statement timed. A slow one is logged, and its plan
//! after it; nothing a client sent is, since the text of statements holds no values.
use super::Engine;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{BoxStream, StreamExt};
use sqlx::any::{Any, AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo};
use sqlx::{AnyPool, AssertSqlSafe, Describe, Either, Execute, Executor, Row, SqlSafeStr, SqlStr, Transaction};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The plan of one statement is looked up this often at most.
const PLAN_PAUSE: Duration = Duration::from_secs(60);
const PLANS_WAITING_MAX: usize = 16;
const STATEMENTS_MAX: usize = 1_000;

/// What statements run on: `&mut *tx`, as with sqlx's own.
pub type Tx = Box<Timed>;

pub struct Timed {
    tx: Transaction<'static, Any>,
    watch: Arc<Watch>,
}

impl Timed {
    pub(super) fn begun(tx: Transaction<'static, Any>, watch: &Arc<Watch>) -> Tx {
        Box::new(Self { tx, watch: Arc::clone(watch) })
    }

    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        let statement = self.watch.begin("COMMIT".into_sql_str());
        let done = self.tx.commit().await;
        drop(statement);
        done
    }
}

impl std::fmt::Debug for Timed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tx")
    }
}

/// Times statements. One for each store.
pub(super) struct Watch {
    threshold: Duration,
    plans: mpsc::Sender<SqlStr>,
    /// Every statement that was run, for tests that look at plans.
    remembered: Option<Mutex<BTreeSet<String>>>,
}

impl Watch {
    /// `pool`: where plans are looked up.
    pub fn start(engine: Engine, pool: AnyPool, threshold: Duration, remember: bool) -> Arc<Self> {
        let (plans, wanted) = mpsc::channel(PLANS_WAITING_MAX);
        tokio::spawn(log_plans(engine, pool, wanted));
        Arc::new(Self { threshold, plans, remembered: remember.then(Mutex::default) })
    }

    pub fn statements(&self) -> Vec<String> {
        let Some(remembered) = &self.remembered else { return Vec::new() };
        remembered.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn begin(self: &Arc<Self>, sql: SqlStr) -> Statement {
        if let Some(remembered) = &self.remembered {
            let mut remembered = remembered.lock().unwrap_or_else(PoisonError::into_inner);
            if remembered.len() < STATEMENTS_MAX {
                remembered.insert(sql.as_str().to_string());
            }
        }
        Statement { watch: Arc::clone(self), sql, began: Instant::now() }
    }
}

/// A statement under way; its time is taken when it is dropped.
struct Statement {
    watch: Arc<Watch>,
    sql: SqlStr,
    began: Instant,
}

impl Drop for Statement {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        metrics::histogram!("origin_statement_seconds").record(took.as_secs_f64());
        if took < self.watch.threshold {
            return;
        }
        metrics::counter!("origin_slow_statements_total").increment(1);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(took_ms, statement = self.sql.as_str(), "a slow statement");
        // With many waiting, what is one plan more?
        let _ = self.watch.plans.try_send(self.sql.clone());
    }
}

async fn log_plans(engine: Engine, pool: AnyPool, mut wanted: mpsc::Receiver<SqlStr>) {
    let mut logged: HashMap<SqlStr, Instant> = HashMap::new();
    while let Some(sql) = wanted.recv().await {
        logged.retain(|_, at| at.elapsed() < PLAN_PAUSE);
        if logged.contains_key(&sql) || logged.len() >= STATEMENTS_MAX {
            continue;
        }
        match explain(engine, &pool, sql.as_str()).await {
            Ok(plan) => tracing::warn!(statement = sql.as_str(), plan, "the plan of a slow statement"),
            Err(error) => tracing::debug!(%error, statement = sql.as_str(), "a statement has no plan"),
        }
        logged.insert(sql, Instant::now());
    }
}

/// How the engine would run a statement, whatever the values bound to it; nothing is run.
pub(super) async fn explain(engine: Engine, pool: &AnyPool, sql: &str) -> Result<String, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let rows = match engine {
        Engine::Sqlite => {
            let explain = format!("EXPLAIN QUERY PLAN {sql}");
            sqlx::query(AssertSqlSafe(explain)).persistent(false).fetch_all(&mut *tx).await?
        }
        Engine::Postgres => {
            let prepare = format!("SET LOCAL plan_cache_mode = force_generic_plan; PREPARE explained AS {sql}");
            sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *tx).await?;
            let count = (1..100).take_while(|n| sql.contains(&format!("${n}"))).count();
            let nulls = vec!["NULL"; count].join(", ");
            let execute = match count {
                0 => "EXPLAIN EXECUTE explained".to_string(),
                _ => format!("EXPLAIN EXECUTE explained({nulls})"),
            };
            let rows = sqlx::raw_sql(AssertSqlSafe(execute)).fetch_all(&mut *tx).await?;
            sqlx::raw_sql("DEALLOCATE explained").execute(&mut *tx).await?;
            rows
        }
    };
    let column = match engine {
        Engine::Sqlite => "detail",
        Engine::Postgres => "QUERY PLAN",
    };
    let lines: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(column)).collect();
    Ok(lines?.join("\n"))
}

impl<'c> Executor<'c> for &'c mut Timed {
    type Database = Any;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        mut query: E,
    ) -> BoxStream<'e, Result<Either<AnyQueryResult, AnyRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let arguments = match query.take_arguments() {
            Ok(arguments) => arguments,
            Err(error) => return futures_util::stream::once(async { Err(sqlx::Error::Encode(error)) }).boxed(),
        };
        let sql = query.sql();
        let statement = self.watch.begin(sql.clone());
        let rows = (*self.tx).fetch_many((sql, arguments));
        rows.inspect(move |_| _ = &statement).boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, mut query: E) -> BoxFuture<'e, Result<Option<AnyRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let arguments = match query.take_arguments() {
            Ok(arguments) => arguments,
            Err(error) => return async { Err(sqlx::Error::Encode(error)) }.boxed(),
        };
        let sql = query.sql();
        let statement = self.watch.begin(sql.clone());
        let row = (*self.tx).fetch_optional((sql, arguments));
        row.inspect(move |_| drop(statement)).boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [AnyTypeInfo],
    ) -> BoxFuture<'e, Result<AnyStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        (*self.tx).prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Any>, sqlx::Error>>
    where
        'c: 'e,
    {
        (*self.tx).describe(sql)
    }
}
