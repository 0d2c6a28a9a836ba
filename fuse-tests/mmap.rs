//! Writes through shared mappings: when they arrive, and the helper process that sees to it.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::host::{self, Disk, Protected, Setup, heavy, is_mounted};
use crate::sys::Mapping;

const LEN: usize = 64 << 10;

/// A mapped file below the mount; the file and the mapping keep the mount busy.
fn mapped(protected: &Protected, name: &str) -> (File, Mapping) {
    let path = protected.mount.join(name);
    let file = File::options().read(true).write(true).create_new(true).open(path).expect("a file");
    file.set_len(LEN as u64).expect("a size");
    let mapping = Mapping::new(&file, LEN).expect("a shared mapping");
    (file, mapping)
}

fn holds(path: &Path, at: usize, bytes: &[u8]) -> bool {
    fs::read(path).is_ok_and(|content| content.get(at..at + bytes.len()) == Some(bytes))
}

/// Waits until a file holds these bytes; gives how long that took.
#[track_caller]
fn arrives(path: &Path, at: usize, bytes: &[u8], max: Duration) -> Duration {
    let began = Instant::now();
    while !holds(path, at, bytes) {
        assert!(began.elapsed() < max, "{} has no {bytes:?} after {max:?}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    began.elapsed()
}

/// Helpers of a mount: process numbers.
fn helpers(mount: &Path) -> Vec<u32> {
    use std::os::unix::ffi::OsStrExt;
    let mut wanted = b"flush-mount\0".to_vec();
    wanted.extend_from_slice(mount.as_os_str().as_bytes());
    wanted.push(0);
    let numbers = fs::read_dir("/proc").expect("/proc").flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()));
    numbers
        .filter(|pid: &u32| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(&wanted))
        })
        .collect()
}

