//! The schema's versions. Files in `migrations/` are for both engines; those in `migrations/sqlite` and
//! `migrations/postgres` for one of them. Numbers are one sequence over all three folders.
use super::{Engine, Settings};
use crate::error::{StoreError, Versioned};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Row, migrate};
use std::collections::BTreeSet;

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

/// Refuses a database that has other migrations than this release.
pub async fn check(engine: Engine, connection: &mut AnyConnection) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT version FROM _sqlx_migrations").fetch_all(connection).await?;
    let there = rows.iter().map(|row| row.try_get(0)).collect::<Result<BTreeSet<i64>, _>>()?;
    let known: BTreeSet<i64> = migrator(engine).iter().map(|migration| migration.version).collect();
    let last = |numbers: &BTreeSet<i64>| numbers.last().copied().unwrap_or(0);
    let (what, found, own) = (Versioned::Schema, last(&there), last(&known));
    if !there.is_subset(&known) {
        return Err(StoreError::Newer { what, found, own });
    }
    if there != known {
        return Err(StoreError::Older { what, found, own });
    }
    Ok(())
}

/// What sqlx says of a migration that it does not know.
fn newer(engine: Engine, error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(found) => {
            let own = migrator(engine).iter().map(|migration| migration.version).max().unwrap_or(0);
            StoreError::Newer { what: Versioned::Schema, found, own }
        }
        error => error.into(),
    }
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
            let done = migrator(engine).run_direct(None, &mut *writer.acquire().await?, false).await;
            done.map_err(|error| newer(engine, error))?;
        }
        Engine::Sqlite => {
            let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
            migrator(engine).run_direct(None, &mut *tx, false).await.map_err(|error| newer(engine, error))?;
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
