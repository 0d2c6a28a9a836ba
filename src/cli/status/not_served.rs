//! Sets of this host that no daemon serves: beside a status, or instead of one.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use super::words::{age, data_word, label, state_word};
use crate::cli::args::Common;
use crate::cli::{find, output};
use crate::control::{Answer, ConnectionState, Daemon, Finding, Severity, unix_ms};
use crate::events::Seen;
use crate::failure::Failure;
use crate::source_side::{LastEnded, LastSeen, NotServed, not_served, waits};

/// What is known of them.
#[derive(Clone, Debug, Default, Serialize)]
pub(in crate::cli) struct Absent {
    /// Sets that were served, and are not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_served: Vec<NotServed>,
    /// Why it is not known which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_served_unknown: Option<String>,
}

/// Where there is no status.
#[derive(Serialize)]
struct Document {
    severity: Severity,
    exit_code: u8,
    findings: Vec<Finding>,
    #[serde(flatten)]
    absent: Absent,
}

impl Absent {
    pub(in crate::cli) fn look(common: &Common) -> Absent {
        let state = common.asked_state_dir();
        Absent::of(&state, not_served(&state, &common.asked_dir()))
    }

    fn of(state: &Path, found: io::Result<Vec<NotServed>>) -> Absent {
        match found {
            Ok(not_served) => Absent { not_served, not_served_unknown: None },
            Err(error) => {
                let why = format!("what is known of sets in {} cannot be read: {error}", state.display());
                Absent { not_served: Vec::new(), not_served_unknown: Some(why) }
            }
        }
    }

    /// Beside the status of a daemon: who has named one asks for no other.
    pub(super) fn beside(self, set: Option<&Path>) -> Absent {
        if set.is_some() { Absent::default() } else { self }
    }

    /// Instead of a status, where no daemon runs that could have been meant.
    pub(super) fn instead(&self, common: &Common, set: Option<&Path>) -> Option<Absent> {
        let run = common.asked_dir();
        let daemons = find::all(&run).ok()?;
        let is_shown = |name: &str| self.not_served.iter().any(|one| one.name == name);
        let is_over = |daemon: &Daemon| {
            matches!(daemon.answer, Answer::Dead)
                && is_shown(&daemon.name)
                // Programs wait in its mount: that is said otherwise.
                && waits(&run, &daemon.name).is_none()
        };
        let meant: Vec<NotServed> =
            self.not_served.iter().filter(|one| is_meant(one, set)).cloned().collect();
        let others_are_over = match set {
            None => daemons.iter().all(is_over),
            Some(_) => {
                daemons.iter().filter(|daemon| meant.iter().any(|one| one.name == daemon.name)).all(is_over)
            }
        };
        (!meant.is_empty() && others_are_over)
            .then_some(Absent { not_served: meant, not_served_unknown: None })
    }

    /// A failure with these sets beside it.
    pub(super) fn told(&self, failure: Failure) -> Failure {
        let words: String = self.not_served.iter().map(|one| format!(" {}", one.seen().text)).collect();
        Failure { what: format!("{}{words}", failure.what), ..failure }
    }

    /// As people read it.
    pub(super) fn lines(&self, now: u64) -> String {
        let mut text = String::new();
        for one in &self.not_served {
            let _ = lines(one, now, &mut text);
        }
        if let Some(why) = &self.not_served_unknown {
            let _ =
                writeln!(text, "\n{}: whether every set is served is not known: {why}", label(Severity::Ok));
        }
        text
    }
}

/// By name, or by a path in its directory; nothing is looked at there.
fn is_meant(one: &NotServed, set: Option<&Path>) -> bool {
    let Some(set) = set else { return true };
    let path = std::path::absolute(set).unwrap_or_else(|_| set.to_owned());
    Path::new(&one.name) == set || path.starts_with(&one.directory)
}

/// Gives the worst of them.
pub(super) fn show(common: &Common, absent: Absent) -> Severity {
    let severity = absent.not_served.iter().map(NotServed::severity).max().unwrap_or(Severity::Ok);
    match common.json {
        true => {
            let findings = absent.not_served.iter().map(|one| finding(one.seen())).collect();
            output::json(&Document { severity, exit_code: severity.exit_code(), findings, absent });
        }
        false => output::text(absent.lines(unix_ms(SystemTime::now())).trim_start()),
    }
    severity
}

