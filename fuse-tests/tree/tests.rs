//! A comparison that cannot fail is worthless: every kind of damage to a copy must be found.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags};

use super::*;

/// Levels of a path whose names have 255 bytes: 20 make it longer than `PATH_MAX`.
const LEVELS: usize = 20;
const OLD: Timespec = Timespec { tv_sec: 1_000_000, tv_nsec: 123_456_789 };

/// An ACL of the kernel's format: version 2; owner rwx, user 1 r, group r, mask rwx, others none.
const ACL: [u8; 44] = {
    let mut acl = [0; 44];
    let entries: [(u8, u8, [u8; 4]); 5] =
        [(1, 7, [255; 4]), (2, 4, [1, 0, 0, 0]), (4, 4, [255; 4]), (16, 7, [255; 4]), (32, 0, [255; 4])];
    acl[0] = 2;
    let mut i = 0;
    while i < 5 {
        let at = 4 + i * 8;
        (acl[at], acl[at + 2]) = (entries[i].0, entries[i].1);
        let mut j = 0;
        while j < 4 {
            acl[at + 4 + j] = entries[i].2[j];
            j += 1;
        }
        i += 1;
    }
    acl
};

/// Builds the same tree every time: every type, deep and odd names, links, holes, attributes.
fn build(root: &Path) {
    let dir = root.join("dir");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), vec![7; 300_000]).unwrap();
    fs::write(dir.join(OsStr::from_bytes(b"\xff\xfe odd")), "odd").unwrap();
    fs::write(dir.join("empty"), "").unwrap();
    symlink("target", dir.join("symlink")).unwrap();
    fs::hard_link(dir.join("file"), dir.join("second")).unwrap();
    fs::write(dir.join("alone1"), "same").unwrap();
    fs::write(dir.join("alone2"), "same").unwrap();
    for (name, kind) in [("fifo", FileType::Fifo), ("null", FileType::CharacterDevice)] {
        let device = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(rustix::fs::CWD, dir.join(name), kind, Mode::from(0o600), device).unwrap();
    }
    let sparse = File::create(dir.join("sparse")).unwrap();
    sparse.write_all_at(&[1; 8192], 1 << 20).unwrap();
    sparse.set_len(5 << 30).unwrap();
    set_xattr(&dir.join("file"), "user.a", b"value");
    set_xattr(&dir.join("symlink"), "trusted.of-symlink", b"value");
    set_xattr(&dir.join("file"), "system.posix_acl_access", &ACL);
    set_xattr(&dir, "system.posix_acl_default", &ACL);
    deep(root, |fd| rustix::fs::mkdirat(fd, name(), Mode::from(0o755)).unwrap());
    let bottom = deep(root, |_| ());
    let file =
        rustix::fs::openat(bottom, "file", OFlags::CREATE | OFlags::WRONLY, Mode::from(0o600)).unwrap();
    File::from(file).write_all_at(b"deep", 0).unwrap();
    settle(root);
}

fn name() -> String {
    "n".repeat(255)
}

