//! Copies of what has changed while nobody captured it, as change times tell it.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::random::change;
use super::*;
use crate::limits::HASH_BLOCK;
use crate::packet::{BlockHash, Ids, ObjectId};
use crate::random::Random;

/// Later than all changes so far, and not later than those that are to come.
fn moment(pair: &Pair) -> Timestamp {
    let probe = pair.dir.path().join("probe");
    let stamp = || {
        fs::write(&probe, "x").unwrap();
        let status = fs::metadata(&probe).unwrap();
        Timestamp { seconds: status.ctime(), nanoseconds: status.ctime_nsec() as u32 }
    };
    let before = stamp();
    loop {
        let now = stamp();
        if now > before {
            return now;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

impl Pair {
    fn search(&self, since: Timestamp) -> Result<Owed, CopyError> {
        let backing = OwnedFd::from(File::open(&self.source).unwrap());
        let nothing: WhatIsOwed = Arc::new(|| Some(Owed::default()));
        Search::new(backing, Ids::from(3), since, &nothing, &mut || Ok(()))?.run()
    }

    /// What has changed since is owed; gives how many objects that is.
    fn owe_since(&mut self, since: Timestamp) -> usize {
        let owed = self.search(since).expect("it is told by times");
        let count = owed.objects.len();
        self.owed = Some(Arc::new(owed));
        count
    }
}

fn run(seed: u64) {
    println!("STANDIN_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let mut pair = Pair::new();
    (0..random.below(90)).for_each(|_| change(&pair.source, &mut random));
    pair.converges();
    for _ in 0..3 {
        // A copy that was cut off is followed by one of all that has changed since the replica was in line.
        let since = moment(&pair);
        for _ in 0..1 + random.below(3) {
            (0..random.below(30)).for_each(|_| change(&pair.source, &mut random));
            pair.owe_since(since);
            if pair.run(None, 1 + random.below(40) as usize).is_some() {
                break;
            }
        }
        pair.owe_since(since);
        pair.converges();
        assert!(pair.orphans().is_empty(), "{:?}", pair.orphans());
    }
}

#[test]
fn what_change_times_tell_is_all_that_a_replica_needs() {
    let replayed = std::env::var("STANDIN_TEST_SEED").ok().map(|seed| seed.parse().expect("a number"));
    replayed.map_or(1..=60, |seed: u64| seed..=seed).for_each(run);
}

fn with_files() -> Pair {
    let pair = Pair::new();
    for number in 0..200 {
        let dir = pair.source.join(format!("dir{}", number % 10));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("file{number}")), vec![b'x'; 5_000]).unwrap();
    }
    fs::write(pair.source.join("large"), vec![b'l'; 64 * HASH_BLOCK as usize]).unwrap();
    pair.converges();
    pair
}

#[test]
fn what_has_not_changed_is_not_shown() {
    let mut pair = with_files();
    let since = moment(&pair);
    assert_eq!(pair.owe_since(since), 0);
    assert_eq!(pair.converges().progress.files_compared, 0);
    fs::write(pair.source.join("dir3/file13"), "other").unwrap();
    fs::rename(pair.source.join("dir4"), pair.source.join("dir3/moved")).unwrap();
    fs::remove_dir_all(pair.source.join("dir5")).unwrap();
    fs::set_permissions(pair.source.join("dir6/file16"), PermissionsExt::from_mode(0o600)).unwrap();
    // The root, two directories, a directory that was moved, two files.
    let changed = pair.owe_since(since);
    assert!((5..=6).contains(&changed), "{changed}");
    let outcome = pair.converges();
    // In the root, in the third directory, and in the one that was moved.
    assert!(outcome.progress.files_compared < 50, "{outcome:?}");
    assert!(pair.orphans().is_empty());
}

/// Of a large file nobody knows what has changed: its blocks tell.
#[test]
fn of_a_large_file_only_blocks_that_differ_are_sent() {
    let mut pair = with_files();
    pair.by_blocks =
        Some(BlockOrder { hash: BlockHash::Fast { key: [5; 32] }, least: 4 * HASH_BLOCK, takes_holes: true });
    let since = moment(&pair);
    let large = File::options().write(true).open(pair.source.join("large")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&large, b"other", 7 * HASH_BLOCK).unwrap();
    assert_eq!(pair.owe_since(since), 1);
    assert_eq!(pair.converges().progress.bytes_copied, HASH_BLOCK);
    let since = moment(&pair);
    large.set_len(60 * HASH_BLOCK - 5).unwrap();
    pair.owe_since(since);
    assert_eq!(pair.converges().progress.bytes_copied, 0);
}

/// A tree that comes from elsewhere has old change times: what the target has not is walked.
#[test]
fn what_comes_from_outside_is_copied_as_a_whole() {
    let mut pair = with_files();
    let outside = pair.dir.path().join("outside");
    fs::create_dir_all(outside.join("a/b")).unwrap();
    fs::write(outside.join("a/b/file"), "from outside").unwrap();
    let since = moment(&pair);
    fs::rename(&outside, pair.source.join("dir1/inside")).unwrap();
    pair.owe_since(since);
    pair.converges();
    // It goes, changes, and comes back.
    let since = moment(&pair);
    fs::rename(pair.source.join("dir1/inside"), &outside).unwrap();
    pair.owe_since(since);
    pair.converges();
    fs::write(outside.join("a/b/file"), "changed there").unwrap();
    let since = moment(&pair);
    fs::rename(&outside, pair.source.join("dir2/inside")).unwrap();
    pair.owe_since(since);
    pair.converges();
}

#[test]
fn what_was_removed_is_moved_aside() {
    let mut pair = with_files();
    let since = moment(&pair);
    fs::remove_dir_all(pair.source.join("dir5")).unwrap();
    fs::remove_file(pair.source.join("dir6/file16")).unwrap();
    pair.owe_since(since);
    pair.delete_percent_max = Some(0);
    assert_eq!(pair.converges().orphans, 2);
    assert_eq!(pair.orphans().len(), 21);
    let since = moment(&pair);
    assert_eq!(pair.owe_since(since), 0);
    pair.converges();
}

/// A directory with a file in it and a file, each changed before the search, are moved at some moment of it from
/// the one end of the tree to the other.
fn moved_at(moment_of_move: usize, planted: Option<PlantedSearch>) -> bool {
    let pair = Pair::new();
    for dir in ["a", "b", "c"] {
        fs::create_dir_all(pair.source.join(dir).join("sub")).unwrap();
        fs::write(pair.source.join(dir).join("sub/in"), "x").unwrap();
        fs::write(pair.source.join(dir).join("f"), "x").unwrap();
    }
    let ids: Vec<_> = ["a", "b", "c"].iter().map(|dir| pair.source.join(dir)).collect();
    let since = moment(&pair);
    let mut expected = Vec::new();
    for dir in &ids {
        for name in ["sub/in", "f"] {
            fs::write(dir.join(name), "changed").unwrap();
            expected.push(object(&dir.join(name)));
        }
    }
    let marked: Arc<std::sync::Mutex<Owed>> = Arc::default();
    let (source, marks) = (pair.source.clone(), marked.clone());
    let mut step = 0;
    let mut goes_on = move || {
        step += 1;
        // Each into each of the others: one of them was walked already, another was not.
        if step == moment_of_move {
            for (from, into) in [("a", "b"), ("b", "c"), ("c", "a")] {
                for name in ["sub", "f"] {
                    let path = source.join(from).join(name);
                    marks.lock().unwrap().objects.push(object(&path));
                    fs::rename(&path, source.join(into).join(format!("{name}-of-{from}"))).unwrap();
                }
            }
        }
        Ok(())
    };
    let by_map = marked.clone();
    let marked: WhatIsOwed = Arc::new(move || Some(by_map.lock().unwrap().clone()));
    let backing = OwnedFd::from(File::open(&pair.source).unwrap());
    let search = Search::new(backing, Ids::from(3), since, &marked, &mut goes_on).unwrap();
    let found = search.planting(planted).run().unwrap();
    expected.iter().all(|one| found.objects.iter().any(|object| object.id == one.id))
}

/// As the map has it.
fn object(path: &Path) -> OwedObject {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW;
    let fd = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap();
    let handle = crate::sys::FileHandle::of(fd.as_fd()).unwrap();
    let status = look::stat(fd.as_fd()).unwrap();
    let names = u32::from(status.stx_mode) & libc::S_IFMT == libc::S_IFDIR;
    let id = ObjectId::at_first_sight(3, &handle, status.stx_ino);
    OwedObject { id, handle, names, content: OwedContent::No }
}

/// Steps of the search of such a tree, and a few more.
const STEPS: std::ops::Range<usize> = 1..60;

#[test]
fn wherever_a_move_comes_in_between_what_changed_is_found() {
    for step in STEPS {
        assert!(moved_at(step, None), "moved at step {step}");
    }
    for planted in [PlantedSearch::TrustsTheWalk, PlantedSearch::WalksOnce, PlantedSearch::LooksAtDirectories]
    {
        let missed = STEPS.filter(|&step| !moved_at(step, Some(planted))).count();
        println!("{planted:?}: {missed} steps");
        assert!(missed > 0, "{planted:?}");
    }
}

#[test]
fn who_is_not_wanted_any_more_ends() {
    let pair = with_files();
    let nothing: WhatIsOwed = Arc::new(|| Some(Owed::default()));
    let backing = OwnedFd::from(File::open(&pair.source).unwrap());
    let mut ends = || Err(Gone);
    let search = Search::new(backing, Ids::from(3), moment(&pair), &nothing, &mut ends).unwrap();
    assert!(matches!(search.run(), Err(CopyError::Gone)));
}
