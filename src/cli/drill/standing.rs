//! A drill that stays open: `standin drill start`, `shell` and `stop`.
//!
//! ```text
//!  start ── starts ──> drill-open     a process of its own, which is the drill: it has the namespaces, and ends them
//!        <── open ───────┘  ^
//!  stop ─────── SIGTERM ────┘
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::options::Run;
use super::run::{self, End};
use super::{UNTOUCHED, below, no_state, open, recover, reports, turn};
use crate::cli::args::{Cli, Common};
use crate::cli::{CANNOT, Outcome, output};
use crate::drill::isolation::enter::{self, Entry};
use crate::drill::journal::{Journal, Record};
use crate::drill::make_way::{has_ended, process};
use crate::drill::report::Report;
use crate::drill::visit::Door;
use crate::failure::Failure;
use crate::signals::stop_signals;
use crate::sys::pass_alone;

/// How often it is looked whether a drill that was asked to end has.
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// The process of a drill that stays open could not begin to be what was asked for: as of other programs that enter.
const NOT_ENTERED: u8 = 126;

/// The command of this program that is a drill that stays open.
const COMMAND: &str = "drill-open";

/// What the process of the drill says to who has started it, on lines of their own.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Open(Box<Report>),
    /// It has ended before it was open.
    Ended(Box<Report>),
}

pub(super) fn start(common: &Common, args: &Run) -> Outcome {
    if !args.check.is_empty() || args.prove {
        return Err(Failure::new(
            "A drill that stays open runs no checks.",
            UNTOUCHED,
            "Leave --check and --prove out; `standin drill shell -- COMMAND` runs something in it.",
        ));
    }
    open(common)?;
    alone()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("standin").arg(COMMAND).arg("--").args(std::env::args_os().skip(1));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| no_state(&error))?;
    let from = child.stdout.take().into_iter().flat_map(|from| BufReader::new(from).lines());
    let mut ended = None;
    for line in from.map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Told::Open(report)) => {
                tell_open(common, &report);
                return Ok(0);
            }
            Ok(Told::Ended(report)) => ended = Some(report),
            // What any command says that could not work.
            Err(_) => output::text(&line),
        }
    }
    if let Some(report) = ended {
        reports::show(common, &report);
    }
    let status = child.wait().map_err(|error| no_state(&error))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(CANNOT))
}

/// What this process was started with beside its three streams is passed on to none that it starts.
fn alone() -> Result<(), Failure> {
    pass_alone(std::io::stdin().as_fd()).map_err(|error| no_state(&error))
}

fn tell_open(common: &Common, report: &Report) {
    if common.json {
        return reports::show(common, report);
    }
    output::text(&format!(
        "Drill {} of {} is open: the data are at {} in it.\n  standin drill shell               a shell in it\n  \
         standin drill shell -- COMMAND    a command in it\n  standin drill stop                its end\n",
        report.number, report.set, report.at
    ));
}

/// The process of a drill that stays open. `rest`: what was typed.
pub(in crate::cli) fn keep_open(rest: &[OsString]) -> Outcome {
    // Until it is open it ends with who has started it, and the end of his terminal is none of its business.
    let bound = rustix::process::setsid()
        .and_then(|_| rustix::process::set_parent_process_death_signal(Some(Signal::TERM)));
    bound.map_err(|error| no_state(&error.into()))?;
    let nobody = || Failure::new("A drill is kept open for nobody.", UNTOUCHED, "Use `standin drill start`.");
    let words = std::iter::once(OsString::from("standin")).chain(rest.iter().cloned());
    let typed = Cli::command().try_get_matches_from(words).map_err(|_| nobody())?;
    let Cli { common, .. } = Cli::from_arg_matches(&typed).map_err(|_| nobody())?;
    run::run(&common, below(below(&typed, "drill"), "start"), End::Stopped)
}

/// Tells who has started it that it is open: nobody hears what is said after that.
pub(super) fn opened(report: &Report) {
    // Before it is told: who has started it ends then.
    let _ = rustix::process::set_parent_process_death_signal(None);
    if tell(&Told::Open(Box::new(report.clone()))).is_err() {
        // He is gone already.
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::TERM);
    }
    let _ = rustix::process::chdir("/");
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(null.as_fd());
        let _ = rustix::stdio::dup2_stderr(null.as_fd());
    }
}

