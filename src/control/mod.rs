//! The control room: what people and scripts ask a running daemon, and how it answers.
//!
//! ```text
//! standin status ──> Client ──unix socket, one JSON document a line──> Server ──> Handler (the daemon)
//! ```
//! Owns the socket, its permissions and bounds, and the words of the answers. Never touches a
//! mount, a queue or a connection: the [`Handler`] does, on a thread of its own for each caller,
//! so that the data plane never waits for anyone here.

mod access;
mod ask;
mod client;
mod clones;
mod configuration;
mod deed;
mod door;
mod find;
mod hanging;
mod health;
mod lost_writes;
mod markers;
mod message;
mod moments;
mod options_file;
mod orphans;
pub mod path_text;
mod presence;
mod process;
mod recorder;
mod request;
mod restored_from;
mod resync;
mod server;
mod statistics;
mod status;
#[cfg(test)]
pub(crate) mod tests;
mod upgrade;

pub use access::know_groups;
pub use ask::{Asked, NoAnswer, Reply, ask};
pub use client::{Client, ClientError};
pub use clones::{CloneEnd, CloneRequest, CloneStatus, ClonesRequest, ReplicaClones};
pub use configuration::{ConfigurationReport, ReloadReport, change_text, values_text};
pub use find::{Answer, Daemon, daemons, heard, sockets};
pub use health::{Finding, Severity};
pub use lost_writes::LostWrites;
pub use markers::{
    AttendRequest, Attending, MarkedTarget, MarkerDone, MarkerDue, MarkerReport, MarkerRequest, MarkerWait,
};
pub use message::{
    CallSource, CalledSource, ChangedConnection, ConnectionChange, Found, Invite, Invited, Paired, Request,
    Response, Revoke, RulesReport, StopMode, StopReport, SyncReport, SyncedConnection, VerifyReport,
    VerifyRequest, WaitFor, WaitSync,
};
pub use options_file::{FileTrouble, OptionsFile};
pub use orphans::{OrphanStatus, OrphansRequest, PathText, RemoveOrphans, RemovedOrphans, ReplicaOrphans};
pub use presence::{FileKind, FileOnTarget, FileReport, FileState, FilesRequest, Verdict};
pub use process::{ProcessMeter, ProcessStatus};
pub use recorder::measure;
pub use restored_from::RestoredFrom;
pub use resync::{Bounds, MirrorProgress, ResyncForeseen, ResyncReport, ResyncStatus, Rung};
pub use server::{Caller, Handler, Server};
pub use statistics::refusal as statistics_refusal;
#[cfg(test)]
pub(crate) use statistics::{append, statistics_of};
pub use status::{
    ActivityStatus, Alert, Amount, AsideStatus, CaptureStatus, ClockSet, CompressionStatus, ConnectedSource,
    ConnectionState, ConnectionStatus, FsyncStatus, GenerationStatus, HolderStatus, Lag, LastGood,
    LeftOutStatus, LimitStatus, LinkStatus, MirrorStatus, Phase, ReplicaStatus, Retrying, Role, RoleName,
    ScheduleStatus, SetAside, SourceStatus, Status, TargetKind, TargetStatus, TurnedAway, UpgradeStatus,
    VerifiedStatus,
};
pub use upgrade::{UpgradeLook, UpgradeRequest};

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, as every `*_unix_ms` of a status.
pub fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
