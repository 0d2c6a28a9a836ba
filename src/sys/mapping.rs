//! A page of a file, mapped shared, for tests of what others may do. The product reads and
//! writes no mapping of a file: a store into one on a full or failing disk ends the process (`SIGBUS`).

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Words in a page.
pub const PAGE_WORDS: usize = 512;

/// 4 KiB of a file as 512 atomic words, shared with the page cache. Stores survive kill -9 of
/// the process at once, power loss only after a sync of the file.
pub struct SharedPage {
    words: NonNull<[AtomicU64; PAGE_WORDS]>,
}

// SAFETY: the page is only reached as atomic words; the mapping lives as long as the value.
unsafe impl Send for SharedPage {}
// SAFETY: as above.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    /// Maps the first 4 KiB of a file opened for reading and writing; a shorter file is extended
    /// (new bytes are zero).
    pub fn map(file: &std::fs::File) -> io::Result<SharedPage> {
        if file.metadata()?.len() < 4096 {
            file.set_len(4096)?;
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice; the file has 4 KiB, and
        // only this product writes it.
        let address = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                4096,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::SHARED,
                file.as_fd(),
                0,
            )
        }?;
        Ok(SharedPage { words: NonNull::new(address.cast()).expect("mmap gives no null page") })
    }

    /// The page's words. Callers choose the memory order.
    pub fn words(&self) -> &[AtomicU64; PAGE_WORDS] {
        // SAFETY: mapped, page-aligned, 4 KiB long, alive until drop; AtomicU64 allows sharing.
        unsafe { self.words.as_ref() }
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: the mapping of `map`, no reference outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.words.as_ptr().cast(), 4096) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn a_word_is_in_the_file() {
        let file = tempfile::tempfile().unwrap();
        SharedPage::map(&file).unwrap().words()[3].store(7, Relaxed);
        assert_eq!(SharedPage::map(&file).unwrap().words()[3].load(Relaxed), 7);
    }
}
