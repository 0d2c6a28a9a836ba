//! Markers: what a target runs for one sees the replica exactly as of it, while programs go on writing.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{COMMAND_MAX, Disk, StopAtEnd, describe, heavy, output_within, wait_until};
use crate::pair::Pair;

/// `standin markers run`, ended with the test.
struct Attendant(Child);

impl Attendant {
    fn start(pair: &Pair, timeout: &str, command: &str) -> Attendant {
        let mut attendant = pair.daemon("target");
        attendant.args(["markers", "run", "web", "--timeout", timeout, "--command", command]);
        attendant.stdout(Stdio::null());
        let attendant = Attendant(attendant.spawn().expect("it starts"));
        // A marker that nobody attends is passed: one that is executed says that it does.
        wait_until("it attends", || {
            marker(pair, &["probe", "--wait", "executed"]).1["targets"][0]["end"] != "no_command"
        });
        attendant
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn marker(pair: &Pair, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = pair.daemon("source");
    command.args(["marker", "--json"]).args(arguments);
    let output = output_within(&mut command, COMMAND_MAX);
    let answer = serde_json::from_slice(&output.stdout);
    (output.status.code(), answer.unwrap_or_else(|error| panic!("{error}: {}", describe(&output))))
}

fn standin(pair: &Pair, side: &str, arguments: &[&str]) -> String {
    describe(&output_within(pair.daemon(side).args(arguments), COMMAND_MAX))
}

/// A log that a program appends to, one byte at a time, and a second one that gets the same byte afterwards: at each
/// moment the first is as long as the second, or one byte longer.
struct Logs {
    first: File,
    second: File,
    written: AtomicU64,
}

impl Logs {
    fn create(dir: &Path) -> Logs {
        let create = |name: &str| File::create(dir.join(name)).expect("a file");
        Logs { first: create("first"), second: create("second"), written: AtomicU64::new(0) }
    }

    fn write(&self, stop: &AtomicBool) {
        while !stop.load(SeqCst) {
            (&self.first).write_all(b"x").expect("a write");
            self.written.fetch_add(1, SeqCst);
            (&self.second).write_all(b"x").expect("a write");
        }
    }
}

/// Its command sees twice what it saw at first, and nothing that was written behind the marker.
const LOOK: &str = r#"cd "$STANDIN_REPLICA" || exit 9
one=$(stat -c %s first second | tr '\n' ' ')
sleep 0.02
two=$(stat -c %s first second | tr '\n' ' ')
[ "$one" = "$two" ] || exit 7
echo "$one $STANDIN_MARKER $STANDIN_SET $STANDIN_POSITION" > "$OUT/$STANDIN_MARKER.new"
mv "$OUT/$STANDIN_MARKER.new" "$OUT/$STANDIN_MARKER""#;

#[test]
fn a_command_sees_exactly_the_state_of_its_marker() {
    let _alone = heavy();
    let (pair, out) = (Pair::start(Disk::Plain, Disk::Plain), crate::host::dir_on_disk());
    let look = format!("OUT='{}'\n{LOOK}", out.path().display());
    let (logs, stop) = (Logs::create(&pair.mount), AtomicBool::new(false));
    let _attendant = Attendant::start(&pair, "20s", &look);
    std::thread::scope(|scope| {
        let _end = StopAtEnd(&stop);
        scope.spawn(|| logs.write(&stop));
        for number in 0..100 {
            let name = format!("m{number}");
            let before = logs.written.load(SeqCst);
            let (code, answer) = marker(&pair, &[&name]);
            let after = logs.written.load(SeqCst);
            assert_eq!(code, Some(0), "{answer:#}");
            wait_until("it was executed", || out.path().join(&name).exists());
            let saw = fs::read_to_string(out.path().join(&name)).expect("its command has written");
            let words: Vec<&str> = saw.split_whitespace().collect();
            let [first, second, marker, set, position] = words[..] else { panic!("{saw}") };
            assert_eq!((marker, set), (name.as_str(), "web"), "{saw}");
            assert_eq!(position, answer["position"].to_string(), "{saw}");
            let sizes = [first, second].map(|size| size.parse::<u64>().expect("a number"));
            // The program may have one write under way that is not counted yet.
            assert!((before..=after + 1).contains(&sizes[0]), "{before} to {after}: {saw}");
            assert!(sizes[0] == sizes[1] || sizes[0] == sizes[1] + 1, "{saw}");
        }
    });
    let (code, answer) = marker(&pair, &["last", "--wait", "executed"]);
    assert_eq!((code, &answer["targets"][0]["end"]), (Some(0), &"done".into()), "{answer:#}");
}

/// A command that hangs is ended, what it holds goes on, and meanwhile it is said.
#[test]
fn a_command_that_hangs_is_ended() {
    let pair = Pair::start(Disk::Plain, Disk::Plain);
    let command =
        r#"case "$STANDIN_MARKER" in probe) exit 0;; fails) echo out of luck; exit 3;; esac; sleep 60"#;
    let _attendant = Attendant::start(&pair, "10s", command);
    let (code, answer) = marker(&pair, &["fails", "--wait", "executed"]);
    assert_eq!((code, &answer["targets"][0]["end"]), (Some(1), &"failed".into()), "{answer:#}");
    let (code, answer) = marker(&pair, &["hangs"]);
    assert_eq!(code, Some(0), "{answer:#}");
    fs::write(pair.mount.join("behind"), "x").expect("programs go on");
    for side in ["source", "target"] {
        wait_until("it is said", || standin(&pair, side, &["status", "--json"]).contains("marker hangs"));
    }
    assert!(!pair.replica().join("behind").exists(), "the stream is held");
    let began = Instant::now();
    wait_until("the stream goes on", || pair.replica().join("behind").exists());
    assert!(began.elapsed() < Duration::from_secs(60));
    let (code, answer) = marker(&pair, &["noon", "nowhere"]);
    assert_eq!(code, Some(2), "{answer:#}");
}

/// Nobody waits for a command that nobody runs; and a name is one.
#[test]
fn a_marker_that_nobody_attends_is_passed() {
    let pair = Pair::start(Disk::Plain, Disk::Plain);
    let (code, answer) = marker(&pair, &["noon", "--wait", "executed", "--timeout", "20s"]);
    assert_eq!((code, &answer["targets"][0]["end"]), (Some(0), &"no_command".into()), "{answer:#}");
    for name in ["a b", "$(id)", "../x", "", ".x"] {
        let output = output_within(pair.daemon("source").args(["marker", name]), COMMAND_MAX);
        let said = describe(&output);
        assert!(output.status.code() == Some(2) && said.contains("cannot name a marker"), "{said}");
    }
}
