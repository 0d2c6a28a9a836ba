//! A hostile source against the real applier, with a canary tree beside the replica: whatever it
//! says, nothing outside changes, nothing that is not allowed appears, and an honest word after
//! it is still understood. `STANDIN_TEST_SEED` replays one seed.

mod generator;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::random::Random;
use crate::words::Allow;
use generator::{Words, number};

/// A replica with content, what others planted in it, and what must never change.
struct Yard {
    /// Taken away before the directory that the canary lies in.
    _mounted: [Bound; 2],
    pair: Pair,
    ids: Vec<ObjectId>,
    names: Vec<Vec<u8>>,
    outside: Vec<Vec<u8>>,
    item: u64,
    doubts: u64,
}

/// A bind mount that is gone with the value.
struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        // It may have been moved with a directory above it.
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let name = self.0.file_name().unwrap().to_string_lossy().into_owned();
        let top = self.0.ancestors().find(|path| path.join("canary").exists()).unwrap_or(&self.0);
        for at in table.lines().filter_map(|line| line.split(' ').nth(4)) {
            let at = Path::new(at);
            if at.starts_with(top) && at.ends_with(&name) {
                let _ = rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH);
            }
        }
    }
}

/// Everything that can be seen of an object; a change that was taken back shows in the ctime.
type Seen = BTreeMap<PathBuf, (tree::Described, u64, (i64, i64))>;

fn look(root: &Path) -> Seen {
    let entry = |(path, mut described): (PathBuf, tree::Described)| {
        let meta =
            fs::symlink_metadata(if path.as_os_str().is_empty() { root.into() } else { root.join(&path) });
        let meta = meta.unwrap();
        let mut changed = (meta.ctime(), meta.ctime_nsec());
        if path == Path::new("dir/file") {
            // Names of it that were planted in the replica may go there, nothing else.
            (described.links, changed) = (0, (0, 0));
        }
        (path, (described, meta.ino(), changed))
    };
    tree::describe(root).into_iter().map(entry).collect()
}

fn fill_canary(canary: &Path) {
    fs::create_dir_all(canary.join("dir/deep")).unwrap();
    for (name, mode) in [("file", 0o640), ("dir/file", 0o600), ("dir/deep/tool", 0o4755)] {
        fs::write(canary.join(name), format!("precious {name}")).unwrap();
        fs::set_permissions(canary.join(name), fs::Permissions::from_mode(mode)).unwrap();
        rustix::fs::setxattr(canary.join(name), "user.canary", b"sings", rustix::fs::XattrFlags::empty())
            .unwrap();
    }
    fs::hard_link(canary.join("file"), canary.join("linked")).unwrap();
    symlink("file", canary.join("symlink")).unwrap();
}

impl Yard {
    fn new() -> Yard {
        let mut pair = Pair::new();
        drop(pair.applier.take());
        let replica = Replica::open(&pair.places, SET).unwrap().allow(Allow::NOTHING);
        pair.applier = Some(Applier::new(replica));
        let mut ids = fill_replica(&mut pair);
        let canary = pair.temp.path().join("canary");
        fill_canary(&canary);
        // Somebody with rights on the target has been at work in the replica.
        fs::rename(pair.replica("gone dir"), canary.join("gone dir")).unwrap();
        fs::rename(pair.replica("gone file"), canary.join("gone file")).unwrap();
        fs::remove_dir(pair.replica("dir/sub")).unwrap();
        symlink(canary.join("dir"), pair.replica("dir/sub")).unwrap();
        fs::remove_file(pair.replica("dir/b")).unwrap();
        symlink(canary.join("file"), pair.replica("dir/b")).unwrap();
        fs::hard_link(canary.join("dir/file"), pair.replica("planted link")).unwrap();
        fs::remove_file(pair.replica("dir/c")).unwrap();
        fs::hard_link(canary.join("dir/file"), pair.replica("dir/c")).unwrap();
        let mounted = ["mounted", "deep/mounted"].map(|name| Bound(pair.replica(name)));
        mounted.iter().for_each(|at| rustix::mount::mount_bind(&canary, &at.0).unwrap());
        // Killed: no descriptor of before is left.
        drop(pair.applier.take());
        let replica = Replica::open(&pair.places, SET).unwrap().allow(Allow::NOTHING);
        pair.applier = Some(Applier::new(replica));
        for path in ["", "file", "dir", "dir/file", "gone dir"] {
            ids.push(Source { root: canary.clone() }.id(path));
        }
        ids.extend([ObjectId::default(), ObjectId { birth_epoch: 1, generation: 1, inode: 2 }]);
        let names =
            ["a", "b", "c", "dir", "sub", "mounted", "deep", "gone dir", "gone file", "planted link", "file"];
        let own = [".replica.standin", "resync", "orphans", "canary", "index"];
        let names = names.iter().chain(&own).map(|name| name.as_bytes().to_vec()).collect();
        let mut outside: Vec<Vec<u8>> = [
            &b"../canary/file"[..],
            b"/etc/hostname",
            b"dir/sub/file",
            b"mounted/file",
            b"",
            b".",
            b"..",
            b"a\0b",
        ]
        .iter()
        .map(|path| path.to_vec())
        .collect();
        outside.push(canary.join("gone file").as_os_str().as_bytes().to_vec());
        outside.push([b"../".repeat(1300), b"x".to_vec()].concat());
        Yard { pair, ids, names, outside, item: 0, doubts: 0, _mounted: mounted }
    }

