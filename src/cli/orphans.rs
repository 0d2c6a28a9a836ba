//! `standin orphans`: what copies have moved aside, beside the replicas of this host's daemons.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::json;

use super::args::Common;
use super::find::{self, no_answer};
use super::status::said;
use super::{Outcome, output};
use crate::control::{
    Answer, Client, Daemon, OrphanStatus, OrphansRequest, PathText, RemoveOrphans, ReplicaOrphans, Role,
    Status, unix_ms,
};
use crate::failure::Failure;
use crate::units::{self, parse_duration};

const UNTOUCHED: &str = "Nothing was removed.";

/// Not all that was meant could be removed.
const LEFT: u8 = 1;

#[derive(Debug, Args)]
pub struct Orphans {
    #[command(subcommand)]
    command: OrphansCommand,
}

#[derive(Debug, Subcommand)]
enum OrphansCommand {
    /// Show what is there: the path that it had, since when, why, and how much room it takes
    List {
        /// Name of a replication set, or the directory of its replica [default: all of this host]
        set: Option<PathBuf>,
    },
    /// Remove it for good, and say what room that has given
    Remove {
        /// Name of a replication set, or the directory of its replica [default: the only one]
        set: Option<PathBuf>,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// All orphans
    #[arg(long)]
    all: bool,
    /// Those that were moved aside longer ago, as in 12h, 30d
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// What had this path in the replica, with all below it; may be repeated
    #[arg(long, value_name = "PATH")]
    path: Vec<PathBuf>,
    /// What a copy under way has moved aside, to make room for it: what the source has of it is sent again
    #[arg(long)]
    waiting: bool,
}

impl Which {
    fn remove(&self) -> RemoveOrphans {
        match self.older_than {
            Some(age) => RemoveOrphans::OlderThan { ms: age.as_millis() as u64 },
            None if self.all => RemoveOrphans::All,
            None if self.waiting => RemoveOrphans::Waiting,
            None => RemoveOrphans::Paths { paths: self.path.iter().cloned().map(PathText).collect() },
        }
    }
}

pub(super) fn run(common: &Common, args: &Orphans) -> Outcome {
    match &args.command {
        OrphansCommand::List { set } => list(common, set.as_deref()),
        OrphansCommand::Remove { set, which } => remove(common, set.as_deref(), which.remove()),
    }
}

fn list(common: &Common, set: Option<&Path>) -> Outcome {
    let mut replicas = Vec::new();
    for (daemon, replica) in replicas_of(common, set)? {
        replicas.extend(daemon.ask(OrphansRequest { replica, remove: None })?);
    }
    if common.json {
        output::json(&json!({ "replicas": replicas }));
    } else {
        output::text(&replicas.iter().map(shown).collect::<String>());
    }
    Ok(0)
}

fn remove(common: &Common, set: Option<&Path>, remove: RemoveOrphans) -> Outcome {
    let mut meant = replicas_of(common, set)?;
    let count: usize = meant.iter().map(|(daemon, replica)| daemon.count(replica.as_deref())).sum();
    let (Some((daemon, replica)), 1) = (meant.pop(), count) else {
        return Err(Failure::new(
            "Several replicas are on this host.",
            UNTOUCHED,
            "Say of which set, or name the replica's directory: `standin orphans list` shows them.",
        ));
    };
    let names_paths = matches!(remove, RemoveOrphans::Paths { .. });
    let replicas = daemon.ask(OrphansRequest { replica, remove: Some(remove) })?;
    let nothing = |replica: &ReplicaOrphans| {
        replica.removed.as_ref().is_none_or(|removed| removed.count == 0 && removed.failed == 0)
    };
    if names_paths && replicas.iter().all(nothing) {
        return Err(Failure::new(
            "No orphan had such a path.",
            UNTOUCHED,
            "Name one as `standin orphans list` shows it.",
        ));
    }
    if common.json {
        output::json(&json!({ "replicas": replicas }));
    } else {
        output::text(&replicas.iter().map(outcome).collect::<String>());
    }
    let failed =
        |replica: &ReplicaOrphans| replica.removed.as_ref().is_some_and(|removed| removed.failed > 0);
    Ok(if replicas.iter().any(failed) { LEFT } else { 0 })
}

/// A daemon that holds replicas.
struct Holder {
    name: String,
    socket: PathBuf,
    /// Names of their sets, and where they are.
    replicas: Vec<(String, PathBuf)>,
}

impl Holder {
    fn of(daemon: &Daemon, status: &Status) -> Holder {
        let replicas = match &status.role {
            Role::Target { target } => target
                .replicas
                .iter()
                .map(|replica| (replica.name.clone(), replica.directory.clone()))
                .collect(),
            Role::Source(source) => {
                let local = source.connections.iter().filter_map(|at| at.target.strip_prefix("local:"));
                local.map(|path| (status.name.clone(), PathBuf::from(path))).collect()
            }
        };
        Holder { name: status.name.clone(), socket: daemon.socket.clone(), replicas }
    }

