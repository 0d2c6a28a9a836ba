//! `--statistics` of real daemons: what is in the lines, when they come, and that their disk is nobody's concern.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::host::{
    COMMAND_MAX, Daemon, Disk, Frozen, Image, Place, Protected, Setup, describe, output_within, standin,
    wait_until,
};
use crate::pair::Pair;

/// Every line of it is a document.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(line).collect()
}

fn last(path: &Path) -> Value {
    lines(path).pop().unwrap_or_default()
}

fn number(line: &Value, name: &str) -> u64 {
    line[name].as_u64().unwrap_or_else(|| panic!("no {name}: {line}"))
}

/// A protection whose file asks for statistics in a directory of its own, or on a disk of so many MiB.
fn prepare(disk: Option<u64>) -> (Protected, PathBuf, Option<Image>) {
    let protected = Protected::prepare(Setup::default());
    let dir = protected.base.path().join("stats");
    let image = disk.map(|mib| Image::mount(protected.base.path(), dir.clone(), "tmpfs", mib));
    if image.is_some() {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("our own disk");
    } else {
        fs::create_dir(&dir).expect("a directory");
    }
    let file = dir.join("data.jsonl");
    fs::create_dir_all(protected.state.join("sets")).expect("a directory");
    let text = format!("statistics = {file:?}\nstatistics_size = \"64K\"\nstatistics_keep = 2\n");
    fs::write(protected.state.join("sets/m.toml"), text).expect("the set's file");
    (protected, file, image)
}

fn status(protected: &Protected) -> Value {
    serde_json::from_str(&protected.status()).expect("a status")
}

fn is_failing(status: &Value) -> bool {
    status["findings"].as_array().expect("a list").iter().any(|one| one["code"] == "statistics_failing")
}

/// All that was written is sent, and said.
fn wait_idle(protected: &Protected, file: &Path) -> Value {
    protected.wait_sync();
    let fits = || {
        let (line, status) = (last(file), status(protected));
        let connection = &status["connections"][0];
        line["activity"] == "idle"
            && line["applied_position"] == connection["applied"]
            && line["durable_position"] == connection["durable"]
            && line["applied_position"] == status["last"]
            && line["durable_position"] == status["last"]
    };
    wait_until("it is idle, and said to be", fits);
    last(file)
}

#[test]
fn statistics_are_lines_that_fit_the_status() {
    let (mut protected, file, _) = prepare(None);
    protected.start_again();
    let mut data = File::create(protected.mount.join("secret-name")).expect("a file");
    for _ in 0..40 {
        data.write_all(&[7; 100_000]).expect("a write");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(data);
    let idle = wait_idle(&protected, &file);
    let status = status(&protected);
    let connection = &status["connections"][0];
    for (name, value) in [
        ("sent_packets", &connection["sent"]["packets"]),
        ("sent_bytes", &connection["sent"]["bytes"]),
        ("captured_bytes", &status["queue"]["captured_bytes"]),
        ("connection", &connection["uuid"]),
        ("state", &connection["state"]),
        ("data", &connection["data"]),
        ("mirror_sent_bytes", &connection["progress"]["bytes_done"]),
    ] {
        assert_eq!(&idle[name], value, "{name}: {idle}");
    }
    assert!(number(&idle, "captured_bytes") >= 4_000_000 && number(&idle, "dropped_lines") == 0, "{idle}");
    assert_eq!((number(&idle, "queued_packets"), number(&idle, "lag_durable_packets")), (0, 0));
    let all = lines(&file);
    assert_steady(&all);
    let text = fs::read_to_string(&file).expect("lines");
    let base = protected.base.path().to_str().expect("UTF-8");
    assert!(!text.contains("secret-name") && !text.contains(base), "{text}");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o7777, 0o640);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(lines(&file).len(), all.len(), "idle is said once in a while: {}", last(&file));
    let moved = file.with_extension("moved");
    fs::rename(&file, &moved).expect("as logrotate does it");
    fs::write(protected.mount.join("more"), "more").expect("a write");
    wait_until("a new file has lines", || !lines(&file).is_empty());
    assert_eq!(lines(&moved).len(), all.len(), "nothing comes behind it");
    wait_idle(&protected, &file);
    let (before, sent) = (lines(&file).len(), number(&last(&file), "sent_bytes"));
    protected.stop();
    assert!(lines(&file).len() > before, "how it has ended: {}", last(&file));
    assert!(number(&last(&file), "sent_bytes") >= sent, "{}", last(&file));
}

