//! The memory tier: bounded in entries and bytes, and better than LRU on what viewers ask for and on a scan.
mod world;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use surrogate_cache::engine::Config;
use surrogate_cache::entry::{Stamp, key_about};
use surrogate_cache::policy::ResponseHead;
use surrogate_cache::{Engine, Entry, Fields, Rules};
use world::Body;
use world::traffic::{Random, Zipf};

fn entry(key: &str, body_bytes: u64) -> Arc<Entry<Body>> {
    let fields: Fields = [("cache-control", "max-age=600")].into_iter().collect();
    let head = ResponseHead { status: 200, fields, request_time_ms: 0, response_time_ms: 0 };
    let stamp = Stamp { key: key.into(), as_of: None, keys: vec![] };
    Arc::new(Entry::new(stamp, head, Rules::default(), "", body_bytes))
}

fn engine(entries: usize, bytes: u64) -> Engine<Body> {
    Engine::new(Config { memory_entries_max: entries, memory_bytes_max: bytes, ..Config::default() })
}

/// Least recently used goes first: what most caches do.
struct Lru {
    places: HashMap<usize, u64>,
    order: BTreeMap<u64, usize>,
    tick: u64,
    max: usize,
}

impl Lru {
    fn new(max: usize) -> Self {
        Self { places: HashMap::new(), order: BTreeMap::new(), tick: 0, max }
    }

    fn ask(&mut self, key: usize) -> bool {
        self.tick += 1;
        let before = self.places.insert(key, self.tick);
        if let Some(place) = before {
            self.order.remove(&place);
        }
        self.order.insert(self.tick, key);
        if self.places.len() > self.max {
            let (_, oldest) = self.order.pop_first().unwrap();
            self.places.remove(&oldest);
        }
        before.is_some()
    }
}

/// Shares of hits: the engine's and LRU's.
fn hit_ratios(trace: impl Iterator<Item = usize>, entries: usize) -> (f64, f64) {
    let mut engine = engine(entries, 1024 * entries as u64);
    let mut lru = Lru::new(entries);
    let (mut asked, mut hits, mut lru_hits) = (0u32, 0u32, 0u32);
    for key in trace {
        asked += 1;
        lru_hits += u32::from(lru.ask(key));
        let name = format!("GET /{key}");
        match engine.recall(&name) {
            Some(_) => hits += 1,
            // All weigh the same: as many entries as LRU has.
            None => engine.keep(entry(&name, 0)),
        }
    }
    (f64::from(hits) / f64::from(asked), f64::from(lru_hits) / f64::from(asked))
}

#[test]
fn memory_is_bounded_in_entries_and_in_bytes() {
    let mut random = Random(1);
    for (entries, bytes) in [(100, 10_000_000), (10_000, 1_000_000)] {
        let mut engine = engine(entries, bytes);
        for n in 0..20_000 {
            engine.keep(entry(&format!("GET /{n}"), random.next() % 20_000));
            assert!(engine.memory_len() <= entries, "{} entries", engine.memory_len());
            let (held, own) = engine.memory_bytes();
            assert!(held <= bytes && own == 0, "{held} bytes, {own}");
        }
        assert!(engine.memory_len() * 2 > entries.min(bytes as usize / 10_500), "and it is put to use");
    }
}

#[test]
fn what_is_viewers_own_and_what_all_share_drive_each_other_out_in_neither_way() {
    let config = Config { memory_bytes_max: 1_000_000, memory_own_bytes_max: 300_000, ..Config::default() };
    let (bytes, own_bytes) = (config.memory_bytes_max, config.memory_own_bytes_max);
    let page = |n: u32| format!("GET /{n}");
    let own = |n: u32| key_about(&format!(";viewer=u{n};session=s"), "/v1/me");
    for (few, many) in [(&own as &dyn Fn(u32) -> String, &page as &dyn Fn(u32) -> String), (&page, &own)] {
        let mut engine = Engine::new(config.clone());
        (0..20).for_each(|n| engine.keep(entry(&few(n), 5_000)));
        // Asked for twice and more, so that neither is what a scan leaves.
        for n in 0..5_000 {
            engine.keep(entry(&many(n), 5_000));
            engine.recall(&many(n));
            engine.recall(&many(n / 2));
        }
        let kept = (0..20).filter(|n| engine.recall(&few(*n)).is_some()).count();
        assert_eq!(kept, 20, "{}", few(0));
        let (held, own_held) = engine.memory_bytes();
        assert!(held <= bytes && own_held <= own_bytes, "{held} {own_held}");
        assert!(held > bytes / 2 || own_held > own_bytes / 2, "one is full: {held} {own_held}");
    }
}

#[test]
fn viewers_hit_more_often_than_with_lru() {
    let zipf = Zipf::new(20_000, 0.9);
    let mut random = Random(2);
    let (ours, lru) = hit_ratios((0..400_000).map(|_| zipf.rank(&mut random)), 1_000);
    println!("Zipf 0.9 over 20,000 pages, 1,000 held: {:.1} % hits, LRU {:.1} %", ours * 100.0, lru * 100.0);
    assert!(ours > lru + 0.02, "{ours} {lru}");
}

#[test]
fn a_scan_does_not_drive_out_what_viewers_ask_for() {
    let zipf = Zipf::new(20_000, 0.9);
    let mut random = Random(3);
    // A crawler asks for as much as all viewers do, each page once.
    let trace = (0..400_000).map(|n| if n % 2 == 0 { zipf.rank(&mut random) } else { 1_000_000 + n });
    let (ours, lru) = hit_ratios(trace, 1_000);
    println!("the same and a scan: {:.1} % of all requests hit, LRU {:.1} %", ours * 100.0, lru * 100.0);
    assert!(ours > lru + 0.04, "{ours} {lru}");
}
