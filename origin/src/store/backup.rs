//! The whole database as lines of JSON, whichever engine it is on: taken from one snapshot while the service runs, and
//! put back into an empty database of either engine.
//!
//! Who was logged in is not kept: a session that was ended after the backup must not come back with it.
use super::{Engine, Snapshot, Sql, Store, new_log_id, seq_of};
use crate::error::StoreError;
use futures_util::TryStreamExt;
use kv_schemas::{AsOf, LogId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::any::AnyTypeInfoKind;
use sqlx::{AssertSqlSafe, Row as _, ValueRef};
use std::fs::File;
use std::io::{BufRead, BufWriter, Error, ErrorKind, Write};
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, PersistError};

/// Of the file's form. 2: it has an end.
const FORM: u32 = 2;
/// Not kept: the engine's own, what is told anew, and what would let somebody in again.
const LEFT_OUT: [&str; 6] = ["_sqlx_migrations", "delivery", "session", "refresh_token", "invitation", "idempotency"];
/// What a new database has rows in by itself.
const NEVER_EMPTY: [&str; 4] = ["_sqlx_migrations", "delivery", "log_head", "derived"];
/// Values of one statement; both engines take more.
const VALUES_MAX: usize = 10_000;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    nextream_backup: u32,
    as_of: AsOf,
    /// The youngest migration.
    schema: i64,
}

/// The last line: what comes to an end without it is not the whole backup.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    /// Of all tables.
    rows: u64,
}

/// Every line between them: a table's columns, or, without a name, one of its rows.
#[derive(Debug, Serialize, Deserialize)]
struct Table {
    table: String,
    columns: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the file cannot be read or written: {0}")]
    File(#[from] std::io::Error),
    #[error("the backup is whole and stands at {}, since it cannot be given its name: {}", .0.display(), .1)]
    Unnamed(PathBuf, std::io::Error),
    #[error("line {0} of the file is not of a backup: {1}")]
    Line(u64, String),
    #[error("the file ends before the backup does: it was cut, or never finished")]
    Cut,
    #[error("the backup has {0} rows and was written with {1}: the file is damaged")]
    Rows(u64, u64),
    #[error("the backup is of form {0}, this program reads form {1}; use the release it was made with")]
    Form(u32, u32),
    #[error("the backup was made with schema {0}, this program has {1}; use the release it was made with")]
    Schema(i64, i64),
    #[error("the database is not empty (there is something in {0}); restore into a new one")]
    NotEmpty(String),
}

impl From<sqlx::Error> for BackupError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// One value; the store has whole numbers, fractions and text.
fn value_of(row: &super::Row, at: usize) -> Result<Value, StoreError> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    Ok(match raw.type_info().kind() {
        AnyTypeInfoKind::Bool | AnyTypeInfoKind::SmallInt | AnyTypeInfoKind::Integer | AnyTypeInfoKind::BigInt => {
            row.try_get::<i64, _>(at)?.into()
        }
        AnyTypeInfoKind::Real | AnyTypeInfoKind::Double => row.try_get::<f64, _>(at)?.into(),
        _ => row.try_get::<String, _>(at)?.into(),
    })
}

