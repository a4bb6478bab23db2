//! What a change of the catalogue is made of: the record, what is derived of it, the purge of every page that shows it, and
//! the note of who did it, all in one transaction. Editors, imports and the schedule change things through here alone.
use crate::catalog::keys;
use crate::catalog::model::{
    CollectionInput, GenreInput, PersonInput, RailInput, Record, SeasonInput, Shown, State, TitleInput, TitleKind, slug,
};
use crate::catalog::validate;
use crate::error::StoreError;
use crate::store::{Change, LoggedPurge, Snapshot, Write};
use kv_schemas::problem::Fault;
use kv_schemas::surrogate_key::KEYS_PER_PURGE_MAX;
use kv_schemas::{PurgeMode, SurrogateKey};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::future::Future;

/// A kind of thing that is edited.
pub trait Edited: Serialize + Clone + PartialEq + Send + Sync + 'static {
    /// As in "There is no title of this id".
    const WHAT: &'static str;

    fn read(value: &Value) -> Result<Self, Vec<Fault>>;
    /// An id for one that is created without.
    fn suggested_id(&self) -> String;
    fn shown_at(&self, _now_ms: i64) -> Shown {
        Shown::everywhere(true)
    }
    /// As it is once the schedule has been there.
    fn due_at(&self, _now_ms: i64) -> Self {
        self.clone()
    }
    /// Which pages a change concerns. Never none.
    fn keys(id: &str, before: Option<&Record<Self>>, after: Option<&Record<Self>>) -> Vec<SurrogateKey>;
    /// Whether a change must never be shown in its old form again, though it is seen still.
    fn is_rights_change(_before: &Self, _after: &Self) -> bool {
        false
    }

    fn find(write: &mut Write, id: &str) -> impl Future<Output = Result<Option<Record<Self>>, StoreError>> + Send;
    fn look(snapshot: &mut Snapshot, id: &str)
    -> impl Future<Output = Result<Option<Record<Self>>, StoreError>> + Send;
    fn page(
        snapshot: &mut Snapshot,
        after: &str,
        limit: u32,
        deleted: bool,
    ) -> impl Future<Output = Result<Vec<Record<Self>>, StoreError>> + Send;
    /// Writes it; returns the keys of what was made besides.
    fn put(
        write: &mut Write,
        record: &mut Record<Self>,
        now_ms: i64,
    ) -> impl Future<Output = Result<Vec<SurrogateKey>, StoreError>> + Send;

    /// Whether it may have this id.
    fn check_id(id: &str) -> Result<(), &'static str> {
        validate::check_id(id)
    }

    /// What only the rest of the catalogue can tell.
    fn check(
        _write: &mut Write,
        _id: &str,
        _before: Option<&Self>,
        _after: &Self,
    ) -> impl Future<Output = Result<Vec<Fault>, StoreError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// Why it cannot be deleted now.
    fn is_used(_write: &mut Write, _id: &str) -> impl Future<Output = Result<Option<&'static str>, StoreError>> + Send {
        async { Ok(None) }
    }
}

impl Edited for TitleInput {
    const WHAT: &'static str = "title";

    fn read(value: &Value) -> Result<Self, Vec<Fault>> {
        validate::title(value)
    }
    fn suggested_id(&self) -> String {
        let year = self.year.map_or_else(String::new, |year| format!("-{year}"));
        format!("{}{year}", slug(&self.name)).trim_matches('-').to_string()
    }
    fn shown_at(&self, now_ms: i64) -> Shown {
        TitleInput::shown_at(self, now_ms)
    }
    fn due_at(&self, now_ms: i64) -> Self {
        TitleInput::due_at(self, now_ms)
    }
    fn keys(_: &str, before: Option<&Record<Self>>, after: Option<&Record<Self>>) -> Vec<SurrogateKey> {
        keys::of_title(before, after)
    }
    fn is_rights_change(before: &Self, after: &Self) -> bool {
        before.maturity != after.maturity
    }
    async fn find(write: &mut Write, id: &str) -> Result<Option<Record<Self>>, StoreError> {
        write.title(id).await
    }
    async fn look(snapshot: &mut Snapshot, id: &str) -> Result<Option<Record<Self>>, StoreError> {
        snapshot.title(id).await
    }
    async fn page(s: &mut Snapshot, after: &str, limit: u32, deleted: bool) -> Result<Vec<Record<Self>>, StoreError> {
        s.all_titles(after, limit, deleted).await
    }
    async fn put(write: &mut Write, record: &mut Record<Self>, now_ms: i64) -> Result<Vec<SurrogateKey>, StoreError> {
        let made = write.put_title(record, now_ms).await?;
        let genres = made.genres.iter().map(|slug| keys::genre(slug));
        Ok(genres.chain(made.people.iter().map(|id| keys::person(id))).flatten().collect())
    }
    async fn check(_: &mut Write, _: &str, before: Option<&Self>, after: &Self) -> Result<Vec<Fault>, StoreError> {
        let Some(before) = before.filter(|before| before.kind != after.kind) else { return Ok(Vec::new()) };
        let (was, becomes) = (before.kind.as_str(), after.kind.as_str());
        let message = format!("cannot be changed from {was} to {becomes}; take another id");
        Ok(vec![Fault { at: "/kind".into(), message }])
    }
}

