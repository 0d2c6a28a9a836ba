//! `standin verify`: compare a replica with its directory while both are in use.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;

use super::args::Common;
use super::find::{Found, find_role, no_answer};
use super::status::{said, verified_words};
use super::{Outcome, output};
use crate::control::{Found as Difference, MirrorStatus, RoleName, VerifyReport, VerifyRequest};
use crate::failure::Failure;
use crate::packet::DifferenceKind;
use crate::units::{self, parse_duration, parse_size};

/// How often the progress on a terminal is brought up to date.
const SHOWN_EVERY: Duration = Duration::from_millis(500);

/// Queued packets, in bytes, that are worth a word.
const BEHIND_SHOWN: u64 = 16 << 20;

/// The replica differs.
const DIFFERS: u8 = 1;

/// Exits with 0 where the replica is identical, 1 where it differs, 2 where it could not be compared.
#[derive(Debug, Args)]
pub struct Verify {
    /// Name or directory of a replication set [default: the only one]
    pub set: Option<PathBuf>,
    /// Only what lies there: absolute, or relative to the protected directory
    pub path: Option<PathBuf>,
    /// Compare content too, by hashes of its blocks
    #[arg(long)]
    pub checksum: bool,
    /// Compare content too, by a hash that stands up to whoever chose the content
    #[arg(long)]
    pub audit: bool,
    /// Have a copy mend what differs, and compare again
    #[arg(long)]
    pub repair: bool,
    /// Read no more than this many bytes of content in a second, as in 50M
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub rate: Option<u64>,
    /// Give up after this long, as in 30s, 5m [default: never]; nothing is changed by that
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Compare nothing: say what the last verification came to
    #[arg(long, conflicts_with_all = ["path", "checksum", "audit", "repair", "rate", "timeout"])]
    pub last: bool,
    /// Number, UUID or target of the connection [default: the only one]
    #[arg(long, value_name = "ID|UUID|TARGET")]
    pub connection: Option<String>,
}

pub(super) fn run(common: &Common, args: &Verify) -> Outcome {
    let found = find_role(common, args.set.as_deref(), RoleName::Source)?;
    if args.last {
        return last(common, args.connection.as_deref(), &found);
    }
    let request = VerifyRequest {
        which: args.connection.clone(),
        checksum: args.checksum,
        audit: args.audit,
        repair: args.repair,
        rate: args.rate,
        path: args.path.clone(),
        timeout_ms: args.timeout.map(|timeout| timeout.as_millis().try_into().unwrap_or(u64::MAX)),
    };
    let report = shown(&found, || {
        found.client()?.verify(request).map_err(|error| no_answer(&found.status.name, &error))
    })?;
    if common.json {
        report.differences.iter().for_each(|difference| output::json(&json!({ "difference": difference })));
        output::json(&json!({ "summary": VerifyReport { differences: Vec::new(), ..report.clone() } }));
    } else {
        output::text(&text(&report));
    }
    Ok(if report.identical { 0 } else { DIFFERS })
}

/// What is known, of whichever connection is meant.
fn last(common: &Common, which: Option<&str>, found: &Found) -> Outcome {
    let connections = found.status.connections();
    let meant = connections.iter().filter(|connection| which.is_none_or(|which| connection.is(which)));
    let mut identical = None;
    for connection in meant {
        let Some(verified) = &connection.verified else { continue };
        identical = Some(identical.unwrap_or(true) && verified.is_identical());
        match common.json {
            true => output::json(&json!({
                "connection": connection.id, "target": connection.target, "verified": verified,
            })),
            false => output::text(&format!(
                "{}  {}  {}",
                connection.id,
                connection.target,
                verified_words(verified, found.status.now_unix_ms)
            )),
        }
    }
    match identical {
        Some(true) => Ok(0),
        Some(false) => Ok(DIFFERS),
        None => Err(Failure::new(
            "No verification has come to an end yet.",
            "Nothing was compared.",
            "`standin verify` without --last compares.",
        )),
    }
}

/// Shows on a terminal how far it is, until it is done.
fn shown<T>(found: &Found, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let (done, is_done) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(|| show(found, is_done));
        let outcome = work();
        drop(done);
        outcome
    })
}

