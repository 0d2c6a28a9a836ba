//! Schedules: what waits, comes and ends by itself, with real daemons.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{self, COMMAND_MAX, Protected, Setup, describe, output_within, standin};

fn command(run: &Path, arguments: &[&str]) -> Output {
    output_within(standin(run).args(arguments), COMMAND_MAX)
}

/// `standin …`, which must succeed; what it said.
#[track_caller]
fn told(run: &Path, arguments: &[&str]) -> String {
    let output = command(run, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", describe(&output));
    describe(&output)
}

fn connection(run: &Path) -> Value {
    let output = command(run, &["status", "--json"]);
    let mut status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    status["connections"][0].take()
}

/// Waits until the first connection is so.
#[track_caller]
fn wait_for(run: &Path, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let connection = connection(run);
        if is_so(&connection) {
            return connection;
        }
        assert!(Instant::now() < deadline, "never {what}: {connection}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_scheduled(connection: &Value) -> bool {
    connection["state"] == "scheduled"
}

/// A part of the day that it is not, wherever this runs: from six hours on to seven hours on.
fn later() -> String {
    let now = output_within(std::process::Command::new("date").arg("+%H"), COMMAND_MAX);
    let hour: u32 = String::from_utf8_lossy(&now.stdout).trim().parse().expect("an hour");
    format!("{:02}:00-{:02}:00", (hour + 6) % 24, (hour + 7) % 24)
}

fn protected(arguments: Vec<&'static str>) -> Protected {
    Protected::start(Setup { arguments, ..Setup::default() })
}

#[test]
fn what_waits_is_sent_once_enough_is_queued() {
    let arguments = vec!["--schedule", "queue=4M", "--queue-memory", "64M"];
    let mut protected = Protected::prepare(Setup { arguments, ..Setup::default() });
    protected.start_at_once();
    let (run, mount) = (protected.run.clone(), protected.mount.clone());
    wait_for(&run, "scheduled", is_scheduled);
    fs::write(mount.join("little"), "x").expect("a write");
    let waited = command(&run, &["wait-sync"]);
    assert_eq!(waited.status.code(), Some(1), "{}", describe(&waited));
    for part in ["waits for its schedule", "as soon as 4M are queued", "standin connection start 1"] {
        assert!(describe(&waited).contains(part), "{}", describe(&waited));
    }
    let shown = told(&run, &["connection", "schedule", "show"]);
    for part in ["queue=4M", "as the protection was started", "nothing has begun a session yet"] {
        assert!(shown.contains(part), "{shown}");
    }
    assert!(!protected.replica.join("little").exists());
    fs::write(mount.join("much"), vec![7; 5 << 20]).expect("a write");
    // It begins, copies, sends, and ends once the target has everything.
    wait_for(&run, "after a session", |connection| {
        is_scheduled(connection) && connection["data"] == "good" && connection["queued"]["packets"] == 0
    });
    assert_eq!(fs::read(protected.replica.join("much")).expect("the file").len(), 5 << 20);
    let shown = told(&run, &["connection", "schedule", "show", "--json"]);
    assert!(shown.contains("\"open\":false") || shown.contains("\"open\": false"), "{shown}");
    let shown = told(&run, &["connection", "schedule", "show"]);
    assert!(shown.contains("the last session ended: the target had what was queued"), "{shown}");
    fs::write(mount.join("late"), "x").expect("a write");
    // By hand.
    told(&run, &["connection", "start"]);
    wait_for(&run, "after a session by hand", |connection| {
        is_scheduled(connection) && connection["queued"]["packets"] == 0
    });
    assert!(protected.replica.join("late").exists());
    // A stop keeps to the schedule, and says what is left.
    fs::write(mount.join("left"), "x").expect("a write");
    let stopped = command(&run, &["stop"]);
    assert_eq!(stopped.status.code(), Some(1), "{}", describe(&stopped));
    assert!(describe(&stopped).contains("it waits for its schedule"), "{}", describe(&stopped));
    protected.forget_ended_with(&[3]);
    assert!(!protected.replica.join("left").exists());
}

/// A session never began where changes are small: their bytes were compared with the memory of the queue, of which
/// they take many times that.
#[test]
fn small_changes_fill_the_queue_too() {
    let arguments = vec!["--schedule", "queue=50%", "--queue-memory", "32M", "--queue-disk-limit", "0"];
    let mut protected = Protected::prepare(Setup { arguments, ..Setup::default() });
    protected.start_at_once();
    let (run, file) = (protected.run.clone(), protected.mount.join("file"));
    wait_for(&run, "scheduled", is_scheduled);
    fs::write(&file, "x").expect("a write");
    // More than half of the queue, and not all of it.
    for number in 0..44_000 {
        let mode = PermissionsExt::from_mode(if number % 2 == 0 { 0o600 } else { 0o640 });
        fs::set_permissions(&file, mode).expect("programs go on");
    }
    wait_for(&run, "after a session", |connection| {
        is_scheduled(connection) && connection["data"] == "good" && connection["queued"]["packets"] == 0
    });
    assert!(protected.replica.join("file").exists());
    protected.stop();
}

/// What `wait-sync` put behind the last change to hear of it was said to be lacking; a stop had left a change
/// behind, and the next start copied everything.
#[test]
fn who_has_everything_lacks_nothing_while_it_waits() {
    let mut protected = protected(Vec::new());
    let (run, mount) = (protected.run.clone(), protected.mount.clone());
    fs::write(mount.join("before"), "x").expect("a write");
    protected.wait_sync();
    told(&run, &["connection", "schedule", "set", "at=2099-12-31 23:59"]);
    wait_for(&run, "scheduled", is_scheduled);
    let session = || {
        told(&run, &["connection", "start"]);
        wait_for(&run, "after a session", |connection| {
            is_scheduled(connection) && connection["data"] == "good" && connection["queued"]["packets"] == 0
        })
    };
    fs::write(mount.join("more"), "x").expect("a write");
    let after = session();
    // It is on the target's disk when the session ends.
    assert_eq!(after["durable"], after["applied"], "{after}");
    told(&run, &["wait-sync"]);
    told(&run, &["wait-sync", "--durable"]);
    assert_eq!(connection(&run)["queued"]["packets"], 0);
    protected.stop();
    protected.start_at_once();
    wait_for(&run, "scheduled", is_scheduled);
    let copied = session();
    assert_eq!(copied["progress"]["mode"], "minicopy", "{copied}");
    told(&run, &["stop"]);
    protected.forget_ended();
    protected.start_at_once();
    // By hand it is the same.
    session();
    told(&run, &["connection", "stop"]);
    told(&run, &["wait-sync"]);
    protected.stop();
}

#[test]
fn outside_of_its_window_nothing_is_sent() {
    let mut protected = protected(Vec::new());
    let (run, mount) = (protected.run.clone(), protected.mount.clone());
    fs::write(mount.join("before"), "x").expect("a write");
    protected.wait_sync();
    let window = format!("queue=1,stop-empty=no,window={}", later());
    let set = told(&run, &["connection", "schedule", "set", &window]);
    assert!(set.contains("it is outside of its window") && set.contains("set by hand"), "{set}");
    wait_for(&run, "scheduled", is_scheduled);
    fs::write(mount.join("held"), "x").expect("a write");
    let refused = command(&run, &["connection", "start"]);
    assert_eq!(refused.status.code(), Some(2), "{}", describe(&refused));
    assert!(describe(&refused).contains("outside of the window"), "{}", describe(&refused));
    std::thread::sleep(Duration::from_secs(2));
    assert!(!protected.replica.join("held").exists(), "sent outside of the window");
    // It stays so over a restart: what was queued is compared then.
    protected.stop_incomplete_by(libc::SIGTERM);
    protected.start_at_once();
    let again = wait_for(&run, "scheduled again", is_scheduled);
    assert_eq!(again["schedule"]["from"], "command", "{again}");
    assert!(again["schedule"]["next_unix_ms"].as_u64() > Some(1_700_000_000_000), "{again}");
    let off = told(&run, &["connection", "schedule", "off"]);
    assert!(off.contains("switched off"), "{off}");
    protected.wait_in_line();
    assert!(protected.assert_in_sync().objects >= 2);
    told(&run, &["connection", "schedule", "on"]);
    wait_for(&run, "scheduled", is_scheduled);
    let cleared = told(&run, &["connection", "schedule", "clear"]);
    assert!(cleared.contains("has no schedule"), "{cleared}");
    protected.wait_in_line();
    protected.stop();
}

/// Programs never wait for a schedule, and what the queue cannot hold is in the map.
#[test]
fn a_queue_that_gets_full_meanwhile_is_let_go() {
    let mut protected =
        protected(vec!["--queue-memory", "32M", "--queue-disk-limit", "0", "--on-queue-full", "block"]);
    let (run, mount) = (protected.run.clone(), protected.mount.clone());
    fs::write(mount.join("before"), "x").expect("a write");
    protected.wait_sync();
    told(&run, &["connection", "schedule", "set", "at=2099-12-31 23:59"]);
    wait_for(&run, "scheduled", is_scheduled);
    for number in 0..24 {
        fs::write(mount.join(format!("file{number}")), vec![number; 2 << 20]).expect("programs go on");
    }
    let let_go = wait_for(&run, "let go", |connection| connection["needs_copy"] == true);
    assert_eq!(let_go["state"], "scheduled", "{let_go}");
    told(&run, &["connection", "start"]);
    let after = wait_for(&run, "after a session by hand", |connection| {
        is_scheduled(connection) && connection["data"] == "good" && connection["needs_copy"] == false
    });
    assert_eq!(after["progress"]["mode"], "minicopy", "{after}");
    told(&run, &["connection", "schedule", "off"]);
    protected.wait_in_line();
    assert!(protected.assert_in_sync().objects >= 25);
    protected.stop();
}

#[test]
fn the_file_of_the_set_is_followed() {
    let mut protected = protected(Vec::new());
    let run = protected.run.clone();
    let sets = protected.state.join("sets");
    fs::create_dir_all(&sets).expect("a directory");
    let name = connection_name(&run);
    fs::write(sets.join(format!("{name}.toml")), "schedule = \"at=2099-12-31 23:59\"\n").expect("a file");
    told(&run, &["reload"]);
    let held = wait_for(&run, "scheduled", is_scheduled);
    assert_eq!(held["schedule"]["from"], "file", "{held}");
    fs::write(sets.join(format!("{name}.toml")), "schedule = \"queue=banana\"\n").expect("a file");
    // The one before holds, and a person is told.
    let warned = wait_for_alert(&run, "set_file");
    for part in ["banana", "what it said before goes on to hold"] {
        assert!(warned.contains(part), "{warned}");
    }
    let refused = command(&run, &["reload"]);
    assert_eq!(refused.status.code(), Some(2), "{}", describe(&refused));
    assert!(is_scheduled(&connection(&run)));
    fs::write(sets.join(format!("{name}.toml")), "").expect("a file");
    told(&run, &["reload"]);
    wait_for(&run, "started", |connection| {
        connection["state"] == "started" && connection["schedule"].is_null()
    });
    host::wait_until("no alert", || !alerts(&run).contains("set_file"));
    protected.wait_in_line();
    protected.stop();
}

fn alerts(run: &Path) -> String {
    let output = command(run, &["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    status["alerts"].to_string()
}

/// All that a person is told, once this is among it.
#[track_caller]
fn wait_for_alert(run: &Path, code: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !alerts(run).contains(code) {
        assert!(Instant::now() < deadline, "nothing is said of {code}: {}", alerts(run));
        std::thread::sleep(Duration::from_millis(50));
    }
    alerts(run)
}

fn connection_name(run: &Path) -> String {
    let output = command(run, &["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    status["name"].as_str().expect("a name").to_owned()
}
