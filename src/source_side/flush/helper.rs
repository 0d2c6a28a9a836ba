//! The helper process: the only one that opens files of the mount to have them written back.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bincode::{Decode, Encode};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::privileges::{self, FLUSHER};
use crate::sys::{proc_path, sync_pages};

/// File-system type of every FUSE mount (`linux/magic.h`).
const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;

/// Open files that are kept from one flush to the next.
const KEPT_MAX: usize = 4096;

/// A path is resolved in parts of so many bytes: the kernel takes no longer ones (`PATH_MAX`).
const PATH_PART: usize = 4000;

/// From here on the kernel keeps a page marked as being written until the daemon has answered.
const PAGES_TELL: (u32, u32) = (6, 16);

/// A file by its number and where it was last seen below the root of the mount.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Wanted {
    pub id: u64,
    pub path: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Request {
    /// Begins to write everything back, and waits for nothing.
    Begin,
    /// Has these written back, with the `times` that the kernel keeps where it does; they stay open,
    /// others do not.
    Flush {
        files: Vec<Wanted>,
        times: bool,
    },
    /// Has one written back, which stays open.
    Sync(Wanted),
    /// Has one written back, and sets its size: the daemon answers with that of the disk.
    Resize(Wanted),
    /// Closes these.
    Close(Vec<u64>),
    CloseAll,
}

#[derive(Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Answer {
    /// Why the mount cannot be opened, as errno.
    pub no_mount: Option<i32>,
    /// Why something could not be written, as errno.
    pub not_written: Option<i32>,
    /// What is not where it was said to be.
    pub missed: Vec<u64>,
}

/// Answers requests on standard input until it ends, which it does with the daemon.
///
/// Errors: of reading requests and writing answers.
pub fn serve_flushes(mount: &Path) -> io::Result<()> {
    privileges::give_up(FLUSHER)?;
    let (mut requests, mut answers) = (io::stdin().lock(), io::stdout().lock());
    let mut files = Files { kept_max: kept_max(), pages_tell: pages_tell(), open: HashMap::new() };
    while let Some(request) = receive(&mut requests)? {
        let answer = match request {
            Request::Begin => begin(mount),
            Request::Flush { files: wanted, times } => files.flush(mount, &wanted, times),
            Request::Sync(wanted) => files.sync_one(mount, &wanted),
            Request::Resize(wanted) => resize(mount, &wanted),
            Request::Close(ids) => {
                files.open.retain(|id, _| !ids.contains(id));
                Answer::default()
            }
            Request::CloseAll => {
                files.open.clear();
                Answer::default()
            }
        };
        send(&mut answers, &answer)?;
    }
    Ok(())
}

/// A message behind its length.
pub(super) fn send(to: &mut impl Write, message: &impl Encode) -> io::Result<()> {
    let bytes = bincode::encode_to_vec(message, bincode::config::standard()).map_err(io::Error::other)?;
    to.write_all(&(bytes.len() as u64).to_le_bytes())?;
    to.write_all(&bytes)?;
    to.flush()
}

/// `None`: the other side has ended between two messages.
pub(super) fn receive<M: Decode<()>>(from: &mut impl Read) -> io::Result<Option<M>> {
    let mut len = [0; 8];
    match from.read_exact(&mut len) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        outcome => outcome?,
    }
    let mut bytes = Vec::new();
    from.take(u64::from_le_bytes(len)).read_to_end(&mut bytes)?;
    let (message, _) =
        bincode::decode_from_slice(&bytes, bincode::config::standard()).map_err(io::Error::other)?;
    Ok(Some(message))
}

/// Half of what this process may have open.
fn kept_max() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    KEPT_MAX.min(usize::try_from(limit / 2).unwrap_or(KEPT_MAX))
}

fn pages_tell() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= PAGES_TELL
}

/// Files of the mount that may have dirty pages.
struct Files {
    kept_max: usize,
    /// See [`PAGES_TELL`].
    pages_tell: bool,
    open: HashMap<u64, OwnedFd>,
}

impl Files {
    fn flush(&mut self, mount: &Path, wanted: &[Wanted], times: bool) -> Answer {
        let ids: std::collections::HashSet<u64> = wanted.iter().map(|wanted| wanted.id).collect();
        self.open.retain(|id, _| ids.contains(id));
        let mut answer = Answer::default();
        let root = match open_root(mount) {
            Ok(root) => root,
            Err(errno) => return Answer { no_mount: Some(errno.raw_os_error()), ..answer },
        };
        // It begins with all files at once. On newer kernels it waits for none.
        if let Err(errno) = rustix::fs::syncfs(&root) {
            answer.not_written = Some(errno.raw_os_error());
        }
        for wanted in wanted {
            match self.write_back(&root, wanted, times) {
                Ok(()) => {}
                Err(Failed::Elsewhere) => answer.missed.push(wanted.id),
                Err(Failed::NotWritten(error)) => answer.not_written = error.raw_os_error(),
            }
        }
        answer
    }

    fn sync_one(&mut self, mount: &Path, wanted: &Wanted) -> Answer {
        let outcome = match open_root(mount) {
            Ok(root) => self.write_back(&root, wanted, false),
            Err(errno) => return Answer { no_mount: Some(errno.raw_os_error()), ..Answer::default() },
        };
        let missed = if matches!(outcome, Err(Failed::Elsewhere)) { vec![wanted.id] } else { Vec::new() };
        Answer { missed, ..Answer::default() }
    }

