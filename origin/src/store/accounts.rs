//! Accounts, their sessions, and the tokens those are refreshed with. No secret stands in the database: passwords as
//! argon2id, refresh tokens and invitations as SHA-256.
use super::tx::Timed;
use super::{Row as DbRow, Snapshot, Write};
use crate::error::StoreError;
use kv_schemas::claims::StaffRole;
use kv_schemas::viewer::{Locale, Maturity, Plan};
use serde::{Serialize, Serializer};
use sqlx::Row;
use utoipa::ToSchema;

/// Spent refresh tokens of a session that are remembered. An older one that is sent again is refused like a made-up one.
const SPENT_KEPT: i64 = 50;

/// Viewers and staff live in two worlds; no call of one finds an account or a session of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Viewer,
    Staff,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Staff => "staff",
        }
    }
}

/// Somebody who can log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    pub id: String,
    pub kind: Kind,
    /// Normalised.
    pub email: String,
    /// PHC string; empty while an invitation is open.
    pub password_hash: String,
    pub name: String,
    /// Staff have one, viewers none.
    pub role: Option<StaffRole>,
    pub plan: Plan,
    pub maturity: Maturity,
    pub locale: Option<Locale>,
    pub banned: bool,
    pub progress_logged_ms: i64,
    pub created_ms: i64,
    pub updated_ms: i64,
}

/// One log-in on one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Session {
    pub id: String,
    #[serde(skip)]
    pub account_id: String,
    pub device: String,
    #[serde(rename = "created_at", serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    pub created_ms: i64,
    #[serde(rename = "used_at", serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    pub used_ms: i64,
    /// When it ends unless it is refreshed; never later than `end_ms`.
    #[serde(skip)]
    pub idle_end_ms: i64,
    #[serde(skip)]
    pub end_ms: i64,
    #[serde(skip)]
    pub generation: i64,
}

impl Session {
    pub fn is_alive(&self, now_ms: i64) -> bool {
        now_ms < self.idle_end_ms
    }
}

/// Milliseconds since 1970 as RFC 3339.
pub fn moment<S: Serializer>(ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    let moment = jiff::Timestamp::from_millisecond(*ms).map(|moment| moment.to_string());
    serializer.serialize_str(&moment.unwrap_or_default())
}

pub fn role_text(role: Option<StaffRole>) -> &'static str {
    match role {
        None => "",
        Some(StaffRole::Viewer) => "viewer",
        Some(StaffRole::Editor) => "editor",
        Some(StaffRole::Admin) => "admin",
    }
}

pub fn role_of(text: &str) -> Option<StaffRole> {
    [StaffRole::Viewer, StaffRole::Editor, StaffRole::Admin].into_iter().find(|role| role_text(Some(*role)) == text)
}

fn stored(what: impl std::fmt::Display) -> StoreError {
    StoreError::Stored(what.to_string())
}

/// A statement about accounts, with what [`account_of`] reads of each.
macro_rules! select_accounts {
    ($which:literal) => {
        concat!(
            "SELECT id, kind, email, password_hash, name, role, plan, maturity, locale, banned, progress_logged_ms,
               created_ms, updated_ms FROM account WHERE ",
            $which
        )
    };
}

/// The same of sessions, for [`session_of`].
macro_rules! select_sessions {
    ($which:literal) => {
        concat!(
            "SELECT id, account_id, device, created_ms, used_ms, idle_end_ms, end_ms, generation FROM session WHERE ",
            $which
        )
    };
}

fn account_of(row: &DbRow) -> Result<Account, StoreError> {
    let kind = if row.try_get::<String, _>("kind")? == "staff" { Kind::Staff } else { Kind::Viewer };
    let years = u8::try_from(row.try_get::<i64, _>("maturity")?).map_err(stored)?;
    let locale: Option<String> = row.try_get("locale")?;
    Ok(Account {
        id: row.try_get("id")?,
        kind,
        email: row.try_get("email")?,
        password_hash: row.try_get("password_hash")?,
        name: row.try_get("name")?,
        role: role_of(&row.try_get::<String, _>("role")?),
        plan: row.try_get::<String, _>("plan")?.parse().map_err(stored)?,
        maturity: Maturity::try_from(years).map_err(stored)?,
        locale: locale.map(|locale| locale.parse()).transpose().map_err(stored)?,
        banned: row.try_get::<i64, _>("banned")? != 0,
        progress_logged_ms: row.try_get("progress_logged_ms")?,
        created_ms: row.try_get("created_ms")?,
        updated_ms: row.try_get("updated_ms")?,
    })
}

