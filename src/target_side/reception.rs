//! Takes a source in: its greeting, its seat at a replica, and a session until its connection ends.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, bounded};

use super::reading::{self, Accept};
use super::session::{SourceSession, Surroundings, Synced};
use super::{ReadingSeat, Replicas, Seat};
use crate::apply::DurablePoint;
use crate::control::unix_ms;
use crate::limits::HANDSHAKE_TIME_MAX;
use crate::link::{TargetEvent, TargetLink};
use crate::packet::{SetId, SourceMessage, Standing, TargetMessage, Text, WIRE_VERSION, WIRE_VERSION_OLDEST};

/// Serves one source until its connection ends; answers why it ended.
///
/// Errors: the source was refused; the reason went to both sides.
pub fn run(link: TargetLink, replicas: &dyn Replicas, stopping: &AtomicBool) -> Result<String, String> {
    let seat = match handshake(&link, replicas) {
        Ok(Greeted::Seated(seat)) => seat,
        Ok(Greeted::Reads(seat)) => return give(&link, &seat, stopping),
        Ok(Greeted::Answered) => {
            let reason = "it only asked how things are";
            wait_and_close(&link, reason);
            return Ok(reason.into());
        }
        Err(reason) => return refuse(&link, reason),
    };
    // An older session of the same source ends first.
    let mut applier = seat.applier.lock();
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
    Seated(Seat),
    Reads(ReadingSeat),
    Answered,
}

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
        link.send(about(standing));
        return Ok(Greeted::Answered);
    }
    if let SourceMessage::Restore { version_oldest, version, set_name, accept_bad_data, .. } = &hello {
        check_version(*version_oldest, *version)?;
        let accept = if *accept_bad_data { Accept::Anything } else { Accept::Good };
        return replicas.read(link, &set_name.to_text(), accept).map(Greeted::Reads);
    }
    let (set, name) = greeting(hello)?;
    replicas.open(link, set, &name).map(Greeted::Seated)
}

/// Set and name of the set that a source asks for with its first message.
///
/// Errors: it is refused; one line for both sides.
pub(crate) fn greeting(hello: SourceMessage) -> Result<(SetId, String), String> {
    let SourceMessage::Hello { version_oldest, version, set, set_name, .. } = hello else {
        return Err("the source did not begin with its greeting".into());
    };
    check_version(version_oldest, version)?;
    Ok((set, set_name.to_text()))
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
