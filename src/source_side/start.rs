//! From nothing to a mount: targets are reached, nobody writes past the mount, and it is there. What
//! targets lack is copied while programs work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, at, select};

use super::asking::who_writes;
use super::commands;
use super::connection::{Connection, Report};
use super::ground::Ground;
use super::holder::Left;
use super::kept::Kept;
use super::record::SetRecord;
use super::startup::{NOTHING_MOUNTED, io_failure};
use super::uncovering::lifting;
use crate::connection::{Copies, FaultKind, Sending};
use crate::failure::Failure;
use crate::intercept::{DurabilityGate, Fenced, Mount, Place};
use crate::limits::{CONNECT_PATIENCE, TAKEOVER_CONNECT_PATIENCE};
use crate::packet::{KeptOut, Meeting};
use crate::preflight::{self, MountTable};

/// Plain steps, on the thread that does what takes long.
pub struct Start {
    pub ground: Arc<Ground>,
    pub connections: Vec<Arc<Connection>>,
    /// As the last run left it.
    pub record: SetRecord,
    /// Of a daemon that is gone: programs wait, and go on with its mount.
    pub left: Option<Left>,
    /// Something comes when it is to end.
    pub interrupt: Receiver<()>,
}

/// What programs do while targets are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Programs {
    /// They work in the directory as before, or nobody does.
    Unserved,
    /// Their calls wait for this daemon.
    Wait,
}

impl Programs {
    fn patience(self) -> Duration {
        match self {
            Programs::Unserved => CONNECT_PATIENCE,
            Programs::Wait => TAKEOVER_CONNECT_PATIENCE,
        }
    }
}

/// The mount is there, and calls on it wait until it is served.
pub struct Mounted {
    pub mount: Mount,
    /// Targets that have answered, as they were typed.
    pub answered: Vec<String>,
}

impl Start {
    /// Errors: why the directory is not protected, with what was left as it was.
    pub fn run(mut self) -> Result<Mounted, Failure> {
        if let Some(left) = self.left.take() {
            let answered = self.wait_for_targets(Programs::Wait)?;
            return Ok(Mounted { mount: take_over(&self.ground, left)?, answered });
        }
        let answered = self.wait_for_targets(Programs::Unserved)?;
        self.ask_the_others(&answered)?;
        // Whoever began to write past the mount while targets were waited for.
        preflight::check(&self.ground.options)?;
        let mount = mount(&self.ground)?;
        if let (Some(holder), Some(device)) = (&self.ground.holder, mount.device()) {
            holder.mounted(device)?;
        }
        Ok(Mounted { mount, answered })
    }

    /// Waits until every target has answered, [`CONNECT_PATIENCE`] at most for all. One that has answered
    /// a start before may be away, refuse, or be connected and say nothing: it keeps no other target from being protected.
    ///
    /// Errors: one keeps this source out, which was stood in for, or may be for all that time; one has never
    /// answered, and does not in time; one that never has does not take this source, or shows another key: at
    /// once.
    fn wait_for_targets(&self, programs: Programs) -> Result<Vec<String>, Failure> {
        let deadline = Instant::now() + programs.patience();
        let mut answered = Vec::new();
        for connection in self.connections.iter().filter(|connection| !connection.is_null()) {
            let wish = self.record.wish(&connection.target);
            say_wish(connection, &connection.kept());
            if wish.sending != Sending::Stopped && self.reach(connection, deadline, programs)? {
                answered.push(connection.target.to_string());
            }
        }
        Ok(answered)
    }

    /// Those to which nothing is sent by a wish or a schedule: they are asked who writes the set.
    ///
    /// Errors: one keeps this source out, which was stood in for.
    fn ask_the_others(&self, answered: &[String]) -> Result<(), Failure> {
        let has_not = |connection: &&Arc<Connection>| {
            !connection.is_null()
                && connection.report().fault.is_none()
                && !answered.contains(&connection.target.to_string())
        };
        let others = self.connections.iter().filter(has_not).map(|connection| &connection.target);
        let (own, roles) = (self.record.epoch, &self.ground.roles);
        let asked = who_writes(&self.ground.options.state, (self.record.set, &roles.own), others);
        let Some((meeting, other)) = asked else { return Ok(()) };
        let (known, told_by) = (other.history.last().unwrap_or_default(), other.met.clone());
        let why = match meeting {
            Meeting::TakenIn | Meeting::StoodInFor => {
                self.ground.volume.fence().raise(Fenced { epoch: known, told_by: told_by.clone() });
                KeptOut::StoodInFor { own, known }
            }
            Meeting::TwoWriters => {
                roles.hear(other);
                KeptOut::TwoWriters { own, known }
            }
        };
        Err(kept_out(&told_by, &why.to_string()))
    }

