//! `standin failover`: a replica of this host served in its source's place, for good.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::{Args, CommandFactory};

use super::args::{Cli, Common};
use super::{Outcome, config, output, protect};
use crate::commands::Runner;
use crate::control::{Client, Phase, Role, unix_ms};
use crate::failover::journal::Journal;
use crate::failover::report::{Outcome as Ended, Point, Report, State, Step, StepReport};
use crate::failover::steps::{Hooks, Steps};
use crate::failure::Failure;
use crate::packet::Epoch;
use crate::signals::stop_signals;
use crate::source_side::{self, Asking, Following, Taken};
use crate::units::parse_duration;
use crate::words::{ProtectOptions, Target};

mod preflight;

use preflight::Preflight;

const UNTOUCHED: &str = "Nothing was changed.";

#[derive(Debug, Args)]
pub struct Failover {
    /// Name of a replication set of which this host has the replica, or the directory of the replica
    replica: PathBuf,
    /// Where programs get the data: a directory of this host, as for `standin protect`
    #[arg(long, value_name = "MOUNT")]
    at: Option<PathBuf>,
    /// Name of the replication set here [default: the last part of the replica's directory]
    #[arg(long)]
    name: Option<String>,
    /// What is written from now on is replicated there, as for `standin protect`
    #[arg(long, value_name = "TARGET")]
    to: Vec<Target>,
    /// What is served: live (the replica as it is)
    #[arg(long, value_name = "DATA", default_value = "live")]
    data: String,
    /// Look at everything and say what would be done; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Also a replica that is no consistent state of its source
    #[arg(long)]
    accept_bad_data: bool,
    /// Also where another target has more than this replica, or may have: it is overwritten where it is named by --to
    #[arg(long)]
    overwrite_further: bool,
    /// Also while programs have files of the replica open for writing: what they write is not replicated
    #[arg(long)]
    force: bool,
    /// Run by a shell when everything is ready, before the first change that is not taken back: where it fails all is
    /// as it was
    #[arg(long, value_name = "COMMAND")]
    pre: Option<String>,
    /// Run by a shell when programs are served
    #[arg(long, value_name = "COMMAND")]
    post: Option<String>,
    /// Each of the two is killed after this time, as in 30s, 5m
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "1m")]
    timeout: Duration,
    /// Ask nobody
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(common: &Common, args: &Failover) -> Outcome {
    crate::preflight::check_root_user(rustix::process::geteuid().as_raw())?;
    check(args)?;
    let (started, since) = (SystemTime::now(), Instant::now());
    let place = preflight::place(common, args)?;
    let options = options(common, args, &place.directory)?;
    let asking = Asking::begin(&options);
    let place = preflight::call(place);
    if !args.dry_run && Journal::is_busy(&options.state, &options.name) {
        return Err(busy());
    }
    let found = preflight::look(args, &options, &place, &asking.answers());
    if args.dry_run || !found.refusals().is_empty() {
        return end_with(common, args, &options, &found);
    }
    if !common.json {
        output::text(&found.text(&options));
    }
    confirm(common, args)?;
    super::drill::make_way(common, &place.directory);
    preflight::end_silent(&place)?;
    let failed = |error: &std::io::Error| no_state(&options, error);
    let (journal, left) =
        Journal::open(&options.state, &options.name).map_err(|error| failed(&error))?.ok_or_else(busy)?;
    if let Some(left) = left {
        output::aside(&left.text());
    }
    let mut report = report(args, &options, started);
    report.steps.push(StepReport {
        step: Step::Preflight,
        started_unix_ms: unix_ms(started),
        length_ms: since.elapsed().as_millis() as u64,
        outcome: Ended::Done,
        command: None,
        ended: None,
        reason: None,
    });
    // Before the privileges that a command may need are given up.
    let runner = Runner::start().map_err(|error| failed(&error))?;
    let (tell, stops) = crossbeam_channel::unbounded();
    let caught = stop_signals().and_then(|signals| signals.forward(move || tell.send(()).is_ok()));
    caught.map_err(|error| failed(&error))?;
    let hooks = Hooks { before: args.pre.clone(), after: args.post.clone(), timeout: args.timeout };
    let (socket, json) = (options.socket(), common.json);
    let tell = move |report: &Report| if json { output::json(report) } else { output::text(&report.text()) };
    let is_served = Box::new(move || is_served(&socket));
    let steps = Steps::begin((journal, report), (hooks, runner), stops, is_served, Box::new(tell));
    let mut follower = Follower(steps.map_err(|error| failed(&error))?);
    let outcome = source_side::run_followed(options, &mut follower);
    follower.0.over(outcome.as_ref().err());
    outcome.map(protect::exit_code)
}

