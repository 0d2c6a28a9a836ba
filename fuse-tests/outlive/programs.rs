//! Programs that know what each of their calls has to answer.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FallocateFlags, RenameFlags, XattrFlags};
use standin::random::Random;

pub trait Program: Send {
    fn name(&self) -> &'static str;
    /// A call, or a few; panics where one answers what it should not.
    fn step(&mut self);
    /// When the daemons are through: what it has made is there.
    fn check(&mut self);
}

/// What a program has done.
pub struct Done {
    pub name: &'static str,
    pub calls: u64,
    pub longest: Duration,
}

pub fn run(mut program: Box<dyn Program>, end: &AtomicBool) -> Done {
    let mut done = Done { name: program.name(), calls: 0, longest: Duration::ZERO };
    while !end.load(Relaxed) {
        let began = Instant::now();
        program.step();
        done.calls += 1;
        done.longest = done.longest.max(began.elapsed());
    }
    program.check();
    done
}

pub fn all(mount: &Path, seed: u64) -> Vec<Box<dyn Program>> {
    vec![
        Box::new(Appender::new(mount)),
        Box::new(Names::new(mount, "names-1", seed)),
        Box::new(Names::new(mount, "names-2", seed + 1)),
        Box::new(Nameless::new(mount, seed + 2)),
        Box::new(Ranges::new(mount, seed + 3)),
        Box::new(Attributes::new(mount)),
        Box::new(Lister::new(mount)),
    ]
}

/// Appends lines, each of which has to be there once.
struct Appender {
    file: File,
    path: PathBuf,
    lines: u64,
}

impl Appender {
    fn new(mount: &Path) -> Appender {
        let path = mount.join("log");
        let file = OpenOptions::new().create(true).append(true).open(&path).expect("a log");
        Appender { file, path, lines: 0 }
    }
}

impl Program for Appender {
    fn name(&self) -> &'static str {
        "appender"
    }

    fn step(&mut self) {
        self.lines += 1;
        let line = format!("line {:07}\n", self.lines);
        let written = self.file.write(line.as_bytes()).expect("an append");
        assert_eq!(written, line.len(), "a short append");
    }

    fn check(&mut self) {
        let text = fs::read_to_string(&self.path).expect("the log");
        let mut lines = text.lines();
        for number in 1..=self.lines {
            assert_eq!(lines.next(), Some(format!("line {number:07}").as_str()));
        }
        assert_eq!(lines.next(), None);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    File(Vec<u8>),
    Directory,
    Symlink,
}

/// Makes, links, moves and removes names in a directory of its own, and knows which there are.
struct Names {
    dir: PathBuf,
    random: Random,
    names: BTreeMap<String, Kind>,
    /// Names that are one file.
    linked: BTreeSet<String>,
    next: u64,
}

impl Names {
    fn new(mount: &Path, name: &str, seed: u64) -> Names {
        let dir = mount.join(name);
        fs::create_dir(&dir).expect("a directory");
        Names { dir, random: Random::new(seed), names: BTreeMap::new(), linked: BTreeSet::new(), next: 0 }
    }

    fn fresh(&mut self) -> String {
        self.next += 1;
        format!("n{}", self.next)
    }

    fn some(&mut self) -> Option<String> {
        let names: Vec<String> = self.names.keys().cloned().collect();
        self.random.pick(&names).cloned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn make(&mut self) {
        let name = self.fresh();
        let path = self.path(&name);
        let kind = match self.random.below(4) {
            0 => {
                fs::create_dir(&path).unwrap_or_else(|error| panic!("mkdir {name}: {error}"));
                Kind::Directory
            }
            1 => {
                std::os::unix::fs::symlink("nowhere", &path)
                    .unwrap_or_else(|error| panic!("symlink {name}: {error}"));
                Kind::Symlink
            }
            2 => {
                let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
                rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::RegularFile, mode, 0)
                    .unwrap_or_else(|error| panic!("mknod {name}: {error}"));
                Kind::File(Vec::new())
            }
            _ => {
                let mut file = OpenOptions::new()
                    .create_new(true)
                    .write(true)
                    .open(&path)
                    .unwrap_or_else(|error| panic!("create {name}: {error}"));
                let content = name.as_bytes().to_vec();
                file.write_all(&content).unwrap_or_else(|error| panic!("write {name}: {error}"));
                Kind::File(content)
            }
        };
        self.names.insert(name, kind);
    }

    fn remove(&mut self) {
        let Some(name) = self.some() else { return };
        let path = self.path(&name);
        let removed = match self.names[&name] {
            Kind::Directory => fs::remove_dir(&path),
            Kind::File(_) | Kind::Symlink => fs::remove_file(&path),
        };
        removed.unwrap_or_else(|error| panic!("remove {name}: {error}"));
        self.names.remove(&name);
        self.linked.remove(&name);
        let again = match self.random.below(2) {
            0 => fs::remove_file(&path).expect_err("removed twice"),
            _ => fs::metadata(&path).expect_err("seen after its removal"),
        };
        assert_eq!(again.kind(), io::ErrorKind::NotFound, "{name}: {again}");
    }

