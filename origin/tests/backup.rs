//! A backup taken while the service runs, put back into a new database; and the catalogue as lines.
mod common;

use axum::http::StatusCode;
use common::people::{PASSWORD, People};
use common::{Database, Service, text};
use kv_schemas::claims::StaffRole;
use origin::store::backup::BackupError;
use origin::store::{Engine, Store};
use serde_json::{Value, json};

const PAGES: [&str; 9] = [
    "/v1/home",
    "/v1/catalog",
    "/v1/genres",
    "/v1/titles/heat",
    "/v1/series/dark",
    "/v1/series/dark/seasons/1",
    "/v1/people/michael-mann",
    "/v1/collections/nights",
    "/v1/search?q=heat",
];

async fn filled() -> Service {
    let service = Service::start().await;
    let lines = concat!(
        r#"{"type":"person","id":"michael-mann","name":"Michael Mann","biography":"Directs."}"#,
        "\n",
        r#"{"type":"title","id":"heat","name":"Heat \"1\" — ü","year":1995,"rating":8.0,"genres":["Crime"],"people":[{"id":"michael-mann","name":"Michael Mann","role":"director"}]}"#,
        "\n",
        r#"{"type":"title","id":"dark","name":"Dark","kind":"series","genres":["Drama"],"translations":{"de":{"synopsis":"Winden."}}}"#,
        "\n",
        r#"{"type":"season","id":"dark/1","name":"One","episodes":[{"id":"dark-1-1","number":1,"name":"Secrets"}]}"#,
        "\n",
        r#"{"type":"collection","id":"nights","name":"Nights","items":["heat","dark"]}"#,
        "\n",
        r#"{"type":"title","id":"up","name":"Up","genres":["Animation"]}"#,
        "\n",
        r#"{"type":"rail","id":"top","title":"Top","position":1,"items":["up","heat"]}"#,
        "\n"
    );
    let report = origin::import::text(&service.app.store, lines).await.unwrap();
    assert!(report.refused.is_empty(), "{report}");
    service
}

async fn pages(service: &Service) -> Vec<String> {
    let mut all = Vec::new();
    for page in PAGES {
        let response = service.call("GET", page, "").await;
        assert_eq!(response.status(), StatusCode::OK, "{page}");
        all.push(text(response).await);
    }
    all
}

