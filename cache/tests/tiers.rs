//! In which order the tiers outside the isolate are asked, and what that must not change.
mod world;

use kv_schemas::PurgeMode;
use surrogate_cache::lookup::Tier;
use surrogate_cache::{Event, Lookup, Phase, Reason, Step};
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
    let asked = (0..1_600).filter(|_| {
        world.engine.forget("GET /x");
        world.colo.clear();
        tiers_read(&mut world) == [Tier::Colo, Tier::Kv]
    });
    assert_eq!(asked.count(), 6);
    // Who asked left there what KV had.
    let firsts: Vec<_> = (0..640)
        .map(|_| {
            world.engine.forget("GET /x");
            tiers_read(&mut world)[0]
        })
        .collect();
    let back = firsts.iter().position(|tier| *tier == Tier::Colo).unwrap();
    assert!(firsts[back + 256..].iter().all(|tier| *tier == Tier::Colo), "{firsts:?}");
}

/// A request that reads KV before anything else: how it goes on once KV has answered, after what happened meanwhile.
fn ahead_of_all(
    world: &mut World,
    meanwhile: impl FnOnce(&mut World),
) -> Result<Body, Box<(Lookup<Body>, Step<Body>)>> {
    const KEY: &str = "GET /x";
    assert!(world.engine.reads_kv_first(KEY, world.now_ms));
    let found = world.kv.get(KEY).cloned();
    meanwhile(world);
    let found = match world.engine.hit_in_kv(KEY, found, world.now_ms) {
        Ok(entry) => return Ok(entry.body),
        Err(found) => found.map(|entry| *entry),
    };
    let mut lookup = Lookup::new(request(&[])).with_kv(found);
    let step = lookup.step(&mut world.engine, Event::Start, world.now_ms);
    Err(Box::new((lookup, step)))
}

#[test]
fn who_reads_kv_before_anything_else_is_answered_if_that_is_fresh_and_keeps_it() {
    let mut world = kv_first();
    assert_eq!(ahead_of_all(&mut world, |_| ()).ok(), Some("v1"));
    assert!(world.colo.is_empty() && !world.engine.fills.is_filling("GET /x", world.now_ms));
    let memory = world.engine.slot("GET /x", true).and_then(|slot| world.engine.hit(slot, world.now_ms));
    assert_eq!(memory.map(|entry| entry.body), Some("v1"));
}

#[test]
fn what_was_purged_while_kv_was_read_is_judged_by_that() {
    for mode in [PurgeMode::Soft, PurgeMode::Hard] {
        let mut world = kv_first();
        let (mut lookup, step) = *ahead_of_all(&mut world, |world| {
            world.purge(1, mode, &["a"]);
            world.now_ms += 2_000;
            world.sync();
        })
        .unwrap_err();
        // KV is not asked twice.
        assert!(matches!(step, Step::Read { tier: Tier::Colo, .. }), "{step:?}");
        world.serve("v2", 1, FRESH);
        assert_eq!(world.finish(&mut lookup, step).body, Some("v2"), "{mode:?}");
    }
}

#[test]
fn a_view_that_grew_too_old_while_kv_was_read_is_synced_before_that_is_judged() {
    let mut world = kv_first();
    let (mut lookup, step) = *ahead_of_all(&mut world, |world| world.now_ms += 2_000).unwrap_err();
    assert!(matches!(step, Step::Sync { .. }), "{step:?}");
    world.purge(1, PurgeMode::Hard, &["a"]);
    world.serve("v2", 1, FRESH);
    assert_eq!(brief(world.finish(&mut lookup, step)), got(Phase::Expired, "v2"));
    // Nothing was purged: then what KV had is the answer, without another read.
    let mut world = kv_first();
    let (mut lookup, step) = *ahead_of_all(&mut world, |world| world.now_ms += 2_000).unwrap_err();
    world.kv.clear();
    assert_eq!(brief(world.finish(&mut lookup, step)), got(Phase::Hit, "v1"));
}

#[test]
fn who_found_nothing_in_kv_waits_for_who_fetches_and_is_given_that() {
    let mut world = kv_first();
    world.kv.clear();
    world.serve("v2", 0, FRESH);
    let mut first = None;
    let (mut lookup, step) = *ahead_of_all(&mut world, |world| {
        let (mut other, step) = world.start(request(&[]));
        let fetch = world.until_fetch(&mut other, step);
        first = Some((other, fetch));
    })
    .unwrap_err();
    assert!(matches!(step, Step::Wait { .. }), "{step:?}");
    let (mut other, fetch) = first.unwrap();
    assert_eq!(brief(world.finish(&mut other, fetch)), got(Phase::Miss, "v2"));
    assert_eq!(brief(world.finish(&mut lookup, step)), got(Phase::Hit, "v2"));
    assert_eq!(world.fetches.len(), 2, "the first made the page");
}

#[test]
fn what_somebody_fetched_while_kv_was_read_is_not_replaced_by_what_that_had() {
    let mut world = kv_first();
    let (mut lookup, step) = *ahead_of_all(&mut world, |world| {
        world.kv.clear();
        world.serve("v2", 3, FRESH);
        assert_eq!(brief(world.get()), got(Phase::Miss, "v2"));
    })
    .unwrap_err();
    assert_eq!(brief(world.finish(&mut lookup, step)), got(Phase::Hit, "v2"));
}

#[test]
fn variants_parts_and_answers_made_for_each_client_are_no_plain_hits_in_kv() {
    let mut world = kv_first();
    world.kv.get_mut("GET /x").unwrap().varies_on.push("x-kind".into());
    assert!(ahead_of_all(&mut world, |_| ()).is_err());
    let mut world = kv_first();
    world.kv.get_mut("GET /x").unwrap().head.fields.push("set-cookie", "a=b");
    assert!(ahead_of_all(&mut world, |_| ()).is_err());
    let mut world = kv_first();
    world.kv.get_mut("GET /x").unwrap().key = "GET /y".into();
    assert!(ahead_of_all(&mut world, |_| ()).is_err(), "another page under the same hash");
}

#[test]
fn kv_is_not_first_where_there_is_something_better_to_do() {
    let mut world = kv_first();
    let is_first = |world: &mut World| world.engine.reads_kv_first("GET /x", world.now_ms);
    assert!(is_first(&mut world));
    let (mut other, step) = world.start(request(&[]));
    assert!(!is_first(&mut world), "somebody reads it for all");
    world.finish(&mut other, step);
    assert!(!is_first(&mut world), "it is in memory");
    world.engine.forget("GET /x");
    assert!(is_first(&mut world));
    world.now_ms += 1_001;
    assert!(!is_first(&mut world), "past the lease somebody has to sync");
    world.sync();
    assert!(is_first(&mut world));
    // Some ask the location all the same, which is for a lookup to do.
    assert!((0..800).filter(|_| is_first(&mut world)).count() < 256);
    assert_eq!(tiers_read(&mut world), [Tier::Colo, Tier::Kv]);
    world.engine.forget("GET /x");
    world.colo.clear();
    assert!(is_first(&mut world));
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
