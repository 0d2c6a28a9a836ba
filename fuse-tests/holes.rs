//! Files that are almost nothing but a hole, as large as whole disks: they are compared and copied as what they are.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use serde_json::Value;

use crate::host::{Disk, Protected, SYNC_MAX, Setup, describe, output_within, standin};
use crate::mirror::{is_complete, wait_for_within};

const TIB: u64 = 1 << 40;
/// In the middle of a hole.
const MIDDLE: u64 = TIB / 2;

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).expect("a file")
}

/// What is written stays as old as the file.
fn write_in_secret(path: &Path, at: u64, bytes: &[u8]) {
    let file = open(path);
    let before = file.metadata().and_then(|meta| meta.modified()).expect("a time");
    file.write_all_at(bytes, at).expect("written");
    file.set_modified(before).expect("its time");
}

/// Exit code and summary.
#[track_caller]
fn verified(protected: &Protected, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = standin(&protected.run);
    let output = output_within(command.args(["verify", "--json", "--checksum"]).args(arguments), SYNC_MAX);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().unwrap_or_default();
    let line: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{}", describe(&output)));
    (output.status.code(), line["summary"].clone())
}

/// It took 250 s and more: both sides took hashes of blocks that nobody has read.
#[test]
fn a_hole_of_a_tebibyte_is_compared_and_copied_at_once() {
    let mut protected = Protected::prepare(Setup::default());
    let at = |name: &str| protected.backing.join(name);
    File::create(at("hole")).and_then(|file| file.set_len(TIB)).expect("a hole");
    let both = File::create(at("both ends")).expect("a file");
    both.write_all_at(b"first", 0).expect("written");
    both.write_all_at(b"last", TIB - 4).expect("written");
    drop(both);
    protected.start_again();
    let began = std::time::Instant::now();
    let (code, summary) = verified(&protected, &[]);
    println!("{:?}: {summary}", began.elapsed());
    assert_eq!((code, summary["different"].as_u64()), (Some(0), Some(0)), "{summary}");
    assert!(summary["bytes_compared"].as_u64() >= Some(2 * TIB), "{summary}");

    // Zeros that were written are the same content, also where they are more than is looked at together.
    let replica = protected.replica.join("hole");
    write_in_secret(&replica, MIDDLE, &vec![0; 20 << 20]);
    let (code, summary) = verified(&protected, &[]);
    assert_eq!((code, summary["different"].as_u64()), (Some(0), Some(0)), "{summary}");
    // And data are not.
    write_in_secret(&replica, MIDDLE + (10 << 20), b"nobody wrote this");
    write_in_secret(&protected.replica.join("both ends"), TIB / 4, b"nor this");
    let (code, summary) = verified(&protected, &[]);
    assert_eq!(summary["different"], 2, "{summary}");
    assert_eq!((code, summary["bytes_out_of_step"].as_u64()), (Some(1), Some(2 * 65_536)), "{summary}");

    // A copy by blocks, under changes of the file itself.
    let mount = open(&protected.mount.join("hole"));
    mount.write_all_at(b"written", TIB / 8).expect("written");
    let mirror = ["mirror", "start", "--mode", "checksum"];
    let output = output_within(standin(&protected.run).args(mirror), SYNC_MAX);
    assert!(output.status.success(), "{}", describe(&output));
    mount.write_all_at(b"written", TIB / 16).expect("written");
    wait_for_within(SYNC_MAX, &protected, "mended", is_complete);
    protected.wait_sync();
    let (code, summary) = verified(&protected, &[]);
    assert_eq!((code, summary["different"].as_u64()), (Some(0), Some(0)), "{summary}");
    // Holes again, in both.
    for name in ["hole", "both ends"] {
        let room = fs::metadata(protected.replica.join(name)).expect("a file").blocks() * 512;
        assert!(room < 1 << 20, "{name} takes {room} bytes");
    }
    drop(mount);
    protected.stop();
}

/// XFS gives what is written at the end of a file room for more, which stayed: a replica took 16 times the room.
#[test]
fn pieces_between_holes_take_no_more_room_than_they_need() {
    let replica = Disk::Image { kind: "xfs", mib: 400 };
    let mut protected = Protected::prepare(Setup { replica, ..Setup::default() });
    let file = File::create(protected.backing.join("pieces")).expect("a file");
    for piece in 0..1000 {
        file.write_all_at(&[7; 4096], piece * 65_536).expect("written");
    }
    drop(file);
    protected.start_again();
    let room = fs::metadata(protected.replica.join("pieces")).expect("a file").blocks() * 512;
    assert!(room < 1000 * 4096 * 2, "{room} bytes");
    protected.stop();
}
