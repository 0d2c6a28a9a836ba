//! Events in systemd's journal, with fields: its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! It never waits and never fails: who does not listen is not told.

use std::env;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::{Record, Severity, What};

const SOCKET: &str = "/run/systemd/journal/socket";

/// Of all events of standin; the code tells them apart. Drawn at random.
const MESSAGE_ID: &str = "b33984b27b5d4035b08d9212b62098f5";

/// See the module.
pub struct Journal {
    socket: UnixDatagram,
    to: PathBuf,
}

impl Journal {
    /// Where this process's output goes to the journal.
    pub fn of_process() -> Option<Journal> {
        env::var_os("JOURNAL_STREAM")?;
        Journal::at(Path::new(SOCKET)).ok()
    }

    /// Errors: there are no sockets.
    pub fn at(to: &Path) -> io::Result<Journal> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Journal { socket, to: to.to_owned() })
    }

    /// `daemon`: its name.
    pub fn tell(&self, daemon: &str, record: &Record) {
        if let Err(error) = self.socket.send_to(&datagram(daemon, record), &self.to) {
            log::debug!("the journal was not told of {}: {error}", record.event.code.word());
        }
    }
}

/// One entry. Texts are of one line: none needs the form with a length.
pub(super) fn datagram(daemon: &str, record: &Record) -> Vec<u8> {
    let event = &record.event;
    // As syslog(3) counts them. What is over is no alarm.
    let priority = match (record.what, event.severity) {
        (What::End, _) | (_, Severity::Ok) => "6",
        (_, Severity::Warning) => "4",
        (_, Severity::Critical) => "2",
    };
    let ended = if record.what == What::End { "Over: " } else { "" };
    let message = format!("{ended}{}", event.text);
    let mut fields = vec![
        ("MESSAGE", message.as_str()),
        ("MESSAGE_ID", MESSAGE_ID),
        ("PRIORITY", priority),
        ("SYSLOG_IDENTIFIER", "standin"),
        ("STANDIN_DAEMON", daemon),
        ("STANDIN_EVENT", record.what.word()),
        ("STANDIN_CODE", event.code.word()),
        ("STANDIN_SEVERITY", event.severity.word()),
    ];
    let about = &event.about;
    let optional = [
        ("STANDIN_SET", &about.set),
        ("STANDIN_CONNECTION", &about.connection),
        ("STANDIN_TARGET", &about.target),
    ];
    fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))));
    fields
        .into_iter()
        .flat_map(|(name, value)| format!("{name}={}\n", super::one_line(value)).into_bytes())
        .collect()
}
