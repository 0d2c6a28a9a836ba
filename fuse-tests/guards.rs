//! What must never empty a copy, or be taken for one: directories that are missing, emptied, swapped or
//! copied, on either side. The table in docs/guarantees.md names each of these tests.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{COMMAND_MAX, Daemon, Disk, Protected, Setup, describe, heavy, output_within, standin};
use crate::pair::Pair;
use crate::tree::Rules;

const FILES: usize = 40;

fn fill(root: &Path) {
    fs::create_dir_all(root.join("dir/deep")).expect("directories");
    for number in 0..FILES {
        fs::write(root.join(format!("dir/file{number}")), number.to_string().repeat(50)).expect("a file");
    }
    fs::write(root.join("dir/deep/last"), "content").expect("a file");
}

/// A pair in sync, with something to lose.
fn pair() -> Pair {
    let pair = Pair::start(Disk::Plain, Disk::Plain);
    fill(&pair.mount);
    assert_same(&pair);
    pair
}

#[track_caller]
fn assert_same(pair: &Pair) {
    pair.assert_in_sync_of(FILES, &Rules::default());
}

fn empty(dir: &Path) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        match entry.file_type().expect("a kind").is_dir() {
            true => fs::remove_dir_all(entry.path()).expect("removed"),
            false => fs::remove_file(entry.path()).expect("removed"),
        }
    }
}

fn names(dir: &Path) -> usize {
    fs::read_dir(dir).expect("a directory").count()
}

fn status_of(mut command: Command) -> Value {
    let output = output_within(command.args(["status", "--json"]), COMMAND_MAX);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", describe(&output)))
}

