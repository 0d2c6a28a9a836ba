//! Keys, as the screen knows them.

use std::io;
use std::thread;

use crossbeam_channel::{Receiver, bounded};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    First,
    Last,
    Enter,
    Back,
    Escape,
    /// Ctrl-C.
    Interrupt,
    Char(char),
}

/// `None`: another event, or a key without a meaning.
pub(super) fn key(event: &Event) -> Option<Key> {
    let Event::Key(pressed) = event else { return None };
    if pressed.kind == KeyEventKind::Release {
        return None;
    }
    let is_control = pressed.modifiers.contains(KeyModifiers::CONTROL);
    Some(match pressed.code {
        KeyCode::Char('c') if is_control => Key::Interrupt,
        KeyCode::Char(_) if is_control || pressed.modifiers.contains(KeyModifiers::ALT) => return None,
        KeyCode::Char(char) => Key::Char(char),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Home => Key::First,
        KeyCode::End => Key::Last,
        KeyCode::Enter => Key::Enter,
        KeyCode::Backspace => Key::Back,
        KeyCode::Esc => Key::Escape,
        _ => return None,
    })
}

/// Events of the terminal as they come, from a thread of their own: whoever waits for one on a terminal that is gone
/// never comes back (crossterm 0.29 reads on at the end of the file), whatever is to be waited for beside it.
///
/// Errors: no thread.
pub(super) fn follow() -> io::Result<Receiver<io::Result<Event>>> {
    let (tell, events) = bounded(16);
    let each = move || {
        loop {
            let event = event::read();
            let is_last = event.is_err();
            if tell.send(event).is_err() || is_last {
                return;
            }
        }
    };
    thread::Builder::new().name("keys".into()).spawn(each)?;
    Ok(events)
}
