//! A stand-in that fails, or is killed, between its steps.

use std::io;
use std::rc::Rc;

use super::super::identity::{Found, Label};
use super::super::record::Stranger;
use super::*;
use crate::packet::{History, Meeting, SetId};
use crate::store;
use crate::target_side::OtherWriter;

const SET: SetId = SetId(7);

/// A replica with its state, as a target daemon has left it.
struct Ground {
    base: tempfile::TempDir,
}

impl Ground {
    fn new() -> Ground {
        let ground = Ground { base: tempfile::tempdir_in("/var/tmp").unwrap() };
        fs::create_dir_all(ground.tree()).unwrap();
        fs::write(ground.tree().join("file"), "content").unwrap();
        fs::create_dir_all(ground.state()).unwrap();
        // Bad, because nothing has compared it: it is served as it is.
        drop(Replica::open_or_adopt(&ground.places(), SET).unwrap());
        ground
    }

    fn path(&self) -> PathBuf {
        self.base.path().canonicalize().unwrap()
    }

    fn tree(&self) -> PathBuf {
        self.path().join("srv/test")
    }

    fn state(&self) -> PathBuf {
        serve_state(&self.path().join("state")).join("test")
    }

    fn places(&self) -> Places {
        Places::beside(&self.tree(), &self.state())
    }

    fn options(&self, bad_data: BadData) -> ProtectOptions {
        let options = ProtectOptions::in_tests(&self.path().join("mount"), &self.path());
        ProtectOptions { backing: Some(self.tree()), stand_in: Some(bad_data), ..options }
    }

    fn fence(&self) -> Option<u32> {
        let root = File::open(self.tree()).unwrap();
        fence_of(&root).unwrap().map(|epoch| epoch.number)
    }

    /// Who stood in has ended, or is dead.
    fn begin(&self, bad_data: BadData, follower: &mut dyn Following) -> Result<u32, Failure> {
        let options = self.options(bad_data);
        let found = Found::at(File::open(self.tree()).unwrap()).unwrap();
        let found = Found { label: Label::None, replica_of: Some(SET), ..found };
        let mut set = SetState::open(&options.set_state(), &self.tree(), &found, Stranger::Refuse).unwrap();
        let stand_in = StandIn::begin(&options, &mut set, follower)?;
        assert!(stand_in.is_some());
        Ok(set.record.epoch.number)
    }

    fn foreseen(&self, bad_data: BadData) -> Foreseen {
        foresee(&self.options(bad_data)).unwrap()
    }
}

/// Fails where it is told, and notes what it is told.
#[derive(Default)]
struct Told {
    refuses: bool,
    taken: usize,
    raised: Option<(u32, bool)>,
}

impl Following for Told {
    fn taken(&mut self, _: &Taken) -> Result<(), Failure> {
        self.taken += 1;
        match self.refuses {
            true => Err(Failure::new("The command has failed.", "", "")),
            false => Ok(()),
        }
    }

    fn raised(&mut self, epoch: Epoch, goes_on: bool) {
        self.raised = Some((epoch.number, goes_on));
    }
}

fn fails_at(place: &'static str) -> failpoint::Hook {
    Rc::new(move |at| if at == place { Err(io::Error::other("killed")) } else { Ok(()) })
}

#[test]
fn what_fails_before_the_epoch_is_raised_leaves_all_as_it_was() {
    let ground = Ground::new();
    let refused = ground.begin(BadData::Refuse, &mut Told::default());
    assert!(refused.is_err_and(|why| why.what.contains("no consistent state")));
    let mut told = Told { refuses: true, ..Told::default() };
    assert!(ground.begin(BadData::Accept, &mut told).is_err());
    assert_eq!((told.taken, told.raised), (1, None));
    let record = ground.options(BadData::Accept).set_state().join("set.json");
    let mut told = Told::default();
    let killed = failpoint::with(fails_at("stand-in record"), || ground.begin(BadData::Accept, &mut told));
    assert!(killed.is_err() && told.raised.is_none());
    assert!(ground.fence().is_none() && !record.exists());
    // Its target daemon gets it back.
    drop(Replica::open(&ground.places(), SET).unwrap());
    assert_eq!(ground.foreseen(BadData::Accept).seen.epoch, 2);
}

