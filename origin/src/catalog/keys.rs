//! Surrogate keys: one function per kind of key, and one per kind of thing that says which keys a change purges.
//!
//! A page carries a key for each thing it says something of. There are two for a title: `title:` for its own pages, which
//! say all, and `card:` for pages that show it in short; so a new synopsis leaves lists alone. Lists have a key for who is
//! in them, and one for each order that a change of one member can alter.
use crate::catalog::model::{
    CollectionInput, GenreInput, ImageKind, PersonInput, Rail, RailInput, Record, SeasonInput, SortBy, Title,
    TitleInput, slug,
};
use kv_schemas::SurrogateKey;
use kv_schemas::surrogate_key::KEYS_BYTES_MAX;
use kv_schemas::viewer::Region;
use std::collections::{BTreeMap, BTreeSet};

fn key(text: String) -> Option<SurrogateKey> {
    SurrogateKey::new(text).ok()
}

/// A title's own pages, and their 404 before it exists.
pub fn title(id: &str) -> Option<SurrogateKey> {
    key(format!("title:{id}"))
}

/// Every page that shows the title in short.
pub fn card(id: &str) -> Option<SurrogateKey> {
    key(format!("card:{id}"))
}

/// Pages that name a title without showing it, since it is not there or not for this viewer.
pub fn unseen(id: &str) -> Option<SurrogateKey> {
    key(format!("unseen:{id}"))
}

/// One of 256 keys in place of `card:` and `unseen:`, for pages that show more titles than their keys have room for.
fn crowd(id: &str) -> Option<SurrogateKey> {
    key(format!("crowd:{:02x}", kv_schemas::surrogate_key::hash(id) & 0xff))
}

pub fn rail(id: &str) -> Option<SurrogateKey> {
    key(format!("rail:{id}"))
}

/// Home pages: which rails they have, in which order.
pub fn home() -> Option<SurrogateKey> {
    key("home".into())
}

/// Those of one region.
pub fn home_in(region: Region) -> Option<SurrogateKey> {
    key(format!("home:{region}"))
}

/// Every page of the unfiltered catalogue.
pub fn catalog() -> Option<SurrogateKey> {
    key("catalog".into())
}

/// Every page of a genre's list, and its 404 before there is one.
pub fn genre(slug: &str) -> Option<SurrogateKey> {
    key(format!("genre:{slug}"))
}

/// Every page of a list; `genre`: its slug, or empty for the whole catalogue.
pub fn list(genre_slug: &str) -> Option<SurrogateKey> {
    if genre_slug.is_empty() { catalog() } else { genre(genre_slug) }
}

/// Pages that reach over much of a list in one order, or to an end of it that lies open.
pub fn order(genre_slug: &str, by: SortBy) -> Option<SurrogateKey> {
    let list = list(genre_slug)?;
    key(format!("{list}:by-{}", by.as_str()))
}

/// A value that a list is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum Place<'a> {
    /// `sort_name`.
    Name(&'a str),
    /// 0 without a year.
    Year(i64),
    /// 0 without a rating.
    Rating(f64),
    Added,
}

impl<'a> Place<'a> {
    pub fn of(by: SortBy, sort_name: &'a str, year: Option<i64>, rating: Option<f64>) -> Self {
        match by {
            SortBy::Name => Self::Name(sort_name),
            SortBy::Year => Self::Year(year.unwrap_or(0)),
            SortBy::Rating => Self::Rating(rating.unwrap_or(0.0)),
            SortBy::Added => Self::Added,
        }
    }
}

/// Of the stretches that an order is divided into, the last.
const NAMES: u16 = 729;
const YEARS: std::ops::RangeInclusive<i64> = 1900..=2050;
const RATINGS: u16 = 100;
/// A page that reaches over more than so many has the key of the order.
const STRETCHES_MAX: u16 = 40;

