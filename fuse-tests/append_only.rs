//! Files and directories that are append-only on the disk: audit logs.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{IFlags, OFlags};

use crate::host::{Protected, Setup};

/// Not to be changed while it lives, but at its end.
struct AppendOnly(File);

impl AppendOnly {
    fn make(path: &Path) -> AppendOnly {
        let file = File::open(path).expect("it is there");
        let flags = rustix::fs::ioctl_getflags(&file).expect("a file system with flags");
        rustix::fs::ioctl_setflags(&file, flags | IFlags::APPEND).expect("root may");
        AppendOnly(file)
    }
}

impl Drop for AppendOnly {
    fn drop(&mut self) {
        let flags = rustix::fs::ioctl_getflags(&self.0).expect("it had flags");
        rustix::fs::ioctl_setflags(&self.0, flags - IFlags::APPEND).expect("root may");
    }
}

fn appending(path: &Path, read: bool) -> File {
    File::options().append(true).read(read).open(path).expect("who appends may open it")
}

/// Nobody could append: the disk's file system wants the flag for it on the descriptor, and got none.
#[test]
fn what_is_append_only_is_appended_to_and_not_changed() {
    for arguments in [&[][..], &["--profile", "batch"]] {
        let mut protected = Protected::start(Setup { arguments: arguments.to_vec(), ..Setup::default() });
        fs::create_dir(protected.mount.join("dir")).expect("a directory");
        fs::write(protected.mount.join("log"), "start\n").expect("room");
        let held = ["dir", "log"].map(|name| AppendOnly::make(&protected.mount.join(name)));
        let path = protected.mount.join("log");
        let (mut wanted, mut shown) = (String::from("start\n"), File::open(&path).expect("a file"));
        for round in 0..20 {
            let mut log = appending(&path, round % 2 == 0);
            for line in 0..50 {
                let line = format!("{round} {line}\n");
                log.write_all(line.as_bytes()).expect("appended");
                wanted.push_str(&line);
            }
            log.sync_all().expect("synced");
            assert_eq!(fs::read_to_string(&path).expect("a file"), wanted);
        }
        let mut read = String::new();
        shown.read_to_string(&mut read).expect("a file");
        assert_eq!(read, wanted);
        assert_refuses_changes(&path);
        assert_shows_a_new_time(&protected, arguments.is_empty());
        fs::write(protected.mount.join("dir/new"), "new").expect("names may be added");
        let removed = fs::remove_file(protected.mount.join("dir/new")).expect_err("and not removed");
        assert_eq!(removed.kind(), ErrorKind::PermissionDenied);
        protected.assert_in_sync();
        wanted.push_str("late\n");
        assert_eq!(fs::read_to_string(protected.replica.join("log")).expect("a file"), wanted);
        drop((held, shown));
        fs::write(&path, "another").expect("it is an ordinary file again");
        protected.assert_in_sync();
        protected.stop();
    }
}

/// That of the write-back is on the disk where the kernel gathers writes.
fn assert_shows_a_new_time(protected: &Protected, is_the_same: bool) {
    let before = SystemTime::now() - Duration::from_millis(100);
    let mut log = appending(&protected.mount.join("log"), false);
    std::thread::sleep(Duration::from_millis(200));
    log.write_all(b"late\n").expect("appended");
    log.sync_all().expect("synced");
    drop(log);
    let [shown, there] = [&protected.mount, &protected.backing]
        .map(|dir| fs::metadata(dir.join("log")).and_then(|file| file.modified()).expect("a time"));
    assert!(shown > before && there > before && (shown == there || !is_the_same), "{shown:?}, {there:?}");
}

fn assert_refuses_changes(path: &Path) {
    let refused = |what: &str, outcome: std::io::Result<()>| {
        assert_eq!(outcome.expect_err(what).kind(), ErrorKind::PermissionDenied, "{what}");
    };
    refused("an open to overwrite", File::options().write(true).open(path).map(drop));
    let truncating = File::options().append(true).custom_flags(libc::O_TRUNC).open(path);
    refused("a truncation at the open", truncating.map(drop));
    let log = appending(path, false);
    refused("a truncation", log.set_len(3));
    rustix::fs::fcntl_setfl(&log, OFlags::empty()).expect("the mount does not know of the flag");
    refused("a write before the end", log.write_all_at(b"x", 0).and_then(|()| log.sync_all()));
    refused("a write behind the end", log.write_all_at(b"x", 1 << 20).and_then(|()| log.sync_all()));
}
