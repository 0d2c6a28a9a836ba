//! Objects that lose their last name and can still be reached: by who has them open, and with `--holder` by the daemon
//! that comes after this one.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::error::{FsError, FsResult};
use super::objects::Node;
use super::volume::Volume;

impl Volume {
    /// Before an object loses its last name: a descriptor keeps it, and its inode number, until
    /// the kernel forgets it.
    pub(super) fn keep_reachable(&self, node: &Arc<Node>, links_after: u32) -> FsResult<()> {
        if links_after > 0 {
            return Ok(());
        }
        let is_open = node.open.lock().is_open();
        if !self.objects.may_keep(node, crate::sys::acting_as().uid) {
            // Without a descriptor only what somebody has open would be lost.
            return match is_open {
                true => Err(FsError::new(libc::ENFILE, "open files of one user that have no name")),
                false => Ok(()),
            };
        }
        node.keep_descriptor.store(true, Relaxed);
        let reached = self.descriptors.of(node).map(drop).and_then(|()| self.keep_standing(node));
        reached.inspect_err(|_| self.objects.give_share(node))
    }

    /// The removal failed: the object can be found by its handle as before.
    pub(super) fn release_reachable(&self, node: &Arc<Node>) {
        self.objects.give_share(node);
        self.standing().iter().for_each(|standing| standing.let_go(node));
        if node.handle.is_some() {
            node.keep_descriptor.store(false, Relaxed);
            self.descriptors.remember(node);
        }
    }

    /// A file that a program has open loses, or has lost, its last name: the holder has it then.
    pub(super) fn keep_standing(&self, node: &Arc<Node>) -> FsResult<()> {
        if let Some(standing) = self.standing()
            && node.open.lock().is_open()
        {
            let file = self.descriptors.of(node)?;
            standing.keep(node, file.as_fd());
        }
        Ok(())
    }
}
