//! Op by op: the replica is what the source is.

use rustix::fs::RenameFlags;

use super::*;

/// `user::rwx,user:1000:rw-,group::r-x,mask::rwx,other::---` in the kernel's format.
fn acl() -> Vec<u8> {
    let entry = |tag: u16, perm: u16, id: u32| {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in [(1, 7, none), (2, 6, 1000), (4, 5, none), (0x10, 7, none), (0x20, 0, none)] {
        bytes.extend(entry(tag, perm, id));
    }
    bytes
}

#[test]
fn objects_of_every_kind() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("plain", 0o644));
    pair.say(source.create("setuid", 0o6755));
    pair.say(source.create("nothing", 0));
    pair.say(source.mkdir("dir", 0o3777));
    pair.say(source.symlink("dir/link", "/nowhere/at all"));
    pair.say(source.mknod("dir/fifo", Birth::Fifo));
    pair.say(source.mknod("dir/socket", Birth::Socket));
    pair.say(source.mknod("char", Birth::CharDevice { major: 1, minor: 3 }));
    pair.say(source.mknod("block", Birth::BlockDevice { major: 7, minor: 70_000 }));
    pair.say(source.create("\u{1f600} \n name", 0o600));
    pair.assert_same();
}

/// A default ACL and a setgid bit on the target's directory say nothing about the source's object.
#[test]
fn nothing_is_inherited_that_the_source_does_not_have() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.mkdir("dir", 0o755));
    pair.say(source.set_xattr("dir", "system.posix_acl_default", &acl()));
    pair.say(source.chown("dir", 5, 6));
    pair.say(source.chmod("dir", 0o2775));
    pair.say(source.create("dir/inherits", 0o640));
    pair.say(source.mkdir("dir/sub", 0o750));
    pair.assert_same();
    // On the source these lost what they inherited before they were captured.
    for (name, birth) in [("file", Birth::File), ("under", Birth::Directory), ("fifo", Birth::Fifo)] {
        let path = format!("dir/{name}");
        match birth {
            Birth::File => drop(source.create(&path, 0o604)),
            Birth::Directory => drop(source.mkdir(&path, 0o705)),
            _ => drop(source.mknod(&path, Birth::Fifo)),
        }
        drop(source.remove_xattr(&path, "system.posix_acl_access"));
        drop(source.remove_xattr(&path, "system.posix_acl_default"));
        drop(source.chown(&path, 9, 10));
        drop(source.chmod(&path, 0o604));
        pair.say(source.created(&path, birth));
    }
    pair.assert_same();
}

#[test]
fn content() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("f", 0o444));
    pair.say(source.write("f", 0, &[7; 300_000]));
    pair.say(source.write("f", 1 << 20, b"far away"));
    pair.say(source.resize("f", 200_001));
    pair.say(source.reserve("f", 4096, 8192, Reserve::PunchHole));
    pair.say(source.reserve("f", 100, 50, Reserve::ZeroRangeKeepSize));
    pair.say(source.reserve("f", 200_000, 50_000, Reserve::ZeroRange));
    pair.say(source.reserve("f", 300_000, 50_000, Reserve::AllocateKeepSize));
    pair.assert_same();
    pair.say(source.reserve("f", 300_000, 50_000, Reserve::Allocate));
    pair.say(source.write("f", 5, b"x"));
    pair.assert_same();
}

#[test]
fn names() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    for dir in ["a", "b", "a/deep", "empty"] {
        pair.say(source.mkdir(dir, 0o755));
    }
    for file in ["a/one", "a/two", "b/three", "a/deep/four"] {
        pair.say(source.create(file, 0o644));
        pair.say(source.write(file, 0, file.as_bytes()));
    }
    pair.say(source.link("a/one", "b/one too"));
    pair.say(source.rename("a/one", "a/uno"));
    pair.say(source.rename("a/two", "b/three"));
    pair.say(source.exchange("a/deep", "b/three"));
    pair.say(source.rename("b/three", "empty"));
    pair.assert_same();
    pair.say(source.rename_with("a/uno", "moved", RenameFlags::WHITEOUT));
    pair.say(source.write("moved", 2, b"both names"));
    pair.say(source.unlink("moved"));
    pair.say(source.write("b/one too", 0, b"the last name"));
    pair.say(source.unlink("a/uno"));
    pair.say(source.unlink("empty/four"));
    pair.say(source.rmdir("empty"));
    pair.assert_same();
}

