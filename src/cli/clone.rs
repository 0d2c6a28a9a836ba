//! `standin clone`: a replica of this host as of one moment, as a directory of its own.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::json;

use super::args::{Common, Rest};
use super::find::{self, no_answer};
use super::{Outcome, output};
use crate::control::{
    Answer, Client, CloneEnd, CloneRequest, CloneStatus, ClonesRequest, Daemon, ReplicaClones, Role, Status,
    unix_ms,
};
use crate::failure::Failure;
use crate::units::{self, parse_size};

mod rotate;

const UNTOUCHED: &str = "Nothing was changed.";

/// How often it is asked how far a copy is.
const ASKED_EVERY: Duration = Duration::from_millis(300);

/// It failed.
const FAILED: u8 = 1;

#[derive(Debug, Args)]
pub struct Clones {
    #[command(subcommand)]
    command: CloneCommand,
}

#[derive(Debug, Subcommand)]
enum CloneCommand {
    /// Begin one: the replica as of this moment becomes a directory, while packets go on changing the replica
    Start(Start),
    /// Copy one that was begun without a directory (--lazy), or that keeps the last good state of a bad replica
    Copy(Copy),
    /// Make a further one of a series, wait until it is complete, and remove the old ones: for a timer
    Rotate(rotate::Rotate),
    /// Show state, position, age, progress and room of each
    List {
        /// Name of a replication set, or the directory of its replica [default: all of this host]
        set: Option<PathBuf>,
    },
    /// End one and give its room back; a complete one stays as an ordinary directory
    Stop(Stop),
    #[command(hide = true)]
    Activate(Rest),
    #[command(hide = true)]
    Restart(Rest),
    #[command(hide = true)]
    Restore(Rest),
    #[command(hide = true)]
    Swap(Rest),
}

#[derive(Debug, Args)]
struct Start {
    /// Name of the clone
    name: String,
    /// The directory that it becomes, which is not there yet: for a target that `standin serve` holds below its --root
    #[arg(long, value_name = "DIR", required_unless_present = "lazy")]
    to: Option<PathBuf>,
    /// Preserve what changes from now on, and copy nothing: `standin clone copy` makes it a directory
    #[arg(long, conflicts_with_all = ["to", "wait"])]
    lazy: bool,
    /// Name of a replication set, or the directory of its replica [default: the only one]
    #[arg(long, value_name = "SET")]
    set: Option<PathBuf>,
    /// Also of a replica that is no consistent state of its source
    #[arg(long)]
    accept_bad_data: bool,
    /// What is preserved for it may take this room, as in 10G; then it fails [default: while the disk has some]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    area_limit: Option<u64>,
    /// Return when it is complete, or has failed
    #[arg(long)]
    wait: bool,
    #[arg(long, hide = true)]
    hold: bool,
    #[arg(long, hide = true, default_value = "copy")]
    kind: String,
}

#[derive(Debug, Args)]
struct Copy {
    /// Name of the clone
    name: String,
    /// The directory that it becomes, which is not there yet: for a target that `standin serve` holds below its --root
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Name of a replication set, or the directory of its replica [default: the only one with such a clone]
    #[arg(long, value_name = "SET")]
    set: Option<PathBuf>,
    /// Return when it is complete, or has failed
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Args)]
struct Stop {
    /// Name of the clone
    name: String,
    /// Name of a replication set, or the directory of its replica [default: the only one with such a clone]
    #[arg(long, value_name = "SET")]
    set: Option<PathBuf>,
    /// Also one that is not complete: what was copied is removed
    #[arg(long)]
    force: bool,
    /// Remove its directory as well
    #[arg(long)]
    remove: bool,
}

pub(super) fn run(common: &Common, args: &Clones) -> Outcome {
    match &args.command {
        CloneCommand::Start(args) => start(common, args),
        CloneCommand::Copy(args) => copy(common, args),
        CloneCommand::Rotate(args) => rotate::run(common, args),
        CloneCommand::List { set } => list(common, set.as_deref()),
        CloneCommand::Stop(args) => stop(common, args),
        CloneCommand::Activate(_) => Err(not_built("activate")),
        CloneCommand::Restart(_) => Err(not_built("restart")),
        CloneCommand::Restore(_) => Err(not_built("restore")),
        CloneCommand::Swap(_) => Err(not_built("swap")),
    }
}

fn not_built(what: &str) -> Failure {
    Failure::new(
        format!("`standin clone {what}` is not in this version."),
        UNTOUCHED,
        "Stop the clone and start another one.",
    )
}

fn start(common: &Common, args: &Start) -> Outcome {
    for (is_asked, what) in [(args.hold, "start --hold"), (args.kind != "copy", "start --kind")] {
        if is_asked {
            return Err(not_built(what));
        }
    }
    let to = args.to.as_deref().map(absolute).transpose()?;
    let holder = only_one(replicas_of(&common.asked_dir(), args.set.as_deref())?)?;
    let what = CloneRequest::Start {
        name: args.name.clone(),
        to,
        accept_bad_data: args.accept_bad_data,
        area_limit: args.area_limit,
    };
    begun(common, &holder, what, &args.name, args.wait)
}

