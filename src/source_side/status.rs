//! The daemon's answer to `standin status`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime};

use super::board::Posted;
use super::connection::{Compressing, Connection, Report, Scheduled, Throttled};
use super::durability::TroubleKind;
use super::flush::Flusher;
use super::ground::Ground;
use super::holder::Holder;
use super::kept::{LastVerified, WhatVerified};
use super::sync::lacks_comparison;
use crate::activity::Standing;
use crate::connection::{Copies, Outlook};
use crate::control::{
    Alert, Amount, Bounds, CaptureStatus, CompressionStatus, ConnectionState, ConnectionStatus, FileTrouble,
    FsyncStatus, GenerationStatus, Lag, LeftOutStatus, LimitStatus, LinkStatus, MirrorProgress, MirrorStatus,
    ResyncStatus, Role, Rung, ScheduleStatus, Severity, SourceStatus, Status, TargetKind, VerifiedStatus,
    unix_ms,
};
use crate::events::Code;
use crate::intercept::Refused;
use crate::map::Fill;
use crate::packet::{DataState, History, Sequence};
use crate::preflight::{Way, elsewhere_warning};
use crate::queue::{Behind, Queue};
use crate::resync::{Expected, ProgressSnapshot};
use crate::sys::utc_offset;
use crate::words::{Profile, QueueStats, Rate, Target};

pub fn status(ground: &Ground, posted: &Posted) -> Status {
    // Before anything that is looked at: what has an age is no younger than it says as of then.
    let now_unix_ms = unix_ms(SystemTime::now());
    Status {
        role: Role::Source(source(ground, posted)),
        name: ground.options.name.clone(),
        directory: ground.options.directory.clone(),
        fingerprint: ground.fingerprint.get().map(|key| key.to_string()).unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        process: ground.meter.read(),
        since_unix_ms: unix_ms(ground.started),
        now_unix_ms,
        phase: posted.phase,
        alerts: alerts(ground, posted),
    }
}

fn source(ground: &Ground, posted: &Posted) -> SourceStatus {
    let last = ground.queue.last();
    SourceStatus {
        set_id: ground.set.to_string(),
        backing: ground.options.tree().to_owned(),
        history: format!("{}.{:016x}", last.epoch.number, last.incarnation.0),
        last: last.sequence,
        queue: ground.queue.stats(),
        capture: capture(ground),
        connections: posted
            .connections
            .iter()
            .map(|connection| connection_status(connection, ground))
            .collect(),
        fsync: fsync(ground),
        map: map(ground),
        activity: super::activity::status(ground),
        holder: ground.holder.as_ref().map(Holder::status).unwrap_or_default(),
        rules: super::rules::in_force(&ground.volume).0.iter().map(ToString::to_string).collect(),
    }
}

fn map(ground: &Ground) -> Vec<GenerationStatus> {
    let Some(map) = ground.volume.map() else { return Vec::new() };
    let (left, own) = (map.fill_left(), map.fill());
    let (earlier, last) = (left.len(), left.len() + own.len());
    let of = |(at, fill): (usize, Fill)| GenerationStatus {
        id: fill.number,
        since: fill.begins_at,
        bytes: fill.bytes as u64,
        percent: 100.0 * fill.used as f64 / fill.slots as f64,
        is_coarse: fill.is_everything,
        active: at + 1 == last,
        kept: fill.is_kept,
        earlier: at < earlier,
    };
    left.into_iter().chain(own).enumerate().map(of).collect()
}

fn capture(ground: &Ground) -> CaptureStatus {
    let volume = &ground.volume;
    CaptureStatus { objects: volume.known_objects() as u64, open_files: volume.open_files() as u64 }
}

/// What the kernel gathers before the daemon sees it.
fn gathered(profile: Profile) -> &'static str {
    match profile {
        Profile::Default => "Writes through shared mappings",
        Profile::Batch => "Writes that were not synced",
    }
}

fn refused_text(ground: &Ground, refused: &Refused) -> String {
    let by = match ground.volume.fence().raised() {
        None => "were refused by the disk of the directory, and are lost on both sides",
        Some(_) => "were refused, because the directory takes no changes any more, and are lost",
    };
    let (what, told) = match ground.options.profile {
        Profile::Default => (
            "bytes that programs had stored through shared mappings",
            "A program that calls msync or fsync was told; others were not",
        ),
        Profile::Batch => (
            "bytes that programs had written",
            "A program that looks at what fsync, close or msync answers was told; others are at their next write to \
             the file",
        ),
    };
    format!("{} {what} {by}. {told}. The first: {}.", refused.bytes, refused.first)
}

