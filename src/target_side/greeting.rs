//! The first words of whoever comes to a target: what it wants, and whether both speak one version of the wire.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::reading::Accept;
use super::roles::{OtherWriter, history_of, note_other};
use super::{NoSeat, ReadingSeat, Replicas, Seat};
use crate::control::unix_ms;
use crate::limits::HANDSHAKE_TIME_MAX;
use crate::link::{TargetEvent, TargetLink};
use crate::packet::{
    Epoch, Features, History, KeptOut, SetId, SourceMessage, Standing, TargetMessage, Text, WIRE_VERSION,
    WIRE_VERSION_OLDEST, Writes, other_version, understands,
};
use crate::words::OwnedBy;

/// What a source wanted.
pub(super) enum Greeted {
    Seated(Seat, Box<Comes>),
    Reads(ReadingSeat, OwnedBy),
    Answered,
    /// By this history; `None` where it is not decided yet who writes.
    KeptOut(Box<Option<History>>, String),
    /// Who serves the replica is to let it go first.
    Refused(String),
}

/// A source that wants a seat.
#[derive(Clone, Debug)]
pub(super) struct Comes {
    pub(super) epoch: Epoch,
    pub(super) writes: Writes,
    /// Of its set.
    pub(super) name: String,
    /// For people.
    who: String,
}

impl Comes {
    /// Somebody else writes the set: whoever serves the replica here is to know of it, and a person.
    pub(super) fn is_noted(&self, state: &Path, kept_out: &KeptOut) {
        if matches!(kept_out, KeptOut::TwoWriters { .. }) {
            note_other(state, &OtherWriter::now(self.writes.history.clone(), self.who.clone()));
        }
    }
}

/// Somebody has the replica to serve it in its source's place: the mark says whether that is so already.
fn kept_out_of_wanted(comes: &Comes, state: &Path, fence: Option<Epoch>) -> Greeted {
    let known = history_of(state, fence).unwrap_or_else(|_| fence.map(History::of).unwrap_or_default());
    match comes.writes.history.kept_out_by(&known) {
        Some(kept_out) => {
            comes.is_noted(state, &kept_out);
            Greeted::KeptOut(Box::new(Some(known)), kept_out.to_string())
        }
        // Who serves it was stood in for.
        None if known.last().is_some_and(|own| own.is_outranked_by(comes.epoch)) => {
            note_other(state, &OtherWriter::now(comes.writes.history.clone(), comes.who.clone()));
            Greeted::Refused(IS_TOLD.to_owned())
        }
        None => Greeted::KeptOut(Box::new(None), IS_ABOUT_TO.to_owned()),
    }
}

const IS_TOLD: &str = "somebody on the target's host serves the replica in a lower epoch, and is told that this source \
     writes the set: what was written there is overwritten when it is stopped (standin stop), save it first";

const IS_ABOUT_TO: &str = "somebody on the target's host is about to serve the replica in this source's place, and \
     whether that comes about is not decided yet";

pub(super) fn handshake(link: &TargetLink, replicas: &dyn Replicas) -> Result<Greeted, String> {
    let hello = said(link)?.ok_or("the source said nothing after it connected")?;
    if let SourceMessage::Ask { set_name } = &hello {
        return answer(link, replicas, &set_name.to_text());
    }
    if let SourceMessage::Restore { version_oldest, version, features, set_name, accept_bad_data } = &hello {
        check_version(*version_oldest, *version)?;
        let accept = if *accept_bad_data { Accept::Anything } else { Accept::Good };
        let by_name = features.has(Features::OWNER_NAMES);
        let owned_by = if by_name { OwnedBy::Name } else { OwnedBy::Number };
        return Ok(Greeted::Reads(replicas.read(link, &set_name.to_text(), accept)?, owned_by));
    }
    if let SourceMessage::Hello { version_oldest, version, set_name, .. } = &hello {
        check_version(*version_oldest, *version).inspect_err(|why| {
            let Some(peer) = link.peer() else { return };
            let name = set_name.to_text();
            replicas.turned_away(&peer.key, &name, why);
            // Whatever version it speaks: it is not to go on writing what somebody else writes.
            if let Some((set, epoch)) = replicas.stood_in(&peer.key, &name) {
                link.send(TargetMessage::WrittenIn { set, epoch });
            }
        })?;
    }
    let Greeting { set, name, epoch } = greeting(hello)?;
    let writes = written_by(link, epoch)?;
    let who = link.peer().map_or_else(
        || "a source in this process".to_owned(),
        |peer| format!("the source {} at {}", peer.key, peer.address),
    );
    let comes = Comes { epoch, writes, name, who };
    match replicas.open(link, set, &comes.name) {
        Ok(seat) => Ok(Greeted::Seated(seat, Box::new(comes))),
        Err(NoSeat::Wanted { state, fence }) => Ok(kept_out_of_wanted(&comes, &state, fence)),
        Err(NoSeat::Refused(reason)) => Err(reason),
    }
}

