//! The lookup machine and what is one viewer's own: it lives in the memory of an isolate and nowhere else. One fact a
//! test.
mod world;

use kv_schemas::PurgeMode::{Hard, Soft};
use surrogate_cache::entry::key_about;
use surrogate_cache::{LogOwner, Phase, Reason, Request, Step};
use world::*;

/// As an origin sends it: the browser's policy says private, the edge's own a lifetime.
const OWN: &[(&str, &str)] = &[
    ("cache-control", "private, no-cache"),
    ("cdn-cache-control", "max-age=30, stale-if-error=60"),
    ("etag", "\"e\""),
    ("surrogate-key", "title:1"),
];

fn of(viewer: &str) -> Request {
    Request { key: key_about(&format!(";viewer={viewer};session=s"), "/v1/me"), ..request(&[]) }
}

fn world_of(viewer: &str, body: Body) -> World {
    let mut world = World::new(LogOwner::Origin);
    world.serve(body, 0, OWN);
    assert_eq!(brief(world.ask(of(viewer))), got(Phase::Miss, body));
    world
}

#[test]
fn it_is_answered_from_memory_to_its_viewer_alone_and_written_to_no_tier() {
    let mut world = world_of("ada", "ada's");
    assert_eq!(brief(world.ask(of("ada"))), got(Phase::Hit, "ada's"));
    assert!(world.colo.is_empty() && world.kv.is_empty());
    world.serve("bob's", 0, OWN);
    assert_eq!(brief(world.ask(of("bob"))), got(Phase::Miss, "bob's"));
    assert_eq!(brief(world.ask(of("ada"))), got(Phase::Hit, "ada's"));
}

#[test]
fn a_confirmed_one_stays_in_memory_too() {
    let mut world = world_of("ada", "ada's");
    world.now_ms += 31_000;
    world.origin = Some((304, vec![("surrogate-as-of".into(), "log:0".into()), ("etag".into(), "\"e\"".into())], ""));
    assert_eq!(brief(world.ask(of("ada"))), got(Phase::Revalidated, "ada's"));
    assert!(world.colo.is_empty() && world.kv.is_empty());
}

#[test]
fn what_lies_in_a_tier_under_a_private_key_is_not_even_read() {
    let mut world = world_of("ada", "ada's");
    let planted = world.engine.recall(&of("ada").key).unwrap();
    world.new_isolate();
    world.colo.insert(planted.key.clone(), (*planted).clone());
    world.kv.insert(planted.key.clone(), (*planted).clone());
    world.serve("new", 0, OWN);
    let (mut lookup, step) = world.start(of("ada"));
    let Step::Sync { .. } = step else { panic!("{step:?}") };
    world.sync();
    let step = lookup.step(&mut world.engine, surrogate_cache::Event::Synced, world.now_ms);
    assert!(matches!(step, Step::Fetch(_)), "{step:?}");
}

#[test]
fn its_viewers_purge_reaches_it_whatever_keys_origin_named() {
    let mut world = world_of("ada", "old");
    world.serve("new", 1, OWN);
    world.purge(1, Hard, &["viewer:bob"]);
    world.sync();
    assert_eq!(brief(world.ask(of("ada"))), got(Phase::Hit, "old"));
    world.serve("new", 2, OWN);
    world.purge(2, Hard, &["viewer:ada"]);
    world.sync();
    let after = world.ask(of("ada"));
    assert_eq!((after.reason, after.body), (Some(Reason::PurgedHard), Some("new")));
}

#[test]
fn a_fill_begun_before_its_viewers_write_is_never_fresh_after_it() {
    let mut world = World::new(LogOwner::Origin);
    world.serve("before", 1, OWN);
    world.purge(1, Soft, &["x"]);
    let (mut slow, step) = world.start(of("ada"));
    let step = world.until_fetch(&mut slow, step);
    // The write passes through this isolate, and its answer says that the log has come to 5.
    world.engine.view.learn(&"log:5".parse().unwrap(), kv_schemas::surrogate_key::hash("viewer:ada"));
    world.engine.forget_viewer("ada");
    let Step::Fetch(fetch) = step else { panic!("{step:?}") };
    let step = world.answer_fetch(&mut slow, fetch);
    let Step::Fetch(again) = step else { panic!("an answer of before the write was taken: {step:?}") };
    assert_eq!(again.min_as_of.as_ref().map(ToString::to_string).as_deref(), Some("log:5"));
    world.serve("after", 5, OWN);
    assert_eq!(world.finish(&mut slow, Step::Fetch(again)).body, Some("after"));
}

