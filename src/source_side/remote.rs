//! How a connection's target is reached: looked up anew for each attempt, because names move to
//! other addresses and hosts are paired again while a source runs.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::embedded::Embedded;
use crate::failure::Failure;
use crate::link::{Dial, Feed, FrameReceiver, Identity, Lookup, Outgoing, SourceLink};
use crate::pairing::Known;
use crate::target_side::Within;
use crate::words::Target;

/// Where a connection dials.
pub enum Route {
    /// To the embedded target of `local:`.
    Within(Arc<Within>),
    Paired(Paired),
    /// To the embedded target of a replica that was not there at the start.
    Awaited(Awaited),
    /// Always the same one.
    #[cfg(test)]
    Fixed(Dial),
}

/// A replica of this host that is looked for at each attempt.
pub struct Awaited {
    open: Box<dyn Fn() -> Result<Embedded, Failure> + Send>,
    opened: Mutex<Option<Embedded>>,
}

impl Awaited {
    /// `open`: gives the target once its replica is there.
    pub fn new(open: impl Fn() -> Result<Embedded, Failure> + Send + 'static) -> Awaited {
        Awaited { open: Box::new(open), opened: Mutex::default() }
    }

    fn target(&self) -> Result<Arc<Within>, String> {
        let mut opened = self.opened.lock();
        if let Some(target) = &*opened {
            return Ok(target.target());
        }
        let target = (self.open)().map_err(|failure| failure.what.trim_end_matches('.').to_owned())?;
        Ok(opened.insert(target).target())
    }
}

/// A target on another host.
pub struct Paired(Arc<Looked>);

/// What a look-up needs.
struct Looked {
    target: Target,
    host: String,
    port: u16,
    known: Known,
    identity: Arc<Identity>,
    resolver: Resolver,
}

/// Finds the addresses of a host, at least one; may take long.
type Resolver = fn(&str, u16) -> Result<Vec<SocketAddr>, String>;

impl Route {
    /// Dials; at each attempt another one of several addresses. Over a network it sends on these
    /// terms. Returns at once: a resolver, or a disk, may take long.
    ///
    /// Errors: one line; it is tried again like a lost connection.
    pub fn dial(&self, attempt: u32, feed: impl Feed, outgoing: Outgoing) -> Result<SourceLink, String> {
        let within = |target: &Within, feed| {
            target.connect(feed).map_err(|error| format!("no thread for the target: {error}"))
        };
        match self {
            Route::Within(target) => within(target, feed),
            Route::Awaited(awaited) => within(&*awaited.target()?, feed),
            Route::Paired(paired) => Ok(SourceLink::dial_within(paired.look_up(attempt)?, feed, outgoing)),
            #[cfg(test)]
            Route::Fixed(dial) => Ok(SourceLink::dial_within(dial.clone(), feed, outgoing)),
        }
    }
}

impl Paired {
    /// Errors: this host is not paired with the target.
    pub fn new(target: &Target, state: &Path, identity: Arc<Identity>) -> Result<Paired, Failure> {
        Paired::with(target, state, identity, resolve)
    }

    /// Dials to read the replica back.
    ///
    /// Errors: as [`Route::dial`].
    pub fn dial_to_read(&self, attempt: u32) -> Result<(SourceLink, FrameReceiver), String> {
        Ok(SourceLink::dial_to_read(self.look_up(attempt)?))
    }

    fn with(
        target: &Target,
        state: &Path,
        identity: Arc<Identity>,
        resolver: Resolver,
    ) -> Result<Paired, Failure> {
        let Target::Remote { host, port, .. } = target else {
            return Err(Failure::new(format!("{target} is on this host."), "Nothing was changed.", ""));
        };
        let known = Known::in_state(state);
        let target = target.clone();
        let looked = Looked { target, host: host.clone(), port: *port, known, identity, resolver };
        match looked.known.get(&looked.target.to_string()) {
            Ok(Some(_)) => Ok(Paired(Arc::new(looked))),
            Ok(None) => Err(not_paired(&looked.target)),
            Err(error) => Err(Failure::new(
                format!("The record of paired targets in {} cannot be read: {error}.", state.display()),
                "Nothing was mounted.",
                "Mend it, or remove targets.json there and pair again.",
            )),
        }
    }

    /// One look-up at a time, however often it is dialled: threads that hang do not pile up.
    pub fn look_up(&self, attempt: u32) -> Result<Lookup, String> {
        let Paired(looked) = self;
        if Arc::strong_count(looked) > 1 {
            return Err(format!("the address of '{}' is still being looked up", looked.host));
        }
        let looked = looked.clone();
        Lookup::begin(move || looked.find(attempt)).map_err(|error| format!("no thread to look up: {error}"))
    }
}

