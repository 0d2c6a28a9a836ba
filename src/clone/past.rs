//! What a session preserves, read by another process while the daemon goes on: the tree as of the barrier, beside what the
//! replica is now. Nothing of either is changed.
//!
//! As in a copy an object is read first, and its record looked for afterwards: what was changed in between was noted
//! before.

mod comparing;
mod content;
mod taking;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Dir, FileType};
use rustix::io::Errno;

pub use self::comparing::How;
pub use self::content::Content;
pub use self::taking::Taken;
use super::guard::look;
use super::looks::Looks;
use super::machine::State;
use super::preserved::{BLOCKS, insert, open_directory};
use super::records::{HEAD, Record, next};
use super::session::{AREAS, DOCUMENT, RECORDS, Record as SessionRecord};
use crate::privileges::by_handle;
use crate::store;
use crate::sys::FileHandle;
use crate::words::{OF_THE_DISK, RESERVED_NAME};

/// Where a replica is, and which of its sessions is meant.
pub struct Where<'a> {
    pub root: &'a Path,
    pub limbo: &'a Path,
    pub state: &'a Path,
    pub name: &'a str,
}

/// See the module.
pub struct Past {
    root: File,
    limbo_is_inside: bool,
    log: File,
    /// Bytes of the log that were read.
    read: u64,
    names: HashMap<FileHandle, HashMap<Box<[u8]>, Option<FileHandle>>>,
    looks: HashMap<FileHandle, Arc<Looks>>,
    content: HashMap<FileHandle, BTreeMap<u64, u64>>,
    blocks: File,
    /// Of the session, in the state of the replica.
    record: PathBuf,
}

/// An object as of the barrier, which is not there now, or is otherwise.
pub struct Differing {
    /// Below the root of the replica.
    pub path: PathBuf,
    pub how: Vec<How>,
    handle: FileHandle,
    looks: Arc<Looks>,
    file: Option<File>,
}

impl Differing {
    pub fn kind(&self) -> FileType {
        self.looks.kind()
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        self.looks.size
    }

    /// Seconds since 1970, and nanoseconds.
    pub fn modified(&self) -> (i64, u32) {
        self.looks.mtime
    }

    pub fn owner(&self) -> (u32, u32) {
        (self.looks.uid, self.looks.gid)
    }

    /// Permission bits.
    pub fn mode(&self) -> u32 {
        self.looks.mode & 0o7777
    }
}

/// A directory as of the barrier whose names are to be looked at.
struct Level {
    handle: FileHandle,
    path: PathBuf,
    /// What has its path now, if that is a directory.
    now: Option<FileHandle>,
}

/// What a name held at the barrier.
struct Child {
    handle: FileHandle,
    /// `None`: it is gone.
    file: Option<File>,
}

impl Past {
    /// Errors: the system's; `NotFound` where such a session preserves nothing.
    pub fn open(of: &Where<'_>) -> io::Result<Past> {
        let area = open_directory(&open_directory(&File::open(of.limbo)?, AREAS)?, of.name)?;
        let own = of.state.join("clones").join(of.name);
        let log = File::open(own.join(RECORDS))?;
        let mut head = [0; HEAD.len()];
        log.read_exact_at(&mut head, 0)?;
        if head != *HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut past = Past {
            root: File::open(of.root)?,
            limbo_is_inside: of.limbo.starts_with(of.root),
            log,
            read: HEAD.len() as u64,
            names: HashMap::new(),
            looks: HashMap::new(),
            content: HashMap::new(),
            blocks: open_directory(&area, BLOCKS)?,
            record: own.join(DOCUMENT),
        };
        past.read_on()?;
        Ok(past)
    }

    /// To be asked behind what was read: from when on a session has failed, or ends, it tells nothing of what was changed.
    ///
    /// Errors: it preserves no more.
    fn still_preserves(&self) -> io::Result<()> {
        let record = store::read_json::<SessionRecord>(&self.record)?;
        let is_live = record.is_some_and(|record| record.state == State::Synchronizing);
        let log = self.log.metadata()?;
        match is_live && log.nlink() > 0 && log.len() >= self.read {
            true => Ok(()),
            false => Err(io::Error::other("it has failed or was ended while it was read")),
        }
    }

    /// What was noted since.
    fn read_on(&mut self) -> io::Result<()> {
        let len = self.log.metadata()?.len();
        if len <= self.read {
            return Ok(());
        }
        let mut bytes = vec![0; (len - self.read) as usize];
        self.log.read_exact_at(&mut bytes, self.read)?;
        let mut rest = &bytes[..];
        while let Some((record, behind)) = next(rest)? {
            self.remember(record);
            rest = behind;
        }
        self.read += (bytes.len() - rest.len()) as u64;
        Ok(())
    }

