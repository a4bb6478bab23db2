//! The catalogue as lines that `import` reads, what others name first, from one snapshot.
use crate::catalog::model::{CollectionInput, GenreInput, PersonInput, RailInput, SeasonInput, TitleInput};
use crate::edits::Edited;
use crate::error::StoreError;
use crate::store::Snapshot;
use serde::Serialize;
use serde_json::{Map, Value};
use std::io::Write;

/// Records read at once.
const PAGE: u32 = 500;

pub async fn catalogue(snapshot: &mut Snapshot, to: &mut impl Write) -> Result<(), StoreError> {
    all::<PersonInput>(snapshot, to).await?;
    all::<GenreInput>(snapshot, to).await?;
    all::<TitleInput>(snapshot, to).await?;
    all::<SeasonInput>(snapshot, to).await?;
    all::<CollectionInput>(snapshot, to).await?;
    all::<RailInput>(snapshot, to).await
}

/// All records of a kind, but for deleted ones.
async fn all<I: Edited>(snapshot: &mut Snapshot, to: &mut impl Write) -> Result<(), StoreError> {
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

fn put(to: &mut impl Write, kind: &str, id: &str, input: &impl Serialize) -> Result<(), StoreError> {
    let mut line = Map::from_iter([("type".to_string(), kind.into())]);
    match serde_json::to_value(input) {
        Ok(Value::Object(fields)) => line.extend(fields.into_iter().filter(|(_, value)| !value.is_null())),
        Ok(_) => return Err(StoreError::Stored("not an object".into())),
        Err(error) => return Err(StoreError::Stored(error.to_string())),
    }
    line.insert("id".into(), id.into());
    writeln!(to, "{}", Value::Object(line)).map_err(|error| StoreError::Stored(error.to_string()))
}
