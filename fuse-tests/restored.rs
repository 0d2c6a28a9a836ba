//! Restoration from a replica on this host: everything comes back, nothing is left beside it, and the next
//! protection sends nothing.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, makedev, mknodat, utimensat,
};

use crate::host::{
    COMMAND_MAX, Daemon, Image, Place, Protected, SYNC_MAX, Setup, describe, output_within, require_program,
    run, standin, wait_until,
};
use crate::tree;

const NOTHING_SENT: &str = "content of 0 files was sent";

/// Of everything that a directory can hold, some.
pub fn fill_oddly(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("d/deep/er")).expect("directories");
    for number in 0..400 {
        fs::write(at(&format!("d/{number}")), vec![b'x'; number * 37]).expect("a file");
    }
    fs::hard_link(at("d/7"), at("d/deep/again")).expect("a link");
    symlink("/etc/passwd", at("out")).expect("a symlink");
    symlink("d/7", at("in")).expect("a symlink");
    let holes = File::create(at("holes")).expect("a file");
    holes.set_len(5 << 20).expect("a length");
    holes.write_all_at(&[7; 9000], 3 << 20).expect("data");
    for (name, kind, device) in [
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("null", FileType::CharacterDevice, makedev(1, 3)),
        ("disk", FileType::BlockDevice, makedev(7, 0)),
    ] {
        mknodat(CWD, at(name), kind, Mode::from_raw_mode(0o640), device).expect("a special file");
    }
    let flags = XattrFlags::empty();
    rustix::fs::setxattr(at("d/9"), "user.note", b"of a user", flags).expect("an attribute");
    rustix::fs::setxattr(at("d/9"), "trusted.note", b"of root", flags).expect("an attribute");
    rustix::fs::setxattr(at("d/10"), "user.large", &[b'l'; 3000], flags).expect("an attribute");
    run(Command::new(require_program("setfacl")).args(["-m", "u:1234:rwx,d:g:99:rx"]).arg(at("d/deep")));
    run(Command::new(require_program("setcap")).arg("cap_net_raw+ep").arg(at("d/11")));
    fs::set_permissions(at("d/12"), fs::Permissions::from_mode(0o4711)).expect("a mode");
    fs::set_permissions(at("d/deep/er"), fs::Permissions::from_mode(0o2000)).expect("a mode");
    std::os::unix::fs::chown(at("d/13"), Some(1234), Some(99)).expect("an owner");
    fs::write(at("na\u{ef}ve \u{2603}"), "named").expect("a file");
    let times = |sec, nsec| {
        let time = Timespec { tv_sec: sec, tv_nsec: nsec };
        Timestamps { last_access: time, last_modification: time }
    };
    utimensat(CWD, at("d/14"), &times(-77, 123_456_789), AtFlags::empty()).expect("a time");
    utimensat(CWD, at("d/deep"), &times(5, 999_999_999), AtFlags::empty()).expect("a time");
}

/// A directory that was protected and is lost, its replica, and commands on its host.
struct Lost {
    protected: Protected,
    to: PathBuf,
}

impl Lost {
    fn after(fill: impl FnOnce(&Path)) -> Lost {
        let protected = Protected::prepare(Setup { place: Place::Beside, ..Setup::default() });
        fill(&protected.backing);
        let mut lost = Lost { to: protected.backing.clone(), protected };
        lost.protected.start_again();
        lost.protected.assert_in_sync();
        lost.protected.stop();
        let kept = lost.kept();
        fs::rename(&lost.to, kept).expect("renamed");
        lost
    }

    /// What was lost, to compare with.
    fn kept(&self) -> PathBuf {
        self.protected.base.path().join("kept")
    }

    fn from(&self) -> String {
        format!("local:{}", self.protected.replica.display())
    }

    fn command(&self) -> Command {
        let mut command = standin(&self.protected.run);
        command.arg("--state").arg(&self.protected.state);
        command
    }

    fn restore_command(&self, to: &Path, arguments: &[&str]) -> Command {
        let mut command = self.command();
        command.args(["restore", &self.from(), "--to"]).arg(to);
        command.args(["--name", &self.name()]).args(arguments);
        command
    }

    /// The set's name, as its state has it.
    fn name(&self) -> String {
        let sets = fs::read_dir(&self.protected.state).expect("the state").filter_map(Result::ok);
        let set = sets.map(|entry| entry.path()).find(|path| path.join("set.json").exists()).expect("a set");
        set.file_name().expect("a name").to_string_lossy().into_owned()
    }

