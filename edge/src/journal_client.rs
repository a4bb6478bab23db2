//! What the isolate asks and tells the purge journal: everything after the state it has, until it has it all; writes that begin
//! and end, and their purges.
use crate::drive::Call;
use crate::isolate::{self, now_ms};
use crate::{colo_cache, js};
use js_sys::Uint8Array;
use kv_schemas::header::SURROGATE_AS_OF;
use kv_schemas::journal::{DeltaPurge, JournalDelta, JournalQuery, SharedSync};
use kv_schemas::{AsOf, KeyHash, PurgeRequest};
use surrogate_cache::announced::WriteId;
use surrogate_cache::view::Applied;
use wasm_bindgen::prelude::*;
use worker::{Env, console_warn};

#[wasm_bindgen]
extern "C" {
    type Namespace;
    #[wasm_bindgen(method, catch, js_name = getByName)]
    fn get_by_name(this: &Namespace, name: &str) -> Result<Stub, JsValue>;
    #[wasm_bindgen(method, catch, js_name = idFromName)]
    fn id_from_name(this: &Namespace, name: &str) -> Result<js_sys::Object, JsValue>;

    type Stub;
    #[wasm_bindgen(method, catch)]
    fn fetch(this: &Stub, request: &web_sys::Request) -> Result<js_sys::Promise, JsValue>;
}

/// One journal for all: purges have one order.
pub const JOURNAL_NAME: &str = "global";
/// A view that is far behind asks this often at the most before it serves again.
const PAGES_MAX: usize = 50;

fn namespace(env: &Env) -> Result<Namespace, js::CallError> {
    let unbound = || js::CallError::Refused("JOURNAL is not bound".into());
    Ok(js::binding(env, "JOURNAL").ok_or_else(unbound)?.unchecked_into())
}

/// The object's id: no other deployment's journal has it.
pub fn id(env: &Env) -> Option<String> {
    let id = namespace(env).ok()?.id_from_name(JOURNAL_NAME).ok()?;
    Some(id.to_string().into())
}

/// Calls the journal object.
async fn post(env: &Env, path: &str, body: &JsValue, ms: u64) -> Result<web_sys::Response, js::CallError> {
    let stub = namespace(env)?.get_by_name(JOURNAL_NAME).map_err(js::refused)?;
    let init = web_sys::RequestInit::new();
    init.set_method("POST");
    init.set_body(body);
    let request = web_sys::Request::new_with_str_and_init(&format!("https://journal.internal{path}"), &init);
    let call = stub.fetch(&request.map_err(js::refused)?).map_err(js::refused)?;
    Ok(js::within(call, ms).await?.unchecked_into())
}

/// Calls the journal object with JSON. Status and text of its answer, and the state an intake made.
pub async fn call(
    env: &Env,
    path: &str,
    body: &JsValue,
    ms: u64,
) -> Result<(u16, String, Option<String>), js::CallError> {
    let response = post(env, path, body, ms).await?;
    let text = js::within(response.text().map_err(js::refused)?, ms).await?.as_string();
    let as_of = response.headers().get(SURROGATE_AS_OF).ok().flatten();
    Ok((response.status(), text.unwrap_or_default(), as_of))
}

/// How far the isolates of a location rely on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbours {
    /// Only the journal itself will do.
    Ignored,
    /// What one was told within the lease will do: a request waits.
    Heard,
    /// And one that is asking right now is left to it: nobody waits.
    Awaited,
}

/// Brings the view up to the journal. The caller holds the engine's sync claim; it is given back here. Whether the
/// journal itself told news.
pub async fn sync(call: &Call, neighbours: Neighbours) -> bool {
    // Who was told nothing yet cannot tell how old it is what a neighbour was told.
    let can_tell = || isolate::with(|isolate| isolate.engine.view.journal_now(now_ms()).is_some()) == Some(true);
    if neighbours != Neighbours::Ignored
        && can_tell()
        && let Some(told) = colo_cache::read_sync().await
    {
        let is_awaited = neighbours == Neighbours::Awaited;
        let is_done = isolate::with(|isolate| {
            let is_taken = isolate.engine.sync_shared(&told, now_ms());
            isolate.syncs_neighbour = isolate.syncs_neighbour.saturating_add(u64::from(is_taken));
            is_taken || (is_awaited && isolate.engine.sync_left_to_neighbour(&told, now_ms()))
        });
        if is_done == Some(true) {
            return false;
        }
        let journal_now = isolate::with(|isolate| isolate.engine.view.journal_now(now_ms())).flatten();
        if let Some(journal_now) = journal_now.filter(|_| is_awaited) {
            colo_cache::write_sync(&SharedSync { asking_ms: journal_now.at_ms, ..told }).await;
        }
    }
    let known = isolate::with(|isolate| {
        isolate.syncs_itself = isolate.syncs_itself.saturating_add(1);
        isolate.engine.view.newest()
    });
    sync_directly(call).await;
    isolate::with(|isolate| isolate.engine.view.newest()) != known
}

