//! `standin size`: what the changes of a protected directory come to, and what bandwidth and queue they would need.
//!
//! The daemon is asked once a second what it has captured; who sends it where is of no concern, and a `null:` target
//! will do.

mod report;

use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use self::report::{Outage, Report, Sample};
use super::args::Common;
use super::find::{Found, find_role, no_answer};
use super::{Outcome, output};
use crate::control::{RoleName, Status};
use crate::failure::Failure;
use crate::units::{self, parse_duration};

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(1);
/// What is measured for a shorter time says nothing.
const SHORTEST: Duration = Duration::from_secs(3);
/// A sample takes a few words of memory: for a month some tens of megabytes.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 3600);

#[derive(Debug, Args)]
pub struct Size {
    /// Name or directory of a replication set that is protected [default: the only one]
    set: Option<PathBuf>,
    /// How long it is measured, as in 10m, 1d: a time in which all happens that will
    #[arg(long = "for", value_name = "T", value_parser = parse_duration, default_value = "1m")]
    how_long: Duration,
    /// A queue for a target that is away for so long; may be repeated [default: 1h, 8h, 24h]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    outage: Vec<Duration>,
}

pub(super) fn run(common: &Common, args: &Size) -> Outcome {
    if args.how_long < SHORTEST || args.how_long > LONGEST {
        return Err(Failure::new(
            "That is too short, or too long, to be measured.",
            "Nothing was begun.",
            format!("Give --for from {} to {}.", units::duration(SHORTEST), units::duration(LONGEST)),
        ));
    }
    let found = find_role(common, args.set.as_deref(), RoleName::Source)?;
    let samples = measure(common, &found, args.how_long)?;
    let hour = Duration::from_secs(3600);
    let outages = if args.outage.is_empty() { vec![hour, 8 * hour, 24 * hour] } else { args.outage.clone() };
    let report = Report::of(&found.status.name, &samples, &outages);
    if common.json {
        output::json(&report);
    } else {
        output::text(&text(&report));
    }
    Ok(0)
}

/// Errors: the daemon has ended, or was started anew: what it captured is counted from its start.
fn measure(common: &Common, found: &Found, how_long: Duration) -> Result<Vec<Sample>, Failure> {
    let mut client = found.client()?;
    let began = Instant::now();
    let mut samples = Vec::new();
    let mut said = began;
    loop {
        let status = client.status().map_err(|error| no_answer(&found.status.name, &error))?;
        samples.push(sample(&status, began.elapsed()));
        let over = began.elapsed();
        if over >= how_long {
            return Ok(samples);
        }
        if !common.json && said.elapsed() >= 10 * EVERY {
            said = Instant::now();
            output::aside(&format!("measured {} of {}", units::duration(over), units::duration(how_long)));
        }
        // At whole seconds from the beginning, and at the end.
        let next = EVERY * samples.len() as u32;
        std::thread::sleep(next.min(how_long).saturating_sub(began.elapsed()));
    }
}

fn sample(status: &Status, at: Duration) -> Sample {
    let queue = status.source().map(|source| source.queue).unwrap_or_default();
    Sample { at: at.as_secs_f64(), bytes: queue.captured_bytes, packets: queue.captured_packets }
}

/// The report in words.
fn text(report: &Report) -> String {
    let rate = |rate: f64| format!("{}/s", units::size(rate.round() as u64));
    let mut text = format!(
        "{}: {} and {} packets captured in {}\n",
        report.set,
        units::size(report.bytes),
        units::count(report.packets),
        units::duration(Duration::from_secs_f64(report.seconds))
    );
    let _ = writeln!(
        text,
        "  mean {}; of all seconds 50 % below {}, 95 % below {}, 99 % below {}",
        rate(report.mean),
        rate(report.p50),
        rate(report.p95),
        rate(report.p99)
    );
    let peaks = [("second", report.peak_second), ("minute", report.peak_minute), ("hour", report.peak_hour)];
    for (name, peak) in peaks {
        if let Some(peak) = peak {
            let _ = writeln!(text, "  busiest {name}: {}", rate(peak));
        }
    }
    for Outage { seconds, bytes, option, is_measured } in &report.outages {
        let away = units::duration(Duration::from_secs(*seconds));
        let by = if *is_measured { "measured" } else { "extrapolated: measured for a shorter time" };
        let _ =
            writeln!(text, "  queue for {away} without the target: {} ({by}); {option}", units::size(*bytes));
    }
    text
}
