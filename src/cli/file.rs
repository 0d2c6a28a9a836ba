//! `standin file`: whether files are on the targets as they are now.

mod replica;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use serde_json::json;

use super::args::Common;
use super::find::{self, Found, no_answer};
use super::status::said;
use super::{Outcome, output};
use crate::control::{
    Answer, Daemon, FileKind, FileOnTarget, FileReport, FileState, FilesRequest, PathText, ReplicaStatus,
    Role, TargetKind, Verdict, unix_ms,
};
use crate::failure::Failure;
use crate::limits::{FILES_ANSWER, FILES_ASKED_LEN, FILES_ASKED_MAX};
use crate::preflight::{MountTable, resolve};
use crate::units::{self, parse_duration};

#[derive(Debug, Args)]
pub struct File {
    /// Files or directories (with all that lies below) of protected directories; or of replicas, on their host
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// On the targets' disks, not only applied
    #[arg(long)]
    durable: bool,
    /// Wait until they are there; else targets that are in line have a second to answer
    #[arg(long)]
    wait: bool,
    /// With --wait: give up after this long, as in 500ms, 30s, 5m [default: never]
    #[arg(long, value_name = "T", value_parser = parse_duration, requires = "wait")]
    timeout: Option<Duration>,
}

pub(super) fn run(common: &Common, args: &File) -> Outcome {
    let daemons = find::all(&common.asked_dir())?;
    let mounts = MountTable::read().map_err(|error| {
        let what = format!("The mounts of this host cannot be read: {error}.");
        Failure::new(what, "Nothing was asked.", "Mount /proc.")
    })?;
    let places: Vec<Place<'_>> = args.paths.iter().map(|path| place(&daemons, &mounts, path)).collect();
    let deadline = match (args.wait, args.timeout) {
        (false, _) => Some(Instant::now() + FILES_ANSWER),
        (true, timeout) => timeout.map(|timeout| Instant::now() + timeout),
    };
    let files = ask(places, args.durable, deadline)?;
    let verdict = files.iter().map(|file| file.verdict).max().unwrap_or(Verdict::Unknown);
    if common.json {
        output::json(&json!({ "verdict": verdict, "files": files }));
    } else {
        let now = unix_ms(SystemTime::now());
        output::text(&files.iter().map(|file| text(file, now)).collect::<String>());
    }
    Ok(verdict.exit_code())
}

/// Where a path leads.
enum Place<'a> {
    /// Below a directory that this daemon protects.
    Source(&'a Daemon, PathBuf),
    /// Below a replica of this daemon.
    Replica(&'a Daemon, &'a ReplicaStatus, PathBuf),
    Nowhere(PathBuf, String),
}

/// The closest directory around it counts. The last name is not followed: a symlink is what is asked about.
fn place<'a>(daemons: &'a [Daemon], mounts: &MountTable, path: &Path) -> Place<'a> {
    let itself = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            resolve(parent, mounts).map(|parent| parent.join(name))
        }
        _ => resolve(path, mounts),
    };
    let looked = |at: std::io::Result<PathBuf>| at.ok().and_then(|at| within(daemons, at));
    let known: Vec<&str> = daemons.iter().map(|daemon| daemon.name.as_str()).collect();
    // A symlink that leads to a protected directory from without.
    looked(itself).or_else(|| looked(resolve(path, mounts))).unwrap_or_else(|| {
        let why = match daemons.iter().find(|daemon| !matches!(daemon.answer, Answer::Status(_))) {
            Some(mute) => format!("no daemon that answers has it, and {} does not answer", mute.name),
            None if known.is_empty() => "no daemon is running here".to_owned(),
            None => format!("it is in no directory and no replica of {}", known.join(", ")),
        };
        Place::Nowhere(path.to_owned(), why)
    })
}

fn within(daemons: &[Daemon], path: PathBuf) -> Option<Place<'_>> {
    let around = daemons.iter().flat_map(|daemon| roots(daemon).into_iter().map(move |root| (daemon, root)));
    let around = around.filter_map(|(daemon, (root, of))| {
        let below = path.strip_prefix(root).ok()?.to_owned();
        Some((root.components().count(), daemon, below, of))
    });
    let (_, daemon, below, of) = around.max_by_key(|(depth, ..)| *depth)?;
    Some(match of {
        Of::Source(directory) => Place::Source(daemon, directory.join(below)),
        Of::Replica(replica) => Place::Replica(daemon, replica, path),
    })
}

