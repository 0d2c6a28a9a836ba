//! A volume goes on where another one was, without a mount: what was answered, what was made and not answered, and what
//! was only begun.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::RenameFlags;

use super::{Intent, KeepsFiles, Memory, RESENT, Standing, serve_request};
use crate::intercept::data::{Origin, WriteRequest};
use crate::intercept::error::FsResult;
use crate::intercept::names::{AskedMode, At};
use crate::intercept::objects::NodeId;
use crate::intercept::volume::{Caller, Volume};
use crate::packet::{Epoch, Incarnation, Position};
use crate::queue::Queue;

const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1, request: 0 };
const ASKED: AskedMode = AskedMode { mode: 0o644, umask: 0o022 };

/// In the place of a holder.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<HashMap<u64, OwnedFd>>>);

impl KeepsFiles for Held {
    fn keep(&self, node: NodeId, file: BorrowedFd<'_>) {
        self.0.lock().insert(node.0, file.try_clone_to_owned().unwrap());
    }

    fn let_go(&self, node: NodeId) {
        self.0.lock().remove(&node.0);
    }

    fn process(&self) -> Option<std::os::fd::OwnedFd> {
        None
    }
}

/// A directory, and what serves it now.
struct Served {
    dir: tempfile::TempDir,
    held: Held,
    volume: Volume,
    standing: Arc<Standing>,
}

fn volume(dir: &Path, standing: &Arc<Standing>) -> Volume {
    let queue = Queue::new(1 << 27, Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3)));
    queue.attach(|_| ());
    let backing = fs::File::open(dir).unwrap().into();
    Volume::new(backing, queue, 1).unwrap().standing_on(standing.clone())
}

impl Served {
    fn new() -> Served {
        let (dir, held) = (tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap(), Held::default());
        let standing = Arc::new(Standing::begin(Box::new(held.clone())).unwrap());
        standing.note_connection(&[1; 104], 7);
        let volume = volume(dir.path(), &standing);
        Served { dir, held, volume, standing }
    }

    /// The one that serves is killed: nothing that it holds is given back, and another one goes on.
    fn killed(self) -> Served {
        let Memory { head, nodes, handles } = self.standing.memory();
        let own = |memory: BorrowedFd<'_>| memory.try_clone_to_owned().unwrap();
        let memory = Memory { head: own(head), nodes: own(nodes), handles: own(handles) };
        std::mem::forget(self.volume);
        let kept: Vec<_> = self.held.0.lock().iter().map(|(id, fd)| (NodeId(*id), own(fd.as_fd()))).collect();
        let standing = Arc::new(Standing::take(memory, kept, Box::new(self.held.clone())).unwrap());
        assert_eq!(standing.connection(), (vec![1; 104], 7));
        let volume = volume(self.dir.path(), &standing);
        Served { volume, standing, ..self }
    }

    fn create(&self, name: &str) -> (NodeId, u64) {
        serve_request(0);
        let (meta, opened) = self.volume.create(ROOT, at(name), ASKED, libc::O_RDWR | libc::O_CREAT).unwrap();
        (meta.node, opened.handle)
    }

    fn write(&self, handle: u64, offset: u64, data: &[u8]) {
        let origin = Origin::Program;
        let request = WriteRequest { handle, offset, data, clear_privileges: false, origin };
        assert_eq!(self.volume.write(ROOT, request).map(|written| written.bytes), Ok(data.len()));
    }

