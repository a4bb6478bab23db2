//! The service's keys in a directory: one signs, the next is published before it does, former ones verify what they signed
//! until that has expired. Private halves are readable by their owner alone.
//!
//! `origin keys rotate` writes here; a serving process only reads, and sees changes without a restart. Which key signs is
//! decided by the clock and `rotation.json`, so that every process changes over at the same time.
use kv_schemas::claims::{
    AUDIENCE_ADMIN, AUDIENCE_EDGE, AUDIENCE_VIEWER, AdminClaims, EdgeClaims, ISSUER, Scope, StaffRole,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;
use tokens::{Addressed, Expect, KeySet, SigningKey, TokenError};

pub const PRIVATE_FILE: &str = "signing-key.jwk";
pub const PUBLIC_FILE: &str = "public.jwks.json";
const NEXT_FILE: &str = "next-key.jwk";
const ROTATION_FILE: &str = "rotation.json";

/// No token of ours lives longer, so a key that stopped signing so long ago verifies nothing any more.
pub const TOKEN_LIFETIME_S_MAX: u64 = 30 * 24 * 3600;
/// How long a serving process may go by what it has read.
const LOOK_MS: u64 = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("there is a key in {0} already; change it with `origin keys rotate`")]
    Exists(PathBuf),
    #[error("cannot read {0}: {1}; make a key with `origin keygen --keys DIR`")]
    Read(PathBuf, std::io::Error),
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, std::io::Error),
    #[error("{0} holds no usable key: {1}")]
    Form(PathBuf, tokens::KeyError),
    #[error("{0} is not JSON of the expected form: {1}")]
    Json(PathBuf, serde_json::Error),
    #[error("a rotation is under way: the next key signs in {0} s; rotate again after that")]
    UnderWay(u64),
    #[error("no randomness from the system")]
    Random,
    #[error("the token could not be signed: {0}")]
    Sign(TokenError),
}

/// `rotation.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Rotation {
    /// From when on the key in `next-key.jwk` signs, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_signs_from_s: Option<u64>,
    /// Names of keys that sign no more, and until when they are published.
    #[serde(default)]
    retired: BTreeMap<String, u64>,
}

/// What was read at one time.
struct Loaded {
    signing: SigningKey,
    next: Option<(SigningKey, u64)>,
    public: KeySet,
    jwks: String,
    stamp: Stamp,
}

/// Of each file: when it was written, how long it is, and which one it is, since two may be written within one tick of the
/// file system's clock.
type Stamp = [Option<(SystemTime, u64, u64)>; 4];

/// The keys of a directory, as they are now.
pub struct Keys {
    dir: PathBuf,
    loaded: RwLock<(Arc<Loaded>, u64)>,
}

fn now_s() -> u64 {
    crate::now_ms() / 1000
}

fn new_key() -> Result<SigningKey, KeyError> {
    let mut kid = [0; 8];
    getrandom::fill(&mut kid).map_err(|_| KeyError::Random)?;
    let kid = format!("{:016x}", u64::from_be_bytes(kid));
    loop {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|_| KeyError::Random)?;
        if let Some(key) = SigningKey::from_random(&kid, &bytes) {
            return Ok(key);
        }
    }
}

/// Puts a file in its place whole, or not at all.
fn write_file(path: &Path, text: &str, secret: bool) -> Result<(), KeyError> {
    let failed = |error| KeyError::Write(path.to_path_buf(), error);
    let draft = path.with_extension("new");
    let _ = std::fs::remove_file(&draft);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if secret {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    let mut file = options.open(&draft).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&draft, path).map_err(failed)
}

fn read_file(dir: &Path, name: &str) -> Result<String, KeyError> {
    let path = dir.join(name);
    std::fs::read_to_string(&path).map_err(|error| KeyError::Read(path, error))
}

fn read_key(dir: &Path, name: &str) -> Result<SigningKey, KeyError> {
    SigningKey::from_jwk(&read_file(dir, name)?).map_err(|error| KeyError::Form(dir.join(name), error))
}

fn read_rotation(dir: &Path) -> Result<Rotation, KeyError> {
    let path = dir.join(ROTATION_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| KeyError::Json(path, error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Rotation::default()),
        Err(error) => Err(KeyError::Read(path, error)),
    }
}

