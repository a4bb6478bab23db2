//! What isolates and the purge journal say to each other.
use crate::as_of::{LogId, Seq};
use crate::purge::PurgeMode;
use crate::surrogate_key::KeyHash;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What an isolate asks the journal: everything after the state it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalQuery {
    /// The log the isolate knows; another one, or none, makes `since` meaningless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_id: Option<LogId>,
    /// The highest `seq` this isolate has applied. Reported, it is also the receipt of its location.
    pub since: Seq,
    /// Where the isolate runs (`request.cf.colo`).
    pub location: String,
}

/// The journal's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalDelta {
    pub log_id: LogId,
    /// Highest `seq` the journal holds.
    pub head: Seq,
    /// Entries read below this state count as softly purged: details below it are forgotten.
    pub floor_soft: Seq,
    /// Entries read below this state count as hard purged.
    pub floor_hard: Seq,
    /// Highest `seq` this answer reaches; below `head` there is more to ask for.
    pub until: Seq,
    pub purges: Vec<DeltaPurge>,
}

/// One purge as isolates need it: hashes in place of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaPurge {
    pub seq: Seq,
    pub mode: PurgeMode,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<HexHash>,
}

/// A key hash as JSON carries it: 16 hex digits, since JSON numbers are exact only below 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HexHash(pub KeyHash);

impl Serialize for HexHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for HexHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let hash = if hex { KeyHash::from_str_radix(&text, 16).ok() } else { None };
        hash.map(Self).ok_or_else(|| serde::de::Error::custom("a key hash is 16 lower-case hex digits"))
    }
}
