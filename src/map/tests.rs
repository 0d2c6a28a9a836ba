use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use super::*;
use crate::limits::{MAP_GENERATIONS_MAX, MAP_LEFT_MAX};
use crate::random::Random;

fn id(inode: u64) -> ObjectId {
    ObjectId { birth_epoch: 1, inode, generation: 7 }
}

fn handle(inode: u64) -> FileHandle {
    FileHandle::from_parts(1, &[inode.to_le_bytes(), 7u64.to_le_bytes()].concat()[..12]).unwrap()
}

fn mark(map: &Map, inode: u64, what: What) {
    map.mark(id(inode), Some(&handle(inode)), &what);
}

fn regions_of(ranges: &[Range<u64>]) -> BTreeSet<u64> {
    ranges.iter().flat_map(|range| range.start / MAP_REGION..range.end.div_ceil(MAP_REGION)).collect()
}

#[test]
fn what_is_marked_is_changed_and_nothing_else() {
    let map = Map::new(1 << 16, Sequence(0));
    mark(&map, 3, What::Names);
    mark(&map, 4, What::Itself);
    mark(&map, 5, What::Content(MAP_REGION - 1..MAP_REGION + 1));
    mark(&map, 5, What::Content(CHUNK + MAP_REGION..CHUNK + MAP_REGION + 1));
    mark(&map, 6, What::From(10));
    mark(&map, 6, What::From(5));
    mark(&map, 6, What::Content(0..1));
    let changed = map.changed_since(Sequence(0)).unwrap();
    let found: BTreeMap<u64, _> = changed.objects.iter().map(|object| (object.id.inode, object)).collect();
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [3, 4, 5, 6]);
    assert!(found[&3].names && !found[&4].names);
    assert_eq!((found[&5].content_from, found[&6].content_from), (None, Some(5)));
    assert!(found.values().all(|object| object.handle == handle(object.id.inode)));
    let of_five = [0..2 * MAP_REGION, CHUNK + MAP_REGION..CHUNK + 2 * MAP_REGION];
    assert_eq!(changed.content[&id(5)], of_five);
    assert_eq!(
        changed.content[&id(6)].as_slice(),
        std::slice::from_ref(&(0..MAP_REGION)),
        "below what is marked from there on"
    );
}

#[test]
fn a_full_one_becomes_coarser_and_never_fails() {
    let map = Map::new(64 * 64, Sequence(0));
    let chunks = 200;
    for chunk in 0..chunks {
        mark(&map, 1, What::Content(chunk * CHUNK..chunk * CHUNK + 1));
    }
    let changed = map.changed_since(Sequence(0)).unwrap();
    assert_eq!(changed.objects[0].content_from, Some(0), "as a whole");
    for object in 0..200 {
        mark(&map, object, What::Itself);
    }
    assert_eq!(map.changed_since(Sequence(0)), None, "everything");
    assert!(map.rotate());
    map.begins_at(Sequence(9));
    assert_eq!(map.changed_since(Sequence(8)), None);
    assert!(map.changed_since(Sequence(9)).unwrap().objects.is_empty());
}

#[test]
fn a_long_range_marks_from_its_start_on() {
    let map = Map::new(1 << 16, Sequence(0));
    mark(&map, 1, What::Content(5000..u64::MAX));
    assert_eq!(map.changed_since(Sequence(0)).unwrap().objects[0].content_from, Some(5000));
}

#[test]
fn what_has_no_handle_is_everything() {
    let map = Map::new(1 << 16, Sequence(0));
    map.mark(id(1), None, &What::Itself);
    assert_eq!(map.changed_since(Sequence(0)), None);
}

/// Two of them with one position each; a target that is away for long costs two.
#[test]
fn generations_that_nobody_stands_between_are_one() {
    let map = Map::new(1 << 14, Sequence(0));
    for turn in 1..=20 {
        mark(&map, turn, What::Itself);
        assert!(map.rotate());
        assert!(!map.rotate(), "one rotation at a time");
        map.begins_at(Sequence(turn * 10));
        map.tidy(&[Sequence(35), Sequence(turn * 10)]);
    }
    mark(&map, 99, What::Itself);
    assert_eq!(map.fill().len(), 2);
    let inodes = |has| {
        let changed = map.changed_since(Sequence(has)).unwrap();
        changed.objects.iter().map(|object| object.id.inode).collect::<BTreeSet<_>>()
    };
    assert_eq!(inodes(35), (4..=20).chain([99]).collect());
    assert_eq!(inodes(200), BTreeSet::from([99]));
    assert_eq!(map.changed_since(Sequence(29)), None, "nobody has said that it would ask");
}

