//! Who changed what, and the answers to creates that may be asked for twice. Both are written in the transaction of the
//! write they tell of.
use super::{Snapshot, Sql, Write, int_of, seq_of};
use crate::error::StoreError;
use kv_schemas::Seq;
use serde::Serialize;
use serde_json::Value;
use sqlx::Row;
use utoipa::ToSchema;

/// Kept answers are forgotten after a day.
pub(super) const KEPT_MS: i64 = 24 * 3_600 * 1_000;

/// One change of one thing.
pub struct Change<'a> {
    pub actor: &'a str,
    /// `create`, `edit`, `delete`, `restore`, `appear`, `go` …
    pub action: &'a str,
    /// `title`, `rail` …
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

#[derive(Debug, Default)]
pub struct AuditFilter {
    pub kind: Option<String>,
    pub id: Option<String>,
    pub actor: Option<String>,
    pub from_ms: Option<i64>,
    pub until_ms: Option<i64>,
    /// Only what is older than this.
    pub before: Option<(Seq, i64)>,
}

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
    /// Changes youngest first.
    pub async fn audit(&mut self, filter: &AuditFilter, limit: u32) -> Result<Vec<Entry>, StoreError> {
        let (seq, n) = filter.before.unwrap_or((kv_schemas::SEQ_MAX, 0));
        let mut query = Sql::new("SELECT * FROM audit WHERE (seq, n) < (");
        query.bind(int_of(seq)).push(", ").bind(n).push(")");
        for (column, value) in [("kind", &filter.kind), ("target_id", &filter.id), ("actor", &filter.actor)] {
            if let Some(value) = value {
                query.push(" AND ").push(column).push(" = ").bind(value.clone());
            }
        }
        if let Some(from_ms) = filter.from_ms {
            query.push(" AND at_ms >= ").bind(from_ms);
        }
        if let Some(until_ms) = filter.until_ms {
            query.push(" AND at_ms < ").bind(until_ms);
        }
        query.push(" ORDER BY seq DESC, n DESC LIMIT ").bind(i64::from(limit));
        let rows = query.build()?.fetch_all(&mut *self.tx).await?;
        let value = |text: Option<String>| text.map(|text| super::titles::stored(&text)).transpose();
        rows.iter()
            .map(|row| {
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
            })
            .collect()
    }
}
