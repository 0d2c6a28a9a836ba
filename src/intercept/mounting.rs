//! Mounting: `mount(2)` itself, so that the mount's type says whose it is (`fuse.standin`), and the
//! end of a connection to the kernel.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};

use crate::sys::{MountOptions, set_mount_options};

/// The file-system type that mounts of this product have.
pub const FS_TYPE: &str = "fuse.standin";

/// Number of a connection between a file system and its daemon: the minor number of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionNumber(u32);

impl ConnectionNumber {
    /// One that a daemon before has noted.
    pub fn new(number: u32) -> ConnectionNumber {
        ConnectionNumber(number)
    }

    pub fn number(self) -> u32 {
        self.0
    }

    /// As mount tables show it (`major:minor`).
    pub fn device(self) -> String {
        format!("0:{}", self.0)
    }
}

/// Mounts over a directory; `name` is shown as the source. Answers the connection to the kernel.
///
/// The kernel checks permissions (`default_permissions`) for all users (`allow_other`); setuid
/// programs, device nodes and everything else are allowed as far as the options do.
pub fn mount(mount_point: &Path, name: &str, options: MountOptions) -> io::Result<OwnedFd> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let mode = std::fs::metadata(mount_point)?.permissions().mode();
    let own = format!(
        "fd={},rootmode={mode:o},user_id=0,group_id=0,default_permissions,allow_other",
        device.as_raw_fd()
    );
    let own = std::ffi::CString::new(own)?;
    rustix::mount::mount(name, mount_point, FS_TYPE, options.flags(), Some(own.as_c_str()))?;
    let read_only = MountOptions::READ_ONLY;
    if options.only(read_only) == read_only
        && let Err(error) = set_mount_options(CWD, mount_point, read_only, options)
    {
        let _ = detach(mount_point);
        return Err(error);
    }
    Ok(device)
}

/// As [`mount`], of a place where something stands over the directory that is to be seen until the mount is there:
/// `lift` takes it away. Without [`MoveMountFlags::MOVE_MOUNT_BENEATH`] (Linux 6.5) nothing is there for a moment.
pub fn mount_beneath(
    mount_point: &Path,
    name: &str,
    options: MountOptions,
    lift: &dyn Fn() -> io::Result<()>,
) -> io::Result<OwnedFd> {
    match slip_beneath(mount_point, name, options) {
        Ok(device) => {
            lift()?;
            Ok(device)
        }
        Err(error) => {
            log::info!("nothing can be mounted beneath what covers {}: {error}", mount_point.display());
            lift()?;
            mount(mount_point, name, options)
        }
    }
}

fn slip_beneath(mount_point: &Path, name: &str, options: MountOptions) -> io::Result<OwnedFd> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let mode = std::fs::metadata(mount_point)?.permissions().mode();
    let (base, subtype) = FS_TYPE.split_once('.').ok_or(io::ErrorKind::InvalidInput)?;
    let context = rustix::mount::fsopen(base, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &str| rustix::mount::fsconfig_set_string(&context, key, value);
    set("source", name)?;
    set("subtype", subtype)?;
    set("fd", &device.as_raw_fd().to_string())?;
    set("rootmode", &format!("{mode:o}"))?;
    set("user_id", "0")?;
    set("group_id", "0")?;
    for flag in ["default_permissions", "allow_other"] {
        rustix::mount::fsconfig_set_flag(&context, flag)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, options.attributes())?;
    let how = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_BENEATH;
    rustix::mount::move_mount(&mount, "", CWD, mount_point, how)?;
    Ok(device)
}

