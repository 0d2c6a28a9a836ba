//! `standin status`: how a daemon is, for people and for monitoring systems.

mod age;
mod drills;
mod history;
mod monitors;
pub(super) mod not_served;
mod watch;
mod words;

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use self::age::age_lines;
pub(super) use self::age::clock;
use self::drills::{drill_lines, drills};
use self::monitors::{monitor_lines, monitors};
use self::not_served::Absent;
pub(super) use self::words::{
    age, compression_words, data_short, data_word, label, limit_words, mirror_words, packets, progress_words,
    replica_word, said, schedule_words, state_word, verified_words,
};
use self::words::{amount, lag, link_words};
use super::args::{self, Common};
use super::find::find;
use super::resync::taken_words;
use super::{Outcome, output};
use crate::control::{
    AsideStatus, ConnectionStatus, Finding, FsyncStatus, LostWrites, Phase, ReplicaStatus, Role, RoleName,
    Severity, SourceStatus, Status, TargetKind, TargetStatus,
};
use crate::cover::Cover;
use crate::drill::expected::Expected;
use crate::events::Seen;
use crate::failure::Failure;
use crate::monitor::shown::Monitored;
use crate::source_side::NotServed;
use crate::units;

/// Names of objects that are set aside, as many as a screen takes.
const ASIDE_SHOWN: usize = 10;

pub(super) fn run(common: &Common, args: &args::Status) -> Outcome {
    if args.watch {
        return watch::watch(common, args);
    }
    if args.history {
        return history::history(common, args);
    }
    let (set, absent) = (args.set.as_deref(), Absent::look(common));
    match find(common, set) {
        Ok(found) => Ok(show(common, &found.status, absent.beside(set)).exit_code()),
        Err(failure) => match absent.instead(common, set) {
            Some(absent) => Ok(not_served::show(common, absent).exit_code()),
            None => Err(absent.told(covered(common, failure))),
        },
    }
}

/// No daemon says it of a directory that was handed over.
fn covered(common: &Common, failure: Failure) -> Failure {
    let covers = Cover::all(&common.state_dir());
    let words = covers.iter().map(|(name, cover)| format!(" '{name}': {}.", cover.words()));
    Failure { what: format!("{}{}", failure.what, words.collect::<String>()), ..failure }
}

/// Gives the worst of all that was shown.
fn show(common: &Common, status: &Status, absent: Absent) -> Severity {
    let document =
        Document::new(status).with(monitors(common, status), drills(common, status)).beside(absent);
    let severity = document.severity;
    match common.json {
        true => output::json(&document),
        false => {
            let beside = monitor_lines(&document.monitors)
                + &drill_lines(&document.drills)
                + &document.absent.lines(status.now_unix_ms);
            output::text(&format!("{}{beside}", text(status)));
        }
    }
    severity
}

/// The status, and the verdict over it.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    severity: Severity,
    exit_code: u8,
    findings: Vec<Finding>,
    #[serde(flatten)]
    status: &'a Status,
    /// States as bits, in the order of `connections`: 0 stopped, 1 started, 2 paused, 4 scheduled, 8 error.
    #[serde(skip_serializing_if = "Option::is_none")]
    state_bits: Option<Vec<u8>>,
    /// Of a target: who watches the sources of its replicas.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    monitors: Vec<Monitored>,
    /// Drills of the replicas on this host that are expected to pass now and then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    drills: Vec<Expected>,
    #[serde(flatten)]
    absent: Absent,
}

