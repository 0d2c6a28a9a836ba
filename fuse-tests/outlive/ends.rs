//! A daemon that is killed ends, whatever programs do: nothing of it may wait for what only it could give.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use standin::random::Random;

use crate::host::{Place, StopAtEnd, clear_mounts, heavy};
use crate::random::setting;
use crate::sys::Mapping;

const LEN: usize = 1 << 20;

/// Direct writes over pages that mappings have changed: the kernel has to write these back, and drop them, while
/// the daemon serves. Without a holder every call may fail.
fn write_directly(path: &Path, seed: u64, end: &AtomicBool) {
    let mut random = Random::new(seed);
    let bytes = vec![b'd'; 200_000];
    while !end.load(Relaxed) {
        let Ok(file) = OpenOptions::new().write(true).create(true).truncate(false).open(path) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        for _ in 0..60 {
            let len = 1 + random.below(bytes.len() as u64 - 1) as usize;
            if file.write_all_at(&bytes[..len], random.below(LEN as u64 / 2)).is_err() || end.load(Relaxed) {
                break;
            }
        }
    }
}

fn store_through_mappings(path: &Path, end: &AtomicBool) {
    while !end.load(Relaxed) {
        let open = || {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            file.set_len(LEN as u64)?;
            Mapping::new(&file, LEN)
        };
        if let Ok(mapping) = open() {
            let mut stores = (0..40).flat_map(|_| (7..LEN).step_by(4096));
            while !end.load(Relaxed) && stores.next().is_some_and(|at| mapping.store(at, b"m").is_ok()) {}
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// In a process of their own: a thread that waits for a page of a mapping holds up all others of its process that
/// map or end memory, and one of these would have to start the next daemon.
struct Programs(Child);

impl Programs {
    fn start(mount: &Path, seed: u64) -> Programs {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "outlive::ends::programs_of_their_own", "--ignored", "--test-threads", "1"]);
        command.env(MOUNT, mount).env("STANDIN_SEED", seed.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Programs(command.spawn().expect("programs"))
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Where the programs work that [`Programs`] starts.
const MOUNT: &str = "STANDIN_TEST_MOUNT";

/// No test: the programs of those below, until their input ends.
#[test]
#[ignore = "a part of other tests"]
fn programs_of_their_own() {
    let Some(mount) = std::env::var_os(MOUNT).map(std::path::PathBuf::from) else { return };
    let (seed, end) = (setting("STANDIN_SEED").unwrap_or(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = StopAtEnd(&end);
        for number in 0..3 {
            let path = mount.join(format!("mixed{number}"));
            let (end, mapped) = (&end, path.clone());
            scope.spawn(move || write_directly(&path, seed + number, end));
            scope.spawn(move || store_through_mappings(&mapped, end));
        }
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    });
}

#[track_caller]
fn ends_when_killed(arguments: &[&'static str]) {
    let _alone = heavy();
    let seed = setting("STANDIN_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = setting("STANDIN_ROUNDS").unwrap_or(8);
    println!("STANDIN_SEED={seed} STANDIN_ROUNDS={rounds}");
    let mut random = Random::new(seed);
    let mut protected = super::protected(Place::Beside, arguments);
    let mount = protected.mount.clone();
    let programs = Programs::start(&mount, seed);
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(200 + random.below(600)));
        // Fails where it does not end; then what waits is to end, too.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| protected.kill9()));
        if let Err(why) = ended {
            clear_mounts(&mount);
            std::panic::resume_unwind(why);
        }
        protected.start_at_once();
    }
    drop(programs);
    protected.wait_in_line();
    protected.wait_sync();
    protected.assert_in_sync();
    protected.stop();
}

#[test]
fn a_killed_daemon_ends_while_pages_are_dropped() {
    ends_when_killed(&[]);
}

#[test]
fn a_killed_daemon_with_a_holder_ends_while_pages_are_dropped() {
    ends_when_killed(super::HOLDER);
}

/// Never zeros: a copy makes a hole of them.
fn byte_of(number: usize) -> u8 {
    (number % 255) as u8 + 1
}

/// A request that is copied into memory which is not there, of a thread that was killed, comes back as an I/O error.
#[test]
fn long_writes_are_whole_over_kills() {
    let _alone = heavy();
    let seed = setting("STANDIN_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = setting("STANDIN_ROUNDS").unwrap_or(10);
    println!("STANDIN_SEED={seed} STANDIN_ROUNDS={rounds}");
    let mut random = Random::new(seed);
    let mut protected = super::protected(Place::Beside, super::HOLDER);
    let (end, mount) = (AtomicBool::new(false), protected.mount.clone());
    let append = |number: u64| {
        let path = mount.join(format!("long{number}"));
        let file = OpenOptions::new().create_new(true).append(true).open(path).expect("a log");
        let (mut random, mut written) = (Random::new(seed + number), Vec::new());
        while !end.load(Relaxed) && written.iter().sum::<usize>() < 200 << 20 {
            let len = (128 << 10) << random.below(4);
            let bytes = vec![byte_of(written.len()); len];
            let done = std::io::Write::write(&mut &file, &bytes).expect("an append");
            assert_eq!(done, len, "a short append");
            written.push(len);
        }
        written
    };
    let written: Vec<Vec<usize>> = std::thread::scope(|scope| {
        let _end = StopAtEnd(&end);
        let append = &append;
        let running: Vec<_> = (0..3).map(|number| scope.spawn(move || append(number))).collect();
        for _ in 0..rounds {
            std::thread::sleep(Duration::from_millis(20 + random.below(300)));
            protected.kill9();
            protected.start_at_once();
        }
        end.store(true, Relaxed);
        running.into_iter().map(|program| program.join().expect("a program ends")).collect()
    });
    for (number, written) in written.iter().enumerate() {
        let content = fs::read(mount.join(format!("long{number}"))).expect("a log");
        let expected =
            written.iter().enumerate().flat_map(|(at, len)| std::iter::repeat_n(byte_of(at), *len));
        assert!(content.into_iter().eq(expected), "long{number} is not what was appended");
    }
    protected.wait_in_line();
    protected.assert_in_sync();
    protected.stop();
}
