//! Benchmarks: what the capturing mount costs an application, and how fast a replica follows.
//!
//! ```text
//! run ── Workshop ─┬─ Place native       a plain directory
//!                  ├─ Place null         standin protect --to null:
//!                  ├─ Place replicating  standin protect --to local:
//!                  ├─ Place served       standin protect --to standin://, and standin serve
//!                  │                     these once more by the program of --against
//!                  └─ Place bindfs, ...  where it is installed
//!                     stream             standin protect --to standin://, and standin serve
//!        Measurement: for each round, for each line, for each place: one Load
//! ```
//! All places lie side by side on one file system, the mounts are served by real daemons in
//! processes of their own, and what a load wrote is looked for where it has to have arrived, so
//! that nothing that failed can look fast. Processes, mounts and files go away with their guards,
//! however the run ends.

mod against;
mod cold;
mod compression;
mod content;
mod earlier;
mod error;
mod line;
mod load;
mod measure;
mod memory;
mod mirror;
mod mount;
mod pin;
mod place;
mod placement;
mod process;
mod replication;
mod report;
mod served;
mod stats;
mod stream;
mod table;
#[cfg(test)]
pub mod tests;
mod variant;
mod verdict;
mod watched;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::Failure;
use crate::preflight::{FsFacts, MountTable, kernel_version, resolve};
use against::Against;
use error::{Context, Result};
use measure::{Measured, Measurement};
use mirror::Mirror;
use pin::Pinned;
use place::{Builder, Place, Workshop};
use report::{LineReport, Machine, Sizes};
use variant::Variant;

pub use earlier::Earlier;
pub use line::Line;
pub use mirror::MirrorSizes;
pub use report::Report;
pub use table::text;
pub use variant::Choice;

/// What is measured, and how much of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Length of big files, in bytes; whole MiB, one at least.
    pub size: u64,
    /// Number of small files.
    pub files: u64,
    pub rounds: u32,
    /// May be empty.
    pub lines: Vec<Line>,
    /// Measured beside the plain directory.
    pub variants: Vec<Choice>,
    /// Another `standin`, measured beside this one.
    pub against: Option<PathBuf>,
    /// libfuse's example program; a name alone is looked for in `PATH`.
    pub passthrough_hp: PathBuf,
    /// Everything on one processor.
    pub pin: bool,
    /// Also measure copies of whole trees.
    pub mirror: Option<MirrorSizes>,
    /// Also measure what compression saves and costs.
    pub compression: bool,
    /// Also measure how the replica follows.
    pub replication: bool,
    pub lag_time: Duration,
    /// Length of the file for random rewrites, in bytes; whole MiB.
    pub rewrite_size: u64,
    /// Length of the stream to a target daemon, in bytes; whole MiB.
    pub stream_size: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            size: 256 << 20,
            files: 2000,
            rounds: 5,
            lines: Line::all().to_vec(),
            variants: Choice::usual(),
            against: None,
            passthrough_hp: "passthrough_hp".into(),
            pin: false,
            mirror: None,
            compression: false,
            replication: false,
            lag_time: Duration::from_secs(5),
            rewrite_size: 1 << 30,
            stream_size: 2 << 30,
        }
    }
}

impl Settings {
    /// Small enough to take some seconds: shows that everything works, not how fast it is.
    pub fn quick(self) -> Settings {
        Settings {
            size: 16 << 20,
            files: 200,
            rounds: 2,
            lag_time: Duration::from_secs(1),
            rewrite_size: 64 << 20,
            stream_size: 64 << 20,
            mirror: self.mirror.map(|_| MirrorSizes::QUICK),
            ..self
        }
    }

    fn columns(&self) -> Vec<Variant> {
        match (self.lines.is_empty(), self.replication) {
            (true, false) => Vec::new(),
            (true, true) => {
                let other = self.against.as_ref().map(|_| Variant::ReplicatingAgainst);
                [Some(Variant::Replicating), other].into_iter().flatten().collect()
            }
            (false, _) => variant::columns(&self.variants, self.against.is_some()),
        }
    }

