//! `standin marker`: a barrier with a name. `standin markers run`: on a target, a command for each of them, in a
//! process of its own, while the stream of the set is held.

mod run;

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

pub(super) use self::run::run;
pub use self::run::{Markers, MarkersCommand};
use super::args::Common;
use super::find::{find_role, no_answer};
use super::{Outcome, output};
use crate::control::{MarkerReport, MarkerRequest, MarkerWait, RoleName};
use crate::packet::MarkerEnd;
use crate::units::{self, parse_duration};

#[derive(Debug, Args)]
pub struct Marker {
    /// What it is called: 64 letters, digits and any of - _ . @ + at most
    name: String,
    /// Name or directory of a replication set [default: the only one]
    set: Option<PathBuf>,
    /// Until it has its place in the stream, or until all targets have passed it and what they run for it is through
    #[arg(long, value_enum, value_name = "POINT", default_value_t = Point::Queued)]
    wait: Point,
    /// Give up waiting after this long, as in 500ms, 30s, 5m [default: never]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Point {
    Queued,
    Executed,
}

/// It is not so (yet), or did not go well.
const NOT_YET: u8 = 1;

pub(super) fn make(common: &Common, args: &Marker) -> Outcome {
    let found = find_role(common, args.set.as_deref(), RoleName::Source)?;
    let request = MarkerRequest {
        name: args.name.clone(),
        wait: match args.wait {
            Point::Queued => MarkerWait::Queued,
            Point::Executed => MarkerWait::Executed,
        },
        timeout_ms: args.timeout.map(|timeout| timeout.as_millis() as u64),
    };
    let report = found.client()?.marker(request).map_err(|error| no_answer(&found.status.name, &error))?;
    if common.json {
        output::json(&report);
    } else {
        output::text(&text(&report, args.wait == Point::Executed));
    }
    Ok(if report.complete { 0 } else { NOT_YET })
}

/// The report in words.
fn text(report: &MarkerReport, waits: bool) -> String {
    let waited = units::duration(Duration::from_millis(report.waited_ms));
    let mut text = format!("Marker {} of {} is at position {}.\n", report.name, report.set, report.position);
    if !waits {
        return text;
    }
    for target in &report.targets {
        let end = match target.end {
            Some(MarkerEnd::Done) => "executed",
            Some(MarkerEnd::Failed) => "executed, and failed",
            Some(MarkerEnd::TimedOut) => "given up",
            Some(MarkerEnd::NoCommand) => "passed",
            Some(MarkerEnd::NotGood) => "not executed",
            None => "not known",
        };
        let _ = writeln!(text, "  {} {}: {end}: {}", target.connection, target.target, target.text);
    }
    if !report.complete {
        let _ = writeln!(text, "Not all targets have executed it ({waited}).");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::MarkedTarget;
    use crate::packet::Sequence;

    #[test]
    fn what_became_of_a_marker_is_said() {
        let target = |connection, end, text: &str| MarkedTarget {
            connection,
            target: "standin://b/web".into(),
            end,
            text: text.into(),
        };
        let report = MarkerReport {
            name: "noon".into(),
            set: "web".into(),
            position: Sequence(42),
            complete: false,
            waited_ms: 1500,
            targets: vec![
                target(1, Some(MarkerEnd::Done), "exit code 0"),
                target(2, None, "packets 40 to 42"),
            ],
        };
        assert_eq!(text(&report, false), "Marker noon of web is at position 42.\n");
        assert_eq!(
            text(&report, true),
            "Marker noon of web is at position 42.\n  1 standin://b/web: executed: exit code 0\n  \
             2 standin://b/web: not known: packets 40 to 42\nNot all targets have executed it (1.5 s).\n"
        );
    }
}
