//! Which daemon a command means: the only one, or by name, or by a directory that it protects.

use std::path::{Path, PathBuf};

use super::args::Common;
use crate::control::{Answer, Client, ClientError, Daemon, RoleName, Status, daemons};
use crate::failure::Failure;
use crate::preflight::{MountTable, resolve};
use crate::source_side;

/// The daemon that was meant, and what it said of itself just now.
pub(super) struct Found {
    pub status: Status,
    socket: PathBuf,
}

impl Found {
    /// Of one that was found otherwise.
    ///
    /// Errors: it gave no status.
    pub fn of(daemon: &Daemon) -> Result<Found, Failure> {
        match &daemon.answer {
            Answer::Status(status) => Ok(Found { status: (**status).clone(), socket: daemon.socket.clone() }),
            Answer::Dead => Err(gone(daemon)),
            Answer::None(error) => Err(no_answer(&daemon.name, error)),
        }
    }

    pub fn client(&self) -> Result<Client, Failure> {
        Client::connect(&self.socket).map_err(|error| no_answer(&self.status.name, &error))
    }
}

const UNTOUCHED: &str = "Nothing was changed.";

/// Finds a daemon; `set` is a name, or a directory that is protected or inside of one.
///
/// Errors: none there; several and none named (listed); the one named does not answer.
pub(super) fn find(common: &Common, set: Option<&Path>) -> Result<Found, Failure> {
    let run = common.asked_dir();
    let daemons = all(&run)?;
    match set {
        None => the_only(daemons, &run),
        Some(set) => named(daemons, set, &run),
    }
}

/// As [`find`], but without a name only daemons of one role count: a host can be both.
pub(super) fn find_role(common: &Common, name: Option<&Path>, role: RoleName) -> Result<Found, Failure> {
    let run = common.asked_dir();
    let Ok(mut daemons) = daemons(&run) else { return find(common, name) };
    daemons.retain(|daemon| match &daemon.answer {
        Answer::Status(status) => status.role.name() == role,
        // What a dead one was is not known; most are sources.
        Answer::Dead => role == RoleName::Source,
        Answer::None(_) => true,
    });
    match (name, role) {
        (None, _) if !daemons.is_empty() => the_only(daemons, &run),
        (None, RoleName::Target) => Err(Failure::new(
            format!("No target daemon is running (none in {}).", run.display()),
            UNTOUCHED,
            "Start one on this host with `standin serve`, or name its run directory with --run.",
        )),
        (Some(_), _) | (None, RoleName::Source) => find(common, name),
    }
}

/// All daemons of a run directory, those that were killed among them.
pub(super) fn all(run: &Path) -> Result<Vec<Daemon>, Failure> {
    daemons(run).map_err(|error| {
        Failure::new(
            format!("The run directory {} cannot be read: {error}.", run.display()),
            UNTOUCHED,
            "Ask as root, or name another run directory with --run.",
        )
    })
}

fn the_only(daemons: Vec<Daemon>, run: &Path) -> Result<Found, Failure> {
    let (mut alive, dead): (Vec<_>, Vec<_>) =
        daemons.into_iter().partition(|daemon| !matches!(daemon.answer, Answer::Dead));
    match (alive.len(), dead.as_slice()) {
        (0, []) => Err(none_there(run)),
        (0, [dead, ..]) => Err(gone(dead)),
        (1, []) => found(alive.remove(0)),
        // One that was killed is not passed over: who asks without a name would take all for well.
        _ => Err(Failure::new(
            format!(
                "Several daemons are there:{}",
                alive.iter().chain(&dead).map(line_of).collect::<String>()
            ),
            UNTOUCHED,
            "Say which one is meant, by its name or directory.",
        )),
    }
}

fn line_of(daemon: &Daemon) -> String {
    let about = match &daemon.answer {
        Answer::Status(status) => status.directory.display().to_string(),
        Answer::Dead => waits_for(daemon).map_or_else(|| "not running any more".into(), |one| one.words()),
        Answer::None(error) => error.to_string(),
    };
    format!("\n    {}  {about}", daemon.name)
}

fn named(mut daemons: Vec<Daemon>, set: &Path, run: &Path) -> Result<Found, Failure> {
    if daemons.is_empty() {
        return Err(none_there(run));
    }
    if let Some(at) = daemons.iter().position(|daemon| Path::new(&daemon.name) == set) {
        return found(daemons.remove(at));
    }
    if let Some(at) = protecting(&daemons, set) {
        return found(daemons.remove(at));
    }
    let known = daemons.iter().map(line_of).collect::<String>();
    Err(Failure::new(
        format!("No daemon of {} has the name or protects the directory {}.", run.display(), set.display()),
        UNTOUCHED,
        format!("These are there:{known}"),
    ))
}

/// The daemon whose directory is the closest around a path.
fn protecting(daemons: &[Daemon], path: &Path) -> Option<usize> {
    let path = resolve(path, &MountTable::read().ok()?).ok()?;
    let directory = |daemon: &Daemon| match &daemon.answer {
        Answer::Status(status) => Some(status.directory.clone()),
        Answer::Dead | Answer::None(_) => None,
    };
    let around = daemons.iter().enumerate().filter_map(|(at, daemon)| Some((at, directory(daemon)?)));
    around
        .filter(|(_, directory)| path.starts_with(directory))
        .max_by_key(|(_, directory)| directory.components().count())
        .map(|(at, _)| at)
}

fn found(daemon: Daemon) -> Result<Found, Failure> {
    Found::of(&daemon)
}

fn none_there(run: &Path) -> Failure {
    Failure::new(
        format!("No daemon is running (none in {}).", run.display()),
        UNTOUCHED,
        "Start one with `standin protect` or `standin serve`, or name its run directory with --run.",
    )
}

/// The mount of a daemon that is gone, where it waits for the next one.
fn waits_for(dead: &Daemon) -> Option<source_side::Waiting> {
    source_side::waits(dead.socket.parent()?, &dead.name)
}

fn gone(dead: &Daemon) -> Failure {
    waits_for(dead).map_or_else(|| killed(&dead.name), |waiting| waiting.failure())
}

fn killed(name: &str) -> Failure {
    Failure::new(
        format!("The daemon of {name} is not running any more; it was killed or crashed."),
        UNTOUCHED,
        "Start it again with the same command as before; `standin protect` takes away the dead mount and compares everything.",
    )
}

/// A daemon that did not do what was asked, in its own words where it has any.
pub(super) fn no_answer(name: &str, error: &ClientError) -> Failure {
    // A daemon that ends, or hangs, in the middle may have begun.
    let unknown = "It is not known: what was asked may have been begun, or done.";
    let (untouched, next) = match error {
        ClientError::Failure(failure) => return failure.clone(),
        ClientError::Absent | ClientError::Dead => return killed(name),
        ClientError::Denied => (
            UNTOUCHED,
            "Ask as root, as the daemon's user, or as a member of the group standin-monitor or standin-admin.",
        ),
        ClientError::Mute => (unknown, "See its log; if it hangs for good, kill it and start it again."),
        ClientError::Broken(_) => (
            unknown,
            "See its log, and with `standin status` what is so now; use a command of the daemon's own version.",
        ),
    };
    Failure::new(format!("The daemon of {name} gave no answer: {error}."), untouched, next)
}
