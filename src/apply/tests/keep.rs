//! What is removed on the source is kept on a good replica: in its place, or aside.

use std::fs;

use super::*;

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

fn pair() -> (Pair, Source) {
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
    fn aside(&self) -> Vec<(String, String)> {
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
    pair.applier().remove_overdue();
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
