//! `standin top`: all replication sets and replicas of this host on one screen, second by second.
//!
//! ```text
//!  daemons ──each second, each by a thread──> Host ──Look──> Screen::draw ──> terminal
//!                                              ^               ^
//!                                          Deed│         keys ─┴─> Screen::press
//! ```
//! A daemon that hangs holds neither the others nor the keys up. [`screen`] and [`draw`] are pure.

mod draw;
pub(super) mod host;
mod keys;
pub(super) mod rows;
mod screen;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, bounded, select};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::Event;

use self::host::Host;
use self::screen::{Act, Screen};
use super::args::{self, Common};
use super::{Outcome, output};
use crate::control::{sockets, unix_ms};
use crate::failure::Failure;
use crate::signals::stop_signals;

/// How often it is looked whether there is something to draw, and the terminal at all: what a person does not feel.
const TICK: Duration = Duration::from_millis(100);
/// A screen is not drawn more often: a slow terminal has to keep up.
const DRAWN_EVERY: Duration = Duration::from_millis(250);

/// Until `q`, or until it is told to end; what was on the terminal before is there again then.
pub(super) fn run(common: &Common, args: &args::Top) -> Outcome {
    if common.json {
        let next = "`standin status --watch --json` prints one document each second.";
        return Err(Failure::new("A screen is no JSON.", "Nothing was changed.", next));
    }
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() || is_dumb {
        let what = "`standin top` draws on a terminal, and this is none that it can draw on.";
        let next = "`standin status --watch` prints a line each second.";
        return Err(Failure::new(what, "Nothing was changed.", next));
    }
    let run = common.asked_dir();
    // That is said on the screen that stays; a daemon that hangs holds nothing up.
    if let Err(error) = sockets(&run) {
        let what = format!("The run directory {} cannot be read: {error}.", run.display());
        return Err(Failure::new(what, "Nothing was changed.", "Name another run directory with --run."));
    }
    let (told, stops) = bounded(1);
    stop_signals().and_then(|signals| signals.forward(move || told.send(()).is_ok())).map_err(cannot)?;
    let host = Host::start(common).map_err(cannot)?;
    let screen = Screen::new(args.ascii || !speaks_unicode(), args.no_color || has_no_color());
    // From here on a panic, too, gives the terminal back.
    let mut terminal = ratatui::try_init().map_err(cannot)?;
    let events = keys::follow();
    let shown = events.and_then(|events| show(&mut terminal, &host, screen, &Told { stops, events }));
    let given_back = terminal.show_cursor().and(ratatui::try_restore());
    // Where the terminal is gone, what it does when it is dropped is no more than to say so, and to die of that.
    std::mem::forget(terminal);
    // There is nobody to whom more could be said.
    if is_terminal_gone() {
        return Ok(0);
    }
    shown.and(given_back).map_err(cannot)?;
    Ok(0)
}

/// What ends a screen, and what changes it.
struct Told {
    stops: Receiver<()>,
    events: Receiver<io::Result<Event>>,
}

fn show(terminal: &mut DefaultTerminal, host: &Host, mut screen: Screen, told: &Told) -> io::Result<()> {
    let mut drawn: Option<(Instant, u64)> = None;
    let mut is_stale = true;
    loop {
        let version = host.version();
        let is_due = match drawn {
            None => true,
            Some((at, of)) => is_stale || (at.elapsed() >= DRAWN_EVERY && of != version),
        };
        if is_due {
            let look = host.look(unix_ms(SystemTime::now()));
            terminal.draw(|frame| draw::draw(frame, &look, &mut screen))?;
            drawn = Some((Instant::now(), version));
            is_stale = false;
        }
        if is_terminal_gone() {
            return Ok(());
        }
        let event = select! {
            recv(told.stops) -> _ => return Ok(()),
            recv(told.events) -> event => match event {
                Ok(event) => event?,
                Err(_) => return Ok(()),
            },
            default(TICK) => continue,
        };
        is_stale = true;
        let Some(key) = keys::key(&event) else { continue };
        let rows = host.look(unix_ms(SystemTime::now())).rows();
        match screen.press(&rows, key) {
            Act::Nothing => {}
            Act::Quit => return Ok(()),
            Act::Do(deed) => host.perform(deed),
        }
    }
}

/// Of the two ends that it may have: it draws on one and is told by the other.
fn is_terminal_gone() -> bool {
    !output::has_reader() || output::is_gone(io::stdin())
}

fn cannot(error: io::Error) -> Failure {
    let what = format!("The terminal cannot be used: {error}.");
    Failure::new(what, "Nothing was changed.", "`standin status --watch` prints a line each second.")
}

/// As the C library finds the language of a terminal (locale(7)): the first of these that is set.
fn speaks_unicode() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let language = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let language = language.to_ascii_lowercase();
    language.contains("utf-8") || language.contains("utf8")
}

/// <https://no-color.org>: set and not empty.
fn has_no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
