//! One thread of the random test: what it can do, and which errors are fine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags,
};

use crate::sys::{Aligned, DIRECT_ALIGN, Mapping};
use standin::random::Random;

/// Names of directories; files of these names replace them at times.
pub const DIRECTORIES: [&str; 4] = ["d0", "d1", "d2", "d3"];
const LEAVES: [&str; 10] = ["f0", "f1", "f2", "f3", "f4", "f5", "d0", "d1", "d2", "d3"];
const HANDLES: usize = 6;
/// Files stay below this size, in bytes, but for a rare far write.
const SIZE: u64 = 600_000;
/// Bytes that are mapped.
const MAPPED: usize = 64 * 1024;

/// What a lost race or an odd pair of objects may answer on any disk.
const FINE: &[i32] = &[
    libc::ENOENT,
    libc::EEXIST,
    libc::ENOTDIR,
    libc::EISDIR,
    libc::ENOTEMPTY,
    libc::EINVAL,
    libc::ELOOP,
    libc::ENODATA,
    libc::EFAULT,
    libc::ENXIO,
    libc::ENODEV,
    libc::EPERM,
    libc::ESPIPE,
    libc::EBADF,
    // A mapping by a write-only handle.
    libc::EACCES,
];

type Kind = (&'static str, fn(&mut Worker) -> io::Result<()>);

/// All kinds of operations; each is as likely as the next.
pub const KINDS: &[Kind] = &[
    ("create", |w| w.open(OFlags::CREATE | OFlags::EXCL | OFlags::RDWR).map(|file| w.keep(file))),
    ("create and write", |w| w.open(OFlags::CREATE | OFlags::WRONLY).and_then(|file| w.write(&file))),
    ("write write-only", |w| w.open(OFlags::WRONLY).and_then(|file| w.write(&file))),
    ("write read-write", |w| w.open(OFlags::RDWR).and_then(|file| w.write(&file))),
    ("append", |w| w.open(OFlags::WRONLY | OFlags::APPEND).and_then(|file| w.write(&file))),
    ("write synchronous", |w| w.open(OFlags::WRONLY | OFlags::SYNC).and_then(|file| w.write(&file))),
    ("write direct", |w| w.open(OFlags::WRONLY | OFlags::DIRECT).and_then(|file| w.write_direct(&file))),
    ("write far", |w| {
        let file = w.open(OFlags::WRONLY)?;
        file.write_all_at(b"far", w.random.below(1 << 33))?;
        file.set_len(w.random.below(SIZE))
    }),
    ("truncating open", |w| w.open(OFlags::WRONLY | OFlags::TRUNC).and_then(|file| w.write(&file))),
    ("truncate", |w| w.open(OFlags::WRONLY)?.set_len(w.random.below(SIZE))),
    ("read", |w| w.open(OFlags::RDONLY)?.read_at(&mut [0; 8192], w.random.below(SIZE)).map(drop)),
    ("keep read-write", |w| w.open(OFlags::RDWR).map(|file| w.keep(file))),
    ("keep write-only", |w| w.open(OFlags::WRONLY).map(|file| w.keep(file))),
    ("kept write", |w| w.with_kept(|w, kept| w.write(&kept.file))),
    ("kept append and read", |w| {
        w.with_kept(|w, kept| {
            let end = kept.file.metadata()?.len().min(SIZE);
            kept.file.write_all_at(&w.bytes(3000), end)?;
            kept.file.read_at(&mut [0; 4096], w.random.below(SIZE)).map(drop)
        })
    }),
    ("kept truncate", |w| w.with_kept(|w, kept| kept.file.set_len(w.random.below(SIZE)))),
    ("kept chmod", |w| {
        w.with_kept(|w, kept| Ok(rustix::fs::fchmod(&kept.file, Mode::from(w.random.below(0o10000) as u32))?))
    }),
    ("kept xattr", |w| {
        w.with_kept(|w, kept| {
            let value = w.random.number().to_le_bytes();
            Ok(rustix::fs::fsetxattr(&kept.file, "user.kept", &value, XattrFlags::empty())?)
        })
    }),
    ("map", |w| {
        w.with_kept(|_, kept| {
            kept.mapping = Some(Mapping::new(&kept.file, MAPPED)?);
            Ok(())
        })
    }),
    ("store in mapping", |w| w.with_mapping(|w, mapping| mapping.store(w.mapped(), &w.bytes(2000)))),
    ("load from mapping", |w| w.with_mapping(|w, mapping| mapping.load(w.mapped(), &mut [0; 2000]))),
    ("sync mapping", |w| w.with_mapping(|_, mapping| mapping.sync())),
    ("fsync", |w| w.with_kept(|_, kept| kept.file.sync_all())),
    ("close", |w| {
        w.kept.pop();
        Ok(())
    }),
    ("allocate", |w| w.reserve(FallocateFlags::empty())),
    ("allocate, keep size", |w| w.reserve(FallocateFlags::KEEP_SIZE)),
    ("punch", |w| w.reserve(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE)),
    ("zero", |w| w.reserve(FallocateFlags::ZERO_RANGE)),
    ("zero, keep size", |w| w.reserve(FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE)),
    ("copy range", |w| {
        let (from, to) = (w.open(OFlags::RDONLY)?, w.open(OFlags::WRONLY)?);
        let (mut from_at, mut to_at) = (w.random.below(SIZE), w.random.below(SIZE));
        rustix::fs::copy_file_range(&from, Some(&mut from_at), &to, Some(&mut to_at), 50_000)?;
        Ok(())
    }),
    ("rename", |w| w.rename(RenameFlags::empty())),
    ("rename a directory", |w| {
        let (from, to) = (w.directory_path(), w.path());
        Ok(rustix::fs::renameat(w.root, from, w.root, to)?)
    }),
    ("rename, no replace", |w| w.rename(RenameFlags::NOREPLACE)),
    ("exchange", |w| w.rename(RenameFlags::EXCHANGE)),
    ("exchange with a directory", |w| {
        let (from, to) = (w.directory_path(), w.path());
        Ok(rustix::fs::renameat_with(w.root, from, w.root, to, RenameFlags::EXCHANGE)?)
    }),
    ("link", |w| {
        let (from, to) = (w.path(), w.path());
        Ok(rustix::fs::linkat(w.root, from, w.root, to, AtFlags::empty())?)
    }),
    ("symlink", |w| {
        let target = *w.random.one_of(&LEAVES);
        Ok(rustix::fs::symlinkat(target, w.root, w.path())?)
    }),
    ("make node", |w| {
        let kind = *w.random.one_of(&[FileType::Fifo, FileType::Socket, FileType::CharacterDevice]);
        let device = if kind == FileType::CharacterDevice { rustix::fs::makedev(1, 3) } else { 0 };
        Ok(rustix::fs::mknodat(w.root, w.path(), kind, Mode::from(0o600), device)?)
    }),
    ("make directory", |w| Ok(rustix::fs::mkdirat(w.root, w.directory_path(), Mode::from(0o755))?)),
    ("make directory again", |w| Ok(rustix::fs::mkdirat(w.root, w.directory_path(), Mode::from(0o2775))?)),
    ("remove directory", |w| Ok(rustix::fs::unlinkat(w.root, w.directory_path(), AtFlags::REMOVEDIR)?)),
    ("unlink", |w| Ok(rustix::fs::unlinkat(w.root, w.path(), AtFlags::empty())?)),
    ("replace safely", |w| {
        let file = w.open(OFlags::CREATE | OFlags::WRONLY)?;
        w.write(&file)?;
        file.sync_all()?;
        w.rename(RenameFlags::empty())
    }),
    ("chmod", |w| {
        let mode = Mode::from(w.random.below(0o10000) as u32);
        Ok(rustix::fs::chmodat(w.root, w.path(), mode, AtFlags::empty())?)
    }),
    ("chown", |w| {
        let uid = Some(rustix::fs::Uid::from_raw(w.random.below(5) as u32));
        let gid = Some(rustix::fs::Gid::from_raw(w.random.below(5) as u32));
        Ok(rustix::fs::chownat(w.root, w.path(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    }),
    ("set times", |w| {
        let tv_sec = w.random.below(4 << 30) as i64 - (2 << 30);
        let time = Timespec { tv_sec, tv_nsec: w.random.below(1_000_000_000) as _ };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(rustix::fs::utimensat(w.root, w.path(), &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }),
    ("set xattr", |w| {
        let (name, len) =
            (*w.random.one_of(&["user.a", "user.b", "trusted.c"]), w.random.below(100) as usize);
        let path = w.full_path();
        Ok(rustix::fs::lsetxattr(path, name, &w.bytes(len), XattrFlags::empty())?)
    }),
    ("remove xattr", |w| {
        Ok(rustix::fs::lremovexattr(w.full_path(), *w.random.one_of(&["user.a", "user.b"]))?)
    }),
    ("list directory", |w| {
        let path = w.directory_path();
        let dir = rustix::fs::openat(w.root, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::Dir::read_from(&dir)?.try_for_each(|entry| entry.map(drop))?;
        Ok(())
    }),
];

struct Kept {
    mapping: Option<Mapping>,
    file: File,
}

/// A thread with its random numbers and the handles that it keeps.
pub struct Worker<'a> {
    root: BorrowedFd<'a>,
    root_path: &'a Path,
    random: Random,
    kept: Vec<Kept>,
}

impl<'a> Worker<'a> {
    pub fn new(root: BorrowedFd<'a>, root_path: &'a Path, random: Random) -> Worker<'a> {
        Worker { root, root_path, random, kept: Vec::new() }
    }

    /// Works; gives how often each kind succeeded, and errors that no disk gives.
    pub fn run(mut self, ops: u64) -> (BTreeMap<&'static str, u64>, Vec<String>) {
        let (mut done, mut unexpected) = (BTreeMap::new(), Vec::new());
        for step in 0..ops {
            let (name, act) = *self.random.one_of(KINDS);
            match act(&mut self) {
                Ok(()) => *done.entry(name).or_default() += 1,
                Err(error) if error.raw_os_error().is_some_and(|code| FINE.contains(&code)) => (),
                // A whole write that a signal or a special file cut short.
                Err(error) if error.kind() == io::ErrorKind::WriteZero => (),
                Err(error) => unexpected.push(format!("step {step}: {name}: {error}")),
            }
        }
        (done, unexpected)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let seed = self.random.number();
        (0..len as u64).map(|i| (seed.wrapping_add(i * i) >> 3) as u8).collect()
    }

    fn directory_path(&mut self) -> String {
        let depth = 1 + self.random.below(4);
        (0..depth).map(|_| *self.random.one_of(&DIRECTORIES)).collect::<Vec<_>>().join("/")
    }

    /// A path that is mostly near the top, where the threads meet.
    fn path(&mut self) -> String {
        let depth = *self.random.one_of(&[0, 0, 1, 1, 1, 2, 3]);
        let mut names: Vec<&str> = (0..depth).map(|_| *self.random.one_of(&DIRECTORIES)).collect();
        names.push(*self.random.one_of(&LEAVES));
        names.join("/")
    }

    fn full_path(&mut self) -> std::path::PathBuf {
        self.root_path.join(self.path())
    }

    /// Opens a file at a random path. Only regular files: reads of a FIFO would wait.
    fn open(&mut self, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat(self.root, self.path(), flags, Mode::from(0o644))?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::from_raw_os_error(libc::EISDIR)) }
    }

    fn keep(&mut self, file: File) {
        if self.kept.len() == HANDLES {
            self.kept.remove(0);
        }
        self.kept.push(Kept { mapping: None, file });
    }

    /// Acts on one of the kept handles, which is afterwards the newest.
    fn with_kept(&mut self, act: impl FnOnce(&mut Self, &mut Kept) -> io::Result<()>) -> io::Result<()> {
        if self.kept.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let index = self.random.below(self.kept.len() as u64) as usize;
        let mut kept = self.kept.swap_remove(index);
        let result = act(self, &mut kept);
        self.kept.push(kept);
        result
    }

    fn with_mapping(&mut self, act: impl FnOnce(&mut Self, &Mapping) -> io::Result<()>) -> io::Result<()> {
        self.with_kept(|worker, kept| match &kept.mapping {
            Some(mapping) => act(worker, mapping),
            None => Err(io::Error::from_raw_os_error(libc::ENODEV)),
        })
    }

    /// A place in a mapping with room for 2,000 bytes, near the start, where files have pages.
    fn mapped(&mut self) -> usize {
        let bound = *self.random.one_of(&[4096, MAPPED as u64 - 2000]);
        self.random.below(bound) as usize
    }

    fn write(&mut self, file: &File) -> io::Result<()> {
        let bound = *self.random.one_of(&[10, 4096, 20_000, 300_000]);
        let len = 1 + self.random.below(bound) as usize;
        let at = self.random.below(SIZE - len as u64);
        file.write_all_at(&self.bytes(len), at)
    }

    fn write_direct(&mut self, file: &File) -> io::Result<()> {
        let mut buffer = Aligned::new(1 + self.random.below(8) as usize, 0);
        let bytes = self.bytes(buffer.bytes().len());
        buffer.bytes_mut().copy_from_slice(&bytes);
        file.write_all_at(buffer.bytes(), self.random.below(SIZE) / DIRECT_ALIGN as u64 * DIRECT_ALIGN as u64)
    }

    fn reserve(&mut self, flags: FallocateFlags) -> io::Result<()> {
        let file = self.open(OFlags::WRONLY)?;
        let (at, len) = (self.random.below(SIZE), 1 + self.random.below(200_000));
        Ok(rustix::fs::fallocate(&file, flags, at, len)?)
    }

    fn rename(&mut self, flags: RenameFlags) -> io::Result<()> {
        let (from, to) = (self.path(), self.path());
        Ok(rustix::fs::renameat_with(self.root, from, self.root, to, flags)?)
    }
}
