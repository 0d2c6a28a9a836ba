//! One look at a source, or at the own network: whether somebody is there.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use crossbeam_channel::never;

use super::link::{Link, RETURNS_WITHIN};
use super::machine::Answer;
use super::plan::Asks;
use crate::commands::{Ended, Runner};
use crate::limits::CALLED_SOURCE_ANSWERS;

/// Of what a command says, what stands in the reason.
const OUTPUT_SAID: usize = 200;

/// As it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// What the target daemon of this host hears of the source.
    Link,
    Tcp {
        host: String,
        port: u16,
    },
    /// Run by a shell; 0: it is there.
    Command(String),
}

impl FromStr for Probe {
    type Err = String;

    fn from_str(text: &str) -> Result<Probe, String> {
        match text.split_once(':') {
            None if text == "link" => Ok(Probe::Link),
            Some(("tcp", rest)) => {
                let (host, port) = rest.rsplit_once(':').ok_or("tcp:HOST:PORT has a port")?;
                let port = port.parse().ok().filter(|port| *port != 0);
                let port = port.ok_or_else(|| format!("'{rest}' has no port between 1 and 65535"))?;
                let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                match host.is_empty() {
                    true => Err("tcp:HOST:PORT has a host".into()),
                    false => Ok(Probe::Tcp { host: host.to_owned(), port }),
                }
            }
            Some(("command", command)) if command.trim().is_empty() => Err("the command is empty".into()),
            Some(("command", command)) => Ok(Probe::Command(command.to_owned())),
            Some(("icmp", _)) => Err("icmp is not in this version: a command can do it, as in \
                                      'command:ping -c 1 -W 2 HOST'"
                .into()),
            _ => Err(format!("'{text}' is no probe: link, tcp:HOST:PORT or command:COMMAND")),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Link => f.write_str("link"),
            Probe::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Probe::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            Probe::Command(command) => write!(f, "command:{command}"),
        }
    }
}

impl Probe {
    /// With the time-out of one attempt.
    pub fn asks(&self, timeout: Duration) -> Asks {
        let ms = |time: Duration| time.as_millis() as u64;
        match self {
            Probe::Link => Asks {
                longest_ms: ms(CALLED_SOURCE_ANSWERS) + ms(LOCAL_ANSWER),
                settles_ms: ms(RETURNS_WITHIN),
            },
            Probe::Tcp { .. } | Probe::Command(_) => Asks { longest_ms: ms(timeout), settles_ms: 0 },
        }
    }
}

/// A daemon of this host that runs answers within this time.
const LOCAL_ANSWER: Duration = Duration::from_millis(100);

/// What came of one attempt: with why, where nobody answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub answer: Answer,
    pub why: String,
}

pub(super) fn there() -> Heard {
    Heard { answer: Answer::There, why: String::new() }
}

pub(super) fn silent(why: impl Into<String>) -> Heard {
    Heard { answer: Answer::Silent, why: why.into() }
}

pub(super) fn unknown(why: impl Into<String>) -> Heard {
    Heard { answer: Answer::Unknown, why: why.into() }
}

/// Whoever asks, again and again.
pub struct Asker {
    probe: Probe,
    timeout: Duration,
    set: String,
    link: Link,
    runner: Option<Runner>,
}

impl Asker {
    pub fn new(probe: Probe, timeout: Duration, set: &str, run: &Path) -> Asker {
        Asker { probe, timeout, set: set.to_owned(), link: Link::new(set, run), runner: None }
    }

    /// One attempt; blocks for its time-out at most, but for a local daemon that does not answer.
    pub fn ask(&mut self) -> Heard {
        match self.probe.clone() {
            Probe::Link => self.link.ask(),
            Probe::Tcp { host, port } => ask_tcp(&host, port, self.timeout),
            Probe::Command(command) => self.ask_command(&command),
        }
    }

    fn ask_command(&mut self, command: &str) -> Heard {
        let runner = match self.runner.take().map_or_else(Runner::start, Ok) {
            Ok(runner) => self.runner.insert(runner),
            Err(error) => return unknown(format!("no process to run it: {error}")),
        };
        let own = [("STANDIN_MONITOR_SET", self.set.clone())];
        match runner.run(command, self.timeout, &own, &never()) {
            Ok(Some(ended)) if ended.is_success() => there(),
            // The shell says so of a command that is not there, or is none.
            Ok(Some(Ended { exit_code: Some(code @ (126 | 127)), output, .. })) => {
                unknown(format!("exit code {code}: it cannot be run: {}", last_line(&output)))
            }
            Ok(Some(ended)) => {
                let line = last_line(&ended.output);
                let said = if line.is_empty() { String::new() } else { format!(": {line}") };
                silent(format!("{}{said}", ended.words().trim_start_matches(", ")))
            }
            Ok(None) => unknown("it was interrupted"),
            Err(error) => {
                self.runner = None;
                unknown(error.to_string())
            }
        }
    }
}

/// Each address of a name has its part of the time that is left.
fn ask_tcp(host: &str, port: u16, timeout: Duration) -> Heard {
    let until = Instant::now() + timeout;
    let addresses: Vec<SocketAddr> = match (host, port).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => return unknown(format!("the name {host} is not found: {error}")),
    };
    let mut why = silent("it has no address");
    for (number, address) in addresses.iter().enumerate() {
        let left = until.saturating_duration_since(Instant::now()) / (addresses.len() - number) as u32;
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(address, left) {
            Ok(_) => return there(),
            Err(error) if is_of_this_host(&error) => why = unknown(format!("{address}: {error}")),
            Err(error) => why = silent(format!("{address}: {error}")),
        }
    }
    why
}

/// Nothing was sent.
fn is_of_this_host(error: &io::Error) -> bool {
    let of_here = [
        libc::EACCES,
        libc::EPERM,
        libc::EADDRNOTAVAIL,
        libc::EADDRINUSE,
        libc::EAFNOSUPPORT,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::EINVAL,
    ];
    error.raw_os_error().is_some_and(|errno| of_here.contains(&errno))
}

fn last_line(output: &str) -> String {
    output.trim().lines().last().unwrap_or_default().chars().take(OUTPUT_SAID).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_read_and_shown() {
        for text in
            ["link", "tcp:db.example.org:5432", "tcp:192.0.2.1:22", "tcp:[2001:db8::1]:22", "command:a:b"]
        {
            assert_eq!(text.parse::<Probe>().unwrap().to_string(), text);
        }
        for (text, word) in [
            ("", "no probe"),
            ("links", "no probe"),
            ("tcp:host", "port"),
            ("tcp::22", "host"),
            ("tcp:host:0", "between 1"),
            ("tcp:host:70000", "between 1"),
            ("command: ", "empty"),
            ("icmp:192.0.2.1", "ping -c 1"),
        ] {
            let error = text.parse::<Probe>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_port_is_there_or_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ask = |host: &str| ask_tcp(host, port, Duration::from_secs(2)).answer;
        assert_eq!(ask("127.0.0.1"), Answer::There);
        drop(listener);
        assert_eq!(ask("127.0.0.1"), Answer::Silent);
        assert_eq!(ask("no-such-host.invalid"), Answer::Unknown, "a name that is not found says nothing");
    }
}
