//! Clones of a replica, for the control socket: begun, listed, ended.
//!
//! On the thread of whoever asks; the barrier is taken by whoever works on the replica, or here, where nobody
//! does.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::apply::{Applier, Places};
use crate::clone::{End, Force, Refusal, Sessions, Shown, Start, Stop};
use crate::control::{CloneEnd, CloneRequest, CloneStatus, ClonesRequest, ReplicaClones};
use crate::failure::Failure;

/// A replica that can be cloned.
pub struct Unit {
    /// Of the replication set.
    pub name: String,
    pub directory: PathBuf,
    /// What takes long, as the removal of a clone, keeps nobody else from the replica.
    pub applier: Weak<Mutex<Applier>>,
    pub clones: Arc<Sessions>,
}

/// Where a replica and what lies beside it are: no place of anything else.
pub fn places_of(replica: &Path) -> [PathBuf; 2] {
    [replica.to_owned(), Places::limbo_of(replica)]
}

/// What is asked for, of those replicas that are meant; `keeps_off` is what else the daemon has on the disk.
pub fn answer(
    units: &[Unit],
    keeps_off: &[PathBuf],
    request: &ClonesRequest,
) -> Result<Vec<ReplicaClones>, Failure> {
    let is_meant = |unit: &&Unit| request.replica.as_ref().is_none_or(|name| *name == unit.name);
    let meant: Vec<&Unit> = units.iter().filter(is_meant).collect();
    let only = || match meant[..] {
        [unit] => Ok(unit),
        [] => Err(unknown(request.replica.as_deref())),
        _ => Err(several()),
    };
    match &request.what {
        CloneRequest::List => {
            meant.iter().for_each(|unit| unit.clones.tend());
            Ok(meant.iter().map(|unit| shown(unit, unit.clones.list())).collect())
        }
        CloneRequest::Start { name, to, accept_bad_data, area_limit } => {
            let unit = only()?;
            unit.clones.tend();
            let replicas = units.iter().flat_map(|unit| places_of(&unit.directory));
            let start = Start {
                name: name.clone(),
                dir: to.clone(),
                accepts_bad: *accept_bad_data,
                room_max: *area_limit,
                keeps_off: replicas.chain(keeps_off.iter().cloned()).collect(),
            };
            let nudge = || {
                if let Some(applier) = unit.applier.upgrade()
                    && let Some(mut applier) = applier.try_lock()
                {
                    applier.take_barrier();
                }
            };
            let begun =
                unit.clones.start(&start, nudge).map_err(|why| refused("cannot be made", name, &why))?;
            Ok(vec![shown(unit, vec![begun])])
        }
        CloneRequest::Copy { name, to } => {
            let unit = of_clone(&meant, name, "cannot be copied")?;
            let replicas = units.iter().flat_map(|unit| places_of(&unit.directory));
            let keeps_off: Vec<PathBuf> = replicas.chain(keeps_off.iter().cloned()).collect();
            let copied = unit.clones.copy(name, to, &keeps_off);
            let copied = copied.map_err(|why| refused("cannot be copied", name, &why))?;
            Ok(vec![shown(unit, vec![copied])])
        }
        CloneRequest::Stop { name, force, remove } => {
            let unit = of_clone(&meant, name, "cannot be stopped")?;
            let stop = Stop { force: if *force { Force::Yes } else { Force::No }, removes: *remove };
            let ended =
                unit.clones.stop(name, stop).map_err(|why| refused("cannot be stopped", name, &why))?;
            Ok(vec![shown(unit, vec![ended])])
        }
    }
}

/// The one replica that has a clone of this name.
fn of_clone<'a>(meant: &[&'a Unit], name: &str, what: &str) -> Result<&'a Unit, Failure> {
    let has_it = |unit: &&&Unit| unit.clones.list().iter().any(|clone| clone.name == name);
    let holders: Vec<&&Unit> = meant.iter().filter(has_it).collect();
    match holders[..] {
        [unit] => Ok(unit),
        [] => Err(refused(what, name, &Refusal::Unknown)),
        _ => Err(several()),
    }
}

fn refused(what: &str, name: &str, why: &Refusal) -> Failure {
    Failure::new(
        format!("The clone '{name}' {what}: {why}."),
        "Replication and the other clones go on as before.",
        "`standin clone list` shows what there is.",
    )
}

fn unknown(name: Option<&str>) -> Failure {
    let what = match name {
        Some(name) => format!("This daemon holds no replica of the set '{name}'."),
        None => "This daemon holds no replica.".to_owned(),
    };
    Failure::new(what, UNTOUCHED, "`standin clone list` shows the replicas of all daemons of this host.")
}

fn several() -> Failure {
    Failure::new("Several replicas are meant.", UNTOUCHED, "Say of which set with --set.")
}

const UNTOUCHED: &str = "Nothing was changed.";

fn shown(unit: &Unit, clones: Vec<Shown>) -> ReplicaClones {
    ReplicaClones {
        name: unit.name.clone(),
        directory: unit.directory.clone(),
        clones: clones.into_iter().map(status).collect(),
    }
}

fn status(shown: Shown) -> CloneStatus {
    let (position, started_unix_ms, bad_data) = match &shown.barrier {
        Some(barrier) => (barrier.position.sequence.0, barrier.at_ms, barrier.is_bad),
        None => (0, 0, false),
    };
    CloneStatus {
        name: shown.name,
        kind: shown.kind.word().to_owned(),
        state: shown.state.word().to_owned(),
        directory: shown.dir,
        keeps_good: shown.keeps_good,
        usable: shown.is_ready && shown.is_unit_ready,
        position,
        started_unix_ms,
        bad_data,
        inconsistent: shown.is_inconsistent,
        reason: shown.reason,
        objects_copied: shown.objects,
        objects_total: shown.objects_all,
        bytes_copied: shown.bytes,
        area_bytes: shown.room,
        longest_hold_us: shown.longest_hold_us,
        ended: shown.end.map(end),
    }
}

fn end(end: End) -> CloneEnd {
    match end {
        End::Kept => CloneEnd::Kept,
        End::Removed => CloneEnd::Removed,
        End::KeptInPart => CloneEnd::KeptInPart,
        End::NotThere => CloneEnd::NotThere,
        End::NeverComplete => CloneEnd::NeverComplete,
    }
}
