//! What a file system and a kernel can do, found without writing.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use serde::Serialize;

use crate::sys::FileHandle;

/// `FS_CASEFOLD_FL` of `include/uapi/linux/fs.h`.
const CASEFOLD: u32 = 0x4000_0000;

/// What matters about the file system of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FsFacts {
    /// As `statfs(2)` tells it by its magic number; the number itself where it is not known.
    pub fs_type: String,
    /// `name_to_handle_at(2)` works: objects keep their identity across renames and restarts.
    pub handles: bool,
    pub user_xattrs: bool,
    /// Also needs `CAP_SYS_ADMIN`.
    pub trusted_xattrs: bool,
    pub acls: bool,
    pub read_only: bool,
    /// Damage that it has met since it was last checked; 0 where it does not count (other than ext4).
    pub errors: u64,
    /// Names that differ only in case are one name here.
    pub case_insensitive: bool,
    /// Files can share their blocks (`FICLONE`); for clones on this file system.
    pub reflinks: bool,
    pub total_bytes: u64,
    /// For an unprivileged user.
    pub free_bytes: u64,
    /// 0 where the file system makes inodes as they are needed.
    pub free_inodes: u64,
}

impl FsFacts {
    /// Facts about the file system of an existing directory.
    pub fn of(dir: &Path) -> io::Result<FsFacts> {
        let file = File::open(dir)?;
        let magic = rustix::fs::fstatfs(&file)?.f_type as u32;
        let vfs = rustix::fs::fstatvfs(&file)?;
        let fs_type = name_of(magic);
        let folds = rustix::fs::ioctl_getflags(&file).is_ok_and(|flags| flags.bits() & CASEFOLD != 0);
        Ok(FsFacts {
            handles: FileHandle::of(file.as_fd()).is_ok(),
            user_xattrs: holds_xattr(&file, c"user.standin.probe"),
            trusted_xattrs: holds_xattr(&file, c"trusted.standin.probe"),
            acls: holds_xattr(&file, c"system.posix_acl_access"),
            read_only: vfs.f_flag.contains(StatVfsMountFlags::RDONLY),
            errors: errors_of(file.metadata()?.dev()),
            case_insensitive: folds || matches!(fs_type.as_str(), "vfat" | "exfat" | "ntfs3"),
            reflinks: matches!(fs_type.as_str(), "btrfs" | "xfs" | "bcachefs"),
            total_bytes: vfs.f_blocks.saturating_mul(vfs.f_frsize),
            free_bytes: vfs.f_bavail.saturating_mul(vfs.f_frsize),
            free_inodes: vfs.f_favail,
            fs_type,
        })
    }
}

/// `/sys/fs/ext4/DEVICE/errors_count` of `Documentation/ABI/testing/sysfs-fs-ext4`.
fn errors_of(device: u64) -> u64 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let count = fs::read_link(format!("/sys/dev/block/{major}:{minor}"))
        .ok()
        .and_then(|link| {
            link.file_name().map(|name| Path::new("/sys/fs/ext4").join(name).join("errors_count"))
        })
        .and_then(|path| fs::read_to_string(path).ok());
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// Reading an attribute that is not there tells "none" from "no such thing here".
fn holds_xattr(file: &File, name: &std::ffi::CStr) -> bool {
    let mut value = [0u8; 4096];
    matches!(rustix::fs::fgetxattr(file, name, &mut value), Ok(_) | Err(Errno::NODATA | Errno::RANGE))
}

/// Magic numbers of `statfs(2)` and `include/uapi/linux/magic.h`.
fn name_of(magic: u32) -> String {
    let name = match magic {
        0xef53 => "ext2/3/4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlayfs",
        0x2fc1_2fc1 => "zfs",
        0xca45_1a4e => "bcachefs",
        0xf2f5_2010 => "f2fs",
        0x6969 => "nfs",
        0xff53_4d42 | 0xfe53_4d42 => "cifs",
        0x00c3_6400 => "ceph",
        0x6573_5546 => "fuse",
        0x4d44 => "vfat",
        0x2011_bab0 => "exfat",
        0x7366_746e => "ntfs3",
        0x5265_4973 => "reiserfs",
        0x3153_464a => "jfs",
        0x0102_1997 => "9p",
        _ => return format!("unknown ({magic:#x})"),
    };
    name.into()
}

/// The closest directory of a path that exists, the path itself included.
pub fn existing_ancestor(path: &Path) -> PathBuf {
    path.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// Kernel release as `(major, minor)`, and its full text.
pub fn kernel_version() -> (u32, u32, String) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), release)
}

/// Whether `/dev/fuse` can be opened for reading and writing.
pub fn open_dev_fuse() -> io::Result<()> {
    let file = File::options().read(true).write(true).open("/dev/fuse")?;
    // Device 10:229 of Documentation/admin-guide/devices.txt.
    match file.metadata()?.rdev() {
        device if device == rustix::fs::makedev(10, 229) => Ok(()),
        _ => Err(io::Error::other("it is not the FUSE device")),
    }
}
