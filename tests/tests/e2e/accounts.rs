//! Accounts over real processes: each role a process of its own on one database, keys that rotate under them, the log, and
//! the whole way through edges of several locations.
use e2e::http::{Got, ask, get, send};
use e2e::stack::{LEASE_OVER, Shape, Stack};
use e2e::{eventually, free_port};
use reqwest::Method;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;
use xtask::process::{Process, await_answer};

const PASSWORD: &str = "correct horse";

/// The auth, client and admin roles, apart.
struct Apart {
    state: TempDir,
    ports: [u16; 3],
    processes: Vec<Process>,
}

const AUTH: usize = 0;
const CLIENT: usize = 1;
const ADMIN: usize = 2;
const ROLES: [&str; 3] = ["auth", "client", "admin"];

impl Apart {
    fn start() -> Self {
        let state = tempfile::tempdir().expect("no folder");
        xtask::origin::keys(state.path()).unwrap_or_else(|error| panic!("{error}"));
        let file = state.path().join("catalogue.ndjson");
        std::fs::write(&file, e2e::stack::CATALOGUE).expect("cannot write");
        xtask::origin::import(state.path(), &file).unwrap_or_else(|error| panic!("{error}"));
        let ports = [free_port(), free_port(), free_port()];
        let mut processes = Vec::new();
        for (role, port) in ROLES.iter().zip(ports) {
            let mut command = Command::new(xtask::origin::program().expect("not built"));
            command.args(["serve", "--role", role, "--log-json", "--listen", &format!("127.0.0.1:{port}")]);
            command.arg("--database").arg(database(state.path())).arg("--keys").arg(state.path().join("keys"));
            let mut process = Process::start(role, &state.path().join(format!("{role}.log")), &mut command).unwrap();
            await_answer(role, port, "/readyz", &mut [&mut process]).unwrap();
            processes.push(process);
        }
        Self { state, ports, processes }
    }

    fn url(&self, role: usize, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[role])
    }

    async fn post(&self, path: &str, body: Value) -> Got {
        let request = ask(Method::POST, self.url(AUTH, path)).header("content-type", "application/json");
        send(request.body(body.to_string())).await
    }

    /// Access and refresh token.
    async fn log_in(&self, below: &str, email: &str) -> (String, String) {
        tokens(&self.post(&format!("{below}/login"), json!({"email": email, "password": PASSWORD})).await)
    }

    async fn viewer(&self, email: &str) -> (String, String) {
        self.post("/auth/register", json!({"email": email, "password": PASSWORD})).await;
        self.log_in("/auth", email).await
    }

    async fn ask(&self, role: usize, method: Method, path: &str, token: &str) -> Got {
        send(ask(method, self.url(role, path)).bearer_auth(token)).await
    }

    /// Lines about requests a process has logged.
    fn access_lines(&self, role: usize) -> Vec<Value> {
        let log = std::fs::read_to_string(self.state.path().join(format!("{}.log", ROLES[role]))).unwrap_or_default();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["target"] == "access").collect()
    }
}

fn database(state: &Path) -> PathBuf {
    state.join("origin.sqlite")
}

fn tokens(got: &Got) -> (String, String) {
    let json = got.json();
    let text = |name: &str| json[name].as_str().unwrap_or_else(|| panic!("{got:?}")).to_string();
    (text("access_token"), text("refresh_token"))
}

