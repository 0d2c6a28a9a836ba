//! Who is at the other end of a unix socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A caller's credentials as of its `connect(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// 0 where the caller's process cannot be seen from this PID namespace.
    pub pid: i32,
    pub uid: u32,
}

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
    Ok(Peer { pid: credentials.pid, uid: credentials.uid })
}
