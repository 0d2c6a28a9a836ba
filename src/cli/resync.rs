//! `standin resync estimate`: what a resynchronisation of each target would take, if it began now.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::args::Common;
use super::find::{Found, all, find_role, no_answer};
use super::status::state_word;
use super::{Outcome, output};
use crate::control::{
    Answer, Bounds, ConnectionStatus, ResyncForeseen, ResyncReport, ResyncStatus, Role, RoleName, Rung,
};
use crate::events::{Sample, Series};
use crate::failure::Failure;
use crate::packet::Sequence;
use crate::units;

#[derive(Debug, Args)]
pub struct Resync {
    #[command(subcommand)]
    command: ResyncCommand,
}

#[derive(Debug, Subcommand)]
enum ResyncCommand {
    /// Say for each connection what a resynchronisation would take if it began now, and why; nothing is changed
    Estimate {
        /// Name or directory of a replication set [default: the only one]
        set: Option<PathBuf>,
    },
}

pub(super) fn run(common: &Common, args: &Resync) -> Outcome {
    match &args.command {
        ResyncCommand::Estimate { set } => estimate(common, set.as_deref()),
    }
}

fn estimate(common: &Common, set: Option<&Path>) -> Outcome {
    let found = source(common, set)?;
    let name = &found.status.name;
    let mut client = found.client()?;
    let mut report = client.foresee().map_err(|error| no_answer(name, &error))?;
    // A daemon of an older version keeps none: then it is not known.
    let history = client.history().unwrap_or_default();
    for foreseen in &mut report.connections {
        let connection = found.status.connections().iter().find(|one| one.id == foreseen.id);
        at_rate(foreseen, rate(&history, &foreseen.uuid, connection));
    }
    match common.json {
        true => output::json(&report),
        false => output::text(&text(&report)),
    }
    Ok(0)
}

/// The source that is meant. Errors: as [`find_role`]; it is a replica here.
pub(super) fn source(common: &Common, set: Option<&Path>) -> Result<Found, Failure> {
    find_role(common, set, RoleName::Source).map_err(|failure| {
        let held = set.and_then(|set| held_here(common, set));
        held.map_or(failure, |held| {
            Failure::new(
                format!("{held} is held here as a replica: what it lacks its source knows."),
                "Nothing was changed.",
                "Ask the daemon of `standin protect`, on the host of the source.",
            )
        })
    })
}

/// The replica of this host that is meant.
fn held_here(common: &Common, set: &Path) -> Option<String> {
    let daemons = all(&common.asked_dir()).ok()?;
    let replicas = daemons.iter().filter_map(|daemon| match &daemon.answer {
        Answer::Status(status) => match &status.role {
            Role::Target { target } => Some(&target.replicas),
            Role::Source(_) => None,
        },
        Answer::Dead | Answer::None(_) => None,
    });
    let mut meant = replicas.flatten().filter(|one| Path::new(&one.name) == set || one.directory == set);
    meant.next().map(|one| one.name.clone())
}

/// The highest at which a target was sent to in the last quarter of an hour, else in the last day; no more than its
/// limit lets through. `None`: it was sent nothing.
fn rate(history: &[Series], uuid: &str, connection: Option<&ConnectionStatus>) -> Option<u64> {
    let of = history.iter().find(|series| series.connection == uuid)?;
    let highest = |samples: &[Sample]| {
        let rates = samples.iter().map(|sample| sample.sent_rate as u64);
        rates.max().filter(|&rate| rate > 0)
    };
    let seen = highest(&of.seconds).or_else(|| highest(&of.minutes))?;
    let limit = connection.and_then(|connection| connection.limit.as_ref()?.rate);
    Some(limit.map_or(seen, |limit| seen.min(limit)))
}

fn at_rate(foreseen: &mut ResyncForeseen, rate: Option<u64>) {
    foreseen.bytes_per_second = rate;
    let is_known = foreseen.bytes != Bounds::UNKNOWN;
    foreseen.seconds = rate.filter(|_| is_known).map(|rate| foreseen.bytes.over(rate));
}

