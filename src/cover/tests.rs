//! Covers of directories, really mounted.

use super::*;

/// A directory with a file, another file system over it, and a place for notes.
struct Scene {
    base: tempfile::TempDir,
}

impl Scene {
    fn new() -> Scene {
        assert!(rustix::process::geteuid().is_root(), "this test mounts: run it as root");
        let scene = Scene { base: tempfile::tempdir_in("/var/tmp").unwrap() };
        fs::create_dir_all(scene.at()).unwrap();
        fs::create_dir_all(scene.state()).unwrap();
        fs::write(scene.at().join("data"), "kept").unwrap();
        scene
    }

    fn at(&self) -> PathBuf {
        self.base.path().join("web")
    }

    fn state(&self) -> PathBuf {
        self.base.path().join("state/web")
    }

    fn mount(&self) -> fs::File {
        let under = fs::File::open(self.at()).unwrap();
        let flags = MountOptions::default().flags();
        rustix::mount::mount("none", self.at(), "tmpfs", flags, None).unwrap();
        under
    }

    fn unmount(&self) {
        rustix::mount::unmount(self.at(), UnmountFlags::NOFOLLOW).unwrap();
    }

    fn ready(&self, under: &fs::File) -> Ready {
        Ready::new(&self.state(), &self.at(), &self.at(), under).unwrap()
    }

    #[track_caller]
    fn is_covered(&self) {
        let error = fs::write(self.at().join("new"), "").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        assert_eq!(fs::read_to_string(self.at().join("data")).unwrap(), "kept");
        assert_eq!(self.noted().stands().unwrap(), Standing::OnTop);
    }

    fn noted(&self) -> Cover {
        Cover::noted(&self.state()).unwrap().expect("a note")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        while rustix::mount::unmount(self.at(), UnmountFlags::DETACH).is_ok() {}
    }
}

#[test]
fn it_stands_when_the_mount_goes_and_goes_when_it_is_lifted() {
    let scene = Scene::new();
    let under = scene.mount();
    let mut ready = scene.ready(&under);
    if ready.slip_beneath() {
        assert_eq!(scene.noted().stands().unwrap(), Standing::Beneath);
        fs::write(scene.at().join("above"), "").expect("the mount on top is as it was");
        // While something is over it nobody takes it away, or forgets it.
        assert_eq!(scene.noted().lift(&scene.state()).unwrap(), Standing::Beneath);
        // Nor is there ever a second one.
        assert!(scene.ready(&under).slip_beneath());
        scene.unmount();
        scene.is_covered();
        assert_eq!(scene.noted().gap_us, None);
        assert!(Cover::all(scene.base.path().join("state").as_path())[0].1.words().contains("is covered"));
    }
    scene.noted().lift(&scene.state()).unwrap();
    assert_eq!(Cover::noted(&scene.state()).unwrap(), None);
    fs::write(scene.at().join("new"), "").expect("it is an ordinary directory");
}

#[test]
fn an_older_kernel_has_it_right_after_and_says_the_gap() {
    let scene = Scene::new();
    let under = scene.mount();
    let ready = scene.ready(&under);
    let before = Instant::now();
    scene.unmount();
    ready.put_over(before).unwrap();
    scene.is_covered();
    assert!(scene.noted().gap_us.is_some());
    let cover = scene.noted();
    assert_eq!(cover.lift(&scene.state()).unwrap(), Standing::OnTop);
    cover.put_back(&scene.state()).unwrap();
    scene.is_covered();
    assert_eq!(scene.noted().since_unix_ms, cover.since_unix_ms);
}

#[test]
fn one_of_another_boot_and_one_that_was_taken_away_are_said() {
    let scene = Scene::new();
    let under = fs::File::open(scene.at()).unwrap();
    scene.ready(&under).give_up();
    assert_eq!(Cover::noted(&scene.state()).unwrap(), None);
    drop(scene.ready(&under));
    let cover = scene.noted();
    assert_eq!(cover.stands().unwrap(), Standing::Gone);
    assert!(cover.words().contains("taken the cover away"));
    // A read-only mount of something else is somebody else's.
    let other = scene.mount();
    seal_tree(fs::File::open(scene.at()).unwrap(), Seal::ReadOnly).unwrap();
    assert_eq!(cover.stands().unwrap(), Standing::Gone);
    scene.unmount();
    drop(other);
    let of_before = Cover { boot: "0".into(), ..cover };
    assert!(of_before.words().contains("until this host was started"));
    assert_eq!(of_before.lift(&scene.state()).unwrap(), Standing::GoneByStart);
    assert_eq!(Cover::noted(&scene.state()).unwrap(), None);
}