    fn canary(&self) -> PathBuf {
        self.pair.temp.path().join("canary")
    }

    fn words<'a>(&'a self, random: &'a mut Random) -> Words<'a> {
        Words { random, ids: &self.ids, names: &self.names, outside: &self.outside }
    }

    /// One hostile packet; gives what was said about it, if it was not performed.
    fn packet(&mut self, random: &mut Random) -> Option<String> {
        let (op, payload, hint) = self.words(random).packet();
        let header = encode_packet_header(&hint, &op);
        let applied = self.pair.applier().replica().applied();
        let mut position = applied.next(HeaderDigest::of(&header, payload.len()));
        match random.below(12) {
            0 => position.sequence.0 = number(random),
            1 => position.epoch.number ^= 1,
            2 => position.epoch.writer ^= 1,
            3 => position.incarnation.0 ^= 1,
            4 => position.chain.0 ^= 1,
            _ => {}
        }
        self.performed(&packet_frame(&position, &header, payload.into()))
    }

    fn skip(&mut self, random: &mut Random) -> Option<String> {
        let mut last = self.pair.applier().replica().applied();
        let first = Sequence(number(random));
        last.sequence = Sequence(number(random));
        self.performed(&skip_frame(first, &last))
    }

    fn performed(&mut self, sent: &EncodedFrame) -> Option<String> {
        let frame = match over_the_wire(sent) {
            Ok(frame) => frame,
            Err(error) => return Some(error.to_string()),
        };
        self.handled(&frame)
    }

    fn handled(&mut self, frame: &Frame) -> Option<String> {
        let outcome = self.pair.applier().handle(frame);
        while let Some(TargetMessage::Doubt { directories }) = self.pair.applier().take_doubts() {
            assert!(directories.len() <= crate::limits::DOUBTS_MAX);
            self.doubts += 1;
        }
        match outcome {
            Outcome::Applied | Outcome::Answered(_) => None,
            Outcome::SetAside => Some("set aside".into()),
            Outcome::Retry(retry) => Some(retry.fault.to_string()),
            Outcome::Refused(error) => Some(error.to_string()),
        }
    }

    fn item(&mut self, random: &mut Random) -> Option<String> {
        let (item, payload) = self.words(random).item();
        let mut position = self.pair.applier().replica().applied();
        if random.one_in(10) {
            position.sequence.0 = number(random);
        }
        self.handle_item(position, item, payload)
    }

    fn handle_item(&mut self, position: Position, item: LaneItem, payload: Vec<u8>) -> Option<String> {
        self.item += 1;
        let header = ItemHeader { number: ItemNumber(self.item), item };
        let frame = match over_the_wire(&item_frame(&position, &header, payload.into())) {
            Ok(frame) => frame,
            Err(error) => return Some(error.to_string()),
        };
        self.handled(&frame)
    }

    /// What an honest source says after all that: the root again, then a new file with content.
    fn honest_word(&mut self, number: usize) {
        let root = self.pair.source.id("");
        let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::default() };
        let position =
            Position::origin(Epoch { number: 5, writer: number as u64 }, Incarnation(number as u64));
        for item in [LaneItem::Begin, LaneItem::Root { object: root, attributes, xattrs: Vec::new() }] {
            assert_eq!(self.handle_item(position, item, Vec::new()), None);
        }
        self.pair.applier().replica().adopt(position).unwrap();
        let name = format!("honest{number}");
        let object = ObjectId { birth_epoch: 9, generation: 9, inode: number as u64 };
        self.pair.say((
            Op::Create {
                at: Entry { dir: root, name: Name::new(name.as_bytes()).unwrap() },
                dir_mtime: Timestamp::default(),
                object,
                birth: Birth::File,
                attributes: Attributes { mode: 0o644, ..attributes },
                xattrs: Vec::new(),
            },
            Vec::new(),
        ));
        let result = ContentResult { size: 6, mtime: Timestamp::default(), mode: None };
        self.pair.say((Op::Write { object, offset: 0, result }, b"honest".to_vec()));
        assert_eq!(fs::read(self.pair.replica(&name)).unwrap(), b"honest");
    }

    /// Nothing in the replica that this target does not allow its source.
    fn check_allowed(&self) {
        check_below(&self.pair.places.root, &self.canary());
        check_below(&self.pair.places.limbo, &self.canary());
        let mut beside: Vec<_> =
            fs::read_dir(self.pair.temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        beside.sort();
        assert_eq!(beside, [".replica.standin", "canary", "replica", "source", "state"]);
    }
}

