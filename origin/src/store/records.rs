//! What an editor keeps besides titles. All have one shape: a row with the record as JSON, and beside it what is looked
//! for in other ways.
use super::titles::{json, stored};
use super::{Conn, Row as DbRow, Snapshot, Sql, Write};
use crate::catalog::model::{
    CollectionInput, GenreInput, PersonInput, Rail, RailInput, Record, SeasonInput, Shown, State,
};
use crate::error::StoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The statements of one table.
pub struct Table {
    pub find: &'static str,
    pub page: &'static str,
    pub page_deleted: &'static str,
    pub put: &'static str,
}

/// A statement about rows of one table, with what [`record_of`] reads of each, and more if that is named.
macro_rules! select {
    ($name:literal $(, $more:literal)*; $rest:literal) => {
        concat!(
            "SELECT ", $name, ".id, ", $name, ".version, ", $name, ".body, ", $name, ".created_ms, ",
            $name, ".updated_ms, ", $name, ".deleted_ms", $(", ", $name, ".", $more,)* " FROM ", $name, " ", $rest
        )
    };
}
pub(super) use select;

macro_rules! table {
    ($name:literal $(, $more:literal)*) => {
        Table {
            find: select!($name $(, $more)*; "WHERE id = $1"),
            page: select!($name $(, $more)*; "WHERE id > $1 AND deleted_ms IS NULL ORDER BY id LIMIT $2"),
            page_deleted: select!($name $(, $more)*; "WHERE id > $1 AND deleted_ms IS NOT NULL ORDER BY id LIMIT $2"),
            put: concat!(
                "UPDATE ",
                $name,
                " SET name = $2, version = $3, body = $4, created_ms = $5, updated_ms = $6, deleted_ms = $7 WHERE id = $1"
            ),
        }
    };
}

/// A kind of record kept as JSON in a table of its own.
pub trait Kept: Serialize + DeserializeOwned + Send + Sync + 'static {
    const TABLE: Table;
    fn name(&self) -> &str;
    /// Whether viewers see it, as long as it is not deleted.
    fn is_shown(&self, row: &DbRow) -> Result<bool, StoreError>;
}

impl Kept for PersonInput {
    const TABLE: Table = table!("person");
    fn name(&self) -> &str {
        &self.name
    }
    fn is_shown(&self, _: &DbRow) -> Result<bool, StoreError> {
        Ok(true)
    }
}

impl Kept for GenreInput {
    const TABLE: Table = table!("genre");
    fn name(&self) -> &str {
        &self.name
    }
    fn is_shown(&self, _: &DbRow) -> Result<bool, StoreError> {
        Ok(true)
    }
}

impl Kept for CollectionInput {
    const TABLE: Table = table!("collection");
    fn name(&self) -> &str {
        &self.name
    }
    fn is_shown(&self, _: &DbRow) -> Result<bool, StoreError> {
        Ok(self.state == State::Published)
    }
}

impl Kept for SeasonInput {
    const TABLE: Table = table!("season");
    fn name(&self) -> &str {
        &self.name
    }
    fn is_shown(&self, _: &DbRow) -> Result<bool, StoreError> {
        Ok(true)
    }
}

impl Kept for RailInput {
    const TABLE: Table = table!("rail", "gone_ms");
    fn name(&self) -> &str {
        &self.title
    }
    fn is_shown(&self, row: &DbRow) -> Result<bool, StoreError> {
        Ok(row.try_get::<i64, _>("gone_ms")? > 0)
    }
}

pub(super) fn record_of<I: Kept>(row: &DbRow) -> Result<Record<I>, StoreError> {
    let input: I = stored(&row.try_get::<String, _>("body")?)?;
    let deleted_at_ms: Option<i64> = row.try_get("deleted_ms")?;
    let visible = deleted_at_ms.is_none() && input.is_shown(row)?;
    Ok(Record {
        id: row.try_get("id")?,
        version: row.try_get("version")?,
        input,
        visible,
        shown: Shown::everywhere(visible),
        created_at_ms: row.try_get("created_ms")?,
        updated_at_ms: row.try_get("updated_ms")?,
        deleted_at_ms,
    })
}

