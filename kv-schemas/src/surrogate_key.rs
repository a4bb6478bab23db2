//! Surrogate keys: the names a cached answer can be purged by.
//!
//! Origin sends them in `Surrogate-Key` (space-separated) or `Cache-Tag` (comma-separated). The edge compares 64-bit
//! hashes: a collision can only purge too much, never too little.
use crate::key_class::with_class;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// All keys of one answer together, in bytes (as they stand in the header). Beyond it the answer is not cacheable.
pub const KEYS_BYTES_MAX: usize = 16 * 1024;
/// Keys in one purge.
pub const KEYS_PER_PURGE_MAX: usize = 1000;

/// XXH64 (seed 0) of the key's bytes (of a `url:` with its escapes as [`url_key`] writes them), with the key's class in bits 48 and 49 ([`crate::KeyClass`]). Part of the exchanged
/// format: journal and isolates must agree on it.
pub type KeyHash = u64;

/// A surrogate key: 1 to 1,024 visible ASCII bytes without comma.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SurrogateKey(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SurrogateKeyError {
    #[error("a surrogate key must not be empty")]
    Empty,
    #[error("a surrogate key has at most 1024 bytes")]
    TooLong,
    #[error("a surrogate key is visible ASCII without comma")]
    Character,
    #[error("the surrogate keys of one answer have at most 16384 bytes together")]
    ListTooLong,
}

