//! `standin events` beside real daemons: what begins and ends by real faults, hooks that work, fail and hang, and
//! the silence of a host where something is wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::host::{
    COMMAND_MAX, Daemon, Protected, STOP_MAX, Setup, describe, output_within, standin, wait_until,
};

/// Events as they are told, one document a line.
struct Told(PathBuf);

impl Told {
    fn all(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// How often a code was told in this way.
    fn count(&self, what: &str, code: &str) -> usize {
        self.all().iter().filter(|told| told["what"] == what && told["code"] == code).count()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, code: &str) {
        wait_until(&format!("{code} ({what})"), || self.count(what, code) > 0);
    }
}

fn events(protected: &Protected) -> Command {
    let mut command = standin(&protected.run);
    command.arg("--state").arg(&protected.state).arg("events");
    command
}

#[track_caller]
fn does(protected: &Protected, arguments: &[&str]) -> String {
    let mut command = standin(&protected.run);
    let output = output_within(command.arg("--state").arg(&protected.state).args(arguments), COMMAND_MAX);
    assert!(output.status.success(), "{arguments:?}: {}", describe(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// `events run` with a hook, its own file of events beside the protected directory.
struct Hooks {
    daemon: Daemon,
    told: Told,
}

impl Hooks {
    fn start(protected: &Protected, arguments: &[&str]) -> Hooks {
        let file = protected.base.path().join("events.jsonl");
        let mut command = events(protected);
        command.args(["run", "--events-file"]).arg(&file).args(arguments);
        let mut daemon = Daemon::spawn(command);
        daemon.wait_ready();
        Hooks { daemon, told: Told(file) }
    }

    fn stop(mut self) {
        self.daemon.signal(libc::SIGTERM);
        let ended = self.daemon.wait(STOP_MAX);
        assert!(ended.is_some_and(|status| status.success()), "{ended:?}\n{}", self.daemon.said());
    }

    fn kill9(mut self) {
        self.daemon.signal(libc::SIGKILL);
        self.daemon.wait(STOP_MAX);
    }
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn what_people_and_faults_do_is_listed() {
    let mut protected = Protected::start(Setup::default());
    does(&protected, &["connection", "pause"]);
    let listed = || does(&protected, &["events", "list", "--json"]);
    wait_until("the pause", || listed().contains("connection_paused"));
    let document: Value = serde_json::from_str(&listed()).expect("JSON");
    let all = document["events"].as_array().expect("events");
    let of = |code: &str| {
        all.iter().find(|event| event["code"] == code).unwrap_or_else(|| panic!("{code}: {all:?}"))
    };
    let paused = of("connection_paused");
    assert_eq!(
        (&paused["severity"], &paused["ended_unix_ms"]),
        (&"warning".into(), &Value::Null),
        "{paused}"
    );
    assert!(paused["target"].as_str().is_some_and(|target| target.starts_with("local:")), "{paused}");
    let given = of("command_given")["text"].as_str().expect("a text").to_owned();
    assert!(
        given.contains("root") && given.contains("connection pause") && given.ends_with("done"),
        "{given}"
    );
    of("daemon_started");
    does(&protected, &["connection", "resume"]);
    wait_until("its end", || does(&protected, &["events", "list"]).contains("connection_paused  lasted "));
    // The first copy ended before anybody looked at it, or behind that.
    let mirror = does(&protected, &["mirror", "start", "--mode", "checksum"]);
    wait_until(&format!("the end of a copy: {mirror}"), || listed().contains("mirror_ended"));
    does(&protected, &["verify"]);
    wait_until("the end of a verification", || listed().contains("verify_ended"));
    let nothing = does(&protected, &["events", "list", "--set", "no-such-set"]);
    assert_eq!(nothing, "No events.\n");
    protected.stop();
}

#[test]
fn a_hook_is_called_once_for_each_begin_and_end() {
    let mut protected = Protected::start(Setup::default());
    let log = protected.base.path().join("hook");
    let inputs = protected.base.path().join("inputs");
    let hook = format!(
        "echo \"$STANDIN_EVENT $STANDIN_CODE $STANDIN_SEVERITY $STANDIN_ID\" >> {}; cat >> {}; echo >> {}",
        log.display(),
        inputs.display(),
        inputs.display()
    );
    let arguments = ["--hook", hook.as_str(), "--calls", "600"];
    let calls = |what: &str, code: &str| {
        lines(&log).iter().filter(|line| line.starts_with(&format!("{what} {code} "))).count()
    };
    let hooks = Hooks::start(&protected, &arguments);
    does(&protected, &["connection", "pause"]);
    wait_until("the hook", || hooks.daemon.said().contains("called for connection_paused (begin)"));
    // Its own end and return: neither once more, nor left out.
    hooks.kill9();
    let hooks = Hooks::start(&protected, &arguments);
    let said = does(&protected, &["events", "test"]);
    assert!(said.starts_with("The hook was called"), "{said}");
    assert_eq!((calls("once", "test"), calls("begin", "connection_paused")), (1, 1), "{:?}", lines(&log));
    hooks.stop();
    does(&protected, &["connection", "resume"]);
    wait_until("its end", || does(&protected, &["events", "list"]).contains("connection_paused  lasted "));
    let hooks = Hooks::start(&protected, &arguments);
    wait_until("the hook", || calls("end", "connection_paused") == 1);
    // A daemon that is killed, and is there again.
    protected.kill9();
    wait_until("the hook", || calls("begin", "daemon_gone") == 1);
    protected.start_again();
    wait_until("the hook", || calls("end", "daemon_gone") == 1);
    hooks.stop();
    let id = |line: &String| line.rsplit(' ').next().map(str::to_owned);
    let gone: Vec<_> =
        lines(&log).iter().filter(|line| line.contains("daemon_gone")).filter_map(id).collect();
    assert!(gone.len() == 2 && gone[0] == gone[1], "{gone:?}");
    let inputs: Vec<Value> =
        lines(&inputs).iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(inputs.len(), lines(&log).len());
    assert!(inputs.iter().all(|input| input["format"] == 1 && input["event_id"].is_string()), "{inputs:?}");
    protected.stop();
}

/// Each of them is only ever its own trouble.
#[test]
fn a_hook_that_hangs_fails_or_is_flooded_disturbs_nobody() {
    let mut protected = Protected::start(Setup::default());
    let log = protected.base.path().join("hook");
    let hook = format!("echo \"$STANDIN_CODE\" >> {}; sleep 100000", log.display());
    let arguments = ["--hook", hook.as_str(), "--timeout", "1s", "--calls", "2", "--from", "ok"];
    let hooks = Hooks::start(&protected, &arguments);
    for number in 0..20 {
        does(&protected, &["connection", if number % 2 == 0 { "pause" } else { "resume" }]);
        fs::write(protected.mount.join(format!("file {number}")), "content").expect("a write");
    }
    wait_until("a call", || !lines(&log).is_empty());
    wait_until("its time-out", || hooks.daemon.said().contains("timed out"));
    protected.wait_sync();
    wait_until("all of them", || hooks.told.count("once", "command_given") == 20);
    // Who stops it waits for no hook that hangs.
    hooks.stop();
    assert!(lines(&log).len() <= 4, "{:?}", lines(&log));
    // What waited is one call.
    let sums = protected.base.path().join("sums");
    let hook = format!("echo \"$STANDIN_CODE $STANDIN_COUNT\" >> {}", sums.display());
    let hooks = Hooks::start(&protected, &["--hook", hook.as_str(), "--calls", "2", "--from", "ok"]);
    wait_until("what waited", || lines(&sums).iter().any(|line| line.starts_with("events_summed ")));
    hooks.stop();
    protected.stop();
}

/// The command of `--alive` is run while all is well, and not once more after a daemon was frozen or killed.
#[test]
fn silence_is_an_alarm() {
    let mut protected = Protected::start(Setup::default());
    let beats = protected.base.path().join("beats");
    let alive = format!("echo >> {}", beats.display());
    let hooks = Hooks::start(&protected, &["--alive", alive.as_str(), "--every", "300ms"]);
    let beat = || lines(&beats).len();
    let beats_on = || {
        let before = beat();
        wait_until("it beats", || beat() >= before + 3);
    };
    beats_on();
    // Frozen: it is asked right before each run.
    protected.daemon().signal(libc::SIGSTOP);
    hooks.told.wait_for("begin", "daemon_mute");
    wait_until("why", || hooks.daemon.said().contains("it does not answer"));
    let silent = beat();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(beat(), silent, "{}", hooks.daemon.said());
    protected.daemon().signal(libc::SIGCONT);
    hooks.told.wait_for("end", "daemon_mute");
    beats_on();
    protected.kill9();
    // One may have been asked for right before.
    wait_until("why", || hooks.daemon.said().contains("has ended without a word"));
    let silent = beat();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(beat(), silent, "{}", hooks.daemon.said());
    protected.start_again();
    beats_on();
    // Stopped in order it is still expected, until a person says otherwise.
    protected.stop();
    wait_until("why", || hooks.daemon.said().contains("is not there"));
    let silent = beat();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(beat(), silent, "{}", hooks.daemon.said());
    hooks.stop();
}

#[test]
fn what_cannot_be_is_said() {
    let mut protected = Protected::start(Setup::default());
    let output = output_within(events(&protected).args(["test"]), COMMAND_MAX);
    let said = describe(&output);
    assert!(output.status.code() == Some(2) && said.contains("No `standin events run` is there"), "{said}");
    let hooks = Hooks::start(&protected, &["--hook", "exit 7"]);
    let output = output_within(events(&protected).args(["run", "--hook", "true"]), COMMAND_MAX);
    let said = describe(&output);
    assert!(output.status.code() == Some(2) && said.contains("Another `standin events run`"), "{said}");
    let output = output_within(events(&protected).args(["test"]), COMMAND_MAX);
    let said = describe(&output);
    assert!(output.status.code() == Some(2) && said.contains("The hook has failed, exit code 7"), "{said}");
    hooks.stop();
    protected.stop();
}

#[test]
fn a_follower_hears_of_daemons_that_come_and_go() {
    let mut protected = Protected::prepare(Setup::default());
    let file = protected.base.path().join("followed");
    let mut command = events(&protected);
    command.args(["follow", "--json"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "out=$1; shift; exec \"$@\" > \"$out\"", "sh"]).arg(&file);
    shell.arg(command.get_program()).args(command.get_args());
    let mut follower = Daemon::spawn(shell);
    std::thread::sleep(Duration::from_secs(2));
    let told = Told(file);
    protected.start_again();
    told.wait_for("once", "daemon_started");
    protected.kill9();
    told.wait_for("begin", "daemon_gone");
    protected.start_again();
    told.wait_for("end", "daemon_gone");
    protected.stop();
    told.wait_for("once", "daemon_ended");
    follower.signal(libc::SIGTERM);
    follower.wait(STOP_MAX);
}

/// The process that is the runner of a hook, child of `events run`.
fn runner(of: &Daemon) -> rustix::process::Pid {
    let children = format!("/proc/{0}/task", of.pid());
    let found = || {
        let tasks = fs::read_dir(&children).ok()?;
        let all = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
        all.collect::<Vec<_>>().join(" ").split_whitespace().next()?.parse().ok()
    };
    wait_until("a runner", || found().is_some());
    rustix::process::Pid::from_raw(found().expect("a runner")).expect("a process")
}

/// Nothing was called any more, nothing was logged, and the pulse went on.
#[test]
fn a_hook_that_nobody_can_end_fails_and_others_are_called() {
    let mut protected = Protected::start(Setup::default());
    let called = protected.base.path().join("called");
    let hook = format!("echo >> {}; sleep 600", called.display());
    let hooks = Hooks::start(&protected, &["--hook", hook.as_str(), "--timeout", "1s"]);
    does(&protected, &["connection", "pause"]);
    wait_until("a call", || !lines(&called).is_empty());
    rustix::process::kill_process(runner(&hooks.daemon), rustix::process::Signal::STOP).expect("it is there");
    wait_until("why", || hooks.daemon.said().contains("does not answer"));
    // By a new runner, and the shell of the old one is gone.
    wait_until("called again", || lines(&called).len() > 1);
    hooks.stop();
    protected.stop();
}

/// As on a server that is gone: SIGKILL waits until the file system goes on.
#[test]
fn a_hook_that_hangs_in_the_kernel_stops_no_other_one() {
    struct Frozen(PathBuf);
    impl Drop for Frozen {
        fn drop(&mut self) {
            let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).status();
        }
    }
    crate::host::require_program("fsfreeze");
    let mut protected = Protected::start(Setup::default());
    let disk = protected.base.path().join("disk");
    let image = crate::host::Image::mount(protected.base.path(), disk.clone(), "ext4", 16);
    crate::host::run(Command::new("fsfreeze").arg("-f").arg(&disk));
    let frozen = Frozen(disk.clone());
    let beats = protected.base.path().join("beats");
    let (hook, alive) = (format!("echo > {}/x", disk.display()), format!("echo >> {}", beats.display()));
    let arguments = ["--hook", &hook, "--timeout", "1s", "--alive", &alive, "--every", "300ms"];
    let hooks = Hooks::start(&protected, &arguments);
    wait_until("a beat", || !lines(&beats).is_empty());
    does(&protected, &["connection", "pause"]);
    wait_until("why", || hooks.daemon.said().contains("cannot be killed"));
    wait_until("silence", || hooks.daemon.said().contains("is not run: the hook fails"));
    let output = output_within(events(&protected).args(["test"]), COMMAND_MAX);
    assert!(describe(&output).contains("cannot be killed"), "{}", describe(&output));
    drop(frozen);
    // It was mended: whoever tries it hears so, and the pulse is back.
    does(&protected, &["events", "test"]);
    let before = lines(&beats).len();
    wait_until("beats", || lines(&beats).len() > before + 1);
    hooks.stop();
    drop(image);
    protected.stop();
}

/// The calls of a hook that was taken away kept the pulse from ever coming back.
#[test]
fn without_a_hook_nothing_of_it_counts() {
    let mut protected = Protected::start(Setup::default());
    let beats = protected.base.path().join("beats");
    let alive = format!("echo >> {}", beats.display());
    let pulse = ["--alive", alive.as_str(), "--every", "300ms"];
    let hooks = Hooks::start(&protected, &["--hook", "exit 3"]);
    does(&protected, &["connection", "pause"]);
    wait_until("it fails", || hooks.daemon.said().contains("it is called again"));
    hooks.stop();
    let hooks = Hooks::start(&protected, &pulse);
    wait_until("beats", || lines(&beats).len() > 1);
    let said = hooks.daemon.said();
    assert!(!said.contains("the hook"), "{said}");
    hooks.stop();
    protected.stop();
}

/// Killed, and not to come back: its socket is all that is left, and kept the pulse away for ever.
#[test]
fn a_daemon_that_was_killed_can_be_forgotten() {
    let mut protected = Protected::start(Setup::default());
    let beats = protected.base.path().join("beats");
    let alive = format!("echo >> {}", beats.display());
    let left = protected.run.join("two.sock");
    drop(std::os::unix::net::UnixListener::bind(&left).expect("a socket"));
    let expected = [
        vec!["--forget", "two"],
        vec!["--expect", protected.mount.file_name().and_then(|name| name.to_str()).expect("a name")],
    ];
    for more in expected {
        let hooks = Hooks::start(&protected, &["--alive", alive.as_str(), "--every", "300ms"]);
        wait_until("why", || hooks.daemon.said().contains("two has ended without a word"));
        hooks.stop();
        let arguments = [&["--alive", alive.as_str(), "--every", "300ms"], more.as_slice()].concat();
        let hooks = Hooks::start(&protected, &arguments);
        let before = lines(&beats).len();
        wait_until("beats", || lines(&beats).len() > before + 1);
        hooks.stop();
        fs::remove_dir_all(protected.state.join(".events")).expect("removed");
    }
    fs::remove_file(left).expect("removed");
    protected.stop();
}

/// As `logrotate` does it; and whoever said `nohup` has said that SIGHUP is no end.
#[test]
fn a_file_of_events_that_was_moved_is_begun_anew() {
    let mut protected = Protected::start(Setup::default());
    let hooks = Hooks::start(&protected, &[]);
    let moved = protected.base.path().join("events.1");
    fs::rename(&hooks.told.0, &moved).expect("moved");
    hooks.daemon.signal(libc::SIGHUP);
    wait_until("a new file", || hooks.told.0.exists());
    does(&protected, &["connection", "pause"]);
    hooks.told.wait_for("begin", "connection_paused");
    hooks.stop();
    // A damaged book is put aside.
    fs::write(protected.state.join(".events/book.json"), "").expect("a file");
    let hooks = Hooks::start(&protected, &[]);
    // Its log comes by another pipe than `ready`.
    wait_until("it says so", || hooks.daemon.said().contains("is damaged"));
    hooks.stop();
    protected.stop();
}

#[test]
fn nohup_is_heeded() {
    crate::host::require_program("script");
    crate::host::require_program("nohup");
    let mut protected = Protected::start(Setup::default());
    let (run, state) = (protected.run.display(), protected.state.display());
    let file = protected.base.path().join("events.jsonl");
    let binary = crate::host::binary();
    let typed = format!(
        "echo $$ > {0}; exec nohup {1} --run {run} --state {state} events run --events-file {2}",
        protected.base.path().join("pid").display(),
        binary.display(),
        file.display()
    );
    let mut command = Command::new("script");
    command.args(["--quiet", "--flush", "--return", "--command", &typed, "/dev/null"]);
    command.current_dir(protected.base.path());
    let mut terminal = Daemon::spawn(command);
    let pid = || fs::read_to_string(protected.base.path().join("pid")).ok()?.trim().parse().ok();
    wait_until("it works", || file.exists() && pid().is_some());
    let pid = rustix::process::Pid::from_raw(pid().expect("a process")).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("it is there");
    does(&protected, &["connection", "pause"]);
    Told(file).wait_for("begin", "connection_paused");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
    assert!(terminal.wait(STOP_MAX).is_some_and(|status| status.success()), "{}", terminal.said());
    protected.stop();
}

/// `| head -1` went on for ever behind it.
#[test]
fn what_goes_on_ends_with_its_reader() {
    use std::process::Stdio;
    let mut protected = Protected::start(Setup::default());
    for arguments in [&["status", "--watch"][..], &["status", "--watch", "--json"], &["events", "follow"]] {
        let mut command = standin(&protected.run);
        command.arg("--state").arg(&protected.state).args(arguments).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().expect("it is started");
        drop(child.stdout.take());
        let mut ended = None;
        wait_until("its end", || {
            ended = child.try_wait().expect("it is ours");
            ended.is_some()
        });
        assert!(ended.is_some_and(|status| status.success()), "{arguments:?}: {ended:?}");
    }
    // What could not be said was not done well.
    for arguments in [&["status", "--json"][..], &["events", "list"], &["status", "--watch"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
        let mut command = standin(&protected.run);
        command.arg("--state").arg(&protected.state).args(arguments).stdout(full);
        let mut child = command.stderr(Stdio::null()).spawn().expect("it is started");
        let mut ended = None;
        wait_until("its end", || {
            ended = child.try_wait().expect("it is ours");
            ended.is_some()
        });
        assert_eq!(ended.and_then(|status| status.code()), Some(2), "{arguments:?}");
    }
    protected.stop();
}