    /// Whether it has answered.
    fn reach(&self, connection: &Connection, deadline: Instant, programs: Programs) -> Result<bool, Failure> {
        // Nor does one that a person has decided against, and that has not let go yet.
        // Nor does any where the epoch is raised: nobody else serves the data.
        let is_known = self.record.has_answered(&connection.target)
            || self.ground.roles.own.is_kept()
            || self.record.stands_in;
        let mut was_told = false;
        loop {
            let report = connection.report();
            if report.connected.is_some() {
                return Ok(true);
            }
            if report.state.waits_for_schedule() {
                aside!("note: {}: {}.", connection.target, commands::way_on(connection.id, &report));
                return Ok(false);
            }
            match report.fault {
                Some(FaultKind::Lost) if is_known => {
                    aside!(
                        "note: {}: {}; it is copied to when it is back.",
                        connection.target,
                        report.reason
                    );
                    return Ok(false);
                }
                Some(FaultKind::Refused) if is_known => {
                    aside!(
                        "note: {}: {}. The directory is protected without it until that is mended.",
                        connection.target,
                        report.reason
                    );
                    return Ok(false);
                }
                Some(FaultKind::KeptOut) => {
                    return Err(kept_out(&connection.target.to_string(), &report.reason));
                }
                Some(FaultKind::Refused) => return Err(refused(connection, &report)),
                Some(FaultKind::Lost | FaultKind::Undecided) if !was_told => {
                    was_told = true;
                    let seconds = CONNECT_PATIENCE.as_secs();
                    aside!("note: {}: {}; tried for {seconds} s.", connection.target, report.reason);
                }
                Some(FaultKind::Lost | FaultKind::Undecided) | None => {}
            }
            if Instant::now() >= deadline {
                // That somebody is about to stand in for this source it may still say.
                if is_known && report.fault != Some(FaultKind::Undecided) && programs == Programs::Unserved {
                    let reason = &report.reason;
                    aside!("note: {}: {reason}; it is copied to when it says so.", connection.target);
                    return Ok(false);
                }
                if programs == Programs::Wait {
                    aside!("note: {} has not answered yet; it is copied to when it does.", connection.target);
                    return Ok(false);
                }
                return Err(match report.fault {
                    Some(FaultKind::Undecided) => undecided(connection, &report),
                    _ => unreachable(connection, &report),
                });
            }
            select! {
                recv(connection.news()) -> _ => {}
                recv(at(deadline)) -> _ => {}
                recv(self.interrupt) -> _ => return Err(interrupted()),
            }
        }
    }
}

/// What a person wanted before the last end is so: they may have forgotten it.
fn say_wish(connection: &Connection, Kept { wish, asked, .. }: &Kept) {
    let (id, target) = (connection.id, &connection.target);
    let (how, way) = match (wish.sending, wish.copies) {
        (Sending::Paused, _) if asked.is_some() => (
            "waits with many deletions for a word since before this start",
            "connection resume --accept-deletes",
        ),
        (Sending::Stopped, _) => ("is stopped by hand since before this start", "connection start"),
        (Sending::Paused, _) => ("is paused by hand since before this start", "connection resume"),
        (Sending::Now, Copies::Stopped) => {
            ("is not copied to, by hand since before this start", "mirror start")
        }
        (Sending::Now, Copies::ByThemselves) => return,
    };
    aside!("note: {target} {how}: nothing is sent there before `standin {way}` (connection {id}).");
}

/// Mounts over the directory; calls wait until it is served.
fn mount(ground: &Ground) -> Result<Mount, Failure> {
    let name = ground.options.tree().display().to_string();
    let gate = ground.durability.clone().map(|durability| Arc::new(durability) as Arc<dyn DurabilityGate>);
    // As it is now: reaching the targets may have taken long.
    let table =
        MountTable::read().map_err(|error| io_failure("the table of mounts cannot be read", &error))?;
    let backing = ground.backing_mount.as_ref().map(|backing| backing.look_again(&table));
    let options = backing.map(|backing| backing.options).unwrap_or_default();
    let lifting = lifting(&ground.options.state, &ground.options.directory);
    let place = lifting.as_ref().map_or(Place::Over, |lift| Place::Beneath(lift));
    let (volume, directory) = (ground.volume.clone(), &ground.options.directory);
    Mount::new(volume, directory, &name, (options, place), gate).map_err(|error| {
        Failure::new(
            format!("{} cannot be mounted: {error}.", ground.options.directory.display()),
            "The directory is as it was.",
            "See `standin doctor`.",
        )
    })
}

/// Goes on with the mount of a daemon that is gone; calls that wait are asked again when it is served.
fn take_over(ground: &Ground, left: Left) -> Result<Mount, Failure> {
    let gate = ground.durability.clone().map(|durability| Arc::new(durability) as Arc<dyn DurabilityGate>);
    let directory = &ground.options.directory;
    Mount::take_over(ground.volume.clone(), directory, left.connection, gate).map_err(|error| {
        Failure::new(
            format!("The mount on {} cannot be taken over: {error}.", directory.display()),
            "Calls of programs on it go on waiting.",
            "Start again; or have the mount end, with errors for programs (standin stop), and start again.",
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

/// What programs would write here nobody would ever see again.
fn kept_out(target: &str, why: &str) -> Failure {
    Failure::new(
        format!("{target}: {why}."),
        "Nothing is mounted; the directory and the replica are as they were.",
        "Decide which side goes on, and do what it says.",
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

/// What programs would write here in the meantime might be in nobody's history.
fn undecided(connection: &Connection, report: &Report) -> Failure {
    Failure::new(
        format!("{}: {}.", connection.target, report.reason),
        NOTHING_MOUNTED,
        "Start again when that is decided.",
    )
    .passing()
}

fn interrupted() -> Failure {
    Failure::new("Interrupted before the directory was protected.", NOTHING_MOUNTED, "Start again.")
}
