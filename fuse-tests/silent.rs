//! A target that is connected, beats, and says nothing: its disk hangs, or it is still opening the replica.

use std::fs;
use std::sync::Arc;

use standin::link::{Identity, Listener};

use crate::host::{COMMAND_MAX, Disk, describe, output_within, wait_in_line, wait_until};
use crate::pair::Pair;
use crate::tree::Rules;

/// No source of such a target could be started, though the target had answered before.
#[test]
fn a_known_target_that_says_nothing_keeps_nobody_from_being_protected() {
    let mut pair = Pair::start(Disk::Plain, Disk::Plain);
    pair.stop_source();
    pair.stop_target();
    let identity = Identity::load_or_create(&pair.state("target")).expect("the target's key");
    let silent = Listener::bind(pair.address(), Arc::new(identity), |_| true).expect("its port");
    let links = silent.links().clone();
    // Until it listens no more.
    let taken = std::thread::spawn(move || links.iter().collect::<Vec<_>>());
    pair.protect_at_once();
    fs::write(pair.mount.join("meanwhile"), "written").expect("it is protected");
    wait_until("it is said", || {
        let status = output_within(pair.daemon("source").arg("status"), COMMAND_MAX);
        describe(&status).contains("does not say what it holds")
    });
    assert!(pair.said().contains("it is copied to when it says so"), "{}", pair.said());
    drop(silent);
    drop(taken.join().expect("it has listened"));
    pair.serve();
    wait_in_line(|| pair.daemon("source"), || pair.said());
    pair.assert_in_sync_of(2, &Rules { hole_slack: 64 * 1024, ..Rules::default() });
    pair.stop_source();
}
