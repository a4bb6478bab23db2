//! Surrogate-Key and Cache-Tag: the whole list or nothing, and no key lost when fields are joined.
#![no_main]
use kv_schemas::SurrogateKey;
use kv_schemas::surrogate_key::{hash_lists, url_key};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (spaced, commaed) = input;
    let (left, right) = (hash_lists(Some(spaced), None), hash_lists(None, Some(commaed)));
    if let (Ok(left), Ok(right), Ok(both)) = (&left, &right, hash_lists(Some(spaced), Some(commaed))) {
        assert!(left.iter().chain(right).all(|key| both.contains(key)), "a key is lost");
        assert!(both.is_sorted());
    }
    for word in commaed.split(',') {
        if let Ok(key) = SurrogateKey::new(word) {
            assert!(hash_lists(None, Some(word)).is_ok_and(|keys| keys == [key.hash()]));
        }
    }
    let key = url_key(spaced);
    assert!(SurrogateKey::new(key.as_str()).is_ok());
    if let Some(target) = key.as_str().strip_prefix("url:") {
        assert_eq!(url_key(target), key, "it is written as it stays");
    }
});
