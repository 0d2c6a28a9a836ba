//! How a session of `fuser` comes to serve a connection that was begun before it: it insists on the kernel's first
//! request, and gets it by hand; and how its threads come to have their memory before the first request.
//!
//! ```text
//!  kernel ──INIT──> here ──INIT──> session (one end of a pair of sockets)
//!  kernel <─answer─ here <─answer─ session        with a connection of before: the answer goes nowhere
//!                   one BMAP for each thread: its buffer is there from now on, and it waits
//!                   the session's end becomes the connection (dup3)
//! ```
//! A buffer that is not there would have to be made while the kernel copies a request into it. To a thread that was
//! killed at that moment the kernel makes nothing, and answers the request with an I/O error: a program would see it
//! although the next daemon could have done what it asked for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, Session, SessionACL};
use parking_lot::{Condvar, Mutex};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::fuse::Adapter;
use crate::limits::FUSE_WRITE_LEN_MAX;
use crate::sys::{DescriptorNumber, keep_in_memory};

/// The kernel gives nothing to a buffer that could not take a write.
const BUFFER_LEN: usize = 256 << 10;

/// What a request has before the bytes of a write, with room.
const REQUEST_HEAD_MAX: usize = 8 << 10;

/// How long threads may take to begin, on a machine that is busy.
const ARRIVAL_MAX: Duration = Duration::from_secs(20);

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
pub enum Answered {
    /// Nobody yet.
    Now,
    /// A daemon that is gone.
    Before,
}

/// A session that has begun, and the other end of what it reads from.
pub struct Prepared {
    pub session: Session<Adapter>,
    end: OwnedFd,
}

/// A session for the connection, which was begun with `init`.
pub fn session(
    adapter: Adapter,
    device: BorrowedFd<'_>,
    init: &[u8],
    answered_by: Answered,
    config: Config,
) -> io::Result<Prepared> {
    let (end, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::write(&end, init)?;
    let session = Session::from_fd(adapter, theirs, SessionACL::All, config);
    let mut answer = [0; 4096];
    let answered = rustix::io::read(&end, &mut answer);
    if answered_by == Answered::Now
        && let Ok(len @ 1..) = answered
    {
        rustix::io::write(device, &answer[..len])?;
    }
    let session = session?;
    answered?;
    Ok(Prepared { session, end })
}

impl Prepared {
    /// Begins to serve the connection, with threads that have arrived.
    ///
    /// Errors: one does not.
    pub fn serve(
        self,
        device: BorrowedFd<'_>,
        threads: usize,
        arrivals: &Arrivals,
    ) -> io::Result<BackgroundSession> {
        let place = DescriptorNumber::of(self.session.as_fd());
        let session = self.session.spawn()?;
        let called =
            (1..=threads as u64).try_for_each(|unique| rustix::io::write(&self.end, &call(unique)).map(drop));
        let arrived = called.map_err(io::Error::from).and_then(|()| match arrivals.wait_for(threads) {
            // None of them reads from what is replaced.
            true => place.stand_for(device),
            false => Err(io::Error::other("the threads that serve do not start")),
        });
        arrivals.let_go();
        arrived.map(|()| session)
    }
}

/// A request that no kernel makes of a mount without a block device.
fn call(unique: u64) -> [u8; 56] {
    const BMAP: u32 = 37;
    let mut request = [0; 56];
    request[..4].copy_from_slice(&56u32.to_le_bytes());
    request[4..8].copy_from_slice(&BMAP.to_le_bytes());
    request[8..16].copy_from_slice(&unique.to_le_bytes());
    request
}

/// Threads that are there, with their memory, and wait for the first request.
#[derive(Default)]
pub struct Arrivals {
    state: Mutex<Arrived>,
    changed: Condvar,
}

#[derive(Default)]
struct Arrived {
    threads: usize,
    is_over: bool,
}

impl Arrivals {
    /// Of a thread that reads requests to this address.
    pub fn arrive(&self, buffer: usize) {
        if let Err(error) = keep_in_memory(buffer, FUSE_WRITE_LEN_MAX as usize + REQUEST_HEAD_MAX) {
            log::info!("a long write may fail when this daemon is killed: {error}");
        }
        let mut state = self.state.lock();
        state.threads += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| !state.is_over);
    }

    /// Whether all have come.
    fn wait_for(&self, threads: usize) -> bool {
        let deadline = Instant::now() + ARRIVAL_MAX;
        let mut state = self.state.lock();
        while state.threads < threads {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return false;
            }
        }
        true
    }

    fn let_go(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_all();
    }
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
