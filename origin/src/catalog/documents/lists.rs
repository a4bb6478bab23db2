//! Pages that show titles in short.
use super::{Card, Document, Item, document, ids, items};
use crate::catalog::keys::{self, Place};
use crate::catalog::model::{
    CollectionInput, Fill, GenreInput, ImageKind, PersonInput, Rail, Record, SortBy, image_for, name_in, synopsis_in,
};
use kv_schemas::SurrogateKey;
use kv_schemas::viewer::{Dimensions, Locale};
use serde::Serialize;
use utoipa::ToSchema;

/// A rail as one viewer sees it.
pub struct Row {
    pub rail: Rail,
    pub cards: Vec<Card>,
}

#[derive(Serialize, ToSchema)]
pub struct HomePage<'a> {
    rails: Vec<HomeRow<'a>>,
}

#[derive(Serialize, ToSchema)]
pub struct HomeRow<'a> {
    id: &'a str,
    title: &'a str,
    items: Vec<Item<'a>>,
}

/// Rails that have nothing for this viewer are left out.
pub fn home(rows: &[Row], viewer: &Dimensions) -> Document {
    let filled = rows.iter().filter(|row| !row.cards.is_empty());
    let rails = filled.map(|Row { rail, cards }| HomeRow {
        id: &rail.id,
        title: name_in(&rail.input.title, &rail.input.translations, &viewer.locale),
        items: items(cards, &viewer.locale),
    });
    let mut own = vec![keys::home(), keys::home_in(viewer.region)];
    for Row { rail, .. } in rows {
        own.push(keys::rail(&rail.id));
        own.extend(rail.input.fill.iter().flat_map(list_keys));
    }
    let shown = rows.iter().flat_map(|row| ids(&row.cards));
    let named = rows.iter().flat_map(|row| row.rail.input.items.iter().map(String::as_str));
    let keys = keys::of_page(own, shown, named);
    document(&HomePage { rails: rails.collect() }, keys)
}

fn list_keys(fill: &Fill) -> [Option<SurrogateKey>; 2] {
    let list = fill.genre.as_deref().unwrap_or("");
    [keys::list(list), keys::order(list, fill.sort)]
}

/// Which part of the catalogue a page is of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed<'a> {
    /// Slug.
    pub genre: Option<&'a str>,
    pub year: Option<i64>,
    pub sort: SortBy,
    pub descending: bool,
    /// Where the page before it ended.
    pub after: Option<Place<'a>>,
    /// Where the first title behind it stands: without that one there would be no next page.
    pub until: Option<Place<'a>>,
}

impl Listed<'_> {
    fn keys(&self) -> Vec<Option<SurrogateKey>> {
        let span = if self.descending { [self.until, self.after] } else { [self.after, self.until] };
        let keys = keys::of_span(self.genre.unwrap_or(""), self.sort, span);
        keys.into_iter().chain([self.year.and_then(keys::year)]).collect()
    }
}

#[derive(Serialize, ToSchema)]
pub struct CatalogPage<'a> {
    items: Vec<Item<'a>>,
    next_cursor: Option<String>,
}

pub fn catalog(cards: &[Card], listed: &Listed<'_>, next_cursor: Option<String>, locale: &Locale) -> Document {
    let own = listed.keys();
    let page = CatalogPage { items: items(cards, locale), next_cursor };
    document(&page, keys::of_page(own, ids(cards), []))
}

#[derive(Serialize, ToSchema)]
pub struct GenresPage<'a> {
    genres: Vec<GenreCount<'a>>,
}

#[derive(Serialize, ToSchema)]
pub struct GenreCount<'a> {
    slug: &'a str,
    name: &'a str,
    /// Titles in it, of all regions and age classes together.
    titles: i64,
}

pub fn genres(counted: &[(String, GenreInput, i64)], locale: &Locale) -> Document {
    let genres = counted.iter().map(|(slug, genre, titles)| GenreCount {
        slug,
        name: name_in(&genre.name, &genre.translations, locale),
        titles: *titles,
    });
    let own = keys::of_page([keys::genres()], [], []);
    document(&GenresPage { genres: genres.collect() }, own)
}

#[derive(Serialize, ToSchema)]
pub struct SimilarPage<'a> {
    items: Vec<Item<'a>>,
}

/// `candidates`: all that are kept for the title, of which `cards` are shown.
pub fn similar(id: &str, cards: &[Card], candidates: &[String], locale: &Locale) -> Document {
    // The title itself is named: the page is there as long as it is seen.
    let named = candidates.iter().map(String::as_str).chain([id]);
    let keys = keys::of_page([keys::similar(id)], ids(cards), named);
    document(&SimilarPage { items: items(cards, locale) }, keys)
}

#[derive(Serialize, ToSchema)]
pub struct PersonPage<'a> {
    id: &'a str,
    name: &'a str,
    biography: Option<&'a str>,
    born: Option<&'a str>,
    died: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    portrait: Option<&'a str>,
    /// Newest first.
    credits: Vec<Part<'a>>,
}

#[derive(Serialize, ToSchema)]
pub struct Part<'a> {
    role: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    character: Option<&'a str>,
    title: Item<'a>,
}

/// What a person did in a title.
#[derive(Clone, Debug)]
pub struct Played {
    pub role: String,
    pub character: Option<String>,
    pub card: Card,
}

pub fn person(person: &Record<PersonInput>, parts: &[Played], locale: &Locale) -> Document {
    let input = &person.input;
    let page = PersonPage {
        id: &person.id,
        name: name_in(&input.name, &input.translations, locale),
        biography: synopsis_in(input.biography.as_deref(), &input.translations, locale),
        born: input.born.as_deref(),
        died: input.died.as_deref(),
        portrait: image_for(&input.images, ImageKind::Portrait, locale),
        credits: parts
            .iter()
            .map(|part| Part {
                role: &part.role,
                character: part.character.as_deref(),
                title: super::item(&part.card, locale),
            })
            .collect(),
    };
    let shown = parts.iter().map(|part| part.card.id.as_str());
    document(&page, keys::of_page([keys::person(&person.id)], shown, []))
}

#[derive(Serialize, ToSchema)]
pub struct CollectionPage<'a> {
    id: &'a str,
    name: &'a str,
    synopsis: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backdrop: Option<&'a str>,
    items: Vec<Item<'a>>,
}

pub fn collection(collection: &Record<CollectionInput>, cards: &[Card], locale: &Locale) -> Document {
    let input = &collection.input;
    let page = CollectionPage {
        id: &collection.id,
        name: name_in(&input.name, &input.translations, locale),
        synopsis: synopsis_in(input.synopsis.as_deref(), &input.translations, locale),
        backdrop: image_for(&input.images, ImageKind::Backdrop, locale),
        items: items(cards, locale),
    };
    let named = input.items.iter().map(String::as_str);
    let keys = keys::of_page([keys::collection(&collection.id)], ids(cards), named);
    document(&page, keys)
}

#[derive(Serialize, ToSchema)]
pub struct SearchPage<'a> {
    items: Vec<Item<'a>>,
    next_cursor: Option<String>,
}

/// `words`: what was typed; `far`: words near them were tried as well.
pub fn search(
    cards: &[Card],
    next_cursor: Option<String>,
    (words, far): (&[String], bool),
    locale: &Locale,
) -> Document {
    let page = SearchPage { items: items(cards, locale), next_cursor };
    document(&page, keys::of_page(keys::of_search(words, far), ids(cards), []))
}
