//! Write-backs that the disk refused (it is full, or fails): the kernel had taken the bytes already.
//!
//! It keeps them: programs would be shown what no disk has, and where the kernel gathers writes it
//! also has a size of its own, behind which others append. So the pages are dropped, and a size is
//! told that the disk has:
//!
//! ```text
//!  refused ──> astray ── flush helper: everything is written, or refused; then it sets ──> mended
//!                 │      the size, and is answered with that of the disk
//!                 └── who writes waits; nothing is written behind a gap
//! ```
//! A program that looks at `fsync` and `close` is told by the kernel. One that looks at neither is told
//! at its next write, once for each open file: the kernel asks for attributes before each write, where
//! it has been told to forget them, and a refusal of that is the write's.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use parking_lot::Mutex;

use super::error::{FsError, FsResult, Step};
use super::mapped::MappedFile;
use super::objects::{Node, NodeId};
use super::volume::{Meta, Volume};

/// Bytes that the kernel had taken and that the disk refused: nobody has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    pub bytes: u64,
    /// The first refusal, for people.
    pub first: String,
}

/// Those of all files.
#[derive(Default)]
pub struct Refusals {
    /// Since the start.
    all: Mutex<Refused>,
    /// There was one.
    are_any: AtomicBool,
    tell: Mutex<Option<Tell>>,
}

type Tell = Box<dyn Fn(NodeId) + Send + Sync>;

/// That of one file.
#[derive(Debug)]
pub struct Refusal {
    error: FsError,
    /// Open files whose writers do not know.
    untold: HashSet<u64>,
    /// The kernel has a size and pages that the disk has not.
    is_astray: bool,
}

/// What a program may do that is about to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayWrite {
    Yes,
    /// As [`MayWrite::Yes`]; and it has to be asked before the next write, too.
    AskAgain,
    /// The file's size is about to be another one.
    Later(FsError),
    No(FsError),
}

impl Volume {
    /// The disk refused a part of a write-back.
    pub(super) fn note_refused(&self, id: NodeId, bytes: usize, error: FsError) {
        let node = self.node(id);
        let mut all = self.refusals.all.lock();
        if all.bytes == 0 {
            let path = node.as_ref().map(|node| self.path(node)).unwrap_or_default();
            all.first = format!("{}: {error}", String::from_utf8_lossy(&path));
            log::error!("what programs had written before was refused by the disk: {}", all.first);
        }
        all.bytes += bytes as u64;
        drop(all);
        let Ok(node) = node else { return };
        if self.profile.gathers() {
            self.begin_refusal(&node, error);
        }
        if let Some(tell) = &*self.refusals.tell.lock() {
            tell(id);
        }
    }

    /// What is refused until the kernel knows better belongs to one refusal.
    fn begin_refusal(&self, node: &Node, error: FsError) {
        let untold = self.writers_of(node.id);
        let mut refusal = node.refusal.lock();
        if !refusal.as_ref().is_some_and(|refusal| refusal.is_astray) {
            *refusal = Some(Refusal { error, untold, is_astray: true });
        }
        self.refusals.are_any.store(true, SeqCst);
    }

    /// What the disk has refused since the start.
    pub fn refused_stores(&self) -> Refused {
        self.refusals.all.lock().clone()
    }

    /// `tell` hears of each file of which the kernel has what the disk refused. It must not wait.
    pub fn tell_refused(&self, tell: impl Fn(NodeId) + Send + Sync + 'static) {
        *self.refusals.tell.lock() = Some(Box::new(tell));
    }

    /// A program is about to write.
    pub fn may_write(&self, id: NodeId, handle: u64) -> MayWrite {
        let Some(node) = self.refused(id) else { return MayWrite::Yes };
        let mut slot = node.refusal.lock();
        let Some(refusal) = &mut *slot else { return MayWrite::Yes };
        match refusal.untold.remove(&handle) {
            true => MayWrite::No(refusal.error),
            // A read at the end of the file asks, too.
            false if !self.writes(handle) => MayWrite::AskAgain,
            false if refusal.is_astray => MayWrite::Later(refusal.error),
            false if refusal.untold.is_empty() => {
                *slot = None;
                MayWrite::Yes
            }
            false => MayWrite::AskAgain,
        }
    }

    /// Whether the kernel has to ask before it takes a write to this file.
    pub fn is_asked_before_writes(&self, id: NodeId) -> bool {
        self.refused(id).is_some_and(|node| node.refusal.lock().is_some())
    }

    fn refused(&self, id: NodeId) -> Option<std::sync::Arc<Node>> {
        let are_any = self.refusals.are_any.load(SeqCst);
        self.node(id).ok().filter(|_| are_any)
    }

    /// A write-back behind the end of the disk's file, where bytes are missing that were refused:
    /// whoever reads it would find zeros. The object is locked.
    pub(super) fn refuse_gap(&self, node: &Node, fd: impl AsFd, offset: u64) -> FsResult<()> {
        let refusal = node.refusal.lock();
        let Some(refusal) = refusal.as_ref().filter(|refusal| refusal.is_astray) else { return Ok(()) };
        let size = rustix::fs::fstat(fd).step("stat")?.st_size;
        if offset > size as u64 { Err(refusal.error) } else { Ok(()) }
    }

    /// The flush helper sets the size of a file, and nothing is on its way: the kernel takes over
    /// what the disk has.
    pub fn tell_size(&self, id: NodeId) -> FsResult<Meta> {
        let meta = self.getattr(id, None)?;
        self.end_astray(id);
        Ok(meta)
    }

    /// The kernel has a size that the disk has, or keeps its own for good.
    pub fn end_astray(&self, id: NodeId) {
        let Ok(node) = self.node(id) else { return };
        if let Some(refusal) = &mut *node.refusal.lock() {
            refusal.is_astray = false;
        }
    }

    /// A file is closed: nobody writes through this handle any more.
    pub(super) fn forget_untold(&self, node: &Node, handle: u64) {
        if let Some(refusal) = &mut *node.refusal.lock() {
            refusal.untold.remove(&handle);
        }
    }

    /// Where a file is, if it has a name.
    pub fn file_at(&self, id: NodeId) -> Option<MappedFile> {
        let node = self.node(id).ok().filter(|node| !node.is_nameless.load(SeqCst))?;
        Some(MappedFile { id, path: self.path(&node) })
    }
}
