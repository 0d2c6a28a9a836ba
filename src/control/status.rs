//! What a daemon says about itself. Field names are a promise to scripts: they are the JSON, and
//! `docs/status-json.md` has each of them.
//!
//! Times are milliseconds since 1970, amounts are bytes, counters count since the daemon's start.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::health::Severity;
use super::lost_writes::LostWrites;
use super::process::ProcessStatus;
use super::resync::{MirrorProgress, ResyncStatus};
use super::{RestoredFrom, path_text};
use crate::events::Code;
use crate::packet::{CheckCounts, DataState, OrphanCounts, Sequence, WithheldCounts};
use crate::words::{Compression, Origin, QueueStats, VerifyMode};

/// Everything that one daemon knows: what all have, and what its role adds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    #[serde(flatten)]
    pub role: Role,
    pub name: String,
    /// The mount point of a source, the replica root of a target.
    #[serde(with = "path_text")]
    pub directory: PathBuf,
    /// Fingerprint of this daemon's key; empty where no other host has to know it.
    #[serde(default)]
    pub fingerprint: String,
    pub version: String,
    pub pid: u32,
    #[serde(default)]
    pub process: ProcessStatus,
    pub since_unix_ms: u64,
    /// When this answer was made: ages are counted from here.
    pub now_unix_ms: u64,
    pub phase: Phase,
    /// What the daemon itself wants a person to know, beside what [`Status::findings`] derives.
    pub alerts: Vec<Alert>,
}

impl Status {
    pub fn source(&self) -> Option<&SourceStatus> {
        match &self.role {
            Role::Source(source) => Some(source),
            Role::Target { .. } => None,
        }
    }

    pub fn target(&self) -> Option<&TargetStatus> {
        match &self.role {
            Role::Source(_) => None,
            Role::Target { target } => Some(target),
        }
    }

    /// A target makes none.
    pub fn connections(&self) -> &[ConnectionStatus] {
        self.source().map_or(&[], |source| &source.connections)
    }
}

impl SourceStatus {
    /// In the order of the connections.
    pub fn state_bits(&self) -> Vec<u8> {
        self.connections.iter().map(|connection| connection.state.bits()).collect()
    }
}

/// What a daemon is; in JSON the word `role`, and the fields of that role beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "role")]
// An answer has one of them.
#[allow(clippy::large_enum_variant)]
pub enum Role {
    Source(SourceStatus),
    /// In an object of its own: `target` in JSON.
    Target {
        target: TargetStatus,
    },
}

impl Role {
    pub fn name(&self) -> RoleName {
        match self {
            Role::Source(_) => RoleName::Source,
            Role::Target { .. } => RoleName::Target,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleName {
    Source,
    Target,
}

/// A source's replication set, and how it is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Random id of the replication set, 32 hexadecimal digits.
    pub set_id: String,
    /// Where the data really is; equal to `directory` when the mount lies over it.
    #[serde(with = "path_text")]
    pub backing: PathBuf,
    /// Epoch and incarnation in which positions are counted, as text.
    pub history: String,
    /// The last position that was given to a change.
    pub last: Sequence,
    pub queue: QueueStats,
    pub capture: CaptureStatus,
    pub connections: Vec<ConnectionStatus>,
    #[serde(default)]
    pub fsync: FsyncStatus,
    /// What is noted as changed, for targets that lose their place; the oldest generation first.
    #[serde(default)]
    pub map: Vec<GenerationStatus>,
    #[serde(default)]
    pub activity: ActivityStatus,
    #[serde(default)]
    pub holder: HolderStatus,
    /// The rules of the set, in their order; without one everything is replicated.
    #[serde(default)]
    pub rules: Vec<String>,
}

/// Whether the mount outlives the daemon, and how often it had to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HolderStatus {
    /// A holder has it.
    pub kept: bool,
    /// How often a daemon has gone on for another one since the mount was made.
    pub takeovers: u64,
    /// The longest time that calls of programs have waited for that.
    pub longest_pause_ms: u64,
    /// The last change of the daemon's program since the mount was made.
    #[serde(default)]
    pub upgrade: Option<UpgradeStatus>,
}

/// A daemon has become another program under its mount.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpgradeStatus {
    /// How many there were.
    pub upgrades: u64,
    /// Version of the program before.
    pub from: String,
    pub at_unix_ms: u64,
    /// How long changes of programs waited.
    pub pause_ms: u64,
    /// Packets that targets got meanwhile.
    pub sent_packets: u64,
    /// Why the new program did not come to serve; then the one before does.
    pub failed: Option<String>,
}