/// A line a second, and counters that only grow by what is sent.
#[track_caller]
fn assert_steady(all: &[Value]) {
    let active: Vec<&Value> = all.iter().filter(|line| line["activity"] == "active").collect();
    assert!(active.len() >= 4, "four seconds of writing: {all:?}");
    for pair in all.windows(2) {
        let apart = number(&pair[1], "at_unix_ms") - number(&pair[0], "at_unix_ms");
        assert!(apart >= 500, "{apart} ms: {pair:?}");
        assert!(number(&pair[1], "sent_bytes") >= number(&pair[0], "sent_bytes"), "{pair:?}");
    }
    // Rates are of the second before, wherever there was a line of it.
    let known = active.iter().filter(|line| line.get("sent_bytes_per_second").is_some());
    assert!(known.count() + 1 >= active.len(), "{active:?}");
    let from = number(&all[0], "sent_bytes");
    let sent = number(&all[all.len() - 1], "sent_bytes") - from;
    let by_rates: f64 = all
        .windows(2)
        .filter_map(|pair| {
            let ms = number(&pair[1], "at_unix_ms") - number(&pair[0], "at_unix_ms");
            // Of those that were idle between, nothing was sent before the last second.
            Some(pair[1]["sent_bytes_per_second"].as_u64()? as f64 * ms.min(1500) as f64 / 1000.0)
        })
        .sum();
    assert!((by_rates - sent as f64).abs() <= 0.2 * sent as f64 + 1000.0, "{by_rates} of {sent}: {all:?}");
}

#[test]
fn a_full_disk_of_statistics_disturbs_nobody() {
    let (mut protected, file, image) = prepare(Some(1));
    protected.start_again();
    wait_until("a line", || !lines(&file).is_empty());
    let filler = file.with_file_name("filler");
    let mut full = File::create(&filler).expect("a file");
    while full.write_all(&[1; 512]).is_ok() {}
    wait_until("it fails", || {
        fs::write(protected.mount.join("file"), "text").expect("programs go on");
        is_failing(&status(&protected))
    });
    protected.assert_in_sync();
    lines(&file);
    fs::remove_file(&filler).expect("a file");
    drop(full);
    wait_until("it goes on", || {
        fs::write(protected.mount.join("file"), "text again").expect("a write");
        !is_failing(&status(&protected)) && last(&file)["dropped_lines"].as_u64().is_some_and(|lost| lost > 0)
    });
    wait_idle(&protected, &file);
    protected.stop();
    drop(image);
}

#[test]
fn a_target_writes_statistics_of_its_replicas() {
    let mut pair = Pair::start(Disk::Plain, Disk::Plain);
    pair.stop_target();
    let dir = pair.state("target").with_file_name("stats");
    fs::create_dir(&dir).expect("a directory");
    let file = dir.join("serve.jsonl");
    let mut command = pair.serve_command();
    command.arg("--statistics").arg(&file);
    let mut target = Daemon::spawn(command);
    target.wait_ready();
    pair.target = Some(target);
    for number in 0..20 {
        fs::write(pair.mount.join(format!("file-{number}")), "text").expect("a write");
    }
    wait_until("the source is there", || {
        lines(&file).iter().any(|line| line["of"] == "replica" && line["connected"] == true)
    });
    let output = output_within(pair.daemon("source").args(["wait-sync", "--durable"]), COMMAND_MAX);
    assert!(output.status.success(), "{}", describe(&output));
    let of_status = || -> Value {
        let output = output_within(standin(&pair.run("target")).args(["status", "--json"]), COMMAND_MAX);
        serde_json::from_slice(&output.stdout).expect("a status")
    };
    wait_until("its lines fit the status", || {
        let (line, status) = (last(&file), of_status());
        let replica = &status["target"]["replicas"][0];
        line["set"] == replica["name"]
            && line["applied_position"] == replica["applied"]
            && line["durable_position"] == replica["durable"]
            && line["data"] == "good"
            && line["activity"] == "idle"
    });
    pair.stop_source();
    pair.stop_target();
}

