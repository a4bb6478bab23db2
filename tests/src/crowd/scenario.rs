//! Who the viewers are and what they want next: drawn from the seed, the same for the same seed. Titles are wanted by Zipf's
//! law, home is what everybody begins with, and nobody asks for what no page has a link to.
use fastrand::Rng;
use hyper::Method;

/// Where viewers are and what they read, of a hundred: country, and `Accept-Language` as their browser sends it.
const PLACES: [(u32, &str, &str); 8] = [
    (33, "DE", "de-DE,de;q=0.9,en;q=0.8"),
    (4, "DE", "en-GB,en;q=0.9"),
    (17, "FR", "fr-FR,fr;q=0.9,en;q=0.7"),
    (3, "FR", "en-US,en;q=0.9"),
    (21, "GB", "en-GB,en;q=0.9"),
    (14, "US", "en-US,en;q=0.9"),
    (5, "IT", "it-IT,it;q=0.9,en;q=0.6"),
    (3, "AT", "de-AT,de;q=0.9"),
];
pub const REGIONS: &str = "DE,FR,GB,US";
pub const LOCALES: &str = "en,de,fr";

/// Of a thousand requests, so many are for each kind of page.
const PAGES: [(u32, Page); 9] = [
    (470, Page::Home),
    (270, Page::Title),
    (80, Page::Catalog),
    (50, Page::Similar),
    (40, Page::Search),
    (30, Page::Series),
    (30, Page::Season),
    (20, Page::Genres),
    (10, Page::Collection),
];
/// After a title's page, the page of somebody who is named there; after a part of a list, the next part. Of a hundred.
const TO_PERSON: u32 = 3;
const TO_NEXT: u32 = 35;
/// Of a hundred requests of a viewer who is logged in, so many are about what is that viewer's own.
const OWN: u32 = 5;

const GENRES: [&str; 18] = [
    "drama",
    "comedy",
    "action",
    "thriller",
    "crime",
    "science-fiction",
    "romance",
    "adventure",
    "horror",
    "fantasy",
    "animation",
    "documentary",
    "mystery",
    "family",
    "war",
    "history",
    "music",
    "western",
];
const SORTS: [&str; 4] = ["", "-rating", "-added", "-year"];
/// What is typed: words of titles.
const TYPED: [&str; 24] = [
    "river",
    "city",
    "silent",
    "garden",
    "winter",
    "golden city",
    "mountain",
    "empire",
    "lost",
    "shadow",
    "mirror",
    "voyage",
    "hidden letter",
    "orchard",
    "station",
    "island",
    "burning signal",
    "horizon",
    "kingdom",
    "bridge",
    "forest",
    "stranger",
    "machine",
    "highway",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Page {
    Home,
    Title,
    Catalog,
    Similar,
    Search,
    Series,
    Season,
    Genres,
    Collection,
    Person,
    /// What is a viewer's own.
    Own,
    /// Progress, watch-list.
    OwnWrite,
}

impl Page {
    pub fn name(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Title => "title",
            Self::Catalog => "catalogue",
            Self::Similar => "similar",
            Self::Search => "search",
            Self::Series => "series",
            Self::Season => "season",
            Self::Genres => "genres",
            Self::Collection => "collection",
            Self::Person => "person",
            Self::Own => "a viewer's own",
            Self::OwnWrite => "a viewer's writes",
        }
    }
}

/// The n-th of some, the first ones far more often: its chance is in proportion to 1/(n+1).
#[derive(Clone, Debug)]
pub struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    pub fn new(count: u64) -> Self {
        let mut sum = 0.0;
        let add = |n: u64| {
            sum += 1.0 / (n as f64 + 1.0);
            sum
        };
        Self { sums: (0..count.max(1)).map(add).collect() }
    }

    pub fn draw(&self, rng: &mut Rng) -> u64 {
        let at = rng.f64() * self.sums.last().copied().unwrap_or_default();
        let n = self.sums.partition_point(|sum| *sum < at).min(self.sums.len() - 1);
        u64::try_from(n).unwrap_or(0)
    }
}

/// How large the catalogue is, as the generator made it.
#[derive(Clone, Debug)]
pub struct Catalogue {
    pub titles: u64,
    popular: Zipf,
    series: Zipf,
    collections: Zipf,
    genres: Zipf,
    typed: Zipf,
}

