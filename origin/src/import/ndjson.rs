//! This service's own format: one JSON object a line, `{"type":"title",…}` or `{"type":"rail",…}`, checked as the admin
//! API checks.
use super::Batch;
use crate::catalog::validate::{self, check_id};
use kv_schemas::problem::Fault;
use serde_json::Value;

pub fn read(text: &str) -> Batch {
    let mut batch = Batch::default();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        batch.report.read += 1;
        if let Err((reason, what)) = take(&mut batch, line) {
            batch.report.refuse(reason, format!("line {number}: {what}"));
        }
    }
    batch
}

fn take(batch: &mut Batch, line: &str) -> Result<(), (&'static str, String)> {
    let mut value: Value = serde_json::from_str(line).map_err(|error| ("not JSON", error.to_string()))?;
    let kind = value.as_object_mut().and_then(|object| object.remove("type"));
    match kind.as_ref().and_then(Value::as_str) {
        Some("title") => {
            let id = value.get("id").and_then(Value::as_str).unwrap_or_default().to_string();
            check_id(&id).map_err(|error| ("title without a valid id", error.to_string()))?;
            let input = validate::title(&value).map_err(|faults| ("title with faults", said(&faults)))?;
            batch.titles.push((id, input));
        }
        Some("rail") => {
            let id = value.get("id").and_then(Value::as_str).unwrap_or_default().to_string();
            check_id(&id).map_err(|error| ("rail with faults", format!("/id: {error}")))?;
            let input = validate::rail(&value).map_err(|faults| ("rail with faults", said(&faults)))?;
            batch.rails.push((id, input));
        }
        _ => return Err(("of no known type", "type must be title or rail".into())),
    }
    Ok(())
}

fn said(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("{} {}", fault.at, fault.message)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_taken_or_refused_with_its_number() {
        let batch = read(concat!(
            "{\"type\":\"title\",\"id\":\"heat\",\"name\":\"Heat\"}\n\n",
            "{\"type\":\"title\",\"id\":\"Heat\",\"name\":\"Heat\"}\n",
            "{\"type\":\"title\",\"id\":\"x\",\"name\":\"\",\"year\":1}\n",
            "{\"type\":\"rail\",\"id\":\"a\"}\n",
            "{\"type\":\"cat\"}\n",
            "nonsense\n"
        ));
        assert_eq!((batch.report.read, batch.titles.len()), (6, 1));
        let faults = &batch.report.refused["title with faults"];
        assert!(faults.examples[0].starts_with("line 4: ") && faults.examples[0].contains("/year"), "{faults:?}");
        assert_eq!(batch.report.refused.len(), 5);
    }
}