/// The number of the stretch that a place lies in: where one comes before another, its number is no higher. Names by their
/// first two letters, years one by one, ratings by tenths. When titles were added is not divided: new ones are at its end.
fn stretch(place: Place<'_>) -> Option<u16> {
    // Names are ordered by their bytes.
    let letter = |byte: Option<&u8>| match byte {
        Some(byte @ b'a'..=b'z') => u16::from(byte - b'a') + 1,
        Some(byte) if *byte > b'z' => 27,
        Some(_) | None => 0,
    };
    match place {
        Place::Name(name) => {
            let bytes = name.as_bytes();
            Some(match letter(bytes.first()) {
                0 => 0,
                27 => NAMES,
                first => (first - 1) * 28 + letter(bytes.get(1)) + 1,
            })
        }
        Place::Year(year) => u16::try_from(year.clamp(*YEARS.start(), *YEARS.end()) - YEARS.start()).ok(),
        // Of what is within these bounds.
        Place::Rating(rating) => Some((rating * 10.0).clamp(0.0, f64::from(RATINGS)) as u16),
        Place::Added => None,
    }
}

fn last_stretch(by: SortBy) -> Option<u16> {
    match by {
        SortBy::Name => Some(NAMES),
        SortBy::Year => u16::try_from(YEARS.end() - YEARS.start()).ok(),
        SortBy::Rating => Some(RATINGS),
        SortBy::Added => None,
    }
}

fn stretch_key(genre_slug: &str, by: SortBy, number: u16) -> Option<SurrogateKey> {
    key(format!("{}:{number}", order(genre_slug, by)?))
}

/// The keys of a page of a list: whatever comes, goes or moves between these two places, lower one first, may change it.
/// Without a place it reaches to that end of the order.
pub fn of_span(genre_slug: &str, by: SortBy, span: [Option<Place<'_>>; 2]) -> Vec<Option<SurrogateKey>> {
    let [low, high] = span;
    let low = low.map_or(last_stretch(by).map(|_| 0), stretch);
    let high = high.map_or_else(|| last_stretch(by), stretch);
    let stretches = low.zip(high).filter(|(low, high)| high.saturating_sub(*low) < STRETCHES_MAX);
    let keys = match stretches {
        Some((low, high)) => (low..=high).map(|number| stretch_key(genre_slug, by, number)).collect(),
        None => vec![order(genre_slug, by)],
    };
    std::iter::once(list(genre_slug)).chain(keys).collect()
}

/// What a title's coming, going or moving in an order of a list purges.
fn of_places(genre_slug: &str, by: SortBy, inputs: &[&TitleInput]) -> Vec<Option<SurrogateKey>> {
    let place = |input: &&TitleInput| stretch(Place::of(by, &input.sort_name, input.year, input.rating));
    let stretches = inputs.iter().filter_map(place).map(|number| stretch_key(genre_slug, by, number));
    stretches.chain([order(genre_slug, by)]).collect()
}

/// Who is in the lists of one year.
pub fn year(year: i64) -> Option<SurrogateKey> {
    key(format!("year:{year}"))
}

/// The list of genres with their counts.
pub fn genres() -> Option<SurrogateKey> {
    key("genres".into())
}

/// Pages that say a genre's name.
pub fn genre_name(slug: &str) -> Option<SurrogateKey> {
    key(format!("genre-name:{slug}"))
}

/// A person's own page.
pub fn person(id: &str) -> Option<SurrogateKey> {
    key(format!("person:{id}"))
}

/// Pages that say a person's name.
pub fn person_name(id: &str) -> Option<SurrogateKey> {
    key(format!("person-name:{id}"))
}

pub fn collection(id: &str) -> Option<SurrogateKey> {
    key(format!("collection:{id}"))
}

/// Which seasons a series has.
pub fn series(id: &str) -> Option<SurrogateKey> {
    key(format!("series:{id}"))
}

pub fn season(record_id: &str) -> Option<SurrogateKey> {
    key(format!("season:{record_id}"))
}

/// Which titles are like this one.
pub fn similar(id: &str) -> Option<SurrogateKey> {
    key(format!("similar:{id}"))
}

/// Every page of every search.
pub fn search() -> Option<SurrogateKey> {
    key("search".into())
}

/// Searches that find so little that words near those typed were tried: any text may be found by them.
pub fn search_far() -> Option<SurrogateKey> {
    key("search-far".into())
}

/// Letters by which searches and texts are told apart.
const BEGINNING: usize = 3;
/// More beginnings than this, and all searches are purged.
const BEGINNINGS_MAX: usize = 200;

/// Searches for a word that begins so.
fn search_beginning(word: &str) -> Option<SurrogateKey> {
    key(format!("search:{}", word.get(..BEGINNING)?))
}

/// The keys of a search's pages besides the cards they show. Only a text that has all the words that were typed is found, the
/// last as a beginning; so a change of texts without one of them changes nothing, and the longest tells most. `far`: other
/// words were tried as well.
pub fn of_search(words: &[String], far: bool) -> [Option<SurrogateKey>; 2] {
    let longest = words.iter().max_by_key(|word| word.len()).filter(|_| !far);
    [search(), longest.and_then(|word| search_beginning(word)).or_else(search_far)]
}

/// What may find one of these texts.
fn finding(texts: [Option<&TitleInput>; 2]) -> Vec<Option<SurrogateKey>> {
    let texts: Vec<String> = texts.into_iter().flatten().map(search_text).collect();
    let words = texts.iter().flat_map(|text| text.split([' ', '\n']));
    let beginnings: BTreeSet<_> = words.filter_map(search_beginning).collect();
    if beginnings.len() > BEGINNINGS_MAX {
        return vec![search()];
    }
    beginnings.into_iter().map(Some).chain([search_far()]).collect()
}

/// The keys of a page: `own`, and one for each title it shows or names in vain. If they are more than an answer's field
/// may hold, titles are named in crowds, which purges too much but never too little.
pub fn of_page<'a>(
    own: impl IntoIterator<Item = Option<SurrogateKey>>,
    shown: impl IntoIterator<Item = &'a str>,
    named_in_vain: impl IntoIterator<Item = &'a str>,
) -> Vec<SurrogateKey> {
    let own: BTreeSet<_> = own.into_iter().flatten().collect();
    let shown: BTreeSet<&str> = shown.into_iter().collect();
    let vain: BTreeSet<&str> = named_in_vain.into_iter().filter(|id| !shown.contains(id)).collect();
    let titles = shown.iter().filter_map(|id| card(id)).chain(vain.iter().filter_map(|id| unseen(id)));
    let all: Vec<_> = own.iter().cloned().chain(titles).collect();
    let bytes = |keys: &[SurrogateKey]| keys.iter().map(|key| key.as_str().len().saturating_add(1)).sum::<usize>();
    if bytes(&all) <= KEYS_BYTES_MAX {
        return all;
    }
    let crowds: BTreeSet<_> = shown.iter().chain(&vain).filter_map(|id| crowd(id)).collect();
    own.into_iter().chain(crowds).collect()
}

