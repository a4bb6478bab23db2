//! Every list is read by an index: each statement the pages and lists ran is explained by the engine, and none may walk
//! through a table that grows with the catalogue, its viewers or its log. Which lists there are, and by what they can be
//! filtered, is what the API says of itself.
#[path = "../common/mod.rs"]
mod common;
mod plan;

use axum::http::StatusCode;
use common::people::People;
use common::{Database, Service};
use kv_schemas::claims::StaffRole;
use origin::generate::{self, Amounts};
use origin::store::Engine;
use plan::{Partial, walked};
use serde_json::{Value, json};

/// Lists of which a viewer finds something of her own.
const OWN: [&str; 3] = ["/v1/me/watch-list", "/v1/me/continue-watching", "/auth/sessions"];

/// What is asked for in one part of a path, and by one parameter: something that is there.
struct Examples {
    viewer: String,
    staff: String,
    person: String,
}

const EMAIL: &str = "ada@example.org";
const STAFF_EMAIL: &str = "eve@example.org";

impl Examples {
    fn path(&self, path: &str) -> String {
        let id = match path.split('/').collect::<Vec<_>>()[..] {
            [.., "users", "{id}"] => &self.viewer,
            [.., "staff", "{id}"] => &self.staff,
            [.., "people", "{id}"] => &self.person,
            [.., "titles", "{id}"] | [.., "titles", "{id}", "similar"] => "title-0",
            [.., "series", "{id}"] | [.., "series", "{id}", "seasons"] | [.., "{number}"] => "title-9",
            [.., "collections", "{id}"] => "collection-0",
            [.., "rails", "{id}"] => "rail-0",
            [.., "genres", "{id}"] => "crime",
            _ => "",
        };
        let path = path.replace("{id}", id).replace("{number}", "1").replace("{seq}", "1");
        let path = path.replace("{title_id}", "title-0");
        assert!(!path.contains('{') && !path.contains("//"), "say what is asked for in {path}");
        path
    }

    /// All values of a few, else one or two.
    fn values(&self, path: &str, parameter: &Value) -> Vec<String> {
        let name = parameter["name"].as_str().unwrap();
        if let Some(values) = parameter["schema"]["enum"].as_array() {
            return values.iter().map(|value| format!("{name}={}", value.as_str().unwrap())).collect();
        }
        let values: &[&str] = match (path, name) {
            // Of every list, below.
            (_, "limit" | "cursor") => &[],
            ("/v1/catalog", "genre") => &["crime"],
            ("/v1/catalog", "year") => &["1995"],
            ("/v1/search", "q") => &["river", "rivre"],
            ("/admin/v1/audit", "id") => &["t1"],
            ("/admin/v1/purges", "key") => &["title:t1"],
            (_, "actor") => &["test"],
            (_, "from") => &["1990-01-01T00:00:00Z"],
            (_, "until") => &["2999-01-01T00:00:00Z"],
            ("/admin/v1/users", "email") => &[EMAIL],
            ("/admin/v1/staff", "email") => &[STAFF_EMAIL],
            (_, "since" | "timeout_ms") => &["0"],
            _ => panic!("say what is asked for by {name} of {path}"),
        };
        values.iter().map(|value| format!("{name}={value}")).collect()
    }

    /// Every way to ask for something that is described: by nothing, by each parameter, and by each two of them.
    fn targets(&self, path: &str, operation: &Value) -> Vec<String> {
        let none = Vec::new();
        let parameters = operation["parameters"].as_array().unwrap_or(&none).iter();
        let by: Vec<Vec<String>> =
            parameters.filter(|one| one["in"] == "query").map(|one| self.values(path, one)).collect();
        let mut queries = vec![String::new()];
        for (at, these) in by.iter().enumerate() {
            queries.extend(these.iter().cloned());
            for those in &by[at + 1..] {
                queries.extend(these.iter().flat_map(|a| those.iter().map(move |b| format!("{a}&{b}"))));
            }
        }
        // A receipt is waited for no longer than told, a search is for something.
        queries.retain(|query| !query.contains("wait=") || query.contains("timeout_ms="));
        queries.retain(|query| path != "/v1/search" || query.contains("q="));
        queries.into_iter().map(|query| format!("{}?{query}", self.path(path))).collect()
    }
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
        // Far ahead: nothing comes of it here.
        "UPDATE title SET next_change_ms = 9000000000000 + CAST(rating AS BIGINT) WHERE rating > 5",
        "INSERT INTO title_window (title_id, region, gone_ms)
           WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 29)
           SELECT id, CAST(i AS TEXT), 0 FROM title, n",
        "INSERT INTO season (id, name, series_id, number, version, body, created_ms, updated_ms)
           SELECT title.id || '/9', 'S', title.id, 9, 1, one.body, 0, 0 FROM title JOIN season one ON one.id = 'title-9/1'",
        "INSERT INTO collection (id, name, version, body, created_ms, updated_ms)
           SELECT 'c-' || title.id, 'C', 1, one.body, 0, 0 FROM title JOIN collection one ON one.id = 'collection-0'",
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

