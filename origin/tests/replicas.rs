//! A PostgreSQL primary and a streaming replica: who reads where, what a lagging or dead replica does to answers, and what is
//! noticed when a replica takes the primary's place that had not got everything.
mod common;

use axum::http::StatusCode;
use common::door::Door;
use common::{Database, Service, engine, text, until};
use kv_schemas::{AsOf, LogId, Problem, Purge, PurgeAck, PurgeBatch, PurgeMode, Unannounced};
use origin::purge::Dispatcher;
use origin::store::{Engine, LoggedPurge, Settings, Store};
use std::sync::{Arc, Mutex};
use surrogate_cache::intake::{Intake, JournalHead, decide};
use xtask::postgres::{Durable, Postgres};

struct Pair {
    servers: Postgres,
    service: Service,
}

impl Pair {
    async fn start() -> Self {
        Self::with_readers(8).await
    }

    /// With so many connections for reads to each of the two.
    async fn with_readers(readers: u32) -> Self {
        let mut servers = Postgres::start(Durable::No).unwrap();
        let url = servers.database("nextream").unwrap();
        servers.add_replica().unwrap();
        let postgres = Settings::postgres(&url, &[servers.replica_url(0, "nextream")]);
        let settings = Settings { replica_lag_ms: 1_000, readers, ..postgres };
        // The schema is made on the primary and reaches the replica by itself.
        Store::connect(&Settings::postgres(&url, &[])).await.unwrap().close().await;
        servers.await_replica(0).unwrap();
        let service = Service::over(Database { settings, ..Database::fresh() }).await;
        let pair = Self { servers, service };
        pair.write("Heat").await;
        pair.servers.await_replica(0).unwrap();
        until("the replica serves", || async { pair.reads_replica().await.then_some(()) }).await;
        pair
    }

