//! The catalogue from the edge: reads, writes, and what a write does to reads.
use e2e::eventually;
use e2e::http::{ask, get, send};
use e2e::stack::{LEASE_OVER, Stack, edge_claims, is_accepted, metrics, sign};
use kv_schemas::claims::Scope;
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn home_catalogue_and_titles_are_served_and_then_hit_without_asking_origin() {
    let stack = Stack::start().await;
    for (path, route) in
        [("/v1/home", "/v1/home"), ("/v1/catalog?limit=2", "/v1/catalog"), ("/v1/titles/heat", "/v1/titles/{id}")]
    {
        let first = stack.get(path).await;
        assert_eq!(first.status, 200, "{first:?}");
        let before = stack.origin_count(route).await;
        let second = stack.get(path).await;
        assert!(second.is_hit(), "{second:?}");
        assert_eq!(second.body, first.body);
        assert_eq!(second.header("surrogate-key"), None);
        assert_eq!(stack.origin_count(route).await, before, "{path}");
    }
    let home = stack.get("/v1/home").await.json();
    let names: Vec<_> = home["rails"][0]["items"].as_array().unwrap().iter().map(|item| &item["name"]).collect();
    assert_eq!(names, ["Heat", "Up"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_is_walked_by_cursor_and_filtered_by_genre() {
    let stack = Stack::start().await;
    let mut names = Vec::new();
    let mut path = "/v1/catalog?limit=1".to_string();
    loop {
        let page = stack.get(&path).await.json();
        names.push(page["items"][0]["name"].as_str().unwrap().to_string());
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/catalog?limit=1&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(names, ["Heat", "Ronin", "Up"], "in order, and no draft");
    let crime = stack.get("/v1/catalog?genre=crime").await.json();
    assert_eq!(crime["items"].as_array().unwrap().len(), 2);
    assert_eq!(stack.get("/v1/catalog?genre=western").await.problem(), "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_visible_at_every_edge_after_its_purge() {
    let stack = Stack::with_edges(2).await;
    let pages = ["/v1/home", "/v1/catalog", "/v1/titles/heat", "/v1/catalog?genre=crime"];
    for edge in 0..2 {
        for page in pages {
            get(format!("{}{page}", stack.fleet.url(edge))).await;
        }
    }
    let patched = stack.admin(Method::PATCH, "/admin/v1/titles/heat", Some(json!({"name": "Heat II"}))).await;
    assert_eq!(patched.status, 200, "{patched:?}");
    for edge in 0..2 {
        for page in pages {
            let url = format!("{}{page}", stack.fleet.url(edge));
            eventually(&url, || async { get(&url).await.body.contains("Heat II").then_some(()) }).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_bound_an_edit_shows_at_the_first_look_at_every_location() {
    let stack = Stack::with_edges(3).await;
    for edge in 0..3 {
        get(format!("{}/v1/home", stack.fleet.url(edge))).await;
    }
    for n in 0..3 {
        let name = format!("Heat {n}");
        let patched = stack.admin(Method::PATCH, "/admin/v1/titles/heat", Some(json!({"name": name}))).await;
        let seq = patched.as_of().unwrap().seq;
        eventually("accepted", || async {
            let receipt = stack.admin(Method::GET, &format!("/admin/v1/purges/{seq}"), None).await.json();
            is_accepted(&receipt).then_some(())
        })
        .await;
        tokio::time::sleep(LEASE_OVER).await;
        for edge in 0..3 {
            let home = get(format!("{}/v1/home", stack.fleet.url(edge))).await;
            assert!(home.body.contains(&name), "location {edge}: {home:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_leaves_pages_that_do_not_show_the_title_alone() {
    let stack = Stack::start().await;
    for page in ["/v1/titles/up", "/v1/titles/heat"] {
        stack.get(page).await;
    }
    stack.admin(Method::PATCH, "/admin/v1/titles/heat", Some(json!({"synopsis": "Cops and robbers."}))).await;
    eventually("the edit", || async { stack.get("/v1/titles/heat").await.body.contains("Cops").then_some(()) }).await;
    assert!(stack.get("/v1/titles/up").await.is_hit());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unpublished_or_deleted_is_gone_from_the_edge() {
    let stack = Stack::start().await;
    for (id, method, body) in [("heat", Method::PATCH, Some(json!({"published": false}))), ("up", Method::DELETE, None)]
    {
        let page = format!("/v1/titles/{id}");
        assert_eq!(stack.get(&page).await.status, 200);
        let written = stack.admin(method, &format!("/admin/v1/titles/{id}"), body).await;
        assert!(written.status < 300, "{written:?}");
        let seq = written.as_of().unwrap().seq;
        let purge = stack.admin(Method::GET, &format!("/admin/v1/purges/{seq}"), None).await.json();
        assert_eq!(purge["mode"], "hard", "{purge}");
        eventually(&page, || async { (stack.get(&page).await.status == 404).then_some(()) }).await;
        eventually("home", || async { (!stack.get("/v1/home").await.body.contains(id)).then_some(()) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_404_goes_when_the_title_appears() {
    let stack = Stack::start().await;
    assert_eq!(stack.get("/v1/titles/alien").await.status, 404);
    let cached = stack.get("/v1/titles/alien").await;
    assert!(cached.is_hit() && cached.status == 404, "{cached:?}");
    let put = stack.admin(Method::POST, "/admin/v1/titles", Some(json!({"id": "alien", "name": "Alien"}))).await;
    assert_eq!((put.status, put.header("location")), (201, Some("/admin/v1/titles/alien")), "{put:?}");
    eventually("the title", || async { (stack.get("/v1/titles/alien").await.status == 200).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_can_demand_to_read_her_own_write_through_the_edge_at_the_first_try() {
    let stack = Stack::start().await;
    stack.get("/v1/home").await;
    for n in 0..5 {
        let name = format!("Heat {n}");
        let request = ask(Method::PATCH, stack.url("/admin/v1/titles/heat"))
            .bearer_auth(&stack.admin_token)
            .header("if-match", "*")
            .header("content-type", "application/merge-patch+json");
        let written = send(request.body(json!({"name": name}).to_string())).await;
        let as_of =
            written.header("surrogate-as-of").expect("a write says its state, through the edge too").to_string();
        let read = send(ask(Method::GET, stack.url("/v1/home")).header("min-as-of", as_of)).await;
        assert!(read.body.contains(&name), "{read:?}");
    }
    let future = format!("{}:999999", stack.as_of().await.log_id);
    let never = send(ask(Method::GET, stack.url("/v1/home")).header("min-as-of", future)).await;
    assert_eq!((never.status, never.problem().as_str()), (503, "origin-behind"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_by_hand_lands_and_says_how_far_it_has_come() {
    let stack = Stack::start().await;
    stack.get("/v1/home").await;
    let request = json!({"keys": ["home"], "mode": "hard", "reason": "a test"});
    let purge = stack.admin(Method::POST, "/admin/v1/purges", Some(request)).await;
    assert_eq!(purge.status, 202, "{purge:?}");
    let seq = purge.json()["seq"].as_u64().unwrap();
    eventually("accepted", || async {
        let receipt = stack.admin(Method::GET, &format!("/admin/v1/purges/{seq}"), None).await.json();
        assert_eq!((&receipt["actor"], &receipt["reason"]), (&json!("dev"), &json!("a test")));
        is_accepted(&receipt).then_some(())
    })
    .await;
    eventually("the home page is fetched anew", || async {
        stack.get("/v1/home").await.cache().contains("purged-hard").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_parameters_fields_and_cookies_neither_split_nor_poison_an_entry() {
    let stack = Stack::start().await;
    let plain = stack.get("/v1/home").await;
    for (path, name, value) in [
        ("/v1/home?utm_source=x", "x-forwarded-host", "evil.example"),
        ("/v1/home?a=1&a=2", "cookie", "session=1"),
        ("/v1/home", "cache-control", "no-cache"),
        ("/v1/home", "x-http-method-override", "DELETE"),
        ("/v1/home", "x-original-url", "/admin/v1/titles"),
    ] {
        let got = send(ask(Method::GET, stack.url(path)).header(name, value)).await;
        assert!(got.is_hit() && got.body == plain.body, "{path} {name}: {got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn surrogate_fields_are_shown_to_a_debug_token_alone() {
    let stack = Stack::start().await;
    stack.get("/v1/titles/heat").await;
    let debug = |token: String| send(ask(Method::GET, stack.url("/v1/titles/heat")).header("edge-debug", token));
    let shown = debug(sign(&stack.key, edge_claims(Scope::Debug, None), 60)).await;
    let keys = shown.header("surrogate-key").unwrap_or_default();
    assert_eq!(keys, "genre-name:crime person-name:michael-mann title:heat", "{shown:?}");
    assert!(shown.header("surrogate-as-of").is_some());
    assert!(shown.cache().contains("key=\"GET;region=ZZ;locale=en;maturity=18 /v1/titles/heat\""), "{shown:?}");
    assert_eq!(debug(sign(&stack.key, edge_claims(Scope::Metrics, None), 60)).await.problem(), "token-scope");
    assert_eq!(debug("nonsense".into()).await.problem(), "token-refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_open_and_metrics_want_a_token() {
    let stack = Stack::start().await;
    stack.get("/v1/home").await;
    stack.get("/v1/home").await;
    assert_eq!(stack.get("/__edge/health").await.json()["status"], "ok");
    assert_eq!(stack.get("/__edge/metrics").await.problem(), "token-missing");
    let metrics = metrics(&stack.fleet.url(0), &stack.key).await;
    assert!(metrics.figure("edge_answers_total{phase=\"hit\"}").is_some_and(|hits| hits >= 1), "{metrics:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_counted_by_phase_and_reason_and_all_that_is_counted_has_a_line_in_the_table() {
    let stack = Stack::start().await;
    let of_the_edge = async || metrics(&stack.fleet.url(0), &stack.key).await;
    let miss = "edge_reasons_total{phase=\"miss\",reason=\"not-stored\"}";
    let nothing_there = "edge_reasons_total{phase=\"failed\",reason=\"route\"}";
    for (path, series) in [("/v1/home", miss), ("/v2/home", nothing_there)] {
        let before = of_the_edge().await.figure(series).unwrap_or(0);
        let got = stack.get(path).await;
        assert_eq!(of_the_edge().await.figure(series), Some(before + 1), "{series}: {got:?}");
    }
    let reasons = async || {
        let metrics = of_the_edge().await.body;
        metrics.lines().filter(|line| line.starts_with("edge_reasons_total{")).map(String::from).collect::<Vec<_>>()
    };
    let before = reasons().await;
    assert!(stack.get("/v1/home").await.is_hit());
    assert_eq!(reasons().await, before, "a hit has no reason");
    let table = xtask::metrics::documented();
    let of_origin = e2e::http::get(stack.origin_url("/metrics")).await.body;
    // Origin's begin as they are counted.
    for (text, least) in [(of_the_edge().await.body, 11), (of_origin, 5)] {
        let kinds: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert!(kinds.len() >= least, "{text}");
        for line in kinds {
            let (name, kind) = line.split_once(' ').unwrap();
            assert_eq!(table.get(name).map(|metric| metric.kind.as_str()), Some(kind), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_told_304_for_what_they_have() {
    let stack = Stack::start().await;
    let etag = stack.get("/v1/home").await.header("etag").unwrap().to_string();
    let again = send(ask(Method::GET, stack.url("/v1/home")).header("if-none-match", etag.as_str())).await;
    assert_eq!((again.status, again.body.as_str(), again.header("etag")), (304, "", Some(etag.as_str())), "{again:?}");
    let head = send(ask(Method::HEAD, stack.url("/v1/home"))).await;
    assert!(head.status == 200 && head.body.is_empty() && head.header("content-length").is_some(), "{head:?}");
}
