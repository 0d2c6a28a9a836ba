//! Write-backs that the disk refuses, long after the program's call has returned: who is told when,
//! and that nothing is shown afterwards that no disk has.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::host::{Disk, Protected, Setup, heavy};
use crate::sys::Mapping;
use crate::tree::Rules;

const BATCH: &[&str] = &["--profile", "batch", "--mmap-lag", "100ms"];

const MANY: Duration = Duration::from_secs(30);

/// Blocks at the end of a write that was cut short may be holes on one side.
fn rules() -> Rules {
    Rules { hole_slack: 64 << 10, ..Rules::default() }
}

fn on_small_disk(arguments: &[&'static str]) -> Protected {
    let source = Disk::Image { kind: "ext4", mib: 48 };
    Protected::start(Setup { source, arguments: arguments.to_vec(), ..Setup::default() })
}

/// A file past the mount that leaves no room, until it is removed.
fn fill(protected: &Protected) -> impl Drop + use<> {
    struct Ballast(std::path::PathBuf);
    impl Drop for Ballast {
        fn drop(&mut self) {
            fs::remove_file(&self.0).expect("the ballast is there");
        }
    }
    let ballast = Ballast(protected.backing.parent().expect("a disk").join("ballast"));
    let mut file = File::create(&ballast.0).expect("room for a name");
    for piece in [1 << 20, 4096, 1] {
        while file.write(&vec![1; piece]).is_ok() {}
    }
    file.sync_all().expect("what was written is there");
    ballast
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < MANY, "{what}: not within {MANY:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What programs are shown is what the disk has.
#[track_caller]
fn until_shown_as_on_disk(protected: &Protected, name: &str) {
    let read = |dir: &Path| fs::read(dir.join(name)).expect("a file");
    let size = |dir: &Path| fs::metadata(dir.join(name)).expect("a file").len();
    until(name, || {
        size(&protected.mount) == size(&protected.backing)
            && read(&protected.mount) == read(&protected.backing)
    });
}

fn log_at(path: &Path) -> File {
    File::options().append(true).create(true).open(path).expect("a file")
}

/// The kernel went on with the size that it had given the file: lines that came later lay behind a gap of
/// zeros.
#[test]
fn a_log_goes_on_without_gaps_when_there_is_room_again() {
    let _alone = heavy();
    let protected = on_small_disk(BATCH);
    let mut log = log_at(&protected.mount.join("log"));
    let line = |number: u32| format!("{number:063}\n").repeat(64);
    log.write_all(line(0).as_bytes()).expect("room");
    log.sync_all().expect("room");
    let ballast = fill(&protected);
    let refused =
        (1..=400).map(|number| log.write_all(line(number).as_bytes())).filter(|told| told.is_err()).count();
    until("a refusal", || protected.status().contains("mapped_stores_refused"));
    until_shown_as_on_disk(&protected, "log");
    drop(ballast);
    // A program that looks at nothing else is told at a write.
    let told = log.write_all(line(401).as_bytes());
    assert!(refused > 0 || told.is_err_and(|error| error.kind() == ErrorKind::StorageFull));
    for number in 402..500 {
        log.write_all(line(number).as_bytes()).expect("there is room again");
    }
    log.sync_all().expect_err("what was refused is told here, too");
    log.sync_all().expect("all is there");
    drop(log);
    let content = fs::read(protected.mount.join("log")).expect("a file");
    assert!(!content.contains(&0) && content.ends_with(line(499).as_bytes()), "{} bytes", content.len());
    until_shown_as_on_disk(&protected, "log");
    protected.assert_in_sync_by(&rules());
}

/// It wrote for ever.
#[test]
fn a_program_that_only_writes_stops_on_a_full_disk() {
    let _alone = heavy();
    let mut protected = on_small_disk(BATCH);
    let mut file = File::create(protected.mount.join("endless")).expect("a file");
    let piece = vec![7; 1 << 20];
    let began = Instant::now();
    let error = loop {
        match file.write_all(&piece) {
            Ok(()) => assert!(began.elapsed() < MANY, "nobody tells it"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    drop(file);
    until_shown_as_on_disk(&protected, "endless");
    fs::remove_file(protected.mount.join("endless")).expect("removed");
    fs::write(protected.mount.join("another"), &piece).expect("there is room again");
    protected.assert_in_sync_by(&rules());
    protected.stop();
}

/// The kernel took what is a tenth of a fifth of the memory, whatever the disk had room for, and a program
/// that looks at its writes alone was told when it had gone on long ago.
#[test]
fn a_nearly_full_disk_is_told_at_the_next_write() {
    let _alone = heavy();
    let protected = on_small_disk(&["--profile", "batch", "--mmap-lag", "0"]);
    // A new file, and one that was there.
    for _ in 0..2 {
        let mut endless = File::create(protected.mount.join("endless")).expect("a file");
        let taken = (0..1000).take_while(|_| endless.write_all(&[7; 1 << 20]).is_ok()).count();
        assert!(taken < 60, "{taken} MiB were taken, of a disk with 48");
        drop(endless);
        until_shown_as_on_disk(&protected, "endless");
    }
    let mut log = log_at(&protected.mount.join("log"));
    let _full = fill(&protected);
    for number in 0..20 {
        let told = (0..3).filter(|_| log.write_all(&[b'x'; 4096]).is_err()).count();
        assert!(told > 0, "{number}: none of three writes was refused");
    }
    // What is there already is written over.
    let inside = File::options().write(true).open(protected.mount.join("endless")).expect("a file");
    for number in 0..20 {
        inside.write_all_at(&[8; 4096], number << 20).expect("blocks that are there");
    }
    inside.sync_all().expect("all is there");
    drop((log, inside));
    until_shown_as_on_disk(&protected, "log");
    until_shown_as_on_disk(&protected, "endless");
    protected.assert_in_sync_by(&rules());
}

/// The file was shown with a size that no file system here can have.
#[test]
fn a_write_beyond_what_the_disk_can_hold_leaves_the_file() {
    let mut protected = on_small_disk(BATCH);
    let path = protected.mount.join("far");
    let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a file");
    file.write_all_at(b"here", 0).expect("room");
    file.sync_all().expect("room");
    let written = file.write_all_at(b"far", 1 << 62).and_then(|()| file.sync_all());
    assert_eq!(written.expect_err("beyond every file").kind(), ErrorKind::FileTooLarge);
    until_shown_as_on_disk(&protected, "far");
    until("a write", || file.write_all_at(b"over", 0).is_ok());
    file.sync_all().expect("room");
    drop(file);
    assert!(fs::read(&path).expect("a file").starts_with(b"over"));
    protected.assert_in_sync_by(&rules());
    protected.stop();
}

/// The kernel kept the pages, and showed them for as long as it remembered the file.
#[test]
fn a_store_that_was_refused_is_not_shown() {
    let _alone = heavy();
    for arguments in [&[][..], BATCH] {
        let protected = on_small_disk(arguments);
        let path = protected.mount.join("mapped");
        let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a file");
        file.set_len(100 * 4096).expect("a size");
        let ballast = fill(&protected);
        let mapping = Mapping::new(&file, 100 * 4096).expect("a mapping");
        (0..100).for_each(|page| mapping.store(page * 4096, b"stored").expect("a store"));
        mapping.sync().expect_err("no room for it");
        until_shown_as_on_disk(&protected, "mapped");
        drop(ballast);
        (0..100).for_each(|page| mapping.store(page * 4096, b"again").expect("a store"));
        mapping.sync().expect("there is room again");
        drop((mapping, file));
        until_shown_as_on_disk(&protected, "mapped");
        assert!(fs::read(&path).expect("a file").starts_with(b"again"));
        protected.assert_in_sync_by(&rules());
    }
}

/// Whoever owns it, and wherever it is.
#[test]
fn a_file_is_mended_that_only_its_owner_may_write() {
    let _alone = heavy();
    let protected = on_small_disk(BATCH);
    let dir = protected.mount.join("deep").join("d".repeat(200));
    fs::create_dir_all(&dir).expect("room");
    let path = dir.join("f");
    let mut file = File::create(&path).expect("a file");
    file.write_all(b"here").expect("room");
    file.sync_all().expect("room");
    std::os::unix::fs::chown(&path, Some(1234), Some(1234)).expect("ours");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o400)).expect("ours");
    let ballast = fill(&protected);
    file.write_all(&vec![9; 4 << 20]).expect("the kernel has room");
    file.sync_all().expect_err("the disk has none");
    let name = path.strip_prefix(&protected.mount).expect("below it").to_str().expect("a name").to_owned();
    until_shown_as_on_disk(&protected, &name);
    drop((ballast, file));
    protected.assert_in_sync_by(&rules());
}