    /// Bytes on disk at the same time: the big file at all places and their replicas, one more
    /// file at a place and its replica; small files with an inode and a block each; the rewritten
    /// file and its replica; the stream and its replica after that.
    fn room(&self) -> u64 {
        let columns = self.columns();
        let replicas = columns.iter().filter(|variant| variant.replicates()).count();
        let copies = (columns.len() + replicas) as u64;
        // Files of the lines, the tree, its copy, the repository.
        let small = (self.files * 4 * copies + 2 * 10_000) * 8192;
        let rewritten = if self.replication { 2 * self.rewrite_size } else { 0 };
        let streamed = if self.replication { 2 * self.stream_size } else { 0 };
        (copies + 2) * self.size + small + rewritten + streamed + self.mirror.map_or(0, mirrored)
    }
}

/// Runs everything in a directory of its own in `dir`. `program` is the `standin` to measure;
/// `stop` ends the run early.
///
/// Errors: it cannot run here, it was stopped, or a load did not do what it claimed.
pub fn run(
    dir: &Path,
    program: &Path,
    settings: &Settings,
    stop: &AtomicBool,
) -> std::result::Result<Report, Failure> {
    Run { program: program.to_owned(), settings, stop }.run(dir).map_err(error::Error::into_failure)
}

struct Run<'a> {
    program: PathBuf,
    settings: &'a Settings,
    stop: &'a AtomicBool,
}

impl Run<'_> {
    fn run(&self, dir: &Path) -> Result<Report> {
        let dir = MountTable::read().and_then(|mounts| resolve(dir, &mounts)).at(dir)?;
        place::check_room(&dir, self.settings.room())?;
        let load_before = load_average();
        // Until the end: processes are bound as those that started them were.
        let pinned = self.settings.pin.then(Pinned::new).transpose()?;
        let workshop = Workshop::new(&dir)?;
        let mut notes = Vec::new();
        notes.extend(discards(&dir).then(|| {
            "this file system discards freed blocks at once (mount option discard): unlink is bound by the \
             device, and removed files disturb what comes next"
                .to_owned()
        }));
        // Dropped before the workshop: mounts go before directories.
        let places = self.places(&workshop, &mut notes)?;
        let lines = self.lines(&mut notes);
        let measured = self.measure(&workshop, &places, &lines)?;
        notes.extend(measured.notes);
        let replication = self.replication(&places, Variant::Replicating)?;
        let replication_other = self.replication(&places, Variant::ReplicatingAgainst)?;
        let stream = self.stream(&workshop)?;
        let mirror = self.mirror(&workshop)?;
        let compression = match self.settings.compression {
            true => compression::measure(self.settings.size),
            false => Vec::new(),
        };
        Ok(Report {
            version: env!("CARGO_PKG_VERSION"),
            machine: machine(&dir, load_before, pinned.as_ref().map(|pinned| pinned.cpu))?,
            sizes: Sizes {
                size_bytes: self.settings.size,
                files: self.settings.files,
                rounds: self.settings.rounds,
            },
            variants: places.iter().map(|place| place.variant).collect(),
            against: self.against(&measured.lines),
            compared: None,
            lines: measured.lines,
            cooling: measured.cooling,
            replication,
            replication_other,
            stream,
            mirror,
            compression,
            notes,
        })
    }

    fn places(&self, workshop: &Workshop, notes: &mut Vec<String>) -> Result<Vec<Place>> {
        let builder = Builder {
            workshop,
            program: &self.program,
            against: self.settings.against.as_deref(),
            passthrough_hp: &self.settings.passthrough_hp,
            stop: self.stop,
        };
        let mut places = Vec::new();
        for variant in self.settings.columns() {
            match builder.build(variant)? {
                Ok(place) => places.push(place),
                Err(why) => notes.push(why),
            }
        }
        if places.iter().any(|place| place.variant.replicates()) && !self.settings.lines.is_empty() {
            notes.push(
                "replicating: source and target share this machine; once the queue is full, writers go at \
                 the pace of the replica"
                    .into(),
            );
        }
        Ok(places)
    }

    /// Those whose program is here.
    fn lines(&self, notes: &mut Vec<String>) -> Vec<Line> {
        let (can, cannot): (Vec<Line>, Vec<Line>) =
            self.settings.lines.iter().partition(|line| line.program().is_none_or(load::is_installed));
        notes.extend(cannot.iter().filter_map(|line| {
            line.program().map(|program| format!("no line {line}: {program} is not installed"))
        }));
        can
    }

    fn against(&self, lines: &[LineReport]) -> Option<Against> {
        let other = self.settings.against.as_ref()?;
        let name = format!("{} ({})", other.display(), version_of(other));
        Some(against::in_one_run(name, lines))
    }

    fn measure(&self, workshop: &Workshop, places: &[Place], lines: &[Line]) -> Result<Measured> {
        let progress = progress_bar();
        let (settings, stop, root) = (self.settings, self.stop, workshop.root.as_path());
        let measured = Measurement { settings, lines, places, root, progress: &progress, stop }.run();
        progress.finish_and_clear();
        measured
    }

    fn replication(&self, places: &[Place], variant: Variant) -> Result<Option<replication::Replication>> {
        let place = places.iter().find(|place| place.variant == variant);
        let Some(place) = place.filter(|_| self.settings.replication) else { return Ok(None) };
        let progress = progress_bar();
        let (settings, stop) = (self.settings, self.stop);
        let replication = replication::Measurement { settings, place, progress: &progress, stop }.run();
        progress.finish_and_clear();
        replication.map(Some)
    }

    fn stream(&self, workshop: &Workshop) -> Result<Option<stream::Stream>> {
        if !self.settings.replication {
            return Ok(None);
        }
        let rounds = self.settings.rounds.min(LONG_ROUNDS_MAX);
        let progress = progress_bar();
        progress.set_message("stream to a target daemon");
        let measurement = stream::Measurement::start(workshop, &self.program, self.stop)?;
        let stream = measurement.run(self.settings.stream_size, rounds);
        progress.finish_and_clear();
        stream.map(Some)
    }

    fn mirror(&self, workshop: &Workshop) -> Result<Option<Mirror>> {
        let Some(sizes) = self.settings.mirror else { return Ok(None) };
        let (program, against) = (self.program.as_path(), self.settings.against.as_deref());
        let rounds = self.settings.rounds.min(LONG_ROUNDS_MAX);
        let progress = progress_bar();
        let say = |what: &str| progress.set_message(what.to_owned());
        let stop = self.stop;
        let mirror = mirror::Measurement { workshop, program, against, sizes, rounds, stop, say: &say }.run();
        progress.finish_and_clear();
        mirror.map(Some)
    }
}

