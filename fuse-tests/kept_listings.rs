//! The kernel keeps listings of directories: they show what is there, and nobody is asked for them.

use std::fs::{self, File};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RawDir, RenameFlags, SeekFrom};
use standin::random::Random;

use crate::host::{Protected, Setup};
use crate::listings::listed;
use crate::random::setting;

/// A listing shows the names that are on the disk, with the numbers that `stat` says: when it is read
/// anew, and when the kernel has it.
#[track_caller]
fn assert_shown(protected: &Protected, dir: &str, after: &str) {
    let names: Vec<_> = listed(&protected.backing.join(dir)).into_iter().map(|(name, _)| name).collect();
    let at = protected.mount.join(dir);
    for pass in 0..3 {
        let found = listed(&at);
        let shown: Vec<_> = found.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(shown, names, "pass {pass} of {dir} after {after}");
        for (name, number) in found {
            let known = std::os::unix::fs::MetadataExt::ino(
                &fs::symlink_metadata(at.join(&name)).expect("what is listed is there"),
            );
            assert_eq!(number, known, "{name:?}, pass {pass} of {dir} after {after}");
        }
    }
}

#[test]
fn every_change_reaches_a_listing() {
    let mut protected = Protected::start(Setup::default());
    let mount = protected.mount.clone();
    let at = |path: &str| mount.join(path);
    ["one", "two", "one/moved"].iter().for_each(|dir| fs::create_dir(at(dir)).expect("a directory"));
    let rename = |from: &str, to: &str| fs::rename(at(from), at(to));
    let exchange = |from: &str, to: &str| {
        rustix::fs::renameat_with(CWD, at(from), CWD, at(to), RenameFlags::EXCHANGE).map_err(Into::into)
    };
    type Step<'a> = (&'a str, Box<dyn Fn() -> std::io::Result<()> + 'a>);
    let steps: [Step<'_>; 12] = [
        ("nothing", Box::new(|| Ok(()))),
        ("a file", Box::new(|| fs::write(at("one/file"), b"x"))),
        ("a directory", Box::new(|| fs::create_dir(at("one/dir")))),
        ("a link", Box::new(|| fs::hard_link(at("one/file"), at("two/link")))),
        ("a symlink", Box::new(|| std::os::unix::fs::symlink("x", at("two/symlink")))),
        ("a rename", Box::new(|| rename("one/file", "one/renamed"))),
        ("a move", Box::new(|| rename("one/renamed", "two/file"))),
        ("a move over another", Box::new(|| rename("two/symlink", "two/link"))),
        // `..` is another one then.
        ("a moved directory", Box::new(|| rename("one/moved", "two/moved"))),
        ("an exchange", Box::new(|| exchange("one/dir", "two/file"))),
        ("a removal", Box::new(|| fs::remove_file(at("one/dir")))),
        ("a removed directory", Box::new(|| fs::remove_dir(at("two/file")))),
    ];
    for (what, step) in &steps {
        step().unwrap_or_else(|error| panic!("{what}: {error}"));
        let dirs = ["one", "two", "one/moved", "two/moved"];
        dirs.iter().filter(|dir| at(dir).exists()).for_each(|dir| assert_shown(&protected, dir, what));
    }
    protected.assert_in_sync();
    protected.stop();
}

/// Every listing of a directory that nobody had changed asked the daemon for all of its names again.
#[test]
fn a_directory_is_listed_from_memory() {
    let mut protected = Protected::start(Setup::default());
    let dir = protected.mount.join("dir");
    fs::create_dir(&dir).expect("a directory");
    (0..100).for_each(|number| fs::write(dir.join(number.to_string()), b"").expect("a file"));
    let open = File::open(&dir).expect("a directory");
    assert_eq!(count_from_start(&open), 102);
    // The daemon answers nothing now.
    protected.daemon().signal(libc::SIGSTOP);
    let (done, counted) = mpsc::channel();
    let listing = std::thread::spawn(move || done.send(count_from_start(&open)));
    let counted = counted.recv_timeout(Duration::from_secs(60));
    protected.daemon().signal(libc::SIGCONT);
    let _ = listing.join().expect("a thread that lists");
    assert_eq!(counted, Ok(102), "the daemon was asked");
    protected.stop();
}

fn count_from_start(open: &File) -> usize {
    rustix::fs::seek(open, SeekFrom::Start(0)).expect("from its beginning");
    let mut buffer = Vec::with_capacity(64 << 10);
    let mut reader = RawDir::new(open, buffer.spare_capacity_mut());
    let mut count = 0;
    while let Some(entry) = reader.next() {
        entry.expect("an entry");
        count += 1;
    }
    count
}

/// Names come and go while others list: in the end everybody sees what is there.
#[test]
fn listings_beside_changes_end_up_right() {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    let seed = setting("STANDIN_LISTINGS_SEED").unwrap_or(since.as_secs());
    println!("STANDIN_LISTINGS_SEED={seed}");
    let mut protected = Protected::start(Setup::default());
    let dirs = ["a", "b", "c"];
    dirs.iter().for_each(|dir| fs::create_dir(protected.mount.join(dir)).expect("a directory"));
    for round in 0..20 {
        std::thread::scope(|scope| {
            for worker in 0..3 {
                let (mount, random) = (&protected.mount, Random::new(seed ^ (round << 48) ^ (worker << 56)));
                scope.spawn(move || change_names(mount, &dirs, random));
                scope.spawn(move || (0..60).for_each(|step| drop(listed(&mount.join(dirs[step % 3])))));
            }
        });
        dirs.iter().for_each(|dir| assert_shown(&protected, dir, &format!("round {round}")));
    }
    protected.assert_in_sync();
    protected.stop();
}

fn change_names(mount: &Path, dirs: &[&str], mut random: Random) {
    for _ in 0..60 {
        let mut place = || mount.join(random.one_of(dirs)).join(random.below(12).to_string());
        let (from, to) = (place(), place());
        // What others have done meanwhile may be in the way.
        let _ = match random.below(5) {
            0 | 1 => fs::write(&from, b""),
            2 => fs::remove_file(&from),
            3 => fs::hard_link(&from, &to),
            _ => fs::rename(&from, &to),
        };
    }
}
