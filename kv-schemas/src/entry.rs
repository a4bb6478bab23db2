//! A cached response as bytes: the value in KV and the body in a location's cache.
//!
//! ```text
//! entry  = magic "SCE4" | head_bytes: u32 little-endian | head | body
//! head   = text key | number status | text as_of | number request_time_ms | number response_time_ms
//!        | number body_bytes | fields | number names_count | text* | hashes
//! fields = number fields_count | ( number name_bytes | number value_bytes )* | text of all names and values
//! ```
//! Numbers, texts and hashes as in [`crate::wire`].
//!
//! What a reader needs of an answer for each hit stands as it needs it: the hashes of its surrogate keys, which its fields
//! have as words, would be half of what an entry costs to read.
//!
//! The head carries everything but the body, surrogate keys included, so that it may be as long as it must: KV's metadata is
//! limited to 1,024 bytes and not used. A reader can cut the head off without touching the body.
use crate::as_of::AsOf;
use crate::fields::Fields;
use crate::surrogate_key::KeyHash;
use crate::wire::{Reader, put_hashes, put_number, put_text};

pub const MAGIC: [u8; 4] = *b"SCE4";
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
    /// Response header fields in order, `Surrogate-*` included.
    pub fields: Fields,
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
    /// What the answer can be purged by, in ascending order, each once.
    pub keys: Vec<KeyHash>,
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
        let fields = self.fields()?;
        let mut varies_on = Vec::new();
        // Counts are not trusted with an allocation: each member has to be there.
        for _ in 0..self.number()? {
            varies_on.push(self.text()?.to_string());
        }
        let keys = self.hashes()?;
        // The rule looks them up in this order.
        if !keys.is_sorted_by(|one, next| one < next) {
            return None;
        }
        self.end()?;
        Some(EntryHead { key, status, fields, as_of, request_time_ms, response_time_ms, body_bytes, varies_on, keys })
    }

    fn fields(&mut self) -> Option<Fields> {
        let count = self.number()?;
        let mut fields = Fields::of_lengths(self.at_most(count, 2));
        for _ in 0..count {
            fields.put_lengths(self.number()?, self.number()?)?;
        }
        fields.over(self.text()?)
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
        for number in [self.request_time_ms, self.response_time_ms, self.body_bytes, self.fields.len() as u64] {
            put_number(&mut bytes, number);
        }
        let (text, lengths) = self.fields.parts();
        for (name_bytes, value_bytes) in lengths {
            put_number(&mut bytes, name_bytes as u64);
            put_number(&mut bytes, value_bytes as u64);
        }
        put_text(&mut bytes, text);
        put_number(&mut bytes, self.varies_on.len() as u64);
        for name in &self.varies_on {
            put_text(&mut bytes, name);
        }
        put_hashes(&mut bytes, &self.keys);
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
    use crate::surrogate_key::hash_lists;
    use proptest::prelude::*;

    fn head(keys: usize) -> EntryHead {
        let list = (0..keys).map(|n| format!("title:{n}")).collect::<Vec<_>>().join(" ");
        EntryHead {
            key: "GET /v1/home".into(),
            status: 200,
            fields: [("content-type", "application/json"), ("surrogate-key", &list)].into_iter().collect(),
            as_of: Some("log:7".parse().unwrap()),
            request_time_ms: 1,
            response_time_ms: 2,
            body_bytes: 4,
            varies_on: vec![],
            keys: hash_lists(Some(&list), None).unwrap(),
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

    #[test]
    fn keys_in_another_order_or_twice_are_not_ours() {
        for (keys, is_good) in [(vec![1, 2, 3], true), (vec![2, 1], false), (vec![1, 1], false), (vec![], true)] {
            let bytes = EntryHead { keys: keys.clone(), ..head(0) }.encode().unwrap();
            assert_eq!(EntryHead::decode(&bytes[PREFIX_BYTES..], 4).is_ok(), is_good, "{keys:?}");
        }
    }

    proptest! {
        #[test]
        fn any_head_comes_back(
            key in ".{0,40}",
            status: u16,
            fields in proptest::collection::vec((".{0,8}", ".{0,20}"), 0..6),
            seq in proptest::option::of(0..=crate::SEQ_MAX),
            times: [u64; 3],
            varies_on in proptest::collection::vec(".{0,8}", 0..4),
            keys: std::collections::BTreeSet<u64>,
        ) {
            let as_of = seq.map(|seq| format!("log:{seq}").parse().unwrap());
            let [request_time_ms, response_time_ms, body_bytes] = times;
            let (fields, keys) = (fields.into_iter().collect(), keys.into_iter().collect());
            let head =
                EntryHead { key, status, fields, as_of, request_time_ms, response_time_ms, body_bytes, varies_on, keys };
            let bytes = head.encode().unwrap();
            prop_assert_eq!(EntryHead::decode(&bytes[PREFIX_BYTES..], body_bytes).unwrap(), head);
        }

        /// What a tier hands back may be anything: what is read of it is what an entry of ours says, all of it.
        #[test]
        fn damaged_bytes_are_refused_or_read_as_what_they_say(
            keys in 0_usize..4, at: prop::sample::Index, byte: u8, cut in 0_usize..3, grow: bool,
        ) {
            let mut bytes = head(keys).encode().unwrap();
            let longer = [&bytes[PREFIX_BYTES..], &[byte]].concat();
            prop_assert_eq!(EntryHead::decode(&longer, 4), Err(EntryError::Head));
            bytes.extend_from_slice(b"body");
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if grow {
                bytes.insert(at, byte);
            }
            bytes.drain(at..bytes.len().min(at + cut));
            let Ok((read, body)) = EntryHead::split(&bytes) else { return Ok(()) };
            prop_assert_eq!(u64::try_from(body.len()).unwrap(), read.body_bytes);
            prop_assert!(read.keys.is_sorted_by(|one, next| one < next));
            let again = [read.encode().unwrap(), body.to_vec()].concat();
            // A number may be spelt longer than it must be; nothing else says the same in another way.
            prop_assert!(again == bytes || (again.len() < bytes.len() && bytes.starts_with(&MAGIC)), "{:?}", bytes);
            prop_assert_eq!(EntryHead::split(&again).unwrap(), (read, body));
        }
    }
}
