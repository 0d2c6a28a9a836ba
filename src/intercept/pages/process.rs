//! The process itself: it tells the kernel what the daemon says, and sees to it that nothing waits for a daemon that
//! is gone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::NOTICE_LEN;
use crate::privileges;
use crate::signals::outlast_stops;
use crate::sys::receive_along;

/// Words before descriptors.
const WORD_LEN_MAX: usize = 16;

/// How often it is looked whether the last thread is back.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Tells the kernel what the daemon says that is at the other end of standard input, until that is gone.
///
/// Errors: the system's, before anything is done.
pub fn serve_drops() -> io::Result<()> {
    let _ = rustix::process::setsid();
    // It ends with its daemon: before, calls of programs would wait for ever.
    outlast_stops()?;
    privileges::give_up(privileges::PAGES)?;
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    let Some((_, begun)) = receive_along(&control, WORD_LEN_MAX)? else { return Ok(()) };
    let mut begun = begun.into_iter();
    let (Some(device), Some(abort)) = (begun.next(), begun.next()) else {
        return Err(io::Error::other("the daemon gives no connection"));
    };
    let (device, gate) = (Arc::new(device), Arc::new(Gate::default()));
    while let Ok(Some((_, lanes))) = receive_along(&control, WORD_LEN_MAX) {
        for lane in lanes {
            let (device, gate) = (device.clone(), gate.clone());
            std::thread::Builder::new().name("lane".into()).spawn(move || serve(&lane, &device, &gate))?;
        }
    }
    end(&gate, &abort, begun.next().as_ref());
    Ok(())
}

/// Until the lane is closed, or nothing more may begin.
fn serve(lane: &OwnedFd, device: &OwnedFd, gate: &Gate) {
    let mut notice = [0; NOTICE_LEN];
    loop {
        match recv(lane, &mut notice[..], RecvFlags::empty()) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok((_, NOTICE_LEN)) => {}
            Ok(_) | Err(_) => return,
        }
        if !gate.enter() {
            return;
        }
        let told = rustix::io::write(device, &notice);
        gate.leave();
        let errno = told.map_or_else(rustix::io::Errno::raw_os_error, |_| 0);
        if send(lane, &errno.to_le_bytes(), SendFlags::NOSIGNAL).is_err() {
            return;
        }
    }
}

/// The daemon is gone. Whoever still waits in the kernel waits for the next one, if there is somebody who gives it
/// the connection; else for nobody.
fn end(gate: &Gate, abort: &OwnedFd, holder: Option<&OwnedFd>) {
    while !gate.shut() {
        if holder.is_none_or(has_ended) {
            let _ = rustix::io::write(abort, b"1");
            return;
        }
    }
}

/// Waits a moment for that.
fn has_ended(process: &OwnedFd) -> bool {
    let moment = Timespec { tv_sec: 0, tv_nsec: LOOK_AGAIN.as_nanos() as _ };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&moment)).is_ok_and(|ended| ended > 0)
}

/// Who is in the kernel; once it is shut nobody is, and nobody goes any more.
#[derive(Default)]
struct Gate(Mutex<Doors>);

#[derive(Default)]
struct Doors {
    inside: usize,
    is_shut: bool,
}

impl Gate {
    fn enter(&self) -> bool {
        let mut doors = self.0.lock();
        doors.inside += usize::from(!doors.is_shut);
        !doors.is_shut
    }

    fn leave(&self) {
        self.0.lock().inside -= 1;
    }

    /// `false`: somebody is inside.
    fn shut(&self) -> bool {
        let mut doors = self.0.lock();
        doors.is_shut = doors.inside == 0;
        doors.is_shut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    /// A pipe in the place of what ends a connection.
    fn aborted(gate: &Gate, holder: Option<&OwnedFd>) -> bool {
        let (read, write) = std::io::pipe().unwrap();
        end(gate, &write.into(), holder);
        let mut said = Vec::new();
        std::io::Read::read_to_end(&mut &read, &mut said).unwrap();
        !said.is_empty()
    }

    #[test]
    fn nobody_waits_for_a_daemon_that_nobody_follows() {
        let gate = Gate::default();
        assert!(!aborted(&gate, None), "nobody waits");
        assert!(!gate.enter(), "it would wait for ever");
        let gate = Gate::default();
        assert!(gate.enter());
        assert!(aborted(&gate, None));
    }

    #[test]
    fn a_daemon_that_comes_lets_go_whoever_waits() {
        let own = rustix::process::Pid::from_raw(std::process::id() as i32).unwrap();
        let holder = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).unwrap();
        let gate = Arc::new(Gate::default());
        assert!(gate.enter());
        let inside = gate.clone();
        let comes = std::thread::spawn(move || {
            std::thread::sleep(3 * LOOK_AGAIN);
            inside.leave();
        });
        assert!(!aborted(&gate, Some(&holder)));
        comes.join().unwrap();
        // The holder goes, too.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let holder = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let gate = Gate::default();
        assert!(gate.enter());
        assert!(aborted(&gate, Some(&holder)));
        child.wait().unwrap();
    }
}
