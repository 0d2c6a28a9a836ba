//! `standin address`: the address at which clients reach a set is held while this host serves it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use serde_json::json;

use super::args::Common;
use super::{Outcome, output};
use crate::address::Address;
use crate::address::device::NotTaken;
use crate::address::machine::{Act, Machine, Why, Word};
use crate::control::{Client, ClientError, ConnectionChange, ConnectionState, Phase, Status};
use crate::events::Code;
use crate::failure::Failure;
use crate::service_manager::ServiceManager;
use crate::signals::stop_signals;
use crate::store::{self, Symlink, own_directory};
use crate::sys::HardwareAddress;
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
/// With one look of so many it is seen whether the interface has it still, and no other host.
const THERE_EVERY: u32 = 5;
/// At the end.
const GIVE_BACK_TRIES: u32 = 5;

/// Until it is told to end; then they are given back.
pub(super) fn run(common: &Common, args: &Addresses) -> Outcome {
    if !is_set_name(&args.set) {
        let what = format!("'{}' is no name of a replication set.", args.set);
        return Err(Failure::new(what, UNTOUCHED, "`standin status` shows the sets of this host."));
    }
    crate::preflight::check_root_user(rustix::process::geteuid().as_raw())?;
    let now = Instant::now();
    let notes = Notes(common.run_dir().join(".addresses").join(&args.set));
    let noted = notes.all();
    let held = args.addresses.iter().map(|address| Held::of(address, args.grace, &noted));
    let held = held.collect::<Result<Vec<_>, Failure>>()?;
    let (told, stops) = bounded(1);
    stop_signals().and_then(|signals| signals.forward(move || told.send(()).is_ok())).map_err(|error| {
        Failure::new(format!("Signals cannot be caught: {error}."), UNTOUCHED, "Try again.")
    })?;
    let mut keeper = Keeper {
        set: args.set.clone(),
        socket: socket_path(&common.asked_dir(), &args.set),
        notes,
        held,
        json: common.json,
        began: now,
        service: ServiceManager::of_process(),
    };
    keeper.work(&stops);
    Ok(0)
}

/// What a process of this set has taken, since the boot of the host: another one goes on with that, and with nothing else.
struct Notes(PathBuf);

