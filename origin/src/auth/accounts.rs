//! Accounts as they begin, and what the command line does with them: the first member of staff has a password of her own
//! choosing, and there never is a default one.
use super::email;
use super::password::{self, HashError, Hasher};
use super::secret::{NoRandomness, new_id};
use crate::error::StoreError;
use crate::keys::Rotated;
use crate::store::accounts::{Account, Kind};
use crate::store::{LoggedPurge, Store};
use kv_schemas::claims::StaffRole;
use kv_schemas::viewer::{Maturity, Plan};
use kv_schemas::{AsOf, PurgeMode, SurrogateKey};

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("the e-mail address {0}")]
    Email(&'static str),
    #[error("the password {0}")]
    Password(&'static str),
    #[error("there is a member of staff with this e-mail address already")]
    Exists,
    #[error("the password cannot be hashed: {0}")]
    Hash(#[from] HashError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An account with nothing chosen.
pub fn new_account(kind: Kind, email: String, password_hash: String, now_ms: i64) -> Result<Account, NoRandomness> {
    Ok(Account {
        id: new_id()?,
        kind,
        name: email.clone(),
        email,
        password_hash,
        role: None,
        plan: Plan::None,
        maturity: Maturity::From18,
        locale: None,
        banned: false,
        progress_logged_ms: 0,
        created_ms: now_ms,
        updated_ms: now_ms,
    })
}

/// Makes a member of staff who can log in. Returns the account's id.
pub async fn create_staff(
    store: &Store,
    hasher: &Hasher,
    address: &str,
    role: StaffRole,
    chosen: &str,
) -> Result<String, CreateError> {
    let email = email::normalise(address).map_err(CreateError::Email)?;
    password::check(chosen, &email).map_err(CreateError::Password)?;
    let password_hash = hasher.hash(chosen.into()).await?;
    let now_ms = i64::try_from(crate::now_ms()).unwrap_or(i64::MAX);
    let account = Account { role: Some(role), ..new_account(Kind::Staff, email, password_hash, now_ms)? };
    let mut write = store.write().await?;
    if !write.add_account(&account).await? {
        return Err(CreateError::Exists);
    }
    write.commit().await?;
    Ok(account.id)
}

/// Logs the purge of the published keys.
pub async fn log_rotation(store: &Store, rotated: &Rotated) -> Result<AsOf, StoreError> {
    let keys = SurrogateKey::new(crate::http::jwks::KEY).map_err(|error| StoreError::Stored(error.to_string()))?;
    let reason = format!("key {} published", rotated.next);
    let mut write = store.write().await?;
    let purge = LoggedPurge { keys: &[keys], mode: PurgeMode::Hard, reason: Some(&reason), actor: Some("keys rotate") };
    write.purge(purge).await?;
    write.commit().await
}