impl Document<'_> {
    pub(super) fn new(status: &Status) -> Document<'_> {
        let severity = status.severity();
        Document {
            severity,
            exit_code: severity.exit_code(),
            findings: status.findings(),
            status,
            state_bits: status.source().map(SourceStatus::state_bits),
            monitors: Vec::new(),
            drills: Vec::new(),
            absent: Absent::default(),
        }
    }

    pub(super) fn with(mut self, monitors: Vec<Monitored>, drills: Vec<Expected>) -> Self {
        self.find(drills.iter().filter_map(Expected::seen));
        self.is_at_least(monitors.iter().map(Monitored::severity).max());
        (self.monitors, self.drills) = (monitors, drills);
        self
    }

    /// With sets that no daemon serves.
    pub(super) fn beside(mut self, absent: Absent) -> Self {
        self.find(absent.not_served.iter().map(NotServed::seen));
        self.absent = absent;
        self
    }

    fn find(&mut self, seen: impl Iterator<Item = Seen>) {
        self.findings.extend(seen.map(not_served::finding));
        self.is_at_least(self.findings.iter().map(|one| one.severity).max());
    }

    fn is_at_least(&mut self, severity: Option<Severity>) {
        self.severity = self.severity.max(severity.unwrap_or(Severity::Ok));
        self.exit_code = self.severity.exit_code();
    }
}

/// One connection as people read it.
pub(super) fn connection_text(connection: &ConnectionStatus, now: u64) -> String {
    let mut text = String::new();
    let _ = connection_lines(connection, now, &mut text);
    text
}

/// One replica as people read it.
pub(super) fn replica_text(replica: &ReplicaStatus, now: u64) -> String {
    let mut text = String::new();
    let _ = replica_lines(replica, now, &mut text);
    text
}

/// A status as people read it.
pub(super) fn text(status: &Status) -> String {
    let mut text = String::new();
    let _ = lines(status, &mut text);
    text
}

fn lines(status: &Status, text: &mut String) -> std::fmt::Result {
    let now = status.now_unix_ms;
    let role = match status.role.name() {
        RoleName::Source => "source",
        RoleName::Target => "target",
    };
    let phase = match status.phase {
        Phase::Starting => "starting",
        Phase::Serving => "serving",
        Phase::Draining => "draining",
        Phase::Stopping => "stopping",
        Phase::Ending => "ending",
    };
    writeln!(
        text,
        "{}  {role} of {}, {phase} for {}",
        status.name,
        status.directory.display(),
        age(status.since_unix_ms, now)
    )?;
    if !status.fingerprint.is_empty() {
        writeln!(text, "  key         {}", status.fingerprint)?;
    }
    match &status.role {
        Role::Source(source) => {
            if source.backing != status.directory {
                writeln!(text, "  backing     {}", source.backing.display())?;
            }
            writeln!(text, "  set         {} at {}:{}", source.set_id, source.history, source.last)?;
            daemon_lines(status, text)?;
            source_lines(source, now, text)?;
        }
        Role::Target { target } => {
            daemon_lines(status, text)?;
            target_lines(target, now, text)?;
        }
    }
    finding_lines(status, text)
}

fn source_lines(source: &SourceStatus, now: u64, text: &mut String) -> std::fmt::Result {
    let queue = &source.queue;
    writeln!(
        text,
        "  queue       {}, {} of {}",
        packets(queue.packets),
        units::size(queue.bytes),
        units::size(queue.limit_bytes)
    )?;
    if let Some(disk) = &queue.disk {
        let (bytes, most) = (units::size(disk.bytes), units::size(disk.limit_bytes));
        writeln!(text, "              on disk {}, {bytes} of {most}", packets(disk.packets))?;
    }
    if queue.waits > 0 {
        let waited = units::duration(Duration::from_millis(queue.waited_ms));
        writeln!(text, "              writers waited {}, {waited} in all", counted(queue.waits, "time"))?;
    }
    writeln!(
        text,
        "  captured    {}, {}; {}",
        packets(queue.captured_packets),
        units::size(queue.captured_bytes),
        counted(source.capture.open_files, "open file")
    )?;
    if let FsyncStatus::Target { rule, waiting, timed_out, .. } = &source.fsync {
        let (waiting, timed_out) = (units::count(*waiting), units::count(*timed_out));
        writeln!(text, "  fsync       {rule}")?;
        writeln!(text, "              {waiting} wait now, {timed_out} were late")?;
    }
    for connection in &source.connections {
        text.push('\n');
        connection_lines(connection, now, text)?;
    }
    Ok(())
}

