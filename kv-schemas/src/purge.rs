//! Purges as they travel: what an admin asks for, what origin's dispatcher delivers, what the journal answers.
use crate::as_of::{AsOf, LogId, SEQ_MAX, Seq};
use crate::problem::{Problem, TYPE_PREFIX};
use crate::surrogate_key::{KEYS_PER_PURGE_MAX, SurrogateKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What happens to the entries a purge names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PurgeMode {
    /// They become stale: answered at once while a fresh copy is fetched, or when origin fails.
    Soft,
    /// They are never answered again.
    Hard,
}

impl PurgeMode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Soft => "soft",
            Self::Hard => "hard",
        }
    }
}

/// `POST /admin/v1/purges` at origin, and `POST /__edge/purges` at an edge that keeps its own log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeRequest {
    /// Surrogate keys, 1 to 1,000; must be absent when `all` is true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<SurrogateKey>,
    /// Purge everything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// `hard` when absent: whoever purges by hand expects the old copy to be gone.
    #[serde(default = "hard")]
    pub mode: PurgeMode,
    /// Free text for the record, at most 500 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

fn hard() -> PurgeMode {
    PurgeMode::Hard
}

/// Longest `reason` and `actor`, in bytes.
pub const NOTE_BYTES_MAX: usize = 500;
/// Purges in one batch.
pub const PURGES_PER_BATCH_MAX: usize = 1000;
/// Surrogate keys in one batch, all purges together.
pub const KEYS_PER_BATCH_MAX: usize = 10_000;
/// Largest body of a purge or of a batch, in bytes: 1,000 keys of 1,024 bytes, each byte escaped in JSON, and room.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Former identities a batch may name.
pub const REPLACED_LOGS_MAX: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PurgeError {
    #[error("name keys, or set all to true, not both")]
    Target,
    #[error("the key of a URL is url: and its path with the query, such as url:/v1/home")]
    Url,
    #[error("at most 1000 keys in one purge")]
    TooManyKeys,
    #[error("reason and actor have at most 500 bytes")]
    NoteTooLong,
    #[error("at most 1000 purges and 10000 keys in one batch")]
    TooManyPurges,
    #[error("the purges of a batch carry consecutive seq, starting at first_seq, which is at least 1")]
    Order,
    #[error("marks and challenges are below 2^53")]
    Mark,
    #[error("a batch names at most 16 logs that its own replaces, none of them itself")]
    Replaces,
}

fn check_target(keys: &[SurrogateKey], all: bool) -> Result<(), PurgeError> {
    if all != keys.is_empty() {
        return Err(PurgeError::Target);
    }
    if keys.len() > KEYS_PER_PURGE_MAX {
        return Err(PurgeError::TooManyKeys);
    }
    Ok(())
}

fn check_note(note: Option<&str>) -> Result<(), PurgeError> {
    if note.is_some_and(|text| text.len() > NOTE_BYTES_MAX) {
        return Err(PurgeError::NoteTooLong);
    }
    Ok(())
}

fn read<T: DeserializeOwned>(json: &[u8], check: fn(&T) -> Result<(), PurgeError>) -> Result<T, Problem> {
    let invalid =
        |detail| Problem::new(400, "purge-invalid", "The purge is not of a form this edge takes").detail(detail);
    let purge: T = serde_json::from_slice(json).map_err(|error| invalid(error.to_string()))?;
    check(&purge).map_err(|error| invalid(error.to_string()))?;
    Ok(purge)
}

impl PurgeRequest {
    /// What a client sent, if it is one.
    pub fn read(json: &[u8]) -> Result<Self, Problem> {
        read(json, Self::check)
    }

    pub fn check(&self) -> Result<(), PurgeError> {
        check_target(&self.keys, self.all)?;
        // A URL as a browser shows it is the key of nothing.
        let paths = self.keys.iter().filter_map(|key| key.as_str().strip_prefix("url:"));
        if !paths.into_iter().all(|path| path.starts_with('/')) {
            return Err(PurgeError::Url);
        }
        check_note(self.reason.as_deref())
    }
}

