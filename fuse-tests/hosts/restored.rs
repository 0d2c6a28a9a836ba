//! Restoration over the network: who may, on which machine, and what the target and the source hear.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use super::{Hosts, REPSET};
use crate::host::{self, COMMAND_MAX, Daemon, Image, STOP_MAX, SYNC_MAX, describe, output_within};
use crate::tree;

/// A new machine beside the source: the same cable, another key.
const NEW: &str = "new-state";

fn on_new(hosts: &Hosts) -> Command {
    hosts.standin(&hosts.cable.source, "new-run", NEW)
}

fn restore(hosts: &Hosts, mut command: Command, to: &Path, arguments: &[&str]) -> Output {
    command.args(["restore", &hosts.repset, "--to"]).arg(to).args(arguments);
    output_within(&mut command, SYNC_MAX)
}

#[track_caller]
fn refuses(output: &Output, word: &str) {
    let said = describe(output);
    assert!(output.status.code() == Some(2) && said.contains(word), "no '{word}' in:\n{said}");
}

#[track_caller]
fn pairs(hosts: &Hosts, state: &str, arguments: &[&str]) {
    let paired = hosts.pair_as(state, &hosts.repset, &hosts.invite(arguments));
    assert!(paired.status.success(), "{}", describe(&paired));
}

/// A set with a replica, its source stopped and lost; where it is restored to.
fn lost() -> (Hosts, PathBuf) {
    let mut hosts = Hosts::prepare();
    hosts.serve_arguments = vec!["--allow", "device,setuid,security"];
    crate::restored::fill_oddly(&hosts.backing());
    hosts.connect();
    hosts.assert_in_sync();
    hosts.stop_source();
    let to = hosts.at("restored");
    (hosts, to)
}

#[test]
fn a_new_machine_restores_and_protects_without_sending_content() {
    let (hosts, to) = lost();
    // Nobody reads by default; nor does somebody who knows where the target is and what key it has.
    refuses(&restore(&hosts, on_new(&hosts), &to, &[]), "standin invite web --restore");
    fs::create_dir(hosts.at("stranger-state")).expect("a directory");
    fs::copy(hosts.at("source-state/targets.json"), hosts.at("stranger-state/targets.json")).expect("a copy");
    let stranger = hosts.standin(&hosts.cable.source, "stranger-run", "stranger-state");
    refuses(&restore(&hosts, stranger, &to, &[]), "does not know this host's key");
    assert!(!to.exists());
    pairs(&hosts, NEW, &["--restore"]);
    let peers = output_within(hosts.on_target().args(["peers", "list"]), COMMAND_MAX);
    assert!(describe(&peers).contains("may restore from 'web'"), "{}", describe(&peers));
    let restored = restore(&hosts, on_new(&hosts), &to, &[]);
    assert!(restored.status.success(), "{}{}", describe(&restored), hosts.said());
    tree::assert_same(&hosts.replica(), &to);
    // The right to read is not one to send.
    refuses(&output_within(&mut protect_command(&hosts, &to), COMMAND_MAX), "may not send the set 'web'");
    pairs(&hosts, NEW, &[]);
    let mut daemon = Daemon::spawn(protect_command(&hosts, &to));
    daemon.wait_ready();
    host::wait_in_line(|| on_new(&hosts), || daemon.said());
    let said = daemon.said();
    assert!(said.contains("content of 0 files was sent"), "{said}");
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait(STOP_MAX).is_some_and(|status| status.success()), "{}", daemon.said());
    tree::assert_same(&to, &hosts.replica());
}

fn protect_command(hosts: &Hosts, dir: &Path) -> Command {
    let mut command = on_new(hosts);
    command.arg("protect").arg(dir).args(["--to", &hosts.repset]);
    command
}

/// A key that may send a set may read it back, and one that was revoked may do neither.
#[test]
fn a_source_reads_its_own_set_back_until_it_is_revoked() {
    let (hosts, to) = lost();
    let own = restore(&hosts, hosts.on_source(), &to, &["--json"]);
    let said = describe(&own);
    assert!(own.status.success() && said.contains("\"restored\""), "{said}");
    tree::assert_same(&hosts.replica(), &to);
    // Another set's name is nobody's.
    let other = REPSET.replace("web", "other");
    let mut command = hosts.on_source();
    command.args(["restore", &other, "--to"]).arg(hosts.at("elsewhere"));
    refuses(&output_within(&mut command, COMMAND_MAX), "is not paired with");
    let forged = fs::read_to_string(hosts.at("source-state/targets.json")).expect("targets");
    fs::write(hosts.at("source-state/targets.json"), forged.replace("7447/web", "7447/other"))
        .expect("targets");
    refuses(&output_within(&mut command, COMMAND_MAX), "may not read the set 'other' back");
    fs::write(hosts.at("source-state/targets.json"), forged).expect("targets");
    let peers = output_within(hosts.on_target().args(["peers", "list", "--json"]), COMMAND_MAX);
    let peers: serde_json::Value = serde_json::from_slice(&peers.stdout).expect("JSON");
    let key = peers["pairings"][0]["fingerprint"].as_str().expect("a key").to_owned();
    let revoked = output_within(hosts.on_target().args(["peers", "revoke", &key]), COMMAND_MAX);
    assert!(revoked.status.success(), "{}", describe(&revoked));
    refuses(&restore(&hosts, hosts.on_source(), &hosts.at("again"), &[]), "does not know this host's key");
    assert!(!hosts.at("again").exists() && !hosts.at("elsewhere").exists());
}

