//! Titles and the lists they stand in.
use super::tx::Timed;
use super::{Row as DbRow, Snapshot, Write};
use crate::catalog::model::{Title, TitleInput, slug};
use crate::error::StoreError;
use jiff::Timestamp;
use sqlx::Row;

/// A part of a list: where it begins (exclusive) and how long it may be.
pub struct Page<'a> {
    /// Slug of a genre; empty for the whole catalogue.
    pub list: &'a str,
    pub after: Option<(&'a str, &'a str)>,
    pub limit: u32,
}

fn stored<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|e| StoreError::Stored(e.to_string()))
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Stored(e.to_string()))
}

fn moment(row: &DbRow, column: &str) -> Result<Option<Timestamp>, StoreError> {
    let ms: Option<i64> = row.try_get(column)?;
    ms.map(|ms| Timestamp::from_millisecond(ms).map_err(|e| StoreError::Stored(e.to_string()))).transpose()
}

pub(super) fn title_of(row: &DbRow) -> Result<Title, StoreError> {
    let genres: String = row.try_get("genres")?;
    let people: String = row.try_get("people")?;
    let input = TitleInput {
        name: row.try_get("name")?,
        sort_name: row.try_get("sort_name")?,
        year: row.try_get("year")?,
        release_date: row.try_get("release_date")?,
        synopsis: row.try_get("synopsis")?,
        maturity: row.try_get("maturity")?,
        runtime_min: row.try_get("runtime_min")?,
        rating: row.try_get("rating")?,
        votes: row.try_get("votes")?,
        distributor: row.try_get("distributor")?,
        genres: stored(&genres)?,
        people: stored(&people)?,
        published: row.try_get::<i64, _>("published")? != 0,
        available_from: moment(row, "available_from_ms")?,
        available_until: moment(row, "available_until_ms")?,
    };
    Ok(Title {
        id: row.try_get("id")?,
        version: row.try_get("version")?,
        input,
        visible: row.try_get::<i64, _>("visible")? != 0,
        created_at_ms: row.try_get("created_ms")?,
        updated_at_ms: row.try_get("updated_ms")?,
    })
}

async fn find(tx: &mut Timed, id: &str) -> Result<Option<Title>, StoreError> {
    let row = sqlx::query("SELECT * FROM title WHERE id = $1").bind(id).fetch_optional(tx).await?;
    row.as_ref().map(title_of).transpose()
}

impl Snapshot {
    pub async fn title(&mut self, id: &str) -> Result<Option<Title>, StoreError> {
        find(&mut self.tx, id).await
    }

    /// A title that viewers see. One whose time has passed is not seen even before the schedule has noted it.
    pub async fn visible_title(&mut self, id: &str, now_ms: i64) -> Result<Option<Title>, StoreError> {
        let title = self.title(id).await?;
        Ok(title.filter(|title| title.visible && title.input.visible_at(now_ms)))
    }

    /// The next moment at which the schedule shows or hides a title.
    pub async fn next_change_ms(&mut self, now_ms: i64) -> Result<Option<i64>, StoreError> {
        let row = sqlx::query("SELECT min(next_change_ms) FROM title WHERE next_change_ms > $1")
            .bind(now_ms)
            .fetch_one(&mut *self.tx)
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Whether the time of some title has come.
    pub async fn is_title_due(&mut self, now_ms: i64) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM title WHERE next_change_ms <= $1 LIMIT 1")
            .bind(now_ms)
            .fetch_optional(&mut *self.tx)
            .await?;
        Ok(row.is_some())
    }

    /// Visible titles of a list, in order.
    pub async fn list(&mut self, page: Page<'_>, now_ms: i64) -> Result<Vec<Title>, StoreError> {
        let (sort_name, id) = page.after.unwrap_or(("", ""));
        let rows = sqlx::query(
            "SELECT title.* FROM listing JOIN title ON title.id = listing.title_id
              WHERE list = $1 AND (listing.sort_name, listing.title_id) > ($2, $3)
                AND (title.available_until_ms IS NULL OR title.available_until_ms > $5)
              ORDER BY listing.sort_name, listing.title_id LIMIT $4",
        )
        .bind(page.list)
        .bind(sort_name)
        .bind(id)
        .bind(i64::from(page.limit))
        .bind(now_ms)
        .fetch_all(&mut *self.tx)
        .await?;
        rows.iter().map(title_of).collect()
    }

