//! A replica is served in its source's place: at its host, read-write, in a higher epoch.
//!
//! ```text
//!  the replica is wanted (a target daemon lets it go) ── opened, locked, at rest, durable, good
//!      ── the set's record here: a higher epoch, durably   (killed before: nothing happened)
//!      ── the fence of the replica, durably                (killed between: the source may come; the same
//!                                                           command begins anew, in an epoch above)
//!      ── from here on no source of a lower epoch is taken in, and it is mounted
//! ```
//! Objects keep the ids that the replica's index has for them ([`ids`]); what is born here is born in the new
//! epoch.

mod following;
mod foresight;
mod holder;
mod ids;
mod keeping;
mod lost_writes;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use self::ids::{IdsOfReplica, Noted};
use super::embedded::replica_state;
use super::record::{FencedRecord, Known, SetState, StateError};
use super::startup::{NOTHING_MOUNTED, io_failure};
use crate::apply::{Applier, OpenError, Places, Replica, fence_of, known_of, set_of};
use crate::control::unix_ms;
use crate::failpoint;
use crate::failure::Failure;
use crate::limits::{REPLICA_LET_GO_PATIENCE, REPLICA_LET_GO_POLL};
use crate::locked::Locked;
use crate::packet::{DataState, Epoch, Ids};
use crate::place::Place;
use crate::preflight;
use crate::target_side::{forget_other, history_of, keep_history, runs_of, serve_state, want};
use crate::words::{BadData, ProtectOptions};

pub use self::following::{Following, Taken, Unfollowed};
pub use self::foresight::{Foreseen, Seen, WouldWrite, foresee, note_split_brain};
pub use self::holder::check;
pub use self::keeping::{KeptHistory, keep, note_taken_over};

const LEFT_ALONE: &str = "Nothing is mounted; the replica is as it was.";

/// Who stands in with a replica. Nobody else gets it as long as this lives.
pub struct StandIn {
    pub ids: Ids,
    /// Of the replica.
    pub state: PathBuf,
    _wanted: Locked,
}

impl StandIn {
    /// Takes the replica that the options name as the tree, and raises the epoch. `None`: the tree is a
    /// source's own.
    ///
    /// Errors: it is no replica, is bad, its source is connected; the tree was stood in for elsewhere.
    pub fn begin(
        options: &ProtectOptions,
        set: &mut SetState,
        follower: &mut dyn Following,
    ) -> Result<Option<StandIn>, Failure> {
        if options.stand_in.is_none() {
            refuse_stood_in_for(options.tree(), set.record.epoch)?;
            refuse_fenced(options, set)?;
        }
        let bad_data = match options.stand_in {
            Some(bad_data) => bad_data,
            None if set.record.stands_in => BadData::Refuse,
            None => return Ok(None),
        };
        let state = find_state(options)?;
        let (wanted, mut replica) = take(options, &state)?;
        holder::wait_until_let_go(options)?;
        if options.start_unconfirmed {
            forget_other(&state).map_err(|error| io_failure("what was noted of others stays", &error))?;
        }
        let known = known(&replica, &state)?;
        if options.stand_in.is_none() {
            refuse_kept_out(options.tree(), set.record.epoch, known.fence)?;
        }
        if let Some(epoch) = set.record.written_elsewhere(&known).filter(|_| bad_data == BadData::Refuse) {
            return Err(never_came(options, epoch));
        }
        let goes_on = set.record.goes_on_standing_in(&known);
        if !goes_on && options.stand_in.is_none() {
            return Err(not_begun(options));
        }
        if !goes_on {
            lost_writes::refuse(options, &state)?;
            replica = at_rest(options, replica, bad_data)?;
        }
        let index = options.set_state().join("ids");
        let noted = Noted::of(&replica, &index)
            .map_err(|error| io_failure("the ids of the replica's objects cannot be looked up", &error))?;
        if !goes_on {
            follower.taken(&Taken::of(&replica, &state))?;
            set.stand_in(&known, noted.newest_birth).map_err(|error| other_set(options, &error))?;
        }
        raise(set, &mut replica, &state)?;
        follower.raised(set.record.epoch, goes_on);
        let ids = Ids::kept(set.record.birth_epoch(), Arc::new(IdsOfReplica::new(replica, noted)));
        Ok(Some(StandIn { ids, state, _wanted: wanted }))
    }
}

/// What a replica that was taken says of itself.
fn known(replica: &Replica, state: &Path) -> Result<Known, Failure> {
    let history = history_of(state, replica.fence())
        .map_err(|error| io_failure("who has written the replica cannot be read", &error))?;
    let runs = runs_of(state).map_err(|error| io_failure("the runs of its source cannot be read", &error))?;
    Ok(Known { set: replica.set(), fence: replica.fence(), applied: replica.applied(), history, runs })
}

