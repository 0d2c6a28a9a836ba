//! The end of a drill for something that goes first: the replica is needed.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};

use super::journal::{Journal, begun};
use super::limits::{LEAVES_WITHIN, STOPS_WITHIN};
use crate::sys::is_ready_within;

/// Ends the drill that runs on this replica, whatever it is at, and gives its number. It is asked to clean up, later to
/// leave out what commands it still has, and then killed: everything in it ends, and its clone is left for the
/// next `standin drill` command.
///
/// Errors: the system's.
pub fn make_way(state: &Path, replica: &Path) -> io::Result<Option<u64>> {
    let Some(journal) = Journal::of_existing(state) else { return Ok(None) };
    let Some(record) = journal.running()? else { return Ok(None) };
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let Some(command) = record.command.filter(|_| real(&record.replica) == real(replica)) else {
        return Ok(None);
    };
    let Some(process) = process(command)? else { return Ok(None) };
    for (signal, patience) in
        [(Signal::TERM, STOPS_WITHIN), (Signal::TERM, LEAVES_WITHIN), (Signal::KILL, LEAVES_WITHIN)]
    {
        match rustix::process::pidfd_send_signal(&process, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        if has_ended(&process, patience)? {
            break;
        }
    }
    // With the command the kernel kills its first process, which has the last word on what is in there.
    if let Some((pid, since)) = record.process {
        super::journal::wait_for_end(pid, since).map_err(io::Error::other)?;
    }
    Ok(Some(record.report.number))
}

/// The process of this number that was started then; `None`: it has ended.
pub fn process((pid, since): (u32, u64)) -> io::Result<Option<OwnedFd>> {
    let Some(number) = Pid::from_raw(pid as i32) else { return Ok(None) };
    match rustix::process::pidfd_open(number, PidfdFlags::empty()) {
        Ok(process) => Ok((begun(pid) == Some(since)).then_some(process)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether it has, within that time.
pub fn has_ended(process: &OwnedFd, within: Duration) -> io::Result<bool> {
    is_ready_within(process, within)
}