/// Makes a key pair in `dir`. Never overwrites one.
pub fn generate(dir: &Path) -> Result<(), KeyError> {
    std::fs::create_dir_all(dir).map_err(|error| KeyError::Write(dir.to_path_buf(), error))?;
    if dir.join(PRIVATE_FILE).exists() {
        return Err(KeyError::Exists(dir.to_path_buf()));
    }
    let key = new_key()?;
    let form = |error| KeyError::Form(dir.to_path_buf(), error);
    write_file(&dir.join(PRIVATE_FILE), &key.to_jwk().map_err(form)?, true)?;
    write_file(&dir.join(PUBLIC_FILE), &key.public_jwks().map_err(form)?, false)
}

/// What a rotation did.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Rotated {
    pub next: String,
    pub signs_from_s: u64,
    /// Names of keys that are published no more.
    pub dropped: Vec<String>,
}

/// Publishes a new key, which is to sign after `delay_s`. Before that, completes the rotation before it, whose time must
/// have come. The caller then purges `jwks`.
pub fn rotate(dir: &Path, delay_s: u64) -> Result<Rotated, KeyError> {
    let now_s = now_s();
    let mut rotation = read_rotation(dir)?;
    let former = read_key(dir, PRIVATE_FILE)?;
    let signs_from_s = now_s.saturating_add(delay_s);
    if let Some(from_s) = rotation.next_signs_from_s {
        if from_s > now_s {
            return Err(KeyError::UnderWay(from_s.saturating_sub(now_s)));
        }
        // The key that signs already takes the place of the one before it. A reader in between finds one of the two
        // states, and a rotation that was cut off here is completed by the next.
        let (next, signing) = (dir.join(NEXT_FILE), dir.join(PRIVATE_FILE));
        if next.exists() {
            rotation.retired.insert(former.kid().into(), from_s.saturating_add(TOKEN_LIFETIME_S_MAX));
            write_rotation(dir, &rotation)?;
            std::fs::rename(&next, &signing).map_err(|error| KeyError::Write(signing, error))?;
        }
        rotation.next_signs_from_s = None;
        write_rotation(dir, &rotation)?;
    }
    let key = new_key()?;
    let form = |error| KeyError::Form(dir.to_path_buf(), error);
    let dropped: Vec<String> =
        rotation.retired.iter().filter(|(_, until_s)| **until_s <= now_s).map(|(kid, _)| kid.clone()).collect();
    rotation.retired.retain(|_, until_s| *until_s > now_s);
    let json = |text: &str| serde_json::from_str(text).map_err(|error| KeyError::Json(dir.join(PUBLIC_FILE), error));
    let mut published: Value = json(&read_file(dir, PUBLIC_FILE)?)?;
    let mut added: Value = json(&key.public_jwks().map_err(form)?)?;
    let list = |set: &mut Value| set.get_mut("keys").and_then(Value::as_array_mut).map(std::mem::take);
    if let (Some(mut keys), Some(mut more)) = (list(&mut published), list(&mut added)) {
        keys.retain(|jwk| !dropped.iter().any(|kid| jwk.get("kid").and_then(Value::as_str) == Some(kid)));
        keys.append(&mut more);
        published = serde_json::json!({ "keys": keys });
    }
    write_file(&dir.join(NEXT_FILE), &key.to_jwk().map_err(form)?, true)?;
    write_file(&dir.join(PUBLIC_FILE), &published.to_string(), false)?;
    rotation.next_signs_from_s = Some(signs_from_s);
    write_rotation(dir, &rotation)?;
    Ok(Rotated { next: key.kid().into(), signs_from_s, dropped })
}

fn write_rotation(dir: &Path, rotation: &Rotation) -> Result<(), KeyError> {
    let path = dir.join(ROTATION_FILE);
    let text = serde_json::to_string(rotation).map_err(|error| KeyError::Json(path.clone(), error))?;
    write_file(&path, &text, false)
}

fn stamp(dir: &Path) -> Stamp {
    [PRIVATE_FILE, PUBLIC_FILE, NEXT_FILE, ROTATION_FILE].map(|name| {
        let about = std::fs::metadata(dir.join(name)).ok()?;
        #[cfg(unix)]
        let number = std::os::unix::fs::MetadataExt::ino(&about);
        #[cfg(not(unix))]
        let number = 0;
        Some((about.modified().ok()?, about.len(), number))
    })
}

