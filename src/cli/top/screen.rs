//! What is shown, what is chosen, what is asked, and what a key does. Pure.

use super::keys::Key;
use super::rows::Row;
use crate::control::{ConnectionChange, ConnectionState, ConnectionStatus};
use crate::words::{LimitPlan, Order};

/// Longest text that is typed, characters.
const TYPED_MAX: usize = 200;

/// See the module.
pub(super) struct Screen {
    /// The id of the row; `None`: the first.
    chosen: Option<String>,
    pub mode: Mode,
    /// Curves of a day, not of a quarter of an hour.
    pub by_minutes: bool,
    /// Drawn with plain letters.
    pub ascii: bool,
    pub no_color: bool,
    /// Why a key did nothing.
    pub hint: Option<String>,
    /// The first row that is seen.
    pub first: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mode {
    Look,
    Help,
    /// Yes, or anything else.
    Ask(Deed),
    /// A limit, of which connection.
    Type {
        text: String,
        of: Meant,
        wrong: Option<String>,
    },
}

/// One connection.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Meant {
    pub daemon: String,
    pub uuid: String,
    /// For people.
    pub label: String,
}

/// What a person wants done.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Deed {
    pub daemon: String,
    pub uuid: String,
    pub change: ConnectionChange,
    /// The question.
    pub question: String,
}

#[derive(Debug, PartialEq)]
pub(super) enum Act {
    Nothing,
    Quit,
    Do(Deed),
}

impl Screen {
    pub(super) fn new(ascii: bool, no_color: bool) -> Screen {
        Screen { chosen: None, mode: Mode::Look, by_minutes: false, ascii, no_color, hint: None, first: 0 }
    }

    /// Where the chosen row is: the first one where it has gone.
    pub(super) fn at(&self, rows: &[Row]) -> usize {
        let chosen = self.chosen.as_deref();
        rows.iter().position(|row| Some(row.id.as_str()) == chosen).unwrap_or(0)
    }

    /// Makes the chosen row one of the `height` that are seen.
    pub(super) fn scroll(&mut self, rows: &[Row], height: usize) {
        let at = self.at(rows);
        self.first = self.first.clamp((at + 1).saturating_sub(height), at);
        self.first = self.first.min(rows.len().saturating_sub(height));
    }

    pub(super) fn press(&mut self, rows: &[Row], key: Key) -> Act {
        self.hint = None;
        if key == Key::Interrupt {
            return Act::Quit;
        }
        match std::mem::replace(&mut self.mode, Mode::Look) {
            Mode::Help => Act::Nothing,
            Mode::Ask(deed) => match key {
                Key::Char('y' | 'Y') => Act::Do(deed),
                _ => {
                    self.hint = Some("Nothing was changed.".into());
                    Act::Nothing
                }
            },
            Mode::Type { text, of, .. } => {
                self.typed(text, of, key);
                Act::Nothing
            }
            Mode::Look => self.looked(rows, key),
        }
    }

    fn looked(&mut self, rows: &[Row], key: Key) -> Act {
        let at = self.at(rows);
        match key {
            Key::Char('q') => return Act::Quit,
            Key::Up | Key::Char('k') => self.choose(rows, at.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.choose(rows, at + 1),
            Key::First | Key::Char('g') => self.choose(rows, 0),
            Key::Last | Key::Char('G') => self.choose(rows, usize::MAX),
            Key::Char('d') => self.by_minutes = !self.by_minutes,
            Key::Char('?' | 'h') => self.mode = Mode::Help,
            Key::Char(char @ ('p' | 'r' | 't' | 'l')) => self.ask(rows.get(at), char),
            Key::Char(_) | Key::Enter | Key::Back | Key::Escape | Key::Interrupt => {}
        }
        Act::Nothing
    }

    fn choose(&mut self, rows: &[Row], at: usize) {
        self.chosen = rows.get(at.min(rows.len().saturating_sub(1))).map(|row| row.id.clone());
    }

    /// Once, before anything is done.
    fn ask(&mut self, row: Option<&Row>, key: char) {
        let Some((row, one)) = row.and_then(|row| Some((row, row.connection()?))) else {
            self.hint = Some("Choose a connection first: only those can be changed here.".into());
            return;
        };
        let label = format!("connection {} of {} ({})", one.id, row.daemon, one.target);
        if key == 'l' {
            let of = Meant { daemon: row.daemon.clone(), uuid: one.uuid.clone(), label };
            self.mode = Mode::Type { text: String::new(), of, wrong: None };
            return;
        }
        match wanted(key, one) {
            Ok((change, question)) => {
                let question = format!("{question} {label}?");
                let (daemon, uuid) = (row.daemon.clone(), one.uuid.clone());
                self.mode = Mode::Ask(Deed { daemon, uuid, change, question });
            }
            Err(why) => self.hint = Some(format!("{label} {why}.")),
        }
    }

    fn typed(&mut self, mut text: String, of: Meant, key: Key) {
        let mut wrong = None;
        match key {
            Key::Escape => {
                self.hint = Some("Nothing was changed.".into());
                return;
            }
            Key::Enter => match limit(text.trim()) {
                Ok(order) => {
                    let question = format!("Set the limit of {} to {}?", of.label, text.trim());
                    let change = ConnectionChange::Limit { order };
                    self.mode = Mode::Ask(Deed { daemon: of.daemon, uuid: of.uuid, change, question });
                    return;
                }
                Err(why) => wrong = Some(why),
            },
            Key::Back => {
                text.pop();
            }
            Key::Char(char) if text.chars().count() < TYPED_MAX => text.push(char),
            Key::Char(_) | Key::Up | Key::Down | Key::First | Key::Last | Key::Interrupt => {}
        }
        self.mode = Mode::Type { text, of, wrong };
    }
}

/// As `standin connection limit` understands it.
fn limit(text: &str) -> Result<Order<LimitPlan>, String> {
    match text {
        "" => Err("a rate (1M, 8Mbit), none, rules, clear, on or off".into()),
        "clear" => Ok(Order::Clear),
        "on" => Ok(Order::On),
        "off" => Ok(Order::Off),
        plan => plan.parse().map(Order::Set),
    }
}

/// What a key means for a connection as it is. Errors: why it means nothing.
fn wanted(key: char, one: &ConnectionStatus) -> Result<(ConnectionChange, &'static str), &'static str> {
    use ConnectionState::{Error, Paused, Scheduled, ScheduledAfterError, Started, Stopped};
    match (key, one.state) {
        ('p', Started) => Ok((ConnectionChange::Pause, "Pause")),
        ('p', Paused) => Err("is paused already"),
        ('p', Stopped | Scheduled | ScheduledAfterError | Error) => Err("is not started: it sends nothing"),
        ('r', Paused) => Ok((ConnectionChange::Resume, "Resume")),
        ('r', Stopped) => Ok((ConnectionChange::Start, "Start")),
        ('r', Started) => Err("is started already"),
        ('r', Scheduled | ScheduledAfterError) => {
            Err("waits for its schedule; see `standin connection schedule`")
        }
        ('r', Error) => Err("is tried again by itself; t tries it now"),
        ('t', Error) => Ok((ConnectionChange::Start, "Try now:")),
        ('t', Started | Paused | Scheduled | ScheduledAfterError | Stopped) => Err("has not failed"),
        _ => Err("knows no such key"),
    }
}
