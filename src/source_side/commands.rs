//! `standin connection start|stop|pause|resume|disconnect`: what a person wants of one connection.

use std::sync::Arc;
use std::time::SystemTime;

use crossbeam_channel::Receiver;

use super::adding;
use super::connection::{Connection, MirrorCommand, Report};
use super::desk::Desk;
use super::director::{Event, Question};
use super::ground::Ground;
use super::part;
use super::status::connection_status;
use crate::connection::{Command, NotNow};
use crate::control::{
    ChangedConnection, ConnectionChange, ConnectionState, ConnectionStatus, NoAnswer, Phase, ask, unix_ms,
};
use crate::failure::Failure;
use crate::limits::CONTROL_ANSWER;
use crate::sys::utc_offset;
use crate::words::{Compression, LimitPlan, Order, SchedulePlan, Target};

const UNTOUCHED: &str = "Nothing was changed.";

/// A change that its connection was told of.
pub struct Begun {
    connection: Arc<Connection>,
    /// As it was.
    before: ConnectionStatus,
    /// What the connection says to it; `None`: there is nobody to ask.
    outcome: Option<Receiver<Result<(), NotNow>>>,
}

/// What a person asks for at the desk: returns when it is so. The director chooses the connection
/// and tells it; how long that takes only this caller waits.
pub fn change(
    desk: &Desk,
    change: ConnectionChange,
    which: Option<&str>,
) -> Result<ChangedConnection, Failure> {
    if let ConnectionChange::Add { target, adopt } = change {
        return adding::add(desk, &target, adopt);
    }
    let change = with_part(desk, change)?;
    let which = which.map(str::to_owned);
    let question = |answer| Event::Asked(Question::Change { change: change.clone(), which, answer });
    let begun = ask(&desk.director, CONTROL_ANSWER, question)?.within(CONTROL_ANSWER)??;
    let Begun { connection, before, outcome } = begun;
    let outcome = outcome.map_or(Ok(()), |outcome| outcome.recv().unwrap_or(Err(NotNow::Gone)));
    outcome.map_err(|why| not_now(connection.id, why))?;
    let connection = match change {
        ConnectionChange::Disconnect => {
            forget(desk, connection.id)?;
            connection.end();
            before
        }
        ConnectionChange::Add { .. }
        | ConnectionChange::Start
        | ConnectionChange::Stop
        | ConnectionChange::StopReplication
        | ConnectionChange::StartReplication
        | ConnectionChange::Pause
        | ConnectionChange::Resume
        | ConnectionChange::AcceptDeletes
        | ConnectionChange::StartMirror { .. }
        | ConnectionChange::Merge
        | ConnectionChange::StopMirror { .. }
        | ConnectionChange::PauseMirror
        | ConnectionChange::ResumeMirror { .. }
        | ConnectionChange::Schedule { .. }
        | ConnectionChange::Limit { .. }
        | ConnectionChange::Compression { .. } => {
            keep(desk);
            connection_status(&connection, &desk.ground)
        }
    };
    Ok(ChangedConnection { change, connection, queue: desk.ground.queue.stats() })
}

/// The path of a part is below the directory from here on, and there.
fn with_part(desk: &Desk, change: ConnectionChange) -> Result<ConnectionChange, Failure> {
    let ConnectionChange::StartMirror { mode, hash, rate, orphans, path: Some(path) } = change else {
        return Ok(change);
    };
    let path = part::find(&desk.ground, &path)?;
    Ok(ConnectionChange::StartMirror { mode, hash, rate, orphans, path })
}

/// What a person wants stays so over a restart from here on, if the disk of the state takes it in time: it
/// is done whether it does or not.
fn keep(desk: &Desk) {
    let question = |answer| Event::Asked(Question::Keep { answer });
    let keeping =
        ask(&desk.director, CONTROL_ANSWER, question).and_then(|asked| asked.within(CONTROL_ANSWER));
    if let Ok(keeping) = keeping {
        let _ = keeping.recv_timeout(CONTROL_ANSWER);
    }
}

pub(super) fn forget(desk: &Desk, id: u32) -> Result<(), NoAnswer> {
    let question = |answer| Event::Asked(Question::Forget { id, answer });
    ask(&desk.director, CONTROL_ANSWER, question)?.within(CONTROL_ANSWER)
}

