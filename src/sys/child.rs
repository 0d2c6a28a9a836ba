//! Children that do not outlive their parent, and one that has namespaces of its own.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// What a process of [`spawn_isolated`] shares with the host's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Own,
    Host,
}

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

/// Gives the calling process, which has one thread, mounts of its own: a copy of those that it had.
///
/// Errors: the system's; `EPERM` without `CAP_SYS_ADMIN`.
pub fn own_mounts() -> io::Result<()> {
    // SAFETY: a number; what changes beside the mounts is whether threads share their working directory.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Starts a command as the first process of a process namespace, with IPC and UTS namespaces of
/// its own, and a network one unless told otherwise; in a session of its own, with no descriptor of
/// this process beside the three. It is killed, and with it everything in its process namespace, when
/// the calling thread ends, however it ends.
///
/// The calling thread can start no other process afterwards, and no thread: it is there to wait for
/// this one.
///
/// Errors: the system's; `EPERM` without `CAP_SYS_ADMIN`.
pub fn spawn_isolated(command: &mut Command, network: Network) -> io::Result<Child> {
    let own = libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let own = if network == Network::Own { own | libc::CLONE_NEWNET } else { own };
    let enter = move || {
        // SAFETY: calls that take numbers, touch no memory, and are safe between fork and exec.
        let failed = unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0
                || libc::setsid() < 0
                || libc::unshare(own) < 0
                || libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) < 0
        };
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: CLONE_NEWPID says where the next process of this thread is born, and nothing else.
    if unsafe { libc::unshare(libc::CLONE_NEWPID) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `enter` makes system calls and allocates nothing.
    unsafe { command.pre_exec(enter) };
    command.spawn()
}
