//! The replicas of a target daemon: opened when their source first comes, one source at a time.
//!
//! ```text
//!  root/REPSET              the replica           state/.serve/REPSET/    index, positions
//!  root/.REPSET.standin     limbo                 state/.serve/REPSET/set.json  whose it is
//! ```

mod opening;
mod others;
mod resting;
mod turned_away;
mod wanted;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use parking_lot::Mutex;

use self::opening::{Owner, missing};
pub use self::resting::Resting;
use self::resting::rest;
use self::turned_away::LastTurnedAway;
use self::wanted::STANDS_IN;
pub use self::wanted::{is_wanted, want};
use super::clones::Unit;
use super::markers::Markers;
use super::options::ServeOptions;
use super::reading::Accept;
use super::seat::{Cut, NoSeat, ReadingSeat, Seat, View};
use super::{Replicas, SharedApplier};
use crate::apply::{OpenError, are_passing, stood_in_of};
use crate::clone::Sessions;
use crate::control::{ConnectedSource, RestoredFrom, TurnedAway, unix_ms};
use crate::link::{Peer, TargetLink, TargetLinkHandle};
use crate::packet::{DataState, Epoch, Holdings, ReplicaStands, SetId};
use crate::pairing::{Book, Direction};
use crate::preflight::{FsFacts, existing_ancestor};
use crate::privileges;
use crate::resync::CopyProgress;
use crate::store;
use crate::words::{Allow, Fingerprint, is_set_name};

/// See the module.
pub struct Store {
    options: ServeOptions,
    book: Arc<Book>,
    /// Held for moments only: the status takes it.
    held: Mutex<BTreeMap<String, Held>>,
    /// The turn to open a replica, which may take long: taken before `held`.
    opening: Mutex<()>,
    turned_away: LastTurnedAway,
    itself: Weak<Store>,
}

/// What is known of one replica.
enum Held {
    Open(Open),
    /// It was there once and could not be opened; tried again when its source comes.
    Closed {
        set: SetId,
        problem: String,
    },
}

impl Held {
    fn idle(&self) -> Option<(SharedApplier, Arc<Mutex<View>>)> {
        match self {
            Held::Open(open) if open.live.is_none() => Some((open.applier.clone(), open.view.clone())),
            Held::Open(_) | Held::Closed { .. } => None,
        }
    }
}

struct Open {
    set: SetId,
    applier: SharedApplier,
    clones: Arc<Sessions>,
    view: Arc<Mutex<View>>,
    live: Option<Live>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.clones.end_copies();
    }
}

impl Open {
    /// Its path leads to it, or somebody works on it, who looks himself.
    fn is_in_place(&self) -> bool {
        self.applier.try_lock().is_none_or(|applier| applier.is_where_it_was())
    }
}

/// The session that works on a replica.
struct Live {
    peer: Fingerprint,
    address: String,
    /// Which way its data goes.
    direction: Direction,
    since: SystemTime,
    /// Of who reads the replica.
    progress: Arc<CopyProgress>,
    link: TargetLinkHandle,
    cut: Arc<Cut>,
}

impl Live {
    fn end(&self, reason: &str) {
        self.cut.cut(reason);
        self.link.close(reason);
    }

    fn source(&self) -> Option<ConnectedSource> {
        (self.direction == Direction::FromPeer).then(|| ConnectedSource {
            fingerprint: self.peer.to_string(),
            address: self.address.clone(),
            since_unix_ms: unix_ms(self.since),
        })
    }

    fn reader(&self) -> Option<RestoredFrom> {
        (self.direction == Direction::ToPeer).then(|| {
            let sent = self.progress.snapshot();
            RestoredFrom {
                fingerprint: self.peer.to_string(),
                address: self.address.clone(),
                since_unix_ms: unix_ms(self.since),
                files_sent: sent.files_copied,
                bytes_sent: sent.bytes_copied,
            }
        })
    }

    /// Why somebody who comes now does not get the replica; `None`: it takes this one's place.
    fn keeps_out(&self, name: &str, peer: &Fingerprint, direction: Direction) -> Option<String> {
        let (key, at) = (self.peer, &self.address);
        match (self.direction, direction) {
            (Direction::FromPeer, Direction::ToPeer) => Some(format!(
                "its source (key {key}, at {at}) is connected to '{name}': stop the protection first"
            )),
            (Direction::ToPeer, Direction::FromPeer) => Some(format!(
                "'{name}' is being restored from (by key {key}, at {at}): its source comes in when that is over"
            )),
            _ if self.peer == *peer => None,
            (Direction::FromPeer, Direction::FromPeer) => {
                Some(format!("another source (key {key}, at {at}) is connected to '{name}'"))
            }
            (Direction::ToPeer, Direction::ToPeer) => {
                Some(format!("'{name}' is being restored from by another host (key {key}, at {at})"))
            }
        }
    }
}

