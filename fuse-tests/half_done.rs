//! Calls that fail after they have changed something: the replica has what they left.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;

use crate::host::{Disk, Protected, Setup};

/// `ZERO_RANGE` over more than the disk holds zeroes what is there and then fails for want of
/// space. Nothing of it was sent: the replica kept the old bytes and was called good.
#[test]
fn a_range_call_that_runs_out_of_space_is_captured() {
    for how in [FallocateFlags::ZERO_RANGE, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE] {
        let source = Disk::Image { kind: "ext4", mib: 64 };
        let protected = Protected::start(Setup { source, ..Setup::default() });
        let path = protected.mount.join("f");
        fs::write(&path, vec![b'o'; 3 << 20]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.set_len(400 << 20).unwrap();
        file.write_all_at(&vec![b'b'; 1 << 20], 390 << 20).unwrap();
        protected.wait_sync();
        let error = rustix::fs::fallocate(&file, how, 1 << 20, 399 << 20).unwrap_err();
        assert_eq!(error, rustix::io::Errno::NOSPC);
        let mut byte = [1];
        file.read_exact_at(&mut byte, 2 << 20).unwrap();
        assert_eq!(byte, [0], "the file system zeroes before it fails: otherwise this tests nothing");
        drop(file);
        protected.assert_in_sync();
        assert!(!protected.status().contains("capture_diverged"));
    }
}
