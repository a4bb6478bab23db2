//! The schema's versions. Files in `migrations/` are for both engines; those in `migrations/sqlite` and
//! `migrations/postgres` for one of them. Numbers are one sequence over all three folders.
use super::Engine;
use crate::error::StoreError;
use sqlx::migrate::Migrator;
use sqlx::{AnyPool, Row, migrate};

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

/// Brings the schema up to date. Processes that start together wait for each other: in PostgreSQL on an advisory lock,
/// in SQLite on the writer's.
pub async fn run(engine: Engine, writer: &AnyPool) -> Result<(), StoreError> {
    match engine {
        Engine::Postgres => {
            check_collation(writer).await?;
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
