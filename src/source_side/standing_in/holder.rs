//! A target daemon that has the replica open has files of it open, too: it is no program that would write past the
//! mount, because it lets the replica go before.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::find_state;
use crate::failure::Failure;
use crate::limits::REPLICA_LET_GO_POLL;
use crate::preflight::{self, Preflight};
use crate::words::ProtectOptions;

/// Closing what a replica had open takes milliseconds.
const CLOSING_MAX: Duration = Duration::from_secs(5);

/// What has to be so before a mount; of a replica, but for its target daemon.
pub fn check(options: &ProtectOptions) -> Result<Preflight, Failure> {
    preflight::check_but(options, holder(options))
}

/// The replica is taken: now everybody counts who has a file of it open for writing, while nothing is raised.
pub(super) fn wait_until_let_go(options: &ProtectOptions) -> Result<(), Failure> {
    let deadline = Instant::now() + CLOSING_MAX;
    loop {
        match preflight::check_users(options, None, &mut Vec::new()) {
            Ok(_) => return Ok(()),
            Err(failure) if Instant::now() >= deadline => return Err(failure),
            Err(_) => std::thread::sleep(REPLICA_LET_GO_POLL),
        }
    }
}

/// The process that has locked what is known of the replica.
fn holder(options: &ProtectOptions) -> Option<u32> {
    let progress = find_state(options).ok()?.join("progress");
    let inode = fs::metadata(progress).ok()?.ino();
    holder_of(inode, &fs::read_to_string("/proc/locks").ok()?)
}

/// Of a line as `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`. Of another file system with this number nobody
/// is meant: whoever is passed over wrongly is found when the replica is taken.
fn holder_of(inode: u64, locks: &str) -> Option<u32> {
    let of_line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, file, ..] = words.as_slice() else { return None };
        let is_it = file.rsplit(':').next()?.parse() == Ok(inode);
        pid.parse().ok().filter(|_| is_it)
    };
    locks.lines().find_map(of_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_lock_is_read_from_the_kernels_list() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 08:01:42 0 EOF\n\
                     2: FLOCK  ADVISORY  READ  8 08:01:42 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 08:01:42 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 10 00:2f:421 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 11 00:2f:42 0 EOF\n\
                     nothing\n";
        assert_eq!(holder_of(42, locks), Some(11));
        assert_eq!(holder_of(43, locks), None);
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("progress")).unwrap();
        file.lock().unwrap();
        let inode = file.metadata().unwrap().ino();
        let now = fs::read_to_string("/proc/locks").unwrap();
        assert_eq!(holder_of(inode, &now), Some(std::process::id()));
    }
}
