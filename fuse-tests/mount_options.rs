//! What the backing's mount forbids, the mount forbids too; access times are kept as it says.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::host::{Protected, Setup, run, wait_until};

/// A tmpfs that goes away with the test.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path, options: &str) -> Tmpfs {
        run(Command::new("mount").args(["-i", "-t", "tmpfs", "-o", options, "none"]).arg(at));
        Tmpfs(at.to_owned())
    }

    fn remount(&self, options: &str) {
        Self::remount_at(&self.0, options);
    }

    fn remount_at(at: &Path, options: &str) {
        run(Command::new("mount").args(["-i", "-o", &format!("remount,bind,{options}")]).arg(at));
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Options of the mount on top at a place, as mountinfo has them.
fn options(at: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let at = at.canonicalize().expect("it is there");
    let line = table.lines().rfind(|line| line.split(' ').nth(4) == at.to_str()).expect("it is mounted");
    line.split(' ').nth(5).expect("options").split(',').map(str::to_owned).collect()
}

/// Long reads of what no cache has were bound by trips to the daemon, not by the disk.
#[test]
fn the_kernel_reads_far_ahead() {
    let mut protected = Protected::start(Setup::default());
    let device = fs::metadata(&protected.mount).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let knob = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    let kib: u64 = fs::read_to_string(knob).unwrap().trim().parse().unwrap();
    assert!(kib >= standin::limits::READ_AHEAD_KIB, "{kib}");
    protected.stop();
}

/// The mount lifted `nosuid,nodev,noexec` of the disk below it: an ordinary user became root by a
/// set-user-ID program that the administrator had made harmless.
#[test]
fn what_the_disk_forbids_stays_forbidden() {
    let mut protected = Protected::prepare(Setup::default());
    let disk = Tmpfs::mount(&protected.backing, "nosuid,nodev,noexec,noatime,mode=755");
    fs::copy("/bin/true", protected.backing.join("program")).expect("a program");
    protected.start_again();
    let own = options(&protected.mount);
    for option in ["nosuid", "nodev", "noexec", "noatime"] {
        assert!(own.iter().any(|own| own == option), "no {option} in {own:?}");
    }
    let program = protected.mount.join("program");
    let denied = Command::new(&program).status().expect_err("noexec");
    assert_eq!(denied.kind(), std::io::ErrorKind::PermissionDenied);

    // Changed later, one way and the other; what an administrator did to the mount itself stays.
    run(Command::new("mount")
        .args(["-i", "-o", "remount,bind,nosuid,noexec,dev,noatime"])
        .arg(&protected.mount));
    disk.remount("nosuid,nodev,exec,relatime");
    wait_until("exec follows", || Command::new(&program).status().is_ok_and(|status| status.success()));
    let own = options(&protected.mount);
    assert!(own.iter().any(|own| own == "nosuid") && !own.iter().any(|own| own == "nodev"), "{own:?}");

    // Read-only, while a file is open for writing and changes are on their way.
    (0..200).for_each(|number| fs::write(protected.mount.join(format!("{number}")), b"x").expect("room"));
    let writer = File::create(protected.mount.join("held")).expect("a file");
    disk.remount("ro,nosuid,nodev");
    wait_until("it says that it cannot follow", || protected.status().contains("\"mount_options\""));
    drop(writer);
    wait_until("ro follows", || File::create(protected.mount.join("late")).is_err());
    wait_until("the alert goes", || !protected.status().contains("\"mount_options\""));
    protected.assert_in_sync();
    disk.remount("rw,nosuid,nodev");
    wait_until("rw follows", || File::create(protected.mount.join("late")).is_ok());
    protected.assert_in_sync();
    protected.stop();
    drop(protected);
    drop(disk);
}

/// What an administrator had forbidden on the mount was allowed again as soon as the backing's mount
/// forbade it too for a while.
#[test]
fn what_the_mount_forbids_stays_forbidden() {
    let mut protected = Protected::prepare(Setup::default());
    let disk = Tmpfs::mount(&protected.backing, "relatime,mode=755");
    protected.start_again();
    Tmpfs::remount_at(&protected.mount, "ro,noexec");
    let has = |option: &str| options(&protected.mount).iter().any(|own| own == option);
    disk.remount("nosuid,relatime");
    wait_until("nosuid follows", || has("nosuid"));
    assert!(has("ro") && has("noexec"));
    disk.remount("ro,noexec,nosuid,nodev,relatime");
    wait_until("nodev follows", || has("nodev"));
    disk.remount("rw,suid,dev,exec,relatime");
    wait_until("the rest is allowed again", || !has("nosuid") && !has("nodev"));
    assert!(has("ro") && has("noexec"));
    // By whom it was forbidden it is allowed again.
    Tmpfs::remount_at(&protected.mount, "rw,exec");
    disk.remount("ro,noexec,relatime");
    wait_until("both follow", || has("ro") && has("noexec"));
    disk.remount("rw,exec,relatime");
    wait_until("both are allowed again", || !has("ro") && !has("noexec"));
    protected.stop();
    drop(protected);
    drop(disk);
}

/// A directory on a read-only mount was refused, or written to through ours.
#[test]
fn a_read_only_disk_gives_a_read_only_mount() {
    let mut protected = Protected::prepare(Setup::default());
    let disk = Tmpfs::mount(&protected.backing, "relatime,mode=755");
    fs::write(protected.backing.join("file"), b"text").expect("room");
    disk.remount("ro");
    protected.start_again();
    assert!(options(&protected.mount).iter().any(|own| own == "ro"));
    let refused = File::create(protected.mount.join("new")).expect_err("read-only");
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::read(protected.mount.join("file")).expect("it reads"), b"text");
    protected.assert_in_sync();
    protected.stop();
    drop(protected);
    drop(disk);
}

/// `noatime` on the mount changed nothing: the daemon read the disk with access times.
#[test]
fn access_times_are_kept_as_the_mount_says() {
    let mut protected = Protected::prepare(Setup::default());
    let disk = Tmpfs::mount(&protected.backing, "strictatime,mode=755");
    protected.start_again();
    // Each file is read once: its first read comes to the daemon.
    let moves = |number: u32| {
        let name = format!("file{number}");
        fs::write(protected.mount.join(&name), b"text").expect("room");
        let accessed =
            || fs::metadata(protected.backing.join(&name)).map(|meta| (meta.atime(), meta.atime_nsec()));
        let before = accessed().expect("it is there");
        std::thread::sleep(Duration::from_millis(20));
        let file = fs::File::open(protected.mount.join(&name)).expect("it is there");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("no page is kept");
        assert_eq!(fs::read(protected.mount.join(&name)).expect("it reads"), b"text");
        accessed().expect("it is there") != before
    };
    assert!(moves(0), "strictatime, as the disk");
    let flags = MountFlags::BIND | MountFlags::NOATIME;
    rustix::mount::mount_remount(&protected.mount, flags, "").expect("a remount");
    let numbers = std::cell::Cell::new(1);
    let moves_now = || moves(numbers.replace(numbers.get() + 1));
    wait_until("noatime reaches the disk", || !moves_now());
    let flags = MountFlags::BIND | MountFlags::STRICTATIME;
    rustix::mount::mount_remount(&protected.mount, flags, "").expect("a remount");
    wait_until("strictatime reaches the disk", moves_now);
    protected.stop();
    drop(protected);
    drop(disk);
}
