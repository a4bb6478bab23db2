//! What each kind may hold: from JSON to the model, naming every fault at once.
use crate::catalog::countries;
use crate::catalog::model::{
    CollectionInput, Credit, Episode, Fill, GenreInput, Image, ImageKind, PersonInput, RAIL_SIZE_DEFAULT, RailInput,
    SeasonInput, SortBy, State, TitleInput, TitleKind, Translation, Translations, Window, slug, sort_name,
};
pub use crate::catalog::read::merge_patch;
use crate::catalog::read::{NAME_CHARS_MAX, Reader, TEXT_CHARS_MAX, wrong};
use kv_schemas::Problem;
use kv_schemas::problem::Fault;
use kv_schemas::viewer::{Maturity, Plan};
use serde_json::Value;
use std::collections::BTreeSet;

pub const ID_BYTES_MAX: usize = 80;
pub const ITEMS_MAX: usize = 100;
const GENRES_MAX: usize = 20;
const PEOPLE_MAX: usize = 200;
const IMAGES_MAX: usize = 40;
const LOCALES_MAX: usize = 60;
const REGIONS_MAX: usize = 260;
const EPISODES_MAX: usize = 200;

/// What an answer carries and a write may send back unchanged.
const READ_ONLY: &[&str] = &["id", "version", "visible", "created_at_ms", "updated_at_ms", "deleted_at_ms"];

type Faults = Vec<Fault>;

/// An id: `a-z`, `0-9` and inner `-`, 1 to 80 bytes.
pub fn check_id(id: &str) -> Result<(), &'static str> {
    let legal = id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if id.is_empty() || id.len() > ID_BYTES_MAX || !legal || id.starts_with('-') || id.ends_with('-') {
        return Err("an id is 1 to 80 characters out of a-z, 0-9 and '-', and begins and ends with a letter or digit");
    }
    Ok(())
}

/// The id of a season: its series' id, `/`, and its number.
pub fn check_season_id(id: &str) -> Result<(), &'static str> {
    let (series, number) = id.split_once('/').unwrap_or_default();
    check_id(series)?;
    // One spelling each: no "+1", no "01".
    let is_number = number.parse::<u32>().is_ok_and(|parsed| parsed.to_string() == number);
    if is_number { Ok(()) } else { Err("a season's id is that of its series, '/', and its number") }
}

fn id_at(value: &Value, at: &str) -> Result<String, Faults> {
    match value.as_str().map(|id| (id, check_id(id))) {
        Some((id, Ok(()))) => Ok(id.to_string()),
        Some((_, Err(message))) => wrong(at, message),
        None => wrong(at, "must be an id"),
    }
}

fn translations(reader: &mut Reader<'_>) -> Translations {
    let read = |value, at: &str| {
        let mut said = Reader::open(value, at, "translation", &[&["name", "synopsis"]])?;
        let name = said.text("name", NAME_CHARS_MAX);
        let synopsis = said.text("synopsis", TEXT_CHARS_MAX);
        said.end(Translation { name, synopsis })
    };
    reader.map("translations", LOCALES_MAX, "languages (tags such as de)", |tag| tag.parse().ok(), read)
}

fn image(value: &Value, at: &str) -> Result<Image, Faults> {
    let mut reader = Reader::open(value, at, "image", &[&["kind", "url", "locale"]])?;
    let named = |text: &str| ImageKind::NAMES.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
    reader.required("kind");
    reader.required("url");
    let kind = reader.word("kind", "poster, backdrop, still, logo or portrait", named);
    let url = reader.text("url", 500).unwrap_or_default();
    let legal =
        url.bytes().all(|b| b.is_ascii_graphic()) && (url.starts_with("https://") || url.starts_with("/media/"));
    if !url.is_empty() && !legal {
        reader.fault("url", "must begin with https:// or /media/ and be plain ASCII");
    }
    let locale = reader.word("locale", "a language tag such as de", |tag| tag.parse().ok());
    reader.end(Image { kind: kind.unwrap_or(ImageKind::Poster), url, locale })
}

fn images(reader: &mut Reader<'_>) -> Vec<Image> {
    reader.list("images", IMAGES_MAX, "{kind, url, locale?}", image)
}

