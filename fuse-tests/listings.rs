//! What a listing shows, and that nobody is given a handle that stops working.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::RawDir;

use crate::host::{Protected, Setup};
use crate::sys::file_handle;

/// Names and numbers as the kernel gives them, `.` and `..` too: the C library leaves out what
/// has number 0.
pub fn listed(dir: &Path) -> Vec<(OsString, u64)> {
    let dir = fs::File::open(dir).expect("a directory");
    let mut buffer = Vec::with_capacity(64 << 10);
    let mut reader = RawDir::new(&dir, buffer.spare_capacity_mut());
    let mut found = Vec::new();
    while let Some(entry) = reader.next() {
        let entry = entry.expect("an entry");
        found.push((OsString::from_vec(entry.file_name().to_bytes().to_vec()), entry.ino()));
    }
    found.sort();
    found
}

/// `ls -a` and backup tools once saw neither `.` nor `..`: both came with number 0.
#[test]
fn every_entry_has_the_number_that_stat_says() {
    let protected = Protected::start(Setup::default());
    let mount = &protected.mount;
    fs::create_dir_all(mount.join("a/b")).expect("directories");
    for number in 0..300 {
        fs::write(mount.join(format!("a/file{number}")), b"x").expect("a file");
    }
    for dir in ["", "a", "a/b"] {
        // The first listing comes with attributes, the second may come without.
        for _ in 0..2 {
            let found = listed(&mount.join(dir));
            let stat = |name: &OsString| {
                let name = if dir.is_empty() && name == ".." { OsString::from(".") } else { name.clone() };
                fs::metadata(mount.join(dir).join(name)).expect("an object").ino()
            };
            for (name, number) in &found {
                assert_eq!(*number, stat(name), "{name:?} in {dir:?}");
            }
            let names: Vec<_> = found.iter().map(|(name, _)| name.clone()).collect();
            assert!(names.contains(&".".into()) && names.contains(&"..".into()), "{dir:?}: {names:?}");
            let entries = fs::read_dir(protected.backing.join(dir)).expect("a directory").count();
            assert_eq!(names.len(), entries + 2, "{dir:?}");
        }
    }
}

/// A handle could be opened only while the kernel remembered the file: an NFS server would have
/// given its clients ESTALE at random. None is given where the kernel lets us say so (Linux 6.9).
#[test]
fn no_handle_is_given_that_cannot_be_kept() {
    let protected = Protected::start(Setup::default());
    fs::write(protected.mount.join("file"), b"x").expect("a file");
    assert!(file_handle(&protected.backing.join("file")).is_ok(), "the disk gives handles");
    let given = file_handle(&protected.mount.join("file")).map_err(|error| error.raw_os_error());
    match kernel_is_at_least((6, 9)) {
        true => assert_eq!(given, Err(Some(libc::EOPNOTSUPP))),
        false => println!("this kernel gives handles whatever a file system says: {given:?}"),
    }
}

fn kernel_is_at_least(wanted: (u32, u32)) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= wanted
}

/// With file systems whose tools are not everywhere.
#[cfg(feature = "suites")]
mod suites {
    use super::*;

    /// On btrfs a snapshot's files have the inode numbers and generations of the live ones: a program
    /// once read the snapshot's content in the live file, and its write went into the snapshot.
    #[test]
    fn a_snapshot_below_the_tree_is_not_in_it() {
        use crate::host::{Disk, require_program, run};
        let source = Disk::Image { kind: "btrfs", mib: 256 };
        let mut protected =
            Protected::prepare(Setup { source, arguments: vec!["--hide-nested"], ..Setup::default() });
        let (backing, mount) = (protected.backing.clone(), protected.mount.clone());
        let btrfs = |arguments: &[&str], paths: &[&Path]| {
            run(std::process::Command::new(require_program("btrfs")).args(arguments).args(paths));
        };
        fs::remove_dir(&backing).expect("an empty directory");
        btrfs(&["-q", "subvolume", "create"], &[&backing]);
        fs::write(backing.join("file"), b"old").expect("a file");
        fs::create_dir_all(backing.join("snapshots")).expect("a directory");
        let snapshot = backing.join("snapshots/1");
        btrfs(&["-q", "subvolume", "snapshot"], &[&backing, &snapshot]);
        fs::write(backing.join("file"), b"live").expect("a file");
        protected.start_again();

        let hidden = fs::read(mount.join("snapshots/1/file"));
        assert_eq!(hidden.map_err(|error| error.kind()), Err(std::io::ErrorKind::NotFound));
        assert_eq!(fs::read(mount.join("file")).expect("the live file"), b"live");
        fs::write(mount.join("file"), b"written").expect("a write");
        for _ in 0..2 {
            let names: Vec<_> = listed(&mount.join("snapshots")).into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, [".", ".."]);
        }
        let refused = [
            fs::create_dir(mount.join("snapshots/1")),
            fs::rename(mount.join("file"), mount.join("snapshots/1")),
            fs::remove_dir(mount.join("snapshots")),
        ];
        assert!(refused.iter().all(|outcome| outcome.is_err()), "{refused:?}");
        protected.wait_sync();
        assert_eq!(fs::read(backing.join("file")).expect("the live file"), b"written");
        assert_eq!(fs::read(snapshot.join("file")).expect("the snapshot's file"), b"old");
        assert_eq!(fs::read(protected.replica.join("file")).expect("the copy"), b"written");
        assert!(!protected.replica.join("snapshots/1").exists());
    }
}
