//! The tree of the source as a directory, for what looks at it past the mount: made equal to the model
//! with each change, in one go. Its inode numbers are chance; the model's go over the wire.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, linkat, mkdirat, mknodat, openat, renameat, symlinkat, unlinkat,
};

use super::model::{Node, ROOT, Tree, object};
use crate::apply::inode;
use crate::packet::*;
use crate::sys::FileHandle;

/// What no file system keeps a block of where nothing is written.
const PAGE: usize = 4096;

pub struct Backing {
    _temp: tempfile::TempDir,
    root: PathBuf,
    /// What has no name for a moment.
    aside: File,
    asides: u64,
    held: BTreeMap<u64, Held>,
    /// The model's number of each object that ever was here.
    known: HashMap<ObjectId, u64>,
    /// The object here of each of the model.
    here: HashMap<u64, ObjectId>,
    shown: Tree,
}

struct Held {
    file: File,
    is_dir: bool,
}

impl Backing {
    pub fn new(tree: &Tree) -> Backing {
        let temp = super::target::temporary_directory();
        let (root, aside) = (temp.path().join("root"), temp.path().join("aside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&aside).unwrap();
        let mut backing = Backing {
            root,
            aside: File::open(&aside).unwrap(),
            _temp: temp,
            asides: 0,
            held: BTreeMap::new(),
            known: HashMap::new(),
            here: HashMap::new(),
            shown: Tree { nodes: BTreeMap::new() },
        };
        let root = backing.root.clone();
        backing.hold(ROOT, File::open(root).unwrap(), true);
        backing.show(tree);
        backing
    }

    /// For reading, as a copy opens it.
    pub fn open(&self) -> OwnedFd {
        File::open(&self.root).unwrap().into()
    }

    /// What the model calls an object of this directory.
    pub fn in_model(&self, id: ObjectId) -> ObjectId {
        self.known.get(&id).map_or(id, |inode| object(*inode))
    }

    /// The object of this directory that the model means.
    pub fn in_directory(&self, id: ObjectId) -> ObjectId {
        self.here.get(&id.inode).copied().unwrap_or(id)
    }

    /// The object here of one of the model that is there, and its handle.
    pub fn at_hand(&self, id: ObjectId) -> Option<(ObjectId, FileHandle)> {
        let held = self.held.get(&id.inode)?;
        Some((self.in_directory(id), FileHandle::of(held.file.as_fd()).ok()?))
    }

    /// Makes it equal to a tree; gives the inode numbers of what has changed.
    pub fn show(&mut self, tree: &Tree) -> Vec<u64> {
        let old = std::mem::replace(&mut self.shown, tree.clone());
        let all: BTreeSet<u64> = old.nodes.keys().chain(tree.nodes.keys()).copied().collect();
        let is_same = |inode: &u64| match (old.nodes.get(inode), tree.nodes.get(inode)) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            _ => false,
        };
        let changed: Vec<u64> = all.into_iter().filter(|inode| !is_same(inode)).collect();
        let mut aside = BTreeMap::new();
        self.take_away(&old, tree, &changed, &mut aside);
        self.make(tree, &changed, &mut aside);
        let touched = changed.iter().filter_map(|inode| Some(self.here.get(inode)?.inode)).collect();
        self.name(&old, tree, &changed, &mut aside);
        self.drop_what_is_left(tree, aside);
        for inode in &changed {
            if let Some(node) = tree.nodes.get(inode) {
                self.dress(*inode, old.nodes.get(inode).map(|node| &**node), node);
            }
        }
        touched
    }

    /// Names that hold something else from now on.
    fn take_away(&mut self, old: &Tree, new: &Tree, changed: &[u64], aside: &mut Aside) {
        for inode in changed {
            for (name, held) in old.nodes.get(inode).iter().flat_map(|node| &node.entries) {
                if new.nodes.get(inode).and_then(|node| node.entries.get(name)) != Some(held) {
                    let fresh = self.fresh();
                    renameat(&self.held[inode].file, name.as_bytes(), &self.aside, &fresh).unwrap();
                    aside.entry(*held).or_default().push(fresh);
                }
            }
        }
    }

    fn make(&mut self, new: &Tree, changed: &[u64], aside: &mut Aside) {
        for inode in changed.iter().filter(|inode| new.nodes.contains_key(inode)) {
            if self.held.contains_key(inode) {
                continue;
            }
            let (fresh, mode) = (self.fresh(), Mode::from_raw_mode(0o700));
            let birth = &new.nodes[inode].birth;
            let node = |kind| mknodat(&self.aside, &fresh, kind, mode, 0).unwrap();
            match birth {
                Birth::Directory => mkdirat(&self.aside, &fresh, mode).unwrap(),
                Birth::Symlink { target } => symlinkat(&target.0[..], &self.aside, &fresh).unwrap(),
                Birth::File => node(FileType::RegularFile),
                Birth::Fifo => node(FileType::Fifo),
                Birth::Socket => node(FileType::Socket),
                Birth::CharDevice { .. } => node(FileType::CharacterDevice),
                Birth::BlockDevice { .. } => node(FileType::BlockDevice),
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(&self.aside, &fresh, flags, Mode::empty()).unwrap();
            self.hold(*inode, file.into(), *birth == Birth::Directory);
            aside.entry(*inode).or_default().push(fresh);
        }
    }

    fn name(&self, old: &Tree, new: &Tree, changed: &[u64], aside: &mut Aside) {
        for inode in changed {
            let Some(node) = new.nodes.get(inode) else { continue };
            let dir = &self.held[inode].file;
            for (name, held) in &node.entries {
                if old.nodes.get(inode).and_then(|node| node.entries.get(name)) == Some(held) {
                    continue;
                }
                match aside.get_mut(held).and_then(Vec::pop) {
                    Some(fresh) => renameat(&self.aside, &fresh, dir, name.as_bytes()).unwrap(),
                    None => {
                        let held = proc_path(&self.held[held].file);
                        linkat(CWD, &held, dir, name.as_bytes(), AtFlags::SYMLINK_FOLLOW).unwrap();
                    }
                }
            }
        }
    }

    fn drop_what_is_left(&mut self, new: &Tree, aside: Aside) {
        for (inode, names) in aside {
            let flags = if self.held[&inode].is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            names.iter().for_each(|name| unlinkat(&self.aside, name, flags).unwrap());
        }
        self.held.retain(|inode, _| new.nodes.contains_key(inode));
    }

    /// Content, attributes, and times last.
    fn dress(&self, inode: u64, old: Option<&Node>, node: &Node) {
        let file = &self.held[&inode].file;
        let had: &[u8] = old.map_or(&[], |old| &old.content);
        if node.content != had {
            let data = File::options().write(true).open(proc_path(file)).unwrap();
            data.set_len(0).unwrap();
            data.set_len(node.content.len() as u64).unwrap();
            for (number, page) in node.content.chunks(PAGE).enumerate() {
                if page.iter().any(|byte| *byte != 0) {
                    data.write_all_at(page, (number * PAGE) as u64).unwrap();
                }
            }
        }
        let Attributes { mode, uid, gid, mtime } = node.attributes;
        inode::set_owner(file, Owner { uid, gid }).unwrap();
        inode::drop_xattrs(file, |name| node.xattrs.contains_key(&name.0)).unwrap();
        for (name, value) in &node.xattrs {
            inode::set_xattr(file, &Bounded(name.clone()), value).unwrap();
        }
        inode::set_mode(file, mode).unwrap();
        inode::set_mtime(file, mtime).unwrap();
    }

    fn hold(&mut self, inode: u64, file: File, is_dir: bool) {
        let handle = FileHandle::of(file.as_fd()).unwrap();
        let id = ObjectId::at_first_sight(1, &handle, file.metadata().unwrap().ino());
        self.known.insert(id, inode);
        self.here.insert(inode, id);
        self.held.insert(inode, Held { file, is_dir });
    }

    fn fresh(&mut self) -> String {
        self.asides += 1;
        self.asides.to_string()
    }
}

/// Names of objects that are aside.
type Aside = BTreeMap<u64, Vec<String>>;

fn proc_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
