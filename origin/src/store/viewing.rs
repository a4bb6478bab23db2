//! What is kept for a viewer: the watch-list, and how far titles have been watched. Every statement names the account.
use super::lists::{CARD, card_of};
use super::titles::Eye;
use super::{Row as DbRow, Snapshot, Write};
use crate::catalog::documents::Card;
use crate::error::StoreError;
use sqlx::any::{Any, AnyArguments};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Row, SqlSafeStr};

/// Titles on one watch-list, and titles whose progress is kept; what was touched longest ago makes room.
pub const KEPT_MAX: i64 = 500;

/// How far a viewer has watched a title.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub title_id: String,
    pub episode_id: Option<String>,
    pub position_s: i64,
    pub duration_s: i64,
    /// Whether it stands in continue-watching.
    pub watching: bool,
    pub updated_ms: i64,
}

/// What [`progress_of`] reads.
const PROGRESS: &str = "progress.title_id, progress.episode_id, progress.position_s, progress.duration_s,
    progress.watching, progress.updated_ms";

fn progress_of(row: &DbRow) -> Result<Progress, StoreError> {
    Ok(Progress {
        title_id: row.try_get("title_id")?,
        episode_id: row.try_get("episode_id")?,
        position_s: row.try_get("position_s")?,
        duration_s: row.try_get("duration_s")?,
        watching: row.try_get::<i64, _>("watching")? != 0,
        updated_ms: row.try_get("updated_ms")?,
    })
}

/// The titles of an account's rows that are not shown: gone, not for its viewer, or not there yet.
macro_rules! hidden {
    ($table:literal, $of_them:literal) => {
        concat!(
            "SELECT listed.title_id FROM ",
            $table,
            " listed LEFT JOIN title ON title.id = listed.title_id
              LEFT JOIN title_window own ON own.title_id = title.id AND own.region = $2
              WHERE listed.account_id = $1",
            $of_them,
            " AND (title.id IS NULL OR title.age > $3 OR COALESCE(own.gone_ms, title.gone_ms) <= $4)"
        )
    };
}

/// A title of a viewer's list, and what is kept of it there.
pub struct Kept<T> {
    pub card: Card,
    pub about: T,
}

/// A viewer's list: what she may see of it, and the ids of what she may not.
pub struct OwnList<T> {
    pub shown: Vec<Kept<T>>,
    pub hidden: Vec<String>,
}

/// A statement about an account's rows and what is seen of them: `$1` is the account, `$2` the region, `$3` the age, `$4` the
/// moment.
fn of_viewer<'a>(statement: impl SqlSafeStr, account_id: &'a str, eye: Eye) -> Query<'a, Any, AnyArguments> {
    let region = eye.region.as_str().to_string();
    sqlx::query(statement).bind(account_id).bind(region).bind(eye.maturity).bind(eye.now_ms)
}

impl Snapshot {
    /// The watch-list, last added first, with the moments; as far as viewers may see the titles now.
    pub async fn watch_list(&mut self, account_id: &str, eye: Eye) -> Result<OwnList<i64>, StoreError> {
        let statement = format!(
            "SELECT watch_item.added_ms, {CARD}
              FROM watch_item JOIN title ON title.id = watch_item.title_id
              LEFT JOIN title_window own ON own.title_id = title.id AND own.region = $2
              WHERE watch_item.account_id = $1 AND title.age <= $3 AND COALESCE(own.gone_ms, title.gone_ms) > $4
              ORDER BY watch_item.added_ms DESC, watch_item.title_id LIMIT $5"
        );
        // Made of constants alone.
        let query = of_viewer(AssertSqlSafe(statement), account_id, eye).bind(KEPT_MAX);
        let rows = query.fetch_all(&mut *self.tx).await?;
        let mut shown = Vec::with_capacity(rows.len());
        for row in &rows {
            shown.push(Kept { card: card_of(row)?, about: row.try_get("added_ms")? });
        }
        let hidden = self.hidden(hidden!("watch_item", ""), account_id, eye).await?;
        Ok(OwnList { shown, hidden })
    }

    /// What has been begun and not finished, last watched first.
    pub async fn continue_watching(
        &mut self,
        account_id: &str,
        limit: u32,
        eye: Eye,
    ) -> Result<OwnList<Progress>, StoreError> {
        let statement = format!(
            "SELECT {PROGRESS}, {CARD}
              FROM progress JOIN title ON title.id = progress.title_id
              LEFT JOIN title_window own ON own.title_id = title.id AND own.region = $2
              WHERE progress.account_id = $1 AND progress.watching = 1 AND title.age <= $3
                AND COALESCE(own.gone_ms, title.gone_ms) > $4
              ORDER BY progress.updated_ms DESC, progress.title_id LIMIT $5"
        );
        // Made of constants alone.
        let query = of_viewer(AssertSqlSafe(statement), account_id, eye).bind(i64::from(limit));
        let rows = query.fetch_all(&mut *self.tx).await?;
        let mut shown = Vec::with_capacity(rows.len());
        for row in &rows {
            shown.push(Kept { card: card_of(row)?, about: progress_of(row)? });
        }
        let hidden = self.hidden(hidden!("progress", " AND listed.watching = 1"), account_id, eye).await?;
        Ok(OwnList { shown, hidden })
    }

