//! The schema's versions. Files in `migrations/` are for both engines; those in `migrations/sqlite` and
//! `migrations/postgres` for one of them. Numbers are one sequence over all three folders.
use super::{Engine, Settings};
use crate::error::StoreError;
use sqlx::migrate::Migrator;
use sqlx::{AnyPool, AssertSqlSafe, Row, migrate};

/// PostgreSQL's advisory lock that a process holds from here on until what is derived is up to date, too. The migrations' own
/// is held for these alone.
const START_LOCK: i64 = 0x6f72_6967_696e;

static COMMON: Migrator = migrate!("./migrations");
static SQLITE: Migrator = migrate!("./migrations/sqlite");
static POSTGRES: Migrator = migrate!("./migrations/postgres");

fn migrator(engine: Engine) -> Migrator {
    let own = match engine {
        Engine::Sqlite => &SQLITE,
        Engine::Postgres => &POSTGRES,
    };
    let mut migrations: Vec<_> = COMMON.iter().chain(own.iter()).cloned().collect();
    migrations.sort_by_key(|migration| migration.version);
    Migrator::with_migrations(migrations)
}

/// Brings the schema up to date. Processes that start together wait for each other: in PostgreSQL on an advisory lock, which
/// the one connection of `writer` keeps, in SQLite on the writer's.
pub async fn run(settings: &Settings, writer: &AnyPool) -> Result<(), StoreError> {
    let engine = settings.engine();
    match engine {
        Engine::Postgres => {
            check_collation(writer).await?;
            sqlx::query("SELECT pg_advisory_lock($1)").bind(START_LOCK).execute(writer).await?;
            // Behind a change of a table that waits for one transaction, a backup say, all others that read it wait, too.
            let bounded = format!("SET lock_timeout = {}", settings.wait_ms);
            sqlx::raw_sql(AssertSqlSafe(bounded)).execute(writer).await?;
            migrator(engine).run_direct(None, &mut *writer.acquire().await?, false).await?;
        }
        Engine::Sqlite => {
            let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
            migrator(engine).run_direct(None, &mut *tx, false).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}

/// Lists are walked by `>` on text, and cursors outlive a move from one engine to the other: both must order by code
/// point, as SQLite does.
async fn check_collation(writer: &AnyPool) -> Result<(), StoreError> {
    let row = sqlx::query(
        "SELECT CASE datlocprovider WHEN 'i' THEN 'ICU' ELSE datcollate END::text
           FROM pg_database WHERE datname = current_database()",
    )
    .fetch_one(writer)
    .await?;
    let collation: String = row.try_get(0)?;
    if ["C", "POSIX", "C.UTF-8", "C.utf8"].contains(&collation.as_str()) {
        return Ok(());
    }
    Err(StoreError::Collation(collation))
}
