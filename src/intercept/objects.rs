//! Who is who: one node for every inode that the kernel knows, found by its number.
//!
//! A node exists while the kernel holds lookups on it or an op in progress has it pinned, and
//! there is never more than one for an inode: its locks would protect nothing otherwise.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::cached::ReadRanges;
use super::change::{DirectoryLock, ObjectLock};
use super::departures::{Departures, Leaving};
use super::descriptors::OpenDescriptors;
use super::foreign::{Left, Newest};
use super::gathered::KeptTime;
use super::growth::Growth;
use super::listing::KeptListing;
use super::mixing::Mixings;
use super::refusals::Refusal;
use super::seen_at::Place;
use super::shares::Shares;
use super::standing::Standing;
use crate::packet::ObjectId;
use crate::sys::FileHandle;

/// The kernel's name for a node: the backing inode number, 1 for the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    pub const ROOT: NodeId = NodeId(1);

    /// Node id of a backing inode that is not the root. Number 1 belongs to the root.
    pub fn of_inode(inode: u64) -> NodeId {
        NodeId(if inode == 1 { u64::MAX } else { inode })
    }

    /// The backing inode of a node that is not the root.
    pub fn inode(self) -> u64 {
        if self.0 == u64::MAX { 1 } else { self.0 }
    }
}

/// One object of the backing directory.
pub struct Node {
    pub id: NodeId,
    pub object: ObjectId,
    /// File type, `S_IFMT` bits.
    pub file_type: u32,
    /// `None` where the file system has no handles; then `descriptor` is kept for ever.
    pub handle: Option<FileHandle>,
    /// Lookups of the kernel plus pins of ops in progress. Only changed under the shard's lock.
    lookups: AtomicU64,
    pub names: DirectoryLock,
    pub state: ObjectLock,
    /// What programs may be told of the size. Taken after the object lock, or without it; only
    /// looks at the object are taken under it.
    pub growth: Mutex<Growth>,
    /// What of the file the kernel may have cached. A leaf lock.
    pub read: Mutex<ReadRanges>,
    /// Whether `state.read_write` is more than 0.
    pub may_be_mapped: AtomicBool,
    /// Whether the flush helper may have it open ([`super::mapped`]).
    pub is_listed: AtomicBool,
    /// Whether `state.mixings` has any: reads look there then.
    pub is_mixing: AtomicBool,
    /// It is append-only on the disk, and who has it open writes at its end ([`super::appending`]).
    pub is_append_only: AtomicBool,
    /// It was made immutable through the mount.
    pub is_immutable: AtomicBool,
    /// Whether `state.time` may have to be set again.
    pub owes_time: AtomicBool,
    /// Writes that the kernel took since it has written everything back; counted where the disk is
    /// nearly full.
    pub writes_taken: AtomicU64,
    /// Of a write-back, which programs or the kernel do not know yet. A leaf lock.
    pub refusal: Mutex<Option<Refusal>>,
    /// Where the object was last seen. A leaf lock: nothing is taken under it.
    pub place: Mutex<Place>,
    /// `O_PATH` descriptor, while it is cached. A leaf lock.
    pub descriptor: Mutex<Option<Arc<OwnedFd>>>,
    pub recently_used: AtomicBool,
    /// Descriptors of those that have it open. Taken after the object lock or without it; only
    /// `descriptor` is taken under it.
    pub open: Mutex<OpenDescriptors>,
    /// No name is left: changes are nobody's any more and are not sent. Changed under the object
    /// lock only.
    pub is_nameless: AtomicBool,
    /// Targets have it although none of its names is in the set: it is getting one. Changed under the
    /// object lock only.
    pub is_staged: AtomicBool,
    /// In which generation of the activity log it is hot, as far as that is remembered.
    pub hot: AtomicU64,
    /// How the object has to be found.
    pub left: Left,
    /// Of a directory.
    pub kept_listing: KeptListing,
    /// Who took its last name.
    nameless_of: AtomicU32,
    /// Where it is noted for the daemon that comes after this one; inner `None`: there was no memory.
    noted: OnceLock<Option<u32>>,
    /// The holder has a descriptor of it.
    pub is_kept: AtomicBool,
    /// The descriptor must stay: the last name is gone, or there are no handles.
    pub keep_descriptor: AtomicBool,
    /// While it is nameless. The last field: it goes when the descriptors above are closed.
    leaving: Mutex<Option<Leaving>>,
}

/// What the object lock protects beside the data itself.
#[derive(Default)]
pub struct NodeState {
    /// Open handles that are read-write and so may have shared mappings.
    pub read_write: u32,
    /// Open handles that write past the kernel's page cache.
    pub direct_writers: u32,
    /// Direct writes that such a mapping may not have seen yet.
    pub mixings: Mixings,
    /// What the kernel has said of the file's time, where it gathers writes.
    pub time: KeptTime,
}