    /// How far one title was watched, if that is kept.
    pub async fn progress(&mut self, account_id: &str, title_id: &str) -> Result<Option<Progress>, StoreError> {
        let statement = format!("SELECT {PROGRESS} FROM progress WHERE account_id = $1 AND title_id = $2");
        // Made of constants alone.
        let query = sqlx::query(AssertSqlSafe(statement)).bind(account_id).bind(title_id);
        query.fetch_optional(&mut *self.tx).await?.as_ref().map(progress_of).transpose()
    }

    async fn hidden(&mut self, statement: &'static str, account_id: &str, eye: Eye) -> Result<Vec<String>, StoreError> {
        let rows = of_viewer(statement, account_id, eye).fetch_all(&mut *self.tx).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

/// Takes away what of an account's rows was touched longest ago.
macro_rules! oldest {
    ($table:literal, $touched:literal) => {
        concat!(
            "DELETE FROM ",
            $table,
            " WHERE account_id = $1 AND title_id IN (SELECT title_id FROM ",
            $table,
            " WHERE account_id = $1 ORDER BY ",
            $touched,
            " DESC, title_id LIMIT 1000 OFFSET $2)"
        )
    };
}

impl Write {
    /// Says whether something had to go.
    async fn make_room(&mut self, statement: &'static str, account_id: &str) -> Result<bool, StoreError> {
        let done = sqlx::query(statement).bind(account_id).bind(KEPT_MAX).execute(&mut *self.tx).await?;
        Ok(done.rows_affected() > 0)
    }

    /// Puts a title on the watch-list; says whether it was not there.
    pub async fn watch(&mut self, account_id: &str, title_id: &str, now_ms: i64) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO watch_item (account_id, title_id, added_ms) VALUES ($1, $2, $3)
              ON CONFLICT (account_id, title_id) DO NOTHING",
        )
        .bind(account_id)
        .bind(title_id)
        .bind(now_ms)
        .execute(&mut *self.tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        self.make_room(oldest!("watch_item", "added_ms"), account_id).await?;
        Ok(true)
    }

    /// Takes a title off the watch-list; says whether it was there.
    pub async fn unwatch(&mut self, account_id: &str, title_id: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM watch_item WHERE account_id = $1 AND title_id = $2")
            .bind(account_id)
            .bind(title_id)
            .execute(&mut *self.tx)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Whether a title stands in continue-watching.
    pub async fn is_watching(&mut self, account_id: &str, title_id: &str) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT watching FROM progress WHERE account_id = $1 AND title_id = $2")
            .bind(account_id)
            .bind(title_id)
            .fetch_optional(&mut *self.tx)
            .await?;
        Ok(row.map(|row| row.try_get::<i64, _>(0)).transpose()?.unwrap_or(0) != 0)
    }

    /// Says whether another title's progress had to go for it.
    pub async fn put_progress(&mut self, account_id: &str, progress: &Progress) -> Result<bool, StoreError> {
        sqlx::query(
            "INSERT INTO progress (account_id, title_id, episode_id, position_s, duration_s, watching, updated_ms)
              VALUES ($1, $2, $3, $4, $5, $6, $7)
              ON CONFLICT (account_id, title_id) DO UPDATE SET episode_id = excluded.episode_id,
                position_s = excluded.position_s, duration_s = excluded.duration_s, watching = excluded.watching,
                updated_ms = excluded.updated_ms",
        )
        .bind(account_id)
        .bind(&progress.title_id)
        .bind(&progress.episode_id)
        .bind(progress.position_s)
        .bind(progress.duration_s)
        .bind(i64::from(progress.watching))
        .bind(progress.updated_ms)
        .execute(&mut *self.tx)
        .await?;
        self.make_room(oldest!("progress", "updated_ms"), account_id).await
    }

    /// Forgets how far a title was watched.
    pub async fn forget_progress(&mut self, account_id: &str, title_id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM progress WHERE account_id = $1 AND title_id = $2")
            .bind(account_id)
            .bind(title_id)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Notes that a progress write purged this viewer's documents.
    pub async fn progress_logged(&mut self, account_id: &str, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query("UPDATE account SET progress_logged_ms = $2 WHERE id = $1")
            .bind(account_id)
            .bind(now_ms)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }
}
