//! The program itself: what its command line refuses, and how it ends.
mod common;

use base64ct::{Base64UrlUnpadded, Encoding};
use common::program::{PROGRAM, Served, TIMEOUT, origin, without_settings};
use kv_schemas::claims::{AUDIENCE_EDGE, EdgeClaims, ISSUER, Scope};
use origin::keys::TOKEN_LIFETIME_S_MAX;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};
use tokens::{Expect, KeySet};

/// What it said when it was to fail, and did.
fn refusal(arguments: &[&str]) -> String {
    let output = origin(arguments);
    assert!(!output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A file's path in a folder.
fn at(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().unwrap().to_string()
}

fn written(dir: &Path, name: &str, text: &str) -> String {
    std::fs::write(dir.join(name), text).unwrap();
    at(dir, name)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn who_acts_has_a_name_of_bounded_length() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let keys = keys.to_str().unwrap();
    assert!(origin(&["keygen", "--keys", keys]).status.success());
    let token = |subject: &str| origin(&["token", "--keys", keys, "--role", "editor", "--subject", subject]);
    assert!(token(&"é".repeat(100)).status.success());
    for refused in ["", &"a".repeat(201), &"é".repeat(101)] {
        let said = String::from_utf8(token(refused).stderr).unwrap();
        assert!(said.contains("must have 1 to 200 bytes"), "{said}");
    }
}

#[test]
fn a_token_for_the_edges_pages_is_of_one_scope_and_lasts_an_hour_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let keys = at(dir.path(), "keys");
    assert!(origin(&["keygen", "--keys", &keys]).status.success());
    let token = |more: &[&str]| origin(&[&["edge-token", "--keys", &keys], more].concat());
    let public = std::fs::read_to_string(dir.path().join("keys/public.jwks.json")).unwrap();
    let public = KeySet::from_jwks(&public).unwrap();
    for (name, scope) in [("debug", Scope::Debug), ("metrics", Scope::Metrics), ("purge-request", Scope::PurgeRequest)]
    {
        for (more, lifetime_s) in
            [(&[][..], 3600), (&["--lifetime-s", "1"], 1), (&["--lifetime-s", "2592000"], 30 * 24 * 3600)]
        {
            let printed = stdout(&token(&[&["--scope", name], more].concat()));
            let claims = claims(printed.trim());
            let second = |name: &str| claims[name].as_u64().unwrap();
            assert_eq!(second("exp") - second("iat"), lifetime_s, "{name} {more:?}");
            let expect = Expect { issuer: ISSUER, audience: AUDIENCE_EDGE, lifetime_s_max: scope.lifetime_s_max() };
            let good: EdgeClaims = public.verify(printed.trim(), expect, second("iat")).unwrap();
            assert_eq!((good.scope, good.body_sha256), (scope, None), "{name}");
        }
    }
    // Those are signed by origin for one call each.
    for refused in [["--scope", "purge-batch"], ["--scope", "warm"]] {
        assert!(!token(&refused).status.success(), "{refused:?}");
    }
    for seconds in ["0", "2592001"] {
        let said = refusal(&["edge-token", "--keys", &keys, "--scope", "debug", "--lifetime-s", seconds]);
        assert!(said.contains("--lifetime-s"), "{said}");
    }
    refusal(&["edge-token", "--keys", &keys]);
}

/// What a token says of itself.
fn claims(token: &str) -> serde_json::Value {
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&Base64UrlUnpadded::decode_vec(claims).unwrap()).unwrap()
}

