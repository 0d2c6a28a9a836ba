//! Copies to a target that keeps what was removed.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use super::owed::{known, owed};
use super::random::change;
use super::*;
use crate::failpoint;
use crate::packet::{Name, ObjectId, OrphanRule};
use crate::random::Random;
use crate::xattr::immutable;

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
    pub(super) fn copy_owed(&mut self, change: impl FnOnce(&Path)) -> Outcome {
        let before = known(&self.source);
        change(&self.source);
        self.owed = Some(owed(&before, &known(&self.source)));
        let outcome = self.copy();
        self.owed = None;
        outcome
    }

    /// What the replica knows to be an object of the source.
    fn ids(&self) -> BTreeSet<ObjectId> {
        let mut ids = BTreeSet::new();
        self.open_replica().index().for_each(|id, _| Ok(_ = ids.insert(id))).unwrap();
        ids
    }

    fn ids_of_source(&self) -> BTreeSet<ObjectId> {
        known(&self.source).into_keys().collect()
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

/// Content by path of what was kept aside, with how many names it has.
fn kept(pair: &Pair) -> Vec<(String, String, u64)> {
    let Ok(days) = fs::read_dir(pair.places.limbo.join("deleted/trash")) else { return Vec::new() };
    let mut found = Vec::new();
    for day in days.map(|day| day.unwrap().path()) {
        for (path, node) in tree::nodes(&day) {
            let path = String::from_utf8(path).unwrap();
            if let Some(content) = node.content {
                let links = fs::metadata(day.join(&path)).unwrap().nlink();
                let path = path.trim_start_matches("./").to_owned();
                found.push((path, String::from_utf8(content).unwrap(), links));
            }
        }
    }
    found.sort();
    found
}

fn aside() -> Keeping {
    Keeping::Aside { into: Name::new(b"trash").unwrap(), days: 30 }
}

fn once(path: &str, content: &str) -> (String, String, u64) {
    (path.to_owned(), content.to_owned(), 1)
}

/// A snapshot of hard links lies beside the replica: what was removed went as what lives on, and nothing of it was kept.
#[test]
fn what_somebody_has_linked_is_kept_by_a_copy_of_what_is_owed() {
    let mut pair = pair(aside());
    for name in ["one", "dir/sub/three"] {
        let snapshot = pair.dir.path().join(name.replace('/', "-"));
        fs::hard_link(pair.replica().join(name), snapshot).unwrap();
    }
    let outcome = pair.copy_owed(removes);
    assert_eq!((outcome.orphans, pair.orphans()), (0, Vec::new()));
    pair.check_equal();
    let all = ["dir/sub/three", "dir/two", "one"].map(|path| once(path, path));
    assert_eq!(kept(&pair), all);
    // The snapshot is nobody's but the person's, and no object of the replica.
    fs::write(pair.dir.path().join("one"), "changed").unwrap();
    assert_eq!(kept(&pair), all);
    assert_eq!(pair.ids(), pair.ids_of_source());
}

/// What lives on by a name of the source is not removed: of links that a program has made thousands may go.
#[test]
fn what_lives_on_in_the_set_is_not_kept_by_a_copy_of_what_is_owed() {
    let mut pair = pair(aside());
    pair.copy_owed(|source| {
        fs::hard_link(source.join("one"), source.join("dir/one too")).unwrap();
        fs::hard_link(source.join("dir/two"), source.join("two too")).unwrap();
    });
    // With a name outside as well.
    fs::hard_link(pair.replica().join("one"), pair.dir.path().join("snapshot")).unwrap();
    pair.copy_owed(|source| {
        fs::remove_file(source.join("dir/one too")).unwrap();
        fs::remove_file(source.join("dir/two")).unwrap();
    });
    pair.check_equal();
    assert_eq!((kept(&pair), pair.orphans()), (Vec::new(), Vec::new()));
    assert_eq!(pair.ids(), pair.ids_of_source());
}

/// Deletions were ignored once: what has stayed is a link of what goes now, in a directory that nobody lists.
#[test]
fn what_has_stayed_elsewhere_is_kept_by_a_copy_of_what_is_owed() {
    let mut pair = pair(Keeping::InPlace);
    pair.copy_owed(|source| fs::hard_link(source.join("one"), source.join("dir/one too")).unwrap());
    pair.copy_owed(|source| fs::remove_file(source.join("dir/one too")).unwrap());
    assert!(pair.replica().join("dir/one too").exists());
    pair.keeping = Some(aside());
    pair.copy_owed(|source| fs::remove_file(source.join("one")).unwrap());
    assert_eq!(kept(&pair), [once("one", "one")]);
    // By that nobody changes what is kept.
    fs::write(pair.replica().join("dir/one too"), "changed").unwrap();
    assert_eq!(kept(&pair), [once("one", "one")]);
    // Whether the source has that name nobody knows before all is listed: its id stays with it until then.
    assert_eq!(pair.ids().difference(&pair.ids_of_source()).count(), 1);
    pair.copy();
    assert_eq!(pair.ids(), pair.ids_of_source());
}

/// Whole directories go, with links among them, one of which is a person's as well.
#[test]
fn links_of_what_is_removed_are_kept_together() {
    let mut pair = pair(aside());
    pair.copy_owed(|source| {
        fs::hard_link(source.join("dir/two"), source.join("dir/sub/two too")).unwrap();
        fs::hard_link(source.join("dir/sub/three"), source.join("dir/sub/three too")).unwrap();
    });
    fs::hard_link(pair.replica().join("dir/two"), pair.dir.path().join("snapshot")).unwrap();
    pair.copy_owed(removes);
    let found = kept(&pair);
    let of = |content: &str| found.iter().filter(|(_, held, _)| held == content).collect::<Vec<_>>();
    assert_eq!(of("dir/two").len(), 1, "{found:?}");
    assert_eq!(of("dir/two")[0].2, 1);
    assert_eq!(of("dir/sub/three").iter().map(|(_, _, links)| *links).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(pair.ids(), pair.ids_of_source());
}

/// What stayed was missed when somebody removed it, which is allowed: "somebody removed objects".
#[test]
fn what_is_kept_in_its_place_is_no_object_any_more() {
    let mut pair = pair(Keeping::InPlace);
    pair.copy_owed(|source| {
        fs::hard_link(source.join("one"), source.join("dir/one too")).unwrap();
        fs::hard_link(source.join("stays"), source.join("dir/sub/link")).unwrap();
        fs::hard_link(source.join("dir/two"), source.join("lives")).unwrap();
    });
    pair.copy_owed(|source| {
        fs::rename(source.join("dir/sub/three"), source.join("moved")).unwrap();
        removes(source);
    });
    assert_eq!(pair.ids(), pair.ids_of_source());
    fs::remove_file(pair.replica().join("one")).unwrap();
    fs::remove_dir_all(pair.replica().join("dir")).unwrap();
    assert_eq!(pair.applier().look_for_objects(100).unwrap(), None);
}

/// A copy of everything that leaves something out did not forget it either.
#[test]
fn what_is_kept_is_forgotten_also_where_something_is_left_out() {
    let pair = pair(Keeping::InPlace);
    fs::write(pair.source.join("stays"), "other content").unwrap();
    removes(&pair.source);
    let stays = pair.replica().join("stays");
    immutable(&stays, true);
    let outcome = pair.copy();
    immutable(&stays, false);
    assert!(!outcome.left_out.is_empty() && pair.replica().join("dir/two").exists());
    assert_eq!(pair.ids(), pair.ids_of_source());
}

/// It stayed in the directory that is listed first, and went from there to where the source has it.
#[test]
fn a_directory_keeps_its_time_when_what_stayed_goes_on() {
    let pair = pair(Keeping::InPlace);
    fs::create_dir(pair.source.join("into")).unwrap();
    pair.copy();
    let root = File::open(&pair.source).unwrap();
    let before = root.metadata().unwrap().modified().unwrap();
    fs::rename(pair.source.join("dir"), pair.source.join("into/dir")).unwrap();
    root.set_modified(before).unwrap();
    pair.copy();
    pair.check_equal();
}

/// A directory that is new is listed before the target has it, and again later: what came into it had stayed where it
/// was, in a directory that had its time by then.
#[test]
fn a_directory_keeps_its_time_when_what_is_owed_leaves_it_late() {
    const ROUNDS: u32 = 12;
    let mut pair = pair(Keeping::InPlace);
    for round in 0..ROUNDS {
        fs::create_dir_all(pair.source.join(format!("dir/{round}/moved"))).unwrap();
    }
    pair.converges();
    pair.rests = true;
    // What is listed first depends on ids that the file system takes at random.
    for round in 0..ROUNDS {
        pair.copy_owed(|source| {
            let into = source.join(format!("new{round}"));
            fs::create_dir(&into).unwrap();
            fs::rename(source.join(format!("dir/{round}/moved")), into.join("moved")).unwrap();
        });
        pair.check_equal();
    }
}

/// What lives is never forgotten.
#[test]
fn random_copies_of_what_is_owed_keep_what_is_removed_in_its_place() {
    for seed in 1..=12 {
        println!("STANDIN_TEST_SEED={seed}");
        let mut random = Random::new(seed);
        let mut pair = Pair::new();
        (0..40).for_each(|_| change(&pair.source, &mut random));
        pair.converges();
        pair.keeping = Some(Keeping::InPlace);
        for _ in 0..4 {
            pair.copy_owed(|source| (0..12).for_each(|_| change(source, &mut random)));
            let forgotten: Vec<_> = pair.ids_of_source().difference(&pair.ids()).copied().collect();
            assert!(forgotten.is_empty(), "{forgotten:?}");
        }
    }
}

/// The note of the time of the directory that a moved one leaves failed, and tried again nothing was to be moved: it kept
/// the time of the move.
#[test]
fn a_directory_keeps_its_time_when_one_leaves_it_late_whatever_fails() {
    let mut moved = 0;
    for fails_at in 0..5 {
        let mut pair = pair(Keeping::InPlace);
        pair.rests = true;
        // What is not listed stays, until it comes up elsewhere.
        fs::rename(pair.source.join("dir/sub"), pair.source.join("sub")).unwrap();
        pair.converges();
        fs::rename(pair.source.join("sub"), pair.source.join("dir/sub")).unwrap();
        let calls = Rc::new(Cell::new(0));
        let counted = calls.clone();
        failpoint::set(Some(Rc::new(move |place| {
            if place == "time" && counted.replace(counted.get() + 1) == fails_at {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            Ok(())
        })));
        let outcome = pair.copy();
        failpoint::set(None);
        assert!(outcome.left_out.is_empty(), "{fails_at}: {outcome:?}");
        pair.check_equal();
        moved += u64::from(calls.get() > fails_at);
    }
    assert!(moved > 0, "nothing failed");
}
