//! The parts of the hit path that are measured, each with what it needs made beforehand. `main.rs` runs one of them under
//! an instruction counter, `benches/times.rs` all of them with a clock.
#![forbid(unsafe_code)]

use kv_schemas::claims::{AUDIENCE_EDGE, EdgeClaims, ISSUER, Scope};
use kv_schemas::entry::{EntryHead, PREFIX_BYTES};
use kv_schemas::journal::{DeltaPurge, JournalClock, JournalDelta};
use kv_schemas::surrogate_key::{hash, hash_lists};
use kv_schemas::{AsOf, KeyHash, LogId, PerClass, PurgeMode, Seq};
use std::hint::black_box;
use surrogate_cache::directives::RequestDirectives;
use surrogate_cache::entry::Stamp;
use surrogate_cache::phase::CacheStatus;
use surrogate_cache::policy::ResponseHead;
use surrogate_cache::vary::variant_key;
use surrogate_cache::{
    Config, Engine, Entry, Event, Fields, JournalView, Lookup, Phase, Request, Rules, conditional, entry,
};
use tokens::{Expect, KeySet, SigningKey};

const NOW_MS: u64 = 1_700_000_000_000;
const NOW_S: u64 = NOW_MS / 1000;

/// One thing that is measured. What it returns counts its runs.
pub struct Case {
    pub name: &'static str,
    pub run: Box<dyn FnMut() -> u64>,
}

fn case(name: &'static str, run: impl FnMut() -> u64 + 'static) -> Case {
    Case { name, run: Box::new(run) }
}

fn log() -> LogId {
    LogId::new("log").expect("a log id")
}

/// What the journal tells of purges of `keys` other keys.
fn delta(since: Seq, keys: u64) -> JournalDelta {
    let purges: Vec<_> = (0..keys)
        .map(|n| DeltaPurge {
            seq: since + n + 1,
            mode: if n % 2 == 0 { PurgeMode::Soft } else { PurgeMode::Hard },
            all: false,
            keys: vec![hash(&format!("purged-{n}"))],
        })
        .collect();
    let head = since + keys;
    let clock = JournalClock { epoch: 1, at_ms: 0 };
    JournalDelta { log_id: log(), clock, head, floors: PerClass::default(), until: head, purges }
}

fn view(keys: u64) -> JournalView {
    let mut view = JournalView::new(200_000);
    let asked = view.query("here");
    view.apply(&asked, &delta(0, keys), NOW_MS);
    view
}

fn keys(count: usize) -> Vec<KeyHash> {
    let mut keys: Vec<_> = (0..count).map(|n| hash(&format!("key-{n}"))).collect();
    keys.sort_unstable();
    keys
}

