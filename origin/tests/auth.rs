//! Accounts, sessions and private documents over the real router and a real database: what an honest client sees, and what
//! an attacker gets.
mod common;

use axum::http::StatusCode;
use common::people::{PASSWORD, People};
use kv_schemas::PurgeMode;
use kv_schemas::claims::{StaffRole, ViewerClaims};
use origin::auth::accounts;
use origin::import::{self, Report, mongo};
use origin::keys::EXPECT_VIEWER;
use serde_json::json;
use std::path::Path;

#[tokio::test]
async fn a_viewer_registers_logs_in_and_reads_what_is_hers() {
    let service = People::start().await;
    let registered =
        service.post("/auth/register", json!({"email": " Ada@Example.org", "password": PASSWORD, "name": "Ada"})).await;
    assert_eq!((registered.status, registered.json()), (StatusCode::ACCEPTED, json!({"status": "accepted"})));
    let tokens = service.log_in("ada@example.org").await;
    let claims: ViewerClaims = service.app.keys.verify(&tokens.access, EXPECT_VIEWER).unwrap();
    let me = service.get("/v1/me", &tokens.access).await;
    assert_eq!(me.status, StatusCode::OK);
    let profile = me.json();
    assert_eq!((&profile["email"], &profile["name"]), (&json!("ada@example.org"), &json!("Ada")));
    assert_eq!(profile["id"], claims.sub);
    assert_eq!((me.header("cache-control"), me.header("cdn-cache-control")), ("private, no-cache", "max-age=600"));
    assert_eq!(me.header("surrogate-key"), format!("viewer:{}", claims.sub));
    assert_eq!(me.header("surrogate-as-of"), claims.as_of.to_string());
    assert!(!me.body.contains("password") && !me.body.contains("argon2"), "{}", me.body);
}

#[tokio::test]
async fn the_published_keys_verify_what_is_issued() {
    let service = People::start().await;
    let tokens = service.viewer("ada@example.org").await;
    let jwks = service.get("/.well-known/jwks.json", "").await;
    assert_eq!(jwks.header("surrogate-key"), "jwks");
    assert!(!jwks.body.contains("\"d\""), "the private half stays here");
    let keys = tokens::KeySet::from_jwks(&jwks.body).unwrap();
    let claims: ViewerClaims = keys.verify(&tokens.access, EXPECT_VIEWER, origin::now_ms() / 1000).unwrap();
    assert_eq!(claims.sid, tokens.session);
}

#[tokio::test]
async fn a_refresh_token_works_once_and_its_reuse_ends_the_session() {
    let service = People::start().await;
    let first = service.viewer("ada@example.org").await;
    let second = service.refresh(&first.refresh).await.unwrap();
    assert_eq!(second.session, first.session, "one family");
    let third = service.refresh(&second.refresh).await.unwrap();
    assert_eq!(service.get("/v1/me", &third.access).await.status, StatusCode::OK);
    let before = service.as_of().await;
    assert_eq!(service.refresh(&first.refresh).await.unwrap_err(), "refresh-refused");
    let purge = service.last_purge().await;
    assert!(purge.seq > before.seq);
    assert_eq!((purge.mode, purge.keys[0].as_str()), (PurgeMode::Hard, format!("session:{}", first.session).as_str()));
    assert_eq!(service.refresh(&third.refresh).await.unwrap_err(), "refresh-refused", "the living one is over too");
    assert_eq!(service.get("/v1/me", &third.access).await.problem(), "token-revoked");
    let after = service.as_of().await;
    assert_eq!(service.refresh(&first.refresh).await.unwrap_err(), "refresh-refused");
    assert_eq!(service.as_of().await, after, "replaying it further does nothing");
}

#[tokio::test]
async fn of_refreshes_sent_at_once_one_at_most_is_good() {
    let service = People::start().await;
    let tokens = service.viewer("ada@example.org").await;
    let all = (0..8).map(|_| service.refresh(&tokens.refresh));
    let results = futures_util::future::join_all(all).await;
    assert!(results.iter().filter(|result| result.is_ok()).count() <= 1);
    assert_eq!(service.get("/v1/me", &tokens.access).await.problem(), "token-revoked");
}

