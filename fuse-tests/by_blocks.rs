//! Copies that compare blocks: every mode under load, what is found by which, and how little goes over the wire.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::Value;

use crate::host::{Protected, Setup, StopAtEnd};
use crate::mirror::{connection, is_complete, told, wait_for};
use crate::verify::{damage, plant, work};

const BLOCK: u64 = 64 << 10;

fn planted() -> Protected {
    let mut protected = Protected::prepare(Setup::default());
    plant(&protected.backing);
    protected.start_again();
    protected.wait_sync();
    protected
}

/// Nothing is in doubt only because it is new: that counts two seconds after it was written, from a stop on.
fn rest(protected: &mut Protected) {
    std::thread::sleep(Duration::from_secs(3));
    protected.stop();
    protected.start_again();
    protected.wait_sync();
}

/// Gives how the copy was shown when it was over.
fn copied(protected: &Protected, arguments: &[&str]) -> Value {
    let began = connection(protected)["progress"]["started_unix_ms"].clone();
    told(protected, &[&["start"], arguments].concat());
    let done = wait_for(protected, "complete", |connection| {
        is_complete(connection) && connection["progress"]["started_unix_ms"].as_u64() > began.as_u64()
    });
    done["progress"].clone()
}

/// Whatever differs, and whatever programs do meanwhile: but for a byte that was flipped with size and
/// time kept, each mode finds it.
#[test]
fn each_mode_brings_a_damaged_replica_into_line_under_load() {
    for mode in ["full", "differences", "differences+checksum", "checksum"] {
        let mut protected = planted();
        rest(&mut protected);
        damage(&protected.replica);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stops = StopAtEnd(&stop);
            scope.spawn(|| work(&protected.mount.join("d0"), &protected.mount.join("d2"), &stop));
            let progress = copied(&protected, &["--mode", mode]);
            assert_eq!(progress["mode"], mode);
        });
        protected.wait_sync();
        let flipped = |root: &Path| fs::read(root.join("large")).expect("a file");
        let is_mended = flipped(&protected.replica) == flipped(&protected.backing);
        assert_eq!(is_mended, mode == "full" || mode == "checksum", "{mode}");
        if !is_mended {
            copied(&protected, &["--mode", "checksum", "--audit"]);
        }
        protected.assert_in_sync();
        protected.stop();
    }
}

fn sent(protected: &Protected) -> u64 {
    connection(protected)["sent"]["bytes"].as_u64().expect("a number")
}

fn flip(file: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(file).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[!byte[0]], at).expect("written");
}

/// What was written while nothing ran, and what differs on the replica, goes in its blocks.
#[test]
fn a_few_bytes_in_a_large_file_send_a_few_blocks() {
    let mut protected = Protected::prepare(Setup::default());
    let content: Vec<u8> = (0..12 << 20).map(|at| (at >> 9) as u8).collect();
    fs::write(protected.backing.join("large"), &content).expect("a file");
    fs::write(protected.backing.join("small"), &content[..300_000]).expect("a file");
    protected.start_again();
    rest(&mut protected);
    protected.stop();
    for at in [5, 7 << 20, (12 << 20) - 1] {
        flip(&protected.backing.join("large"), at);
    }
    protected.start_again();
    protected.assert_in_sync();
    let (all, progress) = (sent(&protected), connection(&protected)["progress"].clone());
    assert_eq!(progress["bytes_done"], 3 * BLOCK, "{progress}");
    assert!(all < 4 * BLOCK, "{all} bytes were sent");

    flip(&protected.replica.join("large"), 3 << 20);
    flip(&protected.replica.join("small"), 0);
    let progress = copied(&protected, &["--mode", "differences"]);
    assert_eq!(progress["bytes_done"], BLOCK + 300_000, "a small file goes whole: {progress}");
    flip(&protected.replica.join("small"), 0);
    let progress = copied(&protected, &["--mode", "differences+checksum"]);
    assert_eq!(progress["bytes_done"], BLOCK, "{progress}");
    protected.assert_in_sync();
    let progress = copied(&protected, &["--mode", "checksum"]);
    assert_eq!(progress["bytes_done"], 0, "{progress}");
    assert!(sent(&protected) - all < 8 * BLOCK + 300_000, "{} more bytes were sent", sent(&protected) - all);
    protected.stop();
}