/// Other names belong to the set than some replicas have.
fn set_changed(ground: &Ground, posted: &Posted) -> Option<Alert> {
    let divergence = ground.volume.divergence();
    let why = divergence.why().filter(|_| divergence.uncaptured().is_none())?;
    let lacks = |connection: &Arc<Connection>| {
        !connection.is_null() && lacks_comparison(&connection.report(), ground).is_some()
    };
    let text = format!("{why}: a copy brings what the replicas lack; they are bad until it has.");
    let alert = Alert { severity: Severity::Warning, code: Code::SetChanged, text };
    posted.connections.iter().any(lacks).then_some(alert)
}

fn alerts(ground: &Ground, posted: &Posted) -> Vec<Alert> {
    let mut alerts = Vec::new();
    alerts.extend(fenced(ground));
    alerts.extend(split_brain(ground));
    let divergence = ground.volume.divergence();
    if let Some(why) = divergence.lost_by_disk() {
        alerts.push(Alert {
            severity: Severity::Critical,
            code: Code::SourceDiskLostWrites,
            text: format!(
                "The disk of the directory refused writes that programs were told are done ({why}): a replica has \
                 them, the directory may not. Copy from a replica what is missing before the protection is started \
                 again: a start makes the replicas equal to the directory."
            ),
        });
    } else if let Some(why) = divergence.uncaptured() {
        alerts.push(Alert {
            severity: Severity::Critical,
            code: Code::CaptureDiverged,
            text: format!(
                "A change could not be captured ({why}): the replicas may miss it until a copy has compared \
                 everything."
            ),
        });
    }
    alerts.extend(set_changed(ground, posted));
    let refused = ground.volume.refused_stores();
    if refused.bytes > 0 {
        alerts.push(Alert {
            severity: Severity::Critical,
            code: Code::MappedStoresRefused,
            text: refused_text(ground, &refused),
        });
    }
    if let Some(text) = posted.mount_lost.clone() {
        alerts.push(Alert { severity: Severity::Critical, code: Code::MountLost, text });
    }
    if let Some(text) = posted.options_trouble.clone() {
        alerts.push(Alert { severity: Severity::Warning, code: Code::MountOptions, text });
    }
    alerts.extend(ground.followed.trouble().as_ref().map(not_followed));
    alerts.extend(fsync_alert(ground));
    if let Some(why) = posted.flusher.as_deref().and_then(Flusher::trouble) {
        alerts.push(Alert {
            severity: Severity::Warning,
            code: Code::MmapFlushFailing,
            text: format!("{} may stay unseen for long: {why}.", gathered(ground.options.profile)),
        });
    }
    alerts.extend(activity_log(ground));
    alerts.extend(open_past_the_mount(ground));
    alerts.extend(ground.volume.divergence().touched().map(|path| Alert {
        severity: Severity::Ok,
        code: Code::TouchedPastMount,
        text: format!(
            "The change time of {path} moved past the mount, and nothing else that a look shows: a hard link to it \
             was made or removed outside of the directory, or an attribute was changed. The next start compares it."
        ),
    }));
    alerts.extend(ground.warnings.iter().map(|text| Alert {
        severity: Severity::Ok,
        code: Code::StartNote,
        text: text.clone(),
    }));
    alerts
}

fn fenced(ground: &Ground) -> Option<Alert> {
    let fenced = ground.volume.fence().raised()?;
    let (own, epoch) = (ground.queue.last().epoch.number, fenced.epoch.number);
    let text = format!(
        "This source was stood in for: {} says that the set is written in epoch {epoch}, and this source is of epoch \
         {own}. Programs here can read, and every change fails (EROFS). Stop it (standin stop), save what never \
         reached the replica, and let the stand-in bring this directory into line (standin serve --adopt).",
        fenced.told_by
    );
    Some(Alert { severity: Severity::Critical, code: Code::StoodInFor, text })
}

/// Both go on for their programs, and neither gets what the other one has: a person decides, and soon.
fn split_brain(ground: &Ground) -> Option<Alert> {
    let other = ground.roles.other()?;
    let writing = |history: &History| history.last().unwrap_or_default().writing();
    let text = format!(
        "Split brain: {} writes this set in epoch {}, too, and this host in epoch {}. Neither overwrites the other. \
         `standin roles` shows both: name the one to keep, on its host (standin roles keep {}).",
        other.met,
        writing(&other.history),
        writing(&ground.roles.own),
        ground.options.name
    );
    Some(Alert { severity: Severity::Critical, code: Code::SplitBrain, text })
}