    #[track_caller]
    fn restores(&self, arguments: &[&str]) -> Output {
        let output = output_within(&mut self.restore_command(&self.to, arguments), SYNC_MAX);
        assert!(output.status.success(), "{}", describe(&output));
        output
    }

    #[track_caller]
    fn refuses(&self, to: &Path, arguments: &[&str], word: &str) {
        let output = output_within(&mut self.restore_command(to, arguments), COMMAND_MAX);
        let said = describe(&output);
        assert!(output.status.code() == Some(2) && said.contains(word), "no '{word}' in:\n{said}");
    }

    /// Nothing of the restoration is left.
    #[track_caller]
    fn assert_clean(&self) {
        let parent = self.to.parent().expect("a parent");
        let limbo = format!(".{}.standin", self.to.file_name().expect("a name").to_string_lossy());
        assert!(!parent.join(limbo).exists());
        let names = standin_marks(&self.to);
        assert_eq!(names, ["trusted.standin.set"], "left on the directory");
        assert!(!self.protected.state.join(self.name()).join("restore").exists());
    }

    /// Protects what was restored, and finds that nothing was sent.
    #[track_caller]
    fn protects_without_content(&mut self) {
        self.protected.start_again();
        // What it has said takes a moment to be read.
        wait_until("what was sent", || self.protected.said().contains("was sent"));
        let said = self.protected.said();
        assert!(said.contains(NOTHING_SENT), "{said}");
        fs::write(self.protected.mount.join("later"), "later").expect("written through the mount");
        self.protected.assert_in_sync();
        self.protected.stop();
    }
}

fn standin_marks(dir: &Path) -> Vec<String> {
    let mut list = vec![0; 4096];
    let len = rustix::fs::listxattr(dir, list.as_mut_slice()).expect("a list");
    let names = list[..len].split(|&byte| byte == 0).map(|name| String::from_utf8_lossy(name).into_owned());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("trusted.standin.")).collect();
    names.sort();
    names
}

#[test]
fn a_lost_directory_comes_back_whole_and_is_protected_without_content() {
    let mut lost = Lost::after(fill_oddly);
    let said = describe(&lost.restores(&[]));
    assert!(said.contains("standin protect"), "{said}");
    tree::assert_same(&lost.kept(), &lost.to);
    lost.assert_clean();
    lost.protects_without_content();
}

