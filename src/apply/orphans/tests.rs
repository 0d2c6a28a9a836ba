use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use super::*;
use crate::xattr::Flags;

/// A replica, and what a copy may have left beside it.
struct Scene {
    temp: TempDir,
}

impl Scene {
    fn new() -> Scene {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join(".replica.standin/orphans")).unwrap();
        Scene { temp }
    }

    fn orphans(&self) -> Orphans {
        Orphans::of(&self.temp.path().join("replica")).unwrap().unwrap()
    }

    /// Of a batch that went aside so many seconds after 1970.
    fn batch(&self, seconds: u64) -> PathBuf {
        let path = self.temp.path().join(format!(".replica.standin/orphans/{seconds}-00ff"));
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn listed(&self) -> Vec<(PathBuf, u64)> {
        let listing = self.orphans().list(100, &|| true).unwrap();
        assert_eq!(listing.count, listing.first.len() as u64);
        listing.first.into_iter().map(|orphan| (orphan.place, orphan.amount.objects)).collect()
    }

    fn remove(&self, which: &Which) -> Removed {
        self.orphans().remove(which, &|| true).unwrap()
    }
}

#[test]
fn what_was_noted_of_an_orphan_is_shown() {
    let scene = Scene::new();
    let orphans = scene.orphans();
    fs::write(scene.batch(7).join("a"), [1; 5000]).unwrap();
    fs::write(scene.batch(7).join("b"), "").unwrap();
    let name = Name::new(b"a").unwrap();
    noted::add(&orphans.limbo, "00ff", &name, Some(Path::new("dir/a")), Why::NotOnSource);
    let listing = orphans.list(1, &|| true).unwrap();
    assert_eq!((listing.count, listing.total.objects), (2, 2));
    let [orphan] = &listing.first[..] else { panic!("{listing:?}") };
    assert_eq!((orphan.path.as_deref(), orphan.why), (Some(Path::new("dir/a")), Some(Why::NotOnSource)));
    assert_eq!((orphan.place.as_path(), orphan.since), (Path::new("7-00ff/a"), Duration::from_secs(7)));
    assert!((4096..100_000).contains(&orphan.amount.bytes), "{orphan:?}");
    // By the path that it had, by its place, and the notes go with the last.
    assert_eq!(scene.remove(&Which::Paths(vec!["other".into(), "7-00ff/b".into()])).count, 1);
    assert_eq!(scene.remove(&Which::Paths(vec!["dir".into()])).amount, orphan.amount);
    assert_eq!(fs::read_dir(scene.temp.path().join(".replica.standin/orphans")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(scene.temp.path().join(".replica.standin/noted")).unwrap().count(), 0);
}

#[test]
fn the_older_ones_go() {
    let scene = Scene::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    fs::create_dir(scene.batch(now - 1000).join("old")).unwrap();
    fs::create_dir(scene.batch(now - 10).join("young")).unwrap();
    assert_eq!(scene.remove(&Which::OlderThan(Duration::from_secs(500))).count, 1);
    assert_eq!(scene.listed(), [(PathBuf::from(format!("{}-00ff/young", now - 10)), 1)]);
}

#[test]
fn a_deep_tree_goes_and_whoever_hangs_up_stops_it() {
    let scene = Scene::new();
    let deep = "d/".repeat(1500);
    let dir = scene.batch(1);
    let mut at = File::open(&dir).unwrap();
    for _ in deep.split('/').skip(1) {
        rustix::fs::mkdirat(&at, "d", 0o755.into()).unwrap();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        at = rustix::fs::openat(&at, "d", flags, 0.into()).unwrap().into();
    }
    assert_eq!(scene.listed(), [(PathBuf::from("1-00ff/d"), 1500)]);
    let asked = std::cell::Cell::new(0);
    let cut = scene.orphans().remove(&Which::All, &|| asked.replace(asked.get() + 1) < 1200).unwrap();
    assert!(cut.is_cut_off && cut.failed > 0, "{cut:?}");
    let removed = scene.remove(&Which::All);
    assert_eq!((removed.count, removed.failed), (1, 0), "{removed:?}");
    assert_eq!(scene.listed(), []);
}

#[test]
fn nothing_outside_is_touched() {
    let scene = Scene::new();
    let outside = scene.temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "x").unwrap();
    let dir = scene.batch(1);
    fs::create_dir_all(dir.join("tree/mounted")).unwrap();
    fs::write(dir.join("tree/file"), "x").unwrap();
    symlink(&outside, dir.join("tree/way out")).unwrap();
    symlink(&outside, dir.with_file_name("9-batch")).unwrap();
    mount(&outside, dir.join("tree/mounted"), "", MountFlags::BIND, None).unwrap();
    let removed = scene.remove(&Which::All);
    unmount(dir.join("tree/mounted"), UnmountFlags::DETACH).unwrap();
    assert_eq!((removed.count, removed.amount.objects), (0, 2), "{removed:?}");
    assert!(removed.first_failure.unwrap().contains("mounted"));
    assert!(outside.join("kept").exists());
    assert_eq!(scene.listed(), [(PathBuf::from("1-00ff/tree"), 2)]);
}

/// `rm -rf` stops at such ones; the rest of a restoration did, too.
#[test]
fn what_flags_keep_is_removed_with_what_it_lies_in() {
    let temp = tempfile::tempdir().unwrap();
    let (root, deep) = (File::open(temp.path()).unwrap(), temp.path().join("x/y"));
    fs::create_dir_all(&deep).unwrap();
    for (name, flags) in [("x/y/f", Flags::IMMUTABLE), ("x/g", Flags::APPEND_ONLY), ("x/y", Flags::IMMUTABLE)]
    {
        let path = temp.path().join(name);
        if !path.exists() {
            fs::write(&path, "1").unwrap();
        }
        flags.set(File::open(&path).unwrap().as_fd()).unwrap();
    }
    remove_whole(&root, OsStr::new("x")).unwrap();
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    remove_whole(&root, OsStr::new("x")).unwrap();
}
