use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;

use super::super::{Delete, Resolved, Why};
use super::*;
use crate::failpoint;

/// A replica, and its limbo beside it.
struct Scene {
    temp: tempfile::TempDir,
}

impl Scene {
    fn new(files: &[&[&str]]) -> Scene {
        let temp = tempfile::tempdir().unwrap();
        let scene = Scene { temp };
        fs::create_dir_all(scene.replica("")).unwrap();
        fs::create_dir_all(scene.limbo("")).unwrap();
        for names in files {
            let path = |name: &str| {
                let path = scene.replica(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                path
            };
            fs::write(path(names[0]), names[0]).unwrap();
            names[1..].iter().for_each(|name| fs::hard_link(path(names[0]), path(name)).unwrap());
        }
        scene
    }

    fn replica(&self, name: &str) -> PathBuf {
        self.temp.path().join("replica").join(name)
    }

    fn limbo(&self, name: &str) -> PathBuf {
        self.temp.path().join("limbo").join(name)
    }

    /// Each into a batch of its own.
    fn take(&self, names: &[&str]) {
        for path in names.iter().map(|name| self.replica(name)) {
            let name = Name::new(path.file_name().unwrap().as_encoded_bytes()).unwrap();
            let dir = File::open(path.parent().unwrap()).unwrap();
            self.open().take(&dir, &name, Why::NotOnSource).unwrap();
        }
    }

    fn open(&self) -> Limbo {
        let (root, limbo) = (self.replica(""), self.limbo(""));
        Limbo::open(&File::open(root).unwrap(), &File::open(limbo).unwrap()).unwrap()
    }

    fn resolve(&self, delete: Delete) -> Result<Resolved, Fault> {
        let (root, limbo) = (File::open(self.replica("")).unwrap(), File::open(self.limbo("")).unwrap());
        self.open().resolve(&root, &limbo, delete)
    }

    fn drop_living(&self, together: usize) {
        let root = File::open(self.replica("")).unwrap();
        drop_living(&root, &File::open(self.limbo("resync")).unwrap(), None, together).unwrap();
    }

    /// Names of files below a directory of limbo, with how many each has at all.
    fn names(&self, top: &str) -> Vec<(String, u64)> {
        let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let links = |path: &PathBuf| fs::symlink_metadata(path).unwrap().nlink();
        let mut found: Vec<_> = self.paths(top).iter().map(|path| (named(path), links(path))).collect();
        found.sort();
        found
    }

    fn paths(&self, top: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut waiting = vec![self.limbo(top)];
        while let Some(dir) = waiting.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
                let is_directory = entry.file_type().unwrap().is_dir();
                if is_directory { &mut waiting } else { &mut found }.push(entry.path());
            }
        }
        found.sort();
        found
    }
}

fn named(names: &[(&str, u64)]) -> Vec<(String, u64)> {
    names.iter().map(|(name, links)| ((*name).to_owned(), *links)).collect()
}

const FILES: &[&[&str]] =
    &[&["gone/one", "gone/below/two", "three"], &["gone/lives", "gone/below/lives too", "stays"]];

/// Of each file one name was left.
#[test]
fn what_is_gone_with_all_its_names_keeps_them() {
    let scene = Scene::new(FILES);
    scene.take(&["gone", "three"]);
    assert_eq!(scene.resolve(Delete::Nothing).unwrap().moved, 2);
    assert_eq!(scene.names("orphans"), named(&[("one", 3), ("three", 3), ("two", 3)]));
    assert_eq!(fs::metadata(scene.replica("stays")).unwrap().nlink(), 1);
}