fn daemon_lines(status: &Status, text: &mut String) -> std::fmt::Result {
    writeln!(text, "  daemon      standin {}, pid {}", status.version, status.pid)?;
    let process = &status.process;
    writeln!(
        text,
        "  uses        {} of processor time, {} of memory (at most {})",
        units::duration(Duration::from_secs_f64(process.cpu_seconds.max(0.0))),
        units::size(process.memory_bytes),
        units::size(process.memory_peak_bytes)
    )
}

fn finding_lines(status: &Status, text: &mut String) -> std::fmt::Result {
    let findings = status.findings();
    if !findings.is_empty() {
        text.push('\n');
    }
    findings.iter().try_for_each(|finding| writeln!(text, "{}: {}", label(finding.severity), finding.text))
}

fn target_lines(target: &TargetStatus, now: u64, text: &mut String) -> std::fmt::Result {
    writeln!(text, "  listening   {}", target.listening)?;
    if let Some(last) = &target.last_refused {
        writeln!(text, "  refused     {}, last: {last}", units::count(target.refused))?;
    }
    if let Some(why) = &target.not_confined {
        writeln!(text, "  files       not confined: {why}")?;
    }
    for replica in &target.replicas {
        text.push('\n');
        replica_lines(replica, now, text)?;
    }
    Ok(())
}

fn replica_lines(replica: &ReplicaStatus, now: u64, text: &mut String) -> std::fmt::Result {
    writeln!(text, "replica {}  {}", replica.name, replica.directory.display())?;
    match &replica.connected {
        Some(source) => {
            let since = age(source.since_unix_ms, now);
            writeln!(text, "  source      {} at {}, for {since}", source.fingerprint, source.address)?;
        }
        None => writeln!(text, "  source      not connected")?,
    }
    if let Some(reader) = &replica.restored_from {
        let (since, sent) = (age(reader.since_unix_ms, now), units::size(reader.bytes_sent));
        writeln!(
            text,
            "  restored    by {} at {}, for {since}, {sent} sent",
            reader.fingerprint, reader.address
        )?;
    }
    if let Some(away) = &replica.turned_away {
        writeln!(text, "  turned away {} ago: {}", age(away.at_unix_ms, now), away.reason)?;
    }
    for key in &replica.sources {
        writeln!(text, "  paired      {key}")?;
    }
    let because = match replica.reason.as_str() {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    writeln!(text, "  data        {}{because}", data_word(replica.data))?;
    if let Some(kept) = &replica.lost_writes {
        writeln!(text, "  lost writes {}", lost_writes(kept, now))?;
    }
    age_lines(replica, now, text)?;
    aside_lines(&replica.aside, now, text)?;
    writeln!(text, "  applied     {}", replica.applied)?;
    writeln!(text, "  durable     {}", replica.durable)
}

fn lost_writes(kept: &LostWrites, now: u64) -> String {
    let (clone, since) = (&kept.clone, age(kept.since_unix_ms, now));
    match &kept.failed {
        Some(why) => format!("what the directory had {since} ago was not kept to the end: {why} ({clone})"),
        None => format!(
            "what the directory had {since} ago is kept ({}): standin lost-writes list",
            units::size(kept.area_bytes)
        ),
    }
}

fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", units::count(number), if number == 1 { "" } else { "s" })
}

/// Objects that are set aside, by name as far as a screen goes: `--json` has more.
fn aside_lines(aside: &AsideStatus, now: u64, text: &mut String) -> std::fmt::Result {
    for (number, object) in aside.objects.iter().take(ASIDE_SHOWN).enumerate() {
        let label = if number == 0 { "set aside" } else { "" };
        let since = age(object.since_unix_ms, now);
        // Where a fault begins with the name of the op, that is said once.
        let what = object.reason.strip_prefix(&format!("{}: ", object.op)).unwrap_or(&object.reason);
        writeln!(text, "  {label:<11} {} for {since}: {}: {what}", object.path, object.op)?;
    }
    let more = aside.total.saturating_sub(aside.objects.len().min(ASIDE_SHOWN) as u64);
    if more > 0 { writeln!(text, "              and {} more", units::count(more)) } else { Ok(()) }
}

