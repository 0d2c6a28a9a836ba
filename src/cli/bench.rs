//! `standin bench`: from what was typed to a benchmark, and its report.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use rustix::fs::Access;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::args::Common;
use super::{Outcome, output};
use crate::bench::{self, Choice, Earlier, Line, MirrorSizes, Settings};
use crate::failure::Failure;
use crate::preflight::check_root_user;
use crate::units::parse_size;

#[derive(Debug, Args)]
pub struct Bench {
    /// Where to measure; everything is made in a directory of its own there and removed
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Length of big files
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "quick")]
    pub size: Option<u64>,
    /// Number of small files
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000), conflicts_with = "quick")]
    pub files: Option<u64>,
    /// Rounds; the table has the medians
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: Option<u32>,
    /// Measure these lines only
    #[arg(long, value_enum, value_name = "LINE", value_delimiter = ',')]
    pub only: Vec<Line>,
    /// Measure these beside the plain directory only
    #[arg(long, value_enum, value_name = "VARIANT", value_delimiter = ',')]
    pub variants: Vec<Choice>,
    /// Another standin program: measure it beside this one in the same rounds, and judge each line
    #[arg(long, value_name = "BINARY")]
    pub against: Option<PathBuf>,
    /// Judge each line beside a run that was kept with --json
    #[arg(long, value_name = "FILE", conflicts_with = "no_lines")]
    pub compare: Option<PathBuf>,
    /// Also measure how far the replica is behind, what a change costs on the wire, and how fast a
    /// long stream goes to a target daemon
    #[arg(long)]
    pub replication: bool,
    /// Also measure what compression saves and costs, on text, pages of a database, and random bytes
    #[arg(long)]
    pub compression: bool,
    /// Put the program and the daemons on one processor [default: where the scheduler puts them]
    #[arg(long)]
    pub pin: bool,
    /// libfuse's example program passthrough_hp [default: the one in PATH]
    #[arg(long, value_name = "BINARY")]
    pub passthrough_hp: Option<PathBuf>,
    /// Also measure copies of whole trees to a target daemon, beside an rsync daemon
    #[arg(long)]
    pub mirror: bool,
    /// Small files of the copies
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1000..=10_000_000), requires = "mirror")]
    pub mirror_files: Option<u64>,
    /// Length of the large file of the copies
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "mirror")]
    pub mirror_size: Option<u64>,
    /// Leave the lines out, measure replication, copies or compression alone
    #[arg(long, conflicts_with = "only")]
    pub no_lines: bool,
    /// How long to measure the lag of appends
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub lag_seconds: Option<u64>,
    /// Length of the file for random rewrites
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub rewrite_size: Option<u64>,
    /// Length of the stream to a target daemon
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub stream_size: Option<u64>,
    /// Little of everything: shows that it works, not how fast it is
    #[arg(long)]
    pub quick: bool,
}

const MIB: u64 = 1 << 20;

/// Longest big file, in bytes: several of them must fit on a disk.
const SIZE_MAX: u64 = 1 << 40;

pub(super) fn run(common: &Common, args: &Bench) -> Outcome {
    check_root_user(rustix::process::geteuid().as_raw())?;
    let settings = settings(args)?;
    let program = std::env::current_exe().map_err(|error| {
        refused(format!("This program does not find itself: {error}."), "Mount /proc and try again.")
    })?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|error| refused(format!("Signals cannot be caught: {error}."), ""))?;
    }
    let earlier = args.compare.as_deref().map(Earlier::read).transpose()?;
    let mut report = bench::run(&args.dir, &program, &settings, &stop)?;
    report.compared = earlier.map(|earlier| earlier.compare(&report));
    if common.json {
        output::json(&report);
    } else {
        output::text(&bench::text(&report));
    }
    Ok(0)
}