/// One row of the purge log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purge {
    pub seq: Seq,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<SurrogateKey>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    pub mode: PurgeMode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// When the write committed, by origin's clock, in milliseconds since 1970. For people and lag figures; no rule reads it.
    pub committed_at_ms: u64,
    /// A random number of this row, below 2^53; 0: it has none. It tells one history of a log from another that used
    /// the same numbers, as a database put back from a file copy does.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mark: u64,
}

pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `POST /__edge/purges` from origin's dispatcher. Empty `purges` announce the log and ask for `next_seq`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeBatch {
    pub log_id: LogId,
    /// Identities this log had before, youngest first, at most 16: a batch of one of them that arrives late must not
    /// take the living log's place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<LogId>,
    /// `seq` of the first purge in the batch; of an empty one, the `seq` the next purge will have.
    pub first_seq: Seq,
    /// The mark of the purge before `first_seq`; 0: there is none, or it has none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub after_mark: u64,
    /// The journal's [`Unannounced::challenge`] this batch answers; 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub challenge: u64,
    pub purges: Vec<Purge>,
}

impl PurgeBatch {
    /// What a dispatcher sent, if it is one.
    pub fn read(json: &[u8]) -> Result<Self, Problem> {
        read(json, Self::check)
    }

    pub fn check(&self) -> Result<(), PurgeError> {
        let keys: usize = self.purges.iter().fold(0, |sum, purge| sum.saturating_add(purge.keys.len()));
        if self.purges.len() > PURGES_PER_BATCH_MAX || keys > KEYS_PER_BATCH_MAX {
            return Err(PurgeError::TooManyPurges);
        }
        if self.first_seq == 0 || self.first_seq > SEQ_MAX {
            return Err(PurgeError::Order);
        }
        if self.replaces.len() > REPLACED_LOGS_MAX || self.replaces.contains(&self.log_id) {
            return Err(PurgeError::Replaces);
        }
        if self.after_mark > SEQ_MAX || self.challenge > SEQ_MAX || self.purges.iter().any(|purge| purge.mark > SEQ_MAX)
        {
            return Err(PurgeError::Mark);
        }
        let mut seq = self.first_seq;
        for purge in &self.purges {
            if purge.seq != seq || seq > SEQ_MAX {
                return Err(PurgeError::Order);
            }
            check_target(&purge.keys, purge.all)?;
            check_note(purge.reason.as_deref())?;
            check_note(purge.actor.as_deref())?;
            seq = seq.saturating_add(1);
        }
        Ok(())
    }
}

/// The journal's refusal (409, problem+json) of a batch of a log it does not hold: it takes one up from an announcement
/// alone, an empty batch at the log's end that carries this challenge. So nobody's old belief, and no batch that was long
/// under way, can make the journal hold less than it has once acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unannounced {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// Random, 1 to 2^53 - 1; made after the journal lost, or before it ever had, this log.
    pub challenge: u64,
}

impl Unannounced {
    pub const SLUG: &str = "log-unannounced";

    pub fn new(challenge: u64) -> Self {
        let title = "This purge log is not known here; announce it with an empty batch that carries the challenge";
        let Problem { kind, title, status, .. } = Problem::new(409, Self::SLUG, title);
        Self { kind, title, status, challenge }
    }

    /// Reads the refusal, if it is this one.
    pub fn read(json: &str) -> Option<Self> {
        serde_json::from_str::<Self>(json).ok().filter(|one| one.kind.strip_prefix(TYPE_PREFIX) == Some(Self::SLUG))
    }
}

/// The journal's answer to either form of intake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeAck {
    pub log_id: LogId,
    /// The purge's own, if the journal numbered it: that of its receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// The `seq` the journal needs next; everything below it is durable there.
    pub next_seq: Seq,
    /// How many purges of this call were new to it.
    pub accepted: u32,
}