fn connection_lines(connection: &ConnectionStatus, now: u64, text: &mut String) -> std::fmt::Result {
    let reason = match connection.reason.as_str() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    writeln!(
        text,
        "connection {}  {}, {} for {}{reason}",
        connection.id,
        connection.target,
        state_word(connection.state),
        age(connection.since_unix_ms, now)
    )?;
    if connection.attempts > 0 {
        let next = match connection.retry_unix_ms {
            Some(at) => format!("next attempt in {}", age(now, at)),
            None => "the next one is under way".into(),
        };
        writeln!(text, "  attempts    {} failed in a row, {next}", units::count(connection.attempts.into()))?;
    }
    if connection.kind == TargetKind::Null {
        return writeln!(text, "  counted     {}", amount(&connection.sent));
    }
    let because = match connection.data_reason.as_str() {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    writeln!(text, "  replica     {}{because}", replica_word(connection))?;
    aside_lines(&connection.aside, now, text)?;
    let left_out = &connection.left_out;
    if left_out.count > 0 {
        writeln!(text, "  left out    {}, everything else is in line", units::count(left_out.count))?;
        for object in &left_out.objects {
            writeln!(text, "              {object}")?;
        }
    }
    writeln!(text, "  mirror      {}", mirror_words(&connection.mirror))?;
    if let Some(progress) = &connection.progress {
        writeln!(text, "              {}", progress_words(progress))?;
        if !progress.current.is_empty() {
            writeln!(text, "              {}", progress.current)?;
        }
    }
    if let Some(resync) = &connection.resync {
        let way = if resync.running { "takes now" } else { "took" };
        writeln!(text, "  resync      {way} {}", taken_words(resync))?;
        writeln!(text, "              because {}", resync.why)?;
    }
    if let Some(verified) = &connection.verified {
        writeln!(text, "  verified    {}", verified_words(verified, now))?;
    }
    writeln!(text, "  applied     {}, {}", connection.applied, lag(connection.lag_applied))?;
    writeln!(text, "  durable     {}, {}", connection.durable, lag(connection.lag_durable))?;
    writeln!(text, "  queued      {}", amount(&connection.queued))?;
    let resent = match connection.resent.packets {
        0 => String::new(),
        _ => format!(", sent again {}", amount(&connection.resent)),
    };
    writeln!(text, "  sent        {}{resent}", amount(&connection.sent))?;
    if let Some(link) = &connection.link {
        writeln!(text, "  link        {}", link_words(link, now))?;
    }
    setting_lines(connection, text)?;
    retrying_line(connection, now, text)
}

fn retrying_line(connection: &ConnectionStatus, now: u64, text: &mut String) -> std::fmt::Result {
    if let Some(retrying) = &connection.retrying {
        let since = age(retrying.since_unix_ms, now);
        writeln!(
            text,
            "  retrying    {} for {since}, {} attempts: {}",
            retrying.op, retrying.attempts, retrying.reason
        )?;
    }
    Ok(())
}

/// What people have said of when and how fast it sends.
fn setting_lines(connection: &ConnectionStatus, text: &mut String) -> std::fmt::Result {
    if let Some(limit) = &connection.limit {
        writeln!(text, "  limit       {} ({})", limit.plan, limit.from)?;
        writeln!(text, "              {}", limit_words(limit))?;
    }
    if let Some(of) = &connection.compression {
        writeln!(text, "  compression {} ({}, {})", of.level, of.method, of.from)?;
        writeln!(text, "              {}", compression_words(of))?;
    }
    if let Some(schedule) = &connection.schedule {
        writeln!(text, "  schedule    {} ({})", schedule.plan, schedule.from)?;
        writeln!(text, "              {}", schedule_words(schedule))?;
    }
    Ok(())
}
