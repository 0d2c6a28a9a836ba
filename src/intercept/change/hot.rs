//! Before the content of a file is changed it is hot in the activity log, on disk.
//!
//! It waits for that before any lock is taken; under the tree lock, from when on it counts as under way, it is looked
//! at once more: a generation that has begun meanwhile does not know of it. What counts as under way is waited
//! for before a generation is given up.

use std::sync::Arc;

use super::locks::{LockedNames, LockedObjects, LockedTree};
use super::ongoing::Ongoing;
#[cfg(test)]
use super::planted::{self, Planted};
use super::{Part, Touched, Tree, TreeLock};
use crate::activity::{ActivityLog, HotObject};
use crate::intercept::NodeId;
use crate::intercept::objects::Node;
use crate::intercept::volume::{Volume, changed};
use rustix::fs::Stat;

impl Volume {
    /// Changes of content are noted there from now on. Once.
    pub fn log_into(&self, log: Arc<ActivityLog>) {
        let before = self.changes.activity.set(log);
        assert!(before.is_ok(), "changes are noted in two logs");
    }

    /// Where changes of content are noted, if they are.
    pub fn activity(&self) -> Option<&Arc<ActivityLog>> {
        self.changes.activity.get()
    }

    /// Notes something of the set's own at the root, past the mount: it is nobody else's change. Nothing else may be
    /// waited for in it.
    pub fn note_at_root<T>(&self, note: impl FnOnce() -> T) -> T {
        let Ok(root) = self.node(NodeId::ROOT) else { return note() };
        let _names = LockedNames::take(Some(&root), None);
        let _object = LockedObjects::take(Some(&root), None);
        let noted = note();
        root.left.forget();
        noted
    }

    /// An object was made just now, by a change under way.
    pub(in crate::intercept) fn is_born(&self, node: &Node, stat: &Stat) {
        if let Some(log) = self.activity() {
            log.born(&node.hot, changed(stat));
        }
    }

    /// Takes the tree lock for a change when what it touches is hot.
    pub(super) fn take_tree<'a>(&'a self, touched: &Touched<'_>, tree: Tree) -> LockedTree<'a> {
        let take = || self.changes.tree_lock().take(tree, self.changes.under_way());
        let Some((log, node)) = self.activity().zip(touched.content()) else { return take() };
        #[cfg(test)]
        if planted::is(Planted::ChangesWhatIsCold) {
            return take();
        }
        loop {
            log.heat(&node.hot, HotObject { id: node.object, handle: self.handle_of(node).copied() });
            let taken = take();
            if log.is_hot(&node.hot) {
                return taken;
            }
        }
    }
}

impl super::Changes {
    fn tree_lock(&self) -> &TreeLock {
        &self.tree
    }

    fn under_way(&self) -> &Ongoing {
        &self.ongoing
    }
}

impl<'a> Touched<'a> {
    /// The file whose content changes, if it is one.
    fn content(&self) -> Option<&'a Arc<Node>> {
        let object = self.object.as_ref()?;
        let is_content = match object.part {
            Part::Content(_) | Part::Size(_) => object.node.file_type == libc::S_IFREG,
            Part::Attributes => false,
        };
        is_content.then_some(object.node)
    }
}
