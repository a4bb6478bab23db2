//! The lookup machine and requests that come together: who waits for whose fill, and who must not. One fact a test.
mod world;

use kv_schemas::PurgeMode;
use surrogate_cache::{Event, LogOwner, Lookup, Phase, Request, Step};
use world::*;

const TAG: (&str, &str) = ("etag", "\"a\"");
const VARIED: &[(&str, &str)] =
    &[("cache-control", "max-age=60, stale-while-revalidate=30"), ("surrogate-key", "a"), ("vary", "x")];

/// Up to the fetch, without a wait.
fn fetches_at_once(world: &mut World, request: Request) -> (Lookup<Body>, Step<Body>) {
    let began_ms = world.now_ms;
    let (mut lookup, step) = world.start(request);
    let step = world.until_fetch(&mut lookup, step);
    assert!(matches!(step, Step::Fetch(_)), "{step:?}");
    assert_eq!(world.now_ms, began_ms, "it waited");
    (lookup, step)
}

fn waits(world: &mut World, request: Request) -> (Lookup<Body>, Step<Body>) {
    let (lookup, step) = world.start(request);
    assert!(matches!(step, Step::Wait { .. }), "{step:?}");
    (lookup, step)
}

fn of(x: &'static str) -> Request {
    request(&[("x", x)])
}

#[test]
fn cold_variants_wait_for_their_like_alone() {
    let mut world = World::new(LogOwner::Origin);
    world.serve("one", 0, VARIED);
    world.ask(of("1"));
    let (mut two, step) = fetches_at_once(&mut world, of("2"));
    fetches_at_once(&mut world, of("3"));
    let (mut another, _) = waits(&mut world, of("2"));
    world.serve("two", 0, VARIED);
    assert_eq!(world.finish(&mut two, step).body, Some("two"));
    let step = another.step(&mut world.engine, Event::Waited, world.now_ms);
    assert_eq!(brief(world.finish(&mut another, step)), got(Phase::Hit, "two"));
}

#[test]
fn variants_that_a_tier_tells_of_are_kept_apart_from_then_on() {
    let mut world = World::new(LogOwner::Origin);
    world.serve("one", 0, VARIED);
    world.ask(of("1"));
    world.new_isolate();
    let (mut two, step) = fetches_at_once(&mut world, of("2"));
    fetches_at_once(&mut world, of("3"));
    waits(&mut world, of("2"));
    world.serve("two", 0, VARIED);
    world.finish(&mut two, step);
    assert!(world.engine.fills.len() == 1, "the mark of variant 3 alone is left");
}

#[test]
fn two_requests_for_a_variant_that_learn_of_it_from_a_tier_fetch_once() {
    let mut world = World::new(LogOwner::Origin);
    world.serve("one", 0, VARIED);
    world.ask(of("1"));
    world.new_isolate();
    // The first has the mark of the URL and has yet to hear of its variants; meanwhile another learns of them.
    let (mut first, step) = world.start(of("2"));
    let Step::Sync { .. } = step else { panic!("{step:?}") };
    world.sync();
    let Step::Read { key, .. } = first.step(&mut world.engine, Event::Synced, world.now_ms) else { panic!("no read") };
    let marker = world.colo[&key].clone();
    world.engine.keep(marker.clone().into());
    let (mut second, second_step) = fetches_at_once(&mut world, of("2"));
    let step = first.step(&mut world.engine, Event::Read(Some(marker)), world.now_ms);
    assert!(matches!(step, Step::Wait { .. }), "{step:?}");
    world.serve("two", 0, VARIED);
    world.finish(&mut second, second_step);
    assert_eq!(brief(world.finish(&mut first, step)), got(Phase::Hit, "two"));
    assert!(world.engine.fills.is_empty());
}

#[test]
fn a_soft_purge_refreshes_each_variant_once() {
    let mut world = World::new(LogOwner::Origin);
    for x in ["1", "2"] {
        world.serve(if x == "1" { "one" } else { "two" }, 0, VARIED);
        world.ask(of(x));
    }
    world.purge(1, PurgeMode::Soft, &["a"]);
    world.sync();
    let mut refreshes = Vec::new();
    for x in ["1", "2", "1", "2"] {
        let (_, step) = world.start(of(x));
        let Step::Answer(mut answer) = step else { panic!("{step:?}") };
        refreshes.extend(answer.behind().refresh.take());
    }
    assert_eq!(refreshes.len(), 2);
    for mut refresh in refreshes {
        world.serve("new", 1, VARIED);
        let step = refresh.step(&mut world.engine, Event::Start, world.now_ms);
        world.finish(&mut refresh, step);
    }
    for x in ["1", "2"] {
        assert_eq!(brief(world.ask(of(x))), got(Phase::Hit, "new"), "{x}");
    }
    assert!(world.engine.fills.is_empty(), "every mark is cleared");
}

