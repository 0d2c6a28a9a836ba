//! Which files may be mapped for writing, and who has them open to flush what mappings hold.
//!
//! The flush helper keeps each of them open, and with it the space of a file that is removed: it
//! hears at once when a file cannot be mapped any more, or has no name.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst};

use parking_lot::Mutex;

use super::objects::{Node, NodeId};
use super::volume::Volume;

/// A file that a program has open for reading and writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedFile {
    pub id: NodeId,
    /// Below the root of the set; empty where it is not known. It may have moved since.
    pub path: Arc<[u8]>,
}

/// Answers whether it could.
type Flush = dyn Fn(NodeId) -> bool + Send + Sync;

type Tell = Box<dyn Fn(NodeId) + Send + Sync>;

/// Who is told what.
#[derive(Default)]
pub struct MappedFiles {
    unlisted: Mutex<Option<Tell>>,
    write_back: Mutex<Option<Tell>>,
    flush: Mutex<Option<Arc<Flush>>>,
    /// The process that flushes; 0 where there is none.
    helper: AtomicU32,
}

impl Volume {
    /// Files with a name that may be mapped for writing now. Those that were listed are told of when
    /// that ends ([`Volume::tell_unmapped`]).
    pub fn mapped_files(&self) -> Vec<MappedFile> {
        let mut found: HashMap<NodeId, Arc<Node>> = HashMap::new();
        self.each_read_write(|node| {
            found.entry(node.id).or_insert_with(|| node.clone());
        });
        found.retain(|_, node| {
            node.is_listed.store(true, SeqCst);
            // What ended meanwhile has not seen that it was listed.
            node.may_be_mapped.load(SeqCst) && !node.is_nameless.load(SeqCst)
        });
        found.into_iter().map(|(id, node)| MappedFile { id, path: self.path(&node) }).collect()
    }

    /// One of [`Volume::mapped_files`].
    pub fn mapped_file(&self, id: NodeId) -> Option<MappedFile> {
        let node = self.node(id).ok()?;
        node.is_listed.store(true, SeqCst);
        self.file_at(id).filter(|_| node.may_be_mapped.load(SeqCst))
    }

    /// Whether stores through a mapping may be on their way.
    pub fn may_be_mapped(&self, id: NodeId) -> bool {
        self.node(id).is_ok_and(|node| node.may_be_mapped.load(SeqCst))
    }

    /// `tell` hears of each file that was listed and needs no flush any more. It must not wait.
    pub fn tell_unmapped(&self, tell: impl Fn(NodeId) + Send + Sync + 'static) {
        *self.mapped.unlisted.lock() = Some(Box::new(tell));
    }

    pub fn set_flush_helper(&self, pid: u32) {
        self.mapped.helper.store(pid, Relaxed);
    }

    pub fn is_flush_helper(&self, pid: u32) -> bool {
        pid != 0 && pid == self.mapped.helper.load(Relaxed)
    }

    /// A file is not open for reading and writing any more, or has lost its last name.
    pub(super) fn unlist(&self, node: &Node) {
        if node.is_listed.swap(false, SeqCst)
            && let Some(tell) = &*self.mapped.unlisted.lock()
        {
            tell(node.id);
        }
    }

    /// Has the kernel write back what mappings of a file hold, and drop its pages, and waits for that.
    /// Not for threads that serve requests.
    pub fn write_back(&self, id: NodeId) {
        if let Some(write_back) = &*self.mapped.write_back.lock() {
            write_back(id);
        }
    }

    /// Has the kernel write back what it has of a file, and waits for that; the pages stay where there is
    /// a flush helper. Not for threads that serve requests.
    pub fn flush_file(&self, id: NodeId) {
        let flush = self.mapped.flush.lock().clone();
        if !flush.is_some_and(|flush| flush(id)) {
            self.write_back(id);
        }
    }

    pub fn flush_by(&self, flush: impl Fn(NodeId) -> bool + Send + Sync + 'static) {
        *self.mapped.flush.lock() = Some(Arc::new(flush));
    }

    pub(super) fn write_back_by(&self, write_back: impl Fn(NodeId) + Send + Sync + 'static) {
        *self.mapped.write_back.lock() = Some(Box::new(write_back));
    }
}
