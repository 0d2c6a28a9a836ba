//! How a connection's target is reached: looked up anew for each attempt, because names move to
//! other addresses and hosts are paired again while a source runs.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;

use crate::failure::Failure;
use crate::link::{Dial, Feed, Identity, SourceLink};
use crate::pairing::Known;
use crate::target_side::Within;
use crate::words::Target;

/// Where a connection dials.
pub enum Route {
    /// To the embedded target of `local:`.
    Within(Arc<Within>),
    Paired(Paired),
    /// Always the same one.
    #[cfg(test)]
    Fixed(Dial),
}

/// A target on another host.
pub struct Paired {
    target: Target,
    host: String,
    port: u16,
    known: Known,
    identity: Arc<Identity>,
}

impl Route {
    /// Dials; at each attempt another one of several addresses.
    ///
    /// Errors: one line; it is tried again like a lost connection.
    pub fn dial(&self, attempt: u32, feed: impl Feed) -> Result<SourceLink, String> {
        match self {
            Route::Within(target) => {
                target.connect(feed).map_err(|error| format!("no thread for the target: {error}"))
            }
            Route::Paired(paired) => Ok(SourceLink::dial(paired.dial(attempt)?, feed)),
            #[cfg(test)]
            Route::Fixed(dial) => Ok(SourceLink::dial(dial.clone(), feed)),
        }
    }
}

impl Paired {
    /// Errors: this host is not paired with the target.
    pub fn new(target: &Target, state: &Path, identity: Arc<Identity>) -> Result<Paired, Failure> {
        let Target::Remote { host, port, .. } = target else {
            return Err(Failure::new(format!("{target} is on this host."), "Nothing was changed.", ""));
        };
        let known = Known::in_state(state);
        let target = target.clone();
        let paired = Paired { target, host: host.clone(), port: *port, known, identity };
        match paired.known.get(&paired.target.to_string()) {
            Ok(Some(_)) => Ok(paired),
            Ok(None) => Err(not_paired(&paired.target)),
            Err(error) => Err(Failure::new(
                format!("The record of paired targets in {} cannot be read: {error}.", state.display()),
                "Nothing was mounted.",
                "Mend it, or remove targets.json there and pair again.",
            )),
        }
    }

    fn dial(&self, attempt: u32) -> Result<Dial, String> {
        let known = self.known.get(&self.target.to_string());
        let known = known.map_err(|error| format!("the record of paired targets cannot be read: {error}"))?;
        let known = known.ok_or("this host is not paired with it any more")?;
        let addresses = resolve(&self.host, self.port)?;
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

fn not_paired(target: &Target) -> Failure {
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
