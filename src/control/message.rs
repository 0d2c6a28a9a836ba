//! Requests and responses, each one JSON document on a line of its own.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clones::{ClonesRequest, ReplicaClones};
use super::configuration::{ConfigurationReport, ReloadReport};
use super::markers::{AttendRequest, Attending, MarkerReport, MarkerRequest};
use super::orphans::{OrphansRequest, ReplicaOrphans};
use super::presence::{FileReport, FilesRequest};
use super::resync::ResyncReport;
use super::status::{ConnectionStatus, Status};
use super::upgrade::{UpgradeLook, UpgradeRequest};
use crate::events::{Page, Series};
use crate::failure::Failure;
use crate::packet::{CheckCounts, DifferenceKind, Sequence};
use crate::sets::Rules;
use crate::words::{
    Allow, Compression, CopyMode, HashKind, LimitPlan, Order, OrphanRules, QueueStats, Right, SchedulePlan,
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request")]
pub enum Request {
    Status,
    WaitSync {
        durable: bool,
        /// Without one the daemon waits until the caller goes away.
        timeout_ms: Option<u64>,
    },
    /// Of a source: whether files are on the targets as they are now. Whoever hangs up ends it.
    Files {
        files: FilesRequest,
    },
    /// Of a source: a barrier with a name. Whoever hangs up ends the waiting.
    Marker {
        marker: MarkerRequest,
    },
    /// Of a target: the next marker that something is to be run for. Whoever hangs up ends it.
    Attend {
        attend: AttendRequest,
    },
    Stop {
        mode: StopMode,
    },
    /// Of a source: it becomes another program, and gives no answer but where it does not.
    Upgrade {
        upgrade: UpgradeRequest,
    },
    /// Of a source: what a person wants of one connection.
    Connection {
        change: ConnectionChange,
        /// Number, UUID or target; without it the only one.
        which: Option<String>,
    },
    /// Of a source: compares a replica. Whoever hangs up stops it.
    Verify {
        verify: VerifyRequest,
    },
    /// Of a source: what a resynchronisation of each target would take.
    Foresee,
    /// Of whoever holds replicas: what copies moved aside. Whoever hangs up ends it.
    Orphans {
        orphans: OrphansRequest,
    },
    /// Of a target: the source of a replica is to say something.
    CallSource {
        call: CallSource,
    },
    /// Of whoever holds replicas: copies of them as of one moment.
    Clones {
        clones: ClonesRequest,
    },
    /// Of a source: as a reload; what its rules are then.
    Rules,
    /// Its files are read anew: all of them count, or nothing is changed.
    Reload,
    /// What its options are, and what its files say now.
    Configuration,
    /// Of a target: a token for a source.
    Invite {
        invite: Invite,
    },
    /// Of a target: who may send what.
    Pairings,
    /// Of a target: no longer.
    Revoke {
        revoke: Revoke,
    },
    /// What began, ended and happened behind a number of a run.
    Events {
        run: String,
        after: u64,
    },
    /// The last day of each connection.
    History,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "response")]
pub enum Response {
    Status { status: Box<Status> },
    WaitSync { report: SyncReport },
    Files { files: Vec<FileReport> },
    Marker { report: MarkerReport },
    Attend { attending: Attending },
    Stop { report: StopReport },
    Upgrade { look: UpgradeLook },
    Connection { changed: Box<ChangedConnection> },
    Verify { report: Box<VerifyReport> },
    Foresee { report: ResyncReport },
    Orphans { replicas: Vec<ReplicaOrphans> },
    CallSource { called: Option<CalledSource> },
    Clones { replicas: Vec<ReplicaClones> },
    Rules { report: RulesReport },
    Reload { report: ReloadReport },
    Configuration { report: ConfigurationReport },
    Invite { invited: Invited },
    Pairings { pairings: Vec<Paired> },
    Revoke { revoked: Vec<Paired> },
    Events { page: Box<Page> },
    History { connections: Vec<Series> },
    Failure { failure: Failure },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionChange {
    /// Another one; none is named.
    Add {
        /// As it is typed for `--to`; a path is absolute.
        target: String,
        /// What is in the directory of a replica on this host becomes the replica, and is compared.
        adopt: bool,
    },
    Start,
    Stop,
    /// Nothing is sent, and nothing is queued.
    StopReplication,
    StartReplication,
    Pause,
    Resume,
    /// A resumption that lets the deletions go for which it is paused.
    AcceptDeletes,
    Disconnect,
    /// Of copies, from here on.
    StartMirror {
        /// As the last stop left it, else by differences.
        mode: Option<CopyMode>,
        /// Of a mode that is named.
        #[serde(default)]
        hash: HashKind,
        /// Bytes a second.
        rate: Option<u64>,
        /// What it does with what only the target has; else what the protection was started with.
        #[serde(default)]
        orphans: Option<OrphanRules>,
        /// Nothing but what lies there: absolute, or relative to the protected directory.
        #[serde(default, with = "super::path_text::optional")]
        path: Option<PathBuf>,
    },
    /// A copy of what is in doubt.
    Merge,
    StopMirror {
        /// The next one believes nothing that the target has.
        from_scratch: bool,
    },
    PauseMirror,
    ResumeMirror {
        /// Bytes a second, from now on; `Some(0)`: as fast as it goes.
        rate: Option<u64>,
    },
    /// When it sends.
    Schedule {
        order: Order<SchedulePlan>,
    },
    /// How fast.
    Limit {
        order: Order<LimitPlan>,
    },
    /// How short.
    Compression {
        order: Order<Compression>,
    },
}

/// A connection after a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangedConnection {
    pub change: ConnectionChange,
    /// As it is now; a disconnected one as it was last.
    pub connection: ConnectionStatus,
    pub queue: QueueStats,
}

