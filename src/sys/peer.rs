//! Who is at the other end of a unix socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A caller's credentials as of its `connect(2)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// 0 where the caller's process cannot be seen from this PID namespace.
    pub pid: i32,
    pub uid: u32,
    /// Its own one and the supplementary ones.
    pub groups: Vec<u32>,
}

/// Groups that a process can be in: `NGROUPS_MAX`.
const GROUPS_MAX: usize = 65_536;

/// `SO_PEERCRED` of `unix(7)`. Not through rustix, whose type has no room for pid 0.
pub fn peer_of(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `credentials`, and `len` itself.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut groups = groups_of(socket)?;
    groups.push(credentials.gid);
    Ok(Peer { pid: credentials.pid, uid: credentials.uid, groups })
}

/// `SO_PEERGROUPS` (Linux 4.13): the supplementary groups.
fn groups_of(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let mut len = size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes, the size of `groups`, and `len` itself.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        let error = io::Error::last_os_error();
        match result {
            0 => {
                groups.truncate(len as usize / size_of::<u32>());
                return Ok(groups);
            }
            // It has said how many there are.
            _ if error.raw_os_error() == Some(libc::ERANGE) && groups.len() < GROUPS_MAX => {
                groups.resize((len as usize / size_of::<u32>()).clamp(groups.len() + 1, GROUPS_MAX), 0);
            }
            _ => return Err(error),
        }
    }
}
