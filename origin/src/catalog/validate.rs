//! From JSON to a title, naming every fault at once: each with its JSON Pointer, so that a form can mark its fields.
use crate::catalog::model::{Credit, TitleInput, sort_name};
use jiff::Timestamp;
use kv_schemas::Problem;
use kv_schemas::problem::Fault;
use serde_json::{Map, Value};

pub const ID_BYTES_MAX: usize = 80;
const NAME_CHARS_MAX: usize = 300;
const TEXT_CHARS_MAX: usize = 5_000;
const GENRES_MAX: usize = 20;
const PEOPLE_MAX: usize = 200;

/// What an answer carries and a write may send back unchanged.
const READ_ONLY: [&str; 5] = ["id", "version", "visible", "created_at_ms", "updated_at_ms"];
const FIELDS: [&str; 15] = [
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
    "people",
    "published",
    "available_from",
    "available_until",
];

/// A title's id: `a-z`, `0-9` and inner `-`, 1 to 80 bytes.
pub fn check_id(id: &str) -> Result<(), &'static str> {
    let legal = id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if id.is_empty() || id.len() > ID_BYTES_MAX || !legal || id.starts_with('-') || id.ends_with('-') {
        return Err("an id is 1 to 80 characters out of a-z, 0-9 and '-', and begins and ends with a letter or digit");
    }
    Ok(())
}

struct Reader<'a> {
    object: &'a Map<String, Value>,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, at: &str, message: impl Into<String>) {
        self.faults.push(Fault { at: format!("/{at}"), message: message.into() });
    }

    fn present(&self, name: &str) -> Option<&Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &str, chars_max: usize) -> Option<String> {
        let value = self.present(name)?;
        let text = value.as_str().map(|text| text.trim().to_string());
        match text {
            None => self.fault(name, "must be text"),
            Some(text) if text.is_empty() => self.fault(name, "must not be empty"),
            Some(text) if text.chars().count() > chars_max => {
                self.fault(name, format!("must have at most {chars_max} characters"));
            }
            Some(text) if text.chars().any(|c| c.is_control() && c != '\n') => {
                self.fault(name, "must not contain control characters");
            }
            Some(text) => return Some(text),
        }
        None
    }

    fn integer(&mut self, name: &str, min: i64, max: i64) -> Option<i64> {
        let value = self.present(name)?;
        match value.as_i64().filter(|n| (min..=max).contains(n)) {
            None => {
                self.fault(name, format!("must be a whole number from {min} to {max}"));
                None
            }
            number => number,
        }
    }

    fn rating(&mut self) -> Option<f64> {
        let value = self.present("rating")?;
        match value.as_f64().filter(|rating| (0.0..=10.0).contains(rating)) {
            None => {
                self.fault("rating", "must be a number from 0 to 10");
                None
            }
            rating => rating,
        }
    }

    fn date(&mut self) -> Option<String> {
        let text = self.text("release_date", 10)?;
        if text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok() {
            return Some(text);
        }
        self.fault("release_date", "must be a date of the form YYYY-MM-DD");
        None
    }

    fn timestamp(&mut self, name: &str) -> Option<Timestamp> {
        let text = self.text(name, 40)?;
        let parsed = text.parse::<Timestamp>().ok();
        if parsed.is_none() {
            self.fault(name, "must be a date and time with an offset, such as 2027-01-31T22:00:00Z (RFC 3339)");
        }
        parsed
    }

    fn genres(&mut self) -> Vec<String> {
        let Some(value) = self.present("genres").cloned() else { return Vec::new() };
        let Some(list) = value.as_array().filter(|list| list.len() <= GENRES_MAX) else {
            self.fault("genres", format!("must be a list of at most {GENRES_MAX} names"));
            return Vec::new();
        };
        let mut names: Vec<String> = Vec::new();
        for (index, name) in list.iter().enumerate() {
            let name = name.as_str().map(str::trim).filter(|name| name.chars().count() <= 60);
            match name.filter(|name| !crate::catalog::model::slug(name).is_empty()) {
                None => self.fault(&format!("genres/{index}"), "must be a name of at most 60 characters with a letter"),
                Some(name) if names.iter().any(|n| n == name) => {}
                Some(name) => names.push(name.to_string()),
            }
        }
        names
    }

    fn people(&mut self) -> Vec<Credit> {
        let Some(value) = self.present("people").cloned() else { return Vec::new() };
        let Some(list) = value.as_array().filter(|list| list.len() <= PEOPLE_MAX) else {
            self.fault("people", format!("must be a list of at most {PEOPLE_MAX} {{name, role}}"));
            return Vec::new();
        };
        let mut people = Vec::new();
        for (index, credit) in list.iter().enumerate() {
            match serde_json::from_value::<Credit>(credit.clone()) {
                Ok(credit)
                    if !crate::catalog::model::slug(&credit.name).is_empty()
                        && credit.name.chars().count() <= NAME_CHARS_MAX
                        && (1..=60).contains(&credit.role.chars().count()) =>
                {
                    people.push(credit);
                }
                _ => self.fault(&format!("people/{index}"), "must be {name, role}, both text and not empty"),
            }
        }
        people
    }
}

