//! The purge journal: one Durable Object that holds the edge's copy of the purge log, strictly in order.
//!
//! It only stores and answers; what a batch means is decided in `surrogate_cache::intake`, what a receipt says in
//! `surrogate_cache::receipts`, what becomes of writes nobody speaks of any more in `surrogate_cache::announced`, who may call in the edge's `purge_intake`. It is reachable by bindings of the same account's Workers alone. One call's statements run without an await between them,
//! so the platform commits them together or not at all.
use js_sys::{Array, Uint8Array};
use kv_schemas::as_of::parse_seq;
use kv_schemas::header::SURROGATE_AS_OF;
use kv_schemas::journal::{DeltaPurge, Floor, JournalClock, JournalDelta, JournalQuery};
use kv_schemas::surrogate_key::SurrogateKey;
use kv_schemas::{
    AsOf, KeyClass, KeyHash, LogId, PerClass, Problem, Purge, PurgeAck, PurgeBatch, PurgeMode, PurgeRequest, Seq,
    Unannounced,
};
use platform::now_ms;
use serde::Serialize;
use std::cell::{Cell, RefCell, RefMut};
use surrogate_cache::Config;
use surrogate_cache::announced::{Announced, WriteId};
use surrogate_cache::intake::{Intake, JournalHead, LeftOut, decide};
use surrogate_cache::receipts::Receipts;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use worker::{Env, console_error};

/// Purges kept in detail; older ones are forgotten into the floors. What is a viewer's own lies in few isolates, and not
/// for long.
const PURGES_KEPT: PerClass<Seq> = PerClass { content: 20_000, session: 20_000, viewer: 5_000 };
/// Whether there is something to forget is looked at with the first purge of a start, and then once in so many.
const FORGET_STEP: Seq = 1_000;
/// Starts of which it is remembered what numbers they left out: an isolate that has not asked for so many of them asks again in vain.
const STARTS_KEPT: Seq = 10_000;
/// Purges in one answer to an isolate, and keys, which are more than one purge can have.
const PAGE_PURGES: u64 = 1_000;
const PAGE_KEYS: usize = 20_000;
/// What an isolate that knows nothing yet is told in detail, in one answer if the keys are not too many; the rest it gets
/// as floors. It holds nothing of any viewer.
const COLD_PURGES: PerClass<Seq> = PerClass { content: 2_000, session: 2_000, viewer: 100 };
/// A location not heard from for so long is forgotten.
const REMEMBERED_MS: u64 = 7 * 24 * 3_600_000;