/// Waits until the source says this of its connection.
#[track_caller]
fn wait_for(pair: &Pair, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let mut status = status_of(pair.daemon("source"));
        let connection = status["connections"][0].take();
        if is_so(&connection) {
            return connection;
        }
        assert!(Instant::now() < deadline, "never {what}: {connection}\n{}", pair.said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_refused_for(connection: &Value, why: &str) -> bool {
    connection["state"] == "error" && connection["reason"].as_str().is_some_and(|reason| reason.contains(why))
}

fn connected_since(connection: &Value) -> Option<u64> {
    connection["link"]["connected_unix_ms"].as_u64()
}

/// Lets the target be something else, and waits until its source has brought it into line.
#[track_caller]
fn come_back(pair: &mut Pair, meanwhile: impl FnOnce(&mut Pair)) {
    let before = connected_since(&wait_for(pair, "connected", |connection| !connection["link"].is_null()));
    pair.kill_target();
    meanwhile(pair);
    if pair.target.is_none() {
        pair.serve();
    }
    wait_for(pair, "in line", |connection| {
        connected_since(connection) > before && connection["mirror"]["phase"] == "complete"
    });
}

/// The lines of the doctor about the target, as the source asks it.
fn doctor_says(pair: &Pair) -> String {
    let output = output_within(pair.daemon("source").args(["doctor", "--to", &pair.repset()]), COMMAND_MAX);
    describe(&output)
}

/// Its directories were listed as empty, and the replica's were emptied where orphans are deleted.
#[test]
fn a_file_system_that_has_met_damage_is_told_of_before_the_start() {
    let source = Disk::Image { kind: "ext4", mib: 64 };
    let mut protected = Protected::prepare(Setup { source, ..Setup::default() });
    let says = |protected: &Protected| {
        let mut doctor = standin(&protected.run);
        describe(&output_within(doctor.arg("doctor").arg(&protected.backing), COMMAND_MAX))
    };
    let told = "has met errors in itself (1)";
    assert!(!says(&protected).contains("errors in itself"));
    let device = fs::metadata(&protected.backing).expect("the directory").dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let device = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).expect("a device");
    let device = Path::new("/sys/fs/ext4").join(device.file_name().expect("its name"));
    fs::write(device.join("trigger_fs_error"), "planted by a test").expect("damage is noted");
    assert!(says(&protected).contains(told), "{}", says(&protected));
    protected.start_again();
    assert!(protected.said().contains(told), "{}", protected.said());
}

/// It was resumed, and called good.
#[test]
fn a_replica_that_is_emptied_while_its_target_is_away_is_copied_again() {
    let mut pair = pair();
    for kept in ["", "dir/deep"] {
        come_back(&mut pair, |pair| match kept {
            "" => empty(&pair.replica()),
            some => fs::remove_dir_all(pair.replica().join(some)).expect("removed"),
        });
        assert_same(&pair);
    }
    assert!(pair.said().contains("no copy any more"), "{}", pair.said());
}

/// Nobody writes, and no packet meets what is missing.
#[test]
fn a_replica_that_is_emptied_while_it_is_served_is_copied_again() {
    let pair = pair();
    empty(&pair.replica());
    let deadline = Instant::now() + Duration::from_secs(90);
    while !pair.replica().join("dir/deep/last").exists() {
        assert!(Instant::now() < deadline, "nobody noticed\n{}", pair.said());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_same(&pair);
}

/// The replica's disk was not mounted when the target started: a new replica was made on the disk
/// below, and the doctor said that all was well.
#[test]
fn a_replica_whose_disk_is_missing_is_not_made_anew() {
    let mut pair = pair();
    let aside = pair.replica().with_file_name("aside");
    pair.kill_target();
    fs::rename(pair.replica(), &aside).expect("renamed");
    for is_mount_point in [false, true] {
        if is_mount_point {
            fs::create_dir(pair.replica()).expect("a directory");
        }
        pair.serve();
        let why = "is not there any more";
        wait_for(&pair, "refused", |connection| is_refused_for(connection, why));
        assert!(doctor_says(&pair).contains(why), "{}", doctor_says(&pair));
        assert_eq!(pair.replica().exists(), is_mount_point);
        assert!(!is_mount_point || names(&pair.replica()) == 0);
        if !is_mount_point {
            pair.kill_target();
        }
    }
    fs::write(pair.mount.join("meanwhile"), "while it was away").expect("programs go on");
    // It is mounted: nobody has to be started again.
    fs::remove_dir(pair.replica()).expect("a mount point");
    fs::rename(&aside, pair.replica()).expect("renamed");
    wait_for(&pair, "back", |connection| connection["state"] == "started");
    assert_same(&pair);
}

/// What it had said before it was refused satisfied a wait, once the connection was stopped by hand.
#[test]
fn a_target_that_was_refused_is_not_believed_after_a_stop() {
    let mut pair = pair();
    let wait = |pair: &Pair| {
        output_within(pair.daemon("source").args(["wait-sync", "--timeout", "1s"]), COMMAND_MAX).status.code()
    };
    let command = |pair: &Pair, word| crate::host::run(pair.daemon("source").args(["connection", word]));
    command(&pair, "stop");
    assert_eq!(wait(&pair), Some(0), "it had everything, and nothing was written since");
    command(&pair, "start");
    wait_for(&pair, "back", |connection| connection["state"] == "started");
    let aside = pair.replica().with_file_name("aside");
    pair.kill_target();
    fs::rename(pair.replica(), &aside).expect("renamed");
    pair.serve();
    let why = "is not there any more";
    wait_for(&pair, "refused", |connection| is_refused_for(connection, why));
    command(&pair, "stop");
    let stopped = wait_for(&pair, "stopped", |connection| connection["state"] == "stopped");
    assert!(stopped["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{stopped}");
    assert_eq!((wait(&pair), &stopped["lag_applied"]), (Some(1), &Value::Null));
    pair.kill_target();
    fs::rename(&aside, pair.replica()).expect("renamed");
    pair.serve();
    command(&pair, "start");
    assert_same(&pair);
}

/// While the target runs and no source is there: what it had open is not what its path leads to.
#[test]
fn a_replica_whose_disk_goes_while_it_is_served_is_missed() {
    let mut pair = pair();
    pair.stop_source();
    let aside = pair.replica().with_file_name("aside");
    fs::rename(pair.replica(), &aside).expect("renamed");
    fs::create_dir(pair.replica()).expect("a mount point");
    assert!(doctor_says(&pair).contains("is not there any more"), "{}", doctor_says(&pair));
    fs::remove_dir(pair.replica()).expect("a mount point");
    fs::rename(&aside, pair.replica()).expect("renamed");
    pair.protect();
    assert_same(&pair);
}

/// While its source is connected: what was moved away was written on, and both sides said good.
#[test]
fn a_replica_that_is_moved_while_it_is_served_is_missed() {
    let pair = pair();
    let aside = pair.replica().with_file_name("aside");
    fs::rename(pair.replica(), &aside).expect("renamed");
    let why = "is not there any more";
    wait_for(&pair, "refused", |connection| is_refused_for(connection, why));
    let target = status_of(pair.daemon("target"));
    let problem = &target["target"]["replicas"][0]["problem"];
    assert!(problem.as_str().is_some_and(|problem| problem.contains(why)), "{target:#}");
    fs::write(pair.mount.join("meanwhile"), "while it was away").expect("programs go on");
    fs::rename(&aside, pair.replica()).expect("renamed");
    wait_for(&pair, "back", |connection| connection["state"] == "started");
    assert_same(&pair);

    // A copy in its place is compared.
    fs::rename(pair.replica(), &aside).expect("renamed");
    crate::host::run(Command::new("cp").args(["-a", "-T"]).arg(&aside).arg(pair.replica()));
    fs::write(pair.replica().join("dir/file7"), "x").expect("a difference");
    let deadline = Instant::now() + Duration::from_secs(90);
    while fs::read(pair.replica().join("dir/file7")).is_ok_and(|content| content == b"x") {
        assert!(Instant::now() < deadline, "nobody noticed\n{}", pair.said());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_same(&pair);
}

/// The same on the source's own host.
#[test]
fn a_replica_on_this_host_that_is_moved_is_missed() {
    let mut protected = Protected::start(Setup::default());
    fill(&protected.mount);
    protected.wait_sync();
    let aside = protected.replica.with_file_name("aside");
    fs::rename(&protected.replica, &aside).expect("renamed");
    wait_until(&protected, "refused", |connection| is_refused_for(connection, "is not where it was"));
    fs::write(protected.mount.join("meanwhile"), "while it was away").expect("programs go on");
    fs::rename(&aside, &protected.replica).expect("renamed");
    wait_until(&protected, "back", |connection| connection["state"] == "started");
    protected.wait_sync();
    protected.assert_in_sync();
    protected.stop();
}

/// A copy of a replica carries its mark; what the target knows of objects is not in it.
#[test]
fn a_replica_that_was_moved_by_a_copy_is_compared() {
    let mut pair = pair();
    come_back(&mut pair, |pair| {
        let aside = pair.replica().with_file_name("aside");
        fs::rename(pair.replica(), &aside).expect("renamed");
        crate::host::run(Command::new("cp").args(["-a", "-T"]).arg(&aside).arg(pair.replica()));
        fs::write(pair.replica().join("dir/file7"), "x".repeat(50)).expect("a difference");
    });
    assert_same(&pair);
    let said = pair.said();
    assert!(!said.contains("set aside"), "{said}");
}

/// Only a person says that a replica is gone for good.
#[test]
fn a_replica_that_was_removed_on_purpose_is_made_anew_when_told_so() {
    let mut pair = pair();
    come_back(&mut pair, |pair| {
        fs::remove_dir_all(pair.replica()).expect("removed");
        let mut command = pair.serve_command();
        command.arg("--adopt");
        let mut daemon = Daemon::spawn(command);
        daemon.wait_ready();
        pair.target = Some(daemon);
    });
    assert_same(&pair);
}

/// Its target's disk was not mounted: the whole set was not protected, and its replica was said to hold
/// nothing yet.
#[test]
fn a_known_target_that_refuses_keeps_no_start_from_coming_up() {
    let mut pair = pair();
    pair.stop_source();
    pair.kill_target();
    let aside = pair.replica().with_file_name("aside");
    fs::rename(pair.replica(), &aside).expect("renamed");
    pair.serve();
    pair.protect_at_once();
    let why = "is not there any more";
    let connection = wait_for(&pair, "refused", |connection| is_refused_for(connection, why));
    assert_eq!(connection["data"], "bad", "{connection}");
    let said = pair.said();
    assert!(said.contains("protected without it") && said.contains(why), "{said}");
    fs::write(pair.mount.join("meanwhile"), "captured").expect("it is protected");
    fs::rename(&aside, pair.replica()).expect("renamed");
    wait_for(&pair, "back", |connection| connection["mirror"]["phase"] == "complete");
    assert_same(&pair);
    // Not paired any more, and paired again.
    pair.stop_source();
    let listed = output_within(pair.daemon("target").args(["peers", "list", "--json"]), COMMAND_MAX);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let key = listed["pairings"][0]["fingerprint"].as_str().expect("a key").to_owned();
    crate::host::run(pair.daemon("target").args(["peers", "revoke", &key]));
    pair.protect_at_once();
    wait_for(&pair, "refused", |connection| is_refused_for(connection, "does not know this host's key"));
    fs::write(pair.mount.join("later"), "captured").expect("it is protected");
    pair.pair();
    wait_for(&pair, "back", |connection| connection["mirror"]["phase"] == "complete");
    assert_same(&pair);
}

/// Target and state were put back together while the source was stopped: what was rewritten since with
/// the same size and time was never copied.
#[test]
fn a_target_that_was_set_back_while_its_source_was_stopped_gets_everything() {
    let mut pair = Pair::start(Disk::Plain, Disk::Image { kind: "ext4", mib: 64 });
    fill(&pair.mount);
    assert_same(&pair);
    let (image, at) = pair.target_image();
    let (old_image, old_state) = (image.with_extension("old"), pair.state("target").with_extension("old"));
    let rest = |pair: &mut Pair| {
        pair.stop_source();
        pair.stop_target();
    };
    rest(&mut pair);
    crate::host::unmount_for_good(&image, &at);
    copy(&image, &old_image);
    copy(&pair.state("target"), &old_state);
    mount(&image, &at);
    pair.serve();
    pair.protect();
    let file = pair.mount.join("dir/file7");
    let times = fs::metadata(&file).and_then(|file| file.modified()).expect("its time");
    fs::write(&file, "x".repeat(50)).expect("a rewrite of equal size");
    fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(times)).expect("its time");
    assert_same(&pair);
    rest(&mut pair);
    // Older, both of them.
    crate::host::unmount_for_good(&image, &at);
    copy(&old_image, &image);
    fs::remove_dir_all(pair.state("target")).expect("removed");
    copy(&old_state, &pair.state("target"));
    mount(&image, &at);
    assert_ne!(fs::read(pair.replica().join("dir/file7")).expect("the old one"), b"x".repeat(50));
    pair.serve();
    pair.protect();
    assert_same(&pair);
    // And what nobody set back is not sent again. What changed within two seconds counts as later.
    std::thread::sleep(Duration::from_secs(3));
    pair.stop_source();
    pair.protect();
    let connection = wait_for(&pair, "in line", |connection| connection["mirror"]["phase"] == "complete");
    assert_eq!(connection["progress"]["bytes_done"], 0, "{connection}");
}

fn copy(from: &Path, to: &Path) {
    crate::host::run(Command::new("cp").args(["-a", "--sparse=always", "-T"]).arg(from).arg(to));
}

fn mount(image: &Path, at: &Path) {
    crate::host::run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at));
}

/// `rm -rf` in the wrong place took the copy along.
#[test]
fn mass_deletions_wait_for_a_person() {
    let mut protected = Protected::prepare(Setup::default());
    let many = 1400;
    for number in 0..many {
        let dir = protected.backing.join(format!("dir{}", number % 7));
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join(format!("file{number}")), number.to_string()).expect("a file");
    }
    protected.start_again();
    for number in 0..7 {
        fs::remove_dir_all(protected.mount.join(format!("dir{number}"))).expect("removed");
    }
    fs::write(protected.mount.join("later"), "programs go on").expect("a file");
    let connection = wait_until(&protected, "asked", |connection| connection["state"] == "paused");
    let reason = connection["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("of 1400 files would be deleted") && reason.contains("--accept-deletes"),
        "{reason}"
    );
    // What was let pass may be on its way still.
    let kept = many / 2;
    wait_until(&protected, "half of them gone", |_| files_in(&protected.replica) == kept);
    assert!(!protected.replica.join("later").exists(), "something passed what waits");
    // Nobody has said yes.
    for word in ["resume", "start"] {
        let output = output_within(standin(&protected.run).args(["connection", word]), COMMAND_MAX);
        let said = describe(&output);
        assert!(!output.status.success() && said.contains("--accept-deletes"), "{said}");
    }
    let waited =
        output_within(standin(&protected.run).args(["wait-sync", "--timeout", "100ms"]), COMMAND_MAX);
    let said = describe(&waited);
    assert!(!waited.status.success() && said.contains("resume 1 --accept-deletes"), "{said}");
    assert_eq!(files_in(&protected.replica), kept);
    // A lost connection forgets nothing of it.
    for word in ["stop", "start"] {
        let output = output_within(standin(&protected.run).args(["connection", word]), COMMAND_MAX);
        assert!(output.status.success(), "{}", describe(&output));
    }
    wait_until(&protected, "asked again", |connection| connection["state"] == "paused");
    assert_eq!(files_in(&protected.replica), kept);
    crate::host::run(standin(&protected.run).args(["connection", "resume", "--accept-deletes"]));
    protected.assert_in_sync();
    assert_eq!(files_in(&protected.replica), 1);
    protected.stop();
}

