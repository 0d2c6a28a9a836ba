//! The target's host loses power: of its replica, and of what is known of that, only what was synced is certainly there.
//! `STANDIN_POWER_ROUNDS` says how often, `STANDIN_SEED` from which seed on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::mount::UnmountFlags;

use super::Hosts;
use crate::host::{self, StopAtEnd, heavy, require_program, run};
use crate::power::Writer;
use crate::random::{self, setting};
use crate::sys::cut_power;
use standin::random::Random;

/// Bytes.
const DISK_LEN: u64 = 1 << 30;
/// Files that nobody changes.
const STILL: u64 = 500;

/// The disk of the target's host, with replica and state; unmounted on drop.
struct Disk {
    image: PathBuf,
    at: PathBuf,
    /// What it has is shown there.
    parts: [PathBuf; 2],
}

impl Disk {
    fn new(kind: &str, hosts: &Hosts) -> Disk {
        let (image, at) = (hosts.at("disk.image"), hosts.at("disk"));
        fs::File::create_new(&image).and_then(|file| file.set_len(DISK_LEN)).expect("an image");
        run(Command::new(require_program(&format!("mkfs.{kind}"))).arg("-q").arg(&image));
        let parts = ["root", "target-state"].map(|part| hosts.at(part));
        for dir in [&at, &parts[1]] {
            fs::create_dir(dir).expect("a directory");
        }
        let disk = Disk { image, at, parts };
        run(Command::new("mount").args(["-o", "loop"]).arg(&disk.image).arg(&disk.at));
        for part in &disk.parts {
            fs::create_dir(disk.at.join(part.file_name().expect("a name"))).expect("a directory");
        }
        disk.show();
        disk
    }

    fn show(&self) {
        for part in &self.parts {
            let own = self.at.join(part.file_name().expect("a name"));
            run(Command::new("mount").arg("--bind").arg(own).arg(part));
        }
    }

    /// As its host finds it when it is up again.
    fn put_back(&self) {
        for part in &self.parts {
            rustix::mount::unmount(part, UnmountFlags::DETACH).expect("unmounted");
        }
        host::unmount_for_good(&self.image, &self.at);
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.at));
        self.show();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for place in self.parts.iter().chain([&self.at]) {
            let _ = rustix::mount::unmount(place, UnmountFlags::DETACH);
        }
    }
}

/// Programs work at the source until it is over.
fn work(mount: &Path, seed: u64, over: &AtomicBool, done: &AtomicU64) {
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut writer = Writer { root: mount, random: Random::new(seed) };
            while !over.load(Relaxed) {
                done.fetch_add(u64::from(writer.act().is_ok()), Relaxed);
            }
        });
        scope.spawn(move || {
            for turn in 0.. {
                if over.load(Relaxed) {
                    break;
                }
                random::work(mount, seed ^ turn << 32, 50);
            }
        });
    });
}

/// Everything was compared, a replica of millions of files, for what had changed in some seconds.
fn lose_power(kind: &str) {
    let _alone = heavy();
    let (rounds, first) =
        (setting("STANDIN_POWER_ROUNDS").unwrap_or(4), setting("STANDIN_SEED").unwrap_or(1));
    let mut hosts = Hosts::prepare();
    let disk = Disk::new(kind, &hosts);
    for dir in ["a", "b", "still"] {
        fs::create_dir(hosts.backing().join(dir)).expect("a directory");
    }
    for number in 0..STILL {
        fs::write(hosts.backing().join(format!("still/{number}")), number.to_string()).expect("a file");
    }
    random::prepare(&hosts.backing());
    hosts.serve_arguments = vec!["--allow", "device,setuid,security"];
    hosts.connect();
    let (mount, mut minicopies) = (hosts.mount.clone(), 0);
    for seed in first..first + rounds {
        let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let _stops = StopAtEnd(&over);
            scope.spawn(|| work(&mount, seed, &over, &done));
            std::thread::sleep(Duration::from_millis(300 + seed % 7 * 400));
            cut_power(&disk.at).expect("a power cut");
            hosts.kill_target();
            disk.put_back();
            hosts.serve();
            // It comes back into line while they go on.
            std::thread::sleep(Duration::from_millis(seed % 3 * 500));
        });
        // Which zeros are holes is the file system's business, and not what is asked here.
        let rules = crate::tree::Rules { ignore_holes: true, ..crate::tree::Rules::default() };
        hosts.assert_in_sync_by(&rules);
        let connection = hosts.connection();
        let is_minicopy = connection["progress"]["mode"] == "minicopy";
        let copied = connection["progress"]["files_done"].clone();
        println!(
            "{kind}: seed {seed}: {} changes; minicopy {is_minicopy}, {copied} files",
            done.into_inner()
        );
        assert_eq!(connection["data"], "good", "{connection}");
        minicopies += u64::from(is_minicopy);
    }
    assert!(minicopies * 2 >= rounds, "{minicopies} of {rounds} were minicopies\n{}", hosts.said());
    hosts.stop_source();
    hosts.stop_target();
    drop(disk);
}

#[test]
fn a_target_on_ext4_that_loses_power_gets_what_has_changed() {
    lose_power("ext4");
}

/// With file systems whose tools are not everywhere.
#[cfg(feature = "suites")]
mod suites {
    use super::*;

    #[test]
    fn a_target_on_xfs_that_loses_power_gets_what_has_changed() {
        lose_power("xfs");
    }
}
