//! What the kernel has of a mount, kept where it outlives the daemon: with it, and with the descriptor of the
//! connection, the next daemon goes on where one was killed, and programs see a pause.
//!
//! ```text
//!  head     takeovers, the longest pause, the INIT of the connection, what a
//!           daemon leaves to the one that it becomes, intents                      (handover.rs, intents.rs)
//!  nodes    number, lookups of the kernel, file handle                             (slab.rs)
//!  handles  open files and directories: number, node, access, request that opened
//! ```
//! All of it is memory without a file (`memfd_create(2)`) that a process of its own holds, the holder; so are one
//! descriptor of each file that is open and has no name. Nothing here is on the way of a read or a write: a node is
//! noted when the kernel gets to know it, a handle when it is opened, an intent when a name changes. What was
//! answered and how is known by what is here:
//! - an *open* that is asked again is answered with the handle that it has (`handles` has its request);
//! - a *change of a name* is looked at: with its intent, the names say whether it was made ([`Intent`]);
//! - all others can be done twice: the kernel holds the file's lock meanwhile, and no other change comes between.
//!
//! The kernel marks what it asks again in the number of the request ([`RESENT`], Linux 6.9).

mod handover;
mod intents;
mod requests;
mod restore;
mod slab;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;

pub use handover::{Handover, Upgraded};
pub use intents::Intent;
use intents::{INTENT_WORDS, Intents};
use slab::Slab;

use super::data::OpenMode;
use super::objects::{Node, NodeId};
use crate::sys::{FileHandle, SharedWords};

/// What this memory looks like. Another version of the program may have other words at other places.
pub const FORMAT: u64 = 0x5354_414e_4400_0001;

/// Bit of a request's number: the kernel had asked it before, a daemon that is gone.
pub const RESENT: u64 = 1 << 63;

const FORMAT_WORD: usize = 0;
const TAKEOVERS: usize = 1;
const LONGEST_PAUSE_MS: usize = 2;
const CONNECTION: usize = 3;
const INIT_LEN: usize = 4;
const INIT: usize = 8;
const INIT_WORDS: usize = 64;
const HANDOVER: usize = INIT + INIT_WORDS;
const INTENTS: usize = 128;
const HEAD_WORDS: usize = INTENTS + INTENT_WORDS;

/// Words of a node: number, lookups, kind and length of its handle with its type, the handle.
const NODE_WORDS: usize = 8;
const NODE_LOOKUPS: usize = 1;
/// A GiB of address space; memory only for those that are known at once.
const NODES_MAX: usize = 1 << 24;

/// Words of a handle: what it is, its number, its node, the request that opened it.
const HANDLE_WORDS: usize = 4;
const HANDLES_MAX: usize = 1 << 22;

thread_local! {
    /// The request that this thread serves; 0: none.
    static REQUEST: Cell<u64> = const { Cell::new(0) };
    /// An intent of it is noted.
    static HAS_INTENT: Cell<bool> = const { Cell::new(false) };
}

/// From here on this thread serves this request.
pub fn serve_request(number: u64) {
    REQUEST.set(number);
}

/// Keeps files that have no name open for the next daemon.
pub trait KeepsFiles: Send + Sync {
    /// Before the last name goes.
    fn keep(&self, node: NodeId, file: BorrowedFd<'_>);
    fn let_go(&self, node: NodeId);
    /// The process that keeps them, as a descriptor of it (`pidfd_open(2)`); `None`: it is gone.
    fn process(&self) -> Option<OwnedFd>;
}

/// See the module.
pub struct Standing {
    head: SharedWords,
    nodes: Slab,
    handles: Slab,
    intents: Intents,
    keeper: Box<dyn KeepsFiles>,
    /// Of a daemon before, until they are asked for: where each is noted.
    inherited: Mutex<HashMap<NodeId, u32>>,
    has_inherited: AtomicBool,
    /// Files without a name that the holder had.
    kept: Mutex<HashMap<NodeId, OwnedFd>>,
    /// Handles that a daemon before had given to requests that it may not have answered.
    opened: Mutex<HashMap<u64, u64>>,
}

/// The memory of a [`Standing`], for another process.
pub struct Memory<F> {
    pub head: F,
    pub nodes: F,
    pub handles: F,
}

/// What an open file or directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File { access: i32, mode: OpenMode },
    Directory { uid: u32 },
}