fn text(report: &ResyncReport) -> String {
    let mut text = format!("{} at {}:{}\n", report.name, report.history, report.last);
    report.connections.iter().for_each(|foreseen| lines(&mut text, foreseen));
    text
}

fn lines(text: &mut String, foreseen: &ResyncForeseen) {
    let ResyncForeseen { id, target, state, rung, why, running, assumes, waits_for, .. } = foreseen;
    let _ = writeln!(text, "\n{id}  {target}  {}", state_word(*state));
    let mut line = |name: &str, what: &str| {
        if !what.is_empty() {
            let _ = writeln!(text, "   {name:<10} {what}");
        }
    };
    line(if *running { "takes now" } else { "would take" }, &rung_words(*rung, foreseen.since));
    line("because", why);
    if rung.is_some_and(|rung| rung > Rung::Nothing) {
        line("expected", &amounts(foreseen));
        line("time", &time(foreseen));
    }
    line("if", assumes);
    line("waits for", waits_for);
}

/// How a target is, or was, brought into line: the rung, and how much it comes to as far as that is known.
pub(super) fn taken_words(resync: &ResyncStatus) -> String {
    let ResyncStatus { rung, since, searched, packets, objects, bytes, .. } = resync;
    let words = rung_words(Some(*rung), *since);
    let by_times = if *searched { ", looked for by change times" } else { "" };
    match rung {
        Rung::Queue => format!("{words}: {}", queued_words(*packets, *bytes)),
        Rung::Owed if *objects == Bounds::UNKNOWN => words + by_times,
        Rung::Owed => format!("{words}{by_times}: {}", owed_words(*objects, *bytes)),
        Rung::Nothing | Rung::Differences | Rung::Checksum | Rung::Full => words,
    }
}

fn queued_words(packets: Bounds, bytes: Bounds) -> String {
    format!("{}, {}", count(packets, "packet", "packets"), expected(bytes, units::size))
}

fn owed_words(objects: Bounds, bytes: Bounds) -> String {
    format!("{}, {} of content", count(objects, "object", "objects"), expected(bytes, units::size))
}

fn count(amount: Bounds, one: &str, many: &str) -> String {
    match amount.at_most {
        Some(1) if amount.at_least == 1 => format!("1 {one}"),
        _ => format!("{} {many}", expected(amount, units::count)),
    }
}

fn rung_words(rung: Option<Rung>, since: Option<Sequence>) -> String {
    let since = since.map(|since| format!(" behind packet {since}")).unwrap_or_default();
    match rung {
        None => "nothing that would be of use".into(),
        Some(Rung::Nothing) => "nothing".into(),
        Some(Rung::Queue) => format!("what is queued{since}"),
        Some(Rung::Owed) => format!("a copy of what has changed{since} (minicopy)"),
        Some(Rung::Differences) => "a copy of everything that differs".into(),
        Some(Rung::Checksum) => "a copy of everything, with all content in doubt".into(),
        Some(Rung::Full) => "a copy of everything, with all content".into(),
    }
}

fn amounts(foreseen: &ResyncForeseen) -> String {
    let ResyncForeseen { rung, running, packets, objects, bytes, set_files, set_bytes, .. } = foreseen;
    let size = || expected(*bytes, units::size);
    let mut said = match rung {
        _ if *running => format!("{} to go (`standin status` says how far it is)", size()),
        Some(Rung::Queue) => queued_words(*packets, *bytes),
        Some(Rung::Owed) => owed_words(*objects, *bytes),
        _ => format!("{} of content", size()),
    };
    let is_whole = matches!(rung, Some(Rung::Differences | Rung::Checksum | Rung::Full));
    if let Some(files) = set_files.filter(|_| is_whole) {
        let size = set_bytes.map(|bytes| format!(" of {}", units::size(bytes))).unwrap_or_default();
        let _ = write!(said, "; the set has about {} files{size}", units::count(files));
    }
    said
}

fn time(foreseen: &ResyncForeseen) -> String {
    let Some((seconds, rate)) = foreseen.seconds.zip(foreseen.bytes_per_second) else {
        return "not known".into();
    };
    let seconds = expected(seconds, |seconds| units::duration(Duration::from_secs(seconds)));
    format!("{seconds} at {} a second, the most that it was sent lately", units::size(rate))
}

