//! What everybody in the daemon stands on: made at the start, and the same until the end.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::activity::Merge;
use super::durability::TargetDurability;
use super::holder::Holder;
use super::joining::Joining;
use super::mount_options::BackingMount;
use super::reload::Followed;
use super::roles::Roles;
use crate::control::ProcessMeter;
use crate::intercept::Volume;
use crate::packet::SetId;
use crate::preflight::Ways;
use crate::queue::Queue;
use crate::words::Fingerprint;
use crate::words::ProtectOptions;

/// See the module. Volume, queue and durability have threads and locks of their own, which never
/// wait for the director.
pub struct Ground {
    pub options: ProtectOptions,
    pub set: SetId,
    pub volume: Arc<Volume>,
    pub queue: Arc<Queue>,
    /// Any descriptor of the backing directory, past the mount.
    pub backing: OwnedFd,
    /// The mount of the daemon's own that it is reached by.
    pub view: OwnedFd,
    /// The directory on the mount where everybody has it, below ours.
    pub under: OwnedFd,
    /// Where the backing really is mounted; `None` where that cannot be seen.
    pub backing_mount: Option<BackingMount>,
    pub started: SystemTime,
    pub meter: ProcessMeter,
    /// This host's key, where a target on another host knows it.
    pub fingerprint: OnceLock<Fingerprint>,
    /// With `--fsync=target`.
    pub durability: Option<Arc<TargetDurability>>,
    /// Who writes the set.
    pub roles: Arc<Roles>,
    /// With `--holder`: who keeps the mount when this process ends without a word.
    pub holder: Option<Holder>,
    /// What was in doubt at the start, after a power loss.
    pub merge: Option<Arc<Merge>>,
    /// What another connection is made of.
    pub joining: Joining,
    /// How programs may get past the mount.
    pub ways: Ways,
    /// What a person was told at the start, for the status.
    pub warnings: Vec<String>,
    /// What was said in files and on the command line, as it holds now.
    pub followed: Followed,
}
