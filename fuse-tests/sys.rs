//! The unsafe calls of the tests: shared mappings and asynchronous I/O.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};

/// A shared mapping of a file. Bytes are moved by the kernel (through a memory file), so
/// a page that another thread truncates away is an error and no SIGBUS.
pub struct Mapping {
    at: NonNull<u8>,
    len: usize,
    transfer: File,
}

// SAFETY: the memory is only reached by system calls, which are atomic enough for a test.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes. Errors as mmap: `ENODEV` where the file system has no shared
    /// mappings.
    pub fn new(file: &File, len: usize) -> io::Result<Mapping> {
        Mapping::with(file, len, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// As [`Mapping::new`], only to load from: a handle for reading is enough.
    pub fn read_only(file: &File, len: usize) -> io::Result<Mapping> {
        Mapping::with(file, len, ProtFlags::READ)
    }

    fn with(file: &File, len: usize, protection: ProtFlags) -> io::Result<Mapping> {
        let transfer = rustix::fs::memfd_create("transfer", rustix::fs::MemfdFlags::CLOEXEC)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let at = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, file.as_fd(), 0)
        }?;
        let at = NonNull::new(at.cast()).expect("mmap gives no null page");
        Ok(Mapping { at, len, transfer: transfer.into() })
    }

    /// Stores bytes. Errors: `EFAULT` where the file has no page there.
    pub fn store(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        assert!(at + bytes.len() <= self.len);
        std::os::unix::fs::FileExt::write_all_at(&self.transfer, bytes, 0)?;
        // SAFETY: inside the mapping; the kernel answers EFAULT where there is no page.
        let done = unsafe {
            libc::pread(self.transfer.as_raw_fd(), self.at.as_ptr().add(at).cast(), bytes.len(), 0)
        };
        whole(done, bytes.len())
    }

    /// Loads bytes. Errors as [`Mapping::store`].
    pub fn load(&self, at: usize, bytes: &mut [u8]) -> io::Result<()> {
        assert!(at + bytes.len() <= self.len);
        // SAFETY: as in `store`.
        let done = unsafe {
            libc::pwrite(self.transfer.as_raw_fd(), self.at.as_ptr().add(at).cast(), bytes.len(), 0)
        };
        whole(done, bytes.len())?;
        std::os::unix::fs::FileExt::read_exact_at(&self.transfer, bytes, 0)
    }

    /// Writes dirty pages back and waits for them.
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: the mapping of `new`.
        Ok(unsafe { rustix::mm::msync(self.at.as_ptr().cast(), self.len, MsyncFlags::SYNC) }?)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; no reference to it was given out.
        let _ = unsafe { rustix::mm::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

fn whole(done: isize, expected: usize) -> io::Result<()> {
    match done {
        -1 => Err(io::Error::last_os_error()),
        done if done as usize == expected => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EFAULT)),
    }
}

/// Alignment of memory and file offsets that suits O_DIRECT everywhere.
pub const DIRECT_ALIGN: usize = 4096;

/// Memory aligned for O_DIRECT.
pub struct Aligned(Vec<Page>);

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u8; DIRECT_ALIGN]);

impl Aligned {
    /// `pages` times 4 KiB, filled with one byte.
    pub fn new(pages: usize, byte: u8) -> Aligned {
        Aligned(vec![Page([byte; DIRECT_ALIGN]); pages])
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: pages are plain bytes without padding, one behind the other.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * DIRECT_ALIGN) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * DIRECT_ALIGN) }
    }
}

/// A context of asynchronous I/O (`io_setup(2)`), as libaio makes it.
pub struct Aio(libc::c_ulong);

/// `struct iocb` of `linux/aio_abi.h` on little-endian machines.
#[repr(C)]
#[derive(Default)]
struct ControlBlock {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_file: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    block: u64,
    result: i64,
    result2: i64,
}

/// `IOCB_CMD_PWRITE`.
const COMMAND_PWRITE: u16 = 1;

impl Aio {
    pub fn new(depth: usize) -> io::Result<Aio> {
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes one word.
        answer(unsafe { libc::syscall(libc::SYS_io_setup, depth, &raw mut context) })?;
        Ok(Aio(context))
    }

