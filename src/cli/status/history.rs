//! `standin status --history`: the last quarter of an hour and the last day of each connection.

use serde_json::json;

use crate::cli::args::{self, Common};
use crate::cli::curve::{self, Frame};
use crate::cli::find::find;
use crate::cli::{Outcome, output};
use crate::control::ClientError;
use crate::events::{MINUTES, SECONDS, Sample, Series};
use crate::failure::Failure;
use crate::units;

/// Columns of a curve.
const COLUMNS: usize = 60;
pub(super) fn history(common: &Common, args: &args::Status) -> Outcome {
    let found = find(common, args.set.as_deref())?;
    let failed = |error: ClientError| {
        Failure::new(
            format!("{} does not tell its history: {error}.", found.status.name),
            "Nothing was changed.",
            "A daemon of an older version keeps none.",
        )
    };
    let connections = found.client()?.history().map_err(failed)?;
    if common.json {
        output::json(&json!({ "name": found.status.name, "connections": connections }));
    } else if connections.is_empty() {
        output::text("There is no history: sources keep one of each connection, from their start on.");
    } else {
        output::text(&connections.iter().map(text).collect::<Vec<_>>().join("\n"));
    }
    Ok(0)
}

fn text(series: &Series) -> String {
    let id = series.connection.get(..8).unwrap_or(&series.connection);
    let mut text = format!("connection {id}  {}\n", series.target);
    let parts = [
        (&series.seconds, SECONDS, 1000, "15 minutes, each second"),
        (&series.minutes, MINUTES, 60_000, "24 hours, each minute"),
    ];
    for (samples, full, each_ms, what) in parts {
        let span_ms = full as u64 * each_ms;
        text += &format!("  the last {what} ({} of {full})\n", samples.len());
        let seconds = |value: f64| format!("{value:.1} s");
        let bytes = |value: f64| units::size(value as u64);
        let rate = |value: f64| format!("{}/s", units::size(value as u64));
        text += &line("behind", samples, span_ms, |one| one.lag_seconds.map(f64::from), seconds);
        text += &line("queued", samples, span_ms, |one| Some(one.queued_bytes as f64), bytes);
        text += &line("captured", samples, span_ms, |one| Some(one.captured_rate.into()), rate);
        text += &line("sent", samples, span_ms, |one| Some(one.sent_rate.into()), rate);
    }
    text
}

/// One line: the time up to the last sample.
fn line(
    name: &str,
    samples: &[Sample],
    span_ms: u64,
    of: impl Fn(&Sample) -> Option<f64>,
    words: impl Fn(f64) -> String,
) -> String {
    let Some(last) = samples.last() else { return format!("    {name:<9} (nothing yet)\n") };
    let frame = Frame { now_unix_ms: last.at_unix_ms, span_ms, width: COLUMNS, height: 1, ascii: false };
    let curve = curve::curve(samples, frame, of);
    let said = |value: Option<f64>| value.map_or("unknown".to_owned(), &words);
    let (now, most) = (said(curve.now), said(curve.most));
    format!("    {name:<9} {}  now {now}, at most {most}\n", curve.lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_with_the_last_sample() {
        let sample = |at: u64, lag_seconds| Sample { at_unix_ms: at, lag_seconds, ..Sample::default() };
        let mut samples: Vec<Sample> = (1..=900).map(|at| sample(at * 1000, Some(0.0))).collect();
        samples[0].lag_seconds = Some(8.0);
        samples[450].lag_seconds = Some(4.0);
        samples[884..].iter_mut().for_each(|one| one.lag_seconds = None);
        let of = |one: &Sample| one.lag_seconds.map(f64::from);
        let line = line("behind", &samples, 900_000, of, |value| format!("{value} s"));
        let curve: Vec<char> = line.split_whitespace().nth(1).unwrap().chars().collect();
        assert_eq!((curve.len(), curve[0], curve[1], curve[30], curve[59]), (60, '█', '▁', '▄', '?'));
        assert!(line.ends_with("now unknown, at most 8 s\n"), "{line}");
    }
}