    /// How many replicas a request is about.
    fn count(&self, replica: Option<&str>) -> usize {
        self.replicas.iter().filter(|(name, _)| replica.is_none_or(|wanted| wanted == name)).count()
    }

    fn ask(&self, request: OrphansRequest) -> Result<Vec<ReplicaOrphans>, Failure> {
        let answer = Client::connect(&self.socket).and_then(|mut client| client.orphans(request));
        answer.map_err(|error| no_answer(&self.name, &error))
    }
}

/// The daemons that are to be asked, and of which of their replicas.
fn replicas_of(common: &Common, set: Option<&Path>) -> Result<Vec<(Holder, Option<String>)>, Failure> {
    let run = common.asked_dir();
    let there = find::all(&run)?;
    let mut holders = Vec::new();
    for daemon in &there {
        match &daemon.answer {
            Answer::Status(status) => holders.push(Holder::of(daemon, status)),
            Answer::Dead => {}
            Answer::None(error) => return Err(no_answer(&daemon.name, error)),
        }
    }
    holders.retain(|holder| !holder.replicas.is_empty());
    let meant: Vec<_> = holders.into_iter().filter_map(|holder| meant(holder, set)).collect();
    if meant.is_empty() { Err(nowhere(&run, set)) } else { Ok(meant) }
}

fn meant(holder: Holder, set: Option<&Path>) -> Option<(Holder, Option<String>)> {
    let Some(set) = set else { return Some((holder, None)) };
    let found = holder.replicas.iter().find(|(name, path)| Path::new(name) == set || path == set);
    let name = found.map(|(name, _)| name.clone())?;
    Some((holder, Some(name)))
}

fn nowhere(run: &Path, set: Option<&Path>) -> Failure {
    let what = match set {
        Some(set) => format!("No daemon that runs on this host holds a replica of {}.", set.display()),
        None => format!("No daemon that holds replicas is running on this host (none in {}).", run.display()),
    };
    Failure::new(
        what,
        UNTOUCHED,
        "Ask on the host that has the replica, while `standin serve` (or the protection with a local: target) runs. \
         Without a daemon the orphans are the directory .REPSET.standin/orphans beside the replica.",
    )
}

fn shown(replica: &ReplicaOrphans) -> String {
    let ReplicaOrphans { name, directory, count, objects, bytes, .. } = replica;
    let mut text = format!("{name}  {}: ", directory.display());
    if *count == 0 {
        text.push_str("no orphans\n");
    } else {
        let (count, objects) = (units::count(*count), units::count(*objects));
        let _ = writeln!(text, "{count} orphans, {objects} objects, {}", units::size(*bytes));
    }
    if replica.waiting_objects > 0 {
        let (objects, room) = (units::count(replica.waiting_objects), units::size(replica.waiting_bytes));
        let _ = writeln!(
            text,
            "   a copy has moved {objects} objects aside so far, {room}: when it has ended they are orphans, or deleted (--orphans). Where their room is \
             needed first: `standin connection stop` on the source, `standin orphans remove --waiting` here, and start \
             it again"
        );
    }
    replica.orphans.iter().for_each(|orphan| text.push_str(&line(orphan)));
    let unnamed = count.saturating_sub(replica.orphans.len() as u64);
    if unnamed > 0 {
        let _ = writeln!(text, "   and {} more", units::count(unnamed));
    }
    text
}

fn line(orphan: &OrphanStatus) -> String {
    let OrphanStatus { path, place, why, since_unix_ms, objects, bytes } = orphan;
    let age = unix_ms(SystemTime::now()).saturating_sub(*since_unix_ms);
    let mut text = format!(
        "   {}  {}, {}, {} ago",
        said(path.as_ref().unwrap_or(place)),
        objects_word(*objects),
        units::size(*bytes),
        units::duration(Duration::from_millis(age))
    );
    if !why.is_empty() {
        let _ = write!(text, ": {why}");
    }
    let _ = writeln!(text, "\n      orphans/{}", place.display());
    text
}

fn outcome(replica: &ReplicaOrphans) -> String {
    let Some(removed) = &replica.removed else { return String::new() };
    let mut text = format!(
        "{}: {} orphans removed, {}; {} are free again.",
        replica.name,
        units::count(removed.count),
        objects_word(removed.objects),
        units::size(removed.bytes)
    );
    if removed.failed > 0 {
        let first = removed.first_failure.as_deref().unwrap_or_default();
        let _ = write!(text, "\n{} could not be removed, first {first}.", objects_word(removed.failed));
    }
    let _ =
        write!(text, "\n{} orphans are left, {}.\n", units::count(replica.count), units::size(replica.bytes));
    if replica.waiting_objects > 0 {
        let (objects, room) = (objects_word(replica.waiting_objects), units::size(replica.waiting_bytes));
        let _ = writeln!(text, "Besides, {objects} of {room} that a copy has moved aside: see --waiting.");
    }
    text
}

fn objects_word(count: u64) -> String {
    format!("{} object{}", units::count(count), if count == 1 { "" } else { "s" })
}
