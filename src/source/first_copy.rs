//! The first copy: ahead of the mount, then of the quiet tree. A connection that is lost meanwhile
//! is dialled again, and the copy goes on with what is not identical yet.
//!
//! ```text
//!  targets there ── copy ahead ── mount (calls wait) ── copy of the quiet tree ── in line
//!                      ^  ^  │ lost: waits for it          │ lost, and not back in time
//!                      │  └──┘                             │ (programs do not wait for ever)
//!                      └────────────── unmount ────────────┘
//! ```
//! What else keeps programs waiting too long ends the start ([`super::patience`]).

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::connection::{Connection, CopyOrder, Report};
use super::daemon::Daemon;
use super::mark::{Clock, Mark};
use super::patience::{Budget, Verdict, Waiting};
use super::progress::Display;
use super::startup::{NOTHING_MOUNTED, io_failure, mount};
use crate::connection::FaultKind;
use crate::failure::Failure;
use crate::intercept::Mount;
use crate::limits::CONNECT_PATIENCE;
use crate::packet::Timestamp;
use crate::preflight;
use crate::resync::CopyReport;

/// How often it is looked what a copy does.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits until every target has answered, [`CONNECT_PATIENCE`] at most for all.
///
/// Errors: one is not there in time; one does not take this source, or shows another key: at once.
pub fn wait_for_targets(daemon: &Daemon, signals: &mut super::StopSignals) -> Result<(), Failure> {
    let deadline = Instant::now() + CONNECT_PATIENCE;
    for connection in daemon.connections().iter().filter(|connection| !connection.is_null()) {
        let mut was_told = false;
        loop {
            let slice = deadline.min(Instant::now() + LOOK_EVERY);
            let report = connection
                .wait(slice, |report| report.connected.is_some() || report.fault == Some(FaultKind::Refused));
            if report.connected.is_some() {
                break;
            }
            if report.fault == Some(FaultKind::Refused) {
                return Err(refused(connection, &report));
            }
            if Instant::now() >= deadline {
                return Err(Failure::new(
                    format!("The target {} cannot be reached: {}.", connection.target, report.reason),
                    NOTHING_MOUNTED,
                    "Mend the connection and start again.",
                )
                .passing());
            }
            if signals.pending() {
                return Err(interrupted());
            }
            if report.fault.is_some() && !was_told {
                was_told = true;
                let seconds = CONNECT_PATIENCE.as_secs();
                eprintln!("note: {}: {}; tried for {seconds} s.", connection.target, report.reason);
            }
        }
    }
    Ok(())
}

fn refused(connection: &Connection, report: &Report) -> Failure {
    Failure::new(
        format!("The target {} and this host do not take each other: {}.", connection.target, report.reason),
        NOTHING_MOUNTED,
        "Do what it says, and start again.",
    )
}

/// Copies until every target is in line; gives the mount, on which calls wait.
pub fn bring_into_line(
    daemon: &Daemon,
    signals: &mut super::StopSignals,
) -> Result<(Mount, Vec<CopyReport>), Failure> {
    let mut budget = Budget::new(daemon.options.start_timeout);
    loop {
        // Ahead of the mount, while applications still write: the bulk of the bytes.
        let copying_since = Mark::now();
        let known = |connection: &Connection| {
            daemon.state.lock().suspect_since(&connection.target.to_string(), &Clock::now())
        };
        copy_all(daemon, &mut Stage::Ahead, known, signals)?;
        let again = preflight::check(&daemon.options)?;
        again.writers.iter().for_each(|writer| log::debug!("still writing past the mount: {writer}"));
        let mount = mount(daemon)?;
        // Nothing gets past the mount any more, and nothing on it is answered yet: the tree is quiet.
        let mut quiet = Stage::Quiet(budget.mounted());
        match copy_all(daemon, &mut quiet, |_| copying_since.suspect_since(&Clock::now()), signals)? {
            Some(copied) => return Ok((mount, copied)),
            None => eprintln!(
                "note: unmounted {} again, so that programs do not wait; what changes is copied before the \
                 next try.",
                daemon.options.directory.display()
            ),
        }
    }
}

