//! `standin markers run`: attends the markers of one replica.
//!
//! ```text
//!  standin serve ── "marker NAME is due" ──> this process ──> runner ── /bin/sh -c COMMAND
//!                <── how it ended, in a line ──┘
//! ```
//! Which command it is stands on this command line alone: no peer names one. The daemon is asked again and again,
//! also after it was started anew.

use std::time::Duration;

use clap::{Args, Subcommand};
use crossbeam_channel::never;
use serde::Serialize;

use crate::cli::args::Common;
use crate::cli::find::{find_role, no_answer};
use crate::cli::{Outcome, output};
use crate::commands::{Ended, Runner};
use crate::control::{AttendRequest, Attending, Client, MarkerDone, MarkerDue, RoleName};
use crate::failure::Failure;
use crate::limits::{MARKER_HOLD_MAX, MARKER_OUTPUT_MAX};
use crate::packet::{MarkerEnd, Sequence};
use crate::service_manager::ServiceManager;
use crate::units::{self, parse_duration};

/// How often a daemon is looked for that is not there.
const AGAIN: Duration = Duration::from_secs(1);

/// What a command may need beside its time until its end is known.
const SPARE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub struct Markers {
    #[command(subcommand)]
    pub command: MarkersCommand,
}

#[derive(Debug, Subcommand)]
pub enum MarkersCommand {
    /// On a target: run a command for each marker that a replica comes to, while nothing behind the marker is applied
    Run(Run),
}

#[derive(Debug, Args)]
pub struct Run {
    /// Name of the replication set
    set: String,
    /// Run by a shell; it sees the replica as of the marker. The marker is in its environment
    #[arg(long, value_name = "COMMAND")]
    command: String,
    /// How long it may take; then it is killed, and the stream goes on
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "30s")]
    timeout: Duration,
    /// Name of the target daemon [default: the only one]
    #[arg(long)]
    name: Option<std::path::PathBuf>,
}

/// One marker, and how it went.
#[derive(Serialize)]
struct Executed<'a> {
    marker: &'a str,
    set: &'a str,
    position: Sequence,
    end: MarkerEnd,
    text: &'a str,
    /// The end of what the command has printed.
    output: &'a str,
}

/// See the module. Ends with a signal only.
///
/// Errors: it makes no sense; a daemon that is away is waited for.
pub fn run(common: &Common, args: &Markers) -> Outcome {
    let MarkersCommand::Run(args) = &args.command;
    if args.timeout.is_zero() || args.timeout > MARKER_HOLD_MAX {
        return Err(Failure::new(
            "The stream cannot be held for that long.",
            "Nothing was begun.",
            format!("Give a --timeout up to {}.", units::duration(MARKER_HOLD_MAX)),
        ));
    }
    let mut attendant = Attendant { common, args, runner: None, done: None, trouble: String::new() };
    ServiceManager::of_process().ready();
    loop {
        if let Err(failure) = attendant.attend() {
            attendant.say(&failure);
            std::thread::sleep(AGAIN);
        }
    }
}

struct Attendant<'a> {
    common: &'a Common,
    args: &'a Run,
    /// Started when it is needed, and again where it was killed.
    runner: Option<Runner>,
    /// What the daemon has not heard yet.
    done: Option<MarkerDone>,
    /// What was said last.
    trouble: String,
}

