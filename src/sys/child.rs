//! Children that do not outlive their parent.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Starts a command in a process group of its own (Ctrl-C at the terminal does not reach it);
/// it gets SIGTERM when the calling thread ends, however it ends.
pub fn spawn_bound(command: &mut Command) -> io::Result<Child> {
    let bind = || {
        // SAFETY: prctl with PR_SET_PDEATHSIG takes a number, touches no memory and is safe
        // between fork and exec.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: `bind` makes one system call and allocates nothing.
    unsafe { command.process_group(0).pre_exec(bind) };
    command.spawn()
}
