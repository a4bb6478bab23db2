//! What a machine needs beyond git, rustup and npm: found, or installed and said.
//!
//! wasm-bindgen's program is compiled from source, since its prebuilt form is a download that a closed network does not
//! have; it goes to cargo's usual place once and is kept.
use crate::ui::{say, step};
use crate::{Doing, Result, root, said, target};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Moves together with the pins in Cargo.toml.
const WASM_BINDGEN: &str = "0.2.129";
const WASM_TARGET: &str = "wasm32-unknown-unknown";
/// What wrangler asks for.
const NODE_MIN: (u32, u32) = (22, 12);

pub fn logs() -> PathBuf {
    target().join("xtask-logs")
}

/// First line of a command's output; `None` if it cannot be run.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_string())
}

/// Installs whatever is missing.
pub fn all() -> Result<()> {
    wasm_target()?;
    cargo_tool("wasm-bindgen-cli", WASM_BINDGEN)?;
    npm_packages()
}

/// What `cargo xtask test` needs besides.
pub fn components() -> Result<()> {
    for (component, program) in [("rustfmt", "rustfmt"), ("clippy", "cargo-clippy")] {
        if output(Command::new(program).arg("--version")).is_none() {
            rustup(&format!("adding {component}"), &["component", "add", component])?;
        }
    }
    Ok(())
}

fn rustup(what: &str, arguments: &[&str]) -> Result<()> {
    if output(Command::new("rustup").arg("--version")).is_none() {
        return said(format!(
            "{what} needs rustup, which is not on PATH; install it from rustup.rs, or run `rustup {}` where it is",
            arguments.join(" ")
        ));
    }
    step(what, &logs().join("rustup.log"), Command::new("rustup").args(arguments))
}

fn wasm_target() -> Result<()> {
    let Some(sysroot) = output(Command::new("rustc").args(["--print", "sysroot"])) else {
        return said("rustc does not run; install Rust with rustup (rustup.rs)");
    };
    if PathBuf::from(sysroot).join("lib/rustlib").join(WASM_TARGET).join("lib").is_dir() {
        return Ok(());
    }
    rustup("adding Rust's wasm32 target", &["target", "add", WASM_TARGET])
}

/// Where `cargo install` puts programs.
fn cargo_bin() -> PathBuf {
    let home = std::env::var_os("CARGO_INSTALL_ROOT").or_else(|| std::env::var_os("CARGO_HOME")).map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    home.unwrap_or_default().join("bin")
}

pub fn program(package: &str) -> PathBuf {
    cargo_bin().join(package.trim_end_matches("-cli"))
}

pub fn cargo_tool(package: &str, version: &str) -> Result<()> {
    let installed = output(Command::new(program(package)).arg("--version"));
    if installed.is_some_and(|line| line.split_whitespace().any(|word| word == version)) {
        return Ok(());
    }
    say(format!("{package} {version} is not installed; it is compiled once, which takes some minutes"));
    let log = logs().join(format!("install-{package}.log"));
    let spec = format!("{package}@{version}");
    let mut cargo = crate::cargo();
    // Not in the project's target folder: it must not be rebuilt with the project's flags, nor deleted with it.
    cargo.args(["install", "--locked", &spec]).env_remove("CARGO_TARGET_DIR").current_dir(std::env::temp_dir());
    step(&format!("installing {package}"), &log, &mut cargo)
}

/// The C++ compiler libFuzzer is built with.
pub fn cpp() -> Result<()> {
    match output(Command::new("c++").arg("--version")) {
        Some(_) => Ok(()),
        None => system_package("a C++ compiler", "g++"),
    }
}

/// The databases the tests run on, besides SQLite. Nothing is started as a service: the tests start their own.
pub fn databases() -> Result<()> {
    if crate::postgres::programs().is_none() {
        system_package("PostgreSQL's server", "postgresql")?;
    }
    match output(Command::new("redis-server").arg("--version")) {
        Some(_) => Ok(()),
        None => system_package("Redis", "redis-server"),
    }
}

/// Valgrind, whose Callgrind counts instructions.
pub fn valgrind() -> Result<()> {
    match output(Command::new("valgrind").arg("--version")) {
        Some(_) => Ok(()),
        None => system_package("Valgrind", "valgrind"),
    }
}

pub fn system_package(what: &str, package: &str) -> Result<()> {
    if output(Command::new("apt-get").arg("--version")).is_none() {
        return said(format!("{what} is needed and not there; install it as this system does (Debian: {package})"));
    }
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    let log = logs().join("apt.log");
    // A machine's lists may be old, or not there at all.
    step("reading the system's list of packages", &log, &mut apt(&["update"]))?;
    // The package must not start a server of its own: with this in place it does not.
    let mut install = apt(&["install", "--yes", "--no-install-recommends", package]);
    step(&format!("installing {what}"), &log, install.env("RUNLEVEL", "1"))
}

pub fn node_bin() -> PathBuf {
    root().join("node_modules/.bin")
}

/// PATH with the project's own Node and tools first.
pub fn path() -> std::ffi::OsString {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let parts = [node_bin(), cargo_bin()].into_iter().chain(std::env::split_paths(&old));
    std::env::join_paths(parts).unwrap_or(old)
}

fn npm_packages() -> Result<()> {
    npm_install(&root(), "installing npm packages")?;
    let node = output(Command::new("node").arg("--version").env("PATH", path())).unwrap_or_default();
    let mut numbers = node.trim_start_matches('v').split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < NODE_MIN {
        return said(format!(
            "wrangler needs Node {}.{} or later and found {node:?}; there is no packaged Node for this system, so install one (nodejs.org)",
            NODE_MIN.0, NODE_MIN.1
        ));
    }
    Ok(())
}

/// Installs a folder's npm packages, unless they were installed from the same lock file.
pub fn npm_install(folder: &Path, what: &str) -> Result<()> {
    let lock = folder.join("package-lock.json");
    let wanted = std::fs::read(&lock).doing(format!("cannot read {}", lock.display()))?;
    let stamp = folder.join("node_modules/.installed-from");
    if std::fs::read(&stamp).ok() != Some(wanted.clone()) {
        if output(Command::new("npm").arg("--version")).is_none() {
            return said("npm does not run; install Node with npm, any version from 18 (nodejs.org)");
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(folder);
        step(what, &logs().join("npm.log"), &mut npm)?;
        std::fs::write(&stamp, wanted).doing("cannot note what npm installed")?;
    }
    Ok(())
}

/// Makes `wrangler` and other Node programs runnable: the right Node, no look-ups beyond the machine.
pub fn node_command(program: &str) -> Command {
    let mut command = Command::new(node_bin().join(program));
    command.env("PATH", path()).env("WRANGLER_SEND_METRICS", "false").env("CLOUDFLARE_CF_FETCH_ENABLED", "false");
    command.current_dir(root());
    command
}

/// Compiles the origin.
pub fn build_origin() -> Result<()> {
    let mut cargo = crate::cargo();
    cargo.args(["build", "--release", "--package", "origin"]).current_dir(root());
    step("building the origin", &logs().join("build-origin.log"), &mut cargo)
}
