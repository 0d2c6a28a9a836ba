//! Trees with everything that a file system can hold, drawn from a seed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, IFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use standin::random::Random;

/// Levels below `deep`: its paths are longer than any path may be.
const LEVELS: usize = 1100;
const NAME_MAX: usize = 255;
/// ext4 has at most 65,000 names for an object.
const NAMES_OF_ONE: usize = 500;
/// Kept for experiments. `admin-guide/devices.txt`.
const NO_DRIVER: u32 = 240;

/// Names for who works in the tree, below its root. What somebody renames is soon somewhere else.
pub struct Names {
    pub directories: Vec<PathBuf>,
    pub files: Vec<PathBuf>,
}

/// Of all that is drawn from a seed.
struct Fill<'a> {
    root: &'a Path,
    random: Random,
    names: Names,
}

/// Fills an empty directory with about as many files, and a directory of twice as many names.
pub fn fill(root: &Path, seed: u64, files: usize) -> Names {
    let names = Names { directories: vec![PathBuf::new()], files: Vec::new() };
    let mut fill = Fill { root, random: Random::new(seed), names };
    for number in 0..files / 40 + 5 {
        fill.directory(number);
    }
    for number in 0..files {
        fill.object(number);
    }
    fill.wide(files);
    fill.deep();
    fill.names
}

impl Fill<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn is_one_in(&mut self, bound: u64) -> bool {
        self.random.below(bound) == 0
    }

    fn directory(&mut self, number: usize) {
        let parent = self.random.one_of(&self.names.directories).clone();
        let path = parent.join(self.name('d', number));
        fs::create_dir(self.root.join(&path)).expect("a directory");
        self.attributes(&path, true);
        self.names.directories.push(path);
    }

    /// What it is called; no two are called the same.
    fn name(&mut self, kind: char, number: usize) -> PathBuf {
        let mut name = format!("{kind}{number}").into_bytes();
        match self.below(40) {
            0 => name.resize(NAME_MAX, b'n'),
            1 => name.extend([0xff, 0xc3, b'(', 0x80]),
            2 => name.extend(b" new\nline\t\\ *?"),
            3 => name.extend("nai\u{308}ve".bytes()),
            4 => name.insert(0, b'-'),
            _ => (),
        }
        PathBuf::from(OsStr::from_bytes(&name))
    }

    fn object(&mut self, number: usize) {
        let parent = self.random.one_of(&self.names.directories).clone();
        let path = parent.join(self.name('f', number));
        let at = self.root.join(&path);
        match self.below(100) {
            0 => self.special(&at),
            1 | 2 => {
                symlink(if self.is_one_in(2) { "f1" } else { "nowhere/\u{e9}" }, &at).expect("a symlink")
            }
            3 => self.sparse(&at),
            _ => self.content(&at),
        }
        if !at.is_symlink() {
            self.attributes(&path, false);
        }
        if self.is_one_in(10) {
            let other = self.random.one_of(&self.names.directories).clone();
            let link = other.join(format!("l{number}"));
            fs::hard_link(&at, self.root.join(&link)).expect("a link");
            self.names.files.push(link);
        }
        self.names.files.push(path);
    }

    fn special(&mut self, at: &Path) {
        let (kind, device) = *self.random.one_of(&[
            (FileType::Fifo, 0),
            (FileType::Socket, 0),
            (FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
            // Of a number that no driver has.
            (FileType::BlockDevice, rustix::fs::makedev(NO_DRIVER, 7)),
        ]);
        rustix::fs::mknodat(CWD, at, kind, Mode::from(0o640), device).expect("a special file");
    }

    fn sparse(&mut self, at: &Path) {
        let file = File::create(at).expect("a file");
        file.set_len(self.below(4 << 20)).expect("a length");
        for _ in 0..self.below(4) {
            file.write_all_at(&[5; 7000], self.below(4 << 20)).expect("data");
        }
    }

    fn content(&mut self, at: &Path) {
        let usual = [0, 0, 1, 100, 1000, 4095, 4096, 9000];
        let len = if self.is_one_in(300) { 1_500_000 } else { *self.random.one_of(&usual) };
        let byte = self.below(256) as u8;
        fs::write(at, vec![byte; len]).expect("a file");
    }

    /// Owner, mode, xattrs, times: some of them.
    fn attributes(&mut self, path: &Path, is_directory: bool) {
        let at = self.root.join(path);
        if self.is_one_in(6) {
            lchown(&at, Some(self.below(9) as u32), Some(self.below(9) as u32)).expect("an owner");
        }
        if self.is_one_in(5) {
            let mode = *self.random.one_of(&[0, 0o400, 0o600, 0o755, 0o4711, 0o2755, 0o1777]);
            fs::set_permissions(&at, fs::Permissions::from_mode(mode)).expect("a mode");
        }
        let kind = fs::symlink_metadata(&at).expect("it was just made").file_type();
        if kind.is_file() || is_directory {
            self.xattrs(&at, is_directory);
        }
        if self.is_one_in(6) {
            let tv_sec = self.below(4 << 30) as i64 - (2 << 30);
            let time = Timespec { tv_sec, tv_nsec: self.below(1_000_000_000) as _ };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, &at, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times");
        }
    }

    fn xattrs(&mut self, at: &Path, is_directory: bool) {
        let set = |name: &str, value: &[u8]| {
            rustix::fs::lsetxattr(at, name, value, XattrFlags::empty()).expect("an xattr");
        };
        if self.is_one_in(8) {
            set("user.note", &vec![b'u'; self.below(900) as usize]);
        }
        if self.is_one_in(12) {
            set("trusted.note", b"of root");
        }
        if self.is_one_in(12) {
            set("system.posix_acl_access", &acl(self.below(100) as u32));
        }
        match is_directory {
            true if self.is_one_in(12) => set("system.posix_acl_default", &acl(self.below(100) as u32)),
            false if self.is_one_in(30) => set("security.capability", &may_use_raw_sockets()),
            true | false => (),
        }
    }

    /// A directory of very many names.
    fn wide(&mut self, files: usize) {
        fs::create_dir(self.root.join("wide")).expect("a directory");
        let mut linked = PathBuf::new();
        for number in 0..files * 2 {
            let path = Path::new("wide").join(format!("{number}"));
            let at = self.root.join(&path);
            match number % NAMES_OF_ONE {
                0 | 250.. => File::create(&at).map(drop),
                1.. => fs::hard_link(&linked, &at),
            }
            .expect("a file or a link");
            if number % NAMES_OF_ONE == 0 {
                linked = at;
            }
            if number % 10 == 0 {
                self.names.files.push(path);
            }
        }
    }

    fn deep(&mut self) {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = File::open(self.root).expect("the root");
        for level in 0..LEVELS {
            let name = if level == 0 { "deep".into() } else { format!("level{level}") };
            rustix::fs::mkdirat(&at, &name, Mode::from(0o755)).expect("a directory");
            at = File::from(rustix::fs::openat(&at, &name, flags, Mode::empty()).expect("a directory"));
        }
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&at, "bottom", flags, Mode::from(0o644)).expect("a file");
        File::from(file).write_all_at(b"far below", 0).expect("data");
    }
}

