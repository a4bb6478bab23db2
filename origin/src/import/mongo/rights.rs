//! Who may see a title, and when. What cannot be read of it is neither passed over nor dropped but kept as something that
//! validation refuses, and with it the whole document: left out, it would be shown where it must not be.
use super::Collection;
use super::parts::{Part, members};
use crate::catalog::countries;
use crate::import::Report;
use serde_json::{Map, Value, json};

/// Fields of a title that are read so.
pub const FIELDS: [&str; 5] = ["state", "published", "available_from", "available_until", BLOCKED];
const BLOCKED: &str = "blocked_regions";

/// No field's value and no region's window.
fn unreadable() -> Value {
    json!({"$": null})
}

/// What extended JSON says in a way that cannot be read.
pub fn is_unread(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.len() == 1 && object.keys().all(|name| name.starts_with('$')))
}

/// Nulls in place of what cannot be read, for all that decides nothing; and where that was.
pub fn forget_unread(document: &mut Value) -> Vec<String> {
    let mut places = Vec::new();
    forget(document, "", &mut places);
    places
}

fn forget(value: &mut Value, place: &str, places: &mut Vec<String>) {
    match value {
        unread if is_unread(unread) => {
            *unread = Value::Null;
            places.push(place.to_string());
        }
        Value::Array(list) => list.iter_mut().for_each(|one| forget(one, place, places)),
        Value::Object(object) => {
            for (name, one) in object {
                let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
                forget(one, &place, places);
            }
        }
        _ => {}
    }
}

/// What the first place has that has something, readable or not.
pub fn first(document: &Value, paths: &[String]) -> Option<Value> {
    paths.iter().filter_map(|path| at(document, path)).find(|value| !super::is_empty(value))
}

/// What stands at a place; `None` only if nothing does. Of a list, what each member has there.
fn at(value: &Value, path: &str) -> Option<Value> {
    let (head, rest) = path.split_once('.').unwrap_or((path, ""));
    let (name, is_list) = head.strip_suffix("[]").map_or((head, false), |name| (name, true));
    let found = match value {
        Value::Object(object) if !is_unread(value) => object.get(name).filter(|found| !found.is_null())?,
        _ => return Some(unreadable()),
    };
    match (rest.is_empty(), is_list, found) {
        (true, ..) => Some(found.clone()),
        (false, false, _) => at(found, rest),
        (false, true, Value::Array(list)) if list.is_empty() => None,
        (false, true, Value::Array(list)) => {
            Some(list.iter().map(|one| at(one, rest).unwrap_or_else(unreadable)).collect())
        }
        (false, true, _) => Some(unreadable()),
    }
}

/// All of a title's rights, as fields of ours. `number`: the document's.
pub fn of_title(report: &mut Report, number: usize, collection: &Collection, document: &Value) -> Map<String, Value> {
    let mut ours = Map::new();
    let mut code = |text: &str| {
        let code = text.trim().to_ascii_uppercase();
        let Some(mended) = countries::mended(&code) else { return code };
        report.mend("a country by a code that is not its own of ISO 3166", format!("document {number}: {code}"));
        mended.to_string()
    };
    let mut regions = windows(collection.regions.as_ref(), document, &mut code);
    for (field, paths) in collection.fields.iter().filter(|(field, _)| FIELDS.contains(&field.as_str())) {
        let mut found =
            paths.iter().filter_map(|path| at(document, path)).map(|value| collection.renamed(field, value));
        if field == BLOCKED {
            found.for_each(|value| block(&mut regions, &value, &mut code));
        } else if let Some(value) = found.next() {
            ours.insert(field.clone(), value);
        }
    }
    if !regions.is_empty() {
        ours.insert("regions".into(), regions.into());
    }
    ours
}

/// `{DE: {from, until, blocked}}`, of all places.
fn windows(part: Option<&Part>, document: &Value, code: &mut impl FnMut(&str) -> String) -> Map<String, Value> {
    let mut all = Map::new();
    let Some(part) = part else { return all };
    for found in part.at.iter().filter_map(|path| at(document, path)) {
        for (name, window) in members(found).unwrap_or_else(|bare| vec![(None, bare)]) {
            let (said, window) = window_of(part, &window);
            let region = said.or(name.map(Value::from));
            let region = region.and_then(|region| Some(code(region.as_str()?)));
            let region = region.unwrap_or_default();
            // Two for one region contradict each other.
            let is_other = all.get(&region).is_some_and(|known| *known != window);
            all.insert(region, if is_other { Value::Null } else { window });
        }
    }
    all
}

/// The region a window names, and the window.
fn window_of(part: &Part, window: &Value) -> (Option<Value>, Value) {
    if !window.is_object() || is_unread(window) {
        return (None, Value::Null);
    }
    let read = |(field, paths): (&String, &Vec<String>)| {
        Some((field.clone(), paths.iter().find_map(|path| at(window, path))?))
    };
    let mut ours: Map<String, Value> = part.fields.iter().filter_map(read).collect();
    (ours.remove("region"), ours.into())
}

/// Regions by themselves: one text with commas, or a list of texts.
fn block(regions: &mut Map<String, Value>, value: &Value, code: &mut impl FnMut(&str) -> String) {
    let names: Vec<Option<&str>> = match value {
        Value::String(text) => text.split(',').map(Some).collect(),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        // By the mapping: no region at all.
        Value::Null => Vec::new(),
        _ => vec![None],
    };
    for name in names {
        match name.map(str::trim) {
            Some("") => {}
            Some(name) => _ = regions.insert(code(name), json!({"blocked": true})),
            None => _ = regions.insert(String::new(), Value::Null),
        }
    }
}
