//! What editors may count on: asking twice, many at once, taking back what they deleted, and who did what.
use super::{ANYBODY, Catalogue, faults};
use axum::http::StatusCode;
use futures_util::FutureExt;
use futures_util::future::select_all;
use kv_schemas::PurgeMode;
use origin::import::{self, Present};
use serde_json::{Value, json};

async fn create(catalogue: &Catalogue, who: &str, key: &str, body: Value) -> crate::common::people::Got {
    catalogue.staff_asks(who, "POST", "titles", &body, &[("idempotency-key", key)]).await
}

#[tokio::test]
async fn a_create_asked_for_twice_with_one_key_is_done_once_and_answered_alike() {
    let catalogue = Catalogue::start().await;
    let first = create(&catalogue, "ed", "k1", json!({"name": "Heat"})).await;
    let seq = catalogue.as_of().await.seq;
    let again = create(&catalogue, "ed", "k1", json!({"name": "Heat"})).await;
    assert_eq!(first.status, StatusCode::CREATED);
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    for name in ["etag", "location", "surrogate-as-of", "content-type", "cache-control"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
    assert_eq!((catalogue.database.count("title").await, catalogue.as_of().await.seq), (1, seq), "nothing was written");
}

#[tokio::test]
async fn a_key_is_not_good_for_another_request() {
    let catalogue = Catalogue::start().await;
    create(&catalogue, "ed", "k1", json!({"name": "Heat"})).await;
    let other = create(&catalogue, "ed", "k1", json!({"name": "Ronin"})).await;
    assert_eq!((other.status.as_u16(), other.problem().as_str()), (422, "idempotency-key-reused"));
    let path =
        catalogue.staff_asks("ed", "POST", "genres", &json!({"name": "Heat"}), &[("idempotency-key", "k1")]).await;
    assert_eq!(path.status.as_u16(), 422, "the same body, for another kind of thing: {path:?}");
    assert_eq!(catalogue.database.count("title").await, 1);
}

#[tokio::test]
async fn the_same_key_of_another_actor_is_another_key() {
    let catalogue = Catalogue::start().await;
    create(&catalogue, "ed", "k1", json!({"name": "Heat"})).await;
    let other = create(&catalogue, "eve", "k1", json!({"name": "Ronin"})).await;
    assert_eq!(other.status, StatusCode::CREATED, "{other:?}");
    assert_eq!(other.json()["id"], "ronin");
}

#[tokio::test]
async fn a_malformed_key_is_refused_before_anything_is_done() {
    let catalogue = Catalogue::start().await;
    for key in ["", "\"\"", "two words", &"k".repeat(256)] {
        let got = create(&catalogue, "ed", key, json!({"name": "Heat"})).await;
        assert_eq!((got.status.as_u16(), got.problem().as_str()), (400, "idempotency-key-invalid"), "{key}");
        assert_eq!(faults(&got), ["Idempotency-Key"]);
    }
    assert_eq!(catalogue.database.count("title").await, 0);
}

#[tokio::test]
async fn a_refused_create_leaves_its_key_free() {
    let catalogue = Catalogue::start().await;
    assert_eq!(create(&catalogue, "ed", "k1", json!({"name": ""})).await.status.as_u16(), 422);
    assert_eq!(create(&catalogue, "ed", "k1", json!({"name": "Heat"})).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn creates_of_one_key_at_the_same_time_make_one_title_and_the_others_are_told_that_it_is_under_way() {
    let catalogue = Catalogue::start().await;
    // Somebody else writes: whichever came first has to wait.
    let taken = catalogue.app.store.write().await.unwrap();
    let ask = || create(&catalogue, "ed", "k1", json!({"name": "Heat"})).boxed();
    let mut under_way = vec![ask(), ask(), ask()];
    for _ in 0..2 {
        let (refused, _, others) = select_all(under_way).await;
        assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (409, "idempotency-in-flight"));
        under_way = others;
    }
    let first = under_way.remove(0);
    drop(taken);
    assert_eq!(first.await.status, StatusCode::CREATED);
    assert_eq!(catalogue.database.count("title").await, 1);
    assert_eq!(ask().await.header("idempotency-replayed"), "true", "and now it is done");
}

async fn two(catalogue: &Catalogue) {
    catalogue.put("titles/heat", json!({"name": "Heat", "rating": 8})).await;
    catalogue.put("titles/ronin", json!({"name": "Ronin"})).await;
}

async fn bulk(catalogue: &Catalogue, items: Value) -> crate::common::people::Got {
    catalogue.staff_asks("ed", "POST", "titles/bulk", &json!({"items": items}), &[]).await
}

#[tokio::test]
async fn many_edits_are_one_write_with_one_purge() {
    let catalogue = Catalogue::start().await;
    two(&catalogue).await;
    let seq = catalogue.as_of().await.seq;
    let done =
        bulk(&catalogue, json!([{"id": "heat", "patch": {"year": 1995}}, {"id": "ronin", "delete": true}])).await;
    let expected =
        json!([{"id": "heat", "action": "edit", "version": 2}, {"id": "ronin", "action": "delete", "version": 2}]);
    assert_eq!((done.status, &done.json()["items"]), (StatusCode::OK, &expected));
    assert_eq!(catalogue.as_of().await.seq, seq + 1);
    assert_eq!(catalogue.shown("/v1/titles/heat", ANYBODY).await["year"], 1995);
    assert_eq!(catalogue.page("/v1/titles/ronin", ANYBODY).await.status, StatusCode::NOT_FOUND);
    let purge = catalogue.last_purge().await;
    assert_eq!(purge.mode, PurgeMode::Hard, "one of them is not to be seen any more");
}

#[tokio::test]
async fn one_faulty_edit_of_many_and_none_is_done_with_every_fault_named() {
    let catalogue = Catalogue::start().await;
    two(&catalogue).await;
    let before = catalogue.as_of().await;
    let items = json!([
        {"id": "heat", "patch": {"year": 1995}},
        {"id": "nobody", "patch": {"year": 1}},
        {"id": "ronin", "patch": {"year": 1, "rating": 11}},
        {"id": "heat", "delete": true},
        {"id": "up"},
        {"id": "ronin2", "restore": true},
    ]);
    let refused = bulk(&catalogue, items).await;
    assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (422, "invalid-bulk"));
    let expected =
        ["/items/1/id", "/items/2/patch/rating", "/items/2/patch/year", "/items/3/id", "/items/4", "/items/5/id"];
    assert_eq!(faults(&refused), expected);
    assert_eq!(catalogue.as_of().await, before);
    assert_eq!(catalogue.shown("/v1/titles/heat", ANYBODY).await["year"], Value::Null);
}

#[tokio::test]
async fn an_edit_of_many_made_for_another_state_stops_them_all() {
    let catalogue = Catalogue::start().await;
    two(&catalogue).await;
    let item = |etag: &str| json!([{"id": "ronin", "patch": {"year": 1998}}, {"id": "heat", "if_match": etag, "patch": {"year": 1995}}]);
    assert_eq!(faults(&bulk(&catalogue, item("\"v2\"")).await), ["/items/1/if_match"]);
    assert_eq!(catalogue.shown("/v1/titles/ronin", ANYBODY).await["year"], Value::Null);
    assert_eq!(bulk(&catalogue, item("\"v1\"")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn one_to_two_hundred_edits_are_taken_at_once() {
    let catalogue = Catalogue::start().await;
    two(&catalogue).await;
    let many = |count: usize| (0..count).map(|n| json!({"id": format!("t{n}"), "delete": true})).collect::<Vec<_>>();
    for count in [0, 201] {
        assert_eq!(faults(&bulk(&catalogue, json!(many(count))).await), ["/items"], "{count}");
    }
    assert_eq!(faults(&bulk(&catalogue, json!(many(200))).await).len(), 200, "each is looked at");
}

#[tokio::test]
async fn many_edits_asked_for_twice_with_one_key_are_done_once() {
    let catalogue = Catalogue::start().await;
    two(&catalogue).await;
    let body = json!({"items": [{"id": "heat", "delete": true}]});
    let fields = [("idempotency-key", "k")];
    let first = catalogue.staff_asks("ed", "POST", "titles/bulk", &body, &fields).await;
    let again = catalogue.staff_asks("ed", "POST", "titles/bulk", &body, &fields).await;
    assert_eq!((first.status, &first.body), (StatusCode::OK, &again.body));
    assert_eq!(again.header("idempotency-replayed"), "true");
}

/// A title that stands on every kind of page.
async fn everywhere(catalogue: &Catalogue) -> Vec<&'static str> {
    let heat =
        json!({"name": "Heat", "kind": "series", "genres": ["Crime"], "people": [{"name": "Ann", "role": "actor"}]});
    catalogue.put("titles/heat", heat).await;
    catalogue.put("titles/ronin", json!({"name": "Ronin", "genres": ["Crime"]})).await;
    catalogue.put("series/heat/seasons/1", json!({"name": "One"})).await;
    catalogue.put("rails/top", json!({"title": "Top", "position": 1, "items": ["heat", "ronin"]})).await;
    catalogue.put("collections/best", json!({"name": "Best", "items": ["heat"]})).await;
    while origin::similar::turn(&catalogue.app.store).await.unwrap() {}
    vec![
        "/v1/home",
        "/v1/catalog",
        "/v1/catalog?genre=crime",
        "/v1/titles/ronin/similar",
        "/v1/people/ann",
        "/v1/collections/best",
        "/v1/search?q=heat",
        "/v1/titles/heat",
        "/v1/titles/heat/similar",
        "/v1/series/heat",
        "/v1/series/heat/seasons/1",
    ]
}

#[tokio::test]
async fn a_deleted_title_is_gone_from_every_page_with_a_hard_purge_and_back_when_restored() {
    let catalogue = Catalogue::start().await;
    let pages = everywhere(&catalogue).await;
    let mut before = Vec::new();
    for path in &pages {
        let got = catalogue.page(path, ANYBODY).await;
        assert_eq!(got.status, StatusCode::OK, "{path}: {got:?}");
        assert!(got.body.contains("\"heat\"") || path.starts_with("/v1/titles/heat/"), "{path}: {got:?}");
        before.push(got.body);
    }
    let deleted = catalogue.edit("DELETE", "titles/heat", Value::Null).await;
    assert_eq!((deleted.status, deleted.body.as_str()), (StatusCode::NO_CONTENT, ""));
    let purge = catalogue.last_purge().await;
    assert_eq!((purge.mode, purge.reason.as_deref()), (PurgeMode::Hard, Some("delete")));
    for path in &pages {
        let got = catalogue.page(path, ANYBODY).await;
        assert!(!got.body.contains("\"heat\""), "{path}: {got:?}");
        let own = path.contains("/heat");
        assert_eq!(got.status, if own { StatusCode::NOT_FOUND } else { StatusCode::OK }, "{path}");
    }
    catalogue.edit("POST", "titles/heat/restore", Value::Null).await;
    while origin::similar::turn(&catalogue.app.store).await.unwrap() {}
    for (path, before) in pages.iter().zip(before) {
        assert_eq!(catalogue.page(path, ANYBODY).await.body, before, "{path}");
    }
}

#[tokio::test]
async fn deleting_and_restoring_need_the_state_they_are_for() {
    let catalogue = Catalogue::start().await;
    two(&catalogue).await;
    let ask = |method: &'static str, path: &'static str, etag: &'static str| {
        let catalogue = &catalogue;
        async move {
            let fields: Vec<(&str, &str)> = [("if-match", etag)].into_iter().filter(|_| !etag.is_empty()).collect();
            catalogue.staff_asks("ed", method, path, &Value::Null, &fields).await
        }
    };
    for (method, path) in [("DELETE", "titles/heat"), ("POST", "titles/heat/restore")] {
        let version = if method == "DELETE" { "\"v1\"" } else { "\"v2\"" };
        assert_eq!(ask(method, path, "").await.problem(), "if-match-missing", "{path}");
        assert_eq!(ask(method, path, "\"v9\"").await.problem(), "changed", "{path}");
        assert!(ask(method, path, version).await.status.is_success(), "{path}");
    }
    assert_eq!(ask("POST", "titles/heat/restore", "*").await.problem(), "not-deleted");
    assert_eq!(ask("POST", "titles/nobody/restore", "*").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_season_whose_episode_stands_elsewhere_by_now_is_not_restored_and_the_episode_is_named() {
    let catalogue = Catalogue::start().await;
    catalogue.put("titles/wire", json!({"name": "Wire", "kind": "series"})).await;
    let episodes = json!([{"id": "w1", "number": 1, "name": "A"}, {"id": "w2", "number": 2, "name": "B"}]);
    catalogue.put("series/wire/seasons/1", json!({"name": "One", "episodes": episodes})).await;
    catalogue.edit("DELETE", "series/wire/seasons/1", Value::Null).await;
    let taken = json!([{"id": "w2", "number": 1, "name": "B"}]);
    catalogue.put("series/wire/seasons/2", json!({"name": "Two", "episodes": taken})).await;
    let path = "series/wire/seasons/1/restore";
    let got = catalogue.staff_asks("ed", "POST", path, &Value::Null, &[("if-match", "*")]).await;
    assert_eq!((got.status, got.problem().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid-season"), "{got:?}");
    assert_eq!(faults(&got), ["/episodes/1/id"]);
    catalogue.edit("DELETE", "series/wire/seasons/2", Value::Null).await;
    catalogue.edit("POST", path, Value::Null).await;
}

#[tokio::test]
async fn a_deleted_title_is_listed_among_the_deleted_and_its_id_is_not_free() {
    let catalogue = Catalogue::start().await;
    two(&catalogue).await;
    catalogue.edit("DELETE", "titles/heat", Value::Null).await;
    let ids = |page: crate::common::people::Got| super::ids_of(&page.json());
    assert_eq!(ids(catalogue.edit("GET", "titles", Value::Null).await), ["ronin"]);
    assert_eq!(ids(catalogue.edit("GET", "titles?deleted=true", Value::Null).await), ["heat"]);
    let post = catalogue.staff_asks("ed", "POST", "titles", &json!({"name": "Heat"}), &[]).await;
    let put = catalogue.staff_asks("ed", "PUT", "titles/heat", &json!({"name": "Heat"}), &[]).await;
    assert_eq!((post.problem(), put.problem()), ("deleted".into(), "deleted".into()));
}

#[tokio::test]
async fn the_audit_log_says_who_did_what_to_what_with_before_and_after() {
    let catalogue = Catalogue::start().await;
    catalogue.put("titles/heat", json!({"name": "Heat"})).await;
    let fields = [("if-match", "*")];
    catalogue.staff_asks("eve", "PATCH", "titles/heat", &json!({"name": "Heat II"}), &fields).await;
    catalogue.edit("DELETE", "titles/heat", Value::Null).await;
    let log = catalogue.edit("GET", "audit", Value::Null).await.json();
    let brief = |entry: &Value| {
        let what = ["actor", "action", "kind", "id"].map(|field| entry[field].as_str().unwrap().to_string()).join(" ");
        (what, entry["before"]["name"].clone(), entry["after"]["name"].clone())
    };
    let brief: Vec<_> = log["items"].as_array().unwrap().iter().map(brief).collect();
    let row = |what: &str, before: Value, after: Value| (what.to_string(), before, after);
    assert_eq!(
        brief,
        [
            row("ed delete title heat", json!("Heat II"), json!("Heat II")),
            row("eve edit title heat", json!("Heat"), json!("Heat II")),
            row("ed create title heat", Value::Null, json!("Heat")),
        ]
    );
    let (before, after) = (&log["items"][0]["before"], &log["items"][0]["after"]);
    assert!(before["deleted_at_ms"].is_null() && after["deleted_at_ms"].is_i64(), "{log}");
}

#[tokio::test]
async fn an_edit_that_changes_nothing_or_is_refused_leaves_no_note() {
    let catalogue = Catalogue::start().await;
    catalogue.put("titles/heat", json!({"name": "Heat"})).await;
    catalogue.edit("PATCH", "titles/heat", json!({"name": "Heat"})).await;
    catalogue.staff_asks("ed", "PATCH", "titles/heat", &json!({"year": 1}), &[("if-match", "*")]).await;
    assert_eq!(catalogue.database.count("audit").await, 1);
}

async fn audit(catalogue: &Catalogue, query: &str) -> (Vec<String>, Option<String>) {
    let log = catalogue.edit("GET", &format!("audit?{query}"), Value::Null).await.json();
    let brief = |entry: &Value| format!("{} {}", entry["action"].as_str().unwrap(), entry["id"].as_str().unwrap());
    let items = log["items"].as_array().unwrap().iter().map(brief).collect();
    (items, log["next_cursor"].as_str().map(String::from))
}

#[tokio::test]
async fn the_audit_log_is_filtered_by_kind_id_actor_and_time() {
    let catalogue = Catalogue::start().await;
    two(&catalogue).await;
    catalogue.put("people/heat", json!({"name": "Ann Heat"})).await;
    let patch = json!({"year": 1995});
    catalogue.staff_asks("eve", "PATCH", "titles/heat", &patch, &[("if-match", "*")]).await;
    for (query, expected) in [
        ("kind=person", vec!["create heat"]),
        ("id=heat", vec!["edit heat", "create heat", "create heat"]),
        ("kind=title&id=heat", vec!["edit heat", "create heat"]),
        ("actor=eve", vec!["edit heat"]),
        ("actor=nobody", vec![]),
        ("actor=ed&kind=title", vec!["create ronin", "create heat"]),
        ("from=2999-01-01T00:00:00Z", vec![]),
        ("until=1990-01-01T00:00:00Z", vec![]),
        ("from=1990-01-01T00:00:00Z&until=2999-01-01T00:00:00Z&actor=eve", vec!["edit heat"]),
    ] {
        assert_eq!(audit(&catalogue, query).await.0, expected, "{query}");
    }
    let bad = catalogue.staff_asks("ed", "GET", "audit?from=x&until=y&limit=0&cursor=z&kind=", &Value::Null, &[]).await;
    assert_eq!(
        (bad.status.as_u16(), faults(&bad)),
        (400, ["cursor", "from", "kind", "limit", "until"].map(String::from).into())
    );
}

#[tokio::test]
async fn from_is_inclusive_and_until_exclusive_in_the_audit_log() {
    let catalogue = Catalogue::start().await;
    catalogue.put("titles/heat", json!({"name": "Heat"})).await;
    let log = catalogue.edit("GET", "audit", Value::Null).await.json();
    let at = jiff::Timestamp::from_millisecond(log["items"][0]["at_ms"].as_i64().unwrap()).unwrap();
    assert_eq!(audit(&catalogue, &format!("from={at}")).await.0.len(), 1);
    assert_eq!(audit(&catalogue, &format!("until={at}")).await.0.len(), 0);
}

/// A log of 12,000 rows of one actor, one a second, of which the oldest alone is about a person.
async fn long_audit(catalogue: &Catalogue) {
    let rows = "WITH RECURSIVE row (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM row WHERE i < 12000)
        INSERT INTO audit (seq, n, at_ms, actor, action, kind, target_id)
          SELECT 0, i, i * 1000, 'bot', 'edit', CASE i WHEN 1 THEN 'person' ELSE 'title' END, 'row-' || i FROM row";
    catalogue.database.sql(rows, rows).await;
}

#[tokio::test]
async fn a_filtered_page_of_the_audit_log_looks_at_so_many_rows_and_the_next_goes_on_below() {
    let catalogue = Catalogue::start().await;
    long_audit(&catalogue).await;
    for query in
        ["actor=bot&kind=person", "kind=person&from=1960-01-01T00:00:00Z", "kind=person&until=1999-01-01T00:00:00Z"]
    {
        let (nothing, cursor) = audit(&catalogue, query).await;
        assert_eq!(nothing, Vec::<String>::new(), "{query}");
        let (found, cursor) = audit(&catalogue, &format!("{query}&cursor={}", cursor.expect(query))).await;
        assert_eq!((found, cursor), (vec!["edit row-1".to_string()], None), "{query}");
    }
    // What an index has by itself is found at once.
    let (found, cursor) = audit(&catalogue, "kind=person").await;
    assert_eq!((found, cursor), (vec!["edit row-1".to_string()], None));
}

#[tokio::test]
async fn a_span_of_time_in_the_audit_log_is_read_page_by_page_and_a_cursor_stays_with_its_order() {
    let catalogue = Catalogue::start().await;
    long_audit(&catalogue).await;
    let span = "from=1970-01-01T00:01:00Z&until=1970-01-01T00:01:03Z&limit=2";
    let (first, cursor) = audit(&catalogue, span).await;
    let cursor = cursor.unwrap();
    let (rest, none) = audit(&catalogue, &format!("{span}&cursor={cursor}")).await;
    assert_eq!(first, ["edit row-62", "edit row-61"]);
    assert_eq!((rest, none), (vec!["edit row-60".to_string()], None));
    let other = catalogue.staff_asks("ed", "GET", &format!("audit?cursor={cursor}"), &Value::Null, &[]).await;
    assert_eq!((other.status.as_u16(), faults(&other)), (400, ["cursor"].map(String::from).into()));
}

#[tokio::test]
async fn the_audit_log_goes_on_by_cursor_within_one_write_and_past_new_ones() {
    let catalogue = Catalogue::start().await;
    two(&catalogue).await;
    bulk(&catalogue, json!([{"id": "heat", "patch": {"year": 1995}}, {"id": "ronin", "patch": {"year": 1998}}])).await;
    let (first, cursor) = audit(&catalogue, "limit=1").await;
    catalogue.put("titles/up", json!({"name": "Up"})).await;
    let (rest, _) = audit(&catalogue, &format!("cursor={}", cursor.unwrap())).await;
    assert_eq!(
        (first, rest),
        (vec!["edit ronin".into()], ["edit heat", "create ronin", "create heat"].map(String::from).into())
    );
}

#[tokio::test]
async fn every_list_of_staff_reads_its_query_alike_and_names_every_fault() {
    let catalogue = Catalogue::start().await;
    for list in ["titles", "people", "rails", "users", "staff", "audit", "purges"] {
        for (query, expected) in [
            ("limit=201", vec!["limit"]),
            ("limit=0&cursor=!", vec!["cursor", "limit"]),
            ("limit=%2B5", vec!["limit"]),
            ("limit=1&limit=2", vec!["limit"]),
            ("limit=", vec!["limit"]),
            ("%6Cimit=0", vec!["limit"]),
            ("cursor=", vec!["cursor"]),
            ("cursor=a%00b", vec!["cursor"]),
            ("cursor=%+5", vec!["cursor"]),
            ("limit=200", vec![]),
            ("limit=200&utm=%00&utm=%+5", vec!["utm"]),
        ] {
            let got = catalogue.get(&format!("/admin/v1/{list}?{query}"), &catalogue.admin_token()).await;
            let found = if got.status == StatusCode::OK { vec![] } else { faults(&got) };
            assert_eq!(found, expected, "{list}?{query}: {got:?}");
        }
    }
}

#[tokio::test]
async fn how_a_write_purges_is_said_once_and_as_soft_or_hard() {
    let catalogue = Catalogue::start().await;
    catalogue.put("titles/heat", json!({"name": "Heat"})).await;
    for query in ["purge=firm", "purge=", "purge=soft&purge=hard", "%70urge=firm", "purge=so%+5t"] {
        for (method, path, body) in [
            ("PATCH", "titles/heat", json!({"year": 1995})),
            ("POST", "titles/bulk", json!({"items": [{"id": "heat", "patch": {"year": 1995}}]})),
        ] {
            let path = format!("{path}?{query}");
            let got = catalogue.staff_asks("ed", method, &path, &body, &[("if-match", "*")]).await;
            assert_eq!((got.problem(), faults(&got)), ("query-invalid".into(), vec!["purge".into()]), "{path}");
        }
    }
}

#[tokio::test]
async fn what_is_at_fault_is_what_a_client_can_mend() {
    let catalogue = Catalogue::start().await;
    let nameless = catalogue.staff_asks("ed", "POST", "titles", &json!({"name": "!!!"}), &[]).await;
    assert_eq!((nameless.status.as_u16(), nameless.problem().as_str()), (422, "invalid-title"), "{nameless:?}");
    let fault = json!({"at": "/id", "message": "cannot be made of its name; send one"});
    assert_eq!(nameless.json()["errors"], json!([fault]));
    let season = json!({"name": "One", "episodes": []});
    let lost = catalogue.staff_asks("ed", "PUT", "series/nosuch/seasons/1", &season, &[]).await;
    assert_eq!((lost.status.as_u16(), faults(&lost)), (422, vec!["/id".to_string()]), "{lost:?}");
    assert_eq!(lost.json()["errors"][0]["message"], "there is no series nosuch");
}

#[tokio::test]
async fn the_audit_log_is_asked_for_kinds_there_are() {
    let catalogue = Catalogue::start().await;
    two(&catalogue).await;
    assert_eq!(audit(&catalogue, "kind=title").await.0.len(), 2);
    assert_eq!(audit(&catalogue, "kind=rail").await.0.len(), 0);
    let got = catalogue.get("/admin/v1/audit?kind=titel", &catalogue.admin_token()).await;
    assert_eq!((got.status.as_u16(), faults(&got)), (400, vec!["kind".to_string()]), "{got:?}");
}

#[tokio::test]
async fn a_tag_without_its_quotes_is_told_from_one_of_another_state() {
    let catalogue = Catalogue::start().await;
    two(&catalogue).await;
    let patch = async |tag: &str| {
        catalogue.staff_asks("ed", "PATCH", "titles/heat", &json!({"year": 1995}), &[("if-match", tag)]).await
    };
    let detail = async |tag: &str| {
        let got = patch(tag).await;
        assert_eq!(got.status, StatusCode::PRECONDITION_FAILED, "{got:?}");
        got.json()["detail"].as_str().unwrap().to_string()
    };
    assert_eq!(detail("\"v2\"").await, "its ETag is \"v1\"");
    for bare in ["v1", "\"v2\", v1"] {
        assert_eq!(detail(bare).await, "v1 is no entity tag, which stands in quotes; its ETag is \"v1\"", "{bare}");
    }
    let many = bulk(&catalogue, json!([{"id": "heat", "if_match": "v1", "delete": true}])).await;
    assert!(many.json()["errors"][0]["message"].as_str().unwrap().starts_with("v1 is no entity tag"), "{many:?}");
    assert_eq!(patch("\"v1\"").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_import_brings_back_what_was_deleted_unless_it_is_to_take_only_what_is_new() {
    let catalogue = Catalogue::start().await;
    two(&catalogue).await;
    catalogue.edit("DELETE", "titles/heat", Value::Null).await;
    let batch = || import::read_text("{\"type\":\"title\",\"id\":\"heat\",\"name\":\"Heat\"}");
    let before = catalogue.as_of().await;
    let report = import::write_over(&catalogue.app.store, batch(), Present::Kept, |_| {}).await.unwrap();
    assert_eq!((report.unchanged, report.is_failure(), catalogue.as_of().await), (1, false, before));
    assert_eq!(catalogue.page("/v1/titles/heat", ANYBODY).await.status, StatusCode::NOT_FOUND);
    import::write(&catalogue.app.store, batch(), |_| {}).await.unwrap();
    assert_eq!(catalogue.page("/v1/titles/heat", ANYBODY).await.status, StatusCode::OK);
}

/// A block for a country that no viewer comes from would block nobody, and nobody would notice.
#[tokio::test]
async fn rights_name_countries_there_are() {
    let catalogue = Catalogue::start().await;
    let put = async |path: &str, body: Value| catalogue.staff_asks("ed", "PUT", path, &body, &[]).await;
    for unknown in ["UK", "EL", "EU", "XX", "QQ"] {
        let title = json!({"name": "Heat", "regions": {"DE": {}, unknown: {"blocked": true}}});
        let got = put("titles/heat", title).await;
        assert_eq!((got.status, faults(&got)), (StatusCode::UNPROCESSABLE_ENTITY, vec![format!("/regions/{unknown}")]));
        let got = put("rails/top", json!({"title": "Top", "position": 1, "regions": ["GB", unknown]})).await;
        assert_eq!((got.status, faults(&got)), (StatusCode::UNPROCESSABLE_ENTITY, vec!["/regions/1".to_string()]));
    }
    catalogue
        .put("titles/heat", json!({"name": "Heat", "regions": {"GB": {"blocked": true}, "XK": {}, "ZZ": {}}}))
        .await;
    // What an earlier release took is read as it is.
    let stored = r#"UPDATE title SET regions = '{"UK":{"blocked":true}}' WHERE id = 'heat'"#;
    catalogue.database.sql(stored, stored).await;
    let heat = catalogue.staff_asks("ed", "GET", "titles/heat", &Value::Null, &[]).await;
    assert_eq!(heat.json()["regions"]["UK"]["blocked"], true, "{heat:?}");
}

#[tokio::test]
async fn a_new_name_brings_its_order_unless_that_was_chosen() {
    let catalogue = Catalogue::start().await;
    catalogue.put("titles/heat", json!({"name": "The Heat"})).await;
    let sort_name = async || {
        let got = catalogue.staff_asks("ed", "GET", "titles/heat", &Value::Null, &[]).await;
        got.json()["sort_name"].as_str().unwrap().to_string()
    };
    let bulk = |patch: Value| json!({"items": [{"id": "heat", "patch": patch}]});
    assert_eq!(sort_name().await, "heat");
    catalogue.edit("PATCH", "titles/heat", json!({"name": "Zorro"})).await;
    assert_eq!(sort_name().await, "zorro");
    catalogue.edit("POST", "titles/bulk", bulk(json!({"name": "An Aviator"}))).await;
    assert_eq!(sort_name().await, "aviator");
    catalogue.edit("PATCH", "titles/heat", json!({"year": 2004})).await;
    assert_eq!(sort_name().await, "aviator");
    catalogue.edit("PATCH", "titles/heat", json!({"name": "Up", "sort_name": "x"})).await;
    assert_eq!(sort_name().await, "x");
    catalogue.edit("PATCH", "titles/heat", json!({"name": "Ronin"})).await;
    assert_eq!(sort_name().await, "x", "it was chosen");
    catalogue.edit("PATCH", "titles/heat", json!({"sort_name": null})).await;
    assert_eq!(sort_name().await, "ronin");
}

#[tokio::test]
async fn a_rating_is_given_back_to_the_last_digit() {
    // Of the service by itself too, whatever else is switched on where tests are built.
    assert!(include_str!("../../Cargo.toml").contains("float_roundtrip"));
    let catalogue = Catalogue::start().await;
    for rating in ["9.222222222222221", "7.300000000000001", "0.1", "9.999999999999998"] {
        let body: Value = serde_json::from_str(&format!(r#"{{"name":"Heat","rating":{rating}}}"#)).unwrap();
        let path = format!("titles/t{}", rating.replace('.', "-"));
        let put = catalogue.staff_asks("ed", "PUT", &path, &body, &[]).await;
        assert!(put.status.is_success(), "{put:?}");
        assert!(put.body.contains(&format!("\"rating\":{rating},")), "{rating}: {}", put.body);
    }
}

#[tokio::test]
async fn a_genre_that_only_a_draft_has_is_in_use() {
    let catalogue = Catalogue::start().await;
    catalogue
        .put("titles/heat", json!({"name": "Heat", "genres": ["Crime", "Science Fiction"], "state": "draft"}))
        .await;
    let delete =
        async |path: &str| catalogue.staff_asks("ed", "DELETE", path, &Value::Null, &[("if-match", "*")]).await;
    for genre in ["crime", "science-fiction"] {
        let got = delete(&format!("genres/{genre}")).await;
        assert_eq!((got.status, got.problem().as_str()), (StatusCode::CONFLICT, "in-use"), "{genre}");
    }
    catalogue.edit("PATCH", "titles/heat", json!({"genres": ["Crime"]})).await;
    assert_eq!(delete("genres/science-fiction").await.status, StatusCode::NO_CONTENT);
    catalogue.edit("DELETE", "titles/heat", Value::Null).await;
    assert_eq!(delete("genres/crime").await.status, StatusCode::NO_CONTENT);
}
