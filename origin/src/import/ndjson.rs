//! This service's own format: one JSON object a line, `{"type":"title",…}` and so on for persons, genres, seasons,
//! collections and rails, checked as the admin API checks.
use super::{Batch, Refused, SAME_ID, Taken};
use crate::edits::Edited;
use kv_schemas::problem::Fault;
use serde_json::Value;

pub fn read(text: &str) -> Batch {
    let mut batch = Batch::default();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        batch.report.read += 1;
        if let Err((reason, what)) = take(&mut batch, number, line) {
            batch.report.refuse(reason, format!("line {number}: {what}"));
        }
    }
    batch
}

fn take(batch: &mut Batch, number: usize, line: &str) -> Result<(), Refused> {
    let taken = (&mut batch.taken, number);
    let mut value: Value = serde_json::from_str(line).map_err(|error| ("not JSON", error.to_string()))?;
    let kind = value.as_object_mut().and_then(|object| object.remove("type"));
    match kind.as_ref().and_then(Value::as_str) {
        Some("person") => add(&mut batch.people, taken, &value, "person with faults"),
        Some("genre") => add(&mut batch.genres, taken, &value, "genre with faults"),
        Some("title") => add(&mut batch.titles, taken, &value, "title with faults"),
        Some("season") => add(&mut batch.seasons, taken, &value, "season with faults"),
        Some("collection") => add(&mut batch.collections, taken, &value, "collection with faults"),
        Some("rail") => add(&mut batch.rails, taken, &value, "rail with faults"),
        _ => Err(("of no known type", "type must be person, genre, title, season, collection or rail".into())),
    }
}

fn add<I: Edited>(
    to: &mut Vec<(String, I)>,
    (taken, number): (&mut Taken, usize),
    value: &Value,
    reason: &'static str,
) -> Result<(), Refused> {
    let id = value.get("id").and_then(Value::as_str).unwrap_or_default().to_string();
    I::check_id(&id).map_err(|error| (reason, format!("/id: {error}")))?;
    let input = I::read(value).map_err(|faults| (reason, said(&faults)))?;
    let name = format!("{} {id}", I::WHAT);
    taken.take_at(Some(number), [(SAME_ID, name.clone())]).map_err(|reason| (reason, name))?;
    to.push((id, input));
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
        assert!(faults.examples[0].starts_with("line 3: /id: "), "{faults:?}");
        assert!(faults.examples[1].starts_with("line 4: ") && faults.examples[1].contains("/year"), "{faults:?}");
        assert_eq!(batch.report.refused.len(), 4);
    }

    #[test]
    fn of_lines_with_one_id_and_type_the_first_is_taken() {
        let batch = read(concat!(
            "{\"type\":\"title\",\"id\":\"heat\",\"name\":\"Heat\"}\n",
            "{\"type\":\"person\",\"id\":\"heat\",\"name\":\"Heat\"}\n",
            "{\"type\":\"title\",\"id\":\"heat\",\"name\":\"Another\"}\n",
        ));
        assert_eq!((batch.titles.len(), batch.people.len()), (1, 1));
        assert_eq!(batch.report.refused[SAME_ID].examples, ["line 3: title heat"]);
    }
}
