//! The lookup machine and origin's confirmations: what a 304 may bring into what is stored, and what it may not. One
//! fact a test.
mod world;

use kv_schemas::PurgeMode;
use kv_schemas::surrogate_key::hash;
use std::time::{Duration, UNIX_EPOCH};
use surrogate_cache::{Answer, Config, Engine, Fields, LogOwner, Phase, Reason, Request, Rules, Step};
use world::*;

const TAG: (&str, &str) = ("etag", "\"a\"");

/// A world whose isolate holds "v1", read at seq 0 with these fields and expired by now.
fn expired(fields: &[(&str, &str)]) -> World {
    let mut world = World::new(LogOwner::Origin);
    world.serve("v1", 0, fields);
    world.get();
    world.now_ms += 100_000;
    world
}

/// Origin confirms from now on, with these fields.
fn confirm(world: &mut World, fields: &[(&str, &str)]) {
    world.serve("", 0, fields);
    world.origin.as_mut().unwrap().0 = 304;
}

/// Asks, and returns the answer that goes out.
fn answer(world: &mut World, request: Request) -> Answer<Body> {
    let (mut lookup, step) = world.start(request);
    let Step::Fetch(fetch) = world.until_fetch(&mut lookup, step) else { panic!("no fetch") };
    let Step::Answer(answer) = world.answer_fetch(&mut lookup, fetch) else { panic!("no answer") };
    *answer
}

/// What every tier holds of `/x`.
fn held(world: &World) -> Vec<Fields> {
    let tiers = [world.engine.recall("GET /x"), world.colo.get("GET /x").cloned().map(Into::into)];
    let kv = world.kv.get("GET /x").cloned().map(Into::into);
    tiers.into_iter().chain([kv]).flatten().map(|entry| entry.head.fields.clone()).collect()
}

#[test]
fn a_304_with_another_weak_tag_is_used_once_and_changes_nothing() {
    for (tag, is_learnt) in [("W/\"a\"", true), ("W/\"b\"", false)] {
        let mut world = expired(&[("cache-control", "max-age=1"), TAG]);
        confirm(&mut world, &[("cache-control", "max-age=60"), ("etag", tag)]);
        assert_eq!(brief(world.get()), (Phase::Revalidated, Some("v1")));
        let phase = if is_learnt { Phase::Hit } else { Phase::Revalidated };
        assert_eq!(brief(world.get()), (phase, Some("v1")), "{tag}");
    }
}

#[test]
fn age_counts_from_the_confirmation() {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    for stored in [("age", "90"), ("date", date.as_str())] {
        let mut world = expired(&[("cache-control", "max-age=60"), TAG, stored]);
        confirm(&mut world, &[TAG]);
        assert_eq!(brief(world.get()), (Phase::Revalidated, Some("v1")));
        assert_eq!(brief(world.get()), (Phase::Hit, Some("v1")), "{stored:?}");
    }
}

#[test]
fn a_304_whose_surrogate_keys_cannot_be_read_is_not_stored() {
    let mut world = expired(&[("cache-control", "max-age=1"), TAG, ("surrogate-key", "a b")]);
    confirm(&mut world, &[("cache-control", "max-age=60"), TAG, ("surrogate-key", "b\u{e9}")]);
    let answer = answer(&mut world, request(&[]));
    assert_eq!(answer.status().stored, Some(Err(Reason::BadSurrogate)));
    world.take(answer);
    let held = world.engine.recall("GET /x").unwrap();
    assert!(held.keys.contains(&hash("a")), "what is held can still be purged");
}

#[test]
fn a_304_whose_surrogate_keys_cannot_be_read_is_judged_by_the_stored_ones() {
    let mut world = expired(&[("cache-control", "max-age=1"), TAG, ("surrogate-key", "a b")]);
    let (mut lookup, step) = world.start(request(&[]));
    let Step::Fetch(fetch) = world.until_fetch(&mut lookup, step) else { panic!("no fetch") };
    world.purge(1, PurgeMode::Hard, &["a"]);
    world.sync();
    confirm(&mut world, &[("cache-control", "max-age=60"), TAG, ("surrogate-key", "b\u{e9}")]);
    let step = world.answer_fetch(&mut lookup, fetch);
    assert!(matches!(step, Step::Fetch(_)), "purged meanwhile: {step:?}");
}

#[test]
fn a_field_the_stored_answer_keeps_to_its_viewer_is_not_taken_over_from_a_304() {
    for (directive, name) in [("no-cache=\"set-cookie\"", "set-cookie"), ("private=\"x-user\"", "x-user")] {
        for is_head in [false, true] {
            let control = format!("max-age=1, {directive}");
            let mut world = expired(&[("cache-control", &control), TAG, (name, "A")]);
            confirm(&mut world, &[TAG, (name, "B")]);
            if is_head {
                world.origin.as_mut().unwrap().0 = 200;
            }
            world.ask(Request { is_head, ..request(&[]) });
            let held = held(&world);
            assert_eq!(held.len(), 3);
            assert!(held.iter().all(|fields| !fields.has(name)), "{name}, HEAD {is_head}: {held:?}");
        }
    }
}

#[test]
fn a_304_that_sets_a_cookie_is_its_own_viewers_alone() {
    for store_set_cookie in [false, true] {
        let mut world = World::new(LogOwner::Origin);
        let rules = Rules { store_set_cookie, ..Rules::default() };
        world.engine = Engine::new(Config { rules, ..world.engine.config.clone() });
        world.serve("v1", 0, &[("cache-control", "max-age=1"), TAG]);
        world.get();
        world.now_ms += 100_000;
        confirm(&mut world, &[("cache-control", "max-age=60"), TAG, ("set-cookie", "s=B")]);
        let answer = answer(&mut world, request(&[]));
        assert_eq!(answer.fields().get("set-cookie"), Some("s=B"));
        world.take(answer);
        assert!(held(&world).iter().all(|fields| fields.has("set-cookie") == store_set_cookie));
    }
}

#[test]
fn a_304_with_another_vary_does_not_leave_the_answer_to_requests_it_was_not_made_for() {
    let table: [(&[(&str, &str)], &str); 4] =
        [(&[], "x"), (&[("vary", "x")], "x, y"), (&[("vary", "x")], "y"), (&[("vary", "y")], "x")];
    for (before, after) in table {
        let of = |x: &'static str, y: &'static str| request(&[("x", x), ("y", y)]);
        let mut world = World::new(LogOwner::Origin);
        world.serve("v1", 0, &[&[("cache-control", "max-age=1"), TAG], before].concat());
        world.ask(of("1", "1"));
        world.now_ms += 100_000;
        confirm(&mut world, &[("cache-control", "max-age=60"), TAG, ("vary", after)]);
        assert_eq!(brief(world.ask(of("1", "1"))), (Phase::Revalidated, Some("v1")));
        assert_eq!(brief(world.ask(of("1", "1"))), (Phase::Hit, Some("v1")), "it is kept for its like: {after}");
        world.serve("other", 0, &[("cache-control", "max-age=60"), ("vary", after)]);
        let other = world.ask(if after == "y" { of("1", "2") } else { of("2", "1") });
        assert_eq!(other.body, Some("other"), "{before:?}, then {after}");
    }
}

#[test]
fn a_304_with_vary_star_leaves_nothing_in_memory() {
    let mut world = expired(&[("cache-control", "max-age=1"), TAG]);
    confirm(&mut world, &[("cache-control", "max-age=60"), TAG, ("vary", "*")]);
    assert_eq!(brief(world.get()), (Phase::Revalidated, Some("v1")));
    assert!(world.engine.recall("GET /x").is_none());
}
