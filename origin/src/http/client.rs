//! The client API: what viewers' apps read, through the edge. Each answer is for the viewer the edge names; nothing the
//! viewer may not see is read for it.
use super::ApiResult;
use super::answers::{Reading, absent};
use super::extract::{Segment, Segments};
use super::query::{Query, cursor, place};
use super::shed::Searching;
use super::spec::{Api, Op, integer, one_of, pattern, text};
use crate::catalog::documents::schemas::{
    CatalogPage, CollectionPage, GenresPage, HomePage, PersonPage, SearchPage, SeasonPage, SeriesPage, SimilarPage,
    TitlePage,
};
use crate::catalog::documents::{self, Card, Listed, Row};
use crate::catalog::keys::{self, Place};
use crate::catalog::model::{CollectionInput, Fill, PersonInput, SeasonInput, SortBy, TitleKind, season_id};
use crate::catalog::similar::SHOWN;
use crate::catalog::validate::check_id;
use crate::store::{After, Page, Rank, words_of};
use axum::routing::get;
use kv_schemas::Problem;
use std::collections::HashMap;
use utoipa::openapi::path::HttpMethod;

const LIMIT_DEFAULT: u32 = 24;
const LIMIT_MAX: u32 = 100;
const QUERY_CHARS_MAX: usize = 100;

const ALL: [&str; 4] = ["Viewer-Region", "Viewer-Locale", "Viewer-Maturity", "Viewer-Plan"];
const SEEN: [&str; 3] = ["Viewer-Region", "Viewer-Locale", "Viewer-Maturity"];

pub fn api() -> Api {
    let op = |summary: &str, fields: &[&str]| {
        Op::new("client", summary)
            .viewer(fields)
            .field("Min-As-Of", text(), "The answer must be at least this new")
            .empty(304, "The client has it already")
            .problems(&[(400, "The request has faults, each named")])
    };
    let one = |summary: &str| op(summary, &SEEN).id().problems(&[(404, "It is not there, or not for this viewer")]);
    let page = |op: Op| {
        op.query("limit", integer(1, i64::from(LIMIT_MAX)), "24 when not given").query(
            "cursor",
            text(),
            "`next_cursor` of the same list",
        )
    };
    let list = page(op("A part of the catalogue", &SEEN))
        .query("genre", pattern("^[a-z0-9]([a-z0-9-]{0,78}[a-z0-9])?$"), "Slug")
        .query("kind", one_of(&["film", "series"]), "")
        .query("year", integer(1870, 2200), "")
        .query("sort", one_of(&SORTS), "`-`: highest first")
        .problems(&[(404, "There is no such genre")]);
    let words = page(op("Titles by name, translated name or people; forgives misspelling", &SEEN)).query(
        "q",
        text(),
        "What the viewer typed",
    );
    Api::new()
        .add(
            HttpMethod::Get,
            "/v1/home",
            get(home),
            op("The home page", &ALL).answer::<HomePage>(200, "Rails in order"),
        )
        .add(HttpMethod::Get, "/v1/catalog", get(catalog), list.answer::<CatalogPage>(200, "Titles in order"))
        .add(
            HttpMethod::Get,
            "/v1/genres",
            get(genres),
            op("Genres that have titles", &["Viewer-Locale"]).answer::<GenresPage>(200, "By slug"),
        )
        .add(
            HttpMethod::Get,
            "/v1/titles/{id}",
            get(title),
            one("A film or series").answer::<TitlePage>(200, "The title"),
        )
        .add(
            HttpMethod::Get,
            "/v1/titles/{id}/similar",
            get(similar),
            one("Titles like this one").answer::<SimilarPage>(200, "Best first"),
        )
        .add(
            HttpMethod::Get,
            "/v1/series/{id}",
            get(series),
            one("A series with its seasons").answer::<SeriesPage>(200, "The series"),
        )
        .add(
            HttpMethod::Get,
            "/v1/series/{id}/seasons/{number}",
            get(season),
            one("A season with its episodes")
                .path("number", integer(0, 10_000))
                .answer::<SeasonPage>(200, "The season"),
        )
        .add(
            HttpMethod::Get,
            "/v1/people/{id}",
            get(person),
            one("A person and their titles").answer::<PersonPage>(200, "The person"),
        )
        .add(
            HttpMethod::Get,
            "/v1/collections/{id}",
            get(collection),
            one("Titles an editor put together").answer::<CollectionPage>(200, "The collection"),
        )
        .add(HttpMethod::Get, "/v1/search", get(search), words.answer::<SearchPage>(200, "Best first"))
}

