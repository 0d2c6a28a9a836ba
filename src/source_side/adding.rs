//! `standin connection add`: another target while the directory is protected.
//!
//! ```text
//!  desk:      checks ── enlist ── opens, dials ── join ── waits for its first answer ── add ── there
//!  director:              └ what is known of it    └ copies may begin              └ on disk: over a restart, too
//! ```
//! A target that has never answered is not taken in, as at a start. Killed before the end it is not there at the next
//! start; what it was copied to is found by the next `add`.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::commands::forget;
use super::connection::{Connection, Report, Watch};
use super::desk::Desk;
use super::director::{Event, Question};
use super::ground::Ground;
use super::joining::{Enlisted, route};
use super::record::SetRecord;
use super::status::connection_status;
use super::terms::Terms;
use crate::connection::FaultKind;
use crate::control::{ChangedConnection, ConnectionChange, Phase, ask};
use crate::failure::Failure;
use crate::limits::{CONNECT_PATIENCE, CONNECTIONS_MAX, CONTROL_ANSWER};
use crate::link::Identity;
use crate::preflight;
use crate::words::{ProtectOptions, Target};

const UNTOUCHED: &str = "It is no target; the protection and the other connections go on as before.";

/// Returns when the target has answered, or waits for its schedule.
///
/// Errors: why it is not a target of this directory; all is as it was.
pub fn add(desk: &Desk, target: &str, adopt: bool) -> Result<ChangedConnection, Failure> {
    let change = ConnectionChange::Add { target: target.to_owned(), adopt };
    let connection = try_to_add(desk, target, adopt)
        .map_err(|failure| Failure { untouched: UNTOUCHED.into(), ..failure })?;
    let connection = connection_status(&connection, &desk.ground);
    Ok(ChangedConnection { change, connection, queue: desk.ground.queue.stats() })
}

fn try_to_add(desk: &Desk, target: &str, adopt: bool) -> Result<Arc<Connection>, Failure> {
    let target: Target = target.parse().map_err(|error| {
        Failure::new(format!("{error}."), UNTOUCHED, "standin://HOST:PORT/REPSET, or local:PATH.")
    })?;
    // One after the other: each looks at the places of those before it.
    let _one = desk.ground.joining.one.lock();
    let options = with_target(desk, &target, adopt);
    check(&desk.ground, &options, &target)?;
    let question = |answer| Event::Asked(Question::Enlist { target: target.clone(), answer });
    let known = ask(&desk.director, CONTROL_ANSWER, question)?.within(CONTROL_ANSWER)??;
    let connection = Arc::new(open(&desk.ground, &options, &target, known)?);
    if let Err(failure) = take_in(desk, &connection) {
        let _ = forget(desk, connection.id);
        connection.end();
        return Err(failure);
    }
    Ok(connection)
}

/// As the daemon would have been started.
fn with_target(desk: &Desk, target: &Target, adopt: bool) -> ProtectOptions {
    let posted = desk.board.read();
    let targets = posted.connections.iter().map(|connection| connection.target.clone());
    let targets = targets.filter(|other| other != target).chain([target.clone()]).collect();
    ProtectOptions { targets, adopt, ..desk.ground.options.clone() }
}

fn check(ground: &Ground, options: &ProtectOptions, target: &Target) -> Result<(), Failure> {
    if *target == Target::Null {
        return Err(Failure::new(
            "The target null: sends nothing: there is nothing to add.",
            UNTOUCHED,
            "`standin size` measures what a target would get.",
        ));
    }
    preflight::check_addition(options, target)?;
    match target {
        Target::Local(replica) => refuse_inside(ground, replica),
        Target::Null | Target::Remote { .. } => Ok(()),
    }
}

/// Paths say nothing of what lies under the mount: another name of the protected directory, by a bind mount, does
/// not lead to it.
fn refuse_inside(ground: &Ground, replica: &Path) -> Result<(), Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::new(
            format!("{} cannot be looked at: {error}.", replica.display()),
            UNTOUCHED,
            "Mend this and try again.",
        )
    };
    let tree = rustix::fs::fstat(&ground.backing).map_err(|error| unreadable(error.into()))?;
    let is_tree = |above: &Path| {
        std::fs::metadata(above).is_ok_and(|meta| (meta.dev(), meta.ino()) == (tree.st_dev, tree.st_ino))
    };
    match preflight::existing_ancestor(replica).ancestors().find(|above| is_tree(above)) {
        None => Ok(()),
        Some(above) => Err(Failure::new(
            format!(
                "{} lies in the protected directory, which is {}, too.",
                replica.display(),
                above.display()
            ),
            UNTOUCHED,
            "Choose a place outside of it.",
        )),
    }
}