/// A log that failed is not kept again before the next start.
fn activity_log(ground: &Ground) -> Option<Alert> {
    let fill = ground.volume.activity()?.fill();
    let Standing::Failed(why) = fill.standing else { return None };
    Some(Alert {
        severity: Severity::Warning,
        code: Code::ActivityLogFailed,
        text: format!(
            "The activity log is not kept any more ({why}). Programs and targets go on; after a power loss of this \
             host all content is compared. Mend its disk, and start the protection again."
        ),
    })
}

fn not_followed(trouble: &FileTrouble) -> Alert {
    let (severity, code, text) = match trouble {
        FileTrouble::Wrong(why) => (
            Severity::Warning,
            Code::SetFile,
            format!(
                "The file of the set cannot be followed ({why}): what it said before goes on to hold, and the next \
                 start is refused."
            ),
        ),
        FileTrouble::Waits(keys) => (
            Severity::Ok,
            Code::SetFileWaits,
            format!(
                "The file of the set says otherwise of {keys}: `standin config diff` shows how, `standin reload` \
                 takes up what can change, the rest counts with the next start."
            ),
        ),
    };
    Alert { severity, code, text }
}

/// Who has the directory, or a part of it, mounted by itself means to use it: looked at anew each
/// time, because containers come and go.
fn open_past_the_mount(ground: &Ground) -> Option<Alert> {
    let mut ways = ground.ways.look().unwrap_or_default();
    ways.retain(|way| matches!(way.way, Way::Mount(_)));
    elsewhere_warning(&ways).map(|text| Alert {
        severity: Severity::Warning,
        code: Code::OpenPastMount,
        text,
    })
}

fn fsync(ground: &Ground) -> FsyncStatus {
    let Some(snapshot) = ground.durability.as_ref().map(|durability| durability.snapshot()) else {
        return FsyncStatus::Local;
    };
    let since = |kind| snapshot.trouble.filter(|trouble| trouble.0 == kind).map(|trouble| unix_ms(trouble.1));
    FsyncStatus::Target {
        rule: snapshot.rule.in_words(),
        timeout_ms: snapshot.rule.timeout.as_millis() as u64,
        waiting: snapshot.waiting as u64,
        timed_out: snapshot.timed_out,
        failing_since_unix_ms: since(TroubleKind::Failing),
        degraded_since_unix_ms: since(TroubleKind::Degraded),
    }
}

/// An alarm from the first late sync until a barrier goes through in time again.
fn fsync_alert(ground: &Ground) -> Option<Alert> {
    let snapshot = ground.durability.as_ref()?.snapshot();
    let (kind, since) = snapshot.trouble?;
    let ago = SystemTime::now().duration_since(since).unwrap_or_default().as_secs();
    let timeout = snapshot.rule.timeout.as_secs_f64();
    let late = format!("The targets do not make syncs durable within {timeout} s (for {ago} s)");
    let (severity, code, text) = match kind {
        TroubleKind::Failing => {
            let text = format!("{late}: programs get I/O errors from fsync, {} so far.", snapshot.timed_out);
            (Severity::Critical, Code::FsyncTimedOut, text)
        }
        TroubleKind::Degraded => (
            Severity::Warning,
            Code::FsyncDegraded,
            format!("{late}: syncs return with the local disk alone."),
        ),
    };
    Some(Alert { severity, code, text })
}

/// How often a lag that is not known is looked for once more.
const LOOKS: u32 = 8;

fn kind(target: &Target) -> TargetKind {
    match target {
        Target::Local(_) => TargetKind::Local,
        Target::Remote { .. } => TargetKind::Remote,
        Target::Null => TargetKind::Null,
    }
}