pub(super) fn ended(report: &Report) {
    // Who has started it may be gone: it was told to end, then.
    let _ = tell(&Told::Ended(Box::new(report.clone())));
}

fn tell(told: &Told) -> std::io::Result<()> {
    let line = serde_json::to_string(told)?;
    writeln!(std::io::stdout(), "{line}")
}

pub(super) fn stop(common: &Common) -> Outcome {
    let journal = open(common)?;
    let record = open_one(&journal)?;
    let number = record.report.number;
    let running = record.command.map(process).transpose().map_err(|error| no_state(&error))?.flatten();
    if let Some(running) = running {
        match rustix::process::pidfd_send_signal(&running, Signal::TERM) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(no_state(&error.into())),
        }
        while !has_ended(&running, ASKED_EVERY).map_err(|error| no_state(&error))? {}
    }
    if let Some(turn) = turn(&journal)? {
        recover(&journal, &turn)?;
    }
    let all = journal.all().map_err(|error| no_state(&error))?;
    let report = all.into_iter().map(|kept| kept.report).find(|report| report.number == number);
    let report = report.ok_or_else(|| {
        let next = "`standin drill list` shows how it is.";
        Failure::new(format!("Drill {number} has no report yet."), "No replica was touched.", next)
    })?;
    reports::show(common, &report);
    Ok(run::code(&report))
}

/// The drill that is open.
///
/// Errors: there is none. One whose process has died is cleaned up.
fn open_one(journal: &Journal) -> Result<Record, Failure> {
    let none = |what: &str| Failure::new(what, UNTOUCHED, "`standin drill start` opens one.");
    if let Some(turn) = turn(journal)? {
        recover(journal, &turn)?;
        return Err(none("No drill is open on this host."));
    }
    match journal.running().map_err(|error| no_state(&error))? {
        Some(record) if record.is_open => Ok(record),
        Some(record) => Err(Failure::new(
            format!("Drill {} is not open: it runs, begins or ends.", record.report.number),
            UNTOUCHED,
            "`standin drill list` shows how it is.",
        )),
        None => Err(none("No drill is open on this host.")),
    }
}

pub(super) fn shell(common: &Common, command: &[String]) -> Outcome {
    let journal = open(common)?;
    let has_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if command.is_empty() && !has_terminal {
        return Err(Failure::new(
            "A shell needs a terminal, and standin was started without one.",
            UNTOUCHED,
            "Type it in a terminal, or say what is to be run: standin drill shell -- COMMAND.",
        ));
    }
    let record = open_one(&journal)?;
    alone()?;
    let number = record.report.number;
    let refuse = |error: std::io::Error| {
        let what = format!("Drill {number} cannot be entered: {error}.");
        Failure::new(what, UNTOUCHED, "`standin drill list` shows how it is.")
    };
    let first = record.process.ok_or_else(|| refuse(std::io::ErrorKind::NotFound.into()))?;
    let mut environment = record.report.environment();
    environment.extend(std::env::var("SHELL").ok().map(|shell| ("SHELL".to_owned(), shell)));
    let at = PathBuf::from(&record.report.at);
    let group = record.report.limits.and_then(|limits| limits.group);
    let entry = Entry { at, environment, command: command.to_vec(), has_terminal, group };
    let (tell, stops) = crossbeam_channel::unbounded();
    let caught = stop_signals().and_then(|signals| signals.forward(move || tell.send(()).is_ok()));
    caught.map_err(refuse)?;
    Door::of(first).and_then(|door| door.visit(&entry, (&journal, number), &stops)).map_err(refuse)
}

/// The process in a drill that this program starts itself.
pub(in crate::cli) fn enter(rest: &[OsString]) -> Outcome {
    let entry =
        rest.first().and_then(|entry| entry.to_str()).and_then(|text| serde_json::from_str(text).ok());
    let Some(entry) = entry else {
        return Err(Failure::new(
            "Nobody has said what is entered.",
            UNTOUCHED,
            "Use `standin drill shell`.",
        ));
    };
    match enter::enter(&entry) {
        Ok(never) => match never {},
        Err(why) => {
            output::aside(&why);
            Ok(NOT_ENTERED)
        }
    }
}
