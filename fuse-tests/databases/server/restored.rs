//! A data directory that comes back from the replica, on a machine that has nothing of it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FallocateFlags;

use super::{Postgres, Series, Server};
use crate::host::{self, Daemon, Image, SYNC_MAX, describe, heavy};
use crate::hosts::Hosts;

/// Of the disk of the new machine, until room is made: less than any data directory takes.
const ROOM_AT_FIRST: u64 = 16 << 20;

/// The server was killed, and its host is lost; while the directory is given, the source that comes back is refused.
#[test]
fn a_restored_data_directory_opens_with_every_row() {
    let _heavy = heavy();
    let series = Series::<Postgres>::start(Hosts::prepare(), false);
    std::thread::sleep(Duration::from_secs(2));
    let Series { mut clients, server, mut site, _gone: gone, .. } = series;
    let told = clients.end();
    assert!(told.0.iter().all(|last| *last > 0), "{told:?}");
    drop((clients, server, gone));
    site.wait_sync();
    let hosts = site.as_hosts_mut();
    hosts.stop_source();

    let place = host::dir_on_disk();
    let disk = place.path().join("disk");
    let image = Image::mount(place.path(), disk.clone(), "ext4", 1024);
    for path in [place.path(), &disk] {
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("our own directory");
    }
    let filler = fill(&disk);
    let paired = hosts.pair_as("new-state", &hosts.repset, &hosts.invite(&["--restore"]));
    assert!(paired.status.success(), "{}", describe(&paired));
    let mut command = hosts.standin(&hosts.cable.source, "new-run", "new-state");
    command.args(["restore", &hosts.repset, "--to"]).arg(disk.join("restored"));
    let mut restoring = Daemon::spawn(command);
    host::wait_until("room is waited for", || restoring.said().contains("cannot be performed"));
    let mut source = Daemon::spawn(hosts.protect_command());
    source.wait_ready();
    hosts.wait_for_source("refused", |connection| {
        connection["reason"].as_str().is_some_and(|reason| reason.contains("is being restored from"))
    });
    fs::remove_file(filler).expect("our own file");
    let ended = restoring.wait(SYNC_MAX).expect("it ends");
    assert!(ended.success(), "{}", restoring.said());

    let found = Postgres::recover(&disk.join("restored/data")).expect("the restored directory");
    assert_eq!(found, told.0);
    // The source comes in by itself.
    host::wait_in_line(|| hosts.on_source(), || source.said());
    hosts.source = Some(source);
    assert!(site.stop().objects > Postgres::OBJECTS);
    drop(image);
}

/// Gives the file to remove.
fn fill(disk: &Path) -> std::path::PathBuf {
    let path = disk.join("filler");
    let file = File::create(&path).expect("a file");
    let free = rustix::fs::statvfs(disk).expect("room");
    let taken = free.f_bavail * free.f_frsize - ROOM_AT_FIRST;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, taken).expect("room is taken");
    path
}
