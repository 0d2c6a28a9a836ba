//! Targets that lie while they are copied to, and what a copy believes of them.

use super::*;
use crate::limits::HEAL_AFTER;
use crate::packet::{FrameHeader, ItemHeader, ItemNumber, LaneItem, ObjectId, Text, Timestamp};
use crate::source_side::mark::Reached;

/// Answers to listings that were never sent, or about files that are in none.
#[test]
fn a_copy_is_not_led_astray() {
    let wanted = |listing, objects| TargetMessage::Wanted { listing: ItemNumber(listing), objects };
    let cases: [(&str, Vec<TargetMessage>); 4] = [
        ("is for listing 77", vec![wanted(77, Vec::new())]),
        ("is not of the listing", vec![wanted(3, vec![ObjectId::default()])]),
        ("is not the end of the copy", vec![resynchronised(99)]),
        (
            "listings that it was not sent",
            (0..9000).map(|n| wanted(n, vec![ObjectId::default(); 99])).collect(),
        ),
    ];
    for (word, messages) in cases {
        let scene = Scene::new();
        std::fs::write(scene.tree.path().join("file"), "content").unwrap();
        scene.target.welcome();
        let empty = ReplicaProof { data: DataState::Empty, ..proof(origin()) };
        scene.say(welcome(WIRE_VERSION, empty));
        scene.connection.captured();
        let frames = scene.target.frames();
        for _ in 0..3 {
            frame(&frames);
        }
        messages.into_iter().for_each(|message| scene.say(message));
        let fails = |report: &Report| report.state == ConnectionState::Error;
        let reason = scene.connection.wait(Instant::now() + LONG, fails).reason;
        // A flood may be noticed by the copy, at its first answer, or by the connection.
        let is_flood = word.contains("not sent");
        assert!(reason.contains(word) || is_flood && reason.contains("listing"), "{reason}");
        scene.connection.end();
    }
}

fn resynchronised(end: u64) -> TargetMessage {
    TargetMessage::Resynchronised { end: ItemNumber(end), orphans: 0, left_out: Default::default() }
}

/// It follows, sets nothing aside, and calls itself bad: nothing else would ever bring it into line.
#[test]
fn a_target_that_stays_bad_is_copied_to() {
    let scene = Scene::new();
    let had = scene.in_line();
    scene.connection.captured();
    let reason = Text::from_str_cut("something came into the set: a");
    scene.say(TargetMessage::Data { state: DataState::Bad, reason, aside: 0 });
    let is_let_go = |report: &Report| report.state != ConnectionState::Started;
    let report = scene.connection.wait(Instant::now() + HEAL_AFTER + LONG, is_let_go);
    assert!(is_let_go(&report), "nothing comes of it");
    // The link is gone; what it has said is not.
    assert!(report.connected.is_none() && !report.is_unheard());
    let target = scene.listener.accept().expect("it dials again");
    target.welcome();
    target.send(welcome(WIRE_VERSION, ReplicaProof { data: DataState::Bad, ..proof(had[2]) }));
    let frames = target.frames();
    let begins = |frame: Frame| matches!(frame.header, FrameHeader::Item(item) if item.item.begins_a_copy());
    assert!((0..3).any(|_| begins(frame(&frames))), "no copy begins");
    scene.connection.end();
}

/// What was noted while a target had everything says nothing of an older image of it: a file could
/// have been rewritten since with the size and the time that it had.
#[test]
fn marks_do_not_count_for_a_target_that_was_set_back() {
    let is_suspect = |back: fn(&[Position]) -> ReplicaProof| {
        let scene = Scene::new();
        std::fs::write(scene.tree.path().join("file"), "content").unwrap();
        let had = scene.in_line();
        let far = Mark::of(Timestamp { seconds: 1 << 40, nanoseconds: 0 });
        let far = far.reached(Reached { run: origin().incarnation, sequence: Sequence(3) });
        let runs = [origin().incarnation];
        scene.marks.set(&[("standin://127.0.0.1:1/web".to_owned(), far)].into(), &runs);
        scene.connection.captured();
        scene.target.close("it goes away");
        let target = scene.listener.accept().expect("it dials again");
        target.welcome();
        target.send(welcome(WIRE_VERSION, back(&had)));
        let frames = target.frames();
        let listed =
            std::iter::repeat_with(|| frame(&frames)).take(99).find_map(|frame| match frame.header {
                FrameHeader::Item(ItemHeader { item: LaneItem::Listing { entries, .. }, .. }) => {
                    Some(entries)
                }
                _ => None,
            });
        scene.connection.end();
        let [file] = &listed.expect("the root is listed")[..] else { panic!("one file is there") };
        file.suspect
    };
    assert!(!is_suspect(|had| ReplicaProof { data: DataState::Bad, ..proof(had[2]) }), "it lost nothing");
    assert!(is_suspect(|had| proof(had[0])), "it is back at the first packet");
    assert!(is_suspect(|had| proof(Position { incarnation: Incarnation(1), ..had[2] })), "at a run before");
}