pub(in crate::cli) fn finding(seen: Seen) -> Finding {
    let Seen { severity, code, text, about } = seen;
    Finding { severity, code, text, about }
}

/// How it ended, and when.
pub(in crate::cli) fn ended_words(one: &NotServed, now: u64) -> String {
    let ago = age(one.since_unix_ms, now);
    match one.ended {
        LastEnded::Stopped => format!("stopped {ago} ago"),
        LastEnded::Unmounted => format!("unmounted {ago} ago"),
        LastEnded::Killed => format!("was killed; seen {ago} ago"),
    }
}

fn lines(one: &NotServed, now: u64, text: &mut String) -> std::fmt::Result {
    writeln!(text, "\nset {}  {}", one.name, one.directory.display())?;
    let ended = match one.ended {
        LastEnded::Killed => {
            format!("its daemon was killed, or crashed; it was there {} ago", age(one.since_unix_ms, now))
        }
        LastEnded::Stopped | LastEnded::Unmounted => ended_words(one, now),
    };
    writeln!(text, "  not served  {ended}")?;
    for connection in &one.connections {
        writeln!(text, "  was         {}", connection_words(connection))?;
    }
    for left in &one.left {
        writeln!(text, "  left        {left}")?;
    }
    writeln!(text, "  next        {}", one.next)?;
    writeln!(text, "{}: {}", label(one.severity()), one.seen().text)
}

fn connection_words(connection: &LastSeen) -> String {
    let LastSeen { target, state, data, reason } = connection;
    let reason = match (state, reason.as_str()) {
        (ConnectionState::Started, _) | (_, "") => String::new(),
        (_, reason) => format!(" ({reason})"),
    };
    format!("{target}: {}{reason}, replica {}", state_word(*state), data_word(*data))
}

#[cfg(test)]
pub(in crate::cli) mod tests {
    use super::*;
    use crate::packet::DataState;

    pub(in crate::cli) fn sample(ended: LastEnded) -> NotServed {
        let connection = LastSeen {
            target: "local:/r".into(),
            state: ConnectionState::Paused,
            data: DataState::Good,
            reason: "by hand".into(),
        };
        NotServed {
            name: "web".into(),
            directory: "/srv/web".into(),
            ended,
            since_unix_ms: 1_000,
            left: vec!["local:/r: 3 changes did not get there".into()],
            connections: vec![connection],
            next: "systemctl start standin@srv-web.service".into(),
        }
    }

    fn absent(ended: LastEnded) -> Absent {
        Absent { not_served: vec![sample(ended)], not_served_unknown: None }
    }

    #[test]
    fn people_read_how_it_ended_how_it_was_and_what_to_do() {
        let said = absent(LastEnded::Stopped).lines(121_000);
        for part in [
            "set web  /srv/web",
            "stopped 2 min",
            "local:/r: paused (by hand), replica good",
            "left        local:/r: 3 changes",
            "next        systemctl start standin@srv-web.service",
            "WARNING: /srv/web is not protected: nobody serves the set 'web'; it was stopped in order.",
        ] {
            assert!(said.contains(part), "no '{part}' in\n{said}");
        }
        let said = absent(LastEnded::Killed).lines(121_000);
        assert!(said.contains("CRITICAL: ") && said.contains("was killed, or crashed"), "{said}");
    }

    #[test]
    fn a_set_is_meant_by_its_name_and_by_what_is_in_its_directory() {
        let one = sample(LastEnded::Stopped);
        let check = |typed: &str, meant| assert_eq!(is_meant(&one, Some(Path::new(typed))), meant, "{typed}");
        assert!(is_meant(&one, None));
        check("web", true);
        check("/srv/web", true);
        check("/srv/web/below/it", true);
        check("/srv/webs", false);
        check("other", false);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let absent = Absent::of(Path::new("/s"), Err(io::ErrorKind::PermissionDenied.into()));
        assert!(absent.lines(0).contains("whether every set is served is not known"), "{}", absent.lines(0));
        assert!(absent.clone().beside(Some(Path::new("web"))).lines(0).is_empty());
        assert!(!absent.beside(None).lines(0).is_empty());
    }
}