#[test]
fn an_uncacheable_variant_leaves_the_others_their_fills() {
    let mut world = World::new(LogOwner::Origin);
    world.serve("one", 0, VARIED);
    world.ask(of("1"));
    world.serve("private", 0, &[("cache-control", "private")]);
    world.ask(of("2"));
    fetches_at_once(&mut world, of("3"));
    waits(&mut world, of("3"));
}

#[test]
fn requests_for_what_is_never_fresh_do_not_queue() {
    for control in ["", "max-age=0", "no-cache, max-age=60"] {
        let mut world = World::new(LogOwner::Origin);
        world.serve("v1", 0, &[TAG, ("cache-control", control)]);
        world.get();
        world.now_ms += 1;
        let asked: Vec<_> = (0..3).map(|_| fetches_at_once(&mut world, request(&[]))).collect();
        for (_, step) in asked {
            let Step::Fetch(fetch) = step else { panic!("{step:?}") };
            assert_eq!(fetch.fields, [("if-none-match".to_string(), "\"a\"".to_string())], "{control}");
        }
    }
}

#[test]
fn requests_that_want_origins_own_word_do_not_queue() {
    for control in ["no-cache", "no-store", "max-age=0"] {
        let mut world = warm();
        world.now_ms += 1;
        if control == "no-store" {
            world.engine.forget("GET /x");
            world.colo.clear();
            world.kv.clear();
        }
        for _ in 0..3 {
            fetches_at_once(&mut world, request(&[("cache-control", control)]));
        }
    }
}

#[test]
fn a_304_for_what_is_never_fresh_reaches_memory_and_no_other_tier() {
    for control in ["max-age=0", "no-cache, max-age=60"] {
        let mut world = World::new(LogOwner::Origin);
        let fields = [TAG, ("cache-control", control)];
        world.serve("v1", 0, &fields);
        world.get();
        world.colo.clear();
        world.kv.clear();
        world.now_ms += 500;
        world.serve("", 0, &fields);
        world.origin.as_mut().unwrap().0 = 304;
        assert_eq!(brief(world.get()), (Phase::Revalidated, Some("v1")), "{control}");
        assert!(world.colo.is_empty() && world.kv.is_empty(), "{control}");
        assert_eq!(world.engine.recall("GET /x").unwrap().head.response_time_ms, world.now_ms);
    }
}

#[test]
fn an_uncacheable_key_makes_nobody_wait_for_a_minute() {
    let mut world = World::new(LogOwner::Origin);
    world.serve("private", 0, &[("cache-control", "private")]);
    world.get();
    world.now_ms += 59_000;
    for _ in 0..2 {
        fetches_at_once(&mut world, request(&[]));
    }
    world.now_ms += 2_000;
    fetches_at_once(&mut world, request(&[]));
    waits(&mut world, request(&[]));
}

#[test]
fn an_answer_that_can_be_stored_ends_the_passing() {
    let mut world = World::new(LogOwner::Origin);
    world.serve("private", 0, &[("cache-control", "private")]);
    world.get();
    world.serve("v1", 0, FRESH);
    assert_eq!(world.get().body, Some("v1"));
    assert_eq!(brief(world.get()), got(Phase::Hit, "v1"));
    world.engine.forget("GET /x");
    world.colo.clear();
    world.kv.clear();
    fetches_at_once(&mut world, request(&[]));
    waits(&mut world, request(&[]));
}

#[test]
fn what_is_stale_is_not_shown_again_while_nobody_would_refresh_it() {
    let mut world = warm();
    world.now_ms += 61_000;
    world.sync();
    world.serve("private", 0, &[("cache-control", "private")]);
    assert_eq!(brief(world.get()), got(Phase::Stale, "v1"), "and the refresh behind it proves the key uncacheable");
    assert_eq!(world.get().body, Some("private"));
}

#[test]
fn confirmations_that_cannot_be_stored_make_nobody_wait() {
    for confirmation in [[("etag", "\"a\""), ("set-cookie", "s=B")], [("etag", "\"b\""), ("x", "y")]] {
        let mut world = World::new(LogOwner::Origin);
        world.serve("v1", 0, &[("cache-control", "max-age=1"), TAG]);
        world.get();
        world.now_ms += 5_000;
        world.serve("", 0, &confirmation);
        world.origin.as_mut().unwrap().0 = 304;
        assert_eq!(brief(world.get()), (Phase::Revalidated, Some("v1")));
        for _ in 0..2 {
            fetches_at_once(&mut world, request(&[]));
        }
    }
}
