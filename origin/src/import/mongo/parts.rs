//! What a document has of things within it: translations, images, seasons with their episodes. Each is a list of objects, or
//! an object whose names are the languages or kinds. A part that cannot be read as it is meant is left out with a line in the
//! report. Regions' windows, which decide who may see a title, are read otherwise (`rights`).
use super::{Collection, first, first_of, id_of, whole_numbers};
use crate::catalog::model::{ImageKind, SeasonInput, season_id};
use crate::catalog::validate;
use crate::import::{Batch, Report, SAME_ID};
use kv_schemas::viewer::Locale;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Where the parts of one kind stand, and their fields: for each of ours the places within a part.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    #[serde(default)]
    pub at: Vec<String>,
    #[serde(default)]
    pub fields: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub translations: Option<Box<Part>>,
    #[serde(default)]
    pub images: Option<Box<Part>>,
    #[serde(default)]
    pub episodes: Option<Box<Part>>,
}

/// The field of ours that the names of an object stand for, and the one a bare text stands for.
struct Keyed {
    key: &'static str,
    text: &'static str,
}

const TRANSLATIONS: Keyed = Keyed { key: "locale", text: "name" };
const IMAGES: Keyed = Keyed { key: "kind", text: "url" };
const SEASONS: Keyed = Keyed { key: "number", text: "" };

/// Fields of ours that a kind of part has.
pub const OF_TRANSLATIONS: [&str; 3] = ["locale", "name", "synopsis"];
pub const OF_REGIONS: [&str; 4] = ["region", "from", "until", "blocked"];
pub const OF_IMAGES: [&str; 3] = ["kind", "url", "locale"];
pub const OF_SEASONS: [&str; 4] = ["number", "name", "synopsis", "year"];
pub const OF_EPISODES: [&str; 10] =
    ["id", "number", "name", "synopsis", "runtime_min", "release_date", "poster", "backdrop", "still", "logo"];
/// Kinds of images that a place by itself may hold.
pub const IMAGE_KINDS: [&str; 4] = ["poster", "backdrop", "still", "logo"];

impl Part {
    /// Names a field that no part of this kind has.
    pub fn unknown_field(&self, known: &[&str]) -> Option<&str> {
        self.fields.keys().map(String::as_str).find(|field| !known.contains(field))
    }

    /// The parts of a document, each with its fields.
    fn read(&self, document: &Value, keyed: &Keyed) -> Vec<(Map<String, Value>, Value)> {
        let Some(found) =
            self.at.iter().filter_map(|path| super::at(document, path)).find(|found| !super::is_empty(found))
        else {
            return Vec::new();
        };
        let parts = members(found).unwrap_or_default();
        let read = |(name, part): (Option<String>, Value)| {
            let mut ours: Map<String, Value> = match &part {
                Value::Object(_) => {
                    let fields = self.fields.iter();
                    fields.filter_map(|(field, paths)| Some((field.clone(), first(&part, paths)?))).collect()
                }
                Value::Null => return None,
                bare => Map::from_iter([(keyed.text.to_string(), bare.clone())]),
            };
            if let Some(name) = name {
                ours.entry(keyed.key).or_insert(name.into());
            }
            Some((ours, part))
        };
        parts.into_iter().filter_map(read).collect()
    }
}

/// What a list has, or an object under its names; `Err`: it is neither.
pub fn members(found: Value) -> Result<Vec<(Option<String>, Value)>, Value> {
    match found {
        Value::Array(list) => Ok(list.into_iter().map(|one| (None, one)).collect()),
        Value::Object(object) => Ok(object.into_iter().map(|(name, one)| (Some(name), one)).collect()),
        other => Err(other),
    }
}

/// A language as it is told apart here: `de` for `de-AT`.
fn language(report: &mut Report, id: &str, tag: &str) -> Option<String> {
    let tag = tag.trim();
    let whole = tag.to_ascii_lowercase();
    let short = whole.split(['-', '_']).next().unwrap_or_default().to_string();
    if short.parse::<Locale>().is_err() {
        report.mend("no language; what is said in it is left out", format!("{id}: {tag:?}"));
        return None;
    }
    if short != whole {
        report.mend("a language of one country; taken for the language", format!("{id}: {tag}"));
    }
    Some(short)
}

/// `{de: {name, synopsis}}`; of two for one language the first.
pub fn translations(report: &mut Report, id: &str, part: Option<&Part>, document: &Value) -> Option<Value> {
    let mut all = Map::new();
    for (mut ours, _) in part?.read(document, &TRANSLATIONS) {
        let tag = ours.remove("locale");
        let Some(locale) = language(report, id, tag.as_ref().and_then(Value::as_str).unwrap_or_default()) else {
            continue;
        };
        ours.retain(|_, said| said.as_str().is_some_and(|said| !said.trim().is_empty()));
        if all.contains_key(&locale) {
            report.mend("a second translation into one language; left out", format!("{id}: {locale}"));
        } else if !ours.is_empty() {
            all.insert(locale, ours.into());
        }
    }
    (!all.is_empty()).then_some(Value::Object(all))
}

