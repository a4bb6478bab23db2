//! The lookup machine: tiers, purges, coalescing, failures. One fact a test.
mod world;

use kv_schemas::PurgeMode;
use kv_schemas::journal::SharedSync;
use surrogate_cache::lookup::Tier;
use surrogate_cache::policy::ResponseHead;
use surrogate_cache::{Event, LogOwner, Lookup, Phase, Reason, Request, Step};
use world::*;

#[test]
fn a_hit_asks_nobody() {
    let mut world = warm();
    let (fetches, syncs) = (world.fetches.len(), world.syncs);
    world.now_ms += 900;
    let (_, step) = world.start(request(&[]));
    let Step::Answer(answer) = step else { panic!("{step:?}") };
    assert_eq!(brief(world.take(*answer)), got(Phase::Hit, "v1"));
    assert_eq!((world.fetches.len(), world.syncs), (fetches, syncs));
}

#[test]
fn past_the_lease_the_answer_goes_out_first_and_the_sync_follows() {
    let mut world = warm();
    world.now_ms += 1200;
    world.purge(1, PurgeMode::Soft, &["a"]);
    world.serve("v2", 1, FRESH);
    assert_eq!(brief(world.get()), got(Phase::Hit, "v1"));
    assert_eq!(brief(world.get()), got(Phase::Stale, "v1"));
    assert_eq!(brief(world.get()), got(Phase::Hit, "v2"));
}

#[test]
fn past_the_bound_the_sync_comes_first() {
    let mut world = warm();
    world.now_ms += 1600;
    world.purge(1, PurgeMode::Hard, &["a"]);
    world.serve("v2", 1, FRESH);
    let result = world.get();
    assert_eq!((result.phase, result.reason, result.body), (Phase::Expired, Some(Reason::PurgedHard), Some("v2")));
}

#[test]
fn a_view_that_passes_its_bound_while_a_tier_is_read_is_brought_up_to_date_before_the_copy_is_judged() {
    for (purged, expected) in [(false, got(Phase::Hit, "v1")), (true, got(Phase::Expired, "v2"))] {
        for read_ms in [0, 20] {
            let mut world = warm();
            world.colo.clear();
            world.new_isolate();
            world.sync();
            let (syncs, fetches) = (world.syncs, world.fetches.len());
            // Within the bound as it comes, past it when the copy is there.
            world.now_ms += 1_490;
            if purged {
                world.purge(1, PurgeMode::Hard, &["a"]);
                world.serve("v2", 1, FRESH);
            }
            let (mut lookup, mut step) = world.start(request(&[]));
            for tier in [Tier::Colo, Tier::Kv] {
                let Step::Read { tier: asked, key } = step else { panic!("{step:?}") };
                assert_eq!(asked, tier);
                world.now_ms += read_ms;
                let found = if tier == Tier::Kv { world.kv.get(&key).cloned() } else { None };
                step = lookup.step(&mut world.engine, Event::Read(found), world.now_ms);
            }
            assert_eq!(matches!(step, Step::Sync { .. }), read_ms > 0, "{step:?}");
            if read_ms > 0 {
                assert_eq!(brief(world.finish(&mut lookup, step)), expected);
                assert_eq!((world.syncs, world.fetches.len()), (syncs + 1, fetches + usize::from(purged)));
            }
        }
    }
}

#[test]
fn a_journal_that_goes_away_while_a_tier_is_read_is_asked_once_and_then_origin_is() {
    let mut world = warm();
    world.colo.clear();
    world.new_isolate();
    world.sync();
    let (syncs, fetches) = (world.syncs, world.fetches.len());
    world.now_ms += 1_490;
    world.journal = None;
    let (mut lookup, step) = world.start(request(&[]));
    assert!(matches!(step, Step::Read { .. }));
    world.now_ms += 20;
    let step = lookup.step(&mut world.engine, Event::Read(None), world.now_ms);
    let result = world.finish(&mut lookup, step);
    assert_eq!(result.reason, Some(Reason::JournalUnreachable));
    assert_eq!((world.syncs, world.fetches.len()), (syncs + 1, fetches + 1));
}

#[test]
fn a_soft_purge_learnt_of_late_is_fetched_and_not_shown_stale_once_more() {
    let mut world = warm();
    world.now_ms += 30_000;
    world.purge(1, PurgeMode::Soft, &["a"]);
    world.serve("v2", 1, FRESH);
    let result = world.get();
    assert_eq!((result.phase, result.reason, result.body), (Phase::Expired, Some(Reason::PurgedSoft), Some("v2")));
    world.purge(2, PurgeMode::Soft, &["a"]);
    world.now_ms += 2_000;
    world.origin = None;
    assert_eq!(brief(world.get()), got(Phase::StaleError, "v2"), "unless origin fails");
}