impl Notes {
    fn all(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// `taken`: the one that is about to be, which is noted before.
    fn write(&self, held: &[Held], taken: Option<usize>) {
        let has = held.iter().enumerate().filter(|(at, one)| one.machine.holds() || Some(*at) == taken);
        let text: String = has.map(|(_, one)| format!("{}\n", one.address)).collect();
        let [place, run] = [1, 2].map(|above| self.0.ancestors().nth(above).unwrap_or(Path::new("/")));
        let written = own_directory(run, 0o755, Symlink::Own)
            .and_then(|_| own_directory(place, 0o700, Symlink::Own))
            .and_then(|_| store::replace(&self.0, text.as_bytes()));
        if let Err(error) = written {
            log::warn!("what is held cannot be noted in {}: {error}", self.0.display());
        }
    }
}

/// One of them.
struct Held {
    address: Address,
    machine: Machine,
    /// Why it was not taken, or not given back, as it was said last.
    trouble: Option<String>,
    /// Another host answers for it, too.
    rival: Option<HardwareAddress>,
}

impl Held {
    /// Errors: there is no such interface, or no `ip`; the host has that address, and nobody noted to have taken it.
    fn of(address: &Address, grace: Duration, noted: &[String]) -> Result<Held, Failure> {
        let is_there = address.is_there().map_err(|error| {
            Failure::new(
                format!("{address} cannot be looked at: {error}."),
                UNTOUCHED,
                "Name an interface of this host (ip link); iproute2 has to be installed.",
            )
            // Of a bond, or a VLAN, that comes late.
            .passing()
        })?;
        if is_there && !noted.contains(&address.to_string()) {
            return Err(Failure::new(
                format!("This host has {} already, and no `standin address` has taken it.", address.ip),
                UNTOUCHED,
                "Name the address of the clients, not one of the host's own. If it is that of the clients, take it away (ip \
                 address delete), and out of the configuration of the network.",
            ));
        }
        let machine = Machine::new(grace, is_there, Duration::ZERO);
        Ok(Held { address: address.clone(), machine, trouble: None, rival: None })
    }
}

struct Keeper {
    set: String,
    socket: PathBuf,
    notes: Notes,
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
            for _ in 0..GIVE_BACK_TRIES {
                if self.held[at].machine.holds() {
                    self.give_back(at, "this command was ended");
                }
                if self.held[at].machine.holds() {
                    std::thread::sleep(EVERY);
                }
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

    /// A network service that is restarted removes what it does not know; and a host that was cut off and stood in for
    /// comes back with what it had.
    fn see(&mut self, at: usize) {
        let one = &mut self.held[at];
        let lost = match one.address.is_there() {
            Ok(true) => None,
            Ok(false) => Some("somebody has taken it from the interface".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = lost {
            one.machine.is_gone();
            self.notes.write(&self.held, None);
            return self.say("lost", Some(at), &format!("lost, and taken anew: {why}"));
        }
        let rival = one.address.rival().unwrap_or_else(|error| {
            log::warn!("it cannot be seen whether another host has {}: {error}", one.address);
            None
        });
        let before = std::mem::replace(&mut one.rival, rival);
        let Some(rival) = rival else { return };
        if before.is_none() {
            let text = format!(
                "{rival} answers for it, too: two hosts have it. Each daemon is told to look now whether it was stood in for"
            );
            self.say("on_two_hosts", Some(at), &text);
        }
        if let Err(error) = self.dial_now() {
            log::info!("the daemon does not look for its targets: {error}");
        }
    }

    /// Targets know who writes the set: those that could not be reached are tried now.
    fn dial_now(&self) -> Result<(), ClientError> {
        let mut client = Client::connect(&self.socket)?;
        let status = client.status()?;
        let failed = status.connections().iter().filter(|one| one.state == ConnectionState::Error);
        failed
            .map(|one| one.uuid.clone())
            .try_for_each(|uuid| client.connection(ConnectionChange::Start, Some(uuid)).map(drop))
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
        self.notes.write(&self.held, Some(at));
        let outcome = self.held[at].address.take();
        let now = self.began.elapsed();
        self.held[at].machine.took(now, outcome.is_ok());
        self.notes.write(&self.held, None);
        let another = "another host has it still. Cut that one off, or take it from there";
        let why = match outcome {
            Ok(()) => {
                self.held[at].trouble = None;
                return self.say("held", Some(at), "held");
            }
            Err(NotTaken::InUse(Some(owner))) => format!("{owner} answers for it: {another}"),
            Err(NotTaken::InUse(None)) => another.into(),
            Err(NotTaken::NoCarrier) => {
                "the interface is down, or its cable is out: nobody can be asked".into()
            }
            Err(NotTaken::Io(error)) => error.to_string(),
        };
        self.trouble(at, "not_taken", "not taken, and tried again", why);
    }

    fn give_back(&mut self, at: usize, why: &str) {
        match self.held[at].address.give_back() {
            Ok(()) => {
                self.held[at].machine.is_gone();
                self.held[at].trouble = None;
                self.notes.write(&self.held, None);
                self.say("given_back", Some(at), &format!("given back: {why}"));
            }
            Err(error) => {
                let text = format!("should be given back ({why}), and is tried again");
                self.trouble(at, "stays", &text, error.to_string());
            }
        }
    }

    /// Once for each reason.
    fn trouble(&mut self, at: usize, code: &str, what: &str, why: String) {
        let text = format!("{what}: {why}");
        if self.held[at].trouble.replace(text.clone()).is_none_or(|before| before != text) {
            self.say(code, Some(at), &text);
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
