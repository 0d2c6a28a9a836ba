//! A target that lost its place, or was in line in an earlier run, gets what has changed since, and nothing else.

mod left;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::host::{COMMAND_MAX, Protected, Setup, describe, is_mounted, output_within, standin, wait_until};
use serde_json::Value;

/// Directories, and files in each.
const DIRECTORIES: usize = 40;
const FILES: usize = 50;

fn status(run: &Path) -> Value {
    let output = output_within(standin(run).args(["status", "--json"]), COMMAND_MAX);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)))
}

/// Of the copy that ended last.
fn progress(protected: &Protected) -> Value {
    status(&protected.run)["connections"][0]["progress"].clone()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn make_tree(root: &Path) {
    for dir in 0..DIRECTORIES {
        let dir = root.join(format!("d{dir}"));
        fs::create_dir(&dir).expect("a directory");
        for file in 0..FILES {
            fs::write(dir.join(format!("f{file}")), format!("{file} of {}", dir.display())).expect("a file");
        }
    }
}

/// What a file system may be asked for, in a few of the directories.
fn change_some(root: &Path) {
    fs::write(root.join("d1/f1"), "rewritten").expect("a write");
    fs::remove_file(root.join("d2/f2")).expect("a removal");
    fs::rename(root.join("d3"), root.join("d4/inside")).expect("a rename");
    fs::rename(root.join("d4/f4"), root.join("d5/f5")).expect("a replacement");
    fs::set_permissions(root.join("d6"), PermissionsExt::from_mode(0o700)).expect("a mode");
    fs::set_permissions(root.join("d6/f6"), PermissionsExt::from_mode(0o640)).expect("a mode");
    fs::remove_dir_all(root.join("d7")).expect("a removal");
    fs::create_dir_all(root.join("new/below")).expect("directories");
    fs::write(root.join("new/below/file"), "new").expect("a file");
    fs::hard_link(root.join("d8/f8"), root.join("new/link")).expect("a link");
    fs::File::options().write(true).open(root.join("d9/f9")).expect("a file").set_len(3).expect("a cut");
    std::os::unix::fs::symlink("f1", root.join("d1/symlink")).expect("a symlink");
}

/// It was of what has changed, and why no packets went.
#[track_caller]
fn assert_taken(protected: &Protected, searched: bool, why: &str) {
    let connection = || status(&protected.run)["connections"][0].clone();
    wait_until("it is weighed", || connection()["resync"]["bytes"]["at_most"].is_u64());
    let connection = connection();
    let by = if searched { ", by change times" } else { "" };
    assert_eq!(connection["reason"], format!("in line after a minicopy of what has changed{by}"));
    let taken = &connection["resync"];
    assert_eq!((&taken["rung"], &taken["searched"]), (&"owed".into(), &searched.into()), "{taken}");
    assert!(taken["why"].as_str().is_some_and(|text| text.contains(why)), "no '{why}' in {taken}");
    assert!(number(&taken["objects"]["at_most"]) > 0 && number(&taken["bytes"]["at_most"]) > 0, "{taken}");
}

/// It was one, it looked at few files, and sent the content of fewer.
fn assert_is_mini(protected: &Protected) {
    let progress = progress(protected);
    assert_eq!(progress["mode"], "minicopy", "{progress}");
    let (all, done) = ((DIRECTORIES * FILES) as u64, number(&progress["files_done"]));
    assert!(done < all / 2, "{done} of {all} files were looked at: {progress}");
    assert!(number(&progress["bytes_done"]) < 10_000, "{progress}");
}

/// Moments at which targets had everything are noted now and then. The first one that is noted with a change may have
/// been taken before it, and before what came before it: the second one was not.
fn wait_for_a_moment(protected: &Protected) {
    for round in 0..2 {
        let before = noted(protected);
        fs::write(protected.mount.join("moment"), format!("{round}")).expect("a write");
        wait_until("a moment is noted", || {
            let now = noted(protected);
            !now.is_empty() && now != before
        });
    }
}

/// Of each target the moment at which it had everything.
fn noted(protected: &Protected) -> Vec<Value> {
    let sets = fs::read_dir(protected.state.join("sets")).or_else(|_| fs::read_dir(&protected.state));
    let records = sets.expect("the state").flatten().map(|entry| entry.path().join("set.json"));
    let marks = |path: std::path::PathBuf| {
        let record: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
        record["marks"].as_object().map(|marks| marks.values().cloned().collect::<Vec<_>>())
    };
    records.filter_map(marks).flatten().collect()
}

/// It follows the stream again.
fn change_some_more(protected: &Protected) {
    fs::write(protected.mount.join("after"), "after").expect("a write");
    protected.wait_sync();
    assert!(protected.assert_in_sync().objects > 0);
}

#[test]
fn after_an_orderly_stop_only_what_changed_meanwhile_is_shown() {
    let mut protected = Protected::start(Setup::default());
    make_tree(&protected.mount);
    protected.wait_sync();
    // By the clock of a file system what happened just before the end may count as later.
    std::thread::sleep(Duration::from_secs(4));
    protected.stop();
    protected.start_again();
    protected.wait_in_line();
    let nothing = progress(&protected);
    assert_eq!(
        (&nothing["mode"], number(&nothing["files_done"])),
        (&Value::from("minicopy"), 0),
        "{nothing}"
    );
    protected.stop();
    change_some(&protected.backing);
    protected.start_again();
    protected.wait_in_line();
    assert!(protected.assert_in_sync().objects > DIRECTORIES * FILES / 2);
    assert_is_mini(&protected);
    let aside = output_within(standin(&protected.run).args(["orphans", "list", "--json"]), COMMAND_MAX);
    assert!(String::from_utf8_lossy(&aside.stdout).contains("d7"), "deleted: {}", describe(&aside));
    change_some_more(&protected);
    protected.stop();
}

#[test]
fn after_a_kill_only_what_changed_since_a_moment_is_shown() {
    let mut protected = Protected::start(Setup::default());
    make_tree(&protected.mount);
    protected.wait_sync();
    wait_for_a_moment(&protected);
    // Files of the last seconds count as changed.
    std::thread::sleep(Duration::from_secs(8));
    change_some(&protected.mount);
    protected.kill9();
    fs::write(protected.backing.join("d10/f10"), "past the mount").expect("a write");
    protected.start_again();
    protected.wait_in_line();
    assert!(protected.assert_in_sync().objects > DIRECTORIES * FILES / 2);
    assert_is_mini(&protected);
    assert_taken(&protected, true, "another run of the protection");
    change_some_more(&protected);
    protected.stop();
}

/// A person stops the replication: nothing is queued, nobody is alarmed, and a minicopy brings what was changed, also
/// after a restart.
#[test]
fn what_was_not_queued_is_brought_by_a_minicopy() {
    let mut protected = Protected::start(Setup::default());
    make_tree(&protected.mount);
    protected.wait_sync();
    // By the clock of a file system what happened just before the end may count as later.
    std::thread::sleep(Duration::from_secs(4));
    protected.stop();
    // What was made is of an earlier run.
    protected.start_again();
    protected.wait_in_line();
    let replication = |protected: &Protected, what: &str| {
        let output = output_within(standin(&protected.run).args(["replication", what]), COMMAND_MAX);
        assert!(output.status.success(), "{}", describe(&output));
        describe(&output)
    };
    let said = replication(&protected, "stop");
    assert!(said.contains("marked, and not queued"), "{said}");
    change_some(&protected.mount);
    let stopped = status(&protected.run);
    let at = &stopped["connections"][0];
    assert_eq!((&at["state"], &at["unqueued"]), (&"stopped".into(), &true.into()), "{at}");
    assert_eq!(
        (number(&stopped["queue"]["packets"]), &stopped["severity"]),
        (0, &"warning".into()),
        "{stopped}"
    );
    replication(&protected, "start");
    protected.wait_in_line();
    protected.wait_sync();
    protected.assert_in_sync();
    assert_is_mini(&protected);
    replication(&protected, "stop");
    std::thread::sleep(Duration::from_secs(4));
    protected.stop();
    protected.start_at_once();
    let stopped = status(&protected.run);
    let at = &stopped["connections"][0];
    assert_eq!((&at["state"], &at["unqueued"]), (&"stopped".into(), &true.into()), "{at}");
    // Whoever stopped it is not alarmed: what is there is as good as it was.
    assert_eq!((&at["unheard"], &stopped["severity"]), (&true.into(), &"warning".into()), "{stopped}");
    fs::write(protected.mount.join("d11/f11"), "after the restart").expect("a write");
    let output = output_within(standin(&protected.run).args(["connection", "start"]), COMMAND_MAX);
    assert!(output.status.success(), "{}", describe(&output));
    protected.wait_in_line();
    protected.wait_sync();
    protected.assert_in_sync();
    assert_is_mini(&protected);
    assert_eq!(status(&protected.run)["connections"][0]["unqueued"], false);
    protected.stop();
}

/// A copy of nothing had an end and no other answer: what the target acknowledged after it counted for nothing, so
/// that the queue was never let go, and programs stood still when it was full.
#[test]
fn a_minicopy_of_nothing_is_followed_on() {
    let arguments = vec!["--queue-memory", "32M", "--queue-disk-limit", "0"];
    let mut protected = Protected::start(Setup { arguments, ..Setup::default() });
    fs::write(protected.mount.join("file"), "content").expect("a file");
    protected.wait_sync();
    std::thread::sleep(Duration::from_secs(4));
    protected.stop();
    protected.start_again();
    protected.wait_sync();
    for round in 0..6 {
        for what in ["stop", "start"] {
            let output = output_within(standin(&protected.run).args(["replication", what]), COMMAND_MAX);
            assert!(output.status.success(), "{}", describe(&output));
        }
        protected.wait_in_line();
        protected.wait_sync();
        if round % 2 == 1 {
            fs::write(protected.mount.join("file"), format!("content of round {round}")).expect("a write");
            protected.wait_sync();
        }
    }
    // More than the queue has room for.
    fs::write(protected.mount.join("large"), vec![7; 48 << 20]).expect("a write");
    protected.assert_in_sync();
    protected.stop();
}

/// The search comes to the second half of the directories when programs have moved them into the first half.
#[test]
fn what_is_moved_while_it_is_looked_for_is_not_missed() {
    let mut protected = Protected::start(Setup::default());
    make_tree(&protected.mount);
    protected.wait_sync();
    protected.stop();
    for dir in 0..DIRECTORIES {
        let dir = protected.backing.join(format!("d{dir}"));
        fs::create_dir(dir.join("sub")).expect("a directory");
        fs::write(dir.join("sub/new"), "new").expect("a file");
        fs::write(dir.join("f7"), format!("changed in {}", dir.display())).expect("a write");
    }
    let (end, mount) = (AtomicBool::new(false), protected.mount.clone());
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| move_about(&mount, &end));
        protected.start_again();
        protected.wait_in_line();
        end.store(true, Ordering::Relaxed);
        assert!(mover.join().expect("the mover") > 10);
    });
    assert!(protected.assert_in_sync().objects > DIRECTORIES * FILES);
    assert_eq!(progress(&protected)["mode"], "minicopy", "{}", progress(&protected));
    protected.stop();
}

