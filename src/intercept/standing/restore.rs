//! A volume goes on with what a daemon before had given to the kernel.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::{Kind, Standing};
use crate::intercept::data::{Entered, OpenMode, Opened};
use crate::intercept::objects::{Node, NodeId, Sighting};
use crate::intercept::volume::{Caller, Volume};

impl Volume {
    /// From here on what the kernel has is noted there; what is noted there already is known again.
    pub fn standing_on(mut self, standing: Arc<Standing>) -> Volume {
        self.objects.standing = Some(standing.clone());
        let mut opened = Vec::new();
        standing.handles.each(|at, record| opened.push((at, record.to_vec())));
        for (at, record) in opened {
            let (kind, handle, node, request) =
                (Kind::of(record[0]), record[1], NodeId(record[2]), record[3]);
            match self.restore_handle(at, kind, handle, node) {
                true => drop(standing.opened.lock().insert(request, handle)),
                false => standing.remove_handle(at),
            }
        }
        // What is left of them has a name, or nobody has it open.
        for (node, _) in standing.kept.lock().drain() {
            standing.keeper.let_go(node);
        }
        self
    }

    /// `false`: what it was open on is gone.
    fn restore_handle(&self, at: u32, kind: Kind, handle: u64, node: NodeId) -> bool {
        let Ok(node) = self.node(node) else { return false };
        match kind {
            Kind::File { access, mode } => {
                self.restore_file(&node, (handle, at), access, mode);
                true
            }
            Kind::Directory { uid } => {
                let caller = Caller { uid, gid: 0, pid: 0, request: 0 };
                self.restore_directory(caller, node, (handle, at)).is_ok()
            }
        }
    }

    /// Makes the node that a daemon before had told the kernel of, if it is one.
    pub(in crate::intercept) fn revive(&self, id: NodeId) -> Option<Arc<Node>> {
        let standing = self.standing()?;
        if !standing.has_inherited.load(SeqCst) {
            return None;
        }
        let mut inherited = standing.inherited.lock();
        let at = *inherited.get(&id)?;
        let (handle, file_type) = standing.node_at(at)?;
        let object = self.ids().of(&handle, id.inode()).ok()?;
        let kept = standing.kept.lock().remove(&id).and_then(|fd| {
            let has_name = rustix::fs::fstat(&fd).is_ok_and(|stat| stat.st_nlink > 0);
            if has_name {
                standing.keeper.let_go(id);
            }
            (!has_name).then_some(Arc::new(fd))
        });
        let lookups = standing.lookups(at).load(Relaxed);
        let sighting = Sighting { id, object, file_type, handle: Some(handle), descriptor: kept.clone() };
        let node = self.objects.restore(sighting, at, lookups);
        // What of it is in the kernel's cache nobody knows.
        node.read.lock().note(0, u64::MAX);
        if let Some(fd) = kept {
            node.is_kept.store(true, SeqCst);
            node.keep_descriptor.store(true, Relaxed);
            self.objects.set_nameless(&node, true);
            let uid = rustix::fs::fstat(fd.as_fd()).map_or(0, |stat| stat.st_uid);
            self.objects.may_keep(&node, uid);
        }
        inherited.remove(&id);
        standing.has_inherited.store(!inherited.is_empty(), SeqCst);
        Some(node)
    }

    /// The kernel forgets a node. `false`: it is none of a daemon before that nobody has asked for.
    pub(in crate::intercept) fn forget_inherited(&self, id: NodeId, count: u64) -> bool {
        let Some(standing) = self.standing().filter(|standing| standing.has_inherited.load(SeqCst)) else {
            return false;
        };
        let mut inherited = standing.inherited.lock();
        let Some(at) = inherited.get(&id).copied() else { return false };
        let lookups = standing.lookups(at);
        let before = lookups.load(Relaxed);
        lookups.store(before.saturating_sub(count), Relaxed);
        if before <= count {
            standing.remove_node(at);
            inherited.remove(&id);
            standing.has_inherited.store(!inherited.is_empty(), SeqCst);
        }
        true
    }

    /// This request was answered before, or nearly, by a daemon that is gone.
    pub(in crate::intercept) fn opened_before(&self) -> Option<Opened> {
        let handle = self.standing()?.opened_before()?;
        let file = self.handles.get(handle).ok()?;
        let has_stale_pages = file.is_read_write() && file.node.state.note().direct_writers > 0;
        Some(Opened { handle, mode: file.mode, has_stale_pages })
    }

    /// A program has it open, as a daemon before has answered; its descriptor is opened when it is needed.
    fn restore_file(&self, node: &Arc<Node>, (handle, noted): (u64, u32), access: i32, mode: OpenMode) {
        let file = Entered { node: node.clone(), mode, access, noted: Some(noted) };
        self.descriptors.enter_again(node, access);
        let mut state = node.state.note();
        match mode {
            OpenMode::Direct => state.direct_writers += 1,
            OpenMode::Cached if file.is_read_write() => {
                state.read_write += 1;
                node.may_be_mapped.store(true, SeqCst);
                self.shared_writers.opened.fetch_add(1, Relaxed);
                self.shared_writers.open.fetch_add(1, Relaxed);
            }
            OpenMode::Cached => {}
        }
        drop(state);
        self.handles.enter_as(handle, file);
    }
}