fn head() -> ResponseHead {
    let fields: Fields = [
        ("content-type", "application/json"),
        ("cache-control", "public, max-age=60, stale-while-revalidate=600"),
        ("etag", "\"a-page\""),
        ("date", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ("vary", "accept-encoding"),
    ]
    .into_iter()
    .collect();
    ResponseHead { status: 200, fields, request_time_ms: NOW_MS, response_time_ms: NOW_MS }
}

/// An isolate that knows 1,000 purged keys and holds one page with 20 others.
fn engine() -> Engine<Vec<u8>> {
    let mut engine: Engine<Vec<u8>> = Engine::new(Config::default());
    let asked = engine.view.query("here");
    engine.sync_succeeded(&asked, &delta(0, 1_000), NOW_MS, NOW_MS);
    let stamp = Stamp { key: "GET /v1/home".into(), as_of: Some(AsOf::new(log(), 1_000)), keys: keys(20) };
    engine.keep(std::sync::Arc::new(Entry::new(stamp, head(), Rules::default(), Vec::new(), 9_800)));
    engine
}

/// The head of a page as a tier has it.
fn kv_bytes() -> Vec<u8> {
    let ResponseHead { status, mut fields, request_time_ms, response_time_ms } = head();
    fields.push("surrogate-key", (0..20).map(|n| format!("title:{n}")).collect::<Vec<_>>().join(" "));
    let key = entry::key_about(";region=DE;locale=de;maturity=18;plan=none", "/v1/home");
    let keys = entry::surrogate_keys(&key, &fields).expect("keys");
    let as_of = Some(AsOf::new(log(), 1_000));
    let (body_bytes, varies_on) = (9_800, Vec::new());
    let head = EntryHead { key, status, fields, as_of, request_time_ms, response_time_ms, body_bytes, varies_on, keys };
    head.encode().expect("a head")[PREFIX_BYTES..].to_vec()
}

fn request(fields: &[(&str, &str)]) -> Request {
    Request {
        key: entry::key_of("/v1/home"),
        is_head: false,
        fields: fields.iter().copied().collect(),
        directives: RequestDirectives::default(),
        min_as_of: None,
    }
}

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let mut isolate = engine();
    all.push(case("lookup: a hit in memory", move || {
        let fields = [("accept-encoding", "gzip, br"), ("if-none-match", "\"another\"")];
        let mut lookup = Lookup::new(request(&fields));
        black_box(lookup.step(&mut isolate, Event::Start, NOW_MS));
        1
    }));
    let mut isolate = engine();
    let slot = isolate.slot("GET /v1/home", true).expect("a slot");
    all.push(case("lookup: a hit by its slot", move || u64::from(isolate.hit(black_box(slot), NOW_MS).is_some())));
    let mut isolate = engine();
    all.push(case("lookup: a miss, to the first read", move || {
        let mut lookup = Lookup::new(Request { key: entry::key_of("/v1/other"), ..request(&[]) });
        black_box(lookup.step(&mut isolate, Event::Start, NOW_MS));
        lookup.cancel(&mut isolate);
        1
    }));
    let tier = kv_bytes();
    all.push(case("entry: out of a tier's bytes, 20 keys", move || {
        let head = EntryHead::decode(black_box(&tier), 9_800).expect("an entry");
        u64::from(Entry::from_stored(head, Rules::default(), Vec::<u8>::new()).is_some())
    }));
    for (name, known) in [
        ("view of 10: the rule, 20 keys", 10),
        ("view of 1,000: the rule, 20 keys", 1_000),
        ("view of 100,000: the rule, 20 keys", 100_000),
    ] {
        let (view, as_of, keys) = (view(known), AsOf::new(log(), known), keys(20));
        all.push(case(name, move || {
            black_box(view.judge(Some(black_box(&as_of)), black_box(&keys)));
            1
        }));
    }
    let (known, as_of, hundred) = (view(1_000), AsOf::new(log(), 1_000), keys(100));
    all.push(case("view of 1,000: the rule, 100 keys", move || {
        black_box(known.judge(Some(&as_of), black_box(&hundred)));
        1
    }));
    let (mut learning, mut seq) = (view(1_000), 1_000);
    all.push(case("view: learns 100 purges", move || {
        let asked = learning.query("here");
        learning.apply(&asked, &delta(seq, 100), NOW_MS);
        seq += 100;
        1
    }));
    let varies_on = vec!["accept-language".to_string(), "x-kind".to_string()];
    let fields: Fields = [("accept-language", "de-AT, de;q=0.8, en;q=0.5"), ("x-kind", "1")].into_iter().collect();
    all.push(case("key: a variant's", move || {
        black_box(variant_key("GET /v1/home", &varies_on, &fields));
        1
    }));
    let list = (0..20).map(|n| format!("key-{n}")).collect::<Vec<_>>().join(" ");
    all.push(case("key: 20 surrogate keys of an answer", move || {
        black_box(hash_lists(Some(black_box(&list)), None)).map_or(0, |keys| keys.len() as u64)
    }));
    all.push(case("fields: Cache-Status", || {
        let status = CacheStatus { tier: Some("memory"), ttl_s: Some(59), ..CacheStatus::new(Phase::Hit) };
        black_box(status.render("nextream-edge")).len() as u64
    }));
    let stored = head();
    let asked: Fields = [("if-none-match", "\"b\", W/\"c\", \"a-page\"")].into_iter().collect();
    all.push(case("fields: If-None-Match", move || {
        u64::from(conditional::is_not_modified(black_box(&asked), &stored))
    }));
    let key = SigningKey::from_random("k", &[7; 32]).expect("a key");
    let known = KeySet::from_jwks(&key.public_jwks().expect("keys")).expect("keys");
    let claims = EdgeClaims { iss: ISSUER.into(), aud: AUDIENCE_EDGE.into(), scope: Scope::Metrics, body_sha256: None };
    let token = key.sign(claims, NOW_S, 60).expect("a token");
    all.push(case("token: ES256 checked", move || {
        let expect = Expect { issuer: ISSUER, audience: AUDIENCE_EDGE, lifetime_s_max: 60 };
        u64::from(known.verify::<EdgeClaims>(black_box(&token), expect, NOW_S).is_ok())
    }));
    all
}
