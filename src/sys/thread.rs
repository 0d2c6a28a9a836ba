//! What a thread is to the kernel: file-system identity, umask, capabilities.

use std::cell::Cell;
use std::io;

/// Owner and group that a new object gets (`setfsuid(2)`, `setfsgid(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
}

impl Identity {
    pub const ROOT: Identity = Identity { uid: 0, gid: 0 };
}

/// `CAP_SYS_ADMIN` among the bits of `/proc/PID/status` (`linux/capability.h`).
const SYS_ADMIN: u64 = 1 << 21;

/// `SECBIT_NO_SETUID_FIXUP` of `capabilities(7)`: a change of identity leaves capabilities alone.
const SECBIT_NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;

thread_local! {
    /// The umask that this thread has for itself.
    static OWN_UMASK: Cell<Option<u32>> = const { Cell::new(None) };
    static READY: Cell<bool> = const { Cell::new(false) };
    static IDENTITY: Cell<Identity> = const { Cell::new(Identity::ROOT) };
}

/// Whether a thread of some process has `CAP_SYS_ADMIN` where this process is: one in a user namespace of its own has it
/// only there (`user_namespaces(7)`). `None` where there is no such thread here.
pub fn administers(thread: u32) -> Option<bool> {
    let of = |who: &str, what| std::fs::read_to_string(format!("/proc/{who}/{what}")).ok();
    let thread = thread.to_string();
    let status = of(&thread, "status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let has_it = u64::from_str_radix(effective.trim(), 16).ok()? & SYS_ADMIN != 0;
    // The link of the namespace itself is shown to those alone who may trace the thread.
    Some(has_it && of(&thread, "uid_map")? == of("self", "uid_map")?)
}

/// Gives this thread a umask and a working directory of its own (`unshare(CLONE_FS)`), once, and
/// sets the umask.
pub fn set_own_umask(mask: u32) -> io::Result<()> {
    if OWN_UMASK.get() == Some(mask) {
        return Ok(());
    }
    if OWN_UMASK.get().is_none() {
        // SAFETY: CLONE_FS only parts this thread's umask, root and working directory from the others'.
        if unsafe { libc::unshare(libc::CLONE_FS) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: umask cannot fail and touches no memory of ours.
    unsafe { libc::umask(mask as libc::mode_t) };
    OWN_UMASK.set(Some(mask));
    Ok(())
}

/// Makes this thread fit to act for others, once: capabilities that a change of identity leaves
/// alone. Without that, root acting for a user could no longer write where only root may.
/// Processes that this thread starts would inherit it: start none.
///
/// Errors: `EPERM` without `CAP_SETPCAP`, where it was not done before the thread started.
fn keep_capabilities() -> io::Result<()> {
    if READY.get() {
        return Ok(());
    }
    // SAFETY: prctl with integer arguments touches no memory of ours.
    let current = unsafe { libc::prctl(libc::PR_GET_SECUREBITS) };
    if current < 0 {
        return Err(io::Error::last_os_error());
    }
    let current = current as libc::c_ulong;
    if current & SECBIT_NO_SETUID_FIXUP == 0
        // SAFETY: as above.
        && unsafe { libc::prctl(libc::PR_SET_SECUREBITS, current | SECBIT_NO_SETUID_FIXUP) } < 0
    {
        return Err(io::Error::last_os_error());
    }
    READY.set(true);
    Ok(())
}

/// Gives this thread the file-system identity of a caller, until it is given another: whose disk
/// quota and whose blocks are used, and who owns what is made. Capabilities stay, so everything else
/// is as for root. Costs nothing where it is the same as before.
///
/// Errors: as for [`as_caller`]; the identity is as it was.
pub fn act_as(identity: Identity) -> io::Result<()> {
    if IDENTITY.get() == identity {
        return Ok(());
    }
    keep_capabilities()?;
    set_identity(identity);
    IDENTITY.set(identity);
    Ok(())
}

/// What [`act_as`] was given last on this thread.
pub fn acting_as() -> Identity {
    IDENTITY.get()
}

/// Runs `work` with the file-system identity and umask of a caller, on this thread only; both stay.
///
/// Errors: capabilities would go with the identity, and cannot be kept.
pub fn as_caller<T>(identity: Identity, umask: u32, work: impl FnOnce() -> T) -> io::Result<T> {
    set_own_umask(umask)?;
    act_as(identity)?;
    Ok(work())
}

/// Raw system calls: libc's wrappers would be per thread too, but say so nowhere.
fn set_identity(identity: Identity) {
    // SAFETY: integer arguments; the calls return the old id and cannot fail for root.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, identity.gid);
        libc::syscall(libc::SYS_setfsuid, identity.uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_is_born_as_the_callers() {
        if !rustix::process::geteuid().is_root() {
            panic!("this test needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let caller = Identity { uid: 1234, gid: 5678 };
        std::thread::spawn(move || {
            // The directory is root's, mode 0700: only kept capabilities let this through.
            as_caller(caller, 0o077, || std::fs::write(&path, "x")).unwrap().unwrap();
            let meta = std::fs::metadata(&path).unwrap();
            assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1234, 5678, 0o600));
            assert_eq!(acting_as(), caller);
            act_as(Identity::ROOT).unwrap();
            std::fs::write(path.with_file_name("g"), "x").unwrap();
            assert_eq!(std::fs::metadata(path.with_file_name("g")).unwrap().uid(), 0);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn root_of_a_user_namespace_administers_only_that() {
        use std::os::unix::process::CommandExt;
        let sleeping = |namespaces: libc::c_int| {
            let mut command = std::process::Command::new("sleep");
            // SAFETY: one system call with an integer argument, in the child.
            let parted = move || match unsafe { libc::unshare(namespaces) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            };
            // SAFETY: see `parted`; it allocates nothing and takes no lock.
            unsafe { command.arg("60").pre_exec(parted) }.spawn().unwrap()
        };
        for (namespaces, is_administrator) in [(0, true), (libc::CLONE_NEWUSER, false)] {
            let mut child = sleeping(namespaces);
            let map = format!("/proc/{}/uid_map", child.id());
            if namespaces != 0 {
                std::fs::write(map, "0 0 1").unwrap();
            }
            let found = administers(child.id());
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(found, Some(is_administrator), "{namespaces}");
        }
    }
}