/// The next run of the source did not know that a person was asked: a plain word let the copy begin.
#[test]
fn a_question_about_deletions_outlives_the_source() {
    for is_killed in [true, false] {
        let mut protected = Protected::prepare(Setup::default());
        let many = 1400;
        fs::create_dir(protected.backing.join("dir")).expect("a directory");
        for number in 0..many {
            fs::write(protected.backing.join(format!("dir/file{number}")), "x").expect("a file");
        }
        protected.start_again();
        fs::remove_dir_all(protected.mount.join("dir")).expect("removed");
        wait_until(&protected, "asked", |connection| connection["state"] == "paused");
        wait_until(&protected, "half of them gone", |_| files_in(&protected.replica) == many / 2);
        // It is noted within a second.
        std::thread::sleep(Duration::from_secs(3));
        match is_killed {
            true => protected.kill9(),
            false => drop(protected.stop_incomplete_by(libc::SIGTERM)),
        }
        protected.start_at_once();
        for words in [&["resume"][..], &["stop", "start"]] {
            let asked = wait_until(&protected, "asked again", |connection| {
                connection["state"] == "paused"
                    && connection["reason"].as_str().unwrap_or_default().contains("--accept-deletes")
            });
            assert_ne!(asked["mirror"]["phase"], "complete", "{asked}");
            for word in words {
                let output = output_within(standin(&protected.run).args(["connection", word]), COMMAND_MAX);
                let is_heard = words.len() > 1;
                assert_eq!(output.status.success(), is_heard, "{word}: {}", describe(&output));
            }
        }
        wait_until(&protected, "asked to the end", |connection| connection["state"] == "paused");
        assert_eq!(files_in(&protected.replica), many / 2, "nobody has said yes");
        crate::host::run(standin(&protected.run).args(["connection", "resume", "--accept-deletes"]));
        protected.wait_in_line();
        protected.assert_in_sync();
        protected.stop();
    }
}