/// The record first: a fence whose writer nobody knows would keep everybody out.
fn raise(set: &SetState, replica: &mut Replica, state: &Path) -> Result<(), Failure> {
    let failed = |error: &io::Error| io_failure("the epoch cannot be raised", error);
    let at = |place| failpoint::at(place).map_err(|error| failed(&error));
    at("stand-in record")?;
    set.save().map_err(|error| failed(&error))?;
    at("stand-in fence")?;
    let epoch = set.record.epoch;
    if epoch.raises(replica.fence()) {
        keep_history(state, &set.record.history).map_err(|error| failed(&error))?;
        raise_fence(replica, epoch)?;
        log::info!("stands in for the source of set {} in epoch {}", set.record.set, epoch.number);
    }
    Ok(())
}

fn raise_fence(replica: &mut Replica, epoch: Epoch) -> Result<(), Failure> {
    replica
        .raise_fence(epoch)
        .map_err(|fault| io_failure("the epoch cannot be raised", &io::Error::other(fault.to_string())))
}

fn now_ms() -> u64 {
    unix_ms(SystemTime::now())
}

/// Where what is known of the replica is: with the target daemon of this host, or with a set whose embedded
/// target had it.
fn find_state(options: &ProtectOptions) -> Result<PathBuf, Failure> {
    let tree = options.tree();
    let served = tree.file_name().map(|name| serve_state(&options.state).join(name));
    let sets = fs::read_dir(&options.state).into_iter().flatten().flatten();
    let embedded = sets.map(|set| replica_state(&set.path(), tree));
    let mut found = served.into_iter().chain(embedded).filter(|state| state.join("slot").exists());
    // A name is no proof: what is known of another replica would be made void by opening this one with it.
    found.find(|state| is_state_of(state, tree)).ok_or_else(|| {
        Failure::new(
            format!("{} is no replica that this host knows: nobody can stand in with it.", tree.display()),
            LEFT_ALONE,
            format!(
                "Name the directory of a replica, and with --state the state directory of its target (here {}).",
                options.state.display()
            ),
        )
    })
}

/// Whether this is what is known of the replica in this directory, by set and place.
fn is_state_of(state: &Path, tree: &Path) -> bool {
    let is_it = || -> io::Result<bool> {
        let root = File::open(tree)?;
        let known = known_of(state)?;
        let set = set_of(&root, Some(state))?;
        let here = Place::of(root.as_fd());
        Ok(known.is_some_and(|(known, place)| {
            set == Some(known) && place.is_none_or(|place| here.differs_from(&place).is_none())
        }))
    };
    is_it().unwrap_or(false)
}

/// Opens the replica; a target daemon that has it lets it go, while no source works on it.
fn take(options: &ProtectOptions, state: &Path) -> Result<(Locked, Replica), Failure> {
    let shown = options.tree().display();
    let places = Places::beside(options.tree(), state);
    let failed = |error: &io::Error| io_failure(&format!("the replica {shown} cannot be taken"), error);
    let deadline = Instant::now() + REPLICA_LET_GO_PATIENCE;
    let wanted = loop {
        // A daemon that looks whether it is wanted has the lock for a moment.
        match want(state).map_err(|error| failed(&error))? {
            Some(wanted) => break wanted,
            None if Instant::now() < deadline => std::thread::sleep(REPLICA_LET_GO_POLL),
            None => return Err(in_use(options)),
        }
    };
    let root = File::open(options.tree()).map_err(|error| failed(&error))?;
    let set = set_of(&root, Some(state)).map_err(|error| failed(&error))?.ok_or_else(|| {
        failed(&io::Error::other("it does not carry the mark of a replica: mount its disk, if it has one"))
    })?;
    loop {
        match Replica::open(&places, set) {
            Ok(replica) => return Ok((wanted, replica)),
            Err(OpenError::InUse) if Instant::now() < deadline => std::thread::sleep(REPLICA_LET_GO_POLL),
            Err(OpenError::InUse) => return Err(in_use(options)),
            Err(error) => return Err(failed(&io::Error::other(error.to_string()))),
        }
    }
}

/// Everything that was applied is on the disk, with its times.
fn at_rest(options: &ProtectOptions, replica: Replica, bad_data: BadData) -> Result<Replica, Failure> {
    let mut applier = Applier::at_rest(replica);
    let data = applier.begin_session().data;
    let shown = applier.data_shown();
    let reason = match (data, shown.reason) {
        (DataState::Good, None) => None,
        (DataState::Empty, _) => Some("nothing was ever copied there".into()),
        (DataState::Good | DataState::Bad, reason) => Some(reason.unwrap_or_default()),
    };
    match reason {
        Some(why) if bad_data == BadData::Refuse || data == DataState::Empty => {
            return Err(bad(options, &why));
        }
        Some(_) => {}
        None => applier.durable_point().map_err(|fault| {
            io_failure("what was applied cannot be made durable", &io::Error::other(fault.to_string()))
        })?,
    }
    Ok(applier.into_replica())
}

