//! What is seen in a drill: the host, read-only, with a few fresh places, and the clone.
//!
//! The clone is taken hold of before the host's mounts are let go of.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, makedev};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags};

use super::{Wanted, root};
use crate::drill::limits::BESIDE_MAX;
use crate::preflight::MountTable;
use crate::sys::{MountOptions, Seal, own_mounts, seal_tree, set_mount_options};

/// Fresh in every drill, where the host has them: what programs write to, and where their sockets are.
pub(super) const FRESH: [(&str, &str); 3] = [("/run", "0755"), ("/tmp", "1777"), ("/var/tmp", "1777")];

/// Device nodes of a drill.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What was arranged.
pub(super) struct Arranged {
    /// Directory in which parts of the data's own path had to be made.
    pub made_in: Option<PathBuf>,
    /// Where mounts of the host were that are not there.
    pub left_out: Vec<PathBuf>,
}

/// Arranges all of it for this process and those that it starts.
///
/// Errors: what could not be done; nothing of the host was changed.
pub(super) fn arrange(wanted: &Wanted) -> Result<Arranged, String> {
    rustix::process::umask(Mode::empty());
    own_mounts().map_err(because("no mounts of its own"))?;
    let (held, choice) = root::hold(&wanted.shown)?;
    let clone = take_hold(&wanted.clone)?;
    let services = services()?;
    root::leave(held)?;
    seal_tree(open(Path::new("/"))?, Seal::ReadOnly).map_err(because("the host cannot be made read-only"))?;
    for path in choice.go.iter().chain(&wanted.hidden) {
        cover(path)?;
    }
    for (path, mode) in FRESH {
        refresh(Path::new(path), mode, &services)?;
    }
    fresh_devices().map_err(because("no devices of its own"))?;
    for kind in ["proc", "sysfs"] {
        of_the_kernel(kind)?;
    }
    Ok(Arranged { made_in: place(&clone, &wanted.at)?, left_out: choice.go })
}

/// Of these namespaces, and read-only.
fn of_the_kernel(kind: &str) -> Result<(), String> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let at = if kind == "proc" { "/proc" } else { "/sys" };
    rustix::mount::mount(kind, at, kind, flags, None).map_err(because(format_args!("no {at} of its own")))
}

pub(super) fn because<E: Into<io::Error>>(what: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {}", error.into())
}

pub(super) fn open(path: &Path) -> Result<OwnedFd, String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(because(path.display()))
}

/// A mount of the clone that is nowhere yet.
fn take_hold(clone: &Path) -> Result<OwnedFd, String> {
    let held = root::alone(clone).map_err(because(format_args!("the clone {}", clone.display())))?;
    seal_tree(&held, Seal::NoDevices).map_err(because("the clone's mount"))?;
    Ok(held)
}

/// A memory file system that is nowhere yet.
fn memory(mode: &str, options: MountAttrFlags) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "mode", mode)?;
    rustix::mount::fsconfig_set_string(&context, "source", "standin-drill")?;
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, options)
}

pub(super) fn attach(mount: &OwnedFd, at: &Path) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    rustix::mount::move_mount(mount, "", CWD, at, flags)
}

/// Nothing of this directory is seen.
fn cover(path: &Path) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => {}
        // Covered with what is above it, or not there; under a mounted file there is a file, of nothing.
        Ok(_) | Err(_) => return Ok(()),
    }
    let options = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    // Whoever a command is run as may pass: the data's own path can lie below.
    memory("0755", options)
        .and_then(|empty| attach(&empty, path))
        .map_err(because(format_args!("{} cannot be covered", path.display())))
}

/// Directories of `/run`, whose owners services rely on.
fn services() -> Result<Vec<(OsString, fs::Metadata)>, String> {
    let fail = |error: io::Error| format!("/run cannot be read: {error}");
    let Ok(run) = fs::canonicalize("/run") else { return Ok(Vec::new()) };
    let table = MountTable::read().map_err(fail)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(&run).map_err(fail)?.take(BESIDE_MAX).flatten() {
        // A daemon that hangs would hang this.
        if table.at(&entry.path()).is_some_and(|mount| mount.fs_type.starts_with("fuse")) {
            continue;
        }
        if let Ok(meta) = fs::symlink_metadata(entry.path()) {
            found.extend(meta.is_dir().then(|| (entry.file_name(), meta)));
        }
    }
    Ok(found)
}

/// An empty, writable directory in the place of this one; of `/run` with the directories that services rely on.
fn refresh(path: &Path, mode: &str, services: &[(OsString, fs::Metadata)]) -> Result<(), String> {
    let Ok(path) = fs::canonicalize(path) else { return Ok(()) };
    let fail = |error: io::Error| format!("{} cannot be made anew: {error}", path.display());
    let options = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let fresh = memory(mode, options).map_err(|error| fail(error.into()))?;
    attach(&fresh, &path).map_err(|error| fail(error.into()))?;
    if path == Path::new("/run") {
        services.iter().try_for_each(|(name, meta)| make_like(&fresh, name, meta)).map_err(fail)?;
    }
    Ok(())
}

