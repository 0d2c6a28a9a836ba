//! Printing. A reader that has gone (`standin status | head -1`) is no error, and ends what would go on for ever; a disk
//! that is full is one.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;

use serde::Serialize;
use serde_json::json;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::failure::Failure;
use crate::packet::printable_lines;

/// Why the first of what was not printed was not.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// Words, in which names may stand that anybody has given.
pub(super) fn text(text: &str) {
    raw(&format!("{}\n", printable_lines(text.trim_end_matches('\n'))));
}

/// As it is.
pub(super) fn raw(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        let _ = FAILED.set(error);
    }
}

/// Whether anybody can still read what is printed: what prints again and again ends where nobody can.
pub(super) fn has_reader() -> bool {
    FAILED.get().is_none() && !is_gone(io::stdout())
}

/// Whether the other side is: of a pipe, or a terminal.
pub(super) fn is_gone(end: impl AsFd) -> bool {
    // The kernel says that without being asked for it.
    let mut watched = [PollFd::from_borrowed_fd(end.as_fd(), PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut watched, Some(&at_once)).is_ok()
        && watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)
}

/// The exit code of a command that has said what it had to say: not that of one that went well, if that did not arrive.
pub(super) fn exit_code(code: u8) -> u8 {
    match FAILED.get() {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe && !is_gone(io::stdout()) => {
            aside(&format!("what there is to say cannot be written: {error}."));
            if code == 0 { super::CANNOT } else { code }
        }
        Some(_) | None => code,
    }
}

/// For whoever watches on standard error, if somebody does: one that is closed or full ends nothing.
pub(super) fn aside(what: &str) {
    aside!("standin: {what}");
}

/// On a terminal, in the place of the line that was said last.
pub(super) fn line_again(what: &str) {
    let mut terminal = io::stderr();
    let _ = write!(terminal, "\r{what}\x1b[K").and_then(|()| terminal.flush());
}

/// Of all JSON documents together; the next one when a field goes away or changes its meaning.
const FORMAT: u32 = 1;

/// A document as it is printed: what its fields mean stands before them.
#[derive(Serialize)]
pub(super) struct Printed<T: Serialize> {
    format: u32,
    #[serde(flatten)]
    document: T,
}

impl<T: Serialize> Printed<T> {
    /// `document`: an object.
    pub(super) fn new(document: T) -> Printed<T> {
        Printed { format: FORMAT, document }
    }
}

/// One JSON document, an object, on one line.
pub(super) fn json(document: &impl Serialize) {
    match serde_json::to_string(&Printed::new(document)) {
        Ok(line) => raw(&format!("{line}\n")),
        Err(error) => aside!("standin: the answer cannot be written as JSON: {error}"),
    }
}

/// On standard error; as JSON on standard output, where a script looks for it.
pub(super) fn failure(failure: &Failure, as_json: bool) {
    if as_json {
        json(&json!({ "error": failure }));
    } else {
        aside!("standin: {}", printable_lines(&failure.to_string()));
    }
}
