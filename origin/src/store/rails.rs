//! The rows of the home page.
use super::titles::title_of;
use super::{Snapshot, Write};
use crate::catalog::model::{Rail, Title};
use crate::error::StoreError;
use sqlx::Row;

impl Snapshot {
    /// Rails in order, each with those of its titles that viewers see.
    pub async fn rails(&mut self, now_ms: i64) -> Result<Vec<(Rail, Vec<Title>)>, StoreError> {
        let rows =
            sqlx::query("SELECT id, title, position FROM rail ORDER BY position, id").fetch_all(&mut *self.tx).await?;
        let mut rails: Vec<(Rail, Vec<Title>)> = Vec::with_capacity(rows.len());
        for row in rows {
            let rail = Rail { id: row.try_get(0)?, title: row.try_get(1)?, position: row.try_get(2)?, items: vec![] };
            rails.push((rail, Vec::new()));
        }
        let rows = sqlx::query(
            "SELECT rail_item.rail_id, title.* FROM rail_item JOIN title ON title.id = rail_item.title_id
              WHERE title.visible = 1 AND (title.available_until_ms IS NULL OR title.available_until_ms > $1)
              ORDER BY rail_item.rail_id, rail_item.position",
        )
        .bind(now_ms)
        .fetch_all(&mut *self.tx)
        .await?;
        for row in rows {
            let rail_id: String = row.try_get("rail_id")?;
            if let Some((rail, titles)) = rails.iter_mut().find(|(rail, _)| rail.id == rail_id) {
                let title = title_of(&row)?;
                rail.items.push(title.id.clone());
                titles.push(title);
            }
        }
        Ok(rails)
    }
}

impl Snapshot {
    /// Every rail as it was written.
    pub async fn all_rails(&mut self) -> Result<Vec<Rail>, StoreError> {
        let rows = sqlx::query("SELECT id, title, position FROM rail ORDER BY id").fetch_all(&mut *self.tx).await?;
        let mut rails = Vec::with_capacity(rows.len());
        for row in rows {
            let id: String = row.try_get(0)?;
            let items = sqlx::query("SELECT title_id FROM rail_item WHERE rail_id = $1 ORDER BY position")
                .bind(&id)
                .fetch_all(&mut *self.tx)
                .await?;
            let items = items.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
            rails.push(Rail { id, title: row.try_get(1)?, position: row.try_get(2)?, items });
        }
        Ok(rails)
    }
}

impl Write {
    /// Ids of the rails that name a title, shown or not.
    pub async fn rails_of(&mut self, title_id: &str) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query("SELECT DISTINCT rail_id FROM rail_item WHERE title_id = $1 ORDER BY rail_id")
            .bind(title_id)
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    pub async fn rail(&mut self, id: &str) -> Result<Option<Rail>, StoreError> {
        let row = sqlx::query("SELECT id, title, position FROM rail WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut *self.tx)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let items = sqlx::query("SELECT title_id FROM rail_item WHERE rail_id = $1 ORDER BY position")
            .bind(id)
            .fetch_all(&mut *self.tx)
            .await?;
        let items = items.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        Ok(Some(Rail { id: row.try_get(0)?, title: row.try_get(1)?, position: row.try_get(2)?, items }))
    }

    pub async fn put_rail(&mut self, rail: &Rail) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO rail (id, title, position) VALUES ($1, $2, $3)
              ON CONFLICT (id) DO UPDATE SET title = excluded.title, position = excluded.position",
        )
        .bind(&rail.id)
        .bind(&rail.title)
        .bind(rail.position)
        .execute(&mut *self.tx)
        .await?;
        sqlx::query("DELETE FROM rail_item WHERE rail_id = $1").bind(&rail.id).execute(&mut *self.tx).await?;
        for (position, item) in (0i64..).zip(&rail.items) {
            sqlx::query("INSERT INTO rail_item (rail_id, position, title_id) VALUES ($1, $2, $3)")
                .bind(&rail.id)
                .bind(position)
                .bind(item)
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(())
    }
}