#[test]
fn an_object_with_two_keys_goes_with_either() {
    for key in ["a", "b"] {
        let mut world = warm();
        world.purge(1, PurgeMode::Hard, &[key]);
        world.sync();
        world.serve("v2", 1, FRESH);
        assert_eq!(brief(world.get()), got(Phase::Expired, "v2"), "{key}");
    }
    let mut world = warm();
    world.purge(1, PurgeMode::Hard, &["c"]);
    world.sync();
    assert_eq!(brief(world.get()), got(Phase::Hit, "v1"));
}

#[test]
fn a_fill_begun_before_a_purge_is_never_served_fresh_after_it() {
    for owner in [LogOwner::Origin, LogOwner::Journal] {
        for mode in [PurgeMode::Soft, PurgeMode::Hard] {
            let mut world = World::new(owner);
            let (mut lookup, step) = world.start(request(&[]));
            let Step::Fetch(fetch) = world.until_fetch(&mut lookup, step) else { panic!("no fetch") };
            world.serve("old", 0, FRESH);
            // Origin has read its data. Then the purge lands everywhere, then the answer arrives.
            let held = world.origin.clone();
            world.purge(1, mode, &["a"]);
            world.sync();
            world.serve("new", 1, FRESH);
            let new = world.origin.clone();
            world.origin = held;
            let step = world.answer_fetch(&mut lookup, fetch);
            world.origin = new;
            world.finish(&mut lookup, step);
            let next = world.get();
            assert!(next.phase != Phase::Hit || next.body == Some("new"), "{owner:?} {mode:?}: {next:?}");
            assert_eq!(brief(world.get()), got(Phase::Hit, "new"), "{owner:?} {mode:?}");
        }
    }
}

#[test]
fn a_hard_purged_answer_in_flight_does_not_reach_its_client() {
    let mut world = World::new(LogOwner::Origin);
    let (mut lookup, step) = world.start(request(&[]));
    let Step::Fetch(fetch) = world.until_fetch(&mut lookup, step) else { panic!("no fetch") };
    world.serve("gone", 0, FRESH);
    world.purge(1, PurgeMode::Hard, &["a"]);
    world.sync();
    let Step::Fetch(again) = world.answer_fetch(&mut lookup, fetch) else { panic!("not asked again") };
    assert_eq!(again.min_as_of, Some("log:1".parse().unwrap()), "a lagging replica is passed over");
    let Step::Answer(answer) = world.answer_fetch(&mut lookup, again) else { panic!("asked a third time") };
    let result = world.take(*answer);
    assert_eq!((result.status, result.reason), (503, Some(Reason::OriginBehind)));
}

/// A lookup of what nobody holds, which origin answers as it was before a soft purge that this isolate knows of: the second fetch.
fn asked_again_for_a_soft_purge(world: &mut World) -> (Lookup<Body>, surrogate_cache::lookup::Fetch) {
    world.purge(1, PurgeMode::Soft, &["a"]);
    world.sync();
    world.serve("old", 0, FRESH);
    let (mut lookup, step) = world.start(request(&[]));
    let Step::Fetch(fetch) = world.until_fetch(&mut lookup, step) else { panic!("no fetch") };
    assert_eq!(fetch.min_as_of, None, "of a page nobody holds no keys are known");
    let Step::Fetch(again) = world.answer_fetch(&mut lookup, fetch) else { panic!("not asked again") };
    assert_eq!(again.min_as_of, Some("log:1".parse().unwrap()), "a lagging replica is passed over");
    (lookup, again)
}

#[test]
fn what_a_replica_read_before_a_soft_purge_is_asked_for_anew_before_anybody_sees_it() {
    let mut world = World::new(LogOwner::Origin);
    let (mut lookup, again) = asked_again_for_a_soft_purge(&mut world);
    world.serve("new", 1, FRESH);
    let Step::Answer(answer) = world.answer_fetch(&mut lookup, again) else { panic!("asked a third time") };
    assert_eq!(brief(world.take(*answer)), got(Phase::Miss, "new"));
    assert_eq!(brief(world.get()), got(Phase::Hit, "new"));
}

#[test]
fn an_origin_that_has_nothing_younger_than_a_soft_purge_is_no_failure() {
    let mut world = World::new(LogOwner::Origin);
    let (mut lookup, again) = asked_again_for_a_soft_purge(&mut world);
    let Step::Answer(answer) = world.answer_fetch(&mut lookup, again) else { panic!("asked a third time") };
    assert_eq!(brief(world.take(*answer)), got(Phase::Miss, "old"));
    assert_ne!(world.get().phase, Phase::Hit, "it is older than a purge");
}

#[test]
fn with_the_primary_away_a_page_older_than_a_soft_purge_is_better_than_none() {
    for status in [None, Some(503)] {
        let mut world = World::new(LogOwner::Origin);
        let (mut lookup, again) = asked_again_for_a_soft_purge(&mut world);
        let step = match status {
            Some(status) => {
                world.origin_status(status);
                world.answer_fetch(&mut lookup, again)
            }
            None => lookup.step(&mut world.engine, Event::OriginFailed, world.now_ms),
        };
        let Step::Fetch(anyhow) = step else { panic!("{status:?}: {step:?}") };
        assert_eq!(anyhow.min_as_of, None);
        world.serve("old", 0, FRESH);
        let Step::Answer(answer) = world.answer_fetch(&mut lookup, anyhow) else { panic!("asked a fourth time") };
        assert_eq!(brief(world.take(*answer)), got(Phase::Miss, "old"), "{status:?}");
    }
}

