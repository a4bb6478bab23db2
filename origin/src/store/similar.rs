//! Which titles are like which: worked out by a job, a few at a time, each with the purge of its page in one transaction.
use super::{Snapshot, Write};
use crate::catalog::model::{Title, slug};
use crate::catalog::similar::{CANDIDATES, KEPT, likeness};
use crate::error::StoreError;
use sqlx::Row;
use std::collections::BTreeSet;

impl Snapshot {
    /// Whether some title's likes are to be found again.
    pub async fn is_similar_due(&mut self) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM similar_due LIMIT 1").fetch_optional(&mut *self.tx).await?;
        Ok(row.is_some())
    }
}

impl Write {
    /// Has the job look at a title again.
    pub(super) async fn mark_similar(&mut self, id: &str) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO similar_due (title_id) VALUES ($1) ON CONFLICT (title_id) DO NOTHING")
            .bind(id.to_string())
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Takes titles to look at, at most so many.
    pub async fn take_similar_due(&mut self, limit: u32) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query("SELECT title_id FROM similar_due ORDER BY title_id LIMIT $1")
            .bind(i64::from(limit))
            .fetch_all(&mut *self.tx)
            .await?;
        let ids: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        for id in &ids {
            let gone = sqlx::query("DELETE FROM similar_due WHERE title_id = $1").bind(id.clone());
            gone.execute(&mut *self.tx).await?;
        }
        Ok(ids)
    }

    /// What is kept as like a title, and who keeps it.
    pub async fn similar_both_ways(&mut self, id: &str) -> Result<(Vec<String>, Vec<String>), StoreError> {
        let kept = sqlx::query("SELECT other_id FROM similar_title WHERE title_id = $1 ORDER BY position")
            .bind(id.to_string())
            .fetch_all(&mut *self.tx)
            .await?;
        let keepers = sqlx::query("SELECT title_id FROM similar_title WHERE other_id = $1 ORDER BY title_id LIMIT $2")
            .bind(id.to_string())
            .bind(i64::from(CANDIDATES))
            .fetch_all(&mut *self.tx)
            .await?;
        let ids = |rows: Vec<super::Row>| rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<_, StoreError>>();
        Ok((ids(kept)?, ids(keepers)?))
    }

    /// The titles most like this one, best first, out of those that share a person or are among the best of a genre.
    pub async fn find_similar(&mut self, title: &Title) -> Result<Vec<String>, StoreError> {
        if !title.visible {
            return Ok(Vec::new());
        }
        let mut candidates = BTreeSet::new();
        for credit in &title.input.people {
            let rows = sqlx::query("SELECT title_id FROM credit WHERE person_id = $1 ORDER BY title_id LIMIT $2")
                .bind(credit.id.clone())
                .bind(i64::from(CANDIDATES))
                .fetch_all(&mut *self.tx)
                .await?;
            for row in rows {
                candidates.insert(row.try_get::<String, _>(0)?);
            }
        }
        for name in &title.input.genres {
            let rows = sqlx::query(
                "SELECT title_id FROM listing WHERE list = $1 ORDER BY rating DESC, title_id DESC LIMIT $2",
            )
            .bind(slug(name))
            .bind(i64::from(CANDIDATES))
            .fetch_all(&mut *self.tx)
            .await?;
            for row in rows {
                candidates.insert(row.try_get::<String, _>(0)?);
            }
        }
        candidates.remove(&title.id);
        let mut scored = Vec::with_capacity(candidates.len());
        for id in candidates {
            let Some(other) = self.title(&id).await? else { continue };
            let score = likeness(&title.input, &other.input);
            if other.visible && score > 0 {
                scored.push((score, id));
            }
        }
        scored.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        Ok(scored.into_iter().take(KEPT).map(|(_, id)| id).collect())
    }

    pub async fn put_similar(&mut self, id: &str, others: &[String]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM similar_title WHERE title_id = $1")
            .bind(id.to_string())
            .execute(&mut *self.tx)
            .await?;
        for (position, other) in (0i64..).zip(others) {
            sqlx::query("INSERT INTO similar_title (title_id, position, other_id) VALUES ($1, $2, $3)")
                .bind(id.to_string())
                .bind(position)
                .bind(other.clone())
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(())
    }
}
