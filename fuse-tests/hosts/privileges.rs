//! What the running daemons may still do, thread by thread, against the page that lists it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::mount::UnmountFlags;
use rustix::thread::{CapabilitySet, capabilities};

use super::load::fill;
use super::*;
use crate::host::run;

const PAGE: &str = include_str!("../../docs/privileges.md");

/// The capabilities in the first cells of the `number`th table below a heading; of these, those
/// that there are where this test runs.
fn listed(heading: &str, number: usize) -> u64 {
    let part = PAGE.split(heading).nth(1).expect("the heading");
    let rows = |table: &str| table.lines().filter(|line| line.starts_with("| CAP_")).count() > 0;
    let mut tables = part.split("\n\n").filter(|paragraph| rows(paragraph));
    let table = tables.nth(number).expect("the table");
    let names = table.lines().filter_map(|line| line.strip_prefix("| CAP_")?.split(' ').next());
    let set = names.fold(CapabilitySet::empty(), |set, name| {
        set | CapabilitySet::from_name(name).unwrap_or_else(|| panic!("CAP_{name} is unknown"))
    });
    assert!(!set.is_empty());
    (set & capabilities(None).expect("our own").permitted).bits()
}

/// A line of `/proc/PID/task/TID/status`.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
}

fn set_of(status: &str, name: &str) -> u64 {
    u64::from_str_radix(&field(status, name), 16).expect("hexadecimal digits")
}

/// Every thread has exactly this; gives how many there are.
#[track_caller]
fn assert_threads_have(pid: u64, kept: u64, bounds: u64) -> usize {
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("it runs") {
        // A thread may just have ended.
        let Ok(status) = fs::read_to_string(task.expect("a task").path().join("status")) else { continue };
        threads += 1;
        let name = field(&status, "Name");
        for (set, wanted) in
            [("CapPrm", kept), ("CapEff", kept), ("CapBnd", bounds), ("CapInh", 0), ("CapAmb", 0)]
        {
            assert_eq!(format!("{:x}", set_of(&status, set)), format!("{wanted:x}"), "{set} of {name}");
        }
        assert_eq!(field(&status, "NoNewPrivs"), "1", "{name}");
    }
    threads
}

fn children_of(pid: u64) -> Vec<u64> {
    let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).ok();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let lists: Vec<String> = tasks.filter_map(|task| of(task.ok()?)).collect();
    lists.iter().flat_map(|list| list.split_whitespace()).map(|pid| pid.parse().expect("a number")).collect()
}

fn pid_of(hosts: &Hosts, command: Command) -> u64 {
    hosts.status(command)["pid"].as_u64().expect("a process id")
}

#[test]
fn every_thread_keeps_only_what_is_listed() {
    let mut hosts = Hosts::prepare();
    fill(&hosts.backing());
    hosts.serve();
    hosts.pair();
    hosts.protect();
    fs::write(hosts.mount.join("one more"), "x").expect("a write");
    hosts.wait_for_source("connected", |connection| !connection["link"].is_null());

    let source = pid_of(&hosts, hosts.on_source());
    let protect = listed("## standin protect\n", 0);
    // Main thread, control, connection, link, requests of the kernel, the flush helper's.
    let threads = assert_threads_have(source, protect, protect);
    assert!(threads >= 6, "{threads} threads");
    let helpers = children_of(source);
    assert_eq!(helpers.len(), 1);
    assert_threads_have(helpers[0], listed("## standin protect\n", 1), protect);

    let target = pid_of(&hosts, hosts.on_target());
    let plain = listed("## standin serve\n", 0);
    let threads = assert_threads_have(target, plain, plain);
    assert!(threads >= 5, "{threads} threads");

    // With everything allowed, two more.
    hosts.stop_target();
    hosts.serve_arguments = vec!["--allow", "device,setuid,security"];
    hosts.serve();
    let all = plain | listed("## standin serve\n", 1);
    assert_threads_have(pid_of(&hosts, hosts.on_target()), all, all);
    hosts.stop_source();
}

/// A file system of its own below a directory of the test; its cache goes with each unmount.
struct Disk(PathBuf);

impl Disk {
    fn new(image: &Path, at: &Path) -> Disk {
        fs::File::create_new(image).and_then(|file| file.set_len(64 << 20)).expect("an image file");
        run(Command::new(host::require_program("mkfs.ext4")).arg("-q").arg(image));
        let disk = Disk(at.to_owned());
        disk.mount(image);
        disk
    }

