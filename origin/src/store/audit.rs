//! Who changed what, and the answers to creates that may be asked for twice. Both are written in the transaction of the
//! write they tell of.
use super::purges::SCAN_MAX;
use super::{Row as DbRow, Snapshot, Sql, Write, int_of, seq_of};
use crate::error::StoreError;
use kv_schemas::Seq;
use serde::Serialize;
use serde_json::Value;
use sqlx::Row;
use utoipa::ToSchema;

/// Kept answers are forgotten after a day.
pub const KEPT_MS: i64 = 24 * 3_600 * 1_000;

/// Kinds of which admins alone are told: people.
pub const OF_PEOPLE: [&str; 2] = ["user", "staff"];

/// One change of one thing.
pub struct Change<'a> {
    pub actor: &'a str,
    /// `create`, `edit`, `delete`, `restore`, `appear`, `go`, `invite`, `ban` …
    pub action: &'a str,
    /// `title`, `rail`, `user` …
    pub kind: &'a str,
    pub id: &'a str,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// A change as it is listed.
#[derive(Debug, Serialize, ToSchema)]
pub struct Entry {
    /// The purge of the write, and its place among the changes of that write.
    pub seq: Seq,
    pub n: i64,
    pub at_ms: i64,
    pub actor: String,
    pub action: String,
    pub kind: String,
    pub id: String,
    #[schema(value_type = Option<Object>)]
    pub before: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub after: Option<Value>,
}

/// A row's place in the log: by number, which settles all, or by time first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditPlace {
    pub at_ms: i64,
    pub seq: Seq,
    pub n: i64,
}

#[derive(Debug, Default)]
pub struct AuditFilter {
    pub kind: Option<String>,
    pub id: Option<String>,
    pub actor: Option<String>,
    /// None of people.
    pub impersonal: bool,
    pub from_ms: Option<i64>,
    pub until_ms: Option<i64>,
    /// Only what is older than this.
    pub before: Option<AuditPlace>,
}

impl AuditFilter {
    /// Whether time decides where the list begins and ends, and orders it. One thing's own changes are few, and found by it.
    pub fn is_by_time(&self) -> bool {
        self.id.is_none() && (self.from_ms.is_some() || self.until_ms.is_some())
    }

    /// What an index has together, and what is left to be looked at row by row: columns and values.
    fn parted(&self) -> (Vec<Equal<'_>>, Vec<Equal<'_>>) {
        let given = [("target_id", &self.id), ("kind", &self.kind), ("actor", &self.actor)];
        let mut left: Vec<Equal<'_>> =
            given.into_iter().filter_map(|(column, value)| Some((column, value.as_deref()?))).collect();
        if self.is_by_time() {
            return (Vec::new(), left);
        }
        // Of kind and actor the actor: there are more of them.
        left.sort_by_key(|(column, _)| *column == "kind");
        let mut found: Vec<Equal<'_>> = left.drain(..left.len().min(1)).collect();
        if self.id.is_some() {
            found.extend(left.extract_if(.., |(column, _)| *column == "kind"));
        }
        (found, left)
    }

    /// The rows a page may look at, but for what is left: of these values, older than where it begins, and not older than `end`.
    fn part(&self, select: &'static str, equal: &[Equal<'_>], end: Option<AuditPlace>) -> Sql {
        let mut query = Sql::new(select);
        let by_time = self.is_by_time();
        let place = |query: &mut Sql, than: &'static str, at: AuditPlace| {
            if by_time {
                query.push("(at_ms, seq, n)").push(than).push("(").bind(at.at_ms).push(", ");
            } else {
                query.push("(seq, n)").push(than).push("(");
            }
            query.bind(int_of(at.seq)).push(", ").bind(at.n).push(")");
        };
        let newest = AuditPlace { at_ms: i64::MAX, seq: kv_schemas::SEQ_MAX, n: 0 };
        let until = self.until_ms.filter(|_| by_time).map(|at_ms| AuditPlace { at_ms, seq: 0, n: 0 });
        let begin = [self.before, until].into_iter().flatten().min().unwrap_or(newest);
        query.push(" WHERE ");
        place(&mut query, " < ", begin);
        let from = self.from_ms.filter(|_| by_time).map(|at_ms| AuditPlace { at_ms, seq: 0, n: 0 });
        if let Some(end) = [end, from].into_iter().flatten().max() {
            query.push(" AND ");
            place(&mut query, " >= ", end);
        }
        for (column, value) in equal {
            query.push(" AND ").push(column).push(" = ").bind(value.to_string());
        }
        query
    }

    fn order(&self) -> &'static str {
        if self.is_by_time() { " ORDER BY at_ms DESC, seq DESC, n DESC" } else { " ORDER BY seq DESC, n DESC" }
    }
}

/// A column, and the value wanted in it.
type Equal<'a> = (&'static str, &'a str);

