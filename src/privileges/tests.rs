//! Lists against pages and units, and the real thing: on a thread and in a process of its own.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind::PermissionDenied;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::{CapabilitySet, capabilities, capability_is_in_bounding_set, no_new_privs};

use crate::apply::{Places, Replica};
use crate::control::append;
use crate::packet::SetId;
use crate::words::StatisticsTo;

use super::capabilities::{FLUSHER, PROTECT, PROTECT_START, SERVE, SERVE_START, for_allowed, give_up};
use super::files::{Confinement, Reach, confine, unconfined};

fn names(set: CapabilitySet) -> BTreeSet<String> {
    set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}

/// First cells of the tables below a heading (or another line), those that name capabilities, up
/// to the next heading of its level; a table at a time.
fn tables(page: &str, from: &str, to: &str) -> Vec<BTreeSet<String>> {
    let part = page.split(from).nth(1).unwrap_or_else(|| panic!("no line {from}"));
    let part = part.split(to).next().unwrap();
    let mut tables = vec![BTreeSet::new()];
    for line in part.lines() {
        match line.strip_prefix("| CAP_").and_then(|rest| rest.split(' ').next()) {
            Some(name) => drop(tables.last_mut().unwrap().insert(format!("CAP_{name}"))),
            None if !tables.last().unwrap().is_empty() => tables.push(BTreeSet::new()),
            None => {}
        }
    }
    tables.retain(|table| !table.is_empty());
    tables
}

#[test]
fn the_page_lists_what_is_kept() {
    let page = include_str!("../../docs/privileges.md");
    let protect = tables(page, "## standin protect\n", "\n## ");
    assert_eq!(protect, [names(PROTECT), names(FLUSHER)]);
    let serve = tables(page, "## standin serve\n", "\n### ");
    assert_eq!(serve, [names(SERVE), names(for_allowed(true, true))]);
    assert!(for_allowed(false, false).is_empty());
}

#[test]
fn the_units_allow_what_is_needed_and_no_more() {
    let bounds = |unit: &str| -> BTreeSet<String> {
        let lines = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
        lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
    };
    let protect = bounds(include_str!("../../packaging/standin@.service"));
    assert_eq!(protect, names(PROTECT | PROTECT_START));
    let serve = bounds(include_str!("../../packaging/standin-serve.service"));
    assert_eq!(serve, names(SERVE | for_allowed(true, true) | SERVE_START));
}

fn require_root() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
}

#[test]
fn what_is_given_up_is_gone_for_good() {
    require_root();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let had = capabilities(None).unwrap().permitted;
    std::thread::spawn(move || {
        std::os::unix::fs::chown(&file, Some(1), Some(1)).unwrap();
        let keep = CapabilitySet::FOWNER | CapabilitySet::DAC_OVERRIDE;
        assert_eq!(give_up(keep).unwrap(), keep - had);
        let error = std::os::unix::fs::chown(&file, Some(2), Some(2)).unwrap_err();
        assert_eq!(error.kind(), PermissionDenied);
        // A thread that comes later, and a second call, get no more.
        std::thread::spawn(move || {
            assert_eq!(give_up(PROTECT).unwrap(), PROTECT - (keep & had));
            let now = capabilities(None).unwrap();
            assert_eq!((now.permitted, now.effective), (keep & had, keep & had));
            assert!(now.inheritable.is_empty() && no_new_privs().unwrap());
            for (name, capability) in CapabilitySet::all().iter_names() {
                let bounded = capability_is_in_bounding_set(capability).unwrap_or(false);
                assert_eq!(bounded, (keep & had).contains(capability), "{name}");
            }
        })
        .join()
        .unwrap();
    })
    .join()
    .unwrap();
    assert_eq!(capabilities(None).unwrap().permitted, had, "other threads keep theirs");
}

const CONFINED_DIR: &str = "STANDIN_TEST_CONFINED_DIR";

