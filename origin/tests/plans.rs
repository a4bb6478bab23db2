//! Every list is read by an index: each statement the pages and lists run is explained by the engine, and none may walk
//! through a table that grows with the catalogue, its viewers or its log.
mod common;

use common::{Database, Service};
use origin::generate::{self, Amounts};
use origin::store::Engine;

/// What these requests run is looked at. Absent routes cost nothing.
const READS: [&str; 24] = [
    "/v1/home",
    "/v1/catalog",
    "/v1/catalog?genre=crime",
    "/v1/catalog?genre=crime&sort=-rating",
    "/v1/catalog?kind=series&sort=-added",
    "/v1/catalog?year=1995&sort=year",
    "/v1/titles/t1",
    "/v1/titles/t1/similar",
    "/v1/series/t1",
    "/v1/series/t1/seasons/1",
    "/v1/people/michael-mann",
    "/v1/collections/c1",
    "/v1/search?q=title",
    "/admin/v1/titles",
    "/admin/v1/titles?q=heat",
    "/admin/v1/titles/t1",
    "/admin/v1/purges",
    "/admin/v1/purges?key=title:t1&mode=soft&actor=test",
    "/admin/v1/purges/1",
    "/admin/v1/rails",
    "/admin/v1/collections",
    "/admin/v1/audit",
    "/admin/v1/audit?actor=test",
    "/internal/purges?since=0",
];

/// Tables that stay small, and names SQLite gives to what is no table.
const SMALL: [&str; 11] = [
    "log_head",
    "delivery",
    "replaced_log",
    "rail",
    "rail_item",
    "rail_place",
    "genre",
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

#[tokio::test(flavor = "multi_thread")]
async fn no_page_and_no_list_scans_a_table_that_grows() {
    let mut database = Database::fresh();
    database.settings.remember_statements = true;
    let service = Service::over(database).await;
    // Enough that a scan costs more than an index, and the engine knows how much there is.
    let amounts = Amounts { titles: 3_000, rails: 60, users: 3_000, seed: 1 };
    generate::run(&service.app.store, &amounts, |_, _, _| {}).await.unwrap();
    let head = service.app.store.snapshot().await.unwrap().as_of.seq;
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT {head} + 1 UNION ALL SELECT i + 1 FROM n WHERE i < {head} + 3000)
         INSERT INTO purge_log (seq, keys, everything, mode, committed_at_ms) SELECT i, '[\"k\"]', 0, 'soft', 0 FROM n;
         UPDATE log_head SET seq = {head} + 3000"
    );
    service.database.sql(&fill, &fill).await;
    // What the generator leaves empty would be read whole, whatever indexes it has.
    for fill in [
        "INSERT INTO title_window (title_id, region, gone_ms)
           WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 29)
           SELECT id, CAST(i AS TEXT), 0 FROM title, n",
        "INSERT INTO season (id, name, series_id, number, version, body, created_ms, updated_ms)
           SELECT id || '/9', 'S', id, 9, 1, '{\"name\":\"S\"}', 0, 0 FROM title",
        "INSERT INTO similar_title (title_id, position, other_id) SELECT id, 0, id FROM title",
    ] {
        service.database.sql(fill, fill).await;
    }
    service.app.store.analyze().await.unwrap();
    let body = r#"{"name":"Title","year":1995,"genres":["Crime"],"rating":7.5}"#;
    assert!(service.call("PUT", "/admin/v1/titles/t1", body).await.status().is_success());
    assert!(service.call("PATCH", "/admin/v1/titles/t1", r#"{"name":"Title II"}"#).await.status().is_success());
    for path in READS {
        let status = service.call("GET", path, "").await.status();
        assert!(!status.is_server_error(), "{path}: {status}");
    }
    let page = common::text(service.call("GET", "/v1/catalog?limit=5", "").await).await;
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    let next = format!("/v1/catalog?limit=5&cursor={}", page["next_cursor"].as_str().unwrap_or_default());
    assert!(service.call("GET", &next, "").await.status().is_success(), "{next}");
    let engine = service.app.store.engine();
    let statements = service.app.store.statements();
    assert!(statements.len() > 10, "{statements:?}");
    let mut faults = Vec::new();
    for statement in statements {
        if !["SELECT", "WITH", "UPDATE", "DELETE"].iter().any(|verb| statement.trim_start().starts_with(verb)) {
            continue;
        }
        let plan = service.app.store.explain(&statement).await;
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