fn copy(common: &Common, args: &Copy) -> Outcome {
    let to = absolute(&args.to)?;
    let holder = holder_of(common, &args.name, args.set.as_deref())?;
    begun(common, &holder, CloneRequest::Copy { name: args.name.clone(), to }, &args.name, args.wait)
}

fn begun(common: &Common, holder: &Meant, what: CloneRequest, name: &str, waits: bool) -> Outcome {
    let mut begun = holder.ask(what)?;
    if waits {
        begun = wait(holder, name)?;
    }
    let has_failed = begun.iter().flat_map(|replica| &replica.clones).any(|clone| waits && !clone.usable);
    show(common, &begun);
    Ok(if has_failed { FAILED } else { 0 })
}

pub(super) fn absolute(to: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(to).map_err(|error| {
        Failure::new(format!("{}: {error}.", to.display()), UNTOUCHED, "Name a directory that can be made.")
    })
}

/// Until it is complete, has failed, or somebody has stopped it.
fn wait(holder: &Meant, name: &str) -> Result<Vec<ReplicaClones>, Failure> {
    loop {
        let mut all = holder.ask(CloneRequest::List)?;
        for replica in &mut all {
            replica.clones.retain(|clone| clone.name == name);
        }
        match all.iter().flat_map(|replica| &replica.clones).next() {
            Some(clone) if clone.state == "SYNCHRONIZING" => std::thread::sleep(ASKED_EVERY),
            Some(_) => return Ok(all),
            None => {
                return Err(Failure::new(
                    format!("The clone '{name}' was stopped before it was complete."),
                    "Its directory was not made.",
                    "Start it again.",
                ));
            }
        }
    }
}

fn list(common: &Common, set: Option<&Path>) -> Outcome {
    let mut all = Vec::new();
    for holder in replicas_of(&common.asked_dir(), set)? {
        all.extend(holder.ask(CloneRequest::List)?);
    }
    show(common, &all);
    Ok(0)
}

/// The daemon with such a clone; which of its replicas has it, it knows itself.
fn holder_of(common: &Common, name: &str, set: Option<&Path>) -> Result<Meant, Failure> {
    let mut holders = replicas_of(&common.asked_dir(), set)?;
    if holders.len() > 1 {
        let mut with_it = Vec::new();
        for holder in holders {
            let all = holder.ask(CloneRequest::List)?;
            if all.iter().flat_map(|replica| &replica.clones).any(|clone| clone.name == name) {
                with_it.push(holder);
            }
        }
        holders = with_it;
    }
    if holders.is_empty() {
        return Err(Failure::new(
            format!("No daemon of this host has a clone '{name}'."),
            UNTOUCHED,
            "`standin clone list` shows what there is.",
        ));
    }
    one_daemon(holders)
}

fn stop(common: &Common, args: &Stop) -> Outcome {
    let holder = holder_of(common, &args.name, args.set.as_deref())?;
    let what = CloneRequest::Stop { name: args.name.clone(), force: args.force, remove: args.remove };
    let ended = holder.ask(what)?;
    if common.json {
        output::json(&json!({ "replicas": ended }));
        return Ok(0);
    }
    for clone in ended.iter().flat_map(|replica| &replica.clones) {
        output::text(&stopped(clone));
    }
    Ok(0)
}

fn stopped(clone: &CloneStatus) -> String {
    let name = &clone.name;
    let Some(dir) = clone.directory.as_deref().map(Path::display) else {
        return format!("Stopped: {name}. It was copied nowhere; nothing of it is left.\n");
    };
    let end = match clone.ended {
        Some(CloneEnd::Kept) => format!("{dir} is an ordinary directory."),
        Some(CloneEnd::Removed) => format!("{dir} was removed."),
        Some(CloneEnd::KeptInPart) => {
            format!("{dir} is not complete: a removal of it had begun. What is left of it stays.")
        }
        Some(CloneEnd::NotThere) => format!("{dir} is not there any more, and was not removed."),
        Some(CloneEnd::NeverComplete) => "It was not complete; nothing of it is left.".to_owned(),
        None => format!("What became of {dir} is not known."),
    };
    format!("Stopped: {name}. {end}\n")
}

/// A daemon, and which of its replicas is meant; `None`: each.
pub(super) struct Meant {
    daemon: String,
    socket: PathBuf,
    replica: Option<String>,
    /// Names and directories.
    replicas: Vec<(String, PathBuf)>,
}

