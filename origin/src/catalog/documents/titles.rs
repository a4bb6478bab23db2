//! The pages of one title: a film or a series, its seasons.
use super::{Document, document};
use crate::catalog::keys;
use crate::catalog::model::{
    Episode, GenreInput, ImageKind, PersonInput, Record, SeasonInput, Title, TitleKind, image_for, name_in, slug,
    synopsis_in,
};
use kv_schemas::SurrogateKey;
use kv_schemas::viewer::Locale;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a title's page needs besides the title.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// By id, as they are now.
    pub people: BTreeMap<String, PersonInput>,
    /// By slug.
    pub genres: BTreeMap<String, GenreInput>,
}

#[derive(Serialize, ToSchema)]
pub struct Reference<'a> {
    slug: String,
    name: &'a str,
}

#[derive(Serialize, ToSchema)]
pub struct Person<'a> {
    id: &'a str,
    name: &'a str,
    role: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    character: Option<&'a str>,
}

#[derive(Serialize, ToSchema)]
pub struct TitlePage<'a> {
    id: &'a str,
    kind: TitleKind,
    name: &'a str,
    year: Option<i64>,
    release_date: Option<&'a str>,
    synopsis: Option<&'a str>,
    maturity: Option<&'a str>,
    /// The age class of that mark: 0, 7, 13, 16 or 18.
    age: u8,
    runtime_min: Option<i64>,
    rating: Option<f64>,
    votes: Option<i64>,
    distributor: Option<&'a str>,
    genres: Vec<Reference<'a>>,
    people: Vec<Person<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    poster: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backdrop: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logo: Option<&'a str>,
}

fn page<'a>(title: &'a Title, names: &'a Names, locale: &Locale) -> TitlePage<'a> {
    let input = &title.input;
    let genre = |name: &'a String| {
        let slug = slug(name);
        let name = match names.genres.get(&slug) {
            Some(genre) => name_in(&genre.name, &genre.translations, locale),
            None => name,
        };
        Reference { slug, name }
    };
    let person = |credit: &'a crate::catalog::model::Credit| Person {
        id: &credit.id,
        name: match names.people.get(&credit.id) {
            Some(person) => name_in(&person.name, &person.translations, locale),
            None => &credit.name,
        },
        role: &credit.role,
        character: credit.character.as_deref(),
    };
    TitlePage {
        id: &title.id,
        kind: input.kind,
        name: name_in(&input.name, &input.translations, locale),
        year: input.year,
        release_date: input.release_date.as_deref(),
        synopsis: synopsis_in(input.synopsis.as_deref(), &input.translations, locale),
        maturity: input.maturity.as_deref(),
        age: input.age().years(),
        runtime_min: input.runtime_min,
        rating: input.rating,
        votes: input.votes,
        distributor: input.distributor.as_deref(),
        genres: input.genres.iter().map(genre).collect(),
        people: input.people.iter().map(person).collect(),
        poster: image_for(&input.images, ImageKind::Poster, locale),
        backdrop: image_for(&input.images, ImageKind::Backdrop, locale),
        logo: image_for(&input.images, ImageKind::Logo, locale),
    }
}

fn keys_of(title: &Title) -> Vec<Option<SurrogateKey>> {
    let genres = title.input.genres.iter().map(|name| keys::genre_name(&slug(name)));
    let people = title.input.people.iter().map(|credit| keys::person_name(&credit.id));
    std::iter::once(keys::title(&title.id)).chain(genres).chain(people).collect()
}

pub fn title(title: &Title, names: &Names, locale: &Locale) -> Document {
    document(&page(title, names, locale), keys::of_page(keys_of(title), [], []))
}

#[derive(Serialize, ToSchema)]
pub struct SeriesPage<'a> {
    #[serde(flatten)]
    title: TitlePage<'a>,
    seasons: Vec<SeasonBrief<'a>>,
}

#[derive(Serialize, ToSchema)]
pub struct SeasonBrief<'a> {
    number: i64,
    name: &'a str,
    year: Option<i64>,
    episodes: usize,
}

/// `seasons`: by number.
pub fn series(title: &Title, names: &Names, seasons: &[(i64, Record<SeasonInput>)], locale: &Locale) -> Document {
    let brief = seasons.iter().map(|(number, Record { input, .. })| SeasonBrief {
        number: *number,
        name: name_in(&input.name, &input.translations, locale),
        year: input.year,
        episodes: input.episodes.len(),
    });
    let shown = SeriesPage { title: page(title, names, locale), seasons: brief.collect() };
    let own = keys_of(title).into_iter().chain([keys::series(&title.id)]);
    document(&shown, keys::of_page(own, [], []))
}

#[derive(Serialize, ToSchema)]
pub struct SeasonPage<'a> {
    series: SeriesBrief<'a>,
    number: i64,
    name: &'a str,
    synopsis: Option<&'a str>,
    year: Option<i64>,
    episodes: Vec<EpisodeRow<'a>>,
}

#[derive(Serialize, ToSchema)]
pub struct SeriesBrief<'a> {
    id: &'a str,
    name: &'a str,
}

#[derive(Serialize, ToSchema)]
pub struct EpisodeRow<'a> {
    id: &'a str,
    number: i64,
    name: &'a str,
    synopsis: Option<&'a str>,
    runtime_min: Option<i64>,
    release_date: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    still: Option<&'a str>,
}

pub fn season(title: &Title, number: i64, season: &Record<SeasonInput>, locale: &Locale) -> Document {
    let input = &season.input;
    let mut episodes: Vec<&Episode> = input.episodes.iter().collect();
    episodes.sort_by_key(|episode| episode.number);
    let page = SeasonPage {
        series: SeriesBrief { id: &title.id, name: name_in(&title.input.name, &title.input.translations, locale) },
        number,
        name: name_in(&input.name, &input.translations, locale),
        synopsis: synopsis_in(input.synopsis.as_deref(), &input.translations, locale),
        year: input.year,
        episodes: episodes
            .into_iter()
            .map(|episode| EpisodeRow {
                id: &episode.id,
                number: episode.number,
                name: name_in(&episode.name, &episode.translations, locale),
                synopsis: synopsis_in(episode.synopsis.as_deref(), &episode.translations, locale),
                runtime_min: episode.runtime_min,
                release_date: episode.release_date.as_deref(),
                still: image_for(&episode.images, ImageKind::Still, locale),
            })
            .collect(),
    };
    document(&page, keys::of_page([keys::season(&season.id)], [title.id.as_str()], []))
}
