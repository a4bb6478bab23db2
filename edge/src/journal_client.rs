//! What the isolate asks the purge journal: everything after the state it has, until it has it all.
use crate::isolate::{self, now_ms};
use crate::js;
use kv_schemas::journal::{JournalDelta, JournalQuery};
use surrogate_cache::view::Applied;
use wasm_bindgen::{JsCast, JsValue};
use worker::{Env, console_warn};

/// One journal for all: purges have one order.
pub const JOURNAL_NAME: &str = "global";
/// A view that is far behind asks this often at the most before it serves again.
const PAGES_MAX: usize = 50;

/// Calls the journal object.
pub async fn call(env: &Env, path: &str, body: &str, ms: u64) -> Result<web_sys::Response, js::CallError> {
    let refused = |error: worker::Error| js::CallError::Refused(error.to_string());
    let refused_js = |error: JsValue| js::CallError::Refused(js::text_of(&error));
    let stub = env.durable_object("JOURNAL").map_err(refused)?.get_by_name(JOURNAL_NAME).map_err(refused)?;
    let init = web_sys::RequestInit::new();
    init.set_method("POST");
    init.set_body(&JsValue::from_str(body));
    let request = web_sys::Request::new_with_str_and_init(&format!("https://journal.internal{path}"), &init);
    let request = request.map_err(refused_js)?;
    let call = stub.fetch_with_request(request.into());
    let delay = worker::Delay::from(std::time::Duration::from_millis(ms));
    futures_util::pin_mut!(call, delay);
    match futures_util::future::select(call, delay).await {
        futures_util::future::Either::Left((answer, _)) => Ok(answer.map_err(refused)?.into()),
        futures_util::future::Either::Right(_) => Err(js::CallError::Timeout),
    }
}

pub async fn text(response: &web_sys::Response, ms: u64) -> Result<String, js::CallError> {
    let promise = response.text().map_err(|error| js::CallError::Refused(js::text_of(&error)))?;
    let value = js::within(promise, ms).await?;
    value.as_string().ok_or(js::CallError::Refused("the answer is no text".into()))
}

/// Brings the view up to the journal. The caller holds the engine's sync claim; it is given back here.
pub async fn sync(env: &Env, location: &str) {
    let timeout_ms = isolate::with(|isolate| isolate.engine.config.sync_timeout_ms).unwrap_or(1_000);
    for _ in 0..PAGES_MAX {
        let Some(query) = isolate::with(|isolate| isolate.engine.view.query(location)) else { return };
        let sent_ms = now_ms();
        match ask(env, &query, timeout_ms).await {
            Ok(delta) => {
                let applied = isolate::with(|isolate| isolate.engine.sync_succeeded(&query, &delta, sent_ms));
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

async fn ask(env: &Env, query: &JournalQuery, timeout_ms: u64) -> Result<JournalDelta, js::CallError> {
    let refused = |error: serde_json::Error| js::CallError::Refused(error.to_string());
    let body = serde_json::to_string(query).map_err(refused)?;
    let response = call(env, "/sync", &body, timeout_ms).await?;
    if response.status() != 200 {
        return Err(js::CallError::Refused(format!("status {}", response.status())));
    }
    serde_json::from_slice(text(&response, timeout_ms).await?.as_bytes()).map_err(refused)
}

/// The location an isolate runs at: the platform's name for it, or what the settings say.
pub fn location(request: &web_sys::Request, configured: Option<&str>) -> String {
    if let Some(name) = configured {
        return name.to_string();
    }
    let get = |object: &JsValue, name: &str| js_sys::Reflect::get(object, &JsValue::from_str(name)).ok();
    let cf = get(request.unchecked_ref(), "cf").filter(JsValue::is_object);
    cf.and_then(|cf| get(&cf, "colo")?.as_string()).unwrap_or_else(|| "unknown".into())
}
