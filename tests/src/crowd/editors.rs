//! Editors at work through the edge: texts, names, ratings, new titles and purges by hand, each with `If-Match` of what was
//! read before. When one is due does not depend on when the last was done. Titles belong to one editor each, so nobody
//! works on what another has read.
use super::World;
use super::truth::{Words, told, version_of};
use crate::http::{Got, send_to};
use fastrand::Rng;
use kv_schemas::AsOf;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep_until;

/// How many work at once: with one that waits for a receipt, the others go on.
pub const EDITORS: u64 = 8;
const RECEIPT_TIMEOUT_MS: u64 = 5_000;

pub struct Editor {
    world: Arc<World>,
    n: u64,
    rng: Rng,
    client: Client,
    count: u64,
}

impl Editor {
    pub fn new(world: &Arc<World>, n: u64) -> Self {
        let rng = Rng::with_seed(world.seed.wrapping_add(n).wrapping_mul(0xd134_2543_de82_ef95));
        Self { world: Arc::clone(world), n, rng, client: crate::http::client(), count: 0 }
    }

    /// Works until everybody stops, and waits for the last receipts.
    pub async fn work(mut self) {
        let mut stop = self.world.stopping();
        let pause = Duration::from_secs_f64(EDITORS as f64 / self.world.edits_per_s);
        let mut due = Instant::now() + pause.mul_f64(self.n as f64 / EDITORS as f64);
        let mut receipts = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                () = sleep_until(due.into()) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            self.count += 1;
            match self.rng.u32(0..100) {
                0..55 => self.edit(due, Words::Synopsis, &mut receipts).await,
                55..75 => self.edit(due, Words::Name, &mut receipts).await,
                75..82 => self.rate(due).await,
                82..86 => self.create(due).await,
                86..95 => self.purge(due, "soft").await,
                _ => self.purge(due, "hard").await,
            }
            due += pause.mul_f64(0.5 + self.rng.f64());
        }
        receipts.join_all().await;
    }

    /// A title of this editor's: half of the time one that many look at.
    fn title(&mut self) -> u64 {
        let titles = self.world.catalogue.titles;
        let any = match self.rng.bool() {
            true => self.world.catalogue.title(&mut self.rng),
            false => self.rng.u64(0..titles),
        };
        let own = any / EDITORS * EDITORS + self.n;
        if own < titles { own } else { self.n }
    }

    async fn ask(&self, method: Method, path: &str, fields: &[(&str, &str)], body: Option<&Value>) -> Option<Got> {
        let url = format!("{}{path}", self.world.edge_url);
        let mut request = self.client.request(method, url).bearer_auth(&self.world.admin_token);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        tokio::time::timeout(Duration::from_secs(10), send_to(request)).await.ok().flatten()
    }

    /// Notes a write. What was answered, if it was well.
    fn wrote(&self, what: &'static str, due: Instant, wanted: u16, got: Option<Got>) -> Option<Got> {
        match got {
            Some(got) if got.status == wanted => {
                self.world.tally.wrote(what, due);
                Some(got)
            }
            Some(got) => {
                self.world.tally.failed(due, format!("{what}: status {}: {}", got.status, got.body));
                None
            }
            None => {
                self.world.tally.failed(due, format!("{what}: no answer"));
                None
            }
        }
    }

    /// Reads a title's record, and writes what `change` makes of it.
    async fn change(
        &self,
        due: Instant,
        title: u64,
        what: &'static str,
        change: impl Fn(&Value) -> Value,
    ) -> Option<Got> {
        let path = format!("/admin/v1/titles/title-{title}");
        let Some(read) = self.ask(Method::GET, &path, &[], None).await.filter(|got| got.status == 200) else {
            self.world.tally.failed(due, format!("{what}: the record could not be read"));
            return None;
        };
        let etag = read.header("etag").unwrap_or("*").to_string();
        let fields = [("if-match", etag.as_str()), ("content-type", "application/merge-patch+json")];
        let got = self.ask(Method::PATCH, &path, &fields, Some(&change(&read.json()))).await;
        self.wrote(what, due, 200, got)
    }

    async fn edit(&mut self, due: Instant, words: Words, receipts: &mut tokio::task::JoinSet<()>) {
        let title = self.title();
        let (member, what) = match words {
            Words::Synopsis => ("synopsis", "a text"),
            Words::Name => ("name", "a name"),
        };
        let old = |record: &Value| record[member].as_str().unwrap_or_default().to_string();
        let written = self.change(due, title, what, |record| {
            let old = old(record);
            json!({ member: told(&old, version_of(&old) + 1) })
        });
        let Some(written) = written.await else { return };
        let version = version_of(&old(&written.json()));
        let world = Arc::clone(&self.world);
        let client = self.client.clone();
        let acknowledged = Instant::now();
        receipts.spawn(async move {
            // The next edit does not wait for this one's receipt.
            let Some(AsOf { seq, .. }) = written.as_of() else { return };
            let query = format!("wait=accepted&timeout_ms={RECEIPT_TIMEOUT_MS}");
            let url = format!("{}/admin/v1/purges/{seq}?{query}", world.edge_url);
            let receipt = send_to(client.get(url).bearer_auth(&world.admin_token)).await;
            let state = receipt.map(|got| got.json()["state"].clone()).unwrap_or_default();
            if state == "accepted" || state == "applied" {
                world.truth.lands(title, words, version);
                world.tally.landed(acknowledged);
            } else {
                world.tally.failed(acknowledged, format!("a purge has no receipt within 5 s: {state}"));
            }
        });
    }

    async fn rate(&mut self, due: Instant) {
        let title = self.title();
        let rating = f64::from(self.rng.u32(20..100)) / 10.0;
        self.change(due, title, "a rating", |_| json!({"rating": rating})).await;
    }

    async fn create(&mut self, due: Instant) {
        let id = format!("new-{}-{}", self.n, self.count);
        let record = json!({"id": id, "name": format!("New {id}"), "genres": ["Western"], "synopsis": "New."});
        let fields = [("content-type", "application/json"), ("idempotency-key", id.as_str())];
        let got = self.ask(Method::POST, "/admin/v1/titles", &fields, Some(&record)).await;
        self.wrote("a new title", due, 201, got);
    }

    async fn purge(&mut self, due: Instant, mode: &'static str) {
        let title = self.title();
        let body = json!({"keys": [format!("title:title-{title}")], "mode": mode, "reason": "new artwork"});
        let got =
            self.ask(Method::POST, "/admin/v1/purges", &[("content-type", "application/json")], Some(&body)).await;
        self.wrote(if mode == "soft" { "a soft purge" } else { "a hard purge" }, due, 202, got);
    }
}
