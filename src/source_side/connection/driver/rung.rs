//! By which rung of the ladder a target is brought into line, and why by none that is less: as it was foreseen
//! ([`super::foreseen`]), and decided when it began.

use super::super::surroundings::{FirstOwed, OwedOrder, Surroundings};
use super::owed::Everything;
use super::{Driver, Foreseen};
use crate::control::{Bounds, ResyncStatus, Rung};
use crate::packet::Sequence;

impl<S: Surroundings> Driver<S> {
    /// Of a copy that begins now, by what was decided.
    pub(super) fn taken(&self, owed: &Result<OwedOrder, Everything>, is_empty: bool) -> ResyncStatus {
        let why = match owed {
            _ if is_empty => NOTHING_YET.to_owned(),
            Ok(_) => self.machine.reason().to_owned(),
            Err(everything) => not_by_the_map(self.machine.reason(), *everything),
        };
        let rung = if owed.is_ok() { Rung::Owed } else { self.rung_of_everything(is_empty) };
        let searched = matches!(owed, Ok(OwedOrder { first: FirstOwed::ByTime { .. }, .. }));
        let since = self.lacks.base().filter(|_| owed.is_ok());
        ResyncStatus { since, searched, running: true, ..of(rung, why) }
    }

    /// Of a part, which a person or a comparison wants.
    pub(super) fn part_taken(&self, rung: Rung) -> ResyncStatus {
        ResyncStatus { running: true, ..of(rung, "a mirror of a part was asked for".into()) }
    }

    /// Packets go from the one after this on, and nothing else is needed.
    pub(super) fn shows_resumed(&self, after: Sequence) {
        let Foreseen { rung, why, since, .. } =
            if self.left.is_some() { self.by_left() } else { self.by_queue(after) };
        let behind = self.queue.behind(after);
        let exactly = |amount: Option<u64>| amount.map_or(Bounds::UNKNOWN, Bounds::exactly);
        let packets = exactly(behind.map(|behind| behind.packets));
        let bytes = exactly(behind.map(|behind| behind.bytes));
        let none = Bounds::exactly(0);
        let resumed =
            ResyncStatus { since, packets, objects: none, bytes, ..of(rung.unwrap_or(Rung::Nothing), why) };
        self.update(|report| report.resync = Some(resumed));
    }
}

/// Nothing is known of how much it is.
fn of(rung: Rung, why: String) -> ResyncStatus {
    let (since, searched, running) = (None, false, false);
    let (packets, objects, bytes) = (Bounds::exactly(0), Bounds::UNKNOWN, Bounds::UNKNOWN);
    ResyncStatus { rung, why, running, since, searched, packets, objects, bytes }
}

/// The copy that a target is brought into line by.
pub(super) fn copy_words(rung: Rung, searches: bool) -> &'static str {
    match rung {
        Rung::Owed if searches => "a minicopy of what has changed, by change times",
        Rung::Owed => "a minicopy of what has changed",
        Rung::Differences => "a copy by differences",
        Rung::Checksum => "a copy by checksums",
        Rung::Full => "a copy of everything",
        // Neither is a copy.
        Rung::Nothing | Rung::Queue => "what is queued",
    }
}

/// Nothing was ever there.
pub(super) const NOTHING_YET: &str = "nothing was copied there yet";

/// Why a copy is due, and why it is one of everything.
pub(super) fn not_by_the_map(why: &str, everything: Everything) -> String {
    format!("{why}; not by the map: {}", everything.why())
}