/// The queue became full while a person was asked: the question was forgotten, and a plain word let a copy begin.
#[test]
fn a_question_about_deletions_outlives_a_full_queue() {
    let arguments = vec!["--queue-memory", "32M", "--queue-disk-limit", "0"];
    let mut protected = Protected::prepare(Setup { arguments, ..Setup::default() });
    fs::create_dir(protected.backing.join("dir")).expect("a directory");
    for number in 0..1400 {
        fs::write(protected.backing.join(format!("dir/file{number}")), "x").expect("a file");
    }
    protected.start_again();
    fs::remove_dir_all(protected.mount.join("dir")).expect("removed");
    wait_until(&protected, "asked", |connection| connection["state"] == "paused");
    fs::write(protected.mount.join("large"), vec![7; 40 << 20]).expect("programs go on");
    let asked = wait_until(&protected, "let go", |connection| {
        let reason = connection["reason"].as_str().unwrap_or_default();
        connection["needs_copy"] == true && reason.contains("--accept-deletes") && reason.contains("full")
    });
    assert_eq!((&asked["state"], asked["lag_applied"].is_null()), (&"paused".into(), true), "{asked}");
    let output = output_within(standin(&protected.run).args(["connection", "resume"]), COMMAND_MAX);
    assert!(
        !output.status.success() && describe(&output).contains("--accept-deletes"),
        "{}",
        describe(&output)
    );
    crate::host::run(standin(&protected.run).args(["connection", "resume", "--accept-deletes"]));
    protected.wait_in_line();
    protected.assert_in_sync();
    protected.stop();
}