async fn find<I: Kept>(conn: &mut Conn, id: &str) -> Result<Option<Record<I>>, StoreError> {
    let row = sqlx::query(I::TABLE.find).bind(id.to_string()).fetch_optional(&mut *conn).await?;
    row.as_ref().map(record_of).transpose()
}

impl Snapshot {
    /// Deleted ones too.
    pub async fn record<I: Kept>(&mut self, id: &str) -> Result<Option<Record<I>>, StoreError> {
        find(&mut self.tx, id).await
    }

    pub async fn records<I: Kept>(
        &mut self,
        after: &str,
        limit: u32,
        deleted: bool,
    ) -> Result<Vec<Record<I>>, StoreError> {
        let statement = if deleted { I::TABLE.page_deleted } else { I::TABLE.page };
        let query = sqlx::query(statement).bind(after.to_string()).bind(i64::from(limit));
        query.fetch_all(&mut *self.tx).await?.iter().map(record_of).collect()
    }

    /// The seasons of a series by number, but for deleted ones.
    pub async fn seasons(&mut self, series_id: &str) -> Result<Vec<(i64, Record<SeasonInput>)>, StoreError> {
        let of_series = select!("season", "number"; "WHERE series_id = $1 AND deleted_ms IS NULL ORDER BY number");
        let rows = sqlx::query(of_series).bind(series_id.to_string()).fetch_all(&mut *self.tx).await?;
        rows.iter().map(|row| Ok((row.try_get("number")?, record_of(row)?))).collect()
    }
}

impl Write {
    pub async fn record<I: Kept>(&mut self, id: &str) -> Result<Option<Record<I>>, StoreError> {
        find(&mut self.tx, id).await
    }

