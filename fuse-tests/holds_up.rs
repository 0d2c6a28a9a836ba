//! A target that is there and takes nothing: programs go on, and it is brought into line when it takes something again.

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::host::{Disk, Protected, Setup, heavy};
use crate::mirror::{is_complete, wait_for_within};
use crate::tree::Rules;

/// What the writes below take, with every wait that is allowed.
const WRITES_MAX: Duration = Duration::from_secs(90);
/// With the attempts that fail before.
const CONVERGES_MAX: Duration = Duration::from_secs(180);
const PIECE: usize = 1 << 20;

/// More than the queue holds, and the disk of the replica.
fn setup() -> Setup {
    let arguments = vec!["--queue-memory", "32M", "--queue-disk-limit", "0"];
    Setup { replica: Disk::Image { kind: "ext4", mib: 64 }, arguments, ..Setup::default() }
}

/// So many MiB, of which nobody may have to wait for long.
fn write_on(at: &Path, pieces: usize) {
    let (done, end) = mpsc::channel();
    let file = fs::File::create(at).expect("a file");
    std::thread::spawn(move || {
        for _ in 0..pieces {
            std::io::Write::write_all(&mut &file, &vec![5; PIECE]).expect("a write");
        }
        done.send(())
    });
    end.recv_timeout(WRITES_MAX).expect("programs go on");
}

fn in_line_again(protected: &mut Protected) {
    wait_for_within(CONVERGES_MAX, protected, "in line", |now| {
        is_complete(now) && now["needs_copy"] == false
    });
    protected.assert_in_sync_by(&Rules { hole_slack: 64 * 1024, ..Rules::default() });
    protected.stop();
}

#[test]
fn a_full_replica_keeps_no_program_waiting() {
    let _alone = heavy();
    let mut protected = Protected::start(setup());
    fs::write(protected.mount.join("file"), "x").expect("a write");
    protected.wait_sync();
    write_on(&protected.mount.join("large"), 120);
    let is_told = |now: &Value| {
        now["needs_copy"] == true && now["reason"].as_str().is_some_and(|why| why.contains("No space left"))
    };
    wait_for_within(WRITES_MAX, &protected, "let go", is_told);
    fs::remove_file(protected.mount.join("large")).expect("removed");
    fs::write(protected.mount.join("file"), "y").expect("a write");
    in_line_again(&mut protected);
}

/// What it has taken until then is freed by a person (`standin orphans`), or the disk grows.
#[test]
fn a_replica_that_a_first_copy_fills_keeps_no_program_waiting() {
    let _alone = heavy();
    let mut protected = Protected::prepare(setup());
    fs::write(protected.backing.join("first"), vec![3; 80 << 20]).expect("a file");
    protected.start_at_once();
    write_on(&protected.mount.join("large"), 160);
    let is_told = |now: &Value| {
        let says_why = |text: &Value| text.as_str().is_some_and(|why| why.contains("No space left"));
        now["data"] == "bad" && (says_why(&now["reason"]) || says_why(&now["retrying"]["reason"]))
    };
    wait_for_within(WRITES_MAX, &protected, "told", is_told);
    protected.stop_by(libc::SIGKILL);
}