fn settings(args: &Bench) -> Result<Settings, Failure> {
    if args.no_lines && !args.replication && !args.mirror && !args.compression {
        return Err(refused(
            "Without lines nothing is measured.".into(),
            "Add --replication, --mirror or --compression.",
        ));
    }
    let defaults = Settings::default();
    let defaults = if args.quick { defaults.quick() } else { defaults };
    let lines = match (args.no_lines, args.only.as_slice()) {
        (true, _) => Vec::new(),
        (false, []) => defaults.lines,
        (false, only) => Line::all().iter().copied().filter(|line| only.contains(line)).collect(),
    };
    Ok(Settings {
        size: whole(args.size.unwrap_or(defaults.size))?,
        files: args.files.unwrap_or(defaults.files),
        rounds: args.rounds.unwrap_or(defaults.rounds.max(rounds_of(args))),
        lines,
        variants: variants(args),
        against: args.against.as_deref().map(program).transpose()?,
        passthrough_hp: args
            .passthrough_hp
            .as_deref()
            .map(program)
            .transpose()?
            .unwrap_or(defaults.passthrough_hp),
        pin: args.pin,
        mirror: args.mirror.then(|| mirror(args)).transpose()?,
        compression: args.compression,
        replication: args.replication,
        lag_time: args.lag_seconds.map_or(defaults.lag_time, Duration::from_secs),
        stream_size: whole(args.stream_size.unwrap_or(defaults.stream_size))?,
        rewrite_size: whole(args.rewrite_size.unwrap_or(defaults.rewrite_size))?,
    })
}

fn mirror(args: &Bench) -> Result<MirrorSizes, Failure> {
    let usual = if args.quick { MirrorSizes::QUICK } else { MirrorSizes::USUAL };
    let files = args.mirror_files.unwrap_or(usual.files);
    Ok(MirrorSizes { files, large: whole(args.mirror_size.unwrap_or(usual.large))? })
}

/// With fewer than eight rounds one disturbed round decides a comparison.
const ROUNDS_AGAINST: u32 = 8;

fn rounds_of(args: &Bench) -> u32 {
    if args.against.is_some() && !args.quick { ROUNDS_AGAINST } else { 1 }
}

/// Two programs of this product are compared alone, unless more is asked for: fewer others are
/// fewer disturbances.
fn variants(args: &Bench) -> Vec<Choice> {
    match (args.variants.as_slice(), &args.against) {
        ([], None) => Choice::usual(),
        ([], Some(_)) => vec![Choice::Null, Choice::Replicating],
        (chosen, _) => chosen.to_vec(),
    }
}

/// A program that is to be run from anywhere.
fn program(path: &Path) -> Result<PathBuf, Failure> {
    let found = path
        .canonicalize()
        .and_then(|path| rustix::fs::access(&path, Access::EXEC_OK).map(|()| path).map_err(Into::into));
    found.map_err(|error| {
        refused(format!("{} cannot be run: {error}.", path.display()), "Name a standin program.")
    })
}

/// Whole MiB, within bounds.
fn whole(size: u64) -> Result<u64, Failure> {
    if (MIB..=SIZE_MAX).contains(&size) {
        return Ok(size / MIB * MIB);
    }
    Err(refused(
        format!("A file of {} is not measured.", crate::units::size(size)),
        "Give it between 1 MiB and 1 TiB.",
    ))
}

fn refused(what: String, next: &str) -> Failure {
    Failure::new(what, "Nothing was written.", next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        bench: Bench,
    }

    fn typed(words: &[&str]) -> Result<Settings, String> {
        let words = std::iter::once("bench").chain(words.iter().copied());
        let typed = Typed::try_parse_from(words).map_err(|error| error.to_string())?;
        settings(&typed.bench).map_err(|failure| failure.to_string())
    }

    #[test]
    fn options_become_settings() {
        let default = typed(&[]).unwrap();
        assert_eq!((default.size, default.files, default.rounds), (256 << 20, 2000, 5));
        assert_eq!(default.lines, Line::all());
        assert!(!default.replication);

        let chosen = typed(&["/x", "--size", "3.5M", "--only", "unlink,write-1m", "--rounds", "1"]).unwrap();
        assert_eq!((chosen.size, chosen.rounds), (3 << 20, 1));
        assert_eq!(chosen.lines, [Line::Write1M, Line::Unlink]);

        let against = typed(&["--against", "/bin/true"]).unwrap();
        assert_eq!(
            (against.rounds, against.variants.as_slice()),
            (8, &[Choice::Null, Choice::Replicating][..])
        );
        let some = typed(&["--variants", "null,bindfs"]).unwrap();
        assert_eq!(some.variants, [Choice::Null, Choice::Bindfs]);

        let quick = typed(&["--quick", "--replication", "--no-lines"]).unwrap();
        assert!(quick.lines.is_empty() && quick.replication && quick.size < default.size);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for words in [
            &["--size", "4K"][..],
            &["--size", "2T"],
            &["--files", "0"],
            &["--rounds", "0"],
            &["--only", "nonsense"],
            &["--no-lines"],
            &["--against", "/nonexistent/standin"],
            &["--variants", "native"],
        ] {
            assert!(typed(words).is_err(), "{words:?}");
        }
    }
}