impl Kind {
    fn word(self) -> u64 {
        match self {
            Kind::File { access, mode } => {
                1 | (access as u64 & 3) << 8 | u64::from(mode == OpenMode::Direct) << 16
            }
            Kind::Directory { uid } => 2 | u64::from(uid) << 32,
        }
    }

    fn of(word: u64) -> Kind {
        let mode = if word >> 16 & 1 == 1 { OpenMode::Direct } else { OpenMode::Cached };
        match word & 0xff {
            1 => Kind::File { access: (word >> 8 & 3) as i32, mode },
            _ => Kind::Directory { uid: (word >> 32) as u32 },
        }
    }
}

impl Standing {
    /// Of a mount that is about to be made.
    pub fn begin(keeper: Box<dyn KeepsFiles>) -> io::Result<Standing> {
        let head = SharedWords::create(c"standin-head", HEAD_WORDS)?;
        head.grow(HEAD_WORDS)?;
        head.word(FORMAT_WORD).store(FORMAT, Relaxed);
        let nodes = Slab::create(c"standin-nodes", NODE_WORDS, NODES_MAX)?;
        let handles = Slab::create(c"standin-handles", HANDLE_WORDS, HANDLES_MAX)?;
        Ok(Standing::of(head, nodes, handles, keeper))
    }

    /// Of a mount whose daemon is gone. `kept`: files without a name.
    ///
    /// Errors: it is no such memory, or another version's.
    pub fn take(
        memory: Memory<OwnedFd>,
        kept: impl IntoIterator<Item = (NodeId, OwnedFd)>,
        keeper: Box<dyn KeepsFiles>,
    ) -> io::Result<Standing> {
        let head = SharedWords::open(memory.head, HEAD_WORDS)?;
        if head.len() < HEAD_WORDS || head.word(FORMAT_WORD).load(Relaxed) != FORMAT {
            return Err(io::Error::other("another version of standin wrote it"));
        }
        let nodes = Slab::open(memory.nodes, NODE_WORDS, NODES_MAX)?;
        let handles = Slab::open(memory.handles, HANDLE_WORDS, HANDLES_MAX)?;
        let standing = Standing::of(head, nodes, handles, keeper);
        let (mut inherited, mut unknown) = (HashMap::new(), Vec::new());
        standing.nodes.each(|at, record| match record[NODE_LOOKUPS] {
            // The kernel has not heard of it, or has forgotten it.
            0 => unknown.push(at),
            _ => drop(inherited.insert(NodeId(record[0]), at)),
        });
        unknown.into_iter().for_each(|at| standing.nodes.remove(at));
        standing.has_inherited.store(!inherited.is_empty(), SeqCst);
        *standing.inherited.lock() = inherited;
        *standing.kept.lock() = kept.into_iter().collect();
        Ok(standing)
    }

    fn of(head: SharedWords, nodes: Slab, handles: Slab, keeper: Box<dyn KeepsFiles>) -> Standing {
        let intents = Intents::open(&head, INTENTS);
        Standing {
            head,
            nodes,
            handles,
            intents,
            keeper,
            inherited: Mutex::default(),
            has_inherited: AtomicBool::new(false),
            kept: Mutex::default(),
            opened: Mutex::default(),
        }
    }

