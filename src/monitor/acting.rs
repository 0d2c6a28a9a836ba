//! The steps at red, on a thread of their own: look, fence, fail over. The failover is the command that a person would
//! type, as a process of its own group: it outlives the monitor, and is resumed or undone by its own journal.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::Auto;
use super::outage::{Notes, Outage, Step};
use crate::commands::Runner;
use crate::control::{Client, Phase, Role, unix_ms};
use crate::failover::journal::Journal;
use crate::failover::report::State;
use crate::words::socket_path;

/// How often it is looked whether the stand-in serves.
const LOOKED_EVERY: Duration = Duration::from_millis(100);

/// So often until a failover that was started is seen.
const STARTED_LOOKS: u32 = 30;

/// What all steps need.
pub struct Acting {
    pub auto: Auto,
    pub set: String,
    pub run: PathBuf,
    pub state: PathBuf,
    pub notes: Notes,
    /// The source counts as gone at this moment.
    pub is_red: Arc<AtomicBool>,
    /// The monitor is told to end: what would change something is not begun any more.
    pub stops: Receiver<()>,
    pub tell: Sender<Outage>,
}

/// What a note of before says is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GoOn {
    No,
    /// A failover runs, or has raised its epoch: its process is waited for, or started again.
    Await,
    Again,
}

impl Acting {
    /// From the first step on, where nothing was done yet. Blocks until it is over.
    pub fn act(&mut self) {
        // That of another monitor with this state, whose lock lies elsewhere.
        match self.notes.read() {
            Ok(None) => {}
            Ok(Some(outage)) => {
                log::error!("{}: another monitor acts on this outage: {}", self.set, outage.words());
                let why = "another monitor of this host acts on this outage";
                _ = self.tell.send(Outage::left_to_a_person(now_ms(), why));
                return;
            }
            Err(error) => {
                let why = format!("what was done about this outage cannot be read: {error}");
                _ = self.tell.send(Outage::left_to_a_person(now_ms(), &why));
                return;
            }
        }
        let mut outage = Outage::begun(now_ms());
        let outcome = self.steps(&mut outage);
        self.finish(outage, outcome);
    }

    /// What an earlier monitor has begun and not seen the end of.
    pub fn resume(&mut self, mut outage: Outage) {
        let outcome = match self.left(&outage) {
            Ok(GoOn::Await) => self.await_served(None),
            Ok(GoOn::Again) => self.fail_over(&mut outage),
            Ok(GoOn::No) => Err(match outage.step {
                Step::Looking => "the monitor ended before the fence command: nothing was done".into(),
                Step::Fencing => {
                    "the monitor ended while the fence command ran: what that has done is not known".into()
                }
                _ => "the failover was interrupted before its epoch was raised, and undone".into(),
            }),
            Err(error) => Err(format!("what the failover has come to is not known: {error}")),
        };
        self.finish(outage, outcome);
    }

    fn left(&self, outage: &Outage) -> io::Result<GoOn> {
        if outage.step != Step::FailingOver {
            return Ok(GoOn::No);
        }
        // One that was started a moment ago has not said so yet.
        for _ in 0..STARTED_LOOKS {
            if Journal::is_busy(&self.state, &self.set) || self.is_served() {
                return Ok(GoOn::Await);
            }
            std::thread::sleep(LOOKED_EVERY);
        }
        let reports = Journal::reports(&self.state, &self.set)?;
        let last = reports.last().filter(|report| report.started_unix_ms >= outage.began_unix_ms);
        Ok(match last {
            Some(report) if report.epoch.is_some() && report.state != State::Active => GoOn::Again,
            // It served, and has ended since: that is for a person.
            Some(_) | None => GoOn::No,
        })
    }

    /// Errors: why it is not gone on with.
    fn steps(&mut self, outage: &mut Outage) -> Result<(), String> {
        self.note(outage, Step::Looking)?;
        self.look()?;
        self.still_wanted()?;
        self.note(outage, Step::Fencing)?;
        self.fence()?;
        self.fail_over(outage)
    }

    fn fail_over(&mut self, outage: &mut Outage) -> Result<(), String> {
        self.note(outage, Step::FailingOver)?;
        let child = self.start().map_err(|error| format!("the failover cannot be started: {error}"))?;
        self.await_served(Some(child))
    }

    fn note(&self, outage: &mut Outage, step: Step) -> Result<(), String> {
        (outage.step, outage.at_unix_ms) = (step, now_ms());
        self.notes.write(outage).map_err(|error| format!("what is done cannot be noted: {error}"))?;
        let _ = self.tell.send(outage.clone());
        Ok(())
    }

