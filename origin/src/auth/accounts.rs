//! Accounts as they begin, and what the command line does with them: the first member of staff has a password of her own
//! choosing, and there never is a default one.
use super::email;
use super::password::{self, HashError, Hasher};
use super::secret::{self, NoRandomness, new_id, new_secret};
use crate::error::StoreError;
use crate::keys::Rotated;
use crate::store::accounts::{Account, Kind};
use crate::store::{LoggedPurge, Store, Write};
use kv_schemas::claims::StaffRole;
use kv_schemas::viewer::{Maturity, Plan};
use kv_schemas::{AsOf, PurgeMode, SurrogateKey};

pub const NAME_CHARS_MAX: usize = 80;

/// A name as people write it: no control characters, not only white space, not endless.
pub fn check_name(name: &str) -> Result<String, &'static str> {
    let name = name.trim();
    let fits = (1..=NAME_CHARS_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if fits { Ok(name.into()) } else { Err("must have 1 to 80 characters") }
}

/// What is left of another system's name by the same rule; nothing, if there is nothing.
pub fn mended_name(name: &str) -> String {
    let spaced = name.chars().map(|c| if c.is_whitespace() { ' ' } else { c });
    let plain: String = spaced.filter(|c| !c.is_control()).collect();
    plain.trim().chars().take(NAME_CHARS_MAX).collect::<String>().trim_end().into()
}

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
    let now_ms = crate::moment();
    let account = Account { role: Some(role), ..new_account(Kind::Staff, email, password_hash, now_ms)? };
    let mut write = store.write().await?;
    if !write.add_account(&account).await? {
        return Err(CreateError::Exists);
    }
    write.commit().await?;
    Ok(account.id)
}

/// A one-time token with which the owner of an account chooses a password.
#[derive(Debug, serde::Serialize)]
pub struct Invitation {
    pub email: String,
    pub invitation: String,
    #[serde(serialize_with = "crate::store::accounts::moment")]
    pub ends_at: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    #[error("there is no viewer with the e-mail address {0}, or the account is closed")]
    Absent(String),
    #[error(transparent)]
    Random(#[from] NoRandomness),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Invites one viewer to choose a (new) password. An earlier invitation is void.
pub async fn invite_viewer(store: &Store, address: &str, lifetime_ms: i64) -> Result<Invitation, InviteError> {
    let absent = || InviteError::Absent(address.into());
    let email = email::normalise(address).map_err(|_| absent())?;
    let mut write = store.write().await?;
    let account = write.account_by_email(Kind::Viewer, &email).await?.filter(|account| !account.banned);
    let invitation = invitation(&mut write, &account.ok_or_else(absent)?, lifetime_ms).await?;
    write.commit().await?;
    Ok(invitation)
}

/// Invites viewers who have no password and no open invitation, at most so many, by id from `after` on. Also the last of them:
/// where to go on.
pub async fn invite_viewers(
    store: &Store,
    after: &str,
    limit: u32,
    lifetime_ms: i64,
) -> Result<(Vec<Invitation>, Option<String>), InviteError> {
    let now_ms = crate::moment();
    let accounts = store.snapshot().await?.uninvited(Kind::Viewer, after, limit, now_ms).await?;
    let mut write = store.write().await?;
    let mut all = Vec::with_capacity(accounts.len());
    for account in &accounts {
        all.push(invitation(&mut write, account, lifetime_ms).await?);
    }
    write.commit().await?;
    Ok((all, accounts.last().map(|last| last.id.clone())))
}

/// Makes an account's one open invitation.
pub async fn invitation(write: &mut Write, account: &Account, lifetime_ms: i64) -> Result<Invitation, InviteError> {
    let invitation = new_secret()?;
    let now_ms = crate::moment();
    let ends_at = now_ms.saturating_add(lifetime_ms);
    write.invite(&account.id, &secret::hash(&invitation), ends_at).await?;
    Ok(Invitation { email: account.email.clone(), invitation, ends_at })
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
