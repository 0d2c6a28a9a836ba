//! The target daemon: listens, holds the replicas and the record of who may send them.
//!
//! ```text
//!  key, book, replicas ── listen ── control socket ── `ready`
//!  ── signal or `standin stop` ── sessions end, durable points ── exit
//! ```

mod places;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use crossbeam_channel::Sender;

use self::places::{check_places, claim_root, lock_state};
use super::director::{Board, Director, Event, nothing_left};
use super::options::ServeOptions;
use super::replicas::{Resting, Store, able};
use super::{TargetServer, clones, orphans, reload, status, uncovering};
use crate::control::{
    AttendRequest, Attending, CallSource, CalledSource, Caller, ClonesRequest, ConfigurationReport, Handler,
    Invite, Invited, OrphansRequest, Paired, Phase, ProcessMeter, ReloadReport, ReplicaClones,
    ReplicaOrphans, Revoke, Server, Status, StopMode, StopReport, SyncReport, WaitSync, ask, know_groups,
    unix_ms,
};
use crate::failure::Failure;
use crate::limits::{CONTROL_ANSWER, INVITATION_TIME_MAX};
use crate::link::{Bound, Identity, Listener, Refusals};
use crate::locked::Locked;
use crate::open_files;
use crate::packet::PairingVisit;
use crate::packet::encode_message;
use crate::pairing::{Book, Grant, InviteError, Known, Offer};
use crate::preflight::Claim;
use crate::privileges::{self, Confinement, Reach, SERVE, for_allowed};
use crate::signals::stop_signals;
use crate::store::{Symlink, own_directory};
use crate::words::{Allow, Fingerprint, StatisticsTo, is_set_name};

const UNTOUCHED: &str = "Nothing was changed.";

/// What the control socket works with: the same from the start to the end.
pub struct Daemon {
    pub options: ServeOptions,
    pub identity: Arc<Identity>,
    pub book: Arc<Book>,
    pub store: Arc<Store>,
    pub listening: SocketAddr,
    pub confinement: Confinement,
    pub started: SystemTime,
    pub meter: ProcessMeter,
    /// What is to be said of its file.
    pub file: reload::Watched,
    /// There until nobody is served any more.
    listener: Weak<Listener>,
    board: Arc<Board>,
    director: Sender<Event>,
}

/// Serves until it is told to stop; returns when every replica is durable.
///
/// Errors: what keeps it from listening; nothing was changed then.
pub fn run(options: ServeOptions) -> Result<(), Failure> {
    let signals = stop_signals().map_err(|error| failed("Signals cannot be caught", &error))?;
    open_files::raise()?;
    open_files::for_targets_alone();
    let (daemon, director, held) = start(options)?;
    let daemon = Arc::new(daemon);
    let control = Server::start(&daemon.options.socket(), daemon.clone())?;
    let told = daemon.director.clone();
    let threads = |error| failed("The daemon has no threads", &error);
    let options = daemon.options.clone();
    signals
        .forward_and_reload(move || told.send(Event::Signal).is_ok(), move || reload::by_signal(&options))
        .map_err(threads)?;
    let _watching = daemon.file.start(&daemon.options).map_err(threads)?;
    let resting = Resting::start(daemon.store.clone()).map_err(threads)?;
    ready(&daemon);
    director.run();
    drop(resting);
    daemon.store.rest();
    drop(control);
    drop(held);
    aside!("{} is no longer served.", daemon.options.root.display());
    Ok(())
}

/// Keeps other daemons away: from the same state, and from the replicas.
struct Held {
    _state: Locked,
    _root: Claim,
}

