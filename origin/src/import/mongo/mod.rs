//! Exports of the old system's MongoDB, as `mongoexport` writes them: Extended JSON, one document a line or all in one
//! list. Which field of a document becomes which of ours stands in a mapping file; [`Mapping::default`] is that of the
//! collections `movies`, `series` and `users` as the old system had them.
mod parts;
mod rights;
mod unread;

use super::{Batch, Refused, Report, SAME_ADDRESS, SAME_ID};
use crate::auth::accounts::{check_name, mended_name};
use crate::auth::email;
use crate::catalog::model::slug;
use crate::catalog::validate::{self, check_id};
use crate::generate::Viewer;
use parts::Part;
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};
use std::collections::BTreeMap;
use unread::Known;

/// Beyond it whole numbers share those of floating point: 2^53 - 1.
const EXACT_MAX: f64 = 9_007_199_254_740_991.0;

/// What a collection's documents become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Becomes {
    Films,
    Series,
    Viewers,
}

/// One collection: for each field of ours the places it may stand at, the first that has a value being taken; of regions
/// all places count. A place is a path with dots; `a[].b` is `b` of each of a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collection {
    becomes: Becomes,
    fields: BTreeMap<String, Vec<String>>,
    /// Credits: a role, and where the names of those who have it stand.
    #[serde(default)]
    people: BTreeMap<String, Vec<String>>,
    /// Values of the old system, by field, and what they are called here.
    #[serde(default)]
    values: BTreeMap<String, BTreeMap<String, Value>>,
    /// Things within a document, each with fields of its own.
    #[serde(default)]
    translations: Option<Part>,
    #[serde(default)]
    regions: Option<Part>,
    #[serde(default)]
    images: Option<Part>,
    #[serde(default)]
    seasons: Option<Part>,
}

impl Collection {
    fn is_known(&self) -> Result<(), String> {
        let check = |what: &str, known: &[&str], unknown: Option<&str>| match unknown {
            Some(field) => Err(format!("{what} have no field {field}; the fields are {}", known.join(", "))),
            None => Ok(()),
        };
        let of = |part: Option<&Part>, what: &str, known: &[&str]| {
            check(what, known, part.and_then(|part| part.unknown_field(known)))
        };
        let own = |what: &str, known: &[&str]| {
            let field = self.fields.keys().map(String::as_str).find(|field| !known.contains(field));
            check(what, known, field)
        };
        let parts = [&self.translations, &self.regions, &self.images, &self.seasons];
        if self.becomes == Becomes::Viewers {
            own("viewers", &OF_VIEWERS)?;
            return match parts.iter().any(|part| part.is_some()) {
                true => Err("viewers have no translations, regions, images or seasons".into()),
                false => Ok(()),
            };
        }
        own("titles", &OF_TITLES)?;
        if self.becomes == Becomes::Films && self.seasons.is_some() {
            return Err("films have no seasons".into());
        }
        let (seasons, translations) = (self.seasons.as_ref(), &parts::OF_TRANSLATIONS);
        let episodes = seasons.and_then(|seasons| seasons.episodes.as_deref());
        of(self.translations.as_ref(), "translations", translations)?;
        of(self.regions.as_ref(), "regions", &parts::OF_REGIONS)?;
        of(self.images.as_ref(), "images", &parts::OF_IMAGES)?;
        of(seasons, "seasons", &parts::OF_SEASONS)?;
        of(episodes, "episodes", &parts::OF_EPISODES)?;
        for part in [seasons, episodes].into_iter().flatten() {
            of(part.translations.as_deref(), "translations", translations)?;
            of(part.images.as_deref(), "images", &parts::OF_IMAGES)?;
        }
        Ok(())
    }