/// The activity log: what a power loss of this host would cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActivityStatus {
    /// Changes of content are noted.
    pub kept: bool,
    /// After a power loss only what is noted would be compared by content.
    pub whole: bool,
    /// Why everything would be.
    pub why: String,
    /// Files that are noted now, beside those that were born since.
    pub hot: u64,
    /// Records that were written, with so many syncs of its disk.
    pub records: u64,
    pub commits: u64,
    /// How often a change has waited for that, and for how long in all.
    pub waits: u64,
    pub waited_ms: u64,
    /// Files that the start has found noted after a power loss, for targets that were not in line since.
    pub in_doubt: u64,
}

/// A generation of the map.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerationStatus {
    /// Counted from the start of the daemon, or of a mount that outlives it.
    pub id: u64,
    /// It has all that changed after this packet, and after those of the next one's nothing; `None` for a moment.
    pub since: Option<Sequence>,
    /// What it may take.
    pub bytes: u64,
    /// How much of it is marked.
    pub percent: f64,
    /// More was changed than it has room for: everything counts as changed.
    pub is_coarse: bool,
    /// It is the one that is marked.
    pub active: bool,
    /// It is there for the next daemon, whatever ends this one.
    #[serde(default)]
    pub kept: bool,
    /// A daemon before this one has marked it, and some target may lack what it has.
    #[serde(default)]
    pub earlier: bool,
}

/// Where the daemon is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The mount or listener is not up yet.
    Starting,
    Serving,
    /// An orderly stop sends what is still queued.
    Draining,
    /// A source takes its mount away, a target ends its sessions.
    Stopping,
    /// A source has nothing left to do.
    Ending,
}

/// A target's listener and its replicas.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Address and port.
    pub listening: String,
    /// Connections that were turned away since the start.
    pub refused: u64,
    /// One line about the last of them.
    pub last_refused: Option<String>,
    /// Why the kernel does not keep the daemon to its directories; `None` where it does.
    #[serde(default)]
    pub not_confined: Option<String>,
    pub replicas: Vec<ReplicaStatus>,
}

/// One replica of a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Name of the replication set.
    pub name: String,
    #[serde(with = "path_text")]
    pub directory: PathBuf,
    /// Empty until a source has connected.
    pub set_id: String,
    /// Fingerprints of the keys that may send it.
    pub sources: Vec<String>,
    /// The source that is connected now.
    pub connected: Option<ConnectedSource>,
    /// Who reads it back now.
    pub restored_from: Option<RestoredFrom>,
    pub data: DataState,
    /// Why the data is bad; may be empty.
    pub reason: String,
    /// The data is bad for nothing but objects that a copy left out: everything else is in line.
    #[serde(default)]
    pub in_line: bool,
    /// Since when the data is in its state.
    pub since_unix_ms: u64,
    pub applied: Sequence,
    pub durable: Sequence,
    pub retrying: Option<Retrying>,
    /// Objects that were set aside.
    #[serde(default)]
    pub aside: AsideStatus,
    pub withheld: WithheldCounts,
    /// It has everything up to this moment of its source's clock; of one that is bad, when it was good last.
    #[serde(default)]
    pub as_of_unix_ms: Option<u64>,
    /// The last position that the source had given out when it was heard last; null before it was heard.
    #[serde(default)]
    pub given_out: Option<Sequence>,
    /// When that was, by the source's clock.
    #[serde(default)]
    pub heard_unix_ms: Option<u64>,
    /// How many changes of those are not applied here.
    #[serde(default)]
    pub beyond: Option<u64>,
    /// How far the source's clock was ahead of this host's when it was heard last; negative: behind it.
    #[serde(default)]
    pub clock_ahead_ms: Option<i64>,
    /// When the source's clock was set last, as far as it was seen.
    #[serde(default)]
    pub clock_set: Option<ClockSet>,
    /// What it was when it was good last, with `serve --keep-good`.
    #[serde(default)]
    pub last_good: Option<LastGood>,
    /// What only this host had when the directory became the replica, until it is taken out or given up.
    #[serde(default)]
    pub lost_writes: Option<LostWrites>,
    /// The last source that came and speaks another version of the wire: it lives.
    #[serde(default)]
    pub turned_away: Option<TurnedAway>,
    /// Why the replica cannot be opened.
    pub problem: Option<String>,
}

/// A source that was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnedAway {
    pub reason: String,
    pub at_unix_ms: u64,
}

/// A clock was set, while moments were told by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSet {
    /// By the clock as it is since.
    pub at_unix_ms: u64,
    /// Milliseconds forward; negative: backward.
    pub by_ms: i64,
}

/// The last good state of a replica that is bad.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastGood {
    /// Name of the clone.
    pub clone: String,
    pub position: Sequence,
    /// When the replica became bad.
    pub since_unix_ms: u64,
    /// That what is preserved takes.
    pub area_bytes: u64,
    /// Why it is no use.
    pub failed: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectedSource {
    pub fingerprint: String,
    pub address: String,
    pub since_unix_ms: u64,
}

