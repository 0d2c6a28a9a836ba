//! One configuration: started from files, shown, compared, read anew while it runs; what is wrong changes nothing.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::config_files;
use crate::host::{
    COMMAND_MAX, Daemon, Protected, STOP_MAX, Setup, binary, describe, dir_on_disk, is_mounted,
    output_within, require_host, require_program, standin, wait_in_line, wait_until,
};

/// A set that is started by its name alone.
struct Web {
    daemon: Option<Daemon>,
    places: Protected,
}

impl Web {
    /// `more`: what stands in its file beside the directory and the target.
    fn start(more: &str) -> Web {
        let places = Protected::prepare(Setup::default());
        fs::create_dir(places.state.join("sets")).expect("a directory");
        let mut web = Web { daemon: None, places };
        web.write(&format!("{}{more}", web.first()));
        web.start_again();
        web
    }

    fn start_again(&mut self) {
        let mut daemon = Daemon::spawn(self.command(&["protect", "web"]));
        daemon.wait_ready();
        assert!(is_mounted(&self.places.mount), "{}", daemon.said());
        self.daemon = Some(daemon);
        wait_in_line(|| standin(&self.places.run), || self.said());
    }

    fn first(&self) -> String {
        let Protected { mount, backing, replica, .. } = &self.places;
        format!("dir = {mount:?}\nbacking = {backing:?}\nto = \"local:{}\"\n", replica.display())
    }

    fn file(&self) -> PathBuf {
        self.places.state.join("sets/web.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), text).expect("a file");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = standin(&self.places.run);
        command.arg("--state").arg(&self.places.state).args(arguments);
        command
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        output_within(&mut self.command(arguments), COMMAND_MAX)
    }

    #[track_caller]
    fn told(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(output.status.success(), "{arguments:?}: {}{}", describe(&output), self.said());
        describe(&output)
    }

    #[track_caller]
    fn json(&self, arguments: &[&str], code: i32) -> Value {
        let output = self.ask(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}{}", describe(&output), self.said());
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&self.ask(&["status", "--json"]).stdout).expect("JSON")
    }

    /// What holds in the daemon, without what its file says.
    fn in_force(&self) -> Value {
        let shown = self.json(&["config", "show", "web", "--json"], 0);
        assert_eq!(shown["configurations"][0]["running"], true, "{shown}");
        shown["configurations"][0]["settings"].clone()
    }

    fn said(&self) -> String {
        self.daemon.as_ref().map(Daemon::said).unwrap_or_default()
    }

    #[track_caller]
    fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.signal(libc::SIGTERM);
        let status = daemon.wait(STOP_MAX);
        assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", daemon.said());
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal(libc::SIGTERM);
            daemon.signal(libc::SIGTERM);
            daemon.wait(STOP_MAX);
        }
    }
}

/// The value of an option in what was shown, and where it was said.
#[track_caller]
fn shown(settings: &Value, key: &str) -> (Value, Value) {
    let all = settings.as_array().expect("settings");
    let one = all.iter().find(|setting| setting["key"] == key).unwrap_or_else(|| panic!("no {key}"));
    (one["values"].clone(), one["from"].clone())
}

