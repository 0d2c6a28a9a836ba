//! Writers past the mount: what they do is not replicated, and it has to be said.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::host::{COMMAND_MAX, Disk, Place, Protected, Setup, output_within, standin, wait_until};
use crate::pair::Pair;
use crate::tree::{self, Rules};

/// Nothing of what this test did is said to be somebody else's, and the replica is equal.
#[track_caller]
fn assert_nobody_else(protected: &Protected) {
    let status = protected.status();
    assert!(!status.contains("capture_diverged"), "{status}");
    protected.assert_in_sync();
}

/// What somebody else did is critical, is named, and no waiting call calls it done before a copy has brought it.
#[track_caller]
fn assert_noticed(protected: &Protected, what: &str) {
    let status = protected.status();
    assert!(status.contains("capture_diverged"), "{status}");
    assert!(status.contains(&format!("{what}: ")) && status.contains("past the mount"), "{status}");
    let waited = output_within(standin(&protected.run).args(["wait-sync", "--timeout", "2s"]), COMMAND_MAX);
    if waited.status.success() {
        tree::assert_same_by(&protected.backing, &protected.replica, &Rules::default());
    }
}

/// A copy finds it within a second: who is to hear of it hears of it all the same.
#[test]
fn a_write_past_the_mount_is_an_event() {
    let mut protected = Protected::start(Setup::default());
    fs::write(protected.backing.join("new"), "new").expect("a file");
    fs::read(protected.mount.join("new")).expect("a file");
    wait_until("its end", || !protected.status().contains("capture_diverged"));
    protected.assert_in_sync();
    let mut events = standin(&protected.run);
    let output =
        output_within(events.arg("--state").arg(&protected.state).args(["events", "list"]), COMMAND_MAX);
    let listed = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(listed.contains("critical  m  capture_diverged"), "{listed}");
    protected.stop();
}

/// Appended to the file behind the mount, where a program had read it through the mount before:
/// the replica lacked it for good, and was called good.
#[test]
fn a_write_past_the_mount_is_noticed() {
    let act = |act: &dyn Fn(&Protected), what: &str| {
        let mut protected = Protected::prepare(Setup::default());
        fs::create_dir(protected.backing.join("sub")).expect("a directory");
        fs::write(protected.backing.join("sub/file"), "one").expect("a file");
        protected.start_again();
        fs::read(protected.mount.join("sub/file")).expect("a file");
        fs::read_dir(protected.mount.join("sub")).expect("a directory").for_each(drop);
        assert_nobody_else(&protected);
        act(&protected);
        assert_noticed(&protected, what);
        // The next start makes it good.
        protected.stop_by(libc::SIGTERM);
        protected.start_again();
        assert_nobody_else(&protected);
    };
    let append = |path: &Path| {
        let mut file = File::options().append(true).open(path).expect("a file");
        file.write_all(b"two").expect("a write");
    };
    act(
        &|protected| {
            append(&protected.backing.join("sub/file"));
            fs::read(protected.mount.join("sub/file")).expect("a file");
        },
        "sub/file",
    );
    act(
        &|protected| {
            append(&protected.backing.join("sub/file"));
            append(&protected.mount.join("sub/file"));
        },
        "sub/file",
    );
    act(
        &|protected| {
            fs::write(protected.backing.join("sub/new"), "new").expect("a file");
            fs::read_dir(protected.mount.join("sub")).expect("a directory").for_each(drop);
        },
        "sub",
    );
    act(
        &|protected| {
            fs::write(protected.backing.join("new"), "new").expect("a file");
            fs::write(protected.mount.join("own"), "own").expect("a file");
        },
        "the directory itself",
    );
}

/// A file in a directory that the mount has not met before.
#[test]
fn what_is_made_past_the_mount_is_noticed_when_it_is_met() {
    let mut protected = Protected::prepare(Setup::default());
    fs::create_dir_all(protected.backing.join("sub/deep")).expect("directories");
    protected.start_again();
    std::thread::sleep(Duration::from_millis(50));
    fs::write(protected.backing.join("sub/deep/new"), "new").expect("a file");
    fs::read(protected.mount.join("sub/deep/new")).expect("the file");
    assert_noticed(&protected, "sub/deep");
}

