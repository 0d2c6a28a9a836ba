//! Sources of several epochs come to one replica.

use super::*;
use crate::limits::EPOCHS_RAISED_MAX;

/// What the target answers to a source that writes in this epoch.
fn greeted(scene: &mut Scene, number: u32, writer: u64) -> TargetMessage {
    let epoch = Epoch { number, writer };
    let mut history = History::of(epoch);
    if epoch == (Epoch { number: 3, writer: 7 }) {
        // It has stood in for the one of the second epoch.
        history = History::of(Epoch { number: 2, writer: 9 });
        history.raise(epoch, 1, Position::default());
    }
    greeted_as(scene, epoch, Some(writes(history, true)))
}

fn writes(history: History, overwrites: bool) -> Writes {
    Writes { history, runs: Vec::new(), overwrites }
}

/// `None`: it says something else than what led to its epoch.
fn greeted_as(scene: &mut Scene, epoch: Epoch, writes: Option<Writes>) -> TargetMessage {
    scene.again();
    scene.source.send(SourceMessage::Hello {
        version_oldest: WIRE_VERSION_OLDEST,
        version: WIRE_VERSION,
        features: Features::OFFERED,
        set: SET,
        set_name: Text::from_str_cut("one"),
        last: Position::origin(epoch, Incarnation(epoch.writer)),
        oldest: Sequence(1),
    });
    let is_answer = |message: &TargetMessage| {
        matches!(
            message,
            TargetMessage::Welcome { .. } | TargetMessage::KeptOut { .. } | TargetMessage::Refused { .. }
        )
    };
    let says = scene.message(|message| is_answer(message) || *message == TargetMessage::AskHistory);
    if says != TargetMessage::AskHistory {
        return says;
    }
    assert!(epoch.number > Epoch::FIRST, "there is nothing to ask");
    scene.source.send(writes.map_or(SourceMessage::MakeDurable, SourceMessage::Writes));
    scene.message(is_answer)
}

/// It was answered with a copy: what the stand-in had written was overwritten.
#[test]
fn a_source_of_a_lower_epoch_is_kept_out_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(dir.path());
    let mut expect =
        |number, writer, kept_out: Option<&str>| match (greeted(&mut scene, number, writer), kept_out) {
            (TargetMessage::Welcome { .. }, None) => {}
            (TargetMessage::KeptOut { epoch, reason, .. }, Some(why)) => {
                assert!(reason.to_text().contains(why) && epoch.number >= number, "{epoch:?}: {reason:?}");
            }
            (answer, _) => panic!("epoch {number} of {writer}: {answer:?}"),
        };
    let (stood_in, split) = (Some("was stood in for"), Some("split brain"));
    expect(1, 7, None);
    // Its state was lost: another writer of the first epoch.
    expect(1, 8, None);
    expect(2, 9, None);
    expect(1, 7, stood_in);
    expect(2, 10, split);
    expect(2, 9, None);
    expect(3, 7, None);
    expect(2, 9, stood_in);
    expect(3, 7, None);
    drop(scene);
    let places = Places::beside(&dir.path().join("replica"), &dir.path().join("state"));
    assert_eq!(Replica::open(&places, SET).unwrap().fence(), Some(Epoch { number: 3, writer: 7 }));
}

/// One that a peer makes up would keep every honest source out for good.
#[test]
fn an_epoch_out_of_all_reason_is_refused_and_not_noted() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(dir.path());
    for number in [u32::MAX, EPOCHS_RAISED_MAX + 2] {
        let answer = greeted(&mut scene, number, 7);
        let TargetMessage::Refused { reason } = &answer else { panic!("{answer:?}") };
        assert!(reason.to_text().contains("nothing was changed"), "{reason:?}");
    }
    assert!(matches!(greeted(&mut scene, 1, 7), TargetMessage::Welcome { .. }));
    assert!(matches!(greeted(&mut scene, EPOCHS_RAISED_MAX + 1, 7), TargetMessage::Welcome { .. }));
}

