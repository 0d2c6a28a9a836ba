//! Every kind of operation, each as a small case that runs on a plain directory and on the mount:
//! both must answer the same, leave the same tree, and the replica must be equal.

mod cases;
mod names;
mod users;

use std::fmt::Debug;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::host::{Protected, Setup, dir_on_disk};
use crate::tree::{self, Rules};

/// One case: a name and what it does in an empty directory.
type Case = (&'static str, fn(&mut Bench));

/// An empty directory of a case and the answers that it got.
pub struct Bench {
    pub path: PathBuf,
    dir: OwnedFd,
    answers: Vec<String>,
}

impl Bench {
    fn new(root: &Path, name: &str) -> Bench {
        let path = root.join(name.replace(' ', "-"));
        fs::create_dir(&path).expect("the directory of a case");
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&path, flags, Mode::empty()).expect("the directory of a case");
        Bench { path, dir, answers: Vec::new() }
    }

    /// Notes what a call answered: value or error number.
    pub fn note<T: Debug, E: Debug>(&mut self, what: &str, answer: Result<T, E>) -> Option<T> {
        self.answers.push(format!("{what}: {answer:?}"));
        answer.ok()
    }

    /// Notes that a call worked or why not, without its value.
    pub fn done<T, E: Debug>(&mut self, what: &str, answer: Result<T, E>) -> Option<T> {
        let (value, answer) = match answer {
            Ok(value) => (Some(value), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.note(what, answer);
        value
    }

    /// Notes a value.
    pub fn value<T: Debug>(&mut self, what: &str, value: T) {
        self.answers.push(format!("{what}: {value:?}"));
    }

    /// Opens a file of the case for a call that is not what the case is about.
    pub fn open(&mut self, name: &str, flags: OFlags) -> File {
        let fd = rustix::fs::openat(&self.dir, name, flags | OFlags::CLOEXEC, Mode::from(0o644));
        File::from(fd.unwrap_or_else(|error| panic!("{:?}: open {name} {flags:?}: {error}", self.path)))
    }

    /// A new file with content.
    pub fn file(&mut self, name: &str, content: &[u8]) -> File {
        let file = self.open(name, OFlags::CREATE | OFlags::EXCL | OFlags::RDWR);
        std::os::unix::fs::FileExt::write_all_at(&file, content, 0).expect("the content of a new file");
        file
    }

    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Notes type, mode, owner, links, size and device of an object; no times.
    pub fn stat(&mut self, name: &str) {
        let answer = rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| {
            let directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
            let size = if directory { 0 } else { stat.st_size };
            (format!("{:o}", stat.st_mode), stat.st_uid, stat.st_gid, stat.st_nlink, size, stat.st_rdev)
        });
        self.note(&format!("stat {name}"), answer);
    }

    /// Notes the mtime of an object.
    pub fn mtime(&mut self, name: &str) {
        let answer = rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW);
        self.note(&format!("mtime {name}"), answer.map(|stat| (stat.st_mtime, stat.st_mtime_nsec)));
    }

    /// Notes the whole content, by what a new reader gets.
    pub fn content(&mut self, name: &str) {
        let answer = fs::read(self.path.join(name)).map(|bytes| {
            (
                bytes.len(),
                bytes.iter().take(24).copied().collect::<Vec<u8>>(),
                xxhash_rust::xxh3::xxh3_64(&bytes),
            )
        });
        self.note(&format!("content of {name}"), answer.map_err(|error| error.raw_os_error()));
    }

    /// Notes the names in the directory, sorted, with their types.
    pub fn list(&mut self) {
        let answer = fs::read_dir(&self.path).map(|entries| {
            let mut names: Vec<_> = entries
                .map_while(Result::ok)
                .map(|entry| {
                    let kind = entry.file_type().expect("a type");
                    (entry.file_name(), kind.is_dir(), kind.is_symlink(), kind.is_fifo())
                })
                .collect();
            names.sort();
            names
        });
        self.note("names", answer.map_err(|error| error.raw_os_error()));
    }
}

/// Runs each case in a directory of its own below `root`; gives each one's answers.
fn run(cases: &[Case], root: &Path) -> Vec<Vec<String>> {
    let answers = cases.iter().map(|(name, case)| {
        let mut bench = Bench::new(root, name);
        // One case that cannot go on must not hide what the others would find.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&mut bench))).is_err() {
            bench.value("ended by a panic", true);
        }
        bench.answers
    });
    answers.collect()
}

/// The lines in which the answers of the mount differ from those of the plain directory.
fn differing(cases: &[Case], plain: &[Vec<String>], mount: &[Vec<String>]) -> Vec<String> {
    let mut found = Vec::new();
    for ((name, _), (plain, mount)) in cases.iter().zip(plain.iter().zip(mount)) {
        if plain.len() != mount.len() {
            found.push(format!("{name}: {} answers on disk, {} on the mount", plain.len(), mount.len()));
        }
        let lines = plain.iter().zip(mount).filter(|(plain, mount)| plain != mount);
        found.extend(lines.map(|(plain, mount)| format!("{name}:\n     disk {plain}\n    mount {mount}")));
    }
    found
}

fn all_cases() -> Vec<Case> {
    [cases::CASES, names::CASES, users::CASES].concat()
}

#[test]
fn operations_answer_as_on_disk_and_arrive() {
    let cases = all_cases();
    let plain = dir_on_disk();
    let protected = Protected::start(Setup::default());
    let on_disk = run(&cases, plain.path());
    let on_mount = run(&cases, &protected.mount);

    let found = differing(&cases, &on_disk, &on_mount);
    // Said before the comparison, so that a failure of one does not hide the other.
    found.iter().for_each(|line| eprintln!("{line}"));
    let seen = protected.assert_in_sync();
    assert!(found.is_empty(), "{} answers differ", found.len());
    assert!(seen.objects > 2 * cases.len(), "{seen:?}");
    // The replica equals the backing tree; the backing tree must be what the plain one became.
    let rules = Rules { ignore_times: true, ..Rules::default() };
    tree::assert_same_by(plain.path(), &protected.backing, &rules);
    fs::remove_dir_all(plain.keep()).expect("paths of any depth can be removed");
}

/// The cases themselves must be repeatable: what differs from run to run on disk proves nothing.
#[test]
fn operations_answer_the_same_twice_on_disk() {
    let cases = all_cases();
    let (first, second) = (dir_on_disk(), dir_on_disk());
    let answers = (run(&cases, first.path()), run(&cases, second.path()));
    assert_eq!(differing(&cases, &answers.0, &answers.1), Vec::<String>::new());
    let rules = Rules { ignore_times: true, ..Rules::default() };
    tree::assert_same_by(first.path(), second.path(), &rules);
    for dir in [first, second] {
        fs::remove_dir_all(dir.keep()).expect("paths of any depth can be removed");
    }
}

#[test]
fn a_differing_answer_is_found() {
    let line = |text: &str| vec![vec!["open: Ok(())".to_string(), text.to_string()]];
    let cases: &[Case] = &[("case", |_| ())];
    assert_eq!(differing(cases, &line("write: Ok(1)"), &line("write: Ok(1)")).len(), 0);
    assert_eq!(differing(cases, &line("write: Ok(1)"), &line("write: Err(EIO)")).len(), 1);
    assert_eq!(differing(cases, &line("write: Ok(1)"), &[vec!["open: Ok(())".into()]]).len(), 1);
}
