//! Changes of a plain directory, and the ops that a source would have captured of them.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags};

use super::Said;
use super::tree::o_path;
use crate::apply::inode;
use crate::packet::*;
use crate::sys::FileHandle;
use crate::xattr::{FLAGS, Flags};

pub struct Source {
    pub root: PathBuf,
}

impl Source {
    pub fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    pub fn id(&self, path: &str) -> ObjectId {
        let file = o_path(&self.path(path));
        ObjectId::at_first_sight(1, &FileHandle::of(file.as_fd()).unwrap(), file.metadata().unwrap().ino())
    }

    pub fn mtime(&self, path: &str) -> Timestamp {
        inode::mtime(&inode::stat(o_path(&self.path(path))).unwrap())
    }

    fn entry(&self, path: &str) -> (Entry, Timestamp) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let name = Name::new(name.as_bytes()).unwrap();
        (Entry { dir: self.id(dir), name }, self.mtime(dir))
    }

    fn attributes(&self, path: &str) -> Attributes {
        let stat = inode::stat(o_path(&self.path(path))).unwrap();
        let (uid, gid) = (stat.st_uid, stat.st_gid);
        Attributes { mode: stat.st_mode & 0o7777, uid, gid, mtime: inode::mtime(&stat) }
    }

    fn xattrs(&self, path: &str) -> Vec<Xattr> {
        let file = o_path(&self.path(path));
        let names = inode::list_xattrs(&file).unwrap();
        names
            .into_iter()
            .map(|name| {
                let value = inode::get_xattr(&file, &name.0).unwrap().unwrap();
                Xattr { name, value: Bounded(value) }
            })
            .collect()
    }

    fn links(&self, path: &str) -> u32 {
        fs::symlink_metadata(self.path(path)).unwrap().nlink() as u32
    }

    /// What is there now was just made.
    pub fn created(&self, path: &str, birth: Birth) -> Said {
        let (at, dir_mtime) = self.entry(path);
        let (object, attributes, xattrs) = (self.id(path), self.attributes(path), self.xattrs(path));
        (Op::Create { at, dir_mtime, object, birth, attributes, xattrs }, Vec::new())
    }

    pub fn create(&self, path: &str, mode: u32) -> Said {
        File::create_new(self.path(path)).unwrap();
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
        self.created(path, Birth::File)
    }

    pub fn mkdir(&self, path: &str, mode: u32) -> Said {
        fs::create_dir(self.path(path)).unwrap();
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
        self.created(path, Birth::Directory)
    }

    pub fn symlink(&self, path: &str, target: &str) -> Said {
        std::os::unix::fs::symlink(target, self.path(path)).unwrap();
        self.created(path, Birth::Symlink { target: Bounded(target.into()) })
    }

    pub fn mknod(&self, path: &str, birth: Birth) -> Said {
        let (kind, device) = match birth {
            Birth::Fifo => (FileType::Fifo, 0),
            Birth::Socket => (FileType::Socket, 0),
            Birth::CharDevice { major, minor } => {
                (FileType::CharacterDevice, rustix::fs::makedev(major, minor))
            }
            Birth::BlockDevice { major, minor } => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
            Birth::File | Birth::Directory | Birth::Symlink { .. } => unreachable!(),
        };
        rustix::fs::mknodat(CWD, self.path(path), kind, Mode::from_raw_mode(0o640), device).unwrap();
        self.created(path, birth)
    }

    pub fn link(&self, old: &str, new: &str) -> Said {
        fs::hard_link(self.path(old), self.path(new)).unwrap();
        let (at, dir_mtime) = self.entry(new);
        (Op::Link { object: self.id(new), at, dir_mtime, links: self.links(new) }, Vec::new())
    }

    pub fn unlink(&self, path: &str) -> Said {
        let (object, links) = (self.id(path), self.links(path) - 1);
        fs::remove_file(self.path(path)).unwrap();
        let (at, dir_mtime) = self.entry(path);
        (Op::Unlink { at, dir_mtime, object, links }, Vec::new())
    }

    pub fn rmdir(&self, path: &str) -> Said {
        let object = self.id(path);
        fs::remove_dir(self.path(path)).unwrap();
        let (at, dir_mtime) = self.entry(path);
        (Op::RemoveDirectory { at, dir_mtime, object }, Vec::new())
    }

    pub fn rename(&self, from: &str, to: &str) -> Said {
        self.rename_with(from, to, RenameFlags::empty())
    }

    pub fn rename_with(&self, from: &str, to: &str, flags: RenameFlags) -> Said {
        let object = self.id(from);
        let replaced = fs::symlink_metadata(self.path(to)).ok().map(|meta| {
            let links = if meta.is_dir() { 0 } else { meta.nlink() as u32 - 1 };
            Replaced { object: self.id(to), links }
        });
        rustix::fs::renameat_with(CWD, self.path(from), CWD, self.path(to), flags).unwrap();
        let whiteout = flags
            .contains(RenameFlags::WHITEOUT)
            .then(|| Whiteout { object: self.id(from), attributes: self.attributes(from) });
        let moved = to;
        let ((from, from_mtime), (to, to_mtime)) = (self.entry(from), self.entry(to));
        let object_mtime = self.mtime_of_directory(moved);
        let op = Op::Rename { from, from_mtime, to, to_mtime, object, object_mtime, replaced, whiteout };
        (op, Vec::new())
    }

    pub fn exchange(&self, left: &str, right: &str) -> Said {
        let (left_object, right_object) = (self.id(left), self.id(right));
        rustix::fs::renameat_with(CWD, self.path(left), CWD, self.path(right), RenameFlags::EXCHANGE)
            .unwrap();
        let (left_object_mtime, right_object_mtime) =
            (self.mtime_of_directory(right), self.mtime_of_directory(left));
        let ((left, left_mtime), (right, right_mtime)) = (self.entry(left), self.entry(right));
        let op = Op::Exchange {
            left,
            left_mtime,
            left_object,
            left_object_mtime,
            right,
            right_mtime,
            right_object,
            right_object_mtime,
        };
        (op, Vec::new())
    }

    fn mtime_of_directory(&self, path: &str) -> Option<Timestamp> {
        self.path(path).symlink_metadata().unwrap().is_dir().then(|| self.mtime(path))
    }

    fn result(&self, path: &str) -> ContentResult {
        ContentResult {
            size: fs::metadata(self.path(path)).unwrap().len(),
            mtime: self.mtime(path),
            mode: None,
        }
    }

    fn open(&self, path: &str) -> File {
        OpenOptions::new().write(true).open(self.path(path)).unwrap()
    }

    pub fn write(&self, path: &str, offset: u64, bytes: &[u8]) -> Said {
        self.open(path).write_all_at(bytes, offset).unwrap();
        (Op::Write { object: self.id(path), offset, result: self.result(path) }, bytes.to_vec())
    }

    pub fn resize(&self, path: &str, size: u64) -> Said {
        self.open(path).set_len(size).unwrap();
        (Op::Resize { object: self.id(path), result: self.result(path) }, Vec::new())
    }

    pub fn reserve(&self, path: &str, offset: u64, length: u64, how: Reserve) -> Said {
        let flags = match how {
            Reserve::Allocate => FallocateFlags::empty(),
            Reserve::AllocateKeepSize => FallocateFlags::KEEP_SIZE,
            Reserve::PunchHole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            Reserve::ZeroRange => FallocateFlags::ZERO_RANGE,
            Reserve::ZeroRangeKeepSize => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        };
        rustix::fs::fallocate(self.open(path), flags, offset, length).unwrap();
        let (object, result) = (self.id(path), self.result(path));
        (Op::Reserve { object, offset, length, how, result }, Vec::new())
    }

    pub fn chmod(&self, path: &str, mode: u32) -> Said {
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
        let object = self.id(path);
        (Op::SetAttributes { object, mode: Some(mode), owner: None, mtime: None }, Vec::new())
    }

    pub fn chown(&self, path: &str, uid: u32, gid: u32) -> Said {
        std::os::unix::fs::lchown(self.path(path), Some(uid), Some(gid)).unwrap();
        let (object, attributes) = (self.id(path), self.attributes(path));
        let owner = Some(Owner { uid, gid });
        (Op::SetAttributes { object, mode: Some(attributes.mode), owner, mtime: None }, Vec::new())
    }

    pub fn utimes(&self, path: &str, mtime: Timestamp) -> Said {
        inode::set_mtime(o_path(&self.path(path)), mtime).unwrap();
        let object = self.id(path);
        (Op::SetAttributes { object, mode: None, owner: None, mtime: Some(mtime) }, Vec::new())
    }

    pub fn set_xattr(&self, path: &str, name: &str, value: &[u8]) -> Said {
        let name = Bounded(name.into());
        inode::set_xattr(o_path(&self.path(path)), &name, value).unwrap();
        (Op::SetXattr { object: self.id(path), name, mode: self.mode(path) }, value.to_vec())
    }

    pub fn remove_xattr(&self, path: &str, name: &str) -> Said {
        let name = Bounded(name.into());
        inode::remove_xattr(o_path(&self.path(path)), &name).unwrap();
        (Op::RemoveXattr { object: self.id(path), name, mode: self.mode(path) }, Vec::new())
    }

    pub fn set_flags(&self, path: &str, flags: Flags) -> Said {
        flags.set(o_path(&self.path(path)).as_fd()).unwrap();
        let (object, name) = (self.id(path), Bounded(FLAGS.to_vec()));
        match flags.value() {
            Some(value) => (Op::SetXattr { object, name, mode: None }, value),
            None => (Op::RemoveXattr { object, name, mode: None }, Vec::new()),
        }
    }

    fn mode(&self, path: &str) -> Option<u32> {
        Some(self.attributes(path).mode)
    }
}

/// Removes a name by hand, whatever it is.
pub fn remove(path: &Path) {
    let flags = if path.is_dir() && !path.is_symlink() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    rustix::fs::unlinkat(CWD, path, flags).unwrap();
}