#[test]
fn attributes_of_everything() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("f", 0o755));
    pair.say(source.mkdir("d", 0o755));
    pair.say(source.symlink("l", "f"));
    for path in ["f", "d", "l"] {
        pair.say(source.set_xattr(path, "trusted.note", b"kept"));
        pair.say(source.chown(path, 1000, 2000));
        pair.say(source.utimes(path, Timestamp { seconds: -2, nanoseconds: 800_000_001 }));
    }
    pair.say(source.set_xattr("f", "user.big", &[9; 3000]));
    pair.say(source.set_xattr("f", "user.empty", b""));
    pair.say(source.set_xattr("f", "system.posix_acl_access", &acl()));
    pair.say(source.set_xattr("d", "system.posix_acl_default", &acl()));
    pair.assert_same();
    pair.say(source.chmod("f", 0o4711));
    pair.say(source.remove_xattr("f", "user.big"));
    pair.say(source.chmod("d", 0o1700));
    pair.assert_same();
    // A capability is lost by a chown, and comes back after it, not before.
    let capability = [1u8, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    pair.say(source.set_xattr("f", "security.capability", &capability));
    pair.assert_same();
    pair.say(source.chown("f", 3, 4));
    pair.assert_same();
    pair.say(source.remove_xattr("f", "system.posix_acl_access"));
    pair.assert_same();
    // A chown clears setuid: the resulting mode has the last word.
    let (object, owner) = (source.id("f"), Some(Owner { uid: 31, gid: 41 }));
    std::os::unix::fs::chown(source.path("f"), Some(31), Some(41)).unwrap();
    drop(source.chmod("f", 0o6755));
    pair.say((Op::SetAttributes { object, mode: Some(0o6755), owner, mtime: None }, Vec::new()));
    pair.assert_same();
}

/// mtimes are set late: what is read in between is no promise, what is read after rest is.
#[test]
fn times_wait_for_rest_and_writers_are_closed() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    assert!(pair.applier().next_deadline().is_none());
    pair.say(source.create("script", 0o755));
    pair.say(source.write("script", 0, b"#!/bin/true\n"));
    let before = std::time::Instant::now();
    let deadline = pair.applier().next_deadline().unwrap();
    assert!(deadline <= before + crate::limits::PENDING_TIMES_REST);
    pair.applier().set_pending_times().unwrap();
    assert!(pair.applier().next_deadline().is_none());
    // No descriptor for writing stands in the way: this would be "text file busy".
    assert!(std::process::Command::new(pair.replica("script")).status().unwrap().success());
}

/// More objects than descriptors and than pending times: both stay bounded.
#[test]
fn many_objects() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    for dir in 0..20 {
        pair.say(source.mkdir(&format!("{dir}"), 0o755));
        for file in 0..100 {
            pair.say(source.create(&format!("{dir}/{file}"), 0o644));
        }
    }
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open < 2000, "{open} descriptors are open");
    for dir in 0..20 {
        pair.say(source.write(&format!("{dir}/7"), 0, b"again"));
    }
    pair.assert_same();
    assert_eq!(pair.applier().replica().index().len(), 20 * 101 + 1);
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    let mut said = Vec::new();
    for dir in 0..50 {
        said.push(source.mkdir(&format!("{dir}"), 0o755));
        for file in 0..200 {
            said.push(source.create(&format!("{dir}/{file}"), 0o644));
        }
    }
    time(&mut pair, "creates", said);
    let said = (0..20_000u64).map(|at| source.write("7/7", (at * 7919 % 5000) * 4096, &[1; 4096])).collect();
    time(&mut pair, "4 KiB writes, one file", said);
    let said =
        (0..10_000).map(|at| source.write(&format!("{}/{}", at % 50, at / 50), 0, &[1; 4096])).collect();
    time(&mut pair, "4 KiB writes, 10,000 files", said);
    let said = (0..10_000)
        .map(|at| source.rename(&format!("{}/{}", at % 50, at / 50), &format!("{}/r{}", (at + 1) % 50, at)))
        .collect();
    time(&mut pair, "renames", said);
    let said = (0..10_000).map(|at| source.unlink(&format!("{}/r{}", (at + 1) % 50, at))).collect();
    time(&mut pair, "unlinks", said);
    pair.assert_same();
}

fn time(pair: &mut Pair, what: &str, said: Vec<Said>) {
    let mut last = pair.applier().replica().applied();
    let frames: Vec<_> = said
        .iter()
        .map(|said| {
            let frame = frame_after(&last, said);
            last = frame.position;
            frame
        })
        .collect();
    let start = std::time::Instant::now();
    for frame in &frames {
        assert!(matches!(pair.applier().handle(frame), Outcome::Applied));
    }
    pair.applier().set_pending_times().unwrap();
    let each = start.elapsed() / frames.len() as u32;
    eprintln!("{what}: {each:?} each");
}