    /// Writes over a row that is there.
    async fn put_record<I: Kept>(&mut self, record: &Record<I>) -> Result<(), StoreError> {
        sqlx::query(I::TABLE.put)
            .bind(record.id.clone())
            .bind(record.input.name().to_string())
            .bind(record.version)
            .bind(json(&record.input)?)
            .bind(record.created_at_ms)
            .bind(record.updated_at_ms)
            .bind(record.deleted_at_ms)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    pub(super) async fn person_name(&mut self, id: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT name FROM person WHERE id = $1 AND deleted_ms IS NULL")
            .bind(id.to_string())
            .fetch_optional(&mut *self.tx)
            .await?;
        row.map(|row| Ok(row.try_get(0)?)).transpose()
    }

    /// Of those of these people who are there.
    pub(super) async fn person_names(&mut self, ids: BTreeSet<&str>) -> Result<HashMap<String, String>, StoreError> {
        let mut names = HashMap::with_capacity(ids.len());
        if ids.is_empty() {
            return Ok(names);
        }
        let mut query = Sql::new("SELECT id, name FROM person WHERE deleted_ms IS NULL AND id IN (");
        query.bind_all(ids.iter().map(|id| id.to_string())).push(")");
        for row in query.build()?.fetch_all(&mut *self.tx).await? {
            names.insert(row.try_get(0)?, row.try_get(1)?);
        }
        Ok(names)
    }

    /// Those of these genres, by slug, that are there.
    pub(super) async fn genres_there(&mut self, slugs: BTreeSet<String>) -> Result<BTreeSet<String>, StoreError> {
        if slugs.is_empty() {
            return Ok(slugs);
        }
        let mut query = Sql::new("SELECT id FROM genre WHERE deleted_ms IS NULL AND id IN (");
        query.bind_all(slugs).push(")");
        query.build()?.fetch_all(&mut *self.tx).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// One that was deleted comes back with what uses it.
    pub(super) async fn insert_person(
        &mut self,
        id: &str,
        person: &PersonInput,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO person (id, name, version, body, created_ms, updated_ms) VALUES ($1, $2, 1, $3, $4, $4)
              ON CONFLICT (id) DO UPDATE SET deleted_ms = NULL, version = person.version + 1, updated_ms = $4",
        )
        .bind(id)
        .bind(&person.name)
        .bind(json(person)?)
        .bind(now_ms)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Whether it did not exist. One that was deleted comes back with what uses it.
    pub(super) async fn insert_genre(&mut self, slug: &str, name: &str, now_ms: i64) -> Result<bool, StoreError> {
        let body = json(&GenreInput { name: name.to_string(), ..GenreInput::default() })?;
        let done = sqlx::query(
            "INSERT INTO genre (id, name, version, body, created_ms, updated_ms) VALUES ($1, $2, 1, $3, $4, $4)
              ON CONFLICT (id) DO UPDATE SET deleted_ms = NULL, version = genre.version + 1, updated_ms = $4
                WHERE genre.deleted_ms IS NOT NULL",
        )
        .bind(slug)
        .bind(name)
        .bind(body)
        .bind(now_ms)
        .execute(&mut *self.tx)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    pub async fn put_person(&mut self, person: &Record<PersonInput>) -> Result<(), StoreError> {
        let before = self.person_name(&person.id).await?;
        self.insert_person(&person.id, &person.input, person.created_at_ms).await?;
        self.put_record(person).await?;
        if before.is_none_or(|name| name != person.input.name) {
            self.rename_in_titles(&person.id, &person.input.name).await?;
        }
        Ok(())
    }

    pub async fn put_genre(&mut self, genre: &Record<GenreInput>) -> Result<(), StoreError> {
        self.insert_genre(&genre.id, &genre.input.name, genre.created_at_ms).await?;
        self.put_record(genre).await
    }

    pub async fn put_collection(&mut self, collection: &Record<CollectionInput>) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO collection (id, name, version, body, created_ms, updated_ms) VALUES ($1, '', 0, '', 0, 0)
              ON CONFLICT (id) DO NOTHING",
        )
        .bind(&collection.id)
        .execute(&mut *self.tx)
        .await?;
        self.put_record(collection).await
    }

    pub async fn put_season(&mut self, season: &Record<SeasonInput>) -> Result<(), StoreError> {
        let (series_id, number) = season.id.split_once('/').unwrap_or_default();
        sqlx::query(
            "INSERT INTO season (id, name, series_id, number, version, body, created_ms, updated_ms)
              VALUES ($1, '', $2, $3, 0, '', 0, 0) ON CONFLICT (id) DO NOTHING",
        )
        .bind(&season.id)
        .bind(series_id)
        .bind(number.parse::<i64>().unwrap_or_default())
        .execute(&mut *self.tx)
        .await?;
        self.put_record(season).await?;
        sqlx::query("DELETE FROM episode WHERE season_id = $1").bind(&season.id).execute(&mut *self.tx).await?;
        if season.deleted_at_ms.is_some() {
            return Ok(());
        }
        if season.input.episodes.is_empty() {
            return Ok(());
        }
        let mut query = Sql::new("INSERT INTO episode (id, season_id, series_id) VALUES ");
        query.rows(&season.input.episodes, |row, episode| {
            row.bind(episode.id.clone()).bind(season.id.clone()).bind(series_id.to_string());
        });
        query.build()?.persistent(false).execute(&mut *self.tx).await?;
        Ok(())
    }

    /// Which of these episodes belong to another season.
    pub async fn foreign_episodes(&mut self, season_id: &str, ids: &[&str]) -> Result<Vec<String>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut query = Sql::new("SELECT id FROM episode WHERE season_id <> ");
        query.bind(season_id.to_string()).push(" AND id IN (").bind_all(ids.iter().map(|id| id.to_string())).push(")");
        let rows = query.build()?.persistent(false).fetch_all(&mut *self.tx).await?;
        let taken = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<HashSet<String>, StoreError>>()?;
        Ok(ids.iter().filter(|id| taken.contains(**id)).map(|id| id.to_string()).collect())
    }

