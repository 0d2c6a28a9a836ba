//! Whatever a person orders, and in which order: when all goes on again, everything arrives, is acknowledged and
//! leaves the queue.
//!
//! `STANDIN_SEED=x` runs one seed, `STANDIN_SEEDS=n` so many new ones.

use std::fs;

use serde_json::Value;
use standin::random::Random;

use crate::host::{COMMAND_MAX, Protected, Setup, describe, output_within, standin};
use crate::mirror::{is_complete, wait_for};
use crate::random::seeds;

const SEEDS: u64 = 2;
const ROUNDS: u64 = 6;
const ORDERS_MAX: u64 = 8;
/// More than the queue has room for.
const LARGE: usize = 40 << 20;

const ORDERS: &[&[&str]] = &[
    &["connection", "stop"],
    &["connection", "start"],
    &["connection", "pause"],
    &["connection", "resume"],
    &["replication", "stop"],
    &["replication", "start"],
    &["mirror", "start"],
    &["mirror", "start", "--mode", "checksum"],
    &["mirror", "start", "--mode", "full"],
    &["mirror", "stop"],
    &["mirror", "pause"],
    &["mirror", "resume"],
    &["verify", "--timeout", "5s"],
];

/// Some are refused, as things are.
fn order(protected: &Protected, words: &[&str]) {
    let output = output_within(standin(&protected.run).args(words), COMMAND_MAX);
    assert!(output.status.code().is_some_and(|code| code <= 2), "{words:?}: {}", describe(&output));
}

/// As a person would: everything that is held goes on.
fn go_on(protected: &Protected) {
    for words in
        [["replication", "start"], ["connection", "start"], ["connection", "resume"], ["mirror", "resume"]]
    {
        order(protected, &words);
    }
    // A copy that was stopped is known as such only when the target has answered.
    let is_stopped = |connection: &Value| connection["mirror"]["phase"] == "stopped";
    let is_in_line = |connection: &Value| is_complete(connection) && connection["needs_copy"] == false;
    let settled = wait_for(protected, "settled", |now| is_stopped(now) || is_in_line(now));
    if is_stopped(&settled) {
        order(protected, &["mirror", "start"]);
    }
}

fn run(seed: u64, arguments: Vec<&'static str>) {
    println!("STANDIN_SEED={seed} {arguments:?}");
    let mut random = Random::new(seed);
    let mut protected = Protected::start(Setup { arguments, ..Setup::default() });
    fs::write(protected.mount.join("file"), "content").expect("a file");
    protected.wait_sync();
    for round in 0..ROUNDS {
        // Then a copy may have nothing to bring.
        let is_idle = random.one_in(2);
        if is_idle {
            order(&protected, &["wait-sync", "--durable"]);
        }
        for at in 0..1 + random.below(ORDERS_MAX) {
            let words = random.pick(ORDERS).copied().expect("some order");
            println!("  round {round}: {words:?}");
            order(&protected, words);
            if !is_idle && random.one_in(4) {
                let name = format!("file{}", random.below(4));
                fs::write(protected.mount.join(name), format!("{round}.{at}")).expect("a write");
            }
            std::thread::sleep(std::time::Duration::from_millis(random.below(60)));
        }
        if random.one_in(4) {
            println!("  round {round}: a restart");
            protected.stop_by(libc::SIGTERM);
            protected.start_at_once();
        }
        go_on(&protected);
        protected.assert_in_sync();
        wait_for(&protected, "nothing queued", |connection| connection["queued"]["packets"] == 0);
    }
    fs::write(protected.mount.join("large"), vec![7; LARGE]).expect("a write");
    protected.assert_in_sync();
    protected.stop();
}

#[test]
fn what_is_held_goes_on_whatever_was_ordered_before() {
    for seed in seeds(SEEDS) {
        let mut arguments = vec!["--queue-memory", "32M"];
        if seed.is_multiple_of(2) {
            arguments.extend(["--queue-disk-limit", "0"]);
        }
        run(seed, arguments);
    }
}
