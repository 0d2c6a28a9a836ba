//! `standin restore`: the content of a replica into a directory, by the very lane and the very applier that
//! made the replica, with the ends swapped.
//!
//! ```text
//!  place: what the directory is ── origin: the replica, on this host or a target ── mark: it is incomplete
//!                                         │ frames              ^ what is wanted, what is complete
//!                                         v                     │
//!                                  applying: session, applier ──┘
//!  leaving: the set's label and record, so that the next protection sends nothing ── mark taken away
//! ```
//! A restoration that was cut goes on with the same command: what is whole is compared and not sent. Until
//! its end the directory carries a mark, and is not protected.

mod applying;
mod leaving;
mod mark;
mod origin;
mod place;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Serialize;

use self::applying::Applied;
pub use self::applying::Tally;
use self::leaving::Leaving;
use self::mark::Bring;
pub(super) use self::mark::refuse_unfinished;
use self::origin::Origin;
use self::place::Place;
use super::record::{Restoring, SetRecord, StateError};
use crate::apply::{Applier, Existing, LinkedOut, NameMatch, Places, Replica, Rules, Strays};
use crate::failure::Failure;
use crate::open_files;
use crate::packet::SetId;
use crate::preflight::check_root_user;
use crate::resync::Pace;
use crate::store;
use crate::words::{OwnedBy, Target};

/// What was asked for. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Name of the replication set, as it will be protected.
    pub name: String,
    pub from: Target,
    pub to: PathBuf,
    pub state: PathBuf,
    pub run: PathBuf,
    pub existing: Existing,
    pub believes: Believes,
    /// Bytes of content a second; `None`: as fast as it goes.
    pub rate: Option<u64>,
    pub orphans: Orphans,
    /// By what files get their owners.
    pub owners: OwnedBy,
    /// Also into a directory that is not empty.
    pub overwrite: bool,
    /// Also from a replica that is no consistent copy.
    pub accept_bad_data: bool,
    /// Also while files in the directory are open for writing.
    pub force: bool,
}

/// What becomes of names in the directory that the replica lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orphans {
    Aside,
    Keep,
    Delete,
}

/// What says that a file that is there has the content of the replica's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Believes {
    Nothing,
    SizeAndTime,
}

/// What a restoration came to.
#[derive(Clone, Debug, Serialize)]
pub struct Restored {
    pub from: String,
    #[serde(with = "crate::control::path_text")]
    pub to: PathBuf,
    pub set: String,
    pub name: String,
    #[serde(flatten)]
    pub tally: Tally,
    /// Objects that stayed as they were, by `--missing-only` or `--newer-only`.
    pub kept: u64,
    /// Objects that the replica lacks, and that were moved aside or deleted.
    pub orphans: u64,
    #[serde(with = "crate::control::path_text")]
    pub orphans_in: PathBuf,
    /// They were deleted: none was moved to `orphans_in`.
    pub orphans_deleted: bool,
    pub left_out: u64,
    pub left_out_named: Vec<String>,
    /// What the replica cannot have had beside plain data, in words; empty: everything.
    pub allowed: String,
    pub took_ms: u64,
    /// Whether the next protection of the directory under this name is of the same set.
    pub known_as_the_set: bool,
}

const UNTOUCHED: &str = "Nothing was restored; the directory is as it was.";

/// Restores until the end, telling each second how far it is.
///
/// Errors: nothing was done, or the directory is marked as incomplete; the text says which.
pub fn restore(options: &RestoreOptions, tell: impl Fn(&Tally, Duration)) -> Result<Restored, Failure> {
    check_user(rustix::process::geteuid().as_raw())?;
    open_files::raise()?;
    let (began, stop) = (Instant::now(), catch_signals()?);
    let found = Place::look(options)?;
    let mut origin = Origin::reach(options)?;
    let set = origin.set();
    let name = Name::take(options, set)?;
    let place = found.take(options)?;
    place.refuse_replica(options, set)?;
    let replica_at = origin.applied();
    let (mark, bring) = place.begin(options, replica_at)?;
    let places = place.places(&options.set_state());
    let orphans_before = leaving::orphans_in(&places);
    let mut applier = open(options, &places, set, bring)?;
    let applied = applying::apply((&mut origin, &options.pace()), &mut applier, &stop, tell);
    let kept = applier.kept();
    let allowed = origin.allowed();
    drop(applier);
    origin.close();
    let Applied { tally, orphans, left_out } = applied.map_err(|why| why.failure(options))?;
    // What the replica has and the directory has not would go from the replica with the next protection.
    let is_whole = left_out.is_empty();
    let is_known = is_whole && name.is_the_sets();
    if is_whole {
        let leaving = Leaving { options, place: &place, places: &places, set, replica_at, orphans_before };
        leaving::leave(leaving, name, mark)?;
    }
    Ok(Restored {
        from: options.from.to_string(),
        to: options.to.clone(),
        set: set.to_string(),
        name: options.name.clone(),
        tally,
        kept,
        orphans,
        orphans_in: places.limbo.join("orphans"),
        orphans_deleted: orphans > 0 && is_whole && options.orphans == Orphans::Delete,
        left_out: left_out.count,
        left_out_named: left_out.lines(),
        allowed,
        took_ms: began.elapsed().as_millis() as u64,
        known_as_the_set: is_known,
    })
}

