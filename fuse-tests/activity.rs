//! The activity log: what a power loss costs with it, and that its own disk costs nobody anything.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::host::{Image, Protected, Setup, clear_mounts, heavy, require_program, run, wait_until};
use crate::power::Disk;
use crate::sys::cut_power;
use crate::tree::Rules;

const FILES: usize = 40;
const LEN: usize = 256 << 10;

/// Longer than a change waits for the log, and what else there is.
const WAIT_MAX: Duration = Duration::from_secs(30);

pub fn status(protected: &Protected) -> serde_json::Value {
    serde_json::from_str(&protected.status()).expect("a status")
}

/// From now on a power loss costs what is being written: the log is whole, and it is noted what the target had.
pub fn wait_noted(protected: &Protected) {
    wait_until("the log is whole", || status(protected)["activity"]["whole"] == true);
    let notes = |dir: fs::DirEntry| fs::read_to_string(dir.path().join("set.json")).unwrap_or_default();
    let is_noted = |text: String| {
        let record = serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default();
        record["marks"].as_object().is_some_and(|marks| !marks.is_empty())
    };
    wait_until("a note", || {
        fs::read_dir(&protected.state).into_iter().flatten().flatten().map(notes).any(is_noted)
    });
}

/// Everything is noted.
pub fn strict() -> Setup {
    Setup { arguments: vec!["--activity-log", "strict"], ..Setup::default() }
}

/// A set whose files are older than what change times tell of, and in line; then each power loss costs what it has to.
fn a_set(kind: &str, every: Option<Duration>) -> (Protected, Disk) {
    let mut protected = Protected::prepare(strict());
    protected.activity_every = every;
    let disk = Disk::new(kind, &protected);
    for number in 0..FILES {
        fs::write(protected.backing.join(format!("f{number}")), vec![number as u8; LEN]).expect("a file");
    }
    std::thread::sleep(Duration::from_secs(3));
    protected.start_again();
    protected.wait_sync();
    wait_noted(&protected);
    (protected, disk)
}

/// With other bytes of the same size and time.
fn rewrite(name: &Path) {
    let times = fs::metadata(name).and_then(|found| found.modified()).expect("a time");
    let file = File::options().write(true).open(name).expect("the file");
    file.write_all_at(&vec![b'N'; LEN], 0).and_then(|()| file.set_modified(times)).expect("rewritten");
}

fn lose_power(protected: &mut Protected, disk: &Disk) {
    cut_power(&disk.at).expect("a power cut");
    protected.kill9();
    clear_mounts(&protected.mount);
    disk.unmount();
}

fn start_and_compare(protected: &mut Protected) -> serde_json::Value {
    protected.start_again();
    protected.assert_in_sync_by(&Rules { hole_slack: 64 << 10, ..Rules::default() });
    status(protected)
}

fn costs_what_was_being_written(kind: &str) {
    let _alone = heavy();
    let (mut protected, disk) = a_set(kind, None);
    rewrite(&protected.mount.join("f7"));
    protected.wait_sync();
    assert_eq!(status(&protected)["activity"]["hot"], 1);
    lose_power(&mut protected, &disk);
    disk.mount();
    let left = fs::read(protected.backing.join("f7")).expect("the file");
    assert_eq!(left, vec![7; LEN], "the disk is behind the replica");
    let now = start_and_compare(&mut protected);
    assert_eq!(now["activity"]["in_doubt"], 1, "{}", now["activity"]);
    let progress = |name: &str| now["connections"][0]["progress"][name].as_u64().expect("a number");
    let (compared, sent) = (progress("bytes_compared"), progress("bytes_done"));
    assert!(compared + sent <= 2 * LEN as u64, "{compared} bytes were compared, {sent} sent");
    protected.stop();
    drop(protected);
    drop(disk);
}

/// All content was sent again, of a set of any size. Of one file the disk has the bytes of before with size and
/// times that do not tell, and the replica those of after.
#[test]
fn a_power_loss_costs_what_was_being_written() {
    costs_what_was_being_written("ext4");
}

/// With file systems whose tools are not everywhere.
#[cfg(feature = "suites")]
mod suites {
    #[test]
    fn a_power_loss_of_xfs_costs_what_was_being_written() {
        super::costs_what_was_being_written("xfs");
    }
}