pub fn connection_status(connection: &Connection, ground: &Ground) -> ConnectionStatus {
    let queue = &ground.queue;
    let (mut report, mut lag_applied, mut lag_durable) = report_and_lags(connection, queue);
    // What is held back is as good as it was, until it goes on.
    let is_held = report.state != ConnectionState::Started;
    if let Some(lack) = lacks_comparison(&report, ground).filter(|lack| !(lack.is_awaited && is_held))
        && report.data == DataState::Good
    {
        // The target hears of it in a moment.
        (report.data, lag_applied, lag_durable) = (DataState::Bad, None, None);
        report.data_reason = lack.why.to_string();
        report.begins_copy |= lack.is_awaited && report.kept.wish.copies == Copies::ByThemselves;
    }
    report.mirror = report.mirror_shown();
    let queued = match connection.target {
        Target::Null => Behind::default(),
        Target::Local(_) | Target::Remote { .. } => queue.behind(report.applied).unwrap_or_default(),
    };
    ConnectionStatus {
        id: connection.id,
        uuid: connection.uuid.clone(),
        kind: kind(&connection.target),
        target: connection.target.to_string(),
        state: report.state,
        since_unix_ms: unix_ms(report.since),
        reason: report.reason.clone(),
        attempts: report.attempts,
        retry_unix_ms: report.retry_at.map(unix_ms),
        needs_copy: report.needs_copy.is_some(),
        unqueued: report.kept.wish.unqueued,
        unheard: report.is_unheard(),
        data: report.data,
        data_reason: report.data_reason.clone(),
        aside: report.aside.clone(),
        withheld: report.withheld,
        left_out: LeftOutStatus { count: report.left_out.count, objects: report.left_out.lines() },
        orphans: report.orphans,
        mirror: mirror(&report),
        progress: report.progress.as_ref().map(|progress| mirror_progress(&report, &progress.snapshot())),
        resync: resync(&report),
        verified: report.kept.verified.as_ref().map(verified),
        queued: Amount { packets: queued.packets, bytes: queued.bytes },
        sent: Amount {
            packets: connection.sent.packets.load(Relaxed),
            bytes: connection.sent.bytes.load(Relaxed) + connection.sent.item_bytes.load(Relaxed),
        },
        resent: Amount {
            packets: connection.sent.packets_again.load(Relaxed),
            bytes: connection.sent.bytes_again.load(Relaxed),
        },
        applied: report.applied,
        durable: report.durable,
        lag_applied,
        lag_durable,
        link: report.connected.map(|since| LinkStatus {
            connected_unix_ms: unix_ms(since),
            rtt_ms: report.link.rtt_us as f64 / 1000.0,
            udp_sent_bytes: report.link.sent_bytes,
            udp_received_bytes: report.link.received_bytes,
            udp_lost_packets: report.link.lost_packets,
            udp_payload_max: report.link.mtu,
        }),
        retrying: report.retrying.clone(),
        schedule: report.schedule.as_ref().map(schedule),
        limit: report.limit.as_ref().map(|limit| limit_status(limit, &queue.stats())),
        compression: report.compression.as_ref().map(compression_status),
    }
}

fn compression_status(of: &Compressing) -> CompressionStatus {
    let Compressing { level, origin, is_on, is_taken, saved } = *of;
    CompressionStatus {
        level,
        method: level.method().into(),
        from: origin,
        on: is_on,
        taken: is_taken,
        payload_bytes: saved.payload_bytes,
        wire_bytes: saved.wire_bytes,
    }
}

fn limit_status(of: &Throttled, queue: &QueueStats) -> LimitStatus {
    let now_s = (unix_ms(SystemTime::now()) / 1000) as i64;
    let next = of.plan.next_change(now_s, &utc_offset).filter(|_| of.is_on);
    let room = queue.room();
    LimitStatus {
        plan: of.plan.to_string(),
        from: of.origin,
        on: of.is_on,
        rate: of.rate.map(|Rate(rate)| rate),
        next_unix_ms: next.and_then(|(at, _)| u64::try_from(at).ok()).map(|at| at * 1000),
        next_rate: next.and_then(|(_, rate)| rate).map(|Rate(rate)| rate),
        queue_grows: of.grows,
        queue_full_seconds: of.grows.map(|grows| room / grows.max(1)),
    }
}

fn schedule(of: &Scheduled) -> ScheduleStatus {
    let Scheduled { scheduler, origin } = of;
    let now_s = (unix_ms(SystemTime::now()) / 1000) as i64;
    let Outlook { why, next_s, next } = scheduler.outlook(now_s, &utc_offset);
    ScheduleStatus {
        plan: scheduler.plan().map(ToString::to_string).unwrap_or_default(),
        from: *origin,
        on: scheduler.is_on(),
        open: scheduler.is_open(),
        why,
        next_unix_ms: next_s.and_then(|next| u64::try_from(next).ok()).map(|next| next * 1000),
        next,
    }
}

/// The lags belong to the report. Between two looks an acknowledgement may come, and the queue
/// forgets what only the older report lacked: then it is looked again.
fn report_and_lags(connection: &Connection, queue: &Queue) -> (Report, Option<Lag>, Option<Lag>) {
    let look = || {
        let report = connection.report();
        let applied = lag(queue, report.applied, &report);
        let durable = lag(queue, report.durable, &report);
        (report, applied, durable)
    };
    let mut looked = look();
    for _ in 0..LOOKS {
        let (report, applied, durable) = &looked;
        let is_known = applied.is_some() && durable.is_some();
        let says_nothing = report.needs_copy.is_some() || report.refusal.is_some();
        if is_known || report.data != DataState::Good || says_nothing {
            break;
        }
        looked = look();
    }
    looked
}

