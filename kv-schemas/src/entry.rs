//! A cached response as bytes: the value in KV and the body in a location's cache.
//!
//! ```text
//! entry  = magic "SCE2" | head_bytes: u32 little-endian | head | body
//! head   = text key | number status | text as_of | number request_time_ms | number response_time_ms
//!        | number body_bytes | number fields_count | ( text name | text value )* | number names_count | text*
//! ```
//! Numbers and texts as in [`crate::wire`].
//!
//! The head carries everything but the body, surrogate keys included, so that it may be as long as it must: KV's metadata is
//! limited to 1,024 bytes and not used. A reader can cut the head off without touching the body.
use crate::as_of::AsOf;
use crate::wire::{Reader, put_number, put_text};

pub const MAGIC: [u8; 4] = *b"SCE2";
/// Bytes before the head.
pub const PREFIX_BYTES: usize = 8;
/// Longest head that is read.
pub const HEAD_BYTES_MAX: usize = 256 * 1024;

/// Everything about a stored response but its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryHead {
    /// The full cache key: a reader that asked for another key treats the entry as absent.
    pub key: String,
    pub status: u16,
    /// Response header fields in order, names in lower case, `Surrogate-*` included.
    pub headers: Vec<(String, String)>,
    /// The state the response was read at. Absent (written as an empty text): never fresh, only revalidated.
    pub as_of: Option<AsOf>,
    /// When the request went out and the head of the answer came in, milliseconds since 1970 by the edge's clock
    /// (RFC 9111 section 4.2.3: request_time, response_time).
    pub request_time_ms: u64,
    pub response_time_ms: u64,
    /// Length of the body; an entry whose body has another length is broken and treated as absent.
    pub body_bytes: u64,
    /// Not empty on a marker: the cache key has variants, selected by these request fields (lower case, sorted).
    pub varies_on: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("the bytes do not begin with the magic of this version")]
    Magic,
    #[error("the bytes end before the entry does")]
    Truncated,
    #[error("the head is longer than 262144 bytes")]
    HeadTooLong,
    #[error("the head is not of the form this version writes")]
    Head,
}

impl Reader<'_> {
    fn head(&mut self) -> Option<EntryHead> {
        let key = self.text()?.to_string();
        let status = u16::try_from(self.number()?).ok()?;
        let as_of = match self.text()? {
            "" => None,
            text => Some(text.parse().ok()?),
        };
        let (request_time_ms, response_time_ms, body_bytes) = (self.number()?, self.number()?, self.number()?);
        let mut headers = Vec::new();
        // Counts are not trusted with an allocation: each member has to be there.
        for _ in 0..self.number()? {
            headers.push((self.text()?.to_string(), self.text()?.to_string()));
        }
        let mut varies_on = Vec::new();
        for _ in 0..self.number()? {
            varies_on.push(self.text()?.to_string());
        }
        self.end()?;
        Some(EntryHead { key, status, headers, as_of, request_time_ms, response_time_ms, body_bytes, varies_on })
    }
}

impl EntryHead {
    /// Magic, length and head; the body follows.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        put_text(&mut bytes, &self.key);
        put_number(&mut bytes, u64::from(self.status));
        put_text(&mut bytes, &self.as_of.as_ref().map(ToString::to_string).unwrap_or_default());
        for number in [self.request_time_ms, self.response_time_ms, self.body_bytes, self.headers.len() as u64] {
            put_number(&mut bytes, number);
        }
        for (name, value) in &self.headers {
            put_text(&mut bytes, name);
            put_text(&mut bytes, value);
        }
        put_number(&mut bytes, self.varies_on.len() as u64);
        for name in &self.varies_on {
            put_text(&mut bytes, name);
        }
        let length = bytes.len().saturating_sub(PREFIX_BYTES);
        if length > HEAD_BYTES_MAX {
            return Err(EntryError::HeadTooLong);
        }
        let length = u32::try_from(length).map_err(|_| EntryError::HeadTooLong)?;
        if let Some(place) = bytes.get_mut(MAGIC.len()..PREFIX_BYTES) {
            place.copy_from_slice(&length.to_le_bytes());
        }
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
        let head = Reader::new(head).head().ok_or(EntryError::Head)?;
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
    fn an_entry_may_have_a_thousand_keys() {
        let head = head(1000);
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

    #[test]
    fn counts_beyond_the_bytes_are_refused_at_once() {
        let mut bytes = Vec::new();
        put_text(&mut bytes, "key");
        put_number(&mut bytes, 200);
        put_text(&mut bytes, "");
        for number in [1, 2, 0, u64::MAX] {
            put_number(&mut bytes, number);
        }
        assert_eq!(EntryHead::decode(&bytes, 0), Err(EntryError::Head));
    }

    proptest! {
        #[test]
        fn any_head_comes_back(
            key in ".{0,40}",
            status: u16,
            headers in proptest::collection::vec((".{0,8}", ".{0,20}"), 0..6),
            seq in proptest::option::of(0..=crate::SEQ_MAX),
            times: [u64; 3],
            varies_on in proptest::collection::vec(".{0,8}", 0..4),
        ) {
            let as_of = seq.map(|seq| format!("log:{seq}").parse().unwrap());
            let [request_time_ms, response_time_ms, body_bytes] = times;
            let head =
                EntryHead { key, status, headers, as_of, request_time_ms, response_time_ms, body_bytes, varies_on };
            let bytes = head.encode().unwrap();
            prop_assert_eq!(EntryHead::decode(&bytes[PREFIX_BYTES..], body_bytes).unwrap(), head);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = EntryHead::split(&bytes);
        }
    }
}
