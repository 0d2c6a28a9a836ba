//! Pages that the kernel has of a file are dropped by a process of its own.
//!
//! ```text
//!  a thread of the daemon ── lane: which pages ──> a thread of that process ── FUSE_NOTIFY_INVAL_INODE ──> kernel
//!                        <── done ───────────────                              (waits for what the daemon gives
//!                                                                               or takes meanwhile)
//! ```
//! The kernel writes back what is dirty of them first, and waits for reads that are under way: for this very daemon,
//! where no signal reaches it. A daemon that did it itself and was killed meanwhile would never end, because its
//! thread would keep the connection on which it waits (9 of 40 kills, measured). As it is the daemon ends, and:
//! - without a holder that process ends the connection, so that everything that waits on it gets an error;
//! - with one it waits for the next daemon, which answers, or for the end of the holder, and does the same then.
//!
//! It is started when it is needed first: most mounts never need it.

mod process;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

pub use process::serve_drops;

use super::mounting::{self, ConnectionNumber};
use super::objects::NodeId;
use crate::sys::send_along;

/// Name of the hidden subcommand that the process runs.
const DROP_COMMAND: &str = "drop-pages";

/// What the kernel is told: `struct fuse_out_header`, `struct fuse_notify_inval_inode_out` of `linux/fuse.h`.
pub(super) const NOTICE_LEN: usize = 40;
const NOTIFY_INVAL_INODE: i32 = 2;

/// Drops pages of one mount.
pub struct Pages {
    device: OwnedFd,
    /// Ends the connection when it is written to. Where there is none nobody could let the process go.
    abort: Option<OwnedFd>,
    /// The process that keeps the connection beyond this one.
    holder: Option<OwnedFd>,
    process: Mutex<Option<Arc<Process>>>,
}

impl Pages {
    pub fn new(device: OwnedFd, connection: ConnectionNumber, holder: Option<OwnedFd>) -> Pages {
        let abort = mounting::open_control(connection, "abort");
        let abort =
            abort.inspect_err(|error| log::info!("a connection to the kernel has no control: {error}"));
        Pages { device, abort: abort.ok(), holder, process: Mutex::new(None) }
    }

    /// Has the kernel write back and drop its pages of a range, and waits for that.
    ///
    /// Errors: the kernel knows no such file.
    pub fn drop_pages(&self, node: NodeId, offset: i64, len: i64) -> io::Result<()> {
        let notice = notice(node, offset, len);
        match self.ask(&notice) {
            Ok(0) => Ok(()),
            Ok(errno) => Err(io::Error::from_raw_os_error(errno)),
            Err(error) => {
                log::warn!("a kill of this daemon may not end it at this moment: {error}");
                rustix::io::write(&self.device, &notice)?;
                Ok(())
            }
        }
    }

    /// Answers the kernel's errno. A process that died is replaced, once.
    ///
    /// Errors: there is none.
    fn ask(&self, notice: &[u8; NOTICE_LEN]) -> io::Result<i32> {
        let process = self.process()?;
        process.ask(notice).or_else(|error| {
            log::warn!("the process that drops pages died ({error}) and is replaced");
            let mut current = self.process.lock();
            // Not one that another thread has put in its place.
            current.take_if(|current| Arc::ptr_eq(current, &process));
            drop((current, process));
            self.process()?.ask(notice)
        })
    }

    fn process(&self) -> io::Result<Arc<Process>> {
        let mut current = self.process.lock();
        if let Some(process) = &*current {
            return Ok(process.clone());
        }
        let process = Arc::new(Process::start(self)?);
        *current = Some(process.clone());
        Ok(process)
    }
}

struct Process {
    child: Mutex<Child>,
    control: OwnedFd,
    /// Ends of lanes on which nobody waits; the process has a thread for each lane.
    lanes: Mutex<Vec<OwnedFd>>,
}

impl Process {
    fn start(pages: &Pages) -> io::Result<Process> {
        let abort = pages.abort.as_ref().ok_or_else(|| io::Error::other("nobody could let it go"))?;
        let (control, theirs) = pair()?;
        // This very program, even when its file was replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("standin").arg(DROP_COMMAND).current_dir("/");
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let child = Mutex::new(command.spawn()?);
        let own = [&pages.device, abort];
        let all: Vec<_> = own.into_iter().chain(&pages.holder).map(AsFd::as_fd).collect();
        send_along(&control, b"begin", &all)?;
        Ok(Process { child, control, lanes: Mutex::default() })
    }

    /// Errors: the process is gone.
    fn ask(&self, notice: &[u8; NOTICE_LEN]) -> io::Result<i32> {
        let free = self.lanes.lock().pop();
        let lane = free.map_or_else(|| self.open_lane(), Ok)?;
        send(&lane, notice, SendFlags::NOSIGNAL)?;
        let mut answer = [0; 4];
        let len = loop {
            match recv(&lane, &mut answer[..], RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                received => break received?.1,
            }
        };
        if len != answer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.lanes.lock().push(lane);
        Ok(i32::from_le_bytes(answer))
    }

    fn open_lane(&self) -> io::Result<OwnedFd> {
        let (lane, theirs) = pair()?;
        send_along(&self.control, b"lane", &[theirs.as_fd()])?;
        Ok(lane)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is gone, or goes when this is closed.
        let _ = self.child.lock().try_wait();
    }
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// A length of 0 is all from the offset on.
fn notice(node: NodeId, offset: i64, len: i64) -> [u8; NOTICE_LEN] {
    let mut notice = [0; NOTICE_LEN];
    notice[..4].copy_from_slice(&(NOTICE_LEN as u32).to_le_bytes());
    notice[4..8].copy_from_slice(&NOTIFY_INVAL_INODE.to_le_bytes());
    notice[16..24].copy_from_slice(&node.0.to_le_bytes());
    notice[24..32].copy_from_slice(&offset.to_le_bytes());
    notice[32..].copy_from_slice(&len.to_le_bytes());
    notice
}