/// The words a title is found by.
pub fn search_text(input: &TitleInput) -> String {
    let names = input.translations.values().filter_map(|said| said.name.as_deref());
    let people = input.people.iter().map(|credit| credit.name.as_str());
    let all = std::iter::once(input.name.as_str()).chain(names).chain(people);
    all.map(|text| slug::slugify(text).replace('-', " ")).collect::<Vec<_>>().join("\n")
}

/// What of a title its card shows.
fn card_of(input: &TitleInput) -> impl PartialEq {
    let names: BTreeMap<_, _> =
        input.translations.iter().filter_map(|(l, said)| Some((l.clone(), said.name.clone()?))).collect();
    let posters: Vec<_> = input.images.iter().filter(|image| image.kind == ImageKind::Poster).cloned().collect();
    let genres: Vec<_> = input.genres.iter().map(|name| slug(name)).collect();
    let rating = input.rating.map(f64::to_bits);
    (input.kind, input.name.clone(), names, input.year, input.maturity.clone(), rating, genres, posters)
}

/// What a change of a title purges: each page that shows it, and each list whose members or order change.
pub fn of_title(before: Option<&Title>, after: Option<&Title>) -> Vec<SurrogateKey> {
    let seen = |title: Option<&Title>| title.map(|title| title.shown.clone()).unwrap_or_default();
    let (was, is) = (seen(before), seen(after));
    let lists = |title: Option<&Title>, seen: bool| -> BTreeSet<String> {
        let names = title.filter(|_| seen).map(|title| title.input.genres.iter().map(|name| slug(name)).collect());
        names.unwrap_or_default()
    };
    let people = |title: Option<&Title>, seen: bool| {
        let mut by_person: BTreeMap<String, Vec<(String, Option<String>)>> = BTreeMap::new();
        for credit in title.filter(|_| seen).map(|title| title.input.people.as_slice()).unwrap_or_default() {
            let part = (credit.role.clone(), credit.character.clone());
            by_person.entry(credit.id.clone()).or_default().push(part);
        }
        by_person
    };
    let id = after.or(before).map(|title| title.id.as_str()).unwrap_or_default();
    let mut keys = vec![title(id)];
    let inputs = before.map(|title| &title.input).zip(after.map(|title| &title.input));
    // Another age class is for some viewers what appearing or going is.
    let appears = was.changes_to(&is) || inputs.is_some_and(|(a, b)| a.age() != b.age() && is.anywhere());
    let (old, new) = (lists(before, was.anywhere()), lists(after, is.anywhere()));
    let (had, has) = (people(before, was.anywhere()), people(after, is.anywhere()));
    let (left, joined) = (old.difference(&new), new.difference(&old));
    let changed: Vec<&String> = left.chain(joined).collect();
    if was.anywhere() != is.anywhere() || !changed.is_empty() {
        keys.push(genres());
    }
    let both: Vec<&TitleInput> = [before, after].into_iter().flatten().map(|title| &title.input).collect();
    let in_all_orders =
        |list: &str| SortBy::ALL.into_iter().flat_map(|by| of_places(list, by, &both)).collect::<Vec<_>>();
    keys.extend(changed.iter().flat_map(|name| in_all_orders(name)));
    if appears {
        keys.extend([card(id), unseen(id), crowd(id)]);
        keys.extend(finding([before, after].map(|title| title.map(|title| &title.input))));
        keys.extend(in_all_orders(""));
        keys.extend(old.union(&new).flat_map(|name| in_all_orders(name)));
        keys.extend(had.keys().chain(has.keys()).map(|id| person(id)));
    } else if let Some((a, b)) = inputs.filter(|_| is.anywhere()) {
        // Pages that show it are kept no longer than it may be seen, by what was known when they were made.
        let ends_sooner = b.ends_sooner_than(&is, a, &was);
        if card_of(a) != card_of(b) || ends_sooner {
            keys.extend([card(id), crowd(id)]);
        }
        if ends_sooner {
            // So is what is said of it without showing it: what is like it.
            keys.push(unseen(id));
        }
        let moved = [
            (SortBy::Name, a.sort_name != b.sort_name),
            (SortBy::Year, a.year != b.year),
            (SortBy::Rating, a.rating != b.rating),
        ];
        for (by, _) in moved.into_iter().filter(|(_, moved)| *moved) {
            let lists = std::iter::once("").chain(new.iter().map(String::as_str));
            keys.extend(lists.flat_map(|list| of_places(list, by, &[a, b])));
        }
        if a.year != b.year {
            keys.extend([a.year, b.year].into_iter().flatten().map(year));
            // Their pages show the newest titles, as many as there is room for: this one may come into that or leave it.
            keys.extend(had.keys().chain(has.keys()).map(|id| person(id)));
        }
        let parts = had.keys().chain(has.keys()).filter(|id| had.get(*id) != has.get(*id));
        keys.extend(parts.map(|id| person(id)));
        // Votes settle which of two equal finds comes first.
        if search_text(a) != search_text(b) || a.votes != b.votes {
            keys.extend(finding([Some(a), Some(b)]));
        }
    }
    distinct(keys)
}

