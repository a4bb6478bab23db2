//! Titles: one at a time, and what of them is derived for lists, people and search.
use super::{Conn, Row as DbRow, Snapshot, Sql, Write};
use crate::catalog::model::{Credit, PersonInput, Shown, State, Title, TitleInput, TitleKind, slug};
use crate::error::StoreError;
use jiff::Timestamp;
use kv_schemas::viewer::{Dimensions, Region};
use sqlx::Row;
use std::collections::BTreeMap;

/// Titles of one statement, when a person's name changes in all of them.
const RENAMED_AT_ONCE: usize = 200;

/// Who looks, and when: what decides which titles are seen.
#[derive(Clone, Copy, Debug)]
pub struct Eye {
    pub region: Region,
    /// Years.
    pub maturity: i64,
    pub now_ms: i64,
}

impl Eye {
    pub fn of(viewer: &Dimensions, now_ms: i64) -> Self {
        Self { region: viewer.region, maturity: i64::from(viewer.maturity.years()), now_ms }
    }
}

/// What a write of a title made besides.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Slugs of genres that did not exist.
    pub genres: Vec<String>,
    /// Ids of people who did not.
    pub people: Vec<String>,
}

pub(super) fn stored<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|e| StoreError::Stored(e.to_string()))
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Stored(e.to_string()))
}

fn moment(row: &DbRow, column: &str) -> Result<Option<Timestamp>, StoreError> {
    let ms: Option<i64> = row.try_get(column)?;
    ms.map(|ms| Timestamp::from_millisecond(ms).map_err(|e| StoreError::Stored(e.to_string()))).transpose()
}

pub(super) fn list_of<T: serde::de::DeserializeOwned>(row: &DbRow, column: &str) -> Result<T, StoreError> {
    stored(&row.try_get::<String, _>(column)?)
}

/// What [`title_of`] reads. Columns are named in every statement: PostgreSQL refuses a prepared `SELECT *` from the moment on at
/// which a newer release adds a column.
macro_rules! title_columns {
    () => {
        "title.id, title.version, title.kind, title.name, title.sort_name, title.translations, title.year,
         title.release_date, title.synopsis, title.maturity, title.runtime_min, title.rating, title.votes,
         title.distributor, title.genres, title.people, title.images, title.state, title.publish_at_ms,
         title.available_from_ms, title.available_until_ms, title.regions, title.gone_ms, title.created_ms,
         title.updated_ms, title.deleted_ms"
    };
}

/// A statement about the rows of `title` alone.
macro_rules! select_titles {
    ($which:literal) => {
        concat!("SELECT ", title_columns!(), " FROM title WHERE ", $which)
    };
}

/// A row of `title`, all but where it is seen.
fn title_of(row: &DbRow) -> Result<Title, StoreError> {
    let mut input = TitleInput {
        kind: TitleKind::named(&row.try_get::<String, _>("kind")?).unwrap_or_default(),
        name: row.try_get("name")?,
        sort_name: row.try_get("sort_name")?,
        translations: list_of(row, "translations")?,
        year: row.try_get("year")?,
        release_date: row.try_get("release_date")?,
        synopsis: row.try_get("synopsis")?,
        maturity: row.try_get("maturity")?,
        runtime_min: row.try_get("runtime_min")?,
        rating: row.try_get("rating")?,
        votes: row.try_get("votes")?,
        distributor: row.try_get("distributor")?,
        genres: list_of(row, "genres")?,
        people: list_of(row, "people")?,
        images: list_of(row, "images")?,
        state: State::named(&row.try_get::<String, _>("state")?).unwrap_or(State::Draft),
        publish_at: moment(row, "publish_at_ms")?,
        available_from: moment(row, "available_from_ms")?,
        available_until: moment(row, "available_until_ms")?,
        regions: list_of(row, "regions")?,
    };
    // Rows of the first release have no ids.
    for credit in input.people.iter_mut().filter(|credit| credit.id.is_empty()) {
        credit.id = slug(&credit.name);
    }
    let shown = Shown::everywhere(row.try_get::<i64, _>("gone_ms")? > 0);
    Ok(Title {
        id: row.try_get("id")?,
        version: row.try_get("version")?,
        input,
        visible: shown.anywhere(),
        shown,
        created_at_ms: row.try_get("created_ms")?,
        updated_at_ms: row.try_get("updated_ms")?,
        deleted_at_ms: row.try_get("deleted_ms")?,
    })
}