/// Before `standin protect --stand-in` raises anything.
///
/// Errors: another target is in the way, as for a failover.
pub(super) fn look_at_others(common: &Common, options: &ProtectOptions) -> Result<(), Failure> {
    let notes = preflight::look_at_others(common, options)?;
    notes.iter().for_each(|note| output::aside(note));
    Ok(())
}

/// The process that runs the commands of a failover, which this program starts itself.
pub(super) fn run_commands() -> Outcome {
    match crate::commands::serve() {
        Ok(()) => Ok(0),
        // Who asked has ended, or has been told to: nobody is left to hear of it.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(0),
        Err(error) => {
            let what = format!("The process that runs commands cannot go on: {error}.");
            Err(Failure::new(
                what,
                "",
                "Nobody types this: `standin failover` and `standin events run` start it.",
            ))
        }
    }
}

/// Errors: what cannot be meant.
fn check(args: &Failover) -> Result<(), Failure> {
    let refuse = |what: String, next: &str| Err(Failure::new(what, UNTOUCHED, next));
    match args.data.as_str() {
        "live" => {}
        other if other.starts_with("clone:") || other.starts_with("marker:") || other == "drained" => {
            return refuse(
                format!("`standin failover --data {other}` is not in this version."),
                "Serve the replica as it is, or look at the clone's directory, which is an ordinary one.",
            );
        }
        other => {
            return refuse(format!("--data {other} is no data."), "Leave it out: the replica is served.");
        }
    }
    let mut commands = [("--pre", &args.pre), ("--post", &args.post)].into_iter();
    let is_empty = |command: &String| command.trim().is_empty();
    if let Some((what, _)) = commands.find(|(_, command)| command.as_ref().is_some_and(is_empty)) {
        return refuse(format!("The command of {what} is empty."), "Say what is to be run, or leave it out.");
    }
    Ok(())
}

/// As `standin protect` would be typed.
fn options(common: &Common, args: &Failover, replica: &Path) -> Result<ProtectOptions, Failure> {
    let Some(at) = &args.at else {
        return Err(Failure::new(
            "A failover needs the place where programs get the data.",
            UNTOUCHED,
            "Name a directory of this host: --at /srv/web. An empty one will do.",
        ));
    };
    let name = match &args.name {
        Some(name) => name.clone(),
        None => protect::set_name(None, replica)?,
    };
    let mut typed: Vec<std::ffi::OsString> = vec!["standin".into(), "protect".into(), at.into()];
    // At home the directory is the replica itself.
    if preflight::real(at).ok().as_deref() != Some(replica) {
        typed.extend(["--backing".into(), replica.into()]);
    }
    typed.extend(["--name".into(), name.into(), "--stand-in".into()]);
    typed.extend(args.accept_bad_data.then(|| "--accept-bad-data".into()));
    typed.extend(args.overwrite_further.then(|| "--overwrite-further".into()));
    typed.extend(args.force.then(|| "--force".into()));
    typed.extend(args.to.iter().flat_map(|target| ["--to".into(), target.to_string().into()]));
    let matches = Cli::command().try_get_matches_from(typed);
    let mut matches =
        matches.map_err(|error| Failure::new(error.to_string(), UNTOUCHED, "Name other places."))?;
    let (_, typed) = matches.remove_subcommand().expect("it was `protect` that was typed");
    config::protect(common, &typed)
}