#[test]
fn a_set_lives_by_its_file() {
    let mut web = Web::start("limit = \"8M\"\nqueue_memory = \"64M\"\n");
    assert!(web.told(&["config", "check"]).contains("web.toml: good"));
    let settings = web.in_force();
    let (value, from) = shown(&settings, "queue_memory");
    assert_eq!((value, from["file"]["line"].as_u64()), (serde_json::json!(["64M"]), Some(5)));
    assert_eq!(shown(&settings, "profile").1, "default");
    fs::write(web.places.mount.join("a"), "a").expect("written");
    web.told(&["wait-sync", "web"]);
    assert_eq!(web.json(&["config", "diff", "web", "--json"], 0)["reload"], serde_json::json!([]));

    // Live, and not: one reading, and nothing by itself.
    let text = format!(
        "{}# by Anna\nlimit = \"16M\"\ncompression = 1\nschedule = \"at=2099-12-31 23:59\"\nqueue_memory = \
         \"96M\"\n\n[[rule]]\nexclude = \"*.tmp\" # scratch\n",
        web.first()
    );
    web.write(&text);
    let diff = web.json(&["config", "diff", "web", "--json"], 1);
    let keys = |value: &Value| -> Vec<String> {
        let all = value.as_array().expect("changes").iter();
        all.map(|change| change["key"].as_str().expect("a key").to_owned()).collect()
    };
    assert_eq!(keys(&diff["reload"]), ["schedule", "limit", "compression", "rule"]);
    assert_eq!(keys(&diff["restart"]), ["queue_memory"]);
    assert!(web.status()["connections"][0]["schedule"].is_null(), "nothing was told to follow");
    let waits = || web.status()["alerts"].to_string();
    wait_until("said", || waits().contains("otherwise of queue_memory, schedule, limit, compression, rule"));
    let report = web.json(&["reload", "web", "--json"], 0);
    assert_eq!(keys(&report["changed"]), ["schedule", "limit", "compression", "rule"]);
    assert_eq!(keys(&report["restart"]), ["queue_memory"]);
    wait_until("said", || waits().contains("otherwise of queue_memory:"));
    wait_until("scheduled", || web.status()["connections"][0]["state"] == "scheduled");
    let connection = &web.status()["connections"][0];
    assert_eq!(connection["schedule"]["from"], "file", "{connection}");
    assert_eq!(shown(&web.in_force(), "queue_memory").0, serde_json::json!(["64M"]));
    assert_eq!(keys(&web.json(&["config", "diff", "web", "--json"], 1)["restart"]), ["queue_memory"]);

    // A person's change of the rules is a reload, and leaves what they wrote.
    web.told(&["set", "change", "web", "--exclude", "*.log"]);
    let now = fs::read_to_string(web.file()).expect("a file");
    assert!(now.contains("# by Anna") && now.contains("# scratch") && now.contains("*.log"), "{now}");
    let rules = web.status()["rules"].as_array().map(Vec::len);
    assert_eq!(rules, Some(2), "{}", web.status());

    // By the signal, as systemd sends it.
    web.write(&web.first());
    web.daemon.as_ref().expect("it runs").signal(libc::SIGHUP);
    wait_until("started", || web.status()["connections"][0]["state"] == "started");
    wait_in_line(|| standin(&web.places.run), || web.said());
    assert!(is_mounted(&web.places.mount), "{}", web.said());
    web.stop();

    // What was typed stays on top.
    let mut daemon = Daemon::spawn(web.command(&["protect", "web", "--limit", "4M"]));
    daemon.wait_ready();
    web.daemon = Some(daemon);
    web.write(&format!("{}limit = \"2M\"\n", web.first()));
    assert_eq!(web.json(&["reload", "--json"], 0)["changed"], serde_json::json!([]));
    assert_eq!(shown(&web.in_force(), "limit"), (serde_json::json!(["4M"]), "command_line".into()));
    wait_in_line(|| standin(&web.places.run), || web.said());
    web.stop();
}

/// Fifty of each, by a daemon that runs: `STANDIN_SEED` says with which seed to begin.
#[test]
fn good_files_are_taken_and_bad_ones_change_nothing() {
    let web = Web::start("");
    let seed = std::env::var("STANDIN_SEED").ok().map_or(1, |seed| seed.parse().expect("a number"));
    let mut random = standin::random::Random::new(seed);
    println!("STANDIN_SEED={seed}");
    // The target may be another one in a file: that counts with the next start.
    let first = web.first().lines().next().map(str::to_owned).expect("a line");
    for round in 0..50 {
        let good = config_files::good(&mut |end| random.below(end), &first);
        web.write(&good);
        let report = web.told(&["reload", "web"]);
        let (before, rules) = (web.in_force(), web.status()["rules"].clone());
        let left =
            web.json(&["config", "diff", "web", "--json"], if report.contains("next start") { 1 } else { 0 });
        assert_eq!(left["reload"], serde_json::json!([]), "round {round}\n{good}");

        let bad = config_files::bad(&mut |end| random.below(end), &first);
        web.write(&bad);
        let output =
            if round % 2 == 0 { web.ask(&["reload", "web"]) } else { web.ask(&["reload", "web", "--json"]) };
        let said = describe(&output);
        assert_eq!(output.status.code(), Some(2), "round {round}\n{bad}\n{said}");
        let place = format!("{}:", web.file().display());
        for part in [place.as_str(), "goes on to hold", "config check"] {
            assert!(said.contains(part), "round {round}\n{bad}\n{said}");
        }
        assert_eq!(web.ask(&["config", "check", "web"]).status.code(), Some(2), "round {round}\n{bad}");
        assert_eq!(web.in_force(), before, "round {round}\n{bad}");
        assert_eq!(web.status()["rules"], rules, "round {round}\n{bad}");
    }
    assert!(is_mounted(&web.places.mount), "{}", web.said());
}

