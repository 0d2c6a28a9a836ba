//! A target: takes what sources send and performs it on replicas.
//!
//! ```text
//!  Listener ── TargetLink ──> session (one thread for each source)
//!                                │ frames, in order            ^ acknowledgements
//!                                v                             │
//!                        Applier ── replica ── durable points (a thread that syncs)
//! ```
//! The embedded target of `local:` runs the very same sessions, without a listener ([`Within`]).

pub mod clones;
mod daemon;
mod director;
mod greeting;
mod known_age;
mod markers;
mod moment;
mod options;
pub mod orphans;
pub(crate) mod reading;
mod reception;
mod reload;
mod replicas;
mod roles;
mod seat;
mod session;
mod status;
#[cfg(test)]
mod tests;
mod uncovering;
mod within;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use crate::apply::Applier;
use crate::link::{Bound, Identity, Listener, PairingDesk, Peer, TargetLink};
use crate::paced::Paced;
use crate::packet::{Epoch, Holdings, ReplicaStands, SetId};
use crate::words::Fingerprint;

pub use daemon::run;
#[cfg(test)]
pub(crate) use greeting::greeting;
pub use known_age::{KnownAge, known_age};
pub use options::{ServeOptions, serve_state};
pub use replicas::{is_wanted, want};
pub use roles::{OtherWriter, forget_other, history_of, keep_history, note_other, other_writer, runs_of};
pub use seat::{Cut, NoSeat, ReadingSeat, Seat, View};
pub(crate) use session::{SourceSession, Surroundings, Synced};
pub use within::Within;

/// Finds the replica of a set for a peer that may write it.
///
/// Errors: one line for both sides: why not, and what to do.
pub trait Replicas: Send + Sync {
    fn open(&self, link: &TargetLink, set: SetId, name: &str) -> Result<Seat, NoSeat>;

    /// Finds the replica of a set for a peer that may read it back. Its source is kept away meanwhile.
    ///
    /// Errors: as [`Replicas::open`].
    fn read(&self, link: &TargetLink, name: &str, accept: reading::Accept) -> Result<ReadingSeat, String>;

    /// How a set stands for a peer, in one line; opens nothing.
    ///
    /// Errors: why the peer cannot send it.
    fn about(&self, peer: &Fingerprint, name: &str) -> Result<String, String>;

    /// Of which set the replica is, and in which epoch it was stood in for, as far as this peer may know.
    fn stood_in(&self, _peer: &Fingerprint, _name: &str) -> Option<(SetId, Epoch)> {
        None
    }

    /// How the replica stands, as far as this peer may know. Calls another source that works on it.
    fn stands(&self, _peer: &Fingerprint, _name: &str) -> Option<ReplicaStands> {
        None
    }

    /// A source that may send the set was not taken in: it speaks another version of the wire.
    fn turned_away(&self, _peer: &Fingerprint, _name: &str, _why: &str) {}

    /// A source was taken in: what was said of it before is over.
    fn taken_in(&self, _peer: &Fingerprint, _name: &str) {}

    /// What the file system of a set's replica can hold, where that can be told.
    fn holdings(&self, _name: &str) -> Option<Holdings> {
        None
    }
}

/// One applier for each replica, used by one session at a time.
pub type SharedApplier = Arc<Mutex<Applier>>;

/// A listener and its sessions.
pub struct TargetServer {
    listener: Arc<Listener>,
    stopping: Arc<AtomicBool>,
    accepting: Option<std::thread::JoinHandle<()>>,
}

impl TargetServer {
    /// Listens and serves. `authorise` says whether a key may connect at all; with a desk,
    /// strangers may pair.
    pub fn start(
        address: SocketAddr,
        identity: Arc<Identity>,
        authorise: impl Fn(&Fingerprint) -> bool + Send + Sync + 'static,
        desk: Option<PairingDesk>,
        replicas: Arc<dyn Replicas>,
    ) -> io::Result<TargetServer> {
        TargetServer::on(Bound::new(address, identity, authorise, desk)?, replicas)
    }

    /// Serves on a port that is bound.
    pub fn on(bound: Bound, replicas: Arc<dyn Replicas>) -> io::Result<TargetServer> {
        let listener = Arc::new(bound.listen()?);
        let stopping = Arc::new(AtomicBool::new(false));
        let accepting = std::thread::Builder::new().name("target-accept".into()).spawn({
            let (listener, stopping) = (listener.clone(), stopping.clone());
            move || accept_all(&listener, &replicas, &stopping)
        })?;
        Ok(TargetServer { listener, stopping, accepting: Some(accepting) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// As [`Listener::explain`].
    pub fn explain(&self, about: impl Fn(&Fingerprint) -> Option<String> + Send + Sync + 'static) {
        self.listener.explain(about);
    }

    /// To ask who was turned away, as long as it serves.
    pub fn listener(&self) -> Weak<Listener> {
        Arc::downgrade(&self.listener)
    }
}

impl Drop for TargetServer {
    fn drop(&mut self) {
        self.stopping.store(true, Relaxed);
        self.listener.close();
        if let Some(accepting) = self.accepting.take()
            && accepting.join().is_err()
        {
            log::error!("the accepting thread panicked");
        }
    }
}

/// Runs until the listener closes; then waits for its sessions.
fn accept_all(listener: &Listener, replicas: &Arc<dyn Replicas>, stopping: &Arc<AtomicBool>) {
    let mut sessions: HashMap<u64, std::thread::JoinHandle<()>> = HashMap::new();
    let refusals = Arc::new(Paced::of_known());
    let mut number = 0;
    while let Some(link) = listener.accept() {
        sessions.retain(|_, session| !session.is_finished());
        number += 1;
        match start_session(link, replicas.clone(), stopping.clone(), refusals.clone()) {
            Ok(session) => drop(sessions.insert(number, session)),
            Err(error) => log::error!("no thread for a session: {error}"),
        }
    }
    for (_, session) in sessions {
        if session.join().is_err() {
            log::error!("a session thread panicked");
        }
    }
}

fn start_session(
    link: TargetLink,
    replicas: Arc<dyn Replicas>,
    stopping: Arc<AtomicBool>,
    refusals: Arc<Paced>,
) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("apply".into()).spawn(move || {
        let whose = match link.peer() {
            Some(Peer { key, address }) => format!("of source {key} at {address}"),
            None => "within this process".into(),
        };
        match reception::run(link, replicas.as_ref(), &stopping) {
            Ok(reason) => log::info!("the connection {whose} ended: {reason}"),
            Err(reason) => {
                let line = format!("the connection {whose} was refused: {reason}");
                refusals.line(Instant::now(), &line).iter().for_each(|line| log::warn!("{line}"));
            }
        }
        crate::sys::give_back_memory();
    })
}