enum Stage<'a> {
    /// Applications write.
    Ahead,
    /// Applications wait: the tree is quiet, and each target is in line afterwards.
    Quiet(Waiting<'a>),
}

/// What a copy came to.
enum Outcome {
    Copied(CopyReport),
    /// Its target did not come back in time, while applications waited.
    Away,
}

/// Copies to every target, one after the other, and shows how far it is. `None`: see
/// [`Outcome::Away`].
fn copy_all(
    daemon: &Daemon,
    stage: &mut Stage<'_>,
    suspect_since: impl Fn(&Connection) -> Timestamp,
    signals: &mut super::StopSignals,
) -> Result<Option<Vec<CopyReport>>, Failure> {
    let mut reports = Vec::new();
    for connection in daemon.connections().iter().filter(|connection| !connection.is_null()) {
        let backing = daemon
            .backing
            .try_clone()
            .map_err(|error| io_failure("a descriptor cannot be duplicated", &error))?;
        let (done, outcome) = bounded(1);
        let ends = matches!(stage, Stage::Quiet(_));
        connection.copy(CopyOrder { backing, suspect_since: suspect_since(connection), ends, done });
        match wait_for_copy(daemon, connection, stage, &outcome, signals)? {
            Outcome::Copied(report) => reports.push(report),
            // A target that is in line already would miss what changes without the mount.
            Outcome::Away if !reports.is_empty() => {
                return Err(stopped(connection, "the connection was lost, and did not come back in time"));
            }
            Outcome::Away => return Ok(None),
        }
    }
    Ok(Some(reports))
}

fn wait_for_copy(
    daemon: &Daemon,
    connection: &Connection,
    stage: &mut Stage<'_>,
    outcome: &Receiver<Result<CopyReport, String>>,
    signals: &mut super::StopSignals,
) -> Result<Outcome, Failure> {
    let mut display = Display::new(&connection.target.to_string());
    loop {
        match outcome.recv_timeout(LOOK_EVERY) {
            Ok(Ok(report)) => return Ok(Outcome::Copied(report)),
            Ok(Err(why)) => return Err(stopped(connection, &why)),
            Err(RecvTimeoutError::Disconnected) => return Err(stopped(connection, "its thread ended")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if signals.pending() {
            return Err(interrupted());
        }
        let report = connection.report();
        if let Stage::Quiet(waiting) = stage {
            match waiting.judge(&report) {
                Verdict::GoOn => {}
                Verdict::Away => return Ok(Outcome::Away),
                Verdict::Over(why) => return Err(kept_waiting(daemon, connection, &why)),
            }
        }
        if report.connected.is_none() {
            display.away(&report.reason, report.attempts);
            continue;
        }
        if let Some(progress) = &report.progress {
            display.show(&progress.snapshot(), report.copy_attempts, report.retrying.as_ref());
        }
    }
}

fn kept_waiting(daemon: &Daemon, connection: &Connection, why: &str) -> Failure {
    Failure::new(
        format!("The first copy to {} stopped: {why}.", connection.target),
        format!(
            "{} is unmounted again and as it was; the replica is marked bad until a copy is complete.",
            daemon.options.directory.display()
        ),
        "Mend this and start again; a longer --start-timeout lets programs wait longer.",
    )
}

fn stopped(connection: &Connection, why: &str) -> Failure {
    Failure::new(
        format!("The first copy to {} stopped: {why}.", connection.target),
        "The directory is as it was; the replica is marked bad until a copy is complete.",
        "Mend this and start again.",
    )
}

fn interrupted() -> Failure {
    Failure::new(
        "Interrupted before the directory was protected.",
        "The directory is as it was; a replica that was being copied is marked bad.",
        "Start again: the copy begins with what is not identical.",
    )
}
