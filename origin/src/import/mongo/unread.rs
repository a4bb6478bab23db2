//! Which fields of a document no mapping names: they are taken over by nobody, and the report says so.
use super::Collection;
use super::parts::Part;
use serde_json::Value;
use std::collections::BTreeSet;

/// Places a mapping reads, `*` standing for any name.
pub struct Known(BTreeSet<String>);

impl Known {
    pub fn of(collection: &Collection) -> Self {
        let mut known = BTreeSet::new();
        let named = collection.fields.values().chain(collection.people.values()).flatten();
        known.extend(named.cloned());
        for part in [&collection.translations, &collection.regions, &collection.images, &collection.seasons] {
            add(&mut known, "", part.as_ref());
        }
        Self(known)
    }

    fn has(&self, path: &str) -> bool {
        self.0.contains(path)
    }

    /// Whether something further down is read.
    fn leads_on(&self, path: &str) -> bool {
        let below = format!("{path}.");
        self.0.range(below.clone()..).next().is_some_and(|next| next.starts_with(&below))
    }

    /// Every place of a document that is not read, each once.
    pub fn unread(&self, document: &Value) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.look(document, ("", ""), &mut found);
        found
    }

    /// `shown`: the path as it is reported; `by`: as it is known.
    fn look(&self, value: &Value, (shown, by): (&str, &str), found: &mut BTreeSet<String>) {
        let Value::Object(object) = value else { return };
        let any = below(by, "*");
        for (name, child) in object {
            // The names of an object may be anything, where it is known by that.
            let path = if self.has(&any) || self.leads_on(&any) { any.clone() } else { below(by, name) };
            let shown = if path == any { below(shown, "*") } else { below(shown, name) };
            let list = (format!("{path}[]"), format!("{shown}[]"));
            match child {
                Value::Null => {}
                Value::Array(items) if items.iter().any(Value::is_object) && self.leads_on(&list.0) => {
                    items.iter().for_each(|item| self.look(item, (&list.1, &list.0), found));
                }
                Value::Object(_) if self.leads_on(&path) => self.look(child, (&shown, &path), found),
                _ if self.has(&path) || self.has(&list.0) => {}
                _ => _ = found.insert(shown),
            }
        }
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

fn add(known: &mut BTreeSet<String>, under: &str, part: Option<&Part>) {
    let Some(part) = part else { return };
    for at in &part.at {
        let at = below(under, at);
        // As a list, and as an object of any names, whose values may be bare.
        known.insert(format!("{at}.*"));
        for each in [format!("{at}[]"), format!("{at}.*")] {
            known.extend(part.fields.values().flatten().map(|path| below(&each, path)));
            for part in [&part.translations, &part.images, &part.episodes] {
                add(known, &each, part.as_deref());
            }
        }
    }
}