/// The connection of the mount that is on top there. Asks no daemon.
pub fn connection_at(mount_point: &Path) -> io::Result<ConnectionNumber> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let status = rustix::fs::statx(CWD, mount_point, flags, StatxFlags::TYPE)?;
    match status.stx_dev_major {
        0 => Ok(ConnectionNumber(status.stx_dev_minor)),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Has the kernel read ahead of programs at least so far (`/sys/class/bdi/*/read_ahead_kb`).
pub fn read_ahead(connection: ConnectionNumber, kib: u64) -> io::Result<()> {
    let knob = format!("/sys/class/bdi/{}/read_ahead_kb", connection.device());
    let now = std::fs::read_to_string(&knob)?;
    match now.trim().parse() {
        Ok(now) if kib <= now => Ok(()),
        Ok::<u64, _>(_) | Err(_) => std::fs::write(&knob, kib.to_string()),
    }
}

/// The file that ends a connection when it is written to.
const ABORT: &str = "abort";

/// Reaches this very connection for as long as it is kept: the number of one that is over may be another one's
/// (`fs/fuse/control.c`: files of a connection that is over reach none).
pub struct Control {
    connection: ConnectionNumber,
    abort: OwnedFd,
}

impl Control {
    /// Of what is mounted there, on top.
    pub fn at(mount_point: &Path) -> io::Result<Control> {
        Control::of(connection_at(mount_point)?)
    }

    /// Of a connection that is mounted.
    pub fn of(connection: ConnectionNumber) -> io::Result<Control> {
        Ok(Control { connection, abort: open_control(connection, ABORT)? })
    }

    /// Whether somebody still has the mount: its number is that of this connection.
    pub fn is_connected(&self) -> bool {
        let inode = |file: &OwnedFd| rustix::fs::fstat(file).map(|status| (status.st_dev, status.st_ino));
        let of_number = open_control(self.connection, ABORT).and_then(|file| Ok(inode(&file)?));
        of_number.is_ok_and(|other| inode(&self.abort) == Ok(other))
    }

    /// Ends the connection for everybody: calls under way and later ones get an error, in every mount namespace
    /// (`Documentation/filesystems/fuse.rst`, "abort").
    pub fn abort(&self) -> io::Result<()> {
        rustix::io::write(&self.abort, b"1")?;
        Ok(())
    }
}

/// Requests of a connection that the kernel may have under way in the background.
pub fn set_background_max(connection: ConnectionNumber, requests: u16) -> io::Result<()> {
    control(connection, "max_background", &requests.to_string())
}

/// How much of what the kernel lets programs have unwritten may be of this mount, in percent. FUSE
/// begins with 1, where writers are slowed down long before the daemon is busy.
pub fn set_unwritten_share(connection: ConnectionNumber, percent: u8) -> io::Result<()> {
    std::fs::write(format!("/sys/class/bdi/{}/max_ratio", connection.device()), percent.to_string())
}

fn control(connection: ConnectionNumber, what: &str, value: &str) -> io::Result<()> {
    rustix::io::write(open_control(connection, what)?, value.as_bytes())?;
    Ok(())
}

/// A file that controls a connection, open for writing: whoever has it needs no privileges.
pub fn open_control(connection: ConnectionNumber, what: &str) -> io::Result<OwnedFd> {
    // A mount of our own, which no path leads to: /sys may be read-only, or hold none.
    let context = rustix::mount::fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let control = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&control, format!("{}/{what}", connection.0), flags, Mode::empty())?)
}

/// Unmounts what nothing uses; `EBUSY` otherwise.
pub fn unmount(mount_point: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(mount_point, UnmountFlags::NOFOLLOW)?)
}

/// Takes the mount out of the tree: open files go on working until the daemon ends.
pub fn detach(mount_point: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(mount_point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?)
}

/// Marks what nothing uses, and leaves it; `EBUSY` otherwise. A second one takes it away, unless somebody has looked at
/// it since (umount(2), `MNT_EXPIRE`).
pub fn mark_expired(mount_point: &Path) -> io::Result<()> {
    match rustix::mount::unmount(mount_point, UnmountFlags::NOFOLLOW | UnmountFlags::EXPIRE) {
        Ok(()) | Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
