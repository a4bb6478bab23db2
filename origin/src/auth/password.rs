//! Passwords: which are taken, and what is kept of them. Hashing costs 64 MiB and a tenth of a second on purpose, so it runs
//! beside the async threads, few at once, with a short queue: a flood of log-ins is refused and cannot eat the machine.
use super::secret::NoRandomness;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

pub const PASSWORD_CHARS_MIN: usize = 10;
/// So that hashing the password itself stays cheap beside argon2.
pub const PASSWORD_BYTES_MAX: usize = 256;

/// The most used passwords of at least ten characters, from public lists of leaked ones; shorter ones are refused anyway.
const COMMON: &str = include_str!("common_passwords.txt");

/// Hashes waiting for their turn.
const WAITING_MAX: usize = 32;
const WAIT_MAX: Duration = Duration::from_secs(3);

/// Memory in KiB, passes, lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

impl Cost {
    /// RFC 9106 section 4, second recommended option.
    pub const RFC_9106: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };
    /// For tests, which do not measure strength.
    pub const TRIFLING: Self = Self { memory_kib: 32, passes: 1, lanes: 1 };
}

#[derive(Debug, thiserror::Error)]
pub enum HashError {
    #[error("too many passwords are being hashed")]
    Busy,
    #[error("argon2: {0}")]
    Argon2(String),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

impl From<argon2::Error> for HashError {
    fn from(error: argon2::Error) -> Self {
        Self::Argon2(error.to_string())
    }
}

impl From<argon2::password_hash::Error> for HashError {
    fn from(error: argon2::password_hash::Error) -> Self {
        Self::Argon2(error.to_string())
    }
}

/// Why a password is not taken.
pub fn check(password: &str, email: &str) -> Result<(), &'static str> {
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return Err("must have at least 10 characters");
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err("has at most 256 bytes");
    }
    let plain = password.to_lowercase();
    let mut bytes = plain.bytes();
    let first = bytes.next();
    if bytes.all(|byte| Some(byte) == first) || COMMON.lines().any(|common| common == plain) {
        return Err("is one of those that are tried first; choose another");
    }
    let local = email.split('@').next().unwrap_or_default();
    let is_address =
        plain == email || (local.len() >= 4 && plain.trim_end_matches(|c: char| !c.is_alphabetic()) == local);
    if is_address {
        return Err("must not be the e-mail address");
    }
    Ok(())
}

/// Hashes and verifies, a bounded number at once.
pub struct Hasher {
    argon2: Argon2<'static>,
    params: Params,
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// The hash of a password nobody knows, for accounts there are not.
    dummy: String,
    hashed: AtomicU64,
}

impl Hasher {
    /// `at_once`: hashes that run at the same time; each takes the memory of its cost.
    pub fn new(cost: Cost, at_once: usize) -> Result<Self, HashError> {
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, None)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
        let at_once = at_once.max(1);
        let dummy = hash_now(&argon2, &super::secret::new_secret()?)?;
        Ok(Self {
            argon2,
            params,
            running: Arc::new(Semaphore::new(at_once)),
            waiting: Arc::new(Semaphore::new(at_once.saturating_add(WAITING_MAX))),
            dummy,
            hashed: AtomicU64::new(0),
        })
    }

    /// Runs one hash when it is its turn.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Argon2<'static>) -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let _place = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| HashError::Busy)?;
        let turn = tokio::time::timeout(WAIT_MAX, Arc::clone(&self.running).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(HashError::Busy) };
        self.hashed.fetch_add(1, Ordering::Relaxed);
        let argon2 = self.argon2.clone();
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&argon2);
            // Held until the work is over, even if whoever asked has gone.
            drop(turn);
            result
        });
        done.await.map_err(|error| HashError::Argon2(error.to_string()))
    }

    /// How many passwords were hashed so far.
    pub fn hashed(&self) -> u64 {
        self.hashed.load(Ordering::Relaxed)
    }

    /// What is stored of a password.
    pub async fn hash(&self, password: String) -> Result<String, HashError> {
        self.run(move |argon2| hash_now(argon2, &password)).await?
    }

    /// Whether the password is the one of the stored hash. Without one it takes as long, and is not.
    pub async fn verify(&self, password: String, stored: Option<&str>) -> Result<bool, HashError> {
        let usable = stored.filter(|stored| !stored.is_empty());
        let exists = usable.is_some();
        let stored = usable.unwrap_or(&self.dummy).to_string();
        let fits = self.run(move |argon2| verify_now(argon2, &password, &stored)).await?;
        Ok(fits && exists)
    }

    /// Whether a stored hash was made at another cost than today's.
    pub fn is_outdated(&self, stored: &str) -> bool {
        let of = |stored: &str| Params::try_from(&PasswordHash::new(stored).ok()?).ok();
        of(stored).is_none_or(|params| {
            let same = |p: &Params| (p.m_cost(), p.t_cost(), p.p_cost());
            same(&params) != same(&self.params)
        })
    }
}

