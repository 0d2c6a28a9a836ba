//! Memory that outlives the process that writes it: whoever holds its descriptor maps the same words.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Release};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

/// Words of 64 bits in memory of no file system, that never moves and only grows. What was stored is there for
/// the next process whatever ends this one.
pub struct SharedWords {
    memory: OwnedFd,
    words: NonNull<AtomicU64>,
    room: usize,
    /// How many of them have memory: all others must not be touched.
    len: AtomicUsize,
}

// SAFETY: the memory is only reached as atomic words; the mapping lives as long as the value.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Room for so many words, of which none has memory yet. `name` is shown in `/proc/PID/maps`.
    pub fn create(name: &CStr, room: usize) -> io::Result<SharedWords> {
        let memory = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        // A mapping of memory that somebody took away would end the process.
        rustix::fs::fcntl_add_seals(&memory, SealFlags::SHRINK)?;
        SharedWords::open(memory, room)
    }

    /// What [`SharedWords::create`] made in another process.
    ///
    /// Errors: it is no such memory.
    pub fn open(memory: OwnedFd, room: usize) -> io::Result<SharedWords> {
        if !rustix::fs::fcntl_get_seals(&memory)?.contains(SealFlags::SHRINK) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let len = rustix::fs::fstat(&memory)?.st_size as usize / 8;
        if len > room {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice. What of it has no memory is never
        // touched (`word` asserts it), and what has some keeps it (the seal).
        let address = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                room * 8,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::SHARED | rustix::mm::MapFlags::NORESERVE,
                memory.as_fd(),
                0,
            )
        }?;
        let words = NonNull::new(address.cast()).expect("mmap gives no null page");
        Ok(SharedWords { memory, words, room, len: AtomicUsize::new(len) })
    }

    /// Sees to it that so many words have memory; new ones are 0. One caller at a time.
    ///
    /// Errors: there is no room, or no memory: nothing has changed.
    pub fn grow(&self, len: usize) -> io::Result<()> {
        if len > self.room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.take(0, len)
    }

    /// Sees to it that these words have memory; new ones are 0. Of those before them others may have none: nobody
    /// touches these. One caller at a time.
    ///
    /// Errors: as [`SharedWords::grow`].
    pub fn take(&self, at: usize, len: usize) -> io::Result<()> {
        if at + len > self.room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // Allocated now: a store into memory that is only promised may end the process.
        rustix::fs::fallocate(&self.memory, FallocateFlags::empty(), at as u64 * 8, len as u64 * 8)?;
        self.len.fetch_max(at + len, Release);
        Ok(())
    }

    /// Gives memory of these words back, by whole pages. They are 0, and are taken again before anybody touches them.
    pub fn clear(&self, at: usize, len: usize) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.memory, flags, at as u64 * 8, len as u64 * 8)?)
    }

    /// So many words, which have memory.
    pub fn part(&self, at: usize, len: usize) -> &[AtomicU64] {
        assert!(at + len <= self.len(), "words {at} to {} of {}", at + len, self.len());
        // SAFETY: mapped, aligned, has memory, alive until drop; AtomicU64 allows sharing.
        unsafe { std::slice::from_raw_parts(self.words.add(at).as_ptr(), len) }
    }

    /// How many words have memory.
    pub fn len(&self) -> usize {
        self.len.load(Acquire)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < self.len(), "word {at} of {}", self.len());
        // SAFETY: mapped, aligned, has memory, alive until drop; AtomicU64 allows sharing.
        unsafe { self.words.add(at).as_ref() }
    }

    /// For another process.
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping of `open`, no reference outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.words.as_ptr().cast(), self.room * 8) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn words_are_there_for_whoever_has_the_descriptor() {
        let one = SharedWords::create(c"standin-test", 4096).unwrap();
        assert!(one.is_empty());
        one.grow(600).unwrap();
        one.word(599).store(7, Relaxed);
        let other = SharedWords::open(one.memory().try_clone_to_owned().unwrap(), 4096).unwrap();
        assert_eq!((other.len(), other.word(599).load(Relaxed)), (600, 7));
        drop(one);
        other.grow(4096).unwrap();
        assert_eq!((other.word(599).load(Relaxed), other.word(4095).load(Relaxed)), (7, 0));
        assert!(other.grow(4097).is_err());
    }

    #[test]
    #[should_panic(expected = "word 600 of 600")]
    fn what_has_no_memory_is_not_touched() {
        let words = SharedWords::create(c"standin-test", 4096).unwrap();
        words.grow(600).unwrap();
        words.word(600);
    }
}