/// Most of a directory was removed while nothing protected it: the next start emptied the replica, and called it good.
#[test]
fn what_is_gone_while_nothing_runs_is_asked_about() {
    // By change times, and by a copy of everything; the first run is the only one that was in line.
    for (arguments, is_killed) in [(vec![], false), (vec!["--orphans", "delete"], false), (vec![], true)] {
        let mut protected = Protected::prepare(Setup { arguments: arguments.clone(), ..Setup::default() });
        let (many, dir) = (1400, protected.backing.join("dir"));
        fs::create_dir(&dir).expect("a directory");
        for number in 0..many {
            fs::write(dir.join(format!("file{number}")), number.to_string()).expect("a file");
        }
        protected.start_again();
        protected.wait_sync();
        // How many there are is noted within a second.
        std::thread::sleep(Duration::from_secs(3));
        match is_killed {
            true => protected.kill9(),
            false => drop(protected.stop()),
        }
        let away = protected.base.path().join("away");
        fs::rename(&dir, &away).expect("moved");
        for is_killed in [true, false] {
            protected.start_at_once();
            let asked = wait_until(&protected, "asked", |connection| connection["state"] == "paused");
            let reason = asked["reason"].as_str().expect("a reason");
            assert!(reason.contains("of 1400 files are gone"), "{reason}");
            assert_eq!(asked["data"], "good", "nothing has gone there: {asked}");
            // They are counted again.
            crate::host::run(standin(&protected.run).args(["connection", "resume"]));
            wait_until(&protected, "asked again", |connection| connection["state"] == "paused");
            fs::write(protected.mount.join("later"), "programs go on").expect("a file");
            assert_eq!(files_in(&protected.replica), many, "nobody has said yes");
            match is_killed {
                true => protected.kill9(),
                false => drop(protected.stop_incomplete_by(libc::SIGTERM)),
            }
        }
        // It was no one's wish: it is put back, while it is protected, too.
        if arguments.is_empty() {
            protected.start_at_once();
            wait_until(&protected, "asked", |connection| connection["state"] == "paused");
            fs::create_dir(protected.mount.join("dir")).expect("a directory");
            for number in 0..many {
                fs::copy(
                    away.join(format!("file{number}")),
                    protected.mount.join(format!("dir/file{number}")),
                )
                .expect("a copy");
            }
            crate::host::run(standin(&protected.run).args(["connection", "resume"]));
            protected.wait_in_line();
            protected.assert_in_sync();
            assert_eq!(files_in(&protected.replica), many + 1);
            protected.stop();
            fs::remove_dir_all(&dir).expect("removed");
        }
        protected.start_at_once();
        wait_until(&protected, "asked", |connection| connection["state"] == "paused");
        crate::host::run(standin(&protected.run).args(["connection", "resume", "--accept-deletes"]));
        protected.wait_in_line();
        protected.assert_in_sync();
        assert_eq!(files_in(&protected.replica), 1);
        protected.stop();
    }
}

