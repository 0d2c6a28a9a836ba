//! Drills that stay open: what is in them, who gets in, and what is left of them.

use std::io::Write;

use super::*;
use crate::host::{Daemon, SYNC_MAX};
use crate::stand_in::Scene;

fn started(pair: &Pair, code: i32, arguments: &[&str]) -> Output {
    let output = drill(pair, &[&["start", "--at", &at(pair)], arguments].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", describe(&output));
    output
}

/// What a command in the drill says, and its exit code.
fn inside(pair: &Pair, command: &[&str]) -> (Option<i32>, String) {
    let output = drill(pair, &[&["shell", "--"], command].concat());
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn listed(pair: &Pair) -> Value {
    let output = drill(pair, &["list", "--json"]);
    assert!(output.status.success(), "{}", describe(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The process that is an open drill, by its record.
fn process(state: &Path) -> Pid {
    let record = fs::read(state.join(".drills/running.json")).expect("a record");
    let record: Value = serde_json::from_slice(&record).expect("JSON");
    Pid::from_raw(record["command"][0].as_i64().expect("a number") as i32).expect("a process")
}

#[test]
fn a_drill_stays_open_until_it_is_stopped() {
    let _alone = heavy();
    let pair = filled();
    let mark = format!("drill-mark-{}-open", std::process::id());
    let writes = "dd if=/dev/zero of=services bs=1M count=4 conv=fsync status=none";
    let service = format!("MARK={mark} sh -c '{writes}; sleep 1000 & wait' & sleep .1; echo begun > begun");
    let told = pair.state("source").join("told");
    let (stop, after) =
        ("test -f visited && echo over", format!("echo $STANDIN_DRILL_VERDICT > {}", told.display()));
    let said = started(
        &pair,
        0,
        &[
            "--start",
            &service,
            "--ready",
            "test -f begun && test $(stat -c %s services) = 4194304",
            "--stop",
            stop,
            "--after",
            &after,
        ],
    );
    assert!(describe(&said).contains("Drill 1 of web is open"), "{}", describe(&said));
    assert!(!processes_of(&mark).is_empty());
    refused_while_running(&pair);
    let list = listed(&pair);
    assert!(list["open"] == true && list["running"]["number"] == 1, "{list}");
    assert!(describe(&drill(&pair, &["list"])).contains("  open "));
    visitors_are_isolated(&pair);
    let writes = "dd if=/dev/zero of=visitors bs=1M count=8 conv=fsync status=none; exit $?";
    assert_eq!(inside(&pair, &["sh", "-c", writes]).0, Some(0));
    let terminal =
        with_a_terminal(&pair, "echo \"there $(tty) $STANDIN_DRILL_SET\"; touch visited; exit 5\n");
    assert_eq!(terminal.status.code(), Some(5), "{}", describe(&terminal));
    let said = String::from_utf8_lossy(&terminal.stdout).into_owned();
    assert!(said.contains("there /dev/pts/") && said.contains(" web"), "{said}");
    let ended = drill(&pair, &["stop", "--json"]);
    assert!(ended.status.success(), "{}", describe(&ended));
    let mut report: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
    let report = report["report"].take();
    println!("{report}");
    assert_eq!(
        (&report["verdict"], &step(&report, &"open".into())["outcome"]),
        (&"opened".into(), &"done".into())
    );
    assert_eq!(step(&report, &"stop".into())["ended"]["output"], "over\n");
    assert!(report["usable_after_ms"].is_u64(), "{report}");
    let written = report["clone"]["bytes_written"].as_u64().expect("a number");
    // Of the service 4 MiB, of a visitor 8, and what the file system notes.
    assert!((12 << 20..14 << 20).contains(&written), "{written}");
    assert_eq!(fs::read_to_string(&told).expect("it was told"), "opened\n");
    assert!(processes_of(&mark).is_empty());
    assert_nothing_left(&pair);
    for command in [&["stop"][..], &["shell", "--", "true"]] {
        refused(&pair, command, "No drill is open");
    }
    pair.assert_in_sync(&Rules { hole_slack: 64 * 1024, ..Rules::default() });
}

/// Whoever comes from outside has no more than the drill's own commands, and gives its streams and exit code on.
fn visitors_are_isolated(pair: &Pair) {
    assert_eq!(inside(pair, &["sh", "-c", "cat known; exit 7"]), (Some(7), "as it was".into()));
    assert_eq!(inside(pair, &["sh", "-c", "kill -9 $$"]).0, Some(137));
    assert_eq!(inside(pair, &["no-such-program"]).0, Some(126));
    let (_, place) = inside(pair, &["sh", "-c", "pwd; echo $STANDIN_DRILL_SET"]);
    assert_eq!(place, format!("{}\nweb\n", at(pair)));
    let of = "cat /proc/self/status | grep -E '^(Cap(Bnd|Prm|Eff|Inh)|Seccomp):'; ls -l /proc/self/ns | sed 's/.*-> //'";
    // Of the commands that the drill itself runs.
    let own = ran_beside(of);
    let (code, visitor) = inside(pair, &["sh", "-c", of]);
    assert_eq!(code, Some(0));
    for kind in ["ipc", "mnt", "net", "pid", "uts"] {
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace").display().to_string();
        assert!(visitor.contains(&format!("{kind}:[")) && !visitor.contains(&host), "{kind}: {visitor}");
    }
    let first = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).expect("a line");
        line.split_whitespace().nth(1).expect("a value").to_owned()
    };
    for bits in ["CapBnd:", "CapPrm:", "CapEff:"] {
        assert_ne!(first(&visitor, bits), first(&own, bits), "{bits} those of the host's root");
    }
    assert_eq!(
        (first(&visitor, "CapInh:").as_str(), first(&visitor, "Seccomp:").as_str()),
        ("0000000000000000", "2")
    );
    let report = listed(pair)["running"].take();
    assert_eq!(report["isolation"]["capabilities"].as_str(), Some(first(&visitor, "CapBnd:").as_str()));
    for way_out in [
        "mount -t tmpfs none /tmp",
        "echo x > /etc/standin-drill-outside",
        "unshare -Ur true",
        "ls /proc/1/root/",
        "readlink /proc/1/fd/0",
        "nsenter -t 1 -m true",
    ] {
        assert_ne!(inside(pair, &["sh", "-c", way_out]).0, Some(0), "{way_out}");
    }
    let mut command = pair.daemon("target");
    command.args(["drill", "shell", "--", "sh", "-c", "cat; sleep 100 & ls -l /proc/self/fd | grep -c pipe"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let many = "many words\n".repeat(100_000);
    let mut typed = child.stdin.take().expect("piped");
    let reader = std::thread::spawn(move || child.wait_with_output().expect("it ends"));
    typed.write_all(many.as_bytes()).expect("it reads");
    drop(typed);
    let output = reader.join().expect("a thread");
    // What it leaves running holds nobody up.
    assert_eq!(String::from_utf8_lossy(&output.stdout), many + "3\n");
    refused(pair, &["shell"], "needs a terminal");
    // A descriptor of the host, as somebody has it open who types the command.
    let mut shell = pair.daemon("target");
    shell.args(["drill", "shell", "--", "sh", "-c", "test ! -e /proc/self/fd/9"]);
    let words: Vec<&std::ffi::OsStr> = std::iter::once(shell.get_program()).chain(shell.get_args()).collect();
    let mut command = Command::new("sh");
    command.args(["-c", "exec 9< /etc/passwd; exec \"$@\"", "sh"]).args(words);
    let output = output_within(&mut command, COMMAND_MAX);
    assert!(output.status.success(), "{}", describe(&output));
}

fn ran_beside(command: &str) -> String {
    let output = output_within(Command::new("sh").args(["-c", command]), COMMAND_MAX);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Typed at a terminal.
fn with_a_terminal(pair: &Pair, typed: &str) -> Output {
    require_program("python3");
    let mut shell = pair.daemon("target");
    shell.args(["drill", "shell"]);
    let words: Vec<&std::ffi::OsStr> = std::iter::once(shell.get_program()).chain(shell.get_args()).collect();
    // A terminal whose other side types, and says all that comes.
    let play = "import os, pty, sys, time
pid, terminal = pty.fork()
if pid == 0: os.execvp(sys.argv[2], sys.argv[2:])
time.sleep(1)
os.write(terminal, sys.argv[1].encode())
while True:
    try: part = os.read(terminal, 4096)
    except OSError: break
    if not part: break
    os.write(1, part)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))";
    let mut command = Command::new("python3");
    command.args(["-c", play, typed]).args(words).env("SHELL", "/bin/sh");
    output_within(&mut command, COMMAND_MAX)
}

#[test]
fn an_open_drill_that_is_killed_is_cleaned_up_by_the_next_command() {
    let pair = filled();
    let mark = format!("drill-mark-{}-killed", std::process::id());
    for (round, next) in (1..).zip([&["list"][..], &["stop"], &["shell", "--", "true"], &["report"]]) {
        started(&pair, 0, &["--start", &format!("MARK={mark} sleep 1000 &")]);
        let visitor = format!("MARK={mark} exec sleep 1000");
        let mut command = pair.daemon("target");
        command.args(["drill", "shell", "--", "sh", "-c", &visitor]).stdin(Stdio::null());
        let mut visitor = command.spawn().expect("it runs");
        wait_until("somebody is in there", || processes_of(&mark).len() == 2);
        rustix::process::kill_process(process(&pair.state("target")), Signal::KILL).expect("it runs");
        assert_eq!(visitor.wait().expect("it ends").code(), Some(137));
        wait_until("nothing of it runs", || processes_of(&mark).is_empty());
        drill(&pair, next);
        let list = listed(&pair);
        assert_eq!(list["drills"][round - 1]["report"]["verdict"], "interrupted", "{list}");
        assert_nothing_left(&pair);
    }
    // One that does not come to be open has ended, and its command says how.
    let failed = started(&pair, 1, &["--start", "echo nothing to serve; exit 3", "--stop", "true"]);
    assert!(describe(&failed).contains("| nothing to serve"), "{}", describe(&failed));
    refused(&pair, &["start", "--at", &at(&pair), "--check", "true"], "runs no checks");
    refused(&pair, &["start", "--at", "/usr"], "nothing would run");
    let mut command = pair.daemon("target");
    command.args(["drill", "start", "--at", &at(&pair), "--start", &format!("MARK={mark} sleep 1000")]);
    let mut starter = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    wait_until("it begins", || !processes_of(&mark).is_empty());
    starter.kill().expect("it runs");
    starter.wait().expect("it ends");
    wait_until("it has ended with who started it", || {
        processes_of(&mark).is_empty() && !pair.state("target").join(".drills/running.json").exists()
    });
    assert_nothing_left(&pair);
    pair.assert_in_sync(&Rules { hole_slack: 64 * 1024, ..Rules::default() });
}

/// Whatever the drill is at, its end is a matter of seconds.
#[test]
fn a_failover_goes_first() {
    let mut scene = Scene::with_a_source(&[]);
    let Scene { old, new, .. } = &mut scene;
    let mark = format!("drill-mark-{}-failover", std::process::id());
    let begin = |arguments: &[&str]| {
        let mut command = new.target_command();
        command.args(["drill", "start", "web", "--at", "/standin-drill-failover/web"]).args(arguments);
        let output = output_within(&mut command, SYNC_MAX);
        assert!(output.status.success(), "{}", describe(&output));
    };
    begin(&["--start", &format!("MARK={mark} sleep 1000 &"), "--stop", &format!("MARK={mark} sleep 1000")]);
    crate::pair::kill(old.protect.as_mut().expect("it runs"));
    old.protect = None;
    crate::host::clear_mounts(&old.at.join("mount"));
    let mut command = new.target_command();
    command.args(["failover", "web", "--at"]).arg(new.at.join("mount"));
    wait_until("the source is gone", || {
        output_within(
            new.target_command().args(["failover", "web", "--dry-run", "--at"]).arg(new.at.join("mount")),
            SYNC_MAX,
        )
        .status
        .success()
    });
    assert!(!processes_of(&mark).is_empty(), "a dry run ends nothing");
    let begun = Instant::now();
    let mut daemon = Daemon::spawn({
        command.arg("--yes");
        command
    });
    wait_until("the drill is gone", || processes_of(&mark).is_empty());
    let took = begun.elapsed();
    println!("it took {took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    daemon.wait_ready();
    assert!(daemon.said().contains("drill 1 of this replica was ended"), "{}", daemon.said());
    let list = output_within(new.target_command().args(["drill", "list", "--json"]), COMMAND_MAX);
    let list: Value = serde_json::from_slice(&list.stdout).expect("JSON");
    assert_eq!(list["drills"][0]["report"]["verdict"], "interrupted", "{list}");
    crate::stand_in::Side::stop(&mut Some(daemon));
}