    fn rename(&mut self) {
        let Some(name) = self.some() else { return };
        let to = self.fresh();
        fs::rename(self.path(&name), self.path(&to))
            .unwrap_or_else(|error| panic!("rename {name} {to}: {error}"));
        let kind = self.names.remove(&name).expect("it was there");
        self.names.insert(to.clone(), kind);
        if self.linked.remove(&name) {
            self.linked.insert(to);
        }
    }

    /// Of two files, one in the other's place; or each in the other's.
    fn rename_over(&mut self) {
        let (Some(one), Some(other)) = (self.some(), self.some()) else { return };
        let is_file = |kind: &Kind| matches!(kind, Kind::File(_));
        if one == other || self.linked.contains(&one) || self.linked.contains(&other) {
            return;
        }
        let (from, to) = (self.path(&one), self.path(&other));
        if self.random.one_in(2) {
            rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE)
                .unwrap_or_else(|error| panic!("exchange {one} {other}: {error}"));
            let (a, b) = (self.names[&one].clone(), self.names[&other].clone());
            self.names.insert(one, b);
            self.names.insert(other, a);
        } else if is_file(&self.names[&one]) && is_file(&self.names[&other]) {
            fs::rename(&from, &to).unwrap_or_else(|error| panic!("replace {other} by {one}: {error}"));
            let kind = self.names.remove(&one).expect("it was there");
            self.names.insert(other, kind);
        }
    }

    fn link(&mut self) {
        let Some(name) = self.some() else { return };
        if !matches!(self.names[&name], Kind::File(_)) {
            return;
        }
        let to = self.fresh();
        fs::hard_link(self.path(&name), self.path(&to))
            .unwrap_or_else(|error| panic!("link {name} {to}: {error}"));
        let kind = self.names[&name].clone();
        self.names.insert(to.clone(), kind);
        self.linked.extend([name, to]);
    }

    /// What is there already is refused as ever.
    fn refused(&mut self) {
        let Some(name) = self.some() else { return };
        let path = self.path(&name);
        let error = OpenOptions::new().create_new(true).write(true).open(&path).expect_err("made twice");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{name}: {error}");
        let error = fs::create_dir(&path).expect_err("made twice");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{name}: {error}");
    }
}

impl Program for Names {
    fn name(&self) -> &'static str {
        "names"
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0..4 => self.make(),
            4..6 => self.remove(),
            6..8 => self.rename(),
            8..10 => self.rename_over(),
            10 => self.link(),
            _ => self.refused(),
        }
        if self.names.len() > 40 {
            self.remove();
            self.remove();
        }
    }

    fn check(&mut self) {
        let entries = fs::read_dir(&self.dir).expect("a listing");
        let found: BTreeSet<OsString> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        let known: BTreeSet<OsString> = self.names.keys().map(OsString::from).collect();
        assert_eq!(found, known);
        for (name, kind) in &self.names {
            let meta = fs::symlink_metadata(self.path(name)).expect("attributes");
            match kind {
                Kind::File(content) => {
                    assert_eq!(&fs::read(self.path(name)).expect("a read"), content, "{name}")
                }
                Kind::Directory => assert!(meta.is_dir(), "{name}"),
                Kind::Symlink => assert!(meta.is_symlink(), "{name}"),
            }
        }
    }
}

/// Works in files that it has removed, as programs with temporary files do.
struct Nameless {
    dir: PathBuf,
    random: Random,
    files: Vec<(File, Vec<u8>)>,
    next: u64,
}

impl Nameless {
    fn new(mount: &Path, seed: u64) -> Nameless {
        let dir = mount.join("temporary");
        fs::create_dir(&dir).expect("a directory");
        Nameless { dir, random: Random::new(seed), files: Vec::new(), next: 0 }
    }
}

impl Program for Nameless {
    fn name(&self) -> &'static str {
        "nameless"
    }

    fn step(&mut self) {
        if self.files.len() < 4 || self.random.one_in(20) {
            self.next += 1;
            let path = self.dir.join(self.next.to_string());
            let file = OpenOptions::new().create_new(true).read(true).write(true).open(&path);
            let file = file.unwrap_or_else(|error| panic!("create {}: {error}", self.next));
            fs::remove_file(&path).unwrap_or_else(|error| panic!("remove {}: {error}", self.next));
            self.files.push((file, Vec::new()));
        }
        if self.files.len() > 8 {
            self.files.remove(0);
        }
        let at = self.random.below(self.files.len() as u64) as usize;
        let (file, content) = &mut self.files[at];
        let bytes = vec![self.random.below(256) as u8; 1 + self.random.below(6000) as usize];
        let offset = self.random.below(content.len() as u64 + 1) as usize;
        file.write_all_at(&bytes, offset as u64).unwrap_or_else(|error| panic!("write: {error}"));
        content.resize(content.len().max(offset + bytes.len()), 0);
        content[offset..offset + bytes.len()].copy_from_slice(&bytes);
        if self.random.one_in(4) {
            self.check();
        }
    }

    fn check(&mut self) {
        for (file, content) in &self.files {
            let mut found = vec![0; content.len()];
            file.read_exact_at(&mut found, 0).unwrap_or_else(|error| panic!("read: {error}"));
            assert!(&found == content, "the content of a file without a name");
            assert_eq!(file.metadata().expect("attributes").len(), content.len() as u64);
        }
    }
}

