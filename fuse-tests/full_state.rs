//! A state directory on a full disk: the daemon stands still, says so, and goes on when there is room.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::host::{Protected, Setup};

/// From the full disk to its name in the status, and back.
const NOTICED_MAX: Duration = Duration::from_secs(60);

/// A tmpfs that goes away with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> SmallDisk {
        rustix::mount::mount("none", at, "tmpfs", MountFlags::empty(), c"size=2m").expect("a tmpfs");
        SmallDisk(at.to_owned())
    }

    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).expect("a file");
        while file.write_all(&[1; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// The index of the replica grew into a file that was mapped before it had blocks: SIGBUS ended the
/// daemon, and every program in the directory got ENOTCONN.
#[test]
fn a_full_state_disk_holds_the_replica_and_nobody_else() {
    let mut protected = Protected::prepare(Setup::default());
    let disk = SmallDisk::mount(&protected.state);
    protected.start_again();
    // The first index has room for 3,072 objects: a few more, and it grows.
    (0..3065).for_each(|number| fs::write(protected.mount.join(format!("a{number}")), b"x").expect("room"));
    protected.wait_sync();
    let filler = disk.fill();
    for number in 0..400 {
        File::create(protected.mount.join(format!("b{number}"))).expect("the source has room");
    }
    let deadline = Instant::now() + NOTICED_MAX;
    while !protected.status().contains("No space left on device") {
        assert!(Instant::now() < deadline, "not said: {}", protected.status());
        std::thread::sleep(Duration::from_millis(100));
    }
    fs::write(protected.mount.join("b399"), b"x").expect("it serves");
    fs::remove_file(filler).expect("our own file");
    protected.assert_in_sync();
    protected.stop();
    drop(protected);
    drop(disk);
}