/// Its number is given when it begins.
fn report(args: &Failover, options: &ProtectOptions, started: SystemTime) -> Report {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Report {
        number: 0,
        state: State::Running,
        set: options.name.clone(),
        replica: options.tree().display().to_string(),
        at: options.directory.display().to_string(),
        by: std::env::var("SUDO_USER").unwrap_or_else(|_| "root".into()),
        host: host.trim().to_owned(),
        version: env!("CARGO_PKG_VERSION").into(),
        started_unix_ms: unix_ms(started),
        ended_unix_ms: None,
        point: None,
        epoch: None,
        goes_on: false,
        accepted_bad_data: args.accept_bad_data,
        steps: Vec::new(),
    }
}

/// What was found is all that is said: a dry run, or something is in the way.
fn end_with(common: &Common, args: &Failover, options: &ProtectOptions, found: &Preflight) -> Outcome {
    let refusals = found.refusals();
    if args.dry_run {
        match common.json {
            true => output::json(found),
            false => output::text(&found.text(options)),
        }
        return Ok(if refusals.is_empty() { 0 } else { super::CANNOT });
    }
    if !common.json {
        output::text(&found.text(options));
    }
    let first = refusals.first().map(|finding| (finding.what.clone(), finding.next.clone()));
    let (what, next) = first.unwrap_or_default();
    let more = match refusals.len() {
        0 | 1 => String::new(),
        count => format!(" ({} more: --dry-run lists them)", count - 1),
    };
    Err(Failure::new(format!("{what}{more}"), UNTOUCHED, next))
}

/// Errors: nobody has said yes.
fn confirm(common: &Common, args: &Failover) -> Result<(), Failure> {
    let question = "Nobody takes that back. Programs cannot reach the old host any more? Type yes to go on: ";
    confirm_of(common, args.yes, question)
}

/// Errors: as [`confirm`].
pub(super) fn confirm_of(common: &Common, yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    let no = |what: &str| Failure::new(what, UNTOUCHED, "To go on: the same command with --yes.");
    if common.json || !stdin.is_terminal() {
        return Err(no("It is asked before anything is changed, and nobody is there to answer."));
    }
    // Nobody can answer what nobody can read.
    let asked = write!(std::io::stderr(), "{question}");
    asked.map_err(|_| no("It is asked before anything is changed, and nobody can read the question."))?;
    let mut answer = String::new();
    match stdin.lock().read_line(&mut answer) {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        _ => Err(no("Not confirmed.")),
    }
}

/// Whether the daemon behind this socket serves its mount.
fn is_served(socket: &Path) -> bool {
    let status = Client::connect(socket).and_then(|mut client| client.status());
    status.is_ok_and(|status| matches!(status.role, Role::Source(_)) && status.phase == Phase::Serving)
}

struct Follower(Steps);

impl Following for Follower {
    fn taken(&mut self, taken: &Taken) -> Result<(), Failure> {
        self.0.taken(point(taken))
    }

    fn raised(&mut self, epoch: Epoch, goes_on: bool) {
        self.0.raised(epoch.number, goes_on);
    }
}

pub(super) fn point(taken: &Taken) -> Point {
    let Taken { applied, age } = taken;
    Point {
        packet: applied.sequence.0,
        as_of_unix_ms: age.as_of_unix_ms,
        clock_ahead_ms: age.clock_ahead_ms,
        given_out: age.given_out.map(|given_out| given_out.0),
        beyond: age.beyond,
    }
}

fn busy() -> Failure {
    Failure::new("Another failover of this set is under way.", UNTOUCHED, "Wait for its end.").passing()
}

fn no_state(options: &ProtectOptions, error: &std::io::Error) -> Failure {
    Failure::new(
        format!("The notes about failovers in {} cannot be used: {error}.", options.state.display()),
        "No replica was touched.",
        "Make room, or name another state directory with --state.",
    )
}
