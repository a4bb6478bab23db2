//! What list pages read: cards of titles this viewer sees, in order. Each query walks an index of `listing`, or finds
//! titles by id; whether a title is seen is one condition, the same everywhere: its age class is not above the viewer's,
//! and the moment it goes, in the viewer's region or in all others, is not past.
use super::records::{plan_bit, record_of, select};
use super::titles::{Eye, list_of, stored};
use super::{Conn, Row as DbRow, Snapshot, Sql, Write};
use crate::catalog::documents::{Card, Played};
use crate::catalog::keys::Place;
use crate::catalog::model::{GenreInput, PersonInput, Rail, SortBy, Title, TitleKind, slug};
use crate::error::StoreError;
use kv_schemas::viewer::Plan;
use sqlx::{AssertSqlSafe, Row};
use std::collections::{BTreeSet, HashMap};

/// Rails of one home page.
pub const RAILS_MAX: u32 = 40;
/// Parts shown on a person's page.
const PARTS_MAX: u32 = 200;

/// What [`card_of`] reads.
pub(super) const CARD: &str =
    "title.id, title.kind, title.name, title.translations, title.year, title.maturity, title.rating,
    title.votes, title.genres, title.images, title.sort_name, title.created_ms,
    COALESCE(own.gone_ms, title.gone_ms) AS until_ms";

/// A place in a list: the value it is ordered by there, and the id that settles ties.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct After {
    pub value: serde_json::Value,
    pub id: String,
}

impl After {
    pub fn place(&self, by: SortBy) -> Place<'_> {
        Place::of(by, self.value.as_str().unwrap_or_default(), self.value.as_i64(), self.value.as_f64())
    }
}

/// A part of a list.
#[derive(Clone, Debug, Default)]
pub struct Page<'a> {
    /// Slug of a genre; empty for the whole catalogue.
    pub list: &'a str,
    pub kind: Option<TitleKind>,
    pub year: Option<i64>,
    pub sort: SortBy,
    /// Highest first.
    pub descending: bool,
    /// Where it begins, exclusive.
    pub after: Option<After>,
    pub limit: u32,
}

impl Page<'_> {
    /// Where the page after this card begins.
    pub fn after(&self, card: &Card) -> After {
        let value = match Place::of(self.sort, &card.sort_name, card.year, card.rating) {
            Place::Name(name) => name.into(),
            Place::Year(year) => year.into(),
            Place::Rating(rating) => rating.into(),
            Place::Added => card.added_ms.into(),
        };
        After { value, id: card.id.clone() }
    }

    /// Whether a value can stand in a place of this order.
    pub fn fits(&self, after: &After) -> bool {
        match self.sort {
            SortBy::Name => after.value.is_string(),
            SortBy::Rating => after.value.is_f64() || after.value.is_i64(),
            SortBy::Year | SortBy::Added => after.value.is_i64(),
        }
    }
}

fn column(sort: SortBy) -> &'static str {
    match sort {
        SortBy::Name => "listing.sort_name",
        SortBy::Year => "listing.year",
        SortBy::Rating => "listing.rating",
        SortBy::Added => "listing.added_ms",
    }
}

pub(super) fn card_of(row: &DbRow) -> Result<Card, StoreError> {
    Ok(Card {
        id: row.try_get("id")?,
        kind: TitleKind::named(&row.try_get::<String, _>("kind")?).unwrap_or_default(),
        name: row.try_get("name")?,
        translations: list_of(row, "translations")?,
        year: row.try_get("year")?,
        maturity: row.try_get("maturity")?,
        rating: row.try_get("rating")?,
        votes: row.try_get("votes")?,
        genres: list_of(row, "genres")?,
        images: list_of(row, "images")?,
        sort_name: row.try_get("sort_name")?,
        added_ms: row.try_get("created_ms")?,
        gone_ms: row.try_get("until_ms")?,
    })
}

