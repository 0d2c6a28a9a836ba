//! `--fsync=target`: what an fsync promises, and what it does when the target cannot keep it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::host::{self, COMMAND_MAX, Disk, Protected, Setup, heavy, output_within, run, standin};
use standin::random::Random;

const RECORD_LEN: usize = 64;

/// How a program makes its records durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Fsync,
    Fdatasync,
    /// `O_DSYNC` on a write-only handle: the daemon itself turns the write into a sync.
    OpenSync,
    /// `O_SYNC` on a read-write handle: the kernel sends the fsync.
    OpenSyncReadWrite,
}

const WAYS: [Way; 4] = [Way::Fsync, Way::Fdatasync, Way::OpenSync, Way::OpenSyncReadWrite];

fn record(number: u64) -> Vec<u8> {
    let mut record = format!("{number:<63}").into_bytes();
    record.push(b'\n');
    assert_eq!(record.len(), RECORD_LEN);
    record
}

/// Appends numbered records, each synced, until the mount fails; `acknowledged` is the last one
/// whose sync returned.
fn write_records(path: &Path, way: Way, acknowledged: &AtomicU64, end: &AtomicBool) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    match way {
        Way::Fsync | Way::Fdatasync => {}
        Way::OpenSync => drop(options.custom_flags(libc::O_DSYNC)),
        Way::OpenSyncReadWrite => drop(options.read(true).custom_flags(libc::O_SYNC)),
    }
    let mut file = options.open(path)?;
    for number in 1.. {
        if end.load(SeqCst) {
            break;
        }
        file.write_all(&record(number))?;
        match way {
            Way::Fsync => file.sync_all()?,
            Way::Fdatasync => file.sync_data()?,
            Way::OpenSync | Way::OpenSyncReadWrite => {}
        }
        acknowledged.store(number, SeqCst);
    }
    Ok(())
}

/// Every record up to the acknowledged one is there, whole.
#[track_caller]
fn check_records(path: &Path, acknowledged: u64, what: &str) {
    let content = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        outcome => outcome.expect("a replica that can be read"),
    };
    for number in 1..=acknowledged {
        let at = (number as usize - 1) * RECORD_LEN;
        let found = content.get(at..at + RECORD_LEN);
        assert!(
            found == Some(record(number).as_slice()),
            "{what}: record {number} of {acknowledged} acknowledged ones is not on the replica ({} bytes)",
            content.len()
        );
    }
}

/// Longer than any machine needs for some syncs.
const STALL_MAX: Duration = Duration::from_secs(60);

/// Lets four programs write for a random while, kills the daemon at once; gives what each was told.
fn write_and_kill(protected: &mut Protected, round: u64, random: &mut Random) -> [u64; 4] {
    let acknowledged: [AtomicU64; 4] = Default::default();
    let end = AtomicBool::new(false);
    let mount = protected.mount.clone();
    let name = |way: Way| format!("{way:?}{round}");
    std::thread::scope(|scope| {
        for (way, acknowledged) in WAYS.into_iter().zip(&acknowledged) {
            let (path, end) = (mount.join(name(way)), &end);
            scope.spawn(move || drop(write_records(&path, way, acknowledged, end)));
        }
        // After some progress, however slow the machine is, at any moment.
        let (some, since) = (1 + random.below(60), Instant::now());
        while acknowledged.iter().map(|count| count.load(SeqCst)).sum::<u64>() < some {
            assert!(since.elapsed() < STALL_MAX, "no sync is acknowledged any more");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        protected.kill9();
        end.store(true, SeqCst);
    });
    acknowledged.map(AtomicU64::into_inner)
}

#[test]
fn what_was_synced_is_on_the_replica_when_the_daemon_is_killed() {
    let _heavy = heavy();
    let seed = std::process::id().into();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let setup = Setup { arguments: vec!["--fsync=target"], ..Setup::default() };
    let mut protected = Protected::prepare(setup);
    let mut total = 0;
    // Four programs each: 100 random ends.
    for round in 0..25 {
        protected.start_again();
        let acknowledged = write_and_kill(&mut protected, round, &mut random);
        for (way, acknowledged) in WAYS.into_iter().zip(acknowledged) {
            let name = format!("{way:?}{round}");
            check_records(&protected.replica.join(&name), acknowledged, &name);
            total += acknowledged;
        }
    }
    assert!(total >= 25, "only {total} records were acknowledged");
    eprintln!("{total} acknowledged records in 100 files, all there");
}

/// The page cache of the replica's disk is lost too: only what is really durable is left.
#[test]
fn what_was_synced_survives_the_loss_of_power_at_the_target() {
    let _heavy = heavy();
    let seed = std::process::id().into();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let setup = Setup {
        replica: Disk::Image { kind: "ext4", mib: 64 },
        arguments: vec!["--fsync=target"],
        ..Setup::default()
    };
    let mut protected = Protected::prepare(setup);
    let disk = protected.replica.parent().expect("a disk").to_owned();
    let mut total = 0;
    for round in 0..6 {
        protected.start_again();
        let acknowledged = write_and_kill(&mut protected, round, &mut random);
        crate::sys::cut_power(&disk).expect("a power cut");
        let image = protected.base.path().join("replica.image");
        host::unmount_for_good(&image, &disk);
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(&disk));
        for (way, acknowledged) in WAYS.into_iter().zip(acknowledged) {
            let name = format!("{way:?}{round}");
            check_records(&protected.replica.join(&name), acknowledged, &name);
            total += acknowledged;
        }
    }
    assert!(total >= 6, "only {total} records were acknowledged");
    eprintln!("{total} acknowledged records, all there after the power was lost");
}

/// A replica whose disk is full until [`Stuck::free`]: its applier retries the op at the head.
struct Stuck {
    protected: Protected,
    filler: PathBuf,
}