/// Who asks for a seat.
struct Caller<'a> {
    link: &'a TargetLink,
    peer: Peer,
    name: &'a str,
    direction: Direction,
}

/// One replica, for the status.
pub struct Shown {
    pub name: String,
    pub set: SetId,
    pub view: Option<View>,
    pub problem: Option<String>,
    pub connected: Option<ConnectedSource>,
    pub restored_from: Option<RestoredFrom>,
    pub turned_away: Option<TurnedAway>,
}

impl Store {
    /// Opens what is there already, so that its state is known before a source comes.
    pub fn open(options: ServeOptions, book: Arc<Book>) -> io::Result<Arc<Store>> {
        let names = known_names(&options.own_state())?;
        let store = Arc::new_cyclic(|itself| Store {
            options,
            book,
            held: Mutex::default(),
            opening: Mutex::default(),
            turned_away: LastTurnedAway::default(),
            itself: itself.clone(),
        });
        for (name, set) in names {
            let held = match store.open_replica(&name, set) {
                Ok(open) => Held::Open(open),
                Err(problem) => {
                    log::error!("{problem}");
                    Held::Closed { set, problem }
                }
            };
            store.held.lock().insert(name, held);
        }
        Ok(store)
    }

    /// Ends the sessions that are meant, at once.
    pub fn cut(&self, reason: &str, is_meant: impl Fn(&Fingerprint, &str) -> bool) {
        for (name, held) in self.held.lock().iter() {
            if let Held::Open(Open { live: Some(live), .. }) = held
                && is_meant(&live.peer, name)
            {
                live.end(reason);
            }
        }
    }

    /// Looks after replicas that no source works on: what was begun is finished, times are set, and
    /// what is applied becomes durable.
    pub fn rest(&self) {
        self.let_go_of_wanted();
        self.units().iter().for_each(|unit| unit.clones.resume());
        let idle: Vec<_> = self.held.lock().values().filter_map(Held::idle).collect();
        for (applier, view) in idle {
            if let Err(fault) = rest(&applier, &view) {
                log::warn!("a replica that no source works on could not be made durable: {fault}");
            }
        }
    }

    /// Whoever wants to stand in with a replica gets it, while no source works on it.
    fn let_go_of_wanted(&self) {
        for (name, held) in self.held.lock().iter_mut() {
            let Held::Open(Open { set, live: None, .. }) = held else { continue };
            if is_wanted(&self.options.own_state().join(name)) {
                log::info!("'{name}' is let go: {STANDS_IN}");
                *held = Held::Closed { set: *set, problem: STANDS_IN.to_owned() };
            }
        }
    }

    pub fn show(&self) -> Vec<Shown> {
        let held = self.held.lock();
        let shown = held.iter();
        shown
            .map(|(name, held)| Shown { turned_away: self.turned_away.of(name), ..show(name, held) })
            .collect()
    }

    /// Of a replica that is open.
    pub fn markers(&self, name: &str) -> Option<Arc<Markers>> {
        match self.held.lock().get(name)? {
            Held::Open(open) => Some(open.view.lock().markers.clone()),
            Held::Closed { .. } => None,
        }
    }

    /// Replicas that can be cloned.
    pub fn units(&self) -> Vec<Unit> {
        let held = self.held.lock();
        let open = held.iter().filter_map(|(name, held)| match held {
            Held::Open(open) => Some(Unit {
                name: name.clone(),
                directory: self.directory(name),
                applier: Arc::downgrade(&open.applier),
                clones: open.clones.clone(),
            }),
            Held::Closed { .. } => None,
        });
        open.collect()
    }

    /// The last source of a set that was not taken in because of its version.
    pub fn last_turned_away(&self, name: &str) -> Option<TurnedAway> {
        self.turned_away.of(name)
    }

    /// Parent of all that is kept on disk beside the replicas.
    pub fn state(&self) -> PathBuf {
        self.options.state.clone()
    }

    pub fn directory(&self, name: &str) -> PathBuf {
        self.options.root.join(name)
    }

