use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::data::{Origin, WriteRequest};
use super::error::FsResult;
use super::listing::Keeps;
use super::names::{AskedMode, At};
use super::*;
use crate::packet::{
    Epoch, FrameHeader, Incarnation, Keeping, Name, Op, PREFIX_LEN, Position, Prefix, packet_frame,
};
use crate::queue::Queue;
use crate::words::RESERVED_NAME;

mod fence;

const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1, request: 0 };
const ASKED: AskedMode = AskedMode { mode: 0o644, umask: 0o022 };

/// A volume over a temporary directory, and what it puts into the queue.
struct Captured {
    dir: tempfile::TempDir,
    volume: Arc<Volume>,
    queue: Arc<Queue>,
    start: Position,
}

impl Captured {
    fn new() -> Captured {
        let dir = tempfile::tempdir().unwrap();
        let start = Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3));
        let queue = Queue::new(1 << 27, start);
        queue.attach(|_| ());
        let volume = Arc::new(Volume::new(open(dir.path()), queue.clone(), 1).unwrap());
        Captured { dir, volume, queue, start }
    }

    /// With few descriptors.
    fn within(budget: crate::limits::Descriptors) -> Captured {
        let captured = Captured::new();
        let volume = Volume::within(open(captured.dir.path()), captured.queue.clone(), 1.into(), budget);
        Captured { volume: Arc::new(volume.unwrap()), ..captured }
    }

    /// The ops so far, decoded from their wire form, with path and payload.
    fn ops(&self) -> Vec<(String, Op, Vec<u8>)> {
        let packets = self.queue.next(self.start.sequence, usize::MAX);
        packets
            .into_iter()
            .map(|packet| {
                let frame = packet_frame(&packet.position, &packet.header, packet.payload.clone());
                let prefix: &[u8; PREFIX_LEN] = frame.head.first_chunk().unwrap();
                let decoded = Prefix::decode(prefix).unwrap();
                let frame = decoded.frame(prefix, &frame.head[PREFIX_LEN..], frame.payload).unwrap();
                let FrameHeader::Packet(header) = frame.header else { panic!("not a packet") };
                (String::from_utf8_lossy(&header.path.0).into_owned(), header.op, frame.payload.to_vec())
            })
            .collect()
    }

    fn create(&self, parent: NodeId, name: &str) -> (NodeId, u64) {
        let flags = libc::O_RDWR | libc::O_CREAT;
        let (meta, opened) = self.volume.create(ROOT, at(parent, name), ASKED, flags).unwrap();
        (meta.node, opened.handle)
    }

    fn write(&self, handle: u64, offset: u64, data: &[u8]) {
        let origin = Origin::Program;
        let request = WriteRequest { handle, offset, data, clear_privileges: false, origin };
        assert_eq!(self.volume.write(ROOT, request).map(|written| written.bytes), Ok(data.len()));
    }
}

fn open(path: &Path) -> OwnedFd {
    OwnedFd::from(std::fs::File::open(path).unwrap())
}

fn at(parent: NodeId, name: &str) -> At<'_> {
    At { parent, name: OsStr::new(name) }
}

/// The kernel's forgetting must give back the node, its descriptor and so the space of the file:
/// a leaked reference once kept removed files on a full disk for ever.
#[test]
fn a_forgotten_object_leaves_nothing_behind() {
    let captured = Captured::new();
    let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
    for number in 0..200 {
        let name = format!("f{number}");
        let (node, handle) = captured.create(NodeId::ROOT, &name);
        captured.volume.lookup(NodeId::ROOT, OsStr::new(&name)).unwrap();
        captured.volume.release(handle);
        captured.volume.unlink(at(NodeId::ROOT, &name)).unwrap();
        captured.volume.forget(node, 2);
    }
    assert_eq!(captured.volume.known_objects(), 1);
    // Other tests run beside this one: a leak would be 200.
    let after = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(after < before + 100, "{before} descriptors before, {after} after");
}