    fn read(&self, handle: u64) -> Vec<u8> {
        let mut buffer = vec![0; 100];
        let count = self.volume.read(handle, 0, &mut buffer).unwrap();
        buffer.truncate(count);
        buffer
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn at(name: &str) -> At<'_> {
    At { parent: NodeId::ROOT, name: OsStr::new(name) }
}

#[test]
fn what_was_answered_is_known_to_the_next() {
    let served = Served::new();
    let (node, handle) = served.create("file");
    served.write(handle, 0, b"before");
    let meta = served.volume.lookup(NodeId::ROOT, OsStr::new("file")).unwrap();
    assert_eq!(meta.node, node);
    let (gone, gone_handle) = served.create("gone");
    served.write(gone_handle, 0, b"nameless");
    served.volume.unlink(at("gone")).unwrap();
    let (closed, closed_handle) = served.create("closed");
    served.volume.release(closed_handle);
    served.volume.unlink(at("closed")).unwrap();
    assert_eq!(served.held.0.lock().keys().copied().collect::<Vec<_>>(), [gone.0], "only what is open");
    let directory = served.volume.opendir(ROOT, NodeId::ROOT).unwrap();

    let served = served.killed().killed();
    assert_eq!((served.read(handle), served.read(gone_handle)), (b"before".to_vec(), b"nameless".to_vec()));
    served.write(gone_handle, 8, b" still");
    assert_eq!(served.read(gone_handle), b"nameless still");
    assert_eq!(served.volume.getattr(node, None).unwrap().stat.st_size, 6);
    let mut listed = Vec::new();
    let take = |entry: &crate::intercept::listing::Listed| {
        listed.push(entry.name.clone().into_string().unwrap());
        true
    };
    served.volume.readdir(directory.handle, 0, take).unwrap();
    listed.retain(|name| !name.starts_with('.'));
    assert_eq!(listed, ["file"]);
    // A new handle has a number of its own.
    let (_, other) = served.create("other");
    assert!(![handle, gone_handle].contains(&other));

    // The kernel gives all of it back: two lookups of the file, one of each other.
    served.volume.release(gone_handle);
    assert!(served.held.0.lock().is_empty(), "its space comes back with the last close");
    served.volume.release(handle);
    served.volume.forget(gone, 1);
    served.volume.forget(closed, 1);
    served.volume.forget(node, 1);
    assert!(served.volume.getattr(node, None).is_ok(), "the kernel still knows it");
    served.volume.forget(node, 1);
    assert_eq!(served.volume.getattr(node, None).map(|_| ()).unwrap_err().errno, libc::ESTALE);
}

/// An open that was made and not answered would stay open for ever.
#[test]
fn an_open_that_is_asked_again_is_the_same_open() {
    let served = Served::new();
    let (node, _) = served.create("file");
    serve_request(20);
    let first = served.volume.open(node, libc::O_RDWR).unwrap();
    serve_request(22);
    let directory = served.volume.opendir(Caller { request: 22, ..ROOT }, NodeId::ROOT).unwrap();
    let served = served.killed();
    serve_request(RESENT | 20);
    let again = served.volume.open(node, libc::O_RDWR).unwrap();
    assert_eq!((again.handle, again.mode), (first.handle, first.mode));
    let asked_again = Caller { request: RESENT | 22, ..ROOT };
    assert_eq!(served.volume.opendir(asked_again, NodeId::ROOT).unwrap().handle, directory.handle);
    serve_request(RESENT | 24);
    assert_ne!(served.volume.open(node, libc::O_RDWR).unwrap().handle, first.handle, "another request");
    serve_request(0);
}

type Call = fn(&Volume, NodeId) -> FsResult<()>;

/// What a request does; the node is that of `file`.
const CALLS: [(&str, Call, &[&str]); 12] = [
    ("create", |volume, _| create(volume, libc::O_EXCL), &["dir", "file", "new", "other"]),
    ("create or open", |volume, _| create(volume, 0), &["dir", "file", "new", "other"]),
    ("mkdir", |volume, _| volume.mkdir(ROOT, at("new"), ASKED).map(drop), &["dir", "file", "new", "other"]),
    (
        "symlink",
        |volume, _| volume.symlink(ROOT, at("new"), Path::new("text")).map(drop),
        &["dir", "file", "new", "other"],
    ),
    (
        "mknod",
        |volume, _| {
            volume
                .mknod(ROOT, at("new"), AskedMode { mode: libc::S_IFIFO | 0o600, umask: 0 }, (0, 0))
                .map(drop)
        },
        &["dir", "file", "new", "other"],
    ),
    ("link", |volume, node| volume.link(node, at("new")).map(drop), &["dir", "file", "new", "other"]),
    ("unlink", |volume, _| volume.unlink(at("file")), &["dir", "other"]),
    ("rmdir", |volume, _| volume.rmdir(at("dir")), &["file", "other"]),
    (
        "rename",
        |volume, _| volume.rename(at("file"), at("new"), RenameFlags::empty()),
        &["dir", "new", "other"],
    ),
    ("replace", |volume, _| volume.rename(at("file"), at("other"), RenameFlags::empty()), &["dir", "other"]),
    (
        "exchange",
        |volume, _| volume.rename(at("file"), at("other"), RenameFlags::EXCHANGE),
        &["dir", "file", "other"],
    ),
    (
        "noreplace",
        |volume, _| volume.rename(at("file"), at("new"), RenameFlags::NOREPLACE),
        &["dir", "new", "other"],
    ),
];

fn create(volume: &Volume, flags: i32) -> FsResult<()> {
    let (_, opened) = volume.create(ROOT, at("new"), ASKED, flags | libc::O_RDWR | libc::O_CREAT)?;
    volume.release(opened.handle);
    Ok(())
}

fn prepared() -> (Served, NodeId, u64) {
    let served = Served::new();
    let (node, handle) = served.create("file");
    served.write(handle, 0, b"file");
    let (_, other) = served.create("other");
    served.write(other, 0, b"other");
    served.volume.mkdir(ROOT, at("dir"), ASKED).unwrap();
    let inode = fs::metadata(served.dir.path().join("file")).unwrap();
    (served, node, std::os::unix::fs::MetadataExt::ino(&inode))
}

/// Made, and its daemon killed before the answer; that happens to the next one, too.
#[test]
fn a_change_that_was_made_is_answered_and_not_made_twice() {
    for (what, call, expected) in CALLS {
        let (served, node, _) = prepared();
        serve_request(40);
        call(&served.volume, node).unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut served = served;
        for _ in 0..2 {
            served = served.killed();
            serve_request(RESENT | 40);
            call(&served.volume, node).unwrap_or_else(|error| panic!("{what}, again: {error}"));
            assert_eq!(served.names(), expected, "{what}");
            if what == "exchange" {
                assert_eq!(fs::read(served.dir.path().join("file")).unwrap(), b"other");
            }
        }
        // What is asked for the first time is answered as ever.
        drop(served.volume.answering(RESENT | 40));
        serve_request(42);
        let again = call(&served.volume, node);
        let may_be_done_again = ["create or open", "exchange"].contains(&what);
        assert_eq!(again.is_ok(), may_be_done_again, "{what}, by another request: {again:?}");
        serve_request(0);
    }
}

/// Killed between the intent and the system call.
#[test]
fn a_change_that_was_only_intended_is_made() {
    for (what, call, expected) in CALLS {
        let (served, node, inode) = prepared();
        serve_request(40);
        served.volume.intend(match what {
            "link" => Intent::Link,
            "unlink" | "rmdir" => Intent::Removal,
            "rename" | "replace" | "exchange" | "noreplace" => Intent::Move(inode),
            _ => Intent::Birth,
        });
        let served = served.killed();
        serve_request(RESENT | 40);
        call(&served.volume, node).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(served.names(), expected, "{what}");
        serve_request(0);
    }
}

/// Read by a daemon that was killed before it had begun: nothing says that it was made.
#[test]
fn what_was_not_begun_is_refused_as_ever() {
    let (served, node, _) = prepared();
    fs::write(served.dir.path().join("new"), "somebody else's").unwrap();
    let served = served.killed();
    for (what, call, _) in CALLS {
        if ["create", "mkdir", "symlink", "mknod", "link", "noreplace"].contains(&what) {
            serve_request(RESENT | 40);
            assert_eq!(call(&served.volume, node).map_err(|error| error.errno), Err(libc::EEXIST), "{what}");
        }
    }
    serve_request(0);
}

#[test]
fn attributes_are_set_and_removed_once() {
    let (served, node, _) = prepared();
    let name = OsStr::new("user.test");
    let set = |served: &Served| {
        served.volume.setxattr(ROOT, node, name, b"value", rustix::fs::XattrFlags::CREATE.bits() as i32)
    };
    serve_request(40);
    set(&served).unwrap();
    let served = served.killed();
    serve_request(RESENT | 40);
    set(&served).unwrap();
    drop(served.volume.answering(RESENT | 40));
    serve_request(42);
    assert_eq!(set(&served).unwrap_err().errno, libc::EEXIST);
    // Refused, and killed before that was answered: the value is the same.
    let served = served.killed();
    serve_request(RESENT | 42);
    assert_eq!(set(&served).unwrap_err().errno, libc::EEXIST);
    serve_request(44);
    served.volume.removexattr(node, name).unwrap();
    let served = served.killed();
    serve_request(RESENT | 44);
    served.volume.removexattr(node, name).unwrap();
    serve_request(46);
    assert_eq!(served.volume.removexattr(node, name).unwrap_err().errno, libc::ENODATA);
    let served = served.killed();
    serve_request(RESENT | 46);
    assert_eq!(served.volume.removexattr(node, name).unwrap_err().errno, libc::ENODATA);
    serve_request(0);
}

/// A number may be another object's by the time when the kernel forgets the one that it had.
#[test]
fn what_the_kernel_has_of_an_older_object_counts_for_the_number() {
    let served = Served::new();
    let (node, handle) = served.create("file");
    served.volume.release(handle);
    let served = served.killed();
    served.volume.forget(node, 0);
    // Looked at through the mount again, it is one node, with all lookups.
    let meta = served.volume.lookup(NodeId::ROOT, OsStr::new("file")).unwrap();
    assert_eq!(meta.node, node);
    served.volume.forget(node, 1);
    assert!(served.volume.getattr(node, None).is_ok());
    served.volume.forget(node, 1);
    assert!(served.volume.getattr(node, None).is_err());
    assert_eq!(served.volume.known_objects(), 1, "the root");
}