pub(super) async fn cards_of(conn: &mut Conn, ids: &[&str], eye: Eye) -> Result<HashMap<String, Card>, StoreError> {
    let mut found = HashMap::with_capacity(ids.len());
    // Bounds the number of parameters.
    for ids in ids.chunks(80) {
        let mut query = Sql::new("SELECT ");
        query.push(CARD).push(" FROM title LEFT JOIN title_window own ON own.title_id = title.id AND own.region = ");
        query.bind(eye.region.as_str().to_string()).push(" WHERE title.age <= ").bind(eye.maturity);
        query.push(" AND COALESCE(own.gone_ms, title.gone_ms) > ").bind(eye.now_ms).push(" AND title.id IN (");
        query.bind_all(ids.iter().map(|id| id.to_string())).push(")");
        for row in query.build()?.fetch_all(&mut *conn).await? {
            let card = card_of(&row)?;
            found.insert(card.id.clone(), card);
        }
    }
    Ok(found)
}

impl Snapshot {
    /// A part of the catalogue or of a genre.
    pub async fn list(&mut self, page: &Page<'_>, eye: Eye) -> Result<Vec<Card>, StoreError> {
        let (by, way, beyond) = (column(page.sort), if page.descending { "DESC" } else { "ASC" }, ["> ", "< "]);
        let mut query = Sql::new("SELECT ");
        query.push(CARD).push(
            " FROM listing JOIN title ON title.id = listing.title_id
              LEFT JOIN title_window own ON own.title_id = listing.title_id AND own.region = ",
        );
        query.bind(eye.region.as_str().to_string());
        query.push(" WHERE listing.list = ").bind(page.list.to_string());
        query.push(" AND listing.age <= ").bind(eye.maturity);
        query.push(" AND COALESCE(own.gone_ms, listing.gone_ms) > ").bind(eye.now_ms);
        if let Some(kind) = page.kind {
            query.push(" AND listing.kind = ").bind(kind.as_str());
        }
        if let Some(year) = page.year {
            query.push(" AND listing.year = ").bind(year);
        }
        if let Some(After { value, id }) = &page.after {
            let beyond = beyond.get(usize::from(page.descending)).copied().unwrap_or("> ");
            query.push(" AND (").push(by).push(", listing.title_id) ").push(beyond).push("(");
            match page.sort {
                SortBy::Name => query.bind(value.as_str().unwrap_or_default().to_string()),
                SortBy::Rating => query.bind(value.as_f64().unwrap_or_default()),
                SortBy::Year | SortBy::Added => query.bind(value.as_i64().unwrap_or_default()),
            };
            query.push(", ").bind(id.clone()).push(")");
        }
        query.push(" ORDER BY ").push(by).push(" ").push(way).push(", listing.title_id ").push(way);
        query.push(" LIMIT ").bind(i64::from(page.limit));
        query.build()?.fetch_all(&mut *self.tx).await?.iter().map(card_of).collect()
    }

    /// Those of these titles that are seen, in their order.
    pub async fn cards(&mut self, ids: &[String], eye: Eye) -> Result<Vec<Card>, StoreError> {
        let wanted: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut found = cards_of(&mut self.tx, &wanted, eye).await?;
        Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
    }

    /// The rails of a viewer's home page in order.
    pub async fn rails(&mut self, eye: Eye, plan: Plan) -> Result<Vec<Rail>, StoreError> {
        let mut rails: Vec<Rail> = Vec::new();
        for region in ["*", eye.region.as_str()] {
            let rows = sqlx::query(select!("rail", "gone_ms";
                "JOIN rail_place ON rail_place.rail_id = rail.id
                  WHERE rail_place.region = $1 AND rail_place.maturity_from <= $2 AND rail_place.maturity_to >= $2
                    AND (rail_place.plans & $3) <> 0 AND rail_place.gone_ms > $4
                  ORDER BY rail_place.position, rail_place.rail_id LIMIT $5"
            ))
            .bind(region.to_string())
            .bind(eye.maturity)
            .bind(plan_bit(plan))
            .bind(eye.now_ms)
            .bind(i64::from(RAILS_MAX))
            .fetch_all(&mut *self.tx)
            .await?;
            for row in rows {
                rails.push(record_of(&row)?);
            }
        }
        rails.sort_by(|a, b| (a.input.position, &a.id).cmp(&(b.input.position, &b.id)));
        rails.truncate(usize::try_from(RAILS_MAX).unwrap_or(usize::MAX));
        Ok(rails)
    }