fn state(reader: &mut Reader<'_>) -> State {
    let expected = "draft, scheduled or published";
    reader.word("state", expected, State::named).unwrap_or_default()
}

fn name_of(reader: &mut Reader<'_>, field: &str) -> String {
    reader.required(field);
    reader.text(field, NAME_CHARS_MAX).unwrap_or_default()
}

const TITLE: &[&str] = &[
    "kind",
    "name",
    "sort_name",
    "translations",
    "year",
    "release_date",
    "synopsis",
    "maturity",
    "runtime_min",
    "rating",
    "votes",
    "distributor",
    "genres",
    "people",
    "images",
    "state",
    "published",
    "publish_at",
    "available_from",
    "available_until",
    "regions",
];

fn genre_name(value: &Value, at: &str) -> Result<String, Faults> {
    let name = value.as_str().map(str::trim).filter(|name| name.chars().count() <= 60);
    match name.filter(|name| !slug(name).is_empty()) {
        Some(name) => Ok(name.to_string()),
        None => wrong(at, "must be a name of at most 60 characters with a letter"),
    }
}

fn credit(value: &Value, at: &str) -> Result<Credit, Faults> {
    let mut reader = Reader::open(value, at, "credit", &[&["id", "name", "role", "character"]])?;
    let name = name_of(&mut reader, "name");
    reader.required("role");
    let role = reader.text("role", 60).unwrap_or_default();
    let character = reader.text("character", NAME_CHARS_MAX);
    let id = match reader.present("id") {
        None => slug(&name),
        Some(id) => id_at(id, &format!("{at}/id")).unwrap_or_else(|faults| {
            reader.faults.extend(faults);
            String::new()
        }),
    };
    if id.is_empty() && reader.faults.is_empty() {
        reader.fault("name", "must have a letter or digit, or the credit an id");
    }
    reader.end(Credit { id, name, role, character })
}

fn window(value: &Value, at: &str) -> Result<Window, Faults> {
    let mut reader = Reader::open(value, at, "window", &[&["from", "until", "blocked"]])?;
    let from = reader.timestamp("from");
    let until = reader.timestamp("until");
    let blocked = reader.flag("blocked").unwrap_or(false);
    if matches!((from, until), (Some(from), Some(until)) if until <= from) {
        reader.fault("until", "must be later than from");
    }
    reader.end(Window { from, until, blocked })
}

/// `published`, the short form of `state`.
fn title_state(reader: &mut Reader<'_>) -> State {
    let said = reader.present("state").is_some();
    let state = state(reader);
    match reader.flag("published") {
        None => state,
        Some(published) if !said => {
            if published {
                State::Published
            } else {
                State::Draft
            }
        }
        Some(published) => {
            if published != (state == State::Published) {
                reader.fault("published", "contradicts state; send one of them");
            }
            state
        }
    }
}

/// Reads a whole title. `Err` lists every fault.
pub fn title(value: &Value) -> Result<TitleInput, Faults> {
    let mut reader = Reader::open(value, "", "title", &[TITLE, READ_ONLY])?;
    let name = name_of(&mut reader, "name");
    let sort = reader.text("sort_name", NAME_CHARS_MAX);
    let mut genres: Vec<String> = reader.list("genres", GENRES_MAX, "names", genre_name);
    // Two spellings of one genre are one genre.
    let mut seen = BTreeSet::new();
    genres.retain(|name| seen.insert(slug(name)));
    let input = TitleInput {
        kind: reader.word("kind", "film or series", TitleKind::named).unwrap_or_default(),
        sort_name: sort.unwrap_or_else(|| sort_name(&name)),
        translations: translations(&mut reader),
        year: reader.integer("year", 1870, 2200),
        release_date: reader.date("release_date"),
        synopsis: reader.text("synopsis", TEXT_CHARS_MAX),
        maturity: reader.text("maturity", 20),
        runtime_min: reader.integer("runtime_min", 1, 10_000),
        rating: reader.number("rating", 0.0, 10.0),
        votes: reader.integer("votes", 0, 1_000_000_000_000),
        distributor: reader.text("distributor", NAME_CHARS_MAX),
        genres,
        people: reader.list("people", PEOPLE_MAX, "{id?, name, role, character?}", credit),
        images: images(&mut reader),
        state: title_state(&mut reader),
        publish_at: reader.timestamp("publish_at"),
        available_from: reader.timestamp("available_from"),
        available_until: reader.timestamp("available_until"),
        regions: reader.map(
            "regions",
            REGIONS_MAX,
            "countries (ISO 3166-1, such as DE or GB)",
            countries::named,
            window,
        ),
        name,
    };
    if matches!((input.available_from, input.available_until), (Some(from), Some(until)) if until <= from) {
        reader.fault("available_until", "must be later than available_from");
    }
    if input.state == State::Scheduled && input.publish_at.is_none() && reader.present("publish_at").is_none() {
        reader.fault("publish_at", "is required of a scheduled title");
    }
    reader.end(input)
}

