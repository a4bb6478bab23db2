//! The grammar of keys in KV and in the location's cache.
//!
//! ```text
//! kv-key    = "e3:" base64url(SHA-256(cache-key))        ; 46 bytes, platform limit 512
//! colo-url  = "https://entry.cache.internal/e3/" base64url(SHA-256(cache-key))
//! sync-url  = "https://journal.internal/shared/3"
//! ```
//! The version in the prefix moves with the entry format, so that two releases never read each other's bytes. The
//! cache key stands in full inside the entry, where the reader compares it.
use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

pub const KV_PREFIX: &str = "e3:";
pub const COLO_PREFIX: &str = "https://entry.cache.internal/e3/";

/// Where the isolates of a location share an answer of the journal, in its Cache API.
pub const SHARED_SYNC_URL: &str = "https://journal.internal/shared/3";

fn digest(cache_key: &str) -> String {
    Base64UrlUnpadded::encode_string(&Sha256::digest(cache_key.as_bytes()))
}

/// Key of an entry in Workers KV.
pub fn kv_key(cache_key: &str) -> String {
    format!("{KV_PREFIX}{}", digest(cache_key))
}

/// URL of an entry in the Cache API of a location.
pub fn colo_url(cache_key: &str) -> String {
    format!("{COLO_PREFIX}{}", digest(cache_key))
}