    /// Genres that have titles seen anywhere, with their counts.
    pub async fn genres(&mut self) -> Result<Vec<(String, GenreInput, i64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT genre.id, genre.body, listing_count.titles FROM genre
              JOIN listing_count ON listing_count.list = genre.id
              WHERE genre.deleted_ms IS NULL AND listing_count.titles > 0 ORDER BY genre.id",
        )
        .fetch_all(&mut *self.tx)
        .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, stored(&row.try_get::<String, _>(1)?)?, row.try_get(2)?))).collect()
    }

    pub async fn has_genre(&mut self, slug: &str) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM genre WHERE id = $1 AND deleted_ms IS NULL")
            .bind(slug.to_string())
            .fetch_optional(&mut *self.tx)
            .await?;
        Ok(row.is_some())
    }

    /// The people and genres a title's page names, by their own records.
    pub async fn names_of(&mut self, title: &Title) -> Result<crate::catalog::documents::Names, StoreError> {
        let mut names = crate::catalog::documents::Names::default();
        let rows = sqlx::query(
            "SELECT DISTINCT person.id, person.body FROM credit JOIN person ON person.id = credit.person_id
              WHERE credit.title_id = $1",
        )
        .bind(title.id.clone())
        .fetch_all(&mut *self.tx)
        .await?;
        for row in rows {
            names.people.insert(row.try_get(0)?, stored::<PersonInput>(&row.try_get::<String, _>(1)?)?);
        }
        if title.input.genres.is_empty() {
            return Ok(names);
        }
        let mut query = Sql::new("SELECT id, body FROM genre WHERE id IN (");
        query.bind_all(title.input.genres.iter().map(|name| slug(name))).push(")");
        for row in query.build()?.fetch_all(&mut *self.tx).await? {
            names.genres.insert(row.try_get(0)?, stored::<GenreInput>(&row.try_get::<String, _>(1)?)?);
        }
        Ok(names)
    }

    /// What a person did in titles that are seen, newest first.
    pub async fn parts_of(&mut self, person_id: &str, eye: Eye) -> Result<Vec<Played>, StoreError> {
        let statement = format!(
            "SELECT credit.role, credit.character, {CARD} FROM credit JOIN title ON title.id = credit.title_id
              LEFT JOIN title_window own ON own.title_id = title.id AND own.region = $2
              WHERE credit.person_id = $1 AND title.age <= $3 AND COALESCE(own.gone_ms, title.gone_ms) > $4
              ORDER BY COALESCE(title.year, 0) DESC, title.id, credit.position LIMIT $5"
        );
        // Made of constants alone.
        let rows = sqlx::query(AssertSqlSafe(statement))
            .bind(person_id.to_string())
            .bind(eye.region.as_str().to_string())
            .bind(eye.maturity)
            .bind(eye.now_ms)
            .bind(i64::from(PARTS_MAX))
            .fetch_all(&mut *self.tx)
            .await?;
        let part = |row: &DbRow| {
            Ok(Played { role: row.try_get("role")?, character: row.try_get("character")?, card: card_of(row)? })
        };
        rows.iter().map(part).collect()
    }

    /// What is kept as like a title, best first, seen or not.
    pub async fn similar(&mut self, id: &str) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query("SELECT other_id FROM similar_title WHERE title_id = $1 ORDER BY position")
            .bind(id.to_string())
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

/// A row of `listing` as a title has it: the same in all of its lists.
#[derive(Debug, PartialEq)]
struct Listing {
    kind: String,
    sort_name: String,
    year: i64,
    rating: f64,
    added_ms: i64,
    age: i64,
    gone_ms: i64,
}

