//! How a connection comes into being: at the start, or when a person adds a target while it runs.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use parking_lot::Mutex;

use super::activity::Merge;
use super::backlog::LeftBehind;
use super::connection::{Around, Connection, Settings, Watch};
use super::durability::TargetDurability;
use super::embedded::{Embedded, is_missing, replica_state};
use super::kept::Kept;
use super::mark::{Mark, Marks};
use super::record::{ConnectionRecord, SetRecord};
use super::remote::{Awaited, Paired, Route};
use super::roles::Roles;
use super::startup::{duplicate, io_failure, no_identity};
use super::terms::Terms;
use crate::failure::Failure;
use crate::intercept::Volume;
use crate::link::{Identity, Outgoing};
use crate::packet::{Ids, Position, SetId};
use crate::queue::Queue;
use crate::words::{CopyMode, ProtectOptions, Target};

/// What connections share with the rest of the source.
pub struct Joining {
    pub set: SetId,
    pub queue: Arc<Queue>,
    pub volume: Arc<Volume>,
    pub backing: OwnedFd,
    pub durability: Option<Arc<TargetDurability>>,
    /// Before it was seen that nobody had a file open for writing past the mount.
    pub unwritten_at: Mark,
    pub marks: Arc<Marks>,
    pub ids: Ids,
    /// What is in doubt since a power loss.
    pub merge: Option<Arc<Merge>>,
    pub roles: Arc<Roles>,
    /// The run goes on as the one before it.
    pub goes_on: bool,
    /// What that has left in the queue, by target: of those that the start names, once.
    pub left: Mutex<BTreeMap<String, LeftBehind>>,
    /// Held by whoever adds one.
    pub one: Mutex<()>,
    /// The highest number that was given to one.
    pub last_id: AtomicU32,
}

/// What the record of the set knows of a connection.
#[derive(Clone)]
pub struct Enlisted {
    /// Small number for people.
    pub id: u32,
    pub uuid: String,
    kept: Kept,
    /// It has answered before.
    is_known: bool,
    /// Somebody may have changed something past the mount since it was in line.
    touched: bool,
    /// As of which its replica was given that the directory was restored from.
    restored_at: Option<Position>,
}

impl Enlisted {
    /// One that a start names.
    pub fn named(id: u32, record: &mut SetRecord, target: &Target) -> Enlisted {
        let ConnectionRecord { uuid, mut kept, .. } = record.connection(target).clone();
        let is_noted = record.marks.contains_key(&target.to_string());
        if record.stands_in && !is_noted && kept.copy_mode == CopyMode::default() {
            // What the other side has is mostly the same, and no time says of what.
            kept.copy_mode = CopyMode::DifferencesChecksum;
        }
        let is_restored = record.restored_from.as_deref() == Some(target.to_string().as_str());
        Enlisted {
            id,
            uuid,
            kept,
            is_known: record.has_answered(target),
            touched: record.touched,
            restored_at: record.restored_at.filter(|_| is_restored),
        }
    }
}

impl Joining {
    pub fn settings(
        &self,
        options: &ProtectOptions,
        target: &Target,
        known: Enlisted,
        terms: Terms,
        watch: Option<Watch>,
    ) -> Settings {
        Settings {
            id: known.id,
            uuid: known.uuid,
            target: target.clone(),
            is_known: known.is_known,
            set: self.set,
            set_name: match target {
                Target::Remote { repset, .. } => repset.clone(),
                Target::Local(_) | Target::Null => options.name.clone(),
            },
            ids: self.ids.clone(),
            unwritten_at: self.unwritten_at.clone(),
            watch,
            divergence: self.volume.divergence().clone(),
            fence: self.volume.fence().clone(),
            roles: self.roles.clone(),
            marks: self.marks.clone(),
            touched: known.touched,
            map: self.volume.map().cloned(),
            merge: self.merge.clone(),
            when_full: options.when_full,
            kept: known.kept,
            delete_guard: options.delete_guard,
            orphans: options.orphans,
            owners: options.owners,
            restored_at: known.restored_at,
            goes_on: self.goes_on,
            left: self.left.lock().remove(&target.to_string()),
            terms,
        }
    }

    /// It dials from here on.
    pub fn start(
        &self,
        settings: Settings,
        route: Route,
        embedded: Option<Embedded>,
    ) -> Result<Connection, Failure> {
        let backing = duplicate(&self.backing)?;
        let outgoing = Outgoing { owned_by: settings.owners, ..Outgoing::default() };
        let around = Around { route, backing, volume: self.volume.clone(), outgoing };
        Connection::start(settings, around, self.queue.clone(), embedded)
            .map_err(|error| io_failure("a connection has no thread", &error))
    }
}

/// The way to a target that sends something; one on this host is opened, and made where it is missing.
pub fn route(
    options: &ProtectOptions,
    set: SetId,
    known: &Enlisted,
    target: &Target,
    identity: Option<&Arc<Identity>>,
) -> Result<(Route, Option<Embedded>), Failure> {
    match target {
        Target::Null => panic!("there is no way to {target}"),
        Target::Local(path) => {
            let state = replica_state(&options.set_state(), path);
            match Embedded::start(path, &state, set, options) {
                Ok(embedded) => Ok((Route::Within(embedded.target()), Some(embedded))),
                Err(failure) if may_be_awaited(options, known, target) && is_missing(path, &state) => {
                    log::error!("{} {}", failure.what, failure.next);
                    Ok((Route::Awaited(awaited(options, set, path)), None))
                }
                Err(failure) => Err(failure),
            }
        }
        Target::Remote { .. } => {
            let identity = identity.ok_or_else(no_identity)?;
            Ok((Route::Paired(Paired::new(target, &options.state, identity.clone())?), None))
        }
    }
}

/// A replica that is known and missing keeps nothing from the others: its connection is in error until it
/// is there.
fn may_be_awaited(options: &ProtectOptions, known: &Enlisted, target: &Target) -> bool {
    let others = options.targets.iter().filter(|other| *other != target && **other != Target::Null);
    known.is_known && others.count() > 0
}

fn awaited(options: &ProtectOptions, set: SetId, path: &Path) -> Awaited {
    let (options, path) = (options.clone(), path.to_owned());
    let state = replica_state(&options.set_state(), &path);
    Awaited::new(move || Embedded::start(&path, &state, set, &options))
}
