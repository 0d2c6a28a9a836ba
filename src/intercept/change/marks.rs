//! The marks of a change in the map: set when its locks are taken, before anything is changed.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{Change, Part};
#[cfg(test)]
use super::{Planted, planted};
use crate::intercept::objects::Node;
use crate::intercept::volume::Volume;
use crate::map::{Map, What};

impl Volume {
    /// The same, whose changes are marked there.
    pub fn marking(self, map: Arc<Map>) -> Volume {
        let mut marking = self;
        marking.changes.map = Some(map);
        marking
    }

    /// Where changes are marked, if they are.
    pub fn map(&self) -> Option<&Arc<Map>> {
        self.changes.map.as_ref()
    }

    fn mark(&self, node: &Node, what: &What) {
        if let Some(map) = &self.changes.map {
            map.mark(node.object, self.handle_of(node), what);
        }
    }
}

impl Change<'_> {
    /// Marks what was said to be touched. What it has no name for is nobody's.
    pub(super) fn mark(&self) {
        if self.volume.changes.map.is_none() {
            return;
        }
        self.touched.names.iter().for_each(|(dir, _)| self.volume.mark(dir, &What::Names));
        if let Some(object) = &self.touched.object
            && !(self.touched.names.is_empty() && object.node.is_nameless.load(Relaxed))
        {
            let what = match &object.part {
                // What is no file refuses whatever else it is asked for.
                _ if object.node.file_type != libc::S_IFREG => What::Itself,
                Part::Attributes => What::Itself,
                Part::Content(range) => What::Content(range.clone()),
                Part::Size(size) => What::From(self.size_before(object.fd).min(*size)),
            };
            self.volume.mark(object.node, &what);
        }
    }

    /// The smallest size where it cannot be told.
    fn size_before(&self, fd: &std::os::fd::OwnedFd) -> u64 {
        #[cfg(test)]
        if planted::is(Planted::MarksTheNewSize) {
            return u64::MAX;
        }
        let stat = self.before.or_else(|| rustix::fs::fstat(fd).ok());
        stat.map_or(0, |stat| stat.st_size as u64)
    }

    /// A target that has made it from its op, and was cut off before its time was set, is shown it again.
    pub(super) fn mark_new(&self, node: &Node) {
        let what = match node.file_type {
            libc::S_IFDIR => What::Names,
            // All of it, whatever an inode number that was used before stands for at a target.
            libc::S_IFREG => What::From(0),
            _ => What::Itself,
        };
        self.volume.mark(node, &what);
    }

    /// What gets another place may have other times, and a directory has another `..`.
    pub(in crate::intercept) fn mark_moved(&self, node: &Node) {
        self.volume.mark(node, if node.is_directory() { &What::Names } else { &What::Itself });
    }
}
