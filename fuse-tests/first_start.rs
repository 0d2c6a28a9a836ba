//! A first start that fails, or dies, half-way: what it has claimed is of the set that the next one begins.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::host::{Daemon, Disk, Protected, Setup, describe, output_within};

const MINUTE: Duration = Duration::from_secs(60);

fn mark(dir: &Path, name: &str) -> Result<usize, Errno> {
    rustix::fs::getxattr(dir, name, &mut [0; 4096])
}

/// All room that there is, root's own too.
fn fill(disk: &Path) -> std::path::PathBuf {
    let path = disk.join("filler");
    let file = File::create(&path).expect("a file");
    let mut at = 0;
    for len in [1 << 20, 4096, 1] {
        while file.write_all_at(&vec![7; len], at).is_ok() {
            at += len as u64;
        }
    }
    path
}

/// Too full for a mark: the replica, one that was filled beforehand too, was one of a set that never was.
#[test]
fn a_source_without_room_strands_no_replica() {
    for seeded in [false, true] {
        let arguments = if seeded { vec!["--adopt"] } else { Vec::new() };
        let source = Disk::Image { kind: "ext4 -I 256", mib: 64 };
        let mut protected = Protected::prepare(Setup { source, arguments, ..Setup::default() });
        fs::write(protected.backing.join("file"), "content").expect("a file");
        if seeded {
            fs::write(protected.replica.join("file"), "content").expect("a file");
            fs::write(protected.replica.join("old"), "only here").expect("a file");
        }
        let filler = fill(&protected.backing);
        // It does not fit into an inode of 256 bytes.
        let output = output_within(&mut protected.protect_command(), MINUTE);
        assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
        assert!(describe(&output).contains("cannot be marked"), "{}", describe(&output));
        assert!(mark(&protected.replica, "trusted.standin.replica").is_err(), "the replica was claimed");
        fs::remove_file(filler).expect("room");
        protected.start_again();
        protected.assert_in_sync();
        protected.stop();
    }
}

/// Killed as soon as the replica carries its mark.
#[test]
fn a_start_that_dies_strands_no_replica() {
    for seeded in [false, true, false, true] {
        let arguments = if seeded { vec!["--adopt"] } else { Vec::new() };
        let mut protected = Protected::prepare(Setup { arguments, ..Setup::default() });
        fs::write(protected.backing.join("file"), "content").expect("a file");
        if seeded {
            fs::write(protected.replica.join("file"), "content").expect("a file");
        }
        let mut daemon = Daemon::spawn(protected.protect_command());
        let deadline = Instant::now() + MINUTE;
        while mark(&protected.replica, "trusted.standin.replica").is_err() {
            assert!(Instant::now() < deadline, "no mark: {}", daemon.said());
        }
        daemon.signal(libc::SIGKILL);
        daemon.wait(MINUTE);
        crate::host::clear_mounts(&protected.mount);
        protected.start_again();
        protected.assert_in_sync();
        protected.stop();
    }
}

/// The first target is claimed, the second one refused.
#[test]
fn a_second_target_that_is_refused_strands_not_the_first() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let second = place.path().join("second");
    fs::create_dir(&second).expect("a directory");
    fs::write(second.join("file"), "somebody's").expect("a file");
    let arguments = vec!["--to", format!("local:{}", second.display()).leak()];
    let mut protected = Protected::prepare(Setup { arguments, ..Setup::default() });
    let output = output_within(&mut protected.protect_command(), MINUTE);
    assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
    assert!(mark(&protected.replica, "trusted.standin.replica").is_ok(), "the first one is not claimed");
    fs::remove_file(second.join("file")).expect("removed");
    protected.start_again();
    protected.assert_in_sync();
    protected.stop();
}

#[test]
fn a_start_that_is_refused_leaves_no_mark() {
    let mut protected = Protected::prepare(Setup::default());
    fs::write(protected.replica.join("file"), "somebody's").expect("a file");
    let output = output_within(&mut protected.protect_command(), MINUTE);
    assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
    assert!(mark(&protected.backing, "trusted.standin.set").is_err(), "the directory is marked");
    assert!(mark(&protected.replica, "trusted.standin.replica").is_err(), "the replica is marked");
    fs::remove_file(protected.replica.join("file")).expect("removed");
    protected.start_again();
    assert!(mark(&protected.backing, "trusted.standin.set").is_ok(), "the directory is not marked");
    protected.assert_in_sync();
    protected.stop();
}