#[test]
fn a_soft_purge_that_is_learnt_of_while_origin_answers_costs_no_second_question() {
    let mut world = World::new(LogOwner::Origin);
    world.sync();
    let (mut lookup, step) = world.start(request(&[]));
    let Step::Fetch(fetch) = world.until_fetch(&mut lookup, step) else { panic!("no fetch") };
    world.serve("v1", 0, FRESH);
    world.purge(1, PurgeMode::Soft, &["a"]);
    world.sync();
    let Step::Answer(answer) = world.answer_fetch(&mut lookup, fetch) else { panic!("asked again") };
    assert_eq!(brief(world.take(*answer)), got(Phase::Miss, "v1"));
}

#[test]
fn a_soft_purge_of_an_unchanged_object_costs_a_304() {
    let mut world = World::new(LogOwner::Origin);
    let mut fields = FRESH.to_vec();
    fields.push(("etag", "\"1\""));
    world.serve("v1", 0, &fields);
    world.get();
    world.purge(1, PurgeMode::Soft, &["a"]);
    world.sync();
    world.serve("v1", 1, &fields);
    world.origin.as_mut().unwrap().0 = 304;
    assert_eq!(brief(world.get()), got(Phase::Stale, "v1"));
    let fetch = world.fetches.last().unwrap();
    assert_eq!(fetch.fields, [("if-none-match".to_string(), "\"1\"".to_string())]);
    assert_eq!(fetch.min_as_of, Some("log:1".parse().unwrap()));
    assert_eq!(brief(world.get()), got(Phase::Hit, "v1"));
    assert_eq!(world.kv["GET /x"].as_of, Some("log:1".parse().unwrap()), "the state moved forward without a body");
}

#[test]
fn origin_down_serves_stale_within_its_window_and_says_so() {
    let mut world = warm();
    world.origin = None;
    world.now_ms += 100_000;
    let result = world.get();
    assert_eq!((result.phase, result.body), (Phase::StaleError, Some("v1")));
    world.origin_status(503);
    assert_eq!(brief(world.get()), got(Phase::StaleError, "v1"));
    world.now_ms += 300_000;
    assert_eq!(world.get().status, 503);
    world.origin = None;
    assert_eq!(world.get().status, 502);
}

#[test]
fn a_hard_purged_entry_is_not_served_even_if_origin_is_down() {
    let mut world = warm();
    world.purge(1, PurgeMode::Hard, &["b"]);
    world.sync();
    world.origin = None;
    let result = world.get();
    assert_eq!((result.phase, result.status, result.body), (Phase::Failed, 502, None));
}

#[test]
fn a_new_isolate_finds_entries_in_colo_and_kv_and_they_are_still_fenced() {
    let mut world = warm();
    world.new_isolate();
    assert_eq!(brief(world.get()), got(Phase::Hit, "v1"));
    world.colo.clear();
    world.new_isolate();
    assert_eq!(brief(world.get()), got(Phase::Hit, "v1"));
    assert!(world.colo.contains_key("GET /x"), "what KV had goes to the location's cache");
    world.purge(1, PurgeMode::Hard, &["a"]);
    world.new_isolate();
    world.serve("v2", 1, FRESH);
    assert_eq!(brief(world.get()), got(Phase::Expired, "v2"));
}

#[test]
fn with_the_journal_unreachable_nothing_from_a_tier_counts_as_fresh() {
    let mut world = warm();
    world.new_isolate();
    world.journal = None;
    world.serve("v2", 1, FRESH);
    let result = world.get();
    assert_eq!((result.phase, result.reason), (Phase::Expired, Some(Reason::JournalUnreachable)));
    assert_eq!(brief(world.get()), got(Phase::Hit, "v2"), "what origin just confirmed needs no journal");
    assert_eq!(world.fetches.len(), 2);
    world.now_ms += 1600;
    world.get();
    assert_eq!(world.fetches.len(), 3, "one revalidation a bound");
    world.now_ms += 1600;
    world.origin = None;
    assert_eq!(world.get().phase, Phase::StaleError, "and stale if origin is gone too");
}

#[test]
fn an_unreachable_journal_is_asked_once_a_lease() {
    let mut world = World::new(LogOwner::Origin);
    world.journal = None;
    world.serve("v1", 0, FRESH);
    for _ in 0..5 {
        world.get();
    }
    assert_eq!(world.syncs, 1);
    world.now_ms += 1001;
    world.get();
    assert_eq!(world.syncs, 2);
}

#[test]
fn another_log_id_purges_everything() {
    let mut world = warm();
    world.log = "restored";
    world.journal = Some(Vec::new());
    world.now_ms += 2000;
    world.serve("v2", 0, FRESH);
    let result = world.get();
    assert_eq!((result.reason, result.body), (Some(Reason::OtherLog), Some("v2")));
}

