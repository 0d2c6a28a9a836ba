//! The directories that are compared, side by side on one file system.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::error::{Context, Error, Result};
use super::mount::{Mount, Protection};
use super::placement::Threads;
use super::served::Served;
use super::variant::Variant;
use super::watched::Watched;
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
    /// Ends before what it watches.
    pub _watched: Option<Watched>,
    /// Ends before the directories go.
    pub mount: Option<Mount>,
    /// Ends after the mount: it gets what is queued.
    pub served: Option<Served>,
    /// What an application uses.
    pub dir: PathBuf,
    /// Where its bytes really are.
    pub backing: PathBuf,
    pub replica: Option<PathBuf>,
}

/// With what the places are made.
pub struct Builder<'a> {
    pub workshop: &'a Workshop,
    pub program: &'a Path,
    /// The program of `--against`.
    pub against: Option<&'a Path>,
    pub passthrough_hp: &'a Path,
    pub stop: &'a AtomicBool,
}

impl Builder<'_> {
    /// Makes the directories of a variant and mounts what it needs.
    ///
    /// Answers in words why it cannot be had, where that is no failure.
    pub fn build(&self, variant: Variant) -> Result<std::result::Result<Place, String>> {
        let program = self.against.filter(|_| variant.is_others()).unwrap_or(self.program);
        let batch = matches!(variant, Variant::Batch | Variant::BatchAgainst);
        if batch && !knows(program, "--profile") {
            return Ok(Err(format!("{}: {} has no --profile", variant.name(), program.display())));
        }
        let home = self.workshop.make(variant.directory())?;
        let make = |name: &str| self.workshop.make(&format!("{}/{name}", variant.directory()));
        let backing = make("backing")?;
        if variant == Variant::Native {
            let dir = backing.clone();
            return Ok(Ok(Place {
                variant,
                _watched: None,
                mount: None,
                served: None,
                dir,
                backing,
                replica: None,
            }));
        }
        let (dir, mut watched, mut served, mut replica) = (make("mount")?, None, None, None);
        let protect = |target: OsString, options: &[&str]| {
            let name = format!("bench-{}-{}", variant.directory(), std::process::id());
            let (backing, home, point) = (backing.as_path(), home.as_path(), dir.as_path());
            let protection = Protection { program, name: &name, point, backing, target, home, options };
            Mount::protect(&protection, self.stop).map(Some)
        };
        let mount = match variant {
            Variant::Native => None,
            Variant::Null | Variant::NullAgainst => protect("null:".into(), &[])?,
            Variant::Batch | Variant::BatchAgainst => protect("null:".into(), &["--profile", "batch"])?,
            Variant::Replicating | Variant::ReplicatingAgainst => {
                let target = replica.insert(home.join("replica"));
                protect(local(target), &[])?
            }
            Variant::Watched | Variant::WatchedAgainst => {
                let (target, statistics) =
                    (replica.insert(home.join("replica")), Watched::statistics(&home)?);
                let options = ["--statistics", statistics.to_str().ok_or_else(no_text)?];
                let mount = protect(local(target), &options)?;
                watched = Some(Watched::start(program, &home, self.stop)?);
                mount
            }
            Variant::Served | Variant::ServedAgainst => {
                let target = served.insert(Served::start(program, &home, self.stop)?);
                replica = Some(target.replica.clone());
                protect(target.target.clone().into(), &[])?
            }
            Variant::Bindfs => self.pass(Path::new("bindfs"), &["-f", "--multithreaded"], &dir, &backing)?,
            Variant::PassthroughHp => self.pass(self.passthrough_hp, &["--foreground"], &dir, &backing)?,
        };
        let Some(mount) = mount else { return Ok(Err(format!("{} is not installed", variant.name()))) };
        Ok(Ok(Place { variant, _watched: watched, mount: Some(mount), served, dir, backing, replica }))
    }

    fn pass(&self, program: &Path, options: &[&str], dir: &Path, backing: &Path) -> Result<Option<Mount>> {
        Mount::passing(program, options, dir, backing, self.stop)
    }
}

fn no_text() -> Error {
    Error::Wrong("the name of the directory is no text (UTF-8)".into())
}

/// As `--to` takes a replica on this host.
pub fn local(replica: &Path) -> OsString {
    let mut target = OsString::from("local:");
    target.push(replica);
    target
}

/// Whether a program says that it has an option of `protect`.
fn knows(program: &Path, option: &str) -> bool {
    let help = std::process::Command::new(program).args(["protect", "--help"]).output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains(option))
}

impl Place {
    /// Waits until nothing is under way that would disturb the next measurement, and everything is
    /// where it has to arrive.
    pub fn settle(&self, stop: &AtomicBool) -> Result<()> {
        if self.variant.keeps_back() {
            let dir = fs::File::open(&self.dir).at(&self.dir)?;
            rustix::fs::syncfs(&dir).at(&self.dir)?;
        }
        match (&self.mount, &self.replica) {
            (Some(mount), Some(_)) => mount.wait_sync(WaitFor::Applied, stop),
            _ => Ok(()),
        }
    }

    /// Processor seconds of the process behind the mount, and of the target daemon; 0 where there
    /// is none.
    pub fn cpu_seconds(&self) -> Result<(f64, f64)> {
        let seconds = |pid: Option<u32>| {
            let time = pid.map_or(Ok(Duration::ZERO), process_time).at(&self.dir)?;
            Ok(time.as_secs_f64())
        };
        let served = self.served.as_ref().map(|served| served.process.pid());
        Ok((seconds(self.mount.as_ref().map(Mount::pid))?, seconds(served)?))
    }

    /// None where there is no process.
    pub fn daemon_threads(&self) -> Result<Threads> {
        let pid = self.mount.as_ref().map(Mount::pid);
        pid.map_or(Ok(Threads::default()), Threads::of).at(&self.dir)
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
