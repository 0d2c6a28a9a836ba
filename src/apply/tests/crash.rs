//! Killed, restarted, out of disk: what can be proved, and what is said.

use std::fs;

use super::*;

fn open_error(places: &Places, set: SetId) -> OpenError {
    Replica::open(places, set).err().expect("it must be refused")
}

#[test]
fn a_killed_target_knows_what_it_applied() {
    let mut pair = Pair::new();
    pair.say(pair.source.mkdir("d", 0o755));
    pair.say(pair.source.create("d/f", 0o644));
    pair.say(pair.source.write("d/f", 0, b"before"));
    let before = pair.applier().proof();
    pair.crash();
    let after = pair.applier().proof();
    assert_eq!((after.applied, after.durable, after.data), (before.applied, before.durable, DataState::Good));
    assert_eq!(after.applied.sequence, Sequence(3));
    assert_eq!(after.durable.sequence, Sequence(0));
    assert_ne!(after.process, before.process);
    // Index and pending times came back without any sync.
    pair.say(pair.source.write("d/f", 6, b" after"));
    pair.assert_same();
}

#[test]
fn a_durable_point_is_what_another_boot_finds() {
    let mut pair = Pair::new();
    pair.say(pair.source.create("f", 0o644));
    pair.applier().durable_point().unwrap();
    let durable = pair.applier().replica().applied();
    reboot(&mut pair);
    let proof = pair.applier().proof();
    assert_eq!((proof.applied, proof.durable, proof.data), (durable, durable, DataState::Good));

    pair.say(pair.source.write("f", 0, b"not durable"));
    reboot(&mut pair);
    let proof = pair.applier().proof();
    assert_eq!((proof.applied, proof.durable, proof.data), (durable, durable, DataState::Bad));
    let data = pair.applier().replica().data();
    assert!(data.reason.unwrap().contains("before the last changes were durable"));
}

/// Another boot: the page of positions is of a page cache that is no more.
fn reboot(pair: &mut Pair) {
    use std::os::unix::fs::FileExt;
    drop(pair.applier.take());
    let page = fs::OpenOptions::new().write(true).open(pair.places.state.join("progress")).unwrap();
    page.write_all_at(&[0xb0; 16], 8).unwrap();
    pair.crash();
}

#[test]
fn a_durable_point_in_two_parts_covers_what_came_before_it() {
    let mut pair = Pair::new();
    pair.say(pair.source.create("f", 0o644));
    let point = pair.applier().begin_durable().unwrap();
    pair.say(pair.source.create("g", 0o644));
    let synced = std::thread::scope(|scope| scope.spawn(|| point.sync()).join().unwrap());
    pair.applier().finish_durable(&point, synced).unwrap();
    let acknowledged = pair.applier().acknowledged();
    assert_eq!((acknowledged.durable.sequence, acknowledged.applied.sequence), (Sequence(1), Sequence(2)));
    reboot(&mut pair);
    assert_eq!(pair.applier().proof().data, DataState::Bad, "g was not durable");
}

/// A point that was being synced when a barrier came took *durable* back behind the barrier.
#[test]
fn an_older_point_takes_nothing_back() {
    let mut pair = Pair::new();
    pair.say(pair.source.create("f", 0o644));
    let older = pair.applier().begin_durable().unwrap();
    pair.say(pair.source.create("g", 0o644));
    pair.applier().durable_point().unwrap();
    pair.applier().finish_durable(&older, older.sync()).unwrap();
    assert_eq!(pair.applier().acknowledged().durable.sequence, Sequence(2));
    reboot(&mut pair);
    assert_eq!(pair.applier().proof().data, DataState::Good);
}

#[test]
fn a_failed_sync_marks_the_replica_bad() {
    let mut pair = Pair::new();
    pair.say(pair.source.create("f", 0o644));
    let point = pair.applier().begin_durable().unwrap();
    let failed = Err(std::io::Error::from_raw_os_error(libc::EIO));
    assert!(pair.applier().finish_durable(&point, failed).is_err());
    assert_eq!(pair.applier().proof().data, DataState::Bad);
    assert_eq!(pair.applier().proof().durable.sequence, Sequence(0));
}

#[test]
fn the_mark_bad_survives_and_only_mark_good_takes_it_away() {
    let mut pair = Pair::new();
    pair.applier().replica().mark_bad("a resynchronisation runs").unwrap();
    pair.applier().replica().mark_bad("another reason").unwrap();
    pair.crash();
    let data = pair.applier().replica().data();
    assert_eq!((data.state, data.reason.as_deref()), (DataState::Bad, Some("a resynchronisation runs")));
    pair.say(pair.source.create("f", 0o644));
    pair.applier().durable_point().unwrap();
    assert_eq!(pair.applier().proof().data, DataState::Bad);
    let position = Position { sequence: Sequence(50), chain: Chain(5), ..pair.applier().replica().applied() };
    pair.applier().replica().adopt(position).unwrap();
    pair.applier().replica().mark_good().unwrap();
    reboot(&mut pair);
    let proof = pair.applier().proof();
    assert_eq!((proof.data, proof.applied), (DataState::Good, position));
}

