//! The disk of the target: full while a server works on the mount, and without power.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{Postgres, Series, Server};
use crate::databases::{Site, copy_away, seeded};
use crate::host::{COMMAND_MAX, Image, heavy, output_within, run};
use crate::hosts::Hosts;

/// A file system of its own for a target's replicas. Unmounted on drop, after what uses it.
struct TargetDisk {
    at: PathBuf,
    _image: Image,
    place: tempfile::TempDir,
}

impl TargetDisk {
    /// Hosts whose target has its replicas on a disk of `mib` MiB.
    fn below(hosts: &Hosts, mib: u64) -> TargetDisk {
        let place = crate::host::dir_on_disk();
        let at = place.path().join("disk");
        let image = Image::mount(place.path(), at.clone(), "ext4", mib);
        fs::remove_dir(hosts.at("root")).expect("an empty directory");
        symlink(&at, hosts.at("root")).expect("a symlink");
        TargetDisk { at, _image: image, place }
    }

    /// All that is not durable is gone, and the disk is there again.
    fn lose_power(&self) {
        crate::sys::cut_power(&self.at).expect("a power cut");
        run(Command::new("umount").arg(&self.at));
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(self.place.path().join("disk.image"))
            .arg(&self.at));
    }

    /// Fills it to the last byte; gives the file to remove.
    fn fill(&self) -> PathBuf {
        let path = self.at.join("filler");
        let mut file = File::create(&path).expect("a file");
        for len in [1 << 20, 4096, 1] {
            let bytes = vec![7; len];
            while file.write_all(&bytes).is_ok() {}
        }
        path
    }
}

/// Applications notice nothing, the status says what is wrong, the copy is as of one moment all the
/// while, and it goes on by itself.
#[test]
fn a_full_disk_of_the_target_stops_no_server() {
    let _heavy = heavy();
    let (_, mut random) = seeded("PostgreSQL, the target's disk full");
    let prepared = Hosts::prepare();
    let disk = TargetDisk::below(&prepared, 640);
    let mut series = Series::<Postgres>::start(prepared, false);
    for round in 0..3 {
        let filler = disk.fill();
        series.site.as_hosts().wait_for_source("retrying", |connection| {
            connection["retrying"]["reason"].as_str().is_some_and(|reason| reason.contains("No space left"))
        });
        for _ in 0..50 {
            series.clients.assert_goes_on();
        }
        let applied = applied(&series.site);
        let status = series.site.as_hosts().status(series.site.as_hosts().on_target());
        assert!(!status["target"]["replicas"][0]["retrying"].is_null(), "round {round}: {status}");
        if round == 1 {
            series.site.as_hosts_mut().kill_target();
            series.site.as_hosts_mut().serve();
            series
                .site
                .as_hosts()
                .wait_for_source("retrying again", |connection| !connection["retrying"].is_null());
        }
        series.cut(&mut random);
        fs::remove_file(filler).expect("our own file");
        series.site.wait_sync();
        assert!(self::applied(&series.site) > applied);
        series.cut(&mut random);
    }
    series.end();
    drop(disk);
}

fn applied(site: &Site) -> u64 {
    let hosts = site.as_hosts();
    let status = hosts.status(hosts.on_source());
    status["connections"][0]["applied"].as_u64().unwrap_or_else(|| panic!("no position: {status}"))
}

/// With `--fsync=target` the replica is to a server what its own disk is, also when the replica's
/// disk loses all that was not synced.
#[test]
fn what_was_acknowledged_survives_the_loss_of_power_at_the_target() {
    let _heavy = heavy();
    let (_, mut random) = seeded("PostgreSQL, power lost at the target");
    for _ in 0..crate::databases::cuts(3).min(3) {
        let prepared = Hosts::prepare();
        let disk = TargetDisk::below(&prepared, 640);
        let mut series = Series::<Postgres>::start(prepared, true);
        std::thread::sleep(Duration::from_micros(1_500_000 + random.below(3_000_000)));
        let before = series.clients.told();
        series.site.as_hosts_mut().kill_target();
        let after = series.clients.told();
        disk.lose_power();
        let copy = series.copy_away();
        series.judge("power lost", &copy, &before, &after);
        println!("of {before:?} transactions, behind by {}", series.behind);
        resume(series);
        drop(disk);
    }
}

/// The server stops as on a broken disk; the next start brings the replica into line again.
fn resume(series: Series<Postgres>) {
    let Series { clients, server, mut site, copies, .. } = series;
    let hosts = site.as_hosts_mut();
    // Its exit code says that something was left.
    output_within(hosts.on_source().args(["stop", "--now"]), COMMAND_MAX);
    hosts.source.take().expect("it ran").wait(COMMAND_MAX);
    drop((clients, server));
    hosts.serve();
    hosts.protect();
    assert!(hosts.assert_in_sync().objects > 900);
    let copy = copies.path().join("copy");
    copy_away(&hosts.replica().join("data"), &copy);
    Postgres::recover(&copy).unwrap_or_else(|wrong| panic!("in line again: {wrong}"));
    hosts.stop_source();
    hosts.stop_target();
}
