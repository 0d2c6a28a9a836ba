//! What the guard demands of every op.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::*;
use crate::intercept::Caller;
use crate::intercept::names::{AskedMode, At};
use crate::intercept::objects::NodeId;
use crate::packet::{ContentResult, Epoch, Incarnation, Position, Timestamp};

/// A volume with one file, and what is needed to change it.
struct Scene {
    _dir: tempfile::TempDir,
    volume: Volume,
    node: Arc<Node>,
    fd: Arc<OwnedFd>,
}

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let backing = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let origin = Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3));
        let volume = Volume::new(backing, Queue::new(1 << 20, origin), 1).unwrap();
        let caller = Caller { uid: 0, gid: 0, pid: 1, request: 0 };
        let at = At { parent: NodeId::ROOT, name: OsStr::new("f") };
        let asked = AskedMode { mode: 0o644, umask: 0 };
        let (meta, opened) = volume.create(caller, at, asked, libc::O_RDWR).unwrap();
        let fd = volume.sync_target(opened.handle).unwrap();
        Scene { _dir: dir, node: volume.node(meta.node).unwrap(), volume, fd }
    }

    fn change(&self, part: Part) -> Change<'_> {
        let touched = Touched::object(&self.node, &self.fd, part);
        self.volume.prepare(touched, 0).unwrap().lock().unwrap()
    }

    fn grow(&self, change: &mut Change<'_>) {
        change.make(|| rustix::fs::ftruncate(&*self.fd, 7).step("truncate")).unwrap();
    }

    fn op(&self, object: ObjectId) -> Op {
        let mtime = Timestamp { seconds: 0, nanoseconds: 0 };
        Op::Resize { object, result: ContentResult { size: 7, mtime, mode: None } }
    }

    fn is_diverged(&self) -> bool {
        self.volume.divergence().why().is_some()
    }

    fn appended(&self) -> u64 {
        self.volume.changes.queue.last().sequence.0
    }
}

#[test]
fn what_was_made_and_not_told_diverges() {
    let scene = Scene::new();
    let mut change = scene.change(Part::Size(0));
    scene.grow(&mut change);
    drop(change);
    assert!(scene.is_diverged());
}

/// A panic in the middle of an op is no way out either.
#[test]
fn a_panic_after_the_change_diverges() {
    let scene = Scene::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut change = scene.change(Part::Size(0));
        change.make(|| -> FsResult<()> { panic!("in the middle") })
    }));
    assert!(outcome.is_err());
    assert!(scene.is_diverged());
}

#[test]
fn a_part_that_was_not_told_diverges_although_the_rest_is() {
    let scene = Scene::new();
    let mut change = scene.change(Part::Size(0));
    change.make(|| Ok(())).unwrap();
    change.part(|change| scene.grow(change));
    assert!(change.is_made(), "what came before it is to be told still");
    change.append(&scene.op(scene.node.object), Bytes::new());
    assert!(scene.is_diverged());
}

#[test]
fn what_was_told_refused_or_left_as_it_was_does_not_diverge() {
    let scene = Scene::new();
    let before = scene.appended();
    let mut told = scene.change(Part::Size(0));
    scene.grow(&mut told);
    told.append(&scene.op(scene.node.object), Bytes::new());
    assert_eq!(scene.appended(), before + 1);
    let mut refused = scene.change(Part::Size(0));
    refused.make(|| Err::<(), _>(FsError::new(libc::EPERM, "a call"))).unwrap_err();
    assert!(!refused.is_made());
    drop(refused);
    let mut failed = scene.change(Part::Size(0));
    failed.make(|| Err::<(), _>(FsError::new(libc::EIO, "a call"))).unwrap_err();
    assert!(failed.is_made(), "half of it may be done");
    failed.unchanged();
    assert!(!scene.is_diverged());
    assert_eq!(scene.appended(), before + 1);
}

/// What maps and logs would miss.
#[test]
fn only_what_was_said_and_locked_is_told_after_it_was_made() {
    let scene = Scene::new();
    let before = scene.appended();
    let write = |offset| Op::Write {
        object: scene.node.object,
        offset,
        result: ContentResult { size: 9, mtime: Timestamp { seconds: 0, nanoseconds: 0 }, mode: None },
    };
    let other = ObjectId { inode: 1, ..scene.node.object };
    let wrong = [
        (Part::Content(2..4), write(1), true),
        (Part::Content(2..4), write(3), true),
        (Part::Attributes, scene.op(scene.node.object), true),
        (Part::Size(0), scene.op(other), true),
        (Part::Size(0), Op::Barrier { durable: false, name: None }, true),
        (Part::Content(2..4), write(2), false),
    ];
    for (part, op, is_made) in wrong {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut change = scene.change(part.clone());
            if is_made {
                change.make(|| Ok(())).unwrap();
            }
            change.append(&op, Bytes::from_static(b"xx"));
        }));
        assert!(outcome.is_err(), "{part:?}: {op:?}");
    }
    assert_eq!(scene.appended(), before);
    let mut right = scene.change(Part::Content(2..4));
    right.make(|| Ok(())).unwrap();
    right.append(&write(2), Bytes::from_static(b"xx"));
    assert_eq!(scene.appended(), before + 1);
}
