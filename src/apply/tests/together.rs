//! Frames that came together: less is asked again, and nothing else is different.

use std::fs;
use std::time::Duration;

use super::*;
use crate::limits::PLACED_FRAMES_MAX;

impl Pair {
    fn try_say_on(&mut self, said: &Said) -> Outcome {
        let frame = self.frame(said);
        self.applier().handle_in(Run::GoesOn, &frame)
    }

    #[track_caller]
    fn say_on(&mut self, said: Said) {
        match self.try_say_on(&said) {
            Outcome::Applied => {}
            other => panic!("{:?}: {other:?}", said.0),
        }
    }
}

#[test]
fn moves_and_default_acls_within_a_run_count() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.mkdir("a", 0o755));
    pair.say_on(source.mkdir("a/b", 0o755));
    pair.say_on(source.create("a/b/1", 0o644));
    pair.say_on(source.rename("a/b", "b"));
    pair.say_on(source.create("b/2", 0o640));
    pair.say_on(source.rename("a", "b/a"));
    pair.say_on(source.mkdir("b/a/c", 0o700));
    pair.say_on(source.exchange("b/a/c", "b/1"));
    pair.say_on(source.create("b/1/3", 0o600));
    // u::rwx,u:1234:rwx,g::r-x,m::rwx,o::---
    let acl = [
        &[2u8, 0, 0, 0][..],
        &[1, 0, 7, 0, 255, 255, 255, 255],
        &[2, 0, 7, 0, 0xd2, 4, 0, 0],
        &[4, 0, 5, 0, 255, 255, 255, 255],
        &[16, 0, 7, 0, 255, 255, 255, 255],
        &[32, 0, 0, 0, 255, 255, 255, 255],
    ]
    .concat();
    pair.say_on(source.set_xattr("b", "system.posix_acl_default", &acl));
    pair.say_on(source.create("b/4", 0o644));
    pair.say_on(source.mkdir("b/d", 0o755));
    pair.say_on(source.remove_xattr("b", "system.posix_acl_default"));
    pair.say_on(source.create("b/5", 0o644));
    pair.say_on(source.rmdir("b/d"));
    pair.say_on(source.mkdir("b/d", 0o755));
    pair.say_on(source.create("b/d/6", 0o644));
    pair.assert_same();
}

/// What somebody else moves is noticed with the next run, and in a long one before long.
#[test]
fn a_directory_that_is_moved_out_does_not_stay_in_place_for_long() {
    for alone in [true, false] {
        let mut pair = Pair::new();
        let source = Source { root: pair.source.root.clone() };
        let outside = pair.temp.path().join("outside");
        pair.say(source.mkdir("dir", 0o755));
        pair.say_on(source.create("dir/f", 0o644));
        fs::rename(pair.replica("dir"), &outside).unwrap();
        let refused = |outcome: &Outcome| matches!(outcome, Outcome::Retry(_));
        if alone {
            let said = source.create("dir/alone", 0o644);
            assert!(refused(&pair.try_say(&said)));
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        } else {
            let found = (0..=PLACED_FRAMES_MAX)
                .any(|number| refused(&pair.try_say_on(&source.create(&format!("dir/{number}"), 0o644))));
            assert!(found, "not noticed in {PLACED_FRAMES_MAX} frames");
        }
    }
}

/// More new files than descriptors: the time of each is set when its descriptor goes, and later
/// changes of some count.
#[test]
fn new_files_have_their_times_whenever_they_were_settled() {
    let count = 3 * crate::limits::TARGET_DESCRIPTORS;
    for crashes in [false, true] {
        let mut pair = Pair::new();
        let source = Source { root: pair.source.root.clone() };
        pair.say(source.mkdir("dir", 0o755));
        for number in 0..count {
            pair.say_on(source.create(&format!("dir/{number}"), 0o644));
            if number % 7 == 0 {
                pair.say_on(source.write(&format!("dir/{}", number / 2), 0, b"bytes"));
            }
            if number % 300 == 0 {
                // Times differ.
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        if crashes {
            pair.crash();
        }
        pair.applier().set_pending_times().unwrap();
        pair.assert_same();
    }
}