#[test]
fn a_kill_between_record_and_fence_begins_anew_and_one_after_it_goes_on() {
    let ground = Ground::new();
    let mut told = Told::default();
    let killed = failpoint::with(fails_at("stand-in fence"), || ground.begin(BadData::Accept, &mut told));
    assert!(killed.is_err());
    assert_eq!((told.raised, ground.fence()), (None, None), "its source is taken in as before");
    let seen = ground.foreseen(BadData::Accept).seen;
    assert!(!seen.goes_on && seen.epoch == 3, "{seen:?}");
    let mut told = Told::default();
    assert_eq!(ground.begin(BadData::Accept, &mut told).unwrap(), 3);
    assert_eq!((told.taken, told.raised, ground.fence()), (1, Some((3, false)), Some(3)));
    // Killed before the mount: nothing is asked again, and nothing raised.
    let seen = ground.foreseen(BadData::Refuse);
    assert!(seen.seen.goes_on && seen.refusals.is_empty(), "{:?}", seen.refusals);
    let mut told = Told::default();
    assert_eq!(ground.begin(BadData::Refuse, &mut told).unwrap(), 3);
    assert_eq!((told.taken, told.raised, ground.fence()), (0, Some((3, true)), Some(3)));
}

#[test]
fn a_look_ahead_finds_what_would_be_refused_and_changes_nothing() {
    let ground = Ground::new();
    let looks = |ground: &Ground| {
        let refusals = ground.foreseen(BadData::Refuse).refusals;
        refusals.into_iter().map(|failure| failure.what).collect::<Vec<_>>()
    };
    let bad = looks(&ground);
    assert!(bad.len() == 1 && bad[0].contains("no consistent state"), "{bad:?}");
    assert!(ground.foreseen(BadData::Accept).refusals.is_empty());
    let wanted = want(&ground.state()).unwrap().unwrap();
    let in_use = looks(&ground);
    assert!(in_use.len() == 2 && in_use[0].contains("worked on"), "{in_use:?}");
    drop(wanted);
    assert!(!ground.options(BadData::Refuse).set_state().exists(), "a look makes no state");
    let srv = ground.path().join("srv");
    let elsewhere = ProtectOptions { backing: Some(srv), ..ground.options(BadData::Refuse) };
    assert!(foresee(&elsewhere).is_err_and(|why| why.what.contains("no replica that this host knows")));
}

/// A person keeps what is here, of two that have stood in.
#[test]
fn a_keep_that_is_killed_is_undone_or_gone_on_with() {
    let ground = Ground::new();
    assert_eq!(ground.begin(BadData::Accept, &mut Told::default()).unwrap(), 2);
    let options = ground.options(BadData::Accept);
    assert!(keep(&options).is_err_and(|why| why.what.contains("Nobody else")));
    let other = History::of(Epoch { number: 2, writer: 99 });
    let noted = OtherWriter::now(other.clone(), "another host".into());
    store::replace_json(&ground.state().join("other-writer.json"), &noted).unwrap();
    let here = || {
        let root = File::open(ground.tree()).unwrap();
        history_of(&ground.state(), fence_of(&root).unwrap()).unwrap()
    };
    // Made good by that, a copy that was cut off was served and spread.
    let refused = keep(&ground.options(BadData::Refuse)).err().expect("its data are bad");
    assert!(refused.what.contains("no consistent state"), "{refused}");
    for place in ["keep history", "fence"] {
        assert!(failpoint::with(fails_at(place), || keep(&options)).is_err(), "{place}");
        assert_eq!((ground.fence(), here().meets(&other)), (Some(2), Meeting::TwoWriters), "{place}");
        assert_eq!(other.meets(&here()), Meeting::TwoWriters, "{place}");
        assert_eq!(ground.begin(BadData::Refuse, &mut Told::default()).unwrap(), 2, "it serves as before");
    }
    // The fence is up, and its writer is in no record: whoever starts is refused, and the same command goes on.
    assert!(failpoint::with(fails_at("keep record"), || keep(&options)).is_err());
    assert_eq!(ground.fence(), Some(3));
    let kept = keep(&options).unwrap();
    assert_eq!((kept.epoch.number, ground.fence(), kept.over.history), (4, Some(4), other.clone()));
    assert_eq!((here().meets(&other), other.meets(&here())), (Meeting::TakenIn, Meeting::StoodInFor));
    assert!(keep(&options).is_err_and(|why| why.what.contains("Nobody else")));
    let mut told = Told::default();
    assert_eq!(ground.begin(BadData::Refuse, &mut told).unwrap(), 4);
    assert_eq!((told.taken, told.raised), (0, Some((4, true))));
}