fn session_of(row: &DbRow) -> Result<Session, StoreError> {
    Ok(Session {
        id: row.try_get("id")?,
        account_id: row.try_get("account_id")?,
        device: row.try_get("device")?,
        created_ms: row.try_get("created_ms")?,
        used_ms: row.try_get("used_ms")?,
        idle_end_ms: row.try_get("idle_end_ms")?,
        end_ms: row.try_get("end_ms")?,
        generation: row.try_get("generation")?,
    })
}

async fn by_id(tx: &mut Timed, kind: Kind, id: &str) -> Result<Option<Account>, StoreError> {
    let query = sqlx::query(select_accounts!("id = $1 AND kind = $2")).bind(id).bind(kind.as_str());
    query.fetch_optional(tx).await?.as_ref().map(account_of).transpose()
}

async fn by_email(tx: &mut Timed, kind: Kind, email: &str) -> Result<Option<Account>, StoreError> {
    let query = sqlx::query(select_accounts!("kind = $1 AND email = $2")).bind(kind.as_str()).bind(email);
    query.fetch_optional(tx).await?.as_ref().map(account_of).transpose()
}

async fn session_by_id(tx: &mut Timed, id: &str) -> Result<Option<Session>, StoreError> {
    let row = sqlx::query(select_sessions!("id = $1")).bind(id).fetch_optional(tx).await?;
    row.as_ref().map(session_of).transpose()
}

async fn sessions(tx: &mut Timed, account_id: &str) -> Result<Vec<Session>, StoreError> {
    let query = sqlx::query(select_sessions!("account_id = $1 ORDER BY used_ms DESC, id")).bind(account_id);
    query.fetch_all(tx).await?.iter().map(session_of).collect()
}

async fn in_session(
    tx: &mut Timed,
    kind: Kind,
    account_id: &str,
    session_id: &str,
    now_ms: i64,
) -> Result<Option<Account>, StoreError> {
    let session = session_by_id(tx, session_id).await?;
    if !session.is_some_and(|session| session.account_id == account_id && session.is_alive(now_ms)) {
        return Ok(None);
    }
    Ok(by_id(tx, kind, account_id).await?.filter(|account| !account.banned))
}

/// Accounts of one kind, by id.
pub struct Accounts<'a> {
    pub kind: Kind,
    pub after: &'a str,
    /// One address alone.
    pub email: Option<&'a str>,
    pub limit: u32,
}

impl Snapshot {
    pub async fn account(&mut self, kind: Kind, id: &str) -> Result<Option<Account>, StoreError> {
        by_id(&mut self.tx, kind, id).await
    }

    pub async fn account_by_email(&mut self, kind: Kind, email: &str) -> Result<Option<Account>, StoreError> {
        by_email(&mut self.tx, kind, email).await
    }

    /// Who a token's session belongs to, if that is alive, is the account's that the token names, and that account may
    /// be used.
    pub async fn account_in_session(
        &mut self,
        kind: Kind,
        account_id: &str,
        session_id: &str,
        now_ms: i64,
    ) -> Result<Option<Account>, StoreError> {
        in_session(&mut self.tx, kind, account_id, session_id, now_ms).await
    }

    pub async fn has_refresh_token(&mut self, hash: &str) -> Result<bool, StoreError> {
        let row =
            sqlx::query("SELECT 1 FROM refresh_token WHERE hash = $1").bind(hash).fetch_optional(&mut *self.tx).await?;
        Ok(row.is_some())
    }

    /// Whose an invitation is that can be taken up.
    pub async fn invited(&mut self, kind: Kind, hash: &str, now_ms: i64) -> Result<Option<Account>, StoreError> {
        let row = sqlx::query("SELECT account_id FROM invitation WHERE hash = $1 AND end_ms > $2")
            .bind(hash)
            .bind(now_ms)
            .fetch_optional(&mut *self.tx)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let account = self.account(kind, &row.try_get::<String, _>(0)?).await?;
        Ok(account.filter(|account| !account.banned))
    }

