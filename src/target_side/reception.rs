//! Takes a source in: its greeting, its seat at a replica, and a session until its connection ends.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, bounded};

use super::reading::{self, Accept};
use super::roles::{OtherWriter, history_of, keep_history, note_other};
use super::session::{SourceSession, Surroundings, Synced};
use super::{NoSeat, ReadingSeat, Replicas, Seat};
use crate::apply::{Applier, DurablePoint};
use crate::control::unix_ms;
use crate::limits::{EPOCHS_RAISED_MAX, HANDSHAKE_TIME_MAX};
use crate::link::{TargetEvent, TargetLink};
use crate::packet::{
    Epoch, History, KeptOut, SetId, SourceMessage, Standing, TargetMessage, Text, WIRE_VERSION,
    WIRE_VERSION_OLDEST,
};

/// Serves one source until its connection ends; answers why it ended.
///
/// Errors: the source was refused; the reason went to both sides.
pub fn run(link: TargetLink, replicas: &dyn Replicas, stopping: &AtomicBool) -> Result<String, String> {
    let (seat, comes) = match handshake(&link, replicas) {
        Ok(Greeted::Seated(seat, comes)) => (seat, comes),
        Ok(Greeted::Reads(seat)) => return give(&link, &seat, stopping),
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
    if let Some(allow) = seat.allow {
        applier.set_allow(allow);
    }
    let mut session =
        SourceSession::welcome(Around { link: &link, seat: &seat, stopping }, &seat.view, applier);
    link.welcome();
    let reason = session.run(&link.frames());
    session.finish();
    link.close(&reason);
    Ok(reason)
}

fn give(link: &TargetLink, seat: &ReadingSeat, stopping: &AtomicBool) -> Result<String, String> {
    match reading::give(link, seat, stopping) {
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
    if let Some(kept_out) = comes.history.kept_out_by(&known) {
        comes.is_noted(&state, &kept_out);
        return Err(NotAdmitted::KeptOut(kept_out, Box::new(known)));
    }
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
    if comes.history.last() == Some(epoch) && comes.history != known {
        keep_history(&state, &comes.history).map_err(|error| fault(not_noted, &error))?;
    }
    if epoch.raises(fence) {
        applier.raise_fence(epoch).map_err(|error| fault(not_noted, &error))?;
    }
    Ok(())
}

/// `known`: of the replica; `None` where it is not decided who writes it.
fn keep_out(link: &TargetLink, known: Option<History>, reason: String) -> Result<String, String> {
    let history = known.unwrap_or_default();
    let epoch = history.last().unwrap_or_default();
    link.send(TargetMessage::KeptOut { epoch, history, reason: Text::from_str_cut(&reason) });
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

/// What a source wanted.
enum Greeted {
    Seated(Seat, Box<Comes>),
    Reads(ReadingSeat),
    Answered,
    /// By this history; `None` where it is not decided yet who writes.
    KeptOut(Box<Option<History>>, String),
    /// Who serves the replica is to let it go first.
    Refused(String),
}

/// A source that wants a seat.
#[derive(Clone, Debug)]
struct Comes {
    epoch: Epoch,
    history: History,
    /// For people.
    who: String,
}

impl Comes {
    /// Somebody else writes the set: whoever serves the replica here is to know of it, and a person.
    fn is_noted(&self, state: &Path, kept_out: &KeptOut) {
        if matches!(kept_out, KeptOut::TwoWriters { .. }) {
            note_other(state, &OtherWriter::now(self.history.clone(), self.who.clone()));
        }
    }
}

/// Somebody has the replica to serve it in its source's place: the mark says whether that is so already.
fn kept_out_of_wanted(comes: &Comes, state: &Path, fence: Option<Epoch>) -> Greeted {
    let known = history_of(state, fence).unwrap_or_else(|_| fence.map(History::of).unwrap_or_default());
    match comes.history.kept_out_by(&known) {
        Some(kept_out) => {
            comes.is_noted(state, &kept_out);
            Greeted::KeptOut(Box::new(Some(known)), kept_out.to_string())
        }
        // Who serves it was stood in for.
        None if known.last().is_some_and(|own| own.is_outranked_by(comes.epoch)) => {
            note_other(state, &OtherWriter::now(comes.history.clone(), comes.who.clone()));
            Greeted::Refused(IS_TOLD.to_owned())
        }
        None => Greeted::KeptOut(Box::new(None), IS_ABOUT_TO.to_owned()),
    }
}

const IS_TOLD: &str = "somebody on the target's host serves the replica in a lower epoch, and is told that this source \
     writes the set: what was written there is overwritten when it is stopped (standin stop), save it first";

const IS_ABOUT_TO: &str = "somebody on the target's host is about to serve the replica in this source's place, and \
     whether that comes about is not decided yet";

fn handshake(link: &TargetLink, replicas: &dyn Replicas) -> Result<Greeted, String> {
    let hello = match link.messages().recv_timeout(HANDSHAKE_TIME_MAX) {
        Ok(TargetEvent::Message(message)) => message,
        Ok(TargetEvent::Lost { reason }) => return Err(reason),
        Err(_) => return Err("the source said nothing after it connected".into()),
    };
    if let SourceMessage::Ask { set_name } = &hello {
        let peer = link.peer().ok_or("a source in the target's own process has nothing to ask")?;
        let name = set_name.to_text();
        let standing = replicas.about(&peer.key, &name);
        if standing.is_ok()
            && let Some(holdings) = replicas.holdings(&name)
        {
            link.send(TargetMessage::Holds(holdings));
        }
        if let Some((set, epoch, history)) = replicas.stood_in(&peer.key, &name) {
            link.send(TargetMessage::WrittenIn { set, epoch, history });
        }
        link.send(about(standing));
        return Ok(Greeted::Answered);
    }
    if let SourceMessage::Restore { version_oldest, version, set_name, accept_bad_data, .. } = &hello {
        check_version(*version_oldest, *version)?;
        let accept = if *accept_bad_data { Accept::Anything } else { Accept::Good };
        return Ok(Greeted::Reads(replicas.read(link, &set_name.to_text(), accept)?));
    }
    let Greeting { set, name, epoch, history } = greeting(hello)?;
    let who = link.peer().map_or_else(
        || "a source in this process".to_owned(),
        |peer| format!("the source {} at {}", peer.key, peer.address),
    );
    let comes = Comes { epoch, history, who };
    match replicas.open(link, set, &name) {
        Ok(seat) => Ok(Greeted::Seated(seat, Box::new(comes))),
        Err(NoSeat::Wanted { state, fence }) => Ok(kept_out_of_wanted(&comes, &state, fence)),
        Err(NoSeat::Refused(reason)) => Err(reason),
    }
}

/// What a source asks for with its first message.
#[derive(Debug)]
pub(crate) struct Greeting {
    set: SetId,
    name: String,
    /// In which it writes.
    epoch: Epoch,
    /// Of which that is the last one.
    history: History,
}

/// What a source asks for.
///
/// Errors: it is refused; one line for both sides.
pub(crate) fn greeting(hello: SourceMessage) -> Result<Greeting, String> {
    let SourceMessage::Hello { version_oldest, version, set, set_name, last, history, .. } = hello else {
        return Err("the source did not begin with its greeting".into());
    };
    check_version(version_oldest, version)?;
    let epoch = last.epoch;
    Ok(Greeting { set, name: set_name.to_text(), epoch, history: history.of_epoch(epoch) })
}

fn check_version(oldest: u16, newest: u16) -> Result<(), String> {
    if oldest > WIRE_VERSION || newest < WIRE_VERSION_OLDEST {
        return Err(format!(
            "the source speaks versions {oldest} to {newest} of the protocol, this target \
             {WIRE_VERSION_OLDEST} to {WIRE_VERSION}: update the older side"
        ));
    }
    Ok(())
}

fn about(standing: Result<String, String>) -> TargetMessage {
    TargetMessage::About {
        version_oldest: WIRE_VERSION_OLDEST,
        version: WIRE_VERSION,
        product: Text::from_str_cut(env!("CARGO_PKG_VERSION")),
        now_ms: unix_ms(SystemTime::now()),
        standing: match standing {
            Ok(text) => Standing::Welcome(Text::from_str_cut(&text)),
            Err(text) => Standing::Unwelcome(Text::from_str_cut(&text)),
        },
    }
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