/// What a directory is of.
enum Of<'a> {
    /// The protected directory, where that is.
    Source(&'a Path),
    Replica(&'a ReplicaStatus),
}

/// The directories that a daemon knows something of.
fn roots(daemon: &Daemon) -> Vec<(&Path, Of<'_>)> {
    let Answer::Status(status) = &daemon.answer else { return Vec::new() };
    let directory = status.directory.as_path();
    match &status.role {
        Role::Source(source) => {
            let local = source.connections.iter().filter(|one| one.kind == TargetKind::Local);
            let local = local.filter_map(|one| one.target.strip_prefix("local:")).map(Path::new);
            [directory].into_iter().chain(local).map(|root| (root, Of::Source(directory))).collect()
        }
        Role::Target { target } => {
            target.replicas.iter().map(|one| (one.directory.as_path(), Of::Replica(one))).collect()
        }
    }
}

/// In the order of the places; those of one daemon together.
fn ask(places: Vec<Place<'_>>, durable: bool, deadline: Option<Instant>) -> Result<Vec<FileReport>, Failure> {
    let mut reports: Vec<Option<FileReport>> = Vec::new();
    let mut asked: Vec<(&Daemon, Vec<(usize, PathBuf)>)> = Vec::new();
    for (at, place) in places.into_iter().enumerate() {
        reports.push(match place {
            Place::Nowhere(path, why) => Some(nowhere(path, why)),
            Place::Replica(daemon, replica, path) => Some(replica::report(daemon, replica, path, durable)),
            Place::Source(daemon, path) => {
                match asked.iter_mut().find(|(known, _)| known.name == daemon.name) {
                    Some((_, paths)) => paths.push((at, path)),
                    None => asked.push((daemon, vec![(at, path)])),
                }
                None
            }
        });
    }
    for (daemon, paths) in asked {
        let found = Found::of(daemon)?;
        let mut client = found.client()?;
        for batch in batches(paths) {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let (at, paths): (Vec<usize>, Vec<PathText>) =
                batch.into_iter().map(|(at, path)| (at, PathText(path))).unzip();
            let timeout_ms = left.map(|left| left.as_millis() as u64);
            let answers = client.files(FilesRequest { paths, durable, timeout_ms });
            let answers = answers.map_err(|error| no_answer(&daemon.name, &error))?;
            at.into_iter().zip(answers).for_each(|(at, report)| reports[at] = Some(report));
        }
    }
    Ok(reports.into_iter().flatten().collect())
}

/// As many together as a request has room for.
fn batches(paths: Vec<(usize, PathBuf)>) -> Vec<Vec<(usize, PathBuf)>> {
    let mut batches: Vec<Vec<(usize, PathBuf)>> = Vec::new();
    let mut room = 0;
    for (at, path) in paths {
        let len =
            serde_json::to_string(&PathText(path.clone())).map_or(FILES_ASKED_LEN, |text| text.len() + 1);
        match batches.last_mut() {
            Some(last) if len <= room && last.len() < FILES_ASKED_MAX => {
                last.push((at, path));
                room -= len;
            }
            _ => {
                batches.push(vec![(at, path)]);
                room = FILES_ASKED_LEN.saturating_sub(len);
            }
        }
    }
    batches
}

fn nowhere(path: PathBuf, note: String) -> FileReport {
    FileReport {
        path,
        set: String::new(),
        kind: FileKind::Unknown,
        verdict: Verdict::Unknown,
        as_of: None,
        as_of_unix_ms: unix_ms(SystemTime::now()),
        changed_unix_ms: None,
        note,
        targets: Vec::new(),
    }
}

/// The report in words.
pub(super) fn text(file: &FileReport, now_unix_ms: u64) -> String {
    let ago = |since: u64| units::duration(Duration::from_millis(now_unix_ms.saturating_sub(since)));
    let verdict = match file.verdict {
        Verdict::There => "there",
        Verdict::NotThere => "not there",
        Verdict::Unknown => "not known",
    };
    let as_of = file.as_of.map(|as_of| format!(" as of position {as_of}")).unwrap_or_default();
    let kind = match file.kind {
        FileKind::File => "file",
        FileKind::Directory => "directory, with all below",
        FileKind::Symlink => "symlink, itself",
        FileKind::Special => "special file",
        FileKind::Gone => "nothing is there now",
        FileKind::LeftOut => "the rules of the set leave it out",
        FileKind::Unknown => "not looked at",
    };
    let changed =
        file.changed_unix_ms.map(|since| format!(", changed {} ago", ago(since))).unwrap_or_default();
    let mut text = format!("{}: {verdict}{as_of} ({kind}{changed})\n", said(&file.path));
    for target in &file.targets {
        let _ = writeln!(text, "  {}", on_target(target, &ago));
    }
    if !file.note.is_empty() {
        let _ = writeln!(text, "  {}", file.note);
    }
    text
}

fn on_target(target: &FileOnTarget, ago: &dyn Fn(u64) -> String) -> String {
    let state = match target.state {
        FileState::Durable => "on disk",
        FileState::Applied => "applied",
        FileState::Behind => "behind",
        FileState::Retrying => "held up",
        FileState::Away => "away",
        FileState::HeldBack => "held back",
        FileState::Resynchronising => "being copied to",
        FileState::SetAside => "set aside",
        FileState::LeftOut => "left out of the last copy",
        FileState::Excluded => "not replicated",
        FileState::Unprotected => "not known",
        FileState::Unflushed => "not known",
        FileState::Doubtful => "not known",
    };
    let id = target.connection.map(|id| format!("{id} ")).unwrap_or_default();
    let mut text = format!("{id}{}: {state}", target.target);
    if let Some(since) = target.since_unix_ms {
        let _ = write!(text, " for {}", ago(since));
    }
    if !target.why.is_empty() {
        let _ = write!(text, ": {}", target.why);
    }
    let _ = write!(text, " (applied {}, durable {})", target.applied, target.durable);
    text
}

#[cfg(test)]
mod tests;
