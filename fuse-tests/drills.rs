//! `standin drill` with real daemons: what it says, what cannot get out of it, and what is left of it.

mod files;
mod harm;
mod open;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::clones::WRITER;
use crate::host::{
    COMMAND_MAX, Disk, Image, describe, dir_on_disk, heavy, output_within, require_program, run, wait_until,
};
use crate::pair::Pair;
use crate::random::{prepare, seeds, work};
use crate::tree::Rules;
use standin::random::Random;

/// A path that no host has, of this pair alone.
fn at(pair: &Pair) -> String {
    let state = pair.state("target");
    let name = state.parent().and_then(Path::file_name).expect("a name").to_string_lossy().into_owned();
    format!("/standin-drill-{name}/web")
}

fn drill(pair: &Pair, arguments: &[&str]) -> Output {
    output_within(pair.daemon("target").arg("drill").args(arguments), 4 * COMMAND_MAX)
}

/// A drill that ends with this code, and its report.
#[track_caller]
fn ran(pair: &Pair, code: i32, arguments: &[&str]) -> Value {
    let output = drill(pair, &[&["run", "--json", "--at", &at(pair)], arguments].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", describe(&output));
    let mut answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let report = answer["report"].take();
    assert_eq!(report["left"], Value::Null, "{report}");
    report
}

fn step<'a>(report: &'a Value, name: &Value) -> &'a Value {
    let steps = report["steps"].as_array().expect("steps");
    steps.iter().find(|step| &step["step"] == name).unwrap_or_else(|| panic!("no {name} in {report}"))
}

fn check(report: &Value, number: u32) -> &Value {
    step(report, &serde_json::json!({ "check": number }))
}

