//! Applications on the source: a tree that is there before, and writers that go on.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode};

/// Writes, renames, links and removes until the end is asked for; counts its rounds.
fn work(root: &Path, number: u64, pause: Duration, end: &AtomicBool, rounds: &AtomicU64) -> io::Result<()> {
    let dir = root.join(format!("work{number}"));
    fs::create_dir_all(&dir)?;
    let mut number = 0;
    while !end.load(Relaxed) {
        number += 1;
        round(&dir, number)?;
        rounds.fetch_add(1, Relaxed);
        std::thread::sleep(pause);
    }
    Ok(())
}

fn round(dir: &Path, round: u64) -> io::Result<()> {
    let file = |round: u64, name: &str| dir.join(format!("{name}{}", round % 40));
    fs::write(file(round, "new"), round.to_string().repeat(700))?;
    fs::rename(file(round, "new"), file(round, "kept"))?;
    // The third name of a swap: done twice, it would lose a file.
    if round > 40 {
        let (one, other, third) = (file(round, "kept"), file(round + 7, "kept"), dir.join("third"));
        fs::rename(&one, &third)?;
        fs::rename(&other, &one)?;
        fs::rename(&third, &other)?;
    }
    if round.is_multiple_of(5) {
        let link = file(round, "link");
        let _ = fs::remove_file(&link);
        fs::hard_link(file(round, "kept"), &link)?;
    }
    Ok(())
}

/// Runs `during` while two writers work; gives the rounds that they made.
pub fn under_load(root: &Path, during: impl FnOnce(&AtomicU64)) -> u64 {
    under_paced_load(root, Duration::from_millis(1), during)
}

/// As [`under_load`], with this pause between two rounds of a writer. A round is about 2.5 KB.
pub fn under_paced_load(root: &Path, pause: Duration, during: impl FnOnce(&AtomicU64)) -> u64 {
    let work =
        |number, end: &_, rounds: &_| work(root, number, pause, end, rounds).expect("applications go on");
    beside(work, during)
}

/// As [`under_load`], in the course of which the source is killed: the writers end with its mount.
pub fn until_killed(root: &Path, during: impl FnOnce(&AtomicU64)) -> u64 {
    let work = |number, end: &_, rounds: &_| {
        let ended = work(root, number, Duration::from_millis(1), end, rounds);
        let code = ended.expect_err("the mount died under it").raw_os_error();
        assert!(matches!(code, Some(libc::ENOTCONN | libc::ECONNABORTED | libc::EIO)), "{code:?}");
    };
    beside(work, during)
}

/// Two writers append 64 KiB each 20 ms, in files of 4 MiB.
pub fn under_stream(root: &Path, during: impl FnOnce(&AtomicU64)) -> u64 {
    let append = |number: u64, end: &AtomicBool, blocks: &AtomicU64| {
        let mut count: u64 = 0;
        while !end.load(Relaxed) {
            let path = root.join(format!("stream{number}-{}", count / 64 % 4));
            let mut file = fs::File::options();
            let file = if count.is_multiple_of(64) {
                file.create(true).write(true).truncate(true)
            } else {
                file.append(true)
            };
            let block: Vec<u8> = (0..1 << 16).map(|i: u64| (i * i + count) as u8).collect();
            file.open(path).and_then(|mut file| file.write_all(&block)).expect("applications go on");
            count += 1;
            blocks.fetch_add(1, Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    beside(append, during)
}

fn beside(work: impl Fn(u64, &AtomicBool, &AtomicU64) + Sync, during: impl FnOnce(&AtomicU64)) -> u64 {
    let (end, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..2 {
            let (work, end, rounds) = (&work, &end, &rounds);
            scope.spawn(move || work(number, end, rounds));
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
