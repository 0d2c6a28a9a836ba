//! The set is written elsewhere: nothing is changed here, and nothing is told.

use rustix::fs::RenameFlags;

use super::*;
use crate::intercept::attributes::AskedAttributes;

fn fenced(captured: &Captured) {
    let told_by = "standin://target.example.org:7447/web".to_owned();
    let epoch = Epoch { number: 2, writer: 9 };
    assert!(captured.volume.fence().raise(Fenced { epoch, told_by: told_by.clone() }));
    assert!(!captured.volume.fence().raise(Fenced { epoch, told_by }), "once");
    captured.queue.let_all_in();
}

#[test]
fn no_change_is_made_once_the_set_is_written_elsewhere() {
    let captured = Captured::new();
    let volume = &captured.volume;
    let (file, handle) = captured.create(NodeId::ROOT, "f");
    captured.write(handle, 0, b"before");
    let dir = volume.mkdir(ROOT, at(NodeId::ROOT, "d"), ASKED).unwrap().node;
    let before = captured.ops().len();
    fenced(&captured);
    let root = |name| at(NodeId::ROOT, name);
    let (data, origin) = (b"after", Origin::Program);
    let write = WriteRequest { handle, offset: 2, data, clear_privileges: false, origin };
    let asked = AskedAttributes { mode: Some(0o600), ..AskedAttributes::default() };
    let size = AskedAttributes { size: Some(1), ..AskedAttributes::default() };
    let name = OsStr::new("user.x");
    for (what, outcome) in [
        ("write", volume.write(ROOT, write).map(drop)),
        ("write-back", volume.write(ROOT, WriteRequest { origin: Origin::PageCache, ..write }).map(drop)),
        ("chmod", volume.setattr(ROOT, file, None, asked).map(drop)),
        ("truncate", volume.setattr(ROOT, file, Some(handle), size).map(drop)),
        ("fallocate", volume.fallocate(ROOT, handle, 0, 100, 0).map(drop)),
        ("create", volume.create(ROOT, root("new"), ASKED, libc::O_RDWR | libc::O_CREAT).map(drop)),
        ("mkdir", volume.mkdir(ROOT, root("new"), ASKED).map(drop)),
        (
            "mknod",
            volume.mknod(ROOT, root("new"), AskedMode { mode: libc::S_IFIFO, umask: 0 }, (0, 0)).map(drop),
        ),
        ("symlink", volume.symlink(ROOT, root("new"), Path::new("f")).map(drop)),
        ("link", volume.link(file, root("new")).map(drop)),
        ("rename", volume.rename(root("f"), root("g"), RenameFlags::empty())),
        ("rename of a directory", volume.rename(root("d"), root("e"), RenameFlags::empty())),
        ("unlink", volume.unlink(root("f"))),
        ("rmdir", volume.rmdir(root("d"))),
        ("setxattr", volume.setxattr(ROOT, file, name, b"1", 0)),
        ("open to write", volume.open(file, libc::O_WRONLY).map(drop)),
    ] {
        assert_eq!(outcome.map_err(|error| error.errno), Err(libc::EROFS), "{what}");
    }
    let mut read = [0; 6];
    assert_eq!(volume.read(handle, 0, &mut read), Ok(6));
    assert_eq!(&read, b"before");
    assert!(volume.open(file, libc::O_RDONLY).is_ok() && volume.getattr(dir, None).is_ok());
    let names: Vec<_> =
        std::fs::read_dir(captured.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(captured.ops().len(), before, "nothing is told");
    assert_eq!(captured.volume.divergence().why(), None);
}

/// It waited for a target that takes nothing any more, with no end.
#[test]
fn a_writer_that_waits_for_room_is_refused() {
    let captured = Captured::new();
    let queue = Queue::new(1 << 16, captured.start);
    let held = queue.reserve(0, 1 << 17).unwrap();
    let volume = Volume::new(open(captured.dir.path()), queue.clone(), 1).unwrap();
    let captured = Captured { queue, volume: Arc::new(volume), ..captured };
    let volume = captured.volume.clone();
    let waiting = std::thread::spawn(move || volume.mkdir(ROOT, at(NodeId::ROOT, "d"), ASKED).map(drop));
    while captured.queue.stats().writers_waiting == 0 {
        assert!(!waiting.is_finished(), "it found room");
        std::thread::yield_now();
    }
    fenced(&captured);
    assert_eq!(waiting.join().unwrap().map_err(|error| error.errno), Err(libc::EROFS));
    assert!(captured.queue.has_room(1 << 20), "nobody waits any more");
    drop(held);
}
