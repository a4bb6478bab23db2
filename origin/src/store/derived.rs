//! What is derived from titles and rails, made anew when a release gives it another form: lists, credits, texts to search.
//! What shows it is purged with it: everything where documents have changed too.
use super::search::long_words;
use super::{LoggedPurge, Store, Write};
use crate::catalog::keys;
use crate::catalog::model::{RailInput, Record, Shown};
use crate::error::{StoreError, Versioned};
use kv_schemas::PurgeMode;
use sqlx::{AnyConnection, Row};

/// Raised whenever what is derived, or a document, has another form. 1: all of it; 2: short words of the texts to search; 3: all
/// of them, by three letters. From the moment on at which a database has a form, processes of releases with a lower one no longer
/// write into it, nor start on it.
pub(crate) const FORM: i64 = 3;
const BATCH: u32 = 500;

/// Refuses a database in which what is derived has another form than this release's.
pub(super) async fn check(connection: &mut AnyConnection) -> Result<(), StoreError> {
    let form: i64 = sqlx::query("SELECT form FROM derived").fetch_one(connection).await?.try_get(0)?;
    if form < FORM {
        return Err(StoreError::Older { what: Versioned::Derived, found: form, own: FORM });
    }
    check_not_newer(form)
}

/// Refuses what only a newer release can read and write.
pub(super) fn check_not_newer(form: i64) -> Result<(), StoreError> {
    if form > FORM {
        return Err(StoreError::Newer { what: Versioned::Derived, found: form, own: FORM });
    }
    Ok(())
}

impl Store {
    /// Brings what is derived to this release's form, in one transaction.
    pub(super) async fn derive(&self) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let row = sqlx::query("SELECT form FROM derived").fetch_one(&mut *write.tx).await?;
        let form: i64 = row.try_get(0)?;
        if form == FORM {
            return Ok(());
        }
        let (count, keys) = match form {
            0 => (write.derive_titles().await?.saturating_add(write.derive_rails().await?), Vec::new()),
            _ => (write.derive_words().await?, keys::search().into_iter().collect()),
        };
        sqlx::query("UPDATE derived SET form = $1").bind(FORM).execute(&mut *write.tx).await?;
        if count > 0 {
            let purge = LoggedPurge { keys: &keys, mode: PurgeMode::Soft, reason: Some("new release"), actor: None };
            write.purge(purge).await?;
            tracing::info!(count, "what is derived of titles and rails was made anew");
        }
        write.commit().await?;
        Ok(())
    }
}

impl Write {
    async fn derive_titles(&mut self) -> Result<usize, StoreError> {
        let (mut after, mut count) = (String::new(), 0usize);
        loop {
            let rows = sqlx::query("SELECT id FROM title WHERE id > $1 ORDER BY id LIMIT $2")
                .bind(after.clone())
                .bind(i64::from(BATCH))
                .fetch_all(&mut *self.tx)
                .await?;
            if rows.is_empty() {
                return Ok(count);
            }
            for row in rows {
                after = row.try_get(0)?;
                if let Some(mut title) = self.title(&after).await? {
                    // Of its last write: a moment that has passed since is still due, and goes or comes with its own purge.
                    let at_ms = title.updated_at_ms;
                    self.put_title(&mut title, at_ms).await?;
                    count = count.saturating_add(1);
                }
            }
        }
    }

    async fn derive_words(&mut self) -> Result<usize, StoreError> {
        let (mut after, mut count) = (0i64, 0usize);
        loop {
            let rows = sqlx::query("SELECT n, words FROM title_text WHERE n > $1 ORDER BY n LIMIT $2")
                .bind(after)
                .bind(i64::from(BATCH))
                .fetch_all(&mut *self.tx)
                .await?;
            if rows.is_empty() {
                return Ok(count);
            }
            let mut texts = Vec::with_capacity(rows.len());
            for row in &rows {
                after = row.try_get(0)?;
                texts.push(row.try_get::<String, _>(1)?);
            }
            self.put_words(texts.iter().flat_map(|text| long_words(text)).collect()).await?;
            count = count.saturating_add(texts.len());
        }
    }

    /// Rails of the first release have no body.
    async fn derive_rails(&mut self) -> Result<usize, StoreError> {
        let now_ms = crate::moment();
        let rows = sqlx::query("SELECT id, name, position, version FROM rail WHERE body = ''");
        let rows = rows.fetch_all(&mut *self.tx).await?;
        for row in &rows {
            let id: String = row.try_get(0)?;
            let items = sqlx::query("SELECT title_id FROM rail_item WHERE rail_id = $1 ORDER BY position")
                .bind(id.clone())
                .fetch_all(&mut *self.tx)
                .await?;
            let items = items.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
            let input = RailInput::of(row.try_get::<String, _>(1)?, row.try_get(2)?, items);
            let rail = Record {
                id,
                version: row.try_get(3)?,
                input,
                visible: true,
                shown: Shown::everywhere(true),
                created_at_ms: now_ms,
                updated_at_ms: now_ms,
                deleted_at_ms: None,
            };
            self.put_rail(&rail, now_ms).await?;
        }
        let genres = sqlx::query("SELECT id, name FROM genre WHERE body = ''").fetch_all(&mut *self.tx).await?;
        for row in &genres {
            let (id, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let body = super::titles::json(&crate::catalog::model::GenreInput { name, ..Default::default() })?;
            sqlx::query("UPDATE genre SET body = $2 WHERE id = $1").bind(id).bind(body).execute(&mut *self.tx).await?;
        }
        Ok(rows.len())
    }
}