pub fn of_person(
    id: &str,
    before: Option<&Record<PersonInput>>,
    after: Option<&Record<PersonInput>>,
) -> Vec<SurrogateKey> {
    let name = |record: Option<&Record<PersonInput>>| record.map(|r| (r.input.name.clone(), r.deleted_at_ms.is_some()));
    let translated = |record: Option<&Record<PersonInput>>| -> BTreeMap<_, _> {
        let said = record.into_iter().flat_map(|record| &record.input.translations);
        said.filter_map(|(locale, said)| Some((locale.clone(), said.name.clone()?))).collect()
    };
    let mut keys = vec![person(id)];
    if name(before) != name(after) {
        keys.extend([person_name(id), search()]);
    } else if translated(before) != translated(after) {
        // Titles name their people in the viewer's language.
        keys.push(person_name(id));
    }
    distinct(keys)
}

pub fn of_genre(
    id: &str,
    before: Option<&Record<GenreInput>>,
    after: Option<&Record<GenreInput>>,
) -> Vec<SurrogateKey> {
    let is_there = |record: Option<&Record<GenreInput>>| record.is_some_and(|record| record.deleted_at_ms.is_none());
    let mut keys = vec![genres(), genre_name(id)];
    if is_there(before) != is_there(after) {
        keys.push(genre(id));
    }
    distinct(keys)
}