/// What is to be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// Number, UUID or target of the connection; without it the only one.
    pub which: Option<String>,
    /// Content too.
    pub checksum: bool,
    /// Content too, by a hash that nobody can find two contents for.
    pub audit: bool,
    /// What differs is mended by a copy, and compared again.
    #[serde(default)]
    pub repair: bool,
    /// Bytes of content that the source reads in a second at most.
    pub rate: Option<u64>,
    /// Nothing but what lies there: absolute, or relative to the protected directory.
    #[serde(with = "super::path_text::optional")]
    pub path: Option<PathBuf>,
    /// Given up after this time; without one never.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// What a comparison came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    pub connection: u32,
    pub target: String,
    /// Nothing differs, and everything could be read.
    pub identical: bool,
    #[serde(flatten)]
    pub counts: CheckCounts,
    /// What it came to before a repair, where there was one.
    pub before_repair: Option<CheckCounts>,
    /// Objects that the source could not read.
    pub unread: u64,
    /// Each thing was compared as of one position; these are the first and the last of them.
    pub from: Sequence,
    pub upto: Sequence,
    pub took_ms: u64,
    /// What was found, by name; where it is much, not all of it.
    pub differences: Vec<Found>,
}

/// Something that a replica has otherwise than its source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub kind: DifferenceKind,
    /// In the protected directory, where it is or would be.
    #[serde(with = "super::path_text")]
    pub path: PathBuf,
    /// Bytes of content that differ, in whole blocks, or are missing or too many.
    pub bytes: u64,
}

/// Which source is called, or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallSource {
    /// Name of the replica.
    pub replica: String,
    /// It was called so many milliseconds ago: where nothing was heard of it since, its connection is ended, because
    /// somebody stands in for it. Nobody is called again.
    pub end_silent_for_ms: Option<u64>,
}

/// What came of it; none where no source works on the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalledSource {
    pub answered: bool,
    /// Its connection.
    pub ended: bool,
    pub waited_ms: u64,
}

/// Who is invited to what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    pub set_name: String,
    /// Where the target can be reached, for people; may be empty.
    pub address: String,
    pub good_for_ms: u64,
    /// What the source may have beside plain data; `None`: what the target allows everybody.
    #[serde(default)]
    pub allow: Option<Allow>,
    #[serde(default)]
    pub right: Right,
}

/// An invitation. The token is a secret until it is used or has expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    pub token: String,
    pub set_name: String,
    /// The target's key, as it stands in the token.
    pub fingerprint: String,
    pub expires_unix_ms: u64,
    /// Where the target listens.
    pub listening: String,
    /// What of `allow` the daemon can do only after its next start: it gave up the right.
    #[serde(default = "nothing")]
    pub after_restart: Allow,
}

/// A key that may send a replication set, or read it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paired {
    pub fingerprint: String,
    pub set_name: String,
    #[serde(default)]
    pub right: Right,
    pub since_unix_ms: u64,
    /// Where it was when it paired.
    pub address: String,
    /// What it may have beside plain data.
    #[serde(default = "nothing")]
    pub allow: Allow,
    /// Its invitation said nothing about that: the daemon's own option counts.
    #[serde(default)]
    pub by_default: bool,
    /// What of `allow` the daemon can do only after its next start: it gave up the right.
    #[serde(default = "nothing")]
    pub after_restart: Allow,
}

/// Of a daemon of an older version.
fn nothing() -> Allow {
    Allow::NOTHING
}

/// Which pairings go: those of a key (or of the one key that begins so), of a set, or of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    pub fingerprint: String,
    pub set_name: Option<String>,
}

/// A parsed `wait_sync` request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitSync {
    pub wait_for: WaitFor,
    pub timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    Applied,
    Durable,
}

/// What `wait-sync` found, at the latest at its time-out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncReport {
    /// All targets have everything up to `upto`.
    pub complete: bool,
    /// The last position at the moment of the request.
    pub upto: Sequence,
    pub waited_ms: u64,
    pub connections: Vec<SyncedConnection>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncedConnection {
    pub id: u32,
    pub target: String,
    pub complete: bool,
    pub applied: Sequence,
    pub durable: Sequence,
    /// What it still waits for, in words; empty when complete.
    pub waits_for: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Drain, then unmount; a busy mount is an error and goes on serving.
    Orderly,
    /// As orderly; in the moment in which the mount goes a cover stands in its place ([`crate::cover`]).
    Covered,
    /// Detach at once, whatever is queued or busy.
    Now,
}

/// How a stop ended; the mount is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopReport {
    /// Nothing was left in the queue.
    pub drained: bool,
    /// What was left, per target, in words; empty when drained.
    pub left: Vec<String>,
}

/// What a source follows from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesReport {
    pub rules: Rules,
    /// They are other ones than before: the replicas are compared.
    pub has_changed: bool,
    /// What becomes of what is deleted, in words.
    pub deletions: String,
}