fn read(dir: &Path) -> Result<Loaded, KeyError> {
    // Taken first: what changes while reading is seen at the next look.
    let stamp = stamp(dir);
    let signing = read_key(dir, PRIVATE_FILE)?;
    let jwks = read_file(dir, PUBLIC_FILE)?;
    let public = KeySet::from_jwks(&jwks).map_err(|error| KeyError::Form(dir.join(PUBLIC_FILE), error))?;
    let next = match read_rotation(dir)?.next_signs_from_s {
        // Gone a moment later: it has become the signing key.
        Some(from_s) if dir.join(NEXT_FILE).exists() => Some((read_key(dir, NEXT_FILE)?, from_s)),
        _ => None,
    };
    Ok(Loaded { signing, next, public, jwks, stamp })
}

pub fn load(dir: &Path) -> Result<Keys, KeyError> {
    let loaded = Arc::new(read(dir)?);
    Ok(Keys { dir: dir.to_path_buf(), loaded: RwLock::new((loaded, crate::now_ms())) })
}

impl Loaded {
    fn signer(&self, now_s: u64) -> &SigningKey {
        match &self.next {
            Some((key, from_s)) if *from_s <= now_s => key,
            _ => &self.signing,
        }
    }
}

impl Keys {
    /// Reads the directory again if anything in it changed. What cannot be read is said, and what was known stays. Returns
    /// what is known then: never older than this call.
    fn reload(&self) -> Arc<Loaded> {
        let (known, _) = self.known();
        let fresh = if stamp(&self.dir) == known.stamp {
            Arc::clone(&known)
        } else {
            match read(&self.dir) {
                Ok(loaded) => {
                    tracing::info!(signs = loaded.signer(now_s()).kid(), "the keys were read anew");
                    Arc::new(loaded)
                }
                Err(error) => {
                    tracing::error!(%error, "changed keys cannot be read; going on with those known");
                    Arc::clone(&known)
                }
            }
        };
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever was quicker may have seen a change that came after this look.
        if Arc::ptr_eq(&loaded.0, &known) {
            *loaded = (Arc::clone(&fresh), crate::now_ms());
        }
        fresh
    }

    fn known(&self) -> (Arc<Loaded>, u64) {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn current(&self) -> Arc<Loaded> {
        let (loaded, looked_ms) = self.known();
        if crate::now_ms().saturating_sub(looked_ms) < LOOK_MS {
            return loaded;
        }
        self.reload()
    }

    /// The published JWK Set, as it is at this moment.
    pub fn jwks(&self) -> String {
        self.reload().jwks.clone()
    }

    pub fn sign<C: Serialize>(&self, claims: C, lifetime_s: u64) -> Result<String, KeyError> {
        let now_s = now_s();
        self.current().signer(now_s).sign(claims, now_s, lifetime_s).map_err(KeyError::Sign)
    }

    pub fn verify<C: DeserializeOwned + Addressed>(&self, token: &str, expect: Expect<'_>) -> Result<C, TokenError> {
        match self.current().public.verify(token, expect, now_s()) {
            // It may be younger than the last look.
            Err(TokenError::UnknownKey) => self.reload().public.verify(token, expect, now_s()),
            result => result,
        }
    }

    pub fn admin_token(&self, subject: &str, role: StaffRole, lifetime_s: u64) -> Result<String, KeyError> {
        self.sign(admin_claims(subject, role), lifetime_s)
    }

    pub fn edge_token(&self, scope: Scope, body_sha256: Option<String>, lifetime_s: u64) -> Result<String, KeyError> {
        let claims = EdgeClaims { iss: ISSUER.into(), aud: AUDIENCE_EDGE.into(), scope, body_sha256 };
        self.sign(claims, lifetime_s)
    }
}

/// Claims of an admin token without a session.
pub fn admin_claims(subject: &str, role: StaffRole) -> AdminClaims {
    AdminClaims { iss: ISSUER.into(), aud: AUDIENCE_ADMIN.into(), sub: subject.into(), role, sid: None, as_of: None }
}

/// What is demanded of viewers' access tokens.
pub const EXPECT_VIEWER: Expect<'static> =
    Expect { issuer: ISSUER, audience: AUDIENCE_VIEWER, lifetime_s_max: kv_schemas::claims::VIEWER_LIFETIME_S_MAX };
/// What is demanded of admin tokens.
pub const EXPECT_ADMIN: Expect<'static> =
    Expect { issuer: ISSUER, audience: AUDIENCE_ADMIN, lifetime_s_max: TOKEN_LIFETIME_S_MAX };

#[cfg(test)]
mod tests {
    use super::*;

    fn admin(keys: &Keys, token: &str) -> Result<AdminClaims, TokenError> {
        keys.verify(token, EXPECT_ADMIN)
    }

