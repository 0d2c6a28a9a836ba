//! What is found before a failover: everything that is in its way, and which point it would be of. Nothing is
//! changed.

mod others;
mod typed;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use serde::Serialize;

pub(super) use self::typed::look_at_others;

use super::super::args::Common;
use super::super::{find, output};
use super::{Failover, UNTOUCHED, busy, point};
use crate::control::{
    Answer, CallSource, CalledSource, Client, ConnectedSource, ReplicaStatus, Role, unix_ms,
};
use crate::failover::journal::Journal;
use crate::failover::report::Point;
use crate::failure::Failure;
use crate::limits::CALLED_SOURCE_ANSWERS;
use crate::packet::DataState;
use crate::source_side::{self, Asked, Foreseen};
use crate::words::ProtectOptions;

/// The replica that is meant.
pub(super) struct Place {
    pub directory: PathBuf,
    /// What a target daemon that runs says of it.
    said: Option<ReplicaStatus>,
    /// Of that daemon.
    socket: PathBuf,
    /// Its source is connected, was called then, and is silent.
    silent_since: Option<Instant>,
    /// Daemons that do not answer may have it.
    unheard: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    /// Worth knowing; it would be done.
    Note,
    Refused,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub level: Level,
    pub what: String,
    pub next: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Preflight {
    findings: Vec<Finding>,
    /// Of which it would be; `null` where the replica cannot be read.
    point: Option<Point>,
    now_unix_ms: u64,
    /// Which would be raised; `null` where an earlier failover is gone on with.
    epoch: Option<u32>,
    goes_on: bool,
    data: Option<DataState>,
}

/// Errors: it is not known which replica is meant.
pub(super) fn place(common: &Common, args: &Failover) -> Result<Place, Failure> {
    let is_path = args.replica.components().count() > 1 || args.replica.is_absolute();
    let wanted = match is_path {
        false => args.replica.clone(),
        true => real(&args.replica).map_err(|error| {
            let what = format!("{}: {error}.", args.replica.display());
            Failure::new(what, UNTOUCHED, "Name the directory of a replica, with its disk mounted.")
        })?,
    };
    let (mut meant, mut unheard) = (Vec::new(), Vec::new());
    for daemon in find::all(&common.run_dir())? {
        match daemon.answer {
            Answer::Status(status) => {
                if let Role::Target { target } = status.role {
                    let of = |replica| (replica, daemon.socket.clone());
                    meant.extend(target.replicas.into_iter().map(of));
                }
            }
            Answer::Dead => {}
            Answer::None(_) => unheard.push(daemon.name),
        }
    }
    meant.retain(|(replica, _)| match is_path {
        true => replica.directory == wanted,
        false => Path::new(&replica.name) == wanted,
    });
    match (meant.pop(), is_path) {
        (Some(_), _) if !meant.is_empty() => Err(Failure::new(
            format!("Several replicas of {} are on this host.", wanted.display()),
            UNTOUCHED,
            "Name the directory of the one that is meant.",
        )),
        (Some((said, socket)), _) => {
            let directory = said.directory.clone();
            Ok(Place { directory, said: Some(said), socket, silent_since: None, unheard })
        }
        (None, true) => {
            Ok(Place { directory: wanted, said: None, socket: PathBuf::new(), silent_since: None, unheard })
        }
        (None, false) => Err(Failure::new(
            format!("No target daemon that runs on this host has a replica of {}.", wanted.display()),
            UNTOUCHED,
            "Name the directory of the replica; `standin status` shows what a target daemon has.",
        )),
    }
}

/// Also below the dead mount of a daemon that was killed.
pub(super) fn real(path: &Path) -> std::io::Result<PathBuf> {
    match std::fs::canonicalize(path) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => std::path::absolute(path),
        outcome => outcome,
    }
}