/// A verifier may have asked for the published document just before.
#[test]
fn a_new_key_signs_no_sooner_than_every_verifier_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let database = at(dir.path(), "origin.sqlite");
    stdout(&origin(&["import", &written(dir.path(), "none.ndjson", ""), "--database", &database]));
    let keys = |name: &str| {
        let keys = at(dir.path(), name);
        assert!(origin(&["keygen", "--keys", &keys]).status.success());
        let published = Path::new(&keys).join("public.jwks.json");
        (keys, move || std::fs::read_to_string(&published).unwrap())
    };
    let rotate = |keys: &str, more: &[&str]| {
        origin(&[&["keys", "rotate", "--keys", keys, "--database", &database], more].concat())
    };
    let (folder, published) = keys("refused");
    let before = published();
    let most = (TOKEN_LIFETIME_S_MAX + 1).to_string();
    for seconds in ["0", "299", &most] {
        let refused = rotate(&folder, &["--signs-in-s", seconds]);
        assert!(!refused.status.success(), "{seconds}");
        assert!(String::from_utf8(refused.stderr).unwrap().contains("--signs-in-s"), "{seconds}");
        assert_eq!(published(), before, "{seconds}");
    }
    for (more, delay_s) in [(&["--signs-in-s", "300"][..], 300), (&[], 2 * 300)] {
        let (folder, published) = keys(&format!("after-{delay_s}"));
        let (before, earliest_s) = (published(), origin::now_ms() / 1000 + delay_s);
        let said = stdout(&rotate(&folder, more));
        let latest_s = origin::now_ms() / 1000 + delay_s;
        let signs_from_s: u64 = said.split("signs from ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!((earliest_s..=latest_s).contains(&signs_from_s), "{more:?}: {said}");
        let name = said.split(' ').next().unwrap();
        assert!(published().contains(name) && !before.contains(name), "{said}");
        assert!(said.contains("; purge "), "{said}");
    }
}

#[test]
fn one_viewer_is_invited_by_address_for_as_many_days_as_are_said() {
    const DAY_MS: i64 = 24 * 3600 * 1000;
    let dir = tempfile::tempdir().unwrap();
    let database = at(dir.path(), "origin.sqlite");
    stdout(&origin(&["generate", "--database", &database, "--titles", "1", "--rails", "1", "--users", "2"]));
    let invite = |more: &[&str]| origin(&[&["users", "invite", "--database", &database], more].concat());
    let member = |line: &str, name: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()[name].as_str().unwrap().to_string()
    };
    // Those who were made up have no password.
    let all = stdout(&invite(&["--without-password"]));
    assert_eq!((all.lines().count(), stdout(&invite(&["--without-password"])).as_str()), (2, ""), "once");
    let email = member(all.lines().next().unwrap(), "email");
    let mut former = String::new();
    for (more, days) in [(&[][..], 14), (&["--valid-days", "1"], 1), (&["--valid-days", "90"], 90)] {
        let earliest_ms = origin::moment() + days * DAY_MS;
        let said = stdout(&invite(&[&["--email", &email], more].concat()));
        let latest_ms = origin::moment() + days * DAY_MS;
        assert_eq!((said.lines().count(), member(&said, "email")), (1, email.clone()), "{said}");
        let ends_at: jiff::Timestamp = member(&said, "ends_at").parse().unwrap();
        assert!((earliest_ms..=latest_ms).contains(&ends_at.as_millisecond()), "{more:?}: {said}");
        assert_ne!(former, member(&said, "invitation"), "each is another");
        former = member(&said, "invitation");
    }
    for days in ["0", "91"] {
        let said = refusal(&["users", "invite", "--database", &database, "--email", &email, "--valid-days", days]);
        assert!(said.contains("--valid-days"), "{said}");
    }
    let said = refusal(&["users", "invite", "--database", &database, "--email", "nobody@example.org"]);
    assert!(said.contains("there is no viewer with the e-mail address nobody@example.org"), "{said}");
    // One or all, not both and not neither.
    refusal(&["users", "invite", "--database", &database, "--email", &email, "--without-password"]);
    refusal(&["users", "invite", "--database", &database]);
}

#[test]
fn a_client_that_never_ends_its_request_does_not_keep_a_service_that_is_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = Served::start(dir.path(), &["--drain-ms", "300"]);
    let mut whole = TcpStream::connect(&service.address).unwrap();
    whole.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(whole.read(&mut [0; 1000]).unwrap() > 0);
    let mut half = TcpStream::connect(&service.address).unwrap();
    half.write_all(b"GET /healthz HTTP/1.1\r\nho").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    service.stop();
    assert!(service.end(Duration::from_secs(10)).success());
}