pub fn person(value: &Value) -> Result<PersonInput, Faults> {
    let fields: &[&str] = &["name", "biography", "born", "died", "translations", "images"];
    let mut reader = Reader::open(value, "", "person", &[fields, READ_ONLY])?;
    let input = PersonInput {
        name: name_of(&mut reader, "name"),
        biography: reader.text("biography", TEXT_CHARS_MAX),
        born: reader.date("born"),
        died: reader.date("died"),
        translations: translations(&mut reader),
        images: images(&mut reader),
    };
    reader.end(input)
}

pub fn genre(value: &Value) -> Result<GenreInput, Faults> {
    let mut reader = Reader::open(value, "", "genre", &[&["name", "translations"], READ_ONLY])?;
    let input = GenreInput { name: name_of(&mut reader, "name"), translations: translations(&mut reader) };
    reader.end(input)
}

pub fn collection(value: &Value) -> Result<CollectionInput, Faults> {
    let fields: &[&str] = &["name", "synopsis", "translations", "items", "images", "state"];
    let mut reader = Reader::open(value, "", "collection", &[fields, READ_ONLY])?;
    let input = CollectionInput {
        name: name_of(&mut reader, "name"),
        synopsis: reader.text("synopsis", TEXT_CHARS_MAX),
        translations: translations(&mut reader),
        items: items(&mut reader),
        images: images(&mut reader),
        state: state(&mut reader),
    };
    if input.state == State::Scheduled {
        reader.fault("state", "must be draft or published");
    }
    reader.end(input)
}

/// Ids of titles, each once.
fn items(reader: &mut Reader<'_>) -> Vec<String> {
    let mut items = reader.list("items", ITEMS_MAX, "ids of titles", id_at);
    let mut seen = BTreeSet::new();
    items.retain(|id| seen.insert(id.clone()));
    items
}

fn episode(value: &Value, at: &str) -> Result<Episode, Faults> {
    let fields: &[&str] =
        &["id", "number", "name", "synopsis", "runtime_min", "release_date", "translations", "images"];
    let mut reader = Reader::open(value, at, "episode", &[fields])?;
    reader.required("id");
    reader.required("number");
    let id = reader.present("id").map(|id| id_at(id, &format!("{at}/id")));
    let id = id.unwrap_or(Ok(String::new())).unwrap_or_else(|faults| {
        reader.faults.extend(faults);
        String::new()
    });
    let input = Episode {
        id,
        number: reader.integer("number", 0, 10_000).unwrap_or_default(),
        name: name_of(&mut reader, "name"),
        synopsis: reader.text("synopsis", TEXT_CHARS_MAX),
        runtime_min: reader.integer("runtime_min", 1, 10_000),
        release_date: reader.date("release_date"),
        translations: translations(&mut reader),
        images: images(&mut reader),
    };
    reader.end(input)
}

