//! What tiers and the journal hand back: read or refused, and what is read is written alike.
#![no_main]
use kv_schemas::AsOf;
use kv_schemas::entry::EntryHead;
use kv_schemas::journal::{JournalDelta, JournalQuery, SharedSync};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((head, body)) = EntryHead::split(bytes) {
        let mut again = head.encode().expect("it was short enough to be read");
        again.extend_from_slice(body);
        assert_eq!(EntryHead::split(&again).expect("what is written is read"), (head, body));
    }
    if let Some(delta) = JournalDelta::decode(bytes) {
        assert_eq!(JournalDelta::decode(&delta.encode()), Some(delta));
    }
    if let Some(shared) = SharedSync::decode(bytes) {
        assert_eq!(SharedSync::decode(&shared.encode()), Some(shared));
    }
    if let Some(query) = JournalQuery::decode(bytes) {
        assert_eq!(JournalQuery::decode(&query.encode()), Some(query));
    }
    if let Some(as_of) = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<AsOf>().ok()) {
        assert_eq!(as_of.to_string().parse(), Ok(as_of));
    }
});
