//! What memory has no room for goes to disk: an outage that fits there costs no resynchronisation, one that does not
//! is as without it, and a disk that takes nothing, too.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{
    self, COMMAND_MAX, Image, Protected, Setup, describe, heavy, output_within, standin, wait_until,
};
use crate::hosts::Hosts;
use crate::random::setting;
use crate::tree;
use standin::random::Random;

const MIB: u64 = 1 << 20;
/// Of the file that is rewritten.
const LARGE: u64 = 64 * MIB;
const PIECE: u64 = 64 << 10;

fn make_large(dir: &Path) {
    fs::write(dir.join("large"), vec![1; LARGE as usize]).expect("a file");
}

/// Rewrites so many bytes at random places, and makes, renames and removes files meanwhile.
fn change(dir: &Path, bytes: u64, random: &mut Random) {
    let large = File::options().write(true).open(dir.join("large")).expect("the file");
    for round in 0..bytes / PIECE {
        let piece: Vec<u8> = (0..PIECE / 8).flat_map(|_| random.number().to_le_bytes()).collect();
        large.write_all_at(&piece, random.below(LARGE / PIECE) * PIECE).expect("programs go on");
        let name = |number: u64| dir.join(format!("file{number}"));
        fs::write(name(round), round.to_string()).expect("programs go on");
        if round >= 3 && round % 3 == 0 {
            fs::rename(name(round - 1), name(round - 2)).expect("programs go on");
        }
        if round >= 9 && round % 9 == 0 {
            fs::remove_file(name(round - 9)).expect("programs go on");
        }
    }
}