/// Has the target daemon call a source that is connected: one that lives answers at once, whatever its packets wait
/// for; one that has died counts as connected for some heartbeats more.
pub(super) fn call(place: Place) -> Place {
    let Some(said) = place.said.as_ref().filter(|said| said.connected.is_some()) else { return place };
    output::aside(&format!(
        "the source is connected: it is called, and has {:.1} s to answer",
        CALLED_SOURCE_ANSWERS.as_secs_f64()
    ));
    let began = Instant::now();
    let call = CallSource { replica: said.name.clone(), end_silent_for_ms: None };
    match Client::connect(&place.socket).and_then(|mut client| client.call_source(call)) {
        Ok(Some(CalledSource { answered: true, .. })) => place,
        Ok(Some(_)) => Place { silent_since: Some(began), ..place },
        // It has gone meanwhile.
        Ok(None) => {
            let said = place.said.map(|said| ReplicaStatus { connected: None, ..said });
            Place { said, ..place }
        }
        // It cannot be known, and counts as heard.
        Err(error) => {
            output::aside(&format!("the target daemon cannot call it: {error}"));
            place
        }
    }
}

/// Ends the connection of a source that was called and is silent: its daemon lets the replica go to nobody before.
///
/// Errors: it was heard meanwhile, or the daemon does not say.
pub(super) fn end_silent(place: &Place) -> Result<(), Failure> {
    let (Some(said), Some(began)) = (&place.said, place.silent_since) else { return Ok(()) };
    let silent_ms = began.elapsed().as_millis() as u64;
    let call = CallSource { replica: said.name.clone(), end_silent_for_ms: Some(silent_ms) };
    match Client::connect(&place.socket).and_then(|mut client| client.call_source(call)) {
        Ok(Some(CalledSource { answered: true, .. })) => Err(Failure::new(
            format!("The source of {} was heard meanwhile.", said.directory.display()),
            UNTOUCHED,
            "Stop it there (standin stop), or cut it off: two hosts would write one set.",
        )),
        Ok(Some(_) | None) => Ok(()),
        Err(error) => Err(Failure::new(
            format!("The target daemon does not end the connection of its silent source: {error}."),
            UNTOUCHED,
            "See how it is (standin status), or stop it: the replica is read from its state then.",
        )),
    }
}

impl Place {
    fn source(&self) -> Option<&ConnectedSource> {
        self.said.as_ref()?.connected.as_ref()
    }
}

/// Looks at everything, in the order in which it would be met.
pub(super) fn look(
    args: &Failover,
    options: &ProtectOptions,
    place: &Place,
    answers: &[(String, Asked)],
) -> Preflight {
    let mut findings = Vec::new();
    let mut refuse = |failure: Failure| {
        findings.push(Finding { level: Level::Refused, what: failure.what, next: failure.next });
    };
    if Journal::is_busy(&options.state, &options.name) {
        refuse(busy());
    }
    others::source_lives(place).into_iter().for_each(&mut refuse);
    let mut notes = Vec::new();
    let dead = crate::preflight::standing_mount(&options.directory);
    let is_dead = dead.as_ref().is_ok_and(|dead| dead.is_some());
    dead.err().into_iter().for_each(&mut refuse);
    let foreseen = match source_side::foresee(options) {
        Ok(Foreseen { refusals, seen, would }) => {
            refusals.into_iter().for_each(&mut refuse);
            for (target, asked) in answers {
                if let Some(theirs) = others::split_brain(asked, &would) {
                    source_side::note_split_brain(options, theirs, target);
                }
                match others::stands(options, target, asked, &would, place.said.as_ref()) {
                    Ok(said) => notes.extend(said),
                    Err(failure) => refuse(failure),
                }
            }
            Some(seen)
        }
        // It is the replica's own directory.
        Err(_) if is_dead && options.backing.is_none() => None,
        Err(failure) => {
            refuse(failure);
            None
        }
    };
    match mount_point(options, is_dead) {
        Ok(said) => notes.extend(said),
        Err(failure) => refuse(failure),
    }
    notes.extend(worth_knowing(args, options, place, foreseen.map(|seen| seen.data)));
    let said = place.said.as_ref().filter(|said| said.problem.is_none() && said.data != DataState::Empty);
    let point = match (said, &foreseen) {
        // What it had then programs have gone on from.
        (_, Some(seen)) if seen.goes_on => None,
        (Some(said), _) => Some(of_status(said)),
        (None, Some(seen)) => Some(point(&seen.taken)),
        (None, None) => None,
    };
    let note = |what: String| Finding { level: Level::Note, what, next: String::new() };
    findings.extend(notes.into_iter().map(note));
    Preflight {
        findings,
        point,
        now_unix_ms: unix_ms(SystemTime::now()),
        epoch: foreseen.as_ref().filter(|seen| !seen.goes_on).map(|seen| seen.epoch),
        goes_on: foreseen.as_ref().is_some_and(|seen| seen.goes_on),
        data: foreseen.map(|seen| seen.data),
    }
}