/// What was changed between the restoration and the protection is sent, also where size and time are the
/// same, and where names have come to other content.
#[test]
fn what_changed_since_is_sent() {
    let mut lost = Lost::after(|root| {
        for name in ["one", "two"] {
            fs::create_dir(root.join(name)).expect("a directory");
            fs::write(root.join(name).join("version"), name).expect("a file");
            let time = Timespec { tv_sec: 1_700_000_000, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            utimensat(CWD, root.join(name).join("version"), &times, AtFlags::empty()).expect("a time");
        }
        fs::write(root.join("same"), "before").expect("a file");
        fs::write(root.join("untouched"), "untouched").expect("a file");
    });
    lost.restores(&[]);
    let at = |name: &str| lost.to.join(name);
    fs::rename(at("one"), at("three")).expect("renamed");
    fs::rename(at("two"), at("one")).expect("renamed");
    fs::rename(at("three"), at("two")).expect("renamed");
    let before = fs::metadata(at("same")).expect("a file");
    fs::write(at("same"), "behind").expect("a file");
    let time = Timespec { tv_sec: before.mtime(), tv_nsec: before.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, at("same"), &times, AtFlags::empty()).expect("a time");
    lost.protected.start_again();
    lost.protected.assert_in_sync();
    let said = lost.protected.said();
    assert!(said.contains("content of 3 files was sent"), "{said}");
    lost.protected.stop();
}

#[test]
fn places_that_must_not_be_written_to_are_refused() {
    let mut lost = Lost::after(|root| fs::write(root.join("f"), "f").expect("a file"));
    let base = lost.protected.base.path().to_path_buf();
    lost.refuses(Path::new("/"), &[], "root");
    lost.refuses(&lost.protected.replica, &[], "is the replica");
    lost.refuses(&lost.protected.replica.join("in"), &[], "is inside the replica");
    lost.refuses(&base, &[], "is around");
    let beside = lost.protected.replica.with_file_name(".replica.standin");
    for place in [beside.clone(), beside.join("orphans/new"), base.join(".standin.limbo")] {
        lost.refuses(&place, &["--overwrite"], "where copies to a replica keep what they move aside");
    }
    lost.refuses(&lost.protected.state.join("x"), &[], "is inside the state directory");
    lost.refuses(&base.join("none/below"), &[], "cannot be made");
    lost.refuses(&lost.kept(), &[], "is not empty");
    lost.refuses(&lost.kept().join("f"), &[], "is no directory");
    // Another one's replica.
    let other = base.join("other");
    fs::create_dir(&other).expect("a directory");
    let identity = r#"{"set":9,"durable":{"epoch":{"number":1,"writer":2},"incarnation":3,"sequence":0,"chain":0},"data":"good"}"#;
    rustix::fs::setxattr(&other, "trusted.standin.replica", identity.as_bytes(), XattrFlags::empty())
        .expect("a mark");
    lost.refuses(&other, &[], "is a replica");
    assert_eq!(standin_marks(&other), ["trusted.standin.replica"]);
    let elsewhere = base.join("elsewhere");
    let output = output_within(
        lost.command().args(["restore", "local:/nowhere", "--to"]).arg(&elsewhere),
        COMMAND_MAX,
    );
    assert!(describe(&output).contains("cannot be opened"), "{}", describe(&output));
    let no_replica = format!("local:{}", lost.kept().display());
    let output =
        output_within(lost.command().args(["restore", &no_replica, "--to"]).arg(&elsewhere), COMMAND_MAX);
    assert!(describe(&output).contains("is no replica"), "{}", describe(&output));
    assert!(!elsewhere.exists());
    // While it is protected neither its replica is given nor the directory taken.
    fs::rename(lost.kept(), &lost.to).expect("renamed");
    lost.protected.start_again();
    lost.refuses(&elsewhere, &[], "cannot be restored from");
    lost.refuses(&lost.protected.mount, &["--overwrite"], "which standin protects");
    lost.refuses(&lost.to, &["--overwrite"], "");
    assert!(!elsewhere.exists());
    lost.protected.assert_in_sync();
    lost.protected.stop();
}

/// A restoration that is killed leaves a directory that nobody takes for whole, and goes on.
#[test]
fn a_killed_restoration_goes_on_and_nothing_is_protected_before() {
    let mut lost = Lost::after(|root| {
        for number in 0..3000 {
            fs::write(root.join(format!("f{number}")), vec![b'x'; number]).expect("a file");
        }
    });
    let mut child = lost.restore_command(&lost.to, &[]).spawn().expect("standin restore");
    let deadline = std::time::Instant::now() + COMMAND_MAX;
    while fs::read_dir(&lost.to).map_or(0, Iterator::count) < 50 {
        assert!(std::time::Instant::now() < deadline, "nothing comes");
    }
    child.kill().expect("our own child");
    child.wait().expect("our own child");
    if standin_marks(&lost.to).iter().any(|name| name == "trusted.standin.restoring") {
        let refused = output_within(&mut lost.protected.protect_command(), COMMAND_MAX);
        let said = describe(&refused);
        assert!(refused.status.code() == Some(2) && said.contains("is not whole"), "{said}");
        let other = lost.protected.base.path().join("other");
        fs::create_dir(&other).expect("a directory");
        let from = format!("local:{}", other.display());
        let output =
            output_within(lost.command().args(["restore", &from, "--to"]).arg(&lost.to), COMMAND_MAX);
        assert!(describe(&output).contains("is half restored from"), "{}", describe(&output));
    }
    lost.restores(&[]);
    tree::assert_same(&lost.kept(), &lost.to);
    lost.assert_clean();
    lost.protects_without_content();
}

#[test]
fn a_directory_that_has_something_is_overwritten_or_completed() {
    let lost = Lost::after(|root| {
        for name in ["both", "newer", "older", "missing"] {
            fs::write(root.join(name), format!("{name} of the replica")).expect("a file");
        }
        fs::create_dir(root.join("d")).expect("a directory");
        fs::write(root.join("d/in"), "in").expect("a file");
    });
    let old = |name: &str, seconds: i64| {
        fs::write(lost.to.join(name), format!("{name} of here")).expect("a file");
        let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, lost.to.join(name), &times, AtFlags::empty()).expect("a time");
    };
    let fill = || {
        let _ = fs::remove_dir_all(&lost.to);
        fs::create_dir(&lost.to).expect("a directory");
        old("both", 4_000_000_000);
        old("newer", 1000);
        old("older", 4_000_000_000);
        old("here", 1000);
    };
    let content = |name: &str| fs::read_to_string(lost.to.join(name)).unwrap_or_default();
    fill();
    let said = describe(&lost.restores(&["--missing-only"]));
    assert!(said.contains("stayed as they were: 3"), "{said}");
    assert_eq!(content("newer") + &content("missing"), "newer of heremissing of the replica");
    assert_eq!(content("here") + &content("d/in"), "here of herein");
    fill();
    lost.restores(&["--newer-only"]);
    assert_eq!(content("newer") + &content("older"), "newer of the replicaolder of here");
    let record =
        fs::read_to_string(lost.protected.state.join(lost.name()).join("set.json")).expect("a record");
    assert!(record.contains("\"restored_from\": null"), "what stayed counts as the replica's: {record}");
    assert_eq!(content("here") + &content("missing"), "here of heremissing of the replica");
    fill();
    lost.restores(&["--overwrite", "--orphans", "keep"]);
    assert_eq!(content("older") + &content("here"), "older of the replicahere of here");
    fill();
    let said = describe(&lost.restores(&["--overwrite"]));
    tree::assert_same(&lost.kept(), &lost.to);
    let limbo = lost
        .to
        .with_file_name(format!(".{}.standin", lost.to.file_name().expect("a name").to_string_lossy()));
    assert!(said.contains("not in the replica") && limbo.join("orphans").exists(), "{said}");
    // What an earlier one has moved aside is not this one's to delete.
    fill();
    lost.restores(&["--overwrite", "--orphans", "delete"]);
    tree::assert_same(&lost.kept(), &lost.to);
    assert_eq!(fs::read_dir(limbo.join("orphans")).expect("orphans").count(), 1, "deleted, or not deleted");
    fs::remove_dir_all(&limbo).expect("removed");
    fill();
    lost.restores(&["--overwrite", "--orphans", "delete"]);
    assert!(!limbo.exists(), "its own orphans were deleted");
    // Nobody's open file is replaced.
    fill();
    let writer = File::options().append(true).open(lost.to.join("older")).expect("a file");
    lost.refuses(&lost.to, &["--newer-only"], "open for writing");
    assert_eq!(content("newer"), "newer of here");
    drop(writer);
}

