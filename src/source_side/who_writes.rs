//! Who writes the sets of this host, as it is on disk: no daemon is asked, and nothing is changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::record::SetRecord;
use crate::apply::resting;
use crate::cover::Cover;
use crate::packet::{Epoch, History, Incarnation, Meeting, SetId};
use crate::store;
use crate::target_side::{OtherWriter, history_of, other_writer, serve_state};
use crate::words::is_set_name;

/// Of one set.
#[derive(Clone, Debug)]
pub struct WhoWrites {
    pub name: String,
    pub set: SetId,
    pub role: HostRole,
    /// Of one that stands in: it was the source before others did.
    pub came_home: bool,
    /// In which this host writes, or its replica was written.
    pub epoch: Epoch,
    pub history: History,
    /// A person has to decide between the two.
    pub other: Option<OtherWriter>,
    /// The epoch in which it is written elsewhere, and who has said so.
    pub stood_in_for: Option<(Epoch, String)>,
    /// Of a source: its directory, and its last run.
    pub tree: Option<PathBuf>,
    pub run: Option<Incarnation>,
    /// What was put over its directory when it was handed over.
    pub cover: Option<Cover>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostRole {
    Source,
    StandIn,
    Target,
}

/// All that this state directory knows, by name.
///
/// Errors: the system's; a record that cannot be read.
pub fn who_writes_here(state: &Path) -> io::Result<Vec<WhoWrites>> {
    let mut found = Vec::new();
    for name in names(state)? {
        found.extend(of_source(state, &name)?);
    }
    let replicas = serve_state(state);
    for name in names(&replicas)? {
        let Some(replica) = of_replica(&replicas.join(&name), &name)? else { continue };
        // Two sets may have one name here: a source under it, and the replica of another one.
        let source = found.iter_mut().find(|one| one.set == replica.set && one.role != HostRole::Target);
        match source {
            // What was written here was given up, or gone on from: its directory is a replica.
            Some(source) if is_over(source, &replica) => {
                let (name, cover) = (source.name.clone(), source.cover.take());
                *source = WhoWrites { name, cover, ..replica }
            }
            Some(_) => {}
            None => found.push(replica),
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// Of the replica that the target daemon of this host has under this name.
pub fn replica_of(state: &Path, name: &str) -> io::Result<Option<WhoWrites>> {
    of_replica(&serve_state(state).join(name), name)
}

/// Whether a host that was a source is none any more: somebody wrote in a higher epoch since, and it is here.
fn is_over(source: &WhoWrites, replica: &WhoWrites) -> bool {
    let written = replica.history.last().unwrap_or_default().number.max(replica.epoch.number);
    written > source.epoch.number
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().filter(|name| is_set_name(name));
        names.extend(name.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())));
    }
    Ok(names)
}

fn of_source(state: &Path, name: &str) -> io::Result<Option<WhoWrites>> {
    let Some(record) = store::read_json::<SetRecord>(&state.join(name).join("set.json"))? else {
        return Ok(None);
    };
    let history = record.history();
    let noted = match record.stands_in {
        true => record.tree.file_name().map(|tree| serve_state(state).join(tree)),
        false => None,
    };
    let noted = noted.map(|replica| noted_of(&replica, record.set)).transpose()?.flatten();
    let parts = |other: &OtherWriter| {
        history.meets(&other.history) == Meeting::TwoWriters && !was_decided(&record, &other.history)
    };
    let other = record.other_writer.clone().filter(parts).or(noted.filter(parts));
    Ok(Some(WhoWrites {
        name: name.to_owned(),
        set: record.set,
        role: if record.stands_in { HostRole::StandIn } else { HostRole::Source },
        came_home: record.stands_in && record.came_home,
        epoch: record.epoch,
        other,
        stood_in_for: record.fenced.as_ref().map(|fenced| (fenced.epoch, fenced.told_by.clone())),
        tree: Some(record.tree.clone()),
        run: record.runs.last().copied(),
        cover: Cover::noted(&state.join(name))?,
        history,
    }))
}

/// What was noted beside this replica, if it is one of this set: another one may have its name.
fn noted_of(replica: &Path, set: SetId) -> io::Result<Option<OtherWriter>> {
    match resting(replica)? {
        Some(resting) if resting.set == set => other_writer(replica),
        Some(_) | None => Ok(None),
    }
}

/// A person has kept the other one since: it has been raised above both.
fn was_decided(record: &SetRecord, other: &History) -> bool {
    let known = other.last().map_or(0, |epoch| epoch.number).max(record.epoch.number);
    record.fenced.as_ref().is_some_and(|fenced| fenced.epoch.number > known)
}

/// Nothing that can be known without its directory, where that is not there.
fn of_replica(state: &Path, name: &str) -> io::Result<Option<WhoWrites>> {
    let Some(resting) = resting(state)? else { return Ok(None) };
    let other = other_writer(state)?;
    let history = history_of(state, resting.fence)?;
    let parts = |other: &OtherWriter| {
        history.meets(&other.history) != Meeting::TakenIn
            && other.history.meets(&history) == Meeting::TwoWriters
    };
    Ok(Some(WhoWrites {
        name: name.to_owned(),
        set: resting.set,
        role: HostRole::Target,
        came_home: false,
        epoch: resting.durable.epoch,
        other: other.filter(parts),
        stood_in_for: None,
        tree: None,
        run: None,
        cover: None,
        history,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::{Places, Replica};
    use crate::packet::Position;
    use crate::source_side::identity::{Found, Label};
    use crate::source_side::record::{FencedRecord, SetState, Stranger};
    use crate::target_side::keep_history;

    fn epoch(number: u32, writer: u64) -> Epoch {
        Epoch { number, writer }
    }

    fn history(epochs: &[(u32, u64)]) -> History {
        let mut history = History::default();
        epochs
            .iter()
            .for_each(|&(number, writer)| history.raise(epoch(number, writer), 1, Position::default()));
        history
    }

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Host {
            Host(tempfile::tempdir_in("/var/tmp").unwrap())
        }

        fn state(&self) -> PathBuf {
            self.0.path().join("state")
        }

        /// What a source or a stand-in has left.
        fn record(&self, name: &str, change: impl FnOnce(&mut SetRecord)) {
            let path = self.state().join(name).join("set.json");
            let record = store::read_json::<SetRecord>(&path).unwrap();
            let mut record = record.unwrap_or_else(|| self.fresh(name));
            change(&mut record);
            store::replace_json(&path, &record).unwrap();
        }

        fn fresh(&self, name: &str) -> SetRecord {
            let tree = self.0.path().join("srv").join(name);
            fs::create_dir_all(&tree).unwrap();
            let found = Found::at(fs::File::open(&tree).unwrap()).unwrap();
            let found = Found { label: Label::None, ..found };
            let set = SetState::open(&self.state().join(name), &tree, &found, Stranger::Refuse).unwrap();
            set.record.clone()
        }

        /// A replica of a set in which this history was written.
        fn replica(&self, name: &str, set: SetId, written: &History) {
            let tree = self.0.path().join("srv").join(name);
            let state = serve_state(&self.state()).join(name);
            fs::create_dir_all(&tree).unwrap();
            fs::create_dir_all(&state).unwrap();
            let places = Places::beside(&tree, &state);
            let mut replica = Replica::open_or_adopt(&places, set).unwrap();
            if let Some(epoch) = written.last() {
                keep_history(&state, written).unwrap();
                replica.raise_fence(epoch).unwrap();
            }
        }

        fn note_other(&self, name: &str, other: &History) {
            let noted = OtherWriter::now(other.clone(), "the other host".into());
            let state = serve_state(&self.state()).join(name);
            store::replace_json(&state.join("other-writer.json"), &noted).unwrap();
        }

        fn shown(&self) -> Vec<(HostRole, u32, bool)> {
            let all = who_writes_here(&self.state()).unwrap();
            all.iter()
                .map(|one| {
                    (one.role, one.history.last().map_or(1, |epoch| epoch.number), one.other.is_some())
                })
                .collect()
        }
    }

    const SET: SetId = SetId(7);

    fn stands_in(record: &mut SetRecord) {
        (record.set, record.epoch, record.history, record.stands_in) =
            (SET, epoch(2, 1), history(&[(2, 1)]), true);
    }

    /// The host that was overruled showed a split brain for ever, and advised to keep it: that fenced the kept one.
    #[test]
    fn an_overruled_host_is_told_that_it_is_decided() {
        let host = Host::new();
        host.record("web", stands_in);
        host.replica("web", SET, &history(&[(2, 1)]));
        host.note_other("web", &history(&[(2, 9)]));
        assert_eq!(host.shown(), [(HostRole::StandIn, 2, true)], "nobody has decided");
        // The other one was kept, and this one has heard of it.
        let fenced = FencedRecord { epoch: epoch(3, 9), told_by: "the other host".into(), since_unix_ms: 1 };
        host.record("web", |record| record.fenced = Some(fenced.clone()));
        assert_eq!(host.shown(), [(HostRole::StandIn, 2, false)]);
        // One of a number that is not above both has decided nothing.
        host.record("web", |record| {
            record.fenced = Some(FencedRecord { epoch: epoch(2, 9), ..fenced.clone() })
        });
        assert_eq!(host.shown(), [(HostRole::StandIn, 2, true)]);
        // Its directory is the kept one's replica.
        let mut kept = history(&[(2, 9)]);
        kept.overrule(&history(&[(2, 1)]));
        kept.raise(epoch(3, 9), 1, Position::default());
        host.replica("web", SET, &kept);
        assert_eq!(host.shown(), [(HostRole::Target, 3, false)]);
    }

    /// It was called "written here" for ever.
    #[test]
    fn a_host_that_was_a_source_and_has_a_replica_is_a_target() {
        let host = Host::new();
        host.record("web", |record| (record.set, record.epoch) = (SET, epoch(1, 5)));
        assert_eq!(host.shown(), [(HostRole::Source, 1, false)]);
        host.replica("web", SET, &history(&[(2, 9)]));
        assert_eq!(host.shown(), [(HostRole::Target, 2, false)]);
        // It goes home.
        host.record("web", |record| {
            (record.epoch, record.history, record.stands_in) =
                (epoch(3, 5), history(&[(2, 9), (3, 5)]), true);
        });
        host.replica("web", SET, &history(&[(2, 9), (3, 5)]));
        assert_eq!(host.shown(), [(HostRole::StandIn, 3, false)]);
    }

    /// The replica of another set was passed over, and what was noted of it counted for the source.
    #[test]
    fn two_sets_of_one_name_are_two() {
        let host = Host::new();
        host.record("web", stands_in);
        host.replica("web", SetId(8), &history(&[(2, 3)]));
        host.note_other("web", &history(&[(2, 9)]));
        assert_eq!(host.shown(), [(HostRole::StandIn, 2, false), (HostRole::Target, 2, true)]);
    }
}
