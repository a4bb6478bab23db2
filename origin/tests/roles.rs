//! What each role serves, and what a flood of one kind of work does to another. Counts, not times.
mod common;

use axum::http::StatusCode;
use common::people::People;
use common::{Database, Service};
use futures_util::future::join_all;
use origin::http::Role;
use serde_json::json;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_role_serves_its_own_routes_and_no_other() {
    let routes = [
        (Role::Client, "/v1/home"),
        (Role::Client, "/v1/me"),
        (Role::Admin, "/admin/v1/titles"),
        (Role::Admin, "/admin/v1/users"),
        (Role::Auth, "/.well-known/jwks.json"),
        (Role::Auth, "/auth/sessions"),
    ];
    for role in [Role::Client, Role::Admin, Role::Auth, Role::Jobs] {
        let service = People(Service::shaped(Database::fresh(), &[role], &[]).await);
        for (of, path) in routes {
            let got = service.get(path, "").await;
            assert_eq!(got.status != StatusCode::NOT_FOUND, of == role, "{role:?} {path}: {got:?}");
        }
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(service.get(path, "").await.status, StatusCode::OK, "{role:?} {path}");
        }
    }
}

#[tokio::test]
async fn a_flood_of_viewers_writes_is_shed_and_admin_writes_keep_their_share() {
    let limits = ["client-write=2/3/10000".parse().unwrap(), "admin-write=2/2/10000".parse().unwrap()];
    let roles = [Role::Client, Role::Admin, Role::Auth];
    let service = Arc::new(People(Service::shaped(Database::fresh(), &roles, &limits).await));
    service.titles(&["heat"]).await;
    let ada = service.viewer("ada@example.org").await;
    // Nobody can write for now: what is let in stays in.
    let taken = service.app.store.write().await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let flood: Vec<_> = (0..50)
        .map(|_| {
            let (service, token, tell) = (Arc::clone(&service), ada.access.clone(), tell.clone());
            tokio::spawn(async move {
                let got = service.call("PUT", "/v1/me/watch-list/heat", &token, None).await;
                tell.send(got.status).unwrap();
                got
            })
        })
        .collect();
    for _ in 0..45 {
        assert_eq!(told.recv().await, Some(StatusCode::SERVICE_UNAVAILABLE), "while five are inside");
    }
    let edit = {
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            service
                .call_with(
                    "PATCH",
                    "/admin/v1/titles/heat",
                    &service.admin_token(),
                    Some(json!({"name": "Heat II"})),
                    &[("if-match", "*")],
                )
                .await
        })
    };
    // Reads go on meanwhile.
    assert_eq!(service.get("/v1/home", "").await.status, StatusCode::OK);
    drop(taken);
    assert_eq!(edit.await.unwrap().status, StatusCode::OK, "an editor's write is not shed");
    let answers: Vec<_> = join_all(flood).await.into_iter().map(Result::unwrap).collect();
    let shed: Vec<_> = answers.iter().filter(|got| got.status == StatusCode::SERVICE_UNAVAILABLE).collect();
    assert_eq!(shed.len(), 45);
    for got in shed {
        assert_eq!((got.problem().as_str(), got.header("retry-after")), ("overloaded", "1"));
    }
    assert_eq!(
        answers.iter().filter(|got| got.status == StatusCode::NO_CONTENT).count(),
        5,
        "those inside were served"
    );
    let after = service.call("PUT", "/v1/me/watch-list/heat", &ada.access, None).await;
    assert_eq!(after.status, StatusCode::NO_CONTENT, "and places come free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_searches_is_shed_and_other_reads_go_on() {
    let limits = ["search=1/0/0".parse().unwrap()];
    let service = People(Service::shaped(Database::fresh(), &[Role::Client, Role::Admin], &limits).await);
    service.titles(&["heat"]).await;
    let paths = (0..20).map(|n| format!("/v1/search?q=zzyzx{n}+quuxly{n}+frobnic{n}"));
    let service = &service;
    let searches = join_all(paths.map(|path| async move { service.get(&path, "").await }));
    let pages = join_all((0..20).map(|_| service.get("/v1/titles/heat", "")));
    let (searches, pages) = futures_util::future::join(searches, pages).await;
    assert!(pages.iter().all(|got| got.status == StatusCode::OK), "{pages:?}");
    let (served, shed): (Vec<_>, Vec<_>) = searches.iter().partition(|got| got.status == StatusCode::OK);
    assert!(!served.is_empty() && !shed.is_empty(), "{searches:?}");
    assert!(shed.iter().all(|got| got.problem() == "overloaded"), "{shed:?}");
    assert_eq!(service.get("/v1/search?q=heat", "").await.status, StatusCode::OK, "and places come free");
}

