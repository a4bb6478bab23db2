//! PostgreSQL with a streaming replica behind the real edge: the replica lags, and no viewer is shown its old state as
//! fresh.
use e2e::eventually;
use e2e::stack::{Shape, Stack};
use reqwest::Method;
use serde_json::json;
use xtask::origin::Database;
use xtask::postgres::{Durable, Postgres};

/// A stack whose viewers' reads come from a replica. It may lag for as long as it likes before it is passed over.
async fn start() -> (Postgres, Stack) {
    let mut servers = Postgres::start(Durable::No).unwrap_or_else(|error| panic!("{error}"));
    let url = servers.database("nextream").unwrap();
    servers.add_replica().unwrap();
    let replica = servers.replica_url(0, "nextream");
    let database = Database::postgres(&url, &[replica]).with("--replica-lag-ms", 3_600_000);
    let stack = Stack::of(Shape { database: Some(database), ..Shape::default() }).await;
    servers.await_replica(0).unwrap();
    (servers, stack)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_never_hidden_by_a_lagging_replica() {
    let (servers, stack) = start().await;
    // The replica is in use: what it answers says so by its state.
    let before = eventually("the replica has the log", || async {
        let got = e2e::http::get(stack.origin_url("/v1/titles/heat")).await;
        (got.status == 200).then_some(got)
    })
    .await;
    stack.get("/v1/titles/heat").await;
    eventually("a hit", || async { stack.get("/v1/titles/heat").await.is_hit().then_some(()) }).await;
    servers.pause_replay(0).unwrap();
    // One page that is held already and is purged hard, one that is held and purged softly, one nobody has asked for.
    stack.get("/v1/titles/up").await;
    let edits = [("heat", "?purge=hard", "Heat II"), ("up", "", "Up II"), ("ronin", "", "Ronin II")];
    let mut last = None;
    for (id, query, name) in edits {
        let path = format!("/admin/v1/titles/{id}{query}");
        let written = stack.admin(Method::PATCH, &path, Some(json!({"name": name}))).await;
        assert_eq!(written.status, 200, "{written:?}");
        last = Some(written);
    }
    let last = last.expect("no edit");
    let newest = last.header("surrogate-as-of").unwrap().to_string();
    // By itself the replica shows the old names, labelled with the old state.
    let lagging = e2e::http::get(stack.origin_url("/v1/titles/ronin")).await;
    assert!(!lagging.body.contains("Ronin II"), "replay is paused, and viewers' reads are the replica's: {lagging:?}");
    assert_eq!(lagging.header("surrogate-as-of"), before.header("surrogate-as-of"));
    stack.applied(&last).await;
    for round in 0..20 {
        for (id, _, name) in edits {
            let got = stack.get(&format!("/v1/titles/{id}")).await;
            assert_eq!(got.status, 200, "{got:?}");
            // What was held and is purged softly may be shown as what it is, while the new page is fetched.
            let is_old = id == "up" && !got.is_hit();
            assert!(got.body.contains(name) || is_old, "round {round}: an old page: {got:?}");
        }
    }
    for (id, _, name) in edits {
        let page = format!("/v1/titles/{id}");
        eventually("the new page", || async { stack.get(&page).await.body.contains(name).then_some(()) }).await;
        // Who demands the write gets it, whatever the replica has.
        let request = e2e::http::ask(Method::GET, stack.url(&page)).header("min-as-of", &newest);
        let demanded = e2e::http::send(request).await;
        assert_eq!((demanded.status, demanded.body.contains(name)), (200, true), "{demanded:?}");
    }
    servers.resume_replay(0).unwrap();
    servers.await_replica(0).unwrap();
    let caught_up = eventually("the replica serves the new state", || async {
        let got = e2e::http::get(stack.origin_url("/v1/titles/ronin")).await;
        got.body.contains("Ronin II").then_some(got)
    })
    .await;
    assert_eq!(caught_up.header("surrogate-as-of"), Some(newest.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_under_viewers_is_not_noticed_at_the_edge() {
    let (mut servers, stack) = start().await;
    servers.stop_replica(0);
    for page in ["/v1/home", "/v1/catalog", "/v1/titles/up", "/v1/titles/ronin", "/v1/genres"] {
        let got = stack.get(page).await;
        assert_eq!(got.status, 200, "{page}: {got:?}");
    }
}
