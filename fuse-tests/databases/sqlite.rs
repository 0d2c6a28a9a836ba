//! SQLite with its write-ahead log and with its rollback journal.
//!
//! The file `-shm` of a write-ahead log is a shared mapping, so the replica's lags behind the
//! rest. That harms nobody: the first program that opens a database makes it anew from `-wal`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Behind, Cut, Site, copy_away, cuts, seeded};
use crate::host::{COMMAND_MAX, describe, heavy, output_within, require_program, run};
use standin::random::Random;

/// One series of cuts.
#[derive(Clone, Copy)]
struct Series {
    journal_mode: &'static str,
    synchronous: &'static str,
    /// Between commits. Zero: as fast as it goes, so that nearly each cut is within a transaction.
    pause: Duration,
    cuts: u64,
    /// Transactions that a copy may be behind what was committed at the cut.
    behind_max: i64,
}

/// Twenty transactions a second.
const STEADY: Duration = Duration::from_millis(50);
/// No bound where it would be one on the speed of the machine.
const ANY: i64 = i64::MAX;

impl Series {
    fn new(journal_mode: &'static str) -> Series {
        Series { journal_mode, synchronous: "FULL", pause: STEADY, cuts: cuts(4), behind_max: ANY }
    }

    fn flat_out(self) -> Series {
        Series { pause: Duration::ZERO, ..self }
    }
}

/// A program that commits and writes down what was committed, outside the mount.
struct Writer {
    child: Child,
    log: PathBuf,
}

