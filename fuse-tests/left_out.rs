//! Objects that cannot be copied do not keep the others from being protected: they are left out,
//! named, and the replica is bad for them.

use std::fs;
use std::process::Command;

use crate::host::{Image, Protected, SYNC_MAX, Setup, dir_on_disk, require_program, run};
#[cfg(feature = "suites")]
use {crate::host::Disk, rustix::fs::XattrFlags, std::path::Path};

/// Waits until the replica has a change that is made now.
#[track_caller]
fn follows(protected: &Protected) {
    fs::write(protected.mount.join("later"), "later").expect("written through the mount");
    let deadline = std::time::Instant::now() + SYNC_MAX;
    while !fs::read(protected.replica.join("later")).is_ok_and(|found| found == b"later") {
        assert!(
            std::time::Instant::now() < deadline,
            "what is written does not arrive\n{}",
            protected.said()
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// One damaged file of 300 kept the other 299 from being served and copied.
#[test]
fn a_damaged_file_is_left_out_and_named() {
    let base = dir_on_disk();
    let at = base.path().join("disk");
    let image = Image::mount(base.path(), at.clone(), "ext4", 64);
    fs::create_dir(at.join("tree")).expect("a directory");
    for number in 0..300 {
        fs::write(at.join(format!("tree/f{number}")), format!("content {number}")).expect("a file");
    }
    let file = base.path().join("disk.image");
    image.forget(&file);
    // The beginning of one file's list of extents: its magic, and that it has one.
    let set_extents = |word: u32| {
        let request = format!("sif /tree/f150 block[0] {word}");
        run(Command::new(require_program("debugfs")).args(["-w", "-R", &request]).arg(&file));
    };
    set_extents(0);
    let mut image = Some(Image::mount_existing(&file, at.clone()));
    assert!(fs::read(at.join("tree/f150")).is_err(), "it can be read");
    let mut protected = Protected::prepare(Setup::default());
    protected.backing = at.join("tree");
    protected.start_again();
    let said = protected.said();
    assert!(said.contains("f150") && said.contains("left out"), "{said}");
    let copied = fs::read_dir(&protected.replica).expect("the replica").filter_map(Result::ok);
    let copied =
        copied.filter(|entry| fs::read(entry.path()).is_ok_and(|content| content.starts_with(b"content")));
    assert_eq!(copied.count(), 299);
    assert_eq!(fs::read(protected.mount.join("f151")).expect("served"), b"content 151");
    let status = protected.status().split_whitespace().collect::<String>();
    assert!(status.contains("\"left_out\":{\"count\":1") && status.contains("f150"), "{status}");
    follows(&protected);
    let said = protected.stop_incomplete_by(libc::SIGTERM);
    assert!(said.contains("1 object left out of the copy"), "{said}");
    // Mended, it is copied by the next start.
    image.take().expect("mounted").forget(&file);
    set_extents(0x0001_f30a);
    image = Some(Image::mount_existing(&file, at.clone()));
    protected.start_again();
    protected.assert_in_sync();
    assert_eq!(fs::read(protected.replica.join("f150")).expect("the file"), b"content 150");
    protected.stop();
    drop((protected, image));
}

/// With file systems whose tools are not everywhere.
#[cfg(feature = "suites")]
mod suites {
    use super::*;

    /// An attribute for which the target's file system has no room held the copy, and with it every
    /// program in the directory, for ever.
    #[test]
    fn an_attribute_that_the_target_cannot_take_is_left_out() {
        let disk = |kind| Disk::Image { kind, mib: 300 };
        let setup = Setup { source: disk("xfs"), replica: disk("ext4"), ..Setup::default() };
        let mut protected = Protected::prepare(setup);
        for number in 0..20 {
            fs::write(protected.backing.join(format!("f{number}")), "content").expect("a file");
        }
        let file = protected.backing.join("f7");
        rustix::fs::setxattr(&file, "user.big", &[7; 20_480], XattrFlags::empty()).expect("an attribute");
        rustix::fs::setxattr(&file, "user.small", b"small", XattrFlags::empty()).expect("an attribute");
        protected.start_again();
        let said = protected.said();
        assert!(said.contains("f7") && said.contains("user.big"), "{said}");
        let copy = protected.replica.join("f7");
        assert_eq!(fs::read(&copy).expect("the file"), b"content");
        let mut value = [0; 5];
        assert_eq!(rustix::fs::getxattr(&copy, "user.small", &mut value).expect("the attribute"), 5);
        follows(&protected);
        protected.stop_incomplete_by(libc::SIGTERM);
        rustix::fs::removexattr(Path::new(&file), "user.big").expect("removed");
        protected.start_again();
        protected.assert_in_sync();
        protected.stop();
    }

    /// Twelve large attributes of one file, which its owner can set, kept a directory from being
    /// protected again.
    #[test]
    fn large_attributes_do_not_stop_a_start() {
        for kind in ["xfs", "btrfs"] {
            let disk = || Disk::Image { kind, mib: 300 };
            let mut protected =
                Protected::start(Setup { source: disk(), replica: disk(), ..Setup::default() });
            let file = protected.mount.join("file");
            fs::write(&file, "x").expect("a file");
            let max = if kind == "xfs" { 65_536 } else { 16_000 };
            for number in 0..12 {
                let (name, value) = (format!("user.{number}"), vec![number; max]);
                rustix::fs::setxattr(&file, name, &value, XattrFlags::empty()).expect("an attribute");
            }
            protected.assert_in_sync();
            protected.stop();
            protected.start_again();
            protected.assert_in_sync();
            protected.stop();
        }
    }

    fn xfs() -> Disk {
        Disk::Image { kind: "xfs", mib: 320 }
    }

    fn make_project(dir: &Path, number: &str) {
        let chproj = format!("chproj {number}");
        run(Command::new(require_program("xfs_io")).args(["-c", &chproj, "-c", "chattr +P"]).arg(dir));
    }

    /// Where a directory of the replica takes no links from another one, names of one file were empty files there,
    /// and the replica was called good. A start with such a replica as the directory then emptied the other side.
    #[test]
    fn names_that_the_target_cannot_link_are_left_out() {
        let setup = Setup { replica: xfs(), arguments: vec!["--adopt"], ..Setup::default() };
        let mut protected = Protected::prepare(setup);
        for (number, dir) in [("8", "a"), ("9", "b")] {
            fs::create_dir(protected.backing.join(dir)).expect("a directory");
            fs::create_dir(protected.replica.join(dir)).expect("a directory");
            make_project(&protected.replica.join(dir), number);
        }
        let names = [["a/one", "b/one"], ["a/two", "two"]];
        for [first, second] in names {
            fs::write(protected.backing.join(first), first).expect("a file");
            fs::hard_link(protected.backing.join(first), protected.backing.join(second)).expect("a link");
        }
        fs::write(protected.backing.join("b/moved"), "by a name").expect("a file");
        protected.start_again();
        let status = protected.status().split_whitespace().collect::<String>();
        assert!(status.contains("\"left_out\":{\"count\":2"), "{status}");
        let is_whole = |protected: &Protected, name: &str, content: &str| {
            fs::read_to_string(protected.replica.join(name)).is_ok_and(|found| found == content)
        };
        for [first, second] in names {
            let there = [first, second].map(|name| protected.replica.join(name).exists());
            let whole = [first, second].map(|name| is_whole(&protected, name, first));
            assert_eq!(there, whole, "{first}: a name holds something else");
            assert_ne!(whole, [false, false], "{first} is not there by any name");
        }
        // What has one name goes there with its content, past such a border.
        fs::rename(protected.mount.join("b/moved"), protected.mount.join("a/moved")).expect("renamed");
        follows(&protected);
        // By a copy, where it could not be moved.
        crate::host::wait_until("moved", || is_whole(&protected, "a/moved", "by a name"));
        names.iter().for_each(|[_, second]| fs::remove_file(protected.mount.join(second)).expect("removed"));
        crate::host::run(crate::host::standin(&protected.run).args(["mirror", "start"]));
        protected.wait_in_line();
        protected.assert_in_sync();
        protected.stop();
    }

    /// The sum of their sizes is more than a number of 64 bits has: comparisons, and every copy, ended with a fault of
    /// the program.
    #[test]
    fn sizes_may_come_to_more_than_a_number_holds() {
        let mut protected = Protected::start(Setup { source: xfs(), replica: xfs(), ..Setup::default() });
        let names = ["one", "two", "three"];
        for name in names {
            let file = fs::File::create(protected.mount.join(name)).expect("a file");
            file.set_len(i64::MAX as u64).expect("as long as can be");
        }
        let verify = |protected: &Protected| {
            let mut command = crate::host::standin(&protected.run);
            let output = crate::host::output_within(command.args(["verify", "--checksum"]), SYNC_MAX);
            assert!(output.status.success(), "{}", crate::host::describe(&output));
        };
        protected.wait_sync();
        verify(&protected);
        protected.stop();
        protected.start_again();
        follows(&protected);
        crate::host::run(
            crate::host::standin(&protected.run).args(["mirror", "start", "--mode", "checksum"]),
        );
        protected.wait_in_line();
        verify(&protected);
        for name in names {
            let len = fs::metadata(protected.replica.join(name)).expect("the file").len();
            assert_eq!(len, i64::MAX as u64);
        }
        protected.stop();
    }
}
