//! The copy in the background: the tree as of the barrier, object by object.
//!
//! An object is read first and looked up in what was preserved afterwards. Where nothing was preserved of it,
//! what was read is as of the barrier; where something was, that counts. So it never waits for a packet, nor a
//! packet for it, longer than one system call takes.

mod content;
pub(super) mod object;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{Dir, FileType, IFlags, Mode, OFlags};
use rustix::io::Errno;

use super::guard::look;
use super::looks::Looks;
use super::session::Session;
use crate::privileges::by_handle;
use crate::sys::FileHandle;
use crate::words::{OF_THE_DISK, RESERVED_NAME};

/// Why a copy has ended before it was complete.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The session has failed, or fails by this.
    Failed(String),
    /// It was told to; nothing is wrong.
    Told,
}

impl From<String> for Stopped {
    fn from(why: String) -> Stopped {
        Stopped::Failed(why)
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stopped::Failed(why) => f.write_str(why),
            Stopped::Told => f.write_str("it was told to stop"),
        }
    }
}

fn failed<E: fmt::Display>(what: &'static str) -> impl Fn(E) -> Stopped {
    move |error| Stopped::Failed(format!("{what}: {error}"))
}

/// Whether there is more to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    More,
    Complete,
}

/// See the module.
pub(super) struct Copier {
    session: Arc<Session>,
    /// Root of the replica, open for reading.
    replica: File,
    /// Limbo lies in the replica itself.
    limbo_is_inside: bool,
    /// Root of the copy.
    root: File,
    /// Directories whose content is to be copied, with where it goes.
    waiting: Vec<(FileHandle, FileHandle)>,
    open: Option<Level>,
    /// Objects of several names, and what they are in the copy.
    linked: HashMap<FileHandle, FileHandle>,
    /// Flags that would keep the copy from being finished.
    flags: Vec<(FileHandle, IFlags)>,
}

/// A directory whose names are being copied.
struct Level {
    handle: FileHandle,
    is_root: bool,
    /// `None`: it is gone; all its names were noted.
    from: Option<(File, Dir)>,
    into: File,
    /// Names of which something was noted, and that are done.
    noted: HashSet<Box<[u8]>>,
    /// Those that are left, once the listing is through.
    rest: Option<Vec<(Box<[u8]>, FileHandle)>>,
}

/// A name of the tree as of the barrier.
struct Child {
    name: Box<[u8]>,
    handle: FileHandle,
    /// `None`: it is gone.
    file: Option<File>,
}

impl Copier {
    /// `root`: an empty directory of the copy's own.
    pub(super) fn new(
        session: Arc<Session>,
        replica: File,
        root: File,
        limbo_is_inside: bool,
    ) -> io::Result<Copier> {
        let waiting = vec![(FileHandle::of(replica.as_fd())?, FileHandle::of(root.as_fd())?)];
        object::strip(root.as_fd())?;
        Ok(Copier {
            session,
            replica,
            limbo_is_inside,
            root,
            waiting,
            open: None,
            linked: HashMap::new(),
            flags: Vec::new(),
        })
    }

    /// Copies one object.
    pub(super) fn turn(&mut self) -> Result<Turn, Stopped> {
        if self.session.stops.load(Relaxed) {
            return Err(Stopped::Told);
        }
        if let Some(mut level) = self.open.take() {
            match self.next_child(&mut level)? {
                Some(child) => {
                    let is_new = self.copy(&level, &child)?;
                    self.session.objects.fetch_add(u64::from(is_new), Relaxed);
                    self.open = Some(level);
                }
                None => self.finish(level)?,
            }
            return Ok(Turn::More);
        }
        match self.waiting.pop() {
            Some((from, into)) => {
                self.open = Some(self.enter(from, into)?);
                Ok(Turn::More)
            }
            None => {
                self.finish_flags()?;
                rustix::fs::syncfs(&self.root).map_err(failed("the copy cannot be made durable"))?;
                Ok(Turn::Complete)
            }
        }
    }

