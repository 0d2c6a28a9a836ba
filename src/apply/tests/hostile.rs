//! What others do inside the replica, and what a source could say: nothing leads out of the
//! root, nothing is removed blindly.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use super::*;
use crate::sys::FileHandle;

#[test]
fn a_planted_symlink_is_neither_followed_nor_removed() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    let victim = pair.temp.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, pair.replica("f")).unwrap();
    let create = source.create("f", 0o666);
    assert!(pair.fails(&create).contains("already there"));
    // Again, in doubt this time: what is there was not left by this creation.
    assert!(pair.fails(&create).contains("already there"));
    assert!(pair.replica("f").is_symlink());
    fs::remove_file(pair.replica("f")).unwrap();
    pair.say(create);
    pair.say(source.write("f", 0, b"content"));

    fs::rename(pair.replica("f"), pair.temp.path().join("taken")).unwrap();
    symlink(&victim, pair.replica("f")).unwrap();
    pair.say(source.write("f", 3, b"more"));
    pair.say(source.chmod("f", 0o600));
    pair.applier().set_pending_times().unwrap();
    let unlink = source.unlink("f");
    assert!(pair.fails(&unlink).contains("somebody else"));
    assert!(pair.replica("f").is_symlink());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    fs::rename(pair.temp.path().join("taken"), pair.replica("f")).unwrap();
    pair.say(unlink);
    pair.assert_same();
}

#[test]
fn a_planted_parent_symlink_is_not_followed() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    let outside = pair.temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    pair.say(source.mkdir("dir", 0o755));
    fs::rename(pair.replica("dir"), pair.replica("elsewhere")).unwrap();
    symlink(&outside, pair.replica("dir")).unwrap();
    pair.say(source.create("dir/f", 0o644));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(pair.replica("elsewhere/f").exists());
    let rename = source.rename("dir", "new");
    assert!(pair.fails(&rename).contains("somebody else"));
    fs::remove_file(pair.replica("dir")).unwrap();
    fs::rename(pair.replica("elsewhere"), pair.replica("dir")).unwrap();
    pair.say(rename);
    pair.assert_same();
}

#[test]
fn a_directory_moved_out_is_left_alone_until_it_is_back() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    let outside = pair.temp.path().join("outside");
    pair.say(source.mkdir("dir", 0o755));
    pair.say(source.create("dir/a", 0o644));
    fs::rename(pair.replica("dir"), &outside).unwrap();
    let create = source.create("dir/f", 0o644);
    assert!(pair.fails(&create).contains("moved out of the replica"));
    pair.crash();
    assert!(pair.fails(&create).contains("moved out of the replica"));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    // A name that only begins like the root is outside too.
    let beside = pair.places.root.with_file_name("replica2");
    fs::rename(&outside, &beside).unwrap();
    assert!(pair.fails(&create).contains("moved out of the replica"));
    fs::rename(&beside, pair.replica("dir")).unwrap();
    pair.say(create);
    pair.assert_same();
}

/// Once a file was written through its handle wherever it had been moved.
#[test]
fn a_file_moved_out_is_left_alone_until_it_is_back() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.mkdir("dir", 0o755));
    for file in ["dir/f", "dir/g", "dir/h"] {
        pair.say(source.create(file, 0o644));
    }
    pair.applier().set_pending_times().unwrap();
    let outside = pair.temp.path().join("outside");
    fs::rename(pair.replica("dir/f"), &outside).unwrap();
    for said in [source.write("dir/f", 0, b"bytes"), source.chmod("dir/f", 0o600), source.link("dir/f", "l")]
    {
        pair.crash();
        let before = fs::read(&outside).unwrap();
        assert!(pair.fails(&said).contains("moved out of the replica"), "{:?}", said.0);
        assert_eq!(fs::read(&outside).unwrap(), before);
        fs::rename(&outside, pair.replica("dir/f")).unwrap();
        pair.say(said);
        pair.applier().set_pending_times().unwrap();
        fs::rename(pair.replica("dir/f"), &outside).unwrap();
    }
    fs::rename(&outside, pair.replica("dir/f")).unwrap();
    // Sets the time of the directory, which all this has changed.
    pair.say(source.create("dir/last", 0o644));
    pair.assert_same();
}

