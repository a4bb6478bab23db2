//! Filling the catalogue from files. A format reads a file into titles and rails; one engine writes what changed, each
//! batch with its purge in its transaction. Importing the same file again changes nothing that nobody has edited meanwhile.
pub mod mongo;
mod ndjson;
mod vega;

use crate::catalog::model::{CollectionInput, GenreInput, PersonInput, RailInput, SeasonInput, TitleInput};
use crate::edits::{Edited, Edits, Wanted};
use crate::error::StoreError;
use crate::generate::Viewer;
use crate::store::Store;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Titles written in one transaction.
const BATCH: usize = 500;
/// Viewers written in one transaction.
const VIEWERS_BATCH: usize = 10_000;
/// Places that are counted one by one. Objects with names that are data have any number of them.
const PLACES: usize = 100;
/// Examples kept of each reason.
const EXAMPLES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// movies.json of the npm package vega-datasets.
    Vega,
    /// One JSON object a line: titles and rails of this service's own form.
    Ndjson,
    /// One collection of the old system's MongoDB, as `mongoexport` writes it.
    Mongoexport,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    #[error("{0} is not of the format {1}: {2}")]
    Format(PathBuf, &'static str, String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What becomes of what is in the catalogue already, and other than in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Present {
    /// It becomes as the file has it, whoever edited or deleted it.
    Replaced,
    /// It stays as it is, and so does what was deleted.
    Kept,
}

const SAME_ID: &str = "the same id again";
const SAME_ADDRESS: &str = "the same e-mail address again";
const FOREIGN_ADDRESS: &str = "the e-mail address of another viewer";

/// What a file holds, as far as it could be read.
#[derive(Debug, Default)]
pub struct Batch {
    pub people: Vec<(String, PersonInput)>,
    pub genres: Vec<(String, GenreInput)>,
    pub titles: Vec<(String, TitleInput)>,
    pub seasons: Vec<(String, SeasonInput)>,
    pub collections: Vec<(String, CollectionInput)>,
    pub rails: Vec<(String, RailInput)>,
    pub viewers: Vec<Viewer>,
    pub report: Report,
    taken: Taken,
}

