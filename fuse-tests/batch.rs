//! `--profile batch`: the kernel gathers writes. When they arrive, which order is kept, and that
//! programs see one file all the same.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FallocateFlags, SeekFrom};
use standin::random::Random;

use crate::host::{self, Disk, Protected, Setup, clear_mounts, heavy};
use crate::random::{self, setting};
use crate::sys::{Mapping, as_other_user};
use crate::tree::Rules;
use crate::{conflict, halves};

const BATCH: &[&str] = &["--profile", "batch"];
/// Nothing is written back unless somebody asks for it.
const BY_ITSELF_NEVER: &[&str] = &["--profile", "batch", "--mmap-lag", "0"];

const MANY: Duration = Duration::from_secs(20);

fn start(arguments: &[&'static str]) -> Protected {
    Protected::start(Setup { arguments: arguments.to_vec(), ..Setup::default() })
}

fn created(path: &Path) -> File {
    File::options().write(true).create_new(true).open(path).expect("a file")
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < MANY, "{what}: not within {MANY:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    began.elapsed()
}

fn holds(path: &Path, content: &[u8]) -> bool {
    fs::read(path).is_ok_and(|found| found == content)
}

/// A program that never syncs and never closes.
#[test]
fn what_is_gathered_arrives_within_the_lag() {
    let mut protected = start(&["--profile", "batch", "--mmap-lag", "400ms"]);
    assert!(protected.said().contains("profile batch"), "{}", protected.said());
    let file = created(&protected.mount.join("log"));
    let (mut content, mut worst) = (Vec::new(), Duration::ZERO);
    for round in 0..6 {
        let line = format!("line {round}\n");
        file.write_all_at(line.as_bytes(), content.len() as u64).expect("room");
        content.extend_from_slice(line.as_bytes());
        worst = worst.max(until("a line", || holds(&protected.replica.join("log"), &content)));
    }
    eprintln!("lines arrived after {worst:?} at worst, with a lag of 400 ms");
    drop(file);
    protected.assert_in_sync();
    protected.stop();
}

/// Each way in which a program says that something comes after what it wrote.
#[test]
fn order_is_kept_where_programs_say_so() {
    let protected = start(BY_ITSELF_NEVER);
    let content = vec![7; 3 << 20];
    let path = |name: &str| protected.mount.join(name);
    let mut gathered = 0;
    for round in 0..5 {
        for way in ["close", "fsync", "rename", "link", "exchange"] {
            let (name, after) = (format!("{way}{round}"), format!("{way}{round}.after"));
            let file = created(&path(&name));
            file.write_all_at(&content, 0).expect("room");
            gathered += u32::from(!holds(&protected.backing.join(&name), &content));
            let named = match way {
                "rename" => fs::rename(path(&name), path(&after)).map(|()| &after),
                "link" => fs::hard_link(path(&name), path(&after)).map(|()| &after),
                "exchange" => {
                    fs::write(path(&after), "in its place").expect("room");
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    let cwd = rustix::fs::CWD;
                    rustix::fs::renameat_with(cwd, path(&after), cwd, path(&name), flags).expect("exchanged");
                    Ok(&after)
                }
                "fsync" => file.sync_all().and_then(|()| fs::write(path(&after), "")).map(|()| &name),
                _ => {
                    drop(file.try_clone().expect("a second descriptor"));
                    fs::write(path(&after), "").map(|()| &name)
                }
            };
            let named = named.expect("done");
            // What comes after is there: what was before it has to be.
            let is_after = || {
                fs::metadata(protected.replica.join(&after)).is_ok_and(|file| match way {
                    "exchange" => file.len() != 12 && file.len() > 0,
                    _ => true,
                })
            };
            until(way, is_after);
            let found = fs::read(protected.replica.join(named)).expect("a file");
            assert!(found == content, "{way}: {} bytes are there", found.len());
            drop(file);
        }
    }
    assert!(gathered > 0, "nothing was gathered: this tests nothing");
    protected.assert_in_sync();
}

#[test]
fn a_waiting_call_and_a_stop_bring_everything() {
    let mut protected = start(BY_ITSELF_NEVER);
    let files: Vec<File> =
        (0..300).map(|number| created(&protected.mount.join(format!("f{number}")))).collect();
    let write =
        |text: &str, at| files.iter().for_each(|file| file.write_all_at(text.as_bytes(), at).expect("room"));
    write("first", 0);
    protected.wait_sync();
    for number in 0..files.len() {
        assert!(
            holds(&protected.replica.join(format!("f{number}")), b"first"),
            "f{number} lacks what was written"
        );
    }
    // Times too: the kernel has them and tells them later.
    for (number, file) in files.iter().enumerate() {
        let replica = fs::metadata(protected.replica.join(format!("f{number}"))).expect("a file");
        let seen = file.metadata().expect("a file");
        assert_eq!((replica.mtime(), replica.mtime_nsec()), (seen.mtime(), seen.mtime_nsec()), "f{number}");
    }
    write("second", 5);
    let mut stop = host::standin(&protected.run);
    host::output_within(stop.args(["stop", "--now"]), host::COMMAND_MAX);
    protected.forget_ended_with(&[0, 3]);
    for number in 0..files.len() {
        assert!(
            holds(&protected.backing.join(format!("f{number}")), b"firstsecond"),
            "f{number}: the stop lost it"
        );
    }
    drop(files);
    protected.start_again();
    protected.assert_in_sync();
    protected.stop();
}

/// The page that comes after the time sets it anew on the disk: seconds later a program would have seen
/// another time than before, although nobody had written.
#[test]
fn a_file_keeps_the_time_that_programs_were_shown() {
    let _alone = heavy();
    let protected = start(&["--profile", "batch", "--mmap-lag", "1ms"]);
    let time =
        |path: &Path| fs::metadata(path).map(|file| (file.mtime(), file.mtime_nsec())).expect("a file");
    let piece = vec![5; 64 << 10];
    for number in 0..30u64 {
        let name = format!("f{number}");
        let file = created(&protected.mount.join(&name));
        for at in 0..64 {
            file.write_all_at(&piece, at * piece.len() as u64).expect("room");
        }
        match number % 3 {
            0 => file.sync_all().expect("synced"),
            1 => rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 9 << 20).expect("reserved"),
            _ => {
                let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + number);
                file.set_modified(long_ago).expect("a time");
            }
        }
        drop(file);
        let shown = time(&protected.mount.join(&name));
        // The release may be a moment late.
        until(&name, || time(&protected.backing.join(&name)) == shown);
    }
    protected.assert_in_sync();
}

