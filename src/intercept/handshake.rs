//! How a session of `fuser` comes to serve a connection that was begun before it: it insists on the kernel's first
//! request, and gets it by hand.
//!
//! ```text
//!  kernel ──INIT──> here ──INIT──> session (one end of a pair of sockets)
//!  kernel <─answer─ here <─answer─ session        with a connection of before: the answer goes nowhere
//!                   the session's end becomes the connection (dup3)
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fuser::{Config, Session, SessionACL};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::fuse::Adapter;
use crate::sys::replace_descriptor;

/// The kernel gives nothing to a buffer that could not take a write.
const BUFFER_LEN: usize = 256 << 10;

/// `FUSE_INIT_EXT` and `FUSE_HAS_RESEND` of `linux/fuse.h`.
const INIT_EXT: u32 = 1 << 30;
const HAS_RESEND_2: u32 = 1 << (39 - 32);

/// The kernel's first request of a connection.
pub fn read_init(device: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        match rustix::io::read(device, &mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whether the kernel asks again what a daemon that is gone has not answered (Linux 6.9).
pub fn asks_again(init: &[u8]) -> bool {
    // struct fuse_in_header is 40 bytes; major, minor, max_readahead, flags, flags2 follow.
    let word = |at: usize| {
        let bytes: Option<&[u8; 4]> = init.get(40 + 4 * at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    word(3) & INIT_EXT != 0 && word(4) & HAS_RESEND_2 != 0
}

/// Who has answered the kernel's first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nobody yet.
    Now,
    /// A daemon that is gone.
    Before,
}

/// A session on the connection, which was begun with `init`.
pub fn session(
    adapter: Adapter,
    device: BorrowedFd<'_>,
    init: &[u8],
    begun: Begun,
    config: Config,
) -> io::Result<Session<Adapter>> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::write(&ours, init)?;
    let session = Session::from_fd(adapter, theirs, SessionACL::All, config);
    let mut answer = [0; 4096];
    let answered = rustix::io::read(&ours, &mut answer);
    if begun == Begun::Now
        && let Ok(len @ 1..) = answered
    {
        rustix::io::write(device, &answer[..len])?;
    }
    let session = session?;
    answered?;
    replace_descriptor(session.as_fd(), device)?;
    Ok(session)
}

/// Has the kernel ask again what a daemon that is gone has not answered.
pub fn ask_again(device: BorrowedFd<'_>) -> io::Result<()> {
    const RESEND: i32 = 7;
    let mut message = [0; 16];
    message[..4].copy_from_slice(&16u32.to_le_bytes());
    message[4..8].copy_from_slice(&RESEND.to_le_bytes());
    match rustix::io::write(device, &message)? {
        16 => Ok(()),
        len => Err(io::Error::other(format!("the kernel took {len} bytes of 16"))),
    }
}