    /// What an old value is called here.
    fn renamed(&self, field: &str, value: Value) -> Value {
        let renamed = self.values.get(field).zip(value.as_str()).and_then(|(names, old)| names.get(old));
        renamed.cloned().unwrap_or(value)
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Mapping(BTreeMap<String, Collection>);

/// Fields of ours, by what a collection becomes.
const OF_TITLES: [&str; 21] = [
    "id",
    "name",
    "sort_name",
    "year",
    "release_date",
    "synopsis",
    "maturity",
    "runtime_min",
    "rating",
    "votes",
    "distributor",
    "genres",
    "state",
    "published",
    "available_from",
    "available_until",
    // Regions, by themselves, in which it is never seen.
    "blocked_regions",
    // Addresses.
    "poster",
    "backdrop",
    "still",
    "logo",
];
const OF_VIEWERS: [&str; 5] = ["id", "email", "name", "plan", "maturity"];

fn paths(pairs: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    let own = |paths: &[&str]| paths.iter().map(|path| path.to_string()).collect();
    pairs.iter().map(|(name, paths)| (name.to_string(), own(paths))).collect()
}

fn part(at: &[&str], fields: &[(&str, &[&str])]) -> Part {
    Part { at: at.iter().map(|path| path.to_string()).collect(), fields: paths(fields), ..Part::default() }
}

impl Default for Mapping {
    fn default() -> Self {
        let synopsis: &[&str] = &["fullplot", "plot", "overview", "description", "synopsis"];
        let (name, year): (&[&str], &[&str]) = (&["title", "name"], &["year", "releaseYear"]);
        let released: &[&str] = &["released", "releaseDate", "airDate"];
        let runtime: &[&str] = &["runtime", "durationMinutes"];
        let locale: &[&str] = &["locale", "language", "lang"];
        let images: [(&str, &[&str]); 4] = [
            ("poster", &["poster", "posterUrl"]),
            ("backdrop", &["backdrop", "backdropUrl"]),
            ("still", &["still", "stillUrl"]),
            ("logo", &["logo", "logoUrl"]),
        ];
        let titles: [(&str, &[&str]); 13] = [
            ("id", &["slug", "_id"]),
            ("name", name),
            ("year", year),
            ("release_date", released),
            ("synopsis", synopsis),
            ("maturity", &["rated", "maturityRating", "ageRating"]),
            ("runtime_min", runtime),
            ("rating", &["imdb.rating", "rating"]),
            ("votes", &["imdb.votes", "votes"]),
            ("genres", &["genres", "genres[].name"]),
            ("available_from", &["availableFrom"]),
            ("available_until", &["availableUntil"]),
            ("blocked_regions", &["blockedRegions", "blockedCountries"]),
        ];
        let people: [(&str, &[&str]); 3] = [
            ("director", &["directors", "director"]),
            ("actor", &["cast", "cast[].name", "actors"]),
            ("writer", &["writers"]),
        ];
        let viewers: [(&str, &[&str]); 4] = [
            ("id", &["_id"]),
            ("email", &["email"]),
            ("name", &["name", "displayName", "username"]),
            ("plan", &["subscription.plan", "plan"]),
        ];
        let translations =
            || part(&["translations", "i18n"], &[("locale", locale), ("name", name), ("synopsis", synopsis)]);
        let pictures =
            || part(&["images"], &[("kind", &["kind", "type"]), ("url", &["url", "src"]), ("locale", locale)]);
        let numbered = |more: &[(&str, &[&str])], number: &[&str]| {
            let all = [&[("number", number), ("name", name), ("synopsis", synopsis)], more].concat();
            Part { translations: Some(Box::new(translations())), ..part(&[], &all) }
        };
        let episodes = Part {
            at: vec!["episodes".into()],
            images: Some(Box::new(pictures())),
            ..numbered(
                &[[("id", &["_id"][..]), ("runtime_min", runtime), ("release_date", released)].as_slice(), &images]
                    .concat(),
                &["number", "episodeNumber", "episode"],
            )
        };
        let seasons = Part {
            at: vec!["seasons".into()],
            episodes: Some(Box::new(episodes)),
            ..numbered(&[("year", year)], &["number", "seasonNumber", "season"])
        };
        let regions = part(
            &["regions", "availability"],
            &[
                ("region", &["region", "country"]),
                ("from", &["from", "availableFrom"]),
                ("until", &["until", "availableUntil"]),
                ("blocked", &["blocked"]),
            ],
        );
        let films = Collection {
            becomes: Becomes::Films,
            fields: paths(&[titles.as_slice(), &images].concat()),
            people: paths(&people),
            values: BTreeMap::new(),
            translations: Some(translations()),
            regions: Some(regions),
            images: Some(pictures()),
            seasons: None,
        };
        let users = Collection {
            becomes: Becomes::Viewers,
            fields: paths(&viewers),
            people: BTreeMap::new(),
            translations: None,
            regions: None,
            images: None,
            ..films.clone()
        };
        Self(BTreeMap::from([
            ("series".to_string(), Collection { becomes: Becomes::Series, seasons: Some(seasons), ..films.clone() }),
            ("movies".to_string(), films),
            ("users".to_string(), users),
        ]))
    }
}

impl Mapping {
    /// Reads a mapping file, naming what is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let mapping: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        for (name, collection) in &mapping.0 {
            collection.is_known().map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(mapping)
    }

    fn collection(&self, name: &str) -> Result<&Collection, String> {
        let known = || self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        self.0.get(name).ok_or_else(|| format!("the mapping has no collection {name:?}, only {}", known()))
    }
}

/// Extended JSON (canonical and relaxed) to plain values: ids and dates as text, numbers as numbers. What cannot be read
/// stays as it is.
fn plain(value: Value) -> Value {
    match value {
        Value::Array(list) => list.into_iter().map(plain).collect(),
        Value::Object(object) => match (object.len(), object.iter().next()) {
            (1, Some((kind, inner))) if kind.starts_with('$') => special(kind, inner).unwrap_or(object.into()),
            _ => object.into_iter().map(|(name, value)| (name, plain(value))).collect(),
        },
        other => other,
    }
}

fn special(kind: &str, inner: &Value) -> Option<Value> {
    Some(match kind {
        "$oid" | "$uuid" | "$symbol" => inner.as_str()?.to_ascii_lowercase().into(),
        "$numberInt" | "$numberLong" => inner.as_str()?.parse::<i64>().ok()?.into(),
        "$numberDouble" | "$numberDecimal" => {
            let number: f64 = inner.as_str()?.parse().ok()?;
            // NaN and the infinities are no numbers here.
            serde_json::Number::from_f64(number)?.into()
        }
        "$date" => match plain(inner.clone()) {
            Value::Number(ms) => jiff::Timestamp::from_millisecond(ms.as_i64()?).ok()?.to_string().into(),
            text => text.as_str()?.parse::<jiff::Timestamp>().ok()?.to_string().into(),
        },
        _ => return None,
    })
}

/// What stands at a place; lists on the way are walked through.
fn at(value: &Value, path: &str) -> Option<Value> {
    let (head, rest) = path.split_once('.').unwrap_or((path, ""));
    let (name, is_list) = head.strip_suffix("[]").map_or((head, false), |name| (name, true));
    let found = value.get(name).filter(|found| !found.is_null())?;
    match (rest.is_empty(), is_list) {
        (true, _) => Some(found.clone()),
        (false, false) => at(found, rest),
        (false, true) => {
            let list: Vec<Value> = found.as_array()?.iter().filter_map(|one| at(one, rest)).collect();
            (!list.is_empty()).then_some(Value::Array(list))
        }
    }
}

fn first(document: &Value, paths: &[String]) -> Option<Value> {
    let is_wrong = |value: &Value| value.as_array().is_some_and(|list| list.iter().any(Value::is_object));
    paths.iter().filter_map(|path| at(document, path)).find(|value| !is_wrong(value) && !is_empty(value))
}

/// Whether it says as little as nothing at all: another place may have more.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.trim().is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    }
}