/// Moves directories into each other and back, and files between them, where they are; gives how often.
fn move_about(mount: &Path, end: &AtomicBool) -> u64 {
    let (mut moved, mut turn) = (0, 0);
    // Only the mount: what is done before it is there would be done past it.
    let is_there = || is_mounted(mount);
    while !end.load(Ordering::Relaxed) {
        if !is_there() {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        }
        let (one, other) = (turn * 7 % DIRECTORIES, turn * 11 % DIRECTORIES);
        let (from, into) = (mount.join(format!("d{one}")), mount.join(format!("d{other}/guest{one}")));
        moved += u64::from(one != other && fs::rename(&from, &into).is_ok());
        let _ = fs::rename(into.join("f7"), mount.join(format!("d{other}/f7-of-{one}")));
        moved += u64::from(fs::rename(&into, &from).is_ok());
        turn += 1;
    }
    moved
}

/// Programs work through the kill, and through the start that follows it.
#[test]
fn after_kills_under_load_only_what_changed_is_shown() {
    let mut protected = Protected::start(Setup::default());
    make_tree(&protected.mount);
    protected.wait_sync();
    wait_for_a_moment(&protected);
    std::thread::sleep(Duration::from_secs(8));
    for _ in 0..3 {
        let (end, mount) = (AtomicBool::new(false), protected.mount.clone());
        std::thread::scope(|scope| {
            let mover = scope.spawn(|| move_about(&mount, &end));
            std::thread::sleep(Duration::from_millis(300));
            protected.kill9();
            protected.start_again();
            protected.wait_in_line();
            end.store(true, Ordering::Relaxed);
            mover.join().expect("the mover");
        });
        assert!(protected.assert_in_sync().objects > DIRECTORIES * FILES / 2);
        assert_eq!(progress(&protected)["mode"], "minicopy", "{}", progress(&protected));
    }
    protected.stop();
}