/// A snapshot by hard links, made before the restoration, got the content, the owners and the modes of the replica.
#[test]
fn a_copy_by_hard_links_keeps_what_it_has() {
    let lost = Lost::after(|root| {
        for (name, link) in [("x", "y"), ("same", "same too"), ("in", "in too")] {
            fs::write(root.join(name), format!("{name} of the replica")).expect("a file");
            fs::hard_link(root.join(name), root.join(link)).expect("a link");
        }
        fs::create_dir(root.join("d")).expect("a directory");
        fs::write(root.join("d/one"), "one of the replica").expect("a file");
        symlink("x", root.join("symlink")).expect("a symlink");
    });
    let [snap, before] = ["snapshot", "before"].map(|name| lost.protected.base.path().join(name));
    let fill = || {
        for dir in [&lost.to, &snap, &before] {
            let _ = fs::remove_dir_all(dir);
        }
        for dir in [&lost.to, &snap] {
            fs::create_dir_all(dir.join("d")).expect("a directory");
        }
        for name in ["x", "d/one", "in"] {
            fs::write(lost.to.join(name), format!("{name} of here")).expect("a file");
        }
        fs::hard_link(lost.to.join("in"), lost.to.join("in too")).expect("a link");
        fs::copy(lost.kept().join("same"), lost.to.join("same")).expect("a file");
        fs::set_permissions(lost.to.join("same"), fs::Permissions::from_mode(0o600)).expect("a mode");
        symlink("x", lost.to.join("symlink")).expect("a symlink");
        for name in ["x", "d/one", "in", "same", "symlink"] {
            let old = Timespec { tv_sec: 1000, tv_nsec: 0 };
            let times = Timestamps { last_access: old, last_modification: old };
            let path = lost.to.join(name);
            utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("a time");
            std::os::unix::fs::lchown(&path, Some(1234), Some(99)).expect("an owner");
            if name != "in" {
                fs::hard_link(&path, snap.join(name)).expect("a link");
            }
        }
        run(Command::new("cp").arg("-a").arg(&snap).arg(&before));
    };
    for arguments in [&["--overwrite"][..], &["--newer-only"], &["--overwrite", "--orphans", "delete"]] {
        fill();
        let deletes = arguments.contains(&"delete");
        if deletes {
            fs::write(lost.to.join("only here"), "no name of the replica").expect("a file");
        }
        let inode = |name: &str| fs::metadata(lost.to.join(name)).expect("it is there").ino();
        let inside = inode("in");
        let said = describe(&lost.restores(arguments));
        tree::assert_same(&lost.kept(), &lost.to);
        assert_eq!([inode("in"), inode("in too")], [inside; 2], "what has no names outside is written to");
        // The snapshot has links to it, and what it is compared with has none.
        fs::remove_dir_all(&lost.to).expect("removed");
        tree::assert_same(&before, &snap);
        assert_eq!(said.contains("not in the replica, and deleted: "), deletes, "{said}");
    }
}

