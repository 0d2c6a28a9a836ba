//! The embedded target of `local:`: the very same sessions and applier, in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::record::directory_name;
use crate::apply::{Applier, IDENTITY_XATTR, OpenError, Places, Replica, was_marked};
use crate::clone::Sessions;
use crate::failure::Failure;
use crate::link::TargetLink;
use crate::packet::SetId;
use crate::preflight::{Claim, Role, open_directory};
use crate::target_side::clones::Unit;
use crate::target_side::reading::Accept;
use crate::target_side::{NoSeat, ReadingSeat, Replicas, Seat, SharedApplier, Within};
use crate::words::{Fingerprint, ProtectOptions};

/// A target in this process, for one replica.
pub struct Embedded {
    target: Arc<Within>,
    applier: SharedApplier,
    clones: Arc<Sessions>,
    directory: PathBuf,
    /// On the replica; the last to go.
    _claim: Claim,
}

/// The one replica that an embedded target has.
struct Only {
    set: SetId,
    applier: SharedApplier,
}

impl Replicas for Only {
    fn open(&self, _link: &TargetLink, set: SetId, _name: &str) -> Result<Seat, NoSeat> {
        if set != self.set {
            return Err(format!("this target holds set {}, not {set}", self.set).into());
        }
        if self.applier.try_lock().is_some_and(|applier| !applier.is_where_it_was()) {
            return Err(MOVED.into());
        }
        Ok(Seat::alone(self.applier.clone()))
    }

    fn read(&self, _link: &TargetLink, _name: &str, _accept: Accept) -> Result<ReadingSeat, String> {
        Err("a replica on this host is read without a link".into())
    }

    fn about(&self, _peer: &Fingerprint, _name: &str) -> Result<String, String> {
        Ok("the embedded target".into())
    }
}

impl Embedded {
    /// Opens the replica (made where it is missing). `state` is the directory for its index and
    /// positions.
    pub fn start(
        path: &Path,
        state: &Path,
        set: SetId,
        options: &ProtectOptions,
    ) -> Result<Embedded, Failure> {
        if !options.adopt && is_missing(path, state) {
            return Err(missing(path));
        }
        std::fs::create_dir_all(path).map_err(|error| failed(path, "cannot be made", &error.to_string()))?;
        let root =
            open_directory(path).map_err(|error| failed(path, "cannot be opened", &error.to_string()))?;
        let claim = Claim::take(Role::Replica, &options.name, path, root)?;
        let places = Places::beside(path, state);
        let replica = match options.adopt {
            true => Replica::open_or_adopt(&places, set),
            false => Replica::open(&places, set),
        };
        let replica = replica.map_err(|error| refused(path, &error))?;
        let applier = Applier::at_rest(replica);
        let (clones, directory) = (applier.clones(), path.to_owned());
        clones.keep_good(options.keep_good);
        let applier = Arc::new(Mutex::new(applier));
        let only = Only { set, applier: applier.clone() };
        let target = Arc::new(Within::new(Arc::new(only)));
        Ok(Embedded { target, applier, clones, directory, _claim: claim })
    }

    /// Its replica, to be cloned.
    pub fn unit(&self, set_name: &str) -> Unit {
        Unit {
            name: set_name.to_owned(),
            directory: self.directory.clone(),
            applier: Arc::downgrade(&self.applier),
            clones: self.clones.clone(),
        }
    }

    /// To connect to it.
    pub fn target(&self) -> Arc<Within> {
        self.target.clone()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.target.stop();
        self.clones.end_copies();
    }
}

/// Where a set keeps what it knows of the replica at this path.
pub(super) fn replica_state(set_state: &Path, replica: &Path) -> PathBuf {
    set_state.join(format!("replica-{}", directory_name(replica)))
}

/// Whether some set of this state directory had its replica there, and it is not there now.
pub(crate) fn is_missing_replica(state: &Path, replica: &Path) -> bool {
    let sets = std::fs::read_dir(state).into_iter().flatten().flatten();
    sets.map(|set| replica_state(&set.path(), replica)).any(|state| is_missing(replica, &state))
}

/// Whether a replica was here before, by its state, and neither it nor its mark is now: what is
/// there may be the mount point of its disk, and a copy would fill the one below.
pub(super) fn is_missing(path: &Path, state: &Path) -> bool {
    let no_mark =
        || rustix::fs::getxattr(path, IDENTITY_XATTR, &mut [0; 1]) == Err(rustix::io::Errno::NODATA);
    was_marked(state) && (!path.exists() || no_mark())
}

const MOVED: &str =
    "the directory of the replica is not where it was: mount its disk, or stop and start the protection";

fn missing(path: &Path) -> Failure {
    Failure::new(
        format!("The replica {} is not there any more.", path.display()),
        "Nothing was mounted or written.",
        "If its disk is not mounted, mount it. If it was removed on purpose, start with --adopt: what is in the \
         directory now becomes the replica, and is compared.",
    )
}

/// For a replica whose file system does not find objects again.
pub const ON_A_DISK: &str = "Choose a directory on ext4, XFS, btrfs or another file system of the kernel's own; of a file \
                             system that shows another one (bindfs, mergerfs), one on what lies below.";

const UNTOUCHED: &str = "Nothing was mounted; the replica directory was not changed.";

fn failed(path: &Path, what: &str, why: &str) -> Failure {
    Failure::new(
        format!("The replica {} {what}: {why}.", path.display()),
        UNTOUCHED,
        "Mend this and start again.",
    )
}

fn refused(path: &Path, error: &OpenError) -> Failure {
    let next = match error {
        OpenError::NotEmptyWithoutIdentity => {
            "Choose an empty or missing directory, or take this one over with --adopt: what differs from the \
             source is then overwritten, and what the source lacks is moved aside."
        }
        OpenError::Missing => return missing(path),
        OpenError::OtherSet { .. } => "Choose another directory: this one is the copy of another source.",
        OpenError::NotADirectory => "Choose a directory.",
        OpenError::NoFileHandles | OpenError::NoIdentities(_) => ON_A_DISK,
        _ => "Mend this and start again.",
    };
    Failure::new(format!("{} cannot be the replica: {error}.", path.display()), UNTOUCHED, next)
}
