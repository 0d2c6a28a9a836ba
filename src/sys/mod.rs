//! All unsafe code, one system call a function; everything else goes through rustix.

#[cfg(test)]
mod allocations;
mod along;
mod arp;
mod boot;
mod calls;
mod child;
mod clock;
mod descriptor;
mod entry;
mod filesystem;
mod handle;
mod local_time;
mod loopback;
#[cfg(test)]
mod mapping;
mod memory;
mod mount;
mod peer;
mod reads;
mod ready;
mod stuck;
mod sync;
mod terminal;
mod thread;
mod usage;
mod words;

#[cfg(test)]
pub use allocations::{Allocated, allocated};
pub use along::{receive_along, send_along};
pub use arp::{ArpSocket, HardwareAddress, has_carrier};
pub use boot::boot_id;
pub use calls::{Instruction, filter_calls};
pub use child::{Network, own_mounts, spawn_bound, spawn_isolated};
pub use clock::{KeptClock, kept_clock, process_time};
pub use descriptor::{DescriptorNumber, left_open, pass_alone, replace_descriptor};
pub use entry::{has_xattrs_at, is_no_mount};
pub use filesystem::{filesystem_uuid, is_fuse};
pub use handle::{FileHandle, open_by_handle};
pub use local_time::utc_offset;
pub use loopback::raise_loopback;
#[cfg(test)]
pub use mapping::SharedPage;
pub use memory::{give_back_memory, keep_in_memory};
pub use mount::{MountOptions, Seal, seal_tree, set_mount_options};
pub use peer::{Peer, peer_of};
pub use reads::{Access, accesses, in_memory, watch_reads};
pub use ready::is_ready_within;
pub use stuck::{Call, Sleep, Undead, call_of, stuck_threads, undead};
pub use sync::{share_range, sync_pages};
pub use terminal::terminal_size;
pub use thread::{Identity, act_as, acting_as, administers, as_caller, set_own_umask};
pub use usage::{Usage, usage, usage_of_children};
pub use words::SharedWords;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

/// The path under which the kernel lets a process reach the object behind a descriptor
/// (`O_PATH` ones too) by calls that have no descriptor form. Never resolves a symlink behind it
/// when the call itself follows only this one.
pub fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
