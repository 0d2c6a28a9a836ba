//! `standin drill run`, and what `standin drill start` has in common with it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::ArgMatches;

use super::options::{Net, Run, checked};
use super::{FAILED, UNTOUCHED, left, no_state, not_built, open, places, recover, reports, standing, turn};
use crate::cli::args::Common;
use crate::cli::clone::{Meant, only_one, replicas_of};
use crate::cli::{CANNOT, Outcome, config, output};
use crate::control::unix_ms;
use crate::drill::Verdict;
use crate::drill::driver::Drill;
use crate::drill::group::Limits;
use crate::drill::journal::{Journal, Record, begun};
use crate::drill::recovery;
use crate::drill::report::{CloneReport, FromFile, Report};
use crate::drill::request::Request;
use crate::failure::Failure;
use crate::signals::stop_signals;
use crate::sys::Network;

/// The data passed, and something beside that is not well: it is not shown that they could have failed, or a hook failed.
const BESIDE: u8 = 3;

/// How a drill comes to its end.
pub(super) enum End {
    ByItself,
    /// When it is stopped: it has no checks.
    Stopped,
}

/// `typed`: what the drill is to do.
pub(super) fn run(common: &Common, typed: &ArgMatches, end: End) -> Outcome {
    let (args, file) = config::drill(common, typed)?;
    let args = &args;
    if args.marker.is_some() {
        return Err(not_built("run --marker"));
    }
    let at = places::check(args.at.as_deref())?;
    let shown = places::shown(&args.show)?;
    checked(args)?;
    let journal = open(common)?;
    let turn = turn(&journal)?.ok_or_else(|| {
        let next =
            "Wait for its end, or end it with Ctrl-C; one that is open ends with `standin drill stop`.";
        Failure::new("A drill is running on this host.", UNTOUCHED, next)
    })?;
    recover(&journal, &turn)?;
    let replica = only_one(replicas_of(&common.run_dir(), args.set.as_deref())?)?;
    places::check_beside(&at, &replica)?;
    places::check_good(&replica)?;
    recovery::sweep(&journal, &replica).map_err(|why| left(&replica, &why))?;
    let record = record(common, (args, file), &at, &replica, &journal)?;
    let (tell, stops) = crossbeam_channel::unbounded();
    let caught = stop_signals().and_then(|signals| signals.forward(move || tell.send(()).is_ok()));
    caught.map_err(|error| no_state(&error))?;
    if args.net == Net::Host && !common.json {
        output::aside(
            "--net host: what the commands of this drill start reaches everything that this host reaches.",
        );
    }
    let stays_open = matches!(end, End::Stopped);
    let request = Request { stays_open, ..request(common, args, at, shown)? };
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
        opened: &standing::opened,
        turn,
    };
    let report = drill.run().map_err(|error| no_state(&error))?;
    match end {
        End::ByItself => reports::show(common, &report),
        End::Stopped => standing::ended(&report),
    }
    Ok(code(&report))
}

pub(super) fn code(report: &Report) -> u8 {
    match report.verdict {
        Some(Verdict::Passed | Verdict::Opened) if report.is_unproven() || report.has_failed_hook() => BESIDE,
        Some(Verdict::Passed | Verdict::Opened) => 0,
        Some(Verdict::Failed) if !report.could_not => FAILED,
        Some(Verdict::Failed | Verdict::Interrupted) | None => CANNOT,
    }
}

fn request(common: &Common, args: &Run, at: PathBuf, shown: Vec<PathBuf>) -> Result<Request, Failure> {
    Ok(Request {
        at,
        start: args.start.clone(),
        ready: args.ready.clone(),
        checks: args.checks(),
        stays_open: false,
        stop: args.stop.clone(),
        proves: args.prove,
        before: args.before.clone(),
        after: args.after.clone(),
        timeout: args.timeout,
        clone_timeout: args.clone_timeout,
        network: if args.net == Net::Own { Network::Own } else { Network::Host },
        limits: Limits {
            cpu_weight: args.cpu_weight,
            cpu_max: args.cpu_max,
            io_weight: args.io_weight,
            memory_max: args.memory_max,
        },
        hidden: places::hidden(common)?,
        shown,
    })
}

fn record(
    common: &Common,
    (args, file): (&Run, Option<FromFile>),
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
        file,
        replica: path.display().to_string(),
        at: places::text(at)?,
        started_unix_ms: unix_ms(SystemTime::now()),
        ended_unix_ms: 0,
        point: None,
        steps: Vec::new(),
        usable_after_ms: None,
        checked_after_ms: None,
        isolation: None,
        limits: None,
        lag: None,
        clone: CloneReport { directory, ..CloneReport::default() },
        proof: None,
        left: None,
    };
    let own = std::process::id();
    let command = begun(own).map(|since| (own, since));
    let run = std::path::absolute(common.run_dir()).map_err(|error| no_state(&error))?;
    Ok(Record {
        report,
        run,
        replica: path.to_owned(),
        keeps: args.keep,
        is_begun: false,
        process: None,
        command,
        is_open: false,
    })
}