fn over_the_wire(frame: &EncodedFrame) -> Result<Frame, CodecError> {
    let raw: &[u8; PREFIX_LEN] = frame.head.first_chunk().unwrap();
    Prefix::decode(raw)?.frame(raw, &frame.head[PREFIX_LEN..], frame.payload.clone())
}

/// Objects of all kinds; gives their ids.
fn fill_replica(pair: &mut Pair) -> Vec<ObjectId> {
    let source = Source { root: pair.source.root.clone() };
    let said = [
        source.mkdir("dir", 0o755),
        source.mkdir("dir/sub", 0o755),
        source.mkdir("mounted", 0o755),
        source.mkdir("deep", 0o755),
        source.mkdir("deep/mounted", 0o755),
        source.mkdir("gone dir", 0o755),
        source.create("gone file", 0o644),
        source.create("a", 0o644),
        source.write("a", 0, b"content"),
        source.create("dir/b", 0o600),
        source.create("dir/c", 0o600),
        source.link("a", "dir/file"),
        source.symlink("symlink", "/etc"),
        source.mknod("fifo", Birth::Fifo),
    ];
    said.into_iter().for_each(|said| pair.say(said));
    let paths = [
        "",
        "dir",
        "dir/sub",
        "mounted",
        "deep",
        "deep/mounted",
        "gone dir",
        "gone file",
        "a",
        "dir/b",
        "dir/c",
        "symlink",
        "fifo",
    ];
    paths.iter().map(|path| source.id(path)).collect()
}

fn check_below(dir: &Path, canary: &Path) {
    let device = fs::symlink_metadata(dir).unwrap().dev();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        // What was planted is the canary's own; under a hidden mount point lies nothing.
        let planted = [canary.to_owned(), canary.join("dir/file")];
        if planted.iter().any(|path| fs::symlink_metadata(path).unwrap().ino() == meta.ino()) {
            continue;
        }
        assert_eq!(meta.dev(), device);
        let kind = meta.file_type();
        let is_whiteout = kind.is_char_device() && meta.rdev() == 0;
        assert!(!kind.is_block_device() && (!kind.is_char_device() || is_whiteout), "{path:?}");
        let bits = if kind.is_dir() { 0o4000 } else { 0o6000 };
        assert!(kind.is_symlink() || meta.mode() & bits == 0, "{path:?}: {:o}", meta.mode());
        for name in crate::xattr::list(tree::o_path(&path)).unwrap() {
            let forbidden = name.0.starts_with(b"security.") || name.0.starts_with(b"trusted.standin.");
            assert!(!forbidden || name.0 == b"trusted.standin.withheld", "{path:?}: {name:?}");
        }
        if kind.is_dir() {
            check_below(&path, canary);
        }
    }
}

#[track_caller]
fn assert_untouched(before: &Seen, after: &Seen, when: &str) {
    for (path, seen) in before {
        assert_eq!(after.get(path), Some(seen), "{when}: {path:?}");
    }
    assert_eq!(after.len(), before.len(), "{when}: something is new outside");
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("STANDIN_TEST_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (1..=count).collect(),
    }
}

#[test]
fn whatever_a_peer_says_nothing_outside_changes() {
    let (mut performed, mut refused) = (0, BTreeMap::<String, u64>::new());
    for seed in seeds(6) {
        eprintln!("seed {seed}");
        let mut yard = Yard::new();
        let before = look(&yard.canary());
        let mut random = Random::new(seed);
        for step in 0..600 {
            let said = match random.below(9) {
                0 => yard.skip(&mut random),
                1..=4 => yard.packet(&mut random),
                _ => yard.item(&mut random),
            };
            match said {
                None => performed += 1,
                Some(text) => {
                    assert!(!text.is_empty());
                    *refused.entry(text.split(':').next().unwrap_or_default().to_owned()).or_default() += 1;
                }
            }
            if step % 20 == 19 {
                assert_untouched(&before, &look(&yard.canary()), &format!("seed {seed}, step {step}"));
            }
            if step % 60 == 59 {
                yard.honest_word(step);
                yard.check_allowed();
            }
        }
        let _ = yard.pair.applier().set_pending_times();
        assert_untouched(&before, &look(&yard.canary()), &format!("seed {seed}"));
        yard.check_allowed();
    }
    // A peer that is never understood proves nothing.
    assert!(performed > 100 && refused.len() > 10, "{performed} performed, {refused:#?}");
}