#[test]
fn ops_carry_results_in_the_order_of_their_effects() {
    let captured = Captured::new();
    let made =
        captured.volume.mkdir(ROOT, at(NodeId::ROOT, "d"), AskedMode { mode: 0o777, ..ASKED }).unwrap();
    let (node, handle) = captured.create(made.node, "f");
    captured.write(handle, 3, b"abc");
    captured.volume.link(node, at(NodeId::ROOT, "g")).unwrap();
    captured.volume.unlink(at(made.node, "f")).unwrap();
    let ops = captured.ops();
    let names: Vec<_> = ops.iter().map(|(path, op, _)| (path.as_str(), op.name())).collect();
    assert_eq!(
        names,
        [("d", "create"), ("d/f", "create"), ("d/f", "write"), ("g", "link"), ("d/f", "unlink")]
    );
    let Op::Create { attributes, .. } = &ops[0].1 else { panic!("not a creation") };
    assert_eq!(attributes.mode, 0o755, "the caller's umask was applied");
    let Op::Write { offset: 3, result, .. } = &ops[2].1 else { panic!("not a write") };
    assert_eq!((result.size, &ops[2].2[..]), (6, &b"abc"[..]));
    assert!(matches!(ops[3].1, Op::Link { links: 2, .. }));
    assert!(matches!(ops[4].1, Op::Unlink { links: 1, .. }));
}

/// It can never get a name again: its changes would only be work for the target.
#[test]
fn changes_of_a_nameless_file_are_not_sent() {
    let captured = Captured::new();
    let (node, handle) = captured.create(NodeId::ROOT, "f");
    captured.volume.unlink(at(NodeId::ROOT, "f")).unwrap();
    let before = captured.ops().len();
    captured.write(handle, 0, b"still there for its reader");
    let mut buffer = [0; 5];
    assert_eq!(captured.volume.read(handle, 0, &mut buffer), Ok(5));
    assert_eq!(&buffer, b"still");
    assert_eq!(captured.volume.getattr(node, None).unwrap().stat.st_size, 26);
    assert_eq!(captured.ops().len(), before);
}

/// A write to a full disk failed although the kernel was about to forget the file that had filled it.
/// One that a program holds open is not waited for: it may be open for days.
#[test]
fn space_is_expected_of_removed_files_that_nobody_has_open() {
    let captured = Captured::new();
    let departed = captured.volume.departed();
    let since = |departed| captured.volume.expects_space(FsError::new(libc::ENOSPC, "write"), departed);
    let full = || since(captured.volume.departed());
    let (node, handle) = captured.create(NodeId::ROOT, "f");
    assert!(!full(), "it has its name");
    captured.volume.unlink(at(NodeId::ROOT, "f")).unwrap();
    assert!(!full(), "a program has it open");
    captured.volume.release(handle);
    assert!(full());
    // Whoever still works on it holds its descriptors, or it is just being closed.
    let busy = captured.volume.node(node).unwrap();
    captured.volume.forget(node, 1);
    assert!(full());
    drop(busy);
    assert!(!full());
    assert!(since(departed), "a write that failed before it was gone has room now");
}

#[test]
fn a_directory_that_moves_takes_the_paths_below_with_it() {
    let captured = Captured::new();
    let dir = captured.volume.mkdir(ROOT, at(NodeId::ROOT, "old"), ASKED).unwrap().node;
    let (_, handle) = captured.create(dir, "f");
    captured.write(handle, 0, b"1");
    let flags = rustix::fs::RenameFlags::empty();
    captured.volume.rename(at(NodeId::ROOT, "old"), at(NodeId::ROOT, "new"), flags).unwrap();
    captured.write(handle, 0, b"2");
    let paths: Vec<_> = captured.ops().into_iter().map(|(path, _, _)| path).collect();
    assert_eq!(paths, ["old", "old/f", "old/f", "old", "new/f"]);
}

