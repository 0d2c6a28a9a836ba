//! What is removed on the source is kept on a good replica: in its place, or aside.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::sync::items;
use super::*;
use crate::random::Random;

pub fn aside() -> Keeping {
    Keeping::Aside { into: Name::new(b"trash").unwrap(), days: 30 }
}

/// What is said of a removal instead.
pub fn kept((op, payload): Said, keeping: &Keeping) -> Said {
    let keeping = keeping.clone();
    let op = match op {
        Op::Unlink { at, dir_mtime, object, links } => Op::Keep { at, dir_mtime, object, links, keeping },
        Op::RemoveDirectory { at, dir_mtime, object } => {
            Op::Keep { at, dir_mtime, object, links: 0, keeping }
        }
        other => panic!("{}", other.name()),
    };
    (op, payload)
}

pub fn pair() -> (Pair, Source) {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.mkdir("dir", 0o755));
    for name in ["dir/one", "two"] {
        pair.say(source.create(name, 0o640));
        pair.say(source.write(name, 0, name.as_bytes()));
    }
    pair.say(source.link("two", "dir/other"));
    (pair, source)
}

impl Pair {
    /// Content by path of what was kept aside.
    pub fn aside(&self) -> Vec<(String, String)> {
        let trash = self.places.limbo.join("deleted/trash");
        let Ok(days) = fs::read_dir(&trash) else { return Vec::new() };
        let mut found = Vec::new();
        for day in days {
            let day = day.unwrap().path();
            for (name, _) in tree::describe(&day) {
                if day.join(&name).is_file() {
                    let content = fs::read_to_string(day.join(&name)).unwrap();
                    found.push((name.to_string_lossy().into_owned(), content));
                }
            }
        }
        found.sort();
        found
    }
}

/// With the path and the time that it had.
#[test]
fn removed_files_are_kept_aside() {
    let (mut pair, source) = pair();
    let mtime = source.mtime("dir/one");
    pair.say(kept(source.unlink("dir/one"), &aside()));
    assert_eq!(pair.aside(), [("dir/one".to_owned(), "dir/one".to_owned())]);
    let day = fs::read_dir(pair.places.limbo.join("deleted/trash")).unwrap().next().unwrap().unwrap();
    assert_eq!(Source { root: day.path() }.mtime("dir/one"), mtime);
    // Only the last name.
    pair.say(kept(source.unlink("two"), &aside()));
    assert_eq!(pair.aside().len(), 1);
    pair.say(kept(source.unlink("dir/other"), &aside()));
    assert_eq!(pair.aside()[1], ("dir/other".to_owned(), "two".to_owned()));
    // The same path once more.
    pair.say(source.create("dir/one", 0o600));
    pair.say(kept(source.unlink("dir/one"), &aside()));
    assert_eq!(pair.aside()[1], ("dir/one~2".to_owned(), String::new()));
    pair.say(source.rmdir("dir"));
    pair.assert_same();
    assert_eq!(pair.applier().look_for_objects(100).unwrap(), None);
    pair.applier().remove_overdue(0);
    assert_eq!(pair.aside().len(), 3);
}

#[test]
fn what_is_kept_in_its_place_gives_way() {
    let (mut pair, source) = pair();
    let mtime = source.mtime("dir/one");
    for said in [source.unlink("dir/one"), source.unlink("dir/other"), source.unlink("two")] {
        pair.say(kept(said, &Keeping::InPlace));
    }
    pair.say(kept(source.rmdir("dir"), &Keeping::InPlace));
    pair.say(source.mkdir("empty", 0o755));
    pair.say(kept(source.rmdir("empty"), &Keeping::InPlace));
    pair.applier().set_pending_times().unwrap();
    let replica = Source { root: pair.places.root.clone() };
    assert_eq!(replica.mtime("dir/one"), mtime);
    assert_eq!(fs::read_to_string(pair.replica("two")).unwrap(), "two");
    assert!(pair.replica("dir/other").exists() && !pair.replica("empty").exists());
    assert_eq!(pair.applier().look_for_objects(100).unwrap(), None);
    // Also in the process after this one.
    pair.crash();
    pair.say(source.create("two", 0o644));
    pair.say(source.mkdir("new", 0o755));
    pair.say(source.rename("new", "dir"));
    pair.assert_same();
}

/// The state was set back to before it was kept, the disk was not: a copy that found it by its id would take it
/// back.
#[test]
fn what_is_kept_aside_is_no_object_of_an_older_index() {
    let (mut pair, source) = pair();
    let object = source.id("dir/one");
    let handle = pair.applier().replica().handle(object).unwrap();
    pair.say(kept(source.unlink("dir/one"), &aside()));
    let day = fs::read_dir(pair.places.limbo.join("deleted/trash")).unwrap().next().unwrap().unwrap();
    let file = tree::o_path(&day.path().join("dir/one"));
    pair.applier().replica().bind(object, &file).unwrap();
    assert_eq!(pair.applier().replica().handle(object).unwrap(), handle);
    let found = pair.applier().replica().object(object);
    assert!(matches!(found, Err(Fault::Outside { .. })), "{found:?}");
}

/// A directory that goes over one in which something is kept.
#[test]
fn a_directory_takes_the_place_of_one_in_which_something_is_kept() {
    let (mut pair, source) = pair();
    for said in [source.unlink("dir/one"), source.unlink("dir/other")] {
        pair.say(kept(said, &Keeping::InPlace));
    }
    pair.say(source.mkdir("new", 0o755));
    pair.say(source.rename("new", "dir"));
    pair.assert_same();
}

