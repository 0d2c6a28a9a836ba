//! What a holder and daemons say to each other: one message a packet of a unix socket, descriptors along with it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use bincode::{Decode, Encode};

use crate::sys::{receive_along, send_along};

/// Another version of the program may say other things.
pub const VERSION: u32 = 1;

/// Paths and texts.
const MESSAGE_LEN_MAX: usize = 64 << 10;

/// Which protection it is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Which {
    pub version: u32,
    pub set: String,
    pub directory: Vec<u8>,
    pub backing: Option<Vec<u8>>,
    pub state: Vec<u8>,
    /// How writes of programs reach the daemon.
    pub profile: String,
}

impl Which {
    /// Why a daemon that was started like `other` cannot go on with this one's mount.
    pub fn differs_from(&self, other: &Which) -> Option<&'static str> {
        match () {
            () if self.version != other.version => Some("it is another version of standin"),
            () if self.set != other.set => Some("it is another set"),
            () if self.directory != other.directory => Some("it is another directory"),
            () if self.backing != other.backing => Some("it has another --backing"),
            () if self.state != other.state => Some("it has another state directory"),
            () if self.profile != other.profile => Some("it has another --profile"),
            () => None,
        }
    }
}

/// To a holder.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Said {
    /// The first word of the daemon that has started it.
    Begin {
        which: Which,
        /// Where daemons that come later find it.
        socket: Vec<u8>,
        patience_ms: u64,
    },
    /// With the view, the directory under the mount, the memory: head, nodes, handles.
    Places,
    /// With the connection to the kernel: it is mounted.
    Mounted,
    /// With a file that has no name, or is about to lose it.
    Keep(u64),
    LetGo(u64),
    /// The first word of a daemon that is started.
    TakeOver(Which),
    /// Programs are served.
    Serving,
    /// The mount is gone, or there was none.
    Over,
    /// Of `standin stop`, where no daemon is.
    AreYouAlone,
    /// As that, and it is.
    GiveUp,
    /// Of commands that find no daemon.
    HowLong,
    /// What it understands. One of before this word says nothing, and takes it for no call.
    Speaks,
    /// The daemon's process is about to be another program, and hangs up although it lives on.
    HandsOver,
}

/// From a holder.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// It has all, and can be found.
    Holding,
    /// With the connection, the view, the directory, the memory. So many files without names follow.
    Given {
        files: u32,
        /// Since when nobody has served, at this moment.
        paused_ms: u64,
    },
    /// With one of those files.
    Kept(u64),
    /// A daemon has it.
    Alive {
        pid: i32,
    },
    Refused(String),
    /// No daemon has it.
    Alone {
        directory: Vec<u8>,
    },
    GaveUp,
    /// No daemon serves.
    Waits {
        directory: Vec<u8>,
        /// Until it lets go.
        left_ms: u64,
        /// One was started, and prepares.
        is_asked: bool,
    },
    /// It knows [`Said::HandsOver`].
    Speaks,
}

pub fn send(to: impl AsFd, message: &impl Encode, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = bincode::encode_to_vec(message, bincode::config::standard()).map_err(io::Error::other)?;
    send_along(to, &bytes, descriptors)
}

/// `None`: the other side has ended. Descriptors that this process may not have any more are missing.
pub fn receive<M: Decode<()>>(from: impl AsFd) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let Some((bytes, descriptors)) = receive_along(from, MESSAGE_LEN_MAX)? else { return Ok(None) };
    let decoded = bincode::decode_from_slice(&bytes, bincode::config::standard());
    let (message, _) = decoded.map_err(io::Error::other)?;
    Ok(Some((message, descriptors)))
}

/// Whoever does not take, or say, anything for so long is not waited for.
pub fn limit_waits(socket: impl AsFd, patience: Duration) -> io::Result<()> {
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    limit_sends(&socket, patience)?;
    Ok(set_socket_timeout(&socket, Timeout::Recv, Some(patience))?)
}

/// As [`limit_waits`], of what is said.
pub fn limit_sends(socket: impl AsFd, patience: Duration) -> io::Result<()> {
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    Ok(set_socket_timeout(&socket, Timeout::Send, Some(patience))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn which() -> Which {
        Which {
            version: VERSION,
            set: "web".into(),
            directory: b"/srv/web".to_vec(),
            backing: None,
            state: b"/var/lib/standin".to_vec(),
            profile: "default".into(),
        }
    }

    #[test]
    fn messages_come_whole_with_their_descriptors() {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let file = tempfile::tempfile().unwrap();
        let (number, which) = (rustix::fs::fstat(&file).unwrap().st_ino, which());
        send(&one, &Said::TakeOver(which.clone()), &[]).unwrap();
        send(&one, &Said::Keep(7), &[file.as_fd(), one.as_fd()]).unwrap();
        let (said, along) = receive::<Said>(&other).unwrap().unwrap();
        assert_eq!((said, along.len()), (Said::TakeOver(which), 0));
        let (said, along) = receive::<Said>(&other).unwrap().unwrap();
        assert_eq!((said, along.len()), (Said::Keep(7), 2));
        assert_eq!(rustix::fs::fstat(&along[0]).unwrap().st_ino, number);
        drop((one, along));
        assert!(receive::<Said>(&other).unwrap().is_none());
    }

    #[test]
    fn another_protection_is_told_apart() {
        let (one, other) = (which(), which());
        assert_eq!(one.differs_from(&other), None);
        let differing = [
            Which { version: VERSION + 1, ..which() },
            Which { set: "x".into(), ..which() },
            Which { directory: b"/x".to_vec(), ..which() },
            Which { backing: Some(b"/x".to_vec()), ..which() },
            Which { state: b"/x".to_vec(), ..which() },
            Which { profile: "batch".into(), ..which() },
        ];
        let why: Vec<_> = differing.iter().filter_map(|other| one.differs_from(other)).collect();
        let mut apart = why.clone();
        apart.dedup();
        assert_eq!((why.len(), apart), (6, why));
    }
}