    pub fn memory(&self) -> Memory<BorrowedFd<'_>> {
        let (nodes, handles) = (self.nodes.memory(), self.handles.memory());
        Memory { head: self.head.memory(), nodes, handles }
    }

    /// How the kernel began the connection, and its number.
    pub fn note_connection(&self, init: &[u8], number: u32) {
        assert!(init.len() <= INIT_WORDS * 8, "an INIT of {} bytes", init.len());
        for (at, bytes) in init.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            self.head.word(INIT + at).store(u64::from_le_bytes(word), Relaxed);
        }
        self.head.word(CONNECTION).store(u64::from(number), Relaxed);
        self.head.word(INIT_LEN).store(init.len() as u64, SeqCst);
    }

    pub fn connection(&self) -> (Vec<u8>, u32) {
        let len = (self.head.word(INIT_LEN).load(SeqCst) as usize).min(INIT_WORDS * 8);
        let words = (0..len.div_ceil(8)).map(|at| self.head.word(INIT + at).load(Relaxed).to_le_bytes());
        let mut init: Vec<u8> = words.flatten().collect();
        init.truncate(len);
        (init, self.head.word(CONNECTION).load(Relaxed) as u32)
    }

    /// Programs were served again after so long.
    pub fn note_takeover(&self, pause: Duration) {
        self.head.word(TAKEOVERS).fetch_add(1, Relaxed);
        self.head.word(LONGEST_PAUSE_MS).fetch_max(pause.as_millis() as u64, Relaxed);
    }

    /// How often a daemon has gone on for another one since the mount was made, and the longest pause.
    pub fn takeovers(&self) -> (u64, Duration) {
        let pause = self.head.word(LONGEST_PAUSE_MS).load(Relaxed);
        (self.head.word(TAKEOVERS).load(Relaxed), Duration::from_millis(pause))
    }

    /// Notes a node that the kernel gets to know; where, if there is memory for it.
    pub(super) fn enter_node(&self, node: &Node) -> Option<u32> {
        let handle = node.handle.as_ref()?;
        let mut record = [0; NODE_WORDS];
        record[0] = node.id.0;
        record[2] = u64::from(handle.kind() as u32) << 32
            | (handle.as_bytes().len() as u64) << 16
            | u64::from(node.file_type >> 12);
        for (word, bytes) in record[3..].iter_mut().zip(handle.as_bytes().chunks(8)) {
            let mut all = [0; 8];
            all[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(all);
        }
        self.nodes.enter(&record)
    }

    /// Lookups that the kernel has on it.
    pub(super) fn lookups(&self, at: u32) -> &AtomicU64 {
        self.nodes.word(at, NODE_LOOKUPS)
    }

    pub(super) fn remove_node(&self, at: u32) {
        self.nodes.remove(at);
    }

    /// Handle and type (`S_IFMT`) of a node that was noted.
    fn node_at(&self, at: u32) -> Option<(FileHandle, u32)> {
        let facts = self.nodes.word(at, 2).load(Relaxed);
        let words = (3..NODE_WORDS).flat_map(|word| self.nodes.word(at, word).load(Relaxed).to_le_bytes());
        let mut bytes: Vec<u8> = words.collect();
        bytes.truncate((facts >> 16 & 0xff) as usize);
        let handle = FileHandle::from_parts((facts >> 32) as u32 as i32, &bytes)?;
        Some((handle, ((facts & 0xf) << 12) as u32))
    }

    /// Notes an open file or directory.
    pub(super) fn enter_handle(&self, kind: Kind, handle: u64, node: NodeId) -> Option<u32> {
        self.handles.enter(&[kind.word(), handle, node.0, REQUEST.get() & !RESENT])
    }

    pub(super) fn remove_handle(&self, at: u32) {
        self.handles.remove(at);
    }

    /// The handle that this thread's request was given by a daemon that is gone.
    pub(super) fn opened_before(&self) -> Option<u64> {
        let request = REQUEST.get();
        if request & RESENT == 0 {
            return None;
        }
        self.opened.lock().remove(&(request & !RESENT))
    }

    /// The process that has all of this when this one is gone.
    pub(super) fn keeper(&self) -> Option<OwnedFd> {
        self.keeper.process()
    }

    pub(super) fn keep(&self, node: &Node, file: BorrowedFd<'_>) {
        if !node.is_kept.swap(true, SeqCst) {
            self.keeper.keep(node.id, file);
        }
    }

    pub(super) fn let_go(&self, node: &Node) {
        if node.is_kept.swap(false, SeqCst) {
            self.keeper.let_go(node.id);
        }
    }
}
