//! Accounts over real processes: each role a process of its own on one database, keys that rotate under them, and the log.
use e2e::http::{Got, ask, get, send};
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
    // The next key's time comes sooner than anybody would wait here.
    let rotation = keys.join("rotation.json");
    let mut plan: Value = serde_json::from_str(&std::fs::read_to_string(&rotation).unwrap()).unwrap();
    plan["next_signs_from_s"] = json!(1);
    std::fs::write(&rotation, plan.to_string()).unwrap();
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
    let lines = eventually("two lines", || async {
        let mut lines = apart.access_lines(CLIENT);
        lines.retain(|line| line["fields"]["route"] == "/v1/me");
        (lines.len() >= 2).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), 2, "one a request: {lines:?}");
    let line = &lines[0]["fields"];
    assert_eq!((&line["method"], &line["status"]), (&json!("GET"), &json!(200)));
    assert_eq!((&line["request_id"], &line["trace_id"]), (&json!("the-edge-1"), &json!(trace_id)));
    assert_eq!(line["parent_id"], "00f067aa0ba902b7");
    assert_eq!(line["actor"], answered.json()["id"]);
    assert!(line["duration_ms"].is_number());
    assert_eq!((&lines[1]["fields"]["status"], &lines[1]["fields"]["reason"]), (&json!(401), &json!("token-refused")));
    for role in ROLES {
        let log = std::fs::read_to_string(apart.state.path().join(format!("{role}.log"))).unwrap();
        for secret in [access.as_str(), refresh.as_str(), PASSWORD, "in-the-query", "ada@example.org"] {
            assert!(!log.contains(secret), "{role}: {secret}");
        }
    }
}
