//! A replica that was stood in for says so, whatever of it is lost.

use std::fs;

use super::*;

fn stood_in() -> (Pair, Epoch) {
    let mut pair = Pair::new();
    pair.say(pair.source.create("f", 0o644));
    let epoch = Epoch { number: 2, writer: 9 };
    let mut applier = pair.applier.take().unwrap();
    assert_eq!(applier.fence(), None);
    applier.durable_point().unwrap();
    applier.raise_fence(epoch).unwrap();
    (pair, epoch)
}

fn fence(pair: &Pair) -> Option<Epoch> {
    Replica::open_or_adopt(&pair.places, SET).unwrap().fence()
}

/// Its old source came back, and its copy overwrote what had been written since.
#[test]
fn a_fence_outlives_the_state_and_the_mark() {
    let (pair, epoch) = stood_in();
    assert_eq!(fence(&pair), Some(epoch));
    fs::remove_dir_all(&pair.places.state).unwrap();
    assert_eq!(fence(&pair), Some(epoch), "without the state");
    rustix::fs::removexattr(&pair.places.root, IDENTITY_XATTR).unwrap();
    assert_eq!(fence(&pair), Some(epoch), "without the mark of the root");
}

#[test]
fn a_replica_stays_good_behind_its_fence_and_takes_durable_points() {
    let (pair, epoch) = stood_in();
    let mut replica = Replica::open(&pair.places, SET).unwrap();
    assert_eq!(replica.data().state, DataState::Good);
    let third = Epoch { number: 3, writer: 7 };
    replica.durable_point().unwrap();
    assert_eq!(replica.fence(), Some(epoch));
    replica.raise_fence(third).unwrap();
    drop(replica);
    assert_eq!(fence(&pair), Some(third));
}
