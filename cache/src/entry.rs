//! An entry in memory: the stored head, what was computed from it once, and a handle to the body.
use crate::fields::Fields;
use crate::policy::{Policy, ResponseHead, Rules};
use crate::range::ContentRange;
use kv_schemas::AsOf;
use kv_schemas::entry::EntryHead;
use kv_schemas::header::{CACHE_TAG, SURROGATE_KEY};
use kv_schemas::key_class::viewer_key;
use kv_schemas::surrogate_key::{KeyHash, SurrogateKeyError, hash, hash_lists, url_key};

/// What places an entry: its key, the state it was read at, and the hashes of its surrogate keys, sorted.
#[derive(Clone, Debug)]
pub struct Stamp {
    pub key: String,
    pub as_of: Option<AsOf>,
    pub keys: Vec<KeyHash>,
}

/// When something happened in an isolate. Which of two came first is told by their numbers: a clock may have been set back in
/// between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalTime {
    /// See [`crate::engine::Engine::next_event`].
    pub event: u64,
    pub at_ms: u64,
}

/// A stored answer. `B` is the caller's body: bytes natively, a JavaScript buffer in the Worker.
#[derive(Clone, Debug)]
pub struct Entry<B> {
    pub key: String,
    pub head: ResponseHead,
    pub as_of: Option<AsOf>,
    /// Hashes of its surrogate keys, sorted.
    pub keys: Vec<KeyHash>,
    pub policy: Policy,
    pub body: B,
    pub body_bytes: u64,
    /// Not empty: this is no answer but a marker that says which request fields select between answers.
    pub varies_on: Vec<String>,
    /// When this very isolate asked origin, which gave or confirmed it. Never stored: another isolate has other events and
    /// another clock.
    pub origin_confirmed: Option<LocalTime>,
}

/// Hashes of the surrogate keys an answer can be purged by: those it names, and that of its URL.
pub fn surrogate_keys(key: &str, fields: &Fields) -> Result<Vec<KeyHash>, SurrogateKeyError> {
    let mut keys = hash_lists(fields.joined(SURROGATE_KEY).as_deref(), fields.joined(CACHE_TAG).as_deref())?;
    let url = url_key(target_of(key)).hash();
    let viewer = viewer_of(key).map(|viewer| hash(&viewer_key(viewer)));
    for own in [Some(url), viewer].into_iter().flatten() {
        if let Err(place) = keys.binary_search(&own) {
            keys.insert(place, own);
        }
    }
    Ok(keys)
}

/// The key of the answer to a GET of this path with its query.
pub fn key_of(target: &str) -> String {
    format!("GET {target}")
}

/// The same for an answer that depends on who asks: `about` is what it depends on, each as `;name=value`, always in the
/// same order and without spaces.
pub fn key_about(about: &str, target: &str) -> String {
    format!("GET{about} {target}")
}

/// The path with its query a key stands for; variants and parts carry more lines.
pub fn target_of(key: &str) -> &str {
    let line = key.split('\n').next().unwrap_or_default();
    line.split_once(' ').map_or(line, |(_, target)| target)
}

/// What a key's answer depends on, each as `;name=value`.
pub fn about_of(key: &str) -> &str {
    key.split([' ', '\n']).next().and_then(|first| first.strip_prefix("GET")).unwrap_or_default()
}

/// Whose answer it is, if it is one viewer's own: a key that begins with `;viewer=`. Such an entry lives in the memory of
/// an isolate and nowhere else; the key says so itself, so that no way through the engine can forget it.
pub fn viewer_of(key: &str) -> Option<&str> {
    key.strip_prefix("GET;viewer=")?.split([';', ' ', '\n']).next()
}

/// Where the one part of an answer that is not held whole is kept. No field has an empty name, so no variant is here.
pub fn part_key(key: &str) -> String {
    format!("{key}\n:part")
}

impl<B> Entry<B> {
    pub fn new(stamp: Stamp, head: ResponseHead, rules: Rules, body: B, bytes: u64) -> Self {
        let Stamp { key, as_of, keys } = stamp;
        let policy = Policy::of(&head, rules);
        Self { key, head, as_of, keys, policy, body, body_bytes: bytes, varies_on: Vec::new(), origin_confirmed: None }
    }

