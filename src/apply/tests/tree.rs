//! Two trees are equal: names, kinds, bytes, modes, owners, mtimes, xattrs, hard-link groups.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::apply::inode;
use crate::xattr::{FLAGS, Flags};

#[derive(Debug, PartialEq, Eq)]
pub struct Described {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    device: u64,
    pub links: u64,
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path of the same inode.
    same_as: PathBuf,
}

#[track_caller]
pub fn assert_same(left: &Path, right: &Path) {
    let (left, right) = (describe(left), describe(right));
    for (path, described) in &left {
        match right.get(path) {
            Some(other) => assert_eq!(described, other, "{path:?} differs"),
            None => panic!("{path:?} is missing in the replica"),
        }
    }
    let more: Vec<_> = right.keys().filter(|path| !left.contains_key(*path)).collect();
    assert!(more.is_empty(), "the replica has more: {more:?}");
}

pub fn describe(root: &Path) -> BTreeMap<PathBuf, Described> {
    let (mut found, mut inodes) = (BTreeMap::new(), BTreeMap::new());
    walk(root, Path::new(""), &mut found, &mut inodes);
    found
}

fn walk(
    root: &Path,
    path: &Path,
    found: &mut BTreeMap<PathBuf, Described>,
    inodes: &mut BTreeMap<u64, PathBuf>,
) {
    let full = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) };
    let meta = fs::symlink_metadata(&full).unwrap();
    let kind = meta.file_type();
    let content = match () {
        () if kind.is_file() => fs::read(&full).unwrap(),
        () if kind.is_symlink() => fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec(),
        () => Vec::new(),
    };
    let device = if kind.is_char_device() || kind.is_block_device() { meta.rdev() } else { 0 };
    let described = Described {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        device,
        // Link counts of directories are the file system's own business.
        links: if kind.is_dir() { 0 } else { meta.nlink() },
        content,
        xattrs: xattrs(&full),
        same_as: inodes.entry(meta.ino()).or_insert_with(|| path.to_owned()).clone(),
    };
    found.insert(path.to_owned(), described);
    if kind.is_dir() {
        let mut names: Vec<_> =
            fs::read_dir(&full).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names.iter().for_each(|name| walk(root, &path.join(name), found, inodes));
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let file = o_path(path);
    let names = inode::list_xattrs(&file).unwrap().into_iter().map(|name| name.0);
    let flags = Flags::of(&file).unwrap().value().map(|value| (FLAGS.to_vec(), value));
    names
        .filter(|name| !name.starts_with(crate::xattr::OWN_PREFIX))
        .map(|name| (name.clone(), inode::get_xattr(&file, &name).unwrap().unwrap()))
        .chain(flags)
        .collect()
}

pub fn o_path(path: &Path) -> File {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path).unwrap()
}
