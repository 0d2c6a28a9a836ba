//! Files that go by blocks, by name: what happens between their hashes and what is sent of them.

use super::*;
use crate::limits::HASH_BLOCK;

const FILE: u64 = 2;
const BLOCK: usize = HASH_BLOCK as usize;

/// A file of several blocks changes without a packet; its hashes are answered; then something happens
/// that packets tell.
fn story(untold: impl Fn(&mut Origin), then: impl Fn(&mut Origin)) -> Checked {
    let mut random = Random::new(1);
    let mut world = World::new();
    world.by_blocks = true;
    assert_eq!(world.origin.create(ROOT, "file", Birth::File), FILE);
    world.origin.write(FILE, 0, &[7; 5 * BLOCK], false);
    world.packets()?;
    untold(&mut world.origin);
    world.begin()?;
    world.list(ROOT, &mut random)?;
    world.copy_on(&mut random)?;
    then(&mut world.origin);
    world.packets()?;
    match world.go_on(&mut random, 0, None)? {
        true => world.check(),
        false => Err("it has no end".into()),
    }
}

fn alter(origin: &mut Origin) {
    origin.write(FILE, 0, b"other", false);
}

fn cut(origin: &mut Origin) {
    alter(origin);
    origin.resize(FILE, BLOCK);
}

/// What was the same when it was compared is not sent: packets keep it so.
fn write_into_what_is_the_same(origin: &mut Origin) {
    origin.write(FILE, 3 * BLOCK, b"news", false);
}

/// Between the old end and what is written are zeros, whatever the replica had there.
fn write_behind_the_end(origin: &mut Origin) {
    origin.write(FILE, 4 * BLOCK, b"news", false);
}

#[test]
fn what_is_written_between_hashes_and_content_stays() {
    assert_eq!(story(alter, write_into_what_is_the_same), Ok(()));
    assert_eq!(story(cut, write_behind_the_end), Ok(()));
    assert_eq!(story(alter, |origin| origin.resize(FILE, 9)), Ok(()));
    assert_eq!(story(alter, alter), Ok(()));
}

#[test]
fn each_rule_is_needed() {
    for (planted, untold, then) in [
        (
            Planted::DropsWhatIsCompared,
            alter as fn(&mut Origin),
            write_into_what_is_the_same as fn(&mut Origin),
        ),
        (Planted::KeepsItsSize, cut, write_behind_the_end),
        (Planted::TakesAllForSame, alter, |_| ()),
    ] {
        planted::set(Some(planted));
        let outcome = story(untold, then);
        planted::set(None);
        assert!(outcome.is_err(), "{planted:?}");
    }
}
