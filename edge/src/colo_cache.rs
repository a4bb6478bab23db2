//! The location's tier: the Cache API. Its entries are shared by the isolates of one location and by nobody else.
use crate::entry_bytes;
use crate::isolate::Body;
use js_sys::Promise;
use js_sys::Uint8Array;
use kv_schemas::store_key::colo_url;
use surrogate_cache::{Entry, Rules};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

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

pub async fn read(key: &str, rules: Rules) -> Option<Entry<Body>> {
    let found = CACHE.with(|cache| cache.get(&colo_url(key))).ok()?;
    let response: web_sys::Response = JsFuture::from(found).await.ok()?.dyn_into().ok()?;
    let buffer = JsFuture::from(response.array_buffer().ok()?).await.ok()?;
    entry_bytes::decode(&Uint8Array::new(&buffer), rules)
}

pub async fn write(entry: &Entry<Body>, retention_ms_max: u64) {
    let Some(response) = response(entry, retention_ms_max) else { return };
    let written = match CACHE.with(|cache| cache.put(&colo_url(&entry.key), &response)) {
        Ok(promise) => JsFuture::from(promise).await,
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        worker::console_warn!("colo cache: {}", crate::js::text_of(&error));
    }
}

fn response(entry: &Entry<Body>, retention_ms_max: u64) -> Option<web_sys::Response> {
    let value = entry_bytes::encode(entry)?;
    let ttl_s = entry.policy.retention_ms().min(retention_ms_max).div_ceil(1000).max(1);
    let headers = web_sys::Headers::new().ok()?;
    headers.set("content-type", "application/octet-stream").ok()?;
    headers.set("cache-control", &format!("max-age={ttl_s}")).ok()?;
    let init = web_sys::ResponseInit::new();
    init.set_headers(&headers);
    web_sys::Response::new_with_opt_js_u8_array_and_init(Some(&value), &init).ok()
}

pub async fn delete(key: &str) {
    if let Ok(promise) = CACHE.with(|cache| cache.remove(&colo_url(key))) {
        let _ = JsFuture::from(promise).await;
    }
}