/// The director's part: nothing is changed by it.
pub fn enlist(
    ground: &Ground,
    phase: Phase,
    connections: &[Arc<Connection>],
    record: &SetRecord,
    target: &Target,
) -> Result<Enlisted, Failure> {
    if phase != Phase::Serving {
        return Err(not_served(ground));
    }
    if let Some(there) = connections.iter().find(|connection| connection.target == *target) {
        return Err(Failure::new(
            format!("{target} is a target already, by connection {}.", there.id),
            UNTOUCHED,
            "`standin status` says how it is.",
        ));
    }
    if connections.len() >= CONNECTIONS_MAX {
        return Err(Failure::new(
            format!("{} connections are as many as there can be.", connections.len()),
            UNTOUCHED,
            "`standin connection disconnect` takes one away.",
        ));
    }
    let last = connections.iter().map(|connection| connection.id).max().unwrap_or_default();
    let id = ground.joining.last_id.fetch_max(last, Ordering::Relaxed).max(last) + 1;
    ground.joining.last_id.store(id, Ordering::Relaxed);
    Ok(Enlisted::named(id, &mut record.clone(), target))
}

/// It dials from here on.
fn open(
    ground: &Ground,
    options: &ProtectOptions,
    target: &Target,
    known: Enlisted,
) -> Result<Connection, Failure> {
    let joining = &ground.joining;
    let identity = match target {
        Target::Remote { .. } => {
            Some(Arc::new(Identity::load_or_create(&options.state).map_err(|error| {
                Failure::new(
                    format!("This host's key in {} cannot be used: {error}.", options.state.display()),
                    UNTOUCHED,
                    "Mend this and try again.",
                )
            })?))
        }
        Target::Local(_) | Target::Null => None,
    };
    if let Some(own) = &identity {
        ground.fingerprint.get_or_init(|| own.fingerprint());
    }
    let (route, embedded) = route(options, joining.set, &known, target, identity.as_ref())?;
    let settings = joining.settings(options, target, known, terms(ground), watch(ground));
    joining.start(settings, route, embedded)
}

fn terms(ground: &Ground) -> Terms {
    Terms::of(&ground.options, &ground.followed.terms())
}

/// Syncs of programs wait for it as soon as it is in line, and not for its first copy.
fn watch(ground: &Ground) -> Option<Watch> {
    let durability = ground.joining.durability.clone()?;
    let place = durability.add();
    Some(Box::new(move |standing| durability.stands(place, standing)))
}

/// From a connection that dials to one that stays.
fn take_in(desk: &Desk, connection: &Arc<Connection>) -> Result<(), Failure> {
    let question = |answer| Event::Asked(Question::Join { connection: connection.clone(), answer });
    if !ask(&desk.director, CONTROL_ANSWER, question)?.within(CONTROL_ANSWER)? {
        return Err(not_served(&desk.ground));
    }
    // They may have changed since it was opened.
    connection.follow(terms(&desk.ground));
    let answered = first_answer(connection)?;
    let (target, uuid) = (connection.target.clone(), connection.uuid.clone());
    let question = |answer| Event::Asked(Question::Add { target, uuid, answered, answer });
    let noting = ask(&desk.director, CONTROL_ANSWER, question)?.within(CONTROL_ANSWER)?;
    // It is a target whether the disk takes that or not.
    let _ = noting.recv_timeout(CONTROL_ANSWER);
    Ok(())
}

/// Whether it has answered; `false`: it waits for its schedule.
fn first_answer(connection: &Connection) -> Result<bool, Failure> {
    let target = &connection.target;
    let is_refused = |report: &Report| matches!(report.fault, Some(FaultKind::Refused | FaultKind::KeptOut));
    let is_decided = |report: &Report| {
        report.connected.is_some() || report.state.waits_for_schedule() || is_refused(report)
    };
    let report = connection.wait(Instant::now() + CONNECT_PATIENCE, is_decided);
    match (report.connected.is_some(), is_refused(&report)) {
        (true, _) => Ok(true),
        (false, true) => Err(Failure::new(
            format!("The target {target} does not take this source: {}.", report.reason),
            UNTOUCHED,
            "Do what it says, and add it again.",
        )),
        (false, false) if report.state.waits_for_schedule() => Ok(false),
        (false, false) => Err(Failure::new(
            format!("The target {target} cannot be reached: {}.", report.reason),
            UNTOUCHED,
            "Mend the connection, and add it again.",
        )),
    }
}

fn not_served(ground: &Ground) -> Failure {
    Failure::new(
        format!("The daemon of {} does not serve at this moment.", ground.options.directory.display()),
        UNTOUCHED,
        "Wait until `standin status` says that it serves.",
    )
}
