//! The binary forms' alphabet: what isolates exchange with KV, with their location's cache and with the journal. They
//! are read on every request in a tier and every lease, and a JSON reader for each would be the larger and slower one.
//!
//! ```text
//! number = unsigned LEB128, at most 64 bits
//! text   = number bytes_count | UTF-8
//! hash   = 8 bytes, little-endian
//! hashes = number hashes_count | hash*
//! ```
use crate::surrogate_key::KeyHash;

pub(crate) fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        // Seven bits at a time, the highest bit says that more follow.
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

pub(crate) fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_number(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

pub(crate) fn put_hashes(bytes: &mut Vec<u8>, hashes: &[KeyHash]) {
    put_number(bytes, hashes.len() as u64);
    for hash in hashes {
        bytes.extend_from_slice(&hash.to_le_bytes());
    }
}

/// Takes bytes apart; every step fails rather than reads on. Counts are not trusted with an allocation.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut number: u64 = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    pub(crate) fn hashes(&mut self) -> Option<Vec<KeyHash>> {
        let bytes = usize::try_from(self.number()?).ok()?.checked_mul(size_of::<KeyHash>())?;
        let (hashes, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        let (hashes, _) = hashes.as_chunks();
        Some(hashes.iter().map(|hash| KeyHash::from_le_bytes(*hash)).collect())
    }

    /// So many members as are said to follow, of at least so many bytes each, or as many as there are bytes for: how much may be
    /// allocated for a count that was read.
    pub(crate) fn at_most(&self, count: u64, bytes: usize) -> usize {
        let there = self.0.len().checked_div(bytes).unwrap_or(0);
        usize::try_from(count).map_or(there, |count| count.min(there))
    }

    /// Nothing may follow.
    pub(crate) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_size_come_back() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            assert_eq!(Reader(&bytes).number(), Some(number));
        }
        assert_eq!(Reader(&[0xff; 9]).number(), None, "cut off");
        assert_eq!(Reader(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02]).number(), None, "65 bits");
    }
}