#[test]
fn a_start_from_a_bad_file_leaves_nothing() {
    let mut web = Web { daemon: None, places: Protected::prepare(Setup::default()) };
    fs::create_dir(web.places.state.join("sets")).expect("a directory");
    for (text, part) in [
        ("adopt = true\n", "decision of a moment"),
        ("limt = \"1M\"\n", "did you mean `limit`?"),
        ("queue_memory = \"1M\"\n", "web.toml:4:16"),
    ] {
        web.write(&format!("{}{text}", web.first()));
        let output = web.ask(&["protect", "web"]);
        assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
        assert!(describe(&output).contains(part), "{}", describe(&output));
        assert!(!is_mounted(&web.places.mount));
        assert_eq!(fs::read_dir(&web.places.backing).expect("a directory").count(), 0);
    }
    web.write(&web.first());
    web.start_again();
    web.stop();
}

/// Of a daemon that was started in a terminal SIGHUP says that the terminal is gone.
#[test]
fn the_end_of_a_terminal_is_a_stop() {
    require_program("script");
    let places = Protected::prepare(Setup::default());
    fs::create_dir(places.state.join("sets")).expect("a directory");
    let mut web = Web { daemon: None, places };
    web.write(&web.first());
    let (run, state) = (web.places.run.display(), web.places.state.display());
    let typed = format!("{} --run {run} --state {state} protect web", binary().display());
    // Under `nohup` the tests ignore it, and so would a daemon of theirs.
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", "script", "--quiet", "--flush", "--return"]);
    command.args(["--command", &typed, "/dev/null"]);
    web.daemon = Some(Daemon::spawn(command));
    wait_until("mounted", || is_mounted(&web.places.mount));
    wait_in_line(|| standin(&web.places.run), || web.said());
    let pid = web.status()["pid"].as_i64().expect("a process");
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("it is there");
    let mut daemon = web.daemon.take().expect("it runs");
    let status = daemon.wait(STOP_MAX);
    assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", daemon.said());
    assert!(!is_mounted(&web.places.mount), "{}", daemon.said());
}

#[test]
fn a_target_serves_from_its_file() {
    require_host();
    let base = dir_on_disk();
    let at = |name: &str| base.path().join(name);
    for dir in ["root", "run", "state"] {
        fs::create_dir(at(dir)).expect("a directory");
    }
    let command = |arguments: &[&str]| {
        let mut command = standin(&at("run"));
        command.arg("--state").arg(at("state")).args(arguments);
        command
    };
    let ask = |arguments: &[&str]| output_within(&mut command(arguments), COMMAND_MAX);
    let nothing = ask(&["serve"]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(describe(&nothing).contains("standin.toml"), "{}", describe(&nothing));
    let text = format!("[serve]\nroot = {:?}\nlisten = \"127.0.0.1:0\"\n", at("root"));
    fs::write(at("state").join("standin.toml"), &text).expect("a file");
    let mut daemon = Daemon::spawn(command(&["serve"]));
    daemon.wait_ready();
    let checked = ask(&["config", "check"]);
    assert!(checked.status.success(), "{}", describe(&checked));
    // Nothing of a target is live: it is named.
    fs::write(at("state").join("standin.toml"), format!("{text}allow = \"device\"\n")).expect("a file");
    let reloaded = ask(&["reload"]);
    assert!(reloaded.status.success(), "{}", describe(&reloaded));
    assert!(describe(&reloaded).contains("allow is device"), "{}", describe(&reloaded));
    assert!(describe(&reloaded).contains("only with the next start"), "{}", describe(&reloaded));
    let alerts = || describe(&ask(&["status", "--json"]));
    wait_until("what waits", || alerts().contains("says otherwise of allow"));
    // A link that only the start could follow.
    fs::remove_file(at("state").join("standin.toml")).expect("removed");
    fs::write(at("outside.toml"), &text).expect("a file");
    std::os::unix::fs::symlink(at("outside.toml"), at("state").join("standin.toml")).expect("a link");
    let linked = describe(&ask(&["reload"]));
    assert!(linked.contains("config check") || linked.contains("nothing is otherwise"), "{linked}");
    assert!(!linked.contains("next start is refused"), "{linked}");
    fs::remove_file(at("state").join("standin.toml")).expect("removed");
    fs::write(at("state").join("standin.toml"), "[serve]\nrot = 1\n").expect("a file");
    wait_until("a warning", || alerts().contains("the next start is refused"));
    let status = ask(&["status"]);
    assert_eq!(status.status.code(), Some(1), "{}", describe(&status));
    let refused = ask(&["reload"]);
    assert_eq!(refused.status.code(), Some(2), "{}", describe(&refused));
    daemon.signal(libc::SIGHUP);
    wait_until("said", || daemon.said().contains("the file of the daemon cannot be followed"));
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait(STOP_MAX).is_some_and(|status| status.success()), "{}", daemon.said());
}

