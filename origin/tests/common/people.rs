//! People who use the service: viewers and staff who log in, and calls with their tokens.
#![allow(dead_code)]
use super::{Database, Service};
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use kv_schemas::claims::{StaffRole, ViewerClaims};
use kv_schemas::{AsOf, Purge};
use origin::auth;
use origin::keys::EXPECT_VIEWER;
use origin::store::viewing::Progress;
use serde_json::{Value, json};
use std::ops::Deref;

pub const PASSWORD: &str = "correct horse";

pub struct People(pub Service);

impl Deref for People {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.0
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Got {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The slug of a problem+json; fails on anything else.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16(), "{self:?}");
        problem["type"].as_str().unwrap().trim_start_matches("urn:nextream:problem:").to_string()
    }
}

/// What a log-in or a refresh gives.
#[derive(Debug)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
    pub session: String,
}

fn tokens(got: &Got) -> Tokens {
    let json = got.json();
    let text = |name: &str| json[name].as_str().unwrap_or_else(|| panic!("{got:?}")).to_string();
    assert_eq!(got.header("cache-control"), "no-store");
    Tokens { access: text("access_token"), refresh: text("refresh_token"), session: text("session") }
}

impl People {
    pub async fn start() -> Self {
        Self(Service::over(Database::fresh()).await)
    }

    /// Puts the titles `t0`, `t1`, … on both lists of a viewer, the first of them longest ago.
    pub async fn keeps_titles(&self, id: &str, count: usize) {
        let mut write = self.app.store.write().await.unwrap();
        for n in 0..count {
            let (title_id, updated_ms) = (format!("t{n}"), i64::try_from(n).unwrap());
            write.watch(id, &title_id, updated_ms).await.unwrap();
            let about =
                Progress { title_id, episode_id: None, position_s: 60, duration_s: 600, watching: true, updated_ms };
            write.put_progress(id, &about).await.unwrap();
        }
        write.commit().await.unwrap();
    }

    pub async fn send(&self, request: Request<Body>) -> Got {
        let response = self.answer(request).await;
        let (parts, body) = response.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Got { status: parts.status, headers: parts.headers, body }
    }

    pub async fn call(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> Got {
        self.call_with(method, path, token, body, &[]).await
    }

    pub async fn call_with(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Option<Value>,
        fields: &[(&str, &str)],
    ) -> Got {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    pub async fn get(&self, path: &str, token: &str) -> Got {
        self.call("GET", path, token, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Got {
        self.call("POST", path, "", Some(body)).await
    }

    /// Registers a viewer and logs her in.
    pub async fn viewer(&self, email: &str) -> Tokens {
        let registered = self.post("/auth/register", json!({"email": email, "password": PASSWORD})).await;
        assert_eq!(registered.status, StatusCode::ACCEPTED, "{registered:?}");
        self.log_in(email).await
    }

    pub async fn log_in(&self, email: &str) -> Tokens {
        self.log_in_as("/auth", email).await
    }

    pub async fn log_in_as(&self, below: &str, email: &str) -> Tokens {
        let body = json!({"email": email, "password": PASSWORD, "device": "a test"});
        tokens(&self.post(&format!("{below}/login"), body).await)
    }

    pub async fn refresh(&self, refresh: &str) -> Result<Tokens, String> {
        let got = self.post("/auth/refresh", json!({"refresh_token": refresh})).await;
        if got.status == StatusCode::OK { Ok(tokens(&got)) } else { Err(got.problem()) }
    }

    /// Makes a member of staff; the id.
    pub async fn staff(&self, email: &str, role: StaffRole) -> String {
        auth::accounts::create_staff(&self.app.store, &self.app.auth.hasher, email, role, PASSWORD).await.unwrap()
    }

    pub fn admin_token(&self) -> String {
        self.app.keys.admin_token("test", StaffRole::Admin, 60).unwrap()
    }

    pub fn subject(&self, tokens: &Tokens) -> String {
        self.app.keys.verify::<ViewerClaims>(&tokens.access, EXPECT_VIEWER).unwrap().sub
    }

    pub async fn titles(&self, ids: &[&str]) {
        for id in ids {
            let path = format!("/admin/v1/titles/{id}");
            let put = self.call("PUT", &path, &self.admin_token(), Some(json!({"name": id}))).await;
            assert_eq!(put.status, StatusCode::CREATED, "{put:?}");
        }
    }

    pub async fn as_of(&self) -> AsOf {
        self.app.store.snapshot().await.unwrap().as_of.clone()
    }

    pub async fn last_purge(&self) -> Purge {
        let seq = self.as_of().await.seq;
        self.app.store.snapshot().await.unwrap().purges_after(seq - 1, 1).await.unwrap().remove(0)
    }
}