async fn sync_directly(call: &Call) {
    let timeout_ms = isolate::with(|isolate| isolate.engine.config.sync_timeout_ms).unwrap_or(1_000);
    for _ in 0..PAGES_MAX {
        let sent_ms = now_ms();
        let query = isolate::with(|isolate| {
            isolate.engine.sync_goes_on(sent_ms);
            isolate.engine.view.query(&call.location)
        });
        let Some(query) = query else { return };
        match ask(&call.env, &query, timeout_ms).await {
            Ok(delta) => {
                let applied = isolate::with(|isolate| isolate.engine.sync_succeeded(&query, &delta, sent_ms, now_ms()));
                if applied == Some(Applied::Complete) {
                    // Whoever waits for this sync does not wait for its neighbours.
                    call.behind(async move {
                        colo_cache::write_sync(&SharedSync { asked: query, delta, asking_ms: 0 }).await;
                    });
                }
                if applied != Some(Applied::Partial) {
                    return;
                }
            }
            Err(error) => {
                console_warn!("journal: {}", error.text());
                isolate::with(|isolate| isolate.engine.sync_failed(now_ms()));
                return;
            }
        }
    }
    isolate::with(|isolate| isolate.engine.sync_failed(now_ms()));
}

/// Tells the journal, which numbers its purges itself, of a purge. Its status, and the state it made, if it did.
async fn tell(env: &Env, path: &str, purge: Option<&PurgeRequest>) -> Result<(u16, Option<AsOf>), js::CallError> {
    let timeout_ms = isolate::with(|isolate| isolate.engine.config.sync_timeout_ms).unwrap_or(1_000);
    let refused = |error: serde_json::Error| js::CallError::Refused(error.to_string().into());
    let body = purge.map(serde_json::to_string).transpose().map_err(refused)?.unwrap_or_default();
    match call(env, path, &JsValue::from_str(&body), timeout_ms).await? {
        (status @ (200 | 404), _, as_of) => Ok((status, as_of.and_then(|as_of| as_of.parse().ok()))),
        (_, text, _) => Err(js::CallError::Refused(text.into())),
    }
}

/// That a write is under way, and what it changes; its end is to be told within so long.
pub async fn announce(env: &Env, id: WriteId, within_ms: u64, purge: &PurgeRequest) -> Result<(), js::CallError> {
    match tell(env, &format!("/announce/{id}/{within_ms}"), Some(purge)).await? {
        (200, _) => Ok(()),
        _ => Err(js::CallError::Refused("the journal is of an older version".into())),
    }
}

/// That a purge is to be taken, and which write ends with it. The state it made.
pub async fn append(env: &Env, purge: &PurgeRequest, ends: Option<WriteId>) -> Result<AsOf, js::CallError> {
    let state = match ends {
        Some(id) => match tell(env, &format!("/append/{id}"), Some(purge)).await? {
            // Of an older version it knows nothing of writes; the purge it takes.
            (404, _) => tell(env, "/append", Some(purge)).await?.1,
            (_, state) => state,
        },
        None => tell(env, "/append", Some(purge)).await?.1,
    };
    state.ok_or_else(|| js::CallError::Refused("the journal named no state".into()))
}

/// That a write has ended, and changed nothing.
pub async fn end(env: &Env, id: WriteId) -> Result<(), js::CallError> {
    tell(env, &format!("/end/{id}"), None).await.map(|_| ())
}

/// Whether of all purges after one state and before another, none is of these keys. No answer is no.
pub async fn is_only_purge(env: &Env, after: &AsOf, own: &AsOf, keys: &[KeyHash]) -> bool {
    let query = JournalQuery { log_id: Some(after.log_id.clone()), since: after.seq, location: String::new() };
    ask(env, &query, 1_000).await.is_ok_and(|delta| is_only(&delta, after, own, keys))
}

