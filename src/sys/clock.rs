//! Processor time of a process, and how well the clock is kept.

use std::io;
use std::time::Duration;

/// In user and kernel mode since the start of the process, all its threads, ended ones too
/// (clock_getcpuclockid(3)).
///
/// Errors: `ESRCH` where there is no such process.
pub fn process_time(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    let mut clock = 0;
    // SAFETY: the call writes one clock id into a variable of ours.
    match unsafe { libc::clock_getcpuclockid(pid, &mut clock) } {
        0 => {}
        error => return Err(io::Error::from_raw_os_error(error)),
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one time into a variable of ours.
    if unsafe { libc::clock_gettime(clock, &mut time) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// What the kernel knows of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptClock {
    /// A time server, or another source, keeps it.
    pub is_kept: bool,
    /// By how much it may be wrong, in microseconds, as far as that is known.
    pub off_at_most: i64,
}

/// Asks, and changes nothing. `adjtimex(2)`.
///
/// Errors: the system's, as where such calls are filtered.
pub fn kept_clock() -> io::Result<KeptClock> {
    // SAFETY: all zeros are a request that changes nothing.
    let mut asked: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: it lives during the call.
    if unsafe { libc::adjtimex(&mut asked) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(KeptClock { is_kept: asked.status & libc::STA_UNSYNC == 0, off_at_most: asked.maxerror })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time() {
        let pid = std::process::id();
        let before = process_time(pid).unwrap();
        let sum = (0..1u64 << 16).fold(0, |sum, x| std::hint::black_box(sum ^ x));
        assert!(process_time(pid).unwrap() > before, "{sum}");
    }

    #[test]
    fn a_process_that_is_not_there_has_no_time() {
        assert!(process_time(u32::MAX).is_err());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(process_time(child.id()).is_err());
    }
}
