//! The directories that are compared, side by side on one file system.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::error::{Context, Error, Result};
use super::mount::{Mount, Protection};
use super::variant::Variant;
use crate::control::WaitFor;
use crate::failure::Failure;
use crate::preflight::MountTable;
use crate::store::random_u64;
use crate::sys::process_time;

/// A directory of our own that goes away with its guard.
pub struct Workshop {
    pub root: PathBuf,
}

impl Workshop {
    /// Makes one in a directory that is absolute and has no symlinks.
    pub fn new(parent: &Path) -> Result<Workshop> {
        let root = parent.join(format!(".standin-bench-{:08x}", random_u64() as u32));
        fs::create_dir(&root).at(&root)?;
        Ok(Workshop { root })
    }

    pub fn make(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir(&path).at(&path)?;
        Ok(path)
    }
}

impl Drop for Workshop {
    /// Never goes into a mount that is still there.
    fn drop(&mut self) {
        match MountTable::read() {
            Ok(mounts) if mounts.below(&self.root).is_empty() => {}
            Ok(_) => return log::error!("{} has mounts below it and stays", self.root.display()),
            Err(error) => {
                return log::error!("{} stays: the mounts are unknown: {error}", self.root.display());
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.root) {
            log::error!("{} could not be removed: {error}", self.root.display());
        }
    }
}

/// Where one variant works.
pub struct Place {
    pub variant: Variant,
    /// Ends before the directories go.
    pub mount: Option<Mount>,
    /// What an application uses.
    pub dir: PathBuf,
    /// Where its bytes really are.
    pub backing: PathBuf,
    pub replica: Option<PathBuf>,
}

impl Place {
    /// Makes the directories of a variant and mounts what it needs; `None` where its program is
    /// not installed. `program`: the `standin` of this variant.
    pub fn build(
        variant: Variant,
        workshop: &Workshop,
        program: &Path,
        stop: &AtomicBool,
    ) -> Result<Option<Place>> {
        let home = workshop.make(variant.directory())?;
        let make = |name: &str| workshop.make(&format!("{}/{name}", variant.directory()));
        let backing = make("backing")?;
        let protect = |target: std::ffi::OsString, dir: &Path| {
            let name = format!("bench-{}-{}", variant.directory(), std::process::id());
            let (backing, home) = (backing.as_path(), home.as_path());
            Mount::protect(&Protection { program, name: &name, point: dir, backing, target, home }, stop)
        };
        let (dir, mount, replica) = match variant {
            Variant::Native => (backing.clone(), None, None),
            Variant::Null | Variant::NullAgainst => {
                let dir = make("mount")?;
                (dir.clone(), Some(protect("null:".into(), &dir)?), None)
            }
            Variant::Replicating | Variant::ReplicatingAgainst => {
                let (dir, replica) = (make("mount")?, home.join("replica"));
                let mut target = std::ffi::OsString::from("local:");
                target.push(&replica);
                (dir.clone(), Some(protect(target, &dir)?), Some(replica))
            }
            Variant::Bindfs => {
                let dir = make("mount")?;
                match Mount::bindfs(&dir, &backing, &home, stop)? {
                    None => return Ok(None),
                    mount => (dir, mount, None),
                }
            }
        };
        Ok(Some(Place { variant, mount, dir, backing, replica }))
    }

    /// Waits until nothing is under way that would disturb the next measurement.
    pub fn settle(&self, stop: &AtomicBool) -> Result<()> {
        match (&self.mount, &self.replica) {
            (Some(mount), Some(_)) => mount.wait_sync(WaitFor::Applied, stop),
            _ => Ok(()),
        }
    }

    /// Processor seconds of the process behind the mount; 0 where there is none.
    pub fn daemon_cpu_seconds(&self) -> Result<f64> {
        let Some(mount) = &self.mount else { return Ok(0.0) };
        Ok(process_time(mount.pid()).at(&self.dir)?.as_secs_f64())
    }

    /// The places where a file of this name has to have arrived: below the mount, and on the
    /// replica.
    pub fn arrivals(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        let replica = self.replica.as_ref().map(|replica| replica.join(name));
        std::iter::once(self.backing.join(name)).chain(replica)
    }

    /// The mount of a variant that needs one.
    pub fn mounted(&self) -> Result<&Mount> {
        let missing = || Error::Wrong(format!("{} has no mount", self.dir.display()));
        self.mount.as_ref().ok_or_else(missing)
    }
}

/// Refuses to fill a disk.
pub fn check_room(dir: &Path, needed: u64) -> Result<()> {
    let free = rustix::fs::statvfs(dir).at(dir)?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    if free >= needed {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    Err(Error::Refused(Failure::new(
        format!("{} has {} MiB free; the benchmark needs {} MiB.", dir.display(), mib(free), mib(needed)),
        "Nothing was written.",
        "Choose another directory, or a smaller --size or --rewrite-size.",
    )))
}