#[test]
fn a_file_for_statistics_that_makes_no_sense_is_refused() {
    let mut protected = Protected::prepare(Setup::default());
    let open = protected.base.path().join("open");
    fs::create_dir(&open).expect("a directory");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("our own directory");
    let link = protected.base.path().join("link.jsonl");
    std::os::unix::fs::symlink("elsewhere", &link).expect("a link");
    let at = |path: PathBuf| vec!["--statistics".into(), path.into_os_string()];
    let fine = protected.base.path().join("fine.jsonl");
    let with = |option: &str, value: &str| {
        at(fine.clone()).into_iter().chain([option.into(), value.into()]).collect::<Vec<_>>()
    };
    for (arguments, why) in [
        (at(protected.mount.join("s.jsonl")), "is inside the mount point"),
        (at(protected.backing.join("sub/s.jsonl")), "is inside the protected directory"),
        (at(protected.replica.join("s.jsonl")), "is inside the replica"),
        (at(open.join("s.jsonl")), "others may write to its directory (mode 0777)"),
        (at(link.clone()), "is a symbolic link"),
        (at("/s.jsonl".into()), "directory of its own"),
        (with("--statistics-size", "1K"), "too short"),
        (with("--statistics-keep", "0"), "0 is not in 1..=100"),
        (vec!["--statistics-keep".into(), "3".into()], "--statistics <FILE>"),
    ] {
        let output = output_within(protected.protect_command().args(&arguments), COMMAND_MAX);
        let said = describe(&output);
        assert!(output.status.code() == Some(2) && said.contains(why), "{arguments:?}: {said}");
    }
    assert!(!link.with_file_name("elsewhere").exists() && !fine.exists());
    // What may come to be there later keeps nothing from its start.
    fs::create_dir_all(protected.state.join("sets")).expect("a directory");
    let missing = protected.base.path().join("missing/s.jsonl");
    fs::write(protected.state.join("sets/m.toml"), format!("statistics = {missing:?}\n")).expect("a file");
    protected.start_again();
    wait_until("status says so", || is_failing(&status(&protected)));
    let other = protected.base.path().join("other");
    fs::create_dir(&other).expect("a directory");
    let mut protect = standin(&protected.run);
    protect.arg("--state").arg(&protected.state).arg("protect").arg(&other).args(["--to", "null:"]);
    let output = output_within(protect.arg("--statistics").arg(protected.mount.join("s.jsonl")), COMMAND_MAX);
    let said = describe(&output);
    assert!(output.status.code() == Some(2) && said.contains(": standin protects "), "{said}");
    protected.stop();
    let root = protected.base.path();
    let mut serve = standin(&protected.run);
    serve.arg("--state").arg(&protected.state).args(["serve", "--listen", "127.0.0.1:0", "--root"]);
    serve.arg(root.join("replica")).arg("--statistics").arg(root.join("replica/s.jsonl"));
    let output = output_within(&mut serve, COMMAND_MAX);
    let said = describe(&output);
    assert!(output.status.code() == Some(2) && said.contains("among the replicas"), "{said}");
}

/// The next start said that the protection went on as before.
#[test]
fn of_a_daemon_that_a_disk_keeps_from_ending_it_is_said() {
    let mut protected = Protected::prepare(Setup::default());
    let at = protected.base.path().join("stats");
    let image = Image::mount(protected.base.path(), at.clone(), "ext4", 20);
    fs::create_dir(at.join("own")).expect("a directory");
    let file = at.join("own/data.jsonl");
    let mut command = protected.protect_command();
    command.arg("--statistics").arg(&file);
    let mut daemon = Daemon::spawn(command);
    daemon.wait_ready();
    wait_until("a line", || !lines(&file).is_empty());
    let frozen = Frozen::disk(&at);
    let thread_hangs = |pid: u32| {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        threads
            .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
            .any(|status| status.starts_with("Name:\tstatistics") && status.contains("\nState:\tD"))
    };
    wait_until("its thread hangs", || {
        fs::write(protected.mount.join("file"), "programs go on").expect("a write");
        thread_hangs(daemon.pid())
    });
    daemon.signal(libc::SIGKILL);
    wait_until("it serves no more", || {
        let output = output_within(&mut protected.protect_command(), COMMAND_MAX);
        let said = describe(&output);
        let is_named =
            said.contains(&format!("(pid {}) was ended", daemon.pid())) && said.contains("(statistics)");
        is_named && !said.contains("goes on as before") && output.status.code() == Some(1)
    });
    drop(frozen);
    assert!(daemon.wait(COMMAND_MAX).is_some(), "it ends with its disk");
    protected.start_again();
    protected.assert_in_sync();
    protected.stop();
    drop(image);
}

/// They were written past the mount of another set, and into its replica.
#[test]
fn statistics_are_written_into_nobody_elses_tree() {
    let protected = Protected::start(Setup { place: Place::Beside, ..Setup::default() });
    let other = protected.base.path().join("other");
    fs::create_dir(&other).expect("a directory");
    for place in [&protected.backing, &protected.replica] {
        let mut second = standin(&protected.run);
        second.arg("protect").arg(&other).args(["--to", "null:", "--state"]).arg(&protected.state);
        let output = output_within(second.arg("--statistics").arg(place.join("x.jsonl")), COMMAND_MAX);
        let said = describe(&output);
        assert!(output.status.code() == Some(2) && said.contains("used by the protection of 'm'"), "{said}");
    }
    protected.assert_in_sync();
}
