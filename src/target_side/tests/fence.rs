//! Sources of several epochs come to one replica.

use super::*;
use crate::limits::EPOCHS_RAISED_MAX;

/// What the target answers to a source that writes in this epoch.
fn greeted(scene: &mut Scene, number: u32, writer: u64) -> TargetMessage {
    scene.again();
    scene.source.send(SourceMessage::Hello {
        version_oldest: WIRE_VERSION_OLDEST,
        version: WIRE_VERSION,
        features: Features::OFFERED,
        set: SET,
        set_name: Text::from_str_cut("one"),
        last: Position::origin(Epoch { number, writer }, Incarnation(writer)),
        oldest: Sequence(1),
        history: History::of(Epoch { number, writer }),
    });
    scene.message(|message| {
        matches!(
            message,
            TargetMessage::Welcome { .. } | TargetMessage::KeptOut { .. } | TargetMessage::Refused { .. }
        )
    })
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