/// Counters of the interception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStatus {
    /// Objects that the kernel refers to now.
    pub objects: u64,
    /// Files that applications hold open now.
    pub open_files: u64,
}

/// When a program's fsync returns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "mode")]
pub enum FsyncStatus {
    /// With the local disk.
    #[default]
    Local,
    /// With the targets' disks too.
    Target {
        /// What it waits for, how long, what then: in words.
        rule: String,
        timeout_ms: u64,
        /// Syncs that wait for targets now.
        waiting: u64,
        /// Syncs whose time was over, since the start.
        timed_out: u64,
        /// Since then syncs fail.
        failing_since_unix_ms: Option<u64>,
        /// Since then syncs return with the local disk alone.
        degraded_since_unix_ms: Option<u64>,
    },
}

/// One connection as seen from the source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Small number for people; starts at 1 with the daemon.
    pub id: u32,
    /// Stable id for scripts and logs.
    pub uuid: String,
    pub kind: TargetKind,
    /// The target as it was typed.
    pub target: String,
    pub state: ConnectionState,
    pub since_unix_ms: u64,
    /// Why the connection is in this state, and how it resynchronised last; may be empty.
    pub reason: String,
    /// Failed attempts to connect in a row.
    #[serde(default)]
    pub attempts: u32,
    /// When the next attempt is due, while one waits.
    #[serde(default)]
    pub retry_unix_ms: Option<u64>,
    /// The queue holds nothing for this target: a copy brings it into line when it is back.
    #[serde(default)]
    pub needs_copy: bool,
    /// A person has stopped the replication: changes are marked, and not queued.
    #[serde(default)]
    pub unqueued: bool,
    #[serde(default)]
    pub unheard: bool,
    /// State of the replica's data.
    pub data: DataState,
    /// Why the target says that it is bad, while changes flow; may be empty.
    #[serde(default)]
    pub data_reason: String,
    /// Objects that the target has set aside.
    #[serde(default)]
    pub aside: AsideStatus,
    /// What the target has not taken as it came.
    #[serde(default)]
    pub withheld: WithheldCounts,
    /// What the last copy left out, where something was.
    #[serde(default)]
    pub left_out: LeftOutStatus,
    /// What the last copy that came to its end did with what only the target had.
    #[serde(default)]
    pub orphans: Option<OrphanCounts>,
    pub mirror: MirrorStatus,
    /// There from the start of a mirror on; stays after its end.
    pub progress: Option<MirrorProgress>,
    /// How the target is brought into line, or was last; not before that.
    #[serde(default)]
    pub resync: Option<ResyncStatus>,
    /// The last verification that came to its end, also of an earlier run.
    #[serde(default)]
    pub verified: Option<VerifiedStatus>,
    /// Not yet applied by the target, held in memory.
    pub queued: Amount,
    /// Sent since the start, by this connection.
    pub sent: Amount,
    /// Sent again after a reconnection.
    pub resent: Amount,
    /// The target has applied everything up to here (page cache).
    pub applied: Sequence,
    /// The target has made everything up to here durable.
    pub durable: Sequence,
    /// `None` while the replica is not the directory as of any moment (a copy runs, or it lost its
    /// place): then it is not known how far it is behind.
    pub lag_applied: Option<Lag>,
    pub lag_durable: Option<Lag>,
    /// There while the connection is up.
    pub link: Option<LinkStatus>,
    /// There while the target cannot perform the op at the head of the line.
    pub retrying: Option<Retrying>,
    /// When it sends, where not always.
    #[serde(default)]
    pub schedule: Option<ScheduleStatus>,
    /// How fast it sends at most, where not as fast as it goes.
    #[serde(default)]
    pub limit: Option<LimitStatus>,
    /// How short it makes what it sends, where a level was set.
    #[serde(default)]
    pub compression: Option<CompressionStatus>,
}

/// How short a connection makes what goes over a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompressionStatus {
    /// 0 to 3.
    pub level: Compression,
    /// In words.
    pub method: String,
    pub from: Origin,
    /// It counts; else it is kept, and switched off.
    pub on: bool,
    /// Whether the target takes it; `None`: it was not connected yet.
    pub taken: Option<bool>,
    /// Payloads that went while it was on, bytes, since the source was started.
    pub payload_bytes: u64,
    /// What they were on the wire.
    pub wire_bytes: u64,
}

/// How fast a connection sends over a network at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitStatus {
    /// As it is typed.
    pub plan: String,
    pub from: Origin,
    /// It counts; else it is kept, and switched off.
    pub on: bool,
    /// Bytes a second, now; `None`: as fast as it goes.
    pub rate: Option<u64>,
    /// When that changes, and to what.
    pub next_unix_ms: Option<u64>,
    pub next_rate: Option<u64>,
    /// Bytes a second by which the queue grows, while it does because of the limit.
    pub queue_grows: Option<u64>,
    /// Seconds until it is full, if that goes on.
    pub queue_full_seconds: Option<u64>,
}