    /// Accounts in which nobody can log in, since no password was chosen, and which have no open invitation.
    pub async fn uninvited(
        &mut self,
        kind: Kind,
        after: &str,
        limit: u32,
        now_ms: i64,
    ) -> Result<Vec<Account>, StoreError> {
        let rows = sqlx::query(select_accounts!(
            "kind = $1 AND id > $2 AND password_hash = '' AND banned = 0
              AND NOT EXISTS (SELECT 1 FROM invitation WHERE invitation.account_id = account.id AND end_ms > $4)
              ORDER BY id LIMIT $3"
        ))
        .bind(kind.as_str())
        .bind(after)
        .bind(i64::from(limit))
        .bind(now_ms)
        .fetch_all(&mut *self.tx)
        .await?;
        rows.iter().map(account_of).collect()
    }

    /// The living sessions of an account, last used first.
    pub async fn sessions(&mut self, account_id: &str, now_ms: i64) -> Result<Vec<Session>, StoreError> {
        let sessions = sessions(&mut self.tx, account_id).await?;
        Ok(sessions.into_iter().filter(|session| session.is_alive(now_ms)).collect())
    }

    pub async fn accounts(&mut self, page: Accounts<'_>) -> Result<Vec<Account>, StoreError> {
        let rows = match page.email {
            Some(email) => {
                sqlx::query(select_accounts!("kind = $1 AND email = $2 AND id > $3"))
                    .bind(page.kind.as_str())
                    .bind(email)
                    .bind(page.after)
                    .fetch_all(&mut *self.tx)
                    .await?
            }
            None => {
                sqlx::query(select_accounts!("kind = $1 AND id > $2 ORDER BY id LIMIT $3"))
                    .bind(page.kind.as_str())
                    .bind(page.after)
                    .bind(i64::from(page.limit))
                    .fetch_all(&mut *self.tx)
                    .await?
            }
        };
        rows.iter().map(account_of).collect()
    }
}

impl Write {
    pub async fn account(&mut self, kind: Kind, id: &str) -> Result<Option<Account>, StoreError> {
        by_id(&mut self.tx, kind, id).await
    }

    pub async fn account_by_email(&mut self, kind: Kind, email: &str) -> Result<Option<Account>, StoreError> {
        by_email(&mut self.tx, kind, email).await
    }

    /// As [`Snapshot::account_in_session`].
    pub async fn account_in_session(
        &mut self,
        kind: Kind,
        account_id: &str,
        session_id: &str,
        now_ms: i64,
    ) -> Result<Option<Account>, StoreError> {
        in_session(&mut self.tx, kind, account_id, session_id, now_ms).await
    }

    /// Changes nothing, at the cost of a change.
    pub async fn touch_account(&mut self, id: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE account SET updated_ms = updated_ms WHERE id = $1").bind(id).execute(&mut *self.tx).await?;
        Ok(())
    }

