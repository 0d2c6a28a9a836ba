//! What `standin doctor` finds out about a target on another host.

use super::*;
use crate::host::run;

/// The lines about one topic: level and text.
fn lines(hosts: &Hosts, topic: &str) -> Vec<(String, String)> {
    let output = output_within(hosts.on_source().args(["doctor", "--json", "--to", REPSET]), COMMAND_MAX);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", describe(&output), hosts.said()));
    let text = |line: &serde_json::Value, key: &str| line[key].as_str().expect("a text").to_owned();
    let lines = report["lines"].as_array().expect("lines").iter();
    lines
        .filter(|line| line["topic"] == topic)
        .map(|line| (text(line, "level"), text(line, "text")))
        .collect()
}

#[track_caller]
fn assert_line(hosts: &Hosts, topic: &str, level: &str, part: &str) {
    let found = lines(hosts, topic);
    let fits = found.len() == 1 && found[0].0 == level && found[0].1.contains(part);
    assert!(fits, "{topic}: {found:?}, not {level} '{part}'\n{}", hosts.said());
}

#[test]
fn the_doctor_asks_a_target_and_disturbs_nobody() {
    let mut hosts = Hosts::prepare();
    assert_line(&hosts, "pairing", "fail", "standin invite web");
    assert!(lines(&hosts, "target").is_empty(), "without its key nobody is asked");
    hosts.serve();
    hosts.pair();
    assert_line(&hosts, "pairing", "ok", "paired with");
    assert_line(&hosts, "target", "ok", "answers at 192.0.2.2:7447");
    assert_line(&hosts, "version", "ok", env!("CARGO_PKG_VERSION"));
    assert_line(&hosts, "clock", "ok", "agree");
    assert_line(&hosts, "replica", "ok", "no copy yet; beside plain data it takes: nothing");

    hosts.protect();
    hosts.wait_for_source("connected", |connection| !connection["link"].is_null());
    let connected = hosts.connected_since();
    assert_line(&hosts, "replica", "ok", "its copy is good");
    fs::write(hosts.mount.join("file"), "x").expect("a write");
    hosts.assert_in_sync();
    assert_eq!(hosts.connected_since(), connected, "the source's connection goes on");
    hosts.stop_source();

    let revoke = || {
        let output = output_within(hosts.on_target().args(["peers", "list", "--json"]), COMMAND_MAX);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let key = json["pairings"][0]["fingerprint"].as_str().expect("a key").to_owned();
        run(hosts.on_target().args(["peers", "revoke", &key]));
    };
    revoke();
    assert_line(&hosts, "target", "fail", "pair them first");
    hosts.kill_target();
    assert_line(&hosts, "target", "fail", "cannot be asked at 192.0.2.2:7447");
}

/// What lies on the way carries less than the interface here.
#[test]
fn the_doctor_says_how_long_datagrams_may_be() {
    let mut hosts = Hosts::prepare();
    hosts.serve();
    hosts.pair();
    assert_line(&hosts, "path", "ok", "datagrams of 1472 bytes arrive");
    hosts.cable.set_mtu(&hosts.cable.source, 9000);
    assert_line(&hosts, "path", "note", "though 8952 leave this host");
    hosts.kill_target();
}

/// What is mounted for a test goes with it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(place: PathBuf) -> SmallDisk {
        fs::create_dir_all(&place).expect("a directory");
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", &place, "tmpfs", flags, Some(c"size=1m,nr_inodes=50")).expect("a tmpfs");
        SmallDisk(place)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Texts of warnings about the target of a directory.
fn warned(hosts: &Hosts, to: &str) -> String {
    let mut doctor = hosts.on_source();
    doctor.arg("doctor").arg(hosts.backing()).args(["--json", "--to", to]);
    let output = output_within(&mut doctor, COMMAND_MAX);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let lines = report["lines"].as_array().expect("lines").iter();
    let is_meant = |line: &&serde_json::Value| line["topic"] == "target" && line["level"] == "warn";
    lines.filter(is_meant).map(|line| line["text"].as_str().expect("a text").to_owned() + "\n").collect()
}

#[test]
fn the_doctor_says_what_a_target_cannot_hold() {
    let mut hosts = Hosts::prepare();
    let disk = SmallDisk::at(hosts.at("root"));
    for number in 0..60 {
        fs::write(hosts.backing().join(format!("file{number}")), vec![7; 40_000]).expect("a file");
    }
    hosts.serve();
    hosts.pair();
    let said = warned(&hosts, REPSET);
    assert!(said.contains("A copy takes") && said.contains("60 inodes"), "{said}\n{}", hosts.said());
    // A disk of this host is tried out: inodes of 128 bytes have whole seconds, up to 2038.
    let old = crate::host::Image::mount(hosts.base.path(), hosts.at("old"), "ext4 -I 128", 16);
    let said = warned(&hosts, &format!("local:{}/replica", hosts.at("old").display()));
    assert!(
        said.contains("no nanoseconds of modification times: 6") && said.contains("of 60 objects"),
        "{said}"
    );
    drop(old);
    hosts.kill_target();
    drop(disk);
}