    /// Gives a source its seat. A newer connection of the same source takes over; another source's is
    /// refused while one lives, and every source's while the replica is read back.
    fn take_seat(&self, name: &str, set: SetId, link: &TargetLink) -> Result<Seat, NoSeat> {
        let caller = caller(link, name, Direction::FromPeer)?;
        let granted =
            || self.book.grant(&caller.peer.key, name).ok_or_else(|| not_granted(&caller.peer.key, name));
        granted()?;
        self.give_up_silent(&caller.peer.key, name);
        let wanted = || is_wanted(&self.options.own_state().join(name)).then(|| self.wanted(name, set));
        if let Some(wanted) = wanted() {
            return Err(wanted);
        }
        self.have_open(name, set).map_err(|reason| wanted().unwrap_or(reason.into()))?;
        let mut held = self.held.lock();
        // Under the lock that a revocation takes after it: either it is seen here, or it cuts.
        let allow = granted()?.allow.unwrap_or(self.options.allow).and(able());
        let Some(Held::Open(open)) = held.get_mut(name) else {
            return Err(wanted().unwrap_or("no replica".into()));
        };
        if open.set != set {
            return Err(self.other_set(name, open.set, set).into());
        }
        Ok(self.seat(open, &caller)?.allow(allow))
    }

    /// Gives whoever may read a replica back its seat, while no source works on it.
    fn take_reading_seat(
        &self,
        name: &str,
        link: &TargetLink,
        accept: Accept,
    ) -> Result<ReadingSeat, String> {
        let caller = caller(link, name, Direction::ToPeer)?;
        let peer = caller.peer.key;
        let granted =
            || self.book.may_read(&peer, name).then_some(()).ok_or_else(|| not_readable(&peer, name));
        granted()?;
        let set = match self.held.lock().get(name) {
            Some(Held::Open(Open { set, .. }) | Held::Closed { set, .. }) => *set,
            None => return Err(format!("nothing was ever sent to '{name}' on this target")),
        };
        self.have_open(name, set)?;
        let mut held = self.held.lock();
        granted()?;
        let allowed = self.book.allowed_in(name, self.options.allow).and(able());
        let Some(Held::Open(open)) = held.get_mut(name) else { return Err("no replica".into()) };
        let (set, seat) = (open.set, self.seat(open, &caller)?);
        let progress = open.live.as_ref().map(|live| live.progress.clone()).unwrap_or_default();
        Ok(ReadingSeat { seat, set, accept, allowed, progress })
    }

    /// The replica need not be open: who stands in with it has it.
    fn stood_in_on_disk(&self, name: &str) -> Option<(SetId, Epoch)> {
        let root = File::open(self.directory(name)).ok()?;
        stood_in_of(&root, &self.options.own_state().join(name)).ok()?
    }

    /// Somebody has the replica to serve it, or is about to.
    fn wanted(&self, name: &str, set: SetId) -> NoSeat {
        match self.stood_in_on_disk(name) {
            Some((own, _)) if own != set => NoSeat::Refused(self.other_set(name, own, set)),
            stood_in => NoSeat::Wanted {
                state: self.options.own_state().join(name),
                fence: stood_in.map(|(_, epoch)| epoch),
            },
        }
    }

    /// A seat at an open replica, for whoever may have it.
    fn seat(&self, open: &mut Open, caller: &Caller<'_>) -> Result<Seat, String> {
        let Caller { link, peer: Peer { key: peer, address }, name, direction } = caller;
        if let Some(live) = &open.live {
            if let Some(why) = live.keeps_out(name, peer, *direction) {
                return Err(why);
            }
            live.end("a newer connection of the same host took over");
        }
        let cut = Arc::new(Cut::default());
        open.live = Some(Live {
            peer: *peer,
            address: address.to_string(),
            direction: *direction,
            since: SystemTime::now(),
            progress: Arc::default(),
            link: link.handle(),
            cut: cut.clone(),
        });
        let (store, name, mine) = (self.itself.clone(), (*name).to_owned(), cut.clone());
        let leave = move || {
            if let Some(store) = store.upgrade() {
                store.leave(&name, &mine);
            }
        };
        Ok(Seat::new(open.applier.clone(), open.view.clone(), cut, leave))
    }

    fn leave(&self, name: &str, cut: &Arc<Cut>) {
        if let Some(Held::Open(open)) = self.held.lock().get_mut(name)
            && open.live.as_ref().is_some_and(|live| Arc::ptr_eq(&live.cut, cut))
        {
            open.live = None;
        }
    }
}

/// What this process can give at all: without a capability it is withheld, not tried for ever.
pub fn able() -> Allow {
    let can = |device, security| privileges::holds(privileges::for_allowed(device, security));
    Allow { device: can(true, false), setuid: true, security: can(false, true) }
}

impl Replicas for Store {
    fn read(&self, link: &TargetLink, name: &str, accept: Accept) -> Result<ReadingSeat, String> {
        if !is_set_name(name) {
            return Err("no replication set is named".into());
        }
        self.take_reading_seat(name, link, accept)
    }