/// A position is worth something only when it is told: until then the generation before is needed.
#[test]
fn a_rotation_without_its_position_forgets_nothing() {
    let map = Map::new(1 << 14, Sequence(0));
    mark(&map, 1, What::Itself);
    assert!(map.rotate());
    map.tidy(&[Sequence(1000)]);
    assert_eq!(map.changed_since(Sequence(1000)).unwrap().objects.len(), 1);
    map.begins_at(Sequence(1000));
    map.tidy(&[Sequence(1000)]);
    assert_eq!(map.changed_since(Sequence(1000)).unwrap().objects.len(), 0);
    assert_eq!(map.fill().len(), 1);
}

/// Many threads mark, another one rotates: whatever was marked after a base is found from it.
#[test]
fn threads_lose_no_mark() {
    let map = Map::new(1 << 16, Sequence(0));
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let map = &map;
            scope.spawn(move || {
                let mut random = Random::new(thread);
                for step in 0..2000 {
                    let inode = random.below(50) + 1;
                    let at = random.below(3 * CHUNK);
                    mark(map, inode, What::Content(at..at + 1 + step % 700));
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..5 {
                std::thread::yield_now();
                map.rotate();
                map.begins_at(Sequence(1));
                map.tidy(&[Sequence(0)]);
            }
        });
    });
    let changed = map.changed_since(Sequence(0)).unwrap();
    let mut due: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for thread in 0..4 {
        let mut random = Random::new(thread);
        for step in 0..2000 {
            let inode = random.below(50) + 1;
            let at = random.below(3 * CHUNK);
            due.entry(inode).or_default().extend(at / MAP_REGION..(at + step % 700) / MAP_REGION + 1);
        }
    }
    assert_eq!(changed.objects.len(), due.len());
    for (inode, regions) in due {
        assert_eq!(regions_of(&changed.content[&id(inode)]), regions, "object {inode}");
    }
}

/// One daemon after the other, of which each change is marked and has the next position.
struct Runs {
    map: Map,
    runs: Vec<Incarnation>,
    last: Sequence,
}

const KEPT: usize = 1 << 14;

impl Runs {
    fn begin() -> Runs {
        let map = Map::kept(Kept::create(KEPT).unwrap(), KEPT, Incarnation(1), Sequence(0)).unwrap();
        Runs { map, runs: vec![Incarnation(1)], last: Sequence(0) }
    }

    fn memory(&self) -> OwnedFd {
        self.map.memory().unwrap().try_clone_to_owned().unwrap()
    }

    /// The daemon is killed, and another one begins: as the same run, or as the next.
    fn goes_on(self, run: u64, begins: Sequence) -> Runs {
        let kept = Kept::open(self.memory(), KEPT).unwrap();
        let Runs { map, mut runs, .. } = self;
        drop(map);
        let run = Incarnation(run);
        if runs.last() != Some(&run) {
            runs.push(run);
        }
        Runs { map: Map::kept(kept, KEPT, run, begins).unwrap(), runs, last: begins }
    }

    fn change(&mut self, object: u64) {
        mark(&self.map, object, What::Itself);
        self.last = self.last.next();
    }

    fn left_since(&self, run: u64, has: u64) -> Option<BTreeSet<u64>> {
        let changed = self.map.left_since(&self.runs, (Incarnation(run), Sequence(has)))?;
        Some(changed.objects.iter().map(|object| object.id.inode).collect())
    }
}