/// What can be mapped on a disk can be mapped here: only what just writes goes past the cache.
#[test]
fn open_modes_let_everything_be_mapped_that_reads() {
    let captured = Captured::new();
    let (node, handle) = captured.create(NodeId::ROOT, "f");
    captured.volume.release(handle);
    let open = |flags| captured.volume.open(node, flags).unwrap();
    let writer = open(libc::O_WRONLY);
    assert_eq!(writer.mode, OpenMode::Direct);
    for direct in [0, libc::O_DIRECT] {
        assert_eq!(open(libc::O_RDONLY | direct).mode, OpenMode::Cached);
        let mapper = open(libc::O_RDWR | direct);
        assert_eq!((mapper.mode, mapper.has_stale_pages), (OpenMode::Cached, true));
        assert_eq!(open(libc::O_WRONLY | direct).mode, OpenMode::Cached, "it may be mapped");
        assert!(!open(libc::O_RDWR).has_stale_pages, "a direct write since is mixed");
        captured.volume.release(mapper.handle);
        captured.volume.release(mapper.handle + 2);
    }
    captured.volume.release(writer.handle);
    assert!(!open(libc::O_RDWR).has_stale_pages);
}

/// A mapping once wrote a page back whole that it had read before a direct write to the other half
/// was done: the write was gone.
#[test]
fn a_stale_page_does_not_undo_a_direct_write() {
    let captured = Captured::new();
    let (node, handle) = captured.create(NodeId::ROOT, "f");
    captured.write(handle, 0, b"aabb");
    captured.volume.release(handle);
    let writer = captured.volume.open(node, libc::O_WRONLY).unwrap().handle;
    let mapper = captured.volume.open(node, libc::O_RDWR).unwrap().handle;
    let write = |handle, offset, data, origin| {
        let request = WriteRequest { handle, offset, data, clear_privileges: false, origin };
        captured.volume.write(ROOT, request).unwrap()
    };
    let written = write(writer, 0, b"xx", Origin::Program);
    let mixing = written.mixing.expect("somebody may have it mapped");
    write(mapper, 0, b"aacc", Origin::PageCache);
    let content = || std::fs::read(captured.dir.path().join("f")).unwrap();
    assert_eq!(content(), b"xxcc");
    assert_eq!(captured.ops().last().unwrap().2, b"xxcc", "the target gets what the disk got");
    // A page that was read since has the write; what the mapping puts over it counts.
    let mut page = [0; 4];
    captured.volume.read(mapper, 0, &mut page).unwrap();
    write(mapper, 0, b"aadd", Origin::PageCache);
    assert_eq!(content(), b"aadd");
    captured.volume.end_mixing(writer, mixing);
    assert_eq!(write(mapper, 0, b"zz", Origin::Program).mixing, None);
}

/// `stat` once told a size that the kernel did not know yet: a program that mapped so much was
/// killed by SIGBUS.
#[test]
fn a_size_is_told_when_its_writer_has_woken_up() {
    let captured = Captured::new();
    let (node, handle) = captured.create(NodeId::ROOT, "f");
    let (tell, told) = std::sync::mpsc::channel();
    let ask = |asker| {
        let tell = tell.clone();
        let asked = move |outcome: FsResult<Meta>| tell.send(outcome.unwrap().stat.st_size).unwrap();
        captured.volume.ask_attributes(node, asker, Box::new(asked))
    };
    captured.write(handle, 0, b"first");
    assert!(ask(99) && told.try_recv().is_err(), "told before its writer has woken up");
    // The kernel lets the next one write when the last has woken up.
    captured.write(handle, 5, b"second");
    assert_eq!(told.try_recv(), Ok(5));
    assert!(ask(99));
    // The writer itself has woken up when it asks.
    assert!(!ask(ROOT.pid));
    assert_eq!([told.try_recv(), told.try_recv()], [Ok(11), Ok(11)]);
    captured.write(handle, 11, b"third");
    assert!(ask(99));
    captured.volume.release(handle);
    assert_eq!(told.try_recv(), Ok(16));
    assert!(!ask(99));
    // A call that goes on for long, as to a disk that is slow: the kernel knows of none of it.
    let handle = captured.volume.open(node, libc::O_WRONLY).unwrap().handle;
    assert_eq!(told.try_recv(), Ok(16));
    captured.write(handle, 16, b"fourth");
    assert!(ask(99));
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert!(!ask(99));
    assert_eq!([told.try_recv(), told.try_recv()], [Ok(16), Ok(16)]);
}