#[tokio::test]
async fn logging_out_ends_one_session_and_everywhere_ends_all() {
    let service = People::start().await;
    let phone = service.viewer("ada@example.org").await;
    let tv = service.log_in("ada@example.org").await;
    let desk = service.log_in("ada@example.org").await;
    let out = service.post("/auth/logout", json!({"refresh_token": phone.refresh})).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    let purge = service.last_purge().await;
    assert_eq!(out.header("surrogate-as-of"), format!("{}:{}", service.as_of().await.log_id, purge.seq));
    assert_eq!(purge.keys[0].as_str(), format!("session:{}", phone.session));
    assert_eq!(service.get("/v1/me", &phone.access).await.problem(), "token-revoked");
    assert_eq!(service.get("/v1/me", &tv.access).await.status, StatusCode::OK);
    let devices = service.get("/auth/sessions", &tv.access).await.json();
    assert_eq!(devices["items"].as_array().unwrap().len(), 2);
    let gone = service.call("DELETE", &format!("/auth/sessions/{}", desk.session), &tv.access, None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(service.refresh(&desk.refresh).await.unwrap_err(), "refresh-refused");
    let everywhere = service.call("POST", "/auth/logout-everywhere", &tv.access, None).await;
    assert_eq!(everywhere.status, StatusCode::NO_CONTENT);
    assert_eq!(service.last_purge().await.keys[0].as_str(), format!("user:{}", service.subject(&tv)));
    assert_eq!(service.get("/v1/me", &tv.access).await.problem(), "token-revoked");
    assert_eq!(service.refresh(&tv.refresh).await.unwrap_err(), "refresh-refused");
    service.log_in("ada@example.org").await;
}

#[tokio::test]
async fn a_changed_password_ends_other_sessions_and_the_old_password() {
    let service = People::start().await;
    let mine = service.viewer("ada@example.org").await;
    let thief = service.log_in("ada@example.org").await;
    let change = |current: &str, new: &str| json!({"current_password": current, "new_password": new});
    let wrong =
        service.call("POST", "/auth/password", &mine.access, Some(change("not this one", "another good one"))).await;
    assert_eq!(wrong.problem(), "credentials");
    let weak = service.call("POST", "/auth/password", &mine.access, Some(change(PASSWORD, "password123"))).await;
    assert_eq!(weak.problem(), "body-invalid");
    let changed =
        service.call("POST", "/auth/password", &mine.access, Some(change(PASSWORD, "another good one"))).await;
    assert_eq!(changed.status, StatusCode::NO_CONTENT, "{changed:?}");
    assert_eq!(service.last_purge().await.keys[0].as_str(), format!("user:{}", service.subject(&mine)));
    assert_eq!(service.refresh(&thief.refresh).await.unwrap_err(), "refresh-refused");
    assert!(service.refresh(&mine.refresh).await.is_ok());
    let old = service.post("/auth/login", json!({"email": "ada@example.org", "password": PASSWORD})).await;
    assert_eq!(old.problem(), "credentials");
}

#[tokio::test]
async fn private_documents_are_their_viewers_alone() {
    let service = People::start().await;
    service.titles(&["heat", "up"]).await;
    let ada = service.viewer("ada@example.org").await;
    let eve = service.viewer("eve@example.org").await;
    for path in ["/v1/me/watch-list/heat", "/v1/me/watch-list/up"] {
        assert_eq!(service.call("PUT", path, &ada.access, None).await.status, StatusCode::NO_CONTENT);
        assert_eq!(service.last_purge().await.keys[0].as_str(), format!("viewer:{}", service.subject(&ada)));
    }
    let list = service.get("/v1/me/watch-list", &ada.access).await;
    assert_eq!(list.json()["items"].as_array().unwrap().len(), 2);
    assert!(list.header("surrogate-key").contains("card:heat"));
    assert_eq!(service.get("/v1/me/watch-list", &eve.access).await.json()["items"], json!([]));
    let before = service.as_of().await;
    let again = service.call("PUT", "/v1/me/watch-list/heat", &ada.access, None).await;
    assert_eq!((again.status, service.as_of().await), (StatusCode::NO_CONTENT, before.clone()), "nothing changed");
    service.call("DELETE", "/v1/me/watch-list/heat", &eve.access, None).await;
    assert_eq!(service.get("/v1/me/watch-list", &ada.access).await.json()["items"].as_array().unwrap().len(), 2);
    service.call("DELETE", "/v1/me/watch-list/heat", &ada.access, None).await;
    assert_eq!(service.get("/v1/me/watch-list", &ada.access).await.json()["items"][0]["id"], "up");
    assert_eq!(service.call("PUT", "/v1/me/watch-list/nothing", &ada.access, None).await.problem(), "not-found");
    for path in ["/v1/me", "/v1/me/watch-list", "/v1/me/continue-watching"] {
        assert_eq!(service.get(path, "").await.problem(), "token-missing", "{path}");
        // Naming somebody else in the URL or a header is not heard.
        let tricked = service.get(&format!("{path}?sub={}", service.subject(&ada)), &eve.access).await;
        assert!(!tricked.body.contains("ada@") && !tricked.body.contains("\"up\""), "{path}: {tricked:?}");
    }
}

#[tokio::test]
async fn private_lists_show_no_title_that_is_blocked_where_the_viewer_is() {
    let service = People::start().await;
    service.titles(&["heat"]).await;
    let ada = service.viewer("ada@example.org").await;
    let listed = service.call("PUT", "/v1/me/watch-list/heat", &ada.access, None).await;
    assert_eq!(listed.status, StatusCode::NO_CONTENT);
    let seen = json!({"position_s": 600, "duration_s": 6000});
    let begun = service.call("PUT", "/v1/me/progress/heat", &ada.access, Some(seen.clone())).await;
    assert_eq!(begun.status, StatusCode::NO_CONTENT);
    let block = json!({"regions": {"DE": {"blocked": true}}});
    let blocked = service
        .call_with("PATCH", "/admin/v1/titles/heat", &service.admin_token(), Some(block), &[("if-match", "*")])
        .await;
    assert_eq!(blocked.status, StatusCode::OK, "{blocked:?}");
    for path in ["/v1/me/watch-list", "/v1/me/continue-watching"] {
        for (region, count) in [("DE", 0), ("US", 1)] {
            let got = service.call_with("GET", path, &ada.access, None, &[("viewer-region", region)]).await;
            assert_eq!(got.json()["items"].as_array().unwrap().len(), count, "{path} in {region}");
        }
    }
    // Each list names what it shows and what it leaves out, so that a purge of either reaches it.
    let subject = service.subject(&ada);
    for path in ["/v1/me/watch-list", "/v1/me/continue-watching"] {
        for (region, key) in [("DE", "unseen:heat"), ("US", "card:heat")] {
            let got = service.call_with("GET", path, &ada.access, None, &[("viewer-region", region)]).await;
            assert_eq!(got.header("surrogate-key"), format!("viewer:{subject} {key}"), "{path} in {region}");
        }
    }
    let allow = json!({"regions": {"DE": {"blocked": false}}});
    let fields = [("if-match", "*")];
    service.call_with("PATCH", "/admin/v1/titles/heat", &service.admin_token(), Some(allow), &fields).await;
    let purged: Vec<_> = service.last_purge().await.keys.iter().map(ToString::to_string).collect();
    assert!(["unseen:heat", "card:heat"].iter().all(|key| purged.iter().any(|one| one == key)), "{purged:?}");
    let block = json!({"regions": {"DE": {"blocked": true}}});
    service.call_with("PATCH", "/admin/v1/titles/heat", &service.admin_token(), Some(block), &fields).await;
    let there = [("viewer-region", "DE")];
    let refused = service.call_with("PUT", "/v1/me/progress/heat", &ada.access, Some(seen), &there).await;
    assert_eq!(refused.problem(), "not-found");
    let refused = service.call_with("PUT", "/v1/me/watch-list/heat", &ada.access, None, &there).await;
    assert_eq!(refused.problem(), "not-found");
}

#[tokio::test]
async fn private_lists_show_titles_as_all_lists_do_in_the_accounts_language_or_else_the_requests() {
    let service = People::start().await;
    let heat = json!({"name": "Heat", "kind": "film", "year": 1995, "maturity": "R", "genres": ["Crime"], "rating": 8.3,
        "translations": {"de": {"name": "Hitze"}, "fr": {"name": "Chaleur"}},
        "images": [{"kind": "poster", "url": "/media/plain"}, {"kind": "poster", "url": "/media/de", "locale": "de"}]});
    let put = service.call("PUT", "/admin/v1/titles/heat", &service.admin_token(), Some(heat)).await;
    assert_eq!(put.status, StatusCode::CREATED, "{put:?}");
    let ada = service.viewer("ada@example.org").await;
    service.call("PUT", "/v1/me/watch-list/heat", &ada.access, None).await;
    let seen = json!({"position_s": 600, "duration_s": 6000, "episode_id": "pilot"});
    service.call("PUT", "/v1/me/progress/heat", &ada.access, Some(seen)).await;
    let own = [
        ("/v1/me/watch-list", &["added_at"][..]),
        ("/v1/me/continue-watching", &["episode_id", "position_s", "duration_s", "updated_at"][..]),
    ];
    let item_in = async |path: &str, token: &str, locale: &str| {
        let got = service.call_with("GET", path, token, None, &[("viewer-locale", locale)]).await;
        got.json()["items"][0].as_object().unwrap_or_else(|| panic!("{path}: {got:?}")).clone()
    };
    for (locale, name, poster) in
        [("en", "Heat", "/media/plain"), ("de", "Hitze", "/media/de"), ("ja", "Heat", "/media/plain")]
    {
        let listed = item_in("/v1/catalog", "", locale).await;
        assert_eq!((&listed["name"], &listed["poster"]), (&json!(name), &json!(poster)), "{locale}");
        for (path, besides) in own {
            let mut item = item_in(path, &ada.access, locale).await;
            assert!(besides.iter().all(|name| item.remove(*name).is_some()), "{path}: {item:?}");
            assert_eq!(item, listed, "{path} in {locale}");
        }
    }
    // The account's own language is meant wherever she is.
    service.call("PATCH", "/v1/me", &ada.access, Some(json!({"locale": "fr"}))).await;
    let ada = service.refresh(&ada.refresh).await.unwrap();
    for (path, _) in own {
        assert_eq!(item_in(path, &ada.access, "de").await["name"], "Chaleur", "{path}");
    }
}

#[tokio::test]
async fn progress_shows_in_continue_watching_and_purges_at_a_bounded_rate() {
    let service = People::start().await;
    service.titles(&["heat", "up"]).await;
    let ada = service.viewer("ada@example.org").await;
    let watch = |title: &'static str, position_s: i64| {
        let (service, ada) = (&service, &ada);
        async move {
            let body = json!({"position_s": position_s, "duration_s": 6000});
            let put = service.call("PUT", &format!("/v1/me/progress/{title}"), &ada.access, Some(body)).await;
            assert_eq!(put.status, StatusCode::NO_CONTENT, "{put:?}");
            service.as_of().await.seq
        }
    };
    let before = service.as_of().await.seq;
    let begun = watch("heat", 600).await;
    assert_eq!(begun, before + 1, "it appears");
    for position_s in 601..620 {
        assert_eq!(watch("heat", position_s).await, begun, "within half a minute");
    }
    let list = service.get("/v1/me/continue-watching", &ada.access).await.json();
    assert_eq!((&list["items"][0]["id"], &list["items"][0]["position_s"]), (&json!("heat"), &json!(619)));
    assert_eq!(watch("up", 600).await, begun + 1, "another one appears at once");
    assert_eq!(watch("heat", 5900).await, begun + 2, "a finished one goes at once");
    let list = service.get("/v1/me/continue-watching", &ada.access).await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    for bad in [
        json!({"position_s": -1, "duration_s": 10}),
        json!({"position_s": 11, "duration_s": 10}),
        json!({"position_s": 1, "duration_s": 999_999}),
        json!({"position_s": 1, "duration_s": 10, "episode_id": "../x"}),
    ] {
        let refused = service.call("PUT", "/v1/me/progress/heat", &ada.access, Some(bad)).await;
        assert_eq!(refused.problem(), "body-invalid");
    }
}

