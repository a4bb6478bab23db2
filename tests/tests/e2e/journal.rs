//! The purge journal: what its memory holds against its storage. It is asked in its own words, past any edge, and its storage
//! is made to refuse a statement.
use e2e::api::Api;
use e2e::eventually;
use e2e::stack::{LEASE_OVER, Proxy, set_var};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use kv_schemas::journal::{Floor, JournalDelta, JournalQuery};
use kv_schemas::{AsOf, PerClass};
use serde_json::json;
use sqlx::{Connection, SqliteConnection};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use xtask::fleet::{Fleet, Options};

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// What the journal tells an isolate that knows nothing.
async fn told(state: &Path) -> JournalDelta {
    told_after(state, None).await
}

/// What it tells one that knows a log up to a state, or nothing.
async fn told_after(state: &Path, known: Option<AsOf>) -> JournalDelta {
    let (log_id, since) = known.map(|known| (known.log_id, known.seq)).unzip();
    let query = JournalQuery { log_id, since: since.unwrap_or(0), location: String::new() };
    let (_, answer) = call(state, "/sync", query.encode().into()).await;
    JournalDelta::decode(&answer).expect("no answer of the journal")
}

/// Calls it as an edge does: status and content of its answer.
async fn call(state: &Path, path: &str, body: Bytes) -> (u16, Bytes) {
    let stream = tokio::net::UnixStream::connect(state.join("journal.sock")).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::post(path).header("host", "journal").body(Full::new(body)).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    (answer.status().as_u16(), answer.into_body().collect().await.unwrap().to_bytes())
}

/// The journal's storage. Nobody else may have it.
pub async fn storage(state: &Path) -> SqliteConnection {
    opened(state).await.unwrap()
}

