//! Memory for page caches that are about to grow.
//!
//! The guest of a virtual machine may have given free memory back to its host; the first use of such
//! a page costs more than what is written into it, and whoever comes first would pay for it.

use std::hint::black_box;

/// No more than this is taken at once, in bytes.
const TAKEN_MAX: u64 = 2 << 30;

/// Share of the memory that is available which is taken at most.
const SHARE: u64 = 4;

/// Touches so many bytes and gives them back to the kernel: it uses again first what was freed last.
pub fn provide(bytes: u64) {
    let bytes = bytes.min(TAKEN_MAX).min(available() / SHARE);
    black_box(vec![1u8; bytes as usize]);
}

/// Memory that can be had without swapping; 0 where it is not known.
fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_memory_is_available() {
        assert!(available() > 1 << 20);
        provide(1 << 20);
    }
}