/// What a peer says next; `None`: nothing in time.
fn said(link: &TargetLink) -> Result<Option<SourceMessage>, String> {
    match link.messages().recv_timeout(HANDSHAKE_TIME_MAX) {
        Ok(TargetEvent::Message(message)) => Ok(Some(message)),
        Ok(TargetEvent::Lost { reason }) => Err(reason),
        Err(_) => Ok(None),
    }
}

/// What led to the epoch in which a source writes. Of the first one there is nothing to say.
fn written_by(link: &TargetLink, epoch: Epoch) -> Result<Writes, String> {
    if epoch.number <= Epoch::FIRST {
        return Ok(Writes { history: History::default(), runs: Vec::new(), overwrites: false });
    }
    link.send(TargetMessage::AskHistory);
    match said(link)? {
        Some(SourceMessage::Writes(writes)) => {
            Ok(Writes { history: writes.history.of_epoch(epoch), ..writes })
        }
        Some(_) | None => Err("the source does not say what led to the epoch in which it writes".into()),
    }
}

/// To a peer of whatever version; more than that to one which asks on, because it knows how.
fn answer(link: &TargetLink, replicas: &dyn Replicas, name: &str) -> Result<Greeted, String> {
    let peer = link.peer().ok_or("a source in the target's own process has nothing to ask")?;
    let standing = replicas.about(&peer.key, name);
    if standing.is_ok()
        && let Some(holdings) = replicas.holdings(name)
    {
        link.send(TargetMessage::Holds(holdings));
    }
    if let Some((set, epoch)) = replicas.stood_in(&peer.key, name) {
        link.send(TargetMessage::WrittenIn { set, epoch });
    }
    link.send(about(standing));
    if let Ok(TargetEvent::Message(SourceMessage::AskReplica { set_name })) =
        link.messages().recv_timeout(ASKS_ON)
    {
        link.send(TargetMessage::Replica(replicas.stands(&peer.key, &set_name.to_text())));
    }
    Ok(Greeted::Answered)
}

/// So long a peer that has its answer may ask on.
const ASKS_ON: Duration = Duration::from_secs(2);

/// What a source asks for with its first message.
#[derive(Debug)]
pub(crate) struct Greeting {
    set: SetId,
    name: String,
    /// In which it writes.
    epoch: Epoch,
}

/// What a source asks for.
///
/// Errors: it is refused; one line for both sides.
pub(crate) fn greeting(hello: SourceMessage) -> Result<Greeting, String> {
    let SourceMessage::Hello { version_oldest, version, set, set_name, last, .. } = hello else {
        return Err("the source did not begin with its greeting".into());
    };
    check_version(version_oldest, version)?;
    Ok(Greeting { set, name: set_name.to_text(), epoch: last.epoch })
}

fn check_version(oldest: u16, newest: u16) -> Result<(), String> {
    match understands(oldest, newest) {
        true => Ok(()),
        false => Err(other_version("the source", oldest, newest)),
    }
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