impl SurrogateKey {
    pub fn new(text: impl Into<String>) -> Result<Self, SurrogateKeyError> {
        let text = text.into();
        check(&text)?;
        let text = if is_escaped_url(&text) { normal_escapes(&text) } else { text };
        check(&text)?;
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn hash(&self) -> KeyHash {
        hash(&self.0)
    }
}

/// Before the path of a key that purges one URL.
const URL: &str = "url:";

/// The key every stored answer to a path (with its query) can be purged by, besides those its origin names: `url:` and
/// the path, as [`normal_escapes`] has it. A comma stands as `%2C`; what is no legal key even so, as `url-sha256:` and its digest.
pub fn url_key(target: &str) -> SurrogateKey {
    use base64ct::{Base64UrlUnpadded, Encoding};
    use sha2::{Digest, Sha256};
    let target = normal_escapes(target);
    let plain = format!("{URL}{}", target.replace(',', "%2C"));
    if check(&plain).is_ok() {
        return SurrogateKey(plain);
    }
    SurrogateKey(format!("url-sha256:{}", Base64UrlUnpadded::encode_string(&Sha256::digest(target.as_bytes()))))
}

fn is_escaped_url(text: &str) -> bool {
    text.starts_with(URL) && text.contains('%')
}

/// A target with its escapes as RFC 3986 section 6.2.2 and RFC 9110 section 4.2.3 have them: of what needs none, the character
/// itself, of all else in capitals. A write to one spelling changes what is stored under another.
fn normal_escapes(target: &str) -> String {
    let mut normal = Vec::with_capacity(target.len());
    let mut left = target.as_bytes();
    while let [first, rest @ ..] = left {
        left = rest;
        match rest {
            [high, low, after @ ..] if *first == b'%' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                left = after;
                match hex_value(*high) << 4 | hex_value(*low) {
                    byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => normal.push(byte),
                    _ => normal.extend_from_slice(&[b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
                }
            }
            // Written out, so that it begins no escape with what follows it once that is decoded.
            _ if *first == b'%' => normal.extend_from_slice(b"%25"),
            _ => normal.push(*first),
        }
    }
    // Escapes are ASCII and become ASCII, so it is text as before.
    String::from_utf8(normal).unwrap_or_default()
}

/// Of a hexadecimal digit: letters have one of the upper two bits, and begin at 1.
fn hex_value(digit: u8) -> u8 {
    if digit.is_ascii_digit() { digit & 0xf } else { (digit & 0xf).saturating_add(9) }
}

fn check(text: &str) -> Result<(), SurrogateKeyError> {
    if text.is_empty() {
        return Err(SurrogateKeyError::Empty);
    }
    if text.len() > KEY_BYTES_MAX {
        return Err(SurrogateKeyError::TooLong);
    }
    // A comma would make the key unspeakable in Cache-Tag, white space in Surrogate-Key.
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b',') {
        return Err(SurrogateKeyError::Character);
    }
    Ok(())
}

/// A key of a URL counts for each spelling of it, whoever wrote it.
pub fn hash(text: &str) -> KeyHash {
    let text = if is_escaped_url(text) { Cow::Owned(normal_escapes(text)) } else { Cow::Borrowed(text) };
    with_class(xxhash_rust::xxh64::xxh64(text.as_bytes(), 0), &text)
}

/// Hashes of all keys in a `Surrogate-Key` and a `Cache-Tag` field value, sorted and without repeats.
///
/// An illegal key refuses the whole list: a key that were dropped silently could not be purged by.
pub fn hash_lists(surrogate_key: Option<&str>, cache_tag: Option<&str>) -> Result<Vec<KeyHash>, SurrogateKeyError> {
    let length = surrogate_key.map_or(0, str::len).saturating_add(cache_tag.map_or(0, str::len));
    if length > KEYS_BYTES_MAX {
        return Err(SurrogateKeyError::ListTooLong);
    }
    let mut hashes = Vec::new();
    let spaced = surrogate_key.unwrap_or("").split([' ', '\t']);
    // Several Surrogate-Key fields are joined with ", " by HTTP libraries: a comma at a word's end is that joint.
    let spaced = spaced.map(|word| word.trim_end_matches(','));
    let commaed = cache_tag.unwrap_or("").split(',').map(|tag| tag.trim_matches([' ', '\t']));
    for key in spaced.chain(commaed).filter(|key| !key.is_empty()) {
        check(key)?;
        hashes.push(hash(key));
    }
    hashes.sort_unstable();
    hashes.dedup();
    Ok(hashes)
}

impl TryFrom<String> for SurrogateKey {
    type Error = SurrogateKeyError;
    fn try_from(text: String) -> Result<Self, SurrogateKeyError> {
        Self::new(text)
    }
}

impl From<SurrogateKey> for String {
    fn from(key: SurrogateKey) -> Self {
        key.0
    }
}

impl fmt::Display for SurrogateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_visible_ascii_without_comma() {
        for good in ["title:42", "home", "a", "~", &"k".repeat(1024)] {
            assert!(SurrogateKey::new(good).is_ok(), "{good:?}");
        }
        for bad in ["", " ", "a b", "a,b", "a\n", "é", "\u{7f}", &"k".repeat(1025)] {
            assert!(SurrogateKey::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn both_headers_give_one_sorted_list() {
        let both = hash_lists(Some("b  a\ta"), Some("c, a ,")).unwrap();
        let mut expected = vec![hash("a"), hash("b"), hash("c")];
        expected.sort_unstable();
        assert_eq!(both, expected);
    }

    #[test]
    fn two_joined_header_fields_lose_no_key() {
        assert_eq!(hash_lists(Some("a b, c"), None), hash_lists(Some("a b c"), None));
    }

    #[test]
    fn one_bad_key_refuses_the_list() {
        assert_eq!(hash_lists(Some("a b,c"), None), Err(SurrogateKeyError::Character));
        assert_eq!(hash_lists(Some("ok"), Some("n\u{e9}")), Err(SurrogateKeyError::Character));
        assert_eq!(hash_lists(Some(&"k ".repeat(8193)), None), Err(SurrogateKeyError::ListTooLong));
        assert_eq!(hash_lists(Some(&"k".repeat(1025)), None), Err(SurrogateKeyError::TooLong));
    }

    #[test]
    fn every_path_has_a_legal_key_of_its_own() {
        assert_eq!(url_key("/v1/home").as_str(), "url:/v1/home");
        assert_eq!(url_key("/a?b=1,2").as_str(), "url:/a?b=1%2C2");
        for odd in ["/a b", "/\u{e9}", &"/x".repeat(1000)] {
            assert!(
                url_key(odd).as_str().starts_with("url-sha256:") && check(url_key(odd).as_str()).is_ok(),
                "{odd:?}"
            );
        }
    }

    #[test]
    fn spellings_of_one_url_have_one_key_and_others_keep_theirs() {
        for (one, other) in [("/caf%c3%a9", "/caf%C3%A9"), ("/%7Eada", "/~ada"), ("/a?b=%31,2", "/a?b=1%2c2")] {
            assert_eq!(url_key(one), url_key(other), "{one}");
            let typed = format!("url:{one}").replace(',', "%2C");
            assert_eq!(hash(&typed), url_key(other).hash(), "{one}, in a field");
            assert_eq!(SurrogateKey::new(typed), Ok(url_key(other)), "{one}, by hand");
        }
        let differing = ["/a/b", "/a%2Fb", "/a%252Fb", "/a%3Fb", "/a?b", "/a%2", "/a%zz", "/a%+1", "/a%2 b"];
        for (place, one) in differing.iter().enumerate() {
            for other in &differing[place + 1..] {
                assert_ne!(url_key(one), url_key(other), "{one} {other}");
            }
        }
        assert_eq!(url_key("/100%é%C3").as_str(), url_key("/100%é%c3").as_str(), "between characters of several bytes");
        assert_eq!(url_key("/a%"), url_key("/a%25"), "what is no escape stands for itself");
        assert_ne!(hash("tag:%7E"), hash("tag:~"), "only URLs have spellings");
    }

    #[test]
    fn the_hash_is_xxh64_with_seed_0() {
        // From the xxHash specification's test vectors: XXH64 of the empty input.
        assert_eq!(hash(""), 0xef46_db37_51d8_e999 & !(0b11 << 48), "but for the class");
    }

    proptest! {
        /// Keys are written by whoever names them, by the journal that reads them, and once more where they are compared.
        #[test]
        fn the_one_spelling_of_a_url_stays_as_it_is(target in "/[%0-9a-fA-F~/?é]{0,12}") {
            let once = normal_escapes(&target);
            prop_assert_eq!(normal_escapes(&once), once.clone(), "{}", target);
            let key = url_key(&target);
            prop_assert_eq!(SurrogateKey::new(key.as_str()), Ok(key));
        }

        #[test]
        fn every_key_of_both_fields_is_there_once_and_no_other(
            spaced in prop::collection::vec("[!-+--~]{1,9}", 0..6),
            commaed in prop::collection::vec("[!-+--~]{1,9}", 0..6),
            space in "[ \t]{1,2}", comma in " ?,[ ,]?",
        ) {
            let keys = spaced.iter().chain(&commaed).map(|key| SurrogateKey::new(key.as_str()).unwrap().hash());
            let wanted: std::collections::BTreeSet<KeyHash> = keys.collect();
            // As one field, and as several that were joined.
            for space in [&space, ", "] {
                let read = hash_lists(Some(&spaced.join(space)), Some(&commaed.join(&comma))).unwrap();
                prop_assert!(read.iter().eq(&wanted), "{:?} {:?}", spaced, commaed);
            }
        }

        /// The whole list or nothing: a key that were dropped could not be purged by.
        #[test]
        fn a_list_with_a_fault_is_refused_whole(
            any in ".{0,60}", likely in "[ -~\t\u{e9}]{0,12}", key in "[a-z]{1,3}",
        ) {
            for text in [any, likely] {
                let is_legal = |word: &str| word.is_empty() || SurrogateKey::new(word).is_ok();
                let spaced = text.split([' ', '\t']).all(|word| is_legal(word.trim_end_matches(',')));
                let commaed = text.split(',').all(|word| is_legal(word.trim_matches([' ', '\t'])));
                prop_assert_eq!(hash_lists(Some(&format!("{key} {text}")), None).is_ok(), spaced, "{:?}", text);
                prop_assert_eq!(hash_lists(Some(&key), Some(&format!("{key},{text}"))).is_ok(), commaed, "{:?}", text);
            }
        }
    }
}
