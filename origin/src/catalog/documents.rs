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

/// RFC 9213 and RFC 5861, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    max_age_s: i64,
    stale_while_revalidate_s: i64,
    stale_if_error_s: i64,
}

/// When a page changes by itself, by schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// The next moment anything in the catalogue does: until then the page is what it is.
    pub next_change_ms: Option<i64>,
    /// When something the page shows must no longer be seen.
    pub ends_at_ms: Option<i64>,
}

impl Schedule {
    pub fn of<'a>(next_change_ms: Option<i64>, shown: impl IntoIterator<Item = &'a Title>) -> Self {
        let ends = shown.into_iter().filter_map(|title| title.input.available_until);
        Self { next_change_ms, ends_at_ms: ends.map(jiff::Timestamp::as_millisecond).min() }
    }
}

impl Kind {
    /// The edge's policy. Purges make pages current; these times bound what a lost purge could cost, and how long the
    /// edge goes on alone while this service is down.
    fn policy(self) -> Policy {
        let (max_age_s, stale_while_revalidate_s, stale_if_error_s) = match self {
            Self::Home | Self::List => (300, 600, 86_400),
            Self::Title => (3_600, 3_600, 86_400),
            Self::Absent => (60, 0, 0),
        };
        Policy { max_age_s, stale_while_revalidate_s, stale_if_error_s }
    }

    /// `CDN-Cache-Control` of a page that is read now: fresh no longer than until the next change, and in no way longer
    /// than what it shows may be seen. A purge comes at that moment too; this holds without it.
    pub fn cdn_cache_control(self, schedule: Schedule, now_ms: i64) -> String {
        let Policy { max_age_s, stale_while_revalidate_s, stale_if_error_s } = self.policy();
        let left_s = |at_ms: Option<i64>| at_ms.map_or(i64::MAX, |at_ms| at_ms.saturating_sub(now_ms).max(0) / 1_000);
        let end_s = left_s(schedule.ends_at_ms);
        let max_age_s = max_age_s.min(left_s(schedule.next_change_ms)).min(end_s);
        let stale_s = |window_s: i64| window_s.min(end_s.saturating_sub(max_age_s));
        let mut policy = format!("max-age={max_age_s}");
        for (name, window_s) in [
            ("stale-while-revalidate", stale_s(stale_while_revalidate_s)),
            ("stale-if-error", stale_s(stale_if_error_s)),
        ] {
            if window_s > 0 {
                policy.push_str(&format!(", {name}={window_s}"));
            }
        }
        policy
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_fresh_until_the_next_change_and_never_outlives_what_it_shows() {
        let at = |next_change_ms, ends_at_ms| {
            Kind::Home.cdn_cache_control(Schedule { next_change_ms, ends_at_ms }, 1_000_000)
        };
        assert_eq!(at(None, None), "max-age=300, stale-while-revalidate=600, stale-if-error=86400");
        assert_eq!(at(Some(1_009_999), None), "max-age=9, stale-while-revalidate=600, stale-if-error=86400");
        assert_eq!(at(Some(1_009_999), Some(1_030_000)), "max-age=9, stale-while-revalidate=21, stale-if-error=21");
        assert_eq!(at(Some(1_009_999), Some(1_009_999)), "max-age=9");
        assert_eq!(at(None, Some(1_000_400)), "max-age=0");
        assert_eq!(at(None, Some(999_000)), "max-age=0", "overdue");
    }
}
