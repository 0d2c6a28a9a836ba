//! Mirrors of a part, of replicas that somebody has changed by hand there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::random::change;
use super::tree::Node;
use super::*;
use crate::apply::{PlantedInReconcile, plant_in_reconcile};
use crate::packet::BadBy;
use crate::random::Random;

const PART: &str = "part";

/// What lies in the part; other names of it elsewhere are none of it.
fn in_part(root: &Path) -> BTreeMap<Vec<u8>, Node> {
    tree::nodes(&root.join(PART))
}

fn started(random: &mut Random) -> Pair {
    let pair = Pair::new();
    (0..random.below(90)).for_each(|_| change(&pair.source, random));
    for name in ["part", "part/in", "else"] {
        let path = pair.source.join(name);
        if fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_dir()) {
            fs::remove_file(&path).unwrap();
        }
        fs::create_dir_all(path).unwrap();
    }
    for name in ["part", "else"] {
        (0..random.below(40)).for_each(|_| change(&pair.source.join(name), random));
    }
    pair.converges();
    pair
}

/// Moves and links by hand, from the part to elsewhere and back.
fn across(replica: &Path, random: &mut Random) {
    let names = |dir: &str| -> Vec<PathBuf> {
        tree::names(&replica.join(dir)).into_iter().map(|name| replica.join(dir).join(name)).collect()
    };
    let (from, to) = if random.one_in(2) { ("part", "else") } else { ("else", "part") };
    let Some(path) = random.pick(&names(from)).cloned() else { return };
    let new = replica.join(to).join(format!("came{}", random.below(5)));
    let _ = if random.one_in(3) { fs::hard_link(path, new) } else { fs::rename(path, new) };
}