/// Goes down the deep path, calling `enter` in each directory before its child is opened.
fn deep(root: &Path, enter: impl Fn(&OwnedFd)) -> OwnedFd {
    let mut fd = rustix::fs::open(root, DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..LEVELS {
        enter(&fd);
        fd = rustix::fs::openat(&fd, name(), DIRECTORY, Mode::empty()).unwrap();
    }
    fd
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn set_time(fd: impl AsFd, name: impl rustix::path::Arg, time: Timespec) {
    let times = Timestamps { last_access: OLD, last_modification: time };
    rustix::fs::utimensat(fd, name, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Sets every time to the same old one, so that damage alone makes a difference.
fn settle(root: &Path) {
    for entry in fs::read_dir(root.join("dir")).unwrap() {
        set_time(rustix::fs::CWD, entry.unwrap().path(), OLD);
    }
    set_time(rustix::fs::CWD, root.join("dir"), OLD);
    let bottom = deep(root, |_| ());
    set_time(&bottom, "file", OLD);
    let levels: Vec<OwnedFd> = (0..=LEVELS).scan(bottom, |fd, _| up(fd)).collect();
    levels.iter().for_each(|fd| set_time(fd, ".", OLD));
}

fn up(fd: &mut OwnedFd) -> Option<OwnedFd> {
    let parent = rustix::fs::openat(&*fd, "..", DIRECTORY, Mode::empty()).unwrap();
    Some(std::mem::replace(fd, parent))
}

/// Builds two trees, damages the second, and gives the kinds of what is found with their paths.
fn found_after(damage: impl Fn(&Path)) -> Vec<(Kind, String)> {
    let (left, right) = (crate::host::dir_on_disk(), crate::host::dir_on_disk());
    build(left.path());
    build(right.path());
    damage(right.path());
    let (found, seen) = compare(left.path(), right.path(), &Rules::default()).unwrap();
    assert!(seen.objects > LEVELS + 10, "{seen:?}");
    remove(left);
    remove(right);
    found.into_iter().map(|d| (d.kind, d.path.to_string_lossy().into_owned())).collect()
}

/// `TempDir` removes by path strings, which do not reach the bottom; the standard library's own
/// removal works by descriptors.
fn remove(dir: tempfile::TempDir) {
    fs::remove_dir_all(dir.keep()).unwrap();
}

/// `damage` gets `dir` of the right tree; exactly `expected` must be found at `path`.
#[track_caller]
fn check(damage: impl Fn(&Path), expected: &[(Kind, &str)]) {
    let found = found_after(|root| {
        damage(&root.join("dir"));
        settle(root);
    });
    let expected: Vec<(Kind, String)> = expected.iter().map(|&(kind, path)| (kind, path.into())).collect();
    assert_eq!(found, expected);
}

#[test]
fn equal_trees_are_equal() {
    assert_eq!(found_after(|_| ()), []);
}

#[test]
fn own_attributes_do_not_count() {
    assert_eq!(found_after(|root| set_xattr(root, "trusted.standin.set", b"1")), []);
}

#[test]
fn one_changed_byte() {
    let damage = |dir: &Path| {
        let file = File::options().write(true).open(dir.join("file")).unwrap();
        file.write_all_at(&[8], 299_999).unwrap();
    };
    check(damage, &[(Kind::Content, "dir/file")]);
}

#[test]
fn one_changed_byte_at_the_bottom() {
    let found = found_after(|root| {
        let file = rustix::fs::openat(deep(root, |_| ()), "file", OFlags::WRONLY, Mode::empty()).unwrap();
        File::from(file).write_all_at(b"p", 1).unwrap();
        settle(root);
    });
    assert_eq!(found.len(), 1);
    assert!(found[0].0 == Kind::Content && found[0].1.len() > 4096);
}

#[test]
fn a_cut_or_longer_file() {
    let resize =
        |dir: &Path, len| File::options().write(true).open(dir.join("empty")).unwrap().set_len(len).unwrap();
    check(|dir| resize(dir, 1), &[(Kind::Size, "dir/empty")]);
    check(|dir| fs::write(dir.join("alone1"), "sam").unwrap(), &[(Kind::Size, "dir/alone1")]);
}

#[test]
fn each_mode_bit() {
    let (left, right) = (crate::host::dir_on_disk(), crate::host::dir_on_disk());
    for side in [&left, &right] {
        fs::write(side.path().join("file"), "").unwrap();
        set_time(rustix::fs::CWD, side.path().join("file"), OLD);
        set_time(rustix::fs::CWD, side.path(), OLD);
    }
    for bit in 0..12 {
        let set = |side: &Path, mode| {
            fs::set_permissions(side.join("file"), PermissionsExt::from_mode(mode)).unwrap()
        };
        set(left.path(), 0o640);
        set(right.path(), 0o640 ^ (1 << bit));
        let (found, _) = compare(left.path(), right.path(), &Rules::default()).unwrap();
        assert_eq!(found.iter().map(|d| d.kind).collect::<Vec<_>>(), [Kind::Mode], "bit {bit}");
    }
}

#[test]
fn another_owner_or_group() {
    check(|dir| chown(dir.join("alone1"), Some(1), None).unwrap(), &[(Kind::Owner, "dir/alone1")]);
    let damage = |dir: &Path| std::os::unix::fs::lchown(dir.join("symlink"), None, Some(1)).unwrap();
    check(damage, &[(Kind::Owner, "dir/symlink")]);
}

#[test]
fn one_nanosecond() {
    let late = Timespec { tv_nsec: OLD.tv_nsec + 1, ..OLD };
    for path in ["dir/alone1", "dir/symlink", "dir/fifo", "dir", ""] {
        let found = found_after(|root| set_time(rustix::fs::CWD, root.join(path), late));
        assert_eq!(found, [(Kind::ModificationTime, path.to_string())]);
    }
}

#[test]
fn missing_added_and_odd_names() {
    check(|dir| fs::remove_file(dir.join("fifo")).unwrap(), &[(Kind::MissingOnRight, "dir/fifo")]);
    check(|dir| fs::write(dir.join("x"), "").unwrap(), &[(Kind::MissingOnLeft, "dir/x")]);
    let odd = |bytes| OsStr::from_bytes(bytes);
    let damage =
        |dir: &Path| fs::rename(dir.join(odd(b"\xff\xfe odd")), dir.join(odd(b"\xff\xfd odd"))).unwrap();
    let lossy = "dir/\u{fffd}\u{fffd} odd";
    check(damage, &[(Kind::MissingOnLeft, lossy), (Kind::MissingOnRight, lossy)]);
}

#[test]
fn another_type_target_or_device() {
    let replace_by_symlink = |name: &str, dir: &Path| {
        fs::remove_file(dir.join(name)).unwrap();
        symlink("other!", dir.join(name)).unwrap();
    };
    check(|dir| replace_by_symlink("empty", dir), &[(Kind::Type, "dir/empty")]);
    let damage = |dir: &Path| {
        replace_by_symlink("symlink", dir);
        set_xattr(&dir.join("symlink"), "trusted.of-symlink", b"value");
    };
    check(damage, &[(Kind::SymlinkTarget, "dir/symlink")]);
    let damage = |dir: &Path| {
        fs::remove_file(dir.join("null")).unwrap();
        let device = rustix::fs::makedev(1, 5);
        let kind = FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, dir.join("null"), kind, Mode::from(0o600), device).unwrap();
        rustix::fs::removexattr(dir.join("null"), "system.posix_acl_access").unwrap();
    };
    check(damage, &[(Kind::DeviceNumber, "dir/null")]);
}

#[test]
fn attributes_and_acls() {
    check(|dir| set_xattr(&dir.join("alone1"), "user.x", b""), &[(Kind::Xattr, "dir/alone1")]);
    check(|dir| set_xattr(&dir.join("symlink"), "trusted.of-symlink", b"V"), &[(Kind::Xattr, "dir/symlink")]);
    check(|dir| rustix::fs::lremovexattr(dir, "system.posix_acl_default").unwrap(), &[(Kind::Xattr, "dir")]);
    let mut other = ACL;
    other[14] = 6; // user 1 may write now
    let both = [(Kind::Xattr, "dir/file"), (Kind::Xattr, "dir/second")];
    check(|dir| set_xattr(&dir.join("file"), "system.posix_acl_access", &other), &both);
    check(|dir| set_xattr(&dir.join("file"), "user.a", b"valuf"), &both);
}

#[test]
fn broken_and_joined_hard_links() {
    let damage = |dir: &Path| {
        fs::rename(dir.join("second"), dir.join("old")).unwrap();
        fs::copy(dir.join("old"), dir.join("second")).unwrap();
        fs::remove_file(dir.join("old")).unwrap();
        set_xattr(&dir.join("second"), "user.a", b"value");
        set_xattr(&dir.join("second"), "system.posix_acl_access", &ACL);
    };
    let (links, group) = (Kind::LinkCount, Kind::HardLinkGroup);
    check(damage, &[(links, "dir/file"), (links, "dir/second"), (group, "dir/second")]);
    let damage = |dir: &Path| {
        fs::remove_file(dir.join("alone2")).unwrap();
        fs::hard_link(dir.join("alone1"), dir.join("alone2")).unwrap();
    };
    check(damage, &[(links, "dir/alone1"), (links, "dir/alone2"), (group, "dir/alone2")]);
}

/// Link counts alone do not tell which names belong together.
#[test]
fn swapped_hard_links() {
    let (left, right) = (crate::host::dir_on_disk(), crate::host::dir_on_disk());
    for (side, pairs) in [(&left, [("a", "b"), ("c", "d")]), (&right, [("a", "c"), ("b", "d")])] {
        for (first, second) in pairs {
            fs::write(side.path().join(first), "same").unwrap();
            set_time(rustix::fs::CWD, side.path().join(first), OLD);
            fs::hard_link(side.path().join(first), side.path().join(second)).unwrap();
        }
        set_time(rustix::fs::CWD, side.path(), OLD);
    }
    let (found, _) = compare(left.path(), right.path(), &Rules::default()).unwrap();
    assert!(found.iter().all(|d| d.kind == Kind::HardLinkGroup) && found.len() >= 2, "{found:?}");
}

#[test]
fn filled_and_punched_holes() {
    let open = |dir: &Path, name: &str| File::options().write(true).open(dir.join(name)).unwrap();
    let fill = |dir: &Path| open(dir, "sparse").write_all_at(&[0; 4096], 4 << 30).unwrap();
    check(fill, &[(Kind::Holes, "dir/sparse")]);
    let punch = |dir: &Path| {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(open(dir, "sparse"), how, 1 << 20, 4096).unwrap();
    };
    check(punch, &[(Kind::Content, "dir/sparse"), (Kind::Holes, "dir/sparse")]);
    let slack = Rules { hole_slack: 4096, ..Rules::default() };
    let (left, right) = (crate::host::dir_on_disk(), crate::host::dir_on_disk());
    fs::write(left.path().join("file"), [0; 8192]).unwrap();
    fs::write(right.path().join("file"), [0; 8192]).unwrap();
    for side in [&left, &right] {
        set_time(rustix::fs::CWD, side.path(), OLD);
    }
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let found_with_hole_of = |len| {
        rustix::fs::fallocate(open(right.path(), "file"), how, 0, len).unwrap();
        for side in [&left, &right] {
            set_time(rustix::fs::CWD, side.path().join("file"), OLD);
        }
        compare(left.path(), right.path(), &slack).unwrap().0
    };
    assert_eq!(found_with_hole_of(4096), []);
    assert_eq!(found_with_hole_of(8192).len(), 1);
}

#[test]
fn a_reserved_range_that_was_read_is_still_a_hole() {
    let (left, right) = (crate::host::dir_on_disk(), crate::host::dir_on_disk());
    for side in [&left, &right] {
        let file = File::create_new(side.path().join("file")).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
        set_time(rustix::fs::CWD, side.path().join("file"), OLD);
        set_time(rustix::fs::CWD, side.path(), OLD);
    }
    assert_eq!(fs::read(left.path().join("file")).unwrap().len(), 1 << 20);
    assert_same(left.path(), right.path());
}

#[test]
fn what_is_skipped_is_skipped_only_at_the_root() {
    let (left, right) = (crate::host::dir_on_disk(), crate::host::dir_on_disk());
    for side in [&left, &right] {
        fs::create_dir(side.path().join("dir")).unwrap();
    }
    fs::create_dir(right.path().join("lost+found")).unwrap();
    fs::create_dir(right.path().join("dir/lost+found")).unwrap();
    let rules = Rules { skip_at_root: vec![b"lost+found".to_vec()], ..Rules::default() };
    let (found, _) = compare(left.path(), right.path(), &rules).unwrap();
    let extra: Vec<_> =
        found.iter().filter(|d| d.kind == Kind::MissingOnLeft).map(|d| d.path.clone()).collect();
    assert_eq!(extra, [PathBuf::from("dir/lost+found")]);
}

#[test]
#[should_panic(expected = "25 differences")]
fn an_assertion_says_how_many() {
    let (left, right) = (crate::host::dir_on_disk(), crate::host::dir_on_disk());
    (0..25).for_each(|i| fs::write(left.path().join(format!("{i}")), "").unwrap());
    [&left, &right].iter().for_each(|side| set_time(rustix::fs::CWD, side.path(), OLD));
    assert_same(left.path(), right.path());
}
