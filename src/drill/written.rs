//! How much the commands of a drill have written to its clone: nothing else in there leads to a disk. The kernel counts for each
//! process the pages that it has made dirty (`write_bytes` of `/proc/PID/io`, proc(5)), and with those of a parent those of
//! the children that it has waited for.

use std::fs;
use std::path::Path;

/// By all processes in the process namespace of this one, which is the first of it and has waited for all that had ended
/// without a parent. `None`: the kernel does not count.
pub(super) fn by_all_with(first: u32) -> Option<u64> {
    let namespace = |pid: &Path| fs::read_link(pid.join("ns/pid")).ok();
    let own = namespace(&process(first))?;
    by(first)?;
    let all = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    let inside = all.filter(|path| namespace(path).is_some_and(|theirs| theirs == own));
    Some(inside.filter_map(|path| of_text(&fs::read_to_string(path.join("io")).ok()?)).sum())
}

/// By one process and the children that it has waited for.
pub(super) fn by(pid: u32) -> Option<u64> {
    of_text(&fs::read_to_string(process(pid).join("io")).ok()?)
}

fn process(pid: u32) -> std::path::PathBuf {
    Path::new("/proc").join(pid.to_string())
}

fn of_text(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_written_is_read() {
        let text = "rchar: 1\nwchar: 2\nwrite_bytes: 8192\ncancelled_write_bytes: 4096\n";
        assert_eq!(super::of_text(text), Some(8192));
        assert_eq!(super::of_text("rchar: 1\n"), None);
    }
}