async fn partial_indexes(people: &People) -> Vec<Partial> {
    if people.app.store.engine() == Engine::Postgres {
        return Vec::new();
    }
    let url = format!("sqlite://{}", people.database.settings.place());
    let pool = sqlx::AnyPool::connect(&url).await.unwrap();
    let made: Vec<(String, String)> =
        sqlx::query_as("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql LIKE '% WHERE %'")
            .fetch_all(&pool)
            .await
            .unwrap();
    pool.close().await;
    made.into_iter().map(|(name, sql)| (name, sql.split_once(" WHERE ").unwrap().1.to_string())).collect()
}

/// As a viewer who may see everything, or as staff.
async fn read(people: &People, target: &str, token: &str) -> Value {
    let got = people.call_with("GET", target, token, None, &[("viewer-maturity", "18")]).await;
    assert_eq!(got.status, StatusCode::OK, "{target}: {got:?}");
    serde_json::from_str(&got.body).unwrap_or_default()
}

async fn write_title(people: &People) {
    let (title, token) = ("/admin/v1/titles/t1", people.admin_token());
    let body = json!({"name": "Title", "year": 1995, "genres": ["Crime"], "rating": 7.5});
    let put = people.call("PUT", title, &token, Some(body)).await;
    assert_eq!(put.status, StatusCode::CREATED, "{put:?}");
    let body = json!({"name": "Title II"});
    let patched = people.call_with("PATCH", title, &token, Some(body), &[("if-match", "*")]).await;
    assert_eq!(patched.status, StatusCode::OK, "{patched:?}");
}

/// A viewer with something in each of her lists: her tokens.
async fn viewer(people: &People) -> (String, String) {
    let tokens = people.viewer(EMAIL).await;
    let progress = json!({"position_s": 600, "duration_s": 6_000});
    for (path, body) in [("/v1/me/watch-list/title-0", None), ("/v1/me/progress/title-0", Some(progress))] {
        let put = people.call("PUT", path, &tokens.access, body).await;
        assert_eq!(put.status, StatusCode::NO_CONTENT, "{path}: {put:?}");
    }
    (people.subject(&tokens), tokens.access)
}

/// Reads everything that can be read, in every way that is described.
async fn read_all(people: &People) {
    let (admin, (subject, viewer)) = (people.admin_token(), viewer(people).await);
    let staff = people.staff(STAFF_EMAIL, StaffRole::Editor).await;
    let title = read(people, "/v1/titles/title-0", "").await;
    let person = title["people"][0]["id"].as_str().unwrap().to_string();
    let examples = Examples { viewer: subject, staff, person };
    let described = read(people, "/openapi.json", "").await;
    let (mut asked, mut lists) = (0, 0);
    for (path, item) in described["paths"].as_object().unwrap() {
        let operation = &item["get"];
        if operation.is_null() {
            continue;
        }
        let token = match operation["security"][0].as_object().and_then(|who| who.keys().next()).map(String::as_str) {
            Some("staff") => &admin,
            Some("viewer") => &viewer,
            _ => "",
        };
        let targets = examples.targets(path, operation);
        for target in &targets {
            let whole = read(people, target, token).await;
            asked += 1;
            if OWN.contains(&path.as_str()) {
                assert_eq!(whole["items"].as_array().map(Vec::len), Some(1), "{target}: {whole}");
            }
        }
        // Everything that has a cursor goes on by it.
        if operation["parameters"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "cursor")) {
            lists += 1;
            for target in targets {
                let page = read(people, &format!("{target}&limit=1"), token).await;
                if let Some(cursor) = page["next_cursor"].as_str() {
                    read(people, &format!("{target}&limit=1&cursor={cursor}"), token).await;
                }
            }
        }
    }
    assert!(asked > 150 && lists >= 11, "{asked} {lists}");
    // Whoever is no admin is shown less of these, by other statements.
    let editor = people.app.keys.admin_token("ed", StaffRole::Editor, 60).unwrap();
    for path in ["/admin/v1/audit", "/admin/v1/purges"] {
        for target in examples.targets(path, &described["paths"][path]["get"]) {
            if !["kind=user", "kind=staff"].iter().any(|of_people| target.contains(of_people)) {
                read(people, &target, &editor).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_and_no_list_walks_through_a_table_that_grows() {
    let mut database = Database::fresh();
    database.settings.remember_statements = true;
    let people = People(Service::over(database).await);
    fill(&people).await;
    write_title(&people).await;
    read_all(&people).await;
    let store = &people.app.store;
    let (engine, statements, partial) = (store.engine(), store.statements(), partial_indexes(&people).await);
    assert!((100..1_000).contains(&statements.len()), "{}", statements.len());
    let mut faults = Vec::new();
    for statement in statements {
        if !["SELECT", "WITH", "UPDATE", "DELETE"].iter().any(|verb| statement.trim_start().starts_with(verb)) {
            continue;
        }
        let plan = store.explain(&statement).await;
        let plan = plan.unwrap_or_else(|error| panic!("{statement}: {error}"));
        let walked = walked(engine, &statement, &plan, &partial);
        if !walked.is_empty() {
            faults.push(format!("{walked:?}\n{statement}\n{plan}\n"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