/// Writes, reserves, punches and truncates one file, and knows each byte.
struct Ranges {
    file: File,
    random: Random,
    content: Vec<u8>,
}

const RANGES_LEN: u64 = 300_000;

impl Ranges {
    fn new(mount: &Path, seed: u64) -> Ranges {
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(true).read(true).write(true).open(mount.join("ranges"));
        Ranges { file: file.expect("a file"), random: Random::new(seed), content: Vec::new() }
    }
}

impl Program for Ranges {
    fn name(&self) -> &'static str {
        "ranges"
    }

    fn step(&mut self) {
        let from = self.random.below(RANGES_LEN);
        let len = 1 + self.random.below(70_000);
        let range = from as usize..(from + len) as usize;
        match self.random.below(6) {
            0 => {
                self.file.set_len(from).expect("a truncation");
                self.content.resize(from as usize, 0);
            }
            1 => {
                let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&self.file, how, from, len).expect("a hole");
                let end = range.end.min(self.content.len());
                if range.start < end {
                    self.content[range.start..end].fill(0);
                }
            }
            2 => {
                rustix::fs::fallocate(&self.file, FallocateFlags::empty(), from, len).expect("a reservation");
                self.content.resize(self.content.len().max(range.end), 0);
            }
            _ => {
                let bytes = vec![self.random.below(255) as u8 + 1; len as usize];
                self.file.write_all_at(&bytes, from).expect("a write");
                self.content.resize(self.content.len().max(range.end), 0);
                self.content[range].copy_from_slice(&bytes);
            }
        }
        if self.random.one_in(8) {
            self.file.sync_data().expect("a sync");
            self.check();
        }
    }

    fn check(&mut self) {
        assert_eq!(self.file.metadata().expect("attributes").len(), self.content.len() as u64);
        let mut found = vec![0; self.content.len()];
        self.file.read_exact_at(&mut found, 0).expect("a read");
        assert!(found == self.content, "the content of a file");
    }
}

/// Extended attributes that must not be there, or must be, before.
struct Attributes {
    path: PathBuf,
    next: u64,
}

impl Attributes {
    fn new(mount: &Path) -> Attributes {
        let path = mount.join("attributes");
        File::create(&path).expect("a file");
        Attributes { path, next: 0 }
    }
}

impl Program for Attributes {
    fn name(&self) -> &'static str {
        "attributes"
    }

    fn step(&mut self) {
        self.next += 1;
        let value = self.next.to_string();
        let set = |flags| rustix::fs::setxattr(&self.path, "user.test", value.as_bytes(), flags);
        set(XattrFlags::CREATE).expect("a new attribute");
        assert_eq!(set(XattrFlags::CREATE), Err(rustix::io::Errno::EXIST));
        set(XattrFlags::REPLACE).expect("another value");
        let mut found = [0; 32];
        let len = rustix::fs::getxattr(&self.path, "user.test", &mut found).expect("a value");
        assert_eq!(&found[..len], value.as_bytes());
        rustix::fs::removexattr(&self.path, "user.test").expect("removed");
        assert_eq!(rustix::fs::removexattr(&self.path, "user.test"), Err(rustix::io::Errno::NODATA));
        let mode = 0o600 | (self.next % 64) as u32;
        fs::set_permissions(&self.path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("a mode");
        let meta = fs::metadata(&self.path).expect("attributes");
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777, mode);
    }

    fn check(&mut self) {}
}

/// Lists a directory that does not change, and reads what is in it.
struct Lister {
    dir: PathBuf,
}

const LISTED: usize = 400;

impl Lister {
    fn new(mount: &Path) -> Lister {
        let dir = mount.join("listed");
        fs::create_dir(&dir).expect("a directory");
        (0..LISTED).for_each(|n| fs::write(dir.join(n.to_string()), n.to_string()).expect("a file"));
        Lister { dir }
    }
}

impl Program for Lister {
    fn name(&self) -> &'static str {
        "lister"
    }

    fn step(&mut self) {
        let mut seen = BTreeSet::new();
        for entry in fs::read_dir(&self.dir).expect("a listing") {
            let entry = entry.expect("an entry");
            let name = entry.file_name();
            let mut text = String::new();
            let read = File::open(entry.path()).and_then(|mut file| file.read_to_string(&mut text));
            read.unwrap_or_else(|error| panic!("{}: {error}", name.display()));
            assert_eq!(name, *text);
            assert!(seen.insert(name), "listed twice");
        }
        assert_eq!(seen.len(), LISTED);
    }

    fn check(&mut self) {
        self.step();
    }
}
