//! Names in limbo of what lives on in the replica, or is kept for some days: they go. What has all its names in limbo
//! keeps them, also where some of them are orphans already: a copy that was killed had moved them. Where the next
//! copy has linked such an object back by a name that still waited, it is no orphan by its others.

use std::collections::HashMap;
use std::fs::File;

use rustix::fs::{AtFlags, Stat};

use super::{Limbo, ORPHANS, below, is_directory};
use crate::apply::fault::Fault;
use crate::apply::replica::trees::{self, unlink_flagged};
use crate::limits::{LINKED_IN_MEMORY, LINKED_PARTS_MAX};
use crate::packet::Name;

impl Limbo {
    /// Unlinks, in all that waits, every name of what has one in the replica as well.
    pub(super) fn drop_living(&self, mount: &File, limbo: &File) -> Result<(), Fault> {
        let place = Name::new(ORPHANS.as_bytes()).expect("a constant is a name");
        let moved = trees::open(limbo, &place).map_err(Fault::system("look into limbo"))?;
        drop_living(mount, &self.waiting, moved.as_ref(), LINKED_IN_MEMORY)
    }
}

/// Unlinks, in a whole tree, every name of a non-directory that has one outside of it, and of what was `moved`. The
/// last name of an object is never taken.
///
/// So many objects are looked at together; where there are more, it is gone through again for each part of them.
pub(super) fn drop_living(
    mount: &File,
    top: &File,
    moved: Option<&File>,
    together: usize,
) -> Result<(), Fault> {
    let (mut part, mut parts) = (0, 1);
    while part < parts {
        let mut names = Names { part, parts, together, counted: HashMap::new() };
        match names.count(mount, top)? {
            true => {
                if let Some(moved) = moved
                    && names.lives_any()
                {
                    names.count_moved(mount, moved)?;
                    // Before those that wait, by which a copy that is killed here is brought back to them.
                    if names.counted.values().any(|count| count.moved > 0 && count.lives()) {
                        names.drop_living(mount, moved, |count| &mut count.moved)?;
                    }
                }
                names.drop_living(mount, top, |count| &mut count.names)?;
                part += 1;
            }
            // What was gone through has no name here that goes: once more is no harm.
            false => (part, parts) = (0, parts * 2),
        }
    }
    Ok(())
}

/// Of a part of the objects, how many names each has in the tree.
struct Names {
    part: u64,
    parts: u64,
    together: usize,
    counted: HashMap<(u64, u64), Count>,
}

#[derive(Default)]
struct Count {
    /// In limbo, not moved yet.
    names: u64,
    moved: u64,
    /// Anywhere.
    links: u64,
}

impl Count {
    fn lives(&self) -> bool {
        self.links > self.names + self.moved
    }
}

impl Names {
    /// `false`: there are more objects than are looked at together.
    fn count(&mut self, mount: &File, top: &File) -> Result<bool, Fault> {
        let mut has_room = true;
        below(mount, top, |_, _, _, status| {
            let inode = inode_of(&status);
            if !has_several(&status) || !self.is_of_part(inode) {
                return Ok(());
            }
            let is_known = self.counted.contains_key(&inode);
            if is_known || self.counted.len() < self.together || self.parts == LINKED_PARTS_MAX {
                let count = self.counted.entry(inode).or_default();
                count.names += 1;
                count.links = links(&status);
            } else {
                has_room = false;
            }
            Ok(())
        })?;
        Ok(has_room)
    }

    fn lives_any(&self) -> bool {
        self.counted.values().any(Count::lives)
    }

    fn count_moved(&mut self, mount: &File, moved: &File) -> Result<(), Fault> {
        below(mount, moved, |_, _, _, status| {
            if let Some(count) = self.counted.get_mut(&inode_of(&status)) {
                count.moved += 1;
            }
            Ok(())
        })
    }

    /// `of`: which names these are.
    fn drop_living(
        &mut self,
        mount: &File,
        top: &File,
        of: impl Fn(&mut Count) -> &mut u64,
    ) -> Result<(), Fault> {
        below(mount, top, |dir, name, _, status| {
            let Some(count) = self.counted.get_mut(&inode_of(&status)) else { return Ok(()) };
            count.links = links(&status);
            if has_several(&status) && count.lives() {
                match unlink_flagged(dir, name, AtFlags::empty()) {
                    Ok(()) => {
                        let left = of(count);
                        *left = left.saturating_sub(1);
                        count.links -= 1;
                    }
                    // What cannot be unlinked (used, a mount) is an orphan.
                    Err(error) => {
                        log::warn!("{name:?}, which is not on the source, cannot be removed: {error}");
                    }
                }
            }
            Ok(())
        })
    }

    fn is_of_part(&self, (device, inode): (u64, u64)) -> bool {
        // Numbers of inodes are often multiples of something.
        let mixed = (device ^ inode).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        mixed % self.parts == self.part
    }
}

fn has_several(status: &Stat) -> bool {
    !is_directory(status) && status.st_nlink > 1
}

// These numbers have other widths on other processors.
#[allow(clippy::unnecessary_cast)]
fn links(status: &Stat) -> u64 {
    status.st_nlink as u64
}

#[allow(clippy::unnecessary_cast)]
fn inode_of(status: &Stat) -> (u64, u64) {
    (status.st_dev as u64, status.st_ino as u64)
}

#[cfg(test)]
mod tests {
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
        let files: Vec<Vec<&str>> =
            text.iter().map(|names| names.iter().map(String::as_str).collect()).collect();
        let scene = Scene::new(&files.iter().map(Vec::as_slice).collect::<Vec<_>>());
        // Of every other one a name stays.
        (0..40).step_by(2).for_each(|number| {
            fs::rename(scene.replica(&format!("c/{number}")), scene.replica(&format!("stays-{number}")))
                .unwrap();
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
            (0..40).step_by(2).all(|number| {
                fs::metadata(scene.replica(&format!("stays-{number}"))).unwrap().nlink() == 1
            })
        );
    }
}