fn is_only(delta: &JournalDelta, after: &AsOf, own: &AsOf, keys: &[KeyHash]) -> bool {
    let numbers = after.seq.saturating_add(1)..=own.seq;
    let touches = |purge: &DeltaPurge| purge.all || purge.keys.iter().any(|key| keys.contains(key));
    delta.log_id == after.log_id
        && own.log_id == after.log_id
        && delta.until >= own.seq
        // Told in detail, each of them: none was answered as a floor, or left out since a later one is of the same keys.
        && delta.purges.iter().map(|purge| purge.seq).take_while(|seq| *seq <= own.seq).eq(numbers)
        && !delta.purges.iter().any(|purge| purge.seq < own.seq && touches(purge))
}

async fn ask(env: &Env, query: &JournalQuery, timeout_ms: u64) -> Result<JournalDelta, js::CallError> {
    let body = Uint8Array::from(query.encode().as_slice());
    let due_ms = now_ms().saturating_add(timeout_ms);
    let response = post(env, "/sync", &body, timeout_ms).await?;
    if response.status() != 200 {
        return Err(js::CallError::Refused(format!("status {}", response.status()).into()));
    }
    let left_ms = due_ms.saturating_sub(now_ms());
    let buffer = js::within(response.array_buffer().map_err(js::refused)?, left_ms).await?;
    let delta = JournalDelta::decode(&Uint8Array::new(&buffer).to_vec());
    delta.ok_or_else(|| js::CallError::Refused("an answer of another version".into()))
}

/// The location an isolate runs at: the platform's name for it, or what the settings say.
pub fn location(request: &web_sys::Request, configured: Option<&str>) -> String {
    if let Some(name) = configured {
        return name.to_string();
    }
    js::place_word(request, "colo").unwrap_or_else(|| "unknown".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_schemas::journal::JournalClock;
    use kv_schemas::{LogId, PerClass, PurgeMode};

    fn state(log: &str, seq: u64) -> AsOf {
        AsOf::new(LogId::new(log).unwrap(), seq)
    }

    /// What the journal answers who knows all up to 4: these purges, each of these keys.
    fn delta(log: &str, until: u64, purges: &[(u64, &[KeyHash])]) -> JournalDelta {
        let purge = |(seq, keys): &(u64, &[KeyHash])| DeltaPurge {
            seq: *seq,
            mode: PurgeMode::Soft,
            all: keys.is_empty(),
            keys: keys.to_vec(),
        };
        JournalDelta {
            log_id: LogId::new(log).unwrap(),
            clock: JournalClock { epoch: 1, at_ms: 1 },
            head: until,
            floors: PerClass::default(),
            until,
            purges: purges.iter().map(purge).collect(),
        }
    }

    #[test]
    fn a_write_is_alone_only_if_each_purge_since_is_told_and_none_is_of_its_keys() {
        let (after, own) = (state("log", 4), state("log", 6));
        let table: [(&str, u64, &[(u64, &[KeyHash])], bool); 9] = [
            ("log", 6, &[(5, &[9]), (6, &[1])], true),
            ("log", 7, &[(5, &[9]), (6, &[1]), (7, &[1])], true),
            ("log", 6, &[(5, &[9, 2]), (6, &[1])], false),
            ("log", 6, &[(5, &[]), (6, &[1])], false),
            // 5 may have been of the keys of a later one, which took its place.
            ("log", 7, &[(6, &[1]), (7, &[2])], false),
            ("log", 6, &[(6, &[1])], false),
            // Told as a floor, or not to the end.
            ("log", 6, &[], false),
            ("log", 5, &[(5, &[9])], false),
            ("another", 6, &[(5, &[9]), (6, &[1])], false),
        ];
        for (log, until, purges, alone) in table {
            assert_eq!(is_only(&delta(log, until, purges), &after, &own, &[1, 2]), alone, "{log} {until} {purges:?}");
        }
        let next = state("log", 5);
        assert!(is_only(&delta("log", 5, &[(5, &[1])]), &after, &next, &[1, 2]), "nothing came between");
        assert!(!is_only(&delta("log", 5, &[(5, &[1])]), &after, &state("another", 5), &[1, 2]));
    }
}
