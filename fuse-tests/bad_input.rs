//! What cannot work is refused with a clear word, a non-zero exit, and nothing changed; a full
//! disk is the application's error on the source and patience on the target.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::host::{
    self, COMMAND_MAX, Disk, Place, Protected, Setup, describe, heavy, is_mounted, output_within, run,
};
use crate::tree::{self, Rules};

/// Directories with a few files, nothing running.
fn prepared() -> Protected {
    let protected = Protected::prepare(Setup { place: Place::Over, ..Setup::default() });
    fs::create_dir(protected.backing.join("sub")).expect("a directory");
    fs::write(protected.backing.join("sub/file"), "content").expect("a file");
    protected
}

fn protect(run: &Path, state: &Path, dir: &Path, replica: &Path) -> Command {
    let mut to = std::ffi::OsString::from("local:");
    to.push(replica);
    let mut command = host::standin(run);
    command.arg("protect").arg(dir).arg("--to").arg(to).arg("--state").arg(state);
    command
}

/// The usual command with another directory and replica.
fn with(protected: &Protected, dir: &Path, replica: &Path) -> Command {
    protect(&protected.run, &protected.state, dir, replica)
}

/// Runs a command that must be refused by its own checks, soon, with all `words` on stderr.
#[track_caller]
fn refused(mut command: Command, words: &[&str]) {
    let output = output_within(&mut command, COMMAND_MAX);
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(output.status.code().is_some_and(|code| code != 0), "{command:?}: {}", describe(&output));
    assert!(!said.contains("panicked"), "{command:?}: {said}");
    for word in words {
        assert!(said.contains(&word.to_lowercase()), "`{word}` is missing; {command:?} said: {said}");
    }
    assert!(!String::from_utf8_lossy(&output.stdout).contains("ready"), "{command:?}: ready and refused");
}

/// As [`refused`]; source and replica must be as before, and nothing mounted.
#[track_caller]
fn refused_untouched(protected: &Protected, command: Command, words: &[&str]) {
    let copies = [&protected.backing, &protected.replica].map(|dir| (dir.clone(), copy_of(protected, dir)));
    refused(command, words);
    for (dir, copy) in copies {
        assert!(!is_mounted(&dir), "{} is mounted", dir.display());
        tree::assert_same_by(&dir, &copy, &Rules { ignore_holes: true, ..Rules::default() });
        fs::remove_dir_all(copy).expect("a copy");
    }
}

fn copy_of(protected: &Protected, dir: &Path) -> PathBuf {
    let copy = protected.base.path().join(format!("copy of {}", dir.file_name().expect("a name").display()));
    run(Command::new("cp").args(["-a", "-x", "-T"]).arg(dir).arg(&copy));
    copy
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn what_is_no_directory() {
    let protected = prepared();
    refused(with(&protected, Path::new("/"), &protected.replica), &["/", "cannot be protected"]);
    let file = protected.backing.join("sub/file");
    refused_untouched(&protected, with(&protected, &file, &protected.replica), &[&shown(&file), "directory"]);
    let missing = protected.backing.join("missing");
    refused_untouched(
        &protected,
        with(&protected, &missing, &protected.replica),
        &[&shown(&missing), "not exist"],
    );
    refused_untouched(&protected, with(&protected, &protected.backing, &file), &[&shown(&file)]);
}

#[test]
fn one_inside_the_other() {
    let protected = prepared();
    let (source, replica) = (&protected.backing, &protected.replica);
    let inside = source.join("sub");
    refused_untouched(&protected, with(&protected, source, &inside), &[&shown(&inside)]);
    refused_untouched(&protected, with(&protected, source, source), &[&shown(source)]);
    refused_untouched(&protected, with(&protected, source, &source.join("not/yet")), &[&shown(source)]);
    let around = replica.join("protected");
    fs::create_dir(&around).expect("a directory");
    refused_untouched(&protected, with(&protected, &around, replica), &[&shown(&around)]);
    fs::remove_dir(&around).expect("removed");
    for (run, state) in [(&protected.run, &inside), (&inside, &protected.state)] {
        refused_untouched(&protected, protect(run, state, source, replica), &[&shown(&inside)]);
    }
    let link = protected.base.path().join("way-in");
    std::os::unix::fs::symlink(&inside, &link).expect("a symlink");
    refused_untouched(&protected, with(&protected, source, &link), &[&shown(source)]);
}

#[test]
fn a_replica_with_other_content() {
    let protected = prepared();
    fs::write(protected.replica.join("somebody's"), "work").expect("a file");
    let command = with(&protected, &protected.backing, &protected.replica);
    refused_untouched(&protected, command, &[&shown(&protected.replica), "adopt"]);
}

#[test]
fn a_replica_of_another_source() {
    let mut first = prepared();
    first.start_again();
    first.wait_sync();
    first.stop();
    let second = prepared();
    fs::write(second.backing.join("other"), "source").expect("a file");
    refused_untouched(&first, with(&second, &second.backing, &first.replica), &[&shown(&first.replica)]);
    assert!(!is_mounted(&second.backing));
}

#[test]
fn a_directory_that_is_protected() {
    let mut first = prepared();
    first.start_again();
    let second = prepared();
    let again = |dir: &Path| with(&second, dir, &second.replica);
    refused(again(&first.mount), &[&shown(&first.mount), "protect"]);
    refused(again(&first.mount.join("sub")), &[&shown(&first.mount)]);
    refused(again(first.base.path()), &[&shown(&first.mount)]);
    assert_eq!(fs::read(first.mount.join("sub/file")).expect("the first goes on"), b"content");
    first.wait_sync();
    first.stop();
    tree::assert_same(&first.backing, &first.replica);
}

#[test]
fn files_open_for_writing() {
    let protected = prepared();
    let writer = File::options().append(true).open(protected.backing.join("sub/file")).expect("a writer");
    let me = std::process::id().to_string();
    let command = || with(&protected, &protected.backing, &protected.replica);
    refused_untouched(&protected, command(), &[&me, &shown(&protected.backing), "writ"]);
    drop(writer);
    let reader = File::open(protected.backing.join("sub/file")).expect("a reader");
    let mut protected = protected;
    protected.start_again();
    drop(reader);
    protected.stop();
}

/// A mount that is gone with the value.
struct Tmpfs(PathBuf);

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn mounts_below() {
    let protected = prepared();
    let at = protected.backing.join("sub");
    run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&at));
    let below = Tmpfs(at);
    let command = with(&protected, &protected.backing, &protected.replica);
    refused_untouched(&protected, command, &[&shown(&below.0), "mount"]);
}