/// Everything before `ready`.
fn start(options: ServeOptions) -> Result<(Daemon, Director, Held), Failure> {
    know_groups();
    check_places(&options)?;
    let own = options.own_state();
    let unusable =
        |error: &io::Error| failed(&format!("The state in {} cannot be used", own.display()), error);
    let identity = Arc::new(Identity::load_or_create(&options.state).map_err(|error| unusable(&error))?);
    let held = Held { _state: lock_state(&own)?, _root: claim_root(&options)? };
    let book = Book::open(&own.join("pairings.json"), identity.fingerprint());
    let book = Arc::new(book.map_err(|error| unusable(&error))?);
    let lifted = uncovering::uncover(&options);
    let opened = Store::open(options.clone(), book.clone()).map_err(|error| unusable(&error));
    let opened = opened.and_then(|store| Ok((store, listen(&options, &identity, &book)?)));
    let (store, bound) = opened.inspect_err(|_| uncovering::put_back(&lifted))?;
    let meter = ProcessMeter::open();
    let confinement = give_up_privileges(&options, &book)?;
    let listening = bound.local_addr();
    let server =
        TargetServer::on(bound, store.clone()).map_err(|error| failed("Nobody can be served", &error))?;
    let targets = Known::in_state(&options.state);
    server.explain(move |key| wrong_direction(&targets, key));
    let listener = server.listener();
    let (director, board, told) = Director::new(server);
    let daemon = Daemon {
        listening,
        confinement,
        file: reload::Watched::default(),
        options,
        identity,
        book,
        store,
        started: SystemTime::now(),
        meter,
        listener,
        board,
        director: told,
    };
    Ok((daemon, director, held))
}

fn listen(options: &ServeOptions, identity: &Arc<Identity>, book: &Arc<Book>) -> Result<Bound, Failure> {
    let mut last = None;
    for &address in &options.listen {
        let known = book.clone();
        let authorise = move |key: &_| known.knows(key);
        let pairing = book.clone();
        let desk = Arc::new(move |visit: PairingVisit| {
            // Without the length: the answer is the whole of its stream.
            encode_message(&pairing.answer(&visit, unix_ms(SystemTime::now()))).split_off(4)
        });
        match Bound::new(address, identity.clone(), authorise, Some(desk)) {
            Ok(bound) => return Ok(bound),
            Err(error) => last = Some((address, error)),
        }
    }
    let (address, error) = match last {
        Some((address, error)) => (address.to_string(), error),
        None => ("no address".into(), io::ErrorKind::InvalidInput.into()),
    };
    Err(Failure::new(
        format!("Cannot listen on {address} (UDP): {error}."),
        UNTOUCHED,
        "Choose another address or port with --listen, or end what has it.",
    ))
}

/// A key that this host knows, but as one that it sends to.
fn wrong_direction(targets: &Known, key: &Fingerprint) -> Option<String> {
    let is_target = targets.has_key(key).is_ok_and(|is_target| is_target);
    is_target.then(|| "it is a target of this host, and may receive from it, not send to it".into())
}

/// The port is bound and the replicas are open: from here on less is enough. Before any thread
/// starts, because each has its own privileges.
fn give_up_privileges(options: &ServeOptions, book: &Book) -> Result<Confinement, Failure> {
    let allow = options.allow.or(book.allowed_to_anyone(unix_ms(SystemTime::now())));
    // The control socket comes later; its place has to be there to be allowed.
    own_directory(&options.run, 0o755, Symlink::Own)
        .map_err(|error| failed(&format!("{} cannot be made", options.run.display()), &error))?;
    let keep = SERVE | for_allowed(allow.device, allow.security);
    let missing = privileges::give_up(keep)
        .map_err(|error| failed("The privileges that are not needed cannot be given up", &error))?;
    if !missing.is_empty() {
        log::info!("this process was started without some capabilities that it may need: {missing:?}");
    }
    let reach = Reach {
        root: options.root.clone(),
        state: options.own_state(),
        records: options.state.clone(),
        run: options.run.clone(),
        statistics: statistics_directory(options),
        device: allow.device,
    };
    let confinement = privileges::confine(&reach)
        .map_err(|error| failed("The process cannot be confined to its directories", &error))?;
    if let Confinement::None(why) = &confinement {
        log::info!("files outside of {} are not out of reach: {why}", options.root.display());
    }
    Ok(confinement)
}

/// Where statistics are written, if it is there.
fn statistics_directory(options: &ServeOptions) -> Option<PathBuf> {
    let to = options.statistics.as_ref()?;
    let found = to.path.parent().filter(|dir| dir.is_dir()).map(PathBuf::from);
    if found.is_none() {
        log::warn!("{} has no directory: no statistics before the next start", to.path.display());
    }
    found
}

