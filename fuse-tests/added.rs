//! `standin connection add`: another target while programs work, over kills and restarts; what cannot be one is
//! refused, and all goes on as before.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::AtomicU64;

use serde_json::Value;

use crate::connections::{under_load, wait_for_rounds};
use crate::host::{
    COMMAND_MAX, Daemon, Protected, SYNC_MAX, Setup, clear_mounts, describe, output_within, standin,
    wait_until,
};
use crate::pair::kill;
use crate::tree::{self, Rules};

fn add(run: &Path, arguments: &[&str]) -> Output {
    output_within(standin(run).args(["connection", "add"]).args(arguments), COMMAND_MAX)
}

#[track_caller]
fn must(output: &Output) -> String {
    assert!(output.status.success(), "{}", describe(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn connections(run: &Path) -> Vec<Value> {
    let listed = output_within(standin(run).args(["--json", "connection", "list"]), COMMAND_MAX);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    listed["connections"].as_array().expect("connections").clone()
}

#[track_caller]
fn wait_complete(run: &Path, count: usize) {
    wait_until("every target is in line", || {
        let all = connections(run);
        all.len() == count
            && all.iter().all(|one| one["mirror"]["phase"] == "complete" && one["data"] == "good")
    });
}

/// More than a first copy has moved when it is looked at.
fn fill(mount: &Path, files: usize) {
    for number in 0..files {
        let dir = mount.join(format!("dir{}", number % 20));
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join(format!("file{number}")), vec![number as u8; 20_000]).expect("a file");
    }
}

fn local(path: &Path) -> String {
    format!("local:{}", path.display())
}

#[track_caller]
fn assert_all_same(protected: &Protected, replicas: &[&Path]) {
    protected.wait_sync();
    for replica in replicas {
        let seen = tree::assert_same_by(&protected.backing, replica, &Rules::default());
        assert!(seen.objects > 60, "{seen:?}");
    }
}

#[test]
fn a_target_comes_while_programs_work_and_stays() {
    let mut protected = Protected::start(Setup::default());
    let (run, mount) = (protected.run.clone(), protected.mount.clone());
    let second = protected.base.path().join("second");
    fill(&mount, 400);
    under_load(&mount, |rounds: &AtomicU64| {
        wait_for_rounds(rounds, 50);
        let said = must(&add(&run, &[&local(&second)]));
        assert!(said.contains("Connection 2") && said.contains("stays over a restart"), "{said}");
        wait_for_rounds(rounds, 50);
        wait_complete(&run, 2);
        wait_for_rounds(rounds, 50);
    });
    assert_all_same(&protected, &[&protected.replica, &second]);
    // Nobody names it, and it is there.
    let uuid = connections(&run)[1]["uuid"].clone();
    protected.stop();
    protected.start_again();
    wait_complete(&run, 2);
    assert_eq!(connections(&run)[1]["uuid"], uuid);
    fs::write(mount.join("after"), "x").expect("a file");
    assert_all_same(&protected, &[&protected.replica, &second]);
    // The first one goes: the other one carries on by itself.
    must(&output_within(standin(&run).args(["connection", "disconnect", "1"]), COMMAND_MAX));
    fs::write(mount.join("after the first"), "x").expect("a file");
    assert_all_same(&protected, &[&second]);
    assert!(!protected.replica.join("after the first").exists());
    // What a person has taken away stays away, unless a start names it.
    must(&output_within(standin(&run).args(["connection", "disconnect", "2"]), COMMAND_MAX));
    protected.stop();
    protected.start_again();
    let left = connections(&run);
    assert_eq!((left.len(), &left[0]["target"]), (1, &Value::from(local(&protected.replica))), "{left:?}");
    // Added again, what is there is compared, and goes on.
    fs::remove_file(mount.join("after")).expect("a file");
    must(&add(&run, &[&local(&second)]));
    wait_complete(&run, 2);
    assert_all_same(&protected, &[&protected.replica, &second]);
}

/// Until it is a target for good it is none at the next start; what it has got is not in the way.
#[test]
fn killed_while_one_is_added() {
    let mut protected = Protected::start(Setup::default());
    let (run, mount) = (protected.run.clone(), protected.mount.clone());
    let second = protected.base.path().join("second");
    fill(&mount, 600);
    protected.wait_sync();
    for round in 0..8 {
        let mut adding = standin(&run);
        adding.args(["connection", "add", &local(&second)]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut adding = adding.spawn().expect("standin");
        std::thread::sleep(std::time::Duration::from_millis(20 * round));
        protected.kill9();
        adding.wait().expect("it ends");
        clear_mounts(&mount);
        protected.start_again();
        fs::write(mount.join(format!("round{round}")), "x").expect("a file");
        protected.wait_sync();
    }
    if connections(&run).len() == 1 {
        must(&add(&run, &[&local(&second)]));
    }
    wait_complete(&run, 2);
    assert_all_same(&protected, &[&protected.replica, &second]);
}

#[test]
fn what_cannot_be_a_target_changes_nothing() {
    let protected = Protected::start(Setup::default());
    let (run, mount) = (protected.run.clone(), protected.mount.clone());
    fs::write(mount.join("file"), "x").expect("a file");
    let base = protected.base.path().to_owned();
    let foreign = base.join("foreign");
    fs::create_dir(&foreign).expect("a directory");
    fs::write(foreign.join("precious"), "theirs").expect("a file");
    let alias = base.join("alias");
    fs::create_dir(&alias).expect("a directory");
    let bound = Command::new("mount").arg("--bind").arg(&protected.backing).arg(&alias).status();
    assert!(bound.expect("mount").success());
    let refused = [
        (local(&protected.replica), "is a target already, by connection 1"),
        (local(&foreign), "is not empty"),
        (local(&mount.join("inside")), "is inside"),
        (local(&protected.replica.join("inside")), "is inside"),
        (local(&protected.backing.join("inside")), "is inside"),
        (local(&alias.join("inside")), "is inside"),
        (local(&base.join("missing/replica")), "is no directory"),
        ("null:".into(), "sends nothing"),
        ("standin://127.0.0.1:9/web".into(), "is not paired with"),
    ];
    let outputs: Vec<_> =
        refused.iter().map(|(target, words)| (target, words, add(&run, &[target]))).collect();
    let unbound = Command::new("umount").arg(&alias).status();
    assert!(unbound.expect("umount").success());
    for (target, words, output) in outputs {
        let said = describe(&output);
        assert_eq!(output.status.code(), Some(2), "{target}: {said}");
        assert!(said.contains(words) && said.contains("go on as before"), "{target}: {said}");
    }
    assert_eq!(connections(&run).len(), 1);
    assert_eq!(fs::read(foreign.join("precious")).expect("theirs"), b"theirs");
    assert!(!base.join("missing").exists());
    let said = must(&add(&run, &[&local(&foreign), "--adopt"]));
    assert!(said.contains("is there"), "{said}");
    wait_complete(&run, 2);
    tree::assert_same_by(&protected.backing, &foreign, &Rules::default());
}

/// A daemon on this host that a source which knew no other host is paired with.
struct Served {
    daemon: Option<Daemon>,
    command: Box<dyn Fn() -> Command>,
    target: String,
    replica: PathBuf,
}

impl Served {
    fn pair(protected: &Protected) -> Served {
        let base = protected.base.path().to_owned();
        let free = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = free.expect("a free port").port();
        let root = base.join("root");
        let (run, state) = (base.join("target-run"), base.join("target-state"));
        for dir in [&root, &run] {
            fs::create_dir(dir).expect("a directory");
        }
        let on_target = move || {
            let mut command = standin(&run);
            command.arg("--state").arg(&state);
            command
        };
        let (of_daemon, served) = (on_target.clone(), root.clone());
        let command = Box::new(move || {
            let mut command = of_daemon();
            command.arg("serve").arg("--root").arg(&served).args(["--allow", "device,setuid,security"]);
            command.args(["--listen", &format!("127.0.0.1:{port}")]);
            command
        });
        let target = format!("standin://127.0.0.1:{port}/web");
        let mut served = Served { daemon: None, command, target, replica: root.join("web") };
        served.serve();
        let invited = output_within(on_target().args(["invite", "web"]), COMMAND_MAX);
        assert!(invited.status.success(), "{}", describe(&invited));
        let mut command = standin(&protected.run);
        command.arg("--state").arg(&protected.state).args(["pair", &served.target]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("standin pair");
        child.stdin.take().expect("piped").write_all(&invited.stdout).expect("it reads the token");
        assert!(child.wait().expect("it ends").success());
        served
    }

    fn serve(&mut self) {
        let mut daemon = Daemon::spawn((self.command)());
        daemon.wait_ready();
        self.daemon = Some(daemon);
    }

    fn kill(&mut self) {
        self.daemon.take().iter_mut().for_each(kill);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn a_host_comes_and_one_that_does_not_answer_does_not() {
    let mut protected = Protected::start(Setup::default());
    let (run, mount) = (protected.run.clone(), protected.mount.clone());
    fill(&mount, 200);
    let mut served = Served::pair(&protected);
    served.kill();
    let output = add(&run, &[&served.target]);
    let said = describe(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot be reached") && said.contains("go on as before"), "{said}");
    assert_eq!(connections(&run).len(), 1);
    served.serve();
    under_load(&mount, |rounds| {
        wait_for_rounds(rounds, 20);
        must(&add(&run, &[&served.target]));
        wait_complete(&run, 2);
        // One that is away holds up neither the other one nor programs, nor the next start.
        served.kill();
        wait_for_rounds(rounds, 100);
    });
    protected.stop_incomplete_by(libc::SIGTERM);
    protected.start_at_once();
    fs::write(mount.join("while it is away"), "x").expect("a file");
    wait_until("the other one has it", || protected.replica.join("while it is away").exists());
    served.serve();
    wait_complete(&run, 2);
    let waited = output_within(standin(&run).args(["wait-sync", "--timeout", "120s"]), SYNC_MAX);
    assert!(waited.status.success(), "{}{}", describe(&waited), protected.said());
    assert_all_same(&protected, &[&protected.replica, &served.replica]);
}

/// Nobody's sync waits for the first copy of a target that has just come, and as soon as it is in line all do.
#[test]
fn syncs_wait_for_a_target_from_its_first_copy_on() {
    let arguments = vec!["--fsync=target", "--fsync-timeout", "20s"];
    let protected = Protected::start(Setup { arguments, ..Setup::default() });
    let (run, mount) = (protected.run.clone(), protected.mount.clone());
    fill(&mount, 1500);
    let second = protected.base.path().join("second");
    must(&add(&run, &[&local(&second)]));
    let mut synced = 0;
    while connections(&run)[1]["data"] != "good" {
        let mut file = fs::File::create(mount.join("synced")).expect("a file");
        file.write_all(b"x").expect("a write");
        file.sync_all().expect("a sync");
        synced += 1;
    }
    eprintln!("{synced} syncs during the copy");
    wait_complete(&run, 2);
    for number in 0..20 {
        let path = mount.join(format!("both{number}"));
        let mut file = fs::File::create(path).expect("a file");
        file.write_all(b"both").expect("a write");
        file.sync_all().expect("a sync");
        for replica in [&protected.replica, &second] {
            assert_eq!(fs::read(replica.join(format!("both{number}"))).expect("it is there"), b"both");
        }
    }
}
