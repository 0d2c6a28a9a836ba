//! `standin address`: the address at which clients reach a set is held while this host serves it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use serde_json::json;

use super::args::Common;
use super::{Outcome, output};
use crate::address::Address;
use crate::address::device::NotTaken;
use crate::address::machine::{Act, Machine, Why, Word};
use crate::control::{Client, ClientError, Phase, Status};
use crate::events::Code;
use crate::failure::Failure;
use crate::service_manager::ServiceManager;
use crate::signals::stop_signals;
use crate::units::parse_duration;
use crate::words::{is_set_name, socket_path};

#[derive(Debug, Args)]
pub struct Addresses {
    /// Name of a replication set that this host serves, or may serve after a failover
    set: String,
    /// Held while it does, as 192.0.2.10/24@eth0; may be repeated
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<Address>,
    /// So long a daemon that was killed, or does not answer, keeps it
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "30s")]
    grace: Duration,
}

const UNTOUCHED: &str = "No address was taken.";
/// Between two looks at the daemon.
const EVERY: Duration = Duration::from_secs(1);
/// With one look of so many it is seen whether the interface has it still.
const THERE_EVERY: u32 = 5;

/// Until it is told to end; then they are given back.
pub(super) fn run(common: &Common, args: &Addresses) -> Outcome {
    if !is_set_name(&args.set) {
        let what = format!("'{}' is no name of a replication set.", args.set);
        return Err(Failure::new(what, UNTOUCHED, "`standin status` shows the sets of this host."));
    }
    crate::preflight::check_root_user(rustix::process::geteuid().as_raw())?;
    let now = Instant::now();
    let held = args.addresses.iter().map(|address| Held::of(address, args.grace));
    let held = held.collect::<Result<Vec<_>, Failure>>()?;
    let (told, stops) = bounded(1);
    stop_signals().and_then(|signals| signals.forward(move || told.send(()).is_ok())).map_err(|error| {
        Failure::new(format!("Signals cannot be caught: {error}."), UNTOUCHED, "Try again.")
    })?;
    let mut keeper = Keeper {
        set: args.set.clone(),
        socket: socket_path(&common.asked_dir(), &args.set),
        held,
        json: common.json,
        began: now,
        service: ServiceManager::of_process(),
    };
    keeper.work(&stops);
    Ok(0)
}

/// One of them.
struct Held {
    address: Address,
    machine: Machine,
    /// Why it was not taken, as it was said last.
    refused: Option<String>,
}

impl Held {
    /// Errors: there is no such interface, or no `ip`.
    fn of(address: &Address, grace: Duration) -> Result<Held, Failure> {
        let is_there = address.is_there().map_err(|error| {
            Failure::new(
                format!("{address} cannot be looked at: {error}."),
                UNTOUCHED,
                "Name an interface of this host (ip link); iproute2 has to be installed.",
            )
        })?;
        let machine = Machine::new(grace, is_there, Duration::ZERO);
        Ok(Held { address: address.clone(), machine, refused: None })
    }
}

struct Keeper {
    set: String,
    socket: PathBuf,
    held: Vec<Held>,
    json: bool,
    began: Instant,
    service: ServiceManager,
}

