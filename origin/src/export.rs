//! The catalogue as lines that `import` reads: titles first, then rails, from one snapshot.
use crate::catalog::model::RailInput;
use crate::error::StoreError;
use crate::store::Snapshot;
use serde::Serialize;
use serde_json::{Map, Value};
use std::io::Write;

/// Titles read at once.
const PAGE: u32 = 500;

pub async fn catalogue(snapshot: &mut Snapshot, to: &mut impl Write) -> Result<(), StoreError> {
    let mut after = String::new();
    loop {
        let titles = snapshot.all_titles(&after, PAGE, false).await?;
        let Some(last) = titles.last() else { break };
        after = last.id.clone();
        for title in &titles {
            put(to, "title", &title.id, &title.input)?;
        }
    }
    let mut after = String::new();
    loop {
        let rails = snapshot.records::<RailInput>(&after, PAGE, false).await?;
        let Some(last) = rails.last() else { break };
        after = last.id.clone();
        for rail in &rails {
            put(to, "rail", &rail.id, &rail.input)?;
        }
    }
    Ok(())
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