#[test]
fn many_requests_for_a_cold_key_wait_for_one_fill() {
    let mut world = World::new(LogOwner::Origin);
    world.serve("v1", 0, FRESH);
    let (mut first, step) = world.start(request(&[]));
    let Step::Fetch(fetch) = world.until_fetch(&mut first, step) else { panic!("no fetch") };
    let mut waiting: Vec<_> = (0..500).map(|_| world.start(request(&[]))).collect();
    assert!(waiting.iter().all(|(_, step)| matches!(step, Step::Wait { .. })));
    let step = world.answer_fetch(&mut first, fetch);
    world.finish(&mut first, step);
    for (lookup, _) in &mut waiting {
        let step = lookup.step(&mut world.engine, Event::Waited, world.now_ms);
        assert_eq!(brief(world.finish(lookup, step)), got(Phase::Hit, "v1"));
    }
    assert_eq!(world.fetches.len(), 1);
}

#[test]
fn a_wait_longer_than_the_bound_syncs_again_and_still_needs_one_fill() {
    let mut world = World::new(LogOwner::Origin);
    world.serve("v1", 0, FRESH);
    let (mut first, step) = world.start(request(&[]));
    let Step::Fetch(fetch) = world.until_fetch(&mut first, step) else { panic!("no fetch") };
    // It comes after the view was confirmed and the fetch went out: neither speaks for it.
    world.now_ms += 1;
    let (mut waiting, step) = world.start(request(&[]));
    assert!(matches!(step, Step::Wait { .. }));
    world.fetches.push(fetch);
    // Origin takes longer than the view's bound: what it then answers was asked for too long ago to prove itself.
    let sent_ms = world.now_ms - 1;
    world.now_ms += 3000;
    let (status, fields, body) = world.origin.clone().unwrap();
    let fields = fields.into_iter().collect();
    let head = ResponseHead { status, fields, request_time_ms: sent_ms, response_time_ms: world.now_ms };
    world.sent = body;
    let step = first.step(&mut world.engine, Event::Origin(head), world.now_ms);
    let Step::Answer(mut answer) = step else { panic!("no answer") };
    assert!(answer.behind().sync, "the view is past its lease");
    answer.behind().sync = false;
    assert_eq!(brief(world.take(*answer)), got(Phase::Miss, body));
    world.now_ms += 1100;
    let step = waiting.step(&mut world.engine, Event::Waited, world.now_ms);
    assert!(matches!(step, Step::Sync { .. }), "{step:?}");
    assert_eq!(brief(world.finish(&mut waiting, step)), got(Phase::Hit, body));
    assert_eq!(world.fetches.len(), 1);
}

#[test]
fn a_slow_answer_of_the_journal_is_good_for_whoever_was_there_when_it_was_asked() {
    let mut world = warm();
    world.now_ms += 10_000;
    let (mut lookup, step) = world.start(request(&[]));
    assert!(matches!(step, Step::Sync { .. }));
    let sent_ms = world.now_ms;
    world.now_ms += 5_000;
    let asked = world.engine.view.query("here");
    world.engine.sync_succeeded(&asked, &nothing_new("log", 0), sent_ms, world.now_ms);
    let step = lookup.step(&mut world.engine, Event::Synced, world.now_ms);
    assert_eq!(brief(world.finish(&mut lookup, step)), got(Phase::Hit, "v1"));
    world.journal = None;
    world.now_ms += 10_000;
    assert_ne!(world.get().phase, Phase::Hit, "but not for those who come later");
}

#[test]
fn many_requests_for_a_soft_purged_key_refresh_it_once() {
    let mut world = warm();
    world.purge(1, PurgeMode::Soft, &["a"]);
    world.sync();
    let mut refreshes = 0;
    for _ in 0..500 {
        let (_, step) = world.start(request(&[]));
        let Step::Answer(mut answer) = step else { panic!("{step:?}") };
        refreshes += usize::from(answer.behind().refresh.is_some());
    }
    assert_eq!(refreshes, 1);
}

#[test]
fn what_a_soft_purge_made_stale_can_be_refreshed_before_anybody_asks() {
    let mut world = warm();
    world.purge(1, PurgeMode::Soft, &["a"]);
    world.sync();
    assert!(world.engine.softly_purged(10).is_empty(), "it was asked for once");
    for takes_packed in [true, false] {
        world.engine.slot("GET /x", takes_packed);
    }
    let entries = world.engine.softly_purged(10);
    assert_eq!(entries.len(), 1);
    world.serve("v2", 1, FRESH);
    let mut ahead = Lookup::ahead(&mut world.engine, &entries[0], world.now_ms).expect("granted");
    assert!(Lookup::ahead(&mut world.engine, &entries[0], world.now_ms).is_none(), "once is enough");
    let step = ahead.step(&mut world.engine, Event::Start, world.now_ms);
    world.finish(&mut ahead, step);
    assert_eq!(brief(world.get()), got(Phase::Hit, "v2"));
    assert!(world.engine.softly_purged(10).is_empty());
    let late = Lookup::ahead(&mut world.engine, &entries[0], world.now_ms);
    assert!(late.is_none(), "a viewer has had it fetched while it waited for its turn");
}