#[test]
fn a_read_under_way_during_a_write_that_purges_nothing_is_not_kept() {
    let mut world = World::new(LogOwner::Origin);
    world.serve("before", 1, OWN);
    let (mut slow, step) = world.start(of("ada"));
    let Step::Fetch(fetch) = world.until_fetch(&mut slow, step) else { panic!("no fetch") };
    // Progress is written often and purges seldom: origin's state stays what it was.
    world.engine.forget_viewer("ada");
    let step = world.answer_fetch(&mut slow, fetch);
    assert_eq!(world.finish(&mut slow, step).body, Some("before"), "whoever asked before has what was then");
    world.now_ms += 10;
    world.serve("after", 1, OWN);
    assert_eq!(brief(world.ask(of("ada"))), got(Phase::Miss, "after"));
    assert_eq!(brief(world.ask(of("ada"))), got(Phase::Hit, "after"));
}

#[test]
fn what_came_before_a_write_is_told_without_a_clock() {
    // By less than a lease, which nobody notices, and by more.
    for back_ms in [0, 500, 100_000] {
        let mut world = World::new(LogOwner::Origin);
        world.serve("before", 1, OWN);
        let (mut slow, step) = world.start(of("ada"));
        let Step::Fetch(fetch) = world.until_fetch(&mut slow, step) else { panic!("no fetch") };
        let step = world.answer_fetch(&mut slow, fetch);
        world.now_ms -= back_ms;
        world.engine.forget_viewer("ada");
        world.finish(&mut slow, step);
        world.serve("after", 1, OWN);
        assert_eq!(brief(world.ask(of("ada"))), got(Phase::Miss, "after"), "{back_ms}");
        world.now_ms -= back_ms;
        world.ask(of("ada"));
        world.engine.forget_viewer("ada");
        world.now_ms -= back_ms;
        assert_eq!(brief(world.ask(of("ada"))), got(Phase::Miss, "after"), "{back_ms}");
        assert_eq!(brief(world.ask(of("ada"))), got(Phase::Hit, "after"), "kept from now on, {back_ms}");
    }
}

#[test]
fn its_key_says_whose_it_is_so_a_token_selects_nothing_more() {
    let mut world = World::new(LogOwner::Origin);
    world.serve("ada's", 0, &[OWN, &[("vary", "authorization, accept-encoding")]].concat());
    world.ask(of("ada"));
    assert_eq!(world.engine.memory_len(), 1);
    assert_eq!(brief(world.ask(of("ada"))), got(Phase::Hit, "ada's"));
    world.serve("in German", 0, &[OWN, &[("vary", "authorization, accept-language")]].concat());
    world.ask(of("bob"));
    assert_eq!(world.engine.memory_len(), 3, "what else selects does so still");
}

#[test]
fn a_viewer_is_forgotten_whole_and_alone() {
    let mut world = world_of("ada", "ada's");
    world.serve("bob's", 0, OWN);
    world.ask(of("bob"));
    world.get();
    world.engine.forget_viewer("ada");
    assert!(world.engine.recall(&of("ada").key).is_none());
    assert!(world.engine.recall(&of("bob").key).is_some() && world.engine.memory_len() == 2);
}

#[test]
fn a_soft_purge_makes_nobody_fetch_it_without_its_viewer() {
    let mut world = world_of("ada", "ada's");
    world.purge(1, Soft, &["title:1"]);
    world.sync();
    world.engine.slot(&of("ada").key, true);
    assert!(world.engine.softly_purged(100).is_empty());
}
