//! What each role serves, and what a flood of one kind of work does to another. Counts, not times.
mod common;

use axum::http::StatusCode;
use common::people::People;
use common::{Database, Service};
use futures_util::future::join_all;
use origin::http::Role;
use serde_json::json;
use std::sync::Arc;

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
