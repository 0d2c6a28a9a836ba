//! A session over loopback, with a source that a test plays by hand.

mod fence;
mod reading;
mod scene;

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::scene::*;
use crate::apply::{Places, Replica};
use crate::link::{SourceEvent, SourceLink};
use crate::packet::*;

/// A sync of seconds at a barrier stood in the way of everything behind it.
#[test]
fn what_comes_behind_a_barrier_does_not_wait_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(dir.path());
    scene.disk.close();
    scene.barrier(true);
    scene.wait_for_sync();
    (0..1000).for_each(|_| scene.barrier(false));
    scene.barrier(true);
    let said = scene.durables_until(1002, 0);
    assert_eq!(said, [0], "nothing is durable while the disk hangs");
    scene.disk.open();
    // The sync under way began before the others came: it proves the first barrier and no more.
    assert_eq!(scene.durables_until(1002, 1002), [1, 1002]);
}

/// An orderly end and a cut wait for the sync under way, and what it proves is kept.
#[test]
fn a_sync_under_way_is_not_lost_with_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(dir.path());
    scene.disk.close();
    scene.barrier(true);
    scene.wait_for_sync();
    scene.barrier(false);
    scene.durables_until(2, 0);
    let Scene { source, disk, _server, .. } = scene;
    source.close("the test cuts it");
    disk.open();
    drop(_server);
    let places = Places::beside(&dir.path().join("replica"), &dir.path().join("state"));
    let replica = Replica::open(&places, SET).unwrap();
    assert_eq!(replica.durable().sequence, Sequence(2));
    assert_eq!(replica.data().state, DataState::Good);
}

/// What comes by the other connection was dropped when the stream had ended before it was read.
#[test]
fn what_a_source_says_last_is_heard() {
    for round in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let Scene { source, _server, .. } = Scene::begin(dir.path());
        source.send(SourceMessage::Diverged { reason: Text::from_str_cut("an odd change") });
        source.close("the test goes");
        drop(_server);
        let places = Places::beside(&dir.path().join("replica"), &dir.path().join("state"));
        let replica = Replica::open(&places, SET).unwrap();
        assert_eq!(replica.data().state, DataState::Bad, "round {round}");
    }
}

/// `standin doctor` asks; a source that is connected goes on.
#[test]
fn a_question_is_answered_and_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(dir.path());
    let ask = |name: &str| {
        let asking = SourceLink::dial(scene.dial.clone(), Frames::default());
        asking.send(SourceMessage::Ask { set_name: Text::from_str_cut(name) });
        let answer = wait_for(&asking, |message| matches!(message, TargetMessage::About { .. }));
        asking.close("it has its answer");
        match answer {
            TargetMessage::About { version, standing, .. } => (version, standing),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask("one"), (WIRE_VERSION, Standing::Welcome(Text::from_str_cut("here"))));
    assert_eq!(ask("two"), (WIRE_VERSION, Standing::Unwelcome(Text::from_str_cut("not here"))));
    scene.barrier(true);
    scene.durables_until(1, 1);
}

/// What was said of a source of another version was said for two minutes after it had been taken in, and was gone.
#[test]
fn who_is_taken_in_is_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(dir.path());
    scene.again();
    scene.hello(WIRE_VERSION - 1);
    scene.message(|message| matches!(message, TargetMessage::Refused { .. }));
    scene.again();
    scene.greet();
    assert_eq!(*scene.came.lock(), ["taken in", "turned away", "taken in"]);
}

/// A sync that fails at the end of a copy was tried again, and the next one said that all is well:
/// the replica was called good without the bytes that the kernel had dropped.
#[test]
fn a_copy_whose_sync_fails_does_not_end_well() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::begin(dir.path());
    let object = ObjectId { birth_epoch: 1, generation: 2, inode: 3 };
    let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::default() };
    scene.disk.break_once();
    scene.items([
        LaneItem::Begin,
        LaneItem::Root { object, attributes, xattrs: Vec::new() },
        LaneItem::Listing {
            dir: object,
            dir_mtime: Timestamp::default(),
            entries: Vec::new(),
            unlisted: None,
            first: true,
            last: true,
        },
        LaneItem::End,
    ]);
    let deadline = Instant::now() + LONG;
    let reason = loop {
        match scene.source.events().recv_deadline(deadline).expect("the target ends it in time") {
            SourceEvent::Lost { reason, .. } => break reason,
            SourceEvent::Message(TargetMessage::Resynchronised { .. }) => panic!("it ended well"),
            SourceEvent::Message(_) | SourceEvent::Up => {}
        }
    };
    assert!(reason.contains("a sync of the replica failed"), "{reason}");
    drop(scene);
    let places = Places::beside(&dir.path().join("replica"), &dir.path().join("state"));
    assert_eq!(Replica::open(&places, SET).unwrap().data().state, DataState::Bad);
}