#[track_caller]
fn no_helper_within(mount: &Path, max: Duration) {
    let began = Instant::now();
    while !helpers(mount).is_empty() {
        assert!(began.elapsed() < max, "helpers are left: {:?}", helpers(mount));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The kernel alone would write the pages back after half a minute.
#[test]
fn mapped_writes_arrive_within_the_lag() {
    let setup = Setup { arguments: vec!["--mmap-lag", "400ms"], ..Setup::default() };
    let mut protected = Protected::start(setup);
    let (file, mapping) = mapped(&protected, "mapped");
    let replica = protected.replica.join("mapped");
    let mut worst = Duration::ZERO;
    for round in 0..8usize {
        let bytes = format!("round {round}");
        mapping.store(round * 5000, bytes.as_bytes()).expect("a store");
        worst = worst.max(arrives(&replica, round * 5000, bytes.as_bytes(), Duration::from_secs(4)));
        std::thread::sleep(Duration::from_millis(37 * round as u64));
    }
    eprintln!("mapped writes arrived after {worst:?} at worst, with a lag of 400 ms");
    drop((file, mapping));
    protected.assert_in_sync();
    protected.stop();
    no_helper_within(&protected.mount, Duration::from_secs(5));
}

#[test]
fn wait_sync_flushes_mappings() {
    let setup = Setup { arguments: vec!["--mmap-lag", "0"], ..Setup::default() };
    let mut protected = Protected::start(setup);
    let (file, mapping) = mapped(&protected, "mapped");
    protected.wait_sync();
    let (backing, replica) = (protected.backing.join("mapped"), protected.replica.join("mapped"));
    let mut unseen = 0;
    for round in 0..5usize {
        mapping.store(round * 4096, b"stored").expect("a store");
        std::thread::sleep(Duration::from_millis(400));
        unseen += u32::from(!holds(&backing, round * 4096, b"stored"));
        protected.wait_sync();
        assert!(holds(&replica, round * 4096, b"stored"), "round {round}: wait-sync did not flush");
    }
    // With the interval off nothing else writes it back so soon (but a `sync` of the whole host): the
    // flush is what does.
    assert!(unseen > 0, "everything was seen without a flush");
    drop((file, mapping));
    protected.stop();
}

/// So many mapped files, with one store in each.
fn many_stores(protected: &Protected, files: usize, bytes: &[u8]) -> Vec<(File, Mapping)> {
    let made: Vec<_> = (0..files).map(|number| mapped(protected, &format!("many{number}"))).collect();
    protected.wait_sync();
    made.iter().for_each(|(_, mapping)| mapping.store(5000, bytes).expect("a store"));
    made
}

#[track_caller]
fn all_hold(dir: &Path, files: usize, bytes: &[u8]) {
    let lack = (0..files).filter(|number| !holds(&dir.join(format!("many{number}")), 5000, bytes)).count();
    assert_eq!(lack, 0, "of {files} files in {} so many lack the store", dir.display());
}

/// `syncfs` of the mount was waited for, and it waits for nothing: `wait-sync` ended well while most of
/// several hundred files lacked what had been stored before it.
#[test]
fn a_waiting_call_waits_for_every_mapping() {
    let setup = Setup { arguments: vec!["--mmap-lag", "0"], ..Setup::default() };
    let mut protected = Protected::start(setup);
    let made = many_stores(&protected, 300, b"first");
    protected.wait_sync();
    all_hold(&protected.replica, 300, b"first");
    // Moved, and with other names, they are found as well; what is removed is nobody's.
    fs::create_dir(protected.mount.join("moved")).expect("a directory");
    fs::remove_file(protected.mount.join("many299")).expect("removed");
    for number in 0..299 {
        let (from, to) = (format!("many{number}"), format!("moved/many{number}"));
        fs::rename(protected.mount.join(from), protected.mount.join(to)).expect("moved");
    }
    made.iter().for_each(|(_, mapping)| mapping.store(5000, b"after").expect("a store"));
    protected.wait_sync();
    all_hold(&protected.replica.join("moved"), 299, b"after");
    drop(made);
    protected.assert_in_sync();
    protected.stop();
}

/// What a program had stored when the protection was stopped was lost, on the directory itself.
#[test]
fn a_stop_at_once_loses_no_store_before_it() {
    let mut protected = Protected::start(Setup { arguments: vec!["--mmap-lag", "0"], ..Setup::default() });
    let made = many_stores(&protected, 100, b"before");
    let mut stop = host::standin(&protected.run);
    host::output_within(stop.args(["stop", "--now"]), host::COMMAND_MAX);
    // At once: with what is left behind, or without.
    protected.forget_ended_with(&[0, 3]);
    all_hold(&protected.backing, 100, b"before");
    drop(made);
    protected.start_again();
    protected.assert_in_sync();
    protected.stop();
}

/// The helper has files open to wait for their pages: the space of a removed one came back late.
#[test]
fn the_helper_keeps_no_file_that_nobody_has() {
    let mut protected = Protected::start(Setup { arguments: vec!["--mmap-lag", "0"], ..Setup::default() });
    let made = many_stores(&protected, 3, b"kept");
    protected.wait_sync();
    let [helper] = helpers(&protected.mount)[..] else { panic!("one helper") };
    let open = || {
        let links = fs::read_dir(format!("/proc/{helper}/fd")).expect("its descriptors").flatten();
        let links = links.filter_map(|link| fs::read_link(link.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("/many")).count()
    };
    let becomes = |count| {
        let began = Instant::now();
        while open() != count {
            assert!(began.elapsed() < Duration::from_secs(10), "{} are open, not {count}", open());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    becomes(3);
    fs::remove_file(protected.mount.join("many0")).expect("removed");
    becomes(2);
    drop(made);
    becomes(0);
    protected.stop();
}

/// A time that was set after a store was overwritten when the store was written back.
#[test]
fn a_time_that_is_set_outlives_earlier_stores() {
    let mut protected = Protected::start(Setup { arguments: vec!["--mmap-lag", "0"], ..Setup::default() });
    let (file, mapping) = mapped(&protected, "timed");
    let times = [1_000_000_007, 1_500_000_003].map(|at| std::time::UNIX_EPOCH + Duration::from_secs(at));
    for (round, time) in times.into_iter().enumerate() {
        mapping.store(round * 9000, b"before the time").expect("a store");
        match round {
            0 => file.set_modified(time).expect("a time"),
            _ => {
                File::open(protected.mount.join("timed")).and_then(|f| f.set_modified(time)).expect("a time")
            }
        }
        protected.wait_sync();
        for dir in [&protected.mount, &protected.backing, &protected.replica] {
            let held = fs::metadata(dir.join("timed")).and_then(|file| file.modified()).expect("a time");
            assert_eq!(held, time, "{}", dir.display());
        }
        assert!(holds(&protected.replica.join("timed"), round * 9000, b"before the time"));
    }
    drop((file, mapping));
    protected.stop();
}

/// A full disk refused what had been stored in a sparse file, and nobody but `msync` was told.
#[test]
fn refused_stores_are_an_alarm() {
    let _alone = heavy();
    let source = Disk::Image { kind: "ext4", mib: 24 };
    let mut protected = Protected::start(Setup { source, ..Setup::default() });
    let path = protected.mount.join("sparse");
    let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a file");
    let len = 32 << 20;
    file.set_len(len as u64).expect("a size");
    let mapping = Mapping::new(&file, len).expect("a shared mapping");
    (0..len).step_by(4096).for_each(|at| mapping.store(at, b"stored").expect("a store"));
    let began = Instant::now();
    while !protected.status().contains("were refused by the disk of the directory") {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is said: {}", protected.status());
        std::thread::sleep(Duration::from_millis(200));
    }
    drop((mapping, file));
    protected.assert_in_sync_by(&crate::tree::Rules { hole_slack: 64 * 1024, ..Default::default() });
    protected.stop();
}

#[test]
fn a_killed_helper_is_replaced() {
    let setup = Setup { arguments: vec!["--mmap-lag", "200ms"], ..Setup::default() };
    let mut protected = Protected::start(setup);
    let (file, mapping) = mapped(&protected, "mapped");
    let replica = protected.replica.join("mapped");
    let mut last = Vec::new();
    for round in 0..3usize {
        // The one of the last round may have died at its first flush, and the next flush replaces it.
        let began = Instant::now();
        let running = loop {
            let running = helpers(&protected.mount);
            if running.len() == 1 && running != last {
                break running;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "round {round}: {running:?}, before {last:?}");
            std::thread::sleep(Duration::from_millis(5));
        };
        let pid = rustix::process::Pid::from_raw(running[0] as i32).expect("a process number");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("our own helper");
        mapping.store(round * 8192, b"after the kill").expect("a store");
        arrives(&replica, round * 8192, b"after the kill", Duration::from_secs(5));
        last = running;
    }
    assert!(protected.said().contains("is replaced"), "{}", protected.said());
    drop((file, mapping));
    protected.stop();
}

/// A helper that held the mount, even for a moment, would make an unmount fail.
#[test]
fn the_helper_never_keeps_the_mount() {
    let setup = Setup { arguments: vec!["--mmap-lag", "1ms"], ..Setup::default() };
    let mut protected = Protected::start(setup);
    for round in 0..4 {
        let (file, mapping) = mapped(&protected, &format!("mapped{round}"));
        mapping.store(100, b"before the stop").expect("a store");
        drop((file, mapping));
        // The daemon hears of the close a moment later and flushes at full pace until then.
        protected.stop();
        assert!(!is_mounted(&protected.mount));
        assert!(holds(&protected.replica.join(format!("mapped{round}")), 100, b"before the stop"));
        protected.start_again();
    }
    protected.kill9();
    no_helper_within(&protected.mount, Duration::from_secs(5));
}

/// What can be mapped on a disk. A program once got ENODEV when it opened a file for reading and
/// writing just after it had been written: the daemon hears of a close after it has returned.
#[test]
fn everything_that_reads_can_be_mapped() {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let protected = Protected::start(Setup::default());
    let path = |number: usize| protected.mount.join(format!("file{}", number % 20));
    for number in 0..1000 {
        let mut writer = File::create(path(number)).expect("a file");
        writer.write_all(&[7; 5000]).expect("room on the disk");
        drop(writer);
        let file = File::options().read(true).write(true).open(path(number)).expect("the file");
        Mapping::new(&file, 5000).unwrap_or_else(|error| panic!("round {number}: {error}"));
    }
    // Beside a program that has it open to write, and with direct I/O.
    let writer = File::options().write(true).open(path(0)).expect("the file");
    for flags in [0, libc::O_DIRECT] {
        let open = |write| File::options().read(true).write(write).custom_flags(flags).open(path(0));
        let file = open(true).expect("the file");
        let mapping = Mapping::new(&file, 5000).expect("a mapping to write");
        mapping.store(4000, &[8; 8]).expect("a store");
        assert_eq!(writer.write_at(&[9; 8], 4008).expect("room on the disk"), 8);
        let reader = open(false).expect("the file");
        let seen = Mapping::read_only(&reader, 5000).expect("a mapping to read");
        let mut bytes = [0; 24];
        seen.load(3996, &mut bytes).expect("a load");
        assert_eq!(bytes, [[7; 4], [8; 4], [8; 4], [9; 4], [9; 4], [7; 4]].concat()[..]);
        mapping.store(4000, &[7; 16]).expect("a store");
    }
    protected.assert_in_sync();
}

/// Bytes that a mapping had stored in a hole were on the disk only a second later: `cp` and `tar -S`
/// asked for holes before that and left them out.
#[test]
fn a_search_for_holes_finds_what_a_mapping_stored() {
    use rustix::fs::SeekFrom;
    const SIZE: u64 = 4 << 20;
    let mut protected = Protected::start(Setup { arguments: vec!["--mmap-lag", "0"], ..Setup::default() });
    let path = protected.mount.join("sparse");
    let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a file");
    file.set_len(SIZE).expect("a size");
    let mapping = Mapping::new(&file, SIZE as usize).expect("a shared mapping");
    let reader = File::open(&path).expect("the file");
    mapping.store(2 << 20, b"hello").expect("a store");
    let data = |from| rustix::fs::seek(&reader, SeekFrom::Data(from));
    let hole = |from| rustix::fs::seek(&reader, SeekFrom::Hole(from));
    assert!(data(0).expect("data") <= 2 << 20);
    assert!(hole(2 << 20).expect("a hole") > 2 << 20);
    for page in (520..1024u64).step_by(73) {
        mapping.store((page * 4096) as usize, b"more").expect("a store");
        let before = (page - 7) * 4096;
        assert!(data(before).expect("data") <= page * 4096, "page {page}");
        assert!(hole(page * 4096).expect("a hole") >= (page + 1) * 4096, "page {page}");
    }
    assert!(reader.metadata().expect("the file").blocks() > 0, "`tar -S` looks no further");
    // What nobody has touched is a hole as before: the copy is nearly as sparse as the file.
    assert_eq!(hole(1 << 20), Ok(1 << 20));
    assert_eq!(data(SIZE).map_err(|error| error.raw_os_error()), Err(libc::ENXIO));
    fs::copy(&path, protected.mount.join("copy")).expect("a copy");
    assert_eq!(&fs::read(protected.mount.join("copy")).expect("the copy")[2 << 20..][..5], b"hello");
    drop((mapping, file, reader));
    protected.assert_in_sync();
    protected.stop();
}
