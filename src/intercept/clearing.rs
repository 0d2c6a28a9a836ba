//! Setuid and setgid: the daemon acts as root, so the kernel does not clear them for it.

use std::os::fd::AsFd;

use rustix::fs::{Mode, Stat};

use super::error::{FsResult, Step};
use super::volume::{Caller, file_type, permissions};

/// Mode of a new object. In a setgid directory a caller who is not of its group gets no setgid
/// executable (`mode_strip_sgid` of the kernel, which does it itself from 6.0 on).
pub fn birth_mode(caller: Caller, dir: impl AsFd, mode: u32, kind: u32) -> FsResult<u32> {
    let asked = mode & 0o7777;
    const SETGID_EXECUTABLE: u32 = libc::S_ISGID | libc::S_IXGRP;
    if kind == libc::S_IFDIR || caller.uid == 0 || asked & SETGID_EXECUTABLE != SETGID_EXECUTABLE {
        return Ok(asked);
    }
    let parent = rustix::fs::fstat(dir).step("stat a directory")?;
    if permissions(&parent) & libc::S_ISGID == 0 || in_group(caller, parent.st_gid) {
        return Ok(asked);
    }
    Ok(asked & !libc::S_ISGID)
}

/// Mode after a change of content by an unprivileged caller: no setuid, and no setgid on what
/// its group can execute or where the caller is not of the group (`setattr_should_drop_sgid` of
/// the kernel). `None` where nothing is to be cleared.
pub fn mode_after_write(caller: Caller, stat: &Stat) -> Option<u32> {
    if file_type(stat) != libc::S_IFREG {
        return None;
    }
    let mode = permissions(stat);
    let mut cleared = mode & !libc::S_ISUID;
    if mode & libc::S_ISGID != 0 && (mode & libc::S_IXGRP != 0 || !in_group(caller, stat.st_gid)) {
        cleared &= !libc::S_ISGID;
    }
    (cleared != mode).then_some(cleared)
}

/// Mode after an access ACL was set: a caller outside the file's group loses setgid
/// (`posix_acl_update_mode` of the kernel). `None` where nothing is to be cleared.
pub fn mode_after_acl(caller: Caller, stat: &Stat) -> Option<u32> {
    let mode = permissions(stat);
    if mode & libc::S_ISGID == 0 || caller.uid == 0 || in_group(caller, stat.st_gid) {
        return None;
    }
    Some(mode & !libc::S_ISGID)
}

/// Sets the permission bits of an object.
pub fn set_mode(fd: impl AsFd, mode: u32) -> FsResult<()> {
    rustix::fs::chmod(crate::sys::proc_path(fd.as_fd()), Mode::from_raw_mode(mode)).step("change mode")
}

/// Whether the caller is of this group. Supplementary groups are not in a request of the
/// kernel: they come from `/proc`. A caller that is gone counts as outside.
fn in_group(caller: Caller, gid: u32) -> bool {
    if caller.gid == gid {
        return true;
    }
    let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", caller.pid)) else { return false };
    let Some(groups) = status.lines().find_map(|line| line.strip_prefix("Groups:")) else { return false };
    groups.split_whitespace().any(|group| group.parse() == Ok(gid))
}
