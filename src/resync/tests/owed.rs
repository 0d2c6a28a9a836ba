//! Copies of what is owed: what has changed is looked up in the tree itself, as it was and as it is.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::random::change;
use super::*;
use crate::packet::{Attributes, BadBy, ObjectId, Xattr};
use crate::random::Random;
use crate::sys::FileHandle;

const BLOCK: usize = 4096;

/// An object of the source.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Known {
    handle: FileHandle,
    is_directory: bool,
    names: BTreeMap<Vec<u8>, ObjectId>,
    attributes: Attributes,
    xattrs: Vec<Xattr>,
    content: Option<Vec<u8>>,
    data: Vec<(u64, u64)>,
}

impl Known {
    /// Whether something of a block is more than a hole.
    fn has_data(&self, block: &Range<usize>) -> bool {
        self.data.iter().any(|(start, end)| *start < block.end as u64 && (block.start as u64) < *end)
    }
}

pub(super) fn known(root: &Path) -> BTreeMap<ObjectId, Known> {
    let mut known: BTreeMap<ObjectId, Known> = BTreeMap::new();
    let mut by_path: BTreeMap<Vec<u8>, ObjectId> = BTreeMap::new();
    for (path, node) in tree::nodes(root) {
        let full = root.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&path));
        let fd = rustix::fs::open(
            &full,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW,
            rustix::fs::Mode::empty(),
        );
        let fd = fd.unwrap();
        let handle = FileHandle::of(fd.as_fd()).unwrap();
        let id = ObjectId::at_first_sight(3, &handle, look::stat(fd.as_fd()).unwrap().stx_ino);
        by_path.insert(path.clone(), id);
        if let Some(at) = path.iter().rposition(|byte| *byte == b'/')
            && let Some(dir) = by_path.get(&path[..at]).and_then(|dir| known.get_mut(dir))
        {
            dir.names.insert(path[at + 1..].to_vec(), id);
        }
        let is_directory = node.birth == crate::packet::Birth::Directory;
        let (attributes, xattrs, content, data) = (node.attributes, node.xattrs, node.content, node.data);
        let one = Known { handle, is_directory, names: BTreeMap::new(), attributes, xattrs, content, data };
        known.entry(id).or_insert(one);
    }
    known
}

/// What has changed; what is gone by now, too.
pub(super) fn owed(before: &BTreeMap<ObjectId, Known>, now: &BTreeMap<ObjectId, Known>) -> Arc<Owed> {
    let all = now.iter().chain(before.iter().filter(|(id, _)| !now.contains_key(id)));
    let changed = all.filter(|(id, one)| before.get(id) != Some(one) || !now.contains_key(id));
    let objects = changed.map(|(&id, one)| {
        let old = before.get(&id).filter(|_| now.contains_key(&id));
        OwedObject {
            id,
            handle: one.handle,
            names: one.is_directory && old.is_none_or(|old| old.names != one.names),
            content: match (&one.content, old) {
                (None, _) => OwedContent::No,
                (Some(_), None) => OwedContent::From(0, Vec::new()),
                (Some(_), Some(old)) => changed_content(old, one),
            },
        }
    });
    Arc::new(Owed { objects: objects.collect() })
}

/// What has changed since any of these states: each of them may be in the replica.
fn owed_since(states: &[BTreeMap<ObjectId, Known>], now: &BTreeMap<ObjectId, Known>) -> Arc<Owed> {
    let all = states.iter().map(|state| (*owed(state, now)).clone());
    Arc::new(all.fold(Owed::default(), Owed::and))
}