/// Images of a list, and those that stand at places of their own: `ours` loses these.
pub fn images(
    report: &mut Report,
    id: &str,
    part: Option<&Part>,
    ours: &mut Map<String, Value>,
    document: &Value,
) -> Option<Value> {
    let mut found: Vec<Map<String, Value>> = Vec::new();
    for kind in IMAGE_KINDS {
        for url in ours.remove(kind).as_ref().map(first_of).unwrap_or_default() {
            found.push(Map::from_iter([("kind".to_string(), kind.into()), ("url".to_string(), url)]));
        }
    }
    found.extend(part.map(|part| part.read(document, &IMAGES)).unwrap_or_default().into_iter().map(|(ours, _)| ours));
    let mut images = Vec::new();
    for mut image in found {
        let text = |name: &str| image.get(name).and_then(Value::as_str).map(str::trim).unwrap_or_default().to_string();
        let (kind, url, tag) = (text("kind").to_ascii_lowercase(), text("url"), text("locale"));
        let is_known = ImageKind::NAMES.iter().any(|(name, _)| *name == kind);
        let is_address = (url.starts_with("https://") || url.starts_with("/media/"))
            && url.len() <= 500
            && url.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_known || !is_address {
            let reason = if is_known {
                "an image without an https address; left out"
            } else {
                "an image of another kind; left out"
            };
            report.mend(reason, format!("{id}: {kind} {url}"));
            continue;
        }
        image.remove("locale");
        if !tag.is_empty() {
            let Some(locale) = language(report, id, &tag) else { continue };
            image.insert("locale".into(), locale.into());
        }
        image.insert("kind".into(), kind.into());
        image.insert("url".into(), url.into());
        let image = Value::Object(image);
        if !images.contains(&image) {
            images.push(image);
        }
    }
    (!images.is_empty()).then_some(Value::Array(images))
}

fn name_or(report: &mut Report, at: &str, ours: &mut Map<String, Value>, what: &str, number: i64) {
    let is_said = ours.get("name").and_then(Value::as_str).is_some_and(|name| !name.trim().is_empty());
    if !is_said {
        report.mend("a season or episode without a name; named by its number", at.to_string());
        ours.insert("name".into(), format!("{what} {number}").into());
    }
}

fn number_of(ours: &Map<String, Value>) -> Option<i64> {
    ours.get("number").and_then(Value::as_i64)
}

fn numbered(report: &mut Report, at: &str, ours: &mut Map<String, Value>) -> Option<i64> {
    whole_numbers(report, at, ours, &["number", "year", "runtime_min"]);
    number_of(ours)
}

/// The seasons within the document of a series that was taken.
pub fn take_seasons(batch: &mut Batch, collection: &Collection, series: &str, document: &Value) {
    let Some(part) = &collection.seasons else { return };
    for (place, (mut ours, within)) in part.read(document, &SEASONS).into_iter().enumerate() {
        let report = &mut batch.report;
        let Some(number) = numbered(report, series, &mut ours) else {
            report.refuse("season without a number", format!("{series}: season {} of its list", place + 1));
            continue;
        };
        ours.remove("number");
        let id = season_id(series, number);
        name_or(report, &id, &mut ours, "Season", number);
        if let Some(said) = translations(report, &id, part.translations.as_deref(), &within) {
            ours.insert("translations".into(), said);
        }
        if let Some(episodes) = &part.episodes {
            ours.insert("episodes".into(), read_episodes(report, episodes, (series, number), &within).into());
        }
        let taken = season(&id, &Value::Object(ours)).and_then(|season| {
            batch.taken.take([(SAME_ID, format!("season {id}"))]).map_err(|reason| (reason, id.clone()))?;
            Ok(season)
        });
        match taken {
            Ok(season) => batch.seasons.push((id, season)),
            Err((reason, what)) => batch.report.refuse(reason, what),
        }
    }
}

fn season(id: &str, value: &Value) -> Result<SeasonInput, (&'static str, String)> {
    let refused = |what: String| ("season with faults", format!("{id}: {what}"));
    validate::check_season_id(id).map_err(|error| refused(error.into()))?;
    validate::season(value).map_err(|faults| {
        let faults: Vec<_> = faults.into_iter().map(|fault| format!("{} {}", fault.at, fault.message)).collect();
        refused(faults.join(", "))
    })
}

fn read_episodes(report: &mut Report, part: &Part, (series, season): (&str, i64), within: &Value) -> Vec<Value> {
    let mut episodes = Vec::new();
    for (place, (mut ours, document)) in part.read(within, &SEASONS).into_iter().enumerate() {
        let at = season_id(series, season);
        let Some(number) = numbered(report, &at, &mut ours) else {
            report.refuse("episode without a number", format!("{at}: episode {} of its list", place + 1));
            continue;
        };
        // Ids are the whole catalogue's, and what a season of another series calls its own is often the same.
        let id = ours.remove("id").as_ref().and_then(id_of).unwrap_or_else(|| format!("{series}-{season}-{number}"));
        name_or(report, &id, &mut ours, "Episode", number);
        super::cut_date(&mut ours);
        if let Some(said) = translations(report, &id, part.translations.as_deref(), &document) {
            ours.insert("translations".into(), said);
        }
        if let Some(images) = images(report, &id, part.images.as_deref(), &mut ours, &document) {
            ours.insert("images".into(), images);
        }
        ours.insert("id".into(), id.into());
        episodes.push(Value::Object(ours));
    }
    episodes
}