    fn enter(&self, handle: FileHandle, into: FileHandle) -> Result<Level, Stopped> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let into = by_handle::open(&self.root, &into, flags).map_err(failed("the copy cannot be opened"))?;
        let from = match by_handle::open(&self.replica, &handle, flags) {
            Ok(fd) => {
                let file = File::from(fd);
                let listing = Dir::read_from(&file).map_err(failed("a directory cannot be listed"))?;
                Some((file, listing))
            }
            Err(error) if is_gone(&error) => None,
            Err(error) => return Err(failed("a directory cannot be opened")(error)),
        };
        let is_root = self.replica_handle()? == handle;
        Ok(Level { handle, is_root, from, into: File::from(into), noted: HashSet::new(), rest: None })
    }

    fn replica_handle(&self) -> Result<FileHandle, Stopped> {
        FileHandle::of(self.replica.as_fd()).map_err(failed("the replica has no handle"))
    }

    /// The next name of a directory as of the barrier.
    fn next_child(&self, level: &mut Level) -> Result<Option<Child>, Stopped> {
        while let Some(name) = self.next_listed(level)? {
            if let Some(child) = self.child_now(level, name)? {
                return Ok(Some(child));
            }
        }
        // Whatever the listing has missed was changed meanwhile, and noted before.
        if level.rest.is_none() {
            level.rest = Some(self.session.names_held(&level.handle)?);
        }
        while let Some((name, handle)) = level.rest.as_mut().and_then(Vec::pop) {
            if level.noted.insert(name.clone()) {
                return Ok(Some(Child { name, handle, file: self.find(&handle)? }));
            }
        }
        Ok(None)
    }

    fn next_listed(&self, level: &mut Level) -> Result<Option<Box<[u8]>>, Stopped> {
        let Some((_, listing)) = &mut level.from else { return Ok(None) };
        for entry in listing.by_ref() {
            let entry = match entry {
                Ok(entry) => entry,
                // It was removed while it was read: its names were noted.
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(failed("a directory cannot be listed")(error)),
            };
            let name = entry.file_name().to_bytes();
            let is_of_the_place = level.is_root
                && self.limbo_is_inside
                && (name == RESERVED_NAME.as_bytes() || name == OF_THE_DISK.as_bytes());
            if name != b"." && name != b".." && !is_of_the_place {
                return Ok(Some(name.into()));
            }
        }
        Ok(None)
    }

    /// What a name that is there now held at the barrier.
    fn child_now(&self, level: &mut Level, name: Box<[u8]>) -> Result<Option<Child>, Stopped> {
        let Some((dir, _)) = &level.from else { return Ok(None) };
        let found = look(dir.as_fd(), &name);
        // Afterwards: a change that was seen was noted before it was made.
        if let Some(held) = self.session.held(&level.handle, &name)? {
            let is_new = level.noted.insert(name.clone());
            let Some(handle) = held.filter(|_| is_new) else { return Ok(None) };
            return Ok(Some(Child { name, handle, file: self.find(&handle)? }));
        }
        match found {
            Ok(Some((handle, file))) => Ok(Some(Child { name, handle, file: Some(file) })),
            // Somebody's mount.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::XDEV) => Ok(None),
            Ok(None) => Err(Stopped::Failed(format!(
                "{:?} was removed by somebody else than standin",
                String::from_utf8_lossy(&name)
            ))),
            Err(error) => Err(failed("a name cannot be opened")(error)),
        }
    }

    /// An object by its handle; `None`: it is gone.
    fn find(&self, handle: &FileHandle) -> Result<Option<File>, Stopped> {
        match by_handle::open(&self.replica, handle, libc::O_PATH | libc::O_NOFOLLOW) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(failed("an object cannot be opened")(error)),
        }
    }

    /// Attributes as of the barrier.
    fn looks(&self, handle: &FileHandle, file: Option<&File>) -> Result<Arc<Looks>, Stopped> {
        let now = file.map(|file| Looks::of(file.as_fd()));
        if let Some(noted) = self.session.looks_of(handle)? {
            return Ok(noted);
        }
        match now {
            Some(now) => Ok(Arc::new(now.map_err(failed("attributes cannot be read"))?)),
            None => Err(Stopped::Failed("an object was removed by somebody else than standin".into())),
        }
    }

    fn finish(&mut self, level: Level) -> Result<(), Stopped> {
        let looks = self.looks(&level.handle, level.from.as_ref().map(|(file, _)| file))?;
        object::give_looks(level.into.as_fd(), &looks).map_err(failed("attributes cannot be set"))?;
        self.note_flags(&level.into, looks.flags().in_ioctl())
    }

    /// They are set when everything has its place and its looks.
    fn note_flags(&mut self, made: &File, flags: IFlags) -> Result<(), Stopped> {
        if !flags.is_empty() {
            let handle = FileHandle::of(made.as_fd()).map_err(failed("the copy has no handle"))?;
            self.flags.push((handle, flags));
        }
        Ok(())
    }

    fn finish_flags(&mut self) -> Result<(), Stopped> {
        for (handle, flags) in std::mem::take(&mut self.flags) {
            let set = || -> io::Result<()> {
                let file =
                    File::from(by_handle::open(&self.root, &handle, libc::O_RDONLY | libc::O_NONBLOCK)?);
                let before = rustix::fs::ioctl_getflags(&file)?;
                Ok(rustix::fs::ioctl_setflags(&file, before | flags)?)
            };
            set().map_err(failed("flags cannot be set"))?;
        }
        Ok(())
    }

    /// Whether it was not there yet.
    fn copy(&mut self, level: &Level, child: &Child) -> Result<bool, Stopped> {
        let looks = self.looks(&child.handle, child.file.as_ref())?;
        if looks.kind() == FileType::Directory {
            return self.copy_directory(level, child);
        }
        let Some(file) = &child.file else {
            return Err(Stopped::Failed(format!(
                "{:?} was removed by somebody else than standin",
                String::from_utf8_lossy(&child.name)
            )));
        };
        if looks.links > 1
            && let Some(made) = self.linked.get(&child.handle)
        {
            return object::link(&self.root, made, &level.into, &child.name);
        }
        let made = match looks.kind() {
            FileType::RegularFile => self.copy_file(level, child, file, &looks)?,
            _ => object::make_special(file, &level.into, &child.name, &looks)?,
        };
        // A name that is there already was changed after it had been copied.
        let Some(made) = made else { return Ok(false) };
        object::give_looks(made.as_fd(), &looks).map_err(failed("attributes cannot be set"))?;
        if looks.links > 1 {
            let handle = FileHandle::of(made.as_fd()).map_err(failed("the copy has no handle"))?;
            self.linked.insert(child.handle, handle);
        }
        Ok(true)
    }

    fn copy_directory(&mut self, level: &Level, child: &Child) -> Result<bool, Stopped> {
        match rustix::fs::mkdirat(&level.into, &*child.name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(false),
            Err(error) => return Err(failed("a directory cannot be made")(error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&level.into, &*child.name, flags, Mode::empty())
            .map_err(failed("the copy cannot be opened"))?;
        let handle = FileHandle::of(made.as_fd()).map_err(failed("the copy has no handle"))?;
        self.waiting.push((child.handle, handle));
        Ok(true)
    }

    fn copy_file(
        &mut self,
        level: &Level,
        child: &Child,
        from: &File,
        looks: &Looks,
    ) -> Result<Option<File>, Stopped> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = match rustix::fs::openat(&level.into, &*child.name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(made) => File::from(made),
            Err(Errno::EXIST) => return Ok(None),
            Err(error) => return Err(failed("a file cannot be made")(error)),
        };
        let from = by_handle::reopen_to_read(from.as_fd()).map_err(failed("a file cannot be read"))?;
        content::copy(&self.session, &child.handle, &from, &made, looks.size)?;
        self.note_flags(&made, object::other_flags_of(&from) | looks.flags().in_ioctl())?;
        Ok(Some(made))
    }
}

/// A handle opens nothing any more.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESTALE)
}
