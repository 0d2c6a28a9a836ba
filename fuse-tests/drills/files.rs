//! Drills that a file says all about, and what they tell the host.

use super::*;

fn write(pair: &Pair, name: &str, text: &str) {
    let dir = pair.state("target").join("drills");
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join(format!("{name}.toml")), text).expect("a file");
}

fn ran_file(pair: &Pair, code: i32, arguments: &[&str]) -> Value {
    let output = drill(pair, &[&["run", "--json"], arguments].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", describe(&output));
    let mut answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    answer["report"].take()
}

#[test]
fn a_drill_is_what_its_file_says() {
    let pair = filled();
    let told = pair.state("source").join("told");
    let hook = |name: &str| {
        let clone = "test -d \"$STANDIN_DRILL_CLONE\" && echo clone";
        format!(
            "{name} = '''env | grep ^STANDIN_DRILL | sort > {told}-{name}; ({clone}) >> {told}-{name}; \
             cp \"$STANDIN_DRILL_REPORT\" {told}-{name}.json'''\n",
            told = text(&told)
        )
    };
    let file = format!(
        "set = \"web\"\nat = {:?}\nstart = [\"echo one > first\", \"cp first second\"]\nstop = [\"false\", \"true\"]\n{}{}
[[check]]\nname = \"both\"\ncommand = \"cmp first second && test -f known\"\n
[[check]]\nname = \"slow\"\ncommand = \"sleep 1000\"\ntimeout = \"300ms\"\n",
        at(&pair),
        hook("before"),
        hook("after"),
    );
    write(&pair, "nightly", &file);
    let checked = output_within(pair.daemon("target").args(["config", "check", "nightly"]), COMMAND_MAX);
    assert!(checked.status.success(), "{}", describe(&checked));
    let report = ran_file(&pair, 1, &["nightly"]);
    let steps: Vec<&Value> = report["steps"].as_array().expect("steps").iter().collect();
    let said: Vec<String> =
        steps.iter().map(|step| format!("{}{} {}", step["step"], step["name"], step["outcome"])).collect();
    assert_eq!(
        said.join("; ").replace('"', ""),
        "clonenull done; isolatenull done; startnull done; startnull done; {check:1}both done; \
         {check:2}slow failed; stopnull failed; stopnull done; beforenull done; clean-upnull done; afternull done"
            .replace("clean-up", "clean_up")
    );
    assert_eq!(report["file"], serde_json::json!({ "name": "nightly", "typed": [] }));
    assert_eq!(check(&report, 2)["ended"]["timed_out"], true, "{report}");
    for (name, has_clone) in [("before", true), ("after", false)] {
        let said = fs::read_to_string(format!("{}-{name}", told.display())).expect("what the hook was told");
        for part in ["STANDIN_DRILL=1\n", "STANDIN_DRILL_SET=web\n", "STANDIN_DRILL_VERDICT=failed\n"] {
            assert!(said.contains(part), "no {part} in {said}");
        }
        assert_eq!(said.ends_with("\nclone\n"), has_clone, "{name}: {said}");
        let so_far = fs::read(format!("{}-{name}.json", told.display())).expect("the report so far");
        let so_far: Value = serde_json::from_slice(&so_far).expect("JSON");
        assert_eq!(so_far["report"]["number"], report["number"]);
    }
    assert_nothing_left(&pair);
    // On top of it.
    let report =
        ran_file(&pair, 0, &["nightly", "--check", "test -f second", "--stop", "true", "--after", "true"]);
    assert_eq!(report["file"]["typed"], serde_json::json!(["check", "stop", "after"]));
    let shown = drill(&pair, &["report"]);
    assert!(
        describe(&shown).contains("drills/nightly.toml, and typed on top: check, stop, after"),
        "{}",
        describe(&shown)
    );
    assert_nothing_left(&pair);
}

/// Nobody hears of a drill whose hook fails: that is no success, and no fault of the data.
#[test]
fn a_hook_that_fails_is_said_and_is_no_verdict() {
    let pair = filled();
    let report = ran(
        &pair,
        3,
        &[
            "--check",
            "true",
            "--after",
            "echo nobody is there; exit 9",
            "--before",
            "sleep 100",
            "--timeout",
            "1s",
        ],
    );
    assert_eq!(report["verdict"], "passed", "{report}");
    assert_eq!(step(&report, &"after".into())["ended"]["exit_code"], 9);
    assert_eq!(step(&report, &"before".into())["ended"]["timed_out"], true);
    // Also of a drill that somebody ends they hear.
    let told = pair.state("source").join("ended");
    let mark = format!("drill-mark-{}-hook", std::process::id());
    let mut command = pair.daemon("target");
    command.args(["drill", "run", "--at", &at(&pair), "--check", &format!("MARK={mark} exec sleep 1000")]);
    command.args(["--after", &format!("echo $STANDIN_DRILL_VERDICT > {}", told.display())]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("standin drill");
    wait_until("its check runs", || !processes_of(&mark).is_empty());
    rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    assert_eq!(child.wait().expect("it ends").code(), Some(2));
    assert_eq!(fs::read_to_string(&told).expect("it was told"), "interrupted\n");
    assert_nothing_left(&pair);
}

fn status(pair: &Pair) -> (Option<i32>, Value) {
    let output = output_within(pair.daemon("target").args(["status", "--json"]), COMMAND_MAX);
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// Of what somebody expects and what does not come.
#[test]
fn the_status_says_when_a_drill_is_overdue() {
    let pair = filled();
    let (before, said) = status(&pair);
    assert_eq!((before, &said["drills"]), (Some(0), &Value::Null), "{said}");
    let file = |check: &str, every: &str| {
        format!("set = \"web\"\nat = {:?}\ncheck = {check:?}\nexpect_every = {every:?}\n", at(&pair))
    };
    write(&pair, "nightly", &file("test -f known", "1h"));
    let (code, said) = status(&pair);
    assert_eq!((code, &said["drills"][0]["standing"]), (Some(1), &"never".into()), "{said}");
    assert!(said["findings"].to_string().contains("drill_overdue"), "{said}");
    ran(&pair, 0, &["--check", "true"]);
    assert_eq!(status(&pair).0, Some(1), "it is not the file's");
    ran_file(&pair, 0, &["nightly"]);
    let (code, said) = status(&pair);
    assert_eq!((code, &said["drills"][0]["standing"]), (Some(0), &"passed".into()), "{said}");
    assert_eq!(
        (&said["drills"][0]["drill"], &said["drills"][0]["set"]),
        (&2.into(), &"web".into()),
        "{said}"
    );
    let text = output_within(pair.daemon("target").arg("status"), COMMAND_MAX);
    assert!(describe(&text).contains("drill nightly  passed "), "{}", describe(&text));
    write(&pair, "nightly", &file("test -f known", "1ms"));
    let text = output_within(pair.daemon("target").arg("status"), COMMAND_MAX);
    assert!(text.status.code() == Some(1) && describe(&text).contains("OVERDUE"), "{}", describe(&text));
    write(&pair, "nightly", &file("test -f nothing", "1h"));
    ran_file(&pair, 1, &["nightly"]);
    let (code, said) = status(&pair);
    assert_eq!((code, &said["drills"][0]["standing"]), (Some(2), &"failed".into()), "{said}");
    // One that is interrupted says nothing of the data.
    write(&pair, "nightly", &file("test -f known", "1h"));
    ran_file(&pair, 0, &["nightly"]);
    assert_eq!(status(&pair).0, Some(0));
    write(&pair, "nightly", &file("test -f known", "1h").replace("check", "chekc"));
    let (code, said) = status(&pair);
    assert_eq!((code, &said["drills"][0]["standing"]), (Some(1), &"unknown".into()), "{said}");
    assert!(said["findings"].to_string().contains("chekc"), "{said}");
    assert_nothing_left(&pair);
}

/// In mounts of its own, where there is a hierarchy of version 2: on this host it may be elsewhere, or nowhere.
#[test]
fn a_drill_is_in_a_control_group_of_its_own() {
    require_program("unshare");
    let pair = filled();
    let groups = pair.state("source").join("groups");
    fs::create_dir(&groups).expect("a directory");
    let mut run = pair.daemon("target");
    run.args([
        "drill",
        "run",
        "--json",
        "--at",
        &at(&pair),
        "--check",
        "cat /proc/self/cgroup",
        "--memory-max",
        "1G",
    ]);
    let words: Vec<&std::ffi::OsStr> = std::iter::once(run.get_program()).chain(run.get_args()).collect();
    let mounted = "umount -a -t cgroup2; mount -t cgroup2 none \"$0\" && \"$@\"; code=$?; \
                   ls -d \"$0\"/standin-* 2> /dev/null; exit $code";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", mounted]).arg(&groups).args(words);
    let output = output_within(&mut command, COMMAND_MAX);
    assert!(output.status.success(), "{}", describe(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // Groups of other drills are there as well.
    let (answer, left) = said.split_once('\n').expect("a line");
    let mut answer: Value = serde_json::from_str(answer).expect("JSON");
    let report = answer["report"].take();
    println!("{}", report["limits"]);
    let name = report["name"].as_str().expect("text");
    assert!(!left.contains(name), "a group is left: {left}");
    let seen = check(&report, 1)["ended"]["output"].as_str().expect("text");
    assert!(seen.contains(&format!("0::/standin-{name}\n")), "{seen}");
    let all = |what: &str| report["limits"][what].as_array().expect("a list").len();
    // Weights of both, and the limit: whatever the host has of it.
    assert_eq!(all("set") + all("not"), 3, "{report}");
    assert_nothing_left(&pair);
}