    /// An entry as it was read from a tier. What is one viewer's own was never stored: such bytes are not ours.
    pub fn from_stored(head: EntryHead, rules: Rules, body: B) -> Option<Self> {
        if viewer_of(&head.key).is_some() {
            return None;
        }
        let response = ResponseHead {
            status: head.status,
            fields: head.fields,
            request_time_ms: head.request_time_ms,
            response_time_ms: head.response_time_ms,
        };
        let stamp = Stamp { key: head.key, as_of: head.as_of, keys: head.keys };
        let mut entry = Self::new(stamp, response, rules, body, head.body_bytes);
        entry.varies_on = head.varies_on;
        Some(entry)
    }

    /// The head as tiers keep it.
    pub fn to_stored(&self) -> EntryHead {
        EntryHead {
            key: self.key.clone(),
            status: self.head.status,
            fields: self.head.fields.clone(),
            as_of: self.as_of.clone(),
            request_time_ms: self.head.request_time_ms,
            response_time_ms: self.head.response_time_ms,
            body_bytes: self.body_bytes,
            varies_on: self.varies_on.clone(),
            keys: self.keys.clone(),
        }
    }

    pub fn is_marker(&self) -> bool {
        !self.varies_on.is_empty()
    }

    /// Which bytes of the whole it holds, if it is a part. Parts live in memory alone.
    pub fn part(&self) -> Option<ContentRange> {
        if self.head.status == 206 { ContentRange::of(&self.head.fields) } else { None }
    }

    /// Whether this entry was read at a later state of the same log.
    pub fn is_of_later_state_than<C>(&self, other: &Entry<C>) -> bool {
        matches!((&self.as_of, &other.as_of), (Some(a), Some(b)) if a.log_id == b.log_id && a.seq > b.seq)
    }

    /// Whether this entry should replace `other`: a later state of the same log, else what origin gave to this very
    /// isolate, else what says at which state it was read. Times of other isolates' clocks decide last: one that is
    /// ahead would keep its entry for good.
    pub fn is_newer_than<C>(&self, other: &Entry<C>) -> bool {
        match (&self.as_of, &other.as_of) {
            (Some(a), Some(b)) if a.log_id == b.log_id && a.seq != b.seq => a.seq > b.seq,
            (ours, theirs) => {
                let rank =
                    |confirmed: Option<LocalTime>, as_of: &Option<AsOf>, at_ms| (confirmed, as_of.is_some(), at_ms);
                rank(self.origin_confirmed, ours, self.head.response_time_ms)
                    >= rank(other.origin_confirmed, theirs, other.head.response_time_ms)
            }
        }
    }

    /// What it weighs in memory, in bytes.
    pub fn weight(&self) -> u64 {
        const OVERHEAD: u64 = 512;
        let of = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        OVERHEAD
            .saturating_add(self.body_bytes)
            .saturating_add(of(self.head.fields.bytes()))
            .saturating_add(of(self.key.len()))
            .saturating_add(of(self.keys.len()).saturating_mul(8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_what_its_answer_depends_on_and_whose_it_is() {
        for (key, about, target, viewer) in [
            ("GET /v1/home", "", "/v1/home", None),
            ("GET;region=DE;locale=de /v1/home\nx:1:;viewer=", ";region=DE;locale=de", "/v1/home", None),
            ("GET;viewer=u1;session=s /v1/me", ";viewer=u1;session=s", "/v1/me", Some("u1")),
            // A proxy's paths and variants are strangers' words.
            ("GET /;viewer=u1", "", "/;viewer=u1", None),
            ("GET /\nGET;viewer=u1 /v1/me", "", "/", None),
        ] {
            assert_eq!((about_of(key), target_of(key), viewer_of(key)), (about, target, viewer), "{key:?}");
        }
    }

    #[test]
    fn what_is_a_viewers_own_has_the_viewers_key_whatever_origin_names() {
        let keys = surrogate_keys("GET;viewer=u1 /v1/me", &Fields::new()).unwrap();
        assert!(keys.contains(&hash("viewer:u1")) && keys.contains(&hash("url:/v1/me")) && keys.is_sorted());
        assert_eq!(surrogate_keys("GET /v1/me", &Fields::new()).unwrap().len(), 1);
    }
}
