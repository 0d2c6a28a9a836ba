//! `standin connection`: list, add, start, stop, pause, resume, disconnect, schedule, limit, compression.

mod compression;
mod limit;
mod schedule;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::{
    AddConnection, Asked, Common, Connection, ConnectionCommand, OneConnection, Replication,
    ReplicationCommand, Resume, ScheduleCommand,
};
use super::find::{Found, find_role, no_answer};
use super::status::{age, packets, state_word};
use super::{Outcome, output};
use crate::control::{ChangedConnection, ConnectionChange, ConnectionStatus, RoleName, SourceStatus};
use crate::failure::Failure;
use crate::preflight::{MountTable, resolve};
use crate::units;
use crate::words::{Order, QueueStats, Target};

/// Shortest beginning of a UUID that names a connection, as of a fingerprint.
const UUID_LEN_MIN: usize = 8;

pub(super) fn run(common: &Common, args: &Connection) -> Outcome {
    let (change, one) = match &args.command {
        ConnectionCommand::List { set } => return list(common, set.as_deref()),
        ConnectionCommand::Add(one) => return add(common, one),
        ConnectionCommand::Start(one) => (ConnectionChange::Start, one),
        ConnectionCommand::Stop(one) => (ConnectionChange::Stop, one),
        ConnectionCommand::Pause(one) => (ConnectionChange::Pause, one),
        ConnectionCommand::Resume(Resume { one, accept_deletes: false }) => (ConnectionChange::Resume, one),
        ConnectionCommand::Resume(Resume { one, accept_deletes: true }) => {
            (ConnectionChange::AcceptDeletes, one)
        }
        ConnectionCommand::Disconnect(one) => (ConnectionChange::Disconnect, one),
        ConnectionCommand::Limit { what, one } => match what {
            Asked::Show => return show(common, one, limit::SHOWN),
            Asked::Change(order) => (ConnectionChange::Limit { order: order.clone() }, one),
        },
        ConnectionCommand::Compression { what, one } => match what {
            Asked::Show => return show(common, one, compression::SHOWN),
            Asked::Change(order) => (ConnectionChange::Compression { order: *order }, one),
        },
        ConnectionCommand::Schedule { command } => match command {
            ScheduleCommand::Show(one) => return show(common, one, schedule::SHOWN),
            ScheduleCommand::Set { plan, one } => (schedule::change(Order::Set(*plan)), one),
            ScheduleCommand::Clear(one) => (schedule::change(Order::Clear), one),
            ScheduleCommand::On(one) => (schedule::change(Order::On), one),
            ScheduleCommand::Off(one) => (schedule::change(Order::Off), one),
        },
    };
    change_one(common, change, one)
}

/// `standin replication`.
pub(super) fn replication(common: &Common, args: &Replication) -> Outcome {
    let (change, one) = match &args.command {
        ReplicationCommand::Start(one) => (ConnectionChange::StartReplication, one),
        ReplicationCommand::Stop(one) => (ConnectionChange::StopReplication, one),
    };
    change_one(common, change, one)
}

fn change_one(common: &Common, change: ConnectionChange, one: &OneConnection) -> Outcome {
    let (set, which) = meant(one)?;
    let found = find_role(common, set.as_deref(), RoleName::Source)?;
    let changed =
        found.client()?.connection(change, which).map_err(|error| no_answer(&name(&found), &error))?;
    if common.json {
        output::json(&changed);
    } else {
        output::text(&text(&changed));
    }
    Ok(0)
}

/// Another target for what is protected already.
fn add(common: &Common, args: &AddConnection) -> Outcome {
    let target = absolute(&args.target.to_string())?;
    let found = find_role(common, args.set.as_deref(), RoleName::Source)?;
    let change = ConnectionChange::Add { target, adopt: args.adopt };
    let changed =
        found.client()?.connection(change, None).map_err(|error| no_answer(&name(&found), &error))?;
    if common.json {
        output::json(&changed);
    } else {
        output::text(&text(&changed));
    }
    Ok(0)
}

fn added(label: &str, connection: &ConnectionStatus) -> String {
    let now = match connection.link {
        Some(_) => "It is copied to while programs work; `standin status` says how far that is.".to_owned(),
        None => format!("It is {}: {}.", state_word(connection.state), connection.reason),
    };
    format!(
        "{label} is there, and stays over a restart: what changes is sent there, too. {now} `standin connection \
         disconnect {}` takes it away.",
        connection.id
    )
}

