//! The replica as it lies on the disk: compared with a model tree, remembered as of a sync, and
//! put back to that after a power loss.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};

use super::kept::More;
use super::model::{Node, ROOT, Tree};
use super::snapshots::Outside;
use crate::apply::{IDENTITY_XATTR, Index, Places, inode};
use crate::packet::*;
use crate::sys::FileHandle;

/// One name of a tree and all that is replicated of what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    pub(super) links: u32,
    /// Bytes of a file, target of a symlink, numbers of a device.
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path that holds the same.
    pub(super) same_as: PathBuf,
}

impl Described {
    pub(super) fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Directory
    }

    /// Whatever names it has.
    pub(super) fn without_names(mut self) -> Described {
        (self.links, self.same_as) = (1, PathBuf::new());
        self
    }
}

pub(super) type Paths = BTreeMap<PathBuf, Described>;

/// Whether mtimes have to be right already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    Settled,
    Pending,
}

/// Errors: the first difference between a model tree and the replica.
pub fn compare(
    tree: &Tree,
    root: &Path,
    (times, more): (Times, More),
    outside: &Outside,
) -> Result<(), String> {
    let mut wanted = describe_tree(tree);
    let (mut found, _) = describe_but(root, outside);
    if more == More::Stayed {
        drop_more(&mut found, &wanted);
    }
    if times == Times::Pending {
        wanted.values_mut().chain(found.values_mut()).for_each(|described| described.mtime = (0, 0));
    }
    for (path, described) in &wanted {
        match found.remove(path) {
            Some(other) if other == *described => {}
            Some(other) => {
                return Err(format!("{path:?} differs:\n  source  {described:?}\n  replica {other:?}"));
            }
            None => return Err(format!("{path:?} is missing in the replica")),
        }
    }
    match found.keys().next() {
        Some(path) => Err(format!("{path:?} is too much in the replica")),
        None => Ok(()),
    }
}

/// Takes out what is too much, with its names of what is on the source as well.
fn drop_more(found: &mut Paths, wanted: &Paths) {
    let mut more: HashMap<PathBuf, u32> = HashMap::new();
    found.retain(|path, described| {
        let is_wanted = wanted.contains_key(path);
        if !is_wanted {
            *more.entry(described.same_as.clone()).or_default() += 1;
        }
        is_wanted
    });
    let mut first: HashMap<PathBuf, PathBuf> = HashMap::new();
    for (path, described) in found.iter_mut().filter(|(_, described)| !described.is_directory()) {
        described.links -= more.get(&described.same_as).copied().unwrap_or_default();
        described.same_as = first.entry(described.same_as.clone()).or_insert_with(|| path.clone()).clone();
    }
}

fn describe_tree(tree: &Tree) -> Paths {
    fn walk(tree: &Tree, inode: u64, path: PathBuf, found: &mut Paths, first: &mut HashMap<u64, PathBuf>) {
        let node = &tree.nodes[&inode];
        let same_as = first.entry(inode).or_insert_with(|| path.clone()).clone();
        found.insert(path.clone(), Described { same_as, ..described(node) });
        for (name, inode) in &node.entries {
            walk(tree, *inode, path.join(name.as_os_str()), found, first);
        }
    }
    let mut found = BTreeMap::new();
    walk(tree, ROOT, PathBuf::new(), &mut found, &mut HashMap::new());
    found
}

pub(super) fn described(node: &Node) -> Described {
    let kind = match &node.birth {
        Birth::File => FileType::RegularFile,
        Birth::Directory => FileType::Directory,
        Birth::Symlink { .. } => FileType::Symlink,
        Birth::Fifo => FileType::Fifo,
        Birth::Socket => FileType::Socket,
        Birth::CharDevice { .. } => FileType::CharacterDevice,
        Birth::BlockDevice { .. } => FileType::BlockDevice,
    };
    let Attributes { mode, uid, gid, mtime } = node.attributes;
    let content = match &node.birth {
        Birth::Symlink { target } => target.0.clone(),
        _ => node.content.clone(),
    };
    Described {
        mode: mode | kind.as_raw_mode(),
        owner: (uid, gid),
        mtime: (mtime.seconds, mtime.nanoseconds),
        links: if kind == FileType::Directory { 0 } else { node.links },
        content,
        xattrs: node.xattrs.clone(),
        same_as: PathBuf::new(),
    }
}