#[test]
fn what_a_killed_daemon_has_marked_is_there_for_the_next() {
    let mut runs = Runs::begin();
    runs.change(11);
    assert!(runs.map.rotate());
    runs.map.begins_at(runs.last);
    runs.change(12);
    // Marked, and killed before it was made.
    mark(&runs.map, 13, What::Content(0..1));
    // A rotation that never had its position.
    assert!(runs.map.rotate());
    runs.change(14);
    let mut runs = runs.goes_on(2, Sequence(0));
    assert_eq!(runs.left_since(1, 0), Some(BTreeSet::from([11, 12, 13, 14])));
    assert_eq!(runs.left_since(1, 1), Some(BTreeSet::from([12, 13, 14])));
    assert_eq!(runs.left_since(1, 7), Some(BTreeSet::from([12, 13, 14])), "and more than it lacks");
    assert_eq!((runs.left_since(7, 0), runs.left_since(2, 0)), (None, None));
    runs.change(15);
    let mut runs = runs.goes_on(3, Sequence(0));
    assert_eq!(runs.left_since(1, 1), Some(BTreeSet::from([12, 13, 14, 15])), "all of what comes between");
    assert_eq!(runs.left_since(2, 0), Some(BTreeSet::from([15])));
    // Another program, of the same run.
    runs.change(16);
    let (before, last) = (runs.last, runs.last);
    let mut runs = runs.goes_on(3, last);
    assert_eq!(runs.left_since(3, 0), Some(BTreeSet::from([16])));
    assert_eq!(runs.left_since(2, 0), Some(BTreeSet::from([15, 16])));
    runs.change(17);
    let runs = runs.goes_on(4, Sequence(0));
    assert_eq!(runs.left_since(3, before.0), Some(BTreeSet::from([17])));
    assert_eq!(runs.left_since(3, 0), Some(BTreeSet::from([16, 17])));
    runs.map.forget_left();
    assert_eq!(runs.left_since(3, 0), None);
    let runs = runs.goes_on(5, Sequence(0));
    assert_eq!(runs.left_since(3, 0), None, "it was given back");
    assert_eq!(runs.left_since(4, 0), Some(BTreeSet::new()));
}

/// A target whose mark is of an earlier run lacks all that the next one has changed: from its beginning.
#[test]
fn a_run_whose_beginning_was_given_up_says_nothing() {
    let mut runs = Runs::begin();
    runs.change(1);
    let mut runs = runs.goes_on(2, Sequence(0));
    runs.change(2);
    assert!(runs.map.rotate());
    runs.map.begins_at(runs.last);
    runs.change(3);
    // Nobody wanted what the run began with.
    runs.map.tidy(&[Sequence(1)]);
    let runs = runs.goes_on(3, Sequence(0));
    assert_eq!(runs.left_since(1, 0), None);
    assert_eq!(runs.left_since(2, 0), None);
    assert_eq!(runs.left_since(2, 1), Some(BTreeSet::from([3])));
}

#[test]
fn memory_of_marks_is_bounded_and_given_back() {
    let mut runs = Runs::begin();
    let mut rotated = 0;
    for object in 0..3 * MAP_GENERATIONS_MAX as u64 {
        runs.change(object);
        rotated += u64::from(runs.map.rotate());
        runs.map.begins_at(runs.last);
    }
    assert_eq!(rotated, MAP_GENERATIONS_MAX as u64 - 1, "no more fit");
    let all = runs.map.changed_since(Sequence(0)).unwrap();
    assert_eq!(all.objects.len(), 3 * MAP_GENERATIONS_MAX);
    // Whoever reads what is given up still sees all of it.
    let (generations, _) = runs.map.from(Sequence(0)).unwrap();
    runs.map.tidy(&[runs.last]);
    assert_eq!(changed(generations.iter()).unwrap().objects.len(), 3 * MAP_GENERATIONS_MAX);
    drop(generations);
    let mut runs = runs;
    for number in 2..60 {
        runs = runs.goes_on(number, Sequence(0));
        runs.change(number);
    }
    let is_known: Vec<bool> = (1..60).map(|run| runs.left_since(run, 0).is_some()).collect();
    assert_eq!(is_known.iter().filter(|known| **known).count(), MAP_LEFT_MAX, "{is_known:?}");
    assert!(is_known[59 - 1 - MAP_LEFT_MAX..58].iter().all(|known| *known), "the newest");
    let blocks = rustix::fs::fstat(runs.memory()).unwrap().st_blocks as u64 * 512;
    assert!(blocks < 2 * (MAP_LEFT_MAX as u64 + 1) * KEPT as u64, "{blocks} bytes");
}

#[test]
fn other_memory_is_not_taken_for_marks() {
    let runs = Runs::begin();
    assert!(Kept::open(runs.memory(), KEPT * 2).is_err(), "generations of another size");
    let other = crate::sys::SharedWords::create(c"standin-test", 1 << 12).unwrap();
    other.grow(1 << 12).unwrap();
    assert!(Kept::open(other.memory().try_clone_to_owned().unwrap(), KEPT).is_err());
}