/// Files were counted by their names and deletions by last names: a tree of which each file has two, or a
/// link elsewhere, was deleted whole.
#[test]
fn deletions_of_names_are_asked_about_whatever_links_are_left() {
    let names = 1400;
    for is_inside in [true, false] {
        let mut protected = Protected::prepare(Setup::default());
        let (files, others) = match is_inside {
            true => (names / 2, protected.backing.join("others")),
            false => (names, protected.backing.with_file_name("others")),
        };
        fs::create_dir(&others).expect("a directory");
        for number in 0..files {
            let name = format!("file{number}");
            fs::write(protected.backing.join(&name), number.to_string()).expect("a file");
            fs::hard_link(protected.backing.join(&name), others.join(&name)).expect("a link");
        }
        protected.start_again();
        empty(&protected.mount);
        let asked = wait_until(&protected, "asked", |connection| connection["state"] == "paused");
        let reason = asked["reason"].as_str().expect("a reason");
        assert!(reason.contains("of 1400 files would be deleted"), "{reason}");
        wait_until(&protected, "half of them gone", |_| files_in(&protected.replica) == names / 2);
        crate::host::run(standin(&protected.run).args(["connection", "resume", "--accept-deletes"]));
        protected.assert_in_sync();
        protected.stop();
    }
}

