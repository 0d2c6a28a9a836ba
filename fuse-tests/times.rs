//! Times: every object that an op touches has the same mtime on both sides afterwards, whatever
//! file systems they are.
//!
//! An exchange of two directories with different parents changes the mtimes of the directories
//! themselves on XFS: the packet had only those of the parents, and the copies kept the time of
//! the target's clock for good. Which file system touches what differs, so each kind of change is
//! made on each, and the copy is on another one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW,
    UTIME_OMIT, XattrFlags,
};

use crate::host::{Disk, Protected, Setup, heavy};
use crate::sys::Mapping;
use crate::tree::Rules;

/// One change, in a directory that has what [`furnish`] puts there.
type Change = (&'static str, fn(&Path) -> io::Result<()>);

const CHANGES: &[Change] = &[
    ("create", |d| File::create_new(d.join("new")).map(drop)),
    ("mkdir", |d| fs::create_dir(d.join("left/new"))),
    ("mkfifo", |d| Ok(rustix::fs::mknodat(CWD, d.join("new"), FileType::Fifo, Mode::from(0o600), 0)?)),
    ("symlink", |d| symlink("file", d.join("new"))),
    ("link", |d| fs::hard_link(d.join("file"), d.join("left/new"))),
    ("unlink one of two", |d| fs::remove_file(d.join("second"))),
    ("unlink the last", |d| fs::remove_file(d.join("left/inner/leaf"))),
    ("rmdir", |d| fs::remove_dir(d.join("empty"))),
    ("rename here", |d| fs::rename(d.join("file"), d.join("renamed"))),
    ("rename elsewhere", |d| fs::rename(d.join("file"), d.join("left/file"))),
    ("rename a directory here", |d| fs::rename(d.join("left"), d.join("renamed"))),
    ("rename a directory elsewhere", |d| fs::rename(d.join("left/inner"), d.join("right/moved"))),
    ("rename over one of two", |d| fs::rename(d.join("file"), d.join("second"))),
    ("rename over a directory", |d| fs::rename(d.join("left/inner"), d.join("empty"))),
    ("rename a symlink", |d| fs::rename(d.join("symlink"), d.join("left/symlink"))),
    ("no replace", |d| rename(d, "file", "left/file", RenameFlags::NOREPLACE)),
    ("whiteout", |d| rename(d, "file", "left/file", RenameFlags::WHITEOUT)),
    ("exchange files", |d| rename(d, "file", "left/inner/leaf", RenameFlags::EXCHANGE)),
    ("exchange directories", |d| rename(d, "left/inner", "right/inner", RenameFlags::EXCHANGE)),
    ("exchange neighbours", |d| rename(d, "left", "right", RenameFlags::EXCHANGE)),
    ("exchange a file and a directory", |d| rename(d, "file", "right/inner", RenameFlags::EXCHANGE)),
    ("exchange a symlink and a directory", |d| rename(d, "symlink", "right/inner", RenameFlags::EXCHANGE)),
    ("write", |d| open(d, "file")?.write_all_at(b"new", 2)),
    ("write the same", |d| open(d, "file")?.write_all_at(b"content", 0)),
    ("write beyond the end", |d| open(d, "file")?.write_all_at(b"far", 100_000)),
    ("write nothing", |d| open(d, "file")?.write_at(b"", 3).map(drop)),
    ("append", |d| {
        let file = fs::OpenOptions::new().append(true).open(d.join("file"))?;
        io::Write::write_all(&mut &file, b"appended")
    }),
    ("write directly", |d| {
        let flags = OFlags::WRONLY | OFlags::DIRECT;
        let file = File::from(rustix::fs::open(d.join("file"), flags, Mode::empty())?);
        file.write_all_at(crate::sys::Aligned::new(1, 7).bytes(), 0)
    }),
    ("map", |d| {
        let file = File::options().read(true).write(true).open(d.join("file"))?;
        let mapping = Mapping::new(&file, 4096)?;
        mapping.store(3, b"mapped")?;
        mapping.sync()
    }),
    ("truncate to the same size", |d| open(d, "file")?.set_len(7)),
    ("truncate a path to the same size", |d| truncate(d, "file", 7)),
    ("truncate", |d| open(d, "file")?.set_len(3)),
    ("grow", |d| truncate(d, "file", 50_000)),
    ("truncating open", |d| File::create(d.join("file")).map(drop)),
    ("truncating open of nothing", |d| File::create(d.join("nothing")).map(drop)),
    ("allocate", |d| reserve(d, FallocateFlags::empty())),
    ("allocate, keep size", |d| reserve(d, FallocateFlags::KEEP_SIZE)),
    ("punch", |d| reserve(d, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE)),
    ("zero", |d| reserve(d, FallocateFlags::ZERO_RANGE)),
    ("zero, keep size", |d| reserve(d, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE)),
    ("copy a range", |d| {
        let (from, to) = (File::open(d.join("file"))?, open(d, "left/inner/leaf")?);
        rustix::fs::copy_file_range(&from, None, &to, None, 5)?;
        Ok(())
    }),
    ("set an xattr", |d| set_xattr(d, "file", "user.new")),
    ("set an xattr of a directory", |d| set_xattr(d, "left", "user.new")),
    ("set an xattr of a symlink", |d| set_xattr(d, "symlink", "trusted.new")),
    ("remove an xattr", |d| Ok(rustix::fs::removexattr(d.join("file"), "user.old")?)),
    ("set an ACL", |d| set_acl(d, "file", "system.posix_acl_access")),
    ("set a default ACL", |d| set_acl(d, "left", "system.posix_acl_default")),
    ("chmod", |d| Ok(rustix::fs::chmod(d.join("file"), Mode::from(0o4751))?)),
    ("chmod a directory", |d| Ok(rustix::fs::chmod(d.join("left"), Mode::from(0o2770))?)),
    ("chown", |d| chown(d, "file")),
    ("chown a directory", |d| chown(d, "left")),
    ("chown a symlink", |d| chown(d, "symlink")),
    ("touch", |d| utimens(d, "file", UTIME_NOW as _, UTIME_NOW as _)),
    ("touch a directory", |d| utimens(d, "left", UTIME_NOW as _, UTIME_NOW as _)),
    ("set the atime", |d| utimens(d, "file", 5, UTIME_OMIT as _)),
    ("set the mtime", |d| utimens(d, "file", UTIME_OMIT as _, 123_456_789)),
    ("set the mtime of a symlink", |d| utimens(d, "symlink", UTIME_OMIT as _, 987_654_321)),
];

/// What the changes work on.
fn furnish(dir: &Path) -> io::Result<()> {
    for name in ["left/inner", "right/inner", "empty"] {
        fs::create_dir_all(dir.join(name))?;
    }
    fs::write(dir.join("file"), "content")?;
    fs::write(dir.join("nothing"), "")?;
    fs::write(dir.join("left/inner/leaf"), "a leaf of a tree")?;
    fs::write(dir.join("right/inner/leaf"), "another leaf")?;
    fs::write(dir.join("first"), "linked")?;
    fs::hard_link(dir.join("first"), dir.join("second"))?;
    symlink("file", dir.join("symlink"))?;
    rustix::fs::setxattr(dir.join("file"), "user.old", b"old", XattrFlags::empty())?;
    age(dir)
}

/// Every object below gets a time long ago, deepest first: what changes afterwards is seen.
fn age(at: &Path) -> io::Result<()> {
    if fs::symlink_metadata(at)?.is_dir() {
        for entry in fs::read_dir(at)? {
            age(&entry?.path())?;
        }
    }
    let time = Timespec { tv_sec: 1_000_000_000 + at.as_os_str().len() as i64, tv_nsec: 7_000_000 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, at, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn open(dir: &Path, name: &str) -> io::Result<File> {
    File::options().write(true).open(dir.join(name))
}

fn rename(dir: &Path, from: &str, to: &str, flags: RenameFlags) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(CWD, dir.join(from), CWD, dir.join(to), flags)?)
}

fn truncate(dir: &Path, name: &str, size: u64) -> io::Result<()> {
    File::options().append(true).open(dir.join(name))?.set_len(size)
}

fn reserve(dir: &Path, flags: FallocateFlags) -> io::Result<()> {
    Ok(rustix::fs::fallocate(open(dir, "file")?, flags, 2, 10_000)?)
}

fn set_xattr(dir: &Path, name: &str, attribute: &str) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(dir.join(name), attribute, b"value", XattrFlags::empty())?)
}