/// Inode numbers of another device are others': a snapshot's file was once taken for the live one.
#[test]
fn what_lies_on_another_device_is_not_in_the_tree() {
    let start = Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3));
    let volume = Volume::new(open(Path::new("/")), Queue::new(1 << 27, start), 1).unwrap();
    let error = volume.lookup(NodeId::ROOT, OsStr::new("proc")).map(|meta| meta.node).unwrap_err();
    assert_eq!(error.errno, libc::ENOENT);
    let handle = volume.opendir(ROOT, NodeId::ROOT).unwrap().handle;
    let mut seen = 0;
    volume
        .readdir(handle, 0, |entry| {
            if entry.name == "proc" {
                assert!(volume.lookup_listed(handle, entry).unwrap().is_none());
                seen += 1;
            }
            true
        })
        .unwrap();
    assert_eq!((seen, volume.known_objects()), (1, 1));
}

/// The kernel was given lookups for the names of a listing that then failed, and never gave them
/// back: the daemon remembered those files for ever.
#[test]
fn a_listing_that_fails_half_way_keeps_what_it_has_given() {
    let captured = Captured::new();
    let path = captured.dir.path().join("d");
    std::fs::create_dir(&path).unwrap();
    (0..3000).for_each(|number| drop(std::fs::write(path.join(format!("file-{number}")), "")));
    let dir = captured.volume.lookup(NodeId::ROOT, OsStr::new("d")).unwrap().node;
    let handle = captured.volume.opendir(ROOT, dir).unwrap().handle;
    let (mut taken, mut next) = (0, 0);
    let outcome = captured.volume.readdir(handle, 0, |entry| {
        if taken == 0 {
            std::fs::remove_dir_all(&path).unwrap();
        }
        (taken, next) = (taken + 1, entry.next_offset);
        true
    });
    assert!(outcome.is_ok() && 0 < taken && taken < 3000, "{outcome:?} after {taken}");
    let after = captured.volume.readdir(handle, next, |_| true).map_err(|error| error.errno);
    assert_eq!(after, Err(libc::ENOENT), "the error comes with the next call");
}

#[test]
fn own_attributes_are_hidden() {
    let captured = Captured::new();
    let own = OsStr::new("trusted.standin.set");
    let root = std::fs::File::open(captured.dir.path()).unwrap();
    rustix::fs::fsetxattr(&root, own, b"x", rustix::fs::XattrFlags::empty()).unwrap();
    let volume = &captured.volume;
    assert_eq!(volume.listxattr(ROOT, NodeId::ROOT), Ok(vec![]));
    assert_eq!(volume.getxattr(NodeId::ROOT, own).unwrap_err().errno, libc::ENODATA);
    assert_eq!(volume.setxattr(ROOT, NodeId::ROOT, own, b"y", 0).unwrap_err().errno, libc::EPERM);
    volume.setxattr(ROOT, NodeId::ROOT, OsStr::new("user.a"), b"value", 0).unwrap();
    assert_eq!(volume.listxattr(ROOT, NodeId::ROOT), Ok(b"user.a\0".to_vec()));
    let (_, op, payload) = captured.ops().pop().unwrap();
    assert!(matches!(op, Op::SetXattr { mode: None, .. }));
    assert_eq!(payload, b"value");
}

/// As on a disk: copy programs of ordinary users failed at names without a value.
#[test]
fn what_only_administrators_read_is_shown_to_them_alone() {
    let captured = Captured::new();
    let volume = &captured.volume;
    for name in ["trusted.t", "user.a"] {
        volume.setxattr(ROOT, NodeId::ROOT, OsStr::new(name), b"value", 0).unwrap();
    }
    let names = |caller| {
        let listed = volume.listxattr(caller, NodeId::ROOT).unwrap();
        let mut names: Vec<_> = listed.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
        names.retain(|name| !name.is_empty());
        names.sort();
        names.concat()
    };
    let of_this = Caller { pid: std::process::id(), ..ROOT };
    let user = Caller { uid: 7, gid: 7, ..of_this };
    assert_eq!((names(of_this), names(user)), ("trusted.tuser.a".into(), "user.a".into()));
}

