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

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, at, bounded, select, tick};

use super::connection::{Connection, CopyOrder, Report};
use super::display::Display;
use super::ground::Ground;
use super::mark::{Clock, Moment};
use super::patience::{Budget, Verdict, Waiting};
use super::record::SetRecord;
use super::startup::{NOTHING_MOUNTED, io_failure};
use crate::connection::FaultKind;
use crate::failure::Failure;
use crate::intercept::{DurabilityGate, Mount};
use crate::limits::CONNECT_PATIENCE;
use crate::packet::Timestamp;
use crate::preflight::{self, MountTable};
use crate::resync::CopyReport;

/// How often it is shown, and judged, how far a copy is.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// The way from nothing to a mount whose targets are in line: plain steps, on the thread that does
/// what takes long.
pub struct Start {
    pub ground: Arc<Ground>,
    pub connections: Vec<Arc<Connection>>,
    /// As the last run left it.
    pub record: SetRecord,
    /// Something comes when it is to end.
    pub interrupt: Receiver<()>,
}

/// Every target has what is under the mount, and calls on it wait.
pub struct InLine {
    pub mount: Mount,
    pub copied: Vec<CopyReport>,
    /// When the copies began.
    pub began: Instant,
}

enum Part<'a> {
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

impl Start {
    /// Errors: why the directory is not protected, with what was left as it was.
    pub fn run(&self) -> Result<InLine, Failure> {
        self.wait_for_targets()?;
        let began = Instant::now();
        let (mount, copied) = self.bring_into_line()?;
        Ok(InLine { mount, copied, began })
    }

    /// Waits until every target has answered, [`CONNECT_PATIENCE`] at most for all.
    ///
    /// Errors: one is not there in time; one does not take this source, or shows another key: at once.
    fn wait_for_targets(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + CONNECT_PATIENCE;
        self.targets().try_for_each(|connection| self.reach(connection, deadline))
    }

    fn targets(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.connections.iter().filter(|connection| !connection.is_null())
    }

    fn reach(&self, connection: &Connection, deadline: Instant) -> Result<(), Failure> {
        let mut was_told = false;
        loop {
            let report = connection.report();
            if report.connected.is_some() {
                return Ok(());
            }
            if report.fault == Some(FaultKind::Refused) {
                return Err(refused(connection, &report));
            }
            if Instant::now() >= deadline {
                return Err(unreachable(connection, &report));
            }
            if report.fault.is_some() && !was_told {
                was_told = true;
                let seconds = CONNECT_PATIENCE.as_secs();
                eprintln!("note: {}: {}; tried for {seconds} s.", connection.target, report.reason);
            }
            select! {
                recv(connection.news()) -> _ => {}
                recv(at(deadline)) -> _ => {}
                recv(self.interrupt) -> _ => return Err(interrupted()),
            }
        }
    }

    /// Copies until every target is in line; gives the mount, on which calls wait.
    fn bring_into_line(&self) -> Result<(Mount, Vec<CopyReport>), Failure> {
        let mut budget = Budget::new(self.ground.options.start_timeout);
        let mut unwritten_at = self.ground.unwritten_at.clone();
        loop {
            // Ahead of the mount, while applications still write: the bulk of the bytes.
            let known = |connection: &Connection| {
                self.record.suspect_since(&connection.target.to_string(), &Clock::now())
            };
            self.copy_all(&mut Part::Ahead, known)?;
            let again = preflight::check(&self.ground.options)?;
            again.writers.iter().for_each(|writer| log::debug!("still writing past the mount: {writer}"));
            let mount = mount(&self.ground)?;
            // Nothing gets past the mount any more, and nothing on it is answered yet: the tree is quiet.
            let mut quiet = Part::Quiet(budget.mounted());
            match self.copy_all(&mut quiet, |_| unwritten_at.suspect_since(&Clock::now()))? {
                Some(copied) => return Ok((mount, copied)),
                None => {
                    unwritten_at = Moment::now();
                    drop(mount);
                    eprintln!(
                        "note: unmounted {} again, so that programs do not wait; what changes is copied before \
                         the next try.",
                        self.ground.options.directory.display()
                    );
                }
            }
        }
    }