#[test]
fn for_no_days_nothing_is_kept() {
    let (mut pair, source) = pair();
    let into = Name::new(b"trash").unwrap();
    let (op, payload) = source.unlink("two");
    for days in [0, crate::limits::KEEP_DAYS_MAX + 1] {
        let keeping = Keeping::Aside { into: into.clone(), days };
        let said = kept((op.clone(), payload.clone()), &keeping);
        assert!(pair.fails(&said).contains("days"));
    }
}

/// What was kept is a link of what is to come there: it waited, and was set aside.
#[test]
fn a_kept_name_gives_way_to_its_own_file() {
    let removed = |names: &[&str]| {
        let (mut pair, source) = pair();
        for name in names {
            pair.say(kept(source.unlink(name), &Keeping::InPlace));
        }
        (pair, source)
    };
    let cases: [fn(&Source) -> Said; 2] =
        [|source| source.rename("dir/other", "two"), |source| source.link("dir/other", "two")];
    for change in cases {
        let (mut pair, source) = removed(&["two", "dir/one"]);
        pair.say(change(&source));
        pair.say(source.write("two", 3, b" goes on"));
        fs::remove_file(pair.replica("dir/one")).unwrap();
        pair.assert_same();
        assert_eq!(pair.applier().look_for_objects(100).unwrap(), None);
    }
    // Killed after it has given way, and after all of it.
    for is_done in [false, true] {
        let (mut pair, source) = removed(&["two", "dir/one"]);
        let said = source.rename("dir/other", "two");
        let frame = pair.frame(&said);
        pair.applier().replica().pretend_begun(frame.position);
        fs::remove_file(pair.replica("two")).unwrap();
        if is_done {
            fs::rename(pair.replica("dir/other"), pair.replica("two")).unwrap();
        }
        pair.crash();
        assert!(matches!(pair.applier().handle(&frame), Outcome::Applied));
        fs::remove_file(pair.replica("dir/one")).unwrap();
        pair.assert_same();
    }
}

/// One random change of few names in one directory.
fn change(source: &Source, random: &mut Random) -> Option<Said> {
    let (one, other) = (format!("n{}", random.below(5)), format!("n{}", random.below(5)));
    let (has_one, has_other) = (source.path(&one).exists(), source.path(&other).exists());
    let is_same = has_one && has_other && source.id(&one) == source.id(&other);
    match random.below(8) {
        0 if !has_one => Some(source.create(&one, 0o644)),
        1 | 2 if has_one && !has_other => Some(source.link(&one, &other)),
        3 | 4 if has_one => Some(kept(source.unlink(&one), &Keeping::InPlace)),
        5 if has_one && !is_same => Some(source.rename(&one, &other)),
        6 if has_one && has_other && !is_same => Some(source.exchange(&one, &other)),
        7 if has_one => Some(source.write(&one, random.below(9), one.as_bytes())),
        _ => None,
    }
}

/// By name: content, and the first name of the same file.
fn files(source: &Path, root: &Path) -> BTreeMap<String, (Vec<u8>, String)> {
    let (mut found, mut first) = (BTreeMap::new(), BTreeMap::new());
    for name in (0..5).map(|number| format!("n{number}")).filter(|name| source.join(name).exists()) {
        let inode = fs::metadata(root.join(&name)).unwrap().ino();
        let same = first.entry(inode).or_insert_with(|| name.clone()).clone();
        found.insert(name.clone(), (fs::read(root.join(&name)).unwrap(), same));
    }
    found
}

#[test]
fn random_names_that_are_kept_in_their_places_give_way() {
    for seed in 1..=6 {
        eprintln!("seed {seed}");
        let (mut pair, mut random) = (Pair::new(), Random::new(seed));
        let source = Source { root: pair.source.root.clone() };
        let mut changes = 0;
        while changes < 200 {
            let Some(said) = change(&source, &mut random) else { continue };
            changes += 1;
            if random.one_in(4) {
                let frame = pair.frame(&said);
                let replica = pair.applier().replica();
                replica.pretend_begun(frame.position);
                if random.one_in(2) {
                    replica.perform_making_way(&said.0, &said.1, Doubt::None).unwrap();
                }
                pair.crash();
                assert!(matches!(pair.applier().handle(&frame), Outcome::Applied), "{:?}", said.0);
            } else {
                pair.say(said);
            }
            assert_eq!(files(&source.root, &source.root), files(&source.root, &pair.places.root));
            assert_eq!(pair.applier().look_for_objects(100).unwrap(), None);
        }
    }
}

/// It was switched on while a copy ran.
#[test]
fn what_is_kept_while_a_copy_runs_gives_way() {
    let (mut pair, source) = pair();
    pair.say(source.unlink("dir/other"));
    pair.say(source.unlink("dir/one"));
    pair.say(source.rmdir("dir"));
    pair.applier().set_pending_times().unwrap();
    let position = pair.applier().replica().applied();
    for (number, item) in items(&source, "two").into_iter().enumerate() {
        pair.applier().take_item(position, ItemNumber(number as u64), item, Bytes::new()).unwrap();
    }
    pair.say(kept(source.unlink("two"), &Keeping::InPlace));
    let position = pair.applier().replica().applied();
    pair.applier().take_item(position, ItemNumber(9), LaneItem::End, Bytes::new()).unwrap();
    assert!(pair.replica("two").exists());
    pair.say(source.mkdir("two", 0o755));
    pair.assert_same();
}
