//! `standin upgrade`: a daemon becomes another program under programs that work, and targets owe nothing.
//!
//! `STANDIN_SEED=x` replays what programs do and when something is killed, `STANDIN_ROUNDS=n` does it so often.

mod refused;

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde_json::Value;
use standin::random::Random;

use crate::host::{
    COMMAND_MAX, Daemon, Disk, Place, Protected, SYNC_MAX, Setup, StopAtEnd, binary, describe, heavy,
    output_within, require_program, standin, wait_until,
};
use crate::outlive::programs::{self, Done, Program};
use crate::pair::Pair;
use crate::random::setting;
use crate::tree::{self, Rules};

const HOLDER: &[&str] = &["--holder", "--takeover-timeout", "60s"];

fn protected(place: Place) -> Protected {
    Protected::start(Setup { place, arguments: HOLDER.to_vec(), ..Setup::default() })
}

/// The product once more, as another file.
fn another_program(protected: &Protected, name: &str) -> PathBuf {
    let path = protected.base.path().join(name);
    fs::copy(binary(), &path).expect("a copy of the program");
    path
}

fn upgrade(run: &Path, arguments: &[&str]) -> Command {
    let mut command = standin(run);
    command.args(["upgrade", "--json"]).args(arguments);
    command
}

#[track_caller]
fn upgraded(run: &Path, program: &Path) -> Value {
    let output = output_within(upgrade(run, &[]).arg("--binary").arg(program), SYNC_MAX);
    assert!(output.status.success(), "{}", describe(&output));
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    said["upgrades"][0].clone()
}

fn program_of(daemon: &Daemon) -> PathBuf {
    fs::read_link(format!("/proc/{}/exe", daemon.pid())).expect("the program of a process")
}

fn status(protected: &Protected) -> Value {
    serde_json::from_str(&protected.status()).expect("JSON")
}

/// What was copied to the only target since the program that runs began: nothing.
#[track_caller]
fn assert_nothing_was_copied(status: &Value, history: &Value) {
    let connection = &status["connections"][0];
    assert_eq!(&status["history"], history, "another run: {status:#}");
    assert_eq!(connection["mirror"]["phase"], "idle", "{connection:#}");
}

