//! Stops, kills and starts: what was written stays, what is there at the start arrives.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::host::{Place, Protected, Setup, is_mounted};
use crate::tree;

/// A small tree with what is easily lost by a copy.
fn build(root: &Path, mark: &str) {
    let dir = root.join(mark);
    fs::create_dir_all(dir.join("deep/er")).expect("directories");
    for i in 0..30 {
        fs::write(dir.join(format!("deep/file{i}")), format!("{mark} {i} ").repeat(i * 300)).expect("a file");
    }
    fs::hard_link(dir.join("deep/file7"), dir.join("link")).expect("a link");
    symlink("deep/file8", dir.join("symlink")).expect("a symlink");
    let sparse = fs::File::create(dir.join("sparse")).expect("a file");
    sparse.write_all_at(b"in the middle", 3 << 20).expect("a write");
    sparse.set_len(9 << 20).expect("a size");
    rustix::fs::setxattr(dir.join("deep"), "user.mark", mark.as_bytes(), rustix::fs::XattrFlags::empty())
        .expect("an xattr");
}

#[test]
fn what_is_there_at_the_start_arrives_under_load() {
    let mut protected = Protected::prepare(Setup::default());
    build(&protected.backing, "before");
    protected.start_again();
    build(&protected.mount, "after");
    fs::remove_file(protected.mount.join("before/deep/file3")).expect("removed");
    fs::rename(protected.mount.join("before/deep/er"), protected.mount.join("moved")).expect("renamed");
    let seen = protected.assert_in_sync();
    assert!(seen.objects > 60, "{seen:?}");
    assert_eq!(
        fs::read_link(protected.mount.join("before/symlink")).expect("a symlink"),
        Path::new("deep/file8")
    );
}

#[test]
fn a_stop_keeps_everything() {
    let mut protected = Protected::start(Setup::default());
    build(&protected.mount, "first");
    // No wait-sync: the stop itself drains.
    protected.stop();
    assert!(tree::assert_same(&protected.backing, &protected.replica).objects > 30);
    protected.start_again();
    build(&protected.mount, "second");
    fs::remove_dir_all(protected.mount.join("first/deep")).expect("removed");
    assert!(protected.assert_in_sync().objects > 30);
    protected.stop();
    tree::assert_same(&protected.backing, &protected.replica);
}

#[test]
fn changes_without_protection_are_made_good() {
    let mut protected = Protected::start(Setup::default());
    build(&protected.mount, "first");
    protected.stop();
    build(&protected.backing, "unprotected");
    fs::write(protected.backing.join("first/deep/file9"), "changed").expect("a write");
    fs::remove_file(protected.backing.join("first/deep/file1")).expect("removed");
    fs::rename(protected.backing.join("first/link"), protected.backing.join("renamed")).expect("renamed");
    protected.start_again();
    assert!(protected.assert_in_sync().objects > 60);
}

#[test]
fn the_mount_goes_over_the_directory_and_off_again() {
    let mut protected = Protected::prepare(Setup { place: Place::Over, ..Setup::default() });
    build(&protected.backing, "before");
    protected.start_again();
    assert_eq!(fs::read_dir(&protected.mount).expect("the mount").count(), 1);
    build(&protected.mount, "after");
    protected.wait_sync();
    protected.stop();
    assert!(tree::assert_same(&protected.backing, &protected.replica).objects > 60);
}

/// Writes until the mount answers with errors or the end is asked for.
fn write_until(root: &Path, end: &AtomicBool) -> u64 {
    let mut written = 0;
    while !end.load(Ordering::Relaxed) {
        let name = root.join(format!("load{}", written % 50));
        if fs::write(name, written.to_string().repeat(500)).is_err() {
            break;
        }
        written += 1;
    }
    written
}

#[track_caller]
fn kill_and_converge(place: Place) {
    let mut protected = Protected::start(Setup { place, ..Setup::default() });
    build(&protected.mount, "before");
    let (end, root) = (AtomicBool::new(false), protected.mount.clone());
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(&root, &end));
        std::thread::sleep(Duration::from_millis(300));
        protected.kill9();
        end.store(true, Ordering::Relaxed);
        protected.start_again();
        writer.join().expect("the writer")
    });
    assert!(written > 5, "only {written} writes before the kill");
    let said = protected.said().to_lowercase();
    assert!(
        ["dead", "left", "killed"].iter().any(|word| said.contains(word)),
        "no word of the dead mount:\n{said}"
    );
    build(&protected.mount, "after");
    protected.wait_sync();
    protected.stop();
    assert!(!is_mounted(&protected.mount));
    assert!(tree::assert_same(&protected.backing, &protected.replica).objects > 100);
}

#[test]
fn a_killed_daemon_is_replaced_beside() {
    kill_and_converge(Place::Beside);
}

#[test]
fn a_killed_daemon_is_replaced_over_the_directory() {
    kill_and_converge(Place::Over);
}
