//! A day of an isolate's life. Alone in its process, whose memory it counts.
mod world;

use cap::Cap;
use kv_schemas::PurgeMode;
use std::alloc::System;
use surrogate_cache::engine::Config;
use surrogate_cache::{Engine, LogOwner};
use world::traffic::{Random, Zipf};
use world::*;

/// Knows how many bytes are allocated.
#[global_allocator]
static ALLOCATED: Cap<System> = Cap::new(System, usize::MAX);

#[test]
fn a_day_of_traffic_leaves_no_more_in_memory_than_its_first_three_hours() {
    const PAGES: usize = 3_000;
    let mut world = World::new(LogOwner::Origin);
    world.engine = Engine::new(Config {
        memory_entries_max: 500,
        memory_bytes_max: 500_000,
        view_keys_max: 1_000,
        ..world.engine.config.clone()
    });
    let zipf = Zipf::new(PAGES, 0.9);
    let mut random = Random(4);
    let mut seq = 0;
    world.serve("page", seq, FRESH);
    let mut by_hour = Vec::new();
    for second in 0..24 * 3600u64 {
        world.now_ms += 1000;
        if second % 5 == 0 {
            seq += 1;
            let key = format!("title:{}", random.next() % 100_000);
            let mode = if random.next().is_multiple_of(2) { PurgeMode::Soft } else { PurgeMode::Hard };
            world.purge(seq, mode, &[key.as_str(), "a"]);
            world.serve("page", seq, FRESH);
        }
        for _ in 0..5 {
            let mut asked = request(&[]);
            asked.key = format!("GET /{}", zipf.rank(&mut random));
            if let Some(slot) = world.engine.slot(&asked.key, true) {
                world.engine.hit(slot, world.now_ms);
            } else {
                world.engine.forget_slots();
            }
            world.ask(asked);
        }
        // What stands for other machines is no part of the isolate.
        world.colo.clear();
        world.kv.clear();
        world.fetches.clear();
        world.journal.as_mut().unwrap().retain(|purge| purge.seq + 10 > seq);
        if second % 3600 == 3599 {
            world.engine.forget_slots();
            by_hour.push(ALLOCATED.allocated());
        }
        assert!(world.engine.memory_len() <= 500 && world.engine.view.keys_len() <= 1_000);
        assert!(world.engine.fills.len() <= 2_000, "{} marks", world.engine.fills.len());
    }
    println!("allocated after each hour, kB: {:?}", by_hour.iter().map(|bytes| bytes / 1000).collect::<Vec<_>>());
    let early = by_hour[..3].iter().max().unwrap();
    let late = by_hour[3..].iter().max().unwrap();
    assert!(*late < early + early / 10, "{by_hour:?}");
}
