//! Slots against the lookup: a slot answers exactly what a lookup would answer at once, with nothing to be done behind.
mod world;

use kv_schemas::PurgeMode;
use proptest::prelude::*;
use surrogate_cache::view::Knowledge;
use surrogate_cache::{Answer, LogOwner, Phase, Step};
use world::*;

#[derive(Clone, Debug)]
enum Happens {
    Time(u64),
    Purge(bool, &'static str),
    Sync,
    /// Origin has another page now.
    Edit,
    Forget,
    OtherLog,
    Ask,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (0u64..700).prop_map(Happens::Time),
        (1_000u64..70_000).prop_map(Happens::Time),
        (any::<bool>(), prop_oneof![Just("a"), Just("b"), Just("other")])
            .prop_map(|(hard, key)| Happens::Purge(hard, key)),
        Just(Happens::Sync),
        Just(Happens::Edit),
        Just(Happens::Forget),
        Just(Happens::OtherLog),
        Just(Happens::Ask),
        Just(Happens::Ask),
        Just(Happens::Ask),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_slot_answers_what_a_lookup_would(history in prop::collection::vec(happens(), 1..60)) {
        let mut world = World::new(LogOwner::Origin);
        let slot = world.engine.slot("GET /x", true).unwrap();
        let mut seq = 0;
        // What was answered last, when, and for how long it may be answered again.
        let mut held = None;
        world.serve("v", 0, FRESH);
        for event in history {
            match event {
                Happens::Time(ms) => world.now_ms += ms,
                Happens::Purge(hard, key) => {
                    seq += 1;
                    let mode = if hard { PurgeMode::Hard } else { PurgeMode::Soft };
                    world.purge(seq, mode, &[key]);
                }
                Happens::Sync => world.sync(),
                Happens::Edit => world.serve("w", seq, FRESH),
                Happens::Forget => world.engine.forget("GET /x"),
                Happens::OtherLog => {
                    world.log = if world.log == "log" { "other" } else { "log" };
                    (seq, world.journal) = (0, Some(Vec::new()));
                    world.serve("o", 0, FRESH);
                }
                Happens::Ask => {
                    let now_ms = world.now_ms;
                    let leased = world.engine.knowledge(now_ms) == Knowledge::Leased;
                    let state = world.engine.state();
                    let again = held.filter(|(at, from_ms, until_ms, _)| {
                        *at == state && (*from_ms..*until_ms).contains(&now_ms)
                    });
                    let ready = world.engine.hit(slot, now_ms);
                    if let Some((.., body)) = again {
                        prop_assert_eq!(ready.as_ref().map(|entry| entry.body), Some(body), "held too long");
                    }
                    held = ready.as_ref().map(|entry| {
                        (world.engine.state(), now_ms, world.engine.holds_until(entry), entry.body)
                    });
                    let (mut lookup, step) = world.start(request(&[]));
                    let hit = match &step {
                        Step::Answer(answer) => match &**answer {
                            Answer::Stored { entry, status, behind, .. } if status.phase == Phase::Hit => {
                                Some((entry.body, behind.sync || behind.refresh.is_some()))
                            }
                            _ => None,
                        },
                        _ => None,
                    };
                    match (ready, hit) {
                        (Some(ready), hit) => prop_assert_eq!(Some((ready.body, false)), hit),
                        (None, Some(_)) => prop_assert!(!leased, "a plain hit that the slot missed"),
                        (None, None) => {}
                    }
                    world.finish(&mut lookup, step);
                }
            }
        }
    }
}

#[test]
fn a_slot_keeps_nothing_that_memory_let_go() {
    let mut world = warm();
    let slot = world.engine.slot("GET /x", true).unwrap();
    let held = std::sync::Arc::downgrade(&world.engine.hit(slot, world.now_ms).unwrap());
    world.engine.forget("GET /x");
    assert!(held.upgrade().is_none());
    assert!(world.engine.hit(slot, world.now_ms).is_none());
}

#[test]
fn slots_are_bounded() {
    let mut world = warm();
    let given = (0..10_000).filter(|n| world.engine.slot(&format!("GET /{n}"), true).is_some()).count();
    assert_eq!(given, surrogate_cache::hits::SLOTS_MAX as usize);
    world.engine.forget_slots();
    assert_eq!(world.engine.slot("GET /x", true), Some(0));
}

#[test]
fn what_may_be_answered_again_may_be_until_lease_or_lifetime_end_and_no_longer() {
    for age_ms in [0, 59_700] {
        let mut world = warm();
        let slot = world.engine.slot("GET /x", true).unwrap();
        world.now_ms += age_ms;
        world.sync();
        let entry = world.engine.hit(slot, world.now_ms).unwrap();
        let until_ms = world.engine.holds_until(&entry);
        assert!(until_ms > world.now_ms);
        assert!(world.engine.hit(slot, until_ms - 1).is_some(), "after {age_ms} ms");
        assert!(world.engine.hit(slot, until_ms).is_none(), "after {age_ms} ms");
    }
}