/// What one command shows of a connection: the JSON member beside its id and target, and the words.
struct Shown {
    member: &'static str,
    value: fn(&ConnectionStatus) -> serde_json::Value,
    text: fn(&ConnectionStatus) -> String,
}

fn show(common: &Common, one: &OneConnection, shown: Shown) -> Outcome {
    let (set, which) = meant(one)?;
    let status = find_role(common, set.as_deref(), RoleName::Source)?.status;
    let connections = chosen(status.connections(), which.as_deref())?;
    if common.json {
        let shown = connections.iter().map(|connection| {
            json!({ "id": connection.id, "target": connection.target, shown.member: (shown.value)(connection) })
        });
        output::json(&json!({ "connections": shown.collect::<Vec<_>>() }));
    } else {
        let texts: Vec<String> = connections.iter().map(|connection| (shown.text)(connection)).collect();
        output::text(&texts.join("\n"));
    }
    Ok(0)
}

fn name(found: &Found) -> String {
    found.status.name.clone()
}

fn list(common: &Common, set: Option<&Path>) -> Outcome {
    let status = find_role(common, set, RoleName::Source)?.status;
    let (name, connections) = (&status.name, status.connections());
    if common.json {
        let bits = status.source().map(SourceStatus::state_bits).unwrap_or_default();
        output::json(&json!({ "name": name, "connections": connections, "state_bits": bits }));
    } else if connections.is_empty() {
        output::text(&format!("{name} has no connection: nothing is replicated."));
    } else {
        output::text(
            &connections.iter().map(|connection| line(connection, status.now_unix_ms)).collect::<String>(),
        );
    }
    Ok(0)
}

/// One connection on a line of its own.
pub(super) fn line(connection: &ConnectionStatus, now: u64) -> String {
    let reason = match connection.reason.as_str() {
        "" => String::new(),
        reason => format!("  ({reason})"),
    };
    format!(
        "{}  {}  {}  {} for {}{reason}\n",
        connection.id,
        connection.uuid,
        connection.target,
        state_word(connection.state),
        age(connection.since_unix_ms, now)
    )
}

/// Which daemon, and which of its connections: in this order where both are named.
fn meant(one: &OneConnection) -> Result<(Option<PathBuf>, Option<String>), Failure> {
    let (set, which) = match &one.words[..] {
        [] => (None, None),
        [word] if names_a_connection(word) => (None, Some(word)),
        [word] => (Some(word), None),
        [set, which, ..] => (Some(set), Some(which)),
    };
    Ok((set.map(PathBuf::from), which.map(|which| absolute(which)).transpose()?))
}

/// A number, a UUID or a target; anything else is a set or a directory.
fn names_a_connection(word: &str) -> bool {
    let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let is_uuid = word.len() >= UUID_LEN_MIN && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number || is_uuid || word.parse::<Target>().is_ok()
}

/// The connection that is named, as the daemon knows it.
pub(super) fn named(which: Option<&String>) -> Result<Option<String>, Failure> {
    which.map(|which| absolute(which)).transpose()
}

/// `local:PATH` with an absolute path, as the daemon knows it.
fn absolute(which: &str) -> Result<String, Failure> {
    let Ok(Target::Local(path)) = which.parse() else { return Ok(which.to_owned()) };
    let resolved = MountTable::read().and_then(|mounts| resolve(&path, &mounts));
    let resolved = resolved.map_err(|error| {
        let what = format!("{} cannot be reached: {error}.", path.display());
        Failure::new(what, "Nothing was changed.", "Check the path, or name the connection by its number.")
    })?;
    Ok(Target::Local(resolved).to_string())
}

/// Those that are named, of a daemon's.
fn chosen<'a>(
    connections: &'a [ConnectionStatus],
    which: Option<&str>,
) -> Result<Vec<&'a ConnectionStatus>, Failure> {
    let fits = |connection: &&ConnectionStatus| {
        which.is_none_or(|which| {
            connection.id.to_string() == which
                || which.len() >= UUID_LEN_MIN && connection.uuid.starts_with(which)
                || connection.target == which
        })
    };
    let chosen: Vec<_> = connections.iter().filter(fits).collect();
    match (chosen.is_empty(), which) {
        (true, Some(which)) => Err(Failure::new(
            format!("There is no connection '{which}'."),
            "Nothing was changed.",
            "`standin connection list` shows them.",
        )),
        (true, None) | (false, _) => Ok(chosen),
    }
}

