//! What a source says of a resynchronisation before there is one.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;

use super::super::connection::{Foreseen, MirrorCommand};
use super::super::mark::Reached;
use super::*;
use crate::connection::{Command, NotNow};
use crate::control::{Bounds, ResyncStatus, Rung};
use crate::map::What;
use crate::packet::ObjectId;
use crate::sys::FileHandle;

fn foreseen(scene: &Scene) -> Foreseen {
    scene.connection.foresee().recv_timeout(LONG).expect("its connection answers")
}

/// One whose target has two packets already.
fn goes_on(map: Option<Arc<Map>>) -> Scene {
    Scene::on(Stage { map, before: 2, is_known: true, ..Stage::default() })
}

/// All up to packet 5 is durable.
fn in_line(scene: &Scene) {
    scene.target.welcome();
    scene.welcome(scene.start);
    let frames = scene.target.frames();
    (0..3).for_each(|_| drop(frame(&frames)));
    scene.say(acknowledge(5, 5));
    let has = |report: &Report| report.durable == Sequence(5);
    assert!(has(&scene.connection.wait(Instant::now() + LONG, has)));
}

fn mark(scene: &Scene, map: &Map, name: &str) {
    let file = File::create(scene.tree.path().join(name)).unwrap();
    let id = ObjectId { birth_epoch: 1, generation: 1, inode: 40 + name.len() as u64 };
    map.mark(id, Some(&FileHandle::of(file.as_fd()).unwrap()), &What::Content(0..10));
}

fn tell(scene: &Scene, command: Command) {
    scene.connection.command(command).recv_timeout(LONG).unwrap().unwrap();
}

#[test]
fn the_rungs_are_foreseen_from_the_top() {
    let map = Arc::new(Map::new(1 << 16, Sequence(0)));
    let scene = goes_on(Some(map.clone()));
    let unheard = foreseen(&scene);
    assert_eq!((unheard.rung, unheard.since), (Some(Rung::Queue), Some(Sequence(2))), "{unheard:?}");
    assert!(unheard.assumes.contains("not answered since the start"), "{unheard:?}");
    in_line(&scene);
    let in_line = foreseen(&scene);
    assert_eq!((in_line.rung, in_line.since), (Some(Rung::Queue), Some(Sequence(5))), "{in_line:?}");
    assert_eq!((in_line.assumes.as_str(), in_line.is_running), ("", false), "{in_line:?}");
    tell(&scene, Command::Stop);
    let stopped = foreseen(&scene);
    assert_eq!((stopped.rung, stopped.since), (Some(Rung::Queue), Some(Sequence(5))), "{stopped:?}");
    assert!(stopped.assumes.contains("what it said to have"), "{stopped:?}");
    mark(&scene, &map, "a");
    mark(&scene, &map, "bc");
    tell(&scene, Command::StopReplication);
    let owed = foreseen(&scene);
    assert_eq!((owed.rung, owed.since), (Some(Rung::Owed), Some(Sequence(5))), "{owed:?}");
    assert!(owed.why.contains("replication is stopped by hand") && !owed.is_searched, "{owed:?}");
    assert_eq!(owed.owed.expect("it is known").objects.len(), 2);
    map.mark(ObjectId { birth_epoch: 1, generation: 1, inode: 1 }, None, &What::Itself);
    let full = foreseen(&scene);
    assert_eq!(full.rung, Some(Rung::Checksum), "{full:?}");
    assert!(full.why.contains("more was changed than the map has room for"), "{full:?}");
    scene.connection.end();
}

#[test]
fn without_marks_everything_is_looked_at() {
    let scene = goes_on(None);
    in_line(&scene);
    tell(&scene, Command::StopReplication);
    let all = foreseen(&scene);
    assert_eq!((all.rung, all.owed.is_none()), (Some(Rung::Checksum), true), "{all:?}");
    assert!(all.why.ends_with("not by the map: nothing is marked"), "{all:?}");
    scene.connection.end();
}

#[test]
fn of_a_target_that_never_answered_it_is_known_what_was_noted() {
    let new = foreseen(&Scene::new());
    assert_eq!(new.rung, Some(Rung::Full), "{new:?}");
    let target = Target::Remote { host: "127.0.0.1".into(), port: 1, repset: "web".into() };
    let mark = Mark::now().reached(Reached { run: Incarnation(2), sequence: Sequence(50) });
    let marks = Arc::<Marks>::default();
    marks.set(&BTreeMap::from([(target.to_string(), mark)]), &[Incarnation(2)]);
    let map = Some(Arc::new(Map::new(1 << 16, Sequence(0))));
    let scene = Scene::on(Stage { marks, map, is_known: true, ..Stage::default() });
    let noted = foreseen(&scene);
    assert_eq!((noted.rung, noted.is_searched), (Some(Rung::Owed), true), "{noted:?}");
    assert!(noted.assumes.contains("what was noted of it"), "{noted:?}");
    scene.connection.end();
    let unknown = foreseen(&Scene::on(Stage { is_known: true, ..Stage::default() }));
    assert_eq!(unknown.rung, Some(Rung::Checksum), "{unknown:?}");
}

