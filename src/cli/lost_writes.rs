//! `standin lost-writes`: what a directory had when it became the replica of who stood in for its host.

mod taking;
mod words;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use self::taking::{Extract, extract};
use self::words::{document, head, line};
use super::clone::{Meant, replicas_of};
use super::{Outcome, find, output};
use crate::apply::Places;
use crate::cli::args::Common;
use crate::clone::{Content, Differing, LOST_WRITES, Past, Where, is_taken_out};
use crate::control::{Answer, CloneRequest, CloneStatus, PathText, ReplicaClones, ReplicaStatus, Role};
use crate::failure::Failure;
use crate::packet::DataState;
use crate::target_side::serve_state;
use crate::units;

const UNTOUCHED: &str = "Nothing was changed.";

#[derive(Debug, Args)]
pub struct LostWrites {
    #[command(subcommand)]
    command: LostWritesCommand,
}

#[derive(Debug, Subcommand)]
enum LostWritesCommand {
    /// What is kept, and each object that the replica has not, or has otherwise: what differs, size, time, path
    List {
        /// Name of a replication set, or the directory of its replica [default: all of this host]
        set: Option<PathBuf>,
    },
    /// A file as it was, to standard output; with --json what is known of an object
    Show {
        /// The object, below the replica
        path: PathBuf,
        #[command(flatten)]
        of: Of,
    },
    /// Make the objects that differ anew as they were, in a directory of their own
    Extract {
        /// Only these, and what is below them [default: all]
        paths: Vec<PathBuf>,
        /// The directory, which is not there yet: on any file system
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Also while the replica is still copied to: what differs later is left out
        #[arg(long)]
        so_far: bool,
        #[command(flatten)]
        of: Of,
    },
}

#[derive(Debug, Args)]
struct Of {
    /// Which one, where several are kept [default: the newest that can be read]
    #[arg(long)]
    name: Option<String>,
    /// Name of a replication set, or the directory of its replica [default: the only one with lost writes]
    #[arg(long, value_name = "SET")]
    set: Option<PathBuf>,
}

pub(super) fn run(common: &Common, args: &LostWrites) -> Outcome {
    crate::preflight::check_root_user(rustix::process::geteuid().as_raw())?;
    match &args.command {
        LostWritesCommand::List { set } => list(common, set.as_deref()),
        LostWritesCommand::Show { path, of } => show(common, path, of),
        LostWritesCommand::Extract { paths, to, so_far, of } => {
            extract(common, Extract { paths, to, so_far: *so_far }, of)
        }
    }
}

/// One that is kept.
struct Kept {
    replica: String,
    directory: PathBuf,
    state: PathBuf,
    /// The replica is a consistent state of its source: nothing more will differ by a copy.
    is_good: bool,
    clone: CloneStatus,
}

impl Kept {
    /// Errors: it cannot be read, or preserves nothing any more.
    fn past(&self) -> Result<Past, Failure> {
        let place = Where {
            root: &self.directory,
            limbo: &Places::limbo_of(&self.directory),
            state: &self.state,
            name: &self.clone.name,
        };
        let is_live = self.clone.state == "SYNCHRONIZING" && self.clone.directory.is_none();
        let opened = if is_live { Past::open(&place) } else { Err(std::io::ErrorKind::NotFound.into()) };
        opened.map_err(|error| {
            let why = self.ended().unwrap_or_else(|| error.to_string());
            let what =
                format!("'{}' of {} cannot be read: {why}.", self.clone.name, self.directory.display());
            Failure::new(what, UNTOUCHED, "`standin clone list` shows what became of it.")
        })
    }

    /// Why nothing of it can be read; `None`: it can.
    fn ended(&self) -> Option<String> {
        match (&self.clone.directory, &self.clone.reason) {
            (_, Some(reason)) => Some(reason.clone()),
            (Some(dir), None) => Some(format!("it is copied whole, to {}", dir.display())),
            (None, None) if self.clone.state != "SYNCHRONIZING" => {
                Some(format!("it is {}", self.clone.state))
            }
            (None, None) => None,
        }
    }

    fn unread(&self, error: &std::io::Error) -> Failure {
        Failure::new(
            format!("What {} had cannot be read to its end: {error}.", self.directory.display()),
            "It is kept as it is.",
            "Try again; while the replica is being copied to it may change under the look.",
        )
    }
}

fn kept(common: &Common, set: Option<&Path>) -> Result<Vec<Kept>, Failure> {
    let mut all = Vec::new();
    for holder in replicas_of(&common.asked_dir(), set)? {
        let listed = Meant::ask(&holder, CloneRequest::List)?;
        for ReplicaClones { name, directory, clones } in listed {
            for clone in clones.into_iter().filter(|clone| clone.name.starts_with(LOST_WRITES)) {
                all.push(Kept {
                    state: serve_state(&common.state_dir()).join(&name),
                    is_good: is_good(common, &directory, &clone.name)?,
                    replica: name.clone(),
                    directory: directory.clone(),
                    clone,
                });
            }
        }
    }
    Ok(all)
}