fn show(found: &Found, is_done: Receiver<()>) {
    let bar = ProgressBar::new_spinner();
    while is_done.recv_timeout(SHOWN_EVERY) == Err(RecvTimeoutError::Timeout) {
        let Ok(status) = found
            .client()
            .and_then(|mut client| client.status().map_err(|error| no_answer(&found.status.name, &error)))
        else {
            continue;
        };
        let progress = status.connections().iter().find_map(|connection| {
            let progress = connection.progress.as_ref()?;
            Some((connection.mirror == MirrorStatus::Verifying, progress.clone(), connection.queued))
        });
        match progress {
            Some((true, progress, queued)) => bar.set_message(format!(
                "verifying: {} files, {} compared{}  {}",
                units::count(progress.files_done),
                units::size(progress.bytes_done.max(progress.bytes_compared)),
                behind(queued.bytes),
                progress.current
            )),
            Some((false, ..)) => bar.set_message("waiting for the mirror that runs"),
            None => {}
        }
        bar.tick();
    }
    bar.finish_and_clear();
}

/// What is compared goes behind what was written before.
fn behind(bytes: u64) -> String {
    match bytes {
        0..BEHIND_SHOWN => String::new(),
        _ => format!(", waiting behind {} of packets", units::size(bytes)),
    }
}

/// The report in words.
pub(super) fn text(report: &VerifyReport) -> String {
    let mut text = String::new();
    for Difference { kind, path, bytes } in &report.differences {
        let size = if *bytes > 0 { format!("  ({})", units::size(*bytes)) } else { String::new() };
        let _ = writeln!(text, "{:<10}  {}{size}", kind_word(*kind), said(path));
    }
    let counts = &report.counts;
    let named = report.differences.len() as u64;
    if named > 0 && counts.missing + counts.extra + counts.different > named {
        let _ = writeln!(text, "and more, which are counted only");
    }
    let verdict = if report.identical { "is identical" } else { "differs" };
    let _ = writeln!(
        text,
        "The replica of connection {} ({}) {verdict}: {} compared as of {} to {} in {}.",
        report.connection,
        report.target,
        objects(counts.compared),
        report.from,
        report.upto,
        units::duration(Duration::from_millis(report.took_ms))
    );
    if counts.bytes_compared > 0 {
        let _ = writeln!(text, "{} of content were compared.", units::size(counts.bytes_compared));
    }
    if !report.identical {
        let _ = writeln!(
            text,
            "Missing: {}; extra: {}; different: {}; bytes out of step: {}.",
            units::count(counts.missing),
            units::count(counts.extra),
            units::count(counts.different),
            units::count(counts.bytes_out_of_step)
        );
    }
    if let Some(before) = &report.before_repair {
        let _ = writeln!(
            text,
            "Repaired: {} differences before, {} after; {} out of step before, {} after.",
            units::count(before.missing + before.extra + before.different),
            units::count(counts.missing + counts.extra + counts.different),
            units::size(before.bytes_out_of_step),
            units::size(counts.bytes_out_of_step)
        );
    }
    if report.unread > 0 {
        let _ = writeln!(text, "{} could not be read here.", objects(report.unread));
    }
    text
}

fn objects(number: u64) -> String {
    format!("{} object{}", units::count(number), if number == 1 { "" } else { "s" })
}

fn kind_word(kind: DifferenceKind) -> &'static str {
    match kind {
        DifferenceKind::Missing => "missing",
        DifferenceKind::Extra => "extra",
        DifferenceKind::Type => "type",
        DifferenceKind::Object => "object",
        DifferenceKind::Size => "size",
        DifferenceKind::Content => "content",
        DifferenceKind::Mode => "mode",
        DifferenceKind::Owner => "owner",
        DifferenceKind::Mtime => "mtime",
        DifferenceKind::Xattr => "xattr",
        DifferenceKind::Unreadable => "unreadable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{CheckCounts, Sequence};

    #[test]
    fn a_report_names_what_differs_and_counts_it() {
        let mut report = VerifyReport {
            connection: 1,
            target: "local:/srv/replica".into(),
            identical: false,
            counts: CheckCounts {
                compared: 7,
                different: 1,
                bytes_out_of_step: 65_536,
                ..Default::default()
            },
            before_repair: None,
            unread: 0,
            from: Sequence(3),
            upto: Sequence(5),
            took_ms: 20,
            differences: vec![Difference {
                kind: DifferenceKind::Content,
                path: "/srv/web/a".into(),
                bytes: 65_536,
            }],
        };
        let said = text(&report);
        for part in
            ["content     /srv/web/a  (64 KiB)", "differs: 7 objects compared as of 3 to 5", "different: 1"]
        {
            assert!(said.contains(part), "no '{part}' in: {said}");
        }
        (report.identical, report.differences) = (true, Vec::new());
        assert!(text(&report).starts_with("The replica of connection 1 (local:/srv/replica) is identical"));
    }
}