impl Node {
    fn of(sighting: Sighting, lookups: u64) -> Node {
        Node {
            id: sighting.id,
            object: sighting.object,
            file_type: sighting.file_type,
            is_nameless: AtomicBool::new(false),
            is_staged: AtomicBool::new(false),
            hot: AtomicU64::new(0),
            left: Left::default(),
            kept_listing: KeptListing::default(),
            keep_descriptor: AtomicBool::new(sighting.handle.is_none()),
            handle: sighting.handle,
            lookups: AtomicU64::new(lookups),
            names: DirectoryLock::of(sighting.id),
            state: ObjectLock::of(sighting.id),
            growth: Mutex::default(),
            read: Mutex::default(),
            may_be_mapped: AtomicBool::new(false),
            is_listed: AtomicBool::new(false),
            is_mixing: AtomicBool::new(false),
            is_append_only: AtomicBool::new(false),
            is_immutable: AtomicBool::new(false),
            owes_time: AtomicBool::new(false),
            writes_taken: AtomicU64::new(0),
            refusal: Mutex::default(),
            place: Mutex::default(),
            descriptor: Mutex::new(sighting.descriptor),
            recently_used: AtomicBool::new(false),
            open: Mutex::default(),
            nameless_of: AtomicU32::new(0),
            noted: OnceLock::new(),
            is_kept: AtomicBool::new(false),
            leaving: Mutex::default(),
        }
    }

    pub fn is_directory(&self) -> bool {
        self.file_type == libc::S_IFDIR
    }
}

/// What is needed to make a node that is not known yet.
pub struct Sighting {
    pub id: NodeId,
    pub object: ObjectId,
    pub file_type: u32,
    pub handle: Option<FileHandle>,
    pub descriptor: Option<Arc<OwnedFd>>,
}

const SHARDS: usize = 16;
/// After this many nodes have gone, freed memory is given back to the system.
const TRIM_AFTER: u64 = 50_000;

/// The table of nodes.
pub struct Objects {
    shards: [Mutex<HashMap<NodeId, Arc<Node>>>; SHARDS],
    forgotten: AtomicU64,
    /// Objects that have lost their last name; those that are forgotten stay for a while.
    nameless: Mutex<Vec<Weak<Node>>>,
    departures: Arc<Departures>,
    pub newest: Newest,
    nameless_shares: Shares,
    /// `None`: what the kernel knows goes with this daemon.
    pub standing: Option<Arc<Standing>>,
}

/// A node that cannot be forgotten while an op works on it.
pub struct Pinned<'a> {
    /// Where the pin is given back; `None` once it belongs to the kernel.
    objects: Option<&'a Objects>,
    node: Arc<Node>,
    /// The node was made for it.
    pub is_new: bool,
}

impl std::ops::Deref for Pinned<'_> {
    type Target = Arc<Node>;
    fn deref(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Pinned<'_> {
    /// Hands the pin over to the kernel as a lookup.
    pub fn into_lookup(mut self) -> Arc<Node> {
        if let Some(objects) = self.objects.take() {
            objects.note_lookup(&self.node);
        }
        self.node.clone()
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        if let Some(objects) = self.objects {
            objects.forget(self.node.id, 1);
        }
    }
}

impl Objects {
    /// `nameless_max`: objects without a name that may keep a descriptor.
    pub fn new(nameless_max: usize) -> Objects {
        Objects {
            shards: std::array::from_fn(|_| Mutex::default()),
            forgotten: AtomicU64::new(0),
            nameless: Mutex::default(),
            departures: Arc::default(),
            newest: Newest::default(),
            nameless_shares: Shares::new(nameless_max),
            standing: None,
        }
    }

    /// The node that the kernel named.
    pub fn get(&self, id: NodeId) -> Option<Arc<Node>> {
        self.shard(id).lock().get(&id).cloned()
    }