/// What a directory holds, and by which handle each path is reached.
pub(super) fn describe(root: &Path) -> (Paths, HashMap<FileHandle, PathBuf>) {
    describe_but(root, &Outside::new())
}

/// As [`describe`], without names that are outside.
fn describe_but(root: &Path, outside: &Outside) -> (Paths, HashMap<FileHandle, PathBuf>) {
    fn walk(
        (root, outside): (&Path, &Outside),
        path: &Path,
        found: &mut Paths,
        first: &mut HashMap<u64, PathBuf>,
        handles: &mut HashMap<FileHandle, PathBuf>,
    ) {
        let full = full(root, path);
        let file = o_path(&full);
        let meta = file.metadata().unwrap();
        let kind = meta.file_type();
        let content = match () {
            () if kind.is_file() && meta.len() > 0 => fs::read(&full).unwrap(),
            () if kind.is_symlink() => fs::read_link(&full).unwrap().into_os_string().into_vec(),
            () => Vec::new(),
        };
        assert!(!kind.is_char_device() || meta.rdev() == 0);
        let same_as = first.entry(meta.ino()).or_insert_with(|| path.to_owned()).clone();
        handles.entry(FileHandle::of(file.as_fd()).unwrap()).or_insert_with(|| path.to_owned());
        let described = Described {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec() as u32),
            links: if kind.is_dir() {
                0
            } else {
                meta.nlink() as u32 - outside.get(&meta.ino()).unwrap_or(&0)
            },
            content,
            xattrs: xattrs(&file),
            same_as,
        };
        found.insert(path.to_owned(), described);
        if kind.is_dir() {
            let mut names: Vec<_> =
                fs::read_dir(&full).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names.iter().for_each(|name| walk((root, outside), &path.join(name), found, first, handles));
        }
    }
    let (mut found, mut handles) = (BTreeMap::new(), HashMap::new());
    walk((root, outside), Path::new(""), &mut found, &mut HashMap::new(), &mut handles);
    (found, handles)
}

fn xattrs(file: &File) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let names = inode::list_xattrs(file).unwrap().into_iter().map(|name| name.0);
    names
        .filter(|name| !name.starts_with(crate::xattr::OWN_PREFIX))
        .map(|name| (name.clone(), inode::get_xattr(file, &name).unwrap().unwrap()))
        .collect()
}

fn full(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

fn o_path(path: &Path) -> File {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path).unwrap()
}

/// What a power loss leaves: replica, limbo and index as of one sync.
pub struct Image {
    root: Paths,
    limbo: Paths,
    identity: Option<Vec<u8>>,
    /// The index, with the paths that its handles had.
    index: Vec<(ObjectId, FileHandle, Option<PlacePath>)>,
}

/// A path below the root or below limbo.
#[derive(Clone)]
struct PlacePath {
    in_limbo: bool,
    path: PathBuf,
}

impl Image {
    /// Remembers what is on the disk now. `index` is the applier's own.
    pub fn take(places: &Places, index: &Index) -> Image {
        let (root, in_root) = describe(&places.root);
        let (limbo, in_limbo) = describe(&places.limbo);
        let mut entries = Vec::new();
        index
            .for_each(|id, handle| {
                let found = in_root.get(&handle).map(|path| (false, path));
                let found = found.or_else(|| in_limbo.get(&handle).map(|path| (true, path)));
                let place = found.map(|(in_limbo, path)| PlacePath { in_limbo, path: path.clone() });
                entries.push((id, handle, place));
                Ok(())
            })
            .unwrap();
        Image { root, limbo, identity: identity(&places.root), index: entries }
    }