/// A link that was made to what a restoration had brought before it was cut is one to the outside, too.
#[test]
fn a_link_to_what_was_restored_so_far_keeps_what_it_has() {
    let lost = Lost::after(|root| {
        fs::create_dir(root.join("d")).expect("a directory");
        fs::write(root.join("x"), "x of the replica").expect("a file");
        fs::hard_link(root.join("x"), root.join("y")).expect("a link");
        fs::write(root.join("z"), "z of the replica").expect("a file");
        fs::hard_link(root.join("z"), root.join("zz")).expect("a link");
    });
    fs::create_dir(&lost.to).expect("a directory");
    fs::write(lost.to.join("d"), "no directory").expect("a file");
    let output = output_within(&mut lost.restore_command(&lost.to, &["--missing-only"]), SYNC_MAX);
    assert_eq!(output.status.code(), Some(1), "{}", describe(&output));
    let (outside, inode) = (lost.protected.base.path().join("outside"), |name: &str| {
        fs::metadata(lost.to.join(name)).expect("it is there").ino()
    });
    fs::hard_link(lost.to.join("x"), &outside).expect("a link");
    fs::write(&outside, "of the outside").expect("a file");
    fs::write(lost.to.join("z"), "of somebody").expect("a file");
    let before = inode("z");
    fs::remove_file(lost.to.join("d")).expect("removed");
    lost.restores(&["--missing-only"]);
    tree::assert_same(&lost.kept(), &lost.to);
    assert_eq!(fs::read_to_string(&outside).expect("a file"), "of the outside");
    assert_eq!((inode("z"), inode("zz")), (before, before), "what has no names outside is written to");
}

#[test]
fn a_directory_whose_place_is_taken_is_named() {
    let lost = Lost::after(|root| {
        fs::create_dir(root.join("d")).expect("a directory");
        fs::write(root.join("d/in"), "in").expect("a file");
        fs::write(root.join("missing"), "of the replica").expect("a file");
    });
    for option in ["--missing-only", "--newer-only"] {
        let _ = fs::remove_dir_all(&lost.to);
        fs::create_dir(&lost.to).expect("a directory");
        fs::write(lost.to.join("d"), "no directory").expect("a file");
        let time = Timespec { tv_sec: 4_000_000_000, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, lost.to.join("d"), &times, AtFlags::empty()).expect("a time");
        let output = output_within(&mut lost.restore_command(&lost.to, &[option]), SYNC_MAX);
        let said = describe(&output);
        assert!(
            output.status.code() == Some(1) && said.contains("d: what is there is no directory"),
            "{said}"
        );
        let content = |name: &str| fs::read_to_string(lost.to.join(name)).expect("a file");
        assert_eq!(content("d") + &content("missing"), "no directoryof the replica");
        fs::remove_file(lost.to.join("d")).expect("removed");
        lost.restores(&[option]);
        assert_eq!(content("d/in"), "in");
    }
}

#[test]
fn a_bad_replica_is_not_taken_for_a_copy() {
    let lost = Lost::after(|root| fs::write(root.join("f"), "f").expect("a file"));
    let state = lost.protected.state.join(lost.name());
    let replica = fs::read_dir(&state).expect("the state").filter_map(Result::ok).map(|entry| entry.path());
    let replica = replica.into_iter().find(|path| path.join("index").exists()).expect("a replica's state");
    fs::remove_file(replica.join("index")).expect("its index");
    lost.refuses(&lost.to, &[], "--accept-bad-data");
    assert!(!lost.to.exists());
    lost.restores(&["--accept-bad-data"]);
    tree::assert_same(&lost.kept(), &lost.to);
}

