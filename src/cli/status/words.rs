//! How states, amounts and times are said.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use crate::control::{
    Amount, CompressionStatus, ConnectionState, ConnectionStatus, Lag, LimitStatus, LinkStatus,
    MirrorProgress, MirrorStatus, ScheduleStatus, Severity, VerifiedStatus,
};
use crate::packet::{DataState, printable};
use crate::sys::utc_offset;
use crate::units;
use crate::words::{Compression, shown};

pub(in crate::cli) fn state_word(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Stopped => "stopped",
        ConnectionState::Started => "started",
        ConnectionState::Paused => "paused",
        ConnectionState::Scheduled => "scheduled",
        ConnectionState::ScheduledAfterError => "scheduled after an error",
        ConnectionState::Error => "error",
    }
}

pub(in crate::cli) fn data_word(data: DataState) -> &'static str {
    match data {
        DataState::Empty => "empty",
        DataState::Good => "good",
        DataState::Bad => "bad (not a consistent copy)",
    }
}

/// [`data_word`] of what a target has said.
pub(in crate::cli) fn replica_word(connection: &ConnectionStatus) -> &'static str {
    if connection.unheard { "not known" } else { data_word(connection.data) }
}

/// As [`data_word`], for a column.
pub(in crate::cli) fn data_short(data: DataState) -> &'static str {
    match data {
        DataState::Empty => "empty",
        DataState::Good => "good",
        DataState::Bad => "bad",
    }
}

pub(in crate::cli) fn mirror_words(mirror: &MirrorStatus) -> String {
    match mirror {
        MirrorStatus::Idle => "idle".into(),
        MirrorStatus::Calculating => "calculating".into(),
        MirrorStatus::Mirroring { percent } => format!("mirroring {percent:.1} %"),
        MirrorStatus::Paused => "paused".into(),
        MirrorStatus::Stopped => "stopped".into(),
        MirrorStatus::Verifying => "verifying".into(),
        MirrorStatus::Complete => "complete".into(),
    }
}

/// What holds now, and what comes next.
pub(in crate::cli) fn limit_words(limit: &LimitStatus) -> String {
    let rate = |rate: Option<u64>| match rate {
        Some(rate) => format!("{} a second", units::size(rate)),
        None => "as fast as it goes".to_owned(),
    };
    let now = if limit.on { rate(limit.rate) } else { "switched off: as fast as it goes".to_owned() };
    let next = limit
        .next_unix_ms
        .map(|at| format!("; from {} on {}", shown((at / 1000) as i64, &utc_offset), rate(limit.next_rate)));
    format!("{now}{}", next.unwrap_or_default())
}

/// Whether it compresses now, and what that has saved.
pub(in crate::cli) fn compression_words(of: &CompressionStatus) -> String {
    let now = match (of.on, of.taken) {
        (false, _) => "switched off",
        (true, _) if of.level == Compression::Off => "off",
        (true, Some(false)) => "off: the target takes nothing compressed; bring it to this version",
        (true, Some(true) | None) => "on",
    };
    match of.payload_bytes {
        0 => now.to_owned(),
        before => format!("{now}; {} went as {}", units::size(before), units::size(of.wire_bytes)),
    }
}

/// What holds, and what comes next.
pub(in crate::cli) fn schedule_words(schedule: &ScheduleStatus) -> String {
    match schedule.next.as_str() {
        "" => schedule.why.clone(),
        next => format!("{}; {next}", schedule.why),
    }
}

pub(in crate::cli) fn verified_words(verified: &VerifiedStatus, now: u64) -> String {
    let counts = &verified.counts;
    let found = match counts.is_identical() {
        true => "identical".to_owned(),
        false => format!(
            "differed: {} missing, {} extra, {} different",
            units::count(counts.missing),
            units::count(counts.extra),
            units::count(counts.different)
        ),
    };
    let ago = age(verified.at_unix_ms, now);
    let below = verified.path.as_ref().map_or(String::new(), |path| format!(" below {}", said(path)));
    let unread = match verified.unread {
        0 => String::new(),
        unread => format!("; {} could not be read", units::count(unread)),
    };
    format!(
        "{ago} ago ({}) as of {}:{}, {} objects{below}: {found}{unread}",
        verified.mode,
        verified.history,
        verified.upto,
        units::count(counts.compared)
    )
}

pub(in crate::cli) fn progress_words(progress: &MirrorProgress) -> String {
    let least = if progress.is_counted { "" } else { "at least " };
    let of = |total| format!(" of {least}{}", units::count(total));
    let of_part = progress.path.as_ref().map_or(String::new(), |path| format!(" of {}", said(path)));
    if progress.compares_first {
        return format!(
            "{}{of_part}: {} files compared, {} read, nothing changed so far",
            progress.mode,
            units::count(progress.files_done),
            units::size(progress.bytes_compared)
        );
    }
    let mut text = format!(
        "{}{of_part}: {}{} files in line, {} sent",
        progress.mode,
        units::count(progress.files_done),
        progress.files_total.map_or(String::new(), of),
        units::size(progress.bytes_done),
    );
    if progress.bytes_skipped > 0 {
        text += &format!(", {} skipped", units::size(progress.bytes_skipped));
    }
    if let Some(total) = progress.bytes_total {
        text += &format!(", {least}{} in all", units::size(total));
    }
    if progress.bytes_per_second > 0.0 {
        text += &format!(", {}/s", units::size(progress.bytes_per_second as u64));
    }
    if let Some(rate) = progress.rate_limit {
        text += &format!(", {}/s at most", units::size(rate));
    }
    if let Some(eta) = progress.eta_seconds {
        text += &format!(", {} to go", units::duration(Duration::from_secs(eta)));
    }
    text
}

pub(super) fn link_words(link: &LinkStatus, now: u64) -> String {
    format!(
        "up for {}, round trip {:.1} ms, {} out, {} in, {} lost",
        age(link.connected_unix_ms, now),
        link.rtt_ms,
        units::size(link.udp_sent_bytes),
        units::size(link.udp_received_bytes),
        packets(link.udp_lost_packets)
    )
}

pub(super) fn lag(lag: Option<Lag>) -> String {
    let Some(lag) = lag else { return "it is not known how far behind".into() };
    if lag.packets == 0 {
        return "behind by nothing".into();
    }
    let age = units::duration(Duration::try_from_secs_f64(lag.seconds).unwrap_or_default());
    format!("behind by {age} ({}, {})", packets(lag.packets), units::size(lag.bytes))
}

pub(super) fn amount(amount: &Amount) -> String {
    format!("{}, {}", packets(amount.packets), units::size(amount.bytes))
}

pub(in crate::cli) fn packets(number: u64) -> String {
    format!("{} {}", units::count(number), if number == 1 { "packet" } else { "packets" })
}

pub(in crate::cli) fn age(since_unix_ms: u64, now_unix_ms: u64) -> String {
    units::duration(Duration::from_millis(now_unix_ms.saturating_sub(since_unix_ms)))
}

pub(in crate::cli) fn label(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "note",
        Severity::Warning => "WARNING",
        Severity::Critical => "CRITICAL",
    }
}

/// A path in a set, which may hold anything, for a terminal.
pub(in crate::cli) fn said(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}
