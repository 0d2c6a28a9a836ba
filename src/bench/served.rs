//! A target daemon of its own, paired with the source that is going to use it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

use super::error::{Context, Error, Result};
use super::process::Process;

/// Name of the daemon, and of the one replication set in it.
pub const SET: &str = "bench";

/// `standin serve` on the loopback interface.
pub struct Served {
    pub process: Process,
    /// As `--to` takes it.
    pub target: String,
    pub replica: PathBuf,
}

impl Served {
    /// Starts it with everything it keeps below `home`, and pairs the source whose home that is
    /// too.
    pub fn start(program: &Path, home: &Path, stop: &AtomicBool) -> Result<Served> {
        let root = home.join("served");
        let (target_state, run) = (home.join("target-state"), home.join("run"));
        fs::create_dir(&root).at(&root)?;
        let log = home.join("serve.log");
        let mut command = Command::new(program);
        command.arg("serve").arg("--root").arg(&root).args(["--listen", "127.0.0.1:0", "--name", SET]);
        command.arg("--state").arg(&target_state).arg("--run").arg(&run);
        let mut process = Process::spawn(command, "the target", log.clone())?;
        process.wait_until(stop, || listens_on(&log).is_some())?;
        let address = listens_on(&log).ok_or_else(|| Error::Wrong("the target has no address".into()))?;
        let target = format!("standin://{address}/{SET}");
        let token = home.join("token");
        let mut invite = Command::new(program);
        invite.args(["invite", SET, "--name", SET]);
        let invited = run_to_end(invite.arg("--state").arg(&target_state).arg("--run").arg(&run))?;
        fs::write(&token, &invited.stdout).at(&token)?;
        let mut pair = Command::new(program);
        pair.arg("pair").arg(&target).arg("--token-file").arg(&token);
        run_to_end(pair.arg("--state").arg(home.join("state")).arg("--run").arg(&run))?;
        Ok(Served { process, target, replica: root.join(SET) })
    }
}

/// The first address in the line that says that the daemon is ready.
fn listens_on(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    let line = text.lines().find(|line| line.starts_with("ready "))?;
    let addresses = line.split_once(" on ")?.1;
    addresses.split([',', ';']).next().map(|address| address.trim().to_owned())
}

fn run_to_end(command: &mut Command) -> Result<Output> {
    let program = PathBuf::from(command.get_program());
    let output = command.output().at(&program)?;
    if output.status.success() {
        return Ok(output);
    }
    Err(Error::Wrong(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
