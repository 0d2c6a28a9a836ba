//! What becomes of the file: too long, moved away, refused, shared, full.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::rc::Rc;

use serde_json::Value;

use super::super::file::{append, refusal};
use crate::failpoint;
use crate::locked::Locked;
use crate::words::StatisticsTo;

/// A directory for statistics, and what is asked for there.
pub(super) struct Ground {
    pub dir: tempfile::TempDir,
    pub to: StatisticsTo,
}

impl Ground {
    pub fn new(size: u64, keep: u32) -> Ground {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("stats/web.jsonl");
        fs::create_dir(path.parent().unwrap()).unwrap();
        Ground { dir, to: StatisticsTo { path, size, keep } }
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.to.path.with_file_name(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.to.path.parent().unwrap()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.beside(name)).unwrap()
    }

    fn refused(&self) -> String {
        let error = append(&self.to, b"{}\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        assert_eq!(refusal(&self.to.path), Some(error.to_string()));
        error.to_string()
    }
}

#[test]
fn a_file_that_is_full_gives_way_and_the_oldest_goes() {
    let ground = Ground::new(30, 3);
    for number in 0..9 {
        append(&ground.to, format!("{{\"n\":{number}}}\n").as_bytes()).unwrap();
    }
    assert_eq!(ground.names(), ["web.jsonl", "web.jsonl.1", "web.jsonl.2"]);
    let lines = |numbers: [u32; 3]| numbers.map(|number| format!("{{\"n\":{number}}}\n")).concat();
    let kept = ["web.jsonl.2", "web.jsonl.1", "web.jsonl"].map(|name| ground.text(name));
    assert_eq!(kept, [lines([0, 1, 2]), lines([3, 4, 5]), lines([6, 7, 8])]);
    append(&ground.to, b"{\"n\":9}\n").unwrap();
    assert_eq!(ground.names(), ["web.jsonl", "web.jsonl.1", "web.jsonl.2"]);
    assert_eq!(
        (ground.text("web.jsonl.2"), ground.text("web.jsonl")),
        (lines([3, 4, 5]), "{\"n\":9}\n".into())
    );
    let alone = Ground::new(10, 1);
    (0..3).for_each(|_| append(&alone.to, b"{\"n\":10}\n").unwrap());
    assert_eq!((alone.names(), alone.text("web.jsonl")), (vec!["web.jsonl".into()], "{\"n\":10}\n".into()));
}

#[test]
fn mode_and_group_that_somebody_gave_it_stay() {
    let ground = Ground::new(4, 2);
    append(&ground.to, b"{}\n").unwrap();
    let file = || fs::metadata(&ground.to.path).unwrap();
    assert_eq!(file().mode() & 0o7777, 0o640);
    fs::set_permissions(&ground.to.path, fs::Permissions::from_mode(0o644)).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(&ground.to.path, None, Some(4321)).unwrap();
    }
    let (before, gid) = (file().ino(), file().gid());
    append(&ground.to, b"{}\n").unwrap();
    assert!(file().ino() != before && ground.beside("web.jsonl.1").exists());
    assert_eq!((file().mode() & 0o7777, file().gid()), (0o644, gid));
}