impl RestoreOptions {
    /// What the set keeps on disk.
    pub fn set_state(&self) -> PathBuf {
        self.state.join(&self.name)
    }

    /// A directory that is not empty may be written to.
    fn may_find_something(&self) -> bool {
        self.overwrite || self.existing != Existing::Replace
    }

    /// What is in the directory at the end is what the replica has, and nothing else. What was left as it was
    /// may differ under the same size and time.
    fn takes_all(&self) -> bool {
        self.existing == Existing::Replace && self.believes == Believes::Nothing && !self.force
    }

    fn pace(&self) -> Pace {
        let pace = Pace::default();
        pace.set_rate(self.rate);
        pace
    }

    fn rules(&self, bring: Bring) -> Rules {
        let strays = match self.orphans {
            Orphans::Aside | Orphans::Delete => Strays::AsideOnDisk,
            Orphans::Keep => Strays::Keep,
        };
        let (suspects_all, name_match) = match self.believes {
            Believes::Nothing => (bring == Bring::Everything, NameMatch::Copy),
            Believes::SizeAndTime => (false, NameMatch::Compare),
        };
        let linked_out = LinkedOut::Replaced;
        Rules { name_match, existing: self.existing, strays, suspects_all, linked_out }
    }
}

/// The name under which the directory will be protected, which nobody else has meanwhile.
struct Name {
    state: Restoring,
    /// Another directory of this host is the set's, under another name: this one is a plain copy.
    is_copy: bool,
}

impl Name {
    fn take(options: &RestoreOptions, set: SetId) -> Result<Name, Failure> {
        let state = options.set_state();
        let mut restoring = Restoring::begin(&state, set).map_err(|error| no_name(options, &error))?;
        restoring.owners = options.owners;
        let names = names_of(&options.state, set).map_err(|error| no_name(options, &error.into()))?;
        let is_copy = !restoring.is_known() && !names.is_empty();
        Ok(Name { state: restoring, is_copy })
    }

    fn is_the_sets(&self) -> bool {
        !self.is_copy
    }
}

/// Names of sets in the state directory that stand for this one.
fn names_of(state: &Path, set: SetId) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(state)? {
        let entry = entry?;
        let record = store::read_json::<SetRecord>(&entry.path().join("set.json"));
        if let (Ok(Some(record)), Ok(name)) = (record, entry.file_name().into_string())
            && record.set == set
        {
            names.push(name);
        }
    }
    Ok(names)
}

fn no_name(options: &RestoreOptions, error: &StateError) -> Failure {
    let (name, state) = (&options.name, options.set_state());
    let (what, next) = match error {
        StateError::InUse => (
            format!("A daemon, or another restoration, uses the state of '{name}' in {}.", state.display()),
            format!(
                "If it is the protection, stop it first (standin stop {name}); or choose another --name."
            ),
        ),
        StateError::OtherTree(tree) => (
            format!("The name '{name}' belongs to another set, that of {}.", tree.display()),
            "Choose another one with --name, and give it to `standin protect` too.".into(),
        ),
        StateError::NotTheSource(why) => ((*why).to_owned(), String::new()),
        StateError::Io(error) => (
            format!("The state in {} cannot be used: {error}.", state.display()),
            "Mend this and start again.".into(),
        ),
    };
    Failure::new(what, UNTOUCHED, next)
}

fn open(options: &RestoreOptions, places: &Places, set: SetId, bring: Bring) -> Result<Applier, Failure> {
    let set = mark::while_restoring(set);
    // What may be in it was looked at before.
    let opened = Replica::open_or_adopt(places, set);
    let replica = opened.map_err(|error| {
        Failure::new(
            format!("Nothing can be restored into {}: {error}.", options.to.display()),
            "Nothing was restored; the directory is marked as incomplete.",
            "Mend this and give the same command again, or choose another directory.",
        )
    })?;
    Ok(Applier::new(replica).with_rules(options.rules(bring)))
}

fn check_user(uid: u32) -> Result<(), Failure> {
    check_root_user(uid).map_err(|_| {
        Failure::new(
            format!("Restoring needs root, to give files their owners; this is user {uid}."),
            UNTOUCHED,
            "Start it as root, for example with sudo.",
        )
    })
}

/// Set by the first signal.
fn catch_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let caught = crate::signals::stop_signals();
    caught
        .and_then(|signals| {
            signals.forward(move || {
                // The second one is for whoever hangs.
                if told.swap(true, Relaxed) {
                    std::process::exit(1);
                }
                true
            })
        })
        .map_err(|error| Failure::new(format!("Signals cannot be caught: {error}."), UNTOUCHED, ""))?;
    Ok(stop)
}