/// A fifo that appeared past the mount while a program created a file of its name: the thread that
/// served it waited for the other end for ever.
#[test]
fn a_fifo_is_never_opened() {
    let captured = Captured::new();
    let kind = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(open(captured.dir.path()), "f", kind, mode, 0).unwrap();
    let created = captured.volume.create(ROOT, at(NodeId::ROOT, "f"), ASKED, libc::O_WRONLY);
    assert_eq!(created.map(drop).unwrap_err().errno, libc::ESTALE);
    assert_eq!(captured.volume.known_objects(), 1);
    let fifo = captured.volume.lookup(NodeId::ROOT, OsStr::new("f")).unwrap().node;
    let changes = attributes::AskedAttributes { size: Some(0), ..Default::default() };
    assert_eq!(captured.volume.setattr(ROOT, fifo, None, changes).map(drop).unwrap_err().errno, libc::EINVAL);
}

/// A file whose other name was never looked up is the same node: one lock, one order.
#[test]
fn names_of_one_file_are_one_node() {
    let captured = Captured::new();
    std::fs::write(captured.dir.path().join("a"), "x").unwrap();
    std::fs::hard_link(captured.dir.path().join("a"), captured.dir.path().join("b")).unwrap();
    let a = captured.volume.lookup(NodeId::ROOT, OsStr::new("a")).unwrap();
    let b = captured.volume.lookup(NodeId::ROOT, OsStr::new("b")).unwrap();
    assert_eq!((a.node, a.generation), (b.node, b.generation));
    let flags = rustix::fs::RenameFlags::empty();
    captured.volume.rename(at(NodeId::ROOT, "a"), at(NodeId::ROOT, "b"), flags).unwrap();
    assert_eq!(captured.ops().len(), 0, "the kernel does nothing where both names are one file");
}

/// What the kernel may keep follows the directory on the disk, whoever changes it.
#[test]
fn a_listing_is_kept_until_the_directory_changes() {
    let captured = Captured::new();
    let path = captured.dir.path().join("d");
    std::fs::create_dir(&path).unwrap();
    let dir = captured.volume.lookup(NodeId::ROOT, OsStr::new("d")).unwrap().node;
    let opened = || captured.volume.opendir(ROOT, dir).unwrap().keeps;
    assert_eq!((opened(), opened(), opened()), (Keeps::FromNowOn, Keeps::All, Keeps::All));
    let settled = || std::thread::sleep(std::time::Duration::from_millis(30));
    settled();
    captured.create(dir, "through-the-mount");
    assert_eq!((opened(), opened()), (Keeps::FromNowOn, Keeps::All));
    settled();
    std::fs::write(path.join("past-the-mount"), "").unwrap();
    assert_eq!((opened(), opened()), (Keeps::FromNowOn, Keeps::All));
    let name = |number: u64| format!("{number:0>200}");
    let most = crate::limits::KEPT_LISTING_SIZE_MAX;
    (0..most / 10).for_each(|number| drop(std::fs::write(path.join(name(number)), "")));
    assert!(std::fs::metadata(&path).unwrap().len() > most, "a large directory");
    assert_eq!((opened(), opened()), (Keeps::Nothing, Keeps::Nothing));
}

#[test]
fn reading_a_directory_can_go_on_anywhere() {
    let captured = Captured::new();
    let names: Vec<String> = (0..1000).map(|number| format!("file-{number}")).collect();
    names.iter().for_each(|name| drop(std::fs::write(captured.dir.path().join(name), "")));
    let handle = captured.volume.opendir(ROOT, NodeId::ROOT).unwrap().handle;
    let (mut found, mut offset) = (Vec::new(), 0);
    loop {
        let mut taken = 0;
        let mut next = offset;
        captured
            .volume
            .readdir(handle, offset, |entry| {
                // The eighth entry does not fit and must come again.
                taken += 1;
                if taken < 8 {
                    next = entry.next_offset;
                    found.push(entry.name.to_string_lossy().into_owned());
                }
                taken < 8
            })
            .unwrap();
        if next == offset {
            break;
        }
        offset = next;
    }
    found.retain(|name| !name.starts_with('.'));
    found.sort();
    let mut expected = names;
    expected.sort();
    assert_eq!(found, expected);
}

