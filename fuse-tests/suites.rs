//! Other people's tests on the mount, then backing tree against replica: pjdfstest, fsx, fio,
//! stress-ng, SQLite. A tool that is missing is a failure that names it; `STANDIN_SUITE_BIN` is
//! searched before `PATH`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::host::{
    COMMAND_MAX, Disk, Protected, Setup, describe, heavy, output_within, require_program, standin,
};
use crate::random::setting;
use crate::tree::Rules;

const SUITE_MAX: Duration = Duration::from_secs(600);
/// What reserved ranges become depends on the time of writeback (see [`Rules::hole_slack`]).
const SLACK: u64 = 64 * 1024;

fn start() -> Protected {
    Protected::start(Setup::default())
}

#[track_caller]
fn in_sync(protected: &Protected) {
    let seen = protected.assert_in_sync_by(&Rules { hole_slack: SLACK, ..Rules::default() });
    println!("compared: {seen:?}");
}

#[track_caller]
fn succeeds(command: &mut Command) -> Output {
    let output = output_within(command, SUITE_MAX);
    assert!(output.status.success(), "{command:?}: {}", describe(&output));
    output
}

/// Every optional part of the suite that Linux has. Two existing users of their own groups.
const PJDFSTEST: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
allow_remount = REMOUNT
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// Failed, skipped, passed, total.
#[derive(Debug, PartialEq, Eq)]
struct Summary([u64; 4]);

/// The numbers of `Summary: 0 failed, 13 skipped, 385 passed, 0 expected failures, 398 total`.
fn summary(said: &str) -> Option<Summary> {
    let line = said.lines().find(|line| line.starts_with("Summary: "))?;
    let count = |word: &str| {
        let part = line.trim_start_matches("Summary: ").split(", ").find(|part| part.ends_with(word))?;
        part.split(' ').next()?.parse().ok()
    };
    Some(Summary([count(" failed")?, count(" skipped")?, count(" passed")?, count(" total")?]))
}

/// Runs the suite below `at`; `pattern` limits it. A second file system serves its EXDEV cases.
fn pjdfstest(work: &Path, at: &Path, remount: bool, pattern: &[&str]) -> (Summary, String) {
    let (config, bin) = (work.join("pjdfstest.toml"), work.join("bin"));
    fs::write(&config, PJDFSTEST.replace("REMOUNT", &remount.to_string())).expect("a configuration");
    // `mount -o remount` asks for a helper `mount.fuse` where one is installed, which would start a
    // new daemon; `-i` is how one remounts without it.
    fs::create_dir_all(&bin).expect("a directory");
    let mount = format!("#!/bin/sh\nexec {} -i \"$@\"\n", require_program("mount").display());
    fs::write(bin.join("mount"), mount).expect("a script");
    fs::set_permissions(bin.join("mount"), PermissionsExt::from_mode(0o755)).expect("an executable");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(require_program("pjdfstest"));
    command.env("PATH", format!("{}:{path}", bin.display())).env("NO_COLOR", "1").env("RUST_BACKTRACE", "0");
    command.arg("-c").arg(&config).arg("-p").arg(at).args(["-s", "/dev/shm"]).args(pattern);
    let output = output_within(&mut command, SUITE_MAX);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let summary = summary(&said).unwrap_or_else(|| panic!("no summary: {}", describe(&output)));
    (summary, said)
}

