//! A full replica empties what the source has removed since, and is good again when it is gone.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use rustix::mount::{MountFlags, UnmountFlags};

use super::*;
use crate::failpoint;
use crate::limits::RELIEVED_NAMED_MAX;

/// The deletion that would have made room waited behind the write that had none, for ever.
#[test]
fn a_file_that_is_removed_later_makes_room_now() {
    for cut_down in [false, true] {
        for crash in [false, true] {
            check(cut_down, crash);
        }
    }
}

fn check(cut_down: bool, crash: bool) {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("tmp", 0o644));
    pair.say(source.create("log", 0o644));
    pair.say(source.write("tmp", 0, &[7; 100_000]));
    let object = source.id("tmp");
    let write = source.write("tmp", 100_000, &[8; 100_000]);
    assert_eq!(pair.applier().replica().relieve(&[object]).unwrap(), Relief::Some);
    assert_eq!(fs::metadata(pair.replica("tmp")).unwrap().blocks(), 0);
    let assert_bad = |pair: &mut Pair| {
        let proof = pair.applier().proof();
        assert_eq!((proof.data, proof.bad_by), (DataState::Bad, BadBy::Relief));
    };
    assert_bad(&mut pair);
    if crash {
        pair.crash();
    }
    // Nothing of it fills the disk again; all others go on.
    pair.say(write);
    assert_eq!(fs::metadata(pair.replica("tmp")).unwrap().blocks(), 0);
    pair.say(source.write("log", 0, b"goes on"));
    assert_bad(&mut pair);
    let gone = if cut_down { source.resize("tmp", 0) } else { source.unlink("tmp") };
    if crash {
        // Killed between the op and what it means.
        let frame = pair.frame(&gone);
        let FrameHeader::Packet(packet) = &frame.header else { unreachable!() };
        pair.applier().perform(&frame, packet).unwrap();
        pair.crash();
        assert_bad(&mut pair);
        pair.applier().durable_point().unwrap();
    } else {
        pair.say(gone);
    }
    assert_eq!(pair.applier().proof().data, DataState::Good);
    pair.say(source.write("log", 7, b" and on"));
    pair.assert_same();
}

/// The removal was performed and not counted as applied: the replica was called good as of the
/// change before it.
#[test]
fn what_is_in_doubt_does_not_become_good() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("tmp", 0o644));
    pair.say(source.write("tmp", 0, &[7; 100_000]));
    assert_eq!(pair.applier().replica().relieve(&[source.id("tmp")]).unwrap(), Relief::Some);
    let gone = source.unlink("tmp");
    failpoint::set(Some(Rc::new(|place| match place {
        "performed" => Err(io::ErrorKind::Other.into()),
        _ => Ok(()),
    })));
    let outcome = pair.try_say(&gone);
    failpoint::set(None);
    assert!(matches!(outcome, Outcome::Retry(_)), "{outcome:?}");
    assert!(!pair.replica("tmp").exists());
    for _ in 0..2 {
        pair.applier().end_session();
        assert_eq!(pair.applier().proof().bad_by, BadBy::Relief);
        assert_eq!(pair.applier().proof().data, DataState::Bad);
        pair.crash();
    }
    pair.say(gone);
    assert_eq!(pair.applier().proof().data, DataState::Good);
    pair.assert_same();
}

/// A hard-linked snapshot of the replica is not ours to empty.
#[test]
fn what_has_another_name_is_not_emptied() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("tmp", 0o644));
    pair.say(source.write("tmp", 0, &[7; 100_000]));
    fs::hard_link(pair.replica("tmp"), pair.temp.path().join("snapshot")).unwrap();
    let wanted = [source.id("tmp"), ObjectId { birth_epoch: 1, generation: 2, inode: 3 }, source.id("")];
    assert_eq!(pair.applier().replica().relieve(&wanted).unwrap(), Relief::Nothing);
    assert_eq!(pair.applier().proof().data, DataState::Good);
}