/// With the regions it has windows of its own for.
async fn whole(conn: &mut Conn, row: &DbRow) -> Result<Title, StoreError> {
    let mut title = title_of(row)?;
    if !title.input.regions.is_empty() {
        let rows = sqlx::query("SELECT region, gone_ms FROM title_window WHERE title_id = $1")
            .bind(&title.id)
            .fetch_all(&mut *conn)
            .await?;
        for row in rows {
            let region = row.try_get::<String, _>(0)?.parse().map_err(|_| StoreError::Stored("region".into()))?;
            title.shown.regions.insert(region, row.try_get::<i64, _>(1)? > 0);
        }
        title.visible = title.shown.anywhere();
    }
    Ok(title)
}

/// Deleted ones too.
async fn find(conn: &mut Conn, id: &str) -> Result<Option<Title>, StoreError> {
    let row = sqlx::query(select_titles!("id = $1")).bind(id).fetch_optional(&mut *conn).await?;
    match row {
        Some(row) => Ok(Some(whole(conn, &row).await?)),
        None => Ok(None),
    }
}

impl Snapshot {
    /// Deleted ones too.
    pub async fn title(&mut self, id: &str) -> Result<Option<Title>, StoreError> {
        find(&mut self.tx, id).await
    }

    /// A title this viewer sees, and until when. One whose time has passed is not seen even before the schedule has noted
    /// it.
    pub async fn visible_title(&mut self, id: &str, eye: Eye) -> Result<Option<(Title, i64)>, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            title_columns!(),
            ", COALESCE(own.gone_ms, title.gone_ms) AS until_ms FROM title
              LEFT JOIN title_window own ON own.title_id = title.id AND own.region = $2
              WHERE title.id = $1 AND title.age <= $3 AND COALESCE(own.gone_ms, title.gone_ms) > $4",
        ))
        .bind(id)
        .bind(eye.region.as_str().to_string())
        .bind(eye.maturity)
        .bind(eye.now_ms)
        .fetch_optional(&mut *self.tx)
        .await?;
        row.map(|row| Ok((title_of(&row)?, row.try_get("until_ms")?))).transpose()
    }

    /// The next moment at which the schedule shows or hides a title or a rail.
    pub async fn next_change_ms(&mut self, now_ms: i64) -> Result<Option<i64>, StoreError> {
        let row = sqlx::query("SELECT min(next_change_ms) FROM title WHERE next_change_ms > $1")
            .bind(now_ms)
            .fetch_one(&mut *self.tx)
            .await?;
        let rail = sqlx::query("SELECT min(next_change_ms) FROM rail WHERE next_change_ms > $1")
            .bind(now_ms)
            .fetch_one(&mut *self.tx)
            .await?;
        let moments: [Option<i64>; 2] = [row.try_get(0)?, rail.try_get(0)?];
        Ok(moments.into_iter().flatten().min())
    }

    /// Whether the time of some title or rail has come.
    pub async fn is_change_due(&mut self, now_ms: i64) -> Result<bool, StoreError> {
        let title = sqlx::query("SELECT 1 FROM title WHERE next_change_ms <= $1 LIMIT 1")
            .bind(now_ms)
            .fetch_optional(&mut *self.tx)
            .await?;
        let rail = sqlx::query("SELECT 1 FROM rail WHERE next_change_ms <= $1 LIMIT 1")
            .bind(now_ms)
            .fetch_optional(&mut *self.tx)
            .await?;
        Ok(title.is_some() || rail.is_some())
    }

    /// All titles by id, drafts included; deleted ones, or all others.
    pub async fn all_titles(&mut self, after: &str, limit: u32, deleted: bool) -> Result<Vec<Title>, StoreError> {
        let statement = if deleted {
            select_titles!("id > $1 AND deleted_ms IS NOT NULL ORDER BY id LIMIT $2")
        } else {
            select_titles!("id > $1 AND deleted_ms IS NULL ORDER BY id LIMIT $2")
        };
        let rows = sqlx::query(statement).bind(after).bind(i64::from(limit)).fetch_all(&mut *self.tx).await?;
        let mut titles = Vec::with_capacity(rows.len());
        for row in rows {
            titles.push(whole(&mut self.tx, &row).await?);
        }
        Ok(titles)
    }
}

impl Write {
    /// Deleted ones too.
    pub async fn title(&mut self, id: &str) -> Result<Option<Title>, StoreError> {
        find(&mut self.tx, id).await
    }