impl Keeper {
    fn work(&mut self, stops: &Receiver<()>) {
        self.say("ready", None, &format!("ready {}", self.set));
        self.service.ready();
        for look in 1_u32.. {
            let word = self.word();
            for at in 0..self.held.len() {
                if look % THERE_EVERY == 0 && self.held[at].machine.holds() {
                    self.see(at);
                }
                self.look(at, word);
            }
            let has = self.held.iter().filter(|one| one.machine.holds()).count();
            self.service.status(&format!("{has} of {} addresses are held", self.held.len()));
            self.service.alive(Instant::now());
            match stops.recv_timeout(EVERY) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        for at in 0..self.held.len() {
            if self.held[at].machine.holds() {
                self.give_back(at, "this command was ended");
            }
        }
    }

    /// What is known of the daemon.
    fn word(&self) -> Word {
        match Client::connect(&self.socket).and_then(|mut client| client.status()) {
            Ok(status) => word_of(&status),
            Err(ClientError::Absent) => Word::Absent,
            Err(_) => Word::Silent,
        }
    }

    /// A network service that is restarted removes what it does not know.
    fn see(&mut self, at: usize) {
        let one = &mut self.held[at];
        let why = match one.address.is_there() {
            Ok(true) => return,
            Ok(false) => "somebody has taken it from the interface".to_owned(),
            Err(error) => error.to_string(),
        };
        one.machine.lost();
        self.say("lost", Some(at), &format!("lost, and taken anew: {why}"));
    }

    fn look(&mut self, at: usize, word: Word) {
        let now = self.began.elapsed();
        let one = &mut self.held[at];
        match one.machine.step(now, word) {
            Act::Nothing => {}
            Act::Announce => {
                if let Err(error) = one.address.announce() {
                    log::warn!("{} cannot be announced: {error}", one.address);
                }
            }
            Act::Take => self.take(at),
            Act::GiveBack(why) => self.give_back(at, Why::word(why)),
        }
    }

    fn take(&mut self, at: usize) {
        let outcome = self.held[at].address.take();
        let now = self.began.elapsed();
        let one = &mut self.held[at];
        one.machine.took(now, outcome.is_ok());
        let why = match outcome {
            Ok(()) => {
                one.refused = None;
                return self.say("held", Some(at), "held");
            }
            Err(NotTaken::InUse(Some(owner))) => {
                format!(
                    "{owner} answers for it: another host has it still. Cut that one off, or take it from there"
                )
            }
            Err(NotTaken::InUse(None)) => {
                "another host has it still. Cut that one off, or take it from there".into()
            }
            Err(NotTaken::Io(error)) => error.to_string(),
        };
        if one.refused.as_ref() != Some(&why) {
            one.refused = Some(why.clone());
            self.say("not_taken", Some(at), &format!("not taken, and tried again: {why}"));
        }
    }

    fn give_back(&self, at: usize, why: &str) {
        match self.held[at].address.give_back() {
            Ok(()) => self.say("given_back", Some(at), &format!("given back: {why}")),
            Err(error) => {
                self.say("stays", Some(at), &format!("should be given back ({why}), and cannot: {error}"));
            }
        }
    }

    /// A line for each change.
    fn say(&self, code: &str, at: Option<usize>, text: &str) {
        let address = at.map(|at| self.held[at].address.to_string());
        match self.json {
            true => output::json(&json!({ "set": self.set, "address": address, "is": code, "text": text })),
            false => output::text(&match address {
                Some(address) => format!("{}  {address}  {text}", self.set),
                None => text.to_owned(),
            }),
        }
    }
}

/// Of a daemon that answers.
fn word_of(status: &Status) -> Word {
    let is_stood_in = status.alerts.iter().any(|alert| alert.code == Code::StoodInFor);
    match status.phase {
        // A target daemon of that name serves nobody's programs.
        _ if status.source().is_none() => Word::Absent,
        _ if is_stood_in => Word::StoodInFor,
        Phase::Serving => Word::Serves,
        Phase::Draining | Phase::Stopping | Phase::Ending => Word::Stops,
        Phase::Starting => Word::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::sample_status;
    use crate::control::{Alert, Role, TargetStatus};
    use crate::events::Severity;

    #[test]
    fn only_who_serves_programs_has_it() {
        let of = |phase| word_of(&Status { phase, ..sample_status() });
        assert_eq!(of(Phase::Serving), Word::Serves);
        assert_eq!(of(Phase::Starting), Word::Silent);
        for phase in [Phase::Draining, Phase::Stopping, Phase::Ending] {
            assert_eq!(of(phase), Word::Stops);
        }
        let alert = Alert { severity: Severity::Critical, code: Code::StoodInFor, text: String::new() };
        assert_eq!(word_of(&Status { alerts: vec![alert], ..sample_status() }), Word::StoodInFor);
        let role = Role::Target { target: TargetStatus::default() };
        assert_eq!(word_of(&Status { role, ..sample_status() }), Word::Absent);
    }
}