/// What a call left that failed half-way was never sent. Here the file is changed behind the volume's
/// back instead, on both sides of the bounds of pieces: old data, new data, new holes, a new end.
#[test]
fn what_a_failed_call_left_is_sent() {
    use std::os::unix::fs::FileExt;
    let captured = Captured::new();
    let (node, handle) = captured.create(NodeId::ROOT, "f");
    captured.write(handle, 0, &vec![b'o'; 1 << 20]);
    captured.write(handle, 5 << 20, b"old end");
    let path = captured.dir.path().join("f");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(100 << 10).unwrap();
    file.write_all_at(&vec![b'n'; (2 << 20) + 7], 3 << 20).unwrap();
    file.set_len((6 << 20) + 3).unwrap();
    let before = captured.ops().len();
    captured.volume.send_again(&captured.volume.node(node).unwrap(), 0..u64::MAX);
    let mut copy = vec![b'o'; 1 << 20];
    copy.resize((6 << 20) + 3, 0);
    copy[5 << 20..][..7].copy_from_slice(b"old end");
    let mut sent = 0;
    for (_, op, payload) in &captured.ops()[before..] {
        match op {
            Op::Write { offset, .. } => copy[*offset as usize..][..payload.len()].copy_from_slice(payload),
            Op::Reserve { offset, length, how: crate::packet::Reserve::PunchHole, .. } => {
                copy[*offset as usize..][..*length as usize].fill(0);
            }
            other => panic!("{other:?}"),
        }
        sent += payload.len();
    }
    assert_eq!(std::fs::read(&path).unwrap(), copy);
    assert!(sent < 4 << 20, "holes stay holes: {sent} bytes were sent");
    assert_eq!(captured.volume.divergence().why(), None);
}

/// A write that failed for want of room had written some blocks of its range: the replica kept what
/// was there before.
#[test]
fn what_a_failed_write_left_is_sent() {
    use std::os::unix::fs::FileExt;
    let captured = Captured::new();
    let (_, handle) = captured.create(NodeId::ROOT, "f");
    let mut copy = vec![b'o'; 64 << 10];
    captured.write(handle, 0, &copy);
    let path = captured.dir.path().join("f");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    for block in [8 << 10, 11 << 10, 13 << 10] {
        file.write_all_at(&[b'n'; 1 << 10], block).unwrap();
    }
    let before = captured.ops().len();
    captured.volume.send_failed_write(handle, (8 << 10) + 5..(14 << 10) - 5);
    for (_, op, payload) in &captured.ops()[before..] {
        let Op::Write { offset, .. } = op else { panic!("{op:?}") };
        copy[*offset as usize..][..payload.len()].copy_from_slice(payload);
    }
    assert_eq!(std::fs::read(&path).unwrap(), copy);
    assert_eq!(captured.volume.divergence().why(), None);
}

/// A name that a failed call had changed is no answer to give quietly.
#[test]
fn a_name_that_is_not_as_it_was_is_a_divergence() {
    for (before, now, diverges) in
        [(None, false, false), (None, true, true), (Some(()), true, false), (Some(()), false, true)]
    {
        let captured = Captured::new();
        let (node, _) = captured.create(NodeId::ROOT, "f");
        let stat = captured.volume.getattr(node, None).unwrap().stat;
        if !now {
            std::fs::remove_file(captured.dir.path().join("f")).unwrap();
        }
        let before = before.map(|()| &stat);
        captured.volume.name_must_hold(open(captured.dir.path()), OsStr::new("f"), before);
        assert_eq!(captured.volume.divergence().why().is_some(), diverges, "{before:?} {now}");
    }
}

