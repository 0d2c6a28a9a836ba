//! `standin events run`: calls the hook of a person for each event, in a process of its own.
//!
//! ```text
//!  daemons ──each second──> Host ──> Calls ──> caller (a thread) ──> runner (a process) ──> /bin/sh -c HOOK
//!                            └── book on disk ──┘
//! ```
//! Where it stands with each daemon and which calls wait is replaced on disk as one document, before a call is made
//! and behind it: started again, it goes on from there.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use crossbeam_channel::{Receiver, bounded, select};

use super::ASK_EVERY;
use super::book::{Book, read_book};
use super::caller::{Caller, Made};
use super::host::Host;
use super::pulse::Pulse;
use super::trial::Trials;
use crate::cli::Outcome;
use crate::cli::args::Common;
use crate::cli::output::Printed;
use crate::commands::KILLED_WITHIN;
use crate::events::{Calls, Code, Outcome as Came, Pace, Severity, Told, Watch};
use crate::failure::Failure;
use crate::locked::Locked;
use crate::service_manager::ServiceManager;
use crate::signals::stop_signals;
use crate::store::{self, Symlink};
use crate::units::parse_duration;

#[derive(Debug, Args)]
pub struct Run {
    /// Run by a shell for each event, once when it begins and once when it ends; the event is in its environment and,
    /// as JSON, in its standard input
    #[arg(long, value_name = "COMMAND", required_unless_present_any = ["alive", "events_file"])]
    hook: Option<String>,
    /// The hook is called for what is so bad, or worse
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t = Least::Warning)]
    from: Least,
    /// How long one call may take; then it is killed, and counts as failed
    #[arg(long, value_name = "T", value_parser = some_time, default_value = "30s")]
    timeout: Duration,
    /// Calls in a minute at most: more events come in one call
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=600))]
    calls: u32,
    /// Run by a shell again and again, only while all daemons of this host serve and nothing is critical: whoever does
    /// not hear of it any more raises the alarm
    #[arg(long, value_name = "COMMAND", requires = "every")]
    alive: Option<String>,
    /// With --alive: how often
    #[arg(long, value_name = "T", value_parser = some_time, requires = "alive")]
    every: Option<Duration>,
    /// With --alive: a set or daemon that has to be there; may be repeated [default: each that was ever seen]
    #[arg(long, value_name = "NAME", requires = "alive")]
    expect: Vec<String>,
    /// A set or daemon that was seen, and is not expected any more; may be repeated
    #[arg(long, value_name = "NAME")]
    forget: Vec<String>,
    /// Write each event to the end of this file, too: one JSON document a line
    #[arg(long, value_name = "FILE")]
    events_file: Option<PathBuf>,
}

/// Less is no time to do anything in, and again and again without a pause.
const SHORTEST: Duration = Duration::from_millis(100);

fn some_time(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        time if time < SHORTEST => Err("at least 100ms".to_owned()),
        time => Ok(time),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Least {
    Ok,
    Warning,
    Critical,
}

impl From<Least> for Severity {
    fn from(least: Least) -> Severity {
        match least {
            Least::Ok => Severity::Ok,
            Least::Warning => Severity::Warning,
            Least::Critical => Severity::Critical,
        }
    }
}

/// What is waited before each further attempt of a call.
const AGAIN: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120), Duration::from_secs(600)];
/// A runner answers so long after what it runs has come to its end, or could not be killed; longer than it is waited for.
const GRACE: Duration = Duration::from_secs(15);
/// Of the output of a hook, what goes into the log.
const OUTPUT_LOGGED: usize = 500;

const UNTOUCHED: &str = "No hook was called.";

/// Errors: of the system; `ENXIO` where it is a pipe that nobody reads, which is not waited for.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(flags).open(path)
}

/// Where all of this is kept.
pub(super) fn own_dir(common: &Common) -> PathBuf {
    common.state_dir().join(".events")
}

/// `None`: somebody has it.
pub(super) fn lock(dir: &Path) -> io::Result<Option<Locked>> {
    store::own_directory(dir, 0o700, Symlink::Own)?;
    let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join("lock"))?;
    Locked::now(lock)
}

pub(super) fn run(common: &Common, args: &Run) -> Outcome {
    let dir = own_dir(common);
    let unusable = |error: io::Error| {
        Failure::new(
            format!("{} cannot be used: {error}.", dir.display()),
            UNTOUCHED,
            "Run it as root, or name another state directory with --state.",
        )
    };
    let Some(_lock) = lock(&dir).map_err(unusable)? else {
        return Err(Failure::new(
            format!("Another `standin events run` works with {}.", dir.display()),
            "It goes on.",
            "Stop it first; one hook can do several things.",
        ));
    };
    let (told, stops) = bounded(1);
    let signals = stop_signals().map_err(unusable)?;
    let (tell_anew, anew) = bounded(1);
    // One that has not been heard yet stands for this one, too.
    let reopen = move || _ = tell_anew.try_send(());
    signals.forward_and_reload(move || told.send(()).is_ok(), reopen).map_err(unusable)?;
    let book = read_book(&dir.join("book.json")).map_err(unusable)?;
    let mut hooks = Hooks::new(common, args, &dir, book).map_err(unusable)?;
    ServiceManager::of_process().ready();
    let _ = writeln!(io::stdout(), "ready");
    hooks.work(&stops, &anew);
    Ok(0)
}