    /// Writes a title whole, and what is derived of it: the lists it stands in, its credits, the text it is found by.
    /// The names of its people become what their own records say.
    pub async fn put_title(&mut self, title: &mut Title, now_ms: i64) -> Result<Made, StoreError> {
        let mut made = Made::default();
        let names = self.person_names(title.input.people.iter().map(|credit| credit.id.as_str()).collect()).await?;
        for credit in &mut title.input.people {
            if let Some(name) = names.get(&credit.id) {
                credit.name.clone_from(name);
            } else if made.people.contains(&credit.id) {
                credit.name = self.person_name(&credit.id).await?.unwrap_or_default();
            } else {
                let person = PersonInput { name: credit.name.clone(), ..PersonInput::default() };
                self.insert_person(&credit.id, &person, now_ms).await?;
                // One that was deleted comes back with the name it had.
                credit.name = self.person_name(&credit.id).await?.unwrap_or_default();
                made.people.push(credit.id.clone());
            }
        }
        self.mark_similar(title).await?;
        self.put_row(title, now_ms).await?;
        self.put_windows(title).await?;
        self.put_credits(title).await?;
        let there = self.genres_there(title.input.genres.iter().map(|name| slug(name)).collect()).await?;
        for name in &title.input.genres {
            if !there.contains(&slug(name)) && self.insert_genre(&slug(name), name, now_ms).await? {
                made.genres.push(slug(name));
            }
        }
        self.put_listings(title).await?;
        self.put_text(title).await?;
        Ok(made)
    }