/// It was said to be unreachable, as both sides had it.
#[test]
fn a_source_of_another_version_is_told_which_side_to_update() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(dir.path());
    for (oldest, newest) in [(1, WIRE_VERSION_OLDEST - 1), (WIRE_VERSION + 1, WIRE_VERSION + 9)] {
        scene.again();
        scene.source.send(SourceMessage::Hello {
            version_oldest: oldest,
            version: newest,
            features: Features::OFFERED,
            set: SET,
            set_name: Text::from_str_cut("one"),
            last: Position::origin(Epoch { number: 7, writer: 7 }, Incarnation(7)),
            oldest: Sequence(1),
        });
        let answer = scene.message(|message| matches!(message, TargetMessage::Refused { .. }));
        let TargetMessage::Refused { reason } = answer else { unreachable!() };
        let told = format!("the source speaks versions {oldest} to {newest} of the protocol, this host");
        assert!(reason.to_text().starts_with(&told), "{reason:?}");
        assert!(reason.to_text().ends_with("update the older side"), "{reason:?}");
    }
    // Nothing of it was noted.
    assert!(matches!(greeted(&mut scene, 1, 7), TargetMessage::Welcome { .. }));
}

/// A source in a raised epoch says what led to it before it is answered, and one that does not is not taken in.
#[test]
fn who_has_stood_in_says_what_led_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(dir.path());
    assert!(matches!(greeted(&mut scene, 2, 9), TargetMessage::Welcome { .. }));
    // Another one has stood in for that one, and says so.
    let mut history = History::of(Epoch { number: 2, writer: 9 });
    history.raise(Epoch { number: 3, writer: 5 }, 1, Position::default());
    let answer = greeted_as(&mut scene, Epoch { number: 3, writer: 5 }, Some(writes(history, true)));
    assert!(matches!(answer, TargetMessage::Welcome { .. }), "{answer:?}");
    let answer = greeted_as(&mut scene, Epoch { number: 4, writer: 6 }, None);
    let TargetMessage::Refused { reason } = &answer else { panic!("{answer:?}") };
    assert!(reason.to_text().contains("does not say what led to"), "{reason:?}");
}

/// It was overwritten by who had stood in with less, without a word.
#[test]
fn a_replica_that_is_further_than_the_one_that_was_stood_in_with_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(dir.path());
    scene.barrier(true);
    scene.barrier(true);
    scene.durables_until(2, 2);
    let (own, second) = (scene.at, Epoch { number: 2, writer: 9 });
    let stood_in_at = |sequence, overwrites| {
        let mut history = History::default();
        history.raise(second, 1, Position { sequence: Sequence(sequence), ..own });
        Some(writes(history, overwrites))
    };
    let answer = greeted_as(&mut scene, second, stood_in_at(1, false));
    let TargetMessage::Refused { reason } = &answer else { panic!("{answer:?}") };
    let told = reason.to_text();
    assert!(
        told.contains("it has packet 2, that one had 1") && told.contains("--overwrite-further"),
        "{told}"
    );
    // Nothing of the stand-in was noted: the replica can be served in its place.
    assert!(matches!(greeted(&mut scene, 1, 2), TargetMessage::Welcome { .. }));
    assert!(matches!(greeted_as(&mut scene, second, stood_in_at(2, false)), TargetMessage::Welcome { .. }));
}

#[test]
fn a_replica_that_is_further_goes_where_a_person_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(dir.path());
    scene.barrier(true);
    scene.durables_until(1, 1);
    let (own, second) = (scene.at, Epoch { number: 2, writer: 9 });
    let mut history = History::default();
    history.raise(second, 1, Position { sequence: Sequence(0), ..own });
    let answer = greeted_as(&mut scene, second, Some(writes(history, true)));
    assert!(matches!(answer, TargetMessage::Welcome { .. }), "{answer:?}");
}