#[track_caller]
fn refused(pair: &Pair, arguments: &[&str], words: &str) {
    let output = drill(pair, arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", describe(&output));
    assert!(describe(&output).contains(words), "no '{words}' in: {}", describe(&output));
}

fn wait_sync(pair: &Pair) {
    let output = output_within(pair.daemon("source").arg("wait-sync"), 4 * COMMAND_MAX);
    assert!(output.status.success(), "{}", describe(&output));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Processes whose environment says that they belong to a drill of this set of daemons.
fn processes_of(token: &str) -> Vec<PathBuf> {
    let all = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    all.filter(|path| fs::read(path.join("environ")).is_ok_and(|all| has(&all, token.as_bytes()))).collect()
}

fn has(all: &[u8], wanted: &[u8]) -> bool {
    all.windows(wanted.len()).any(|part| part == wanted)
}

/// No process, clone, directory or mount of any drill.
#[track_caller]
fn assert_nothing_left(pair: &Pair) {
    let processes = processes_of(&format!("STANDIN_DRILL_PATH={}", at(pair)));
    assert!(processes.is_empty(), "{processes:?}");
    let listed = output_within(pair.daemon("target").args(["clone", "list", "--json"]), COMMAND_MAX);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed["replicas"][0]["clones"], serde_json::json!([]), "{listed}");
    let beside = fs::read_dir(pair.replica().parent().expect("a root")).expect("entries").flatten();
    let left: Vec<_> =
        beside.map(|entry| entry.file_name()).filter(|name| has(name.as_encoded_bytes(), b"drill")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!Path::new(&at(pair)).parent().expect("a parent").exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains("standin-drill"), "{mounts}");
    assert!(!pair.state("target").join(".drills/running.json").exists());
}

fn filled() -> Pair {
    filled_on(Disk::Plain)
}

fn filled_on(target: Disk) -> Pair {
    let pair = Pair::start(Disk::Plain, target);
    prepare(&pair.mount);
    work(&pair.mount, 7, 200);
    fs::write(pair.mount.join("known"), "as it was").expect("a file");
    wait_sync(&pair);
    pair
}

#[test]
fn a_drill_says_what_the_checks_say() {
    let _alone = heavy();
    let pair = filled();
    wait_until("its source says what time it is", || {
        let status = output_within(pair.daemon("target").args(["status", "--json"]), COMMAND_MAX);
        let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
        status["target"]["replicas"][0]["as_of_unix_ms"].is_u64()
    });
    let mount = pair.mount.clone();
    let stop = AtomicBool::new(false);
    let (passed, failed) = std::thread::scope(|scope| {
        scope.spawn(|| {
            for seed in 0..200 {
                if stop.load(SeqCst) {
                    break;
                }
                work(&mount, seed, 20);
            }
        });
        let good = "test \"$(cat known)\" = 'as it was' && test \"$PWD\" = \"$STANDIN_DRILL_PATH\" && \
                    test $STANDIN_DRILL = 1 && test $STANDIN_DRILL_SET = web && echo changed > known && cat known";
        let passed = ran(
            &pair,
            0,
            &[
                "--start",
                "sleep 1000 & echo begun",
                "--ready",
                "test -e up || { touch up; false; }",
                "--check",
                good,
                "--check",
                "true",
                "--stop",
                "echo over",
            ],
        );
        let failed = ran(
            &pair,
            1,
            &["--check", "echo what is wrong >&2; exit 7", "--check", "test -f known", "--timeout", "60s"],
        );
        stop.store(true, SeqCst);
        (passed, failed)
    });
    println!("{passed}\n{failed}");
    assert_eq!((&passed["verdict"], &passed["number"]), (&"passed".into(), &1.into()));
    assert_eq!(check(&passed, 1)["ended"]["output"], "changed\n");
    assert_eq!(step(&passed, &"start".into())["ended"]["output"], "begun\n");
    assert_eq!(step(&passed, &"ready".into())["tries"], 2, "{passed}");
    assert!(passed["point"]["packet"].as_u64() > Some(0) && passed["point"]["age_ms"].is_u64(), "{passed}");
    assert_eq!(failed["verdict"], "failed");
    assert_eq!(
        (&check(&failed, 1)["ended"]["exit_code"], &check(&failed, 1)["ended"]["output"]),
        (&7.into(), &"what is wrong\n".into())
    );
    assert_eq!(check(&failed, 2)["outcome"], "done");
    for known in ["before_ms", "after_ms"] {
        assert!(passed["lag"][known].is_u64(), "{known}: {passed}");
    }
    assert!(failed["clone"]["bytes_written"].as_u64().is_some_and(|bytes| bytes < 1 << 20), "{failed}");
    kept_reports_are_shown(&pair);
    assert_eq!(fs::read(pair.mount.join("known")).expect("a file"), b"as it was");
    assert_nothing_left(&pair);
    wait_sync(&pair);
    pair.assert_in_sync(&Rules { hole_slack: 64 * 1024, ..Rules::default() });
}

/// Of one that passed and one that failed, and of two more.
fn kept_reports_are_shown(pair: &Pair) {
    assert_eq!(ran(pair, 0, &[])["verdict"], "opened");
    assert_eq!(drill(pair, &["last", "web"]).status.code(), Some(2), "the last one with a check failed");
    let late = ran(pair, 1, &["--check", "sleep 1000", "--timeout", "1s"]);
    assert_eq!(check(&late, 1)["ended"]["timed_out"], true, "{late}");
    let listed = drill(pair, &["list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let verdicts: Vec<_> = listed["drills"]
        .as_array()
        .expect("drills")
        .iter()
        .map(|one| (&one["report"]["verdict"], &one["linked"]))
        .collect();
    assert_eq!(
        verdicts.iter().map(|(verdict, _)| verdict.as_str().expect("text")).collect::<Vec<_>>(),
        ["passed", "failed", "opened", "failed"]
    );
    assert!(verdicts.iter().all(|(_, linked)| linked.as_bool() == Some(true)), "{listed}");
    // The last one failed, the one before it had no check.
    for (arguments, code, words) in
        [(&["last"][..], 2, "web  FAILED"), (&["last", "other", "--expect-every", "7d"], 1, "other  NEVER")]
    {
        let said = drill(pair, arguments);
        assert!(
            said.status.code() == Some(code) && describe(&said).contains(words),
            "{arguments:?}: {}",
            describe(&said)
        );
    }
    let python = require_program("python3");
    let xml = drill(pair, &["report", "2", "--junit"]);
    let file = pair.state("target").join("report.xml");
    fs::write(&file, &xml.stdout).expect("a file");
    let parse = "import sys, xml.etree.ElementTree as t; s = t.parse(sys.argv[1]).getroot()[0]; \
                 print(s.get('failures'), [c.get('name') for c in s if c.find('failure') is not None])";
    let parsed = output_within(Command::new(python).args(["-c", parse]).arg(&file), COMMAND_MAX);
    let said = "2 ['check 1: echo what is wrong >&2; exit 7', 'verdict']";
    assert!(describe(&parsed).contains(said), "{}{}", describe(&parsed), describe(&xml));
    let shown = drill(pair, &["report", "2"]);
    assert!(
        shown.status.success()
            && describe(&shown).contains("FAILED")
            && describe(&shown).contains("what is wrong"),
        "{}",
        describe(&shown)
    );
}

/// Each of these would be a way out.
#[test]
fn a_check_cannot_get_out() {
    let _alone = heavy();
    require_program("unshare");
    require_program("python3");
    let pair = filled();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (replica, state) = (pair.replica(), pair.state("target"));
    let (replica, state) = (text(&replica), text(&state));
    let outside = pair.state("source").join("outside");
    let probes = ways_out(replica, state, text(&outside), port);
    let mut arguments = Vec::new();
    for (_, command, _) in &probes {
        arguments
            .extend(["--check".to_owned(), format!("exec bash -c '{}'", command.replace('\'', "'\\''"))]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let report = ran(&pair, 1, &arguments);
    for (number, (what, _, is_well)) in (1..).zip(&probes) {
        let check = check(&report, number);
        assert_eq!(check["outcome"] == "done", *is_well, "{what}: {check}");
    }
    println!("{}", report["isolation"]);
    let own = &report["isolation"]["namespaces"];
    assert_eq!(own, &serde_json::json!(["ipc", "mnt", "net", "pid", "uts"]));
    assert_eq!(report["isolation"]["interfaces"], serde_json::json!(["lo"]));
    let bits = report["isolation"]["capabilities"].as_str().expect("text");
    let bits = u64::from_str_radix(bits, 16).expect("bits");
    // CAP_DAC_READ_SEARCH would open files of the replica by their handles, through the clone's mount:
    // 2; SYS_MODULE 16, SYS_RAWIO 17, SYS_PTRACE 19, SYS_ADMIN 21, SYS_BOOT 22, SYS_TIME 25, MKNOD 27, NET_ADMIN 12.
    for bit in [2, 12, 16, 17, 19, 21, 22, 25, 27] {
        assert_eq!(bits >> bit & 1, 0, "capability {bit} in {bits:x}");
    }
    assert!(
        !outside.exists()
            && !Path::new("/etc/standin-drill-outside").exists()
            && !Path::new("/other-drill").exists()
    );
    assert_eq!(fs::read(pair.replica().join("known")).expect("a file"), b"as it was");
    assert_nothing_left(&pair);
    pair.assert_in_sync(&Rules { hole_slack: 64 * 1024, ..Rules::default() });
}

/// Works where the call does.
fn calls(name: &str, arguments: &str) -> String {
    let number = match name {
        "clone" => libc::SYS_clone,
        "add_key" => libc::SYS_add_key,
        _ => libc::SYS_keyctl,
    };
    format!("python3 -c 'import ctypes; exit(ctypes.CDLL(None).syscall({number}, {arguments}, 0, 0, 0) < 0)'")
}

/// What each would show, the command, and whether it has to work.
fn ways_out(replica: &str, state: &str, outside: &str, port: u16) -> Vec<(&'static str, String, bool)> {
    vec![
        ("the clone can be written to", "echo x > new && rm new".to_owned(), true),
        (
            "fresh places can",
            "echo x > /tmp/x && echo x > /run/x && echo x > /dev/shm/x && echo x > /dev/null".into(),
            true,
        ),
        (
            "loopback is up",
            "python3 -c 'import socket; s = socket.socket(); s.bind((\"127.0.0.1\", 0)); s.listen(); \
             socket.create_connection(s.getsockname())'"
                .into(),
            true,
        ),
        ("the replica is seen", format!("test -e {replica}/known || test -n \"$(ls -A {replica})\""), false),
        ("the replica is written to", format!("echo x > {replica}/known"), false),
        ("the state is seen", format!("test -n \"$(ls -A {state})\""), false),
        (
            "the host is written to",
            format!("echo x > {outside} || echo x > /etc/standin-drill-outside"),
            false,
        ),
        ("a directory is made on the host", "mkdir ../other || mkdir /other-drill".into(), false),
        ("it is mounted anew", "mount -o remount,rw /".into(), false),
        ("it is mounted anew by a user's namespace", "unshare -Urm mount -o remount,rw,bind /".into(), false),
        ("something is uncovered", format!("umount -l {state} || unshare -Urm umount -l {state}"), false),
        ("something is mounted", "mount -t tmpfs none /tmp".into(), false),
        ("it is root of a user's namespace", "unshare -U true".into(), false),
        (
            "namespaces of a user are made otherwise",
            calls("clone", &format!("{} | 17", libc::CLONE_NEWUSER)),
            false,
        ),
        ("the host's control groups are mounted", "unshare -Urm mount -t cgroup2 none /tmp".into(), false),
        ("a key is left with root", calls("add_key", "b\"user\", b\"left\", b\"x\", 1, -4"), false),
        ("keys are looked at", calls("keyctl", "0, -4, 0"), false),
        (
            "processes begin all the same",
            "python3 -c 'import threading; threading.Thread(target=print).start()'".into(),
            true,
        ),
        ("other users work", "setpriv --reuid 1000 --clear-groups true".into(), true),
        ("a device is made", "mknod /tmp/disk b 7 0".into(), false),
        (
            "the kernel is told",
            "cd /proc/sys/kernel; cat core_pattern > core_pattern || test -w /proc/sysrq-trigger".into(),
            false,
        ),
        ("the host is reached", format!("exec 3<>/dev/tcp/127.0.0.1/{port}"), false),
        ("another process of the host is seen", format!("test -e /proc/{}", std::process::id()), false),
        ("the first process is heard", "readlink /proc/1/fd/0 || : < /proc/1/fd/0".into(), false),
        ("the first process is killed", "kill -9 1; sleep .2; test ! -e /proc/1".into(), false),
    ]
}

/// A program that has left its session and its parent ends with the drill.
#[test]
fn nothing_outlives_a_drill() {
    let pair = filled();
    let marker = format!("drill-token-{}", std::process::id());
    let stay = format!("MARK={marker} setsid sh -c 'setsid sleep 1000 & exec sleep 1000' > /dev/null 2>&1 &");
    let report = ran(
        &pair,
        0,
        &["--check", &stay, "--check", "until test $(pgrep -c sleep) -ge 2; do sleep .05; done"],
    );
    assert_eq!(report["verdict"], "passed", "{report}");
    assert!(processes_of(&marker).is_empty());
    assert_nothing_left(&pair);
    // The same where the host has the path: the clone is over it, and it is as it was.
    let there = pair.state("source").join("there");
    fs::create_dir(&there).expect("a directory");
    fs::write(there.join("own"), "x").expect("a file");
    let before = fs::metadata(&there).expect("status").mtime_nsec();
    let check = "test -f known && test ! -e own";
    let output = drill(&pair, &["run", "--json", "--at", text(&there), "--check", check, "--keep"]);
    assert!(output.status.success(), "{}", describe(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let name = answer["report"]["name"].as_str().expect("text");
    assert_eq!(fs::metadata(&there).expect("status").mtime_nsec(), before);
    let kept = pair.replica().with_file_name(format!(".standin-{name}"));
    assert_eq!(fs::read(kept.join("known")).expect("a file"), b"as it was");
    let removed = output_within(pair.daemon("target").args(["clone", "stop", name, "--remove"]), COMMAND_MAX);
    assert!(removed.status.success() && !kept.exists(), "{}", describe(&removed));
    assert_nothing_left(&pair);
}

fn started(pair: &Pair, mark: &str) -> Child {
    let mut command = pair.daemon("target");
    command.args(["drill", "run", "--at", &at(pair), "--check", &format!("MARK={mark} exec sleep 1000")]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("standin drill");
    let deadline = Instant::now() + COMMAND_MAX;
    while processes_of(mark).is_empty() {
        assert!(Instant::now() < deadline, "its check does not run");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

#[test]
fn a_drill_that_is_killed_is_cleaned_up_by_the_next_command() {
    let pair = filled();
    for (round, signal) in (1..).zip([Signal::KILL, Signal::TERM, Signal::KILL, Signal::INT]) {
        let mark = format!("drill-mark-{}-{round}", std::process::id());
        let mut child = started(&pair, &mark);
        refused_while_running(&pair);
        let process = Pid::from_child(&child);
        rustix::process::kill_process(process, signal).expect("it runs");
        let status = child.wait().expect("it ends");
        assert_eq!(status.code(), (signal != Signal::KILL).then_some(2), "{status:?}");
        let deadline = Instant::now() + COMMAND_MAX;
        while !processes_of(&mark).is_empty() {
            assert!(Instant::now() < deadline, "its check goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
        let listed = drill(&pair, &["list", "--json"]);
        assert!(listed.status.success(), "{}", describe(&listed));
        let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
        let drills = listed["drills"].as_array().expect("drills");
        assert_eq!(drills.len(), round, "{listed}");
        assert_eq!(drills[round - 1]["report"]["verdict"], "interrupted", "{listed}");
        assert_nothing_left(&pair);
    }
    assert_eq!(ran(&pair, 0, &["--check", "test -f known"])["number"], 5);
    pair.assert_in_sync(&Rules { hole_slack: 64 * 1024, ..Rules::default() });
}

/// Wherever it is: before its clone, while the daemon makes it, in its checks, in its clean-up.
#[test]
fn a_drill_that_is_killed_at_any_moment_leaves_nothing() {
    let _alone = heavy();
    let pair = filled();
    let checks = ["--check", "test -f known", "--check", "sleep .1"];
    let begun = Instant::now();
    ran(&pair, 0, &checks);
    let whole = begun.elapsed();
    let seed = seeds(1)[0];
    println!("STANDIN_SEED={seed}, a whole drill takes {whole:?}");
    let mut random = Random::new(seed);
    for round in 0..12 {
        let after = whole * random.below(1000) as u32 / 1000;
        let mut command = pair.daemon("target");
        command.args(["drill", "run", "--at", &at(&pair)]).args(checks);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("standin drill");
        std::thread::sleep(after);
        child.kill().expect("a child");
        child.wait().expect("it ends");
        let listed = drill(&pair, &["list", "--json"]);
        assert!(listed.status.success(), "round {round}, after {after:?}: {}", describe(&listed));
        let said = String::from_utf8_lossy(&listed.stdout);
        println!("round {round}: after {after:?}, {} interrupted", said.matches("interrupted").count());
        assert_nothing_left(&pair);
    }
    ran(&pair, 0, &checks);
    pair.assert_in_sync(&Rules { hole_slack: 64 * 1024, ..Rules::default() });
}

/// Unmounted at the end of a test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// What the host unmounts while a drill runs is gone at once: its mounts began as a copy of the host's.
#[test]
fn a_drill_holds_no_mount_of_the_host() {
    let mut pair = filled_on(Disk::Image { kind: "ext4", mib: 100 });
    let base = dir_on_disk();
    let other = base.path().join("other");
    let image = Image::mount(base.path(), other.clone(), "ext4", 16);
    fs::write(other.join("tool"), "x").expect("a file");
    let connections = base.path().join("connections");
    fs::create_dir(&connections).expect("a directory");
    run(Command::new("mount").args(["-t", "fusectl", "none"]).arg(&connections));
    let _connections = Mounted(connections.clone());
    let device = fs::metadata(&pair.mount).expect("status").dev();
    let connection = connections.join(rustix::fs::minor(device).to_string());
    assert!(connection.exists(), "{connection:?}");

    let tool = other.join("tool");
    let tool = text(&tool);
    let report = ran(&pair, 0, &["--check", &format!("test ! -e {tool}")]);
    let left_out = report["isolation"]["left_out"].as_array().expect("paths");
    // The outermost one is named.
    let is_named = |path: &Value| path.as_str().is_some_and(|path| other.starts_with(path));
    assert!(left_out.iter().any(is_named), "{report}");
    let asked = ["--show", text(&other), "--check", &format!("test -f {tool} && ! echo x > {tool}")];
    assert_eq!(ran(&pair, 0, &asked)["isolation"]["shown"], serde_json::json!([text(&other)]));

    let mark = format!("drill-mark-{}-held", std::process::id());
    let mut child = started(&pair, &mark);
    for process in processes_of(&mark) {
        let mounts = fs::read_to_string(process.join("mountinfo")).expect("mounts");
        assert!(!mounts.contains(" - fuse") && !mounts.contains(" - fusectl"), "{mounts}");
    }
    image.forget(&base.path().join("other.image"));
    pair.stop_source();
    wait_until("the kernel has forgotten the protected directory", || !connection.exists());
    assert!(!processes_of(&mark).is_empty(), "its check has ended");
    rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    assert_eq!(child.wait().expect("it ends").code(), Some(2));
    assert_nothing_left(&pair);
}

fn refused_while_running(pair: &Pair) {
    let output = drill(pair, &["run", "--at", &at(pair)]);
    assert!(
        output.status.code() == Some(2) && describe(&output).contains("A drill is running"),
        "{}",
        describe(&output)
    );
}

#[test]
fn what_cannot_be_drilled_is_refused() {
    let mut pair = filled();
    refused(&pair, &["run", "--check", "true"], "own path");
    for at in ["relative", "/", "/usr", "/proc/x", "/srv/../etc"] {
        refused(&pair, &["run", "--at", at], at);
    }
    let link = pair.state("source").join("programs");
    std::os::unix::fs::symlink("/usr", &link).expect("a symlink");
    refused(&pair, &["run", "--at", text(&link)], "nothing would run");
    refused(&pair, &["run", "--at", &at(&pair), "--check", " "], "is empty");
    refused(&pair, &["run", "other", "--at", &at(&pair)], "other");
    refused(&pair, &["report"], "no drill yet");
    refused(&pair, &["run", "--marker", "m"], "not in this version");
    refused(&pair, &["run", "--at", text(&pair.replica().join("x"))], "lies in the replica");
    refused(&pair, &["run", "--at", &at(&pair), "--dir", "/nowhere"], "nothing was run on the data");
    pair.stop_target();
    refused(&pair, &["run", "--at", &at(&pair)], "No daemon");
    let report = drill(&pair, &["report"]);
    assert!(report.status.success() && describe(&report).contains("FAILED"), "{}", describe(&report));
    pair.serve();
    assert_nothing_left(&pair);
}

/// Whoever reads what it says may go: it ends as it should.
#[test]
fn a_drill_that_nobody_watches_ends() {
    let pair = filled();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
    let mut command = pair.daemon("target");
    command.args(["drill", "run", "--at", &at(&pair), "--check", "true"]).stdout(Stdio::null()).stderr(full);
    assert!(command.status().expect("it runs").success());
    assert_eq!(drill(&pair, &["last", "web"]).status.code(), Some(0));
    assert_nothing_left(&pair);
}

const CHECK: &str = r#"python3 -c '
import sqlite3
db = sqlite3.connect("n.db")
assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
count, last = db.execute("select count(*), max(i) from n").fetchone()
assert count == last and count > 0, (count, last)
print(count)
'"#;

#[test]
fn a_database_that_is_written_passes() {
    use std::io::{BufRead, BufReader};
    let python = require_program("python3");
    let pair = Pair::start(Disk::Plain, Disk::Plain);
    let stop = pair.state("source").join("stop-writing");
    let mut writer = Command::new(&python)
        .args(["-c", WRITER])
        .arg(pair.mount.join("n.db"))
        .arg(&stop)
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut ready = String::new();
    BufReader::new(writer.stdout.take().expect("piped")).read_line(&mut ready).expect("a line");
    wait_sync(&pair);
    let counts: Vec<u64> = (0..3)
        .map(|_| {
            let report = ran(&pair, 0, &["--check", CHECK]);
            let output = check(&report, 1)["ended"]["output"].as_str().expect("text").trim().to_owned();
            output.parse().expect("a number")
        })
        .collect();
    fs::write(&stop, "").expect("a file");
    assert!(writer.wait().expect("it ends").success());
    println!("{counts:?}");
    for (every, code, words) in [("7d", 0, "web  passed"), ("0", 1, "web  OVERDUE: passed")] {
        let said = drill(&pair, &["last", "--expect-every", every]);
        assert!(said.status.code() == Some(code) && describe(&said).contains(words), "{}", describe(&said));
    }
    assert!(counts.is_sorted(), "{counts:?}");
    assert_nothing_left(&pair);
}

/// Content of every kind that a check may look at: a database, a tree with sums, an index that is mapped.
fn provable() -> Pair {
    let python = require_program("python3");
    let pair = Pair::start(Disk::Plain, Disk::Plain);
    let fill = "import sqlite3, sys, os, random; db = sqlite3.connect(sys.argv[1] + '/shop.db'); \
                db.execute('create table n(i integer primary key, t text)'); \
                db.executemany('insert into n values(?, ?)', ((i, 'x' * 200) for i in range(5000))); \
                db.commit(); db.close(); random.seed(1); os.mkdir(sys.argv[1] + '/tree'); \
                [open(sys.argv[1] + '/tree/%d' % i, 'wb').write(random.randbytes(40000)) for i in range(300)]; \
                open(sys.argv[1] + '/index', 'wb').write(bytes(2000000))";
    run(Command::new(python).args(["-c", fill]).arg(&pair.mount));
    run(Command::new("sh").args(["-c", "sha256sum tree/* > sums"]).current_dir(&pair.mount));
    wait_sync(&pair);
    pair
}

const SQLITE: &str = r#"python3 -c '
import sqlite3
assert sqlite3.connect("shop.db").execute("pragma integrity_check").fetchall() == [("ok",)]
'"#;

const MAPPED: &str = r#"python3 -c '
import mmap
index = open("index", "rb")
assert not any(mmap.mmap(index.fileno(), 0, prot=mmap.PROT_READ)[:])
'"#;

#[test]
fn a_check_is_proven_on_damaged_data() {
    let _alone = heavy();
    let pair = provable();
    let sums = "sha256sum --quiet -c sums";
    for (checks, code, findings, files) in [
        (&[SQLITE][..], 0, &["noticed"][..], 1..=1),
        (&[sums], 0, &["noticed"], 200..=301),
        (&[MAPPED], 0, &["noticed"], 1..=1),
        (&["dd if=index bs=64k iflag=direct | tr -d '\\0' | cmp - /dev/null"], 0, &["noticed"], 1..=1),
        (&["true"], 3, &["read_nothing"], 0..=0),
        (&["test -f shop.db && ls -lR > /dev/null"], 3, &["read_nothing"], 0..=0),
        (&["cat index > /dev/null"], 3, &["passed"], 1..=1),
        (&["head -c 16 shop.db | grep -q SQLite"], 3, &["passed"], 1..=1),
        (&["cat index > /dev/null && mkdir made"], 3, &["not_repeatable"], 0..=0),
        (&[SQLITE, "cat index > /dev/null", MAPPED], 3, &["noticed", "passed", "noticed"], 2..=2),
    ] {
        let mut arguments = vec!["--prove"];
        checks.iter().for_each(|check| arguments.extend(["--check", check]));
        let report = ran(&pair, code, &arguments);
        let proof = &report["proof"];
        println!("{checks:?}: {proof}");
        let found: Vec<_> =
            proof["checks"].as_array().expect("checks").iter().map(|one| &one["finding"]).collect();
        assert_eq!(
            (&report["verdict"], found),
            (
                &"passed".into(),
                findings.iter().map(|one| Value::from(*one)).collect::<Vec<_>>().iter().collect()
            ),
            "{checks:?}: {proof}"
        );
        assert!(files.contains(&proof["damaged_files"].as_u64().expect("a number")), "{checks:?}: {proof}");
        assert_nothing_left(&pair);
    }
    let said = drill(&pair, &["report"]);
    assert!(
        describe(&said).contains("check 2 PROVES NOTHING: it passes on damaged data"),
        "{}",
        describe(&said)
    );
    assert_eq!(
        drill(&pair, &["last", "web"]).status.code(),
        Some(0),
        "of the data they say that they passed"
    );
    pair.assert_in_sync(&Rules { hole_slack: 64 * 1024, ..Rules::default() });
}

/// What is started before the checks may be what notices; what fails says nothing of the checks.
#[test]
fn a_proof_says_what_noticed() {
    let pair = filled();
    // What the check reads is in memory of nobody, and the service looks at it as well when it starts.
    let service = ["--start", "grep -qx 'as it was' known", "--check", "cat known", "--prove"];
    let report = ran(&pair, 0, &service);
    assert_eq!(
        (&report["proof"]["noticed_by"], &report["proof"]["conclusion"]),
        (&"start".into(), &"proven".into()),
        "{report}"
    );
    let once = ["--start", "grep -q . known && mkdir once", "--check", "cat known", "--prove"];
    let report = ran(&pair, 3, &once);
    assert_eq!(report["proof"]["conclusion"], "not_made", "{report}");
    let report = ran(&pair, 1, &["--check", "false", "--prove"]);
    assert_eq!(report["proof"], Value::Null, "of a drill that failed there is nothing to prove");
    for wrong in [&["--prove"][..], &["--prove", "--check", "true", "--keep"]] {
        refused(&pair, &[&["run", "--at", &at(&pair)], wrong].concat(), "--prove");
    }
    assert_nothing_left(&pair);
    pair.assert_in_sync(&Rules { hole_slack: 64 * 1024, ..Rules::default() });
}