/// The director's part: tells the connection that is meant.
pub fn begin(
    ground: &Ground,
    phase: Phase,
    connections: &[Arc<Connection>],
    change: ConnectionChange,
    which: Option<&str>,
) -> Result<Begun, Failure> {
    if phase != Phase::Serving {
        let (now, next) = match phase {
            Phase::Starting => ("is starting", "Wait until it says `ready`."),
            Phase::Serving | Phase::Draining | Phase::Stopping | Phase::Ending => ("is stopping", ""),
        };
        let directory = ground.options.directory.display();
        return Err(Failure::new(format!("The daemon of {directory} {now}."), UNTOUCHED, next));
    }
    let connection = meant(connections, which)?;
    let before = connection_status(&connection, ground);
    let outcome = match (connection.is_null(), command(change)) {
        (true, Wanted::Connection(Command::Disconnect)) => None,
        (true, _) => {
            return Err(Failure::new(
                "The target null: captures and sends nothing: there is nothing to start or stop.",
                UNTOUCHED,
                "`standin connection disconnect` takes it away.",
            ));
        }
        (false, Wanted::Connection(command)) => Some(connection.command(command)),
        (false, Wanted::Copies(command)) => Some(connection.mirror(command)),
        (false, Wanted::Limit(_) | Wanted::Compression(_))
            if matches!(connection.target, Target::Local(_)) =>
        {
            return Err(Failure::new(
                format!("The target {} is on this host: there is no network between.", connection.target),
                UNTOUCHED,
                "`standin mirror resume --rate` bounds what its copies read and write.",
            ));
        }
        (false, Wanted::Limit(order)) => Some(connection.limit(order)),
        (false, Wanted::Compression(order)) => Some(connection.compression(order)),
        (false, Wanted::Schedule(order)) => Some(connection.schedule(order)),
    };
    Ok(Begun { connection, before, outcome })
}

/// The connection of this number, UUID (or its beginning) or target.
pub fn meant(connections: &[Arc<Connection>], which: Option<&str>) -> Result<Arc<Connection>, Failure> {
    let fits = |connection: &&Arc<Connection>| {
        which.is_none_or(|which| {
            connection.id.to_string() == which
                || which.len() >= 8 && connection.uuid.starts_with(which)
                || connection.target.to_string() == which
        })
    };
    let mut meant = connections.iter().filter(fits);
    match (meant.next(), meant.next()) {
        (Some(only), None) => Ok(only.clone()),
        (None, _) if connections.is_empty() => Err(none_left()),
        (None, _) => Err(Failure::new(
            format!("There is no connection '{}'.", which.unwrap_or_default()),
            UNTOUCHED,
            format!("These are there:{}", lines(connections)),
        )),
        (Some(_), Some(_)) => Err(Failure::new(
            format!("Several connections are there:{}", lines(connections)),
            UNTOUCHED,
            "Say which one is meant, by its number, UUID or target.",
        )),
    }
}

/// What a person has to do before anything comes through to a connection that is held back.
pub fn way_on(id: u32, report: &Report) -> String {
    match report.held_back() {
        Some(why) => {
            let command = match report.state {
                ConnectionState::Stopped => format!("connection start {id}"),
                ConnectionState::Paused if report.asks_deletes => {
                    return format!(
                        "it waits with deletions for a person's word: `standin connection resume {id} --accept-deletes` \
                         lets them go"
                    );
                }
                ConnectionState::Paused => format!("connection resume {id}"),
                ConnectionState::Scheduled | ConnectionState::ScheduledAfterError => {
                    return waits_for_schedule(id, report);
                }
                ConnectionState::Started | ConnectionState::Error => match report.kept.copy_paused {
                    true => format!("mirror resume --connection {id}"),
                    false => format!("mirror start --connection {id}"),
                },
            };
            format!("{why}: `standin {command}`")
        }
        None => report.reason.clone(),
    }
}

fn waits_for_schedule(id: u32, report: &Report) -> String {
    let next = report.schedule.as_ref().map(|of| of.scheduler.outlook(now_s(), &utc_offset).next);
    let next = next.filter(|next| !next.is_empty()).map(|next| format!("; {next}")).unwrap_or_default();
    format!("it waits for its schedule{next}; `standin connection start {id}` begins a session now")
}

fn now_s() -> i64 {
    (unix_ms(SystemTime::now()) / 1000) as i64
}

pub fn none_left() -> Failure {
    Failure::new(
        "There is no connection: nothing is replicated.",
        UNTOUCHED,
        "`standin connection add TARGET` adds one.",
    )
}

/// What a change is about.
enum Wanted {
    Connection(Command),
    Copies(MirrorCommand),
    Schedule(Order<SchedulePlan>),
    Limit(Order<LimitPlan>),
    Compression(Order<Compression>),
}

