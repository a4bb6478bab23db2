//! The service's key pair in a directory: made once, the private half readable by its owner alone.
use kv_schemas::claims::{AUDIENCE_ADMIN, AUDIENCE_EDGE, AdminClaims, EdgeClaims, ISSUER, Scope, StaffRole};
use std::io::Write;
use std::path::{Path, PathBuf};
use tokens::{KeySet, SigningKey};

pub const PRIVATE_FILE: &str = "signing-key.jwk";
pub const PUBLIC_FILE: &str = "public.jwks.json";

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("there is a key in {0} already; remove {PRIVATE_FILE} there if it is to be replaced")]
    Exists(PathBuf),
    #[error("cannot read {0}: {1}; make a key with `origin keygen --keys DIR`")]
    Read(PathBuf, std::io::Error),
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, std::io::Error),
    #[error("{0} holds no usable key: {1}")]
    Form(PathBuf, tokens::KeyError),
    #[error("no randomness from the system")]
    Random,
    #[error("the token could not be signed: {0}")]
    Sign(tokens::TokenError),
}

/// Both halves.
pub struct Keys {
    pub signing: SigningKey,
    pub public: KeySet,
}

/// Makes a key pair in `dir`. Never overwrites one.
pub fn generate(dir: &Path) -> Result<(), KeyError> {
    let private = dir.join(PRIVATE_FILE);
    let write_error = |path: &Path| {
        let path = path.to_path_buf();
        move |error| KeyError::Write(path, error)
    };
    std::fs::create_dir_all(dir).map_err(write_error(dir))?;
    let mut kid = [0; 8];
    getrandom::fill(&mut kid).map_err(|_| KeyError::Random)?;
    let kid = format!("{:016x}", u64::from_be_bytes(kid));
    let key = loop {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|_| KeyError::Random)?;
        if let Some(key) = SigningKey::from_random(&kid, &bytes) {
            break key;
        }
    };
    let form = |error| KeyError::Form(dir.to_path_buf(), error);
    let (jwk, jwks) = (key.to_jwk().map_err(form)?, key.public_jwks().map_err(form)?);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&private).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => KeyError::Exists(dir.to_path_buf()),
        _ => KeyError::Write(private.clone(), error),
    })?;
    file.write_all(jwk.as_bytes()).map_err(write_error(&private))?;
    let public = dir.join(PUBLIC_FILE);
    std::fs::write(&public, jwks).map_err(write_error(&public))
}

pub fn load(dir: &Path) -> Result<Keys, KeyError> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).map_err(|error| KeyError::Read(path, error))
    };
    let form = |error| KeyError::Form(dir.to_path_buf(), error);
    let signing = SigningKey::from_jwk(&read(PRIVATE_FILE)?).map_err(form)?;
    let public = KeySet::from_jwks(&read(PUBLIC_FILE)?).map_err(form)?;
    Ok(Keys { signing, public })
}

impl Keys {
    pub fn admin_token(&self, subject: &str, role: StaffRole, lifetime_s: u64) -> Result<String, KeyError> {
        let claims = AdminClaims {
            iss: ISSUER.into(),
            aud: AUDIENCE_ADMIN.into(),
            sub: subject.into(),
            role,
            sid: None,
            as_of: None,
        };
        self.signing.sign(claims, crate::now_ms() / 1000, lifetime_s).map_err(KeyError::Sign)
    }

    pub fn edge_token(&self, scope: Scope, body_sha256: Option<String>, lifetime_s: u64) -> Result<String, KeyError> {
        let claims = EdgeClaims { iss: ISSUER.into(), aud: AUDIENCE_EDGE.into(), scope, body_sha256 };
        self.signing.sign(claims, crate::now_ms() / 1000, lifetime_s).map_err(KeyError::Sign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        generate(dir.path()).unwrap();
        assert!(matches!(generate(dir.path()), Err(KeyError::Exists(_))));
        load(dir.path()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(dir.path().join(PRIVATE_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