impl PurgeAck {
    /// The state a reader has to ask for (`Min-As-Of`) to read after this purge.
    pub fn as_of(&self) -> AsOf {
        AsOf::new(self.log_id.clone(), self.next_seq.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SurrogateKey {
        SurrogateKey::new(text).unwrap()
    }

    fn purge(seq: Seq) -> Purge {
        Purge {
            seq,
            keys: vec![key("k")],
            all: false,
            mode: PurgeMode::Soft,
            reason: None,
            actor: None,
            committed_at_ms: 0,
            mark: 0,
        }
    }

    fn batch(first_seq: Seq, purges: Vec<Purge>) -> PurgeBatch {
        PurgeBatch {
            log_id: LogId::new("log").unwrap(),
            replaces: Vec::new(),
            first_seq,
            after_mark: 0,
            challenge: 0,
            purges,
        }
    }

    #[test]
    fn a_batch_is_consecutive() {
        assert_eq!(batch(1, vec![]).check(), Ok(()));
        assert_eq!(batch(3, vec![purge(3), purge(4)]).check(), Ok(()));
        assert_eq!(batch(3, vec![purge(4)]).check(), Err(PurgeError::Order));
        assert_eq!(batch(3, vec![purge(3), purge(5)]).check(), Err(PurgeError::Order));
        assert_eq!(batch(3, vec![purge(3), purge(3)]).check(), Err(PurgeError::Order));
        assert_eq!(batch(0, vec![]).check(), Err(PurgeError::Order));
        assert_eq!(batch(SEQ_MAX + 1, vec![]).check(), Err(PurgeError::Order));
    }

    #[test]
    fn a_log_does_not_replace_itself_nor_very_many() {
        let replacing = |ids: Vec<LogId>| PurgeBatch { replaces: ids, ..batch(1, vec![]) }.check();
        let old: Vec<LogId> = (0..17).map(|n| LogId::new(format!("old-{n}")).unwrap()).collect();
        assert_eq!(replacing(old[..16].to_vec()), Ok(()));
        assert_eq!(replacing(old), Err(PurgeError::Replaces));
        assert_eq!(replacing(vec![LogId::new("log").unwrap()]), Err(PurgeError::Replaces));
    }

    #[test]
    fn the_largest_purge_there_can_be_fits_into_a_batch() {
        let long = "\"".repeat(1024);
        let keys = vec![key(&long); KEYS_PER_PURGE_MAX];
        let note = Some("\u{1}".repeat(NOTE_BYTES_MAX));
        let largest = Purge { keys, reason: note.clone(), actor: note, ..purge(SEQ_MAX) };
        let bytes = serde_json::to_vec(&batch(SEQ_MAX, vec![largest])).unwrap().len();
        assert!(bytes < BATCH_BYTES_MAX, "{bytes}");
    }

    #[test]
    fn a_purge_names_keys_or_all() {
        let both = Purge { all: true, ..purge(1) };
        let neither = Purge { keys: vec![], ..purge(1) };
        for wrong in [both, neither] {
            assert_eq!(batch(1, vec![wrong]).check(), Err(PurgeError::Target));
        }
        let many = Purge { keys: vec![key("k"); 1001], ..purge(1) };
        assert_eq!(batch(1, vec![many]).check(), Err(PurgeError::TooManyKeys));
    }

    #[test]
    fn a_request_without_mode_is_hard() {
        let request: PurgeRequest = serde_json::from_str(r#"{"keys":["a"]}"#).unwrap();
        assert_eq!(request.mode, PurgeMode::Hard);
        assert!(serde_json::from_str::<PurgeRequest>(r#"{"keys":["a"],"mod":"soft"}"#).is_err());
        assert!(serde_json::from_str::<PurgeRequest>(r#"{"keys":["a b"]}"#).is_err());
    }
}
