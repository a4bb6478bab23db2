//! The public documents: what viewers' apps read. Each is JSON with the surrogate keys of everything it shows.
use crate::catalog::keys;
use crate::catalog::model::{Rail, Title, slug};
use kv_schemas::SurrogateKey;
use serde::Serialize;

/// A page ready to be sent.
#[derive(Clone, Debug)]
pub struct Document {
    pub body: String,
    pub keys: Vec<SurrogateKey>,
    pub kind: Kind,
}

/// What kind of page it is, which decides how long it may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Home,
    List,
    Title,
    /// Something that is not there, kept so that asking for it again and again stays cheap; purged when it appears.
    Absent,
}

impl Kind {
    /// RFC 9213: the edge's policy. Purges make pages current; these times bound what a lost purge could cost, and
    /// how long the edge goes on alone while this service is down.
    pub fn cdn_cache_control(self) -> &'static str {
        match self {
            Self::Home => "max-age=300, stale-while-revalidate=600, stale-if-error=86400",
            Self::List => "max-age=300, stale-while-revalidate=600, stale-if-error=86400",
            Self::Title => "max-age=3600, stale-while-revalidate=3600, stale-if-error=86400",
            Self::Absent => "max-age=60",
        }
    }

    /// Browsers ask each time and are told 304: the edge is near, and a purge does not reach browsers.
    pub fn cache_control(self) -> &'static str {
        "public, max-age=0, must-revalidate"
    }
}

#[derive(Serialize)]
struct Reference<'a> {
    slug: String,
    name: &'a str,
}

/// A title in a list.
#[derive(Serialize)]
struct Item<'a> {
    id: &'a str,
    name: &'a str,
    year: Option<i64>,
    maturity: Option<&'a str>,
    rating: Option<f64>,
    genres: Vec<String>,
}

fn item(title: &Title) -> Item<'_> {
    Item {
        id: &title.id,
        name: &title.input.name,
        year: title.input.year,
        maturity: title.input.maturity.as_deref(),
        rating: title.input.rating,
        genres: title.input.genres.iter().map(|name| slug(name)).collect(),
    }
}

fn document<T: Serialize>(value: &T, keys: impl IntoIterator<Item = Option<SurrogateKey>>, kind: Kind) -> Document {
    // Plain structs of text and numbers always serialise.
    let body = serde_json::to_string(value).unwrap_or_default();
    let mut keys: Vec<_> = keys.into_iter().flatten().collect();
    keys.sort();
    keys.dedup();
    Document { body, keys, kind }
}

pub fn home(rails: &[(Rail, Vec<Title>)]) -> Document {
    #[derive(Serialize)]
    struct Home<'a> {
        rails: Vec<Row<'a>>,
    }
    #[derive(Serialize)]
    struct Row<'a> {
        id: &'a str,
        title: &'a str,
        items: Vec<Item<'a>>,
    }
    let rows = rails.iter().map(|(rail, titles)| Row {
        id: &rail.id,
        title: &rail.title,
        items: titles.iter().map(item).collect(),
    });
    let shown = rails.iter().flat_map(|(rail, titles)| {
        std::iter::once(keys::rail(&rail.id)).chain(titles.iter().map(|title| keys::title(&title.id)))
    });
    document(&Home { rails: rows.collect() }, std::iter::once(keys::home()).chain(shown), Kind::Home)
}

/// A page of the catalogue. `genre`: its slug, when the page is filtered.
pub fn catalog(titles: &[Title], genre: Option<&str>, next_cursor: Option<String>) -> Document {
    #[derive(Serialize)]
    struct Page<'a> {
        items: Vec<Item<'a>>,
        next_cursor: Option<String>,
    }
    let list = genre.map_or_else(keys::catalog, keys::genre);
    let shown = titles.iter().map(|title| keys::title(&title.id));
    let page = Page { items: titles.iter().map(item).collect(), next_cursor };
    document(&page, std::iter::once(list).chain(shown), Kind::List)
}

pub fn genres(counted: &[(String, String, i64)]) -> Document {
    #[derive(Serialize)]
    struct Genres<'a> {
        genres: Vec<Counted<'a>>,
    }
    #[derive(Serialize)]
    struct Counted<'a> {
        slug: &'a str,
        name: &'a str,
        titles: i64,
    }
    let genres = counted.iter().map(|(slug, name, titles)| Counted { slug, name, titles: *titles });
    document(&Genres { genres: genres.collect() }, [keys::genres()], Kind::List)
}

pub fn title(title: &Title) -> Document {
    #[derive(Serialize)]
    struct Person<'a> {
        slug: String,
        name: &'a str,
        role: &'a str,
    }
    #[derive(Serialize)]
    struct Page<'a> {
        id: &'a str,
        kind: &'static str,
        name: &'a str,
        year: Option<i64>,
        release_date: Option<&'a str>,
        synopsis: Option<&'a str>,
        maturity: Option<&'a str>,
        runtime_min: Option<i64>,
        rating: Option<f64>,
        votes: Option<i64>,
        distributor: Option<&'a str>,
        genres: Vec<Reference<'a>>,
        people: Vec<Person<'a>>,
    }
    let input = &title.input;
    let page = Page {
        id: &title.id,
        kind: "film",
        name: &input.name,
        year: input.year,
        release_date: input.release_date.as_deref(),
        synopsis: input.synopsis.as_deref(),
        maturity: input.maturity.as_deref(),
        runtime_min: input.runtime_min,
        rating: input.rating,
        votes: input.votes,
        distributor: input.distributor.as_deref(),
        genres: input.genres.iter().map(|name| Reference { slug: slug(name), name }).collect(),
        people: input
            .people
            .iter()
            .map(|credit| Person { slug: slug(&credit.name), name: &credit.name, role: &credit.role })
            .collect(),
    };
    document(&page, [keys::title(&title.id)], Kind::Title)
}
