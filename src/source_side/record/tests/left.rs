//! What a run has left, as a start finds it.

use super::*;
use crate::packet::Sequence;

/// How a run has left the directory, by what its record and its log say.
#[test]
fn what_a_run_has_left_is_told_by_its_log() {
    const TARGET: &str = "local:/replica";
    const AWAY: &str = "local:/away";
    let cache = PageCache::of(std::fs::File::open("/").unwrap()).unwrap();
    let hot = |inode| crate::activity::HotObject {
        id: crate::packet::ObjectId { birth_epoch: 1, generation: 1, inode },
        handle: None,
    };
    let known = |inode| LeftHot { hot: vec![hot(inode)], ceiling: Sequence(9), ..LeftHot::default() };
    let err = |why: &str| Err(why.to_owned());
    let run = Incarnation(7);
    // Gives how many targets have a mark that counts, what is owed, and the ceilings.
    let directory = |path: &Path| found(Label::None, path);
    let begin = |change: &dyn Fn(&mut SetRecord), log: &LeftLog| {
        let dir = tempfile::tempdir().unwrap();
        let strange = directory(dir.path());
        let mut state = SetState::open(dir.path(), Path::new("/srv"), &strange, Stranger::Adopt).unwrap();
        state.record.runs.push(run);
        for target in [TARGET, AWAY] {
            state
                .record
                .marks
                .insert(target.into(), Mark::now().reached(Reached { run, sequence: Sequence(5) }));
            state.record.connections.insert(target.into(), ConnectionRecord::new());
        }
        change(&mut state.record);
        let owed = state.begin(Incarnation(8), Some(cache.clone()), &Clock::now(), log);
        let ceilings = state.record.merging.as_ref().map(|merging| merging.ceilings.clone());
        let owed = owed.map(|known| known.hot[0].id.inode);
        assert_eq!(owed.is_some(), state.record.merging.is_some(), "what is owed is known as such");
        (state.record.marks.len(), owed, ceilings.map(|ceilings| ceilings.len()))
    };
    let whole = LeftLog { all: Ok(known(1)), carried: err("nothing was owed") };
    let carrying = LeftLog { all: Ok(known(1)), carried: Ok(known(2)) };
    let passed = LeftLog { all: err("the clock was set"), carried: Ok(known(2)) };
    let settled = |record: &mut SetRecord| record.settled = true;
    let here = |record: &mut SetRecord| record.page_cache = Some(cache.clone());
    let merging = |record: &mut SetRecord| {
        record.merging =
            Some(Merging { ceilings: vec![Reached { run: Incarnation(6), sequence: Sequence(3) }] });
    };
    let also = |one: &dyn Fn(&mut SetRecord), other: &dyn Fn(&mut SetRecord), record: &mut SetRecord| {
        one(record);
        other(record);
    };
    assert_eq!(begin(&settled, &whole), (2, None, None), "an orderly end: times tell");
    assert_eq!(begin(&here, &passed), (2, None, None), "a kill");
    assert_eq!(begin(&|_| {}, &whole), (2, Some(1), Some(1)), "a power loss");
    assert_eq!(begin(&|_| {}, &passed), (0, None, None), "a power loss, and the log is not whole");
    assert_eq!(begin(&|_| {}, &no_log()), (0, None, None));
    // A merge that was not ended before the next end of a run.
    let ended = |record: &mut SetRecord| also(&settled, &merging, record);
    assert_eq!(begin(&ended, &carrying), (2, Some(2), Some(1)), "an orderly end: what was owed is");
    assert_eq!(begin(&ended, &whole), (0, None, None), "what was owed is lost");
    let killed = |record: &mut SetRecord| also(&here, &merging, record);
    assert_eq!(begin(&killed, &passed), (2, Some(2), Some(1)), "a kill: what was owed is");
    assert_eq!(begin(&merging, &carrying), (2, Some(1), Some(2)), "another power loss: all that was hot is");
    assert_eq!(begin(&merging, &passed), (0, None, None));
    // Where the log is no proof.
    assert_eq!(begin(&|record| record.touched = true, &whole), (0, None, None), "touched past the mount");
    assert_eq!(begin(&|record| record.restored_from = Some(TARGET.into()), &whole), (0, None, None));
    assert_eq!(begin(&|record| record.runs.clear(), &whole), (0, None, None), "of no run");
    assert_eq!(begin(&|record| record.forget_moments(), &whole), (0, None, None), "no target had everything");
    let disconnected = |record: &mut SetRecord| {
        record.connections.get_mut(AWAY).unwrap().disconnected = true;
    };
    assert_eq!(begin(&disconnected, &whole), (1, Some(1), Some(1)), "who is named no more gets everything");
}

/// What a copy to a target that had nothing has sent may be gone here.
#[test]
fn a_first_copy_counts_for_nothing_after_a_power_loss() {
    const AWAY: &str = "local:/away";
    let dir = tempfile::tempdir().unwrap();
    let strange = found(Label::None, dir.path());
    let mut state = SetState::open(dir.path(), Path::new("/srv"), &strange, Stranger::Adopt).unwrap();
    let run = Incarnation(7);
    state.record.runs.push(run);
    state.record.connections.insert(AWAY.into(), ConnectionRecord::new());
    state.record.connections.get_mut(AWAY).unwrap().kept.first_copy =
        Some(FirstCopy::begins(Mark::now(), run));
    state.record.marks.insert("local:/replica".into(), Mark::now());
    let whole = LeftLog { all: Ok(LeftHot::default()), carried: Err("nothing was owed".into()) };
    state.begin(Incarnation(8), None, &Clock::now(), &whole);
    assert_eq!(state.record.connections[AWAY].kept.first_copy, None);
}
