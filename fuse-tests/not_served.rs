//! Sets that no daemon serves are not forgotten: `standin status` shows how they ended, until they are served again or
//! a person takes them out.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use crate::host::{COMMAND_MAX, Protected, Setup, describe, output_within, standin, wait_until};

fn asks(protected: &Protected, arguments: &[&str]) -> Output {
    let mut command: Command = standin(&protected.run);
    output_within(command.args(arguments).arg("--state").arg(&protected.state), COMMAND_MAX)
}

/// What `standin status` says with this exit code.
#[track_caller]
fn said(protected: &Protected, arguments: &[&str], code: i32) -> String {
    let output = asks(protected, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", describe(&output));
    describe(&output)
}

#[track_caller]
fn document(protected: &Protected, code: i32) -> Value {
    let output = asks(protected, &["status", "--json"]);
    assert_eq!(output.status.code(), Some(code), "{}", describe(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn metrics(protected: &Protected) -> String {
    describe(&asks(protected, &["metrics"]))
}

#[test]
fn a_stopped_set_is_shown_until_it_is_taken_out() {
    let mut protected = Protected::start(Setup { arguments: vec!["--name", "web"], ..Setup::default() });
    fs::write(protected.mount.join("file"), "x").expect("a write");
    protected.wait_in_line();
    protected.wait_sync();
    assert!(document(&protected, 0)["not_served"].is_null(), "it is served");
    assert!(!metrics(&protected).contains("standin_set_not_served"), "{}", metrics(&protected));
    protected.stop();
    let shown = said(&protected, &["status"], 1);
    let directory = protected.mount.display().to_string();
    let start = format!("standin protect {directory} --name web --to local:{}", protected.replica.display());
    for part in
        ["set web  ", &directory, "stopped", "started, replica good", &start, "standin set delete web"]
    {
        assert!(shown.contains(part), "no '{part}' in {shown}");
    }
    said(&protected, &["status", "web"], 1);
    said(&protected, &["status", &directory], 1);
    said(&protected, &["status", "other"], 2);
    let document = document(&protected, 1);
    assert_eq!(document["findings"][0]["code"], "set_not_served", "{document}");
    let one = &document["not_served"][0];
    assert_eq!((&one["name"], &one["ended"]), (&"web".into(), &"stopped".into()), "{document}");
    assert_eq!(one["connections"][0]["data"], "good", "{document}");
    assert!(metrics(&protected).contains(r#"standin_set_not_served{set="web",ended="stopped"} 1"#));
    // Of another run directory it is none of the sets.
    let elsewhere = protected.base.path().join("elsewhere");
    let other =
        output_within(standin(&elsewhere).args(["status", "--state"]).arg(&protected.state), COMMAND_MAX);
    assert!(describe(&other).contains("No daemon is running"), "{}", describe(&other));
    // Served again, it is not missed; nor is it when it was taken out.
    protected.start_again();
    said(&protected, &["status"], 0);
    protected.stop();
    assert!(said(&protected, &["set", "delete", "web"], 0).contains("does not miss the set any more"));
    assert!(said(&protected, &["status"], 2).contains("No daemon is running"));
    said(&protected, &["set", "delete", "web"], 2);
    assert!(!metrics(&protected).contains("standin_set_not_served"), "{}", metrics(&protected));
    protected.start_again();
    protected.stop();
    said(&protected, &["status"], 1);
}

/// It said nothing more after the host was started anew: no socket was left.
#[test]
fn a_killed_set_is_critical_with_and_without_its_socket() {
    let mut protected = Protected::start(Setup { arguments: vec!["--name", "web"], ..Setup::default() });
    protected.wait_in_line();
    // What is noted while it runs: it was seen in line, some seconds ago.
    let note = protected.state.join("web/served.json");
    wait_until("the replica is noted as good", || {
        fs::read_to_string(&note).is_ok_and(|text| text.contains("\"good\""))
    });
    protected.kill9();
    let shown = said(&protected, &["status"], 2);
    for part in
        ["set web  ", "its daemon was killed, or crashed", "replica good", "standin protect ", "CRITICAL"]
    {
        assert!(shown.contains(part), "no '{part}' in {shown}");
    }
    said(&protected, &["status", "web"], 2);
    assert_eq!(document(&protected, 2)["not_served"][0]["ended"], "killed");
    let metrics = metrics(&protected);
    assert!(metrics.contains(r#"standin_set_not_served{set="web",ended="killed"} 1"#), "{metrics}");
    for entry in fs::read_dir(&protected.run).expect("the run directory") {
        let _ = fs::remove_file(entry.expect("an entry").path());
    }
    assert!(said(&protected, &["status"], 2).contains("its daemon was killed, or crashed"));
    protected.start_again();
    protected.wait_in_line();
    assert!(document(&protected, 0)["not_served"].is_null());
    protected.stop();
}
