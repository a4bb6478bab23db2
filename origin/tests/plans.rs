//! Every list is read by an index: each statement the pages and lists run is explained by the engine, and none may walk
//! through a table that grows with the catalogue, its viewers or its log.
mod common;

use axum::http::StatusCode;
use common::people::People;
use common::{Database, Service};
use origin::generate::{self, Amounts};
use origin::store::Engine;
use serde_json::{Value, json};

/// What these requests run is looked at. Each must find what it asks for: of what is not there, little is read.
const READS: [&str; 25] = [
    "/v1/home",
    "/v1/genres",
    "/v1/catalog",
    "/v1/catalog?genre=crime",
    "/v1/catalog?genre=crime&sort=-rating",
    "/v1/catalog?kind=series&sort=-added",
    "/v1/catalog?year=1995&sort=year",
    "/v1/titles/title-0",
    "/v1/titles/title-0/similar",
    "/v1/series/title-9",
    "/v1/series/title-9/seasons/1",
    "/v1/collections/collection-0",
    "/v1/search?q=river",
    "/v1/search?q=rivre",
    "/admin/v1/titles",
    "/admin/v1/titles?q=river",
    "/admin/v1/titles/title-0",
    "/admin/v1/purges",
    "/admin/v1/purges?key=title:t1&mode=soft&actor=test",
    "/admin/v1/purges/1",
    "/admin/v1/rails",
    "/admin/v1/collections",
    "/admin/v1/audit",
    "/admin/v1/audit?actor=test",
    "/internal/purges?since=0",
];

/// What a viewer reads of her own, with something in each of her lists.
const OWN_READS: [&str; 3] = ["/v1/me", "/v1/me/watch-list", "/v1/me/continue-watching"];

/// Tables that stay small, and names SQLite gives to what is no table.
const SMALL: [&str; 12] = [
    "log_head",
    "delivery",
    "replaced_log",
    "rail",
    "rail_item",
    "rail_place",
    "genre",
    "listing_count",
    "collection",
    "CONSTANT",
    "derived",
    "_sqlx",
];

fn is_small(table: &str) -> bool {
    table.starts_with('(') || SMALL.contains(&table)
}

/// Tables this plan walks through from one end to the other.
fn scanned(engine: Engine, plan: &str) -> Vec<String> {
    let lines: Vec<&str> = plan.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let table = match engine {
            Engine::Sqlite => line.strip_prefix("SCAN "),
            // An index scan without a condition walks through the whole index, unless a limit ends it.
            Engine::Postgres => {
                match line.split_once("Index Scan using ").or(line.split_once("Index Only Scan using ")) {
                    Some((_, rest)) => {
                        let node_ends = |line: &&&str| line.contains("->");
                        let is_bounded = lines
                            .iter()
                            .skip(at + 1)
                            .take_while(|line| !node_ends(line))
                            .any(|line| line.starts_with("Index Cond"));
                        let is_limited = lines.first().is_some_and(|line| line.starts_with("Limit"));
                        rest.split_once(" on ").map(|(_, table)| table).filter(|_| !is_bounded && !is_limited)
                    }
                    None => line.split_once("Seq Scan on ").map(|(_, table)| table),
                }
            }
        };
        let table = table.and_then(|table| table.split_whitespace().next()).unwrap_or_default();
        // SQLite walks a full text index by its own means, and says SCAN with the index it uses.
        if !table.is_empty() && !is_small(table) && !line.contains("VIRTUAL TABLE INDEX") {
            found.push(table.to_string());
        }
    }
    found
}

/// Enough that a scan costs more than an index, and the engine knows how much there is.
async fn fill(people: &People) {
    let store = &people.app.store;
    let amounts = Amounts { titles: 3_000, rails: 60, users: 3_000, seed: 1 };
    generate::run(store, &amounts, |_, _, _| {}).await.unwrap();
    let head = store.snapshot().await.unwrap().as_of.seq;
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT {head} + 1 UNION ALL SELECT i + 1 FROM n WHERE i < {head} + 3000)
         INSERT INTO purge_log (seq, keys, everything, mode, committed_at_ms) SELECT i, '[\"k\"]', 0, 'soft', 0 FROM n;
         UPDATE log_head SET seq = {head} + 3000"
    );
    people.database.sql(&fill, &fill).await;
    // What the generator leaves empty would be read whole, whatever indexes it has.
    for fill in [
        "INSERT INTO title_window (title_id, region, gone_ms)
           WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 29)
           SELECT id, CAST(i AS TEXT), 0 FROM title, n",
        "INSERT INTO season (id, name, series_id, number, version, body, created_ms, updated_ms)
           SELECT id || '/9', 'S', id, 9, 1, '{\"name\":\"S\"}', 0, 0 FROM title",
        "INSERT INTO similar_title (title_id, position, other_id) SELECT id, 0, id FROM title",
        "INSERT INTO session (id, account_id, device, created_ms, used_ms, idle_end_ms, end_ms, generation)
           SELECT id, id, '', 0, 0, 0, 0, 1 FROM account",
        "INSERT INTO refresh_token (hash, session_id, generation) SELECT id, id, 1 FROM session",
        "INSERT INTO watch_item (account_id, title_id, added_ms) SELECT id, 'title-0', 0 FROM account",
        "INSERT INTO progress (account_id, title_id, position_s, duration_s, watching, updated_ms)
           SELECT id, 'title-0', 600, 6000, 1, 0 FROM account",
    ] {
        people.database.sql(fill, fill).await;
    }
    store.analyze().await.unwrap();
}