/// They were no files that are there, but files that go.
#[test]
fn symlinks_are_renewed_and_deleted_as_files_are() {
    let mut protected = Protected::prepare(Setup::default());
    for number in 0..1010 {
        fs::write(protected.backing.join(format!("file{number}")), "x").expect("a file");
    }
    let link = |root: &Path, number: usize| root.join(format!("link{number}"));
    for number in 0..600 {
        symlink("old", link(&protected.backing, number)).expect("a symlink");
    }
    protected.start_again();
    let mount = &protected.mount;
    for number in 0..600 {
        symlink("new", mount.join("tmp")).expect("a symlink");
        fs::rename(mount.join("tmp"), link(mount, number)).expect("renewed");
    }
    protected.assert_in_sync();
    for number in 0..600 {
        fs::remove_file(link(mount, number)).expect("removed");
    }
    protected.assert_in_sync();
    protected.stop();
}

/// What waits behind a full disk had not come before the guard: all of it was emptied to make room.
#[test]
fn a_full_replica_is_not_emptied_before_a_person_is_asked() {
    let _alone = heavy();
    let replica = Disk::Image { kind: "ext4", mib: 64 };
    let arguments = vec!["--queue-memory", "128M"];
    let mut protected = Protected::prepare(Setup { replica, arguments, ..Setup::default() });
    let (many, content) = (1200, [7; 10_000]);
    for number in 0..many {
        fs::write(protected.backing.join(format!("file{number}")), content).expect("a file");
    }
    protected.start_again();
    // It fits when they are gone.
    fs::write(protected.mount.join("large"), vec![8; 49 << 20]).expect("a file");
    wait_until(&protected, "a full disk", |connection| !connection["retrying"].is_null());
    for number in 0..many {
        fs::remove_file(protected.mount.join(format!("file{number}"))).expect("removed");
    }
    wait_until(&protected, "asked", |connection| connection["state"] == "paused");
    for number in 0..many {
        let there = fs::read(protected.replica.join(format!("file{number}"))).expect("a file");
        assert!(there == content, "file{number} was emptied, and nobody was asked");
    }
    crate::host::run(standin(&protected.run).args(["connection", "resume", "--accept-deletes"]));
    protected.assert_in_sync_by(&Rules { hole_slack: 64 * 1024, ..Rules::default() });
    assert_eq!(files_in(&protected.replica), 1);
    protected.stop();
}

#[test]
fn who_says_so_is_not_asked_about_deletions() {
    let mut protected =
        Protected::prepare(Setup { arguments: vec!["--delete-guard", "off"], ..Setup::default() });
    for number in 0..1200 {
        fs::write(protected.backing.join(format!("file{number}")), "x").expect("a file");
    }
    protected.start_again();
    empty(&protected.mount);
    protected.assert_in_sync();
    assert_eq!(files_in(&protected.replica), 0);
}

fn files_in(dir: &Path) -> usize {
    let count = |entry: fs::DirEntry| match entry.file_type().expect("a kind").is_dir() {
        true => files_in(&entry.path()),
        false => 1,
    };
    fs::read_dir(dir).expect("a directory").flatten().map(count).sum()
}

