//! The applier's half of a restoration: one session of a target, whose source is a replica.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;
use serde::Serialize;

use super::RestoreOptions;
use super::origin::Origin;
use crate::apply::{Applier, DurablePoint, Run};
use crate::failure::Failure;
use crate::link::{Received, TargetEvent};
use crate::packet::{Frame, FrameHeader, ItemHeader, LaneItem, LeftOut, OfCopy, TargetMessage};
use crate::target_side::{SourceSession, Surroundings, Synced, View};

/// How long a frame is waited for before something else is looked at.
const PATIENCE: Duration = Duration::from_millis(100);

/// How far a restoration is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Listed completely.
    pub directories: u64,
    /// Names of everything else.
    pub files: u64,
    /// Size of the listed files; one with several names counts once.
    pub bytes: u64,
    /// Files whose content came.
    pub files_copied: u64,
    pub bytes_copied: u64,
}

/// All of it is there, durably.
pub struct Applied {
    pub tally: Tally,
    pub orphans: u64,
    pub left_out: LeftOut,
}

/// Why it is not.
pub enum Stopped {
    BySignal,
    Lost(String),
}

/// Until the end that the replica's side sends.
pub fn apply(
    origin: &mut Origin,
    applier: &mut Applier,
    stop: &AtomicBool,
    tell: impl Fn(&Tally, Duration),
) -> Result<Applied, Stopped> {
    let began = Instant::now();
    let view = Arc::new(Mutex::new(View::of(applier)));
    let ended = RefCell::new(None);
    let frames = origin.frames();
    let around = Around { origin, stop, ended: &ended, said: Cell::new(0) };
    let mut session = SourceSession::welcome(around, &view, applier);
    let (mut tally, mut told) = (Tally::default(), Instant::now());
    let reason = loop {
        let (run, received) = match frames.at_hand() {
            Some(frame) => (Run::GoesOn, Received::Frame(frame)),
            None => (Run::Begins, frames.recv(PATIENCE)),
        };
        if let Received::Frame(frame) = &received {
            tally.count(frame);
        }
        if let Err(reason) = session.turn_in(run, received) {
            break reason;
        }
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            tell(&tally, began.elapsed());
        }
    };
    session.finish();
    match ended.into_inner() {
        Some(End { orphans, left_out }) => Ok(Applied { tally, orphans, left_out }),
        None if stop.load(Relaxed) => Err(Stopped::BySignal),
        None => Err(Stopped::Lost(reason)),
    }
}

impl Tally {
    fn count(&mut self, Frame { header, payload, .. }: &Frame) {
        let FrameHeader::Item(ItemHeader { item, .. }) = header else { return };
        match item {
            LaneItem::Listing { entries, last, .. } => {
                self.directories += u64::from(*last);
                for entry in entries.iter().filter(|entry| entry.birth != crate::packet::Birth::Directory) {
                    self.files += 1;
                    let share = entry.size / u64::from(entry.links.max(1));
                    self.bytes = self.bytes.saturating_add(share);
                }
            }
            LaneItem::Content { .. } => self.bytes_copied += payload.len() as u64,
            LaneItem::CloseContent { .. } => self.files_copied += 1,
            _ => {}
        }
    }
}

impl Stopped {
    pub fn failure(self, options: &RestoreOptions) -> Failure {
        let what = match self {
            Stopped::BySignal => "The restoration was stopped by a signal".into(),
            Stopped::Lost(reason) => format!("The restoration was cut off: {reason}"),
        };
        Failure::new(
            format!("{what}."),
            format!("{} is not whole, and is marked so.", options.to.display()),
            "Give the same command again: it goes on, and what is whole is not sent again.",
        )
        .passing()
    }
}

/// What the replica's side is told at the end.
struct End {
    orphans: u64,
    left_out: LeftOut,
}

/// The session's surroundings.
struct Around<'a> {
    origin: &'a Origin,
    stop: &'a AtomicBool,
    ended: &'a RefCell<Option<End>>,
    /// Faults that people were told of.
    said: Cell<u32>,
}

impl Around<'_> {
    /// Nobody else shows that nothing goes on.
    fn say_retrying(&self, op: &str, reason: &str) {
        self.said.set(self.said.get() + 1);
        if self.said.get().is_power_of_two() {
            aside!("standin: {op} cannot be performed, it is tried again: {reason}");
        }
    }
}

impl Surroundings for Around<'_> {
    fn send(&self, message: TargetMessage) {
        match message {
            TargetMessage::Wanted { listing, objects } => {
                self.origin.say(OfCopy::Wanted { listing, objects })
            }
            TargetMessage::Doubt { directories } => self.origin.say(OfCopy::Doubt { directories }),
            TargetMessage::Resynchronised { end, orphans, left_out } => {
                *self.ended.borrow_mut() = Some(End { orphans, left_out });
                self.origin.say(OfCopy::Complete { end });
            }
            TargetMessage::Retrying { op, reason, .. } => self.say_retrying(&op.to_text(), &reason.to_text()),
            // Of packets, of which none comes, or of what the end says once more.
            _ => {}
        }
    }

    fn next_event(&self) -> Option<TargetEvent> {
        self.origin.next_event()
    }

    fn has_to_end(&self) -> Option<String> {
        if self.ended.borrow().is_some() {
            return Some("everything is there".into());
        }
        self.stop.load(Relaxed).then(|| "a signal".into())
    }

    fn sleep(&self, how_long: Duration) {
        std::thread::sleep(how_long);
    }

    fn sync(&self, point: DurablePoint) -> io::Result<Receiver<Synced>> {
        let (sender, outcome) = bounded(1);
        let synced = point.sync();
        let _ = sender.send((point, synced));
        Ok(outcome)
    }
}