/// The cases of a report that did not pass, with their reasons.
fn not_passed(said: &str) -> String {
    let lines = said.lines().filter(|line| !line.trim_end().ends_with(" ok") && !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn pjdfstest_passes() {
    let _alone = heavy();
    let protected = start();
    fs::set_permissions(&protected.mount, PermissionsExt::from_mode(0o755)).expect("open to all");
    let (Summary([failed, skipped, passed, total]), said) =
        pjdfstest(protected.base.path(), &protected.mount, false, &[]);
    println!("{failed} failed, {skipped} skipped, {passed} passed of {total}");
    assert!(failed == 0 && skipped <= 14 && total >= 398, "{}", not_passed(&said));
    // Alone: a remount is refused while an earlier case has a file open for writing.
    let (remounts, said) = pjdfstest(protected.base.path(), &protected.mount, true, &["erofs"]);
    println!("remounted read-only: {remounts:?}");
    assert!(remounts.0[0] == 0 && remounts.0[1] == 0 && remounts.0[2] >= 13, "{}", not_passed(&said));
    in_sync(&protected);
}

/// The same on a plain file system: what fails there is no fault of the mount.
#[test]
fn pjdfstest_passes_without_a_mount() {
    let _alone = heavy();
    let protected =
        Protected::prepare(Setup { source: Disk::Image { kind: "ext4", mib: 256 }, ..Setup::default() });
    fs::set_permissions(&protected.backing, PermissionsExt::from_mode(0o755)).expect("open to all");
    let (summary, said) = pjdfstest(protected.base.path(), &protected.backing, false, &[]);
    assert!(summary.0[0] == 0 && summary.0[1] <= 13, "{summary:?}\n{}", not_passed(&said));
}

#[test]
fn a_summary_is_read() {
    let line = "x ok\nSummary: 2 failed, 13 skipped, 383 passed, 0 expected failures, 398 total\n";
    assert_eq!(summary(line), Some(Summary([2, 13, 383, 398])));
    assert_eq!(summary("Summary: broken"), None);
}

const FSX: &str = "\
flen = 1048576
[opsize]
max = 131072
[weights]
close_open = 1
read = 5
write = 10
mapread = 5
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 1
fdatasync = 1
posix_fallocate = 3
punch_hole = 5
sendfile = 2
posix_fadvise = 1
copy_file_range = 3
";

#[test]
fn fsx_finds_nothing() {
    let _alone = heavy();
    let protected = start();
    let config = protected.base.path().join("fsx.toml");
    fs::write(&config, FSX).expect("a configuration");
    let ops = setting("STANDIN_FSX_OPS").unwrap_or(3000).to_string();
    for seed in 1..=setting("STANDIN_FSX_SEEDS").unwrap_or(4) {
        let mut command = Command::new(require_program("fsx"));
        command.arg("-f").arg(&config).args(["-N", &ops, "-S", &seed.to_string(), "-P"]);
        succeeds(command.arg(protected.base.path()).arg(protected.mount.join(format!("fsx{seed}"))));
    }
    in_sync(&protected);
}

#[test]
fn fio_verifies() {
    let _alone = heavy();
    let protected = start();
    for (engine, direct) in [("psync", 0), ("psync", 1), ("mmap", 0), ("libaio", 0), ("libaio", 1)] {
        let name = format!("{engine}-{direct}");
        let mut command = Command::new(require_program("fio"));
        // It leaves files about its verification where it runs.
        command.current_dir(protected.base.path());
        command.arg(format!("--name={name}")).arg(format!("--directory={}", protected.mount.display()));
        command.arg(format!("--ioengine={engine}")).arg(format!("--direct={direct}"));
        command.args(["--rw=randrw", "--bsrange=4k-64k", "--size=16m", "--numjobs=2", "--iodepth=8"]);
        command.args(["--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--fallocate=none"]);
        succeeds(command.args(["--fsync=64", "--group_reporting", "--minimal"]));
    }
    in_sync(&protected);
    // Once more against the sums that fio left in the files, from the replica.
    let mut command = Command::new(require_program("fio"));
    command.current_dir(protected.base.path());
    command.args(["--name=psync-1", "--ioengine=psync", "--rw=write", "--bs=8k", "--size=16m"]);
    command.args(["--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--verify_pattern=0xdeadbeef"]);
    succeeds(command.arg(format!("--directory={}", protected.mount.display())));
    in_sync(&protected);
}

/// Stressors of the class `filesystem` that work below the given directory; the others of the
/// class mount, or test other things than a file system.
const STRESSORS: &[&str] = &[
    "access",
    "chdir",
    "chmod",
    "chown",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "dnotify",
    "fallocate",
    "fcntl",
    "fiemap",
    "file-ioctl",
    "filename",
    "flock",
    "fpunch",
    "fsize",
    "fstat",
    "getdent",
    "handle",
    "hdd",
    "inode-flags",
    "inotify",
    "iomix",
    "lease",
    "link",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "open",
    "rename",
    "symlink",
    "sync-file",
    "touch",
    "utime",
    "xattr",
];

#[test]
fn stress_ng_verifies() {
    let _alone = heavy();
    let protected = start();
    for stressor in STRESSORS {
        let mut command = Command::new(require_program("stress-ng"));
        command.args([&format!("--{stressor}"), "1", "--timeout", "1", "--verify", "--temp-path"]);
        command.arg(&protected.mount).args(["--hdd-bytes", "16m", "--iomix-bytes", "16m"]);
        command.args(["--fallocate-bytes", "16m", "--sync-file-bytes", "16m"]).current_dir("/");
        let output = output_within(&mut command, SUITE_MAX);
        // 3 and 4: the stressor found that the file system or the kernel lacks what it tests.
        let fine = matches!(output.status.code(), Some(0 | 3 | 4));
        assert!(fine, "{stressor}: {}", describe(&output));
    }
    in_sync(&protected);
}

#[test]
fn sqlite_writes_in_all_journal_modes() {
    let _alone = heavy();
    let protected = start();
    let sqlite = require_program("sqlite3");
    for (mode, rows) in [("wal", 3000), ("delete", 300), ("truncate", 300), ("persist", 300)] {
        let database = protected.mount.join(format!("{mode}.db"));
        let mut script =
            format!("PRAGMA journal_mode={mode}; CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB);\n");
        for row in 0..rows {
            script += &format!("INSERT INTO t(v) VALUES(randomblob({}));\n", row % 900);
            if row % 7 == 0 {
                script += &format!("DELETE FROM t WHERE k={};\n", row / 2);
            }
        }
        sql(&sqlite, &database, &script);
    }
    in_sync(&protected);
    for mode in ["wal", "delete", "truncate", "persist"] {
        let of = |root: &Path| {
            sql(
                &sqlite,
                &root.join(format!("{mode}.db")),
                "PRAGMA integrity_check; SELECT count(*), total(length(v)) FROM t;",
            )
        };
        let (source, replica) = (of(&protected.mount), of(&protected.replica));
        assert!(source.starts_with("ok\n") && source == replica, "{mode}: {source} | {replica}");
    }
}

/// Runs a script that comes by stdin; gives what it prints.
fn sql(sqlite: &Path, database: &Path, script: &str) -> String {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), script).expect("a script");
    let input = fs::File::open(file.path()).expect("a script");
    let output =
        Command::new(sqlite).args(["-bail", "-batch"]).arg(database).stdin(Stdio::from(input)).output();
    let output = output.expect("sqlite3 runs");
    assert!(output.status.success(), "{}: {}", database.display(), describe(&output));
    String::from_utf8(output.stdout).expect("text")
}