/// What all kinds have alike that are kept as one record each; the last argument is how it is written, if that is all there is
/// to it.
macro_rules! kept {
    ($what:literal, $read:path, $keys:path, $put:ident) => {
        kept!($what, $read, $keys);

        async fn put(write: &mut Write, record: &mut Record<Self>, _: i64) -> Result<Vec<SurrogateKey>, StoreError> {
            write.$put(record).await?;
            Ok(Vec::new())
        }
    };
    ($what:literal, $read:path, $keys:path) => {
        const WHAT: &'static str = $what;

        fn read(value: &Value) -> Result<Self, Vec<Fault>> {
            $read(value)
        }
        fn keys(id: &str, before: Option<&Record<Self>>, after: Option<&Record<Self>>) -> Vec<SurrogateKey> {
            $keys(id, before, after)
        }
        async fn find(write: &mut Write, id: &str) -> Result<Option<Record<Self>>, StoreError> {
            write.record(id).await
        }
        async fn look(snapshot: &mut Snapshot, id: &str) -> Result<Option<Record<Self>>, StoreError> {
            snapshot.record(id).await
        }
        async fn page(
            s: &mut Snapshot,
            after: &str,
            limit: u32,
            deleted: bool,
        ) -> Result<Vec<Record<Self>>, StoreError> {
            s.records(after, limit, deleted).await
        }
    };
}

impl Edited for PersonInput {
    kept!("person", validate::person, keys::of_person, put_person);

    fn suggested_id(&self) -> String {
        slug(&self.name)
    }
    async fn is_used(write: &mut Write, id: &str) -> Result<Option<&'static str>, StoreError> {
        Ok(write.is_person_used(id).await?.then_some("titles name this person; take the credits out first"))
    }
}

impl Edited for GenreInput {
    kept!("genre", validate::genre, keys::of_genre, put_genre);

    fn suggested_id(&self) -> String {
        slug(&self.name)
    }
    async fn is_used(write: &mut Write, id: &str) -> Result<Option<&'static str>, StoreError> {
        Ok(write.is_genre_used(id).await?.then_some("titles have this genre; take it off them first"))
    }
}

impl Edited for CollectionInput {
    kept!("collection", validate::collection, keys::of_collection, put_collection);

    fn suggested_id(&self) -> String {
        slug(&self.name)
    }
    fn shown_at(&self, _: i64) -> Shown {
        Shown::everywhere(self.state == State::Published)
    }
}

impl Edited for RailInput {
    kept!("rail", validate::rail, keys::of_rail);

    fn suggested_id(&self) -> String {
        slug(&self.title)
    }
    fn shown_at(&self, now_ms: i64) -> Shown {
        Shown::everywhere(RailInput::shown_at(self, now_ms))
    }
    fn is_rights_change(a: &Self, b: &Self) -> bool {
        (&a.regions, &a.plans, a.maturity_from, a.maturity_to) != (&b.regions, &b.plans, b.maturity_from, b.maturity_to)
    }
    async fn put(write: &mut Write, record: &mut Record<Self>, now_ms: i64) -> Result<Vec<SurrogateKey>, StoreError> {
        write.put_rail(record, now_ms).await?;
        Ok(Vec::new())
    }
}

impl Edited for SeasonInput {
    kept!("season", validate::season, keys::of_season, put_season);

    fn check_id(id: &str) -> Result<(), &'static str> {
        validate::check_season_id(id)
    }
    fn suggested_id(&self) -> String {
        String::new()
    }
    async fn check(write: &mut Write, id: &str, _: Option<&Self>, after: &Self) -> Result<Vec<Fault>, StoreError> {
        let name = id.split('/').next().unwrap_or_default();
        let series = write.title(name).await?;
        if !series.is_some_and(|title| title.input.kind == TitleKind::Series && title.deleted_at_ms.is_none()) {
            return Ok(vec![Fault { at: "/id".into(), message: format!("there is no series {name}") }]);
        }
        let ids: Vec<&str> = after.episodes.iter().map(|episode| episode.id.as_str()).collect();
        let foreign = write.foreign_episodes(id, &ids).await?;
        let at = |id: &String| ids.iter().position(|other| other == id).unwrap_or_default();
        let message = "is an episode of another season";
        Ok(foreign.iter().map(|id| Fault { at: format!("/episodes/{}/id", at(id)), message: message.into() }).collect())
    }
}

/// Changes under way in one write: committed together, purged together.
#[derive(Debug)]
pub struct Edits<'a> {
    actor: &'a str,
    now_ms: i64,
    keys: BTreeSet<SurrogateKey>,
    mode: PurgeMode,
    notes: Vec<Note>,
}