impl Listing {
    fn of(title: &Title) -> Self {
        let input = &title.input;
        Self {
            kind: input.kind.as_str().into(),
            sort_name: input.sort_name.clone(),
            year: input.year.unwrap_or(0),
            rating: input.rating.unwrap_or(0.0),
            added_ms: title.created_at_ms,
            age: i64::from(input.age().years()),
            gone_ms: input.gone_ms(&title.shown).0,
        }
    }

    fn read(row: &DbRow) -> Result<Self, StoreError> {
        Ok(Self {
            kind: row.try_get("kind")?,
            sort_name: row.try_get("sort_name")?,
            year: row.try_get("year")?,
            rating: row.try_get("rating")?,
            added_ms: row.try_get("added_ms")?,
            age: row.try_get("age")?,
            gone_ms: row.try_get("gone_ms")?,
        })
    }
}

impl Write {
    /// Puts a title into its lists and out of all others. Most edits change nothing here, and then nothing is written.
    pub(super) async fn put_listings(&mut self, title: &Title) -> Result<(), StoreError> {
        let rows = sqlx::query(
            "SELECT list, kind, sort_name, year, rating, added_ms, age, gone_ms FROM listing WHERE title_id = $1",
        )
        .bind(&title.id)
        .fetch_all(&mut *self.tx)
        .await?;
        let was = rows.iter().map(|row| row.try_get("list")).collect::<Result<BTreeSet<String>, _>>()?;
        let is: BTreeSet<String> = match title.visible {
            true => title.input.genres.iter().map(|name| slug(name)).chain([String::new()]).collect(),
            false => BTreeSet::new(),
        };
        let listing = Listing::of(title);
        let there = rows.iter().map(Listing::read).collect::<Result<Vec<_>, _>>()?;
        if was == is && there.iter().all(|there| *there == listing) {
            return Ok(());
        }
        sqlx::query("DELETE FROM listing WHERE title_id = $1").bind(&title.id).execute(&mut *self.tx).await?;
        let mut query = Sql::new(
            "INSERT INTO listing (list, title_id, kind, sort_name, year, rating, added_ms, age, gone_ms) VALUES ",
        );
        query.rows(&is, |row, list| {
            row.bind(list.clone()).bind(title.id.clone()).bind(listing.kind.clone()).bind(listing.sort_name.clone());
            row.bind(listing.year).bind(listing.rating).bind(listing.added_ms).bind(listing.age).bind(listing.gone_ms);
        });
        if !is.is_empty() {
            query.build()?.execute(&mut *self.tx).await?;
        }
        let left = was.difference(&is).map(|list| (list, -1i64));
        for (list, by) in left.chain(is.difference(&was).map(|list| (list, 1))) {
            sqlx::query(
                "INSERT INTO listing_count (list, titles) VALUES ($1, $2)
                  ON CONFLICT (list) DO UPDATE SET titles = listing_count.titles + $2",
            )
            .bind(list.clone())
            .bind(by)
            .execute(&mut *self.tx)
            .await?;
        }
        Ok(())
    }

    /// Whether any title that is not deleted has a genre, drafts too: it would come back with them.
    pub async fn is_genre_used(&mut self, genre: &str) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM listing WHERE list = $1 LIMIT 1")
            .bind(genre.to_string())
            .fetch_optional(&mut *self.tx)
            .await?;
        if row.is_some() {
            return Ok(true);
        }
        // Those that nobody sees stand in no list. Few are looked through so: a genre is seldom deleted, and most titles agree in theirs.
        let rows = sqlx::query("SELECT DISTINCT genres FROM title WHERE deleted_ms IS NULL AND genres <> '[]'")
            .fetch_all(&mut *self.tx)
            .await?;
        for row in &rows {
            let names: Vec<String> = list_of(row, "genres")?;
            if names.iter().any(|name| slug(name) == genre) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