    /// Submits writes of one buffer at several offsets together and waits for all. Gives each
    /// result: bytes, or a negative errno.
    pub fn write_all(&self, file: &File, buffer: &Aligned, offsets: &[u64]) -> io::Result<Vec<i64>> {
        let block = |&offset: &u64| ControlBlock {
            opcode: COMMAND_PWRITE,
            file: file.as_raw_fd() as u32,
            buffer: buffer.bytes().as_ptr() as u64,
            bytes: buffer.bytes().len() as u64,
            offset: offset as i64,
            ..ControlBlock::default()
        };
        let mut blocks: Vec<ControlBlock> = offsets.iter().map(block).collect();
        let mut pointers: Vec<*mut ControlBlock> = blocks.iter_mut().map(|block| &raw mut *block).collect();
        // SAFETY: blocks, buffer and file live until all events were taken below.
        let submitted = answer(unsafe {
            libc::syscall(libc::SYS_io_submit, self.0, pointers.len(), pointers.as_mut_ptr())
        })? as usize;
        let mut events = vec![Event::default(); submitted];
        let none: *const libc::timespec = std::ptr::null();
        // SAFETY: room for all events; no time-out, so that none is left behind.
        let got = answer(unsafe {
            libc::syscall(libc::SYS_io_getevents, self.0, submitted, submitted, events.as_mut_ptr(), none)
        })?;
        assert_eq!(got as usize, submitted);
        Ok(events.iter().map(|event| event.result).collect())
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // SAFETY: the context of `new`; all its events were taken.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

/// Runs a closure on a thread of its own as another user and group with exactly these further
/// groups; the rest of the process stays root.
pub fn as_other_user<T: Send>(id: u32, groups: &[u32], act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // The raw calls change this thread alone, unlike those of libc.
            // SAFETY: the kernel reads `groups.len()` numbers.
            answer(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
            // SAFETY: numbers only.
            answer(unsafe { libc::syscall(libc::SYS_setresgid, id, id, id) })?;
            // SAFETY: numbers only.
            answer(unsafe { libc::syscall(libc::SYS_setresuid, id, id, id) })?;
            Ok::<T, io::Error>(act())
        });
        thread.join().expect("the thread of another user").expect("root may become another user")
    })
}

fn answer(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The kernel's handle of a file (`name_to_handle_at(2)`): type and bytes.
pub fn file_handle(path: &std::path::Path) -> io::Result<(i32, Vec<u8>)> {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        value: [u8; 128],
    }
    let path = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))?;
    let mut handle = Handle { bytes: 128, kind: 0, value: [0; 128] };
    let mut mount = 0;
    // SAFETY: a handle with room for as many bytes as it says, and a C string.
    answer(unsafe {
        let handle = (&raw mut handle).cast();
        libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), handle, &raw mut mount, 0).into()
    })?;
    Ok((handle.kind, handle.value[..handle.bytes as usize].to_vec()))
}

/// Drops everything of a file system that is not durable, as a power cut would; it gives EIO from
/// then on until it is mounted anew (`EXT4_IOC_SHUTDOWN` without a flush of the journal).
pub fn cut_power(mounted: &std::path::Path) -> std::io::Result<()> {
    const SHUTDOWN: libc::c_ulong = 0x8004_587d;
    const NO_LOG_FLUSH: u32 = 2;
    let dir = std::fs::File::open(mounted)?;
    // SAFETY: the call reads one u32 from the address given.
    let result = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&dir), SHUTDOWN, &NO_LOG_FLUSH) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// From here on this thread has a table of descriptors of its own, with the standard ones in it: what
/// it opens no program has that others start, or closes.
pub fn own_descriptors() {
    // SAFETY: nothing of this thread uses one of those that go.
    let done = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_UNSHARE as i32) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;

    #[test]
    fn a_store_reaches_the_file_and_a_lost_page_is_an_error() {
        let dir = crate::host::dir_on_disk();
        let file = File::options().read(true).write(true).create_new(true).open(dir.path().join("file"));
        let file = file.unwrap();
        file.set_len(8192).unwrap();
        let mapping = Mapping::new(&file, 8192).unwrap();
        mapping.store(4090, b"0123456789").unwrap();
        mapping.sync().unwrap();
        let mut read = [0; 10];
        mapping.load(4090, &mut read).unwrap();
        assert_eq!(&std::fs::read(dir.path().join("file")).unwrap()[4090..4100], &read);
        file.set_len(0).unwrap();
        assert_eq!(mapping.store(0, b"x").unwrap_err().raw_os_error(), Some(libc::EFAULT));
    }

    #[test]
    fn asynchronous_writes_reach_the_file() {
        let dir = crate::host::dir_on_disk();
        let mut options = File::options();
        options.write(true).create(true).truncate(false).custom_flags(libc::O_DIRECT);
        let file = options.open(dir.path().join("file")).unwrap();
        let results = Aio::new(4).unwrap().write_all(&file, &Aligned::new(1, 7), &[0, 8192]).unwrap();
        assert_eq!(results, [4096, 4096]);
        let bytes = std::fs::read(dir.path().join("file")).unwrap();
        assert!(bytes.len() == 12288 && bytes[..4096] == [7; 4096] && bytes[4096..8192] == [0; 4096]);
    }
}
