//! `standin stop`: drain, unmount, end.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::args::Common;
use super::find::{find, no_answer};
use super::{Outcome, output};
use crate::control::{RoleName, Severity, StopMode};
use crate::limits::STOP_DRAIN;

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

pub(super) fn run(common: &Common, args: &Stop) -> Outcome {
    let found = find(common, args.set.as_deref())?;
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