/// By logrotate, with `create` and without; by hand; with its directory.
#[test]
fn a_file_that_was_moved_away_is_not_written_any_more() {
    let ground = Ground::new(1000, 4);
    append(&ground.to, b"{\"n\":1}\n").unwrap();
    fs::rename(&ground.to.path, ground.beside("moved")).unwrap();
    append(&ground.to, b"{\"n\":2}\n").unwrap();
    assert_eq!(
        (ground.text("moved"), ground.text("web.jsonl")),
        ("{\"n\":1}\n".into(), "{\"n\":2}\n".into())
    );
    fs::rename(&ground.to.path, ground.beside("moved")).unwrap();
    File::create(&ground.to.path).unwrap();
    append(&ground.to, b"{\"n\":3}\n").unwrap();
    assert_eq!(
        (ground.text("moved"), ground.text("web.jsonl")),
        ("{\"n\":2}\n".into(), "{\"n\":3}\n".into())
    );
    // copytruncate
    File::options().write(true).open(&ground.to.path).unwrap().set_len(0).unwrap();
    append(&ground.to, b"{\"n\":4}\n").unwrap();
    assert_eq!(ground.text("web.jsonl"), "{\"n\":4}\n");
    let (dir, aside) = (ground.to.path.parent().unwrap(), ground.dir.path().join("aside"));
    fs::rename(dir, &aside).unwrap();
    assert_eq!(append(&ground.to, b"{}\n").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(refusal(&ground.to.path), None, "it may come back");
    fs::create_dir(dir).unwrap();
    append(&ground.to, b"{\"n\":5}\n").unwrap();
    assert_eq!(ground.text("web.jsonl"), "{\"n\":5}\n");
    assert_eq!(fs::read_to_string(aside.join("web.jsonl")).unwrap(), "{\"n\":4}\n");
}

#[test]
fn a_line_that_was_torn_is_no_part_of_the_next() {
    let ground = Ground::new(1000, 4);
    fs::write(&ground.to.path, "{}\n{\"n\":").unwrap();
    (0..2).for_each(|_| append(&ground.to, b"{}\n").unwrap());
    assert_eq!(ground.text("web.jsonl"), "{}\n{\"n\":\n{}\n{}\n");
}

/// Somebody else could have its lines written into a file that they chose, or keep them.
#[test]
fn it_is_not_written_where_others_may_write() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    let ground = Ground::new(1000, 4);
    let (path, dir) = (&ground.to.path, ground.to.path.parent().unwrap());
    let canary = ground.dir.path().join("canary");
    fs::write(&canary, "untouched").unwrap();
    symlink(&canary, path).unwrap();
    assert!(ground.refused().contains("it is a symbolic link"));
    fs::remove_file(path).unwrap();
    fs::hard_link(&canary, path).unwrap();
    assert!(ground.refused().contains("another name"));
    fs::remove_file(path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(ground.refused().contains("no regular file"));
    fs::remove_file(path).unwrap();
    fs::write(path, "").unwrap();
    chown(path, Some(1234), None).unwrap();
    assert!(ground.refused().contains("it belongs to user 1234"));
    fs::remove_file(path).unwrap();
    let with = |mode| fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o777, 0o1777, 0o770] {
        with(mode);
        assert!(ground.refused().contains(&format!("others may write to its directory (mode {mode:04o})")));
    }
    with(0o755);
    chown(dir, Some(1234), None).unwrap();
    assert!(ground.refused().contains("its directory belongs to user 1234"));
    fs::remove_dir(dir).unwrap();
    fs::create_dir(ground.dir.path().join("real")).unwrap();
    symlink("real", dir).unwrap();
    assert!(ground.refused().contains("a symbolic link is on the way to it"));
    fs::remove_file(dir).unwrap();
    fs::write(dir, "").unwrap();
    assert!(ground.refused().contains("no directory"));
    assert_eq!(fs::read_to_string(&canary).unwrap(), "untouched");
    assert_eq!(fs::read_dir(ground.dir.path().join("real")).unwrap().count(), 0);
}

#[test]
fn several_daemons_have_one_file() {
    let ground = Ground::new(2000, 90);
    let write = |daemon: u32| {
        for number in 0..150 {
            append(&ground.to, format!("{{\"daemon\":{daemon},\"number\":{number}}}\n").as_bytes()).unwrap();
        }
    };
    std::thread::scope(|scope| (0..3).for_each(|daemon| drop(scope.spawn(move || write(daemon)))));
    let names = ground.names();
    assert!(names.len() > 4, "{names:?}");
    let mut all: Vec<(u64, u64)> = Vec::new();
    for name in &names {
        let text = ground.text(name);
        assert!(text.len() <= 2000, "{name}");
        assert!(text.len() > 1900 || *name == "web.jsonl", "{name} gave way too early");
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            all.push((line["daemon"].as_u64().unwrap(), line["number"].as_u64().unwrap()));
        }
    }
    all.sort_unstable();
    let expected = (0..3).flat_map(|daemon| (0..150).map(move |number| (daemon, number)));
    assert_eq!(all, expected.collect::<Vec<_>>(), "each once");
    let file = File::open(&ground.to.path).unwrap();
    let _held = Locked::now(file).unwrap().unwrap();
    assert!(append(&ground.to, b"{}\n").unwrap_err().to_string().contains("locked"));
}

/// What fails leaves the file as it was, and within its bounds.
#[test]
fn a_disk_that_fails_leaves_whole_lines() {
    let ground = Ground::new(30, 2);
    (0..3).for_each(|_| append(&ground.to, b"{\"n\":1}\n").unwrap());
    let failing = |at: &'static str, lines: &[u8]| {
        let hook: failpoint::Hook = Rc::new(move |place| match place == at {
            true => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            false => Ok(()),
        });
        failpoint::with(hook, || append(&ground.to, lines)).unwrap_err().raw_os_error()
    };
    assert_eq!(failing("statistics rotate", b"{\"n\":2}\n"), Some(libc::ENOSPC));
    assert_eq!((ground.names(), ground.text("web.jsonl").lines().count()), (vec!["web.jsonl".into()], 3));
    assert_eq!(failing("statistics written", b"{}\n"), Some(libc::ENOSPC));
    assert_eq!(ground.text("web.jsonl").lines().count(), 3);
    append(&ground.to, b"{\"n\":2}\n").unwrap();
    assert_eq!(
        (ground.text("web.jsonl.1").lines().count(), ground.text("web.jsonl").as_str()),
        (3, "{\"n\":2}\n")
    );
}