fn gone(cards: &[Card]) -> Vec<i64> {
    cards.iter().map(|card| card.gone_ms).collect()
}

async fn home(mut reading: Reading) -> ApiResult {
    let rails = reading.snapshot.rails(reading.eye, reading.viewer.plan).await?;
    let pinned: Vec<String> = rails.iter().flat_map(|rail| rail.input.items.iter().cloned()).collect();
    let pinned: HashMap<String, Card> =
        reading.snapshot.cards(&pinned, reading.eye).await?.into_iter().map(|card| (card.id.clone(), card)).collect();
    let mut fills: HashMap<Fill, Vec<Card>> = HashMap::new();
    let mut rows = Vec::with_capacity(rails.len());
    for rail in rails {
        let size = usize::try_from(rail.input.size).unwrap_or(0);
        let mut cards: Vec<Card> = rail.input.items.iter().filter_map(|id| pinned.get(id).cloned()).collect();
        if let Some(fill) = &rail.input.fill
            && cards.len() < size
        {
            if !fills.contains_key(fill) {
                let page = Page {
                    list: fill.genre.as_deref().unwrap_or(""),
                    kind: fill.kind,
                    sort: fill.sort,
                    descending: fill.sort != SortBy::Name,
                    // Room for pinned ones that are met again.
                    limit: 80,
                    ..Page::default()
                };
                fills.insert(fill.clone(), reading.snapshot.list(&page, reading.eye).await?);
            }
            let more = fills.get(fill).map(Vec::as_slice).unwrap_or_default();
            let new: Vec<Card> =
                more.iter().filter(|card| cards.iter().all(|have| have.id != card.id)).cloned().collect();
            cards.extend(new);
        }
        cards.truncate(size);
        rows.push(Row { rail, cards });
    }
    // A rail that is shown has an end of its own.
    let filled = rows.iter().filter(|row| !row.cards.is_empty());
    let ends: Vec<i64> =
        filled.flat_map(|row| [vec![row.rail.input.gone_ms(true)], gone(&row.cards)].concat()).collect();
    let document = documents::home(&rows, &reading.viewer);
    reading.answer(document, ends)
}

const NO_TITLE: &str = "There is no title of this id";

async fn title(Segment(id): Segment, mut reading: Reading) -> ApiResult {
    // No title can ever have such an id: nothing to purge by, nothing to keep.
    check_id(&id).map_err(|_| absent(NO_TITLE))?;
    let Some((title, until_ms)) = reading.snapshot.visible_title(&id, reading.eye).await? else {
        return reading.absent(NO_TITLE, [keys::title(&id)]);
    };
    let names = reading.snapshot.names_of(&title).await?;
    let document = documents::title(&title, &names, &reading.viewer.locale);
    reading.answer(document, [until_ms])
}

async fn similar(Segment(id): Segment, mut reading: Reading) -> ApiResult {
    check_id(&id).map_err(|_| absent(NO_TITLE))?;
    let Some((_, until_ms)) = reading.snapshot.visible_title(&id, reading.eye).await? else {
        return reading.absent(NO_TITLE, [keys::title(&id)]);
    };
    let candidates = reading.snapshot.similar(&id).await?;
    let mut cards = reading.snapshot.cards(&candidates, reading.eye).await?;
    cards.truncate(SHOWN);
    let ends: Vec<i64> = gone(&cards).into_iter().chain([until_ms]).collect();
    let document = documents::similar(&id, &cards, &candidates, &reading.viewer.locale);
    reading.answer(document, ends)
}

