//! The location's tier: the Cache API. Its entries are shared by the isolates of one location and by nobody else.
use crate::entry_bytes;
use crate::isolate::Body;
use js_sys::Uint8Array;
use kv_schemas::store_key::colo_url;
use surrogate_cache::Entry;
use wasm_bindgen_futures::JsFuture;
use worker::Cache;

pub async fn read(key: &str) -> Option<Entry<Body>> {
    let response = Cache::default().get(colo_url(key), true).await.ok()??;
    let response: web_sys::Response = response.into();
    let buffer = JsFuture::from(response.array_buffer().ok()?).await.ok()?;
    entry_bytes::decode(&Uint8Array::new(&buffer))
}

pub async fn write(entry: &Entry<Body>, retention_ms_max: u64) {
    let Some(response) = response(entry, retention_ms_max) else { return };
    if let Err(error) = Cache::default().put(colo_url(&entry.key), response.into()).await {
        worker::console_warn!("colo cache: {error}");
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
    let _ = Cache::default().delete(colo_url(key), true).await;
}
