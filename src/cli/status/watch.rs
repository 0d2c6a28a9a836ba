//! `standin status --watch`: a screen that is drawn again each second, and goes without a trace; where nobody
//! looks, one line each second.

use std::io::{self, IsTerminal};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{bounded, select};

use super::not_served::Absent;
use super::words::{label, state_word};
use super::{age, show, text};
use crate::cli::args::{self, Common};
use crate::cli::find::find;
use crate::cli::{Outcome, output};
use crate::control::{ConnectionStatus, Status, unix_ms};
use crate::failure::Failure;
use crate::signals::stop_signals;
use crate::sys::terminal_size;
use crate::units;

const EVERY: Duration = Duration::from_secs(1);

/// Another screen, no cursor (xterm's private modes 1049 and 25).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// The cursor to the top left, everything from there on erased (ECMA-48 CUP, ED).
const HOME_AND_CLEAR: &str = "\x1b[H\x1b[J";

/// Until it is interrupted; a daemon that ends or comes back meanwhile is part of the show.
pub(super) fn watch(common: &Common, args: &args::Status) -> Outcome {
    // The first answer has to come: a name that is mistyped is no daemon that may yet start.
    let mut answer = find(common, args.set.as_deref()).map(|found| found.status);
    if let Err(failure) = answer {
        return Err(failure);
    }
    let cannot = |error: io::Error| {
        Failure::new(
            format!("Signals cannot be caught: {error}."),
            "Nothing was changed.",
            "Ask without --watch.",
        )
    };
    let (told, stops) = bounded(1);
    stop_signals().and_then(|signals| signals.forward(move || told.send(()).is_ok())).map_err(cannot)?;
    let is_screen = !common.json && io::stdout().is_terminal();
    let screen = is_screen.then(Screen::enter);
    loop {
        match (&answer, &screen) {
            (Ok(status), None) if common.json => _ = show(common, status, Absent::default()),
            (Err(failure), None) if common.json => output::failure(failure, true),
            (Ok(status), None) => output::text(&line(status)),
            (Err(failure), None) => output::text(&format!("{}  {}", now(), failure.what)),
            (Ok(status), Some(screen)) => screen.draw(&text(status)),
            (Err(failure), Some(screen)) => screen.draw(&failure.to_string()),
        }
        select! {
            recv(stops) -> _ => return Ok(0),
            default(EVERY) => {}
        }
        if !output::has_reader() {
            return Ok(0);
        }
        answer = find(common, args.set.as_deref()).map(|found| found.status);
    }
}

/// Dropped, what was on the terminal before is there again.
struct Screen;

impl Screen {
    fn enter() -> Screen {
        output::raw(ENTER);
        Screen
    }

    /// What does not fit is left out: a screen that scrolls jumps each second.
    fn draw(&self, text: &str) {
        let (rows, columns) = size();
        let fits = |line: &str| line.chars().take(columns).collect::<String>();
        let lines: Vec<String> = text.lines().take(rows).map(fits).collect();
        output::raw(&format!("{HOME_AND_CLEAR}{}", lines.join("\r\n")));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        output::raw(LEAVE);
    }
}

/// Rows and columns.
fn size() -> (usize, usize) {
    terminal_size(io::stdout()).unwrap_or((24, 80))
}

fn now() -> String {
    age::moment(unix_ms(SystemTime::now()))
}

/// Everything that matters of it.
pub(super) fn line(status: &Status) -> String {
    let mut parts =
        vec![age::moment(status.now_unix_ms), status.name.clone(), label(status.severity()).to_owned()];
    if let Some(source) = status.source() {
        parts.push(format!("queue {} packets, {}", source.queue.packets, units::size(source.queue.bytes)));
    }
    parts.extend(status.connections().iter().map(connection_words));
    let worst = status.findings().into_iter().max_by_key(|finding| finding.severity);
    parts.extend(worst.map(|finding| finding.text));
    parts.join("  ")
}

fn connection_words(connection: &ConnectionStatus) -> String {
    let lag = match connection.lag_applied {
        Some(lag) => format!("{:.1} s behind", lag.seconds),
        None => "behind by an unknown time".into(),
    };
    format!("{} {}: {}, {lag}", connection.id, connection.target, state_word(connection.state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::{sample_status, source_of};
    use crate::control::{ConnectionState, Lag};

    #[test]
    fn a_line_has_what_matters() {
        let mut status = sample_status();
        let connection = &mut source_of(&mut status).connections[0];
        connection.lag_applied = Some(Lag { seconds: 1.25, ..Lag::default() });
        let well = line(&status);
        assert!(
            well.contains("  web  ") && well.contains("1 local:/srv/replica: started, 1.2 s behind"),
            "{well}"
        );
        let connection = &mut source_of(&mut status).connections[0];
        (connection.lag_applied, connection.state) = (None, ConnectionState::Error);
        let failed = line(&status);
        assert!(
            failed.contains("error, behind by an unknown time") && failed.contains("failed and is tried"),
            "{failed}"
        );
        assert_eq!(failed.lines().count(), 1);
    }
}