#[test]
fn a_request_under_way_is_answered_before_a_service_that_is_told_to_stop_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = Served::start(dir.path(), &["--drain-ms", "60000"]);
    let body = r#"{"email":"ada@example.org","password":"correct horse battery"}"#;
    let mut request = TcpStream::connect(&service.address).unwrap();
    request.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = "POST /auth/register HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nexpect: 100-continue";
    write!(request, "{head}\r\ncontent-length: {}\r\n\r\n", body.len()).unwrap();
    let mut answer = BufReader::new(request.try_clone().unwrap());
    let mut line = String::new();
    // It is being read: it is under way.
    answer.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
    service.stop();
    let told = Instant::now();
    while TcpStream::connect(&service.address).is_ok() {
        assert!(told.elapsed() < Duration::from_secs(30), "it goes on taking connections");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(service.is_running(), "somebody waits for an answer");
    request.write_all(body.as_bytes()).unwrap();
    let mut rest = String::new();
    answer.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("HTTP/1.1 202 Accepted\r\n") && rest.ends_with(r#"{"status":"accepted"}"#), "{rest}");
    assert!(service.end(TIMEOUT).success());
}

#[test]
fn a_database_that_is_not_there_is_made_by_no_command_that_would_use_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, database, backup) = (at(dir.path(), "keys"), at(dir.path(), "orgin.sqlite"), at(dir.path(), "backup"));
    assert!(origin(&["keygen", "--keys", &keys]).status.success());
    let published = || std::fs::read_to_string(Path::new(&keys).join("public.jwks.json")).unwrap();
    let before = (names(dir.path()), published());
    let uses: [&[&str]; 6] = [
        &["backup", "--to", &backup],
        &["export"],
        &["users", "invite", "--without-password"],
        &["keys", "rotate", "--keys", &keys],
        &["log", "renew"],
        &["staff", "create", "--email", "root@example.org"],
    ];
    for arguments in uses {
        let said = refusal(&[arguments, &["--database", &database]].concat());
        assert!(said.contains(&format!("there is no database at {database}")), "{said}");
        assert_eq!((names(dir.path()), published()), before, "{arguments:?}");
    }
    // Nor is one made of what is something else.
    let empty = written(dir.path(), "empty.sqlite", "");
    for arguments in uses {
        let said = refusal(&[arguments, &["--database", &empty]].concat());
        assert!(said.contains(&format!("there is no database at {empty}")), "{said}");
        assert_eq!(std::fs::metadata(&empty).unwrap().len(), 0, "{arguments:?}");
    }
}

#[test]
fn what_keeps_a_database_from_being_opened_is_said_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = written(dir.path(), "catalogue.ndjson", &"{\"type\":\"title\"}\n".repeat(500));
    let absent = at(dir.path(), "no/such/folder.sqlite");
    for (arguments, cause) in [
        (["import", &catalogue, "--database", &catalogue], "file is not a database"),
        (["import", &catalogue, "--database", &absent], "unable to open database file"),
        (["import", &catalogue, "--database-url", "postgres://ada:secret@127.0.0.1:1/x"], "refused"),
    ] {
        let began = Instant::now();
        let said = refusal(&arguments);
        assert!(said.contains(cause) && !said.contains("secret"), "{said}");
        assert!(began.elapsed() < Duration::from_secs(4), "{said}");
    }
}

#[test]
fn settings_that_cannot_be_right_are_refused_before_the_database_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, database) = (at(dir.path(), "keys"), at(dir.path(), "origin.sqlite"));
    assert!(origin(&["keygen", "--keys", &keys]).status.success());
    for (option, value, named) in [
        ("--edge-url", "ftp://edge.example", "--edge-url"),
        ("--edge-url", "edge.example", "--edge-url"),
        ("--edge-url", "http://edge.example?a", "--edge-url"),
        ("--edge-secret", "short", "32"),
    ] {
        // Refused or not, it cannot stay.
        let said =
            refusal(&["serve", "--listen", "192.0.2.1:1", "--keys", &keys, "--database", &database, option, value]);
        assert!(said.contains(named) && !said.contains("listen"), "{value}: {said}");
        assert_eq!(names(dir.path()), ["keys"], "{value}");
    }
}