#[test]
fn what_its_disk_has_lost_nothing_mends() {
    let divergence = Arc::new(Divergence::default());
    let scene = Scene::on(Stage { divergence: divergence.clone(), ..Stage::default() });
    divergence.note_sync(
        "file",
        File::open(scene.tree.path()).unwrap().as_fd(),
        &Err(rustix::io::Errno::IO.into()),
    );
    let none = foreseen(&scene);
    assert_eq!(none.rung, None, "{none:?}");
    assert!(none.why.contains("Input/output error"), "{none:?}");
    scene.connection.end();
}

fn merge(scene: &Scene) -> Result<(), NotNow> {
    scene.connection.mirror(MirrorCommand::Merge).recv_timeout(LONG).unwrap()
}

/// It goes by the map, and begins nothing where that says nothing.
#[test]
fn a_merge_is_made_of_what_is_marked() {
    let map = Arc::new(Map::new(1 << 16, Sequence(0)));
    let scene = goes_on(Some(map.clone()));
    assert_eq!(merge(&scene), Err(NotNow::NotConnected));
    in_line(&scene);
    let before = scene.connection.report();
    assert_eq!(merge(&scene), Err(NotNow::NothingInDoubt));
    let after = scene.connection.report();
    assert_eq!((after.reason, after.streaming), (before.reason, true));
    mark(&scene, &map, "a");
    scene.connection.captured();
    assert_eq!(merge(&scene), Ok(()));
    let target = scene.listener.accept().expect("it connects anew");
    target.send(welcome(WIRE_VERSION, proof(Position { sequence: Sequence(5), ..scene.start })));
    let begun = |report: &Report| report.is_minicopy && report.copy_attempts == 1;
    let report = scene.connection.wait(Instant::now() + LONG, begun);
    assert!(begun(&report) && report.reason.contains("a merge was asked for"), "{}", report.reason);
    assert_eq!(merge(&scene), Err(NotNow::MirrorRuns));
    let running = foreseen(&scene);
    assert_eq!((running.rung, running.is_running), (Some(Rung::Owed), true), "{running:?}");
    tell(&scene, Command::Stop);
    assert_eq!(merge(&scene), Err(NotNow::Stopped));
    scene.connection.end();
}

/// What the source says of how its target was brought into line, once that is so.
fn taken(scene: &Scene, rung: Rung) -> ResyncStatus {
    let is_it = |report: &Report| report.resync.as_ref().is_some_and(|resync| resync.rung == rung);
    let report = scene.connection.wait(Instant::now() + LONG, is_it);
    report.resync.filter(|resync| resync.rung == rung).unwrap_or_else(|| panic!("not by {rung:?}"))
}

/// Only the machine's gap was shown: nobody could see why a minicopy was none.
#[test]
fn what_was_taken_is_said_with_its_reason() {
    let map = Arc::new(Map::new(1 << 16, Sequence(0)));
    let scene = goes_on(Some(map.clone()));
    assert_eq!(scene.connection.report().resync, None);
    in_line(&scene);
    let resumed = taken(&scene, Rung::Queue);
    assert_eq!((resumed.since, resumed.running), (Some(Sequence(2)), false), "{resumed:?}");
    let packets = resumed.packets;
    assert!(packets.at_least > 2 && packets == Bounds::exactly(packets.at_least), "{resumed:?}");
    assert_eq!(resumed.why, "the queue holds all that it lacks");
    map.mark(ObjectId { birth_epoch: 1, generation: 1, inode: 1 }, None, &What::Itself);
    tell(&scene, Command::StopReplication);
    let foreseen = foreseen(&scene);
    scene.connection.captured();
    tell(&scene, Command::StartReplication);
    let target = scene.listener.accept().expect("it connects anew");
    target.send(welcome(WIRE_VERSION, proof(Position { sequence: Sequence(5), ..scene.start })));
    let all = taken(&scene, Rung::Checksum);
    assert_eq!((foreseen.rung, all.running, all.objects), (Some(all.rung), true, Bounds::UNKNOWN), "{all:?}");
    let reason = scene.connection.report().reason;
    assert_eq!(all.why, format!("{reason}; not by the map: more was changed than the map has room for"));
    tell(&scene, Command::Stop);
    assert!(!taken(&scene, Rung::Checksum).running, "it was cut off");
    scene.connection.end();
}

#[test]
fn where_no_map_tells_a_merge_needs_to_be_full() {
    let scene = goes_on(None);
    in_line(&scene);
    assert_eq!(merge(&scene), Err(NotNow::NeedsFull("nothing is marked")));
    assert!(scene.connection.report().streaming);
    scene.connection.end();
}
