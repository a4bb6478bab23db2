//! Statements made of parts, for filters and lists. sqlx's own builder writes `?` for either engine, which PostgreSQL does
//! not take; this one writes `$n`. Text can only be what stands in the code; values are bound.
use sqlx::any::{Any, AnyArguments};
use sqlx::query::Query;
use sqlx::{Arguments, AssertSqlSafe, Encode, Type};
use std::convert::Infallible;
use std::fmt::Write;

pub struct Sql {
    text: String,
    arguments: AnyArguments,
    /// A value could not be encoded; the statement must not run without it.
    fault: Option<sqlx::error::BoxDynError>,
}

/// The values of one row.
pub struct Values<'a> {
    sql: &'a mut Sql,
    is_first: bool,
}

impl Values<'_> {
    pub fn bind<'q, T: Encode<'q, Any> + Type<Any>>(&mut self, value: T) -> &mut Self {
        self.begin().bind(value);
        self
    }

    /// A value as it stands in the code.
    pub fn word(&mut self, text: &'static str) -> &mut Self {
        self.begin().push(text);
        self
    }

    fn begin(&mut self) -> &mut Sql {
        if !std::mem::take(&mut self.is_first) {
            self.sql.push(", ");
        }
        self.sql
    }
}

impl Sql {
    pub fn new(text: &'static str) -> Self {
        Self { text: text.into(), arguments: AnyArguments::default(), fault: None }
    }

    pub fn push(&mut self, text: &'static str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Names of tables and columns that the database itself gave, quoted.
    pub(super) fn push_checked(&mut self, names: &str) -> &mut Self {
        self.text.push_str(names);
        self
    }

    /// A value, in the place the text has reached.
    pub fn bind<'q, T: Encode<'q, Any> + Type<Any>>(&mut self, value: T) -> &mut Self {
        if let Err(error) = self.arguments.add(value) {
            self.fault.get_or_insert(error);
        }
        // Writing to a String cannot fail.
        let _ = write!(self.text, "${}", self.arguments.len());
        self
    }

    /// Values with commas between them: what stands in `IN (…)`.
    pub fn bind_all<'q, T: Encode<'q, Any> + Type<Any>>(&mut self, values: impl IntoIterator<Item = T>) -> &mut Self {
        for (at, value) in values.into_iter().enumerate() {
            if at > 0 {
                self.text.push_str(", ");
            }
            self.bind(value);
        }
        self
    }

    /// Rows with commas between them, each in parentheses: what stands after `VALUES`. `row` gives one's values.
    pub fn rows<T>(&mut self, rows: impl IntoIterator<Item = T>, mut row: impl FnMut(&mut Values<'_>, T)) -> &mut Self {
        let Ok(sql) = self.try_rows(rows, |values, of| {
            row(values, of);
            Ok::<(), Infallible>(())
        });
        sql
    }

    /// The same, where a row may have no form that can be written.
    pub fn try_rows<T, E>(
        &mut self,
        rows: impl IntoIterator<Item = T>,
        mut row: impl FnMut(&mut Values<'_>, T) -> Result<(), E>,
    ) -> Result<&mut Self, E> {
        for (at, of) in rows.into_iter().enumerate() {
            self.push(if at == 0 { "(" } else { ", (" });
            row(&mut Values { sql: self, is_first: true }, of)?;
            self.push(")");
        }
        Ok(self)
    }

    pub fn build(self) -> Result<Query<'static, Any, AnyArguments>, sqlx::Error> {
        match self.fault {
            Some(error) => Err(sqlx::Error::Encode(error)),
            None => Ok(sqlx::query_with(AssertSqlSafe(self.text), self.arguments)),
        }
    }
}