/// Each makes a storage of the next version out of one of the version before, the first out of an empty one. What versions did not
/// note yet is of version 1: it has these tables. A step that has been released does not change; what is to be different is a step
/// more.
const STEPS: [&str; 1] = ["
    CREATE TABLE IF NOT EXISTS purge_log (one INTEGER PRIMARY KEY CHECK (one = 1), log_id TEXT NOT NULL,
        head INTEGER NOT NULL, mark INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS floor (class INTEGER PRIMARY KEY, soft INTEGER NOT NULL, hard INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS purge (seq INTEGER PRIMARY KEY, mode TEXT NOT NULL, whole INTEGER NOT NULL,
        kept_with INTEGER NOT NULL, classes INTEGER NOT NULL, hashes BLOB NOT NULL, keys TEXT NOT NULL, reason TEXT,
        actor TEXT, committed_at_ms INTEGER NOT NULL, accepted_at_ms INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS purge_by_class ON purge (kept_with, seq);
    -- Finds an earlier purge of the same keys, which a hard one makes superfluous.
    CREATE INDEX IF NOT EXISTS purge_by_hashes ON purge (hashes) WHERE mode = 'hard';
    CREATE TABLE IF NOT EXISTS retired (log_id TEXT PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS challenge (one INTEGER PRIMARY KEY CHECK (one = 1), value INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS location (name TEXT PRIMARY KEY, heard_at_ms INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS announced (id INTEGER PRIMARY KEY, due_ms INTEGER NOT NULL, purge BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS left_out (first INTEGER PRIMARY KEY, after INTEGER NOT NULL)"];

#[wasm_bindgen]
extern "C" {
    type State;
    #[wasm_bindgen(method, getter)]
    fn storage(this: &State) -> Storage;

    type Storage;
    #[wasm_bindgen(method, getter)]
    fn sql(this: &Storage) -> Sql;
    /// The object is started for it if need be, and answers nothing before it is durable: the promise needs no waiting for.
    #[wasm_bindgen(method, catch, js_name = setAlarm)]
    fn set_alarm(this: &Storage, at_ms: f64) -> Result<js_sys::Promise, JsValue>;
    #[wasm_bindgen(method, catch, js_name = transactionSync)]
    fn transaction_sync(this: &Storage, work: &mut dyn FnMut() -> Result<(), JsValue>) -> Result<JsValue, JsValue>;

    type Sql;
    #[wasm_bindgen(method, catch, variadic)]
    fn exec(this: &Sql, query: &str, bindings: Vec<JsValue>) -> Result<Cursor, JsValue>;

    type Cursor;
    /// Rows as arrays of columns.
    #[wasm_bindgen(method, catch)]
    fn raw(this: &Cursor) -> Result<js_sys::Iterator, JsValue>;
}

#[wasm_bindgen]
pub struct PurgeJournal {
    storage: Storage,
    sql: Sql,
    numbers_itself: bool,
    /// Why nothing is answered: a bound that was guessed would have receipts say `applied` too early.
    misconfigured: Option<String>,
    /// Random: which start of the object this is.
    epoch: u64,
    is_prepared: Cell<bool>,
    /// How many purges this start of the object took.
    taken: Cell<Seq>,
    bound_ms: u64,
    receipts: RefCell<Receipts>,
    cold: Cell<Cold>,
    announced: RefCell<Announced>,
    /// When the object is to be woken, if it is.
    alarm_ms: Cell<Option<u64>>,
}

/// What isolates that know nothing were told last of the purges they are not told one by one.
#[derive(Default)]
struct Cold {
    log_id: Option<LogId>,
    /// Up to where those lie that are kept with a class.
    until: PerClass<Seq>,
    /// For whoever is not told of them.
    floors: PerClass<Floor>,
}

#[wasm_bindgen]
impl PurgeJournal {
    #[wasm_bindgen(constructor)]
    pub fn new(state: JsValue, env: Env) -> Self {
        let default = Config::default();
        let text = |name: &str| platform::text(&env, name);
        let settings = platform::journal_numbers(&text).and_then(|numbers_itself| {
            let (_, bound_ms) = platform::lease_and_bound_ms(&text, default.lease_ms)?;
            Ok((numbers_itself, bound_ms))
        });
        let misconfigured = settings.as_ref().err().cloned();
        let (numbers_itself, bound_ms) = settings.unwrap_or((false, default.bound_ms));
        let storage = state.unchecked_into::<State>().storage();
        Self {
            sql: storage.sql(),
            storage,
            numbers_itself,
            misconfigured,
            epoch: platform::random(),
            is_prepared: Cell::new(false),
            taken: Cell::new(0),
            bound_ms,
            receipts: RefCell::new(Receipts::new(bound_ms)),
            cold: Cell::default(),
            announced: RefCell::default(),
            alarm_ms: Cell::new(None),
        }
    }

    pub async fn fetch(&self, request: web_sys::Request) -> Result<web_sys::Response, JsValue> {
        let url = request.url();
        let body = JsFuture::from(request.array_buffer()?).await?;
        let body = Uint8Array::new(&body).to_vec();
        let Answer { status, body, as_of } = self.answer(platform::target_of(&url), &body)?;
        let init = web_sys::ResponseInit::new();
        init.set_status(status);
        let response =
            web_sys::Response::new_with_opt_js_u8_array_and_init(Some(&Uint8Array::from(body.as_slice())), &init)?;
        if let Some(as_of) = as_of {
            response.headers().set(SURROGATE_AS_OF, &as_of.to_string())?;
        }
        Ok(response)
    }

    /// Purges what writes changed whose end nobody has told.
    pub fn alarm(&self) -> Result<(), JsValue> {
        self.alarm_ms.set(None);
        if self.misconfigured.is_some() {
            return Ok(());
        }
        self.prepare()?;
        let overdue = self.announced()?.overdue(now_ms());
        self.at_once(|| {
            for (write, purge) in &overdue {
                if self.numbers_itself {
                    self.number(purge)?;
                }
                self.end(*write)?;
            }
            Ok(())
        })?;
        self.set_alarm()
    }
}

type Result<T, E = JsValue> = std::result::Result<T, E>;

struct Answer {
    status: u16,
    body: Vec<u8>,
    /// The state an intake made: what a reader has to demand.
    as_of: Option<AsOf>,
}

fn ok(body: Vec<u8>) -> Answer {
    Answer { status: 200, body, as_of: None }
}

fn refused(error: impl ToString) -> JsValue {
    JsValue::from_str(&error.to_string())
}

fn json(value: &impl Serialize) -> Result<Answer> {
    Ok(ok(serde_json::to_vec(value).map_err(refused)?))
}

/// Before the first batch there is no log to speak of.
fn no_log() -> Answer {
    problem(Problem::new(503, "no-purge-log", "No purge log has been announced to this edge yet"))
}

fn problem(problem: Problem) -> Answer {
    Answer { status: problem.status, body: problem.to_json().into_bytes(), as_of: None }
}

/// Sequence numbers stay below 2^53, where a double is exact.
fn int(seq: Seq) -> JsValue {
    JsValue::from_f64(seq as f64)
}

/// A class as the tables have it: its bit.
fn bit(class: KeyClass) -> JsValue {
    int(class.bit().into())
}

/// A row as SQLite gave it.
struct Row(Array);

impl Row {
    fn text(&self, column: u32) -> String {
        self.0.get(column).as_string().unwrap_or_default()
    }

    fn bytes(&self, column: u32) -> Vec<u8> {
        Uint8Array::new(&self.0.get(column)).to_vec()
    }

    /// Key hashes, eight bytes each.
    fn hashes(&self, column: u32) -> Vec<KeyHash> {
        self.bytes(column).as_chunks().0.iter().map(|hash| KeyHash::from_le_bytes(*hash)).collect()
    }

    /// 0 for NULL.
    fn seq(&self, column: u32) -> Seq {
        self.0.get(column).as_f64().unwrap_or_default() as Seq
    }
}

impl PurgeJournal {
    fn answer(&self, target: &str, body: &[u8]) -> Result<Answer> {
        if let Some(fault) = &self.misconfigured {
            console_error!("settings: {fault}");
            let text = "The purge journal is not configured; its log says why";
            return Ok(problem(Problem::new(500, "misconfigured", text)));
        }
        self.prepare()?;
        // With a start, and should the platform have given the last one up: it tries some two minutes.
        self.set_alarm()?;
        match target {
            "/sync" => match JournalQuery::decode(body) {
                Some(query) => self.sync(&query),
                None => Ok(problem(Problem::new(400, "query-invalid", "The query is of another version"))),
            },
            "/batch" => match PurgeBatch::read(body) {
                Ok(batch) => self.at_once(|| self.batch(&batch)),
                Err(fault) => Ok(problem(fault)),
            },
            "/append" => self.append(body, None),
            "/summary" => self.summary(),
            other => {
                let mut parts = other.split('/').skip(1);
                match (parts.next(), parts.next().map(parse_seq), parts.next().map(parse_seq), parts.next()) {
                    (Some("receipt"), Some(Ok(seq)), None, None) => self.receipt(seq),
                    (Some("announce"), Some(Ok(write)), Some(Ok(within_ms)), None) => {
                        self.announce(write, within_ms, body)
                    }
                    (Some("append"), Some(Ok(write)), None, None) => self.append(body, Some(write)),
                    (Some("end"), Some(Ok(write)), None, None) => {
                        self.end(write)?;
                        Ok(ok(Vec::new()))
                    }
                    _ => Ok(problem(Problem::new(404, "not-found", "The journal has no such call"))),
                }
            }
        }
    }

    /// Does all of it or nothing: a statement that fails, on a disk that is full, does not undo those before it. What memory has
    /// taken note of meanwhile the storage knows nothing of then, so all of that goes, as with a restart.
    fn at_once<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (mut work, mut done) = (Some(work), None);
        let ended = self.storage.transaction_sync(&mut || {
            done = work.take().map(|work| work()).transpose()?;
            Ok(())
        });
        if ended.is_err() && self.remember().is_err() {
            self.is_prepared.set(false);
        }
        ended?;
        done.ok_or_else(|| refused("the storage did not do it"))
    }

    fn run(&self, query: &str, bindings: Vec<JsValue>) -> Result<()> {
        self.sql.exec(query, bindings).map(|_| ())
    }

    /// Rows one by one, to the last of them: one who leaves off leaves the statement open until the cursor is collected.
    fn step(&self, query: &str, bindings: Vec<JsValue>) -> Result<js_sys::IntoIter> {
        Ok(self.sql.exec(query, bindings)?.raw()?.into_iter())
    }

    fn rows(&self, query: &str, bindings: Vec<JsValue>) -> Result<Vec<Row>> {
        self.step(query, bindings)?.map(|row| Ok(Row(row?.unchecked_into()))).collect()
    }

    fn first_row(&self, query: &str, bindings: Vec<JsValue>) -> Result<Option<Row>> {
        Ok(self.rows(query, bindings)?.into_iter().next())
    }

    /// The first column of the first row there is.
    fn first(&self, query: &str, bindings: Vec<JsValue>) -> Result<Option<Seq>> {
        Ok(self.first_row(query, bindings)?.map(|row| row.seq(0)))
    }

    fn receipts(&self) -> Result<RefMut<'_, Receipts>> {
        self.receipts.try_borrow_mut().map_err(refused)
    }

    fn announced(&self) -> Result<RefMut<'_, Announced>> {
        self.announced.try_borrow_mut().map_err(refused)
    }

    fn prepare(&self) -> Result<()> {
        if self.is_prepared.get() {
            return Ok(());
        }
        self.upgrade()?;
        self.run("DELETE FROM location WHERE heard_at_ms < ?", vec![int(now_ms().saturating_sub(REMEMBERED_MS))])?;
        self.remember()?;
        if !self.numbers_itself {
            // What was written meanwhile nobody purged: who numbers again begins anew.
            self.run("DELETE FROM left_out", vec![])?;
        } else if self.first("SELECT 1 AS one FROM left_out LIMIT 1", vec![])?.is_none() {
            // A log that origin numbered is origin's: with numbers of our own in it, it could not go on there.
            self.at_once(|| self.begin_own())?;
        }
        self.is_prepared.set(true);
        Ok(())
    }

    /// Has the storage in the form this version knows. One that a later version made is left alone, and nothing is answered: what
    /// is confirmed from half of it could have been purged, and what is written there could be lost to who made it.
    fn upgrade(&self) -> Result<()> {
        let layout =
            "CREATE TABLE IF NOT EXISTS layout (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL)";
        self.run(layout, vec![])?;
        let version = self.first("SELECT version FROM layout", vec![])?.unwrap_or(0);
        let Some(steps) = usize::try_from(version).ok().and_then(|version| STEPS.get(version..)) else {
            let fault = format!("the journal's storage is of version {version}, made by a later release than this one");
            console_error!("{fault}");
            return Err(refused(fault));
        };
        for (step, version) in steps.iter().zip(version.saturating_add(1)..) {
            self.at_once(|| {
                self.run(step, vec![])?;
                self.run("INSERT OR REPLACE INTO layout (one, version) VALUES (1, ?)", vec![int(version)])
            })?;
        }
        Ok(())
    }

    /// Begins with what storage has, and knows nothing else.
    fn remember(&self) -> Result<()> {
        let names = self.rows("SELECT name FROM location", vec![])?;
        let mut receipts = Receipts::new(self.bound_ms);
        names.iter().for_each(|row| receipts.remember(&row.text(0)));
        if let Some(held) = &self.held()? {
            receipts.begin(held, now_ms());
        }
        *self.receipts()? = receipts;
        let mut announced = Announced::default();
        for row in self.rows("SELECT id, due_ms, purge FROM announced", vec![])? {
            if let Some(fault) = announced.recall(row.seq(0), row.seq(1), &row.bytes(2)) {
                console_error!("a write's note cannot be read, everything is to be purged for it: {}", fault.to_json());
            }
        }
        *self.announced()? = announced;
        self.taken.set(0);
        self.cold.take();
        Ok(())
    }

    fn held(&self) -> Result<Option<JournalHead>> {
        let Some(row) = self.first_row("SELECT log_id, head, mark FROM purge_log", vec![])? else { return Ok(None) };
        let log_id = LogId::new(row.text(0)).map_err(refused)?;
        Ok(Some(JournalHead { log_id, head: row.seq(1), mark: row.seq(2) }))
    }

    /// Begins a log: everything up to `head` counts as hard purged.
    fn hold(&self, log: &JournalHead) -> Result<()> {
        self.run(
            "INSERT OR REPLACE INTO purge_log (one, log_id, head, mark) VALUES (1, ?, ?, ?)",
            vec![JsValue::from_str(log.log_id.as_str()), int(log.head), int(log.mark)],
        )?;
        for table in ["purge", "floor", "left_out"] {
            self.run(&format!("DELETE FROM {table}"), vec![])?;
        }
        self.raise_floors(&PerClass::new(|_| Floor::hard(log.head)))?;
        self.receipts()?.begin(log, now_ms());
        Ok(())
    }

    fn floors(&self) -> Result<PerClass<Floor>> {
        let mut floors = PerClass::default();
        for row in self.rows("SELECT class, soft, hard FROM floor", vec![])? {
            if let Some(class) = KeyClass::ALL.into_iter().find(|class| Seq::from(class.bit()) == row.seq(0)) {
                *floors.get_mut(class) = Floor { soft: row.seq(1), hard: row.seq(2) };
            }
        }
        Ok(floors)
    }

    fn raise_floors(&self, floors: &PerClass<Floor>) -> Result<()> {
        for class in KeyClass::ALL {
            let Floor { soft, hard } = *floors.get(class);
            self.run(
                "INSERT INTO floor (class, soft, hard) VALUES (?, ?, ?)
                   ON CONFLICT (class) DO UPDATE SET soft = max(soft, excluded.soft), hard = max(hard, excluded.hard)",
                vec![bit(class), int(soft), int(hard)],
            )?;
        }
        Ok(())
    }

    /// Takes note of a location that asks, and of what it says it has.
    fn hear(&self, query: &JournalQuery, held: &JournalHead) -> Result<()> {
        let now_ms = now_ms();
        if !self.receipts()?.hear(query, held, now_ms) {
            return Ok(());
        }
        let bindings = vec![JsValue::from_str(&query.location), int(now_ms)];
        self.run("INSERT OR REPLACE INTO location (name, heard_at_ms) VALUES (?, ?)", bindings)
    }

    /// How far one purge has come.
    fn receipt(&self, seq: Seq) -> Result<Answer> {
        let Some(held) = self.held()? else { return Ok(no_log()) };
        let accepted_at_ms = self.first("SELECT accepted_at_ms FROM purge WHERE seq = ?", vec![int(seq)])?;
        if self.numbers_itself
            && ((accepted_at_ms.is_none() && self.is_beginning(seq)?) || self.has_lost(seq, &held)?)
        {
            return Ok(problem(Problem::new(404, "not-found", "There is no purge of this number")));
        }
        json(&self.receipts()?.receipt(seq, held, accepted_at_ms, now_ms()))
    }

    /// Where the journal and the locations stand.
    fn summary(&self) -> Result<Answer> {
        let Some(held) = self.held()? else { return Ok(no_log()) };
        json(&self.receipts()?.summary(held, now_ms()))
    }

    /// Begins a log that this journal numbers.
    fn begin_own(&self) -> Result<()> {
        let log_id = LogId::new(platform::random_uuid()).map_err(refused)?;
        let begin = LeftOut::before_log(now_ms());
        self.hold(&JournalHead { log_id, head: begin.first, mark: 0 })?;
        // Of this start, too, which may have taken purges of another log.
        self.taken.set(0);
        self.leave_out(begin)
    }

    fn leave_out(&self, LeftOut { after, first }: LeftOut) -> Result<()> {
        self.run("INSERT OR REPLACE INTO left_out (first, after) VALUES (?, ?)", vec![int(first), int(after)])?;
        let youngest = "SELECT first FROM left_out ORDER BY first DESC LIMIT ?";
        self.run(&format!("DELETE FROM left_out WHERE first NOT IN ({youngest})"), vec![int(STARTS_KEPT)])
    }

    /// Whether a log of its own begins with this number, which is no purge's then.
    fn is_beginning(&self, seq: Seq) -> Result<bool> {
        let begins = "SELECT 1 AS one FROM left_out WHERE after = 0 AND first = ?";
        Ok(self.first(begins, vec![int(seq)])?.is_some())
    }

    /// Whether somebody who has come to a state of this log has heard of purges that this journal does not have: its storage was
    /// put back.
    fn has_lost(&self, seq: Seq, held: &JournalHead) -> Result<bool> {
        let left_out = "SELECT 1 AS one FROM left_out WHERE after < ? AND first > ? LIMIT 1";
        Ok(seq > held.head || self.first(left_out, vec![int(seq), int(seq)])?.is_some())
    }

    /// Its purges are refused from now on.
    fn retire(&self, log_id: &LogId) -> Result<()> {
        self.run("INSERT OR IGNORE INTO retired (log_id) VALUES (?)", vec![JsValue::from_str(log_id.as_str())])
    }

    /// What an isolate lacks.
    fn sync(&self, query: &JournalQuery) -> Result<Answer> {
        let Some(mut held) = self.held()? else { return Ok(no_log()) };
        if self.numbers_itself && query.log_id.as_ref() == Some(&held.log_id) && self.has_lost(query.since, &held)? {
            // Nobody knows what the lost ones were: another log purges everything.
            self.at_once(|| self.begin_own())?;
            held = self.held()?.ok_or_else(|| refused("the journal has no log"))?;
        }
        self.hear(query, &held)?;
        let clock = JournalClock { epoch: self.epoch, at_ms: now_ms() };
        // Another log, or a state this journal has not reached: from the beginning.
        let continues = query.log_id.as_ref() == Some(&held.log_id) && query.since <= held.head;
        let mut floors = self.floors()?;
        let (rows, page) = if continues {
            let query_text = "SELECT seq, mode, whole, hashes FROM purge WHERE seq > ? ORDER BY seq LIMIT ?";
            (self.step(query_text, vec![int(query.since), int(PAGE_PURGES)])?, PAGE_PURGES)
        } else {
            let cold = self.cold(&held.log_id)?;
            let mut since = Vec::new();
            for class in KeyClass::ALL {
                floors.get_mut(class).raise(*cold.floors.get(class));
                since.extend([bit(class), int(*cold.until.get(class))]);
            }
            self.cold.set(cold);
            let query_text = "SELECT seq, mode, whole, hashes FROM purge
               WHERE kept_with = ? AND seq > ? OR kept_with = ? AND seq > ? OR kept_with = ? AND seq > ? ORDER BY seq";
            (self.step(query_text, since)?, Seq::MAX)
        };
        let since = if continues { query.since } else { 0 };
        let mut purges: Vec<DeltaPurge> = Vec::new();
        let (mut count, mut keys_total): (u64, usize) = (0, 0);
        for row in rows {
            let row = Row(row?.unchecked_into());
            count = count.saturating_add(1);
            // What comes behind the first that has no room is stepped over, and nothing of it kept.
            if keys_total > PAGE_KEYS {
                continue;
            }
            let keys = row.hashes(3);
            keys_total = keys_total.saturating_add(keys.len());
            if keys_total <= PAGE_KEYS {
                let mode = if row.text(1) == PurgeMode::Soft.as_str() { PurgeMode::Soft } else { PurgeMode::Hard };
                purges.push(DeltaPurge { seq: row.seq(0), mode, all: row.seq(2) != 0, keys });
            }
        }
        let is_whole = count < page && keys_total <= PAGE_KEYS;
        let last = purges.last().map_or(since, |purge| purge.seq);
        let delta = JournalDelta {
            log_id: held.log_id,
            clock,
            head: held.head,
            floors,
            until: if is_whole { held.head } else { last },
            purges,
        };
        Ok(ok(delta.encode()))
    }

    /// What an isolate that knows nothing is not told one by one. When all ask at once, after a deploy, each finds what the one
    /// before was told, and only purges that have come to lie behind since are read. Of those read before a later one may have
    /// taken the place: a floor is no lower for it.
    fn cold(&self, log_id: &LogId) -> Result<Cold> {
        let mut cold = self.cold.take();
        if cold.log_id.as_ref() != Some(log_id) {
            cold = Cold { log_id: Some(log_id.clone()), ..Cold::default() };
        }
        for class in KeyClass::ALL {
            let known = *cold.until.get(class);
            let until = self.seq_before_youngest(class, COLD_PURGES)?.max(known);
            self.forgotten(class, (known, until), &mut cold.floors)?;
            *cold.until.get_mut(class) = until;
        }
        Ok(cold)
    }

    /// The `seq` up to which all purges kept with a class lie but for its youngest; 0 if there are no more than those.
    fn seq_before_youngest(&self, class: KeyClass, counts: PerClass<Seq>) -> Result<Seq> {
        let query = "SELECT seq FROM purge WHERE kept_with = ? ORDER BY seq DESC LIMIT 1 OFFSET ?";
        Ok(self.first(query, vec![bit(class), int(*counts.get(class))])?.unwrap_or(0))
    }

    /// Floors for whoever is not told one by one of the purges after one and up to another that are kept with a class. They may
    /// have keys of other classes: the floor of each is raised to the youngest soft and hard purge that touches it.
    fn forgotten(&self, kept_with: KeyClass, (after, until): (Seq, Seq), floors: &mut PerClass<Floor>) -> Result<()> {
        if after >= until {
            return Ok(());
        }
        for class in KeyClass::ALL {
            let youngest = self.first_row(
                "SELECT max(CASE WHEN mode = 'soft' THEN seq END), max(CASE WHEN mode = 'hard' THEN seq END)
                   FROM purge WHERE kept_with = ? AND seq > ? AND seq <= ? AND classes & ?",
                vec![bit(kept_with), int(after), int(until), bit(class)],
            )?;
            if let Some(row) = youngest {
                floors.get_mut(class).raise(Floor { soft: row.seq(0), hard: row.seq(1) });
            }
        }
        Ok(())
    }

    /// Takes a batch from origin's dispatcher.
    fn batch(&self, batch: &PurgeBatch) -> Result<Answer> {
        if self.numbers_itself {
            let title = "This edge numbers its purges itself; send keys, not batches";
            return Ok(problem(Problem::new(409, "log-not-from-origin", title)));
        }
        let held = self.held()?;
        let retired = self
            .first("SELECT 1 AS one FROM retired WHERE log_id = ?", vec![JsValue::from_str(batch.log_id.as_str())])?;
        let challenge = self.first("SELECT value FROM challenge", vec![])?;
        let from_index = match decide(held.as_ref(), retired.is_some(), challenge, batch) {
            Intake::Unannounced => return self.unannounced(challenge),
            Intake::Retired => {
                let title = "This purge log was replaced by another; its purges are refused";
                return Ok(problem(Problem::new(409, "log-retired", title)));
            }
            Intake::Forked => {
                let title =
                    "This purge log has used numbers twice: its database was put back; give the log a new identity";
                return Ok(problem(Problem::new(409, "log-forked", title)));
            }
            Intake::Gap => batch.purges.len(),
            Intake::Append { from_index } => from_index,
            Intake::Adopt { head } => {
                for old in held.iter().map(|held| &held.log_id).chain(&batch.replaces) {
                    self.retire(old)?;
                }
                self.run("DELETE FROM challenge", vec![])?;
                self.hold(&JournalHead { log_id: batch.log_id.clone(), head, mark: batch.after_mark })?;
                0
            }
        };
        let new = batch.purges.get(from_index..).unwrap_or(&[]);
        for purge in new {
            self.insert(purge)?;
        }
        self.ack(None, new.len())
    }

    /// Says what an announcement of a log has to carry.
    fn unannounced(&self, challenge: Option<u64>) -> Result<Answer> {
        let challenge = match challenge {
            Some(challenge) => challenge,
            None => {
                let challenge = platform::random().max(1);
                self.run("INSERT OR REPLACE INTO challenge (one, value) VALUES (1, ?)", vec![int(challenge)])?;
                challenge
            }
        };
        Ok(Answer { status: 409, ..json(&Unannounced::new(challenge))? })
    }

    /// A purge by keys, or a write that makes for one, where origin has the log.
    fn is_refused(&self) -> Option<Answer> {
        let title = "Purges of this edge come from its origin's log; purge there";
        (!self.numbers_itself).then(|| problem(Problem::new(409, "log-from-origin", title)))
    }

    /// Takes note of a write that is under way, and of what it changes.
    fn announce(&self, write: WriteId, within_ms: u64, body: &[u8]) -> Result<Answer> {
        if let Some(refusal) = self.is_refused() {
            return Ok(refusal);
        }
        let purge = match PurgeRequest::read(body) {
            Ok(purge) => purge,
            Err(fault) => return Ok(problem(fault)),
        };
        let due_ms = now_ms().saturating_add(within_ms).min(kv_schemas::SEQ_MAX);
        let bindings = vec![int(write), int(due_ms), Uint8Array::from(body).into()];
        self.run("INSERT OR REPLACE INTO announced (id, due_ms, purge) VALUES (?, ?, ?)", bindings)?;
        self.announced()?.begin(write, due_ms, purge);
        self.set_alarm()?;
        Ok(ok(Vec::new()))
    }

    /// A write has ended: whatever it changed is purged.
    fn end(&self, write: WriteId) -> Result<()> {
        self.run("DELETE FROM announced WHERE id = ?", vec![int(write)])?;
        self.announced()?.end(write);
        Ok(())
    }

    /// Has the object woken when the first of the writes under way is due. One more that is not is cheaper than an alarm moved
    /// with each write.
    fn set_alarm(&self) -> Result<()> {
        let Some(due_ms) = self.announced()?.next_due_ms() else { return Ok(()) };
        if self.alarm_ms.get().is_some_and(|alarm_ms| alarm_ms <= due_ms) {
            return Ok(());
        }
        // Below 2^53.
        let _durable_before_the_answer = self.storage.set_alarm(due_ms as f64)?;
        self.alarm_ms.set(Some(due_ms));
        Ok(())
    }

    /// Takes a purge by keys; `write`: that made it, and has ended by it.
    fn append(&self, body: &[u8], write: Option<WriteId>) -> Result<Answer> {
        if let Some(refusal) = self.is_refused() {
            return Ok(refusal);
        }
        let request = match PurgeRequest::read(body) {
            Ok(request) => request,
            Err(fault) => return Ok(problem(fault)),
        };
        self.at_once(|| {
            let seq = self.number(&request)?;
            if let Some(write) = write {
                self.end(write)?;
            }
            self.ack(Some(seq), 1)
        })
    }

    /// Numbers a purge, and takes it.
    fn number(&self, request: &PurgeRequest) -> Result<Seq> {
        let held = self.held()?.ok_or_else(|| refused("the journal has no log"))?;
        let PurgeRequest { keys, all, mode, reason } = request.clone();
        let noted = self.first("SELECT max(first) FROM left_out", vec![])?.unwrap_or(0);
        let start_ms = (self.taken.get() == 0).then(now_ms);
        let left_out = LeftOut::before_next(held.head, noted, start_ms);
        if !left_out.is_empty() {
            self.leave_out(left_out)?;
        }
        let seq = left_out.first;
        self.insert(&Purge { seq, keys, all, mode, reason, actor: None, committed_at_ms: now_ms(), mark: 0 })?;
        Ok(seq)
    }

    fn insert(&self, purge: &Purge) -> Result<()> {
        let hashes: Vec<KeyHash> = purge.keys.iter().map(SurrogateKey::hash).collect();
        let classes = KeyClass::bits_of(purge.all, &hashes);
        let hashes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        let hashes: JsValue = Uint8Array::from(hashes.as_slice()).into();
        let text = JsValue::from_str;
        let note = |value: Option<&String>| value.map_or(JsValue::NULL, |value| text(value));
        // Keys hold no space.
        let keys: Vec<&str> = purge.keys.iter().map(SurrogateKey::as_str).collect();
        let bindings = vec![
            int(purge.seq),
            text(purge.mode.as_str()),
            JsValue::from_f64(if purge.all { 1.0 } else { 0.0 }),
            bit(KeyClass::kept_with(classes)),
            int(classes.into()),
            hashes.clone(),
            text(&keys.join(" ")),
            note(purge.reason.as_ref()),
            note(purge.actor.as_ref()),
            int(purge.committed_at_ms.min(kv_schemas::SEQ_MAX)),
            int(now_ms()),
        ];
        // Replacing heals a row whose head could not be noted, on a disk that was full for a moment.
        let insert = "INSERT OR REPLACE INTO purge (seq, mode, whole, kept_with, classes, hashes, keys, reason, actor,
               committed_at_ms, accepted_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        self.run(insert, bindings)?;
        self.run("UPDATE purge_log SET head = ?, mark = ?", vec![int(purge.seq), int(purge.mark)])?;
        if purge.mode == PurgeMode::Hard {
            // The rule looks at the youngest alone. So a URL that is written every second does not crowd out the rest.
            let earlier = "DELETE FROM purge WHERE mode = 'hard' AND hashes = ? AND seq < ?";
            self.run(earlier, vec![hashes, int(purge.seq)])?;
        }
        self.receipts()?.accept(purge.seq, now_ms());
        let taken = self.taken.replace(self.taken.get().saturating_add(1));
        if taken.checked_rem(FORGET_STEP) == Some(0) { self.forget() } else { Ok(()) }
    }

    /// Keeps the log bounded: what is dropped raises the floors, so that nothing is forgotten silently.
    fn forget(&self) -> Result<()> {
        for class in KeyClass::ALL {
            let until = self.seq_before_youngest(class, PURGES_KEPT)?;
            let mut floors = PerClass::default();
            self.forgotten(class, (0, until), &mut floors)?;
            self.raise_floors(&floors)?;
            self.run("DELETE FROM purge WHERE kept_with = ? AND seq <= ?", vec![bit(class), int(until)])?;
        }
        Ok(())
    }

    /// `seq`: of the one purge, if it was numbered here.
    fn ack(&self, seq: Option<Seq>, accepted: usize) -> Result<Answer> {
        let held = self.held()?.ok_or_else(|| refused("the journal has no log"))?;
        let ack = PurgeAck {
            log_id: held.log_id,
            seq,
            next_seq: held.head.saturating_add(1),
            accepted: u32::try_from(accepted).unwrap_or(u32::MAX),
        };
        Ok(Answer { as_of: Some(ack.as_of()), ..json(&ack)? })
    }
}