/// A replica of long ago is good, too, before the copy begins.
fn is_good(common: &Common, directory: &Path, clone: &str) -> Result<bool, Failure> {
    let all = find::all(&common.asked_dir())?;
    let statuses = all.iter().filter_map(|daemon| match &daemon.answer {
        Answer::Status(status) => Some(status),
        Answer::Dead | Answer::None(_) => None,
    });
    let mut replicas = statuses.filter_map(|status| match &status.role {
        Role::Target { target } => Some(&target.replicas),
        Role::Source(_) => None,
    });
    let is_copied = |one: &ReplicaStatus| {
        one.lost_writes.as_ref().is_none_or(|kept| kept.clone != clone || kept.copy_ended)
    };
    let is_it =
        |one: &ReplicaStatus| one.directory == directory && one.data == DataState::Good && is_copied(one);
    Ok(replicas.any(|replicas| replicas.iter().any(is_it)))
}

fn meant(common: &Common, of: &Of) -> Result<Kept, Failure> {
    let mut all = kept(common, of.set.as_deref())?;
    match &of.name {
        Some(name) => all.retain(|kept| kept.clone.name == *name),
        None => all.retain(|kept| kept.ended().is_none()),
    }
    all.sort_by_key(|kept| kept.clone.started_unix_ms);
    let newest = all.pop();
    let is_other = |kept: &Kept| newest.as_ref().is_some_and(|newest| newest.directory != kept.directory);
    match (&newest, all.iter().any(is_other)) {
        (Some(_), false) => newest.ok_or_else(none),
        (None, _) => Err(none()),
        (Some(_), true) => {
            Err(Failure::new("Several replicas have lost writes.", UNTOUCHED, "Say of which set with --set."))
        }
    }
}

fn none() -> Failure {
    Failure::new(
        "No replica of this host keeps such lost writes.",
        UNTOUCHED,
        "`standin lost-writes list` shows what there is.",
    )
}

fn list(common: &Common, set: Option<&Path>) -> Outcome {
    let (mut text, mut documents) = (String::new(), Vec::new());
    for one in kept(common, set)? {
        let (mut lines, mut objects) = (Vec::new(), Vec::new());
        if one.ended().is_none() {
            let mut past = one.past()?;
            past.differing(&mut |_, object| {
                lines.push((object.path.clone(), line(object)));
                objects.push(document(object));
                Ok(())
            })
            .map_err(|error| one.unread(&error))?;
        }
        lines.sort();
        let is_taken_out = is_taken_out(&one.state, &one.clone.name);
        text.push_str(&head(&one, is_taken_out));
        lines.iter().for_each(|(_, line)| text.push_str(line));
        if one.ended().is_none() {
            let count = lines.len();
            let _ = writeln!(
                text,
                "   {} {} not there any more as {} when the directory became the replica.",
                units::count(count as u64),
                if count == 1 { "object is" } else { "objects are" },
                if count == 1 { "it was" } else { "they were" },
            );
        }
        objects.sort_by(|one, other| one["path"].as_str().cmp(&other["path"].as_str()));
        documents.push(json!({
            "name": one.replica,
            "directory": PathText(one.directory.clone()),
            "kept_as": one.clone.name,
            "since_unix_ms": one.clone.started_unix_ms,
            "area_bytes": one.clone.area_bytes,
            "copy_ended": one.is_good,
            "taken_out": is_taken_out,
            "ended": one.ended(),
            "objects": objects,
        }));
    }
    match common.json {
        true => output::json(&json!({ "lost_writes": documents })),
        false if text.is_empty() => output::text("No replica of this host keeps lost writes."),
        false => output::text(&text),
    }
    Ok(0)
}

/// Below the replica, also where its whole path was given.
fn below(one: &Kept, path: &Path) -> PathBuf {
    path.strip_prefix(&one.directory)
        .or_else(|_| path.strip_prefix("/"))
        .unwrap_or(path)
        .components()
        .collect()
}

fn show(common: &Common, path: &Path, of: &Of) -> Outcome {
    let one = meant(common, of)?;
    let path = below(&one, path);
    let (mut past, mut found) = (one.past()?, None);
    let said = past.differing(&mut |past, object| {
        if object.path != path {
            return Ok(());
        }
        found = Some(document(object));
        match !common.json && object.kind() == rustix::fs::FileType::RegularFile {
            true => to_output(past, object),
            false => Ok(()),
        }
    });
    said.map_err(|error| one.unread(&error))?;
    match found {
        Some(found) if common.json => output::json(&found),
        Some(found) if found["kind"] != "file" => output::text(&format!("{found:#}")),
        Some(_) => {}
        None => {
            return Err(Failure::new(
                format!(
                    "{} is in {} as it was, or was never there.",
                    path.display(),
                    one.directory.display()
                ),
                UNTOUCHED,
                "`standin lost-writes list` shows what differs.",
            ));
        }
    }
    Ok(0)
}

fn to_output(past: &mut Past, object: &Differing) -> std::io::Result<()> {
    let (mut content, mut out) = (Content::of(object)?, std::io::stdout().lock());
    while let Some((_, bytes)) = content.next(past)? {
        out.write_all(&bytes)?;
    }
    out.flush()
}