async fn back_up(store: &Store) -> Vec<u8> {
    let mut file = Vec::new();
    store.snapshot().await.unwrap().back_up(&mut file).await.unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_is_what_was_there_under_a_new_log() {
    let service = filled().await;
    let file = back_up(&service.app.store).await;
    // What comes after the backup is not in it.
    service.call("PATCH", "/admin/v1/titles/heat", r#"{"name":"Heat II"}"#).await;
    service.call("PATCH", "/admin/v1/titles/heat", r#"{"name":"Heat \"1\" — ü"}"#).await;
    let before = service.app.store.snapshot().await.unwrap().as_of;
    let restored = Service::over(Database::fresh()).await;
    let (rows, as_of) = restored.app.store.restore(file.as_slice()).await.unwrap();
    assert!(rows > 6, "{rows}");
    assert_ne!(as_of.log_id, before.log_id, "everything the edge holds is purged");
    assert_eq!(restored.app.store.snapshot().await.unwrap().replaced_logs().await.unwrap(), [before.log_id]);
    assert_eq!(pages(&restored).await, pages(&service).await);
    let written = restored.call("PATCH", "/admin/v1/titles/heat", r#"{"name":"Heat III"}"#).await;
    assert_eq!(written.headers()["surrogate-as-of"], format!("{}:{}", as_of.log_id, as_of.seq + 1).as_str());
}

/// With PostgreSQL to test on, there and back; otherwise from one file to the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_into_the_other_engine_and_back() {
    let service = filled().await;
    let shown = pages(&service).await;
    for engine in [Engine::Sqlite, common::engine()] {
        let file = back_up(&service.app.store).await;
        let next = Service::over(Database::fresh_on(engine)).await;
        next.app.store.restore(file.as_slice()).await.unwrap();
        assert_eq!(pages(&next).await, shown, "{engine:?}");
        let written = next.call("PATCH", "/admin/v1/titles/heat", r#"{"name":"Heat III"}"#).await;
        assert_eq!(written.status(), StatusCode::OK);
        assert!(text(next.call("GET", "/v1/search?q=iii", "").await).await.contains("Heat III"), "{engine:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_leaves_nothing_and_a_database_in_use_is_refused() {
    let service = filled().await;
    let file = back_up(&service.app.store).await;
    let refused = service.app.store.restore(file.as_slice()).await.unwrap_err();
    assert!(matches!(refused, BackupError::NotEmpty(_)), "{refused}");
    let fresh = Service::start().await;
    let before = fresh.app.store.snapshot().await.unwrap().as_of;
    // Where each line ends but the last.
    let ends: Vec<usize> = (1..file.len()).filter(|at| file[at - 1] == b'\n').collect();
    let (last, lines) = (*ends.last().unwrap(), ends.len() + 1);
    let with = |line: &[u8]| [&file[..last], line, b"\n", &file[last..]].concat();
    let strange = with(br#"{"table":"sqlite_schema\"; DROP TABLE title; --","columns":["a"]}"#);
    // A table that begins again empties itself.
    let again = file.split(|byte| *byte == b'\n').rfind(|line| line.starts_with(b"{\"table\"")).unwrap();
    let more = [&file, again, b"\n"].concat();
    // Without one of its rows, which is a line that begins as one.
    let row = ends.windows(2).rfind(|ends| file[ends[0]] == b'[').unwrap();
    let short = [&file[..row[0]], &file[row[1]..]].concat();
    let rows = file.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"[")).count();
    let of_line = |at: usize, what: &str| format!("line {at} of the file is not of a backup: {what}");
    let cut = ends.iter().map(|at| (file[..*at].to_vec(), "the file ends before the backup does: ".to_string()));
    let others = [
        (Vec::new(), of_line(1, "the file is empty")),
        (b"{}".to_vec(), of_line(1, "missing field")),
        (file[..last - 5].to_vec(), of_line(lines - 1, "EOF while parsing")),
        (strange, of_line(lines, "no such table")),
        (with(again), of_line(lines, "the table was there already")),
        (more, of_line(lines + 1, "it comes after the end")),
        (short, format!("the backup has {} rows and was written with {rows}: ", rows - 1)),
    ];
    for (bad, said) in cut.chain(others) {
        let error = fresh.app.store.restore(bad.as_slice()).await.unwrap_err().to_string();
        assert!(error.starts_with(&said), "{error}, not {said}: {}", String::from_utf8_lossy(&bad));
        let mut snapshot = fresh.app.store.snapshot().await.unwrap();
        assert_eq!(snapshot.as_of, before);
        assert!(snapshot.title("heat").await.unwrap().is_none());
    }
    fresh.app.store.restore(file.as_slice()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_another_release_is_refused_by_its_first_line() {
    let file = String::from_utf8(back_up(&filled().await.app.store).await).unwrap();
    let (first, rest) = file.split_once('\n').unwrap();
    let head: Value = serde_json::from_str(first).unwrap();
    let fresh = Service::start().await;
    let before = fresh.app.store.snapshot().await.unwrap().as_of;
    for (member, by) in [("nextream_backup", -1), ("nextream_backup", 1), ("schema", -1), ("schema", 1)] {
        let own = head[member].as_i64().unwrap();
        let other = own + by;
        let mut head = head.clone();
        head[member] = other.into();
        let refused = fresh.app.store.restore(format!("{head}\n{rest}").as_bytes()).await.unwrap_err();
        let (found, known, said) = match &refused {
            BackupError::Form(found, known) if member == "nextream_backup" => {
                let said = format!("the backup is of form {other}, this program reads form {own}; ");
                (i64::from(*found), i64::from(*known), said)
            }
            BackupError::Schema(found, known) if member == "schema" => {
                (*found, *known, format!("the backup was made with schema {other}, this program has {own}; "))
            }
            _ => panic!("{member} {other}: {refused}"),
        };
        assert_eq!((found, known), (other, own), "{member}");
        assert_eq!(refused.to_string(), said + "use the release it was made with");
        let mut snapshot = fresh.app.store.snapshot().await.unwrap();
        assert_eq!(snapshot.as_of, before);
        assert!(snapshot.title("heat").await.unwrap().is_none());
    }
    fresh.app.store.restore(file.as_bytes()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_no_column_has_is_told_by_its_line() {
    let file = String::from_utf8(back_up(&filled().await.app.store).await).unwrap();
    let mut lines: Vec<String> = file.lines().map(String::from).collect();
    let at = lines.iter().rposition(|line| line.starts_with('[')).unwrap();
    let row: Vec<Value> = serde_json::from_str(&lines[at]).unwrap();
    lines[at] = json!(vec![true; row.len()]).to_string();
    let error = Service::start().await.app.store.restore(lines.join("\n").as_bytes()).await.unwrap_err();
    assert!(error.to_string().contains(&format!("line {} of", at + 1)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_holds_anything_at_all_is_not_written_over() {
    let file = back_up(&filled().await.app.store).await;
    // Accounts are made without a purge: the log alone does not tell.
    let service = Service::start().await;
    let body = r#"{"email":"ada@example.org","password":"correct horse"}"#;
    assert_eq!(service.call("POST", "/auth/register", body).await.status(), StatusCode::ACCEPTED);
    let refused = service.app.store.restore(file.as_slice()).await.unwrap_err();
    assert!(matches!(refused, BackupError::NotEmpty(_)), "{refused}");
    assert_eq!(service.database.count("account").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_lets_nobody_in_again_and_is_its_owners_alone() {
    let service = People::start().await;
    let ada = service.viewer("ada@example.org").await;
    let root = service.staff("root@example.org", StaffRole::Admin).await;
    service.log_in_as("/auth/staff", "root@example.org").await;
    let admin = service.admin_token();
    let grace = json!({"email": "grace@example.org", "role": "editor"});
    let grace = service.call("POST", "/admin/v1/staff", &admin, Some(grace)).await.json();
    let ada_again = format!("/admin/v1/users/{}/invitation", service.subject(&ada));
    let ada_again = service.call("POST", &ada_again, &admin, Some(json!({}))).await.json();
    let create = async |service: &People, name: &str| {
        let fields = [("idempotency-key", "k")];
        service.call_with("POST", "/admin/v1/titles", &admin, Some(json!({"name": name})), &fields).await
    };
    assert_eq!(create(&service, "Heat").await.status, StatusCode::CREATED);
    const NOT_KEPT: [&str; 4] = ["session", "refresh_token", "invitation", "idempotency"];
    for (table, rows) in NOT_KEPT.into_iter().zip([2, 2, 2, 1]) {
        assert_eq!(service.database.count(table).await, rows, "{table}");
    }
    let path = service.database.dir.path().join("nextream.backup");
    service.app.store.snapshot().await.unwrap().back_up_to(&path).await.unwrap();
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    }
    // A token of before is good there, if anything is known of its session: the keys are the same.
    let restored = Service::over(Database::fresh()).await;
    let (app, keys) = (restored.app.clone(), service.app.keys.clone());
    let app = origin::http::App { keys, ..app };
    let router = origin::http::router(app.clone(), &[origin::http::Role::Admin, origin::http::Role::Auth]);
    let restored = People(Service { app, router, ..restored });
    let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
    restored.app.store.restore(file).await.unwrap();
    for table in NOT_KEPT {
        assert_eq!(restored.database.count(table).await, 0, "{table}");
    }
    assert_eq!(restored.database.count("account").await, 3);
    assert_eq!(restored.get("/auth/sessions", &ada.access).await.problem(), "token-revoked");
    assert_eq!(restored.refresh(&ada.refresh).await.unwrap_err(), "refresh-refused");
    for (below, invited) in [("/auth/staff", &grace), ("/auth", &ada_again)] {
        let invitation = invited["invitation"].as_str().unwrap();
        let body = json!({"invitation": invitation, "password": PASSWORD});
        assert_eq!(restored.post(&format!("{below}/accept"), body).await.problem(), "invitation-refused", "{below}");
    }
    let created = create(&restored, "Ronin").await;
    assert_eq!(
        (created.status, created.json()["id"].as_str()),
        (StatusCode::CREATED, Some("ronin")),
        "its key is free"
    );
    // Who has a password logs in as before.
    restored.log_in("ada@example.org").await;
    let root_again = restored.log_in_as("/auth/staff", "root@example.org").await;
    let staff: Value = restored.get("/admin/v1/staff", &root_again.access).await.json();
    assert!(staff["items"].as_array().unwrap().iter().any(|one| one["id"] == root.as_str()), "{staff}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_catalogue_imported_elsewhere_is_the_same_and_changes_nothing_where_it_came_from() {
    let service = filled().await;
    let mut lines = Vec::new();
    origin::export::catalogue(&mut service.app.store.snapshot().await.unwrap(), &mut lines).await.unwrap();
    let lines = String::from_utf8(lines).unwrap();
    let again = origin::import::text(&service.app.store, &lines).await.unwrap();
    assert_eq!((again.unchanged, again.refused.len(), again.purges), (3, 0, 0), "{again}\n{lines}");
    let other = Service::start().await;
    origin::import::text(&other.app.store, &lines).await.unwrap();
    assert_eq!(pages(&other).await, pages(&service).await);
}

#[test]
fn each_engines_migrations_have_the_others_numbers() {
    let numbers = |engine: &str| -> std::collections::BTreeSet<String> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(engine);
        let names = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| name.split_once('_').map(|(number, _)| number.to_string())).collect()
    };
    assert_eq!(numbers("sqlite"), numbers("postgres"));
}
