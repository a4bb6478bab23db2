//! Which titles are like which: worked out by a job, a few at a time, each with the purge of its page in one transaction.
use super::titles::list_of;
use super::{Snapshot, Sql, Write};
use crate::catalog::model::{Credit, Title};
use crate::catalog::similar::{CANDIDATES, KEPT, Traits, likeness};
use crate::error::StoreError;
use sqlx::Row;
use std::collections::{BTreeSet, HashMap};

/// Ids in one statement, which bounds the number of parameters.
const IDS: usize = 80;

/// A title whose likes are to be found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub id: String,
    /// Above 0: it is not this one that was edited but one near it. Another number after each mark, so that who has looked at it
    /// can tell whether it was marked since.
    near: i64,
    /// The title's as it is looked at.
    version: i64,
}

impl Due {
    pub fn is_near(&self) -> bool {
        self.near > 0
    }
}

/// What one more mark makes of `near`: it stays on its side of 0.
macro_rules! marked_again {
    () => {
        "near = CASE WHEN similar_due.near > 0 THEN similar_due.near + 1 ELSE similar_due.near - 1 END"
    };
}

fn due_of(row: &super::Row) -> Result<Due, StoreError> {
    Ok(Due { id: row.try_get(0)?, near: row.try_get(1)?, version: row.try_get(2)? })
}

/// What candidates are compared by, as far as they were read already.
pub type Known = HashMap<String, Traits>;

impl Snapshot {
    /// Titles to look at, edited ones first, at most so many.
    pub async fn similar_due(&mut self, limit: u32) -> Result<Vec<Due>, StoreError> {
        let rows = sqlx::query(
            "SELECT similar_due.title_id, similar_due.near, title.version FROM similar_due
              JOIN title ON title.id = similar_due.title_id
              ORDER BY similar_due.near, similar_due.title_id LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&mut *self.tx)
        .await?;
        rows.iter().map(due_of).collect()
    }

    /// The titles most like this one, best first, out of those that share a person or are among the best of a genre.
    pub async fn find_similar(&mut self, title: &Title, known: &mut Known) -> Result<Vec<String>, StoreError> {
        if !title.visible {
            return Ok(Vec::new());
        }
        let traits = Traits::of(&title.input.genres, &title.input.people, title.input.rating, title.input.year);
        let mut candidates = BTreeSet::new();
        for person in &traits.people {
            let rows = sqlx::query("SELECT title_id FROM credit WHERE person_id = $1 ORDER BY title_id LIMIT $2")
                .bind(person.clone())
                .bind(i64::from(CANDIDATES))
                .fetch_all(&mut *self.tx)
                .await?;
            for row in rows {
                candidates.insert(row.try_get::<String, _>(0)?);
            }
        }
        for genre in &traits.genres {
            let rows = sqlx::query(
                "SELECT title_id FROM listing WHERE list = $1 ORDER BY rating DESC, title_id DESC LIMIT $2",
            )
            .bind(genre.clone())
            .bind(i64::from(CANDIDATES))
            .fetch_all(&mut *self.tx)
            .await?;
            for row in rows {
                candidates.insert(row.try_get::<String, _>(0)?);
            }
        }
        candidates.remove(&title.id);
        self.read_traits(&candidates, known).await?;
        let score = |id: String| known.get(&id).map(|other| (likeness(&traits, other), id));
        let mut scored: Vec<_> = candidates.into_iter().filter_map(score).filter(|(score, _)| *score > 0).collect();
        scored.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        Ok(scored.into_iter().take(KEPT).map(|(_, id)| id).collect())
    }

