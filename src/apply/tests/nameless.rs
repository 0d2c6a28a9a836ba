//! Objects whose last name inside went while a link outside the set lives on the source.

use std::fs;

use super::*;
use crate::packet::LINKS_UNKNOWN;

/// A hard-linked backup holds the file; a program has it open, removes its only name here and goes
/// on writing. Once the replica had no such object any more, and everything behind waited for ever.
#[test]
fn what_is_written_without_a_name_is_there_when_it_gets_one() {
    for replaced in [false, true] {
        for crash in [false, true] {
            check(replaced, crash);
        }
    }
}

fn check(replaced: bool, crash: bool) {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("log", 0o644));
    pair.say(source.create("other", 0o644));
    pair.say(source.write("log", 0, b"hello"));
    fs::hard_link(source.path("log"), source.path("../outside")).unwrap();
    pair.say(if replaced { source.rename("other", "log") } else { source.unlink("log") });
    let crash_if = |pair: &mut Pair| {
        if crash {
            pair.crash();
        }
    };
    crash_if(&mut pair);
    pair.say(source.write("../outside", 5, b" more"));
    pair.say(source.chmod("../outside", 0o600));
    crash_if(&mut pair);
    pair.assert_same();
    pair.say(source.link("../outside", "back"));
    crash_if(&mut pair);
    // All but the link count, which here counts names of the set alone.
    assert_eq!(fs::read_to_string(pair.replica("back")).unwrap(), "hello more");
    assert_eq!(waiting(&pair), 0);
    pair.say(source.unlink("back"));
    assert_eq!(waiting(&pair), 1);
    fs::remove_file(source.path("../outside")).unwrap();
    pair.say(source.create("last", 0o644));
    pair.assert_same();
}

/// Gone from the source for good: nothing is kept.
#[test]
fn the_last_link_takes_it_from_limbo() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("a", 0o644));
    fs::hard_link(source.path("a"), source.path("../outside")).unwrap();
    pair.say(source.unlink("a"));
    pair.say(source.link("../outside", "b"));
    fs::remove_file(source.path("../outside")).unwrap();
    pair.say(source.unlink("b"));
    assert_eq!(waiting(&pair), 0);
    pair.assert_same();
}

fn waiting(pair: &Pair) -> usize {
    fs::read_dir(pair.places.limbo.join("nameless")).unwrap().count()
}

/// Done once more in doubt, a name that is gone is not counted: the object has its other one.
#[test]
fn what_has_another_name_stays_known_in_doubt() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    for name in ["a", "b", "over"] {
        pair.say(source.create(name, 0o644));
        pair.say(source.link(name, &format!("{name}2")));
    }
    let (Op::Unlink { at, dir_mtime, object, .. }, _) = source.unlink("a") else { panic!("no unlink") };
    let gone = Op::Unlink { at, dir_mtime, object, links: LINKS_UNKNOWN };
    let (mut renamed, _) = source.rename("b", "over");
    let Op::Rename { replaced: Some(replaced), .. } = &mut renamed else { panic!("no rename") };
    replaced.links = LINKS_UNKNOWN;
    for op in [gone, renamed] {
        for doubt in [Doubt::None, Doubt::MayBeDone] {
            pair.applier().replica().perform(&op, &[], doubt).unwrap();
        }
    }
    for name in ["a2", "over2", "b2"] {
        pair.say(source.write(name, 0, b"still known"));
    }
    pair.assert_same();
}