#[test]
fn not_root() {
    let protected = prepared();
    // The build directory may be closed to other users; the directory for temporary files is not.
    let open = tempfile::tempdir().expect("a temporary directory");
    let set = |path: &Path| fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755));
    let binary = open.path().join("standin");
    fs::copy(host::binary(), &binary)
        .and_then(|_| set(&binary))
        .and_then(|()| set(open.path()))
        .expect("a copy");
    let given = with(&protected, &protected.backing, &protected.replica);
    let mut command = Command::new(&binary);
    command.args(given.get_args()).uid(65_534).gid(65_534).current_dir("/");
    refused_untouched(&protected, command, &["root"]);
}

/// With the lowest limit that is taken every call works, however many files are open; below it calls
/// failed here and there.
#[test]
fn few_open_files_are_enough_or_refused() {
    let mut protected = prepared();
    protected.open_files = Some(1023);
    let command = protected.protect_command();
    refused_untouched(&protected, command, &["1023 files may be open", "LimitNOFILE"]);
    protected.open_files = Some(1024);
    protected.start_again();
    let path = |number: usize| protected.mount.join(format!("sub/many{number}"));
    let open = |number| File::options().read(true).write(true).create_new(true).open(path(number));
    let files: Vec<File> =
        (0..900).map(|number| open(number).unwrap_or_else(|error| panic!("{number}: {error}"))).collect();
    let other = File::create(protected.mount.join("other")).expect("a file");
    for (number, file) in files.iter().enumerate() {
        use std::os::unix::fs::FileExt;
        file.write_all_at(&[number as u8; 100], 0).unwrap_or_else(|error| panic!("{number}: {error}"));
        other.write_all_at(&[number as u8; 10], number as u64 * 10).expect("a write");
        if number % 2 == 0 {
            fs::rename(path(number), path(number + 10_000))
                .unwrap_or_else(|error| panic!("{number}: {error}"));
        }
    }
    drop((files, other));
    protected.stop();
    tree::assert_same_by(&protected.backing, &protected.replica, &Rules::default());
}

/// Fills a file until the disk is full; gives the error and the bytes that were taken.
fn fill(path: &Path, max: usize) -> (Option<io::Error>, u64) {
    let file = File::create(path).expect("a file on a disk that is to be filled");
    for at in 0..max as u64 {
        let written = std::os::unix::fs::FileExt::write_all_at(&file, &[at as u8; 1 << 20], at << 20);
        if let Err(error) = written.and_then(|()| file.sync_data()) {
            return (Some(error), at << 20);
        }
    }
    (None, (max as u64) << 20)
}

#[test]
fn a_full_source_is_the_applications_error() {
    let _alone = heavy();
    let source = Disk::Image { kind: "ext4", mib: 48 };
    let mut protected = Protected::start(Setup { source, ..Setup::default() });
    let (error, taken) = fill(&protected.mount.join("large"), 64);
    assert_eq!(error.and_then(|error| error.raw_os_error()), Some(libc::ENOSPC), "after {taken} bytes");
    let small = fs::write(protected.mount.join("small"), vec![1; 1 << 20]);
    assert_eq!(small.expect_err("no room").raw_os_error(), Some(libc::ENOSPC));
    let rules = Rules { hole_slack: 64 * 1024, ..Rules::default() };
    assert!(protected.assert_in_sync_by(&rules).bytes > 10 << 20);
    fs::remove_file(protected.mount.join("large")).expect("removed");
    fs::write(protected.mount.join("small"), vec![2; 1 << 20]).expect("there is room again");
    assert!(protected.assert_in_sync_by(&rules).bytes == 1 << 20);
    protected.stop();
}

#[test]
fn a_full_replica_is_retried() {
    let _alone = heavy();
    let replica = Disk::Image { kind: "ext4", mib: 64 };
    let mut protected = Protected::start(Setup { replica, ..Setup::default() });
    let ballast = protected.replica.with_file_name("ballast");
    let (full, _) = fill(&ballast, 80);
    assert!(full.is_some(), "the ballast fills the disk");
    File::options().write(true).open(&ballast).and_then(|file| file.set_len(20 << 20)).expect("some room");

    let (error, taken) = fill(&protected.mount.join("large"), 32);
    assert!(error.is_none(), "the application met {error:?} after {taken} bytes");
    wait_for_status(&protected, "retrying");
    fs::write(protected.mount.join("meanwhile"), "applications go on").expect("a write");

    fs::remove_file(&ballast).expect("removed");
    let seen = protected.assert_in_sync_by(&Rules { hole_slack: 64 * 1024, ..Rules::default() });
    assert!(seen.bytes > 32 << 20, "{seen:?}");
    protected.stop();
}

#[track_caller]
fn wait_for_status(protected: &Protected, word: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = protected.status();
        if status.to_lowercase().contains(word) {
            return;
        }
        assert!(Instant::now() < deadline, "status never said {word}: {status}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
