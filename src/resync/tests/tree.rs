//! What a tree is, for comparison: everything that replication promises to keep.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, SeekFrom};

use crate::packet::{Attributes, Birth, Xattr};
use crate::resync::look;
use crate::sys::proc_path;

#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    pub birth: Birth,
    pub attributes: Attributes,
    pub xattrs: Vec<Xattr>,
    pub content: Option<Vec<u8>>,
    /// Where its data lies: (beginning, end) of each extent.
    pub data: Vec<(u64, u64)>,
    /// The first path of the same object.
    pub same_as: Vec<u8>,
}

/// Every object below a directory, and the directory itself as `.`, by relative path. Paths may
/// be longer than `PATH_MAX`.
pub fn nodes(root: &Path) -> BTreeMap<Vec<u8>, Node> {
    let mut nodes = BTreeMap::new();
    let root = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    visit(&File::from(root), b".".to_vec(), &mut nodes, &mut HashMap::new());
    nodes
}

pub fn assert_equal(source: &Path, replica: &Path) {
    let (source, replica) = (nodes(source), nodes(replica));
    let mut differences = Vec::new();
    for (path, node) in &source {
        match replica.get(path) {
            None => differences.push(format!("{:?} is missing", String::from_utf8_lossy(path))),
            Some(other) if other != node => {
                differences.push(format!("{:?}: {}", String::from_utf8_lossy(path), explain(node, other)))
            }
            Some(_) => {}
        }
    }
    for path in replica.keys().filter(|path| !source.contains_key(*path)) {
        differences.push(format!("{:?} should not be there", String::from_utf8_lossy(path)));
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

fn explain(left: &Node, right: &Node) -> String {
    let mut text = String::new();
    let mut add = |what: &str, left: &dyn std::fmt::Debug, right: &dyn std::fmt::Debug| {
        let (left, right) = (format!("{left:?}"), format!("{right:?}"));
        if left != right {
            text += &format!("{what}: {left:.200} became {right:.200}; ");
        }
    };
    add("birth", &left.birth, &right.birth);
    add("attributes", &left.attributes, &right.attributes);
    add("xattrs", &left.xattrs, &right.xattrs);
    add("data", &left.data, &right.data);
    add("same object as", &String::from_utf8_lossy(&left.same_as), &String::from_utf8_lossy(&right.same_as));
    add("size", &left.content.as_ref().map(Vec::len), &right.content.as_ref().map(Vec::len));
    if left.content != right.content {
        text += "the content differs";
    }
    text
}

fn visit(
    file: &File,
    path: Vec<u8>,
    nodes: &mut BTreeMap<Vec<u8>, Node>,
    inodes: &mut HashMap<u64, Vec<u8>>,
) {
    let status = look::stat(file.as_fd()).unwrap();
    let birth = look::birth(file.as_fd(), &status).unwrap();
    let (mut content, mut data) = (None, Vec::new());
    if birth == Birth::File {
        let file = File::open(proc_path(file.as_fd())).unwrap();
        data = extents(&file);
        content = Some(fs::read(proc_path(file.as_fd())).unwrap());
    }
    let same_as = inodes.entry(status.stx_ino).or_insert_with(|| path.clone()).clone();
    let node = Node {
        birth: birth.clone(),
        attributes: look::attributes(&status),
        xattrs: crate::xattr::read_replicated(file).unwrap(),
        content,
        data,
        same_as,
    };
    nodes.insert(path.clone(), node);
    if birth != Birth::Directory {
        return;
    }
    for name in names(&proc_path(file.as_fd())) {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let child = rustix::fs::openat(file, &name, flags, Mode::empty()).unwrap();
        let path = [&path, &b"/"[..], name.as_os_str().as_bytes()].concat();
        visit(&File::from(child), path, nodes, inodes);
    }
}

/// Names of a directory, sorted.
pub fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_vec()).collect();
    names.sort();
    names.into_iter().map(|name| PathBuf::from(std::ffi::OsString::from_vec(name))).collect()
}

fn extents(file: &File) -> Vec<(u64, u64)> {
    let (mut extents, mut at) = (Vec::new(), 0);
    while let Ok(start) = rustix::fs::seek(file, SeekFrom::Data(at)) {
        // With blocks smaller than a page the hole may begin where the data does.
        at = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap().max(start + 1);
        extents.push((start, at));
    }
    extents
}
