//! Random names and one-time secrets. A secret goes out once; what is kept of it is its SHA-256, which needs no slow hash:
//! 256 random bits cannot be guessed.
use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no randomness from the system")]
pub struct NoRandomness;

fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bits = [0; N];
    getrandom::fill(&mut bits).map_err(|_| NoRandomness)?;
    Ok(bits)
}

/// 128 random bits: for ids of accounts and sessions, which are no secrets.
pub fn new_id() -> Result<String, NoRandomness> {
    Ok(format!("{:032x}", u128::from_be_bytes(random()?)))
}

/// 256 random bits, as a client keeps them.
pub fn new_secret() -> Result<String, NoRandomness> {
    Ok(Base64UrlUnpadded::encode_string(&random::<32>()?))
}

/// What is stored of a secret.
pub fn hash(secret: &str) -> String {
    Base64UrlUnpadded::encode_string(&Sha256::digest(secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_and_never_the_same() {
        let (a, b) = (new_secret().unwrap(), new_secret().unwrap());
        assert_ne!(a, b);
        assert_eq!(Base64UrlUnpadded::decode_vec(&a).unwrap().len(), 32);
        assert!(!hash(&a).contains(&a));
        assert_eq!(new_id().unwrap().len(), 32);
    }
}
