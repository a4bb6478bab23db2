//! What of a document a client asks for: cut at the edge from the one that is cached, with tags of its own.
use e2e::api::{Api, SHARED};
use e2e::http::{Got, ask, send};
use e2e::stack::{LEASE_OVER, Stack};
use reqwest::Method;
use serde_json::{Value, json};
use std::io::Read;

async fn get(stack: &Stack, path: &str, fields: &[(&str, &str)]) -> Got {
    let request = ask(Method::GET, stack.url(path));
    send(fields.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_is_made_from_the_cached_document_and_has_no_entry_of_its_own() {
    let stack = Stack::start().await;
    assert_eq!(stack.get("/v1/home").await.status, 200);
    let before = stack.origin_count("/v1/home").await;
    let got = stack.get("/v1/home?fields=rails(id,items.name)").await;
    assert!(got.is_hit(), "{got:?}");
    assert_eq!(got.json(), json!({"rails": [{"id": "top", "items": [{"name": "Heat"}, {"name": "Up"}]}]}));
    for n in 0..10 {
        let got = stack.get(&format!("/v1/home?fields=rails.id,none{n}&limit={}", n + 1)).await;
        assert!(got.is_hit(), "{got:?}");
    }
    assert_eq!(stack.origin_count("/v1/home").await, before, "origin was asked once, for the document");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_of_what_is_not_cached_fills_the_whole_document() {
    let stack = Stack::start().await;
    let cut = stack.get("/v1/titles/heat?fields=id").await;
    assert_eq!(cut.body, r#"{"id":"heat"}"#);
    let whole = stack.get("/v1/titles/heat").await;
    assert!(whole.is_hit(), "{whole:?}");
    assert!(whole.json()["people"].is_array());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_shows_in_cuts_as_in_documents() {
    let stack = Stack::start().await;
    let names = "/v1/home?fields=rails.items.name&limit=1";
    assert!(stack.get(names).await.body.contains("Heat"));
    stack.admin(Method::PATCH, "/admin/v1/titles/heat?purge=hard", Some(json!({"name": "Heat II"}))).await;
    e2e::eventually("the edit", || async { stack.get(names).await.body.contains("Heat II").then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_has_a_tag_that_is_answered_with_304_and_that_no_other_cut_has() {
    let stack = Stack::start().await;
    let whole = stack.get("/v1/home").await;
    let (ids, names) = ("/v1/home?fields=rails.id", "/v1/home?fields=rails.items.name");
    let tag = |got: &Got| got.header("etag").expect("a tag").to_string();
    let (cut, other) = (stack.get(ids).await, stack.get(names).await);
    assert!(tag(&cut).starts_with("W/"), "{cut:?}");
    assert_ne!(tag(&cut), tag(&other));
    let again = get(&stack, ids, &[("if-none-match", &tag(&cut))]).await;
    assert_eq!((again.status, again.body.as_str(), tag(&again)), (304, "", tag(&cut)));
    let listed = format!("\"x\", {}, {}", tag(&other), tag(&cut));
    assert_eq!(get(&stack, ids, &[("if-none-match", &listed)]).await.status, 304);
    for strange in [tag(&whole), tag(&other), "\"x\"".into()] {
        assert_eq!(get(&stack, ids, &[("if-none-match", &strange)]).await.status, 200, "{strange}");
        assert_eq!(get(&stack, "/v1/home", &[("if-none-match", &tag(&cut))]).await.status, 200, "nor the document");
    }
    assert_eq!(get(&stack, ids, &[("if-none-match", "*")]).await.status, 304);
    // The tag follows the document.
    stack.admin(Method::PATCH, "/admin/v1/titles/heat?purge=hard", Some(json!({"name": "Heat II"}))).await;
    tokio::time::sleep(LEASE_OVER).await;
    e2e::eventually("a new tag", || async {
        (get(&stack, ids, &[("if-none-match", &tag(&cut))]).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_is_packed_for_those_who_take_it_and_a_head_says_what_a_get_would() {
    let stack = Stack::of(e2e::stack::Shape { catalogue: many(60), ..Default::default() }).await;
    let path = "/v1/catalog?limit=60&fields=items(id,name)";
    let plain = stack.get(path).await;
    assert_eq!((plain.status, plain.header("content-encoding")), (200, None));
    assert_eq!(plain.json()["items"].as_array().unwrap().len(), 60);
    let request = ask(Method::GET, stack.url(path)).header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(request.headers()["content-encoding"], "gzip");
    assert_eq!(request.headers()["etag"].to_str().unwrap(), plain.header("etag").unwrap());
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&request.bytes().await.unwrap()[..]).read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    for (name, packed) in [("identity", false), ("gzip", true)] {
        let head = send(ask(Method::HEAD, stack.url(path)).header("accept-encoding", name)).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{head:?}");
        assert_eq!(head.header("etag"), plain.header("etag"));
        assert_eq!(head.header("content-encoding").is_some(), packed, "{head:?}");
        if !packed {
            assert_eq!(head.header("content-length"), Some(plain.body.len().to_string().as_str()), "{head:?}");
        }
    }
    let part = get(&stack, path, &[("range", "bytes=0-3")]).await;
    assert_eq!((part.status, part.body), (200, plain.body), "no ranges of cuts");
}

fn many(titles: usize) -> String {
    (0..titles).map(|n| format!("{{\"type\":\"title\",\"id\":\"t{n:03}\",\"name\":\"Title {n:03}\"}}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_is_walked_in_parts_of_any_size_from_two_sizes_of_page() {
    let stack = Stack::of(e2e::stack::Shape { catalogue: many(130), ..Default::default() }).await;
    for limit in [1, 7, 24, 25, 60, 100] {
        let (mut ids, mut path) = (Vec::new(), format!("/v1/catalog?limit={limit}"));
        for _ in 0..200 {
            let page = stack.get(&path).await.json();
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= limit, "{path}");
            ids.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_string()));
            match page["next_cursor"].as_str() {
                Some(cursor) => path = format!("/v1/catalog?limit={limit}&cursor={cursor}"),
                None => break,
            }
        }
        let all: Vec<String> = (0..130).map(|n| format!("t{n:03}")).collect();
        assert_eq!(ids, all, "limit {limit}");
    }
    let before = stack.origin_count("/v1/catalog").await;
    for limit in 1..=100 {
        assert_eq!(stack.get(&format!("/v1/catalog?limit={limit}")).await.status, 200);
    }
    assert_eq!(stack.origin_count("/v1/catalog").await, before, "a hundred sizes, two pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_wishes_are_refused_with_the_parameter_and_ask_nobody() {
    let stack = Stack::start().await;
    let before = stack.to_origin.asked();
    for (query, at) in [
        ("fields=", "fields"),
        ("fields=a(b", "fields"),
        ("fields=a&fields=b", "fields"),
        ("fields=%zz", "fields"),
        ("limit=0", "limit"),
        ("limit=1e3", "limit"),
        ("cursor=~1", "cursor"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let got = send(ask(method.clone(), stack.url(&format!("/v1/home?{query}")))).await;
            assert_eq!(got.status, 400, "{query}: {got:?}");
            if method == Method::GET {
                assert_eq!(got.problem(), "query-invalid", "{query}");
                assert_eq!(got.json()["errors"][0]["at"], at, "{query}");
            }
        }
    }
    let long = format!("/v1/home?fields={}", "abcdefg,".repeat(200));
    assert_eq!(stack.get(&long).await.problem(), "query-invalid");
    assert_eq!(stack.to_origin.asked(), before);
    let missing = stack.get("/v1/titles/none?fields=id").await;
    assert_eq!((missing.status, missing.problem().as_str()), (404, "not-found"), "an error is never cut");
    assert_ne!(missing.json()["title"], Value::Null);
}

/// A service that is wrong about its own type, or ends too early and says that this is all.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_no_json_is_cut_for_nobody_and_is_right_again_once_it_is_mended_and_purged() {
    let api = Api::start().await;
    let (cut, genres) = ("/v1/home?fields=rails.id", "/v1/genres");
    api.answer(genres, &SHARED, "genres", "[]");
    for broken in [r#"{"rails":["#, r#"{"rails":[{"id":"top"}]}}"#, "<html>"] {
        api.purge("hard", &["home"]).await;
        api.answer("/v1/home", &SHARED, "home", broken);
        // Fetched, and then from the cache.
        for _ in 0..2 {
            let got = api.get(cut, &[]).await;
            assert_eq!((got.status, got.problem().as_str()), (502, "document-broken"), "{broken}: {got:?}");
            let head = send(ask(Method::HEAD, api.url(cut))).await;
            assert_eq!((head.status, head.body.as_str()), (502, ""), "{broken}: {head:?}");
            let requests = json!({"requests": [{"path": cut}, {"path": "/v1/home"}, {"path": genres}]});
            let batch = send(ask(Method::POST, api.url("/v1/batch")).body(requests.to_string())).await;
            assert_eq!(batch.status, 200, "{broken}: {batch:?}");
            let answers = batch.json()["responses"].take();
            let kind = |at: usize| answers[at]["body"]["type"].as_str().unwrap_or_default().rsplit(':').next();
            assert_eq!((&answers[0]["status"], kind(0)), (&json!(502), Some("document-broken")), "{broken}: {answers}");
            assert_eq!((&answers[1]["status"], kind(1)), (&json!(502), Some("member-failed")), "{broken}: {answers}");
            assert_eq!((&answers[2]["status"], &answers[2]["body"]), (&json!(200), &json!([])), "{broken}: {answers}");
        }
        api.purge("hard", &["home"]).await;
        api.answer("/v1/home", &SHARED, "home", r#"{"rails":[{"id":"top","items":[]}]}"#);
        let mended = api.get(cut, &[]).await;
        assert_eq!((mended.status, mended.body.as_str()), (200, r#"{"rails":[{"id":"top"}]}"#), "{broken}: {mended:?}");
    }
}