    /// Of those that are seen anywhere: they stand in the list of all.
    async fn read_traits(&mut self, ids: &BTreeSet<String>, known: &mut Known) -> Result<(), StoreError> {
        let unknown: Vec<&String> = ids.iter().filter(|id| !known.contains_key(*id)).collect();
        for ids in unknown.chunks(IDS) {
            let mut query = Sql::new(
                "SELECT title.id, title.genres, title.people, title.rating, title.year FROM listing
                  JOIN title ON title.id = listing.title_id WHERE listing.list = '' AND listing.title_id IN (",
            );
            query.bind_all(ids.iter().map(|id| id.to_string())).push(")");
            for row in query.build()?.fetch_all(&mut *self.tx).await? {
                let (genres, people): (Vec<String>, Vec<Credit>) = (list_of(&row, "genres")?, list_of(&row, "people")?);
                let traits = Traits::of(&genres, &people, row.try_get("rating")?, row.try_get("year")?);
                known.insert(row.try_get("id")?, traits);
            }
        }
        Ok(())
    }
}

impl Write {
    /// Has the job look at a title again, if what it is compared by is to change. Before the change is written.
    pub(super) async fn mark_similar(&mut self, title: &Title) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO similar_due (title_id, near) SELECT $1, 0 WHERE NOT EXISTS (
                SELECT 1 FROM title WHERE id = $1 AND genres = $2 AND people = $3 AND COALESCE(year, 0) = $4
                  AND COALESCE(rating, -1) = $5
                  AND (SELECT count(*) FROM listing WHERE list = '' AND title_id = $1) = $6)
              ON CONFLICT (title_id) DO UPDATE SET near = 0",
        )
        .bind(title.id.clone())
        .bind(super::titles::json(&title.input.genres)?)
        .bind(super::titles::json(&title.input.people)?)
        .bind(title.input.year.unwrap_or(0))
        .bind(title.input.rating.unwrap_or(-1.0))
        .bind(i64::from(title.visible))
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Those of them that are due as they were when they were looked at.
    pub async fn still_due(&mut self, mut due: Vec<Due>) -> Result<Vec<Due>, StoreError> {
        let mut now = Vec::with_capacity(due.len());
        for due in due.chunks(IDS) {
            let mut query = Sql::new(
                "SELECT similar_due.title_id, similar_due.near, title.version FROM similar_due
                  JOIN title ON title.id = similar_due.title_id WHERE similar_due.title_id IN (",
            );
            query.bind_all(due.iter().map(|one| one.id.clone())).push(")");
            for row in query.build()?.fetch_all(&mut *self.tx).await? {
                now.push(due_of(&row)?);
            }
        }
        due.retain(|one| now.contains(one));
        Ok(due)
    }

    /// And at titles near it. Those that are to be looked at anyway are marked once more, for who looks at them just now.
    pub async fn mark_near(&mut self, ids: &BTreeSet<String>) -> Result<(), StoreError> {
        let ids: Vec<&String> = ids.iter().collect();
        // A mark that was taken away and made anew is another.
        let mark = crate::moment().max(1);
        for ids in ids.chunks(IDS) {
            let mut query = Sql::new("INSERT INTO similar_due (title_id, near) VALUES ");
            query.rows(ids, |row, id| _ = row.bind(id.to_string()).bind(mark));
            query.push(concat!(" ON CONFLICT (title_id) DO UPDATE SET ", marked_again!()));
            query.build()?.execute(&mut *self.tx).await?;
        }
        Ok(())
    }

    /// And at those that keep a title as like themselves, which are thousands of some: so many of those that are not marked
    /// yet. Whether that was all of them.
    pub async fn mark_keepers(&mut self, id: &str, limit: u32) -> Result<bool, StoreError> {
        // Those that are, once more, as in `mark_near`.
        let again = concat!(
            "UPDATE similar_due SET ",
            marked_again!(),
            " WHERE title_id IN (SELECT title_id FROM similar_title WHERE other_id = $1)"
        );
        sqlx::query(again).bind(id.to_string()).execute(&mut *self.tx).await?;
        let done = sqlx::query(
            "INSERT INTO similar_due (title_id, near)
              SELECT keeper.title_id, $3 FROM similar_title keeper WHERE keeper.other_id = $1
                AND NOT EXISTS (SELECT 1 FROM similar_due WHERE similar_due.title_id = keeper.title_id) LIMIT $2",
        )
        .bind(id.to_string())
        .bind(i64::from(limit))
        .bind(crate::moment().max(1))
        .execute(&mut *self.tx)
        .await?;
        Ok(done.rows_affected() < u64::from(limit))
    }

    /// A title was looked at as it is.
    pub async fn unmark_similar(&mut self, id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM similar_due WHERE title_id = $1").bind(id.to_string()).execute(&mut *self.tx).await?;
        Ok(())
    }

    pub async fn put_similar(&mut self, id: &str, others: &[String]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM similar_title WHERE title_id = $1")
            .bind(id.to_string())
            .execute(&mut *self.tx)
            .await?;
        if others.is_empty() {
            return Ok(());
        }
        let mut query = Sql::new("INSERT INTO similar_title (title_id, position, other_id) VALUES ");
        query.rows((0i64..).zip(others), |row, (position, other)| {
            row.bind(id.to_string()).bind(position).bind(other.clone());
        });
        query.build()?.execute(&mut *self.tx).await?;
        Ok(())
    }
}