impl Snapshot {
    async fn schema(&mut self) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT max(version) FROM _sqlx_migrations").fetch_one(&mut *self.tx).await?;
        Ok(row.try_get(0)?)
    }

    /// Tables in the order they were made, so that a row comes after those it refers to, with their columns.
    async fn tables(&mut self, left_out: &[&str]) -> Result<Vec<Table>, StoreError> {
        let names = match self.engine {
            // Tables of a full text index are that index's own.
            Engine::Sqlite => {
                "SELECT name FROM pragma_table_list
                  JOIN sqlite_schema USING (name) WHERE schema = 'main' AND pragma_table_list.type = 'table'
                   AND name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY sqlite_schema.rowid"
            }
            Engine::Postgres => {
                "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY oid"
            }
        };
        let columns = match self.engine {
            Engine::Sqlite => "SELECT name FROM pragma_table_info($1) ORDER BY cid",
            // What the engine computes, or only it knows, it computes again.
            Engine::Postgres => {
                "SELECT column_name::text FROM information_schema.columns WHERE table_schema = 'public' AND table_name = $1
                   AND is_generated = 'NEVER' AND data_type IN ('bigint', 'integer', 'double precision', 'text')
                  ORDER BY ordinal_position"
            }
        };
        let mut tables = Vec::new();
        for row in sqlx::query(names).fetch_all(&mut *self.tx).await? {
            let table: String = row.try_get(0)?;
            if left_out.contains(&table.as_str()) {
                continue;
            }
            let rows = sqlx::query(columns).bind(&table).fetch_all(&mut *self.tx).await?;
            let columns = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
            tables.push(Table { table, columns });
        }
        Ok(tables)
    }

    /// Writes everything there is in this snapshot, and returns how many rows.
    pub async fn back_up(mut self, to: &mut impl Write) -> Result<u64, BackupError> {
        if self.engine == Engine::Postgres {
            // A large table takes longer than a request may.
            sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut *self.tx).await?;
        }
        let head = Head { nextream_backup: FORM, as_of: self.as_of.clone(), schema: self.schema().await? };
        put_line(to, &head)?;
        let mut count = 0;
        for table in self.tables(&LEFT_OUT).await? {
            put_line(to, &table)?;
            let names: Vec<String> = table.columns.iter().map(|name| quoted(name)).collect();
            let select = format!("SELECT {} FROM {}", names.join(", "), quoted(&table.table));
            let mut rows = sqlx::query(AssertSqlSafe(select)).fetch(&mut *self.tx);
            while let Some(row) = rows.try_next().await? {
                let values = (0..row.columns().len()).map(|at| value_of(&row, at)).collect::<Result<Vec<_>, _>>()?;
                put_line(to, &values)?;
                count += 1;
            }
        }
        put_line(to, &End { rows: count })?;
        to.flush()?;
        Ok(count)
    }

    /// The same into a file that must not be there yet. Until it is whole and on disk it has another name, which ends in
    /// `.partial`: what stands under its own can be restored. Only its owner may read it: password hashes are in it.
    pub async fn back_up_to(self, path: &Path) -> Result<u64, BackupError> {
        let taken = || Error::from(ErrorKind::AlreadyExists);
        // Asked again at the end; known before the work is done, too.
        if path.symlink_metadata().is_ok() {
            return Err(taken().into());
        }
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let mut prefix = path.file_name().ok_or_else(|| Error::from(ErrorKind::InvalidFilename))?.to_os_string();
        prefix.push(".");
        // Removed where this returns early.
        let partial = tempfile::Builder::new().prefix(&prefix).suffix(".partial").tempfile_in(folder)?;
        let mut file = BufWriter::new(partial.as_file());
        let count = self.back_up(&mut file).await?;
        drop(file);
        partial.as_file().sync_all()?;
        put_in_place(partial, path, |partial, path| partial.persist_noclobber(path))?;
        // The name, too, is to survive the power cord.
        #[cfg(unix)]
        if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
            // Some file systems cannot be asked for that, and have the file still.
            use ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
            if !matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported) {
                return Err(error.into());
            }
        }
        Ok(count)
    }
}

/// Gives a finished backup its name, which nothing has yet.
fn put_in_place(
    partial: NamedTempFile,
    path: &Path,
    as_new: impl FnOnce(NamedTempFile, &Path) -> Result<File, PersistError>,
) -> Result<(), BackupError> {
    let Err(failed) = as_new(partial, path) else { return Ok(()) };
    if failed.error.kind() == ErrorKind::AlreadyExists || path.symlink_metadata().is_ok() {
        return Err(Error::from(ErrorKind::AlreadyExists).into());
    }
    // Some file systems can name a file only whether or not the name is taken.
    let Err(failed) = failed.file.persist(path) else { return Ok(()) };
    match failed.file.keep() {
        Ok((_, kept)) => Err(BackupError::Unnamed(kept, failed.error)),
        Err(lost) => Err(lost.error.into()),
    }
}

fn put_line(to: &mut impl Write, value: &impl Serialize) -> Result<(), BackupError> {
    serde_json::to_writer(&mut *to, value).map_err(std::io::Error::from)?;
    Ok(to.write_all(b"\n")?)
}