async fn opened(state: &Path) -> sqlx::Result<SqliteConnection> {
    let files = std::fs::read_dir(state.join("journal/purge-journal")).unwrap();
    let names = files.map(|file| file.unwrap().path());
    let is_its_own =
        |path: &PathBuf| path.extension().is_some_and(|end| end == "sqlite") && !path.ends_with("metadata.sqlite");
    let file = names.into_iter().find(is_its_own).expect("no storage");
    SqliteConnection::connect(&format!("sqlite://{}", file.display())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_knows_nothing_is_told_the_same_by_a_journal_that_has_told_others_and_by_one_that_has_just_begun() {
    let mut api = Api::start().await;
    let state = api.fleet.state().to_path_buf();
    let mut purged = 0;
    for round in 0..2 {
        // More of each class than are told one by one, and then a few at a time.
        for count in [6_000, 1, 40, 700, 3] {
            let purges: Vec<_> = (purged..purged + count)
                .map(|n| {
                    let keys = match n % 10 {
                        0 | 1 => vec![format!("session:{n}")],
                        2 | 3 => vec![format!("viewer:{n}")],
                        4 => vec![format!("title:{n}"), format!("session:{n}")],
                        5 => vec![format!("viewer:{n}"), format!("user:{n}")],
                        // Written again and again: the youngest takes the place of the others.
                        6 => vec![format!("title:again-{}", n % 7)],
                        _ => vec![format!("title:{n}")],
                    };
                    json!({"keys": keys, "mode": if n % 13 < 4 { "soft" } else { "hard" }})
                })
                .collect();
            for some in purges.chunks(1_000) {
                let taken = api.purge_at_once(some).await;
                assert_eq!(taken.status, 200, "{taken:?}");
            }
            purged += count;
            let told = told(&state).await;
            assert_eq!(told.head, told.until, "{round}, {count}: all of it");
            assert!(told.floors.viewer.hard > told.floors.content.hard && told.floors.content.hard > 1, "{told:?}");
        }
        is_told_after_a_restart(&mut api, told(&state).await).await;
    }
    // Numbers of another log are not those of the last.
    let announce = |challenge| json!({"log_id": "another", "first_seq": 11, "challenge": challenge, "purges": []});
    let challenge = api.send_batch(&announce(json!(0))).await.json()["challenge"].clone();
    assert_eq!(api.send_batch(&announce(challenge)).await.status, 200);
    let purge = json!({"seq": 11, "keys": ["title:a"], "mode": "soft", "committed_at_ms": 0});
    let taken = api.send_batch(&json!({"log_id": "another", "first_seq": 11, "purges": [purge]})).await;
    assert_eq!(taken.status, 200, "{taken:?}");
    let told = told(&state).await;
    assert_eq!((told.floors, told.purges.len()), (PerClass::new(|_| Floor::hard(10)), 1));
    is_told_after_a_restart(&mut api, told).await;
}

async fn is_told_after_a_restart(api: &mut Api, before: JournalDelta) {
    api.fleet.kill_global();
    api.fleet.start_global().unwrap();
    let after = told(api.fleet.state()).await;
    assert_ne!(before.clock.epoch, after.clock.epoch);
    assert_eq!(JournalDelta { clock: after.clock, ..before }, after);
}

/// Until then a trigger refuses what the journal does; a disk that is full would as well.
async fn refuse_until(state: &Path, event: &str, condition: &str, until_ms: u64) {
    let mut storage = storage(state).await;
    let clock = "(julianday('now') - 2440587.5) * 86400000.0";
    let trigger = format!(
        "CREATE TRIGGER refuse BEFORE {event} WHEN {condition} AND {clock} < {until_ms}.0 BEGIN SELECT RAISE(ABORT, 'full'); END"
    );
    sqlx::query(sqlx::AssertSqlSafe(trigger)).execute(&mut storage).await.unwrap();
    storage.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_the_storage_did_not_take_with_its_batch_is_accepted_when_it_does() {
    for _ in 0..5 {
        if accepted_when_it_is_taken().await.is_some() {
            return;
        }
    }
    panic!("each time too slow to tell");
}

/// Nothing, if it was too slow to tell.
async fn accepted_when_it_is_taken() -> Option<()> {
    const BOUND: Duration = Duration::from_secs(3);
    let mut api = Api::of(1, &[("LEASE_MS", "200"), ("BOUND_MS", "3000")]).await;
    let state = api.fleet.state().to_path_buf();
    let head = told(&state).await.head;
    let both = [json!({"keys": ["title:a"], "mode": "hard"}), json!({"keys": ["title:b"], "mode": "hard"})];
    api.fleet.kill_global();
    // Longer than the bound after the first attempt.
    let until_ms = now_ms() + 6_000;
    refuse_until(&state, "INSERT ON purge", &format!("NEW.seq = {}", head + 2), until_ms).await;
    api.fleet.start_global().unwrap();
    let refused = api.purge_at_once(&both).await;
    assert_eq!((refused.status, refused.problem().as_str()), (503, "journal-unreachable"), "{refused:?}");
    if now_ms() + 3_500 >= until_ms {
        return None;
    }
    assert_eq!(told(&state).await.head, head, "neither was taken");
    let mut sent = Instant::now();
    eventually("both are taken", || {
        sent = Instant::now();
        async { (api.purge_at_once(&both).await.status == 200).then_some(()) }
    })
    .await;
    let receipt = eventually("the location has both", || async {
        api.get("/v1/genres", &[]).await;
        let receipt = api.receipt(head + 1).await;
        (receipt["locations"][0]["applied_seq"] == head + 2).then_some(receipt)
    })
    .await;
    if sent.elapsed() >= BOUND {
        return None;
    }
    assert_eq!(receipt["state"], "accepted", "others of that location may not have it yet: {receipt}");
    eventually("applied", || async { (api.receipt(head + 1).await["state"] == "applied").then_some(()) }).await;
    assert!(sent.elapsed() >= BOUND);
    Some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_purge_the_storage_did_not_take_numbers_go_on_from_the_clock_all_the_same() {
    let mut proxy = Proxy::start().await;
    let state = proxy.fleet.state().to_path_buf();
    let before = proxy.purge(r#"{"keys":["a"]}"#).await.as_of().unwrap().seq;
    proxy.fleet.kill_global();
    let start_ms = now_ms();
    // The last thing the first purge of a start does.
    refuse_until(&state, "INSERT ON floor", "true", start_ms + 3_000).await;
    proxy.fleet.start_global().unwrap();
    let refused = proxy.purge(r#"{"keys":["b"]}"#).await;
    assert_eq!((refused.status, refused.problem().as_str()), (503, "journal-unreachable"), "{refused:?}");
    let taken = eventually("it is taken", || async {
        Some(proxy.purge(r#"{"keys":["b"]}"#).await).filter(|got| got.status == 200)
    })
    .await;
    let seq = taken.as_of().unwrap().seq;
    assert!(seq >= start_ms && seq > before + 1, "{seq} after {before}: a number that a lost purge may have had");
}

/// A deployment without the setting, and the next one with it: what was written in between nobody has purged.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_numbered_and_then_did_not_begins_another_log_when_it_numbers_again() {
    let state = tempfile::tempdir().unwrap();
    let key = xtask::proxy::new_key("test").unwrap();
    let mut logs = Vec::new();
    for owner in ["journal", "journal", "origin", "journal"] {
        let options = Options {
            state: state.path().into(),
            ports: vec![vec![e2e::free_port()]],
            mode: xtask::fleet::Mode::Proxy,
            origin_url: "http://127.0.0.1:9".into(),
            token_keys: key.public_jwks().unwrap(),
            lease_ms: None,
            vars: vec![("PURGE_LOG".into(), owner.into())],
            platform_field: None,
            counters: None,
            tied: false,
        };
        let fleet = Fleet::start(options).unwrap_or_else(|error| panic!("{error}"));
        // Asked once, it knows how it numbers.
        logs.push(told(state.path()).await.log_id);
        drop(fleet);
    }
    assert_eq!((&logs[0], &logs[0]), (&logs[1], &logs[2]), "a start is no reason");
    assert_ne!(logs[0], logs[3]);
}

async fn note_version(state: &Path, version: u64) {
    let mut storage = storage(state).await;
    let note = sqlx::query("UPDATE layout SET version = ?").bind(version as i64);
    assert_eq!(note.execute(&mut storage).await.unwrap().rows_affected(), 1);
    storage.close().await.unwrap();
}

/// A release is rolled back that changed the tables.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_whose_storage_a_later_version_made_answers_nothing_and_says_why_and_no_page_counts_as_fresh() {
    let mut proxy = Proxy::start().await;
    let state = proxy.fleet.state().to_path_buf();
    proxy.upstream.answer("/a", &[("cache-control", "max-age=3600")], "a");
    eventually("the page is held", || async { proxy.get("/a").await.is_hit().then_some(()) }).await;
    proxy.fleet.kill_global();
    note_version(&state, 2).await;
    proxy.fleet.start_global().unwrap();
    let began = Instant::now();
    for _ in 0..2 {
        tokio::time::sleep(LEASE_OVER).await;
        let asked = proxy.upstream.count("/a");
        let got = proxy.get("/a").await;
        assert!(!got.is_hit() && proxy.upstream.count("/a") > asked, "{got:?}");
    }
    let view = &proxy.get("/__edge/health").await.json()["purge_view"];
    let unconfirmed_ms = u128::from(view["confirmed_age_ms"].as_u64().unwrap());
    assert!(unconfirmed_ms >= began.elapsed().as_millis(), "{view}");
    let refused = proxy.purge(r#"{"keys":["a"]}"#).await;
    assert_eq!((refused.status, refused.problem().as_str()), (503, "journal-unreachable"), "{refused:?}");
    let log = std::fs::read_to_string(state.join("global.log")).unwrap();
    assert!(log.contains("the journal's storage is of version 2"), "{log}");
    proxy.fleet.kill_global();
    note_version(&state, 1).await;
    proxy.fleet.start_global().unwrap();
    eventually("the page is fresh again", || async { proxy.get("/a").await.is_hit().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_with_a_setting_that_cannot_be_right_answers_no_call_and_its_log_says_which_it_is() {
    let mut proxy = Proxy::start().await;
    let state = proxy.fleet.state().to_path_buf();
    proxy.upstream.answer("/a", &[("cache-control", "max-age=3600")], "a");
    eventually("the page is held", || async { proxy.get("/a").await.is_hit().then_some(()) }).await;
    proxy.fleet.kill_global();
    set_var(&proxy.fleet, "global", "BOUND_MS", Some("soon"));
    proxy.fleet.start_global().unwrap();
    for path in ["/sync", "/batch", "/append", "/summary", "/receipt/1", "/announce/1/1", "/end/1", "/nothing"] {
        let (status, body) = call(&state, path, Bytes::new()).await;
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, &problem["type"]), (500, &json!("urn:nextream:problem:misconfigured")), "{path}");
    }
    let log = std::fs::read_to_string(state.join("global.log")).unwrap();
    assert!(log.contains("settings: BOUND_MS must be a whole number, not 'soon'"), "{log}");
    let refused = proxy.purge(r#"{"keys":["a"]}"#).await;
    assert_eq!((refused.status, refused.problem().as_str()), (503, "journal-unreachable"), "{refused:?}");
    tokio::time::sleep(LEASE_OVER).await;
    let unsure = proxy.get("/a").await;
    assert!(unsure.body == "a" && !unsure.is_hit(), "nothing is fresh: {unsure:?}");
    proxy.fleet.kill_global();
    set_var(&proxy.fleet, "global", "BOUND_MS", None);
    proxy.fleet.start_global().unwrap();
    eventually("the page is fresh again", || async { proxy.get("/a").await.is_hit().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_from_before_versions_were_noted_is_of_the_first_and_loses_nothing() {
    let mut proxy = Proxy::start().await;
    let state = proxy.fleet.state().to_path_buf();
    assert_eq!(proxy.purge(r#"{"keys":["a"]}"#).await.status, 200);
    let before = told(&state).await;
    proxy.fleet.kill_global();
    let mut storage = storage(&state).await;
    sqlx::query("DROP TABLE layout").execute(&mut storage).await.unwrap();
    storage.close().await.unwrap();
    proxy.fleet.start_global().unwrap();
    let after = told(&state).await;
    assert_eq!(JournalDelta { clock: after.clock, ..before }, after);
    proxy.fleet.kill_global();
    let mut storage = self::storage(&state).await;
    let version: i64 = sqlx::query_scalar("SELECT version FROM layout").fetch_one(&mut storage).await.unwrap();
    assert_eq!(version, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_ends_with_the_purge_whose_keys_fit_and_the_next_begins_behind_it() {
    let api = Api::start().await;
    let state = api.fleet.state().to_path_buf();
    let begin = told(&state).await;
    let purge = |n: usize, count: usize| {
        let keys: Vec<_> = (0..count).map(|key| format!("title:{n}-{key}")).collect();
        json!({"keys": keys, "mode": "soft"})
    };
    // The first answer is full to the last key.
    let counts = [vec![1_000; 20], vec![1, 2], vec![1_000; 22]].concat();
    for (n, count) in counts.iter().enumerate() {
        assert_eq!(api.purge_at_once(&[purge(n, *count)]).await.status, 200);
    }
    for mut known in [None, Some(AsOf::new(begin.log_id.clone(), begin.head))] {
        let is_from_begin = known.is_some();
        let (mut pages, mut told_keys) = (Vec::new(), Vec::new());
        loop {
            let told = told_after(&state, known.take()).await;
            let keys: Vec<usize> = told.purges.iter().map(|purge| purge.keys.len()).collect();
            assert!(keys.iter().sum::<usize>() <= 20_000, "{keys:?}");
            pages.push(keys.len());
            told_keys.extend(keys);
            if told.until == told.head {
                break;
            }
            assert_eq!(told.purges.last().map(|purge| purge.seq), Some(told.until));
            known = Some(AsOf::new(told.log_id, told.until));
        }
        assert!(told_keys.ends_with(&counts), "{told_keys:?}");
        if is_from_begin {
            assert_eq!(pages, [20, 21, 3]);
        }
    }
}

/// Announced writes in a copy of the journal's storage, if it can be read: of the original nobody else may have any lock.
async fn announced_in_copy(state: &Path) -> Option<i64> {
    let copy = tempfile::tempdir().unwrap();
    let (from, to) = (state.join("journal/purge-journal"), copy.path().join("journal/purge-journal"));
    std::fs::create_dir_all(&to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).ok()?;
    }
    let mut storage = opened(copy.path()).await.ok()?;
    sqlx::query_scalar("SELECT count(*) FROM announced").fetch_one(&mut storage).await.ok()
}

/// Twice as many as it purges at once, and one. Nobody asks it anything meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn very_many_overdue_writes_are_all_purged_by_the_alarm_alone() {
    let mut proxy = Proxy::start().await;
    let state = proxy.fleet.state().to_path_buf();
    let before = told(&state).await;
    proxy.fleet.kill_edge(0);
    proxy.fleet.kill_global();
    let count = 401;
    let mut storage = storage(&state).await;
    for id in 0..count {
        let insert = sqlx::query("INSERT INTO announced (id, due_ms, purge) VALUES (?, 1, ?)").bind(id);
        insert.bind(format!(r#"{{"keys":["url:/{id}"]}}"#).into_bytes()).execute(&mut storage).await.unwrap();
    }
    storage.close().await.unwrap();
    proxy.fleet.start_global().unwrap();
    told(&state).await;
    eventually("none is left", || async { (announced_in_copy(&state).await? == 0).then_some(()) }).await;
    proxy.fleet.kill_global();
    let mut storage = self::storage(&state).await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM announced").fetch_one(&mut storage).await.unwrap();
    let purged = sqlx::query_scalar("SELECT count(DISTINCT keys) FROM purge WHERE seq > ? AND keys LIKE 'url:/%'");
    let purged: i64 = purged.bind(before.head as i64).fetch_one(&mut storage).await.unwrap();
    assert_eq!((left, purged), (0, count));
}