pub fn of_collection(
    id: &str,
    _: Option<&Record<CollectionInput>>,
    _: Option<&Record<CollectionInput>>,
) -> Vec<SurrogateKey> {
    distinct([collection(id)])
}

pub fn of_season(
    id: &str,
    before: Option<&Record<SeasonInput>>,
    after: Option<&Record<SeasonInput>>,
) -> Vec<SurrogateKey> {
    // What a series' page says of a season.
    let said = |record: Option<&Record<SeasonInput>>| {
        let there = record.filter(|record| record.deleted_at_ms.is_none())?;
        let names: BTreeMap<_, _> =
            there.input.translations.iter().filter_map(|(l, said)| Some((l.clone(), said.name.clone()?))).collect();
        Some((there.input.name.clone(), names, there.input.year, there.input.episodes.len()))
    };
    let mut keys = vec![season(id)];
    if said(before) != said(after) {
        keys.push(series(id.split('/').next().unwrap_or_default()));
    }
    distinct(keys)
}

/// A rail's own key, and the home pages it comes to, leaves, or stands in at another place.
pub fn of_rail(id: &str, before: Option<&Rail>, after: Option<&Rail>) -> Vec<SurrogateKey> {
    let place = |rail: Option<&Rail>| {
        let rail = rail.filter(|rail| rail.visible)?;
        let RailInput { position, regions, plans, maturity_from, maturity_to, .. } = rail.input.clone();
        Some((position, regions, plans, maturity_from, maturity_to))
    };
    let (was, is) = (place(before), place(after));
    let mut keys = vec![rail(id)];
    if was != is {
        for (_, regions, ..) in [&was, &is].into_iter().flatten() {
            keys.extend(regions.iter().map(|region| home_in(*region)));
            if regions.is_empty() {
                keys.push(home());
            }
        }
    }
    distinct(keys)
}