/// Names that were orphans already were taken for some in the replica, and the rest went.
#[test]
fn names_that_a_killed_copy_has_moved_keep_no_others_from_being_orphans() {
    for killed_at in [0u32, 1, 2] {
        let scene = Scene::new(FILES);
        scene.take(&["gone/below", "gone/one", "three"]);
        let left = std::cell::Cell::new(killed_at);
        let dies: failpoint::Hook = Rc::new(move |place| {
            let now = place == "moved aside" && left.replace(left.get().wrapping_sub(1)) == 0;
            if now { Err(std::io::Error::other("killed")) } else { Ok(()) }
        });
        failpoint::with(dies, || assert!(scene.resolve(Delete::Nothing).is_err()));
        scene.resolve(Delete::Nothing).unwrap();
        assert_eq!(
            scene.names("orphans"),
            named(&[("one", 3), ("three", 3), ("two", 3)]),
            "killed before move {killed_at}"
        );
    }
}

/// A name that still waits is linked back by the copy after the one that was killed.
#[test]
fn what_is_linked_back_is_no_orphan_by_names_that_a_killed_copy_has_moved() {
    for killed_at in [0u32, 1, 2] {
        let scene = Scene::new(FILES);
        scene.take(&["gone/below", "gone/one", "three"]);
        let left = std::cell::Cell::new(killed_at);
        let dies: failpoint::Hook = Rc::new(move |place| {
            let now = place == "moved aside" && left.replace(left.get().wrapping_sub(1)) == 0;
            if now { Err(std::io::Error::other("killed")) } else { Ok(()) }
        });
        failpoint::with(dies, || assert!(scene.resolve(Delete::Nothing).is_err()));
        let waits = scene.paths("resync").into_iter().find(|path| !path.ends_with("lives too")).unwrap();
        fs::hard_link(waits, scene.replica("back")).unwrap();
        scene.resolve(Delete::Nothing).unwrap();
        assert_eq!(scene.names("orphans"), [], "killed before move {killed_at}");
        assert_eq!(fs::metadata(scene.replica("back")).unwrap().nlink(), 1);
    }
}

/// What was deleted is kept for some days, and not as an orphan as well.
#[test]
fn what_is_kept_for_some_days_is_no_orphan() {
    let scene = Scene::new(FILES);
    fs::create_dir_all(scene.limbo("deleted/set/until-2000-01-01")).unwrap();
    fs::rename(scene.replica("three"), scene.limbo("deleted/set/until-2000-01-01/three")).unwrap();
    scene.take(&["gone"]);
    scene.resolve(Delete::Nothing).unwrap();
    assert_eq!(scene.names("orphans"), []);
    assert_eq!(scene.names("deleted"), named(&[("three", 1)]));
}

/// An object counts once, however many names it has: against the guard, too.
#[test]
fn names_of_one_object_are_one_that_is_deleted() {
    for (objects, deleted) in [(0, 0), (1, 2)] {
        let scene = Scene::new(FILES);
        fs::remove_file(scene.replica("three")).unwrap();
        scene.take(&["gone/one", "gone/below/two"]);
        assert_eq!(scene.resolve(Delete::UpTo { objects }).unwrap().deleted, deleted, "{objects}");
        assert_eq!(scene.names("orphans").len() as u64, 2 - deleted);
    }
}

#[test]
fn more_objects_than_are_counted_together_keep_their_names_as_well() {
    let text: Vec<[String; 3]> =
        (0..40).map(|number| ["a", "b", "c"].map(|dir| format!("{dir}/{number}"))).collect();
    let files: Vec<Vec<&str>> = text.iter().map(|names| names.iter().map(String::as_str).collect()).collect();
    let scene = Scene::new(&files.iter().map(Vec::as_slice).collect::<Vec<_>>());
    // Of every other one a name stays.
    (0..40).step_by(2).for_each(|number| {
        fs::rename(scene.replica(&format!("c/{number}")), scene.replica(&format!("stays-{number}"))).unwrap();
    });
    scene.take(&["a", "b", "c"]);
    scene.drop_living(3);
    let left = scene.names("resync");
    assert_eq!(left.len(), 60);
    assert!(
        left.iter().all(|(name, links)| *links == 3 && name.parse::<u32>().unwrap() % 2 == 1),
        "{left:?}"
    );
    assert!(
        (0..40)
            .step_by(2)
            .all(|number| { fs::metadata(scene.replica(&format!("stays-{number}"))).unwrap().nlink() == 1 })
    );
}