/// A day's idleness and a clock that is set back by less: by the clock, what is known is from the future.
#[test]
fn a_clock_that_is_set_back_makes_nothing_known_that_was_not() {
    for journal in [true, false] {
        let mut world = warm();
        let confirmed_ms = world.now_ms;
        world.now_ms += 86_400_000;
        world.purge(1, PurgeMode::Hard, &["a"]);
        world.serve("v2", 1, FRESH);
        if !journal {
            world.journal = None;
        }
        world.now_ms -= 86_400_000 + 40_000;
        let after = world.get();
        assert_ne!(after.phase, Phase::Hit, "journal {journal}: {after:?}");
        assert_eq!(after.body, Some("v2"), "journal {journal}");
        // Nor when that time comes once more.
        world.journal = None;
        world.now_ms = confirmed_ms + 1;
        assert_ne!(world.get().phase, Phase::Hit, "journal {journal}");
    }
}

/// What was learnt before the clock was set back was not learnt a moment ago when its time comes once more.
#[test]
fn a_soft_purge_is_no_younger_for_a_clock_that_was_set_back() {
    let mut world = warm();
    world.purge(1, PurgeMode::Soft, &["a"]);
    world.sync();
    world.serve("v2", 1, FRESH);
    let learnt_ms = world.now_ms;
    world.now_ms -= 5_000;
    let other = Request { key: "GET /other".into(), ..request(&[]) };
    let _ = world.ask(other);
    world.now_ms = learnt_ms + 200;
    let got = world.get();
    assert_eq!((got.phase, got.reason, got.body), (Phase::Expired, Some(Reason::PurgedSoft), Some("v2")));
}

/// Of what another isolate of the location was told, this one can say when only by its own clock.
#[test]
fn what_a_neighbour_was_told_says_nothing_to_a_clock_that_was_set_back() {
    let mut world = warm();
    let asked = world.engine.view.query("here");
    let shared = SharedSync { asked, delta: nothing_new("log", 3_000), asking_ms: 0 };
    let anchored_ms = world.now_ms;
    let mut ahead = warm();
    assert!(ahead.engine.sync_shared(&shared, anchored_ms + 3_100), "its clock has not been touched");
    world.now_ms -= 30_000;
    world.journal = None;
    let _ = world.get();
    assert!(!world.engine.sync_shared(&shared, anchored_ms + 3_100));
}

/// What the journal answers a write with is known at once, and so is what it says of reads that are sent after it.
#[test]
fn where_the_journal_numbers_what_was_just_written_is_read_before_the_sync_is_back() {
    let mut world = World::new(LogOwner::Journal);
    world.serve("v1", 0, FRESH);
    world.get();
    let fetches = world.fetches.len();
    world.serve("v2", 0, FRESH);
    world.engine.view.learn(&"log:1".parse().unwrap(), kv_schemas::surrogate_key::hash("a"));
    assert_eq!(brief(world.get()), got(Phase::Expired, "v2"));
    assert_eq!(world.fetches.len(), fetches + 1, "one question is enough");
    assert_eq!(brief(world.get()), got(Phase::Hit, "v2"));
    assert_eq!(world.engine.view.applied(), 0, "the journal has told nothing yet");
}

/// A log of the journal's own begins by purging everything. Where origin numbers, its answers say for themselves which log they are of.
#[test]
fn an_answer_asked_for_before_the_journal_began_another_log_is_asked_for_again() {
    for (owner, fetches, shown) in [(LogOwner::Journal, 2, "new"), (LogOwner::Origin, 1, "old")] {
        let mut world = World::new(owner);
        world.sync();
        let (mut lookup, step) = world.start(request(&[]));
        let Step::Fetch(fetch) = world.until_fetch(&mut lookup, step) else { panic!("no fetch") };
        world.serve("old", 0, FRESH);
        let read = world.origin.clone();
        world.log = "another";
        world.sync();
        world.serve("new", 0, FRESH);
        let next = std::mem::replace(&mut world.origin, read);
        let step = world.answer_fetch(&mut lookup, fetch);
        world.origin = next;
        assert_eq!(world.finish(&mut lookup, step).body, Some(shown), "{owner:?}");
        assert_eq!(world.fetches.len(), fetches, "{owner:?}");
    }
}

#[test]
fn a_fill_that_never_ends_holds_nobody_for_ever() {
    let mut world = World::new(LogOwner::Origin);
    let (mut first, step) = world.start(request(&[]));
    assert!(matches!(world.until_fetch(&mut first, step), Step::Fetch(_)));
    world.serve("v1", 0, FRESH);
    let began_ms = world.now_ms;
    assert_eq!(brief(world.get()), got(Phase::Miss, "v1"));
    let waited_ms = world.now_ms - began_ms;
    assert!((5_000..5_100).contains(&waited_ms), "{waited_ms}");
}