#[test]
fn an_outage_costs_the_regions_that_changed() {
    const REGION: u64 = 64 << 10;
    let arguments = vec!["--queue-memory", "32M", "--queue-disk-limit", "0"];
    let mut protected = Protected::start(Setup { arguments, ..Setup::default() });
    let (run, mount) = (protected.run.clone(), protected.mount.clone());
    make_tree(&mount);
    let mut large = File::create(mount.join("large")).expect("a file");
    for piece in 0..64u8 {
        large.write_all(&vec![piece; 1 << 20]).expect("a write");
    }
    protected.wait_sync();
    wait_until("the map begins after what is there", || {
        let output = output_within(standin(&run).args(["bitmap", "show", "--json"]), COMMAND_MAX);
        let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let generations = shown["generations"].as_array().expect("a list").clone();
        generations.len() == 1 && generations[0]["percent"] == 0.0
    });
    let command = |word: &str| {
        let output = output_within(standin(&run).args(["connection", word]), COMMAND_MAX);
        assert!(output.status.success(), "{}", describe(&output));
    };
    command("stop");
    change_some(&mount);
    // More than the queue holds, in regions that are few.
    let regions: Vec<u64> = (0..100).map(|number| number * 7 % 1024).collect();
    for round in 0..6u8 {
        for region in &regions {
            large.seek(SeekFrom::Start(region * REGION)).expect("a place");
            large.write_all(&vec![100 + round; REGION as usize]).expect("programs go on");
        }
    }
    wait_until("it is let go", || status(&run)["connections"][0]["needs_copy"] == true);
    command("start");
    protected.wait_in_line();
    assert!(protected.assert_in_sync().objects > DIRECTORIES * FILES / 2);
    let progress = progress(&protected);
    assert_eq!(progress["mode"], "minicopy", "{progress}");
    assert_taken(&protected, false, "the queue became full while it was stopped");
    drop(large);
    let (sent, changed) = (number(&progress["bytes_done"]), regions.len() as u64 * REGION);
    assert!(sent >= changed && sent <= changed + changed / 10, "{sent} for {changed}: {progress}");
    change_some_more(&protected);
    protected.stop();
}