/// An object that is set aside meanwhile keeps it bad, whatever is removed.
#[test]
fn what_is_worse_than_emptied_stays_bad() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("tmp", 0o644));
    pair.say(source.write("tmp", 0, &[7; 100_000]));
    pair.applier().replica().relieve(&[source.id("tmp")]).unwrap();
    pair.applier().replica().mark_bad("something else").unwrap();
    pair.say(source.unlink("tmp"));
    let proof = pair.applier().proof();
    assert_eq!((proof.data, proof.bad_by), (DataState::Bad, BadBy::Anything));
}

/// Only so many files as a slot can name were ever emptied: where they did not make room enough,
/// nothing went on, since their removals waited behind the op that had none.
#[test]
fn many_files_are_emptied_where_few_do_not_do() {
    for crash in [false, true] {
        let mut pair = Pair::new();
        let source = Source { root: pair.source.root.clone() };
        let names: Vec<String> = (0..3 * RELIEVED_NAMED_MAX).map(|number| format!("tmp{number}")).collect();
        for name in &names {
            pair.say(source.create(name, 0o644));
            pair.say(source.write(name, 0, &[7; 10_000]));
        }
        let objects: Vec<ObjectId> = names.iter().map(|name| source.id(name)).collect();
        for part in objects.chunks(10) {
            assert_eq!(pair.applier().replica().relieve(part).unwrap(), Relief::Some);
        }
        let is_empty = |pair: &Pair, name| fs::metadata(pair.replica(name)).unwrap().blocks() == 0;
        assert!(names.iter().all(|name| is_empty(&pair, name)));
        if crash {
            // The record does not name them all: everything is compared.
            pair.crash();
            assert_eq!(pair.applier().proof().bad_by, BadBy::Anything);
            pair.applier().durable_point().unwrap();
            assert_eq!(pair.applier().proof().data, DataState::Bad);
            continue;
        }
        assert_eq!(pair.applier().proof().bad_by, BadBy::Relief);
        pair.say(source.write(names.last().unwrap(), 10_000, &[8; 10_000]));
        assert!(is_empty(&pair, names.last().unwrap()), "it fills the disk again");
        for name in &names {
            assert_eq!(pair.applier().proof().bad_by, BadBy::Relief);
            pair.say(source.unlink(name));
        }
        assert_eq!(pair.applier().proof().data, DataState::Good);
        pair.crash();
        assert_eq!(pair.applier().proof().data, DataState::Good);
        pair.assert_same();
    }
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Files of a good replica were emptied, and it was bad, for inodes: none came free.
#[test]
fn what_lacks_inodes_empties_nothing() {
    let mut mounted = None;
    let mut pair = Pair::with_replica(|temp| {
        let disk = temp.join("disk");
        fs::create_dir(&disk).unwrap();
        rustix::mount::mount("none", &disk, "tmpfs", MountFlags::empty(), c"nr_inodes=32").unwrap();
        mounted = Some(Mounted(disk.clone()));
        disk.join("replica")
    });
    // Before the directory that it lies in.
    let mounted = mounted.unwrap();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("tmp", 0o644));
    pair.say(source.write("tmp", 0, &[7; 100_000]));
    let mut fillers = 0;
    while fs::write(mounted.0.join(format!("filler{fillers}")), b"").is_ok() {
        fillers += 1;
    }
    let said = source.create("next", 0o644);
    match pair.try_say(&said) {
        Outcome::Retry(retry) => {
            assert!(retry.stuck == Stuck::Full && retry.reason.contains("df -i"), "{retry:?}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(pair.applier().replica().relieve(&[source.id("tmp")]).unwrap(), Relief::Nothing);
    assert_eq!(pair.applier().proof().data, DataState::Good);
    (0..fillers).for_each(|number| fs::remove_file(mounted.0.join(format!("filler{number}"))).unwrap());
    pair.say(said);
    pair.assert_same();
}