fn make_like(parent: &OwnedFd, name: &OsStr, like: &fs::Metadata) -> io::Result<()> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
    let (owner, group) = (rustix::fs::Uid::from_raw(like.uid()), rustix::fs::Gid::from_raw(like.gid()));
    rustix::fs::chownat(parent, name, Some(owner), Some(group), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(like.mode() & 0o7777);
    Ok(rustix::fs::chmodat(parent, name, mode, rustix::fs::AtFlags::empty())?)
}

fn fresh_devices() -> io::Result<()> {
    let options = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let dev = memory("0755", options)?;
    attach(&dev, Path::new("/dev"))?;
    for (name, major, minor) in DEVICES {
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(major, minor))?;
    }
    for (name, to) in LINKS {
        rustix::fs::symlinkat(to, &dev, name)?;
    }
    for name in ["pts", "shm"] {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755))?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    rustix::mount::mount(
        "devpts",
        "/dev/pts",
        "devpts",
        flags,
        Some(c"newinstance,ptmxmode=0666,mode=0620"),
    )?;
    let options = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    Ok(attach(&memory("1777", options)?, Path::new("/dev/shm"))?)
}

/// The clone goes to the data's own path. Where there is no such directory, it is tried to be made: in a fresh
/// place that works; everything of the host is read-only by now, and its directory is shown anew.
fn place(clone: &OwnedFd, at: &Path) -> Result<Option<PathBuf>, String> {
    let made_in = match fs::metadata(at) {
        Ok(there) if there.is_dir() => None,
        Ok(_) => return Err(format!("{} is there and no directory", at.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(at)?,
        Err(error) => return Err(format!("{}: {error}", at.display())),
    };
    attach(clone, at).map_err(because(format_args!("the clone cannot be mounted at {}", at.display())))?;
    Ok(made_in)
}

fn make(at: &Path) -> Result<Option<PathBuf>, String> {
    let fail = |error: io::Error| format!("{} cannot be made: {error}", at.display());
    match make_directories(at) {
        Err(error) if error.raw_os_error() == Some(libc::EROFS) => {}
        made => return made.map(|()| None).map_err(fail),
    }
    let there = at.ancestors().find(|above| above.is_dir()).unwrap_or(Path::new("/"));
    let shown = show_anew(there)?;
    make_directories(at).map_err(fail)?;
    let read_only = MountOptions::READ_ONLY;
    set_mount_options(&shown, Path::new(""), read_only, read_only).map_err(fail)?;
    Ok(Some(there.to_owned()))
}

fn make_directories(at: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o755).create(at)
}

/// Puts a writable directory in the place of one that is there, with everything in it that was in it: each
/// entry is a mount of the one before.
fn show_anew(there: &Path) -> Result<OwnedFd, String> {
    let fail = |error: io::Error| format!("{} cannot be shown with one more entry: {error}", there.display());
    let old = open(there)?;
    let names: Vec<OsString> = fs::read_dir(there)
        .and_then(|all| all.map(|entry| Ok(entry?.file_name())).collect())
        .map_err(fail)?;
    if names.len() > BESIDE_MAX {
        let next = "make the data's directory on this host, empty, and run it again";
        return Err(format!("{} has {} entries: {next}", there.display(), names.len()));
    }
    let like = fs::metadata(there).map_err(fail)?;
    let mode = format!("{:o}", like.mode() & 0o7777);
    let shown = memory(&mode, MountAttrFlags::MOUNT_ATTR_NODEV).map_err(|error| fail(error.into()))?;
    attach(&shown, there).map_err(|error| fail(error.into()))?;
    for name in &names {
        show(&old, &shown, name).map_err(fail)?;
    }
    if there == Path::new("/") {
        // What is mounted on a root is not seen by who has it as his root.
        rustix::process::fchdir(&shown).map_err(|error| fail(error.into()))?;
        rustix::process::chroot(".").map_err(|error| fail(error.into()))?;
    }
    Ok(shown)
}

/// What the host removes or replaces meanwhile is not shown.
fn show(old: &OwnedFd, shown: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let status = match rustix::fs::statat(old, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        status => status?,
    };
    let removed_by = match FileType::from_raw_mode(status.st_mode) {
        FileType::Symlink => {
            return match rustix::fs::readlinkat(old, name, Vec::new()) {
                Err(Errno::NOENT | Errno::INVAL) => Ok(()),
                to => Ok(rustix::fs::symlinkat(to?, shown, name)?),
            };
        }
        FileType::Directory => {
            rustix::fs::mkdirat(shown, name, Mode::from_raw_mode(0o755))?;
            AtFlags::REMOVEDIR
        }
        _ => {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            drop(rustix::fs::openat(shown, name, flags, Mode::from_raw_mode(0o600))?);
            AtFlags::empty()
        }
    };
    match bind(old, shown, name) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR) => {
            Ok(rustix::fs::unlinkat(shown, name, removed_by)?)
        }
        done => Ok(done?),
    }
}

fn bind(old: &OwnedFd, shown: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(old.as_fd(), name, flags | OpenTreeFlags::AT_SYMLINK_NOFOLLOW)?;
    let to = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&tree, "", shown, name, to)
}