/// What the target says of its replica, as text and as JSON.
fn replica_shown(hosts: &Hosts) -> (String, serde_json::Value) {
    let text = output_within(hosts.on_target().arg("status"), COMMAND_MAX);
    let json = hosts.status(hosts.on_target())["target"]["replicas"][0].clone();
    (String::from_utf8_lossy(&text.stdout).into_owned(), json)
}

/// While the source is there nobody restores; while somebody restores no source comes in.
#[test]
fn a_replica_is_one_host_s_at_a_time() {
    let mut hosts = Hosts::prepare();
    fs::create_dir(hosts.backing().join("large")).expect("a directory");
    for number in 0..40 {
        fs::write(hosts.backing().join(format!("large/{number}")), vec![number; 4 << 20]).expect("a file");
    }
    hosts.connect();
    hosts.assert_in_sync();
    pairs(&hosts, NEW, &["--restore"]);
    let to = hosts.at("restored");
    refuses(&restore(&hosts, on_new(&hosts), &to, &[]), "its source (key");
    assert!(!to.exists());
    hosts.stop_source();
    // Its disk is too small: it waits for room, and goes on waiting.
    let disk = hosts.at("disk");
    let image = Image::mount(hosts.base.path(), disk.clone(), "ext4", 32);
    let mut command = on_new(&hosts);
    command.args(["restore", &hosts.repset, "--to"]).arg(disk.join("restored"));
    let mut restoring = Daemon::spawn(command);
    host::wait_until("room is waited for", || restoring.said().contains("cannot be performed"));
    let (shown, json) = replica_shown(&hosts);
    assert!(shown.contains("  restored    by ") && shown.contains("not connected"), "{shown}");
    let reader = &json["restored_from"];
    assert!(json["connected"].is_null() && reader["address"].is_string(), "{json:#}");
    assert!(reader["bytes_sent"].as_u64().is_some_and(|sent| sent > 0), "{json:#}");
    let mut source = Daemon::spawn(hosts.protect_command());
    source.wait_ready();
    hosts.wait_for_source("refused", |connection| {
        connection["reason"].as_str().is_some_and(|reason| reason.contains("is being restored from"))
    });
    restoring.signal(libc::SIGINT);
    let code = restoring.wait(COMMAND_MAX).expect("it ends").code();
    assert_eq!(code, Some(1), "{}", restoring.said());
    assert!(restoring.said().contains("is not whole"), "{}", restoring.said());
    host::wait_until("nobody reads", || replica_shown(&hosts).1["restored_from"].is_null());
    // The source comes in by itself.
    host::wait_in_line(|| hosts.on_source(), || source.said());
    hosts.source = Some(source);
    hosts.assert_in_sync();
    hosts.stop_source();
    drop(image);
}

/// The target dies in the middle; the same command goes on.
#[test]
fn a_restoration_outlives_the_death_of_its_target() {
    let mut hosts = Hosts::prepare();
    for number in 0..2000 {
        fs::write(hosts.backing().join(format!("f{number}")), vec![b'x'; 20_000]).expect("a file");
    }
    hosts.connect();
    hosts.assert_in_sync();
    hosts.stop_source();
    let to = hosts.at("restored");
    let mut command = hosts.on_source();
    command.args(["restore", &hosts.repset, "--to"]).arg(&to).args(["--name", "here"]);
    let mut restoring = Daemon::spawn(command);
    let deadline = Instant::now() + COMMAND_MAX;
    while fs::read_dir(&to).map_or(0, Iterator::count) < 100 {
        assert!(Instant::now() < deadline, "nothing comes: {}", restoring.said());
    }
    hosts.kill_target();
    let code = restoring.wait(SYNC_MAX).expect("it ends").code();
    assert!(matches!(code, Some(0 | 1)), "{code:?} {}", restoring.said());
    hosts.serve();
    let restored = restore(&hosts, hosts.on_source(), &to, &["--name", "here", "--json"]);
    assert!(restored.status.success(), "{}", describe(&restored));
    tree::assert_same(&hosts.replica(), &to);
}
