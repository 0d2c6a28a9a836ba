//! New objects: exactly as the source has them, with nothing inherited on the target.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::fault::Fault;
use super::inode;
use super::replica::{Access, Came, Replica, flags_among, open_beneath};
use crate::clone::guard;
use crate::packet::{Attributes, Birth, Name, ObjectId, Xattr};
use crate::sys;
use crate::xattr::Flags;

/// A new object of the replica: what it is, and all it has but times and content.
#[derive(Clone, Copy, Debug)]
pub struct NewObject<'a> {
    pub object: ObjectId,
    pub birth: &'a Birth,
    pub attributes: &'a Attributes,
    pub xattrs: &'a [Xattr],
}

/// What to do where the name is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameTaken {
    Fail,
    /// This very creation may have been begun before: take over what looks like it.
    Adopt,
}

impl Replica {
    /// Makes an object under a name and binds its id. Its mtime is pending afterwards.
    ///
    /// Errors: [`Fault::Mismatch`] where the name is taken (`Adopt`: by something that this
    /// creation cannot have left there); the system's. After an error `Adopt` completes it.
    pub fn create(
        &mut self,
        dir: &File,
        name: &Name,
        new: NewObject<'_>,
        taken: NameTaken,
    ) -> Result<Arc<File>, Fault> {
        let policy = self.policy();
        let attributes = policy.attributes(new.birth, new.attributes);
        let (xattrs, birth) = (policy.xattrs(new.xattrs), policy.birth(new.birth));
        let (file, access) = match make(dir.as_fd(), name, birth, attributes.mode) {
            Ok(made) => made,
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) && taken == NameTaken::Adopt => {
                (self.adoptable(dir, name, birth)?, Access::Path)
            }
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                return Err(Fault::Mismatch(format!(
                    "{name:?} is already there, it was not made by the source"
                )));
            }
            Err(error) => return Err(Fault::System { what: "create", error }),
        };
        let file = Arc::new(file);
        self.policy().mark_placeholder(new.birth, &*file);
        let complete = inode::make_attributes(&*file, &attributes, &xattrs);
        // Bound also where an attribute cannot be set: what it lacks then is that alone.
        self.bind(new.object, &*file)?;
        self.keep(new.object, access, Came::New, file.clone());
        self.set_mtime_later(new.object, new.attributes.mtime)?;
        // Some file systems hand down what the directory has here, and may not have on the source any more.
        let (flags, held) =
            (flags_among(&xattrs), Flags::of(&*file).map_err(Fault::system("look at flags"))?);
        if flags != held {
            self.set_flags_later(new.object, flags)?;
        }
        complete.map(|()| file)
    }

    /// Only what a creation leaves behind when it is cut off: right kind, no content, one name.
    fn adoptable(&self, dir: &File, name: &Name, birth: &Birth) -> Result<File, Fault> {
        let file = self.open_name(dir, name)?;
        let stat = inode::stat(&file)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let fits = match birth {
            Birth::File => kind == FileType::RegularFile && stat.st_size == 0 && stat.st_nlink == 1,
            Birth::Directory => kind == FileType::Directory && is_empty(dir.as_fd(), name)?,
            Birth::Symlink { target } => {
                kind == FileType::Symlink
                    && rustix::fs::readlinkat(&file, c"", Vec::new())
                        .is_ok_and(|found| found.as_bytes() == target.0)
            }
            Birth::Fifo => kind == FileType::Fifo,
            Birth::Socket => kind == FileType::Socket,
            Birth::CharDevice { major, minor } => {
                kind == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(*major, *minor)
            }
            Birth::BlockDevice { major, minor } => {
                kind == FileType::BlockDevice && stat.st_rdev == rustix::fs::makedev(*major, *minor)
            }
        };
        if fits {
            Ok(file)
        } else {
            Err(Fault::Mismatch(format!("{name:?} is already there, it was not made by the source")))
        }
    }
}

/// Makes the object; a file comes back open for writing, everything else as `O_PATH`.
pub(super) fn make(dir: BorrowedFd<'_>, name: &Name, birth: &Birth, mode: u32) -> io::Result<(File, Access)> {
    guard::name(dir, name.as_bytes());
    let made = make_as(dir, name, birth, mode)?;
    guard::born(&made.0);
    Ok(made)
}

fn make_as(dir: BorrowedFd<'_>, name: &Name, birth: &Birth, mode: u32) -> io::Result<(File, Access)> {
    sys::set_own_umask(0)?;
    // Nobody but root until owner and ACLs are right.
    let private = Mode::from_raw_mode(mode & 0o700);
    match birth {
        Birth::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
            let fd = open_beneath(dir, name, flags, private)?;
            return Ok((File::from(fd), Access::Write));
        }
        Birth::Directory => rustix::fs::mkdirat(dir, name.as_bytes(), private)?,
        Birth::Symlink { target } => rustix::fs::symlinkat(target.0.as_slice(), dir, name.as_bytes())?,
        Birth::Fifo => mknod(dir, name, FileType::Fifo, private, 0)?,
        Birth::Socket => mknod(dir, name, FileType::Socket, private, 0)?,
        Birth::CharDevice { major, minor } => {
            mknod(dir, name, FileType::CharacterDevice, private, rustix::fs::makedev(*major, *minor))?;
        }
        Birth::BlockDevice { major, minor } => {
            mknod(dir, name, FileType::BlockDevice, private, rustix::fs::makedev(*major, *minor))?;
        }
    }
    let fd = open_beneath(dir, name, OFlags::PATH, Mode::empty())?;
    Ok((File::from(fd), Access::Path))
}

fn mknod(
    dir: BorrowedFd<'_>,
    name: &Name,
    kind: FileType,
    mode: Mode,
    device: rustix::fs::Dev,
) -> rustix::io::Result<()> {
    rustix::fs::mknodat(dir, name.as_bytes(), kind, mode, device)
}

fn is_empty(dir: BorrowedFd<'_>, name: &Name) -> Result<bool, Fault> {
    let list = |error: Errno| Fault::System { what: "list a directory", error: error.into() };
    let fd = open_beneath(dir, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).map_err(list)?;
    for entry in rustix::fs::Dir::read_from(fd).map_err(list)? {
        if !matches!(entry.map_err(list)?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}