impl Store {
    /// Puts a backup back into this database, which must be new, in one transaction. Its log gets a new identity, since
    /// the edge has seen what came after the backup: everything is purged everywhere.
    pub async fn restore(&self, from: impl BufRead) -> Result<(u64, AsOf), BackupError> {
        let mut lines = (1..).zip(from.lines());
        let mut next = || -> Result<Option<(u64, String)>, BackupError> {
            Ok(lines.next().map(|(at, line)| line.map(|line| (at, line))).transpose()?)
        };
        let Some((_, line)) = next()? else { return Err(BackupError::Line(1, "the file is empty".into())) };
        let head: Head = serde_json::from_str(&line).map_err(|error| BackupError::Line(1, error.to_string()))?;
        let schema = self.snapshot().await?.schema().await?;
        if head.nextream_backup != FORM {
            return Err(BackupError::Form(head.nextream_backup, FORM));
        }
        if head.schema != schema {
            return Err(BackupError::Schema(head.schema, schema));
        }
        let mut write = self.write().await?;
        for Table { table, .. } in self.snapshot().await?.tables(&NEVER_EMPTY).await? {
            let any = format!("SELECT 1 FROM {} LIMIT 1", quoted(&table));
            if sqlx::query(AssertSqlSafe(any)).fetch_optional(&mut *write.tx).await?.is_some() {
                return Err(BackupError::NotEmpty(table));
            }
        }
        if self.engine == Engine::Postgres {
            sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut *write.tx).await?;
        }
        let (mut table, mut waiting, mut count, mut end) = (None::<Table>, Vec::new(), 0, None::<End>);
        let mut known = self.snapshot().await?.tables(&LEFT_OUT).await?;
        while let Some((at, line)) = next()? {
            let wrong = |what: &str| BackupError::Line(at, what.to_string());
            if end.is_some() {
                return Err(wrong("it comes after the end"));
            }
            let value: Value = serde_json::from_str(&line).map_err(|error| wrong(&error.to_string()))?;
            if value.get("rows").is_some() {
                end = Some(serde_json::from_value(value).map_err(|error| wrong(&error.to_string()))?);
                continue;
            }
            let Value::Array(row) = value else {
                put_rows(&mut write, table.as_ref(), &mut waiting).await?;
                let named: Table = serde_json::from_value(value).map_err(|error| wrong(&error.to_string()))?;
                // Names become part of statements: only those this database has itself.
                let own =
                    known.iter_mut().find(|own| own.table == named.table).ok_or_else(|| wrong("no such table"))?;
                // It is emptied as it begins: a second time it would lose what was read.
                if own.columns.is_empty() {
                    return Err(wrong("the table was there already"));
                }
                if !named.columns.iter().all(|column| own.columns.contains(column)) || named.columns.is_empty() {
                    return Err(wrong("a column this schema does not have"));
                }
                own.columns.clear();
                // What a fresh database has by itself is replaced, too.
                let delete = format!("DELETE FROM {}", quoted(&named.table));
                sqlx::query(AssertSqlSafe(delete)).execute(&mut *write.tx).await?;
                table = Some(named);
                continue;
            };
            if table.as_ref().is_none_or(|table| table.columns.len() != row.len()) {
                return Err(wrong("a row of another width"));
            }
            waiting.push((at, row));
            count += 1;
            let width = table.as_ref().map_or(1, |table| table.columns.len());
            if waiting.len().saturating_mul(width) >= VALUES_MAX {
                put_rows(&mut write, table.as_ref(), &mut waiting).await?;
            }
        }
        let End { rows } = end.ok_or(BackupError::Cut)?;
        if rows != count {
            return Err(BackupError::Rows(count, rows));
        }
        put_rows(&mut write, table.as_ref(), &mut waiting).await?;
        let row = sqlx::query("SELECT log_id, seq, form FROM log_head, derived").fetch_one(&mut *write.tx).await?;
        super::derived::check_not_newer(row.try_get(2)?)?;
        write.log_id = LogId::new(row.try_get::<String, _>(0)?).map_err(|e| StoreError::Stored(e.to_string()))?;
        write.head = seq_of(row.try_get(1)?);
        write.rename_log().await?;
        Ok((count, write.commit().await?))
    }
}

