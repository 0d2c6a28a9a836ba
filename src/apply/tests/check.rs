//! A replica is compared while its source changes: the source's looks, the stream's order and the target's
//! comparison together. Between any two looks, and between a look and its stamp, the source may change.

mod touched;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crossbeam_channel::{Sender, unbounded};
use parking_lot::Mutex;

use self::touched::touched;
pub(super) use self::watch::Watch;
use super::model::change;
use super::*;
use crate::limits::{HASH_BLOCK, HOLE_LEAST};
use crate::random::Random;
use crate::resync::{Answer, CheckOrder, Entry, Gone, LiveCopy, Slot, StampedSink, Wanted};
use crate::xattr::WITHHELD_XATTR;

/// Both sides, and what is on the way.
pub(super) struct World {
    pub(super) pair: Pair,
    random: Random,
    /// Changes that the target has not applied.
    waiting: VecDeque<Said>,
    /// Changes so far, and those that the target has applied.
    said: u64,
    applied: u64,
    /// Changes so far, by inode, and which one was the last.
    counts: BTreeMap<u64, u64>,
    changed: BTreeMap<u64, u64>,
    /// What was not changed since goes before later changes, by so many more than it may.
    goes_early: Option<u64>,
    /// How many went so.
    early: u64,
    left: u32,
    item: u64,
    says: Sender<Answer>,
    found: Vec<Difference>,
    counts_found: Option<CheckCounts>,
    /// Not compared: a planted bug.
    is_blind: bool,
}

pub(super) type Shared = Arc<Mutex<World>>;

impl World {
    pub(super) fn new(pair: Pair, random: Random, left: u32, says: Sender<Answer>, is_blind: bool) -> World {
        World {
            pair,
            random,
            waiting: VecDeque::new(),
            said: 0,
            applied: 0,
            counts: BTreeMap::new(),
            changed: BTreeMap::new(),
            goes_early: None,
            early: 0,
            left,
            item: 0,
            says,
            found: Vec::new(),
            counts_found: None,
            is_blind,
        }
    }

    fn change(&mut self) {
        if self.left == 0 {
            return;
        }
        let Some(said) = change(&self.pair.source, &mut self.random) else { return };
        self.left -= 1;
        self.said += 1;
        for id in touched(&said.0) {
            *self.counts.entry(id.inode).or_default() += 1;
            self.changed.insert(id.inode, self.said);
        }
        self.waiting.push_back(said);
    }

    fn maybe_change(&mut self, one_in: u64) {
        if self.random.one_in(one_in) {
            self.change();
        }
    }

    fn apply(&mut self) {
        self.apply_upto(self.said);
    }

    fn apply_upto(&mut self, upto: u64) {
        while self.applied < upto {
            let said = self.waiting.pop_front().expect("a change that was made");
            self.applied += 1;
            self.pair.say(said);
            self.hear_doubts();
        }
    }

    /// Where an item goes that shows what was not changed since.
    fn place(&mut self, since: Option<Sequence>) -> u64 {
        let (Some(since), Some(too_far)) = (since, self.goes_early) else { return self.said };
        let first = since.0.min(self.said).saturating_sub(too_far).max(self.applied);
        first + self.random.below(self.said - first + 1)
    }

    fn hear_doubts(&mut self) {
        while let Some(said) = self.pair.applier().take_doubts() {
            self.hear(said);
        }
    }

    fn hear(&mut self, said: TargetMessage) {
        let answer = match said {
            TargetMessage::Wanted { listing, objects } => Answer::Wanted(Wanted { listing, objects }),
            TargetMessage::Doubt { directories } => Answer::Doubt(directories),
            TargetMessage::Hashed { item, differing } => Answer::Hashed { item, differing },
            TargetMessage::Differences { found } => return self.found.extend(found),
            TargetMessage::Checked { end, counts } => {
                self.counts_found = Some(counts);
                Answer::Complete(end)
            }
            TargetMessage::NotChecked { reason } => {
                panic!("it cannot be compared: {}", reason.to_text());
            }
            TargetMessage::CheckStopped | TargetMessage::Orphans(_) => return,
            TargetMessage::HasOld { listing, objects } => Answer::HasOld(Wanted { listing, objects }),
            TargetMessage::Resynchronised { end, left_out, .. } => {
                assert!(left_out.is_empty(), "{left_out:?}");
                self.left = 0;
                Answer::Complete(end)
            }
            other => panic!("{other:?}"),
        };
        let _ = self.says.send(answer);
    }