#[test]
fn a_crowd_that_waits_takes_turns_and_all_of_it_is_answered() {
    const CROWD: usize = 5_000;
    let mut world = World::new(LogOwner::Origin);
    let (mut first, step) = world.start(request(&[]));
    let fetch = world.until_fetch(&mut first, step);
    let came_ms = world.now_ms;
    // Who sleeps, until when.
    let mut waiting: Vec<(u64, Lookup<Body>)> = (0..CROWD)
        .map(|_| {
            let (lookup, step) = world.start(request(&[]));
            let Step::Wait { ms } = step else { panic!("{step:?}") };
            (world.now_ms + ms, lookup)
        })
        .collect();
    let (mut looks, mut answered) = (0, 0);
    let mut fetch = Some(fetch);
    while !waiting.is_empty() {
        world.now_ms += 1;
        if world.now_ms.is_multiple_of(200) {
            world.sync();
        }
        if world.now_ms == came_ms + 2_000 {
            world.serve("v1", 0, FRESH);
            world.finish(&mut first, fetch.take().expect("once"));
        }
        let (due, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(until_ms, _)| *until_ms <= world.now_ms);
        waiting = rest;
        for (_, mut lookup) in due {
            looks += 1;
            match lookup.step(&mut world.engine, Event::Waited, world.now_ms) {
                Step::Wait { ms } => waiting.push((world.now_ms + ms, lookup)),
                Step::Answer(_) => answered += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(answered, CROWD);
    // On timers of their own, which are 25 ms at most, they would look 400,000 times.
    let lasted_ms = world.now_ms - came_ms;
    assert!(looks <= 8 * (lasted_ms + 25), "{looks} in {lasted_ms} ms");
    assert!(lasted_ms < 3_100, "{lasted_ms}");
}

#[test]
fn an_uncacheable_answer_makes_nobody_wait() {
    let mut world = World::new(LogOwner::Origin);
    world.serve("private", 0, &[("cache-control", "private")]);
    assert_eq!(world.get().phase, Phase::Miss);
    let (_, step) = world.start(request(&[]));
    assert!(matches!(step, Step::Fetch(_)));
}

#[test]
fn min_as_of_is_honoured_through_every_tier() {
    let mut world = warm();
    world.serve("v2", 5, FRESH);
    assert_eq!(brief(world.ask(request(&[("min-as-of", "log:5")]))), got(Phase::Expired, "v2"));
    assert_eq!(world.fetches.last().unwrap().min_as_of, Some("log:5".parse().unwrap()));
    assert_eq!(brief(world.ask(request(&[("min-as-of", "log:5")]))), got(Phase::Hit, "v2"));
    let asked = world.fetches.len();
    let behind = world.ask(request(&[("min-as-of", "log:9")]));
    assert_eq!((behind.status, behind.reason), (503, Some(Reason::OriginBehind)));
    assert_eq!(world.fetches.len(), asked + 1, "it was told at once what is demanded");
    for (status, shown) in [(401, 401), (429, 429), (503, 503), (404, 503)] {
        world.origin = Some((status, Vec::new(), "origin's word"));
        let refused = world.ask(request(&[("min-as-of", "log:9")]));
        assert_eq!(refused.status, shown, "what says nothing of a state stands as it is");
        assert_eq!(refused.body.is_some(), status == shown);
    }
    world.origin = None;
    let down = world.ask(request(&[("min-as-of", "log:9")]));
    assert_eq!((down.status, down.body), (502, None), "never a stale answer below the demanded state");
}

#[test]
fn where_the_journal_numbers_a_demanded_state_brings_a_sync_first() {
    let mut world = World::new(LogOwner::Journal);
    world.serve("v1", 0, FRESH);
    world.get();
    world.purge(1, PurgeMode::Hard, &["a"]);
    world.serve("v2", 0, FRESH);
    assert_eq!(brief(world.ask(request(&[("min-as-of", "log:1")]))), got(Phase::Expired, "v2"));
}

#[test]
fn variants_are_kept_apart_in_every_tier() {
    let mut fields = FRESH.to_vec();
    fields.push(("vary", "accept-language"));
    let mut world = World::new(LogOwner::Origin);
    let in_language = |language| request(&[("accept-language", language)]);
    world.serve("deutsch", 0, &fields);
    assert_eq!(world.ask(in_language("de")).phase, Phase::Miss);
    world.serve("english", 0, &fields);
    let result = world.ask(in_language("en"));
    assert_eq!((result.reason, result.body), (Some(Reason::OtherVariant), Some("english")));
    for _ in 0..3 {
        assert_eq!(brief(world.ask(in_language("de"))), got(Phase::Hit, "deutsch"));
        assert_eq!(brief(world.ask(in_language("en"))), got(Phase::Hit, "english"));
        world.new_isolate();
    }
}

#[test]
fn a_client_that_has_it_already_gets_a_304_from_the_cache_and_from_origin_alike() {
    let mut fields = FRESH.to_vec();
    fields.push(("etag", "\"1\""));
    let mut world = World::new(LogOwner::Origin);
    world.serve("v1", 0, &fields);
    let conditional = || request(&[("if-none-match", "\"1\"")]);
    let first = world.ask(conditional());
    assert!(first.not_modified && first.phase == Phase::Miss);
    assert!(world.fetches[0].fields.is_empty(), "the cache asks for the whole answer");
    assert!(world.ask(conditional()).not_modified);
}

#[test]
fn bytes_of_another_key_are_no_entry() {
    let mut world = warm();
    let mut other = world.kv["GET /x"].clone();
    other.key = "GET /y".into();
    world.colo.clear();
    world.kv.insert("GET /x".into(), other);
    world.new_isolate();
    assert_eq!(world.get().phase, Phase::Miss);
}

#[test]
fn surrogate_headers_that_cannot_be_read_make_an_answer_uncacheable_and_it_says_so() {
    for (name, value) in [("surrogate-key", "b\u{e9}"), ("surrogate-as-of", "x")] {
        let mut world = World::new(LogOwner::Origin);
        world.serve("v1", 0, &[("cache-control", "max-age=60")]);
        let (_, fields, _) = world.origin.as_mut().unwrap();
        fields.retain(|(n, _)| n != name);
        fields.push((name.into(), value.into()));
        let (mut lookup, step) = world.start(request(&[]));
        let Step::Fetch(fetch) = world.until_fetch(&mut lookup, step) else { panic!("no fetch") };
        let Step::Answer(answer) = world.answer_fetch(&mut lookup, fetch) else { panic!("no answer") };
        assert_eq!(answer.status().stored, Some(Err(Reason::BadSurrogate)), "{name}");
    }
}

#[test]
fn only_if_cached_never_asks_origin() {
    let mut world = World::new(LogOwner::Origin);
    let result = world.ask(request(&[("cache-control", "only-if-cached")]));
    assert_eq!((result.status, world.fetches.len()), (504, 0));
}

#[test]
fn requests_with_credentials_neither_fill_nor_wait() {
    let mut world = World::new(LogOwner::Origin);
    let (mut first, step) = world.start(request(&[]));
    assert!(matches!(world.until_fetch(&mut first, step), Step::Fetch(_)));
    world.serve("mine", 0, &[("cache-control", "max-age=60")]);
    let began_ms = world.now_ms;
    let result = world.ask(request(&[("authorization", "Bearer x")]));
    assert_eq!((result.phase, result.body), (Phase::Miss, Some("mine")));
    assert_eq!(world.now_ms, began_ms, "it did not wait");
    assert!(!world.kv.contains_key("GET /x"), "nor is what they got kept for others");
}

/// Past its lifetime, within stale-while-revalidate.
fn stale() -> World {
    let mut world = warm();
    world.now_ms += 61_000;
    world.sync();
    world.serve("v2", 0, FRESH);
    world
}

#[test]
fn what_one_client_demands_of_the_cache_spoils_no_refresh_for_others() {
    let demands: [&[(&str, &str)]; 3] =
        [&[("cache-control", "no-store")], &[("authorization", "Bearer x")], &[("cache-control", "only-if-cached")]];
    for fields in demands {
        let mut world = stale();
        // What origin answers to who forbids it to be kept can be of no use to others; nor is he shown what nobody refreshes.
        let is_kept = fields == [("cache-control", "only-if-cached")];
        let first = if is_kept { got(Phase::Stale, "v1") } else { got(Phase::Expired, "v2") };
        assert_eq!(brief(world.ask(request(fields))), first, "{fields:?}");
        if is_kept {
            assert_eq!(brief(world.get()), got(Phase::Hit, "v2"), "{fields:?}");
            assert_eq!(world.fetches.len(), 2, "{fields:?}: once before, and once for all");
            continue;
        }
        // Who comes next has it refreshed for all, and is not one of many that ask origin.
        assert_eq!(brief(world.get()), got(Phase::Stale, "v1"), "{fields:?}");
        assert_eq!(brief(world.get()), got(Phase::Hit, "v2"), "{fields:?}");
        assert_eq!(world.fetches.len(), 3, "{fields:?}");
    }
}

#[test]
fn with_credentials_a_page_for_all_is_refreshed_if_it_may_be_kept() {
    let mut world = World::new(LogOwner::Origin);
    let shared: &[(&str, &str)] = &[("cache-control", "s-maxage=60, stale-while-revalidate=30, public")];
    world.serve("v1", 0, shared);
    world.get();
    world.now_ms += 61_000;
    world.sync();
    world.serve("v2", 0, shared);
    // RFC 9111 section 5.2.2.10: s-maxage is proxy-revalidate, too, and lets nobody have what is stale.
    let first = world.ask(request(&[("authorization", "Bearer x")]));
    assert!(first.body == Some("v2") || first.phase == Phase::Stale, "{first:?}");
    assert_eq!(world.get().body, Some("v2"));
}

#[test]
fn an_origin_that_wants_to_be_asked_less_is_not_asked_by_everybody() {
    for status in [408, 425, 429, 503] {
        let mut world = World::new(LogOwner::Origin);
        world.origin_status(status);
        world.get();
        let (mut first, step) = world.start(request(&[]));
        assert!(matches!(world.until_fetch(&mut first, step), Step::Fetch(_)), "{status}");
        let (mut second, mut step) = world.start(request(&[]));
        while let Step::Read { .. } = step {
            step = second.step(&mut world.engine, Event::Read(None), world.now_ms);
        }
        assert!(matches!(step, Step::Wait { .. }), "{status}: it waits for the first: {step:?}");
    }
}

#[test]
fn an_answer_of_the_journal_that_was_asked_for_before_the_clock_was_set_back_confirms_nothing() {
    let mut world = warm();
    let sent_ms = world.now_ms + 10_000;
    world.now_ms = sent_ms;
    let asked = world.engine.view.query("here");
    // The clock goes back while the journal answers, and nobody asks for anything until it has come to the same time again.
    world.engine.sync_succeeded(&asked, &nothing_new("log", 0), sent_ms, sent_ms - 5_000);
    world.journal = None;
    world.now_ms = sent_ms + 100;
    world.serve("v2", 0, FRESH);
    assert_eq!(world.get().phase, Phase::Expired, "what is known may be five seconds old");
}

#[test]
fn who_waited_for_anothers_question_that_was_asked_after_it_came_asks_no_more() {
    let mut world = World::new(LogOwner::Journal);
    world.serve("v1", 0, FRESH);
    world.get();
    world.now_ms += 500;
    let (mut first, step) = world.start(request(&[("min-as-of", "log:7")]));
    assert!(matches!(step, Step::Sync { .. }), "{step:?}");
    let (mut second, mut step) = world.start(request(&[("min-as-of", "log:7")]));
    world.now_ms += 5;
    world.sync();
    assert_eq!(world.finish(&mut first, Step::Sync { shared: false }).status, 503);
    let syncs = world.syncs;
    world.now_ms += 500;
    while let Step::Wait { ms } = step {
        world.now_ms += ms;
        step = second.step(&mut world.engine, Event::Waited, world.now_ms);
    }
    assert_eq!((world.finish(&mut second, step).status, world.syncs), (503, syncs));
}

/// Where the journal numbers purges, a client may demand what nobody has: a log there is not, a number to come.
#[test]
fn states_that_nobody_has_cost_one_question_each_and_none_of_origin() {
    for demand in ["other:1", "log:9007199254740991"] {
        let mut world = World::new(LogOwner::Journal);
        world.serve("v1", 0, FRESH);
        world.get();
        let (syncs, fetches, began_ms) = (world.syncs, world.fetches.len(), world.now_ms);
        for _ in 0..20 {
            let got = world.ask(request(&[("min-as-of", demand)]));
            assert_eq!((got.status, got.reason), (503, Some(Reason::OriginBehind)), "{demand}");
        }
        assert_eq!(world.fetches.len(), fetches, "{demand}: origin knows of no states");
        let most = (world.now_ms - began_ms) / (world.engine.config.lease_ms / 8) + 1;
        assert!((world.syncs - syncs) as u64 <= most, "{demand}: {} questions, {most} at most", world.syncs - syncs);
    }
}

#[test]
fn a_demanded_state_is_waited_for_while_a_neighbour_asks_and_served_from_memory_if_it_is_there() {
    let mut world = World::new(LogOwner::Journal);
    world.serve("v1", 0, FRESH);
    world.get();
    world.now_ms += 1_000;
    // As when another isolate of the location asks: this one asks no more for a moment.
    world.engine.sync_failed(world.now_ms);
    world.purge(1, PurgeMode::Hard, &["a"]);
    world.serve("v2", 0, FRESH);
    let began_ms = world.now_ms;
    assert_eq!(brief(world.ask(request(&[("min-as-of", "log:1")]))), got(Phase::Expired, "v2"));
    assert!(world.now_ms > began_ms, "it waited");
    let (syncs, began_ms) = (world.syncs, world.now_ms);
    assert_eq!(brief(world.ask(request(&[("min-as-of", "log:1")]))), got(Phase::Hit, "v2"));
    assert_eq!((world.syncs, world.now_ms), (syncs, began_ms));
    // Of a write that went through here: what was read after it is of its state, and the journal need not be asked for that.
    world.engine.learn_written(&"log:5".parse().unwrap(), &[kv_schemas::surrogate_key::hash("a")]);
    world.serve("v3", 0, FRESH);
    assert_eq!(brief(world.get()), got(Phase::Expired, "v3"));
    let (syncs, began_ms) = (world.syncs, world.now_ms);
    assert_eq!(brief(world.ask(request(&[("min-as-of", "log:5")]))), got(Phase::Hit, "v3"));
    assert_eq!((world.syncs, world.now_ms), (syncs, began_ms));
}