/// The disk fails for the replica and for the record of that, and recovers. A later sync said that
/// all is well, and the stream went on.
#[test]
fn a_failed_sync_that_cannot_be_recorded_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(dir.path());
    scene.disk.break_with_record();
    scene.barrier(true);
    let reason = loop {
        match scene.source.events().recv_timeout(LONG).expect("the target ends it in time") {
            SourceEvent::Lost { reason, .. } => break reason,
            SourceEvent::Message(TargetMessage::Acknowledge { durable, .. }) => {
                assert_eq!(durable, Sequence(0), "it was called durable");
            }
            SourceEvent::Message(_) | SourceEvent::Up => {}
        }
    };
    assert!(reason.contains("a sync of the replica failed"), "{reason}");
    scene.again();
    assert_eq!(scene.greet().data, DataState::Bad);
    drop(scene);
    let places = Places::beside(&dir.path().join("replica"), &dir.path().join("state"));
    assert_eq!(Replica::open(&places, SET).unwrap().data().state, DataState::Bad);
}

/// A durable point in the middle of a copy took the kernel's word that bytes of the copy were lost;
/// the copy then synced without an error, and called its files complete.
#[test]
fn a_copy_hears_itself_that_its_bytes_were_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(dir.path());
    scene.barrier(false);
    scene.durables_until(1, 0);
    let root = ObjectId { birth_epoch: 1, generation: 2, inode: 3 };
    let object = ObjectId { inode: 4, ..root };
    let attributes =
        Attributes { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp { seconds: 7, nanoseconds: 8 } };
    let listed = || ListedObject {
        name: Name::new(b"file").unwrap(),
        object,
        birth: Birth::File,
        attributes,
        xattrs: Vec::new(),
        links: 1,
        size: 3,
        large_xattrs: false,
        suspect: false,
    };
    let listing = || {
        let entries = vec![listed()];
        let dir_mtime = Timestamp::default();
        [
            LaneItem::Begin,
            LaneItem::Root { object: root, attributes, xattrs: Vec::new() },
            LaneItem::Listing { dir: root, dir_mtime, entries, unlisted: None, first: true, last: true },
        ]
    };
    let wanted =
        |scene: &Scene| match scene.message(|message| matches!(message, TargetMessage::Wanted { .. })) {
            TargetMessage::Wanted { objects, .. } => objects,
            other => panic!("{other:?}"),
        };
    scene.items(listing());
    assert_eq!(wanted(&scene), [object]);
    scene.items([
        LaneItem::OpenContent { object },
        LaneItem::CloseContent { object, hole: 3, size: 3, attributes, xattrs: Vec::new() },
    ]);
    let file = dir.path().join("replica/file");
    let deadline = Instant::now() + LONG;
    while std::fs::metadata(&file).unwrap().len() < 3 {
        assert!(Instant::now() < deadline, "its content does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
    scene.disk.break_once();
    scene.source.send(SourceMessage::MakeDurable);
    std::thread::sleep(Duration::from_millis(500));
    scene.again();
    scene.greet();
    scene.items(listing());
    assert_eq!(wanted(&scene), [object], "it was called complete");
}

/// A source that had changed what it could not tell left a replica behind that called itself good.
#[test]
fn a_diverged_source_leaves_no_good_replica() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(dir.path());
    scene.barrier(true);
    scene.source.send(SourceMessage::Diverged { reason: Text::from_str_cut("write: I/O error") });
    scene.barrier(true);
    scene.durables_until(2, 2);
    scene.again();
    assert_eq!(scene.greet().data, DataState::Bad);
    drop(scene);
    let places = Places::beside(&dir.path().join("replica"), &dir.path().join("state"));
    let data = Replica::open(&places, SET).unwrap().data();
    assert_eq!(data.state, DataState::Bad);
    assert!(data.reason.is_some_and(|reason| reason.contains("write: I/O error")));
}

/// What was not done is acknowledged as passed: before that the source knows that the replica is bad,
/// and a new connection goes on with the same knowledge.
#[test]
fn a_source_hears_what_is_set_aside_before_it_is_passed() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(dir.path());
    let object = ObjectId { birth_epoch: 1, generation: 2, inode: 3 };
    scene.packet(b"dir/past", &Op::SetAttributes { object, mode: Some(0o600), owner: None, mtime: None });
    scene.barrier(false);
    let mut told = Mutex::new(Vec::new());
    scene.message(|message| {
        told.lock().push(message.clone());
        matches!(message, TargetMessage::Acknowledge { applied: Sequence(1..), .. })
    });
    let told: Vec<TargetMessage> = std::mem::take(told.get_mut());
    let says = |fits: &dyn Fn(&TargetMessage) -> bool| told.iter().any(fits);
    assert!(says(&|message| matches!(message, TargetMessage::Data { state: DataState::Bad, aside: 1, .. })));
    assert!(says(
        &|message| matches!(message, TargetMessage::SetAside { path, .. } if path.0 == b"dir/past")
    ));
    scene.durables_until(2, 0);
    scene.again();
    let proof = scene.greet();
    assert_eq!((proof.data, proof.bad_by, proof.applied), (DataState::Bad, BadBy::Aside, scene.at));
    scene.message(|message| matches!(message, TargetMessage::SetAside { .. }));
    scene.message(|message| matches!(message, TargetMessage::Data { aside: 1, .. }));
    scene.barrier(true);
    scene.durables_until(3, 3);
}