/// What programs do, the same file system under them, and the daemon one program after the other.
fn storm(place: Place, between: impl Fn(&mut Protected, &mut Random, u64)) {
    let seed = setting("STANDIN_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = setting("STANDIN_ROUNDS").unwrap_or(10);
    println!("STANDIN_SEED={seed} STANDIN_ROUNDS={rounds}");
    let mut random = Random::new(seed);
    let mut protected = protected(place);
    let programs = programs::all(&protected.mount, seed);
    let end = AtomicBool::new(false);
    let done: Vec<Done> = std::thread::scope(|scope| {
        let _end = StopAtEnd(&end);
        let running: Vec<_> = programs
            .into_iter()
            .map(|program: Box<dyn Program>| scope.spawn(|| programs::run(program, &end)))
            .collect();
        for round in 0..rounds {
            std::thread::sleep(Duration::from_millis(random.below(300)));
            between(&mut protected, &mut random, round);
        }
        std::thread::sleep(Duration::from_millis(300));
        end.store(true, Relaxed);
        running.into_iter().map(|program| program.join().expect("a program ends")).collect()
    });
    for done in &done {
        println!("{:>10}: {} calls, the longest {:?}", done.name, done.calls, done.longest);
        assert!(done.calls > 0, "{} did nothing", done.name);
    }
    protected.wait_sync();
    protected.stop();
    tree::assert_same_by(&protected.backing, &protected.replica, &Rules::default());
}

fn ten_in_a_row(place: Place) {
    let _alone = heavy();
    storm(place, |protected, _, round| {
        let program = another_program(protected, &format!("program-{}", round % 2));
        let (history, pid) = (status(protected)["history"].clone(), protected.daemon().pid());
        let report = upgraded(&protected.run, &program);
        println!("waited {} ms, {} packets", report["pause_ms"], report["sent_packets"]);
        assert_eq!((program_of(protected.daemon()), report["same_run"].as_bool()), (program, Some(true)));
        assert_eq!((report["pid"].as_u64(), protected.daemon().pid()), (Some(u64::from(pid)), pid));
        let status = status(protected);
        assert_nothing_was_copied(&status, &history);
        assert_eq!(status["holder"]["upgrade"]["upgrades"].as_u64(), Some(round + 1), "{status:#}");
        assert_eq!(status["holder"]["takeovers"].as_u64(), Some(0), "nobody was killed");
    });
}

#[test]
fn programs_see_a_pause_and_targets_owe_nothing() {
    ten_in_a_row(Place::Beside);
}

#[test]
fn a_daemon_is_upgraded_over_its_own_directory() {
    ten_in_a_row(Place::Over);
}

/// Whichever program is killed, and however far it has come: the next start goes on.
#[test]
fn a_kill_in_the_middle_costs_no_program_anything() {
    let _alone = heavy();
    storm(Place::Beside, |protected, random, round| {
        let program = another_program(protected, &format!("program-{}", round % 2));
        // After a kill it is copied to; as long as it is, nothing goes on without a word.
        protected.wait_sync();
        let mut command = upgrade(&protected.run, &[]);
        let command = command.arg("--binary").arg(&program).stdout(Stdio::null()).stderr(Stdio::null());
        let mut asking = command.spawn().expect("standin upgrade");
        // Before it has gone, or right after.
        if random.one_in(2) {
            std::thread::sleep(Duration::from_millis(random.below(600)));
        } else {
            wait_until("it is another program", || program_of(protected.daemon()) == program);
            std::thread::sleep(Duration::from_millis(random.below(60)));
        }
        let (was, has_served) =
            (program_of(protected.daemon()), protected.said().matches("goes on for").count());
        protected.kill9();
        println!("{} was killed, which had served: {}", was.display(), has_served > 0);
        let _ = asking.kill();
        let _ = asking.wait();
        protected.start_at_once();
    });
}

/// A database, a work tree that is checked out back and forth, and a file without a name.
#[test]
fn a_database_and_a_checkout_go_on() {
    let _alone = heavy();
    let mut protected = protected(Place::Beside);
    let program = another_program(&protected, "next");
    let mut command = Command::new(require_program("python3"));
    command.arg("-c").arg(include_str!("outlive/sqlite.py")).arg(protected.mount.join("a.db")).arg("WAL");
    let mut database = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
    let mut command = Command::new("sh");
    command.arg("-ec").arg(CHECKOUTS).arg(require_program("git")).arg(protected.mount.join("tree"));
    let checkout = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut checkout = checkout.spawn().expect("a shell");
    let path = protected.mount.join("nameless");
    let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(&path).expect("a file");
    fs::remove_file(&path).expect("removed");
    for number in 0..5 {
        std::thread::sleep(Duration::from_millis(400));
        file.write_all(format!("{number} ").as_bytes()).expect("a write to a file without a name");
        let report = upgraded(&protected.run, &program);
        println!("waited {} ms", report["pause_ms"]);
    }
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text)).expect("a read");
    assert_eq!(text, "0 1 2 3 4 ");
    drop((database.stdin.take(), checkout.stdin.take(), file));
    for (what, child) in [("database", database), ("checkout", checkout)] {
        let output = child.wait_with_output().expect("it ends");
        println!("{what}: {}", describe(&output));
        assert!(output.status.success(), "{what}");
    }
    protected.assert_in_sync();
    protected.stop();
}