/// `u::rwx,u:1:r--,g::r--,m::r-x,o::---` in the kernel's format.
fn set_acl(dir: &Path, name: &str, attribute: &str) -> io::Result<()> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    let nobody = u32::MAX;
    for (tag, permissions, id) in
        [(1u16, 7u16, nobody), (2, 4, 1), (4, 4, nobody), (0x10, 5, nobody), (0x20, 0, nobody)]
    {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&permissions.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    Ok(rustix::fs::setxattr(dir.join(name), attribute, &acl, XattrFlags::empty())?)
}

fn chown(dir: &Path, name: &str) -> io::Result<()> {
    std::os::unix::fs::lchown(dir.join(name), Some(12), Some(34))
}

fn utimens(dir: &Path, name: &str, atime: i64, mtime: i64) -> io::Result<()> {
    let time = |nanoseconds: i64| Timespec { tv_sec: 1_111_111_111, tv_nsec: nanoseconds as _ };
    let times = Timestamps { last_access: time(atime), last_modification: time(mtime) };
    Ok(rustix::fs::utimensat(CWD, dir.join(name), &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// A change that this file system does not have is none: `EOPNOTSUPP` and nothing else.
fn make(name: &str, change: fn(&Path) -> io::Result<()>, dir: &Path) -> bool {
    match change(dir) {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            println!("'{name}': not on this file system");
            false
        }
        Err(error) => panic!("'{name}': {error}"),
    }
}

#[track_caller]
pub fn check(source: Disk, replica: Disk) {
    let _alone = heavy();
    let protected = Protected::start(Setup { source, replica, ..Setup::default() });
    for (name, _) in CHANGES {
        furnish(&protected.mount.join(name)).unwrap_or_else(|error| panic!("'{name}': {error}"));
    }
    protected.wait_sync();
    let made =
        CHANGES.iter().filter(|(name, change)| make(name, *change, &protected.mount.join(name))).count();
    assert!(made + 5 > CHANGES.len(), "only {made} of {}", CHANGES.len());
    let rules = Rules { ignore_holes: true, ..Rules::default() };
    let seen = protected.assert_in_sync_by(&rules);
    assert!(seen.objects > 10 * made, "{seen:?}");
}

const MEMORY: Disk = Disk::Image { kind: "tmpfs", mib: 64 };

/// The replica's times were cut to whole seconds, and the source's status said good.
#[test]
fn times_that_the_replica_cannot_hold_are_said_on_the_source() {
    let _alone = heavy();
    let replica = Disk::Image { kind: "ext4 -I 128", mib: 64 };
    let mut protected = Protected::start(Setup { replica, ..Setup::default() });
    let file = protected.mount.join("f");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !protected.status().contains("cannot hold modification times as the source has them") {
        assert!(Instant::now() < deadline, "nothing was said: {}", protected.status());
        fs::write(&file, "content").expect("a write");
        protected.wait_sync();
    }
    protected.stop();
}

#[test]
fn every_change_leaves_the_same_times() {
    check(Disk::Plain, Disk::Plain);
    check(Disk::Plain, MEMORY);
    check(MEMORY, Disk::Plain);
}

/// With file systems whose tools are not everywhere.
#[cfg(feature = "suites")]
mod suites {
    use super::*;

    #[test]
    fn every_change_leaves_the_same_times_on_all_file_systems() {
        const SYSTEMS: [Disk; 3] = [
            Disk::Image { kind: "ext4", mib: 256 },
            Disk::Image { kind: "xfs", mib: 400 },
            Disk::Image { kind: "btrfs", mib: 400 },
        ];
        for source in SYSTEMS {
            for replica in SYSTEMS {
                check(source, replica);
            }
        }
    }
}