/// When a connection sends, and what comes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleStatus {
    /// As it is typed.
    pub plan: String,
    pub from: Origin,
    /// It counts; else it is kept, and switched off.
    pub on: bool,
    /// It lets the connection run.
    pub open: bool,
    /// What holds now, in words.
    pub why: String,
    /// When that changes at the latest, as far as time alone says so.
    pub next_unix_ms: Option<u64>,
    /// What changes it then or before, in words.
    pub next: String,
}

/// What a verification came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedStatus {
    pub at_unix_ms: u64,
    /// What was compared.
    #[serde(default)]
    pub mode: VerifyMode,
    /// Nothing but what is below this directory.
    #[serde(default, with = "path_text::optional")]
    pub path: Option<PathBuf>,
    /// The history that the position is of.
    #[serde(default)]
    pub history: String,
    /// The last position as of which something was compared.
    pub upto: Sequence,
    /// Objects that the source could not read.
    #[serde(default)]
    pub unread: u64,
    #[serde(flatten)]
    pub counts: CheckCounts,
}

impl VerifiedStatus {
    pub fn is_identical(&self) -> bool {
        self.counts.is_identical() && self.unread == 0
    }
}

impl ConnectionStatus {
    /// Whether it is the one of this number, UUID (or its beginning) or target.
    pub fn is(&self, which: &str) -> bool {
        self.id.to_string() == which
            || which.len() >= 8 && self.uuid.starts_with(which)
            || self.target == which
    }
}

/// Objects that could not be copied. The replica is bad for them; everything else is in line, and the
/// next start of the protection tries them again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutStatus {
    pub count: u64,
    /// The first of them, each with its reason.
    pub objects: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    Local,
    Remote,
    /// Counts and sends nothing: there is no replica that could be in sync.
    Null,
}

/// A connection's state in a word; the states, and the ways between them: `src/connection/state.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// No network connection; changes are queued.
    Stopped,
    /// Network connection up, changes are sent as soon as possible.
    Started,
    /// Network connection up; changes are queued.
    Paused,
    /// No network connection until the criteria of the schedule are met.
    Scheduled,
    /// Scheduled, and the last session failed.
    ScheduledAfterError,
    /// The link or the target daemon failed; changes are queued and it is tried again.
    Error,
}

impl ConnectionState {
    /// The state as a bit mask for scripts.
    pub fn bits(self) -> u8 {
        match self {
            ConnectionState::Stopped => 0,
            ConnectionState::Started => 1,
            ConnectionState::Paused => 2,
            ConnectionState::Scheduled => 4,
            ConnectionState::ScheduledAfterError => 4 | 8,
            ConnectionState::Error => 8,
        }
    }

    pub fn waits_for_schedule(self) -> bool {
        matches!(self, ConnectionState::Scheduled | ConnectionState::ScheduledAfterError)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum MirrorStatus {
    /// None runs and none has run since the start.
    Idle,
    Calculating,
    /// Of the bytes that were counted so far, 0 to 100. 100 is not done: see `complete`.
    Mirroring {
        percent: f64,
    },
    Paused,
    Stopped,
    Verifying,
    /// The target has made its end durable.
    Complete,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    pub packets: u64,
    pub bytes: u64,
}

/// How far a target is behind: age of the oldest change that it lacks, and how much it lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    pub seconds: f64,
    pub packets: u64,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    pub connected_unix_ms: u64,
    pub rtt_ms: f64,
    pub udp_sent_bytes: u64,
    pub udp_received_bytes: u64,
    pub udp_lost_packets: u64,
    /// Longest datagram that the path of the packets carries, as far as is known, bytes.
    pub udp_payload_max: u16,
}

/// Objects that a target cannot keep in line; everything else goes on. Only a copy, with the next
/// start of the protection, takes them from the list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsideStatus {
    pub total: u64,
    /// The first of them.
    pub objects: Vec<SetAside>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Where it lies in the directory.
    pub path: String,
    /// What could not be done.
    pub op: String,
    pub reason: String,
    pub since_unix_ms: u64,
}

/// An op that the target cannot perform; everything behind it waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retrying {
    pub op: String,
    pub reason: String,
    pub since_unix_ms: u64,
    pub attempts: u32,
    /// Nothing is wrong: the command of a marker runs, and holds the stream.
    #[serde(default)]
    pub marker: bool,
}

/// Something a person should know. Codes are stable, texts are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    pub severity: Severity,
    pub code: Code,
    pub text: String,
}
