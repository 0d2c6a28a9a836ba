//! Who writes the sets of this host, as it is on disk: no daemon is asked, and nothing is changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::record::SetRecord;
use crate::apply::resting;
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
        let is_served = |one: &WhoWrites| one.name == name && one.role != HostRole::Target;
        if !found.iter().any(is_served) {
            found.extend(of_replica(&replicas.join(&name), &name)?);
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
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
    let noted = noted.map(|replica| other_writer(&replica)).transpose()?.flatten();
    let parts = |other: &OtherWriter| history.meets(&other.history) == Meeting::TwoWriters;
    let other = record.other_writer.clone().filter(parts).or(noted.filter(parts));
    Ok(Some(WhoWrites {
        name: name.to_owned(),
        set: record.set,
        role: if record.stands_in { HostRole::StandIn } else { HostRole::Source },
        epoch: record.epoch,
        other,
        stood_in_for: record.fenced.as_ref().map(|fenced| (fenced.epoch, fenced.told_by.clone())),
        tree: Some(record.tree.clone()),
        run: record.runs.last().copied(),
        history,
    }))
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
        epoch: resting.durable.epoch,
        other: other.filter(parts),
        stood_in_for: None,
        tree: None,
        run: None,
        history,
    }))
}
