//! What is done to a database as a whole: many rows at once, statistics for the planner.
use super::{Engine, Sql, Store, Write};
use crate::error::StoreError;
use crate::generate::Viewer;
use sqlx::Row;
use std::collections::HashMap;

/// Viewers of one statement: 13 values each, and SQLite takes 32,766.
const ROWS: usize = 500;

impl Write {
    /// Ids of those whose address another viewer has.
    pub async fn viewers_with_foreign_addresses(&mut self, viewers: &[Viewer]) -> Result<Vec<String>, StoreError> {
        let mut foreign = Vec::new();
        for rows in viewers.chunks(ROWS) {
            let mut sql = Sql::new("SELECT id, email FROM account WHERE kind = 'viewer' AND email IN (");
            sql.bind_all(rows.iter().map(|viewer| viewer.email.as_str())).push(")");
            let there = sql.build()?.fetch_all(&mut *self.tx).await?;
            let owners = there.iter().map(|row| Ok((row.try_get("email")?, row.try_get("id")?)));
            let owners = owners.collect::<Result<HashMap<String, String>, StoreError>>()?;
            let is_foreign = |viewer: &&Viewer| owners.get(&viewer.email).is_some_and(|owner| *owner != viewer.id);
            foreign.extend(rows.iter().filter(is_foreign).map(|viewer| viewer.id.clone()));
        }
        Ok(foreign)
    }

    /// Viewers without a password: nobody logs in as one of them before it is set. Those who are there already, by id or
    /// address, stay as they are. Returns how many were new.
    pub async fn put_viewers(&mut self, viewers: &[Viewer]) -> Result<usize, StoreError> {
        let mut count = 0;
        let now = crate::moment();
        for rows in viewers.chunks(ROWS) {
            let mut sql = Sql::new(
                "INSERT INTO account (id, kind, email, password_hash, name, role, plan, maturity, locale, banned,
                   progress_logged_ms, created_ms, updated_ms) VALUES ",
            );
            sql.rows(rows, |row, viewer| {
                row.bind(viewer.id.as_str()).word("'viewer'").bind(viewer.email.as_str()).word("''");
                row.bind(viewer.name.as_str()).word("''").bind(viewer.plan).bind(viewer.maturity);
                row.word("NULL").word("0").word("0").bind(now).bind(now);
            });
            sql.push(" ON CONFLICT DO NOTHING");
            count += sql.build()?.execute(&mut *self.tx).await?.rows_affected();
        }
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }
}

impl Store {
    /// Has the engine look at how much there is of everything; otherwise it does so by itself, later.
    pub async fn analyze(&self) -> Result<(), StoreError> {
        let mut tx = self.writer.begin().await?;
        if self.engine == Engine::Postgres {
            sqlx::raw_sql("SET LOCAL statement_timeout = 0").execute(&mut *tx).await?;
        }
        sqlx::raw_sql("ANALYZE").execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }
}
