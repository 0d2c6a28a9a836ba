//! Copies to a target that keeps what was removed.

use std::fs;

use super::owed::{known, owed};
use super::*;
use crate::packet::{Name, OrphanRule};

fn pair(keeping: Keeping) -> Pair {
    let mut pair = Pair::new();
    fs::create_dir_all(pair.source.join("dir/sub")).unwrap();
    for name in ["one", "dir/two", "dir/sub/three", "stays"] {
        fs::write(pair.source.join(name), name).unwrap();
    }
    pair.converges();
    pair.keeping = Some(keeping);
    pair
}

impl Pair {
    /// Copies what has changed.
    fn copy_owed(&mut self, change: impl FnOnce(&Path)) -> Outcome {
        let before = known(&self.source);
        change(&self.source);
        self.owed = Some(owed(&before, &known(&self.source)));
        let outcome = self.copy();
        self.owed = None;
        outcome
    }
}

fn removes(source: &Path) {
    fs::remove_file(source.join("one")).unwrap();
    fs::remove_dir_all(source.join("dir")).unwrap();
}

#[test]
fn a_copy_leaves_what_is_kept_in_its_place() {
    let mut pair = pair(Keeping::InPlace);
    // What was typed of orphans does not count.
    pair.orphan_rules =
        Some(LaneItem::OrphanRules { rule: OrphanRule::Delete { percent_max: None }, age_ms: 0 });
    removes(&pair.source);
    let outcome = pair.copy();
    assert_eq!(outcome.counts.unwrap().kept, 2);
    for name in ["one", "dir/two", "dir/sub/three"] {
        assert_eq!(fs::read_to_string(pair.replica().join(name)).unwrap(), name);
    }
    assert!(pair.open_replica().keeps_orphans());
}

/// Also where it stands in the way of what is there now: that is not deleted either.
#[test]
fn a_copy_of_what_is_owed_leaves_what_is_kept_in_its_place() {
    let mut pair = pair(Keeping::InPlace);
    pair.copy_owed(removes);
    for name in ["one", "dir/two", "dir/sub/three"] {
        assert_eq!(fs::read_to_string(pair.replica().join(name)).unwrap(), name);
    }
    assert!(pair.open_replica().keeps_orphans());
    pair.copy_owed(|source| fs::create_dir(source.join("one")).unwrap());
    assert!(pair.replica().join("one").is_dir());
    assert_eq!(pair.orphans(), [("./one".to_owned(), b"one".to_vec())]);
}

#[test]
fn a_copy_of_what_is_owed_keeps_aside_what_was_removed() {
    let into = Name::new(b"trash").unwrap();
    let mut pair = pair(Keeping::Aside { into, days: 30 });
    let outcome = pair.copy_owed(removes);
    assert_eq!((outcome.orphans, pair.orphans()), (0, Vec::new()));
    pair.check_equal();
    let mut days = fs::read_dir(pair.places.limbo.join("deleted/trash")).unwrap();
    let day = days.next().unwrap().unwrap().path();
    assert!(days.next().is_none());
    for name in ["one", "dir/two", "dir/sub/three"] {
        assert_eq!(fs::read_to_string(day.join(name)).unwrap(), name);
    }
}
