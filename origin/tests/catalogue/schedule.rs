//! What happens by itself at its time: no moment is lost, whoever is slow or down, and no page outlives what it shows.
use super::{ANYBODY, Catalogue, in_s};
use kv_schemas::PurgeMode;
use origin::store::Store;
use serde_json::{Value, json};
use std::time::Duration;

fn in_ms(ms: i64) -> Value {
    let ms = jiff::Timestamp::now().as_millisecond() + ms;
    json!(jiff::Timestamp::from_millisecond(ms).unwrap().to_string())
}

async fn keys(catalogue: &Catalogue) -> Vec<String> {
    catalogue.last_purge().await.keys.iter().map(|key| key.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_passes_while_the_schedule_waits_for_its_turn_is_not_lost() {
    let catalogue = Catalogue::start().await;
    let (from, until) = (in_ms(3_000), in_ms(6_000));
    catalogue.put("titles/heat", json!({"name": "Heat", "available_from": from, "available_until": until})).await;
    // Seen from the beginning, and until the same moment.
    catalogue.put("titles/ronin", json!({"name": "Ronin", "available_until": until})).await;
    catalogue.put("titles/up", json!({"name": "Up", "available_from": from})).await;
    let before = catalogue.as_of().await.seq;
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    // Somebody else writes for longer than the first title is to be seen.
    let store = catalogue.app.store.clone();
    let taken = store.write().await.unwrap();
    let turn = tokio::spawn(async move { origin::schedule::turn(&store).await });
    tokio::time::sleep(Duration::from_millis(3_000)).await;
    drop(taken);
    turn.await.unwrap().unwrap();
    // Whatever it did when it had its turn, both are to have gone by now, and to have been purged where they were shown.
    while origin::schedule::turn(&catalogue.app.store).await.unwrap().is_some() {}
    let mut snapshot = catalogue.app.store.snapshot().await.unwrap();
    for (id, visible) in [("heat", false), ("ronin", false), ("up", true)] {
        let title = snapshot.title(id).await.unwrap().unwrap();
        assert_eq!((title.visible, title.version > 1), (visible, true), "{id}");
    }
    let purges = snapshot.purges_after(before, 10).await.unwrap();
    let of = |mode: PurgeMode, reason: &str, id: &str| {
        let key = format!("title:{id}");
        let is_it = |purge: &&kv_schemas::Purge| (purge.mode, purge.reason.as_deref()) == (mode, Some(reason));
        purges.iter().filter(is_it).any(|purge| purge.keys.iter().any(|had| had.as_str() == key))
    };
    assert!(of(PurgeMode::Hard, "goes", "ronin") && of(PurgeMode::Soft, "appears", "up"), "{purges:?}");
    assert!(!of(PurgeMode::Soft, "appears", "heat"), "nobody was ever shown it: {purges:?}");
}

/// The schedule is kept by a process of its own, which sleeps until the next moment that it knows of.
#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_another_process_writes_is_kept_in_time() {
    let catalogue = Catalogue::start().await;
    catalogue.put("titles/heat", json!({"name": "Heat"})).await;
    let store = Store::connect(&catalogue.database.settings).await.unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    tokio::spawn(origin::schedule::run(store, stopped));
    tokio::time::sleep(Duration::from_millis(500)).await;
    catalogue.edit("PATCH", "titles/heat", json!({"available_until": in_ms(1_000)})).await;
    let edited = catalogue.as_of().await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let purges = catalogue.app.store.snapshot().await.unwrap().purges_after(edited.seq, 10).await.unwrap();
    let reasons: Vec<_> = purges.iter().filter_map(|purge| purge.reason.as_deref()).collect();
    assert_eq!(reasons, ["goes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_passed_while_the_service_was_down_is_not_lost_by_a_new_release() {
    let catalogue = Catalogue::start().await;
    catalogue.put("titles/heat", json!({"name": "Heat", "available_until": in_ms(3_000)})).await;
    catalogue.app.store.close().await;
    tokio::time::sleep(Duration::from_millis(3_050)).await;
    let upgrade = "UPDATE derived SET form = 0";
    catalogue.database.sql(upgrade, upgrade).await;
    let store = Store::connect(&catalogue.database.settings).await.unwrap();
    let derived = store.snapshot().await.unwrap().as_of.seq;
    origin::schedule::turn(&store).await.unwrap();
    let mut snapshot = store.snapshot().await.unwrap();
    let purges = snapshot.purges_after(derived, 10).await.unwrap();
    let brief: Vec<_> = purges.iter().map(|purge| (purge.mode, purge.reason.as_deref())).collect();
    assert_eq!(brief, [(PurgeMode::Hard, Some("goes"))]);
    assert!(!snapshot.title("heat").await.unwrap().unwrap().visible);
}

#[tokio::test]
async fn a_window_that_ends_sooner_purges_lists_that_would_have_shown_the_title_longer() {
    let catalogue = Catalogue::start().await;
    catalogue.put("titles/heat", json!({"name": "Heat"})).await;
    let has_lists = |keys: Vec<String>| keys.iter().any(|key| key == "card:heat");
    for (patch, expected) in [
        (json!({"available_until": in_s(7_200)}), true),
        (json!({"available_until": in_s(3_600)}), true),
        (json!({"available_until": in_s(7_200)}), false),
        (json!({"regions": {"DE": {"until": in_s(9_000)}}}), false),
        (json!({"regions": {"DE": {"until": in_s(60)}}}), true),
        (json!({"regions": {"DE": null, "FR": {"until": in_s(30)}}}), true),
        (json!({"synopsis": "New"}), false),
    ] {
        catalogue.edit("PATCH", "titles/heat", patch.clone()).await;
        let keys = keys(&catalogue).await;
        assert_eq!(keys.iter().any(|key| key.starts_with("crowd:")), expected, "{patch}: {keys:?}");
        assert_eq!(has_lists(keys), expected, "{patch}");
    }
}

#[tokio::test]
async fn home_outlives_no_rail_it_shows_not_even_as_stale() {
    let catalogue = Catalogue::start().await;
    catalogue.put("titles/heat", json!({"name": "Heat"})).await;
    let rail = json!({"title": "Today", "position": 1, "items": ["heat"], "until": in_s(100)});
    catalogue.put("rails/today", rail).await;
    let empty = json!({"title": "Nothing", "position": 2, "items": ["nobody"], "until": in_s(50)});
    catalogue.put("rails/nothing", empty).await;
    let got = catalogue.page("/v1/home", ANYBODY).await;
    let policy = got.header("cdn-cache-control").to_string();
    let seconds = |name: &str| {
        let value = policy.split(", ").find_map(|part| part.strip_prefix(&format!("{name}=")));
        value.map_or(0, |value| value.parse::<u64>().unwrap())
    };
    // An empty rail changes what is fresh, and bounds nothing: it is not shown.
    assert!(seconds("max-age") <= 50, "{policy}");
    for window in ["stale-while-revalidate", "stale-if-error"] {
        let whole = seconds("max-age") + seconds(window);
        assert!((90..=100).contains(&whole), "{window}: {policy}");
    }
}

#[tokio::test]
async fn a_genre_that_comes_back_with_a_title_nobody_sees_yet_is_purged() {
    let catalogue = Catalogue::start().await;
    let body = json!({"name": "Heat", "genres": ["War"], "state": "scheduled", "publish_at": in_ms(3_000),
        "available_from": in_s(3_600)});
    catalogue.put("titles/heat", body).await;
    let deleted = "UPDATE genre SET deleted_ms = 1 WHERE id = 'war'";
    catalogue.database.sql(deleted, deleted).await;
    tokio::time::sleep(Duration::from_millis(3_050)).await;
    origin::schedule::turn(&catalogue.app.store).await.unwrap();
    let heat = catalogue.app.store.snapshot().await.unwrap().title("heat").await.unwrap().unwrap();
    assert_eq!((heat.input.state.as_str(), heat.visible), ("published", false));
    assert_eq!(catalogue.staff_asks("ed", "GET", "genres/war", &Value::Null, &[]).await.status, 200, "it is back");
    let (purge, keys) = (catalogue.last_purge().await, keys(&catalogue).await);
    assert_eq!((purge.actor.as_deref(), keys.as_slice()), (Some("schedule"), ["genre:war".to_string()].as_slice()));
}

/// What its page names as being like it is a page of its own.
#[tokio::test]
async fn a_window_that_ends_sooner_purges_what_is_said_to_be_like_the_title() {
    let catalogue = Catalogue::start().await;
    catalogue.put("titles/heat", json!({"name": "Heat", "available_until": in_s(7_200)})).await;
    let similar = catalogue.page("/v1/titles/heat/similar", ANYBODY).await;
    let carried: Vec<_> = similar.header("surrogate-key").split(' ').map(String::from).collect();
    catalogue.edit("PATCH", "titles/heat", json!({"available_until": in_s(60)})).await;
    let keys = keys(&catalogue).await;
    assert!(keys.iter().any(|key| carried.contains(key)), "{carried:?} {keys:?}");
}