    /// First come, first kept.
    fn remember(&mut self, record: Record) {
        match record {
            Record::Name { dir, name, held } => {
                self.names.entry(dir).or_default().entry(name).or_insert(held);
            }
            Record::Looks { object, looks } => _ = self.looks.entry(object).or_insert_with(|| looks.into()),
            Record::Content { object, from, to } => insert(self.content.entry(object).or_default(), from, to),
            // No name of the barrier leads to it.
            Record::Born { .. } => {}
        }
    }

    /// Gives every object that differs, a directory before what is in it.
    ///
    /// Errors: the system's, and those of `each`; nothing more is given.
    pub fn differing(
        &mut self,
        each: &mut dyn FnMut(&mut Past, &Differing) -> io::Result<()>,
    ) -> io::Result<()> {
        self.walk(&mut |past, object| if object.how.is_empty() { Ok(()) } else { each(past, object) })
    }

    /// As [`Past::differing`], of all objects.
    fn walk(&mut self, each: &mut dyn FnMut(&mut Past, &Differing) -> io::Result<()>) -> io::Result<()> {
        let root = FileHandle::of(self.root.as_fd())?;
        let mut todo = vec![Level { handle: root, path: PathBuf::new(), now: Some(root) }];
        while let Some(level) = todo.pop() {
            let dir = self.directory(&level.handle)?;
            let dir_now = level.now.map(|now| self.directory(&now)).transpose()?.flatten();
            for name in self.names_of(&level, dir.as_ref())? {
                let Some(child) = self.child(&level, dir.as_ref(), &name)? else { continue };
                let Some(looks) = self.looks_of(&child)? else { continue };
                let path = level.path.join(std::ffi::OsStr::from_bytes(&name));
                let now = dir_now.as_ref().map(|now| seen(now, &name)).transpose()?.flatten();
                let how = self.compare(&child, &looks, now.as_ref())?;
                let is_directory = looks.kind() == FileType::Directory;
                let object = Differing { path, how, handle: child.handle, looks, file: child.file };
                each(self, &object)?;
                if is_directory {
                    // Where it is none any more, nothing is found in it.
                    let now = now.map(|(handle, _)| handle);
                    todo.push(Level { handle: object.handle, path: object.path, now });
                }
            }
        }
        self.still_preserves()
    }

    /// `None`: it is gone, or no directory.
    fn directory(&self, handle: &FileHandle) -> io::Result<Option<File>> {
        match by_handle::open(&self.root, handle, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW) {
            Ok(dir) => Ok(Some(File::from(dir))),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::STALE | Errno::NOTDIR | Errno::LOOP) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Those that a directory has now, and those that it had at the barrier and has not any more.
    fn names_of(&mut self, level: &Level, dir: Option<&File>) -> io::Result<BTreeSet<Box<[u8]>>> {
        let mut names = BTreeSet::new();
        let is_root = level.path.as_os_str().is_empty();
        for entry in dir.map(Dir::read_from).transpose()?.into_iter().flatten() {
            let entry = match entry {
                Err(Errno::NOENT) => break,
                entry => entry?,
            };
            let name = entry.file_name().to_bytes();
            let is_of_the_place = is_root
                && self.limbo_is_inside
                && (name == RESERVED_NAME.as_bytes() || name == OF_THE_DISK.as_bytes());
            if name != b"." && name != b".." && !is_of_the_place {
                names.insert(name.into());
            }
        }
        // Afterwards: what went while it was listed was noted before.
        self.read_on()?;
        let noted = self.names.get(&level.handle).into_iter().flatten();
        names.extend(noted.filter(|(_, held)| held.is_some()).map(|(name, _)| name.clone()));
        Ok(names)
    }

    /// What a name held at the barrier.
    fn child(&mut self, level: &Level, dir: Option<&File>, name: &[u8]) -> io::Result<Option<Child>> {
        let found = dir.map(|dir| seen(dir, name)).transpose()?.flatten();
        self.read_on()?;
        let held = self.names.get(&level.handle).and_then(|names| names.get(name)).copied();
        Ok(match held {
            Some(Some(handle)) => Some(Child { handle, file: self.find(&handle)? }),
            Some(None) => None,
            None => found.map(|(handle, file)| Child { handle, file: Some(file) }),
        })
    }

    /// An object by its handle; `None`: it is gone.
    fn find(&self, handle: &FileHandle) -> io::Result<Option<File>> {
        match by_handle::open(&self.root, handle, libc::O_PATH | libc::O_NOFOLLOW) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Attributes as of the barrier. `None`: nothing is known of it, somebody else than the daemon has removed it.
    fn looks_of(&mut self, child: &Child) -> io::Result<Option<Arc<Looks>>> {
        let now = child.file.as_ref().map(|file| Looks::of(file.as_fd())).transpose()?;
        self.read_on()?;
        Ok(self.looks.get(&child.handle).cloned().or_else(|| now.map(Arc::new)))
    }
}

/// What a name holds now; nothing where that is somebody's mount.
fn seen(dir: &File, name: &[u8]) -> io::Result<Option<(FileHandle, File)>> {
    match look(dir.as_fd(), name) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::XDEV) => Ok(None),
        found => found,
    }
}
