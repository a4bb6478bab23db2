//! The grammar of keys in KV and in the location's cache.
//!
//! ```text
//! kv-key    = "e3:" cache-key                            ; of at most 480 bytes of printable ASCII: the platform takes 512
//!           | "e3#" base64url(SHA-256(cache-key))        ; of others, as those of variants are
//! colo-url  = "https://entry.cache.internal/e3/" deployment "/" base64url(SHA-256(cache-key))
//! sync-url  = "https://journal.internal/shared/3/" deployment
//! ```
//! The version in the prefix moves with the entry format, so that two releases never read each other's bytes. The
//! cache key stands in full inside the entry, where the reader compares it. Deployments of one zone have one Cache API between them:
//! each has its own part of it, by the id of its journal's object.
use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

pub const KV_PREFIX: &str = "e3:";
pub const KV_DIGEST_PREFIX: &str = "e3#";
/// Longer ones stand as their digest.
const KV_PLAIN_BYTES_MAX: usize = 480;

fn digest(cache_key: &str) -> String {
    Base64UrlUnpadded::encode_string(&Sha256::digest(cache_key.as_bytes()))
}

/// Key of an entry in Workers KV: as it is where that can be, so that what KV has can be listed by path, and since the digest
/// would be a tenth of what the Wasm does for a hit there.
pub fn kv_key(cache_key: &str) -> String {
    let is_plain = cache_key.len() <= KV_PLAIN_BYTES_MAX && cache_key.bytes().all(|b| matches!(b, b' '..=b'~'));
    match is_plain {
        true => [KV_PREFIX, cache_key].concat(),
        false => [KV_DIGEST_PREFIX, &digest(cache_key)].concat(),
    }
}

/// URL of an entry in the Cache API of a location.
pub fn colo_url(deployment: &str, cache_key: &str) -> String {
    format!("https://entry.cache.internal/e3/{deployment}/{}", digest(cache_key))
}

/// Where the isolates of a location share an answer of the journal, in its Cache API.
pub fn shared_sync_url(deployment: &str) -> String {
    format!("https://journal.internal/shared/3/{deployment}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_key_stands_as_it_is_where_the_platform_takes_it() {
        let longest = "k".repeat(KV_PLAIN_BYTES_MAX);
        assert_eq!(kv_key(&longest), format!("e3:{longest}"));
        for other in [format!("{longest}k"), "GET /\naccept:".into(), "GET /\u{e9}".into(), "\u{7f}".into()] {
            assert_eq!((kv_key(&other).len(), &kv_key(&other)[..3]), (46, KV_DIGEST_PREFIX), "{other:?}");
        }
    }
}
