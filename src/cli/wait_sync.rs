//! `standin wait-sync`: block until all targets have what was written before.

use std::fmt::Write;
use std::time::Duration;

use super::args::{Common, WaitSync};
use super::find::{find_role, no_answer};
use super::{Outcome, output};
use crate::control::{self, RoleName, Severity, SyncReport, WaitFor};
use crate::units;

pub(super) fn run(common: &Common, args: &WaitSync) -> Outcome {
    let found = find_role(common, args.set.as_deref(), RoleName::Source)?;
    let wait_for = if args.durable { WaitFor::Durable } else { WaitFor::Applied };
    let wait = control::WaitSync { wait_for, timeout: args.timeout };
    let report = found.client()?.wait_sync(wait).map_err(|error| no_answer(&found.status.name, &error))?;
    if common.json {
        output::json(&report);
    } else {
        output::text(&text(&report, wait_for));
    }
    let verdict = if report.complete { Severity::Ok } else { Severity::Warning };
    Ok(verdict.exit_code())
}

/// The report in words.
pub(super) fn text(report: &SyncReport, wait_for: WaitFor) -> String {
    let waited = units::duration(Duration::from_millis(report.waited_ms));
    let verb = match wait_for {
        WaitFor::Applied => "applied",
        WaitFor::Durable => "made durable",
    };
    if report.connections.is_empty() {
        return "There is no target left: nothing is replicated. Stop and start the protection.".into();
    }
    if report.complete {
        return format!("All targets have {verb} everything up to {} ({waited}).", report.upto);
    }
    let mut text = format!("Not all targets have {verb} everything up to {} after {waited}:", report.upto);
    for connection in report.connections.iter().filter(|connection| !connection.complete) {
        let _ = write!(
            text,
            "\n  connection {} ({}): applied {}, durable {}; {}",
            connection.id, connection.target, connection.applied, connection.durable, connection.waits_for
        );
    }
    text
}
