//! A cached response as bytes: the value in KV and the body in a location's cache.
//!
//! ```text
//! entry = magic "SCE1" | head_bytes: u32 little-endian | head: JSON | body
//! ```
//! The head carries everything but the body, surrogate keys included, so that it may be as long as it must: KV
//! metadata is limited to 1,024 bytes and holds only [`EntryMeta`], what a writer compares before it overwrites.
//! A reader can cut the head off without touching the body.
use crate::as_of::AsOf;
use serde::{Deserialize, Serialize};

pub const MAGIC: [u8; 4] = *b"SCE1";
/// Bytes before the head.
pub const PREFIX_BYTES: usize = 8;
/// Longest head that is read.
pub const HEAD_BYTES_MAX: usize = 256 * 1024;

/// Everything about a stored response but its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryHead {
    /// The full cache key: a reader that asked for another key treats the entry as absent.
    pub key: String,
    pub status: u16,
    /// Response header fields in order, names in lower case, `Surrogate-*` included.
    pub headers: Vec<(String, String)>,
    /// The state the response was read at. Absent: never fresh, only revalidated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<AsOf>,
    /// When the request went out and the head of the answer came in, milliseconds since 1970 by the edge's clock
    /// (RFC 9111 section 4.2.3: request_time, response_time).
    pub request_time_ms: u64,
    pub response_time_ms: u64,
    /// Length of the body; an entry whose body has another length is broken and treated as absent.
    pub body_bytes: u64,
    /// Present on a marker: the cache key has variants, selected by these request fields (lower case, sorted).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub varies_on: Vec<String>,
}

/// KV metadata, at most 1,024 bytes as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryMeta {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<AsOf>,
    pub response_time_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("the bytes do not begin with the magic of this version")]
    Magic,
    #[error("the bytes end before the entry does")]
    Truncated,
    #[error("the head is longer than 262144 bytes")]
    HeadTooLong,
    #[error("the head is not valid: {0}")]
    Head(String),
}

impl EntryHead {
    pub fn meta(&self) -> EntryMeta {
        EntryMeta { as_of: self.as_of.clone(), response_time_ms: self.response_time_ms }
    }

    /// Magic, length and head; the body follows.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        let head = serde_json::to_vec(self).map_err(|e| EntryError::Head(e.to_string()))?;
        if head.len() > HEAD_BYTES_MAX {
            return Err(EntryError::HeadTooLong);
        }
        let length = u32::try_from(head.len()).map_err(|_| EntryError::HeadTooLong)?;
        let mut bytes = Vec::with_capacity(head.len().saturating_add(PREFIX_BYTES));
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&head);
        Ok(bytes)
    }

    /// Length of the head, from the first [`PREFIX_BYTES`] bytes of an entry.
    pub fn head_bytes(prefix: &[u8]) -> Result<usize, EntryError> {
        let (magic, rest) = prefix.split_first_chunk::<4>().ok_or(EntryError::Truncated)?;
        if *magic != MAGIC {
            return Err(EntryError::Magic);
        }
        let (length, _) = rest.split_first_chunk::<4>().ok_or(EntryError::Truncated)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| EntryError::HeadTooLong)?;
        if length > HEAD_BYTES_MAX {
            return Err(EntryError::HeadTooLong);
        }
        Ok(length)
    }

    /// The head, from exactly the bytes between prefix and body, given how long the body is.
    pub fn decode(head: &[u8], body_bytes: u64) -> Result<Self, EntryError> {
        let head: Self = serde_json::from_slice(head).map_err(|e| EntryError::Head(e.to_string()))?;
        if head.body_bytes != body_bytes {
            return Err(EntryError::Truncated);
        }
        Ok(head)
    }

    /// Splits a whole entry into head and body.
    pub fn split(bytes: &[u8]) -> Result<(Self, &[u8]), EntryError> {
        let length = Self::head_bytes(bytes)?;
        let rest = bytes.get(PREFIX_BYTES..).ok_or(EntryError::Truncated)?;
        let (head, body) = rest.split_at_checked(length).ok_or(EntryError::Truncated)?;
        let head = Self::decode(head, u64::try_from(body.len()).unwrap_or(u64::MAX))?;
        Ok((head, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(keys: usize) -> EntryHead {
        let list = (0..keys).map(|n| format!("title:{n}")).collect::<Vec<_>>().join(" ");
        EntryHead {
            key: "GET /v1/home".into(),
            status: 200,
            headers: vec![("content-type".into(), "application/json".into()), ("surrogate-key".into(), list)],
            as_of: Some("log:7".parse().unwrap()),
            request_time_ms: 1,
            response_time_ms: 2,
            body_bytes: 4,
            varies_on: vec![],
        }
    }

    #[test]
    fn an_entry_with_a_thousand_keys_keeps_its_metadata_small() {
        let head = head(1000);
        assert!(serde_json::to_vec(&head.meta()).unwrap().len() <= 1024);
        let mut bytes = head.encode().unwrap();
        bytes.extend_from_slice(b"body");
        assert_eq!(EntryHead::split(&bytes).unwrap(), (head, &b"body"[..]));
    }

    #[test]
    fn every_truncation_is_noticed() {
        let mut bytes = head(3).encode().unwrap();
        bytes.extend_from_slice(b"body");
        for end in 0..bytes.len() {
            assert!(EntryHead::split(&bytes[..end]).is_err(), "cut at {end}");
        }
        bytes.push(b'!');
        assert!(EntryHead::split(&bytes).is_err(), "too long");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = EntryHead::split(&bytes);
        }
    }
}
