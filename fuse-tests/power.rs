//! The source loses power: its disk goes back to what was synced, its replica does not.
//!
//! `STANDIN_POWER_ROUNDS` says how often for each file system, `STANDIN_SEED` from which seed on.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::mount::UnmountFlags;

use crate::activity;
use crate::host::{self, Protected, clear_mounts, heavy, require_program, run};
use crate::random::setting;
use crate::sys::cut_power;
use crate::tree::Rules;
use standin::random::Random;

/// Programs that write at the same time.
const WRITERS: u64 = 2;
const FILES: u64 = 24;
/// The disk of the source, bytes: large enough for blocks of 4 KiB, as the replica's disk has.
const DISK_LEN: u64 = 600 << 20;

/// A file system of its own under the protected directory; unmounted on drop.
pub struct Disk {
    pub image: PathBuf,
    pub at: PathBuf,
}

impl Disk {
    pub fn new(kind: &str, protected: &Protected) -> Disk {
        let (image, at) = (protected.base.path().join("disk.image"), protected.backing.clone());
        File::create_new(&image).and_then(|file| file.set_len(DISK_LEN)).expect("an image");
        run(Command::new(require_program(&format!("mkfs.{kind}"))).arg("-q").arg(&image));
        let disk = Disk { image, at };
        disk.mount();
        disk
    }

    pub fn mount(&self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.at));
    }

    pub fn unmount(&self) {
        host::unmount_for_good(&self.image, &self.at);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.at, UnmountFlags::DETACH);
    }
}

/// Changes of all kinds; those that times do not tell of, above all.
pub struct Writer<'a> {
    pub root: &'a Path,
    pub random: Random,
}

impl Writer<'_> {
    fn name(&mut self) -> PathBuf {
        let dir = self.root.join(*self.random.one_of(&["a", "b"]));
        dir.join(format!("f{}", self.random.below(FILES)))
    }

    fn block(&mut self) -> Vec<u8> {
        vec![self.random.number() as u8; 1 + self.random.below(20_000) as usize]
    }

    /// As a database does between checkpoints.
    fn overwrite(&mut self) -> io::Result<File> {
        let file = File::options().read(true).write(true).open(self.name())?;
        let (len, bytes) = (file.metadata()?.len(), self.block());
        let at = self.random.below(len.saturating_sub(bytes.len() as u64).max(1));
        let end = bytes.len().min(len.saturating_sub(at) as usize);
        file.write_all_at(&bytes[..end], at)?;
        Ok(file)
    }

    pub fn act(&mut self) -> io::Result<()> {
        match self.random.below(12) {
            0 | 1 => fs::write(self.name(), self.block()),
            2..=4 => self.overwrite().map(drop),
            5 => self.overwrite()?.sync_all(),
            6 => {
                // A rewrite that keeps size and time.
                let name = self.name();
                let times = fs::metadata(&name)?.modified()?;
                let file = File::options().write(true).open(&name)?;
                let bytes = vec![self.random.number() as u8; file.metadata()?.len().min(9000) as usize];
                file.write_all_at(&bytes, 0)?;
                file.set_modified(times)
            }
            7 => {
                // Another file of the same size and time under this name.
                let (name, new) = (self.name(), self.name().with_extension("new"));
                let old = fs::metadata(&name)?;
                fs::write(&new, vec![self.random.number() as u8; old.len() as usize])?;
                File::options().write(true).open(&new)?.set_modified(old.modified()?)?;
                fs::rename(new, name)
            }
            8 => File::options().write(true).open(self.name())?.set_len(self.random.below(60_000)),
            9 => fs::remove_file(self.name()),
            10 => fs::hard_link(self.name(), self.name()),
            _ => fs::rename(self.name(), self.name()),
        }
    }
}

/// Writes until the power is gone; answers how many changes worked.
fn write(root: &Path, seed: u64, disk: &Disk, protected: &mut Protected) -> u64 {
    let (over, worked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..WRITERS {
            let (over, worked) = (&over, &worked);
            scope.spawn(move || {
                let mut writer = Writer { root, random: Random::new(seed ^ (number << 56)) };
                while !over.load(Relaxed) {
                    worked.fetch_add(u64::from(writer.act().is_ok()), Relaxed);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300 + seed % 7 * 300));
        cut_power(&disk.at).expect("a power cut");
        std::thread::sleep(Duration::from_millis(50));
        over.store(true, Relaxed);
        protected.kill9();
    });
    worked.into_inner()
}

/// The journal had the times of overwrites whose bytes never came to the disk: source and replica
/// differed, and were called equal.
fn lose_power(kind: &str) {
    let _alone = heavy();
    let (rounds, seed) = (setting("STANDIN_POWER_ROUNDS").unwrap_or(3), setting("STANDIN_SEED").unwrap_or(1));
    let mut protected = Protected::prepare(activity::strict());
    let disk = Disk::new(kind, &protected);
    for dir in ["a", "b"] {
        fs::create_dir(protected.backing.join(dir)).expect("a directory");
    }
    for round in seed..seed + rounds {
        // With generations that come and go meanwhile, or one, or a log that is not whole yet.
        protected.activity_every = (round % 3 == 0).then_some(Duration::from_millis(50));
        protected.start_again();
        if round % 3 != 2 {
            // Nothing is noted where nothing flows.
            protected.wait_sync();
            activity::wait_noted(&protected);
        }
        let root = protected.mount.clone();
        let worked = write(&root, round, &disk, &mut protected);
        clear_mounts(&protected.mount);
        disk.unmount();
        disk.mount();
        println!("{kind}: seed {round}: {worked} changes worked before the power was cut");
        assert!(worked > 20, "only {worked} changes");
        protected.start_again();
        // What was allocated and never written when the power went is a hole or zeros, by what of
        // it happens to be cached. Files here are smaller than the slack: bytes and times count.
        protected.assert_in_sync_by(&Rules { hole_slack: 64 << 10, ..Rules::default() });
        println!("{kind}: {} files were in doubt", activity::status(&protected)["activity"]["in_doubt"]);
        protected.stop();
    }
    drop(protected);
    drop(disk);
}

#[test]
fn ext4_is_equal_after_a_power_loss() {
    lose_power("ext4");
}

/// With file systems whose tools are not everywhere.
#[cfg(feature = "suites")]
mod suites {
    use super::*;

    #[test]
    fn xfs_is_equal_after_a_power_loss() {
        lose_power("xfs");
    }
}