/// `origin staff create`, the password through standard input.
fn create_staff(state: &Path, email: &str, password: &str) -> (bool, String) {
    let mut command = Command::new(xtask::origin::program().expect("not built"));
    command.args(["staff", "create", "--email", email, "--role", "admin", "--database"]).arg(database(state));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("cannot start");
    writeln!(child.stdin.take().expect("no input"), "{password}").expect("cannot write");
    let output = child.wait_with_output().expect("no end");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Has the next key sign from now on: its time comes sooner than anybody would wait here.
fn let_the_next_key_sign(state: &Path) {
    let rotation = state.join("keys/rotation.json");
    let mut plan: Value = serde_json::from_str(&std::fs::read_to_string(&rotation).unwrap()).unwrap();
    plan["next_signs_from_s"] = json!(1);
    std::fs::write(&rotation, plan.to_string()).unwrap();
}

fn kid(token: &str) -> String {
    use base64ct::{Base64UrlUnpadded, Encoding};
    let header = Base64UrlUnpadded::decode_vec(token.split('.').next().unwrap_or_default()).expect("no header");
    serde_json::from_slice::<Value>(&header).expect("no header")["kid"].as_str().expect("no kid").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_as_processes_of_their_own_are_one_service_and_outlive_each_other() {
    let mut apart = Apart::start();
    let (access, refresh) = apart.viewer("ada@example.org").await;
    assert_eq!(apart.ask(CLIENT, Method::GET, "/v1/me", &access).await.json()["email"], "ada@example.org");
    for (role, path) in [(AUTH, "/v1/me"), (AUTH, "/admin/v1/titles"), (CLIENT, "/auth/sessions"), (ADMIN, "/v1/home")]
    {
        assert_eq!(apart.ask(role, Method::GET, path, &access).await.problem(), "not-found", "{path}");
    }
    // The first admin, who bans her.
    let (done, said) = create_staff(apart.state.path(), "root@example.org", "short");
    assert!(!done && said.contains("the password must have at least 10 characters"), "{said}");
    assert!(create_staff(apart.state.path(), "root@example.org", PASSWORD).0);
    assert!(!create_staff(apart.state.path(), "root@example.org", "another good one").0, "she is there already");
    let (root, _) = apart.log_in("/auth/staff", "root@example.org").await;
    let users = apart.ask(ADMIN, Method::GET, "/admin/v1/users?email=Ada@example.org", &root).await.json();
    let path = format!("/admin/v1/users/{}", users["items"][0]["id"].as_str().unwrap());
    let ban = ask(Method::PATCH, apart.url(ADMIN, &path)).bearer_auth(&root).header("content-type", "application/json");
    assert_eq!(send(ban.body(r#"{"banned":true}"#)).await.status, 200);
    assert_eq!(apart.ask(CLIENT, Method::GET, "/v1/me", &access).await.problem(), "token-revoked");
    assert_eq!(apart.post("/auth/refresh", json!({"refresh_token": refresh})).await.problem(), "refresh-refused");
    // Without the auth service everybody who is logged in goes on, and the others' work does.
    let (eve, _) = apart.viewer("eve@example.org").await;
    apart.processes[AUTH].kill();
    assert_eq!(apart.ask(CLIENT, Method::GET, "/v1/me", &eve).await.status, 200);
    assert_eq!(get(apart.url(CLIENT, "/v1/home")).await.status, 200);
    assert_eq!(apart.ask(ADMIN, Method::GET, "/admin/v1/users", &root).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_under_running_services_and_nobody_is_logged_out() {
    let apart = Apart::start();
    let (access, refresh) = apart.viewer("ada@example.org").await;
    let keys = apart.state.path().join("keys");
    let published = || async { get(apart.url(AUTH, "/.well-known/jwks.json")).await };
    let before = published().await;
    let (keys_text, database_text) =
        (keys.to_string_lossy(), database(apart.state.path()).to_string_lossy().into_owned());
    let rotate = ["keys", "rotate", "--keys", &keys_text, "--database", &database_text];
    let said = xtask::origin::run(&rotate).unwrap();
    let after = published().await;
    assert_eq!(after.json()["keys"].as_array().unwrap().len(), 2, "published at once");
    let seq = |got: &Got| got.as_of().unwrap().seq;
    assert_eq!(seq(&after), seq(&before) + 1, "with a purge: {said}");
    assert!(xtask::origin::run(&rotate).is_err(), "one at a time");
    let_the_next_key_sign(apart.state.path());
    let signed = kid(&access);
    let newest = eventually("the new key signs", || async {
        let (access, _) = apart.log_in("/auth", "ada@example.org").await;
        (kid(&access) != signed).then_some(access)
    })
    .await;
    let (refreshed, _) = tokens(&apart.post("/auth/refresh", json!({"refresh_token": refresh})).await);
    assert_eq!(kid(&refreshed), kid(&newest));
    for token in [&access, &refreshed, &newest] {
        assert_eq!(apart.ask(CLIENT, Method::GET, "/v1/me", token).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_one_line_of_the_log_with_its_trace_and_no_secret() {
    let apart = Apart::start();
    let (access, refresh) = apart.viewer("ada@example.org").await;
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = ask(Method::GET, apart.url(CLIENT, "/v1/me?secret=in-the-query"))
        .bearer_auth(&access)
        .header("x-request-id", "the-edge-1")
        .header("traceparent", format!("00-{trace_id}-00f067aa0ba902b7-01"));
    let answered = send(request).await;
    assert_eq!(answered.header("x-request-id"), Some("the-edge-1"));
    apart.ask(CLIENT, Method::GET, "/v1/me", "nonsense").await;
    apart.ask(CLIENT, Method::from_bytes(b"IN-THE-METHOD").unwrap(), "/v1/me", "nonsense").await;
    let lines = eventually("three lines", || async {
        let mut lines = apart.access_lines(CLIENT);
        lines.retain(|line| line["fields"]["route"] == "/v1/me");
        (lines.len() >= 3).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), 3, "one a request: {lines:?}");
    let line = &lines[0]["fields"];
    assert_eq!((&line["method"], &line["status"]), (&json!("GET"), &json!(200)));
    assert_eq!((&line["request_id"], &line["trace_id"]), (&json!("the-edge-1"), &json!(trace_id)));
    assert_eq!(line["parent_id"], "00f067aa0ba902b7");
    assert_eq!(line["actor"], answered.json()["id"]);
    assert!(line["duration_ms"].is_number());
    assert_eq!((&lines[1]["fields"]["status"], &lines[1]["fields"]["reason"]), (&json!(401), &json!("token-refused")));
    assert_eq!((&lines[2]["fields"]["status"], &lines[2]["fields"]["method"]), (&json!(405), &json!("other")));
    for role in ROLES {
        let log = std::fs::read_to_string(apart.state.path().join(format!("{role}.log"))).unwrap();
        for secret in [access.as_str(), refresh.as_str(), PASSWORD, "in-the-query", "IN-THE-METHOD", "ada@example.org"]
        {
            assert!(!log.contains(secret), "{role}: {secret}");
        }
    }
}

/// A call of the API at a location, as whoever bears the token.
async fn call(stack: &Stack, edge: usize, (method, path): (Method, &str), token: &str, body: Option<Value>) -> Got {
    let request = ask(method, format!("{}{path}", stack.fleet.url(edge)));
    let request = if token.is_empty() { request } else { request.bearer_auth(token) };
    send(match body {
        Some(body) => request.header("content-type", "application/json").body(body.to_string()),
        None => request,
    })
    .await
}

async fn log_in_at(stack: &Stack, edge: usize, below: &str, email: &str) -> Got {
    let body = json!({"email": email, "password": PASSWORD});
    call(stack, edge, (Method::POST, &format!("{below}/login")), "", Some(body)).await
}

/// Registered and logged in at the first location, and known at all: access and refresh token.
async fn viewer_at(stack: &Stack, email: &str) -> (String, String) {
    let body = json!({"email": email, "password": PASSWORD});
    assert_eq!(call(stack, 0, (Method::POST, "/auth/register"), "", Some(body)).await.status, 202);
    let (access, refresh) = tokens(&log_in_at(stack, 0, "/auth", email).await);
    for edge in 0..stack.fleet.len() {
        let first = me(stack, edge, &access).await;
        assert_eq!((first.status, &first.json()["email"]), (200, &json!(email)), "{edge}: {first:?}");
        assert!(me(stack, edge, &access).await.is_hit(), "{edge}: remembered, and so is the token");
    }
    (access, refresh)
}

async fn me(stack: &Stack, edge: usize, token: &str) -> Got {
    call(stack, edge, (Method::GET, "/v1/me"), token, None).await
}

/// Returns one bound after the journal has all that origin has logged: from then on no location goes by what was before.
async fn the_bound_is_over(stack: &Stack) {
    let path = format!("/admin/v1/purges/{}", stack.as_of().await.seq);
    eventually("the journal has it", || async {
        let receipt = stack.admin(Method::GET, &path, None).await.json();
        (receipt["state"] == "accepted" || receipt["state"] == "applied").then_some(())
    })
    .await;
    tokio::time::sleep(LEASE_OVER).await;
}

async fn is_out_everywhere(stack: &Stack, token: &str) {
    for edge in 0..stack.fleet.len() {
        for path in ["/v1/me", "/v1/home", "/v1/me/watch-list"] {
            let got = call(stack, edge, (Method::GET, path), token, None).await;
            assert_eq!((got.status, got.problem().as_str()), (401, "token-revoked"), "{path} at {edge}: {got:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_logs_out_everywhere_is_out_at_each_location_within_the_bound_and_logs_in_again() {
    let stack = Stack::with_edges(2).await;
    let (access, refresh) = viewer_at(&stack, "ada@example.org").await;
    let (on_tv, _) = tokens(&log_in_at(&stack, 1, "/auth", "ada@example.org").await);
    let (eve, _) = viewer_at(&stack, "eve@example.org").await;
    let out = call(&stack, 1, (Method::POST, "/auth/logout-everywhere"), &on_tv, None).await;
    assert!(out.status < 300, "{out:?}");
    the_bound_is_over(&stack).await;
    for token in [&access, &on_tv] {
        is_out_everywhere(&stack, token).await;
    }
    let refreshed = json!({"refresh_token": refresh});
    let refreshed = call(&stack, 0, (Method::POST, "/auth/refresh"), "", Some(refreshed)).await;
    assert_eq!((refreshed.status, refreshed.problem().as_str()), (401, "refresh-refused"), "{refreshed:?}");
    let (again, _) = tokens(&log_in_at(&stack, 0, "/auth", "ada@example.org").await);
    for edge in 0..2 {
        assert_eq!(me(&stack, edge, &again).await.status, 200, "{edge}");
        assert_eq!(me(&stack, edge, &eve).await.status, 200, "{edge}: nobody else is out");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_banned_by_staff_is_out_at_each_location_within_the_bound_and_stays_out() {
    let stack = Stack::with_edges(2).await;
    let (access, _) = viewer_at(&stack, "ada@example.org").await;
    assert!(create_staff(stack.state(), "root@example.org", PASSWORD).0);
    let (root, _) = tokens(&log_in_at(&stack, 1, "/auth/staff", "root@example.org").await);
    let users = call(&stack, 0, (Method::GET, "/admin/v1/users?email=ada@example.org"), &root, None).await.json();
    let path = format!("/admin/v1/users/{}", users["items"][0]["id"].as_str().unwrap_or_else(|| panic!("{users}")));
    let by_her = call(&stack, 0, (Method::PATCH, &path), &access, Some(json!({"banned": false}))).await;
    assert_eq!(by_her.status, 401, "a viewer is no staff: {by_her:?}");
    let banned = call(&stack, 1, (Method::PATCH, &path), &root, Some(json!({"banned": true}))).await;
    assert_eq!(banned.status, 200, "{banned:?}");
    the_bound_is_over(&stack).await;
    is_out_everywhere(&stack, &access).await;
    for edge in 0..2 {
        let got = log_in_at(&stack, edge, "/auth", "ada@example.org").await;
        assert_eq!((got.status, got.problem().as_str()), (403, "account-banned"), "{got:?}");
    }
    let unbanned = call(&stack, 0, (Method::PATCH, &path), &root, Some(json!({"banned": false}))).await;
    assert_eq!(unbanned.status, 200, "{unbanned:?}");
    the_bound_is_over(&stack).await;
    is_out_everywhere(&stack, &access).await;
    let (again, _) = tokens(&log_in_at(&stack, 0, "/auth", "ada@example.org").await);
    assert_eq!(me(&stack, 1, &again).await.status, 200);
}

/// Of an account without a language of its own: what is kept of its lists is kept for each language apart.
#[tokio::test(flavor = "multi_thread")]
async fn a_viewers_lists_are_in_the_language_that_is_asked_for_and_never_in_the_one_that_was_asked_for_before() {
    let catalogue =
        r#"{"type":"title","id":"heat","name":"Heat","translations":{"de":{"name":"Hitze"},"fr":{"name":"Chaleur"}}}"#;
    let vars = vec![("LOCALES".to_string(), "en,de,fr".to_string())];
    let stack = Stack::of(Shape { catalogue: catalogue.into(), vars, ..Shape::default() }).await;
    let (access, refresh) = viewer_at(&stack, "ada@example.org").await;
    let seen = json!({"position_s": 600, "duration_s": 6000});
    for (path, body) in [("/v1/me/watch-list/heat", json!({})), ("/v1/me/progress/heat", seen)] {
        let put = call(&stack, 0, (Method::PUT, path), &access, Some(body)).await;
        assert_eq!(put.status, 204, "{path}: {put:?}");
    }
    the_bound_is_over(&stack).await;
    let lists = ["/v1/me/watch-list", "/v1/me/continue-watching"];
    let list_in = async |path: &str, token: &str, language: &str| {
        send(ask(Method::GET, stack.url(path)).bearer_auth(token).header("accept-language", language)).await
    };
    for path in lists {
        for round in 0..2 {
            for (language, name) in [("en", "Heat"), ("de-AT, en;q=0.5", "Hitze"), ("fr", "Chaleur"), ("it", "Heat")] {
                let got = list_in(path, &access, language).await;
                assert_eq!(got.json()["items"][0]["name"], name, "{path} in {language}: {got:?}");
                assert_eq!(got.is_hit(), round == 1 || language == "it", "{path} in {language}: {got:?}");
                let vary = got.header("vary").unwrap_or_default();
                assert!(vary.contains("accept-language"), "{path}: {vary}");
            }
        }
    }
    let chosen = call(&stack, 0, (Method::PATCH, "/v1/me"), &access, Some(json!({"locale": "fr"}))).await;
    assert_eq!(chosen.status, 200, "{chosen:?}");
    let refreshed = json!({"refresh_token": refresh});
    let (access, _) = tokens(&call(&stack, 0, (Method::POST, "/auth/refresh"), "", Some(refreshed)).await);
    for path in lists {
        for language in ["de", "en"] {
            let got = list_in(path, &access, language).await;
            assert_eq!(got.json()["items"][0]["name"], "Chaleur", "{path} in {language}: {got:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_origins_key_changes_tokens_of_both_keys_are_good_at_each_location() {
    let stack = Stack::with_edges(2).await;
    let (access, refresh) = viewer_at(&stack, "ada@example.org").await;
    let (keys, database) = (stack.state().join("keys"), database(stack.state()));
    let rotate = ["keys", "rotate", "--keys", &keys.to_string_lossy(), "--database", &database.to_string_lossy()];
    xtask::origin::run(&rotate).unwrap();
    let_the_next_key_sign(stack.state());
    let newest = eventually("the new key signs", || async {
        let (access_, _) = tokens(&log_in_at(&stack, 0, "/auth", "ada@example.org").await);
        (kid(&access_) != kid(&access)).then_some(access_)
    })
    .await;
    let refreshed = json!({"refresh_token": refresh});
    let refreshed = call(&stack, 1, (Method::POST, "/auth/refresh"), "", Some(refreshed)).await;
    let (refreshed, _) = tokens(&refreshed);
    assert_eq!(kid(&refreshed), kid(&newest));
    // At the first look, and once everything is known everywhere.
    for _ in 0..2 {
        for edge in 0..2 {
            for token in [&access, &newest, &refreshed] {
                for path in ["/v1/me", "/v1/home"] {
                    let got = call(&stack, edge, (Method::GET, path), token, None).await;
                    assert_eq!(got.status, 200, "{path} at {edge}: {got:?}");
                }
            }
        }
        the_bound_is_over(&stack).await;
    }
}