fn distinct(keys: impl IntoIterator<Item = Option<SurrogateKey>>) -> Vec<SurrogateKey> {
    let keys: BTreeSet<_> = keys.into_iter().flatten().collect();
    keys.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn title_with(fields: Value) -> Title {
        let mut value = json!({"name": "Heat", "genres": ["Drama"], "people": [{"name": "Ann", "role": "director"}]});
        crate::catalog::validate::merge_patch(&mut value, &fields);
        let input = crate::catalog::validate::title(&value).unwrap();
        let shown = input.shown_at(0);
        let visible = shown.anywhere();
        let (created_at_ms, updated_at_ms, deleted_at_ms) = (0, 0, None);
        Title { id: "heat".into(), version: 1, input, visible, shown, created_at_ms, updated_at_ms, deleted_at_ms }
    }

    fn keys(before: Option<&Title>, after: Option<&Title>) -> String {
        let keys = of_title(before, after);
        let keys = keys.iter().map(|key| key.as_str()).filter(|key| !key.starts_with("crowd:"));
        keys.collect::<Vec<_>>().join(" ")
    }

    const ALL: &str = "card:heat catalog:by-added catalog:by-name catalog:by-name:202 catalog:by-rating \
        catalog:by-rating:0 catalog:by-year catalog:by-year:0 genre:drama:by-added genre:drama:by-name \
        genre:drama:by-name:202 genre:drama:by-rating genre:drama:by-rating:0 genre:drama:by-year genre:drama:by-year:0 \
        genres person:ann search-far search:ann search:hea title:heat unseen:heat";

    #[test]
    fn what_only_the_titles_own_page_says_purges_that_alone() {
        let a = title_with(json!({}));
        for fields in [
            json!({"synopsis": "New"}),
            json!({"runtime_min": 3}),
            json!({"translations": {"de": {"synopsis": "Neu"}}}),
        ] {
            assert_eq!(keys(Some(&a), Some(&title_with(fields))), "title:heat");
        }
    }

    #[test]
    fn what_its_card_says_purges_where_it_is_shown_and_no_list_it_stays_in() {
        let a = title_with(json!({}));
        assert_eq!(
            keys(Some(&a), Some(&title_with(json!({"translations": {"de": {"name": "Hitze"}}})))),
            "card:heat search-far search:ann search:hea search:hit title:heat"
        );
        let poster = json!({"images": [{"kind": "poster", "url": "/media/x.jpg"}]});
        assert_eq!(keys(Some(&a), Some(&title_with(poster))), "card:heat title:heat");
    }

    #[test]
    fn appearing_vanishing_and_another_age_class_purge_every_list() {
        let (a, draft) = (title_with(json!({})), title_with(json!({"state": "draft"})));
        assert_eq!(keys(None, Some(&a)), ALL);
        assert_eq!(keys(Some(&a), None), ALL);
        assert_eq!(keys(Some(&draft), Some(&a)), ALL);
        let region = ALL.replace("genres ", "");
        assert_eq!(keys(Some(&a), Some(&title_with(json!({"maturity": "X"})))), region);
        assert_eq!(keys(Some(&a), Some(&title_with(json!({"regions": {"DE": {"blocked": true}}})))), region);
    }

    #[test]
    fn a_change_of_genre_purges_the_lists_it_leaves_and_joins() {
        let (a, b) = (title_with(json!({"genres": ["Drama", "War"]})), title_with(json!({"genres": ["War", "Crime"]})));
        let of = |list: &str| {
            format!(
                "{list}:by-added {list}:by-name {list}:by-name:202 {list}:by-rating {list}:by-rating:0 {list}:by-year \
                 {list}:by-year:0"
            )
        };
        let lists = [of("genre:crime"), of("genre:drama")].join(" ");
        assert_eq!(keys(Some(&a), Some(&b)), format!("card:heat {lists} genres title:heat"));
    }

    #[test]
    fn a_new_place_in_an_order_purges_both_places_of_the_lists_it_moves_in() {
        let a = title_with(json!({}));
        assert_eq!(
            keys(Some(&a), Some(&title_with(json!({"sort_name": "zeat"})))),
            "catalog:by-name catalog:by-name:202 catalog:by-name:706 genre:drama:by-name genre:drama:by-name:202 \
             genre:drama:by-name:706 title:heat"
        );
        assert_eq!(
            keys(Some(&a), Some(&title_with(json!({"rating": 3})))),
            "card:heat catalog:by-rating catalog:by-rating:0 catalog:by-rating:30 genre:drama:by-rating \
             genre:drama:by-rating:0 genre:drama:by-rating:30 title:heat"
        );
        assert_eq!(
            keys(Some(&a), Some(&title_with(json!({"year": 1999})))),
            "card:heat catalog:by-year catalog:by-year:0 catalog:by-year:99 genre:drama:by-year genre:drama:by-year:0 \
             genre:drama:by-year:99 person:ann title:heat year:1999"
        );
    }

    #[test]
    fn a_page_has_the_stretches_it_reaches_over_or_the_whole_order() {
        let of = |by, span| {
            let keys = of_span("drama", by, span).into_iter().flatten();
            keys.map(|key| key.to_string()).collect::<Vec<_>>().join(" ")
        };
        let name = |name| Some(Place::Name(name));
        assert_eq!(
            of(SortBy::Name, [name("ha"), name("hb zz")]),
            "genre:drama genre:drama:by-name:198 genre:drama:by-name:199"
        );
        assert_eq!(of(SortBy::Name, [name("heat"), name("z")]), "genre:drama genre:drama:by-name");
        assert_eq!(of(SortBy::Name, [name("é"), None]), "genre:drama genre:drama:by-name:729");
        let rating = |rating| Some(Place::Rating(rating));
        assert_eq!(
            of(SortBy::Rating, [rating(9.85), None]),
            "genre:drama genre:drama:by-rating:98 genre:drama:by-rating:99 genre:drama:by-rating:100"
        );
        assert_eq!(of(SortBy::Rating, [None, rating(5.0)]), "genre:drama genre:drama:by-rating");
        assert_eq!(of(SortBy::Year, [None, Some(Place::Year(0))]), "genre:drama genre:drama:by-year:0");
        assert_eq!(of(SortBy::Added, [None, Some(Place::Added)]), "genre:drama genre:drama:by-added");
    }

    #[test]
    fn stretches_are_in_the_order_of_what_lies_in_them() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let mut name = || {
                (0..rng.usize(..4))
                    .map(|_| rng.choice(["a", "b", "y", "z", "0", " ", "~", "é"]).unwrap())
                    .collect::<String>()
            };
            let names = [name(), name()];
            let years = [(); 2].map(|()| rng.i64(1850..2100));
            let ratings = [(); 2].map(|()| rng.f64() * 12.0 - 1.0);
            for (by, mut places) in [
                (SortBy::Name, names.each_ref().map(|name| Place::Name(name))),
                (SortBy::Year, years.map(Place::Year)),
                (SortBy::Rating, ratings.map(Place::Rating)),
            ] {
                places.sort_by(|a, b| a.partial_cmp(b).unwrap());
                let [low, high] = places.map(|place| stretch(place).unwrap());
                assert!(low <= high && high <= last_stretch(by).unwrap(), "{places:?}");
            }
        }
    }

    #[test]
    fn a_part_purges_the_page_of_its_person_alone() {
        let (a, b) = (title_with(json!({})), title_with(json!({"people": [{"name": "Ann", "role": "writer"}]})));
        assert_eq!(keys(Some(&a), Some(&b)), "person:ann title:heat");
    }

    #[test]
    fn a_draft_purges_nothing_but_its_own_absence() {
        let a = title_with(json!({"state": "draft"}));
        assert_eq!(keys(None, Some(&a)), "title:heat");
        assert_eq!(
            keys(Some(&a), Some(&title_with(json!({"state": "draft", "year": 1999, "maturity": "X"})))),
            "title:heat"
        );
    }

    #[test]
    fn a_text_purges_the_searches_that_may_find_it_and_those_that_find_little() {
        let words = |typed: &str| crate::store::words_of(typed);
        let of = |typed: &str, far| of_search(&words(typed), far).map(|key| key.unwrap().to_string()).join(" ");
        assert_eq!(of("the hidden let", false), "search search:hid");
        assert_eq!(of("the hidden let", true), "search search-far");
        assert_eq!(of("up", false), "search search-far", "too short to tell");
        assert_eq!(of("", false), "search search-far");
        let many = |from: usize| (from..from + 70).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let names = json!({"de": {"name": many(100)}, "fr": {"name": many(200)}, "it": {"name": many(300)}});
        let long = title_with(json!({"translations": names}));
        let a = title_with(json!({}));
        assert_eq!(keys(Some(&a), Some(&long)), "card:heat search title:heat");
    }

    #[test]
    fn a_page_with_too_many_titles_names_them_in_crowds() {
        let ids: Vec<String> = (0..400).map(|n| format!("{n}-{}", "x".repeat(70))).collect();
        let few = of_page([home()], ids.iter().take(3).map(String::as_str), []);
        assert_eq!(few.len(), 4);
        let many = of_page([home()], ids.iter().map(String::as_str), []);
        assert!(many.len() <= 257 && many.contains(&home().unwrap()));
        assert!(ids.iter().all(|id| many.contains(&crowd(id).unwrap())));
    }
}
