//! The project's commands, and the one way in which its processes are started: `dev`, `edge` and the end-to-end tests
//! all go through [`fleet`] and [`origin`].
#![forbid(unsafe_code)]

pub mod api;
pub mod conformance;
pub mod counters;
pub mod dev;
pub mod fleet;
pub mod fuzz;
pub mod instructions;
pub mod keeper;
pub mod metrics;
pub mod origin;
pub mod postgres;
#[cfg(test)]
mod problems;
pub mod process;
pub mod proxy;
pub mod redis;
#[cfg(test)]
mod security;
#[cfg(test)]
mod settings;
pub mod setup;
pub mod test;
pub mod texts;
pub mod ui;
pub mod wasm;
pub mod workerd;

use std::path::PathBuf;
use std::process::Command;

/// Everything that can go wrong, each with the mend in its sentence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Said(String),
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
}

pub type Result<T> = std::result::Result<T, Error>;

pub fn said<T>(sentence: impl Into<String>) -> Result<T> {
    Err(Error::Said(sentence.into()))
}

/// Gives an I/O error the words for what was being done.
pub trait Doing<T> {
    fn doing(self, what: impl Into<String>) -> Result<T>;
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|error| Error::Io { what: what.into(), error })
    }
}

/// cargo, as a person starts it. This program was itself started by cargo, which told it of its package in the environment:
/// a build script that looks at such words, as ring's does, would run anew, and all that hangs on it be compiled anew, each
/// time the same build is asked for from here after a shell or from a shell after here.
pub fn cargo() -> Command {
    const TOLD: [&str; 4] = ["CARGO_BIN_", "CARGO_CRATE_", "CARGO_MANIFEST_", "CARGO_PKG_"];
    let mut cargo = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| TOLD.iter().any(|told| name.starts_with(told))) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Runs cargo at the top of the checkout, with its output shown; `failed` says what it means that it did not end well.
pub fn run_cargo(arguments: &[&str], variables: &[(&str, &str)], failed: &str) -> Result<()> {
    let mut cargo = cargo();
    cargo.args(arguments).envs(variables.iter().copied()).current_dir(root());
    match cargo.status().doing("cannot start cargo")?.success() {
        true => Ok(()),
        false => said(format!("{failed}; see above")),
    }
}

/// The top of the checkout.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
