//! The global tier: Workers KV. A place where bytes lie, never the place where truth is asked.
//!
//! KV shows a write elsewhere after a minute or more, answers absent keys from its cache too, and takes one write a
//! second for a key: none of this matters, since the freshness rule judges whatever comes back.
use crate::entry_bytes;
use crate::isolate::Body;
use js_sys::{Object, Promise, Reflect, Uint8Array};
use kv_schemas::store_key::kv_key;
use surrogate_cache::{Entry, Rules};
use wasm_bindgen::prelude::*;
use worker::Env;

#[wasm_bindgen]
extern "C" {
    type KvNamespace;
    /// In the runtime `get` is this and a promise more.
    #[wasm_bindgen(method, catch, js_name = getWithMetadata)]
    fn get_with_metadata(this: &KvNamespace, key: &str, kind: &str) -> Result<Promise, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn put(this: &KvNamespace, key: &str, value: &Uint8Array, options: &Object) -> Result<Promise, JsValue>;
    #[wasm_bindgen(method, catch, js_name = delete)]
    fn remove(this: &KvNamespace, key: &str) -> Result<Promise, JsValue>;
}

/// How long a read may take before it counts as a miss. `entry.js` has the same.
const READ_MS: u64 = 1_000;
/// And a write or a deletion before it is left to itself.
const WRITE_MS: u64 = 10_000;
/// It takes a minute or more until a write is seen elsewhere; expirationTtl is no shorter either.
const SHOWN_MS: u64 = 60_000;

fn namespace(env: &Env) -> Option<KvNamespace> {
    crate::js::binding(env, "CACHE_KV").filter(JsValue::is_object).map(JsCast::unchecked_into)
}

pub async fn read(env: &Env, key: &str, rules: Rules) -> Option<Entry<Body>> {
    let promise = namespace(env)?.get_with_metadata(&kv_key(key), "arrayBuffer").ok()?;
    let read = crate::js::within(promise, READ_MS).await.ok()?;
    let value = Reflect::get(&read, &"value".into()).ok()?;
    entry_bytes::decode(&value.dyn_into().ok()?, rules)
}

/// Keeps an entry's bytes for so long, unless it is over about when the first could read it elsewhere: strangers choose what there
/// is no such title of, and each write is paid for. A write that KV refuses (more than one a second) is let be: the next one
/// comes, and readers judge by the rule.
pub async fn write(env: &Env, key: &str, value: &Uint8Array, kept_ms: u64) {
    if kept_ms <= SHOWN_MS {
        return;
    }
    let Some(written) = put(env, key, value, kept_ms) else { return };
    let _ = crate::js::within(written, WRITE_MS).await;
}

fn put(env: &Env, key: &str, value: &Uint8Array, kept_ms: u64) -> Option<Promise> {
    let ttl_s = kept_ms.div_ceil(1000);
    let options = Object::new();
    // A number below 2^53: at most the retention limit in seconds.
    let ttl_s = f64::from(u32::try_from(ttl_s).unwrap_or(u32::MAX));
    Reflect::set(&options, &"expirationTtl".into(), &JsValue::from_f64(ttl_s)).ok()?;
    namespace(env)?.put(&kv_key(key), value, &options).ok()
}

pub async fn delete(env: &Env, key: &str) {
    if let Some(Ok(promise)) = namespace(env).map(|kv| kv.remove(&kv_key(key))) {
        let _ = crate::js::within(promise, WRITE_MS).await;
    }
}