fn changed_content(before: &Known, now: &Known) -> OwedContent {
    let bytes = |known: &Known| known.content.clone().unwrap_or_default();
    let (old, new) = (bytes(before), bytes(now));
    let least = old.len().min(new.len());
    let blocks = (0..least).step_by(BLOCK).map(|at| at..least.min(at + BLOCK));
    let differs = |block: &Range<usize>| {
        old[block.clone()] != new[block.clone()] || before.has_data(block) != now.has_data(block)
    };
    let ranges: Vec<Range<u64>> =
        blocks.filter(differs).map(|block| block.start as u64..block.end as u64).collect();
    match () {
        // A hole that begins within a block is not one on the other side.
        () if old.len() != new.len() => OwedContent::From((least - least % BLOCK) as u64, ranges),
        () if ranges.is_empty() => OwedContent::No,
        () => OwedContent::Ranges(ranges),
    }
}

impl Pair {
    fn bad_by(&self) -> BadBy {
        let proof = self.open_replica().proof(position());
        assert_eq!(proof.data, DataState::Bad);
        proof.bad_by
    }

    fn changes(&self, most: u64, random: &mut Random) {
        (0..random.below(most)).for_each(|_| change(&self.source, random));
    }
}

/// Outages; copies that are cut off, and go on.
fn run(seed: u64) {
    println!("STANDIN_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let mut pair = Pair::new();
    pair.changes(90, &mut random);
    pair.converges();
    for _ in 0..3 {
        let mut states = vec![known(&pair.source)];
        pair.changes(30, &mut random);
        for _ in 0..random.below(3) {
            let now = known(&pair.source);
            pair.owed = Some(owed_since(&states, &now));
            states.push(now);
            if pair.run(None, 1 + random.below(40) as usize).is_some() {
                break;
            }
            // The cut may come behind the last item, and before its answer is heard.
            let proof = pair.open_replica().proof(position());
            assert!(proof.data == DataState::Good || proof.bad_by == BadBy::Owed, "{proof:?}");
            pair.changes(6, &mut random);
        }
        let is_whole = random.one_in(6);
        pair.owed = (!is_whole).then(|| owed_since(&states, &known(&pair.source)));
        if is_whole {
            let _ = pair.run(None, random.below(9) as usize);
        }
        pair.converges();
        assert!(is_whole || pair.orphans().is_empty(), "{:?}", pair.orphans());
        fs::remove_dir_all(pair.places.limbo.join("orphans")).ok();
    }
}

#[test]
fn what_is_owed_is_all_that_a_replica_needs() {
    let replayed = std::env::var("STANDIN_TEST_SEED").ok().map(|seed| seed.parse().expect("a number"));
    replayed.map_or(1..=60, |seed: u64| seed..=seed).for_each(run);
}

#[test]
fn nothing_else_is_shown() {
    let mut pair = Pair::new();
    for number in 0..200 {
        let dir = pair.source.join(format!("dir{}", number % 10));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("file{number}")), vec![b'x'; 50_000]).unwrap();
    }
    pair.converges();
    let before = known(&pair.source);
    let file = File::options().write(true).open(pair.source.join("dir3/file13")).unwrap();
    file.write_all_at(b"other", 20_000).unwrap();
    fs::rename(pair.source.join("dir4"), pair.source.join("dir3/moved")).unwrap();
    fs::remove_dir_all(pair.source.join("dir5")).unwrap();
    pair.owed = Some(owed(&before, &known(&pair.source)));
    let outcome = pair.converges();
    assert_eq!((outcome.progress.bytes_copied, outcome.report.copied), (BLOCK as u64, 1), "{outcome:?}");
    // Of each file that is gone, that nothing of it comes.
    assert!(outcome.items < 40, "{outcome:?}");
    assert!(pair.orphans().is_empty());
}

/// Nothing but a copy of everything can make a replica good that lacks more than its source knows.
#[test]
fn what_lacks_more_is_refused() {
    let mut pair = Pair::new();
    fs::write(pair.source.join("file"), "x").unwrap();
    pair.converges();
    let before = known(&pair.source);
    pair.copy_interrupted(2);
    assert_eq!(pair.bad_by(), BadBy::Anything);
    pair.owed = Some(owed(&before, &before));
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pair.run(None, usize::MAX)));
    assert!(refused.is_err());
}