    /// Puts the disk back to this image. Inodes are new: the index is told so, as if they were not.
    /// `identity`: whether the mark on the root goes back too; it may have reached the disk.
    pub fn restore(&self, places: &Places, identity: bool) {
        clear(&places.root);
        clear(&places.limbo);
        write_out(&self.root, &places.root);
        write_out(&self.limbo, &places.limbo);
        if identity {
            let root = File::open(&places.root).unwrap();
            match &self.identity {
                Some(value) => {
                    let flags = rustix::fs::XattrFlags::empty();
                    rustix::fs::fsetxattr(&root, IDENTITY_XATTR, value, flags).unwrap();
                }
                None => _ = rustix::fs::fremovexattr(&root, IDENTITY_XATTR),
            }
        }
        let path = places.state.join("index");
        fs::remove_file(&path).unwrap();
        let mut index = Index::open(&path).unwrap();
        for (id, handle, place) in &self.index {
            let handle = place.as_ref().map_or(*handle, |place| {
                let top = if place.in_limbo { &places.limbo } else { &places.root };
                FileHandle::of(o_path(&full(top, &place.path)).as_fd()).unwrap()
            });
            index.insert(*id, handle).unwrap();
        }
    }
}

fn identity(root: &Path) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let len = rustix::fs::getxattr(root, IDENTITY_XATTR, value.as_mut_slice()).ok()?;
    value.truncate(len);
    Some(value)
}

fn clear(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => fs::remove_dir_all(entry.path()).unwrap(),
            false => fs::remove_file(entry.path()).unwrap(),
        }
    }
}

fn write_out(paths: &Paths, root: &Path) {
    for (path, described) in paths {
        let at = full(root, path);
        if described.same_as != *path {
            fs::hard_link(full(root, &described.same_as), &at).unwrap();
            continue;
        }
        let mode = Mode::from_raw_mode(0o600);
        match FileType::from_raw_mode(described.mode) {
            FileType::Directory if path.as_os_str().is_empty() => {}
            FileType::Directory => fs::create_dir(&at).unwrap(),
            FileType::Symlink => {
                std::os::unix::fs::symlink(OsString::from_vec(described.content.clone()), &at).unwrap();
            }
            FileType::RegularFile => {
                File::create_new(&at).unwrap().write_all_at(&described.content, 0).unwrap();
            }
            kind => rustix::fs::mknodat(CWD, &at, kind, mode, 0).unwrap(),
        }
    }
    // Times last, and of what is deeper first: names disturb them.
    for (path, described) in paths.iter().rev() {
        let file = o_path(&full(root, path));
        let (uid, gid) = described.owner;
        let mtime = Timestamp { seconds: described.mtime.0, nanoseconds: described.mtime.1 };
        let xattrs: Vec<Xattr> = described
            .xattrs
            .iter()
            .map(|(name, value)| Xattr { name: Bounded(name.clone()), value: Bounded(value.clone()) })
            .collect();
        // One by one: no process can die in what the disk does.
        inode::set_owner(&file, Owner { uid, gid }).unwrap();
        inode::drop_xattrs(&file, |name| xattrs.iter().any(|xattr| xattr.name == *name)).unwrap();
        xattrs.iter().for_each(|xattr| inode::set_xattr(&file, &xattr.name, &xattr.value.0).unwrap());
        inode::set_mode(&file, described.mode & 0o7777).unwrap();
        inode::set_mtime(&file, mtime).unwrap();
    }
}

/// Another boot: what the page of positions says counts no more.
pub fn forget_page_cache(state: &Path) {
    // Word 1 and 2: the id of the boot.
    overwrite(state, 8, &[0x5a; 16]);
}

/// Takes *begun* out of the page: words 32 to 47.
pub fn forget_begun(state: &Path) {
    overwrite(state, 32 * 8, &[0; 16 * 8]);
}

fn overwrite(state: &Path, at: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(state.join("progress")).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// All files of the state directory, by name.
pub fn save_state(state: &Path) -> Vec<(OsString, Vec<u8>)> {
    let files = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name());
    files.map(|name| (name.clone(), fs::read(state.join(&name)).unwrap())).collect()
}

pub fn restore_state(state: &Path, files: &[(OsString, Vec<u8>)]) {
    clear(state);
    files.iter().for_each(|(name, content)| fs::write(state.join(name), content).unwrap());
}

/// Bytes of a name, for the trace.
pub fn shown(name: &Name) -> String {
    String::from_utf8_lossy(name.as_os_str().as_bytes()).into_owned()
}