#[derive(Debug)]
struct Note {
    action: &'static str,
    kind: &'static str,
    id: String,
    before: Option<Value>,
    after: Option<Value>,
}

/// What is to become of a thing.
#[derive(Clone, Debug)]
pub enum Wanted<I> {
    /// To hold this.
    Be(I),
    Gone,
    /// To come back from having been deleted.
    Back,
}

fn value_of<I: Serialize>(record: Option<&Record<I>>) -> Option<Value> {
    record.and_then(|record| serde_json::to_value(record).ok())
}

impl<'a> Edits<'a> {
    pub fn by(actor: &'a str) -> Self {
        Self::at(actor, crate::moment())
    }

    /// Changes made at this moment, which was taken in the same write.
    pub fn at(actor: &'a str, now_ms: i64) -> Self {
        Self { actor, now_ms, keys: BTreeSet::new(), mode: PurgeMode::Soft, notes: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// What a thing is after a change; the same version if nothing changes.
    pub fn after<I: Edited>(&self, id: &str, before: Option<&Record<I>>, wanted: Wanted<I>) -> Option<Record<I>> {
        let is_deleted = before.is_some_and(|record| record.deleted_at_ms.is_some());
        let wanted = match wanted {
            // What is scheduled for a moment that has passed is published: imported again, it is what the schedule has made of it.
            Wanted::Be(input) => Wanted::Be(input.due_at(self.now_ms)),
            other => other,
        };
        let (input, deleted_at_ms) = match (wanted, before) {
            (Wanted::Be(input), Some(record)) if record.input == input && !is_deleted => return Some(record.clone()),
            (Wanted::Be(input), _) => (input, None),
            (Wanted::Gone, Some(record)) => (record.input.clone(), Some(record.deleted_at_ms.unwrap_or(self.now_ms))),
            (Wanted::Back, Some(record)) => (record.input.clone(), None),
            (Wanted::Gone | Wanted::Back, None) => return None,
        };
        let shown = if deleted_at_ms.is_some() { Shown::default() } else { input.shown_at(self.now_ms) };
        Some(Record {
            id: id.to_string(),
            version: before.map_or(1, |record| record.version.saturating_add(1)),
            visible: shown.anywhere(),
            shown,
            input,
            created_at_ms: before.map_or(self.now_ms, |record| record.created_at_ms),
            updated_at_ms: self.now_ms,
            deleted_at_ms,
        })
    }

    /// Pages that are concerned by what is no change of anything an editor keeps.
    pub fn concerns(&mut self, keys: impl IntoIterator<Item = SurrogateKey>) {
        self.keys.extend(keys);
    }

    /// Writes a change. `mode`: how it is purged, when not as it must be.
    pub async fn put<I: Edited>(
        &mut self,
        write: &mut Write,
        action: &'static str,
        before: Option<&Record<I>>,
        after: &mut Record<I>,
        mode: Option<PurgeMode>,
    ) -> Result<(), StoreError> {
        self.keys.extend(I::put(write, after, self.now_ms).await?);
        self.keys.extend(I::keys(&after.id, before, Some(after)));
        let withdrawn = before.is_some_and(|before| before.shown.narrows_to(&after.shown));
        let rights = before.is_some_and(|before| I::is_rights_change(&before.input, &after.input));
        let must = if withdrawn || rights { PurgeMode::Hard } else { PurgeMode::Soft };
        if mode.unwrap_or(must) == PurgeMode::Hard {
            self.mode = PurgeMode::Hard;
        }
        let (id, before, after) = (after.id.clone(), value_of(before), value_of(Some(&*after)));
        self.notes.push(Note { action, kind: I::WHAT, id, before, after });
        Ok(())
    }

    /// As [`Self::log`], in one purge: by keys, or, where they are too many for one, of everything. For imports.
    pub async fn log_at_once(mut self, write: &mut Write, reason: &str) -> Result<(), StoreError> {
        if self.keys.len() > KEYS_PER_PURGE_MAX {
            self.keys.clear();
            let purge = LoggedPurge { keys: &[], mode: self.mode, reason: Some(reason), actor: Some(self.actor) };
            write.purge(purge).await?;
        }
        self.log(write, reason).await
    }

    /// Logs the purge and the notes. The write is still to be committed.
    pub async fn log(self, write: &mut Write, reason: &str) -> Result<(), StoreError> {
        let keys: Vec<_> = self.keys.into_iter().collect();
        for keys in keys.chunks(KEYS_PER_PURGE_MAX) {
            let purge = LoggedPurge { keys, mode: self.mode, reason: Some(reason), actor: Some(self.actor) };
            write.purge(purge).await?;
        }
        for (n, Note { action, kind, id, before, after }) in self.notes.into_iter().enumerate() {
            write.audit(n, &Change { actor: self.actor, action, kind, id: &id, before, after }).await?;
        }
        Ok(())
    }
}
