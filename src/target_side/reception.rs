//! Takes a source in: its seat at a replica, and a session until its connection ends.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::greeting::{Comes, Greeted, handshake};
use super::reading;
use super::roles::{history_of, keep_history};
use super::session::{SourceSession, Surroundings, Synced};
use super::{ReadingSeat, Replicas, Seat};
use crate::apply::{Applier, DurablePoint};
use crate::clone::LOST_WRITES;
use crate::cover::{self, Written};
use crate::limits::EPOCHS_RAISED_MAX;
use crate::link::{TargetEvent, TargetLink};
use crate::packet::{BadBy, Beyond, DataState, Epoch, History, KeptOut, TargetMessage, Text, Writes};
use crate::words::OwnedBy;

/// Serves one source until its connection ends; answers why it ended.
///
/// Errors: the source was refused; the reason went to both sides.
pub fn run(link: TargetLink, replicas: &dyn Replicas, stopping: &Arc<AtomicBool>) -> Result<String, String> {
    let (seat, comes) = match handshake(&link, replicas) {
        Ok(Greeted::Seated(seat, comes)) => (seat, comes),
        Ok(Greeted::Reads(seat, owned_by)) => return give(&link, &seat, owned_by, stopping),
        Ok(Greeted::Answered) => {
            let reason = "it only asked how things are";
            wait_and_close(&link, reason);
            return Ok(reason.into());
        }
        Ok(Greeted::Refused(reason)) => return refuse(&link, reason),
        Ok(Greeted::KeptOut(known, reason)) => return keep_out(&link, *known, reason),
        Err(reason) => return refuse(&link, reason),
    };
    // An older session of the same source ends first.
    let mut applier = seat.applier.lock();
    match admit(&mut applier, &comes) {
        Ok(()) => {}
        Err(NotAdmitted::KeptOut(kept_out, known)) => {
            return keep_out(&link, Some(*known), kept_out.to_string());
        }
        Err(NotAdmitted::Fault(reason)) => return refuse(&link, reason),
    }
    if let Some(peer) = link.peer() {
        replicas.taken_in(&peer.key, &comes.name);
    }
    if let Some(allow) = seat.allow {
        applier.set_allow(allow);
    }
    let (stops, cut) = (stopping.clone(), seat.cut.clone());
    applier.goes_on_while(move || !stops.load(Relaxed) && cut.reason().is_none());
    let mut session =
        SourceSession::welcome(Around { link: &link, seat: &seat, stopping }, &seat.view, applier);
    link.welcome();
    let reason = session.run(&link.frames());
    session.finish();
    link.close(&reason);
    Ok(reason)
}

fn give(
    link: &TargetLink,
    seat: &ReadingSeat,
    owned_by: OwnedBy,
    stopping: &AtomicBool,
) -> Result<String, String> {
    match reading::give(link, seat, owned_by, stopping) {
        Ok(reason) => {
            link.close(&reason);
            Ok(reason)
        }
        Err(reason) => refuse(link, reason),
    }
}

/// Why a source that has its seat may not take it.
enum NotAdmitted {
    KeptOut(KeptOut, Box<History>),
    Fault(String),
}

/// Before anything else of both sides is compared. A stand-in is known from then on, whatever follows.
fn admit(applier: &mut Applier, comes: &Comes) -> Result<(), NotAdmitted> {
    let fault = |what: &str, why: &dyn std::fmt::Display| NotAdmitted::Fault(format!("{what}: {why}"));
    let state = applier.state().to_owned();
    let fence = applier.fence();
    let known = history_of(&state, fence)
        .map_err(|error| fault("who has written the replica cannot be read on the target", &error))?;
    if let Some(kept_out) = comes.writes.history.kept_out_by(&known) {
        comes.is_noted(&state, &kept_out);
        return Err(NotAdmitted::KeptOut(kept_out, Box::new(known)));
    }
    refuse_further(applier, comes).map_err(NotAdmitted::Fault)?;
    let epoch = comes.epoch;
    let highest =
        fence.map_or(Epoch::FIRST, |known| known.number).max(applier.acknowledged().applied.epoch.number);
    if epoch.number - highest.min(epoch.number) > EPOCHS_RAISED_MAX {
        return Err(NotAdmitted::Fault(format!(
            "the source claims epoch {}, and {highest} is the last one that is known here: nothing was changed",
            epoch.number
        )));
    }
    let not_noted = "the epoch of the source cannot be noted on the target";
    if comes.writes.history.last() == Some(epoch) && comes.writes.history != known {
        keep_history(&state, &comes.writes.history).map_err(|error| fault(not_noted, &error))?;
    }
    if epoch.raises(fence) {
        applier.raise_fence(epoch).map_err(|error| fault(not_noted, &error))?;
    }
    keep_lost_writes(applier, comes).map_err(|why| fault("nothing is overwritten on the target", &why))
}