#[track_caller]
fn wait_until(protected: &Protected, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut status: Value = serde_json::from_str(&protected.status()).expect("JSON");
        let connection = status["connections"][0].take();
        if is_so(&connection) {
            return connection;
        }
        assert!(Instant::now() < deadline, "never {what}: {connection}\n{}", protected.said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A start that is refused with this; it mounts nothing.
#[track_caller]
fn assert_refused(command: &mut Command, part: &str) {
    let output = output_within(command, COMMAND_MAX);
    let said = describe(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(part), "no word of '{part}': {said}");
}

/// One in sync, and stopped.
fn stopped(setup: Setup) -> Protected {
    let mut protected = Protected::prepare(setup);
    fill(&protected.backing);
    protected.start_again();
    protected.assert_in_sync();
    protected.stop();
    protected
}

#[test]
fn swapped_directories_empty_no_replica() {
    let (one, other) = (stopped(Setup::default()), stopped(Setup::default()));
    fs::write(other.backing.join("other"), "x").expect("a file");
    let aside = one.backing.with_file_name("aside");
    fs::rename(&one.backing, &aside).expect("renamed");
    fs::rename(&other.backing, &one.backing).expect("renamed");
    fs::rename(&aside, &other.backing).expect("renamed");
    for protected in [&one, &other] {
        assert_refused(&mut protected.protect_command(), "it belongs to another set");
        assert_eq!(files_in(&protected.replica), FILES + 1);
    }
}

/// With `adopt` it is the set's directory, and the replica equal to it.
#[track_caller]
/// As an image of the source's disk that is put back between a stop and a start leaves it: the same
/// directory, with what it had before, and older than its replica.
#[test]
fn a_directory_whose_disk_was_put_back_is_asked_about() {
    const STAMP: &str = "trusted.standin.run";
    let mut protected = stopped(Setup::default());
    let file = protected.backing.join("dir/file3");
    let (content, time) = (fs::read(&file).expect("content"), times(&file));
    let mut stamp = [0; 8];
    rustix::fs::getxattr(&protected.backing, STAMP, &mut stamp).expect("a stamp");
    protected.start_again();
    fs::write(protected.mount.join("dir/file3"), "y".repeat(content.len())).expect("a rewrite");
    set_time(&protected.mount.join("dir/file3"), time);
    protected.assert_in_sync();
    protected.stop();
    fs::write(&file, content).expect("what it was");
    set_time(&file, time);
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&protected.backing, STAMP, &stamp, flags).expect("the stamp of then");
    assert_adopted_for(&mut protected, "was put back to an earlier state");
}

fn times(file: &Path) -> std::time::SystemTime {
    fs::metadata(file).and_then(|meta| meta.modified()).expect("a time")
}

fn set_time(file: &Path, time: std::time::SystemTime) {
    fs::File::options().write(true).open(file).and_then(|file| file.set_modified(time)).expect("a time");
}

fn assert_asked_and_adopted(protected: &mut Protected) {
    assert_adopted_for(protected, "it is another directory");
}

fn assert_adopted_for(protected: &mut Protected, why: &str) {
    assert_refused(&mut protected.protect_command(), why);
    let mut command = protected.protect_command();
    command.arg("--adopt-source");
    let mut daemon = Daemon::spawn(command);
    daemon.wait_ready();
    protected.assert_in_sync();
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait(crate::host::STOP_MAX).is_some_and(|status| status.success()), "{}", daemon.said());
    protected.start_again();
    protected.assert_in_sync();
}

#[test]
fn a_snapshot_in_the_place_of_the_directory_is_asked_about() {
    let mut protected =
        stopped(Setup { source: Disk::Image { kind: "btrfs", mib: 200 }, ..Setup::default() });
    // The directory of the test is none that can be snapshot: a subvolume takes its place first.
    let (now, old) = (protected.backing.clone(), protected.backing.with_file_name("old"));
    let btrfs = |words: &[&str], paths: &[&Path]| {
        let program = crate::host::require_program("btrfs");
        crate::host::run(Command::new(program).arg("subvolume").args(words).args(paths));
    };
    fs::rename(&now, &old).expect("renamed");
    btrfs(&["create"], &[&now]);
    copy(&old, &now);
    assert_asked_and_adopted(&mut protected);
    protected.stop();
    fs::write(now.join("dir/file3"), "y".repeat(50)).expect("a rewrite");
    let snapshot = now.with_file_name("snapshot");
    btrfs(&["snapshot"], &[&now, &snapshot]);
    fs::rename(&now, now.with_file_name("original")).expect("renamed");
    fs::rename(&snapshot, &now).expect("renamed");
    assert_asked_and_adopted(&mut protected);
}

/// The mark of a directory is an attribute, and a copy carries it: the copy was taken for the set, and
/// overwrote its replica.
#[test]
fn a_copy_of_the_directory_is_another_set() {
    let mut pair = pair();
    pair.stop_source();
    fs::remove_dir_all(pair.state("source").join("here")).expect("the state");
    let (now, old) = (pair.backing.clone(), pair.backing.with_file_name("old"));
    fs::rename(&now, &old).expect("renamed");
    copy(&old, &now);
    fs::remove_file(now.join("dir/deep/last")).expect("removed");
    let mut command = pair.protect_command();
    assert_refused(&mut command, "is the replica of another source's set");
    assert!(pair.replica().join("dir/deep/last").exists());
    let mut daemon = Daemon::spawn({
        command.arg("--adopt-source");
        command
    });
    daemon.wait_ready();
    pair.source = Some(daemon);
    wait_for(&pair, "in line", |connection| connection["mirror"]["phase"] == "complete");
    assert_same(&pair);
    // The directory itself, with its state lost, is the set as before.
    pair.stop_source();
    fs::remove_dir_all(pair.state("source").join("here")).expect("the state");
    pair.protect();
    assert_same(&pair);
}
