//! Cuts of documents: whatever is wanted of whatever bytes, nothing panics, and a cut of JSON is JSON and no longer than
//! what it was cut from, but for its cursor.
#![no_main]
use gateway_rules::cut::Cutter;
use gateway_rules::wanted::plan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8], u8)| {
    let (query, document, piece) = input;
    let wanted = ["/v1/home", "/v1/catalog", "/v1/people/x"].map(|path| plan(&format!("{path}?{query}")));
    for wanted in wanted.into_iter().flatten().flatten().filter_map(|plan| plan.wanted) {
        let mut cutter = Cutter::new(wanted.selection.as_ref(), wanted.slice.as_ref());
        let fed = document.chunks(usize::from(piece).max(1)).try_for_each(|piece| cutter.feed(piece));
        let Ok(cut) = fed.and_then(|()| cutter.finish()) else { continue };
        assert!(cut.len() <= document.len() + 2_100);
        if serde_json::from_slice::<serde_json::Value>(document).is_ok() {
            serde_json::from_slice::<serde_json::Value>(&cut).expect("a cut of JSON is JSON");
        }
        wanted.etag(query);
        wanted.if_none_match(query);
    }
});