/// The name that a reader has a file open by is remembered when it is gone, and no name any more.
#[test]
fn a_name_that_is_gone_is_no_name() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("f", 0o644));
    pair.crash();
    let _reader = fs::File::open(pair.replica("f")).unwrap();
    let outside = pair.temp.path().join("outside");
    fs::hard_link(pair.replica("f"), &outside).unwrap();
    fs::remove_file(pair.replica("f")).unwrap();
    let chmod = source.chmod("f", 0o640);
    assert!(pair.fails(&chmod).contains("moved out of the replica"));
    fs::rename(&outside, pair.replica("f")).unwrap();
    pair.say(chmod);
    pair.say(source.create("g", 0o644));
    pair.assert_same();
}

/// Hard-linked snapshots of a replica are a usual thing: one name inside is enough, whichever of
/// its names the kernel remembers, and wherever it lies.
#[test]
fn a_file_with_another_name_outside_is_still_the_replicas() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.mkdir("dir", 0o755));
    pair.say(source.create("dir/f", 0o644));
    let outside = pair.temp.path().join("outside");
    fs::hard_link(pair.replica("dir/f"), &outside).unwrap();
    for (hint, bytes) in [(&b""[..], b"one"), (b"dir/f", b"two"), (b"../outside", b"six")] {
        pair.crash();
        fs::metadata(&outside).unwrap();
        let said = source.write("dir/f", 0, bytes);
        let header = encode_packet_header(hint, &said.0);
        let digest = HeaderDigest::of(&header, said.1.len());
        let packet = PacketHeader { path: Bounded(hint.to_vec()), op: said.0, to_whom: ToWhom::AllOf };
        let position = pair.applier().replica().applied().next(digest);
        let header = FrameHeader::Packet(packet);
        let frame = Frame::new(position, digest, header, said.1.into());
        let outcome = pair.applier().handle(&frame);
        assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
        assert_eq!(fs::read(pair.replica("dir/f")).unwrap(), bytes);
    }
    fs::remove_file(outside).unwrap();
    pair.assert_same();
}

/// Where the kernel remembers no name: the source's path, believed only where it holds the very
/// object, then a search that enters no mount.
#[test]
fn a_name_is_found_by_path_and_by_search() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    for dir in ["dir", "dir/deep", "mounted"] {
        pair.say(source.mkdir(dir, 0o755));
    }
    pair.say(source.create("dir/deep/f", 0o644));
    pair.say(source.create("g", 0o644));
    let outside = pair.temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("x"), "precious").unwrap();
    symlink(&outside, pair.replica("way out")).unwrap();
    rustix::mount::mount_bind(&outside, pair.replica("mounted")).unwrap();
    let _mounted = Mounted(pair.replica("mounted"));
    let known = |path: &Path| {
        let file = tree::o_path(path);
        (FileHandle::of(file.as_fd()).unwrap(), inode::stat(&file).unwrap())
    };
    let (f, x) = (known(&pair.replica("dir/deep/f")), known(&outside.join("x")));
    let limbo = known(&pair.places.limbo);
    let replica = pair.applier().replica();
    for (hint, is_there) in [
        (&b"dir/deep/f"[..], true),
        (b"./dir/../dir/deep/f", true),
        (b"g", false),
        (b"", false),
        (b"/dir/deep/f", false),
        (b"dir\0", false),
    ] {
        replica.set_hint(hint);
        assert_eq!(replica.holds_at_hint(&f.0), is_there, "{hint:?}");
    }
    for hint in [&b"mounted/x"[..], b"way out/x", b"../outside/x"] {
        replica.set_hint(hint);
        assert!(!replica.holds_at_hint(&x.0), "{hint:?}");
    }
    assert!(replica.search(&f.0, &f.1).unwrap().is_some());
    assert!(replica.search(&x.0, &x.1).unwrap().is_none(), "it was found through the mount");
    assert!(replica.search(&limbo.0, &limbo.1).unwrap().is_none());
}

