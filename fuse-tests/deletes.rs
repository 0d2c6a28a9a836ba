//! What is deleted may stay with the targets, in its place or aside.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::host::{COMMAND_MAX, Protected, Setup, describe, output_within, standin};

fn verify(protected: &Protected) -> Output {
    output_within(standin(&protected.run).arg("verify"), COMMAND_MAX)
}

#[track_caller]
fn set(protected: &Protected, arguments: &[&str]) -> String {
    let mut command = standin(&protected.run);
    command.arg("set").args(arguments).arg("--state").arg(&protected.state);
    let output = output_within(&mut command, COMMAND_MAX);
    assert!(output.status.success(), "{arguments:?}: {}", describe(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn holds(root: &Path, name: &str, content: &str) {
    let found = fs::read_to_string(root.join(name));
    assert_eq!(found.unwrap_or_else(|error| panic!("{name}: {error}")), content);
}

/// The place beside the replica.
fn beside(protected: &Protected) -> PathBuf {
    let name = protected.replica.file_name().and_then(|name| name.to_str()).expect("a name");
    protected.replica.with_file_name(format!(".{name}.standin"))
}

/// The only day of what was kept.
#[track_caller]
fn kept(protected: &Protected) -> PathBuf {
    let mut days = fs::read_dir(beside(protected).join("deleted/trash")).expect("what is kept");
    days.next().expect("a day").expect("a day").path()
}

#[test]
fn ignored_deletions_stay_on_the_target() {
    let mut protected = Protected::start(Setup { arguments: vec!["--ignore-deletes"], ..Setup::default() });
    let (mount, replica) = (protected.mount.clone(), protected.replica.clone());
    fs::create_dir_all(mount.join("dir/sub")).expect("directories");
    for name in ["one", "two", "dir/three", "dir/sub/four"] {
        fs::write(mount.join(name), name).expect("a file");
    }
    protected.wait_sync();
    fs::remove_file(mount.join("one")).expect("one");
    fs::remove_dir_all(mount.join("dir")).expect("a directory");
    protected.wait_sync();
    for name in ["one", "dir/three", "dir/sub/four"] {
        assert!(!mount.join(name).exists());
        holds(&replica, name, name);
    }
    let verified = verify(&protected);
    assert_eq!(verified.status.code(), Some(0), "{}", describe(&verified));
    // A copy, too, leaves it alone; also of what was removed meanwhile.
    protected.stop();
    fs::remove_file(protected.backing.join("two")).expect("two");
    protected.start_again();
    protected.wait_sync();
    ["one", "two", "dir/three"].iter().for_each(|name| holds(&replica, name, name));
    assert_eq!(verify(&protected).status.code(), Some(0));
    // It gives way to what needs its name.
    fs::write(mount.join("one"), "new").expect("one");
    fs::write(mount.join("dir"), "a file").expect("dir");
    fs::write(mount.join("three"), "3").expect("three");
    fs::rename(mount.join("three"), mount.join("two")).expect("a rename");
    protected.wait_sync();
    protected.assert_in_sync();
}

/// From the file of the set, and back, while programs work.
#[test]
fn deleted_files_are_kept_aside() {
    let mut protected = Protected::start(Setup::default());
    let mount = protected.mount.clone();
    let said = set(&protected, &["create", "m", "--keep-deleted", "trash", "--keep-days", "7"]);
    assert!(said.contains("Deletions are kept in trash for 7 days."), "{said}");
    fs::create_dir(mount.join("dir")).expect("a directory");
    for name in ["dir/one", "two"] {
        fs::write(mount.join(name), name).expect("a file");
    }
    fs::hard_link(mount.join("two"), mount.join("link")).expect("a link");
    protected.wait_sync();
    fs::remove_dir_all(mount.join("dir")).expect("a directory");
    fs::remove_file(mount.join("two")).expect("two");
    protected.wait_sync();
    protected.assert_in_sync();
    holds(&kept(&protected), "dir/one", "dir/one");
    assert!(!kept(&protected).join("two").exists());
    // It is no part of the replica, and stays over a restart.
    assert_eq!(verify(&protected).status.code(), Some(0));
    protected.stop();
    protected.start_again();
    fs::remove_file(mount.join("link")).expect("link");
    protected.wait_sync();
    holds(&kept(&protected), "link", "two");
    holds(&kept(&protected), "dir/one", "dir/one");
    let said = set(&protected, &["change", "m", "--follow-deletes"]);
    assert!(said.contains("Deletions are replicated."), "{said}");
    fs::write(mount.join("three"), "3").expect("a file");
    fs::remove_file(mount.join("three")).expect("three");
    protected.wait_sync();
    assert!(!kept(&protected).join("three").exists());
    protected.assert_in_sync();
    // What was ignored does not go by itself.
    let left = "stays on the replicas until the next copy";
    assert!(!set(&protected, &["change", "m", "--ignore-deletes"]).contains(left));
    let said = set(&protected, &["change", "m", "--follow-deletes"]);
    assert!(said.contains(left), "{said}");
}

/// The name that had stayed was a link of the file that was kept aside: the next file of that name was written
/// into what was kept, and whoever worked on that changed the replica.
#[test]
fn what_has_stayed_and_what_is_kept_are_two_files() {
    let mut protected = Protected::start(Setup::default());
    let (mount, replica) = (protected.mount.clone(), protected.replica.clone());
    set(&protected, &["create", "m", "--ignore-deletes"]);
    fs::write(mount.join("a"), "deleted by mistake").expect("a file");
    fs::hard_link(mount.join("a"), mount.join("b")).expect("a link");
    protected.wait_sync();
    fs::remove_file(mount.join("b")).expect("b");
    protected.wait_sync();
    set(&protected, &["change", "m", "--keep-deleted", "trash"]);
    fs::remove_file(mount.join("a")).expect("a");
    protected.wait_sync();
    holds(&kept(&protected), "a", "deleted by mistake");
    holds(&replica, "b", "deleted by mistake");
    for path in [kept(&protected).join("a"), replica.join("b")] {
        assert_eq!(fs::metadata(&path).expect("a file").nlink(), 1, "{path:?}");
    }
    protected.stop();
    fs::write(protected.backing.join("b"), "a new one").expect("b");
    fs::hard_link(protected.backing.join("b"), protected.backing.join("c")).expect("a link");
    protected.start_again();
    protected.wait_sync();
    holds(&kept(&protected), "a", "deleted by mistake");
    fs::write(kept(&protected).join("a"), "looked at").expect("what is kept");
    holds(&replica, "b", "a new one");
    assert_eq!(verify(&protected).status.code(), Some(0));
    protected.assert_in_sync();
}

#[test]
fn rules_may_be_typed() {
    let arguments = vec!["--exclude", "*.tmp", "--include", "kept.tmp"];
    let mut protected = Protected::start(Setup { arguments, ..Setup::default() });
    for name in ["a", "a.tmp", "kept.tmp"] {
        fs::write(protected.mount.join(name), name).expect("a file");
    }
    protected.wait_sync();
    ["a", "kept.tmp"].iter().for_each(|name| holds(&protected.replica, name, name));
    assert!(!protected.replica.join("a.tmp").exists());
    protected.stop();
}
