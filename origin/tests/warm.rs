//! Warming: the edge is asked to fetch what a purge touched and viewers ask for, once it has the purge.
mod common;

use axum::http::StatusCode;
use common::Service;
use kv_schemas::AsOf;
use kv_schemas::warm::{Outcome, WarmAnswer, WarmRequest, Warmed};
use origin::warm::Warmer;
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Asked = Arc<Mutex<Vec<WarmRequest>>>;

/// An edge that notes what it is to fetch, and by which token.
async fn edge() -> (String, Asked) {
    let asked = Asked::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let noted = Arc::clone(&asked);
    let take = move |headers: axum::http::HeaderMap, axum::Json(request): axum::Json<WarmRequest>| async move {
        assert!(headers["authorization"].to_str().unwrap().starts_with("Bearer "));
        let done = |document: &kv_schemas::warm::WarmDocument| Warmed {
            target: document.target.clone(),
            outcome: Outcome::Stored,
            status: 200,
        };
        let documents = request.documents.iter().map(done).collect();
        noted.lock().unwrap().push(request);
        axum::Json(WarmAnswer { documents })
    };
    let router = axum::Router::new().route("/__edge/warm", axum::routing::post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

/// Waits for so many calls.
async fn until(asked: &Asked, calls: usize) {
    for _ in 0..500 {
        if asked.lock().unwrap().len() >= calls {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_purge_touched_is_warmed_once_the_edge_has_the_purge() {
    let service = Service::start().await;
    let (url, asked) = edge().await;
    for (id, name) in [("heat", "Heat"), ("up", "Up")] {
        let body = format!(r#"{{"name":"{name}"}}"#);
        service.call("PUT", &format!("/admin/v1/titles/{id}"), &body).await;
        let viewer = [("viewer-region", "DE"), ("viewer-locale", "de")];
        let shown = service.ask("GET", &format!("/v1/titles/{id}"), "", &viewer).await;
        assert_eq!(shown.status(), StatusCode::OK);
    }
    // Searches are not worth it.
    assert_eq!(service.ask("GET", "/v1/search?q=heat", "", &[]).await.status(), StatusCode::OK);
    // What an edge fetches ahead of viewers is in nobody's use.
    for region in ["DE", "FR"] {
        let ahead = [("viewer-region", region), ("viewer-locale", "en"), ("sec-purpose", "prefetch")];
        assert_eq!(service.ask("GET", "/v1/titles/heat", "", &ahead).await.status(), StatusCode::OK);
    }
    let in_use = service.app.in_use.clone().unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let warmer = Warmer::new(service.app.store.clone(), service.app.keys.clone(), in_use, &[url], 100).unwrap();
    let before = service.app.store.snapshot().await.unwrap().as_of;
    service.app.store.set_delivered(&before).await.unwrap();
    let running = tokio::spawn(warmer.run(stopped));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let written = service.call("PATCH", "/admin/v1/titles/heat", r#"{"name":"Heat II"}"#).await;
    let as_of: AsOf = written.headers()["surrogate-as-of"].to_str().unwrap().parse().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(asked.lock().unwrap().is_empty(), "the edge does not have the purge yet");
    service.app.store.set_delivered(&as_of).await.unwrap();
    until(&asked, 1).await;
    stop.send(true).unwrap();
    running.await.unwrap();
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].min_as_of, as_of);
    let documents: Vec<_> = asked[0].documents.iter().map(|one| (one.target.as_str(), one.region.unwrap())).collect();
    assert_eq!(documents.len(), 1, "{asked:?}");
    assert_eq!((documents[0].0, documents[0].1.as_str()), ("/v1/titles/heat", "DE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_identity_of_the_log_warms_everything_once_and_later_purges_as_before() {
    let service = Service::start().await;
    let (url, asked) = edge().await;
    for id in ["heat", "up"] {
        service.call("PUT", &format!("/admin/v1/titles/{id}"), &format!(r#"{{"name":"{id}"}}"#)).await;
        service.ask("GET", &format!("/v1/titles/{id}"), "", &[("viewer-region", "DE")]).await;
    }
    let (store, in_use) = (service.app.store.clone(), service.app.in_use.clone().unwrap());
    let before = store.snapshot().await.unwrap().as_of;
    store.set_delivered(&before).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let warmer = Warmer::new(store.clone(), service.app.keys.clone(), in_use, &[url], 100).unwrap();
    let running = tokio::spawn(warmer.run(stopped));
    tokio::time::sleep(Duration::from_millis(300)).await;
    // What is due by the old log, which nobody can answer any more, goes with it.
    service.call("PATCH", "/admin/v1/titles/heat", r#"{"name":"Heat II"}"#).await;
    let renewed = store.replace_log().await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(asked.lock().unwrap().is_empty(), "the edge does not have the new log yet");
    store.set_delivered(&renewed).await.unwrap();
    until(&asked, 1).await;
    // Again, since nothing is warmed twice within a second.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let written = service.call("PATCH", "/admin/v1/titles/up", r#"{"name":"Up II"}"#).await;
    let as_of: AsOf = written.headers()["surrogate-as-of"].to_str().unwrap().parse().unwrap();
    assert_eq!(as_of.log_id, renewed.log_id);
    store.set_delivered(&as_of).await.unwrap();
    until(&asked, 2).await;
    stop.send(true).unwrap();
    running.await.unwrap();
    let asked = asked.lock().unwrap();
    let calls: Vec<_> = asked.iter().map(|one| (&one.min_as_of, targets(one))).collect();
    assert_eq!(calls, [(&renewed, vec!["/v1/titles/heat", "/v1/titles/up"]), (&as_of, vec!["/v1/titles/up"]),]);
}

fn targets(request: &WarmRequest) -> Vec<&str> {
    let mut targets: Vec<_> = request.documents.iter().map(|one| one.target.as_str()).collect();
    targets.sort_unstable();
    targets
}