/// The second of two changes in one call failed, and the first was made: both sides have it.
#[test]
fn attributes_that_were_set_before_a_failure_are_sent() {
    let captured = Captured::new();
    let dir = captured.volume.mkdir(ROOT, at(NodeId::ROOT, "d"), ASKED).unwrap().node;
    // A directory has no size: what comes before in the order is done by then.
    let changes =
        attributes::AskedAttributes { mode: Some(0o711), uid: Some(7), size: Some(1), ..Default::default() };
    assert!(captured.volume.setattr(ROOT, dir, None, changes).is_err());
    let (_, op, _) = captured.ops().pop().unwrap();
    let Op::SetAttributes { mode, owner, mtime, .. } = op else { panic!("{op:?}") };
    assert_eq!((mode, owner.map(|owner| owner.uid)), (Some(0o711), Some(7)));
    assert!(mtime.is_some());
}

fn descriptors_on(path: &Path) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    links.filter(|link| std::fs::read_link(link.as_ref().unwrap().path()).is_ok_and(|to| to == path)).count()
}

/// Each open file of each program took a descriptor of the daemon: a user who opened many took them
/// from everybody, the daemon included.
#[test]
fn open_files_take_few_descriptors() {
    let captured = Captured::new();
    let (node, first) = captured.create(NodeId::ROOT, "f");
    let handles: Vec<u64> =
        (0..500).map(|_| captured.volume.open(node, libc::O_RDWR).unwrap().handle).collect();
    let path = captured.dir.path().join("f");
    assert!(descriptors_on(&path) <= 2, "one for the mode, one for the object");
    handles.iter().for_each(|handle| captured.volume.release(*handle));
    captured.write(first, 0, b"still open");
    captured.volume.release(first);
    captured.volume.unlink(at(NodeId::ROOT, "f")).unwrap();
    captured.volume.forget(node, 1);
    let removed = format!("{} (deleted)", path.display());
    assert_eq!(descriptors_on(Path::new(&removed)), 0, "its space comes back with its last handle");
}

/// What was evicted is opened again: also a file that has lost its name, and one without permissions.
#[test]
fn evicted_descriptors_come_back() {
    let few = crate::limits::Descriptors { paths: 4, files: 4, directories: 100, nameless: 100 };
    let captured = Captured::within(few);
    let files: Vec<(NodeId, u64)> =
        (0..40).map(|number| captured.create(NodeId::ROOT, &format!("f{number}"))).collect();
    captured.volume.unlink(at(NodeId::ROOT, "f7")).unwrap();
    let changes = attributes::AskedAttributes { mode: Some(0), ..Default::default() };
    captured.volume.setattr(ROOT, files[8].0, None, changes).unwrap();
    for round in 0..3u8 {
        for (number, (_, handle)) in files.iter().enumerate() {
            captured.write(*handle, u64::from(round), &[number as u8 + round]);
        }
    }
    for (number, (_, handle)) in files.iter().enumerate() {
        let mut read = [0; 4];
        assert_eq!(captured.volume.read(*handle, 0, &mut read), Ok(3));
        assert_eq!(read[..3], [0, 1, 2].map(|round| number as u8 + round));
    }
    let open = (0..40).filter(|number| descriptors_on(&captured.dir.path().join(format!("f{number}"))) > 0);
    assert!(open.count() <= 4 + 4);
}

/// What needs a descriptor for as long as it lives has a share for each user.
#[test]
fn one_user_does_not_take_what_needs_descriptors() {
    let few = crate::limits::Descriptors { paths: 4, files: 4, directories: 8, nameless: 8 };
    let captured = Captured::within(few);
    let user = Caller { uid: 7, gid: 7, pid: 1, request: 0 };
    let open = |caller: Caller| captured.volume.opendir(caller, NodeId::ROOT).map_err(|error| error.errno);
    let taken: Vec<_> = (0..2).map(|_| open(user).unwrap()).collect();
    assert_eq!(open(user), Err(libc::ENFILE));
    assert!(open(ROOT).is_ok());
    taken.into_iter().for_each(|opened| captured.volume.releasedir(opened.handle));
    assert!(open(user).is_ok());
    let lose = |name: &str, uid: u32| {
        let (node, handle) = captured.create(NodeId::ROOT, name);
        crate::sys::act_as(crate::sys::Identity { uid, gid: uid }).unwrap();
        let lost = captured.volume.unlink(at(NodeId::ROOT, name)).map_err(|error| error.errno);
        crate::sys::act_as(crate::sys::Identity::ROOT).unwrap();
        (lost, node, handle)
    };
    let kept = [lose("a", 7), lose("b", 7)];
    assert!(kept.iter().all(|(lost, ..)| lost.is_ok()));
    assert_eq!(lose("c", 7).0, Err(libc::ENFILE));
    assert!(captured.dir.path().join("c").exists());
    assert!(lose("d", 0).0.is_ok());
    for (_, node, handle) in kept {
        captured.volume.release(handle);
        captured.volume.forget(node, 1);
    }
    assert!(lose("e", 7).0.is_ok());
}

