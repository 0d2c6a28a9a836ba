//! A first copy of everything that a file system can hold, and what a second one does.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::{Pair, tree};
use crate::failpoint;
use crate::packet::DataState;
use crate::words::Allow;

pub fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// An ACL in the kernel's format: owner rwx, user 1234 rw, group r, mask rwx, others nothing.
pub fn acl() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 6, 1234), (4, 4, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn node(path: &Path, kind: FileType, device: (u32, u32)) {
    let device = rustix::fs::makedev(device.0, device.1);
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

/// One of everything.
fn fill(root: &Path) {
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("a/plain"), "plain").unwrap();
    fs::write(root.join("a/nothing"), "").unwrap();
    fs::write(root.join("a/b/large"), (0..3_000_000u32).map(|i| (i * 7 / 3) as u8).collect::<Vec<_>>())
        .unwrap();
    fs::write(root.join(OsStr::from_bytes(b"not \xff\xfe utf-8\n")), "x").unwrap();
    fs::write(root.join("l".repeat(255)), "long").unwrap();
    fs::hard_link(root.join("a/plain"), root.join("a/b/c/plain again")).unwrap();
    fs::hard_link(root.join("a/plain"), root.join("third")).unwrap();
    symlink("nowhere/at all", root.join("a/symlink")).unwrap();
    node(&root.join("fifo"), FileType::Fifo, (0, 0));
    node(&root.join("socket"), FileType::Socket, (0, 0));
    node(&root.join("char"), FileType::CharacterDevice, (1, 3));
    node(&root.join("block"), FileType::BlockDevice, (7, 260));
    let holes = File::create(root.join("holes")).unwrap();
    holes.write_all_at(&[1; 10_000], 1 << 20).unwrap();
    holes.write_all_at(&[2; 4096], 300 << 20).unwrap();
    holes.set_len((1 << 40) / 1024).unwrap();
    File::create(root.join("only a hole")).unwrap().set_len(1 << 20).unwrap();
    attributes(root);
}

fn attributes(root: &Path) {
    let mode = |name: &str, mode| {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    set_xattr(&root.join("a/b/large"), "user.small", b"value");
    set_xattr(&root.join("a/b/large"), "user.empty", b"");
    set_xattr(&root.join("a/b"), "trusted.t", &[0; 1000]);
    set_xattr(&root.join("a/symlink"), "trusted.on a link", b"x");
    set_xattr(&root.join("empty"), "system.posix_acl_default", &acl());
    fs::write(root.join("empty/inherits"), "x").unwrap();
    fs::write(root.join("a/has acl"), "x").unwrap();
    set_xattr(&root.join("a/has acl"), "system.posix_acl_access", &acl());
    // What the product keeps for itself stays where it is.
    set_xattr(root, "trusted.standin.backing", b"secret");
    chown(root.join("a/nothing"), Some(12), Some(34)).unwrap();
    std::os::unix::fs::lchown(root.join("a/symlink"), Some(5), Some(6)).unwrap();
    chown(root.join("third"), Some(77), Some(78)).unwrap();
    mode("third", 0o4755);
    // File capabilities: a chown or a write would take them away.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set_xattr(&root.join("third"), "security.capability", &capability);
    mode("a/nothing", 0o2640);
    mode("a", 0o1777);
    mode("a/b/c", 0o500);
    set_mtime(&root.join("a/symlink"), 1_000_000_000, 123_456_789);
    set_mtime(&root.join("a/nothing"), -5, 999_999_999);
    set_mtime(&root.join("third"), 4_000_000_000, 1);
    set_mtime(&root.join("a/b/c"), 77, 7);
    set_mtime(&root.join("fifo"), 99, 9);
    set_mtime(&root.join("a/b"), 88, 8);
    set_mtime(root, 1_234_567_890, 987_654_321);
}

#[test]
fn an_empty_replica_becomes_the_whole_tree() {
    let pair = Pair::new();
    fill(&pair.source);
    assert_eq!(pair.open_replica().data().state, DataState::Empty);
    let outcome = pair.converges();
    assert_eq!(outcome.orphans, 0);
    assert!(outcome.progress.bytes_copied < 4 << 20, "holes were sent: {outcome:?}");
    assert_eq!(outcome.progress.directories, 5);
    assert_eq!(outcome.progress.files, 16);
    assert_eq!(outcome.progress.files_copied, outcome.report.copied);
    assert_eq!(outcome.report.copied, 8, "the file with three names once, the empty one never");
    assert_eq!(pair.orphans(), []);
}

#[test]
fn a_second_copy_copies_nothing() {
    let pair = Pair::new();
    fill(&pair.source);
    pair.converges();
    let outcome = pair.converges();
    assert_eq!(outcome.report.copied, 0);
    assert_eq!(outcome.progress.files_compared, outcome.progress.files_identical);
    // Begin, root, five listings, end.
    assert_eq!(outcome.items, 8);
}

#[test]
fn every_difference_of_attributes_is_corrected() {
    let pair = Pair::new();
    fill(&pair.source);
    pair.converges();
    let replica = pair.replica();
    chown(replica.join("third"), Some(0), Some(0)).unwrap();
    for name in ["a", "fifo", "a/b/large", "empty/inherits"] {
        fs::set_permissions(replica.join(name), fs::Permissions::from_mode(0o7777)).unwrap();
    }
    set_xattr(&replica.join("a/b/large"), "user.small", b"other");
    set_xattr(&replica.join("a/b/large"), "user.extra", b"extra");
    set_xattr(&replica.join("a/has acl"), "user.x", b"");
    rustix::fs::removexattr(replica.join("a/has acl"), "system.posix_acl_access").unwrap();
    rustix::fs::removexattr(replica.join("empty"), "system.posix_acl_default").unwrap();
    set_xattr(&replica.join("a/b/c"), "system.posix_acl_default", &acl());
    set_mtime(&replica.join("a/symlink"), 5, 5);
    set_mtime(&replica.join("a/b/c"), 5, 5);
    set_mtime(&replica.join("socket"), 5, 5);
    let outcome = pair.converges();
    assert_eq!(outcome.report.copied, 0, "no content differed");
}

/// A name that ends like that was taken for a removed one: further names of the file became empty
/// files of root's on a replica that called itself good.
#[test]
fn names_that_look_removed_are_names() {
    let pair = Pair::new();
    fs::write(pair.source.join("one (deleted)"), "content").unwrap();
    fs::hard_link(pair.source.join("one (deleted)"), pair.source.join("two (deleted)")).unwrap();
    pair.converges();
    fs::hard_link(pair.source.join("one (deleted)"), pair.source.join("three (deleted)")).unwrap();
    pair.converges();
    fs::remove_file(pair.source.join("one (deleted)")).unwrap();
    pair.converges();
}

#[test]
fn a_path_may_be_longer_than_the_kernel_takes() {
    let pair = Pair::new();
    let mut dir = File::open(&pair.source).unwrap();
    for depth in 0..40u8 {
        let name = vec![b'a' + depth % 26; 255];
        rustix::fs::mkdirat(&dir, &*name, Mode::RWXU).unwrap();
        dir = File::open(crate::sys::proc_path(dir.as_fd()).join(OsStr::from_bytes(&name))).unwrap();
    }
    let bottom = crate::sys::proc_path(dir.as_fd());
    fs::write(bottom.join("deep"), "deep").unwrap();
    fs::hard_link(bottom.join("deep"), bottom.join("deep again")).unwrap();
    pair.converges();
    assert_eq!(pair.converges().report.copied, 0);
    // A directory below the limit moves: it must be found where it is.
    let old = crate::sys::proc_path(dir.as_fd()).join("moves");
    fs::create_dir(&old).unwrap();
    fs::write(old.join("inside"), "inside").unwrap();
    pair.converges();
    fs::rename(&old, pair.source.join("moved")).unwrap();
    assert_eq!(pair.converges().report.copied, 0);
}

#[test]
fn a_directory_of_many_entries_travels_in_chunks() {
    let pair = Pair::new();
    for number in 0..3_300 {
        fs::write(pair.source.join(format!("file {number}")), format!("{number}")).unwrap();
    }
    let outcome = pair.converges();
    assert_eq!(outcome.report.copied, 3_300);
    for number in (0..3_300).step_by(2) {
        fs::remove_file(pair.source.join(format!("file {number}"))).unwrap();
    }
    let outcome = pair.converges();
    assert_eq!((outcome.report.copied, outcome.orphans), (0, 1_650));
}

#[test]
fn large_attributes_cut_a_listing() {
    let pair = Pair::new();
    for number in 0..200 {
        let path = pair.source.join(format!("{number}"));
        fs::write(&path, "").unwrap();
        set_xattr(&path, "user.large", &[7; 3_500]);
    }
    let outcome = pair.converges();
    assert!(outcome.items >= 3 + 3, "200 × 3,500 bytes fit into no two listings: {outcome:?}");
}

#[test]
fn nested_mounts_are_left_out_and_counted() {
    let pair = Pair::new();
    fs::create_dir(pair.source.join("mount")).unwrap();
    fs::write(pair.source.join("file"), "x").unwrap();
    let below = pair.dir.path().join("below");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("not ours"), "x").unwrap();
    // A bind mount: the same device, another mount.
    rustix::mount::mount_bind(&below, pair.source.join("mount")).unwrap();
    let outcome = pair.copy();
    rustix::mount::unmount(pair.source.join("mount"), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(outcome.report.nested, 1);
    assert_eq!(tree::names(pair.replica()), [Path::new("file")]);
}

/// The mark of a placeholder says what the source has, and no file has one that is none.
#[test]
fn marks_of_placeholders_are_put_right() {
    let mut pair = Pair::new();
    pair.allow = Allow::NOTHING;
    for (name, minor) in [("null", 3), ("zero", 5)] {
        let (kind, device) = (FileType::CharacterDevice, rustix::fs::makedev(1, minor));
        rustix::fs::mknodat(CWD, pair.source.join(name), kind, Mode::RUSR, device).unwrap();
    }
    for name in ["plain", "changed"] {
        fs::write(pair.source.join(name), "content").unwrap();
    }
    pair.copy();
    let marks = || {
        ["null", "zero", "plain", "changed"]
            .map(|name| crate::xattr::withheld(File::open(pair.replica().join(name)).unwrap()).unwrap())
    };
    let right = [Some("char 1:3".to_owned()), Some("char 1:5".to_owned()), None, None];
    assert_eq!(marks(), right);
    set_xattr(&pair.replica().join("null"), crate::xattr::WITHHELD_XATTR, b"block 7:7");
    rustix::fs::removexattr(pair.replica().join("zero"), crate::xattr::WITHHELD_XATTR).unwrap();
    for name in ["plain", "changed"] {
        set_xattr(&pair.replica().join(name), crate::xattr::WITHHELD_XATTR, b"char 1:3");
    }
    fs::write(pair.source.join("changed"), "other content").unwrap();
    pair.copy();
    assert_eq!(marks(), right);
}

/// What a target does not allow is left out by a copy, is not copied again for that, and comes
/// with the first copy after it was allowed.
#[test]
fn a_copy_leaves_out_what_is_not_allowed() {
    let mut pair = Pair::new();
    pair.allow = Allow::NOTHING;
    fill(&pair.source);
    fs::write(pair.source.join("tool"), "x").unwrap();
    fs::set_permissions(pair.source.join("tool"), fs::Permissions::from_mode(0o6755)).unwrap();
    set_xattr(
        &pair.source.join("tool"),
        "security.capability",
        &[&[1, 0, 0, 2, 0, 0x20][..], &[0; 14]].concat(),
    );
    pair.copy();
    for (name, size) in [("char", 0), ("block", 0)] {
        let meta = fs::symlink_metadata(pair.replica().join(name)).unwrap();
        assert!(meta.is_file() && meta.len() == size, "{name}: {meta:?}");
    }
    let tool = File::open(pair.replica().join("tool")).unwrap();
    assert_eq!(tool.metadata().unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(crate::xattr::read_replicated(&tool).unwrap(), []);
    let again = pair.copy();
    assert_eq!((again.report.copied, again.orphans), (0, 0), "{again:?}");
    pair.allow = Allow::ALL;
    pair.converges();
    // And back: what is no longer allowed goes.
    pair.allow = Allow::NOTHING;
    pair.copy();
    assert!(fs::symlink_metadata(pair.replica().join("char")).unwrap().is_file());
}

/// It did not follow itself when it was tried again: refused until the copy left the file out.
#[test]
fn content_that_had_no_room_is_taken_when_there_is() {
    let pair = Pair::new();
    fs::write(pair.source.join("file"), vec![7; 300_000]).unwrap();
    let failures = Rc::new(Cell::new(0));
    let counted = failures.clone();
    failpoint::set(Some(Rc::new(move |place| {
        if place == "content" && counted.replace(counted.get() + 1) == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    })));
    pair.converges();
    failpoint::set(None);
    assert!(failures.get() > 1, "no content came");
}
