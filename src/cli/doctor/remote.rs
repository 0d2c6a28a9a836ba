//! A target on another host: paired, reachable, of a version that understands this one, and what it
//! says of the set. Asks only: no replica is opened, no connection of a source is disturbed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Level, Report};
use crate::cli::args::Common;
use crate::control::unix_ms;
use crate::limits::UDP_PAYLOAD_MAX;
use crate::link::{Dial, Feed, Identity, SourceEvent, SourceLink, payload_max};
use crate::packet::{
    EncodedFrame, Holdings, SourceMessage, Standing, TargetMessage, Text, WIRE_VERSION, WIRE_VERSION_OLDEST,
};
use crate::pairing::{Known, KnownTarget};
use crate::preflight::FsFacts;
use crate::source_side::resolve;
use crate::units;
use crate::words::Target;

/// How long one address is given, all in all.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the longest datagram that arrives is looked for, and how long it has to stay the same.
const PATH_PATIENCE: Duration = Duration::from_secs(4);
const PATH_STEADY: Duration = Duration::from_millis(1500);

/// Clocks further apart are worth a line.
const CLOCKS_APART: Duration = Duration::from_secs(1);

impl Report {
    /// Lines about a target, where it is on another host.
    /// `source`: the directory, where one was named and can be looked into.
    pub(super) fn remote(&mut self, common: &Common, target: &Target, source: Option<&(PathBuf, FsFacts)>) {
        let Target::Remote { host, port, repset } = target else { return };
        let Some((known, identity)) = self.paired(common, target, repset) else { return };
        let addresses = match resolve(host, *port) {
            Ok(addresses) => addresses,
            Err(why) => return self.add(Level::Fail, "target", format!("{why}.")),
        };
        let asked: Vec<_> =
            addresses.into_iter().map(|address| (address, ask(address, &known, &identity, repset))).collect();
        // A host is reached where one of its addresses answers.
        let reached = asked.iter().any(|(_, outcome)| outcome.is_ok());
        for (address, outcome) in asked {
            match outcome {
                Ok(answer) => {
                    self.answer(target, address, &answer);
                    if let (Some(holdings), Some((dir, facts))) = (&answer.holdings, source) {
                        self.holds((dir, facts), target, holdings);
                    }
                }
                Err(why) => self.add(
                    if reached { Level::Warn } else { Level::Fail },
                    "target",
                    format!(
                        "{target} cannot be asked at {address}: {why}. `standin serve` has to run there, UDP \
                         port {port} to be open, and the pairing to stand."
                    ),
                ),
            }
        }
    }

    fn paired(
        &mut self,
        common: &Common,
        target: &Target,
        repset: &str,
    ) -> Option<(KnownTarget, Arc<Identity>)> {
        let state = common.state_dir();
        let unreadable =
            |error: std::io::Error| format!("The pairings in {} cannot be read: {error}.", state.display());
        let found = match Known::in_state(&state).get(&target.to_string()) {
            Ok(Some(known)) => {
                Identity::load_or_create(&state).map(|own| (known, Arc::new(own))).map_err(unreadable)
            }
            Ok(None) => Err(format!(
                "This host is not paired with {target}. On the target: standin invite {repset}; here: standin pair {target}."
            )),
            Err(error) => Err(unreadable(error)),
        };
        match found {
            Ok((known, own)) => {
                let text = format!(
                    "paired with {target}; its key {}, ours {}",
                    known.fingerprint,
                    own.fingerprint()
                );
                self.add(Level::Ok, "pairing", text);
                Some((known, own))
            }
            Err(text) => {
                self.add(Level::Fail, "pairing", text);
                None
            }
        }
    }