    fn item(&mut self, Entry { item, payload }: Entry, place: u64) {
        self.early += u64::from(place < self.said);
        self.apply_upto(place);
        self.item += 1;
        let (position, number) = (self.pair.applier().replica().applied(), ItemNumber(self.item));
        let answers = self.pair.applier().take_item(position, number, item, payload).unwrap();
        answers.into_iter().for_each(|answer| self.hear(answer));
        self.hear_doubts();
    }
}

pub(super) struct Sink(pub(super) Shared);

impl StampedSink for Sink {
    fn reserve(&mut self) -> Result<Slot, Gone> {
        self.0.lock().maybe_change(3);
        Ok(Slot::granted())
    }

    fn push(
        &mut self,
        slot: Slot,
        batch: &mut Vec<Entry>,
        check: impl FnOnce() -> bool,
    ) -> Result<ItemNumber, Slot> {
        self.push_since(slot, batch, None, check)
    }

    fn push_since(
        &mut self,
        slot: Slot,
        batch: &mut Vec<Entry>,
        since: Option<Sequence>,
        check: impl FnOnce() -> bool,
    ) -> Result<ItemNumber, Slot> {
        let is_blind = {
            let mut world = self.0.lock();
            world.maybe_change(4);
            world.is_blind
        };
        // What comes in between counts as begun, or as coming behind.
        let left = std::mem::take(&mut self.0.lock().left);
        let is_exact = check() || is_blind;
        let mut world = self.0.lock();
        world.left = left;
        if !is_exact {
            return Err(slot);
        }
        let place = world.place(since);
        batch.drain(..).for_each(|entry| world.item(entry, place));
        Ok(ItemNumber(world.item))
    }

    fn reached(&self) -> Option<Sequence> {
        Some(Sequence(self.0.lock().applied))
    }

    fn given_out(&self) -> Option<Sequence> {
        Some(Sequence(self.0.lock().said))
    }

    fn begin(&mut self, batch: &mut Vec<Entry>, check: impl FnOnce() -> bool) -> bool {
        self.push(Slot::granted(), batch, check).is_ok()
    }
}

pub(super) fn prepared(random: &mut Random) -> Pair {
    let mut pair = Pair::new();
    let mut changes = 0;
    while changes < 150 {
        let Some(said) = change(&pair.source, random) else { continue };
        changes += 1;
        pair.say(said);
    }
    let many = pair.source.mkdir("many", 0o755);
    pair.say(many);
    for file in 0..20 {
        let path = format!("many/{file}");
        for said in [pair.source.create(&path, 0o644), pair.source.write(&path, 0, &[7; 300])] {
            pair.say(said);
        }
    }
    pair
}

fn compare(
    pair: Pair,
    random: Random,
    changes: u32,
    order: CheckOrder,
    planted: Option<Planted>,
) -> Compared {
    let (says, answers) = unbounded();
    let backing = std::fs::File::open(&pair.source.root).unwrap().into();
    let mut world = World::new(pair, random, changes, says, planted == Some(Planted::IsNotExact));
    world.goes_early = Some(u64::from(planted == Some(Planted::GoesTooEarly)));
    let shared: Shared = Arc::new(Mutex::new(world));
    let (looks, sink) = (Arc::new(Watch(shared.clone())), Sink(shared.clone()));
    let copy = LiveCopy::new(backing, looks, 1, None, sink, answers, Arc::default()).unwrap();
    let outcome = copy.compare(order).run();
    let mut world = Arc::into_inner(shared).expect("nobody else has it").into_inner();
    assert!(outcome.is_ok(), "{outcome:?}");
    world.left = 0;
    world.apply();
    let counts = world.counts_found.expect("it came to its end");
    Compared { early: world.early, pair: world.pair, found: world.found, counts }
}

/// Bugs that are planted on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Planted {
    /// Whether something changed since the look is not asked.
    IsNotExact,
    /// What was changed by a packet goes before it.
    GoesTooEarly,
}

struct Compared {
    pair: Pair,
    found: Vec<Difference>,
    counts: CheckCounts,
    /// Items that went before changes that were made when they were looked at.
    early: u64,
}

fn by_content() -> CheckOrder {
    CheckOrder { content: Some(BlockHash::Fast { key: [3; 32] }), ..CheckOrder::default() }
}

#[test]
fn whatever_changes_meanwhile_nothing_differs() {
    let mut early_in_all = 0;
    for seed in 0..40 {
        eprintln!("seed {seed}");
        let mut random = Random::new(seed);
        let pair = prepared(&mut random);
        let changes = 20 + random.below(120) as u32;
        let Compared { mut pair, found, counts, early } = compare(pair, random, changes, by_content(), None);
        early_in_all += early;
        assert!(found.is_empty() && counts.is_identical(), "seed {seed}: {found:?} {counts:?}");
        assert!(counts.compared > 30, "seed {seed}: {counts:?}");
        pair.assert_same();
    }
    assert!(early_in_all > 500, "{early_in_all} items went before what they need not wait for");
}