    fn write_back(&mut self, root: &OwnedFd, wanted: &Wanted, times: bool) -> Result<(), Failed> {
        if let Some(file) = self.open.get(&wanted.id) {
            return self.sync(file, times);
        }
        let file = open_below(root, wanted).map_err(|_| Failed::Elsewhere)?;
        self.sync(&file, times)?;
        if self.open.len() < self.kept_max {
            self.open.insert(wanted.id, file);
        }
        Ok(())
    }

    /// Older kernels call a page written when the daemon has not seen it yet: there a close waits for
    /// the daemon's answers. It also tells the times that the kernel keeps.
    fn sync(&self, file: &OwnedFd, times: bool) -> Result<(), Failed> {
        sync_pages(file).map_err(Failed::NotWritten)?;
        if times || !self.pages_tell {
            drop(file.try_clone().map_err(Failed::NotWritten)?);
        }
        Ok(())
    }
}

fn begin(mount: &Path) -> Answer {
    let begun = open_root(mount).map(rustix::fs::syncfs);
    let no_mount = begun.as_ref().err().map(|errno| errno.raw_os_error());
    let not_written = begun.ok().and_then(Result::err).map(Errno::raw_os_error);
    Answer { no_mount, not_written, ..Answer::default() }
}

/// What is written back before cannot be dropped with the size. To the size that it has: its time
/// stays.
fn resize(mount: &Path, wanted: &Wanted) -> Answer {
    let mut answer = Answer::default();
    let root = match open_root(mount) {
        Ok(root) => root,
        Err(errno) => return Answer { no_mount: Some(errno.raw_os_error()), ..answer },
    };
    let set_size = || {
        let file = open_below(&root, wanted)?;
        // What is refused is told to those that have the file open.
        let _ = sync_pages(&file);
        // What is append-only is opened in no other way.
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(proc_path(file.as_fd()), flags, Mode::empty())?;
        rustix::fs::ftruncate(&file, rustix::fs::fstat(&file)?.st_size as u64)
    };
    if set_size().is_err() {
        answer.missed.push(wanted.id);
    }
    answer
}

enum Failed {
    Elsewhere,
    NotWritten(io::Error),
}

fn open_root(mount: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(mount, flags, Mode::empty())?;
    match rustix::fs::fstatfs(&root)?.f_type as i64 {
        FUSE_SUPER_MAGIC => Ok(root),
        // Somebody took the mount away: what lies there now is not ours to sync.
        _ => Err(Errno::NOTCONN),
    }
}

/// Opens a file that is still where it was seen.
fn open_below(root: &OwnedFd, wanted: &Wanted) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let open = |dir: &OwnedFd, path: &[u8], flags: OFlags| {
        rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), how)
    };
    let (mut path, mut dir) = (wanted.path.as_slice(), None);
    while path.len() > PATH_PART {
        let end = path[..PATH_PART].iter().rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?;
        dir = Some(open(dir.as_ref().unwrap_or(root), &path[..end], OFlags::PATH | OFlags::DIRECTORY)?);
        path = &path[end + 1..];
    }
    // Without waiting: it may have become a pipe, or be leased.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let file = open(dir.as_ref().unwrap_or(root), path, flags)?;
    match rustix::fs::fstat(&file)?.st_ino == wanted.id {
        true => Ok(file),
        false => Err(Errno::STALE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn messages_come_as_they_were_sent() {
        let wanted = |id: u64| Wanted { id, path: vec![b'x'; id as usize] };
        let requests = [
            Request::Flush { files: (0..300).map(wanted).collect(), times: true },
            Request::Begin,
            Request::Sync(wanted(8)),
            Request::Resize(wanted(9)),
            Request::Close(vec![1, 2]),
            Request::CloseAll,
        ];
        let mut pipe = Vec::new();
        requests.iter().for_each(|request| send(&mut pipe, request).unwrap());
        let mut pipe = pipe.as_slice();
        requests.iter().for_each(|request| assert_eq!(receive(&mut pipe).unwrap().as_ref(), Some(request)));
        assert_eq!(receive::<Request>(&mut pipe).unwrap(), None);
    }

    /// What has taken a file's place is not written back in its stead, and nothing outside is opened.
    #[test]
    fn only_the_file_itself_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        let mut deep = dir.path().to_owned();
        (0..20).for_each(|_| deep.push("d".repeat(250)));
        for at in ["sub".into(), deep.strip_prefix(dir.path()).unwrap().to_owned()] {
            let mut below = root.try_clone().unwrap();
            for part in at.iter() {
                rustix::fs::mkdirat(&below, part, Mode::from(0o700)).unwrap();
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                below = rustix::fs::openat(&below, part, flags, Mode::empty()).unwrap();
            }
            let flags = OFlags::CREATE | OFlags::WRONLY;
            let file = rustix::fs::openat(&below, "f", flags, Mode::from(0o600)).unwrap();
            let id = rustix::fs::fstat(&file).unwrap().st_ino;
            let path = at.join("f").as_os_str().as_bytes().to_vec();
            assert!(open_below(&root, &Wanted { id, path: path.clone() }).is_ok(), "{}", at.display());
            assert!(open_below(&root, &Wanted { id: id + 1, path }).is_err());
        }
        std::os::unix::fs::symlink("/etc", dir.path().join("away")).unwrap();
        let id = std::fs::metadata("/etc/passwd").unwrap().ino();
        for path in [&b"away/passwd"[..], b"../../../../../../etc/passwd", b"/etc/passwd", b""] {
            assert!(open_below(&root, &Wanted { id, path: path.to_vec() }).is_err(), "{path:?}");
        }
    }
}
