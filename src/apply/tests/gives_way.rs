//! What a copy has left in its place is moved aside when the source needs the place.

use std::fs;

use super::source::Source;
use super::*;

fn pair() -> (Pair, Source) {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    for name in ["dir", "other"] {
        pair.say(source.mkdir(name, 0o755));
    }
    for name in ["taken", "linked", "moved", "dir/kept", "other/kept"] {
        fs::write(pair.replica(name), "kept").unwrap();
    }
    (pair, source)
}

fn orphans(pair: &Pair) -> usize {
    let batches = fs::read_dir(pair.places.limbo.join("orphans")).into_iter().flatten();
    batches.map(|batch| fs::read_dir(batch.unwrap().path()).unwrap().count()).sum()
}

#[test]
fn kept_orphans_give_way_to_packets() {
    let (mut pair, source) = pair();
    pair.applier().replica().keep_orphans(true).unwrap();
    // Also in the process after this one.
    pair.crash();
    pair.say(source.create("taken", 0o644));
    pair.say(source.link("taken", "linked"));
    pair.say(source.rename("linked", "moved"));
    pair.say(source.rmdir("dir"));
    pair.say(source.mkdir("new", 0o755));
    pair.say(source.rename("new", "other"));
    pair.assert_same();
    assert_eq!(orphans(&pair), 5);
}

/// Its name was freed, and the op went on waiting.
#[test]
fn one_of_two_names_of_a_kept_orphan_gives_way() {
    let (mut pair, source) = pair();
    pair.applier().replica().keep_orphans(true).unwrap();
    fs::hard_link(pair.replica("taken"), pair.replica("dir/too")).unwrap();
    pair.say(source.create("taken", 0o644));
    assert!(pair.replica("dir/too").exists());
}

#[test]
fn without_kept_orphans_nothing_gives_way() {
    let (mut pair, source) = pair();
    pair.fails(&source.create("taken", 0o644));
    pair.fails(&source.rmdir("dir"));
    assert_eq!(orphans(&pair), 0);
}
