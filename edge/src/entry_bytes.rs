//! Entries to bytes and back, without copying bodies through the Wasm memory.
use crate::isolate::Body;
use js_sys::Uint8Array;
use kv_schemas::entry::{EntryHead, PREFIX_BYTES};
use surrogate_cache::{Entry, Rules};

/// The entry as one buffer; `None` if its head is longer than readers accept.
pub fn encode(entry: &Entry<Body>) -> Option<Uint8Array> {
    let head = entry.to_stored().encode().ok()?;
    let head_bytes = u32::try_from(head.len()).ok()?;
    let body = (!entry.is_marker()).then_some(&entry.body.bytes);
    let total = head_bytes.checked_add(body.map_or(0, Uint8Array::length))?;
    let whole = Uint8Array::new_with_length(total);
    whole.subarray(0, head_bytes).copy_from(&head);
    if let Some(body) = body {
        whole.set(body, head_bytes);
    }
    Some(whole)
}

/// The entry these bytes hold; `None` for anything that is not a whole entry of this version.
pub fn decode(whole: &Uint8Array, rules: Rules) -> Option<Entry<Body>> {
    let prefix = u32::try_from(PREFIX_BYTES).ok()?;
    let head_bytes = EntryHead::head_bytes(&whole.subarray(0, prefix).to_vec()).ok()?;
    let body_at = prefix.checked_add(u32::try_from(head_bytes).ok()?)?;
    let body_bytes = whole.length().checked_sub(body_at)?;
    let head = EntryHead::decode(&whole.subarray(prefix, body_at).to_vec(), u64::from(body_bytes)).ok()?;
    Entry::from_stored(head, rules, Body::new(whole.subarray(body_at, whole.length())))
}