fn command(change: ConnectionChange) -> Wanted {
    match change {
        ConnectionChange::Add { target, .. } => panic!("no connection is told to add {target}"),
        ConnectionChange::Start => Wanted::Connection(Command::Start),
        ConnectionChange::Stop => Wanted::Connection(Command::Stop),
        ConnectionChange::StopReplication => Wanted::Connection(Command::StopReplication),
        ConnectionChange::StartReplication => Wanted::Connection(Command::StartReplication),
        ConnectionChange::Pause => Wanted::Connection(Command::Pause),
        ConnectionChange::Resume => Wanted::Connection(Command::Resume),
        ConnectionChange::AcceptDeletes => Wanted::Connection(Command::AcceptDeletes),
        ConnectionChange::Disconnect => Wanted::Connection(Command::Disconnect),
        ConnectionChange::StartMirror { mode, hash, rate, orphans, path } => {
            Wanted::Copies(MirrorCommand::Start { mode, hash, rate, orphans, part: path })
        }
        ConnectionChange::Merge => Wanted::Copies(MirrorCommand::Merge),
        ConnectionChange::StopMirror { from_scratch } => Wanted::Copies(MirrorCommand::Stop { from_scratch }),
        ConnectionChange::PauseMirror => Wanted::Copies(MirrorCommand::Pause),
        ConnectionChange::ResumeMirror { rate } => Wanted::Copies(MirrorCommand::Resume { rate }),
        ConnectionChange::Schedule { order } => Wanted::Schedule(order),
        ConnectionChange::Limit { order } => Wanted::Limit(order),
        ConnectionChange::Compression { order } => Wanted::Compression(order),
    }
}

fn lines(connections: &[Arc<Connection>]) -> String {
    let line = |connection: &Arc<Connection>| {
        format!("\n    {}  {}  {}", connection.id, connection.uuid, connection.target)
    };
    connections.iter().map(line).collect()
}

const MISSING: &str =
    "waits before a copy for a person's word: much of what its target has is gone from the directory";

fn word_on_missing(id: u32) -> String {
    format!(
        "`standin status` says how many files. `standin connection resume {id} --accept-deletes` has them go there, too, \
         aside; where they were put back, `standin connection resume {id}` counts again."
    )
}

fn not_now(id: u32, why: NotNow) -> Failure {
    let (what, next) = match why {
        NotNow::Stopped => ("is stopped".to_owned(), format!("`standin connection start {id}` starts it.")),
        NotNow::Scheduled => (
            "waits for its schedule and has no network connection".to_owned(),
            format!("`standin connection stop {id}` keeps it from starting."),
        ),
        NotNow::OutsideWindow => (
            "is outside of the window of its schedule, and nothing is sent there".to_owned(),
            format!(
                "`standin connection schedule show {id}` says when it opens; `standin connection schedule off {id}` \
                 lets it run whatever its schedule says."
            ),
        ),
        NotNow::Paused => (
            "is paused".to_owned(),
            format!(
                "`standin connection resume {id}` lets it go on; with `--accept-deletes` where `standin status` says \
                 that many deletions wait for a word."
            ),
        ),
        NotNow::NotConnected => (
            "has no network connection to its target".to_owned(),
            "Where its copies were not stopped it is copied to by itself when the target is back; else give this \
             command again then."
                .into(),
        ),
        NotNow::MirrorRuns => (
            "is being copied to".to_owned(),
            format!("`standin mirror stop --connection {id}` gives that copy up."),
        ),
        NotNow::NeedsAll => (
            "has a replica that is not good: a part of it alone does not make it so".to_owned(),
            format!("`standin mirror start --connection {id}`, without a path, brings all of it into line."),
        ),
        NotNow::Verifies => (
            "is being verified".to_owned(),
            "Try again when that is over: `standin status` says how far it is.".into(),
        ),
        NotNow::SendsLeft => (
            "is still sent what was queued before the last stop".to_owned(),
            "Try again when that is there: `standin status` says how much is queued.".into(),
        ),
        NotNow::NeedsFull(why) => (
            format!("has nothing that says what is in doubt there: {why}"),
            "`standin merge --full` compares everything, as `standin mirror start` does.".into(),
        ),
        NotNow::NothingInDoubt => (
            "has nothing in doubt: its target has all that is marked on its disk".to_owned(),
            "`standin merge --full` compares everything, as `standin mirror start` does.".into(),
        ),
        NotNow::NoMirror => ("is not being copied to, and need not be".to_owned(), String::new()),
        NotNow::Deletes => (
            "waits with deletions for a person's word".to_owned(),
            format!(
                "`standin status` says how many files would go. `standin connection resume {id} --accept-deletes` \
                 lets them go; to keep the replica as it is, stop the protection."
            ),
        ),
        NotNow::Missing => (MISSING.to_owned(), word_on_missing(id)),
        NotNow::Gone => {
            ("is not there any more".to_owned(), "`standin connection list` shows the rest.".into())
        }
    };
    Failure::new(format!("Connection {id} {what}."), UNTOUCHED, next)
}