const NO_SERIES: &str = "There is no series of this id";

async fn series(Segment(id): Segment, mut reading: Reading) -> ApiResult {
    check_id(&id).map_err(|_| absent(NO_SERIES))?;
    let found = reading.snapshot.visible_title(&id, reading.eye).await?;
    let Some((title, until_ms)) = found.filter(|(title, _)| title.input.kind == TitleKind::Series) else {
        return reading.absent(NO_SERIES, [keys::title(&id)]);
    };
    let names = reading.snapshot.names_of(&title).await?;
    let seasons = reading.snapshot.seasons(&id).await?;
    let document = documents::series(&title, &names, &seasons, &reading.viewer.locale);
    reading.answer(document, [until_ms])
}

async fn season(Segments((id, number)): Segments<(String, String)>, mut reading: Reading) -> ApiResult {
    let no_season = "There is no such season";
    check_id(&id).map_err(|_| absent(no_season))?;
    let number = number_of(&number).ok_or_else(|| absent(no_season))?;
    let record_id = season_id(&id, number);
    let found = reading.snapshot.visible_title(&id, reading.eye).await?;
    let season = reading.snapshot.record::<SeasonInput>(&record_id).await?;
    let season = season.filter(|season| season.deleted_at_ms.is_none());
    let (Some((title, until_ms)), Some(season)) = (found, season) else {
        return reading.absent(no_season, [keys::title(&id), keys::season(&record_id)]);
    };
    let document = documents::season(&title, number, &season, &reading.viewer.locale);
    reading.answer(document, [until_ms])
}

/// A season's number, in its one spelling.
pub(super) fn number_of(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|number| (0..=10_000).contains(number) && number.to_string() == text)
}

async fn person(Segment(id): Segment, mut reading: Reading) -> ApiResult {
    let no_person = "There is no person of this id";
    check_id(&id).map_err(|_| absent(no_person))?;
    let found = reading.snapshot.record::<PersonInput>(&id).await?;
    let Some(person) = found.filter(|person| person.visible) else {
        return reading.absent(no_person, [keys::person(&id)]);
    };
    let parts = reading.snapshot.parts_of(&id, reading.eye).await?;
    let ends: Vec<i64> = parts.iter().map(|part| part.card.gone_ms).collect();
    let document = documents::person(&person, &parts, &reading.viewer.locale);
    reading.answer(document, ends)
}

async fn collection(Segment(id): Segment, mut reading: Reading) -> ApiResult {
    let no_collection = "There is no collection of this id";
    check_id(&id).map_err(|_| absent(no_collection))?;
    let found = reading.snapshot.record::<CollectionInput>(&id).await?;
    let Some(collection) = found.filter(|collection| collection.visible) else {
        return reading.absent(no_collection, [keys::collection(&id)]);
    };
    let cards = reading.snapshot.cards(&collection.input.items, reading.eye).await?;
    let document = documents::collection(&collection, &cards, &reading.viewer.locale);
    let ends = gone(&cards);
    reading.answer(document, ends)
}

async fn genres(mut reading: Reading) -> ApiResult {
    let genres = reading.snapshot.genres().await?;
    let document = documents::genres(&genres, &reading.viewer.locale);
    reading.answer(document, [])
}

const SORTS: [&str; 8] = ["name", "-name", "year", "-year", "rating", "-rating", "added", "-added"];

#[derive(Debug, Default)]
struct CatalogQuery {
    genre: Option<String>,
    kind: Option<TitleKind>,
    year: Option<i64>,
    sort: SortBy,
    descending: bool,
    after: Option<After>,
    limit: u32,
}