/// In a process of its own: what is confined stays so.
#[test]
fn a_confined_process_is_refused_elsewhere() {
    require_root();
    let dir = tempfile::tempdir().unwrap();
    for place in ["root", "root/web", "state", "state/.serve", "run", "stats", "outside"] {
        fs::create_dir(dir.path().join(place)).unwrap();
    }
    fs::write(dir.path().join("outside/secret"), "secret").unwrap();
    fs::write(dir.path().join("state/targets.json"), "{}").unwrap();
    symlink("../outside", dir.path().join("root/way out")).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "privileges::tests::child_that_is_confined", "--ignored", "--nocapture"])
        .env(CONFINED_DIR, dir.path())
        .output()
        .unwrap();
    let [said, complained] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success() && said.contains("1 passed"), "{}: {said}{complained}", output.status);
    assert_eq!(fs::read(dir.path().join("outside/secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 1);
}

/// Opened by a rule for `/proc`, which ended when the kernel dropped its inodes, a target refused every
/// source until it was started again: nothing of `/proc` may be needed, or allowed, any more.
fn open_a_replica(dir: &Path) {
    let kernel = fs::read("/proc/sys/kernel/random/boot_id").unwrap_err();
    assert_eq!(kernel.kind(), PermissionDenied);
    let place = |name: &str| dir.join(name);
    fs::create_dir(place("root/replica")).unwrap();
    let places = Places::beside(&place("root/replica"), &place("state/.serve/replica"));
    drop(Replica::open(&places, SetId(7)).unwrap());
}

/// Each time that it is too long, also what rotates it.
fn write_statistics(path: &Path) {
    let to = StatisticsTo { path: path.to_owned(), size: 1, keep: 2 };
    (0..3).for_each(|_| append(&to, b"{}\n").unwrap());
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap_err().kind(), PermissionDenied, "no need to list");
    assert_eq!(fs::read(path.with_extension("jsonl.1")).unwrap(), b"{}\n");
}

#[test]
#[ignore = "runs as the child of another test"]
fn child_that_is_confined() {
    let Some(dir) = std::env::var_os(CONFINED_DIR).map(PathBuf::from) else { return };
    let at = |name: &str| dir.join(name);
    let reach = Reach {
        root: at("root"),
        state: at("state/.serve"),
        records: at("state"),
        run: at("run"),
        statistics: Some(at("stats")),
        device: false,
    };
    match confine(&reach).unwrap() {
        Confinement::Confined => {}
        Confinement::None(why) => {
            eprintln!("NOT TESTED: {why}");
            return;
        }
    }
    let refused = |what: &str, outcome: std::io::Result<()>| match outcome {
        Err(error) if error.kind() == PermissionDenied => {}
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {}
        other => panic!("{what}: {other:?}"),
    };
    for secret in ["outside/secret", "root/way out/secret"] {
        refused("read", fs::read(at(secret)).map(drop));
        refused("write", fs::OpenOptions::new().write(true).open(at(secret)).map(drop));
        refused("truncate", fs::OpenOptions::new().append(true).open(at(secret)).map(drop));
        refused("unlink", fs::remove_file(at(secret)));
        refused("link in", fs::hard_link(at(secret), at("root/link")));
        refused("move in", fs::rename(at(secret), at("root/moved")));
    }
    refused("list", fs::read_dir(at("outside")).map(drop));
    refused("make", fs::create_dir(at("root/way out/new")));
    refused("passwords", fs::read("/etc/shadow").map(drop));
    refused("another thread", std::thread::spawn(|| fs::read("/etc/shadow").map(drop)).join().unwrap());
    fs::write(at("root/web/file"), "x").unwrap();
    refused("move out", fs::rename(at("root/web/file"), at("outside/file")));
    refused("run a program", Command::new(at("root/web/file")).spawn().map(drop));
    // What a target does there.
    fs::create_dir(at("root/.web.standin")).unwrap();
    fs::rename(at("root/web/file"), at("root/.web.standin/file")).unwrap();
    fs::hard_link(at("root/.web.standin/file"), at("root/web/again")).unwrap();
    fs::write(at("state/.serve/index"), "x").unwrap();
    fs::rename(at("state/.serve/index"), at("state/.serve/index.old")).unwrap();
    assert_eq!(fs::read(at("state/targets.json")).unwrap(), b"{}");
    fs::read_dir(at("state")).unwrap();
    refused("change what it may read", fs::write(at("state/targets.json"), "x"));
    write_statistics(&at("stats/s.jsonl"));
    refused("make a directory", fs::create_dir(at("stats/new")));
    let socket = std::os::unix::net::UnixListener::bind(at("run/socket")).unwrap();
    fs::remove_file(at("run/socket")).unwrap();
    drop(socket);
    open_a_replica(&dir);
    let secret = at("outside/secret");
    assert_eq!(unconfined(move || fs::read(secret)).unwrap(), b"secret");
}