    /// The node of a sighted object, made if it is new, pinned once more. A node whose inode
    /// number now belongs to another object (generation differs) is replaced.
    pub fn pin(&self, sighting: Sighting) -> Pinned<'_> {
        let mut shard = self.shard(sighting.id).lock();
        let mut others = 0;
        if let Some(node) = shard.get(&sighting.id) {
            if node.object == sighting.object {
                node.lookups.fetch_add(1, Relaxed);
                return Pinned { objects: Some(self), node: node.clone(), is_new: false };
            }
            // They are given back under the same number.
            others = node.lookups.load(Relaxed);
            self.forget_noted(node);
        }
        let node = Arc::new(Node::of(sighting, others + 1));
        shard.insert(node.id, node.clone());
        Pinned { objects: Some(self), node, is_new: true }
    }

    /// A node that a daemon before has noted, with the lookups that the kernel has on it.
    pub fn restore(&self, sighting: Sighting, noted: u32, lookups: u64) -> Arc<Node> {
        let node = Node::of(sighting, lookups);
        let _ = node.noted.set(Some(noted));
        self.shard(node.id).lock().entry(node.id).or_insert_with(|| Arc::new(node)).clone()
    }

    /// The kernel has one lookup more on a node, which is pinned.
    fn note_lookup(&self, node: &Node) {
        if let Some(standing) = &self.standing
            && let Some(at) = node.noted.get_or_init(|| standing.enter_node(node))
        {
            standing.lookups(*at).fetch_add(1, Relaxed);
        }
    }

    /// The kernel takes back so many.
    pub fn forget_lookups(&self, id: NodeId, count: u64) {
        if let Some(standing) = &self.standing
            && let Some(node) = self.get(id)
            && let Some(Some(at)) = node.noted.get()
        {
            let less = |lookups: u64| Some(lookups.saturating_sub(count));
            let _ = standing.lookups(*at).fetch_update(Relaxed, Relaxed, less);
        }
        self.forget(id, count);
    }

    /// Nobody knows it any more.
    fn forget_noted(&self, node: &Node) {
        if let Some(standing) = &self.standing {
            if let Some(Some(at)) = node.noted.get() {
                standing.remove_node(*at);
            }
            standing.let_go(node);
        }
    }

    /// Takes back `count` lookups; the node goes with the last.
    pub fn forget(&self, id: NodeId, count: u64) {
        if id == NodeId::ROOT {
            return;
        }
        let mut shard = self.shard(id).lock();
        let Some(node) = shard.get(&id) else { return };
        let before = node.lookups.load(Relaxed);
        node.lookups.store(before.saturating_sub(count), Relaxed);
        if before > count {
            return;
        }
        // First: whoever meets the object from here on makes a node for it.
        if !node.is_nameless.load(Relaxed) {
            self.newest.forgotten(&node.left);
        }
        let gone = shard.remove(&id);
        gone.iter().for_each(|node| self.forget_noted(node));
        if shard.capacity() > 1024 && shard.len() < shard.capacity() / 4 {
            shard.shrink_to_fit();
        }
        drop(shard);
        if let Some(node) = gone.filter(|node| node.is_nameless.load(Relaxed)) {
            self.give_share(&node);
        }
        if self.forgotten.fetch_add(1, Relaxed) % TRIM_AFTER == TRIM_AFTER - 1 {
            crate::sys::give_back_memory();
        }
    }

    /// Notes that an object has lost its last name, or got one again. Its object lock is held.
    pub fn set_nameless(&self, node: &Arc<Node>, is_nameless: bool) {
        match (node.is_nameless.swap(is_nameless, SeqCst), is_nameless) {
            (false, true) => {
                let mut nameless = self.nameless.lock();
                if nameless.len() == nameless.capacity() {
                    nameless.retain(|node| node.strong_count() > 0);
                }
                *node.leaving.lock() = Some(Departures::enter(&self.departures));
                nameless.push(Arc::downgrade(node));
            }
            (true, false) => {
                self.give_share(node);
                self.standing.iter().for_each(|standing| standing.let_go(node));
                let mut nameless = self.nameless.lock();
                nameless.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(node)));
                *node.leaving.lock() = None;
            }
            (false, false) | (true, true) => {}
        }
    }

    /// Whether one more object may keep a descriptor although it has no name, for this user; it does
    /// then, until the kernel forgets it.
    pub fn may_keep(&self, node: &Node, uid: u32) -> bool {
        if node.nameless_of.load(Relaxed) != 0 {
            return true;
        }
        let may = self.nameless_shares.take(uid);
        if may {
            node.nameless_of.store(uid.saturating_add(1), Relaxed);
        }
        may
    }

    /// The object has its name, or nobody knows it any more.
    pub fn give_share(&self, node: &Node) {
        if let Some(uid) = node.nameless_of.swap(0, Relaxed).checked_sub(1) {
            self.nameless_shares.give(uid);
        }
    }

    /// Whether an object that was removed is on its way, with its space: no program has it open and the
    /// kernel is about to forget it, or its last descriptor is just being closed, which takes a
    /// while for a large file.
    pub fn are_leaving(&self) -> bool {
        let nameless = self.nameless.lock();
        let known: Vec<Arc<Node>> = nameless.iter().filter_map(Weak::upgrade).collect();
        self.departures.present() > known.len() || known.iter().any(|node| !node.open.lock().is_open())
    }

    /// Objects without a name that have gone so far, with their space.
    pub fn departed(&self) -> u64 {
        self.departures.departed()
    }

    /// Which of its names a file was seen by last says nothing any more.
    pub fn forget_places_of_files(&self) {
        for shard in &self.shards {
            let shard = shard.lock();
            let files = shard.values().filter(|node| !node.is_directory());
            files.for_each(|node| *node.place.lock() = Place::default());
        }
    }

    /// Nodes known at this moment.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, id: NodeId) -> &Mutex<HashMap<NodeId, Arc<Node>>> {
        &self.shards[(id.0 as usize ^ (id.0 >> 8) as usize) % SHARDS]
    }
}