impl Writer {
    /// Makes the database in a new directory below `root`, the log in `beside`.
    #[track_caller]
    fn start(root: &Path, beside: &Path, series: Series, seed: u64) -> Writer {
        let (directory, log) = (root.join("database"), beside.join("committed"));
        fs::create_dir(&directory).expect("a directory");
        let mut command = python(include_str!("sqlite_writer.py"));
        command.arg(directory.join("numbers.db"));
        command.args([series.journal_mode, series.synchronous]).arg(&log);
        command.args([seed.to_string(), series.pause.as_secs_f64().to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 starts");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("a line");
        assert_eq!(ready, "ready\n", "the writer could not begin: its error is above");
        Writer { child, log }
    }

    /// The last transaction whose commit has returned.
    fn committed(&self) -> u64 {
        let log = fs::read_to_string(&self.log).expect("the log");
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole
            .rsplit('\n')
            .next()
            .filter(|last| !last.is_empty())
            .map_or(0, |last| last.parse().expect("a number"))
    }

    /// Waits for a commit beyond this one.
    #[track_caller]
    fn commits_beyond(&mut self, number: u64) {
        let deadline = Instant::now() + COMMAND_MAX;
        while self.committed() <= number {
            let ended = self.child.try_wait().expect("our own child");
            assert!(ended.is_none() && Instant::now() < deadline, "nothing commits any more: {ended:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lets it end; gives the last transaction.
    fn end(mut self) -> u64 {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("our own child");
        assert!(status.success(), "the writer failed: {status}; its error is above");
        self.committed()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens a copy; gives the last transaction of those that it holds.
///
/// Errors: what is wrong with its content.
fn open(copy: &Path, seed: u64) -> Result<u64, String> {
    let mut command = python(include_str!("sqlite_check.py"));
    command.arg(copy.join("numbers.db")).arg(seed.to_string());
    let output = output_within(&mut command, COMMAND_MAX);
    if !output.status.success() {
        return Err(describe(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number"))
}

fn python(script: &str) -> Command {
    let mut command = Command::new(require_program("python3"));
    command.arg("-c").arg(script);
    command
}

/// Any moment, or one right after the next change of the replica: in the middle of a commit.
fn wait_for_moment(random: &mut Random, replica: &Path) {
    std::thread::sleep(Duration::from_micros(random.below(400_000)));
    if random.below(2) == 0 {
        return;
    }
    let times =
        || ["", "-wal", "-journal"].map(|end| modified(&replica.join(format!("database/numbers.db{end}"))));
    let (before, deadline) = (times(), Instant::now() + Duration::from_millis(200));
    while times() == before && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(100));
    }
    std::thread::sleep(Duration::from_micros(random.below(3000)));
}

/// Changes with each write that arrives, and when the file comes or goes.
fn modified(path: &Path) -> Option<(u64, std::time::SystemTime)> {
    fs::metadata(path).ok().and_then(|data| Some((data.len(), data.modified().ok()?)))
}

/// One cut; gives what was committed just before and what the copy holds.
fn cut_and_open(site: &mut Site, writer: &mut Writer, cut: Cut, seed: u64) -> (u64, u64) {
    let before = writer.committed();
    site.cut(cut);
    // The commit that was under way may have been heard of before it returned.
    let after = writer.committed() + 1;
    let copy = site.base().join("copy");
    copy_away(&site.replica().join("database"), &copy);
    // Only now: a writer goes on while the target is away.
    site.go_on(cut);
    let found = open(&copy, seed).unwrap_or_else(|wrong| panic!("{cut:?}: {wrong}\n{}", site.said()));
    assert!(found <= after, "the copy holds {found} transactions of {after}");
    fs::remove_dir_all(copy).expect("our own copy");
    writer.commits_beyond(before);
    (before, found)
}

#[track_caller]
fn run_series(mut site: Site, series: Series) {
    let (seed, mut random) = seeded(&format!("SQLite {} {}", series.journal_mode, series.synchronous));
    let mut writer = Writer::start(site.mount(), site.base(), series, seed);
    let (mut behind, mut kills, mut arrived) = (Behind::default(), 0, 0);
    site.wait_sync();
    for _ in 0..series.cuts {
        wait_for_moment(&mut random, &site.replica());
        let cut = site.pick_cut(&mut random);
        kills += u64::from(cut == Cut::Kill);
        let (committed, found) = cut_and_open(&mut site, &mut writer, cut, seed);
        behind.add(committed, found);
        assert!(
            committed as i64 - found as i64 <= series.behind_max,
            "{cut:?}: {found} of {committed} committed transactions\n{}",
            site.said()
        );
        assert!(found >= arrived, "{cut:?}: {found} transactions, {arrived} had arrived\n{}", site.said());
        // Else the next cut may find it catching up.
        if series.pause > Duration::ZERO || random.below(2) == 0 {
            arrived = writer.committed();
            site.wait_sync();
        }
    }
    let last = writer.end();
    site.assert_in_sync();
    let copy = site.base().join("copy");
    copy_away(&site.replica().join("database"), &copy);
    assert_eq!(open(&copy, seed), Ok(last));
    println!(
        "SQLite {} {}: {} of {} copies open, {kills} after a kill, {last} transactions; behind by {behind}",
        series.journal_mode, series.synchronous, series.cuts, series.cuts
    );
    assert!(site.stop().objects > 1);
}

/// A database that is copied in each of these modes while it is written: behind each copy it opens, at two cuts.
pub fn copied_in_each(
    modes: &[&str],
    journal_mode: &'static str,
    told: impl Fn(&Site, &[&str]),
    wait_until_complete: impl Fn(&Site),
) {
    use std::os::unix::fs::PermissionsExt;
    let (seed, mut random) = seeded(&format!("SQLite {journal_mode}, copied"));
    let mut site = Site::hosts();
    let mut writer = Writer::start(site.mount(), site.base(), Series::new(journal_mode).flat_out(), seed);
    site.wait_sync();
    for mode in modes {
        writer.commits_beyond(writer.committed() + 20);
        site.wait_sync();
        // Every mode finds that.
        let database = site.replica().join("database/numbers.db");
        fs::set_permissions(database, PermissionsExt::from_mode(0o600)).expect("the replica's file");
        told(&site, &["mirror", "start", "--mode", mode]);
        wait_until_complete(&site);
        for _ in 0..2 {
            let arrived = writer.committed();
            site.wait_sync();
            wait_for_moment(&mut random, &site.replica());
            let cut = site.pick_cut(&mut random);
            let (_, found) = cut_and_open(&mut site, &mut writer, cut, seed);
            assert!(found >= arrived, "{mode}: {found} transactions, {arrived} had arrived\n{}", site.said());
            wait_until_complete(&site);
        }
    }
    let last = writer.end();
    site.assert_in_sync();
    let copy = site.base().join("copy");
    copy_away(&site.replica().join("database"), &copy);
    assert_eq!(open(&copy, seed), Ok(last));
    assert!(site.stop().objects > 1);
}

#[test]
fn a_copy_cut_at_any_moment_opens_with_all_transactions_up_to_one() {
    let _heavy = heavy();
    for journal_mode in ["wal", "delete"] {
        run_series(Site::hosts(), Series::new(journal_mode));
        run_series(Site::local(), Series::new(journal_mode));
        run_series(Site::hosts(), Series::new(journal_mode).flat_out());
    }
}

/// What was synced is there when everything was waited for, and every copy is some commit's, although
/// the kernel gathers what SQLite writes between its syncs.
#[test]
fn a_copy_is_cut_in_the_same_way_where_writes_are_gathered() {
    let _heavy = heavy();
    let site = || Site::hosts_with(crate::hosts::Hosts::prepare(), &["--profile", "batch"]);
    for (journal_mode, synchronous) in [("wal", "NORMAL"), ("wal", "FULL"), ("delete", "FULL")] {
        run_series(site(), Series { synchronous, cuts: cuts(3), ..Series::new(journal_mode).flat_out() });
    }
}

/// A check that finds nothing has to be able to find something.
#[test]
fn the_check_finds_what_is_wrong() {
    let dir = crate::host::dir_on_disk();
    let mut writer = Writer::start(dir.path(), dir.path(), Series::new("delete").flat_out(), 5);
    writer.commits_beyond(40);
    let last = writer.end();
    let path = dir.path().join("database");
    assert_eq!(open(&path, 5), Ok(last));
    let original = fs::read(path.join("numbers.db")).expect("the database");
    for (change, found) in [
        ("DELETE FROM numbers WHERE n = 7", "are there, up to"),
        ("INSERT INTO numbers SELECT max(n) + 1 FROM numbers", "are there, up to"),
        ("UPDATE counter SET total = total - 1", "the sum of 1 to"),
        ("UPDATE counter SET last = last - 1, total = total - last", "are there, up to"),
        (
            "UPDATE payload SET body = zeroblob(length(body)) WHERE slot = (SELECT max(slot) FROM payload)",
            "is another one",
        ),
        ("DELETE FROM payload WHERE slot = (SELECT max(slot) FROM payload)", "payloads at"),
    ] {
        let script =
            "import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None).execute(sys.argv[2])";
        run(python(script).arg(path.join("numbers.db")).arg(change));
        let said = open(&path, 5).expect_err(change);
        assert!(said.contains(found), "{change}: {said}");
        fs::write(path.join("numbers.db"), &original).expect("our own file");
    }
    // The root of the table of numbers, lost.
    let mut torn = original;
    torn[4096..8192].fill(0);
    fs::write(path.join("numbers.db"), &torn).expect("our own file");
    assert!(open(&path, 5).is_err(), "a page of zeros was not found");
}

/// The long series. `STANDIN_DB_CUTS` is 50 here unless it is set.
#[cfg(feature = "suites")]
mod suites {
    use super::*;
    use crate::databases::FSYNC_TARGET;
    use crate::hosts::Hosts;

    fn long(journal_mode: &'static str) -> Series {
        Series { cuts: cuts(50), behind_max: 2, ..Series::new(journal_mode) }
    }

    #[test]
    fn write_ahead_log() {
        let _heavy = heavy();
        run_series(Site::hosts(), long("wal"));
    }

    #[test]
    fn write_ahead_log_synchronous_normal() {
        let _heavy = heavy();
        run_series(Site::hosts(), Series { synchronous: "NORMAL", ..long("wal") });
    }

    #[test]
    fn rollback_journal() {
        let _heavy = heavy();
        run_series(Site::hosts(), long("delete"));
    }

    #[test]
    fn within_the_source_daemon() {
        let _heavy = heavy();
        for journal_mode in ["wal", "delete"] {
            run_series(Site::local(), long(journal_mode));
        }
    }

    /// With the journal only `EXTRA` syncs its removal, which is what commits.
    #[test]
    fn nothing_committed_is_missing() {
        let _heavy = heavy();
        for (journal_mode, synchronous) in [("wal", "FULL"), ("delete", "EXTRA")] {
            let site = Site::hosts_with(Hosts::prepare(), &FSYNC_TARGET);
            run_series(site, Series { synchronous, behind_max: 0, ..long(journal_mode) });
            let site = Site::hosts_with(Hosts::prepare(), &FSYNC_TARGET);
            run_series(site, Series { synchronous, behind_max: 0, ..long(journal_mode).flat_out() });
        }
    }

    #[test]
    fn flat_out() {
        let _heavy = heavy();
        for journal_mode in ["wal", "delete", "truncate", "persist"] {
            run_series(Site::hosts(), Series { behind_max: ANY, ..long(journal_mode).flat_out() });
        }
    }
}
