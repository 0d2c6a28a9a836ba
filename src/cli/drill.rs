//! `standin drill`: a clone of a replica of this host at the data's own path, checked, reported, thrown away.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::args::{Common, Rest};
use super::clone::{Meant, only_one, replicas_of};
use super::{CANNOT, Outcome, output};
use crate::control::{CloneRequest, CloneStatus, unix_ms};
use crate::drill::driver::{Cloning, Drill, Request};
use crate::drill::isolation::init;
use crate::drill::journal::{Journal, Record, Turn};
use crate::drill::recovery;
use crate::drill::report::{CloneReport, Report};
use crate::drill::{Verdict, limits::CHECKS_MAX};
use crate::failure::Failure;
use crate::signals::stop_signals;
use crate::sys::Network;
use crate::units::parse_duration;
use clap::{Args, Subcommand, ValueEnum};

mod places;
mod reports;

const UNTOUCHED: &str = "Nothing was changed.";

/// The data did not pass.
const FAILED: u8 = 1;
/// They passed, and it is not shown that they could have failed.
const UNPROVEN: u8 = 3;

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
    #[command(hide = true)]
    Start(Rest),
    #[command(hide = true)]
    Shell(Rest),
    #[command(hide = true)]
    Stop(Rest),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Net {
    /// Loopback alone
    Own,
    /// Everything that the host reaches: not isolated
    Host,
}

#[derive(Debug, Args)]
struct Run {
    /// Name of a replication set, or the directory of its replica [default: the only one]
    set: Option<PathBuf>,
    /// The data's own path, where applications have it; this host need not have it
    #[arg(long, value_name = "PATH")]
    at: Option<PathBuf>,
    /// Run by a shell in PATH: exit code 0 is passed; may be repeated. Without it the drill says `opened`
    #[arg(long, value_name = "COMMAND")]
    check: Vec<String>,
    /// Before the checks: starts what they need, and returns
    #[arg(long, value_name = "COMMAND")]
    start: Option<String>,
    /// After that: tried until it succeeds
    #[arg(long, value_name = "COMMAND")]
    ready: Option<String>,
    /// After the checks, also when they have failed
    #[arg(long, value_name = "COMMAND")]
    stop: Option<String>,
    /// Each command is killed after this time, as in 30s, 5m
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "10m")]
    timeout: Duration,
    /// The clone has to be complete within this time
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "1h")]
    clone_timeout: Duration,
    /// The clone lies in this directory, for a target that `standin serve` holds below its --root [default: beside
    /// the replica]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The clone stays, as an ordinary directory with what the checks have changed in it
    #[arg(long)]
    keep: bool,
    /// Show what lies at PATH of this host also where a file system is mounted there; may be repeated. Without it a drill
    /// has the root file system and mounts that programs are in
    #[arg(long, value_name = "PATH")]
    show: Vec<PathBuf>,
    /// What the commands reach
    #[arg(long, value_enum, value_name = "NET", default_value_t = Net::Own)]
    net: Net,
    /// Run the checks once more, and then on damaged data, where they have to fail; else the exit code is 3
    #[arg(long, requires = "check", conflicts_with = "keep")]
    prove: bool,
    #[arg(long, hide = true)]
    marker: Option<String>,
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

pub(super) fn run(common: &Common, drills: &Drills) -> Outcome {
    match &drills.command {
        DrillCommand::Run(args) => run_one(common, args),
        DrillCommand::List => reports::list(common),
        DrillCommand::Report { number, junit } => reports::report(common, *number, *junit),
        DrillCommand::Last { set, expect_every } => reports::last(common, set.as_deref(), *expect_every),
        DrillCommand::Start(_) => Err(not_built("start")),
        DrillCommand::Shell(_) => Err(not_built("shell")),
        DrillCommand::Stop(_) => Err(not_built("stop")),
    }
}

fn not_built(what: &str) -> Failure {
    let next = "Run one with `standin drill run`; with --keep its clone stays.";
    Failure::new(format!("`standin drill {what}` is not in this version."), UNTOUCHED, next)
}

/// Errors: a command that would end with 0, whatever the data are.
fn none_is_empty(args: &Run) -> Result<(), Failure> {
    let mut commands = args.check.iter().chain(&args.start).chain(&args.ready).chain(&args.stop);
    match commands.any(|command| command.trim().is_empty()) {
        true => Err(Failure::new(
            "A command of the drill is empty: it would end with 0, whatever the data are.".to_owned(),
            UNTOUCHED,
            "Say what is to be run, or leave the option out.",
        )),
        false => Ok(()),
    }
}

