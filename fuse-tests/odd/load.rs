//! Programs that rename, link, exchange, replace and rewrite all over a tree.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::{CWD, RenameFlags, XattrFlags};
use standin::random::Random;

use super::fill::Names;

/// What a name that has moved, or an odd pair of objects, answers on any disk; and what a flag forbids.
const FINE: &[i32] = &[
    libc::ENOENT,
    libc::EEXIST,
    libc::ENOTDIR,
    libc::EISDIR,
    libc::ENOTEMPTY,
    libc::EINVAL,
    libc::ENXIO,
    libc::EPERM,
    libc::EACCES,
    libc::ELOOP,
    libc::EMLINK,
    libc::ENAMETOOLONG,
];

/// Works until it is told to end, or has done so much. Gives how much succeeded.
pub fn work(root: &Path, names: &Names, seed: u64, max: u64, is_over: &AtomicBool) -> u64 {
    let mut load = Load { root, names, random: Random::new(seed), made: 0 };
    let mut done = 0;
    for step in 0..max {
        if is_over.load(Relaxed) {
            break;
        }
        match load.step() {
            Ok(()) => done += 1,
            Err(error) if error.raw_os_error().is_some_and(|code| FINE.contains(&code)) => (),
            Err(error) => panic!("seed {seed}, step {step}: an error that no disk gives: {error}"),
        }
    }
    done
}

struct Load<'a> {
    root: &'a Path,
    names: &'a Names,
    random: Random,
    made: u64,
}

impl Load<'_> {
    fn file(&mut self) -> PathBuf {
        self.root.join(self.random.one_of(&self.names.files))
    }

    fn directory(&mut self) -> PathBuf {
        self.root.join(self.random.one_of(&self.names.directories))
    }

    /// Not the root: it has no name here.
    fn inner(&mut self) -> PathBuf {
        self.root.join(self.random.one_of(&self.names.directories[1..]))
    }

    /// One that others may have chosen, too.
    fn new_name(&mut self) -> PathBuf {
        self.directory().join(format!("n{}", self.random.below(50)))
    }

    fn own_name(&mut self) -> PathBuf {
        self.made += 1;
        self.directory().join(format!("o{}", self.made))
    }

    fn exchange(from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE)?)
    }

    /// A regular file: whoever opens a fifo waits.
    fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
        let file = options.write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) }
    }

    fn write(path: &Path, content: &[u8]) -> io::Result<()> {
        Self::open(path, OpenOptions::new().create(true).truncate(true))?.write_all_at(content, 0)
    }

    fn step(&mut self) -> io::Result<()> {
        match self.random.below(20) {
            0 | 1 => fs::rename(self.file(), self.new_name()),
            2 => fs::rename(self.file(), self.file()),
            3 => fs::rename(self.new_name(), self.file()),
            4 => fs::rename(self.inner(), self.own_name()),
            5 => fs::rename(self.own_name(), self.inner()),
            6 => Self::exchange(&self.file(), &self.file()),
            7 => Self::exchange(&self.inner(), &self.new_name()),
            8 => Self::exchange(&self.inner(), &self.inner()),
            9 => fs::hard_link(self.file(), self.new_name()),
            10 => fs::remove_file(self.file()),
            11 => fs::remove_file(self.new_name()),
            12 | 13 => self.rewrite(),
            14 => Self::write(&self.own_name(), &vec![7; self.random.below(20_000) as usize]),
            15 => self.replace_safely(),
            16 => self.file_to_directory(),
            17 => self.directory_to_file(),
            18 => self.attributes(),
            _ => symlink("somewhere", self.new_name()),
        }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let file = Self::open(&self.file(), &mut OpenOptions::new())?;
        let (at, len) = (self.random.below(9000), self.random.below(5000) as usize);
        match self.random.below(4) {
            0 => file.set_len(at),
            _ => file.write_all_at(&vec![self.random.below(256) as u8; len], at),
        }
    }

    fn replace_safely(&mut self) -> io::Result<()> {
        let new = self.own_name();
        Self::write(&new, b"a new version")?;
        fs::rename(new, self.file())
    }

    fn file_to_directory(&mut self) -> io::Result<()> {
        let path = self.file();
        fs::remove_file(&path)?;
        fs::create_dir(&path)?;
        Self::write(&path.join("within"), b"x")
    }

    fn directory_to_file(&mut self) -> io::Result<()> {
        let path = self.file();
        if fs::symlink_metadata(&path)?.is_dir() {
            let _ = fs::remove_file(path.join("within"));
            fs::remove_dir(&path)?;
        }
        Self::write(&path, b"a file again")
    }

    fn attributes(&mut self) -> io::Result<()> {
        let path = if self.random.below(3) == 0 { self.inner() } else { self.file() };
        if fs::symlink_metadata(&path)?.is_symlink() {
            return lchown(path, Some(3), Some(4));
        }
        match self.random.below(3) {
            0 => fs::set_permissions(path, fs::Permissions::from_mode(self.random.below(0o10000) as u32)),
            1 => lchown(path, Some(self.random.below(9) as u32), None),
            _ => {
                let value = self.random.number().to_le_bytes();
                Ok(rustix::fs::lsetxattr(path, "trusted.load", &value, XattrFlags::empty())?)
            }
        }
    }
}