/// What a power loss takes back is names, too, where sizes and times are all the same: renames, exchanges, deletions,
/// other files in the place of those that were there, links.
#[test]
fn names_that_a_power_loss_takes_back_are_found() {
    let _alone = heavy();
    let (mut protected, disk) = a_set("ext4", None);
    let time = fs::metadata(protected.mount.join("f0")).and_then(|found| found.modified()).expect("a time");
    for number in 1..FILES {
        let file = File::options().write(true).open(protected.backing.join(format!("f{number}")));
        file.and_then(|file| file.set_modified(time)).expect("a time");
    }
    protected.stop();
    protected.start_again();
    protected.wait_sync();
    wait_noted(&protected);
    let name = |number: usize| protected.mount.join(format!("f{number}"));
    let (from, to) = (name(1), name(2));
    let cwd = rustix::fs::CWD;
    rustix::fs::renameat_with(cwd, &from, cwd, &to, rustix::fs::RenameFlags::EXCHANGE).expect("exchanged");
    fs::rename(name(3), name(4)).expect("renamed");
    fs::remove_file(name(5)).expect("removed");
    fs::write(name(5), vec![b'n'; LEN]).expect("made anew");
    File::options().write(true).open(name(5)).and_then(|file| file.set_modified(time)).expect("a time");
    fs::remove_file(name(6)).expect("removed");
    fs::hard_link(name(7), name(6)).expect("linked");
    fs::create_dir(protected.mount.join("d")).expect("a directory");
    fs::rename(name(8), protected.mount.join("d/f8")).expect("moved");
    fs::rename(name(9), name(8)).expect("renamed");
    fs::remove_file(name(10)).expect("removed");
    protected.wait_sync();
    assert_eq!(status(&protected)["activity"]["hot"], 0, "no content was changed but of what was born");
    lose_power(&mut protected, &disk);
    disk.mount();
    assert_eq!(
        fs::read(protected.backing.join("f1")).expect("the file")[0],
        1,
        "the disk is behind the replica"
    );
    start_and_compare(&mut protected);
    protected.stop();
    drop(protected);
    drop(disk);
}

/// A generation had gone with a sync; then the disk of the directory, and it alone, was put back to before that sync.
#[test]
fn a_disk_that_is_put_back_is_compared_as_a_whole() {
    let _alone = heavy();
    let (mut protected, disk) = a_set("ext4", Some(Duration::from_millis(100)));
    let image = disk.image.with_extension("before");
    require_program("fsfreeze");
    let freeze = |how: &str| run(Command::new("fsfreeze").arg(how).arg(&disk.at));
    freeze("-f");
    let copied = Command::new("cp").arg("--sparse=always").arg(&disk.image).arg(&image).status();
    freeze("-u");
    assert!(copied.expect("cp runs").success());
    rewrite(&protected.mount.join("f7"));
    protected.wait_sync();
    wait_until("its generation has gone", || status(&protected)["activity"]["hot"] == 0);
    wait_noted(&protected);
    lose_power(&mut protected, &disk);
    fs::rename(&image, &disk.image).expect("put back");
    disk.mount();
    assert_eq!(fs::read(protected.backing.join("f7")).expect("the file"), vec![7; LEN], "put back");
    let now = start_and_compare(&mut protected);
    assert_eq!(now["activity"]["in_doubt"], 0, "{}", now["activity"]);
    protected.stop();
    drop(protected);
    drop(disk);
}

/// Whoever changes a cold file while the log's disk is as `harm` leaves it goes on, and it is said.
fn costs_nobody_anything(harm: impl FnOnce(&Path), mend: impl FnOnce(&Path)) -> (Protected, Image) {
    let mut protected = Protected::prepare(strict());
    for number in 0..FILES {
        fs::write(protected.backing.join(format!("f{number}")), vec![number as u8; LEN]).expect("a file");
    }
    let file = protected.base.path().join("state.image");
    fs::remove_dir(&protected.state).expect("an empty directory");
    let state: PathBuf = protected.state.clone();
    let image = Image::mount(protected.base.path(), state.clone(), "ext4", 64);
    assert!(file.exists());
    protected.start_again();
    protected.wait_sync();
    wait_noted(&protected);
    harm(&state);
    let since = Instant::now();
    for number in 0..FILES {
        let file = File::options().write(true).open(protected.mount.join(format!("f{number}")));
        file.and_then(|file| file.write_all_at(b"new", 5)).expect("the directory's own disk is well");
    }
    let waited = since.elapsed();
    assert!(waited < WAIT_MAX, "programs waited for {waited:?}");
    wait_until("it is said", || status(&protected)["activity"]["whole"] == false);
    mend(&state);
    (protected, image)
}

#[test]
fn a_log_whose_disk_is_gone_costs_no_program_anything() {
    let _alone = heavy();
    let (mut protected, image) = costs_nobody_anything(|state| cut_power(state).expect("a cut"), |_| {});
    assert!(protected.status().contains("activity_log_failed"), "{}", protected.status());
    protected.kill9();
    clear_mounts(&protected.mount);
    drop(protected);
    drop(image);
}

/// It does not fail: it does not answer.
#[test]
fn a_log_whose_disk_hangs_costs_no_program_anything() {
    let _alone = heavy();
    let freeze = |how: &'static str| {
        move |state: &Path| {
            run(Command::new(require_program("fsfreeze")).arg(how).arg(state));
        }
    };
    let (mut protected, image) = costs_nobody_anything(freeze("-f"), freeze("-u"));
    assert!(protected.status().contains("activity_log_failed"), "{}", protected.status());
    protected.assert_in_sync();
    protected.stop();
    drop(protected);
    drop(image);
}
