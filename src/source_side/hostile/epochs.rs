//! Targets that say that the set is written in another epoch.

use super::*;

/// It was copied to: what a stand-in had written there was overwritten.
#[test]
fn who_holds_a_higher_epoch_is_never_copied_to() {
    let (late, made_up) = ("stood in for", u32::MAX);
    for (number, writer, why, fenced) in [(2, 2, late, true), (made_up, 2, late, false), (1, 3, "", false)] {
        let scene = Scene::new();
        scene.welcome(Position::origin(Epoch { number, writer }, Incarnation(9)));
        let report = scene.connection.wait(Instant::now() + LONG, |report| {
            report.fault == Some(FaultKind::KeptOut) || report.connected.is_some()
        });
        match why {
            // Another writer of the first epoch has lost its state, and copies.
            "" => assert_eq!(report.fault, None, "{}", report.reason),
            _ => assert!(report.reason.contains(why), "{}", report.reason),
        }
        assert_eq!(scene.fence.raised().is_some(), fenced, "epoch {number}");
    }
}

/// The directory takes no changes any more where one of a higher epoch is there, and only there.
#[test]
fn only_a_higher_epoch_within_reason_fences() {
    for (number, fault, fenced) in [
        (2, FaultKind::KeptOut, true),
        (1, FaultKind::KeptOut, false),
        (u32::MAX, FaultKind::KeptOut, false),
        (0, FaultKind::Undecided, false),
    ] {
        let scene = Scene::new();
        let epoch = if number == 0 { Epoch::default() } else { Epoch { number, writer: 9 } };
        scene.say(TargetMessage::Wrote { history: History::of(epoch) });
        scene.say(TargetMessage::KeptOut { epoch, reason: Text::from_str_cut("so it says") });
        let report = scene.connection.wait(Instant::now() + LONG, |report| report.fault == Some(fault));
        assert_eq!(report.fault, Some(fault), "epoch {number}: {}", report.reason);
        let told_by = scene.connection.target.to_string();
        let fence = fenced.then_some(Fenced { epoch, told_by });
        assert_eq!(scene.fence.raised(), fence.as_ref(), "epoch {number}");
        assert_eq!(scene.queue.oldest(), Sequence(1), "packets were dropped");
    }
}

/// A source on the older side of an update went on writing what somebody else wrote: it was refused for its version,
/// before anything was said of epochs.
#[test]
fn a_source_of_another_version_hears_that_it_was_stood_in_for() {
    for (number, of_this_set, fenced) in
        [(2, true, true), (1, true, false), (2, false, false), (u32::MAX, true, false)]
    {
        let scene = Scene::new();
        let epoch = Epoch { number, writer: 9 };
        let set = if of_this_set { SetId(7) } else { SetId(8) };
        scene.say(TargetMessage::WrittenIn { set, epoch });
        scene.say(TargetMessage::Refused { reason: Text::from_str_cut("update the older side") });
        let refused = |report: &Report| report.fault == Some(FaultKind::Refused);
        let report = scene.connection.wait(Instant::now() + LONG, refused);
        assert!(refused(&report) && report.reason.contains("older side"), "{}", report.reason);
        assert_eq!(scene.fence.raised().is_some(), fenced, "epoch {number}, this set: {of_this_set}");
    }
}

/// Some builds of the version before read no other one's greeting: they were taken for unreachable.
#[test]
fn a_target_that_cannot_read_the_greeting_is_to_be_updated() {
    let scene = Scene::new();
    scene.target.close("control stream: header cannot be decoded: unexpected end");
    let told = |report: &Report| report.reason.contains("update the older side");
    let report = scene.connection.wait(Instant::now() + LONG, told);
    assert!(told(&report) && report.reason.contains("the target speaks version 4 of"), "{}", report.reason);
    assert_eq!(report.state, ConnectionState::Error);
    // Once it was greeted, the same is what it says: damage.
    let scene = Scene::new();
    scene.in_line();
    scene.target.close("control stream: header cannot be decoded: unexpected end");
    let lost = |report: &Report| report.reason.contains("cannot be decoded");
    let report = scene.connection.wait(Instant::now() + LONG, lost);
    assert!(lost(&report) && !told(&report), "{}", report.reason);
}