    /// All titles by id, drafts included.
    pub async fn all_titles(&mut self, after: &str, limit: u32) -> Result<Vec<Title>, StoreError> {
        let rows = sqlx::query("SELECT * FROM title WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(title_of).collect()
    }

    /// Genres that have visible titles: slug, name, how many.
    pub async fn genres(&mut self) -> Result<Vec<(String, String, i64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT genre.slug, genre.name, count(*) FROM genre JOIN listing ON listing.list = genre.slug
              GROUP BY genre.slug, genre.name ORDER BY genre.slug",
        )
        .fetch_all(&mut *self.tx)
        .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
    }

    pub async fn has_genre(&mut self, slug: &str) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM genre WHERE slug = $1").bind(slug).fetch_optional(&mut *self.tx).await?;
        Ok(row.is_some())
    }
}

impl Write {
    pub async fn title(&mut self, id: &str) -> Result<Option<Title>, StoreError> {
        find(&mut self.tx, id).await
    }

    /// Writes a title whole, and the lists it stands in.
    pub async fn put_title(&mut self, title: &Title, now_ms: i64) -> Result<(), StoreError> {
        let input = &title.input;
        sqlx::query(
            "INSERT INTO title (id, version, name, sort_name, year, release_date, synopsis, maturity, runtime_min,
                rating, votes, distributor, genres, people, published, created_ms, updated_ms, available_from_ms,
                available_until_ms, visible, next_change_ms)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
              ON CONFLICT (id) DO UPDATE SET version = excluded.version, name = excluded.name,
                sort_name = excluded.sort_name, year = excluded.year, release_date = excluded.release_date,
                synopsis = excluded.synopsis, maturity = excluded.maturity, runtime_min = excluded.runtime_min,
                rating = excluded.rating, votes = excluded.votes, distributor = excluded.distributor,
                genres = excluded.genres, people = excluded.people, published = excluded.published,
                updated_ms = excluded.updated_ms, available_from_ms = excluded.available_from_ms,
                available_until_ms = excluded.available_until_ms, visible = excluded.visible,
                next_change_ms = excluded.next_change_ms",
        )
        .bind(&title.id)
        .bind(title.version)
        .bind(&input.name)
        .bind(&input.sort_name)
        .bind(input.year)
        .bind(&input.release_date)
        .bind(&input.synopsis)
        .bind(&input.maturity)
        .bind(input.runtime_min)
        .bind(input.rating)
        .bind(input.votes)
        .bind(&input.distributor)
        .bind(json(&input.genres)?)
        .bind(json(&input.people)?)
        .bind(i64::from(input.published))
        .bind(title.created_at_ms)
        .bind(title.updated_at_ms)
        .bind(input.available_from.map(Timestamp::as_millisecond))
        .bind(input.available_until.map(Timestamp::as_millisecond))
        .bind(i64::from(title.visible))
        .bind(input.next_change_ms(now_ms))
        .execute(&mut *self.tx)
        .await?;
        sqlx::query("DELETE FROM listing WHERE title_id = $1").bind(&title.id).execute(&mut *self.tx).await?;
        for name in &input.genres {
            sqlx::query("INSERT INTO genre (slug, name) VALUES ($1, $2) ON CONFLICT (slug) DO NOTHING")
                .bind(slug(name))
                .bind(name)
                .execute(&mut *self.tx)
                .await?;
        }
        if !title.visible {
            return Ok(());
        }
        let mut lists: Vec<String> = input.genres.iter().map(|name| slug(name)).collect();
        lists.push(String::new());
        lists.sort();
        lists.dedup();
        for list in lists {
            sqlx::query("INSERT INTO listing (list, sort_name, title_id) VALUES ($1, $2, $3)")
                .bind(list)
                .bind(&input.sort_name)
                .bind(&title.id)
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(())
    }

    /// Titles whose time to appear or to go has come, at most so many.
    pub async fn due_titles(&mut self, now_ms: i64, limit: u32) -> Result<Vec<Title>, StoreError> {
        let rows = sqlx::query("SELECT * FROM title WHERE next_change_ms <= $1 ORDER BY next_change_ms LIMIT $2")
            .bind(now_ms)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(title_of).collect()
    }

    pub async fn delete_title(&mut self, id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM title WHERE id = $1").bind(id).execute(&mut *self.tx).await?;
        Ok(())
    }
}
