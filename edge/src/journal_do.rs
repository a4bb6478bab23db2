//! The purge journal: one Durable Object that holds the edge's copy of the purge log, strictly in order.
//!
//! It only stores and answers; what a batch means is decided in `surrogate_cache::intake`, who may call is decided in
//! `purge_intake`. It is reachable from this Worker alone. One call's statements run without an await between them,
//! so the platform commits them together or not at all.
use crate::isolate::now_ms;
use crate::{js, route};
use js_sys::{Array, Uint8Array};
use kv_schemas::journal::{DeltaPurge, JournalDelta, JournalQuery};
use kv_schemas::surrogate_key::SurrogateKey;
use kv_schemas::{KeyHash, LogId, Problem, PurgeAck, PurgeBatch, PurgeMode, PurgeRequest, Seq};
use serde::de::DeserializeOwned;
use surrogate_cache::intake::{Intake, JournalHead, decide};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use worker::Env;

/// Purges kept in detail; older ones are forgotten into the floors.
const PURGES_KEPT: Seq = 20_000;
/// Forgetting happens in steps of this many, not one by one.
const FORGET_STEP: Seq = 2_000;
/// Purges and keys in one answer to an isolate.
const PAGE_PURGES: usize = 1_000;
const PAGE_KEYS: usize = 20_000;
/// What an isolate that knows nothing yet is told in detail; the rest it gets as floors.
const COLD_PURGES: Seq = 2_000;

#[wasm_bindgen]
extern "C" {
    type State;
    #[wasm_bindgen(method, getter)]
    fn storage(this: &State) -> Storage;

    type Storage;
    #[wasm_bindgen(method, getter)]
    fn sql(this: &Storage) -> Sql;

    type Sql;
    #[wasm_bindgen(method, catch, variadic)]
    fn exec(this: &Sql, query: &str, bindings: Vec<JsValue>) -> Result<Cursor, JsValue>;

    type Cursor;
    /// Rows as arrays of columns.
    #[wasm_bindgen(method, catch)]
    fn raw(this: &Cursor) -> Result<JsValue, JsValue>;
}

#[wasm_bindgen]
pub struct PurgeJournal {
    sql: Sql,
    numbers_itself: bool,
}

#[wasm_bindgen]
impl PurgeJournal {
    #[wasm_bindgen(constructor)]
    pub fn new(state: JsValue, env: Env) -> Self {
        let owner = js::binding(&env, "PURGE_LOG").and_then(|owner| owner.as_string());
        Self {
            sql: state.unchecked_into::<State>().storage().sql(),
            numbers_itself: owner.as_deref() == Some("journal"),
        }
    }

    pub async fn fetch(&self, request: web_sys::Request) -> Result<web_sys::Response, JsValue> {
        let url = request.url();
        let body = JsFuture::from(request.array_buffer()?).await?;
        let body = Uint8Array::new(&body).to_vec();
        let (status, answer) = self.prepare().and_then(|()| match route::target_of(&url) {
            "/sync" => match JournalQuery::decode(&body) {
                Some(query) => self.sync(&query),
                None => Ok(problem(Problem::new(400, "query-invalid", "The query is of another version"))),
            },
            "/batch" => self.batch(&read(&body)?),
            "/append" => self.append(&read(&body)?),
            _ => Ok(problem(Problem::new(404, "not-found", "The journal has no such call"))),
        })?;
        let init = web_sys::ResponseInit::new();
        init.set_status(status);
        web_sys::Response::new_with_opt_js_u8_array_and_init(Some(&Uint8Array::from(answer.as_slice())), &init)
    }
}

type Result<T, E = JsValue> = std::result::Result<T, E>;
type Answer = (u16, Vec<u8>);

fn refused(error: impl ToString) -> JsValue {
    JsValue::from_str(&error.to_string())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(refused)
}

fn problem(problem: Problem) -> Answer {
    (problem.status, problem.to_json().into_bytes())
}

/// Sequence numbers stay below 2^53, where a double is exact.
fn int(seq: Seq) -> JsValue {
    JsValue::from_f64(seq as f64)
}

struct Meta {
    log_id: LogId,
    head: Seq,
    floor_soft: Seq,
    floor_hard: Seq,
}

#[derive(Clone, Copy, Default)]
struct Floors {
    soft: Seq,
    hard: Seq,
}

/// A row as SQLite gave it.
struct Row(Array);

impl Row {
    fn text(&self, column: u32) -> String {
        self.0.get(column).as_string().unwrap_or_default()
    }

    /// Key hashes, eight bytes each.
    fn hashes(&self, column: u32) -> Vec<KeyHash> {
        let bytes = Uint8Array::new(&self.0.get(column)).to_vec();
        bytes.as_chunks().0.iter().map(|hash| KeyHash::from_le_bytes(*hash)).collect()
    }

