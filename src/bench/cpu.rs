//! Processor time of a process, from `/proc/PID/stat` (proc_pid_stat(5)).

use std::fs;
use std::io;

use crate::sys::clock_ticks;

/// Seconds in user and kernel mode since the start of the process, all its threads, ended ones
/// too; in steps of one clock tick (10 ms on most systems).
pub fn cpu_seconds(pid: u32) -> io::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let ticks = parse_ticks(&fs::read(&path)?)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not understood")))?;
    Ok(ticks as f64 / clock_ticks() as f64)
}

/// utime + stime, fields 14 and 15. The command (field 2) may hold blanks and parentheses:
/// fields are counted behind its last one.
fn parse_ticks(stat: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(stat);
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut number = || fields.next()?.parse::<u64>().ok();
    number()?.checked_add(number()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_command_name() {
        let check = |stat: &str, ticks| assert_eq!(parse_ticks(stat.as_bytes()), ticks, "{stat}");
        check("1 (cat) R 1 1 1 0 -1 4194304 90 0 0 0 17 25 3 4 20 0 1 0 99 5 6", Some(42));
        check("1 (a) S (b) c) S 1 1 1 0 -1 4194304 90 0 0 0 1 2 3 4 20 0 1 0 99 5 6", Some(3));
        check("1 (cat) R 1 1 1 0 -1 4194304 90 0 0 0 17", None);
        check("1 (cat) R 1 1 1 0 -1 4194304 90 0 0 0 17 -1 3", None);
        check("", None);
    }

    #[test]
    fn work_takes_time() {
        let pid = std::process::id();
        let before = cpu_seconds(pid).unwrap();
        let mut sum = 0u64;
        while cpu_seconds(pid).unwrap() <= before {
            sum = (0..1 << 16).fold(sum, |sum, x| std::hint::black_box(sum ^ x));
        }
        assert!(cpu_seconds(pid).unwrap() > before, "{sum}");
    }
}
