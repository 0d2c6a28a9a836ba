//! One thread of programs: random calls, as a kernel would hand them over.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use rustix::fs::RenameFlags;

use crate::failpoint::Hook;
use crate::intercept::attributes::{AskedAttributes, SetTime};
use crate::intercept::data::{Origin, WriteRequest};
use crate::intercept::error::FsResult;
use crate::intercept::names::{AskedMode, At};
use crate::intercept::{Caller, Meta, NodeId, Volume};
use crate::packet::Timestamp;
use crate::random::Random;

/// Few names: collisions are what hurts.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 0, request: 0 };

/// A disk that takes only a part of a write now and then.
pub fn disk(random: Random) -> Hook {
    let random = std::cell::RefCell::new(random);
    std::rc::Rc::new(move |place| match place {
        "write a piece" if random.borrow_mut().one_in(12) => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        _ => Ok(()),
    })
}

pub struct Worker<'a> {
    volume: &'a Volume,
    random: Random,
    /// Objects that were looked up, each once.
    known: Vec<NodeId>,
    directories: Vec<NodeId>,
    /// Open files; each has a lookup, as the kernel keeps one for an inode that is open.
    open: Vec<(NodeId, u64)>,
}

impl Worker<'_> {
    pub fn new(volume: &Volume, random: Random) -> Worker<'_> {
        Worker { volume, random, known: Vec::new(), directories: vec![NodeId::ROOT], open: Vec::new() }
    }

    /// What cannot be done is not done.
    pub fn run(self, changes: usize) {
        self.run_beside(changes, || ());
    }

    /// As [`Worker::run`]; something else is done before each change.
    pub fn run_beside(mut self, changes: usize, mut beside: impl FnMut()) {
        for _ in 0..changes {
            beside();
            if let Err(error) = self.change() {
                let is_wrong = matches!(error.errno, libc::EIO | libc::EBADF | libc::EFAULT);
                assert!(!is_wrong, "no disk answers this: {error}");
            }
        }
        while !self.open.is_empty() {
            self.close();
        }
        self.known.drain(..).for_each(|node| self.volume.forget(node, 1));
    }

    fn change(&mut self) -> FsResult<()> {
        match self.random.below(30) {
            0..=2 => self.create(),
            3..=6 => self.bear(),
            7..=9 => self.link(),
            10..=13 => self.remove(),
            14..=18 => self.rename(),
            19..=22 => self.write(),
            23 => self.reserve(),
            24 | 25 => self.set_attributes(),
            26 => self.set_xattr(),
            27 => self.look_around(),
            28 => self.open(),
            _ => self.let_go(),
        }
    }

    fn create(&mut self) -> FsResult<()> {
        let (parent, name) = self.place();
        let flags = [libc::O_RDWR, libc::O_WRONLY][self.random.below(2) as usize];
        let asked = self.asked();
        let (meta, opened) = self.volume.create(CALLER, At { parent, name }, asked, flags)?;
        self.open.push((meta.node, opened.handle));
        Ok(())
    }

    /// What is born without being opened.
    fn bear(&mut self) -> FsResult<()> {
        let ((parent, name), asked) = (self.place(), self.asked());
        let at = At { parent, name };
        let born = match self.random.below(4) {
            0 | 1 => self.volume.mkdir(CALLER, at, asked)?,
            2 => self.volume.symlink(CALLER, at, Path::new(self.name()))?,
            _ => {
                self.volume.mknod(CALLER, at, AskedMode { mode: libc::S_IFIFO | 0o600, umask: 0 }, (0, 0))?
            }
        };
        self.learn(born)
    }

    fn remove(&mut self) -> FsResult<()> {
        let (parent, name) = self.place();
        let at = At { parent, name };
        self.volume.unlink(at).or_else(|_| self.volume.rmdir(at))
    }

    fn link(&mut self) -> FsResult<()> {
        let Some(node) = self.node() else { return self.look_around() };
        let (parent, name) = self.place();
        let linked = self.volume.link(node, At { parent, name })?;
        self.learn(linked)
    }

    fn rename(&mut self) -> FsResult<()> {
        let ((parent, name), (new_parent, new_name)) = (self.place(), self.place());
        let flags = match self.random.below(8) {
            0..=2 => RenameFlags::EXCHANGE,
            3 => RenameFlags::NOREPLACE,
            4 => RenameFlags::WHITEOUT,
            _ => RenameFlags::empty(),
        };
        let (from, to) = (At { parent, name }, At { parent: new_parent, name: new_name });
        self.volume.rename(from, to, flags)
    }

    /// As the server of requests does it: what a failed write has left is sent.
    fn write(&mut self) -> FsResult<()> {
        let Some((_, handle)) = self.random.pick(&self.open).copied() else { return self.create() };
        let (mut offset, len) = (self.random.below(40_000), self.random.below(20_000) as usize + 1);
        if self.random.one_in(2) {
            offset -= offset % 4096;
        }
        let data = vec![self.random.number() as u8; len];
        let request = WriteRequest {
            handle,
            offset,
            data: &data,
            clear_privileges: self.random.one_in(4),
            origin: Origin::Program,
        };
        let caller = Caller { uid: self.random.below(2) as u32, ..CALLER };
        let written = self.volume.write(caller, request);
        if let Ok(written) = written
            && let Some(mixing) = written.mixing
        {
            self.volume.end_mixing(handle, mixing);
        }
        let done = match written {
            Ok(written) => written.bytes as u64,
            Err(error) if error.may_have_changed() => 0,
            Err(error) => return Err(error),
        };
        if done < len as u64 {
            self.volume.send_failed_write(handle, offset + done..offset + len as u64);
        }
        Ok(())
    }

    fn reserve(&mut self) -> FsResult<()> {
        const MODES: [i32; 4] = [
            0,
            libc::FALLOC_FL_KEEP_SIZE,
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            libc::FALLOC_FL_ZERO_RANGE,
        ];
        let Some((_, handle)) = self.random.pick(&self.open).copied() else { return self.create() };
        let (offset, length) = (self.random.below(40_000), self.random.below(20_000) + 1);
        let mode = MODES[self.random.below(4) as usize];
        self.volume.fallocate(CALLER, handle, offset, length, mode)
    }

    fn set_attributes(&mut self) -> FsResult<()> {
        let Some(node) = self.node() else { return self.look_around() };
        let some = |random: &mut Random| random.one_in(2);
        let mut changes = AskedAttributes::default();
        if some(&mut self.random) {
            changes.mode = Some(self.random.below(0o10000) as u32);
        }
        if some(&mut self.random) {
            changes.uid = Some(self.random.below(9) as u32);
        }
        if some(&mut self.random) {
            changes.size = Some(self.random.below(60_000));
        }
        if some(&mut self.random) {
            let nanoseconds = self.random.below(1_000_000_000) as u32;
            let seconds = self.random.below(1 << 31) as i64;
            changes.mtime = Some(SetTime::At(Timestamp { seconds, nanoseconds }));
        }
        let caller = Caller { uid: self.random.below(2) as u32, ..CALLER };
        self.volume.setattr(caller, node, None, changes).map(drop)
    }

    fn set_xattr(&mut self) -> FsResult<()> {
        let Some(node) = self.node() else { return self.look_around() };
        let name = OsStr::new("user.x");
        match self.random.one_in(3) {
            true => self.volume.removexattr(node, name),
            false => {
                let value = [self.random.number() as u8; 20];
                self.volume.setxattr(CALLER, node, name, &value, 0)
            }
        }
    }

    fn look_around(&mut self) -> FsResult<()> {
        let (parent, name) = self.place();
        let meta = self.volume.lookup(parent, name)?;
        self.learn(meta)
    }

    fn open(&mut self) -> FsResult<()> {
        let (parent, name) = self.place();
        let meta = self.volume.lookup(parent, name)?;
        if meta.stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            return self.learn(meta);
        }
        let flags = [libc::O_RDWR, libc::O_WRONLY][self.random.below(2) as usize];
        let opened = self.volume.open(meta.node, flags).inspect_err(|_| self.volume.forget(meta.node, 1))?;
        self.open.push((meta.node, opened.handle));
        Ok(())
    }

    fn close(&mut self) {
        if let Some((node, handle)) = self.open.pop() {
            self.volume.release(handle);
            self.volume.forget(node, 1);
        }
    }

    fn let_go(&mut self) -> FsResult<()> {
        self.close();
        if !self.known.is_empty() {
            let node = self.known.swap_remove(self.random.below(self.known.len() as u64) as usize);
            self.directories.retain(|directory| *directory != node);
            self.volume.forget(node, 1);
        }
        Ok(())
    }

    fn learn(&mut self, meta: Meta) -> FsResult<()> {
        self.known.push(meta.node);
        if meta.stat.st_mode & libc::S_IFMT == libc::S_IFDIR && !self.directories.contains(&meta.node) {
            self.directories.push(meta.node);
        }
        Ok(())
    }

    fn node(&mut self) -> Option<NodeId> {
        self.random.pick(&self.known).copied()
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.random.below(NAMES.len() as u64) as usize]
    }

    /// A name in a directory that is known.
    fn place(&mut self) -> (NodeId, &'static OsStr) {
        let parent = self.random.pick(&self.directories).copied().unwrap_or(NodeId::ROOT);
        (parent, OsStr::new(self.name()))
    }

    fn asked(&mut self) -> AskedMode {
        AskedMode { mode: self.random.below(0o10000) as u32, umask: 0o022 }
    }
}
