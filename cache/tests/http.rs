//! The lookup machine as an HTTP cache: ranges and parts, HEAD, languages, answers to POST, URLs as keys. One fact a
//! test.
mod world;

use kv_schemas::surrogate_key::url_key;
use kv_schemas::{AsOf, PurgeMode};
use surrogate_cache::lookup::{Fetch, plan_written};
use surrogate_cache::policy::ResponseHead;
use surrogate_cache::{Event, Fields, LogOwner, Lookup, Phase, Reason, Request, Rules, Step};
use world::*;

const DIGITS: Body = "0123456789";

fn ranged(range: &str) -> Request {
    request(&[("range", range)])
}

fn sent(fetch: &Fetch) -> Vec<(&str, &str)> {
    fetch.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// A world whose isolate holds the ten digits.
fn holding(extra: &[(&str, &str)]) -> World {
    let mut world = World::new(LogOwner::Origin);
    world.serve(DIGITS, 0, &[FRESH, extra].concat());
    world.get();
    world
}

/// A world whose isolate holds a part.
fn holding_part(content_range: &str, body: Body, extra: &[(&str, &str)]) -> World {
    let mut world = World::new(LogOwner::Origin);
    world.serve(body, 0, &[FRESH, &[("content-range", content_range)], extra].concat());
    world.origin.as_mut().unwrap().0 = 206;
    let got = world.ask(request(&[("range", "bytes=0-"), ("accept-encoding", "gzip")]));
    assert_eq!((got.status, got.body), (206, Some(body)), "the client gets what origin sent");
    assert!(world.colo.is_empty() && world.kv.is_empty(), "parts stay in memory");
    world
}

#[test]
fn a_range_is_cut_from_a_stored_whole_in_every_tier() {
    let mut world = holding(&[]);
    for _ in 0..2 {
        for (range, status, body) in [
            ("bytes=0-1", 206, Some("01")),
            ("bytes=7-", 206, Some("789")),
            ("bytes=-2", 206, Some("89")),
            ("bytes=10-", 416, None),
            ("bytes=0-1,3-4", 200, Some(DIGITS)),
            ("lines=0-1", 200, Some(DIGITS)),
        ] {
            let got = world.ask(ranged(range));
            assert_eq!((got.phase, got.status, got.body), (Phase::Hit, status, body), "{range}");
        }
        world.new_isolate();
    }
    assert_eq!(world.fetches.len(), 1);
    let mut head = ranged("bytes=0-1");
    head.is_head = true;
    assert_eq!(world.ask(head).status, 200, "ranges are GET's alone");
}

#[test]
fn a_range_with_if_range_is_cut_only_from_the_same_body() {
    let mut world = holding(&[("etag", "\"a\"")]);
    let ask = |etag: &'static str| request(&[("range", "bytes=0-1"), ("if-range", etag)]);
    assert_eq!(world.ask(ask("\"a\"")).status, 206);
    assert_eq!(world.ask(ask("\"b\"")).body, Some(DIGITS));
    let both = request(&[("range", "bytes=0-1"), ("if-none-match", "\"a\"")]);
    assert!(world.ask(both).not_modified, "validators come before ranges");
}

#[test]
fn a_range_of_a_stale_whole_is_cut_after_it_was_confirmed() {
    let mut world = World::new(LogOwner::Origin);
    let fields = [("cache-control", "max-age=1"), ("etag", "\"a\"")];
    world.serve(DIGITS, 0, &fields);
    world.get();
    world.now_ms += 5_000;
    world.serve("", 0, &fields);
    world.origin.as_mut().unwrap().0 = 304;
    let got = world.ask(ranged("bytes=0-1"));
    assert_eq!((got.phase, got.status, got.body), (Phase::Revalidated, 206, Some("01")));
    assert_eq!(sent(&world.fetches[1]), [("if-none-match", "\"a\"")], "the whole is what is confirmed");
}

#[test]
fn with_nothing_stored_the_range_goes_to_origin_as_it_came_and_waits_for_nobody() {
    let mut world = World::new(LogOwner::Origin);
    let (mut other, step) = world.start(request(&[]));
    world.until_fetch(&mut other, step);
    world.serve("01", 0, &[FRESH, &[("content-range", "bytes 0-1/10")]].concat());
    world.origin.as_mut().unwrap().0 = 206;
    let began_ms = world.now_ms;
    world.ask(request(&[("range", "bytes=0-1"), ("if-range", "\"x\"")]));
    assert_eq!(sent(&world.fetches[0]), [("range", "bytes=0-1"), ("if-range", "\"x\"")]);
    assert_eq!(world.now_ms, began_ms);
}

#[test]
fn a_stored_part_answers_ranges_within_it_and_nothing_else() {
    let mut world = holding_part("bytes 4-9/10", "456789", &[]);
    for (range, body) in [("bytes=6-8", "678"), ("bytes=6-", "6789"), ("bytes=-1", "9")] {
        let got = world.ask(ranged(range));
        assert_eq!((got.phase, got.status, got.body), (Phase::Hit, 206, Some(body)), "{range}");
    }
    world.serve(DIGITS, 0, FRESH);
    let whole = world.get();
    assert_eq!((whole.phase, whole.reason, whole.body), (Phase::Miss, Some(Reason::Part), Some(DIGITS)));
    assert_eq!(world.ask(ranged("bytes=0-1")).body, Some("01"), "the whole is what is held now");
}

#[test]
fn a_part_is_purged_like_anything_else() {
    for key in ["a", url_key("/x").as_str()] {
        let mut world = holding_part("bytes 4-9/10", "456789", &[]);
        world.purge(1, PurgeMode::Soft, &[key]);
        world.now_ms += 2_000;
        world.serve(DIGITS, 1, FRESH);
        assert_ne!(world.ask(ranged("bytes=6-8")).phase, Phase::Hit, "{key}");
    }
}

#[test]
fn parts_without_a_readable_place_or_a_lifetime_are_not_kept() {
    let table: [&[(&str, &str)]; 4] = [
        &[("cache-control", "max-age=60")],
        &[("cache-control", "max-age=60"), ("content-range", "bytes 9-4/10")],
        &[("etag", "\"a\""), ("content-range", "bytes 4-9/10")],
        &[("cache-control", "max-age=60"), ("content-range", "bytes 4-9/10"), ("vary", "a")],
    ];
    for fields in table {
        let mut world = World::new(LogOwner::Origin);
        world.serve("456789", 0, fields);
        world.origin.as_mut().unwrap().0 = 206;
        world.ask(ranged("bytes=4-"));
        world.ask(ranged("bytes=6-8"));
        assert_eq!(world.fetches.len(), 2, "{fields:?}");
    }
}

#[test]
fn an_error_about_a_range_is_not_kept_as_the_whole() {
    let mut world = World::new(LogOwner::Origin);
    world.serve("no such range", 0, FRESH);
    world.origin.as_mut().unwrap().0 = 416;
    assert_eq!(world.ask(ranged("bytes=99-")).status, 416);
    world.serve(DIGITS, 0, FRESH);
    assert_eq!(world.get().body, Some(DIGITS));
}

#[test]
fn a_beginning_is_made_whole_with_the_rest_of_the_same_body() {
    let mut world = holding_part("bytes 0-4/10", "01234", &[("etag", "\"a\"")]);
    world.serve("56789", 0, &[FRESH, &[("etag", "\"a\""), ("content-range", "bytes 5-9/10"), ("x", "new")]].concat());
    world.origin.as_mut().unwrap().0 = 206;
    let got = world.get();
    assert_eq!((got.status, got.body), (200, Some(DIGITS)));
    assert_eq!(sent(&world.fetches[1]), [("range", "bytes=5-"), ("if-range", "\"a\"")]);
    let stored = &world.kv["GET /x"];
    assert_eq!((stored.body, stored.head.status, stored.head.fields.get("x")), (DIGITS, 200, Some("new")));
    assert!(!stored.head.fields.has("content-range"));
    assert_eq!(brief(world.get()), got_hit());
    assert_eq!(world.fetches.len(), 2);
}

fn got_hit() -> (Phase, Option<Body>) {
    (Phase::Hit, Some(DIGITS))
}

/// A request for the whole, up to what follows from origin's first answer.
fn until_answered(world: &mut World) -> (Lookup<Body>, Step<Body>) {
    let (mut lookup, step) = world.start(request(&[]));
    let Step::Fetch(fetch) = world.until_fetch(&mut lookup, step) else { panic!("no fetch") };
    let step = world.answer_fetch(&mut lookup, fetch);
    (lookup, step)
}

#[test]
fn a_rest_that_may_be_of_another_body_is_not_joined() {
    let table: [(&str, &[(&str, &str)]); 5] = [
        ("\"a\"", &[("etag", "\"b\""), ("content-range", "bytes 5-9/10")]),
        ("W/\"a\"", &[("etag", "W/\"a\""), ("content-range", "bytes 5-9/10")]),
        ("\"a\"", &[("etag", "\"a\""), ("content-range", "bytes 5-8/10")]),
        ("\"a\"", &[("etag", "\"a\""), ("content-range", "bytes 6-9/10")]),
        ("\"a\"", &[("etag", "\"a\""), ("content-range", "bytes 5-10/11")]),
    ];
    for (etag, fields) in table {
        let mut world = holding_part("bytes 0-4/10", "01234", &[("etag", etag)]);
        world.serve("56789", 0, &[FRESH, fields].concat());
        world.origin.as_mut().unwrap().0 = 206;
        let (_, Step::Fetch(again)) = until_answered(&mut world) else { panic!("{fields:?}") };
        assert!(again.fields.is_empty(), "the whole is asked for: {again:?}");
    }
}

#[test]
fn a_beginning_whose_rest_could_not_be_joined_is_not_tried_again() {
    let rest = |tag: &'static str| [("etag", tag), ("content-range", "bytes 5-9/10")];
    for (held, fields) in [("W/\"a\"", rest("W/\"a\"")), ("\"a\"", rest("\"b\""))] {
        let mut world = holding_part("bytes 0-4/10", "01234", &[("etag", held)]);
        world.serve("56789", 0, &[FRESH, &fields].concat());
        world.origin.as_mut().unwrap().0 = 206;
        let (mut lookup, again) = until_answered(&mut world);
        // Never to be stored, so that the next one asks, too.
        world.serve(DIGITS, 0, &[("cache-control", "no-store")]);
        assert_eq!(world.finish(&mut lookup, again).body, Some(DIGITS));
        assert_eq!(world.fetches.len(), 3, "{held}");
        assert_eq!(world.get().body, Some(DIGITS));
        assert_eq!(world.fetches.len(), 4, "{held}");
        assert!(world.fetches[3].fields.is_empty(), "{held}: {:?}", world.fetches[3]);
    }
}

/// RFC 9110 section 13.2.2: first whether the client has it already, then its range.
#[test]
fn who_asks_for_a_range_of_what_it_has_is_told_so_by_origins_answer_too() {
    for (tag, not_modified) in [("\"a\"", true), ("\"b\"", false)] {
        let mut world = World::new(LogOwner::Origin);
        world.serve("01", 0, &[FRESH, &[("etag", "\"a\""), ("content-range", "bytes 0-1/10")]].concat());
        world.origin.as_mut().unwrap().0 = 206;
        let got = world.ask(request(&[("range", "bytes=0-1"), ("if-none-match", tag), ("accept-encoding", "gzip")]));
        assert_eq!(got.not_modified, not_modified, "{tag}: {got:?}");
    }
}

#[test]
fn a_rest_that_is_purged_while_it_is_read_is_asked_for_anew() {
    let mut world = holding_part("bytes 0-4/10", "01234", &[("etag", "\"a\"")]);
    world.serve("56789", 0, &[FRESH, &[("etag", "\"a\""), ("content-range", "bytes 5-9/10")]].concat());
    world.origin.as_mut().unwrap().0 = 206;
    let (mut lookup, join) = until_answered(&mut world);
    assert!(matches!(join, Step::Join { .. }), "{join:?}");
    world.purge(1, PurgeMode::Hard, &["a"]);
    world.sync();
    world.serve("new", 1, FRESH);
    let step = lookup.step(&mut world.engine, Event::Joined(Some((DIGITS, 10))), world.now_ms);
    let got = world.finish(&mut lookup, step);
    assert_eq!((got.status, got.body), (200, Some("new")), "{got:?}");
}

#[test]
fn a_whole_that_may_not_be_stored_makes_nobody_wait_for_the_next_one() {
    let mut world = holding_part("bytes 0-4/10", "01234", &[("etag", "\"a\"")]);
    let private = [("cache-control", "no-store"), ("etag", "\"a\""), ("content-range", "bytes 5-9/10")];
    world.serve("56789", 0, &private);
    world.origin.as_mut().unwrap().0 = 206;
    let (mut lookup, join) = until_answered(&mut world);
    assert!(matches!(join, Step::Join { .. }), "{join:?}");
    let step = lookup.step(&mut world.engine, Event::Joined(Some((DIGITS, 10))), world.now_ms);
    let got = world.finish(&mut lookup, step);
    assert_eq!((got.status, got.body), (200, Some(DIGITS)), "{got:?}");
    let now_ms = world.now_ms;
    // Two who come now each ask for the whole at once: one after another they would wait for what nobody stores.
    for _ in 0..2 {
        let (mut lookup, step) = world.start(request(&[]));
        let Step::Fetch(fetch) = world.until_fetch(&mut lookup, step) else { panic!("no fetch") };
        assert_eq!(sent(&fetch), []);
    }
    assert_eq!(world.now_ms, now_ms);
}

#[test]
fn who_has_the_whole_that_a_part_is_of_is_told_so() {
    let mut world = holding_part("bytes 4-9/10", "456789", &[("etag", "\"a\"")]);
    let fields = [("range", "bytes=6-8"), ("if-none-match", "\"a\"")];
    let got = world.ask(request(&fields));
    assert_eq!((got.phase, got.not_modified), (Phase::Hit, true), "{got:?}");
    let other = world.ask(request(&[("range", "bytes=6-8"), ("if-none-match", "\"b\"")]));
    assert_eq!((other.status, other.body), (206, Some("678")), "{other:?}");
}

#[test]
fn a_rest_that_breaks_off_is_not_joined() {
    let mut world = holding_part("bytes 0-4/10", "01234", &[("etag", "\"a\"")]);
    world.serve("567", 0, &[FRESH, &[("etag", "\"a\""), ("content-range", "bytes 5-9/10")]].concat());
    world.origin.as_mut().unwrap().0 = 206;
    let (mut lookup, join) = until_answered(&mut world);
    assert!(matches!(join, Step::Join { rest_bytes_max: 5, .. }), "{join:?}");
    world.serve(DIGITS, 0, FRESH);
    let event = Event::Joined(Some(("01234567", 8)));
    let step = lookup.step(&mut world.engine, event, world.now_ms);
    assert_eq!(brief(world.finish(&mut lookup, step)), (Phase::Miss, Some(DIGITS)));
}

fn head() -> Request {
    Request { is_head: true, ..request(&[]) }
}

#[test]
fn a_head_freshens_what_is_stored_if_it_names_the_same_validator() {
    for (validator, phase) in [("\"a\"", Phase::Hit), ("\"b\"", Phase::Revalidated)] {
        let mut world = World::new(LogOwner::Origin);
        world.serve(DIGITS, 0, &[("cache-control", "max-age=1"), ("etag", "\"a\"")]);
        world.get();
        world.now_ms += 5_000;
        world.serve("", 0, &[("cache-control", "max-age=60"), ("etag", validator)]);
        world.ask(head());
        world.serve("", 0, &[("cache-control", "max-age=1"), ("etag", "\"a\"")]);
        world.origin.as_mut().unwrap().0 = 304;
        assert_eq!(world.get().phase, phase, "{validator}");
    }
}

#[test]
fn a_head_without_a_validator_does_not_undo_a_purge() {
    let mut world = holding(&[]);
    world.purge(1, PurgeMode::Soft, &["a"]);
    world.now_ms += 2_000;
    world.serve("", 1, &[FRESH, &[("content-length", "10")]].concat());
    world.ask(head());
    assert_ne!(world.get().phase, Phase::Hit);
}

#[test]
fn who_wants_one_language_most_gets_the_answer_in_it_while_it_is_fresh() {
    let mut world = World::new(LogOwner::Origin);
    let wanting = |languages| request(&[("accept-language", languages)]);
    world.serve("deutsch", 0, &[FRESH, &[("vary", "accept-language"), ("content-language", "de")]].concat());
    world.ask(wanting("en, de"));
    assert_eq!(brief(world.ask(wanting("fr;q=0.5, de;q=1.0"))), (Phase::Hit, Some("deutsch")));
    world.serve("fran\u{e7}ais", 0, &[FRESH, &[("vary", "accept-language"), ("content-language", "fr")]].concat());
    assert_eq!(world.ask(wanting("fr, de;q=0.5")).body, Some("fran\u{e7}ais"), "another most wanted one");
    world.purge(1, PurgeMode::Soft, &["a"]);
    world.now_ms += 2_000;
    world.serve("neu", 1, &[FRESH, &[("vary", "accept-language"), ("content-language", "de")]].concat());
    assert_eq!(world.ask(wanting("it;q=0.5, de")).body, Some("neu"), "purged like the answer it is");
}

#[test]
fn an_answer_in_a_language_that_was_a_second_choice_is_not_given_to_who_wants_it_most() {
    let mut world = World::new(LogOwner::Origin);
    let wanting = |languages| request(&[("accept-language", languages)]);
    world.serve("british", 0, &[FRESH, &[("vary", "accept-language"), ("content-language", "en")]].concat());
    world.ask(wanting("en-GB, en;q=0.8"));
    world.serve("plain", 0, &[FRESH, &[("vary", "accept-language"), ("content-language", "en")]].concat());
    assert_eq!(world.ask(wanting("en")).body, Some("plain"));
}

#[test]
fn every_answer_can_be_purged_by_its_url() {
    let mut world = World::new(LogOwner::Origin);
    world.serve("v1", 0, &[("cache-control", "max-age=60"), ("vary", "x")]);
    world.ask(request(&[("x", "1")]));
    world.purge(1, PurgeMode::Hard, &[url_key("/x").as_str()]);
    world.now_ms += 2_000;
    world.serve("v2", 1, &[("cache-control", "max-age=60"), ("vary", "x")]);
    assert_eq!(world.ask(request(&[("x", "1")])).body, Some("v2"), "variants too");
    world.purge(2, PurgeMode::Hard, &[url_key("/y").as_str()]);
    world.now_ms += 2_000;
    assert_eq!(world.ask(request(&[("x", "1")])).phase, Phase::Hit, "and no other");
}

#[test]
fn an_answer_to_a_post_is_kept_only_with_a_lifetime_of_its_own() {
    let world = World::new(LogOwner::Journal);
    let as_of: AsOf = "log:3".parse().unwrap();
    let planned = |status, fields: &[(&str, &str)]| {
        let fields: Fields = fields.iter().copied().collect();
        let head = ResponseHead { status, fields, request_time_ms: world.now_ms, response_time_ms: world.now_ms };
        plan_written(&world.engine, &request(&[]), &head, as_of.clone(), 0).map(|plan| plan.body_bytes_max)
    };
    let fresh = ("cache-control", "max-age=60");
    assert!(planned(200, &[fresh]).is_ok() && planned(201, &[fresh]).is_ok());
    for (status, fields) in [(200, &[("etag", "\"a\"")][..]), (303, &[fresh]), (206, &[fresh]), (404, &[fresh])] {
        assert_eq!(planned(status, fields), Err(Reason::Method), "{status} {fields:?}");
    }
    assert_eq!(planned(200, &[("cache-control", "private, max-age=60")]), Err(Reason::Private));
}

#[test]
fn a_guessed_lifetime_is_used_where_the_operator_allows_it() {
    for (heuristic_freshness, phase) in [(true, Phase::Hit), (false, Phase::Revalidated)] {
        let mut world = World::new(LogOwner::Origin);
        let config = surrogate_cache::Config {
            rules: Rules { heuristic_freshness, ..Rules::default() },
            ..world.engine.config.clone()
        };
        world.engine = surrogate_cache::Engine::new(config);
        world.serve("v1", 0, &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        world.get();
        world.now_ms += 1_000;
        world.serve("", 0, &[]);
        world.origin.as_mut().unwrap().0 = 304;
        assert_eq!(world.get().phase, phase);
    }
}

#[test]
fn a_304_about_another_answer_is_used_once_and_changes_nothing() {
    let mut world = World::new(LogOwner::Origin);
    world.serve("v1", 0, &[("cache-control", "max-age=1"), ("etag", "\"a\"")]);
    world.get();
    world.now_ms += 5_000;
    world.serve("", 0, &[("cache-control", "max-age=60"), ("etag", "\"b\"")]);
    world.origin.as_mut().unwrap().0 = 304;
    for _ in 0..2 {
        assert_eq!(brief(world.get()), (Phase::Revalidated, Some("v1")), "the next request asks again");
    }
}

#[test]
fn a_stale_answer_in_the_wanted_language_is_not_what_is_revalidated_for_another_request() {
    let mut world = World::new(LogOwner::Origin);
    let fields =
        [("cache-control", "max-age=1"), ("vary", "accept-language"), ("content-language", "de"), ("etag", "\"a\"")];
    world.serve("deutsch", 0, &fields);
    world.ask(request(&[("accept-language", "en, de")]));
    world.now_ms += 5_000;
    world.ask(request(&[("accept-language", "fr;q=0.5, de")]));
    assert!(world.fetches[1].fields.is_empty(), "{:?}", world.fetches[1]);
}

#[test]
fn with_s_maxage_only_the_stale_use_that_was_granted_is_made() {
    let granted = |window: &str| format!("s-maxage=1, {window}");
    let table = [
        (granted("stale-if-error=60"), Phase::StaleError, Phase::StaleError),
        (granted("stale-while-revalidate=60"), Phase::Stale, Phase::Stale),
        (granted("stale-if-error=0"), Phase::Failed, Phase::Failed),
        ("s-maxage=1".to_string(), Phase::Failed, Phase::Failed),
        ("max-age=1".to_string(), Phase::Failed, Phase::Stale),
    ];
    for (control, plain, lenient) in table {
        for (request, phase) in [
            (request(&[]), plain),
            (request(&[("cache-control", "max-stale")]), lenient),
            (request(&[("cache-control", "max-stale=60, stale-if-error=60")]), lenient),
        ] {
            let mut world = World::new(LogOwner::Origin);
            world.serve("v1", 0, &[("cache-control", &control), ("etag", "\"a\"")]);
            world.get();
            world.now_ms += 10_000;
            world.sync();
            world.origin = None;
            assert_eq!(world.ask(request.clone()).phase, phase, "{control}, {request:?}");
        }
    }
}

#[test]
fn a_digest_of_one_part_is_not_kept_for_the_whole() {
    let digest = |of: &'static str| [("content-digest", of), ("content-md5", of), ("repr-digest", "whole")];
    let mut world = holding_part("bytes 0-4/10", "01234", &[&[("etag", "\"a\"")], &digest("first")[..]].concat());
    let rest = [&[("etag", "\"a\""), ("content-range", "bytes 5-9/10")], &digest("rest")[..]].concat();
    world.serve("56789", 0, &[FRESH, &rest].concat());
    world.origin.as_mut().unwrap().0 = 206;
    assert_eq!(world.get().body, Some(DIGITS));
    let fields = &world.kv["GET /x"].head.fields;
    assert!(!fields.has("content-digest") && !fields.has("content-md5"));
    assert_eq!(
        fields.get("repr-digest"),
        Some("whole"),
        "that of the representation holds for each part and the whole"
    );
}

#[test]
fn a_part_of_a_packed_body_is_cut_only_for_who_takes_it_packed() {
    let packed = |fields: &[(&str, &str)]| request(&[&[("range", "bytes=5-6")], fields].concat());
    let mut world = holding_part("bytes 4-9/10", "456789", &[("content-encoding", "gzip")]);
    assert_eq!(world.ask(packed(&[("accept-encoding", "gzip")])).body, Some("56"));
    world.serve(DIGITS, 0, &[FRESH, &[("content-encoding", "gzip")]].concat());
    let whole = world.ask(packed(&[]));
    assert_eq!((whole.status, whole.body), (200, Some(DIGITS)));
    assert!(world.fetches[1].fields.is_empty(), "the whole is asked for: {:?}", world.fetches[1]);
}

#[test]
fn a_part_of_a_packed_body_is_not_passed_on_to_who_does_not_take_it_packed() {
    for accepted in [&[][..], &[("accept-encoding", "identity")]] {
        let mut world = World::new(LogOwner::Origin);
        world.serve("01", 0, &[FRESH, &[("content-range", "bytes 0-1/10"), ("content-encoding", "gzip")]].concat());
        world.origin.as_mut().unwrap().0 = 206;
        let (mut lookup, step) = world.start(request(&[&[("range", "bytes=0-1")], accepted].concat()));
        let Step::Fetch(fetch) = world.until_fetch(&mut lookup, step) else { panic!("no fetch") };
        let step = world.answer_fetch(&mut lookup, fetch);
        let Step::Fetch(again) = &step else { panic!("{step:?}") };
        assert!(again.fields.is_empty(), "the whole is asked for: {again:?}");
        let still = world.finish(&mut lookup, step);
        assert_eq!((still.phase, still.status), (Phase::Failed, 502), "a part of what was asked for whole");
    }
}