    fn finish(&self, mut outage: Outage, outcome: Result<(), String>) {
        if outcome.as_ref().is_err_and(|why| why == LEFT) {
            return;
        }
        outage.step = if outcome.is_ok() { Step::StandsIn } else { Step::Failed };
        (outage.at_unix_ms, outage.why) = (now_ms(), outcome.err());
        if let Err(error) = self.notes.write(&outage) {
            log::error!("the end of an outage cannot be noted: {error}");
        }
        match outage.failed() {
            Some(why) => log::error!("{}: nothing more is done by itself: {why}", self.set),
            None => log::warn!("{}: this host stands in for its source", self.set),
        }
        let _ = self.tell.send(outage);
    }

    /// Nothing was done yet that a source which is there again would not bear.
    fn still_wanted(&self) -> Result<(), String> {
        if !self.stops.is_empty() {
            return Err("the monitor was told to end before the fence command".into());
        }
        match self.is_red.load(Ordering::SeqCst) {
            true => Ok(()),
            false => {
                Err("the source was heard again, or nothing is seen, before the fence command ran".into())
            }
        }
    }

    /// A source that is cut off and nobody who stands in would be the worst of all.
    fn look(&self) -> Result<(), String> {
        let look = command(&self.auto, &["--dry-run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).output();
        let output = look.map_err(|error| format!("the failover's look cannot be run: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        let refused = text.lines().map(str::trim).find_map(|line| line.strip_prefix("REFUSED"));
        let said =
            error.lines().find_map(|line| line.strip_prefix("standin: ")).unwrap_or("no reason was given");
        let why = refused.map_or(said, str::trim);
        Err(format!("the failover is refused, and nothing was fenced: {why}"))
    }

    fn fence(&self) -> Result<(), String> {
        let mut runner =
            Runner::start().map_err(|error| format!("the fence command cannot be run: {error}"))?;
        let own = [("STANDIN_MONITOR_SET", self.set.clone())];
        match runner.run(&self.auto.fence, self.auto.timeout, &own, &self.stops) {
            Ok(Some(ended)) if ended.is_success() => {
                log::warn!("{}: fenced: {}", self.set, ended.output.trim());
                Ok(())
            }
            Ok(Some(ended)) => {
                let last = ended.output.trim().lines().last().unwrap_or_default().to_owned();
                Err(format!("the fence command has failed{}: {last}", ended.words()))
            }
            Ok(None) => Err("the monitor was told to end while the fence command ran".into()),
            Err(error) => Err(format!("the fence command cannot be run: {error}")),
        }
    }

    fn start(&self) -> io::Result<Child> {
        let mut command = command(&self.auto, &["--yes"]);
        // What it says is not what this monitor says.
        let said = io::stderr().as_fd().try_clone_to_owned()?;
        command.process_group(0).stdout(Stdio::from(said)).stderr(Stdio::inherit()).spawn()
    }

    /// Until the data are served; without a process of this one's own, by what others see.
    fn await_served(&self, mut child: Option<Child>) -> Result<(), String> {
        while !self.is_served() {
            match &mut child {
                Some(child) => {
                    if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
                        return Err(format!("the failover has ended ({status}); its report says why"));
                    }
                }
                None if !Journal::is_busy(&self.state, &self.set) && !self.is_served() => {
                    return Err("the failover of before has ended; its report says why".into());
                }
                None => {}
            }
            match self.stops.recv_timeout(LOOKED_EVERY) {
                Err(RecvTimeoutError::Timeout) => {}
                // It goes on by itself, and the next monitor looks what has come of it.
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return Err(LEFT.into()),
            }
        }
        if let Some(child) = child {
            follow(child, self.set.clone());
        }
        Ok(())
    }

    fn is_served(&self) -> bool {
        is_served(&self.run, &self.set)
    }
}

/// The monitor ends, and a failover that it has begun goes on: that is noted as it is.
const LEFT: &str = "the monitor was told to end while the failover ran";

/// Whether this host serves the set in its source's place, or as its source.
pub fn is_served(run: &Path, set: &str) -> bool {
    let status = Client::connect(&socket_path(run, set)).and_then(|mut client| client.status());
    status.is_ok_and(|status| matches!(status.role, Role::Source(_)) && status.phase == Phase::Serving)
}

/// Takes its end, whenever that comes.
fn follow(mut child: Child, set: String) {
    let wait = move || match child.wait() {
        Ok(status) => log::warn!("{set}: the stand-in has ended: {status}"),
        Err(error) => log::warn!("{set}: the stand-in cannot be followed: {error}"),
    };
    if let Err(error) = std::thread::Builder::new().name("stand-in".into()).spawn(wait) {
        log::warn!("the stand-in cannot be followed: {error}");
    }
}

/// This program, with the words of the failover.
pub fn command(auto: &Auto, more: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("standin").args(&auto.failover).args(more).stdin(Stdio::null());
    // It is not the process that the service manager has started.
    command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
    command
}

fn now_ms() -> u64 {
    unix_ms(SystemTime::now())
}