/// Every kind of change through the mount, with looks in between: none of it is somebody else's.
/// Nor is another name of a file outside of the directory.
#[test]
fn own_changes_are_nobody_elses() {
    let protected = Protected::start(Setup::default());
    let root = &protected.mount;
    let look = |path: &Path| {
        let _ = fs::metadata(path);
        fs::read_dir(root).expect("the directory").for_each(|entry| {
            let _ = entry.expect("an entry").metadata();
        });
        let _ = File::open(path);
        let _ = fs::symlink_metadata(path.with_extension("missing"));
    };
    for round in 0..20 {
        let (file, dir) = (root.join(format!("file{round}")), root.join(format!("dir{round}")));
        fs::write(&file, "content").expect("a file");
        look(&file);
        File::options().write(true).open(&file).and_then(|file| file.set_len(3)).expect("a size");
        look(&file);
        std::os::unix::fs::chown(&file, Some(round), Some(7)).expect("an owner");
        look(&file);
        rustix::fs::setxattr(&file, "user.x", b"y", rustix::fs::XattrFlags::empty()).expect("an xattr");
        look(&file);
        fs::create_dir(&dir).expect("a directory");
        look(&dir);
        std::os::unix::fs::chown(&dir, Some(round), Some(7)).expect("an owner");
        look(&dir);
        fs::hard_link(&file, dir.join("link")).expect("a link");
        look(&dir.join("link"));
        fs::rename(&file, root.join("moved")).expect("a rename");
        look(&root.join("moved"));
        fs::rename(dir.join("link"), &file).expect("a rename of another name");
        fs::remove_file(root.join("moved")).expect("a removal");
        look(&file);
        // What the kernel forgets is met again.
        if round == 10 {
            let _ = fs::write("/proc/sys/vm/drop_caches", "2");
        }
        look(&file);
        look(&dir);
        fs::rename(&dir, root.join("directory")).expect("a rename of a directory");
        fs::remove_dir(root.join("directory")).expect("a removal");
        look(&file);
    }
    let outside = protected.base.path().join("outside");
    fs::hard_link(protected.backing.join("file3"), &outside).expect("a link");
    look(&root.join("file3"));
    assert_eq!(fs::metadata(protected.backing.join("file3")).expect("the file").nlink(), 2);
    fs::remove_file(&outside).expect("a removal");
    assert_nobody_else(&protected);
}

/// The rotation of a backup by hard links beside the directory was taken for writers past the mount:
/// the replica was marked bad, and with `--fsync=target` no sync of a program was answered any more.
#[test]
fn links_outside_come_and_go() {
    let mut protected = Protected::prepare(Setup::default());
    let (one, two) = (protected.backing.join("one"), protected.backing.join("two"));
    let outside = |name: &str| protected.base.path().join(name);
    for file in [&one, &two] {
        fs::write(file, "content").expect("a file");
    }
    fs::hard_link(&one, outside("old one")).expect("a link");
    fs::hard_link(&two, outside("old two")).expect("a link");
    let [old_one, old_two, new] = ["old one", "old two", "new"].map(outside);
    protected.start_again();
    fs::read(protected.mount.join("one")).expect("the file");
    std::thread::sleep(Duration::from_millis(50));
    // Between two looks one goes and another comes; and one goes of what was not looked at yet.
    fs::remove_file(old_one).expect("a removal");
    fs::hard_link(&one, &new).expect("a link");
    fs::remove_file(old_two).expect("a removal");
    for name in ["one", "two"] {
        fs::read(protected.mount.join(name)).expect("the file");
    }
    let status = protected.status();
    assert!(status.contains("touched_past_mount"), "it is said: {status}");
    // Both sides have one name each then.
    fs::remove_file(new).expect("a removal");
    assert_nobody_else(&protected);
}

/// A program that ends with the test.
struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> Program {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a program");
        let mut program = Program(child);
        let mut said = [0; 3];
        let out = program.0.stdout.as_mut().expect("piped");
        std::io::Read::read_exact(out, &mut said).expect("a word");
        assert_eq!(&said, b"go\n");
        program
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A container with a bind mount of the directory had no file open at the start; what it wrote
/// later went past the mount, and nothing was said.
#[test]
fn a_mount_of_the_directory_elsewhere_is_named() {
    let mut protected = Protected::prepare(Setup { place: Place::Over, ..Setup::default() });
    let (sub, inside) = (protected.backing.join("sub"), protected.base.path().join("inside"));
    [&sub, &inside].into_iter().for_each(|dir| fs::create_dir(dir).expect("a directory"));
    let script = format!("mount --bind {} {}; cd /; echo go; read x", sub.display(), inside.display());
    let container =
        Program::start(Command::new("unshare").args(["-m", "--propagation", "private", "sh", "-c", &script]));
    protected.start_again();
    let said = protected.said();
    let named = format!("{} is mounted on {} for ", sub.display(), inside.display());
    assert!(said.contains(&named) && said.contains(&format!("(pid {})", container.0.id())), "{said}");
    let status = protected.status();
    assert!(status.contains("open_past_mount") && status.contains(&named), "{status}");
    drop(container);
    let status = protected.status();
    assert!(!status.contains("open_past_mount"), "it ended: {status}");
}

/// A source that stops right after it has noticed tells its target before.
#[test]
fn a_target_hears_of_it_before_its_source_has_stopped() {
    for pause in [0, 20, 100] {
        let mut pair = Pair::start(Disk::Plain, Disk::Plain);
        fs::write(pair.mount.join("file"), "one").expect("a file");
        let synced = output_within(pair.daemon("source").arg("wait-sync"), COMMAND_MAX);
        assert!(synced.status.success());
        let mut file = File::options().append(true).open(pair.backing.join("file")).expect("a file");
        file.write_all(b"two").expect("a write");
        fs::read(pair.mount.join("file")).expect("a file");
        std::thread::sleep(Duration::from_millis(pause));
        let mut source = pair.source.take().expect("it runs");
        source.signal(libc::SIGTERM);
        source.wait(COMMAND_MAX).expect("it ends");
        let status = output_within(pair.daemon("target").args(["status", "--json"]), COMMAND_MAX);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
        let replica = &status["target"]["replicas"][0];
        // Where there was time for it, it was mended.
        let is_equal = fs::read(pair.replica().join("file")).expect("a file") == b"onetwo";
        assert!(replica["data"] == "bad" || is_equal, "after {pause} ms: {replica}");
    }
}