#[tokio::test]
async fn progress_is_read_by_title_and_forgotten_and_both_are_its_viewers_alone() {
    let service = People::start().await;
    service.titles(&["heat", "up"]).await;
    let (ada, eve) = (service.viewer("ada@example.org").await, service.viewer("eve@example.org").await);
    let (heat, up) = ("/v1/me/progress/heat", "/v1/me/progress/up");
    let put = async |token: &str, path: &str, body: serde_json::Value| {
        let put = service.call("PUT", path, token, Some(body)).await;
        assert_eq!(put.status, StatusCode::NO_CONTENT, "{path}: {put:?}");
    };
    let of_heat = json!({"position_s": 600, "duration_s": 6000, "episode_id": "pilot"});
    put(&ada.access, heat, of_heat.clone()).await;
    // Not begun: it stands in no list, and is kept all the same.
    put(&ada.access, up, json!({"position_s": 1, "duration_s": 6000})).await;
    let got = service.get(heat, &ada.access).await;
    assert_eq!((got.status, got.header("cache-control")), (StatusCode::OK, "no-store"), "{got:?}");
    assert_eq!(got.header("surrogate-as-of"), service.as_of().await.to_string());
    let (mut json, listed) = (got.json(), service.get("/v1/me/continue-watching", &ada.access).await.json());
    assert_eq!(json["updated_at"], listed["items"][0]["updated_at"]);
    json.as_object_mut().unwrap().remove("updated_at").unwrap();
    assert_eq!(json, of_heat);
    let of_up = service.get(up, &ada.access).await.json();
    assert!(of_up["position_s"] == 1 && of_up.get("episode_id").is_none(), "{of_up}");
    for (path, token) in [(heat, &eve.access), ("/v1/me/progress/nothing", &ada.access)] {
        assert_eq!(service.get(path, token).await.problem(), "not-found", "{path}");
    }
    let forget = async |token: &str, path: &str| {
        let gone = service.call("DELETE", path, token, None).await;
        assert_eq!(gone.status, StatusCode::NO_CONTENT, "{path}: {gone:?}");
        service.as_of().await.seq
    };
    let before = service.as_of().await.seq;
    assert_eq!(forget(&eve.access, heat).await, before, "another's");
    assert_eq!(service.get(heat, &ada.access).await.status, StatusCode::OK);
    assert_eq!(forget(&ada.access, up).await, before, "no list shows it");
    assert_eq!(service.get(up, &ada.access).await.problem(), "not-found");
    assert_eq!(forget(&ada.access, heat).await, before + 1, "it leaves a list");
    let purge = service.last_purge().await;
    let own = format!("viewer:{}", service.subject(&ada));
    assert_eq!((purge.mode, purge.keys[0].as_str(), purge.keys.len()), (PurgeMode::Hard, own.as_str(), 1));
    assert_eq!(service.get(heat, &ada.access).await.problem(), "not-found");
    assert_eq!(service.get("/v1/me/continue-watching", &ada.access).await.json()["items"], json!([]));
    for path in [heat, "/v1/me/progress/nothing"] {
        assert_eq!(forget(&ada.access, path).await, before + 1, "{path}: again, and what there never was");
    }
}