impl Looked {
    fn find(&self, attempt: u32) -> Result<Dial, String> {
        let known = self.known.get(&self.target.to_string());
        let known = known.map_err(|error| format!("the record of paired targets cannot be read: {error}"))?;
        let known = known.ok_or("this host is not paired with it any more")?;
        let addresses = (self.resolver)(&self.host, self.port)?;
        let address = addresses[attempt as usize % addresses.len()];
        Ok(Dial::new(address, known.fingerprint, self.identity.clone()))
    }
}

/// The addresses of a host, at least one.
///
/// Errors: one line.
pub fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found =
        (host, port).to_socket_addrs().map_err(|error| format!("'{host}' has no address: {error}"))?;
    let addresses: Vec<SocketAddr> = found.collect();
    if addresses.is_empty() { Err(format!("'{host}' has no address")) } else { Ok(addresses) }
}

pub(super) fn not_paired(target: &Target) -> Failure {
    let repset = match target {
        Target::Remote { repset, .. } => repset.as_str(),
        Target::Local(_) | Target::Null => "REPSET",
    };
    Failure::new(
        format!("This host is not paired with {target}."),
        "Nothing was mounted or written.",
        format!(
            "On the target: standin invite {repset}. Then here, with the token it prints on standard input: \
             standin pair {target}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::connection::Command;
    use crate::control::ConnectionState;
    use crate::packet::{Epoch, Incarnation, Position, SetId};
    use crate::pairing::KnownTarget;
    use crate::queue::Queue;
    use crate::source_side::connection::{Around, Connection, Settings};

    /// Longer than anything here takes on a busy machine.
    const LONG: Duration = Duration::from_secs(60);

    /// A connection whose target is looked up by `resolver`.
    fn connection(state: &Path, resolver: Resolver) -> Connection {
        let target = Target::Remote { host: "slow.example".into(), port: 7447, repset: "web".into() };
        let known = KnownTarget { fingerprint: Identity::generate().fingerprint(), since_unix_ms: 0 };
        Known::in_state(state).put(&target.to_string(), known).unwrap();
        let paired = Paired::with(&target, state, Arc::new(Identity::generate()), resolver).unwrap();
        let origin = Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3));
        let settings = Settings {
            id: 1,
            uuid: "c0ffee".into(),
            target,
            is_known: false,
            set: SetId(7),
            set_name: "web".into(),
            ids: 1.into(),
            unwritten_at: crate::source_side::Mark::now(),
            watch: None,
            divergence: Arc::default(),
            fence: Arc::default(),
            roles: Arc::default(),
            marks: Arc::default(),
            map: None,
            merge: None,
            touched: false,
            when_full: Default::default(),
            kept: Default::default(),
            delete_guard: Default::default(),
            owners: Default::default(),
            orphans: Default::default(),
            restored_at: None,
            goes_on: false,
            left: None,
            terms: Default::default(),
        };
        let queue = Queue::new(1 << 20, origin);
        let around = Around::of(Route::Paired(paired), state, &queue);
        Connection::start(settings, around, queue, None).unwrap()
    }

    /// A resolver that hung held up the connection's thread, and with it status and stop.
    #[test]
    fn a_resolver_that_hangs_holds_up_nobody() {
        let state = tempfile::tempdir().unwrap();
        let connection = connection(state.path(), |_, _| {
            loop {
                std::thread::park();
            }
        });
        let told = |command| connection.command(command).recv_timeout(LONG);
        assert_eq!(told(Command::Stop), Ok(Ok(())));
        assert_eq!(connection.report().state, ConnectionState::Stopped);
        // The thread that hangs is the only one.
        assert_eq!(told(Command::Start), Ok(Ok(())));
        let report = connection.wait(Instant::now() + LONG, |report| report.fault.is_some());
        assert!(report.reason.contains("still being looked up"), "{}", report.reason);
        connection.end();
    }

    #[test]
    fn what_a_look_up_fails_with_is_said() {
        let state = tempfile::tempdir().unwrap();
        let connection = connection(state.path(), |host, _| Err(format!("'{host}' has no address: none")));
        let report = connection.wait(Instant::now() + LONG, |report| report.attempts > 1);
        assert!(report.reason.contains("'slow.example' has no address"), "{}", report.reason);
        connection.end();
    }
}