fn run_one(common: &Common, args: &Run) -> Outcome {
    if args.marker.is_some() {
        return Err(not_built("run --marker"));
    }
    let at = places::check(args.at.as_deref())?;
    let shown = places::shown(&args.show)?;
    none_is_empty(args)?;
    if args.check.len() > CHECKS_MAX {
        return Err(Failure::new(
            format!("A drill has {CHECKS_MAX} checks at most."),
            UNTOUCHED,
            "Put some into a script.",
        ));
    }
    let journal = open(common)?;
    let turn = turn(&journal)?.ok_or_else(|| {
        Failure::new(
            "A drill is running on this host.",
            UNTOUCHED,
            "Wait for its end, or end it with Ctrl-C.",
        )
        .passing()
    })?;
    recover(&journal, &turn)?;
    let replica = only_one(replicas_of(&common.run_dir(), args.set.as_deref())?)?;
    places::check_beside(&at, &replica)?;
    places::check_good(&replica)?;
    recovery::sweep(&journal, &replica).map_err(|why| left(&replica, &why))?;
    let record = record(common, args, &at, &replica, &journal)?;
    let (tell, stops) = crossbeam_channel::unbounded();
    let caught = stop_signals().and_then(|signals| signals.forward(move || tell.send(()).is_ok()));
    caught.map_err(|error| no_state(&error))?;
    if args.net == Net::Host && !common.json {
        output::aside(
            "--net host: what the commands of this drill start reaches everything that this host reaches.",
        );
    }
    let request = request(common, args, at, shown)?;
    let say = |step: &str| {
        if !common.json {
            output::aside(&format!("drill {}: {step}", record.report.number));
        }
    };
    let drill = Drill {
        request,
        cloning: &replica,
        journal: &journal,
        record: record.clone(),
        stops,
        tell: &say,
        turn,
    };
    let report = drill.run().map_err(|error| no_state(&error))?;
    reports::show(common, &report);
    Ok(match report.verdict {
        Some(Verdict::Passed) if report.is_unproven() => UNPROVEN,
        Some(Verdict::Passed | Verdict::Opened) => 0,
        Some(Verdict::Failed) if !report.could_not => FAILED,
        Some(Verdict::Failed | Verdict::Interrupted) | None => CANNOT,
    })
}

fn request(common: &Common, args: &Run, at: PathBuf, shown: Vec<PathBuf>) -> Result<Request, Failure> {
    Ok(Request {
        at,
        start: args.start.clone(),
        ready: args.ready.clone(),
        checks: args.check.clone(),
        stop: args.stop.clone(),
        proves: args.prove,
        timeout: args.timeout,
        clone_timeout: args.clone_timeout,
        network: if args.net == Net::Own { Network::Own } else { Network::Host },
        hidden: places::hidden(common)?,
        shown,
    })
}

fn record(
    common: &Common,
    args: &Run,
    at: &Path,
    replica: &Meant,
    journal: &Journal,
) -> Result<Record, Failure> {
    let number = journal.next_number().map_err(|error| no_state(&error))?;
    let (set, path) = replica.only().ok_or_else(places::several)?;
    let beside = path.parent().unwrap_or(Path::new("/"));
    let dir = std::path::absolute(args.dir.as_deref().unwrap_or(beside)).map_err(|error| no_state(&error))?;
    // No other clone has this name: what is removed in the end is this drill's own.
    let token = getrandom::u32().map_err(|error| no_state(&error.into()))?;
    let name = format!("drill-{number}-{token:08x}");
    let directory = places::text(&dir.join(format!(".standin-{name}")))?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let report = Report {
        number,
        previous: None,
        verdict: None,
        could_not: false,
        name,
        by: std::env::var("SUDO_USER").unwrap_or_else(|_| "root".into()),
        host: host.trim().to_owned(),
        version: env!("CARGO_PKG_VERSION").into(),
        set: set.to_owned(),
        replica: path.display().to_string(),
        at: places::text(at)?,
        started_unix_ms: unix_ms(SystemTime::now()),
        ended_unix_ms: 0,
        point: None,
        steps: Vec::new(),
        usable_after_ms: None,
        checked_after_ms: None,
        isolation: None,
        clone: CloneReport { directory, ..CloneReport::default() },
        proof: None,
        left: None,
    };
    let run = std::path::absolute(common.run_dir()).map_err(|error| no_state(&error))?;
    Ok(Record { report, run, replica: path.to_owned(), keeps: args.keep, is_begun: false, process: None })
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
        Err(_) if is_gone(Path::new(&record.report.clone.directory)) => None,
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

fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
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
