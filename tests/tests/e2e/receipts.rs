//! What a purge's receipt says: where it has landed, who is late, who is silent; and what one would touch.
use e2e::eventually;
use e2e::http::{Got, ask, get, send};
use e2e::stack::{Proxy, ProxyShape, Shape, Stack, edge_claims, metrics, sign};
use kv_schemas::claims::Scope;
use reqwest::Method;
use serde_json::{Value, json};

fn states(receipt: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let locations = receipt["edge"]["locations"].as_array().unwrap_or_else(|| panic!("no locations: {receipt}"));
    locations.iter().map(|one| (text(&one["location"]), text(&one["state"]))).collect()
}

async fn patch(stack: &Stack, name: &str) -> Got {
    let written = stack.admin(Method::PATCH, "/admin/v1/titles/heat", Some(json!({"name": name}))).await;
    assert_eq!(written.status, 200, "{written:?}");
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_is_applied_when_every_location_has_it_and_a_killed_one_is_silent_and_not_applied() {
    // Silent after three bounds: not within the moment in which one looks.
    let vars = vec![("BOUND_MS".into(), "2000".into())];
    let mut stack = Stack::of(Shape { edges: 3, vars, ..Shape::default() }).await;
    let receipt = stack.applied(&patch(&stack, "Heat 1").await).await;
    let all = ["local-1", "local-2", "local-3"].map(|name| (name.to_string(), "applied".to_string()));
    assert_eq!(states(&receipt), all, "{receipt}");
    let lag = &receipt["edge"]["lag_ms"];
    let [p50, p95, p99] = ["p50", "p95", "p99"].map(|name| {
        assert!(lag[name].is_u64(), "{name}: {receipt}");
        lag[name].as_u64()
    });
    assert!(p50 <= p95 && p95 <= p99, "{receipt}");
    assert_eq!(receipt["edge"]["laggards"], json!([]));
    // From then on nobody has the old page as a hit.
    for edge in 0..3 {
        assert!(get(format!("{}/v1/titles/heat", stack.fleet.url(edge))).await.body.contains("Heat 1"));
    }
    stack.fleet.kill_edge(2);
    let written = patch(&stack, "Heat 2").await;
    let seq = written.as_of().unwrap().seq;
    for edge in 0..2 {
        get(format!("{}/v1/genres", stack.fleet.url(edge))).await;
    }
    let receipt = stack.admin(Method::GET, &format!("/admin/v1/purges/{seq}"), None).await.json();
    assert_ne!(receipt["state"], "applied", "a location that was there a moment ago is waited for: {receipt}");
    let receipt = stack.applied(&written).await;
    assert_eq!(states(&receipt)[2], ("local-3".into(), "silent".into()), "{receipt}");
    assert_eq!(receipt["edge"]["silent"], json!(["local-3"]));
    let applied = stack.admin(Method::GET, "/admin/v1/purges?state=applied&limit=2", None).await.json();
    assert_eq!(applied["items"][0]["seq"], seq, "{applied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_location_that_was_heard_from_of_late_and_lacks_the_purge_is_named_until_it_is_silent() {
    // Silent after three bounds.
    let vars = vec![("BOUND_MS".into(), "2000".into())];
    let mut stack = Stack::of(Shape { edges: 2, vars, ..Shape::default() }).await;
    stack.applied(&patch(&stack, "Heat 1").await).await;
    stack.fleet.kill_edge(1);
    let seq = patch(&stack, "Heat 2").await.as_of().unwrap().seq;
    let receipt = async || {
        get(stack.url("/v1/genres")).await;
        stack.admin(Method::GET, &format!("/admin/v1/purges/{seq}"), None).await.json()
    };
    // The one that has it counts as applied one bound after the purge; the other is not silent by then.
    let named = eventually("the other has it", || async {
        let receipt = receipt().await;
        (receipt["edge"]["locations"][0]["state"] == "applied").then_some(receipt)
    })
    .await;
    assert_eq!(states(&named)[1], ("local-2".into(), "pending".into()), "{named}");
    assert_eq!((&named["state"], &named["edge"]["laggards"]), (&json!("accepted"), &json!(["local-2"])), "{named}");
    assert_eq!(named["edge"]["silent"], json!([]), "{named}");
    let silent = eventually("silence", || async {
        let receipt = receipt().await;
        (receipt["edge"]["silent"] == json!(["local-2"])).then_some(receipt)
    })
    .await;
    assert_eq!((&silent["state"], &silent["edge"]["laggards"]), (&json!("applied"), &json!([])), "{silent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_location_that_nobody_visits_says_by_itself_that_it_has_the_purge() {
    let stack = Stack::start().await;
    get(stack.url("/v1/home")).await;
    let written = patch(&stack, "Heat 1").await;
    let seq = written.as_of().unwrap().seq;
    // The batch reached this location; no viewer comes.
    let waited = stack.admin(Method::GET, &format!("/admin/v1/purges/{seq}?wait=applied&timeout_ms=9000"), None).await;
    assert_eq!(waited.json()["state"], "applied", "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_journals_process_died_receipts_wait_for_word_and_lose_nothing() {
    let mut stack = Stack::with_edges(2).await;
    let first = patch(&stack, "Heat 1").await;
    stack.applied(&first).await;
    stack.fleet.kill_global();
    let second = patch(&stack, "Heat 2").await;
    let seq = second.as_of().unwrap().seq;
    let pending = stack.admin(Method::GET, &format!("/admin/v1/purges/{seq}"), None).await.json();
    assert_eq!(pending["state"], "pending", "{pending}");
    assert!(pending["edge_unknown"].is_string(), "{pending}");
    stack.fleet.start_global().unwrap();
    for written in [first, second] {
        let receipt = stack.applied(&written).await;
        assert_eq!(states(&receipt).len(), 2, "locations known before the journal died are known: {receipt}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_of_an_edited_page_is_right_at_the_first_try_at_every_location() {
    let stack = Stack::with_edges(3).await;
    for edge in 0..3 {
        get(format!("{}/v1/home", stack.fleet.url(edge))).await;
    }
    for n in 0..10 {
        let name = format!("Heat {n}");
        let state = patch(&stack, &name).await.header("surrogate-as-of").unwrap().to_string();
        let url = format!("{}/v1/home", stack.fleet.url(n % 3));
        let read = send(ask(Method::GET, url).header("min-as-of", state)).await;
        assert!(read.status == 200 && read.body.contains(&name), "{read:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_what_is_known_and_purges_nothing() {
    let stack = Stack::start().await;
    for page in ["/v1/home", "/v1/titles/heat", "/v1/titles/up", "/v1/genres"] {
        get(stack.url(page)).await;
    }
    let before = stack.as_of().await;
    let dry = |body: Value| stack.admin(Method::POST, "/admin/v1/purges?dry_run=true", Some(body));
    let preview = dry(json!({"keys": ["title:heat", "card:heat"], "mode": "soft"})).await;
    assert_eq!(preview.status, 200, "{preview:?}");
    let expected = json!({"dry_run": true, "keys": 2, "all": false, "mode": "soft",
        "memory": [{"location": "local-1", "touched": 2, "held": 4}], "unknown": ["colo", "kv"]});
    assert_eq!(preview.json(), expected, "home and the title's own page");
    assert_eq!(dry(json!({"all": true})).await.json()["memory"][0]["touched"], 4);
    let faulty = dry(json!({"keys": ["a", "b c", "ä"]})).await;
    let places: Vec<_> =
        faulty.json()["errors"].as_array().into_iter().flatten().map(|one| one["at"].clone()).collect();
    assert_eq!((faulty.problem().as_str(), places), ("purge-invalid", vec![json!("/keys/1"), json!("/keys/2")]));
    for misspelt in ["dry-run=true", "dryrun", "dry_run=true&wait=applied"] {
        let path = format!("/admin/v1/purges?{misspelt}");
        let got = stack.admin(Method::POST, &path, Some(json!({"all": true}))).await;
        assert_eq!((got.status, got.problem().as_str()), (400, "query-invalid"), "{misspelt}");
    }
    assert_eq!(stack.as_of().await, before, "nothing was logged");
    assert!(get(stack.url("/v1/home")).await.is_hit());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_with_its_own_log_gives_receipts_itself() {
    let proxy = Proxy::with_edges(2).await;
    proxy.upstream.answer("/a", &[("cache-control", "max-age=60"), ("surrogate-key", "a")], "one");
    let url = proxy.url("/__edge/purges");
    assert_eq!(get(&url).await.problem(), "token-missing");
    assert_eq!(get(format!("{url}/1")).await.problem(), "token-missing");
    let wrong = sign(&proxy.key, edge_claims(Scope::Metrics, None), 60);
    assert_eq!(send(ask(Method::GET, &url).bearer_auth(wrong)).await.problem(), "token-scope");
    let token = sign(&proxy.key, edge_claims(Scope::PurgeRequest, None), 60);
    let read = async |path: &str| send(ask(Method::GET, format!("{url}{path}")).bearer_auth(&token)).await;
    let purged = proxy.purge(r#"{"keys":["a"]}"#).await;
    let seq = purged.as_of().unwrap_or_else(|| panic!("{purged:?}")).seq;
    assert_eq!(purged.json()["seq"], seq, "{purged:?}");
    let receipt = eventually("applied at both", || async {
        for edge in 0..2 {
            get(format!("{}/a", proxy.fleet.url(edge))).await;
        }
        let receipt = read(&format!("/{seq}")).await.json();
        (receipt["state"] == "applied" && receipt["locations"].as_array().is_some_and(|all| all.len() == 2))
            .then_some(receipt)
    })
    .await;
    assert!(receipt["lag_ms"]["p99"].is_u64(), "{receipt}");
    for unused in [1, seq - 1, seq + 1] {
        let got = read(&format!("/{unused}")).await;
        assert_eq!((got.status, got.problem().as_str()), (404, "not-found"), "{unused}");
    }
    assert_eq!(read("/x").await.problem(), "not-found");
    let summary = read("").await.json();
    assert_eq!((&summary["head"], &summary["applied_seq"]), (&json!(seq), &json!(seq)), "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_url_that_is_purged_all_the_time_each_purge_is_applied_in_its_time() {
    const BOUND: std::time::Duration = std::time::Duration::from_secs(3);
    let proxy =
        Proxy::of(ProxyShape { vars: &[("LEASE_MS", "200"), ("BOUND_MS", "3000")], ..ProxyShape::default() }).await;
    proxy.upstream.answer("/a", &[("cache-control", "max-age=60"), ("surrogate-key", "a")], "one");
    let token = sign(&proxy.key, edge_claims(Scope::PurgeRequest, None), 60);
    let receipt = async |seq: u64| {
        let url = proxy.url(&format!("/__edge/purges/{seq}"));
        send(ask(Method::GET, url).bearer_auth(&token)).await.json()
    };
    let both = async || {
        let (began, first) = (std::time::Instant::now(), proxy.purge(r#"{"keys":["a"]}"#).await);
        proxy.purged(r#"{"keys":["a"]}"#).await;
        let first = first.as_of().unwrap().seq;
        eventually("the location has both", || async {
            proxy.get("/a").await;
            (receipt(first).await["locations"][0]["applied_seq"] == first + 1).then_some(())
        })
        .await;
        (began, first)
    };
    // All of what the journal has held for less than a bound is waited for.
    let (_, first) = both().await;
    eventually("applied", || async { (receipt(first).await["state"] == "applied").then_some(()) }).await;
    // A machine that stands still for longer than the bound says nothing of it.
    loop {
        let (began, first) = both().await;
        let there = receipt(first).await;
        if began.elapsed() < BOUND {
            assert_eq!(there["state"], "accepted", "{there}");
            assert!(there["accepted_at_ms"].is_u64() && there["lag_ms"]["p50"].is_u64(), "{there}");
            // Each takes the place of the one before, a bound's tenth apart.
            eventually("applied", || async {
                proxy.purged(r#"{"keys":["a"]}"#).await;
                tokio::time::sleep(BOUND / 10).await;
                (receipt(first).await["state"] == "applied").then_some(())
            })
            .await;
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_purge_there_can_be_lands() {
    let stack = Stack::start().await;
    get(stack.url("/v1/titles/heat")).await;
    let mut keys: Vec<String> = (0..999).map(|n| format!("{n:04}{}", "\"".repeat(1020))).collect();
    keys.push("title:heat".into());
    let purge = stack.admin(Method::POST, "/admin/v1/purges", Some(json!({"keys": keys, "mode": "hard"}))).await;
    assert_eq!(purge.status, 202, "{purge:?}");
    eventually("the page is fetched anew", || async {
        stack.get("/v1/titles/heat").await.cache().contains("purged-hard").then_some(())
    })
    .await;
    // And what comes after it is not held up.
    stack.applied(&patch(&stack, "Heat 2").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_purged_is_not_stored_and_that_is_said_and_counted() {
    let proxy = Proxy::start().await;
    let many = "k".repeat(100) + " ";
    let cases = [("/long", "k".repeat(1_025)), ("/many", many.repeat(170)), ("/odd", "ké".to_string())];
    for (path, keys) in &cases {
        proxy.upstream.answer(path, &[("cache-control", "max-age=60"), ("surrogate-key", keys)], "body");
        for _ in 0..2 {
            let got = proxy.get(path).await;
            assert_eq!((got.status, got.body.as_str()), (200, "body"), "{path}: it reaches the client");
            assert!(got.cache().contains("unstored:bad-surrogate"), "{path}: {got:?}");
        }
    }
    let got = metrics(&proxy.fleet.url(0), &proxy.key).await;
    let of_phase = |phase| got.figure(&format!("edge_unstored_total{{phase=\"{phase}\",reason=\"bad-surrogate\"}}"));
    let counted: u64 = ["miss", "bypass"].into_iter().filter_map(of_phase).sum();
    assert_eq!(counted, 6, "{got:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_title_leaves_every_page_at_its_time_and_no_copy_outlives_it() {
    let stack = Stack::start().await;
    let end_s = e2e::stack::now_s() + 8;
    let until = jiff::Timestamp::from_second(end_s.cast_signed()).unwrap();
    let body = json!({"available_until": until.to_string()});
    let written = stack.admin(Method::PATCH, "/admin/v1/titles/heat", Some(body)).await;
    assert_eq!(written.status, 200, "{written:?}");
    stack.applied(&written).await;
    let pages = ["/v1/home", "/v1/titles/heat", "/v1/catalog?genre=crime"];
    let mut shown = 0;
    loop {
        let asked_s = e2e::stack::now_s();
        let mut seen = false;
        for page in pages {
            let got = stack.get(page).await;
            let shows = got.status == 200 && got.body.contains("\"Heat\"");
            // One second for the clock's own grain.
            assert!(!shows || asked_s <= end_s, "{asked_s} is after {end_s}: {got:?}");
            seen |= shows;
            let ttl = got.cache().split("ttl=").nth(1).and_then(|rest| rest.split(';').next());
            let ttl: Option<u64> = ttl.and_then(|ttl| ttl.parse().ok());
            assert!(!shows || ttl.is_none_or(|ttl| asked_s + ttl <= end_s + 1), "{got:?}");
        }
        if !seen {
            break;
        }
        shown += 1;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(shown > 0 && e2e::stack::now_s() >= end_s, "it was seen until its time");
    let purge = eventually("the purge at its time", || async {
        let purges = stack.admin(Method::GET, "/admin/v1/purges?actor=schedule", None).await.json();
        purges["items"].get(0).cloned()
    })
    .await;
    assert_eq!((&purge["mode"], &purge["reason"]), (&json!("hard"), &json!("goes")), "{purge}");
}

#[tokio::test(flavor = "multi_thread")]
async fn isolates_of_one_location_ask_the_journal_for_each_other() {
    const LEASE_S: f64 = 1.0;
    let stack = Stack::of(Shape { isolates: 4, lease_ms: 1_000, ..Shape::default() }).await;
    let counts = async |isolate: usize| {
        let got = metrics(&stack.fleet.isolate_url(0, isolate), &stack.key).await;
        let value = |name: &str| got.figure(name).unwrap_or_else(|| panic!("no {name}: {got:?}"));
        (value("edge_journal_syncs_total{by=\"itself\"}"), value("edge_journal_syncs_total{by=\"neighbour\"}"))
    };
    let totals = async || {
        let (mut itself, mut neighbour) = (0, 0);
        for isolate in 0..4 {
            let (asked, shared) = counts(isolate).await;
            (itself, neighbour) = (itself + asked, neighbour + shared);
        }
        (itself, neighbour)
    };
    let visit = async |rounds: usize| {
        for _ in 0..rounds {
            for isolate in 0..4 {
                assert_eq!(get(format!("{}/v1/home", stack.fleet.isolate_url(0, isolate))).await.status, 200);
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    // Each asks for itself once, to know what its clock says when the journal's says something.
    visit(100).await;
    let (began, before) = (std::time::Instant::now(), totals().await);
    visit(500).await;
    let (after, elapsed_s) = (totals().await, began.elapsed().as_secs_f64());
    let (itself, neighbour) = (after.0 - before.0, after.1 - before.1);
    println!("4 isolates, {elapsed_s:.1} s: asked the journal {itself} times, learnt of a neighbour {neighbour} times");
    assert!(neighbour > itself, "asked {itself} times, shared {neighbour} times");
    // About one question a lease: up to a tenth is taken off that, and two may ask at once now and then. Each for itself would
    // be four.
    let most = 1.4 * elapsed_s / LEASE_S + 3.0;
    assert!(itself as f64 <= most, "asked {itself} times in {elapsed_s:.1} s; at most {most:.1}");
    // And they share no more than that: a purge is known to each of them.
    stack.applied(&patch(&stack, "Heat 9").await).await;
    for isolate in 0..4 {
        let url = format!("{}/v1/titles/heat", stack.fleet.isolate_url(0, isolate));
        eventually("the edit", || async { get(&url).await.body.contains("Heat 9").then_some(()) }).await;
    }
}
