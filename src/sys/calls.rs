//! System calls that this process and what it starts may not make from now on.

use std::io;

/// One instruction of a filter, as the kernel takes it (`linux/filter.h`).
pub type Instruction = libc::sock_filter;

/// Whoever has CAP_SYS_ADMIN need not give up privileges of programs for it (seccomp(2)), as `sudo` wants.
///
/// Errors: the system's; `EACCES` without that capability.
pub fn filter_calls(filter: &[Instruction]) -> io::Result<()> {
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program and its instructions outlive the call, which copies them and writes none.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