impl Stuck {
    fn start(arguments: Vec<&'static str>) -> Stuck {
        let replica = Disk::Image { kind: "ext4", mib: 64 };
        let protected = Protected::start(Setup { replica, arguments, ..Setup::default() });
        fs::write(protected.mount.join("before"), "there").expect("a file");
        File::open(protected.mount.join("before")).and_then(|file| file.sync_all()).expect("in line");
        let filler = protected.replica.parent().expect("a disk").join("filler");
        let mut file = File::create(&filler).expect("a file");
        for len in [1 << 20, 4096, 1] {
            let zeros = vec![7; len];
            while file.write_all(&zeros).is_ok() {}
        }
        let _ = file.sync_all();
        Stuck { protected, filler }
    }

    /// A file whose content the replica has no room for; its fsync waits.
    fn write(&self, name: &str) -> File {
        let mut file = File::create(self.protected.mount.join(name)).expect("a file");
        file.write_all(&vec![3; 1 << 20]).expect("a write");
        file
    }

    fn free(&self) {
        fs::remove_file(&self.filler).expect("our own file");
    }

    /// Waits until the status says so.
    #[track_caller]
    fn status_says(&self, text: &str, wanted: bool) {
        let began = Instant::now();
        loop {
            let status = self.protected.status();
            if status.contains(text) == wanted {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "wanted {wanted}: {text} in\n{status}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_late_sync_fails_and_the_status_says_so() {
    let stuck = Stuck::start(vec!["--fsync=target", "--fsync-timeout", "1500ms"]);
    let file = stuck.write("late");
    let began = Instant::now();
    let error = file.sync_all().expect_err("the replica's disk is full");
    let took = began.elapsed();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert!(took >= Duration::from_millis(1400) && took < Duration::from_secs(10), "after {took:?}");
    stuck.status_says("\"fsync_timed_out\"", true);
    stuck.free();
    stuck.status_says("\"fsync_timed_out\"", false);
    file.sync_all().expect("the replica has room again");
    assert_eq!(fs::metadata(stuck.protected.replica.join("late")).expect("on the replica").len(), 1 << 20);
    stuck.protected.assert_in_sync();
}

#[test]
fn a_late_sync_degrades_where_that_was_allowed() {
    let arguments = vec!["--fsync=target", "--fsync-timeout", "1500ms", "--fsync-degrade"];
    let stuck = Stuck::start(arguments);
    let file = stuck.write("late");
    let began = Instant::now();
    file.sync_all().expect("the local disk counts after the time-out");
    assert!(began.elapsed() >= Duration::from_millis(1400), "after {:?}", began.elapsed());
    stuck.status_says("\"fsync_degraded\"", true);
    let began = Instant::now();
    for number in 0..5 {
        stuck.write(&format!("later{number}")).sync_all().expect("the local disk counts");
    }
    assert!(began.elapsed() < Duration::from_millis(1400), "they still wait: {:?}", began.elapsed());
    stuck.free();
    stuck.status_says("\"fsync_degraded\"", false);
    let file = stuck.write("after");
    file.sync_all().expect("in line");
    assert_eq!(fs::metadata(stuck.protected.replica.join("after")).expect("on the replica").len(), 1 << 20);
    stuck.protected.assert_in_sync();
}

/// More syncs wait than there are threads of any kind, and the mount works as before.
#[test]
fn waiting_syncs_hold_up_nobody() {
    let stuck = Stuck::start(vec!["--fsync=target", "--fsync-timeout", "4s"]);
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..24)
            .map(|number| {
                let file = stuck.write(&format!("wait{number}"));
                scope.spawn(move || file.sync_all())
            })
            .collect();
        stuck.status_says("\"waiting\":24", true);
        let began = Instant::now();
        for number in 0..20 {
            let path = stuck.protected.mount.join(format!("beside{number}"));
            fs::write(&path, "quick").expect("a file");
            assert_eq!(fs::read(&path).expect("a file"), b"quick");
        }
        assert!(began.elapsed() < Duration::from_secs(2), "the mount stood still for {:?}", began.elapsed());
        stuck.free();
        for sync in waiting {
            sync.join().expect("a thread").expect("in time after all");
        }
    });
    stuck.protected.assert_in_sync();
}

/// A detached mount may have syncs under way: they end with an error, not never.
#[test]
fn the_end_answers_waiting_syncs() {
    let stuck = Stuck::start(vec!["--fsync=target", "--fsync-timeout", "60s"]);
    let file = stuck.write("waits");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || file.sync_all());
        stuck.status_says("\"waiting\":1", true);
        let run_dir = stuck.protected.run.clone();
        let began = Instant::now();
        // Its exit code says that something was left.
        output_within(standin(&run_dir).args(["stop", "--now"]), COMMAND_MAX);
        let error = waiting.join().expect("a thread").expect_err("never made durable");
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20), "after {:?}", began.elapsed());
    });
}

/// What comes into a set with rules is brought by a copy: syncs failed at once, until somebody took notice of its end.
#[test]
fn syncs_wait_for_what_comes_into_the_set() {
    let arguments = vec!["--fsync=target", "--exclude", "*.tmp"];
    let mut protected = Protected::start(Setup { arguments, ..Setup::default() });
    for round in 0..3 {
        let (from, to) = (protected.mount.join("d.tmp"), protected.mount.join(format!("d{round}")));
        fs::create_dir(&from).expect("a directory");
        fs::write(from.join("file"), "content").expect("a file");
        fs::rename(&from, &to).expect("renamed");
        for name in ["file", "other"] {
            let file = File::create(to.join(name)).expect("a file");
            file.sync_all().expect("a sync that waits for the copy");
        }
    }
    protected.assert_in_sync();
    protected.stop();
}