#[tokio::test]
async fn of_a_viewers_lists_what_was_touched_longest_ago_makes_room() {
    const KEPT: usize = 500;
    const SHOWN: usize = 50;
    let service = People::start().await;
    let lines: String =
        (0..=KEPT + 1).map(|n| format!("{{\"type\":\"title\",\"id\":\"t{n}\",\"name\":\"T\"}}\n")).collect();
    import::text(&service.app.store, &lines).await.unwrap();
    let ada = service.viewer("ada@example.org").await;
    let id = service.subject(&ada);
    // Full, and the first the oldest.
    service.keeps_titles(&id, KEPT).await;
    let listed = async |list: &str| -> Vec<String> {
        let json = service.get(&format!("/v1/me/{list}"), &ada.access).await.json();
        json["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_string()).collect()
    };
    let last = |until: usize, count: usize| (until + 1 - count..=until).rev().map(|n| format!("t{n}"));
    let put = async |path: String, body: Option<serde_json::Value>| {
        let put = service.call("PUT", &path, &ada.access, body).await;
        assert_eq!(put.status, StatusCode::NO_CONTENT, "{path}: {put:?}");
    };
    assert_eq!(listed("watch-list").await, last(KEPT - 1, KEPT).collect::<Vec<_>>(), "all of it");
    put(format!("/v1/me/watch-list/t{KEPT}"), None).await;
    assert_eq!(listed("watch-list").await, last(KEPT, KEPT).collect::<Vec<_>>(), "the first made room");
    let watched = async |n: usize, position_s: i64| {
        let body = json!({"position_s": position_s, "duration_s": 6_000});
        put(format!("/v1/me/progress/t{n}"), Some(body)).await;
        // Of one millisecond it is not said which comes first.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(listed("continue-watching").await, last(KEPT - 1, SHOWN).collect::<Vec<_>>(), "the last watched");
    // Watched again, the first is not the one that goes; nor is a place taken by what is finished or was not begun.
    watched(0, 600).await;
    watched(KEPT, 5_990).await;
    watched(KEPT + 1, 5).await;
    let shown: Vec<String> = ["t0".to_string()].into_iter().chain(last(KEPT - 1, SHOWN - 1)).collect();
    assert_eq!(listed("continue-watching").await, shown);
    assert_eq!(service.database.count("progress").await, i64::try_from(KEPT).unwrap());
    let mut write = service.app.store.write().await.unwrap();
    for (n, kept) in [(0, true), (1, false), (2, false), (3, true)] {
        assert_eq!(write.is_watching(&id, &format!("t{n}")).await.unwrap(), kept, "t{n}");
    }
}

#[tokio::test]
async fn private_lists_are_kept_no_longer_than_what_they_say_is_so() {
    let service = People::start().await;
    service.titles(&["heat", "up"]).await;
    let ada = service.viewer("ada@example.org").await;
    let policy = |path: &'static str| {
        let (service, ada) = (&service, &ada);
        async move { service.get(path, &ada.access).await.header("cdn-cache-control").to_string() }
    };
    let (watch_list, begun) = ("/v1/me/watch-list", "/v1/me/continue-watching");
    assert_eq!((policy(watch_list).await, policy(begun).await), ("max-age=600".into(), "max-age=600".into()));
    let seen = json!({"position_s": 600, "duration_s": 6000});
    service.call("PUT", "/v1/me/progress/heat", &ada.access, Some(seen)).await;
    // What is watched now says so every few seconds, mostly without a purge.
    assert_eq!((policy(watch_list).await, policy(begun).await), ("max-age=600".into(), "max-age=30".into()));
    for (ago_ms, wanted) in [(59_000, "max-age=30"), (61_000, "max-age=600")] {
        let mut write = service.app.store.write().await.unwrap();
        let logged_ms = i64::try_from(origin::now_ms()).unwrap() - ago_ms;
        write.progress_logged(&service.subject(&ada), logged_ms).await.unwrap();
        write.commit().await.unwrap();
        assert_eq!(policy(begun).await, wanted, "{ago_ms} ms after");
    }
    // A title that goes at a known time takes the list with it.
    service.call("PUT", "/v1/me/watch-list/up", &ada.access, None).await;
    let until = jiff::Timestamp::now() + std::time::Duration::from_secs(100);
    let ends = json!({"available_until": until.to_string()});
    let fields = [("if-match", "*")];
    let got = service.call_with("PATCH", "/admin/v1/titles/up", &service.admin_token(), Some(ends), &fields).await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    let left_s: u32 = policy(watch_list).await.trim_start_matches("max-age=").parse().unwrap();
    assert!((1..=100).contains(&left_s), "{left_s}");
}

#[tokio::test]
async fn a_profile_is_changed_within_bounds_and_what_tokens_say_ends_them() {
    let service = People::start().await;
    let ada = service.viewer("ada@example.org").await;
    let named = service.call("PATCH", "/v1/me", &ada.access, Some(json!({"name": "Countess"}))).await;
    assert_eq!((named.status, &named.json()["name"]), (StatusCode::OK, &json!("Countess")));
    let subject = service.subject(&ada);
    let keys = |purge: &kv_schemas::Purge| purge.keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(keys(&service.last_purge().await), [format!("viewer:{subject}")]);
    let limited = service.call("PATCH", "/v1/me", &ada.access, Some(json!({"maturity": 13, "locale": "de"}))).await;
    assert_eq!(limited.status, StatusCode::OK);
    assert_eq!(keys(&service.last_purge().await), [format!("viewer:{subject}"), format!("user:{subject}")]);
    let fresh = service.refresh(&ada.refresh).await.unwrap();
    let claims: ViewerClaims = service.app.keys.verify(&fresh.access, EXPECT_VIEWER).unwrap();
    assert_eq!((claims.maturity.years(), claims.locale.unwrap().as_str()), (13, "de"));
    assert!(claims.as_of.seq >= service.last_purge().await.seq, "younger than the purge");
    let back = service.call("PATCH", "/v1/me", &fresh.access, Some(json!({"locale": null}))).await;
    assert_eq!(back.json()["locale"], json!(null));
}

#[tokio::test]
async fn deleted_accounts_leave_nothing_behind() {
    let service = People::start().await;
    service.titles(&["heat"]).await;
    let ada = service.viewer("ada@example.org").await;
    service.call("PUT", "/v1/me/watch-list/heat", &ada.access, None).await;
    let body = json!({"position_s": 600, "duration_s": 6000});
    service.call("PUT", "/v1/me/progress/heat", &ada.access, Some(body)).await;
    let gone = service.call("DELETE", "/v1/me", &ada.access, None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let purge = service.last_purge().await;
    let subject = service.subject(&ada);
    let keys: Vec<_> = purge.keys.iter().map(ToString::to_string).collect();
    assert_eq!((purge.mode, keys), (PurgeMode::Hard, vec![format!("user:{subject}"), format!("viewer:{subject}")]));
    for table in ["account", "session", "refresh_token", "watch_item", "progress"] {
        assert_eq!(service.database.count(table).await, 0, "{table}");
    }
    assert_eq!(service.get("/v1/me", &ada.access).await.problem(), "token-revoked");
    assert_eq!(service.refresh(&ada.refresh).await.unwrap_err(), "refresh-refused");
}

#[tokio::test]
async fn an_admin_logs_a_viewer_out_everywhere_and_deletes_her_as_she_could_herself() {
    let service = People::start().await;
    service.titles(&["heat"]).await;
    let (admin, staff) = (service.admin_token(), service.staff("grace@example.org", StaffRole::Editor).await);
    let ada = service.viewer("ada@example.org").await;
    let (on_tv, eve) = (service.log_in("ada@example.org").await, service.viewer("eve@example.org").await);
    let subject = service.subject(&ada);
    service.call("PUT", "/v1/me/watch-list/heat", &ada.access, None).await;
    let body = json!({"position_s": 600, "duration_s": 6000});
    service.call("PUT", "/v1/me/progress/heat", &ada.access, Some(body)).await;
    let path = format!("/admin/v1/users/{subject}");
    let keys = |purge: &kv_schemas::Purge| purge.keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    let out = service.call("POST", &format!("{path}/logout-everywhere"), &admin, None).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT, "{out:?}");
    assert_eq!(out.header("surrogate-as-of"), service.as_of().await.to_string());
    let purge = service.last_purge().await;
    assert_eq!((purge.mode, keys(&purge)), (PurgeMode::Hard, vec![format!("user:{subject}")]));
    assert_eq!(purge.actor.as_deref(), Some("test"));
    for tokens in [&ada, &on_tv] {
        assert_eq!(service.get("/v1/me", &tokens.access).await.problem(), "token-revoked");
        assert_eq!(service.refresh(&tokens.refresh).await.unwrap_err(), "refresh-refused");
    }
    let again = service.log_in("ada@example.org").await;
    let list = service.get("/v1/me/watch-list", &again.access).await.json();
    assert_eq!(list["items"][0]["id"], "heat", "nothing else is lost");
    let gone = service.call("DELETE", &path, &admin, None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT, "{gone:?}");
    let purge = service.last_purge().await;
    let all_of_her = vec![format!("user:{subject}"), format!("viewer:{subject}")];
    assert_eq!((purge.mode, keys(&purge)), (PurgeMode::Hard, all_of_her));
    for table in ["watch_item", "progress"] {
        assert_eq!(service.database.count(table).await, 0, "{table}");
    }
    assert_eq!(service.get("/v1/me", &again.access).await.problem(), "token-revoked");
    let body = json!({"email": "ada@example.org", "password": PASSWORD});
    assert_eq!(service.post("/auth/login", body).await.problem(), "credentials");
    let before = service.as_of().await;
    for id in [&subject, &staff, "nobody"] {
        for (method, path) in
            [("DELETE", format!("/admin/v1/users/{id}")), ("POST", format!("/admin/v1/users/{id}/logout-everywhere"))]
        {
            assert_eq!(service.call(method, &path, &admin, None).await.problem(), "not-found", "{method} {path}");
        }
    }
    assert_eq!(service.as_of().await, before);
    assert_eq!(service.get("/v1/me", &eve.access).await.status, StatusCode::OK, "nobody else is out");
}

#[tokio::test]
async fn a_change_whose_purge_cannot_be_logged_never_was() {
    let service = People::start().await;
    let ada = service.viewer("ada@example.org").await;
    service.database.refuse_inserts("purge_log").await;
    for (method, path, body) in [
        ("POST", "/auth/logout", Some(json!({"refresh_token": ada.refresh}))),
        ("POST", "/auth/logout-everywhere", None),
        ("POST", "/auth/password", Some(json!({"current_password": PASSWORD, "new_password": "another good one"}))),
        ("PATCH", "/v1/me", Some(json!({"name": "Countess"}))),
        ("DELETE", "/v1/me", None),
    ] {
        let failed = service.call(method, path, &ada.access, body).await;
        assert_eq!(failed.problem(), "internal", "{path}");
        assert_eq!(service.get("/v1/me", &ada.access).await.json()["name"], "ada");
    }
    service.database.accept_inserts("purge_log").await;
    service.refresh(&ada.refresh).await.unwrap();
}

#[tokio::test]
async fn staff_are_made_without_a_default_password_and_logged_in_by_role() {
    let service = People::start().await;
    assert_eq!(service.database.count("account").await, 0, "nobody can log in to a new service");
    let id = service.staff("grace@example.org", StaffRole::Editor).await;
    let grace = service.log_in_as("/auth/staff", "grace@example.org").await;
    let written = service.call("PUT", "/admin/v1/titles/heat", &grace.access, Some(json!({"name": "Heat"}))).await;
    assert_eq!(written.status, StatusCode::CREATED, "{written:?}");
    assert_eq!(service.last_purge().await.actor.as_deref(), Some(id.as_str()));
    let all = service.call("POST", "/admin/v1/purges", &grace.access, Some(json!({"all": true}))).await;
    assert_eq!(all.problem(), "role");
    service.post("/auth/staff/logout", json!({"refresh_token": grace.refresh})).await;
    assert_eq!(service.get("/admin/v1/titles", &grace.access).await.problem(), "token-revoked");
}

#[tokio::test]
async fn a_session_ends_by_itself_and_is_taken_away() {
    let service = People::start().await;
    let ada = service.viewer("ada@example.org").await;
    let eve = service.viewer("eve@example.org").await;
    let over = format!("UPDATE session SET idle_end_ms = 1000 WHERE id = '{}'", ada.session);
    service.database.sql(&over, &over).await;
    assert_eq!(service.get("/v1/me", &ada.access).await.problem(), "token-revoked");
    assert_eq!(service.refresh(&ada.refresh).await.unwrap_err(), "refresh-refused");
    let kept = origin::sweep::Retention { keep_purges_days: 0, keep_audit_days: 0 };
    assert_eq!(origin::sweep::once(&service.app.store, kept).await.sessions, 1);
    assert_eq!((service.database.count("session").await, service.database.count("refresh_token").await), (1, 1));
    assert_eq!(service.get("/v1/me", &eve.access).await.status, StatusCode::OK);
}

/// As if all that is known of sessions were so much older.
async fn later(service: &People, ms: i64) {
    let columns = ["created_ms", "used_ms", "idle_end_ms", "end_ms"].map(|name| format!("{name} = {name} - {ms}"));
    let older = format!("UPDATE session SET {}", columns.join(", "));
    service.database.sql(&older, &older).await;
}

#[tokio::test]
async fn a_session_lives_as_long_as_it_is_refreshed_in_time_and_no_longer_than_any_may() {
    const HOUR: i64 = 3_600_000;
    // What a slow machine takes between two calls.
    const MARGIN: i64 = 120_000;
    let service = People::start().await;
    service.viewer("ada@example.org").await;
    service.staff("root@example.org", StaffRole::Admin).await;
    for (below, email, idle_ms, whole_ms) in [
        ("/auth", "ada@example.org", 30 * 24 * HOUR, 365 * 24 * HOUR),
        ("/auth/staff", "root@example.org", 24 * HOUR, 30 * 24 * HOUR),
    ] {
        let refresh = async |token: &str| {
            let got = service.post(&format!("{below}/refresh"), json!({"refresh_token": token})).await;
            match got.status {
                StatusCode::OK => Ok(got.json()),
                _ => Err(got.problem()),
            }
        };
        let token = |json: &serde_json::Value| json["refresh_token"].as_str().unwrap().to_string();
        let lives_ms = |json: &serde_json::Value| json["refresh_expires_in"].as_i64().unwrap() * 1_000;
        let about = |ms: i64, expected: i64| (expected - MARGIN..=expected).contains(&ms);
        // Not refreshed in time.
        let left = service.log_in_as(below, email).await;
        later(&service, idle_ms + 1_000).await;
        assert_eq!(refresh(&left.refresh).await.unwrap_err(), "refresh-refused", "{below}");
        // Always in time, for as long as any session may live.
        let mut refresh_token = service.log_in_as(below, email).await.refresh;
        let (mut age_ms, step_ms) = (0, idle_ms - MARGIN);
        while age_ms + step_ms < whole_ms - MARGIN {
            later(&service, step_ms).await;
            age_ms += step_ms;
            let next = refresh(&refresh_token).await.unwrap_or_else(|word| panic!("{below} after {age_ms}: {word}"));
            let left_ms = idle_ms.min(whole_ms - age_ms);
            assert!(about(lives_ms(&next), left_ms), "{below} after {age_ms}, {left_ms} left: {next}");
            refresh_token = token(&next);
        }
        later(&service, whole_ms - MARGIN - age_ms).await;
        let last = refresh(&refresh_token).await.unwrap_or_else(|word| panic!("{below} at the last: {word}"));
        later(&service, MARGIN).await;
        assert_eq!(refresh(&token(&last)).await.unwrap_err(), "refresh-refused", "{below}");
    }
}

#[tokio::test]
async fn the_device_used_longest_ago_makes_room() {
    let service = People::start().await;
    let first = service.viewer("ada@example.org").await;
    for _ in 1..origin::auth::SESSIONS_MAX {
        service.log_in("ada@example.org").await;
    }
    assert_eq!(service.get("/v1/me", &first.access).await.status, StatusCode::OK);
    let last = service.log_in("ada@example.org").await;
    assert_eq!(service.last_purge().await.keys[0].as_str(), format!("session:{}", first.session));
    assert_eq!(service.get("/v1/me", &first.access).await.problem(), "token-revoked");
    let devices = service.get("/auth/sessions", &last.access).await.json();
    assert_eq!(devices["items"].as_array().unwrap().len(), origin::auth::SESSIONS_MAX);
}

/// Brings in users of the old system.
async fn import_users(service: &People, users: &str) -> Report {
    let mapping = mongo::Mapping::default();
    let batch = import::read_collection(Path::new("users.json"), users, None, &mapping).unwrap();
    import::write(&service.app.store, batch, |_| {}).await.unwrap()
}

#[tokio::test]
async fn the_list_of_viewers_goes_on_after_any_id_an_import_brings() {
    let service = People::start().await;
    let ids = ["0b5c0f3e-7c1a-4f57-9d8c-5a1b2c3d4e5f", "user-17", "zoe"];
    let users = ids.map(|id| json!({"_id": id, "email": format!("{id}@example.org")}).to_string());
    let report = import_users(&service, &users.join("\n")).await;
    assert_eq!(report.viewers_created, 3, "{report}");
    let (mut cursor, mut listed) = (String::new(), Vec::new());
    loop {
        let got = service.get(&format!("/admin/v1/users?limit=1{cursor}"), &service.admin_token()).await;
        assert_eq!(got.status, StatusCode::OK, "{cursor}: {got:?}");
        let page = got.json();
        listed.extend(page["items"].as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap().to_string()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(listed, ids);
    for bad in ["User-17", "-", "a%00b", "a/b"] {
        let got = service.get(&format!("/admin/v1/users?cursor={bad}"), &service.admin_token()).await;
        assert_eq!(got.problem(), "query-invalid", "{bad}");
    }
}

#[tokio::test]
async fn an_import_says_which_viewers_have_the_address_of_another() {
    let service = People::start().await;
    service.viewer("ada@example.org").await;
    let users =
        concat!(r#"{"_id":"user-1","email":"Ada@example.org"}"#, "\n", r#"{"_id":"user-2","email":"eve@example.org"}"#);
    for created in [1, 0] {
        let report = import_users(&service, users).await;
        assert_eq!((report.viewers_created, report.viewers_unchanged), (created, 1 - created), "{report}");
        let foreign = &report.refused["the e-mail address of another viewer"];
        assert_eq!((foreign.count, foreign.examples.as_slice()), (1, ["user-1".to_string()].as_slice()), "{report}");
    }
}

#[tokio::test]
async fn viewers_whose_invitation_has_passed_are_invited_again_before_it_is_swept() {
    let service = People::start().await;
    import_users(&service, r#"{"_id":"user-1","email":"ada@example.org"}"#).await;
    let invite = async |lifetime_ms| accounts::invite_viewers(&service.app.store, "", 10, lifetime_ms).await.unwrap().0;
    assert_eq!(invite(-1).await.len(), 1);
    let again = invite(60_000).await;
    assert_eq!(again.len(), 1, "the first has passed");
    assert!(invite(60_000).await.is_empty(), "the second is open");
    let accept = json!({"invitation": again[0].invitation, "password": PASSWORD});
    assert_eq!(service.post("/auth/accept", accept).await.status, StatusCode::NO_CONTENT);
    assert_eq!(service.database.count("invitation").await, 0);
}

#[tokio::test]
async fn a_viewer_an_import_brought_is_invited_to_choose_a_password_and_logs_in() {
    let service = People::start().await;
    let users = concat!(
        r#"{"_id":{"$oid":"5f0000000000000000000001"},"email":"Ada@Example.org","name":"Ada","password":"$2b$10$x"}"#,
        "\n",
        r#"{"_id":{"$oid":"5f0000000000000000000002"},"email":"eve@example.org"}"#
    );
    let report = import_users(&service, users).await;
    assert_eq!(report.viewers_created, 2, "{report}");
    let log_in = |password: &str| {
        let body = json!({"email": "ada@example.org", "password": password});
        service.post("/auth/login", body)
    };
    for password in ["", PASSWORD, "$2b$10$x"] {
        assert_eq!(log_in(password).await.problem(), "credentials", "nobody before her");
    }
    let (invited, last) = accounts::invite_viewers(&service.app.store, "", 10, 60_000).await.unwrap();
    let emails: Vec<_> = invited.iter().map(|one| one.email.as_str()).collect();
    assert_eq!(emails, ["ada@example.org", "eve@example.org"]);
    let again = accounts::invite_viewers(&service.app.store, &last.unwrap(), 10, 60_000).await.unwrap();
    assert!(again.0.is_empty() && again.1.is_none());
    assert!(accounts::invite_viewers(&service.app.store, "", 10, 60_000).await.unwrap().0.is_empty(), "open ones stay");
    let accept = |path: &'static str, invitation: &str| {
        service.post(path, json!({"invitation": invitation, "password": PASSWORD}))
    };
    let staffs = accept("/auth/staff/accept", &invited[0].invitation).await;
    assert_eq!(staffs.problem(), "invitation-refused", "viewers are no staff");
    let taken = accept("/auth/accept", &invited[0].invitation).await;
    assert_eq!(taken.status, StatusCode::NO_CONTENT, "{taken:?}");
    assert_eq!(accept("/auth/accept", &invited[0].invitation).await.problem(), "invitation-refused", "once");
    let ada = service.log_in("ada@example.org").await;
    // Who forgot it: one at a time, by the command line or by an admin; a session there was is over.
    let one = accounts::invite_viewer(&service.app.store, " ADA@example.org", 60_000).await.unwrap();
    let path = format!("/admin/v1/users/{}/invitation", service.subject(&ada));
    let other = service.call("POST", &path, &service.admin_token(), None).await;
    assert_eq!(other.status, StatusCode::CREATED, "{other:?}");
    assert_eq!(accept("/auth/accept", &one.invitation).await.problem(), "invitation-refused", "void since the second");
    let second = other.json()["invitation"].as_str().unwrap().to_string();
    assert_eq!(accept("/auth/accept", &second).await.status, StatusCode::NO_CONTENT);
    assert_eq!(service.get("/v1/me", &ada.access).await.problem(), "token-revoked");
    for nobody in ["nobody@example.org", "no address"] {
        assert!(accounts::invite_viewer(&service.app.store, nobody, 60_000).await.is_err(), "{nobody}");
    }
    let over = accounts::invite_viewer(&service.app.store, "eve@example.org", -1).await.unwrap();
    assert_eq!(accept("/auth/accept", &over.invitation).await.problem(), "invitation-refused");
}

#[tokio::test]
async fn an_open_invitation_is_void_once_its_owner_chose_another_password_or_was_banned() {
    let service = People::start().await;
    let token = service.admin_token();
    let ada = service.viewer("ada@example.org").await;
    let grace = service.staff("grace@example.org", StaffRole::Editor).await;
    let change = json!({"current_password": PASSWORD, "new_password": "another battery"});
    for (below, path, email) in [
        ("/auth", format!("/admin/v1/users/{}", service.subject(&ada)), "ada@example.org"),
        ("/auth/staff", format!("/admin/v1/staff/{grace}"), "grace@example.org"),
    ] {
        let invite = async || {
            let invited = service.call("POST", &format!("{path}/invitation"), &token, None).await;
            assert_eq!(invited.status, StatusCode::CREATED, "{invited:?}");
            invited.json()["invitation"].as_str().unwrap().to_string()
        };
        let accept = async |invitation: &str| {
            let accept = json!({"invitation": invitation, "password": "a thief's own"});
            service.post(&format!("{below}/accept"), accept).await
        };
        let invitation = invite().await;
        let access = service.log_in_as(below, email).await.access;
        let changed = service.call("POST", &format!("{below}/password"), &access, Some(change.clone())).await;
        assert!(changed.status.is_success(), "{changed:?}");
        let got = accept(&invitation).await;
        assert_eq!((got.status, got.problem().as_str()), (StatusCode::UNAUTHORIZED, "invitation-refused"), "{below}");
        let invitation = invite().await;
        for banned in [true, false] {
            let put = service.call("PATCH", &path, &token, Some(json!({"banned": banned}))).await;
            assert_eq!(put.status, StatusCode::OK, "{put:?}");
        }
        assert_eq!(accept(&invitation).await.problem(), "invitation-refused", "{below}: banned meanwhile");
    }
}