#[tokio::test]
async fn a_full_service_still_says_how_it_is() {
    let limits = ["admin-write=1/0/0".parse().unwrap()];
    let service = Arc::new(People(Service::shaped(Database::fresh(), &[Role::Admin], &limits).await));
    let taken = service.app.store.write().await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for n in 0..3 {
        let (service, tell) = (Arc::clone(&service), tell.clone());
        tokio::spawn(async move {
            let path = format!("/admin/v1/titles/t{n}");
            let got = service.call("PUT", &path, &service.admin_token(), Some(json!({"name": "T"}))).await;
            tell.send(got.status).unwrap();
        });
    }
    for _ in 0..2 {
        assert_eq!(told.recv().await, Some(StatusCode::SERVICE_UNAVAILABLE), "one is inside");
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(service.get(path, "").await.status, StatusCode::OK);
    }
    drop(taken);
    assert_eq!(told.recv().await, Some(StatusCode::CREATED));
}

/// Sends the head and one byte of a body, and no more.
async fn slow(address: std::net::SocketAddr, path: &str) -> tokio::net::TcpStream {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_come_slowly_take_nobodys_place() {
    let limits = ["auth=1/0/0".parse().unwrap()];
    let service = People(Service::shaped(Database::fresh(), &[Role::Auth], &limits).await);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = service.router.clone();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut slow_ones = Vec::new();
    for _ in 0..5 {
        slow_ones.push(slow(address, "/auth/login").await);
    }
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    // One place and no queue: it is free.
    let body = json!({"email": "ada@example.org", "password": "correct horse"});
    let got = service.post("/auth/login", body).await;
    assert_eq!(got.problem(), "credentials");
    // And they are told off in time.
    let mut answer = vec![0; 64];
    let read = tokio::time::timeout(std::time::Duration::from_secs(8), slow_ones[0].read(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer[..read.expect("in time").unwrap()]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn the_published_keys_are_had_while_log_ins_are_shed() {
    let limits = ["auth=1/0/0".parse().unwrap()];
    let service = Arc::new(People(Service::shaped(Database::fresh(), &[Role::Auth], &limits).await));
    let taken = service.app.store.write().await.unwrap();
    let inside = {
        let service = Arc::clone(&service);
        let body = json!({"email": "ada@example.org", "password": "correct horse"});
        tokio::spawn(async move { service.post("/auth/register", body).await })
    };
    while service.app.auth.hasher.hashed() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(service.post("/auth/refresh", json!({"refresh_token": "x"})).await.problem(), "overloaded");
    assert_eq!(service.get("/.well-known/jwks.json", "").await.status, StatusCode::OK);
    drop(taken);
    assert_eq!(inside.await.unwrap().status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn an_answer_carries_its_request_id_and_malformed_ones_are_replaced() {
    let service = People::start().await;
    for (sent, kept) in [("abc-123", true), ("a b", false), ("x\u{e9}", false)] {
        let got = service.call_with("GET", "/v1/home", "", None, &[("x-request-id", sent)]).await;
        let id = got.header("x-request-id");
        assert_eq!(id == sent, kept, "{id}");
        assert!(!id.is_empty());
    }
}