/// What was done, and what it means for the changes that come.
pub(super) fn text(changed: &ChangedConnection) -> String {
    let ChangedConnection { change, connection, queue } = changed;
    let label = format!("Connection {} ({})", connection.id, connection.target);
    let mut text = match change {
        ConnectionChange::Add { .. } => return added(&label, connection),
        ConnectionChange::Start
        | ConnectionChange::StartReplication
        | ConnectionChange::Resume
        | ConnectionChange::AcceptDeletes => {
            return format!("{label} is {}: {}.", state_word(connection.state), connection.reason);
        }
        ConnectionChange::Disconnect => {
            return format!(
                "{label} is gone: nothing is sent there any more, and nothing is queued for it. The replica \
                 stays as it is; a later start with this target copies what differs."
            );
        }
        ConnectionChange::StartMirror { .. }
        | ConnectionChange::Merge
        | ConnectionChange::StopMirror { .. }
        | ConnectionChange::PauseMirror
        | ConnectionChange::ResumeMirror { .. } => {
            return super::mirror::text(change.clone(), &label, connection.data);
        }
        ConnectionChange::Schedule { .. } => return schedule::text(connection),
        ConnectionChange::Limit { .. } => return limit::text(connection),
        ConnectionChange::Compression { .. } => return compression::text(connection),
        ConnectionChange::StopReplication => {
            return format!(
                "{label}: replication is stopped: changes are marked, and not queued; no room is held for them, and \
                 programs never wait. `standin replication start {}` has a copy bring what was changed.",
                connection.id
            );
        }
        ConnectionChange::Stop => format!("{label} is {}.", state_word(connection.state)),
        ConnectionChange::Pause => format!("{label} is {}: nothing is sent.", state_word(connection.state)),
    };
    if connection.needs_copy {
        let _ = write!(text, " {}.", connection.reason);
        return text;
    }
    let _ = write!(
        text,
        " Changes are queued: {} so far, room for {} more. If the queue gets full, programs go on, and this \
         target is let go, and a copy brings it into line when it is started again.",
        packets(connection.queued.packets),
        room(queue)
    );
    text
}

/// What the queue still takes.
pub(super) fn room(queue: &QueueStats) -> String {
    units::size(queue.room())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::{sample_connection, sample_source};

    #[track_caller]
    fn check(words: &[&str], set: Option<&str>, which: Option<&str>) {
        let one = OneConnection { words: words.iter().map(|word| word.to_string()).collect() };
        let found = meant(&one).unwrap();
        assert_eq!(found, (set.map(PathBuf::from), which.map(str::to_owned)), "{words:?}");
    }

    #[test]
    fn one_word_is_a_connection_or_a_set() {
        check(&[], None, None);
        check(&["2"], None, Some("2"));
        check(&["0123abcd"], None, Some("0123abcd"));
        check(&["null:"], None, Some("null:"));
        check(&["standin://host:7447/web"], None, Some("standin://host:7447/web"));
        check(&["local:/usr/../usr"], None, Some("local:/usr"));
        check(&["web"], Some("web"), None);
        check(&["/srv/web"], Some("/srv/web"), None);
        check(&["./2"], Some("./2"), None);
        check(&["2", "1"], Some("2"), Some("1"));
        check(&["web", "local:/usr"], Some("web"), Some("local:/usr"));
    }

    #[test]
    fn a_stop_says_where_changes_go() {
        let queue = QueueStats { bytes: 28 << 20, ..sample_source().queue };
        let mut connection = sample_connection();
        connection.state = crate::control::ConnectionState::Stopped;
        connection.queued.packets = 7;
        let mut changed = ChangedConnection { change: ConnectionChange::Stop, connection, queue };
        let said = text(&changed);
        for part in ["is stopped", "7 packets so far", "room for 100 MiB more", "a copy brings it into line"]
        {
            assert!(said.contains(part), "no '{part}' in: {said}");
        }
        changed.connection.needs_copy = true;
        changed.connection.reason = "its queue was full".into();
        assert!(text(&changed).ends_with("is stopped. its queue was full."), "{}", text(&changed));
    }
}