/// Refuses a source that goes on with a directory which is somebody else's replica now.
fn refuse_stood_in_for(tree: &Path, epoch: Epoch) -> Result<(), Failure> {
    let fence = File::open(tree).and_then(|root| fence_of(root.as_fd()));
    let fence = fence.map_err(|error| io_failure(&format!("{} cannot be read", tree.display()), &error))?;
    refuse_kept_out(tree, epoch, fence)
}

/// Refuses a source that has learnt that somebody else writes the set, unless a person says otherwise.
fn refuse_fenced(options: &ProtectOptions, set: &mut SetState) -> Result<(), Failure> {
    let Some(fenced) = set.record.fenced.take_if(|_| options.start_unconfirmed) else {
        return match &set.record.fenced {
            None => Ok(()),
            Some(fenced) => Err(fenced_off(options, fenced, set.record.epoch)),
        };
    };
    aside!(
        "note: {} said that the set is written in epoch {}: that is forgotten, by --start-unconfirmed.",
        fenced.told_by,
        fenced.epoch.number
    );
    Ok(())
}

pub(super) fn fenced_off(options: &ProtectOptions, fenced: &FencedRecord, own: Epoch) -> Failure {
    let FencedRecord { epoch, told_by, .. } = fenced;
    let tree = options.tree().display();
    Failure::new(
        format!(
            "The source {tree} was stood in for: {told_by} said that the set is written in epoch {}, and this source \
             is of epoch {}.",
            epoch.number, own.number
        ),
        NOTHING_MOUNTED,
        "Let the stand-in bring the directory into line (standin serve --adopt here); then start with --stand-in. Where \
         nobody stands in any more, and what was written there is not wanted: remove that replica with its state, or \
         do not name that target any more, and start with --start-unconfirmed.",
    )
}

fn refuse_kept_out(tree: &Path, epoch: Epoch, fence: Option<Epoch>) -> Result<(), Failure> {
    let Some(why) = epoch.kept_out_by(fence) else { return Ok(()) };
    Err(Failure::new(
        format!("{} is the replica of a stand-in: {why}.", tree.display()),
        NOTHING_MOUNTED,
        "To write here again: stop the stand-in, the target daemon of this directory too, and start with --stand-in.",
    ))
}

fn not_begun(options: &ProtectOptions) -> Failure {
    Failure::new(
        format!("{} was to stand in for its source, and that did not begin.", options.tree().display()),
        LEFT_ALONE,
        "Its source may have come since. To serve it in the source's place: the same command with --stand-in.",
    )
}

fn bad(options: &ProtectOptions, why: &str) -> Failure {
    Failure::new(
        format!("{} is no consistent state of its source: {why}.", options.tree().display()),
        LEFT_ALONE,
        "Let its source bring it into line. To serve what is there, as it is: --accept-bad-data.",
    )
}

/// Standing in with it would put an old state in the place of what somebody else has written since.
fn never_came(options: &ProtectOptions, epoch: Epoch) -> Failure {
    Failure::new(
        format!(
            "A target has said that the set is written in epoch {}, and nothing of that has come to {}.",
            epoch.number,
            options.tree().display()
        ),
        LEFT_ALONE,
        "Let who writes it now bring it into line (standin serve --adopt here, standin connection add there). To serve what \
         is there, as it is: --accept-bad-data.",
    )
}

fn in_use(options: &ProtectOptions) -> Failure {
    preflight::undead().unwrap_or_else(|| {
        Failure::new(
            format!(
                "The replica {} is worked on: its source is connected, perhaps.",
                options.tree().display()
            ),
            LEFT_ALONE,
            "Stop its source (standin stop there), or cut it off: two hosts would write one set.",
        )
    })
}

fn other_set(options: &ProtectOptions, error: &StateError) -> Failure {
    let (name, tree) = (&options.name, options.tree().display());
    let why = match error {
        StateError::OtherTree(own) => format!("it protects {}", own.display()),
        StateError::NotTheSource(why) => (*why).to_owned(),
        StateError::InUse | StateError::Io(_) => "its state cannot be used".into(),
    };
    Failure::new(
        format!("The name '{name}' does not stand for the set of {tree}: {why}."),
        LEFT_ALONE,
        "Choose another name with --name.",
    )
}
