//! What this process has used (getrusage(2)).

use std::time::Duration;

/// Of all its threads, ended ones too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In user and kernel mode.
    pub processor: Duration,
    /// The most memory that it had at once, bytes.
    pub memory_peak: u64,
    /// How often its threads were taken off a processor.
    pub switches: u64,
}

/// Since the start of the process.
pub fn usage() -> Usage {
    usage_of(libc::RUSAGE_SELF)
}

/// Of all children that have ended and were waited for.
pub fn usage_of_children() -> Usage {
    usage_of(libc::RUSAGE_CHILDREN)
}

fn usage_of(who: libc::c_int) -> Usage {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: a structure of the right type, zeroed (all of it numbers), which the call fills.
    let usage = unsafe {
        libc::getrusage(who, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    Usage {
        processor: time(usage.ru_utime) + time(usage.ru_stime),
        memory_peak: usage.ru_maxrss as u64 * 1024,
        switches: (usage.ru_nvcsw + usage.ru_nivcsw) as u64,
    }
}