/// Reads a whole title. `Err` lists every fault.
pub fn title(value: &Value) -> Result<TitleInput, Vec<Fault>> {
    let Some(object) = value.as_object() else {
        return Err(vec![Fault { at: String::new(), message: "must be a JSON object".into() }]);
    };
    let mut reader = Reader { object, faults: Vec::new() };
    for name in object.keys() {
        if !FIELDS.contains(&name.as_str()) && !READ_ONLY.contains(&name.as_str()) {
            reader.fault(&name.replace('~', "~0").replace('/', "~1"), "is not a field of a title");
        }
    }
    let name = reader.text("name", NAME_CHARS_MAX);
    if reader.present("name").is_none() {
        reader.fault("name", "is required");
    }
    let published = match reader.present("published") {
        None => true,
        Some(Value::Bool(published)) => *published,
        Some(_) => {
            reader.fault("published", "must be true or false");
            true
        }
    };
    let sort = reader.text("sort_name", NAME_CHARS_MAX);
    let input = TitleInput {
        sort_name: sort.unwrap_or_else(|| sort_name(name.as_deref().unwrap_or_default())),
        name: name.unwrap_or_default(),
        year: reader.integer("year", 1870, 2200),
        release_date: reader.date(),
        synopsis: reader.text("synopsis", TEXT_CHARS_MAX),
        maturity: reader.text("maturity", 20),
        runtime_min: reader.integer("runtime_min", 1, 10_000),
        rating: reader.rating(),
        votes: reader.integer("votes", 0, 1_000_000_000_000),
        distributor: reader.text("distributor", NAME_CHARS_MAX),
        genres: reader.genres(),
        people: reader.people(),
        published,
        available_from: reader.timestamp("available_from"),
        available_until: reader.timestamp("available_until"),
    };
    if matches!((input.available_from, input.available_until), (Some(from), Some(until)) if until <= from) {
        reader.fault("available_until", "must be later than available_from");
    }
    if reader.faults.is_empty() { Ok(input) } else { Err(reader.faults) }
}

/// The answer to faulty input.
pub fn refused(faults: Vec<Fault>) -> Problem {
    let mut problem = Problem::new(422, "invalid-title", "The title has faults; nothing was changed");
    problem.errors = faults;
    problem
}

/// RFC 7396 JSON Merge Patch.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(object) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            object.remove(name);
        } else {
            merge_patch(object.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_fault_is_named_at_once() {
        let bad = json!({"name": " ", "year": 99, "rating": 11, "genres": ["ok", "!!", 3], "people": [{"name": "A"}],
            "release_date": "1999-02-30", "published": "yes", "nmae": 1, "votes": 1.5,
            "available_from": "2027-01-31"});
        let faults = title(&bad).unwrap_err();
        let mut at: Vec<_> = faults.iter().map(|fault| fault.at.as_str()).collect();
        at.sort_unstable();
        let expected = [
            "/available_from",
            "/genres/1",
            "/genres/2",
            "/name",
            "/nmae",
            "/people/0",
            "/published",
            "/rating",
            "/release_date",
            "/votes",
            "/year",
        ];
        assert_eq!(at, expected);
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let input = title(&json!({"name": "The Heat"})).unwrap();
        assert_eq!((input.sort_name.as_str(), input.published, input.genres.len()), ("heat", true, 0));
        assert_eq!(title(&json!([])).unwrap_err().len(), 1);
    }

    #[test]
    fn a_window_that_ends_before_it_begins_is_refused() {
        let input = json!({"name": "Heat", "available_from": "2027-01-31T22:00:00Z",
            "available_until": "2027-01-31T23:00:00+01:00"});
        assert_eq!(title(&input).unwrap_err()[0].at, "/available_until");
    }

    #[test]
    fn ids_are_plain() {
        assert!(check_id("heat-1995").is_ok());
        for bad in ["", "-a", "a-", "A", "a b", "a/b", "é", &"x".repeat(81)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_merge_patch_sets_removes_and_replaces_lists_as_in_rfc_7396() {
        let mut target = json!({"a": "b", "c": {"d": "e", "f": "g"}, "l": [1, 2]});
        merge_patch(&mut target, &json!({"a": "z", "c": {"f": null}, "l": [3]}));
        assert_eq!(target, json!({"a": "z", "c": {"d": "e"}, "l": [3]}));
    }
}
