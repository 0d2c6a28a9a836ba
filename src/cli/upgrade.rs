//! `standin upgrade`: a daemon goes on as another version, and programs in its directory see a pause.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, CommandFactory};
use serde::Serialize;
use serde_json::{Value, json};

use super::args::{Cli, Common};
use super::find::{Found, all, find_role, no_answer};
use super::{Outcome, TIMED_OUT, config, output};
use crate::control::{
    Client, ClientError, Phase, RoleName, UpgradeLook, UpgradeRequest, UpgradeStatus, WaitFor, WaitSync,
};
use crate::failure::Failure;
use crate::limits::{CONTROL_ANSWER, PROGRAM_ANSWER_MAX, TAKEOVER_START_MAX, UPGRADE_PAUSE};
use crate::source_side::{Formats, UPGRADE_AS_BEFORE};
use crate::units::{self, parse_duration};

/// How often it is looked whether the next program serves.
const POLL: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub struct Upgrade {
    /// Name or directory of the replication set [default: the only one]
    set: Option<PathBuf>,
    /// Each set of this host whose mount has a holder, one after the other
    #[arg(long, conflicts_with = "set")]
    all: bool,
    /// The program that the daemon goes on as [default: the one that this command is]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// How long sending everything may take while programs work, as in 30s, 5m
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "5m")]
    drain: Duration,
    /// How long programs may have to wait until the rest is sent [default: 10s]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pause: Option<Duration>,
    /// Also where a target is away, or lacks something: a copy brings it afterwards
    #[arg(long)]
    anyway: bool,
    /// Say what would be, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// What came of it, of one set.
#[derive(Debug, Default, Serialize)]
struct Report {
    set: String,
    pid: u32,
    from: String,
    to: String,
    dry_run: bool,
    /// What targets lacked, in words.
    lacking: Vec<String>,
    /// The targets went on where they were; else they are compared.
    same_run: Option<bool>,
    /// While programs worked.
    drained_ms: Option<u64>,
    /// How long changes of programs waited.
    pause_ms: Option<u64>,
    /// What targets got meanwhile.
    sent_packets: Option<u64>,
}

pub(super) fn run(common: &Common, args: &Upgrade) -> Outcome {
    let binary = binary(args)?;
    if !args.all {
        let found = find_role(common, args.set.as_deref(), RoleName::Source)?;
        let report = one(common, args, &binary, &found)?;
        show(common, &[report], &[]);
        return Ok(0);
    }
    let daemons = all(&common.asked_dir())?;
    let (mut reports, mut failures, mut code) = (Vec::new(), Vec::new(), 0);
    for daemon in &daemons {
        let found = match Found::of(daemon) {
            Ok(found) => found,
            // It goes on as nothing: whoever starts it next starts the next version.
            Err(failure) => {
                output::aside(&format!("{}: {failure}", daemon.name));
                failures.push(json!({ "set": daemon.name, "error": failure }));
                code = TIMED_OUT;
                continue;
            }
        };
        let Some(source) = found.status.source() else { continue };
        if !source.holder.kept {
            output::aside(&format!("{}: its mount has no holder, it goes on as it is", daemon.name));
            continue;
        }
        match one(common, args, &binary, &found) {
            Ok(report) => reports.push(report),
            Err(failure) => {
                output::aside(&format!("{}: {failure}", daemon.name));
                failures.push(json!({ "set": daemon.name, "error": failure }));
                code = TIMED_OUT;
            }
        }
    }
    show(common, &reports, &failures);
    Ok(code)
}

fn binary(args: &Upgrade) -> Result<PathBuf, Failure> {
    let named = args.binary.as_ref().map(std::path::absolute);
    named.unwrap_or_else(std::env::current_exe).map_err(|error| {
        Failure::new(
            format!("The program cannot be named: {error}."),
            UPGRADE_AS_BEFORE,
            "Name it with --binary.",
        )
    })
}

