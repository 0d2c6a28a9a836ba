//! `standin doctor --bundle`: what is handed on of a host, and what is not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::host::{COMMAND_MAX, Protected, Setup, describe, output_within, run, standin, wait_until};

/// A protection with names of many kinds that nobody else is to see, and a key in a command.
fn prepare() -> Protected {
    let mut protected = Protected::prepare(Setup::default());
    fs::create_dir_all(protected.state.join("sets")).expect("a directory");
    fs::create_dir_all(protected.state.join("drills")).expect("a directory");
    let rules = "queue_memory = \"64M\"\n\n[[rule]]\nexclude = \"secret-rule\"\n";
    fs::write(protected.state.join("sets/m.toml"), rules).expect("the set's file");
    let drill = "set = \"m\"\nat = \"/secret-place\"\nstart = [\"curl https://x/?key=secret-key\"]\n";
    fs::write(protected.state.join("drills/secret-drill.toml"), drill).expect("a drill's file");
    protected.start_again();
    fs::create_dir(protected.mount.join("secret-dir")).expect("a directory");
    fs::write(protected.mount.join("secret-dir/file"), "text").expect("a file");
    protected.wait_sync();
    run(standin(&protected.run).args(["verify", "m", "secret-dir"]));
    wait_until("a second of history", || {
        let output = run(standin(&protected.run).args(["status", "--history", "--json"]));
        let history: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        history["connections"][0]["seconds"].as_array().is_some_and(|seconds| !seconds.is_empty())
    });
    protected
}

fn doctor(protected: &Protected) -> Command {
    let mut doctor = standin(&protected.run);
    doctor.arg("--state").arg(&protected.state).arg("doctor");
    doctor
}

/// Gives what the command says, and the bundle.
fn bundle(protected: &Protected, file: &Path, more: &[&str]) -> (String, Option<(String, Value)>) {
    let mut doctor = doctor(protected);
    doctor.arg(&protected.mount).arg("--bundle").arg(file).args(more);
    let output = output_within(&mut doctor, COMMAND_MAX);
    let text = fs::read_to_string(file).ok();
    let parsed = text.filter(|_| output.status.success()).map(|text| {
        let document = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        (text, document)
    });
    (describe(&output), parsed)
}

fn setting<'a>(document: &'a Value, key: &str) -> &'a Value {
    let mut all = document["configurations"].as_array().expect("a list").iter();
    let settings = all.find_map(|one| {
        one["settings"].as_array().expect("a list").iter().find(|setting| setting["key"] == key)
    });
    settings.unwrap_or_else(|| panic!("no {key}: {}", document["configurations"]))
}

#[test]
fn a_bundle_has_names_only_where_they_are_asked_for() {
    let protected = prepare();
    let base = protected.base.path().to_str().expect("UTF-8").to_owned();
    let file = protected.base.path().join("bundle.json");
    let (said, made) = bundle(&protected, &file, &[]);
    let (text, document) = made.unwrap_or_else(|| panic!("no bundle: {said}"));
    assert!(said.contains("look through it before it is handed on"), "{said}");
    assert!(!text.contains("secret") && !text.contains(&base), "{text}");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o7777, 0o600);
    let daemon = &document["daemons"][0];
    assert_eq!(daemon["status"]["connections"][0]["state"], "started", "{daemon}");
    assert_eq!(daemon["status"]["connections"][0]["data"], "good");
    assert!(
        daemon["status"]["connections"][0]["verified"]["path"].as_str().expect("a text").starts_with('~')
    );
    assert!(!daemon["history"][0]["seconds"].as_array().expect("samples").is_empty(), "{daemon}");
    let codes = document["events"].as_array().expect("a list").iter().map(|event| &event["code"]);
    assert!(codes.clone().any(|code| code == "daemon_started"), "{:?}", codes.collect::<Vec<_>>());
    assert_eq!(setting(&document, "queue_memory")["values"][0], "64M");
    for key in ["rule", "start"] {
        let setting = setting(&document, key);
        assert_eq!(
            (&setting["withheld"], &setting["values"]),
            (&1.into(), &Value::Array(Vec::new())),
            "{key}"
        );
    }
    let kernel = document["lines"].as_array().expect("lines").iter().find(|line| line["topic"] == "kernel");
    assert!(!kernel.expect("a line")["text"].as_str().expect("a text").starts_with('~'));
    assert_eq!(document["missing"].as_array().map(Vec::len), Some(0), "{}", document["missing"]);

    let (said, made) = bundle(&protected, &file, &["--with-names"]);
    assert!(made.is_none() && said.contains("Name a file that is not there yet."), "{said}");
    assert_eq!(fs::read_to_string(&file).expect("the first one"), text);
    let (said, made) = bundle(&protected, &file.with_extension("named"), &["--with-names", "--json"]);
    let (text, document) = made.unwrap_or_else(|| panic!("no bundle: {said}"));
    assert!(said.contains("\"names\":true"), "{said}");
    for name in ["secret-dir", "secret-rule", "secret-place", "secret-drill", &base] {
        assert!(text.contains(name), "{name}: {text}");
    }
    assert!(!text.contains("secret-key"), "{text}");
    assert_eq!(document["daemons"][0]["status"]["connections"][0]["verified"]["path"], "secret-dir");
}

/// A daemon that gives no answer is named as that, and all the rest is there.
#[test]
fn a_bundle_is_made_also_where_nobody_answers() {
    let mut protected = Protected::prepare(Setup::default());
    protected.start_again();
    protected.kill9();
    let file = protected.base.path().join("bundle.json");
    let output = output_within(doctor(&protected).arg("--bundle").arg(&file), COMMAND_MAX);
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{error}: {}", describe(&output)));
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["daemons"][0]["answer"], "dead", "{text}");
    assert!(!document["lines"].as_array().expect("lines").is_empty());
}
