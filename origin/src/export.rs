//! The catalogue as lines that `import` reads, what others name first, from one snapshot.
use crate::catalog::model::{CollectionInput, GenreInput, PersonInput, RailInput, SeasonInput, TitleInput};
use crate::edits::Edited;
use crate::error::StoreError;
use crate::store::Snapshot;
use serde::Serialize;
use serde_json::{Map, Value};
use std::io::{self, Write};

/// Records read at once.
const PAGE: u32 = 500;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0} {1} cannot be written as JSON: {2}")]
    Form(&'static str, String, serde_json::Error),
    #[error("the catalogue cannot be written out: {0}")]
    Write(#[from] io::Error),
}

/// All of it, as far as the last byte.
pub async fn catalogue(snapshot: &mut Snapshot, to: &mut impl Write) -> Result<(), ExportError> {
    all::<PersonInput>(snapshot, to).await?;
    all::<GenreInput>(snapshot, to).await?;
    all::<TitleInput>(snapshot, to).await?;
    all::<SeasonInput>(snapshot, to).await?;
    all::<CollectionInput>(snapshot, to).await?;
    all::<RailInput>(snapshot, to).await?;
    Ok(to.flush()?)
}

/// All records of a kind, but for deleted ones.
async fn all<I: Edited>(snapshot: &mut Snapshot, to: &mut impl Write) -> Result<(), ExportError> {
    let mut after = String::new();
    loop {
        let records = I::page(snapshot, &after, PAGE, false).await?;
        let Some(last) = records.last() else { return Ok(()) };
        after = last.id.clone();
        for record in &records {
            put(to, I::WHAT, &record.id, &record.input)?;
        }
    }
}

fn put(to: &mut impl Write, kind: &'static str, id: &str, input: &impl Serialize) -> Result<(), ExportError> {
    let fields = serde_json::to_value(input).and_then(serde_json::from_value::<Map<String, Value>>);
    let fields = fields.map_err(|error| ExportError::Form(kind, id.into(), error))?;
    let mut line = Map::from_iter([("type".to_string(), kind.into())]);
    line.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
    line.insert("id".into(), id.into());
    Ok(writeln!(to, "{}", Value::Object(line))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use std::io::BufWriter;

    /// A reader that has left.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_catalogue_whose_reader_has_left_is_not_blamed_on_the_database() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db.sqlite")).await.unwrap();
        crate::import::text(&store, r#"{"type":"title","id":"heat","name":"Heat"}"#).await.unwrap();
        let mut snapshot = store.snapshot().await.unwrap();
        let at_once = catalogue(&mut snapshot, &mut Closed).await.unwrap_err();
        let at_the_end = catalogue(&mut snapshot, &mut BufWriter::new(Closed)).await.unwrap_err();
        for error in [at_once, at_the_end] {
            assert_eq!(error.to_string(), "the catalogue cannot be written out: broken pipe");
        }
    }
}