/// One line for people and scripts: sources may come.
fn ready(daemon: &Daemon) {
    let line = format!(
        "ready {} on {}; key {}\n",
        daemon.options.root.display(),
        daemon.listening,
        daemon.identity.fingerprint()
    );
    let mut out = io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

impl Daemon {
    pub fn phase(&self) -> Phase {
        self.board.phase()
    }

    pub fn refusals(&self) -> Refusals {
        self.listener.upgrade().map(|listener| listener.refusals()).unwrap_or_default()
    }

    fn paired(&self, grant: &Grant) -> Paired {
        let allow = grant.allow.unwrap_or(self.options.allow);
        Paired {
            fingerprint: grant.peer.to_string(),
            set_name: grant.set_name.clone(),
            right: grant.direction.right(),
            since_unix_ms: grant.since_unix_ms,
            address: grant.address.clone(),
            allow,
            by_default: grant.allow.is_none(),
            after_restart: allow.without(able()),
        }
    }

    /// The grants that a revocation means: by a key's first digits, a set's name, or both.
    fn meant(&self, revoke: &Revoke) -> Result<Vec<Grant>, Failure> {
        let begin = revoke.fingerprint.trim().to_ascii_lowercase();
        let grants: Vec<Grant> = self
            .book
            .grants()
            .into_iter()
            .filter(|grant| grant.peer.to_string().starts_with(&begin))
            .filter(|grant| revoke.set_name.as_ref().is_none_or(|name| *name == grant.set_name))
            .collect();
        let keys = || {
            let mut keys: Vec<_> = grants.iter().map(|grant| grant.peer).collect();
            keys.sort_unstable();
            keys.dedup();
            keys.len()
        };
        match (grants.len(), keys()) {
            _ if begin.len() < 8 => Err(Failure::new(
                format!("'{begin}' is too short to name a key."),
                UNTOUCHED,
                "Give at least 8 digits of it, as `standin peers list` shows it.",
            )),
            (0, _) => Err(Failure::new(
                "There is no such pairing.",
                UNTOUCHED,
                "`standin peers list` shows those that are there.",
            )),
            (_, 1) => Ok(grants),
            (_, keys) => Err(Failure::new(
                format!("'{begin}' begins {keys} keys."),
                UNTOUCHED,
                "Give more digits of the one that is meant.",
            )),
        }
    }
}

impl Handler for Daemon {
    fn status(&self) -> Status {
        status::status(self)
    }

    fn statistics(&self) -> Option<StatisticsTo> {
        self.options.statistics.clone()
    }

    fn wait_sync(&self, _wait: WaitSync, _caller: &Caller<'_>) -> Result<SyncReport, Failure> {
        Err(Failure::new(
            "This daemon is a target: it does not know what was written on its sources.",
            UNTOUCHED,
            "Ask on the source.",
        ))
    }

    fn attend(&self, request: &AttendRequest, caller: &Caller<'_>) -> Result<Attending, Failure> {
        let markers = self.store.markers(&request.set).ok_or_else(|| {
            Failure::new(
                format!("There is no replica '{}' here that its source has been to.", request.set),
                UNTOUCHED,
                "`standin status` has those that are there.",
            )
        })?;
        let hold = Duration::from_millis(request.hold_ms);
        let due = markers.attend(hold, request.done.clone(), CONTROL_ANSWER / 2, || caller.is_gone());
        Ok(Attending { replica: self.store.directory(&request.set), due })
    }

    fn stop(&self, _mode: StopMode, _caller: &Caller<'_>) -> Result<StopReport, Failure> {
        if self.phase() == Phase::Stopping {
            return Ok(nothing_left());
        }
        let question = |answer| Event::Stop { answer };
        match ask(&self.director, CONTROL_ANSWER, question).and_then(|asked| asked.within(CONTROL_ANSWER)) {
            Ok(report) => Ok(report),
            Err(_) if self.phase() == Phase::Stopping => Ok(nothing_left()),
            Err(why) => Err(why.into()),
        }
    }

    fn orphans(&self, request: &OrphansRequest, caller: &Caller<'_>) -> Result<Vec<ReplicaOrphans>, Failure> {
        let mut names: Vec<String> = self.store.show().into_iter().map(|shown| shown.name).collect();
        if let Some(wanted) = &request.replica {
            names.retain(|name| name == wanted);
            if names.is_empty() {
                return Err(orphans::unknown(wanted));
            }
        }
        let units = self.store.units();
        let of = |name: &String| {
            // What is removed may be what only this host has.
            let unit = units.iter().find(|unit| unit.name == *name);
            let _watch = unit.and_then(|unit| unit.clones.watch());
            orphans::answer((name, &self.store.directory(name)), request, &|| !caller.is_gone())
        };
        names.iter().map(of).collect()
    }

    fn call_source(&self, call: &CallSource) -> Result<Option<CalledSource>, Failure> {
        Ok(self.store.call(call))
    }

    fn clones(&self, request: &ClonesRequest) -> Result<Vec<ReplicaClones>, Failure> {
        // Those that are not open as well, and the state of every set that is kept with theirs.
        let names = self.store.show().into_iter().map(|shown| shown.name);
        let replicas = names.flat_map(|name| clones::places_of(&self.store.directory(&name)));
        let keeps_off: Vec<_> = replicas.chain([self.store.state()]).collect();
        clones::answer(&self.store.units(), &keeps_off, request)
    }

    fn invite(&self, invite: &Invite) -> Result<Invited, Failure> {
        if !is_set_name(&invite.set_name) {
            return Err(Failure::new(
                format!("'{}' cannot name a replication set.", invite.set_name),
                UNTOUCHED,
                "Choose at most 64 letters, digits and any of - _ . @ +, not starting with a dot.",
            ));
        }
        if invite.address.len() > 255 {
            return Err(Failure::new("The address is too long.", UNTOUCHED, "Give host:port."));
        }
        let good_for = Duration::from_millis(invite.good_for_ms).min(INVITATION_TIME_MAX);
        let now = unix_ms(SystemTime::now());
        let Invite { set_name, address, allow, right, .. } = invite;
        match self.book.invite(Offer { set_name, address, good_for, allow: *allow, right: *right }, now) {
            Ok((token, invitation)) => Ok(Invited {
                token: token.to_string(),
                set_name: invite.set_name.clone(),
                fingerprint: token.target.to_string(),
                expires_unix_ms: invitation.expires_unix_ms,
                listening: self.listening.to_string(),
                after_restart: invite.allow.unwrap_or(Allow::NOTHING).without(able()),
            }),
            Err(InviteError::TooMany) => Err(Failure::new(
                "There are as many invitations as this target can keep.",
                UNTOUCHED,
                "Wait until some have expired.",
            )),
            Err(InviteError::Io(error)) => Err(failed("The invitation cannot be recorded", &error)),
        }
    }

    fn reload(&self) -> Result<ReloadReport, Failure> {
        reload::reload(&self.options)
    }

    fn configuration(&self) -> ConfigurationReport {
        reload::report(&self.options)
    }

    fn pairings(&self) -> Result<Vec<Paired>, Failure> {
        Ok(self.book.grants().iter().map(|grant| self.paired(grant)).collect())
    }

    fn revoke(&self, revoke: &Revoke) -> Result<Vec<Paired>, Failure> {
        let meant = self.meant(revoke)?;
        let revoked = self
            .book
            .revoke(|grant| meant.contains(grant))
            .map_err(|error| failed("The revocation cannot be recorded", &error))?;
        self.store.cut("the pairing was revoked on the target", |peer, name| {
            revoked.iter().any(|grant| grant.peer == *peer && grant.set_name == name)
        });
        for grant in &revoked {
            let may = grant.direction.right().verb();
            log::warn!("revoked: key {} may no longer {may} '{}'", grant.peer, grant.set_name);
        }
        Ok(revoked.iter().map(|grant| self.paired(grant)).collect())
    }
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::new(format!("{what}: {error}."), UNTOUCHED, "Mend this and try again.")
}
