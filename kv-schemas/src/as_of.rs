//! `AsOf`: the state of the origin's database an answer was read at, written `<log_id>:<seq>`.
//!
//! It is the value of `Surrogate-As-Of` (origin to edge, and admin write to client) and of `Min-As-Of` (client to
//! edge, edge to origin). Ordering exists only between two values of the same log: there is deliberately no `Ord`.
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Position in the purge log. 0 is "before the first purge"; the first purge is 1; gapless in order of commit.
pub type Seq = u64;

/// Highest sequence number: the largest integer every JSON reader keeps exact (2^53 - 1).
pub const SEQ_MAX: Seq = 9_007_199_254_740_991;

/// Longest log identity, in bytes.
pub const LOG_ID_BYTES_MAX: usize = 64;

/// The identity of a purge log, random, made with its database. Another database, another identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogId(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AsOfError {
    #[error("a log id is 1 to 64 characters out of a-z, 0-9 and '-'")]
    LogId,
    #[error("a sequence number is a decimal integer from 0 to 9007199254740991 without leading zeros")]
    Seq,
    #[error("expected <log_id>:<seq>")]
    Form,
}

impl LogId {
    pub fn new(text: impl Into<String>) -> Result<Self, AsOfError> {
        let text = text.into();
        let legal = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if text.is_empty() || text.len() > LOG_ID_BYTES_MAX || !legal {
            return Err(AsOfError::LogId);
        }
        Ok(Self(text))
    }

    /// A new identity from 128 random bits; the caller brings the randomness.
    pub fn from_random(bits: u128) -> Self {
        Self(format!("{bits:032x}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LogId {
    type Error = AsOfError;
    fn try_from(text: String) -> Result<Self, AsOfError> {
        Self::new(text)
    }
}

impl From<LogId> for String {
    fn from(id: LogId) -> Self {
        id.0
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A point in one purge log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AsOf {
    pub log_id: LogId,
    pub seq: Seq,
}

impl AsOf {
    pub fn new(log_id: LogId, seq: Seq) -> Self {
        Self { log_id, seq }
    }

    /// Whether this state contains everything `other` contains. States of two logs contain nothing of each other.
    pub fn covers(&self, other: &AsOf) -> bool {
        self.log_id == other.log_id && self.seq >= other.seq
    }
}

/// Parses a sequence number as it stands in headers and paths: digits only, no sign, no leading zeros.
pub fn parse_seq(text: &str) -> Result<Seq, AsOfError> {
    let canonical = text == "0" || !text.starts_with('0');
    if text.is_empty() || text.len() > 16 || !canonical || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AsOfError::Seq);
    }
    let seq: Seq = text.parse().map_err(|_| AsOfError::Seq)?;
    if seq > SEQ_MAX {
        return Err(AsOfError::Seq);
    }
    Ok(seq)
}

impl FromStr for AsOf {
    type Err = AsOfError;
    fn from_str(text: &str) -> Result<Self, AsOfError> {
        let (log_id, seq) = text.trim().split_once(':').ok_or(AsOfError::Form)?;
        Ok(Self { log_id: LogId::new(log_id)?, seq: parse_seq(seq)? })
    }
}

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.log_id, self.seq)
    }
}

impl TryFrom<String> for AsOf {
    type Error = AsOfError;
    fn try_from(text: String) -> Result<Self, AsOfError> {
        text.parse()
    }
}

impl From<AsOf> for String {
    fn from(as_of: AsOf) -> Self {
        as_of.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_as_of_is_log_id_colon_seq() {
        let as_of: AsOf = "a1b2:42".parse().unwrap();
        assert_eq!((as_of.log_id.as_str(), as_of.seq), ("a1b2", 42));
        assert_eq!(as_of.to_string(), "a1b2:42");
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            "",
            ":",
            "a",
            "a:",
            ":1",
            "a:-1",
            "a:+1",
            "a:01",
            "a:1x",
            "A:1",
            "a b:1",
            "a:9007199254740992",
            "a:99999999999999999999",
            "a:1:2",
            "é:1",
        ] {
            assert!(bad.parse::<AsOf>().is_err(), "{bad:?}");
        }
        assert!(LogId::new("x".repeat(65)).is_err());
    }

    #[test]
    fn states_of_different_logs_cover_nothing_of_each_other() {
        let a: AsOf = "a:9".parse().unwrap();
        let b: AsOf = "b:1".parse().unwrap();
        assert!(!a.covers(&b) && !b.covers(&a));
        assert!(a.covers(&"a:9".parse().unwrap()) && !a.covers(&"a:10".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bits: u128, seq in 0..=SEQ_MAX) {
            let as_of = AsOf::new(LogId::from_random(bits), seq);
            prop_assert_eq!(as_of.to_string().parse::<AsOf>().unwrap(), as_of);
        }

        /// So that two texts of one state do not pass for two states, or the other way round.
        #[test]
        fn a_state_has_one_spelling(any in ".{0,80}", likely in " ?[a-cA-C-]{0,2}:{1,2}[+ 0]?[0-9]{0,17} ?") {
            for text in [any, likely] {
                let Ok(read) = text.parse::<AsOf>() else { continue };
                prop_assert_eq!(read.to_string(), text.trim());
                prop_assert!(read.seq <= SEQ_MAX);
            }
        }
    }
}
