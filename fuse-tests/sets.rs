//! Sets with rules: what they leave out stays out, what comes over their border comes whole, and a change of
//! them needs no restart.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use serde_json::Value;
use standin::sets::{DirRules, Matcher, Rule, Rules};

use crate::host::{
    COMMAND_MAX, Place, Protected, SYNC_MAX, Setup, StopAtEnd, describe, heavy, output_within, standin,
    wait_until,
};
use crate::random::{self, seeds};
use crate::tree;

/// The set's name: the last part of the mount's path.
const SET: &str = "m";
/// What a target has is noted every 5 s.
const NOTED: Duration = Duration::from_secs(12);

fn set(protected: &Protected, arguments: &[&str]) -> Output {
    let mut command = standin(&protected.run);
    output_within(command.arg("set").args(arguments).arg("--state").arg(&protected.state), COMMAND_MAX)
}

#[track_caller]
fn told(protected: &Protected, arguments: &[&str]) -> String {
    let output = set(protected, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", describe(&output));
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn refused(protected: &Protected, arguments: &[&str], word: &str) {
    let output = set(protected, arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", describe(&output));
    assert!(describe(&output).contains(word), "no '{word}' in: {}", describe(&output));
}

fn connection(protected: &Protected) -> Value {
    let mut status: Value = serde_json::from_str(&protected.status()).expect("JSON");
    status["connections"][0].take()
}

fn matcher(rules: &[Rule]) -> Matcher {
    Matcher::new(&Rules(rules.to_vec())).expect("rules")
}

/// Takes away what the rules leave out; directories keep their times.
fn prune(dir: &Path, matcher: &Matcher, rules: &DirRules) {
    let before = rustix::fs::stat(dir).expect("a directory");
    for entry in fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        let (path, name) = (entry.path(), entry.file_name());
        let is_directory = entry.file_type().expect("a type").is_dir();
        match matcher.enter(rules, name.as_bytes()) {
            Some(rules) if is_directory => prune(&path, matcher, &rules),
            _ if is_directory => fs::remove_dir_all(&path).expect("removed"),
            _ if matcher.has_file(rules, name.as_bytes()) => {}
            _ => fs::remove_file(&path).expect("removed"),
        }
    }
    let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let times = Timestamps {
        last_access: time(before.st_atime, before.st_atime_nsec),
        last_modification: time(before.st_mtime, before.st_mtime_nsec),
    };
    rustix::fs::utimensat(CWD, dir, &times, AtFlags::empty()).expect("times");
}

/// Everything arrives; then the protection ends, and both sides are compared without what is out.
#[track_caller]
fn stop_and_compare(protected: &mut Protected, rules: &[Rule]) {
    wait_until_good(protected);
    protected.wait_sync();
    protected.stop();
    let matcher = matcher(rules);
    for side in [&protected.backing, &protected.replica] {
        prune(side, &matcher, &matcher.root());
    }
    // Room that was reserved in a file out of the set is a hole in what comes of it.
    let compared = tree::Rules { ignore_holes: true, ..tree::Rules::default() };
    tree::assert_same_by(&protected.backing, &protected.replica, &compared);
}

/// Nothing has to be compared any more, and the replica is good.
#[track_caller]
fn wait_until_good(protected: &Protected) {
    let deadline = Instant::now() + SYNC_MAX;
    loop {
        let status: Value = serde_json::from_str(&protected.status()).expect("JSON");
        let alerts = status["alerts"].as_array().cloned().unwrap_or_default();
        let is_open = alerts.iter().any(|alert| alert["code"] == "set_changed");
        let connection = &status["connections"][0];
        if !is_open && connection["data"] == "good" && connection["mirror"]["phase"] == "complete" {
            return;
        }
        assert!(Instant::now() < deadline, "not good in time: {status:#}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn write(path: PathBuf, content: &str) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(path, content).expect("a file");
}

/// With a tree, half of which is out, before the first start.
fn protected_by(rules: &[(&str, &str)]) -> Protected {
    let mut protected = Protected::prepare(Setup { place: Place::Beside, ..Setup::default() });
    for path in ["a", "b.tmp", "d/c", "d/c.tmp", "cache/x", "cache/keep/y", "d/cache/z"] {
        write(protected.backing.join(path), path);
    }
    let mut arguments = vec!["create", SET];
    rules.iter().for_each(|(option, pattern)| arguments.extend([*option, *pattern]));
    told(&protected, &arguments);
    protected.start_again();
    protected
}

const USUAL: [(&str, &str); 3] =
    [("--exclude", "*.tmp"), ("--exclude", "/cache"), ("--include", "/cache/keep")];

fn usual() -> Vec<Rule> {
    vec![Rule::exclude("*.tmp"), Rule::exclude("/cache"), Rule::include("/cache/keep")]
}

#[track_caller]
fn assert_there(protected: &Protected, there: &[&str], not_there: &[&str]) {
    there.iter().for_each(|path| assert!(protected.replica.join(path).exists(), "{path} is missing"));
    not_there.iter().for_each(|path| assert!(!protected.replica.join(path).exists(), "{path} is there"));
}

#[test]
fn what_the_rules_leave_out_stays_out() {
    let mut protected = protected_by(&USUAL);
    assert_there(&protected, &["a", "d/c", "cache/keep/y", "d/cache/z"], &["b.tmp", "d/c.tmp", "cache/x"]);
    write(protected.mount.join("new/e"), "in");
    write(protected.mount.join("new/e.tmp"), "out");
    write(protected.mount.join("cache/more/f"), "out");
    write(protected.mount.join("cache/keep/g"), "in");
    fs::remove_file(protected.mount.join("b.tmp")).expect("removed");
    fs::rename(protected.mount.join("cache/more"), protected.mount.join("cache/most")).expect("renamed");
    fs::hard_link(protected.mount.join("cache/x"), protected.mount.join("linked")).expect("linked");
    fs::write(protected.mount.join("cache/x"), "written by its other name").expect("written");
    protected.wait_sync();
    assert_there(
        &protected,
        &["new/e", "cache/keep/g", "linked"],
        &["new/e.tmp", "cache/more", "cache/most"],
    );
    stop_and_compare(&mut protected, &usual());
}

/// The habit of most programs: beside, then over. The replica has the old file or the new one, and is never
/// bad for it.
#[test]
fn what_is_written_beside_and_renamed_needs_no_copy() {
    let mut protected = protected_by(&USUAL);
    let before = connection(&protected);
    for round in 0..60 {
        let (tmp, file) = (protected.mount.join("d/new.tmp"), protected.mount.join("d/file"));
        let content = vec![round as u8; 1 + round * 50_000];
        fs::write(&tmp, content).expect("written");
        let holes = File::options().write(true).open(&tmp).expect("open");
        holes.set_len(4_000_000).expect("a length");
        drop(holes);
        fs::rename(&tmp, &file).expect("renamed");
        if round % 10 == 3 {
            fs::hard_link(&file, protected.mount.join(format!("d/kept{round}.tmp"))).expect("linked");
        }
    }
    std::os::unix::fs::symlink("nowhere", protected.mount.join("s.tmp")).expect("a link");
    fs::rename(protected.mount.join("s.tmp"), protected.mount.join("s")).expect("renamed");
    fs::rename(protected.mount.join("a"), protected.mount.join("a.tmp")).expect("renamed");
    protected.wait_sync();
    let after = connection(&protected);
    assert_eq!(
        (&after["data"], &after["data_since_unix_ms"]),
        (&before["data"], &before["data_since_unix_ms"])
    );
    assert_eq!(after["progress"], before["progress"], "a copy was made");
    assert_there(&protected, &["d/file"], &["a", "a.tmp", "d/new.tmp"]);
    stop_and_compare(&mut protected, &usual());
}

#[test]
fn directories_come_and_go() {
    let mut protected = protected_by(&USUAL);
    let at = |path: &str| protected.mount.join(path);
    // In, changed without anybody telling it, and back.
    fs::rename(at("d"), at("cache/d")).expect("renamed");
    write(at("cache/d/c"), "changed outside");
    write(at("cache/d/deep/er/n"), "born outside");
    protected.wait_sync();
    assert_there(&protected, &[], &["d", "cache/d"]);
    fs::rename(at("cache/d"), at("d")).expect("renamed");
    write(at("d/after"), "inside again");
    fs::rename(at("cache"), at("other")).expect("renamed");
    fs::create_dir(at("cache")).expect("a directory");
    fs::rename(at("other"), at("cache/other")).expect("renamed");
    stop_and_compare(&mut protected, &usual());
    assert_there(&protected, &["d/after", "d/deep/er/n"], &[]);
}

/// Brings a directory with files into the set, again and again, until it is told to stop; gives how often.
fn bring_in(mount: &Path, stop: &AtomicBool) -> u32 {
    let at = |path: String| mount.join(path);
    let mut number = 0;
    while !stop.load(Relaxed) {
        write(at(format!("cache/n{number}/deep/f")), "born outside");
        fs::rename(at(format!("cache/n{number}")), at(format!("n{number}"))).expect("renamed");
        write(at(format!("n{number}/deep/g")), "born inside");
        write(at(format!("n{number}/deep/f")), "changed inside");
        std::thread::sleep(Duration::from_millis(20));
        number += 1;
    }
    number
}

/// It is copied, and that is no alarm; who verifies meanwhile waits for it.
#[test]
fn what_comes_in_is_no_fault() {
    let _alone = heavy();
    let mut protected = protected_by(&USUAL);
    wait_until_good(&protected);
    let (stop, mount) = (AtomicBool::new(false), protected.mount.clone());
    std::thread::scope(|scope| {
        let _stops = StopAtEnd(&stop);
        let brings = scope.spawn(|| bring_in(&mount, &stop));
        let began = Instant::now();
        let mut seen = 0;
        while began.elapsed() < Duration::from_secs(3) {
            let output = output_within(standin(&protected.run).arg("status"), COMMAND_MAX);
            let said = describe(&output);
            assert!(!said.contains("CRITICAL") && output.status.code() != Some(2), "{said}");
            seen += u32::from(said.contains("came into the set"));
        }
        let verify = || output_within(standin(&protected.run).args(["verify", "--timeout", "60s"]), SYNC_MAX);
        let output = verify();
        stop.store(true, Relaxed);
        let brought = brings.join().expect("a program");
        assert!(brought > 20 && seen > 0, "{brought} came in, told {seen} times");
        // Where something comes in all the time there is none.
        let verified = describe(&output);
        let why = ["came into the set", "its copy is not through"];
        assert!(output.status.success() || why.iter().any(|why| verified.contains(why)), "{verified}");
        let output = verify();
        assert!(output.status.success(), "{}", describe(&output));
    });
    let said = protected.said();
    assert!(!said.contains("ERROR") && !said.contains("could not be captured"), "{said}");
    stop_and_compare(&mut protected, &usual());
}

/// A verification begins again, a replica that is held back stays what it is, and a connection that is stopped keeps
/// nobody waiting.
#[test]
fn what_comes_in_leaves_others_in_peace() {
    let _alone = heavy();
    let mut protected = protected_by(&USUAL);
    wait_until_good(&protected);
    fs::write(protected.mount.join("large"), vec![7; 2 << 20]).expect("a file");
    protected.wait_sync();
    let come = |name: &str| {
        write(protected.mount.join("cache").join(name).join("f"), name);
        fs::rename(protected.mount.join("cache").join(name), protected.mount.join(name)).expect("renamed");
    };
    let go = |arguments: &[&str]| output_within(standin(&protected.run).args(arguments), SYNC_MAX);
    std::thread::scope(|scope| {
        let run = protected.run.clone();
        let arguments = ["verify", "--checksum", "--rate", "1M", "--timeout", "60s"];
        let verifies = scope.spawn(move || output_within(standin(&run).args(arguments), SYNC_MAX));
        wait_until("a verification", || connection(&protected)["mirror"]["phase"] == "verifying");
        come("one");
        while !verifies.is_finished() {
            let said = describe(&go(&["status"]));
            assert!(!said.contains("CRITICAL"), "{said}");
        }
        let output = verifies.join().expect("a command");
        assert!(output.status.success(), "{}", describe(&output));
    });
    wait_until_good(&protected);
    go(&["connection", "pause"]);
    come("two");
    assert_eq!(connection(&protected)["data"], "good", "it is what it was");
    assert!(!protected.replica.join("two").exists());
    go(&["connection", "resume"]);
    wait_until("it comes", || protected.replica.join("two/f").exists());
    wait_until_good(&protected);
    come("three");
    go(&["connection", "stop"]);
    let output = go(&["verify", "--timeout", "60s"]);
    assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
    assert!(describe(&output).contains("not in line"), "{}", describe(&output));
    go(&["connection", "start"]);
    stop_and_compare(&mut protected, &usual());
}

/// A copy under way brings it along.
#[test]
fn what_comes_in_during_a_copy_begins_no_other() {
    let _alone = heavy();
    let mut protected = protected_by(&USUAL);
    wait_until_good(&protected);
    fs::write(protected.mount.join("large"), vec![7; 12 << 20]).expect("a file");
    protected.wait_sync();
    let copies = || protected.said().matches("in line after a copy").count();
    let (before, stop, mount) = (copies(), AtomicBool::new(false), protected.mount.clone());
    let (brought, begun) = std::thread::scope(|scope| {
        let _stops = StopAtEnd(&stop);
        let arguments = ["mirror", "start", "--mode", "full", "--rate", "4M"];
        let output = output_within(standin(&protected.run).args(arguments), COMMAND_MAX);
        assert!(output.status.success(), "{}", describe(&output));
        wait_until("a copy", || connection(&protected)["mirror"]["phase"] == "mirroring");
        let brings = scope.spawn(|| bring_in(&mount, &stop));
        wait_until("complete", || copies() > before);
        stop.store(true, Relaxed);
        let brought = brings.join().expect("a program");
        wait_until_good(&protected);
        (brought, copies() - before)
    });
    // One more for what came at its very end.
    assert!(brought > 20 && begun <= 3, "{brought} came in, {begun} copies");
    stop_and_compare(&mut protected, &usual());
}

/// What is out from now on stays where it is, what is in comes, and nothing else is sent.
#[test]
fn rules_change_while_programs_work() {
    let mut protected = protected_by(&USUAL);
    refused(&protected, &["change", SET, "--remove", "4"], "no rule 4");
    refused(&protected, &["change", SET, "--exclude", "a//b"], "a//b");
    refused(&protected, &["create", SET], "already");
    refused(&protected, &["delete", SET], "protected now");
    refused(&protected, &["rename", SET, "other"], "protected now");
    let shown = told(&protected, &["show", SET]);
    assert!(shown.contains("exclude *.tmp") && shown.contains("include /cache/keep"), "{shown}");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stops = StopAtEnd(&stop);
        scope.spawn(|| {
            for number in 0.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                write(protected.mount.join(format!("d/w{}.tmp", number % 7)), &number.to_string());
                write(protected.mount.join(format!("cache/w{}", number % 5)), &number.to_string());
                write(protected.mount.join(format!("w{}", number % 3)), &number.to_string());
            }
        });
        let changed = told(&protected, &["change", SET, "--remove", "2", "--exclude", "d/"]);
        assert!(changed.contains("compares the replicas"), "{changed}");
        wait_until_good(&protected);
    });
    protected.wait_sync();
    // The first is out from now on: nobody has removed it, nobody tells of it.
    assert_there(&protected, &["d/c", "cache/x", "cache/w0"], &["b.tmp"]);
    fs::remove_file(protected.mount.join("d/c")).expect("removed");
    protected.wait_sync();
    assert_there(&protected, &["d/c"], &[]);
    let again = told(&protected, &["change", SET]);
    assert!(again.contains("already"), "{again}");
    let rules = [Rule::exclude("*.tmp"), Rule::include("/cache/keep"), Rule::exclude("d/")];
    stop_and_compare(&mut protected, &rules);
}

/// While it is not protected too; and what is out on the target was put there by somebody.
#[test]
fn rules_change_while_nothing_runs() {
    let mut protected = protected_by(&USUAL);
    protected.stop();
    write(protected.replica.join("mine.log"), "of the target's own");
    told(&protected, &["change", SET, "--clear", "--exclude", "*.log"]);
    protected.start_again();
    wait_until_good(&protected);
    assert_there(&protected, &["b.tmp", "cache/x", "mine.log"], &[]);
    write(protected.mount.join("a.log"), "out");
    let output = output_within(standin(&protected.run).args(["verify", "--checksum", "--json"]), SYNC_MAX);
    assert!(output.status.success(), "{}", describe(&output));
    stop_and_compare(&mut protected, &[Rule::exclude("*.log")]);
}

#[test]
fn a_file_of_a_set_that_means_nothing_starts_nothing() {
    let protected = Protected::prepare(Setup::default());
    fs::create_dir(protected.state.join("sets")).expect("a directory");
    fs::write(protected.state.join("sets/m.toml"), "[[rule]]\nexclud = \"a\"\n").expect("written");
    let output = output_within(&mut protected.protect_command(), COMMAND_MAX);
    assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
    assert!(describe(&output).contains("exclud"), "{}", describe(&output));
    assert!(!crate::host::is_mounted(&protected.mount));
}

fn as_rules(asked: &[(&str, &str)]) -> Vec<Rule> {
    let rule = |(option, pattern): &(&str, &str)| match *option {
        "--exclude" => Rule::exclude(pattern),
        _ => Rule::include(pattern),
    };
    asked.iter().map(rule).collect()
}

/// From three threads, across the border all the time.
#[test]
fn random_operations_of_a_set_arrive() {
    let _alone = heavy();
    const SETS: [&[(&str, &str)]; 3] = [
        &[("--exclude", "f1"), ("--exclude", "f3")],
        &[("--exclude", "/d1"), ("--include", "/d1/d2")],
        &[("--include", "f*"), ("--include", "/d2"), ("--exclude", "d3/f*")],
    ];
    for seed in seeds(3) {
        println!("STANDIN_SEED={seed}");
        let asked = SETS[seed as usize % SETS.len()];
        let mut protected = Protected::prepare(Setup::default());
        let mut arguments = vec!["create", SET];
        asked.iter().for_each(|(option, pattern)| arguments.extend([*option, *pattern]));
        told(&protected, &arguments);
        protected.start_again();
        random::prepare(&protected.mount);
        random::work(&protected.mount, seed, 1500);
        stop_and_compare(&mut protected, &as_rules(asked));
    }
}

/// A set with rules was compared with everything at each start, and whenever its target had lost its place.
#[test]
fn what_has_changed_of_a_set_does_for_its_target() {
    let _alone = heavy();
    // Whether a start, and what comes into the set, leaves it at what has changed.
    const SETS: [&[(&str, &str)]; 4] = [
        &[("--exclude", "f1"), ("--exclude", "f3")],
        &[("--exclude", "f2"), ("--exclude", "d3/")],
        &[("--exclude", "/d1"), ("--include", "/d1/d2"), ("--exclude", "f4")],
        &[("--include", "f*"), ("--include", "/d2"), ("--exclude", "d3/f*")],
    ];
    let mut minicopies = [[0; 2]; SETS.len()];
    for (number, seed) in seeds(SETS.len() as u64).into_iter().enumerate() {
        let at = match random::setting("STANDIN_SEED") {
            Some(seed) => seed as usize % SETS.len(),
            None => number % SETS.len(),
        };
        // So that a seed alone says which set it was.
        let seed = seed - seed % SETS.len() as u64 + at as u64;
        println!("STANDIN_SEED={seed}");
        let mut protected = Protected::prepare(Setup::default());
        let mut arguments = vec!["create", SET];
        SETS[at].iter().for_each(|(option, pattern)| arguments.extend([*option, *pattern]));
        told(&protected, &arguments);
        let rules = as_rules(SETS[at]);
        protected.start_again();
        random::prepare(&protected.mount);
        for round in 0..6_u64 {
            random::work(&protected.mount, seed ^ round << 8, 300);
            wait_until_good(&protected);
            let is_killed = round % 2 == 1;
            match is_killed {
                true => {
                    protected.kill9();
                    protected.start_at_once();
                }
                false => drop(crate::host::run(standin(&protected.run).args(["replication", "stop"]))),
            }
            random::work(&protected.mount, seed ^ round << 16, 300);
            if !is_killed {
                crate::host::run(standin(&protected.run).args(["replication", "start"]));
            }
            wait_until_good(&protected);
            let is_minicopy = connection(&protected)["progress"]["mode"] == "minicopy";
            minicopies[at][usize::from(is_killed)] += usize::from(is_minicopy);
            stop_and_compare(&mut protected, &rules);
            protected.start_again();
        }
        protected.stop();
    }
    println!("minicopies while it runs, and of starts: {minicopies:?}");
    if random::setting("STANDIN_SEED").is_none() {
        let [names, ..] = minicopies;
        assert!(names.iter().all(|count| *count > 0), "{minicopies:?}");
    }
}

/// What a target was copied to by the rules before counted again after a kill: it has forgotten what they leave out.
#[test]
fn rules_that_a_kill_cuts_off_leave_nothing_out() {
    for is_live in [false, true] {
        let mut protected = Protected::prepare(Setup::default());
        told(&protected, &["create", SET, "--exclude", "nothing"]);
        fs::create_dir(protected.backing.join("dir")).expect("a directory");
        for name in ["dir/a.tmp", "dir/b"] {
            fs::write(protected.backing.join(name), "x").expect("a file");
        }
        protected.start_again();
        // Until it is noted what the target has, with all names in it.
        thread::sleep(NOTED);
        if !is_live {
            protected.stop();
        }
        told(&protected, &["change", SET, "--exclude", "*.tmp"]);
        if !is_live {
            protected.start_at_once();
        }
        wait_until_good(&protected);
        protected.wait_sync();
        fs::write(protected.mount.join("dir/a.tmp"), "other").expect("a write");
        protected.kill9();
        told(&protected, &["change", SET, "--clear", "--exclude", "nothing"]);
        protected.start_again();
        protected.assert_in_sync();
        fs::write(protected.mount.join("dir/a.tmp"), "again").expect("a write");
        protected.assert_in_sync();
        protected.stop();
    }
}

/// What was left out by then came along with its directory, and was moved aside as what leaves the set by that.
#[test]
fn what_is_left_out_stays_in_a_directory_that_is_renamed() {
    for anchored in [&[][..], &["--exclude", "/other/leaves"]] {
        let mut protected = Protected::prepare(Setup::default());
        told(&protected, &["create", SET, "--exclude", "nothing"]);
        for path in ["dir/a.tmp", "dir/b", "dir/leaves", "dir/sub/a.tmp", "dir/sub/b"] {
            write(protected.backing.join(path), path);
        }
        protected.start_again();
        told(&protected, &[&["change", SET, "--exclude", "*.tmp"], anchored].concat());
        wait_until_good(&protected);
        crate::host::run(standin(&protected.run).args(["replication", "stop"]));
        fs::rename(protected.mount.join("dir"), protected.mount.join("other")).expect("renamed");
        write(protected.mount.join("other/sub/c.tmp"), "out");
        write(protected.mount.join("other/sub/d"), "in");
        crate::host::run(standin(&protected.run).args(["replication", "start"]));
        wait_until_good(&protected);
        let is_minicopy = connection(&protected)["progress"]["mode"] == "minicopy";
        assert!(is_minicopy || !anchored.is_empty(), "{}", connection(&protected));
        assert_there(
            &protected,
            &["other/a.tmp", "other/b", "other/sub/a.tmp", "other/sub/b", "other/sub/d"],
            &["dir", "other/sub/c.tmp"],
        );
        let has_left = !protected.replica.join("other/leaves").exists();
        assert_eq!(has_left, !anchored.is_empty(), "{anchored:?}");
        protected.wait_sync();
        protected.stop();
    }
}
