//! What the source asks for of names that only the replica has.

use std::fs;

use super::cases::set_mtime;
use super::*;
use crate::limits::DELETE_GUARD_FILES_MIN;
use crate::packet::OrphanRule;

/// Two files that both have; what a stranger has added to the replica.
fn pair(rule: OrphanRule, age_ms: u64) -> Pair {
    let mut pair = Pair::new();
    for name in ["a", "b"] {
        fs::write(pair.source.join(name), name).unwrap();
    }
    pair.converges();
    fs::create_dir_all(pair.replica().join("strange/deep")).unwrap();
    fs::write(pair.replica().join("strange/deep/file"), "x").unwrap();
    fs::write(pair.replica().join("stray"), "y").unwrap();
    pair.orphan_rules = Some(LaneItem::OrphanRules { rule, age_ms });
    pair
}

fn counts(moved: u64, kept: u64, deleted: u64, spared: u64) -> Option<OrphanCounts> {
    Some(OrphanCounts { moved, kept, deleted, spared })
}

#[test]
fn kept_orphans_stay_and_give_way() {
    let mut pair = pair(OrphanRule::Keep, 0);
    assert_eq!(pair.copy().counts, counts(0, 2, 0, 0));
    assert!(pair.replica().join("strange/deep/file").exists() && pair.replica().join("stray").exists());
    assert!(pair.open_replica().keeps_orphans());
    // One is in the way of a directory.
    fs::create_dir(pair.source.join("stray")).unwrap();
    fs::write(pair.source.join("stray/own"), "z").unwrap();
    assert_eq!(pair.copy().counts, counts(1, 1, 0, 0));
    assert!(pair.replica().join("stray/own").exists() && pair.replica().join("strange").exists());
    // Later they are to go.
    pair.orphan_rules = None;
    assert_eq!(pair.converges().orphans, 1);
    assert!(!pair.open_replica().keeps_orphans());
}

#[test]
fn orphans_are_deleted_and_counted() {
    let pair = pair(OrphanRule::Delete { percent_max: None }, 0);
    let outcome = pair.converges();
    assert_eq!((outcome.counts, outcome.orphans), (counts(0, 0, 2, 0), 0));
    assert!(pair.orphans().is_empty());
}

#[test]
fn too_many_orphans_are_moved_aside_and_not_deleted() {
    let mut pair = pair(OrphanRule::Delete { percent_max: Some(50) }, 0);
    for number in 0..=DELETE_GUARD_FILES_MIN {
        fs::write(pair.replica().join(format!("strange/{number}")), "x").unwrap();
    }
    let outcome = pair.converges();
    assert_eq!((outcome.counts, outcome.orphans), (counts(2, 0, 0, 2), 2));
    // Some of many may go.
    (0..4 * DELETE_GUARD_FILES_MIN).for_each(|number| {
        fs::write(pair.source.join(format!("own{number}")), "x").unwrap();
    });
    pair.orphan_rules =
        Some(LaneItem::OrphanRules { rule: OrphanRule::Delete { percent_max: Some(50) }, age_ms: 0 });
    pair.converges();
    for number in 0..=DELETE_GUARD_FILES_MIN {
        fs::write(pair.replica().join(format!("stray{number}")), "x").unwrap();
    }
    assert_eq!(pair.converges().counts, counts(0, 0, DELETE_GUARD_FILES_MIN + 1, 0));
}

#[test]
fn what_was_modified_lately_stays() {
    let mut pair = pair(OrphanRule::Aside, 3_600_000);
    // A young file in an old directory keeps it.
    let replica = pair.replica().to_owned();
    for name in ["strange/deep", "strange", "stray"] {
        set_mtime(&replica.join(name), 1_000, 0);
    }
    assert_eq!(pair.copy().counts, counts(1, 1, 0, 0));
    assert!(!replica.join("stray").exists() && replica.join("strange/deep/file").exists());
    for name in ["strange/deep/file", "strange/deep", "strange"] {
        set_mtime(&replica.join(name), 1_000, 0);
    }
    pair.orphan_rules =
        Some(LaneItem::OrphanRules { rule: OrphanRule::Delete { percent_max: None }, age_ms: 3_600_000 });
    assert_eq!(pair.converges().counts, counts(0, 0, 1, 0));
}