fn one(common: &Common, args: &Upgrade, binary: &Path, found: &Found) -> Result<Report, Failure> {
    let (status, pause) = (&found.status, args.pause.unwrap_or(UPGRADE_PAUSE));
    let ask = |client: &mut Client, dry_run: bool| {
        let request = UpgradeRequest {
            program: binary.to_owned(),
            patience_ms: pause.as_millis() as u64,
            anyway: args.anyway,
            dry_run,
        };
        client.upgrade(request, 2 * CONTROL_ANSWER + PROGRAM_ANSWER_MAX + pause)
    };
    let mut client = found.client()?;
    let look = ask(&mut client, true).map_err(|error| no_answer(&status.name, &error))?;
    let UpgradeLook { from, to, lacking } = look;
    let report = Report { set: status.name.clone(), from, to, lacking, pid: status.pid, ..Report::default() };
    if args.dry_run {
        return Ok(Report { dry_run: true, ..report });
    }
    // What cannot come is not waited for; whether it may lack the daemon decides.
    let drained_ms = match report.lacking.is_empty() {
        true => Some(drain(args, &status.name, &mut client)?),
        false => None,
    };
    let done =
        status.source().and_then(|source| source.holder.upgrade.as_ref()).map_or(0, |one| one.upgrades);
    match ask(&mut client, false) {
        // It is another program by now; or dead.
        Ok(_) | Err(ClientError::Broken(_)) => {}
        Err(error) => return Err(no_answer(&status.name, &error)),
    }
    let (next, upgrade) = wait_for_next(common, (&status.name, status.pid), done)?;
    if let Some(why) = upgrade.failed {
        return Err(Failure::new(
            format!("Version {} of '{}' did not come to serve: {why}", report.to, status.name),
            format!(
                "Version {} goes on; programs waited {}.",
                report.from,
                units::duration(Duration::from_millis(upgrade.pause_ms))
            ),
            "See the log of the daemon; mend that, and try again.",
        ));
    }
    let (pause_ms, sent_packets) = (Some(upgrade.pause_ms), Some(upgrade.sent_packets));
    let history = |found: &Found| found.status.source().map(|source| source.history.clone());
    let same_run = Some(history(&next) == history(found));
    Ok(Report { pid: next.status.pid, same_run, drained_ms, pause_ms, sent_packets, ..report })
}

/// Sends everything while programs work: what is left for the pause is little.
fn drain(args: &Upgrade, name: &str, client: &mut Client) -> Result<u64, Failure> {
    let began = Instant::now();
    let wait = WaitSync { wait_for: WaitFor::Durable, timeout: Some(args.drain) };
    let report = client.wait_sync(wait).map_err(|error| no_answer(name, &error))?;
    // Without a target there is nothing to wait for.
    let late = report.connections.iter().find(|connection| !connection.complete);
    if let Some(late) = late {
        return Err(Failure::new(
            format!(
                "Not everything is durable at the targets within {} ({}: {}).",
                units::duration(args.drain),
                late.target,
                late.waits_for
            ),
            UPGRADE_AS_BEFORE,
            "Wait until they are up to date (standin wait-sync), or give more time with --drain.",
        )
        .passing());
    }
    Ok(began.elapsed().as_millis() as u64)
}

/// Until it, or the one before again, serves. All of them are one process.
fn wait_for_next(
    common: &Common,
    (name, pid): (&str, u32),
    done: u64,
) -> Result<(Found, UpgradeStatus), Failure> {
    let deadline = Instant::now() + TAKEOVER_START_MAX;
    while Instant::now() < deadline {
        let has_ended = has_ended(pid);
        if let Ok(found) = find_role(common, Some(Path::new(name)), RoleName::Source)
            && found.status.phase == Phase::Serving
            && let Some(upgrade) = found.status.source().and_then(|source| source.holder.upgrade.clone())
            && upgrade.upgrades > done
        {
            return Ok((found, upgrade));
        }
        if has_ended {
            return Err(Failure::new(
                format!("The daemon of '{name}' (pid {pid}) has ended before the next program served."),
                "What programs have written is in the directory. Where its holder is left, their calls wait for the next daemon.",
                "See its log and `standin status`; start the protection again with the same command.",
            ));
        }
        std::thread::sleep(POLL);
    }
    Err(Failure::new(
        format!("No program has come to serve '{name}'."),
        "What programs have written is in the directory; their calls wait for the next daemon, as long as its holder does.",
        "See its log; start the protection again with the same command.",
    ))
}