async fn put_rows(
    write: &mut super::Write,
    table: Option<&Table>,
    rows: &mut Vec<(u64, Vec<Value>)>,
) -> Result<(), BackupError> {
    let Some(table) = table.filter(|_| !rows.is_empty()) else { return Ok(()) };
    let names: Vec<String> = table.columns.iter().map(|name| quoted(name)).collect();
    let mut sql = Sql::new("INSERT INTO ");
    sql.push_checked(&format!("{} ({}) VALUES ", quoted(&table.table), names.join(", ")));
    sql.try_rows(rows.drain(..), |row, (line, values)| {
        for value in values {
            match value {
                // No type is right for every column; the word is.
                Value::Null => _ = row.word("NULL"),
                Value::Number(number) => match number.as_i64() {
                    Some(whole) => _ = row.bind(whole),
                    None => _ = row.bind(number.as_f64().unwrap_or_default()),
                },
                Value::String(text) => _ = row.bind(text),
                other => return Err(BackupError::Line(line, format!("{other} is no value of a column"))),
            }
        }
        Ok(())
    })?;
    sql.build()?.persistent(false).execute(&mut *write.tx).await?;
    Ok(())
}

impl super::Write {
    /// Gives the log a new identity, which purges everything everywhere.
    pub(super) async fn rename_log(&mut self) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO replaced_log (log_id, replaced_at_ms) VALUES ($1, $2)
               ON CONFLICT (log_id) DO UPDATE SET replaced_at_ms = excluded.replaced_at_ms",
        )
        .bind(self.log_id.as_str())
        .bind(crate::moment())
        .execute(&mut *self.tx)
        .await?;
        self.log_id = new_log_id()?;
        sqlx::query("UPDATE log_head SET log_id = $1").bind(self.log_id.as_str()).execute(&mut *self.tx).await?;
        self.purged = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written otherwise is another form, and [`FORM`] says so.
    #[test]
    fn a_backup_is_written_as_it_always_was() {
        let head = Head { nextream_backup: FORM, as_of: "log:7".parse().unwrap(), schema: 12 };
        let table = Table { table: "genre".into(), columns: vec!["slug".into(), "name".into()] };
        for (line, text) in [
            (serde_json::to_string(&head).unwrap(), r#"{"nextream_backup":2,"as_of":"log:7","schema":12}"#),
            (serde_json::to_string(&table).unwrap(), r#"{"table":"genre","columns":["slug","name"]}"#),
            (serde_json::to_string(&End { rows: 3 }).unwrap(), r#"{"rows":3}"#),
        ] {
            assert_eq!(line, text);
        }
    }

    #[test]
    fn a_finished_backup_is_kept_where_files_cannot_be_named_anew_only() {
        let folder = tempfile::tempdir().unwrap();
        let partial = || {
            let file = tempfile::Builder::new().suffix(".partial").tempfile_in(folder.path()).unwrap();
            std::fs::write(file.path(), "whole").unwrap();
            file
        };
        let cannot = |file, _: &Path| Err(PersistError { error: ErrorKind::Unsupported.into(), file });
        let path = folder.path().join("nextream.backup");
        put_in_place(partial(), &path, cannot).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole");
        std::fs::write(&path, "another").unwrap();
        for as_new in [cannot, |file: NamedTempFile, path: &Path| file.persist_noclobber(path)] {
            let error = put_in_place(partial(), &path, as_new).unwrap_err();
            assert!(matches!(&error, BackupError::File(error) if error.kind() == ErrorKind::AlreadyExists), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "another");
        let error = put_in_place(partial(), &folder.path().join("gone/nextream.backup"), cannot).unwrap_err();
        let BackupError::Unnamed(kept, _) = &error else { panic!("{error}") };
        assert_eq!(std::fs::read_to_string(kept).unwrap(), "whole");
        assert!(error.to_string().contains(".partial"), "{error}");
    }
}
