//! File handles: names for inodes that survive descriptors, renames and restarts.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Longest handle that is kept, in bytes: ext4 has 8, XFS 12, btrfs 20 (40 with a parent), tmpfs 12.
const HANDLE_LEN_MAX: usize = 40;

/// A file handle of `name_to_handle_at(2)`: type and bytes. Valid on the file system it came from.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileHandle {
    kind: i32,
    len: u8,
    bytes: [u8; HANDLE_LEN_MAX],
}

/// The kernel's `struct file_handle` with room for its bytes.
#[repr(C)]
struct RawHandle {
    len: u32,
    kind: i32,
    bytes: [u8; HANDLE_LEN_MAX],
}

impl FileHandle {
    /// Handle of the object behind a descriptor (`O_PATH` is enough).
    ///
    /// Errors: `EOPNOTSUPP` where the file system has no handles (overlayfs), `EOVERFLOW` where
    /// its handles are longer than 40 bytes.
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<FileHandle> {
        Self::call(fd, c"", libc::AT_EMPTY_PATH)
    }

    /// Handle of a directory's entry; a symlink is not followed. Errors as [`FileHandle::of`],
    /// and `ENOENT`.
    pub fn at(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<FileHandle> {
        Self::call(dir, name, 0)
    }

    fn call(dir: BorrowedFd<'_>, name: &std::ffi::CStr, flags: i32) -> io::Result<FileHandle> {
        let mut raw = RawHandle { len: HANDLE_LEN_MAX as u32, kind: 0, bytes: [0; HANDLE_LEN_MAX] };
        let mut mount_id = 0;
        // SAFETY: `raw` has the layout of struct file_handle with `len` bytes of room behind it;
        // `name` is NUL-terminated; the kernel writes nothing beyond them and `mount_id`.
        let result = unsafe {
            libc::name_to_handle_at(
                dir.as_raw_fd(),
                name.as_ptr(),
                (&raw mut raw).cast(),
                &raw mut mount_id,
                flags,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(FileHandle { kind: raw.kind, len: raw.len as u8, bytes: raw.bytes })
    }

    /// The handle's bytes as the file system gave them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    /// The type number that the file system gave.
    pub fn kind(&self) -> i32 {
        self.kind
    }

    /// A handle from what [`FileHandle::kind`] and [`FileHandle::as_bytes`] gave; `None` if too long.
    pub fn from_parts(kind: i32, bytes: &[u8]) -> Option<FileHandle> {
        let mut handle =
            FileHandle { kind, len: u8::try_from(bytes.len()).ok()?, bytes: [0; HANDLE_LEN_MAX] };
        handle.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(handle)
    }

    /// The handle of another object of the file system that this one is of; `None` where its layout is
    /// not known ([`FileHandle::generation`]). It opens that object, or nothing.
    pub fn alike(&self, inode: u64, generation: u32) -> Option<FileHandle> {
        let (inode, generation) = (inode.to_le_bytes(), generation.to_le_bytes());
        let mut other = *self;
        match (self.kind, self.len) {
            (1, 8) if inode[4..] == [0; 4] => {
                other.bytes[..4].copy_from_slice(&inode[..4]);
                other.bytes[4..8].copy_from_slice(&generation);
            }
            // The eight bytes between are the subvolume.
            (0x4d, 20) => {
                other.bytes[..8].copy_from_slice(&inode);
                other.bytes[16..20].copy_from_slice(&generation);
            }
            (0x81, 12) => {
                other.bytes[..8].copy_from_slice(&inode);
                other.bytes[8..12].copy_from_slice(&generation);
            }
            (1, 12) => {
                other.bytes[..4].copy_from_slice(&generation);
                other.bytes[4..12].copy_from_slice(&inode);
            }
            _ => return None,
        }
        Some(other)
    }

    /// The inode number, where the handle's layout is known (as in [`FileHandle::generation`]) to hold it.
    pub fn inode(&self) -> Option<u64> {
        let bytes = self.as_bytes();
        match (self.kind, self.len) {
            (1, 8) => bytes.first_chunk().map(|four| u64::from(u32::from_le_bytes(*four))),
            (0x81, 12) | (0x4d, 20) => bytes.first_chunk().map(|eight| u64::from_le_bytes(*eight)),
            (1, 12) => bytes.last_chunk().map(|eight| u64::from_le_bytes(*eight)),
            _ => None,
        }
    }

    /// Generation of the inode number, from the handle's layout where it is known
    /// (`include/linux/exportfs.h`: FILEID_INO32_GEN = 1, XFS 64-bit = 0x81, btrfs = 0x4d,
    /// tmpfs puts the generation first), else a hash of the handle.
    pub fn generation(&self) -> u32 {
        let u32_at = |at: usize| {
            self.as_bytes().get(at..at + 4).map(|four| u32::from_le_bytes(four.try_into().expect("4 bytes")))
        };
        let known = match (self.kind, self.len) {
            (1, 8) => u32_at(4),
            (0x81, 12) => u32_at(8),
            (0x4d, 20) => u32_at(16),
            (1, 12) => u32_at(0),
            _ => None,
        };
        known.unwrap_or_else(|| xxhash_rust::xxh3::xxh3_64(self.as_bytes()) as u32)
    }
}

impl fmt::Debug for FileHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileHandle({}:", self.kind)?;
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ")")
    }
}

/// Opens the object of a handle. `mount` is any descriptor on its file system that is not
/// `O_PATH`; `flags` are open flags (`libc::O_*`); `O_CLOEXEC` is added.
///
/// Errors: `ESTALE` when the object is gone. Needs `CAP_DAC_READ_SEARCH`.
pub fn open_by_handle(mount: BorrowedFd<'_>, handle: &FileHandle, flags: i32) -> io::Result<OwnedFd> {
    let mut tried = 0;
    loop {
        match open_by_handle_once(mount, handle, flags) {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && tried < BEING_MADE_TRIES => {
                tried += 1;
                std::thread::sleep(BEING_MADE_PAUSE);
            }
            done => return done,
        }
    }
}

/// While the number of an inode that is gone is being given to a new one, `iget_locked` (`fs/inode.c`) finds
/// nothing, and ext4 takes that for a want of memory. A moment later the handle is stale.
const BEING_MADE_TRIES: u32 = 20;
const BEING_MADE_PAUSE: Duration = Duration::from_millis(1);

fn open_by_handle_once(mount: BorrowedFd<'_>, handle: &FileHandle, flags: i32) -> io::Result<OwnedFd> {
    let mut raw = RawHandle { len: handle.len as u32, kind: handle.kind, bytes: handle.bytes };
    // SAFETY: `raw` has the layout of struct file_handle with `len` valid bytes.
    let fd =
        unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut raw).cast(), flags | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// Inode numbers are used again at once where one is asked for that is gone.
    #[test]
    fn a_handle_whose_inode_is_being_made_anew_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let (path, rounds) = (dir.path().join("a"), 20_000);
        std::fs::write(&path, "").unwrap();
        let handle = FileHandle::at(root.as_fd(), c"a").unwrap();
        std::thread::scope(|scope| {
            let maker = scope.spawn(|| {
                for _ in 0..rounds {
                    std::fs::remove_file(&path).unwrap();
                    std::fs::write(&path, "").unwrap();
                }
            });
            while !maker.is_finished() {
                if let Err(error) = open_by_handle(root.as_fd(), &handle, libc::O_PATH) {
                    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
                }
            }
        });
    }

    #[test]
    fn a_handle_finds_its_object_after_a_rename() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "content").unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let handle = FileHandle::at(root.as_fd(), c"a").unwrap();
        std::fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        let fd = open_by_handle(root.as_fd(), &handle, libc::O_RDONLY).unwrap();
        assert_eq!(std::io::read_to_string(std::fs::File::from(fd)).unwrap(), "content");
        assert_eq!(FileHandle::at(root.as_fd(), c"b").unwrap(), handle);
        assert_eq!(FileHandle::from_parts(handle.kind(), handle.as_bytes()), Some(handle));
        let inode = std::os::unix::fs::MetadataExt::ino(&dir.path().join("b").metadata().unwrap());
        assert!(handle.inode().is_none_or(|found| found == inode), "{handle:?} is not {inode}");
    }

    #[test]
    fn a_handle_is_made_of_an_inode_and_its_generation() {
        for dir in [tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap()] {
            let root = std::fs::File::open(dir.path()).unwrap();
            std::fs::create_dir(dir.path().join("a")).unwrap();
            let (of_root, handle) =
                (FileHandle::of(root.as_fd()).unwrap(), FileHandle::at(root.as_fd(), c"a").unwrap());
            let Some(inode) = handle.inode() else { continue };
            assert_eq!(of_root.alike(inode, handle.generation()), Some(handle));
            let other = of_root.alike(inode, handle.generation() ^ 1).unwrap();
            assert!(open_by_handle(root.as_fd(), &other, libc::O_PATH).is_err());
        }
    }

    #[test]
    fn a_reused_inode_number_is_another_object() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("a"), "").unwrap();
        let old = FileHandle::at(root.as_fd(), c"a").unwrap();
        std::fs::remove_file(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a"), "").unwrap();
        assert_ne!(FileHandle::at(root.as_fd(), c"a").unwrap(), old);
        let error = open_by_handle(root.as_fd(), &old, libc::O_PATH).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    }
}