/// The kernel reads the rest of a page that a program writes a part of, through that program's
/// descriptor: of a file that others wrote, and that the program may not even read.
#[test]
fn a_part_of_a_page_is_written_by_who_may_only_write() {
    let protected = start(BATCH);
    let path = protected.mount.join("public");
    fs::set_permissions(&protected.mount, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    fs::write(&path, vec![b'a'; 20_000]).expect("room");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o222)).expect("ours");
    let file = File::open(&path).expect("ours");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("no page is kept");
    as_other_user(1234, &[], || {
        assert_eq!(File::open(&path).expect_err("not to be read").raw_os_error(), Some(libc::EACCES));
        let write = |flags, at, bytes: &[u8]| {
            let file = File::options().write(true).custom_flags(flags).open(&path).expect("to be written");
            file.write_at(bytes, at).expect("room");
        };
        write(0, 5000, b"part");
        write(libc::O_APPEND, 0, b"end");
        write(libc::O_SYNC, 9, b"synced");
    });
    let mut wanted = vec![b'a'; 20_000];
    wanted[5000..5004].copy_from_slice(b"part");
    wanted[9..15].copy_from_slice(b"synced");
    wanted.extend_from_slice(b"end");
    protected.assert_in_sync();
    assert!(holds(&protected.replica.join("public"), &wanted) && holds(&path, &wanted));
}

/// Holes are searched for on the disk, which has nothing of what is gathered: a copy would lack it.
#[test]
fn a_search_for_holes_finds_what_is_gathered() {
    let protected = start(BY_ITSELF_NEVER);
    let path = protected.mount.join("sparse");
    let file = created(&path);
    file.write_all_at(b"here", 3 << 20).expect("room");
    assert!(fs::metadata(&path).expect("a file").blocks() > 0, "`tar -S` looks no further");
    let reader = File::open(&path).expect("the file");
    assert_eq!(rustix::fs::seek(&reader, SeekFrom::Data(0)).expect("data"), 3 << 20);
    file.write_all_at(b"there", 9 << 20).expect("room");
    assert_eq!(rustix::fs::seek(&reader, SeekFrom::Data(4 << 20)).expect("data"), 9 << 20);
    assert!(rustix::fs::seek(&reader, SeekFrom::Hole(9 << 20)).expect("a hole") > 9 << 20);
    file.write_all_at(b"last", 12 << 20).expect("room");
    host::run(Command::new("cp").arg("--sparse=always").arg(&path).arg(protected.mount.join("copy")));
    assert!(fs::read(&path).expect("a file") == fs::read(protected.mount.join("copy")).expect("a copy"));
    drop(file);
    protected.assert_in_sync();
}

/// Setuid goes with the first write of somebody else, and stays gone.
#[test]
fn setuid_goes_with_a_write() {
    let protected = start(BATCH);
    fs::set_permissions(&protected.mount, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    let path = protected.mount.join("program");
    fs::write(&path, "program").expect("room");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o6777)).expect("ours");
    as_other_user(1234, &[], || {
        let file = File::options().write(true).open(&path).expect("to be written");
        file.write_all_at(b"other", 2).expect("room");
        assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o7777, 0o777);
    });
    assert_eq!(fs::metadata(protected.backing.join("program")).expect("a file").mode() & 0o7777, 0o777);
    protected.assert_in_sync();
}