fn expected(Bounds { at_least, at_most }: Bounds, words: impl Fn(u64) -> String) -> String {
    match (at_least, at_most) {
        (0, None) => "not known how many".into(),
        (least, None) => format!("at least {}", words(least)),
        (least, Some(most)) if least == most => words(most),
        (0, Some(most)) => format!("at most {}", words(most)),
        (least, Some(most)) => format!("{} to {}", words(least), words(most)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::control::ConnectionState;

    pub(in crate::cli) fn foreseen(rung: Option<Rung>) -> ResyncForeseen {
        ResyncForeseen {
            id: 1,
            uuid: "c0ffee".into(),
            target: "local:/r".into(),
            state: ConnectionState::Stopped,
            rung,
            why: "the queue became full".into(),
            running: false,
            assumes: "its target has what it had".into(),
            waits_for: "it is stopped: `standin connection start 1`".into(),
            since: Some(Sequence(7)),
            packets: Bounds::exactly(0),
            objects: Bounds::exactly(3),
            bytes: Bounds { at_least: 1 << 20, at_most: Some(2 << 20) },
            set_files: Some(1234),
            set_bytes: Some(3 << 30),
            bytes_per_second: None,
            seconds: None,
        }
    }

    fn said(foreseen: ResyncForeseen) -> String {
        let connections = vec![foreseen];
        text(&ResyncReport { name: "web".into(), history: "1.2".into(), last: Sequence(9), connections })
    }

    #[test]
    fn what_is_owed_is_told_with_its_bounds_and_its_time() {
        let mut owed = foreseen(Some(Rung::Owed));
        at_rate(&mut owed, Some(1 << 20));
        assert_eq!(
            said(owed),
            "\
web at 1.2:9

1  local:/r  stopped
   would take a copy of what has changed behind packet 7 (minicopy)
   because    the queue became full
   expected   3 objects, 1 MiB to 2 MiB of content
   time       1.0 s to 2.0 s at 1 MiB a second, the most that it was sent lately
   if         its target has what it had
   waits for  it is stopped: `standin connection start 1`
"
        );
    }

    #[test]
    fn what_is_not_known_is_said_to_be_so() {
        let unknown = ResyncForeseen { bytes: Bounds::UNKNOWN, ..foreseen(Some(Rung::Differences)) };
        let text = said(unknown.clone());
        assert!(
            text.contains("expected   not known how many of content; the set has about 1,234 files of 3 GiB"),
            "{text}"
        );
        assert!(text.contains("time       not known"), "{text}");
        let mut timed = unknown;
        at_rate(&mut timed, Some(5));
        assert_eq!((timed.seconds, timed.bytes_per_second), (None, Some(5)));
        let nothing = said(foreseen(Some(Rung::Nothing)));
        assert!(nothing.contains("would take nothing\n") && !nothing.contains("expected"), "{nothing}");
        let one = ResyncForeseen { objects: Bounds::exactly(1), ..foreseen(Some(Rung::Owed)) };
        assert!(said(one).contains("1 object, "));
    }

    #[test]
    fn the_rate_is_the_highest_that_was_seen_within_the_limit() {
        let sample = |rate: f32| Sample { sent_rate: rate, ..Sample::default() };
        let series = |seconds: &[f32], minutes: &[f32]| {
            let all = |rates: &[f32]| rates.iter().map(|&rate| sample(rate)).collect();
            vec![Series {
                connection: "c0ffee".into(),
                seconds: all(seconds),
                minutes: all(minutes),
                ..Series::default()
            }]
        };
        assert_eq!(rate(&series(&[5.0, 900.0, 0.0], &[9999.0]), "c0ffee", None), Some(900));
        assert_eq!(rate(&series(&[0.0], &[7.0]), "c0ffee", None), Some(7));
        assert_eq!(rate(&series(&[0.0], &[]), "c0ffee", None), None);
        assert_eq!(rate(&series(&[5.0], &[]), "beef", None), None);
    }
}