/// That the test above can find anything.
#[test]
fn what_is_not_exact_is_found() {
    for (what, planted) in [("looks", Planted::IsNotExact), ("places", Planted::GoesTooEarly)] {
        let found = (0..200).find(|&seed| {
            let mut random = Random::new(seed);
            let pair = prepared(&mut random);
            !compare(pair, random, 150, by_content(), Some(planted)).found.is_empty()
        });
        assert!(found.is_some(), "{what} that are not exact do not show");
    }
}

/// One thing is made wrong on the replica, at random, while the source changes elsewhere.
#[test]
fn what_is_wrong_is_found_whatever_changes_meanwhile() {
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let pair = prepared(&mut random);
        let victim = pair.replica(&format!("many/{}", random.below(20)));
        let before = std::fs::metadata(&victim).unwrap().modified().unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&victim).unwrap();
        file.write_all_at(&[8], random.below(300)).unwrap();
        file.set_modified(before).unwrap();
        let Compared { found, counts, .. } = compare(pair, random, 0, by_content(), None);
        let kinds: Vec<DifferenceKind> = found.iter().map(|found| found.kind).collect();
        assert_eq!(kinds, [DifferenceKind::Content], "seed {seed}");
        assert_eq!((counts.different, counts.bytes_out_of_step), (1, 300), "seed {seed}: {counts:?}");
    }
    const _: () = assert!(HASH_BLOCK > 300);
}

/// A hole and zeros that were written are the same; what is not zero in it differs, however much is there.
#[test]
fn a_large_hole_is_compared_as_one() {
    let order = || CheckOrder { takes_holes: true, ..by_content() };
    for (zeros, data, differ) in [(0, 0, 0), (1 << 20, 0, 0), (0, 1, HASH_BLOCK), (1 << 20, 3000, 3072)] {
        let mut random = Random::new(5);
        let mut pair = prepared(&mut random);
        let said = pair.source.create("sparse", 0o644);
        pair.say(said);
        let files = [pair.source.root.join("sparse"), pair.replica("sparse")];
        let files = files.map(|path| std::fs::OpenOptions::new().write(true).open(path).unwrap());
        // As the replica will have it.
        let modified = files[0].metadata().and_then(|status| status.modified()).unwrap();
        files[1].write_all_at(&vec![0; zeros], HOLE_LEAST).unwrap();
        files[1].write_all_at(&vec![1; data], HOLE_LEAST + (1 << 20) - 1024).unwrap();
        for file in &files {
            file.set_len(4 * HOLE_LEAST + 5).unwrap();
            file.set_modified(modified).unwrap();
        }
        let Compared { found, counts, .. } = compare(pair, random, 0, order(), None);
        let kinds: Vec<DifferenceKind> = found.iter().map(|found| found.kind).collect();
        let expected = if differ > 0 { vec![DifferenceKind::Content] } else { Vec::new() };
        assert_eq!((kinds, counts.bytes_out_of_step), (expected, differ), "{zeros} {data}: {counts:?}");
        assert!(counts.bytes_compared > 4 * HOLE_LEAST, "{counts:?}");
    }
}

/// A mark that was lost or that says something else was taken for right: a restoration would give what it says.
#[test]
fn what_stands_for_a_device_says_which() {
    let mut pair = Pair::new();
    drop(pair.applier.take());
    let replica = Replica::open(&pair.places, SET).unwrap().allow(crate::words::Allow::NOTHING);
    pair.applier = Some(Applier::new(replica));
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7)] {
        let said = pair.source.mknod(name, Birth::CharDevice { major: 1, minor });
        pair.say(said);
    }
    for name in ["plain", "file"] {
        let said = pair.source.create(name, 0o644);
        pair.say(said);
    }
    let mark = |pair: &Pair, name: &str, text: &str| {
        let path = pair.replica(name);
        rustix::fs::setxattr(path, WITHHELD_XATTR, text.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
    };
    mark(&pair, "zero", "char 1:3");
    rustix::fs::removexattr(pair.replica("full"), WITHHELD_XATTR).unwrap();
    mark(&pair, "file", "char 1:3");
    let Compared { found, counts, .. } = compare(pair, Random::new(1), 0, CheckOrder::default(), None);
    let mut found: Vec<(DifferenceKind, Vec<u8>)> =
        found.into_iter().map(|found| (found.kind, found.path.0)).collect();
    found.sort();
    let expected = ["file", "full", "zero"].map(|name| (DifferenceKind::Type, name.as_bytes().to_vec()));
    assert_eq!((found, counts.different), (expected.to_vec(), 3));
}