    async fn put_row(&mut self, title: &Title, now_ms: i64) -> Result<(), StoreError> {
        let input = &title.input;
        let next_change_ms = input.next_change_ms(now_ms).filter(|_| title.deleted_at_ms.is_none());
        let query = sqlx::query(
            "INSERT INTO title (id, version, kind, name, sort_name, translations, year, release_date, synopsis, maturity,
                age, runtime_min, rating, votes, distributor, genres, people, images, state, publish_at_ms,
                available_from_ms, available_until_ms, regions, gone_ms, next_change_ms, created_ms, updated_ms,
                deleted_ms)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
                $22, $23, $24, $25, $26, $27, $28)
              ON CONFLICT (id) DO UPDATE SET version = excluded.version, kind = excluded.kind, name = excluded.name,
                sort_name = excluded.sort_name, translations = excluded.translations, year = excluded.year,
                release_date = excluded.release_date, synopsis = excluded.synopsis, maturity = excluded.maturity,
                age = excluded.age, runtime_min = excluded.runtime_min, rating = excluded.rating,
                votes = excluded.votes, distributor = excluded.distributor, genres = excluded.genres,
                people = excluded.people, images = excluded.images, state = excluded.state,
                publish_at_ms = excluded.publish_at_ms, available_from_ms = excluded.available_from_ms,
                available_until_ms = excluded.available_until_ms, regions = excluded.regions,
                gone_ms = excluded.gone_ms, next_change_ms = excluded.next_change_ms,
                updated_ms = excluded.updated_ms, deleted_ms = excluded.deleted_ms",
        )
        .bind(&title.id)
        .bind(title.version)
        .bind(input.kind.as_str())
        .bind(&input.name)
        .bind(&input.sort_name)
        .bind(json(&input.translations)?)
        .bind(input.year)
        .bind(&input.release_date)
        .bind(&input.synopsis)
        .bind(&input.maturity)
        .bind(i64::from(input.age().years()))
        .bind(input.runtime_min);
        // sqlx 0.9's Any sends a null double as a null float and the other way round, and PostgreSQL keeps to the type a
        // statement was first sent with.
        let query = match input.rating {
            Some(rating) => query.bind(rating),
            None => query.bind(None::<f32>),
        };
        query
            .bind(input.votes)
            .bind(&input.distributor)
            .bind(json(&input.genres)?)
            .bind(json(&input.people)?)
            .bind(json(&input.images)?)
            .bind(input.state.as_str())
            .bind(input.publish_at.map(Timestamp::as_millisecond))
            .bind(input.available_from.map(Timestamp::as_millisecond))
            .bind(input.available_until.map(Timestamp::as_millisecond))
            .bind(json(&input.regions)?)
            .bind(input.gone_ms(&title.shown).0)
            .bind(next_change_ms)
            .bind(title.created_at_ms)
            .bind(title.updated_at_ms)
            .bind(title.deleted_at_ms)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// As [`Self::put_credits`]: a title may have one for each country.
    async fn put_windows(&mut self, title: &Title) -> Result<(), StoreError> {
        let rows = sqlx::query("SELECT region, gone_ms FROM title_window WHERE title_id = $1")
            .bind(&title.id)
            .fetch_all(&mut *self.tx)
            .await?;
        let window = |row: &DbRow| Ok((row.try_get(0)?, row.try_get(1)?));
        let there: BTreeMap<String, i64> = rows.iter().map(window).collect::<Result<_, StoreError>>()?;
        let wanted: BTreeMap<String, i64> =
            title.input.gone_ms(&title.shown).1.into_iter().map(|(region, ms)| (region.as_str().into(), ms)).collect();
        if there == wanted {
            return Ok(());
        }
        sqlx::query("DELETE FROM title_window WHERE title_id = $1").bind(&title.id).execute(&mut *self.tx).await?;
        if wanted.is_empty() {
            return Ok(());
        }
        let mut query = Sql::new("INSERT INTO title_window (title_id, region, gone_ms) VALUES ");
        query.rows(wanted, |row, (region, gone_ms)| _ = row.bind(title.id.clone()).bind(region).bind(gone_ms));
        query.build()?.persistent(false).execute(&mut *self.tx).await?;
        Ok(())
    }

    /// Most edits leave these alone, and what is written again costs as much as what is new.
    async fn put_credits(&mut self, title: &Title) -> Result<(), StoreError> {
        let rows = sqlx::query("SELECT person_id, role, character FROM credit WHERE title_id = $1 ORDER BY position")
            .bind(&title.id)
            .fetch_all(&mut *self.tx)
            .await?;
        let credit = |row: &DbRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        let there: Vec<(String, String, Option<String>)> =
            rows.iter().map(credit).collect::<Result<_, StoreError>>()?;
        let is_same = |((id, role, character), credit): (&(String, String, Option<String>), &Credit)| {
            (id, role, character) == (&credit.id, &credit.role, &credit.character)
        };
        let wanted = &title.input.people;
        if there.len() == wanted.len() && there.iter().zip(wanted).all(is_same) {
            return Ok(());
        }
        if !there.is_empty() {
            sqlx::query("DELETE FROM credit WHERE title_id = $1").bind(&title.id).execute(&mut *self.tx).await?;
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let mut query = Sql::new("INSERT INTO credit (title_id, position, person_id, role, character) VALUES ");
        query.rows((0i64..).zip(wanted), |row, (position, credit)| {
            row.bind(title.id.clone()).bind(position).bind(credit.id.clone()).bind(credit.role.clone());
            row.bind(credit.character.clone());
        });
        query.build()?.execute(&mut *self.tx).await?;
        Ok(())
    }

    /// Titles whose time to appear or to go has come, at most so many.
    pub async fn due_titles(&mut self, now_ms: i64, limit: u32) -> Result<Vec<Title>, StoreError> {
        let rows = sqlx::query(select_titles!("next_change_ms <= $1 ORDER BY next_change_ms LIMIT $2"))
            .bind(now_ms)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.tx)
            .await?;
        let mut titles = Vec::with_capacity(rows.len());
        for row in rows {
            titles.push(whole(&mut self.tx, &row).await?);
        }
        Ok(titles)
    }

    /// Writes a person's name as it is now into the titles this person takes part in; into drafts and deleted ones too.
    pub async fn rename_in_titles(&mut self, person_id: &str, name: &str) -> Result<(), StoreError> {
        let rows = sqlx::query("SELECT DISTINCT title_id FROM credit WHERE person_id = $1")
            .bind(person_id)
            .fetch_all(&mut *self.tx)
            .await?;
        let ids = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
        for ids in ids.chunks(RENAMED_AT_ONCE) {
            let mut query = Sql::new(select_titles!("id IN ("));
            query.bind_all(ids.iter().cloned()).push(")");
            let rows = query.build()?.persistent(false).fetch_all(&mut *self.tx).await?;
            let mut titles = rows.iter().map(title_of).collect::<Result<Vec<_>, _>>()?;
            for credit in titles.iter_mut().flat_map(|title| &mut title.input.people) {
                if credit.id == person_id {
                    credit.name = name.to_string();
                }
            }
            let mut query = Sql::new("WITH renamed (id, people) AS (VALUES ");
            query.try_rows(&titles, |row, title| {
                row.bind(title.id.clone()).bind(json(&title.input.people)?);
                Ok::<(), StoreError>(())
            })?;
            query.push(") UPDATE title SET people = renamed.people FROM renamed WHERE title.id = renamed.id");
            query.build()?.persistent(false).execute(&mut *self.tx).await?;
            self.reword(&titles).await?;
        }
        Ok(())
    }
}