/// Until standard input ends. `$0` is git, `$1` the work tree.
const CHECKOUTS: &str = r#"
git() { "$GIT" -c user.name=x -c user.email=x@example.org -c gc.auto=0 "$@"; }
GIT=$0
mkdir "$1" && cd "$1"
git init -q -b one .
for n in $(seq 60); do mkdir -p d$((n % 7)); echo "one $n" > d$((n % 7))/f$n; done
git add -A && git commit -q -m one
git checkout -q -b two
for n in $(seq 60); do echo "two $n" > d$((n % 7))/f$n; done
mkdir e && mv d1/* e/
git add -A && git commit -q -m two
rounds=0
exec 3<&0
(cat <&3 > /dev/null; touch ../ends) &
while [ ! -e ../ends ]; do
    git checkout -q one; test -z "$(git status --porcelain)"
    git checkout -q two; test -z "$(git status --porcelain)"
    rounds=$((rounds + 1))
done
git fsck --full
echo "$rounds rounds"
"#;

/// What waits in the kernel is asked of the next program: over the network, too, nothing is sent twice.
#[test]
fn over_the_network_no_content_is_sent_again() {
    let _alone = heavy();
    let mut pair = Pair::start(Disk::Plain, Disk::Plain);
    hold(&mut pair);
    for number in 0..30 {
        fs::write(pair.mount.join(format!("file-{number}")), vec![number; 1 << 20]).expect("a file");
    }
    let report = upgraded(&pair.run("source"), Path::new(&binary()));
    println!("waited {} ms", report["pause_ms"]);
    let (_, first) = sent(&pair);
    fs::write(pair.mount.join("last"), "after it").expect("a file");
    pair.assert_in_sync(&Rules::default());
    // It is counted now and then.
    wait_until("what was sent is counted", || sent(&pair).0 > 0);
    std::thread::sleep(Duration::from_secs(1));
    let (bytes, second) = sent(&pair);
    println!("{bytes} bytes were sent since");
    assert!(bytes < 100_000, "30 MiB were in line: {bytes}");
    assert_nothing_was_copied(&second, &first["history"]);
    // And so does the target's daemon: that is a stop and a start.
    pair.stop_target();
    fs::write(pair.mount.join("meanwhile"), "queued").expect("a file");
    pair.serve();
    pair.assert_in_sync(&Rules::default());
    pair.stop_source();
}

/// Bytes that the program that runs has sent, with its status.
fn sent(pair: &Pair) -> (u64, Value) {
    let output = output_within(pair.daemon("source").args(["status", "--json"]), COMMAND_MAX);
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    (status["connections"][0]["link"]["udp_sent_bytes"].as_u64().unwrap_or(0), status)
}

/// Has the mount of a pair held: it comes up once more.
fn hold(pair: &mut Pair) {
    pair.stop_source();
    let mut command = pair.protect_command();
    command.args(HOLDER);
    let mut daemon = Daemon::spawn(command);
    daemon.wait_ready();
    pair.source = Some(daemon);
    pair.assert_in_sync_of(0, &Rules::default());
}

/// A target that is away keeps nothing up but by a word; what it lacks then comes by a copy of that alone.
#[test]
fn a_target_that_is_away_is_said_and_copied_to_afterwards() {
    let _alone = heavy();
    let mut pair = Pair::start(Disk::Plain, Disk::Plain);
    hold(&mut pair);
    for number in 0..30 {
        fs::write(pair.mount.join(format!("file-{number}")), vec![number; 1 << 20]).expect("a file");
    }
    pair.assert_in_sync(&Rules::default());
    // It is noted each 5 s what a target has, as of the one before, once it has that.
    std::thread::sleep(Duration::from_secs(16));
    pair.stop_target();
    wait_until("it is away", || sent(&pair).1["connections"][0]["state"] == "error");
    fs::write(pair.mount.join("meanwhile"), "what it lacks").expect("a file");
    let (run, program) = (pair.run("source"), PathBuf::from(binary()));
    let ask = |more: &[&str]| -> Output {
        output_within(upgrade(&run, more).arg("--binary").arg(&program), SYNC_MAX)
    };
    let look = ask(&["--dry-run"]);
    assert!(look.status.success(), "{}", describe(&look));
    let look: Value = serde_json::from_slice(&look.stdout).expect("JSON");
    assert_eq!(look["upgrades"][0]["lacking"].as_array().map(Vec::len), Some(1), "{look:#}");
    let refused = ask(&[]);
    assert_eq!(refused.status.code(), Some(2), "{}", describe(&refused));
    assert!(String::from_utf8_lossy(&refused.stdout).contains("--anyway"), "{}", describe(&refused));
    let done = ask(&["--anyway"]);
    assert!(done.status.success(), "{}", describe(&done));
    pair.serve();
    pair.assert_in_sync(&Rules::default());
    wait_until("what was sent is counted", || sent(&pair).0 > 0);
    std::thread::sleep(Duration::from_secs(1));
    let (bytes, status) = sent(&pair);
    println!("{bytes} bytes for the one file that it lacked");
    assert_eq!(status["connections"][0]["mirror"]["phase"], "complete");
    assert!(bytes < 2 << 20, "a copy of what it had: {bytes}");
    let resync = &status["connections"][0]["resync"];
    assert_eq!((&resync["rung"], &resync["searched"]), (&"owed".into(), &false.into()), "{resync:#}");
    pair.stop_source();
}

/// What rules the set has is known from its start on, and not only when it is looked after: a set with some was compared
/// as a whole after an upgrade in its first seconds.
#[test]
fn a_set_with_rules_goes_on_right_after_its_start() {
    let arguments = [HOLDER, &["--exclude", "*.tmp"]].concat();
    let mut protected = Protected::start(Setup { arguments, ..Setup::default() });
    fs::write(protected.mount.join("file"), b"bytes").expect("a write");
    protected.wait_sync();
    let history = status(&protected)["history"].clone();
    for name in ["first", "second"] {
        let report = upgraded(&protected.run, &another_program(&protected, name));
        assert_eq!(report["same_run"].as_bool(), Some(true), "{report:#}");
        let status = status(&protected);
        assert_nothing_was_copied(&status, &history);
        assert_eq!(status["connections"][0]["data"], "good", "{status:#}");
    }
    protected.stop();
}