/// Of two commands at once each read what the other one was about to write over.
#[test]
fn changes_of_many_at_once_are_all_made() {
    require_host();
    let base = dir_on_disk();
    let command = |arguments: &[&str]| {
        let mut command = standin(&base.path().join("run"));
        command.arg("--state").arg(base.path().join("state")).args(arguments);
        command
    };
    let created = output_within(&mut command(&["set", "create", "web"]), COMMAND_MAX);
    assert!(created.status.success(), "{}", describe(&created));
    let patterns: Vec<String> = (0..8).map(|number| format!("p{number}")).collect();
    std::thread::scope(|scope| {
        for pattern in &patterns {
            scope.spawn(|| {
                let mut change = command(&["set", "change", "web", "--exclude", pattern.as_str()]);
                let output = output_within(&mut change, COMMAND_MAX);
                assert!(output.status.success(), "{}", describe(&output));
            });
        }
    });
    let file = base.path().join("state/sets/web.toml");
    let text = fs::read_to_string(&file).expect("a file");
    for pattern in &patterns {
        assert!(text.contains(&format!("exclude = \"{pattern}\"")), "{pattern} is lost:\n{text}");
    }
    let left: Vec<_> = fs::read_dir(file.parent().expect("a directory")).expect("a directory").collect();
    assert_eq!(left.len(), 2, "the file and the lock: {left:?}");
}

/// "The daemon goes on with the rules of before", it said, and then the daemon did not.
#[test]
fn of_a_daemon_that_does_not_answer_nothing_is_claimed() {
    let mut web = Web::start("");
    web.daemon.as_ref().expect("it runs").signal(libc::SIGSTOP);
    let output = web.ask(&["set", "change", "web", "--exclude", "*.z"]);
    web.daemon.as_ref().expect("it runs").signal(libc::SIGCONT);
    let said = describe(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("is not known") && said.contains("The file is written"), "{said}");
    assert!(!said.contains("goes on with"), "{said}");
    wait_until("followed", || web.status()["rules"].as_array().is_some_and(|rules| rules.len() == 1));
    web.stop();
}

/// A disk that is not mounted, a file that was moved away: nothing of it ceases to count.
#[test]
fn a_file_that_is_gone_takes_no_rule_away() {
    let mut web = Web::start("[[rule]]\nexclude = \"*.tmp\"\n");
    let away = web.places.state.join("away.toml");
    fs::rename(web.file(), &away).expect("moved");
    let refused = |part: &str| {
        let output = web.ask(&["reload", "web"]);
        let said = describe(&output);
        assert!(output.status.code() == Some(2) && said.contains(part), "{said}");
        assert_eq!(web.status()["rules"].as_array().map(Vec::len), Some(1), "{said}");
        // What was said at the reload stands in the status at once.
        assert!(web.status()["alerts"].to_string().contains(part), "{}", web.status());
    };
    refused("is gone");
    std::os::unix::fs::symlink("/nowhere/web.toml", web.file()).expect("a link");
    refused("leads nowhere");
    let checked = web.ask(&["config", "check", "web"]);
    assert!(
        checked.status.code() == Some(2) && describe(&checked).contains("leads nowhere"),
        "{}",
        describe(&checked)
    );
    fs::remove_file(web.file()).expect("removed");
    web.write(&web.first());
    assert!(web.told(&["reload", "web"]).contains("rule is not set"));
    let alerts = web.status()["alerts"].to_string();
    assert!(!alerts.contains("set_file"), "{alerts}");
    web.stop();
}