    /// The file lies there from one release to the next.
    #[test]
    fn a_rotation_is_written_as_it_always_was() {
        let text = r#"{"next_signs_from_s":1700000600,"retired":{"0123456789abcdef":1702592000}}"#;
        let retired = BTreeMap::from([("0123456789abcdef".to_string(), 1_702_592_000)]);
        let rotation = Rotation { next_signs_from_s: Some(1_700_000_600), retired };
        assert_eq!(serde_json::to_string(&rotation).unwrap(), text);
        assert_eq!(serde_json::from_str::<Rotation>(text).unwrap(), rotation);
    }

    fn kids(keys: &Keys) -> Vec<String> {
        let jwks: Value = serde_json::from_str(&keys.jwks()).unwrap();
        jwks["keys"].as_array().unwrap().iter().map(|jwk| jwk["kid"].as_str().unwrap().to_string()).collect()
    }

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        generate(dir.path()).unwrap();
        assert!(matches!(generate(dir.path()), Err(KeyError::Exists(_))));
        load(dir.path()).unwrap();
        rotate(dir.path(), 60).unwrap();
        #[cfg(unix)]
        for file in [PRIVATE_FILE, NEXT_FILE] {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn a_new_key_is_published_before_it_signs_and_tokens_of_the_former_go_on_verifying() {
        let dir = tempfile::tempdir().unwrap();
        generate(dir.path()).unwrap();
        let keys = load(dir.path()).unwrap();
        let first = keys.admin_token("ada", StaffRole::Admin, 60).unwrap();
        let waiting = rotate(dir.path(), 3600).unwrap();
        assert_eq!(kids(&keys).len(), 2, "published at once, without a restart");
        let header = |token: &str| {
            use base64ct::{Base64UrlUnpadded, Encoding};
            let bytes = Base64UrlUnpadded::decode_vec(token.split('.').next().unwrap()).unwrap();
            serde_json::from_slice::<Value>(&bytes).unwrap()["kid"].as_str().unwrap().to_string()
        };
        let second = keys.admin_token("ada", StaffRole::Admin, 60).unwrap();
        assert_eq!(header(&second), header(&first), "it does not sign yet");
        assert!(matches!(rotate(dir.path(), 0), Err(KeyError::UnderWay(_))));
        // Its time comes.
        let now = Rotation { next_signs_from_s: Some(now_s()), ..read_rotation(dir.path()).unwrap() };
        write_rotation(dir.path(), &now).unwrap();
        keys.reload();
        let third = keys.admin_token("ada", StaffRole::Admin, 60).unwrap();
        assert_eq!(header(&third), waiting.next);
        let again = rotate(dir.path(), 3600).unwrap();
        assert_eq!(again.dropped, [""; 0], "what the first signed has not expired yet");
        assert_eq!(kids(&keys).len(), 3);
        for token in [first, second, third] {
            assert!(admin(&keys, &token).is_ok());
        }
        let fourth = keys.admin_token("ada", StaffRole::Admin, 60).unwrap();
        assert_eq!(header(&fourth), waiting.next, "completed, it goes on signing");
    }

    #[test]
    fn a_retired_key_is_dropped_when_nothing_it_signed_can_be_valid_any_more() {
        let dir = tempfile::tempdir().unwrap();
        generate(dir.path()).unwrap();
        let keys = load(dir.path()).unwrap();
        let token = keys.admin_token("ada", StaffRole::Admin, 60).unwrap();
        let first = kids(&keys).remove(0);
        rotate(dir.path(), 0).unwrap();
        rotate(dir.path(), 0).unwrap();
        let mut rotation = read_rotation(dir.path()).unwrap();
        assert_eq!(rotation.retired.keys().collect::<Vec<_>>(), [&first]);
        rotation.retired.insert(first.clone(), now_s());
        write_rotation(dir.path(), &rotation).unwrap();
        assert_eq!(rotate(dir.path(), 0).unwrap().dropped, [first]);
        assert_eq!(kids(&keys).len(), 3);
        assert_eq!(admin(&keys, &token), Err(TokenError::UnknownKey));
    }

    #[test]
    fn keys_that_cannot_be_read_do_not_replace_those_known() {
        let dir = tempfile::tempdir().unwrap();
        generate(dir.path()).unwrap();
        let keys = load(dir.path()).unwrap();
        std::fs::write(dir.path().join(PUBLIC_FILE), "{\"keys\":[").unwrap();
        keys.reload();
        let token = keys.admin_token("ada", StaffRole::Admin, 60).unwrap();
        assert!(admin(&keys, &token).is_ok());
    }
}