    pub async fn put_rail(&mut self, rail: &Rail, now_ms: i64) -> Result<(), StoreError> {
        let input = &rail.input;
        let next_change_ms = input.next_change_ms(now_ms).filter(|_| rail.deleted_at_ms.is_none());
        sqlx::query(
            "INSERT INTO rail (id, name, position, gone_ms, next_change_ms) VALUES ($1, '', $2, $3, $4)
              ON CONFLICT (id) DO UPDATE SET position = excluded.position, gone_ms = excluded.gone_ms,
                next_change_ms = excluded.next_change_ms",
        )
        .bind(&rail.id)
        .bind(input.position)
        .bind(input.gone_ms(rail.visible))
        .bind(next_change_ms)
        .execute(&mut *self.tx)
        .await?;
        self.put_record(rail).await?;
        sqlx::query("DELETE FROM rail_item WHERE rail_id = $1").bind(&rail.id).execute(&mut *self.tx).await?;
        if !input.items.is_empty() {
            let mut query = Sql::new("INSERT INTO rail_item (rail_id, position, title_id) VALUES ");
            query.rows((0i64..).zip(&input.items), |row, (position, item)| {
                row.bind(rail.id.clone()).bind(position).bind(item.clone());
            });
            query.build()?.persistent(false).execute(&mut *self.tx).await?;
        }
        self.place_rail(rail).await
    }

    async fn place_rail(&mut self, rail: &Rail) -> Result<(), StoreError> {
        let input = &rail.input;
        sqlx::query("DELETE FROM rail_place WHERE rail_id = $1").bind(&rail.id).execute(&mut *self.tx).await?;
        if !rail.visible {
            return Ok(());
        }
        let regions: Vec<String> = match input.regions.as_slice() {
            [] => vec!["*".into()],
            some => some.iter().map(|region| region.as_str().to_string()).collect(),
        };
        let plans = if input.plans.is_empty() { i64::MAX } else { input.plans.iter().map(|p| plan_bit(*p)).sum() };
        let mut query = Sql::new(
            "INSERT INTO rail_place (region, position, rail_id, maturity_from, maturity_to, plans, gone_ms) VALUES ",
        );
        query.rows(regions, |row, region| {
            row.bind(region).bind(input.position).bind(rail.id.clone());
            row.bind(i64::from(input.maturity_from.years())).bind(i64::from(input.maturity_to.years()));
            row.bind(plans).bind(input.gone_ms(true));
        });
        query.build()?.persistent(false).execute(&mut *self.tx).await?;
        Ok(())
    }

    /// Rails whose time to appear or to go has come.
    pub async fn due_rails(&mut self, now_ms: i64, limit: u32) -> Result<Vec<Rail>, StoreError> {
        let due = select!("rail", "gone_ms"; "WHERE next_change_ms <= $1 ORDER BY next_change_ms LIMIT $2");
        let rows = sqlx::query(due).bind(now_ms).bind(i64::from(limit)).fetch_all(&mut *self.tx).await?;
        rows.iter().map(record_of).collect()
    }

    /// Whether this person takes part in a title that is not deleted.
    pub async fn is_person_used(&mut self, id: &str) -> Result<bool, StoreError> {
        let row = sqlx::query(
            "SELECT 1 FROM credit JOIN title ON title.id = credit.title_id
              WHERE credit.person_id = $1 AND title.deleted_ms IS NULL LIMIT 1",
        )
        .bind(id)
        .fetch_optional(&mut *self.tx)
        .await?;
        Ok(row.is_some())
    }
}

pub(super) fn plan_bit(plan: kv_schemas::viewer::Plan) -> i64 {
    use kv_schemas::viewer::Plan;
    match plan {
        Plan::None => 1,
        Plan::Basic => 2,
        Plan::Standard => 4,
        Plan::Premium => 8,
    }
}
