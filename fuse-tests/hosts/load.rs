//! Applications on the source: a tree that is there before, and writers that go on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode};

/// Writes, renames, links and removes until the end is asked for; counts its rounds.
fn work(root: &Path, number: u64, end: &AtomicBool, rounds: &AtomicU64) {
    let dir = root.join(format!("work{number}"));
    fs::create_dir_all(&dir).expect("a directory");
    let file = |round: u64, name: &str| dir.join(format!("{name}{}", round % 40));
    let mut round = 0;
    while !end.load(Relaxed) {
        round += 1;
        fs::write(file(round, "new"), round.to_string().repeat(700)).expect("a write");
        fs::rename(file(round, "new"), file(round, "kept")).expect("a rename");
        // The third name of a swap: done twice, it would lose a file.
        if round > 40 {
            let (one, other, third) = (file(round, "kept"), file(round + 7, "kept"), dir.join("third"));
            fs::rename(&one, &third).expect("a rename");
            fs::rename(&other, &one).expect("a rename");
            fs::rename(&third, &other).expect("a rename");
        }
        if round % 5 == 0 {
            let link = file(round, "link");
            let _ = fs::remove_file(&link);
            fs::hard_link(file(round, "kept"), &link).expect("a link");
        }
        rounds.fetch_add(1, Relaxed);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `during` while two writers work; gives the rounds that they made.
pub fn under_load(root: &Path, during: impl FnOnce(&AtomicU64)) -> u64 {
    let (end, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..2 {
            let (end, rounds) = (&end, &rounds);
            scope.spawn(move || work(root, number, end, rounds));
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| during(&rounds)));
        end.store(true, Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    rounds.load(Relaxed)
}

/// What is there before, with what a target has to be allowed.
pub fn fill(root: &Path) {
    fs::create_dir_all(root.join("before/deep")).expect("directories");
    for i in 0..50 {
        fs::write(root.join(format!("before/deep/{i}")), format!("{i} ").repeat(i * 200)).expect("a file");
    }
    fs::write(root.join("tool"), "x").expect("a file");
    fs::set_permissions(root.join("tool"), fs::Permissions::from_mode(0o4755)).expect("a mode");
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, root.join("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), null)
        .expect("a device node");
}