/// Files that nobody can change, or only append to.
const FLAGGED: [(&str, IFlags); 2] = [("immutable", IFlags::IMMUTABLE), ("append", IFlags::APPEND)];

pub fn with_flags(root: &Path) {
    for (name, flag) in FLAGGED {
        let path = root.join(name);
        fs::write(&path, name).expect("a file");
        set_flags(&path, flag);
    }
}

/// Those of one are the other's.
pub fn with_other_flags(root: &Path) {
    for ((name, _), (_, flag)) in FLAGGED.into_iter().zip(FLAGGED.into_iter().rev()) {
        let path = root.join(name);
        fs::write(&path, "something else").expect("a file");
        set_flags(&path, flag);
    }
}

/// For who wants to remove them.
pub fn without_flags(root: &Path) {
    for (name, _) in FLAGGED {
        set_flags(&root.join(name), IFlags::empty());
    }
}

fn set_flags(path: &Path, flag: IFlags) {
    let Ok(file) = File::open(path) else { return };
    let others = rustix::fs::ioctl_getflags(&file).expect("its flags");
    let others = others - IFlags::IMMUTABLE - IFlags::APPEND;
    rustix::fs::ioctl_setflags(&file, others | flag).expect("flags");
}

/// One user more than the mode names. `linux/posix_acl_xattr.h`.
fn acl(user: u32) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let entries = [(1u16, 7u16, NOBODY), (2, 5, user), (4, 5, NOBODY), (0x10, 5, NOBODY), (0x20, 4, NOBODY)];
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// `CAP_NET_RAW`, effective, in the second revision. `linux/capability.h`.
fn may_use_raw_sockets() -> Vec<u8> {
    [0x0200_0001u32, 1 << 13, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}
