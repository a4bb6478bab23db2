//! In which order the tiers outside the isolate are asked, and what that must not change.
mod world;

use kv_schemas::PurgeMode;
use surrogate_cache::lookup::Tier;
use surrogate_cache::{Event, Phase, Reason, Step};
use world::*;

/// A new isolate that has looked into the location's cache in vain so often that it reads KV first; KV has "v1" of state 0.
fn kv_first() -> World {
    let mut world = warm();
    world.engine.config.colo_in_vain_max = 1;
    world.new_isolate();
    world.colo.clear();
    assert_eq!(brief(world.get()), got(Phase::Hit, "v1"));
    world.colo.clear();
    world.engine.forget("GET /x");
    world
}

fn tiers_read(world: &mut World) -> Vec<Tier> {
    let (mut lookup, mut step) = world.start(request(&[]));
    let mut tiers = Vec::new();
    while let Step::Read { tier, key } = step {
        tiers.push(tier);
        let held = if tier == Tier::Kv { &world.kv } else { &world.colo };
        let found = held.get(&key).cloned();
        step = lookup.step(&mut world.engine, Event::Read(found), world.now_ms);
    }
    world.finish(&mut lookup, step);
    tiers
}

#[test]
fn where_the_locations_cache_never_has_anything_a_hit_reads_kv_alone_and_writes_nothing_there() {
    let mut world = kv_first();
    assert_eq!(tiers_read(&mut world), [Tier::Kv]);
    assert!(world.colo.is_empty());
}

#[test]
fn some_ask_it_all_the_same_and_a_find_brings_everybody_back() {
    let mut world = kv_first();
    let asked = (0..400).filter(|_| {
        world.engine.forget("GET /x");
        world.colo.clear();
        tiers_read(&mut world) == [Tier::Colo, Tier::Kv]
    });
    assert_eq!(asked.count(), 6);
    // Who asked left there what KV had.
    let firsts: Vec<_> = (0..160)
        .map(|_| {
            world.engine.forget("GET /x");
            tiers_read(&mut world)[0]
        })
        .collect();
    let back = firsts.iter().position(|tier| *tier == Tier::Colo).unwrap();
    assert!(firsts[back + 64..].iter().all(|tier| *tier == Tier::Colo), "{firsts:?}");
}

#[test]
fn what_kv_shows_too_late_the_location_may_know_already() {
    for mode in [PurgeMode::Soft, PurgeMode::Hard] {
        let mut world = kv_first();
        world.purge(1, mode, &["a"]);
        world.now_ms += 5_000;
        world.sync();
        // Another isolate of the location has fetched the page; KV still shows the old one.
        let mut other = warm();
        (other.now_ms, other.journal) = (world.now_ms, world.journal.clone());
        other.sync();
        other.engine.forget("GET /x");
        other.colo.clear();
        other.kv.clear();
        other.serve("v2", 1, FRESH);
        assert_eq!(brief(other.get()), got(Phase::Miss, "v2"));
        world.colo = other.colo;
        assert_eq!(brief(world.get()), got(Phase::Hit, "v2"), "{mode:?}");
    }
}

#[test]
fn what_was_read_ahead_is_not_read_again_and_is_what_a_failing_origin_leaves() {
    let mut world = kv_first();
    world.purge(1, PurgeMode::Soft, &["a"]);
    world.now_ms += 5_000;
    world.sync();
    assert_eq!(tiers_read(&mut world), [Tier::Kv, Tier::Colo]);
    let mut world = kv_first();
    world.purge(1, PurgeMode::Soft, &["a"]);
    world.now_ms += 5_000;
    world.sync();
    world.origin = None;
    let got = world.get();
    assert_eq!((got.phase, got.reason, got.body), (Phase::StaleError, Some(Reason::PurgedSoft), Some("v1")));
}

#[test]
fn variants_are_found_behind_a_marker_that_was_read_ahead() {
    let mut world = World::new(surrogate_cache::LogOwner::Origin);
    let fields: Vec<_> = FRESH.iter().copied().chain([("vary", "x-kind")]).collect();
    world.serve("of one", 0, &fields);
    assert_eq!(brief(world.ask(request(&[("x-kind", "1")]))), got(Phase::Miss, "of one"));
    world.engine.config.colo_in_vain_max = 0;
    world.new_isolate();
    world.colo.clear();
    assert_eq!(brief(world.ask(request(&[("x-kind", "1")]))), got(Phase::Hit, "of one"));
    assert_eq!(world.ask(request(&[("x-kind", "2")])).phase, Phase::Miss);
}

#[test]
fn what_was_read_ahead_of_the_url_says_nothing_of_its_variant() {
    let mut world = World::new(surrogate_cache::LogOwner::Origin);
    let fields: Vec<_> = FRESH.iter().copied().chain([("vary", "x-kind")]).collect();
    world.serve("of one", 0, &fields);
    assert_eq!(brief(world.ask(request(&[("x-kind", "1")]))), got(Phase::Miss, "of one"));
    world.engine.config.colo_in_vain_max = 1;
    world.new_isolate();
    // One look in vain; then the location has the marker alone, and KV the variant alone.
    let (colo, kv) = (std::mem::take(&mut world.colo), std::mem::take(&mut world.kv));
    let origin = world.origin.take();
    assert_eq!(world.get().phase, Phase::Failed);
    world.origin = origin;
    world.colo = colo.into_iter().filter(|(_, entry)| entry.is_marker()).collect();
    world.kv = kv.into_iter().filter(|(_, entry)| !entry.is_marker()).collect();
    assert_eq!(brief(world.ask(request(&[("x-kind", "1")]))), got(Phase::Hit, "of one"));
}