fn seeded() -> Random {
    let seed = setting("STANDIN_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("STANDIN_SEED={seed}");
    Random::new(seed)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// Looks until it is so; what the status said then.
#[track_caller]
fn wait_for(status: impl Fn() -> Value, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = status();
        if is_so(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "never {what}: {status}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn an_outage_that_the_disk_holds_costs_no_copy() {
    let _alone = heavy();
    let (mut hosts, mut random) = (Hosts::prepare(), seeded());
    make_large(&hosts.backing());
    hosts.serve();
    hosts.pair();
    let queue = hosts.at("queue");
    fs::create_dir(&queue).expect("a directory");
    let queue = queue.to_str().expect("a plain path").to_owned();
    hosts.protect_with(&["--queue-memory", "32M", "--queue-disk-limit", "64M", "--queue-dir", &queue]);
    hosts.assert_in_sync();
    let before = hosts.status(hosts.on_source());
    for outage in 1..=2 {
        let connected = hosts.connected_since();
        hosts.kill_target();
        change(&hosts.mount, 56 * MIB, &mut random);
        let away = hosts.status(hosts.on_source());
        let (memory, disk) = (number(&away["queue"]["bytes"]), &away["queue"]["disk"]);
        assert!(memory <= 32 * MIB && number(&disk["bytes"]) > 20 * MIB, "{away}");
        assert!(number(&disk["file_bytes"]) <= 64 * MIB && disk["trouble"].is_null(), "{away}");
        assert_eq!(away["connections"][0]["needs_copy"], false, "{away}");
        // A spare one may be made between the two looks.
        wait_until("what is said of its files is so", || {
            let said = number(&hosts.status(hosts.on_source())["queue"]["disk"]["file_bytes"]);
            let own = fs::read_dir(Path::new(&queue).join("here.queue")).expect("the set's own");
            own.count() as u64 * 8 * MIB == said
        });
        hosts.serve();
        hosts.wait_until_resumed(connected);
        // It follows from where it stood.
        let replica = hosts.status(hosts.on_target());
        assert_eq!(replica["target"]["replicas"][0]["data"], "good", "outage {outage}: {replica}");
        hosts.assert_in_sync();
        let after = wait_for(
            || hosts.status(hosts.on_source()),
            "empty",
            |status| {
                status["queue"]["disk"]["bytes"] == 0
                    && number(&status["queue"]["disk"]["file_bytes"]) <= 8 * MIB
            },
        );
        assert_eq!(after["queue"]["packets"], 0, "{after}");
        assert_eq!(
            after["connections"][0]["progress"], before["connections"][0]["progress"],
            "no copy: {after}"
        );
    }
    let memory = |status: &Value| number(&status["process"]["memory_bytes"]);
    let after = hosts.status(hosts.on_source());
    println!("resident memory: {} before, {} after", memory(&before), memory(&after));
    hosts.stop_source();
    hosts.stop_target();
    let left = fs::read_dir(Path::new(&queue).join("here.queue")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "segments stay");
}

/// `standin …` on this host, which must succeed.
#[track_caller]
fn told(protected: &Protected, arguments: &[&str]) {
    let output = output_within(standin(&protected.run).args(arguments), COMMAND_MAX);
    assert!(output.status.success(), "{arguments:?}: {}", describe(&output));
}

fn status(protected: &Protected) -> Value {
    serde_json::from_str(&protected.status()).expect("JSON")
}

/// Lets the queue of a stopped connection grow beyond what it may; gives what its status said.
fn let_go(protected: &mut Protected, trouble: &str) {
    let mut random = seeded();
    make_large(&protected.mount);
    protected.wait_sync();
    told(protected, &["connection", "stop"]);
    change(&protected.mount, 20 * MIB, &mut random);
    assert_eq!(status(protected)["connections"][0]["needs_copy"], false);
    let troubled = std::thread::scope(|scope| {
        let mount = protected.mount.clone();
        let writer = scope.spawn(move || change(&mount, 140 * MIB, &mut random));
        let said = wait_for(
            || status(protected),
            "in trouble",
            |status| !status["queue"]["disk"]["trouble"].is_null(),
        );
        writer.join().expect("programs go on");
        said
    });
    assert_eq!(troubled["queue"]["disk"]["trouble"], trouble, "{troubled}");
    let said = troubled["findings"].to_string() + &troubled["health"].to_string();
    assert!(said.contains("The queue on disk takes nothing"), "{troubled}");
    let gone =
        wait_for(|| status(protected), "let go", |status| status["connections"][0]["needs_copy"] == true);
    assert!(
        gone["connections"][0]["reason"].as_str().is_some_and(|why| why.contains("became full")),
        "{gone}"
    );
    told(protected, &["connection", "start"]);
    protected.wait_in_line();
    protected.assert_in_sync();
    let after = status(protected);
    assert_eq!(after["connections"][0]["progress"]["mode"], "minicopy", "{after}");
    // The disk takes something again.
    wait_for(
        || status(protected),
        "out of trouble",
        |status| status["queue"]["disk"]["bytes"] == 0 && status["queue"]["disk"]["trouble"].is_null(),
    );
    protected.stop();
}

#[test]
fn an_outage_beyond_the_limit_is_a_minicopy() {
    let _alone = heavy();
    let arguments = vec!["--queue-memory", "32M", "--queue-disk-limit", "64M"];
    let_go(&mut Protected::start(Setup { arguments, ..Setup::default() }), "at_limit");
}

#[test]
fn a_full_disk_of_the_queue_is_no_error_of_a_program() {
    let _alone = heavy();
    let own = tempfile::tempdir().expect("a temporary directory");
    let image = Image::mount(own.path(), own.path().join("disk"), "ext4", 110);
    let queue = own.path().join("disk").to_str().expect("a plain path").to_owned();
    let arguments: Vec<&'static str> =
        vec!["--queue-memory", "32M", "--queue-disk-limit", "64M", "--queue-dir", queue.leak()];
    let mut protected = Protected::start(Setup { arguments, ..Setup::default() });
    let_go(&mut protected, "no_space");
    drop(protected);
    drop(image);
}

/// What is queued has nowhere to stay: the stop says so, and the next start finds all of it.
#[test]
fn a_stop_says_why_a_queue_is_not_kept() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let image = Image::mount(own.path(), own.path().join("disk"), "ext4", 110);
    let queue = own.path().join("disk").to_str().expect("a plain path").to_owned();
    let arguments: Vec<&'static str> = vec!["--queue-dir", queue.leak()];
    let mut protected = Protected::start(Setup { arguments, ..Setup::default() });
    make_large(&protected.mount);
    protected.wait_sync();
    told(&protected, &["connection", "pause"]);
    let filler = File::create(own.path().join("disk/filler")).expect("a file");
    let piece = vec![7; MIB as usize];
    let filled = (0..200).find_map(|number| filler.write_all_at(&piece, number * MIB).err());
    assert_eq!(filled.and_then(|error| error.raw_os_error()), Some(libc::ENOSPC), "the disk is not full");
    // More than a segment that was made beforehand takes.
    change(&protected.mount, 24 * MIB, &mut seeded());
    let said = protected.stop_incomplete_by(libc::SIGTERM);
    assert!(said.contains("; its queue is not kept: "), "{said}");
    assert!(!said.contains("sent after the next start"), "{said}");
    protected.start_at_once();
    told(&protected, &["connection", "resume"]);
    protected.wait_in_line();
    protected.assert_in_sync();
    protected.stop();
    drop(protected);
    drop(image);
}

/// What one target lacks is on disk, and the other one is served from memory.
#[test]
fn a_target_that_is_away_does_not_slow_another_one() {
    let _alone = heavy();
    let own = host::dir_on_disk();
    let (second, mut random) = (own.path().join("second"), seeded());
    let to = format!("local:{}", second.display()).leak();
    let arguments = vec!["--queue-memory", "32M", "--to", to];
    let mut protected = Protected::start(Setup { arguments, ..Setup::default() });
    make_large(&protected.mount);
    protected.wait_sync();
    told(&protected, &["connection", "stop", "2"]);
    for _ in 0..4 {
        change(&protected.mount, 24 * MIB, &mut random);
        let last = number(&status(&protected)["last"]);
        wait_for(
            || status(&protected),
            "applied",
            |status| number(&status["connections"][0]["applied"]) >= last,
        );
    }
    let away = status(&protected);
    println!("writers waited {} times", away["queue"]["waits"]);
    assert!(number(&away["queue"]["disk"]["bytes"]) > 64 * MIB, "{away}");
    assert_eq!(away["connections"][1]["needs_copy"], false, "{away}");
    told(&protected, &["connection", "start", "2"]);
    protected.assert_in_sync();
    tree::assert_same(&protected.backing, &second);
    let after = status(&protected);
    assert!(
        after["connections"][1]["reason"].as_str().is_some_and(|why| why.starts_with("resumed")),
        "{after}"
    );
    protected.stop();
}

#[test]
fn settings_of_the_disk_queue_that_cannot_be_are_refused() {
    let protected = Protected::prepare(Setup::default());
    fs::write(protected.base.path().join("file"), "").expect("a file");
    fs::create_dir(protected.backing.join("below")).expect("a directory");
    let at = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let (below, file) = (at(&protected.backing.join("below")), at(&protected.base.path().join("file")));
    let (replica, missing) = (at(&protected.replica), at(&protected.base.path().join("missing")));
    let cases: [(&[&str], &str); 7] = [
        (&["--queue-disk-limit", "31M"], "too small"),
        (&["--queue-disk-limit", "0", "--queue-dir", &missing], "nothing would be put into"),
        (&["--queue-dir", &below], "is inside the protected directory"),
        (&["--queue-dir", &at(&protected.mount)], "is the mount point"),
        (&["--queue-dir", &replica], "is the replica"),
        (&["--queue-dir", &file], "is no directory"),
        (&["--queue-dir", &missing], "cannot be used"),
    ];
    for (arguments, words) in cases {
        let mut command: Command = protected.protect_command();
        let output = output_within(command.args(arguments), COMMAND_MAX);
        let said = describe(&output);
        assert!(!output.status.success() && said.contains(words), "{arguments:?}: {said}");
        assert!(!host::is_mounted(&protected.mount) && !Path::new(&missing).exists(), "{arguments:?}");
        assert_eq!(fs::read_dir(&protected.backing).expect("it").count(), 1, "{arguments:?}");
    }
}
