//! `cargo xtask api`: schemathesis against a real origin. It makes requests out of what `/openapi.json` says, good ones and
//! bad ones, and looks for server errors and for answers the description does not know: status, content type, body.
use crate::ui::say;
use crate::{Doing, Result, root, said, setup, target};
use clap::Args;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// From PyPI.
const VERSION: &str = "4.32.5";
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

#[derive(Args)]
pub struct Api {
    /// Requests made up for each operation, besides those that cover its description.
    #[arg(long, default_value_t = 20)]
    examples: u32,
    /// The same seed, the same requests.
    #[arg(long)]
    seed: Option<u64>,
}

impl Default for Api {
    fn default() -> Self {
        Self { examples: 20, seed: Some(1) }
    }
}

impl Api {
    pub fn run(self) -> Result<()> {
        let program = program()?;
        setup::build_origin()?;
        let state = target().join("api");
        // What the last run has written is not to be met again.
        let _ = std::fs::remove_dir_all(&state);
        std::fs::create_dir_all(&state).doing(format!("cannot make {}", state.display()))?;
        crate::origin::keys(&state)?;
        let files = root().join("tests/api");
        let imported = crate::origin::import(&state, &files.join("catalogue.ndjson"))?;
        if imported.contains("refused") {
            return said(format!("the catalogue of tests/api is refused: {imported}"));
        }
        let port = crate::process::free_port()?;
        let mut origin = crate::origin::serve(&state, port, &[], true)?;
        let staff = crate::origin::admin_token(&state, "admin", 3_600)?;
        // With a token that is not good every call of staff is 401, as described, and nothing is tried.
        let staff_is_let_in = || ask(port, "GET", "/admin/v1/titles", &staff, &Value::Null);
        staff_is_let_in()?;
        let (reader, _) = viewer(port, "viewer")?;
        let (victim, user_id) = viewer(port, "victim")?;
        let config = files.join("schemathesis.toml");
        let mut command = Command::new(program);
        command.arg("--config-file").arg(config).arg("run").arg(format!("http://127.0.0.1:{port}/openapi.json"));
        command.args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--continue-on-failure"]);
        command.args(["--warnings", "off", "--max-examples", &self.examples.to_string()]);
        for (name, value) in
            [("STAFF_TOKEN", &staff), ("VIEWER_TOKEN", &reader), ("VICTIM_TOKEN", &victim), ("USER_ID", &user_id)]
        {
            command.env(name, value);
        }
        if let Some(seed) = self.seed {
            command.args(["--seed", &seed.to_string()]);
        }
        // It keeps what it found in the folder it runs in.
        let status = command.env("NO_COLOR", "1").env("PYTHONUNBUFFERED", "1").current_dir(&state).status();
        let status = status.doing("cannot start schemathesis")?;
        origin.check()?;
        staff_is_let_in()?;
        if status.success() { Ok(()) } else { said("the API does not do what /openapi.json says; see above") }
    }
}

/// Makes a viewer's account: an access token, and the account's id.
fn viewer(port: u16, name: &str) -> Result<(String, String)> {
    let who = json!({"email": format!("{name}@example.org"), "password": "correct horse battery"});
    ask(port, "POST", "/auth/register", "", &who)?;
    let tokens = ask(port, "POST", "/auth/login", "", &who)?;
    let token = tokens["access_token"].as_str().unwrap_or_default();
    let me = ask(port, "GET", "/v1/me", token, &Value::Null)?;
    Ok((token.into(), me["id"].as_str().unwrap_or_default().into()))
}

fn ask(port: u16, method: &str, path: &str, token: &str, body: &Value) -> Result<Value> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answer = String::new();
    let talk = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
        stream.write_all(request.as_bytes())?;
        stream.read_to_string(&mut answer)
    });
    talk.doing(format!("cannot ask the origin for {path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    if !head.starts_with("HTTP/1.1 20") {
        return said(format!("{method} {path} was answered {answer}"));
    }
    match serde_json::from_str(body) {
        Ok(value) => Ok(value),
        Err(error) => said(format!("{method} {path} was answered no JSON ({error}): {answer}")),
    }
}

/// Its program, in an environment of its own.
fn program() -> Result<PathBuf> {
    let folder = target().join("schemathesis");
    let program = folder.join("bin/schemathesis");
    let installed = Command::new(&program).arg("--version").output();
    if installed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim_end().ends_with(VERSION)) {
        return Ok(program);
    }
    say(format!("installing schemathesis {VERSION}"));
    if !environment(&folder) {
        setup::system_package("Python with venv", "python3-venv")?;
        if !environment(&folder) {
            return said(format!("python3 cannot make an environment in {}", folder.display()));
        }
    }
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", &format!("schemathesis=={VERSION}")]);
    crate::ui::step("schemathesis from PyPI", &setup::logs().join("schemathesis.log"), &mut pip)?;
    Ok(program)
}

fn environment(folder: &Path) -> bool {
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder).output();
    made.is_ok_and(|output| output.status.success())
}