fn hash_now(argon2: &Argon2<'_>, password: &str) -> Result<String, HashError> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|_| NoRandomness)?;
    let hash: PasswordHash = argon2.hash_password_with_salt(password.as_bytes(), &salt)?;
    Ok(hash.to_string())
}

fn verify_now(argon2: &Argon2<'_>, password: &str, stored: &str) -> bool {
    // The hash's own cost counts, so that hashes of an older cost go on verifying.
    argon2.verify_password(password.as_bytes(), stored).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_passwords_are_refused() {
        for bad in [
            "short",
            "123456789",
            "1234567890",
            "PassWord123",
            "aaaaaaaaaaaa",
            "qwertyuiop",
            "ada.lovelace",
            "Ada.Lovelace12",
            "ada.lovelace@example.org",
            &"x1".repeat(129),
        ] {
            assert!(check(bad, "ada.lovelace@example.org").is_err(), "{bad:?}");
        }
        for good in ["correct horse", "Ünïcödé wörds", &"x1".repeat(128)] {
            assert_eq!(check(good, "ada.lovelace@example.org"), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn the_list_holds_what_the_length_lets_through() {
        for line in COMMON.lines() {
            assert!(line.chars().count() >= PASSWORD_CHARS_MIN && line == line.to_lowercase(), "{line}");
        }
    }

    #[tokio::test]
    async fn a_hash_verifies_its_password_alone_and_no_account_verifies_nothing() {
        let hasher = Hasher::new(Cost::TRIFLING, 2).unwrap();
        let stored = hasher.hash("correct horse".into()).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=32,t=1,p=1$"), "{stored}");
        assert!(hasher.verify("correct horse".into(), Some(&stored)).await.unwrap());
        assert!(!hasher.verify("correct house".into(), Some(&stored)).await.unwrap());
        assert!(!hasher.verify("correct horse".into(), None).await.unwrap());
        for unusable in ["", "x", "$argon2id$v=19$m=32,t=1,p=1$"] {
            assert!(!hasher.verify(String::new(), Some(unusable)).await.unwrap());
        }
        assert!(!hasher.is_outdated(&stored));
        assert!(Hasher::new(Cost { passes: 2, ..Cost::TRIFLING }, 1).unwrap().is_outdated(&stored));
    }

    #[test]
    fn the_cost_is_the_one_rfc_9106_recommends() {
        let hasher = Hasher::new(Cost::RFC_9106, 1).unwrap();
        assert!(hasher.dummy.starts_with("$argon2id$v=19$m=65536,t=3,p=4$"), "{}", hasher.dummy);
    }

    #[tokio::test]
    async fn few_hashes_run_at_once_few_wait_and_the_rest_is_refused() {
        let hasher = Arc::new(Hasher::new(Cost::TRIFLING, 2).unwrap());
        let (open, gate) = tokio::sync::watch::channel(false);
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..100 {
            let (hasher, gate, tell) = (Arc::clone(&hasher), gate.clone(), tell.clone());
            tokio::spawn(async move {
                let hold = move |_: &Argon2<'static>| {
                    while !*gate.borrow() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                };
                tell.send(hasher.run(hold).await.is_ok()).unwrap();
            });
        }
        // Nobody comes in any more once so many were refused.
        for _ in 2 + WAITING_MAX..100 {
            assert_eq!(told.recv().await, Some(false));
        }
        open.send(true).unwrap();
        let mut done = 0;
        for _ in 0..2 + WAITING_MAX {
            done += usize::from(told.recv().await.unwrap());
        }
        assert_eq!(done, 2 + WAITING_MAX);
    }
}