#[test]
fn a_mount_inside_the_replica_is_never_entered() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.mkdir("dir", 0o755));
    let mounted = Mounted::tmpfs(&pair.replica("dir"), "1m");
    pair.say(source.create("dir/f", 0o644));
    assert_eq!(fs::read_dir(pair.replica("dir")).unwrap().count(), 0);
    let rename = source.rename("dir", "new");
    pair.fails(&rename);
    drop(mounted);
    pair.say(rename);
    pair.assert_same();
}

#[test]
fn orders_to_the_kernel_and_to_the_product_are_refused() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("f", 0o644));
    let object = source.id("f");
    let result =
        |nanoseconds| ContentResult { size: 1, mtime: Timestamp { seconds: 0, nanoseconds }, mode: None };
    let owner = Some(Owner { uid: u32::MAX, gid: 0 });
    let name = Bounded(IDENTITY_XATTR.into());
    let how = Reserve::Allocate;
    for op in [
        Op::SetAttributes { object, mode: None, owner, mtime: None },
        Op::Write { object, offset: 0, result: result(0x3fff_fffe) },
        Op::Reserve { object, offset: u64::MAX, length: 2, how, result: result(0) },
        Op::Reserve { object, offset: 0, length: 0, how, result: result(0) },
        Op::SetXattr { object: source.id(""), name: name.clone(), mode: None },
        Op::RemoveXattr { object: source.id(""), name, mode: None },
    ] {
        assert!(pair.fails(&(op, Vec::new())).starts_with("refused"));
    }
    for op in [
        Op::Write { object, offset: u64::MAX - 3, result: result(0) },
        Op::Resize { object, result: ContentResult { size: u64::MAX, ..result(0) } },
        Op::Write { object: source.id(""), offset: 0, result: result(0) },
        Op::Resize { object: ObjectId::default(), result: result(0) },
    ] {
        pair.fails(&(op, vec![1]));
    }
    pair.assert_same();
}

#[test]
fn frames_out_of_order_change_nothing() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("f", 0o644));
    let applied = pair.applier().replica().applied();
    let write = |byte: u8| -> Said {
        let mtime = Timestamp::default();
        (
            Op::Write {
                object: source.id("f"),
                offset: 0,
                result: ContentResult { size: 1, mtime, mode: None },
            },
            vec![byte],
        )
    };
    let refused = |pair: &mut Pair, frame: &Frame| match pair.applier().handle(frame) {
        Outcome::Refused(Refusal::Order(error)) => error,
        other => panic!("{other:?}"),
    };
    let good = frame_after(&applied, &write(1));
    let gap = frame_after(&good.position, &write(2));
    assert!(matches!(refused(&mut pair, &gap), OrderError::Gap { .. }));
    let mut other = good.clone();
    other.position.incarnation = Incarnation(99);
    assert!(matches!(refused(&mut pair, &other), OrderError::OtherHistory { .. }));
    let mut split = good.clone();
    split.position.chain.0 ^= 1;
    assert!(matches!(refused(&mut pair, &split), OrderError::Chain { .. }));
    let mut header = good.clone();
    header.digest = HeaderDigest(1);
    assert!(matches!(refused(&mut pair, &header), OrderError::Chain { .. }));
    let skip = |first: u64, last: u64| {
        let header = FrameHeader::Skip(SkipHeader { first: Sequence(first) });
        let position = Position { sequence: Sequence(last), chain: Chain(77), ..applied };
        Frame::new(position, HeaderDigest(0), header, Bytes::new())
    };
    assert!(matches!(refused(&mut pair, &skip(3, 5)), OrderError::Gap { .. }));
    assert!(matches!(refused(&mut pair, &skip(2, 1)), OrderError::AlreadyApplied { .. }));
    assert!(matches!(refused(&mut pair, &skip(2, u64::MAX)), OrderError::Gap { .. }));
    assert_eq!(pair.applier().replica().applied(), applied);
    assert_eq!(fs::read(pair.replica("f")).unwrap(), b"");

    assert!(matches!(pair.applier().handle(&good), Outcome::Applied));
    assert!(matches!(refused(&mut pair, &good), OrderError::AlreadyApplied { .. }));
    assert!(matches!(pair.applier().handle(&skip(3, 9)), Outcome::Applied));
    assert_eq!(pair.applier().replica().applied(), skip(3, 9).position);
}
