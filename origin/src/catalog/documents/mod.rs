//! The public documents: what viewers' apps read. Each is JSON with the surrogate keys of everything it shows, made of
//! what the store found for one viewer; nothing here reads, and nothing that is not for the viewer gets here.
mod lists;
mod policy;
mod titles;

pub use lists::{Listed, Played, Row, catalog, collection, genres, home, person, search, similar};
pub use policy::{Kind, Schedule};
pub use titles::{Names, season, series, title};

use crate::catalog::model::{Image, ImageKind, TitleKind, Translations, image_for, name_in, slug};
use kv_schemas::SurrogateKey;
use kv_schemas::viewer::Locale;
use serde::Serialize;
use utoipa::ToSchema;

/// A page ready to be sent.
#[derive(Clone, Debug)]
pub struct Document {
    pub body: String,
    pub keys: Vec<SurrogateKey>,
}

/// What the store gives for a title in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    pub id: String,
    pub kind: TitleKind,
    pub name: String,
    pub translations: Translations,
    pub year: Option<i64>,
    pub maturity: Option<String>,
    pub rating: Option<f64>,
    pub votes: Option<i64>,
    pub genres: Vec<String>,
    pub images: Vec<Image>,
    pub sort_name: String,
    pub added_ms: i64,
    /// Until when this viewer may see it.
    pub gone_ms: i64,
}

/// A title in a list.
#[derive(Serialize, ToSchema)]
pub struct Item<'a> {
    id: &'a str,
    kind: TitleKind,
    name: &'a str,
    year: Option<i64>,
    maturity: Option<&'a str>,
    rating: Option<f64>,
    /// Slugs.
    genres: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    poster: Option<&'a str>,
}

pub fn item<'a>(card: &'a Card, locale: &Locale) -> Item<'a> {
    Item {
        id: &card.id,
        kind: card.kind,
        name: name_in(&card.name, &card.translations, locale),
        year: card.year,
        maturity: card.maturity.as_deref(),
        rating: card.rating,
        genres: card.genres.iter().map(|name| slug(name)).collect(),
        poster: image_for(&card.images, ImageKind::Poster, locale),
    }
}

fn items<'a>(cards: &'a [Card], locale: &Locale) -> Vec<Item<'a>> {
    cards.iter().map(|card| item(card, locale)).collect()
}

fn ids(cards: &[Card]) -> impl Iterator<Item = &str> {
    cards.iter().map(|card| card.id.as_str())
}

fn document<T: Serialize>(value: &T, keys: Vec<SurrogateKey>) -> Document {
    // Plain structs of text and numbers always serialise.
    let body = serde_json::to_string(value).unwrap_or_default();
    Document { body, keys }
}

/// Schemas of all documents, for the API's description.
pub mod schemas {
    pub use super::Item;
    pub use super::lists::{CatalogPage, CollectionPage, GenresPage, HomePage, PersonPage, SearchPage, SimilarPage};
    pub use super::titles::{SeasonPage, SeriesPage, TitlePage};
}