#[test]
fn whose_directory_it_is() {
    let mut pair = Pair::new();
    pair.say(pair.source.create("f", 0o644));
    assert!(matches!(open_error(&pair.places, SET), OpenError::InUse));
    pair.applier.take().unwrap().durable_point().unwrap();
    let other_state = Places { state: pair.temp.path().join("other"), ..pair.places.clone() };
    match open_error(&other_state, SetId(99)) {
        OpenError::OtherSet { found } => assert_eq!(found, SET),
        other => panic!("{other}"),
    }
    let foreign = pair.temp.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("holiday.jpg"), "").unwrap();
    let places = Places::beside(&foreign, &pair.temp.path().join("state of foreign"));
    assert!(matches!(open_error(&places, SET), OpenError::NotEmptyWithoutIdentity));
    assert!(!places.limbo.exists());
    let adopted = Replica::open_or_adopt(&places, SET).unwrap();
    assert!(adopted.data().reason.unwrap().contains("not compared yet"));
    drop(adopted);
    assert_eq!(Replica::open(&places, SET).unwrap().data().state, DataState::Bad);
    assert!(foreign.join("holiday.jpg").exists());
    assert!(matches!(Replica::open_or_adopt(&places, SetId(9)), Err(OpenError::OtherSet { .. })));
    let places = Places::beside(&foreign.join("holiday.jpg"), &pair.temp.path().join("s"));
    assert!(matches!(open_error(&places, SET), OpenError::NotADirectory));
}

#[test]
fn an_older_state_of_either_side_is_noticed() {
    let mut pair = Pair::new();
    pair.say(pair.source.create("f", 0o644));
    pair.applier().durable_point().unwrap();
    let old_root = root_says(&pair.places.root);
    let old_slot = fs::read(pair.places.state.join("slot")).unwrap();
    pair.say(pair.source.create("g", 0o644));
    pair.applier().durable_point().unwrap();
    drop(pair.applier.take());
    let new_root = root_says(&pair.places.root);

    set_root_says(&pair.places.root, &old_root);
    let replica = Replica::open(&pair.places, SET).unwrap();
    assert!(replica.data().reason.unwrap().contains("the replica was set back"));
    assert_eq!(replica.durable().sequence, Sequence(1));
    drop(replica);

    set_root_says(&pair.places.root, &new_root);
    fs::write(pair.places.state.join("slot"), old_slot).unwrap();
    fs::remove_file(pair.places.state.join("progress")).unwrap();
    let replica = Replica::open(&pair.places, SET).unwrap();
    assert!(replica.data().reason.unwrap().contains("the state directory was set back"));
}

fn root_says(root: &Path) -> Vec<u8> {
    inode::get_xattr(tree::o_path(root), IDENTITY_XATTR.as_bytes()).unwrap().unwrap()
}

fn set_root_says(root: &Path, value: &[u8]) {
    rustix::fs::setxattr(root, IDENTITY_XATTR, value, rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
fn a_lost_state_directory_or_index_is_said() {
    let mut pair = Pair::new();
    pair.say(pair.source.create("f", 0o644));
    pair.applier().durable_point().unwrap();
    drop(pair.applier.take());
    fs::write(pair.places.state.join("index"), "no index").unwrap();
    let replica = Replica::open(&pair.places, SET).unwrap();
    assert!(replica.data().reason.unwrap().contains("index is damaged"));
    drop(replica);
    let fresh = Places { state: pair.temp.path().join("fresh"), ..pair.places.clone() };
    let replica = Replica::open(&fresh, SET).unwrap();
    assert_eq!(replica.data().state, DataState::Bad);
    assert!(replica.index().is_empty());
}

/// A full disk holds the line; once there is room the same op goes through.
#[test]
fn a_full_disk_is_waited_for() {
    let mount = tempfile::tempdir().unwrap();
    let _mounted = Mounted::tmpfs(mount.path(), "2m");
    let mut pair = Pair::with_replica(|_| mount.path().join("replica"));
    pair.say(pair.source.create("f", 0o644));
    let ballast = mount.path().join("ballast");
    fs::write(&ballast, vec![1; 1_600_000]).unwrap();
    let write = pair.source.write("f", 0, &[5; 1_000_000]);
    let frame = pair.frame(&write);
    for attempt in 1..4u32 {
        match pair.applier().handle(&frame) {
            Outcome::Retry(retry) => {
                assert_eq!(
                    (retry.attempts, retry.op, retry.fault.errno()),
                    (attempt, "write", Some(libc::ENOSPC))
                );
                assert!(retry.after >= crate::limits::APPLY_RETRY_MIN);
            }
            other => panic!("{other:?}"),
        }
    }
    fs::remove_file(ballast).unwrap();
    assert!(matches!(pair.applier().handle(&frame), Outcome::Applied));
    pair.assert_same();
}
