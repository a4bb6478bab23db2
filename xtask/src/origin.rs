//! The origin's program as the commands and the tests use it.
use crate::process::{Process, await_answer, tied};
use crate::{Doing, Result, said, target};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release build, which `cargo xtask dev` and `cargo xtask test` make.
pub fn program() -> Result<PathBuf> {
    let program = target().join("release/origin");
    if program.is_file() { Ok(program) } else { said("the origin is not built; run `cargo build --release -p origin`") }
}

/// Runs one of its short commands and returns what it printed.
pub fn run(arguments: &[&str]) -> Result<String> {
    let output = Command::new(program()?).args(arguments).output().doing("cannot start the origin")?;
    if !output.status.success() {
        return said(String::from_utf8_lossy(&output.stderr).trim().to_string());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The folder with the signing keys, made when it is not there. Returns the public half.
pub fn keys(state: &Path) -> Result<String> {
    let keys = state.join("keys");
    let public = keys.join("public.jwks.json");
    if !public.is_file() {
        run(&["keygen", "--keys", &text(&keys)])?;
    }
    std::fs::read_to_string(&public).doing(format!("cannot read {}", public.display()))
}

fn secret_file(state: &Path) -> PathBuf {
    state.join("edge-secret")
}

/// What edge and origin share, made when it is not there. From then on an origin with this state folder has it too.
pub fn edge_secret(state: &Path) -> Result<String> {
    let file = secret_file(state);
    if !file.is_file() {
        let mut bytes = [0_u8; 32];
        if getrandom::fill(&mut bytes).is_err() {
            return said("the system gave no randomness for a secret");
        }
        let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(&file, secret).doing(format!("cannot write {}", file.display()))?;
    }
    std::fs::read_to_string(&file).doing(format!("cannot read {}", file.display()))
}

pub fn admin_token(state: &Path, role: &str, lifetime_s: u64) -> Result<String> {
    let (keys, lifetime_s) = (text(&state.join("keys")), lifetime_s.to_string());
    run(&["token", "--keys", &keys, "--subject", "dev", "--role", role, "--lifetime-s", &lifetime_s])
}

pub fn edge_token(state: &Path, scope: &str, lifetime_s: u64) -> Result<String> {
    let (keys, lifetime_s) = (text(&state.join("keys")), lifetime_s.to_string());
    run(&["edge-token", "--keys", &keys, "--scope", scope, "--lifetime-s", &lifetime_s])
}

const ROLE: &str = "--role";

/// Where its data is, as its commands are told.
#[derive(Clone, Debug)]
pub struct Database(Vec<String>);

impl Database {
    /// SQLite in the state folder.
    pub fn sqlite(state: &Path) -> Self {
        Self(vec!["--database".into(), text(&state.join("origin.sqlite"))])
    }

    pub fn postgres(url: &str, replica_urls: &[String]) -> Self {
        let mut arguments = vec!["--database-url".to_string(), url.into()];
        for replica in replica_urls {
            arguments.extend(["--replica-urls".to_string(), replica.clone()]);
        }
        Self(arguments)
    }

    /// With one more setting.
    #[must_use]
    pub fn with(mut self, option: &str, value: impl ToString) -> Self {
        self.0.extend([option.to_string(), value.to_string()]);
        self
    }

    /// With some of the roles alone; all on one database.
    #[must_use]
    pub fn with_roles(self, roles: &str) -> Self {
        self.with(ROLE, roles)
    }

    /// What a process on it, and its log, is called: by the first of its roles, if it has not every one.
    fn process(&self) -> String {
        let roles = self.0.iter().skip_while(|argument| *argument != ROLE).nth(1);
        roles.map_or("origin".into(), |roles| format!("origin-{}", roles.split(',').next().unwrap_or(roles)))
    }

    pub fn arguments(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}

/// Imports a file and returns the summary.
pub fn import(state: &Path, file: &Path) -> Result<String> {
    import_into(&Database::sqlite(state), file)
}

pub fn import_into(database: &Database, file: &Path) -> Result<String> {
    run(&[&["import", &text(file)], database.arguments().as_slice()].concat())
}

/// The same, leaving alone what is there or was deleted. A database that an older release left in the state folder, which is
/// nobody else's meanwhile, is brought up to date first.
pub fn import_new(state: &Path, file: &Path) -> Result<String> {
    if state.join("origin.sqlite").exists() {
        run(&[&["migrate"], Database::sqlite(state).arguments().as_slice()].concat())?;
    }
    run(&[&["import", "--only-new", &text(file)], Database::sqlite(state).arguments().as_slice()].concat())
}

/// Starts it on a loopback port, with every role, and waits until it answers.
pub fn serve(state: &Path, port: u16, edge_urls: &[String], die_with_us: bool) -> Result<Process> {
    serve_on(&Database::sqlite(state), state, port, edge_urls, die_with_us)
}

/// The same on this database, with the roles that stand there if not with every one.
pub fn serve_on(
    database: &Database,
    state: &Path,
    port: u16,
    edge_urls: &[String],
    die_with_us: bool,
) -> Result<Process> {
    let program = program()?;
    let mut command = if die_with_us { tied(&program)? } else { Command::new(program) };
    command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--keys", &text(&state.join("keys"))]);
    command.args(database.arguments());
    for url in edge_urls {
        command.args(["--edge-url", url]);
    }
    if secret_file(state).is_file() {
        // Not as an argument, which everybody on the machine can read.
        command.env("ORIGIN_EDGE_SECRET", edge_secret(state)?);
    }
    let name = database.process();
    let mut process = Process::start(&name, &state.join(format!("{name}.log")), &mut command)?;
    await_answer("the origin", port, "/readyz", &mut [&mut process])?;
    Ok(process)
}