impl Catalogue {
    pub fn new(titles: u64) -> Self {
        Self {
            titles,
            popular: Zipf::new(titles),
            series: Zipf::new(titles / 10),
            collections: Zipf::new(titles / 100),
            genres: Zipf::new(GENRES.len() as u64),
            typed: Zipf::new(TYPED.len() as u64),
        }
    }

    pub fn title(&self, rng: &mut Rng) -> u64 {
        self.popular.draw(rng)
    }

    /// Every page that is linked without following others, most wanted first.
    pub fn pages(&self) -> Vec<Wish> {
        let of = |page, target: String| Wish::get(page, target);
        let mut pages = vec![of(Page::Home, "/v1/home".into()), of(Page::Genres, "/v1/genres".into())];
        for genre in std::iter::once(None).chain(GENRES.map(Some)) {
            pages.extend(SORTS.map(|sort| of(Page::Catalog, catalog(genre, sort))));
        }
        pages.extend(TYPED.map(|typed| of(Page::Search, search(typed))));
        for n in 0..self.titles {
            pages.push(of(Page::Title, format!("/v1/titles/title-{n}")));
            pages.push(of(Page::Similar, format!("/v1/titles/title-{n}/similar")));
            if n % 10 == 9 {
                pages.push(of(Page::Series, format!("/v1/series/title-{n}")));
                pages.push(of(Page::Season, format!("/v1/series/title-{n}/seasons/1")));
            }
        }
        let collections = 0..self.titles / 100;
        pages.extend(collections.map(|n| of(Page::Collection, format!("/v1/collections/collection-{n}"))));
        pages
    }
}

fn catalog(genre: Option<&str>, sort: &str) -> String {
    let genre = genre.map_or_else(String::new, |genre| format!("genre={genre}"));
    let sort = if sort.is_empty() { String::new() } else { format!("sort={sort}") };
    let query: Vec<String> = [genre, sort].into_iter().filter(|part| !part.is_empty()).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("/v1/catalog{mark}{}", query.join("&"))
}

fn search(typed: &str) -> String {
    format!("/v1/search?q={}", typed.replace(' ', "%20"))
}

#[derive(Clone, Debug)]
pub struct Wish {
    pub page: Page,
    pub method: Method,
    pub target: String,
    pub body: Option<String>,
}

impl Wish {
    fn get(page: Page, target: String) -> Self {
        Self { page, method: Method::GET, target, body: None }
    }
}

/// Country, and `Accept-Language`.
pub type Place = (&'static str, &'static str);

/// One of [`PLACES`].
pub fn place(rng: &mut Rng) -> Place {
    let mut at = rng.u32(0..100);
    for (weight, country, language) in PLACES {
        match at.checked_sub(weight) {
            Some(rest) => at = rest,
            None => return (country, language),
        }
    }
    ("DE", "de")
}

/// Every place once, for those who fill the caches beforehand.
pub fn places() -> impl Iterator<Item = Place> {
    PLACES.into_iter().map(|(_, country, language)| (country, language))
}

/// What a viewer wants who follows no link.
pub fn next(rng: &mut Rng, catalogue: &Catalogue, is_logged_in: bool) -> Wish {
    if is_logged_in && rng.u32(0..100) < OWN {
        return own(rng, catalogue);
    }
    let mut at = rng.u32(0..1000);
    let mut page = Page::Home;
    for (weight, one) in PAGES {
        match at.checked_sub(weight) {
            Some(rest) => at = rest,
            None => {
                page = one;
                break;
            }
        }
    }
    let series = |rng: &mut Rng| catalogue.series.draw(rng) * 10 + 9;
    let target = match page {
        Page::Title => format!("/v1/titles/title-{}", catalogue.title(rng)),
        Page::Similar => format!("/v1/titles/title-{}/similar", catalogue.title(rng)),
        Page::Series => format!("/v1/series/title-{}", series(rng)),
        Page::Season => format!("/v1/series/title-{}/seasons/1", series(rng)),
        Page::Collection => format!("/v1/collections/collection-{}", catalogue.collections.draw(rng)),
        Page::Genres => "/v1/genres".to_string(),
        Page::Search => search(TYPED[usize::try_from(catalogue.typed.draw(rng)).unwrap_or(0)]),
        Page::Catalog => {
            let genre = GENRES[usize::try_from(catalogue.genres.draw(rng)).unwrap_or(0)];
            catalog((rng.u32(0..10) < 7).then_some(genre), SORTS[rng.usize(0..SORTS.len())])
        }
        _ => "/v1/home".to_string(),
    };
    Wish::get(page, target)
}