/// Gone, or dead and not fetched by whoever started it.
fn has_ended(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// `failures`: of `--all`, those that did not go on as it.
fn show(common: &Common, reports: &[Report], failures: &[Value]) {
    match common.json {
        true => output::json(&json!({ "upgrades": reports, "failures": failures })),
        false => reports.iter().for_each(|report| output::text(&text(report))),
    }
}

/// For people.
fn text(report: &Report) -> String {
    let Report { set, pid, from, to, lacking, .. } = report;
    let shown = |ms: u64| units::duration(Duration::from_millis(ms));
    let mut text = match report.dry_run {
        true => format!(
            "'{set}' (pid {pid}) can go on as version {to}; it is version {from}. Nothing was changed.\n"
        ),
        false => format!("'{set}' (pid {pid}) goes on as version {to}; it was version {from}.\n"),
    };
    if let Some(pause) = report.pause_ms {
        let _ = writeln!(text, "  programs waited  {}", shown(pause));
    }
    if let Some(sent) = report.sent_packets {
        let _ = writeln!(text, "  sent meanwhile   {sent} packets");
    }
    if let Some(drained) = report.drained_ms {
        let _ = writeln!(text, "  sent before      in {}, while programs worked", shown(drained));
    }
    if report.same_run == Some(false) {
        text.push_str("  As after a stop and a start: targets are compared, and what differs is sent.\n");
        return text.trim_end().to_owned();
    }
    match (lacking.is_empty(), report.dry_run) {
        (true, true) => {
            text.push_str("  Targets have everything, or get it before: nothing is copied again.\n")
        }
        (true, false) => text.push_str("  Targets had everything: nothing is copied again.\n"),
        (false, true) => {
            let _ =
                writeln!(text, "  Only with --anyway, and with a copy afterwards: {}", lacking.join("; "));
        }
        (false, false) => {
            let _ = writeln!(text, "  A copy brings what is lacking: {}", lacking.join("; "));
        }
    }
    text.trim_end().to_owned()
}

/// What a daemon asks that may become this program.
#[derive(Debug, Args)]
pub struct AskedFormats {
    /// What that daemon was started with
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(super) fn formats(args: &AskedFormats) -> Outcome {
    let refused = match args.arguments.is_empty() {
        true => None,
        false => would_refuse(&args.arguments),
    };
    output::text(&json!(Formats { refused, ..Formats::own() }).to_string());
    Ok(0)
}

/// Whether `protect` with these would get as far as looking at the directory.
fn would_refuse(arguments: &[OsString]) -> Option<Failure> {
    let words = std::iter::once(OsString::from("standin")).chain(arguments.iter().cloned());
    let unknown = |error: clap::Error| {
        let what = error.to_string().lines().next().unwrap_or_default().to_owned();
        Failure::new(what, UPGRADE_AS_BEFORE, "Start it with what the other version knows.")
    };
    let mut typed = match Cli::command().try_get_matches_from(words) {
        Ok(typed) => typed,
        Err(error) => return Some(unknown(error)),
    };
    let common = match <Common as clap::FromArgMatches>::from_arg_matches(&typed) {
        Ok(common) => common,
        Err(error) => return Some(unknown(error)),
    };
    match typed.remove_subcommand() {
        Some((name, typed)) if name == "protect" => config::protect(&common, &typed).err(),
        _ => Some(Failure::new("Its arguments protect nothing.", UPGRADE_AS_BEFORE, "")),
    }
}