fn run(seed: u64) {
    println!("STANDIN_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let mut pair = started(&mut random);
    for _ in 0..4 {
        let is_within = random.one_in(2);
        let replica = pair.replica().to_owned();
        (0..random.below(25)).for_each(|_| change(&replica.join(PART), &mut random));
        if !is_within {
            (0..1 + random.below(4)).for_each(|_| across(&replica, &mut random));
        }
        pair.part = Some(PART.into());
        if random.one_in(4) && pair.run(None, 1 + random.below(20) as usize).is_none() {
            let proof = pair.open_replica().proof(position());
            let bad_by = (proof.data == DataState::Bad).then_some(proof.bad_by);
            assert!(matches!(bad_by, None | Some(BadBy::Anything)), "nobody knows what it lacks: {proof:?}");
            pair.part = bad_by.is_none().then(|| PART.into());
        }
        let outcome = pair.copy();
        assert!(outcome.left_out.is_empty(), "{outcome:?}");
        if is_within || pair.part.is_none() {
            pair.check_equal();
        } else {
            assert!(in_part(&pair.source) == in_part(pair.replica()), "the part is not as its source");
        }
        pair.part = None;
        pair.converges();
    }
}

#[test]
fn a_part_is_as_its_source_whatever_was_done_to_it() {
    let replayed = std::env::var("STANDIN_TEST_SEED").ok().map(|seed| seed.parse().expect("a number"));
    replayed.map_or(1..=60, |seed: u64| seed..=seed).for_each(run);
}

#[test]
fn what_a_part_needs_is_needed() {
    type Test = fn();
    let tests: [(PlantedInReconcile, Test); 2] = [
        (PlantedInReconcile::ComparesNothing, || (1..=20).for_each(run)),
        (PlantedInReconcile::KeepsToThePart, what_belongs_elsewhere_goes_back),
    ];
    for (bug, test) in tests {
        plant_in_reconcile(Some(bug));
        let found = std::panic::catch_unwind(test).is_err();
        plant_in_reconcile(None);
        assert!(found, "{bug:?}");
    }
}

/// A tree in line, of which some of the part was damaged.
fn damaged() -> Pair {
    let mut pair = Pair::new();
    for dir in ["part/a/b", "else"] {
        fs::create_dir_all(pair.source.join(dir)).unwrap();
        for number in 0..50 {
            fs::write(pair.source.join(dir).join(format!("file{number}")), vec![b'x'; 5000]).unwrap();
        }
    }
    symlink("nowhere", pair.source.join("part/link")).unwrap();
    pair.converges();
    for path in ["part/a/b/file7", "else/file8"] {
        fs::write(pair.replica().join(path), "damaged").unwrap();
    }
    pair.part = Some(PART.into());
    pair
}

fn content(pair: &Pair, path: &str) -> Vec<u8> {
    fs::read(pair.replica().join(path)).unwrap()
}

#[test]
fn nothing_else_is_looked_at() {
    let pair = damaged();
    let outcome = pair.copy();
    assert_eq!((outcome.report.copied, outcome.progress.bytes_copied), (1, 5000), "{outcome:?}");
    // Three listings on the way down and there, and one file.
    assert!(outcome.items < 16, "{outcome:?}");
    assert_eq!(
        (content(&pair, "part/a/b/file7").len(), content(&pair, "else/file8")),
        (5000, b"damaged".to_vec())
    );
}

#[test]
fn a_part_may_be_one_file_or_what_the_replica_has_lost() {
    let mut pair = damaged();
    pair.part = Some("part/a/b/file7".into());
    let outcome = pair.copy();
    assert_eq!((outcome.report.copied, outcome.items), (1, 10), "{outcome:?}");
    assert_eq!(content(&pair, "part/a/b/file7"), vec![b'x'; 5000]);
    for lost in ["part/a/b/file9", "part/a/b", "part/a", "part"] {
        let path = pair.replica().join(lost);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap()
        } else {
            fs::remove_file(&path).unwrap()
        }
        pair.part = Some("part/a/b/file9".into());
        pair.copy();
        assert_eq!(content(&pair, "part/a/b/file9"), vec![b'x'; 5000], "{lost}");
        // What is missing on the way down comes whole.
        assert!(lost == "part/a/b/file9" || pair.replica().join("part/a/b/file3").exists(), "{lost}");
    }
    fs::write(pair.source.join("else/file8"), "damaged").unwrap();
    pair.part = None;
    pair.converges();
}

/// What came from elsewhere is no orphan: it is looked for where it belongs.
#[test]
fn what_belongs_elsewhere_goes_back() {
    let pair = damaged();
    fs::write(pair.source.join("else/file8"), vec![b'x'; 5000]).unwrap();
    let inode = fs::metadata(pair.replica().join("else/file9")).unwrap().ino();
    fs::rename(pair.replica().join("else/file9"), pair.replica().join("part/file9")).unwrap();
    pair.converges();
    assert_eq!(fs::metadata(pair.replica().join("else/file9")).unwrap().ino(), inode);
    assert!(pair.orphans().is_empty(), "{:?}", pair.orphans());
}

#[test]
fn a_part_that_is_gone_changes_nothing() {
    let mut pair = damaged();
    pair.part = Some("part/nothing/there".into());
    let outcome = pair.copy();
    assert_eq!((outcome.report.copied, content(&pair, "part/a/b/file7")), (0, b"damaged".to_vec()));
}

#[test]
fn a_replica_that_is_bad_is_refused() {
    let mut pair = damaged();
    pair.part = None;
    pair.copy_interrupted(2);
    pair.part = Some(PART.into());
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pair.run(None, usize::MAX)));
    assert!(refused.is_err());
    assert_eq!(content(&pair, "part/a/b/file7"), b"damaged");
}

#[test]
fn paths_are_bytes() {
    let mut pair = damaged();
    let name = std::ffi::OsStr::from_bytes(b"part/\xff\xfe");
    fs::write(pair.source.join(name), "x").unwrap();
    pair.part = Some(name.into());
    assert_eq!(pair.copy().report.copied, 1);
}