/// Names out of a list, or out of one text with commas.
fn names(value: &Value) -> Vec<String> {
    let names: Vec<&str> = match value {
        Value::String(text) => text.split(',').collect(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    names.into_iter().map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect()
}

/// One text, or those of a list.
fn first_of(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_else(|| vec![value.clone()])
}

/// Reads the documents of one collection.
pub fn read(text: &str, name: &str, mapping: &Mapping) -> Result<Batch, String> {
    let collection = mapping.collection(name)?;
    let (mut batch, known) = (Batch::default(), Known::of(collection));
    let is_list = text.trim_start().starts_with('[');
    let documents: Vec<Result<Value, String>> = match is_list {
        true => serde_json::from_str::<Vec<Value>>(text).map_err(|e| e.to_string())?.into_iter().map(Ok).collect(),
        false => {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            lines.map(|line| serde_json::from_str(line).map_err(|error| error.to_string())).collect()
        }
    };
    for (number, document) in (1..).zip(documents) {
        batch.report.read += 1;
        let taken = document.map_err(|error| ("not JSON", error)).and_then(|document| {
            let mut document = plain(document);
            let rights = rights::of_title(&mut batch.report, number, collection, &document);
            let age = rights::first(&document, collection.fields.get("maturity").map_or(&[], Vec::as_slice));
            for path in rights::forget_unread(&mut document) {
                batch.report.mend("a value that cannot be read; left out", format!("document {number}: {path}"));
            }
            for path in known.unread(&document) {
                batch.report.leave_out(path, format!("document {number}"));
            }
            match collection.becomes {
                Becomes::Viewers => take_viewer(&mut batch, collection, &document, age),
                kind => take_title(&mut batch, collection, kind, rights, &document),
            }
        });
        if let Err((reason, what)) = taken {
            batch.report.refuse(reason, format!("document {number}: {what}"));
        }
    }
    Ok(batch)
}

fn fields(collection: &Collection, document: &Value) -> Map<String, Value> {
    let mut ours = Map::new();
    for (field, paths) in &collection.fields {
        let Some(value) = first(document, paths) else { continue };
        ours.insert(field.clone(), collection.renamed(field, value));
    }
    ours
}

/// The id a document says: a text, or a number's digits.
fn id_of(id: &Value) -> Option<String> {
    match id {
        Value::String(text) => Some(id_of_text(text.trim())),
        Value::Number(number) => counted(number).map(|number| number.to_string()),
        _ => None,
    }
}

/// A number that counts. The old system's shell wrote whole numbers as floating point.
fn counted(number: &Number) -> Option<u64> {
    let is_exact = |float: &f64| float.fract() == 0.0 && (0.0..=EXACT_MAX).contains(float);
    number.as_u64().or_else(|| number.as_f64().filter(is_exact).map(|float| float as u64))
}

/// The id as it is, else the part of it that can be an id. Cut only if it is too long: ids that begin alike are different ones.
fn id_of_text(text: &str) -> String {
    let whole = slug::slugify(text);
    [text, whole.as_str()].into_iter().find(|id| check_id(id).is_ok()).map_or_else(|| slug(text), String::from)
}

/// The day of a moment.
fn cut_date(ours: &mut Map<String, Value>) {
    if let Some(date) = ours.get("release_date").and_then(Value::as_str).and_then(|text| text.get(..10)) {
        let date = Value::from(date);
        ours.insert("release_date".into(), date);
    }
}

/// Years as "1999-2003", runtimes as "142 min": their first number; and none of them a fraction.
fn whole_numbers(report: &mut Report, id: &str, ours: &mut Map<String, Value>, fields: &[&str]) {
    for field in fields {
        if let Some(text) = ours.get(*field).and_then(Value::as_str) {
            let digits: String = text.chars().filter(|c| *c != ',').take_while(char::is_ascii_digit).collect();
            match digits.parse::<i64>() {
                Ok(number) => {
                    report.mend("a number written as text", format!("{id}: {field} {text:?}"));
                    ours.insert(field.to_string(), number.into());
                }
                Err(_) => {
                    report.mend("no number; left out", format!("{id}: {field} {text:?}"));
                    ours.remove(*field);
                }
            }
        }
        if let Some(number) = ours.get(*field).and_then(Value::as_f64) {
            ours.insert(field.to_string(), json!(number.round() as i64));
        }
    }
}

fn take_title(
    batch: &mut Batch,
    collection: &Collection,
    kind: Becomes,
    rights: Map<String, Value>,
    document: &Value,
) -> Result<(), Refused> {
    let mut ours = fields(collection, document);
    ours.retain(|field, _| !rights::FIELDS.contains(&field.as_str()));
    ours.extend(rights);
    let id = ours.remove("id").as_ref().and_then(id_of).unwrap_or_default();
    check_id(&id).map_err(|error| ("document without a valid id", error.to_string()))?;
    cut_date(&mut ours);
    whole_numbers(&mut batch.report, &id, &mut ours, &["year", "runtime_min", "votes"]);
    let report = &mut batch.report;
    let translations = parts::translations(report, &id, collection.translations.as_ref(), document);
    let images = parts::images(report, &id, collection.images.as_ref(), &mut ours, document);
    for (field, value) in [("translations", translations), ("images", images)] {
        ours.extend(value.map(|value| (field.to_string(), value)));
    }
    if let Some(genres) = ours.get("genres").map(names) {
        ours.insert("genres".into(), genres.into());
    }
    let mut people = Vec::new();
    for (role, paths) in &collection.people {
        for name in first(document, paths).as_ref().map(names).unwrap_or_default() {
            people.push(json!({"name": name, "role": role}));
        }
    }
    if !people.is_empty() {
        ours.insert("people".into(), people.into());
    }
    if kind == Becomes::Series {
        ours.insert("kind".into(), "series".into());
    }
    let input = validate::title(&Value::Object(ours)).map_err(|faults| {
        let faults: Vec<_> = faults.into_iter().map(|fault| format!("{} {}", fault.at, fault.message)).collect();
        ("document with faults", format!("{id}: {}", faults.join(", ")))
    })?;
    batch.taken.take([(SAME_ID, id.clone())]).map_err(|reason| (reason, id.clone()))?;
    parts::take_seasons(batch, collection, &id, document);
    batch.titles.push((id, input));
    Ok(())
}

fn age_of(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => counted(number),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// `age`: what is said of the viewer's, if anything is.
fn take_viewer(
    batch: &mut Batch,
    collection: &Collection,
    document: &Value,
    age: Option<Value>,
) -> Result<(), Refused> {
    let ours = fields(collection, document);
    let text = |field: &str| ours.get(field).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let id = ours.get("id").and_then(id_of).unwrap_or_default();
    check_id(&id).map_err(|error| ("user without a valid id", error.to_string()))?;
    // As at log-in, which refuses others.
    let email = email::normalise(text("email").unwrap_or_default())
        .map_err(|message| ("user without a valid e-mail address", format!("{id}: {message}")))?;
    // Taken for an adult a child would see what it must not.
    let without = |value: &Value| ("user whose maturity cannot be read", format!("{id}: {value}"));
    let age = age.map(|age| collection.renamed("maturity", age));
    let age = age.map_or(Ok(18), |age| age_of(&age).ok_or_else(|| without(&age)))?;
    let maturity = [18_u32, 16, 13, 7].into_iter().find(|class| u64::from(*class) <= age).unwrap_or(0).into();
    let names = [(SAME_ID, id.clone()), (SAME_ADDRESS, email.clone())];
    batch.taken.take(names).map_err(|reason| (reason, id.clone()))?;
    let plan = match text("plan").map(str::to_lowercase).as_deref() {
        Some("premium") => "premium",
        Some("standard") => "standard",
        Some("basic") | None => "basic",
        Some(other) => {
            batch.report.mend("unknown plan; basic instead", format!("{id}: {other:?}"));
            "basic"
        }
    };
    let mut name = text("name").unwrap_or_default().to_string();
    if !name.is_empty() && check_name(&name).is_err() {
        batch.report.mend("a name that nobody could choose; mended", id.clone());
        name = mended_name(&name);
    }
    batch.report.mend("password not taken over; `origin users invite` lets it be chosen anew", id.clone());
    batch.viewers.push(Viewer { id, email, name, plan, maturity });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVIES: &str = r#"{"_id":{"$oid":"573A1390F29313CAABCD42E8"},"title":"Heat","year":{"$numberInt":"1995"},"runtime":"170 min","released":{"$date":{"$numberLong":"819072000000"}},"genres":["Crime","Drama"],"directors":["Michael Mann"],"cast":[{"name":"Al Pacino","as":"Hanna"}],"imdb":{"rating":{"$numberDouble":"8.3"},"votes":{"$numberLong":"700000"}},"plot":"A thief.","rated":"R"}
{"_id":{"$oid":"573a1390f29313caabcd42e9"},"slug":"Up!","title":"Up","year":"2009","released":{"$date":"2009-05-29T00:00:00Z"},"genres":"Animation, Family","imdb":{"rating":{"$numberDouble":"NaN"}}}
{"_id":{"$oid":"573a1390f29313caabcd42ea"},"title":""}
{"title":"No id"}
not json
"#;

    #[test]
    fn extended_json_becomes_titles_and_every_refusal_has_its_reason() {
        let batch = read(MOVIES, "movies", &Mapping::default()).unwrap();
        let (id, heat) = &batch.titles[0];
        assert_eq!((id.as_str(), heat.name.as_str(), heat.year), ("573a1390f29313caabcd42e8", "Heat", Some(1995)));
        assert_eq!((heat.runtime_min, heat.rating, heat.votes), (Some(170), Some(8.3), Some(700_000)));
        assert_eq!(heat.genres, ["Crime", "Drama"]);
        let people: Vec<_> = heat.people.iter().map(|credit| credit.name.as_str()).collect();
        assert_eq!(people, ["Al Pacino", "Michael Mann"]);
        let (id, up) = &batch.titles[1];
        assert_eq!((id.as_str(), up.year, up.rating), ("up", Some(2009), None));
        assert_eq!(up.genres, ["Animation", "Family"]);
        let refused: Vec<_> = batch.report.refused.keys().map(String::as_str).collect();
        assert_eq!(refused, ["document with faults", "document without a valid id", "not JSON"]);
    }

    /// Taken for an adult, a child would be shown what is not for it.
    #[test]
    fn a_viewer_whose_age_cannot_be_read_is_refused_and_one_of_whom_none_is_said_is_an_adult() {
        let mapping =
            r#"{"users":{"becomes":"viewers","fields":{"id":["_id"],"email":["email"],"maturity":["profile.age"]}}}"#;
        let mapping = Mapping::read(mapping).unwrap();
        let take = |profile: &str| {
            let text = format!(r#"{{"_id":1,"email":"kid@example.org"{profile}}}"#);
            let batch = read(&text, "users", &mapping).unwrap();
            let refused = batch.report.refused.keys().next().cloned();
            batch.viewers.first().map(|viewer| viewer.maturity).ok_or_else(|| refused.unwrap_or_default())
        };
        for (age, maturity) in
            [("7", 7), ("7.0", 7), (r#"{"$numberDouble":"12.0"}"#, 7), (r#""13""#, 13), ("3", 0), ("70", 18)]
        {
            assert_eq!(take(&format!(r#","profile":{{"age":{age}}}"#)), Ok(maturity), "{age}");
        }
        for profile in ["", r#","profile":{}"#, r#","profile":{"age":null}"#, r#","profile":{"age":""}"#] {
            assert_eq!(take(profile), Ok(18), "{profile}");
        }
        let unreadable = r#"{"$timestamp":{"t":1,"i":1}}"#;
        let ages = [r#""child""#, "7.5", "-1", "true", "[7]", r#"[{"value":7}]"#, r#"{"value":7}"#, unreadable];
        let profiles = ages.map(|age| format!(r#"{{"age":{age}}}"#)).into_iter();
        for profile in profiles.chain([r#"[{"age":7}]"#, "7", unreadable].map(String::from)) {
            let refused = take(&format!(r#","profile":{profile}"#));
            assert_eq!(refused, Err("user whose maturity cannot be read".to_string()), "{profile}");
        }
    }

    #[test]
    fn a_place_that_says_nothing_gives_way_to_the_next_and_what_cannot_be_read_is_listed() {
        let text = r#"{"_id":"a","title":"Heat","directors":[],"director":"Michael Mann","cast":[],"actors":["Al Pacino"],"fullplot":" ","plot":"A thief.","rated":""}
{"_id":"b","title":"Up","released":{"$date":{"$numberLong":"253402300800000"}}}"#;
        let batch = read(text, "movies", &Mapping::default()).unwrap();
        let (_, heat) = &batch.titles[0];
        let people: Vec<_> = heat.people.iter().map(|credit| credit.name.as_str()).collect();
        assert_eq!((people, heat.synopsis.as_deref()), (vec!["Al Pacino", "Michael Mann"], Some("A thief.")));
        let mended = &batch.report.mended["a value that cannot be read; left out"];
        assert!(format!("{mended:?}").contains("document 2: released"), "{mended:?}");
    }

    #[test]
    fn of_documents_whose_ids_agree_the_first_is_taken() {
        let shared = "a".repeat(60);
        let (one, other) = (format!("{shared}-one"), format!("{shared}-other"));
        let (long, longer) = (format!("{shared} {}", "b".repeat(30)), format!("{shared} {}", "c".repeat(30)));
        let slugs = ["Heat!", "heat", "a--b", "a-b", &one, &other, &long, &longer];
        let films = slugs.map(|slug| json!({"slug": slug, "title": slug}).to_string());
        let batch = read(&films.join("\n"), "movies", &Mapping::default()).unwrap();
        let ids: Vec<_> = batch.titles.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["heat", "a--b", "a-b", &one, &other, &shared]);
        assert_eq!(batch.titles[0].1.name, "Heat!");
        assert_eq!(batch.report.refused[SAME_ID].examples, ["document 2: heat", &format!("document 8: {shared}")]);
    }

    #[test]
    fn a_number_that_counts_is_an_id_by_its_digits() {
        let numbers = [
            json!({"$numberLong": "9007199254740993"}),
            json!({"$numberInt": "42"}),
            json!({"$numberDouble": "7.0"}),
            json!(1917),
            json!(3.0),
            json!(0),
        ];
        let films = numbers.map(|id| json!({"_id": id, "title": "Heat"}).to_string());
        let batch = read(&films.join("\n"), "movies", &Mapping::default()).unwrap();
        let ids: Vec<_> = batch.titles.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["9007199254740993", "42", "7", "1917", "3", "0"]);
        let users = r#"{"_id":{"$numberLong":"17"},"email":"ada@example.org"}"#;
        assert_eq!(read(users, "users", &Mapping::default()).unwrap().viewers[0].id, "17");
        // Digits alone would be another's id, or one that two numbers share.
        for id in [json!(-1), json!(1.5), json!({"$numberDouble": "9007199254740993.0"}), json!(true)] {
            let film = json!({"_id": id, "title": "Heat"}).to_string();
            let batch = read(&film, "movies", &Mapping::default()).unwrap();
            assert!(batch.titles.is_empty(), "{id}");
            assert_eq!(batch.report.refused["document without a valid id"].count, 1, "{id}");
        }
    }

    #[test]
    fn a_document_that_is_refused_takes_no_id() {
        let films = r#"[{"_id":"heat","title":""},{"_id":"heat","title":"Heat"}]"#;
        let batch = read(films, "movies", &Mapping::default()).unwrap();
        assert_eq!(batch.titles[0].1.name, "Heat");
        let users = r#"[{"_id":"a","email":"ada@example.org"},{"_id":"b","email":"Ada@example.org"},
            {"_id":"a","email":"eve@example.org"},{"_id":"b","email":"eve@example.org"}]"#;
        let batch = read(users, "users", &Mapping::default()).unwrap();
        let taken: Vec<_> = batch.viewers.iter().map(|viewer| (viewer.id.as_str(), viewer.email.as_str())).collect();
        assert_eq!(taken, [("a", "ada@example.org"), ("b", "eve@example.org")]);
        assert_eq!(batch.report.refused[SAME_ADDRESS].examples, ["document 2: b"]);
        assert_eq!(batch.report.refused[SAME_ID].examples, ["document 3: a"]);
    }

    #[test]
    fn a_mapping_file_names_other_places_and_other_words() {
        let mapping = r#"{"filme":{"becomes":"films","fields":{"id":["kennung"],"name":["titel.de"],"maturity":["fsk"]},
            "people":{"director":["regie[].name"]},"values":{"maturity":{"ab 16":"16"}}}}"#;
        let mapping = Mapping::read(mapping).unwrap();
        let text = r#"[{"kennung":"das-boot","titel":{"de":"Das Boot"},"fsk":"ab 16","regie":[{"name":"Petersen"}]}]"#;
        let batch = read(text, "filme", &mapping).unwrap();
        let (id, title) = &batch.titles[0];
        assert_eq!((id.as_str(), title.name.as_str(), title.maturity.as_deref()), ("das-boot", "Das Boot", Some("16")));
        assert_eq!(title.people[0].name, "Petersen");
        assert!(read(text, "movies", &mapping).unwrap_err().contains("filme"));
        assert!(Mapping::read(r#"{"a":{"becomes":"films","fields":{"colour":[]}}}"#).unwrap_err().contains("colour"));
    }

    #[test]
    fn users_become_viewers_without_a_password() {
        let text = r#"{"_id":{"$oid":"5f0000000000000000000001"},"email":" Ada@Example.com ","name":"Ada","password":"$2b$10$x","subscription":{"plan":"Premium"}}
{"_id":{"$oid":"5f0000000000000000000002"},"email":"nobody"}"#;
        let batch = read(text, "users", &Mapping::default()).unwrap();
        let viewer = &batch.viewers[0];
        assert_eq!((viewer.email.as_str(), viewer.plan, viewer.maturity), ("ada@example.com", "premium", 18));
        assert_eq!(batch.viewers.len(), 1);
        assert_eq!(batch.report.refused["user without a valid e-mail address"].count, 1);
    }

    #[test]
    fn users_who_could_never_log_in_with_their_address_are_refused() {
        for address in
            ["m\u{fc}ller@web.de", "max..m@example.org", "a@b@example.org", "ada@example.org,eve@example.org"]
        {
            let user = json!({"_id": "user-17", "email": address}).to_string();
            let batch = read(&user, "users", &Mapping::default()).unwrap();
            assert!(batch.viewers.is_empty(), "{address}");
            let example = &batch.report.refused["user without a valid e-mail address"].examples[0];
            assert!(example.starts_with("document 1: user-17: must "), "{address}: {example}");
        }
    }
}