/// A mount of bindfs, unmounted at the end.
struct Bound(std::path::PathBuf);

impl Bound {
    fn over(below: &Path, at: &Path) -> Bound {
        [below, at].iter().for_each(|dir| fs::create_dir(dir).expect("a directory"));
        succeeds(Command::new(require_program("bindfs")).args([below, at]));
        Bound(at.to_owned())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Fails only where it is gone already.
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Two names of one file had two handles there, and after the next mount one of them opened another file: wrong
/// content was called good.
#[test]
fn a_replica_on_a_file_system_without_identities_is_refused() {
    let protected = Protected::prepare(Setup::default());
    let base = protected.base.path();
    fs::write(protected.backing.join("file"), "content").expect("a file");
    let bound = Bound::over(&base.join("below"), &base.join("bound"));
    let why = "until it is unmounted only (FUSE)";
    for replica in ["new", "made"].map(|name| bound.0.join(name)) {
        if replica.ends_with("made") {
            fs::create_dir(&replica).expect("a directory");
        }
        let to = format!("local:{}", replica.display());
        let mut doctor = standin(&protected.run);
        let output =
            output_within(doctor.arg("doctor").arg(&protected.backing).args(["--to", &to]), COMMAND_MAX);
        let said = describe(&output);
        assert!(said.contains("FAIL  target") && said.contains(why), "{said}");
        let mut protect = standin(&protected.run);
        protect
            .arg("protect")
            .arg(&protected.backing)
            .args(["--to", &to])
            .arg("--state")
            .arg(&protected.state);
        let output = output_within(&mut protect, COMMAND_MAX);
        let said = describe(&output);
        assert!(output.status.code() == Some(2) && said.contains(why) && said.contains("ext4"), "{said}");
        assert_eq!(fs::read_dir(&replica).map_or(0, Iterator::count), 0);
    }
}
