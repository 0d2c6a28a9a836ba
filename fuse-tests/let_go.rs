//! No call of a program waits for a target that is not there: when the queue is full it is let go at once.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{COMMAND_MAX, describe, heavy, output_within};
use crate::hosts::Hosts;
use crate::random::setting;
use standin::random::Random;

const MIB: u64 = 1 << 20;
/// Of the file that is rewritten.
const LARGE: u64 = 64 * MIB;
const PIECE: u64 = 64 << 10;
/// Where a full queue is looked for now and then, no call that finds one is through before this.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How a target comes not to be there.
#[derive(Clone, Copy, Debug)]
enum Away {
    Killed,
    Stopped,
    Paused,
}

/// What one writer noticed.
struct Noticed {
    median: Duration,
    p99: Duration,
    longest: Duration,
}

/// Rewrites so many bytes at random places.
fn write(hosts: &Hosts, bytes: u64, random: &mut Random) -> Noticed {
    let large = File::options().write(true).open(hosts.mount.join("large")).expect("the file");
    let mut took: Vec<Duration> = (0..bytes / PIECE)
        .map(|_| {
            let piece: Vec<u8> = (0..PIECE / 8).flat_map(|_| random.number().to_le_bytes()).collect();
            let at = random.below(LARGE / PIECE) * PIECE;
            let begun = Instant::now();
            large.write_all_at(&piece, at).expect("programs go on");
            begun.elapsed()
        })
        .collect();
    took.sort_unstable();
    let at = |percent: usize| took[took.len() * percent / 100];
    Noticed { median: at(50), p99: at(99), longest: took[took.len() - 1] }
}

#[track_caller]
fn told(hosts: &Hosts, word: &str) {
    let output = output_within(hosts.on_source().args(["connection", word]), COMMAND_MAX);
    assert!(output.status.success(), "{}", describe(&output));
}

/// While the target is not there more is written than the queue has room for; gives the longest call.
fn outage(hosts: &mut Hosts, away: Away, bytes: u64, random: &mut Random) -> Duration {
    match away {
        Away::Killed => hosts.kill_target(),
        Away::Stopped => told(hosts, "stop"),
        Away::Paused => told(hosts, "pause"),
    }
    if let Away::Killed = away {
        hosts.wait_for_source("away", |connection| connection["state"] == "error");
    }
    let before = hosts.status(hosts.on_source());
    let Noticed { median, p99, longest } = write(hosts, bytes, random);
    let after = hosts.status(hosts.on_source());
    let more = |name: &str| after["queue"][name].as_u64().unwrap() - before["queue"][name].as_u64().unwrap();
    println!(
        "{away:?}: a call took {median:?} (median), {p99:?} (99 of 100), {longest:?} (longest); {} waited {} ms",
        more("waits"),
        more("waited_ms")
    );
    assert!(more("waits") > 0, "the queue was never full: {after}");
    match away {
        Away::Killed => hosts.serve(),
        Away::Stopped => told(hosts, "start"),
        Away::Paused => told(hosts, "resume"),
    }
    hosts.assert_in_sync();
    let connection = hosts.connection();
    let began = |connection: &Value| connection["progress"]["started_unix_ms"].as_u64();
    assert!(began(&connection) > began(&before["connections"][0]), "it was not let go: {connection}");
    assert_eq!(connection["progress"]["mode"], Value::from("minicopy"), "{connection}");
    longest
}

fn check(disk_limit: &str, bytes: u64) {
    let _alone = heavy();
    let seed = setting("STANDIN_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("STANDIN_SEED={seed}");
    let (mut hosts, mut random) = (Hosts::prepare(), Random::new(seed));
    fs::write(hosts.backing().join("large"), vec![1; LARGE as usize]).expect("a file");
    hosts.serve();
    hosts.pair();
    hosts.protect_with(&["--queue-memory", "32M", "--queue-disk-limit", disk_limit]);
    hosts.assert_in_sync();
    let longest = [Away::Killed, Away::Stopped, Away::Paused, Away::Killed]
        .map(|away| outage(&mut hosts, away, bytes, &mut random));
    // On a machine that does much else some calls take long; of those that wait for a look none takes less.
    let least = longest.iter().min().expect("some");
    assert!(*least < LOOK_EVERY, "each time a call waited: {longest:?}");
}

#[test]
fn no_call_waits_for_who_is_not_there() {
    check("0", 80 * MIB);
}

#[test]
fn no_call_waits_for_who_is_not_there_when_the_disk_is_full() {
    check("64M", 200 * MIB);
}
