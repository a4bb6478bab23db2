//! What viewers may still be shown of titles that are being edited. An editor's words carry a version; once the purge of an
//! edit is in the edge's journal for longer than the bound, an answer with an older version is a violation. What is
//! checked is what the edge promises, with no allowance besides: time counts from when the receipt was in an editor's hands.
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Which words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Words {
    /// Only a title's own pages have it.
    Synopsis,
    /// Every page that shows the title has it.
    Name,
}

const MARK: &str = ", as told for the ";

/// Words with a version in them.
pub fn told(words: &str, version: u64) -> String {
    let plain = words.split(MARK).next().unwrap_or_default();
    format!("{plain}{MARK}{version}th time")
}

/// 0 for words nobody has edited.
pub fn version_of(words: &str) -> u64 {
    let version = words.split(MARK).nth(1).and_then(|rest| rest.strip_suffix("th time"));
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// In an edge's journal since some moment.
#[derive(Debug)]
struct Landed {
    version: u64,
    since: Instant,
}

#[derive(Debug)]
pub struct Truth {
    bound: Duration,
    landed: Mutex<HashMap<(u64, Words), Vec<Landed>>>,
}

impl Truth {
    pub fn new(bound: Duration) -> Self {
        Self { bound, landed: Mutex::default() }
    }

    fn landed(&self) -> MutexGuard<'_, HashMap<(u64, Words), Vec<Landed>>> {
        self.landed.lock().expect("poisoned")
    }

    /// The journal has the purge of an edit.
    pub fn lands(&self, title: u64, words: Words, version: u64) {
        let landed = Landed { version, since: Instant::now() };
        self.landed().entry((title, words)).or_default().push(landed);
    }

    /// The least version an answer may have to what was asked then.
    fn least(&self, title: u64, words: Words, asked: Instant) -> u64 {
        let landed = self.landed();
        let old = landed.get(&(title, words)).into_iter().flatten();
        let known = old.filter(|landed| landed.since + self.bound < asked).map(|landed| landed.version);
        known.max().unwrap_or(0)
    }

    /// Whether an answer about this title can be wrong.
    pub fn is_edited(&self, title: u64) -> bool {
        let landed = self.landed();
        [Words::Synopsis, Words::Name].iter().any(|words| landed.contains_key(&(title, *words)))
    }

    /// The edited titles, each with its newest versions.
    pub fn newest(&self) -> Vec<(u64, Words, u64)> {
        let landed = self.landed();
        let newest = |all: &Vec<Landed>| all.iter().map(|landed| landed.version).max().unwrap_or(0);
        landed.iter().map(|((title, words), all)| (*title, *words, newest(all))).collect()
    }

    /// Looks at every title a document shows. Returns how many of their words were compared, and what is wrong.
    pub fn check(&self, document: &Value, asked: Instant) -> (u64, Vec<String>) {
        let (mut count, mut wrong) = (0, Vec::new());
        let mut left = vec![document];
        while let Some(value) = left.pop() {
            match value {
                Value::Array(items) => left.extend(items),
                Value::Object(members) => {
                    left.extend(members.values());
                    let id = members.get("id").and_then(Value::as_str).unwrap_or_default();
                    let Some(title) = id.strip_prefix("title-").and_then(|n| n.parse().ok()) else { continue };
                    for (name, words) in [("synopsis", Words::Synopsis), ("name", Words::Name)] {
                        let Some(shown) = members.get(name).and_then(Value::as_str) else { continue };
                        let least = self.least(title, words, asked);
                        count += u64::from(least > 0);
                        if version_of(shown) < least {
                            wrong.push(format!("{id}: {name} is {shown:?}, and version {least} has landed"));
                        }
                    }
                }
                _ => {}
            }
        }
        (count, wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_older_than_what_landed_a_bound_ago_are_found_wherever_they_stand() {
        let truth = Truth::new(Duration::from_millis(0));
        truth.lands(7, Words::Name, 2);
        let asked = Instant::now() + Duration::from_millis(1);
        let home = |name: String| json!({"rails": [{"id": "top", "items": [{"id": "title-7", "name": name}]}]});
        assert_eq!(truth.check(&home(told("Heat", 2)), asked), (1, vec![]));
        assert_eq!(truth.check(&home(told("Heat", 3)), asked), (1, vec![]), "newer is good");
        assert_eq!(truth.check(&home(told("Heat", 1)), asked).1.len(), 1);
        assert_eq!(truth.check(&home("Heat".into()), asked).1.len(), 1);
        assert_eq!(truth.check(&json!({"id": "title-8", "name": "Up"}), asked), (0, vec![]));
        let patient = Truth::new(Duration::from_secs(60));
        patient.lands(7, Words::Name, 2);
        assert_eq!(patient.check(&home("Heat".into()), asked), (0, vec![]), "within the bound");
    }

    #[test]
    fn a_version_replaces_the_one_before() {
        assert_eq!(version_of(&told(&told("Heat", 1), 12)), 12);
        assert_eq!(told(&told("Heat", 1), 12), told("Heat", 12));
        assert_eq!(version_of("Heat"), 0);
    }
}