/// An answer as it was given.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeptAnswer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Write {
    /// Notes a change. Called after the purge of the write, whose number it takes.
    pub async fn audit(&mut self, n: usize, change: &Change<'_>) -> Result<(), StoreError> {
        let text = |value: &Option<Value>| value.as_ref().map(Value::to_string);
        sqlx::query(
            "INSERT INTO audit (seq, n, at_ms, actor, action, kind, target_id, before, after)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(int_of(self.head))
        .bind(i64::try_from(n).unwrap_or(i64::MAX))
        .bind(crate::moment())
        .bind(change.actor.to_string())
        .bind(change.action.to_string())
        .bind(change.kind.to_string())
        .bind(change.id.to_string())
        .bind(text(&change.before))
        .bind(text(&change.after))
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// What was answered to this key: the digest of the request, and the answer.
    pub async fn kept_answer(&mut self, actor: &str, key: &str) -> Result<Option<(String, KeptAnswer)>, StoreError> {
        let row =
            sqlx::query("SELECT digest, answer FROM idempotency WHERE actor = $1 AND key = $2 AND created_ms > $3")
                .bind(actor.to_string())
                .bind(key.to_string())
                .bind(crate::moment().saturating_sub(KEPT_MS))
                .fetch_optional(&mut *self.tx)
                .await?;
        row.map(|row| Ok((row.try_get(0)?, super::titles::stored(&row.try_get::<String, _>(1)?)?))).transpose()
    }

    pub async fn keep_answer(
        &mut self,
        actor: &str,
        key: &str,
        digest: &str,
        answer: &KeptAnswer,
    ) -> Result<(), StoreError> {
        let now_ms = crate::moment();
        // One of this key that is forgotten may not have been taken away yet.
        sqlx::query(
            "INSERT INTO idempotency (actor, key, digest, answer, created_ms) VALUES ($1, $2, $3, $4, $5)
              ON CONFLICT (actor, key) DO UPDATE SET digest = excluded.digest, answer = excluded.answer,
                created_ms = excluded.created_ms",
        )
        .bind(actor.to_string())
        .bind(key.to_string())
        .bind(digest.to_string())
        .bind(super::titles::json(answer)?)
        .bind(now_ms)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }
}

impl Snapshot {
    /// Changes youngest first, and where the next page begins if there may be more. Looks at no more than [`SCAN_MAX`] rows, so
    /// that a page may have fewer than there are, or none.
    pub async fn audit(
        &mut self,
        filter: &AuditFilter,
        limit: u32,
    ) -> Result<(Vec<Entry>, Option<AuditPlace>), StoreError> {
        let (equal, left) = filter.parted();
        let is_left_by_time = !filter.is_by_time() && (filter.from_ms.is_some() || filter.until_ms.is_some());
        let is_impersonal = filter.impersonal && filter.kind.as_deref().is_none_or(|kind| OF_PEOPLE.contains(&kind));
        let is_filtered = !left.is_empty() || is_left_by_time || is_impersonal;
        let end = if is_filtered { self.audit_window(filter, &equal).await? } else { None };
        // With fewer rows than that the window has the beginning of the log for its end: one statement, one plan.
        let beginning = AuditPlace { at_ms: 0, seq: 0, n: 0 };
        let select = "SELECT seq, n, at_ms, actor, action, kind, target_id, before, after FROM audit";
        let mut query = filter.part(select, &equal, is_filtered.then(|| end.unwrap_or(beginning)));
        for (column, value) in left {
            query.push(" AND ").push(column).push(" = ").bind(value.to_string());
        }
        if is_impersonal {
            query.push(" AND kind NOT IN (").bind_all(OF_PEOPLE).push(")");
        }
        if is_left_by_time {
            query.push(" AND at_ms >= ").bind(filter.from_ms.unwrap_or(i64::MIN));
            query.push(" AND at_ms < ").bind(filter.until_ms.unwrap_or(i64::MAX));
        }
        query.push(filter.order()).push(" LIMIT ").bind(i64::from(limit));
        let rows = query.build()?.fetch_all(&mut *self.tx).await?;
        let entries = rows.iter().map(entry_of).collect::<Result<Vec<_>, _>>()?;
        let is_full = u32::try_from(entries.len()).is_ok_and(|count| count == limit);
        let last = entries.last().map(|last| AuditPlace { at_ms: last.at_ms, seq: last.seq, n: last.n });
        Ok((entries, if is_full { last } else { end }))
    }

    /// The last row a page looks at, if there are so many.
    async fn audit_window(
        &mut self,
        filter: &AuditFilter,
        equal: &[Equal<'_>],
    ) -> Result<Option<AuditPlace>, StoreError> {
        let mut query = filter.part("SELECT at_ms, seq, n FROM audit", equal, None);
        query.push(filter.order()).push(" LIMIT 1 OFFSET ").bind(int_of(SCAN_MAX.saturating_sub(1)));
        let row = query.build()?.fetch_optional(&mut *self.tx).await?;
        row.map(|row| Ok(AuditPlace { at_ms: row.try_get(0)?, seq: seq_of(row.try_get(1)?), n: row.try_get(2)? }))
            .transpose()
    }
}

fn entry_of(row: &DbRow) -> Result<Entry, StoreError> {
    let value = |text: Option<String>| text.map(|text| super::titles::stored(&text)).transpose();
    Ok(Entry {
        seq: seq_of(row.try_get("seq")?),
        n: row.try_get("n")?,
        at_ms: row.try_get("at_ms")?,
        actor: row.try_get("actor")?,
        action: row.try_get("action")?,
        kind: row.try_get("kind")?,
        id: row.try_get("target_id")?,
        before: value(row.try_get("before")?)?,
        after: value(row.try_get("after")?)?,
    })
}
