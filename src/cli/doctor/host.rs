//! What concerns this host as a whole: its clock, the room of the product's own places, its configuration, its drills.

use std::io;
use std::path::Path;

use super::{Level, Report};
use crate::cli::args::Common;
use crate::cli::{config, drill};
use crate::events::Severity;
use crate::limits::{STATE_BYTES_FEW, STATE_BYTES_MIN, STATE_INODES_MIN};
use crate::preflight::existing_ancestor;
use crate::sys::{KeptClock, kept_clock};
use crate::units;

/// Free for this user on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub bytes: u64,
    /// `None`: it does not count them.
    pub inodes: Option<u64>,
}

impl Report {
    pub(super) fn host(&mut self, common: &Common) {
        self.clock_is(kept_clock());
        let state = common.state_dir();
        self.room_is(&state, room(&existing_ancestor(&state)));
        self.configuration(common);
        for drill in drill::expected(common) {
            let level = match drill.seen().map(|seen| seen.severity) {
                None => Level::Ok,
                Some(Severity::Critical) => Level::Fail,
                Some(_) => Level::Warn,
            };
            self.add(level, "drill", format!("{} of {}: {}.", drill.file, drill.last.set, drill.words()));
        }
    }

    pub(super) fn clock_is(&mut self, clock: io::Result<KeptClock>) {
        match clock {
            Ok(KeptClock { is_kept: true, off_at_most }) => {
                let off = off_at_most.max(0) as f64 / 1000.0;
                self.add(Level::Ok, "time", format!("kept by a time server, at most {off:.1} ms off"));
            }
            Ok(KeptClock { is_kept: false, .. }) => self.add(
                Level::Note,
                "time",
                "The kernel knows of no time server that keeps this clock. After a crash it decides what may have changed, \
                 and a reader of two hosts' events compares their clocks: run chrony or another one, unless the host \
                 below does it.",
            ),
            Err(error) => self.add(Level::Note, "time", format!("the clock cannot be asked: {error}")),
        }
    }

    /// Of the state directory: records, positions and the queue on disk are there.
    pub(super) fn room_is(&mut self, state: &Path, room: io::Result<Room>) {
        let shown = state.display();
        let room = match room {
            Ok(room) => room,
            Err(error) => return self.add(Level::Fail, "room", format!("{shown}: {error}.")),
        };
        let free = units::size(room.bytes);
        if let Some(inodes) = room.inodes.filter(|inodes| *inodes < STATE_INODES_MIN) {
            let inodes = units::count(inodes);
            let text = format!(
                "{shown} has {inodes} inodes left: files of sets and queues soon cannot be made there."
            );
            self.add(Level::Fail, "room", text);
        }
        let (level, text) = match room.bytes {
            0..STATE_BYTES_MIN => (
                Level::Fail,
                format!(
                    "{shown} has {free} free: no queue lies on that disk, and soon nothing can be noted there."
                ),
            ),
            STATE_BYTES_MIN..STATE_BYTES_FEW => (
                Level::Warn,
                format!(
                    "{shown} has {free} free: a queue on that disk holds a short outage. See --queue-dir."
                ),
            ),
            STATE_BYTES_FEW.. => (Level::Ok, format!("{shown}: {free} free")),
        };
        self.add(level, "room", text);
    }

    fn configuration(&mut self, common: &Common) {
        match config::faults(common) {
            Ok((0, _)) => {}
            Ok((1, faults)) if faults.is_empty() => self.add(Level::Ok, "files", "1 file of options, good"),
            Ok((files, faults)) if faults.is_empty() => {
                self.add(Level::Ok, "files", format!("{files} files of options, all good"));
            }
            Ok((_, faults)) => faults.into_iter().for_each(|fault| self.add(Level::Fail, "files", fault)),
            Err(failure) => self.refuse("files", &failure),
        }
    }
}

fn room(dir: &Path) -> io::Result<Room> {
    let found = rustix::fs::statvfs(dir)?;
    let inodes = (found.f_files > 0).then_some(found.f_favail);
    Ok(Room { bytes: found.f_bavail.saturating_mul(found.f_frsize), inodes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(report: &Report) -> Vec<(Level, &'static str)> {
        report.lines.iter().map(|line| (line.level, line.topic)).collect()
    }

    #[test]
    fn a_clock_that_nobody_keeps_is_named() {
        let found = [
            (Ok(KeptClock { is_kept: true, off_at_most: 1500 }), Level::Ok, "at most 1.5 ms off"),
            (Ok(KeptClock { is_kept: false, off_at_most: 16_000_000 }), Level::Note, "no time server"),
            (Err(io::Error::from_raw_os_error(libc::EPERM)), Level::Note, "cannot be asked"),
        ];
        for (clock, level, part) in found {
            let mut report = Report::default();
            report.clock_is(clock);
            assert_eq!(levels(&report), [(level, "time")]);
            assert!(report.lines[0].text.contains(part), "{}", report.lines[0].text);
        }
        assert!(kept_clock().is_ok(), "this host has none");
    }

    #[test]
    fn a_state_directory_without_room_is_named() {
        let (few, min, inodes) = (STATE_BYTES_FEW, STATE_BYTES_MIN, STATE_INODES_MIN);
        let found: [(u64, Option<u64>, &[Level]); 6] = [
            (few, Some(inodes), &[Level::Ok]),
            (few, None, &[Level::Ok]),
            (few - 1, Some(inodes), &[Level::Warn]),
            (min, None, &[Level::Warn]),
            (min - 1, None, &[Level::Fail]),
            (few, Some(inodes - 1), &[Level::Fail, Level::Ok]),
        ];
        for (bytes, inodes, expected) in found {
            let mut report = Report::default();
            report.room_is(Path::new("/var/lib/standin"), Ok(Room { bytes, inodes }));
            let levels: Vec<Level> = report.lines.iter().map(|line| line.level).collect();
            assert_eq!(levels, expected, "{bytes} bytes, {inodes:?} inodes");
        }
        let found = room(Path::new("/")).unwrap();
        assert!(found.bytes > 0 || found.inodes.is_some());
    }

    #[test]
    fn a_file_of_options_that_is_wrong_is_named() {
        let state = tempfile::tempdir().unwrap();
        let common = Common { json: false, run: None, state: Some(state.path().to_owned()) };
        let lines = || {
            let mut report = Report::default();
            report.configuration(&common);
            report.lines
        };
        assert!(lines().is_empty(), "there is none");
        std::fs::create_dir(state.path().join("sets")).unwrap();
        let file = state.path().join("sets/web.toml");
        std::fs::write(&file, "dir = \"/srv/web\"\nto = [\"local:/backup/web\"]\n").unwrap();
        assert_eq!((lines()[0].level, &*lines()[0].text), (Level::Ok, "1 file of options, good"));
        std::fs::write(&file, "dir = \"/srv/web\"\nqueue_memroy = \"1G\"\n").unwrap();
        let found = lines();
        assert_eq!((found.len(), found[0].level), (1, Level::Fail));
        assert!(found[0].text.contains("web.toml:2") && found[0].text.contains("queue_memroy"), "{found:?}");
    }
}
