//! `standin drill`: a clone of a replica of this host at the data's own path, checked, reported, thrown away.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgMatches, Args, Subcommand};

use super::args::Common;
use super::clone::{self, Meant, only_one, replicas_of};
use super::{Outcome, output};
use crate::control::{CloneRequest, CloneStatus};
use crate::drill::Verdict;
use crate::drill::driver::Cloning;
use crate::drill::isolation::init;
use crate::drill::journal::{Journal, Turn};
use crate::drill::{make_way, recovery};
use crate::failure::Failure;
use crate::units::parse_duration;

mod expected;
mod options;
mod places;
mod reports;
mod run;
mod standing;

pub(super) use expected::expected;
pub(super) use options::{Check, Run, checked};
pub(super) use standing::{enter, keep_open};

const UNTOUCHED: &str = "Nothing was changed.";

/// The data did not pass.
const FAILED: u8 = 1;

#[derive(Debug, Args)]
pub struct Drills {
    #[command(subcommand)]
    command: DrillCommand,
}

#[derive(Debug, Subcommand)]
enum DrillCommand {
    /// Clone a replica, run checks on it at the data's own path, report, throw it away
    Run(Box<Run>),
    /// Show what drills there were, and how they ended
    List,
    /// Show the report of one
    Report {
        /// Its number [default: the last one]
        number: Option<u64>,
        /// In the words of JUnit (XML), for build servers and dashboards
        #[arg(long)]
        junit: bool,
    },
    /// Show how long ago a drill of each set passed: exit code 0, 1 where none has or it is too long ago, 2 where the last
    /// one failed
    Last {
        /// Name of a replication set, or the directory of its replica [default: all of which there are reports]
        set: Option<String>,
        /// It has to have passed within this time, as in 7d
        #[arg(long, value_name = "T", value_parser = parse_duration)]
        expect_every: Option<Duration>,
    },
    /// Leave one open: clone a replica, put it at the data's own path, run --start and --ready, and return
    Start(Box<Run>),
    /// A shell in the drill that is open, or a command whose exit code is given
    Shell {
        /// This program and its arguments in the place of a shell
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// End the drill that is open: run --stop, clean up, report
    Stop,
}

/// The first process of a drill, which this program starts itself.
pub(super) fn init() -> Outcome {
    init::serve().map_err(|error| {
        Failure::new(
            format!("The process of a drill has nobody to hear it: {error}."),
            "",
            "Use `standin drill run`.",
        )
    })?;
    Ok(0)
}

/// `typed`: behind `standin drill`.
pub(super) fn run(common: &Common, drills: &Drills, typed: &ArgMatches) -> Outcome {
    // One that stays open, and commands of drills, are in directories of their own.
    let absolute = |dir: &Option<PathBuf>| dir.as_deref().map(clone::absolute).transpose();
    let common = &Common { json: common.json, run: absolute(&common.run)?, state: absolute(&common.state)? };
    match &drills.command {
        DrillCommand::Run(_) => run::run(common, below(typed, "run"), run::End::ByItself),
        DrillCommand::List => reports::list(common),
        DrillCommand::Report { number, junit } => reports::report(common, *number, *junit),
        DrillCommand::Last { set, expect_every } => reports::last(common, set.as_deref(), *expect_every),
        DrillCommand::Start(args) => standing::start(common, args),
        DrillCommand::Shell { command } => standing::shell(common, command),
        DrillCommand::Stop => standing::stop(common),
    }
}

fn below<'a>(typed: &'a ArgMatches, name: &str) -> &'a ArgMatches {
    typed.subcommand_matches(name).unwrap_or(typed)
}

/// For something that needs the replica more: ends a drill of it. Whatever comes of that keeps nothing else from going on.
pub(super) fn make_way(common: &Common, replica: &Path) {
    match make_way::make_way(&common.state_dir(), replica) {
        Ok(Some(number)) => {
            output::aside(&format!("drill {number} of this replica was ended: this goes first."))
        }
        Ok(None) => {}
        Err(error) => output::aside(&format!("a drill of this replica cannot be ended: {error}")),
    }
}

fn not_built(what: &str) -> Failure {
    let next = "Run one with `standin drill run`; with --keep its clone stays.";
    Failure::new(format!("`standin drill {what}` is not in this version."), UNTOUCHED, next)
}

fn open(common: &Common) -> Result<Journal, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(
            "`standin drill` makes namespaces and mounts: it needs root.",
            UNTOUCHED,
            "Run it as root on the host that has the replica.",
        ));
    }
    Journal::open(&common.state_dir()).map_err(|error| no_state(&error))
}

fn turn(journal: &Journal) -> Result<Option<Turn>, Failure> {
    journal.turn().map_err(|error| no_state(&error))
}

fn no_state(error: &io::Error) -> Failure {
    Failure::new(
        format!("The notes about drills cannot be used: {error}."),
        "No replica was touched.",
        "Make room, or name another state directory with --state.",
    )
}

/// Cleans up after a drill whose command has died.
fn recover(journal: &Journal, _turn: &Turn) -> Result<(), Failure> {
    let Some(record) = journal.running().map_err(|error| no_state(&error))? else { return Ok(()) };
    let number = record.report.number;
    // That may take its time.
    output::aside(&format!("removing what drill {number} has left, which nobody runs any more …"));
    let left = |why: &str| {
        let what = format!("Drill {number} was interrupted, and something of it is still there: {why}");
        let next = format!(
            "Start the daemon that holds {}, and try again; if it will not come back, remove {}.",
            record.replica.display(),
            record.report.clone.directory
        );
        Failure::new(what, "No replica was touched.", next)
    };
    let replica = match replicas_of(&record.run, Some(&record.replica)).and_then(only_one) {
        Ok(replica) => Some(replica),
        Err(_) if recovery::is_gone(Path::new(&record.report.clone.directory)) => None,
        Err(failure) => return Err(left(&failure.what)),
    };
    let cloning = replica.as_ref().map(|replica| replica as &dyn Cloning);
    let report =
        recovery::recover(journal, record.clone(), cloning).map_err(|why| left(&format!("{why}.")))?;
    if report.verdict == Some(Verdict::Interrupted) {
        output::aside(&format!("drill {number} was interrupted; what was left of it has been removed."));
    }
    Ok(())
}

/// A clone of a drill before this one.
fn left(replica: &Meant, why: &str) -> Failure {
    let of = replica.only().map_or_else(String::new, |(set, _)| format!(" of {set}"));
    Failure::new(
        format!("A clone that an interrupted drill{of} has left is still there: {why}."),
        "No replica was touched.",
        "Look at it with `standin clone list`, and end it with `standin clone stop`.",
    )
}

impl Cloning for Meant {
    fn start(&self, name: &str, directory: &Path) -> Result<(), Failure> {
        let (name, to) = (name.to_owned(), directory.to_owned());
        self.ask(CloneRequest::Start { name, to: Some(to), accept_bad_data: false, area_limit: None })
            .map(|_| ())
    }

    fn find(&self, name: &str) -> Result<Option<CloneStatus>, Failure> {
        let all = self.ask(CloneRequest::List)?;
        Ok(all.into_iter().flat_map(|replica| replica.clones).find(|clone| clone.name == name))
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        self.ask(CloneRequest::Stop { name: name.to_owned(), force: true, remove: true }).map(|_| ())
    }

    fn as_of_unix_ms(&self) -> Option<u64> {
        let replica = places::replica_status(self)?;
        // Its clock and this host's may be apart: where nobody knows by how much, its age is not known.
        replica.as_of_unix_ms?.checked_add_signed(replica.clock_ahead_ms?.saturating_neg())
    }
}