    /// Adds an account; false, and nothing changed, if its e-mail address has one already.
    pub async fn add_account(&mut self, account: &Account) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO account (id, kind, email, password_hash, name, role, plan, maturity, locale, banned,
                progress_logged_ms, created_ms, updated_ms)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING",
        )
        .bind(&account.id)
        .bind(account.kind.as_str())
        .bind(&account.email)
        .bind(&account.password_hash)
        .bind(&account.name)
        .bind(role_text(account.role))
        .bind(account.plan.as_str())
        .bind(i64::from(account.maturity.years()))
        .bind(account.locale.as_ref().map(Locale::as_str))
        .bind(i64::from(account.banned))
        .bind(account.progress_logged_ms)
        .bind(account.created_ms)
        .bind(account.updated_ms)
        .execute(&mut *self.tx)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Writes what can change of an account.
    pub async fn put_account(&mut self, account: &Account) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE account SET password_hash = $2, name = $3, role = $4, plan = $5, maturity = $6, locale = $7,
                banned = $8, progress_logged_ms = $9, updated_ms = $10 WHERE id = $1",
        )
        .bind(&account.id)
        .bind(&account.password_hash)
        .bind(&account.name)
        .bind(role_text(account.role))
        .bind(account.plan.as_str())
        .bind(i64::from(account.maturity.years()))
        .bind(account.locale.as_ref().map(Locale::as_str))
        .bind(i64::from(account.banned))
        .bind(account.progress_logged_ms)
        .bind(account.updated_ms)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Takes an account away, with everything that is kept for it.
    pub async fn delete_account(&mut self, id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM account WHERE id = $1").bind(id).execute(&mut *self.tx).await?;
        Ok(())
    }

    /// How many admins could log in.
    pub async fn admins(&mut self) -> Result<i64, StoreError> {
        let row = sqlx::query(
            "SELECT count(*) FROM account
              WHERE kind = 'staff' AND role = 'admin' AND banned = 0 AND password_hash <> ''",
        )
        .fetch_one(&mut *self.tx)
        .await?;
        Ok(row.try_get(0)?)
    }

    pub async fn session(&mut self, id: &str) -> Result<Option<Session>, StoreError> {
        session_by_id(&mut self.tx, id).await
    }

    /// All sessions of an account, last used first.
    pub async fn sessions(&mut self, account_id: &str) -> Result<Vec<Session>, StoreError> {
        sessions(&mut self.tx, account_id).await
    }

    pub async fn add_session(&mut self, session: &Session, refresh_hash: &str) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO session (id, account_id, device, created_ms, used_ms, idle_end_ms, end_ms, generation)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&session.id)
        .bind(&session.account_id)
        .bind(&session.device)
        .bind(session.created_ms)
        .bind(session.used_ms)
        .bind(session.idle_end_ms)
        .bind(session.end_ms)
        .bind(session.generation)
        .execute(&mut *self.tx)
        .await?;
        self.add_refresh_token(session, refresh_hash).await
    }

    async fn add_refresh_token(&mut self, session: &Session, hash: &str) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO refresh_token (hash, session_id, generation) VALUES ($1, $2, $3)")
            .bind(hash)
            .bind(&session.id)
            .bind(session.generation)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// The session a refresh token belongs to, and whether the token is its living one.
    pub async fn refresh_token(&mut self, hash: &str) -> Result<Option<(Session, bool)>, StoreError> {
        let row = sqlx::query("SELECT session_id, generation FROM refresh_token WHERE hash = $1")
            .bind(hash)
            .fetch_optional(&mut *self.tx)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let generation: i64 = row.try_get(1)?;
        let session = self.session(&row.try_get::<String, _>(0)?).await?;
        Ok(session.map(|session| {
            let lives = session.generation == generation;
            (session, lives)
        }))
    }

    /// Notes a refresh: the session as it is now, and its new living token.
    pub async fn refreshed(&mut self, session: &Session, hash: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE session SET used_ms = $2, idle_end_ms = $3, generation = $4 WHERE id = $1")
            .bind(&session.id)
            .bind(session.used_ms)
            .bind(session.idle_end_ms)
            .bind(session.generation)
            .execute(&mut *self.tx)
            .await?;
        sqlx::query("DELETE FROM refresh_token WHERE session_id = $1 AND generation < $2")
            .bind(&session.id)
            .bind(session.generation.saturating_sub(SPENT_KEPT))
            .execute(&mut *self.tx)
            .await?;
        self.add_refresh_token(session, hash).await
    }

    /// Ends a session. Its refresh tokens go with it.
    pub async fn end_session(&mut self, id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM session WHERE id = $1").bind(id).execute(&mut *self.tx).await?;
        Ok(())
    }

    /// Ends all sessions of an account, but one if that is named.
    pub async fn end_sessions(&mut self, account_id: &str, except: Option<&str>) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM session WHERE account_id = $1 AND id <> $2")
            .bind(account_id)
            .bind(except.unwrap_or(""))
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Gives an account its one open invitation.
    pub async fn invite(&mut self, account_id: &str, hash: &str, end_ms: i64) -> Result<(), StoreError> {
        self.withdraw_invitation(account_id).await?;
        sqlx::query("INSERT INTO invitation (hash, account_id, end_ms) VALUES ($1, $2, $3)")
            .bind(hash)
            .bind(account_id)
            .bind(end_ms)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Takes back the open invitation of an account, if it has one.
    pub async fn withdraw_invitation(&mut self, account_id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM invitation WHERE account_id = $1").bind(account_id).execute(&mut *self.tx).await?;
        Ok(())
    }

    /// Uses an invitation up, and says whose it was.
    pub async fn take_invitation(
        &mut self,
        kind: Kind,
        hash: &str,
        now_ms: i64,
    ) -> Result<Option<Account>, StoreError> {
        let row = sqlx::query("SELECT account_id, end_ms FROM invitation WHERE hash = $1")
            .bind(hash)
            .fetch_optional(&mut *self.tx)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let end_ms: i64 = row.try_get(1)?;
        let account = self.account(kind, &row.try_get::<String, _>(0)?).await?;
        let account = account.filter(|account| !account.banned && end_ms > now_ms);
        if account.is_some() {
            sqlx::query("DELETE FROM invitation WHERE hash = $1").bind(hash).execute(&mut *self.tx).await?;
        }
        Ok(account)
    }
}