pub fn season(value: &Value) -> Result<SeasonInput, Faults> {
    let fields: &[&str] = &["name", "synopsis", "year", "translations", "episodes"];
    let mut reader = Reader::open(value, "", "season", &[fields, READ_ONLY])?;
    let input = SeasonInput {
        name: name_of(&mut reader, "name"),
        synopsis: reader.text("synopsis", TEXT_CHARS_MAX),
        year: reader.integer("year", 1870, 2200),
        translations: translations(&mut reader),
        episodes: reader.list("episodes", EPISODES_MAX, "episodes", episode),
    };
    let (mut ids, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (index, episode) in input.episodes.iter().enumerate() {
        if !ids.insert(&episode.id) {
            reader.fault(&format!("episodes/{index}/id"), "is the id of an episode before it");
        }
        if !numbers.insert(episode.number) {
            reader.fault(&format!("episodes/{index}/number"), "is the number of an episode before it");
        }
    }
    reader.end(input)
}

fn fill(value: &Value, at: &str) -> Result<Fill, Faults> {
    let mut reader = Reader::open(value, at, "fill", &[&["genre", "kind", "sort"]])?;
    reader.required("sort");
    let genre = reader.word("genre", "the slug of a genre", |id| check_id(id).is_ok().then(|| id.to_string()));
    let kind = reader.word("kind", "film or series", TitleKind::named);
    let sort = reader.word("sort", "name, year, rating or added", SortBy::named).unwrap_or_default();
    reader.end(Fill { genre, kind, sort })
}

fn class(reader: &mut Reader<'_>, name: &str, otherwise: Maturity) -> Maturity {
    let Some(value) = reader.present(name) else { return otherwise };
    let class = value.as_u64().and_then(|years| u8::try_from(years).ok()).and_then(|years| years.try_into().ok());
    if class.is_none() {
        reader.fault(name, "must be an age class: 0, 7, 13, 16 or 18");
    }
    class.unwrap_or(otherwise)
}

pub fn rail(value: &Value) -> Result<RailInput, Faults> {
    let fields: &[&str] = &[
        "title",
        "position",
        "items",
        "translations",
        "regions",
        "plans",
        "maturity_from",
        "maturity_to",
        "fill",
        "size",
        "state",
        "from",
        "until",
    ];
    let mut reader = Reader::open(value, "", "rail", &[fields, READ_ONLY])?;
    fn one<T>(value: &Value, at: &str, expected: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, Faults> {
        let read = value.as_str().and_then(read);
        read.map_or_else(|| wrong(at, format!("must be {expected}")), Ok)
    }
    reader.required("position");
    let mut input = RailInput {
        title: name_of(&mut reader, "title"),
        position: reader.integer("position", -1_000_000, 1_000_000).unwrap_or_default(),
        items: items(&mut reader),
        translations: translations(&mut reader),
        regions: reader.list("regions", REGIONS_MAX, "regions", |v, at| {
            one(v, at, "a country (ISO 3166-1, such as DE or GB)", countries::named)
        }),
        plans: reader.list("plans", 4, "plans", |v, at| {
            one(v, at, "none, basic, standard or premium", |text| text.parse::<Plan>().ok())
        }),
        maturity_from: class(&mut reader, "maturity_from", Maturity::All),
        maturity_to: class(&mut reader, "maturity_to", Maturity::From18),
        fill: None,
        size: reader.integer("size", 1, 40).unwrap_or(RAIL_SIZE_DEFAULT),
        state: state(&mut reader),
        from: reader.timestamp("from"),
        until: reader.timestamp("until"),
    };
    if let Some(value) = reader.present("fill") {
        match fill(value, "/fill") {
            Ok(fill) => input.fill = Some(fill),
            Err(faults) => reader.faults.extend(faults),
        }
    }
    input.regions.sort();
    input.regions.dedup();
    input.plans.sort();
    input.plans.dedup();
    if input.maturity_to < input.maturity_from {
        reader.fault("maturity_to", "must not be below maturity_from");
    }
    if matches!((input.from, input.until), (Some(from), Some(until)) if until <= from) {
        reader.fault("until", "must be later than from");
    }
    if input.state == State::Scheduled && input.from.is_none() && reader.present("from").is_none() {
        reader.fault("from", "is required of a scheduled rail");
    }
    reader.end(input)
}

/// The answer to faulty input. `what`: as in `invalid-title`.
pub fn refused(what: &str, faults: Faults) -> Problem {
    let title = format!("The {what} has faults; nothing was changed");
    let mut problem = Problem::new(422, &format!("invalid-{what}"), title);
    problem.errors = faults;
    problem
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at<T: std::fmt::Debug>(result: Result<T, Faults>) -> Vec<String> {
        let mut at: Vec<_> = result.unwrap_err().into_iter().map(|fault| fault.at).collect();
        at.sort_unstable();
        at
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let bad = json!({"name": " ", "year": 99, "rating": 11, "genres": ["ok", "!!", 3], "people": [{"name": "A"}],
            "release_date": "1999-02-30", "published": "yes", "nmae": 1, "votes": 1.5, "kind": "play",
            "available_from": "2027-01-31", "images": [{"kind": "poster", "url": "http://x"}], "state": "gone",
            "regions": {"DE": {"until": 1}, "germany": {}}, "translations": {"de": {"name": ""}}});
        let expected = [
            "/available_from",
            "/genres/1",
            "/genres/2",
            "/images/0/url",
            "/kind",
            "/name",
            "/nmae",
            "/people/0/role",
            "/published",
            "/rating",
            "/regions/DE/until",
            "/regions/germany",
            "/release_date",
            "/state",
            "/translations/de/name",
            "/votes",
            "/year",
        ];
        assert_eq!(at(title(&bad)), expected);
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let input = title(&json!({"name": "The Heat"})).unwrap();
        assert_eq!((input.sort_name.as_str(), input.state, input.genres.len()), ("heat", State::Published, 0));
        assert_eq!(title(&json!([])).unwrap_err().len(), 1);
        let credit = &title(&json!({"name": "A", "people": [{"name": "Michael Mann", "role": "director"}]})).unwrap();
        assert_eq!(credit.people[0].id, "michael-mann");
    }

    #[test]
    fn published_is_the_short_form_of_state_and_may_not_contradict_it() {
        assert_eq!(title(&json!({"name": "A", "published": false})).unwrap().state, State::Draft);
        assert_eq!(at(title(&json!({"name": "A", "published": false, "state": "published"}))), ["/published"]);
        assert_eq!(at(title(&json!({"name": "A", "state": "scheduled"}))), ["/publish_at"]);
    }

    #[test]
    fn a_window_that_ends_before_it_begins_is_refused() {
        let input = json!({"name": "Heat", "available_from": "2027-01-31T22:00:00Z",
            "available_until": "2027-01-31T23:00:00+01:00",
            "regions": {"DE": {"from": "2027-01-31T22:00:00Z", "until": "2027-01-31T22:00:00Z"}}});
        assert_eq!(at(title(&input)), ["/available_until", "/regions/DE/until"]);
    }

    #[test]
    fn rails_collections_seasons_people_and_genres_name_their_faults_too() {
        let bad = json!({"title": "T", "position": "x", "items": ["A"], "regions": ["de"], "plans": ["gold"],
            "maturity_from": 16, "maturity_to": 7, "fill": {"genre": "A"}, "state": "scheduled", "size": 0});
        let expected = [
            "/fill/genre",
            "/fill/sort",
            "/from",
            "/items/0",
            "/maturity_to",
            "/plans/0",
            "/position",
            "/regions/0",
            "/size",
        ];
        assert_eq!(at(rail(&bad)), expected);
        assert_eq!(at(collection(&json!({"items": 1, "state": "scheduled"}))), ["/items", "/name", "/state"]);
        let twice = json!({"name": "S", "episodes": [{"id": "a", "number": 1, "name": "A"}, {"id": "a", "number": 1, "name": ""}, {}]});
        let expected = ["/episodes/1/name", "/episodes/2/id", "/episodes/2/name", "/episodes/2/number"];
        assert_eq!(at(season(&twice)), expected);
        assert_eq!(at(person(&json!({"name": "A", "born": "x"}))), ["/born"]);
        assert_eq!(at(genre(&json!({"name": "A", "slug": "x"}))), ["/slug"]);
    }

    #[test]
    fn ids_are_plain() {
        assert!(check_id("heat-1995").is_ok());
        for bad in ["", "-a", "a-", "A", "a b", "a/b", "é", &"x".repeat(81)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
    }
}