    async fn write(&self, name: &str) -> String {
        let body = format!(r#"{{"name":"{name}"}}"#);
        let written = self.service.ask("PUT", "/admin/v1/titles/heat", &body, &[("if-match", "*")]).await;
        let written = match written.status() {
            StatusCode::PRECONDITION_FAILED => self.service.call("PUT", "/admin/v1/titles/heat", &body).await,
            _ => written,
        };
        assert!(written.status().is_success(), "{written:?}");
        written.headers()["surrogate-as-of"].to_str().unwrap().to_string()
    }

    /// The title's page as viewers get it: status, state, body.
    async fn read(&self, min_as_of: Option<&str>) -> (StatusCode, String, String) {
        let fields: Vec<_> = min_as_of.map(|min| ("min-as-of", min)).into_iter().collect();
        let response = self.service.ask("GET", "/v1/titles/heat", "", &fields).await;
        let as_of = response.headers().get("surrogate-as-of").map(|v| v.to_str().unwrap().to_string());
        (response.status(), as_of.unwrap_or_default(), text(response).await)
    }

    /// Whether a viewer's read is a replica's: only one in recovery says so.
    async fn reads_replica(&self) -> bool {
        self.service.app.store.client_snapshot(None).await.unwrap().is_replica().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_replica_tells_the_truth_about_its_state_and_is_passed_over_for_who_demands_more() {
    let pair = Pair::start().await;
    // Not late yet by its bound: its old page, labelled with its old state. On a machine so slow that it is, once more.
    let mut tries = 0..10;
    let written = loop {
        assert!(tries.next().is_some(), "it is passed over each time");
        pair.servers.pause_replay(0).unwrap();
        let old = pair.read(None).await;
        let written = pair.write("Heat II").await;
        let lagging = pair.read(None).await;
        if lagging.1 != written {
            assert_eq!((lagging.1.as_str(), lagging.2.contains("Heat II")), (old.1.as_str(), false));
            break written;
        }
        pair.write("Heat").await;
        pair.servers.resume_replay(0).unwrap();
        pair.servers.await_replica(0).unwrap();
        until("it serves again", || async { pair.reads_replica().await.then_some(()) }).await;
    };
    let demanded = pair.read(Some(&written)).await;
    assert_eq!((demanded.0, demanded.1.as_str()), (StatusCode::OK, written.as_str()));
    assert!(demanded.2.contains("Heat II"), "{demanded:?}");
    // Late by its bound: nobody is sent there any more.
    until("the late replica is passed over", || async { (!pair.reads_replica().await).then_some(()) }).await;
    assert_eq!(pair.read(None).await.1, written);
    pair.servers.resume_replay(0).unwrap();
    until("it serves again", || async { pair.reads_replica().await.then_some(()) }).await;
    assert_eq!(pair.read(None).await.1, written);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_is_passed_over_and_no_viewer_notices() {
    let mut pair = Pair::start().await;
    let written = pair.write("Heat II").await;
    pair.servers.stop_replica(0);
    for _ in 0..20 {
        let read = pair.read(None).await;
        assert_eq!((read.0, read.1.as_str()), (StatusCode::OK, written.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_connections_are_all_in_use_is_passed_over_and_not_taken_for_one_that_is_away() {
    let pair = Pair::with_readers(1).await;
    let mut held = pair.service.app.store.client_snapshot(None).await.unwrap();
    assert!(held.is_replica().await.unwrap());
    // For longer than it is waited for, by viewers and by who looks whether it is there.
    for _ in 0..4 {
        assert!(!pair.reads_replica().await);
    }
    drop(held);
    assert!(pair.reads_replica().await, "it was never away");
}

#[tokio::test(flavor = "multi_thread")]
async fn editors_read_and_write_on_the_primary() {
    let pair = Pair::start().await;
    pair.servers.pause_replay(0).unwrap();
    pair.write("Heat II").await;
    let seen = text(pair.service.call("GET", "/admin/v1/titles/heat", "").await).await;
    assert!(seen.contains("Heat II"), "{seen}");
}

/// What an edge's journal holds, by the rules it goes by.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    head: Option<JournalHead>,
    purges: Vec<Purge>,
    retired: Vec<LogId>,
    /// The states at which logs were taken up, and what they were said to replace.
    adopted: Vec<(AsOf, Vec<LogId>)>,
    is_away: bool,
    /// How far it was offered purges while it was away.
    offered: Option<AsOf>,
}

impl Journal {
    const CHALLENGE: u64 = 7;

    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let journal = self.clone();
        let take = move |body: axum::Json<PurgeBatch>| async move { journal.0.lock().unwrap().take(&body) };
        let router = axum::Router::new().route("/__edge/purges", axum::routing::post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn was_offered(&self, as_of: &AsOf) -> bool {
        self.0.lock().unwrap().offered.as_ref() == Some(as_of)
    }

    fn is_at(&self, as_of: &AsOf) -> bool {
        let held = self.0.lock().unwrap();
        held.head.as_ref().is_some_and(|head| (&head.log_id, head.head) == (&as_of.log_id, as_of.seq))
    }
}

impl Held {
    fn take(&mut self, batch: &PurgeBatch) -> Result<axum::Json<PurgeAck>, (StatusCode, String)> {
        if self.is_away {
            self.offered = batch.purges.last().map(|last| AsOf::new(batch.log_id.clone(), last.seq));
            return Err((StatusCode::BAD_GATEWAY, String::new()));
        }
        let refused = |json: String| Err((StatusCode::CONFLICT, json));
        let is_retired = self.retired.contains(&batch.log_id);
        let from_index = match decide(self.head.as_ref(), is_retired, Some(Journal::CHALLENGE), batch) {
            Intake::Append { from_index } => from_index,
            Intake::Gap => batch.purges.len(),
            Intake::Adopt { head } => {
                self.retired.extend(self.head.take().map(|held| held.log_id).into_iter().chain(batch.replaces.clone()));
                self.head = Some(JournalHead { log_id: batch.log_id.clone(), head, mark: batch.after_mark });
                self.adopted.push((AsOf::new(batch.log_id.clone(), head), batch.replaces.clone()));
                0
            }
            Intake::Unannounced => {
                return refused(serde_json::to_string(&Unannounced::new(Journal::CHALLENGE)).unwrap());
            }
            Intake::Forked => return refused(Problem::new(409, "log-forked", "Forked").to_json()),
            Intake::Retired => return refused(Problem::new(409, "log-retired", "Retired").to_json()),
        };
        let new = &batch.purges[from_index..];
        let held = self.head.as_mut().unwrap();
        if let Some(last) = new.last() {
            (held.head, held.mark) = (last.seq, last.mark);
        }
        let ack = PurgeAck {
            log_id: held.log_id.clone(),
            seq: None,
            next_seq: held.head + 1,
            accepted: u32::try_from(new.len()).unwrap(),
        };
        self.purges.extend_from_slice(new);
        Ok(axum::Json(ack))
    }
}

/// A primary behind a door, and a replica that is to take its place.
struct Failover {
    servers: Postgres,
    door: Door,
    service: Service,
    journal: Journal,
    journal_url: String,
    _stop: tokio::sync::watch::Sender<bool>,
}

impl Failover {
    async fn start() -> Self {
        let mut servers = Postgres::start(Durable::No).unwrap();
        servers.database("nextream").unwrap();
        servers.add_replica().unwrap();
        let door = Door::before(servers.port()).await;
        let url = servers.url("nextream").replace(&servers.port().to_string(), &door.port.to_string());
        // What is asked when nobody is there is not to wait for long.
        let settings = Settings { wait_ms: 1_000, ..Settings::postgres(&url, &[]) };
        let service = Service::over(Database { settings, ..Database::fresh_on(Engine::Sqlite) }).await;
        let journal = Journal::default();
        let journal_url = journal.start().await;
        let _stop = deliver(&service, &journal_url);
        Self { servers, door, service, journal, journal_url, _stop }
    }

    /// The service ends, and another begins that has seen nothing.
    async fn start_anew(&mut self) {
        // The dispatcher ends with it.
        self._stop = tokio::sync::watch::channel(false).0;
        self.service.app.store.close().await;
        self.service = Service::over(self.service.database.again()).await;
        self._stop = deliver(&self.service, &self.journal_url);
    }

    async fn edit(&self, method: &str, id: &str, name: &str) -> AsOf {
        let body = format!(r#"{{"name":"{name}"}}"#);
        let written = self.service.call(method, &format!("/admin/v1/titles/{id}"), &body).await;
        assert!(written.status().is_success(), "{written:?}");
        written.headers()["surrogate-as-of"].to_str().unwrap().parse().unwrap()
    }

    /// A title's page, and the state it is said to be of.
    async fn page(&self, id: &str) -> (StatusCode, String, String) {
        let response = self.service.call("GET", &format!("/v1/titles/{id}"), "").await;
        let as_of = response.headers().get("surrogate-as-of").map(|v| v.to_str().unwrap().to_string());
        (response.status(), as_of.unwrap_or_default(), text(response).await)
    }

    async fn state(&self) -> Option<AsOf> {
        Some(self.service.app.store.snapshot().await.ok()?.as_of.clone())
    }
}

/// Has its purges delivered to this journal, until what is given back is dropped.
fn deliver(service: &Service, url: &str) -> tokio::sync::watch::Sender<bool> {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let edges = vec![url.to_string()];
    let dispatcher = Dispatcher::new(service.app.store.clone(), service.app.keys.clone(), edges).unwrap();
    tokio::spawn(dispatcher.run(stopped));
    stop
}

/// The primary's machine is lost, and with it what no replica had got yet. It was acknowledged, viewers were shown it, and the
/// edge may have been told; its numbers are given again.
/// `is_told`: whether the journal had got what is lost; `is_reused`: whether another process gives its numbers again before this
/// one looks; `is_anew`: whether the service itself begins anew meanwhile.
async fn fail_over(is_told: bool, is_reused: bool, is_anew: bool) {
    let what = format!("told: {is_told}, reused: {is_reused}, anew: {is_anew}");
    let mut world = Failover::start().await;
    let kept = world.edit("PUT", "heat", "Heat").await;
    until("the first purge is delivered", || async { world.journal.is_at(&kept).then_some(()) }).await;
    world.servers.await_replica(0).unwrap();
    world.servers.cut_replica(0).unwrap();
    world.journal.0.lock().unwrap().is_away = !is_told;
    world.edit("PATCH", "heat", "Lost").await;
    let lost = world.edit("PUT", "ronin", "Ronin").await;
    assert_eq!((&lost.log_id, lost.seq), (&kept.log_id, kept.seq + 2));
    assert!(world.page("heat").await.2.contains("Lost"), "{what}");
    // The dispatcher has looked at it, whatever came of that.
    match is_told {
        true => until("all is delivered", || async { world.journal.is_at(&lost).then_some(()) }).await,
        false => until("all is offered", || async { world.journal.was_offered(&lost).then_some(()) }).await,
    }
    world.servers.kill_primary().unwrap();
    assert_eq!(world.page("ronin").await.0, StatusCode::SERVICE_UNAVAILABLE, "{what}");
    world.servers.promote(0).unwrap();
    if is_reused {
        let store = Store::connect(&Settings::postgres(&world.servers.replica_url(0, "nextream"), &[])).await.unwrap();
        for _ in 0..3 {
            let mut write = store.write().await.unwrap();
            let purge = LoggedPurge { keys: &[], mode: PurgeMode::Hard, reason: None, actor: None };
            write.purge(purge).await.unwrap();
            write.commit().await.unwrap();
        }
        store.close().await;
    }
    world.door.lead_to(world.servers.replica_port(0));
    if is_anew {
        world.start_anew().await;
    }
    world.journal.0.lock().unwrap().is_away = false;
    if !is_reused {
        // Each process sees by itself that the primary is below what it was, before the log has a new identity.
        let shown = until("the page is there again", || async {
            Some(world.page("heat").await).filter(|page| page.0 == StatusCode::OK)
        })
        .await;
        assert!(shown.2.contains("\"Heat\""), "{what}: {shown:?}");
    }
    let new =
        until("the log has a new identity", || async { world.state().await.filter(|now| now.log_id != lost.log_id) })
            .await;
    let replaced = world.service.app.store.snapshot().await.unwrap().replaced_logs().await.unwrap();
    assert_eq!(replaced, std::slice::from_ref(&lost.log_id), "{what}: once");
    until("the new log is announced", || async { world.journal.is_at(&new).then_some(()) }).await;
    {
        let held = world.journal.0.lock().unwrap();
        assert_eq!(held.adopted.last(), Some(&(new.clone(), replaced)), "{what}");
        assert!(held.retired.contains(&lost.log_id), "{what}: nothing of the old one is taken any more");
    }
    // Nobody is shown what is lost, or told that it is there.
    let (status, as_of, body) = world.page("heat").await;
    assert!(status == StatusCode::OK && body.contains("\"Heat\""), "{what}: {body}");
    assert_eq!(as_of, new.to_string(), "{what}");
    assert_eq!(world.page("ronin").await.0, StatusCode::NOT_FOUND, "{what}");
    let demanded = lost.to_string();
    let refused = world.service.ask("GET", "/v1/titles/heat", "", &[("min-as-of", &demanded)]).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{what}");
    // Work goes on, and its purges arrive.
    let next = world.edit("PUT", "ronin", "Ronin again").await;
    assert_eq!(next, AsOf::new(new.log_id.clone(), new.seq + 1), "{what}");
    assert!(world.page("ronin").await.2.contains("Ronin again"), "{what}");
    until("the next purge is delivered", || async { world.journal.is_at(&next).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_loses_commits_is_noticed_by_who_saw_them_and_the_log_gets_a_new_identity() {
    if engine() == Engine::Postgres {
        for (is_told, is_reused) in [(true, false), (false, false), (false, true)] {
            fail_over(is_told, is_reused, false).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_loses_commits_is_noticed_by_the_journal_where_nobody_is_left_who_saw_them() {
    if engine() == Engine::Postgres {
        for is_reused in [false, true] {
            fail_over(true, is_reused, true).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_together_migrate_once_and_agree_on_the_log() {
    let servers = Arc::new(Postgres::start(Durable::No).unwrap());
    let url = servers.database("nextream").unwrap();
    let starts = (0..6).map(|_| {
        let settings = Settings::postgres(&url, &[]);
        tokio::spawn(async move { Store::connect(&settings).await.unwrap().snapshot().await.unwrap().as_of })
    });
    let mut states = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        states.push(start.await.unwrap().to_string());
    }
    states.dedup();
    assert_eq!(states.len(), 1, "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_orders_text_by_a_language_is_refused_with_the_mend() {
    let servers = Postgres::start(Durable::No).unwrap();
    servers
        .sql(
            "postgres",
            "CREATE DATABASE german TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'",
        )
        .unwrap();
    let refused = Store::connect(&Settings::postgres(&servers.url("german"), &[])).await.err().unwrap().to_string();
    assert!(refused.contains("C.UTF-8"), "{refused}");
}