/// Enough that it does not fit where there is room for 32 KiB.
fn filled(dir: &Path) -> String {
    let database = at(dir, "origin.sqlite");
    let few = ["--titles", "200", "--rails", "5", "--users", "50"];
    stdout(&origin(&[["generate", "--database", &database].as_slice(), &few].concat()));
    database
}

#[test]
fn a_backup_has_its_name_only_once_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let database = filled(dir.path());
    let folder = dir.path().join("backups");
    std::fs::create_dir(&folder).unwrap();
    let to = at(&folder, "nextream.backup");
    let limited = |before: &str| {
        // Beyond the limit a write fails, as with a full disk, or ends the process.
        let script = format!("{before} ulimit -f 64; exec \"$0\" backup --database \"$1\" --to \"$2\"");
        let mut command = without_settings("sh");
        command.args(["-c", &script, PROGRAM, &database, &to]).output().unwrap()
    };
    let full = limited("trap '' XFSZ;");
    assert!(!full.status.success() && !full.stderr.is_empty(), "{full:?}");
    assert!(names(&folder).is_empty(), "{:?}", names(&folder));
    let killed = limited("");
    assert!(killed.status.code().is_none(), "{killed:?}");
    assert!(!folder.join("nextream.backup").exists());
    stdout(&origin(&["backup", "--database", &database, "--to", &to]));
    let fresh = at(dir.path(), "fresh.sqlite");
    stdout(&origin(&["restore", "--database", &fresh, "--from", &to]));
    let said = refusal(&["backup", "--database", &database, "--to", &to]);
    assert!(said.contains("exists"), "{said}");
}

#[test]
fn a_mapping_that_would_not_be_used_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let database = at(dir.path(), "origin.sqlite");
    let films = written(dir.path(), "mo.json", "[]");
    let mapping = written(dir.path(), "mapping.json", "{}");
    for arguments in [["--mapping", &mapping], ["--collection", "films"]] {
        let said = refusal(&[["import", &films, "--database", &database].as_slice(), &arguments].concat());
        assert!(said.contains(arguments[0]) && said.contains("--from mongoexport"), "{said}");
    }
}

#[test]
fn an_import_that_takes_nothing_has_failed_and_says_which_line_was_at_fault() {
    let dir = tempfile::tempdir().unwrap();
    let database = at(dir.path(), "origin.sqlite");
    let import = |text: &str| origin(&["import", &written(dir.path(), "a.ndjson", text), "--database", &database]);
    let season = "{\"type\":\"season\",\"id\":\"dark/1\",\"name\":\"One\",\"episodes\":[]}\n";
    let none = import(&format!("\n{season}nonsense\n"));
    let said = String::from_utf8(none.stdout).unwrap();
    assert!(said.contains("line 2: dark/1: /id there is no series dark"), "{said}");
    assert!(!none.status.success() && String::from_utf8(none.stderr).unwrap().contains("nothing"), "{said}");
    let rail = "{\"type\":\"rail\",\"id\":\"top\",\"title\":\"Top\",\"position\":1,\"items\":[]}\n";
    for taken in ["", rail, &format!("{rail}{season}")] {
        stdout(&import(taken));
    }
}

#[test]
fn an_import_of_what_is_new_leaves_alone_what_is_there_and_what_was_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let database = at(dir.path(), "origin.sqlite");
    let title = |id: &str, name: &str| format!("{{\"type\":\"title\",\"id\":\"{id}\",\"name\":\"{name}\"}}\n");
    let import = |text: &str, more: &[&str]| {
        let file = written(dir.path(), "a.ndjson", text);
        stdout(&origin(&[["import", &file, "--database", &database].as_slice(), more].concat()))
    };
    import(&title("heat", "Heat, as an editor has it"), &[]);
    let said = import(&(title("heat", "Heat") + &title("ronin", "Ronin")), &["--only-new"]);
    assert!(said.contains("1 titles created, 0 updated, 1 unchanged"), "{said}");
    let there = stdout(&origin(&["export", "--database", &database]));
    assert!(there.contains("as an editor has it") && there.contains("Ronin"), "{there}");
    import(&title("heat", "Heat"), &[]);
    assert!(!stdout(&origin(&["export", "--database", &database])).contains("as an editor has it"));
}