/// What would not keep anybody from it.
fn worth_knowing(
    args: &Failover,
    options: &ProtectOptions,
    place: &Place,
    data: Option<DataState>,
) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(place.source().filter(|_| place.silent_since.is_some()).map(|source| {
        format!(
            "The source, at {}, is still connected, and was called: it gave no sign of life within {:.1} s.",
            source.address,
            CALLED_SOURCE_ANSWERS.as_secs_f64()
        )
    }));
    notes.extend(place.unheard.iter().map(|name| {
        format!("The daemon '{name}' does not answer: if it has the replica, that is found when it is taken.")
    }));
    if place.said.is_none() {
        notes.push("No target daemon that runs here has the replica; it is read from its state.".into());
    }
    if args.accept_bad_data && data.is_some_and(|data| data != DataState::Good) {
        notes.push("The replica is no consistent state of its source; --accept-bad-data serves it.".into());
    }
    if options.backing.is_some() && holds_something(&options.directory) {
        notes.push(format!(
            "{} holds files: they are covered for as long as the data are served there.",
            options.directory.display()
        ));
    }
    if args.to.is_empty() {
        notes.push(
            "No --to: what is written from now on is on this host alone until it is protected with one."
                .into(),
        );
    }
    notes
}

fn holds_something(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

/// What is worth knowing of the place where programs get the data.
///
/// Errors: it is none.
fn mount_point(options: &ProtectOptions, is_dead: bool) -> Result<Vec<String>, Failure> {
    let dead = "A killed daemon has left a dead mount there: it is replaced, and what is under it is looked at then.";
    match is_dead {
        true => Ok(vec![dead.into()]),
        false => Ok(source_side::check(options)?.warnings),
    }
}

fn of_status(said: &ReplicaStatus) -> Point {
    Point {
        packet: said.applied.0,
        as_of_unix_ms: said.as_of_unix_ms,
        clock_ahead_ms: said.clock_ahead_ms,
        given_out: said.given_out.map(|given_out| given_out.0),
        beyond: said.beyond,
    }
}

impl Preflight {
    pub(super) fn refusals(&self) -> Vec<&Finding> {
        self.findings.iter().filter(|finding| finding.level == Level::Refused).collect()
    }

    /// For people.
    pub(super) fn text(&self, options: &ProtectOptions) -> String {
        let verdict = if self.refusals().is_empty() { "can be done" } else { "REFUSED" };
        let mut text = format!("Failover of {}: {verdict}; nothing was changed yet.\n", options.name);
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<10} {value}");
        };
        line("data", &format!("{} at {}", options.tree().display(), options.directory.display()));
        if let Some(point) = &self.point {
            line("point", &point.words(self.now_unix_ms));
        }
        match self.epoch {
            Some(epoch) => {
                line("epoch", &format!("{epoch}; sources of lower ones are kept out from then on"))
            }
            None if self.goes_on => line(
                "epoch",
                "raised before: an earlier failover is gone on with, and what was written since",
            ),
            None => {}
        }
        for finding in &self.findings {
            let name = if finding.level == Level::Refused { "REFUSED" } else { "note" };
            line(name, &finding.what);
            if !finding.next.is_empty() {
                line("", &finding.next);
            }
        }
        text
    }
}