fn listed(name: &str, object: ObjectId, birth: Birth) -> ListedObject {
    let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::default() };
    let name = Name::new(name.as_bytes()).unwrap();
    ListedObject {
        name,
        object,
        birth,
        attributes,
        xattrs: Vec::new(),
        large_xattrs: false,
        size: 0,
        links: 1,
        suspect: false,
    }
}

impl Yard {
    /// Items that must go through, or the first that does not.
    fn say_items(&mut self, items: Vec<LaneItem>) -> Result<(), String> {
        let at = Position::origin(Epoch { number: 6, writer: 6 }, Incarnation(6));
        items.into_iter().try_for_each(|item| self.handle_item(at, item, Vec::new()).map_or(Ok(()), Err))
    }
}

fn begin(root: ObjectId) -> Vec<LaneItem> {
    let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::default() };
    vec![LaneItem::Begin, LaneItem::Root { object: root, attributes, xattrs: Vec::new() }]
}

fn listing(dir: ObjectId, entries: Vec<ListedObject>) -> LaneItem {
    LaneItem::Listing {
        dir,
        dir_mtime: Timestamp::default(),
        entries,
        unlisted: None,
        first: true,
        last: true,
    }
}

/// What a source does not list goes to limbo with a mount below it, and at the end names of what
/// lives on elsewhere are dropped there: once also those below the mount.
#[test]
fn limbo_is_not_swept_through_a_mount() {
    let mut yard = Yard::new();
    drop(yard.pair.applier.take());
    rustix::mount::unmount(yard.pair.replica("mounted"), rustix::mount::UnmountFlags::DETACH).unwrap();
    yard.pair.crash();
    let before = look(&yard.canary());
    let root = yard.pair.source.id("");
    let items = [begin(root), vec![listing(root, Vec::new()), LaneItem::End]].concat();
    yard.say_items(items).unwrap();
    assert_eq!(fs::read_dir(&yard.pair.places.root).unwrap().count(), 0);
    assert_untouched(&before, &look(&yard.canary()), "after the sweep");
}

/// A second id of the root directory, listed into a directory that lies in limbo: once the
/// replica itself was moved there.
#[test]
fn the_root_is_no_object_of_a_directory() {
    let mut yard = Yard::new();
    drop(yard.pair.applier.take());
    for mounted in ["mounted", "deep/mounted"] {
        let flags = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(yard.pair.replica(mounted), flags).unwrap();
    }
    yard.pair.crash();
    let (root, second) = (yard.pair.source.id(""), ObjectId { birth_epoch: 7, generation: 7, inode: 7 });
    let dir = yard.pair.source.id("deep");
    yard.pair.applier().replica().bind_root(second).unwrap();
    // `deep` goes to limbo.
    yard.say_items([begin(root), vec![listing(root, Vec::new())]].concat()).unwrap();
    let into_limbo = || listing(dir, vec![listed("x", second, Birth::Directory)]);
    let refused = yard.say_items(vec![LaneItem::Begin, into_limbo()]).unwrap_err();
    assert!(refused.contains("before the root"), "{refused}");
    let shown = listing(root, vec![listed("deep", dir, Birth::Directory)]);
    let items = vec![shown, listing(root, Vec::new()), into_limbo()];
    let refused = yard.say_items([begin(root), items].concat()).unwrap_err();
    assert!(refused.contains("own directory"), "{refused}");
    assert!(yard.pair.places.root.is_dir());
}

/// Content of a hard-linked file outside was truncated and written when a copy took over its name.
#[test]
fn a_planted_hard_link_is_not_written_through() {
    let mut yard = Yard::new();
    let canary = yard.canary().join("dir/file");
    let content = fs::read(&canary).unwrap();
    let (root, fresh) = (yard.pair.source.id(""), ObjectId { birth_epoch: 7, generation: 7, inode: 8 });
    let entry = ListedObject { size: 3, ..listed("planted link", fresh, Birth::File) };
    let dir_mtime = Timestamp::default();
    let chunk = LaneItem::Listing {
        dir: root,
        dir_mtime,
        entries: vec![entry],
        unlisted: None,
        first: true,
        last: false,
    };
    let attributes = Attributes { mode: 0o644, uid: 5, gid: 5, mtime: dir_mtime };
    let close = LaneItem::CloseContent { object: fresh, hole: 3, size: 3, attributes, xattrs: Vec::new() };
    let items = [begin(root), vec![chunk, LaneItem::OpenContent { object: fresh }, close]].concat();
    yard.say_items(items).unwrap();
    assert_eq!(fs::read(&canary).unwrap(), content);
    assert_eq!(fs::read(yard.pair.replica("planted link")).unwrap(), [0; 3]);
}
