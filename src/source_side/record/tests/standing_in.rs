//! The record of who stands in, and of who was stood in for.

use super::*;

/// A record that was raised alone kept nobody out: its source came, left the replica half copied, and the same
/// command served that as good.
#[test]
fn a_stand_in_goes_on_only_where_its_fence_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut state =
        SetState::open(dir.path(), Path::new("/srv"), &found(Label::None, dir.path()), Stranger::Refuse)
            .unwrap();
    let (set, first) = (state.record.set, state.record.epoch);
    let known = |fence| Known {
        runs: Vec::new(),
        set,
        fence,
        applied: Position::origin(first, Incarnation(1)),
        history: History::default(),
    };
    state.stand_in(&known(None), 7).unwrap();
    let raised = state.record.epoch;
    assert_eq!((raised.number, state.record.birth_epoch()), (2, 8));
    assert!(!state.record.goes_on_standing_in(&known(None)), "its source may have come since");
    assert!(!state.record.goes_on_standing_in(&known(Some(first))));
    assert!(state.record.goes_on_standing_in(&known(Some(raised))));
    // An older image of the whole host raises the same number, as another writer.
    let mut again = SetState {
        record: state.record.clone(),
        path: state.path.clone(),
        is_new: false,
        _lock: state._lock,
    };
    again.record.epoch = first;
    again.stand_in(&known(None), 7).unwrap();
    assert_eq!(again.record.epoch.number, raised.number);
    assert_ne!(again.record.epoch.writer, raised.writer);
}

/// It stood in again with what it had, in the epoch in which the set was written elsewhere, or below it.
#[test]
fn what_was_heard_of_a_higher_epoch_is_raised_above() {
    let dir = tempfile::tempdir().unwrap();
    let mut state =
        SetState::open(dir.path(), Path::new("/srv"), &found(Label::None, dir.path()), Stranger::Refuse)
            .unwrap();
    let (set, first) = (state.record.set, state.record.epoch);
    let known = |fence| Known {
        runs: Vec::new(),
        set,
        fence,
        applied: Position::origin(first, Incarnation(1)),
        history: History::default(),
    };
    state.stand_in(&known(None), 1).unwrap();
    let own = state.record.epoch;
    let home = Epoch { number: 3, writer: 5 };
    let told_by = "standin://home.example.org:7447/web".to_owned();
    state.record.fenced = Some(FencedRecord { epoch: home, told_by, since_unix_ms: 1 });
    assert_eq!(state.record.written_elsewhere(&known(Some(own))), Some(home), "nothing of it came here");
    assert!(!state.record.goes_on_standing_in(&known(Some(own))));
    assert_eq!(
        state.record.written_elsewhere(&known(Some(home))),
        None,
        "it has brought the replica into line"
    );
    let of_another_set = Known { set: SetId(set.0 ^ 1), ..known(Some(own)) };
    assert_eq!(state.record.written_elsewhere(&of_another_set), None);
    state.stand_in(&known(Some(own)), 1).unwrap();
    assert_eq!((state.record.epoch.number, &state.record.fenced), (4, &None));
}

/// Killed between the record and the first mount the directory carries nothing but a replica's mark.
#[test]
fn a_stand_in_that_was_cut_off_begins_again() {
    let (state, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let unmarked = found(Label::None, tree.path());
    let mut first = SetState::open(state.path(), tree.path(), &unmarked, Stranger::Refuse).unwrap();
    let set = first.record.set;
    let applied = Position::origin(first.record.epoch, Incarnation(1));
    let known = Known { set, fence: None, applied, history: History::default(), runs: Vec::new() };
    first.stand_in(&known, 1).unwrap();
    first.save().unwrap();
    drop(first);
    let replica = Found { replica_of: Some(set), ..unmarked.clone() };
    assert!(open(state.path(), tree.path(), &replica, Stranger::Refuse).is_ok());
    let other = Found { replica_of: Some(SetId(9)), ..unmarked.clone() };
    for found in [unmarked, other] {
        let refused = open(state.path(), tree.path(), &found, Stranger::Refuse);
        assert!(matches!(refused, Err(StateError::NotTheSource(_))), "{refused:?}");
    }
}