/// Of a directory in which programs of this host have written, and which is about to be overwritten by who stood in for it.
fn keep_lost_writes(applier: &mut Applier, comes: &Comes) -> Result<(), String> {
    // STATE/.serve/REPSET
    let records = applier.state().parent().filter(|own| own.ends_with(".serve")).and_then(Path::parent);
    let (Some(records), Some(_)) = (records, comes.writes.history.last()) else { return Ok(()) };
    let known = cover::written(records, applier.clones().root_path());
    let is_kept = match known.map_err(|error| format!("who has written here cannot be read: {error}"))? {
        Some((Written::HandedOver, _)) => false,
        // Until something of who has stood in is applied: a copy may be cut off before.
        Some((Written::Here, epoch)) => applier.acknowledged().applied.epoch.number <= epoch,
        // Of an older version.
        None => applier.is_untouched(),
    };
    if !is_kept {
        return Ok(());
    }
    let kept = applier.keep_adopted();
    kept.map_err(|why| format!("what only this directory has cannot be kept as clone '{LOST_WRITES}': {why}"))
}

/// A replica that has more than the one which was stood in with is not overwritten before a person says so: it could
/// be served instead. One that is no state of its source cannot.
fn refuse_further(applier: &Applier, comes: &Comes) -> Result<(), String> {
    let (proof, Writes { history, runs, overwrites }) = (applier.proof(), &comes.writes);
    let is_a_state = match proof.data {
        DataState::Empty => false,
        DataState::Good => true,
        DataState::Bad => proof.bad_by != BadBy::Anything,
    };
    let beyond = if is_a_state { history.beyond(&proof.applied, runs) } else { Beyond::Nothing };
    let what = match beyond {
        Beyond::Nothing => return Ok(()),
        Beyond::Further { after } => format!(
            "this replica is further than the one that was stood in with: it has packet {}, that one had {after}",
            proof.applied.sequence
        ),
        Beyond::Unknown => {
            "whether this replica is further than the one that was stood in with cannot be told: the two \
                            are of different runs of the source"
                .to_owned()
        }
    };
    if *overwrites {
        log::warn!("{what}; it is overwritten all the same: the source was told to (--overwrite-further)");
        return Ok(());
    }
    Err(format!(
        "{what}; nothing was overwritten. To go on from here instead: stop the stand-in, standin failover on this host, \
         then standin roles keep. To give up what only this one has: start the stand-in with --overwrite-further"
    ))
}

/// `known`: of the replica; `None` where it is not decided who writes it.
fn keep_out(link: &TargetLink, known: Option<History>, reason: String) -> Result<String, String> {
    let history = known.unwrap_or_default();
    let epoch = history.last().unwrap_or_default();
    link.send(TargetMessage::Wrote { history });
    link.send(TargetMessage::KeptOut { epoch, reason: Text::from_str_cut(&reason) });
    wait_and_close(link, &reason);
    Err(reason)
}

fn refuse(link: &TargetLink, reason: String) -> Result<String, String> {
    link.send(TargetMessage::Refused { reason: Text::from_str_cut(&reason) });
    wait_and_close(link, &reason);
    Err(reason)
}

/// The source closes when it has read its answer; a silent one is not waited for.
fn wait_and_close(link: &TargetLink, reason: &str) {
    let _ = link.messages().recv_timeout(Duration::from_secs(2));
    link.close(reason);
}

/// The link and the threads of the product.
struct Around<'a> {
    link: &'a TargetLink,
    seat: &'a Seat,
    stopping: &'a AtomicBool,
}

impl Surroundings for Around<'_> {
    fn send(&self, message: TargetMessage) {
        self.link.send(message);
    }

    fn next_event(&self) -> Option<TargetEvent> {
        self.link.messages().try_recv().ok()
    }

    fn has_to_end(&self) -> Option<String> {
        if self.stopping.load(Relaxed) {
            return Some("the target stops".into());
        }
        self.seat.cut.reason().map(str::to_owned)
    }

    fn sleep(&self, how_long: Duration) {
        std::thread::sleep(how_long);
    }

    fn sync(&self, point: DurablePoint) -> io::Result<Receiver<Synced>> {
        let (sender, outcome) = bounded(1);
        std::thread::Builder::new().name("durable".into()).spawn(move || {
            let synced = point.sync();
            let _ = sender.send((point, synced));
        })?;
        Ok(outcome)
    }
}