impl Attendant<'_> {
    /// Until the daemon goes away.
    fn attend(&mut self) -> Result<(), Failure> {
        let found = find_role(self.common, self.args.name.as_deref(), RoleName::Target)?;
        let mut client: Client = found.client()?;
        loop {
            let request = AttendRequest {
                set: self.args.set.clone(),
                hold_ms: (self.args.timeout + SPARE).as_millis() as u64,
                done: self.done.clone(),
            };
            let answer = client.attend(request).map_err(|error| no_answer(&found.status.name, &error))?;
            (self.done, self.trouble) = (None, String::new());
            let Attending { replica, due } = answer;
            if let Some(due) = due {
                let ended = self.execute(&due, &replica.to_string_lossy());
                self.done = Some(self.tell(&due, &ended));
            }
        }
    }

    /// A trouble that lasts is said once.
    fn say(&mut self, failure: &Failure) {
        let said = failure.to_string();
        if said != self.trouble {
            output::aside(&said);
            self.trouble = said;
        }
    }

    fn execute(&mut self, due: &MarkerDue, replica: &str) -> Ended {
        let problem = |error: std::io::Error| Ended { problem: Some(error.to_string()), ..Ended::default() };
        let own = [
            ("STANDIN_MARKER", due.name.clone()),
            ("STANDIN_SET", self.args.set.clone()),
            ("STANDIN_POSITION", due.position.to_string()),
            ("STANDIN_EPOCH", due.epoch.to_string()),
            ("STANDIN_REPLICA", replica.to_owned()),
        ];
        let timeout = self.args.timeout.min(Duration::from_millis(due.left_ms));
        let runner = match self.runner.take().map_or_else(Runner::start, Ok) {
            Ok(runner) => self.runner.insert(runner),
            Err(error) => return problem(error),
        };
        match runner.run(&self.args.command, timeout, &own, &never()) {
            Ok(ended) => ended.unwrap_or_default(),
            Err(error) => {
                self.runner = None;
                problem(error)
            }
        }
    }

    /// One line for people and scripts, with the end of the output.
    fn tell(&self, due: &MarkerDue, ended: &Ended) -> MarkerDone {
        let (end, text) = outcome(ended, self.args.timeout);
        let printed = tail(&ended.output);
        if self.common.json {
            let (marker, set, position) = (due.name.as_str(), self.args.set.as_str(), due.position);
            output::json(&Executed { marker, set, position, end, text: &text, output: printed });
        } else {
            let line =
                format!("marker {} of {} at position {}: {text}", due.name, self.args.set, due.position);
            output::text(&format!("{line}\n{printed}"));
        }
        MarkerDone { number: due.number, end, text }
    }
}

/// How a command ended, in a word and a line.
fn outcome(ended: &Ended, timeout: Duration) -> (MarkerEnd, String) {
    match (&ended.problem, ended.exit_code, ended.signal) {
        (Some(problem), ..) => (MarkerEnd::Failed, format!("it could not be run: {problem}")),
        _ if ended.timed_out => {
            (MarkerEnd::TimedOut, format!("its command was killed after {}", units::duration(timeout)))
        }
        (None, Some(0), _) => (MarkerEnd::Done, "exit code 0".into()),
        (None, Some(code), _) => (MarkerEnd::Failed, format!("exit code {code}")),
        (None, None, Some(signal)) => (MarkerEnd::Failed, format!("ended by signal {signal}")),
        (None, None, None) => (MarkerEnd::Failed, "it has ended, nobody knows how".into()),
    }
}

/// The last bytes of it, whole characters.
fn tail(text: &str) -> &str {
    let mut at = text.len().saturating_sub(MARKER_OUTPUT_MAX);
    while !text.is_char_boundary(at) {
        at += 1;
    }
    &text[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_word_and_a_line() {
        let ended = |exit_code, signal, timed_out| Ended { exit_code, signal, timed_out, ..Ended::default() };
        let timeout = Duration::from_secs(30);
        for (ended, end, text) in [
            (ended(Some(0), None, false), MarkerEnd::Done, "exit code 0"),
            (ended(Some(3), None, false), MarkerEnd::Failed, "exit code 3"),
            (ended(None, Some(9), true), MarkerEnd::TimedOut, "its command was killed after 30 s"),
            (ended(None, Some(11), false), MarkerEnd::Failed, "ended by signal 11"),
            (
                Ended { problem: Some("no shell".into()), ..Ended::default() },
                MarkerEnd::Failed,
                "it could not be run: no shell",
            ),
        ] {
            assert_eq!(outcome(&ended, timeout), (end, text.to_owned()));
        }
        let long = "ä".repeat(MARKER_OUTPUT_MAX);
        assert!(tail(&long).len() <= MARKER_OUTPUT_MAX && long.ends_with(tail(&long)));
    }
}
