//! A server that ends with whoever started it, even if that one is killed: between them stands a shell that waits for the
//! end of its input, then stops the server and removes what it left behind.
use crate::{Doing, Result, said};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

pub struct Keeper {
    kept: Option<(Child, ChildStdin)>,
}

const SCRIPT: &str = r#""$@" </dev/null & server=$!; read -r _; kill -INT "$server"; wait "$server"; rm -rf "$KEPT""#;

impl Keeper {
    /// Starts a program with the arguments and variables of `server`. Its output goes to `log`; `leaves` is removed in the
    /// end.
    pub fn start(server: &Command, log: &Path, leaves: &Path) -> Result<Self> {
        let file = std::fs::File::create(log).doing(format!("cannot write {}", log.display()))?;
        let copy = file.try_clone().doing("cannot write a log")?;
        let mut keeper = Command::new("sh");
        keeper.args(["-c", SCRIPT, "keeper"]).arg(server.get_program()).args(server.get_args());
        keeper.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
        keeper.env("KEPT", leaves).current_dir("/");
        // Ctrl-C in the terminal is for the program that holds this one.
        std::os::unix::process::CommandExt::process_group(&mut keeper, 0);
        let program = server.get_program().to_string_lossy();
        let kept = keeper.stdin(Stdio::piped()).stdout(file).stderr(copy).spawn();
        let mut kept = kept.doing(format!("cannot start {program}"))?;
        let Some(input) = kept.stdin.take() else { return said(format!("cannot keep hold of {program}")) };
        Ok(Self { kept: Some((kept, input)) })
    }

    pub fn stop(&mut self) {
        if let Some((mut kept, input)) = self.kept.take() {
            drop(input);
            let _ = kept.wait();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}