/// Bytes on disk at the same time: both trees, and a replica of each for each copier.
fn mirrored(sizes: MirrorSizes) -> u64 {
    (sizes.files * 8192 + sizes.large) * 4
}

/// Rounds of the stream and of the copies at most: each moves gigabytes, or takes seconds.
const LONG_ROUNDS_MAX: u32 = 3;

/// On a terminal only.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}  {eta} left  {msg}") {
        bar.set_style(style);
    }
    bar
}

fn machine(dir: &Path, load_before: f64, pinned_to: Option<usize>) -> Result<Machine> {
    Ok(Machine {
        file_system: FsFacts::of(dir).at(dir)?.fs_type,
        kernel: kernel_version().2,
        pinned_to,
        cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get()),
        load_before,
        load_after: load_average(),
    })
}

/// What a program says of itself; a question mark where it says nothing.
fn version_of(program: &Path) -> String {
    let output = std::process::Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "?".into())
}

/// Whether the file system of a directory is mounted with `discard`. `false` where it is unknown.
fn discards(dir: &Path) -> bool {
    let Ok(mounts) = MountTable::read() else { return false };
    let Some(id) = mounts.holding(dir).map(|mount| mount.id.to_string()) else { return false };
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = table.lines().find(|line| line.split(' ').next() == Some(id.as_str()));
    let options = line.and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    options.split(',').any(|option| option == "discard")
}

/// Of the last minute; 0 where the kernel does not say.
fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}