/// Why a record is refused, and which.
type Refused = (&'static str, String);

/// Names that one record of a file may have, with the line it stands in, where lines count. A later one would write over it,
/// each time the file is imported.
#[derive(Debug, Default)]
struct Taken(HashMap<String, Option<usize>>);

impl Taken {
    /// Takes all of these names, each with the reason if it has been taken; or none.
    fn take<const N: usize>(&mut self, names: [(&'static str, String); N]) -> Result<(), &'static str> {
        self.take_at(None, names)
    }

    /// The same for a record of this line.
    fn take_at<const N: usize>(
        &mut self,
        line: Option<usize>,
        names: [(&'static str, String); N],
    ) -> Result<(), &'static str> {
        if let Some((reason, _)) = names.iter().find(|(_, name)| self.0.contains_key(name)) {
            return Err(reason);
        }
        self.0.extend(names.into_iter().map(|(_, name)| (name, line)));
        Ok(())
    }

    /// Where a record stands, as the beginning of an example.
    fn place(&self, name: &str) -> String {
        self.0.get(name).copied().flatten().map_or_else(String::new, |line| format!("line {line}: "))
    }
}

/// A reason and where it was met.
#[derive(Debug, Default, Serialize, PartialEq)]
pub struct Count {
    pub count: usize,
    pub examples: Vec<String>,
}

/// What became of the file.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub read: usize,
    pub created: usize,
    pub updated: usize,
    pub unchanged: usize,
    pub rails_written: usize,
    /// People, genres, seasons and collections.
    pub others_written: usize,
    pub viewers_created: usize,
    pub viewers_unchanged: usize,
    pub mended: BTreeMap<&'static str, Count>,
    pub refused: BTreeMap<String, Count>,
    /// Fields of documents that nothing here is made of, by their place.
    pub left_out: BTreeMap<String, Count>,
    pub purges: usize,
    /// Records of any kind that are in the catalogue as the file has them, or were to be left alone there.
    #[serde(skip)]
    taken: usize,
}

impl Report {
    /// Whether there was something to take, and none of it was taken.
    pub fn is_failure(&self) -> bool {
        self.taken == 0 && !self.refused.is_empty()
    }

    fn mend(&mut self, reason: &'static str, example: impl Into<String>) {
        note(self.mended.entry(reason).or_default(), example.into());
    }

    fn leave_out(&mut self, place: String, example: String) {
        let is_known = self.left_out.contains_key(&place) || self.left_out.len() < PLACES;
        let place = if is_known { place } else { "others".into() };
        note(self.left_out.entry(place).or_default(), example);
    }

    fn refuse(&mut self, reason: impl Into<String>, example: impl Into<String>) {
        note(self.refused.entry(reason.into()).or_default(), example.into());
    }
}

fn note(count: &mut Count, example: String) {
    count.count += 1;
    if count.examples.len() < EXAMPLES {
        count.examples.push(example);
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} records read", self.read)?;
        writeln!(f, "  {} titles created, {} updated, {} unchanged", self.created, self.updated, self.unchanged)?;
        writeln!(f, "  {} rails written, {} purges logged", self.rails_written, self.purges)?;
        if self.others_written > 0 {
            writeln!(f, "  {} people, genres, seasons and collections written", self.others_written)?;
        }
        if self.viewers_created + self.viewers_unchanged > 0 {
            writeln!(f, "  {} viewers created, {} unchanged", self.viewers_created, self.viewers_unchanged)?;
        }
        for (reason, Count { count, examples }) in &self.mended {
            writeln!(f, "  mended  {count:>5}  {reason} (such as {})", examples.join("; "))?;
        }
        for (place, Count { count, examples }) in &self.left_out {
            writeln!(f, "  left out {count:>4}  {place} (such as in {})", examples.join("; "))?;
        }
        for (reason, Count { count, examples }) in &self.refused {
            writeln!(f, "  refused {count:>5}  {reason} (such as {})", examples.join("; "))?;
        }
        Ok(())
    }
}

/// Reads a file. `format`: `None` to tell by its ending.
pub fn read(path: &Path, format: Option<Format>) -> Result<Batch, ImportError> {
    let text = std::fs::read_to_string(path).map_err(|error| ImportError::Read(path.into(), error))?;
    let lines = path.extension().is_some_and(|ending| ending == "ndjson" || ending == "jsonl");
    match format.unwrap_or(if lines { Format::Ndjson } else { Format::Vega }) {
        Format::Vega => vega::read(&text).map_err(|error| ImportError::Format(path.into(), "vega", error)),
        Format::Ndjson => Ok(ndjson::read(&text)),
        Format::Mongoexport => read_collection(path, &text, None, &mongo::Mapping::default()),
    }
}

/// Reads a collection of the old system. `name`: that of the file when not given.
pub fn read_collection(
    path: &Path,
    text: &str,
    name: Option<&str>,
    mapping: &mongo::Mapping,
) -> Result<Batch, ImportError> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    mongo::read(text, name.unwrap_or(stem), mapping)
        .map_err(|error| ImportError::Format(path.into(), "mongoexport", error))
}

/// Reads lines of this service's own form.
pub fn read_text(text: &str) -> Batch {
    ndjson::read(text)
}

/// Reads and writes lines of this service's own form.
pub async fn text(store: &Store, text: &str) -> Result<Report, ImportError> {
    write(store, read_text(text), |_| {}).await
}

/// Writes what differs from what is stored. `progress` is told how many titles are done.
pub async fn write(store: &Store, batch: Batch, progress: impl Fn(usize)) -> Result<Report, ImportError> {
    write_over(store, batch, Present::Replaced, progress).await
}

/// As [`write()`]; `present` says what becomes of what is there. Viewers who are there stay as they are, whatever it says.
pub async fn write_over(
    store: &Store,
    batch: Batch,
    present: Present,
    progress: impl Fn(usize),
) -> Result<Report, ImportError> {
    let Batch { people, genres, titles, seasons, collections, rails, viewers, mut report, taken } = batch;
    let how = How { store, present, taken };
    report.others_written += how.write(&people, &mut report).await?.written();
    report.others_written += how.write(&genres, &mut report).await?.written();
    let mut done = 0;
    for chunk in titles.chunks(BATCH) {
        let Written { created, updated, unchanged } = how.write(chunk, &mut report).await?;
        report.created += created;
        report.updated += updated;
        report.unchanged += unchanged;
        done += chunk.len();
        progress(done);
    }
    report.others_written += how.write(&seasons, &mut report).await?.written();
    report.others_written += how.write(&collections, &mut report).await?.written();
    report.rails_written += how.write(&rails, &mut report).await?.written();
    for chunk in viewers.chunks(VIEWERS_BATCH) {
        write_viewers(store, chunk, &mut report).await?;
    }
    Ok(report)
}

/// Writes viewers who are not there, in one transaction. Those who are may have changed what the file says of them.
async fn write_viewers(store: &Store, viewers: &[Viewer], report: &mut Report) -> Result<(), ImportError> {
    let mut write = store.write().await?;
    let foreign = write.viewers_with_foreign_addresses(viewers).await?;
    let created = write.put_viewers(viewers).await?;
    // No document that is kept for all shows them: nothing to purge.
    write.commit().await?;
    report.viewers_created += created;
    let taken = viewers.len().saturating_sub(foreign.len());
    report.viewers_unchanged += taken.saturating_sub(created);
    report.taken += taken;
    for id in foreign {
        report.refuse(FOREIGN_ADDRESS, id);
    }
    Ok(())
}

#[derive(Default)]
struct Written {
    created: usize,
    updated: usize,
    unchanged: usize,
}

impl Written {
    fn written(&self) -> usize {
        self.created + self.updated
    }
}

/// Where records go, and what of the file goes for all kinds of them.
struct How<'a> {
    store: &'a Store,
    present: Present,
    taken: Taken,
}

impl How<'_> {
    /// Writes records of a kind, batch by batch, each in one transaction with its purge.
    async fn write<I: Edited>(&self, records: &[(String, I)], report: &mut Report) -> Result<Written, ImportError> {
        let mut all = Written::default();
        for chunk in records.chunks(BATCH) {
            let mut write = self.store.write().await?;
            let mut edits = Edits::by("import");
            for (id, input) in chunk {
                let before = I::find(&mut write, id).await?;
                if before.is_some() && self.present == Present::Kept {
                    all.unchanged += 1;
                    continue;
                }
                let faults = I::check(&mut write, id, before.as_ref().map(|before| &before.input), input).await?;
                if let Some(fault) = faults.first() {
                    let place = self.taken.place(&format!("{} {id}", I::WHAT));
                    let example = format!("{place}{id}: {} {}", fault.at, fault.message);
                    report.refuse(format!("{} with faults", I::WHAT), example);
                    continue;
                }
                let wanted = Wanted::Be(input.clone());
                let Some(mut after) = edits.after(id, before.as_ref(), wanted) else { continue };
                if before.as_ref().is_some_and(|before| before.version == after.version) {
                    all.unchanged += 1;
                    continue;
                }
                let action = if before.is_some() { "edit" } else { "create" };
                edits.put(&mut write, action, before.as_ref(), &mut after, None).await?;
                *(if before.is_some() { &mut all.updated } else { &mut all.created }) += 1;
            }
            if !edits.is_empty() {
                report.purges += 1;
                edits.log_at_once(&mut write, "import").await?;
                write.commit().await?;
            }
        }
        report.taken += all.written() + all.unchanged;
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn importing_twice_changes_nothing_the_second_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db.sqlite")).await.unwrap();
        let lines = concat!(
            r#"{"type":"title","id":"heat","name":"Heat","genres":["Crime"]}"#,
            "\n",
            r#"{"type":"rail","id":"top","title":"Top","position":1,"items":["heat"]}"#,
            "\n"
        );
        let first = write(&store, ndjson::read(lines), |_| {}).await.unwrap();
        assert_eq!((first.created, first.rails_written, first.purges), (1, 1, 2));
        let as_of = store.snapshot().await.unwrap().as_of;
        let second = write(&store, ndjson::read(lines), |_| {}).await.unwrap();
        assert_eq!(
            (second.created, second.updated, second.unchanged, second.rails_written, second.purges),
            (0, 0, 1, 0, 0)
        );
        assert_eq!(store.snapshot().await.unwrap().as_of, as_of);
    }

    #[tokio::test]
    async fn a_series_does_not_take_the_place_of_a_film_of_its_id_nor_a_film_that_of_a_series() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db.sqlite")).await.unwrap();
        let mut refused = Vec::new();
        for (collection, ids) in [("movies", ["1", "2"]), ("series", ["2", "3"]), ("movies", ["2", "3"])] {
            let line = |id| format!(r#"{{"_id":{{"$numberLong":"{id}"}},"title":"{collection} {id}"}}"#);
            let batch = mongo::read(&ids.map(line).join("\n"), collection, &mongo::Mapping::default()).unwrap();
            let report = write(&store, batch, |_| {}).await.unwrap();
            refused.push(report.refused.into_values().flat_map(|count| count.examples).collect::<Vec<_>>().join("; "));
        }
        let becomes = |id, is, other| format!("{id}: /kind cannot be changed from {is} to {other}; take another id");
        assert_eq!(refused, [String::new(), becomes(2, "film", "series"), becomes(3, "series", "film")]);
        let mut snapshot = store.snapshot().await.unwrap();
        for (id, name) in [("1", "movies 1"), ("2", "movies 2"), ("3", "series 3")] {
            assert_eq!(snapshot.title(id).await.unwrap().unwrap().input.name, name);
        }
    }
}
