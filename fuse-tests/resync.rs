//! `standin resync estimate`: what is foreseen is what comes, and foreseeing changes nothing. `standin merge`: what is
//! marked is brought again, or everything is compared.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Output;

use serde_json::Value;

use crate::host::{COMMAND_MAX, Daemon, Protected, Setup, describe, output_within, standin, wait_until};
use crate::mirror::connection;
use crate::pair::kill;

const REGION: u64 = 64 << 10;

fn told(protected: &Protected, arguments: &[&str]) -> Output {
    output_within(standin(&protected.run).args(arguments), COMMAND_MAX)
}

#[track_caller]
fn succeeds(protected: &Protected, arguments: &[&str]) -> String {
    let output = told(protected, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", describe(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn json(protected: &Protected, arguments: &[&str]) -> Value {
    serde_json::from_str(&succeeds(protected, &[arguments, &["--json"]].concat())).expect("JSON")
}

#[track_caller]
fn foreseen(protected: &Protected) -> Value {
    json(protected, &["resync", "estimate"])["connections"][0].clone()
}

/// How the target was brought into line last.
#[track_caller]
fn taken(protected: &Protected) -> Value {
    let taken = connection(protected)["resync"].clone();
    assert_eq!(taken["running"], false, "{taken}");
    taken
}

/// What a change of a connection would show.
fn standing(connection: &Value) -> Vec<Value> {
    let names =
        ["state", "since_unix_ms", "reason", "needs_copy", "data", "mirror", "queued", "sent", "applied"];
    names.map(|name| connection[name].clone()).to_vec()
}

#[track_caller]
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[track_caller]
fn contains(value: &Value, word: &str) {
    assert!(value.as_str().is_some_and(|text| text.contains(word)), "no '{word}' in {value}");
}

/// The generation that is marked holds nothing, and the target has everything.
fn wait_until_nothing_is_marked(protected: &Protected) {
    wait_until("the map begins after what is there", || {
        let shown = json(protected, &["bitmap", "show"]);
        let generations = shown["generations"].as_array().expect("a list").clone();
        generations.len() == 1 && generations[0]["percent"] == 0.0
    });
}

#[test]
fn the_next_rung_is_foreseen_with_what_it_takes() {
    let mut protected = Protected::start(Setup::default());
    let mount = protected.mount.clone();
    let large = File::create(mount.join("large")).expect("a file");
    large.write_all_at(&vec![1; 8 << 20], 0).expect("a write");
    protected.wait_sync();
    wait_until_nothing_is_marked(&protected);
    wait_until("it has everything", || foreseen(&protected)["rung"] == "nothing");
    succeeds(&protected, &["connection", "stop"]);
    fs::write(mount.join("queued"), vec![2; 100_000]).expect("a write");
    let (before, queued, after) = (connection(&protected), foreseen(&protected), connection(&protected));
    assert_eq!(standing(&before), standing(&after), "it has changed something");
    assert_eq!((&queued["rung"], &queued["running"]), (&"queue".into(), &false.into()), "{queued}");
    assert!(number(&queued["packets"]["at_most"]) > 1, "{queued}");
    assert!((100_000..200_000).contains(&number(&queued["bytes"]["at_most"])), "{queued}");
    assert_eq!(queued["packets"]["at_most"], before["queued"]["packets"], "{queued} {before}");
    contains(&queued["waits_for"], "standin connection start 1");
    contains(&queued["assumes"], "what it said to have");
    assert!(number(&queued["bytes_per_second"]) > 0 && number(&queued["seconds"]["at_most"]) > 0, "{queued}");
    succeeds(&protected, &["connection", "start"]);
    protected.wait_sync();
    let resumed = taken(&protected);
    assert_eq!(resumed["rung"], "queue", "{resumed}");
    for bound in ["at_least", "at_most"] {
        assert_eq!(resumed["packets"][bound], queued["packets"]["at_most"], "{resumed}");
    }
    assert_eq!(resumed["since"], queued["since"], "{resumed}");
    contains(&resumed["why"], "the queue holds all that it lacks");
    wait_until_nothing_is_marked(&protected);
    succeeds(&protected, &["replication", "stop"]);
    for region in [3, 40, 90] {
        large.write_all_at(&[region as u8; 10], region * REGION).expect("a write");
    }
    fs::write(mount.join("small"), "eleven more").expect("a write");
    fs::remove_file(mount.join("queued")).expect("a removal");
    let owed = foreseen(&protected);
    // Two files and the root; perhaps the one that is gone.
    let objects = number(&owed["objects"]["at_most"]);
    assert!(owed["rung"] == "owed" && (3..=4).contains(&objects), "{owed}");
    assert_eq!(owed["bytes"]["at_least"], owed["bytes"]["at_most"], "{owed}");
    assert_eq!(number(&owed["bytes"]["at_most"]), 3 * REGION + 11, "{owed}");
    contains(&owed["why"], "replication is stopped by hand");
    let text = succeeds(&protected, &["resync", "estimate", "m"]);
    let amounts = format!("{objects} objects, 192 KiB of content");
    for word in ["would take a copy of what has changed", &amounts, "connection start 1"] {
        assert!(text.contains(word), "no '{word}' in:\n{text}");
    }
    succeeds(&protected, &["replication", "start"]);
    protected.wait_in_line();
    wait_until("it is weighed", || connection(&protected)["resync"]["bytes"] == owed["bytes"]);
    let copied = connection(&protected)["progress"].clone();
    assert_eq!(copied["mode"], "minicopy", "{copied}");
    assert_eq!(copied["bytes_done"], owed["bytes"]["at_most"], "{copied}");
    assert_eq!(copied["bytes_total"], owed["bytes"]["at_most"], "{copied}");
    let came = taken(&protected);
    for name in ["rung", "since", "objects", "bytes"] {
        assert_eq!(came[name], owed[name], "{name} of {came}");
    }
    assert_eq!(came["searched"], false, "{came}");
    contains(&came["why"], "replication was stopped by hand");
    let text = succeeds(&protected, &["status"]);
    for word in ["took a copy of what has changed behind packet", &amounts, "because "] {
        assert!(text.contains(word), "no '{word}' in:\n{text}");
    }
    protected.assert_in_sync();
    drop(large);
    protected.stop();
}

/// Without an answer since the start it is said what is noted, and what that supposes; what is foreseen is what comes.
#[test]
fn of_one_that_was_not_connected_since_the_start_it_is_known_what_was_noted() {
    for arguments in [vec![], vec!["--orphans", "keep"]] {
        let mut protected = Protected::start(Setup { arguments, ..Setup::default() });
        fs::write(protected.mount.join("file"), "content").expect("a file");
        protected.wait_sync();
        succeeds(&protected, &["replication", "stop"]);
        protected.stop_by(libc::SIGTERM);
        protected.start_at_once();
        fs::write(protected.mount.join("more"), "more").expect("a file");
        let said = foreseen(&protected);
        contains(&said["assumes"], "has not answered since the start");
        contains(&said["why"], "replication is stopped by hand");
        // How much differs nobody knows before it is looked for.
        assert_eq!(said["objects"]["at_most"], Value::Null, "{said}");
        succeeds(&protected, &["connection", "start"]);
        protected.wait_in_line();
        let came = match connection(&protected)["progress"]["mode"].as_str() {
            Some("minicopy") => "owed",
            _ => "differences",
        };
        assert_eq!(said["rung"], came, "{said}");
        protected.assert_in_sync();
        protected.stop();
    }
}

/// The map is full; a person wants another way; the replica is not what it was.
#[test]
fn why_everything_was_looked_at_is_said_afterwards() {
    let arguments = vec!["--map-size", "64K"];
    let mut protected = Protected::start(Setup { arguments, ..Setup::default() });
    let mount = protected.mount.clone();
    fs::write(mount.join("file"), "content").expect("a file");
    protected.wait_sync();
    contains(&taken(&protected)["why"], "nothing was copied there yet");
    assert_eq!(connection(&protected)["reason"], "in line after a copy of everything");
    wait_until_nothing_is_marked(&protected);
    let replication = |word: &str| succeeds(&protected, &["replication", word]);
    replication("stop");
    fs::create_dir(mount.join("many")).expect("a directory");
    for number in 0..4000 {
        fs::write(mount.join(format!("many/{number}")), "more than it has room for").expect("a file");
    }
    replication("start");
    protected.wait_in_line();
    let full = taken(&protected);
    contains(&full["why"], "replication was stopped by hand");
    contains(&full["why"], "not by the map: more was changed than the map has room for");
    assert!(full["rung"] == "checksum" || full["rung"] == "differences", "{full}");
    let by = if full["rung"] == "checksum" { "checksums" } else { "differences" };
    assert_eq!(connection(&protected)["reason"], format!("in line after a copy by {by}"));
    replication("stop");
    fs::write(mount.join("file"), "other content").expect("a file");
    succeeds(&protected, &["mirror", "stop"]);
    succeeds(&protected, &["connection", "start"]);
    wait_until("it waits for a person", || {
        connection(&protected)["reason"].as_str().is_some_and(|why| why.contains("standin mirror start"))
    });
    succeeds(&protected, &["mirror", "start", "--mode", "checksum"]);
    protected.wait_in_line();
    let by_hand = taken(&protected);
    assert_eq!(by_hand["rung"], "checksum", "{by_hand}");
    contains(&by_hand["why"], "a mirror was asked for");
    protected.wait_sync();
    protected.stop();
    fs::remove_dir_all(protected.replica.join("many")).expect("a removal");
    protected.start_again();
    protected.wait_in_line();
    let emptied = taken(&protected);
    contains(&emptied["why"], "not by the map: its target says that the replica is no consistent copy");
    assert!(emptied["rung"] == "checksum" || emptied["rung"] == "differences", "{emptied}");
    protected.assert_in_sync();
    protected.stop();
}

/// `standin merge …`, which must be refused with this word, and change nothing.
#[track_caller]
fn refused(protected: &Protected, word: &str) {
    let before = standing(&connection(protected));
    let output = told(protected, &["merge"]);
    let said = describe(&output);
    assert!(output.status.code() == Some(2) && said.contains(word), "no '{word}' in: {said}");
    assert!(said.contains("Nothing was changed"), "{said}");
    assert_eq!(standing(&connection(protected)), before, "{said}");
}

/// The target has lost what it had said to have, and calls itself good.
#[test]
fn a_merge_brings_what_is_marked_to_a_good_replica() {
    let mut protected = Protected::start(Setup::default());
    let (mount, replica) = (protected.mount.clone(), protected.replica.clone());
    fs::write(mount.join("older"), "older content").expect("a file");
    protected.wait_sync();
    wait_until_nothing_is_marked(&protected);
    refused(&protected, "has nothing in doubt");
    // A mark goes a while after the change is on the target's disk.
    wait_until("a merge begins", || {
        fs::write(mount.join("file"), "as it was written").expect("a write");
        protected.wait_sync();
        fs::write(replica.join("file"), "as it was LOST   ").expect("a write");
        told(&protected, &["merge"]).status.success()
    });
    protected.wait_in_line();
    protected.wait_sync();
    protected.assert_in_sync();
    let copied = connection(&protected)["progress"].clone();
    assert_eq!(copied["mode"], "minicopy", "{copied}");
    assert!(number(&copied["bytes_done"]) < 100, "{copied}");
    // Of what is not marked only a full one knows.
    fs::write(replica.join("older"), "shorter").expect("a write");
    succeeds(&protected, &["merge", "--full"]);
    wait_until("everything was compared", || connection(&protected)["progress"]["mode"] == "differences");
    protected.wait_in_line();
    protected.wait_sync();
    protected.assert_in_sync();
    protected.stop();
}

/// One that waits for a person gets a minicopy; what cannot be merged is said.
#[test]
fn a_merge_is_what_a_person_lets_begin() {
    let mut protected = Protected::start(Setup::default());
    let mount = protected.mount.clone();
    fs::write(mount.join("file"), vec![1; 1 << 20]).expect("a file");
    protected.wait_sync();
    wait_until_nothing_is_marked(&protected);
    succeeds(&protected, &["replication", "stop"]);
    fs::write(mount.join("small"), "small").expect("a file");
    refused(&protected, "is stopped");
    succeeds(&protected, &["mirror", "stop"]);
    succeeds(&protected, &["connection", "start"]);
    wait_until("it waits for a person", || {
        connection(&protected)["reason"].as_str().is_some_and(|why| why.contains("standin mirror start"))
    });
    contains(&foreseen(&protected)["waits_for"], "standin mirror start");
    let said = succeeds(&protected, &["merge", "m", "--connection", "1"]);
    assert!(said.contains("what is in doubt is copied"), "{said}");
    protected.wait_in_line();
    protected.wait_sync();
    protected.assert_in_sync();
    let copied = connection(&protected)["progress"].clone();
    assert_eq!((&copied["mode"], &copied["bytes_done"]), (&"minicopy".into(), &5.into()), "{copied}");
    protected.stop();
    let output = told(&protected, &["merge", "m"]);
    assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
}

#[test]
fn a_target_says_who_is_to_be_asked() {
    let base = tempfile::tempdir().expect("a directory");
    let (run, root) = (base.path().join("run"), base.path().join("served"));
    fs::create_dir(&root).expect("a directory");
    let free = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let mut serve = standin(&run);
    serve.args(["serve", "--listen", &format!("127.0.0.1:{}", free.expect("a free port").port()), "--root"]);
    serve.arg(&root).arg("--state").arg(base.path().join("state"));
    let mut serve = Daemon::spawn(serve);
    serve.wait_ready();
    for arguments in
        [&["resync", "estimate"][..], &["resync", "estimate", "serve"], &["merge"], &["merge", "serve"]]
    {
        let output = output_within(standin(&run).args(arguments), COMMAND_MAX);
        let said = describe(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("This daemon is a target") && said.contains("on the source"), "{said}");
    }
    let output = output_within(standin(&run).args(["resync", "estimate", "nobody"]), COMMAND_MAX);
    assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
    kill(&mut serve);
}