/// See the module.
struct Hooks<'a> {
    args: &'a Run,
    host: Host,
    calls: Calls,
    pace: Pace,
    book: PathBuf,
    /// As it is on disk.
    written: Option<Watch>,
    caller: Caller,
    pulse: Pulse,
    trials: Trials,
    file: Option<File>,
}

impl<'a> Hooks<'a> {
    fn new(common: &Common, args: &'a Run, dir: &Path, book: Book) -> io::Result<Hooks<'a>> {
        let mut host = Host::new(common);
        host.watch = book.watch;
        for name in &args.forget {
            host.watch.forget(name);
        }
        let pulse = Pulse::start(common, args.alive.clone(), args.every, args.timeout, args.expect.clone())?;
        Ok(Hooks {
            args,
            host,
            calls: book.calls,
            pace: Pace { a_minute: args.calls, again: AGAIN.to_vec() },
            book: dir.join("book.json"),
            written: None,
            caller: Caller::start(args.hook.clone(), args.timeout)?,
            pulse,
            trials: Trials::new(dir),
            file: args.events_file.as_deref().map(open).transpose()?,
        })
    }

    /// Until it is told to stop; a call that is being made comes to its end.
    fn work(&mut self, stops: &Receiver<()>, anew: &Receiver<()>) {
        let mut next = Instant::now();
        loop {
            let ended = self.caller.ended.clone();
            select! {
                recv(stops) -> _ => break,
                recv(anew) -> _ => self.open_anew(),
                recv(ended) -> one => if let Ok(one) = one { self.ended(&one) },
                default(next.saturating_duration_since(Instant::now())) => {
                    next = Instant::now() + ASK_EVERY;
                    self.look();
                }
            }
            self.call();
        }
        if self.caller.is_busy
            && let Ok(one) = self.caller.ended.clone().recv_timeout(self.longest())
        {
            self.ended(&one);
        }
    }

    fn look(&mut self) {
        match self.host.ask() {
            Ok(heard) => {
                let told = self.host.hear(heard);
                self.take(told);
            }
            Err(failure) => log::error!("{failure}"),
        }
        if let Some(told) = self.trials.asked(self.host.now()) {
            self.calls.try_out(told);
        }
        let is_failing =
            self.has_hook() && self.calls.is_failing(self.host.now().since_start, self.longest());
        self.pulse.heard(self.host.watch.known(), is_failing);
    }

    fn has_hook(&self) -> bool {
        self.args.hook.as_ref().is_some_and(|hook| !hook.trim().is_empty())
    }

    /// A call that was begun has come to its end, or hangs.
    fn longest(&self) -> Duration {
        self.args.timeout + KILLED_WITHIN + GRACE
    }

    /// Somebody has moved the file of events away, to keep it or to remove it.
    fn open_anew(&mut self) {
        let Some(path) = &self.args.events_file else { return };
        match open(path) {
            Ok(file) => {
                self.file = Some(file);
                log::info!("{} was opened anew", path.display());
            }
            Err(error) => log::error!(
                "{} cannot be opened anew, events go on into the file of before: {error}",
                path.display()
            ),
        }
    }

    fn take(&mut self, told: Vec<Told>) {
        for one in told {
            self.note(&one);
            if self.has_hook() && one.record.event.severity >= self.args.from.into() {
                self.calls.add(one);
            }
        }
        if self.written.as_ref() != Some(&self.host.watch) {
            self.save();
        }
    }

    fn note(&mut self, told: &Told) {
        let Some(file) = &mut self.file else { return };
        let line = serde_json::to_string(&Printed::new(told)).map_err(io::Error::from);
        if let Err(error) = line.and_then(|line| file.write_all((line + "\n").as_bytes())) {
            log::error!("an event was not written to the file of events: {error}");
        }
    }

    fn call(&mut self) {
        let now = self.host.now().since_start;
        // What waits for a hook waits until there is one again.
        let due = match self.has_hook() {
            true => self.calls.due(now, &self.pace),
            false => self.calls.trial_due(now),
        };
        if let Some(call) = due {
            // A sum may stand for what waited.
            self.save();
            self.caller.make(call);
        }
    }

    fn ended(&mut self, made: &Made) {
        self.caller.is_busy = false;
        let now = self.host.now().since_start;
        let came = self.calls.ended(now, made.ended.is_success(), &self.pace);
        self.save();
        let event = &made.call.told.record.event;
        let what = format!("{} ({})", event.code.word(), made.call.told.record.what.word());
        let output = made.ended.output.trim();
        let output = output.char_indices().nth(OUTPUT_LOGGED).map_or(output, |(end, _)| &output[..end]);
        match came {
            Came::Done => log::info!("the hook was called for {what}: {output}"),
            Came::Again(wait) => log::warn!(
                "the hook failed for {what}{}, it is called again in {} s: {output}",
                made.ended.words(),
                wait.as_secs()
            ),
            Came::GivenUp => log::error!(
                "the hook failed for {what}{}, and is not called for it again: {output}",
                made.ended.words()
            ),
        }
        if event.code == Code::Test {
            self.trials.ended(&made.call.told.id, &made.ended);
        }
    }

    fn save(&mut self) {
        let book = Book { watch: self.host.watch.clone(), calls: self.calls.clone() };
        match store::replace_json(&self.book, &book) {
            Ok(()) => self.written = Some(book.watch),
            Err(error) => {
                self.written = None;
                log::error!(
                    "{} cannot be written, after a new start events come again: {error}",
                    self.book.display()
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(open(&path).unwrap_err().raw_os_error(), Some(libc::ENXIO));
        open(&dir.path().join("file")).unwrap();
    }
}