    /// Copies to every target, one after the other, and shows how far it is. `None`: see
    /// [`Outcome::Away`].
    fn copy_all(
        &self,
        part: &mut Part<'_>,
        suspect_since: impl Fn(&Connection) -> Timestamp,
    ) -> Result<Option<Vec<CopyReport>>, Failure> {
        let mut reports = Vec::new();
        for connection in self.targets() {
            match self.copy(connection, part, suspect_since(connection))? {
                Outcome::Copied(report) => reports.push(report),
                // A target that is in line already would miss what changes without the mount.
                Outcome::Away if !reports.is_empty() => {
                    let why = "the connection was lost, and did not come back in time";
                    return Err(stopped(connection, why).passing());
                }
                Outcome::Away => return Ok(None),
            }
        }
        Ok(Some(reports))
    }

    fn copy(
        &self,
        connection: &Connection,
        part: &mut Part<'_>,
        suspect_since: Timestamp,
    ) -> Result<Outcome, Failure> {
        let backing = self
            .ground
            .backing
            .try_clone()
            .map_err(|error| io_failure("a descriptor cannot be duplicated", &error))?;
        let (done, outcome) = bounded(1);
        let ends = matches!(part, Part::Quiet(_));
        connection.copy(CopyOrder { backing, suspect_since, ends, done });
        let mut display = Display::new(&connection.target.to_string());
        let shows = tick(SHOW_EVERY);
        loop {
            select! {
                recv(outcome) -> outcome => return match outcome {
                    Ok(Ok(report)) => Ok(Outcome::Copied(report)),
                    Ok(Err(why)) => Err(stopped(connection, &why)),
                    Err(_) => Err(stopped(connection, "its thread ended")),
                },
                recv(self.interrupt) -> _ => return Err(interrupted()),
                recv(shows) -> _ => {}
            }
            let report = connection.report();
            if let Part::Quiet(waiting) = part {
                match waiting.judge(&report) {
                    Verdict::GoOn => {}
                    Verdict::Away => return Ok(Outcome::Away),
                    Verdict::Over(why) => return Err(kept_waiting(&self.ground, connection, &why)),
                }
            }
            show(&mut display, &report);
        }
    }
}

fn show(display: &mut Display, report: &Report) {
    if report.connected.is_none() {
        display.away(&report.reason, report.attempts);
    } else if let Some(progress) = &report.progress {
        display.show(&progress.snapshot(), report.copy_attempts, report.retrying.as_ref());
    }
}

/// Mounts over the directory; calls wait until it is served.
fn mount(ground: &Ground) -> Result<Mount, Failure> {
    let name = ground.options.tree().display().to_string();
    let gate = ground.durability.clone().map(|durability| Arc::new(durability) as Arc<dyn DurabilityGate>);
    // As it is now: the copy before may have taken long.
    let table =
        MountTable::read().map_err(|error| io_failure("the table of mounts cannot be read", &error))?;
    let backing = ground.backing_mount.as_ref().map(|backing| backing.look_again(&table));
    let options = backing.map(|backing| backing.options).unwrap_or_default();
    Mount::new(ground.volume.clone(), &ground.options.directory, &name, options, gate).map_err(|error| {
        Failure::new(
            format!("{} cannot be mounted: {error}.", ground.options.directory.display()),
            "The directory is as it was; what was copied to the replica stays, marked bad.",
            "See `standin doctor`.",
        )
    })
}

fn refused(connection: &Connection, report: &Report) -> Failure {
    Failure::new(
        format!("The target {} and this host do not take each other: {}.", connection.target, report.reason),
        NOTHING_MOUNTED,
        "Do what it says, and start again.",
    )
}

fn unreachable(connection: &Connection, report: &Report) -> Failure {
    Failure::new(
        format!("The target {} cannot be reached: {}.", connection.target, report.reason),
        NOTHING_MOUNTED,
        "Mend the connection and start again.",
    )
    .passing()
}

fn kept_waiting(ground: &Ground, connection: &Connection, why: &str) -> Failure {
    Failure::new(
        format!("The first copy to {} stopped: {why}.", connection.target),
        format!(
            "{} is unmounted again and as it was; the replica is marked bad until a copy is complete.",
            ground.options.directory.display()
        ),
        "Mend this and start again; a longer --start-timeout lets programs wait longer.",
    )
    .passing()
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