fn own(rng: &mut Rng, catalogue: &Catalogue) -> Wish {
    let title = format!("title-{}", catalogue.title(rng));
    let write = |method, target, body: Option<String>| Wish { page: Page::OwnWrite, method, target, body };
    match rng.u32(0..20) {
        0..9 => Wish::get(Page::Own, "/v1/me/continue-watching".into()),
        9..13 => Wish::get(Page::Own, "/v1/me/watch-list".into()),
        13..14 => Wish::get(Page::Own, "/v1/me".into()),
        14..18 => {
            let body = format!(r#"{{"position_s":{},"duration_s":5400}}"#, rng.u32(40..5000));
            write(Method::PUT, format!("/v1/me/progress/{title}"), Some(body))
        }
        18..19 => write(Method::PUT, format!("/v1/me/watch-list/{title}"), None),
        _ => write(Method::DELETE, format!("/v1/me/watch-list/{title}"), None),
    }
}

/// Where an answer leads to, if its reader follows it.
pub fn follow(rng: &mut Rng, wish: &Wish, answer: impl FnOnce() -> serde_json::Value) -> Option<Wish> {
    let chance = rng.u32(0..100);
    match wish.page {
        Page::Title if chance < TO_PERSON => {
            let document = answer();
            let people: Vec<&str> = people(&document).collect();
            let id = people.get(rng.usize(0..people.len().max(1)))?;
            Some(Wish::get(Page::Person, person(id)))
        }
        Page::Catalog if chance < TO_NEXT => next_part(wish, &answer()),
        _ => None,
    }
}

fn people(title: &serde_json::Value) -> impl Iterator<Item = &str> {
    title["people"].as_array().into_iter().flatten().filter_map(|person| person["id"].as_str())
}

fn person(id: &str) -> String {
    format!("/v1/people/{id}")
}

fn next_part(wish: &Wish, list: &serde_json::Value) -> Option<Wish> {
    let cursor = list["next_cursor"].as_str()?;
    let first = wish.target.split("cursor=").next()?.trim_end_matches(['&', '?']);
    let mark = if first.contains('?') { '&' } else { '?' };
    Some(Wish::get(Page::Catalog, format!("{first}{mark}cursor={cursor}")))
}

/// Everywhere an answer leads to.
pub fn links(wish: &Wish, answer: impl FnOnce() -> serde_json::Value) -> Vec<Wish> {
    match wish.page {
        Page::Title => people(&answer()).map(|id| Wish::get(Page::Person, person(id))).collect(),
        Page::Catalog => next_part(wish, &answer()).into_iter().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_is_wanted_most_and_the_last_still_sometimes() {
        let (zipf, mut rng) = (Zipf::new(1_000), Rng::with_seed(1));
        let mut counts = vec![0; 1_000];
        (0..1_000_000).for_each(|_| counts[usize::try_from(zipf.draw(&mut rng)).unwrap()] += 1);
        let share = f64::from(counts[0]) / f64::from(counts[9]);
        assert!((8.0..12.0).contains(&share), "{share}");
        assert!(counts[999] > 0);
    }

    #[test]
    fn the_same_seed_wants_the_same_and_weights_are_whole() {
        assert_eq!(PAGES.iter().map(|(weight, _)| weight).sum::<u32>(), 1000);
        assert_eq!(PLACES.iter().map(|(weight, ..)| weight).sum::<u32>(), 100);
        let day = |seed| {
            let (mut rng, catalogue) = (Rng::with_seed(seed), Catalogue::new(100));
            (0..200).map(|_| next(&mut rng, &catalogue, true).target).collect::<Vec<_>>()
        };
        assert_eq!(day(1), day(1));
        assert_ne!(day(1), day(2));
    }

    #[test]
    fn the_next_part_of_a_list_keeps_its_filter_and_replaces_the_cursor() {
        let mut wish = Wish::get(Page::Catalog, catalog(Some("war"), "-year"));
        let mut rng = Rng::with_seed(1);
        for cursor in ["one", "two"] {
            wish = (0..100).find_map(|_| follow(&mut rng, &wish, || json!({"next_cursor": cursor}))).unwrap();
            assert_eq!(wish.target, format!("/v1/catalog?genre=war&sort=-year&cursor={cursor}"));
        }
        let all = Wish::get(Page::Catalog, catalog(None, ""));
        let next = (0..100).find_map(|_| follow(&mut rng, &all, || json!({"next_cursor": "c"}))).unwrap();
        assert_eq!(next.target, "/v1/catalog?cursor=c");
    }
}