    fn answer(&mut self, target: &Target, address: SocketAddr, answer: &Answer) {
        let trip = units::duration(answer.round_trip);
        self.add(Level::Ok, "target", format!("{target} answers at {address} within {trip}"));
        let versions = format!("it is standin {}, this is {}", answer.product, env!("CARGO_PKG_VERSION"));
        match answer.understands {
            true => self.add(Level::Ok, "version", versions),
            false => self.add(Level::Fail, "version", format!("{versions}: update the older side.")),
        }
        match &answer.standing {
            Ok(text) => self.add(Level::Ok, "replica", text.clone()),
            Err(why) => self.add(Level::Fail, "replica", format!("The target says: {why}.")),
        }
        let apart = units::duration(answer.clock_apart);
        match answer.clock_apart > CLOCKS_APART {
            true => self.add(
                Level::Warn,
                "clock",
                format!("The clocks of the two hosts are {apart} apart: logs are hard to compare."),
            ),
            false => self.add(Level::Ok, "clock", "the clocks of the two hosts agree"),
        }
        self.path_carries(answer.payload, payload_max(address));
    }

    /// `carried`, `leaves`: the longest payload that arrives, and that is sent from here at all, bytes.
    fn path_carries(&mut self, carried: u16, leaves: u16) {
        if carried >= leaves {
            let which = match leaves >= UDP_PAYLOAD_MAX {
                true => "the longest that are sent",
                false => "what the interface here takes",
            };
            let text = format!("datagrams of {leaves} bytes arrive, which is {which}");
            return self.add(Level::Ok, "path", text);
        }
        let text = format!(
            "Datagrams of {carried} bytes arrive and longer ones do not, though {leaves} leave this host: a tunnel, \
             or an interface with a smaller MTU, lies on the way. It is slower so, and nothing is lost; with the same MTU \
             everywhere it goes."
        );
        self.add(Level::Note, "path", text);
    }
}

struct Answer {
    product: String,
    understands: bool,
    round_trip: Duration,
    clock_apart: Duration,
    standing: Result<String, String>,
    holdings: Option<Holdings>,
    /// The longest datagram that is known to arrive there.
    payload: u16,
}

/// Connects, asks, and closes.
fn ask(
    address: SocketAddr,
    known: &KnownTarget,
    own: &Arc<Identity>,
    repset: &str,
) -> Result<Answer, String> {
    let deadline = Instant::now() + PATIENCE;
    let link = SourceLink::dial(Dial::new(address, known.fingerprint, own.clone()), NoFrames);
    let (mut asked, mut holdings) = (None, None);
    let answer = loop {
        let event =
            link.events().recv_deadline(deadline).map_err(|_| format!("nothing within {PATIENCE:?}"))?;
        match (event, asked) {
            (SourceEvent::Up, _) => {
                asked = Some((Instant::now(), unix_ms(SystemTime::now())));
                link.send(SourceMessage::Ask { set_name: Text::from_str_cut(repset) });
            }
            (
                SourceEvent::Message(TargetMessage::About {
                    version_oldest,
                    version,
                    product,
                    now_ms,
                    standing,
                }),
                Some((at, sent_ms)),
            ) => {
                let round_trip = at.elapsed();
                let there = sent_ms + round_trip.as_millis() as u64 / 2;
                break Answer {
                    product: product.to_text(),
                    understands: version_oldest <= WIRE_VERSION && version >= WIRE_VERSION_OLDEST,
                    round_trip,
                    clock_apart: Duration::from_millis(now_ms.abs_diff(there)),
                    holdings,
                    payload: longest_payload(&link, payload_max(address)),
                    standing: match standing {
                        Standing::Welcome(text) => Ok(text.to_text()),
                        Standing::Unwelcome(text) => Err(text.to_text()),
                    },
                };
            }
            (SourceEvent::Message(TargetMessage::Holds(said)), _) => holdings = Some(said),
            (SourceEvent::Message(_), _) => {}
            (SourceEvent::Lost { reason, .. }, _) => return Err(reason),
        }
    };
    link.close("the doctor has asked");
    Ok(answer)
}

/// What the search for longer datagrams has come to, up to `most`. One that does not arrive is tried three times.
fn longest_payload(link: &SourceLink, most: u16) -> u16 {
    let (began, mut longest, mut since) = (Instant::now(), 0, Instant::now());
    while longest < most && since.elapsed() < PATH_STEADY && began.elapsed() < PATH_PATIENCE {
        let now = link.stats().mtu;
        if now > longest {
            (longest, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    longest
}

/// Nothing is sent but the question.
struct NoFrames;

impl Feed for NoFrames {
    fn next_frames(&mut self, _max_bytes: usize) -> Vec<EncodedFrame> {
        Vec::new()
    }
}