/// As a viewer who may see everything, or as staff.
async fn read(people: &People, path: &str) -> Value {
    let got = people.call_with("GET", path, &people.admin_token(), None, &[("viewer-maturity", "18")]).await;
    assert_eq!(got.status, StatusCode::OK, "{path}: {got:?}");
    got.json()
}

async fn read_all(people: &People) {
    let (title, token) = ("/admin/v1/titles/t1", people.admin_token());
    let body = json!({"name": "Title", "year": 1995, "genres": ["Crime"], "rating": 7.5});
    let put = people.call("PUT", title, &token, Some(body)).await;
    assert_eq!(put.status, StatusCode::CREATED, "{put:?}");
    let body = json!({"name": "Title II"});
    let patched = people.call_with("PATCH", title, &token, Some(body), &[("if-match", "*")]).await;
    assert_eq!(patched.status, StatusCode::OK, "{patched:?}");
    for path in READS {
        read(people, path).await;
    }
    let page = read(people, "/v1/catalog?limit=5").await;
    read(people, &format!("/v1/catalog?limit=5&cursor={}", page["next_cursor"].as_str().unwrap())).await;
    let page = read(people, "/v1/titles/title-0").await;
    read(people, &format!("/v1/people/{}", page["people"][0]["id"].as_str().unwrap())).await;
}

async fn read_own(people: &People) {
    let token = people.viewer("ada@example.org").await.access;
    let progress = json!({"position_s": 600, "duration_s": 6_000});
    for (path, body) in [("/v1/me/watch-list/title-0", None), ("/v1/me/progress/title-0", Some(progress))] {
        let put = people.call("PUT", path, &token, body).await;
        assert_eq!(put.status, StatusCode::NO_CONTENT, "{path}: {put:?}");
    }
    for path in OWN_READS {
        let got = people.get(path, &token).await;
        assert_eq!(got.status, StatusCode::OK, "{path}: {got:?}");
        assert_eq!(got.json()["items"].as_array().map_or(1, Vec::len), 1, "{path}: {got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_and_no_list_scans_a_table_that_grows() {
    let mut database = Database::fresh();
    database.settings.remember_statements = true;
    let people = People(Service::over(database).await);
    fill(&people).await;
    read_all(&people).await;
    read_own(&people).await;
    let store = &people.app.store;
    let engine = store.engine();
    let statements = store.statements();
    assert!(statements.len() > 10, "{statements:?}");
    let mut faults = Vec::new();
    for statement in statements {
        if !["SELECT", "WITH", "UPDATE", "DELETE"].iter().any(|verb| statement.trim_start().starts_with(verb)) {
            continue;
        }
        let plan = store.explain(&statement).await;
        let plan = plan.unwrap_or_else(|error| panic!("{statement}: {error}"));
        let scanned = scanned(engine, &plan);
        if !scanned.is_empty() {
            faults.push(format!("{scanned:?}\n{statement}\n{plan}\n"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_scan_is_recognised_in_either_engines_words() {
    let of = |engine, plan: &str| scanned(engine, plan);
    assert_eq!(of(Engine::Sqlite, "SCAN title\nUSE TEMP B-TREE FOR ORDER BY"), ["title"]);
    assert!(of(Engine::Sqlite, "SEARCH title USING INDEX a (x>?)\nSCAN genre").is_empty());
    assert_eq!(of(Engine::Postgres, "Sort\n  ->  Seq Scan on title  (cost=1)\n        Filter: x"), ["title"]);
    assert_eq!(of(Engine::Postgres, "Sort\n  ->  Index Scan using a on title  (cost=1)\n        Filter: x"), ["title"]);
    assert!(of(Engine::Postgres, "Index Scan using a on title  (cost=1)\n  Index Cond: (x = $1)").is_empty());
    assert!(of(Engine::Postgres, "Limit\n  ->  Index Scan using a on title  (cost=1)").is_empty());
}
