//! `standin stop`: drain, unmount, end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::args::Common;
use super::find::{find, no_answer};
use super::{Outcome, output};
use crate::control::{Answer, RoleName, Severity, StopMode};
use crate::failure::Failure;
use crate::limits::STOP_DRAIN;
use crate::preflight::{MountTable, resolve};
use crate::source_side;

/// For the unmount itself and the end of the process, after the drain.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub struct Stop {
    /// Name or directory of a replication set [default: the only one]
    pub set: Option<PathBuf>,
    /// Do not drain, detach the mount even when it is busy
    #[arg(long)]
    pub now: bool,
}

/// Without a daemon the mount may wait for one: then it ends.
fn let_go(common: &Common, args: &Stop, failure: Failure) -> Outcome {
    let mounts = MountTable::read().ok();
    // A name, or a directory however it is written.
    let is_name = |set: &Path| set.components().count() == 1 && set.is_relative();
    let set = args.set.clone().map(|set| match &mounts {
        Some(mounts) if !is_name(&set) => resolve(&set, mounts).unwrap_or(set),
        Some(_) | None => set,
    });
    let Ok(Some(directory)) = source_side::give_up(&common.run_dir(), set.as_deref()) else {
        return Err(failure);
    };
    if common.json {
        output::json(&json!({ "stopped": directory, "report": null, "ended": true }));
    } else {
        output::text(&format!(
            "The mount on {} waited for a daemon and has ended: calls of programs on it fail now. What they have \
             written is in the directory, targets may lack the last of it: the next start copies that.",
            directory.display()
        ));
    }
    Ok(Severity::Warning.exit_code())
}

fn does_any_run(common: &Common) -> bool {
    let all = super::find::all(&common.run_dir()).unwrap_or_default();
    all.iter().any(|daemon| !matches!(daemon.answer, Answer::Dead))
}

pub(super) fn run(common: &Common, args: &Stop) -> Outcome {
    let found = match find(common, args.set.as_deref()) {
        Ok(found) => found,
        // Of several one is meant, and nobody knows which.
        Err(failure) if args.set.is_none() && does_any_run(common) => return Err(failure),
        Err(failure) => return let_go(common, args, failure),
    };
    let mode = if args.now { StopMode::Now } else { StopMode::Orderly };
    let mut client = found.client()?;
    let report = client
        .stop(mode, STOP_DRAIN + UNMOUNT_PATIENCE)
        .map_err(|error| no_answer(&found.status.name, &error))?;
    let ended = client.wait_for_end(UNMOUNT_PATIENCE);
    let directory = &found.status.directory;
    if common.json {
        output::json(&json!({ "stopped": found.status.name, "report": report, "ended": ended }));
    } else {
        let done = match found.status.role.name() {
            RoleName::Source => "protected",
            RoleName::Target => "served",
        };
        output::text(&format!("{} is no longer {done}.", directory.display()));
        for left in &report.left {
            output::text(&format!("Left behind: {left}"));
        }
        if !ended {
            output::text(&format!("The daemon (pid {}) has not ended yet.", found.status.pid));
        }
    }
    let verdict = if report.drained && ended { Severity::Ok } else { Severity::Warning };
    Ok(verdict.exit_code())
}