    fn mount(&self, image: &Path) {
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(&self.0));
    }

    fn unmount(&self) {
        rustix::mount::unmount(&self.0, UnmountFlags::empty()).expect("nobody uses it");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// The kernel refuses a confined thread what it opens by file handle and has not in its cache: the
/// first write to an old file after a start of the target failed for ever, a link too.
#[test]
fn a_confined_target_finds_objects_that_nobody_has_looked_up() {
    let mut hosts = Hosts::prepare();
    let image = hosts.at("image");
    let disk = Disk::new(&image, &hosts.at("root"));
    fs::create_dir_all(hosts.backing().join("a/b/c")).expect("directories");
    for name in ["a/b/c/written", "a/b/c/linked", "a/b/cut", "a/moved", "a/b/gone"] {
        fs::write(hosts.backing().join(name), name.repeat(1000)).expect("a file");
    }
    hosts.serve();
    hosts.pair();
    hosts.protect();
    hosts.assert_in_sync();
    hosts.stop_target();
    disk.unmount();
    disk.mount(&image);
    hosts.serve();

    let at = |name: &str| hosts.mount.join(name);
    let mut file = fs::OpenOptions::new().append(true).open(at("a/b/c/written")).expect("a file");
    file.write_all(b"more").expect("a write");
    drop(file);
    fs::hard_link(at("a/b/c/linked"), at("a/link")).expect("a link");
    fs::OpenOptions::new().write(true).open(at("a/b/cut")).and_then(|file| file.set_len(5)).expect("a cut");
    fs::rename(at("a/moved"), at("a/b/c/here")).expect("a rename");
    fs::remove_file(at("a/b/gone")).expect("a removal");
    fs::create_dir(at("a/b/c/new")).expect("a directory");
    fs::set_permissions(at("a/b/c/linked"), fs::Permissions::from_mode(0o600)).expect("a mode");
    hosts.assert_in_sync();
    hosts.stop_source();
    hosts.stop_target();
}

/// A way out of the root that an administrator, or a mistake, has left there.
#[test]
fn a_confined_target_makes_no_replica_outside_of_its_root() {
    let mut hosts = Hosts::prepare();
    fs::write(hosts.backing().join("file"), "x").expect("a file");
    fs::create_dir(hosts.at("outside")).expect("a directory");
    std::os::unix::fs::symlink("../outside", hosts.replica()).expect("a symlink");
    hosts.serve();
    if let Some(why) = hosts.status(hosts.on_target())["target"]["not_confined"].as_str() {
        return eprintln!("NOT TESTED: {why}");
    }
    hosts.pair();
    let output = output_within(&mut hosts.protect_command(), COMMAND_MAX);
    assert!(!output.status.success() && describe(&output).contains("Permission denied"), "{output:?}");
    assert_eq!(fs::read_dir(hosts.at("outside")).expect("a directory").count(), 0);
    hosts.stop_target();
}

/// One source may have device nodes, by its invitation; the daemon had given up the right to make them.
#[test]
fn an_invitation_says_what_a_source_may_have() {
    let mut hosts = Hosts::prepare();
    fill(&hosts.backing());
    hosts.serve();
    let mut invite = hosts.on_target();
    let output = output_within(invite.args(["invite", "web", "--allow", "device"]), COMMAND_MAX);
    let said = describe(&output);
    assert!(output.status.success() && said.contains("Not yet: device."), "{said}");
    let output = hosts.pair_as("source-state", REPSET, &output.stdout);
    assert!(output.status.success(), "{}", describe(&output));
    let is_device = |hosts: &Hosts| {
        let kind = fs::symlink_metadata(hosts.replica().join("null")).expect("it is there").file_type();
        std::os::unix::fs::FileTypeExt::is_char_device(&kind)
    };
    let mode = |hosts: &Hosts| {
        fs::metadata(hosts.replica().join("tool")).expect("it is there").permissions().mode() & 0o7777
    };
    let peers = |hosts: &Hosts| {
        let output = output_within(hosts.on_target().args(["peers", "list", "--json"]), COMMAND_MAX);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        json["pairings"][0].clone()
    };
    hosts.protect();
    assert!(!is_device(&hosts), "what the daemon cannot do is withheld, not tried for ever");
    assert_eq!(peers(&hosts)["after_restart"], serde_json::json!(["device"]));
    hosts.stop_source();
    hosts.stop_target();

    hosts.serve();
    let mknod = CapabilitySet::MKNOD.bits();
    let kept = listed("## standin serve\n", 0) | mknod;
    assert_threads_have(pid_of(&hosts, hosts.on_target()), kept, kept);
    let pairing = peers(&hosts);
    assert_eq!(pairing["allow"], serde_json::json!(["device"]), "{pairing}");
    assert_eq!((&pairing["by_default"], &pairing["after_restart"]), (&false.into(), &serde_json::json!([])));
    hosts.protect();
    assert!(is_device(&hosts), "the next copy puts it right");
    assert_eq!(mode(&hosts), 0o755, "setuid was not allowed");
    hosts.stop_source();
}
