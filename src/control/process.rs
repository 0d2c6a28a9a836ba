//! What a daemon costs its machine.

use std::fs::File;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::sys;

/// Processor time and memory of a daemon, without its helper processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// In user and kernel mode since the start, of all threads.
    pub cpu_seconds: f64,
    /// Resident now, shared pages too; 0 where it is not known.
    pub memory_bytes: u64,
    /// Resident at most, since the start.
    pub memory_peak_bytes: u64,
}

/// Reads it. Made before a process confines itself: later `/proc` cannot be opened.
pub struct ProcessMeter {
    memory: Option<File>,
}

impl ProcessMeter {
    pub fn open() -> ProcessMeter {
        ProcessMeter { memory: File::open("/proc/self/statm").ok() }
    }

    pub fn read(&self) -> ProcessStatus {
        let usage = sys::usage();
        let memory_bytes = self.memory.as_ref().and_then(resident).unwrap_or(0);
        ProcessStatus {
            cpu_seconds: usage.processor.as_secs_f64(),
            memory_bytes,
            // The kernel brings its peak up to date late.
            memory_peak_bytes: usage.memory_peak.max(memory_bytes),
        }
    }
}

/// The second number of `/proc/PID/statm`, which counts pages (proc_pid_statm(5)).
fn resident(statm: &File) -> Option<u64> {
    let mut bytes = [0; 128];
    let len = statm.read_at(&mut bytes, 0).ok()?;
    let pages = std::str::from_utf8(&bytes[..len]).ok()?.split_ascii_whitespace().nth(1)?;
    Some(pages.parse::<u64>().ok()? * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_are_seen() {
        let meter = ProcessMeter::open();
        let before = meter.read();
        assert!(before.memory_bytes > 0 && before.memory_peak_bytes > 0, "{before:?}");
        let held = vec![1u8; 64 << 20];
        let mut sum = 0u64;
        while meter.read().cpu_seconds <= before.cpu_seconds {
            sum = held.iter().fold(sum, |sum, byte| std::hint::black_box(sum + u64::from(*byte)));
        }
        let now = meter.read();
        assert!(now.memory_bytes >= 64 << 20 && now.memory_peak_bytes >= 64 << 20, "{now:?} {sum}");
    }
}