/// What targets keep is told as kept; a directory goes with what was in it, or stays with it.
#[test]
fn what_targets_keep_is_told() {
    let aside = || Keeping::Aside { into: Name::new(b"trash").unwrap(), days: 30 };
    for keeping in [Keeping::InPlace, aside()] {
        let captured = Captured::new();
        captured.volume.keep_removed(Some(keeping.clone()));
        let dir = captured.volume.mkdir(ROOT, at(NodeId::ROOT, "dir"), ASKED).unwrap().node;
        captured.create(dir, "file");
        captured.volume.unlink(at(dir, "file")).unwrap();
        captured.volume.rmdir(at(NodeId::ROOT, "dir")).unwrap();
        captured.create(NodeId::ROOT, "other");
        captured.volume.keep_removed(None);
        captured.volume.unlink(at(NodeId::ROOT, "other")).unwrap();
        let ops = captured.ops();
        assert!(matches!(&ops[2].1, Op::Keep { keeping: told, links: 0, .. } if *told == keeping));
        match keeping {
            Keeping::InPlace => assert!(matches!(ops[3].1, Op::Keep { links: 0, .. })),
            Keeping::Aside { .. } => assert!(matches!(ops[3].1, Op::RemoveDirectory { .. })),
        }
        assert!(matches!(ops[5].1, Op::Unlink { .. }));
    }
}

/// Packets told of what lay below it, which no copy brings: a target that met them was bad from then on.
#[test]
fn the_place_of_what_was_moved_aside_is_not_captured() {
    let captured = Captured::new();
    let limbo = captured.dir.path().join(RESERVED_NAME);
    std::fs::create_dir(&limbo).unwrap();
    std::fs::write(limbo.join("orphan"), "x").unwrap();
    let (volume, reserved) = (&captured.volume, at(NodeId::ROOT, RESERVED_NAME));
    captured.create(NodeId::ROOT, "file");
    let errno = |done: FsResult<()>| done.map_err(|error| error.errno);
    assert_eq!(errno(volume.lookup(reserved.parent, reserved.name).map(drop)), Err(libc::ENOENT));
    let flags = rustix::fs::RenameFlags::empty();
    for done in [
        volume.mkdir(ROOT, reserved, ASKED).map(drop),
        volume.create(ROOT, reserved, ASKED, libc::O_RDWR).map(drop),
        volume.rmdir(reserved),
        volume.rename(at(NodeId::ROOT, "file"), reserved, flags),
        volume.rename(reserved, at(NodeId::ROOT, "limbo"), flags),
    ] {
        assert_eq!(errno(done), Err(libc::EPERM));
    }
    let handle = volume.opendir(ROOT, NodeId::ROOT).unwrap().handle;
    let mut names = Vec::new();
    let take = |entry: &super::listing::Listed| {
        names.push(entry.name.clone());
        true
    };
    volume.readdir(handle, 0, take).unwrap();
    names.sort();
    assert_eq!(names, [".", "..", "file"]);
    // Elsewhere it is a name as any other.
    let dir = volume.mkdir(ROOT, at(NodeId::ROOT, "dir"), ASKED).unwrap().node;
    volume.mkdir(ROOT, at(dir, RESERVED_NAME), ASKED).unwrap();
    assert_eq!(captured.ops().len(), 3);
    assert_eq!(volume.divergence().why(), None);
}