    fn open(&self, link: &TargetLink, set: SetId, name: &str) -> Result<Seat, NoSeat> {
        if !is_set_name(name) {
            return Err("the source names no replication set".into());
        }
        self.take_seat(name, set, link)
    }

    fn stood_in(&self, peer: &Fingerprint, name: &str) -> Option<(SetId, Epoch)> {
        self.book.grant(peer, name)?;
        self.stood_in_on_disk(name)
    }

    fn stands(&self, peer: &Fingerprint, name: &str) -> Option<ReplicaStands> {
        self.book.grant(peer, name)?;
        self.how_it_stands(peer, name)
    }

    fn turned_away(&self, peer: &Fingerprint, name: &str, why: &str) {
        if self.book.grant(peer, name).is_some() {
            self.turned_away.note(peer, name, why, unix_ms(SystemTime::now()));
        }
    }

    fn taken_in(&self, peer: &Fingerprint, name: &str) {
        self.turned_away.taken_in(peer, name);
    }

    fn holdings(&self, name: &str) -> Option<Holdings> {
        let replica = existing_ancestor(&self.directory(name));
        let state = match self.held.lock().get(name) {
            Some(Held::Open(open)) => open.view.lock().data.state,
            Some(Held::Closed { .. }) => DataState::Bad,
            None => DataState::Empty,
        };
        let holdings = FsFacts::of(&replica).and_then(|facts| facts.holdings(&replica)).ok()?;
        Some(Holdings { is_fresh: state == DataState::Empty, ..holdings })
    }

    fn about(&self, peer: &Fingerprint, name: &str) -> Result<String, String> {
        let grant = self.book.grant(peer, name).ok_or_else(|| not_granted(peer, name))?;
        let allow = grant.allow.unwrap_or(self.options.allow).and(able());
        let place = std::fs::File::open(existing_ancestor(&self.directory(name)));
        if let Ok(Some(why)) = place.and_then(|place| are_passing(&place)) {
            let shown = self.directory(name);
            let why = OpenError::NoIdentities(why);
            return Err(format!("{} on the target cannot be the replica: {why}", shown.display()));
        }
        let held = self.held.lock();
        let replica = match held.get(name) {
            None => "no copy yet".to_owned(),
            Some(Held::Closed { problem, .. }) => return Err(problem.clone()),
            Some(Held::Open(open)) => {
                if !open.is_in_place() {
                    return Err(missing(&self.directory(name)));
                }
                let live = open.live.as_ref();
                if let Some(why) = live.and_then(|live| live.keeps_out(name, peer, Direction::FromPeer)) {
                    return Err(why);
                }
                match open.view.lock().data.state {
                    DataState::Empty => "no copy yet".to_owned(),
                    DataState::Good => "its copy is good".to_owned(),
                    DataState::Bad => "its copy is not consistent".to_owned(),
                }
            }
        };
        Ok(format!("{replica}; beside plain data it takes: {allow}"))
    }
}

fn caller<'a>(link: &'a TargetLink, name: &'a str, direction: Direction) -> Result<Caller<'a>, String> {
    let peer = link.peer().ok_or("this target serves paired hosts only")?;
    Ok(Caller { link, peer, name, direction })
}

fn not_readable(peer: &Fingerprint, name: &str) -> String {
    format!(
        "the key {peer} may not read the set '{name}' back from this target: invite it (standin invite {name} \
         --restore on the target, standin pair on the host that restores)"
    )
}

fn not_granted(peer: &Fingerprint, name: &str) -> String {
    format!(
        "the key {peer} may not send the set '{name}' to this target: pair them (standin invite {name} on the \
         target, standin pair on the source)"
    )
}

fn show(name: &str, held: &Held) -> Shown {
    let name = name.to_owned();
    match held {
        Held::Closed { set, problem } => Shown {
            name,
            set: *set,
            view: None,
            problem: Some(problem.clone()),
            connected: None,
            restored_from: None,
            turned_away: None,
        },
        Held::Open(open) => Shown {
            name,
            set: open.set,
            view: Some(open.view.lock().clone()),
            problem: None,
            connected: open.live.as_ref().and_then(Live::source),
            restored_from: open.live.as_ref().and_then(Live::reader),
            turned_away: None,
        },
    }
}

/// Replicas that had an owner when the last daemon ended.
fn known_names(state: &Path) -> io::Result<Vec<(String, SetId)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(state)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !is_set_name(&name) || !entry.file_type()?.is_dir() {
            continue;
        }
        match store::read_json::<Owner>(&entry.path().join("set.json")) {
            Ok(Some(owner)) => names.push((name, owner.set)),
            Ok(None) => {}
            Err(error) => log::error!("{}: {error}", entry.path().display()),
        }
    }
    Ok(names)
}
