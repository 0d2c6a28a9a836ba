//! Mounting: `mount(2)` itself, so that the mount's type says whose it is (`fuse.standin`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};

/// The file-system type that mounts of this product have.
pub const FS_TYPE: &str = "fuse.standin";

/// Mounts over a directory; `name` is shown as the source. Answers the connection to the kernel.
///
/// The kernel checks permissions (`default_permissions`) for all users (`allow_other`); setuid
/// programs and device nodes work as on the backing directory.
pub fn mount(mount_point: &Path, name: &str) -> io::Result<OwnedFd> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let mode = std::fs::metadata(mount_point)?.permissions().mode();
    let options = format!(
        "fd={},rootmode={mode:o},user_id=0,group_id=0,default_permissions,allow_other",
        device.as_raw_fd()
    );
    let options = std::ffi::CString::new(options)?;
    rustix::mount::mount(name, mount_point, FS_TYPE, MountFlags::empty(), Some(options.as_c_str()))?;
    Ok(device)
}

/// Unmounts what nothing uses; `EBUSY` otherwise.
pub fn unmount(mount_point: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(mount_point, UnmountFlags::NOFOLLOW)?)
}

/// Takes the mount out of the tree: open files go on working until the daemon ends.
pub fn detach(mount_point: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(mount_point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?)
}