/// A new disk is mounted where the lost one was: what has to wait lies in it.
#[test]
fn the_root_of_a_file_system_is_restored_into() {
    let lost = Lost::after(fill_oddly);
    let at = lost.protected.base.path().join("disk");
    let image = Image::mount(lost.protected.base.path(), at.clone(), "ext4 -b 4096", 64);
    let output = output_within(&mut lost.restore_command(&at, &[]), SYNC_MAX);
    assert!(output.status.success(), "{}", describe(&output));
    assert!(!at.join(".standin.restore").exists(), "something is left in it");
    fs::remove_dir(at.join("lost+found")).expect("what mkfs has made");
    let time = fs::metadata(lost.kept()).expect("a directory");
    let time = Timespec { tv_sec: time.mtime(), tv_nsec: time.mtime_nsec() };
    utimensat(CWD, &at, &Timestamps { last_access: time, last_modification: time }, AtFlags::empty())
        .expect("a time");
    tree::assert_same(&lost.kept(), &at);
    drop(image);
}

/// SIGINT ends it with a clear word.
#[test]
fn a_restoration_that_is_stopped_says_how_it_goes_on() {
    let lost = Lost::after(|root| {
        for number in 0..4000 {
            fs::write(root.join(format!("f{number}")), vec![b'x'; 9000]).expect("a file");
        }
    });
    let mut daemon = Daemon::spawn(lost.restore_command(&lost.to, &[]));
    let deadline = std::time::Instant::now() + COMMAND_MAX;
    while fs::read_dir(&lost.to).map_or(0, Iterator::count) < 50 {
        assert!(std::time::Instant::now() < deadline, "nothing comes");
    }
    daemon.signal(libc::SIGINT);
    let code = daemon.wait(COMMAND_MAX).expect("it ends").code();
    let said = daemon.said();
    // It may have come to its end before.
    assert!(code == Some(0) || code == Some(1) && said.contains("the same command again"), "{code:?} {said}");
    lost.restores(&[]);
    tree::assert_same(&lost.kept(), &lost.to);
}

/// Another content under the same size and time was never left alone, and everything was always sent.
#[test]
fn a_mode_says_what_of_a_file_that_is_there_is_believed() {
    let lost = Lost::after(|root| {
        fs::write(root.join("same"), "of the replica").expect("a file");
        fs::write(root.join("other"), "of the replica").expect("a file");
    });
    let modified = fs::metadata(lost.kept().join("same")).expect("status");
    let fill = || {
        let _ = fs::remove_dir_all(&lost.to);
        fs::create_dir(&lost.to).expect("a directory");
        fs::write(lost.to.join("same"), "of this place!").expect("a file");
        fs::write(lost.to.join("other"), "of another length").expect("a file");
        let time = Timespec { tv_sec: modified.mtime(), tv_nsec: modified.mtime_nsec() };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, lost.to.join("same"), &times, AtFlags::empty()).expect("a time");
    };
    let content = |name: &str| fs::read_to_string(lost.to.join(name)).unwrap_or_default();
    fill();
    for mode in ["checksum", "differences+checksum"] {
        lost.refuses(&lost.to, &["--overwrite", "--mode", mode], &format!("--mode {mode} is not for it"));
    }
    assert_eq!(content("same") + &content("other"), "of this place!of another length", "nothing has begun");
    lost.restores(&["--overwrite", "--mode", "differences"]);
    assert_eq!(content("same") + &content("other"), "of this place!of the replica");
    let record =
        fs::read_to_string(lost.protected.state.join(lost.name()).join("set.json")).expect("a record");
    assert!(record.contains("\"restored_from\": null"), "what was believed counts as proved: {record}");
    fill();
    lost.restores(&["--overwrite", "--mode", "full"]);
    tree::assert_same(&lost.kept(), &lost.to);
}

/// By what the command itself says of it.
#[test]
fn a_rate_is_kept_to() {
    const RATE: u64 = 1 << 20;
    let lost = Lost::after(|root| {
        for number in 0..6 {
            fs::write(root.join(number.to_string()), vec![number; 512 << 10]).expect("a file");
        }
    });
    let output = lost.restores(&["--rate", "1M", "--json"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let last: serde_json::Value = serde_json::from_str(said.lines().last().expect("a line")).expect("JSON");
    let restored = &last["restored"];
    let number = |name: &str| restored[name].as_u64().expect("a number");
    assert_eq!(number("bytes_copied"), 3 << 20, "{restored}");
    // The last file may have come at once.
    let least = (number("bytes_copied") - (512 << 10)) * 1000 / RATE;
    assert!(number("took_ms") >= least, "faster than its rate: {restored}");
    tree::assert_same(&lost.kept(), &lost.to);
}
