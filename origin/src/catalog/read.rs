//! Reading fields out of JSON, naming every fault at once: each with its JSON Pointer (RFC 6901), so that a form can mark
//! its fields. [`crate::catalog::validate`] says with it what each kind may hold.
use jiff::Timestamp;
use kv_schemas::problem::Fault;
use serde_json::{Map, Value};

pub const NAME_CHARS_MAX: usize = 300;
pub const TEXT_CHARS_MAX: usize = 5_000;

/// An object being read; `at` is where it stands.
pub struct Reader<'a> {
    object: &'a Map<String, Value>,
    at: String,
    pub faults: Vec<Fault>,
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

impl<'a> Reader<'a> {
    /// `what`: as in "is not a field of a title".
    pub fn open(value: &'a Value, at: &str, what: &str, fields: &[&[&str]]) -> Result<Self, Vec<Fault>> {
        let Some(object) = value.as_object() else {
            return Err(vec![Fault { at: at.into(), message: "must be a JSON object".into() }]);
        };
        let mut reader = Self { object, at: at.into(), faults: Vec::new() };
        for name in object.keys() {
            if !fields.iter().any(|known| known.contains(&name.as_str())) {
                reader.fault(&escaped(name), format!("is not a field of a {what}"));
            }
        }
        Ok(reader)
    }

    pub fn end<T>(self, value: T) -> Result<T, Vec<Fault>> {
        if self.faults.is_empty() { Ok(value) } else { Err(self.faults) }
    }

    pub fn fault(&mut self, name: &str, message: impl Into<String>) {
        self.faults.push(Fault { at: format!("{}/{name}", self.at), message: message.into() });
    }

    /// A field that is there and not null.
    pub fn present(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    pub fn required(&mut self, name: &str) {
        if self.present(name).is_none() {
            self.fault(name, "is required");
        }
    }

    pub fn text(&mut self, name: &str, chars_max: usize) -> Option<String> {
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

    pub fn integer(&mut self, name: &str, min: i64, max: i64) -> Option<i64> {
        let value = self.present(name)?;
        let number = value.as_i64().filter(|n| (min..=max).contains(n));
        if number.is_none() {
            self.fault(name, format!("must be a whole number from {min} to {max}"));
        }
        number
    }

    pub fn number(&mut self, name: &str, min: f64, max: f64) -> Option<f64> {
        let value = self.present(name)?;
        let number = value.as_f64().filter(|n| (min..=max).contains(n));
        if number.is_none() {
            self.fault(name, format!("must be a number from {min} to {max}"));
        }
        number
    }

    pub fn flag(&mut self, name: &str) -> Option<bool> {
        let value = self.present(name)?;
        if value.as_bool().is_none() {
            self.fault(name, "must be true or false");
        }
        value.as_bool()
    }

    /// One of a few words. `expected`: as in "must be …".
    pub fn word<T>(&mut self, name: &str, expected: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = self.present(name)?;
        let word = value.as_str().and_then(read);
        if word.is_none() {
            self.fault(name, format!("must be {expected}"));
        }
        word
    }

    pub fn date(&mut self, name: &str) -> Option<String> {
        let text = self.text(name, 10)?;
        if text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok() {
            return Some(text);
        }
        self.fault(name, "must be a date of the form YYYY-MM-DD");
        None
    }

    /// To the millisecond, as moments are kept: what is finer would differ from itself when it is read again.
    pub fn timestamp(&mut self, name: &str) -> Option<Timestamp> {
        let text = self.text(name, 40)?;
        let parsed = text.parse::<Timestamp>().ok();
        let parsed = parsed.and_then(|moment| Timestamp::from_millisecond(moment.as_millisecond()).ok());
        if parsed.is_none() {
            self.fault(name, "must be a date and time with an offset, such as 2027-01-31T22:00:00Z (RFC 3339)");
        }
        parsed
    }

    /// A list, each member read by itself: `Err` is what it must be.
    pub fn list<T>(
        &mut self,
        name: &str,
        len_max: usize,
        of: &str,
        mut read: impl FnMut(&'a Value, &str) -> Result<T, Vec<Fault>>,
    ) -> Vec<T> {
        let Some(value) = self.present(name) else { return Vec::new() };
        let Some(list) = value.as_array().filter(|list| list.len() <= len_max) else {
            self.fault(name, format!("must be a list of at most {len_max} {of}"));
            return Vec::new();
        };
        let mut all = Vec::with_capacity(list.len());
        for (index, member) in list.iter().enumerate() {
            match read(member, &format!("{}/{name}/{index}", self.at)) {
                Ok(member) => all.push(member),
                Err(faults) => self.faults.extend(faults),
            }
        }
        all
    }

    /// An object whose names are data too.
    pub fn map<K: Ord, T>(
        &mut self,
        name: &str,
        len_max: usize,
        of: &str,
        key: impl Fn(&str) -> Option<K>,
        mut read: impl FnMut(&'a Value, &str) -> Result<T, Vec<Fault>>,
    ) -> std::collections::BTreeMap<K, T> {
        let mut all = std::collections::BTreeMap::new();
        let Some(value) = self.present(name) else { return all };
        let Some(map) = value.as_object().filter(|map| map.len() <= len_max) else {
            self.fault(name, format!("must be an object of at most {len_max} {of}"));
            return all;
        };
        for (word, member) in map {
            let at = format!("{}/{name}/{}", self.at, escaped(word));
            match (key(word), read(member, &at)) {
                (Some(key), Ok(member)) => _ = all.insert(key, member),
                (None, _) => self.faults.push(Fault { at, message: format!("is not one of the {of}") }),
                (_, Err(faults)) => self.faults.extend(faults),
            }
        }
        all
    }
}

/// One fault.
pub fn wrong<T>(at: &str, message: impl Into<String>) -> Result<T, Vec<Fault>> {
    Err(vec![Fault { at: at.into(), message: message.into() }])
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
    fn a_merge_patch_sets_removes_and_replaces_lists_as_in_rfc_7396() {
        let mut target = json!({"a": "b", "c": {"d": "e", "f": "g"}, "l": [1, 2]});
        merge_patch(&mut target, &json!({"a": "z", "c": {"f": null}, "l": [3]}));
        assert_eq!(target, json!({"a": "z", "c": {"d": "e"}, "l": [3]}));
    }

    #[test]
    fn faults_stand_where_they_are_in_the_whole() {
        let value = json!({"l": [1, {"n": ""}], "m": {"x/y": 1}});
        let mut reader = Reader::open(&value, "/top", "thing", &[&["l", "m"]]).unwrap();
        reader.list("l", 5, "things", |member, at| {
            let mut inner = Reader::open(member, at, "part", &[&["n"]])?;
            let name = inner.text("n", 5);
            inner.end(name)
        });
        reader.map("m", 5, "words", |word| (word == "z").then_some(1), |_, _| Ok(()));
        let at: Vec<_> = reader.faults.iter().map(|fault| fault.at.as_str()).collect();
        assert_eq!(at, ["/top/l/0", "/top/l/1/n", "/top/m/x~1y"]);
    }
}
