//! The lookup machine and origin's confirmations: what a 304 may bring into what is stored, and what it may not. One
//! fact a test.
mod world;

use std::time::{Duration, UNIX_EPOCH};
use surrogate_cache::{LogOwner, Phase};
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