/// Age of the oldest packet that the target lacks, and all that it lacks. Unknown where the
/// replica is not the directory as of any moment, or nothing is kept for it.
fn lag(queue: &Queue, reached: Sequence, report: &Report) -> Option<Lag> {
    if report.data != DataState::Good || report.needs_copy.is_some() || report.refusal.is_some() {
        return None;
    }
    let Behind { since, packets, bytes, held: _ } = queue.behind(reached)?;
    let seconds = since.map_or(0.0, |since| Instant::now().saturating_duration_since(since).as_secs_f64());
    Some(Lag { seconds, packets, bytes })
}

fn mirror(report: &Report) -> MirrorStatus {
    match (&report.mirror, &report.progress) {
        (MirrorStatus::Mirroring { .. }, Some(progress)) => {
            MirrorStatus::Mirroring { percent: percent(&progress.snapshot()) }
        }
        (mirror, _) => *mirror,
    }
}

/// 100 only at the end.
fn percent(snapshot: &ProgressSnapshot) -> f64 {
    (100.0 * snapshot.share_done()).min(99.9)
}

/// At the speed that it had so far; nobody knows before some of it is done.
fn seconds_to_go(snapshot: &ProgressSnapshot, elapsed: f64) -> Option<u64> {
    let share = snapshot.share_done();
    let is_known = snapshot.has_known_end() && share >= 0.01;
    is_known.then(|| (elapsed * (1.0 - share) / share).round() as u64)
}

fn verified(last: &LastVerified) -> VerifiedStatus {
    let LastVerified { at_unix_ms, epoch, run, upto, what, counts, unread } = last.clone();
    let WhatVerified { mode, below } = what;
    let history = format!("{}.{:016x}", epoch.number, run.0);
    VerifiedStatus { at_unix_ms, mode, path: below, history, upto, unread, counts }
}

/// What is owed is weighed when its copy begins.
fn resync(report: &Report) -> Option<ResyncStatus> {
    let resync = report.resync.clone()?;
    let expected = report.progress.as_ref().and_then(|progress| progress.snapshot().expected);
    let Some(Expected { objects, content, .. }) = expected.filter(|_| resync.rung == Rung::Owed) else {
        return Some(resync);
    };
    let bytes = Bounds { at_least: content.at_least, at_most: content.at_most };
    Some(ResyncStatus { objects: Bounds::exactly(objects), bytes, ..resync })
}

/// Where it does not run, or stands still, there is no speed.
fn mirror_progress(report: &Report, snapshot: &ProgressSnapshot) -> MirrorProgress {
    let stands = report.retrying.as_ref().is_some_and(|retrying| !retrying.marker);
    let runs = matches!(report.mirror, MirrorStatus::Mirroring { .. } | MirrorStatus::Verifying) && !stands;
    let elapsed = unix_ms(SystemTime::now()).saturating_sub(snapshot.started_unix_ms).max(1) as f64 / 1000.0;
    let done = snapshot.files_identical + snapshot.files_copied;
    let owed = snapshot.expected.and_then(|expected| expected.content.at_most);
    MirrorProgress {
        mode: if report.is_minicopy { "minicopy".into() } else { report.mode.to_string() },
        path: report.part.clone(),
        compares_first: report.kept.mirror.is_some(),
        rate_limit: report.rate,
        started_unix_ms: snapshot.started_unix_ms,
        files_done: done,
        files_skipped: snapshot.files_identical,
        // Of a copy that goes on files may be gone that it has brought.
        files_total: snapshot.size.map(|size| size.files.max(done)),
        bytes_done: if report.is_comparison { 0 } else { snapshot.bytes_copied },
        bytes_total: snapshot.size.map(|size| size.bytes).or(owed),
        is_counted: snapshot.has_known_end(),
        bytes_compared: if report.is_comparison { snapshot.bytes_copied } else { snapshot.bytes_compared },
        bytes_skipped: snapshot.bytes_identical,
        bytes_per_second: if runs { snapshot.bytes_copied as f64 / elapsed } else { 0.0 },
        eta_seconds: if runs { seconds_to_go(snapshot, elapsed) } else { None },
        current: snapshot.current.clone(),
    }
}