impl CatalogQuery {
    fn read(mut query: Query) -> Result<Self, Problem> {
        let genre = query.take("genre", "the slug of a genre, as /v1/genres lists them", |text| {
            check_id(text).is_ok().then(|| text.to_string())
        });
        let year = |text: &str| text.parse::<i64>().ok().filter(|y| (1870..=2200).contains(y) && text.len() == 4);
        let sort = |text: &str| {
            SortBy::named(text.trim_start_matches('-'))
                .filter(|_| SORTS.contains(&text))
                .map(|by| (by, text.starts_with('-')))
        };
        let kind = query.take("kind", "film or series", TitleKind::named);
        let year = query.take("year", "a year from 1870 to 2200", year);
        let (sort, descending) = query.take("sort", &format!("one of {}", SORTS.join(", ")), sort).unwrap_or_default();
        let limit = query.limit(LIMIT_DEFAULT, LIMIT_MAX);
        let mut read = Self { genre, kind, year, sort, descending, after: None, limit };
        let (list, page) = (read.list(), read.page());
        let after = query.take("cursor", "a next_cursor of the same list", |text| {
            place::<After>(&list, text).filter(|after| page.fits(after))
        });
        read.after = after;
        query.end()?;
        Ok(read)
    }

    /// What a cursor is good for.
    fn list(&self) -> String {
        let Self { genre, kind, year, sort, descending, .. } = self;
        let (genre, kind) = (genre.as_deref().unwrap_or(""), kind.map_or("", TitleKind::as_str));
        format!("{genre}|{kind}|{}|{}|{descending}", year.unwrap_or(0), sort.as_str())
    }

    fn page(&self) -> Page<'_> {
        Page {
            list: self.genre.as_deref().unwrap_or(""),
            kind: self.kind,
            year: self.year,
            sort: self.sort,
            descending: self.descending,
            after: self.after.clone(),
            limit: self.limit.saturating_add(1),
        }
    }
}

async fn catalog(query: Query, mut reading: Reading) -> ApiResult {
    let query = CatalogQuery::read(query)?;
    if let Some(genre) = &query.genre
        && !reading.snapshot.has_genre(genre).await?
    {
        return reading.absent("There is no such genre", [keys::genre(genre)]);
    }
    // One more than asked for tells whether there is a next page.
    let page = query.page();
    let mut cards = reading.snapshot.list(&page, reading.eye).await?;
    let shown = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let behind = if cards.len() > shown { cards.split_off(shown) } else { Vec::new() };
    let behind = behind.first();
    let next = cards.last().filter(|_| behind.is_some()).map(|last| cursor(&query.list(), &page.after(last)));
    let listed = Listed {
        genre: query.genre.as_deref(),
        year: query.year,
        sort: query.sort,
        descending: query.descending,
        after: query.after.as_ref().map(|after| after.place(query.sort)),
        until: behind.map(|card| Place::of(query.sort, &card.sort_name, card.year, card.rating)),
    };
    let document = documents::catalog(&cards, &listed, next, &reading.viewer.locale);
    let ends = gone(&cards);
    reading.answer(document, ends)
}

async fn search(mut query: Query, _: Searching, mut reading: Reading) -> ApiResult {
    let expected = format!("something to look for, of at most {QUERY_CHARS_MAX} characters");
    let words = query.require("q", &expected, |text| {
        (text.chars().count() <= QUERY_CHARS_MAX && !text.trim().is_empty()).then(|| words_of(text))
    });
    let limit = query.limit(LIMIT_DEFAULT, LIMIT_MAX);
    let list = format!("search|{}", words.as_deref().unwrap_or_default().join(" "));
    let after = query.take("cursor", "a next_cursor of the same search", |text| place::<Rank>(&list, text));
    query.end()?;
    // One more than asked for tells whether there is a next page.
    let shown = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = shown.saturating_add(1);
    let words = words.unwrap_or_default();
    let (mut found, far) = reading.snapshot.search(&words, reading.eye, after.as_ref(), more).await?;
    let has_next = found.len() > shown;
    found.truncate(shown);
    let next = found.last().filter(|_| has_next).map(|last| cursor(&list, &last.rank));
    let cards: Vec<Card> = found.into_iter().map(|found| found.card).collect();
    let document = documents::search(&cards, next, (&words, far), &reading.viewer.locale);
    let ends = gone(&cards);
    reading.answer(document, ends)
}
