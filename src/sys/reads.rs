//! What is read through a mount, and which parts of a file lie in memory.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::mm::{MapFlags, ProtFlags};

/// Something that was opened or read.
pub struct Access {
    /// The file, open for reading; its use is no access.
    pub file: OwnedFd,
    /// As this process numbers it.
    pub by: i32,
    /// Read from; else opened alone.
    pub is_read: bool,
}

/// A queue of what is opened and read, from now on, through the mount that this directory is in; without limit, and
/// never blocking who reads it. Reads through a mapping are no events; the opening before them is.
///
/// Errors: the system's; `EPERM` without `CAP_SYS_ADMIN`.
pub fn watch_reads(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let class = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_UNLIMITED_QUEUE;
    let events = libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC;
    // SAFETY: two numbers.
    let queue = unsafe { libc::fanotify_init(class, events.cast_unsigned()) };
    if queue < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and that nobody else has.
    let queue = unsafe { OwnedFd::from_raw_fd(queue) };
    let (how, what) = (libc::FAN_MARK_ADD | libc::FAN_MARK_MOUNT, libc::FAN_OPEN | libc::FAN_ACCESS);
    // SAFETY: numbers, two descriptors that live longer, and a string of this program.
    let marked =
        unsafe { libc::fanotify_mark(queue.as_raw_fd(), how, what, directory.as_raw_fd(), c".".as_ptr()) };
    if marked < 0 { Err(io::Error::last_os_error()) } else { Ok(queue) }
}

/// What has come into such a queue; empty where there is nothing now.
pub fn accesses(queue: BorrowedFd<'_>) -> io::Result<Vec<Access>> {
    // Few enough that their descriptors do not reach a limit.
    let mut events = [0; 2048];
    let count = match rustix::io::read(queue, &mut events) {
        Ok(count) => count,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut rest = &events[..count];
    let mut found = Vec::new();
    // `struct fanotify_event_metadata` of fanotify(7).
    while let Some((head, _)) = rest.split_first_chunk::<24>() {
        let word = |at: usize| i32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let mask = head[8..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        let (length, file, by) = (word(0) as usize, word(16), word(20));
        if file >= 0 {
            // SAFETY: the kernel has made this descriptor for who reads the event.
            let file = unsafe { OwnedFd::from_raw_fd(file) };
            found.push(Access { file, by, is_read: mask & libc::FAN_ACCESS != 0 });
        }
        rest = rest.get(length.max(24)..).unwrap_or_default();
    }
    Ok(found)
}

/// Which pages of a part of a file lie in memory. `from` is a multiple of the page size, the part within the file.
///
/// Errors: the system's.
pub fn in_memory(file: BorrowedFd<'_>, from: u64, length: usize) -> io::Result<Vec<bool>> {
    let page = rustix::param::page_size();
    let mut pages = vec![0_u8; length.div_ceil(page)];
    // SAFETY: a fresh mapping at an address of the kernel's choice, of which nothing is read or written.
    let address = unsafe {
        rustix::mm::mmap(std::ptr::null_mut(), length, ProtFlags::empty(), MapFlags::SHARED, file, from)
    }?;
    // SAFETY: the mapping of above; a byte for each page of it is there.
    let asked = unsafe { libc::mincore(address, length, pages.as_mut_ptr()) };
    let asked = if asked < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: the mapping of above, of which there is no reference.
    unsafe { rustix::mm::munmap(address, length) }?;
    asked?;
    Ok(pages.iter().map(|page| page & 1 != 0).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_was_written_just_now_lies_in_memory() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 3 << 16]).unwrap();
        let pages = in_memory(file.as_fd(), 1 << 16, (2 << 16) - 1).unwrap();
        assert_eq!(pages.len(), (2 << 16) / rustix::param::page_size());
        assert!(pages.iter().all(|page| *page));
    }
}
