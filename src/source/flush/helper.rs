//! The helper process: the only one that calls `syncfs(2)` on the mount.

use std::io::{self, Read, Write};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::privileges::{self, FLUSHER};

/// File-system type of every FUSE mount (`linux/magic.h`).
const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;

/// One byte asks, two bytes answer: which step failed, and its errno (0 where it has none).
pub(super) const DONE: u8 = 0;
pub(super) const NO_MOUNT: u8 = 1;
pub(super) const NOT_WRITTEN: u8 = 2;

/// Answers requests on standard input until it ends, which it does with the daemon. Between two
/// requests nothing of the mount is open: it can be unmounted.
///
/// Errors: of reading requests and writing answers.
pub fn serve_flushes(mount: &Path) -> io::Result<()> {
    privileges::give_up(FLUSHER)?;
    let (mut requests, mut answers) = (io::stdin().lock(), io::stdout().lock());
    let mut request = [0];
    while requests.read(&mut request)? > 0 {
        let answer = match flush(mount) {
            Ok(()) => [DONE, 0],
            Err((step, errno)) => [step, u8::try_from(errno.raw_os_error()).unwrap_or(0)],
        };
        answers.write_all(&answer)?;
        answers.flush()?;
    }
    Ok(())
}

fn flush(mount: &Path) -> Result<(), (u8, rustix::io::Errno)> {
    let no_mount = |errno| (NO_MOUNT, errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(mount, flags, Mode::empty()).map_err(no_mount)?;
    let kind = rustix::fs::fstatfs(&root).map_err(no_mount)?.f_type;
    if kind as i64 != FUSE_SUPER_MAGIC {
        // Somebody took the mount away: what lies there now is not ours to sync.
        return Err(no_mount(rustix::io::Errno::NOTCONN));
    }
    rustix::fs::syncfs(&root).map_err(|errno| (NOT_WRITTEN, errno))
}
