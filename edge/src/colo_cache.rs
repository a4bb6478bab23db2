//! The location's tier: the Cache API. Its entries are shared by the isolates of one location and by nobody else.
use crate::entry_bytes;
use crate::isolate::{self, Body};
use crate::js;
use js_sys::Promise;
use js_sys::Uint8Array;
use kv_schemas::journal::SharedSync;
use kv_schemas::store_key::{colo_url, shared_sync_url};
use surrogate_cache::{Entry, Rules};
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    type Cache;
    /// `caches.default`, which the type of the standard's `CacheStorage` does not have.
    #[wasm_bindgen(thread_local_v2, js_namespace = caches, js_name = default)]
    static CACHE: Cache;
    #[wasm_bindgen(method, catch, js_name = match)]
    fn get(this: &Cache, url: &str) -> Result<Promise, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn put(this: &Cache, url: &str, response: &web_sys::Response) -> Result<Promise, JsValue>;
    #[wasm_bindgen(method, catch, js_name = delete)]
    fn remove(this: &Cache, url: &str) -> Result<Promise, JsValue>;
}

fn in_deployment(url: impl FnOnce(&str) -> String) -> String {
    // Without an isolate there is no URL, and no cache takes that.
    isolate::with(|isolate| url(&isolate.settings.deployment)).unwrap_or_default()
}

fn url_of(key: &str) -> String {
    in_deployment(|deployment| colo_url(deployment, key))
}

fn sync_url() -> String {
    in_deployment(shared_sync_url)
}

/// How long each half of a read may take before it counts as a miss.
const READ_MS: u64 = 1_000;
/// And a write or a deletion before it is left to itself.
const WRITE_MS: u64 = 10_000;

async fn get(url: &str) -> Option<JsValue> {
    let found = CACHE.with(|cache| cache.get(url)).ok()?;
    let response: web_sys::Response = js::within(found, READ_MS).await.ok()?.dyn_into().ok()?;
    js::within(response.array_buffer().ok()?, READ_MS).await.ok()
}

pub async fn read(key: &str, rules: Rules) -> Option<Entry<Body>> {
    entry_bytes::decode(&get(&url_of(key)).await?.dyn_into().ok()?, rules)
}

/// Keeps an entry's bytes for so long.
pub async fn write(key: &str, value: &Uint8Array, kept_ms: u64) {
    let Some(response) = bytes(value, kept_ms.div_ceil(1000).max(1)) else { return };
    let written = match CACHE.with(|cache| cache.put(&url_of(key), &response)) {
        Ok(promise) => js::within(promise, WRITE_MS).await,
        Err(error) => Err(js::refused(error)),
    };
    if let Err(error) = written {
        worker::console_warn!("colo cache: {}", error.text());
    }
}

/// What the journal told another isolate of this location, if that was a moment ago.
pub async fn read_sync() -> Option<SharedSync> {
    SharedSync::decode(&Uint8Array::new(&get(&sync_url()).await?).to_vec())
}

/// Shares what the journal told. A view that knew nothing asked for another answer than the others need.
pub async fn write_sync(told: &SharedSync) {
    if told.asked.log_id.is_none() {
        return;
    }
    // Whoever reads it judges its age by the journal's clock; this only lets it go.
    let Some(response) = bytes(&Uint8Array::from(told.encode().as_slice()), SYNC_KEPT_S) else { return };
    if let Ok(promise) = CACHE.with(|cache| cache.put(&sync_url(), &response)) {
        let _ = js::within(promise, WRITE_MS).await;
    }
}

/// Longer than a lease is; the Cache API counts in seconds.
const SYNC_KEPT_S: u64 = 60;

fn bytes(value: &Uint8Array, ttl_s: u64) -> Option<web_sys::Response> {
    let headers = web_sys::Headers::new().ok()?;
    headers.set("content-type", "application/octet-stream").ok()?;
    headers.set("cache-control", &format!("max-age={ttl_s}")).ok()?;
    let init = web_sys::ResponseInit::new();
    init.set_headers(&headers);
    web_sys::Response::new_with_opt_js_u8_array_and_init(Some(value), &init).ok()
}

pub async fn delete(key: &str) {
    if let Ok(promise) = CACHE.with(|cache| cache.remove(&url_of(key))) {
        let _ = js::within(promise, WRITE_MS).await;
    }
}
