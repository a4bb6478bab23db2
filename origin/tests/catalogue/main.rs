//! The catalogue over the real router and a real database: what editors do to it, what viewers see of it, what a search
//! finds. One fact each. What pages carry for caches is in `reach.rs` and `service.rs`.
#[path = "../common/mod.rs"]
mod common;

mod edits;
mod pages;
mod schedule;
mod search;

use axum::http::StatusCode;
use common::people::{Got, People};
use kv_schemas::claims::StaffRole;
use serde_json::{Value, json};
use std::ops::Deref;

/// A viewer of age 18 from nowhere in particular.
pub const ANYBODY: [&str; 4] = ["ZZ", "en", "18", "none"];
const FIELDS: [&str; 4] = ["viewer-region", "viewer-locale", "viewer-maturity", "viewer-plan"];

pub struct Catalogue(People);

impl Deref for Catalogue {
    type Target = People;

    fn deref(&self) -> &People {
        &self.0
    }
}

impl Catalogue {
    pub async fn start() -> Self {
        Self(People::start().await)
    }

    /// What this member of staff is answered; nothing is added to the request.
    pub async fn staff_asks(&self, who: &str, method: &str, path: &str, body: &Value, fields: &[(&str, &str)]) -> Got {
        let token = self.app.keys.admin_token(who, StaffRole::Editor, 60).unwrap();
        let body = (!body.is_null()).then(|| body.clone());
        self.call_with(method, &format!("/admin/v1/{path}"), &token, body, fields).await
    }

    /// An editor's request, for whatever state is there.
    pub async fn edit(&self, method: &str, path: &str, body: Value) -> Got {
        let fields: &[(&str, &str)] = if method == "PUT" { &[] } else { &[("if-match", "*")] };
        let got = self.staff_asks("ed", method, path, &body, fields).await;
        assert!(got.status.is_success(), "{method} {path} {body}: {got:?}");
        got
    }

    /// Creates it, whatever kind of thing it is.
    pub async fn put(&self, path: &str, body: Value) {
        assert_eq!(self.edit("PUT", path, body).await.status, StatusCode::CREATED, "{path}");
    }

    /// A page as this viewer (region, locale, maturity, plan) is shown it.
    pub async fn page(&self, path: &str, viewer: [&str; 4]) -> Got {
        let fields: Vec<(&str, &str)> = FIELDS.into_iter().zip(viewer).collect();
        self.call_with("GET", path, "", None, &fields).await
    }

    pub async fn shown(&self, path: &str, viewer: [&str; 4]) -> Value {
        let got = self.page(path, viewer).await;
        assert_eq!(got.status, StatusCode::OK, "{path}: {got:?}");
        got.json()
    }

    /// The ids on a page that has a list.
    pub async fn ids(&self, path: &str, viewer: [&str; 4]) -> Vec<String> {
        ids_of(&self.shown(path, viewer).await)
    }

    /// The rails of a viewer's home page, each with the ids it shows.
    pub async fn rails(&self, viewer: [&str; 4]) -> Vec<(String, Vec<String>)> {
        let home = self.shown("/v1/home", viewer).await;
        let row = |rail: &Value| (rail["id"].as_str().unwrap().to_string(), ids_of(rail));
        home["rails"].as_array().unwrap().iter().map(row).collect()
    }

    pub async fn rail_ids(&self, viewer: [&str; 4]) -> Vec<String> {
        self.rails(viewer).await.into_iter().map(|(id, _)| id).collect()
    }
}

pub fn ids_of(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap_or_else(|| panic!("no items: {page}"));
    items.iter().map(|item| item["id"].as_str().unwrap().to_string()).collect()
}

/// Where a refusal says the faults are, sorted.
pub fn faults(got: &Got) -> Vec<String> {
    let problem = got.json();
    let mut at: Vec<String> =
        problem["errors"].as_array().unwrap().iter().map(|fault| fault["at"].as_str().unwrap().to_string()).collect();
    at.sort_unstable();
    at
}

/// RFC 3339, this far from now.
pub fn in_s(seconds: i64) -> Value {
    let ms = jiff::Timestamp::now().as_millisecond() + seconds * 1_000;
    json!(jiff::Timestamp::from_millisecond(ms).unwrap().to_string())
}