/// What the disk has no room for is told where a program asks, and is said by `status`.
#[test]
fn a_full_disk_is_told_at_close_and_sync() {
    let _alone = heavy();
    let source = Disk::Image { kind: "ext4", mib: 48 };
    let mut protected = Protected::start(Setup { source, arguments: BATCH.to_vec(), ..Setup::default() });
    let synced = created(&protected.mount.join("synced"));
    let error = (0..64).find_map(|at| {
        let written = synced.write_all_at(&vec![1; 1 << 20], at << 20);
        written.and_then(|()| synced.sync_all()).err()
    });
    assert_eq!(error.and_then(|error| error.raw_os_error()), Some(libc::ENOSPC));
    // Rust says nothing of a close; `cp` looks.
    let (from, to) = (protected.base.path().join("closed"), protected.mount.join("closed"));
    fs::write(&from, vec![2; 4 << 20]).expect("room elsewhere");
    let copied = host::output_within(Command::new("cp").arg(&from).arg(&to), host::COMMAND_MAX);
    assert!(
        !copied.status.success() && host::describe(&copied).contains("No space"),
        "{}",
        host::describe(&copied)
    );
    let status = protected.status();
    assert!(status.contains("mapped_stores_refused") && status.contains("had written"), "{status}");
    drop(synced);
    let rules = Rules { hole_slack: 64 << 10, ..Rules::default() };
    assert!(protected.assert_in_sync_by(&rules).bytes > 10 << 20);
    fs::remove_file(protected.mount.join("synced")).expect("removed");
    fs::write(protected.mount.join("closed"), vec![3; 1 << 20]).expect("there is room again");
    protected.assert_in_sync_by(&rules);
    assert!(holds(&protected.replica.join("closed"), &vec![3; 1 << 20]));
    protected.stop();
}

/// A short write-back counted as a whole one: of a store that the disk had no room for in the middle
/// of a request, `msync` said that it was there.
#[test]
fn a_write_back_that_was_cut_short_is_told() {
    let source = Disk::Image { kind: "ext4", mib: 48 };
    let protected = Protected::start(Setup { source, ..Setup::default() });
    let ballast = created(&protected.backing.join("ballast"));
    while ballast.write_at(&[1; 4096], ballast.metadata().expect("a file").len()).is_ok() {}
    ballast.set_len(ballast.metadata().expect("a file").len() - 40 * 4096).expect("some room");
    ballast.sync_all().expect("synced");
    let file = File::options().read(true).write(true).create_new(true).open(protected.mount.join("mapped"));
    let file = file.expect("a file");
    file.set_len(100 * 4096).expect("a size");
    let mapping = Mapping::new(&file, 100 * 4096).expect("a mapping");
    (0..100).for_each(|page| mapping.store(page * 4096, b"stored").expect("a store"));
    let told = mapping.sync().expect_err("no room for half of it");
    assert_eq!(told.raw_os_error(), Some(libc::ENOSPC));
}

/// As at a power cut: what was synced or closed is there, what was not may be lost, and nothing differs.
#[test]
fn a_killed_daemon_loses_nothing_that_was_synced_or_closed() {
    let mut protected = start(BY_ITSELF_NEVER);
    fs::write(protected.mount.join("closed"), "closed").expect("room");
    let synced = created(&protected.mount.join("synced"));
    synced.write_all_at(b"synced", 0).expect("room");
    synced.sync_all().expect("synced");
    synced.write_all_at(b" and not", 6).expect("room");
    protected.kill9();
    drop(synced);
    clear_mounts(&protected.mount);
    protected.start_again();
    assert!(holds(&protected.mount.join("closed"), b"closed"));
    assert!(fs::read(protected.mount.join("synced")).expect("a file").starts_with(b"synced"));
    protected.assert_in_sync();
    protected.stop();
}

#[test]
fn random_operations_arrive_gathered() {
    let _alone = heavy();
    let ops = setting("STANDIN_OPS").unwrap_or(random::OPS);
    for seed in random::seeds(2) {
        let lag = *Random::new(seed).one_of(&["1ms", "50ms", "1s", "0"]);
        println!("--mmap-lag {lag}");
        random::run_seed(seed, ops, &["--profile", "batch", "--mmap-lag", lag]);
    }
}

#[test]
fn conflicts_arrive_gathered() {
    let _alone = heavy();
    conflict::run(Duration::from_secs(2), &["--profile", "batch", "--mmap-lag", "10ms"]);
}

#[test]
fn halves_of_a_page_are_never_lost_gathered() {
    let _alone = heavy();
    halves::run(Duration::from_millis(60), &["--profile", "batch", "--mmap-lag", "10ms"]);
}