    /// 0 for NULL.
    fn seq(&self, column: u32) -> Seq {
        self.0.get(column).as_f64().unwrap_or_default() as Seq
    }
}

impl PurgeJournal {
    fn run(&self, query: &str, bindings: Vec<JsValue>) -> Result<()> {
        self.sql.exec(query, bindings).map(|_| ())
    }

    fn rows(&self, query: &str, bindings: Vec<JsValue>) -> Result<Vec<Row>> {
        let rows = Array::from(&self.sql.exec(query, bindings)?.raw()?);
        Ok(rows.iter().map(|row| Row(row.unchecked_into())).collect())
    }

    fn prepare(&self) -> Result<()> {
        self.run(
            "CREATE TABLE IF NOT EXISTS log (one INTEGER PRIMARY KEY CHECK (one = 1), log_id TEXT NOT NULL,
               head INTEGER NOT NULL, floor_soft INTEGER NOT NULL, floor_hard INTEGER NOT NULL)",
            vec![],
        )?;
        self.run(
            "CREATE TABLE IF NOT EXISTS purges (seq INTEGER PRIMARY KEY, mode TEXT NOT NULL, whole INTEGER NOT NULL,
               hashes BLOB NOT NULL, keys TEXT NOT NULL, reason TEXT, actor TEXT, committed_at_ms INTEGER NOT NULL,
               accepted_at_ms INTEGER NOT NULL)",
            vec![],
        )?;
        self.run("CREATE TABLE IF NOT EXISTS retired (log_id TEXT PRIMARY KEY)", vec![])?;
        if self.numbers_itself && self.meta()?.is_none() {
            self.set_meta(&crate::js::random_uuid(), 0, 0)?;
        }
        Ok(())
    }

    fn meta(&self) -> Result<Option<Meta>> {
        let rows = self.rows("SELECT log_id, head, floor_soft, floor_hard FROM log", vec![])?;
        let Some(row) = rows.first() else { return Ok(None) };
        let log_id = LogId::new(row.text(0)).map_err(refused)?;
        Ok(Some(Meta { log_id, head: row.seq(1), floor_soft: row.seq(2), floor_hard: row.seq(3) }))
    }

    fn set_meta(&self, log_id: &str, head: Seq, floor_hard: Seq) -> Result<()> {
        self.run(
            "INSERT OR REPLACE INTO log (one, log_id, head, floor_soft, floor_hard) VALUES (1, ?, ?, 0, ?)",
            vec![JsValue::from_str(log_id), int(head), int(floor_hard)],
        )
    }

    /// What an isolate lacks.
    fn sync(&self, query: &JournalQuery) -> Result<Answer> {
        let Some(meta) = self.meta()? else {
            return Ok(problem(Problem::new(503, "no-purge-log", "No purge log has been announced to this edge yet")));
        };
        // Another log, or a state this journal has not reached: from the beginning.
        let continues = query.log_id.as_ref() == Some(&meta.log_id) && query.since <= meta.head;
        let since = if continues { query.since } else { meta.head.saturating_sub(COLD_PURGES) };
        let floors = if continues { Floors::default() } else { self.youngest_until(since)? };
        let rows = self.rows(
            "SELECT seq, mode, whole, hashes FROM purges WHERE seq > ? ORDER BY seq LIMIT ?",
            vec![int(since), JsValue::from_f64(PAGE_PURGES as f64)],
        )?;
        let mut purges: Vec<DeltaPurge> = Vec::with_capacity(rows.len());
        let mut keys_total: usize = 0;
        let mut is_whole = rows.len() < PAGE_PURGES;
        for row in rows {
            let keys = row.hashes(3);
            keys_total = keys_total.saturating_add(keys.len());
            if keys_total > PAGE_KEYS && !purges.is_empty() {
                is_whole = false;
                break;
            }
            let mode = if row.text(1) == PurgeMode::Soft.as_str() { PurgeMode::Soft } else { PurgeMode::Hard };
            purges.push(DeltaPurge { seq: row.seq(0), mode, all: row.seq(2) != 0, keys });
        }
        let last = purges.last().map_or(since, |purge| purge.seq);
        let delta = JournalDelta {
            log_id: meta.log_id,
            head: meta.head,
            floor_soft: meta.floor_soft.max(floors.soft),
            floor_hard: meta.floor_hard.max(floors.hard),
            until: if is_whole { meta.head } else { last },
            purges,
        };
        Ok((200, delta.encode()))
    }

    /// The youngest soft and hard purge up to `seq`: floors for whoever is not told about them one by one.
    fn youngest_until(&self, seq: Seq) -> Result<Floors> {
        let rows = self.rows(
            "SELECT max(CASE WHEN mode = 'soft' THEN seq END) AS soft, max(CASE WHEN mode = 'hard' THEN seq END) AS hard
               FROM purges WHERE seq <= ?",
            vec![int(seq)],
        )?;
        Ok(rows.first().map(|row| Floors { soft: row.seq(0), hard: row.seq(1) }).unwrap_or_default())
    }

    /// Takes a batch from origin's dispatcher.
    fn batch(&self, batch: &PurgeBatch) -> Result<Answer> {
        if self.numbers_itself {
            let title = "This edge numbers its purges itself; send keys, not batches";
            return Ok(problem(Problem::new(409, "log-not-from-origin", title)));
        }
        let meta = self.meta()?;
        let held = meta.as_ref().map(|meta| JournalHead { log_id: meta.log_id.clone(), head: meta.head });
        let retired =
            self.rows("SELECT 1 AS one FROM retired WHERE log_id = ?", vec![JsValue::from_str(batch.log_id.as_str())])?;
        let from_index = match decide(held.as_ref(), !retired.is_empty(), batch) {
            Intake::Retired => {
                let title = "This purge log was replaced by another; its purges are refused";
                return Ok(problem(Problem::new(409, "log-retired", title)));
            }
            Intake::Gap => batch.purges.len(),
            Intake::Append { from_index } => from_index,
            Intake::Adopt { head } => {
                for old in meta.iter().map(|meta| &meta.log_id).chain(&batch.replaces) {
                    let old = JsValue::from_str(old.as_str());
                    self.run("INSERT OR IGNORE INTO retired (log_id) VALUES (?)", vec![old])?;
                }
                self.run("DELETE FROM purges", vec![])?;
                self.set_meta(batch.log_id.as_str(), head, head)?;
                0
            }
        };
        let new = batch.purges.get(from_index..).unwrap_or(&[]);
        for purge in new {
            let notes = (purge.reason.as_deref(), purge.actor.as_deref());
            self.insert(purge.seq, &purge.keys, purge.all, purge.mode, notes, purge.committed_at_ms)?;
        }
        self.forget()?;
        self.ack(new.len())
    }

    /// Numbers and takes a purge by keys.
    fn append(&self, request: &PurgeRequest) -> Result<Answer> {
        let Some(meta) = self.meta()?.filter(|_| self.numbers_itself) else {
            let title = "Purges of this edge come from its origin's log; purge there";
            return Ok(problem(Problem::new(409, "log-from-origin", title)));
        };
        let seq = meta.head.saturating_add(1);
        self.insert(seq, &request.keys, request.all, request.mode, (request.reason.as_deref(), None), now_ms())?;
        self.forget()?;
        self.ack(1)
    }

    fn insert(
        &self,
        seq: Seq,
        keys: &[SurrogateKey],
        all: bool,
        mode: PurgeMode,
        (reason, actor): (Option<&str>, Option<&str>),
        committed_at_ms: u64,
    ) -> Result<()> {
        let hashes: Vec<u8> = keys.iter().flat_map(|key| key.hash().to_le_bytes()).collect();
        let text = JsValue::from_str;
        let note = |value: Option<&str>| value.map_or(JsValue::NULL, text);
        let bindings = vec![
            int(seq),
            text(mode.as_str()),
            JsValue::from_f64(if all { 1.0 } else { 0.0 }),
            Uint8Array::from(hashes.as_slice()).into(),
            text(&serde_json::to_string(keys).map_err(refused)?),
            note(reason),
            note(actor),
            int(committed_at_ms.min(kv_schemas::SEQ_MAX)),
            int(now_ms()),
        ];
        // Replacing heals a row whose head could not be noted, on a disk that was full for a moment.
        self.run("INSERT OR REPLACE INTO purges VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", bindings)?;
        self.run("UPDATE log SET head = ?", vec![int(seq)])
    }

    /// Keeps the log bounded: what is dropped raises the floors, so that nothing is forgotten silently.
    fn forget(&self) -> Result<()> {
        let Some(meta) = self.meta()? else { return Ok(()) };
        let rows = self.rows("SELECT min(seq) FROM purges", vec![])?;
        let oldest = rows.first().map_or(meta.head, |row| row.seq(0));
        if meta.head.saturating_sub(oldest) < PURGES_KEPT.saturating_add(FORGET_STEP) {
            return Ok(());
        }
        let until = meta.head.saturating_sub(PURGES_KEPT);
        let floors = self.youngest_until(until)?;
        self.run(
            "UPDATE log SET floor_soft = max(floor_soft, ?), floor_hard = max(floor_hard, ?)",
            vec![int(floors.soft), int(floors.hard)],
        )?;
        self.run("DELETE FROM purges WHERE seq <= ?", vec![int(until)])
    }

    fn ack(&self, accepted: usize) -> Result<Answer> {
        let meta = self.meta()?.ok_or_else(|| refused("the journal has no log"))?;
        let ack = PurgeAck {
            log_id: meta.log_id,
            next_seq: meta.head.saturating_add(1),
            accepted: u32::try_from(accepted).unwrap_or(u32::MAX),
        };
        Ok((200, serde_json::to_vec(&ack).map_err(refused)?))
    }
}
