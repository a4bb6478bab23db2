//! Entries to bytes and back, without copying bodies through the Wasm memory.
use crate::isolate::Body;
use js_sys::{ArrayBuffer, Uint8Array};
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

/// Most heads are shorter: with the bytes that say how long it is, such a head is copied in one go. `entry.js` has the same.
const BEGINNING_BYTES: u32 = 2_048;

/// The entry these bytes hold; `None` for anything that is not a whole entry of this version.
pub fn decode(buffer: &ArrayBuffer, rules: Rules) -> Option<Entry<Body>> {
    let whole_bytes = buffer.byte_length();
    decode_begun(buffer, copy(buffer, BEGINNING_BYTES.min(whole_bytes)), whole_bytes, rules)
}

/// The same of bytes whose beginning and number are known.
pub fn decode_begun(
    buffer: &ArrayBuffer,
    mut beginning: Vec<u8>,
    whole_bytes: u32,
    rules: Rules,
) -> Option<Entry<Body>> {
    let body_at = EntryHead::head_bytes(&beginning).ok()?.checked_add(PREFIX_BYTES)?;
    let at = u32::try_from(body_at).ok()?;
    let body_bytes = whole_bytes.checked_sub(at)?;
    if beginning.len() < body_at {
        beginning = copy(buffer, at);
    }
    let head = EntryHead::decode(beginning.get(PREFIX_BYTES..body_at)?, u64::from(body_bytes)).ok()?;
    Entry::from_stored(head, rules, Body::new(Uint8Array::new_with_byte_offset(buffer, at)))
}

fn copy(buffer: &ArrayBuffer, bytes: u32) -> Vec<u8> {
    Uint8Array::new_with_byte_offset_and_length(buffer, 0, bytes).to_vec()
}