impl Meant {
    fn of(daemon: &Daemon, status: &Status, set: Option<&Path>) -> Option<Meant> {
        let replicas: Vec<(String, PathBuf)> = match &status.role {
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
        let is_meant =
            |(name, path): &&(String, PathBuf)| set.is_none_or(|set| Path::new(name) == set || path == set);
        let replicas: Vec<(String, PathBuf)> = replicas.iter().filter(is_meant).cloned().collect();
        let replica = set.and(replicas.first().map(|(name, _)| name.clone()));
        let (daemon, socket) = (status.name.clone(), daemon.socket.clone());
        (!replicas.is_empty()).then_some(Meant { daemon, socket, replica, replicas })
    }

    /// Name of the set and directory of the replica, where one is meant.
    pub(super) fn only(&self) -> Option<(&str, &Path)> {
        match self.replicas.as_slice() {
            [(name, directory)] => Some((name, directory)),
            _ => None,
        }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn ask(&self, what: CloneRequest) -> Result<Vec<ReplicaClones>, Failure> {
        let request = ClonesRequest { replica: self.replica.clone(), what };
        let answer = Client::connect(&self.socket).and_then(|mut client| client.clones(request));
        answer.map_err(|error| no_answer(&self.daemon, &error))
    }
}

pub(super) fn only_one(holders: Vec<Meant>) -> Result<Meant, Failure> {
    one_daemon(holders).and_then(|holder| if holder.only().is_some() { Ok(holder) } else { Err(several()) })
}

fn one_daemon(mut holders: Vec<Meant>) -> Result<Meant, Failure> {
    match (holders.pop(), holders.is_empty()) {
        (Some(holder), true) => Ok(holder),
        _ => Err(several()),
    }
}

fn several() -> Failure {
    Failure::new(
        "Several replicas are on this host.",
        UNTOUCHED,
        "Say of which set with --set, or name the replica's directory: `standin clone list` shows them.",
    )
}

/// The daemons of a run directory that hold replicas: of this set, or all.
pub(super) fn replicas_of(run: &Path, set: Option<&Path>) -> Result<Vec<Meant>, Failure> {
    let there = find::all(run)?;
    let mut meant = Vec::new();
    for daemon in &there {
        match &daemon.answer {
            Answer::Status(status) => meant.extend(Meant::of(daemon, status, set)),
            Answer::Dead => {}
            Answer::None(error) => return Err(no_answer(&daemon.name, error)),
        }
    }
    if !meant.is_empty() {
        return Ok(meant);
    }
    let what = match set {
        Some(set) => format!("No daemon that runs on this host holds a replica of {}.", set.display()),
        None => format!("No daemon that holds replicas is running on this host (none in {}).", run.display()),
    };
    let next = "Ask on the host that has the replica, while `standin serve` (or the protection with a local: \
                target) runs.";
    Err(Failure::new(what, UNTOUCHED, next))
}

fn show(common: &Common, replicas: &[ReplicaClones]) {
    if common.json {
        output::json(&json!({ "replicas": replicas }));
    } else {
        output::text(&replicas.iter().map(text).collect::<String>());
    }
}

fn text(replica: &ReplicaClones) -> String {
    let mut text = format!("{}  {}\n", replica.name, replica.directory.display());
    if replica.clones.is_empty() {
        text.push_str("   no clones\n");
    }
    replica.clones.iter().for_each(|clone| text.push_str(&line(clone)));
    text
}

fn line(clone: &CloneStatus) -> String {
    let age = Duration::from_millis(unix_ms(SystemTime::now()).saturating_sub(clone.started_unix_ms));
    let usable = if clone.usable { "usable" } else { "not usable yet" };
    let usable = match clone.state.as_str() {
        "FAILED" => "never usable",
        "TERM-IN-PROG" => "being ended",
        _ if clone.directory.is_none() => "not copied",
        _ => usable,
    };
    let mut text = format!(
        "   {}  {} ({}), {usable}: {}\n      as of packet {}, {} ago",
        clone.name,
        clone.state,
        clone.kind,
        clone.directory.as_deref().map_or("-".into(), |dir| dir.display().to_string()),
        clone.position,
        units::duration(age)
    );
    if clone.bad_data {
        text.push_str(", of a replica that was not consistent");
    }
    if clone.keeps_good {
        text.push_str("\n      the last good state of the replica, until that is good again");
    }
    if clone.directory.is_none() {
        let (room, name) = (units::size(clone.area_bytes), &clone.name);
        if clone.state == "SYNCHRONIZING" {
            let _ = write!(
                text,
                "\n      {room} preserved; `standin clone copy {name} --to DIR` makes it a directory"
            );
        }
    } else if clone.state == "SYNCHRONIZING" {
        let done = units::count(clone.objects_copied);
        // Not known after a restart.
        let all = match clone.objects_total {
            0 => String::new(),
            all => format!(" of about {}", units::count(all)),
        };
        let (bytes, room) = (units::size(clone.bytes_copied), units::size(clone.area_bytes));
        let _ = write!(text, "\n      {done}{all} objects copied, {bytes}; {room} preserved");
    }
    if let Some(reason) = &clone.reason {
        let _ = write!(text, "\n      {reason}");
    }
    text.push('\n');
    text
}
